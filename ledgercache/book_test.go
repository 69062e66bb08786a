package ledgercache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
)

var ctx = context.Background()

// shop is a book in a directory of its own that a test may close, copy, damage and open again.
type shop struct {
	*Book
	t    *testing.T
	opts Options
	now  time.Time
	mu   sync.Mutex
}

func newShop(t *testing.T) *shop { return newShopWith(t, func(*Options) {}) }

func newShopWith(t *testing.T, change func(*Options)) *shop {
	s := &shop{t: t, now: time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC)}
	s.opts = Options{Dir: t.TempDir(), Key: [32]byte{1, 2, 3}, TerminalID: "10000001", ShiftAutoOpen: true, AutoPrint: true, Now: s.clock}
	change(&s.opts)
	s.open()
	t.Cleanup(func() { s.Close() })
	return s
}

func (s *shop) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *shop) pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

func (s *shop) open() {
	s.t.Helper()
	b, err := Open(ctx, s.opts)
	if err != nil {
		s.t.Fatal(err)
	}
	s.Book = b
}

func (s *shop) reopen() {
	s.t.Helper()
	if err := s.Close(); err != nil {
		s.t.Fatal(err)
	}
	s.open()
}

// online is a sale by a code of its own.
func (s *shop) online(n int) New {
	return New{OutTradeNo: fmt.Sprintf("A%06d", n), Mode: payment.ByCode, TotalFen: 1250, OperatorID: "op1", BodyHash: []byte{byte(n)},
		Code: &Code{Text: fmt.Sprintf("86%015d", n), ScannedAt: s.clock()}}
}

func (s *shop) must(p payment.Payment, err error) payment.Payment {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *shop) sell(n int) payment.Payment {
	s.t.Helper()
	p, _, err := s.OpenTrade(ctx, s.online(n))
	return s.must(p, err)
}

func (s *shop) paid(p payment.Payment) payment.Answered {
	return payment.Answered{TradeNo: p.TradeNo, To: payment.OpPay, State: payment.Success, TotalFen: p.TotalFen, PaidFen: p.TotalFen, FeeFen: 5,
		PaidAt: s.clock(), LedgerNo: "01KASF3NAZ0123456789ABCDEF"}
}

func TestASaleIsOneStepAndSurvivesReopening(t *testing.T) {
	s := newShop(t)
	p := s.sell(1)
	if p.State != payment.Unknown || p.Attempt != 1 || p.ShiftID == "" {
		t.Fatalf("%+v", p)
	}
	p = s.must(s.Answer(ctx, s.paid(p)))
	if p.State != payment.Success || p.Copies != 1 {
		t.Fatalf("%+v", p)
	}
	s.reopen()
	got := s.must(s.Trade("A000001"))
	if !reflect.DeepEqual(got, p) {
		t.Fatalf("before %+v\nafter  %+v", p, got)
	}
	shift, ok, err := s.Shift()
	if err != nil || !ok || shift.Count != 1 || shift.TotalFen != 1250 || shift.FeeFen != 5 || shift.Number != 1 {
		t.Fatalf("%+v %v %v", shift, ok, err)
	}
	if jobs, err := s.OpenPrints(); err != nil || len(jobs) != 1 || jobs[0].TradeNo != p.TradeNo || jobs[0].Copy != 1 {
		t.Fatalf("%+v %v", jobs, err)
	}
}

func TestOneOutTradeNoIsOnePaymentUnderFiftyIdenticalCalls(t *testing.T) {
	s := newShop(t)
	var group sync.WaitGroup
	numbers := make([]string, 50)
	replays := make([]bool, 50)
	for i := range numbers {
		group.Go(func() {
			p, replayed, err := s.OpenTrade(ctx, s.online(7))
			if err != nil {
				t.Error(err)
			}
			numbers[i], replays[i] = p.TradeNo, replayed
		})
	}
	group.Wait()
	first := 0
	for i := range numbers {
		if numbers[i] != numbers[0] {
			t.Fatalf("two trades: %s and %s", numbers[i], numbers[0])
		}
		if !replays[i] {
			first++
		}
	}
	if first != 1 {
		t.Errorf("%d calls believe that they were the first", first)
	}
	other := s.online(7)
	other.BodyHash = []byte{99}
	if _, _, err := s.OpenTrade(ctx, other); !errors.Is(err, ErrOutTradeNoUsed) {
		t.Errorf("another body: %v", err)
	}
}

func TestACodeIsChargedOnce(t *testing.T) {
	s := newShop(t)
	s.sell(1)
	again := s.online(2)
	again.Code.Text = s.online(1).Code.Text
	if p, _, err := s.OpenTrade(ctx, again); err != nil || p.State != payment.PayError || p.Reason != "CODE_REPLAYED" {
		t.Fatalf("an ONLINE code twice: %+v %v", p, err)
	}
	signed := func(n int, text string, counter uint32, total money.Fen) payment.Payment {
		t.Helper()
		o := s.online(n)
		o.TotalFen = total
		o.Code = &Code{Text: text, Wallet: []byte("wallet key, thirty-two bytes ..."), Counter: counter, MostFen: 2000, ScannedAt: s.clock()}
		p, _, err := s.OpenTrade(ctx, o)
		return s.must(p, err)
	}
	if p := signed(3, "s7", 7, 1250); p.State != payment.Unknown {
		t.Fatalf("%+v", p)
	}
	if p := signed(4, "s7b", 7, 1250); p.Reason != "CODE_REPLAYED" {
		t.Errorf("the same counter: %s", p.Reason)
	}
	if p := signed(5, "s6", 6, 1250); p.Reason != "CODE_REPLAYED" {
		t.Errorf("a lower counter: %s", p.Reason)
	}
	if p := signed(6, "s8", 8, 2001); p.Reason != "OVER_CODE_LIMIT" {
		t.Errorf("over its limit: %s", p.Reason)
	}
	if p := signed(7, "s8", 8, 2000); p.State != payment.Unknown {
		t.Errorf("a code refused for its limit was not submitted and may be used: %+v", p)
	}
}

func TestTheCounterServesOneTradeAtATime(t *testing.T) {
	s := newShop(t)
	arm := func(n int, mode payment.Mode) (payment.Payment, error) {
		p, _, err := s.OpenTrade(ctx, New{OutTradeNo: fmt.Sprintf("C%d", n), Mode: mode, TotalFen: 800, BodyHash: []byte{byte(n)}, ExpiresAt: s.clock().Add(time.Minute), OrderText: "code"})
		return p, err
	}
	first := s.must(arm(1, payment.AtCounter))
	if _, err := arm(2, payment.ByOrder); !errors.Is(err, ErrCounterBusy) {
		t.Fatalf("a second one: %v", err)
	}
	s.sell(9) // a code from the register never takes the counter
	s.must(s.Cancel(ctx, first.TradeNo, "op1"))
	second := s.must(arm(2, payment.ByOrder))
	if p := s.must(s.Cancel(ctx, second.TradeNo, "op1")); p.State != payment.Unknown || p.Reason != payment.ReasonReversing {
		t.Fatalf("a shown order that is cancelled: %+v", p)
	}
	third := s.must(arm(3, payment.AtCounter))
	s.reopen()
	if holder, err := s.Counter(); err != nil || holder != third.TradeNo {
		t.Fatalf("after reopening the counter belongs to %q, %v", holder, err)
	}
	s.must(s.SubmitCode(ctx, third.TradeNo, Code{Text: "861234567890123459", ScannedAt: s.clock()}))
	decline := payment.Answered{TradeNo: third.TradeNo, To: payment.OpPay, State: payment.PayError, Attempt: 1, Reason: "INSUFFICIENT_BALANCE"}
	if p := s.must(s.Answer(ctx, decline)); p.State != payment.NotPay || p.NextAction() != "rescan" {
		t.Fatalf("declined: %+v", p)
	}
	if p := s.must(s.SubmitCode(ctx, third.TradeNo, Code{Text: "862345678901234560", ScannedAt: s.clock()})); p.Attempt != 2 {
		t.Fatalf("the second code: %+v", p)
	}
	third = s.must(s.ByTradeNo(third.TradeNo))
	s.must(s.Answer(ctx, s.paid(third)))
	if holder, _ := s.Counter(); holder != "" {
		t.Errorf("still held by %s", holder)
	}
}

func TestRefundsKeepToWhatWasPaid(t *testing.T) {
	s := newShop(t)
	p := s.sell(1)
	refund := func(no string, fen money.Fen) (payment.Refund, error) {
		f, _, err := s.OpenRefund(ctx, NewRefund{OutRefundNo: no, TradeNo: p.TradeNo, RefundFen: fen, BodyHash: []byte(no), OperatorID: "m"})
		return f, err
	}
	if _, err := refund("R0", 100); !errors.Is(err, ErrNotPaid) {
		t.Fatalf("before it is paid: %v", err)
	}
	s.must(s.Answer(ctx, s.paid(p)))
	f, err := refund("R1", 1000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := refund("R2", 251); !errors.Is(err, ErrRefundTooMuch) {
		t.Errorf("too much while one is on its way: %v", err)
	}
	if _, err := s.RecordRefundAsk(ctx, f.RefundNo); err != nil {
		t.Fatal(err)
	}
	a := payment.RefundAnswered{RefundNo: f.RefundNo, State: payment.RefundSuccess, RefundFen: 1000, FeeBackFen: 4, At: s.clock()}
	for range 2 {
		if f, err = s.AnswerRefund(ctx, a); err != nil || f.State != payment.RefundSuccess {
			t.Fatalf("%+v %v", f, err)
		}
	}
	s.reopen()
	p = s.must(s.ByTradeNo(p.TradeNo))
	if p.RefundedFen != 1000 || p.RefundingFen != 0 || p.Refundable() != 250 || p.FeeLeft() != 1 || p.State != payment.Success {
		t.Errorf("%+v", p)
	}
	if _, err := refund("R3", 251); !errors.Is(err, ErrRefundTooMuch) {
		t.Errorf("more than is left: %v", err)
	}
	failed, err := refund("R4", 250)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.AnswerRefund(ctx, payment.RefundAnswered{RefundNo: failed.RefundNo, State: payment.RefundFailed, At: s.clock(), Reason: "MERCHANT_BALANCE"}); err != nil {
		t.Fatal(err)
	}
	if p = s.must(s.ByTradeNo(p.TradeNo)); p.Refundable() != 250 {
		t.Errorf("a refund that failed leaves %d", p.Refundable())
	}
	s.pass(366 * 24 * time.Hour)
	if _, err := refund("R5", 1); !errors.Is(err, ErrRefundTooLate) {
		t.Errorf("after a year: %v", err)
	}
	if shift, _, _ := s.Shift(); shift.RefundCount != 1 || shift.RefundFen != 1000 {
		t.Errorf("%+v", shift)
	}
}

func TestWhatContradictsABookIsAnAlarmAndChangesNothing(t *testing.T) {
	s := newShop(t)
	p := s.sell(1)
	p = s.must(s.Answer(ctx, s.paid(p)))
	bad := payment.Answered{TradeNo: p.TradeNo, State: payment.Closed, News: 3}
	for range 3 { // each question may bring the same contradiction: it is kept once
		if _, err := s.Answer(ctx, bad); !errors.Is(err, payment.ErrImpossible) {
			t.Fatal(err)
		}
	}
	unknown := payment.Answered{TradeNo: NewTradeNo(s.clock()), State: payment.Success, News: 4}
	if _, err := s.Answer(ctx, unknown); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	s.reopen()
	if got := s.must(s.ByTradeNo(p.TradeNo)); !reflect.DeepEqual(got, p) {
		t.Errorf("changed: %+v", got)
	}
	alarms, err := s.Alarms(10)
	if err != nil || len(alarms) != 2 {
		t.Fatalf("%+v %v", alarms, err)
	}
	if n, err := s.NewsCursor(); err != nil || n != 4 {
		t.Errorf("news cursor %d, %v: a push that cannot be applied must not be sent for ever", n, err)
	}
}

func TestAPrintJobIsSentAtMostOnce(t *testing.T) {
	s := newShop(t)
	p := s.sell(1)
	s.must(s.Answer(ctx, s.paid(p)))
	jobs, _ := s.OpenPrints()
	if _, err := s.RecordPrintSent(ctx, jobs[0].ID); err != nil {
		t.Fatal(err)
	}
	s.reopen()
	if _, err := s.RecordPrintSent(ctx, jobs[0].ID); !errors.Is(err, payment.ErrIllegalMove) {
		t.Fatalf("sent again: %v", err)
	}
	for range 2 {
		if j, err := s.FinishPrint(ctx, jobs[0].ID, PrintUnknown); err != nil || j.State != PrintUnknown {
			t.Fatalf("%+v %v", j, err)
		}
	}
	j, err := s.QueuePrint(ctx, p.TradeNo, "op2")
	if err != nil || j.Copy != 2 {
		t.Fatalf("a copy is number 2: %+v %v", j, err)
	}
}

func TestAWatcherThatFallsBehindIsDroppedAndTheWriterGoesOn(t *testing.T) {
	s := newShop(t)
	slow, quick := s.Watch(), s.Watch()
	seen := make(chan int)
	go func() {
		n := 0
		for range quick.C {
			n++
		}
		seen <- n
	}()
	p := s.sell(1)
	for range watchBuffer + 10 {
		s.must(s.RecordAsk(ctx, p.TradeNo, payment.OpQuery, ""))
	}
	n := 0
	for range slow.C {
		n++
	}
	if n != watchBuffer {
		t.Errorf("the slow watcher saw %d changes before it was dropped", n)
	}
	quick.Close()
	quick.Close()
	if n := <-seen; n < watchBuffer+10 {
		t.Errorf("the quick watcher saw %d", n)
	}
}

func TestTradesAreListedByDayNewestFirst(t *testing.T) {
	s := newShop(t)
	for i := range 5 {
		s.must(s.Answer(ctx, s.paid(s.sell(i))))
		s.pass(5 * time.Hour) // 10:00, 15:00, 20:00 on the 23rd in Shanghai, 01:00 and 06:00 on the 24th
	}
	day, next, err := s.Trades(Query{Date: "2026-11-23", Limit: 2})
	if err != nil || len(day) != 2 || day[0].OutTradeNo != "A000002" || next == "" {
		t.Fatalf("%d trades, next %q, %v", len(day), next, err)
	}
	rest, next, err := s.Trades(Query{Date: "2026-11-23", Limit: 2, Cursor: next})
	if err != nil || len(rest) != 1 || rest[0].OutTradeNo != "A000000" || next != "" {
		t.Fatalf("%d trades, next %q, %v", len(rest), next, err)
	}
	if all, _, err := s.Trades(Query{}); err != nil || len(all) != 5 {
		t.Errorf("%d, %v", len(all), err)
	}
	if none, _, err := s.Trades(Query{State: payment.Revoked}); err != nil || len(none) != 0 {
		t.Errorf("%d, %v", len(none), err)
	}
	for _, q := range []Query{{Limit: 501}, {Limit: -1}, {Date: "23.11.2026x"}, {Cursor: "zzz"}} {
		if _, _, err := s.Trades(q); !errors.Is(err, ErrQuery) {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

// TestTheCacheIsRebuiltFromTheJournalWhateverHappenedToIt damages only the cache; every answer must be the same after.
func TestTheCacheIsRebuiltFromTheJournalWhateverHappenedToIt(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, dir string){
		"vanished":          func(t *testing.T, dir string) { check(t, os.RemoveAll(filepath.Join(dir, "cache"))) },
		"manifest cut":      func(t *testing.T, dir string) { cut(t, filepath.Join(dir, "cache", "MANIFEST"), 10) },
		"manifest gone":     func(t *testing.T, dir string) { check(t, os.Remove(filepath.Join(dir, "cache", "MANIFEST"))) },
		"key registry torn": func(t *testing.T, dir string) { cut(t, filepath.Join(dir, "cache", "KEYREGISTRY"), 5) },
		"tables flipped":    func(t *testing.T, dir string) { flip(t, dir, "*.sst") },
		"tables gone":       func(t *testing.T, dir string) { remove(t, dir, "*.sst") },
		"zero-length value log": func(t *testing.T, dir string) {
			check(t, os.WriteFile(filepath.Join(dir, "cache", "000099.vlog"), nil, 0o600))
		},
		"power lost under it": func(t *testing.T, dir string) { check(t, os.Remove(filepath.Join(dir, "cache.clean"))) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t)
			for i := range 20 {
				s.must(s.Answer(ctx, s.paid(s.sell(i))))
			}
			want, _, err := s.Trades(Query{})
			check(t, err)
			check(t, s.Close())
			damage(t, s.opts.Dir)
			s.open()
			got, _, err := s.Trades(Query{})
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("%d trades, want %d, %v", len(got), len(want), err)
			}
			if _, _, err := s.OpenTrade(ctx, New{OutTradeNo: "B", Mode: payment.ByCode, TotalFen: 1, Code: &Code{Text: s.online(3).Code.Text, ScannedAt: s.clock()}}); err != nil {
				t.Fatal(err)
			}
			if p := s.must(s.Trade("B")); p.Reason != "CODE_REPLAYED" {
				t.Errorf("a spent code was forgotten: %+v", p)
			}
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func cut(t *testing.T, path string, n int64) {
	t.Helper()
	info, err := os.Stat(path)
	check(t, err)
	check(t, os.Truncate(path, info.Size()-n))
}

func each(t *testing.T, dir, pattern string, do func(path string)) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "cache", pattern))
	check(t, err)
	if len(paths) == 0 {
		t.Fatalf("no %s to damage", pattern)
	}
	for _, p := range paths {
		do(p)
	}
}

func flip(t *testing.T, dir, pattern string) {
	each(t, dir, pattern, func(path string) {
		raw, err := os.ReadFile(path)
		check(t, err)
		raw[len(raw)/3] ^= 0x10
		check(t, os.WriteFile(path, raw, 0o600))
	})
}

func remove(t *testing.T, dir, pattern string) {
	each(t, dir, pattern, func(path string) { check(t, os.Remove(path)) })
}

// TestACopyTakenAtAnyMomentOpensWithEveryAnsweredStep copies the directory under a running book, as a crash would leave it.
func TestACopyTakenAtAnyMomentOpensWithEveryAnsweredStep(t *testing.T) {
	s := newShop(t)
	for round := range 5 {
		for i := range 7 {
			s.sell(round*7 + i)
		}
		copied := t.TempDir()
		if out, err := exec.Command("cp", "-a", s.opts.Dir+"/.", copied).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		o := s.opts
		o.Dir = copied
		b, err := Open(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		for i := range (round + 1) * 7 {
			if p, err := b.Trade(s.online(i).OutTradeNo); err != nil || p.State != payment.Unknown {
				t.Errorf("round %d: trade %d is %s, %v", round, i, p.State, err)
			}
		}
		check(t, b.Close())
	}
}

func TestABookLivesOnInItsMirror(t *testing.T) {
	s := newShop(t)
	check(t, s.Close())
	s.opts.Dir, s.opts.Mirror = t.TempDir(), t.TempDir()
	s.open()
	for i := range 5 {
		s.sell(i)
	}
	check(t, s.Close())
	check(t, os.RemoveAll(filepath.Join(s.opts.Dir, "journal")))
	s.open()
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		s.must(s.Trade(s.online(i).OutTradeNo))
	}
	s.sell(6)
}

func TestAClosedBookRefusesByName(t *testing.T) {
	s := newShop(t)
	check(t, s.Close())
	if _, _, err := s.OpenTrade(ctx, s.online(1)); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
	w := s.Watch()
	if _, ok := <-w.C; ok {
		t.Error("a watcher of a closed book")
	}
}

func TestWithoutItsKeyABookDoesNotOpenAndLosesNothing(t *testing.T) {
	s := newShop(t)
	s.sell(1)
	check(t, s.Close())
	wrong := s.opts
	wrong.Key[0] ^= 1
	if b, err := Open(ctx, wrong); err == nil {
		if b.Err() == nil {
			t.Error("opened with another key")
		}
		b.Close()
	}
	s.open()
	s.must(s.Trade("A000001"))
}

func BenchmarkSaleOneCommitter(b *testing.B)      { benchmarkSales(b, 1) }
func BenchmarkSaleSixteenCommitters(b *testing.B) { benchmarkSales(b, 16) }

func benchmarkSales(b *testing.B, committers int) {
	book, err := Open(ctx, Options{Dir: b.TempDir(), TerminalID: "10000001", ShiftAutoOpen: true})
	if err != nil {
		b.Fatal(err)
	}
	defer book.Close()
	b.SetParallelism((committers + 1) / 2)
	var mu sync.Mutex
	n := 0
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			mu.Lock()
			n++
			i := n
			mu.Unlock()
			_, _, err := book.OpenTrade(ctx, New{OutTradeNo: fmt.Sprint(i), Mode: payment.ByCode, TotalFen: 1250,
				Code: &Code{Text: fmt.Sprintf("86%016d", i), ScannedAt: time.Now()}})
			if err != nil {
				b.Error(err)
			}
		}
	})
}

func TestReceiptsOfOneMillisecondArePrintedInTheOrderInWhichTheyWereQueued(t *testing.T) {
	s := newShop(t)
	var want []string
	for n := range 30 {
		want = append(want, s.must(s.Answer(ctx, s.paid(s.sell(n)))).TradeNo)
	}
	jobs, err := s.OpenPrints()
	check(t, err)
	var have []string
	for _, j := range jobs {
		have = append(have, j.TradeNo)
	}
	if !reflect.DeepEqual(want, have) {
		t.Errorf("queued %v, would print %v", want, have)
	}
}

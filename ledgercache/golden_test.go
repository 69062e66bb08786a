package ledgercache

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"yupos/ledgercache/journal"
	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
	"yupos/ledgercache/trust"
)

var makeGolden = flag.Bool("golden", false, "make the golden book of this format's version, if there is none")

// The golden book: every kind of record that version 1 knows. It is never made again; a later format gets one beside it.
const goldenBook = "testdata/golden-v1"

// goldenFacts is what the golden book says for ever.
type goldenFacts struct {
	Sequence uint64
	Head     string
	Trades   map[payment.State]payment.Exposure
	Accounts map[string]money.Fen
	Kinds    map[recordKind]int
}

func goldenOptions(dir string) Options {
	return Options{
		Dir: dir, Key: [32]byte{0x67, 0x6f, 0x6c, 0x64}, TerminalID: "10000001", ShiftAutoOpen: true, AutoPrint: true,
		Pins: trust.Pins{{Role: trust.Root, Public: public(rootKey)}, {Role: trust.Policy, Public: public(policyKey)}},
		Sign: func(Acceptance) ([]byte, error) { return make([]byte, 184), nil },
	}
}

func TestMakeTheGoldenBook(t *testing.T) {
	if !*makeGolden {
		t.Skip("only with -golden; a released format's golden book is never made again")
	}
	if err := os.Mkdir(goldenBook, 0o755); err != nil {
		t.Fatal(err)
	}
	s := newShopWith(t, func(o *Options) {
		now := o.Now
		*o = goldenOptions(o.Dir)
		o.Now = now
	})
	s.everything()
	check(t, s.Close())
	p, err := Verify(ctx, s.opts, nil)
	if err != nil || !p.Good() {
		t.Fatalf("%+v, %v", p, err)
	}
	check(t, copyJournal(ctx, s.journalDir(), filepath.Join(goldenBook, "journal"), func(string, uint64, uint64) {}))
	raw, err := json.MarshalIndent(factsOf(t, s.opts, p), "", " ")
	check(t, err)
	check(t, os.WriteFile(goldenBook+".json", append(raw, '\n'), 0o644))
}

func factsOf(t *testing.T, o Options, p Proof) goldenFacts {
	t.Helper()
	f := goldenFacts{Sequence: p.Position.Sequence, Head: p.Position.Head, Trades: p.States, Accounts: map[string]money.Fen{}, Kinds: map[recordKind]int{}}
	for _, a := range p.Books.Accounts {
		f.Accounts[a.Account.Words().EN] = a.Fen
	}
	b, err := Open(ctx, o)
	check(t, err)
	defer b.Close()
	check(t, b.journal.Read(1, func(seq uint64, _ journal.Head, raw []byte) error {
		if seq > f.Sequence {
			return nil // this opening's own
		}
		r, err := decodeRecord(raw)
		f.Kinds[r.Kind]++
		return err
	}))
	return f
}

// everything makes a record of every kind.
func (s *shop) everything() {
	s.t.Helper()
	check(s.t, s.Learn(ctx, trust.Rules, s.sealed(trust.Rules, s.policy(1))))
	check(s.t, s.Learn(ctx, trust.Deny, s.sealed(trust.Deny, s.denyOf(1, 3))))
	check(s.t, s.KeepTime(ctx, trust.TimeMark{BootID: "boot", Boot: time.Hour, At: s.clock(), Error: time.Millisecond}))
	paid := s.must(s.Answer(ctx, s.paid(s.sell(1))))
	s.must(s.Answer(ctx, payment.Answered{TradeNo: s.sell(2).TradeNo, To: payment.OpPay, State: payment.PayError, Attempt: 1, Reason: "INSUFFICIENT_BALANCE", News: 7}))
	unknown := s.sell(3)
	s.must(s.RecordAsk(ctx, unknown.TradeNo, payment.OpQuery, ""))
	reversed := s.sell(4)
	s.must(s.Cancel(ctx, reversed.TradeNo, "op1"))
	s.must(s.RecordAsk(ctx, reversed.TradeNo, payment.OpReverse, payment.ReasonCancelled))
	s.must(s.Answer(ctx, payment.Answered{TradeNo: reversed.TradeNo, To: payment.OpReverse, State: payment.Revoked, TotalFen: 1250}))
	order := s.order(5)
	s.must(s.ConfirmReceipt(ctx, s.receipt(order)))
	s.must(s.Answer(ctx, s.paid(s.order(6))))
	digits := s.order(7)
	_, _ = s.ConfirmDigits(ctx, digits.TradeNo, "op1", func() bool { return false })
	s.must(s.ConfirmDigits(ctx, digits.TradeNo, "op1", func() bool { return true }))
	_, _ = s.Answer(ctx, payment.Answered{TradeNo: digits.TradeNo, To: payment.OpQuery, State: payment.NotFound}) // an alarm
	late := s.order(8)
	bad := s.receipt(late)
	bad.TotalFen++
	_, _ = s.ConfirmReceipt(ctx, bad)
	again := s.order(9)
	s.pass(payment.OrderFor)
	s.must(s.Expire(ctx, again.TradeNo))
	s.must(s.ShowAgain(ctx, again.TradeNo, "shown again", s.clock().Add(payment.OrderFor)))
	s.must(s.Cancel(ctx, again.TradeNo, ""))
	armed, _, err := s.OpenTrade(ctx, New{OutTradeNo: "C1", Mode: payment.AtCounter, TotalFen: 700, ExpiresAt: s.clock().Add(payment.CounterFor), OnlineOnly: true})
	check(s.t, err)
	s.must(s.RejectCode(ctx, armed.TradeNo, "FOREIGN_CODE", "WECHAT"))
	s.must(s.SubmitCode(ctx, armed.TradeNo, Code{Text: "861111111111111113", ScannedAt: s.clock()}))
	s.must(s.Answer(ctx, payment.Answered{TradeNo: armed.TradeNo, State: payment.UserPaying, To: payment.OpPay, Attempt: 1}))
	taken := s.offline(10, 1000, s.signedBy(1, 1))
	s.must(s.offline(11, 1100, s.signedBy(2, 1)), nil)
	gone := s.offline(12, 1200, s.signedBy(3, 1))
	s.must(s.Withdraw(ctx, gone.TradeNo, "boss"))
	_, err = s.RecordUploads(ctx, []string{taken.TradeNo})
	check(s.t, err)
	check(s.t, s.AnswerUploads(ctx, []payment.Answered{{TradeNo: taken.TradeNo, To: payment.OpUpload, State: payment.Bounced, Reason: "POLICY_BREACH", Bearer: payment.BearerMerchant, TotalFen: 1000}}))
	f, _, err := s.OpenRefund(ctx, NewRefund{OutRefundNo: "R1", TradeNo: paid.TradeNo, RefundFen: 250, BodyHash: []byte{1}})
	check(s.t, err)
	_, err = s.RecordRefundAsk(ctx, f.RefundNo)
	check(s.t, err)
	_, err = s.AnswerRefund(ctx, payment.RefundAnswered{RefundNo: f.RefundNo, State: payment.RefundSuccess, RefundFen: 250, FeeBackFen: 1, At: s.clock(), LedgerNo: "01KASF3NAZ0123456789ABCDEF"})
	check(s.t, err)
	job, err := s.QueuePrint(ctx, paid.TradeNo, "op1")
	check(s.t, err)
	_, err = s.RecordPrintSent(ctx, job.ID)
	check(s.t, err)
	_, err = s.FinishPrint(ctx, job.ID, PrintUnknown)
	check(s.t, err)
	check(s.t, s.Anchored(ctx, s.Position()))
	check(s.t, s.Learn(ctx, trust.Fees, s.sealed(trust.Fees, trust.FeeNews{Header: s.header(1), BasisPoints: 38})))
	shift, _, err := s.Shift()
	check(s.t, err)
	_, err = s.CloseShift(ctx, shift.ID, "boss")
	check(s.t, err)
	_, _, err = s.CloseDay(ctx, BizDate(paid), "boss")
	check(s.t, err)
}

func TestTheGoldenBookOpensForEver(t *testing.T) {
	raw, err := os.ReadFile(goldenBook + ".json")
	check(t, err)
	var want goldenFacts
	check(t, json.Unmarshal(raw, &want))
	dir := t.TempDir()
	check(t, os.CopyFS(dir, os.DirFS(goldenBook)))
	o := goldenOptions(dir)
	p, err := Verify(ctx, o, nil)
	if err != nil || !p.Good() {
		t.Fatalf("%+v, %v", p, err)
	}
	have, err := json.Marshal(factsOf(t, o, p))
	check(t, err)
	wanted, err := json.Marshal(want)
	check(t, err)
	if string(have) != string(wanted) {
		t.Errorf("it says\n%s\nand said\n%s", have, wanted)
	}
	for kind, name := range map[recordKind]string{recStarted: "started", recShiftOpened: "shift opened", recShiftClosed: "shift closed", recDayClosed: "day closed", recOpened: "opened",
		recSubmitted: "submitted", recRejected: "rejected", recAsked: "asked", recAnswered: "answered", recCancelWanted: "cancel", recExpired: "expired",
		recAccepted: "accepted", recWithdrawn: "withdrawn", recReceiptShown: "receipt", recRefundOpened: "refund", recRefundAsked: "refund asked",
		recRefundAnswer: "refund answered", recReceiptRefused: "receipt refused", recDigitsTyped: "digits typed", recDigitsMatched: "digits matched",
		recOrderShown: "order shown again", recPrintQueued: "print queued", recPrintSent: "print sent", recPrintDone: "print done", recAnchored: "anchored",
		recLearned: "learned", recTime: "time", recAlarm: "alarm"} {
		if want.Kinds[kind] == 0 {
			t.Errorf("no record of kind %d, %s", kind, name)
		}
	}
	b, err := Open(ctx, o)
	check(t, err)
	defer b.Close()
	if x, err := b.Trade("C1"); err != nil || x.State != payment.UserPaying || !x.OnlineOnly {
		t.Errorf("%+v, %v", x, err)
	}
	if _, _, err := b.OpenTrade(ctx, New{OutTradeNo: "NEW", Mode: payment.ByCode, TotalFen: 1, Code: &Code{Text: "862222222222222222", ScannedAt: time.Now()}}); err != nil {
		t.Errorf("it takes no new sale: %v", err)
	}
}

func TestABookOfANewerFormatIsRefusedByNameAndLeftAsItIs(t *testing.T) {
	for name, change := range map[string]struct {
		file string
		at   int
	}{"segment": {"0000000001.seg", 9}, "HEAD": {"HEAD", 9}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			check(t, os.CopyFS(dir, os.DirFS(goldenBook)))
			o := goldenOptions(dir)
			path := filepath.Join(dir, "journal", change.file)
			raw, err := os.ReadFile(path)
			check(t, err)
			raw[change.at]++
			if change.file == "HEAD" { // authenticated: a program of that version would have made it so
				resealSlot(t, raw, o)
				raw[4096+change.at]++
				resealSlot(t, raw[4096:], o)
			}
			check(t, os.WriteFile(path, raw, 0o600))
			check(t, os.CopyFS(filepath.Join(dir, "cache"), os.DirFS(filepath.Join(goldenBook, "journal")))) // whatever stands there
			place := dir
			if change.file == "HEAD" { // that it is authentic is known only when the journal is open
				place = filepath.Join(dir, "journal")
			}
			before := tree(t, place)
			if _, err := Open(ctx, o); !errors.Is(err, journal.ErrVersion) {
				t.Errorf("open: %v", err)
			}
			if _, err := Verify(ctx, o, nil); !errors.Is(err, journal.ErrVersion) {
				t.Errorf("verify: %v", err)
			}
			if _, err := WriteBundle(ctx, o, t.TempDir(), io.Discard, nil, nil); !errors.Is(err, journal.ErrVersion) {
				t.Errorf("backup: %v", err)
			}
			after := tree(t, place)
			for path := range after {
				if filepath.Base(path) == "LOCK" {
					delete(after, path)
				}
			}
			if !maps.Equal(before, after) {
				t.Errorf("changed: %d files, %d before", len(after), len(before))
			}
		})
	}
}

// resealSlot makes the code of a slot of HEAD right again.
func resealSlot(t *testing.T, slot []byte, o Options) {
	t.Helper()
	key, err := hkdf.Key(sha256.New, o.Key[:], nil, o.TerminalID+"yupos-journal-head-v1", 32)
	check(t, err)
	m := hmac.New(sha256.New, key)
	m.Write(slot[:480])
	copy(slot[480:512], m.Sum(nil))
}

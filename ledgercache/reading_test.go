package ledgercache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"yupos/ledgercache/journal"
	"yupos/ledgercache/payment"
)

// readsOnly wants a book that reads and refuses every step for this cause.
func (s *shop) readsOnly(cause error) {
	s.t.Helper()
	wantErr(s.t, s.Err(), ErrReadOnly)
	wantErr(s.t, s.Err(), cause)
	if s.db != nil {
		s.t.Error("Badger is open")
	}
	_, _, err := s.OpenTrade(ctx, s.online(99))
	wantErr(s.t, err, ErrReadOnly)
	wantErr(s.t, s.Anchored(ctx, s.Position()), ErrReadOnly)
}

// tree is every file under a directory with its content, but for the lock.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	check(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "LOCK" {
			return err
		}
		raw, err := os.ReadFile(path)
		all[path] = string(raw)
		return err
	}))
	return all
}

func TestWithoutRoomAtTheStartTheBookIsReadWholeAndNothingIsWritten(t *testing.T) {
	s, d := newSmallShop(t, 1000)
	paid := s.must(s.Answer(ctx, s.paid(s.sell(1))))
	open := s.sell(2)
	check(t, s.Close())
	before := tree(t, s.opts.Dir)
	d.left.Store(12 * mb)
	s.open()
	s.readsOnly(ErrDiskFull)
	if p := s.must(s.Trade("A000001")); p.TradeNo != paid.TradeNo || p.State != payment.Success {
		t.Errorf("%+v", p)
	}
	if list, err := s.OpenTrades(); err != nil || len(list) != 1 || list[0].TradeNo != open.TradeNo {
		t.Errorf("%+v %v", list, err)
	}
	_, err := s.Trade("A000077")
	wantErr(t, err, ErrNotFound) // all is held, so this is true
	if shift, ok, err := s.Shift(); err != nil || !ok || shift.Count != 1 {
		t.Errorf("%+v %v %v", shift, ok, err)
	}
	if s.Mended() {
		t.Error("mended without room")
	}
	d.left.Store(1000 * mb)
	if !s.Mended() {
		t.Error("not mended although there is room")
	}
	check(t, s.Close())
	for path, content := range tree(t, s.opts.Dir) {
		if before[path] != content {
			t.Errorf("%s was written", path)
		}
		delete(before, path)
	}
	for path := range before {
		t.Errorf("%s is gone", path)
	}
	s.open()
	check(t, s.Err())
	s.must(s.Answer(ctx, s.paid(open)))
}

func TestACacheThatWasSetAsideMakesRoomAtTheStart(t *testing.T) {
	s, d := newSmallShop(t, 1000)
	s.sell(1)
	check(t, s.Close())
	aside := s.cacheDir() + ".aside"
	check(t, os.MkdirAll(aside, 0o700))
	s.opts.Free = func(dir string) (uint64, error) {
		if _, err := os.Stat(aside); err == nil {
			return mb, nil
		}
		return d.free(dir)
	}
	s.open()
	check(t, s.Err())
	s.sell(2)
}

func TestADamagedJournalIsReadAsFarAsItVerifiesAndNeverSaysNotFound(t *testing.T) {
	s := newShop(t)
	s.sell(1)
	check(t, s.Close())
	s.open()
	s.sell(2)
	check(t, s.Close())
	segments, err := filepath.Glob(filepath.Join(s.journalDir(), "*.seg"))
	check(t, err)
	last := segments[len(segments)-1]
	good, err := os.ReadFile(last)
	check(t, err)
	bad := append([]byte(nil), good...)
	bad[len(bad)-20] ^= 1
	check(t, os.WriteFile(last, bad, 0o600))
	s.open()
	s.readsOnly(ErrDamaged)
	s.must(s.Trade("A000001"))
	_, err = s.Trade("A000002")
	wantErr(t, err, ErrNotHeld)
	if errors.Is(err, ErrNotFound) {
		t.Error("damage says that there is no such trade")
	}
	if s.Mended() {
		t.Error("mended while nothing changed")
	}
	check(t, os.WriteFile(last, good, 0o600))
	if !s.Mended() {
		t.Error("a restored journal is not noticed")
	}
	s.reopen()
	check(t, s.Err())
	s.must(s.Trade("A000002"))
}

func TestATailThatOnlyTheCacheRemembersIsDamageToo(t *testing.T) {
	s := newShop(t)
	s.sell(1)
	check(t, s.Close())
	check(t, os.RemoveAll(s.journalDir()))
	s.open()
	s.readsOnly(ErrDamaged)
	_, err := s.Trade("A000001")
	wantErr(t, err, ErrNotHeld)
}

func TestTheReasonThatADaemonGivesIsKept(t *testing.T) {
	s := newShop(t)
	s.sell(1)
	check(t, s.Close())
	s.opts.ReadOnly = fmt.Errorf("%w: 2 times in a row", ErrDiskFailed)
	s.open()
	s.readsOnly(ErrDiskFailed)
	s.must(s.Trade("A000001"))
	if !s.Mended() {
		t.Error("a disk that takes a file is not mended")
	}
	check(t, os.Rename(s.journalDir(), s.journalDir()+".away"))
	if s.Mended() {
		t.Error("the empty place of a disk that was pulled out is mended: a new book would begin there")
	}
	if left, err := filepath.Glob(filepath.Join(s.opts.Dir, "probe-*")); err != nil || len(left) > 0 {
		t.Errorf("%v %v", left, err)
	}
}

func TestASecondProcessOnTheSameDirectoryIsToldWhoHasIt(t *testing.T) {
	s := newShop(t)
	before := tree(t, s.opts.Dir)
	_, err := Open(ctx, s.opts)
	wantErr(t, err, ErrInUse)
	for _, want := range []string{s.opts.Dir, fmt.Sprintf("process %d", os.Getpid())} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not named: %v", want, err)
		}
	}
	for path, content := range tree(t, s.opts.Dir) {
		if before[path] != content && filepath.Base(path) != "HEAD" { // the first process marks its own head when it is idle
			t.Errorf("%s was changed", path)
		}
	}
	s.sell(1)
}

func TestAWindowHoldsTheNewestAndTheOpenTradesAndEveryTotal(t *testing.T) {
	s := newShop(t)
	var sold []payment.Payment
	open := s.sell(0)
	for n := 1; n <= 30; n++ {
		sold = append(sold, s.must(s.Answer(ctx, s.paid(s.sell(n)))))
		jobs, err := s.OpenPrints()
		check(t, err)
		for _, j := range jobs {
			_, err := s.FinishPrint(ctx, j.ID, PrintPrinted)
			check(t, err)
		}
	}
	f, _, err := s.OpenRefund(ctx, NewRefund{OutRefundNo: "R1", TradeNo: sold[0].TradeNo, RefundFen: 50, BodyHash: []byte{1}})
	check(t, err)
	_, err = s.AnswerRefund(ctx, payment.RefundAnswered{RefundNo: f.RefundNo, State: payment.RefundSuccess, RefundFen: 50, At: s.clock()})
	check(t, err)
	asked, _, err := s.OpenRefund(ctx, NewRefund{OutRefundNo: "R2", TradeNo: sold[1].TradeNo, RefundFen: 50, BodyHash: []byte{1}})
	check(t, err)
	w, whole := newWindow(10), newWindow(1000)
	check(t, w.foldAll(ctx, s.journal))
	check(t, whole.foldAll(ctx, s.journal))
	if f, err := (&tx{state: w}).byRefundNo(asked.RefundNo); err != nil || f.State != payment.RefundProcessing {
		t.Errorf("an open refund: %+v %v", f, err)
	}
	if w.dropped != 18 || whole.dropped != 0 {
		t.Errorf("dropped %d of 31 trades, and %d where all had room", w.dropped, whole.dropped)
	}
	all, have := dump(t, folded(t, s.Book)), dump(t, w)
	for k, v := range have {
		if all[k] != v {
			t.Errorf("key %x differs", k)
		}
	}
	if n := len(dump(t, whole)); n != len(all)-31 {
		t.Errorf("%d keys of %d: only the 31 spent codes are let go", n, len(all))
	}
	for k, v := range all {
		if strings.HasPrefix(k, string(prefixShift)) && have[k] != v {
			t.Error("the shift's totals differ")
		}
	}
	for i, p := range append([]payment.Payment{open}, sold...) {
		held, err := (&tx{state: w}).byTradeNo(p.TradeNo)
		if want := i <= 2 || i > 20; (err == nil) != want || want && held.TradeNo != p.TradeNo {
			t.Errorf("trade %d: held %v, want %v: %v", i, err == nil, want, err)
		}
		raw, err := id(p.TradeNo)
		check(t, err)
		for k, v := range have {
			if !(i <= 2 || i > 20) && (strings.Contains(k, string(raw)) || v == string(raw)) {
				t.Errorf("key %x leads to a trade that was dropped", k)
			}
		}
	}
	if n := w.tree.Len(); n >= whole.tree.Len() {
		t.Errorf("%d keys of %d", n, whole.tree.Len())
	}
}

func TestWhatOpeningMendsIsFound(t *testing.T) {
	s := newShop(t)
	s.opts.Mirror = t.TempDir()
	s.reopen()
	if f := s.Findings(); len(f) > 1 || len(f) == 1 && f[0] != FoundRefilled { // the mirror is new
		t.Errorf("%v", f)
	}
	s.sell(1)
	s.reopen()
	if f := s.Findings(); len(f) != 0 {
		t.Errorf("a book in order: %v", f)
	}
	check(t, s.Close())
	check(t, os.Remove(filepath.Join(s.journalDir(), "HEAD")))
	segments, err := filepath.Glob(filepath.Join(s.opts.Mirror, "*.seg"))
	check(t, err)
	check(t, os.Remove(segments[len(segments)-1]))
	s.open()
	if f := s.Findings(); !slices.Equal(f, []Finding{FoundBadHead, FoundRefilled}) {
		t.Errorf("%v", f)
	}
}

func TestAMirrorThatFailsIsJournalledOnceAndSalesGoOn(t *testing.T) {
	s := newShop(t)
	check(t, s.Close())
	s.opts.Mirror = filepath.Join(t.TempDir(), "absent", "mirror") // its device is not there
	s.open()
	alarms := func() (list []Alarm) {
		all, err := s.Alarms(100)
		check(t, err)
		for _, a := range all {
			if a.Code == AlarmMirror {
				list = append(list, a)
			}
		}
		return list
	}
	w := s.Watch()
	defer w.Close()
	if len(alarms()) == 0 {
		for c := range w.C {
			if c.Kind == ChangeAlarm {
				break
			}
		}
	}
	s.sell(1)
	wantErr(t, s.Mirror(), journal.ErrMirror)
	if list := alarms(); len(list) != 1 || list[0].Detail == "" {
		t.Errorf("%+v", list)
	}
	check(t, s.Err())
}

func TestWhileTheJournalIsBeingFoldedNothingIsSaidToBeMissing(t *testing.T) {
	r := &reading{state: newInMemory(), stop: func() {}, ended: make(chan struct{})}
	b := &Book{reading: r}
	_, err := b.Trade("A000001")
	wantErr(t, err, ErrNotHeld)
	r.mu.Lock()
	r.complete = true
	r.mu.Unlock()
	_, err = b.Trade("A000001")
	wantErr(t, err, ErrNotFound)
}

func TestAFullDiskHasItsNameWhoeverMeetsIt(t *testing.T) {
	for _, c := range []struct {
		cause, want error
	}{
		{fmt.Errorf("write: %w", syscall.ENOSPC), ErrDiskFull},
		{fmt.Errorf("write: %w", syscall.EDQUOT), ErrDiskFull},
		{fmt.Errorf("write: %w", syscall.EROFS), ErrDiskFailed},
		{fmt.Errorf("sync: %w", syscall.EIO), ErrDiskFailed},
		{fmt.Errorf("open: %w", journal.ErrTailLost), ErrDamaged},
		{fmt.Errorf("open: %w", journal.ErrForked), ErrDamaged},
	} {
		if err := named(c.cause); !errors.Is(err, c.want) || !errors.Is(err, ErrReadOnly) || !errors.Is(err, c.cause) {
			t.Errorf("%v is named %v", c.cause, err)
		}
	}
}

// BenchmarkReadOnlyState tells what a book that reads only takes: heap for each trade held, and time to fold it.
func BenchmarkReadOnlyState(b *testing.B) {
	o := Options{Dir: b.TempDir(), TerminalID: "10000001", ShiftAutoOpen: true, AutoPrint: true}
	book, err := Open(ctx, o)
	if err != nil {
		b.Fatal(err)
	}
	const trades = 10_000
	var group sync.WaitGroup
	for w := range 50 {
		group.Go(func() {
			for i := w; i < trades; i += 50 {
				p, _, err := book.OpenTrade(ctx, New{OutTradeNo: fmt.Sprint("A", i), Mode: payment.ByCode, TotalFen: 1250,
					Code: &Code{Text: fmt.Sprintf("86%016d", i), ScannedAt: time.Now()}})
				if err == nil {
					_, err = book.Answer(ctx, payment.Answered{TradeNo: p.TradeNo, To: payment.OpPay, State: payment.Success, TotalFen: 1250,
						PaidFen: 1250, FeeFen: 5, PaidAt: time.Now(), LedgerNo: "01KASF3NAZ0123456789ABCDEF"})
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	if err := book.Close(); err != nil {
		b.Fatal(err)
	}
	o.ReadOnly = ErrDiskFailed
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		book, err := Open(ctx, o)
		if err != nil {
			b.Fatal(err)
		}
		<-book.reading.ended
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/trades, "B/trade")
		if err := book.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/trades, "µs/trade")
}

func BenchmarkMeasuringTheDisk(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		if _, err := freeBytes(dir); err != nil {
			b.Fatal(err)
		}
	}
}

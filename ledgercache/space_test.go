package ledgercache

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"yupos/ledgercache/payment"
)

const mb = 1 << 20

// small is a disk whose free bytes a test sets; the ballast counts against it as it does on a real one.
type small struct {
	dir  string
	left atomic.Int64 // without the ballast
	gone atomic.Bool  // it cannot be measured
}

func (d *small) free(dir string) (uint64, error) {
	if d.gone.Load() {
		return 0, errors.New("no such device")
	}
	left := d.left.Load()
	if info, err := os.Stat(filepath.Join(dir, "ballast")); err == nil {
		left -= info.Size()
	}
	return uint64(max(0, left)), nil
}

// newSmallShop is a shop with a reserve of 8 MB: nothing new below 13 MB, the end below 2 MB, a ballast of 2 MB.
func newSmallShop(t *testing.T, leftMB int64) (*shop, *small) {
	s := newShop(t)
	check(t, s.Close())
	d := &small{dir: s.opts.Dir}
	d.left.Store(leftMB * mb)
	s.opts.Reserve, s.opts.Free = 8*mb, d.free
	s.open()
	return s, d
}

// has makes the disk have so many free MB beside the ballast, as a foreign process would.
func (s *shop) has(d *small, leftMB int64) {
	held := int64(0)
	if info, err := os.Stat(s.guard.ballastPath()); err == nil {
		held = info.Size()
	}
	d.left.Store(leftMB*mb + held)
	s.measure()
}

func (s *shop) room(want Room) {
	s.t.Helper()
	if got := s.Space().Room; got != want {
		s.t.Fatalf("room %s, want %s (%+v)", got, want, s.Space())
	}
}

func TestTheRuleOfSpace(t *testing.T) {
	l := limitsOf(64 * mb) // first 69, last 16, slack 8, ballast 16
	for _, c := range []struct {
		was     Room
		freeMB  uint64
		ballast bool
		want    Room
	}{
		{RoomPlenty, 1000, true, RoomPlenty},
		{RoomPlenty, 138, true, RoomPlenty},
		{RoomPlenty, 137, true, RoomShort},
		{RoomShort, 69, true, RoomShort},
		{RoomShort, 68, true, RoomFull},
		{RoomFull, 69, true, RoomFull},
		{RoomFull, 77, true, RoomShort},
		{RoomFull, 77, false, RoomFull}, // first the ballast must fit again
		{RoomFull, 93, false, RoomShort},
		{RoomFull, 16, true, RoomFull},
		{RoomFull, 15, false, RoomNone},
		{RoomNone, 16, false, RoomFull},
		{RoomNone, 0, true, RoomNone},
		{RoomShort, 0, true, RoomNone},
	} {
		if got := l.judge(c.was, c.freeMB*mb, c.ballast); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestBelowTheFirstLimitNothingNewIsTakenAndWhatIsOpenEnds(t *testing.T) {
	s, d := newSmallShop(t, 1000)
	s.room(RoomPlenty)
	paid, lost := s.sell(1), s.sell(2)
	armed := s.must(first(s.OpenTrade(ctx, New{OutTradeNo: "ARMED", Mode: payment.AtCounter, TotalFen: 5, BodyHash: []byte{1}, ExpiresAt: s.clock()})))
	sold := s.must(s.Answer(ctx, s.paid(s.sell(3))))
	refund, _, err := s.OpenRefund(ctx, NewRefund{OutRefundNo: "R1", TradeNo: sold.TradeNo, RefundFen: 50, BodyHash: []byte{1}})
	check(t, err)

	s.has(d, 12)
	s.room(RoomFull)
	_, _, err = s.OpenTrade(ctx, s.online(9))
	wantErr(t, err, ErrDiskFull)
	_, err = s.Trade("A000009")
	wantErr(t, err, ErrNotFound)
	_, err = s.SubmitCode(ctx, armed.TradeNo, Code{Text: "861234567890123459", ScannedAt: s.clock()})
	wantErr(t, err, ErrDiskFull)
	_, _, err = s.OpenRefund(ctx, NewRefund{OutRefundNo: "R2", TradeNo: sold.TradeNo, RefundFen: 50, BodyHash: []byte{1}})
	wantErr(t, err, ErrDiskFull)

	if p, replayed, err := s.OpenTrade(ctx, s.online(1)); err != nil || !replayed || p.TradeNo != paid.TradeNo {
		t.Errorf("a repeat: %v %v %v", p.TradeNo, replayed, err)
	}
	if p := s.must(s.Answer(ctx, s.paid(paid))); p.State != payment.Success || p.Copies != 1 {
		t.Errorf("an answer: %+v", p)
	}
	s.must(s.RecordAsk(ctx, lost.TradeNo, payment.OpReverse, payment.ReasonNoAnswer))
	if p := s.must(s.Cancel(ctx, armed.TradeNo, "op1")); p.State != payment.Closed {
		t.Errorf("a cancel: %+v", p)
	}
	jobs, err := s.OpenPrints()
	check(t, err)
	for _, j := range jobs {
		_, err := s.RecordPrintSent(ctx, j.ID)
		check(t, err)
		_, err = s.FinishPrint(ctx, j.ID, PrintPrinted)
		check(t, err)
	}
	_, err = s.AnswerRefund(ctx, payment.RefundAnswered{RefundNo: refund.RefundNo, State: payment.RefundSuccess, RefundFen: 50, At: s.clock()})
	check(t, err)
	check(t, s.Anchored(ctx, s.Position()))

	s.has(d, 13) // at the limit, but not above what is needed to begin again
	s.room(RoomFull)
	s.has(d, 40)
	s.room(RoomPlenty)
	s.sell(9)
}

func TestTheBallastIsWrittenThroughAndGivenBackForWhatIsOpen(t *testing.T) {
	s, d := newSmallShop(t, 1000)
	s.guard.refill()
	path := filepath.Join(s.opts.Dir, "ballast")
	if n := allocated(t, path); n < 2*mb {
		t.Fatalf("%d bytes are really taken", n)
	}
	p := s.sell(1)
	d.left.Store(3 * mb) // 1 MB is free beside the ballast: under the last limit
	s.measure()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the ballast is still there: %v", err)
	}
	s.room(RoomFull)
	s.must(s.Answer(ctx, s.paid(p)))
	_, _, err := s.OpenTrade(ctx, s.online(2))
	wantErr(t, err, ErrDiskFull)

	d.left.Store(15 * mb) // begins again only with room for the ballast: 13 + 1 + 2
	s.measure()
	s.room(RoomFull)
	d.left.Store(17 * mb)
	s.measure()
	s.room(RoomShort)
	s.guard.refill()
	if n := allocated(t, path); n < 2*mb {
		t.Errorf("the ballast was not made again: %d bytes", n)
	}
	s.measure()
	s.room(RoomShort)
	s.sell(2)
}

func TestBelowTheLastLimitTheBookSealsItselfAndAcknowledgesNothing(t *testing.T) {
	s, d := newSmallShop(t, 1000)
	p := s.sell(1)
	head := s.Position()
	d.left.Store(mb)
	_, err := s.Answer(ctx, s.paid(p))
	wantErr(t, err, ErrSealed)
	wantErr(t, err, ErrDiskFull)
	select {
	case <-s.Failed():
	default:
		t.Error("the daemon is not told")
	}
	if s.Position() != head {
		t.Error("something was journalled")
	}
}

func TestADiskThatCannotBeMeasuredTakesNothingNewAndSealsNothing(t *testing.T) {
	s, d := newSmallShop(t, 1000)
	p := s.sell(1)
	d.gone.Store(true)
	_, _, err := s.OpenTrade(ctx, s.online(2))
	wantErr(t, err, ErrDiskFull)
	s.must(s.Answer(ctx, s.paid(p)))
	d.gone.Store(false)
	s.measure()
	s.sell(2)
}

func TestWatchersAreToldWhenTheRoomChanges(t *testing.T) {
	s, d := newSmallShop(t, 1000)
	w := s.Watch()
	defer w.Close()
	s.has(d, 12)
	for c := range w.C {
		if c.Kind == ChangeSpace {
			return
		}
	}
	t.Error("the watcher was dropped")
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%v, want %v", err, want)
	}
}

// allocated is how many bytes a file really takes on its disk.
func allocated(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	check(t, err)
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

// first drops whether it was a replay.
func first(p payment.Payment, _ bool, err error) (payment.Payment, error) { return p, err }

func TestARebuildWithoutRoomRemovesCachesAndNeverTheJournal(t *testing.T) {
	for _, c := range []struct {
		name              string
		with, after       int64 // free MB with the caches and without them
		removed, readOnly bool
	}{
		{"enough", 40, 40, false, false},
		{"enough without the caches", 15, 40, true, false},
		{"not enough at all", 15, 20, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := newSmallShop(t, 1000)
			p := s.sell(1)
			check(t, s.Close())
			aside := s.cacheDir() + ".aside"
			check(t, os.MkdirAll(aside, 0o700))
			check(t, os.WriteFile(filepath.Join(aside, "old"), nil, 0o600))
			check(t, os.WriteFile(filepath.Join(s.cacheDir(), "MANIFEST"), []byte("garbage"), 0o600))
			kept := filepath.Join(s.journalDir(), "0000000001.seg.aside-1") // 20 MB of journal: so much may a cache need
			check(t, os.WriteFile(kept, nil, 0o600))
			check(t, os.Truncate(kept, 20*mb))
			before := tree(t, s.journalDir())
			s.opts.Free = func(string) (uint64, error) {
				if _, err := os.Stat(filepath.Join(aside, "old")); err == nil {
					return uint64(c.with) * mb, nil
				}
				if raw, _ := os.ReadFile(filepath.Join(s.cacheDir(), "MANIFEST")); string(raw) == "garbage" {
					return uint64(c.with) * mb, nil
				}
				return uint64(c.after) * mb, nil
			}
			s.open()
			if c.readOnly {
				s.readsOnly(ErrDiskFull)
			} else {
				check(t, s.Err())
			}
			s.must(s.Trade(p.OutTradeNo))
			if _, err := os.Stat(filepath.Join(aside, "MANIFEST")); (err != nil) != c.removed {
				t.Errorf("the damaged cache is kept: %v, want %v", err == nil, !c.removed)
			}
			after := tree(t, s.journalDir())
			for path := range before {
				if _, ok := after[path]; !ok {
					t.Errorf("%s was removed", path)
				}
			}
		})
	}
}

func TestASuspectCacheIsMadeAnew(t *testing.T) {
	s := newShop(t)
	p := s.sell(1)
	check(t, s.Close())
	s.opts.Suspect = true
	s.open()
	if _, err := os.Stat(s.cacheDir() + ".aside"); err != nil {
		t.Errorf("the old cache was believed: %v", err)
	}
	s.must(s.Trade(p.OutTradeNo))
	check(t, s.Err())
	s.sell(2)
}

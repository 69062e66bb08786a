package ledgercache

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"yupos/ledgercache/payment"
)

// day is a few steps of a counter on a disk that fails, and what was acknowledged of them.
type day struct {
	s     *shop
	acked map[string]payment.State // by out_trade_no: the last state that was answered
}

// work does as much of a day as the disk lets it. Nothing may be acknowledged after the book was sealed.
func (d *day) work() {
	s := d.s
	for n := range 3 {
		p, _, err := s.OpenTrade(ctx, s.online(n))
		d.ack(p, err)
		if err != nil {
			continue
		}
		p, err = s.Answer(ctx, s.paid(p))
		d.ack(p, err)
	}
}

func (d *day) ack(p payment.Payment, err error) {
	s := d.s
	sealed := s.Err()
	switch {
	case err == nil && sealed != nil && !errors.Is(sealed, ErrSealed):
		s.t.Errorf("acknowledged by a book that says %v", sealed)
	case err == nil:
		d.acked[p.OutTradeNo] = p.State
	case !errors.Is(err, ErrSealed) && !errors.Is(err, ErrReadOnly):
		s.t.Errorf("a step failed with %v", err)
	}
}

// newDay is a book that worked well once, on a good disk.
func newDay(t *testing.T) *day {
	s := newShop(t)
	p := s.must(s.Answer(ctx, s.paid(s.sell(100))))
	check(t, s.Close())
	return &day{s: s, acked: map[string]payment.State{p.OutTradeNo: p.State}}
}

// holds wants an open book that takes sales and has everything that was acknowledged, and whose state is what the journal
// alone gives.
func (d *day) holds() {
	s := d.s
	s.t.Helper()
	if err := s.Err(); err != nil {
		s.t.Fatalf("the book does not come back: %v", err)
	}
	for no, state := range d.acked {
		p, err := s.Trade(no)
		if err != nil || p.State != state && !(state == payment.Unknown && p.State == payment.Success) {
			s.t.Errorf("%s was answered as %s: %s %v", no, state, p.State, err)
		}
	}
	check(s.t, s.view(func(disk state) error { sameState(s.t, dump(s.t, folded(s.t, s.Book)), dump(s.t, disk)); return nil }))
	s.must(s.Answer(ctx, s.paid(s.sell(200))))
}

// callsOfADay is how many calls to the disk a day takes from the opening to the end.
func callsOfADay(t *testing.T) int {
	d := newDay(t)
	f := newFloppy(t, 1, powerCut, 0)
	d.s.opts.FS = f
	d.s.open()
	d.work()
	check(t, d.s.Close())
	d.s.opts.FS = nil
	d.s.open()
	d.holds()
	return f.calls
}

func TestWhateverCallToTheDiskFailsNothingAcknowledgedIsLost(t *testing.T) {
	calls := callsOfADay(t)
	seed, rounds := uint64(time.Now().UnixNano()), 20
	if os.Getenv("YUPOS_FULL") != "" {
		rounds = 5 * calls * 4
	}
	t.Logf("seed %d, %d calls in a day, %d rounds", seed, calls, rounds)
	rng := rand.New(rand.NewPCG(seed, 1))
	faults := []fault{failWrite, fullDisk, shortOne, failSync, powerCut}
	sealed, readOnly := 0, 0
	for round := range rounds {
		f, at := faults[round%len(faults)], 1+rng.IntN(calls)
		if os.Getenv("YUPOS_FULL") != "" {
			at = 1 + round/len(faults)%calls // every call with every fault
		}
		t.Run(fmt.Sprintf("%s at call %d", f, at), func(t *testing.T) {
			d := newDay(t)
			if round%3 == 0 {
				d.s.opts.Mirror, at = t.TempDir(), at*2 // both copies are on the floppy
			}
			disk := newFloppy(t, rng.Uint64(), f, at)
			d.s.opts.FS = disk
			d.s.open()
			d.work()
			switch err := d.s.Err(); {
			case errors.Is(err, ErrSealed):
				sealed++
			case errors.Is(err, ErrReadOnly):
				readOnly++
			}
			_ = d.s.Close() // it may not end well
			if f == powerCut || rng.IntN(2) == 0 {
				disk.cut()
			}
			if rng.IntN(3) == 0 {
				check(t, os.RemoveAll(d.s.cacheDir())) // what an unsynced cache may come to as well
			}
			d.s.opts.FS = nil
			d.s.open()
			d.holds()
			check(t, d.s.Close())
			kept.left(t, d.s.opts)
			if left := leftovers(d.s.journalDir()); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	t.Logf("%d rounds sealed the book, %d opened it read-only", sealed, readOnly)
	if sealed == 0 || readOnly == 0 {
		t.Error("the faults do not reach the book: this proves nothing")
	}
}

func TestWithoutSyncAPowerCutDoesLoseWhatWasAcknowledged(t *testing.T) { // the control of the test above
	for range 20 {
		d := newDay(t)
		disk := newFloppy(t, rand.Uint64(), powerCut, 0)
		d.s.opts.FS = lying{disk}
		d.s.open()
		d.work()
		disk.off = true
		_ = d.s.Close()
		disk.cut()
		check(t, os.RemoveAll(d.s.cacheDir()))
		d.s.opts.FS = nil
		d.s.open()
		if d.s.Err() != nil {
			return // it says so by itself
		}
		for no, state := range d.acked {
			if p, err := d.s.Trade(no); err != nil || p.State != state {
				return
			}
		}
		check(t, d.s.Close())
	}
	t.Error("a disk that does not sync loses nothing: the floppy is too kind")
}

func TestADiskThatFailsWhileNothingIsSoldSealsTheBookToo(t *testing.T) {
	d := newDay(t)
	disk := newFloppy(t, 1, failSync, 0)
	d.s.opts.FS = disk
	d.s.open()
	disk.mu.Lock()
	disk.bad = "HEAD" // which follows by itself in a moment
	disk.mu.Unlock()
	p, _, err := d.s.OpenTrade(ctx, d.s.online(0))
	d.ack(p, err)
	select {
	case <-d.s.Failed():
	case <-time.After(20 * time.Second):
		t.Fatal("the book does not learn that its journal was sealed")
	}
	wantErr(t, d.s.Err(), ErrSealed)
	_ = d.s.Close()
	d.s.opts.FS = nil
	d.s.open()
	d.holds()
}

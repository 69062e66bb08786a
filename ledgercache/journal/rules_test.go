package journal

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestDamageIsNamedByPlaceAndBySequence(t *testing.T) { synctest.Test(t, namesDamage) }

func namesDamage(t *testing.T) {
	o := simulated(1)
	d := o.FS.(*disk)
	j, _ := mustOpen(t, o)
	n := fill(t, j, 0, 4)
	from := j.offset
	n = fill(t, j, n, 4)
	kill(j)
	d.restart()
	path := segmentPath("/j", 1)
	for name, harm := range map[string]struct {
		do    func(b []byte)
		want  error
		words string
	}{
		"a bit of a batch with others behind": {func(b []byte) { b[from+70] ^= 1 }, ErrDamaged, "offset 4"},
		"a sector zeroed in the middle":       {func(b []byte) { clear(b[from : from+60]) }, ErrDamaged, "sequence 8 to"},
		"all behind a place is gone":          {func(b []byte) { clear(b[from:]) }, nil, ""},
		"bytes where no batch can reach":      {func(b []byte) { b[len(b)-1] = 1 }, nil, ""},
	} {
		image := d.clone()
		harm.do(image.live[path].live)
		k, r := mustOpen(t, Options{Dir: "/j", Key: o.Key, TerminalID: o.TerminalID, FS: image})
		if !errors.Is(r.Problem, harm.want) || harm.want != nil && !strings.Contains(r.Problem.Error(), harm.words) {
			t.Errorf("%s: %v", name, r.Problem)
		}
		var at *Damage
		if harm.want != nil && (!errors.As(r.Problem, &at) || at.Segment != 1 || at.Offset != from || at.Sequence != 8) {
			t.Errorf("%s: %+v", name, at)
		}
		if harm.want != nil && !errors.Is(k.ReadOnly(), ErrReadOnly) {
			t.Errorf("%s: not read-only", name)
		}
	}
	_ = n
}

func TestAWitnessInsideABatchIsAFork(t *testing.T) {
	o := simulated(2)
	d := o.FS.(*disk)
	j, _ := mustOpen(t, o)
	fill(t, j, 0, 6) // batches end at 1, 3, 6, 7, 9, 12
	head := j.Head()
	j.Close()
	for sequence, want := range map[uint64]error{12: nil, 8: ErrForked, 13: ErrTailLost} {
		o.FS = d.clone()
		o.Witnesses = []Witness{{Name: "ledger", Sequence: sequence, Hash: head.Hash, HasHash: true}}
		_, r := mustOpen(t, o)
		if !errors.Is(r.Problem, want) {
			t.Errorf("witness of %d: %v", sequence, r.Problem)
		}
		if want != nil && !strings.Contains(r.Problem.Error(), "ledger") {
			t.Errorf("the witness is not named: %v", r.Problem)
		}
	}
}

func TestASectorThatCannotBeReadIsDamage(t *testing.T) {
	o := simulated(3)
	d := o.FS.(*disk)
	j, _ := mustOpen(t, o)
	n := fill(t, j, 0, 6)
	j.Close()
	j, _ = mustOpen(t, o)
	fill(t, j, n, 3)
	j.Close()
	d.unreadable = segmentPath("/j", 2)
	j, r := mustOpen(t, o)
	if !errors.Is(r.Problem, ErrDamaged) {
		t.Fatalf("%+v", r)
	}
	holds(t, j, n)
}

func TestARestoredBookBeginsAnEpochThatNamesTheOldHead(t *testing.T) {
	o := simulated(4)
	j, _ := mustOpen(t, o)
	n := fill(t, j, 0, 6)
	old := j.Head()
	j.Close()
	o.BeginEpoch = true
	o.NewEpoch = func() [16]byte { return [16]byte{1, 2, 3} }
	j, _ = mustOpen(t, o)
	if h := j.Head(); h.Epoch != [16]byte{1, 2, 3} || h.Sequence != old.Sequence || h.Hash != old.Hash {
		t.Fatalf("%+v", h)
	}
	if before := j.segments[len(j.segments)-1].before; before != old {
		t.Errorf("the new epoch names %+v", before)
	}
	n = fill(t, j, n, 3)
	j.Close()
	o.BeginEpoch = false
	j, r := mustOpen(t, o)
	if r.Problem != nil || j.Head().Epoch != [16]byte{1, 2, 3} {
		t.Fatalf("%+v %+v", r, j.Head())
	}
	holds(t, j, n)
}

func TestAFullOrFailingDiskIsOpenedToReadAndLeftAsItIs(t *testing.T) {
	o := simulated(9)
	d := o.FS.(*disk)
	j, _ := mustOpen(t, o)
	n := fill(t, j, 0, 6)
	kill(j)
	d.restart()
	d.brokenDir = "/j"
	if _, _, err := Open(o); err == nil || errors.Is(err, ErrReadOnly) {
		t.Fatalf("a disk that takes nothing was opened: %v", err)
	}
	before := d.clone()
	o.ReadOnly = true
	j, r := mustOpen(t, o)
	if r.Problem != nil || !errors.Is(j.ReadOnly(), ErrReadOnly) {
		t.Fatalf("%+v, %v", r, j.ReadOnly())
	}
	holds(t, j, n)
	if _, err := j.Append([][]byte{{1}}); !errors.Is(err, ErrReadOnly) {
		t.Errorf("it took a record: %v", err)
	}
	j.Close()
	for name, ino := range before.live {
		if string(ino.live) != string(d.live[name].live) {
			t.Errorf("%s was changed", name)
		}
	}
}

func TestOldSegmentsCanBeMovedAwayFromTheFront(t *testing.T) {
	o := simulated(5)
	d := o.FS.(*disk)
	n := 0
	for range 3 {
		j, _ := mustOpen(t, o)
		n = fill(t, j, n, 5)
		j.Close()
	}
	delete(d.live, segmentPath("/j", 1))
	j, r := mustOpen(t, o)
	if r.Problem != nil || r.First == 1 || r.Records != uint64(n) {
		t.Fatalf("%+v", r)
	}
	seen := r.First
	if err := j.Read(1, func(seq uint64, _ Head, rec []byte) error {
		if seq != seen || string(rec) != string(record(int(seq-1))) {
			return fmt.Errorf("record %d, want %d", seq, seen)
		}
		seen++
		return nil
	}); err != nil {
		t.Error(err)
	}
	j.Close()
	image := d.clone()
	delete(image.live, segmentPath("/j", 3))
	o.FS = image
	if _, r := mustOpen(t, o); !errors.Is(r.Problem, ErrDamaged) {
		t.Errorf("a segment missing in the middle: %+v", r)
	}
}

func TestTheHeadIsWrittenWhenIdleAndAtTheLatestEverySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := simulated(6)
		d := o.FS.(*disk)
		j, _ := mustOpen(t, o)
		synced := func() uint64 {
			s, err := readSlots(d, "/j", j.o)
			if err != nil {
				t.Fatal(err)
			}
			return s.synced()
		}
		n := fill(t, j, 0, 1)
		time.Sleep(idleHead - time.Millisecond)
		synctest.Wait()
		if synced() != 0 {
			t.Error("written before it was idle")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if synced() != uint64(n) {
			t.Error("not written when idle")
		}
		for began := time.Now(); time.Since(began) < busyHead+2*idleHead; time.Sleep(10 * time.Millisecond) {
			n = fill(t, j, n, 1)
		}
		if synced() < uint64(n)/2 {
			t.Errorf("busy: the head stands at %d of %d", synced(), n)
		}
		before := d.syncs
		j.Close()
		j.Close()
		if synced() != uint64(n) || d.syncs > before+3 {
			t.Errorf("close: head at %d of %d, %d syncs", synced(), n, d.syncs-before)
		}
	})
}

// TestReadAndHeadRunBesideAppend is for the race detector, and shows that a reader sees a prefix.
func TestReadAndHeadRunBesideAppend(t *testing.T) {
	j, _ := mustOpen(t, simulated(7))
	done := make(chan error, 2)
	stop := make(chan struct{})
	for range 2 {
		go func() {
			for {
				select {
				case <-stop:
					done <- nil
					return
				default:
				}
				last, seen := j.Head().Sequence, uint64(0)
				err := j.Read(1, func(seq uint64, _ Head, rec []byte) error {
					if string(rec) != string(record(int(seq-1))) {
						return fmt.Errorf("record %d reads %q", seq, rec)
					}
					seen = seq
					return nil
				})
				if err == nil && seen < last {
					err = fmt.Errorf("read to %d, the head was at %d", seen, last)
				}
				if err != nil {
					done <- err
					return
				}
			}
		}()
	}
	fill(t, j, 0, 400)
	close(stop)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func FuzzRecordsComeBackAsTheyWere(f *testing.F) {
	f.Add([]byte("one"), []byte{}, uint8(3))
	f.Add([]byte{0}, []byte{0, 0, 0, 0}, uint8(200))
	f.Fuzz(func(t *testing.T, a, b []byte, n uint8) {
		if len(a)+len(b) > 64<<10 {
			return
		}
		o := simulated(8)
		j, _ := mustOpen(t, o)
		want := [][]byte{a}
		for range n % 16 {
			want = append(want, b)
		}
		if _, err := j.Append(want); err != nil {
			t.Fatal(err)
		}
		j.Close()
		j, r := mustOpen(t, o)
		got := read(t, j)
		if r.Problem != nil || len(got) != len(want) {
			t.Fatalf("%+v, %d records of %d", r, len(got), len(want))
		}
		for i := range got {
			if string(got[i]) != string(want[i]) {
				t.Errorf("record %d reads %q", i, got[i])
			}
		}
	})
}

func FuzzABatchOfAnyTextIsSplitWithoutPanic(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 9}, 1)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, 2)
	f.Fuzz(func(t *testing.T, text []byte, count int) {
		records, err := unpack(nil, text, count)
		if err == nil && len(records) != count {
			t.Errorf("%d records of %d", len(records), count)
		}
	})
}

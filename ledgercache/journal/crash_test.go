package journal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// amount is a default count, or with YUPOS_FULL set the full one.
func amount(short, full int) int {
	if os.Getenv("YUPOS_FULL") != "" {
		return full
	}
	return short
}

// world is a journal on a simulated disk beside what it has answered.
type world struct {
	rng      *rand.Rand
	d        *disk
	mirror   bool
	answered [][]byte
	flying   [][]byte // handed over, not answered
	seen     Witness  // what a cache applied
	cuts     int
}

func (w *world) options() Options {
	o := Options{Dir: "/j", Key: [32]byte{7}, TerminalID: "10000001", SegmentBytes: 16 << 10, FS: w.d}
	if w.mirror {
		o.Mirror = "/m"
	}
	if w.seen.Sequence > 0 && w.rng.IntN(2) == 0 {
		o.Witnesses = []Witness{w.seen}
	}
	return o
}

// life opens the journal, holds it against what was answered, appends for a while and ends by a close, a kill or a cut.
func (w *world) life() error {
	w.d.cutAt = 0
	if w.rng.IntN(3) > 0 {
		w.d.cutAt = 1 + w.rng.IntN(60)
	}
	j, r, err := Open(w.options())
	if err == nil {
		if err := w.check(j, r); err != nil && !errors.Is(err, errPower) {
			return err
		}
		w.cuts += len(r.Cuts)
		w.work(j)
		if w.rng.IntN(3) == 0 {
			j.Close()
		}
		kill(j)
	} else if !errors.Is(err, errPower) {
		return fmt.Errorf("open: %w", err)
	}
	if w.rng.IntN(4) == 0 && w.d.image == nil {
		w.d.restart()
		return nil
	}
	w.d = w.d.crash()
	return nil
}

func (w *world) check(j *Journal, r Report) error {
	if r.Problem != nil {
		return fmt.Errorf("%w, %d answered", r.Problem, len(w.answered))
	}
	for name := range w.d.live { // every cut that was made is recorded in a header
		var at Cut
		_, err := fmt.Sscanf(name, "/j/%d.seg.torn-%d", &at.Segment, &at.Offset)
		same := func(c Cut) bool { return c.Segment == at.Segment && c.Offset == at.Offset }
		if err == nil && !w.mirror && !slices.ContainsFunc(r.Cuts, same) {
			return fmt.Errorf("%s is not recorded", name)
		}
	}
	want := w.answered
	if n := j.Head().Sequence; n == uint64(len(want)+len(w.flying)) {
		want = append(want, w.flying...)
	} else if n != uint64(len(want)) {
		return fmt.Errorf("the journal ends at %d, %d were answered and %d on their way", n, len(want), len(w.flying))
	}
	w.answered, w.flying = want, nil
	return j.Read(1, func(seq uint64, _ Head, rec []byte) error {
		if !bytes.Equal(rec, want[seq-1]) {
			return fmt.Errorf("record %d reads %q", seq, rec)
		}
		return nil
	})
}

func (w *world) work(j *Journal) {
	for range w.rng.IntN(20) {
		records := make([][]byte, 1+w.rng.IntN(3))
		for i := range records {
			records[i] = make([]byte, w.rng.IntN(1+w.rng.IntN(1500)))
			for k := range records[i] {
				records[i][k] = byte(w.rng.Uint32())
			}
		}
		w.flying = records
		if _, err := j.Append(records); err != nil {
			return
		}
		w.answered, w.flying = append(w.answered, records...), nil
		h := j.Head()
		if w.rng.IntN(2) == 0 {
			w.seen = Witness{Name: "cache", Sequence: h.Sequence, Hash: h.Hash, HasHash: true}
		}
		if w.rng.IntN(5) == 0 {
			time.Sleep(time.Duration(w.rng.IntN(120)) * time.Millisecond) // of the bubble: the idle head may be written
		}
	}
}

// TestAPowerCutAtAnyMomentLosesNothingAnswered cuts the power at any write, sync or rename, keeps any subset of the
// sectors that were not synced, and does so again while the journal recovers.
// What all these torn images seal is kept (seals_test.go).
func TestAPowerCutAtAnyMomentLosesNothingAnswered(t *testing.T) {
	seed, rounds := uint64(time.Now().UnixNano()), amount(150, 20000)
	answered, cuts := 0, 0
	for round := range uint64(rounds) {
		synctest.Test(t, func(t *testing.T) {
			w := &world{rng: rand.New(rand.NewPCG(seed, round)), d: newDisk(seed ^ round), mirror: round%3 == 0}
			for life := range 6 {
				if err := w.life(); err != nil {
					t.Fatalf("seed %d, round %d, life %d: %v", seed, round, life, err)
				}
			}
			answered, cuts = answered+len(w.answered), cuts+w.cuts
		})
	}
	t.Logf("seed %d: %d rounds, %d records answered, 0 lost, %d cuts recorded; %v", seed, rounds, answered, cuts, kept)
	if answered == 0 || cuts == 0 {
		t.Error("nothing was answered, or no tail was ever torn: the test tests nothing")
	}
}

// TestTheSameWithoutSyncLoses is the control: on a disk whose syncs do nothing the test above must fail.
func TestTheSameWithoutSyncLoses(t *testing.T) {
	lost, named := 0, 0
	for round := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			w := &world{rng: rand.New(rand.NewPCG(3, round)), d: newDisk(round)}
			for range 6 {
				w.d.lies = true
				err := w.life()
				if errors.Is(err, ErrDamaged) || errors.Is(err, ErrTailLost) || errors.Is(err, ErrForked) {
					named++
				}
				if err != nil {
					lost++
					return
				}
			}
		})
	}
	t.Logf("of 60 rounds %d lost records, %d of them named by the journal itself", lost, named)
	if lost < 20 || named == 0 {
		t.Errorf("only %d rounds lost anything, %d named", lost, named)
	}
}

func simulated(seed uint64) Options {
	return Options{Dir: "/j", Key: [32]byte{7}, TerminalID: "10000001", SegmentBytes: 16 << 10, FS: newDisk(seed)}
}

func TestAFailedWriteOrSyncSealsForGoodAndIsNeverTriedAgain(t *testing.T) {
	synctest.Test(t, sealsForGood) // so that no head is written by the clock meanwhile
}

func sealsForGood(t *testing.T) {
	for name, arm := range map[string]func(d *disk, at int){
		"sync fails":  func(d *disk, at int) { d.failSyncAt = at },
		"short write": func(d *disk, at int) { d.shortAt = at },
		"full disk":   func(d *disk, at int) { d.fullAt = at },
	} {
		for at := 1; at <= 24; at++ { // also inside the change of segment
			o := simulated(uint64(at))
			d := o.FS.(*disk)
			j, _ := mustOpen(t, o)
			n := fill(t, j, 0, 5)
			arm(d, at)
			var err error
			for tries := 0; err == nil && tries < 100; tries++ {
				if _, err = j.Append([][]byte{bytes.Repeat([]byte{1}, 900)}); err == nil {
					n++
				}
			}
			if !errors.Is(err, ErrSealed) || name == "full disk" && !errors.Is(err, syscall.ENOSPC) || name == "sync fails" && !errors.Is(err, syscall.EIO) {
				t.Fatalf("%s at %d: %v", name, at, err)
			}
			before := d.writes
			if _, err := j.Append([][]byte{{1}}); !errors.Is(err, ErrSealed) {
				t.Errorf("%s at %d: took a record afterwards: %v", name, at, err)
			}
			if err := j.SyncHead(); !errors.Is(err, ErrSealed) || !errors.Is(j.ReadOnly(), ErrSealed) {
				t.Errorf("%s at %d: %v", name, at, err)
			}
			j.Close()
			if d.syncsAfterFailure != 0 || d.writes != before {
				t.Errorf("%s at %d: %d syncs and %d writes after the failure", name, at, d.syncsAfterFailure, d.writes-before)
			}
		}
	}
}

// TestAHeadThatFailedIsNotSyncedAgain: whoever asks while or after the sync of HEAD fails gets the error, not another try.
func TestAHeadThatFailedIsNotSyncedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := simulated(1)
		d := o.FS.(*disk)
		j, _ := mustOpen(t, o)
		fill(t, j, 0, 1)
		d.failSyncAt = 1
		head, slots := j.Head(), j.primary.slots
		for range 3 { // as callers do that had passed the journal's own check before it was sealed
			if err := slots.write(head); !errors.Is(err, syscall.EIO) {
				t.Errorf("%v", err)
			}
		}
		if d.syncsAfterFailure != 0 {
			t.Errorf("%d syncs after the failure", d.syncsAfterFailure)
		}
		if err := j.SyncHead(); !errors.Is(err, ErrSealed) {
			t.Errorf("%v", err)
		}
		if _, err := j.Append([][]byte{{1}}); !errors.Is(err, ErrSealed) {
			t.Errorf("a record was taken: %v", err)
		}
	})
}

// TestATailThatLivedOnlyInMemoryIsWrittenAgainBeforeItIsBelieved: a sync fails, the kernel keeps the pages readable and
// clean. The next process sees the batch; after a power cut it must still be there.
func TestATailThatLivedOnlyInMemoryIsWrittenAgainBeforeItIsBelieved(t *testing.T) {
	synctest.Test(t, writesAgain)
}

func writesAgain(t *testing.T) {
	for seed := range uint64(20) {
		o := simulated(seed)
		d := o.FS.(*disk)
		j, _ := mustOpen(t, o)
		n := fill(t, j, 0, 3)
		d.failSyncAt = 1
		if _, err := j.Append([][]byte{record(n)}); !errors.Is(err, ErrSealed) {
			t.Fatal(err)
		}
		j.Close()
		d.restart()
		k, r := mustOpen(t, o)
		if k.Head().Sequence != uint64(n+1) || r.Rewritten == 0 {
			t.Fatalf("the batch is not seen: %+v", r)
		}
		o.FS = d.crash()
		k, r = mustOpen(t, o)
		if r.Problem != nil {
			t.Fatalf("what was believed is gone: %v", r.Problem)
		}
		holds(t, k, n+1)
	}
}

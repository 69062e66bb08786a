package ledgercache

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// loopDisk is an ext4 on a loop device of its own.
type loopDisk struct {
	t          *testing.T
	image, dir string
}

// newLoopDisk makes one, or the test is skipped and says so.
func newLoopDisk(t *testing.T) *loopDisk {
	t.Helper()
	d := &loopDisk{t: t, image: filepath.Join(t.TempDir(), "image"), dir: filepath.Join(t.TempDir(), "disk")}
	check(t, os.Mkdir(d.dir, 0o700))
	check(t, os.WriteFile(d.image, nil, 0o600))
	check(t, os.Truncate(d.image, 256<<20))
	for _, c := range [][]string{{"mkfs.ext4", "-q", d.image}, {"mount", "-o", "loop", d.image, d.dir}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Skipf("SKIPPED: no real disk without the right to mount a loop device: %s: %v %s", c[0], err, out)
		}
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", d.dir).Run() })
	return d
}

// Of Linux: EXT4_IOC_SHUTDOWN, and its flag that drops the page cache and the file system's own journal as they are.
const (
	goDown     = 0x8004587D
	noLogFlush = 2
)

// cut takes the power away: what was not synced is gone. What the device itself still holds back is not.
func (d *loopDisk) cut() {
	f, err := os.Open(d.dir)
	if err == nil {
		err = errors.Join(unix.IoctlSetPointerInt(int(f.Fd()), goDown, noLogFlush), f.Close())
	}
	if err != nil {
		d.t.Errorf("power cut: %v", err)
	}
}

func (d *loopDisk) again() {
	d.t.Helper()
	for _, c := range [][]string{{"umount", d.dir}, {"mount", "-o", "loop", d.image, d.dir}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			d.t.Fatalf("%q: %v %s", c, err, out)
		}
	}
}

// sellsUntilTheCut lets a child sell until it has answered lines more, and takes its disk's power away. What it says later
// does not count.
func (v *victim) sellsUntilTheCut(d *loopDisk, round string, lines int) error {
	at, off := len(v.answered)+lines, false
	v.each = func(n int) {
		if n == at {
			d.cut()
			off = true
		}
	}
	ready, err := v.kill(round, false, -1, 20*time.Second)
	if !ready || !off {
		return fmt.Errorf("the child did not get to sell: %w", err)
	}
	v.answered = v.answered[:at]
	d.again()
	return nil
}

// TestAPowerCutOfARealDiskLosesNothingAnswered cuts the power of an ext4 on a loop device under a child with four writers.
func TestAPowerCutOfARealDiskLosesNothingAnswered(t *testing.T) {
	d := newLoopDisk(t)
	seed, rounds := uint64(time.Now().UnixNano()), amount(2, 60)
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Setenv(childReserve, fmt.Sprint(8<<20))
	v := &victim{dir: filepath.Join(d.dir, "book")}
	total := 0
	for round := range rounds {
		if round%10 == 9 {
			total += len(v.answered)
			check(t, os.RemoveAll(v.dir))
			v = &victim{dir: v.dir}
		}
		err := v.sellsUntilTheCut(d, fmt.Sprint(round), 1+rng.IntN(300))
		if err == nil {
			err = v.holds()
			kept.left(t, childOptions(v.dir))
		}
		if err != nil {
			t.Fatalf("seed %d, round %d: %v", seed, round, err)
		}
	}
	t.Logf("seed %d: %d power cuts, %d answered steps, 0 lost, 0 torn", seed, rounds, total+len(v.answered))
}

// TestAPowerCutOfARealDiskWithoutSyncDoesLose is the control of the test above.
func TestAPowerCutOfARealDiskWithoutSyncDoesLose(t *testing.T) {
	d := newLoopDisk(t)
	t.Setenv(childReserve, fmt.Sprint(8<<20))
	t.Setenv(childLies, "1")
	v := &victim{dir: filepath.Join(d.dir, "book")}
	check(t, v.sellsUntilTheCut(d, "lies", 200))
	err := v.holds()
	if err == nil {
		t.Fatal("nothing was lost: the test above proves nothing")
	}
	t.Logf("found out: %.300s", strings.TrimSpace(err.Error()))
}

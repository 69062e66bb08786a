package ledgercache

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// smallDisk is a tmpfs of so many MB, or the test is skipped.
func smallDisk(t *testing.T, sizeMB int) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm", sizeMB), "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: no small file system without the right to mount one: %v %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
	return dir
}

// fill writes a foreign file until the disk does not take one more byte.
func fill(t *testing.T, path string) {
	f, err := os.Create(path)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 4
		} else if err != nil {
			t.Error(err)
			return
		}
	}
}

// TestAForeignFileThatFillsTheDiskAtAnyMomentLosesNothingAndEndsOneProcessAtMost fills a small file system to the last byte
// while a child sells. The child may die of it, once; started again while the disk is full it says so and lives; with
// room it has every step that was answered.
func TestAForeignFileThatFillsTheDiskAtAnyMomentLosesNothingAndEndsOneProcessAtMost(t *testing.T) {
	disk := smallDisk(t, 96)
	foreign := filepath.Join(disk, "foreign")
	seed, rounds := uint64(time.Now().UnixNano()), amount(2, 40)
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Setenv(childReserve, fmt.Sprint(8<<20))
	v := &victim{dir: filepath.Join(disk, "book")}
	total, deaths := 0, 0
	for round := range rounds {
		if round%8 == 7 { // the book itself must not fill the disk
			total += len(v.answered)
			check(t, os.RemoveAll(v.dir))
			v = &victim{dir: v.dir}
		}
		at := len(v.answered) + 1 + rng.IntN(120)
		v.each = func(n int) {
			if n == at {
				fill(t, foreign)
			}
		}
		ready, err := v.kill(fmt.Sprint(round), false, -1, 20*time.Second)
		if !ready || len(v.answered) < at {
			t.Fatalf("seed %d, round %d: the child did not get to sell: %v", seed, round, err)
		}
		if err == nil || !strings.Contains(err.Error(), "ended:") {
			deaths++ // inside Badger's mappings
		}
		ready, err = v.kill("while-full", false, -1, 20*time.Second)
		if ready || err == nil || !strings.Contains(err.Error(), ErrReadOnly.Error()) || !strings.Contains(err.Error(), ErrDiskFull.Error()) {
			t.Fatalf("seed %d, round %d: started on a full disk: ready %v, %v", seed, round, ready, err)
		}
		check(t, os.Remove(foreign))
		if err := v.holds(); err != nil {
			t.Fatalf("seed %d, round %d: %v", seed, round, err)
		}
		kept.left(t, childOptions(v.dir))
	}
	t.Logf("seed %d: the disk was filled %d times, %d answered steps, 0 lost, 0 torn; %d processes died of it, none on starting",
		seed, rounds, total+len(v.answered), deaths)
}

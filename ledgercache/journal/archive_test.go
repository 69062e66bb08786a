package journal

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

func segmentsIn(t *testing.T, dir string) int {
	t.Helper()
	numbers, err := segmentNumbers(OS, dir)
	check(t, err)
	return len(numbers)
}

func TestSegmentsInTheArchiveStayPartOfTheJournalAndWithoutItTheRestVerifies(t *testing.T) {
	o := options(t.TempDir())
	o.SegmentBytes = 16 << 10
	o.Mirror = filepath.Join(t.TempDir(), "mirror")
	j, _ := mustOpen(t, o)
	n := fill(t, j, 1, 600)
	check(t, j.Close())
	all := segmentsIn(t, o.Dir)
	if all < 4 {
		t.Fatalf("%d segments", all)
	}
	o.Archive = filepath.Join(t.TempDir(), "archive")
	moved, err := Archive(context.Background(), o, uint64(n/2))
	if err != nil || moved == 0 || segmentsIn(t, o.Dir) != all-moved || segmentsIn(t, o.Mirror) != all-moved || segmentsIn(t, o.Archive) != moved {
		t.Fatalf("%d moved of %d, %v", moved, all, err)
	}
	if again, err := Archive(context.Background(), o, uint64(n/2)); err != nil || again != 0 {
		t.Errorf("again: %d, %v", again, err)
	}
	r, err := Verify(o)
	if err != nil || r.First != 1 || int(r.Records) != n-1 {
		t.Errorf("%+v, %v", r, err)
	}
	j, r = mustOpen(t, o)
	if got := len(read(t, j)); got != n-1 || r.Problem != nil || r.First != 1 {
		t.Errorf("%d records, want %d; %+v", got, n-1, r)
	}
	n = fill(t, j, n, 10)
	check(t, j.Close())
	// The archive is somewhere else.
	away := o
	away.Archive = ""
	j, r = mustOpen(t, away)
	if r.First <= 1 || r.Problem != nil || int(r.Records) != n-1 {
		t.Errorf("%+v", r)
	}
	check(t, j.Close())
	// Damage in the archive is named like any other.
	path := segmentPath(o.Archive, 1)
	raw, err := os.ReadFile(path)
	check(t, err)
	raw[headerBytes+60] ^= 1
	check(t, os.WriteFile(path, raw, 0o600))
	if _, err := Verify(o); err == nil {
		t.Error("damage in the archive is silent")
	}
}

func TestArchivingThatWasKilledGoesOn(t *testing.T) {
	o := options(t.TempDir())
	o.SegmentBytes = 16 << 10
	j, _ := mustOpen(t, o)
	n := fill(t, j, 1, 400)
	check(t, j.Close())
	o.Archive = filepath.Join(t.TempDir(), "archive")
	check(t, os.Mkdir(o.Archive, 0o700))
	// Copied, and not removed yet.
	raw, err := os.ReadFile(segmentPath(o.Dir, 1))
	check(t, err)
	check(t, os.WriteFile(segmentPath(o.Archive, 1), raw, 0o600))
	if moved, err := Archive(context.Background(), o, uint64(n)); err != nil || moved == 0 {
		t.Fatalf("%d, %v", moved, err)
	}
	if r, err := Verify(o); err != nil || int(r.Records) != n-1 {
		t.Errorf("%+v, %v", r, err)
	}
}

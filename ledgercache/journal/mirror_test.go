package journal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func mirrored(seed uint64) (Options, *disk) {
	o := simulated(seed)
	o.Mirror = "/m"
	return o, o.FS.(*disk)
}

// same reports files that the two copies do not have alike.
func same(t *testing.T, d *disk) {
	t.Helper()
	for name, ino := range d.live {
		other := filepath.Join("/m", filepath.Base(name))
		if filepath.Dir(name) != "/j" || !strings.HasSuffix(name, ".seg") {
			continue
		}
		if d.live[other] == nil || !bytes.Equal(d.live[other].live, ino.live) {
			t.Errorf("%s differs from its copy", name)
		}
	}
}

func TestBothCopiesAreTheSameAndEitherIsEnough(t *testing.T) {
	o, d := mirrored(1)
	n := 0
	for range 3 {
		j, r := mustOpen(t, o)
		if r.MirrorErr != nil || r.Problem != nil {
			t.Fatalf("%+v", r)
		}
		n = fill(t, j, n, 60)
		j.Close()
		same(t, d)
	}
	for _, gone := range []string{"/j", "/m"} {
		image := d.clone()
		for name := range image.live {
			if filepath.Dir(name) == gone {
				delete(image.live, name)
			}
		}
		o.FS = image
		j, r := mustOpen(t, o)
		if r.Problem != nil || len(r.Refilled) != 1 {
			t.Fatalf("without %s: %+v", gone, r)
		}
		holds(t, j, n)
		holds(t, j, fill(t, j, n, 3))
		j.Close()
		same(t, image)
	}
}

// TestWhatWasAnsweredIsDurableInEachCopyAlone cuts the power of both and takes one away.
func TestWhatWasAnsweredIsDurableInEachCopyAlone(t *testing.T) {
	for seed := range uint64(40) {
		o, d := mirrored(seed)
		j, _ := mustOpen(t, o)
		n := fill(t, j, 0, int(seed))
		image := d.crash()
		gone := []string{"/j", "/m"}[seed%2]
		for name := range image.live {
			if filepath.Dir(name) == gone {
				delete(image.live, name)
			}
		}
		o.FS = image
		k, r := mustOpen(t, o)
		if r.Problem != nil {
			t.Fatalf("without %s: %+v", gone, r)
		}
		holds(t, k, n)
	}
}

// TestDamageInOneCopyIsHealedFromTheOther destroys each segment of each copy in turn, at its header and in its middle.
func TestDamageInOneCopyIsHealedFromTheOther(t *testing.T) {
	o, d := mirrored(2)
	n := 0
	for range 2 {
		j, _ := mustOpen(t, o)
		n = fill(t, j, n, 80)
		j.Close()
	}
	for name, ino := range d.live {
		if !strings.HasSuffix(name, ".seg") || len(ino.live) <= headerBytes {
			continue
		}
		for _, at := range []int{4, 200, headerBytes + 10, (headerBytes + len(ino.live)) / 2, len(ino.live) - 1} {
			image := d.clone()
			image.live[name].live[at] ^= 1
			o.FS = image
			if r, err := Verify(o); err == nil {
				t.Errorf("%s at %d: the proof holds: %+v", name, at, r)
			}
			j, r := mustOpen(t, o)
			if r.Problem != nil || len(r.Refilled) != 1 {
				t.Fatalf("%s at %d: %+v", name, at, r)
			}
			holds(t, j, n)
			j.Close()
			same(t, image)
			if _, err := Verify(o); err != nil {
				t.Errorf("%s at %d: after healing: %v", name, at, err)
			}
		}
	}
}

func TestAFailingMirrorIsLeftOutAndRefilledByTheNextOpening(t *testing.T) {
	for at := range 60 {
		o, d := mirrored(uint64(at))
		j, _ := mustOpen(t, o)
		n := fill(t, j, 0, at)
		d.brokenDir = "/m"
		n = fill(t, j, n, 30)
		if err := j.Mirror(); !errors.Is(err, ErrMirror) || !errors.Is(err, syscall.EIO) {
			t.Fatalf("the mirror's state is %v", err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		k, r := mustOpen(t, o) // still broken
		if !errors.Is(r.MirrorErr, ErrMirror) || r.Problem != nil {
			t.Fatalf("%+v", r)
		}
		n = fill(t, k, n, 3)
		k.Close()
		d.brokenDir = ""
		k, r = mustOpen(t, o)
		if r.MirrorErr != nil || !slices.Equal(r.Refilled, []string{"mirror"}) {
			t.Fatalf("%+v", r)
		}
		holds(t, k, n)
		k.Close()
		same(t, d)
	}
}

func TestCopiesThatWentDifferentWaysAreAFork(t *testing.T) {
	o, d := mirrored(3)
	j, _ := mustOpen(t, o)
	n := fill(t, j, 0, 10)
	j.Close()
	alone := o
	alone.Mirror = ""
	j, _ = mustOpen(t, alone)
	fill(t, j, n, 2)
	j.Close()
	alone.Dir = "/m"
	j, _ = mustOpen(t, alone)
	if _, err := j.Append([][]byte{[]byte("something else")}); err != nil {
		t.Fatal(err)
	}
	j.Close()
	blind := o // without any HEAD the chains alone must tell
	image := d.clone()
	delete(image.live, "/j/HEAD")
	delete(image.live, "/m/HEAD")
	blind.FS = image
	if _, r := mustOpen(t, blind); !errors.Is(r.Problem, ErrForked) {
		t.Errorf("without HEAD: %+v", r)
	}
	before := d.clone()
	k, r := mustOpen(t, o)
	if !errors.Is(r.Problem, ErrForked) || !errors.Is(k.ReadOnly(), ErrForked) {
		t.Fatalf("%+v", r)
	}
	k.Close()
	for name, ino := range before.live {
		if !bytes.Equal(ino.live, d.live[name].live) {
			t.Errorf("%s was changed", name)
		}
	}
}

func TestARecordThatOnlyTheDamagedCopyHadIsNotGivenUp(t *testing.T) {
	o, d := mirrored(4)
	j, _ := mustOpen(t, o)
	n := fill(t, j, 0, 10)
	j.Close()
	alone := o
	alone.Mirror = ""
	j, _ = mustOpen(t, alone)
	from := j.offset
	fill(t, j, n, 5)
	kill(j)
	d.restart()
	d.live[segmentPath("/j", 2)].live[from+60] ^= 1 // the first batch that the mirror lacks
	delete(d.live, "/j/HEAD")
	_, r := mustOpen(t, o)
	if !errors.Is(r.Problem, ErrDamaged) {
		t.Fatalf("%+v", r)
	}
}

func TestAForeignMirrorIsLeftOutUntouched(t *testing.T) {
	o, d := mirrored(5)
	foreign := o
	foreign.Dir, foreign.Mirror, foreign.Key = "/m", "", [32]byte{9}
	j, _ := mustOpen(t, foreign)
	fill(t, j, 0, 3)
	j.Close()
	before := d.clone()
	j, r := mustOpen(t, o)
	if !errors.Is(r.MirrorErr, ErrKey) {
		t.Fatalf("%+v", r)
	}
	fill(t, j, 0, 3)
	j.Close()
	for name, ino := range before.live {
		if !bytes.Equal(ino.live, d.live[name].live) {
			t.Errorf("%s was changed", name)
		}
	}
}

func TestAMirrorOnRealDirectories(t *testing.T) {
	o := options(t.TempDir())
	o.Mirror = filepath.Join(t.TempDir(), "copy")
	j, r := mustOpen(t, o)
	if r.MirrorErr != nil {
		t.Fatal(r.MirrorErr)
	}
	n := fill(t, j, 0, 20)
	j.Close()
	if err := os.RemoveAll(o.Dir); err != nil {
		t.Fatal(err)
	}
	j, _ = mustOpen(t, o)
	holds(t, j, n)
	j.Close()
	o.Mirror = filepath.Join(t.TempDir(), "no", "device")
	if _, r := mustOpen(t, o); !errors.Is(r.MirrorErr, ErrMirror) {
		t.Errorf("a mirror whose device is absent: %+v", r)
	}
}

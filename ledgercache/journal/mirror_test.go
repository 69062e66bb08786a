package journal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
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

// hanging is a disk on which everything in one directory stops while hold is closed to nobody.
type hanging struct {
	FS
	dir  string
	hold chan struct{} // what hangs goes on when it is closed
	on   atomic.Bool
}

type hangingFile struct {
	File
	fs   *hanging
	name string
}

func (h *hanging) wait(name string) {
	if h.on.Load() && (name == h.dir || filepath.Dir(name) == h.dir) {
		<-h.hold
	}
}

func (h *hanging) Mkdir(dir string, parents bool) error { h.wait(dir); return h.FS.Mkdir(dir, parents) }

func (h *hanging) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	h.wait(name)
	f, err := h.FS.OpenFile(name, flag, perm)
	return &hangingFile{f, h, name}, err
}

func (f *hangingFile) WriteAt(p []byte, off int64) (int, error) {
	f.fs.wait(f.name)
	return f.File.WriteAt(p, off)
}

func (f *hangingFile) Sync() error     { f.fs.wait(f.name); return f.File.Sync() }
func (f *hangingFile) Datasync() error { f.fs.wait(f.name); return f.File.Datasync() }

func TestAMirrorThatHangsIsLeftOutInTimeAndRefilledAtTheNextOpening(t *testing.T) {
	for _, when := range []string{"while writing", "at the opening", "at the head"} {
		t.Run(when, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDisk(1)
				h := &hanging{FS: d, dir: "/b", hold: make(chan struct{})}
				o := Options{Dir: "/a", Mirror: "/b", TerminalID: "10000001", SegmentBytes: 16 << 10, FS: h}
				h.on.Store(when == "at the opening")
				began := time.Now()
				j, _, err := Open(o)
				if err != nil {
					t.Fatal(err)
				}
				if when == "at the head" {
					if _, err := j.Append([][]byte{{1}}); err != nil {
						t.Fatal(err)
					}
				}
				h.on.Store(true)
				if when == "at the head" {
					time.Sleep(idleHead + mirrorWithin + time.Second) // the head follows by itself
				}
				for i := range 3 {
					if _, err := j.Append([][]byte{{byte(i)}}); err != nil {
						t.Fatal(err)
					}
				}
				if took := time.Since(began); took > 2*mirrorWithin {
					t.Errorf("took %s", took)
				}
				if err := j.Mirror(); !errors.Is(err, ErrMirror) || !errors.Is(err, errHung) {
					t.Errorf("%v", err)
				}
				before := j.Head()
				if err := j.Close(); err != nil {
					t.Fatal(err)
				}
				h.on.Store(false)
				close(h.hold)
				synctest.Wait()
				j, r, err := Open(o)
				if err != nil || j.ReadOnly() != nil || j.Mirror() != nil || j.Head() != before {
					t.Fatalf("%v %v %+v", err, j.ReadOnly(), r)
				}
				if err := j.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestTheNextSegmentIsWrittenThroughBesideTheAppends(t *testing.T) {
	d := newDisk(1)
	o := Options{Dir: "/a", Mirror: "/b", TerminalID: "10000001", SegmentBytes: spareFrom, FS: d}
	j, _, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	record := make([]byte, 100<<10)
	for range 6 { // over the half
		if _, err := j.Append([][]byte{record}); err != nil {
			t.Fatal(err)
		}
	}
	<-j.primary.next.done
	<-j.mirror.next.done
	d.mu.Lock()
	for _, name := range []string{"/a/0000000002.seg.new", "/b/0000000002.seg.new"} {
		if ino := d.live[name]; ino == nil || len(ino.live) != spareFrom || len(ino.dirty) != 0 || !allZero(ino.live) {
			t.Errorf("%s is not a synced file of zeros", name)
		}
	}
	writes := d.writes
	d.mu.Unlock()
	for j.Head().Sequence < 12 {
		if _, err := j.Append([][]byte{record}); err != nil {
			t.Fatal(err)
		}
	}
	d.mu.Lock()
	// six batches and a header in both copies, and the head may follow
	if n := d.writes - writes; n > 2*(6+1+1) {
		t.Errorf("%d writes for a change of segments: it was written through again", n)
	}
	d.mu.Unlock()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	for name := range d.live {
		if filepath.Ext(name) == ".new" {
			t.Errorf("%s is left behind by an orderly end", name)
		}
	}
	j, r, err := Open(o)
	if err != nil || r.Records != 12 || r.Problem != nil || r.CutBytes != 0 {
		t.Fatalf("%+v %v", r, err)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

// onceBad fails one write or sync of the second segment's file before it has its name.
type onceBad struct {
	FS
	write, sync error
	bad         atomic.Pointer[onceBadFile] // whose call failed
}

type onceBadFile struct {
	File
	fs     *onceBad
	second bool
}

func (o *onceBad) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	f, err := o.FS.OpenFile(name, flag, perm)
	return &onceBadFile{f, o, strings.HasSuffix(name, "2.seg.new")}, err
}

func (f *onceBadFile) WriteAt(p []byte, off int64) (int, error) {
	if f.second && f.fs.write != nil && f.fs.bad.CompareAndSwap(nil, f) {
		n, _ := f.File.WriteAt(p[:len(p)/2], off)
		return n, f.fs.write
	}
	return f.File.WriteAt(p, off)
}

func (f *onceBadFile) Sync() error {
	if f.second && f.fs.sync != nil && f.fs.bad.CompareAndSwap(nil, f) {
		return f.fs.sync
	}
	if f.fs.bad.Load() == f {
		return errors.New("a sync after a failure on the same file")
	}
	return f.File.Sync()
}

func TestASpareThatCannotBeWrittenSealsNothing(t *testing.T) {
	for name, fs := range map[string]*onceBad{
		"full": {write: syscall.ENOSPC}, "failing": {write: syscall.EIO}, "failing sync": {sync: syscall.EIO},
	} {
		fs.FS = newDisk(1)
		j, _, err := Open(Options{Dir: "/a", TerminalID: "10000001", SegmentBytes: spareFrom, FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		record := make([]byte, 100<<10)
		for range 15 {
			if _, err := j.Append([][]byte{record}); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if fs.bad.Load() == nil {
			t.Errorf("%s: nothing failed", name)
		}
		if err := j.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAPowerCutWhileTheNextSegmentIsWrittenLosesNothing(t *testing.T) {
	for seed := range uint64(40) {
		d := newDisk(seed)
		o := Options{Dir: "/a", TerminalID: "10000001", SegmentBytes: spareFrom, FS: d}
		j, _, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		d.mu.Lock()
		d.cutAt = 1 + d.rng.IntN(40)
		d.mu.Unlock()
		record, answered := make([]byte, 100<<10), uint64(0)
		for err == nil {
			if _, err = j.Append([][]byte{record}); err == nil {
				answered++
			}
		}
		j.Close()
		o.FS = d.crash()
		j, r, err := Open(o)
		if err != nil || r.Problem != nil || r.Records < answered {
			t.Fatalf("seed %d: %d answered, %+v %v", seed, answered, r, err)
		}
		if _, err := j.Append([][]byte{record}); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		j.Close()
	}
}

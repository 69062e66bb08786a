package ledgercache

import (
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"yupos/ledgercache/journal"
)

// floppy is the journal's file system over a real directory that fails on request and forgets like a real disk: a power cut
// takes back any unsynced sector, length or name. Its calls are numbered from 1, and the fault comes at call at.
type floppy struct {
	t  *testing.T
	mu sync.Mutex

	rng   *rand.Rand
	fault fault
	at    int // number of the call that fails; 0 = none
	calls int
	bad   string // name of a file whose every sync fails
	off   bool   // the power is gone: nothing works

	files map[*sheet]bool
	paths map[string]*sheet // sheets by their present name
	names []func()          // undo the names that were not made durable, newest last
}

// fault is what goes wrong.
type fault string

const (
	failWrite fault = "EIO"
	fullDisk  fault = "ENOSPC"
	shortOne  fault = "short write"
	failSync  fault = "failing sync"
	powerCut  fault = "power cut"
)

var errPower = errors.New("no power")

// sheet is one file: what a power cut would leave of it.
type sheet struct {
	sectors map[int64][]byte // what unsynced sectors held before
	size    int64            // at the last sync
	failed  bool             // a sync of it failed
}

const sector = 512

func newFloppy(t *testing.T, seed uint64, f fault, at int) *floppy {
	return &floppy{t: t, rng: rand.New(rand.NewPCG(seed, 7)), fault: f, at: at, files: map[*sheet]bool{}, paths: map[string]*sheet{}}
}

// call counts a call of this kind and answers its fault. The caller holds mu.
func (d *floppy) call(kind string) error {
	if d.off {
		return errPower
	}
	d.calls++
	if d.calls != d.at {
		return nil
	}
	switch d.fault {
	case powerCut:
		d.off = true
		return errPower
	case failWrite:
		return syscall.EIO
	case fullDisk:
		return syscall.ENOSPC
	case shortOne:
		if kind == "write" {
			return io.ErrShortWrite
		}
	case failSync:
		if kind == "sync" {
			return syscall.EIO
		}
	}
	d.at++ // this call cannot fail in this way: the next one does
	return nil
}

func (d *floppy) OpenFile(name string, flag int, perm os.FileMode) (journal.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := os.Stat(name)
	created := errors.Is(err, os.ErrNotExist)
	if flag&os.O_CREATE != 0 {
		if err := d.call("open"); err != nil {
			return nil, err
		}
	} else if d.off {
		return nil, errPower
	}
	s := d.paths[name]
	if s == nil || created {
		s = &sheet{sectors: map[int64][]byte{}}
		if info, err := os.Stat(name); err == nil {
			s.size = info.Size()
		}
		d.paths[name] = s
	}
	f, err := os.OpenFile(name, flag&^os.O_TRUNC, perm)
	if err != nil {
		return nil, err
	}
	if created && flag&os.O_CREATE != 0 {
		d.names = append(d.names, func() { _ = os.Remove(name) })
	}
	file := &floppyFile{d: d, f: f, s: s, name: name}
	if flag&os.O_TRUNC != 0 {
		err = file.cut(0)
	}
	return file, err
}

func (d *floppy) ReadDir(dir string) ([]os.DirEntry, error) { return os.ReadDir(dir) }

func (d *floppy) Mkdir(dir string, parents bool) error { return os.MkdirAll(dir, 0o700) }

func (d *floppy) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.call("name"); err != nil {
		return err
	}
	d.paths[to] = d.paths[from]
	delete(d.paths, from)
	d.names = append(d.names, func() {
		if os.Rename(to, from) == nil {
			d.paths[from] = d.paths[to]
			delete(d.paths, to)
		}
	})
	return os.Rename(from, to)
}

func (d *floppy) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		return errPower
	}
	delete(d.paths, name)
	return os.Remove(name) // only files that mean nothing are removed: a removal that is undone changes nothing
}

func (d *floppy) SyncDir(string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.call("sync"); err != nil {
		return err
	}
	d.names = nil
	return nil
}

func (d *floppy) Lock(name string, shared bool) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, journal.ErrLocked
	}
	return f, nil
}

// cut takes the power away, if it is still there, and leaves on the real files what a disk would hold: of every unsynced
// sector, length and name either the old or the new.
func (d *floppy) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = true
	kept.torn()
	for _, name := range slices.Sorted(maps.Keys(d.paths)) {
		if err := d.paths[name].forget(name, d.rng); err != nil && !errors.Is(err, os.ErrNotExist) {
			d.t.Fatal(err)
		}
	}
	keep := d.rng.IntN(len(d.names) + 1)
	for _, undo := range slices.Backward(d.names[keep:]) {
		undo()
	}
}

func (s *sheet) forget(name string, rng *rand.Rand) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, n := range slices.Sorted(maps.Keys(s.sectors)) {
		if old := s.sectors[n]; rng.IntN(2) == 0 {
			if _, err := f.WriteAt(old, n*sector); err != nil {
				return err
			}
		}
	}
	if rng.IntN(2) == 0 {
		return f.Truncate(s.size)
	}
	return nil
}

type floppyFile struct {
	d    *floppy
	f    *os.File
	s    *sheet
	name string
}

func (f *floppyFile) ReadAt(p []byte, off int64) (int, error) { return f.f.ReadAt(p, off) }
func (f *floppyFile) Close() error                            { return f.f.Close() }

func (f *floppyFile) Size() (int64, error) {
	info, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// remember keeps what the sectors of a range hold, unless they are unsynced already.
func (f *floppyFile) remember(from, to int64) error {
	for n := from / sector; n*sector < to; n++ {
		if _, known := f.s.sectors[n]; known {
			continue
		}
		old := make([]byte, sector)
		got, err := f.f.ReadAt(old, n*sector)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		f.s.sectors[n] = old[:got]
	}
	return nil
}

func (f *floppyFile) WriteAt(p []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	was := f.d.off
	fault := f.d.call("write")
	if was {
		return 0, fault
	}
	if err := f.remember(off, off+int64(len(p))); err != nil {
		f.d.t.Error(err)
	}
	if !strings.Contains(filepath.Base(f.name), ".torn") {
		kept.see(f.f, p, off)
	}
	if fault != nil { // any part of it may have arrived
		p = p[:f.d.rng.IntN(len(p)+1)]
	}
	n, err := f.f.WriteAt(p, off)
	return n, errors.Join(fault, err)
}

func (f *floppyFile) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.call("cut"); err != nil {
		return err
	}
	return f.cut(size)
}

func (f *floppyFile) cut(size int64) error {
	have, err := f.Size()
	if err == nil {
		err = f.remember(size, have)
	}
	if err != nil {
		return err
	}
	return f.f.Truncate(size)
}

func (f *floppyFile) Datasync() error { return f.Sync() }

// Sync makes what was written safe. One that fails forgets it: the pages are clean and hold what the disk does not.
func (f *floppyFile) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.s.failed && !f.d.off {
		f.d.t.Errorf("%s is synced again after its sync failed", filepath.Base(f.name))
	}
	err := f.d.call("sync")
	if err == nil && filepath.Base(f.name) == f.d.bad {
		err = syscall.EIO
	}
	if err != nil {
		f.s.failed = true
		return err
	}
	size, err := f.Size()
	if err != nil {
		return err
	}
	f.s.size = size
	clear(f.s.sectors)
	return nil
}

// leftovers are the files of a journal that are being made.
func leftovers(dir string) (list []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".new") {
			list = append(list, e.Name())
		}
	}
	return list
}

// lying is a floppy that says it has synced and has not.
type lying struct{ *floppy }

type lyingFile struct{ journal.File }

func (l lying) OpenFile(name string, flag int, perm os.FileMode) (journal.File, error) {
	f, err := l.floppy.OpenFile(name, flag, perm)
	return lyingFile{f}, err
}

func (lyingFile) Sync() error     { return nil }
func (lyingFile) Datasync() error { return nil }

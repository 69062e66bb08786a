package journal

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// disk is a file system in memory that forgets like a real one: what was not synced survives a power cut sector by
// sector, at random; names survive only up to a directory's sync; a sync that fails drops what it should have written and
// keeps it readable, as a page cache does.
type disk struct {
	mu     sync.Mutex
	rng    *rand.Rand
	live   map[string]*inode
	safe   map[string]*inode // names as a power cut leaves them
	ops    []func(map[string]*inode)
	locks  map[string]bool
	sealed *seals

	// Faults, each an operation's number from now, counted down; 0 = none.
	cutAt, failSyncAt, shortAt, fullAt int
	lies                               bool   // syncs do nothing: the control
	brokenDir                          string // every write and sync in it fails
	unreadable                         string // a file whose first sector of batches cannot be read
	image                              *disk
	syncs, writes, syncsAfterFailure   int
	failed                             *inode // whose sync failed
}

type inode struct {
	live, safe []byte
	dirty      map[int64]bool
	resized    bool
}

func newDisk(seed uint64) *disk {
	return &disk{rng: rand.New(rand.NewPCG(seed, 1)), live: map[string]*inode{}, safe: map[string]*inode{}, locks: map[string]bool{}, sealed: kept}
}

var errPower = errors.New("no power")

// tick counts an operation of the disk and cuts the power when its time has come. The caller holds mu.
func (d *disk) tick() error {
	if d.image != nil {
		return errPower
	}
	if d.cutAt > 0 {
		if d.cutAt--; d.cutAt == 0 {
			d.image = d.afterCut()
			return errPower
		}
	}
	return nil
}

// crash is the disk after a power cut now, or at the cut that happened.
func (d *disk) crash() *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.image == nil {
		d.image = d.afterCut()
	}
	return d.image
}

// restart is the disk after the death of the process alone: the page cache survives.
func (d *disk) restart() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.locks)
	d.cutAt, d.failSyncAt, d.shortAt, d.fullAt, d.failed = 0, 0, 0, 0, nil
}

func (d *disk) afterCut() *disk {
	d.sealed.torn()
	to := newDisk(d.rng.Uint64())
	names := maps.Clone(d.safe)
	for _, op := range d.ops[:d.rng.IntN(len(d.ops)+1)] {
		op(names)
	}
	done := map[*inode]*inode{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		ino := names[name]
		if done[ino] == nil {
			done[ino] = ino.afterCut(d.rng)
		}
		to.live[name], to.safe[name] = done[ino], done[ino]
	}
	return to
}

func (ino *inode) afterCut(rng *rand.Rand) *inode {
	data := slices.Clone(ino.safe)
	resized := ino.resized && rng.IntN(2) == 0
	if resized {
		data = append(data, make([]byte, max(0, len(ino.live)-len(data)))...)[:len(ino.live)]
	}
	for _, sector := range slices.Sorted(maps.Keys(ino.dirty)) {
		from := sector * sectorBytes
		to := min(from+sectorBytes, int64(len(ino.live)), int64(len(data)))
		if from < to && rng.IntN(2) == 0 {
			copy(data[from:to], ino.live[from:to])
		}
	}
	return &inode{live: data, safe: slices.Clone(data), dirty: map[int64]bool{}}
}

func (d *disk) OpenFile(name string, flag int, _ os.FileMode) (File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.image != nil {
		return nil, errPower
	}
	ino := d.live[name]
	if ino == nil {
		if flag&os.O_CREATE == 0 {
			return nil, &fs.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
		}
		ino = &inode{dirty: map[int64]bool{}}
		d.live[name] = ino
		d.ops = append(d.ops, func(m map[string]*inode) { m[name] = ino })
	}
	if flag&os.O_TRUNC != 0 && len(ino.live) > 0 {
		ino.live, ino.resized = nil, true
	}
	return &file{d: d, ino: ino, name: name}, nil
}

// clone is the disk as the process left it, for a test to change.
func (d *disk) clone() *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	to := newDisk(d.rng.Uint64())
	for name, ino := range d.live {
		c := &inode{live: slices.Clone(ino.live), safe: slices.Clone(ino.live), dirty: map[int64]bool{}}
		to.live[name], to.safe[name] = c, c
	}
	return to
}

type entry struct {
	name string
	fs.DirEntry
}

func (e entry) Name() string { return e.name }

func (d *disk) ReadDir(dir string) ([]os.DirEntry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []os.DirEntry
	for _, name := range slices.Sorted(maps.Keys(d.live)) {
		if filepath.Dir(name) == dir {
			list = append(list, entry{name: filepath.Base(name)})
		}
	}
	return list, nil
}

func (d *disk) Mkdir(string, bool) error { return nil }

func (d *disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.tick(); err != nil {
		return err
	}
	op := func(m map[string]*inode) {
		if m[from] != nil {
			m[to] = m[from]
			delete(m, from)
		}
	}
	op(d.live)
	d.ops = append(d.ops, op)
	return nil
}

func (d *disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	op := func(m map[string]*inode) { delete(m, name) }
	op(d.live)
	d.ops = append(d.ops, op)
	return nil
}

func (d *disk) SyncDir(string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.tick(); err != nil {
		return err
	}
	if !d.lies {
		for _, op := range d.ops {
			op(d.safe)
		}
		d.ops = nil
	}
	return nil
}

type unlock func()

func (u unlock) Close() error { u(); return nil }

func (d *disk) Lock(name string, shared bool) (io.Closer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.locks[name] {
		return nil, ErrLocked
	}
	d.locks[name] = !shared
	return unlock(func() { d.mu.Lock(); delete(d.locks, name); d.mu.Unlock() }), nil
}

type file struct {
	d    *disk
	ino  *inode
	name string
}

func (f *file) Close() error { return nil }

func (f *file) Size() (int64, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return int64(len(f.ino.live)), nil
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.name == f.d.unreadable && off+int64(len(p)) > headerBytes {
		return 0, syscall.EIO
	}
	if off >= int64(len(f.ino.live)) {
		return 0, io.EOF
	}
	n := copy(p, f.ino.live[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writes++
	if filepath.Dir(f.name) == d.brokenDir {
		return 0, syscall.EIO
	}
	cutting := d.cutAt == 1
	if err := d.tick(); err != nil && !cutting {
		return 0, err
	}
	n, fault := len(p), error(nil)
	if due(&d.shortAt) {
		n, fault = d.rng.IntN(len(p)), io.ErrShortWrite
	}
	if due(&d.fullAt) {
		n, fault = d.rng.IntN(len(p)), syscall.ENOSPC
	}
	if filepath.Ext(f.name) != ".torn" {
		d.sealed.see(f.ino.live, p, off)
	}
	f.ino.put(p[:n], off)
	if cutting { // the power goes while this is on its way: any part of it may have arrived
		d.image = d.afterCut()
		return 0, errPower
	}
	return n, fault
}

func due(at *int) bool {
	if *at > 0 {
		*at--
		return *at == 0
	}
	return false
}

func (ino *inode) put(p []byte, off int64) {
	if grow := off + int64(len(p)) - int64(len(ino.live)); grow > 0 {
		ino.live, ino.resized = append(ino.live, make([]byte, grow)...), true
	}
	copy(ino.live[off:], p)
	for s := off / sectorBytes; s*sectorBytes < off+int64(len(p)); s++ {
		ino.dirty[s] = true
	}
}

func (f *file) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.tick(); err != nil {
		return err
	}
	if size < int64(len(f.ino.live)) {
		f.ino.live, f.ino.resized = f.ino.live[:size:size], true
	}
	return nil
}

func (f *file) Datasync() error { return f.Sync() }

func (f *file) Sync() error {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	d.syncs++
	if d.failed == f.ino {
		d.syncsAfterFailure++
	}
	if err := d.tick(); err != nil {
		return err
	}
	if due(&d.failSyncAt) {
		clear(f.ino.dirty)
		d.failed = f.ino
		return syscall.EIO
	}
	if !d.lies {
		f.ino.flush()
	}
	return nil
}

// flush makes the dirty sectors and the size safe. Sectors of a failed sync are clean by then, and stay forgotten.
func (ino *inode) flush() {
	data := append(slices.Clone(ino.safe), make([]byte, max(0, len(ino.live)-len(ino.safe)))...)[:len(ino.live)]
	for s := range ino.dirty {
		from := s * sectorBytes
		if to := min(from+sectorBytes, int64(len(data))); from < to {
			copy(data[from:to], ino.live[from:to])
		}
	}
	ino.safe, ino.resized = data, false
	clear(ino.dirty)
}

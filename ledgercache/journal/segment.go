package journal

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Chunks in which files are written through and read.
const (
	zeroChunk  = 256 << 10
	readWindow = 64 << 10
)

var errNoHeader = fmt.Errorf("%w: no header", ErrDamaged)

// segment is what is known of one file: written by one process, sealed with a key that only that process had. It does
// not change after it was made or surveyed, and holds no open file.
type segment struct {
	header
	aead cipher.AEAD
	size int64 // of the file when it was surveyed
	end  int64 // behind the last batch that verified
	// unsure is where the first batch begins that no synced witness of its directory has seen, 0 if there is none.
	unsure int64
	after  Head
}

func (s *segment) start() Head {
	return Head{Epoch: s.epoch, Sequence: s.before.Sequence, Hash: s.before.Hash}
}

func segmentPath(dir string, number uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%010d.seg", number))
}

// segmentNumbers lists the segments of a directory in order.
func segmentNumbers(fs FS, dir string) ([]uint32, error) {
	entries, err := fs.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var numbers []uint32
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".seg")
		if n, err := strconv.ParseUint(name, 10, 32); ok && len(name) == 10 && err == nil && n > 0 {
			numbers = append(numbers, uint32(n))
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// openSegment reads and authenticates a segment's header.
func openSegment(fs FS, dir string, number uint32, o Options) (*segment, error) {
	f, err := fs.OpenFile(segmentPath(dir, number), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw := make([]byte, headerBytes)
	n, err := f.ReadAt(raw, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, unreadable(err)
	}
	h, aead, err := decodeHeader(raw[:n], o)
	if err != nil {
		return nil, err
	}
	if h.number != number {
		return nil, fmt.Errorf("%w: the file of segment %d holds segment %d", ErrDamaged, number, h.number)
	}
	size, err := f.Size()
	return &segment{header: h, aead: aead, size: size, end: headerBytes}, err
}

// A segment is made in two parts: a spare, written through with zeros so that later batches change no metadata (storage.md
// B1), under another name; then its header, synced, and only then its own name. So a segment's name never stands over a
// header that was not durable.

// createSpare writes the file of a segment through. What stands there under that name is replaced.
func createSpare(fs FS, dir string, number uint32, size int64) (File, error) {
	temporary := segmentPath(dir, number) + ".new"
	if err := fs.Remove(temporary); err != nil && !errors.Is(err, os.ErrNotExist) { // a file whose sync failed is not synced again
		return nil, err
	}
	f, err := fs.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := writeThrough(f, size); err != nil {
		f.Close()
		_ = fs.Remove(temporary) // only to give its space back
		return nil, err
	}
	return f, nil
}

// nameSegment makes a spare into a segment. It closes the file if it fails.
func nameSegment(fs FS, dir string, number uint32, f File, header []byte) error {
	path := segmentPath(dir, number)
	err := writeAt(f, header, 0)
	if err == nil {
		err = f.Datasync()
	}
	if err == nil {
		err = fs.Rename(path+".new", path)
	}
	if err == nil {
		err = fs.SyncDir(dir)
	}
	if err != nil {
		f.Close()
		_ = fs.Remove(path + ".new") // only to give its space back
	}
	return err
}

func writeThrough(f File, size int64) error {
	zeros := make([]byte, zeroChunk)
	for off := int64(0); off < size; off += zeroChunk {
		if err := writeAt(f, zeros[:min(zeroChunk, size-off)], off); err != nil {
			return err
		}
	}
	return f.Sync()
}

func writeAt(f File, data []byte, off int64) error {
	n, err := f.WriteAt(data, off)
	if err == nil && n != len(data) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return fmt.Errorf("write at %d, %d of %d bytes: %w", off, n, len(data), err)
	}
	return nil
}

// finish gives the space behind the last batch back. The batches are durable already.
func finish(f File, end int64) error {
	if err := f.Truncate(end); err != nil {
		return err
	}
	return f.Sync()
}

// batch is one verified batch. Its records are valid until the walker moves on.
type batch struct {
	offset, end int64
	first       uint64
	head        Head // after it
	records     [][]byte
}

// unreadable makes a sector that the disk cannot give back into damage, so that it is named like any other.
func unreadable(err error) error {
	if errors.Is(err, syscall.EIO) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// errEnd says that no batch begins at the walker's offset: the file ends, or there are zeros where a frame would be.
var errEnd = errors.New("end of batches")

// walker reads the batches of a segment in order through a small window: one batch is in memory at a time.
type walker struct {
	f      File
	seg    *segment
	offset int64
	n      uint64 // batches so far
	head   Head   // after them

	window  []byte
	at      int64 // of the window in the file
	plain   []byte
	records [][]byte
}

func newWalker(fs FS, dir string, seg *segment) (*walker, error) {
	f, err := fs.OpenFile(segmentPath(dir, seg.number), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	return &walker{f: f, seg: seg, offset: headerBytes, head: seg.start()}, nil
}

func (w *walker) close() { w.f.Close() }

// bytes gives up to n bytes at off, fewer where the file ends. They are valid until the next call.
func (w *walker) bytes(off int64, n int) ([]byte, error) {
	if off < w.at || off+int64(n) > w.at+int64(len(w.window)) {
		want := max(n, readWindow)
		if cap(w.window) < want {
			w.window = make([]byte, want)
		}
		w.window = w.window[:cap(w.window)][:want]
		got, err := w.f.ReadAt(w.window, off)
		if err != nil && !errors.Is(err, io.EOF) {
			w.window = w.window[:0]
			return nil, unreadable(err)
		}
		w.window, w.at = w.window[:got], off
	}
	from := off - w.at
	return w.window[from:min(from+int64(n), int64(len(w.window)))], nil
}

// next verifies the batch at the walker's offset and moves behind it. errEnd: there is none. ErrDamaged: it does not
// verify, and the walker stays. Any other error is of the file.
func (w *walker) next() (batch, error) {
	raw, err := w.bytes(w.offset, frameBytes)
	if err != nil {
		return batch{}, err
	}
	if allZero(raw) {
		return batch{}, errEnd
	}
	if len(raw) < frameBytes {
		return batch{}, fmt.Errorf("%w: half a frame", ErrDamaged)
	}
	f, whole := decodeFrame(raw)
	if !whole {
		return batch{}, fmt.Errorf("%w: frame does not verify", ErrDamaged)
	}
	if f.first != w.head.Sequence+1 || f.before != w.head.Hash {
		return batch{}, fmt.Errorf("%w: frame does not follow the one before", ErrDamaged)
	}
	return w.unseal(f)
}

func (w *walker) unseal(f frame) (batch, error) {
	raw, err := w.bytes(w.offset, frameBytes+f.length)
	if err != nil {
		return batch{}, err
	}
	if len(raw) < frameBytes+f.length {
		return batch{}, fmt.Errorf("%w: file ends in a batch", ErrDamaged)
	}
	w.plain, err = w.seg.aead.Open(w.plain[:0], nonce(w.n+1), raw[frameBytes:], raw[:frameBytes])
	if err != nil {
		return batch{}, fmt.Errorf("%w: batch does not verify", ErrDamaged)
	}
	if w.records, err = unpack(w.records[:0], w.plain, f.count); err != nil {
		return batch{}, err
	}
	b := batch{offset: w.offset, end: w.offset + int64(len(raw)), first: f.first, records: w.records}
	b.head = Head{Epoch: w.head.Epoch, Sequence: w.head.Sequence + uint64(f.count), Hash: chain(w.head.Hash, raw[frameBytes:])}
	w.offset, w.n, w.head = b.end, w.n+1, b.head
	return b, nil
}

// written finds the last byte at or behind off that is not zero; -1 if there is none.
func (w *walker) written(off int64) (last int64, err error) {
	last = -1
	for {
		raw, err := w.bytes(off, readWindow)
		if err != nil || len(raw) == 0 {
			return last, err
		}
		for i, c := range slices.Backward(raw) {
			if c != 0 {
				last = off + int64(i)
				break
			}
		}
		off += int64(len(raw))
	}
}

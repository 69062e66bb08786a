// Package journal is the truth on disk: an append-only file of sealed, chained batches of records.
//
// Guarantees: Append returns only when its batch is durable, with one write and one sync; a batch is read back whole and
// as it was written, or its damage is named; no key and nonce ever seal two texts, because every opening begins a new
// segment with a key of its own; a write or sync that fails seals the journal in this process for good. Damage, and a
// tail that a witness proves to be lost, open the journal read-only: nothing is skipped and nothing is repaired by guess.
//
// The package knows bytes, not money. Append is for one writer; every other method may be called at any time beside it.
// FORMAT.md specifies the bytes.
package journal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sys/unix"
)

// Limits of a batch and of a segment.
const (
	MaxRecords   = 4096    // records in one batch
	MaxBatch     = 1 << 20 // bytes of one batch before sealing
	segmentBytes = 4 << 20 // of a segment unless Options say otherwise
	idleHead     = 50 * time.Millisecond
)

// Errors of the journal.
var (
	// ErrSealed says that a write or sync failed and this process writes nothing more.
	ErrSealed = errors.New("journal: sealed after a failed write")
	// ErrReadOnly says that the journal was opened read-only, wrapped around why.
	ErrReadOnly = errors.New("journal: read-only")
	// ErrDamaged names a place that does not verify although what follows, or a witness, proves that it once did.
	ErrDamaged = errors.New("journal: damaged")
	// ErrTailLost says that batches which a witness saw durable are gone from the end.
	ErrTailLost = errors.New("journal: tail lost")
	// ErrForked says that a witness saw other content at the same sequence.
	ErrForked = errors.New("journal: forked")
	// ErrKey says that the first segment does not verify with this key and terminal.
	ErrKey = errors.New("journal: wrong key, or not this terminal's journal")
	// ErrVersion names a format that this version does not know; the file is left untouched.
	ErrVersion = errors.New("journal: format of another version")
	// ErrLocked says that another process has the directory.
	ErrLocked = errors.New("journal: in use by another process")
	// ErrTooLarge says that a batch is over MaxRecords or MaxBatch, or empty.
	ErrTooLarge = errors.New("journal: batch empty or too large")
	// ErrMirror says that a mirror was asked for, which this version does not have.
	ErrMirror = errors.New("journal: a mirror is not available in this version")
	// ErrClosed says that the journal was closed.
	ErrClosed = errors.New("journal: closed")
)

// Head names the end of a chain: after the record with this sequence the chain has this hash. Records count from 1.
type Head struct {
	Epoch    [16]byte // ULID of the book's life; a restored book begins another
	Sequence uint64
	Hash     [32]byte
}

// Witness is something outside of the journal that once saw it durable up to Sequence.
type Witness struct {
	Name     string
	Sequence uint64
	Hash     [32]byte
	HasHash  bool
}

// Options say which journal to open.
type Options struct {
	Dir          string
	Mirror       string // must be empty: see ErrMirror
	Key          [32]byte
	TerminalID   string // 8 characters
	SegmentBytes int64  // 0 = 4 MiB
	Witnesses    []Witness
	Log          *slog.Logger
}

// Report is what opening found and did.
type Report struct {
	Created   bool   // there was no journal
	Records   uint64 // sequence of the last record
	Segments  int
	Rewritten int    // batches above the last synced witness that were written and synced again before they were believed
	CutBytes  int64  // length of a torn tail that was cut; it had never been answered
	CutAside  string // where its bytes are kept
	Problem   error  // why the journal is read-only
}

// Journal is an open journal.
type Journal struct {
	o    Options
	log  *slog.Logger
	lock *os.File

	mu       sync.Mutex
	segments []*segment // oldest first; the last one is written to, unless read-only
	head     Head
	err      error // sealed, read-only or closed
	closed   bool
	slots    *slots
	idle     *time.Timer
}

// Open opens the journal in o.Dir, or makes one. The opening rules stand in FORMAT.md. An error means that nothing was
// opened and nothing changed; a journal that is damaged or has lost its tail opens, and ReadOnly says why.
func Open(o Options) (*Journal, Report, error) {
	if o.Mirror != "" {
		return nil, Report{}, ErrMirror
	}
	if len(o.TerminalID) != 8 {
		return nil, Report{}, fmt.Errorf("%w: terminal id %q", ErrKey, o.TerminalID)
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = segmentBytes
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, Report{}, err
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, Report{}, err
	}
	j := &Journal{o: o, log: o.Log, lock: lock}
	report, err := j.open()
	if err != nil {
		j.release()
		return nil, report, err
	}
	j.idle = time.AfterFunc(time.Hour, j.writeHeadWhenIdle)
	j.idle.Stop()
	return j, report, nil
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %s", ErrLocked, dir)
	}
	return f, nil
}

func (j *Journal) open() (Report, error) {
	var r Report
	found, err := findSegments(j.o)
	if err != nil {
		return r, err
	}
	if j.slots, err = openSlots(j.o); err != nil {
		return r, err
	}
	if len(found) == 0 {
		return j.create(r)
	}
	s := &survey{o: j.o, report: &r, witnesses: append(j.slots.witnesses(), j.o.Witnesses...)}
	err = s.run(found)
	j.segments, j.head = s.good, s.head
	r.Records, r.Segments = j.head.Sequence, len(j.segments)
	if errors.Is(err, ErrKey) || errors.Is(err, ErrVersion) {
		return r, err
	}
	if err != nil {
		r.Problem = err
		j.err = fmt.Errorf("%w: %w", ErrReadOnly, err)
		return r, nil
	}
	if err := s.confirm(); err != nil {
		return r, err
	}
	if err := j.slots.write(j.head); err != nil {
		return r, err
	}
	return r, j.newSegment()
}

// create begins a journal: a fresh epoch and segment 1. A witness that saw records proves that there was one.
func (j *Journal) create(r Report) (Report, error) {
	for _, w := range append(j.slots.witnesses(), j.o.Witnesses...) {
		if w.Sequence > 0 {
			r.Problem = fmt.Errorf("%w: %s saw sequence %d, and there is no journal", ErrTailLost, w.Name, w.Sequence)
			j.err = fmt.Errorf("%w: %w", ErrReadOnly, r.Problem)
			return r, nil
		}
	}
	r.Created = true
	j.head.Epoch = ulid.MustNew(ulid.Now(), rand.Reader)
	return r, j.newSegment()
}

// newSegment begins the next segment, preallocated and durable with its name, before anything is written to it.
func (j *Journal) newSegment() error {
	number := uint32(1)
	if n := len(j.segments); n > 0 {
		number = j.segments[n-1].number + 1
	}
	s, err := createSegment(j.o, number, j.head)
	if err != nil {
		return fmt.Errorf("segment %d: %w", number, err)
	}
	j.segments = append(j.segments, s)
	return nil
}

// Append makes the records durable as one batch, in order, and returns the sequence of the first. After any error of
// writing the journal is sealed: nothing is known of the tail, and only a new opening can tell.
func (j *Journal) Append(records [][]byte) (first uint64, err error) {
	plain, err := pack(records)
	if err != nil {
		return 0, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return 0, j.err
	}
	s := j.segments[len(j.segments)-1]
	if !s.fits(len(plain)) {
		if err := errors.Join(s.finish(), j.newSegment()); err != nil {
			return 0, j.seal(err)
		}
		s = j.segments[len(j.segments)-1]
	}
	first = j.head.Sequence + 1
	head, err := s.append(j.head, plain, len(records))
	if err != nil {
		return 0, j.seal(err)
	}
	j.head = head
	j.idle.Reset(idleHead)
	return first, nil
}

func (j *Journal) seal(cause error) error {
	j.err = fmt.Errorf("%w: %w", ErrSealed, cause)
	return j.err
}

// writeHeadWhenIdle makes the durable head a witness of itself once nothing was written for a moment.
func (j *Journal) writeHeadWhenIdle() {
	if err := j.SyncHead(); err != nil && !errors.Is(err, ErrClosed) {
		j.log.Error("head not written", slog.Any("err", err))
	}
}

// SyncHead makes the present head durable as a witness: at shift and day close, and when idle. A failure seals.
func (j *Journal) SyncHead() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return j.err
	}
	if err := j.slots.write(j.head); err != nil {
		return j.seal(err)
	}
	return nil
}

// Head is the end of the durable chain.
func (j *Journal) Head() Head {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.head
}

// ReadOnly is nil while the journal takes records, else why it does not.
func (j *Journal) ReadOnly() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

// Read calls fn for every durable record from the sequence on, in order, with the head of the record's batch. It holds
// one batch in memory and sees what was durable when it began. An error of fn ends it and is returned.
func (j *Journal) Read(from uint64, fn func(seq uint64, head Head, record []byte) error) error {
	j.mu.Lock()
	last, segments := j.head.Sequence, append([]*segment(nil), j.segments...)
	closed := j.closed
	j.mu.Unlock()
	if closed {
		return ErrClosed
	}
	for i, s := range segments {
		if i+1 < len(segments) && segments[i+1].before.Sequence+1 <= from {
			continue
		}
		if s.before.Sequence >= last {
			return nil
		}
		if err := s.read(last, from, fn); err != nil {
			return err
		}
	}
	return nil
}

// Close writes the head, gives unused space back and releases the directory.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	if j.idle != nil {
		j.idle.Stop()
	}
	var err error
	if j.err == nil {
		err = errors.Join(j.slots.write(j.head), j.segments[len(j.segments)-1].finish())
		j.err = ErrClosed
	}
	j.release()
	return err
}

// release closes files; what was to be durable is so already.
func (j *Journal) release() {
	for _, s := range j.segments {
		s.close()
	}
	if j.slots != nil {
		j.slots.close()
	}
	j.lock.Close()
}

var _ io.Closer = (*Journal)(nil)

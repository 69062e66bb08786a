// Package journal is the truth on disk: an append-only file of sealed, chained batches of records.
//
// Guarantees: Append returns only when its batch is durable, with one write and one sync for each copy; a batch is read
// back whole and as it was written, or its damage is named; no key and nonce ever seal two texts, because every opening
// begins a new segment with a key of its own; a write or sync that fails seals the journal in this process for good and is
// never tried again. Damage, and a tail that a witness proves to be lost, open the journal read-only: nothing is skipped
// and nothing is repaired by guess.
//
// Duties: one goroutine at a time calls Append (others wait for it); every other method may be called at any time beside
// it. The owner of derived state passes what it has seen as a Witness, and starts a new process when Append says ErrSealed.
//
// The package knows bytes, not money. FORMAT.md specifies the bytes, DESIGN.md says why they are so.
package journal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
)

// Limits of a batch and of a segment.
const (
	MaxRecords   = 4096    // records in one batch
	MaxBatch     = 1 << 20 // bytes of one batch before sealing: 4 for each record, and the record
	segmentBytes = 4 << 20 // of a segment unless Options say otherwise
)

// The head is written as a witness when nothing was appended for idleHead, and at the latest every busyHead.
const (
	idleHead = 50 * time.Millisecond
	busyHead = time.Second
)

// mirrorWithin bounds how long one write, sync or opening of the mirror may take beside the primary's. A stick that tidies up
// takes a second or so; a mount whose other end is gone takes for ever.
const mirrorWithin = 3 * time.Second

// Errors of the journal.
var (
	// ErrSealed says that a write or sync failed and this process writes nothing more.
	ErrSealed = errors.New("journal: sealed after a failed write")
	// ErrReadOnly says that the journal was opened read-only, wrapped around why.
	ErrReadOnly = errors.New("journal: read-only")
	// ErrDamaged names a place that does not verify although what follows, or its own completeness, proves that it once did.
	ErrDamaged = errors.New("journal: damaged")
	// ErrTailLost says that batches which a witness saw durable are gone from the end.
	ErrTailLost = errors.New("journal: tail lost")
	// ErrForked says that a witness or the mirror has another batch at the same sequence.
	ErrForked = errors.New("journal: forked")
	// ErrKey says that nothing in the directory verifies with this key and terminal.
	ErrKey = errors.New("journal: wrong key, or not this terminal's journal")
	// ErrVersion names a format that this version does not know; the file is left untouched.
	ErrVersion = errors.New("journal: format of another version")
	// ErrLocked says that another process has the directory.
	ErrLocked = errors.New("journal: in use by another process")
	// ErrTooLarge says that a batch is over MaxRecords or MaxBatch, or empty. Nothing was written.
	ErrTooLarge = errors.New("journal: batch empty or too large")
	// ErrMirror says that the mirror failed and is left out until an opening has refilled it.
	ErrMirror = errors.New("journal: mirror left out")
	// ErrOptions says that the options cannot be used.
	ErrOptions = errors.New("journal: unusable options")
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
	Dir        string
	Mirror     string // a directory on another device; its parent must exist. "" = none
	Key        [32]byte
	TerminalID string // 8 characters
	// SegmentBytes is the length to which a segment is written through, 0 = 4 MiB, at least 16 KiB. A larger batch gets a
	// larger segment.
	SegmentBytes int64
	Witnesses    []Witness
	FS           FS // nil = the operating system's
	Log          *slog.Logger
	NewEpoch     func() [16]byte // nil = a ULID
	// ReadOnly opens what is there without changing it: for a disk that is full, failing or read-only. Batches above the
	// last synced witness are read, but nothing may be promised on them.
	ReadOnly bool
	// MirrorWithin bounds how long an answer waits for the mirror, which is then left out; 0 = 3 s.
	MirrorWithin time.Duration
	// BeginEpoch begins a new epoch that names the old head, as a restored or imported book must.
	BeginEpoch bool

	// Archive is where closed segments may have been moved to; "" = nowhere.
	Archive string

	earlier [][32]byte // the keys of the ring that Key opens
}

// Report is what opening found and did.
type Report struct {
	Created   bool   // there was no journal
	First     uint64 // sequence of the first record that is here; above 1 where archives were moved away
	Records   uint64 // sequence of the last record
	Segments  int
	Rewritten int    // batches above the last synced witness that were written and synced again before they were believed
	TornBytes int64  // length of a torn tail that was found
	CutBytes  int64  // length of the torn tail that was cut; it had never been answered
	CutAside  string // where its bytes are kept
	Cuts      []Cut  // every cut that is recorded in the journal, oldest first
	HeadBad   int    // slots of HEAD files that did not verify; one may be torn by a crash
	HeadGone  bool   // there are segments, and no HEAD beside them
	Refilled  []string
	MirrorErr error // why the mirror is left out
	Problem   error // why the journal is read-only; a *Damage
}

// Journal is an open journal.
type Journal struct {
	o       Options
	log     *slog.Logger
	primary *shelf
	from    *shelf // where is read

	writing sync.Mutex // held by whoever writes to a segment; guards the next three
	buf     []byte
	offset  int64
	batches uint64

	mu        sync.Mutex // guards what follows; held for moments only
	mirror    *shelf     // nil if there is none or it is left out
	mirrorErr error
	segments  []*segment // oldest first; the last one is written to, unless read-only
	size      int64      // of the last one
	head      Head
	err       error // sealed, read-only or closed
	closed    bool
	pulse     pulse
}

// Open opens the journal in o.Dir, or makes one. The opening rules stand in FORMAT.md. An error means that nothing was
// opened, and that nothing was changed if it is one of this package; a journal that is damaged or has lost its tail opens,
// and ReadOnly says why.
func Open(o Options) (*Journal, Report, error) {
	o, err := o.complete()
	if err != nil {
		return nil, Report{}, err
	}
	j := &Journal{o: o, log: o.Log, primary: &shelf{name: "primary", path: o.Dir, fs: o.FS}}
	j.from = j.primary
	if !o.ReadOnly {
		if err := o.FS.Mkdir(o.Dir, true); err != nil {
			return nil, Report{}, fmt.Errorf("journal: %w", err)
		}
	}
	if j.primary.lock, err = o.FS.Lock(filepath.Join(o.Dir, "LOCK"), o.ReadOnly); err != nil {
		return nil, Report{}, err
	}
	report, err := j.open()
	if err != nil {
		j.release()
		return nil, report, fmt.Errorf("open journal: %w", err)
	}
	return j, report, nil
}

func (o Options) complete() (Options, error) {
	if len(o.TerminalID) != 8 || o.Dir == "" || o.Mirror == o.Dir {
		return o, fmt.Errorf("%w: directory %q, mirror %q, terminal id %q", ErrOptions, o.Dir, o.Mirror, o.TerminalID)
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = segmentBytes
	}
	if o.SegmentBytes < 16<<10 {
		return o, fmt.Errorf("%w: segments of %d bytes", ErrOptions, o.SegmentBytes)
	}
	if o.MirrorWithin == 0 {
		o.MirrorWithin = mirrorWithin
	}
	if o.FS == nil {
		o.FS = OS
	}
	if _, wrapped := o.FS.(withArchive); !wrapped {
		o.FS = o.archived()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.NewEpoch == nil {
		o.NewEpoch = func() [16]byte { return ulid.MustNew(ulid.Now(), rand.Reader) }
	}
	return o, nil
}

// Append makes the records durable as one batch, in order, and returns the sequence of the first. After any error of
// writing the journal is sealed: nothing is known of the tail, and only a new opening can tell.
func (j *Journal) Append(records [][]byte) (first uint64, err error) {
	packed, err := packedBytes(records)
	if err != nil {
		return 0, err
	}
	j.writing.Lock()
	defer j.writing.Unlock()
	need := int64(frameBytes + packed + tagBytes)
	head, seg, size, err := j.present()
	if err != nil {
		return 0, err
	}
	if j.offset+need > size {
		if err := j.rotate(need); err != nil {
			return 0, j.seal(err)
		}
		if head, seg, _, err = j.present(); err != nil {
			return 0, err
		}
	}
	frame, next := seal(j.buf, seg.aead, j.batches+1, head, records, packed)
	j.buf = frame
	if err := j.put(frame); err != nil {
		return 0, j.seal(err)
	}
	j.offset, j.batches = j.offset+need, j.batches+1
	j.mu.Lock()
	j.head = next
	j.beat()
	j.mu.Unlock()
	j.prepare(seg.number+1, size)
	return head.Sequence + 1, nil
}

// prepare writes the next segment through beside the appends, once the present one is half full.
func (j *Journal) prepare(number uint32, size int64) {
	if j.offset < size/2 || j.o.SegmentBytes < spareFrom {
		return
	}
	j.primary.prepare(number, j.o.SegmentBytes, j.log)
	if mirror := j.mirrored(); mirror != nil {
		mirror.prepare(number, j.o.SegmentBytes, j.log)
	}
}

// present is what the writer continues from, or why it may not.
func (j *Journal) present() (Head, *segment, int64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return Head{}, nil, 0, j.err
	}
	return j.head, j.segments[len(j.segments)-1], j.size, nil
}

// put writes and syncs a frame in both copies at once. The mirror's failure leaves it out, the primary's is the answer.
func (j *Journal) put(frame []byte) error {
	mirror, offset := j.mirrored(), j.offset
	if mirror == nil {
		return j.primary.put(frame, offset)
	}
	failed := make(chan error, 1)
	go func() { failed <- mirror.put(frame, offset) }()
	err := j.primary.put(frame, offset)
	if failure := j.await(failed); failure != nil {
		j.buf = nil // a mirror that hangs may still hold the frame
		j.leaveOut(failure, failed)
	}
	return err
}

// errHung says that a mirror neither did what it was asked nor failed.
var errHung = errors.New("no answer in time")

// await waits for what the mirror was asked to do, for as long as an answer may wait for it.
func (j *Journal) await(done <-chan error) error {
	late := time.NewTimer(j.o.MirrorWithin)
	defer late.Stop()
	select {
	case err := <-done:
		return err
	case <-late.C:
		return fmt.Errorf("%w: %s", errHung, j.o.MirrorWithin)
	}
}

// onMirror has the mirror do something, if it is there, and leaves it out if that fails or hangs.
func (j *Journal) onMirror(do func(m *shelf) error) {
	m := j.mirrored()
	if m == nil {
		return
	}
	done := make(chan error, 1)
	go func() { done <- do(m) }()
	if err := j.await(done); err != nil {
		j.leaveOut(err, done)
	}
}

func (j *Journal) mirrored() *shelf {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.mirror
}

// leaveOut goes on without the mirror. Its files stay as they are until an opening refills them. What hangs is let go of
// when it comes back, if ever: pending tells.
func (j *Journal) leaveOut(cause error, pending <-chan error) {
	j.mu.Lock()
	m := j.mirror
	j.mirror, j.mirrorErr = nil, fmt.Errorf("%w: %w", ErrMirror, cause)
	j.mu.Unlock()
	j.log.Error("journal mirror left out", slog.Any("err", cause))
	switch {
	case m == nil:
	case errors.Is(cause, errHung):
		go func() { <-pending; m.release() }()
	default:
		m.release()
	}
}

// rotate ends the present segment and begins the next.
func (j *Journal) rotate(need int64) error {
	if err := finish(j.primary.file, j.offset); err != nil {
		return err
	}
	offset := j.offset
	j.onMirror(func(m *shelf) error { return finish(m.file, offset) })
	return j.begin(Cut{}, need)
}

// begin makes the next segment in both copies, durable with its name, before anything is written to it.
func (j *Journal) begin(cut Cut, need int64) error {
	j.mu.Lock()
	h := header{number: 1, epoch: j.head.Epoch, before: j.head, cut: cut}
	if n := len(j.segments); n > 0 {
		h.number = j.segments[n-1].number + 1
		h.before.Epoch = j.segments[n-1].epoch
	}
	j.mu.Unlock()
	rand.Read(h.salt[:]) // never fails (crypto/rand)
	aead, headerKey, err := keys(j.o.Key, j.o.TerminalID, h.salt, h.number)
	if err != nil {
		return err
	}
	raw := h.encode(j.o.TerminalID, headerKey)
	size := max(j.o.SegmentBytes, headerBytes+need)
	if err := j.primary.begin(h.number, raw, size); err != nil {
		return fmt.Errorf("segment %d: %w", h.number, err)
	}
	j.onMirror(func(m *shelf) error {
		if err := m.begin(h.number, raw, size); err != nil {
			return fmt.Errorf("segment %d: %w", h.number, err)
		}
		return nil
	})
	j.offset, j.batches = headerBytes, 0
	j.mu.Lock()
	defer j.mu.Unlock()
	j.segments, j.size = append(j.segments, &segment{header: h, aead: aead}), size
	return nil
}

func (j *Journal) seal(cause error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		j.err = fmt.Errorf("%w: %w", ErrSealed, cause)
		j.log.Error("journal sealed", slog.Any("err", cause))
	}
	return j.err
}

// Head is the end of the durable chain. It never waits for the disk.
func (j *Journal) Head() Head {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.head
}

// Base is the head that the present epoch began on, in the epoch before; ok is false in the first epoch.
func (j *Journal) Base() (base Head, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, seg := range j.segments {
		if seg.epoch == j.head.Epoch {
			return seg.before, seg.before.Sequence > 0 && seg.before.Epoch != seg.epoch
		}
	}
	return Head{}, false
}

// ReadOnly is nil while the journal takes records, else why it does not: ErrReadOnly, ErrSealed or ErrClosed.
func (j *Journal) ReadOnly() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

// Mirror is nil while the mirror has everything that was answered, or if there is none; else an ErrMirror that says why it
// is left out.
func (j *Journal) Mirror() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.mirrorErr
}

// Read calls fn for every durable record from the sequence on, in order, with the head of the record's batch. It verifies
// what it reads, holds one batch in memory, and sees what was durable when it began. A record is valid only during the
// call. An error of fn ends it and is returned as it is; ErrDamaged names what changed on the disk since the opening.
func (j *Journal) Read(from uint64, fn func(seq uint64, head Head, record []byte) error) error {
	j.mu.Lock()
	last, segments, closed := j.head.Sequence, j.segments, j.closed
	j.mu.Unlock()
	if closed {
		return ErrClosed
	}
	for i, seg := range segments {
		if i+1 < len(segments) && segments[i+1].before.Sequence < from {
			continue
		}
		if seg.before.Sequence >= last {
			return nil
		}
		if err := readSegment(j.from, seg, from, last, fn); err != nil {
			return err
		}
	}
	return nil
}

func readSegment(d *shelf, seg *segment, from, last uint64, fn func(uint64, Head, []byte) error) error {
	w, err := newWalker(d.fs, d.path, seg)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	defer w.close()
	for w.head.Sequence < last {
		b, err := w.next()
		if errors.Is(err, errEnd) {
			return nil
		}
		if errors.Is(err, ErrDamaged) {
			return &Damage{Dir: d.name, Segment: seg.number, Offset: w.offset, Sequence: w.head.Sequence + 1, Err: err}
		}
		if err != nil {
			return fmt.Errorf("journal: segment %d, offset %d: %w", seg.number, w.offset, err)
		}
		for i, record := range b.records {
			if seq := b.first + uint64(i); seq >= from {
				if err := fn(seq, b.head, record); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Close writes the head, gives unused space back and releases the directories. A journal that was sealed or read-only is
// left as it is.
func (j *Journal) Close() error {
	j.writing.Lock()
	defer j.writing.Unlock()
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	healthy := j.err == nil
	if healthy {
		j.err = ErrClosed
	}
	j.mu.Unlock()
	j.pulse.stop()
	var err error
	if healthy {
		err = j.end()
	}
	j.release()
	return err
}

// end makes the last state of both copies durable.
func (j *Journal) end() error {
	head, offset := j.head, j.offset
	j.onMirror(func(m *shelf) error { return errors.Join(m.slots.write(head), finish(m.file, offset), m.dropSpare()) })
	return errors.Join(j.primary.slots.write(head), finish(j.primary.file, offset), j.primary.dropSpare())
}

// release closes files; what was to be durable is so already.
func (j *Journal) release() {
	if m := j.mirrored(); m != nil {
		m.release()
	}
	j.primary.release()
}

var _ io.Closer = (*Journal)(nil)

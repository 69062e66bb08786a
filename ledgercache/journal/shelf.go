package journal

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// shelf is one directory that holds a copy of the journal.
type shelf struct {
	name  string // "primary" or "mirror"
	path  string
	fs    FS
	lock  io.Closer
	slots *slots
	file  File // of the segment that is written to

	mu   sync.Mutex // guards next
	next *spare     // nil while none is made
}

// spare is the next segment's file while and after it is written through: zeros, synced, without a header, under the name
// that a segment has before its own. Whatever stops, the next opening makes that file anew.
type spare struct {
	number uint32
	size   int64
	done   chan struct{} // closed when the rest is known
	file   File          // nil if it could not be made
}

// spareFrom is the length from which segments are written through ahead; a shorter one is done in an instant.
const spareFrom = 1 << 20

// prepare begins to make the spare for a segment, unless there is one.
func (d *shelf) prepare(number uint32, size int64, log *slog.Logger) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.next != nil {
		return
	}
	next := &spare{number: number, size: size, done: make(chan struct{})}
	d.next = next
	go func() {
		defer close(next.done)
		f, err := createSpare(d.fs, d.path, number, size)
		if err != nil { // nothing that was answered hangs on it: the segment is then made when it is begun
			log.Warn("journal segment not written ahead", slog.String("copy", d.name), slog.Any("err", err))
			return
		}
		next.file = f
	}()
}

// takeSpare gives the file that was made for a segment, if it fits. It waits for one that is being made.
func (d *shelf) takeSpare(number uint32, size int64) File {
	d.mu.Lock()
	next := d.next
	d.next = nil
	d.mu.Unlock()
	if next == nil {
		return nil
	}
	<-next.done
	if next.file != nil && (next.number != number || next.size < size) {
		next.file.Close() // only zeros
		return nil
	}
	return next.file
}

// dropSpare gives the space of a spare back at an orderly end.
func (d *shelf) dropSpare() error {
	d.mu.Lock()
	next := d.next
	d.mu.Unlock()
	if next == nil {
		return nil
	}
	if f := d.takeSpare(next.number, 0); f != nil {
		f.Close() // only zeros
		return d.fs.Remove(segmentPath(d.path, next.number) + ".new")
	}
	return nil
}

// put writes a frame and makes it durable: one write, one sync.
func (d *shelf) put(frame []byte, off int64) error {
	if err := writeAt(d.file, frame, off); err != nil {
		return err
	}
	if err := d.file.Datasync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

func (d *shelf) begin(number uint32, header []byte, size int64) error {
	f, err := d.takeSpare(number, size), error(nil)
	if f == nil {
		f, err = createSpare(d.fs, d.path, number, size)
	}
	if err == nil {
		err = nameSegment(d.fs, d.path, number, f, header)
	}
	if err != nil {
		return err
	}
	if d.file != nil {
		d.file.Close()
	}
	d.file = f
	return nil
}

// release closes files and gives the directory free.
func (d *shelf) release() {
	if d.file != nil {
		d.file.Close()
	}
	if d.slots != nil {
		d.slots.close()
	}
	if d.lock != nil {
		d.lock.Close()
	}
}

// pulse runs the timer that writes the head as a witness. Its first two fields are guarded by Journal.mu.
type pulse struct {
	armed bool
	last  time.Time // of the last batch
	timer *time.Timer
	wait  sync.WaitGroup
}

// beat notes that a batch was written, and sees to it that the head follows. The caller holds mu.
func (j *Journal) beat() {
	now := time.Now()
	j.pulse.last = now
	if j.pulse.armed || j.closed {
		return
	}
	j.pulse.armed = true
	j.pulse.wait.Add(1)
	since := now
	j.pulse.timer = time.AfterFunc(idleHead, func() { j.follow(since) })
}

// follow writes the head once the journal is idle, or has been busy for long enough.
func (j *Journal) follow(since time.Time) {
	defer j.pulse.wait.Done()
	j.mu.Lock()
	quiet := time.Since(j.pulse.last)
	if !j.closed && quiet < idleHead && time.Since(since) < busyHead {
		j.pulse.wait.Add(1)
		j.pulse.timer = time.AfterFunc(idleHead-quiet, func() { j.follow(since) })
		j.mu.Unlock()
		return
	}
	j.pulse.armed = false
	j.mu.Unlock()
	if err := j.SyncHead(); err != nil && !errors.Is(err, ErrClosed) && !errors.Is(err, ErrSealed) {
		j.log.Error("journal head not written", slog.Any("err", err))
	}
}

// stop ends the timer and waits until nothing of it runs. The journal is closed by then, so it is not begun again.
func (p *pulse) stop() {
	if p.timer != nil && p.timer.Stop() {
		p.wait.Done()
	}
	p.wait.Wait()
}

// SyncHead makes the present head durable as a witness: at shift and day close; it happens by itself when the journal is
// idle. A failure seals.
func (j *Journal) SyncHead() error {
	_, err := j.Witness()
	return err
}

// Witness makes the present head durable as a witness, and gives it for others to keep.
func (j *Journal) Witness() (Witness, error) {
	j.mu.Lock()
	head, mirror, err := j.head, j.mirror, j.err
	j.mu.Unlock()
	if err != nil {
		return Witness{}, err
	}
	if mirror != nil {
		j.onMirror(func(m *shelf) error { return m.slots.write(head) })
	}
	if err := j.primary.slots.write(head); err != nil {
		return Witness{}, j.seal(err)
	}
	return Witness{Name: "head", Sequence: head.Sequence, Hash: head.Hash, HasHash: true}, nil
}

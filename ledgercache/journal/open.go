package journal

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// open surveys both copies, decides which is the journal, and only then changes anything.
func (j *Journal) open() (Report, error) {
	var r Report
	keyring, err := j.ring()
	if err != nil {
		return r, err
	}
	j.o.earlier = keyring.keys
	m, err := j.surveyMirror()
	if err != nil {
		return r, err
	}
	p, err := take(j.primary, j.o)
	if errors.Is(err, ErrKey) && m != nil && len(m.segments) > 0 {
		p, err = unverified(j.primary, j.o, err) // the mirror proves the key
	}
	if err != nil {
		return r, err
	}
	winner, loser, problem, err := judge(p, m, j.o)
	if err != nil {
		return r, err
	}
	r.tell(winner, loser)
	j.segments, j.head, j.from = winner.segments, winner.head, winner.dir
	if problem != nil {
		r.Problem, r.MirrorErr = problem, j.mirrorErr
		j.err = fmt.Errorf("%w: %w", ErrReadOnly, problem)
		j.log.Error("journal opened read-only", slog.Any("err", problem))
		return r, nil
	}
	if j.o.ReadOnly {
		j.err = fmt.Errorf("%w: opened so", ErrReadOnly)
		r.MirrorErr = j.mirrorErr
		return r, nil
	}
	j.primary.slots = p.slots
	if m != nil {
		j.mirror.slots = m.slots
	}
	if err := keyring.keep(j.o, j.o.Dir); err != nil {
		return r, err
	}
	j.onMirror(func(m *shelf) error { return keyring.keep(j.o, m.path) })
	err = j.accept(winner, loser, &r)
	r.MirrorErr = j.mirrorErr
	return r, err
}

// ring reads the ring of the key, from the mirror where the directory has none.
func (j *Journal) ring() (ring, error) {
	r, err := readRing(j.o, j.o.Dir)
	if j.o.Mirror == "" || err == nil && r.name != "" || err != nil && !errors.Is(err, ErrKey) && !errors.Is(err, ErrDamaged) {
		return r, err
	}
	type found struct {
		ring ring
		err  error
	}
	read := make(chan found, 1) // a mount whose other end is gone hangs at the first touch
	done := make(chan error, 1)
	o := j.o // the one that hangs is left behind
	go func() {
		there, err := readRing(o, o.Mirror)
		read <- found{there, err}
		done <- nil
	}()
	if j.await(done) != nil {
		return r, err
	}
	if f := <-read; f.err == nil && f.ring.name != "" {
		return f.ring, nil
	}
	return r, err
}

// surveyMirror surveys the mirror, nil if there is none. A mirror that cannot be used is left out, except one of a newer
// format: then the whole journal is.
func (j *Journal) surveyMirror() (*survey, error) {
	if j.o.Mirror == "" {
		return nil, nil
	}
	d := &shelf{name: "mirror", path: j.o.Mirror, fs: j.o.FS}
	j.mirror = d
	touched := make(chan error, 1) // a mount whose other end is gone hangs at the first touch
	go func() {
		var err error
		if !j.o.ReadOnly {
			err = d.fs.Mkdir(d.path, false)
		}
		if err == nil {
			d.lock, err = d.fs.Lock(filepath.Join(d.path, "LOCK"), j.o.ReadOnly)
		}
		touched <- err
	}()
	err := j.await(touched)
	var s *survey
	if err == nil {
		s, err = take(d, j.o)
	}
	if errors.Is(err, ErrVersion) {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	if err != nil {
		j.leaveOut(err, touched)
		return nil, nil
	}
	return s, nil
}

// unverified is the survey of a directory of which nothing verifies while the other copy does.
func unverified(d *shelf, o Options, cause error) (*survey, error) {
	slots, err := newSlots(d.fs, d.path, o)
	s := &survey{dir: d, slots: slots}
	s.fault = s.damage(0, 0, asDamage(cause))
	return s, err
}

// judge says which copy is the journal, what the other one is worth, and why the journal must not be written. It changes
// nothing. loser is nil where there is one copy.
func judge(p, m *survey, o Options) (winner, loser *survey, problem *Damage, err error) {
	winner = p
	witnesses := append(p.slots.witnesses("HEAD"), o.Witnesses...)
	if m != nil {
		loser = m
		witnesses = append(witnesses, m.slots.witnesses("mirror HEAD")...)
		if m.head.Sequence > p.head.Sequence || m.head.Sequence == p.head.Sequence && p.fault != nil && m.fault == nil {
			winner, loser = m, p
		}
	}
	if winner.fault != nil {
		return winner, loser, winner.fault, nil
	}
	if loser != nil {
		if problem, err = compare(winner, loser); problem != nil || err != nil {
			return winner, loser, problem, err
		}
	}
	problem, err = winner.hear(witnesses)
	return winner, loser, problem, err
}

// compare holds the shorter copy against the longer one.
func compare(winner, loser *survey) (*Damage, error) {
	if n := loser.head.Sequence; n > 0 && len(loser.segments) > 0 && n >= winner.segments[0].before.Sequence {
		hash, ok, err := winner.hashAt(n)
		if err != nil {
			return nil, err
		}
		if !ok || hash != loser.head.Hash {
			d := winner.damage(0, 0, fmt.Errorf("%w: the copies differ at or before sequence %d", ErrForked, n))
			d.Sequence, d.Witness = n, loser.dir.name
			return d, nil
		}
	}
	f := loser.fault
	if f == nil || f.known <= winner.head.Sequence {
		return nil, nil
	}
	f.Witness = loser.dir.name
	return f, nil // what was written there and cannot be read is not in the other copy either
}

func (r *Report) tell(winner, loser *survey) {
	r.Records, r.Segments, r.Cuts = winner.head.Sequence, len(winner.segments), winner.cuts
	if len(winner.segments) > 0 {
		r.First = winner.segments[0].before.Sequence + 1
		r.HeadGone = !winner.slots.found
	}
	r.HeadBad = winner.slots.bad
	if loser != nil {
		r.HeadBad += loser.slots.bad
	}
	if winner.torn != nil {
		r.TornBytes = winner.torn.Length
	}
}

// accept makes the winner's chain the journal: both copies the same, the torn tail kept aside and its cut recorded, what
// was not certainly durable written again, and a new segment begun.
func (j *Journal) accept(winner, loser *survey, r *Report) error {
	r.Created = len(winner.segments) == 0
	if r.Created || j.o.BeginEpoch {
		j.head.Epoch = j.o.NewEpoch()
	}
	cut, err := j.settle(winner, r)
	if err != nil {
		return err
	}
	if loser != nil {
		if cut, err = j.follows(winner, loser, cut, r); err != nil {
			return err
		}
	}
	j.from = j.primary
	if err := j.primary.slots.write(j.head); err != nil {
		return err
	}
	head := j.head
	j.onMirror(func(m *shelf) error { return m.slots.write(head) })
	if err := j.begin(cut, 0); err != nil {
		return err
	}
	return j.shorten(winner, loser)
}

// settle keeps a torn tail aside and writes again, in place, what no synced witness has seen: a tail that lived only in
// the page cache is never believed.
func (j *Journal) settle(s *survey, r *Report) (Cut, error) {
	var cut Cut
	if len(s.segments) == 0 {
		return cut, nil
	}
	if s.torn != nil {
		aside, err := keepAside(s)
		if err != nil {
			return cut, fmt.Errorf("torn tail of segment %d: %w", s.torn.Segment, err)
		}
		cut = *s.torn
		r.CutBytes, r.CutAside, r.Cuts = cut.Length, aside, append(r.Cuts, cut)
		j.log.Warn("journal cut a torn tail", slog.String("copy", s.dir.name), slog.Int64("bytes", cut.Length), slog.String("aside", aside))
	}
	last := s.segments[len(s.segments)-1]
	if last.unsure == 0 {
		return cut, nil
	}
	if err := rewrite(s.dir, last); err != nil {
		return cut, fmt.Errorf("segment %d: %w", last.number, err)
	}
	r.Rewritten += s.batches
	return cut, nil
}

// keepAside copies the torn bytes into a file of their own, durably, before anything else happens to them.
func keepAside(s *survey) (string, error) {
	d, t := s.dir, s.torn
	f, err := d.fs.OpenFile(segmentPath(d.path, t.Segment), os.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data := make([]byte, t.Length) // at most one batch
	if _, err := f.ReadAt(data, t.Offset); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	t.SHA256 = sha256.Sum256(data)
	aside := fmt.Sprintf("%s.torn-%d", segmentPath(d.path, t.Segment), t.Offset)
	to, err := d.fs.OpenFile(aside, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	return aside, errors.Join(writeAt(to, data, 0), to.Sync(), to.Close(), d.fs.SyncDir(d.path))
}

func rewrite(d *shelf, seg *segment) error {
	f, err := d.fs.OpenFile(segmentPath(d.path, seg.number), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := copyRange(f, f, seg.unsure, seg.end); err != nil {
		return err
	}
	return f.Sync()
}

func copyRange(to, from File, off, end int64) error {
	buf := make([]byte, zeroChunk)
	for off < end {
		n := min(int64(len(buf)), end-off)
		if _, err := from.ReadAt(buf[:n], off); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err := writeAt(to, buf[:n], off); err != nil {
			return err
		}
		off += n
	}
	return nil
}

// follows makes the other copy the same as the winner. Only the primary's failure is one of the journal.
func (j *Journal) follows(winner, loser *survey, cut Cut, r *Report) (Cut, error) {
	var own Report
	changed, err := refill(winner, loser)
	if err == nil && !changed {
		var torn Cut
		if torn, err = j.settle(loser, &own); cut.Segment == 0 {
			cut = torn // both end at the same place
		}
	}
	if changed {
		r.Refilled = append(r.Refilled, loser.dir.name)
		j.log.Warn("journal copy refilled", slog.String("copy", loser.dir.name))
	}
	if err != nil && loser.dir == j.primary {
		return cut, fmt.Errorf("refill from the mirror: %w", err)
	}
	if err != nil {
		j.leaveOut(err, nil)
	}
	return cut, nil
}

// refill copies what the loser lacks or has otherwise. Files that it replaces are kept aside.
func refill(winner, loser *survey) (changed bool, err error) {
	d := loser.dir
	have, first := map[uint32]*segment{}, uint32(0)
	for _, s := range loser.segments {
		have[s.number] = s
		if first == 0 {
			first = s.number
		}
	}
	wanted, begins := map[uint32]bool{}, uint32(0)
	for _, s := range winner.segments {
		wanted[s.number] = true
		if begins == 0 {
			begins = s.number
		}
		if h := have[s.number]; s.number < first || h != nil && h.salt == s.salt && h.end == s.end && h.after == s.after {
			continue // the same, or the other copy's archive
		}
		changed = true
		if err := copySegment(winner.dir, d, s); err != nil {
			return changed, fmt.Errorf("segment %d: %w", s.number, err)
		}
	}
	numbers, err := segmentNumbers(d.fs, d.path)
	if err != nil {
		return changed, err
	}
	for _, n := range numbers {
		if !wanted[n] && n >= begins {
			changed = true
			if err := putAside(d, n); err != nil {
				return changed, err
			}
		}
	}
	return changed, nil
}

func copySegment(from, to *shelf, s *segment) error {
	source, err := from.fs.OpenFile(segmentPath(from.path, s.number), os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer source.Close()
	path := segmentPath(to.path, s.number)
	target, err := to.fs.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(copyRange(target, source, 0, s.end), target.Sync(), target.Close()); err != nil {
		return err
	}
	if err := putAside(to, s.number); err != nil {
		return err
	}
	return errors.Join(to.fs.Rename(path+".new", path), to.fs.SyncDir(to.path))
}

// putAside renames a segment's file out of the way, if there is one.
func putAside(d *shelf, number uint32) error {
	entries, err := d.fs.ReadDir(d.path)
	if err != nil {
		return err
	}
	name, present, n := filepath.Base(segmentPath(d.path, number)), false, 1
	for _, e := range entries {
		present = present || e.Name() == name
		if strings.HasPrefix(e.Name(), name+".aside-") {
			n++
		}
	}
	if !present {
		return nil
	}
	return d.fs.Rename(filepath.Join(d.path, name), filepath.Join(d.path, fmt.Sprintf("%s.aside-%d", name, n)))
}

// shorten gives back what stands behind the last batch of the segments before the new one: zeros, or a torn tail that is
// kept aside and whose cut the new segment's header records.
func (j *Journal) shorten(winner, loser *survey) error {
	for _, s := range []*survey{winner, loser} {
		if s == nil {
			continue
		}
		err := s.shorten(winner.segments)
		if err != nil && s.dir == j.primary {
			return err
		}
		if err != nil {
			j.leaveOut(err, nil)
		}
	}
	return nil
}

func (s *survey) shorten(segments []*segment) error {
	for i, seg := range segments {
		if i < len(segments)-1 && !s.stale {
			continue
		}
		f, err := s.dir.fs.OpenFile(segmentPath(s.dir.path, seg.number), os.O_RDWR, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue // an archive
		}
		if err != nil {
			return err
		}
		size, err := f.Size()
		if err == nil && size > seg.end {
			err = finish(f, seg.end)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// Chain follows the hash chain of one segment without any key, as an archive may be checked by whoever keeps it: from the
// head before its first batch to the head after its last, with the sequences as its frames say them. It proves that no
// byte of the sealed batches changed between two heads that are known; the rest only the key can prove.
func Chain(segment io.ReaderAt) (from, to Head, err error) {
	raw := make([]byte, headerBytes)
	if _, err := segment.ReadAt(raw, 0); err != nil {
		return from, to, fmt.Errorf("journal: header: %w", err)
	}
	h, err := parseHeader(raw)
	if err != nil {
		return from, to, err
	}
	from = h.before
	to = Head{Epoch: h.epoch, Sequence: from.Sequence, Hash: from.Hash}
	buf := make([]byte, maxFrame)
	for off := int64(headerBytes); ; {
		n, err := segment.ReadAt(buf[:frameBytes], off)
		if err != nil && !errors.Is(err, io.EOF) {
			return from, to, fmt.Errorf("journal: offset %d: %w", off, err)
		}
		if allZero(buf[:n]) {
			return from, to, nil
		}
		f, whole := decodeFrame(buf[:frameBytes])
		if n < frameBytes || !whole || f.first != to.Sequence+1 || f.before != to.Hash {
			return from, to, fmt.Errorf("%w: frame at offset %d, sequence %d", ErrDamaged, off, to.Sequence+1)
		}
		sealed := buf[frameBytes : frameBytes+f.length]
		if _, err := segment.ReadAt(sealed, off+frameBytes); err != nil {
			return from, to, fmt.Errorf("%w: batch at offset %d: %w", ErrDamaged, off, err)
		}
		to.Sequence, to.Hash = to.Sequence+uint64(f.count), chain(to.Hash, sealed)
		off += int64(frameBytes + f.length)
	}
}

// Verify proves a journal without changing it: every batch of every copy, the chain, and every witness. The report says
// what it found; the error is its Problem, or why nothing could be read. A torn tail, which the next opening would cut, is
// no error: TornBytes tells it. A journal in use cannot be proved this way (ErrLocked): its owner reads it instead.
func Verify(o Options) (Report, error) {
	var r Report
	o, err := o.complete()
	if err != nil {
		return r, err
	}
	dirs := []string{o.Dir}
	if o.Mirror != "" {
		dirs = append(dirs, o.Mirror)
	}
	keyring, err := readRing(o, dirs...)
	if err != nil {
		return r, err
	}
	o.earlier = keyring.keys
	p, release, err := proof("primary", o.Dir, o)
	if err != nil {
		return r, err
	}
	defer release()
	var m *survey
	if o.Mirror != "" {
		if m, release, err = proof("mirror", o.Mirror, o); err != nil {
			return r, err
		}
		defer release()
	}
	winner, loser, problem, err := judge(p, m, o)
	if err != nil {
		return r, err
	}
	r.tell(winner, loser)
	if problem == nil && loser != nil && loser.fault != nil {
		problem = loser.fault
	}
	if problem != nil {
		r.Problem = problem
	}
	return r, r.Problem
}

func proof(name, dir string, o Options) (*survey, func(), error) {
	lock, err := o.FS.Lock(filepath.Join(dir, "LOCK"), true)
	if err != nil {
		return nil, nil, err
	}
	s, err := take(&shelf{name: name, path: dir, fs: o.FS}, o)
	if err != nil {
		lock.Close()
		return nil, nil, fmt.Errorf("verify %s: %w", name, err)
	}
	return s, func() { lock.Close() }, nil
}

// CheckVersion looks at the first bytes of every segment in o.Dir and changes nothing: ErrVersion names one of a format that
// this program does not know. Whoever keeps state beside the journal asks before touching it. HEAD is not asked: a slot that
// does not verify says nothing, not even its version.
func CheckVersion(o Options) error {
	o, err := o.complete()
	if err != nil {
		return err
	}
	entries, err := o.FS.ReadDir(o.Dir)
	if err != nil {
		return nil // Open says what is wrong with it, if anything is
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".seg") {
			continue
		}
		raw, err := readSmall(o.FS, filepath.Join(o.Dir, e.Name()))
		if err != nil {
			continue // Open says what is wrong with it
		}
		if _, err := parseHeader(raw); errors.Is(err, ErrVersion) {
			return fmt.Errorf("%s: %w", e.Name(), err)
		}
	}
	return nil
}

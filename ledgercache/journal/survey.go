package journal

import (
	"errors"
	"fmt"
)

// sectorBytes is what a disk writes whole or not at all.
const sectorBytes = 512

// Damage names a place in the journal that is not what it once was, or where something is missing.
type Damage struct {
	Dir      string
	Segment  uint32 // 0 = the whole journal
	Offset   int64
	Sequence uint64 // the first record that cannot be read
	Behind   uint64 // the first record behind it of which is known that it was written; 0 = unknown
	Witness  string // who saw it, if that is the proof
	Err      error  // ErrDamaged, ErrTailLost or ErrForked, with the reason
	known    uint64 // the highest sequence that the place proves to have been written
}

// Error says where, and what is provably lost.
func (d *Damage) Error() string {
	lost := fmt.Sprintf("sequence %d and later", d.Sequence)
	switch {
	case d.Behind > d.Sequence:
		lost = fmt.Sprintf("sequence %d to %d, and what follows", d.Sequence, d.Behind-1)
	case d.Behind == d.Sequence:
		lost = fmt.Sprintf("foreign bytes before sequence %d", d.Sequence)
	}
	who := ""
	if d.Witness != "" {
		who = fmt.Sprintf(" (witness: %s)", d.Witness)
	}
	return fmt.Sprintf("%v: %s, segment %d, offset %d: %s%s", d.Err, d.Dir, d.Segment, d.Offset, lost, who)
}

// Unwrap gives the sentinel and its reason.
func (d *Damage) Unwrap() error { return d.Err }

// survey is one directory's chain as far as it verifies, and why it ends there. Surveying changes nothing.
type survey struct {
	dir      *shelf
	slots    *slots
	segments []*segment // that verify, in order
	head     Head
	torn     *Cut    // bytes behind the last batch that a torn write explains
	stale    bool    // the segment before the last still holds a tail whose cut is recorded already
	fault    *Damage // why the chain ends before its end
	batches  int     // above the synced witness, in the last segment
	cuts     []Cut   // recorded in headers
}

// take surveys a directory. The error is ErrKey, ErrVersion or the operating system's; anything else is a fault.
func take(d *shelf, o Options) (*survey, error) {
	s := &survey{dir: d}
	var err error
	if s.slots, err = readSlots(d.fs, d.path, o); err != nil {
		return nil, err
	}
	numbers, err := segmentNumbers(d.fs, d.path)
	if err != nil {
		return nil, err
	}
	headers, broken, err := s.headers(numbers, o)
	if err != nil {
		return nil, err
	}
	walks := walkAhead(d, headers, s.slots.synced())
	defer walks.end()
	for i, seg := range headers {
		if seg == nil {
			s.fault = s.damage(numbers[i], 0, fmt.Errorf("header: %w", asDamage(broken[i])))
		} else {
			var next *segment
			last := i == len(headers)-1
			if !last {
				next = headers[i+1]
			}
			err = s.segment(seg, next, last, walks.take(i))
		}
		if err != nil {
			return nil, err
		}
		if s.fault != nil {
			s.nameBehind(headers[i+1:])
			break
		}
	}
	return s, nil
}

// asDamage turns a header that fails to verify where others do into what it is.
func asDamage(err error) error {
	if errors.Is(err, ErrKey) {
		return fmt.Errorf("%w: does not verify", ErrDamaged)
	}
	return err
}

// headers reads all headers. A header that does not verify is nil, with its error; if nothing at all verifies, the key is
// wrong.
func (s *survey) headers(numbers []uint32, o Options) ([]*segment, []error, error) {
	list, broken := make([]*segment, len(numbers)), make([]error, len(numbers))
	var wrongKey error
	proved := len(s.slots.heads) > 0
	for i, n := range numbers {
		seg, err := openSegment(s.dir.fs, s.dir.path, n, o)
		switch {
		case err == nil:
			list[i], proved = seg, true
		case errors.Is(err, ErrKey):
			broken[i], wrongKey = err, fmt.Errorf("segment %d: %w", n, err)
		case errors.Is(err, ErrDamaged):
			broken[i] = err
		default:
			return nil, nil, fmt.Errorf("segment %d: %w", n, err)
		}
	}
	if wrongKey != nil && !proved {
		return nil, nil, wrongKey
	}
	return list, broken, nil
}

func (s *survey) damage(number uint32, offset int64, err error) *Damage {
	d := &Damage{Dir: s.dir.name, Segment: number, Offset: offset, Sequence: s.head.Sequence + 1, Err: err, known: s.head.Sequence}
	if offset > 0 {
		d.known++ // something was written there
	}
	return d
}

// nameBehind says from the next header that verifies what was written behind a fault.
func (s *survey) nameBehind(rest []*segment) {
	for _, seg := range rest {
		if seg == nil || seg.before.Sequence < s.head.Sequence {
			continue
		}
		if s.fault.Behind == 0 {
			s.fault.Behind = seg.before.Sequence + 1
		}
		s.fault.known = max(s.fault.known, seg.before.Sequence)
	}
}

// segment follows one segment, which must continue the chain.
func (s *survey) segment(seg, next *segment, last bool, f walked) error {
	if f.w == nil {
		return f.err
	}
	defer f.w.close()
	if n := len(s.segments); n > 0 {
		before := s.segments[n-1]
		if seg.number != before.number+1 {
			s.fault = s.damage(before.number+1, 0, fmt.Errorf("%w: segment is missing", ErrDamaged))
			return nil
		}
		if seg.before != s.head {
			s.fault = s.damage(before.number, before.end, fmt.Errorf("%w: segment %d continues after sequence %d, not %d",
				ErrDamaged, seg.number, seg.before.Sequence, s.head.Sequence))
			return nil
		}
	}
	if seg.cut.Segment != 0 {
		s.cuts = append(s.cuts, seg.cut)
	}
	w, err := f.w, f.err
	s.segments, s.head, s.batches = append(s.segments, seg), w.head, f.batches
	if seg.unsure == 0 {
		seg.unsure = f.unsure
	}
	seg.end, seg.after = w.offset, w.head
	if errors.Is(err, errEnd) || errors.Is(err, ErrDamaged) {
		err = s.tail(w, next, last, err)
	}
	if errors.Is(err, ErrDamaged) { // a sector that cannot be read
		s.fault, err = s.damage(seg.number, w.offset, err), nil
	}
	return err
}

// tail judges what stands behind the last batch of a segment that verifies. Only the last segment may end in a torn
// write: a segment is begun when all before it is durable.
func (s *survey) tail(w *walker, next *segment, last bool, cause error) error {
	at := w.offset
	end, err := w.written(at)
	if err != nil {
		return err
	}
	if end < 0 {
		return nil
	}
	if errors.Is(cause, errEnd) {
		cause = fmt.Errorf("%w: bytes behind the last batch", ErrDamaged)
	}
	if next != nil && next.cut.Segment == w.seg.number && next.cut.Offset == at {
		s.stale = true // the cut is decided and recorded, only the file was not shortened
		return nil
	}
	fault := s.damage(w.seg.number, at, cause)
	if !last {
		s.fault = fault
		return nil
	}
	behind, err := s.behind(w, end)
	if err != nil {
		return err
	}
	if behind != 0 {
		fault.Behind, fault.known, s.fault = behind, behind, fault
		return nil
	}
	torn, err := tornWrite(w, end)
	if err != nil {
		return err
	}
	if !torn {
		fault.Err = fmt.Errorf("%w, and no sector of it is missing: it was written whole once", cause)
		s.fault = fault
		return nil
	}
	s.torn = &Cut{Segment: w.seg.number, Offset: at, Length: end + 1 - at}
	return nil
}

// tornWrite reports whether a write that was cut off explains what stands behind the last batch. Only one batch is ever on
// its way, into space that is zero, so: nothing lies beyond that batch, and a piece of it is missing, up to the end of a
// sector or of the batch. What is complete and does not verify was written once and has changed since.
func tornWrite(w *walker, end int64) (bool, error) {
	at := w.offset
	if end >= at+maxFrame {
		return false, nil
	}
	raw, err := w.bytes(at, frameBytes)
	if err != nil {
		return false, err
	}
	if len(raw) < frameBytes {
		return true, nil
	}
	limit := at + frameBytes
	if f, whole := decodeFrame(raw); whole {
		limit += int64(f.length)
		if f.first != w.head.Sequence+1 || f.before != w.head.Hash || end >= limit {
			return false, nil
		}
	}
	return missing(w, at, limit)
}

// missing reports whether some sector's share of the range ends in zero, or in the end of the file.
func missing(w *walker, from, to int64) (bool, error) {
	for p := from; p < to; {
		q := min(p-p%sectorBytes+sectorBytes, to)
		raw, err := w.bytes(q-1, 1)
		if err != nil {
			return false, err
		}
		if len(raw) == 0 || raw[0] == 0 {
			return true, nil
		}
		p = q
	}
	return false, nil
}

// behind looks for a batch that verifies behind a place that does not, up to the last byte that is not zero, and answers
// its first sequence, 0 if there is none. A batch is written only when the one before it is durable, so such a batch
// proves damage.
func (s *survey) behind(w *walker, end int64) (uint64, error) {
	for at := w.offset + 1; at+frameBytes+tagBytes <= end+1+tagBytes; at++ {
		raw, err := w.bytes(at, frameBytes)
		if err != nil {
			return 0, err
		}
		if len(raw) < frameBytes {
			return 0, nil
		}
		f, whole := decodeFrame(raw)
		if !whole || f.first <= w.head.Sequence {
			continue
		}
		if raw, err = w.bytes(at, frameBytes+f.length); err != nil {
			return 0, err
		}
		if len(raw) < frameBytes+f.length {
			continue
		}
		farthest := w.n + 2 + uint64(at-w.offset)/(frameBytes+tagBytes) // no more batches than that fit between
		for n := w.n + 1; n <= farthest; n++ {
			if _, err := w.seg.aead.Open(nil, nonce(n), raw[frameBytes:], raw[:frameBytes]); err == nil {
				return f.first, nil
			}
		}
	}
	return 0, nil
}

// hashAt gives the chain's hash after a sequence. ok is false where no batch ends there.
func (s *survey) hashAt(sequence uint64) (hash [32]byte, ok bool, err error) {
	for _, seg := range s.segments {
		switch {
		case sequence == seg.before.Sequence:
			return seg.before.Hash, true, nil
		case sequence == seg.after.Sequence:
			return seg.after.Hash, true, nil
		case sequence > seg.after.Sequence || sequence < seg.before.Sequence:
			continue
		}
		w, err := newWalker(s.dir.fs, s.dir.path, seg)
		if err != nil {
			return hash, false, err
		}
		defer w.close()
		for w.head.Sequence < sequence {
			if _, err := w.next(); err != nil {
				return hash, false, fmt.Errorf("segment %d, offset %d: %w", seg.number, w.offset, err)
			}
		}
		return w.head.Hash, w.head.Sequence == sequence, nil
	}
	return hash, false, nil
}

// hear holds the chain against witnesses: one that saw more proves a lost tail, one that saw another head a fork.
func (s *survey) hear(witnesses []Witness) (*Damage, error) {
	for _, w := range witnesses {
		if w.Sequence > s.head.Sequence {
			d := s.damage(0, 0, fmt.Errorf("%w: the chain ends at sequence %d", ErrTailLost, s.head.Sequence))
			if n := len(s.segments); n > 0 {
				d.Segment, d.Offset = s.segments[n-1].number, s.segments[n-1].end
			}
			d.Behind, d.Witness = w.Sequence+1, w.Name
			return d, nil
		}
		if !w.HasHash || w.Sequence == 0 || len(s.segments) == 0 || w.Sequence < s.segments[0].before.Sequence {
			continue // nothing to compare, or it lies in an archive
		}
		hash, ok, err := s.hashAt(w.Sequence)
		if err != nil {
			return nil, err
		}
		if !ok || hash != w.Hash {
			d := s.damage(0, 0, fmt.Errorf("%w: another head after sequence %d", ErrForked, w.Sequence))
			d.Sequence, d.Witness = w.Sequence, w.Name
			return d, nil
		}
	}
	return nil, nil
}

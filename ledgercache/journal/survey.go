package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// survey walks all segments at opening and decides what each byte is: a batch, a torn tail, a lost tail, damage.
type survey struct {
	o         Options
	report    *Report
	witnesses []Witness
	good      []*segment // as far as they verify
	head      Head
	// unsure is where, in the last segment, the first batch begins that no synced witness has seen; -1 if there is none.
	unsure int64
	seen   map[uint64][32]byte // heads at the sequences of witnesses
}

// run verifies every batch. Its error is why the journal must not be written: ErrDamaged, ErrTailLost, ErrForked, or why
// it cannot be opened at all: ErrKey, ErrVersion, or of the operating system.
func (s *survey) run(numbers []uint32) error {
	s.unsure, s.seen = -1, map[uint64][32]byte{}
	for i, number := range numbers {
		last := i == len(numbers)-1
		if i > 0 && number != numbers[i-1]+1 {
			return fmt.Errorf("%w: segment %d is missing, sequence %d and later", ErrDamaged, numbers[i-1]+1, s.head.Sequence+1)
		}
		err := s.segment(number, i == 0, last)
		if errors.Is(err, errUnborn) {
			continue
		}
		if err != nil {
			return err
		}
	}
	return s.hear()
}

// errUnborn says that the last segment was still being made when its process died: nothing was ever answered from it.
var errUnborn = errors.New("unborn segment")

func (s *survey) segment(number uint32, first, last bool) error {
	seg, err := openSegment(s.o, number)
	if err != nil {
		switch {
		case errors.Is(err, ErrVersion) || !first && !last && errors.Is(err, ErrKey):
			return err
		case last && (errors.Is(err, ErrDamaged) || errors.Is(err, ErrKey)) && s.unborn(number):
			return s.bury(number)
		case errors.Is(err, ErrKey) && !first:
			return fmt.Errorf("%w: header of segment %d, sequence %d and later", ErrDamaged, number, s.head.Sequence+1)
		case first && errors.Is(err, ErrDamaged):
			return fmt.Errorf("%w: header of segment %d", ErrDamaged, number)
		}
		return err
	}
	if first {
		s.head = seg.before
	} else if seg.before != s.head {
		seg.close()
		return fmt.Errorf("%w: segment %d begins at sequence %d, the one before ends at %d", ErrDamaged, number, seg.before.Sequence+1, s.head.Sequence)
	}
	s.good = append(s.good, seg)
	return s.batches(seg, last)
}

// unborn reports whether a last segment can hold nothing: no byte behind its header was ever written.
func (s *survey) unborn(number uint32) bool {
	f, err := os.Open(segmentPath(s.o.Dir, number))
	if err != nil {
		return false
	}
	defer f.Close()
	rest, err := zeroFrom(f, headerBytes)
	return err == nil && rest
}

// bury keeps the bytes of an unborn segment aside and frees its number.
func (s *survey) bury(number uint32) error {
	path := segmentPath(s.o.Dir, number)
	aside := path + ".unborn"
	if err := errors.Join(os.Rename(path, aside), syncDir(s.o.Dir)); err != nil {
		return err
	}
	s.report.CutAside = aside
	return errUnborn
}

func (s *survey) batches(seg *segment, last bool) error {
	synced := s.syncedWitness()
	offset := int64(headerBytes)
	for n := uint64(1); ; n++ {
		b, err := seg.batchAt(offset, n, s.head)
		if errors.Is(err, errNoBatch) {
			err = s.tail(seg, offset, last, nil)
			seg.end, seg.count = offset, n-1
			return err
		}
		if errors.Is(err, ErrDamaged) {
			seg.end, seg.count = offset, n-1
			return s.tail(seg, offset, last, err)
		}
		if err != nil {
			return err
		}
		if b.head.Sequence > synced && s.unsure < 0 && last {
			s.unsure = offset
		}
		if b.head.Sequence > synced && !last {
			// The process that began the next segment had believed this one, so it was rewritten and synced then.
			s.unsure = -1
		}
		s.note(b)
		offset, s.head = b.end, b.head
		if last && b.head.Sequence > synced {
			s.report.Rewritten++
		}
	}
}

func (s *survey) note(b batch) {
	for _, w := range s.witnesses {
		if w.Sequence == b.head.Sequence {
			s.seen[w.Sequence] = b.head.Hash
		}
	}
}

// syncedWitness is the highest sequence that something synced has seen. The cache is no such thing.
func (s *survey) syncedWitness() uint64 {
	var highest uint64
	for _, w := range s.witnesses {
		if w.Name == headWitness && w.Sequence > highest {
			highest = w.Sequence
		}
	}
	return highest
}

// tail judges what stands at offset, behind the last batch that verifies. cause is nil where no frame begins there.
func (s *survey) tail(seg *segment, offset int64, last bool, cause error) error {
	empty, err := zeroFrom(seg.file, offset)
	if err != nil {
		return err
	}
	if empty {
		return nil
	}
	if cause == nil {
		cause = fmt.Errorf("%w: bytes behind the last batch", ErrDamaged)
	}
	where := fmt.Errorf("segment %d, offset %d, sequence %d and later: %w", seg.number, offset, s.head.Sequence+1, cause)
	if !last {
		return where
	}
	if at, found := s.validBehind(seg, offset); found {
		return fmt.Errorf("%w (a later batch verifies at offset %d)", where, at)
	}
	for _, w := range s.witnesses {
		if w.Sequence > s.head.Sequence {
			return fmt.Errorf("%w: %s saw sequence %d: %w", ErrTailLost, w.Name, w.Sequence, where)
		}
	}
	return s.cut(seg, offset)
}

// validBehind looks for a batch that verifies behind a place that does not: then the place is damage, not a torn end.
func (s *survey) validBehind(seg *segment, offset int64) (int64, bool) {
	rest := make([]byte, seg.size-offset)
	if _, err := seg.file.ReadAt(rest, offset); err != nil && !errors.Is(err, io.EOF) {
		return 0, false
	}
	const farthest = 1 << 16 // batches that one segment can hold behind the place
	for at := 1; at+frameBytes+tagBytes <= len(rest); at++ {
		h := rest[at : at+frameBytes]
		length, count, first := binary.BigEndian.Uint32(h), binary.BigEndian.Uint32(h[4:]), binary.BigEndian.Uint64(h[8:])
		if length < tagBytes || length > MaxBatch+tagBytes || int(length) > len(rest)-at-frameBytes || count < 1 || count > MaxRecords ||
			first <= s.head.Sequence || first > s.head.Sequence+farthest*MaxRecords {
			continue
		}
		sealed := rest[at+frameBytes : at+frameBytes+int(length)]
		for n := seg.count + 1; n < seg.count+1+min(farthest, uint64(len(rest)/(frameBytes+tagBytes))+1); n++ {
			if _, err := seg.aead.Open(nil, nonce(n), sealed, h); err == nil {
				return offset + int64(at), true
			}
		}
	}
	return 0, false
}

// cut removes a torn tail: it lies above every witness and was never answered. Its bytes are kept.
func (s *survey) cut(seg *segment, offset int64) error {
	tail := make([]byte, seg.size-offset)
	if _, err := seg.file.ReadAt(tail, offset); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	tail = bytes.TrimRight(tail, "\x00")
	aside := fmt.Sprintf("%s.torn-%d", seg.path, offset)
	if err := writeDurably(aside, tail); err != nil {
		return err
	}
	if err := errors.Join(seg.file.Truncate(offset), seg.file.Sync(), syncDir(filepath.Dir(seg.path))); err != nil {
		return err
	}
	seg.size = offset
	s.report.CutBytes, s.report.CutAside = int64(len(tail)), aside
	return nil
}

func writeDurably(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// hear holds the whole chain against every witness.
func (s *survey) hear() error {
	for _, w := range s.witnesses {
		if w.Sequence > s.head.Sequence {
			return fmt.Errorf("%w: %s saw sequence %d, the journal ends at %d", ErrTailLost, w.Name, w.Sequence, s.head.Sequence)
		}
		if hash, ok := s.seen[w.Sequence]; w.HasHash && w.Sequence > 0 && ok && hash != w.Hash {
			return fmt.Errorf("%w: %s saw other content at sequence %d", ErrForked, w.Name, w.Sequence)
		}
	}
	return nil
}

// confirm writes the batches above the last synced witness again, in place, and syncs them: a tail that lived only in the
// page cache is never believed. It then gives the unused space of the last segment back.
func (s *survey) confirm() error {
	if len(s.good) == 0 {
		return nil
	}
	seg := s.good[len(s.good)-1]
	if s.unsure >= 0 {
		data := make([]byte, seg.end-s.unsure)
		if _, err := seg.file.ReadAt(data, s.unsure); err != nil {
			return err
		}
		if _, err := seg.file.WriteAt(data, s.unsure); err != nil {
			return err
		}
	}
	return seg.finish()
}

// zeroFrom reports whether the file holds nothing but zeros from the offset on.
func zeroFrom(f *os.File, offset int64) (bool, error) {
	buf := make([]byte, zeroBlock)
	zeros := make([]byte, zeroBlock)
	for {
		n, err := f.ReadAt(buf, offset)
		if !bytes.Equal(buf[:n], zeros[:n]) {
			return false, nil
		}
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		offset += int64(n)
	}
}

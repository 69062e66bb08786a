package journal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The layout of a segment (FORMAT.md).
const (
	magic       = "YUPOSJNL"
	version     = 1
	headerBytes = 128
	frameBytes  = 48 // length, count, first sequence, previous head
	tagBytes    = 16
	zeroBlock   = 256 << 10
)

// segment is one file: written by one process, sealed with a key that only it has.
type segment struct {
	number uint32
	before Head // the chain before its first batch
	path   string
	file   *os.File
	aead   cipher.AEAD
	size   int64 // preallocated
	end    int64 // behind the last batch
	count  uint64
}

func segmentPath(dir string, number uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%010d.seg", number))
}

// findSegments lists the numbers of the segments in the directory, which must follow each other without a gap.
func findSegments(o Options) ([]uint32, error) {
	entries, err := os.ReadDir(o.Dir)
	if err != nil {
		return nil, err
	}
	var numbers []uint32
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".seg")
		if !ok || len(name) != 10 {
			continue
		}
		n, err := strconv.ParseUint(name, 10, 32)
		if err != nil || n == 0 {
			continue
		}
		numbers = append(numbers, uint32(n))
	}
	slices.Sort(numbers)
	return numbers, nil
}

// keys derives the segment's own keys from the book key, its salt and its number.
func keys(o Options, salt []byte, number uint32) (cipher.AEAD, []byte, error) {
	info := append([]byte(o.TerminalID), binary.BigEndian.AppendUint32(nil, number)...)
	sealKey, err := hkdf.Key(sha256.New, o.Key[:], salt, string(info)+"yupos-journal-v1", 32)
	if err != nil {
		return nil, nil, err
	}
	macKey, err := hkdf.Key(sha256.New, o.Key[:], salt, string(info)+"yupos-journal-header-v1", 32)
	if err != nil {
		return nil, nil, err
	}
	block, err := aes.NewCipher(sealKey)
	if err != nil {
		return nil, nil, err
	}
	aead, err := cipher.NewGCM(block)
	return aead, macKey, err
}

func mac16(key, data []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(data)
	return m.Sum(nil)[:16]
}

// createSegment writes a new segment: zeros first, then the header, each synced, then the name.
func createSegment(o Options, number uint32, before Head) (*segment, error) {
	salt := make([]byte, 32)
	if _, err := rand.Read(salt); err != nil {
		return nil, err
	}
	aead, macKey, err := keys(o, salt, number)
	if err != nil {
		return nil, err
	}
	h := make([]byte, 0, headerBytes)
	h = append(h, magic...)
	h = binary.BigEndian.AppendUint16(h, version)
	h = binary.BigEndian.AppendUint16(h, 0)
	h = binary.BigEndian.AppendUint32(h, number)
	h = append(h, o.TerminalID...)
	h = append(h, before.Epoch[:]...)
	h = append(h, salt...)
	h = binary.BigEndian.AppendUint64(h, before.Sequence+1)
	h = append(h, before.Hash[:]...)
	h = append(h, mac16(macKey, h)...)
	path := segmentPath(o.Dir, number)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	s := &segment{number: number, before: before, path: path, file: f, aead: aead, size: o.SegmentBytes, end: headerBytes}
	if err := s.preallocate(h); err != nil {
		f.Close()
		return nil, err
	}
	return s, syncDir(o.Dir)
}

// preallocate writes the whole file through once, so that later batches change no metadata (storage.md B1), and the
// header last.
func (s *segment) preallocate(header []byte) error {
	zeros := make([]byte, zeroBlock)
	for off := int64(0); off < s.size; off += zeroBlock {
		if _, err := s.file.WriteAt(zeros[:min(zeroBlock, s.size-off)], off); err != nil {
			return err
		}
	}
	if _, err := s.file.WriteAt(header, 0); err != nil {
		return err
	}
	return s.file.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// openSegment reads and authenticates a segment's header.
func openSegment(o Options, number uint32) (*segment, error) {
	path := segmentPath(o.Dir, number)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	s, err := readHeader(o, number, f)
	if err != nil {
		f.Close()
		return nil, err
	}
	s.path = path
	return s, nil
}

func readHeader(o Options, number uint32, f *os.File) (*segment, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	h := make([]byte, headerBytes)
	if _, err := f.ReadAt(h, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if string(h[:8]) != magic {
		return nil, fmt.Errorf("%w: segment %d has no header", ErrDamaged, number)
	}
	if v := binary.BigEndian.Uint16(h[8:]); v != version {
		return nil, fmt.Errorf("%w: segment %d is of version %d", ErrVersion, number, v)
	}
	aead, macKey, err := keys(o, h[40:72], number)
	if err != nil {
		return nil, err
	}
	if !hmac.Equal(mac16(macKey, h[:112]), h[112:]) || binary.BigEndian.Uint32(h[12:]) != number || string(h[16:24]) != o.TerminalID {
		return nil, fmt.Errorf("%w: header of segment %d does not verify", ErrKey, number)
	}
	s := &segment{number: number, file: f, aead: aead, size: info.Size(), end: headerBytes}
	s.before = Head{Epoch: [16]byte(h[24:40]), Sequence: binary.BigEndian.Uint64(h[72:]) - 1, Hash: [32]byte(h[80:112])}
	return s, nil
}

// pack joins records into the text of one batch: each with its length in front.
func pack(records [][]byte) ([]byte, error) {
	size := 0
	for _, r := range records {
		size += 4 + len(r)
	}
	if len(records) == 0 || len(records) > MaxRecords || size > MaxBatch {
		return nil, fmt.Errorf("%w: %d records, %d bytes", ErrTooLarge, len(records), size)
	}
	plain := make([]byte, 0, size)
	for _, r := range records {
		plain = binary.BigEndian.AppendUint32(plain, uint32(len(r)))
		plain = append(plain, r...)
	}
	return plain, nil
}

// unpack splits the text of a batch into its records, which must be exactly count.
func unpack(plain []byte, count int) ([][]byte, error) {
	records := make([][]byte, 0, min(count, MaxRecords))
	for len(plain) > 0 {
		if len(plain) < 4 || len(records) == count {
			return nil, fmt.Errorf("%w: records do not fill their batch", ErrDamaged)
		}
		n := binary.BigEndian.Uint32(plain)
		if uint64(n) > uint64(len(plain)-4) {
			return nil, fmt.Errorf("%w: a record is longer than its batch", ErrDamaged)
		}
		records = append(records, plain[4:4+n])
		plain = plain[4+n:]
	}
	if len(records) != count {
		return nil, fmt.Errorf("%w: %d records of %d", ErrDamaged, len(records), count)
	}
	return records, nil
}

func (s *segment) fits(plain int) bool {
	return s.end+int64(frameBytes+plain+tagBytes) <= s.size || s.end == headerBytes
}

func nonce(batch uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 4, 12), batch)
}

func chain(before [32]byte, sealed []byte) [32]byte {
	h := sha256.New()
	h.Write(before[:])
	h.Write(sealed)
	return [32]byte(h.Sum(nil))
}

// append seals a batch and makes it durable: one write, one sync.
func (s *segment) append(head Head, plain []byte, count int) (Head, error) {
	frame := make([]byte, 0, frameBytes+len(plain)+tagBytes)
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(plain)+tagBytes))
	frame = binary.BigEndian.AppendUint32(frame, uint32(count))
	frame = binary.BigEndian.AppendUint64(frame, head.Sequence+1)
	frame = append(frame, head.Hash[:]...)
	s.count++
	frame = s.aead.Seal(frame, nonce(s.count), plain, frame[:frameBytes])
	if n, err := s.file.WriteAt(frame, s.end); err != nil || n != len(frame) {
		return head, fmt.Errorf("write %d of %d bytes: %w", n, len(frame), errors.Join(err, io.ErrShortWrite))
	}
	if err := fdatasync(s.file); err != nil {
		return head, fmt.Errorf("sync: %w", err)
	}
	s.end += int64(len(frame))
	return Head{Epoch: head.Epoch, Sequence: head.Sequence + uint64(count), Hash: chain(head.Hash, frame[frameBytes:])}, nil
}

// batch is one verified batch.
type batch struct {
	offset, end int64
	first       uint64
	head        Head // after it
	records     [][]byte
}

// errNoBatch says that there is nothing more: the frame's length is zero, or the file ends.
var errNoBatch = errors.New("no batch")

// batchAt reads and verifies the batch number n at offset, following before.
func (s *segment) batchAt(offset int64, n uint64, before Head) (batch, error) {
	b := batch{offset: offset, first: before.Sequence + 1}
	if offset+frameBytes > s.size {
		return b, errNoBatch
	}
	h := make([]byte, frameBytes)
	if _, err := s.file.ReadAt(h, offset); err != nil {
		return b, err
	}
	length, count := binary.BigEndian.Uint32(h), int(binary.BigEndian.Uint32(h[4:]))
	if length == 0 && bytes.Equal(h, make([]byte, frameBytes)) {
		return b, errNoBatch
	}
	b.end = offset + frameBytes + int64(length)
	if length < tagBytes || length > MaxBatch+tagBytes || b.end > s.size || count < 1 || count > MaxRecords {
		return b, fmt.Errorf("%w: impossible frame", ErrDamaged)
	}
	if binary.BigEndian.Uint64(h[8:]) != b.first || !bytes.Equal(h[16:48], before.Hash[:]) {
		return b, fmt.Errorf("%w: frame does not follow its predecessor", ErrDamaged)
	}
	sealed := make([]byte, length)
	if _, err := s.file.ReadAt(sealed, offset+frameBytes); err != nil {
		return b, err
	}
	after := chain(before.Hash, sealed)
	plain, err := s.aead.Open(sealed[:0], nonce(n), sealed, h)
	if err != nil {
		return b, fmt.Errorf("%w: batch does not verify", ErrDamaged)
	}
	if b.records, err = unpack(plain, count); err != nil {
		return b, err
	}
	b.head = Head{Epoch: before.Epoch, Sequence: before.Sequence + uint64(count), Hash: after}
	return b, nil
}

// read calls fn for the records of the segment from the sequence on, up to last.
func (s *segment) read(last, from uint64, fn func(uint64, Head, []byte) error) error {
	offset, before := int64(headerBytes), s.before
	for n := uint64(1); before.Sequence < last; n++ {
		b, err := s.batchAt(offset, n, before)
		if errors.Is(err, errNoBatch) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("segment %d, offset %d, sequence %d: %w", s.number, offset, before.Sequence+1, err)
		}
		for i, record := range b.records {
			if seq := b.first + uint64(i); seq >= from {
				if err := fn(seq, b.head, record); err != nil {
					return err
				}
			}
		}
		offset, before = b.end, b.head
	}
	return nil
}

// finish gives unused space back. The content is durable already.
func (s *segment) finish() error {
	if err := s.file.Truncate(s.end); err != nil {
		return err
	}
	s.size = s.end
	return s.file.Sync()
}

func (s *segment) close() { s.file.Close() }

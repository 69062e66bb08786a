package ledgercache

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// kept is fed by every floppy of this package's tests, whatever they are about, and by every journal that a killed child or
// a copy left. TestMain ends the tests as failed if a key and nonce ever sealed two texts.
var kept = newSeals()

// seals remembers every text that a book ever handed to a disk under a segment's salt, torn or not, as journal/FORMAT.md
// spells them, and names a salt and number that sealed two texts. A batch's number in its segment is told by its offset, as
// long as what is before it is the same: that is what is proved from the first batch on.
type seals struct {
	mu     sync.Mutex
	texts  map[[32]byte]map[int64][32]byte // by salt: offset in the segment → digest of what was written there
	twice  []string
	images int
}

// Lengths of journal/FORMAT.md.
const (
	segmentHeader = 4096
	batchFrame    = 52
)

func newSeals() *seals { return &seals{texts: map[[32]byte]map[int64][32]byte{}} }

// torn counts an image that a power cut, a kill or a copy left.
func (s *seals) torn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.images++
}

// see takes note of what is about to be written to a file at off.
func (s *seals) see(file io.ReaderAt, p []byte, off int64) {
	header := make([]byte, segmentHeader)
	if off == 0 && len(p) >= len(header) {
		copy(header, p)
		p, off = p[len(header):], segmentHeader
	} else if n, _ := file.ReadAt(header, 0); n < len(header) {
		return
	}
	s.batches(header, bytes.NewReader(p), off)
}

// batches takes note of the whole batches that r begins with. off is where they stand in the segment.
func (s *seals) batches(header []byte, r io.Reader, off int64) {
	if !bytes.HasPrefix(header, []byte("YUPOSJNL")) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	salt := [32]byte(header[56:88])
	if s.texts[salt] == nil {
		s.texts[salt] = map[int64][32]byte{}
	}
	for {
		frame := make([]byte, batchFrame)
		if _, err := io.ReadFull(r, frame); err != nil {
			return
		}
		size := int64(binary.BigEndian.Uint32(frame))
		if size == 0 || binary.BigEndian.Uint32(frame[48:]) != crc32.Checksum(frame[:48], crc32.MakeTable(crc32.Castagnoli)) {
			return // zeros, or a torn piece that is copied, not sealed
		}
		digest := sha256.New()
		digest.Write(frame)
		if n, err := io.Copy(digest, io.LimitReader(r, size)); err != nil || n < size {
			return
		}
		text := [32]byte(digest.Sum(nil))
		if old, known := s.texts[salt][off]; known && old != text {
			s.twice = append(s.twice, fmt.Sprintf("salt %x, batch at %d", salt[:4], off))
		}
		s.texts[salt][off] = text
		off += batchFrame + size
	}
}

// left takes note of the journal of a book, and of its mirror, as they lie there. The last batches of an image may be torn:
// a sector that did not arrive is no text, so what a crash leaves is taken note of after the next opening has cut it.
func (s *seals) left(t *testing.T, o Options) {
	t.Helper()
	s.torn()
	for _, dir := range []string{filepath.Join(o.Dir, "journal"), o.Mirror} {
		paths, err := filepath.Glob(filepath.Join(dir, "*.seg"))
		check(t, err)
		for _, path := range paths {
			f, err := os.Open(path)
			if errors.Is(err, os.ErrNotExist) || dir == "" {
				continue
			}
			check(t, err)
			r, header := bufio.NewReader(f), make([]byte, segmentHeader)
			if _, err := io.ReadFull(r, header); err == nil {
				s.batches(header, r, segmentHeader)
			}
			check(t, f.Close())
		}
	}
}

func (s *seals) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, of := range s.texts {
		n += len(of)
	}
	return fmt.Sprintf("%d torn images, %d segments, %d sealed texts, %d sealed twice", s.images, len(s.texts), n, len(s.twice))
}

// verdict is the exit code of the package's tests.
func (s *seals) verdict(code int) int {
	if testing.Verbose() || len(s.twice) > 0 {
		fmt.Println("of all tests:", s)
	}
	for _, twice := range s.twice {
		fmt.Println("FAIL:", twice, "sealed two texts")
		code = 1
	}
	return code
}

// TestSealsFindASaltThatSealedTwoTexts is the control of what is proved over all torn images.
func TestSealsFindASaltThatSealedTwoTexts(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "0000000001.seg"))
	check(t, err)
	defer f.Close()
	own := newSeals()
	header := append([]byte("YUPOSJNL"), make([]byte, segmentHeader-8)...)
	_, err = f.WriteAt(header, 0)
	check(t, err)
	for n := range 3 {
		batch := make([]byte, batchFrame+40)
		binary.BigEndian.PutUint32(batch, 40)
		binary.BigEndian.PutUint32(batch[48:], crc32.Checksum(batch[:48], crc32.MakeTable(crc32.Castagnoli)))
		batch[60] = byte(max(0, n-1)) // the same text twice, as an opening writes a tail again, then another one
		own.see(f, append(batch, make([]byte, 30)...), segmentHeader)
		if want := n / 2; len(own.twice) != want {
			t.Errorf("write %d: %v", n, own.twice)
		}
	}
}

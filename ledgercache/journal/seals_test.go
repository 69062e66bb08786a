package journal

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// kept is fed by every simulated disk of this package's tests, whatever they are about, and by what every killed child
// leaves. TestMain ends the tests as failed if a key and nonce ever sealed two texts.
var kept = newSeals()

// seals remembers every text that was ever handed to a disk under a segment's salt, written whole or not, and every salt and
// nonce that met a second text.
type seals struct {
	mu     sync.Mutex
	n      map[[32]byte]map[int64]uint64 // by salt: offset → number of the batch that begins there
	texts  map[[32]byte]map[uint64][32]byte
	twice  []string
	images int
}

func newSeals() *seals {
	return &seals{n: map[[32]byte]map[int64]uint64{}, texts: map[[32]byte]map[uint64][32]byte{}}
}

// torn counts an image that a power cut or a kill left.
func (s *seals) torn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.images++
}

// see takes note of p, which is about to be written at off of a file that holds before.
func (s *seals) see(before, p []byte, off int64) {
	head := before
	if off == 0 {
		head = p
	}
	if len(head) < headerBytes || string(head[:8]) != magic {
		return
	}
	salt := [32]byte(head[56:])
	if off == 0 {
		p, off = p[headerBytes:], headerBytes
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n[salt] == nil {
		s.n[salt], s.texts[salt] = map[int64]uint64{headerBytes: 1}, map[uint64][32]byte{}
	}
	for len(p) >= frameBytes && !allZero(p[:frameBytes]) {
		f, whole := decodeFrame(p)
		n := s.n[salt][off]
		if !whole || len(p) < frameBytes+f.length || n == 0 {
			return // a torn piece that is copied, not sealed
		}
		size := frameBytes + f.length
		text := sha256.Sum256(p[:size])
		if old, ok := s.texts[salt][n]; ok && old != text {
			s.twice = append(s.twice, fmt.Sprintf("salt %x and nonce %d", salt[:4], n))
		}
		s.texts[salt][n] = text
		p, off = p[size:], off+int64(size)
		s.n[salt][off] = n + 1
	}
}

// left takes note of a real directory as a killed child left it.
func (s *seals) left(t *testing.T, dir string) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil || len(segments) == 0 {
		return // killed before the first
	}
	s.torn()
	for _, path := range segments {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		s.see(raw, raw, 0)
	}
}

func (s *seals) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	texts := 0
	for _, m := range s.texts {
		texts += len(m)
	}
	return fmt.Sprintf("%d torn images, %d segments, %d sealed texts, %d sealed twice", s.images, len(s.texts), texts, len(s.twice))
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

// TestSealsFindANonceThatSealedTwoTexts is the control of what is proved over all torn images: a process that goes on in a
// segment that another one wrote.
func TestSealsFindANonceThatSealedTwoTexts(t *testing.T) {
	o := simulated(1)
	d, own := o.FS.(*disk), newSeals()
	d.sealed = own
	j, _ := mustOpen(t, o)
	for n := range 3 {
		if _, err := j.Append([][]byte{record(n)}); err != nil {
			t.Fatal(err)
		}
	}
	s, err := openSegment(d, o.Dir, 1, o)
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range []int{0, 1} { // what the journal itself sealed under the first nonce, and something else
		text, _ := seal(nil, s.aead, 1, s.start(), [][]byte{record(n)}, 4+len(record(n)))
		own.see(d.live["/j/0000000001.seg"].live, text, headerBytes)
		if len(own.twice) != want {
			t.Errorf("record %d: %v, %v", n, own, own.twice)
		}
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

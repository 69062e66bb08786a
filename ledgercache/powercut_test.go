package ledgercache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"yupos/ledgercache/journal"
)

// seals remembers every text that a book ever handed to a disk under a segment's salt, torn or not, as journal/FORMAT.md
// spells them, and names a salt and number that sealed two texts.
type seals struct {
	mu     sync.Mutex
	texts  map[[32]byte]map[int64][32]byte // by salt: offset in the segment → digest of what was written there
	twice  []string
	images int
}

func newSeals() *seals { return &seals{texts: map[[32]byte]map[int64][32]byte{}} }

// see takes note of a write. A batch's number in its segment is told by its offset, as long as what is before it is the
// same: that is what the test proves from the first batch on.
func (s *seals) see(file journal.File, p []byte, off int64) {
	header := make([]byte, 4096)
	if off == 0 && len(p) >= len(header) {
		copy(header, p)
		p, off = p[len(header):], int64(len(header))
	} else if n, _ := file.ReadAt(header, 0); n < len(header) {
		return
	}
	if !bytes.HasPrefix(header, []byte("YUPOSJNL")) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	salt := [32]byte(header[56:88])
	if s.texts[salt] == nil {
		s.texts[salt] = map[int64][32]byte{}
	}
	for len(p) > 52 {
		size := 52 + int64(binary.BigEndian.Uint32(p))
		if binary.BigEndian.Uint32(p[48:]) != crc32.Checksum(p[:48], crc32.MakeTable(crc32.Castagnoli)) || size > int64(len(p)) {
			return // zeros, or a torn piece that is copied, not sealed
		}
		text := sha256.Sum256(p[:size])
		if old, known := s.texts[salt][off]; known && old != text {
			s.twice = append(s.twice, fmt.Sprintf("salt %x, batch at %d", salt[:4], off))
		}
		s.texts[salt][off] = text
		p, off = p[size:], off+size
	}
}

func (s *seals) String() string {
	n := 0
	for _, of := range s.texts {
		n += len(of)
	}
	return fmt.Sprintf("%d torn images, %d segments, %d sealed texts", s.images, len(s.texts), n)
}

// sealed is a floppy whose writes are seen by seals.
type sealed struct {
	*floppy
	seals *seals
}

type sealedFile struct {
	journal.File
	seals *seals
}

func (d sealed) OpenFile(name string, flag int, perm os.FileMode) (journal.File, error) {
	f, err := d.floppy.OpenFile(name, flag, perm)
	if err != nil || strings.Contains(filepath.Base(name), ".torn") {
		return f, err
	}
	return sealedFile{f, d.seals}, nil
}

func (f sealedFile) WriteAt(p []byte, off int64) (int, error) {
	f.seals.see(f.File, p, off)
	return f.File.WriteAt(p, off)
}

// powerLife is one life of a clerk's book on a floppy: it opens, works until the power goes or it is ended, and leaves a
// torn image. The act that was under way then may have been carried out or not, but not by half.
func (c *clerk) powerLife(kept *seals, caches *[]string) error {
	faults := []fault{powerCut, powerCut, powerCut, failWrite, fullDisk, shortOne, failSync}
	disk := newFloppy(c.t, c.rng.Uint64(), one(c, faults...), one(c, 0, 1+c.rng.IntN(30), 1+c.rng.IntN(300)))
	c.opts.FS = sealed{disk, kept}
	before, after := c.m, c.m
	b, err := Open(ctx, c.opts)
	if err != nil {
		return err
	}
	c.Book = b
	if b.Err() == nil {
		if err := c.agree(); err != nil {
			return fmt.Errorf("after opening: %w", err)
		}
	}
	for range c.rng.IntN(40) {
		if b.Err() != nil {
			break
		}
		c.time()
		a := c.next()
		before, after = c.m.clone(), c.m
		if err := c.do(a); err != nil {
			if b.Err() == nil || !errors.Is(b.Err(), ErrSealed) {
				return err
			}
			break
		}
		before = c.m
	}
	if c.chance(30) {
		*caches = append(*caches, copyOf(c.t, c.cacheDir()))
	}
	_ = b.Close() // it may not end well
	if disk.fault == powerCut || c.chance(50) {
		disk.cut()
		kept.images++
	}
	dir := filepath.Join(c.t.TempDir(), "book") // a Badger that was left open may still write into the old one
	if err := exec.Command("cp", "-a", "--sparse=always", c.opts.Dir, dir).Run(); err != nil {
		c.t.Log("copied in part: ", err) // of the cache: what it deletes meanwhile
	}
	c.opts.Dir = dir
	return c.comesBack(before, after, *caches)
}

func copyOf(t *testing.T, dir string) string {
	to := filepath.Join(t.TempDir(), "cache")
	copyTree(t, dir, to)
	return to
}

// comesBack opens the book on a good disk, with its cache, an older one, or none.
func (c *clerk) comesBack(before, after *plain, caches []string) error {
	switch r := c.rng.IntN(10); {
	case r < 2:
		check(c.t, os.RemoveAll(c.cacheDir()))
	case r < 5 && len(caches) > 0:
		check(c.t, os.RemoveAll(c.cacheDir()))
		copyTree(c.t, caches[c.rng.IntN(len(caches))], c.cacheDir())
	}
	c.opts.FS = nil
	b, err := Open(ctx, c.opts)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := b.Err(); err != nil {
		return fmt.Errorf("it does not come back: %w", err)
	}
	have, err := readBook(b)
	if err != nil {
		return err
	}
	c.m = after.clone()
	if differ(after.readings(), have) != nil {
		c.m = before.clone()
		if err := differ(before.readings(), have); err != nil {
			return fmt.Errorf("it is neither before nor after %q: %w", c.log[max(0, len(c.log)-1):], err)
		}
	}
	return sound(b)
}

// TestAPowerCutOrAFailingDiskAtAnyMomentOfRandomWorkLosesNothingAnswered lets a clerk work through several lives of a book
// whose journal's disk fails or loses its power at a random call, keeping any subset of unsynced 512-byte sectors.
func TestAPowerCutOrAFailingDiskAtAnyMomentOfRandomWorkLosesNothingAnswered(t *testing.T) {
	seed, rounds := uint64(time.Now().UnixNano()), amount(4, 80)
	if text := os.Getenv("YUPOS_SEED"); text != "" {
		_, err := fmt.Sscan(text, &seed)
		check(t, err)
	}
	kept := newSeals()
	acts, lives := 0, 0
	for round := range uint64(rounds) {
		s := newShop(t)
		check(t, s.Close())
		c := newClerk(s, seed+round)
		if round%3 == 0 {
			c.opts.Mirror = t.TempDir()
		}
		var caches []string
		for life := range 6 {
			if err := c.powerLife(kept, &caches); err != nil {
				t.Fatalf("YUPOS_SEED=%d, round %d, life %d: %v", seed+round, round, life, err)
			}
			lives++
		}
		acts += len(c.log)
	}
	t.Logf("seed %d: %d lives, %d acts, 0 lost, 0 torn; %v", seed, lives, acts, kept)
	for _, twice := range kept.twice {
		t.Errorf("%s sealed two texts", twice)
	}
	if kept.images == 0 || len(kept.texts) < rounds {
		t.Error("no image was torn: this proves nothing")
	}
}

// TestSealsFindASaltThatSealedTwoTexts is the control of what is proved beside the power cuts.
func TestSealsFindASaltThatSealedTwoTexts(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	disk := newFloppy(t, 1, powerCut, 0)
	f, err := disk.OpenFile(filepath.Join(t.TempDir(), "0000000001.seg"), os.O_CREATE|os.O_RDWR, 0o600)
	check(t, err)
	defer f.Close()
	kept := newSeals()
	header := append([]byte("YUPOSJNL"), make([]byte, 4088)...)
	_, err = sealedFile{f, kept}.WriteAt(header, 0)
	check(t, err)
	for n := range 3 {
		batch := make([]byte, 52+40)
		binary.BigEndian.PutUint32(batch, 40)
		binary.BigEndian.PutUint32(batch[48:], crc32.Checksum(batch[:48], crc32.MakeTable(crc32.Castagnoli)))
		batch[60] = byte(max(0, n-1)) // the same text twice, as an opening writes a tail again, then another one
		_, err := sealedFile{f, kept}.WriteAt(append(batch, make([]byte, rng.IntN(100))...), 4096)
		check(t, err)
		if want := n / 2; len(kept.twice) != want {
			t.Errorf("write %d: %v", n, kept.twice)
		}
	}
}

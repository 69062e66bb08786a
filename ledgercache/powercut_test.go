package ledgercache

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// powerLife is one life of a clerk's book on a floppy: it opens, works until the power goes or it is ended, and leaves a
// torn image. The act that was under way then may have been carried out or not, but not by half.
func (c *clerk) powerLife(caches *[]string) error {
	faults := []fault{powerCut, powerCut, powerCut, failWrite, fullDisk, shortOne, failSync}
	disk := newFloppy(c.t, c.rng.Uint64(), one(c, faults...), one(c, 0, 1+c.rng.IntN(30), 1+c.rng.IntN(300)))
	c.opts.FS = disk
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
	defer func() { kept.left(c.t, c.opts) }()
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
	seed, rounds := uint64(time.Now().UnixNano()), amount(3, 60)
	if text := os.Getenv("YUPOS_SEED"); text != "" {
		_, err := fmt.Sscan(text, &seed)
		check(t, err)
	}
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
			if err := c.powerLife(&caches); err != nil {
				t.Fatalf("YUPOS_SEED=%d, round %d, life %d: %v", seed+round, round, life, err)
			}
			lives++
		}
		acts += len(c.log)
	}
	t.Logf("seed %d: %d lives, %d acts, 0 lost, 0 torn; %v", seed, lives, acts, kept)
}

package ledgercache

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// crashed copies the book's directory as it is now, as a crash would leave it.
func crashed(t *testing.T, s *shop) Options {
	t.Helper()
	o := s.opts
	o.Dir = t.TempDir()
	if out, err := exec.Command("cp", "-a", "--sparse=always", s.opts.Dir+"/.", o.Dir).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	return o
}

// opensRight opens a book and compares everything in its cache with what the journal alone gives.
func opensRight(t *testing.T, o Options) {
	t.Helper()
	b, err := Open(ctx, o)
	check(t, err)
	check(t, b.Err())
	check(t, b.view(func(disk state) error { sameState(t, dump(t, folded(t, b)), dump(t, disk)); return nil }))
	check(t, b.Close())
}

// TestAnyDamagedFileOfTheCacheEndsInTheJournalsState spoils every file of a cache, of a running book and of one that was
// stopped, in many places: the book opens, and says what the journal says.
func TestAnyDamagedFileOfTheCacheEndsInTheJournalsState(t *testing.T) {
	places := 1
	if os.Getenv("YUPOS_FULL") != "" {
		places = 40
	}
	s := newShop(t)
	for i := range 20 {
		s.must(s.Answer(ctx, s.paid(s.sell(i))))
	}
	s.reopen() // so that there are tables
	for i := range 10 {
		s.sell(100 + i)
	}
	running := crashed(t, s)
	check(t, s.Close())
	damaged := 0
	for _, o := range []Options{running, s.opts} {
		s.opts = o
		files, err := os.ReadDir(filepath.Join(o.Dir, "cache"))
		check(t, err)
		for _, f := range files {
			info, err := f.Info()
			check(t, err)
			used := min(info.Size(), 64<<10) // Badger's logs are made far longer than what stands in them
			for n := range places {
				at := used * int64(n) / int64(places)
				for name, spoil := range spoilers {
					d := crashed(t, s)
					check(t, spoil(filepath.Join(d.Dir, "cache", f.Name()), at))
					if opensRight(t, d); t.Failed() {
						t.Fatalf("%s: %s at %d of %d", f.Name(), name, at, info.Size())
					}
					check(t, os.RemoveAll(d.Dir))
					damaged++
				}
			}
		}
	}
	t.Logf("%d damaged caches", damaged)
}

var spoilers = map[string]func(path string, at int64) error{
	"a flipped byte": func(path string, at int64) error {
		raw, err := os.ReadFile(path)
		if err == nil && at < int64(len(raw)) {
			raw[at] ^= 0xA5
		}
		if err != nil {
			return err
		}
		return os.WriteFile(path, raw, 0o600)
	},
	"cut": func(path string, at int64) error { return os.Truncate(path, at) },
	"a lost page": func(path string, at int64) error {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		if _, err := f.WriteAt(make([]byte, 512), at); err != nil {
			return err
		}
		return f.Close()
	},
}

// TestACacheThatKillsItsOpenerTwiceIsSetAside has two processes die inside Badger's Open.
func TestACacheThatKillsItsOpenerTwiceIsSetAside(t *testing.T) {
	s := newShop(t)
	s.must(s.Answer(ctx, s.paid(s.sell(1))))
	check(t, s.Close())
	for range 2 {
		_, err := s.takeMarks() // and then the process is gone
		check(t, err)
	}
	opensRight(t, s.opts)
	if _, err := os.Stat(filepath.Join(s.opts.Dir, "cache.aside")); err != nil {
		t.Errorf("the deadly cache was not set aside: %v", err)
	}
	left, err := s.takeMarks()
	if err != nil || left.Deaths != 0 {
		t.Errorf("%+v after a good opening, %v", left, err)
	}
}

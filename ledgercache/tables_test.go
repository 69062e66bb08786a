package ledgercache

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestEveryDamagedByteOfATableIsAnErrorAndNeverAPanic spoils a table at every byte, and cuts it at every length.
func TestEveryDamagedByteOfATableIsAnErrorAndNeverAPanic(t *testing.T) {
	s := newShop(t)
	for i := range 20 {
		s.must(s.Answer(ctx, s.paid(s.sell(i))))
	}
	check(t, s.Close())
	o, err := cacheOptions(filepath.Join(s.opts.Dir, "cache"), s.opts.Key)
	check(t, err)
	check(t, checkTables(o))
	paths, err := filepath.Glob(filepath.Join(o.Dir, "*.sst"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("%d tables, %v", len(paths), err)
	}
	step := 1
	if os.Getenv("YUPOS_FULL") == "" {
		step = 23
	}
	damaged, same := 0, 0
	for _, path := range paths {
		whole, err := os.ReadFile(path)
		check(t, err)
		for at := 0; at < len(whole); at += step {
			flipped := append([]byte(nil), whole...)
			flipped[at] ^= 1 << (at % 8)
			for _, bytes := range [][]byte{flipped, whole[:at]} {
				check(t, os.WriteFile(path, bytes, 0o600))
				if err := checkTables(o); !errors.Is(err, errTable) {
					// A changed bit of a compressed block may stand for the same bytes: then nothing was damaged.
					if err != nil || len(bytes) < len(whole) {
						t.Fatalf("%s, byte %d of %d: %v", filepath.Base(path), at, len(whole), err)
					}
					s.open()
					check(t, s.view(func(disk state) error { sameState(t, dump(t, folded(t, s.Book)), dump(t, disk)); return nil }))
					check(t, s.Close())
					same++
				}
				damaged++
			}
		}
		check(t, os.WriteFile(path, whole, 0o600))
	}
	t.Logf("%d damaged tables, %d of them with the same content", damaged, same)
	check(t, checkTables(o))
	s.open()
}

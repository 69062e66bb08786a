package journal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// copyOf is a copy of a directory, as a kill at this moment would leave it.
func copyOf(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

func withKey(o Options, dir string, key byte) Options {
	o.Dir, o.Key = dir, [32]byte{key}
	return o
}

func TestAfterARotationTheNewKeyReadsEverythingAndTheOldOneNothingNewer(t *testing.T) {
	o := options(t.TempDir())
	j, _ := mustOpen(t, o)
	n := fill(t, j, 1, 20)
	check(t, j.Close())
	for key := byte(8); key < 12; key++ { // again and again
		check(t, PrepareKey(o, [32]byte{key}))
		for _, either := range []byte{o.Key[0], key} { // killed before the key file was changed, and after
			j, r := mustOpen(t, withKey(o, copyOf(t, o.Dir), either))
			if got := len(read(t, j)); got != n-1 || r.Problem != nil {
				t.Fatalf("key %d: %d records, want %d; %v", either, got, n-1, r.Problem)
			}
		}
		check(t, PrepareKey(o, [32]byte{key})) // once more, as after a kill
		old := o
		o.Key = [32]byte{key}
		j, r := mustOpen(t, o)
		if r.Problem != nil || r.HeadBad != 0 {
			t.Fatalf("%+v", r)
		}
		if r, err := Verify(withKey(o, copyOf(t, o.Dir), key)); err != nil || int(r.Records) != n-1 {
			t.Fatalf("%+v, %v", r, err)
		}
		n = fill(t, j, n, 20)
		check(t, j.Close())
		if _, _, err := Open(withKey(old, copyOf(t, o.Dir), old.Key[0])); !errors.Is(err, ErrKey) {
			t.Errorf("the key before opens it: %v", err)
		}
		raw, err := os.ReadFile(filepath.Join(o.Dir, ringFile))
		if err != nil || bytes.Contains(raw, old.Key[:]) {
			t.Errorf("the ring shows an earlier key, or is gone: %v", err)
		}
	}
	j, r := mustOpen(t, o)
	if got := len(read(t, j)); got != n-1 || r.Problem != nil {
		t.Errorf("%d records, want %d", got, n-1)
	}
}

func TestOneCopyOfTheRingMayBeDamagedAndTheMirrorHasAnother(t *testing.T) {
	o := options(t.TempDir())
	o.Mirror = filepath.Join(t.TempDir(), "mirror")
	j, _ := mustOpen(t, o)
	n := fill(t, j, 1, 10)
	check(t, j.Close())
	check(t, PrepareKey(o, [32]byte{8}))
	o.Key = [32]byte{8}
	j, _ = mustOpen(t, o)
	check(t, j.Close())
	flip := func(path string, at int) {
		raw, err := os.ReadFile(path)
		check(t, err)
		raw[at] ^= 1
		check(t, os.WriteFile(path, raw, 0o600))
	}
	opens := func(what string) {
		t.Helper()
		j, r := mustOpen(t, o)
		if got := len(read(t, j)); got != n-1 || r.Problem != nil {
			t.Errorf("%s: %d records; %v", what, got, r.Problem)
		}
		check(t, j.Close())
	}
	primary := filepath.Join(o.Dir, ringFile)
	flip(primary, 50)
	opens("the first copy")
	flip(primary, ringStride+50)
	opens("both copies here: the mirror's")
	check(t, os.Remove(primary))
	opens("no ring here")
	if _, err := os.Stat(primary); err != nil {
		t.Errorf("the ring was not put back: %v", err)
	}
	check(t, os.RemoveAll(o.Mirror))
	check(t, os.Mkdir(o.Mirror, 0o700))
	opens("an empty mirror")
	check(t, os.RemoveAll(o.Dir))
	opens("only the mirror is left")
}

func TestARingOfALaterVersionIsRefusedUntouched(t *testing.T) {
	o := options(t.TempDir())
	j, _ := mustOpen(t, o)
	fill(t, j, 1, 3)
	check(t, j.Close())
	check(t, PrepareKey(o, [32]byte{8}))
	o.Key = [32]byte{8}
	j, _ = mustOpen(t, o)
	check(t, j.Close())
	path := filepath.Join(o.Dir, ringFile)
	raw, err := os.ReadFile(path)
	check(t, err)
	raw[9], raw[ringStride+9] = 2, 2
	check(t, os.WriteFile(path, raw, 0o600))
	before, err := os.ReadDir(o.Dir)
	check(t, err)
	if _, _, err := Open(o); !errors.Is(err, ErrVersion) {
		t.Errorf("%v", err)
	}
	after, err := os.ReadDir(o.Dir)
	check(t, err)
	if len(before) != len(after) {
		t.Errorf("%v → %v", before, after)
	}
}

func TestANextKeyThatIsThePresentOneIsRefused(t *testing.T) {
	o := options(t.TempDir())
	j, _ := mustOpen(t, o)
	check(t, j.Close())
	if err := PrepareKey(o, o.Key); !errors.Is(err, ErrOptions) {
		t.Errorf("%v", err)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

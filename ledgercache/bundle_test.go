package ledgercache

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"yupos/ledgercache/payment"
)

func (s *shop) bundle(secrets map[string][]byte) (*bytes.Buffer, Manifest) {
	s.t.Helper()
	var w bytes.Buffer
	m, err := WriteBundle(ctx, s.opts, s.t.TempDir(), &w, secrets, nil)
	check(s.t, err)
	return &w, m
}

// elsewhere is the same terminal on a new machine.
func (s *shop) elsewhere() Options {
	o := s.opts
	o.Dir, o.Mirror = s.t.TempDir(), ""
	return o
}

func sameKey(o Options) func(map[string][]byte) ([32]byte, error) {
	return func(map[string][]byte) ([32]byte, error) { return o.Key, nil }
}

func TestABookCarriedInABundleGoesOnWhereItStood(t *testing.T) {
	s := newShop(t)
	paid, open := s.must(s.Answer(ctx, s.paid(s.sell(1)))), s.sell(2)
	w, m := s.bundle(nil) // while it runs
	if m.Sequence != s.Head().Sequence || m.Epoch != s.Position().Epoch {
		t.Errorf("%+v, the book stands at %+v", m, s.Position())
	}
	for _, secret := range []string{paid.OutTradeNo, open.Code, string(s.opts.Key[:])} {
		if bytes.Contains(w.Bytes(), []byte(secret)) {
			t.Errorf("%q stands in the bundle", secret)
		}
	}
	o := s.elsewhere()
	b, err := ReadBundle(ctx, o, o.Dir, w, sameKey(o), nil)
	check(t, err)
	check(t, b.Install(o))
	check(t, b.Close())
	moved, err := Open(ctx, o)
	check(t, err)
	defer moved.Close()
	check(t, moved.Err())
	if p, err := moved.ByTradeNo(paid.TradeNo); err != nil || p.State != payment.Success {
		t.Errorf("%+v, %v", p, err)
	}
	if list, err := moved.OpenTrades(); err != nil || len(list) != 1 || list[0].TradeNo != open.TradeNo {
		t.Errorf("open work: %+v, %v", list, err)
	}
	if moved.Position().Epoch == m.Epoch {
		t.Error("the book goes on in the old epoch")
	}
	left, err := filepath.Glob(filepath.Join(o.Dir, ".yupos-bundle-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestNoBundleIsWrittenOverABook(t *testing.T) {
	s := newShop(t)
	s.sell(1)
	w, _ := s.bundle(nil)
	check(t, s.Close())
	before := tree(t, s.opts.Dir)
	b, err := ReadBundle(ctx, s.opts, t.TempDir(), bytes.NewReader(w.Bytes()), sameKey(s.opts), nil)
	check(t, err)
	if err := b.Install(s.opts); !errors.Is(err, ErrBookExists) {
		t.Errorf("over a book: %v", err)
	}
	o := s.elsewhere()
	o.Mirror = filepath.Join(s.opts.Dir, "journal")
	if err := b.Install(o); !errors.Is(err, ErrBookExists) {
		t.Errorf("beside a mirror with a book: %v", err)
	}
	for path, content := range tree(t, s.opts.Dir) {
		if before[path] != content {
			t.Errorf("%s was changed", path)
		}
	}
}

func TestABundleIsTakenWholeOrNotAtAll(t *testing.T) {
	s := newShop(t)
	for n := range 3 {
		s.must(s.Answer(ctx, s.paid(s.sell(n))))
	}
	w, _ := s.bundle(nil)
	whole := w.Bytes()
	o := s.elsewhere()
	try := func(raw []byte) error {
		b, err := ReadBundle(ctx, o, o.Dir, bytes.NewReader(raw), sameKey(o), nil)
		if err == nil {
			err = errors.Join(b.Install(o), b.Close())
		}
		return err
	}
	step := len(whole) / 61
	for at := 0; at < len(whole)-1536; at += step { // the tar's own padding at the end means nothing
		flipped := bytes.Clone(whole)
		flipped[at] ^= 1
		for how, raw := range map[string][]byte{"flipped": flipped, "cut": whole[:at]} {
			err := try(raw)
			if err == nil {
				if sameTar(whole, raw) { // a bit of a tar header that carries nothing
					check(t, os.RemoveAll(o.Dir))
					check(t, os.Mkdir(o.Dir, 0o700))
					continue
				}
				t.Fatalf("%s at %d of %d was taken", how, at, len(whole))
			}
			if entries, _ := os.ReadDir(o.Dir); len(entries) > 0 {
				t.Fatalf("%s at %d: %v left behind (%v)", how, at, entries, err)
			}
		}
	}
	other := o
	other.Key[5]++
	if _, err := ReadBundle(ctx, other, o.Dir, bytes.NewReader(whole), sameKey(other), nil); !errors.Is(err, ErrBundleKey) {
		t.Errorf("another key: %v", err)
	}
	other = o
	other.TerminalID = "10000002"
	if _, err := ReadBundle(ctx, other, o.Dir, bytes.NewReader(whole), sameKey(o), nil); !errors.Is(err, ErrBundleForeign) {
		t.Errorf("another terminal: %v", err)
	}
	check(t, try(whole))
}

// sameTar reports whether two tars hold the same files.
func sameTar(a, b []byte) bool {
	x, y := tar.NewReader(bytes.NewReader(a)), tar.NewReader(bytes.NewReader(b))
	for {
		h, err := x.Next()
		g, other := y.Next()
		if err != nil || other != nil {
			return errors.Is(err, io.EOF) && errors.Is(other, io.EOF)
		}
		p, _ := io.ReadAll(x)
		q, _ := io.ReadAll(y)
		if h.Name != g.Name || !bytes.Equal(p, q) {
			return false
		}
	}
}

func TestABundleOfADamagedJournalIsNotMade(t *testing.T) {
	s := newShop(t)
	s.sell(1)
	check(t, s.Close())
	segment := filepath.Join(s.opts.Dir, "journal", "0000000001.seg")
	raw, err := os.ReadFile(segment)
	check(t, err)
	raw[4200] ^= 1
	check(t, os.WriteFile(segment, raw, 0o600))
	work := t.TempDir()
	if _, err := WriteBundle(ctx, s.opts, work, io.Discard, nil, nil); err == nil {
		t.Error("a damaged journal was bundled")
	}
	if entries, _ := os.ReadDir(work); len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
	if _, err := WriteBundle(ctx, Options{Dir: t.TempDir()}, work, io.Discard, nil, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("no book: %v", err)
	}
}

func TestSecretsTravelOnlyWhereTheyAreAskedFor(t *testing.T) {
	s := newShop(t)
	s.sell(1)
	w, _ := s.bundle(map[string][]byte{"book.key": s.opts.Key[:]})
	o := s.elsewhere()
	b, err := ReadBundle(ctx, o, o.Dir, w, func(secrets map[string][]byte) (k [32]byte, err error) {
		copy(k[:], secrets["book.key"])
		return k, nil
	}, nil)
	check(t, err)
	defer b.Close()
	if !strings.HasPrefix(filepath.Base(b.dir), ".yupos-bundle-") || len(b.Secrets) != 1 {
		t.Errorf("%v", b.Secrets)
	}
	p, err := Verify(ctx, b.Options(o), nil)
	if err != nil || p.Journal.Problem != nil || p.Books.Trades != 1 || p.Cache != CacheAbsent {
		t.Errorf("proved where it lies: %+v, %v", p, err)
	}
}

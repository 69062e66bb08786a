package ledgercache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"yupos/ledgercache/journal"
	"yupos/ledgercache/payment"
)

func headAt(seq uint64) journal.Head { return journal.Head{Sequence: seq, Hash: [32]byte{byte(seq)}} }

// TestWhatWasToldIsNeverDenied adds any keys in any batches, saves and reads back at any time.
func TestWhatWasToldIsNeverDenied(t *testing.T) {
	dir, round := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		at := filepath.Join(dir, fmt.Sprint(round))
		if err := os.Mkdir(at, 0o700); err != nil {
			t.Fatal(err)
		}
		n, err := newKnown(at, [32]byte{1})
		if err != nil {
			t.Fatal(err)
		}
		var told [][]byte
		for seq := range uint64(rapid.IntRange(1, 12).Draw(t, "batches")) {
			var keys [][]byte
			first := len(told)
			for i := range rapid.SampledFrom([]int{0, 1, 5, firstLayer - 1, firstLayer, firstLayer + 1}).Draw(t, "keys") {
				keys = append(keys, fmt.Appendf(nil, "key %d", first+i))
			}
			n.add(keys, headAt(seq+1))
			told = append(told, keys...)
			if !rapid.Bool().Draw(t, "save") {
				continue
			}
			if err := n.save(); err != nil {
				t.Fatal(err)
			}
			again, _ := newKnown(at, [32]byte{1})
			if err := again.read(); err != nil || again.reached() != headAt(seq+1) {
				t.Fatal(again.reached(), err)
			}
			n = again
		}
		if i := slices.IndexFunc(told, func(k []byte) bool { return !n.has(k) }); i >= 0 {
			t.Fatalf("key %d of %d is denied", i, len(told))
		}
	})
}

// TestWhatWasNeverToldIsNearlyAlwaysDenied fills layers of every size and asks for as many other keys.
func TestWhatWasNeverToldIsNearlyAlwaysDenied(t *testing.T) {
	count := amount(60_000, 2_000_000)
	n, err := newKnown(t.TempDir(), [32]byte{1})
	check(t, err)
	for i := range count {
		n.add([][]byte{fmt.Appendf(nil, "told %d", i)}, headAt(uint64(i+1)))
	}
	wrong := 0
	for i := range count {
		if n.has(fmt.Appendf(nil, "never told %d", i)) {
			wrong++
		}
	}
	if wrong > 1 { // 2 million of 16 layers: 0.2 are to be expected
		t.Errorf("%d of %d taken for told", wrong, count)
	}
	t.Logf("%d layers, %d of %d taken for told", len(n.layers), wrong, count)
}

func TestADamagedLayerIsNamedAndNeverBelieved(t *testing.T) {
	book := t.TempDir()
	dir := filepath.Join(book, "cache")
	check(t, os.Mkdir(dir, 0o700))
	n, err := newKnown(dir, [32]byte{1})
	check(t, err)
	for i := range 3 * firstLayer {
		n.add([][]byte{fmt.Appendf(nil, "%d", i)}, headAt(uint64(i+1)))
	}
	check(t, n.save())
	whole := map[string][]byte{}
	each(t, book, "known-*", func(path string) { whole[path], err = os.ReadFile(path); check(t, err) })
	if len(whole) < 2 {
		t.Fatalf("%d files", len(whole))
	}
	fresh := func() *known { n, err := newKnown(dir, [32]byte{1}); check(t, err); return n }
	for path, raw := range whole {
		for _, spoiled := range [][]byte{nil, raw[:5], raw[:len(raw)-1], append(slices.Clone(raw), 0), flipAt(1, 3)(slices.Clone(raw))} {
			check(t, os.WriteFile(path, spoiled, 0o600))
			if err := fresh().read(); !errors.Is(err, errCacheStale) {
				t.Errorf("%s of %d bytes: %v", filepath.Base(path), len(spoiled), err)
			}
		}
		check(t, os.WriteFile(path, raw, 0o600))
	}
	first, second := filepath.Join(dir, "known-0001"), filepath.Join(dir, "known-0002")
	check(t, os.WriteFile(second, whole[first], 0o600))
	if err := fresh().read(); !errors.Is(err, errCacheStale) {
		t.Errorf("one layer in the place of another: %v", err)
	}
	other, err := newKnown(dir, [32]byte{2})
	check(t, err)
	if err := other.read(); !errors.Is(err, errCacheStale) {
		t.Errorf("another key: %v", err)
	}
}

// knowsAll holds every decisive key of the cache against what is known.
func knowsAll(t *testing.T, b *Book) {
	t.Helper()
	n := 0
	check(t, b.view(func(s state) error {
		for _, prefix := range [][]byte{prefixOutTrade, prefixOutRefund, prefixSpent, prefixWallet} {
			err := s.scan(prefix, nil, false, func(k, v []byte) (bool, error) {
				n++
				if !b.known.has(k) || bytes.Equal(prefix, prefixWallet) && !b.known.has(append(bytes.Clone(k), v...)) {
					t.Errorf("key of kind %q is not known", k[:1])
				}
				return true, nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	}))
	if at := b.known.reached(); n == 0 || at != b.Head() {
		t.Errorf("%d keys, known up to %d of %d", n, at.Sequence, b.Head().Sequence)
	}
}

// mixed makes a book with sales by both kinds of codes, refunds and offline payments, and answers what may not come again.
func mixed(t *testing.T, count int) (s *shop, sales []New, refunds []NewRefund) {
	s = newShop(t)
	for n := range count {
		o := s.online(n)
		if n%3 == 1 {
			o.Code.Wallet, o.Code.Counter = fmt.Appendf(nil, "wallet key %021d", n%7), uint32(n+1)
			o.Code.MostFen, o.Code.Token = 2000, []byte("8 bytes.")
		}
		p, _, err := s.OpenTrade(ctx, o)
		s.must(p, err)
		sales = append(sales, o)
		p = s.must(s.Answer(ctx, s.paid(p)))
		if n%4 == 2 {
			r := NewRefund{OutRefundNo: fmt.Sprint("R", n), TradeNo: p.TradeNo, RefundFen: 50, BodyHash: []byte{1}}
			_, _, err := s.OpenRefund(ctx, r)
			check(t, err)
			refunds = append(refunds, r)
		}
		s.pass(time.Second)
	}
	return s, sales, refunds
}

// TestTheJournalsKeysAreKnownAfterEveryWayOfOpening stops cleanly, is killed with and without a saved filter, and rebuilds.
func TestTheJournalsKeysAreKnownAfterEveryWayOfOpening(t *testing.T) {
	s, _, _ := mixed(t, 40)
	knowsAll(t, s.Book)
	for name, open := range map[string]func() Options{
		"a kill":  func() Options { return crashed(t, s) },
		"a stop":  func() Options { check(t, s.Close()); s.open(); o := crashed(t, s); return o },
		"no file": func() Options { o := crashed(t, s); remove(t, o.Dir, "known-*"); return o },
		"a filter without a cache": func() Options {
			o := crashed(t, s)
			remove(t, o.Dir, "MANIFEST")
			return o
		},
		"neither": func() Options {
			o := crashed(t, s)
			check(t, os.RemoveAll(filepath.Join(o.Dir, "cache")))
			return o
		},
	} {
		s.reopen()
		s.must(s.Answer(ctx, s.paid(s.sell(1000+len(name)))))
		b, err := Open(ctx, open())
		check(t, err)
		check(t, b.Err())
		knowsAll(t, b)
		check(t, b.Close())
	}
}

// spoilTables overwrites a part of every table's blocks in place, under whoever has them open. The index stays: it is in memory.
func spoilTables(t *testing.T, dir string, rng *rand.Rand) {
	t.Helper()
	each(t, dir, "*.sst", func(path string) {
		raw, err := os.ReadFile(path)
		check(t, err)
		sums := binary.BigEndian.Uint32(raw[len(raw)-4:])
		blocks := len(raw) - 8 - int(sums)
		blocks -= int(binary.BigEndian.Uint32(raw[blocks : blocks+4]))
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		check(t, err)
		noise := make([]byte, 1+rng.IntN(blocks))
		if rng.IntN(3) > 0 {
			for i := range noise {
				noise[i] = byte(rng.Uint32())
			}
		}
		_, err = f.WriteAt(noise, int64(rng.IntN(blocks-len(noise)+1)))
		check(t, errors.Join(err, f.Close()))
	})
}

// TestNotFoundNeverComesFromDamage spoils the tables under an open book, and then sells and refunds under every number and
// with every code again: none is ever new. The book that meets the damage seals itself, and the next start is right.
func TestNotFoundNeverComesFromDamage(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 1))
	s, sales, refunds := mixed(t, 300)
	check(t, s.Close())
	sealed, right := 0, 0
	for range amount(10, 300) {
		o := crashed(t, s)
		b, err := Open(ctx, o)
		check(t, err)
		spoilTables(t, o.Dir, rng)
		for range 20 {
			if b.Err() != nil {
				break
			}
			if err := againIn(b, sales[rng.IntN(len(sales))], refunds[rng.IntN(len(refunds))], rng.IntN(4)); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			right++
		}
		if b.Err() != nil {
			sealed++
		}
		o = ended(t, b, o)
		opensRight(t, o)
		check(t, os.RemoveAll(o.Dir))
	}
	if sealed == 0 {
		t.Error("no book ever met the damage")
	}
	t.Logf("seed %d: %d books sealed themselves, %d questions before", seed, sealed, right)
}

// ended closes a book. One that sealed itself leaves Badger after half a second, as it is: its directory is copied then,
// because Badger may still write there and no process that died does.
func ended(t *testing.T, b *Book, o Options) Options {
	t.Helper()
	err := b.Close()
	if errors.Is(err, errApplySlow) {
		o.Dir = copyBook(t, o.Dir)
		return o
	}
	check(t, err)
	return o
}

// againIn repeats what the book has taken. It fails where the answer says that it is new.
func againIn(b *Book, n New, r NewRefund, how int) error {
	refused := func(err error) error {
		if errors.Is(err, ErrSealed) {
			return nil
		}
		return err
	}
	switch how {
	case 0: // the same request
		if _, replayed, err := b.OpenTrade(ctx, n); err != nil || !replayed {
			return refused(errors.Join(err, isNew(err, "a sale")))
		}
		return nil
	case 1: // the same code under another number
		n.OutTradeNo = NewTradeNo(time.Now())
	case 2: // another code with the same counter of the same wallet
		if n.OutTradeNo = NewTradeNo(time.Now()); len(n.Code.Wallet) == 0 {
			return nil
		}
		code := *n.Code
		code.Text, n.Code = NewTradeNo(time.Now()), &code
	case 3:
		if _, replayed, err := b.OpenRefund(ctx, r); err != nil || !replayed {
			return refused(errors.Join(err, isNew(err, "a refund")))
		}
		return nil
	}
	p, _, err := b.OpenTrade(ctx, n)
	if err == nil && p.Reason != payment.ReasonCodeReplayed {
		err = fmt.Errorf("a spent code or counter was taken: %s %s", p.State, p.Reason)
	}
	return refused(err)
}

func isNew(err error, what string) error {
	if err == nil {
		return fmt.Errorf("%s that is known was taken as new", what)
	}
	return nil
}

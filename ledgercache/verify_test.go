package ledgercache

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"yupos/ledgercache/journal"
	"yupos/ledgercache/payment"
)

// traded is a shop with sales in several states, closed.
func traded(t *testing.T) *shop {
	s := newShop(t)
	for n := range 12 {
		p := s.sell(n)
		switch n % 3 {
		case 0:
			s.must(s.Answer(ctx, s.paid(p)))
		case 1:
			s.must(s.Answer(ctx, payment.Answered{TradeNo: p.TradeNo, To: payment.OpPay, State: payment.PayError, Attempt: 1, Reason: "INSUFFICIENT_BALANCE"}))
		}
	}
	check(t, s.Close())
	return s
}

func TestAGoodBookIsProvedWithoutChangingAByte(t *testing.T) {
	s := traded(t)
	before := tree(t, s.opts.Dir)
	told := map[string]bool{}
	p, err := Verify(ctx, s.opts, func(what string, _, _ uint64) { told[what] = true })
	if err != nil || !p.Good() || p.Cache != CacheAgrees || p.Running {
		t.Fatalf("%+v, %v", p, err)
	}
	if p.States[payment.Success].Count != 4 || p.States[payment.Success].Fen != 4*1250 || p.States[payment.PayError].Count != 4 || p.Books.Trades != 12 {
		t.Errorf("%+v", p.States)
	}
	if p.Position.Sequence != p.Journal.Records || len(p.Position.Head) != 64 || !told["keys"] || !told["balances"] {
		t.Errorf("%+v, told %v", p.Position, told)
	}
	for path, content := range tree(t, s.opts.Dir) {
		if before[path] != content {
			t.Errorf("%s was changed", path)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "yupos-verify-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestABookInUseIsProvedFromACopyOfItsJournal(t *testing.T) {
	s := newShop(t)
	for n := range 5 {
		s.must(s.Answer(ctx, s.paid(s.sell(n))))
	}
	p, err := Verify(ctx, s.opts, nil)
	if err != nil || !p.Running || p.Cache != CacheAgrees || !p.Good() || len(p.Wrong) > 0 || p.States[payment.Success].Count != 5 {
		t.Fatalf("%+v, %v", p, err)
	}
	s.sell(9)
}

func TestEveryDifferenceOfTheCacheIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*badger.Txn) error
		want  string
	}{
		"another value": {func(txn *badger.Txn) error { return txn.Set(keyShift, make([]byte, 16)) }, "another value"},
		"a key more":    {func(txn *badger.Txn) error { return txn.Set(key(prefixSpent, []byte("x")), nil) }, "should not be"},
		"a key less":    {func(txn *badger.Txn) error { return txn.Delete(key(prefixOutTrade, []byte("A000003"))) }, "missing"},
		"an older mark": {func(txn *badger.Txn) error {
			var m appliedMark
			if err := get(onDisk{txn}, keyApplied, &m); err != nil {
				return err
			}
			m.Sequence--
			return put(onDisk{txn}, keyApplied, m)
		}, "of another history"},
	} {
		t.Run(name, func(t *testing.T) {
			s := traded(t)
			db, err := openCache(s.cacheDir(), s.opts.Key)
			check(t, err)
			check(t, db.Update(c.spoil))
			check(t, db.Close())
			p, err := Verify(ctx, s.opts, nil)
			if err != nil || p.Good() || p.Cache != CacheDiffers || len(p.Wrong) == 0 || !strings.Contains(strings.Join(p.Wrong, "\n"), c.want) {
				t.Errorf("%v %q, %v", p.Cache, p.Wrong, err)
			}
		})
	}
}

func TestADamagedJournalIsNamedAndAnotherKeyProvesNothing(t *testing.T) {
	s := traded(t)
	other := s.opts
	other.Key[0]++
	if _, err := Verify(ctx, other, nil); !errors.Is(err, journal.ErrKey) {
		t.Errorf("another key: %v", err)
	}
	if _, err := Verify(ctx, Options{Dir: t.TempDir(), Key: s.opts.Key, TerminalID: s.opts.TerminalID}, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("no book: %v", err)
	}
	segment := filepath.Join(s.opts.Dir, "journal", "0000000001.seg")
	raw, err := os.ReadFile(segment)
	check(t, err)
	raw[5000] ^= 1
	check(t, os.WriteFile(segment, raw, 0o600))
	p, err := Verify(ctx, s.opts, nil)
	var damage *journal.Damage
	if err != nil || p.Good() || !errors.As(p.Journal.Problem, &damage) || damage.Segment != 1 {
		t.Errorf("%+v, %v", p.Journal, err)
	}
}

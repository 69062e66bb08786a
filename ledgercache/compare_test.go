package ledgercache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"yupos/ledgercache/payment"
)

// waits says how much of the disk is free, so that a comparison has no room while *short.
func waits(o *Options, short *bool) {
	o.Reserve = 1 << 20
	o.Free = func(string) (uint64, error) {
		if *short {
			return 2 * limitsOf(o.Reserve).first, nil
		}
		return 1 << 40, nil
	}
}

// missing is what stands between the shop and an offline payment, and what a customer is told who offers one.
func missing(t *testing.T, b *Book, n int) (named bool, told payment.Reason) {
	t.Helper()
	list, err := b.MissingOffline(b.now(), goodClock)
	check(t, err)
	c := Signed{Text: fmt.Sprint("signed", n), Wallet: []byte{1}, Token: make([]byte, 8), Counter: uint32(n), MostFen: 100, ScannedAt: b.now()}
	p, _, err := b.OpenOffline(ctx, New{OutTradeNo: fmt.Sprint("F", n), Mode: payment.ByCode, TotalFen: 1, OperatorID: "op1"}, c, goodClock)
	check(t, err)
	return slices.Contains(list, payment.ReasonBookChecking), p.Reason
}

// TestAfterAnUncleanStopOfflineAcceptanceWaitsUntilTheCacheIsCompared opens what a kill left while there is no room to compare:
// it sells online and nothing else, also after a clean stop, until the comparison went through.
func TestAfterAnUncleanStopOfflineAcceptanceWaitsUntilTheCacheIsCompared(t *testing.T) {
	s, _, _ := mixed(t, 40)
	<-s.Checked() // a book that was made here has nothing behind it
	s.reopen()
	<-s.Checked() // nor has one that was stopped cleanly
	o, short := crashed(t, s), true
	waits(&o, &short)
	killed := &shop{t: t, opts: o, now: s.now}
	t.Cleanup(func() { killed.Close() })
	for n := range 2 { // killed, and stopped cleanly before it was compared
		killed.open()
		if p := killed.sell(2000 + n); p.State != payment.Unknown {
			t.Fatalf("an online sale: %+v", p)
		}
		if named, told := missing(t, killed.Book, 10+n); !named || told != payment.ReasonBookChecking {
			t.Errorf("start %d: %v, %q", n, named, told)
		}
		check(t, killed.Close())
	}
	short = false
	killed.open()
	select {
	case <-killed.Checked():
	case <-killed.Failed():
		t.Fatal(killed.Err())
	}
	if named, told := missing(t, killed.Book, 20); named || told == payment.ReasonBookChecking {
		t.Errorf("after the comparison: %v, %q", named, told)
	}
	short = true
	killed.reopen()
	<-killed.Checked()
}

// tampered opens a cache beside its book and changes what its tables say, whole and with right sums.
func tampered(t *testing.T, o Options, change func(*badger.Txn) error) {
	t.Helper()
	db, err := openCache(filepath.Join(o.Dir, "cache"), o.Key)
	check(t, err)
	check(t, errors.Join(db.Update(change), db.Close()))
}

// TestAnyDifferenceBehindAnUncleanStopIsFoundWithoutAPerson changes or takes away one key of every kind in the tables of a
// cache that was not stopped cleanly: while the book is open the difference is found, and the next start is right.
func TestAnyDifferenceBehindAnUncleanStopIsFoundWithoutAPerson(t *testing.T) {
	s, _, _ := mixed(t, 40)
	s.reopen()
	kinds := map[string]string{}
	for k, v := range dump(t, folded(t, s.Book)) {
		kinds[k[:1]] = k
		_ = v
	}
	found := 0
	for kind, k := range kinds {
		for name, change := range map[string]func(*badger.Txn) error{
			"gone":  func(txn *badger.Txn) error { return txn.Delete([]byte(k)) },
			"other": func(txn *badger.Txn) error { return txn.Set([]byte(k+"+"), []byte{1}) },
		} {
			o := crashed(t, s)
			tampered(t, o, change)
			b, err := Open(ctx, o)
			if err == nil && b.Err() == nil {
				select {
				case <-b.Failed():
				case <-b.Checked():
					t.Errorf("key of kind %q, %s: not found", kind, name)
				}
				if !errors.Is(b.Err(), errCacheLies) {
					t.Errorf("key of kind %q, %s: %v", kind, name, b.Err())
				}
			}
			check(t, err)
			o = ended(t, b, o)
			opensRight(t, o)
			check(t, os.RemoveAll(o.Dir))
			found++
		}
	}
	t.Logf("%d differences in %d kinds of keys", found, len(kinds))
}

// TestAManifestCutAnywhereIsAnOlderMomentOrARebuild cuts the manifest of a cache with a long past at every length: tables then
// vanish without a word (storage.md 0.7), and what is left is one moment of the past, to which the journal is added.
func TestAManifestCutAnywhereIsAnOlderMomentOrARebuild(t *testing.T) {
	s := newShop(t)
	for n := range 8 {
		for i := range 5 {
			s.must(s.Answer(ctx, s.paid(s.sell(10*n+i))))
		}
		s.reopen()
	}
	o := crashed(t, s)
	path := filepath.Join(o.Dir, "cache", badger.ManifestFilename)
	whole, err := os.ReadFile(path)
	check(t, err)
	older, step := 0, 1
	if os.Getenv("YUPOS_FULL") == "" {
		step = 13
	}
	for length := 0; length < len(whole); length += step {
		c := o
		c.Dir = t.TempDir()
		copyTree(t, o.Dir+"/.", c.Dir)
		check(t, os.Truncate(filepath.Join(c.Dir, "cache", badger.ManifestFilename), int64(length)))
		b, err := Open(ctx, c)
		check(t, err)
		check(t, b.Err())
		check(t, b.view(func(disk state) error { sameState(t, dump(t, folded(t, b)), dump(t, disk)); return nil }))
		knowsAll(t, b)
		select {
		case <-b.Checked():
		case <-b.Failed():
			t.Errorf("cut to %d of %d: %v", length, len(whole), b.Err())
		}
		if _, err := os.Stat(filepath.Join(c.Dir, "cache.aside")); errors.Is(err, os.ErrNotExist) {
			older++
		}
		check(t, b.Close())
		check(t, os.RemoveAll(c.Dir))
	}
	t.Logf("%d lengths, %d opened without a rebuild", (len(whole)+step-1)/step, older)
}

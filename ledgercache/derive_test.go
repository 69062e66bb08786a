package ledgercache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"yupos/ledgercache/payment"
)

// derivesTheSame derives the state with so many bytes of memory and compares it with the cache, both ways of spilling in
// between included.
func derivesTheSame(b *Book, memory int) error {
	d, err := b.derive(ctx, plan{memory: memory, upto: b.journal.Head()})
	if err != nil {
		return err
	}
	err = b.db.View(func(txn *badger.Txn) error { return d.sameAs(ctx, txn) })
	return errors.Join(err, d.close())
}

// busy makes a book with sales, refunds and prints in every state.
func busy(t *testing.T, change func(*Options)) *shop {
	s := newShopWith(t, change)
	for n := range 60 {
		p := s.sell(n)
		if n%3 > 0 {
			p = s.must(s.Answer(ctx, s.paid(p)))
		}
		if n%6 == 1 {
			f, _, err := s.OpenRefund(ctx, NewRefund{OutRefundNo: fmt.Sprint("R", n), TradeNo: p.TradeNo, RefundFen: 50, BodyHash: []byte{1}})
			check(t, err)
			_, err = s.AnswerRefund(ctx, payment.RefundAnswered{RefundNo: f.RefundNo, State: payment.RefundSuccess, RefundFen: 50, At: s.clock()})
			check(t, err)
		}
	}
	return s
}

func TestADerivationFindsWhatItHasSpilled(t *testing.T) {
	s := busy(t, func(*Options) {})
	d, err := s.derive(ctx, plan{memory: 2 << 10, upto: s.journal.Head()})
	check(t, err)
	if len(d.runs) < 10 {
		t.Fatalf("only %d runs", len(d.runs))
	}
	want := dump(t, folded(t, s.Book))
	for k, v := range want {
		if got, err := d.get([]byte(k)); err != nil || string(got) != v {
			t.Errorf("key %x: %x, want %x, %v", k, got, v, err)
		}
	}
	if _, err := d.get([]byte("nothing")); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	sameState(t, want, dump(t, d))
	check(t, d.close())
	left, err := filepath.Glob(filepath.Join(s.opts.Dir, "spill-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestOneOtherByteInTheCacheIsADifference changes, takes away and adds every single key of a cache in turn.
func TestOneOtherByteInTheCacheIsADifference(t *testing.T) {
	s := busy(t, func(*Options) {})
	d, err := s.derive(ctx, plan{memory: deriveMemory, upto: s.journal.Head()})
	check(t, err)
	defer d.close()
	all := dump(t, folded(t, s.Book))
	tried := 0
	for k, v := range all {
		for name, spoil := range map[string]func(*badger.Txn) error{
			"gone":    func(txn *badger.Txn) error { return txn.Delete([]byte(k)) },
			"changed": func(txn *badger.Txn) error { return txn.Set([]byte(k), append([]byte{1}, v...)) },
			"added":   func(txn *badger.Txn) error { return txn.Set([]byte(k+"+"), []byte(v)) },
		} {
			txn := s.db.NewTransaction(true)
			check(t, spoil(txn))
			if err := d.sameAs(ctx, txn); !errors.Is(err, errCacheLies) {
				t.Fatalf("%s %x: %v", name, k, err)
			}
			txn.Discard()
			tried++
		}
	}
	check(t, s.db.View(func(txn *badger.Txn) error { return d.sameAs(ctx, txn) }))
	t.Logf("%d differences", tried)
}

// TestARebuildThatIsInterruptedBeginsAgain ends a rebuild by its context at many places, and then lets one through.
func TestARebuildThatIsInterruptedBeginsAgain(t *testing.T) {
	s := busy(t, func(*Options) {})
	check(t, s.Close())
	for range 3 {
		check(t, os.RemoveAll(filepath.Join(s.opts.Dir, "cache")))
		stopped, cancel := context.WithCancel(ctx)
		cancel()
		if b, err := Open(stopped, s.opts); err == nil {
			b.Close()
			t.Fatal("opened without a cache")
		}
	}
	check(t, os.MkdirAll(filepath.Join(s.opts.Dir, "cache.new"), 0o700))
	check(t, os.WriteFile(filepath.Join(s.opts.Dir, "cache.new", "MANIFEST"), []byte("half"), 0o600))
	opensRight(t, s.opts)
}

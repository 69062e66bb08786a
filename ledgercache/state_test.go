package ledgercache

import (
	"bytes"
	"fmt"
	"testing"

	"yupos/ledgercache/journal"
	"yupos/ledgercache/payment"
)

// dump is every key and value of a state, but for the marks that only the cache on disk has.
func dump(t *testing.T, s state) map[string]string {
	t.Helper()
	all, err := contents(s)
	check(t, err)
	return all
}

func contents(s state) (map[string]string, error) {
	all := map[string]string{}
	return all, s.scan(nil, nil, false, func(k, v []byte) (bool, error) {
		if !bytes.Equal(k, keyApplied) && !bytes.Equal(k, keyMeta) {
			all[string(k)] = string(v)
		}
		return true, nil
	})
}

// folded is the state that the journal alone gives.
func folded(t *testing.T, b *Book) state {
	t.Helper()
	s, err := foldedState(b)
	check(t, err)
	return s
}

func foldedState(b *Book) (state, error) {
	s := newInMemory()
	return s, b.journal.Read(1, func(_ uint64, _ journal.Head, raw []byte) error {
		r, err := decodeRecord(raw)
		if err == nil {
			_, err = fold(s, r)
		}
		return err
	})
}

// equalStates names a key that one of two states has otherwise.
func equalStates(want, have state) error {
	w, err := contents(want)
	if err != nil {
		return err
	}
	h, err := contents(have)
	if err != nil {
		return err
	}
	for k, v := range w {
		if got, ok := h[k]; !ok || got != v {
			return fmt.Errorf("key %q: %x, want %x", k, got, v)
		}
	}
	for k := range h {
		if _, ok := w[k]; !ok {
			return fmt.Errorf("key %q should not be there", k)
		}
	}
	return nil
}

func sameState(t *testing.T, want, have map[string]string) {
	t.Helper()
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			t.Errorf("key %x: %x, want %x", k, got, v)
		}
	}
	for k := range have {
		if _, ok := want[k]; !ok {
			t.Errorf("key %x should not be there", k)
		}
	}
}

func TestTheCacheHoldsWhatTheJournalAloneGives(t *testing.T) {
	s := newShop(t)
	for n := range 20 {
		p := s.sell(n)
		if n%2 == 0 {
			p = s.must(s.Answer(ctx, s.paid(p)))
		}
		if n%4 == 0 {
			f, _, err := s.OpenRefund(ctx, NewRefund{OutRefundNo: fmt.Sprint("R", n), TradeNo: p.TradeNo, RefundFen: 50, BodyHash: []byte{1}})
			check(t, err)
			_, err = s.AnswerRefund(ctx, payment.RefundAnswered{RefundNo: f.RefundNo, State: payment.RefundSuccess, RefundFen: 50, At: s.clock()})
			check(t, err)
		}
	}
	check(t, s.view(func(disk state) error { sameState(t, dump(t, folded(t, s.Book)), dump(t, disk)); return nil }))
}

func TestAStateIsScannedFromAKeyInBothDirectionsOnDiskAndInMemory(t *testing.T) {
	s := newShop(t)
	for n := range 5 {
		s.sell(n)
	}
	memory := folded(t, s.Book)
	check(t, s.view(func(disk state) error {
		for _, newestFirst := range []bool{false, true} {
			var want, have []string
			list := func(into *[]string) func(k, _ []byte) (bool, error) {
				return func(k, _ []byte) (bool, error) { *into = append(*into, string(k)); return len(*into) < 3, nil }
			}
			check(t, disk.scan(prefixDay, nil, newestFirst, list(&want)))
			check(t, memory.scan(prefixDay, nil, newestFirst, list(&have)))
			if len(want) != 3 || fmt.Sprint(want) != fmt.Sprint(have) {
				t.Errorf("newest first %v: %x on disk, %x in memory", newestFirst, want, have)
			}
			from := []byte(want[1])
			want, have = nil, nil
			check(t, disk.scan(prefixDay, from, newestFirst, list(&want)))
			check(t, memory.scan(prefixDay, from, newestFirst, list(&have)))
			if len(want) == 0 || want[0] != string(from) || fmt.Sprint(want) != fmt.Sprint(have) {
				t.Errorf("from a key, newest first %v: %x on disk, %x in memory", newestFirst, want, have)
			}
		}
		return nil
	}))
}

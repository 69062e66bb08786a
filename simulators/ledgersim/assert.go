package ledgersim

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dgraph-io/badger/v4"

	"yupos/ledgercache/money"
	"yupos/sync/wire"
)

// Assertion is the ledger's own proof: every fen has both its entries.
type Assertion struct {
	OK         bool     `json:"ok"`
	Violations []string `json:"violations"`
}

// effect is what the entries of one kind and reference did.
type effect struct {
	times    int
	customer money.Fen // that came into wallets
	fees     money.Fen // that came into the ledger's fees
}

// Assert proves the books: entries balance, balances are their sums, no wallet is negative, and each trade and refund has
// exactly the effects that its state says, to the fen. It reads everything, in one view of the store.
func (l *Ledger) Assert() (Assertion, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := Assertion{Violations: []string{}}
	err := l.db.View(func(txn *badger.Txn) error {
		entries, err := list[entry](txn, "entry/")
		if err != nil {
			return err
		}
		sums, effects := a.entries(entries)
		if err := a.balances(txn, sums); err != nil {
			return err
		}
		return a.trades(txn, effects)
	})
	a.OK = err == nil && len(a.Violations) == 0
	return a, err
}

func (a *Assertion) violate(format string, args ...any) {
	a.Violations = append(a.Violations, fmt.Sprintf(format, args...))
}

// entries checks every entry by itself and answers the sums by account and the effects by kind and reference.
func (a *Assertion) entries(entries []entry) (map[string]money.Fen, map[string]effect) {
	sums, effects := map[string]money.Fen{}, map[string]effect{}
	for i, e := range entries {
		if e.Number != uint64(i+1) {
			a.violate("entry %d stands at place %d", e.Number, i+1)
		}
		var sum money.Fen
		done := effects[e.Kind+" "+e.Ref]
		done.times++
		for _, n := range e.Lines {
			sum += n.Fen
			sums[n.Account] += n.Fen
			if strings.HasPrefix(n.Account, "wallet:") {
				done.customer += n.Fen
			}
			if n.Account == accountFees {
				done.fees += n.Fen
			}
		}
		if sum != 0 {
			a.violate("entry %d (%s %s) leaves %d fen", e.Number, e.Kind, e.Ref, sum)
		}
		effects[e.Kind+" "+e.Ref] = done
	}
	for _, what := range slices.Sorted(maps.Keys(effects)) {
		if effects[what].times > 1 {
			a.violate("%s has %d effects", what, effects[what].times)
		}
	}
	return sums, effects
}

// balances checks every account that is stored or was ever moved.
func (a *Assertion) balances(txn *badger.Txn, sums map[string]money.Fen) error {
	stored := map[string]money.Fen{}
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte("balance/")})
	for it.Rewind(); it.Valid(); it.Next() {
		stored[strings.TrimPrefix(string(it.Item().Key()), "balance/")] = 0
	}
	it.Close()
	for account := range stored {
		balance, err := balanceOf(txn, account)
		if err != nil {
			return err
		}
		stored[account] = balance
	}
	for account := range sums {
		stored[account] += 0
	}
	for _, account := range slices.Sorted(maps.Keys(stored)) {
		if stored[account] != sums[account] {
			a.violate("%s holds %d fen, its entries say %d", account, stored[account], sums[account])
		}
		if stored[account] < 0 && strings.HasPrefix(account, "wallet:") {
			a.violate("%s is %d fen below zero", account, -stored[account])
		}
	}
	return nil
}

// trades checks that each trade, and each of its refunds, has the effects that the ledger says it has, and that no effect
// is left over.
func (a *Assertion) trades(txn *badger.Txn, effects map[string]effect) error {
	trades, err := list[trade](txn, "trade/")
	if err != nil {
		return err
	}
	guaranteed := map[string]bool{} // paid by the ledger's guarantee: no customer's money moved
	for _, t := range trades {
		guaranteed[t.ref()] = t.Bearer == wire.BearerLedger
	}
	refunded, feeBack, err := a.refunds(txn, effects, guaranteed)
	if err != nil {
		return err
	}
	for _, t := range trades {
		var pay, back effect
		customer := t.PaidFen
		if guaranteed[t.ref()] {
			customer = 0
		}
		if paid := !t.PaidAt.IsZero(); paid && (t.State == wire.StateSuccess || t.State == wire.StateRevoked) {
			pay = effect{1, -customer, t.FeeFen}
			if t.State == wire.StateRevoked {
				back = effect{1, customer, -t.FeeFen}
			}
		} else if t.State == wire.StateSuccess {
			a.violate("trade %s is SUCCESS and was never paid", t.ref())
		}
		a.expect(effects, "pay "+t.ref(), pay)
		a.expect(effects, "reverse "+t.ref(), back)
		if t.RefundedFen > t.PaidFen || t.RefundedFen != refunded[t.ref()] {
			a.violate("trade %s: %d fen refunded of %d, its refunds say %d", t.ref(), t.RefundedFen, t.PaidFen, refunded[t.ref()])
		}
		if t.FeeBackFen > t.FeeFen || t.FeeBackFen != feeBack[t.ref()] {
			a.violate("trade %s: %d fen of the fee returned of %d, its refunds say %d", t.ref(), t.FeeBackFen, t.FeeFen, feeBack[t.ref()])
		}
	}
	for _, what := range slices.Sorted(maps.Keys(effects)) {
		if !strings.HasPrefix(what, "open ") {
			a.violate("%s belongs to nothing", what)
		}
	}
	return nil
}

// refunds checks every refund and answers, by trade, what they gave back of the payment and of the fee.
func (a *Assertion) refunds(txn *badger.Txn, effects map[string]effect, guaranteed map[string]bool) (refunded, feeBack map[string]money.Fen, err error) {
	refunded, feeBack = map[string]money.Fen{}, map[string]money.Fen{}
	all, err := list[storedRefund](txn, "refund/")
	for _, r := range all {
		var want effect
		if r.Answer.State == wire.RefundSuccess {
			want = effect{1, r.Answer.RefundFen, -r.Answer.FeeBackFen}
			ref := r.TerminalID + "/" + r.Asked.TradeNo
			if guaranteed[ref] {
				want.customer = 0
			}
			refunded[ref] += r.Answer.RefundFen
			feeBack[ref] += r.Answer.FeeBackFen
		}
		a.expect(effects, "refund "+r.TerminalID+"/"+r.Asked.RefundNo, want)
	}
	return refunded, feeBack, err
}

// expect compares one effect with what it should be and takes it off the list.
func (a *Assertion) expect(effects map[string]effect, what string, want effect) {
	if got := effects[what]; got != want {
		a.violate("%s happened %d times (customer %d, fees %d), want %d (%d, %d)", what, got.times, got.customer, got.fees, want.times, want.customer, want.fees)
	}
	delete(effects, what)
}

package ledgersim

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"

	"yupos/ledgercache/money"
)

// The accounts beside wallet:PHONE and merchant:ID.
const (
	accountBank = "bank" // where the customers' money came from
	accountFees = "fees"
)

func walletAccount(phone string) string { return "wallet:" + phone }
func merchantAccount(id string) string  { return "merchant:" + id }

// line is one side of an entry: positive fen come into the account.
type line struct {
	Account string    `json:"account"`
	Fen     money.Fen `json:"fen"`
}

// entry is one balanced set: its lines sum to zero.
type entry struct {
	Number uint64    `json:"number"`
	At     time.Time `json:"at"`
	Kind   string    `json:"kind"` // open, pay, reverse, refund
	Ref    string    `json:"ref"`  // trade or refund, with its terminal
	Lines  []line    `json:"lines"`
}

var errUnbalanced = errors.New("ledgersim: entry does not balance")

func entryKey(n uint64) string { return fmt.Sprintf("entry/%020d", n) }

// post writes a balanced entry and moves the balances. No wallet goes below zero.
func (l *Ledger) post(txn *badger.Txn, kind, ref string, lines ...line) error {
	var sum money.Fen
	for _, n := range lines {
		var err error
		if sum, err = money.Add(sum, n.Fen); err != nil {
			return err
		}
	}
	if sum != 0 {
		return fmt.Errorf("%w: %s %s leaves %d fen", errUnbalanced, kind, ref, sum)
	}
	var number uint64
	if err := get(txn, "next-entry", &number); err != nil && !errors.Is(err, errNone) {
		return err
	}
	number++
	if err := put(txn, "next-entry", number); err != nil {
		return err
	}
	for _, n := range lines {
		balance, err := balanceOf(txn, n.Account)
		if err != nil {
			return err
		}
		if balance, err = money.Add(balance, n.Fen); err != nil {
			return err
		}
		if balance < 0 && strings.HasPrefix(n.Account, "wallet:") {
			return refusal("INSUFFICIENT_BALANCE")
		}
		if err := put(txn, "balance/"+n.Account, balance); err != nil {
			return err
		}
	}
	return put(txn, entryKey(number), entry{Number: number, At: l.now(), Kind: kind, Ref: ref, Lines: lines})
}

func balanceOf(txn *badger.Txn, account string) (f money.Fen, err error) {
	if err = get(txn, "balance/"+account, &f); errors.Is(err, errNone) {
		return 0, nil
	}
	return f, err
}

// Assertion is the ledger's own proof: every fen has both its entries.
type Assertion struct {
	OK         bool     `json:"ok"`
	Violations []string `json:"violations"`
}

// Assert proves the books: entries balance, balances are their sums, no wallet is negative, each trade has exactly the
// effects that its state says.
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
func (a *Assertion) entries(entries []entry) (map[string]money.Fen, map[string]int) {
	sums, effects := map[string]money.Fen{}, map[string]int{}
	for i, e := range entries {
		if e.Number != uint64(i+1) {
			a.violate("entry %d stands at place %d", e.Number, i+1)
		}
		var sum money.Fen
		for _, n := range e.Lines {
			sum += n.Fen
			sums[n.Account] += n.Fen
		}
		if sum != 0 {
			a.violate("entry %d (%s %s) leaves %d fen", e.Number, e.Kind, e.Ref, sum)
		}
		effects[e.Kind+" "+e.Ref]++
	}
	for _, what := range slices.Sorted(maps.Keys(effects)) {
		if effects[what] > 1 {
			a.violate("%s has %d effects", what, effects[what])
		}
	}
	return sums, effects
}

func (a *Assertion) balances(txn *badger.Txn, sums map[string]money.Fen) error {
	for _, account := range slices.Sorted(maps.Keys(sums)) {
		balance, err := balanceOf(txn, account)
		if err != nil {
			return err
		}
		if balance != sums[account] {
			a.violate("%s holds %d fen, its entries say %d", account, balance, sums[account])
		}
		if balance < 0 && strings.HasPrefix(account, "wallet:") {
			a.violate("%s is %d fen below zero", account, -balance)
		}
	}
	return nil
}

func (a *Assertion) trades(txn *badger.Txn, effects map[string]int) error {
	trades, err := list[trade](txn, "trade/")
	if err != nil {
		return err
	}
	for _, t := range trades {
		paid, reversed := effects["pay "+t.ref()], effects["reverse "+t.ref()]
		wantPaid, wantReversed := 0, 0
		switch t.State {
		case "SUCCESS":
			wantPaid = 1
		case "REVOKED":
			wantPaid, wantReversed = 1, 1
		}
		if paid != wantPaid || reversed != wantReversed {
			a.violate("trade %s is %s with %d payments and %d reversals", t.ref(), t.State, paid, reversed)
		}
		if t.RefundedFen > t.PaidFen {
			a.violate("trade %s: %d fen refunded of %d", t.ref(), t.RefundedFen, t.PaidFen)
		}
	}
	return nil
}

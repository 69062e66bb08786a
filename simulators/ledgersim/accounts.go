package ledgersim

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"

	"yupos/ledgercache/money"
)

// The accounts beside wallet:PHONE and merchant:ID.
const (
	accountBank = "bank" // where the customers' money came from
	accountFees = "fees"
	// accountGuarantee is what the ledger pays for offline payments that the terminal took by the rules.
	accountGuarantee = "guarantee"
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
	after := map[string]money.Fen{} // judged whole before anything is written: a refusal is recorded in the same transaction
	for _, n := range lines {
		balance, known := after[n.Account]
		var err error
		if !known {
			if balance, err = balanceOf(txn, n.Account); err != nil {
				return err
			}
		}
		if after[n.Account], err = money.Add(balance, n.Fen); err != nil {
			return err
		}
	}
	for account, balance := range after {
		if balance < 0 && strings.HasPrefix(account, "wallet:") {
			return refusal("INSUFFICIENT_BALANCE")
		}
	}
	var number uint64
	if err := get(txn, "next-entry", &number); err != nil && !errors.Is(err, errNone) {
		return err
	}
	number++
	if err := put(txn, "next-entry", number); err != nil {
		return err
	}
	for account, balance := range after {
		if err := put(txn, "balance/"+account, balance); err != nil {
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

package ledgercache

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
	"yupos/ledgercache/trust"
)

// This file holds the acceptance of a payment on signed evidence alone (codes.md, SIGNED and ACCEPT): everything that the
// decision reads, the decision, the evidence and what it spends are one step of the book.

// ErrNoSigner says that the book was opened without the terminal's key: it accepts nothing offline.
var ErrNoSigner = errors.New("ledgercache: no key to sign evidence with")

// Signed is a SIGNED code as far as the code itself can be judged: steps 1 to 6 of codes.md, at the time of its scan.
type Signed struct {
	Text      string
	Refused   payment.Reason // what steps 1 to 6 found, "" when the code is good; then the rest may be empty
	Hash      [32]byte       // SHA-256 of the decoded bytes
	Wallet    []byte         // public key
	Token     []byte         // 8 bytes
	Counter   uint32
	MostFen   money.Fen // C4
	ScannedAt time.Time

	CertPaymentFen   money.Fen
	CertAllowanceFen money.Fen
	CertCount        int
}

// Clock is what the terminal knows of its own time.
type Clock struct {
	Trusted bool
	Error   time.Duration // its bound, at most
	Source  trust.Source
	Fault   trust.ClockFault // why it is not trusted
	Ahead   time.Duration    // of the machine's own clock
}

// ClockOf is what a moment of the terminal's clock says.
func ClockOf(m trust.Moment) Clock {
	return Clock{Trusted: m.Trusted(), Error: m.Error, Source: m.Source, Fault: m.Fault, Ahead: m.WallAhead}
}

// Acceptance is what the ACCEPT evidence says (codes.md); whoever signs it makes the bytes.
type Acceptance struct {
	Converted     bool // after a missing answer
	TotalFen      money.Fen
	At            time.Time
	ClockError    time.Duration
	TradeNo       string
	CodeHash      [32]byte
	PolicyVersion uint32
	DenyVersion   uint32
	Sequence      uint64   // of the batch that it is in
	Head          [32]byte // before that batch
}

// Policy is the ledger's signed rule for taking payments offline, as the book holds it.
type Policy struct {
	Version  uint32         `cbor:"1,keyasint"`
	IssuedAt time.Time      `cbor:"2,keyasint"`
	Until    time.Time      `cbor:"3,keyasint"`
	Limits   payment.Limits `cbor:"4,keyasint"`
	// How old a code may be and how far ahead of the clock, in seconds.
	CodeSeconds int `cbor:"5,keyasint"`
	SkewSeconds int `cbor:"6,keyasint"`
}

// DenyList is the head of the list of wallets that may not pay offline, as the book holds it.
type DenyList struct {
	Version  uint32    `cbor:"1,keyasint"`
	IssuedAt time.Time `cbor:"2,keyasint"`
	Until    time.Time `cbor:"3,keyasint"`
	Count    int       `cbor:"4,keyasint"`
	Hash     string    `cbor:"5,keyasint"` // SHA-256 of the whole list, hex
}

// Policy is the policy in force, the zero Policy before the ledger has sent one.
func (b *Book) Policy() (p Policy, err error) {
	err = b.view(func(s state) error { p, err = policyOf(s); return err })
	return p, err
}

// DenyList is the head of the deny list in force, the zero DenyList before the ledger has sent one.
func (b *Book) DenyList() (d DenyList, err error) {
	err = b.view(func(s state) error { d, err = denyListOf(s); return err })
	return d, err
}

func policyOf(s state) (p Policy, err error) {
	if err := get(s, keyPolicy, &p); err != nil && !errors.Is(err, ErrNotFound) {
		return p, err
	}
	return p, nil
}

func denyListOf(s state) (d DenyList, err error) {
	if err := get(s, keyDenyList, &d); err != nil && !errors.Is(err, ErrNotFound) {
		return d, err
	}
	return d, nil
}

func present(s state, k []byte) (bool, error) {
	_, err := s.get(k)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// OfflineLimits are what the terminal may take offline now: the strictest of policy and configuration.
func (b *Book) OfflineLimits() (l payment.Limits, err error) {
	err = b.view(func(s state) error {
		p, err := policyOf(s)
		l = b.limits(p)
		return err
	})
	return l, err
}

func (b *Book) limits(p Policy) payment.Limits {
	configured := b.opts.Limits
	if configured == (payment.Limits{}) {
		configured = payment.DefaultLimits
	}
	if p.Version == 0 {
		return configured
	}
	return configured.Stricter(p.Limits)
}

// OpenOffline opens a trade by a SIGNED code while the line is down and takes it or refuses it by name, in one step, with
// its paper. A repeat of the same request answers the recorded trade. It fails as OpenTrade does, and with ErrNoSigner.
func (b *Book) OpenOffline(ctx context.Context, n New, c Signed, clock Clock) (p payment.Payment, replayed bool, err error) {
	n.Code, n.Reject, n.Foreign = nil, "", ""
	if err := b.checkNew(&n); err != nil {
		return p, false, err
	}
	err = b.do(ctx, func(t *tx) error {
		if p, replayed, err = t.openTrade(n); err != nil || replayed {
			return err
		}
		p, err = t.takeOffline(p, c, clock, "")
		return err
	})
	return p, replayed, err
}

// AcceptOffline takes a trade on its SIGNED code alone: the one at the counter whose code was scanned while the line was
// down, or, by the operator's explicit wish, one that was sent and not answered (转离线受理). A refusal at the counter
// leaves the trade waiting for another code; a refused conversion leaves the trade as it is and is answered as a Refused.
func (b *Book) AcceptOffline(ctx context.Context, tradeNo string, c Signed, clock Clock, operator string) (p payment.Payment, err error) {
	var refused error
	err = b.do(ctx, func(t *tx) error {
		refused = nil
		if p, err = t.byTradeNo(tradeNo); err != nil {
			return err
		}
		if p.State == payment.Unknown || p.State == payment.UserPaying {
			var why payment.Reason
			p, why, err = t.convert(p, c, clock, operator)
			if why != "" {
				refused = &Refused{why}
			}
			return err
		}
		p, err = t.takeOffline(p, c, clock, operator)
		return err
	})
	return p, cmp.Or(err, refused)
}

// Refused is a conversion that was refused by name. The trade is as it was.
type Refused struct{ Reason payment.Reason }

// Error names the reason.
func (r *Refused) Error() string { return "ledgercache: not accepted offline: " + string(r.Reason) }

// takeOffline decides on a trade that nothing was sent for.
func (t *tx) takeOffline(p payment.Payment, c Signed, clock Clock, operator string) (payment.Payment, error) {
	why, a, err := t.decideOffline(p, c, clock, false)
	if err != nil {
		return p, err
	}
	if why != "" {
		if err := t.emit(recRejected, payment.Rejected{TradeNo: p.TradeNo, Reason: why}); err != nil {
			return p, err
		}
		return t.byTradeNo(p.TradeNo)
	}
	return t.accept(p, c, a, operator)
}

// convert decides on a trade that was sent and not answered. Whether a reversal has started is judged first, in the same
// step in which the acceptance is journalled: the two exclude each other.
func (t *tx) convert(p payment.Payment, c Signed, clock Clock, operator string) (payment.Payment, payment.Reason, error) {
	switch {
	case p.Reversing || p.ReversalStarted():
		return p, payment.ReasonReversalStarted, nil
	case !p.Convertible() || p.Code != c.Text:
		return p, payment.ReasonNotConvertible, nil
	}
	why, a, err := t.decideOffline(p, c, clock, true)
	if err != nil || why != "" {
		return p, why, err
	}
	p, err = t.accept(p, c, a, operator)
	return p, "", err
}

// MissingOffline is what stands between this terminal and any offline payment at the time now: nothing when it could sell
// offline. What depends on the customer's code is not looked at.
func (b *Book) MissingOffline(now time.Time, clock Clock) (missing []payment.Reason, err error) {
	g := b.oldest.look()
	err = b.view(func(s state) error {
		k, _, _, err := b.terminalCase(s, &g, true, now, clock)
		if err != nil {
			return err
		}
		missing = payment.MissingOffline(k)
		return nil
	})
	return missing, err
}

// terminalCase is what a decision looks at that does not depend on the customer.
func (b *Book) terminalCase(s state, g *glimpse, committed bool, now time.Time, clock Clock) (k payment.Case, policy Policy, deny DenyList, err error) {
	if policy, err = policyOf(s); err != nil {
		return k, policy, deny, err
	}
	if deny, err = denyListOf(s); err != nil {
		return k, policy, deny, err
	}
	k = payment.Case{
		Now: now, BookChecking: !b.isChecked(), ClockTrusted: clock.Trusted, ClockError: clock.Error, Limits: b.limits(policy),
		PolicyAt: policy.IssuedAt, PolicyUntil: policy.Until, DenyAt: deny.IssuedAt, DenyUntil: deny.Until,
	}
	if k.BookUnconfirmed, err = b.unconfirmed(s); err != nil {
		return k, policy, deny, err
	}
	k.Terminal, err = b.terminalExposure(s, g, committed)
	return k, policy, deny, err
}

// unconfirmed reports whether the book began a new epoch, as it does when it is restored or imported, and the ledger holds
// no head of it yet: then another machine may be selling with the same book.
func (b *Book) unconfirmed(s state) (bool, error) {
	if _, ok := b.Base(); !ok {
		return false, nil
	}
	var held Cursor
	if err := get(s, keyCursor, &held); err != nil && !errors.Is(err, ErrNotFound) {
		return false, err
	}
	return held.Epoch != b.Position().Epoch, nil
}

// decideOffline reads everything that the decision looks at, and decides.
func (t *tx) decideOffline(p payment.Payment, c Signed, clock Clock, converting bool) (payment.Reason, Acceptance, error) {
	k, policy, deny, err := t.book.terminalCase(t.state, t.glimpse(), len(t.moved) == 0, c.ScannedAt, clock)
	if err != nil {
		return "", Acceptance{}, err
	}
	k.ClockTrusted = k.ClockTrusted && !t.at.Before(t.book.lastAt.Add(-clock.Error))
	k.TotalFen, k.Code, k.MostFen, k.Converting = p.TotalFen, c.Refused, c.MostFen, converting
	k.CertPaymentFen, k.CertAllowanceFen, k.CertCount = c.CertPaymentFen, c.CertAllowanceFen, c.CertCount
	if c.Refused == "" {
		if err := t.readCase(&k, p, c); err != nil {
			return "", Acceptance{}, err
		}
	}
	head := t.book.journal.Head()
	return payment.DecideOffline(k), Acceptance{
		Converted: converting, TotalFen: p.TotalFen, At: t.at, ClockError: clock.Error, TradeNo: p.TradeNo, CodeHash: c.Hash,
		PolicyVersion: policy.Version, DenyVersion: deny.Version, Sequence: head.Sequence + 1, Head: head.Hash,
	}, nil
}

// readCase reads what the book knows of this wallet and of this terminal.
func (t *tx) readCase(k *payment.Case, p payment.Payment, c Signed) (err error) {
	if !k.Converting { // the payment's own code does not count against itself
		if k.Replayed, err = t.replayed(c.Text, c.Wallet, c.Counter); err != nil {
			return err
		}
	}
	if k.Blocked, err = denied(t.state, c.Token); err != nil {
		return err
	}
	if k.CertUsed, err = exposureAt(t.state, key(prefixCertUsed, c.Wallet)); err != nil {
		return err
	}
	k.Wallet, err = exposureAt(t.state, key(prefixWalletOpen, c.Wallet))
	return err
}

// replayed is step 7 of codes.md: this code, or this counter or a higher one, was submitted or accepted here. That it was
// not is believed only where the journal has not told it.
func (t *tx) replayed(text string, wallet []byte, counter uint32) (bool, error) {
	hash := sha256.Sum256([]byte(text))
	if spent, err := present(t.state, key(prefixSpent, hash[:])); err != nil || spent {
		return spent, err
	}
	if len(wallet) == 0 {
		return false, nil
	}
	highest, err := t.state.get(key(prefixWallet, wallet))
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false, err
	}
	if len(highest) == 4 && counter <= binary.BigEndian.Uint32(highest) {
		return true, nil
	}
	if used := counterKey(wallet, counter); t.book.known.has(used) { // but the cache has an older value
		return false, t.book.doubt(used)
	}
	return false, nil
}

// accept signs the evidence and journals the acceptance with its paper.
func (t *tx) accept(p payment.Payment, c Signed, a Acceptance, operator string) (payment.Payment, error) {
	if t.book.opts.Sign == nil {
		return p, ErrNoSigner
	}
	evidence, err := t.book.opts.Sign(a)
	if err != nil {
		return p, fmt.Errorf("sign evidence: %w", err)
	}
	spent := sha256.Sum256([]byte(c.Text))
	err = t.emit(recAccepted, payment.Accepted{
		TradeNo: p.TradeNo, Code: c.Text, Spent: spent[:], Wallet: c.Wallet, Counter: c.Counter, Token: c.Token,
		ScannedAt: c.ScannedAt.UTC().Truncate(time.Millisecond), Accept: evidence, OperatorID: operator,
	})
	if err != nil {
		return p, err
	}
	return t.printed(p.TradeNo)
}

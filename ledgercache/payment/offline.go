package payment

import (
	"time"

	"yupos/ledgercache/money"
)

// The reasons of an offline decision, as codes.md names them, in the order in which they are judged. The names of the
// steps 1 to 6 (the code itself) come from whoever judged the code.
const (
	ReasonBookUnconfirmed     Reason = "BOOK_UNCONFIRMED" // restored or imported, and the ledger has not seen it since
	ReasonBookChecking        Reason = "BOOK_CHECKING"    // its cache is compared with its journal after an unclean stop
	ReasonClockUntrusted      Reason = "CLOCK_UNTRUSTED"
	ReasonPolicyStale         Reason = "POLICY_STALE"
	ReasonDenyListStale       Reason = "DENY_LIST_STALE"
	ReasonCodeReplayed        Reason = "CODE_REPLAYED"
	ReasonWalletBlocked       Reason = "WALLET_BLOCKED"
	ReasonOverCodeLimit       Reason = "OVER_CODE_LIMIT"
	ReasonOverCertLimit       Reason = "OVER_CERT_LIMIT"
	ReasonOverPaymentLimit    Reason = "OVER_PAYMENT_LIMIT"
	ReasonOverWalletAllowance Reason = "OVER_WALLET_ALLOWANCE"
	ReasonOverTerminalLimit   Reason = "OVER_TERMINAL_LIMIT"
)

// The reasons that refuse a conversion (转离线受理) before the limits are looked at.
const (
	ReasonReversalStarted Reason = "REVERSAL_STARTED" // a reversal may have left: nothing can settle the trade here
	ReasonNotConvertible  Reason = "NOT_CONVERTIBLE"  // an ONLINE code, or nothing was sent: there is no evidence to keep
)

// The numbers of offline acceptance that product.md gives where neither policy nor configuration is stricter.
const (
	ClockBound       = 30 * time.Second // a clock that may be further off decides nothing
	PolicyAge        = 72 * time.Hour   // of policy and deny list
	OfflineWarnAfter = 24 * time.Hour   // of the oldest payment that is not uploaded
	OfflineStopAfter = 72 * time.Hour
)

// Limits bound what a terminal may take offline. The zero value allows nothing.
type Limits struct {
	PaymentFen    money.Fen `cbor:"1,keyasint"` // each payment
	WalletFen     money.Fen `cbor:"2,keyasint"` // each customer, unsettled
	WalletCount   int       `cbor:"3,keyasint"`
	TerminalFen   money.Fen `cbor:"4,keyasint"` // the whole terminal, unsettled
	TerminalCount int       `cbor:"5,keyasint"`
	ConvertFen    money.Fen `cbor:"6,keyasint"` // one that was sent online and not answered
	DigitsFen     money.Fen `cbor:"7,keyasint"` // one confirmed by typed digits
}

// DefaultLimits are those of product.md, Default numbers.
var DefaultLimits = Limits{
	PaymentFen: 200_00, WalletFen: 500_00, WalletCount: 10, TerminalFen: 5000_00, TerminalCount: 200, ConvertFen: 50_00, DigitsFen: 1000_00,
}

// Stricter is the smaller of both in every limit.
func (l Limits) Stricter(o Limits) Limits {
	return Limits{
		PaymentFen: min(l.PaymentFen, o.PaymentFen), WalletFen: min(l.WalletFen, o.WalletFen), WalletCount: min(l.WalletCount, o.WalletCount),
		TerminalFen: min(l.TerminalFen, o.TerminalFen), TerminalCount: min(l.TerminalCount, o.TerminalCount),
		ConvertFen: min(l.ConvertFen, o.ConvertFen), DigitsFen: min(l.DigitsFen, o.DigitsFen),
	}
}

// Exposure is what stands open: how much, how many, since when.
type Exposure struct {
	Fen      money.Fen `cbor:"1,keyasint,omitempty"`
	Count    int       `cbor:"2,keyasint,omitempty"`
	OldestAt time.Time `cbor:"3,keyasint,omitzero"`
}

// Case is everything that an offline decision looks at. Whoever fills it reads it in the same step of the book that
// records the decision.
type Case struct {
	TotalFen money.Fen
	Now      time.Time // of the scan: freshness is judged there

	BookChecking    bool // after an unclean stop it is not yet known that the cache is what the journal gives
	BookUnconfirmed bool // the book began a new epoch that the ledger has not accepted yet

	ClockTrusted bool          // the clock has a bound, and is not before the last journalled time
	ClockError   time.Duration // its bound
	PolicyAt     time.Time     // when the ledger issued the policy; zero = there is none
	PolicyUntil  time.Time
	DenyAt       time.Time // the same of the deny list
	DenyUntil    time.Time

	Code     Reason    // what steps 1 to 6 found, "" when the code is good
	Replayed bool      // step 7: this counter or a higher one was submitted or accepted here
	Blocked  bool      // step 8: the deny list names the wallet
	MostFen  money.Fen // C4: the most that the code may pay

	CertPaymentFen   money.Fen // the certificate's limits, and all that was ever accepted here under its key
	CertAllowanceFen money.Fen
	CertCount        int
	CertUsed         Exposure

	Limits   Limits   // the strictest of policy and configuration
	Wallet   Exposure // what is unsettled of this customer
	Terminal Exposure // what is unsettled of this terminal

	Converting bool // 转离线受理: the payment was sent online and not answered
}

// DecideOffline judges whether the terminal may take a payment on signed evidence alone: "" to accept, else the first
// refusal in the order of codes.md, SIGNED. It is the only place where that is decided.
func DecideOffline(c Case) Reason {
	switch {
	case c.BookUnconfirmed:
		return ReasonBookUnconfirmed
	case c.BookChecking:
		return ReasonBookChecking
	case !c.clockHolds():
		return ReasonClockUntrusted
	case !fresh(c.PolicyAt, c.PolicyUntil, c.Now):
		return ReasonPolicyStale
	case !fresh(c.DenyAt, c.DenyUntil, c.Now):
		return ReasonDenyListStale
	case c.Code != "":
		return c.Code
	case c.Replayed:
		return ReasonCodeReplayed
	case c.Blocked:
		return ReasonWalletBlocked
	case c.TotalFen > c.MostFen:
		return ReasonOverCodeLimit
	}
	return c.overLimits()
}

// MissingOffline is what stands between the terminal and any offline payment now, whoever the customer is: nothing when the
// shop could sell offline. It looks at clock, policy, deny list and the terminal's own room, with the rules of DecideOffline.
func MissingOffline(c Case) (missing []Reason) {
	if c.BookUnconfirmed {
		missing = append(missing, ReasonBookUnconfirmed)
	}
	if c.BookChecking {
		missing = append(missing, ReasonBookChecking)
	}
	if !c.clockHolds() {
		missing = append(missing, ReasonClockUntrusted)
	}
	if !fresh(c.PolicyAt, c.PolicyUntil, c.Now) {
		missing = append(missing, ReasonPolicyStale)
	}
	if !fresh(c.DenyAt, c.DenyUntil, c.Now) {
		missing = append(missing, ReasonDenyListStale)
	}
	c.TotalFen = 1
	if c.terminalFull() || c.Limits.PaymentFen < 1 || c.Limits.WalletFen < 1 || c.Limits.WalletCount < 1 {
		missing = append(missing, ReasonOverTerminalLimit)
	}
	return missing
}

func (c Case) clockHolds() bool {
	return c.ClockTrusted && c.ClockError >= 0 && c.ClockError <= ClockBound
}

func (c Case) terminalFull() bool {
	return c.Terminal.Count >= c.Limits.TerminalCount || c.TotalFen > c.Limits.TerminalFen-c.Terminal.Fen || c.Terminal.tooOld(c.Now)
}

// overLimits judges the sums. They are far below what overflows: each is bounded by a limit of its own before it is added.
func (c Case) overLimits() Reason {
	switch {
	case c.TotalFen > c.CertPaymentFen:
		return ReasonOverCertLimit
	case c.TotalFen > c.Limits.PaymentFen || c.Converting && c.TotalFen > c.Limits.ConvertFen:
		return ReasonOverPaymentLimit
	case c.CertUsed.Count >= c.CertCount || c.Wallet.Count >= c.Limits.WalletCount ||
		c.TotalFen > c.CertAllowanceFen-c.CertUsed.Fen || c.TotalFen > c.Limits.WalletFen-c.Wallet.Fen:
		return ReasonOverWalletAllowance
	case c.terminalFull():
		return ReasonOverTerminalLimit
	}
	return ""
}

func (e Exposure) tooOld(now time.Time) bool {
	return e.Count > 0 && now.Sub(e.OldestAt) > OfflineStopAfter
}

// fresh reports whether news issued at `at` may be relied on now: not from the future, at most PolicyAge old, not ended.
func fresh(at, until, now time.Time) bool {
	return !at.IsZero() && !at.After(now.Add(ClockBound)) && now.Sub(at) <= PolicyAge && now.Before(until)
}

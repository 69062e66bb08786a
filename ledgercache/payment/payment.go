// Package payment says what a payment is, which moves it may make, and what the line must do about it next.
//
// Guarantees: the package is pure (no I/O, no clock of its own); Apply is one total switch over state and event, so a move
// that is not written there is refused with ErrIllegalMove and can never reach the journal; a final state never changes
// again; an event that was already applied is answered with ErrReplay and changes nothing. DESIGN.md holds the diagram.
package payment

import (
	"time"

	"yupos/ledgercache/money"
)

// State is the word for where a trade stands, as the ecosystem knows it. It reaches disk and wire as this word.
type State string

// The states of a trade.
const (
	NotPay          State = "NOTPAY"           // waiting for a code or a customer
	UserPaying      State = "USERPAYING"       // the customer must confirm on the phone
	Unknown         State = "UNKNOWN"          // sent, or once shown, and the ledger has not said how it ended
	Success         State = "SUCCESS"          // paid; final
	Closed          State = "CLOSED"           // expired or cancelled, unpaid; final
	Revoked         State = "REVOKED"          // paid and reversed, or its offline evidence withdrawn; final
	PayError        State = "PAYERROR"         // declined, with a reason; final
	AcceptedOffline State = "ACCEPTED_OFFLINE" // taken on signed evidence, to be uploaded
	Bounced         State = "BOUNCED"          // offline evidence that the ledger refused; final
)

// Final reports whether a trade in this state never changes again.
func (s State) Final() bool {
	switch s {
	case Success, Closed, Revoked, PayError, Bounced:
		return true
	case NotPay, UserPaying, Unknown, AcceptedOffline:
		return false
	}
	return false
}

// EndsWait reports whether nobody at the counter needs to wait any longer: final, or taken offline.
func (s State) EndsWait() bool { return s.Final() || s == AcceptedOffline }

// Mode says how the customer and the trade meet. It is fixed when the trade is opened.
type Mode string

// The modes of a trade.
const (
	ByCode    Mode = "code"    // the register sent the customer's code
	AtCounter Mode = "counter" // the terminal's own scanner is armed and waits for a code
	ByOrder   Mode = "order"   // the terminal shows an ORDER that the customer pays
)

// Path says how the money was taken. It is chosen when the sale starts and never changes silently.
type Path string

// The paths of a trade.
const (
	Online  Path = "online"
	Receipt Path = "receipt"
	Offline Path = "offline"
)

// Op is something that the line does for a trade.
type Op string

// The operations of the line, besides refunds.
const (
	OpNone    Op = ""
	OpPay     Op = "pay"
	OpOrder   Op = "order"
	OpQuery   Op = "query"
	OpReverse Op = "reverse"
	OpUpload  Op = "upload" // the evidence of an offline acceptance; valid at any age
)

// Payment is one trade as the book holds it. Times are UTC; the zero time means "not yet". The integer keys are the form
// on disk and are never reused.
type Payment struct {
	TradeNo    string    `cbor:"1,keyasint"` // ULID, fixed when opened; the idempotency key on the line
	OutTradeNo string    `cbor:"2,keyasint"` // the register's number, unique here
	Mode       Mode      `cbor:"3,keyasint"`
	State      State     `cbor:"4,keyasint"`
	Path       Path      `cbor:"5,keyasint"`
	Reason     Reason    `cbor:"6,keyasint,omitempty"`  // why the state is what it is
	Foreign    string    `cbor:"19,keyasint,omitempty"` // with FOREIGN_CODE: the kind of code by its name in codes.md, and its own name behind a colon
	TotalFen   money.Fen `cbor:"7,keyasint"`
	Subject    string    `cbor:"8,keyasint,omitempty"`
	Attach     string    `cbor:"9,keyasint,omitempty"`
	OperatorID string    `cbor:"10,keyasint,omitempty"`
	ShiftID    string    `cbor:"11,keyasint,omitempty"`
	BodyHash   []byte    `cbor:"12,keyasint,omitempty"` // SHA-256 of the request, to tell a repeat from a reuse
	CreatedAt  time.Time `cbor:"13,keyasint"`
	FinishedAt time.Time `cbor:"14,keyasint,omitzero"` // the ledger's success time, or when it ended here
	ExpiresAt  time.Time `cbor:"15,keyasint,omitzero"` // of the armed counter or the ORDER
	OrderText  string    `cbor:"16,keyasint,omitempty"`
	OnlineOnly bool      `cbor:"17,keyasint,omitempty"` // never accepted offline, as the register asked

	// Known once the ledger has said so.
	Settled     bool      `cbor:"20,keyasint,omitempty"` // PaidFen, DiscountFen and FeeFen are known
	PaidFen     money.Fen `cbor:"21,keyasint,omitempty"`
	DiscountFen money.Fen `cbor:"22,keyasint,omitempty"`
	FeeFen      money.Fen `cbor:"23,keyasint,omitempty"`
	LedgerNo    string    `cbor:"24,keyasint,omitempty"`

	// Refunds. RefundedFen is what the ledger has paid back; RefundingFen is asked for and not yet answered.
	RefundedFen  money.Fen `cbor:"30,keyasint,omitempty"`
	RefundingFen money.Fen `cbor:"31,keyasint,omitempty"`
	RefundParts  int       `cbor:"32,keyasint,omitempty"`
	FeeBackFen   money.Fen `cbor:"33,keyasint,omitempty"`

	// The code in flight and the talk with the ledger.
	Attempt     int       `cbor:"40,keyasint,omitempty"` // how many codes were submitted
	Code        string    `cbor:"41,keyasint,omitempty"` // the pay code, kept until it is answered
	SubmittedAt time.Time `cbor:"42,keyasint,omitzero"`
	NotAfter    time.Time `cbor:"43,keyasint,omitzero"` // an online pay is never sent later than this
	LastOp      Op        `cbor:"44,keyasint,omitempty"`
	LastAskAt   time.Time `cbor:"45,keyasint,omitzero"`  // last message about this trade
	AskedSince  time.Time `cbor:"46,keyasint,omitzero"`  // when the talk that LastOp belongs to began
	ReverseAsks int       `cbor:"47,keyasint,omitempty"` // reversals sent: above 0, the reversal has started
	Reversing   bool      `cbor:"48,keyasint,omitempty"` // a reversal is wanted
	PaySent     bool      `cbor:"49,keyasint,omitempty"` // pay of this attempt may have left the terminal

	// The evidence on which the terminal itself took the money, until the ledger has confirmed it.
	Evidence    Evidence  `cbor:"50,keyasint,omitempty"` // "" while the ledger's own answer is what counts
	Unconfirmed bool      `cbor:"51,keyasint,omitempty"` // SUCCESS on evidence that the ledger has not confirmed on the line yet
	DigitTries  int       `cbor:"52,keyasint,omitempty"` // wrong or interrupted tries to type the confirmation
	Accept      []byte    `cbor:"53,keyasint,omitempty"` // body and signature of the ACCEPT evidence (codes.md)
	Wallet      []byte    `cbor:"54,keyasint,omitempty"` // public key of the SIGNED code in flight or accepted
	Token       []byte    `cbor:"55,keyasint,omitempty"` // the wallet's token, 8 bytes
	UploadAsks  int       `cbor:"56,keyasint,omitempty"` // uploads sent: above 0, it can no longer be withdrawn
	Withdrawn   bool      `cbor:"57,keyasint,omitempty"` // a manager took it back before its upload
	AcceptedAt  time.Time `cbor:"59,keyasint,omitzero"`
	Bearer      Bearer    `cbor:"58,keyasint,omitempty"` // who bears an offline payment that was not simply paid

	Copies int `cbor:"60,keyasint,omitempty"` // receipts queued for the printer so far
}

// Evidence says on what proof, other than the ledger's answer on the line, a trade was taken.
type Evidence string

// The kinds of evidence.
const (
	ByAccept  Evidence = "accept"  // a SIGNED code, judged offline
	ByReceipt Evidence = "receipt" // the ledger's signed RECEIPT, shown by the customer
	ByDigits  Evidence = "digits"  // the eight digits of the confirmation
)

// Bearer says who bears an offline payment whose wallet did not pay.
type Bearer string

// The bearers of codes.md, ACCEPT.
const (
	BearerLedger   Bearer = "ledger"   // its guarantee pays: the terminal kept the rules
	BearerMerchant Bearer = "merchant" // the terminal broke a rule
)

// Open reports whether the terminal or the line still has something to do for p.
func (p Payment) Open() bool { return !p.State.Final() || p.Unconfirmed }

// Convertible reports whether a payment that was sent and not answered could still be taken on its evidence (转离线受理): a
// SIGNED code, nobody wants it reversed, and the register does not forbid it.
func (p Payment) Convertible() bool {
	return p.Mode != ByOrder && len(p.Wallet) > 0 && !p.OnlineOnly && !p.Reversing && !p.ReversalStarted()
}

// ReversalStarted reports whether a reversal may have left the terminal: from then on nothing can settle the trade here.
func (p Payment) ReversalStarted() bool { return p.ReverseAsks > 0 }

// Refundable is what may still be asked back: the total less what is refunded or being refunded.
func (p Payment) Refundable() money.Fen {
	if p.State != Success {
		return 0
	}
	return p.TotalFen - p.RefundedFen - p.RefundingFen
}

// MaxRefundParts is how many refunds one trade may have (product.md, Default numbers).
const MaxRefundParts = 50

// RefundWindow is how long after its success a trade may be refunded.
const RefundWindow = 365 * 24 * time.Hour

// RefundState is where a refund stands.
type RefundState string

// The states of a refund.
const (
	RefundProcessing RefundState = "PROCESSING"
	RefundSuccess    RefundState = "SUCCESS"
	RefundFailed     RefundState = "FAILED"
)

// Refund is one refund as the book holds it.
type Refund struct {
	RefundNo    string      `cbor:"1,keyasint"` // ULID; the idempotency key on the line
	OutRefundNo string      `cbor:"2,keyasint"`
	TradeNo     string      `cbor:"3,keyasint"`
	OutTradeNo  string      `cbor:"4,keyasint"`
	State       RefundState `cbor:"5,keyasint"`
	RefundFen   money.Fen   `cbor:"6,keyasint"`
	FeeBackFen  money.Fen   `cbor:"7,keyasint,omitempty"`
	Note        string      `cbor:"8,keyasint,omitempty"` // the caller's reason
	Reason      Reason      `cbor:"9,keyasint,omitempty"` // why it failed
	OperatorID  string      `cbor:"10,keyasint,omitempty"`
	ShiftID     string      `cbor:"11,keyasint,omitempty"`
	BodyHash    []byte      `cbor:"12,keyasint,omitempty"`
	CreatedAt   time.Time   `cbor:"13,keyasint"`
	FinishedAt  time.Time   `cbor:"14,keyasint,omitzero"`
	LedgerNo    string      `cbor:"15,keyasint,omitempty"`
	Asks        int         `cbor:"16,keyasint,omitempty"`
	LastAskAt   time.Time   `cbor:"17,keyasint,omitzero"`
}

// Final reports whether the refund has ended.
func (r Refund) Final() bool { return r.State != RefundProcessing }

// HoldsCounter reports whether p has the terminal's scanner or display: from its opening until it is final, cancelled or
// expired. A trade by code never takes the counter.
func (p Payment) HoldsCounter() bool {
	return p.Mode != ByCode && !p.State.EndsWait() && !p.Reversing && p.Reason != ReasonExpired
}

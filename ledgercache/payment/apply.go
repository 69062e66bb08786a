package payment

import (
	"errors"
	"fmt"
	"time"

	"yupos/ledgercache/money"
)

// Errors of a move.
var (
	// ErrIllegalMove says that the event is not possible in the trade's state. Nothing may be journalled.
	ErrIllegalMove = errors.New("payment: illegal move")
	// ErrReplay says that the event tells nothing new: the trade already is what the event says. Nothing needs journalling.
	ErrReplay = errors.New("payment: already so")
	// ErrImpossible says that an answer contradicts what is certain here (another amount, a final state undone). It is set
	// aside and shown, never applied.
	ErrImpossible = errors.New("payment: impossible answer")
)

// Event is one thing that happens to a trade. The set is closed; each type's comment names from and to. The integer keys
// are the form on disk.
type Event interface{ trade() string }

// Opened creates a trade: (nothing) → NOTPAY.
type Opened struct {
	TradeNo    string    `cbor:"1,keyasint"`
	OutTradeNo string    `cbor:"2,keyasint"`
	Mode       Mode      `cbor:"3,keyasint"`
	TotalFen   money.Fen `cbor:"4,keyasint"`
	Subject    string    `cbor:"5,keyasint,omitempty"`
	Attach     string    `cbor:"6,keyasint,omitempty"`
	OperatorID string    `cbor:"7,keyasint,omitempty"`
	ShiftID    string    `cbor:"8,keyasint,omitempty"`
	BodyHash   []byte    `cbor:"9,keyasint,omitempty"`
	ExpiresAt  time.Time `cbor:"10,keyasint,omitzero"`
	OrderText  string    `cbor:"11,keyasint,omitempty"`
	OnlineOnly bool      `cbor:"12,keyasint,omitempty"` // the register wants no offline acceptance
}

// Submitted hands a code to the line: NOTPAY → UNKNOWN. It carries the first sending and its limit.
type Submitted struct {
	TradeNo   string    `cbor:"1,keyasint"`
	Code      string    `cbor:"2,keyasint"`
	Spent     []byte    `cbor:"3,keyasint,omitempty"` // SHA-256 of the code; older journals only, it follows from the code
	Wallet    []byte    `cbor:"4,keyasint,omitempty"` // SIGNED: the wallet's public key
	Counter   uint32    `cbor:"5,keyasint,omitempty"` // SIGNED: its counter
	Token     []byte    `cbor:"8,keyasint,omitempty"` // SIGNED: its wallet's token
	ScannedAt time.Time `cbor:"6,keyasint"`
	NotAfter  time.Time `cbor:"7,keyasint,omitzero"` // zero: PayWindow after the scan
}

// Rejected says that the terminal itself refused a code: NOTPAY → PAYERROR by code, NOTPAY → NOTPAY at the counter.
type Rejected struct {
	TradeNo string `cbor:"1,keyasint"`
	Reason  Reason `cbor:"2,keyasint"`
	Foreign string `cbor:"3,keyasint,omitempty"` // with FOREIGN_CODE: the kind of code
}

// Asked records, before it leaves, a message to the ledger. NOTPAY by order, UNKNOWN, USERPAYING, ACCEPTED_OFFLINE (upload) and
// SUCCESS by evidence (query) stay as they are, but the first OpReverse starts the reversal: NOTPAY by order, UNKNOWN,
// USERPAYING → UNKNOWN.
type Asked struct {
	TradeNo string `cbor:"1,keyasint"`
	Op      Op     `cbor:"2,keyasint"`
	Reason  Reason `cbor:"3,keyasint,omitempty"` // why it is reversed
}

// Answered is what the ledger holds true: NOTPAY by order, UNKNOWN, USERPAYING → SUCCESS, USERPAYING, PAYERROR, CLOSED,
// REVOKED; UNKNOWN, USERPAYING → NOTPAY where a counter's code was declined; UNKNOWN being reversed → UNKNOWN when it is told
// SUCCESS, until the reversal itself is answered; ACCEPTED_OFFLINE → SUCCESS, BOUNCED, REVOKED (withdrawn); SUCCESS by evidence
// → SUCCESS, confirmed. To is the operation answered; a push has none.
type Answered struct {
	TradeNo     string    `cbor:"1,keyasint"`
	To          Op        `cbor:"2,keyasint,omitempty"`
	Attempt     int       `cbor:"3,keyasint,omitempty"`
	State       State     `cbor:"4,keyasint"` // a State, or NotFound
	LedgerNo    string    `cbor:"5,keyasint,omitempty"`
	TotalFen    money.Fen `cbor:"6,keyasint,omitempty"`
	PaidFen     money.Fen `cbor:"7,keyasint,omitempty"`
	DiscountFen money.Fen `cbor:"8,keyasint,omitempty"`
	FeeFen      money.Fen `cbor:"9,keyasint,omitempty"`
	PaidAt      time.Time `cbor:"10,keyasint,omitzero"`
	Reason      Reason    `cbor:"11,keyasint,omitempty"`
	News        uint64    `cbor:"12,keyasint,omitempty"` // sequence of the push that brought it
	Bearer      Bearer    `cbor:"13,keyasint,omitempty"` // of an upload that the wallet did not pay
}

// NotFound is an answer's state when the ledger has never heard of the trade. It may still be on its way there.
const NotFound State = "NOT_FOUND"

// CancelWanted is the cashier's or register's wish to end the trade: NOTPAY at the counter → CLOSED; NOTPAY by order,
// UNKNOWN, USERPAYING → UNKNOWN until the ledger has reversed or closed it.
type CancelWanted struct {
	TradeNo    string `cbor:"1,keyasint"`
	OperatorID string `cbor:"2,keyasint,omitempty"`
}

// Expired says that nobody came in time: NOTPAY at the counter → CLOSED; NOTPAY by order → UNKNOWN, because it was shown.
type Expired struct {
	TradeNo string `cbor:"1,keyasint"`
}

// OrderShown shows an ORDER again that expired and was not reversed, with a later expiry: UNKNOWN by order → NOTPAY. Number
// and amount stay, so that at most one of the codes is ever paid (codes.md, ORDER).
type OrderShown struct {
	TradeNo   string    `cbor:"1,keyasint"`
	OrderText string    `cbor:"2,keyasint"`
	ExpiresAt time.Time `cbor:"3,keyasint"`
}

// Accepted takes the money on signed evidence alone: NOTPAY (not by order) → ACCEPTED_OFFLINE; UNKNOWN, USERPAYING →
// ACCEPTED_OFFLINE where a SIGNED code was sent, nobody wants it reversed and no reversal has started (转离线受理).
type Accepted struct {
	TradeNo    string    `cbor:"1,keyasint"`
	Code       string    `cbor:"2,keyasint"`
	Spent      []byte    `cbor:"3,keyasint"` // SHA-256 of the code
	Wallet     []byte    `cbor:"4,keyasint"` // the wallet's public key, 32 bytes
	Counter    uint32    `cbor:"5,keyasint"`
	Token      []byte    `cbor:"6,keyasint"` // the wallet's token, 8 bytes
	ScannedAt  time.Time `cbor:"7,keyasint"`
	Accept     []byte    `cbor:"8,keyasint"` // body (120 bytes) and signature (64) of the evidence
	OperatorID string    `cbor:"9,keyasint,omitempty"`
}

// Withdrawn takes an offline payment back before its upload: ACCEPTED_OFFLINE → ACCEPTED_OFFLINE, to be uploaded as
// withdrawn. Nothing is charged and nothing is paid out.
type Withdrawn struct {
	TradeNo    string `cbor:"1,keyasint"`
	OperatorID string `cbor:"2,keyasint,omitempty"`
}

// ReceiptShown settles a shown ORDER by the ledger's signed RECEIPT: NOTPAY, UNKNOWN by order → SUCCESS, as long as no
// reversal has started.
type ReceiptShown struct {
	TradeNo  string    `cbor:"1,keyasint"`
	LedgerNo string    `cbor:"2,keyasint"`
	TotalFen money.Fen `cbor:"3,keyasint"`
	PaidFen  money.Fen `cbor:"4,keyasint"`
	PaidAt   time.Time `cbor:"5,keyasint"`
	Token    []byte    `cbor:"6,keyasint,omitempty"`
}

// ReceiptRefused notes an authentic RECEIPT of this trade that may not settle it (paid after the expiry, another amount,
// a reversal has started): NOTPAY, UNKNOWN by order → UNKNOWN, to be reversed at the next contact.
type ReceiptRefused struct {
	TradeNo string `cbor:"1,keyasint"`
	Reason  Reason `cbor:"2,keyasint"`
}

// DigitsTyped counts a try to confirm a shown ORDER, before it is compared: NOTPAY, UNKNOWN by order stay as they are.
type DigitsTyped struct {
	TradeNo    string `cbor:"1,keyasint"`
	OperatorID string `cbor:"2,keyasint,omitempty"`
}

// DigitsMatched settles a shown ORDER by the typed confirmation: NOTPAY, UNKNOWN by order → SUCCESS.
type DigitsMatched struct {
	TradeNo string    `cbor:"1,keyasint"`
	At      time.Time `cbor:"2,keyasint"`
}

// MaxDigitTries is how many tries an order has (codes.md, Confirmation digits).
const MaxDigitTries = 3

// RefundAnswered is what the ledger holds true of a refund: PROCESSING → SUCCESS or FAILED.
type RefundAnswered struct {
	RefundNo   string      `cbor:"1,keyasint"`
	State      RefundState `cbor:"2,keyasint"`
	RefundFen  money.Fen   `cbor:"3,keyasint,omitempty"`
	FeeBackFen money.Fen   `cbor:"4,keyasint,omitempty"`
	At         time.Time   `cbor:"5,keyasint"`
	LedgerNo   string      `cbor:"6,keyasint,omitempty"`
	Reason     Reason      `cbor:"7,keyasint,omitempty"`
}

func (e Opened) trade() string       { return e.TradeNo }
func (e Submitted) trade() string    { return e.TradeNo }
func (e Rejected) trade() string     { return e.TradeNo }
func (e Asked) trade() string        { return e.TradeNo }
func (e Answered) trade() string     { return e.TradeNo }
func (e CancelWanted) trade() string { return e.TradeNo }
func (e Expired) trade() string      { return e.TradeNo }

func (e OrderShown) trade() string     { return e.TradeNo }
func (e Accepted) trade() string       { return e.TradeNo }
func (e Withdrawn) trade() string      { return e.TradeNo }
func (e ReceiptShown) trade() string   { return e.TradeNo }
func (e ReceiptRefused) trade() string { return e.TradeNo }
func (e DigitsTyped) trade() string    { return e.TradeNo }
func (e DigitsMatched) trade() string  { return e.TradeNo }

// TradeOf is the number of the trade that an event belongs to.
func TradeOf(e Event) string { return e.trade() }

// Open makes the trade that an Opened event describes. It fails with money.ErrRange for an amount that no payment has.
func Open(e Opened, at time.Time) (Payment, error) {
	if err := e.TotalFen.CheckPayable(); err != nil {
		return Payment{}, err
	}
	return Payment{
		TradeNo: e.TradeNo, OutTradeNo: e.OutTradeNo, Mode: e.Mode, State: NotPay, Path: Online, TotalFen: e.TotalFen,
		Subject: e.Subject, Attach: e.Attach, OperatorID: e.OperatorID, ShiftID: e.ShiftID, BodyHash: e.BodyHash,
		CreatedAt: at, ExpiresAt: e.ExpiresAt, OrderText: e.OrderText, OnlineOnly: e.OnlineOnly,
	}, nil
}

// Apply makes the move that e describes, at the time at, or says why it may not be made: ErrIllegalMove, ErrReplay,
// ErrImpossible. It is the only place where a trade changes its state.
func Apply(p Payment, e Event, at time.Time) (Payment, error) {
	if e.trade() != p.TradeNo {
		return p, fmt.Errorf("%w: event of another trade", ErrIllegalMove)
	}
	switch e := e.(type) {
	case Submitted:
		return submit(p, e)
	case Rejected:
		return reject(p, e, at)
	case Asked:
		return ask(p, e, at)
	case Answered:
		return answer(p, e, at)
	case CancelWanted:
		return cancel(p, at)
	case Expired:
		return expire(p, at)
	case OrderShown:
		return showAgain(p, e, at)
	case Accepted:
		return accept(p, e, at)
	case Withdrawn:
		return withdraw(p, e)
	case ReceiptShown:
		return receiptShown(p, e)
	case ReceiptRefused:
		return receiptRefused(p, e)
	case DigitsTyped:
		return digitsTyped(p, e)
	case DigitsMatched:
		return digitsMatched(p, e)
	}
	return p, illegal(p, e)
}

func illegal(p Payment, e Event) error {
	return fmt.Errorf("%w: %T in %s (%s)", ErrIllegalMove, e, p.State, p.Mode)
}

func submit(p Payment, e Submitted) (Payment, error) {
	if p.State != NotPay || p.Mode == ByOrder || p.Code != "" {
		return p, illegal(p, e)
	}
	p.State, p.Reason = Unknown, ""
	p.Attempt++
	p.Code, p.SubmittedAt, p.NotAfter, p.Wallet, p.Token = e.Code, e.ScannedAt, e.NotAfter, e.Wallet, e.Token
	if p.NotAfter.IsZero() {
		p.NotAfter = e.ScannedAt.Add(PayWindow)
	}
	p.LastOp, p.LastAskAt, p.AskedSince, p.PaySent = OpPay, e.ScannedAt, e.ScannedAt, true
	return p, nil
}

func reject(p Payment, e Rejected, at time.Time) (Payment, error) {
	if p.State != NotPay {
		return p, illegal(p, e)
	}
	p.Foreign = e.Foreign
	switch p.Mode {
	case ByCode:
		p.State, p.Reason, p.FinishedAt = PayError, e.Reason, at
		return p, nil
	case AtCounter:
		p.Reason = e.Reason
		return p, nil
	case ByOrder:
		return p, illegal(p, e)
	}
	return p, illegal(p, e)
}

func ask(p Payment, e Asked, at time.Time) (Payment, error) {
	if p.State == AcceptedOffline || p.Unconfirmed {
		return askEvidence(p, e, at)
	}
	open := p.State == Unknown || p.State == UserPaying || p.State == NotPay && p.Mode == ByOrder
	if !open {
		return p, illegal(p, e)
	}
	switch e.Op {
	case OpPay:
		if p.Code == "" || p.Reversing || p.ReversalStarted() || at.After(p.NotAfter) {
			return p, illegal(p, e)
		}
		p.PaySent = true
	case OpOrder, OpQuery:
	case OpReverse:
		p.State, p.Reversing = Unknown, true
		if p.ReverseAsks == 0 && e.Reason != "" {
			p.Reason = e.Reason
		}
		p.ReverseAsks++
	case OpNone, OpUpload:
		return p, illegal(p, e)
	}
	p.LastOp, p.LastAskAt = e.Op, at
	return p, nil
}

// askEvidence brings evidence to the ledger: an acceptance is uploaded, an order settled by its receipt is asked for.
func askEvidence(p Payment, e Asked, at time.Time) (Payment, error) {
	switch {
	case p.State == AcceptedOffline && e.Op == OpUpload:
		p.UploadAsks++
	case p.Unconfirmed && (e.Op == OpQuery || e.Op == OpOrder):
	default:
		return p, illegal(p, e)
	}
	p.LastOp, p.LastAskAt = e.Op, at
	return p, nil
}

// answer applies the ledger's word. What is final stays final: an equal word is a replay, any other one impossible.
func answer(p Payment, e Answered, at time.Time) (Payment, error) {
	if p.Unconfirmed {
		return confirm(p, e)
	}
	if p.State == AcceptedOffline {
		return judged(p, e, at)
	}
	if p.State.Final() {
		if contradicts(p, e) {
			return p, fmt.Errorf("%w: ledger says %s, %d fen paid of %d, fee %d, of a trade that is %s", ErrImpossible, e.State, e.PaidFen, e.TotalFen, e.FeeFen, p.State)
		}
		if e.State == p.State || e.State == NotFound || e.State == PayError && e.Attempt < p.Attempt || supersededBy(p.State, e.State) {
			return p, ErrReplay
		}
		return p, fmt.Errorf("%w: ledger says %s of a trade that is %s", ErrImpossible, e.State, p.State)
	}
	if p.State == NotPay && p.Mode != ByOrder {
		if e.State == PayError && p.Attempt > 0 { // a declined code's answer, once more
			return p, ErrReplay
		}
		return p, fmt.Errorf("%w: ledger says %s of a trade that was not sent", ErrImpossible, e.State)
	}
	switch e.State {
	case Success:
		return paid(p, e)
	case UserPaying:
		return userPaying(p, e)
	case PayError:
		return declined(p, e, at)
	case Closed, Revoked:
		return ended(p, e, at)
	case NotPay, NotFound:
		return unheard(p, e)
	case Unknown, AcceptedOffline, Bounced:
	}
	return p, fmt.Errorf("%w: state %q", ErrImpossible, string(e.State))
}

// contradicts reports whether a word that looks like a repetition is none: another amount of what was paid, or money taken for
// what was withdrawn.
func contradicts(p Payment, e Answered) bool {
	if e.State != Success {
		return false
	}
	same := e.TotalFen == p.TotalFen && e.PaidFen == p.PaidFen && e.DiscountFen == p.DiscountFen && e.FeeFen == p.FeeFen
	return p.Withdrawn || p.State == Success && e.TotalFen > 0 && !same
}

// supersededBy reports whether an older true word of the ledger may still arrive after a final one: a trade that ended
// REVOKED was SUCCESS before, one that ended CLOSED was NOTPAY, and each may have been USERPAYING.
func supersededBy(final, older State) bool {
	switch older {
	case Success:
		return final == Revoked
	case NotPay, UserPaying:
		return true
	case Unknown, Closed, Revoked, PayError, AcceptedOffline, Bounced:
		return false
	}
	return false
}

func paid(p Payment, e Answered) (Payment, error) {
	sum, err := money.Add(e.PaidFen, e.DiscountFen)
	if err != nil || e.TotalFen != p.TotalFen || sum != p.TotalFen || e.PaidFen < 0 || e.DiscountFen < 0 || e.FeeFen < 0 || e.PaidAt.IsZero() {
		return p, fmt.Errorf("%w: paid %d + %d of %d fen", ErrImpossible, e.PaidFen, e.DiscountFen, p.TotalFen)
	}
	was := p
	p.Settled, p.PaidFen, p.DiscountFen, p.FeeFen, p.LedgerNo = true, e.PaidFen, e.DiscountFen, e.FeeFen, e.LedgerNo
	if p.Reversing && e.To != OpReverse {
		// Paid after all, but its reversal is under way: only the reversal's own answer ends it.
		if was.Settled {
			return was, ErrReplay
		}
		return p, nil
	}
	p.State, p.Reason, p.FinishedAt, p.Reversing = Success, "", e.PaidAt, false
	return p.forget(), nil
}

func userPaying(p Payment, e Answered) (Payment, error) {
	if p.Reversing {
		return p, ErrReplay
	}
	if p.Mode == ByOrder || p.State == UserPaying {
		return p, ErrReplay
	}
	p.State, p.Reason = UserPaying, ""
	return p, nil
}

func declined(p Payment, e Answered, at time.Time) (Payment, error) {
	if p.Mode == ByOrder {
		return p, fmt.Errorf("%w: an order was declined", ErrImpossible)
	}
	if e.Attempt != 0 && e.Attempt != p.Attempt {
		return p, ErrReplay
	}
	p = p.forget()
	p.Reason = e.Reason
	if p.Mode == AtCounter && !p.Reversing {
		p.State = NotPay
		return p, nil
	}
	p.State, p.FinishedAt = PayError, at
	if p.Reversing {
		p.State = Closed
	}
	p.Reversing = false
	return p, nil
}

func ended(p Payment, e Answered, at time.Time) (Payment, error) {
	p.State, p.FinishedAt, p.Reversing = e.State, at, false
	if e.Reason != "" {
		p.Reason = e.Reason
	}
	return p.forget(), nil
}

// unheard takes note that the ledger has no payment: nothing is certain by it, as a message may still be on its way, but
// the line knows that the next step is to send again in time, or to reverse.
func unheard(p Payment, e Answered) (Payment, error) {
	if !p.PaySent || p.Mode == ByOrder {
		return p, ErrReplay
	}
	p.PaySent = false
	return p, nil
}

func cancel(p Payment, at time.Time) (Payment, error) {
	switch p.State {
	case NotPay:
		if p.Mode == ByOrder {
			p.State, p.Reason, p.Reversing = Unknown, ReasonReversing, true
			return p, nil
		}
		p.State, p.Reason, p.FinishedAt = Closed, ReasonCancelled, at
		return p, nil
	case Unknown, UserPaying:
		if p.Reversing {
			return p, ErrReplay
		}
		p.State, p.Reason, p.Reversing = Unknown, ReasonReversing, true
		return p, nil
	case Closed, Revoked, PayError, Bounced:
		return p, ErrReplay
	case Success, AcceptedOffline:
		return p, illegal(p, CancelWanted{})
	}
	return p, illegal(p, CancelWanted{})
}

// MayShowAgain reports whether an ORDER that expired may be shown again: no reversal was wished for or has left.
func (p Payment) MayShowAgain() bool {
	return p.Mode == ByOrder && p.State == Unknown && p.Reason == ReasonExpired && !p.Reversing && !p.ReversalStarted()
}

func showAgain(p Payment, e OrderShown, at time.Time) (Payment, error) {
	if !p.MayShowAgain() || e.OrderText == "" || !e.ExpiresAt.After(at) {
		return p, illegal(p, e)
	}
	p.State, p.Reason, p.OrderText, p.ExpiresAt = NotPay, "", e.OrderText, e.ExpiresAt
	p.LastOp, p.AskedSince = OpNone, time.Time{} // the ledger is told of it anew
	return p, nil
}

func expire(p Payment, at time.Time) (Payment, error) {
	if p.State != NotPay || p.ExpiresAt.IsZero() || at.Before(p.ExpiresAt) {
		return p, illegal(p, Expired{})
	}
	switch p.Mode {
	case ByOrder:
		p.State, p.Reason = Unknown, ReasonExpired
		p.AskedSince = at
		return p, nil
	case AtCounter:
		p.State, p.Reason, p.FinishedAt = Closed, ReasonExpired, at
		return p, nil
	case ByCode:
		return p, illegal(p, Expired{})
	}
	return p, illegal(p, Expired{})
}

// Package wire is the terminal–ledger protocol: every message that crosses the websocket, as plain versioned structs, and
// the one way to write and read them.
//
// Guarantees: a frame is one JSON text of at most MaxFrame bytes; a field that this version does not know is ignored, a
// message type that it does not know is refused by name (ErrUnknownType); money is integer fen and time is Unix
// milliseconds; a value that carries a pay code masks itself in every log. The package does no I/O and is safe for
// concurrent use. FORMAT.md beside it is the specification for other implementations.
package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strconv"

	"yupos/ledgercache/money"
)

// Subprotocol is the websocket subprotocol both sides must agree on; the number is the major version of this protocol.
const Subprotocol = "yupay-terminal.v1"

// Path is where the ledger serves the websocket.
const Path = "/terminal/v1"

// MaxFrame is the longest message either side may send, in bytes.
const MaxFrame = 64 << 10

// Version is the minor version that this package writes and reads; MinVersion is the oldest with which it still talks.
// Hello names both, Welcome the one that holds.
const (
	Version    = 2
	MinVersion = 1
)

// The types of messages. Terminal to ledger: hello, pay, order, query, reverse, refund, upload, anchor, ack, want, time,
// statement. Ledger to terminal: welcome, outcome, refund_outcome, uploaded, anchored, result, news, signed_time,
// statement_page, maintenance, refused.
const (
	TypeHello         = "hello"
	TypeWelcome       = "welcome"
	TypePay           = "pay"
	TypeOrder         = "order"
	TypeQuery         = "query"
	TypeReverse       = "reverse"
	TypeRefund        = "refund"
	TypeAnchor        = "anchor"
	TypeAck           = "ack"
	TypeOutcome       = "outcome"
	TypeRefundOutcome = "refund_outcome"
	TypeAnchored      = "anchored"
	TypeResult        = "result"
	TypeRefused       = "refused"
	TypeUpload        = "upload"
	TypeUploaded      = "uploaded"
	TypeWant          = "want"
	TypeNews          = "news"
	TypeTime          = "time"
	TypeSignedTime    = "signed_time"
	TypeStatement     = "statement"
	TypeStatementPage = "statement_page"
	TypeMaintenance   = "maintenance"
)

// Errors of reading a frame.
var (
	// ErrTooLong says that a frame is longer than MaxFrame.
	ErrTooLong = errors.New("wire: frame too long")
	// ErrMalformed says that a frame is no JSON object of the form {type, id|re, body}.
	ErrMalformed = errors.New("wire: malformed frame")
	// ErrUnknownType names a message type that this version does not know.
	ErrUnknownType = errors.New("wire: unknown message type")
)

// Code is the text of a customer's pay code. It masks itself wherever it is logged or formatted; only JSON carries it.
type Code string

// String returns a mask: the length alone.
func (c Code) String() string { return fmt.Sprintf("code(%d)", len(c)) }

// GoString masks the code under %#v too.
func (c Code) GoString() string { return c.String() }

// LogValue masks the code in slog.
func (c Code) LogValue() slog.Value { return slog.StringValue(c.String()) }

// Millis is a time as Unix milliseconds, UTC. Zero means "not known".
type Millis int64

// Frame is what stands around every message. ID is chosen by the sender of a request, unique on its connection and never
// 0; Re is the ID of the request that a message answers. A push of the ledger has neither.
type Frame struct {
	Type string          `json:"type"`
	ID   uint64          `json:"id,omitempty"`
	Re   uint64          `json:"re,omitempty"`
	Body json.RawMessage `json:"body"`
}

// Hello opens a connection: who, with which book, and what is already known. The ledger answers Welcome or Refused.
type Hello struct {
	TerminalID string `json:"terminal_id"` // 8 digits; must be the certificate's
	MerchantID string `json:"merchant_id"` // 15 digits
	Software   string `json:"software"`
	Epoch      string `json:"epoch"`       // ULID of the book's epoch
	Sequence   uint64 `json:"sequence"`    // last durable record of the journal
	Head       string `json:"head"`        // hex SHA-256 of the journal at Sequence
	NewsCursor uint64 `json:"news_cursor"` // last Result applied to the book

	Version    int              `json:"version,omitempty"`     // highest minor version of the terminal; left out by version 1
	MinVersion int              `json:"min_version,omitempty"` // lowest that it still speaks
	Have       map[Topic]uint32 `json:"have,omitempty"`        // versions of the signed news in the book

	// Base is where the epoch began in the one before it: a book that was restored or carried to another machine. Left out
	// in a book's first epoch.
	Base *Place `json:"base,omitempty"`
}

// Place is one place in a journal.
type Place struct {
	Epoch    string `json:"epoch"`    // ULID
	Sequence uint64 `json:"sequence"` // of the last record
	Head     string `json:"head"`     // hex SHA-256
}

// Welcome accepts a Hello.
type Welcome struct {
	Version         int    `json:"version"`           // minor version that both speak
	AckedSequence   uint64 `json:"acked_sequence"`    // last journal sequence anchored at the ledger
	AckedHead       string `json:"acked_head"`        // its head, hex; "" before the first anchor
	NewsSequence    uint64 `json:"news_sequence"`     // newest Result the ledger has for this terminal
	Time            Millis `json:"time"`              // the ledger's clock
	PingEveryMillis int64  `json:"ping_every_millis"` // the ledger expects a ping at least this often
}

// Pay asks the ledger to take money by a customer's code. Idempotent by (TradeNo, Attempt): a repeat gets the first
// answer; a higher Attempt is judged anew only if every earlier one was declined.
type Pay struct {
	TradeNo    string    `json:"trade_no"` // ULID
	Attempt    int       `json:"attempt"`  // 1, 2 … : another code after a decline, at an armed counter
	OutTradeNo string    `json:"out_trade_no"`
	TotalFen   money.Fen `json:"total_fen"`
	Subject    string    `json:"subject,omitempty"`
	OperatorID string    `json:"operator_id,omitempty"`
	Code       Code      `json:"code"`       // ONLINE or SIGNED text
	ScannedAt  Millis    `json:"scanned_at"` // when the terminal read it
	NotAfter   Millis    `json:"not_after"`  // the ledger must not start this payment later
	Repeat     bool      `json:"repeat,omitempty"`
}

// Order tells the ledger of an ORDER on the screen before the customer pays it. A ledger that never hears it takes the
// payment all the same, by the terminal's signature in the code.
type Order struct {
	TradeNo    string    `json:"trade_no"`
	OutTradeNo string    `json:"out_trade_no"`
	TotalFen   money.Fen `json:"total_fen"`
	Subject    string    `json:"subject,omitempty"`
	OperatorID string    `json:"operator_id,omitempty"`
	ExpiresAt  Millis    `json:"expires_at"`
	Repeat     bool      `json:"repeat,omitempty"`
}

// Query asks for the state of a trade by the terminal's own number.
type Query struct {
	TradeNo    string `json:"trade_no"`
	OutTradeNo string `json:"out_trade_no,omitempty"` // of a shown ORDER: the code does not carry it, the bill needs it
}

// Reverse ends a trade for good: paid becomes REVOKED (the money goes back), unpaid or never heard of becomes CLOSED, and
// no later message with this number can be paid. Idempotent. A trade whose payment is protected by a RECEIPT is
// reversed only with this message from its own terminal.
type Reverse struct {
	TradeNo  string    `json:"trade_no"`
	TotalFen money.Fen `json:"total_fen"`
	Reason   string    `json:"reason"` // CANCELLED, EXPIRED, NO_ANSWER …
	Repeat   bool      `json:"repeat,omitempty"`
}

// Refund gives back part of a paid trade to the wallet that paid it. Idempotent by RefundNo.
type Refund struct {
	RefundNo    string    `json:"refund_no"` // ULID
	OutRefundNo string    `json:"out_refund_no"`
	TradeNo     string    `json:"trade_no"`
	RefundFen   money.Fen `json:"refund_fen"`
	Reason      string    `json:"reason,omitempty"`
	OperatorID  string    `json:"operator_id,omitempty"`
	Repeat      bool      `json:"repeat,omitempty"`
}

// Anchor reports the durable head of the terminal's journal.
type Anchor struct {
	Epoch    string `json:"epoch"`
	Sequence uint64 `json:"sequence"`
	Head     string `json:"head"`
}

// Ack says that every Result up to News is durable in the terminal's book. It has no answer.
type Ack struct {
	News uint64 `json:"news"`
}

// The states of an Outcome beside those of a trade.
const (
	StateNotFound   = "NOT_FOUND" // the ledger never heard of the trade (it may still be on its way)
	StateNotPay     = "NOTPAY"    // an order that the ledger knows and nobody has paid
	StateUserPaying = "USERPAYING"
	StateSuccess    = "SUCCESS"
	StateClosed     = "CLOSED"
	StateRevoked    = "REVOKED"
	StatePayError   = "PAYERROR"
	StateBounced    = "BOUNCED" // offline evidence that was not paid by the wallet's owner or the guarantee
)

// Outcome is what the ledger holds to be true of a trade: the answer to Pay, Order, Query and Reverse.
type Outcome struct {
	TradeNo     string    `json:"trade_no"`
	Attempt     int       `json:"attempt,omitempty"` // the attempt that a PAYERROR declines
	State       string    `json:"state"`
	LedgerNo    string    `json:"ledger_no,omitempty"` // the ledger's ULID for the payment
	TotalFen    money.Fen `json:"total_fen,omitempty"`
	PaidFen     money.Fen `json:"paid_fen,omitempty"`     // taken from the customer
	DiscountFen money.Fen `json:"discount_fen,omitempty"` // borne by promotions; paid + discount = total
	FeeFen      money.Fen `json:"fee_fen,omitempty"`      // borne by the merchant
	PaidAt      Millis    `json:"paid_at,omitempty"`      // success time: decides the bill day
	RefundedFen money.Fen `json:"refunded_fen,omitempty"`
	Reason      string    `json:"reason,omitempty"` // a stable code, for PAYERROR, CLOSED, REVOKED
	Bearer      string    `json:"bearer,omitempty"` // of an upload that the wallet did not pay: ledger or merchant
	Replayed    bool      `json:"replayed,omitempty"`
}

// The states of a refund.
const (
	RefundProcessing = "PROCESSING"
	RefundSuccess    = "SUCCESS"
	RefundFailed     = "FAILED"
)

// RefundOutcome answers Refund.
type RefundOutcome struct {
	RefundNo    string    `json:"refund_no"`
	TradeNo     string    `json:"trade_no"`
	State       string    `json:"state"`
	RefundFen   money.Fen `json:"refund_fen,omitempty"`
	FeeBackFen  money.Fen `json:"fee_back_fen,omitempty"` // part of the merchant's fee that is returned
	RefundedAt  Millis    `json:"refunded_at,omitempty"`
	LedgerNo    string    `json:"ledger_no,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	RefundedFen money.Fen `json:"refunded_fen,omitempty"` // of the whole trade, after this one
	Replayed    bool      `json:"replayed,omitempty"`
}

// Anchored answers Anchor: the ledger holds this head, and says so with its signature.
type Anchored struct {
	Epoch    string    `json:"epoch"`
	Sequence uint64    `json:"sequence"`
	Head     string    `json:"head"`
	Signed   *Envelope `json:"signed,omitempty"` // the head, countersigned
}

// Result is news of a trade that nobody asked for: a customer paid an ORDER, or confirmed. Sequence counts from 1 per
// terminal without gaps; the ledger repeats everything after the Hello's NewsCursor and keeps it until acknowledged.
type Result struct {
	Sequence uint64  `json:"sequence"`
	Outcome  Outcome `json:"outcome"`
}

// Refused is a definite no to one message, which has had no effect and will have none if repeated unchanged, unless
// RetryAfterMillis is set. It does not end the connection.
type Refused struct {
	Code             string `json:"code"`
	Detail           string `json:"detail,omitempty"`
	RetryAfterMillis int64  `json:"retry_after_millis,omitempty"`
}

// The codes of Refused.
const (
	RefusedMalformed    = "MALFORMED"
	RefusedUnknownType  = "UNKNOWN_TYPE"
	RefusedNotYou       = "TERMINAL_MISMATCH"
	RefusedRevoked      = "TERMINAL_REVOKED"
	RefusedRolledBack   = "BOOK_ROLLED_BACK"
	RefusedForked       = "BOOK_FORKED"
	RefusedIDReused     = "ID_REUSED" // the same number with other content
	RefusedBusy         = "BUSY"
	RefusedUnknownTrade = "UNKNOWN_TRADE"
	RefusedInternal     = "LEDGER_ERROR"
	RefusedVersion      = "VERSION"     // no minor version that both speak
	RefusedNotReady     = "NOT_READY"   // the day's bill is not published yet
	RefusedMaintenance  = "MAINTENANCE" // closed for a while
)

// bodies lists, for each message type, a maker of its empty body.
var bodies = map[string]func() any{
	TypeHello: func() any { return new(Hello) }, TypeWelcome: func() any { return new(Welcome) },
	TypePay: func() any { return new(Pay) }, TypeOrder: func() any { return new(Order) },
	TypeQuery: func() any { return new(Query) }, TypeReverse: func() any { return new(Reverse) },
	TypeRefund: func() any { return new(Refund) }, TypeAnchor: func() any { return new(Anchor) },
	TypeAck: func() any { return new(Ack) }, TypeOutcome: func() any { return new(Outcome) },
	TypeRefundOutcome: func() any { return new(RefundOutcome) }, TypeAnchored: func() any { return new(Anchored) },
	TypeResult: func() any { return new(Result) }, TypeRefused: func() any { return new(Refused) },
	TypeUpload: func() any { return new(Upload) }, TypeUploaded: func() any { return new(Uploaded) },
	TypeWant: func() any { return new(Want) }, TypeNews: func() any { return new(News) },
	TypeTime: func() any { return new(Time) }, TypeSignedTime: func() any { return new(SignedTime) },
	TypeStatement: func() any { return new(Statement) }, TypeStatementPage: func() any { return new(StatementPage) },
	TypeMaintenance: func() any { return new(Maintenance) },
}

// types is bodies the other way round.
var types = func() map[reflect.Type]string {
	m := make(map[reflect.Type]string, len(bodies))
	for kind, make := range bodies {
		m[reflect.TypeOf(make()).Elem()] = kind
	}
	return m
}()

// TypeOf names the message type of a body (pointer or value), or "" for anything else.
func TypeOf(body any) string {
	t := reflect.TypeOf(body)
	if t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return types[t]
}

// Encode writes one frame. It fails with ErrUnknownType for a body that is no message, and with ErrTooLong.
func Encode(id, re uint64, body any) ([]byte, error) {
	kind := TypeOf(body)
	if kind == "" {
		return nil, fmt.Errorf("%w: %T", ErrUnknownType, body)
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("wire: encode %s: %w", kind, err)
	}
	out := make([]byte, 0, len(raw)+len(kind)+64)
	out = append(append(append(out, headType...), kind...), '"')
	if id != 0 {
		out = strconv.AppendUint(append(out, headID...), id, 10)
	}
	if re != 0 {
		out = strconv.AppendUint(append(out, headRe...), re, 10)
	}
	out = append(append(append(out, headBody...), raw...), '}')
	if len(out) > MaxFrame {
		return nil, fmt.Errorf("%w: %s of %d bytes", ErrTooLong, kind, len(out))
	}
	return out, nil
}

// A frame as this package writes it. Another order of the fields, or spaces between them, mean the same.
const (
	headType = `{"type":"`
	headID   = `,"id":`
	headRe   = `,"re":`
	headBody = `,"body":`
)

// quick reads a frame that is written as this package writes it, without looking into the body. Whether the body is one
// value, and the frame thereby one, is for whoever decodes it; any doubt is not ok.
func quick(data []byte) (f Frame, ok bool) {
	rest, ok := bytes.CutPrefix(data, []byte(headType))
	end := bytes.IndexByte(rest, '"')
	if !ok || end < 1 {
		return f, false
	}
	for _, c := range rest[:end] {
		if c != '_' && (c < 'a' || c > 'z') {
			return f, false
		}
	}
	f.Type, rest = string(rest[:end]), rest[end+1:]
	if f.ID, rest, ok = quickNumber(rest, headID); !ok {
		return f, false
	}
	if f.Re, rest, ok = quickNumber(rest, headRe); !ok {
		return f, false
	}
	rest, ok = bytes.CutPrefix(rest, []byte(headBody))
	if !ok || len(rest) < 3 || rest[0] != '{' || rest[len(rest)-1] != '}' {
		return f, false
	}
	f.Body = rest[:len(rest)-1]
	return f, true
}

// quickNumber reads a field that may be left out: 1 to 18 digits, the first not 0.
func quickNumber(data []byte, head string) (n uint64, rest []byte, ok bool) {
	rest, ok = bytes.CutPrefix(data, []byte(head))
	if !ok {
		return 0, data, true
	}
	digits := 0
	for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
		n = n*10 + uint64(rest[digits]-'0')
		if digits++; digits > 18 {
			return 0, data, false
		}
	}
	return n, rest[digits:], digits > 0 && rest[0] != '0'
}

// Decode reads one frame. The body is a pointer to the struct of its type. With ErrUnknownType the frame is returned all
// the same, so that the receiver can refuse it by name.
func Decode(data []byte) (Frame, any, error) {
	if len(data) > MaxFrame {
		return Frame{}, nil, fmt.Errorf("%w: %d bytes", ErrTooLong, len(data))
	}
	if f, ok := quick(data); ok && bodies[f.Type] != nil {
		body := bodies[f.Type]()
		if err := json.Unmarshal(f.Body, body); err == nil {
			return f, body, nil
		}
	}
	return decode(data)
}

// decode reads any frame.
func decode(data []byte) (Frame, any, error) {
	var f Frame
	if err := json.Unmarshal(data, &f); err != nil || f.Type == "" {
		return Frame{}, nil, fmt.Errorf("%w: %d bytes", ErrMalformed, len(data))
	}
	make, known := bodies[f.Type]
	if !known {
		return f, nil, fmt.Errorf("%w: %.40q", ErrUnknownType, f.Type)
	}
	body := make()
	if raw := bytes.TrimSpace(f.Body); len(raw) == 0 || raw[0] != '{' {
		return f, nil, fmt.Errorf("%w: %s without a body", ErrMalformed, f.Type)
	}
	// The error of encoding/json may quote the input, which may hold a pay code: only the type is named.
	if err := json.Unmarshal(f.Body, body); err != nil {
		return f, nil, fmt.Errorf("%w: body of %s", ErrMalformed, f.Type)
	}
	return f, body, nil
}

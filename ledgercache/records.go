package ledgercache

import (
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	"yupos/ledgercache/payment"
)

// recordKind says what a record of the journal tells. The numbers are the form on disk and are never reused.
type recordKind uint8

// The kinds of records.
const (
	recStarted        recordKind = 1  // this process opened the book
	recShiftOpened    recordKind = 2  //
	recShiftClosed    recordKind = 3  //
	recDayClosed      recordKind = 4  // a Z, with its figures
	recOpened         recordKind = 10 // the payment.Event of the same name, and so on
	recSubmitted      recordKind = 11
	recRejected       recordKind = 12
	recAsked          recordKind = 13
	recAnswered       recordKind = 14
	recCancelWanted   recordKind = 15
	recExpired        recordKind = 16
	recAccepted       recordKind = 17
	recWithdrawn      recordKind = 18
	recReceiptShown   recordKind = 19
	recRefundOpened   recordKind = 20
	recRefundAsked    recordKind = 21
	recRefundAnswer   recordKind = 22
	recReceiptRefused recordKind = 24
	recDigitsTyped    recordKind = 25
	recDigitsMatched  recordKind = 26
	recOrderShown     recordKind = 27
	recPrintQueued    recordKind = 30
	recPrintSent      recordKind = 31
	recPrintDone      recordKind = 32
	recAnchored       recordKind = 40
	recNews           recordKind = 41 // a push that told nothing new moved the news cursor
	recLearned        recordKind = 42 // signed news that are now in force
	recTime           recordKind = 43 // the ledger's signed time with the machine's boot clock: the last journalled time counts from here
	recAlarm          recordKind = 50 // something contradicts what is certain; a person must look
)

// record is one entry of the journal in its decoded form.
type record struct {
	Kind recordKind      `cbor:"1,keyasint"`
	At   int64           `cbor:"2,keyasint"` // Unix milliseconds
	Body cbor.RawMessage `cbor:"3,keyasint"`

	event payment.Event // of a record that is one and was decoded
}

func (r record) at() time.Time { return time.UnixMilli(r.At).UTC() }

// The bodies that are not a payment.Event.
type (
	started struct {
		Software string `cbor:"1,keyasint,omitempty"`
	}
	shiftOpened struct {
		ID         string `cbor:"1,keyasint"`
		Number     uint64 `cbor:"2,keyasint"`
		OperatorID string `cbor:"3,keyasint,omitempty"`
	}
	shiftClosed struct {
		ID         string  `cbor:"1,keyasint"`
		OperatorID string  `cbor:"2,keyasint,omitempty"`
		Carried    Carried `cbor:"3,keyasint,omitzero"` // what was open
	}
	refundAsked struct {
		RefundNo string `cbor:"1,keyasint"`
	}
	printQueued struct {
		ID         string `cbor:"1,keyasint"`
		TradeNo    string `cbor:"2,keyasint"`
		RefundNo   string `cbor:"3,keyasint,omitempty"`
		Copy       int    `cbor:"4,keyasint"`
		OperatorID string `cbor:"5,keyasint,omitempty"`
	}
	printSent struct {
		ID string `cbor:"1,keyasint"`
	}
	printDone struct {
		ID    string     `cbor:"1,keyasint"`
		State PrintState `cbor:"2,keyasint"`
	}
	news struct {
		Sequence uint64 `cbor:"1,keyasint"`
	}
)

// Alarm is something that contradicts what is certain here, kept for a person to look at.
type Alarm struct {
	ID      string    `cbor:"1,keyasint"`
	At      time.Time `cbor:"2,keyasint"`
	Code    string    `cbor:"3,keyasint"`
	TradeNo string    `cbor:"4,keyasint,omitempty"`
	Detail  string    `cbor:"5,keyasint,omitempty"`
	News    uint64    `cbor:"6,keyasint,omitempty"`
}

// encMode writes canonical CBOR with times as RFC 3339 text: exact, and the same bytes for the same value.
// decMode bounds what a record may make the decoder allocate.
var (
	encMode = mustEnc()
	decMode = mustDec()
)

func mustEnc() cbor.EncMode {
	m, err := cbor.EncOptions{Sort: cbor.SortCoreDeterministic, Time: cbor.TimeRFC3339Nano}.EncMode()
	if err != nil {
		panic(err) // the options are constants: this cannot happen in a built program
	}
	return m
}

func mustDec() cbor.DecMode {
	m, err := cbor.DecOptions{MaxArrayElements: 4096, MaxMapPairs: 4096, MaxNestedLevels: 8, DupMapKey: cbor.DupMapKeyEnforcedAPF}.DecMode()
	if err != nil {
		panic(err)
	}
	return m
}

func encodeRecord(kind recordKind, at time.Time, body any) ([]byte, error) {
	raw, err := encMode.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode record %d: %w", kind, err)
	}
	return encMode.Marshal(record{Kind: kind, At: at.UnixMilli(), Body: raw})
}

func decodeRecord(raw []byte) (r record, err error) {
	if err := decMode.Unmarshal(raw, &r); err != nil {
		return r, fmt.Errorf("decode record: %w", err)
	}
	r.event, _, err = eventOf(r)
	return r, err
}

func body[T any](r record) (T, error) {
	var v T
	if err := decMode.Unmarshal(r.Body, &v); err != nil {
		return v, fmt.Errorf("decode record of kind %d: %w", r.Kind, err)
	}
	return v, nil
}

// kindOf gives the record kind of a payment event.
func kindOf(e payment.Event) recordKind {
	switch e.(type) {
	case payment.Opened:
		return recOpened
	case payment.Submitted:
		return recSubmitted
	case payment.Rejected:
		return recRejected
	case payment.Asked:
		return recAsked
	case payment.Answered:
		return recAnswered
	case payment.CancelWanted:
		return recCancelWanted
	case payment.Expired:
		return recExpired
	case payment.OrderShown:
		return recOrderShown
	case payment.Accepted:
		return recAccepted
	case payment.Withdrawn:
		return recWithdrawn
	case payment.ReceiptShown:
		return recReceiptShown
	case payment.ReceiptRefused:
		return recReceiptRefused
	case payment.DigitsTyped:
		return recDigitsTyped
	case payment.DigitsMatched:
		return recDigitsMatched
	}
	return 0
}

// eventOf decodes the payment event of a record; ok is false for records that are none.
func eventOf(r record) (e payment.Event, ok bool, err error) {
	if r.event != nil {
		return r.event, true, nil
	}
	switch r.Kind {
	case recOpened:
		e, err = body[payment.Opened](r)
	case recSubmitted:
		e, err = body[payment.Submitted](r)
	case recRejected:
		e, err = body[payment.Rejected](r)
	case recAsked:
		e, err = body[payment.Asked](r)
	case recAnswered:
		e, err = body[payment.Answered](r)
	case recCancelWanted:
		e, err = body[payment.CancelWanted](r)
	case recExpired:
		e, err = body[payment.Expired](r)
	case recOrderShown:
		e, err = body[payment.OrderShown](r)
	case recAccepted:
		e, err = body[payment.Accepted](r)
	case recWithdrawn:
		e, err = body[payment.Withdrawn](r)
	case recReceiptShown:
		e, err = body[payment.ReceiptShown](r)
	case recReceiptRefused:
		e, err = body[payment.ReceiptRefused](r)
	case recDigitsTyped:
		e, err = body[payment.DigitsTyped](r)
	case recDigitsMatched:
		e, err = body[payment.DigitsMatched](r)
	default:
		return nil, false, nil
	}
	return e, true, err
}

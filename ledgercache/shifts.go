package ledgercache

import (
	"context"
	"errors"
	"time"
)

// Shift is one cashier's turn (交班), with the totals of what settled in it, in fen.
type Shift struct {
	ID         string    `cbor:"1,keyasint"` // ULID
	Number     uint64    `cbor:"2,keyasint"` // counts up by one, without gaps
	OperatorID string    `cbor:"3,keyasint,omitempty"`
	OpenedAt   time.Time `cbor:"4,keyasint"`
	ClosedAt   time.Time `cbor:"5,keyasint,omitzero"`
	ClosedBy   string    `cbor:"6,keyasint,omitempty"`
	AtClose    Totals    `cbor:"18,keyasint,omitzero"` // the figures as its slip printed them
	Totals               // as they are now: a trade that ends later still counts in the shift in which it began
}

// shiftFor is the open shift's id; with ShiftAutoOpen the first sale opens one for its operator.
func (t *tx) shiftFor(operator string) (string, error) {
	raw, err := t.state.get(keyShift)
	if err == nil {
		return idText(raw), nil
	}
	if !errors.Is(err, ErrNotFound) {
		return "", err
	}
	if !t.book.opts.ShiftAutoOpen {
		return "", ErrNoShift
	}
	s, err := t.openShift(operator)
	return s.ID, err
}

func (t *tx) openShift(operator string) (Shift, error) {
	number, err := t.lastShiftNumber()
	if err != nil {
		return Shift{}, err
	}
	e := shiftOpened{ID: NewTradeNo(t.at), Number: number + 1, OperatorID: operator}
	if err := t.emit(recShiftOpened, e); err != nil {
		return Shift{}, err
	}
	return t.shift(e.ID)
}

// OpenShift opens a shift for the operator, or fails with ErrShiftOpen.
func (b *Book) OpenShift(ctx context.Context, operator string) (s Shift, err error) {
	err = b.do(ctx, func(t *tx) error {
		if _, err := t.state.get(keyShift); err == nil {
			return ErrShiftOpen
		}
		if err := t.takesNew(); err != nil {
			return err
		}
		s, err = t.openShift(operator)
		return err
	})
	return s, err
}

// CloseShift closes the shift with this id, which must be the open one (ErrNoShift otherwise), answers its totals, and makes
// the journal's head durable as a witness. Trades that are still open keep the shift in which they began; they are listed
// in its report (ShiftReport).
func (b *Book) CloseShift(ctx context.Context, shiftID, operator string) (s Shift, err error) {
	defer func() {
		if err == nil {
			b.witness()
		}
	}()
	err = b.do(ctx, func(t *tx) error {
		raw, err := t.state.get(keyShift)
		if errors.Is(err, ErrNotFound) || err == nil && idText(raw) != shiftID {
			return ErrNoShift
		}
		if err != nil {
			return err
		}
		r, err := shiftReport(t.state, shiftID)
		if err != nil {
			return err
		}
		if err := t.emit(recShiftClosed, shiftClosed{ID: shiftID, OperatorID: operator, Carried: r.Carried}); err != nil {
			return err
		}
		s, err = t.shift(shiftID)
		return err
	})
	return s, err
}

func (t *tx) shift(shiftID string) (s Shift, err error) {
	shift, err := id(shiftID)
	if err != nil {
		return s, err
	}
	return s, get(t.state, key(prefixShift, shift), &s)
}

// lastShiftNumber looks at all shifts, a few a day: after the clock was set back the newest number is not the last key.
func (t *tx) lastShiftNumber() (uint64, error) {
	var last uint64
	err := t.state.scan(prefixShift, nil, true, func(_, value []byte) (bool, error) {
		var s Shift
		if err := decMode.Unmarshal(value, &s); err != nil {
			return false, err
		}
		last = max(last, s.Number)
		return true, nil
	})
	return last, err
}

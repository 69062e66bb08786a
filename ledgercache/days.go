package ledgercache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
)

// This file closes shifts and days. X and Z come from one function, so that they cannot drift apart. Every figure stands on
// exactly one Z: on that of its bill day, or, where it came after it, on the next.

// Errors of closing a day.
var (
	// ErrDayClosed says that a later day has a Z already: the figures of this one stand on it, or on the next.
	ErrDayClosed = errors.New("ledgercache: a later day is closed")
	// ErrDayAhead says that the day has not begun in Shanghai.
	ErrDayAhead = errors.New("ledgercache: the day has not begun")
)

// maxListed is how many open things a report lists by name; all are counted.
const maxListed = 500

// Carried is what is still open when a shift or day ends: it is carried forward and never orphaned. Count and Fen are of
// all, Items the oldest 500.
type Carried struct {
	Count int           `cbor:"1,keyasint,omitempty"`
	Fen   money.Fen     `cbor:"2,keyasint,omitempty"`
	Items []CarriedItem `cbor:"3,keyasint,omitempty"`
}

// CarriedItem is one open trade or, with RefundNo, one open refund.
type CarriedItem struct {
	TradeNo    string        `cbor:"1,keyasint"`
	OutTradeNo string        `cbor:"2,keyasint,omitempty"`
	RefundNo   string        `cbor:"3,keyasint,omitempty"`
	State      payment.State `cbor:"4,keyasint,omitempty"` // of the trade; SUCCESS is settled by evidence and to be confirmed
	Fen        money.Fen     `cbor:"5,keyasint"`
	At         time.Time     `cbor:"6,keyasint"` // since when
}

// DayPart is what a Z has of one bill day.
type DayPart struct {
	Date string `cbor:"1,keyasint"`
	Totals
}

// DayReport is an X (Number 0) or a Z (日结). Z numbers count up by one, without gaps, and a Z never changes.
type DayReport struct {
	Number     uint64    `cbor:"1,keyasint,omitempty"`
	Date       string    `cbor:"2,keyasint"`           // the bill day that it closes
	At         time.Time `cbor:"3,keyasint"`           // when it was made
	OperatorID string    `cbor:"4,keyasint,omitempty"` // who closed the day
	Head       Cursor    `cbor:"5,keyasint"`           // the journal before the group of steps that closed the day
	Parts      []DayPart `cbor:"6,keyasint,omitempty"` // by bill day, oldest first: days before Date are late figures
	Carried    Carried   `cbor:"20,keyasint,omitzero"` // open at that time
	Totals               // the sum of Parts
}

// dayReport is the one function behind X and Z: every figure up to the day that stands on no Z, and what is open.
func dayReport(s state, date string, at time.Time) (r DayReport, err error) {
	r = DayReport{Date: date, At: at}
	err = s.scan(prefixDayOpen, nil, false, func(k, _ []byte) (bool, error) {
		day := string(k[len(prefixDayOpen):])
		if day > date {
			return false, nil
		}
		d, err := dayAt(s, day)
		if err != nil {
			return false, err
		}
		left, err := d.less(d.InZ)
		if err != nil {
			return false, err
		}
		r.Parts = append(r.Parts, DayPart{day, left})
		return true, r.plus(left)
	})
	if err != nil {
		return r, err
	}
	r.Carried, err = carried(s, "")
	return r, err
}

// carried lists what is open of a shift, or of all with "": trades first, each oldest first.
func carried(s state, shiftID string) (c Carried, err error) {
	err = eachOpenTrade(s, func(p payment.Payment) error {
		if shiftID != "" && p.ShiftID != shiftID {
			return nil
		}
		return c.add(CarriedItem{TradeNo: p.TradeNo, OutTradeNo: p.OutTradeNo, State: p.State, Fen: p.TotalFen, At: p.CreatedAt})
	})
	if err != nil {
		return c, err
	}
	err = eachOpenRefund(s, func(f payment.Refund) error {
		if shiftID != "" && f.ShiftID != shiftID {
			return nil
		}
		return c.add(CarriedItem{TradeNo: f.TradeNo, OutTradeNo: f.OutTradeNo, RefundNo: f.RefundNo, Fen: f.RefundFen, At: f.CreatedAt})
	})
	return c, err
}

func (c *Carried) add(i CarriedItem) (err error) {
	c.Count++
	if len(c.Items) < maxListed {
		c.Items = append(c.Items, i)
	}
	c.Fen, err = money.Add(c.Fen, i.Fen)
	return err
}

// XReport is what a Z of the day would say now. It changes nothing. It fails with ErrQuery for what is no date.
func (b *Book) XReport(date string) (r DayReport, err error) {
	if !isDate(date) {
		return r, fmt.Errorf("%w: %.10q is no date", ErrQuery, date)
	}
	err = b.view(func(s state) error {
		r, err = dayReport(s, date, b.now())
		return err
	})
	r.Head = b.Position()
	return r, err
}

// CloseDay closes a bill day with the next Z, which takes every figure up to that day that stands on no Z yet, and makes
// the journal's head durable as a witness. A day that is closed already answers its Z and replayed = true.
//
// It fails with ErrQuery, ErrDayAhead, ErrDayClosed, or with what Err says.
func (b *Book) CloseDay(ctx context.Context, date, operator string) (z DayReport, replayed bool, err error) {
	if !isDate(date) {
		return z, false, fmt.Errorf("%w: %.10q is no date", ErrQuery, date)
	}
	err = b.do(ctx, func(t *tx) error {
		z, replayed, err = t.closeDay(date, operator)
		return err
	})
	if err == nil && !replayed {
		b.witness()
	}
	return z, replayed, err
}

func (t *tx) closeDay(date, operator string) (z DayReport, replayed bool, err error) {
	if date > payment.Day(t.at) {
		return z, false, ErrDayAhead
	}
	d, err := dayAt(t.state, date)
	if err != nil {
		return z, false, err
	}
	if d.Z > 0 {
		z, err = zAt(t.state, d.Z)
		return z, true, err
	}
	last, err := lastZ(t.state)
	if err != nil {
		return z, false, err
	}
	if last.Date > date {
		return z, false, fmt.Errorf("%w: Z%06d closed %s", ErrDayClosed, last.Number, last.Date)
	}
	if z, err = dayReport(t.state, date, t.at); err != nil {
		return z, false, err
	}
	z.Number, z.OperatorID, z.Head = last.Number+1, operator, cursorOf(t.book.journal.Head())
	return z, false, t.emit(recDayClosed, z)
}

// witness makes the head durable as a witness of its own after a shift or day was closed. What was closed is durable
// already; a disk that fails here seals the book.
func (b *Book) witness() {
	if err := b.journal.SyncHead(); err != nil {
		b.seal(fmt.Errorf("journal: %w", err))
	}
}

// foldDayClosed files a Z. Its figures are those that were journalled, because they were printed.
func foldDayClosed(s state, r record) ([]Change, error) {
	z, err := body[DayReport](r)
	if err != nil {
		return nil, err
	}
	last, err := lastZ(s)
	if err != nil {
		return nil, err
	}
	if z.Number != last.Number+1 || z.Date < last.Date {
		return nil, fmt.Errorf("%w: Z%06d of %s after Z%06d of %s", payment.ErrIllegalMove, z.Number, z.Date, last.Number, last.Date)
	}
	for _, part := range z.Parts {
		if err := changeDay(s, part.Date, func(d *Day) error { return d.InZ.plus(part.Totals) }); err != nil {
			return nil, err
		}
	}
	if err := changeDay(s, z.Date, func(d *Day) error { d.Z = z.Number; return nil }); err != nil {
		return nil, err
	}
	return []Change{{Kind: ChangeDay}}, put(s, zKey(z.Number), z)
}

func zKey(number uint64) []byte { return key(prefixZ, binary.BigEndian.AppendUint64(nil, number)) }

func zAt(s state, number uint64) (z DayReport, err error) { return z, get(s, zKey(number), &z) }

// lastZ is the last Z, or a zero one before the first.
func lastZ(s state) (z DayReport, err error) {
	err = s.scan(prefixZ, nil, true, func(_, value []byte) (bool, error) { return false, decMode.Unmarshal(value, &z) })
	return z, err
}

// Z is the Z with this number, or ErrNotFound; 0 asks for the last one.
func (b *Book) Z(number uint64) (z DayReport, err error) {
	err = b.view(func(s state) error {
		if number > 0 {
			z, err = zAt(s, number)
			return err
		}
		if z, err = lastZ(s); err == nil && z.Number == 0 {
			return ErrNotFound
		}
		return err
	})
	return z, err
}

// ShiftReport is a shift with what is or was open of it: while it is open, an X; once it is closed, what its slip said
// (Shift.AtClose and Carried) beside the figures as they are now (Shift.Totals).
type ShiftReport struct {
	Shift
	Carried Carried
}

// ShiftReport reads the report of a shift, or ErrNotFound.
func (b *Book) ShiftReport(shiftID string) (r ShiftReport, err error) {
	err = b.view(func(s state) error {
		r, err = shiftReport(s, shiftID)
		return err
	})
	return r, err
}

func shiftReport(s state, shiftID string) (r ShiftReport, err error) {
	if r.Shift, err = (&tx{state: s}).shift(shiftID); err != nil {
		return r, err
	}
	if r.ClosedAt.IsZero() {
		r.Carried, err = carried(s, shiftID)
		return r, err
	}
	shift, err := id(shiftID)
	if err != nil {
		return r, err
	}
	if err := get(s, key(prefixCarried, shift), &r.Carried); !errors.Is(err, ErrNotFound) {
		return r, err
	}
	return r, nil // nothing was open
}

// Shifts are the shifts that were opened in from ≤ t < to, newest first, at most 500; the zero time is no bound.
func (b *Book) Shifts(from, to time.Time) (list []Shift, err error) {
	err = b.view(func(s state) error {
		return s.scan(prefixShift, nil, true, func(_, value []byte) (bool, error) {
			var shift Shift
			if err := decMode.Unmarshal(value, &shift); err != nil {
				return false, err
			}
			if !from.IsZero() && shift.OpenedAt.Before(from) {
				return false, nil
			}
			if to.IsZero() || shift.OpenedAt.Before(to) {
				list = append(list, shift)
			}
			return len(list) < maxListed, nil
		})
	})
	return list, err
}

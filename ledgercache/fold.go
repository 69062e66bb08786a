package ledgercache

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"yupos/ledgercache/journal"
	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
	"yupos/ledgercache/trust"
)

// fold applies one record to the derived state. It is the only way that state comes to be, live or rebuilt, and depends
// on nothing but the state and the record.
func fold(s state, r record) ([]Change, error) {
	if e, ok, err := eventOf(r); err != nil {
		return nil, err
	} else if ok {
		return foldTrade(s, r, e)
	}
	switch r.Kind {
	case recStarted:
		_, err := body[started](r)
		return nil, err
	case recShiftOpened, recShiftClosed:
		return foldShift(s, r)
	case recDayClosed:
		return foldDayClosed(s, r)
	case recRefundOpened, recRefundAsked, recRefundAnswer:
		return foldRefund(s, r)
	case recPrintQueued, recPrintSent, recPrintDone:
		return foldPrint(s, r)
	case recAnchored:
		c, err := body[Cursor](r)
		if err != nil {
			return nil, err
		}
		if err := reached(s); err != nil {
			return nil, err
		}
		return []Change{{Kind: ChangeCursor}}, put(s, keyCursor, c)
	case recNews:
		n, err := body[news](r)
		if err != nil {
			return nil, err
		}
		return nil, putNews(s, n.Sequence)
	case recLearned:
		return foldLearned(s, r)
	case recTime:
		m, err := body[trust.TimeMark](r)
		if err != nil {
			return nil, err
		}
		return nil, put(s, keyTime, m)
	case recAlarm:
		return foldAlarm(s, r)
	}
	return nil, fmt.Errorf("ledgercache: record of unknown kind %d", r.Kind)
}

func foldTrade(s state, r record, e payment.Event) ([]Change, error) {
	trade, err := id(payment.TradeOf(e))
	if err != nil {
		return nil, err
	}
	var before, after payment.Payment
	var was []entry
	if opened, ok := e.(payment.Opened); ok {
		if after, err = payment.Open(opened, r.at()); err != nil {
			return nil, err
		}
		before = after
		if err := s.set(key(prefixOutTrade, []byte(after.OutTradeNo)), trade); err != nil {
			return nil, err
		}
	} else {
		if err := get(s, key(prefixTrade, trade), &before); err != nil {
			return nil, err
		}
		if after, err = payment.Apply(before, e, r.at()); err != nil {
			return nil, err
		}
		was = entries(before, trade)
	}
	if err := foldEvent(s, trade, e, r.at()); err != nil {
		return nil, err
	}
	if err := foldExposure(s, before, after); err != nil {
		return nil, err
	}
	if err := foldTradeBooks(s, before, e, after); err != nil {
		return nil, err
	}
	return []Change{{Kind: ChangeTrade, TradeNo: after.TradeNo}}, putTrade(s, trade, was, after)
}

// foldEvent folds what an event touches besides its trade: spent codes, the news cursor, tries of typed digits.
func foldEvent(s state, trade []byte, e payment.Event, at time.Time) error {
	switch e := e.(type) {
	case payment.Submitted:
		spent := sha256.Sum256([]byte(e.Code))
		if err := s.set(key(prefixSpent, spent[:]), nil); err != nil {
			return err
		}
		if len(e.Wallet) > 0 {
			return s.set(key(prefixWallet, e.Wallet), binary.BigEndian.AppendUint32(nil, e.Counter))
		}
	case payment.Answered:
		if e.News > 0 {
			if err := putNews(s, e.News); err != nil {
				return err
			}
		}
		return reached(s)
	case payment.Accepted:
		return foldAccepted(s, trade, e)
	case payment.DigitsTyped:
		return foldDigits(s, at)
	case payment.DigitsMatched:
		return reached(s)
	}
	return nil
}

// putTrade writes a trade and what changed of the indexes that lead to it. was are the entries before.
func putTrade(s state, trade []byte, was []entry, p payment.Payment) error {
	if err := put(s, key(prefixTrade, trade), p); err != nil {
		return err
	}
	if err := index(s, was, entries(p, trade)); err != nil {
		return err
	}
	return putCounter(s, trade, p)
}

// putCounter keeps the counter's holder: one trade at a time, free at once when it is final, cancelled or expired.
func putCounter(s state, trade []byte, p payment.Payment) error {
	holder, err := s.get(keyCounter)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	switch {
	case p.HoldsCounter() && string(holder) == string(trade):
		return nil
	case p.HoldsCounter():
		return s.set(keyCounter, trade)
	case string(holder) == string(trade):
		return s.delete(keyCounter)
	}
	return nil
}

func foldShift(s state, r record) ([]Change, error) {
	changed := []Change{{Kind: ChangeShift}}
	if r.Kind == recShiftOpened {
		e, err := body[shiftOpened](r)
		if err != nil {
			return nil, err
		}
		shift, err := id(e.ID)
		if err != nil {
			return nil, err
		}
		if err := s.set(keyShift, shift); err != nil {
			return nil, err
		}
		return changed, put(s, key(prefixShift, shift), Shift{ID: e.ID, Number: e.Number, OperatorID: e.OperatorID, OpenedAt: r.at()})
	}
	e, err := body[shiftClosed](r)
	if err != nil {
		return nil, err
	}
	return changed, foldShiftClosed(s, r, e)
}

func foldShiftClosed(s state, r record, e shiftClosed) error {
	err := addToShift(s, e.ID, func(shift *Shift) error {
		shift.ClosedAt, shift.ClosedBy, shift.AtClose = r.at(), e.OperatorID, shift.Totals
		return nil
	})
	if err != nil {
		return err
	}
	if e.Carried.Count > 0 {
		shift, err := id(e.ID)
		if err != nil {
			return err
		}
		if err := put(s, key(prefixCarried, shift), e.Carried); err != nil {
			return err
		}
	}
	return s.delete(keyShift)
}

func addToShift(s state, shiftID string, change func(*Shift) error) error {
	id, err := id(shiftID)
	if err != nil {
		return err
	}
	var shift Shift
	if err := get(s, key(prefixShift, id), &shift); err != nil {
		return err
	}
	if err := change(&shift); err != nil {
		return err
	}
	return put(s, key(prefixShift, id), shift)
}

func foldRefund(s state, r record) ([]Change, error) {
	switch r.Kind {
	case recRefundOpened:
		e, err := body[payment.Refund](r)
		if err != nil {
			return nil, err
		}
		e.CreatedAt, e.State = r.at(), payment.RefundProcessing
		return foldRefundOpened(s, e)
	case recRefundAsked:
		e, err := body[refundAsked](r)
		if err != nil {
			return nil, err
		}
		return changeRefund(s, e.RefundNo, func(f *payment.Refund) error { f.Asks++; f.LastAskAt = r.at(); return nil })
	case recRefundAnswer:
		e, err := body[payment.RefundAnswered](r)
		if err != nil {
			return nil, err
		}
		return foldRefundAnswered(s, e)
	}
	return nil, fmt.Errorf("ledgercache: record of unknown kind %d", r.Kind)
}

func foldRefundOpened(s state, f payment.Refund) ([]Change, error) {
	refund, err := id(f.RefundNo)
	if err != nil {
		return nil, err
	}
	trade, err := id(f.TradeNo)
	if err != nil {
		return nil, err
	}
	for _, k := range [][]byte{key(prefixTradeRefund, trade, refund), key(prefixOpenRefund, refund)} {
		if err := s.set(k, nil); err != nil {
			return nil, err
		}
	}
	if err := s.set(key(prefixOutRefund, []byte(f.OutRefundNo)), refund); err != nil {
		return nil, err
	}
	if err := put(s, key(prefixRefund, refund), f); err != nil {
		return nil, err
	}
	set, err := payment.OpenedRefund(f)
	if err != nil {
		return nil, err
	}
	if err := foldBooks(s, "", set, tally{}, tally{}); err != nil {
		return nil, err
	}
	err = changeTrade(s, trade, func(p *payment.Payment) error {
		p.RefundParts++
		p.RefundingFen, err = money.Add(p.RefundingFen, f.RefundFen)
		return err
	})
	return refundChanges(f), err
}

func foldRefundAnswered(s state, e payment.RefundAnswered) ([]Change, error) {
	var before, after payment.Refund
	changes, err := changeRefund(s, e.RefundNo, func(f *payment.Refund) (err error) {
		before = *f
		*f, err = payment.ApplyRefund(*f, e)
		after = *f
		return err
	})
	if err != nil {
		return nil, err
	}
	trade, err := id(after.TradeNo)
	if err != nil {
		return nil, err
	}
	err = changeTrade(s, trade, func(p *payment.Payment) error {
		p.RefundingFen -= after.RefundFen
		if after.State == payment.RefundSuccess {
			p.RefundedFen += after.RefundFen
			p.FeeBackFen += after.FeeBackFen
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	set, err := payment.RefundPostings(before, after)
	if err != nil {
		return nil, err
	}
	return changes, foldBooks(s, after.ShiftID, set, tallyRefund(before), tallyRefund(after))
}

func refundChanges(f payment.Refund) []Change {
	return []Change{{Kind: ChangeRefund, RefundNo: f.RefundNo, TradeNo: f.TradeNo}}
}

func changeRefund(s state, refundNo string, change func(*payment.Refund) error) ([]Change, error) {
	refund, err := id(refundNo)
	if err != nil {
		return nil, err
	}
	var f payment.Refund
	if err := get(s, key(prefixRefund, refund), &f); err != nil {
		return nil, err
	}
	if err := change(&f); err != nil {
		return nil, err
	}
	if f.Final() {
		if err := s.delete(key(prefixOpenRefund, refund)); err != nil {
			return nil, err
		}
	}
	return refundChanges(f), put(s, key(prefixRefund, refund), f)
}

func changeTrade(s state, trade []byte, change func(*payment.Payment) error) error {
	var p payment.Payment
	if err := get(s, key(prefixTrade, trade), &p); err != nil {
		return err
	}
	if err := change(&p); err != nil {
		return err
	}
	return put(s, key(prefixTrade, trade), p)
}

func foldPrint(s state, r record) ([]Change, error) {
	switch r.Kind {
	case recPrintQueued:
		e, err := body[printQueued](r)
		if err != nil {
			return nil, err
		}
		return foldPrintQueued(s, r, e)
	case recPrintSent:
		e, err := body[printSent](r)
		if err != nil {
			return nil, err
		}
		return changePrint(s, e.ID, PrintSent, r)
	case recPrintDone:
		e, err := body[printDone](r)
		if err != nil {
			return nil, err
		}
		return changePrint(s, e.ID, e.State, r)
	}
	return nil, fmt.Errorf("ledgercache: record of unknown kind %d", r.Kind)
}

func foldPrintQueued(s state, r record, e printQueued) ([]Change, error) {
	job, err := id(e.ID)
	if err != nil {
		return nil, err
	}
	trade, err := id(e.TradeNo)
	if err != nil {
		return nil, err
	}
	if err := s.set(key(prefixOpenPrint, job), nil); err != nil {
		return nil, err
	}
	j := PrintJob{ID: e.ID, TradeNo: e.TradeNo, RefundNo: e.RefundNo, Copy: e.Copy, OperatorID: e.OperatorID, State: PrintQueued, QueuedAt: r.at()}
	if err := putJob(s, job, j); err != nil {
		return nil, err
	}
	if e.RefundNo == "" {
		err = changeTrade(s, trade, func(p *payment.Payment) error { p.Copies = e.Copy; return nil })
	}
	return []Change{{Kind: ChangePrint, TradeNo: e.TradeNo, JobID: e.ID}}, err
}

func changePrint(s state, jobID string, state PrintState, r record) ([]Change, error) {
	job, err := id(jobID)
	if err != nil {
		return nil, err
	}
	j, err := jobAt(s, job)
	if err != nil {
		return nil, err
	}
	if j.State.Final() {
		return nil, fmt.Errorf("%w: print job is %s", payment.ErrIllegalMove, j.State)
	}
	j.State, j.ChangedAt = state, r.at()
	if state.Final() {
		if err := s.delete(key(prefixOpenPrint, job)); err != nil {
			return nil, err
		}
	}
	return []Change{{Kind: ChangePrint, TradeNo: j.TradeNo, JobID: j.ID}}, putJob(s, job, j)
}

func foldAlarm(s state, r record) ([]Change, error) {
	a, err := body[Alarm](r)
	if err != nil {
		return nil, err
	}
	alarm, err := id(a.ID)
	if err != nil {
		return nil, err
	}
	a.At = r.at()
	if a.News > 0 {
		if err := putNews(s, a.News); err != nil {
			return nil, err
		}
	}
	return []Change{{Kind: ChangeAlarm, TradeNo: a.TradeNo}}, put(s, key(prefixAlarm, alarm), a)
}

// putNews moves the news cursor, never back.
func putNews(s state, sequence uint64) error {
	have, err := newsCursor(s)
	if err != nil || sequence <= have {
		return err
	}
	return s.set(keyNews, binary.BigEndian.AppendUint64(nil, sequence))
}

func newsCursor(s state) (uint64, error) {
	raw, err := s.get(keyNews)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	if err != nil || len(raw) != 8 {
		return 0, err
	}
	return binary.BigEndian.Uint64(raw), nil
}

// appliedMark is how far the cache has followed the journal.
type appliedMark struct {
	Epoch    [16]byte `cbor:"1,keyasint"`
	Sequence uint64   `cbor:"2,keyasint"`
	Hash     [32]byte `cbor:"3,keyasint"`
	At       int64    `cbor:"4,keyasint,omitempty"` // the latest time of a record, Unix milliseconds
}

func putApplied(s state, h journal.Head, at int64) error {
	return put(s, keyApplied, appliedMark{Epoch: h.Epoch, Sequence: h.Sequence, Hash: h.Hash, At: at})
}

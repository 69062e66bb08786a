package ledgercache

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"yupos/ledgercache/journal"
	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
)

// fold applies one record to the derived state. It is the only way that state comes to be, live or rebuilt, and depends
// on nothing but the state and the record.
func fold(txn *badger.Txn, r record) ([]Change, error) {
	if e, ok, err := eventOf(r); err != nil {
		return nil, err
	} else if ok {
		return foldTrade(txn, r, e)
	}
	switch r.Kind {
	case recStarted:
		_, err := body[started](r)
		return nil, err
	case recShiftOpened, recShiftClosed:
		return foldShift(txn, r)
	case recRefundOpened, recRefundAsked, recRefundAnswer:
		return foldRefund(txn, r)
	case recPrintQueued, recPrintSent, recPrintDone:
		return foldPrint(txn, r)
	case recAnchored:
		c, err := body[Cursor](r)
		if err != nil {
			return nil, err
		}
		return []Change{{Kind: ChangeCursor}}, put(txn, keyCursor, c)
	case recNews:
		n, err := body[news](r)
		if err != nil {
			return nil, err
		}
		return nil, putNews(txn, n.Sequence)
	case recAlarm:
		return foldAlarm(txn, r)
	}
	return nil, fmt.Errorf("ledgercache: record of unknown kind %d", r.Kind)
}

func foldTrade(txn *badger.Txn, r record, e payment.Event) ([]Change, error) {
	trade, err := id(payment.TradeOf(e))
	if err != nil {
		return nil, err
	}
	var before, after payment.Payment
	if opened, ok := e.(payment.Opened); ok {
		if after, err = payment.Open(opened, r.at()); err != nil {
			return nil, err
		}
		before = after
		if err := txn.Set(key(prefixOutTrade, []byte(after.OutTradeNo)), trade); err != nil {
			return nil, err
		}
	} else {
		if err := get(txn, key(prefixTrade, trade), &before); err != nil {
			return nil, err
		}
		if after, err = payment.Apply(before, e, r.at()); err != nil {
			return nil, err
		}
	}
	if err := foldEvent(txn, trade, before, after, e); err != nil {
		return nil, err
	}
	return []Change{{Kind: ChangeTrade, TradeNo: after.TradeNo}}, putTrade(txn, trade, before, after)
}

// foldEvent folds what an event touches besides its trade: spent codes, the news cursor, the shift's totals.
func foldEvent(txn *badger.Txn, trade []byte, before, after payment.Payment, e payment.Event) error {
	switch e := e.(type) {
	case payment.Submitted:
		if err := txn.Set(key(prefixSpent, e.Spent), trade); err != nil {
			return err
		}
		if len(e.Wallet) > 0 {
			return txn.Set(key(prefixWallet, e.Wallet), binary.BigEndian.AppendUint32(nil, e.Counter))
		}
	case payment.Answered:
		if e.News > 0 {
			if err := putNews(txn, e.News); err != nil {
				return err
			}
		}
		if before.State != payment.Success && after.State == payment.Success {
			return addToShift(txn, after.ShiftID, func(s *Shift) error { return s.addSale(after) })
		}
	}
	return nil
}

// putTrade writes a trade and every index that its state decides.
func putTrade(txn *badger.Txn, trade []byte, before, after payment.Payment) error {
	if err := put(txn, key(prefixTrade, trade), after); err != nil {
		return err
	}
	open := key(prefixOpenTrade, trade)
	if after.State.Final() {
		if err := txn.Delete(open); err != nil {
			return err
		}
	} else if err := txn.Set(open, nil); err != nil {
		return err
	}
	if old := dayKey(before, trade); string(old) != string(dayKey(after, trade)) {
		if err := txn.Delete(old); err != nil {
			return err
		}
	}
	if err := txn.Set(dayKey(after, trade), nil); err != nil {
		return err
	}
	return putCounter(txn, trade, after)
}

// putCounter keeps the counter's holder: one trade at a time, free at once when it is final, cancelled or expired.
func putCounter(txn *badger.Txn, trade []byte, p payment.Payment) error {
	holder, err := rawValue(txn, keyCounter)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	switch {
	case p.HoldsCounter():
		return txn.Set(keyCounter, trade)
	case string(holder) == string(trade):
		return txn.Delete(keyCounter)
	}
	return nil
}

func foldShift(txn *badger.Txn, r record) ([]Change, error) {
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
		if err := txn.Set(keyShift, shift); err != nil {
			return nil, err
		}
		return changed, put(txn, key(prefixShift, shift), Shift{ID: e.ID, Number: e.Number, OperatorID: e.OperatorID, OpenedAt: r.at()})
	}
	e, err := body[shiftClosed](r)
	if err != nil {
		return nil, err
	}
	if err := addToShift(txn, e.ID, func(s *Shift) error { s.ClosedAt, s.ClosedBy = r.at(), e.OperatorID; return nil }); err != nil {
		return nil, err
	}
	return changed, txn.Delete(keyShift)
}

func addToShift(txn *badger.Txn, shiftID string, change func(*Shift) error) error {
	shift, err := id(shiftID)
	if err != nil {
		return err
	}
	var s Shift
	if err := get(txn, key(prefixShift, shift), &s); err != nil {
		return err
	}
	if err := change(&s); err != nil {
		return err
	}
	return put(txn, key(prefixShift, shift), s)
}

func foldRefund(txn *badger.Txn, r record) ([]Change, error) {
	switch r.Kind {
	case recRefundOpened:
		e, err := body[payment.Refund](r)
		if err != nil {
			return nil, err
		}
		e.CreatedAt, e.State = r.at(), payment.RefundProcessing
		return foldRefundOpened(txn, e)
	case recRefundAsked:
		e, err := body[refundAsked](r)
		if err != nil {
			return nil, err
		}
		return changeRefund(txn, e.RefundNo, func(f *payment.Refund) error { f.Asks++; f.LastAskAt = r.at(); return nil })
	case recRefundAnswer:
		e, err := body[payment.RefundAnswered](r)
		if err != nil {
			return nil, err
		}
		return foldRefundAnswered(txn, e)
	}
	return nil, fmt.Errorf("ledgercache: record of unknown kind %d", r.Kind)
}

func foldRefundOpened(txn *badger.Txn, f payment.Refund) ([]Change, error) {
	refund, err := id(f.RefundNo)
	if err != nil {
		return nil, err
	}
	trade, err := id(f.TradeNo)
	if err != nil {
		return nil, err
	}
	for _, k := range [][]byte{key(prefixTradeRefund, trade, refund), key(prefixOpenRefund, refund)} {
		if err := txn.Set(k, nil); err != nil {
			return nil, err
		}
	}
	if err := txn.Set(key(prefixOutRefund, []byte(f.OutRefundNo)), refund); err != nil {
		return nil, err
	}
	if err := put(txn, key(prefixRefund, refund), f); err != nil {
		return nil, err
	}
	err = changeTrade(txn, trade, func(p *payment.Payment) error {
		p.RefundParts++
		p.RefundingFen, err = money.Add(p.RefundingFen, f.RefundFen)
		return err
	})
	return refundChanges(f), err
}

func foldRefundAnswered(txn *badger.Txn, e payment.RefundAnswered) ([]Change, error) {
	var after payment.Refund
	changes, err := changeRefund(txn, e.RefundNo, func(f *payment.Refund) (err error) {
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
	err = changeTrade(txn, trade, func(p *payment.Payment) error {
		p.RefundingFen -= after.RefundFen
		if after.State == payment.RefundSuccess {
			p.RefundedFen += after.RefundFen
			p.FeeBackFen += after.FeeBackFen
		}
		return nil
	})
	if err != nil || after.State != payment.RefundSuccess || after.ShiftID == "" {
		return changes, err
	}
	return changes, addToShift(txn, after.ShiftID, func(s *Shift) error { return s.addRefund(after) })
}

func refundChanges(f payment.Refund) []Change {
	return []Change{{Kind: ChangeRefund, RefundNo: f.RefundNo, TradeNo: f.TradeNo}}
}

func changeRefund(txn *badger.Txn, refundNo string, change func(*payment.Refund) error) ([]Change, error) {
	refund, err := id(refundNo)
	if err != nil {
		return nil, err
	}
	var f payment.Refund
	if err := get(txn, key(prefixRefund, refund), &f); err != nil {
		return nil, err
	}
	if err := change(&f); err != nil {
		return nil, err
	}
	if f.Final() {
		if err := txn.Delete(key(prefixOpenRefund, refund)); err != nil {
			return nil, err
		}
	}
	return refundChanges(f), put(txn, key(prefixRefund, refund), f)
}

func changeTrade(txn *badger.Txn, trade []byte, change func(*payment.Payment) error) error {
	var p payment.Payment
	if err := get(txn, key(prefixTrade, trade), &p); err != nil {
		return err
	}
	if err := change(&p); err != nil {
		return err
	}
	return put(txn, key(prefixTrade, trade), p)
}

func foldPrint(txn *badger.Txn, r record) ([]Change, error) {
	switch r.Kind {
	case recPrintQueued:
		e, err := body[printQueued](r)
		if err != nil {
			return nil, err
		}
		return foldPrintQueued(txn, r, e)
	case recPrintSent:
		e, err := body[printSent](r)
		if err != nil {
			return nil, err
		}
		return changePrint(txn, e.ID, PrintSent, r)
	case recPrintDone:
		e, err := body[printDone](r)
		if err != nil {
			return nil, err
		}
		return changePrint(txn, e.ID, e.State, r)
	}
	return nil, fmt.Errorf("ledgercache: record of unknown kind %d", r.Kind)
}

func foldPrintQueued(txn *badger.Txn, r record, e printQueued) ([]Change, error) {
	job, err := id(e.ID)
	if err != nil {
		return nil, err
	}
	trade, err := id(e.TradeNo)
	if err != nil {
		return nil, err
	}
	if err := txn.Set(key(prefixOpenPrint, job), nil); err != nil {
		return nil, err
	}
	j := PrintJob{ID: e.ID, TradeNo: e.TradeNo, RefundNo: e.RefundNo, Copy: e.Copy, OperatorID: e.OperatorID, State: PrintQueued, QueuedAt: r.at()}
	if err := put(txn, key(prefixPrint, job), j); err != nil {
		return nil, err
	}
	if e.RefundNo == "" {
		err = changeTrade(txn, trade, func(p *payment.Payment) error { p.Copies = e.Copy; return nil })
	}
	return []Change{{Kind: ChangePrint, TradeNo: e.TradeNo, JobID: e.ID}}, err
}

func changePrint(txn *badger.Txn, jobID string, state PrintState, r record) ([]Change, error) {
	job, err := id(jobID)
	if err != nil {
		return nil, err
	}
	var j PrintJob
	if err := get(txn, key(prefixPrint, job), &j); err != nil {
		return nil, err
	}
	if j.State.Final() {
		return nil, fmt.Errorf("%w: print job is %s", payment.ErrIllegalMove, j.State)
	}
	j.State, j.ChangedAt = state, r.at()
	if state.Final() {
		if err := txn.Delete(key(prefixOpenPrint, job)); err != nil {
			return nil, err
		}
	}
	return []Change{{Kind: ChangePrint, TradeNo: j.TradeNo, JobID: j.ID}}, put(txn, key(prefixPrint, job), j)
}

func foldAlarm(txn *badger.Txn, r record) ([]Change, error) {
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
		if err := putNews(txn, a.News); err != nil {
			return nil, err
		}
	}
	return []Change{{Kind: ChangeAlarm, TradeNo: a.TradeNo}}, put(txn, key(prefixAlarm, alarm), a)
}

// putNews moves the news cursor, never back.
func putNews(txn *badger.Txn, sequence uint64) error {
	have, err := newsCursor(txn)
	if err != nil || sequence <= have {
		return err
	}
	return txn.Set(keyNews, binary.BigEndian.AppendUint64(nil, sequence))
}

func newsCursor(txn *badger.Txn) (uint64, error) {
	raw, err := rawValue(txn, keyNews)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	if err != nil || len(raw) != 8 {
		return 0, err
	}
	return binary.BigEndian.Uint64(raw), nil
}

func rawValue(txn *badger.Txn, k []byte) ([]byte, error) {
	item, err := txn.Get(k)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return item.ValueCopy(nil)
}

// appliedMark is how far the cache has followed the journal.
type appliedMark struct {
	Epoch    [16]byte `cbor:"1,keyasint"`
	Sequence uint64   `cbor:"2,keyasint"`
	Hash     [32]byte `cbor:"3,keyasint"`
}

func putApplied(txn *badger.Txn, h journal.Head) error {
	return put(txn, keyApplied, appliedMark{Epoch: h.Epoch, Sequence: h.Sequence, Hash: h.Hash})
}

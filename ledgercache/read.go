package ledgercache

import (
	"context"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"yupos/ledgercache/payment"
)

// view reads the state of one moment. A table that cannot be read any more is damage, not the end of the process.
func (b *Book) view(read func(state) error) (err error) {
	if b.reading != nil {
		return b.reading.view(read)
	}
	defer func() {
		if errors.Is(err, errTable) {
			b.distrust(err)
		}
	}()
	defer caught(&err)()
	return b.db.View(func(txn *badger.Txn) error { return read(proved{onDisk{txn}, b}) })
}

// Trade is the trade with the register's number, or ErrNotFound.
func (b *Book) Trade(outTradeNo string) (p payment.Payment, err error) {
	err = b.view(func(s state) error {
		p, err = (&tx{state: s, book: b}).byOutTradeNo(outTradeNo)
		return err
	})
	return p, err
}

// ByTradeNo is the trade with our own number, or ErrNotFound.
func (b *Book) ByTradeNo(tradeNo string) (p payment.Payment, err error) {
	err = b.view(func(s state) error {
		p, err = (&tx{state: s, book: b}).byTradeNo(tradeNo)
		return err
	})
	return p, err
}

// OpenTrades are all trades that are not final, oldest first.
func (b *Book) OpenTrades() (list []payment.Payment, err error) {
	err = b.view(func(s state) error {
		return eachOpenTrade(s, func(p payment.Payment) error { list = append(list, p); return nil })
	})
	return list, err
}

// OpenRefunds are all refunds that the ledger has not ended, oldest first.
func (b *Book) OpenRefunds() (list []payment.Refund, err error) {
	err = b.view(func(s state) error {
		return eachOpenRefund(s, func(f payment.Refund) error { list = append(list, f); return nil })
	})
	return list, err
}

// Refund is the refund with the register's number, or ErrNotFound.
func (b *Book) Refund(outRefundNo string) (f payment.Refund, err error) {
	err = b.view(func(s state) error {
		f, err = (&tx{state: s, book: b}).byOutRefundNo(outRefundNo)
		return err
	})
	return f, err
}

// RefundsOf are the refunds of a trade, oldest first.
func (b *Book) RefundsOf(tradeNo string) (list []payment.Refund, err error) {
	trade, err := id(tradeNo)
	if err != nil {
		return nil, err
	}
	err = b.view(func(s state) error {
		prefix := key(prefixTradeRefund, trade)
		return s.scan(prefix, nil, false, func(k, _ []byte) (bool, error) {
			var f payment.Refund
			if err := get(s, key(prefixRefund, k[len(prefix):]), &f); err != nil {
				return false, err
			}
			list = append(list, f)
			return true, nil
		})
	})
	return list, err
}

// Counter is the number of the trade that has the scanner or the display, "" while the counter is free.
func (b *Book) Counter() (tradeNo string, err error) {
	err = b.view(func(s state) error {
		raw, err := s.get(keyCounter)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		tradeNo = idText(raw)
		return err
	})
	return tradeNo, err
}

// Shift is the open shift; ok is false when none is open.
func (b *Book) Shift() (shift Shift, ok bool, err error) {
	err = b.view(func(s state) error {
		raw, err := s.get(keyShift)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		ok = true
		return get(s, key(prefixShift, raw), &shift)
	})
	return shift, ok, err
}

// Cursor is how far the ledger holds the journal's head; the zero Cursor before the first anchor.
func (b *Book) Cursor() (c Cursor, err error) {
	err = b.view(func(s state) error {
		if err := get(s, keyCursor, &c); !errors.Is(err, ErrNotFound) {
			return err
		}
		return nil
	})
	return c, err
}

// NewsCursor is the sequence of the ledger's last push that this book has applied.
func (b *Book) NewsCursor() (sequence uint64, err error) {
	err = b.view(func(s state) error {
		sequence, err = newsCursor(s)
		return err
	})
	return sequence, err
}

// Anchored records that the ledger holds the journal's head up to c. An older or equal cursor of the same epoch changes
// nothing.
func (b *Book) Anchored(ctx context.Context, c Cursor) error {
	return b.do(ctx, func(t *tx) error {
		var have Cursor
		if err := get(t.state, keyCursor, &have); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if have.Epoch == c.Epoch && have.Sequence >= c.Sequence {
			return nil
		}
		if here := t.book.journal.Head(); c.Sequence > here.Sequence {
			return fmt.Errorf("%w: the ledger anchors sequence %d of %d", payment.ErrImpossible, c.Sequence, here.Sequence)
		}
		return t.emit(recAnchored, c)
	})
}

// OpenPrints are the print jobs that have not ended, oldest first.
func (b *Book) OpenPrints() (list []PrintJob, err error) {
	err = b.view(func(s state) error {
		return s.scan(prefixOpenPrint, nil, false, func(k, _ []byte) (bool, error) {
			j, err := jobAt(s, k[len(prefixOpenPrint):])
			if err != nil {
				return false, err
			}
			list = append(list, j)
			return true, nil
		})
	})
	return list, err
}

// Print is one print job, or ErrNotFound.
func (b *Book) Print(jobID string) (j PrintJob, err error) {
	err = b.view(func(s state) error {
		j, err = (&tx{state: s, book: b}).print(jobID)
		return err
	})
	return j, err
}

// ByRefundNo is the refund with our own number, or ErrNotFound.
func (b *Book) ByRefundNo(refundNo string) (f payment.Refund, err error) {
	err = b.view(func(s state) error {
		f, err = (&tx{state: s, book: b}).byRefundNo(refundNo)
		return err
	})
	return f, err
}

// Alarms are the newest things that contradict what is certain, at most limit.
func (b *Book) Alarms(limit int) (list []Alarm, err error) {
	err = b.view(func(s state) error {
		return s.scan(prefixAlarm, nil, true, func(_, value []byte) (bool, error) {
			var a Alarm
			if err := decMode.Unmarshal(value, &a); err != nil {
				return false, err
			}
			list = append(list, a)
			return len(list) < limit, nil
		})
	})
	return list, err
}

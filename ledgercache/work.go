package ledgercache

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
)

// This file is the outbox: nothing is copied or deleted, the open work is derived from the journal as everything else, and
// the transport cursor (Cursor, Anchored) says how far the ledger holds the journal's head. Every reader is paged, so that
// a hundred thousand uploads are as easy to begin with as ten.

// OpenWork is one page of a lane's open work, oldest first: the trades behind the number after ("" at the beginning), at
// most limit (1 to 1,000) of them. next is "" at the end, else the after of the following page. Work that comes while a
// lane is read stands behind what is there; Watch tells of it. When each is due, and what to say, is payment.Due's.
func (b *Book) OpenWork(lane payment.Lane, after string, limit int) (list []payment.Payment, next string, err error) {
	prefix := prefixOpenTrade
	if lane == payment.LaneUpload {
		prefix = prefixUpload
	}
	err = b.page(prefix, after, limit, func(s state, no, v []byte) (bool, error) {
		if lane != payment.LaneUpload && !bytes.Equal(v, []byte{byte(lane)}) {
			return false, nil
		}
		var p payment.Payment
		if err := get(s, key(prefixTrade, no), &p); err != nil {
			return false, err
		}
		list, next = append(list, p), p.TradeNo
		return true, nil
	})
	if len(list) < limit {
		next = ""
	}
	return list, next, err
}

// EachOpen walks over the open trades that are no uploads, lane by lane, each lane oldest first, and holds a page of them at
// a time. An error of each ends the walk.
func (b *Book) EachOpen(each func(payment.Payment) error) error {
	for _, lane := range []payment.Lane{payment.LaneNone, payment.LaneLive, payment.LaneAsk} {
		for after := ""; ; {
			page, next, err := b.OpenWork(lane, after, eachPage)
			if err != nil {
				return err
			}
			for _, p := range page {
				if err := each(p); err != nil {
					return err
				}
			}
			if after = next; next == "" {
				break
			}
		}
	}
	return nil
}

const eachPage = 256

// OpenRefundWork is the same for refunds.
func (b *Book) OpenRefundWork(after string, limit int) (list []payment.Refund, next string, err error) {
	err = b.page(prefixOpenRefund, after, limit, func(s state, no, _ []byte) (bool, error) {
		var f payment.Refund
		if err := get(s, key(prefixRefund, no), &f); err != nil {
			return false, err
		}
		list, next = append(list, f), f.RefundNo
		return true, nil
	})
	if len(list) < limit {
		next = ""
	}
	return list, next, err
}

// page walks an index of numbers until limit of them were taken.
func (b *Book) page(prefix []byte, after string, limit int, take func(s state, no, v []byte) (bool, error)) error {
	if limit < 1 || limit > 1000 {
		return fmt.Errorf("%w: limit", ErrQuery)
	}
	var from []byte
	if after != "" {
		no, err := id(after)
		if err != nil {
			return fmt.Errorf("%w: after", ErrQuery)
		}
		from = key(prefix, no, []byte{0})
	}
	taken := 0
	return b.view(func(s state) error {
		return s.scan(prefix, from, false, func(k, v []byte) (bool, error) {
			ok, err := take(s, k[len(prefix):], v)
			if ok {
				taken++
			}
			return taken < limit, err
		})
	})
}

// Queue is what the ledger still has to say, with the time of the oldest: every trade that was sent, shown or accepted
// offline and has not ended, and open refunds. It does not read the uploads.
func (b *Book) Queue() (q payment.Exposure, err error) {
	g := b.oldest.look()
	err = b.view(func(s state) error {
		if q, err = b.terminalExposure(s, &g, true); err != nil {
			return err
		}
		add := func(fen money.Fen, at time.Time) error {
			if q.Count++; q.Count == 1 || at.Before(q.OldestAt) {
				q.OldestAt = at
			}
			q.Fen, err = money.Add(q.Fen, fen)
			return err
		}
		err := eachNumber(s, prefixOpenTrade, func(no []byte) error {
			var p payment.Payment
			if err := get(s, key(prefixTrade, no), &p); err != nil || p.Lane() == payment.LaneNone {
				return err
			}
			return add(p.TotalFen, p.CreatedAt)
		})
		if err != nil {
			return err
		}
		return eachOpenRefund(s, func(f payment.Refund) error { return add(f.RefundFen, f.CreatedAt) })
	})
	return q, err
}

// eachNumber walks an index of numbers.
func eachNumber(s state, prefix []byte, each func(no []byte) error) error {
	return s.scan(prefix, nil, false, func(k, _ []byte) (bool, error) { return true, each(k[len(prefix):]) })
}

// eachOpenTrade reads all trades that are not final, oldest first: uploads, of which there may be very many, one by one
// between the others.
func eachOpenTrade(s state, each func(payment.Payment) error) error {
	read := func(no []byte) error {
		var p payment.Payment
		if err := get(s, key(prefixTrade, no), &p); err != nil {
			return err
		}
		return each(p)
	}
	var others [][]byte
	if err := eachNumber(s, prefixOpenTrade, func(no []byte) error { others = append(others, slices.Clone(no)); return nil }); err != nil {
		return err
	}
	before := func(no []byte) (err error) {
		for err == nil && len(others) > 0 && (no == nil || bytes.Compare(others[0], no) < 0) {
			err, others = read(others[0]), others[1:]
		}
		return err
	}
	err := eachNumber(s, prefixUpload, func(no []byte) error { return errors.Join(before(no), read(no)) })
	return errors.Join(err, before(nil))
}

// eachOpenRefund reads all refunds that the ledger has not ended, oldest first.
func eachOpenRefund(s state, each func(payment.Refund) error) error {
	return eachNumber(s, prefixOpenRefund, func(no []byte) error {
		var f payment.Refund
		if err := get(s, key(prefixRefund, no), &f); err != nil {
			return err
		}
		return each(f)
	})
}

// Unresolved are the sales of an amount, opened at since or later, whose result is not known (UNKNOWN), oldest first.
func (b *Book) Unresolved(total money.Fen, since time.Time) (list []payment.Payment, err error) {
	after := ulid.ULID{}
	if err := after.SetTime(ulid.Timestamp(since)); err != nil {
		return nil, err
	}
	err = b.page(prefixOpenTrade, after.String(), 1, func(s state, no, _ []byte) (bool, error) {
		var p payment.Payment
		if err := get(s, key(prefixTrade, no), &p); err != nil {
			return false, err
		}
		if p.State == payment.Unknown && p.TotalFen == total {
			list = append(list, p)
		}
		return false, nil
	})
	return list, err
}

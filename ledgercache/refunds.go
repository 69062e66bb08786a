package ledgercache

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"time"

	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
)

// NewRefund describes a refund to open.
type NewRefund struct {
	OutRefundNo string
	TradeNo     string
	RefundFen   money.Fen
	Note        string // the caller's reason
	OperatorID  string
	BodyHash    []byte
}

// OpenRefund opens a refund of a paid trade, to the wallet that paid. A repeat of the same request answers the recorded
// refund and replayed = true.
//
// It fails with ErrNotFound, ErrOutRefundNoUsed, ErrDiskFull, ErrNotPaid, ErrRefundTooMuch, ErrRefundTooMany, ErrRefundTooLate,
// money.ErrRange, or with what Err says.
func (b *Book) OpenRefund(ctx context.Context, n NewRefund) (f payment.Refund, replayed bool, err error) {
	if err := n.RefundFen.CheckPayable(); err != nil {
		return f, false, err
	}
	err = b.do(ctx, func(t *tx) error {
		f, replayed, err = t.openRefund(n)
		return err
	})
	return f, replayed, err
}

func (t *tx) openRefund(n NewRefund) (payment.Refund, bool, error) {
	if f, err := t.byOutRefundNo(n.OutRefundNo); err == nil {
		if !bytes.Equal(f.BodyHash, n.BodyHash) {
			return f, false, ErrOutRefundNoUsed
		}
		return f, true, nil
	} else if !errors.Is(err, ErrNotFound) {
		return f, false, err
	}
	if err := t.takesNew(); err != nil {
		return payment.Refund{}, false, err
	}
	p, err := t.byTradeNo(n.TradeNo)
	if err != nil {
		return payment.Refund{}, false, err
	}
	if err := refundable(p, n.RefundFen, t.at); err != nil {
		return payment.Refund{}, false, err
	}
	shift, err := t.shiftFor(n.OperatorID)
	if err != nil {
		return payment.Refund{}, false, err
	}
	f := payment.Refund{
		RefundNo: NewTradeNo(t.at), OutRefundNo: n.OutRefundNo, TradeNo: p.TradeNo, OutTradeNo: p.OutTradeNo, RefundFen: n.RefundFen,
		Note: n.Note, OperatorID: n.OperatorID, ShiftID: shift, BodyHash: n.BodyHash, CreatedAt: t.at, State: payment.RefundProcessing,
	}
	return f, false, t.emit(recRefundOpened, f)
}

// refundable judges a refund by the rules of product.md, Default numbers.
func refundable(p payment.Payment, amount money.Fen, now time.Time) error {
	switch {
	case p.State != payment.Success:
		return ErrNotPaid
	case now.Sub(p.FinishedAt) > payment.RefundWindow:
		return ErrRefundTooLate
	case p.RefundParts >= payment.MaxRefundParts:
		return ErrRefundTooMany
	case amount > p.Refundable():
		return ErrRefundTooMuch
	}
	return nil
}

// RecordRefundAsk makes durable that the refund is about to be sent. A refund that has ended answers
// payment.ErrIllegalMove and must not be sent.
func (b *Book) RecordRefundAsk(ctx context.Context, refundNo string) (f payment.Refund, err error) {
	err = b.do(ctx, func(t *tx) error {
		if f, err = t.byRefundNo(refundNo); err != nil {
			return err
		}
		if f.Final() {
			return payment.ErrIllegalMove
		}
		if err = t.emit(recRefundAsked, refundAsked{RefundNo: refundNo}); err != nil {
			return err
		}
		f, err = t.byRefundNo(refundNo)
		return err
	})
	return f, err
}

// AnswerRefund records what the ledger holds true of a refund. What tells nothing new changes nothing; what contradicts
// the refund is kept as an alarm and returned as payment.ErrImpossible.
func (b *Book) AnswerRefund(ctx context.Context, a payment.RefundAnswered) (f payment.Refund, err error) {
	var refused error
	err = b.do(ctx, func(t *tx) error {
		refused = nil
		if f, err = t.byRefundNo(a.RefundNo); err != nil {
			return err
		}
		_, moved := payment.ApplyRefund(f, a)
		switch {
		case errors.Is(moved, payment.ErrReplay):
			return nil
		case moved != nil:
			refused = moved
			return t.alarm("IMPOSSIBLE_ANSWER", payment.Answered{TradeNo: f.TradeNo}, "refund "+f.RefundNo+": "+moved.Error())
		}
		if err = t.emit(recRefundAnswer, a); err != nil {
			return err
		}
		if f, err = t.byRefundNo(a.RefundNo); err != nil || f.State != payment.RefundSuccess || !t.book.opts.AutoPrint {
			return err
		}
		p, err := t.byTradeNo(f.TradeNo)
		if err == nil {
			_, err = t.queuePrint(p, f.RefundNo, "")
		}
		return err
	})
	return f, cmp.Or(err, refused)
}

func (t *tx) byRefundNo(refundNo string) (f payment.Refund, err error) {
	refund, err := id(refundNo)
	if err != nil {
		return f, err
	}
	return f, get(t.state, key(prefixRefund, refund), &f)
}

func (t *tx) byOutRefundNo(outRefundNo string) (f payment.Refund, err error) {
	refund, err := t.state.get(key(prefixOutRefund, []byte(outRefundNo)))
	if err != nil {
		return f, err
	}
	return f, t.led(key(prefixRefund, refund), &f)
}

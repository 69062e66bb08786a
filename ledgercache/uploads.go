package ledgercache

import (
	"context"
	"errors"

	"yupos/ledgercache/payment"
)

// This file holds the way of offline acceptances to the ledger and back: in batches, so that a hundred thousand of them do
// not cost a sync each. OpenWork reads them by the page.

// RecordUploads makes durable, in one step, that the uploads of these trades are about to leave, and answers the trades
// that may leave. One that was judged meanwhile is left out.
func (b *Book) RecordUploads(ctx context.Context, tradeNos []string) (list []payment.Payment, err error) {
	err = b.do(ctx, func(t *tx) error {
		list = list[:0]
		told := len(t.changes)
		for _, no := range tradeNos {
			p, err := t.byTradeNo(no)
			if err != nil {
				return err
			}
			if p.State != payment.AcceptedOffline {
				continue
			}
			if err := t.emit(recAsked, payment.Asked{TradeNo: no, Op: payment.OpUpload}); err != nil {
				return err
			}
			if p, err = t.byTradeNo(no); err != nil {
				return err
			}
			list = append(list, p)
		}
		t.changes = t.changes[:told] // nobody sees that it was sent
		return nil
	})
	return list, err
}

// AnswerUploads records the ledger's judgements of uploads in one step. Each is taken or kept as an alarm as by Answer;
// one that is impossible holds up no other.
func (b *Book) AnswerUploads(ctx context.Context, judged []payment.Answered) error {
	return b.do(ctx, func(t *tx) error {
		for _, a := range judged {
			p, err := t.byTradeNo(a.TradeNo)
			if errors.Is(err, ErrNotFound) {
				err = t.alarm("UNKNOWN_TRADE", a, "the ledger speaks of a trade that is not in this book")
			} else if err == nil {
				err = t.judged(p, a)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (t *tx) judged(p payment.Payment, a payment.Answered) error {
	switch _, moved := payment.Apply(p, a, t.at); {
	case errors.Is(moved, payment.ErrReplay):
		return nil
	case moved != nil:
		return t.alarm(alarmOf(p), a, moved.Error())
	}
	_, err := t.answered(a)
	return err
}

package ledgersim

import (
	"errors"
	"time"

	"github.com/dgraph-io/badger/v4"

	"yupos/ledgercache/money"
	"yupos/sync/wire"
)

// The rules of a refund (product.md, Default numbers).
const (
	refundParts  = 50
	refundWindow = 365 * 24 * time.Hour
)

// storedRefund is a refund that was answered, with what was asked.
type storedRefund struct {
	TerminalID string             `json:"terminal_id"`
	Asked      wire.Refund        `json:"asked"`
	Answer     wire.RefundOutcome `json:"answer"`
}

// refund gives part of a trade back to the wallet that paid it. Idempotent by its number.
func (l *Ledger) refund(terminalID string, m *wire.Refund) (out wire.RefundOutcome, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	asked := *m
	asked.Repeat = false
	key := "refund/" + terminalID + "/" + m.RefundNo
	err = l.db.Update(func(txn *badger.Txn) error {
		var had storedRefund
		if err := get(txn, key, &had); err == nil {
			if had.Asked != asked {
				return refusal(wire.RefusedIDReused)
			}
			out = had.Answer
			out.Replayed = true
			return nil
		} else if !errors.Is(err, errNone) {
			return err
		}
		out, err = l.refundOnce(txn, terminalID, m)
		var no refusal
		if errors.As(err, &no) {
			out = wire.RefundOutcome{RefundNo: m.RefundNo, TradeNo: m.TradeNo, State: wire.RefundFailed, Reason: string(no), RefundedAt: wire.Millis(l.now().UnixMilli())}
		} else if err != nil {
			return err
		}
		return put(txn, key, storedRefund{terminalID, asked, out})
	})
	return out, err
}

func (l *Ledger) refundOnce(txn *badger.Txn, terminalID string, m *wire.Refund) (out wire.RefundOutcome, err error) {
	var t trade
	if err := get(txn, tradeKey(terminalID, m.TradeNo), &t); err != nil {
		return out, refusal(wire.RefusedUnknownTrade)
	}
	now := l.now()
	switch {
	case t.State != wire.StateSuccess:
		return out, refusal("NOT_PAID")
	case m.RefundFen < 1 || m.RefundFen > t.PaidFen-t.RefundedFen:
		return out, refusal("REFUND_OVER_PAID")
	case t.Refunds >= refundParts:
		return out, refusal("REFUND_TOO_MANY")
	case now.Sub(t.PaidAt) > refundWindow:
		return out, refusal("REFUND_WINDOW_CLOSED")
	case l.takeFault("refund", "decline") != nil:
		return out, refusal("DECLINED")
	}
	feeBack, err := feeShare(t, m.RefundFen)
	if err != nil {
		return out, err
	}
	err = l.post(txn, "refund", terminalID+"/"+m.RefundNo, line{t.payerAccount(), m.RefundFen},
		line{merchantAccount(t.MerchantID), -(m.RefundFen - feeBack)}, line{accountFees, -feeBack})
	if err != nil {
		return out, err
	}
	t.RefundedFen += m.RefundFen
	t.FeeBackFen += feeBack
	t.Refunds++
	if err := put(txn, tradeKey(terminalID, m.TradeNo), t); err != nil {
		return out, err
	}
	return wire.RefundOutcome{
		RefundNo: m.RefundNo, TradeNo: m.TradeNo, State: wire.RefundSuccess, RefundFen: m.RefundFen, FeeBackFen: feeBack,
		RefundedAt: wire.Millis(now.UnixMilli()), LedgerNo: l.number(), RefundedFen: t.RefundedFen,
	}, nil
}

// feeShare is the part of the fee that goes back with a refund: in proportion, half up, and the rest with the last part.
func feeShare(t trade, refund money.Fen) (money.Fen, error) {
	left := t.FeeFen - t.FeeBackFen
	if t.RefundedFen+refund == t.PaidFen {
		return left, nil
	}
	share, err := money.Share(t.FeeFen, refund, t.PaidFen)
	return min(share, left), err
}

package till

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"yupos/devices/paycode"
	"yupos/ledgercache"
	"yupos/ledgercache/payment"
)

// Refusal is a confirmation that was refused by name. Nothing was settled by it.
type Refusal struct{ Reason payment.Reason }

// Error names the reason.
func (r *Refusal) Error() string { return "till: refused: " + string(r.Reason) }

// The names of refused digits, beside those of codes.md.
const (
	reasonWrongDigits  payment.Reason = "WRONG_DIGITS"
	reasonDigitsLocked payment.Reason = "DIGITS_LOCKED"
	reasonDigitsPaused payment.Reason = "DIGITS_PAUSED"
	reasonOverDigits   payment.Reason = "OVER_DIGITS_LIMIT"
	reasonNotMyOrder   payment.Reason = "NOT_MY_ORDER"
)

// ConfirmReceipt settles an order by the RECEIPT that the customer shows after paying. outTradeNo is the order that the
// caller means; "" takes whichever order of this terminal the receipt names. Shown again it answers the trade as it is.
//
// It fails with a Refusal (the names of codes.md, RECEIPT), or as the book does. An authentic receipt that may not settle
// its order is reversed at the next contact with the ledger.
func (t *Till) ConfirmReceipt(ctx context.Context, outTradeNo, text string) (payment.Payment, error) {
	r, reason := paycode.VerifyReceipt(text, t.o.Receipts(t.o.Now()), t.o.Now())
	if reason == "" && r.TerminalID != t.o.Shop.TerminalID {
		reason = paycode.NotMyOrder
	}
	if reason != "" {
		return payment.Payment{}, &Refusal{payment.Reason(reason)}
	}
	if outTradeNo != "" {
		p, err := t.book.Trade(outTradeNo)
		if err != nil {
			return p, err
		}
		if p.TradeNo != r.Order {
			return p, &Refusal{reasonNotMyOrder}
		}
	}
	p, err := t.book.ConfirmReceipt(ctx, ledgercache.Receipt{
		Order: r.Order, LedgerNo: r.Payment, TotalFen: r.AmountFen, PaidFen: r.PaidFen, PaidAt: time.Unix(int64(r.PaidAt), 0).UTC(), Token: r.Token[:],
	})
	var refused *ledgercache.ReceiptRefusal
	if errors.As(err, &refused) {
		return p, &Refusal{refused.Reason}
	}
	if err != nil {
		return p, err
	}
	return p, t.closeRemade(ctx, p)
}

// ConfirmDigits settles an order by the eight digits that the customer reads out, as codes.md, Confirmation digits, says.
// It fails with a Refusal, or as the book does.
func (t *Till) ConfirmDigits(ctx context.Context, outTradeNo, digits, operatorID string) (payment.Payment, error) {
	p, err := t.book.Trade(outTradeNo)
	if err != nil {
		return p, err
	}
	if p.State == payment.Success {
		return p, nil
	}
	limits, err := t.book.OfflineLimits()
	if err != nil {
		return p, err
	}
	if p.TotalFen > limits.DigitsFen {
		return p, &Refusal{reasonOverDigits}
	}
	want, err := paycode.Digits(t.o.Secret, t.o.Shop.TerminalID, p.TradeNo, p.TotalFen)
	if err != nil {
		return p, err
	}
	p, err = t.book.ConfirmDigits(ctx, p.TradeNo, operatorID, func() bool { return paycode.SameDigits(digits, want) })
	switch {
	case errors.Is(err, ledgercache.ErrWrongDigits):
		return p, &Refusal{reasonWrongDigits}
	case errors.Is(err, ledgercache.ErrDigitsLocked):
		return p, &Refusal{reasonDigitsLocked}
	case errors.Is(err, ledgercache.ErrDigitsPaused):
		return p, &Refusal{reasonDigitsPaused}
	case errors.Is(err, payment.ErrIllegalMove) && p.ReversalStarted():
		return p, &Refusal{payment.ReasonReversalStarted}
	case err != nil:
		return p, err
	}
	return p, t.closeRemade(ctx, p)
}

// closeRemade ends the sale that the cashier made again while the first one seemed lost: the one at the counter of the
// same amount, opened later, for which nothing was sent.
func (t *Till) closeRemade(ctx context.Context, settled payment.Payment) error {
	tradeNo, err := t.book.Counter()
	if err != nil || tradeNo == "" || tradeNo == settled.TradeNo {
		return err
	}
	p, err := t.book.ByTradeNo(tradeNo)
	if err != nil || p.State != payment.NotPay || p.TotalFen != settled.TotalFen || !p.CreatedAt.After(settled.CreatedAt) {
		return err
	}
	t.log.Info("remade sale closed", slog.String("trade_no", p.TradeNo), slog.String("settled", settled.TradeNo))
	if _, err := t.book.Cancel(ctx, tradeNo, ""); err != nil && !errors.Is(err, payment.ErrIllegalMove) {
		return err
	}
	return nil
}

// receiptScanned settles by a RECEIPT that came through the scanner, whatever the counter does.
func (t *Till) receiptScanned(ctx context.Context, text string) error {
	p, err := t.ConfirmReceipt(ctx, "", text)
	var refused *Refusal
	if errors.As(err, &refused) {
		t.say(refused.Reason.Words())
		return nil
	}
	if err != nil {
		return err
	}
	t.say(p.Display())
	return nil
}

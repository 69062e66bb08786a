package ledgercache

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
)

// This file holds what evidence does to the book: exposure of offline acceptances, orders settled by a RECEIPT or by typed
// digits.

// Errors of typed digits.
var (
	// ErrWrongDigits says that the digits are not the confirmation of this order.
	ErrWrongDigits = errors.New("ledgercache: wrong digits")
	// ErrDigitsLocked says that an order has had its tries.
	ErrDigitsLocked = errors.New("ledgercache: no more tries for this order")
	// ErrDigitsPaused says that the terminal has had its tries until the ledger is reached.
	ErrDigitsPaused = errors.New("ledgercache: no more tries before the ledger is reached")
)

// ReceiptRefusal is an authentic receipt that may not settle its order: the payment behind it is reversed at the next
// contact.
type ReceiptRefusal struct{ Reason payment.Reason }

// Error names the reason.
func (r *ReceiptRefusal) Error() string { return "ledgercache: receipt refused: " + string(r.Reason) }

// The whole terminal has digitTries wrong tries in digitWindow (codes.md, Confirmation digits).
const (
	digitTries  = 10
	digitWindow = time.Hour
)

// foldAccepted folds what an acceptance spends: the code, the wallet's counter, its certificate's allowance.
func foldAccepted(s state, trade []byte, e payment.Accepted) error {
	if err := s.set(key(prefixSpent, e.Spent), nil); err != nil {
		return err
	}
	return s.set(key(prefixWallet, e.Wallet), binary.BigEndian.AppendUint32(nil, e.Counter))
}

// foldExposure raises exposure when a trade is accepted offline, and releases it when the ledger has judged it. What a
// certificate has spent is never released.
func foldExposure(s state, before, after payment.Payment) error {
	was, is := before.State == payment.AcceptedOffline, after.State == payment.AcceptedOffline
	switch {
	case !was && is:
		if err := expose(s, key(prefixCertUsed, after.Wallet), 1, after); err != nil {
			return err
		}
		return exposeBoth(s, after.Wallet, 1, after)
	case was && !is:
		return exposeBoth(s, before.Wallet, -1, before)
	}
	return nil
}

func exposeBoth(s state, wallet []byte, sign int, p payment.Payment) error {
	if err := expose(s, key(prefixWalletOpen, wallet), sign, p); err != nil {
		return err
	}
	return expose(s, keyExposure, sign, p)
}

// expose adds p to the sum at k, or takes it off again. OldestAt is read from the open uploads, where it is exact.
func expose(s state, k []byte, sign int, p payment.Payment) error {
	e, err := exposureAt(s, k)
	if err != nil {
		return err
	}
	if e.Fen, err = money.Add(e.Fen, money.Fen(sign)*p.TotalFen); err != nil {
		return err
	}
	e.Count += sign
	switch {
	case e.Count < 0 || e.Fen < 0:
		return fmt.Errorf("%w: exposure of %d fen in %d payments", payment.ErrImpossible, e.Fen, e.Count)
	case e.Count == 0:
		return s.delete(k)
	}
	return put(s, k, e)
}

func exposureAt(s state, k []byte) (e payment.Exposure, err error) {
	if err := get(s, k, &e); err != nil && !errors.Is(err, ErrNotFound) {
		return e, err
	}
	return e, nil
}

// Exposure is what the terminal has accepted offline and the ledger has not judged yet.
func (b *Book) Exposure() (e payment.Exposure, err error) {
	g := b.oldest.look()
	err = b.view(func(s state) error {
		e, err = b.terminalExposure(s, &g, true)
		return err
	})
	return e, err
}

// Withdraw takes an offline payment back before its upload; its evidence is uploaded as withdrawn. It fails with
// payment.ErrIllegalMove once the upload may have left.
func (b *Book) Withdraw(ctx context.Context, tradeNo, operator string) (payment.Payment, error) {
	return b.event(ctx, payment.Withdrawn{TradeNo: tradeNo, OperatorID: operator})
}

// Receipt is what a RECEIPT says whose signature was verified with a pinned key and whose terminal id is this terminal's
// (codes.md, RECEIPT).
type Receipt struct {
	Order    string // ULID, our trade number
	LedgerNo string
	TotalFen money.Fen
	PaidFen  money.Fen
	PaidAt   time.Time
	Token    []byte
}

// ConfirmReceipt settles the order that an authentic receipt names, with its paper, in one step. Shown again it answers
// the trade as it is. One that may not settle its order, or is of an order that this book does not have, is journalled for
// the reversal and answered with a ReceiptRefusal.
func (b *Book) ConfirmReceipt(ctx context.Context, r Receipt) (p payment.Payment, err error) {
	var refused error
	err = b.do(ctx, func(t *tx) error {
		refused = nil
		p, err = t.byTradeNo(r.Order)
		if errors.Is(err, ErrNotFound) {
			p, err = t.strayOrder(r)
		}
		if err != nil {
			return err
		}
		e := payment.ReceiptShown{TradeNo: p.TradeNo, LedgerNo: r.LedgerNo, TotalFen: r.TotalFen, PaidFen: r.PaidFen, PaidAt: r.PaidAt.UTC(), Token: r.Token}
		_, moved := payment.Apply(p, e, t.at)
		switch why := receiptReason(p, r); {
		case errors.Is(moved, payment.ErrReplay):
			return nil
		case why != "":
			refused = &ReceiptRefusal{why}
			p, err = t.refuseReceipt(p, why)
			return err
		case moved != nil:
			return moved
		}
		p, err = t.settleBy(p.TradeNo, e)
		return err
	})
	return p, cmp.Or(err, refused)
}

// receiptReason is why an authentic receipt may not settle its own order, "" if it may.
func receiptReason(p payment.Payment, r Receipt) payment.Reason {
	switch {
	case p.Mode != payment.ByOrder || p.OutTradeNo == strayPrefix+p.TradeNo:
		return "NOT_MY_ORDER"
	case r.TotalFen != p.TotalFen || r.PaidFen < 0 || r.PaidFen > r.TotalFen:
		return "AMOUNT_MISMATCH"
	case !p.ExpiresAt.IsZero() && r.PaidAt.After(p.ExpiresAt):
		return "PAID_AFTER_EXPIRY"
	case p.ReversalStarted():
		return payment.ReasonReversalStarted
	}
	return ""
}

// strayPrefix begins the number of a trade that stands for an order of this terminal which the book does not have.
const strayPrefix = "RECEIPT-"

// strayOrder opens a trade for an authentic receipt of an order that this terminal showed and this book has lost (an older
// copy was restored), so that the payment behind it goes back to the customer as every other reversal does.
func (t *tx) strayOrder(r Receipt) (payment.Payment, error) {
	err := t.emit(recOpened, payment.Opened{TradeNo: r.Order, OutTradeNo: strayPrefix + r.Order, Mode: payment.ByOrder, TotalFen: r.TotalFen, ExpiresAt: t.at})
	if err != nil {
		return payment.Payment{}, err
	}
	return t.byTradeNo(r.Order)
}

func (t *tx) refuseReceipt(p payment.Payment, why payment.Reason) (payment.Payment, error) {
	e := payment.ReceiptRefused{TradeNo: p.TradeNo, Reason: why}
	switch _, err := payment.Apply(p, e, t.at); {
	case errors.Is(err, payment.ErrReplay): // it is being reversed already
		return p, nil
	case err != nil: // it ended here: a person must look
		return p, t.alarm("RECEIPT_REFUSED", payment.Answered{TradeNo: p.TradeNo}, "an authentic receipt of a trade that is "+string(p.State)+": "+string(why))
	}
	if err := t.emit(recReceiptRefused, e); err != nil {
		return p, err
	}
	return t.byTradeNo(p.TradeNo)
}

// settleBy journals an event that makes the trade SUCCESS, with its paper.
func (t *tx) settleBy(tradeNo string, e payment.Event) (payment.Payment, error) {
	if err := t.emit(kindOf(e), e); err != nil {
		return payment.Payment{}, err
	}
	return t.printed(tradeNo)
}

// printed queues the first receipt of a trade that was just taken, and answers the trade.
func (t *tx) printed(tradeNo string) (payment.Payment, error) {
	p, err := t.byTradeNo(tradeNo)
	if err == nil && p.State.EndsWait() && p.Copies == 0 && t.book.opts.AutoPrint {
		if _, err = t.queuePrint(p, "", ""); err == nil {
			p, err = t.byTradeNo(tradeNo)
		}
	}
	return p, err
}

// foldDigits keeps the times of the last tries, at most as many as are counted.
func foldDigits(s state, at time.Time) error {
	tries, err := digitsTried(s)
	if err != nil {
		return err
	}
	tries = append(tries, at.UnixMilli())
	if len(tries) > digitTries {
		tries = tries[len(tries)-digitTries:]
	}
	return put(s, keyDigits, tries)
}

// reached forgets wrong digits: the ledger was reached, or the digits were right.
func reached(s state) error {
	if tries, err := digitsTried(s); err != nil || len(tries) == 0 {
		return err
	}
	return s.delete(keyDigits)
}

// typingPaused reports whether the last digitTries tries were within digitWindow. It stays so until the ledger is reached.
func typingPaused(tries []int64) bool {
	return len(tries) == digitTries && time.Duration(tries[digitTries-1]-tries[0])*time.Millisecond < digitWindow
}

func digitsTried(s state) (tries []int64, err error) {
	if err := get(s, keyDigits, &tries); err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	return tries, nil
}

// ConfirmDigits settles a shown order by the digits that the customer reads out. The try is durable before same compares;
// same must take constant time. It fails with ErrWrongDigits, ErrDigitsLocked, ErrDigitsPaused, payment.ErrIllegalMove.
func (b *Book) ConfirmDigits(ctx context.Context, tradeNo, operator string, same func() bool) (p payment.Payment, err error) {
	err = b.do(ctx, func(t *tx) error {
		if p, err = t.byTradeNo(tradeNo); err != nil {
			return err
		}
		if p.DigitTries >= payment.MaxDigitTries {
			return ErrDigitsLocked
		}
		tries, err := digitsTried(t.state)
		if err != nil {
			return err
		}
		if typingPaused(tries) {
			return ErrDigitsPaused
		}
		if err := t.emit(recDigitsTyped, payment.DigitsTyped{TradeNo: tradeNo, OperatorID: operator}); err != nil {
			return err
		}
		p, err = t.byTradeNo(tradeNo)
		return err
	})
	if err != nil {
		return p, err
	}
	if !same() {
		return p, ErrWrongDigits
	}
	err = b.do(ctx, func(t *tx) error {
		if p, err = t.byTradeNo(tradeNo); err != nil || p.State == payment.Success {
			return err
		}
		p, err = t.settleBy(tradeNo, payment.DigitsMatched{TradeNo: tradeNo, At: t.at})
		return err
	})
	return p, err
}

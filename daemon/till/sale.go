package till

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"time"

	"yupos/devices/paycode"
	"yupos/ledgercache"
	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
)

// Sale is what a register or the cashier asks for.
type Sale struct {
	OutTradeNo string
	TotalFen   money.Fen
	AuthCode   string // the customer's code; "" arms the scanner
	Subject    string
	Attach     string
	OperatorID string // a label that the register gives
	Caller     string `json:"-"` // who asked; stands in where there is no label, and is no part of the request
	NoOffline  bool   // offline: "never"
}

// hash tells a repeated request from a reused number. verb keeps pay and precreate apart.
func (s Sale) hash(verb string) []byte {
	raw, err := json.Marshal(struct {
		Verb string
		Sale Sale
	}{verb, s})
	if err != nil {
		return nil // a struct of texts and integers always marshals
	}
	sum := sha256.Sum256(raw)
	return sum[:]
}

// Pay takes a sale. With AuthCode the code is judged and submitted, or refused, in one step; without it the scanner is
// armed for payment.CounterFor. A repeat of the same request answers the recorded trade and replayed = true.
//
// It fails with ledgercache.ErrOutTradeNoUsed, ErrCounterBusy, ErrNoShift, ErrReadOnly, ErrSealed, or money.ErrRange.
func (t *Till) Pay(ctx context.Context, s Sale) (p payment.Payment, replayed bool, err error) {
	now := t.o.Now()
	n := s.open(payment.AtCounter, "pay")
	if s.AuthCode == "" {
		n.ExpiresAt = now.Add(payment.CounterFor).UTC().Truncate(time.Millisecond)
		return t.book.OpenTrade(ctx, n)
	}
	n.Mode = payment.ByCode
	v := t.judge(s.AuthCode, "", now, s.NoOffline)
	if v.signed != nil {
		return t.book.OpenOffline(ctx, n, *v.signed, t.o.Clock())
	}
	n.Code, n.Reject, n.Foreign = v.code, v.reason, v.foreign
	return t.book.OpenTrade(ctx, n)
}

func (s Sale) open(mode payment.Mode, verb string) ledgercache.New {
	return ledgercache.New{
		OutTradeNo: s.OutTradeNo, Mode: mode, TotalFen: s.TotalFen, Subject: s.Subject, Attach: s.Attach,
		OperatorID: cmp.Or(s.OperatorID, s.Caller), BodyHash: s.hash(verb), OnlineOnly: s.NoOffline,
	}
}

// Precreate shows an ORDER for the customer to pay, for payment.OrderFor. It answers at once, line up or down. A repeat of the
// same request answers the recorded trade; one that expired meanwhile, and was not reversed, is shown again under its number
// with a later expiry. It fails as Pay does.
func (t *Till) Precreate(ctx context.Context, s Sale) (p payment.Payment, replayed bool, err error) {
	if err := s.TotalFen.CheckPayable(); err != nil {
		return p, false, err
	}
	now := t.o.Now()
	n := s.open(payment.ByOrder, "precreate")
	n.TradeNo = ledgercache.NewTradeNo(now)
	n.ExpiresAt = now.Add(payment.OrderFor).UTC().Truncate(time.Second) // whole seconds: what the code says
	shown, err := t.book.Trade(s.OutTradeNo)
	again := err == nil && shown.MayShowAgain() && bytes.Equal(shown.BodyHash, n.BodyHash)
	if again {
		n.TradeNo = shown.TradeNo
	}
	n.OrderText, err = paycode.MakeOrder(paycode.Order{
		MerchantID: t.o.Shop.MerchantID, TerminalID: t.o.Shop.TerminalID, MCC: t.o.Shop.MCC, MerchantName: t.o.Shop.Name,
		ULID: n.TradeNo, AmountFen: s.TotalFen, Expires: uint32(n.ExpiresAt.Unix()),
	}, t.o.Key)
	if err != nil {
		return p, false, err
	}
	if again {
		p, err = t.book.ShowAgain(ctx, n.TradeNo, n.OrderText, n.ExpiresAt)
		if !errors.Is(err, payment.ErrIllegalMove) { // else its end came first: it is answered as it is
			return p, true, err
		}
	}
	return t.book.OpenTrade(ctx, n)
}

// Cancel ends a trade: unsent ones close at once, shown or sent ones are reversed at the ledger. A trade that has ended
// unpaid is answered as it is; a paid one fails with ErrTradePaid. One that was accepted offline is withdrawn, which is a
// manager's right; once its upload has begun that fails with ErrUploaded.
func (t *Till) Cancel(ctx context.Context, outTradeNo, operatorID string) (payment.Payment, error) {
	p, err := t.book.Trade(outTradeNo)
	if err != nil {
		return p, err
	}
	if p.State == payment.AcceptedOffline {
		return t.withdraw(ctx, p, operatorID)
	}
	c, err := t.book.Cancel(ctx, p.TradeNo, operatorID)
	if errors.Is(err, payment.ErrIllegalMove) {
		if now, err := t.book.ByTradeNo(p.TradeNo); err == nil {
			return now, ErrTradePaid
		}
	}
	return c, err
}

// Trade is the trade with the register's number. Where it is open the ledger is asked soon; Trade never waits for that.
func (t *Till) Trade(outTradeNo string) (payment.Payment, error) {
	p, err := t.book.Trade(outTradeNo)
	if err == nil && !p.State.Final() {
		t.o.Link.Nudge(p.TradeNo)
	}
	return p, err
}

// Wait answers the trade when its state ends the wait, or as it is after d.
func (t *Till) Wait(ctx context.Context, outTradeNo string, d time.Duration) (payment.Payment, error) {
	return await(ctx, t, d, func() (payment.Payment, bool, error) {
		p, err := t.book.Trade(outTradeNo)
		return p, p.State.EndsWait(), err
	})
}

// RefundRequest asks to give money back to the wallet that paid.
type RefundRequest struct {
	OutTradeNo  string
	OutRefundNo string
	RefundFen   money.Fen
	Reason      string
	OperatorID  string `json:"-"` // who asked; no part of the request
}

// Refund opens a refund of a paid trade; the line carries it to the ledger. A repeat of the same request answers the
// recorded refund and replayed = true. It fails as ledgercache.OpenRefund does.
func (t *Till) Refund(ctx context.Context, r RefundRequest) (payment.Refund, bool, error) {
	p, err := t.book.Trade(r.OutTradeNo)
	if err != nil {
		return payment.Refund{}, false, err
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return payment.Refund{}, false, err
	}
	sum := sha256.Sum256(raw)
	return t.book.OpenRefund(ctx, ledgercache.NewRefund{
		OutRefundNo: r.OutRefundNo, TradeNo: p.TradeNo, RefundFen: r.RefundFen, Note: r.Reason, OperatorID: r.OperatorID, BodyHash: sum[:],
	})
}

// WaitRefund answers the refund when it has ended, or as it is after d.
func (t *Till) WaitRefund(ctx context.Context, outRefundNo string, d time.Duration) (payment.Refund, error) {
	return await(ctx, t, d, func() (payment.Refund, bool, error) {
		f, err := t.book.Refund(outRefundNo)
		return f, f.Final(), err
	})
}

// await reads until what it reads has ended, or d has passed. The watch begins before the first read, so that no change
// between the two is missed.
func await[T any](ctx context.Context, t *Till, d time.Duration, read func() (T, bool, error)) (T, error) {
	changes := t.book.Watch()
	defer func() { changes.Close() }()
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		v, ended, err := read()
		if err != nil || ended || d <= 0 {
			return v, err
		}
		select {
		case _, ok := <-changes.C:
			if !ok {
				if t.book.Err() != nil {
					return v, nil
				}
				changes.Close()
				changes = t.book.Watch()
			}
		case <-timer.C:
			v, _, err := read()
			return v, err
		case <-t.book.Failed():
			return v, t.book.Err()
		case <-ctx.Done():
			return v, nil
		}
	}
}

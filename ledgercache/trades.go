package ledgercache

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"

	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
)

// Code is a customer's code that the terminal has judged by itself (codes.md, steps 1–6) and now wants to charge. The
// book judges the rest, replay and the code's own limit, inside the step.
type Code struct {
	Text      string    // sent to the ledger as it is
	Wallet    []byte    // SIGNED: the wallet's public key
	Counter   uint32    // SIGNED: its counter
	Token     []byte    // SIGNED: its wallet's token, 8 bytes
	MostFen   money.Fen // SIGNED: the most that it may pay; 0 = the code sets no limit
	ScannedAt time.Time
}

// New describes a trade to open.
type New struct {
	TradeNo    string // ULID; made here if empty
	OutTradeNo string
	Mode       payment.Mode
	TotalFen   money.Fen
	Subject    string
	Attach     string
	OperatorID string
	BodyHash   []byte    // SHA-256 of the request
	ExpiresAt  time.Time // of the armed counter or the ORDER
	OrderText  string
	OnlineOnly bool           // never accept it offline
	Code       *Code          // by code: what to charge …
	Reject     payment.Reason // … or why the terminal refuses it
	Foreign    string         // with FOREIGN_CODE: the kind of code
}

// NewTradeNo makes a trade number: a ULID with fresh random bits.
func NewTradeNo(now time.Time) string {
	return ulid.MustNew(ulid.Timestamp(now), rand.Reader).String()
}

// OpenTrade opens a trade, in one step with the submission or refusal of its code. A repeat of the same request
// (OutTradeNo and BodyHash) answers the recorded trade and replayed = true.
//
// It fails with ErrOutTradeNoUsed, ErrDiskFull, ErrCounterBusy, ErrNoShift, money.ErrRange, or with what Err says.
func (b *Book) OpenTrade(ctx context.Context, n New) (p payment.Payment, replayed bool, err error) {
	if err := b.checkNew(&n); err != nil {
		return p, false, err
	}
	err = b.do(ctx, func(t *tx) error {
		p, replayed, err = t.openTrade(n)
		return err
	})
	return p, replayed, err
}

// checkNew refuses what can never be a trade, and numbers what can.
func (b *Book) checkNew(n *New) error {
	if err := n.TotalFen.CheckPayable(); err != nil {
		return err
	}
	if n.OutTradeNo == "" {
		return fmt.Errorf("%w: empty out_trade_no", payment.ErrIllegalMove)
	}
	if n.TradeNo == "" {
		n.TradeNo = NewTradeNo(b.now())
	}
	return nil
}

func (t *tx) openTrade(n New) (payment.Payment, bool, error) {
	if p, err := t.byOutTradeNo(n.OutTradeNo); err == nil {
		if !bytes.Equal(p.BodyHash, n.BodyHash) {
			return p, false, ErrOutTradeNoUsed
		}
		return p, true, nil
	} else if !errors.Is(err, ErrNotFound) {
		return p, false, err
	}
	if err := t.takesNew(); err != nil {
		return payment.Payment{}, false, err
	}
	if n.Mode != payment.ByCode {
		if _, err := t.state.get(keyCounter); err == nil {
			return payment.Payment{}, false, ErrCounterBusy
		}
	}
	shift, err := t.shiftFor(n.OperatorID)
	if err != nil {
		return payment.Payment{}, false, err
	}
	if err := t.emit(recOpened, payment.Opened{
		TradeNo: n.TradeNo, OutTradeNo: n.OutTradeNo, Mode: n.Mode, TotalFen: n.TotalFen, Subject: n.Subject, Attach: n.Attach,
		OperatorID: n.OperatorID, ShiftID: shift, BodyHash: n.BodyHash, ExpiresAt: n.ExpiresAt, OrderText: n.OrderText,
		OnlineOnly: n.OnlineOnly,
	}); err != nil {
		return payment.Payment{}, false, err
	}
	switch {
	case n.Reject != "":
		err = t.emit(recRejected, payment.Rejected{TradeNo: n.TradeNo, Reason: n.Reject, Foreign: n.Foreign})
	case n.Code != nil:
		err = t.submit(n.TradeNo, n.TotalFen, *n.Code)
	}
	if err != nil {
		return payment.Payment{}, false, err
	}
	p, err := t.byTradeNo(n.TradeNo)
	return p, false, err
}

// submit judges steps 7 to 9 of codes.md and hands the code to the line, or records the refusal.
func (t *tx) submit(tradeNo string, total money.Fen, c Code) error {
	reason, err := t.judge(total, c)
	if err != nil {
		return err
	}
	if reason != "" {
		return t.emit(recRejected, payment.Rejected{TradeNo: tradeNo, Reason: reason})
	}
	return t.emit(recSubmitted, payment.Submitted{
		TradeNo: tradeNo, Code: c.Text, Wallet: c.Wallet, Counter: c.Counter, Token: c.Token, ScannedAt: c.ScannedAt.UTC().Truncate(time.Millisecond),
	})
}

func (t *tx) judge(total money.Fen, c Code) (payment.Reason, error) {
	if replayed, err := t.replayed(c.Text, c.Wallet, c.Counter); err != nil || replayed {
		return payment.ReasonCodeReplayed, err
	}
	if len(c.Token) > 0 {
		if blocked, err := denied(t.state, c.Token); err != nil || blocked {
			return payment.ReasonWalletBlocked, err
		}
	}
	if c.MostFen > 0 && total > c.MostFen {
		return payment.ReasonOverCodeLimit, nil
	}
	return "", nil
}

// SubmitCode charges a code that was scanned for the trade at the counter. The trade stays NOTPAY, with the reason, where
// the book refuses the code, and without it where the disk is nearly full (ErrDiskFull).
func (b *Book) SubmitCode(ctx context.Context, tradeNo string, c Code) (payment.Payment, error) {
	return b.change(ctx, tradeNo, func(t *tx, p payment.Payment) error {
		if p.State != payment.NotPay || p.Mode != payment.AtCounter {
			return fmt.Errorf("%w: a code for a trade that is %s (%s)", payment.ErrIllegalMove, p.State, p.Mode)
		}
		if err := t.takesNew(); err != nil {
			return err
		}
		return t.submit(tradeNo, p.TotalFen, c)
	})
}

// RejectCode records that the terminal refused a code that was scanned for the trade at the counter.
func (b *Book) RejectCode(ctx context.Context, tradeNo string, reason payment.Reason, foreign string) (payment.Payment, error) {
	return b.event(ctx, payment.Rejected{TradeNo: tradeNo, Reason: reason, Foreign: foreign})
}

// Cancel records the wish to end a trade. A trade that has ended unpaid already, or is being reversed, is answered as it
// is; one that is paid fails with payment.ErrIllegalMove.
func (b *Book) Cancel(ctx context.Context, tradeNo, operator string) (payment.Payment, error) {
	return b.event(ctx, payment.CancelWanted{TradeNo: tradeNo, OperatorID: operator})
}

// Expire ends the waiting of a trade at the counter or of an ORDER whose time has come.
func (b *Book) Expire(ctx context.Context, tradeNo string) (payment.Payment, error) {
	return b.event(ctx, payment.Expired{TradeNo: tradeNo})
}

// ShowAgain shows an ORDER again that expired: the same number and amount, with a later expiry. It fails with
// payment.ErrIllegalMove once a reversal was wished for or has left, and as OpenTrade does.
func (b *Book) ShowAgain(ctx context.Context, tradeNo, orderText string, expires time.Time) (payment.Payment, error) {
	return b.change(ctx, tradeNo, func(t *tx, p payment.Payment) error {
		e := payment.OrderShown{TradeNo: tradeNo, OrderText: orderText, ExpiresAt: expires}
		if _, err := payment.Apply(p, e, t.at); err != nil {
			return err
		}
		if err := t.takesNew(); err != nil {
			return err
		}
		if _, err := t.state.get(keyCounter); err == nil {
			return ErrCounterBusy
		}
		return t.emit(recOrderShown, e)
	})
}

// RecordAsk makes durable that a message about the trade is about to leave. With payment.ErrIllegalMove it must not leave.
func (b *Book) RecordAsk(ctx context.Context, tradeNo string, op payment.Op, reason payment.Reason) (payment.Payment, error) {
	return b.event(ctx, payment.Asked{TradeNo: tradeNo, Op: op, Reason: reason})
}

// Answer records what the ledger holds true, with the receipt that a success queues and, for a push, the news cursor, in
// one step. An answer that tells nothing new is answered with the trade as it is. One that contradicts what is certain
// is kept as an alarm and returned as payment.ErrImpossible; the trade stays as it is.
func (b *Book) Answer(ctx context.Context, a payment.Answered) (p payment.Payment, err error) {
	var refused error
	err = b.do(ctx, func(t *tx) error {
		refused = nil
		p, err = t.byTradeNo(a.TradeNo)
		if errors.Is(err, ErrNotFound) {
			refused = err
			return t.alarm("UNKNOWN_TRADE", a, "the ledger speaks of a trade that is not in this book")
		}
		if err != nil {
			return err
		}
		_, moved := payment.Apply(p, a, t.at)
		switch {
		case errors.Is(moved, payment.ErrReplay):
			return t.newsOnly(a.News)
		case moved != nil:
			refused = moved
			return t.alarm(alarmOf(p), a, moved.Error())
		}
		p, err = t.answered(a)
		return err
	})
	return p, cmp.Or(err, refused) // a refusal that was not made durable is none
}

func (t *tx) answered(a payment.Answered) (payment.Payment, error) {
	if err := t.emit(recAnswered, a); err != nil {
		return payment.Payment{}, err
	}
	p, err := t.byTradeNo(a.TradeNo)
	if err != nil || p.State != payment.Success {
		return p, err
	}
	return t.printed(a.TradeNo)
}

// alarmOf names what an impossible answer about p means.
func alarmOf(p payment.Payment) string {
	if p.Unconfirmed && p.Evidence == payment.ByDigits {
		return "CONFIRMED_NOT_PAID"
	}
	return "IMPOSSIBLE_ANSWER"
}

func (t *tx) newsOnly(sequence uint64) error {
	have, err := newsCursor(t.state)
	if err != nil || sequence <= have {
		return err
	}
	return t.emit(recNews, news{Sequence: sequence})
}

// alarm keeps a contradiction for a person. The same one again, as each new question may bring it, is not kept twice.
func (t *tx) alarm(code string, a payment.Answered, detail string) error {
	known := false
	err := t.state.scan(prefixAlarm, nil, true, func(_, value []byte) (bool, error) {
		var old Alarm
		if err := decMode.Unmarshal(value, &old); err != nil {
			return false, err
		}
		known = old.Code == code && old.TradeNo == a.TradeNo && old.Detail == detail
		return !known, nil
	})
	if err != nil || known {
		return errors.Join(err, t.newsOnly(a.News))
	}
	t.book.log.Error("alarm", "code", code, "trade_no", a.TradeNo, "detail", detail)
	return t.emit(recAlarm, Alarm{ID: NewTradeNo(t.at), Code: code, TradeNo: a.TradeNo, Detail: detail, News: a.News})
}

// event journals one event of a trade if it tells something new, and answers the trade as it then is.
func (b *Book) event(ctx context.Context, e payment.Event) (payment.Payment, error) {
	return b.change(ctx, payment.TradeOf(e), func(t *tx, p payment.Payment) error {
		if _, err := payment.Apply(p, e, t.at); errors.Is(err, payment.ErrReplay) {
			return nil
		} else if err != nil {
			return err
		}
		return t.emit(kindOf(e), e)
	})
}

// change runs one step on a trade and answers the trade as it then is.
func (b *Book) change(ctx context.Context, tradeNo string, decide func(*tx, payment.Payment) error) (p payment.Payment, err error) {
	err = b.do(ctx, func(t *tx) error {
		if p, err = t.byTradeNo(tradeNo); err != nil {
			return err
		}
		if err = decide(t, p); err != nil {
			return err
		}
		p, err = t.byTradeNo(tradeNo)
		return err
	})
	return p, err
}

func (t *tx) byTradeNo(tradeNo string) (p payment.Payment, err error) {
	trade, err := id(tradeNo)
	if err != nil {
		return p, err
	}
	return p, get(t.state, key(prefixTrade, trade), &p)
}

func (t *tx) byOutTradeNo(outTradeNo string) (p payment.Payment, err error) {
	trade, err := t.state.get(key(prefixOutTrade, []byte(outTradeNo)))
	if err != nil {
		return p, err
	}
	return p, t.led(key(prefixTrade, trade), &p)
}

// led reads what an index leads to. That it is not there is damage, and no answer.
func (t *tx) led(k []byte, into any) error {
	err := get(t.state, k, into)
	if errors.Is(err, ErrNotFound) && t.book != nil && t.book.reading == nil {
		return t.book.doubt(k)
	}
	return err
}

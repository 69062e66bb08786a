package till

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"yupos/devices/display"
	"yupos/devices/paycode"
	"yupos/devices/scanner"
	"yupos/ledgercache"
	"yupos/ledgercache/payment"
)

// resultFor is how long the customer sees how a sale ended.
const resultFor = 5 * time.Second

// Counter is what the counter shows now.
type Counter struct {
	State string           // a word of devices/display: idle, amount, code, confirm, paid, failed, paused
	Trade *payment.Payment // the trade that it is about
	Until time.Time        // when it changes by itself; zero if it does not
}

// Ended is a trade that has ended and when this till learned it, by its own clock.
type Ended struct {
	Trade *payment.Payment
	At    time.Time
}

// View derives what the counter shows from what is true: the trade that holds the counter, the one that ended last, the
// book's health and the time. It is pure.
func View(holder *payment.Payment, last Ended, broken bool, now time.Time) Counter {
	if broken {
		return Counter{State: display.Paused}
	}
	if holder != nil {
		return viewHolder(holder)
	}
	if last.Trade == nil || !now.Before(last.At.Add(resultFor)) {
		return Counter{State: display.Idle}
	}
	c := Counter{Trade: last.Trade, Until: last.At.Add(resultFor), State: display.Failed}
	if last.Trade.State == payment.Success || last.Trade.State == payment.AcceptedOffline {
		c.State = display.Paid
	}
	return c
}

// paused is the same counter where nothing new is taken: what is on its way to an end, and how it ended, still shows.
func (c Counter) paused() Counter {
	waits := c.State == display.Amount && c.Trade != nil && c.Trade.State == payment.NotPay // for a code that would be refused
	if c.State == display.Idle || waits {
		return Counter{State: display.Paused, Until: c.Until}
	}
	return c
}

func viewHolder(p *payment.Payment) Counter {
	switch p.State {
	case payment.NotPay:
		if p.Mode == payment.ByOrder {
			return Counter{State: display.Code, Trade: p, Until: p.ExpiresAt}
		}
		return Counter{State: display.Amount, Trade: p, Until: p.ExpiresAt}
	case payment.UserPaying:
		return Counter{State: display.Confirm, Trade: p}
	case payment.Unknown, payment.AcceptedOffline, payment.Success, payment.Closed, payment.Revoked, payment.PayError, payment.Bounced:
		return Counter{State: display.Amount, Trade: p}
	}
	return Counter{State: display.Idle}
}

// show turns a Counter into what a customer's screen is told.
func (c Counter) show(shop Shop) display.Show {
	s := display.Show{State: c.State, Shop: shop.DisplayName}
	if c.Trade == nil {
		return s
	}
	s.AmountFen, s.AmountText = int64(c.Trade.TotalFen), c.Trade.TotalFen.Yuan()
	s.TradeTail = c.Trade.TradeNo[max(0, len(c.Trade.TradeNo)-8):]
	if c.State == display.Code {
		s.Code = c.Trade.OrderText
	}
	return s
}

// Counter is what the counter shows now.
func (t *Till) Counter() Counter {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counter
}

// loop is the counter's own memory: nothing that the book could not tell again.
type loop struct {
	till  *Till
	last  Ended
	shown bool // the screen was told once
}

// work is the counter's one loop: scans, changes of the book, changes of the line, the clock.
func (t *Till) work(ctx context.Context) error {
	l := &loop{till: t}
	linked, unwatch := t.o.Link.Watch()
	defer unwatch()
	changes := t.book.Watch()
	defer func() { changes.Close() }()
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer func() {
		if t.book.Err() != nil { // however the loop learned it, the customer reads that nothing is sold
			l.refresh(nil, true)
		}
	}()
	for {
		if err := l.settle(ctx, timer); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.book.Failed():
			return t.book.Err()
		case s := <-t.o.Scans:
			if err := l.scanned(ctx, s); err != nil {
				return err
			}
		case c, ok := <-changes.C:
			if !ok { // fell behind: the next settle re-reads
				changes.Close()
				changes = t.book.Watch()
				continue
			}
			l.changed(c)
		case <-linked:
			t.Changed()
		case <-timer.C:
		}
	}
}

// settle expires what has run out, shows what is now true and sets the clock for the next change that comes by itself.
func (l *loop) settle(ctx context.Context, timer *time.Timer) error {
	holder, err := l.holder(ctx)
	if err != nil {
		return err
	}
	c := l.refresh(holder, l.till.book.Err() != nil)
	if c.Until.IsZero() {
		timer.Stop()
		return nil
	}
	timer.Reset(max(0, c.Until.Sub(l.till.o.Now())))
	return nil
}

// holder is the trade at the counter, expired if its time has come.
func (l *loop) holder(ctx context.Context) (*payment.Payment, error) {
	t := l.till
	tradeNo, err := t.book.Counter()
	if err != nil || tradeNo == "" {
		return nil, err
	}
	p, err := t.book.ByTradeNo(tradeNo)
	if err != nil {
		return nil, err
	}
	if p.State == payment.NotPay && !p.ExpiresAt.IsZero() && !t.o.Now().Before(p.ExpiresAt) {
		p, err = t.book.Expire(ctx, tradeNo)
		if err != nil && !errors.Is(err, payment.ErrIllegalMove) {
			return nil, l.unlessBroken(err)
		}
		if p.State.Final() {
			l.last = Ended{&p, t.o.Now()}
		}
		return nil, nil
	}
	return &p, nil
}

// unlessBroken lets a broken book end the loop and every other refusal go by: the next turn reads what is true.
func (l *loop) unlessBroken(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, ledgercache.ErrSealed) || errors.Is(err, ledgercache.ErrClosed) {
		return err
	}
	l.till.log.Warn("step refused", slog.Any("err", err))
	return nil
}

// refresh shows what is true, on the screen and to every watcher.
func (l *loop) refresh(holder *payment.Payment, broken bool) Counter {
	t := l.till
	c := View(holder, l.last, broken, t.o.Now())
	if room := t.book.Space().Room; room == ledgercache.RoomFull || room == ledgercache.RoomNone {
		c = c.paused()
	}
	t.mu.Lock()
	changed := !l.shown || c.State != t.counter.State || !sameTrade(c.Trade, t.counter.Trade)
	t.counter = c
	t.mu.Unlock()
	l.shown = true
	if changed {
		if t.o.Screen != nil {
			t.o.Screen.Set(c.show(t.o.Shop))
		}
		t.Changed()
	}
	return c
}

func sameTrade(a, b *payment.Payment) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.TradeNo == b.TradeNo && a.State == b.State && a.OrderText == b.OrderText
}

// changed notes a trade that has just ended, so that the customer sees how.
func (l *loop) changed(c ledgercache.Change) {
	t := l.till
	if c.Kind == ledgercache.ChangeTrade {
		t.say(payment.Words{})
		p, err := t.book.ByTradeNo(c.TradeNo)
		if err == nil && p.State.EndsWait() {
			l.ended(&p)
		}
		return
	}
	t.Changed()
}

// ended keeps the newest end. A later change of a trade that has ended, a refund or a copy, is no new end.
func (l *loop) ended(p *payment.Payment) {
	if l.last.Trade == nil || l.last.Trade.TradeNo != p.TradeNo || l.last.Trade.State != p.State {
		l.last = Ended{p, l.till.o.Now()}
	}
}

// scanned charges a code that was read, if the counter waits for one. A code that nobody asked for is never charged.
func (l *loop) scanned(ctx context.Context, s scanner.Scan) error {
	t := l.till
	if paycode.ClassifyScan(s.Text, s.Symbology) == paycode.KindReceipt {
		return l.unlessBroken(t.receiptScanned(ctx, s.Text))
	}
	tradeNo, err := t.book.Counter()
	if err != nil {
		return err
	}
	if tradeNo == "" {
		t.say(payment.Words{ZH: "请先输入金额，再扫码", EN: "Enter the amount first, then scan"})
		return nil
	}
	p, err := t.book.ByTradeNo(tradeNo)
	if err != nil {
		return err
	}
	if p.Mode != payment.AtCounter || p.State != payment.NotPay || s.At.Before(p.CreatedAt) || !s.At.Before(p.ExpiresAt) {
		t.say(payment.Words{ZH: "现在不需要扫码", EN: "No code is wanted now"})
		return nil
	}
	t.log.Debug("code read", slog.String("trade_no", tradeNo), slog.Time("at", s.At))
	v := t.judge(s.Text, s.Symbology, s.At, p.OnlineOnly)
	switch {
	case v.reason != "":
		_, err = t.book.RejectCode(ctx, tradeNo, v.reason, v.foreign)
	case v.signed != nil:
		_, err = t.book.AcceptOffline(ctx, tradeNo, *v.signed, t.o.Clock(), "")
	default:
		_, err = t.book.SubmitCode(ctx, tradeNo, *v.code)
	}
	t.log.Debug("code judged", slog.String("trade_no", tradeNo), slog.String("reason", string(v.reason)))
	return l.unlessBroken(err)
}

// say leaves a sentence for the cashier about a scan that was not wanted.
func (t *Till) say(w payment.Words) {
	t.mu.Lock()
	t.notice = w
	t.mu.Unlock()
	t.Changed()
}

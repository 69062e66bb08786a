package uplink

import (
	"errors"
	"log/slog"
	"time"

	"yupos/ledgercache"
	"yupos/ledgercache/payment"
	"yupos/sync/wire"
)

// request is what was sent and may be answered.
type request struct {
	key     string   // trade number or refund number
	trades  []string // of a batch of uploads
	op      payment.Op
	attempt int
	at      time.Time
	slot    bool // it holds a place in the window
}

// reload reads all open work from the book.
func (t *talk) reload() {
	trades, err := t.openTrades()
	if err != nil {
		t.fail(err)
		return
	}
	refunds, err := t.u.book.OpenRefunds()
	if err != nil {
		t.fail(err)
		return
	}
	known := make(map[string]*memory, len(trades)+len(refunds))
	for _, p := range trades {
		known[p.TradeNo] = t.memory(p.TradeNo)
	}
	for _, r := range refunds {
		known[r.RefundNo] = t.memory(r.RefundNo)
	}
	t.u.memories = known
	for key, w := range t.plan.work {
		if known[key] == nil && !w.busy {
			t.plan.put(key, w.refund, step{})
		}
	}
	for _, p := range trades {
		t.file(p)
	}
	for _, r := range refunds {
		t.fileRefund(r)
	}
	t.uploads.poke()
	t.anchor.start(t.u, t.u.now())
}

// openTrades are all open trades but those that only wait for their upload, of which there may be very many.
func (t *talk) openTrades() (list []payment.Payment, err error) {
	for _, lane := range []payment.Lane{payment.LaneLive, payment.LaneAsk} {
		for after := ""; ; {
			page, next, err := t.u.book.OpenWork(lane, after, openPage)
			if err != nil {
				return nil, err
			}
			list, after = append(list, page...), next
			if next == "" {
				break
			}
		}
	}
	return list, nil
}

const openPage = 1000

func (t *talk) memory(key string) *memory {
	m := t.u.memories[key]
	if m == nil {
		m = &memory{}
		t.u.memories[key] = m
	}
	return m
}

// file puts a trade under its next step.
func (t *talk) file(p payment.Payment) {
	if !p.Open() {
		delete(t.u.memories, p.TradeNo)
		t.plan.put(p.TradeNo, false, step{})
		return
	}
	if p.State == payment.AcceptedOffline { // the lane of uploads walks over them
		delete(t.u.memories, p.TradeNo)
		t.plan.put(p.TradeNo, false, step{})
		if p.UploadAsks == 0 {
			t.uploads.poke()
		}
		return
	}
	t.plan.put(p.TradeNo, false, nextStep(p, *t.memory(p.TradeNo), t.u.now(), t.u.book.Inherited(p)))
}

func (t *talk) fileRefund(r payment.Refund) {
	if r.Final() {
		delete(t.u.memories, r.RefundNo)
		t.plan.put(r.RefundNo, true, step{})
		return
	}
	m := t.memory(r.RefundNo)
	now := t.u.now()
	due := notBeyond(r.Due(), later(r.LastAskAt, r.CreatedAt), now)
	t.plan.put(r.RefundNo, true, step{op: opRefund, at: later(later(due, m.waiting), m.hold)})
}

// refresh reads one piece of work again and files it.
func (t *talk) refresh(key string, refund bool) {
	var err error
	if refund {
		var r payment.Refund
		if r, err = t.u.book.ByRefundNo(key); err == nil {
			t.fileRefund(r)
		}
	} else {
		var p payment.Payment
		if p, err = t.u.book.ByTradeNo(key); err == nil {
			t.file(p)
		}
	}
	if errors.Is(err, ledgercache.ErrNotFound) {
		t.plan.put(key, refund, step{})
	} else if err != nil {
		t.fail(err)
	}
}

// changed follows the book.
func (t *talk) changed(c ledgercache.Change, ok bool) {
	if !ok { // fell behind: read everything again, but do not spin on a book that is being closed
		t.changes = nil
		t.besideLoop(func() func() {
			select {
			case <-time.After(rewatchAfter):
			case <-t.gone:
			}
			return func() {
				t.watch = t.u.book.Watch()
				t.changes = t.watch.C
				t.reload()
			}
		})
		return
	}
	switch c.Kind {
	case ledgercache.ChangeTrade:
		t.refresh(c.TradeNo, false)
	case ledgercache.ChangeRefund:
		t.refresh(c.RefundNo, true)
	case ledgercache.ChangeCursor, ledgercache.ChangeNews: // an anchor brings both
		return
	}
	t.anchor.moved(t.u.now())
}

// pump starts all talk that is due, as far as the window allows. Live pays find room that the other lanes must leave.
func (t *talk) pump(now time.Time) {
	for t.err == nil && t.used < window && len(t.out) < outQueue/2 && !t.u.isStopping() {
		last := laneRefund
		if t.used >= windowLater {
			last = laneLive
		}
		w := t.plan.next(now, last)
		if w == nil {
			return
		}
		t.begin(w, now)
	}
}

// begin reads the truth about a piece of work and sends what is due. The book may have moved since it was filed: then it
// is filed again.
func (t *talk) begin(w *work, now time.Time) {
	if w.refund {
		t.record(w, opRefund, "")
		return
	}
	p, err := t.u.book.ByTradeNo(w.key)
	if err != nil {
		t.fail(err)
		return
	}
	m := t.memory(p.TradeNo)
	next := nextStep(p, *m, now, t.u.book.Inherited(p))
	switch {
	case next.op == payment.OpNone || next.op != w.step.op && next.at.After(now):
		t.file(p)
	case next.fresh:
		t.used++
		t.sendTrade(p, payment.OpPay, false)
		t.file(p)
	case next.op == payment.OpReverse:
		t.record(w, next.op, p.ReverseReason())
	case next.at.After(now) && next.op == payment.OpQuery: // nudged: a question may always come early
		t.record(w, next.op, "")
	case next.at.After(now):
		t.file(p)
	default:
		t.record(w, next.op, "")
	}
}

// record makes the message durable beside the loop, with its place in the window taken, and sends it then.
func (t *talk) record(w *work, op payment.Op, reason payment.Reason) {
	w.busy = true
	t.used++
	if op == opRefund {
		t.besideLoop(func() func() {
			r, err := t.u.book.RecordRefundAsk(t.ctx, w.key)
			return func() { t.recorded(w, err, func() { t.sendRefund(r) }) }
		})
		return
	}
	t.besideLoop(func() func() {
		p, err := t.u.book.RecordAsk(t.ctx, w.key, op, reason)
		return func() { t.recorded(w, err, func() { t.sendTrade(p, op, true) }) }
	})
}

// recorded sends what the book has taken. What the book does not allow any more is looked at again a little later.
func (t *talk) recorded(w *work, err error, send func()) {
	w.busy = false
	if err == nil && t.err == nil {
		send()
	} else {
		t.used--
	}
	if err != nil {
		t.memory(w.key).hold = t.u.now().Add(time.Second)
		if !errors.Is(err, payment.ErrIllegalMove) {
			t.bookFailed(err, "message not recorded, not sent", slog.String("key", w.key))
		}
	}
	t.refresh(w.key, w.refund)
}

// sendTrade sends a message about p. recorded tells an asking that stands in the book from the first pay.
func (t *talk) sendTrade(p payment.Payment, op payment.Op, recorded bool) {
	now := t.u.now()
	m := t.memory(p.TradeNo)
	m.waiting = now.Add(requestLimit)
	var body any
	switch op {
	case payment.OpPay:
		body = wire.Pay{
			TradeNo: p.TradeNo, Attempt: p.Attempt, OutTradeNo: p.OutTradeNo, TotalFen: p.TotalFen, Subject: p.Subject,
			OperatorID: p.OperatorID, Code: wire.Code(p.Code), ScannedAt: millis(p.SubmittedAt), NotAfter: millis(p.NotAfter), Repeat: recorded,
		}
		m.sent = max(m.sent, p.Attempt)
	case payment.OpOrder:
		body = wire.Order{
			TradeNo: p.TradeNo, OutTradeNo: p.OutTradeNo, TotalFen: p.TotalFen, Subject: p.Subject, OperatorID: p.OperatorID,
			ExpiresAt: millis(p.ExpiresAt),
		}
	case payment.OpReverse:
		body = wire.Reverse{TradeNo: p.TradeNo, TotalFen: p.TotalFen, Reason: string(p.ReverseReason()), Repeat: p.ReverseAsks > 1}
	default:
		q := wire.Query{TradeNo: p.TradeNo}
		if p.Mode == payment.ByOrder {
			q.OutTradeNo = p.OutTradeNo
		}
		body = q
	}
	t.track(t.send(body, 0), &request{key: p.TradeNo, op: op, attempt: p.Attempt, at: now})
}

func (t *talk) sendRefund(r payment.Refund) {
	now := t.u.now()
	t.memory(r.RefundNo).waiting = now.Add(requestLimit)
	id := t.send(wire.Refund{
		RefundNo: r.RefundNo, OutRefundNo: r.OutRefundNo, TradeNo: r.TradeNo, RefundFen: r.RefundFen, Reason: r.Note,
		OperatorID: r.OperatorID, Repeat: r.Asks > 1,
	}, 0)
	t.track(id, &request{key: r.RefundNo, op: opRefund, at: now})
}

func (t *talk) track(id uint64, r *request) {
	r.slot = true
	t.asked[id] = r
	t.slots = append(t.slots, id)
}

// expire frees the slots of requests that had their time. Their answers are still welcome.
func (t *talk) expire(now time.Time) {
	for len(t.slots) > 0 {
		id := t.slots[0]
		r := t.asked[id]
		if r != nil && r.slot && now.Sub(r.at) < requestLimit {
			return
		}
		t.slots = t.slots[1:]
		if r == nil || !r.slot {
			continue
		}
		r.slot = false
		t.used--
		t.keepLate(id)
	}
}

// keepLate keeps a request whose time is over: its answer is still welcome for a while.
func (t *talk) keepLate(id uint64) {
	t.late = append(t.late, id)
	if len(t.late) > lateAnswers {
		delete(t.asked, t.late[0])
		t.late = t.late[1:]
	}
}

// settle ends a request that was answered.
func (t *talk) settle(id uint64) {
	r := t.asked[id]
	delete(t.asked, id)
	if r.slot {
		r.slot = false
		t.used--
	}
}

// nudge asks about a trade now, because somebody wants to know.
func (t *talk) nudge(tradeNo string) {
	w := t.plan.work[tradeNo]
	if w == nil || w.busy {
		return
	}
	p, err := t.u.book.ByTradeNo(tradeNo)
	if err != nil {
		return // it is not in the book: nothing to ask
	}
	now := t.u.now()
	m := t.memory(tradeNo)
	if next, ok := nudged(p, *m, now, t.u.book.Inherited(p)); ok {
		m.nudgedAt = now
		t.plan.put(tradeNo, false, next)
	}
}

func millis(at time.Time) wire.Millis {
	if at.IsZero() {
		return 0
	}
	return wire.Millis(at.UnixMilli())
}

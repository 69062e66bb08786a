package uplink

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"yupos/ledgercache"
	"yupos/ledgercache/payment"
	"yupos/sync/wire"
)

// answer is the ledger's word on its way to the book: of a trade, or of a refund.
type answer struct {
	trade  payment.Answered
	refund *payment.RefundAnswered
}

// take looks at a frame of the ledger.
func (t *talk) take(m inbound) {
	if errors.Is(m.err, wire.ErrUnknownType) {
		t.odd("unknown type", m.frame.Type)
		if m.frame.ID != 0 {
			t.send(wire.Refused{Code: wire.RefusedUnknownType, Detail: m.frame.Type}, m.frame.ID)
		}
		return
	}
	if m.err != nil {
		t.fail(m.err)
		return
	}
	switch body := m.body.(type) {
	case *wire.Outcome:
		t.outcome(m.frame.Re, body)
	case *wire.RefundOutcome:
		t.refundOutcome(m.frame.Re, body)
	case *wire.Refused:
		t.refused(m.frame.Re, body)
	case *wire.Result:
		t.result(body)
	case *wire.Anchored:
		t.anchored(m.frame.Re, body)
	case *wire.News:
		t.signed(body)
	case *wire.SignedTime:
		t.signedTime(m.frame.Re, body)
	case *wire.Maintenance:
		t.maintenance(body)
	case *wire.Uploaded:
		t.uploaded(m.frame.Re, body)
	default:
		t.fail(fmt.Errorf("%w: %s from the ledger", errProtocol, m.frame.Type))
	}
}

// odd logs what is strange but harmless, once for a connection.
func (t *talk) odd(what, which string) {
	if !t.strange {
		t.strange = true
		t.log.Warn("odd frame ignored", slog.String("what", what), slog.String("type", fmt.Sprintf("%.40q", which)))
	}
}

// outcome takes the answer to a pay, order, query or reverse.
func (t *talk) outcome(re uint64, o *wire.Outcome) {
	r := t.asked[re]
	if r == nil { // a duplicate, or later than any patience: the schedule has asked again
		t.odd("answer to nothing", wire.TypeOutcome)
		return
	}
	if r.op == opRefund || r.key != o.TradeNo {
		t.fail(errStranger)
		return
	}
	t.log.Debug("answered", slog.String("op", string(r.op)), slog.Uint64("id", re))
	t.settle(re)
	a := answered(o)
	a.To = r.op
	switch {
	case a.State != payment.PayError:
	case r.op == payment.OpPay && a.Attempt == 0:
		a.Attempt = r.attempt
	case r.op == payment.OpQuery && a.Attempt > 0 && a.Attempt < r.attempt:
		a.State = payment.NotFound // it knows the code before only: of the one that was asked for it has never heard
	}
	t.toBook(r.key, answer{trade: a})
}

func (t *talk) refundOutcome(re uint64, o *wire.RefundOutcome) {
	r := t.asked[re]
	if r == nil {
		t.odd("answer to nothing", wire.TypeRefundOutcome)
		return
	}
	if r.op != opRefund || r.key != o.RefundNo {
		t.fail(fmt.Errorf("%w: answer about another refund", errProtocol))
		return
	}
	t.settle(re)
	t.toBook(r.key, answer{refund: &payment.RefundAnswered{
		RefundNo: o.RefundNo, State: payment.RefundState(o.State), RefundFen: o.RefundFen, FeeBackFen: o.FeeBackFen,
		At: moment(o.RefundedAt), LedgerNo: o.LedgerNo, Reason: payment.Reason(o.Reason),
	}})
}

// answered turns the line's words into the book's. The states have the same words on both sides.
func answered(o *wire.Outcome) payment.Answered {
	return payment.Answered{
		TradeNo: o.TradeNo, Attempt: o.Attempt, State: payment.State(o.State), LedgerNo: o.LedgerNo, TotalFen: o.TotalFen,
		PaidFen: o.PaidFen, DiscountFen: o.DiscountFen, FeeFen: o.FeeFen, PaidAt: moment(o.PaidAt), Reason: payment.Reason(o.Reason),
		Bearer: bearerOf(o.Bearer),
	}
}

// bearerOf is who bears an upload that the wallet did not pay. A word that is not known here says nothing.
func bearerOf(word string) payment.Bearer {
	switch b := payment.Bearer(word); b {
	case payment.BearerLedger, payment.BearerMerchant:
		return b
	}
	return ""
}

func moment(ms wire.Millis) time.Time {
	if ms <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms)).UTC()
}

// toBook queues an answer behind those of the same trade. Answers of different trades go to the book at once, so that
// they share its syncs.
func (t *talk) toBook(key string, a answer) {
	t.waiting++
	queue, working := t.answers[key]
	if working {
		t.answers[key] = append(queue, a)
		return
	}
	t.answers[key] = nil
	t.apply(key, a)
}

func (t *talk) apply(key string, a answer) {
	t.besideLoop(func() func() {
		var err error
		if a.refund != nil {
			_, err = t.u.book.AnswerRefund(t.ctx, *a.refund)
		} else {
			_, err = t.u.book.Answer(t.ctx, a.trade)
		}
		return func() { t.applied(key, a.refund != nil, err) }
	})
}

func (t *talk) applied(key string, refund bool, err error) {
	t.waiting--
	if err != nil {
		t.bookFailed(err, "answer not taken by the book", slog.String("key", key))
	}
	if m := t.u.memories[key]; m != nil {
		m.waiting = time.Time{}
	}
	t.refresh(key, refund)
	queue := t.answers[key]
	if len(queue) == 0 {
		delete(t.answers, key)
		return
	}
	t.answers[key] = queue[1:]
	t.apply(key, queue[0])
}

// result takes news. They come in order and without gaps; what was known already is applied once more, which changes
// nothing, and acknowledged. News that overtook others wait a moment for them; then it is a gap.
func (t *talk) result(r *wire.Result) {
	if r.Sequence == 0 {
		t.fail(fmt.Errorf("%w: news without a number", errProtocol))
		return
	}
	if r.Sequence > t.seen+1 {
		if len(t.ahead) == 0 {
			t.gapAt = t.u.now()
		}
		if t.ahead[r.Sequence] = r; len(t.ahead) > newsAhead {
			t.gap(t.u.now().Add(gapPatience))
		}
		return
	}
	for r != nil {
		t.seen = max(t.seen, r.Sequence)
		t.waiting++
		t.news = append(t.news, r)
		r = t.ahead[t.seen+1]
		delete(t.ahead, t.seen+1)
	}
	t.gapAt = t.u.now()
	t.nextNews()
}

// gap ends the talk if news that overtook others have waited for long enough: the next hello asks for all of them.
func (t *talk) gap(now time.Time) {
	if len(t.ahead) > 0 && now.Sub(t.gapAt) >= gapPatience {
		t.fail(fmt.Errorf("%w: after %d", errNewsGap, t.seen))
	}
}

// nextNews hands one piece of news to the book, in order.
func (t *talk) nextNews() {
	if t.newsing || t.err != nil {
		return
	}
	if len(t.news) == 0 {
		if t.acked < t.durable {
			t.acked = t.durable
			t.send(wire.Ack{News: t.durable}, 0)
		}
		return
	}
	r := t.news[0]
	t.news[0], t.news = nil, t.news[1:]
	t.newsing = true
	a := answered(&r.Outcome)
	if r.Sequence > t.durable {
		a.News = r.Sequence
	}
	t.besideLoop(func() func() {
		_, err := t.u.book.Answer(t.ctx, a)
		return func() { t.newsTaken(r, err) }
	})
}

func (t *talk) newsTaken(r *wire.Result, err error) {
	t.newsing = false
	t.waiting--
	kept := err == nil || errors.Is(err, payment.ErrImpossible) || errors.Is(err, ledgercache.ErrNotFound)
	if err != nil {
		t.bookFailed(err, "news not taken by the book", slog.String("trade_no", fmt.Sprintf("%.26q", r.Outcome.TradeNo)), slog.Uint64("news", r.Sequence))
	}
	if !kept { // it is told again after the next hello
		t.fail(fmt.Errorf("news %d: %w", r.Sequence, err))
		return
	}
	if r.Sequence <= t.durable {
		t.acked = min(t.acked, r.Sequence-1) // a repeat: the acknowledgement got lost
	}
	t.durable = max(t.durable, r.Sequence)
	if m := t.u.memories[r.Outcome.TradeNo]; m != nil {
		m.waiting = time.Time{}
		t.refresh(r.Outcome.TradeNo, false)
	}
	t.nextNews()
}

// refused takes a no to one request.
func (t *talk) refused(re uint64, no *wire.Refused) {
	wait := min(time.Duration(max(no.RetryAfterMillis, 0))*time.Millisecond, maxRetryWait)
	ofBook := no.Code == wire.RefusedRolledBack || no.Code == wire.RefusedForked
	isAnchor := t.anchor.refused(re)
	if no.Code == wire.RefusedRevoked || isAnchor && ofBook {
		t.fail(&refusal{no.Code, no.Detail, wait})
		return
	}
	r := t.asked[re]
	if r == nil { // of an anchor that a newer one has overtaken, too: the newer one's answer counts
		if !isAnchor {
			t.odd("refusal of nothing", no.Code)
		}
		return
	}
	if r.op == payment.OpUpload {
		t.uploadsRefused(re, r, no, wait)
		return
	}
	t.settle(re)
	m := t.memory(r.key)
	m.waiting = time.Time{}
	switch {
	case wait > 0:
		m.hold = t.u.now().Add(wait)
	case no.Code == wire.RefusedBusy, no.Code == wire.RefusedInternal:
		m.hold = t.u.now().Add(time.Second)
	default:
		t.setAside(r, m, no)
	}
	t.refresh(r.key, r.op == opRefund)
}

// setAside keeps a message that was definitely refused where a person sees it. A pay is not sent again; the questions and
// the reversal go on.
func (t *talk) setAside(r *request, m *memory, no *wire.Refused) {
	a := Aside{At: t.u.now(), TradeNo: r.key, Op: r.op, Code: no.Code, Detail: no.Detail}
	switch r.op {
	case payment.OpPay:
		a.Attempt = r.attempt
		m.refused = max(m.refused, r.attempt)
	case opRefund:
		a.TradeNo, a.RefundNo = "", r.key
	}
	if t.u.putAside(a) {
		t.log.Error("message refused and set aside", slog.String("code", a.Code), slog.String("op", string(a.Op)),
			slog.String("trade_no", a.TradeNo), slog.String("refund_no", a.RefundNo))
	}
}

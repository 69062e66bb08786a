package payment

import (
	"testing"
	"time"
)

func TestAnUnansweredCodeIsAskedForAndThenReversed(t *testing.T) {
	p := walk(t, ByCode, sent()) // scanned at second 1
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	var ops []Op
	var seconds []int
	now := at(1)
	for range 24 {
		if _, due := p.Due(now, t0); due.After(now) {
			now = due
		}
		op, _ := p.Due(now, t0)
		if op == OpNone {
			t.Fatal("the line gave up")
		}
		ops, seconds = append(ops, op), append(seconds, int(now.Sub(t0)/time.Second))
		var err error
		if p, err = Apply(p, Asked{TradeNo: trade, Op: op, Reason: ReasonNoAnswer}, now); err != nil {
			t.Fatal(err)
		}
	}
	wantSeconds := []int{4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 34, 37, 40, 43, 46, 46, 51, 61, 91, 151, 211, 271, 331, 391}
	for i, s := range wantSeconds {
		want := OpQuery
		if i >= 15 {
			want = OpReverse
		}
		if seconds[i] != s || ops[i] != want {
			t.Fatalf("step %d: %s at %d s, want %s at %d s (%v %v)", i, ops[i], seconds[i], want, s, ops, seconds)
		}
	}
}

func TestAfterARestartACodeIsNeverSentAgain(t *testing.T) {
	p := walk(t, ByCode, sent(), says(NotFound))
	if op, _ := p.Due(t0.Add(3*time.Second), t0); op != OpPay {
		t.Errorf("the ledger never heard of it, within its time: %s", op)
	}
	if op, at := p.Due(t0.Add(3*time.Second), t0.Add(2*time.Second)); op != OpReverse || at.After(t0.Add(3*time.Second)) {
		t.Errorf("the same after a restart: %s at %s", op, at)
	}
	if op, _ := walk(t, ByCode, sent()).Due(t0.Add(2*time.Second), t0.Add(90*time.Second)); op != OpQuery {
		t.Errorf("before the ledger was asked: %s", op)
	}
	if op, _ := p.Due(t0.Add(62*time.Second), t0); op != OpReverse {
		t.Errorf("after its time: %s", op)
	}
}

func TestALongOutageEndsWithAQuestionAndAReversalNeverAPay(t *testing.T) {
	p := walk(t, ByCode, sent())
	hour := t0.Add(time.Hour)
	for i, want := range []Op{OpQuery, OpReverse} {
		op, due := p.Due(hour, t0)
		if op != want || due.After(hour.Add(AskEvery)) {
			t.Fatalf("step %d: %s at %s", i, op, due)
		}
		var err error
		if p, err = Apply(p, Asked{TradeNo: trade, Op: op}, hour); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Apply(walk(t, ByCode, sent()), Asked{TradeNo: trade, Op: OpPay}, t0.Add(62*time.Second)); err == nil {
		t.Error("a pay left after its time")
	}
}

func TestAnOrderIsRegisteredWatchedAndClosedWhenItsTimeIsOver(t *testing.T) {
	p := walk(t, ByOrder)
	if op, at := p.Due(t0, t0); op != OpOrder || !at.Equal(t0) {
		t.Fatalf("first: %s at %s", op, at)
	}
	p, _ = Apply(p, Asked{TradeNo: trade, Op: OpOrder}, t0)
	if op, at := p.Due(t0, t0); op != OpQuery || !at.Equal(t0.Add(OrderEvery)) {
		t.Fatalf("then: %s at %s", op, at)
	}
	over := t0.Add(180 * time.Second)
	p, _ = Apply(p, Expired{TradeNo: trade}, over)
	if op, at := p.Due(over, t0); op != OpQuery || !at.Equal(over) {
		t.Fatalf("at its end: %s at %s", op, at)
	}
	p, _ = Apply(p, Asked{TradeNo: trade, Op: OpQuery}, over)
	if op, at := p.Due(over, t0); op != OpReverse || !at.Equal(over.Add(AskEvery)) {
		t.Fatalf("last: %s at %s", op, at)
	}
	if p.ReverseReason() != ReasonExpired {
		t.Errorf("reason %s", p.ReverseReason())
	}
}

func TestACancelGoesOutAtOnce(t *testing.T) {
	p := walk(t, ByCode, sent(), CancelWanted{TradeNo: trade})
	if op, at := p.Due(t0.Add(3*time.Second), t0); op != OpReverse || at.After(t0.Add(3*time.Second)) {
		t.Errorf("%s at %s", op, at)
	}
	if p.ReverseReason() != ReasonCancelled || p.ReversalStarted() {
		t.Errorf("%s, started %v", p.ReverseReason(), p.ReversalStarted())
	}
}

func TestARefundIsSentUntilItEnds(t *testing.T) {
	r := Refund{State: RefundProcessing, CreatedAt: t0}
	if !r.Due().Equal(t0) {
		t.Error("the first time at once")
	}
	last := t0
	for i, wait := range []int{3, 6, 12, 24, 48, 60, 60} {
		r.Asks, r.LastAskAt = i+1, last
		if got := r.Due().Sub(last); got != time.Duration(wait)*time.Second {
			t.Errorf("after %d: %s, want %d s", i+1, got, wait)
		}
	}
	r.State = RefundSuccess
	if !r.Due().IsZero() {
		t.Error("a refund that has ended is due")
	}
}

package uplink

import (
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"yupos/ledgercache/payment"
)

var opened = time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC)

// at is so many seconds after the book was opened.
func at(seconds float64) time.Time { return opened.Add(time.Duration(seconds * float64(time.Second))) }

// submitted is a trade whose code was scanned one second after the book was opened.
func submitted(change func(*payment.Payment)) payment.Payment {
	p := payment.Payment{
		TradeNo: "T", Mode: payment.ByCode, State: payment.Unknown, TotalFen: 100, Attempt: 1, Code: "code", SubmittedAt: at(1),
		NotAfter: at(61), LastOp: payment.OpPay, LastAskAt: at(1), AskedSince: at(1), PaySent: true,
	}
	if change != nil {
		change(&p)
	}
	return p
}

func TestTheNextStepOfATrade(t *testing.T) {
	asked := func(op payment.Op, when float64) func(*payment.Payment) {
		return func(p *payment.Payment) { p.LastOp, p.LastAskAt = op, at(when) }
	}
	for name, c := range map[string]struct {
		trade payment.Payment
		m     memory
		now   time.Time
		want  step
	}{
		"a code that was just submitted leaves at once":        {submitted(nil), memory{}, at(1), step{op: payment.OpPay, fresh: true}},
		"once sent it is asked for after three seconds":        {submitted(nil), memory{sent: 1}, at(1), step{op: payment.OpQuery, at: at(4)}},
		"sent late, the question waits for its answer":         {submitted(nil), memory{sent: 1, waiting: at(23)}, at(20), step{op: payment.OpQuery, at: at(23)}},
		"submitted before this process it is only asked for":   {submitted(func(p *payment.Payment) { p.SubmittedAt = at(-1) }), memory{}, at(5), step{op: payment.OpQuery, at: at(4)}},
		"never sent and too late it is only asked for":         {submitted(nil), memory{}, at(50), step{op: payment.OpQuery, at: at(4)}},
		"refused for good it is only asked for":                {submitted(func(p *payment.Payment) { p.PaySent = false; p.LastOp = payment.OpQuery }), memory{sent: 1, refused: 1}, at(5), step{op: payment.OpQuery, at: at(4)}},
		"never heard of it is sent again":                      {submitted(func(p *payment.Payment) { p.PaySent = false; p.LastOp, p.LastAskAt = payment.OpQuery, at(4) }), memory{sent: 1}, at(5), step{op: payment.OpPay, at: at(4)}},
		"never heard of and out of its window it is ended":     {submitted(func(p *payment.Payment) { p.PaySent = false; p.LastOp, p.LastAskAt = payment.OpQuery, at(4) }), memory{sent: 1}, at(62), step{op: payment.OpReverse, at: at(4)}},
		"the second code of a trade is a first pay again":      {submitted(func(p *payment.Payment) { p.Attempt = 2 }), memory{sent: 1, refused: 1}, at(1), step{op: payment.OpPay, fresh: true}},
		"a reversal waits for the answer to the last query":    {submitted(asked(payment.OpQuery, 46)), memory{sent: 1, waiting: at(49)}, at(46), step{op: payment.OpReverse, at: at(49)}},
		"a cancel waits for nothing":                           {submitted(func(p *payment.Payment) { p.Reversing = true }), memory{sent: 1, waiting: at(4)}, at(2), step{op: payment.OpReverse}},
		"a cancel before the pay has left sends no pay":        {submitted(func(p *payment.Payment) { p.Reversing = true }), memory{}, at(1), step{op: payment.OpReverse}},
		"a ledger that asked for time gets it":                 {submitted(nil), memory{sent: 1, hold: at(30)}, at(2), step{op: payment.OpQuery, at: at(30)}},
		"what has ended needs nothing":                         {submitted(func(p *payment.Payment) { p.State = payment.Success }), memory{}, at(2), step{}},
		"what was accepted offline is not the live lane's":     {submitted(func(p *payment.Payment) { p.State = payment.AcceptedOffline }), memory{}, at(2), step{}},
		"an armed counter without a code needs nothing":        {payment.Payment{Mode: payment.AtCounter, State: payment.NotPay}, memory{}, at(2), step{}},
		"an order is announced when it is opened":              {payment.Payment{Mode: payment.ByOrder, State: payment.NotPay, CreatedAt: at(3)}, memory{}, at(3), step{op: payment.OpOrder, at: at(3)}},
		"a declined code at the counter waits for the next":    {submitted(func(p *payment.Payment) { p.Mode, p.State, p.Code = payment.AtCounter, payment.NotPay, "" }), memory{sent: 1}, at(2), step{}},
		"a reversal that the ledger puts off is put off":       {submitted(func(p *payment.Payment) { p.Reversing = true }), memory{sent: 1, hold: at(9)}, at(2), step{op: payment.OpReverse, at: at(9)}},
		"a trade that the customer confirms is only asked":     {submitted(func(p *payment.Payment) { p.State = payment.UserPaying }), memory{sent: 1}, at(2), step{op: payment.OpQuery, at: at(4)}},
		"a trade that the customer confirms is never unsent":   {submitted(func(p *payment.Payment) { p.State = payment.UserPaying }), memory{}, at(2), step{op: payment.OpQuery, at: at(4)}},
		"a pay that was asked for is not a first one any more": {submitted(asked(payment.OpQuery, 4)), memory{}, at(5), step{op: payment.OpQuery, at: at(7)}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := nextStep(c.trade, c.m, c.now, c.trade.SubmittedAt.Before(opened)); got != c.want {
				t.Errorf("got %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestAPayNeverLeavesAfterARestartItsWindowOrAReversal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		second := rapid.Float64Range(-100, 200)
		p := submitted(func(p *payment.Payment) {
			p.SubmittedAt = at(second.Draw(t, "submitted"))
			p.NotAfter = p.SubmittedAt.Add(payment.PayWindow)
			p.State = rapid.SampledFrom([]payment.State{payment.Unknown, payment.UserPaying}).Draw(t, "state")
			p.LastOp = rapid.SampledFrom([]payment.Op{payment.OpPay, payment.OpQuery, payment.OpReverse}).Draw(t, "last")
			p.LastAskAt = p.SubmittedAt.Add(time.Duration(rapid.IntRange(0, 100_000).Draw(t, "asked")) * time.Millisecond)
			p.PaySent = rapid.Bool().Draw(t, "sent")
			p.Reversing = rapid.Bool().Draw(t, "reversing")
			if p.Reversing {
				p.ReverseAsks = rapid.IntRange(0, 6).Draw(t, "reversals")
			}
		})
		m := memory{sent: rapid.IntRange(0, 1).Draw(t, "attempt sent"), refused: rapid.IntRange(0, 1).Draw(t, "attempt refused")}
		now := p.SubmittedAt.Add(time.Duration(rapid.IntRange(0, 200_000).Draw(t, "now")) * time.Millisecond)
		inherited := rapid.Bool().Draw(t, "of an earlier process")
		next := nextStep(p, m, now, inherited)
		if next.op == payment.OpNone {
			t.Fatal("an open trade without a next step")
		}
		if next.op != payment.OpPay {
			return
		}
		if inherited || now.After(p.NotAfter) || p.Reversing || m.refused == 1 || next.fresh && m.sent == 1 {
			t.Fatalf("pay %+v for %+v with %+v at %v", next, p, m, now)
		}
	})
}

func TestLivePaysGoFirstThenQuestionsThenRefundsEachInTurn(t *testing.T) {
	s := newSchedule()
	s.put("refund", true, step{op: opRefund, at: at(0)})
	s.put("query 1", false, step{op: payment.OpQuery, at: at(1)})
	s.put("query 2", false, step{op: payment.OpQuery, at: at(2)})
	s.put("reverse", false, step{op: payment.OpReverse, at: at(3)})
	s.put("pay 1", false, step{op: payment.OpPay, at: at(4)})
	s.put("pay 2", false, step{op: payment.OpPay, at: at(5)})
	s.put("later", false, step{op: payment.OpPay, at: at(60)})
	s.put("ended", false, step{op: payment.OpPay, at: at(0)})
	s.put("ended", false, step{})
	s.put("query 2", false, step{op: payment.OpQuery, at: at(2.5)})
	var got []string
	for w := s.next(at(10), laneRefund); w != nil; w = s.next(at(10), laneRefund) {
		got = append(got, w.key)
	}
	want := []string{"pay 1", "pay 2", "query 1", "query 2", "reverse", "refund"}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
	if due, ok := s.due(); !ok || due != at(60) {
		t.Errorf("next at %v", due)
	}
	if w := s.next(at(100), laneLive); w == nil || w.key != "later" {
		t.Errorf("then %+v", w)
	}
}

func TestWhatWasFiledAgainWhileItWasReadyIsTakenOnce(t *testing.T) {
	s := newSchedule()
	for range 3 {
		s.put("pay", false, step{op: payment.OpPay, at: at(0)})
		s.put("query", false, step{op: payment.OpQuery, at: at(0)})
		if w := s.next(at(1), laneLive); w == nil || w.key != "pay" {
			t.Fatalf("%+v", w)
		}
	}
	if w := s.next(at(1), laneRefund); w == nil || w.key != "query" {
		t.Fatalf("%+v", w)
	}
	if w := s.next(at(1), laneRefund); w != nil {
		t.Fatalf("%+v twice", w)
	}
}

func TestBackoffKeepsItsPromisesWhateverTheDice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dice := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		b := &backoff{random: dice.Float64}
		now := opened
		for i := range 60 {
			b.down(now, 0)
			short := b.short(now)
			wait := b.next(now, 0, false)
			switch {
			case wait < 0, wait > retryLong, i == 0 && wait > time.Second, short && wait > 5*time.Second-dialShort/4:
				t.Fatalf("try %d after %v waits %v", i, now.Sub(opened), wait)
			}
			now = now.Add(wait)
		}
		b.down(now, steadyAfter)
		if wait := b.next(now, 0, false); wait > time.Second {
			t.Fatalf("after a steady line the first retry waits %v", wait)
		}
		asked := time.Duration(rapid.Int64Range(1, int64(24*time.Hour)).Draw(t, "asked"))
		if wait := b.next(now, asked, false); wait < min(asked, maxRetryWait) || wait > maxRetryWait+retryLong {
			t.Fatalf("asked for %v, waits %v", asked, wait)
		}
		if wait := b.next(now, 0, true); wait < slowRetry/2 || wait > slowRetry {
			t.Fatalf("slow retry waits %v", wait)
		}
	})
}

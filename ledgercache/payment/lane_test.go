package payment

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestALiveSaleGoesBeforeAReversalAndAnUploadGoesLast(t *testing.T) {
	expired := walk(t, ByOrder)
	expired, err := Apply(expired, Expired{TradeNo: trade}, t0.Add(OrderFor))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		p    Payment
		want Lane
	}{
		"armed counter":      {walk(t, AtCounter), LaneNone},
		"shown order":        {walk(t, ByOrder), LaneLive},
		"expired order":      {expired, LaneAsk},
		"sent code":          {walk(t, ByCode, sent()), LaneLive},
		"customer confirms":  {walk(t, ByCode, sent(), says(UserPaying)), LaneLive},
		"wish to cancel":     {walk(t, ByCode, sent(), CancelWanted{TradeNo: trade}), LaneAsk},
		"reversal":           {walk(t, ByCode, sent(), asks(OpReverse)), LaneAsk},
		"settled by receipt": {walk(t, ByOrder, receipt()), LaneAsk},
		"accepted offline":   {walk(t, AtCounter, accepted()), LaneUpload},
		"paid":               {walk(t, ByCode, sent(), says(Success)), LaneNone},
		"declined":           {walk(t, ByCode, sent(), says(PayError)), LaneNone},
	} {
		if have := c.p.Lane(); have != c.want {
			t.Errorf("%s: lane %d, want %d", name, have, c.want)
		}
	}
}

// What has no lane has nothing due, and what is in a lane has: nothing that carries money is forgotten by the outbox.
func TestATradeIsInALaneExactlyIfTheLineHasSomethingToDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, err := Open(Opened{TradeNo: trade, OutTradeNo: "A1", Mode: rapid.SampledFrom([]Mode{ByCode, AtCounter, ByOrder}).Draw(t, "mode"),
			TotalFen: 1250, ExpiresAt: t0.Add(OrderFor)}, t0)
		if err != nil {
			t.Fatal(err)
		}
		p, _ = play(t, p, func(p Payment, at time.Time) Event { return drawMove(t, p, at) }, rapid.IntRange(0, 30).Draw(t, "events"))
		op, _ := p.Due(t0.Add(100*24*time.Hour), t0)
		// A code that the register sent is submitted in the step that opens its trade.
		if waits := p.State == NotPay && p.Mode == ByCode; (op == OpNone) != (p.Lane() == LaneNone) && !waits {
			t.Fatalf("%s (%s) in lane %d, but %q is due", p.State, p.Mode, p.Lane(), op)
		}
	})
}

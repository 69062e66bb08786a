package payment

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"

	"yupos/ledgercache/money"
)

// sums adds postings up by day and account; what comes to nothing is not there.
func sums(sets ...Set) map[string]money.Fen {
	all := map[string]money.Fen{}
	for _, s := range sets {
		for _, p := range s {
			k := fmt.Sprint(p.Day, " ", p.Account)
			if all[k] += p.Fen; all[k] == 0 {
				delete(all, k)
			}
		}
	}
	return all
}

// drawMove is any event that may come, likely or not.
func drawMove(t *rapid.T, p Payment, at time.Time) Event {
	paidAt := at.Add(-time.Duration(rapid.IntRange(0, 40).Draw(t, "hours before")) * time.Hour)
	paid := p.TotalFen - rapid.SampledFrom([]money.Fen{0, 0, 1, 100, p.TotalFen}).Draw(t, "discount")
	state := rapid.SampledFrom([]State{Success, Success, Success, UserPaying, PayError, Closed, Revoked, Bounced, NotPay, NotFound, Unknown, AcceptedOffline}).Draw(t, "word")
	a := Answered{TradeNo: trade, State: state, To: rapid.SampledFrom([]Op{OpNone, OpPay, OpQuery, OpReverse, OpUpload}).Draw(t, "to"),
		Attempt: rapid.IntRange(0, 2).Draw(t, "attempt"), LedgerNo: "L1"}
	if state == Success {
		a.TotalFen, a.PaidFen, a.DiscountFen, a.FeeFen, a.PaidAt = p.TotalFen, paid, p.TotalFen-paid, rapid.SampledFrom([]money.Fen{0, 5, 13}).Draw(t, "fee"), paidAt
	}
	return rapid.SampledFrom([]Event{
		Submitted{TradeNo: trade, Code: "86", Wallet: []byte{1}, ScannedAt: at, NotAfter: at.Add(PayWindow)},
		Rejected{TradeNo: trade, Reason: "CODE_EXPIRED"}, Asked{TradeNo: trade, Op: OpPay}, Asked{TradeNo: trade, Op: OpQuery},
		Asked{TradeNo: trade, Op: OpReverse}, Asked{TradeNo: trade, Op: OpUpload}, a, a, a, CancelWanted{TradeNo: trade}, Expired{TradeNo: trade},
		Accepted{TradeNo: trade, Code: "86", Wallet: []byte{1}, ScannedAt: at}, Withdrawn{TradeNo: trade},
		ReceiptShown{TradeNo: trade, LedgerNo: "L1", TotalFen: p.TotalFen, PaidFen: paid, PaidAt: paidAt},
		ReceiptRefused{TradeNo: trade, Reason: "PAID_AFTER_EXPIRY"}, DigitsTyped{TradeNo: trade}, DigitsMatched{TradeNo: trade, At: at},
	}).Draw(t, "event")
}

// play applies the events that are legal and checks after each that what was posted is what the trade says.
func play(t rapid.TB, p Payment, events func(Payment, time.Time) Event, n int) (Payment, []Set) {
	var posted []Set
	at := t0
	for i := range n {
		at = at.Add([]time.Duration{time.Second, time.Minute, 20 * time.Hour}[i%3])
		e := events(p, at)
		after, err := Apply(p, e, at)
		if err != nil {
			continue // nothing is journalled, nothing is posted
		}
		s, err := Postings(p, e, after)
		if err != nil {
			t.Fatalf("%T from %s to %s: %v", e, p.State, after.State, err)
		}
		posted, p = append(posted, s), after
		if have, want := sums(posted...), sums(p.Standing()); !maps.Equal(have, want) {
			t.Fatalf("after %T %s: posted %v, the trade says %v", e, p.State, have, want)
		}
	}
	return p, posted
}

func TestTheSumOfAllPostingsOfATradeIsWhatItsStateSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		opened := Opened{
			TradeNo: trade, OutTradeNo: "A1", Mode: rapid.SampledFrom([]Mode{ByCode, AtCounter, ByOrder}).Draw(t, "mode"),
			TotalFen: money.Fen(rapid.Int64Range(1, int64(money.Max)).Draw(t, "fen")), ExpiresAt: t0.Add(OrderFor),
		}
		p, err := Open(opened, t0)
		if err != nil {
			t.Fatal(err)
		}
		if first, err := Postings(p, opened, p); err != nil || len(first) != 0 {
			t.Fatalf("an opened trade posts %v, %v", first, err)
		}
		p, posted := play(t, p, func(p Payment, at time.Time) Event { return drawMove(t, p, at) }, rapid.IntRange(1, 40).Draw(t, "events"))
		if p.State == Success && !p.Unconfirmed {
			if have := account(Receivable, posted...); have != p.PaidFen-p.FeeFen {
				t.Fatalf("receivable %d of paid %d less fee %d", have, p.PaidFen, p.FeeFen)
			}
		}
	})
}

func TestEveryEndPostsItsOwn(t *testing.T) {
	for name, c := range map[string]struct {
		mode   Mode
		events []Event
		want   Set
	}{
		"paid":                        {ByCode, []Event{sent(), says(Success)}, Set{{Sales, "", -1250}, {Discounts, "", 100}, {Fees, "", 5}, {Receivable, "", 1145}}},
		"declined":                    {ByCode, []Event{sent(), says(PayError)}, nil},
		"cancelled":                   {AtCounter, []Event{CancelWanted{TradeNo: trade}}, nil},
		"paid while it is reversed":   {ByCode, []Event{sent(), asks(OpReverse), says(Success)}, Set{}.memo("", Reversing, 1250)},
		"reversed after it was paid":  {ByCode, []Event{sent(), asks(OpReverse), says(Success), says(Revoked)}, nil},
		"paid, reversal refused":      {ByCode, []Event{sent(), asks(OpReverse), says(Success), to(OpReverse, says(Success))}, Set{{Sales, "", -1250}, {Discounts, "", 100}, {Fees, "", 5}, {Receivable, "", 1145}}},
		"accepted offline":            {AtCounter, []Event{accepted()}, Set{}.memo("", Exposed, 1250)},
		"accepted offline and paid":   {AtCounter, []Event{accepted(), says(Success)}, Set{{Sales, "", -1250}, {Discounts, "", 100}, {Fees, "", 5}, {Receivable, "", 1145}}},
		"bounced":                     {AtCounter, []Event{accepted(), to(OpUpload, says(Bounced))}, Set{}.memo("", Bounces, 1250)},
		"withdrawn":                   {AtCounter, []Event{accepted(), Withdrawn{TradeNo: trade}}, Set{}.memo("", Exposed, 1250)},
		"withdrawn and uploaded":      {AtCounter, []Event{accepted(), Withdrawn{TradeNo: trade}, says(Revoked)}, nil},
		"by digits":                   {ByOrder, []Event{DigitsTyped{TradeNo: trade}, DigitsMatched{TradeNo: trade, At: t0}}, Set{{Sales, "", -1250}, {Unconfirmed, "", 1250}}},
		"by digits and confirmed":     {ByOrder, []Event{DigitsTyped{TradeNo: trade}, DigitsMatched{TradeNo: trade, At: t0}, says(Success)}, Set{{Sales, "", -1250}, {Discounts, "", 100}, {Fees, "", 5}, {Receivable, "", 1145}}},
		"refused receipt, reversed":   {ByOrder, []Event{ReceiptRefused{TradeNo: trade, Reason: "PAID_AFTER_EXPIRY"}, asks(OpReverse), says(Revoked)}, nil},
		"a replay posts nothing more": {ByCode, []Event{sent(), says(Success), says(Success), says(UserPaying)}, Set{{Sales, "", -1250}, {Discounts, "", 100}, {Fees, "", 5}, {Receivable, "", 1145}}},
	} {
		t.Run(name, func(t *testing.T) {
			rest := c.events
			_, posted := play(t, walk(t, c.mode), func(Payment, time.Time) Event { e := rest[0]; rest = rest[1:]; return e }, len(c.events))
			all := map[Account]money.Fen{}
			for _, s := range append(posted, negated(c.want)) {
				for _, p := range s {
					if all[p.Account] += p.Fen; all[p.Account] == 0 {
						delete(all, p.Account)
					}
				}
			}
			if len(all) != 0 {
				t.Errorf("differs by %v", all)
			}
		})
	}
}

// to says which operation an answer answers.
func to(op Op, a Answered) Answered { a.To = op; return a }

func negated(s Set) (n Set) {
	for _, p := range s {
		n = append(n, Posting{p.Account, p.Day, -p.Fen})
	}
	return n
}

func account(a Account, sets ...Set) (sum money.Fen) {
	for _, s := range sets {
		for _, p := range s {
			if p.Account == a {
				sum += p.Fen
			}
		}
	}
	return sum
}

func TestARefundPostsWhatItsStateSaysAndLeavesTheReceivableLessTheFeeThatComesBack(t *testing.T) {
	open := Refund{RefundNo: "R", State: RefundProcessing, RefundFen: 500, CreatedAt: t0}
	first, err := OpenedRefund(open)
	if err != nil || !maps.Equal(sums(first), sums(open.Standing())) {
		t.Fatal(first, err)
	}
	for _, e := range []RefundAnswered{
		{RefundNo: "R", State: RefundSuccess, RefundFen: 500, FeeBackFen: 2, At: t0.Add(30 * time.Hour)},
		{RefundNo: "R", State: RefundFailed, Reason: "MERCHANT_BALANCE"},
	} {
		after, err := ApplyRefund(open, e)
		if err != nil {
			t.Fatal(err)
		}
		s, err := RefundPostings(open, after)
		if err != nil || !maps.Equal(sums(first, s), sums(after.Standing())) {
			t.Errorf("%s: posted %v, the refund says %v (%v)", e.State, sums(first, s), sums(after.Standing()), err)
		}
		if have := account(Receivable, first, s); e.State == RefundSuccess && have != -498 || e.State == RefundFailed && have != 0 {
			t.Errorf("%s: receivable %d", e.State, have)
		}
	}
}

func TestASaleOnEvidenceMovesToTheDayThatTheLedgerNames(t *testing.T) {
	p := walk(t, ByOrder, DigitsTyped{TradeNo: trade}, DigitsMatched{TradeNo: trade, At: t0.Add(2 * time.Second)})
	e := Answered{TradeNo: trade, State: Success, TotalFen: 1250, PaidFen: 1200, DiscountFen: 50, FeeFen: 5, PaidAt: t0.Add(-24 * time.Hour), LedgerNo: "L"}
	after, err := Apply(p, e, t0.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Postings(p, e, after)
	want := Set{
		{Unconfirmed, "2026-11-23", -1250}, {Sales, "2026-11-23", 1250},
		{Sales, "2026-11-22", -1250}, {Discounts, "2026-11-22", 50}, {Fees, "2026-11-22", 5}, {Receivable, "2026-11-22", 1195},
	}
	if err != nil || fmt.Sprint(s) != fmt.Sprint(want) {
		t.Fatalf("%v\nwant %v (%v)", s, want, err)
	}
}

func TestASetMustComeToZeroOnEachDay(t *testing.T) {
	for name, s := range map[string]Set{
		"one side":             {{Sales, "2026-11-23", -1}},
		"balanced over 2 days": {{Sales, "2026-11-23", -1}, {Receivable, "2026-11-24", 1}},
		"too large":            {{Sales, "d", 1 << 62}, {Fees, "d", 1 << 62}},
	} {
		if s.Check() == nil {
			t.Errorf("%s passed", name)
		}
	}
	if err := (Set{{Sales, "d", -1}, {Receivable, "d", 1}}).Check(); err != nil {
		t.Error(err)
	}
	if _, err := Postings(Payment{}, nil, Payment{}); err == nil {
		t.Error("an event that is not written was posted")
	}
}

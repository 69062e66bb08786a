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

func TestTheSumOfAllPostingsOfATradeIsWhatItsStateSays(t *testing.T) {
	seen := map[State]int{}
	rapid.Check(t, func(t *rapid.T) {
		mode := rapid.SampledFrom([]Mode{ByCode, AtCounter, ByOrder}).Draw(t, "mode")
		total := money.Fen(rapid.Int64Range(1, int64(money.Max)).Draw(t, "fen"))
		opened := Opened{TradeNo: trade, OutTradeNo: "A1", Mode: mode, TotalFen: total, ExpiresAt: t0.Add(OrderFor)}
		p, err := Open(opened, t0)
		if err != nil {
			t.Fatal(err)
		}
		first, err := Postings(p, opened, p)
		if err != nil || len(first) != 0 {
			t.Fatalf("an opened trade posts %v, %v", first, err)
		}
		var posted []Set
		at := t0
		for range rapid.IntRange(1, 25).Draw(t, "events") {
			at = at.Add(rapid.SampledFrom([]time.Duration{time.Second, time.Minute, 20 * time.Hour}).Draw(t, "pass"))
			e := drawMove(t, p, at)
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
		seen[p.State]++
		if p.State == Success && !p.Unconfirmed {
			if have := account(Receivable, posted...); have != p.PaidFen-p.FeeFen {
				t.Fatalf("receivable %d of paid %d less fee %d", have, p.PaidFen, p.FeeFen)
			}
		}
	})
	for _, s := range []State{Success, Closed, Revoked, PayError, Bounced, AcceptedOffline, Unknown} {
		if seen[s] == 0 {
			t.Errorf("no random trade ended %s", s)
		}
	}
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

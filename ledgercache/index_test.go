package ledgercache

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
)

// fill opens many trades of several days, cashiers, amounts and ends.
func (s *shop) fill(n int, r *rand.Rand) {
	for i := range n {
		s.pass(time.Duration(r.IntN(30)) * time.Minute)
		if r.IntN(6) == 0 {
			s.accept(i, byte(i%5))
			continue
		}
		new := s.online(i)
		new.TotalFen, new.OperatorID = money.Fen(100*(1+r.IntN(5))), fmt.Sprint("op", r.IntN(3))
		p, _, err := s.OpenTrade(ctx, new)
		s.must(p, err)
		switch a := s.paid(p); r.IntN(4) {
		case 0:
			a.PaidAt = a.PaidAt.Add(-time.Duration(r.IntN(10)) * time.Hour)
			fallthrough
		case 1:
			a.FeeFen = 1
			s.must(s.Answer(ctx, a))
		case 2:
			s.must(s.Answer(ctx, payment.Answered{TradeNo: p.TradeNo, To: payment.OpPay, Attempt: 1, State: payment.PayError, Reason: "WALLET_FROZEN"}))
		}
	}
}

// listed is every trade that a query finds, page by page.
func (s *shop) listed(q Query) (numbers []string) {
	s.t.Helper()
	for {
		page, next, err := s.Trades(q)
		check(s.t, err)
		for _, p := range page {
			numbers = append(numbers, p.TradeNo)
		}
		if q.Cursor = next; next == "" {
			return numbers
		}
	}
}

func TestAQueryFindsWhatLookingAtEveryTradeFinds(t *testing.T) {
	s := newShop(t)
	s.fill(150, rand.New(rand.NewPCG(3, 3)))
	var all []payment.Payment
	check(t, s.view(func(st state) error {
		return st.scan(prefixTrade, nil, true, func(_, v []byte) (bool, error) {
			var p payment.Payment
			err := decMode.Unmarshal(v, &p)
			all = append(all, p)
			return true, err
		})
	}))
	first := all[len(all)-1].CreatedAt
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SampledFrom(all).Draw(t, "a trade")
		q := Query{Limit: rapid.SampledFrom([]int{1, 7, 50, 500}).Draw(t, "limit")}
		some := func(what string) bool { return rapid.IntRange(0, 2).Draw(t, what) == 0 }
		if some("date") {
			q.Date = BizDate(p)
		}
		if some("from") {
			q.From = first.Add(time.Duration(rapid.IntRange(-100, 4000).Draw(t, "minutes")) * time.Minute)
		}
		if some("to") {
			q.To = first.Add(time.Duration(rapid.IntRange(4001, 8000).Draw(t, "minutes")) * time.Minute)
		}
		if some("state") {
			q.State = p.State
		}
		if some("cashier") {
			q.OperatorID = p.OperatorID
		}
		if some("amount") {
			q.MinFen, q.MaxFen = p.TotalFen, p.TotalFen+money.Fen(100*rapid.IntRange(0, 1).Draw(t, "more"))
		}
		if some("digits") {
			q.Digits = strings.ToLower(p.OutTradeNo[len(p.OutTradeNo)-rapid.IntRange(1, 6).Draw(t, "n"):])
		}
		var want []string
		for _, p := range all {
			at := billTime(p).Truncate(time.Second)
			if (q.Date == "" || BizDate(p) == q.Date) && (q.State == "" || p.State == q.State) && (q.OperatorID == "" || p.OperatorID == q.OperatorID) &&
				(q.MinFen == 0 || p.TotalFen >= q.MinFen && p.TotalFen <= q.MaxFen) && (q.From.IsZero() || !at.Before(q.From)) && (q.To.IsZero() || at.Before(q.To)) &&
				(q.Digits == "" || strings.HasSuffix(strings.ToLower(p.OutTradeNo), q.Digits) || strings.HasSuffix(strings.ToLower(p.TradeNo), q.Digits)) {
				want = append(want, p.TradeNo)
			}
		}
		have := s.listed(q)
		slices.Sort(want)
		slices.Sort(have) // each once; the order has a test of its own
		if !slices.Equal(want, have) {
			t.Fatalf("%+v: %d found, %d there are", q, len(have), len(want))
		}
	})
	s.sound()
}

func TestPagesAreNewestFirstAndNotMovedByWhatComesMeanwhile(t *testing.T) {
	s := newShop(t)
	for n := range 40 {
		s.pass(time.Minute)
		s.sell(n)
	}
	for name, q := range map[string]Query{"by day": {Limit: 7}, "by amount": {Limit: 7, MinFen: 1250, MaxFen: 1250}, "by state": {Limit: 7, State: payment.Unknown}} {
		before := s.listed(q)
		page, next, err := s.Trades(q)
		check(t, err)
		if len(page) != 7 || page[0].CreatedAt.Before(page[6].CreatedAt) || next == "" {
			t.Fatalf("%s: %d trades, next %q", name, len(page), next)
		}
		s.pass(time.Minute)
		s.sell(100 + len(before))
		q.Cursor = next
		if rest := s.listed(q); !slices.Equal(rest, before[7:]) {
			t.Errorf("%s: %d on later pages, %d were there", name, len(rest), len(before)-7)
		}
	}
}

func TestABadQueryIsRefused(t *testing.T) {
	s := newShop(t)
	for name, q := range map[string]Query{
		"no date": {Date: "2026-13-01"}, "short date": {Date: "2026-1-01"}, "no state": {State: "PAID"}, "limit": {Limit: 501}, "amounts": {MinFen: 2, MaxFen: 1},
		"negative": {MinFen: -1}, "too large": {MaxFen: money.Max + 1}, "times": {From: s.clock(), To: s.clock()}, "digits": {Digits: "1234567"},
		"cursor": {Cursor: "x"}, "cursor of a day": {Cursor: "2026-11-2301KASF3M1ZV9Q8XN7T5R2C4D6E", State: payment.Bounced},
		"cursor without day": {Cursor: "01KASF3M1ZV9Q8XN7T5R2C4D6E"},
	} {
		if _, _, err := s.Trades(q); err == nil {
			t.Errorf("%s: passed", name)
		} else {
			wantErr(t, err, ErrQuery)
		}
	}
}

func FuzzRow(f *testing.F) {
	f.Add([]byte{4, 200, 1, 9, 2, 'o', 'p', '0', '1'})
	f.Add([]byte{1, 0, 0, 200})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := decodeRow(raw)
		if err != nil {
			return
		}
		if again, err := decodeRow(r.encode()); err != nil || again != r {
			t.Fatalf("%+v, %+v, %v", r, again, err)
		}
	})
}

func TestADayIsReadWholeInItsOrderOverGaps(t *testing.T) {
	s := newShop(t)
	var want []string
	late := s.accept(500, 1) // accepted offline, still open
	s.pass(time.Second)
	for n := range 90 {
		p := s.sell(n)
		if n < 5 || n > 80 {
			want = append(want, s.must(s.Answer(ctx, s.paid(p))).TradeNo)
		} else {
			a := s.paid(p)
			a.PaidAt = a.PaidAt.Add(-24 * time.Hour)
			s.must(s.Answer(ctx, a))
		}
		s.pass(time.Second)
	}
	var have []string
	check(t, s.TradesOfDay("2026-11-23", func(p payment.Payment) error { have = append(have, p.TradeNo); return nil }))
	if !slices.Equal(have, append([]string{late.TradeNo}, want...)) {
		t.Errorf("%d trades of %d", len(have), len(want)+1)
	}
	wantErr(t, s.TradesOfDay("23.11.2026", nil), ErrQuery)
}

func TestOpenWorkIsReadInPagesAndLanes(t *testing.T) {
	s := newShop(t)
	lanes := map[payment.Lane][]string{}
	for n := range 25 {
		s.pass(time.Second)
		p := s.sell(n)
		lane := payment.LaneLive
		if n%3 == 0 {
			p, lane = s.must(s.Cancel(ctx, p.TradeNo, "op1")), payment.LaneAsk
		}
		lanes[lane] = append(lanes[lane], p.TradeNo)
		s.pass(time.Second)
		lanes[payment.LaneUpload] = append(lanes[payment.LaneUpload], s.accept(1000+n, 1).TradeNo)
	}
	paid := s.must(s.Answer(ctx, s.paid(s.sell(99))))
	f, _, err := s.OpenRefund(ctx, NewRefund{OutRefundNo: "R1", TradeNo: paid.TradeNo, RefundFen: 50, BodyHash: []byte{1}})
	check(t, err)
	for lane, want := range lanes {
		var have []string
		for after, more := "", true; more; more = after != "" {
			page, next, err := s.OpenWork(lane, after, 4)
			check(t, err)
			for _, p := range page {
				have = append(have, p.TradeNo)
			}
			after = next
		}
		if !slices.Equal(have, want) {
			t.Errorf("lane %d: %d of %d, or not in their order", lane, len(have), len(want))
		}
	}
	refunds, next, err := s.OpenRefundWork("", 10)
	check(t, err)
	if len(refunds) != 1 || refunds[0].RefundNo != f.RefundNo || next != "" {
		t.Errorf("%+v %q", refunds, next)
	}
	open, err := s.OpenTrades()
	check(t, err)
	if len(open) != 50 || !slices.IsSortedFunc(open, func(a, b payment.Payment) int { return strings.Compare(a.TradeNo, b.TradeNo) }) {
		t.Errorf("%d open trades, or not in their order", len(open))
	}
	q, err := s.Queue()
	check(t, err)
	if q.Count != 51 || q.Fen != 50*1250+50 || !q.OldestAt.Equal(open[0].CreatedAt) {
		t.Errorf("%+v", q)
	}
	_, _, err = s.OpenWork(payment.LaneLive, "", 0)
	wantErr(t, err, ErrQuery)
	_, _, err = s.OpenWork(payment.LaneLive, "x", 1)
	wantErr(t, err, ErrQuery)
}

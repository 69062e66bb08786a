package ledgercache

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
)

// order shows an ORDER.
func (s *shop) order(n int) payment.Payment {
	s.t.Helper()
	p, _, err := s.OpenTrade(ctx, New{OutTradeNo: fmt.Sprintf("O%06d", n), Mode: payment.ByOrder, TotalFen: 1250, BodyHash: []byte{byte(n)},
		OperatorID: "op1", OrderText: "order", ExpiresAt: s.clock().Add(payment.OrderFor)})
	return s.must(p, err)
}

func (s *shop) receipt(p payment.Payment) Receipt {
	return Receipt{Order: p.TradeNo, LedgerNo: "L" + p.OutTradeNo, TotalFen: p.TotalFen, PaidFen: p.TotalFen - 100, PaidAt: s.clock()}
}

// accept journals an offline acceptance as AcceptOffline does.
func (s *shop) accept(n int, wallet byte) payment.Payment {
	s.t.Helper()
	new := s.online(n)
	new.Code = nil
	p, _, err := s.OpenTrade(ctx, new)
	s.must(p, err)
	check(s.t, s.do(ctx, func(t *tx) error {
		return t.emit(recAccepted, payment.Accepted{TradeNo: p.TradeNo, Code: "signed", Spent: []byte{wallet, byte(n)}, Wallet: []byte{wallet}, Counter: uint32(n), ScannedAt: s.clock()})
	}))
	return s.must(s.ByTradeNo(p.TradeNo))
}

func TestAReceiptSettlesItsOrderOnceAndFreesTheCounter(t *testing.T) {
	for name, before := range map[string]func(*shop, payment.Payment){
		"shown":     func(*shop, payment.Payment) {},
		"cancelled": func(s *shop, p payment.Payment) { s.must(s.Cancel(ctx, p.TradeNo, "op1")) },
		"reopened":  func(s *shop, _ payment.Payment) { s.reopen() },
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t)
			p := s.order(1)
			before(s, p)
			r := s.receipt(p)
			p = s.must(s.ConfirmReceipt(ctx, r))
			if p.State != payment.Success || p.Path != payment.Receipt || p.PaidFen != 1150 || p.DiscountFen != 100 || p.Settled || p.Copies != 1 {
				t.Fatalf("%+v", p)
			}
			if holder, _ := s.Counter(); holder != "" {
				t.Error("the counter is still held")
			}
			if again := s.must(s.ConfirmReceipt(ctx, r)); again.Copies != 1 || again.State != payment.Success {
				t.Errorf("shown again: %+v", again)
			}
			open, err := s.OpenTrades()
			check(t, err)
			if len(open) != 1 {
				t.Fatal("nobody asks the ledger about it")
			}
			a := s.paid(p)
			a.To, a.PaidFen, a.DiscountFen, a.LedgerNo = payment.OpQuery, 1150, 100, r.LedgerNo
			p = s.must(s.Answer(ctx, a))
			shift, _, _ := s.Shift()
			if p.Unconfirmed || p.FeeFen != a.FeeFen || p.Copies != 1 || shift.Count != 1 || shift.TotalFen != 1250 || shift.FeeFen != a.FeeFen || shift.DiscountFen != 100 {
				t.Errorf("confirmed: %+v in %+v", p, shift)
			}
			if open, _ := s.OpenTrades(); len(open) != 0 {
				t.Error("it is still asked for")
			}
			check(t, s.view(func(disk state) error { sameState(t, dump(t, folded(t, s.Book)), dump(t, disk)); return nil }))
		})
	}
}

func TestAnAuthenticReceiptThatMayNotSettleIsReversed(t *testing.T) {
	for name, c := range map[string]struct {
		spoil  func(*shop, payment.Payment, *Receipt)
		reason payment.Reason
	}{
		"other amount":  {func(_ *shop, _ payment.Payment, r *Receipt) { r.TotalFen++ }, "AMOUNT_MISMATCH"},
		"paid too late": {func(s *shop, p payment.Payment, r *Receipt) { r.PaidAt = p.ExpiresAt.Add(time.Second) }, "PAID_AFTER_EXPIRY"},
		"reversal has left": {func(s *shop, p payment.Payment, _ *Receipt) {
			s.must(s.RecordAsk(ctx, p.TradeNo, payment.OpReverse, payment.ReasonCancelled))
		}, payment.ReasonCancelled},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t)
			p := s.order(1)
			r := s.receipt(p)
			c.spoil(s, p, &r)
			p, err := s.ConfirmReceipt(ctx, r)
			var refused *ReceiptRefusal
			if !errors.As(err, &refused) || p.State != payment.Unknown || p.Reason != c.reason || !p.Reversing {
				t.Fatalf("%s %s reversing %v, %v", p.State, p.Reason, p.Reversing, err)
			}
			if op, _ := p.Due(s.clock(), s.Started()); op != payment.OpReverse {
				t.Errorf("due is %q", op)
			}
		})
	}
}

func TestAReceiptOfALostOrderIsReversedAndOneOfASaleChangesNothing(t *testing.T) {
	s := newShop(t)
	lost := Receipt{Order: NewTradeNo(s.clock()), LedgerNo: "L1", TotalFen: 1250, PaidFen: 1250, PaidAt: s.clock()}
	for range 2 {
		var refused *ReceiptRefusal
		p, err := s.ConfirmReceipt(ctx, lost)
		if !errors.As(err, &refused) || refused.Reason != "NOT_MY_ORDER" || p.State != payment.Unknown || !p.Reversing {
			t.Fatalf("%+v, %v", p, err)
		}
		s.reopen()
	}
	if open, _ := s.OpenTrades(); len(open) != 1 {
		t.Errorf("%d reversals of one receipt", len(open))
	}
	sale := s.must(s.Answer(ctx, s.paid(s.sell(1))))
	var refused *ReceiptRefusal
	lost.Order = sale.TradeNo
	if p, err := s.ConfirmReceipt(ctx, lost); !errors.As(err, &refused) || p.State != payment.Success || p.Reversing {
		t.Errorf("a receipt of a sale by code: %+v, %v", p, err)
	}
}

func TestDigitsAreCountedBeforeTheyAreCompared(t *testing.T) {
	s := newShop(t)
	p := s.order(1)
	for n := 1; n <= 3; n++ {
		seen := 0
		_, err := s.ConfirmDigits(ctx, p.TradeNo, "op1", func() bool { seen = s.must(s.ByTradeNo(p.TradeNo)).DigitTries; return false })
		if !errors.Is(err, ErrWrongDigits) || seen != n {
			t.Fatalf("try %d: counted %d before comparing, %v", n, seen, err)
		}
	}
	if _, err := s.ConfirmDigits(ctx, p.TradeNo, "op1", func() bool { t.Error("compared"); return true }); !errors.Is(err, ErrDigitsLocked) {
		t.Errorf("a fourth try: %v", err)
	}
	s.must(s.Cancel(ctx, p.TradeNo, "op1"))
	q := s.order(2)
	q = s.must(s.ConfirmDigits(ctx, q.TradeNo, "op1", func() bool { return true }))
	if q.State != payment.Success || q.Evidence != payment.ByDigits || q.Settled || q.Copies != 1 {
		t.Fatalf("%+v", q)
	}
	q, err := s.Answer(ctx, payment.Answered{TradeNo: q.TradeNo, To: payment.OpQuery, State: payment.NotFound})
	alarms, _ := s.Alarms(9)
	if !errors.Is(err, payment.ErrImpossible) || q.State != payment.Success || len(alarms) != 1 || alarms[0].Code != "CONFIRMED_NOT_PAID" {
		t.Errorf("the ledger knows nothing of it: %s, %v, %+v", q.State, err, alarms)
	}
}

func TestTenWrongTriesPauseTypingUntilTheLedgerIsReached(t *testing.T) {
	s := newShop(t)
	wrong := func(n int) error {
		p := s.order(n)
		_, err := s.ConfirmDigits(ctx, p.TradeNo, "op1", func() bool { return false })
		s.must(s.Cancel(ctx, p.TradeNo, "op1"))
		s.pass(time.Minute)
		return err
	}
	for n := range digitTries {
		if err := wrong(n); !errors.Is(err, ErrWrongDigits) {
			t.Fatalf("try %d: %v", n, err)
		}
	}
	s.pass(2 * digitWindow)
	s.reopen()
	if err := wrong(20); !errors.Is(err, ErrDigitsPaused) {
		t.Fatalf("the eleventh, much later: %v", err)
	}
	check(t, s.Anchored(ctx, s.Position()))
	if err := wrong(21); !errors.Is(err, ErrWrongDigits) {
		t.Errorf("after the ledger was reached: %v", err)
	}
}

func TestExposureRisesWithAnAcceptanceAndFallsWithItsJudgement(t *testing.T) {
	s := newShop(t)
	first := s.accept(1, 7)
	s.pass(time.Minute)
	second, third := s.accept(2, 7), s.accept(3, 8)
	exposed := func(fen money.Fen, count int, oldest time.Time) {
		t.Helper()
		if e, err := s.Exposure(); err != nil || e.Fen != fen || e.Count != count || !e.OldestAt.Equal(oldest) {
			t.Errorf("exposure %+v, %v; want %d fen in %d since %s", e, err, fen, count, oldest)
		}
	}
	exposed(3750, 3, first.AcceptedAt)
	a := s.paid(first)
	a.To = payment.OpUpload
	s.must(s.Answer(ctx, a))
	exposed(2500, 2, second.AcceptedAt)
	s.must(s.Answer(ctx, payment.Answered{TradeNo: second.TradeNo, To: payment.OpUpload, State: payment.Bounced, Reason: "POLICY_BREACH", Bearer: payment.BearerMerchant}))
	s.must(s.Withdraw(ctx, third.TradeNo, "m1"))
	exposed(1250, 1, third.AcceptedAt)
	s.must(s.Answer(ctx, payment.Answered{TradeNo: third.TradeNo, To: payment.OpUpload, State: payment.Revoked}))
	exposed(0, 0, time.Time{})
	check(t, s.view(func(st state) error {
		used, err := exposureAt(st, key(prefixCertUsed, []byte{7}))
		if used.Fen != 2500 || used.Count != 2 {
			t.Errorf("the certificate has spent %+v", used)
		}
		return err
	}))
	check(t, s.view(func(disk state) error { sameState(t, dump(t, folded(t, s.Book)), dump(t, disk)); return nil }))
}

package ledgercache

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
)

// sound checks that the books agree with the trades, on disk and as the journal alone gives them, key by key.
func (s *shop) sound() Check {
	s.t.Helper()
	c, err := s.CheckBooks(ctx)
	check(s.t, err)
	memory := folded(s.t, s.Book)
	again, err := checkBooks(ctx, memory)
	check(s.t, err)
	if len(c.Wrong)+len(again.Wrong) > 0 || c.Trades != again.Trades {
		s.t.Fatalf("on disk: %q\nin memory: %q", c.Wrong, again.Wrong)
	}
	check(s.t, s.view(func(disk state) error { sameState(s.t, dump(s.t, memory), dump(s.t, disk)); return nil }))
	return c
}

func (s *shop) account(a payment.Account) money.Fen {
	s.t.Helper()
	list, err := s.TrialBalance()
	check(s.t, err)
	var sum, have money.Fen
	for _, b := range list {
		sum += b.Fen
		if b.Account == a {
			have = b.Fen
		}
	}
	if sum != 0 {
		s.t.Errorf("the trial balance comes to %d", sum)
	}
	return have
}

func TestTheReceivableIsWhatWasPaidLessFeesAndRefunds(t *testing.T) {
	s := newShop(t)
	a := s.paid(s.sell(1))
	a.PaidFen, a.DiscountFen = 1150, 100
	p := s.must(s.Answer(ctx, a))
	s.must(s.Answer(ctx, a)) // told again
	s.sell(2)                // not answered
	f, _, err := s.OpenRefund(ctx, NewRefund{OutRefundNo: "R1", TradeNo: p.TradeNo, RefundFen: 400, OperatorID: "op1", BodyHash: []byte{1}})
	check(t, err)
	if have := s.account(payment.Refunding); have != 400 {
		t.Errorf("refunding %d", have)
	}
	answer := payment.RefundAnswered{RefundNo: f.RefundNo, State: payment.RefundSuccess, RefundFen: 400, FeeBackFen: 2, At: s.clock().Add(24 * time.Hour)}
	for range 2 {
		_, err = s.AnswerRefund(ctx, answer)
		check(t, err)
	}
	for account, want := range map[payment.Account]money.Fen{
		payment.Receivable: 1150 - 5 - 400 + 2, payment.Sales: -1250, payment.Discounts: 100, payment.Fees: 3, payment.Refunds: 400,
		payment.Refunding: 0, payment.Memoranda: 0,
	} {
		if have := s.account(account); have != want {
			t.Errorf("%s: %d, want %d", account.Words().EN, have, want)
		}
	}
	today, err := s.Day("2026-11-23")
	check(t, err)
	next, err := s.Day("2026-11-24")
	check(t, err)
	if today.NetFen() != 1145 || today.Online != (Part{1, 1250}) || next.NetFen() != -398 || next.RefundCount != 1 {
		t.Errorf("%+v\n%+v", today, next)
	}
	list, err := s.Balances("2026-11-24")
	check(t, err)
	if list[0] != (Balance{payment.Receivable, -398}) {
		t.Errorf("%+v", list)
	}
	s.sound()
}

func TestAnEventThatDoesNotBalanceCannotBeJournalled(t *testing.T) {
	s := newShop(t)
	before := s.Head()
	err := s.do(ctx, func(t *tx) error {
		bad := payment.Set{{Account: payment.Sales, Day: "2026-11-23", Fen: -1}}
		return errors.Join(bad.Check(), foldBooks(t.state, "", bad, tally{}, tally{}))
	})
	wantErr(t, err, payment.ErrUnbalanced)
	// A day whose sum would leave the range stops the step as well.
	err = s.do(ctx, func(t *tx) error {
		full := payment.Set{{Account: payment.Sales, Day: "2026-11-23", Fen: -1 << 62}, {Account: payment.Receivable, Day: "2026-11-23", Fen: 1 << 62}}
		return errors.Join(foldBooks(t.state, "", full, tally{}, tally{}), foldBooks(t.state, "", full, tally{}, tally{}), foldBooks(t.state, "", full, tally{}, tally{}))
	})
	wantErr(t, err, money.ErrOverflow)
	if s.Head() != before {
		t.Error("something was journalled")
	}
	s.sound()
}

func TestBooksThatWereTamperedWithAreFound(t *testing.T) {
	s := newShop(t)
	p := s.must(s.Answer(ctx, s.paid(s.sell(1))))
	s.accept(2, 7)
	_, _, err := s.CloseDay(ctx, "2026-11-23", "op9")
	check(t, err)
	trade, err := id(p.TradeNo)
	check(t, err)
	shift, err := id(p.ShiftID)
	check(t, err)
	day := []byte("2026-11-23")
	for name, spoil := range map[string]func(state) error{
		"amount of a trade": func(s state) error { q := p; q.TotalFen++; return put(s, key(prefixTrade, trade), q) },
		"day of a trade": func(s state) error {
			q := p
			q.FinishedAt = q.FinishedAt.Add(48 * time.Hour)
			return put(s, key(prefixTrade, trade), q)
		},
		"a trade gone": func(s state) error { return s.delete(key(prefixTrade, trade)) },
		"an account of a day": func(s state) error {
			return changeDay(s, string(day), func(d *Day) error { d.Accounts[payment.Fees]++; return nil })
		},
		"a figure of a day": func(s state) error { return changeDay(s, string(day), func(d *Day) error { d.FeeFen++; return nil }) },
		"a day gone":        func(s state) error { return s.delete(key(prefixDayBook, day)) },
		"a shift":           func(s state) error { return addToShift(s, p.ShiftID, func(h *Shift) error { h.Count++; return nil }) },
		"a shift gone":      func(s state) error { return s.delete(key(prefixShift, shift)) },
		"exposure":          func(s state) error { return s.delete(keyExposure) },
		"a Z gone":          func(s state) error { return s.delete(zKey(1)) },
		"an index":          func(s state) error { return s.delete(amountKey(p.TotalFen, trade)) },
		"a row":             func(s state) error { return s.set(dayKey(p, trade), []byte{1, 1, 1, 0}) },
		"a stray index":     func(s state) error { return s.set(key(prefixOpenTrade, trade), nil) },
		"a mark":            func(s state) error { return s.set(key(prefixDayOpen, day), nil) },
	} {
		memory := folded(t, s.Book)
		check(t, spoil(memory))
		if c, err := checkBooks(ctx, memory); err != nil || len(c.Wrong) == 0 {
			t.Errorf("%s: not found (%v)", name, err)
		}
	}
}

func TestBooksStayTrueUnderRandomLife(t *testing.T) {
	rounds, steps := 2, 250
	if os.Getenv("YUPOS_FULL") != "" {
		rounds, steps = 20, 3000
	}
	for range rounds {
		seed := rand.Uint64()
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { (&life{shop: newShop(t), r: rand.New(rand.NewPCG(seed, 0))}).run(steps) })
	}
}

// life does what a shop does, in any order, with late, repeated and wrong answers.
type life struct {
	*shop
	r       *rand.Rand
	n       int
	trades  []string
	refunds []string
}

func (l *life) run(steps int) {
	for i := range steps {
		l.pass(time.Duration(l.r.IntN(40)) * time.Minute)
		if err := l.step(); err != nil && !expected(err) {
			l.t.Fatalf("step %d: %v", i, err)
		}
		if i%100 == 99 {
			l.sound()
			l.reopen()
		}
	}
	c := l.sound()
	if c.Trades < steps/20 || c.Refunds == 0 || c.Zs == 0 {
		l.t.Errorf("a dull life: %+v", c)
	}
}

// expected reports whether an error is a refusal that random steps must meet.
func expected(err error) bool {
	for _, e := range []error{payment.ErrIllegalMove, payment.ErrImpossible, ErrNotPaid, ErrRefundTooMuch, ErrRefundTooMany, ErrCounterBusy,
		ErrNoShift, ErrDayClosed, ErrDayAhead, ErrDigitsLocked, ErrDigitsPaused, ErrWrongDigits} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (l *life) step() (err error) {
	l.n++
	switch l.r.IntN(14) {
	case 0, 1:
		l.trades = append(l.trades, l.sell(l.n).TradeNo)
	case 2:
		l.trades = append(l.trades, l.accept(l.n, byte(l.r.IntN(4))).TradeNo)
	case 3:
		p, _, err := l.OpenTrade(ctx, New{OutTradeNo: fmt.Sprint("O", l.n), Mode: payment.ByOrder, TotalFen: 1250, OperatorID: "op1", ExpiresAt: l.clock().Add(payment.OrderFor)})
		if err == nil {
			l.trades = append(l.trades, p.TradeNo)
		}
		return err
	case 4:
		if p, ok := l.any(); ok {
			_, err = l.ConfirmDigits(ctx, p.TradeNo, "op1", func() bool { return l.r.IntN(3) > 0 })
		}
	case 5:
		if p, ok := l.any(); ok {
			_, err = l.RecordAsk(ctx, p.TradeNo, []payment.Op{payment.OpQuery, payment.OpReverse, payment.OpUpload}[l.r.IntN(3)], payment.ReasonNoAnswer)
		}
	case 6:
		if p, ok := l.any(); ok {
			if l.r.IntN(2) == 0 {
				_, err = l.Cancel(ctx, p.TradeNo, "op1")
			} else {
				_, err = l.Withdraw(ctx, p.TradeNo, "op9")
			}
		}
	case 7:
		return l.refund()
	case 8:
		return l.close()
	default:
		return l.answer()
	}
	return err
}

func (l *life) any() (p payment.Payment, ok bool) {
	if len(l.trades) == 0 {
		return p, false
	}
	newest := max(0, len(l.trades)-20)
	return l.must(l.ByTradeNo(l.trades[newest+l.r.IntN(len(l.trades)-newest)])), true
}

func (l *life) answer() error {
	p, ok := l.any()
	if !ok {
		return nil
	}
	a := payment.Answered{TradeNo: p.TradeNo, To: []payment.Op{payment.OpNone, payment.OpPay, payment.OpReverse, payment.OpUpload}[l.r.IntN(4)], Attempt: p.Attempt}
	switch l.r.IntN(6) {
	case 0:
		a.State = payment.Revoked
	case 1:
		a.State = payment.Bounced
	case 2:
		a.State = []payment.State{payment.UserPaying, payment.PayError, payment.Closed, payment.NotFound}[l.r.IntN(4)]
	default:
		off := money.Fen(l.r.IntN(2) * 100)
		a.State, a.TotalFen, a.PaidFen, a.DiscountFen, a.FeeFen = payment.Success, p.TotalFen, p.TotalFen-off, off, money.Fen(l.r.IntN(9))
		a.PaidAt = l.clock().Add(-time.Duration(l.r.IntN(30*60)) * time.Minute)
	}
	_, err := l.Answer(ctx, a)
	return err
}

func (l *life) refund() error {
	if len(l.refunds) > 0 && l.r.IntN(2) == 0 {
		f, err := l.ByRefundNo(l.refunds[l.r.IntN(len(l.refunds))])
		check(l.t, err)
		a := payment.RefundAnswered{RefundNo: f.RefundNo, State: payment.RefundSuccess, RefundFen: f.RefundFen, FeeBackFen: money.Fen(l.r.IntN(3)), At: l.clock()}
		if l.r.IntN(4) == 0 {
			a = payment.RefundAnswered{RefundNo: f.RefundNo, State: payment.RefundFailed, Reason: "MERCHANT_BALANCE"}
		}
		_, err = l.AnswerRefund(ctx, a)
		return err
	}
	p, ok := l.any()
	if !ok {
		return nil
	}
	f, _, err := l.OpenRefund(ctx, NewRefund{OutRefundNo: fmt.Sprint("R", l.n), TradeNo: p.TradeNo, RefundFen: money.Fen(1 + l.r.IntN(700)), OperatorID: "op1"})
	if err == nil {
		l.refunds = append(l.refunds, f.RefundNo)
	}
	return err
}

func (l *life) close() error {
	if l.r.IntN(2) == 0 {
		shift, ok, err := l.Shift()
		if err == nil && ok {
			_, err = l.CloseShift(ctx, shift.ID, "op1")
		}
		return err
	}
	_, _, err := l.CloseDay(ctx, payment.Day(l.clock().Add(-time.Duration(l.r.IntN(48))*time.Hour)), "op9")
	return err
}

func TestAZTakesEveryFigureOnceAndItsNumbersHaveNoGaps(t *testing.T) {
	s := newShop(t) // 10:00 in Shanghai on the 23rd
	s.must(s.Answer(ctx, s.paid(s.sell(1))))
	late := s.sell(2)
	x, err := s.XReport("2026-11-23")
	check(t, err)
	z, replayed, err := s.CloseDay(ctx, "2026-11-23", "op9")
	check(t, err)
	if replayed || z.Number != 1 || z.Count != 1 || z.TotalFen != 1250 || z.Totals != x.Totals || z.Head.Sequence == 0 || z.Head.Sequence >= s.Head().Sequence {
		t.Fatalf("%+v\n%+v", z, x)
	}
	if z.Carried.Count != 1 || z.Carried.Fen != 1250 || z.Carried.Items[0].OutTradeNo != "A000002" || z.Carried.Items[0].State != payment.Unknown {
		t.Errorf("%+v", z.Carried)
	}
	again, replayed, err := s.CloseDay(ctx, "2026-11-23", "op8")
	check(t, err)
	if !replayed || fmt.Sprint(again) != fmt.Sprint(z) {
		t.Errorf("%+v", again)
	}
	answer := s.paid(late) // paid on the 23rd, told on the 24th
	s.pass(20 * time.Hour)
	s.must(s.Answer(ctx, answer))
	s.must(s.Answer(ctx, s.paid(s.sell(3))))
	_, _, err = s.CloseDay(ctx, "2026-11-25", "op9")
	wantErr(t, err, ErrDayAhead)
	second, _, err := s.CloseDay(ctx, "2026-11-24", "op9")
	check(t, err)
	if second.Number != 2 || second.Count != 2 || len(second.Parts) != 2 || second.Parts[0].Date != "2026-11-23" || second.Parts[0].Count != 1 || second.Carried.Count != 0 {
		t.Errorf("%+v", second)
	}
	_, _, err = s.CloseDay(ctx, "2026-11-22", "op9")
	wantErr(t, err, ErrDayClosed)
	_, _, err = s.CloseDay(ctx, "2026-11-31", "op9")
	wantErr(t, err, ErrQuery)
	s.reopen()
	kept, err := s.Z(1)
	check(t, err)
	if fmt.Sprint(kept) != fmt.Sprint(z) {
		t.Errorf("the first Z changed: %+v", kept)
	}
	day, err := s.Day("2026-11-23")
	check(t, err)
	if day.Z != 1 || day.Count != 2 || day.InZ != day.Totals {
		t.Errorf("%+v", day)
	}
	days, err := s.Days("2026-11-01", "2026-11-30")
	check(t, err)
	if len(days) != 2 || days[1].Z != 2 {
		t.Errorf("%+v", days)
	}
	if c := s.sound(); c.Zs != 2 {
		t.Errorf("%+v", c)
	}
}

func TestAShiftKeepsWhatItsSlipSaidAndWhatWasOpen(t *testing.T) {
	s := newShop(t)
	p := s.must(s.Answer(ctx, s.paid(s.sell(1))))
	open := s.sell(2)
	x, err := s.ShiftReport(p.ShiftID)
	check(t, err)
	if x.Count != 1 || x.Carried.Count != 1 {
		t.Errorf("X: %+v", x)
	}
	_, err = s.CloseShift(ctx, p.ShiftID, "op1")
	check(t, err)
	s.must(s.Answer(ctx, s.paid(open)))
	r, err := s.ShiftReport(p.ShiftID)
	check(t, err)
	if r.AtClose.Count != 1 || r.Count != 2 || r.Carried.Count != 1 || r.Carried.Items[0].TradeNo != open.TradeNo {
		t.Errorf("%+v", r)
	}
	shifts, err := s.Shifts(s.clock().Add(-time.Hour), s.clock().Add(time.Hour))
	check(t, err)
	if len(shifts) != 1 || shifts[0].Number != 1 {
		t.Errorf("%+v", shifts)
	}
	s.sound()
}

package payment

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"yupos/ledgercache/money"
)

var t0 = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

const trade = "01KASF3M1ZV9Q8XN7T5R2C4D6E"

// walk opens a trade of ¥12.50 and applies the events one second apart; every one must be legal.
func walk(t *testing.T, mode Mode, events ...Event) Payment {
	t.Helper()
	p, err := Open(Opened{TradeNo: trade, OutTradeNo: "A1", Mode: mode, TotalFen: 1250, ExpiresAt: t0.Add(180 * time.Second)}, t0)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range events {
		if p, err = Apply(p, e, t0.Add(time.Duration(i+1)*time.Second)); err != nil {
			t.Fatalf("event %d %T: %v", i, e, err)
		}
	}
	return p
}

func sent() Event {
	return Submitted{TradeNo: trade, Code: "861234567890123459", Spent: []byte{1}, ScannedAt: t0.Add(time.Second), NotAfter: t0.Add(61 * time.Second)}
}

func says(s State) Answered {
	a := Answered{TradeNo: trade, State: s, To: OpPay}
	if s == Success {
		a.TotalFen, a.PaidFen, a.DiscountFen, a.FeeFen, a.PaidAt = 1250, 1150, 100, 5, t0.Add(2*time.Second)
	}
	if s == PayError {
		a.Reason, a.Attempt = "INSUFFICIENT_BALANCE", 1
	}
	return a
}

func asks(op Op) Event { return Asked{TradeNo: trade, Op: op, Reason: ReasonNoAnswer} }

func TestEachStateTakesOnlyItsOwnMoves(t *testing.T) {
	expired := Expired{TradeNo: trade}
	wish := CancelWanted{TradeNo: trade}
	// For each way to a state: what each event makes of it. "!" is illegal, "=" a replay, "?" impossible.
	for name, c := range map[string]struct {
		mode  Mode
		after []Event
		want  map[string]string
	}{
		"armed counter": {AtCounter, nil, map[string]string{
			"submit": "UNKNOWN", "reject": "NOTPAY", "query": "!", "reverse": "!", "success": "?", "decline": "?", "closed": "?", "cancel": "CLOSED"}},
		"shown order": {ByOrder, nil, map[string]string{
			"submit": "!", "reject": "!", "query": "NOTPAY", "reverse": "UNKNOWN", "success": "SUCCESS", "decline": "?", "userpaying": "=", "closed": "CLOSED", "notpay": "=", "cancel": "UNKNOWN"}},
		"sent code": {ByCode, []Event{sent()}, map[string]string{
			"submit": "!", "reject": "!", "query": "UNKNOWN", "reverse": "UNKNOWN", "success": "SUCCESS", "decline": "PAYERROR", "userpaying": "USERPAYING", "closed": "CLOSED", "revoked": "REVOKED", "notfound": "UNKNOWN", "cancel": "UNKNOWN", "expire": "!"}},
		"sent at the counter": {AtCounter, []Event{sent()}, map[string]string{
			"submit": "!", "success": "SUCCESS", "decline": "NOTPAY", "cancel": "UNKNOWN", "expire": "!"}},
		"declined at the counter": {AtCounter, []Event{sent(), says(PayError)}, map[string]string{
			"submit": "UNKNOWN", "decline": "=", "success": "?", "cancel": "CLOSED"}},
		"customer confirms": {ByCode, []Event{sent(), says(UserPaying)}, map[string]string{
			"success": "SUCCESS", "decline": "PAYERROR", "userpaying": "=", "query": "USERPAYING", "reverse": "UNKNOWN", "cancel": "UNKNOWN", "submit": "!"}},
		"being reversed": {ByCode, []Event{sent(), asks(OpReverse)}, map[string]string{
			"success": "UNKNOWN", "userpaying": "=", "decline": "CLOSED", "closed": "CLOSED", "revoked": "REVOKED", "cancel": "=", "pay": "!", "reverse": "UNKNOWN"}},
		"paid": {ByCode, []Event{sent(), says(Success)}, map[string]string{
			"success": "=", "decline": "?", "closed": "?", "revoked": "?", "userpaying": "=", "notfound": "=", "cancel": "!", "query": "!", "reverse": "!", "submit": "!", "reject": "!", "expire": "!"}},
		"closed": {ByCode, []Event{sent(), asks(OpReverse), says(Closed)}, map[string]string{
			"success": "?", "closed": "=", "revoked": "?", "cancel": "=", "submit": "!", "query": "!"}},
		"revoked": {ByCode, []Event{sent(), asks(OpReverse), says(Revoked)}, map[string]string{
			"success": "=", "revoked": "=", "closed": "?", "cancel": "=", "submit": "!"}},
		"declined": {ByCode, []Event{sent(), says(PayError)}, map[string]string{
			"success": "?", "decline": "=", "cancel": "=", "submit": "!"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := walk(t, c.mode, c.after...)
			events := map[string]Event{
				"submit": sent(), "reject": Rejected{TradeNo: trade, Reason: "CODE_EXPIRED"}, "pay": asks(OpPay), "query": asks(OpQuery),
				"reverse": asks(OpReverse), "success": says(Success), "decline": says(PayError), "userpaying": says(UserPaying), "closed": says(Closed),
				"revoked": says(Revoked), "notpay": says(NotPay), "notfound": says(NotFound), "cancel": wish, "expire": expired,
			}
			for event, want := range c.want {
				got, err := Apply(p, events[event], t0.Add(10*time.Second))
				if word := outcome(got, err); word != want {
					t.Errorf("%s: %s, want %s (%v)", event, word, want, err)
				}
				if err != nil && fmt.Sprint(got) != fmt.Sprint(p) {
					t.Errorf("%s was refused and still changed the trade", event)
				}
			}
		})
	}
}

func outcome(p Payment, err error) string {
	switch {
	case errors.Is(err, ErrIllegalMove):
		return "!"
	case errors.Is(err, ErrReplay):
		return "="
	case errors.Is(err, ErrImpossible):
		return "?"
	}
	return string(p.State)
}

func TestAShownOrderThatExpiresStaysUnknown(t *testing.T) {
	p := walk(t, ByOrder)
	if _, err := Apply(p, Expired{TradeNo: trade}, t0.Add(179*time.Second)); !errors.Is(err, ErrIllegalMove) {
		t.Fatalf("expired too early: %v", err)
	}
	p, err := Apply(p, Expired{TradeNo: trade}, t0.Add(180*time.Second))
	if err != nil || p.State != Unknown || p.Reason != ReasonExpired || p.HoldsCounter() {
		t.Fatalf("%s %s %v, holds the counter: %v", p.State, p.Reason, err, p.HoldsCounter())
	}
	a := says(Success)
	a.To = ""
	if p, err = Apply(p, a, t0.Add(181*time.Second)); err != nil || p.State != Success {
		t.Fatalf("paid in the last second: %s, %v", p.State, err)
	}
}

func TestAnAnswerOfAnotherAmountIsImpossible(t *testing.T) {
	p := walk(t, ByCode, sent())
	for name, spoil := range map[string]func(*Answered){
		"other total":   func(a *Answered) { a.TotalFen = 1251 },
		"parts too low": func(a *Answered) { a.PaidFen = 1149 },
		"negative":      func(a *Answered) { a.PaidFen, a.DiscountFen = -1, 1251 },
		"no time":       func(a *Answered) { a.PaidAt = time.Time{} },
		"negative fee":  func(a *Answered) { a.FeeFen = -1 },
		"strange state": func(a *Answered) { a.State = "PAID" },
	} {
		a := says(Success)
		spoil(&a)
		if got, err := Apply(p, a, t0); !errors.Is(err, ErrImpossible) || got.State != Unknown {
			t.Errorf("%s: %s, %v", name, got.State, err)
		}
	}
}

func TestASuccessDuringAReversalIsKeptButDoesNotEndIt(t *testing.T) {
	p := walk(t, ByCode, sent(), asks(OpReverse), says(Success))
	if p.State != Unknown || !p.Settled || p.PaidFen != 1150 {
		t.Fatalf("%+v", p)
	}
	a := says(Success)
	a.To = OpReverse
	if p, err := Apply(p, a, t0); err != nil || p.State != Success {
		t.Fatalf("a reversal that the ledger answers with paid: %s, %v", p.State, err)
	}
}

func TestTheCodeIsForgottenWhenItIsAnswered(t *testing.T) {
	for _, s := range []State{Success, PayError, Closed, Revoked} {
		if p := walk(t, ByCode, sent(), asks(OpReverse), says(s)); s != Success && p.Code != "" {
			t.Errorf("%s still holds the code", s)
		}
	}
	if p := walk(t, ByCode, sent(), says(Success)); p.Code != "" {
		t.Error("SUCCESS still holds the code")
	}
}

// TestNoEventUndoesAFinalState walks at random and holds every step against the rules that are never broken.
func TestNoEventUndoesAFinalState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mode := rapid.SampledFrom([]Mode{ByCode, AtCounter, ByOrder}).Draw(t, "mode")
		p, err := Open(Opened{TradeNo: trade, OutTradeNo: "A1", Mode: mode, TotalFen: 1250, ExpiresAt: t0.Add(time.Minute)}, t0)
		if err != nil {
			t.Fatal(err)
		}
		now := t0
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 30).Draw(t, "seconds")) * time.Second)
			before := p
			e := drawEvent(t, now)
			p, err = Apply(p, e, now)
			if err != nil && fmt.Sprint(before) != fmt.Sprint(p) {
				t.Fatalf("%T was refused (%v) and changed the trade", e, err)
			}
			if before.State.Final() && p.State != before.State {
				t.Fatalf("%T moved %s to %s", e, before.State, p.State)
			}
			if before.ReversalStarted() && !p.ReversalStarted() {
				t.Fatalf("%T forgot that the reversal has started", e)
			}
			if p.State == Success && p.Evidence != ByDigits && p.PaidFen+p.DiscountFen != p.TotalFen {
				t.Fatalf("paid %d + %d of %d", p.PaidFen, p.DiscountFen, p.TotalFen)
			}
			if op, at := p.Due(now, t0); !p.Open() && op != OpNone || op != OpNone && at.IsZero() {
				t.Fatalf("%s is due %s at %s", p.State, op, at)
			} else if op == OpPay && (p.Reversing || p.Code == "") {
				t.Fatalf("pay is due of a trade that is being ended: %+v", p)
			}
		}
	})
}

func drawEvent(t *rapid.T, now time.Time) Event {
	switch rapid.IntRange(0, 12).Draw(t, "event") {
	case 6:
		return Accepted{TradeNo: trade, Code: "c", Spent: []byte{1}, Wallet: []byte{2}, ScannedAt: now, Accept: []byte{3}}
	case 7:
		return Withdrawn{TradeNo: trade}
	case 8:
		return ReceiptShown{TradeNo: trade, LedgerNo: "L", TotalFen: 1250, PaidFen: 1150, PaidAt: now}
	case 9:
		return ReceiptRefused{TradeNo: trade, Reason: "PAID_AFTER_EXPIRY"}
	case 10:
		return DigitsTyped{TradeNo: trade}
	case 12:
		return OrderShown{TradeNo: trade, OrderText: "again", ExpiresAt: now.Add(OrderFor)}
	case 11:
		return DigitsMatched{TradeNo: trade, At: now}
	case 0:
		return Submitted{TradeNo: trade, Code: "c", Spent: []byte{1}, Wallet: []byte{2}, ScannedAt: now, NotAfter: now.Add(PayWindow)}
	case 1:
		return Rejected{TradeNo: trade, Reason: "CODE_EXPIRED"}
	case 2:
		return Asked{TradeNo: trade, Op: rapid.SampledFrom([]Op{OpPay, OpOrder, OpQuery, OpReverse, OpUpload}).Draw(t, "op"), Reason: ReasonNoAnswer}
	case 3:
		return CancelWanted{TradeNo: trade}
	case 4:
		return Expired{TradeNo: trade}
	}
	a := says(rapid.SampledFrom([]State{Success, UserPaying, PayError, Closed, Revoked, NotPay, NotFound, Bounced}).Draw(t, "state"))
	a.To = rapid.SampledFrom([]Op{OpNone, OpPay, OpQuery, OpReverse, OpUpload}).Draw(t, "to")
	a.PaidAt = now
	return a
}

func TestRefundsEndOnce(t *testing.T) {
	r := Refund{RefundNo: "R", State: RefundProcessing, RefundFen: 500}
	ok := RefundAnswered{RefundNo: "R", State: RefundSuccess, RefundFen: 500, FeeBackFen: 2, At: t0}
	done, err := ApplyRefund(r, ok)
	if err != nil || done.State != RefundSuccess || done.FeeBackFen != 2 {
		t.Fatalf("%+v, %v", done, err)
	}
	if _, err := ApplyRefund(done, ok); !errors.Is(err, ErrReplay) {
		t.Errorf("again: %v", err)
	}
	if _, err := ApplyRefund(done, RefundAnswered{RefundNo: "R", State: RefundFailed, At: t0}); !errors.Is(err, ErrImpossible) {
		t.Errorf("undone: %v", err)
	}
	for name, a := range map[string]RefundAnswered{
		"other amount": {RefundNo: "R", State: RefundSuccess, RefundFen: 501, At: t0},
		"no time":      {RefundNo: "R", State: RefundSuccess, RefundFen: 500},
		"no state":     {RefundNo: "R", RefundFen: 500, At: t0},
	} {
		if _, err := ApplyRefund(r, a); !errors.Is(err, ErrImpossible) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOnlyPayableAmountsAreOpened(t *testing.T) {
	for _, f := range []money.Fen{0, -1, money.Max + 1} {
		if _, err := Open(Opened{TradeNo: trade, TotalFen: f}, t0); !errors.Is(err, money.ErrRange) {
			t.Errorf("%d fen: %v", f, err)
		}
	}
}

func TestEveryStateHasItsWordsAndItsNextStep(t *testing.T) {
	for _, s := range []State{NotPay, UserPaying, Unknown, Success, Closed, Revoked, PayError, AcceptedOffline, Bounced} {
		p := Payment{State: s, Mode: ByCode, TotalFen: 1250}
		if w := p.Display(); w.ZH == "" || w.EN == "" {
			t.Errorf("%s has no words", s)
		}
		if p.NextAction() == "" || s == Unknown && p.NextAction() != "query" {
			t.Errorf("%s: next action %q", s, p.NextAction())
		}
	}
	p := Payment{State: PayError, Reason: "FOREIGN_CODE", Foreign: "WECHAT", TotalFen: 1250}
	if got := p.Display().ZH; got != "收款失败 ¥12.50：这是微信付款码，未收款，请顾客打开本钱包" {
		t.Errorf("a WeChat code reads %q", got)
	}
	for foreign, want := range map[string]string{
		"OTHER_EMVCO": "这是其他钱包的付款码", "OTHER_EMVCO:GCASH": "这是 GCASH 的付款码", "OTHER_EMVCO:UnionPay": "这是云闪付付款码", "OTHER_EMVCO:A:B": "这是 A:B 的付款码",
		"OTHER_EMVCO:SHOP": "这是其他机构的收款码", "UNKNOWN_CODE": "这不是付款码", "UNKNOWN_CODE:WEB_ADDRESS": "这是网址", "UNKNOWN_CODE:later": "这不是付款码",
		"RECEIPT": "这是付款凭证", "ORDER": "这是商户收款码", "GOODS_BARCODE": "这是商品条码", "LATER_KIND": "不是本钱包的付款码",
	} {
		p.Foreign = foreign
		if w := p.Why(); !strings.HasPrefix(w.ZH, want) || !strings.Contains(w.ZH, "未收款") || w.EN == "" {
			t.Errorf("%s reads %q", foreign, w.ZH)
		}
	}
}

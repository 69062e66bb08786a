package uplink

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"yupos/ledgercache"
	"yupos/ledgercache/payment"
	"yupos/sync/wire"
)

// drop makes the ledger take a message and lose its answer.
func drop[T any](l *ledger) {
	l.set(func() { l.on = func(m message) bool { _, is := m.body.(*T); return is } })
}

func TestACodeThatTheLedgerTakesIsPaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		s.untilUp()
		began := time.Now()
		p := s.pay("A1", 1250)
		pay, m := next[wire.Pay](l)
		if pay.TradeNo != p.TradeNo || pay.Attempt != 1 || pay.TotalFen != 1250 || pay.Repeat || string(pay.Code) != testCode+"A1" {
			t.Errorf("sent %+v", pay)
		}
		if m.at != began {
			t.Errorf("sent after %v", m.at.Sub(began))
		}
		if p = s.trade(p.TradeNo, payment.Success); p.PaidFen != 1250 || p.Code != "" {
			t.Errorf("book holds %+v", p)
		}
	})
}

func TestADeclineIsFinalWithItsReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		l.set(func() {
			l.on = func(m message) bool {
				pay, is := m.body.(*wire.Pay)
				if is {
					m.peer.say(0, m.id, wire.Outcome{TradeNo: pay.TradeNo, State: wire.StatePayError, Reason: "INSUFFICIENT_BALANCE"})
				}
				return is
			}
		})
		s.untilUp()
		p := s.trade(s.pay("A1", 1250).TradeNo, payment.PayError)
		if p.Reason != "INSUFFICIENT_BALANCE" {
			t.Errorf("reason %s", p.Reason)
		}
	})
}

func TestALostAnswerIsAskedForAfterThreeSecondsAndNeverPaidAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		l.set(func() {
			l.on = func(m message) bool {
				pay, is := m.body.(*wire.Pay)
				if is {
					l.trades[pay.TradeNo] = paidOutcome(pay.TradeNo, pay.TotalFen)
				}
				return is
			}
		})
		s.untilUp()
		began := time.Now()
		p := s.pay("A1", 1250)
		next[wire.Pay](l)
		_, m := next[wire.Query](l)
		if after := m.at.Sub(began); after != 3*time.Second {
			t.Errorf("asked after %v", after)
		}
		s.trade(p.TradeNo, payment.Success)
	})
}

func TestAPayThatTheLedgerNeverHeardIsSentAgainMarkedWithinItsWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, n := world(t)
		first := true
		l.set(func() {
			l.on = func(m message) bool {
				_, is := m.body.(*wire.Pay)
				lost := is && first
				first = first && !is
				return lost
			}
		})
		s.untilUp()
		p := s.pay("A1", 1250)
		next[wire.Pay](l)
		n.cut(false)
		next[wire.Query](l)
		pay, _ := next[wire.Pay](l)
		if !pay.Repeat || pay.Attempt != 1 {
			t.Errorf("second pay %+v", pay)
		}
		s.trade(p.TradeNo, payment.Success)
	})
}

func TestAPayThatNeverLeftIsSentWhenTheLineComesBackWithinItsWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, n := world(t)
		s.untilUp()
		n.cut(true)
		s.until("down", func(st State) bool { return !st.Up })
		p := s.pay("A1", 1250)
		time.Sleep(20 * time.Second)
		before, err := s.book.ByTradeNo(p.TradeNo)
		if err != nil || before.LastAskAt != p.LastAskAt {
			t.Errorf("recorded while down: %+v %v", before, err)
		}
		n.cut(false)
		if pay, _ := next[wire.Pay](l); pay.Repeat {
			t.Error("marked as a repeat, but it never left")
		}
		s.trade(p.TradeNo, payment.Success)
	})
}

func TestAPayThatNeverLeftIsNotSentAfterItsTimeButAskedForAndReversed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, n := world(t)
		s.untilUp()
		n.cut(true)
		s.until("down", func(st State) bool { return !st.Up })
		p := s.pay("A1", 1250)
		time.Sleep(70 * time.Second)
		n.cut(false)
		s.trade(p.TradeNo, payment.Closed)
		l.hearsNo(t, func(b any) bool { _, is := b.(*wire.Pay); return is })
	})
}

// hearsNo fails if any message heard so far is a bad one.
func (l *ledger) hearsNo(t *testing.T, bad func(body any) bool) {
	t.Helper()
	for {
		select {
		case m := <-l.heard:
			if bad(m.body) {
				t.Errorf("the ledger heard %T %+v", m.body, m.body)
			}
		default:
			return
		}
	}
}

func TestAfterARestartATradeIsAskedForAndNeverPaidAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		drop[wire.Pay](l)
		s.untilUp()
		p := s.pay("A1", 1250)
		next[wire.Pay](l)
		time.Sleep(time.Second)
		l.set(func() { l.on = nil })
		s.restart()
		q, _ := next[wire.Query](l)
		if q.TradeNo != p.TradeNo {
			t.Errorf("asked for %s", q.TradeNo)
		}
		s.trade(p.TradeNo, payment.Closed) // the ledger does not know it: reversed at 45 s
		l.hearsNo(t, func(b any) bool { _, is := b.(*wire.Pay); return is })
	})
}

func TestWithoutAnAnswerATradeIsAskedForEveryThreeSecondsAndReversedAt45(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		l.set(func() {
			l.on = func(m message) bool { _, anchor := m.body.(*wire.Anchor); return !anchor }
		})
		s.untilUp()
		began := time.Now()
		s.pay("A1", 1250)
		var asks, reverses []time.Duration
		for len(reverses) < 6 {
			m := <-l.heard
			switch b := m.body.(type) {
			case *wire.Query:
				if len(reverses) > 0 {
					t.Error("a question after the reversal has started")
				}
				asks = append(asks, m.at.Sub(began).Round(100*time.Millisecond))
			case *wire.Reverse:
				if b.Repeat != (len(reverses) > 0) || b.Reason != "NO_ANSWER" || b.TotalFen != 1250 {
					t.Errorf("reversal %d: %+v", len(reverses), b)
				}
				reverses = append(reverses, m.at.Sub(began).Round(100*time.Millisecond))
			}
		}
		if len(asks) != 15 || asks[0] != 3*time.Second || asks[14] != 45*time.Second {
			t.Errorf("asked at %v", asks)
		}
		var waits []time.Duration
		for i := range reverses[1:] {
			waits = append(waits, reverses[i+1]-reverses[i])
		}
		if got, want := fmt.Sprint(waits), "[5s 10s 30s 1m0s 1m0s]"; got != want || reverses[0] > 49*time.Second {
			t.Errorf("reversed first at %v, then after %v, want %v", reverses[0], got, want)
		}
	})
}

func TestACancelledTradeIsReversedAtOnceAndBothAnswersMayCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		drop[wire.Pay](l)
		s.untilUp()
		p := s.pay("A1", 1250)
		_, pay := next[wire.Pay](l)
		time.Sleep(time.Second)
		if _, err := s.book.Cancel(context.Background(), p.TradeNo, "01"); err != nil {
			t.Fatal(err)
		}
		asked := time.Now()
		if b, m := next[wire.Reverse](l); m.at != asked || b.Reason != "CANCELLED" {
			t.Errorf("reversed after %v: %+v", m.at.Sub(asked), b)
		}
		s.trade(p.TradeNo, payment.Closed)
		pay.peer.say(0, pay.id, wire.Outcome{TradeNo: p.TradeNo, State: wire.StateClosed}) // the pay's own answer, late
		synctest.Wait()
		if got := s.trade(p.TradeNo, payment.Closed); got.Reason != "CANCELLED" {
			t.Errorf("reason %s", got.Reason)
		}
		s.untilUp()
	})
}

func TestAReversalIsTheOneWordOnACancelledTradeThatWasPaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		l.set(func() {
			l.on = func(m message) bool {
				pay, is := m.body.(*wire.Pay)
				if is {
					l.trades[pay.TradeNo] = paidOutcome(pay.TradeNo, pay.TotalFen)
				}
				return is
			}
		})
		s.untilUp()
		p := s.pay("A1", 1250)
		next[wire.Pay](l)
		if _, err := s.book.Cancel(context.Background(), p.TradeNo, "01"); err != nil {
			t.Fatal(err)
		}
		s.trade(p.TradeNo, payment.Revoked)
	})
}

func TestAnAnswerThatComesLaterThanItsSlotStillCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		l.set(func() { l.on = func(m message) bool { return true } })
		s.untilUp()
		p := s.pay("A1", 1250)
		_, m := next[wire.Pay](l)
		time.Sleep(20 * time.Second)
		m.peer.say(0, m.id, paidOutcome(p.TradeNo, 1250))
		s.trade(p.TradeNo, payment.Success)
	})
}

func TestADuplicateAnswerChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		l.set(func() {
			l.on = func(m message) bool { l.friendly(m); l.friendly(m); return true }
		})
		s.untilUp()
		p := s.trade(s.pay("A1", 1250).TradeNo, payment.Success)
		s.trade(s.pay("A2", 700).TradeNo, payment.Success)
		if again := s.trade(p.TradeNo, payment.Success); again.PaidFen != 1250 || l.upgrades != 1 {
			t.Errorf("%+v after %d connections", again, l.upgrades)
		}
	})
}

func TestNoPaymentWaitsForAnothersResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		l.set(func() {
			l.on = func(m message) bool { pay, is := m.body.(*wire.Pay); return is && pay.OutTradeNo == "SLOW" || !is }
		})
		s.untilUp()
		slow := s.pay("SLOW", 100)
		for i := range 20 {
			s.trade(s.pay(fmt.Sprintf("A%d", i), 100).TradeNo, payment.Success)
		}
		if p, _ := s.book.ByTradeNo(slow.TradeNo); p.State != payment.Unknown {
			t.Errorf("slow is %s", p.State)
		}
	})
}

func TestManyOpenTradesStayWithinTheWindowAndALivePayGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		l.set(func() { l.on = func(m message) bool { return true } })
		s.untilUp()
		for i := range 100 {
			s.pay(fmt.Sprintf("A%d", i), 100)
		}
		time.Sleep(10 * time.Second) // all are being asked for; none is answered
		p := s.pay("LIVE", 100)
		began := time.Now()
		for {
			pay, m := next[wire.Pay](l)
			if pay.TradeNo == p.TradeNo {
				if m.at.Sub(began) > 0 {
					t.Errorf("the live pay waited for %v", m.at.Sub(began))
				}
				return
			}
		}
	})
}

func TestAnotherCodeAfterADeclineAtTheCounterIsTheNextAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		l.set(func() {
			l.on = func(m message) bool {
				pay, is := m.body.(*wire.Pay)
				if is && pay.Attempt == 1 {
					m.peer.say(0, m.id, wire.Outcome{TradeNo: pay.TradeNo, Attempt: 1, State: wire.StatePayError, Reason: "CODE_EXPIRED"})
					return true
				}
				return false
			}
		})
		s.untilUp()
		ctx := context.Background()
		p, _, err := s.book.OpenTrade(ctx, ledgercache.New{OutTradeNo: "C1", Mode: payment.AtCounter, TotalFen: 900, ExpiresAt: time.Now().Add(payment.CounterFor)})
		if err != nil {
			t.Fatal(err)
		}
		for attempt := 1; attempt <= 2; attempt++ {
			if _, err := s.book.SubmitCode(ctx, p.TradeNo, ledgercache.Code{Text: fmt.Sprintf("code %d", attempt), ScannedAt: time.Now()}); err != nil {
				t.Fatal(err)
			}
			if pay, _ := next[wire.Pay](l); pay.Attempt != attempt || pay.Repeat {
				t.Errorf("attempt %d sent as %+v", attempt, pay)
			}
			s.tradeThat(p.TradeNo, "answered", func(p payment.Payment) bool { return p.State != payment.Unknown })
		}
		s.trade(p.TradeNo, payment.Success)
	})
}

func TestASecondCodeWhosePayGotLostIsSentAgainThoughTheLedgerSpeaksOfTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		lost := false
		l.set(func() {
			l.on = func(m message) bool {
				switch b := m.body.(type) {
				case *wire.Pay:
					if b.Attempt == 2 && lost {
						return false
					}
					lost = b.Attempt == 2
					if b.Attempt == 1 {
						m.peer.say(0, m.id, wire.Outcome{TradeNo: b.TradeNo, Attempt: 1, State: wire.StatePayError, Reason: "CODE_EXPIRED"})
					}
					return true
				case *wire.Query:
					if _, known := l.trades[b.TradeNo]; !known {
						m.peer.say(0, m.id, wire.Outcome{TradeNo: b.TradeNo, Attempt: 1, State: wire.StatePayError, Reason: "CODE_EXPIRED"})
						return true
					}
				}
				return false
			}
		})
		s.untilUp()
		ctx := context.Background()
		p, _, err := s.book.OpenTrade(ctx, ledgercache.New{OutTradeNo: "C1", Mode: payment.AtCounter, TotalFen: 900, ExpiresAt: time.Now().Add(payment.CounterFor)})
		if err != nil {
			t.Fatal(err)
		}
		for attempt := 1; attempt <= 2; attempt++ {
			if _, err := s.book.SubmitCode(ctx, p.TradeNo, ledgercache.Code{Text: fmt.Sprintf("code %d", attempt), ScannedAt: time.Now()}); err != nil {
				t.Fatal(err)
			}
			next[wire.Pay](l)
			if attempt == 1 {
				s.trade(p.TradeNo, payment.NotPay)
			}
		}
		if pay, _ := next[wire.Pay](l); pay.Attempt != 2 || !pay.Repeat {
			t.Errorf("sent again as %+v", pay)
		}
		s.trade(p.TradeNo, payment.Success)
	})
}

func TestAnOrderIsAnnouncedThenAskedForAndItsPaymentComesAsNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		s.untilUp()
		p := s.order("O1", 500)
		o, _ := next[wire.Order](l)
		if o.TradeNo != p.TradeNo || o.TotalFen != 500 || o.ExpiresAt != wire.Millis(p.ExpiresAt.UnixMilli()) || o.Repeat {
			t.Errorf("announced %+v", o)
		}
		began := time.Now()
		_, m := next[wire.Query](l)
		if d := m.at.Sub(began).Round(time.Second); d != 5*time.Second {
			t.Errorf("asked after %v", d)
		}
		m.peer.say(0, 0, wire.Result{Sequence: 1, Outcome: paidOutcome(p.TradeNo, 500)})
		s.trade(p.TradeNo, payment.Success)
		if a, _ := next[wire.Ack](l); a.News != 1 {
			t.Errorf("acknowledged %d", a.News)
		}
	})
}

func TestANudgeAsksAtOnceButOnlyOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		s.untilUp()
		p := s.order("O1", 500)
		next[wire.Order](l)
		time.Sleep(2 * time.Second)
		for range 30 { // three seconds of a register that asks ten times a second
			s.up.Nudge(p.TradeNo)
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		asked := 0
		for len(l.heard) > 0 {
			if m := <-l.heard; wire.TypeOf(m.body) == wire.TypeQuery {
				asked++
			}
		}
		if asked < 2 || asked > 4 {
			t.Errorf("asked %d times in three seconds", asked)
		}
	})
}

func TestNudgesNeverPutAReversalOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		l.set(func() { l.on = func(m message) bool { return true } })
		s.untilUp()
		p := s.pay("A1", 1250)
		began := time.Now()
		ctx, stop := context.WithCancel(context.Background())
		var register sync.WaitGroup
		register.Go(func() {
			for ctx.Err() == nil {
				s.up.Nudge(p.TradeNo)
				time.Sleep(300 * time.Millisecond)
			}
		})
		defer func() { stop(); register.Wait() }()
		for range 3 {
			next[wire.Reverse](l)
		}
		if d := time.Since(began); d > 62*time.Second {
			t.Errorf("the third reversal came after %v", d)
		}
	})
}

func TestARefundIsRecordedThenSentAndRepeatedMarkedUntilItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		s.untilUp()
		p := s.trade(s.pay("A1", 1250).TradeNo, payment.Success)
		drop[wire.Refund](l)
		f, _, err := s.book.OpenRefund(context.Background(), ledgercache.NewRefund{OutRefundNo: "R1", TradeNo: p.TradeNo, RefundFen: 250})
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := next[wire.Refund](l); b.Repeat || b.RefundNo != f.RefundNo || b.RefundFen != 250 {
			t.Errorf("first %+v", b)
		}
		if b, _ := next[wire.Refund](l); !b.Repeat {
			t.Error("the second is not marked")
		}
		l.set(func() { l.on = nil })
		next[wire.Refund](l)
		s.tradeThat(p.TradeNo, "refunded", func(p payment.Payment) bool { return p.RefundedFen == 250 })
	})
}

func TestWhatTheLedgerRefusesIsSetAsideOnceAndBlocksNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		l.set(func() {
			l.on = func(m message) bool {
				pay, is := m.body.(*wire.Pay)
				if is && pay.OutTradeNo == "BAD" {
					m.peer.say(0, m.id, wire.Refused{Code: wire.RefusedIDReused, Detail: "other content"})
					return true
				}
				return false
			}
		})
		s.untilUp()
		bad := s.pay("BAD", 100)
		s.trade(s.pay("GOOD", 100).TradeNo, payment.Success)
		s.trade(bad.TradeNo, payment.Closed) // asked for, then reversed
		aside := s.up.SetAside()
		if len(aside) != 1 || aside[0].Code != wire.RefusedIDReused || aside[0].TradeNo != bad.TradeNo || aside[0].Op != payment.OpPay || aside[0].Attempt != 1 {
			t.Errorf("set aside %+v", aside)
		}
		pays := 0
		for len(l.heard) > 0 {
			if pay, is := (<-l.heard).body.(*wire.Pay); is && pay.TradeNo == bad.TradeNo {
				pays++
			}
		}
		if pays != 1 {
			t.Errorf("the refused pay was sent %d times", pays)
		}
	})
}

func TestABusyLedgerIsAskedAgainWhenItSaidSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		l.set(func() {
			l.on = func(m message) bool {
				_, is := m.body.(*wire.Pay)
				if is {
					m.peer.say(0, m.id, wire.Refused{Code: wire.RefusedBusy, RetryAfterMillis: 8000})
				}
				return is
			}
		})
		s.untilUp()
		s.pay("A1", 100)
		_, first := next[wire.Pay](l)
		_, again := next[wire.Query](l)
		if d := again.at.Sub(first.at); d < 8*time.Second || d > 9*time.Second {
			t.Errorf("came back after %v", d)
		}
		if len(s.up.SetAside()) != 0 {
			t.Error("a busy ledger is no refusal")
		}
	})
}

func TestAnImpossibleAnswerChangesNothingAndTheLineGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		l.set(func() {
			l.on = func(m message) bool {
				pay, is := m.body.(*wire.Pay)
				if is && pay.OutTradeNo == "ODD" {
					m.peer.say(0, m.id, paidOutcome(pay.TradeNo, pay.TotalFen+1))
					return true
				}
				return false
			}
		})
		s.untilUp()
		odd := s.pay("ODD", 100)
		s.trade(s.pay("GOOD", 100).TradeNo, payment.Success)
		synctest.Wait()
		if p, _ := s.book.ByTradeNo(odd.TradeNo); p.State != payment.Unknown {
			t.Errorf("odd is %s", p.State)
		}
		if alarms, err := s.book.Alarms(10); err != nil || len(alarms) != 1 {
			t.Errorf("alarms %v %v", alarms, err)
		}
	})
}

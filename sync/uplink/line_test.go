package uplink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"yupos/ledgercache"
	"yupos/ledgercache/payment"
	"yupos/sync/wire"
)

func TestTheHelloSaysWhoAndWhereTheBookStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		h, _ := next[wire.Hello](l)
		if h.TerminalID != "10000001" || h.MerchantID != "653000053310001" || h.Software != "test" || len(h.Epoch) != 26 || h.Sequence == 0 || len(h.Head) != 64 {
			t.Errorf("hello %+v", h)
		}
		s.untilUp()
	})
}

func TestTheLineIsDownUntilAHelloIsAnsweredAndSinceTellsWhenItChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, n := world(t, func(l *ledger) { l.refuse = &wire.Refused{Code: wire.RefusedBusy, RetryAfterMillis: 5000} })
		began := time.Now()
		if st := s.up.State(); st.Up || st.Reason != ReasonConnecting || st.TextZH == "" || st.TextEN == "" {
			t.Errorf("at first %+v", st)
		}
		if st := s.untilDown(ReasonBusy); st.Since != began {
			t.Errorf("busy since %v", st.Since.Sub(began))
		}
		l.set(func() { l.refuse = nil })
		s.untilUp()
		st := s.up.State()
		if d := st.Since.Sub(began); st.Reason != "" || d < 5*time.Second || d > 10*time.Second {
			t.Errorf("up %v after it was told to come back in 5 s: %+v", d, st)
		}
		n.cut(false)
		s.untilDown(ReasonClosed)
	})
}

func TestNewsAreAppliedInOrderAcknowledgedOnceDurableAndNotAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		s.untilUp()
		p := <-l.welcomed
		a, b := s.pay("A", 100), payment.Payment{}
		s.trade(a.TradeNo, payment.Success)
		b = s.order("B", 200)
		next[wire.Order](l)
		l.set(func() {
			l.news = []wire.Result{
				{Sequence: 1, Outcome: l.trades[a.TradeNo]},                          // nothing new
				{Sequence: 2, Outcome: paidOutcome(b.TradeNo, 200)},                  // paid
				{Sequence: 3, Outcome: paidOutcome(b.TradeNo, 999)},                  // contradicts it
				{Sequence: 4, Outcome: paidOutcome("01JD3Z5W8Q7XKQ4N6T1B9V2M0C", 1)}, // of nobody
				{Sequence: 5, Outcome: paidOutcome("no number at all", 1)},
			}
			for _, n := range l.news {
				p.say(0, 0, n)
			}
		})
		for acked := uint64(0); acked < 5; {
			ack, _ := next[wire.Ack](l)
			if durable, err := s.book.NewsCursor(); err != nil || ack.News <= acked || ack.News > durable {
				t.Fatalf("ack %d after %d, durable %d", ack.News, acked, durable)
			}
			acked = ack.News
		}
		s.trade(b.TradeNo, payment.Success)
		s.restart()
		if h, _ := next[wire.Hello](l); h.NewsCursor != 5 {
			t.Errorf("asked for news from %d on", h.NewsCursor)
		}
	})
}

func TestRepeatedNewsAreAcknowledgedAgainAndChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		s.untilUp()
		p := <-l.welcomed
		b := s.order("B", 200)
		next[wire.Order](l)
		r := wire.Result{Sequence: 1, Outcome: paidOutcome(b.TradeNo, 200)}
		for range 2 {
			p.say(0, 0, r)
			if ack, _ := next[wire.Ack](l); ack.News != 1 {
				t.Errorf("acknowledged %d", ack.News)
			}
		}
		if sequence, _ := s.book.NewsCursor(); sequence != 1 || l.upgrades != 1 {
			t.Errorf("cursor %d after %d connections", sequence, l.upgrades)
		}
	})
}

func TestAGapInTheNewsMakesTheTerminalAskAgainFromItsCursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		s.untilUp()
		p := <-l.welcomed
		next[wire.Hello](l)
		b := s.order("B", 200)
		next[wire.Order](l)
		l.set(func() {
			l.news = []wire.Result{{Sequence: 1, Outcome: wire.Outcome{TradeNo: b.TradeNo, State: wire.StateNotPay}}, {Sequence: 2, Outcome: paidOutcome(b.TradeNo, 200)}}
		})
		p.say(0, 0, l.news[1])
		s.untilDown(ReasonNewsGap)
		if h, _ := next[wire.Hello](l); h.NewsCursor != 0 {
			t.Errorf("asked from %d", h.NewsCursor)
		}
		for acked := uint64(0); acked < 2; {
			ack, _ := next[wire.Ack](l)
			acked = ack.News
		}
		s.trade(b.TradeNo, payment.Success)
	})
}

func TestNewsThatOvertookOthersWaitForThemAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		s.untilUp()
		p := <-l.welcomed
		b := s.order("B", 200)
		next[wire.Order](l)
		p.say(0, 0, wire.Result{Sequence: 3, Outcome: wire.Outcome{TradeNo: b.TradeNo, State: wire.StateUserPaying}})
		p.say(0, 0, wire.Result{Sequence: 2, Outcome: paidOutcome(b.TradeNo, 200)})
		time.Sleep(gapPatience / 2)
		p.say(0, 0, wire.Result{Sequence: 1, Outcome: wire.Outcome{TradeNo: b.TradeNo, State: wire.StateUserPaying}})
		for acked := uint64(0); acked < 3; {
			ack, _ := next[wire.Ack](l)
			acked = ack.News
		}
		time.Sleep(time.Minute)
		if s.trade(b.TradeNo, payment.Success); l.upgrades != 1 {
			t.Errorf("%d connections", l.upgrades)
		}
	})
}

func TestARefusedAnchorOfTheBookTakesTheLineDownAndAnOvertakenOneDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		var first message
		l.set(func() {
			l.on = func(m message) bool {
				_, is := m.body.(*wire.Anchor)
				if is && first.id == 0 {
					first = m
					return true
				}
				return false
			}
		})
		s.untilUp()
		next[wire.Anchor](l)
		_, second := next[wire.Anchor](l)
		second.peer.say(0, first.id, wire.Refused{Code: wire.RefusedRolledBack})
		synctest.Wait()
		s.trade(s.pay("A", 100).TradeNo, payment.Success)
		l.set(func() {
			l.on = func(m message) bool {
				_, is := m.body.(*wire.Anchor)
				if is {
					m.peer.say(0, m.id, wire.Refused{Code: wire.RefusedForked})
				}
				return is
			}
		})
		s.trade(s.pay("B", 100).TradeNo, payment.Success)
		s.untilDown(wire.RefusedForked)
	})
}

func TestAWatcherThatFellBehindReadsTheOpenWorkAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		book := openBook(t, t.TempDir(), nil)
		defer book.Close()
		s := &shop{t: t, book: book}
		talk := &talk{u: New(Options{Book: book}), log: slog.New(slog.DiscardHandler), plan: newSchedule(), post: make(chan func(), 1), gone: make(chan struct{}), watch: book.Watch()}
		p := s.pay("A", 100)
		talk.watch.Close()
		talk.changed(ledgercache.Change{}, false)
		if talk.changes != nil {
			t.Error("the closed channel is still looked at")
		}
		(<-talk.post)()
		defer talk.watch.Close()
		if talk.changes == nil || talk.plan.work[p.TradeNo] == nil || talk.err != nil {
			t.Errorf("after the new watch: %+v %v", talk.plan.work, talk.err)
		}
	})
}

func TestTheJournalIsAnchoredWhenItIsQuietAndOnlyIfItMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		s.untilUp()
		next[wire.Anchor](l)
		s.trade(s.pay("A", 100).TradeNo, payment.Success)
		paid := time.Now()
		a, m := next[wire.Anchor](l)
		if d := m.at.Sub(paid); d < time.Second || d > 1100*time.Millisecond {
			t.Errorf("anchored after %v", d)
		}
		time.Sleep(time.Hour)
		l.hearsNo(t, func(b any) bool { _, is := b.(*wire.Anchor); return is })
		if c, err := s.book.Cursor(); err != nil || c.Sequence != a.Sequence || c.Head != a.Head || s.book.Position().Sequence != a.Sequence+1 {
			t.Errorf("cursor %+v %v, position %+v", c, err, s.book.Position())
		}
	})
}

func TestABusyBookIsAnchoredEveryTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		s.untilUp()
		next[wire.Anchor](l)
		began := time.Now()
		for i := range 30 {
			s.trade(s.pay(fmt.Sprintf("A%d", i), 100).TradeNo, payment.Success)
			time.Sleep(500 * time.Millisecond)
		}
		if _, m := next[wire.Anchor](l); m.at.Sub(began) > 11*time.Second {
			t.Errorf("anchored after %v", m.at.Sub(began))
		}
	})
}

func TestATerminalThatIsNotWantedSaysSoAndRetriesSlowly(t *testing.T) {
	for _, code := range []string{wire.RefusedRevoked, wire.RefusedRolledBack, wire.RefusedForked, wire.RefusedNotYou} {
		t.Run(code, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, s, _ := world(t, func(l *ledger) { l.refuse = &wire.Refused{Code: code} })
				st := s.untilDown(code)
				if st.TextZH == "" || strings.Contains(st.TextEN, code) {
					t.Errorf("words %+v", st)
				}
				time.Sleep(5 * time.Minute)
				l.mu.Lock()
				defer l.mu.Unlock()
				if l.upgrades < 4 || l.upgrades > 12 {
					t.Errorf("%d tries in five minutes", l.upgrades)
				}
			})
		})
	}
}

func TestATerminalThatIsRevokedWhileUpGoesDownAndKeepsItsBook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		l.set(func() {
			l.on = func(m message) bool {
				_, is := m.body.(*wire.Pay)
				if is {
					l.refuse = &wire.Refused{Code: wire.RefusedRevoked}
					m.peer.say(0, m.id, l.refuse)
				}
				return is
			}
		})
		s.untilUp()
		p := s.pay("A", 100)
		s.untilDown(wire.RefusedRevoked)
		s.trade(p.TradeNo, payment.Unknown)
	})
}

func TestALedgerThatForgotItsNewsIsNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, n := world(t)
		s.untilUp()
		b := s.order("B", 200)
		next[wire.Order](l)
		(<-l.welcomed).say(0, 0, wire.Result{Sequence: 1, Outcome: paidOutcome(b.TradeNo, 200)})
		next[wire.Ack](l)
		n.cut(false)
		s.untilDown(ReasonBehind)
	})
}

func TestALedgerThatForgotWhatItAcknowledgedIsNotBelieved(t *testing.T) {
	for name, c := range map[string]struct {
		change func(held *wire.Welcome)
		reason string
	}{
		"it holds a longer book":           {func(w *wire.Welcome) { w.AckedSequence = 1 << 40 }, wire.RefusedRolledBack},
		"it holds another head":            {func(w *wire.Welcome) { w.AckedHead = strings.Repeat("0", 64) }, wire.RefusedForked},
		"it does not say which head":       {func(w *wire.Welcome) { w.AckedHead = "" }, wire.RefusedForked},
		"it has lost what it had anchored": {func(w *wire.Welcome) { w.AckedSequence-- }, ReasonBehind},
		"it has lost the whole book":       {func(w *wire.Welcome) { w.AckedSequence, w.AckedHead = 0, "" }, ReasonBehind},
		"it speaks a version of its own":   {func(w *wire.Welcome) { w.Version = 99 }, wire.RefusedVersion},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, s, n := world(t)
				s.untilUp()
				s.trade(s.pay("A", 100).TradeNo, payment.Success)
				next[wire.Anchor](l)
				s.anchored()
				l.set(func() { c.change(&l.welcome) })
				n.cut(false)
				s.untilDown(c.reason)
			})
		})
	}
}

func TestASilentPeerIsFoundWithinTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s, _ := world(t, func(l *ledger) { l.silent = true })
		s.untilUp()
		began := time.Now()
		s.untilDown(ReasonNoPong)
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("found after %v", d)
		}
	})
}

func TestAPeerThatTakesNothingIsFoundWithinTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		l, s, _ := world(t)
		defer close(stuck)
		l.set(func() {
			l.on = func(message) bool { <-stuck; return true } // never reads again
		})
		s.untilUp()
		began := time.Now()
		s.pay("A", 100)
		s.untilDown(ReasonNoPong)
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("found after %v", d)
		}
	})
}

func TestAQuietLineStaysUpByItsPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		s.untilUp()
		time.Sleep(20 * time.Minute)
		if st := s.up.State(); !st.Up || l.upgrades != 1 {
			t.Errorf("%+v after %d connections", st, l.upgrades)
		}
	})
}

func TestFramesThatBreakTheProtocolEndTheConnectionAndTheLineRecovers(t *testing.T) {
	outcome, err := wire.Encode(0, 0, wire.Outcome{TradeNo: "X", State: wire.StateSuccess})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		kind int
		data string
	}{
		"too long":                        {websocket.TextMessage, `{"type":"refused","body":{"code":"` + strings.Repeat("x", wire.MaxFrame) + `"}}`},
		"half a frame":                    {websocket.TextMessage, `{"type":"refu`},
		"not JSON":                        {websocket.TextMessage, "hello"},
		"binary":                          {websocket.BinaryMessage, string(outcome)},
		"a message of the terminal's own": {websocket.TextMessage, `{"type":"pay","id":1,"body":{"trade_no":"X"}}`},
		"a second welcome":                {websocket.TextMessage, `{"type":"welcome","re":1,"body":{"version":1}}`},
		"news without a number":           {websocket.TextMessage, `{"type":"result","body":{"sequence":0,"outcome":{}}}`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, s, _ := world(t)
				s.untilUp()
				(<-l.welcomed).raw(c.kind, []byte(c.data))
				s.untilDown(ReasonProtocol)
				s.untilUp()
				s.trade(s.pay("A", 100).TradeNo, payment.Success)
			})
		})
	}
}

func TestAnAnswerAboutAnotherTradeEndsTheConnectionAndIsNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		other := ""
		l.set(func() {
			l.on = func(m message) bool {
				pay, is := m.body.(*wire.Pay)
				if is && pay.OutTradeNo == "B" {
					m.peer.say(0, m.id, paidOutcome(other, 100))
				}
				return is
			}
		})
		s.untilUp()
		a := s.pay("A", 100)
		l.set(func() { other = a.TradeNo })
		next[wire.Pay](l)
		s.pay("B", 100)
		s.untilDown(ReasonProtocol)
		s.trade(a.TradeNo, payment.Unknown)
	})
}

func TestFramesThatAreOnlyStrangeAreIgnoredOrRefusedByName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		s.untilUp()
		p := <-l.welcomed
		for _, text := range []string{
			`{"type":"jubilee","body":{}}`,
			`{"type":"policy","id":77,"body":{}}`,
			`{"type":"outcome","re":4000,"body":{"trade_no":"X","state":"SUCCESS"}}`,
			`{"type":"refused","re":4000,"body":{"code":"MALFORMED"}}`,
			`{"type":"anchored","re":4000,"body":{"epoch":"X","sequence":1,"head":""}}`,
			`{"type":"refund_outcome","re":4000,"body":{"refund_no":"X","state":"SUCCESS"}}`,
		} {
			p.raw(websocket.TextMessage, []byte(text))
		}
		if no, _ := next[wire.Refused](l); no.Code != wire.RefusedUnknownType || no.Detail != "policy" {
			t.Errorf("answered %+v", no)
		}
		s.trade(s.pay("A", 100).TradeNo, payment.Success)
		if l.upgrades != 1 {
			t.Errorf("%d connections", l.upgrades)
		}
	})
}

func TestReconnectionIsWithinASecondThenAtMostFiveApartThenSpreadOverAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s, n := world(t)
		s.untilUp()
		time.Sleep(time.Minute)
		n.cut(true)
		s.until("down", func(st State) bool { return !st.Up })
		down := time.Now()
		var tries []time.Duration
		n.mu.Lock()
		n.tried = func() { tries = append(tries, time.Since(down)) }
		n.mu.Unlock()
		time.Sleep(20 * time.Minute)
		n.mu.Lock()
		defer n.mu.Unlock()
		if tries[0] > time.Second {
			t.Errorf("first retry after %v", tries[0])
		}
		long := 0
		for i := range tries[1:] {
			apart := tries[i+1] - tries[i]
			switch {
			case tries[i] < shortOutage-5*time.Second && apart > 5*time.Second, apart > time.Minute+time.Second:
				t.Errorf("tries %v and %v", tries[i], tries[i+1])
			case tries[i] > shortOutage:
				long++
			}
		}
		if long < 18 || long > 80 {
			t.Errorf("%d tries in eighteen minutes of a long outage", long)
		}
	})
}

func TestALineThatFlapsLosesNothingAndPaysOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, n := world(t)
		taken := map[string]int{}
		l.set(func() {
			l.on = func(m message) bool {
				if pay, is := m.body.(*wire.Pay); is {
					if _, known := l.trades[pay.TradeNo]; !known {
						taken[pay.TradeNo]++
					}
				}
				return false
			}
		})
		var paid []payment.Payment
		for i := range 15 {
			s.untilUp()
			paid = append(paid, s.pay(fmt.Sprintf("A%d", i), 100))
			if i%3 == 0 {
				synctest.Wait()
			}
			n.cut(i%2 == 0)
			time.Sleep(700 * time.Millisecond)
			n.cut(false)
		}
		for _, p := range paid {
			s.trade(p.TradeNo, payment.Success)
			times := 0
			l.set(func() { times = taken[p.TradeNo] }) // the ledger writes it under its lock
			if times != 1 {
				t.Errorf("%s was taken %d times", p.OutTradeNo, times)
			}
		}
	})
}

func TestFlushWaitsForTheAnswerInFlightAndStartsNothingNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		l.set(func() {
			l.on = func(m message) bool {
				pay, is := m.body.(*wire.Pay)
				if is {
					time.AfterFunc(2*time.Second, func() { m.peer.say(0, m.id, paidOutcome(pay.TradeNo, pay.TotalFen)) })
				}
				return is
			}
		})
		s.untilUp()
		p := s.pay("A", 100)
		next[wire.Pay](l)
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		s.up.Flush(ctx)
		if d := time.Since(began); d < 2*time.Second || d > 3*time.Second {
			t.Errorf("flushed in %v", d)
		}
		if now, _ := s.book.ByTradeNo(p.TradeNo); now.State != payment.Success {
			t.Errorf("after the flush it is %s", now.State)
		}
		s.pay("B", 100)
		time.Sleep(time.Minute)
		l.hearsNo(t, func(b any) bool { _, is := b.(*wire.Pay); return is })
	})
}

func TestFlushReturnsAtOnceWhileTheLineIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s, n := world(t)
		s.untilUp()
		n.cut(true)
		s.until("down", func(st State) bool { return !st.Up })
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		s.up.Flush(ctx)
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("flushed in %v", d)
		}
	})
}

func TestAClockThatDiffersFromTheLedgersIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s, _ := world(t, func(l *ledger) { l.welcome.Time = wire.Millis(time.Now().Add(-90 * time.Second).UnixMilli()) })
		s.untilUp()
		if skew := s.up.Skew().Round(time.Second); skew != 90*time.Second {
			t.Errorf("skew %v", skew)
		}
	})
}

func TestAClockThatIsSetBackDelaysNoQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		drop[wire.Pay](l)
		s.untilUp()
		began := time.Now()
		p := s.pay("A", 100)
		next[wire.Pay](l)
		l.set(func() { l.trades[p.TradeNo] = paidOutcome(p.TradeNo, 100) })
		s.skew.Store(-int64(time.Hour))
		s.trade(p.TradeNo, payment.Success)
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("asked after %v", d)
		}
	})
}

func TestWithoutAddressOrCertificateRunSaysSo(t *testing.T) {
	book := openBook(t, t.TempDir(), nil)
	defer book.Close()
	if err := New(Options{Book: book}).Run(t.Context()); !errors.Is(err, ErrNoAddress) {
		t.Error(err)
	}
	if err := New(Options{Book: book, URLs: []string{"wss://localhost"}}).Run(t.Context()); !errors.Is(err, ErrNoTLS) {
		t.Error(err)
	}
}

func overTLS(config *tls.Config, urls ...string) func(*Options) {
	return func(o *Options) { o.Dialer, o.TLS, o.URLs = nil, config, urls }
}

func TestOverRealTLSASaleIsPaidAndSeveralAddressesAreTriedInTurn(t *testing.T) {
	ca := newAuthority(t)
	l := newLedger(t)
	idle, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := "wss://" + idle.Addr().String() + wire.Path
	idle.Close()
	s := newShop(t, nil, overTLS(ca.client(), gone, ca.serve(l)))
	s.untilUp()
	s.trade(s.pay("A", 1250).TradeNo, payment.Success)
}

func TestOverRealTLSEachFaultHasItsReason(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	plain := func(h http.HandlerFunc) http.Handler { return h }
	l := newLedger(t)
	noProto := newLedger(t)
	noProto.noProto = true
	var tries atomic.Int32
	for name, c := range map[string]struct {
		client *tls.Config
		url    string
		reason string
	}{
		"a ledger of another CA":            {other.client(), ca.serve(l, func(c *tls.Config) { c.ClientCAs = other.pool() }), ReasonTLS},
		"a terminal of another CA":          {&tls.Config{RootCAs: ca.pool(), Certificates: other.client().Certificates}, ca.serve(l), ReasonTLS},
		"a terminal without a certificate":  {&tls.Config{RootCAs: ca.pool()}, ca.serve(l), ReasonTLS},
		"a ledger that speaks only TLS 1.2": {ca.client(), ca.serve(l, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }), ReasonTLS},
		"no subprotocol":                    {ca.client(), ca.serve(noProto), ReasonSubprotocol},
		"no ledger at all":                  {ca.client(), ca.serve(plain(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })), ReasonHandshake},
		"a ledger that is full": {ca.client(), ca.serve(plain(func(w http.ResponseWriter, _ *http.Request) {
			tries.Add(1)
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusServiceUnavailable)
		})), ReasonBusy},
		"nobody there":  {ca.client(), "wss://127.0.0.1:1" + wire.Path, ReasonRefused},
		"no such name":  {ca.client(), "wss://ledger.invalid" + wire.Path, ReasonNoAddress},
		"no wss at all": {ca.client(), "http://127.0.0.1:1", ReasonUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, nil, overTLS(c.client, c.url))
			s.until("tried", func(st State) bool { return st.Reason != ReasonConnecting })
			if st := s.up.State(); st.Up || st.Reason != c.reason || st.TextZH == "" {
				t.Errorf("%+v", st)
			}
		})
	}
	if tries.Load() > 1 {
		t.Errorf("a full ledger was asked %d times", tries.Load())
	}
}

// anchored waits until the book knows that the ledger holds a head of it.
func (s *shop) anchored() ledgercache.Cursor {
	s.t.Helper()
	w := s.book.Watch()
	defer w.Close()
	limit := time.After(patience)
	for {
		if c, err := s.book.Cursor(); err != nil || c.Sequence > 0 {
			return c
		}
		select {
		case <-w.C:
		case <-limit:
			s.t.Fatal("the book never was anchored")
		}
	}
}

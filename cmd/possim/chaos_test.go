package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"yupos/ledgercache"
	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
	"yupos/simulators/ledgersim"
	"yupos/sync/wire"
)

// This file is the whole line under everything that can happen to it at once: the real book and uplink of a terminal, the
// real ledger over TLS, and between them a network that cuts, delays, repeats, reorders over connections and stands half
// open, while both ends start again.

// restartLedger ends the ledger and opens it anew on its store and its address.
func (b *backlog) restartLedger() {
	b.t.Helper()
	addr := b.ledger.Addr()
	b.stopLedger()
	var err error
	for range 100 {
		b.ledger, err = ledgersim.Open(ledgersim.Options{Dir: filepath.Join(b.dir, "ledger"), Listen: addr, Seed: 1})
		if err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond) // the kernel lets go of the port
	}
	must(b.t, err)
	b.runLedger()
}

// restartBook closes the book and opens it as a new process would.
func (b *backlog) restartBook() {
	b.t.Helper()
	must(b.t, b.book.Close())
	b.openBook()
}

// storm is what happens during a test.
type storm struct {
	*backlog
	dice   *rand.Rand
	n      int
	trades []string // out_trade_no
	stop   func()   // of the line
}

func (s *storm) number() string {
	s.n++
	no := fmt.Sprintf("C%05d", s.n)
	s.trades = append(s.trades, no)
	return no
}

// sell opens a trade: by a customer's code online, by a shown order that the customer may pay, or offline on evidence.
func (s *storm) sell() {
	s.t.Helper()
	phone := fmt.Sprintf("1380000000%d", 1+s.dice.IntN(4))
	switch roll := s.dice.IntN(10); {
	case roll < 6:
		var code struct{ Text string }
		s.call("POST", "/_sim/wallets/"+phone+"/code", `{"kind":"ONLINE"}`, &code)
		no := s.number()
		p, _, err := s.book.OpenTrade(context.Background(), ledgercache.New{
			OutTradeNo: no, Mode: payment.ByCode, TotalFen: money.Fen(1 + s.dice.IntN(500)), BodyHash: []byte(no),
			Code: &ledgercache.Code{Text: code.Text, ScannedAt: time.Now()},
		})
		must(s.t, err)
		if s.dice.IntN(6) == 0 {
			_, err := s.book.Cancel(context.Background(), p.TradeNo, "op")
			if now, _ := s.book.ByTradeNo(p.TradeNo); err != nil && !now.State.Final() {
				s.t.Fatal(err)
			}
		}
	default:
		s.n++
		must(s.t, s.one(s.n))
		s.trades = append(s.trades, fmt.Sprintf("D%08d", s.n))
	}
}

var stormOps = []string{"pay", "query", "reverse", "refund", "upload"}

// strike lets one thing go wrong.
func (s *storm) strike() {
	s.t.Helper()
	yes, no, half := true, false, 0.5
	fault := func(action string) {
		for _, op := range stormOps {
			_, err := s.ledger.AddFault(ledgersim.Fault{Op: op, Action: action, Times: 1 + s.dice.IntN(2), LatencyMS: s.dice.IntN(4000)})
			must(s.t, err)
		}
	}
	switch s.dice.IntN(12) {
	case 0:
		fault("cut_reply")
	case 1:
		fault("drop_request")
	case 2:
		fault("drop_reply")
	case 3:
		fault("duplicate")
	case 4:
		fault("delay")
	case 5:
		fault("error")
	case 6:
		s.ledger.SetLink(ledgersim.Link{HalfOpen: &yes})
		time.AfterFunc(time.Duration(s.dice.IntN(1500))*time.Millisecond, func() { s.ledger.SetLink(ledgersim.Link{HalfOpen: &no}) })
	case 7:
		s.ledger.SetLink(ledgersim.Link{Up: &no})
		s.ledger.SetLink(ledgersim.Link{Up: &yes})
	case 8:
		s.ledger.SetLink(ledgersim.Link{Loss: &half, CutAfter: &half, Reorder: &half, Duplicate: &half})
	case 9:
		s.calm()
	case 10:
		s.calm()
		s.restartLedger()
	case 11:
		s.stop()
		s.restartBook()
		_, s.stop = s.line()
	}
}

func (s *storm) calm() {
	yes, no, never, at := true, false, 0.0, 0
	s.ledger.ClearFaults()
	s.ledger.SetLink(ledgersim.Link{Up: &yes, HalfOpen: &no, Loss: &never, CutAfter: &never, Reorder: &never, Duplicate: &never, LatencyMS: &at})
}

func TestInAStormEveryPaymentHasExactlyOneEffectAndBothSidesAgreeToTheFen(t *testing.T) {
	seeds := 1
	if full() {
		seeds = 20
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { stormOf(t, uint64(seed)) })
	}
}

func stormOf(t *testing.T, seed uint64) {
	t.Logf("seed %d", seed)
	s := &storm{backlog: newBacklog(t), dice: rand.New(rand.NewPCG(seed, 3))}
	s.learn()
	_, s.stop = s.line()
	for range 60 {
		for range s.dice.IntN(5) {
			s.sell()
		}
		s.strike()
		time.Sleep(time.Duration(s.dice.IntN(150)) * time.Millisecond)
	}
	s.calm()
	defer func() { s.stop() }()
	s.settled()
	s.agree()
}

// settled waits until nothing is open.
func (s *storm) settled() {
	s.t.Helper()
	w := s.book.Watch()
	defer w.Close()
	limit := time.After(2 * time.Minute)
	for {
		q, err := s.book.Queue()
		must(s.t, err)
		if q.Count == 0 {
			return
		}
		select {
		case <-w.C:
		case <-time.After(200 * time.Millisecond): // the watcher may have fallen behind
		case <-limit:
			s.t.Fatalf("%d trades never ended", q.Count)
		}
	}
}

// agree compares both books trade by trade, to the fen.
func (s *storm) agree() {
	s.t.Helper()
	a, err := s.ledger.Assert()
	if err != nil || !a.OK {
		s.t.Fatalf("%v %v", err, a.Violations)
	}
	list, err := s.ledger.Trades("10000001")
	must(s.t, err)
	held := map[string]ledgersim.Trade{}
	for _, v := range list {
		if _, twice := held[v.TradeNo]; twice {
			s.t.Errorf("the ledger has %s twice", v.TradeNo)
		}
		held[v.TradeNo] = v
	}
	states := map[payment.State]int{}
	for _, no := range s.trades {
		p, err := s.book.Trade(no)
		must(s.t, err)
		states[p.State]++
		v, known := held[p.TradeNo]
		paidHere, paidThere := p.State == payment.Success, known && v.State == wire.StateSuccess
		if paidHere != paidThere || paidHere && (v.PaidFen == nil || p.PaidFen != *v.PaidFen || p.TotalFen != v.TotalFen) {
			s.t.Errorf("%s: here %s %d, there %+v", no, p.State, p.PaidFen, v)
		}
		delete(held, p.TradeNo)
	}
	for _, v := range held {
		s.t.Errorf("the ledger has %s, which the book has not", v.TradeNo)
	}
	alarms, err := s.book.Alarms(5)
	if err != nil || len(alarms) > 0 {
		s.t.Errorf("alarms %+v, %v", alarms, err)
	}
	s.t.Logf("%d trades: %v", len(s.trades), states)
	if states[payment.Success] == 0 {
		s.t.Error("nothing was paid at all")
	}
}

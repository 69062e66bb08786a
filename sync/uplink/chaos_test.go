package uplink

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"yupos/ledgercache/payment"
	"yupos/sync/wire"
)

// chaos is a bad network in front of the friendly ledger: requests and answers get lost, come twice, come late, and
// connections break. It also keeps the ledger's own account of what the terminal did.
type chaos struct {
	l       *ledger
	dice    *rand.Rand
	calm    bool
	debits  map[string]int    // how often money was taken, by trade
	opened  map[string]int    // the life of the terminal in which a trade was opened
	life    int               // how often the terminal was started
	faults  []string          // what the terminal must never do
	anchors map[string]uint64 // last anchored sequence, by epoch
}

func (c *chaos) on(m message) bool {
	c.judge(m)
	if c.calm {
		return false
	}
	switch roll := c.dice.IntN(100); {
	case roll < 12: // lost on its way
		return true
	case roll < 16:
		go m.peer.ws.Close()
		return true
	case roll < 20: // it arrived, and then the connection broke
		via := *m.peer
		via.by = func(func()) { go m.peer.ws.Close() }
		m.peer = &via
	default:
		via := *m.peer
		via.by = c.deliver
		m.peer = &via
	}
	c.process(m)
	if c.dice.IntN(10) == 0 { // it came twice
		c.process(m)
	}
	return true
}

// deliver is the way of an answer.
func (c *chaos) deliver(send func()) {
	switch roll := c.dice.IntN(100); {
	case roll < 15:
	case roll < 30:
		time.AfterFunc(time.Duration(c.dice.IntN(12_000))*time.Millisecond, send)
	case roll < 40:
		send()
		send()
	default:
		send()
	}
}

func (c *chaos) process(m message) {
	if pay, is := m.body.(*wire.Pay); is {
		if _, known := c.l.trades[pay.TradeNo]; !known {
			c.debits[pay.TradeNo]++
		}
	}
	c.l.friendly(m)
}

// judge looks for what must never happen.
func (c *chaos) judge(m message) {
	switch b := m.body.(type) {
	case *wire.Pay:
		if time.Now().UnixMilli() > int64(b.NotAfter) {
			c.faults = append(c.faults, "a pay after its time: "+b.OutTradeNo)
		}
		if c.opened[b.TradeNo] != c.life {
			c.faults = append(c.faults, "a pay after a restart: "+b.OutTradeNo)
		}
	case *wire.Anchor:
		if b.Sequence < c.anchors[b.Epoch] {
			c.faults = append(c.faults, fmt.Sprintf("an anchor at %d after %d", b.Sequence, c.anchors[b.Epoch]))
		}
		c.anchors[b.Epoch] = b.Sequence
	}
}

func TestInABadWorldEveryTradeEndsAsTheLedgerHoldsItAndIsPaidAtMostOnce(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { badWorld(t, seed) })
		})
	}
}

func badWorld(t *testing.T, seed uint64) {
	l, s, n := world(t, func(l *ledger) { l.heard = make(chan message, 1<<16) })
	dice := rand.New(rand.NewPCG(seed, 7))
	c := &chaos{l: l, dice: rand.New(rand.NewPCG(seed, 8)), debits: map[string]int{}, opened: map[string]int{}, anchors: map[string]uint64{}}
	l.set(func() { l.on = c.on })
	var trades []payment.Payment
	for i := range 60 {
		var p payment.Payment
		l.set(func() { // no pay is judged before its trade is known
			if dice.IntN(5) == 0 {
				p = s.order(fmt.Sprintf("O%d", i), 300)
			} else {
				p = s.pay(fmt.Sprintf("P%d", i), 100)
			}
			c.opened[p.TradeNo] = c.life
		})
		trades = append(trades, p)
		if p.Mode == payment.ByOrder { // one has the display: it is cancelled before the next
			time.Sleep(time.Duration(dice.IntN(9000)) * time.Millisecond)
		}
		if p.Mode == payment.ByOrder || dice.IntN(6) == 0 {
			if now, _ := s.book.ByTradeNo(p.TradeNo); now.State != payment.Success {
				if _, err := s.book.Cancel(context.Background(), p.TradeNo, "01"); err != nil && now.State.Final() {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(time.Duration(dice.IntN(4000)) * time.Millisecond)
		switch dice.IntN(12) {
		case 0:
			n.cut(true)
			time.Sleep(time.Duration(dice.IntN(30_000)) * time.Millisecond)
			n.cut(false)
		case 1:
			s.stop()
			l.set(func() { c.life++ })
			s.start()
		}
	}
	l.set(func() { c.calm = true })
	for _, p := range trades {
		end := s.tradeThat(p.TradeNo, "final", func(p payment.Payment) bool { return p.State.Final() })
		l.mu.Lock()
		held := l.trades[p.TradeNo]
		if string(end.State) != held.State || c.debits[p.TradeNo] > 1 {
			t.Errorf("%s: the book says %s, the ledger %s, taken %d times", p.OutTradeNo, end.State, held.State, c.debits[p.TradeNo])
		}
		l.mu.Unlock()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range c.faults {
		t.Error(f)
	}
	if alarms, err := s.book.Alarms(1); err != nil || len(alarms) > 0 {
		t.Errorf("alarms %+v %v", alarms, err)
	}
}

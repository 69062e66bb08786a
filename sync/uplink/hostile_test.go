package uplink

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"yupos/ledgercache/payment"
	"yupos/ledgercache/trust"
	"yupos/sync/wire"
)

// This file is the ledger as an enemy: whatever it sends, the terminal does not panic, does not grow, believes nothing
// that it should not, says by name what is wrong, and pays again as soon as the ledger behaves.

// frameHead is the head of an unmasked websocket frame.
func frameHead(fin bool, opcode byte, length uint64) []byte {
	if fin {
		opcode |= 0x80
	}
	switch {
	case length < 126:
		return []byte{opcode, byte(length)}
	case length <= 0xffff:
		return binary.BigEndian.AppendUint16([]byte{opcode, 126}, uint16(length))
	}
	return binary.BigEndian.AppendUint64([]byte{opcode, 127}, length)
}

func TestBytesThatAreNoWebsocketEndTheConnectionByName(t *testing.T) {
	for name, c := range map[string]struct {
		attack func(conn net.Conn)
		reason string
	}{
		"a message that never ends": {func(c net.Conn) {
			_, err := c.Write(frameHead(false, websocket.TextMessage, 1))
			for err == nil {
				_, err = c.Write(append([]byte("x"), frameHead(false, 0, 1)...))
			}
		}, ReasonProtocol},
		"a frame of a terabyte": {func(c net.Conn) { _, _ = c.Write(frameHead(true, websocket.TextMessage, 1<<40)) }, ReasonProtocol},
		"a frame whose bytes come one a second": {func(c net.Conn) {
			_, err := c.Write(frameHead(true, websocket.TextMessage, 1000))
			for err == nil {
				time.Sleep(time.Second)
				_, err = c.Write([]byte("x"))
			}
		}, ReasonNoPong},
		"half a head, so that the pong after it is nonsense": {func(c net.Conn) { _, _ = c.Write([]byte{0x81}) }, ReasonProtocol},
		"a reserved kind of frame":                           {func(c net.Conn) { _, _ = c.Write([]byte{0x83, 0}) }, ReasonProtocol},
		"a compressed frame unasked":                         {func(c net.Conn) { _, _ = c.Write([]byte{0xc1, 0}) }, ReasonProtocol},
		"a masked frame":                                     {func(c net.Conn) { _, _ = c.Write([]byte{0x81, 0x80, 1, 2, 3, 4}) }, ReasonProtocol},
		"a continuation of nothing":                          {func(c net.Conn) { _, _ = c.Write([]byte{0x80, 0}) }, ReasonProtocol},
		"a ping that is too long": {func(c net.Conn) {
			_, _ = c.Write(append(frameHead(true, websocket.PingMessage, 126), make([]byte, 126)...))
		}, ReasonProtocol},
		"a goodbye that asks to come later": {func(c net.Conn) { _, _ = c.Write([]byte{0x88, 2, 0x03, 0xf5}) }, ReasonBusy},
		"bytes of something else":           {func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 500 no\r\n\r\n")) }, ReasonProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, s, _ := world(t)
				s.untilUp()
				p := <-l.welcomed
				began := time.Now()
				go c.attack(p.ws.NetConn())
				s.untilDown(c.reason)
				if d := time.Since(began); d > 10*time.Second {
					t.Errorf("noticed after %v", d)
				}
				s.untilUp()
				s.trade(s.pay("A", 100).TradeNo, payment.Success)
			})
		})
	}
}

func TestFramesOfNonsenseEndTheConnectionByName(t *testing.T) {
	for name, text := range map[string]string{
		"an array":                        `[]`,
		"a frame without a type":          `{"id":1,"body":{}}`,
		"a body that is no object":        `{"type":"outcome","re":2,"body":7}`,
		"a number that is no number":      `{"type":"outcome","re":"two","body":{}}`,
		"money with a fraction":           `{"type":"outcome","re":2,"body":{"trade_no":"X","state":"SUCCESS","total_fen":1.5}}`,
		"money beyond what there is":      `{"type":"outcome","re":2,"body":{"trade_no":"X","state":"SUCCESS","paid_fen":99999999999999999999}}`,
		"thirty thousand arrays in a row": `{"type":"news","body":{"topic":` + strings.Repeat("[", 30000) + `}}`,
		"an upload of its own":            `{"type":"upload","id":3,"body":{"items":[]}}`,
		"a hello of its own":              `{"type":"hello","id":1,"body":{"terminal_id":"10000001"}}`,
		"a part beyond all parts":         `{"type":"news","body":{"topic":"deny","version":1,"part":3,"parts":2,"envelope":{}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, s, _ := world(t)
				s.untilUp()
				(<-l.welcomed).raw(websocket.TextMessage, []byte(text))
				s.untilDown(ReasonProtocol)
				s.untilUp()
				s.trade(s.pay("A", 100).TradeNo, payment.Success)
			})
		})
	}
}

// TestAFloodIsHeldBackAndThePaymentsGoOn: the ledger sends as much as the line takes, of every kind that asks for work.
func TestAFloodIsHeldBackAndThePaymentsGoOn(t *testing.T) {
	const flood = 5000
	for name, frame := range map[string]func(s *shop, n int) any{
		"news that are known already": func(s *shop, _ int) any {
			return wire.Result{Sequence: 1, Outcome: wire.Outcome{TradeNo: "X", State: wire.StateClosed}}
		},
		"results of trades that nobody knows": func(s *shop, n int) any {
			return wire.Result{Sequence: uint64(n) + 1, Outcome: wire.Outcome{TradeNo: "01JD3Z5W8Q7XKQ4N6T1B9V2M0C", State: wire.StateClosed}}
		},
		"signed news of nobody": func(s *shop, n int) any { return rulesBy(s.t, uint32(n)+1, s.now(), strangerKey) },
		"signed news of old":    func(s *shop, _ int) any { return rules(s.t, 1, s.now()) },
		"answers to nothing":    func(_ *shop, n int) any { return wire.Outcome{TradeNo: "X", State: wire.StateSuccess} },
		"refusals of nothing":   func(_ *shop, n int) any { return wire.Refused{Code: "MALFORMED", Detail: strings.Repeat("x", 256)} },
		"announcements of rests": func(_ *shop, n int) any {
			return wire.Maintenance{StartsAt: 1, RetryAfterMillis: 1, TextZH: strings.Repeat("停", 5000)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, s, _ := world(t, func(l *ledger) { l.welcome.Version = 2; l.heard = make(chan message, 1<<16) })
				s.untilUp()
				p := <-l.welcomed
				runtime.GC()
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				for n := range flood {
					re := uint64(0)
					if _, is := frame(s, 0).(wire.Outcome); is {
						re = uint64(n) + 1_000_000
					}
					p.say(0, re, frame(s, n))
				}
				s.trade(s.pay("A", 100).TradeNo, payment.Success)
				runtime.GC()
				runtime.ReadMemStats(&after)
				if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 24<<20 {
					t.Errorf("the heap grew by %d KiB", grown>>10)
				}
				if len(s.up.SetAside()) > maxAside {
					t.Errorf("%d messages are kept aside", len(s.up.SetAside()))
				}
			})
		})
	}
}

var strangerKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))

func TestSignedNewsOfAWrongKeyRoleOrTopicChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t, func(l *ledger) { l.welcome.Version = 2 })
		p := <-l.welcomed
		p.say(0, 0, rules(t, 4, s.now()))
		s.has(trust.Rules, 4)
		good := rules(t, 9, s.now())
		for name, n := range map[string]wire.News{
			"of a key that nobody pinned":    rulesBy(t, 9, s.now(), strangerKey),
			"of a key in another role":       rulesBy(t, 9, s.now(), rootKey),
			"of another topic":               {Topic: wire.TopicDeny, Version: 9, Part: 1, Parts: 1, Envelope: good.Envelope},
			"of a topic that nobody has":     {Topic: "weather", Version: 9, Part: 1, Parts: 1, Envelope: good.Envelope},
			"of signed time, unasked":        {Topic: wire.TopicTime, Version: 9, Part: 1, Parts: 1, Envelope: good.Envelope},
			"without a signature":            {Topic: wire.TopicPolicy, Version: 9, Part: 1, Parts: 1, Envelope: wire.Envelope{KeyID: good.Envelope.KeyID, Payload: good.Envelope.Payload}},
			"without a payload":              {Topic: wire.TopicPolicy, Version: 9, Part: 1, Parts: 1, Envelope: wire.Envelope{KeyID: good.Envelope.KeyID, Sig: good.Envelope.Sig}},
			"of what was there before":       rules(t, 3, s.now()),
			"of the same version, otherwise": rules(t, 4, s.now().Add(time.Second)),
		} {
			p.say(0, 0, n)
			s.trade(s.pay(name, 100).TradeNo, payment.Success)
			marks, err := s.book.Marks()
			if err != nil || marks[trust.Rules].Version != 4 || len(marks) != 1 {
				t.Errorf("%s: %v %v", name, marks, err)
			}
		}
		if st := s.up.State(); !st.Up || l.upgrades != 1 {
			t.Errorf("%+v after %d connections", st, l.upgrades)
		}
	})
}

func TestAnAnchorThatWasNotAskedForIsNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		l.set(func() {
			l.on = func(m message) bool {
				a, is := m.body.(*wire.Anchor)
				if is { // beyond the end, and for another book
					m.peer.say(0, m.id, wire.Anchored{Epoch: a.Epoch, Sequence: a.Sequence + 1000, Head: a.Head})
					m.peer.say(0, m.id, wire.Anchored{Epoch: a.Epoch, Sequence: a.Sequence, Head: strings.Repeat("0", 64)})
					m.peer.say(0, m.id, wire.Anchored{Epoch: "01J00000000000000000000000", Sequence: a.Sequence, Head: a.Head})
				}
				return is
			}
		})
		s.untilUp()
		s.trade(s.pay("A", 100).TradeNo, payment.Success)
		next[wire.Anchor](l)
		s.trade(s.pay("B", 100).TradeNo, payment.Success)
		if c, err := s.book.Cursor(); err != nil || c.Sequence != 0 {
			t.Errorf("anchored at %+v, %v", c, err)
		}
		if !s.up.State().Up {
			t.Error("the line is down")
		}
	})
}

// TestALedgerThatPongsAndAnswersNothing: half-open above TCP. The line is up, every question stays open, no second pay
// leaves, and the reversal ends the trade when the ledger speaks again.
func TestALedgerThatPongsAndAnswersNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t, func(l *ledger) { l.heard = make(chan message, 1<<16) })
		l.set(func() { l.on = func(message) bool { return true } })
		s.untilUp()
		p := s.pay("A", 100)
		time.Sleep(5 * time.Minute)
		if !s.up.State().Up {
			t.Error("the line is down")
		}
		s.trade(p.TradeNo, payment.Unknown)
		pays := 0
		for len(l.heard) > 0 {
			if _, is := (<-l.heard).body.(*wire.Pay); is {
				pays++
			}
		}
		if pays != 1 {
			t.Errorf("%d pays left", pays)
		}
		l.set(func() { l.on = nil })
		s.trade(p.TradeNo, payment.Closed)
	})
}

// TestAnswersThatContradictTheBookAreAlarmsAndChangeNothing: the ledger changes its mind about what has ended.
func TestAnswersThatContradictTheBookAreAlarmsAndChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		s.untilUp()
		p := s.trade(s.pay("A", 100).TradeNo, payment.Success)
		peer := <-l.welcomed
		for n, o := range []wire.Outcome{
			{TradeNo: p.TradeNo, State: wire.StateSuccess, LedgerNo: "L", TotalFen: 999, PaidFen: 999, PaidAt: 1},
			{TradeNo: p.TradeNo, State: wire.StatePayError, Reason: "DECLINED"},
			{TradeNo: p.TradeNo, State: "MAYBE"},
			{TradeNo: p.TradeNo, State: wire.StateSuccess, LedgerNo: "L", TotalFen: 100, PaidFen: 60, PaidAt: 1},
			{TradeNo: p.TradeNo, State: wire.StateSuccess, LedgerNo: "L", TotalFen: 100, PaidFen: -100, PaidAt: 1},
		} {
			peer.say(0, 0, wire.Result{Sequence: uint64(n) + 1, Outcome: o})
		}
		for {
			if a, _ := next[wire.Ack](l); a.News == 5 {
				break
			}
		}
		now, err := s.book.ByTradeNo(p.TradeNo)
		if err != nil || now.State != payment.Success || now.PaidFen != 100 {
			t.Errorf("%+v, %v", now, err)
		}
		if alarms, err := s.book.Alarms(10); err != nil || len(alarms) == 0 {
			t.Errorf("no alarm: %v, %v", alarms, err)
		}
		s.trade(s.pay("B", 100).TradeNo, payment.Success)
	})
}

// rulesBy are rules that another key has signed.
func rulesBy(t testing.TB, version uint32, now time.Time, key ed25519.PrivateKey) wire.News {
	t.Helper()
	n := rules(t, version, now)
	e, err := trust.Seal(trust.Rules, n.Envelope.Payload, key)
	if err != nil {
		t.Fatal(err)
	}
	n.Envelope = wire.Envelope{KeyID: e.KeyID, Payload: e.Payload, Sig: e.Sig}
	return n
}

package ledgersim

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"yupos/sync/wire"
)

// This file is the terminal as an enemy: whatever it sends, the ledger does not panic, does not grow, moves no money that
// it should not, refuses by name, and serves the terminal again as soon as it behaves.

// impatient shortens how long a terminal may take.
func (b *bench) impatient(w waits) {
	b.t.Helper()
	b.stop()
	b.start()
	b.mu.Lock()
	b.waits = w
	b.mu.Unlock()
}

// endsWith reads until the connection ends, and answers its close code; 0 for an end without one.
func (f *fakeLine) endsWith() int {
	f.t.Helper()
	for {
		_, _, err := f.next(10 * time.Second)
		var closed *websocket.CloseError
		var network net.Error
		switch {
		case err == nil:
		case errors.As(err, &closed):
			return closed.Code
		case errors.As(err, &network) && network.Timeout():
			f.t.Fatal("the connection lives on")
		default:
			return 0
		}
	}
}

func (b *bench) servesAgain() {
	b.t.Helper()
	if o := b.connect().outcome(b.payOf(b.code(testPhone, "ONLINE"), 1)); o.State != wire.StateSuccess {
		b.t.Errorf("%+v", o)
	}
	b.sound()
}

func TestWhatIsNoFrameEndsTheConnectionWithItsCode(t *testing.T) {
	b := newBench(t)
	for name, c := range map[string]struct {
		attack func(ws *websocket.Conn)
		code   int
	}{
		"binary":                    {func(ws *websocket.Conn) { ws.WriteMessage(websocket.BinaryMessage, []byte(`{}`)) }, websocket.CloseUnsupportedData},
		"no UTF-8":                  {func(ws *websocket.Conn) { ws.WriteMessage(websocket.TextMessage, []byte("{\"type\":\"\xff\"}")) }, websocket.CloseInvalidFramePayloadData},
		"too long":                  {func(ws *websocket.Conn) { ws.WriteMessage(websocket.TextMessage, make([]byte, wire.MaxFrame+1)) }, websocket.CloseMessageTooBig},
		"a message that never ends": {endless, websocket.CloseMessageTooBig},
		"a frame of a terabyte": {func(ws *websocket.Conn) {
			ws.NetConn().Write([]byte{0x81, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4})
		}, websocket.CloseMessageTooBig},
		"an unmasked frame":         {func(ws *websocket.Conn) { ws.NetConn().Write([]byte{0x81, 0x00}) }, websocket.CloseProtocolError},
		"a reserved kind of frame":  {func(ws *websocket.Conn) { ws.NetConn().Write([]byte{0x83, 0x80, 1, 2, 3, 4}) }, websocket.CloseProtocolError},
		"a continuation of nothing": {func(ws *websocket.Conn) { ws.NetConn().Write([]byte{0x80, 0x80, 1, 2, 3, 4}) }, websocket.CloseProtocolError},
		"a goodbye": {func(ws *websocket.Conn) {
			ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(time.Second))
		}, websocket.CloseNormalClosure},
	} {
		t.Run(name, func(t *testing.T) {
			f := b.connect()
			go c.attack(f.ws)
			if code := f.endsWith(); code != c.code {
				t.Errorf("close code %d, want %d", code, c.code)
			}
			b.servesAgain()
		})
	}
}

// endless sends pieces of one message for as long as it may.
func endless(ws *websocket.Conn) {
	w, err := ws.NextWriter(websocket.TextMessage)
	for err == nil {
		_, err = w.Write(make([]byte, 4096))
	}
}

func TestWhatATerminalMayNotSayIsRefusedByNameAndHasNoEffect(t *testing.T) {
	b := newBench(t)
	f := b.connect()
	paid := b.payOf(b.code(testPhone, "ONLINE"), 100)
	f.outcome(paid)
	before := b.balance(testPhone)
	anchored := wire.Anchor{Epoch: helloOf(0, "", 0).Epoch, Sequence: 50, Head: strings.Repeat("a", 64)}
	if _, ok := f.ask(anchored).(*wire.Anchored); !ok {
		t.Fatal("the anchor was not taken")
	}
	items := make([]wire.Acceptance, wire.MaxUploads+1)
	older, forked := anchored, anchored
	older.Sequence, forked.Head = 49, strings.Repeat("b", 64)
	other := paid
	other.TotalFen = 99
	for name, c := range map[string]struct {
		say  any
		code string
	}{
		"a second hello":                {helloOf(0, "", 0), wire.RefusedUnknownType},
		"a message of the ledger's own": {wire.Outcome{TradeNo: paid.TradeNo, State: wire.StateRevoked}, wire.RefusedUnknownType},
		"an answer to its own question": {wire.Welcome{Version: 1}, wire.RefusedUnknownType},
		"an anchor below the anchor":    {older, wire.RefusedRolledBack},
		"another head at the anchor":    {forked, wire.RefusedForked},
		"an anchor without an epoch":    {wire.Anchor{Sequence: 60, Head: anchored.Head}, wire.RefusedRolledBack},
		"a payment of another amount":   {other, wire.RefusedIDReused},
		"a payment of nothing":          {wire.Pay{TradeNo: number(), Attempt: 1, OutTradeNo: "X", Code: "1"}, wire.RefusedMalformed},
		"a payment without a number":    {wire.Pay{Attempt: 1, TotalFen: 1}, wire.RefusedMalformed},
		"more uploads than fit":         {wire.Upload{Items: items}, wire.RefusedMalformed},
		"no uploads at all":             {wire.Upload{}, wire.RefusedMalformed},
		"news that nobody has":          {wire.Want{Topic: "weather"}, wire.RefusedMalformed},
		"a nonce that is none":          {wire.Time{Nonce: []byte("short")}, wire.RefusedMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			if code := f.refused(c.say); code != c.code {
				t.Errorf("refused with %s, want %s", code, c.code)
			}
		})
	}
	f.send(wire.Ack{News: 1 << 60})
	if w, ok := b.helloAgain().(*wire.Welcome); !ok || w.AckedSequence != 50 {
		t.Errorf("%+v", w)
	}
	if now := b.balance(testPhone); now != before {
		t.Errorf("the balance went from %d to %d", before, now)
	}
	b.sound()
}

// helloAgain says hello again on a new connection, with the book of an anchored terminal, and answers what came.
func (b *bench) helloAgain() any {
	return b.dial().ask(helloOf(60, strings.Repeat("c", 64), 0))
}

func TestWhoeverIsTooSlowIsEnded(t *testing.T) {
	b := newBench(t)
	b.impatient(waits{write: 300 * time.Millisecond, hello: 300 * time.Millisecond, read: 600 * time.Millisecond})
	t.Run("nobody says hello", func(t *testing.T) {
		f := b.dial()
		f.endsWith()
	})
	t.Run("a hello whose bytes come one at a time", func(t *testing.T) {
		f := b.dial()
		f.ws.NetConn().Write([]byte{0x81, 0xfe, 0x10, 0x00, 0, 0, 0, 0})
		go func() {
			for {
				if _, err := f.ws.NetConn().Write([]byte(" ")); err != nil {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		}()
		f.endsWith()
	})
	t.Run("silence after the hello", func(t *testing.T) {
		f := b.connect()
		f.ws.SetPingHandler(func(string) error { return nil })
		f.endsWith()
	})
	t.Run("pings are enough", func(t *testing.T) {
		f := b.connect()
		for range 8 {
			f.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second))
			time.Sleep(100 * time.Millisecond) // three times the silence that would end it
		}
		f.outcome(wire.Query{TradeNo: number()})
	})
	b.servesAgain()
}

func TestATerminalThatReadsNothingIsEndedAndTheLedgerDoesNotGrow(t *testing.T) {
	b := newBench(t)
	b.impatient(waits{write: 500 * time.Millisecond, hello: time.Second, read: time.Minute})
	f := b.connect()
	f.ws.NetConn().(interface{ NetConn() net.Conn }).NetConn().(*net.TCPConn).SetReadBuffer(4 << 10)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	most := 0
	ask, err := wire.Encode(7, 0, wire.Query{TradeNo: number()})
	if err != nil {
		t.Fatal(err)
	}
	for err == nil { // until the ledger has had enough
		f.ws.SetWriteDeadline(time.Now().Add(20 * time.Second))
		err = f.ws.WriteMessage(websocket.TextMessage, ask)
		most = max(most, runtime.NumGoroutine())
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 || most > maxAtOnce+100 {
		t.Errorf("the heap grew by %d KiB, %d goroutines", grown>>10, most)
	}
	b.servesAgain()
}

func TestAFloodIsAnsweredMessageByMessage(t *testing.T) {
	b := newBench(t)
	f := b.connect()
	const flood = 3000
	go func() {
		for n := range flood {
			text := fmt.Sprintf(`{"type":"dance","id":%d,"body":{}}`, n+10)
			if f.ws.WriteMessage(websocket.TextMessage, []byte(text)) != nil {
				return
			}
		}
	}()
	for n := 0; n < flood; {
		_, body, err := f.next(10 * time.Second)
		if err != nil {
			t.Fatalf("after %d answers: %v", n, err)
		}
		if r, ok := body.(*wire.Refused); ok && r.Code == wire.RefusedUnknownType {
			n++
		}
	}
	b.servesAgain()
}

func TestNestedAndTwistedJSONIsRefused(t *testing.T) {
	b := newBench(t)
	f := b.connect()
	for name, text := range map[string]string{
		"thirty thousand arrays": `{"type":"pay","id":7,"body":{"trade_no":` + strings.Repeat("[", 30000) + `}}`,
		"an array":               `[1,2]`,
		"nothing":                ``,
		"a number with a point":  `{"type":"pay","id":7,"body":{"trade_no":"X","total_fen":1.5}}`,
		"a number too large":     `{"type":"query","id":99999999999999999999,"body":{}}`,
		"a body that is a text":  `{"type":"query","id":7,"body":"x"}`,
		"two documents":          `{"type":"query","id":7,"body":{}}{}`,
	} {
		f.ws.WriteMessage(websocket.TextMessage, []byte(text))
		_, body, err := f.next(5 * time.Second)
		if r, ok := body.(*wire.Refused); err != nil || !ok || r.Code != wire.RefusedMalformed {
			t.Errorf("%s: %+v %v", name, body, err)
		}
	}
	b.sound()
}

func TestAHalfOpenLinkPassesNothingAndDeliversLate(t *testing.T) {
	b := newBench(t)
	f := b.connect()
	b.call("POST", "/_sim/link", `{"half_open":true}`, nil)
	m := b.payOf(b.code(testPhone, "ONLINE"), 100)
	before := b.balance(testPhone)
	id := f.send(m)
	if _, _, err := f.next(300 * time.Millisecond); err == nil || b.balance(testPhone) != before {
		t.Fatal("something passed")
	}
	b.call("POST", "/_sim/link", `{"half_open":false}`, nil)
	_ = id
	for range 100 { // the reader of this library is spent by its deadline: the effect is what shows
		if b.balance(testPhone) == before-100 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if o := b.connect().outcome(m); o.State != wire.StateSuccess || !o.Replayed {
		t.Errorf("%+v", o)
	}
	b.sound()
}

func TestACutAfterTheRequestLeavesItsEffectAndNoAnswer(t *testing.T) {
	b := newBench(t)
	for _, how := range []struct{ path, on, off string }{
		{"/_sim/link", `{"cut_after":1}`, `{"cut_after":0}`},
		{"/_sim/faults", `{"op":"pay","action":"cut_reply","times":1}`, ""},
	} {
		f := b.connect()
		b.call("POST", how.path, how.on, nil)
		m := b.payOf(b.code(testPhone, "ONLINE"), 100)
		before := b.balance(testPhone)
		f.send(m)
		f.endsWith()
		if b.balance(testPhone) != before-100 {
			t.Errorf("%s: no effect", how.on)
		}
		if how.off != "" {
			b.call("POST", how.path, how.off, nil)
		}
		if o := b.connect().outcome(m); o.State != wire.StateSuccess || !o.Replayed {
			t.Errorf("%s: %+v", how.on, o)
		}
	}
	b.sound()
}

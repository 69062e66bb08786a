package ledgersim

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/dgraph-io/badger/v4"
	"github.com/gorilla/websocket"
	"github.com/oklog/ulid/v2"

	"yupos/sync/wire"
)

// waits are how long a terminal may take.
type waits struct {
	write, hello, read time.Duration
}

var defaultWaits = waits{write: 5 * time.Second, hello: 10 * time.Second, read: 45 * time.Second}

// The limits of a connection.
const (
	pingEvery  = 20 * time.Second // what the terminal is told: it must be heard at least this often
	maxAtOnce  = 64               // messages of one terminal in work; more wait in the socket
	newsAtOnce = 64               // results read from the store together
)

// conn is one terminal's connection. Writes take turns.
type conn struct {
	ws       *websocket.Conn
	ledger   *Ledger
	terminal string
	write    sync.Mutex
	slots    chan struct{}
	wake     chan struct{} // there may be news
	told     uint64        // news sent on this connection; only tell uses it
	gone     sync.Once

	version int                   // minor version of the protocol
	since   time.Time             // of the hello
	heard   atomic.Int64          // last sign of life, Unix milliseconds
	have    map[wire.Topic]uint32 // signed news that were sent; only announce uses it after the hello
	changed chan struct{}         // signed news may have changed
}

// lastHeard is when the terminal gave its last sign of life.
func (c *conn) lastHeard() time.Time { return time.UnixMilli(c.heard.Load()) }

func (c *conn) hear() { c.heard.Store(c.ledger.now().UnixMilli()) }

// hurry says that signed news may have changed.
func (c *conn) hurry() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *conn) close() { c.gone.Do(func() { c.ws.Close() }) }

func (c *conn) send(re uint64, body any) error {
	data, err := wire.Encode(0, re, body)
	if err != nil {
		return err
	}
	c.write.Lock()
	defer c.write.Unlock()
	err = c.ws.SetWriteDeadline(time.Now().Add(c.ledger.waits.write))
	if err == nil {
		err = c.ws.WriteMessage(websocket.TextMessage, data)
	}
	if err != nil {
		c.close() // a terminal that does not read is a dead one
	}
	return err
}

// end says why the connection ends, and ends it.
func (c *conn) end(code int, why string) {
	c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, why), time.Now().Add(c.ledger.waits.write))
	c.close()
}

var upgrader = websocket.Upgrader{Subprotocols: []string{wire.Subprotocol}, ReadBufferSize: 4096, WriteBufferSize: 4096, HandshakeTimeout: 5 * time.Second}

// serveTerminal is the life of one connection: hello, then messages until it ends.
func (l *Ledger) serveTerminal(w http.ResponseWriter, r *http.Request) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		http.Error(w, "client certificate required", http.StatusForbidden)
		return
	}
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	c := &conn{ws: ws, ledger: l, slots: make(chan struct{}, maxAtOnce), wake: make(chan struct{}, 1), changed: make(chan struct{}, 1)}
	defer c.close()
	if ws.Subprotocol() != wire.Subprotocol {
		ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseProtocolError, "subprotocol"), time.Now().Add(l.waits.write))
		return
	}
	ws.SetReadLimit(wire.MaxFrame)
	if err := c.hello(r.TLS.PeerCertificates[0]); err != nil {
		l.log.Info("terminal refused", slog.Any("err", err))
		return
	}
	defer l.forget(c)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go c.tell(ctx)
	if c.version >= 2 {
		go c.announce(ctx)
	}
	c.listen(ctx)
}

// hello takes the first message, which must be a Hello of the certificate's terminal.
func (c *conn) hello(cert *x509.Certificate) error {
	c.ws.SetReadDeadline(time.Now().Add(c.ledger.waits.hello))
	_, data, err := c.ws.ReadMessage()
	if err != nil {
		return err
	}
	frame, body, err := wire.Decode(data)
	h, ok := body.(*wire.Hello)
	if err != nil || !ok {
		c.send(frame.ID, wire.Refused{Code: wire.RefusedMalformed, Detail: "hello first"})
		return errors.Join(err, errors.New("no hello"))
	}
	if h.TerminalID != cert.Subject.CommonName {
		c.send(frame.ID, wire.Refused{Code: wire.RefusedNotYou, Detail: "the certificate names another terminal"})
		return fmt.Errorf("terminal %.16q with the certificate of %s", h.TerminalID, cert.Subject.CommonName)
	}
	welcome, err := c.ledger.greet(h, cert)
	var no refusal
	if errors.As(err, &no) {
		c.send(frame.ID, wire.Refused{Code: string(no), Detail: "see the terminal's book", RetryAfterMillis: c.ledger.restAfter(no).Milliseconds()})
	}
	if err != nil {
		return err
	}
	c.terminal, c.told, c.version, c.have, c.since = h.TerminalID, h.NewsCursor, welcome.Version, h.Have, c.ledger.now()
	c.hear()
	if !c.ledger.adopt(c) {
		return errors.New("the link went down")
	}
	return c.send(frame.ID, welcome)
}

// tell pushes the news of this terminal, in their order and without gaps, until the connection ends. What is lost on the
// way is sent again after the next hello.
func (c *conn) tell(ctx context.Context) {
	for ctx.Err() == nil {
		news, err := c.ledger.newsAfter(c.terminal, c.told)
		if err != nil {
			return
		}
		for _, n := range news {
			fate := c.ledger.fateOf(wire.TypeResult)
			if !pause(ctx, fate.after) {
				return
			}
			if fate.cut || c.send(0, n) != nil {
				c.close()
				return
			}
			c.told = n.Sequence
		}
		if len(news) > 0 {
			continue
		}
		select {
		case <-c.wake:
		case <-ctx.Done():
		}
	}
}

// newsAfter reads the results that follow a sequence.
func (l *Ledger) newsAfter(terminalID string, sequence uint64) (news []wire.Result, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	err = l.db.View(func(txn *badger.Txn) error {
		for len(news) < newsAtOnce {
			var r wire.Result
			if err := get(txn, newsKey(terminalID, sequence+1), &r); errors.Is(err, errNone) {
				return nil
			} else if err != nil {
				return err
			}
			news = append(news, r)
			sequence++
		}
		return nil
	})
	return news, err
}

// greet judges a terminal's book against what the ledger holds of it.
func (l *Ledger) greet(h *wire.Hello, cert *x509.Certificate) (welcome wire.Welcome, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	version, err := l.agree(h)
	if err != nil {
		return welcome, err
	}
	err = l.db.Update(func(txn *badger.Txn) error {
		t, err := l.terminalOf(txn, h.TerminalID)
		if err != nil {
			return err
		}
		if err := errors.Join(l.renew(txn), l.publishFees(txn, t)); err != nil {
			return err
		}
		if t.MerchantID != h.MerchantID {
			return refusal(wire.RefusedNotYou)
		}
		if err := l.seen(txn, &t, cert); err != nil {
			return err
		}
		if err := t.judgeBase(h); err != nil {
			return err
		}
		if err := t.judge(h.Epoch, h.Sequence, h.Head); err != nil {
			return err
		}
		if h.Base != nil && t.Sequence == 0 {
			t.Sequence, t.Head = h.Base.Sequence, h.Base.Head // what it holds of the epoch before
		}
		welcome = wire.Welcome{
			Version: version, AckedSequence: t.Sequence, AckedHead: t.Head, NewsSequence: t.News,
			Time: wire.Millis(l.now().UnixMilli()), PingEveryMillis: pingEvery.Milliseconds(),
		}
		t.Acked = max(t.Acked, min(h.NewsCursor, t.News))
		return put(txn, terminalKey(t.ID), t)
	})
	return welcome, err
}

// agree chooses the version of the protocol, or refuses the connection.
func (l *Ledger) agree(h *wire.Hello) (int, error) {
	now := l.now()
	switch version := min(max(h.Version, 1), wire.Version); {
	case !now.Before(l.closed.From) && now.Before(l.closed.To):
		return 0, refusal(wire.RefusedMaintenance)
	case version < wire.MinVersion || version < h.MinVersion:
		return 0, refusal(wire.RefusedVersion)
	default:
		return version, nil
	}
}

// restAfter is how long a terminal whose hello was refused shall stay away.
func (l *Ledger) restAfter(no refusal) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if no == wire.RefusedMaintenance {
		return max(l.closed.To.Sub(l.now()), time.Second)
	}
	return time.Minute
}

// announce sends the signed news that the terminal lacks, now and whenever they change.
func (c *conn) announce(ctx context.Context) {
	if c.have == nil {
		c.have = map[wire.Topic]uint32{}
	}
	for {
		var list []wire.News
		c.ledger.mu.Lock()
		err := c.ledger.db.View(func(txn *badger.Txn) (err error) {
			list, err = c.ledger.newsFor(txn, c.terminal, c.have)
			return err
		})
		c.ledger.mu.Unlock()
		if err != nil {
			c.ledger.log.Error("news not read", slog.Any("err", err))
			return
		}
		for _, n := range list {
			for _, part := range frames(n) {
				if c.send(0, part) != nil {
					c.close()
					return
				}
			}
			c.have[n.Topic] = n.Version
		}
		select {
		case <-c.changed:
		case <-ctx.Done():
			return
		}
	}
}

// judgeBase compares where a new epoch began with the newest anchor: a copy from before it has lost what came after, and one
// that left the chain at the anchor itself is another chain.
func (t *terminal) judgeBase(h *wire.Hello) error {
	switch {
	case h.Base == nil || h.Epoch == t.Epoch:
		return nil
	case h.Base.Sequence < t.Sequence || h.Base.Sequence > h.Sequence:
		return refusal(wire.RefusedRolledBack)
	case h.Base.Epoch == t.Epoch && h.Base.Sequence == t.Sequence && h.Base.Head != t.Head:
		return refusal(wire.RefusedForked)
	}
	return nil
}

// judge compares a book with what the ledger holds of it: an older or a parallel one is refused, one of a new epoch is
// noted and closes the epoch before it for good.
func (t *terminal) judge(epoch string, sequence uint64, head string) error {
	switch {
	case epoch == "" || slices.Contains(t.Past, epoch):
		return refusal(wire.RefusedRolledBack)
	case epoch != t.Epoch:
		if t.Epoch != "" {
			t.Past = append(t.Past, t.Epoch)
		}
		t.Epoch, t.Sequence, t.Head = epoch, 0, ""
	case sequence < t.Sequence:
		return refusal(wire.RefusedRolledBack)
	case sequence == t.Sequence && t.Head != "" && head != t.Head:
		return refusal(wire.RefusedForked)
	}
	return nil
}

// adopt makes c the terminal's connection; an older one ends. It answers false if the link went down meanwhile.
func (l *Ledger) adopt(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.link.Up {
		return false
	}
	if old := l.conns[c.terminal]; old != nil {
		old.close()
	}
	l.conns[c.terminal] = c
	return true
}

func (l *Ledger) forget(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns[c.terminal] == c {
		delete(l.conns, c.terminal)
	}
	l.noteSession(c)
}

// listen reads messages until the connection ends. Each is worked on by itself, so that a slow one holds up none.
func (c *conn) listen(ctx context.Context) {
	alive := func(string) error {
		c.hear()
		return c.ws.SetReadDeadline(time.Now().Add(c.ledger.waits.read))
	}
	c.ws.SetPingHandler(func(data string) error {
		alive("")
		err := c.ws.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(c.ledger.waits.write))
		if errors.Is(err, websocket.ErrCloseSent) {
			return nil
		}
		return err
	})
	c.ws.SetPongHandler(alive)
	var work sync.WaitGroup
	defer work.Wait()
	for {
		alive("")
		kind, data, err := c.ws.ReadMessage()
		switch {
		case err != nil:
			return
		case kind != websocket.TextMessage:
			c.end(websocket.CloseUnsupportedData, "text only")
			return
		case !utf8.Valid(data):
			c.end(websocket.CloseInvalidFramePayloadData, "no UTF-8")
			return
		}
		c.slots <- struct{}{}
		work.Go(func() {
			defer func() { <-c.slots }()
			c.work(ctx, data)
		})
	}
}

// work carries out one message, with whatever the network and the faults do to it.
func (c *conn) work(ctx context.Context, data []byte) {
	frame, body, err := wire.Decode(data)
	if errors.Is(err, wire.ErrUnknownType) {
		c.send(frame.ID, wire.Refused{Code: wire.RefusedUnknownType, Detail: "unknown message type"})
		return
	}
	if err != nil {
		c.send(frame.ID, wire.Refused{Code: wire.RefusedMalformed, Detail: "malformed message"})
		return
	}
	fate := c.ledger.fateOf(frame.Type)
	if !pause(ctx, fate.before) {
		return
	}
	switch {
	case fate.cut:
		c.close()
		return
	case fate.dropRequest:
		return
	case fate.late > 0: // it was on its way while its connection ended
		time.Sleep(fate.late)
	case fate.fail:
		c.send(frame.ID, wire.Refused{Code: wire.RefusedInternal, Detail: "simulated error", RetryAfterMillis: 1000})
		return
	}
	start := time.Now()
	answer := c.ledger.reply(c.terminal, body)
	c.ledger.log.Debug("carried out", slog.String("type", frame.Type), slog.Duration("took", time.Since(start)))
	if fate.twice {
		answer = c.ledger.reply(c.terminal, body)
	}
	if fate.cutAfter {
		c.close()
		return
	}
	if parts, ok := answer.([]wire.News); ok { // the one answer of several frames
		for _, part := range parts {
			c.send(frame.ID, part)
		}
		return
	}
	if answer == nil || fate.dropReply || !pause(ctx, fate.after) {
		return
	}
	if err := c.send(frame.ID, answer); err == nil && fate.twice {
		c.send(frame.ID, answer)
	}
}

// pause waits, unless the connection ends first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// reply carries out one message of a terminal; nil where it has no answer.
func (l *Ledger) reply(terminalID string, body any) any {
	if !wellFormed(body) {
		return wire.Refused{Code: wire.RefusedMalformed, Detail: "a number or an amount is out of its form"}
	}
	var out any
	var err error
	switch m := body.(type) {
	case *wire.Pay:
		out, err = l.pay(terminalID, m)
	case *wire.Order:
		out, err = l.register(terminalID, m)
	case *wire.Query:
		out, err = l.query(terminalID, m)
	case *wire.Reverse:
		out, err = l.reverse(terminalID, m)
	case *wire.Refund:
		out, err = l.refund(terminalID, m)
	case *wire.Anchor:
		out, err = l.anchor(terminalID, m)
	case *wire.Upload:
		out, err = l.uploads(m)
	case *wire.Time:
		out, err = l.signTime(m)
	case *wire.Want:
		out, err = l.want(terminalID, m.Topic)
	case *wire.Statement:
		err = refusal(wire.RefusedNotReady)
	case *wire.Ack:
		out, err = nil, l.acknowledge(terminalID, m)
	default:
		return wire.Refused{Code: wire.RefusedUnknownType, Detail: "not a terminal's message"}
	}
	var no refusal
	switch {
	case errors.As(err, &no) && no == wire.RefusedNotReady: // this ledger has no day's bill to offer
		return wire.Refused{Code: string(no), RetryAfterMillis: 60000}
	case errors.As(err, &no):
		return wire.Refused{Code: string(no)}
	case err != nil:
		l.log.Error("message failed", slog.Any("err", err))
		return wire.Refused{Code: wire.RefusedInternal, RetryAfterMillis: 1000}
	}
	return out
}

// wellFormed judges what can be judged without the books: our numbers are ULIDs, amounts are payable.
func wellFormed(body any) bool {
	switch m := body.(type) {
	case *wire.Pay:
		return isULID(m.TradeNo) && m.TotalFen.CheckPayable() == nil && m.Attempt > 0
	case *wire.Order:
		return isULID(m.TradeNo) && m.TotalFen.CheckPayable() == nil
	case *wire.Query:
		return isULID(m.TradeNo)
	case *wire.Reverse:
		return isULID(m.TradeNo) && m.TotalFen >= 0
	case *wire.Upload:
		return len(m.Items) > 0 && len(m.Items) <= wire.MaxUploads
	case *wire.Refund:
		return isULID(m.TradeNo) && isULID(m.RefundNo) && m.RefundFen.CheckPayable() == nil
	}
	return true
}

func isULID(s string) bool {
	u, err := ulid.ParseStrict(s)
	return err == nil && u.String() == s
}

// anchor keeps the newest durable head of a terminal's book.
func (l *Ledger) anchor(terminalID string, m *wire.Anchor) (wire.Anchored, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := wire.Anchored{Epoch: m.Epoch, Sequence: m.Sequence, Head: m.Head}
	err := l.db.Update(func(txn *badger.Txn) error {
		t, err := l.terminalOf(txn, terminalID)
		if err != nil {
			return err
		}
		if err := t.judge(m.Epoch, m.Sequence, m.Head); err != nil {
			return err
		}
		t.Epoch, t.Sequence, t.Head = m.Epoch, m.Sequence, m.Head
		if out.Signed, err = l.countersign(&t, m); err != nil {
			return err
		}
		if err := put(txn, anchorKey(terminalID, m.Sequence), m.Head); err != nil {
			return err
		}
		return put(txn, terminalKey(terminalID), t)
	})
	return out, err
}

// acknowledge notes which news are durable in the terminal's book. They are kept all the same: a book that is restored from
// an older copy asks for them again.
func (l *Ledger) acknowledge(terminalID string, m *wire.Ack) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.db.Update(func(txn *badger.Txn) error {
		t, err := l.terminalOf(txn, terminalID)
		if err != nil {
			return err
		}
		t.Acked = max(t.Acked, min(m.News, t.News))
		return put(txn, terminalKey(terminalID), t)
	})
}

func newsKey(terminalID string, n uint64) string { return fmt.Sprintf("news/%s/%020d", terminalID, n) }

// news keeps a result for a terminal, in the transaction that made it true, and answers how to push it afterwards.
func (l *Ledger) news(txn *badger.Txn, terminalID string, o wire.Outcome) (push func(), err error) {
	t, err := l.terminalOf(txn, terminalID)
	if err != nil {
		return nil, err
	}
	t.News++
	r := wire.Result{Sequence: t.News, Outcome: o}
	if err := put(txn, newsKey(terminalID, t.News), r); err != nil {
		return nil, err
	}
	return func() {
		l.mu.Lock()
		c := l.conns[terminalID]
		l.mu.Unlock()
		if c == nil {
			return
		}
		select { // a slow terminal does not hold up the customer
		case c.wake <- struct{}{}:
		default:
		}
	}, put(txn, terminalKey(terminalID), t)
}

package uplink

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"yupos/ledgercache"
	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
	"yupos/ledgercache/trust"
	"yupos/sync/wire"
)

// message is one frame that the test's ledger has heard.
type message struct {
	peer *peer
	id   uint64
	body any
	at   time.Time
}

// peer is the ledger's end of one connection.
type peer struct {
	ws *websocket.Conn
	mu chan struct{}     // a lock that synctest can wait on
	by func(send func()) // nil = at once; what happens to a frame on its way
}

func (p *peer) raw(kind int, data []byte) {
	if p.by != nil {
		p.by(func() { p.send(kind, data) })
		return
	}
	p.send(kind, data)
}

func (p *peer) send(kind int, data []byte) {
	p.mu <- struct{}{}
	defer func() { <-p.mu }()
	_ = p.ws.SetWriteDeadline(time.Now().Add(5 * time.Second))
	_ = p.ws.WriteMessage(kind, data) // a terminal that is gone is part of the tests
}

func (p *peer) say(id, re uint64, body any) {
	data, err := wire.Encode(id, re, body)
	if err != nil {
		panic(err)
	}
	p.raw(websocket.TextMessage, data)
}

// ledger is a small ledger for tests: it records what it hears and answers through on, or else as a friendly ledger does.
type ledger struct {
	t        testing.TB
	heard    chan message
	welcomed chan *peer

	mu       sync.Mutex
	welcome  wire.Welcome
	refuse   *wire.Refused                  // at hello
	silent   bool                           // reads, never answers, and does not pong
	noProto  bool                           // does not choose the subprotocol
	on       func(m message) (handled bool) // nil = friendly
	trades   map[string]wire.Outcome
	news     []wire.Result // sent after every welcome, from the cursor on
	upgrades int
}

func newLedger(t testing.TB) *ledger {
	return &ledger{t: t, heard: make(chan message, 4096), welcomed: make(chan *peer, 64), trades: map[string]wire.Outcome{}, welcome: wire.Welcome{Version: 1}}
}

func (l *ledger) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

func (l *ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	up := websocket.Upgrader{Subprotocols: []string{wire.Subprotocol}}
	if l.noProto {
		up.Subprotocols = nil
	}
	l.upgrades++
	silent := l.silent
	l.mu.Unlock()
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer ws.Close()
	p := &peer{ws: ws, mu: make(chan struct{}, 1)}
	if silent {
		ws.SetPingHandler(func(string) error { return nil })
	}
	for {
		_, data, err := ws.ReadMessage()
		if err != nil {
			return
		}
		f, body, err := wire.Decode(data)
		if err != nil {
			l.t.Errorf("the terminal sent %v", err)
			return
		}
		m := message{p, f.ID, body, time.Now()}
		l.answer(m)
		l.heard <- m
	}
}

func (l *ledger) answer(m message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if hello, ok := m.body.(*wire.Hello); ok {
		if l.refuse != nil {
			m.peer.say(0, m.id, l.refuse)
			return
		}
		w := l.welcome
		w.NewsSequence = max(w.NewsSequence, uint64(len(l.news)))
		m.peer.say(0, m.id, w)
		for _, n := range l.news[min(hello.NewsCursor, uint64(len(l.news))):] {
			m.peer.say(0, 0, n)
		}
		l.welcomed <- m.peer
		return
	}
	if l.on != nil && l.on(m) {
		return
	}
	l.friendly(m)
}

func paidOutcome(tradeNo string, total money.Fen) wire.Outcome {
	return wire.Outcome{TradeNo: tradeNo, State: wire.StateSuccess, LedgerNo: "L", TotalFen: total, PaidFen: total, FeeFen: 1, PaidAt: wire.Millis(time.Now().UnixMilli())}
}

// friendly pays everything; l.mu is held.
func (l *ledger) friendly(m message) {
	switch b := m.body.(type) {
	case *wire.Pay:
		o, known := l.trades[b.TradeNo]
		if !known {
			o = paidOutcome(b.TradeNo, b.TotalFen)
			l.trades[b.TradeNo] = o
		}
		m.peer.say(0, m.id, o)
	case *wire.Order:
		o, known := l.trades[b.TradeNo]
		if !known {
			o = wire.Outcome{TradeNo: b.TradeNo, State: wire.StateNotPay}
			l.trades[b.TradeNo] = o
		}
		m.peer.say(0, m.id, o)
	case *wire.Query:
		o, known := l.trades[b.TradeNo]
		if !known {
			o = wire.Outcome{TradeNo: b.TradeNo, State: wire.StateNotFound}
		}
		m.peer.say(0, m.id, o)
	case *wire.Reverse:
		o := l.trades[b.TradeNo]
		o.TradeNo, o.Reason = b.TradeNo, b.Reason
		switch o.State {
		case wire.StateSuccess, wire.StateRevoked:
			o.State = wire.StateRevoked
		default:
			o.State = wire.StateClosed
		}
		l.trades[b.TradeNo] = o
		m.peer.say(0, m.id, o)
	case *wire.Refund:
		m.peer.say(0, m.id, wire.RefundOutcome{RefundNo: b.RefundNo, TradeNo: b.TradeNo, State: wire.RefundSuccess, RefundFen: b.RefundFen, RefundedAt: wire.Millis(time.Now().UnixMilli())})
	case *wire.Anchor:
		l.welcome.AckedSequence, l.welcome.AckedHead = b.Sequence, b.Head
		m.peer.say(0, m.id, wire.Anchored{Epoch: b.Epoch, Sequence: b.Sequence, Head: b.Head})
	}
}

// patience is how long a test waits for something that must happen.
const patience = 10 * time.Minute

// next waits for the next message of type T that the ledger hears, skipping others.
func next[T any](l *ledger) (*T, message) {
	l.t.Helper()
	limit := time.After(patience)
	for {
		select {
		case m := <-l.heard:
			if b, ok := m.body.(*T); ok {
				return b, m
			}
		case <-limit:
			var none T
			l.t.Fatalf("the ledger never heard a %T", none)
		}
	}
}

// shop is a terminal with a book of its own and a line.
type shop struct {
	t    testing.TB
	book *ledgercache.Book
	dir  string
	opts Options
	up   *Uplink
	stop func()
	skew atomic.Int64 // what the terminal's clock is ahead of the world's, in nanoseconds
}

// now is the terminal's wall clock.
func (s *shop) now() time.Time { return time.Now().Round(0).Add(time.Duration(s.skew.Load())) }

// The keys of the ledger, of which a book has pinned the public halves.
var (
	rootKey   = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	policyKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, ed25519.SeedSize))
)

func publicOf(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func openBook(t testing.TB, dir string, now func() time.Time) *ledgercache.Book {
	t.Helper()
	b, err := ledgercache.Open(context.Background(), ledgercache.Options{Dir: dir, Key: [32]byte{7}, TerminalID: "10000001", ShiftAutoOpen: true, Now: now,
		Pins:   trust.Pins{{Role: trust.Root, Public: publicOf(rootKey)}, {Role: trust.Policy, Public: publicOf(policyKey)}},
		Limits: payment.Limits{PaymentFen: 1000_00, WalletFen: 1000_00, WalletCount: 10, TerminalFen: money.Max, TerminalCount: 1 << 20, ConvertFen: 1000_00, DigitsFen: 1000_00},
		Sign:   func(a ledgercache.Acceptance) ([]byte, error) { return make([]byte, trust.AcceptLength), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newShop(t testing.TB, dialer Dialer, change ...func(*Options)) *shop {
	t.Helper()
	s := &shop{t: t, dir: t.TempDir()}
	s.opts = Options{URLs: []string{"ws://ledger/terminal/v1"}, TerminalID: "10000001", MerchantID: "653000053310001", Software: "test", Dialer: dialer}
	if testing.Verbose() {
		s.opts.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	for _, c := range change {
		c(&s.opts)
	}
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *shop) start() {
	s.book = openBook(s.t, s.dir, s.now)
	s.opts.Book, s.opts.Now = s.book, s.now
	s.up = New(s.opts)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.up.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("run: %v", err)
		}
		if err := s.book.Close(); err != nil {
			s.t.Errorf("close: %v", err)
		}
	})
}

func (s *shop) restart() { s.stop(); s.start() }

func (s *shop) until(what string, ok func(State) bool) State {
	s.t.Helper()
	ticks, end := s.up.Watch()
	defer end()
	limit := time.After(patience)
	for {
		if st := s.up.State(); ok(st) {
			return st
		}
		select {
		case <-ticks:
		case <-limit:
			s.t.Fatalf("the line never was %s: %+v", what, s.up.State())
		}
	}
}

func (s *shop) untilUp() { s.t.Helper(); s.until("up", func(st State) bool { return st.Up }) }
func (s *shop) untilDown(reason string) State {
	s.t.Helper()
	return s.until("down with "+reason, func(st State) bool { return !st.Up && st.Reason == reason })
}

const testCode = "861234567890123454"

func (s *shop) pay(no string, total money.Fen) payment.Payment {
	s.t.Helper()
	p, _, err := s.book.OpenTrade(context.Background(), ledgercache.New{
		OutTradeNo: no, Mode: payment.ByCode, TotalFen: total, BodyHash: []byte(no), Code: &ledgercache.Code{Text: testCode + no, ScannedAt: time.Now()},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *shop) order(no string, total money.Fen) payment.Payment {
	s.t.Helper()
	p, _, err := s.book.OpenTrade(context.Background(), ledgercache.New{
		OutTradeNo: no, Mode: payment.ByOrder, TotalFen: total, BodyHash: []byte(no), ExpiresAt: time.Now().Add(payment.OrderFor), OrderText: "ORDER",
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// trade waits until the trade is in the state.
func (s *shop) trade(tradeNo string, want payment.State) payment.Payment {
	s.t.Helper()
	return s.tradeThat(tradeNo, string(want), func(p payment.Payment) bool { return p.State == want })
}

func (s *shop) tradeThat(tradeNo, what string, ok func(payment.Payment) bool) payment.Payment {
	s.t.Helper()
	w := s.book.Watch()
	defer w.Close()
	limit := time.After(patience)
	for {
		p, err := s.book.ByTradeNo(tradeNo)
		if err != nil {
			s.t.Fatal(err)
		}
		if ok(p) {
			return p
		}
		select {
		case <-w.C:
		case <-limit:
			s.t.Fatalf("trade never was %s: %+v", what, p)
		}
	}
}

// pipes is a network without a kernel, for tests in fake time.
type pipes struct {
	accept chan net.Conn
	closed chan struct{}
	mu     sync.Mutex
	down   bool
	open   []net.Conn
	tried  func() // called with mu held
}

var errDown = errors.New("network is down")

func (n *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-n.accept:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}
func (n *pipes) Close() error   { close(n.closed); return nil }
func (n *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

func (n *pipes) Dial(ctx context.Context, url string) (Conn, error) {
	d := gorillaDialer{websocket.Dialer{Subprotocols: []string{wire.Subprotocol}, NetDialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.tried != nil {
			n.tried()
		}
		if n.down {
			return nil, errDown
		}
		a, b := net.Pipe()
		n.open = append(n.open, a)
		select {
		case n.accept <- b:
			return a, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}}
	return d.Dial(ctx, url)
}

// cut ends all connections; with down no new one is made.
func (n *pipes) cut(down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = down
	for _, c := range n.open {
		c.Close()
	}
	n.open = nil
}

// world is a ledger and a shop over pipes, for synctest.
func world(t testing.TB, change ...func(*ledger)) (*ledger, *shop, *pipes) {
	t.Helper()
	l := newLedger(t)
	for _, c := range change {
		c(l)
	}
	s, n := worldWith(t, l)
	return l, s, n
}

// worldWith is a shop over pipes to this ledger.
func worldWith(t testing.TB, l *ledger, change ...func(*Options)) (*shop, *pipes) {
	t.Helper()
	n := &pipes{accept: make(chan net.Conn), closed: make(chan struct{})}
	srv := &http.Server{Handler: l}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(n) }()
	t.Cleanup(func() {
		n.cut(true)
		srv.Close()
		<-served
	})
	return newShop(t, n, change...), n
}

// authority is a CA for tests over real TLS.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ledger CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t, cert, key}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func (a *authority) issue(name string, usage x509.ExtKeyUsage) tls.Certificate {
	a.t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{usage}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}, a.cert, pub, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) client() *tls.Config {
	return &tls.Config{RootCAs: a.pool(), Certificates: []tls.Certificate{a.issue("10000001", x509.ExtKeyUsageClientAuth)}}
}

// serve starts l behind mutual TLS 1.3 on a real socket.
func (a *authority) serve(l http.Handler, change ...func(*tls.Config)) (url string) {
	srv := httptest.NewUnstartedServer(l)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.TLS = &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.pool(),
		Certificates: []tls.Certificate{a.issue("ledger", x509.ExtKeyUsageServerAuth)},
	}
	for _, c := range change {
		c(srv.TLS)
	}
	srv.StartTLS()
	a.t.Cleanup(srv.CloseClientConnections)
	a.t.Cleanup(srv.Close)
	return "wss" + srv.URL[len("https"):] + wire.Path
}

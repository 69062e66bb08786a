package ledgersim

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/oklog/ulid/v2"

	"yupos/devices/paycode"
	"yupos/ledgercache/money"
	"yupos/sync/wire"
)

const (
	testTerminal = "10000001"
	testMerchant = "653000053310001"
	testPhone    = "13800000001"
	testPIN      = "123456"
	testFeeBP    = 38
)

// clock is the ledger's time under test.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.t }

func (c *clock) move(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.t = c.t.Add(d) }

// bench is a ledger with one enrolled terminal.
type bench struct {
	*Ledger
	t     testing.TB
	dir   string
	clock *clock
	stop  func()
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), clock: &clock{t: time.Now()}}
	b.start()
	t.Cleanup(func() { b.stop() })
	return b
}

// start opens the ledger in the bench's directory and serves it.
func (b *bench) start() {
	b.t.Helper()
	l, err := Open(Options{Dir: filepath.Join(b.dir, "ledger"), Listen: "127.0.0.1:0", Seed: 1, Now: b.clock.now})
	if err != nil {
		b.t.Fatal(err)
	}
	b.Ledger = l
	if err := l.Provision(testTerminal, testMerchant, "YUZHONG NOODLES", "渝中小面", "5411", testFeeBP, b.identity()); err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	b.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Errorf("Run ended with %v", err)
		}
		if err := l.Close(); err != nil {
			b.t.Errorf("Close ended with %v", err)
		}
		b.stop = func() {}
	}
}

func (b *bench) identity() string { return filepath.Join(b.dir, "identity") }

func (b *bench) sound() {
	b.t.Helper()
	a, err := b.Assert()
	if err != nil || !a.OK {
		b.t.Fatalf("the books do not hold: %v %v", err, a.Violations)
	}
}

// call drives the control API and decodes its answer.
func (b *bench) call(method, path, body string, into any) (status int, code string) {
	b.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	w := httptest.NewRecorder()
	b.Handler().ServeHTTP(w, r)
	if w.Code >= 400 {
		var p struct{ Code, Detail string }
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Detail == "" || w.Header().Get("Content-Type") != "application/problem+json" {
			b.t.Fatalf("%s %s: %d without a problem: %s", method, path, w.Code, w.Body)
		}
		return w.Code, p.Code
	}
	if into != nil {
		if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
			b.t.Fatalf("%s %s: %v", method, path, err)
		}
	}
	return w.Code, ""
}

func (b *bench) code(phone, kind string) wire.Code {
	b.t.Helper()
	var out struct{ Text string }
	if status, code := b.call("POST", "/_sim/wallets/"+phone+"/code", `{"kind":"`+kind+`"}`, &out); status != 200 {
		b.t.Fatalf("%s code: %d %s", kind, status, code)
	}
	return wire.Code(out.Text)
}

func (b *bench) balance(phone string) money.Fen {
	b.t.Helper()
	v, err := b.walletView(phone)
	if err != nil {
		b.t.Fatal(err)
	}
	return v.BalanceFen
}

func number() string { return ulid.Make().String() }

// pay makes a Pay that is valid now.
func (b *bench) payOf(code wire.Code, total money.Fen) wire.Pay {
	no := number()
	return wire.Pay{
		TradeNo: no, Attempt: 1, OutTradeNo: "T" + no, TotalFen: total, Code: code,
		ScannedAt: wire.Millis(b.clock.now().UnixMilli()), NotAfter: wire.Millis(b.clock.now().Add(time.Minute).UnixMilli()),
	}
}

// orderText is an ORDER signed by the bench's terminal.
func (b *bench) orderText(no string, total money.Fen, life time.Duration) string {
	b.t.Helper()
	text, err := paycode.MakeOrder(paycode.Order{
		MerchantID: testMerchant, TerminalID: testTerminal, MCC: "5411", MerchantName: "YUZHONG NOODLES", ULID: no,
		AmountFen: total, Expires: uint32(b.clock.now().Add(life).Unix()),
	}, b.terminalKey())
	if err != nil {
		b.t.Fatal(err)
	}
	return text
}

func (b *bench) terminalKey() ed25519.PrivateKey {
	b.t.Helper()
	key, err := openKey(filepath.Join(b.identity(), "terminal.key"))
	if err != nil {
		b.t.Fatal(err)
	}
	return key
}

// line is a fake terminal's connection.
type fakeLine struct {
	t    testing.TB
	ws   *websocket.Conn
	last uint64
	news []wire.Result // pushes read while waiting for an answer
}

func (b *bench) tls() *tls.Config {
	b.t.Helper()
	ca, err := os.ReadFile(filepath.Join(b.identity(), "ledger-ca.crt"))
	if err != nil {
		b.t.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(b.identity(), "terminal.crt"), filepath.Join(b.identity(), "terminal.key"))
	if err != nil {
		b.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
}

func (b *bench) dialWith(c *tls.Config) (*fakeLine, error) {
	d := websocket.Dialer{TLSClientConfig: c, Subprotocols: []string{wire.Subprotocol}, HandshakeTimeout: 5 * time.Second}
	ws, _, err := d.Dial(b.URL(), http.Header{})
	if err != nil {
		return nil, err
	}
	b.t.Cleanup(func() { ws.Close() })
	return &fakeLine{t: b.t, ws: ws}, nil
}

// dial connects without a hello.
func (b *bench) dial() *fakeLine {
	b.t.Helper()
	f, err := b.dialWith(b.tls())
	if err != nil {
		b.t.Fatal(err)
	}
	return f
}

func helloOf(sequence uint64, head string, news uint64) wire.Hello {
	return wire.Hello{TerminalID: testTerminal, MerchantID: testMerchant, Software: "test", Epoch: "01J00000000000000000000001", Sequence: sequence, Head: head, NewsCursor: news}
}

// connect dials and says hello.
func (b *bench) connect() *fakeLine {
	b.t.Helper()
	f := b.dial()
	if _, ok := f.ask(helloOf(0, "", 0)).(*wire.Welcome); !ok {
		b.t.Fatal("the hello was not welcome")
	}
	return f
}

func (f *fakeLine) send(body any) uint64 {
	f.t.Helper()
	f.last++
	data, err := wire.Encode(f.last, 0, body)
	if err == nil {
		err = f.ws.WriteMessage(websocket.TextMessage, data)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return f.last
}

// next reads the next frame; an error is how the connection ended.
func (f *fakeLine) next(wait time.Duration) (wire.Frame, any, error) {
	f.ws.SetReadDeadline(time.Now().Add(wait))
	_, data, err := f.ws.ReadMessage()
	if err != nil {
		return wire.Frame{}, nil, err
	}
	return wire.Decode(data)
}

// ask sends and waits for the answer; pushes on the way are kept.
func (f *fakeLine) ask(body any) any {
	f.t.Helper()
	return f.answerTo(f.send(body))
}

func (f *fakeLine) answerTo(id uint64) any {
	f.t.Helper()
	for {
		frame, body, err := f.next(10 * time.Second)
		if err != nil {
			f.t.Fatalf("no answer: %v", err)
		}
		if r, ok := body.(*wire.Result); ok {
			f.news = append(f.news, *r)
		} else if frame.Re == id {
			return body
		}
	}
}

func (f *fakeLine) outcome(body any) wire.Outcome {
	f.t.Helper()
	switch o := f.ask(body).(type) {
	case *wire.Outcome:
		return *o
	case *wire.Refused:
		f.t.Fatalf("%s refused: %s", wire.TypeOf(body), o.Code)
	}
	f.t.Fatalf("%s answered with something else", wire.TypeOf(body))
	return wire.Outcome{}
}

func (f *fakeLine) refund(body wire.Refund) wire.RefundOutcome {
	f.t.Helper()
	o, ok := f.ask(body).(*wire.RefundOutcome)
	if !ok {
		f.t.Fatal("no refund outcome")
	}
	return *o
}

func (f *fakeLine) refused(body any) string {
	f.t.Helper()
	r, ok := f.ask(body).(*wire.Refused)
	if !ok {
		f.t.Fatalf("%s was not refused", wire.TypeOf(body))
	}
	return r.Code
}

// push waits for the next news.
func (f *fakeLine) push() wire.Result {
	f.t.Helper()
	for len(f.news) == 0 {
		_, body, err := f.next(10 * time.Second)
		if err != nil {
			f.t.Fatalf("no news: %v", err)
		}
		if r, ok := body.(*wire.Result); ok {
			f.news = append(f.news, *r)
		}
	}
	r := f.news[0]
	f.news = f.news[1:]
	return r
}

// strangerCert is a certificate of another authority for the terminal's name.
func strangerCert(t testing.TB) tls.Certificate {
	t.Helper()
	a, err := openAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return certOf(t, a, testTerminal)
}

// certOf is a client certificate of an authority for a fresh key.
func certOf(t testing.TB, a authority, name string) tls.Certificate {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := a.issue(pkixName(name), x509.ExtKeyUsageClientAuth, public)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tls.X509KeyPair(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

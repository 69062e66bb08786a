package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"yupos/daemon/identity"
	"yupos/devices/paycode"
	"yupos/ledgercache"
	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
	"yupos/ledgercache/trust"
	"yupos/simulators/ledgersim"
	"yupos/sync/uplink"
	"yupos/sync/wire"
)

// full says whether the long sizes are wanted.
func full() bool { return os.Getenv("YUPOS_FULL") == "1" }

// backlog is a terminal and a ledger in one process, without a daemon: all that a long queue of offline payments touches.
type backlog struct {
	t      testing.TB
	ledger *ledgersim.Ledger
	book   *ledgercache.Book
	id     identity.Identity
	dir    string
	cards  []card
	log    *slog.Logger // nil unless a test is asked to tell more

	url        string // of a ledger in a process of its own, "" for the one here
	stopLedger func()
	lives      int // sales by live, of which so many were asked for
	asked      int
}

// card is a wallet with a certificate of its own, wide enough for a long queue.
type card struct {
	cert    []byte
	key     ed25519.PrivateKey
	counter atomic.Uint32
}

const drainLimit = 1_000_000

func newBacklog(t testing.TB) *backlog {
	t.Helper()
	b := &backlog{t: t, dir: t.TempDir()}
	if testing.Verbose() {
		b.log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	var err error
	if b.ledger, err = ledgersim.Open(ledgersim.Options{Dir: filepath.Join(b.dir, "ledger"), Listen: "127.0.0.1:0", Seed: 1}); err != nil {
		t.Fatal(err)
	}
	b.runLedger()
	t.Cleanup(func() { b.stopLedger() })
	idDir := filepath.Join(b.dir, "identity")
	must(t, b.ledger.Provision("10000001", "653000053310001", "NOODLES", "渝中小面", "5812", 38, idDir))
	must(t, identity.EnsureBookKey(identity.BookKeyFile(idDir, "", ""), false))
	if b.id, err = identity.Open(idDir); err != nil {
		t.Fatal(err)
	}
	b.call("POST", "/_sim/ledger/policy", fmt.Sprintf(`{"payment_fen":20000,"wallet_fen":4294967295,"wallet_count":%d,"terminal_fen":4294967295,"terminal_count":%d}`, drainLimit, drainLimit), nil)
	b.openBook()
	t.Cleanup(func() { b.book.Close() })
	for n := 1; n <= 4; n++ {
		b.cards = append(b.cards, card{})
		b.newCard(&b.cards[n-1], fmt.Sprintf("1380000000%d", n))
	}
	return b
}

func (b *backlog) openBook() {
	b.t.Helper()
	limits := payment.Limits{PaymentFen: money.Max, WalletFen: money.Max, WalletCount: drainLimit, TerminalFen: money.Max, TerminalCount: drainLimit, ConvertFen: money.Max}
	var err error
	b.book, err = ledgercache.Open(context.Background(), ledgercache.Options{
		Dir: filepath.Join(b.dir, "book"), Key: b.id.BookKey, TerminalID: "10000001", ShiftAutoOpen: true, Pins: b.id.Pins, Limits: limits, Sign: b.sign,
	})
	must(b.t, err)
}

// runLedger serves the ledger until stopLedger.
func (b *backlog) runLedger() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	l := b.ledger
	go func() { defer close(ended); _ = l.Run(ctx) }()
	b.stopLedger = func() { cancel(); <-ended; _ = l.Close() }
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (b *backlog) call(method, path, body string, into any) {
	b.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	w := httptest.NewRecorder()
	b.ledger.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		b.t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	if into != nil {
		must(b.t, json.Unmarshal(w.Body.Bytes(), into))
	}
}

// newCard gives the customer a second phone whose certificate allows what a long queue needs.
func (b *backlog) newCard(c *card, phone string) {
	b.t.Helper()
	var w struct{ Token string }
	b.call("GET", "/_sim/wallets/"+phone, "", &w)
	raw, err := os.ReadFile(filepath.Join(b.dir, "ledger", "ca", "issuer.key"))
	must(b.t, err)
	block, _ := pem.Decode(raw)
	issuer, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	must(b.t, err)
	public, key, err := ed25519.GenerateKey(nil)
	must(b.t, err)
	token, err := hex.DecodeString(w.Token)
	must(b.t, err)
	now := uint32(time.Now().Unix())
	c.key = key
	c.cert, err = paycode.MakeCert(paycode.Cert{
		Tier: 2, MaxCount: 65535, Token: [8]byte(token), WalletKey: public, NotBefore: now - 60, NotAfter: now + 70*3600, PerPaymentFen: 20000, AllowanceFen: money.Max,
	}, issuer.(ed25519.PrivateKey))
	must(b.t, err)
}

func (b *backlog) sign(a ledgercache.Acceptance) ([]byte, error) {
	return trust.Accept{
		Converted: a.Converted, TotalFen: a.TotalFen, At: a.At, BoundSeconds: uint32(a.ClockError / time.Second), TradeNo: a.TradeNo, TerminalID: "10000001",
		CodeHash: a.CodeHash, PolicyVersion: a.PolicyVersion, DenyVersion: a.DenyVersion, Sequence: a.Sequence, Head: a.Head,
	}.Sign(b.id.Key)
}

// line runs the uplink until the returned function is called.
func (b *backlog) line() (*uplink.Uplink, func()) {
	up := uplink.New(uplink.Options{
		URLs: []string{cmp.Or(b.url, b.ledger.URL())}, TLS: b.id.TLS(), Book: b.book,
		TerminalID: "10000001", MerchantID: "653000053310001", Software: "test", Log: b.log,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = up.Run(ctx) }()
	return up, func() { cancel(); <-done }
}

// learn connects until policy and deny list are in the book.
func (b *backlog) learn() {
	b.t.Helper()
	w := b.book.Watch()
	defer w.Close()
	_, stop := b.line()
	defer stop()
	for {
		p, err := b.book.Policy()
		must(b.t, err)
		d, err := b.book.DenyList()
		must(b.t, err)
		if p.Version > 0 && d.Version > 0 {
			return
		}
		select {
		case <-w.C:
		case <-time.After(10 * time.Second):
			b.t.Fatal("no policy came")
		}
	}
}

// accept takes n payments offline, as many at a time as share a sync.
func (b *backlog) accept(n int) {
	b.t.Helper()
	var next atomic.Int64
	var all sync.WaitGroup
	var failed atomic.Value
	for range 64 {
		all.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if err := b.one(int(i)); err != nil {
					failed.Store(err)
					return
				}
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *backlog) one(i int) error {
	c := &b.cards[i%len(b.cards)]
	now := time.Now()
	counter := c.counter.Add(1)
	text, err := paycode.MakeSigned(c.cert, counter, uint32(now.Unix()), 1000_00, c.key)
	if err != nil {
		return err
	}
	s, no := paycode.ParseSigned(text)
	if no != "" {
		return errors.New(string(no))
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return err
	}
	p, _, err := b.book.OpenOffline(context.Background(), ledgercache.New{OutTradeNo: fmt.Sprintf("D%08d", i), Mode: payment.ByCode, TotalFen: 3, BodyHash: []byte(text[:32])},
		ledgercache.Signed{
			Text: text, Hash: sha256.Sum256(raw), Wallet: s.Cert.WalletKey, Token: s.Cert.Token[:], Counter: s.Counter, MostFen: s.MostFen, ScannedAt: now,
			CertPaymentFen: s.Cert.PerPaymentFen, CertAllowanceFen: s.Cert.AllowanceFen, CertCount: int(s.Cert.MaxCount),
		}, ledgercache.Clock{Trusted: true})
	if err != nil {
		return err
	}
	if p.State != payment.AcceptedOffline && p.Reason == payment.ReasonCodeReplayed {
		return b.one(i + drainLimit) // another one's higher counter came first
	}
	if p.State != payment.AcceptedOffline {
		return fmt.Errorf("payment %d: %s %s", i, p.State, p.Reason)
	}
	return nil
}

// drained is what a drain was like.
type drained struct {
	took  time.Duration
	cpu   time.Duration   // of both ends, in this process
	heap  uint64          // the largest
	sales []time.Duration // from submission to SUCCESS, made while it lasted
}

// slowest is the sale that only so many in a hundred exceed.
func (d drained) slowest(inHundred int) time.Duration {
	if len(d.sales) == 0 {
		return 0
	}
	slices.Sort(d.sales)
	return d.sales[len(d.sales)-1-len(d.sales)*inHundred/100]
}

// drain uploads everything, while the counter sells every tenth of a second where it is asked to, and watches the heap.
func (b *backlog) drain(selling bool) (d drained) {
	b.t.Helper()
	runtime.GC()
	began, used := time.Now(), cpuTime(b.t)
	up, stop := b.line()
	defer stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		<-tick.C
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		d.heap = max(d.heap, m.HeapAlloc)
		e, err := b.book.Exposure()
		must(b.t, err)
		if e.Count == 0 {
			d.took, d.cpu = time.Since(began), cpuTime(b.t)-used
			return d
		}
		if selling && n%5 == 0 && up.State().Up {
			d.sales = append(d.sales, b.live())
		}
		if time.Since(began) > 10*time.Minute {
			b.t.Fatalf("%d are left", e.Count)
		}
	}
}

// cpuTime is what this process has used of all processors.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	must(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// live is one sale by an ONLINE code, from its submission to SUCCESS in the book.
func (b *backlog) live() time.Duration {
	b.t.Helper()
	var code struct{ Text string }
	b.call("POST", "/_sim/wallets/13800000001/code", `{"kind":"ONLINE"}`, &code)
	b.lives++
	no := fmt.Sprintf("L%05d", b.lives)
	w := b.book.Watch()
	defer w.Close()
	began := time.Now()
	p, _, err := b.book.OpenTrade(context.Background(), ledgercache.New{
		OutTradeNo: no, Mode: payment.ByCode, TotalFen: 1, BodyHash: []byte(no), Code: &ledgercache.Code{Text: code.Text, ScannedAt: began},
	})
	must(b.t, err)
	limit, asked := time.After(30*time.Second), false
	for p.State != payment.Success {
		asked = asked || p.LastOp == payment.OpQuery // an ended trade forgets it
		select {
		case <-w.C:
		case <-limit:
			b.t.Fatalf("%+v", p)
		}
		p, err = b.book.ByTradeNo(p.TradeNo)
		must(b.t, err)
	}
	if asked {
		b.asked++
	}
	return time.Since(began)
}

// BenchmarkDrain uploads a queue of offline payments, real evidence on both sides: the terminal's book and uplink, TLS,
// and the ledger that verifies every signature and syncs every effect, all in one process on the machine's processors.
func BenchmarkDrain(b *testing.B) {
	n := 4000
	if full() {
		n = 100_000
	}
	for range b.N {
		b.StopTimer()
		w := newBacklog(b)
		w.learn()
		w.accept(n)
		b.StartTimer()
		d := w.drain(false)
		b.StopTimer()
		b.ReportMetric(float64(n)/d.took.Seconds(), "payments/s")
		b.ReportMetric(float64(d.cpu.Microseconds())/float64(n), "cpu-µs/payment")
		b.ReportMetric(float64(d.heap)/(1<<20), "heap-MiB")
		w.sound(n)
	}
}

func (b *backlog) sound(n int) {
	b.t.Helper()
	a, err := b.ledger.Assert()
	if err != nil || !a.OK {
		b.t.Fatalf("%v %v", err, a.Violations[:min(5, len(a.Violations))])
	}
	trades, err := b.ledger.Trades("10000001")
	must(b.t, err)
	paid := 0
	for _, t := range trades {
		if t.State == wire.StateSuccess {
			paid++
		}
	}
	if paid != n {
		b.t.Fatalf("the ledger has %d payments of %d", paid, n)
	}
}

func TestABacklogThatWasTakenOfflineIsPaidToTheFen(t *testing.T) {
	w := newBacklog(t)
	w.learn()
	w.accept(200)
	w.drain(false)
	w.sound(200)
}

// TestWhileALongQueueDrainsTheCounterSells: live payments first, with a queue of 2,000 offline payments, 100,000 with
// YUPOS_FULL=1. The heap that it tells is of both ends, the ledger's store included.
func TestWhileALongQueueDrainsTheCounterSells(t *testing.T) {
	n := 2000
	if full() {
		n = 100_000
	}
	w := newBacklog(t)
	w.learn()
	w.accept(n)
	d := w.drain(true)
	t.Logf("%d offline payments in %s (%.0f/s); %d sales meanwhile, half within %s, all but one in a hundred within %s, the slowest %s; heap at most %d MiB",
		n, d.took.Round(time.Millisecond), float64(n)/d.took.Seconds(), len(d.sales), d.slowest(50), d.slowest(1), d.slowest(0), d.heap>>20)
	w.sound(n + len(d.sales))
	if len(d.sales) == 0 {
		t.Error("nothing was sold meanwhile")
	}
	if w.asked > 0 {
		t.Errorf("%d sales waited so long behind the uploads that they were asked for", w.asked)
	}
}

// BenchmarkDrainFromATerminalAlone drains a queue to a ledger in a process of its own, so that heap and processor time are the
// terminal's: its book and its line. YUPOS_PAYMENTS says how many, 4,000 by default.
func BenchmarkDrainFromATerminalAlone(b *testing.B) {
	n := 4000
	if _, err := fmt.Sscan(os.Getenv("YUPOS_PAYMENTS"), &n); err != nil && os.Getenv("YUPOS_PAYMENTS") != "" {
		b.Fatal(err)
	}
	program := filepath.Join(b.TempDir(), "possim")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	for range b.N {
		b.StopTimer()
		w := newBacklog(b)
		w.learn()
		w.accept(n)
		stop := w.ledgerAway(program)
		b.StartTimer()
		d := w.drain(false)
		b.StopTimer()
		stop()
		b.ReportMetric(float64(n)/d.took.Seconds(), "payments/s")
		b.ReportMetric(float64(d.cpu.Microseconds())/float64(n), "cpu-µs/payment")
		b.ReportMetric(float64(d.heap)/(1<<20), "heap-MiB")
		w.sound(n)
	}
}

// ledgerAway gives the ledger a process of its own until the function is called, which brings it back.
func (b *backlog) ledgerAway(program string) func() {
	b.t.Helper()
	b.stopLedger()
	b.stopLedger = func() {}
	c := exec.Command(program, "ledger", "--dir", filepath.Join(b.dir, "ledger"), "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0")
	out, err := c.StdoutPipe()
	must(b.t, err)
	must(b.t, c.Start())
	var first string
	_, err = fmt.Fscanf(bufio.NewReader(out), "账本 ledger %s", &first)
	must(b.t, err)
	b.url = first
	return func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		_ = c.Wait()
		b.url = ""
		b.ledger, err = ledgersim.Open(ledgersim.Options{Dir: filepath.Join(b.dir, "ledger"), Listen: "127.0.0.1:0", Seed: 1})
		must(b.t, err)
		b.runLedger()
	}
}

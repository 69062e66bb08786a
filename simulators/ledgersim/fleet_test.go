package ledgersim

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/gorilla/websocket"

	"yupos/sync/wire"
)

// fleetEnv names the file of a fleet: the test program then is the fleet, a process of its own, so that the memory of the
// ledger's is the ledger's alone.
const fleetEnv = "YUPOS_TEST_FLEET"

func TestMain(m *testing.M) {
	if file := os.Getenv(fleetEnv); file != "" {
		if err := runFleet(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fleetFile is what the fleet must know. All terminals have one key, each its own certificate.
type fleetFile struct {
	URL   string
	CA    []byte
	Key   []byte
	Certs map[string][]byte
	Bare  bool // connect and upgrade, without a word
}

// runFleet keeps every terminal of the file connected until standard input ends, and says the number that is whenever all
// have come back.
func runFleet(file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var f fleetFile
	if err := json.Unmarshal(raw, &f); err != nil {
		return err
	}
	ca, err := x509.ParseCertificate(f.CA)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	var up atomic.Int64
	for id, der := range f.Certs {
		config := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: ed25519.PrivateKey(f.Key)}}}
		go func() {
			for {
				connected := false
				_ = fleetLine(f, id, config, func() {
					connected = true
					if n := up.Add(1); n == int64(len(f.Certs)) {
						fmt.Println("up", n)
					}
				})
				if connected {
					up.Add(-1)
				}
				time.Sleep(100 * time.Millisecond) // no backoff: this is the fleet at its worst
			}
		}()
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// fleetLine is one connection until it ends.
func fleetLine(f fleetFile, id string, config *tls.Config, up func()) error {
	d := websocket.Dialer{TLSClientConfig: config, Subprotocols: []string{wire.Subprotocol}, HandshakeTimeout: time.Minute, ReadBufferSize: 1024, WriteBufferSize: 1024}
	ws, _, err := d.Dial(f.URL, nil)
	if err != nil {
		return err
	}
	defer ws.Close()
	if f.Bare {
		up()
		_, _, err = ws.ReadMessage()
		return err
	}
	hello, err := wire.Encode(1, 0, wire.Hello{TerminalID: id, MerchantID: testMerchant, Software: "fleet", Epoch: "01J00000000000000000000001", Version: wire.Version, MinVersion: 1})
	if err != nil {
		return err
	}
	if err := ws.WriteMessage(websocket.TextMessage, hello); err != nil {
		return err
	}
	stop := make(chan struct{})
	defer close(stop)
	welcomed := false
	for {
		_, data, err := ws.ReadMessage()
		if err != nil {
			return err
		}
		if _, body, err := wire.Decode(data); err != nil {
			return err
		} else if _, is := body.(*wire.Welcome); is && !welcomed {
			welcomed = true
			up()
			go func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(15 * time.Second):
						_ = ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(5*time.Second))
					}
				}
			}()
		}
	}
}

// fleet is a running fleet.
type fleet struct {
	t     testing.TB
	lines *bufio.Scanner
	n     int
}

func (b *bench) fleet(n int, url string, bare bool) *fleet {
	b.t.Helper()
	f := fleetFile{URL: url, CA: b.ca.cert.Raw, Certs: map[string][]byte{}, Bare: bare}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	f.Key = private
	b.mu.Lock()
	err = b.db.Update(func(txn *badger.Txn) error {
		for i := range n {
			id := fmt.Sprintf("2%07d", i)
			if f.Certs[id], err = b.ca.issue(pkix.Name{CommonName: id, Organization: []string{testMerchant}}, x509.ExtKeyUsageClientAuth, public); err != nil {
				return err
			}
			if err := put(txn, terminalKey(id), terminal{ID: id, MerchantID: testMerchant, Public: hex.EncodeToString(public), Confirm: strings.Repeat("00", 32)}); err != nil {
				return err
			}
		}
		return nil
	})
	b.mu.Unlock()
	if err != nil {
		b.t.Fatal(err)
	}
	raw, err := json.Marshal(f)
	if err != nil {
		b.t.Fatal(err)
	}
	file := filepath.Join(b.t.TempDir(), "fleet.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		b.t.Fatal(err)
	}
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), fleetEnv+"="+file)
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { in.Close(); _ = c.Wait() })
	return &fleet{t: b.t, lines: bufio.NewScanner(out), n: n}
}

// up waits until every terminal is connected.
func (f *fleet) up() {
	f.t.Helper()
	if !f.lines.Scan() || f.lines.Text() != fmt.Sprintf("up %d", f.n) {
		f.t.Fatalf("the fleet says %q", f.lines.Text())
	}
}

// held is what the process holds: heap and stacks, after what is garbage was let go.
func held() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

func TestAFleetComesBackTogether(t *testing.T) {
	b := newBench(t)
	f := b.fleet(100, b.URL(), false)
	f.up()
	for range 2 {
		b.call("POST", "/_sim/link", `{"up":false}`, nil)
		b.call("POST", "/_sim/link", `{"up":true}`, nil)
		f.up()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.conns) != 100 {
		t.Errorf("%d connections", len(b.conns))
	}
}

// BenchmarkFleet is 2,000 idle terminals on one ledger: what each of them holds there, and how long it takes until all are
// back when all lose their connection at once and come back at once. The terminals are a process of their own on the same
// machine. Beside it the bare library, which is upgraded over the same TLS and then reads.
func BenchmarkFleet(b *testing.B) {
	const n = 2000
	b.Run("ledger", func(b *testing.B) {
		l := newBench(b)
		before := held()
		f := l.fleet(n, l.URL(), false)
		f.up()
		each := float64(held()-before) / n / 1024
		b.ResetTimer()
		for range b.N {
			l.call("POST", "/_sim/link", `{"up":false}`, nil)
			l.call("POST", "/_sim/link", `{"up":true}`, nil)
			f.up()
		}
		b.ReportMetric(each, "KiB/terminal")
		b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "hellos/s")
	})
	b.Run("bare", func(b *testing.B) {
		l := newBench(b)
		var mu sync.Mutex
		conns := map[*websocket.Conn]bool{}
		server := &http.Server{TLSConfig: l.server.TLSConfig, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ws, err := upgrader.Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer ws.Close()
			mu.Lock()
			conns[ws] = true
			mu.Unlock()
			_, _, _ = ws.ReadMessage()
		})}
		listener := listenAny(b)
		go server.ServeTLS(listener, "", "")
		defer server.Close()
		before := held()
		f := l.fleet(n, "wss://"+listener.Addr().String()+wire.Path, true)
		f.up()
		each := float64(held()-before) / n / 1024
		b.ResetTimer()
		for range b.N {
			mu.Lock()
			for ws := range conns {
				ws.Close()
			}
			clear(conns)
			mu.Unlock()
			f.up()
		}
		b.ReportMetric(each, "KiB/terminal")
		b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "upgrades/s")
	})
}

func listenAny(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

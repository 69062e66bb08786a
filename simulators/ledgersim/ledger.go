// Package ledgersim plays the central ledger of the city wallet: stateful, strict, durable, double entry in integer fen.
//
// Guarantees: every operation is one balanced set of entries, written with its own record and its idempotency in one
// synced transaction; one payment number has one effect, whatever is repeated, reordered or cut off; what the ledger
// verifies (SIGNED and ORDER codes, certificates) it verifies with code of its own, not with the terminal's; it survives a
// kill. It is not the bank: README says what it leaves out. All methods are safe for concurrent use.
package ledgersim

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"

	"yupos/sync/wire"
)

// Options say where a ledger lives.
type Options struct {
	Dir    string // store, CA and role keys; made at first use
	Listen string // host:port; port 0 is any free one
	Seed   int64  // of the codes, names and faults that chance decides
	Log    *slog.Logger
	Now    func() time.Time
}

// Ledger is the central ledger and its customers.
type Ledger struct {
	o    Options
	log  *slog.Logger
	db   *badger.DB
	ca   authority
	role map[string]ed25519.PrivateKey

	listener net.Listener
	server   *http.Server

	mu      sync.Mutex // held for every operation on the books
	random  *rand.Rand
	conns   map[string]*conn // by terminal
	closed  session          // for maintenance
	link    linkState
	ice     ice
	waits   waits
	faults  []*Fault
	blocked bool            // a wallet was blocked in the batch in hand
	slow    map[string]slow // addresses that sent wrong activation codes
	closing sync.Once

	publics sync.Map // keys of terminals, by id
	certs   struct { // wallet certificates that were verified, by hash
		sync.Mutex
		seen map[[32]byte]bool
	}
}

// Open opens the ledger in o.Dir, or founds one with its four customers, and binds its address.
func Open(o Options) (*Ledger, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	l := &Ledger{
		o: o, log: o.Log, conns: map[string]*conn{}, link: linkState{Up: true}, role: map[string]ed25519.PrivateKey{},
		waits: defaultWaits,
	}
	l.ice.changed = sync.NewCond(&l.ice.mu)
	if err := l.open(); err != nil {
		l.Close()
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	return l, nil
}

func (l *Ledger) open() (err error) {
	if l.ca, err = openAuthority(filepath.Join(l.o.Dir, "ca")); err != nil {
		return err
	}
	for _, role := range []string{"issuer", "receipt", "policy", "root"} {
		if l.role[role], err = openKey(filepath.Join(l.o.Dir, "ca", role+".key")); err != nil {
			return err
		}
	}
	if l.db, err = openStore(filepath.Join(l.o.Dir, "store")); err != nil {
		return err
	}
	openings, err := l.found()
	if err != nil {
		return err
	}
	l.random = rand.New(rand.NewPCG(uint64(l.o.Seed), openings)) // the same seed repeats a run, a restart never repeats a code
	if l.listener, err = net.Listen("tcp", l.o.Listen); err != nil {
		return err
	}
	cert, err := l.ca.server()
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AddCert(l.ca.cert)
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+wire.Path, l.serveTerminal)
	l.enrollHandlers(mux)
	l.server = &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(l.log.Handler(), slog.LevelDebug),
		TLSConfig:    l.tlsFor(cert, pool),
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){wire.EnrollProtocol: l.serveEnrolment},
	}
	return nil
}

// Addr is the address that terminals connect to.
func (l *Ledger) Addr() string { return l.listener.Addr().String() }

// URL is the same as a websocket address.
func (l *Ledger) URL() string { return "wss://" + l.Addr() + wire.Path }

// Run serves terminals until ctx ends.
func (l *Ledger) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		<-ctx.Done()
		l.server.Close()
		l.hangUp()
	}()
	err := l.server.ServeTLS(gate{l.listener, l}, "", "")
	if ctx.Err() != nil && errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Close ends everything. What was answered is durable already.
func (l *Ledger) Close() error {
	var err error
	l.closing.Do(func() {
		if l.server != nil {
			l.server.Close()
		}
		if l.listener != nil {
			l.listener.Close()
		}
		l.hangUp()
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.db != nil {
			err = l.db.Close()
		}
	})
	return err
}

// hangUp closes every terminal's connection.
func (l *Ledger) hangUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.close()
	}
}

func (l *Ledger) now() time.Time { return l.o.Now().UTC().Truncate(time.Millisecond) }

// gate lets nobody in while the link is down.
type gate struct {
	net.Listener
	ledger *Ledger
}

// Accept answers the next connection that the link lets through.
func (g gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		g.ledger.mu.Lock()
		up := g.ledger.link.Up
		g.ledger.mu.Unlock()
		if up {
			return &frozen{Conn: c, ice: &g.ledger.ice}, nil
		}
		c.Close()
	}
}

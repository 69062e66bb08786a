// Package till is the counter: it turns scans, keys, the clock and changes of the book into the next step of a sale.
//
// Guarantees: the till never talks to the network; what it does is one step of the book each, so that a kill between any
// two lines leaves a trade that the next start goes on with; nothing that matters lives only in memory; a sale never
// waits for paper, a screen or a voice. What the customer sees is derived from the book by the pure function View, never
// poked. All methods are safe for concurrent use; Run must be running for scans, expiry, the screen and the printer.
package till

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"yupos/devices/display"
	"yupos/devices/paycode"
	"yupos/devices/printer"
	"yupos/devices/scanner"
	"yupos/ledgercache"
	"yupos/ledgercache/payment"
)

// ErrTradePaid says that a cancel came too late: the trade is paid, and only a refund gives money back.
var ErrTradePaid = errors.New("till: trade is paid")

// Shop is who takes the money, as the codes and the receipts name it.
type Shop struct {
	TerminalID  string // 8 digits
	MerchantID  string // 15 digits
	MCC         string // 4 digits
	Name        string // printable ASCII, 1 to 25: what an ORDER may carry
	DisplayName string // what people read
}

// LinkState is the line to the ledger as the till sees it. It is a value: reading it never asks the network.
type LinkState struct {
	Up     bool
	Since  time.Time
	Reason string // a stable code while the line is down
	Text   string // the same for people
	TextEN string
	Aside  []SetAside // messages that the ledger has definitely refused, oldest first
	Notice *Notice    // what the ledger has announced; nil for nothing
}

// SetAside is a message that the ledger has definitely refused. It holds up no other; its trade goes on by its schedule.
type SetAside struct {
	At       time.Time `json:"at"`
	TradeNo  string    `json:"trade_no,omitempty"`
	RefundNo string    `json:"refund_no,omitempty"`
	Op       string    `json:"op"`
	Code     string    `json:"code"`
	Detail   string    `json:"detail"`
}

// Notice is a time at which the ledger will close.
type Notice struct {
	StartsAt time.Time
	Text     string
	TextEN   string
}

// Link is the line to the ledger.
type Link interface {
	State() LinkState
	Nudge(tradeNo string)             // ask about an open trade soon
	Watch() (<-chan struct{}, func()) // a tick for each change of State
}

// Printer puts a document on paper. Print blocks until it is known what became of it, and makes the job's sent durable in
// the book just before its first byte leaves.
type Printer interface {
	Ready() bool
	Print(ctx context.Context, jobID string, doc printer.Document) ledgercache.PrintState
}

// Screen is what the customer looks at. Set never blocks and the last one wins.
type Screen interface{ Set(display.Show) }

// Device is one thing at the counter, for people.
type Device struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"`  // scanner, printer, display
	State  string `json:"state"` // ok, absent, fault
	Text   string `json:"text"`
	TextEN string `json:"text_en"`
}

// Options are the parts of a till. Scans, Printer, Screen and Devices may be nil: a counter can do without.
type Options struct {
	Book     *ledgercache.Book
	Link     Link
	Shop     Shop
	Key      ed25519.PrivateKey               // the terminal's, signs ORDERs
	Issuers  func(now time.Time) paycode.Keys // pinned keys that may sign wallet certificates
	Receipts func(now time.Time) paycode.Keys // pinned keys of the ledger that may sign RECEIPTs
	Secret   [32]byte                         // the confirmation secret
	Clock    func() ledgercache.Clock         // how far Now can be trusted; nil: not at all
	Scans    <-chan scanner.Scan
	Printer  Printer
	Screen   Screen
	Devices  func() []Device
	Notices  func() []Warning // what the rest of the daemon wants people to know; may be nil
	Now      func() time.Time
	Log      *slog.Logger
}

// Till is the counter. Make it with New.
type Till struct {
	o    Options
	book *ledgercache.Book
	log  *slog.Logger

	mu      sync.Mutex
	watch   map[chan struct{}]struct{}
	counter Counter
	notice  payment.Words // of the last scan that nobody wanted
}

// New makes a till of its parts.
func New(o Options) *Till {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Issuers == nil {
		o.Issuers = func(time.Time) paycode.Keys { return nil }
	}
	if o.Receipts == nil {
		o.Receipts = func(time.Time) paycode.Keys { return nil }
	}
	if o.Clock == nil {
		o.Clock = func() ledgercache.Clock { return ledgercache.Clock{} }
	}
	return &Till{o: o, book: o.Book, log: o.Log, watch: map[chan struct{}]struct{}{}, counter: Counter{State: display.Idle}}
}

// Book is the book that the till writes.
func (t *Till) Book() *ledgercache.Book { return t.book }

// Run works the counter and the receipt printer until ctx ends. It fails only when the book does.
func (t *Till) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return t.work(ctx) })
	g.Go(func() error { return t.selfCheck(ctx) })
	if t.o.Printer != nil {
		g.Go(func() error { return t.print(ctx) })
	}
	return g.Wait()
}

// Watch gives a tick, at most one waiting, for each change of anything that a page shows. Call the function to end it.
func (t *Till) Watch() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	t.mu.Lock()
	t.watch[c] = struct{}{}
	t.mu.Unlock()
	return c, func() {
		t.mu.Lock()
		delete(t.watch, c)
		t.mu.Unlock()
	}
}

// Changed tells every watcher that something changed; the daemon calls it for its devices.
func (t *Till) Changed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.watch {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Package ledgercache is the shop's book: one writer that decides, journals, applies and answers, for a whole group of
// steps at once. The journal is the truth on disk; Badger holds the state derived from it and can be rebuilt at any time.
//
// Guarantees: a step that has returned is durable; a step that failed has changed nothing; a reader never sees an effect
// that is not durable; one out_trade_no is one payment; an illegal move is never journalled; watchers get ids, never
// truth, and never block the writer. Any error of the journal or of applying seals the book in this process for good:
// nothing more is acknowledged (ErrSealed) and Failed is closed, so that the daemon can start itself again.
//
// All methods of Book are safe for concurrent use. DESIGN.md says why it is built like this.
package ledgercache

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/oklog/ulid/v2"

	"yupos/ledgercache/journal"
	"yupos/ledgercache/payment"
	"yupos/ledgercache/trust"
)

// Errors of the book. A refusal of a step is one of these or one of package payment's.
var (
	// ErrNotFound says that the book, and not only its cache, has no such trade, refund or job.
	ErrNotFound = errors.New("ledgercache: not found")
	// ErrOutTradeNoUsed says that the register's number stands for another request already.
	ErrOutTradeNoUsed = errors.New("ledgercache: out_trade_no used with another body")
	// ErrOutRefundNoUsed is the same for a refund number.
	ErrOutRefundNoUsed = errors.New("ledgercache: out_refund_no used with another body")
	// ErrCounterBusy says that another trade has the scanner or the display.
	ErrCounterBusy = errors.New("ledgercache: counter busy")
	// ErrNoShift says that no shift is open and none may be opened by a sale.
	ErrNoShift = errors.New("ledgercache: no open shift")
	// ErrShiftOpen says that a shift is open already.
	ErrShiftOpen = errors.New("ledgercache: a shift is open")
	// ErrNotPaid says that a trade cannot be refunded because it is not SUCCESS.
	ErrNotPaid = errors.New("ledgercache: trade is not paid")
	// ErrRefundTooMuch says that a refund exceeds what is left of the trade.
	ErrRefundTooMuch = errors.New("ledgercache: refund exceeds what is left")
	// ErrRefundTooMany says that the trade has payment.MaxRefundParts refunds already.
	ErrRefundTooMany = errors.New("ledgercache: too many refunds")
	// ErrRefundTooLate says that the trade is older than payment.RefundWindow.
	ErrRefundTooLate = errors.New("ledgercache: refund window closed")
	// ErrReadOnly says that the book was opened to be read only, wrapped around why: ErrDiskFull, ErrDamaged or ErrDiskFailed.
	ErrReadOnly = errors.New("ledgercache: book is read-only")
	// ErrSealed says that writing failed once and this process acknowledges nothing more.
	ErrSealed = errors.New("ledgercache: book is sealed after a failed write")
	// ErrClosed says that the book was closed.
	ErrClosed = errors.New("ledgercache: book is closed")
)

// maxGroup is how many steps share one sync. A group must fit one Badger transaction (storage.md A1: 613 payments).
const maxGroup = 64

// Options say which book to open and how.
type Options struct {
	Dir           string   // holds journal/ and cache/
	Mirror        string   // a second place for the journal, on another device; "" for none
	Archive       string   // where closed segments of the journal may have been moved to; "" for nowhere
	Key           [32]byte // the book key; the cache's key is derived from it
	TerminalID    string   // 8 digits
	Software      string   // noted in the journal at every start
	ShiftAutoOpen bool     // the first sale without a shift opens one
	AutoPrint     bool     // every SUCCESS queues one receipt in the same step
	Now           func() time.Time
	Clock         *trust.Clock // the terminal's time: the book restores it and goes by it, whatever Now is; nil = Now, trusted by the caller's word
	Log           *slog.Logger

	// Reserve is how many bytes of the disk are kept free: below it nothing new is taken, below a quarter of it the book
	// seals itself. A quarter of it is kept as ballast. 0 = the disk is not watched.
	Reserve int64
	Free    func(dir string) (uint64, error) // free bytes of the disk; nil = statfs

	Pins trust.Pins // whom the terminal believes since its enrolment; key sets of the ledger come on top

	// Offline acceptance. Limits are the configuration's, the zero Limits product.md's; the ledger's policy wins where it is
	// stricter. Sign makes the ACCEPT evidence, body and signature, with the terminal's key; nil accepts nothing offline.
	Limits payment.Limits
	Sign   func(Acceptance) ([]byte, error)

	Suspect  bool     // the cache is not to be believed: a disk that failed may have forgotten a part of it
	Temp     string   // where Verify works; "" = the system's directory for temporary files
	Progress Progress // told about once a second while Open or the check after it goes over the whole journal; may be nil

	ReadOnly error      // why the book is only to be read; nil = open it whole
	FS       journal.FS // under the journal; nil = the operating system's
}

// Book is the shop's book. Make it with Open, end it with Close.
type Book struct {
	opts    Options
	log     *slog.Logger
	journal *journal.Journal
	db      *badger.DB
	known   *known // what the journal has told of; not used while the book reads only
	started time.Time
	before  map[string]int // pays without an answer that an earlier process has submitted → attempt
	report  journal.Report
	lock    io.Closer
	reading *reading             // nil while Badger is open
	jobs    ulid.MonotonicReader // numbers of print jobs; the writer's own
	steps   chan *step
	oldest  oldest
	lastAt  time.Time // the latest time of a record; the writer's own once it runs
	closing chan struct{}
	done    chan struct{} // the writer has ended
	failed  chan struct{}
	guard   *guard
	watched chan struct{} // watchDisks has ended

	checked  chan struct{} // the cache is known to be what the journal gives
	compared chan struct{} // compareCache has ended
	still    context.CancelFunc

	mu       sync.Mutex
	err      error // why the book is sealed or read-only
	closed   bool
	watchers map[*Watcher]struct{}
}

// Open opens the book in o.Dir, making it if there is none, and brings the cache up to the journal. Where that cannot be,
// because the disk is full or fails or the journal is damaged, the book opens to be read only: reads work as far as the
// journal verifies, Badger stays closed, nothing is written, every step answers ErrReadOnly, Err says why, and Mended when
// it is worth trying again. The error is left for what must not be read at all: another process has the book (ErrInUse),
// the key is wrong, the format is of another version.
func Open(ctx context.Context, o Options) (*Book, error) {
	if o.Clock != nil {
		o.Now = o.Clock.Time
	} else if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	b := &Book{
		opts: o, log: o.Log, steps: make(chan *step), closing: make(chan struct{}), done: make(chan struct{}),
		failed: make(chan struct{}), watchers: map[*Watcher]struct{}{}, jobs: ulid.Monotonic(rand.Reader, 0),
		guard: newGuard(o), watched: make(chan struct{}),
		checked: make(chan struct{}), compared: make(chan struct{}), still: func() {},
	}
	if err := b.openOrRead(ctx); err != nil {
		return nil, fmt.Errorf("open book: %w", err)
	}
	recollected := b.recollect()
	b.started = b.opts.Now().Truncate(time.Millisecond)
	b.sayFindings()
	go b.write()
	go b.watchDisks()
	if recollected != nil {
		return nil, fmt.Errorf("open book: %w", errors.Join(recollected, b.Close()))
	}
	if b.Err() != nil {
		close(b.compared)
		return b, nil
	}
	var comparing context.Context
	comparing, b.still = context.WithCancel(context.WithoutCancel(ctx))
	go b.compareCache(comparing)
	if err := b.noteStart(ctx); err != nil && b.Err() == nil {
		b.Close()
		return nil, fmt.Errorf("open book: %w", err)
	}
	return b, nil
}

// openOrRead opens the book whole, or to be read only.
func (b *Book) openOrRead(ctx context.Context) error {
	mkdirErr := os.MkdirAll(b.opts.Dir, 0o700)
	lock, err := lockBook(b.opts.Dir)
	if err != nil {
		return err
	}
	b.lock = lock
	cause := b.opts.ReadOnly
	if cause == nil {
		cause = mkdirErr
	}
	if cause == nil {
		cause = b.roomToOpen()
	}
	if cause == nil {
		cause = b.open(ctx)
	}
	if cause != nil && canRead(ctx, cause) {
		cause = b.read(ctx, cause)
	}
	if cause != nil {
		return errors.Join(cause, lock.Close())
	}
	return nil
}

// Close ends the writer after the group in hand, marks the stop as clean and closes journal and cache.
func (b *Book) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	for w := range b.watchers {
		w.drop()
	}
	b.mu.Unlock()
	b.still()
	<-b.compared
	close(b.closing)
	<-b.done
	<-b.watched
	closeCache := b.closeCache
	switch err := b.Err(); {
	case b.reading != nil:
		b.reading.end()
		closeCache = func() error { return nil }
	case err != nil:
		closeCache = func() error { return b.leaveCache(err) }
	}
	return errors.Join(b.closeJournal(), closeCache(), b.lock.Close())
}

// Started is when this process opened the book.
func (b *Book) Started() time.Time { return b.started }

// Failed is closed when the book is sealed: the process must start again.
func (b *Book) Failed() <-chan struct{} { return b.failed }

// Err is nil while the book takes steps, else why it does not.
func (b *Book) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// Report is what opening the journal found.
func (b *Book) Report() journal.Report { return b.report }

// Head is the end of the durable journal.
func (b *Book) Head() journal.Head { return headOf(b.journal) }

// Mirror is nil while the journal's copy has everything that was answered, or if there is none; else why it is left out.
func (b *Book) Mirror() error {
	if b.journal == nil {
		return nil
	}
	return b.journal.Mirror()
}

// Cursor names a place in a journal: how far the ledger holds its head, or where the journal stands.
type Cursor struct {
	Epoch    string `cbor:"1,keyasint"` // ULID
	Sequence uint64 `cbor:"2,keyasint"`
	Head     string `cbor:"3,keyasint"` // hex SHA-256
}

// Position is where the durable journal stands: what hello and anchor say.
func (b *Book) Position() Cursor { return cursorOf(headOf(b.journal)) }

// Base is where the present epoch began in the epoch before; ok is false in a book's first epoch.
func (b *Book) Base() (c Cursor, ok bool) {
	if b.journal == nil {
		return Cursor{}, false
	}
	base, ok := b.journal.Base()
	return cursorOf(base), ok
}

func cursorOf(h journal.Head) Cursor {
	return Cursor{Epoch: ulid.ULID(h.Epoch).String(), Sequence: h.Sequence, Head: hex.EncodeToString(h.Hash[:])}
}

func (b *Book) journalDir() string { return filepath.Join(b.opts.Dir, "journal") }
func (b *Book) cacheDir() string   { return filepath.Join(b.opts.Dir, "cache") }

// leaveCache ends Badger under a book that was sealed, if that is safe and ends: closing writes, which on a full disk is a
// fault that kills the process and on a failing one is tried again for ever. The cache is checked at the next start anyway.
func (b *Book) leaveCache(cause error) error {
	if errors.Is(cause, ErrDiskFull) {
		return nil
	}
	closed := make(chan error, 1)
	go func() { closed <- b.closeDB() }()
	late := time.NewTimer(leaveWithin)
	defer late.Stop()
	select {
	case err := <-closed:
		return err
	case <-late.C:
		return errApplySlow
	}
}

// leaveWithin bounds closing Badger under a sealed book: the shop waits for the new process meanwhile.
const leaveWithin = 500 * time.Millisecond

func (b *Book) closeJournal() error {
	if b.journal == nil {
		return nil
	}
	return b.journal.Close()
}

// seal records why nothing more is acknowledged. The first reason stays.
func (b *Book) seal(cause error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return
	}
	b.err = fmt.Errorf("%w: %w", ErrSealed, diskFull(cause))
	b.log.Error("book sealed", slog.Any("err", cause))
	close(b.failed)
}

package ledgercache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"yupos/ledgercache/journal"
	"yupos/ledgercache/payment"
)

// Why a book reads only, wrapped with ErrReadOnly and the cause. A full disk is ErrDiskFull.
var (
	// ErrDamaged says that the journal is damaged, has lost its tail or has forked. A person must decide.
	ErrDamaged = errors.New("ledgercache: journal is damaged")
	// ErrDiskFailed says that the disk refuses to be written to or to be read.
	ErrDiskFailed = errors.New("ledgercache: disk fails")
	// ErrNotHeld says that a book that reads only cannot tell whether there is such a thing: it holds a part.
	ErrNotHeld = errors.New("ledgercache: not in the part of the book that is held")
)

// heldTrades is how many trades a book that reads only keeps in memory, the newest ones and all that are open: with under 2 kB
// for each (DESIGN.md), 40 MB, a machine of 512 MB is far from its end whatever the journal holds.
const heldTrades = 20_000

// foldWithin is how long opening waits for the journal to be folded; a longer one goes on being folded while pages are
// served, and until then nothing is held.
const foldWithin = 3 * time.Second

// reading is the derived state of a book that reads only: Badger is closed, and nothing is written anywhere.
type reading struct {
	cause error
	never bool               // there was no book
	seen  string             // the journal's directory as it was read, to notice when a person has changed it
	stop  context.CancelFunc // of the folding
	ended chan struct{}      // the folding has ended

	mu       sync.RWMutex
	state    state
	complete bool // what is not here does not exist
}

// canRead reports whether a book that does not open for this cause is still worth reading.
func canRead(ctx context.Context, cause error) bool {
	for _, never := range []error{journal.ErrKey, journal.ErrVersion, journal.ErrLocked, journal.ErrOptions, ErrArchiveAway} {
		if errors.Is(cause, never) {
			return false
		}
	}
	return ctx.Err() == nil
}

func damaged(cause error) bool {
	return errors.Is(cause, journal.ErrDamaged) || errors.Is(cause, journal.ErrTailLost) || errors.Is(cause, journal.ErrForked)
}

// diskFull gives a full disk its name, whoever met it.
func diskFull(cause error) error {
	if !errors.Is(cause, ErrDiskFull) && (errors.Is(cause, syscall.ENOSPC) || errors.Is(cause, syscall.EDQUOT)) {
		return fmt.Errorf("%w: %w", ErrDiskFull, cause)
	}
	return cause
}

// named puts the name for people before a cause.
func named(cause error) error {
	cause = diskFull(cause)
	switch {
	case damaged(cause):
		return fmt.Errorf("%w: %w: %w", ErrReadOnly, ErrDamaged, cause)
	case errors.Is(cause, ErrDiskFull), errors.Is(cause, ErrDiskFailed):
		return fmt.Errorf("%w: %w", ErrReadOnly, cause)
	}
	return fmt.Errorf("%w: %w: %w", ErrReadOnly, ErrDiskFailed, cause)
}

// read opens the book to be read only: the journal is folded into memory as far as it verifies. It fails only where the
// book must not be read at all.
func (b *Book) read(ctx context.Context, cause error) error {
	b.guard.rest()
	r := &reading{cause: cause, seen: fingerprint(b.journalDir()), state: newInMemory(), stop: func() {}, ended: make(chan struct{})}
	b.reading = r
	found, err := b.readJournal()
	if err != nil && !canRead(ctx, err) {
		return err
	}
	b.err = named(errors.Join(cause, err))
	b.log.Error("book opened read-only", slog.Any("err", b.err))
	if err != nil || !found {
		r.never = err == nil
		r.complete = r.never // there never was a book: nothing is all there is
		close(r.ended)
		return nil
	}
	var folding context.Context
	folding, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	go b.foldToRead(folding)
	late := time.NewTimer(foldWithin)
	defer late.Stop()
	select {
	case <-r.ended:
	case <-late.C:
	}
	return nil
}

// readJournal opens the journal to be read, if there is one.
func (b *Book) readJournal() (found bool, err error) {
	entries, err := os.ReadDir(b.journalDir())
	if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	j, report, err := journal.Open(journal.Options{
		Dir: b.journalDir(), Mirror: b.opts.Mirror, Key: b.opts.Key, TerminalID: b.opts.TerminalID, Log: b.log, FS: b.opts.FS, Archive: b.opts.Archive, ReadOnly: true,
	})
	if err != nil {
		return false, err
	}
	b.journal, b.report = j, report
	return true, nil
}

// foldToRead folds the journal and then shows all of it at once: half a fold would tell old states as present ones.
func (b *Book) foldToRead(ctx context.Context) {
	r, began := b.reading, time.Now()
	defer close(r.ended)
	w := newWindow(heldTrades)
	if err := w.foldAll(ctx, b.journal); err != nil {
		b.log.Error("journal not folded into memory", slog.Any("err", err))
		return
	}
	r.mu.Lock()
	r.state, r.complete = w, !damaged(r.cause) && b.report.Problem == nil && w.dropped == 0
	r.mu.Unlock()
	b.log.Info("journal folded into memory", slog.Uint64("records", b.report.Records), slog.Int("trades_held", len(w.trades)),
		slog.Int("trades_dropped", w.dropped), slog.Duration("took", time.Since(began)))
}

// end stops the folding.
func (r *reading) end() {
	r.stop()
	<-r.ended
}

// view reads the state in memory. What is not found there is said to be missing only where all is there.
func (r *reading) view(read func(state) error) error {
	r.mu.RLock()
	state, complete := r.state, r.complete
	r.mu.RUnlock()
	err := read(state)
	if err != nil && errors.Is(err, ErrNotFound) && !complete {
		return fmt.Errorf("%w: %w", ErrReadOnly, ErrNotHeld)
	}
	return err
}

// Mended reports whether what made the book read-only seems to be gone, so that a full opening is worth trying: there is
// room, a person has changed the damaged journal, the disk takes a file again. It may be called at any time.
func (b *Book) Mended() bool {
	if b.reading == nil {
		return false
	}
	if !b.guard.idle() {
		s, _ := b.guard.look()
		if s.Free < b.guard.toStart(b.guard.held) {
			return false
		}
	}
	if !b.reading.never && !Exists(b.opts.Dir) {
		return false // the disk is away: what can be written now is the place where it belongs
	}
	if errors.Is(b.Err(), ErrDamaged) {
		return fingerprint(b.journalDir()) != b.reading.seen
	}
	return b.probe() == nil
}

// probe writes a small file through and takes it away: a new file each time, because a sync that failed is not tried again.
func (b *Book) probe() error {
	f, err := os.CreateTemp(b.opts.Dir, "probe-")
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 4096))
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name()))
}

// fingerprint is what a directory looks like from outside: names, sizes and times.
func fingerprint(dir string) string {
	var text bytes.Buffer
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && !d.IsDir() {
			fmt.Fprintf(&text, "%s %d %d\n", path, info.Size(), info.ModTime().UnixNano())
		}
		return err
	})
	if err != nil {
		fmt.Fprintln(&text, err)
	}
	return text.String()
}

// window is state in memory that lets go of trades which have ended and are not among the newest. What stands for a trade
// alone goes with it; totals stay. A journal that cannot reach the limit is folded whole.
type window struct {
	inMemory
	limit   int
	trades  map[string][]string // by trade: the keys that stand for it alone
	order   []string            // trades as they were opened
	late    map[string]bool     // trades that something happens to after they would have been dropped
	parents map[string]string   // refund or print job → trade
	current string              // whose record is being folded
	dropped int
}

func newWindow(limit int) *window {
	return &window{
		inMemory: newInMemory(), limit: limit, trades: map[string][]string{}, late: map[string]bool{}, parents: map[string]string{},
	}
}

// set keeps what may still be asked for. Spent codes are asked for only by a new payment, of which there is none.
func (w *window) set(k, v []byte) error {
	if bytes.HasPrefix(k, prefixSpent) {
		return nil
	}
	if w.current != "" && ofTrade(k, w.current) {
		if _, known := w.get(k); errors.Is(known, ErrNotFound) {
			w.trades[w.current] = append(w.trades[w.current], string(k))
		}
	}
	return w.inMemory.set(k, v)
}

// ofTrade reports whether a key leads to one trade, or to a refund or print job of it, and to nothing else: an index ends
// with the trade that it leads to.
func ofTrade(k []byte, trade string) bool {
	if strings.HasSuffix(string(k), trade) {
		return true
	}
	for _, p := range [][]byte{prefixOutTrade, prefixRefund, prefixOutRefund, prefixTradeRefund, prefixPrint, prefixOpenPrint} {
		if bytes.HasPrefix(k, p) {
			return true
		}
	}
	return false
}

// foldAll folds the whole journal. Where it is longer than the window, it is read twice: first to learn which old trades
// something happens to later, so that every fold finds what it needs.
func (w *window) foldAll(ctx context.Context, j *journal.Journal) error {
	if j.Head().Sequence > uint64(w.limit) {
		if err := w.each(ctx, j, w.note); err != nil {
			return err
		}
		w.order, w.parents = nil, map[string]string{}
		clear(w.trades)
	}
	return w.each(ctx, j, w.fold)
}

func (w *window) each(ctx context.Context, j *journal.Journal, do func(record) error) error {
	return j.Read(1, func(seq uint64, _ journal.Head, raw []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := decodeRecord(raw)
		if err == nil {
			err = do(r)
		}
		if err != nil {
			return fmt.Errorf("sequence %d: %w", seq, err)
		}
		return nil
	})
}

// note remembers a trade that something happens to when it is no longer among the newest.
func (w *window) note(r record) error {
	trade, opens, err := w.tradeOf(r)
	if err != nil || trade == "" {
		return err
	}
	if opens {
		w.order, w.trades[trade] = append(w.order, trade), nil
		if len(w.order) > w.limit {
			delete(w.trades, w.order[0])
			w.order = w.order[1:]
		}
	} else if _, near := w.trades[trade]; !near {
		w.late[trade] = true
	}
	return nil
}

func (w *window) fold(r record) error {
	trade, opens, err := w.tradeOf(r)
	if err != nil {
		return err
	}
	w.current = trade
	if _, err := fold(w, r); err != nil {
		return err
	}
	if opens {
		w.order = append(w.order, trade)
	}
	for len(w.order) > w.limit {
		if err := w.drop(w.order[0]); err != nil {
			return err
		}
		w.order = w.order[1:]
	}
	return nil
}

// drop lets go of a trade for which there is nothing left to do, and to which nothing happens any more.
func (w *window) drop(trade string) error {
	var p payment.Payment
	if err := get(w, key(prefixTrade, []byte(trade)), &p); err != nil {
		return err
	}
	if p.Open() || p.RefundingFen > 0 || w.late[trade] {
		return nil
	}
	for _, k := range w.trades[trade] {
		w.tree.Delete(k)
	}
	delete(w.trades, trade)
	w.dropped++
	return nil
}

// tradeOf is the trade that a record tells of, "" if it tells of none.
func (w *window) tradeOf(r record) (trade string, opens bool, err error) {
	if e, ok, err := eventOf(r); err != nil || ok {
		if err != nil {
			return "", false, err
		}
		raw, err := id(payment.TradeOf(e))
		_, opens := e.(payment.Opened)
		return string(raw), opens, err
	}
	switch r.Kind {
	case recRefundOpened:
		f, err := body[payment.Refund](r)
		if err != nil {
			return "", false, err
		}
		return w.child(f.RefundNo, f.TradeNo)
	case recRefundAsked:
		e, err := body[refundAsked](r)
		return w.parents[e.RefundNo], false, err
	case recRefundAnswer:
		e, err := body[payment.RefundAnswered](r)
		return w.parents[e.RefundNo], false, err
	case recPrintQueued:
		e, err := body[printQueued](r)
		if err != nil {
			return "", false, err
		}
		return w.child(e.ID, e.TradeNo)
	case recPrintSent:
		e, err := body[printSent](r)
		return w.parents[e.ID], false, err
	case recPrintDone:
		e, err := body[printDone](r)
		trade = w.parents[e.ID]
		delete(w.parents, e.ID)
		return trade, false, err
	}
	return "", false, nil
}

func (w *window) child(no, tradeNo string) (string, bool, error) {
	raw, err := id(tradeNo)
	w.parents[no] = string(raw)
	return string(raw), false, err
}

// headOf is a journal's head as a book that may have none tells it.
func headOf(j *journal.Journal) journal.Head {
	if j == nil {
		return journal.Head{}
	}
	return j.Head()
}

package ledgercache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// After an unclean stop the whole cache, keys and contents, is compared with what the journal gives, while the book sells
// online; offline acceptance waits for it. It is compared once a day too, because Badger moves what it holds, and a block
// that went bad meanwhile is left out without a word (storage.md A1). A difference ends the process, and the next one
// derives the cache anew.

// Times of comparing.
const (
	compareEvery = 24 * time.Hour
	compareAgain = time.Minute // after a comparison for which there was no room
)

// restEach is after how many records or keys a comparison rests for as long as it worked.
const restEach = 256

// Checked is closed when the cache is known to be what the journal gives: at once, except after an unclean stop.
func (b *Book) Checked() <-chan struct{} { return b.checked }

func (b *Book) isChecked() bool {
	select {
	case <-b.checked:
		return true
	default:
		return false
	}
}

// compareCache compares the cache at once, if the last stop asks for it, and then once a day, until ctx ends.
func (b *Book) compareCache(ctx context.Context) {
	defer close(b.compared)
	wait := compareEvery
	if !b.isChecked() {
		wait = 0
	}
	for paused(ctx, wait) {
		wait = compareEvery
		err := b.compareNow(ctx)
		switch {
		case ctx.Err() != nil || b.Err() != nil:
			return
		case errors.Is(diskFull(err), ErrDiskFull), errors.Is(err, ErrArchiveAway):
			b.log.Warn("cache not compared with the journal", slog.Any("err", err))
			wait = compareAgain
		case err != nil:
			b.distrust(err)
			return
		}
	}
}

// paused waits, and reports whether it could wait to the end.
func paused(ctx context.Context, wait time.Duration) bool {
	if wait == 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// compareNow compares one moment of the cache with what the journal gives up to it.
func (b *Book) compareNow(ctx context.Context) (err error) {
	if b.report.First > 1 { // the next start may have the archive again
		return fmt.Errorf("%w: the journal begins at sequence %d", ErrArchiveAway, b.report.First)
	}
	if err := b.roomToCompare(); err != nil {
		return err
	}
	began := time.Now()
	var moment *badger.Txn
	p := plan{memory: deriveMemory, work: Checking, witness: b.known, rest: &rest{since: began}}
	err = b.doAlone(ctx, func(t *tx) error {
		moment, p.upto = t.book.db.NewTransaction(false), t.book.journal.Head()
		return nil
	})
	if err != nil {
		return err
	}
	defer moment.Discard()
	defer caught(&err)()
	d, err := b.derive(ctx, p)
	if err != nil {
		return err
	}
	err = d.sameAs(ctx, moment)
	if err = errors.Join(err, d.close()); err != nil || b.isChecked() {
		return err
	}
	if err := b.putRun(runMark{}); err != nil {
		return err
	}
	close(b.checked)
	b.log.Info("cache is what the journal gives", slog.Uint64("records", p.upto.Sequence), slog.Duration("took", time.Since(began)))
	return nil
}

// rest lets a long work use half of the time only. A nil rest never rests.
type rest struct {
	since time.Time
	done  int
}

func (r *rest) take(ctx context.Context) {
	if r == nil {
		return
	}
	if r.done++; r.done%restEach == 0 {
		paused(ctx, time.Since(r.since))
		r.since = time.Now()
	}
}

// distrust seals the book and has the next start derive its cache anew.
func (b *Book) distrust(cause error) {
	if err := b.putRun(runMark{Lies: true}); err != nil {
		b.log.Error("not noted that the cache lies", slog.Any("err", err))
	}
	b.seal(cause)
}

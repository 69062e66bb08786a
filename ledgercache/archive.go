package ledgercache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"yupos/ledgercache/journal"
)

// ErrArchiveAway says that something needs the whole journal and its oldest segments are in an archive that is not here.
var ErrArchiveAway = errors.New("ledgercache: the journal's archive is not here")

// KeepFor is how long history stays where the book is.
const KeepFor = 400 * 24 * time.Hour

// Archive moves closed segments whose records are all older than before from the book in o.Dir, and its mirror, to o.Archive,
// where every later opening and proof reads them. The journal is proved first. It fails with ErrInUse beside a running daemon;
// killed at any moment, the same call goes on. It answers how many segments were moved.
func Archive(ctx context.Context, o Options, before time.Time) (moved int, err error) {
	if !Exists(o.Dir) {
		return 0, fmt.Errorf("%w: no book in %s", ErrNotFound, o.Dir)
	}
	lock, err := lockBook(o.Dir)
	if err != nil {
		return 0, err
	}
	defer lock.Close()
	jo := journal.Options{
		Dir: (&Book{opts: o}).journalDir(), Mirror: o.Mirror, Key: o.Key, TerminalID: o.TerminalID, Log: o.Log, FS: o.FS, Archive: o.Archive,
	}
	upTo, err := lastBefore(ctx, jo, before)
	if err != nil || upTo == 0 {
		return 0, err
	}
	return journal.Archive(ctx, jo, upTo)
}

// lastBefore is the last record of which, and of all before it, the time is before a time.
func lastBefore(ctx context.Context, o journal.Options, before time.Time) (upTo uint64, err error) {
	o.ReadOnly = true
	j, report, err := journal.Open(o)
	if err != nil {
		return 0, err
	}
	defer j.Close()
	if report.Problem != nil {
		return 0, fmt.Errorf("%w: %w", ErrDamaged, report.Problem)
	}
	found := errors.New("found")
	err = j.Read(max(report.First, 1), func(seq uint64, _ journal.Head, raw []byte) error {
		r, err := decodeRecord(raw)
		if err != nil {
			return fmt.Errorf("sequence %d: %w", seq, err)
		}
		if !r.at().Before(before) {
			return found
		}
		upTo = seq
		return ctx.Err()
	})
	if errors.Is(err, found) {
		err = nil
	}
	return upTo, err
}

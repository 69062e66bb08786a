package ledgercache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// step is one decision waiting for the writer. decide reads the state as all steps before it left it, and emits records.
type step struct {
	decide func(*tx) error
	alone  bool // it may fill a transaction: it shares its group with nobody
	err    error
	done   chan struct{}
}

// tx is what a step sees: the state with the group's own changes, and the records of the group so far. Its Badger
// transaction is committed only when the records are durable.
type tx struct {
	book    *Book
	state   state
	badger  *badger.Txn // what state writes to
	at      time.Time
	moved   []moved // what the group did to the queue of uploads
	timed   bool    // a signed time is among the records
	records [][]byte
	keys    [][]byte // decisive ones that the records make present
	changes []Change
}

// do hands a step to the writer and waits for its end. A step that was handed over is carried out even if ctx ends, and
// do waits for it: an answer that says "not done" must be true.
func (b *Book) do(ctx context.Context, decide func(*tx) error) error {
	return b.hand(ctx, &step{decide: decide, done: make(chan struct{})})
}

// doAlone is do for a step that may write much.
func (b *Book) doAlone(ctx context.Context, decide func(*tx) error) error {
	return b.hand(ctx, &step{decide: decide, alone: true, done: make(chan struct{})})
}

func (b *Book) hand(ctx context.Context, s *step) error {
	if err := b.Err(); err != nil {
		return err
	}
	select {
	case b.steps <- s:
	case <-b.closing:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	<-s.done
	return s.err
}

// write is the single writer: it takes all waiting steps as one group, for as long as the book is open.
func (b *Book) write() {
	defer close(b.done)
	for {
		select {
		case s := <-b.steps:
			group, next := b.waiting(s)
			b.group(group)
			if next != nil {
				b.group([]*step{next})
			}
		case <-b.closing:
			return
		}
	}
}

// waiting collects the steps that are ready now, at most maxGroup. A step that must be alone ends the group and is next.
func (b *Book) waiting(first *step) (group []*step, next *step) {
	group = []*step{first}
	for len(group) < maxGroup && !first.alone {
		select {
		case s := <-b.steps:
			if s.alone {
				return group, s
			}
			group = append(group, s)
		default:
			return group, nil
		}
	}
	return group, nil
}

// group carries out steps as one: decide each, journal all records with one sync, apply them in one transaction, answer.
func (b *Book) group(steps []*step) {
	b.measure()
	t, accepted := b.decide(steps)
	err := b.Err() // a step of the group may have found that the cache lies: then none of it was rightly decided
	if err == nil {
		err = b.commit(t)
	} else {
		t.badger.Discard()
	}
	if err != nil {
		b.seal(err)
		for _, s := range accepted {
			s.err = b.Err()
		}
		t.changes = nil
	}
	for _, s := range steps {
		close(s.done)
	}
	b.tell(t.changes)
}

// decide lets every step decide in turn. A step that fails after it emitted records would leave its half in the
// transaction, so the group is begun again without it; a step that fails before has changed nothing.
func (b *Book) decide(steps []*step) (*tx, []*step) {
	for {
		t := b.begin()
		accepted := make([]*step, 0, len(steps))
		again := false
		for _, s := range steps {
			if s.err != nil {
				continue
			}
			mark := len(t.records)
			if err := b.Err(); err != nil {
				s.err = err
			} else {
				s.err = b.decided(s, t)
			}
			switch {
			case s.err == nil:
				accepted = append(accepted, s)
			case len(t.records) > mark:
				again = true
			}
			if again {
				break
			}
		}
		if !again {
			return t, accepted
		}
		t.badger.Discard()
	}
}

// decided lets one step decide. A table that cannot be read any more seals the book.
func (b *Book) decided(s *step, t *tx) (err error) {
	defer func() {
		if errors.Is(err, errTable) {
			b.distrust(err)
			err = b.Err()
		}
	}()
	defer caught(&err)()
	return s.decide(t)
}

func (b *Book) begin() *tx {
	txn := b.db.NewTransaction(true)
	return &tx{book: b, state: proved{onDisk{txn}, b}, badger: txn, at: b.now()}
}

// commit makes the group durable and then visible.
func (b *Book) commit(t *tx) error {
	defer t.badger.Discard()
	if len(t.records) == 0 {
		return nil
	}
	if _, err := b.journal.Append(t.records); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if t.timed || t.at.After(b.lastAt) {
		b.lastAt = t.at
	}
	if err := putApplied(t.state, b.journal.Head(), b.lastAt.UnixMilli()); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	if err := applied(t.badger); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	b.oldest.remember(t)
	b.known.add(t.keys, b.journal.Head())
	b.saveKnown()
	return nil
}

// saveKnown writes what is known when it is time. Without room, or on an error, it is tried again later: a start then has a
// longer end of the journal to read.
func (b *Book) saveKnown() {
	if !b.known.due() || b.guard.tight() {
		return
	}
	if err := b.known.save(); err != nil {
		b.log.Warn("known keys not written", slog.Any("err", err))
	}
}

// applyWithin bounds applying a group: Badger retries a flush that fails for ever, and a commit then never ends (storage.md 0.11).
const applyWithin = 10 * time.Second

var errApplySlow = errors.New("ledgercache: cache does not take the group")

func applied(txn *badger.Txn) error {
	done := make(chan error, 1)
	txn.CommitWith(func(err error) { done <- err })
	late := time.NewTimer(applyWithin)
	defer late.Stop()
	select {
	case err := <-done:
		return err
	case <-late.C:
		return errApplySlow
	}
}

// now is the time of a group: whole milliseconds, as they are journalled, in UTC.
func (b *Book) now() time.Time { return b.opts.Now().UTC().Truncate(time.Millisecond) }

// emit adds a record to the group and folds it into the state that the following steps see.
func (t *tx) emit(kind recordKind, body any) error {
	raw, err := encodeRecord(kind, t.at, body)
	if err != nil {
		return err
	}
	r, err := decodeRecord(raw)
	if err != nil {
		return err
	}
	changes, err := fold(t.state, r)
	if err != nil {
		return err
	}
	keys, err := decisive(r)
	if err != nil {
		return err
	}
	t.keys = append(t.keys, keys...)
	t.records = append(t.records, raw)
	t.changes = append(t.changes, changes...)
	t.queueMoved(kind, changes)
	return nil
}

package ledgercache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/ristretto/v2/z"
	"golang.org/x/sync/errgroup"

	"yupos/ledgercache/journal"
)

// What Options.Progress is told of.
const (
	Rebuilding = "rebuild" // the cache is derived anew; the book opens when it is there
	Checking   = "check"   // the cache is compared with the journal while the book is open
)

// deriveMemory is how many bytes of state a derivation holds, about; the rest waits in sorted runs on the disk.
const deriveMemory = 12 << 20

// derivation is the state that the journal gives up to head, sorted.
type derivation struct {
	*spilling
	head journal.Head
	at   int64 // the latest time of a record, Unix milliseconds
	plan plan
	keys [][]byte // told by the batch so far
}

// plan says what to derive, and how.
type plan struct {
	memory  int // of state, in bytes
	work    string
	upto    journal.Head
	known   *known // learns what the journal tells, if not nil
	witness *known // must know it already, if not nil
	rest    *rest
}

// derive folds the journal from its beginning up to a head. The caller closes what it gets.
func (b *Book) derive(ctx context.Context, p plan) (d *derivation, err error) {
	s, err := newSpilling(b.opts.Dir, p.memory)
	if err != nil {
		return nil, err
	}
	d = &derivation{spilling: s, plan: p}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	told := time.Now()
	err = decodedAhead(ctx, b.journal, p.upto.Sequence, func(n decoded) error {
		if n.seq%1024 == 0 && time.Since(told) > time.Second {
			told = time.Now()
			b.tellProgress(p.work, n.seq, p.upto.Sequence)
		}
		_, err := fold(d, n.record)
		if err == nil {
			err = d.tell(n)
		}
		if err != nil {
			return fmt.Errorf("sequence %d: %w", n.seq, err)
		}
		d.head, d.at = n.head, latest(d.at, n.record)
		p.rest.take(ctx)
		return ctx.Err()
	})
	if err != nil {
		return d, err
	}
	if d.head.Sequence != p.upto.Sequence || d.head.Hash != p.upto.Hash {
		return d, fmt.Errorf("%w: sequence %d of the journal is not what it was", journal.ErrDamaged, p.upto.Sequence)
	}
	return d, d.settle()
}

// tell adds what a record tells of to what is known, or holds it against what should be known.
func (d *derivation) tell(n decoded) error {
	if d.plan.known == nil && d.plan.witness == nil {
		return nil
	}
	keys, err := decisive(n.record)
	if err != nil {
		return err
	}
	if w := d.plan.witness; w != nil && slices.ContainsFunc(keys, func(k []byte) bool { return !w.has(k) }) {
		return fmt.Errorf("%w: a key that it tells is not known", errCacheLies)
	}
	if d.keys = append(d.keys, keys...); d.plan.known != nil && n.seq == n.head.Sequence {
		d.plan.known.add(d.keys, n.head)
	}
	if n.seq == n.head.Sequence {
		d.keys = d.keys[:0]
	}
	return nil
}

// decoded is a record of the journal.
type decoded struct {
	seq    uint64
	head   journal.Head
	record record
}

// A reader is this far ahead of who folds: 4 chunks of 128 records.
const (
	aheadChunks  = 4
	aheadRecords = 128
)

// decodedAhead reads the journal from its beginning up to a sequence. Verifying and decoding take about as long as folding,
// so another core does them.
func decodedAhead(ctx context.Context, j *journal.Journal, upto uint64, each func(decoded) error) error {
	g, ctx := errgroup.WithContext(ctx)
	chunks := make(chan []decoded, aheadChunks)
	g.Go(func() error {
		defer close(chunks)
		chunk := make([]decoded, 0, aheadRecords)
		send := func() error {
			select {
			case chunks <- chunk:
				chunk = make([]decoded, 0, aheadRecords)
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		err := j.Read(1, func(seq uint64, h journal.Head, raw []byte) error {
			if seq > upto {
				return errReached
			}
			r, err := decodeRecord(raw)
			if err != nil {
				return fmt.Errorf("sequence %d: %w", seq, err)
			}
			if chunk = append(chunk, decoded{seq, h, r}); len(chunk) == aheadRecords {
				return send()
			}
			return nil
		})
		if err != nil && !errors.Is(err, errReached) {
			return err
		}
		return send()
	})
	g.Go(func() error {
		for chunk := range chunks {
			for _, n := range chunk {
				if err := each(n); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return g.Wait()
}

func (b *Book) tellProgress(work string, done, total uint64) {
	b.log.Info("over the whole journal", slog.String("work", work), slog.Uint64("done", done), slog.Uint64("of", total))
	if b.opts.Progress != nil {
		b.opts.Progress(work, done, total)
	}
}

// rebuild sets the cache aside and derives a new one from the whole journal. The new one gets its name when it is whole
// and closed: a process that dies over it begins again.
func (b *Book) rebuild(ctx context.Context, cause error) error {
	b.log.Warn("cache rebuilt from the journal", slog.Any("because", cause))
	if err := b.closeDB(); err != nil {
		b.log.Warn("cache set aside without closing", slog.Any("err", err))
	}
	if b.report.First > 1 {
		return fmt.Errorf("%w: it begins at sequence %d", ErrArchiveAway, b.report.First)
	}
	if err := b.roomToRebuild(); err != nil {
		return err
	}
	if err := setAside(b.cacheDir()); err != nil {
		return err
	}
	if err := b.loadNew(ctx); err != nil {
		return fmt.Errorf("new cache: %w", err)
	}
	db, err := openCache(b.cacheDir(), b.opts.Key)
	if err != nil {
		return fmt.Errorf("new cache: %w", err)
	}
	b.db = db
	mark, _, err := readMarks(db)
	if err != nil {
		return err
	}
	return b.follow(ctx, mark)
}

// setAside keeps one damaged cache for a person to look at; an older one makes room.
func setAside(dir string) error {
	aside := dir + ".aside"
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	if err := os.Rename(dir, aside); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (b *Book) loadNew(ctx context.Context) error {
	fresh := b.cacheDir() + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	began := time.Now()
	head := b.journal.Head()
	told, err := newKnown(fresh, b.opts.Key)
	if err != nil {
		return err
	}
	if head.Sequence > 0 {
		d, err := b.derive(ctx, plan{memory: deriveMemory, work: Rebuilding, upto: head, known: told})
		if err != nil {
			return err
		}
		if err = told.rest(); err == nil { // its memory is needed for loading
			err = b.load(ctx, fresh, d)
		}
		if err := errors.Join(err, d.close()); err != nil {
			return err
		}
		if err := told.read(); err != nil {
			return err
		}
		if err := os.Rename(fresh, b.cacheDir()); err != nil {
			return err
		}
	}
	told.dir = b.cacheDir()
	b.known = told
	b.log.Info("cache derived", slog.Uint64("records", head.Sequence), slog.Duration("took", time.Since(began)))
	return syncDir(b.opts.Dir)
}

// load writes a derivation into a new cache, as sorted tables of the lowest level.
func (b *Book) load(ctx context.Context, dir string, d *derivation) (err error) {
	if err := putApplied(d, d.head, d.at); err != nil {
		return err
	}
	if err := put(d, keyMeta, meta{Format: cacheFormat}); err != nil {
		return err
	}
	db, err := openCache(dir, b.opts.Key)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	w := db.NewStreamWriter()
	if err := w.Prepare(); err != nil {
		return err
	}
	if err := stream(ctx, w, d); err != nil {
		w.Cancel()
		return err
	}
	return w.Flush()
}

// streamBytes is about how much is handed to the loader at once.
const streamBytes = 256 << 10

func stream(ctx context.Context, w *badger.StreamWriter, d *derivation) error {
	buf := z.NewBuffer(2*streamBytes, "yupos")
	defer func() { _ = buf.Release() }()
	err := d.merge(nil, func(k, v []byte) error {
		badger.KVToBuffer(&pb.KV{Key: k, Value: v, Version: 1}, buf)
		if buf.LenNoPadding() < streamBytes {
			return nil
		}
		if err := errors.Join(ctx.Err(), w.Write(buf)); err != nil {
			return err
		}
		buf.Reset()
		return nil
	})
	if err != nil {
		return err
	}
	return w.Write(buf)
}

// errCacheLies says that the cache holds something else than the journal gives.
var errCacheLies = errors.New("ledgercache: cache differs from the journal")

// sameAs compares everything in a cache, keys and contents, with a derivation up to the same head.
func (d *derivation) sameAs(ctx context.Context, txn *badger.Txn) error {
	it := txn.NewIterator(badger.IteratorOptions{PrefetchValues: false})
	defer it.Close()
	skip := func() {
		for it.Valid() && (bytes.Equal(it.Item().Key(), keyApplied) || bytes.Equal(it.Item().Key(), keyMeta)) {
			it.Next()
		}
	}
	it.Rewind()
	n := 0
	err := d.merge(nil, func(k, v []byte) error {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		d.plan.rest.take(ctx)
		if skip(); !it.Valid() || !bytes.Equal(it.Item().Key(), k) {
			return fmt.Errorf("%w: no key of kind %q where one should be", errCacheLies, k[:1])
		}
		err := it.Item().Value(func(have []byte) error {
			if !bytes.Equal(have, v) {
				return fmt.Errorf("%w: another value of kind %q", errCacheLies, k[:1])
			}
			return nil
		})
		it.Next()
		return err
	})
	if err != nil {
		return err
	}
	if skip(); it.Valid() {
		return fmt.Errorf("%w: a key of kind %q too many", errCacheLies, it.Item().Key()[:1])
	}
	return nil
}

package ledgercache

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"yupos/ledgercache/journal"
)

// meta says in what form the cache stands.
type meta struct {
	Format int `cbor:"2,keyasint"`
}

// cacheFormat is the form of the derived state. A cache of another form is rebuilt.
const cacheFormat = 5

// rebuildGroup is how many records one transaction of a rebuild folds.
const rebuildGroup = 64

// largeRecord is the length from which a record gets a transaction of its own.
const largeRecord = 8 << 10

// errCacheStale says that the cache cannot be brought up to the journal record by record.
var errCacheStale = errors.New("ledgercache: cache does not follow the journal")

// open opens the cache if it can, then the journal with the cache as a witness, then brings the cache up to the journal
// or rebuilds it. Nothing that the journal does not hold is removed before the journal has proved the key.
func (b *Book) open(ctx context.Context) error {
	err := journal.CheckVersion(journal.Options{Dir: b.journalDir(), TerminalID: b.opts.TerminalID, FS: b.opts.FS, Archive: b.opts.Archive})
	if err != nil {
		return err
	}
	left, err := b.takeMarks()
	if err != nil {
		return err
	}
	db, mark, cacheErr := b.openLeft(left)
	reached, knownErr := b.openKnown()
	if cacheErr == nil {
		cacheErr = knownErr
	}
	if err := b.putRun(runMark{Suspect: left.Suspect, Lies: left.Lies}); err != nil {
		return errors.Join(err, closeIf(db))
	}
	j, report, err := journal.Open(journal.Options{
		Dir: b.journalDir(), Mirror: b.opts.Mirror, Key: b.opts.Key, TerminalID: b.opts.TerminalID, Log: b.log,
		Witnesses: append(cacheWitness(mark), knownWitness(reached)...), FS: b.opts.FS, Archive: b.opts.Archive,
	})
	if err != nil {
		_ = closeIf(db) // the journal's error is the one that matters
		return err
	}
	b.journal, b.report, b.db = j, report, db
	if cause := j.ReadOnly(); cause != nil {
		return errors.Join(cause, j.Close(), b.closeDB()) // read then reads what there is
	}
	if cacheErr == nil && b.opts.Suspect {
		cacheErr = fmt.Errorf("%w: the disk failed under it", errCacheStale)
	}
	if cacheErr == nil {
		cacheErr = b.follow(ctx, mark)
	}
	suspect := left.Suspect && mark.Sequence > 0 // a cache without tables was just folded from the journal
	if cacheErr != nil {
		cacheErr, suspect = b.rebuild(ctx, cacheErr), false
	}
	if cacheErr == nil && !suspect {
		close(b.checked)
		cacheErr = b.putRun(runMark{})
	}
	if cacheErr != nil {
		return errors.Join(cacheErr, j.Close(), b.closeDB())
	}
	return nil
}

// openLeft opens the cache as the last process left it.
func (b *Book) openLeft(left runMark) (*badger.DB, appliedMark, error) {
	if left.Deaths >= maxDeaths {
		return nil, appliedMark{}, fmt.Errorf("%w: %d processes died over it", errCacheStale, left.Deaths)
	}
	if left.Lies {
		return nil, appliedMark{}, errCacheLies
	}
	db, err := openCache(b.cacheDir(), b.opts.Key)
	if err != nil {
		return nil, appliedMark{}, err
	}
	mark, found, err := readMarks(db)
	if err == nil && mark.Sequence == 0 && tables(db) > 0 {
		err = fmt.Errorf("%w: it does not say how far it got", errCacheStale)
	}
	if err == nil && found.Format != cacheFormat {
		err = fmt.Errorf("%w: format %d", errCacheStale, found.Format)
	}
	return db, mark, err
}

func tables(db *badger.DB) (n int) {
	for _, level := range db.Levels() {
		n += level.NumTables
	}
	return n
}

func closeIf(db *badger.DB) error {
	if db == nil {
		return nil
	}
	return db.Close()
}

func cacheWitness(mark appliedMark) []journal.Witness {
	if mark.Sequence == 0 {
		return nil
	}
	return []journal.Witness{{Name: "cache", Sequence: mark.Sequence, Hash: mark.Hash, HasHash: true}}
}

func knownWitness(reached journal.Head) []journal.Witness {
	if reached.Sequence == 0 {
		return nil
	}
	return []journal.Witness{{Name: "known", Sequence: reached.Sequence, Hash: reached.Hash, HasHash: true}}
}

// openKnown reads what was known at the last save.
func (b *Book) openKnown() (reached journal.Head, err error) {
	if b.known, err = newKnown(b.cacheDir(), b.opts.Key); err != nil {
		return reached, err
	}
	if err := b.known.read(); err != nil {
		return reached, err
	}
	return b.known.reached(), nil
}

// follow folds what the journal has behind the cache's mark.
func (b *Book) follow(ctx context.Context, mark appliedMark) error {
	head := b.journal.Head()
	if mark.Sequence > 0 && (mark.Epoch != head.Epoch || mark.Sequence > head.Sequence) {
		return fmt.Errorf("%w: sequence %d of another history", errCacheStale, mark.Sequence)
	}
	if mark.Sequence > 0 && !b.isTrue(mark.Sequence, mark.Hash) {
		return fmt.Errorf("%w: other content at sequence %d", errCacheStale, mark.Sequence)
	}
	if err := b.followKnown(ctx, mark.Sequence); err != nil {
		return err
	}
	if err := b.putMeta(); err != nil {
		return fmt.Errorf("%w: %w", errCacheStale, err)
	}
	if mark.At > 0 {
		b.lastAt = time.UnixMilli(mark.At).UTC()
	}
	if head.Sequence-mark.Sequence > followAtMost {
		return fmt.Errorf("%w: %d records behind", errCacheStale, head.Sequence-mark.Sequence)
	}
	return b.foldFrom(ctx, mark.Sequence+1)
}

// followAtMost is how many records are folded into a cache one by one. Above that, deriving it anew is as fast.
const followAtMost = 50_000

// isTrue compares what is said of a head with the journal's own head at that sequence.
func (b *Book) isTrue(sequence uint64, hash [32]byte) bool {
	same := false
	err := b.journal.Read(sequence, func(_ uint64, h journal.Head, _ []byte) error {
		same = h.Sequence == sequence && h.Hash == hash
		return errReached
	})
	return errors.Is(err, errReached) && same
}

// followKnown adds what the journal tells behind the last save. What is behind the cache's own mark is added as it is folded.
func (b *Book) followKnown(ctx context.Context, upto uint64) error {
	at, head := b.known.reached(), b.journal.Head()
	switch {
	case at.Sequence > 0 && (at.Epoch != head.Epoch || at.Sequence > head.Sequence || !b.isTrue(at.Sequence, at.Hash)):
		return fmt.Errorf("%w: known keys up to sequence %d of another history", errCacheStale, at.Sequence)
	case at.Sequence >= upto:
		return nil
	case upto-at.Sequence > followAtMost:
		return fmt.Errorf("%w: known keys %d records behind", errCacheStale, upto-at.Sequence)
	}
	var keys [][]byte
	err := b.journal.Read(at.Sequence+1, func(seq uint64, h journal.Head, raw []byte) error {
		if seq > upto {
			return errReached
		}
		told, err := toldBy(raw)
		if err != nil {
			return fmt.Errorf("sequence %d: %w", seq, err)
		}
		if keys = append(keys, told...); seq == h.Sequence {
			b.known.add(keys, h)
			keys = nil
		}
		return ctx.Err()
	})
	if errors.Is(err, errReached) {
		return nil
	}
	return err
}

func toldBy(raw []byte) ([][]byte, error) {
	r, err := decodeRecord(raw)
	if err != nil {
		return nil, err
	}
	return decisive(r)
}

// folding derives state in transactions of rebuildGroup records. A transaction ends only where a batch ends, so that the
// mark always names a head of the journal.
type folding struct {
	book    *Book
	txn     *badger.Txn
	head    journal.Head
	keys    [][]byte
	at      int64 // the latest time of a record
	pending int
	folded  uint64
	told    time.Time
}

func (b *Book) foldFrom(ctx context.Context, from uint64) error {
	head := b.journal.Head()
	if from > head.Sequence {
		return nil
	}
	f := &folding{book: b, at: b.lastAt.UnixMilli(), txn: b.db.NewTransaction(true), told: time.Now()}
	defer func() { f.txn.Discard() }()
	defer func() { b.lastAt = time.UnixMilli(f.at).UTC() }()
	err := b.journal.Read(from, func(seq uint64, h journal.Head, raw []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := decodeRecord(raw)
		if err != nil {
			return fmt.Errorf("sequence %d: %w", seq, err)
		}
		large := len(raw) > largeRecord // journalled alone in its batch
		if large {
			if err := f.flush(head.Sequence); err != nil {
				return err
			}
		}
		if _, err := fold(onDisk{f.txn}, r); err != nil {
			return fmt.Errorf("sequence %d: %w", seq, err)
		}
		keys, err := decisive(r)
		if err != nil {
			return fmt.Errorf("sequence %d: %w", seq, err)
		}
		f.keys = append(f.keys, keys...)
		f.pending++
		f.folded++
		f.head, f.at = h, latest(f.at, r)
		if seq == h.Sequence && (large || f.pending >= rebuildGroup) {
			return f.flush(head.Sequence)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return f.flush(head.Sequence)
}

func (f *folding) flush(last uint64) error {
	if f.pending == 0 {
		return nil
	}
	if err := putApplied(onDisk{f.txn}, f.head, f.at); err != nil {
		return err
	}
	if err := f.txn.Commit(); err != nil {
		return err
	}
	if f.book.known.reached().Sequence < f.head.Sequence {
		f.book.known.add(f.keys, f.head)
	}
	f.txn, f.pending, f.keys = f.book.db.NewTransaction(true), 0, nil
	if time.Since(f.told) > time.Second {
		f.told = time.Now()
		f.book.log.Info("cache follows the journal", slog.Uint64("sequence", f.head.Sequence), slog.Uint64("of", last))
	}
	return nil
}

func readMarks(db *badger.DB) (mark appliedMark, found meta, err error) {
	err = db.View(func(txn *badger.Txn) error {
		if err := get(onDisk{txn}, keyApplied, &mark); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		found.Format = cacheFormat // a cache that was never written has any form
		if err := get(onDisk{txn}, keyMeta, &found); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		return nil
	})
	return mark, found, err
}

func (b *Book) putMeta() error {
	return b.db.Update(func(txn *badger.Txn) error {
		return put(onDisk{txn}, keyMeta, meta{Format: cacheFormat})
	})
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (b *Book) closeDB() error {
	if b.db == nil {
		return nil
	}
	db := b.db
	b.db = nil
	return db.Close()
}

// cacheOptions is the option set that storage.md A1 measured, without SyncWrites: the journal is the truth. A block is checked
// when it is read, so that damage of an open cache may hide a value and never changes one; known tells what may not be hidden.
func cacheOptions(dir string, key [32]byte) (badger.Options, error) {
	cacheKey, err := hkdf.Key(sha256.New, key[:], nil, "yupos-cache-v1", 32)
	if err != nil {
		return badger.Options{}, err
	}
	o := badger.DefaultOptions(dir).WithSyncWrites(false).
		WithMemTableSize(2 << 20).WithNumMemtables(1).WithNumLevelZeroTables(2).WithNumLevelZeroTablesStall(4).
		WithNumCompactors(2).WithBaseTableSize(1 << 20).WithBaseLevelSize(8 << 20).
		WithValueLogFileSize(1 << 20).WithValueThreshold(maxValue).
		WithBlockCacheSize(2 << 20).WithIndexCacheSize(4 << 20).
		WithCompression(options.Snappy).WithChecksumVerificationMode(options.OnBlockRead).
		WithMetricsEnabled(false).WithNumGoroutines(1).WithDetectConflicts(false).
		WithEncryptionKey(cacheKey).WithLoggingLevel(badger.ERROR).WithLogger(nil)
	o.TableSizeMultiplier = 1
	return o, nil
}

// maxValue is the longest value that stands in the tables. A longer one would go to Badger's value log, which is not kept.
const maxValue = 300 << 10

// openCache opens Badger on its tables alone, which are verified first. What Badger logs is thrown away: its tables are
// synced in the order in which they were filled, so that without the logs the cache stands where it stood at one moment,
// whatever was lost or torn since, and says itself which moment (storage.md 0.6: with them it may have holes).
func openCache(dir string, key [32]byte) (db *badger.DB, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	o, err := cacheOptions(dir, key)
	if err != nil {
		return nil, err
	}
	if err := checkTables(o); err != nil {
		return nil, err
	}
	if err := removeLogs(dir); err != nil {
		return nil, err
	}
	defer caught(&err)()
	db, err = badger.Open(o)
	if err != nil {
		return nil, err // Badger also answers a half-opened DB, which must not be touched
	}
	return db, nil
}

// caught makes an error of a panic or of a fault in a mapped file, in this goroutine.
func caught(err *error) func() {
	faults := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(faults)
		if r := recover(); r != nil {
			*err = fmt.Errorf("%w: %v", errTable, r)
		}
	}
}

// removeLogs deletes what Badger would replay: logs of tables that were not written, and of values, of which there are
// none. Zero-length ones are left by a kill inside Open, and the next Open would stumble over them (storage.md 0.8).
func removeLogs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".mem") || strings.HasSuffix(name, ".vlog") || name == "DISCARD" {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// noteStart journals that this process opened the book.
func (b *Book) noteStart(ctx context.Context) error {
	return b.do(ctx, func(t *tx) error { return t.emit(recStarted, started{Software: b.opts.Software}) })
}

// Exists reports whether there is a book in dir: then its key must be there too, and none may be made.
func Exists(dir string) bool {
	entries, err := os.ReadDir(filepath.Join(dir, "journal"))
	return err == nil && len(entries) > 0
}

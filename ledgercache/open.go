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
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"yupos/ledgercache/journal"
)

// meta says under what the cache was last written. It is put before anything else of a process.
type meta struct {
	Boot   string `cbor:"1,keyasint"` // boot id of the kernel, "" if it could not be read
	Format int    `cbor:"2,keyasint"`
}

// cacheFormat is the form of the derived state. A cache of another form is rebuilt.
const cacheFormat = 2

// rebuildGroup is how many records one transaction of a rebuild folds.
const rebuildGroup = 64

// largeRecord is the length from which a record gets a transaction of its own.
const largeRecord = 8 << 10

// errCacheStale says that the cache cannot be brought up to the journal record by record.
var errCacheStale = errors.New("ledgercache: cache does not follow the journal")

// open opens the cache if it can, then the journal with the cache as a witness, then brings the cache up to the journal
// or rebuilds it. Nothing of the cache is removed before the journal has proved the key.
func (b *Book) open(ctx context.Context) error {
	clean, err := b.takeCleanMark()
	if err != nil {
		return err
	}
	db, cacheErr := openCache(b.cacheDir(), b.opts.Key)
	var mark appliedMark
	var found meta
	if cacheErr == nil {
		mark, found, cacheErr = readMarks(db)
	}
	j, report, err := journal.Open(journal.Options{
		Dir: b.journalDir(), Mirror: b.opts.Mirror, Key: b.opts.Key, TerminalID: b.opts.TerminalID, Log: b.log,
		Witnesses: cacheWitness(mark), FS: b.opts.FS,
	})
	if err != nil {
		if db != nil {
			_ = db.Close() // the journal's error is the one that matters
		}
		return err
	}
	b.journal, b.report, b.db = j, report, db
	if cause := j.ReadOnly(); cause != nil {
		return errors.Join(cause, j.Close(), b.closeDB()) // read then reads what there is
	}
	if cacheErr == nil {
		cacheErr = b.follow(ctx, mark, found, clean)
	}
	if cacheErr != nil {
		cacheErr = b.rebuild(ctx, cacheErr)
	}
	if cacheErr != nil {
		return errors.Join(cacheErr, j.Close(), b.closeDB())
	}
	return nil
}

func cacheWitness(mark appliedMark) []journal.Witness {
	if mark.Sequence == 0 {
		return nil
	}
	return []journal.Witness{{Name: "cache", Sequence: mark.Sequence, Hash: mark.Hash, HasHash: true}}
}

// follow folds what the journal has behind the cache's mark. A cache that was not closed cleanly under another boot may
// have holes (storage.md 0.6), so it is not believed at all.
func (b *Book) follow(ctx context.Context, mark appliedMark, found meta, clean bool) error {
	head := b.journal.Head()
	switch {
	case b.opts.Suspect:
		return fmt.Errorf("%w: the disk failed under it", errCacheStale)
	case found.Format != cacheFormat:
		return fmt.Errorf("%w: format %d", errCacheStale, found.Format)
	case !clean && mark.Sequence > 0 && (found.Boot == "" || found.Boot != bootID()):
		return fmt.Errorf("%w: power was lost under it", errCacheStale)
	case mark.Sequence > 0 && (mark.Epoch != head.Epoch || mark.Sequence > head.Sequence):
		return fmt.Errorf("%w: sequence %d of another history", errCacheStale, mark.Sequence)
	}
	if mark.Sequence > 0 && !b.markIsTrue(mark) {
		return fmt.Errorf("%w: other content at sequence %d", errCacheStale, mark.Sequence)
	}
	if err := b.putMeta(); err != nil {
		return fmt.Errorf("%w: %w", errCacheStale, err)
	}
	if mark.At > 0 {
		b.lastAt = time.UnixMilli(mark.At).UTC()
	}
	return b.foldFrom(ctx, mark.Sequence+1)
}

// markIsTrue compares the cache's mark with the journal's own head at that sequence.
func (b *Book) markIsTrue(mark appliedMark) bool {
	stop := errors.New("seen")
	same := false
	err := b.journal.Read(mark.Sequence, func(_ uint64, h journal.Head, _ []byte) error {
		same = h.Sequence == mark.Sequence && h.Hash == mark.Hash
		return stop
	})
	return errors.Is(err, stop) && same
}

// rebuild sets the cache aside and derives a new one from the whole journal.
func (b *Book) rebuild(ctx context.Context, cause error) error {
	b.log.Warn("cache rebuilt from the journal", slog.Any("because", cause))
	if err := b.closeDB(); err != nil {
		b.log.Warn("cache set aside without closing", slog.Any("err", err))
	}
	if err := b.roomToRebuild(); err != nil {
		return err
	}
	if err := setAside(b.cacheDir()); err != nil {
		return err
	}
	db, err := openCache(b.cacheDir(), b.opts.Key)
	if err != nil {
		return fmt.Errorf("new cache: %w", err)
	}
	b.db = db
	if err := b.putMeta(); err != nil {
		return err
	}
	return b.foldFrom(ctx, 1)
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

// folding derives state in transactions of rebuildGroup records. A transaction ends only where a batch ends, so that the
// mark always names a head of the journal.
type folding struct {
	book    *Book
	txn     *badger.Txn
	head    journal.Head
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
		f.pending++
		f.folded++
		f.head, f.at = h, max(f.at, r.At)
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
	f.txn, f.pending = f.book.db.NewTransaction(true), 0
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
		return put(onDisk{txn}, keyMeta, meta{Boot: bootID(), Format: cacheFormat})
	})
}

func (b *Book) cleanMark() string { return filepath.Join(b.opts.Dir, "cache.clean") }

// closeCache closes Badger and then, if all went well, leaves the mark of a clean stop. The mark stands outside of the
// cache and is written only when Close has returned, so that a kill inside Close never passes as clean.
func (b *Book) closeCache() error {
	if err := b.closeDB(); err != nil || b.Err() != nil {
		return err
	}
	f, err := os.OpenFile(b.cleanMark(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close(), syncDir(b.opts.Dir))
}

// takeCleanMark reports whether the last process stopped cleanly, and removes the mark durably before Badger is opened.
func (b *Book) takeCleanMark() (bool, error) {
	err := os.Remove(b.cleanMark())
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, syncDir(b.opts.Dir)
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

// cacheOptions is the option set that storage.md A1 measured, without SyncWrites: the journal is the truth.
func cacheOptions(dir string, key [32]byte) (badger.Options, error) {
	cacheKey, err := hkdf.Key(sha256.New, key[:], nil, "yupos-cache-v1", 32)
	if err != nil {
		return badger.Options{}, err
	}
	o := badger.DefaultOptions(dir).WithSyncWrites(false).
		WithMemTableSize(2 << 20).WithNumMemtables(1).WithNumLevelZeroTables(2).WithNumLevelZeroTablesStall(4).
		WithNumCompactors(2).WithBaseTableSize(1 << 20).WithBaseLevelSize(8 << 20).
		WithValueLogFileSize(1 << 20).WithValueThreshold(64 << 10).
		WithBlockCacheSize(2 << 20).WithIndexCacheSize(4 << 20).
		WithCompression(options.Snappy).WithChecksumVerificationMode(options.NoVerification).
		WithMetricsEnabled(false).WithNumGoroutines(1).WithDetectConflicts(false).
		WithEncryptionKey(cacheKey).WithLoggingLevel(badger.ERROR).WithLogger(nil)
	o.TableSizeMultiplier = 1
	return o, nil
}

// openCache opens Badger, with its tables verified before it.
func openCache(dir string, key [32]byte) (*badger.DB, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := removeLeftovers(dir); err != nil {
		return nil, err
	}
	o, err := cacheOptions(dir, key)
	if err != nil {
		return nil, err
	}
	if err := checkTables(o); err != nil {
		return nil, err
	}
	db, err := badger.Open(o)
	if err != nil {
		return nil, err // Badger also answers a half-opened DB, which must not be touched
	}
	return db, nil
}

// removeLeftovers deletes zero-length files that a kill inside Open leaves behind and that the next Open stumbles over
// (storage.md 0.8).
func removeLeftovers(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".mem") && !strings.HasSuffix(e.Name(), ".vlog") {
			continue
		}
		if info, err := e.Info(); err == nil && info.Size() == 0 {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// bootID names this run of the kernel, "" if it cannot be read: within it the page cache survives any death of the process.
func bootID() string {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // then only a clean stop lets the cache be believed
	}
	return strings.TrimSpace(string(raw))
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

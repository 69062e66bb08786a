package ledgercache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/oklog/ulid/v2"
	"golang.org/x/sys/unix"

	"yupos/ledgercache/journal"
	"yupos/ledgercache/payment"
)

// CacheState is what a proof says of the cache.
type CacheState string

// The states of a cache. Only CacheAgrees is proved.
const (
	CacheAgrees  CacheState = "agrees"  // every key and value is what the journal gives
	CacheDiffers CacheState = "differs" // the next start sets it aside and derives it again
	CacheAbsent  CacheState = "absent"  // there is none: the next start derives it
)

// Proof is what proving a book found.
type Proof struct {
	Journal  journal.Report
	Position Cursor
	Running  bool // a daemon has the book: a copy of its files was proved
	Books    Check
	States   map[payment.State]payment.Exposure // trades by state: how many, and their price
	Cache    CacheState
	CacheTo  uint64   // the sequence at which the tables of the cache stand; a start folds what is behind it from the journal
	Wrong    []string // every difference by name, at most maxWrong of the books and of the cache
}

// Good reports whether every record, every balance and the cache agree.
func (p Proof) Good() bool {
	return p.Journal.Problem == nil && len(p.Wrong) == 0 && (p.Cache == CacheAgrees || p.Cache == CacheAbsent)
}

// Progress is told how far long work is; it must not block. total is 0 while it is not known.
type Progress func(what string, done, total uint64)

// Verify proves the book in o.Dir without changing a byte of it: every sealed batch and the chain, every balance from the
// trades alone, and every key and value of the cache's tables against what the journal gives up to where they stand: a
// start believes no more of a cache than its tables. Beside a running daemon it proves a copy of the journal. It works in a
// directory of its own under o.Temp (or the system's), whose disk must have room for two caches and, beside a running
// daemon, a journal; memory is bounded, because the truth to compare with is folded into a cache on disk.
//
// The error says that proving was not possible: a wrong key, a newer format, no room. What is wrong stands in the Proof.
func Verify(ctx context.Context, o Options, tell Progress) (p Proof, err error) {
	if tell == nil {
		tell = func(string, uint64, uint64) {}
	}
	work, err := os.MkdirTemp(o.Temp, "yupos-verify-")
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	v := &prover{o: o, work: work, tell: tell, journal: filepath.Join(o.Dir, "journal"), mirror: o.Mirror}
	lock, err := lockToRead(o.Dir)
	switch {
	case errors.Is(err, ErrInUse):
		v.p.Running = true
	case err != nil:
		return p, err
	default:
		defer lock.Close()
	}
	if err := v.openCache(ctx); err != nil {
		return p, err
	}
	if v.cache != nil {
		defer v.cache.Close()
	}
	if v.p.Running {
		err = v.copyJournal(ctx) // after the cache, so that the cache is never ahead of it
	}
	if err == nil {
		err = v.run(ctx)
	}
	return v.p, err
}

// lockToRead takes the book's lock if there is a book; nothing is made where there is none.
func lockToRead(dir string) (io.Closer, error) {
	if _, err := os.Stat(filepath.Join(dir, "journal")); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "LOCK")); errors.Is(err, os.ErrNotExist) {
		return io.NopCloser(nil), nil // no process of this version has had it
	}
	return lockBook(dir)
}

type prover struct {
	o       Options
	work    string
	journal string
	mirror  string
	tell    Progress
	cache   *badger.DB // a copy of the cache, nil where there is none or it does not open
	mark    appliedMark
	folded  uint64 // up to this sequence the truth is derived
	p       Proof
}

func (v *prover) options(readOnly bool) journal.Options {
	return journal.Options{Dir: v.journal, Mirror: v.mirror, Key: v.o.Key, TerminalID: v.o.TerminalID, Log: v.o.Log, FS: v.o.FS, Archive: v.o.Archive, ReadOnly: readOnly}
}

// copyJournal copies a journal that is being written: the witnesses first, so that the copy never witnesses more than it
// holds. What was answered before is in the copy; a batch that is half there is a torn tail.
func (v *prover) copyJournal(ctx context.Context) error {
	v.mirror = ""
	from := v.journal
	v.journal = filepath.Join(v.work, "journal")
	return copyJournal(ctx, from, v.journal, v.tell)
}

func (v *prover) run(ctx context.Context) error {
	var err error
	v.tell("journal", 0, 0)
	v.p.Journal, err = journal.Verify(v.options(false))
	if err != nil && v.p.Journal.Problem == nil {
		return err
	}
	j, _, err := journal.Open(v.options(true))
	if err != nil {
		return err
	}
	defer j.Close()
	h := j.Head()
	v.p.Position = Cursor{Epoch: ulid.ULID(h.Epoch).String(), Sequence: h.Sequence, Head: fmt.Sprintf("%x", h.Hash)}
	truth, err := openCache(filepath.Join(v.work, "truth"), v.o.Key)
	if err != nil {
		return err
	}
	defer truth.Close()
	if v.cache != nil {
		if err := v.compareCache(ctx, j, truth); err != nil {
			return err
		}
	}
	if _, err := foldJournal(ctx, j, truth, v.folded+1, h.Sequence, v.tell); err != nil {
		return err
	}
	return truth.View(func(txn *badger.Txn) error { return v.books(ctx, onDisk{txn}) })
}

// errReached ends a fold where it was to end.
var errReached = errors.New("reached")

// foldJournal derives state from the records from and to, in transactions, and answers the head after the last one's batch.
func foldJournal(ctx context.Context, j *journal.Journal, db *badger.DB, from, to uint64, tell Progress) (last journal.Head, err error) {
	txn, pending := db.NewTransaction(true), 0
	defer func() { txn.Discard() }()
	flush := func() (err error) {
		if pending > 0 {
			err = txn.Commit()
			txn, pending = db.NewTransaction(true), 0
		}
		return err
	}
	err = j.Read(from, func(seq uint64, h journal.Head, raw []byte) error {
		if seq > to {
			return errReached
		}
		last = h
		if len(raw) > largeRecord {
			if err := flush(); err != nil {
				return err
			}
		}
		r, err := decodeRecord(raw)
		if err != nil {
			return fmt.Errorf("sequence %d: %w", seq, err)
		}
		if _, err := fold(onDisk{txn}, r); err != nil {
			return fmt.Errorf("sequence %d: %w", seq, err)
		}
		if pending++; pending < rebuildGroup && len(raw) <= largeRecord {
			return nil
		}
		tell("records", seq, to)
		if err := ctx.Err(); err != nil {
			return err
		}
		return flush()
	})
	if errors.Is(err, errReached) {
		err = nil
	}
	return last, errors.Join(err, flush())
}

// books proves the balances and counts the trades.
func (v *prover) books(ctx context.Context, s state) (err error) {
	v.tell("balances", 0, 0)
	if v.p.Books, err = checkBooks(ctx, s); err != nil {
		return err
	}
	v.p.Wrong = append(v.p.Wrong, v.p.Books.Wrong...)
	v.p.States = map[payment.State]payment.Exposure{}
	return s.scan(prefixTrade, nil, false, func(_, value []byte) (bool, error) {
		var t payment.Payment
		if err := decMode.Unmarshal(value, &t); err != nil {
			return false, err
		}
		e := v.p.States[t.State]
		e.Count++
		e.Fen += t.TotalFen // each is below 2^32 fen: two thousand million of them fit
		v.p.States[t.State] = e
		return true, nil
	})
}

// copyTries is how often the tables of a running daemon are copied: a compaction may take one away meanwhile.
const copyTries = 5

// openCache opens a copy of the cache: opening the cache itself would change it. A cache that does not open is a finding.
func (v *prover) openCache(ctx context.Context) error {
	v.p.Cache = CacheAbsent
	from := filepath.Join(v.o.Dir, "cache")
	for try := 1; ; try++ {
		entries, err := os.ReadDir(from)
		if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
			return nil
		}
		v.p.Cache = CacheDiffers
		v.tell("cache", 0, 0)
		to := filepath.Join(v.work, fmt.Sprintf("cache-%d", try))
		if err = copyTables(ctx, from, to); err == nil {
			if v.cache, err = openCache(to, v.o.Key); err == nil {
				break
			}
		}
		if ctx.Err() != nil || errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("copy cache: %w", err)
		}
		if !v.p.Running || try == copyTries {
			v.wrong("cache does not open: %v", err)
			return nil
		}
	}
	mark, found, err := readMarks(v.cache)
	if err != nil || found.Format != cacheFormat {
		v.wrong("cache is of format %d, or cannot be read: %v", found.Format, err)
		return errors.Join(v.cache.Close(), v.forget())
	}
	v.mark = mark
	return nil
}

func (v *prover) forget() error { v.cache = nil; return nil }

// copyTables copies what a start believes of a cache, its manifest first: the tables that it names are older than it.
func copyTables(ctx context.Context, from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, pattern := range []string{"MANIFEST", "KEYREGISTRY", "*.sst"} {
		paths, err := filepath.Glob(filepath.Join(from, pattern))
		if err != nil {
			return err
		}
		for _, path := range paths {
			if err := errors.Join(ctx.Err(), copyFile(path, filepath.Join(to, filepath.Base(path)))); err != nil {
				return err
			}
		}
	}
	return nil
}

// compareCache folds the truth up to where the cache's tables stand and holds them against it.
func (v *prover) compareCache(ctx context.Context, j *journal.Journal, truth *badger.DB) error {
	h := j.Head()
	if v.mark.Sequence > h.Sequence {
		v.wrong("cache stands at sequence %d, the journal at %d", v.mark.Sequence, h.Sequence)
		return nil
	}
	last, err := foldJournal(ctx, j, truth, 1, v.mark.Sequence, v.tell)
	if err != nil {
		return err
	}
	v.folded, v.p.CacheTo = v.mark.Sequence, v.mark.Sequence
	before := len(v.p.Wrong)
	if v.mark.Sequence > 0 && (last.Sequence != v.mark.Sequence || last.Hash != v.mark.Hash) {
		v.wrong("cache stands at sequence %d of another history", v.mark.Sequence)
	}
	err = truth.View(func(a *badger.Txn) error {
		return v.cache.View(func(b *badger.Txn) error { return v.compare(ctx, a, b) })
	})
	if err == nil && len(v.p.Wrong) == before {
		v.p.Cache = CacheAgrees
	}
	return err
}

// compare walks both in order of their keys.
func (v *prover) compare(ctx context.Context, truth, cache *badger.Txn) error {
	o := badger.DefaultIteratorOptions
	o.PrefetchSize = 16
	a, b := truth.NewIterator(o), cache.NewIterator(o)
	defer a.Close()
	defer b.Close()
	a.Rewind()
	b.Rewind()
	for n := uint64(0); (a.Valid() || b.Valid()) && len(v.p.Wrong) < maxWrong; n++ {
		if n%4096 == 0 {
			v.tell("keys", n, 0)
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		switch order := orderOf(a, b); {
		case order < 0:
			v.differs(a, "is missing in the cache")
			a.Next()
		case order > 0:
			v.differs(b, "should not be in the cache")
			b.Next()
		default:
			same, err := sameValue(a.Item(), b.Item())
			if err != nil {
				return err
			}
			if !same {
				v.differs(a, "has another value in the cache")
			}
			a.Next()
			b.Next()
		}
	}
	return nil
}

// orderOf tells which of two iterators stands first; one that has ended stands last.
func orderOf(a, b *badger.Iterator) int {
	switch {
	case !a.Valid():
		return 1
	case !b.Valid():
		return -1
	}
	return bytes.Compare(a.Item().Key(), b.Item().Key())
}

func sameValue(a, b *badger.Item) (same bool, err error) {
	err = a.Value(func(x []byte) error {
		return b.Value(func(y []byte) error { same = bytes.Equal(x, y); return nil })
	})
	return same, err
}

// differs names a key; the marks of the cache itself are no part of the truth.
func (v *prover) differs(at *badger.Iterator, how string) {
	k := at.Item().Key()
	if bytes.Equal(k, keyApplied) || bytes.Equal(k, keyMeta) {
		return
	}
	v.wrong("key %q+%x %s", k[:1], k[1:], how)
}

func (v *prover) wrong(format string, args ...any) {
	v.p.Wrong = append(v.p.Wrong, fmt.Sprintf(format, args...))
}

// copyJournal copies the files of a journal that may be in use: HEAD before the segments are listed, so that the copy never
// witnesses more than it holds, then the segments, oldest first.
func copyJournal(ctx context.Context, from, to string, tell Progress) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, name := range []string{"HEAD", "KEYRING", "KEYRING.next"} {
		if err := copyFile(filepath.Join(from, name), filepath.Join(to, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for i, e := range entries {
		if !e.Type().IsRegular() || !strings.HasSuffix(e.Name(), ".seg") {
			continue
		}
		tell("files", uint64(i), uint64(len(entries)))
		if err := errors.Join(ctx.Err(), copyFile(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))); err != nil {
			return err
		}
	}
	return syncDir(to)
}

// copyFile copies a file durably.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

package ledgercache

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrDiskFull says that the disk is nearly full: nothing new is taken, while what is open still ends out of the reserve.
// Wrapped in ErrSealed it says that the reserve was eaten too; wrapped in ErrReadOnly, that there was no room at the start.
var ErrDiskFull = errors.New("ledgercache: disk almost full")

// Room is how much of the disk is left for the book.
type Room string

// The rooms, from much to none. A full disk would kill the process through Badger's mappings (storage.md B4), so the book
// stops by itself before.
const (
	RoomPlenty Room = "plenty"
	RoomShort  Room = "short" // under twice the first limit: time to make room
	RoomFull   Room = "full"  // under the first limit: nothing new is taken, what is open may end
	RoomNone   Room = "none"  // under the last limit, and the ballast is gone: the book seals itself
)

// Space is the state of the disk, in bytes.
type Space struct {
	Room  Room
	Free  uint64 // of the file system that holds the book, for a user without privileges
	Limit uint64 // below it nothing new is taken
}

// limits are the thresholds of a reserve, in bytes.
type limits struct {
	reserve, ballast uint64
	first            uint64 // the reserve and the next segment, which may be begun at any moment
	last             uint64 // what Badger's mappings may still touch while the book seals itself
	slack            uint64 // above the first limit before selling begins again, so that it does not flutter
}

// segmentRoom is what the next segment of the journal takes: its length, and the longest batch.
const segmentRoom = 5 << 20

// minInodes are the names that must be left: a disk without them is as full as one without bytes.
const minInodes = 64

func limitsOf(reserve int64) limits {
	r := uint64(reserve)
	return limits{reserve: r, ballast: r / 4, first: r + segmentRoom, last: r / 4, slack: r / 8}
}

// judge is the rule: what room there is, from what there was, the free bytes, and whether the ballast is there.
func (l limits) judge(was Room, free uint64, ballast bool) Room {
	again := l.first
	if was == RoomFull || was == RoomNone {
		again = l.toStart(ballast)
	}
	switch {
	case free < l.last:
		return RoomNone
	case free < again:
		return RoomFull
	case free < 2*l.first:
		return RoomShort
	}
	return RoomPlenty
}

// toStart is what must be free before selling begins, or begins again.
func (l limits) toStart(ballast bool) uint64 {
	if ballast {
		return l.first + l.slack
	}
	return l.first + l.slack + l.ballast
}

// guard watches the disk under the book. A guard without a reserve sees plenty of room always. It is safe for concurrent
// use, and never waits for more than a statfs, except in refill.
type guard struct {
	limits
	dir     string
	measure func(dir string) (uint64, error)
	log     *slog.Logger

	filling sync.Mutex // one refill at a time

	mu      sync.Mutex
	now     Space
	held    bool // the ballast is there
	resting bool
	deaf    bool // the disk could not be measured, and that was said
}

func newGuard(o Options) *guard {
	g := &guard{limits: limitsOf(o.Reserve), dir: o.Dir, measure: o.Free, log: o.Log}
	g.now = Space{Room: RoomPlenty, Limit: g.first}
	if g.measure == nil {
		g.measure = freeBytes
	}
	info, err := os.Stat(g.ballastPath())
	g.held = err == nil && info.Size() >= int64(g.ballast)
	return g
}

// rest stops the guard from touching the disk: a book that reads only has nothing that the ballast could end.
func (g *guard) rest() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.resting = true
}

func (g *guard) idle() bool          { return g.reserve == 0 }
func (g *guard) ballastPath() string { return filepath.Join(g.dir, "ballast") }

// freeBytes is what the file system has left for a user without privileges; none where the names have run out.
func freeBytes(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", dir, err)
	}
	if st.Files > 0 && uint64(st.Ffree) < minInodes {
		return 0, nil
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil
}

// tight reports whether there is room for nothing new.
func (g *guard) tight() bool {
	room := g.space().Room
	return room == RoomFull || room == RoomNone
}

// look measures, gives the ballast back if that is needed, and answers what room there is now and whether that is new.
func (g *guard) look() (s Space, changed bool) {
	if g.idle() {
		return g.now, false
	}
	free, err := g.measure(g.dir)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		free = g.last // not known: nothing new, but no reason to stop what is open
		if !g.deaf {
			g.log.Error("disk space cannot be measured", slog.Any("err", err))
		}
	}
	g.deaf = err != nil
	if free < g.last && g.held && !g.resting {
		free = g.drop(free)
	}
	was := g.now.Room
	g.now = Space{Room: g.judge(was, free, g.held), Free: free, Limit: g.first}
	if g.now.Room != was {
		g.log.Warn("disk space", slog.String("room", string(g.now.Room)), slog.Uint64("free_bytes", free), slog.Uint64("limit_bytes", g.first))
	}
	return g.now, g.now.Room != was
}

// drop gives the ballast back to the disk, so that open payments can still end. g.mu is held.
func (g *guard) drop(free uint64) uint64 {
	g.held = false
	if err := os.Remove(g.ballastPath()); err != nil {
		g.log.Error("ballast not freed", slog.Any("err", err))
		return free
	}
	g.log.Warn("ballast freed", slog.Uint64("bytes", g.ballast))
	after, err := g.measure(g.dir)
	if err != nil {
		return free
	}
	return after
}

// space is what the last look saw.
func (g *guard) space() Space {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now
}

// refill writes the ballast again where there is room for it. It may take seconds on a slow disk and must not be called by
// the writer. A failure is only said: without ballast the first limit is as good as before.
func (g *guard) refill() {
	g.filling.Lock()
	defer g.filling.Unlock()
	g.mu.Lock()
	wanted := !g.idle() && !g.held && !g.resting && g.now.Free >= g.toStart(false)
	g.mu.Unlock()
	if !wanted {
		return
	}
	err := writeBallast(g.ballastPath(), int64(g.ballast))
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held = err == nil; err != nil {
		g.log.Warn("ballast not written", slog.Any("err", err))
	}
}

// writeBallast writes a file through with bytes that no file system can squeeze or share: the space is really taken.
func writeBallast(path string, size int64) error {
	temporary := path + ".new"
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	var seed [32]byte
	rand.Read(seed[:]) // never fails (crypto/rand)
	noise := mrand.NewChaCha8(seed)
	chunk := make([]byte, 256<<10)
	for left := size; left > 0 && err == nil; left -= int64(len(chunk)) {
		noise.Read(chunk)
		_, err = f.Write(chunk[:min(left, int64(len(chunk)))])
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		_ = os.Remove(temporary) // its space is what is missing
	}
	return err
}

// lookEvery is how often the disk is measured while nothing is sold; before every group it is measured too.
const lookEvery = time.Second

// watchDisks follows the disks beside the writer: a foreign process may fill one while the counter is idle, and a mirror
// that was left out is journalled once.
func (b *Book) watchDisks() {
	defer close(b.watched)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	told := false
	for {
		b.guard.refill()
		if err := b.Mirror(); err != nil && !told {
			told = b.noteMirror(err) == nil
		}
		select {
		case <-b.closing:
			return
		case <-b.failed:
			return
		case <-tick.C:
		}
		b.measure()
		if b.reading == nil {
			if err := b.journal.ReadOnly(); err != nil { // a head that was written while nothing was sold
				b.seal(err)
			}
		}
	}
}

// AlarmMirror is the alarm of a mirror that failed and is left out.
const AlarmMirror = "MIRROR_LEFT_OUT"

// noteMirror journals that the mirror is left out: who reads the book later knows from when on there was one copy.
func (b *Book) noteMirror(cause error) error {
	if b.reading != nil {
		return nil
	}
	err := b.do(context.Background(), func(t *tx) error {
		return t.emit(recAlarm, Alarm{ID: NewTradeNo(t.at), Code: AlarmMirror, Detail: cause.Error()})
	})
	if err != nil {
		b.log.Warn("mirror's failure not journalled", slog.Any("err", err))
	}
	return err
}

// roomToOpen is ErrDiskFull where there is too little room to open the book whole. A cache that was set aside for a person to
// look at makes room first.
func (b *Book) roomToOpen() error {
	if b.guard.idle() {
		return nil
	}
	s, _ := b.guard.look()
	if s.Room == RoomFull || s.Room == RoomNone {
		if err := os.RemoveAll(b.cacheDir() + ".aside"); err != nil {
			b.log.Warn("old cache not removed", slog.Any("err", err))
		}
		s, _ = b.guard.look()
	}
	if s.Room == RoomFull || s.Room == RoomNone {
		return fmt.Errorf("%w: %d bytes are left, %d are needed", ErrDiskFull, s.Free, b.guard.toStart(b.guard.held))
	}
	return nil
}

// roomToRebuild makes room for a second cache beside the one that is set aside. Where there is little, the copy for a person
// goes first and then the cache itself: it can be made again, the journal never. A cache is smaller than its journal.
func (b *Book) roomToRebuild() error {
	if b.guard.idle() {
		return nil
	}
	need := b.guard.last + bytesUnder(b.journalDir())
	for _, cache := range []string{b.cacheDir() + ".aside", b.cacheDir()} {
		if s, _ := b.guard.look(); s.Free >= need {
			return nil
		}
		b.log.Warn("cache removed to make room", slog.String("dir", cache))
		if err := os.RemoveAll(cache); err != nil {
			return err
		}
	}
	if s, _ := b.guard.look(); s.Free < need {
		return fmt.Errorf("%w: %d bytes are left, a new cache needs %d", ErrDiskFull, s.Free, need)
	}
	return nil
}

// roomToCompare reports ErrDiskFull where what a comparison spills, about a cache, would eat into the reserve.
func (b *Book) roomToCompare() error {
	if b.guard.idle() {
		return nil
	}
	need := 2*b.guard.first + bytesUnder(b.cacheDir())
	if s, _ := b.guard.look(); s.Free < need {
		return fmt.Errorf("%w: %d bytes are left, comparing takes %d", ErrDiskFull, s.Free, need)
	}
	return nil
}

// bytesUnder is the length of all files under a directory.
func bytesUnder(dir string) (sum uint64) {
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if info, err := d.Info(); err == nil {
				sum += uint64(info.Size())
			}
		}
		return nil // what cannot be seen is not counted
	})
	return sum
}

// measure looks at the disk, tells the watchers of a change, and seals the book before Badger would fault.
func (b *Book) measure() {
	s, changed := b.guard.look()
	if s.Room == RoomNone {
		b.seal(fmt.Errorf("%w: %d bytes are left", ErrDiskFull, s.Free))
	}
	if changed {
		b.tell([]Change{{Kind: ChangeSpace}})
	}
}

// Space is how much of the disk is left for the book.
func (b *Book) Space() Space { return b.guard.space() }

// takesNew refuses what would begin something new while the disk is nearly full.
func (t *tx) takesNew() error {
	if s := t.book.guard.space(); s.Room == RoomFull || s.Room == RoomNone {
		return fmt.Errorf("%w: %d bytes are left, %d are needed", ErrDiskFull, s.Free, s.Limit)
	}
	return nil
}

package ledgercache

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"yupos/ledgercache/journal"
)

// ErrInUse says that another process has the book; its number is in the error's text.
var ErrInUse = errors.New("ledgercache: book is in use by another process")

// lockBook takes the book's directory for this process, before anything in it is touched. The lock ends with the process,
// however it ends. On a disk that cannot be written the lock is taken on what is there.
func lockBook(dir string) (io.Closer, error) {
	path := filepath.Join(dir, "LOCK")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		if f, err = os.Open(path); err != nil {
			return io.NopCloser(nil), nil // nothing can be written here, so nothing must be kept apart
		}
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s%s", ErrInUse, dir, holder(f))
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if f.Truncate(0) == nil {
		_, _ = fmt.Fprintf(f, "%d\n", os.Getpid()) // for people; the lock is the flock
	}
	return f, nil
}

func holder(f *os.File) string {
	raw := make([]byte, 20)
	n, _ := f.ReadAt(raw, 0)
	if pid, err := strconv.Atoi(strings.TrimSpace(string(raw[:n]))); err == nil {
		return fmt.Sprintf(", process %d", pid)
	}
	return ""
}

// PrepareKey lets the book in o.Dir open under the next key, as it still does under o.Key: what is written after the next opening
// is sealed under the key that this opening uses (FORMAT.md, KEYRING). It may be repeated. It fails with ErrInUse beside a
// running daemon, with ErrNotFound where there is no book, and as Open does.
func PrepareKey(o Options, next [32]byte) error {
	if !Exists(o.Dir) {
		return fmt.Errorf("%w: no book in %s", ErrNotFound, o.Dir)
	}
	lock, err := lockBook(o.Dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	return journal.PrepareKey(journal.Options{
		Dir: filepath.Join(o.Dir, "journal"), Mirror: o.Mirror, Key: o.Key, TerminalID: o.TerminalID, Log: o.Log, FS: o.FS, Archive: o.Archive,
	}, next)
}

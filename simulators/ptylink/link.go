// Package ptylink is the plug of a simulated device: a pseudo-terminal published under a stable name, that can be pulled
// out and put in again while somebody on the other side holds it open.
//
// Guarantees: the name is a symbolic link to the slave side and exists exactly while the device is connected; the line is
// raw before its name appears, so that nothing is echoed or translated; the package holds a slave of its own, so that
// reading the master is never an I/O error merely because nobody has opened the line yet; what was written is given time
// to be read before the line goes away, because a pseudo-terminal throws away what a closing master leaves behind.
//
// It is a package of its own because three devices need the same plug: scannersim, printersim and displaysim.
//
// Duties of the caller: run [Link.Run], and keep the name on a path that belongs to it.
package ptylink

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// ErrUnplugged says that the device is not connected.
var ErrUnplugged = errors.New("ptylink: not connected")

const (
	writeLimit = 2 * time.Second        // nobody reads on the other side
	drainLimit = 300 * time.Millisecond // for the last bytes to be read before the line goes away
	drainStep  = 2 * time.Millisecond
)

// Link is one line. All methods may be called from any number of goroutines.
type Link struct {
	path string

	mu      sync.Mutex
	line    *line         // nil while unplugged
	changed chan struct{} // closed and replaced at each plugging
}

// line is one life of the pseudo-terminal.
type line struct {
	master, slave *os.File
	writing       sync.Mutex
}

// New makes an unplugged device that will be published at path.
func New(path string) *Link {
	return &Link{path: path, changed: make(chan struct{})}
}

// Path is where the device is published.
func (l *Link) Path() string { return l.path }

// Connect plugs the device in: a fresh pseudo-terminal without history. Connected already, it does nothing.
func (l *Link) Connect() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.line != nil {
		return nil
	}
	n, name, err := open()
	if err != nil {
		return fmt.Errorf("open pseudo-terminal: %w", err)
	}
	if err := publish(name, l.path); err != nil {
		n.close()
		return err
	}
	l.line = n
	l.wake()
	return nil
}

// Disconnect pulls the plug, after the other side had 300 ms to read what was sent last.
func (l *Link) Disconnect() error {
	l.mu.Lock()
	n := l.line
	l.line = nil
	if n == nil {
		l.mu.Unlock()
		return nil
	}
	err := os.Remove(l.path)
	l.wake()
	l.mu.Unlock()
	n.drain()
	n.close()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("unpublish line: %w", err)
	}
	return nil
}

// Connected says whether the plug is in.
func (l *Link) Connected() bool {
	n, _ := l.now()
	return n != nil
}

// Write sends bytes to the other side. It gives up with os.ErrDeadlineExceeded when nobody reads for two seconds, and
// answers honestly how many bytes went out.
func (l *Link) Write(b []byte) (int, error) {
	n, _ := l.now()
	if n == nil {
		return 0, ErrUnplugged
	}
	n.writing.Lock()
	defer n.writing.Unlock()
	if err := n.master.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
		return 0, fmt.Errorf("write to line: %w", err)
	}
	sent, err := n.master.Write(b)
	if errors.Is(err, os.ErrClosed) {
		err = ErrUnplugged
	}
	if err != nil {
		return sent, fmt.Errorf("write to line: %w", err)
	}
	return sent, nil
}

// Run hands to feed what arrives, in order and from one goroutine, until ctx ends; then it unplugs the device. The slice
// belongs to feed for the time of the call only.
func (l *Link) Run(ctx context.Context, feed func([]byte)) error {
	stop := context.AfterFunc(ctx, func() { l.Disconnect() })
	defer stop()
	defer l.Disconnect()
	buf := make([]byte, 4096)
	for ctx.Err() == nil {
		n, changed := l.now()
		if n == nil {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		count, err := n.master.Read(buf)
		if count > 0 {
			feed(buf[:count])
		}
		if err != nil { // the plug was pulled
			select {
			case <-ctx.Done():
			case <-l.replaced(n):
			}
		}
	}
	return ctx.Err()
}

// replaced is closed when the line is not n any more.
func (l *Link) replaced(n *line) <-chan struct{} {
	now, changed := l.now()
	if now == n {
		return changed
	}
	done := make(chan struct{})
	close(done)
	return done
}

func (l *Link) now() (*line, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.line, l.changed
}

func (l *Link) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// publish points path at the terminal, in one step over whatever stale link stands there; anything but a link stays.
func publish(terminal, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("publish line: %w", err)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSymlink == 0 {
		return fmt.Errorf("publish line: %s is not a link", path)
	}
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("publish line: %w", err)
	}
	if err := os.Symlink(terminal, fresh); err != nil {
		return fmt.Errorf("publish line: %w", err)
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("publish line: %w", err)
	}
	return nil
}

func open() (*line, string, error) {
	master, slave, err := pty.Open()
	if err != nil {
		return nil, "", err
	}
	name := slave.Name()
	if err := raw(slave); err != nil {
		master.Close()
		slave.Close()
		return nil, "", err
	}
	polled, err := pollable(master)
	if err != nil {
		slave.Close()
		return nil, "", err
	}
	return &line{master: polled, slave: slave}, name, nil
}

// pollable gives the master deadlines, and a Close that ends a Read: the library leaves it in blocking mode. The original
// is closed in every case.
func pollable(f *os.File) (*os.File, error) {
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate master: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("unblock master: %w", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// drain waits until the other side has read what was sent. Twice empty, because the kernel moves bytes across in the
// background; a line that nobody holds open never empties and costs the whole limit.
func (n *line) drain() {
	empty := 0
	for end := time.Now().Add(drainLimit); time.Now().Before(end) && empty < 2; time.Sleep(drainStep) {
		left, err := unread(n.slave)
		if err != nil {
			return
		}
		empty++
		if left > 0 {
			empty = 0
		}
	}
}

func (n *line) close() {
	n.slave.Close()
	n.master.Close()
}

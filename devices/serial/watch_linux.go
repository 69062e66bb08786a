package serial

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// watcher reports that something happened where a device may appear.
type watcher struct {
	file *os.File
	hint chan struct{}
}

// watch looks at the directory of path and, if path is a link, at the directory
// of its target; of each the nearest one that exists, because
// /dev/serial/by-id is itself absent until the first device comes. It is only a
// hint to look sooner: nil, or a full kernel queue, costs no more than the
// backoff. The caller closes it.
func watch(path string) *watcher {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil
	}
	const events = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_ATTRIB | unix.IN_DELETE_SELF
	dirs := []string{nearestDir(path)}
	if target, err := os.Readlink(path); err == nil {
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		dirs = append(dirs, nearestDir(target))
	}
	for _, dir := range dirs {
		// A failure leaves that directory to the backoff.
		_, _ = unix.InotifyAddWatch(fd, dir, events)
	}
	w := &watcher{file: os.NewFile(uintptr(fd), "inotify"), hint: make(chan struct{}, 1)}
	go w.read()
	return w
}

func nearestDir(path string) string {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.IsDir() || dir == filepath.Dir(dir) {
			return dir
		}
	}
}

// read ends when the file is closed.
func (w *watcher) read() {
	var buf [4096]byte
	for {
		if _, err := w.file.Read(buf[:]); err != nil {
			return
		}
		select {
		case w.hint <- struct{}{}:
		default:
		}
	}
}

// hints is a nil channel for a nil watcher.
func (w *watcher) hints() <-chan struct{} {
	if w == nil {
		return nil
	}
	return w.hint
}

func (w *watcher) close() {
	if w != nil {
		w.file.Close()
	}
}

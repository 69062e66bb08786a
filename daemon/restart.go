package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"yupos/ledgercache"
)

// A book that was sealed, and one that reads only and may be opened whole again, both need a new process: what is in
// memory, above all Badger's mappings, must go, and nothing may go on from what a failed write left. The process replaces
// itself (execve) instead of ending with a code: number, lifeline, logs and supervisor stay, so that it works the same
// under systemd, in the demo and by hand, and no limit on starts is used up. What cannot be caught, a fault in a mapping,
// ends the process: then the supervisor starts it again, and it comes up read-only while the disk is full.

// errMended ends a daemon whose book reads only when it is worth opening it whole.
var errMended = errors.New("the book may be opened whole again")

// sealedEnv carries over a restart how often in a row the book was sealed, and when last in Unix seconds: "2 1795442400".
const sealedEnv = "POSD_SEALED"

// suspectEnv is set over a restart after a failed write until a book was opened whole: its cache is made anew, because a disk
// that fails and comes back may have forgotten what the kernel held for it, without any restart of the machine.
const suspectEnv = "POSD_CACHE_SUSPECT"

// Times of trying again.
const (
	mendEvery    = 5 * time.Second  // how often a book that reads only looks whether it may be opened whole
	sealedWait   = 10 * time.Second // how long it reads only after the second seal in a row; twice as long after each more
	sealedWithin = 10 * time.Minute // seals closer together than this are one failure; the longest wait between tries too
)

// seals is how often the book was sealed in a row by a disk that fails.
type seals struct {
	n    int
	last time.Time
}

func sealsOf(env string) (s seals) {
	var unix int64
	if _, err := fmt.Sscanf(env, "%d %d", &s.n, &unix); err != nil || s.n < 1 {
		return seals{} // never sealed
	}
	s.last = time.Unix(unix, 0)
	return s
}

func (s seals) env() string { return strconv.Itoa(s.n) + " " + strconv.FormatInt(s.last.Unix(), 10) }

// again counts one more.
func (s seals) again(now time.Time) seals {
	if now.Sub(s.last) > sealedWithin {
		s.n = 0
	}
	return seals{n: s.n + 1, last: now}
}

// wait is how long the book is left alone: not after the first seal, then 10 s, 20 s and so on up to sealedWithin.
func (s seals) wait() time.Duration {
	if s.n < 2 {
		return 0
	}
	return min(sealedWait<<min(s.n-2, 16), sealedWithin)
}

// readOnly is why the book is only to be read at a start at this time; nil if it is to be opened. A clock that went back
// does not hold it up.
func (s seals) readOnly(now time.Time) error {
	if since := now.Sub(s.last); since >= 0 && since < s.wait() {
		return fmt.Errorf("%w: writing failed %d times in a row", ledgercache.ErrDiskFailed, s.n)
	}
	return nil
}

// mend waits until a book that reads only may be opened whole.
func (d *Daemon) mend(ctx context.Context) error {
	tick := time.NewTicker(mendEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if sealsOf(os.Getenv(sealedEnv)).readOnly(time.Now()) == nil && d.book.Mended() {
			return errMended
		}
	}
}

// restarts reports whether the daemon ended so that its process has to begin again, and with what in sealedEnv.
func restarts(err error, before string, now time.Time) (env string, again bool) {
	switch {
	case errors.Is(err, errMended), errors.Is(err, ledgercache.ErrSealed) && errors.Is(err, ledgercache.ErrDiskFull):
		return before, true // room is judged anew at every start
	case errors.Is(err, ledgercache.ErrSealed):
		return sealsOf(before).again(now).env(), true
	}
	return "", false
}

// restart replaces this process by a fresh one of the same program with the same words. It returns only where that fails.
func restart(env string, log *slog.Logger) error {
	if env != os.Getenv(sealedEnv) {
		if err := os.Setenv(suspectEnv, "1"); err != nil {
			return fmt.Errorf("restart: %w", err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	self = strings.TrimSuffix(self, " (deleted)") // a new version has taken its place
	if err := os.Setenv(sealedEnv, env); err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	closeOnExec()
	log.Info("terminal starts again", slog.String("sealed", env))
	return fmt.Errorf("restart: %w", syscall.Exec(self, os.Args, os.Environ()))
}

// closeOnExec sees to it that the new process inherits nothing but its standard streams and the lifeline. Serial ports are
// opened without the flag, and would stay locked.
func closeOnExec() {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return // another system: the parts have closed what they had
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 && e.Name() != os.Getenv(LifelineEnv) {
			unix.CloseOnExec(fd)
		}
	}
}

package serial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	library "go.bug.st/serial"
	"golang.org/x/sys/unix"
)

// device is an open line: a tty through a file of our own, or a TCP stream.
// Both come with deadlines that wake a blocked call and with a Close after which
// no byte can leave, which is what the serial library does not give (DESIGN.md).
type device interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// open returns the line behind cfg.Path, locked, raw, at its rate and with both
// kernel queues emptied.
func open(ctx context.Context, cfg Config) (device, error) {
	if host, ok := strings.CutPrefix(cfg.Path, "tcp://"); ok {
		return dial(ctx, cfg, host)
	}
	info, err := os.Stat(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", cfg.Name, err)
	}
	if info.Mode()&os.ModeCharDevice == 0 {
		return nil, fmt.Errorf("open %s: %w", cfg.Name, ErrNotDevice)
	}
	file, err := os.OpenFile(cfg.Path, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", cfg.Name, err)
	}
	if err := prepare(file, cfg); err != nil {
		file.Close()
		return nil, fmt.Errorf("open %s: %w", cfg.Name, err)
	}
	return file, nil
}

// prepare locks the line before it touches its mode: a second owner must not
// reset the rate of the first.
func prepare(file *os.File, cfg Config) error {
	raw, err := file.SyscallConn() // never Fd(): it would make the file blocking
	if err != nil {
		return err
	}
	var lockErr error
	err = raw.Control(func(fd uintptr) { lockErr = lock(int(fd)) })
	if err := errors.Join(err, lockErr); err != nil {
		return err
	}
	return setMode(cfg)
}

// lock takes the advisory lock of the device node itself. The kernel frees it
// when the process dies, however it dies, and it does not stay behind on a
// pseudo-terminal as TIOCEXCL would; root is not exempt from it as from TIOCEXCL.
func lock(fd int) error {
	if _, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); errors.Is(err, unix.ENOTTY) {
		return ErrNotDevice
	}
	err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrBusy
	}
	return err
}

// setMode lets the library put the line into raw 8N1 mode at the rate and empty
// its queues, and gives the library's own descriptor back at once: the mode
// belongs to the line, not to the descriptor, and our file keeps the line open.
func setMode(cfg Config) error {
	port, err := library.Open(cfg.Path, &library.Mode{BaudRate: cfg.Baud})
	if err != nil {
		return modeError(err)
	}
	err = errors.Join(port.ResetInputBuffer(), port.ResetOutputBuffer())
	return errors.Join(err, port.Close())
}

func modeError(err error) error {
	var portErr *library.PortError
	if !errors.As(err, &portErr) {
		return err
	}
	switch portErr.Code() {
	case library.PortBusy:
		return errors.Join(ErrBusy, err)
	case library.PermissionDenied:
		return errors.Join(os.ErrPermission, err)
	}
	return err
}

func dial(ctx context.Context, cfg Config, host string) (device, error) {
	dialer := net.Dialer{Timeout: cfg.WriteTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", cfg.Name, err)
	}
	return conn.(*net.TCPConn), nil
}

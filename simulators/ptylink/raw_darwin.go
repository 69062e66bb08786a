package ptylink

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// raw takes echo and translation out of a line (cfmakeraw).
func raw(f *os.File) error {
	fd := int(f.Fd())
	t, err := unix.IoctlGetTermios(fd, unix.TIOCGETA)
	if err != nil {
		return fmt.Errorf("read line settings: %w", err)
	}
	makeRaw(t)
	if err := unix.IoctlSetTermios(fd, unix.TIOCSETA, t); err != nil {
		return fmt.Errorf("set line raw: %w", err)
	}
	return nil
}

// fionread is FIONREAD, _IOR('f', 127, int).
const fionread = 0x4004667f

// unread is the number of bytes that wait on the slave's side.
func unread(f *os.File) (int, error) {
	return unix.IoctlGetInt(int(f.Fd()), fionread)
}

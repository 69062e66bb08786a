package journal

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// FS is the one seam between the journal and its disk, so that tests can put a failing disk under it.
type FS interface {
	// OpenFile opens a file as os.OpenFile does.
	OpenFile(name string, flag int, perm os.FileMode) (File, error)
	// ReadDir lists a directory by name.
	ReadDir(dir string) ([]os.DirEntry, error)
	// Mkdir makes a directory; one that exists is no error. Parents are not made for a mirror, whose device may be absent.
	Mkdir(dir string, parents bool) error
	Rename(from, to string) error
	Remove(name string) error
	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error
	// Lock takes the lock file, shared by readers or alone, and answers ErrLocked at once if another process has it.
	Lock(name string, shared bool) (io.Closer, error)
}

// File is an open file of an FS. A sync that failed is never tried again on it.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Size() (int64, error)
	// Sync makes content and size durable, Datasync content within the present size.
	Sync() error
	Datasync() error
}

// OS is the operating system's file system.
var OS FS = osFS{}

type osFS struct{}

type osFile struct{ *os.File }

func (osFS) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) ReadDir(dir string) ([]os.DirEntry, error) { return os.ReadDir(dir) }
func (osFS) Rename(from, to string) error              { return os.Rename(from, to) }
func (osFS) Remove(name string) error                  { return os.Remove(name) }

func (osFS) Mkdir(dir string, parents bool) error {
	if parents {
		return os.MkdirAll(dir, 0o700)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (osFS) Lock(name string, shared bool) (io.Closer, error) {
	how, flag := unix.LOCK_EX, os.O_CREATE|os.O_RDWR
	if shared {
		how, flag = unix.LOCK_SH, os.O_RDONLY
	}
	f, err := os.OpenFile(name, flag, 0o600)
	if shared && errors.Is(err, os.ErrNotExist) {
		return io.NopCloser(nil), nil // nobody ever wrote here, or it is an archive
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s", ErrLocked, name)
		}
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return f, nil
}

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f osFile) Datasync() error { return datasync(f.File) }

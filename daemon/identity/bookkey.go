package identity

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// CredentialsEnv names the directory of the credentials that systemd has opened for this service (systemd.exec(5),
// LoadCredentialEncrypted=).
const CredentialsEnv = "CREDENTIALS_DIRECTORY"

// BookKeyFile is the file with the book's key: the credential book.key if the service was given one, else the configured
// file, else book.key in the identity directory. credentials is the value of CredentialsEnv.
func BookKeyFile(dir, configured, credentials string) string {
	if credentials != "" {
		path := filepath.Join(credentials, bookFile)
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return path // one that cannot be read is to be complained about, not passed over
		}
	}
	if configured != "" {
		return configured
	}
	return filepath.Join(dir, bookFile)
}

// EnsureBookKey makes the book's key at path if there is neither key nor book. Beside a book without its key it fails with
// ErrNoBookKey and makes nothing.
func EnsureBookKey(path string, bookExists bool) error {
	if _, err := os.Stat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if bookExists {
		return fmt.Errorf("%w: %s; 请从备份恢复此文件，没有它账本无法打开 · restore it from your backup, the book cannot be read without it", ErrNoBookKey, path)
	}
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return err
	}
	return writeDurably(path, hex.EncodeToString(key[:])+"\n")
}

// ErrOtherBookKey says that another book key is here already.
var ErrOtherBookKey = errors.New("identity: another book key is here")

// KeepBookKey keeps the key of a book that was carried here at path. A key that is here already must be the same.
func KeepBookKey(path string, key [32]byte) error {
	have, err := readBookKey(path)
	switch {
	case err == nil && have == Secret(key):
		return nil
	case err == nil:
		return fmt.Errorf("%w: %s; 若这里没有账本，请移走该文件后重试 · if there is no book here, move the file away", ErrOtherBookKey, path)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return writeDurably(path, hex.EncodeToString(key[:])+"\n")
}

// readBookKey reads the book's key. systemd gives a credential to the service by an access list where the file system has
// them: then the group's bits are the list's mask (0440) and say nothing of a group, so reading by it is allowed there.
func readBookKey(path string) (s Secret, err error) {
	if dir := os.Getenv(CredentialsEnv); dir == "" || filepath.Dir(path) != filepath.Clean(dir) {
		return readSecret(filepath.Dir(path), filepath.Base(path))
	}
	info, err := os.Stat(path)
	if err != nil {
		return s, fmt.Errorf("%w: %w", ErrBad, err)
	}
	if info.Mode().Perm()&0o037 != 0 {
		return s, fmt.Errorf("%w: 凭据 · credential %s has mode %04o; 权限应为 0400 或 0440 · it must be 0400 or 0440", ErrMode, path, info.Mode().Perm())
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return s, fmt.Errorf("%w: %w", ErrBad, err)
	}
	return parseSecret(raw, path)
}

// ReadBookKey reads a book's key from a file that nobody else may read.
func ReadBookKey(path string) (Secret, error) { return readBookKey(path) }

// ReplaceBookKey puts the next key in the place of the one before, in one step, durably.
func ReplaceBookKey(next, path string) error {
	if err := os.Rename(next, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

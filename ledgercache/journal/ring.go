package journal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// A rotation seals forward: what is written from then on is sealed under the new key, and the keys before it stand in a ring
// that only the new key opens. So one key opens the whole journal, the new one, and an old one alone nothing newer than
// itself. The ring of the next key is written before that key takes over, under a name of its own, so that at every moment
// one of the two keys opens everything.

// The files of the ring, in both copies of the journal.
const (
	ringFile = "KEYRING"
	ringNext = "KEYRING.next"
)

const (
	ringMagic  = "YUPOSKEY"
	ringStride = 4096 // two copies of the ring, each in blocks of its own
	ringHead   = 8 + 2 + 2 + 32
	maxRing    = 100 // keys
)

// ring is the earlier keys, newest first, and where they were found.
type ring struct {
	keys [][32]byte
	name string // ringFile, ringNext, or "" where there is none
}

// readRing finds the ring that the key opens, in any of the directories. Where there is a ring and the key opens none, the
// key is an earlier one, or another's: ErrKey. A ring that is only prepared says nothing against the key in use.
func readRing(o Options, dirs ...string) (ring, error) {
	shut, newer := false, error(nil)
	for _, name := range []string{ringNext, ringFile} {
		for _, dir := range dirs {
			raw, err := readSmall(o.FS, filepath.Join(dir, name))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return ring{}, fmt.Errorf("%s: %w", name, unreadable(err))
			}
			for at := 0; at < len(raw); at += ringStride {
				keys, err := openRing(raw[at:], o.Key, o.TerminalID)
				if err == nil {
					return ring{keys, name}, nil
				}
				if errors.Is(err, ErrVersion) {
					newer = fmt.Errorf("%s: %w", name, err) // unless another copy opens: a flipped bit is no version
				}
			}
			shut = shut || name == ringFile
		}
	}
	if newer != nil {
		return ring{}, newer
	}
	if shut {
		return ring{}, fmt.Errorf("%w: an earlier key, or a damaged %s", ErrKey, ringFile)
	}
	return ring{}, nil
}

func readSmall(fs FS, path string) ([]byte, error) {
	f, err := fs.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw := make([]byte, 2*ringStride)
	n, err := f.ReadAt(raw, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return raw[:n], nil
}

func ringSeal(key [32]byte, terminalID string, salt []byte) (cipher.AEAD, error) {
	derived, err := hkdf.Key(sha256.New, key[:], salt, terminalID+"yupos-journal-keyring-v1", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// openRing reads one copy of a ring.
func openRing(raw []byte, key [32]byte, terminalID string) ([][32]byte, error) {
	if len(raw) < ringHead || string(raw[:8]) != ringMagic {
		return nil, ErrKey
	}
	if v := binary.BigEndian.Uint16(raw[8:]); v != version {
		return nil, fmt.Errorf("%w: version %d", ErrVersion, v)
	}
	count := int(binary.BigEndian.Uint16(raw[10:]))
	sealed := ringHead + 32*count + tagBytes
	if count < 1 || count > maxRing || len(raw) < sealed {
		return nil, ErrKey
	}
	aead, err := ringSeal(key, terminalID, raw[12:ringHead])
	if err != nil {
		return nil, err
	}
	text, err := aead.Open(nil, make([]byte, aead.NonceSize()), raw[ringHead:sealed], raw[:ringHead])
	if err != nil {
		return nil, ErrKey
	}
	keys := make([][32]byte, count)
	for i := range keys {
		keys[i] = [32]byte(text[32*i:])
	}
	return keys, nil
}

// makeRing seals earlier keys under a key. The salt is fresh, so that its one nonce seals one text.
func makeRing(keys [][32]byte, key [32]byte, terminalID string) ([]byte, error) {
	if len(keys) > maxRing {
		return nil, fmt.Errorf("%w: more than %d rotations", ErrOptions, maxRing)
	}
	head := make([]byte, ringHead, ringStride)
	copy(head, ringMagic)
	binary.BigEndian.PutUint16(head[8:], version)
	binary.BigEndian.PutUint16(head[10:], uint16(len(keys)))
	rand.Read(head[12:ringHead]) // never fails (crypto/rand)
	var text []byte
	for _, k := range keys {
		text = append(text, k[:]...)
	}
	aead, err := ringSeal(key, terminalID, head[12:ringHead])
	if err != nil {
		return nil, err
	}
	one := aead.Seal(head, make([]byte, aead.NonceSize()), text, head)
	raw := make([]byte, 2*ringStride)
	copy(raw, one)
	copy(raw[ringStride:], one)
	return raw, nil
}

// writeFile makes a small file durable under its name, whole or not at all.
func writeFile(fs FS, dir, name string, raw []byte) error {
	path := filepath.Join(dir, name)
	if err := fs.Remove(path + ".new"); err != nil && !errors.Is(err, os.ErrNotExist) { // a file whose sync failed is not synced again
		return err
	}
	f, err := fs.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	err = writeAt(f, raw, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fs.Rename(path+".new", path); err != nil {
		return err
	}
	return fs.SyncDir(dir)
}

// keep gives the ring its own name in a copy of the journal, once the key that opens it is the one in use. A copy that
// lacks it gets it.
func (r ring) keep(o Options, dir string) error {
	if r.name == "" {
		return nil
	}
	have, err := readRing(o, dir)
	if err == nil && have.name == ringFile {
		return nil
	}
	raw, err := makeRing(r.keys, o.Key, o.TerminalID)
	if err != nil {
		return err
	}
	if err := writeFile(o.FS, dir, ringFile, raw); err != nil {
		return err
	}
	if err := o.FS.Remove(filepath.Join(dir, ringNext)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return o.FS.SyncDir(dir)
}

// PrepareKey writes the ring with which the journal in o.Dir opens under the next key, as it still does under o.Key: whichever
// of the two is then used for the next opening is the one that goes on. It may be repeated. The journal must not be open.
// It fails as Open does.
func PrepareKey(o Options, next [32]byte) error {
	o, err := o.complete()
	if err != nil {
		return err
	}
	if next == o.Key {
		return fmt.Errorf("%w: the next key is the present one", ErrOptions)
	}
	j, report, err := Open(o) // proves the key, and gives a ring that was only prepared its own name
	if err != nil {
		return err
	}
	earlier, mirror := j.o.earlier, j.mirrored() != nil
	if err := j.Close(); err != nil {
		return err
	}
	if report.Problem != nil {
		return report.Problem
	}
	raw, err := makeRing(append([][32]byte{o.Key}, earlier...), next, o.TerminalID)
	if err != nil {
		return err
	}
	lock, err := o.FS.Lock(filepath.Join(o.Dir, "LOCK"), false)
	if err != nil {
		return err
	}
	defer lock.Close()
	if mirror {
		if err := writeFile(o.FS, o.Mirror, ringNext, raw); err != nil {
			return fmt.Errorf("mirror: %w", err)
		}
	}
	return writeFile(o.FS, o.Dir, ringNext, raw)
}

package journal

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// The HEAD file has two slots, each in a block of its own, written in turn: one of them is whole whatever is torn.
const (
	headMagic  = "YUPOSHED"
	slotBytes  = 512
	slotStride = 4096
	slotMAC    = slotBytes - sha256.Size
	headBytes  = slotStride + slotBytes
)

// slots is the HEAD file of one directory: the journal's own witness of what was durable.
type slots struct {
	fs    FS
	dir   string
	keys  [][]byte // the one in use first
	heads []Head   // that verified at opening
	bad   int      // slots that hold something that does not verify
	found bool

	mu      sync.Mutex // guards what follows
	file    File       // nil until the first write
	counter uint64
	last    Head // written by this process
	failed  error
}

func newSlots(fs FS, dir string, o Options) (*slots, error) {
	s := &slots{fs: fs, dir: dir}
	for _, k := range o.keys() {
		key, err := hkdf.Key(sha256.New, k[:], nil, o.TerminalID+"yupos-journal-head-v1", 32)
		if err != nil {
			return nil, err
		}
		s.keys = append(s.keys, key)
	}
	return s, nil
}

// readSlots reads the HEAD file of a directory and changes nothing. A slot that does not verify says nothing.
func readSlots(fs FS, dir string, o Options) (*slots, error) {
	s, err := newSlots(fs, dir, o)
	if err != nil {
		return nil, err
	}
	f, err := fs.OpenFile(filepath.Join(dir, "HEAD"), os.O_RDONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s.found = true
	for i := range int64(2) {
		raw := make([]byte, slotBytes)
		if _, err := f.ReadAt(raw, i*slotStride); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if err := s.take(raw); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *slots) take(raw []byte) error {
	if allZero(raw) {
		return nil
	}
	if string(raw[:8]) == headMagic && slices.ContainsFunc(s.keys, func(k []byte) bool { return hmac.Equal(mac(k, raw[:slotMAC]), raw[slotMAC:]) }) {
		if v := binary.BigEndian.Uint16(raw[8:]); v != version {
			return fmt.Errorf("%w: HEAD of version %d", ErrVersion, v)
		}
		s.counter = max(s.counter, binary.BigEndian.Uint64(raw[16:]))
		s.heads = append(s.heads, Head{Epoch: [16]byte(raw[24:]), Sequence: binary.BigEndian.Uint64(raw[40:]), Hash: [32]byte(raw[48:])})
		return nil
	}
	s.bad++
	return nil
}

func (s *slots) witnesses(name string) []Witness {
	var list []Witness
	for _, h := range s.heads {
		list = append(list, Witness{Name: name, Sequence: h.Sequence, Hash: h.Hash, HasHash: true})
	}
	return list
}

// synced is the highest sequence that the slots have seen durable.
func (s *slots) synced() uint64 {
	var highest uint64
	for _, h := range s.heads {
		highest = max(highest, h.Sequence)
	}
	return highest
}

// write makes a head durable in the older slot. A head that this process wrote last is not written again. After a failure
// nothing is: whoever waited meanwhile gets the same error, and the sync is not tried again.
func (s *slots) write(h Head) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil && (s.file == nil || h != s.last) {
		s.failed = s.put(h)
	}
	return s.failed
}

func (s *slots) put(h Head) error {
	if err := s.create(); err != nil {
		return fmt.Errorf("HEAD: %w", err)
	}
	raw := make([]byte, slotBytes)
	copy(raw, headMagic)
	binary.BigEndian.PutUint16(raw[8:], version)
	binary.BigEndian.PutUint64(raw[16:], s.counter+1)
	copy(raw[24:], h.Epoch[:])
	binary.BigEndian.PutUint64(raw[40:], h.Sequence)
	copy(raw[48:], h.Hash[:])
	copy(raw[slotMAC:], mac(s.keys[0], raw[:slotMAC]))
	s.counter++
	if _, err := s.file.WriteAt(raw, int64(s.counter%2)*slotStride); err != nil {
		return fmt.Errorf("HEAD: %w", err)
	}
	if err := s.file.Datasync(); err != nil {
		return fmt.Errorf("HEAD: sync: %w", err)
	}
	s.last = h
	return nil
}

// create opens the file and, where it is new or short, writes it through.
func (s *slots) create() error {
	if s.file != nil {
		return nil
	}
	f, err := s.fs.OpenFile(filepath.Join(s.dir, "HEAD"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	s.file = f
	size, err := f.Size()
	if err != nil || size >= headBytes {
		return err
	}
	if _, err := f.WriteAt(make([]byte, headBytes-size), size); err != nil {
		return err
	}
	return errors.Join(f.Sync(), s.fs.SyncDir(s.dir))
}

func (s *slots) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		s.file.Close() // what was to be durable is synced
	}
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

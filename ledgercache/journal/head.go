package journal

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The HEAD file has two slots, each in a block of its own, written in turn: one of them is whole whatever is torn.
const (
	slotBytes   = 128
	slotStride  = 4096
	slotMagic   = "YUPOSHED"
	headWitness = "HEAD"
)

// slots is the HEAD file: the journal's own witness of what was durable.
type slots struct {
	file    *os.File
	key     []byte
	counter uint64
	heads   []Head // that verified at opening
	last    Head
}

// openSlots opens or makes the HEAD file. A slot that does not verify says nothing.
func openSlots(o Options) (*slots, error) {
	key, err := hkdf.Key(sha256.New, o.Key[:], nil, o.TerminalID+"yupos-journal-head-v1", 32)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(o.Dir, "HEAD"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	s := &slots{file: f, key: key}
	raw := make([]byte, slotBytes)
	for i := range int64(2) {
		if _, err := f.ReadAt(raw, i*slotStride); errors.Is(err, io.EOF) {
			continue
		} else if err != nil {
			f.Close()
			return nil, err
		}
		if string(raw[:8]) != slotMagic || !hmac.Equal(s.mac(raw[:72]), raw[72:104]) {
			continue
		}
		s.counter = max(s.counter, binary.BigEndian.Uint64(raw[8:]))
		s.heads = append(s.heads, Head{Epoch: [16]byte(raw[16:32]), Sequence: binary.BigEndian.Uint64(raw[32:]), Hash: [32]byte(raw[40:72])})
	}
	return s, nil
}

func (s *slots) mac(data []byte) []byte {
	m := hmac.New(sha256.New, s.key)
	m.Write(data)
	return m.Sum(nil)
}

func (s *slots) witnesses() []Witness {
	var list []Witness
	for _, h := range s.heads {
		list = append(list, Witness{Name: headWitness, Sequence: h.Sequence, Hash: h.Hash, HasHash: true})
	}
	return list
}

// write makes a head durable in the older slot. A head that was written last is not written again.
func (s *slots) write(h Head) error {
	if h == s.last {
		return nil
	}
	raw := make([]byte, slotBytes)
	copy(raw, slotMagic)
	binary.BigEndian.PutUint64(raw[8:], s.counter+1)
	copy(raw[16:], h.Epoch[:])
	binary.BigEndian.PutUint64(raw[32:], h.Sequence)
	copy(raw[40:], h.Hash[:])
	copy(raw[72:], s.mac(raw[:72]))
	s.counter++
	if _, err := s.file.WriteAt(raw, int64(s.counter%2)*slotStride); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	s.last = h
	return nil
}

func (s *slots) close() { s.file.Close() }

// fdatasync makes the content of a preallocated file durable without its times.
func fdatasync(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }

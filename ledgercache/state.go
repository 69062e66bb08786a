package ledgercache

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
	"github.com/tidwall/btree"
)

// state is the derived state as one moment has it: what fold writes and every read reads. Badger keeps it on disk; a fold
// in memory has the same content, which is what proves the cache and what is read while there is no cache.
type state interface {
	// get answers a copy of the value, or ErrNotFound.
	get(k []byte) ([]byte, error)
	// set keeps k and v: the caller must not change them afterwards.
	set(k, v []byte) error
	delete(k []byte) error
	// scan calls each for every key with the prefix, from the key from if given, until it answers false. Key and value
	// are valid during the call only.
	scan(prefix, from []byte, newestFirst bool, each func(k, v []byte) (bool, error)) error
}

// onDisk is a Badger transaction as state.
type onDisk struct{ txn *badger.Txn }

func (s onDisk) get(k []byte) ([]byte, error) {
	item, err := s.txn.Get(k)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return item.ValueCopy(nil)
}

func (s onDisk) set(k, v []byte) error {
	if len(v) >= maxValue {
		return fmt.Errorf("ledgercache: value of %d bytes", len(v))
	}
	return s.txn.Set(k, v)
}

func (s onDisk) delete(k []byte) error { return s.txn.Delete(k) }

func (s onDisk) scan(prefix, from []byte, newestFirst bool, each func(k, v []byte) (bool, error)) error {
	it := s.txn.NewIterator(badger.IteratorOptions{Prefix: prefix, Reverse: newestFirst, PrefetchValues: false})
	defer it.Close()
	for it.Seek(scanStart(prefix, from, newestFirst)); it.ValidForPrefix(prefix); it.Next() {
		item := it.Item()
		more := false
		if err := item.Value(func(v []byte) (err error) { more, err = each(item.Key(), v); return err }); err != nil {
			return err
		}
		if !more {
			return nil
		}
	}
	return nil
}

func scanStart(prefix, from []byte, newestFirst bool) []byte {
	switch {
	case from != nil:
		return from
	case newestFirst:
		return append(append([]byte(nil), prefix...), 0xFF)
	}
	return prefix
}

// inMemory is state in memory. It is not safe for concurrent use while it is written.
type inMemory struct{ tree *btree.Map[string, []byte] }

func newInMemory() inMemory { return inMemory{tree: new(btree.Map[string, []byte])} }

func (s inMemory) get(k []byte) ([]byte, error) {
	v, ok := s.tree.Get(string(k))
	if !ok {
		return nil, ErrNotFound
	}
	return bytes.Clone(v), nil
}

func (s inMemory) set(k, v []byte) error {
	s.tree.Set(string(k), v)
	return nil
}

func (s inMemory) delete(k []byte) error {
	s.tree.Delete(string(k))
	return nil
}

func (s inMemory) scan(prefix, from []byte, newestFirst bool, each func(k, v []byte) (bool, error)) (err error) {
	step := func(k string, v []byte) bool {
		if !bytes.HasPrefix([]byte(k), prefix) {
			return false
		}
		more := false
		more, err = each([]byte(k), v)
		return more && err == nil
	}
	start := string(scanStart(prefix, from, newestFirst))
	if newestFirst {
		s.tree.Descend(start, step)
	} else {
		s.tree.Ascend(start, step)
	}
	return err
}

// keeper is state that holds values as they are.
type keeper interface {
	load(k []byte, into any) error
	store(k []byte, value any) error
}

// get reads and decodes one value, or returns ErrNotFound.
func get(s state, k []byte, into any) error {
	if held, ok := s.(keeper); ok {
		return held.load(k, into)
	}
	raw, err := s.get(k)
	if err != nil {
		return err
	}
	return decMode.Unmarshal(raw, into)
}

// put encodes and writes one value.
func put(s state, k []byte, value any) error {
	if held, ok := s.(keeper); ok {
		return held.store(k, value)
	}
	raw, err := encMode.Marshal(value)
	if err != nil {
		return err
	}
	return s.set(k, raw)
}

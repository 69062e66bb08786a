package ledgersim

import (
	"encoding/json"
	"errors"
	"os"

	"github.com/dgraph-io/badger/v4"
)

// errNone says that the store has no such thing.
var errNone = errors.New("ledgersim: none")

// openStore opens Badger so that what is committed is on disk.
func openStore(dir string) (*badger.DB, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	o := badger.DefaultOptions(dir).WithSyncWrites(true).WithMemTableSize(8 << 20).WithNumMemtables(2).
		WithBlockCacheSize(4 << 20).WithIndexCacheSize(4 << 20).WithValueThreshold(256 << 10).WithValueLogFileSize(4 << 20).
		WithDetectConflicts(false).WithMetricsEnabled(false).WithLogger(nil)
	db, err := badger.Open(o)
	if err != nil {
		return nil, err // Badger also answers a half-opened DB, which must not be touched
	}
	return db, nil
}

func get(txn *badger.Txn, key string, into any) error {
	item, err := txn.Get([]byte(key))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return errNone
	}
	if err != nil {
		return err
	}
	return item.Value(func(v []byte) error { return json.Unmarshal(v, into) })
}

func put(txn *badger.Txn, key string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return txn.Set([]byte(key), raw)
}

// list decodes every value whose key begins with the prefix, in the order of the keys.
func list[T any](txn *badger.Txn, prefix string) ([]T, error) {
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(prefix), PrefetchValues: true, PrefetchSize: 100})
	defer it.Close()
	var out []T
	for it.Rewind(); it.Valid(); it.Next() {
		var v T
		if err := it.Item().Value(func(raw []byte) error { return json.Unmarshal(raw, &v) }); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

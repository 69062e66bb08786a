package ledgercache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/fb"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/ristretto/v2"
	"github.com/dgraph-io/ristretto/v2/z"
	"golang.org/x/sync/errgroup"
)

// errTable says that a table of the cache is damaged.
var errTable = errors.New("ledgercache: cache table damaged")

// checkTables verifies every block of every table that the cache's manifest names. Badger's own check at Open does the
// same in goroutines of its own, where a block that does not decompress is a nil pointer (table.go, VerifyChecksum, v4.9.6)
// and a footer that points outside ends the process: neither can be caught, and a shop would never open again. So it is
// done here, where it can, and Badger then opens without checking twice.
func checkTables(o badger.Options) (err error) {
	defer caught(&err)()
	tables, err := tablesOf(o)
	if err != nil {
		return err
	}
	keys, err := badger.OpenKeyRegistry(badger.KeyRegistryOptions{
		Dir: o.Dir, ReadOnly: true, EncryptionKey: o.EncryptionKey, EncryptionKeyRotationDuration: o.EncryptionKeyRotationDuration,
	})
	if err != nil {
		return fmt.Errorf("%w: key registry: %w", errTable, err)
	}
	indexes, err := ristretto.NewCache(&ristretto.Config[uint64, *fb.TableIndex]{
		NumCounters: 1000, MaxCost: o.IndexCacheSize, BufferItems: 64,
	})
	if err != nil {
		return err
	}
	defer indexes.Close()
	var registry sync.Mutex
	var g errgroup.Group
	g.SetLimit(2)
	for id, t := range tables {
		registry.Lock()
		dataKey, err := keys.DataKey(t.KeyID)
		registry.Unlock()
		if err != nil {
			return errors.Join(fmt.Errorf("%w: table %d: %w", errTable, id, err), g.Wait())
		}
		g.Go(func() error {
			return checkTable(table.NewFilename(id, o.Dir), table.Options{
				ReadOnly: true, BlockSize: o.BlockSize, TableSize: uint64(o.BaseTableSize), Compression: t.Compression,
				ChkMode: options.NoVerification, DataKey: dataKey, IndexCache: indexes,
			})
		})
	}
	return g.Wait()
}

// tablesOf reads the manifest. A cache without one has no tables.
func tablesOf(o badger.Options) (map[uint64]badger.TableManifest, error) {
	f, err := os.Open(filepath.Join(o.Dir, badger.ManifestFilename))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m, _, err := badger.ReplayManifestFile(f, o.ExternalMagicVersion, o)
	if err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", errTable, err)
	}
	return m.Tables, nil
}

// checkTable reads a whole table. Whatever the library does over a damaged one is an error here.
func checkTable(path string, o table.Options) (err error) {
	if err := checkFooter(path); err != nil {
		return fmt.Errorf("%w: %s: %w", errTable, filepath.Base(path), err)
	}
	faults := debug.SetPanicOnFault(true) // the file is mapped: a block that cannot be read is a fault
	defer debug.SetPanicOnFault(faults)
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %s: %v", errTable, filepath.Base(path), r)
		}
	}()
	f, err := z.OpenMmapFile(path, os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", errTable, err)
	}
	t, err := table.OpenTable(f, o) // closes f where it fails
	if err != nil {
		return fmt.Errorf("%w: %w", errTable, err)
	}
	t.StaleDataSize() // has the index decrypted and cached once, and not for each block
	o.IndexCache.Wait()
	if err := t.VerifyChecksum(); err != nil {
		return errors.Join(fmt.Errorf("%w: %w", errTable, err), t.Close(-1))
	}
	return t.Close(-1)
}

// checkFooter holds the lengths at the end of a table against its size: index, index length, checksum, checksum length.
func checkFooter(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	at := size
	for _, what := range []string{"checksum", "index"} {
		var raw [4]byte
		at -= int64(len(raw))
		if at < 0 {
			return fmt.Errorf("%d bytes", size)
		}
		if _, err := f.ReadAt(raw[:], at); err != nil {
			return err
		}
		if at -= int64(binary.BigEndian.Uint32(raw[:])); at < 0 {
			return fmt.Errorf("%s reaches out of the file", what)
		}
	}
	return nil
}

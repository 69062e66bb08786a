package ledgercache

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
)

// runMark stands beside the cache in the file cache.run, from before a process opens it. With cache.clean, which stands
// only between a stop that went well and the next start, it says how the last process left the cache.
type runMark struct {
	Deaths  int  `cbor:"2,keyasint,omitempty"` // processes in a row that died inside Badger's Open, or are in it
	Suspect bool `cbor:"3,keyasint,omitempty"` // a process did not stop cleanly, and the cache was not compared with the journal since
	Lies    bool `cbor:"4,keyasint,omitempty"` // it was found to differ from the journal
}

// maxDeaths is how many processes may die inside Badger's Open, where nothing can be caught, before the cache is set aside.
const maxDeaths = 2

func (b *Book) runPath() string   { return filepath.Join(b.opts.Dir, "cache.run") }
func (b *Book) cleanPath() string { return filepath.Join(b.opts.Dir, "cache.clean") }

// takeMarks answers how the last process left the cache, and marks durably that this one is opening it.
func (b *Book) takeMarks() (left runMark, err error) {
	raw, err := os.ReadFile(b.runPath())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return left, err
	}
	if decMode.Unmarshal(raw, &left) != nil {
		left = runMark{} // none, or torn
	}
	_, err = os.Stat(b.cleanPath())
	clean := err == nil
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return left, err
	}
	if clean {
		left.Deaths = 0
	} else {
		left.Suspect = true
	}
	if err := b.putRun(runMark{Deaths: left.Deaths + 1, Suspect: left.Suspect, Lies: left.Lies}); err != nil {
		return left, err
	}
	if !clean {
		return left, nil
	}
	if err := os.Remove(b.cleanPath()); err != nil {
		return left, err
	}
	return left, syncDir(b.opts.Dir)
}

// putRun writes the mark through under a new name and then renames it: it is whole or the old one.
func (b *Book) putRun(m runMark) error {
	raw, err := encMode.Marshal(m)
	if err != nil {
		return err
	}
	return writeDurable(b.runPath(), raw)
}

// writeDurable replaces a file whole.
func writeDurable(path string, raw []byte) error {
	f, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// closeCache closes Badger and then, if all went well, leaves the mark of a clean stop. The mark is written only when
// Close has returned, so that a kill inside Close never passes as clean.
func (b *Book) closeCache() error {
	if b.Err() == nil {
		if err := b.known.save(); err != nil { // a start reads the journal instead
			b.log.Warn("known keys not written", slog.Any("err", err))
		}
	}
	if err := b.closeDB(); err != nil || b.Err() != nil {
		return err
	}
	return writeDurable(b.cleanPath(), nil)
}

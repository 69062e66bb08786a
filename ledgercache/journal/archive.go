package journal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Closed segments may be moved to an archive, on a larger and slower disk. They stay a part of the journal: with the archive
// in its place every opening and every proof reads them there. Without it the journal begins at the first segment that is
// here (Report.First), which verifies because its header names the head before it.

// withArchive looks for segments that are not in a copy of the journal in the archive. It never writes there.
type withArchive struct {
	FS
	copies  []string
	archive string
}

func (o Options) archived() FS {
	if o.Archive == "" {
		return o.FS
	}
	return withArchive{o.FS, []string{filepath.Clean(o.Dir), filepath.Clean(o.Mirror)}, o.Archive}
}

func (a withArchive) ours(dir string) bool {
	dir = filepath.Clean(dir)
	return dir == a.copies[0] || a.copies[1] != "." && dir == a.copies[1]
}

// OpenFile opens a segment in the archive where it is not here.
func (a withArchive) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	f, err := a.FS.OpenFile(name, flag, perm)
	if flag == os.O_RDONLY && errors.Is(err, os.ErrNotExist) && strings.HasSuffix(name, ".seg") && a.ours(filepath.Dir(name)) {
		return a.FS.OpenFile(filepath.Join(a.archive, filepath.Base(name)), flag, perm)
	}
	return f, err
}

// ReadDir lists the archive's segments beside a copy's own. An archive that is not there has none.
func (a withArchive) ReadDir(dir string) ([]os.DirEntry, error) {
	list, err := a.FS.ReadDir(dir)
	if err != nil || !a.ours(dir) {
		return list, err
	}
	here := map[string]bool{}
	for _, e := range list {
		here[e.Name()] = true
	}
	away, err := a.FS.ReadDir(a.archive)
	if errors.Is(err, os.ErrNotExist) {
		return list, nil
	}
	for _, e := range away {
		if strings.HasSuffix(e.Name(), ".seg") && !here[e.Name()] {
			list = append(list, e)
		}
	}
	return list, err
}

// Archive moves the oldest segments, as far as all their records are at or below upTo, to o.Archive: copied, synced, read
// back, and only then removed from both copies. The segment that was written last stays. Killed at any moment, every
// segment is in one of the two places, and the same call goes on. The journal must not be open. It answers how many were moved.
func Archive(ctx context.Context, o Options, upTo uint64) (moved int, err error) {
	o.ReadOnly = true
	if o, err = o.complete(); err != nil {
		return 0, err
	}
	if o.Archive == "" {
		return 0, fmt.Errorf("%w: no archive", ErrOptions)
	}
	j, report, err := Open(o)
	if err != nil {
		return 0, err
	}
	segments := j.segments
	err = errors.Join(report.Problem, j.Close())
	if err != nil {
		return 0, err
	}
	if err := o.FS.Mkdir(o.Archive, true); err != nil {
		return 0, err
	}
	for i, seg := range segments {
		if i == len(segments)-1 || seg.after.Sequence > upTo {
			break
		}
		here, err := o.putAway(ctx, seg.number)
		if err != nil {
			return moved, fmt.Errorf("segment %d: %w", seg.number, err)
		}
		if here {
			moved++
		}
	}
	return moved, nil
}

// putAway moves one segment. It answers false for one that is in the archive already.
func (o Options) putAway(ctx context.Context, number uint32) (bool, error) {
	own := o.FS
	if a, ok := own.(withArchive); ok {
		own = a.FS
	}
	to := segmentPath(o.Archive, number)
	removed := false
	for _, dir := range []string{o.Mirror, o.Dir} { // the copy that is read goes last
		if dir == "" {
			continue
		}
		from := segmentPath(dir, number)
		raw, err := readAll(own, from)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = keepIn(own, o.Archive, to, raw)
		}
		if err = errors.Join(err, ctx.Err()); err == nil {
			err = own.Remove(from)
		}
		if err != nil {
			return removed, err
		}
		removed = true
	}
	if !removed {
		return false, nil
	}
	return true, own.SyncDir(o.Dir)
}

// keepIn makes sure that the archive holds exactly these bytes under the name, durably.
func keepIn(fs FS, dir, path string, raw []byte) error {
	have, err := readAll(fs, path)
	if errors.Is(err, os.ErrNotExist) {
		if err := writeFile(fs, dir, filepath.Base(path), raw); err != nil {
			return err
		}
		have, err = readAll(fs, path)
	}
	if err != nil {
		return err
	}
	if !bytes.Equal(trimZeros(have), trimZeros(raw)) {
		return fmt.Errorf("%w: the archive holds another %s (%x)", ErrForked, filepath.Base(path), sha256.Sum256(have))
	}
	return nil
}

// trimZeros leaves out what was written through behind the last batch: a copy may have given it back.
func trimZeros(raw []byte) []byte { return bytes.TrimRight(raw, "\x00") }

func readAll(fs FS, path string) ([]byte, error) {
	f, err := fs.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	raw := make([]byte, size)
	n, err := f.ReadAt(raw, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return raw[:n], err
}

package ledgercache

import (
	"bytes"
	sorted "container/heap"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"sort"

	"github.com/dgraph-io/ristretto/v2/z"
	"github.com/klauspost/compress/s2"
)

// spilling is state that a whole journal is folded into with bounded memory. What was used lately is held as it is; what
// was not goes to sorted runs in files without a name, sealed under a key that is kept nowhere. At the end the runs are
// merged: sorted is how a cache is loaded, and how one is compared. It is not safe for concurrent use.
type spilling struct {
	dir        string
	limit      int // bytes held, about
	young, old map[string]*cell
	used       int // by young
	runs       []*run
	aead       cipher.AEAD
	blocks     uint64 // sealed so far: the nonce
}

// cell is one key's newest value that is held: as a Go value or as bytes, or none.
type cell struct {
	value  any
	raw    []byte
	gone   bool
	inRuns bool // a run may have an older value
}

// cellCost is about what holding a key costs beside its bytes.
const cellCost = 160

func newSpilling(dir string, limit int) (*spilling, error) {
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &spilling{dir: dir, limit: limit, young: map[string]*cell{}, old: map[string]*cell{}, aead: aead}, nil
}

func (s *spilling) close() error {
	var err error
	for _, r := range s.runs {
		err = errors.Join(err, r.file.Close())
	}
	s.runs = nil
	return err
}

// find is the cell of a key, fetched from the runs if need be; that there is none is remembered too.
func (s *spilling) find(k []byte) (*cell, error) {
	if c := s.young[string(k)]; c != nil {
		return c, nil
	}
	if c := s.old[string(k)]; c != nil {
		delete(s.old, string(k))
		return c, s.hold(k, c)
	}
	c := &cell{gone: true}
	hash := z.MemHash(k)
	for i := len(s.runs) - 1; i >= 0; i-- {
		raw, gone, found, err := s.runs[i].get(s, k, hash)
		if err != nil {
			return nil, err
		}
		if found {
			c = &cell{raw: raw, gone: gone, inRuns: true}
			break
		}
	}
	return c, s.hold(k, c)
}

// hold puts a cell among the young. When they are too many, the old ones go to a run and the young are the old.
func (s *spilling) hold(k []byte, c *cell) error {
	s.young[string(k)] = c
	s.used += len(k) + cellCost + costOf(c)
	if s.used < s.limit/2 {
		return nil
	}
	if err := s.spill(s.old); err != nil {
		return err
	}
	s.old, s.young, s.used = s.young, map[string]*cell{}, 0
	return nil
}

func costOf(c *cell) int {
	if c.value != nil {
		return int(reflect.TypeOf(c.value).Size()) + 256 // and what it points to
	}
	return len(c.raw)
}

func (s *spilling) change(k []byte, change cell) error {
	c := s.young[string(k)]
	if c == nil {
		if c = s.old[string(k)]; c != nil {
			delete(s.old, string(k))
		} else {
			c = &cell{inRuns: len(s.runs) > 0} // most keys are new: to look would cost more than a trace of some that are gone
		}
		c.value, c.raw, c.gone = change.value, change.raw, change.gone
		return s.hold(k, c)
	}
	c.value, c.raw, c.gone = change.value, change.raw, change.gone
	return nil
}

func (c *cell) bytes() ([]byte, error) {
	if c.value == nil {
		return c.raw, nil
	}
	return encMode.Marshal(c.value)
}

func (s *spilling) get(k []byte) ([]byte, error) {
	c, err := s.find(k)
	if err != nil {
		return nil, err
	}
	if c.gone {
		return nil, ErrNotFound
	}
	raw, err := c.bytes()
	return bytes.Clone(raw), err
}

func (s *spilling) set(k, v []byte) error { return s.change(k, cell{raw: v}) }
func (s *spilling) delete(k []byte) error { return s.change(k, cell{gone: true}) }

// load and store are get and put without encoding: most values change several times before they rest. What is loaded may
// share memory with what is held, so it is either stored again or left alone.
func (s *spilling) load(k []byte, into any) error {
	c, err := s.find(k)
	if err != nil {
		return err
	}
	if c.gone {
		return ErrNotFound
	}
	target := reflect.ValueOf(into).Elem()
	if c.value != nil && reflect.TypeOf(c.value) == target.Type() {
		target.Set(reflect.ValueOf(c.value))
		return nil
	}
	raw, err := c.bytes()
	if err != nil {
		return err
	}
	return decMode.Unmarshal(raw, into)
}

func (s *spilling) store(k []byte, value any) error { return s.change(k, cell{value: value}) }

// scan is rare in a fold: it merges what is held with the runs.
func (s *spilling) scan(prefix, from []byte, newestFirst bool, each func(k, v []byte) (bool, error)) error {
	found := newInMemory()
	if err := s.merge(prefix, func(k, v []byte) error { return found.set(k, bytes.Clone(v)) }); err != nil {
		return err
	}
	return found.scan(prefix, from, newestFirst, each)
}

// settle lets go of what only folding needs: then the runs of a long journal are merged within the memory of a small machine.
func (s *spilling) settle() error {
	if len(s.runs) == 0 {
		return nil
	}
	if err := errors.Join(s.spill(s.old), s.spill(s.young)); err != nil {
		return err
	}
	s.old, s.young, s.used = map[string]*cell{}, map[string]*cell{}, 0
	for _, r := range s.runs {
		r.bloom = nil
	}
	return nil
}

// merge calls each for every key with the prefix, sorted, with its newest value. Key and value are valid during the call only.
func (s *spilling) merge(prefix []byte, each func(k, v []byte) error) error {
	var m merging
	for i, r := range s.runs {
		if err := m.add(&cursor{age: len(s.runs) - i, next: r.from(s, prefix)}); err != nil {
			return err
		}
	}
	if err := m.add(&cursor{next: s.held(prefix)}); err != nil {
		return err
	}
	var last []byte
	for len(m) > 0 && bytes.HasPrefix(m[0].k, prefix) {
		top := m[0]
		if last == nil || !bytes.Equal(top.k, last) {
			last = append(last[:0], top.k...)
			if !top.gone {
				if err := each(top.k, top.v); err != nil {
					return err
				}
			}
		}
		if err := m.step(); err != nil {
			return err
		}
	}
	return nil
}

// held walks what is in memory, sorted.
func (s *spilling) held(prefix []byte) func(*cursor) error {
	keys := slices.AppendSeq(make([]string, 0, len(s.young)+len(s.old)), maps.Keys(s.young))
	keys = slices.AppendSeq(keys, maps.Keys(s.old))
	slices.Sort(keys)
	at := sort.SearchStrings(keys, string(prefix))
	return func(c *cursor) (err error) {
		if at == len(keys) {
			return io.EOF
		}
		held := s.young[keys[at]]
		if held == nil {
			held = s.old[keys[at]]
		}
		c.k, c.gone = []byte(keys[at]), held.gone
		at++
		if !c.gone {
			c.v, err = held.bytes()
		}
		return err
	}
}

// cursor is one source of a merge. age orders equal keys: the newest, the least, is the one that counts.
type cursor struct {
	k, v []byte
	gone bool
	age  int
	next func(*cursor) error // io.EOF at the end
}

type merging []*cursor

func (m merging) Len() int      { return len(m) }
func (m merging) Swap(i, j int) { m[i], m[j] = m[j], m[i] }
func (m *merging) Push(x any)   { *m = append(*m, x.(*cursor)) }
func (m *merging) Pop() any     { old := *m; *m = old[:len(old)-1]; return old[len(old)-1] }
func (m merging) Less(i, j int) bool {
	if order := bytes.Compare(m[i].k, m[j].k); order != 0 {
		return order < 0
	}
	return m[i].age < m[j].age
}

func (m *merging) add(c *cursor) error {
	err := c.next(c)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		sorted.Push(m, c)
	}
	return err
}

func (m *merging) step() error {
	err := (*m)[0].next((*m)[0])
	if errors.Is(err, io.EOF) {
		sorted.Pop(m)
		return nil
	}
	if err == nil {
		sorted.Fix(m, 0)
	}
	return err
}

// run is a sorted file of blocks, each compressed and sealed.
type run struct {
	file   *os.File
	bloom  *z.Bloom // nil when nothing is looked up any more
	blocks []block
}

type block struct {
	first  []byte // its first key
	offset int64
	length int
	nonce  uint64
}

// blockBytes is about how long a block of a run is before it is compressed.
const blockBytes = 32 << 10

// spill writes cells as a run. A key that is gone and never was in a run leaves no trace.
func (s *spilling) spill(cells map[string]*cell) error {
	keys := make([]string, 0, len(cells))
	for k, c := range cells {
		if !c.gone || c.inRuns {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	slices.Sort(keys)
	f, err := os.CreateTemp(s.dir, "spill-")
	if err != nil {
		return err
	}
	r := &run{file: f, bloom: z.NewBloomFilter(float64(len(keys)), 0.05)}
	s.runs = append(s.runs, r)
	if err := os.Remove(f.Name()); err != nil { // it ends with this process, however that ends
		return err
	}
	w := runWriter{spilling: s, run: r}
	for _, k := range keys {
		if err := w.add(k, cells[k]); err != nil {
			return err
		}
	}
	return w.flush()
}

type runWriter struct {
	*spilling
	run    *run
	first  []byte
	plain  []byte
	packed []byte
	offset int64
}

// add writes one entry: uvarint length and key, then 0 for a key that is gone, or uvarint length + 1 and value.
func (w *runWriter) add(k string, c *cell) error {
	if len(w.plain) == 0 {
		w.first = []byte(k)
	}
	w.run.bloom.Add(z.MemHashString(k))
	w.plain = binary.AppendUvarint(w.plain, uint64(len(k)))
	w.plain = append(w.plain, k...)
	if c.gone {
		w.plain = append(w.plain, 0)
	} else {
		raw, err := c.bytes()
		if err != nil {
			return err
		}
		w.plain = append(binary.AppendUvarint(w.plain, uint64(len(raw))+1), raw...)
	}
	if len(w.plain) < blockBytes {
		return nil
	}
	return w.flush()
}

func (w *runWriter) flush() error {
	if len(w.plain) == 0 {
		return nil
	}
	w.blocks++
	w.packed = s2.Encode(w.packed[:cap(w.packed)], w.plain)
	sealed := w.aead.Seal(nil, nonceOf(w.blocks), w.packed, nil)
	if _, err := w.run.file.Write(sealed); err != nil {
		return err
	}
	w.run.blocks = append(w.run.blocks, block{w.first, w.offset, len(sealed), w.blocks})
	w.offset += int64(len(sealed))
	w.plain = w.plain[:0]
	return nil
}

func nonceOf(n uint64) []byte { return binary.BigEndian.AppendUint64(make([]byte, 4, 12), n) }

// errSpill says that a run does not come back as it was written: the disk is bad, or someone writes to it.
var errSpill = errors.New("ledgercache: a temporary file changed on the disk")

func (r *run) open(s *spilling, n int) ([]byte, error) {
	b := r.blocks[n]
	sealed := make([]byte, b.length)
	if _, err := r.file.ReadAt(sealed, b.offset); err != nil {
		return nil, err
	}
	packed, err := s.aead.Open(sealed[:0], nonceOf(b.nonce), sealed, nil)
	if err != nil {
		return nil, errSpill
	}
	plain, err := s2.Decode(nil, packed)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errSpill, err)
	}
	return plain, nil
}

// blockOf is the block that a key stands in if it is in the run, -1 if it lies before all.
func (r *run) blockOf(k []byte) int {
	return sort.Search(len(r.blocks), func(i int) bool { return bytes.Compare(r.blocks[i].first, k) > 0 }) - 1
}

func (r *run) get(s *spilling, k []byte, hash uint64) (v []byte, gone, found bool, err error) {
	if r.bloom != nil && !r.bloom.Has(hash) {
		return nil, false, false, nil
	}
	n := r.blockOf(k)
	if n < 0 {
		return nil, false, false, nil
	}
	plain, err := r.open(s, n)
	for err == nil && len(plain) > 0 {
		var c cursor
		plain = c.take(plain)
		if bytes.Equal(c.k, k) {
			return c.v, c.gone, true, nil
		}
	}
	return nil, false, false, err
}

// from walks a run from the first key that is not before k.
func (r *run) from(s *spilling, k []byte) func(*cursor) error {
	n := max(0, r.blockOf(k))
	var plain []byte
	return func(c *cursor) (err error) {
		for {
			if len(plain) == 0 {
				if n == len(r.blocks) {
					return io.EOF
				}
				if plain, err = r.open(s, n); err != nil {
					return err
				}
				n++
			}
			if plain = c.take(plain); bytes.Compare(c.k, k) >= 0 {
				return nil
			}
		}
	}
}

// take reads one entry of an authenticated block.
func (c *cursor) take(plain []byte) []byte {
	n, size := binary.Uvarint(plain)
	c.k, plain = plain[size:size+int(n)], plain[size+int(n):]
	n, size = binary.Uvarint(plain)
	if c.gone = n == 0; c.gone {
		n = 1
	}
	c.v = plain[size : size+int(n)-1]
	return plain[size+int(n)-1:]
}

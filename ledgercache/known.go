package ledgercache

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/dgraph-io/badger/v4"

	"yupos/ledgercache/journal"
	"yupos/ledgercache/payment"
)

// known remembers, from the journal alone, every key whose absence decides: register's numbers, spent codes, wallets and
// their counters. Badger says "not found" of what stands in a damaged block or in a table that is gone (storage.md 0.3), and
// that would be a new payment. It is a Bloom filter in layers; what it has seen it never denies. It is safe for concurrent use.
//
// A full layer never changes again and lies sealed in a file of the cache's directory; the last one is written now and then,
// so that a start reads it and a short end of the journal.
type known struct {
	dir  string
	aead cipher.AEAD

	mu     sync.RWMutex
	layers []*layer // never empty; all but the last are full
}

// layer holds the keys of a piece of the journal.
type layer struct {
	from, to journal.Head // after the first, up to and with the second
	keys     int
	bits     []byte
	saved    uint64 // up to which sequence it lies in its file
}

// A key takes knownBits bits of a layer, of which knownProbes are set: a full layer takes one key in 10^8 for its own that it
// never saw. That sets a good cache aside, which costs a restart and no money.
const (
	knownBits     = 40
	knownProbes   = 20
	firstLayer    = 1 << 12 // keys
	largestLayer  = 1 << 17
	knownSaveEach = 16_000 // records
	knownFormat   = 1
)

// sealedLayer is the content of a layer's file.
type sealedLayer struct {
	Format int          `cbor:"1,keyasint"`
	From   journal.Head `cbor:"2,keyasint"`
	To     journal.Head `cbor:"3,keyasint"`
	Keys   int          `cbor:"4,keyasint"`
	Bits   []byte       `cbor:"5,keyasint"`
}

// newKnown knows nothing yet. Its files will lie in dir.
func newKnown(dir string, key [32]byte) (*known, error) {
	own, err := hkdf.Key(sha256.New, key[:], nil, "yupos-known-v1", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(own)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &known{dir: dir, aead: aead, layers: []*layer{newLayer(firstLayer, journal.Head{})}}, nil
}

func newLayer(keys int, from journal.Head) *layer {
	return &layer{from: from, to: from, bits: make([]byte, keys*knownBits/8)}
}

func (l *layer) room() int { return len(l.bits) * 8 / knownBits }

// has reports whether the journal may have told of k. False is certain.
func (n *known) has(k []byte) bool {
	h := hashed(k)
	n.mu.RLock()
	defer n.mu.RUnlock()
	for _, l := range n.layers {
		if l.has(h) {
			return true
		}
	}
	return false
}

type hash struct{ first, step uint64 }

func hashed(k []byte) hash {
	sum := sha256.Sum256(k)
	return hash{binary.LittleEndian.Uint64(sum[:]), binary.LittleEndian.Uint64(sum[8:]) | 1}
}

func (l *layer) has(h hash) bool {
	bits := uint64(len(l.bits)) * 8
	for range knownProbes {
		if at := h.first % bits; l.bits[at/8]&(1<<(at%8)) == 0 {
			return false
		}
		h.first += h.step
	}
	return true
}

func (l *layer) add(h hash) {
	bits := uint64(len(l.bits)) * 8
	for range knownProbes {
		at := h.first % bits
		l.bits[at/8] |= 1 << (at % 8)
		h.first += h.step
	}
	l.keys++
}

// add remembers keys. head is where the journal stands with them: the end of a batch.
func (n *known) add(keys [][]byte, head journal.Head) {
	n.mu.Lock()
	defer n.mu.Unlock()
	last := n.layers[len(n.layers)-1]
	for _, k := range keys {
		last.add(hashed(k))
	}
	last.to = head
	if last.keys >= last.room() {
		n.layers = append(n.layers, newLayer(min(2*last.room(), largestLayer), head))
	}
}

// reached is where the journal stood with the last key.
func (n *known) reached() journal.Head {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.layers[len(n.layers)-1].to
}

// due reports whether enough was added to be written.
func (n *known) due() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	last := n.layers[len(n.layers)-1]
	return last.to.Sequence-max(last.saved, last.from.Sequence) >= knownSaveEach
}

// save writes the layers that have changed. Only the writer, or who has the book alone, calls it.
func (n *known) save() error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for i, l := range n.layers {
		if l.saved == l.to.Sequence && l.saved > 0 {
			continue
		}
		raw, err := encMode.Marshal(sealedLayer{knownFormat, l.from, l.to, l.keys, l.bits})
		if err != nil {
			return err
		}
		nonce := make([]byte, n.aead.NonceSize())
		if _, err := rand.Read(nonce); err != nil {
			return err
		}
		sealed := n.aead.Seal(nonce, nonce, raw, layerName(i))
		if err := writeDurable(filepath.Join(n.dir, string(layerName(i))), sealed); err != nil {
			return err
		}
		l.saved = l.to.Sequence
	}
	return nil
}

// rest saves what is known and lets go of it until it is read again. Only who has it alone calls it.
func (n *known) rest() error {
	if err := errors.Join(os.MkdirAll(n.dir, 0o700), n.save()); err != nil {
		return err
	}
	n.layers = nil
	return nil
}

func layerName(i int) []byte { return fmt.Appendf(nil, "known-%04d", i+1) }

// read takes back what was saved: every layer where the one before ends. Of nothing there is nothing known.
func (n *known) read() error {
	var layers []*layer
	for i := 0; ; i++ {
		l, err := n.readLayer(i)
		if errors.Is(err, os.ErrNotExist) {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: %s: %w", errCacheStale, layerName(i), err)
		}
		if i > 0 && l.from != layers[i-1].to || i == 0 && l.from != (journal.Head{}) {
			return fmt.Errorf("%w: %s does not follow", errCacheStale, layerName(i))
		}
		layers = append(layers, l)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(layers) > 0 {
		n.layers = layers
	}
	return nil
}

func (n *known) readLayer(i int) (*layer, error) {
	sealed, err := os.ReadFile(filepath.Join(n.dir, string(layerName(i))))
	if err != nil {
		return nil, err
	}
	size := n.aead.NonceSize()
	if len(sealed) < size {
		return nil, fmt.Errorf("%d bytes", len(sealed))
	}
	raw, err := n.aead.Open(nil, sealed[:size], sealed[size:], layerName(i))
	if err != nil {
		return nil, err
	}
	var s sealedLayer
	if err := decMode.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	if s.Format != knownFormat || len(s.Bits) < firstLayer*knownBits/8 {
		return nil, fmt.Errorf("format %d, %d bytes", s.Format, len(s.Bits))
	}
	return &layer{from: s.From, to: s.To, keys: s.Keys, bits: s.Bits, saved: s.To.Sequence}, nil
}

// decisive are the keys that a record makes present for ever.
func decisive(r record) ([][]byte, error) {
	if r.Kind == recRefundOpened {
		f, err := body[payment.Refund](r)
		return [][]byte{key(prefixOutRefund, []byte(f.OutRefundNo))}, err
	}
	e, _, err := eventOf(r)
	switch e := e.(type) {
	case payment.Opened:
		return [][]byte{key(prefixOutTrade, []byte(e.OutTradeNo))}, err
	case payment.Submitted:
		spent := sha256.Sum256([]byte(e.Code))
		return spends(spent[:], e.Wallet, e.Counter), err
	case payment.Accepted:
		return spends(e.Spent, e.Wallet, e.Counter), err
	}
	return nil, err
}

func spends(spent, wallet []byte, counter uint32) [][]byte {
	list := [][]byte{key(prefixSpent, spent)}
	if len(wallet) > 0 {
		list = append(list, key(prefixWallet, wallet), counterKey(wallet, counter))
	}
	return list
}

// counterKey stands in known alone: this counter of this wallet was used.
func counterKey(wallet []byte, counter uint32) []byte {
	return key(prefixWallet, wallet, binary.BigEndian.AppendUint32(nil, counter))
}

// proved is Badger as state in which nothing that the journal has told is missing unnoticed.
type proved struct {
	onDisk
	book *Book
}

func (s proved) get(k []byte) ([]byte, error) {
	v, err := s.onDisk.get(k)
	if errors.Is(err, ErrNotFound) && s.book.known.has(k) && s.book.lost(k) {
		return nil, s.book.doubt(k)
	}
	return v, err
}

// lost reports whether a key that the journal has told of is not there. One that came after the reader's moment is.
func (b *Book) lost(k []byte) bool {
	err := b.db.View(func(txn *badger.Txn) error { _, err := onDisk{txn}.get(k); return err })
	return err != nil
}

// doubt ends a book whose cache has lost what the journal told: the next start derives it anew.
func (b *Book) doubt(k []byte) error {
	b.distrust(fmt.Errorf("%w: a key of kind %q that the journal has told is not found", errCacheLies, k[:1]))
	return b.Err()
}

package journal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// The bytes of a segment (FORMAT.md).
const (
	magic       = "YUPOSJNL"
	version     = 1
	headerBytes = 4096 // a block of its own: a torn batch never touches it
	headerMAC   = headerBytes - sha256.Size
	frameBytes  = 52 // length, count, first sequence, previous head, check
	tagBytes    = 16
	maxFrame    = frameBytes + MaxBatch + tagBytes
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Cut is the record of a torn tail that was cut, kept in the header of the segment that was begun after it.
type Cut struct {
	Segment uint32   // 0 = nothing was cut
	Offset  int64    // in that segment
	Length  int64    // bytes from the first to the last that was not zero
	SHA256  [32]byte // of those bytes
}

// header is the first block of a segment.
type header struct {
	number uint32
	epoch  [16]byte
	salt   [32]byte
	before Head // the chain before the first batch; its epoch differs from the segment's where a new epoch begins
	cut    Cut
}

// keys derives the key that seals a segment's batches and the one that authenticates its header.
func keys(key [32]byte, terminalID string, salt [32]byte, number uint32) (cipher.AEAD, []byte, error) {
	who := terminalID + string(binary.BigEndian.AppendUint32(nil, number))
	sealKey, err := hkdf.Key(sha256.New, key[:], salt[:], who+"yupos-journal-v1", 32)
	if err != nil {
		return nil, nil, err
	}
	headerKey, err := hkdf.Key(sha256.New, key[:], salt[:], who+"yupos-journal-header-v1", 32)
	if err != nil {
		return nil, nil, err
	}
	block, err := aes.NewCipher(sealKey)
	if err != nil {
		return nil, nil, err
	}
	aead, err := cipher.NewGCM(block)
	return aead, headerKey, err
}

func mac(key, data []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(data)
	return m.Sum(nil)
}

func (h header) encode(terminalID string, key []byte) []byte {
	b := make([]byte, 0, headerBytes)
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint16(b, version)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint32(b, h.number)
	b = append(b, terminalID...)
	b = append(b, h.epoch[:]...)
	b = append(b, h.before.Epoch[:]...)
	b = append(b, h.salt[:]...)
	b = binary.BigEndian.AppendUint64(b, h.before.Sequence)
	b = append(b, h.before.Hash[:]...)
	b = binary.BigEndian.AppendUint32(b, h.cut.Segment)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(h.cut.Offset))
	b = binary.BigEndian.AppendUint64(b, uint64(h.cut.Length))
	b = append(b, h.cut.SHA256[:]...)
	return append(b[:headerMAC], mac(key, b[:headerMAC])...)
}

// decodeHeader reads and authenticates a header, and gives the key of its segment's batches. ErrVersion names a format
// that is not this one; ErrKey says that the header does not verify; errNoHeader that there is none.
func decodeHeader(raw []byte, o Options) (header, cipher.AEAD, error) {
	h, err := parseHeader(raw)
	if err != nil {
		return h, nil, err
	}
	for _, key := range o.keys() {
		aead, headerKey, err := keys(key, o.TerminalID, h.salt, h.number)
		if err != nil {
			return h, nil, err
		}
		if hmac.Equal(mac(headerKey, raw[:headerMAC]), raw[headerMAC:headerBytes]) && string(raw[16:24]) == o.TerminalID {
			return h, aead, nil
		}
	}
	return h, nil, ErrKey
}

// keys are the key in use and those of its ring, newest first.
func (o Options) keys() [][32]byte { return append([][32]byte{o.Key}, o.earlier...) }

// parseHeader reads a header as it stands.
func parseHeader(raw []byte) (header, error) {
	var h header
	if len(raw) < 10 || string(raw[:8]) != magic {
		return h, errNoHeader
	}
	if v := binary.BigEndian.Uint16(raw[8:]); v != version {
		return h, fmt.Errorf("%w: version %d, this program knows %d", ErrVersion, v, version)
	}
	if len(raw) < headerBytes {
		return h, errNoHeader
	}
	h.number = binary.BigEndian.Uint32(raw[12:])
	h.epoch = [16]byte(raw[24:])
	h.before.Epoch = [16]byte(raw[40:])
	h.salt = [32]byte(raw[56:])
	h.before.Sequence = binary.BigEndian.Uint64(raw[88:])
	h.before.Hash = [32]byte(raw[96:])
	h.cut.Segment = binary.BigEndian.Uint32(raw[128:])
	h.cut.Offset = int64(binary.BigEndian.Uint64(raw[136:]))
	h.cut.Length = int64(binary.BigEndian.Uint64(raw[144:]))
	h.cut.SHA256 = [32]byte(raw[152:])
	return h, nil
}

// frame is what stands in front of a batch's sealed text. All of it is additional data of the seal.
type frame struct {
	length int // of the sealed text with its tag
	count  int
	first  uint64
	before [32]byte
}

func (f frame) append(b []byte) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint32(b, uint32(f.length))
	b = binary.BigEndian.AppendUint32(b, uint32(f.count))
	b = binary.BigEndian.AppendUint64(b, f.first)
	b = append(b, f.before[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// decodeFrame reports whether raw holds a frame that was written as it stands. The check only tells a frame that was torn
// from one that was whole; what proves it is the seal.
func decodeFrame(raw []byte) (f frame, whole bool) {
	f.length = int(binary.BigEndian.Uint32(raw))
	f.count = int(binary.BigEndian.Uint32(raw[4:]))
	f.first = binary.BigEndian.Uint64(raw[8:])
	f.before = [32]byte(raw[16:])
	whole = binary.BigEndian.Uint32(raw[48:]) == crc32.Checksum(raw[:48], castagnoli) &&
		f.length >= tagBytes+4 && f.length <= MaxBatch+tagBytes && f.count >= 1 && f.count <= MaxRecords
	return f, whole
}

// nonce of the n-th batch of a segment, from 1. The key is the segment's own, so it is never used twice.
func nonce(n uint64) []byte { return binary.BigEndian.AppendUint64(make([]byte, 4, 12), n) }

// chain is the head after a batch.
func chain(before [32]byte, sealed []byte) [32]byte {
	h := sha256.New()
	h.Write(before[:])
	h.Write(sealed)
	return [32]byte(h.Sum(nil))
}

// seal packs, frames and seals records as the n-th batch of a segment into b, and answers the chain's next head.
func seal(b []byte, aead cipher.AEAD, n uint64, head Head, records [][]byte, packed int) ([]byte, Head) {
	f := frame{length: packed + tagBytes, count: len(records), first: head.Sequence + 1, before: head.Hash}
	b = f.append(b[:0])
	for _, r := range records {
		b = binary.BigEndian.AppendUint32(b, uint32(len(r)))
		b = append(b, r...)
	}
	b = aead.Seal(b[:frameBytes], nonce(n), b[frameBytes:], b[:frameBytes])
	return b, Head{Epoch: head.Epoch, Sequence: head.Sequence + uint64(len(records)), Hash: chain(head.Hash, b[frameBytes:])}
}

// packedBytes is the length of the text of a batch, or ErrTooLarge.
func packedBytes(records [][]byte) (int, error) {
	size := 0
	for _, r := range records {
		if size += 4 + len(r); size > MaxBatch {
			break
		}
	}
	if len(records) == 0 || len(records) > MaxRecords || size > MaxBatch {
		return 0, fmt.Errorf("%w: %d records", ErrTooLarge, len(records))
	}
	return size, nil
}

// unpack splits the text of a batch into its records, which must be exactly count and fill it.
func unpack(into [][]byte, plain []byte, count int) ([][]byte, error) {
	for len(plain) > 0 {
		if len(plain) < 4 || len(into) == count {
			return nil, fmt.Errorf("%w: records do not fill their batch", ErrDamaged)
		}
		n := binary.BigEndian.Uint32(plain)
		if uint64(n) > uint64(len(plain)-4) {
			return nil, fmt.Errorf("%w: a record is longer than its batch", ErrDamaged)
		}
		into = append(into, plain[4:4+n])
		plain = plain[4+n:]
	}
	if len(into) != count {
		return nil, fmt.Errorf("%w: %d records of %d", ErrDamaged, len(into), count)
	}
	return into, nil
}

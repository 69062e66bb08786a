package paycode

import (
	"encoding/binary"
	"strings"
)

// crockford is the alphabet of ULIDs: no I, L, O, U, and only capitals, because one identifier has one text.
const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// ParseULID reads a ULID in its only form: 26 capital Crockford characters, the first of them 0 to 7 (26 characters carry
// 130 bits, a ULID has 128).
func ParseULID(text string) (id [16]byte, ok bool) {
	if len(text) != 26 || text[0] > '7' {
		return id, false
	}
	var high, low uint64
	for i := range len(text) {
		v := strings.IndexByte(crockford, text[i])
		if v < 0 {
			return id, false
		}
		high = high<<5 | low>>59
		low = low<<5 | uint64(v)
	}
	binary.BigEndian.PutUint64(id[:8], high)
	binary.BigEndian.PutUint64(id[8:], low)
	return id, true
}

// FormatULID writes 16 bytes as a ULID; [ParseULID] is its inverse.
func FormatULID(id [16]byte) string {
	high, low := binary.BigEndian.Uint64(id[:8]), binary.BigEndian.Uint64(id[8:])
	var out [26]byte
	for i := len(out) - 1; i >= 0; i-- {
		out[i] = crockford[low&31]
		low = low>>5 | high<<59
		high >>= 5
	}
	return string(out[:])
}

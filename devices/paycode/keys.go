package paycode

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// ErrKey says that a text is no Ed25519 public key in hex, or that a key has the wrong length.
var ErrKey = errors.New("paycode: not an Ed25519 key")

// The prefixes stand in front of the signed bytes, so that a signature made for one purpose is worthless for another.
const (
	certPrefix    = "yupay-cert-v1"
	codePrefix    = "yupay-code-v1"
	orderPrefix   = "yupay-order-v1"
	receiptPrefix = "yupay-receipt-v1"
	confirmPrefix = "yupay-confirm-v1"
)

// Key is one pinned public key and the seconds (Unix, inclusive) between which it may be used. NotAfter 0 means no end.
type Key struct {
	Public              ed25519.PublicKey
	NotBefore, NotAfter uint32
}

// Keys are the pinned keys of one role.
type Keys []Key

// KeyID returns the first four bytes of SHA-256 of the public key, big-endian. It is only a hint: two keys may share one.
func KeyID(pub ed25519.PublicKey) uint32 {
	sum := sha256.Sum256(pub)
	return binary.BigEndian.Uint32(sum[:4])
}

// ParseKey reads an Ed25519 public key of 64 hex digits.
func ParseKey(text string) (ed25519.PublicKey, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%w: want %d hex digits", ErrKey, 2*ed25519.PublicKeySize)
	}
	return b, nil
}

// inForce says whether the key may be used at unix second now. A key of a wrong length is never in force: the signature
// check of the standard library panics on one.
func (k Key) inForce(now int64) bool {
	return len(k.Public) == ed25519.PublicKeySize && now >= int64(k.NotBefore) && (k.NotAfter == 0 || now <= int64(k.NotAfter))
}

// withID returns every key in force at unix second now whose id is id.
func (ks Keys) withID(id uint32, now int64) []ed25519.PublicKey {
	var found []ed25519.PublicKey
	for _, k := range ks {
		if k.inForce(now) && KeyID(k.Public) == id {
			found = append(found, k.Public)
		}
	}
	return found
}

// verifiedByAny says whether one of keys made sig over prefix and body.
func verifiedByAny(keys []ed25519.PublicKey, prefix string, body, sig []byte) bool {
	for _, k := range keys {
		if verified(k, prefix, body, sig) {
			return true
		}
	}
	return false
}

func verified(key ed25519.PublicKey, prefix string, body, sig []byte) bool {
	return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, signedBytes(prefix, body), sig)
}

func signed(key ed25519.PrivateKey, prefix string, body []byte) ([]byte, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, ErrKey
	}
	return ed25519.Sign(key, signedBytes(prefix, body)), nil
}

func signedBytes(prefix string, body []byte) []byte {
	return append(append(make([]byte, 0, len(prefix)+len(body)), prefix...), body...)
}

// publicOf returns the public half of a private key of the right length.
func publicOf(key ed25519.PrivateKey) (ed25519.PublicKey, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, ErrKey
	}
	return ed25519.PublicKey(key[ed25519.PrivateKeySize-ed25519.PublicKeySize:]), nil
}

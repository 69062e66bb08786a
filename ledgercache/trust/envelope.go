package trust

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// Envelope is signed news (codes.md): the exact bytes of the payload, the signature over the topic's prefix and them, and
// a hint which key made it.
type Envelope struct {
	KeyID   string // first 4 bytes of SHA-256 of the public key, 8 lower-case hex digits
	Payload []byte
	Sig     []byte
}

// Topic is what news are about. It decides prefix and role: an envelope of one topic never verifies as another.
type Topic string

// The topics of signed news.
const (
	Keys      Topic = "keys"
	Rules     Topic = "policy"
	Deny      Topic = "deny"
	Time      Topic = "time"
	Head      Topic = "head"
	Fees      Topic = "fees"
	Operators Topic = "operators"
)

// Topics are all of them.
var Topics = []Topic{Keys, Rules, Deny, Time, Head, Fees, Operators}

// MaxPayload bounds the payload of an envelope, in bytes: some 30,000 tokens of a deny list, which
// is what one transaction of the terminal's cache takes.
const MaxPayload = 600 << 10

// Errors of an envelope.
var (
	// ErrUnknownKey says that no pinned key of the role, inside its window, has the id.
	ErrUnknownKey = errors.New("trust: no pinned key")
	// ErrForged says that no such key made the signature.
	ErrForged = errors.New("trust: envelope forged")
	// ErrPayload says that an authentic payload does not say what its topic must say. It is refused whole.
	ErrPayload = errors.New("trust: bad payload")
)

// prefix is what stands before the payload when it is signed, and role which keys may.
func (t Topic) prefix() (string, Role, bool) {
	switch t {
	case Keys:
		return "yupay-keys-v1", Root, true
	case Rules:
		return "yupay-policy-v1", Policy, true
	case Deny:
		return "yupay-deny-v1", Policy, true
	case Time:
		return "yupay-time-v1", Policy, true
	case Head:
		return "yupay-head-v1", Policy, true
	case Fees:
		return "yupay-fees-v1", Policy, true
	case Operators:
		return "yupay-operators-v1", Policy, true
	}
	return "", "", false
}

// KeyID is the id of a public key: a hint, never a proof.
func KeyID(public ed25519.PublicKey) string {
	sum := sha256.Sum256(public)
	return hex.EncodeToString(sum[:4])
}

// Seal signs a payload for a topic.
func Seal(t Topic, payload []byte, key ed25519.PrivateKey) (Envelope, error) {
	prefix, _, ok := t.prefix()
	public, isKey := key.Public().(ed25519.PublicKey)
	if !ok || !isKey || len(payload) == 0 || len(payload) > MaxPayload {
		return Envelope{}, fmt.Errorf("%w: topic %.16q, %d bytes", ErrPayload, string(t), len(payload))
	}
	return Envelope{KeyID: KeyID(public), Payload: payload, Sig: ed25519.Sign(key, append([]byte(prefix), payload...))}, nil
}

// Open verifies the exact bytes of an envelope and answers them. Every pinned key of the topic's role whose window holds
// now and whose id is the hint's is tried; a key is never taken from the envelope itself. What the payload says is for the
// decoders of this package, afterwards.
func (p Pins) Open(t Topic, e Envelope, now time.Time) ([]byte, error) {
	prefix, role, ok := t.prefix()
	if !ok || len(e.Payload) == 0 || len(e.Payload) > MaxPayload || len(e.Sig) != ed25519.SignatureSize {
		return nil, fmt.Errorf("%w: topic %.16q, %d bytes", ErrPayload, string(t), len(e.Payload))
	}
	tried := 0
	for _, pin := range p.Keys(role, now) {
		if KeyID(pin.Public) != e.KeyID {
			continue
		}
		tried++
		if ed25519.Verify(pin.Public, append([]byte(prefix), e.Payload...), e.Sig) {
			return e.Payload, nil
		}
	}
	if tried == 0 {
		return nil, fmt.Errorf("%w: %.8q in the role %s", ErrUnknownKey, e.KeyID, role)
	}
	return nil, ErrForged
}

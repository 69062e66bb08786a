// Package trust says whom to believe, and when: pinned keys, each in one role and one window of time.
//
// Guarantees: the package is pure (no I/O, no clock of its own); a key is used only in its role and inside its window; a key
// is never taken from the message that it verifies.
package trust

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Role is what a pinned key may sign (codes.md, Signed news).
type Role string

// The roles.
const (
	Issuer  Role = "issuer"  // wallet certificates
	Receipt Role = "receipt" // RECEIPT codes
	Policy  Role = "policy"  // policy, deny list, time, heads, fees, operators
	Root    Role = "root"    // key sets only; pinned at enrolment
)

// ErrPins says that a file of pins is not one, naming the first fault.
var ErrPins = errors.New("trust: bad pins")

// Pin is one key that this terminal believes. NotBefore and NotAfter are Unix seconds, both included; 0 and 0 mean always.
type Pin struct {
	Role      Role
	Public    ed25519.PublicKey
	NotBefore uint32
	NotAfter  uint32
}

// Covers reports whether the pin's window holds the time.
func (p Pin) Covers(now time.Time) bool {
	if p.NotBefore == 0 && p.NotAfter == 0 {
		return true
	}
	return now.Unix() >= int64(p.NotBefore) && now.Unix() <= int64(p.NotAfter)
}

// Pins are all the keys that this terminal believes.
type Pins []Pin

// Keys are the pins of the role whose window holds the time.
func (p Pins) Keys(role Role, now time.Time) []Pin {
	var list []Pin
	for _, pin := range p {
		if pin.Role == role && pin.Covers(now) {
			list = append(list, pin)
		}
	}
	return list
}

// ParsePins reads {"keys":[{"role","public":64 hex,"not_before","not_after"}]}. Unknown fields, unknown roles, keys of another
// length and windows that end before they begin are ErrPins.
func ParsePins(raw []byte) (Pins, error) {
	var file struct {
		Keys []struct {
			Role      Role   `json:"role"`
			Public    string `json:"public"`
			NotBefore uint32 `json:"not_before"`
			NotAfter  uint32 `json:"not_after"`
		} `json:"keys"`
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields() // a window with a letter missing would otherwise mean always
	if err := d.Decode(&file); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPins, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: something follows the keys", ErrPins)
	}
	pins := make(Pins, 0, len(file.Keys))
	for i, k := range file.Keys {
		public, err := hex.DecodeString(k.Public)
		if err != nil || len(public) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("%w: key %d is not 32 bytes of hex", ErrPins, i+1)
		}
		switch k.Role {
		case Issuer, Receipt, Policy, Root:
		default:
			return nil, fmt.Errorf("%w: key %d has the role %q", ErrPins, i+1, string(k.Role))
		}
		if k.NotAfter < k.NotBefore {
			return nil, fmt.Errorf("%w: key %d ends before it begins", ErrPins, i+1)
		}
		pins = append(pins, Pin{Role: k.Role, Public: public, NotBefore: k.NotBefore, NotAfter: k.NotAfter})
	}
	return pins, nil
}

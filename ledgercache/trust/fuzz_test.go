package trust

import (
	"crypto/ed25519"
	"testing"
)

// The seeds of these targets stand in testdata/fuzz.

func FuzzPayloads(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw []byte) {
		if n, err := DecodePolicy(raw); err == nil && n.check() != nil {
			t.Error("policy without a header")
		}
		if n, err := DecodeDeny(raw); err == nil {
			list, err := n.Apply(nil, n.Base)
			if err == nil && (len(list) != n.Count || DenyHash(list) != n.SHA256) {
				t.Error("another list than the ledger's")
			}
		}
		if n, pins, err := DecodeKeys(raw); err == nil {
			for _, pin := range pins {
				if pin.Role == Root || len(pin.Public) != ed25519.PublicKeySize || pin.NotAfter < pin.NotBefore {
					t.Errorf("%+v", n)
				}
			}
		}
		if at, err := (Pins{}).OpenTime(Envelope{Payload: raw, Sig: make([]byte, ed25519.SignatureSize)}, [16]byte{}); err == nil {
			t.Errorf("time %s from nobody", at)
		}
		_, _ = DecodeFees(raw) // no more than that they come back
		_, _ = DecodeHead(raw)
		_, _ = DecodeOperators(raw)
	})
}

func FuzzParsePins(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw []byte) {
		pins, err := ParsePins(raw)
		if err != nil && pins != nil {
			t.Error("an error and pins")
		}
		for _, pin := range pins {
			if len(pin.Public) != ed25519.PublicKeySize || pin.NotAfter < pin.NotBefore {
				t.Errorf("%+v", pin)
			}
		}
	})
}

// FuzzParseAccept signs whatever it is given: only its form can betray it.
func FuzzParseAccept(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		key := acceptKey()
		public := key.Public().(ed25519.PublicKey)
		if _, err := ParseAccept(body, public); err == nil && len(body) != AcceptLength {
			t.Error("another length")
		}
		raw := append(append([]byte(nil), body...), ed25519.Sign(key, append([]byte(acceptPrefix), body...))...)
		a, err := ParseAccept(raw, public)
		if err != nil {
			return
		}
		if again, err := a.Sign(key); err != nil || string(again) != string(raw) {
			t.Errorf("read as %+v, written as %x, %v", a, again, err)
		}
	})
}

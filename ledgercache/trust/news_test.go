package trust

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var now = time.Unix(1_795_406_400, 0).UTC()

func keyNamed(name string) (ed25519.PrivateKey, ed25519.PublicKey) {
	seed := sha256.Sum256([]byte(name))
	private := ed25519.NewKeyFromSeed(seed[:])
	return private, ed25519.PublicKey(private[32:])
}

func pinned(role Role, public ed25519.PublicKey, from, to int64) Pin {
	return Pin{Role: role, Public: public, NotBefore: uint32(now.Unix() + from), NotAfter: uint32(now.Unix() + to)}
}

func TestNewsAreBelievedOnlyFromAPinnedKeyInItsRoleAndWindow(t *testing.T) {
	private, public := keyNamed("policy")
	other, _ := keyNamed("other")
	payload := []byte(`{"terminal":"all"}`)
	for _, topic := range Topics {
		_, role, _ := topic.prefix()
		e, err := Seal(topic, payload, private)
		if err != nil {
			t.Fatal(err)
		}
		forged, err := Seal(topic, payload, other)
		if err != nil {
			t.Fatal(err)
		}
		forged.KeyID = e.KeyID
		wrong := Policy
		if role == Policy {
			wrong = Root
		}
		changed := e
		changed.Payload = append([]byte(nil), payload...)
		changed.Payload[3] ^= 1
		long := e
		long.Payload = make([]byte, MaxPayload+1)
		for name, c := range map[string]struct {
			pins Pins
			e    Envelope
			want error
		}{
			"good":             {Pins{pinned(role, public, 0, 0)}, e, nil},
			"no pins":          {nil, e, ErrUnknownKey},
			"another role":     {Pins{pinned(wrong, public, -9, 9)}, e, ErrUnknownKey},
			"before its time":  {Pins{pinned(role, public, 1, 9)}, e, ErrUnknownKey},
			"after its time":   {Pins{pinned(role, public, -9, -1)}, e, ErrUnknownKey},
			"another key":      {Pins{pinned(role, public, -9, 9)}, forged, ErrForged},
			"changed":          {Pins{pinned(role, public, -9, 9)}, changed, ErrForged},
			"too long":         {Pins{pinned(role, public, -9, 9)}, long, ErrPayload},
			"no signature":     {Pins{pinned(role, public, -9, 9)}, Envelope{KeyID: e.KeyID, Payload: payload}, ErrPayload},
			"hint of no key":   {Pins{pinned(role, public, -9, 9)}, Envelope{KeyID: "00000000", Payload: payload, Sig: e.Sig}, ErrUnknownKey},
			"two with this id": {Pins{{Role: role, Public: public}, pinned(role, public, -9, 9)}, e, nil},
		} {
			got, err := c.pins.Open(topic, c.e, now)
			if !errors.Is(err, c.want) || c.want == nil && string(got) != string(payload) || c.want != nil && got != nil {
				t.Errorf("%s, %s: %q, %v", topic, name, got, err)
			}
		}
	}
	if _, err := Seal("sermon", payload, private); !errors.Is(err, ErrPayload) {
		t.Errorf("an unknown topic was sealed: %v", err)
	}
}

func TestAnEnvelopeOfOneTopicNeverOpensAsAnother(t *testing.T) {
	private, public := keyNamed("policy")
	pins := Pins{{Role: Policy, Public: public}, {Role: Root, Public: public}}
	for _, made := range Topics {
		e, err := Seal(made, []byte("{}"), private)
		if err != nil {
			t.Fatal(err)
		}
		for _, read := range Topics {
			if _, err := pins.Open(read, e, now); (err == nil) != (made == read) {
				t.Errorf("%s read as %s: %v", made, read, err)
			}
		}
	}
}

func TestOlderNewsAndOtherBytesOfTheSameVersionAreRolledBack(t *testing.T) {
	var m Mark
	m, err := m.Next(3, []byte("three"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		version uint32
		payload string
		want    error
	}{"again": {3, "three", ErrKnown}, "other bytes": {3, "drei", ErrRolledBack}, "older": {2, "two", ErrRolledBack}, "newer": {4, "four", nil}} {
		next, err := m.Next(c.version, []byte(c.payload))
		if !errors.Is(err, c.want) || c.want != nil && next != m {
			t.Errorf("%s: %+v, %v", name, next, err)
		}
	}
}

const header = `"terminal":"10000001","version":2,"issued":1795406400,"expires":1795492800`

func TestPayloadsAreReadStrictlyWhereItMatters(t *testing.T) {
	policy := `{` + header + `,"payment_fen":20000,"wallet_fen":50000,"wallet_count":10,"terminal_fen":500000,"terminal_count":200,"convert_fen":5000,"digits_fen":100000,"code_seconds":60,"skew_seconds":30,"later":1}`
	n, err := DecodePolicy([]byte(policy))
	if err != nil || n.PaymentFen != 20000 || n.Version != 2 || n.For("10000001") != nil || !errors.Is(n.For("10000002"), ErrNotForHere) {
		t.Fatalf("%+v, %v", n, err)
	}
	for name, bad := range map[string]string{
		"no json":           `policy`,
		"something after":   policy + `{}`,
		"negative":          strings.Replace(policy, `"payment_fen":20000`, `"payment_fen":-1`, 1),
		"above what is":     strings.Replace(policy, `"payment_fen":20000`, `"payment_fen":4294967296`, 1),
		"fraction":          strings.Replace(policy, `"payment_fen":20000`, `"payment_fen":200.5`, 1),
		"hours of window":   strings.Replace(policy, `"code_seconds":60`, `"code_seconds":3600`, 1),
		"no version":        strings.Replace(policy, `"version":2`, `"version":0`, 1),
		"ends too early":    strings.Replace(policy, `"expires":1795492800`, `"expires":1795406400`, 1),
		"for nobody":        strings.Replace(policy, `"terminal":"10000001"`, `"terminal":""`, 1),
		"version too large": strings.Replace(policy, `"version":2`, `"version":4294967296`, 1),
	} {
		if _, err := DecodePolicy([]byte(bad)); !errors.Is(err, ErrPayload) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAKeySetReplacesAllKeysButTheRoots(t *testing.T) {
	_, public := keyNamed("new issuer")
	_, root := keyNamed("root")
	_, old := keyNamed("old issuer")
	set := func(role string) []byte {
		return []byte(fmt.Sprintf(`{%s,"keys":[{"role":%q,"public":"%x","not_before":1,"not_after":4000000000}]}`, header, role, public))
	}
	_, pins, err := DecodeKeys(set("issuer"))
	if err != nil {
		t.Fatal(err)
	}
	after := Pins{{Role: Root, Public: root}, {Role: Issuer, Public: old}}.Replace(pins)
	if len(after) != 2 || len(after.Keys(Root, now)) != 1 || !after.Keys(Issuer, now)[0].Public.Equal(public) {
		t.Errorf("%+v", after)
	}
	for _, role := range []string{"root", "king", ""} {
		if _, _, err := DecodeKeys(set(role)); !errors.Is(err, ErrPayload) {
			t.Errorf("a key set names a %q: %v", role, err)
		}
	}
}

// TestADenyListIsTheLedgersOrAGap follows random deltas with a plain set beside them.
func TestADenyListIsTheLedgersOrAGap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list [][8]byte
		version := uint32(0)
		for range rapid.IntRange(1, 6).Draw(t, "deltas") {
			next := map[string]bool{}
			for _, b := range rapid.SliceOfN(rapid.Byte(), 0, 12).Draw(t, "tokens") {
				next[fmt.Sprintf("%02x00000000000000", b)] = true
			}
			n := deltaTo(list, next, version)
			raw, err := json.Marshal(n)
			if err != nil {
				t.Fatal(err)
			}
			if n, err = DecodeDeny(raw); err != nil {
				t.Fatalf("%s: %v", raw, err)
			}
			if n.Base > 0 {
				if _, err := n.Apply(list, version+1); !errors.Is(err, ErrGap) {
					t.Fatalf("a delta on another version: %v", err)
				}
			}
			if list, err = n.Apply(list, version); err != nil {
				t.Fatal(err)
			}
			if len(list) != len(next) {
				t.Fatalf("%d tokens, want %d", len(list), len(next))
			}
			spoiled := n
			spoiled.Count++
			if _, err := spoiled.Apply(list, spoiled.Base); !errors.Is(err, ErrGap) {
				t.Fatalf("another result than the ledger's: %v", err)
			}
			version = n.Version
		}
	})
}

// deltaTo is what the ledger sends to bring a list to what it should be; the first is whole.
func deltaTo(have [][8]byte, want map[string]bool, version uint32) DenyNews {
	n := DenyNews{Header: Header{Terminal: Everyone, Version: version + 1, Issued: 1, Expires: 2}, Base: version, Count: len(want)}
	var result [][8]byte
	for b := range 256 {
		text := fmt.Sprintf("%02x00000000000000", b)
		token := tokenOf(text)
		had := false
		for _, h := range have {
			had = had || h == token
		}
		if want[text] {
			result = append(result, token)
		}
		switch {
		case want[text] && !had:
			n.Add = append(n.Add, text)
		case !want[text] && had:
			n.Remove = append(n.Remove, text)
		}
	}
	n.SHA256 = DenyHash(result)
	return n
}

func TestSignedTimeAnswersItsNonce(t *testing.T) {
	private, public := keyNamed("policy")
	pins := Pins{pinned(Policy, public, -10, 10)}
	nonce := [16]byte{1, 2, 3}
	answer := func(at time.Time, nonce [16]byte) Envelope {
		e, err := Seal(Time, []byte(fmt.Sprintf(`{"nonce":"%x","time_ms":%d}`, nonce, at.UnixMilli())), private)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	if at, err := pins.OpenTime(answer(now, nonce), nonce); err != nil || !at.Equal(now) {
		t.Errorf("%s, %v", at, err)
	}
	if _, err := pins.OpenTime(answer(now, nonce), [16]byte{9}); !errors.Is(err, ErrPayload) {
		t.Errorf("a replayed answer: %v", err)
	}
	if _, err := pins.OpenTime(answer(now.Add(time.Hour), nonce), nonce); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("a key after its window: %v", err)
	}
}

func TestADenyListHasOneText(t *testing.T) {
	const base = `,"base":1,"count":2,"sha256":"` + "%064d" + `"}`
	for name, tokens := range map[string]string{
		"capitals":   `["0A00000000000000"]`,
		"both texts": `["0A00000000000000","0a00000000000000"]`,
		"twice":      `["0a00000000000000","0a00000000000000"]`,
		"falling":    `["0b00000000000000","0a00000000000000"]`,
		"short":      `["0a"]`,
		"no hex":     `["0x00000000000000"]`,
		"a number":   `[10]`,
	} {
		if _, err := DecodeDeny([]byte(`{` + header + `,"add":` + tokens + fmt.Sprintf(base, 0))); !errors.Is(err, ErrPayload) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

package trust

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"

	"yupos/ledgercache/money"
)

func TestTheAcceptOfTheVectorsIsMadeByteForByte(t *testing.T) {
	raw, err := os.ReadFile("../../devices/paycode/testdata/codes.json")
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Keys   map[string]string
		Accept struct {
			Code, Payment, Body, Signature string
			Path                           int
			AmountFen                      money.Fen `json:"amount_fen"`
			AcceptedAt                     int64     `json:"accepted_at"`
			BoundSeconds                   uint32    `json:"bound_seconds"`
			TerminalID                     string    `json:"terminal_id"`
			PolicyVersion                  uint32    `json:"policy_version"`
			DenyVersion                    uint32    `json:"deny_version"`
			Sequence                       uint64
			HeadBefore                     string `json:"head_before"`
		}
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		t.Fatal(err)
	}
	v := f.Accept
	code, err := base64.StdEncoding.DecodeString(v.Code)
	head, err2 := hex.DecodeString(v.HeadBefore)
	seed, err3 := hex.DecodeString(f.Keys["terminal_seed"])
	if err := errors.Join(err, err2, err3); err != nil || len(head) != 32 || len(seed) != ed25519.SeedSize {
		t.Fatal(err, len(head), len(seed))
	}
	a := Accept{
		Converted: v.Path == 2, TotalFen: v.AmountFen, At: time.Unix(v.AcceptedAt, 0).UTC(), BoundSeconds: v.BoundSeconds, TradeNo: v.Payment,
		TerminalID: v.TerminalID, CodeHash: sha256.Sum256(code), PolicyVersion: v.PolicyVersion, DenyVersion: v.DenyVersion, Sequence: v.Sequence,
		Head: [32]byte(head),
	}
	key := ed25519.NewKeyFromSeed(seed)
	got, err := a.Sign(key)
	if err != nil || hex.EncodeToString(got) != v.Body+v.Signature {
		t.Fatalf("%x, %v", got, err)
	}
	if back, err := ParseAccept(got, key.Public().(ed25519.PublicKey)); err != nil || back != a {
		t.Errorf("%+v, %v", back, err)
	}
}

func TestSignedBytesThatNoTerminalWritesAreNoEvidence(t *testing.T) {
	public := acceptKey().Public().(ed25519.PublicKey)
	good, err := anAccept().Body()
	if err != nil {
		t.Fatal(err)
	}
	put := func(at int, v uint32) func([]byte) {
		return func(b []byte) { binary.BigEndian.PutUint32(b[at:], v) }
	}
	for name, change := range map[string]func([]byte){
		"version 0":              func(b []byte) { b[0] = 0 },
		"version 2":              func(b []byte) { b[0] = 2 },
		"path 0":                 func(b []byte) { b[1] = 0 },
		"path 3":                 func(b []byte) { b[1] = 3 },
		"a reserved byte":        func(b []byte) { b[2] = 1 },
		"the other one":          func(b []byte) { b[3] = 1 },
		"no amount":              put(4, 0),
		"no time":                put(8, 0),
		"a letter in the name":   func(b []byte) { b[32] = 'A' },
		"NUL in the name":        func(b []byte) { b[39] = 0 },
		"a terminal id in UTF-8": func(b []byte) { copy(b[32:], "渝中12") },
	} {
		body := bytes.Clone(good)
		change(body)
		if _, err := ParseAccept(append(body, ed25519.Sign(acceptKey(), append([]byte(acceptPrefix), body...))...), public); !errors.Is(err, ErrAccept) {
			t.Errorf("%s: %v", name, err)
		}
	}
	small := anAccept()
	small.TradeNo = "01jd3z5w8q7xkq4n6t1b9v2m0c"
	if _, err := small.Sign(acceptKey()); !errors.Is(err, ErrAccept) {
		t.Errorf("a trade number in small letters: %v", err)
	}
	for name, prefix := range map[string]string{"no purpose": "", "another purpose": "yupay-head-v1"} {
		raw := append(bytes.Clone(good), ed25519.Sign(acceptKey(), append([]byte(prefix), good...))...)
		if _, err := ParseAccept(raw, public); !errors.Is(err, ErrAccept) {
			t.Errorf("signed for %s: %v", name, err)
		}
	}
}

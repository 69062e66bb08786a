package trust

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
)

func anAccept() Accept {
	return Accept{
		Converted: true, TotalFen: 1250, At: time.Unix(1_790_000_000, 0).UTC(), BoundSeconds: 2, TradeNo: "01JD3Z5W8Q7XKQ4N6T1B9V2M0C", TerminalID: "10000001",
		CodeHash: [32]byte{1, 2}, PolicyVersion: 7, DenyVersion: 41, Sequence: 4711, Head: [32]byte{9},
	}
}

func acceptKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
}

func TestTheBodyOfAnAcceptStandsByteForByte(t *testing.T) {
	const want = "01020000000004e26ab13b800000000200000000000000000000000000000000" +
		"31303030303030310102000000000000000000000000000000000000000000000000000000000000" + "0000000700000029" + "0000000000001267"
	got, err := anAccept().Body()
	if err != nil || len(got) != AcceptBody {
		t.Fatal(len(got), err)
	}
	if trade, err := ulid.ParseStrict(anAccept().TradeNo); err != nil || !bytes.Equal(got[16:32], trade[:]) {
		t.Fatal("trade", err)
	}
	copy(got[16:32], make([]byte, 16))
	if hex.EncodeToString(got[:88]) != want || got[88] != 9 {
		t.Fatalf("%x", got)
	}
}

func TestAnAcceptIsReadAsItWasSigned(t *testing.T) {
	raw, err := anAccept().Sign(acceptKey())
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseAccept(raw, acceptKey().Public().(ed25519.PublicKey))
	if err != nil || got != anAccept() {
		t.Fatalf("%+v %v", got, err)
	}
}

func TestAnAcceptWithAnyBitChangedIsRefused(t *testing.T) {
	raw, err := anAccept().Sign(acceptKey())
	if err != nil {
		t.Fatal(err)
	}
	public := acceptKey().Public().(ed25519.PublicKey)
	for i := range len(raw) * 8 {
		bad := bytes.Clone(raw)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := ParseAccept(bad, public); !errors.Is(err, ErrAccept) {
			t.Fatalf("bit %d: %v", i, err)
		}
	}
	if _, err := ParseAccept(raw[:100], public); !errors.Is(err, ErrAccept) {
		t.Fatal(err)
	}
}

func TestAnAcceptOfValuesThatDoNotFitIsNotMade(t *testing.T) {
	for name, change := range map[string]func(*Accept){
		"no amount":        func(a *Accept) { a.TotalFen = 0 },
		"a short terminal": func(a *Accept) { a.TerminalID = "1" },
		"a strange trade":  func(a *Accept) { a.TradeNo = "x" },
		"no time":          func(a *Accept) { a.At = time.Time{} },
	} {
		a := anAccept()
		change(&a)
		if _, err := a.Sign(acceptKey()); !errors.Is(err, ErrAccept) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := anAccept().Sign(nil); !errors.Is(err, ErrAccept) {
		t.Error(err)
	}
}

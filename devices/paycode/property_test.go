package paycode

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"yupos/ledgercache/money"
)

func drawULID(t *rapid.T, name string) string {
	return FormatULID([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, name)))
}

func drawDigits(t *rapid.T, name string, n int) string {
	return rapid.StringMatching(fmt.Sprintf("[0-9]{%d}", n)).Draw(t, name)
}

func drawToken(t *rapid.T) [8]byte {
	return [8]byte(rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "token"))
}

func drawFen(t *rapid.T, name string, low int64) money.Fen {
	return money.Fen(rapid.Int64Range(low, int64(money.Max)).Draw(t, name))
}

func TestWhatIsMadeIsReadAndBelieved(t *testing.T) {
	t.Run("ONLINE", rapid.MakeCheck(func(t *rapid.T) {
		text, err := MakeOnline(drawDigits(t, "random", 15))
		if err != nil || CheckOnline(text) != OK || Classify(text) != KindOnline {
			t.Fatalf("%q: %v", text, err)
		}
		i := rapid.IntRange(2, 17).Draw(t, "place")
		other := []byte(text)
		other[i] = '0' + (other[i]-'0'+byte(rapid.IntRange(1, 9).Draw(t, "by")))%10
		if CheckOnline(string(other)) != Malformed { // Luhn finds every single wrong digit
			t.Fatalf("%q passes beside %q", other, text)
		}
	}))
	t.Run("SIGNED", rapid.MakeCheck(func(t *rapid.T) {
		c := Cert{
			Tier: rapid.Uint8Range(1, 4).Draw(t, "tier"), MaxCount: rapid.Uint16().Draw(t, "count"), Token: drawToken(t),
			WalletKey: publicFrom("wallet"), NotBefore: now - rapid.Uint32Range(0, 36*3600).Draw(t, "before"),
			NotAfter: now + rapid.Uint32Range(0, 36*3600).Draw(t, "after"), PerPaymentFen: drawFen(t, "each", 0), AllowanceFen: drawFen(t, "all", 0),
		}
		counter, created, most := rapid.Uint32().Draw(t, "counter"), rapid.Uint32Range(now-60, now+30).Draw(t, "created"), drawFen(t, "most", 1)
		cert, err := MakeCert(c, keyFrom("issuer"))
		if err != nil {
			t.Fatal(err)
		}
		text, err := MakeSigned(cert, counter, created, most, keyFrom("wallet"))
		if err != nil || len(text) != 328 {
			t.Fatal(len(text), err)
		}
		s, reason := ParseSigned(text)
		if reason == OK {
			reason = s.Verify(issuerKeys, at(now))
		}
		got := s.Cert
		got.Raw, got.Signature = nil, nil
		c.Version, c.IssuerKeyID = 1, KeyID(publicFrom("issuer"))
		if reason != OK || fmt.Sprint(got) != fmt.Sprint(c) || s.Counter != counter || s.Created != created || s.MostFen != most {
			t.Fatalf("%q: %+v, want %+v", reason, got, c)
		}
		if again := base64.StdEncoding.EncodeToString(s.Raw); again != text || !bytes.Equal(s.Cert.Raw, cert) {
			t.Fatal("encoding again gives another text")
		}
	}))
	t.Run("ORDER", rapid.MakeCheck(func(t *rapid.T) {
		o := Order{
			MerchantID: drawDigits(t, "merchant", 15), TerminalID: drawDigits(t, "terminal", 8), MCC: drawDigits(t, "mcc", 4),
			MerchantName: rapid.StringMatching("[ -~]{1,25}").Draw(t, "name"), ULID: drawULID(t, "order"),
			AmountFen: drawFen(t, "amount", 1), Expires: rapid.Uint32Range(now, now+600).Draw(t, "expires"),
		}
		text, err := MakeOrder(o, keyFrom("terminal"))
		if err != nil || len(text) > 302 {
			t.Fatal(len(text), err)
		}
		got, reason := VerifyOrder(text, func(string) (ed25519.PublicKey, bool) { return publicFrom("terminal"), true }, at(now))
		if reason != OK || got != o || Classify(text) != KindOrder {
			t.Fatalf("%q: %+v, want %+v", reason, got, o)
		}
		if _, err := ParseMerchant(text); err != nil {
			t.Fatalf("the general reader: %v", err)
		}
	}))
	t.Run("RECEIPT", rapid.MakeCheck(func(t *rapid.T) {
		r := Receipt{
			Order: drawULID(t, "order"), TerminalID: drawDigits(t, "terminal", 8), AmountFen: drawFen(t, "amount", 1),
			PaidAt: rapid.Uint32().Draw(t, "at"), Token: drawToken(t), Payment: drawULID(t, "payment"),
		}
		r.PaidFen = money.Fen(rapid.Int64Range(0, int64(r.AmountFen)).Draw(t, "paid"))
		text, err := MakeReceipt(r, keyFrom("ledger"))
		if err != nil || len(text) != 220 {
			t.Fatal(len(text), err)
		}
		got, reason := VerifyReceipt(text, ledgerKeys, at(now))
		r.LedgerKeyID = KeyID(publicFrom("ledger"))
		if reason != OK || got != r || Classify(text) != KindReceipt {
			t.Fatalf("%q: %+v, want %+v", reason, got, r)
		}
		if _, err := ParseConsumer(text); err != nil {
			t.Fatalf("the general reader: %v", err)
		}
	}))
}

func TestULIDsReadAndWriteTheSame128Bits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		if got, ok := ParseULID(FormatULID(id)); !ok || got != id {
			t.Fatalf("%x: %x", id, got)
		}
		text := rapid.StringMatching("[0-7][0-9A-HJKMNP-TV-Z]{25}").Draw(t, "text")
		if got, ok := ParseULID(text); !ok || FormatULID(got) != text {
			t.Fatalf("%s: %s", text, FormatULID(got))
		}
	})
	if got := FormatULID([16]byte(bytes.Repeat([]byte{0xFF}, 16))); got != "7ZZZZZZZZZZZZZZZZZZZZZZZZZ" {
		t.Errorf("the largest: %s", got)
	}
	for _, bad := range []string{"", "8" + strings.Repeat("0", 25), strings.Repeat("0", 25), strings.Repeat("0", 27), "01kasf3m1zv9q8xn7t5r2c4d6e", "0IKASF3M1ZV9Q8XN7T5R2C4D6E", "Z" + strings.Repeat("0", 25), "0" + strings.Repeat("é", 12) + "0"} {
		if _, ok := ParseULID(bad); ok {
			t.Errorf("%q is taken", bad)
		}
	}
}

// refusedByAll says whether every one of our judges refuses text.
func refusedByAll(text string) bool {
	_, receipt := VerifyReceipt(text, ledgerKeys, at(now))
	_, order := VerifyOrder(text, terminals, at(now))
	return verifySigned(text, issuerKeys, now) != OK && receipt != OK && order != OK
}

// refusedInspection is refusedByAll for the judge that also has to find out what the text is.
func refusedInspection(text string) bool {
	keys := InspectKeys{Issuer: []ed25519.PublicKey{publicFrom("issuer")}, Ledger: []ed25519.PublicKey{publicFrom("ledger")}, Terminal: []ed25519.PublicKey{publicFrom("terminal")}}
	in := Inspect(text, keys, at(now))
	return in.Verdict == VerdictRefused && in.Reason != OK
}

func TestEveryFlippedBitIsRefused(t *testing.T) {
	signed := rawSigned(rawCert("issuer", func([]byte) {}), 1, now, 100, "wallet")
	receipt := must[string](t)(MakeReceipt(goodReceipt(), keyFrom("ledger")))
	order := must[string](t)(MakeOrder(goodOrder(), keyFrom("terminal")))
	online := must[string](t)(MakeOnline("123456789012345"))
	for name, text := range map[string]string{"SIGNED": signed, "RECEIPT": receipt, "ORDER": order} {
		if refusedInspection(text) {
			t.Fatalf("%s: the good one is refused", name)
		}
		for i := range 8 * len(text) {
			flipped := []byte(text)
			flipped[i/8] ^= 1 << (i % 8)
			if !refusedByAll(string(flipped)) || i%8 == 0 && !refusedInspection(string(flipped)) {
				t.Errorf("%s: bit %d of the text may be flipped", name, i)
			}
		}
	}
	for name, text := range map[string]string{"SIGNED": signed, "RECEIPT": receipt} {
		raw := must2(base64.StdEncoding.DecodeString(text))
		for i := range 8 * len(raw) {
			flipped := bytes.Clone(raw)
			flipped[i/8] ^= 1 << (i % 8)
			if !refusedByAll(base64.StdEncoding.EncodeToString(flipped)) {
				t.Errorf("%s: bit %d of the bytes may be flipped", name, i)
			}
		}
	}
	for i := range 8 * len(online) {
		flipped := []byte(online)
		flipped[i/8] ^= 1 << (i % 8)
		if CheckOnline(string(flipped)) == OK {
			t.Errorf("ONLINE: bit %d may be flipped", i)
		}
	}
	// An ORDER whose checksum was mended after the flip must fall by its signature or its form.
	for i := range 8 * (len(order) - 8) {
		flipped := []byte(order)
		flipped[i/8] ^= 1 << (i % 8)
		mended := fmt.Sprintf("%s%04X", flipped[:len(flipped)-4], crc16(flipped[:len(flipped)-4]))
		if !refusedByAll(mended) {
			t.Errorf("ORDER: bit %d may be flipped under a mended checksum", i)
		}
	}
}

func TestEveryCutAndEveryLostCharacterIsRefused(t *testing.T) {
	for _, text := range []string{
		rawSigned(rawCert("issuer", func([]byte) {}), 1, now, 100, "wallet"), must[string](t)(MakeReceipt(goodReceipt(), keyFrom("ledger"))),
		must[string](t)(MakeOrder(goodOrder(), keyFrom("terminal"))),
	} {
		for i := range text {
			cut, lost, doubled := text[:i], text[:i]+text[i+1:], text[:i]+text[i:i+1]+text[i:]
			if !refusedByAll(cut) || !refusedByAll(lost) || !refusedByAll(doubled) || !refusedInspection(cut) {
				t.Errorf("%s: damage at %d passes", Classify(text), i)
			}
		}
	}
}

func TestDigitsAreEightAndDependOnEverything(t *testing.T) {
	base := must[string](t)(Digits([32]byte{1}, "10000001", goodOrder().ULID, 1250))
	for name, other := range map[string]string{
		"secret": must2(Digits([32]byte{2}, "10000001", goodOrder().ULID, 1250)), "terminal": must2(Digits([32]byte{1}, "10000002", goodOrder().ULID, 1250)),
		"order": must2(Digits([32]byte{1}, "10000001", goodReceipt().Payment, 1250)), "amount": must2(Digits([32]byte{1}, "10000001", goodOrder().ULID, 1251)),
	} {
		if other == base || len(other) != 8 {
			t.Errorf("%s: %s and %s", name, base, other)
		}
		if SameDigits(other, base) || SameDigits(base[:7], base) || SameDigits("", "") || !SameDigits(base, base) {
			t.Error("compared wrongly")
		}
	}
}

package paycode

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"yupos/ledgercache/money"
)

// now is the second by which most tests judge.
const now = 1795406400

func at(unix int64) time.Time { return time.Unix(unix, 0) }

func keyFrom(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func publicFrom(name string) ed25519.PublicKey { return keyFrom(name).Public().(ed25519.PublicKey) }

var (
	issuerKeys = Keys{{Public: publicFrom("issuer")}}
	ledgerKeys = Keys{{Public: publicFrom("ledger")}}
)

func goodCert() Cert {
	return Cert{
		Tier: 2, MaxCount: 10, Token: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}, WalletKey: publicFrom("wallet"),
		NotBefore: now - 3600, NotAfter: now + 3600, PerPaymentFen: 20000, AllowanceFen: 50000,
	}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// rawCert signs any body at all, as a maker with a mistake would.
func rawCert(issuer string, change func(body []byte)) []byte {
	c := goodCert()
	cert, err := MakeCert(c, keyFrom("issuer"))
	if err != nil {
		panic(err)
	}
	body := cert[:certBodyLength]
	change(body)
	return append(bytes.Clone(body), ed25519.Sign(keyFrom(issuer), append([]byte(certPrefix), body...))...)
}

// rawSigned makes a SIGNED code around any 128 bytes, signed by any wallet key.
func rawSigned(cert []byte, counter, created, most uint32, wallet string) string {
	raw := bytes.Clone(signedPicture)
	copy(raw[signedCert:], cert)
	binary.BigEndian.PutUint32(raw[162:], counter)
	binary.BigEndian.PutUint32(raw[168:], created)
	binary.BigEndian.PutUint32(raw[174:], most)
	copy(raw[signedSignature:], ed25519.Sign(keyFrom(wallet), append([]byte(codePrefix), raw[signedTemplate:signedSignature-2]...)))
	return base64.StdEncoding.EncodeToString(raw)
}

func verifySigned(text string, keys Keys, now int64) Reason {
	s, reason := ParseSigned(text)
	if reason != OK {
		return reason
	}
	return s.Verify(keys, at(now))
}

func put(offset int, v uint32) func([]byte) {
	return func(b []byte) { binary.BigEndian.PutUint32(b[offset:], v) }
}

// TestVerifierMistakesSeenInShippedReaders makes for each mistake that was found in readers in the field the code that such a
// reader takes. Everything else about the code is right, so only the check that the mistake leaves out can refuse it.
func TestVerifierMistakesSeenInShippedReaders(t *testing.T) {
	good := rawCert("issuer", func([]byte) {})
	wholeDay := rawCert("issuer", func(b []byte) { put(48, now-24*3600)(b); put(52, now+24*3600)(b) })
	const year2000 = 946656000 // 2000-01-01 in China, from which one encoder counts
	code := func(cert []byte, created int64, wallet string) string {
		return rawSigned(cert, 1, uint32(created), 100, wallet)
	}
	decimal := func(offset int) string { // a length of 5 as the character '5', of 4 as '4'
		raw := must2(base64.StdEncoding.DecodeString(code(good, now, "wallet")))
		raw[offset] += '0'
		return base64.StdEncoding.EncodeToString(raw)
	}
	tests := []struct {
		mistake, name string
		text          string
		keys          Keys
		want          Reason
	}{
		{"key taken from the certificate itself", "signed by the wallet key that it carries", code(rawCert("wallet", func([]byte) {}), now, "wallet"), issuerKeys, CertForged},
		{"key taken from the certificate itself", "and it names that key as its issuer", code(rawCert("wallet", put(4, KeyID(publicFrom("wallet")))), now, "wallet"), issuerKeys, UnknownIssuer},
		{"key taken from the certificate itself", "by a reader that has pinned none", code(good, now, "wallet"), nil, UnknownIssuer},
		{"key taken from the certificate itself", "a key of the user's pinned nowhere, under the real issuer's id", code(rawCert("rogue", func([]byte) {}), now, "wallet"), issuerKeys, CertForged},
		{"issuer check skipped", "64 zeros for a signature", code(append(bytes.Clone(good[:64]), make([]byte, 64)...), now, "wallet"), issuerKeys, CertForged},
		{"issuer check skipped", "the signature of another certificate", code(append(bytes.Clone(wholeDay[:64]), good[64:]...), now, "wallet"), issuerKeys, CertForged},
		{"issuer check skipped", "a limit raised behind the signature", code(changed(good, put(56, 0xFFFFFFFF)), now, "wallet"), issuerKeys, CertForged},
		{"hours of time tolerance", "eight hours behind", code(wholeDay, now-8*3600, "wallet"), issuerKeys, CodeExpired},
		{"hours of time tolerance", "eight hours ahead", code(wholeDay, now+8*3600, "wallet"), issuerKeys, CodeFromFuture},
		{"hours of time tolerance", "eight hours and a fresh minute behind", code(wholeDay, now-8*3600+30, "wallet"), issuerKeys, CodeExpired},
		{"hours of time tolerance", "a certificate eight hours over", code(rawCert("issuer", put(52, now-8*3600)), now, "wallet"), issuerKeys, CertExpired},
		{"hours of time tolerance", "a certificate eight hours early", code(rawCert("issuer", put(48, now+8*3600)), now, "wallet"), issuerKeys, CertNotYetValid},
		{"wrong epoch", "a code counted from the year 2000", code(good, now-year2000, "wallet"), issuerKeys, CodeExpired},
		{"wrong epoch", "a code counted from 1900", code(good, now+2208988800, "wallet"), issuerKeys, CodeFromFuture},
		{"wrong epoch", "a certificate counted from the year 2000", code(rawCert("issuer", func(b []byte) { put(48, now-3600-year2000)(b); put(52, now+3600-year2000)(b) }), now, "wallet"), issuerKeys, CertExpired},
		{"lengths as text", "the label's", decimal(20), issuerKeys, Malformed},
		{"lengths as text", "the counter's", decimal(161), issuerKeys, Malformed},
		{"lengths as text", "that of the time", decimal(167), issuerKeys, Malformed},
		{"a key out of its window", "not yet in force", code(good, now, "wallet"), Keys{{Public: publicFrom("issuer"), NotBefore: now + 1}}, UnknownIssuer},
		{"a key out of its window", "rotated a second ago", code(good, now, "wallet"), Keys{{Public: publicFrom("issuer"), NotAfter: now - 1}}, UnknownIssuer},
		{"a key out of its window", "rotated, its successor under another id", code(good, now, "wallet"), Keys{{Public: publicFrom("issuer"), NotAfter: now - 1}, {Public: publicFrom("next")}}, UnknownIssuer},
		{"a key of a wrong length", "31 bytes", code(good, now, "wallet"), Keys{{Public: publicFrom("issuer")[:31]}}, UnknownIssuer},
		{"a signature for another purpose", "none at all", rawSignedWith(good, ""), issuerKeys, CodeForged},
		{"a signature for another purpose", "a certificate's", rawSignedWith(good, certPrefix), issuerKeys, CodeForged},
		{"no mistake", "the last second of the certificate and of the key", code(rawCert("issuer", put(52, now)), now, "wallet"), Keys{{Public: publicFrom("issuer"), NotAfter: now}}, OK},
		{"no mistake", "the first second of both", code(rawCert("issuer", put(48, now)), now, "wallet"), Keys{{Public: publicFrom("issuer"), NotBefore: now}}, OK},
	}
	for _, tt := range tests {
		t.Run(tt.mistake+"/"+tt.name, func(t *testing.T) {
			if got := verifySigned(tt.text, tt.keys, now); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestDuplicatesAreNotFoundByTheBytesOfWholeCodes is the sixth mistake. A wallet may sign one counter as often as it likes, each
// time another text: so what the book counts as spent is the wallet key with the counter, and both are in every parsed code.
func TestDuplicatesAreNotFoundByTheBytesOfWholeCodes(t *testing.T) {
	cert := rawCert("issuer", func([]byte) {})
	first, second := rawSigned(cert, 7, now, 100, "wallet"), rawSigned(cert, 7, now+1, 100, "wallet")
	a, _ := ParseSigned(first)
	b, _ := ParseSigned(second)
	if a.Verify(issuerKeys, at(now)) != OK || b.Verify(issuerKeys, at(now)) != OK || first == second {
		t.Fatal("both are good and differ")
	}
	if !a.Cert.WalletKey.Equal(b.Cert.WalletKey) || a.Counter != b.Counter {
		t.Errorf("one spending under two names: %d and %d", a.Counter, b.Counter)
	}
}

func changed(b []byte, change func([]byte)) []byte {
	b = bytes.Clone(b)
	change(b)
	return b
}

func rawSignedWith(cert []byte, prefix string) string {
	raw := must2(base64.StdEncoding.DecodeString(rawSigned(cert, 1, now, 100, "wallet")))
	copy(raw[signedSignature:], ed25519.Sign(keyFrom("wallet"), append([]byte(prefix), raw[signedTemplate:signedSignature-2]...)))
	return base64.StdEncoding.EncodeToString(raw)
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestALengthWrittenAsDecimalTextIsMalformed(t *testing.T) {
	raw := must2(base64.StdEncoding.DecodeString(rawSigned(rawCert("issuer", func([]byte) {}), 1, now, 100, "wallet")))
	// The length of the counter as the character '4', and the label's as two characters.
	for _, change := range []func() []byte{
		func() []byte { b := bytes.Clone(raw); b[161] = '4'; return b },
		func() []byte { return append(append(bytes.Clone(raw[:20]), '0', '5'), raw[21:]...) },
	} {
		text := base64.StdEncoding.EncodeToString(change())
		if _, reason := ParseSigned(text); reason != Malformed || Classify(text) != KindSigned {
			t.Errorf("got %q as %s", reason, Classify(text))
		}
	}
}

func TestEveryPinnedKeyWithTheIDIsTried(t *testing.T) {
	// Two keys with one id cannot be found in a test's time, so the id of a rogue certificate is written to match: the
	// genuine issuer's certificate must still pass with any number of other keys around it.
	text := rawSigned(rawCert("issuer", func([]byte) {}), 1, now, 100, "wallet")
	keys := Keys{{Public: publicFrom("a")}, {Public: publicFrom("issuer"), NotAfter: 5}, {Public: publicFrom("issuer")}, {Public: publicFrom("b")}}
	if got := verifySigned(text, keys, now); got != OK {
		t.Errorf("got %q", got)
	}
}

func TestSignedIsJudgedAtItsBoundaries(t *testing.T) {
	tests := []struct {
		name   string
		change func([]byte)
		made   uint32
		want   Reason
	}{
		{"created exactly 60 s ago", nil, now - 60, OK},
		{"created 61 s ago", nil, now - 61, CodeExpired},
		{"created 30 s ahead", nil, now + 30, OK},
		{"created 31 s ahead", nil, now + 31, CodeFromFuture},
		{"created at the end of time", nil, 0xFFFFFFFF, CodeFromFuture},
		{"created at the beginning of time", nil, 0, CodeExpired},
		{"certificate valid from this second", put(48, now), now, OK},
		{"certificate valid from the next second", put(48, now+1), now, CertNotYetValid},
		{"certificate valid to this second", put(52, now), now, OK},
		{"certificate valid to the last second", put(52, now-1), now, CertExpired},
		{"certificate of exactly 72 h", func(b []byte) { put(48, now)(b); put(52, now+72*3600)(b) }, now, OK},
		{"certificate of 72 h and a second", func(b []byte) { put(48, now)(b); put(52, now+72*3600+1)(b) }, now, CertTooLong},
		{"certificate of all time", func(b []byte) { put(48, 0)(b); put(52, 0xFFFFFFFF)(b) }, now, CertTooLong},
		{"certificate that ends before it begins", func(b []byte) { put(48, now-10)(b); put(52, now-20)(b) }, now, CertExpired},
		{"expired and too long says expired", func(b []byte) { put(48, 0)(b); put(52, now-1)(b) }, now, CertExpired},
		{"expired certificate before old code", put(52, now-1), now - 3600, CertExpired},
		{"tier 1", func(b []byte) { b[1] = 1 }, now, OK},
		{"tier 4", func(b []byte) { b[1] = 4 }, now, OK},
		{"tier 0", func(b []byte) { b[1] = 0 }, now, Malformed},
		{"tier 5", func(b []byte) { b[1] = 5 }, now, Malformed},
		{"version 0", func(b []byte) { b[0] = 0 }, now, Malformed},
		{"no offline payment allowed at all", func(b []byte) { put(56, 0)(b); put(60, 0)(b); b[2], b[3] = 0, 0 }, now, OK},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			change := tt.change
			if change == nil {
				change = func([]byte) {}
			}
			if got := verifySigned(rawSigned(rawCert("issuer", change), 1, tt.made, 1, "wallet"), issuerKeys, now); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestTheFirstRefusalIsNamed(t *testing.T) {
	// Each row breaks one thing more, from the last step to the first; the name must be that of the earliest.
	expired := rawCert("issuer", put(52, now-1))
	rogue := rawCert("rogue", put(52, now-1))
	unknown := rawCert("rogue", func(b []byte) { put(52, now-1)(b); put(4, KeyID(publicFrom("rogue")))(b) })
	good := rawCert("issuer", func([]byte) {})
	for _, tt := range []struct {
		text string
		want Reason
	}{
		{rawSigned(good, 1, now-100, 1, "wallet"), CodeExpired},
		{rawSigned(good, 1, now-100, 1, "other"), CodeForged},
		{rawSigned(expired, 1, now-100, 1, "other"), CertExpired},
		{rawSigned(rogue, 1, now-100, 1, "other"), CertForged},
		{rawSigned(unknown, 1, now-100, 1, "other"), UnknownIssuer},
		{rawSigned(unknown, 1, now-100, 0, "other"), Malformed},
	} {
		if got := verifySigned(tt.text, issuerKeys, now); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestTextsThatDecodeAlikeAreNotTheSameCode(t *testing.T) {
	for _, good := range []string{
		rawSigned(rawCert("issuer", func([]byte) {}), 1, now, 100, "wallet"),
		must[string](t)(MakeReceipt(goodReceipt(), keyFrom("ledger"))),
	} {
		kind := Classify(good)
		spare := good[:len(good)-1] + "B"
		if strings.HasSuffix(good, "==") {
			spare = good[:len(good)-3] + string(good[len(good)-3]+1) + "=="
		}
		for name, text := range map[string]string{
			"line end behind": good + "\n", "carriage return behind": good + "\r", "line end in front": "\n" + good, "space behind": good + " ",
			"line end within": good[:76] + "\n" + good[76:], "padding missing": strings.TrimRight(good, "="), "padding more": good + "=",
			"base64url": strings.NewReplacer("+", "-", "/", "_").Replace(good), "spare bits": spare, "half": good[:len(good)/2],
			"twice": good + good, "NUL behind": good + "\x00",
		} {
			if text == good || name == "spare bits" && !strings.HasSuffix(good, "==") {
				continue
			}
			if _, reason := ParseSigned(text); reason != Malformed {
				t.Errorf("%s %s: SIGNED says %q", kind, name, reason)
			}
			if _, reason := ParseReceipt(text); reason != Malformed {
				t.Errorf("%s %s: RECEIPT says %q", kind, name, reason)
			}
			if got := Classify(text); name != "line end in front" && got != kind {
				t.Errorf("%s %s: kind %s", kind, name, got)
			}
		}
	}
}

func goodReceipt() Receipt {
	return Receipt{
		Order: "01KASF3M1ZV9Q8XN7T5R2C4D6E", TerminalID: "10000001", AmountFen: 1250, PaidFen: 1150, PaidAt: now - 10,
		Token: [8]byte{9, 8, 7}, Payment: "01KASF3NAZ0123456789ABCDEF",
	}
}

func rawReceipt(ledger string, change func(body []byte)) string {
	raw := must2(base64.StdEncoding.DecodeString(must2(MakeReceipt(goodReceipt(), keyFrom("ledger")))))
	body := raw[receiptBody : receiptBody+receiptBodyLength]
	change(body)
	copy(raw[receiptSignature:], ed25519.Sign(keyFrom(ledger), append([]byte(receiptPrefix), body...)))
	return base64.StdEncoding.EncodeToString(raw)
}

func TestReceiptsAreJudgedClauseByClause(t *testing.T) {
	for _, tt := range []struct {
		name string
		text string
		want Reason
	}{
		{"good", rawReceipt("ledger", func([]byte) {}), OK},
		{"nothing left to pay", rawReceipt("ledger", put(36, 0)), OK},
		{"paid in full", rawReceipt("ledger", put(36, 1250)), OK},
		{"paid one fen more", rawReceipt("ledger", put(36, 1251)), Malformed},
		{"amount nothing", rawReceipt("ledger", func(b []byte) { put(32, 0)(b); put(36, 0)(b) }), Malformed},
		{"largest amount", rawReceipt("ledger", put(32, 0xFFFFFFFF)), OK},
		{"version 2", rawReceipt("ledger", func(b []byte) { b[0] = 2 }), Malformed},
		{"reserved byte set", rawReceipt("ledger", func(b []byte) { b[3] = 1 }), Malformed},
		{"terminal id with a letter", rawReceipt("ledger", func(b []byte) { b[24] = 'A' }), Malformed},
		{"another key under the real id", rawReceipt("rogue", func([]byte) {}), ReceiptForged},
		{"a key id nobody knows", rawReceipt("ledger", put(4, 1)), UnknownLedgerKey},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, got := VerifyReceipt(tt.text, ledgerKeys, at(now)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if _, got := VerifyReceipt(rawReceipt("ledger", func([]byte) {}), Keys{{Public: publicFrom("ledger"), NotAfter: now - 1}}, at(now)); got != UnknownLedgerKey {
		t.Errorf("a key out of its window: %q", got)
	}
}

func TestAReceiptMustMatchTheOrderExactly(t *testing.T) {
	r := goodReceipt()
	for _, tt := range []struct {
		name            string
		terminal, order string
		amount          money.Fen
		expires         uint32
		want            Reason
	}{
		{"all equal", "10000001", r.Order, 1250, now - 10, OK},
		{"another terminal", "10000002", r.Order, 1250, now, NotMyOrder},
		{"another order", "10000001", r.Payment, 1250, now, NotMyOrder},
		{"another amount", "10000001", r.Order, 1150, now, AmountMismatch},
		{"paid a second late", "10000001", r.Order, 1250, now - 11, PaidAfterExpiry},
		{"another order of another amount", "10000001", r.Payment, 1, 0, NotMyOrder},
	} {
		if got := r.Match(tt.terminal, tt.order, tt.amount, tt.expires); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func goodOrder() Order {
	return Order{
		MerchantID: "653000053310001", TerminalID: "10000001", MCC: "5411", MerchantName: "YUZHONG NOODLES",
		ULID: "01KASF3M1ZV9Q8XN7T5R2C4D6E", AmountFen: 1250, Expires: now + 180,
	}
}

// terminals knows one terminal, as a wallet's ledger does.
func terminals(id string) (ed25519.PublicKey, bool) { return publicFrom("terminal"), id == "10000001" }

// rewritten makes an ORDER whose unsigned part is changed, signed and summed anew: only its form can betray it.
func rewritten(change func(unsigned string) string) string {
	text := change(string(goodOrder().unsigned()))
	sig := ed25519.Sign(keyFrom("terminal"), []byte(orderPrefix+text))
	return Order{}.finish([]byte(text), base64.RawURLEncoding.EncodeToString(sig))
}

func swap(old, new string) func(string) string {
	return func(s string) string {
		if !strings.Contains(s, old) {
			panic("nothing to swap: " + old)
		}
		return strings.Replace(s, old, new, 1)
	}
}

func TestAnOrderHasOneForm(t *testing.T) {
	name26 := strings.Repeat("N", 26)
	for name, text := range map[string]string{
		"static":                            rewritten(swap("010212", "010211")),
		"another currency":                  rewritten(swap("5303156", "5303840")),
		"another country":                   rewritten(swap("5802CN", "5802US")),
		"another city":                      rewritten(swap("6009CHONGQING", "6007BEIJING")),
		"no city":                           rewritten(swap("6009CHONGQING", "")),
		"an extra field":                    rewritten(swap("5802CN", "5802CN6105400000")),
		"a tip":                             rewritten(swap("540512.50", "540512.50550201")),
		"fields exchanged":                  rewritten(swap("5204541153031565", "5303156520454115")),
		"the amount twice":                  rewritten(swap("540512.50", "540512.50540512.50")),
		"amount with a leading zero":        rewritten(swap("540512.50", "5406012.50")),
		"amount with a plus":                rewritten(swap("540512.50", "5406+12.50")),
		"amount with one decimal":           rewritten(swap("540512.50", "540412.5")),
		"amount without decimals":           rewritten(swap("540512.50", "540212")),
		"amount with three decimals":        rewritten(swap("540512.50", "540612.500")),
		"amount without a whole part":       rewritten(swap("540512.50", "5403.50")),
		"amount zero":                       rewritten(swap("540512.50", "54040.00")),
		"amount one fen too large":          rewritten(swap("540512.50", "541142949672.96")),
		"amount of nine whole digits":       rewritten(swap("540512.50", "5412100000000.00")),
		"amount with a comma":               rewritten(swap("540512.50", "540512,50")),
		"amount negative":                   rewritten(swap("540512.50", "5406-12.50")),
		"merchant id with a letter":         rewritten(swap("653000053310001", "65300005331000A")),
		"merchant id of 14":                 rewritten(swap("26400005yupay0115653000053310001", "26390005yupay011465300005331000")),
		"terminal id of 7":                  rewritten(swap("26400005yupay0115653000053310001020810000001", "26390005yupay011565300005331000102071000000")),
		"another scheme's template":         rewritten(swap("26400005yupay", "26400005yupax")),
		"category with a letter":            rewritten(swap("52045411", "5204541A")),
		"name empty":                        rewritten(swap("5915YUZHONG NOODLES", "5900")),
		"name of 26":                        rewritten(swap("5915YUZHONG NOODLES", "5926"+name26)),
		"name in Chinese":                   rewritten(swap("5915YUZHONG NOODLES", "5904渝中小面")),
		"name with a tab":                   rewritten(swap("5915YUZHONG NOODLES", "5915YUZHONG\tNOODLES")),
		"order in lower case":               rewritten(swap("01KASF3M1ZV9Q8XN7T5R2C4D6E", "01kasf3m1zv9q8xn7t5r2c4d6e")),
		"order with an I":                   rewritten(swap("01KASF3M1ZV9Q8XN7T5R2C4D6E", "01KASF3M1ZV9Q8XN7T5R2C4D6I")),
		"order with a U":                    rewritten(swap("01KASF3M1ZV9Q8XN7T5R2C4D6E", "01KASF3M1ZV9Q8XN7T5R2C4D6U")),
		"order beyond 128 bits":             rewritten(swap("01KASF3M1ZV9Q8XN7T5R2C4D6E", "81KASF3M1ZV9Q8XN7T5R2C4D6E")),
		"expiry of 11 digits":               rewritten(swap("80530005yupay012601KASF3M1ZV9Q8XN7T5R2C4D6E02101795406580", "80540005yupay012601KASF3M1ZV9Q8XN7T5R2C4D6E021101795406580")),
		"expiry beyond 32 bits":             rewritten(swap("1795406580", "4294967296")),
		"expiry with a sign":                rewritten(swap("1795406580", "+179540658")),
		"a sub-field more":                  rewritten(swap("26400005yupay", "26440300"+"0005yupay")),
		"a length of two full-width digits": rewritten(swap("540512.50", "54０５12.50")),
	} {
		if _, reason := VerifyOrder(text, terminals, at(now)); reason != Malformed {
			t.Errorf("%s: %q", name, reason)
		}
		if kind := Classify(text); kind != KindOrder {
			t.Errorf("%s: kind %s", name, kind)
		}
	}
}

func TestAnOrdersSignatureHasOneForm(t *testing.T) {
	good := must[string](t)(MakeOrder(goodOrder(), keyFrom("terminal")))
	cut := strings.LastIndex(good, "0186") + 4
	sig := good[cut : cut+86]
	remade := func(sig string) string { return goodOrder().finish(goodOrder().unsigned(), sig) }
	last := strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", sig[85])
	spare := sig[:85] + string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last^1])
	for name, text := range map[string]string{
		"spare bits": remade(spare), "standard base64": remade("+" + sig[1:]), "padded": remade(sig + "=="), "short": remade(sig[:85]),
		"line end within": remade(sig[:85] + "\n"), "empty": remade(""), "text behind": good + "0", "line end behind": good + "\n",
		"checksum in lower case": good[:len(good)-4] + strings.ToLower(good[len(good)-4:]), "checksum gone": good[:len(good)-8],
		"cut": good[:len(good)/2], "first character gone": good[:0] + " " + good[1:],
	} {
		if text == good { // a checksum of digits only has no lower case
			continue
		}
		if _, reason := ParseOrder(text); reason != Malformed {
			t.Errorf("%s: %q", name, reason)
		}
	}
}

func TestOrdersAreJudgedInOrder(t *testing.T) {
	make := func(change func(*Order), key string) string {
		o := goodOrder()
		change(&o)
		return must2(MakeOrder(o, keyFrom(key)))
	}
	for _, tt := range []struct {
		name string
		text string
		want Reason
	}{
		{"good", make(func(*Order) {}, "terminal"), OK},
		{"last second", make(func(o *Order) { o.Expires = now }, "terminal"), OK},
		{"a second late", make(func(o *Order) { o.Expires = now - 1 }, "terminal"), OrderExpired},
		{"600 s ahead", make(func(o *Order) { o.Expires = now + 600 }, "terminal"), OK},
		{"601 s ahead", make(func(o *Order) { o.Expires = now + 601 }, "terminal"), OrderExpiryTooFar},
		{"end of time", make(func(o *Order) { o.Expires = 0xFFFFFFFF }, "terminal"), OrderExpiryTooFar},
		{"beginning of time", make(func(o *Order) { o.Expires = 0 }, "terminal"), OrderExpired},
		{"another key", make(func(*Order) {}, "rogue"), OrderForged},
		{"another key and expired", make(func(o *Order) { o.Expires = 1 }, "rogue"), OrderForged},
		{"another terminal, another key", make(func(o *Order) { o.TerminalID = "10000002" }, "rogue"), UnknownTerminal},
		{"smallest amount", make(func(o *Order) { o.AmountFen = 1 }, "terminal"), OK},
		{"largest amount", make(func(o *Order) { o.AmountFen = money.Max }, "terminal"), OK},
		{"longest name", make(func(o *Order) { o.MerchantName = strings.Repeat("~", 25) }, "terminal"), OK},
		{"name that looks like a signature", make(func(o *Order) { o.MerchantName = "81990005yupay01866304" }, "terminal"), OK},
		{"name of one space", make(func(o *Order) { o.MerchantName = " " }, "terminal"), OK},
	} {
		if _, got := VerifyOrder(tt.text, terminals, at(now)); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestAnOrderOfAnotherMerchantIsForgedWhoeverSignedIt(t *testing.T) {
	text := must2(MakeOrder(goodOrder(), keyFrom("terminal")))
	late := goodOrder()
	late.Expires = 1
	for _, tt := range []struct {
		name, text    string
		merchant, mcc string
		want          Reason
	}{
		{"its own", text, "653000053310001", "5411", OK},
		{"not known", text, "", "", OK},
		{"another merchant", text, "653000053310002", "5411", OrderForged},
		{"another category", text, "653000053310001", "5812", OrderForged},
		{"another merchant, and expired", must2(MakeOrder(late, keyFrom("terminal"))), "653000053310002", "5411", OrderForged},
	} {
		_, got := VerifyOrderOf(tt.text, func(string) (Terminal, bool) {
			return Terminal{Key: publicFrom("terminal"), MerchantID: tt.merchant, MCC: tt.mcc}, true
		}, at(now))
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	if _, got := VerifyOrder(text, func(string) (ed25519.PublicKey, bool) { return nil, true }, at(now)); got != OrderForged {
		t.Errorf("a terminal without a key: %q", got)
	}
}

func TestMakersRefuseWhatNoVerifierTakes(t *testing.T) {
	order := func(change func(*Order)) error {
		o := goodOrder()
		change(&o)
		_, err := MakeOrder(o, keyFrom("terminal"))
		return err
	}
	receipt := func(change func(*Receipt)) error {
		r := goodReceipt()
		change(&r)
		_, err := MakeReceipt(r, keyFrom("ledger"))
		return err
	}
	cert := func(change func(*Cert)) error {
		c := goodCert()
		change(&c)
		_, err := MakeCert(c, keyFrom("issuer"))
		return err
	}
	_, otherWallet := MakeSigned(rawCert("issuer", func([]byte) {}), 1, now, 1, keyFrom("other"))
	_, nothing := MakeSigned(rawCert("issuer", func([]byte) {}), 1, now, 0, keyFrom("wallet"))
	_, short := MakeSigned(nil, 1, now, 1, keyFrom("wallet"))
	_, noKey := MakeOrder(goodOrder(), nil)
	_, letters := MakeOnline("12345678901234X")
	_, fewer := MakeOnline("12345678901234")
	_, digits := Digits([32]byte{}, "1000000", goodOrder().ULID, 1)
	_, digitsOrder := Digits([32]byte{}, "10000001", "x", 1)
	_, digitsAmount := Digits([32]byte{}, "10000001", goodOrder().ULID, 0)
	for name, err := range map[string]error{
		"order: name": order(func(o *Order) { o.MerchantName = "渝中" }), "order: amount": order(func(o *Order) { o.AmountFen = 0 }),
		"order: ulid": order(func(o *Order) { o.ULID = "" }), "order: merchant": order(func(o *Order) { o.MerchantID = "1" }),
		"order: terminal": order(func(o *Order) { o.TerminalID = "1000000x" }), "order: category": order(func(o *Order) { o.MCC = "" }),
		"receipt: order": receipt(func(r *Receipt) { r.Order = "" }), "receipt: payment": receipt(func(r *Receipt) { r.Payment = "" }),
		"receipt: paid": receipt(func(r *Receipt) { r.PaidFen = 1251 }), "receipt: negative": receipt(func(r *Receipt) { r.PaidFen = -1 }),
		"receipt: amount": receipt(func(r *Receipt) { r.AmountFen = money.Max + 1 }), "receipt: terminal": receipt(func(r *Receipt) { r.TerminalID = "" }),
		"cert: tier": cert(func(c *Cert) { c.Tier = 0 }), "cert: life": cert(func(c *Cert) { c.NotAfter = c.NotBefore + 72*3600 + 1 }),
		"cert: version": cert(func(c *Cert) { c.Version = 2 }), "cert: key": cert(func(c *Cert) { c.WalletKey = nil }),
		"cert: amount": cert(func(c *Cert) { c.AllowanceFen = -1 }), "cert: backwards": cert(func(c *Cert) { c.NotAfter = c.NotBefore - 1 }),
		"signed: other wallet": otherWallet, "signed: nothing": nothing, "signed: cert": short, "order: key": noKey,
		"online: letters": letters, "online: fewer": fewer, "digits: terminal": digits, "digits: order": digitsOrder, "digits: amount": digitsAmount,
	} {
		if !errors.Is(err, ErrField) && !errors.Is(err, ErrKey) && !errors.Is(err, money.ErrRange) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestForeignCodesAreNamed(t *testing.T) {
	for _, tt := range []struct {
		text string
		kind Kind
		zh   string
	}{
		{"100000000000000000", KindWeChat, "微信"},
		{"159999999999999999", KindWeChat, "微信"},
		{"160000000000000000", KindUnknown, "不是付款码"},
		{"10000000000000000", KindUnknown, "不是付款码"},
		{"2500000000000000", KindAlipay, "支付宝"},
		{"309999999999999999999999", KindAlipay, "支付宝"},
		{"3099999999999999999999999", KindUnknown, "不是付款码"},
		{"310000000000000000", KindUnknown, "不是付款码"},
		{"6200000000000000000", KindUnionPay, "银联"},
		{"620000000000000000", KindUnknown, "不是付款码"},
		{"0100000000000000000", KindECNY, "数字人民币"},
		{"96385074", KindGoodsBarcode, "商品条码"},
		{"96385075", KindUnknown, "不是付款码"},
		{"036000291452", KindGoodsBarcode, "商品条码"},
		{"6901234567892", KindGoodsBarcode, "商品条码"},
		{"6901234567893", KindUnknown, "不是付款码"},
		{"16901234567899", KindGoodsBarcode, "商品条码"},
		{"8690000000005", KindGoodsBarcode, "商品条码"}, // a Turkish article: begins like ONLINE, but is whole in itself
		{"8690000000006", KindOnline, "付款码"},
		{"861234567890123450", KindOnline, "付款码"},
		{"86123456789012345", KindOnline, "付款码"},
		{"8612345678901234590", KindOnline, "付款码"},
		{"86123456789012345X", KindOnline, "付款码"},
		{"861234567890123459\r\n", KindOnline, "付款码"},
		{" 861234567890123459", KindUnknown, "不是付款码"},
		{"８６1234567890123459", KindUnknown, "不是付款码"},
		{"hQVDUFYwMWEaTwegAAAAVVVVVw8SNFZ4kBI0WNGRIgESNF8=", KindOtherEMVCo, "其他机构"},
		{"hQVDUFYwMWETTwegAAAAVVVVUAhQcm9kdWN0MQ==", KindOtherEMVCo, "Product1"},
		{"hQVDUFYwMWFYTwigAAADMwEBAVcTYpJhA1hEQzVkHSIQIBAAABiAH180AQBjM58mCFaLEtnaC9l/nycBgJ8QEQcAAQOgAAABCDM5OTk5OTk5nzYCAAGCAgAAnzcE6gZYyA==", KindOtherEMVCo, "云闪付"},
		{"hQVDUFYwMQ", KindOtherEMVCo, "其他机构"},
		{"000201010212", KindOtherEMVCo, "收款码"},
		{"00020101021226400005yupay", KindOrder, "收款码"},
		{"00020101021126400005yupay0115653000053310001", KindOrder, "收款码"},
		{"00020101021126400005yupax0115653000053310001", KindOtherEMVCo, "收款码"},
		{"", KindMalformed, "没有读到"},
		{"https://example.com/", KindUnknown, "网址"},
		{"HTTP://EXAMPLE.COM/", KindUnknown, "网址"},
		{"HTTPS://QR.ALIPAY.COM/FKX01234", KindUnknown, "支付宝收款码"},
		{"wxp://f2f0AbC", KindUnknown, "微信收款码"},
		{"https://qr.95516.com/00010000/0123", KindUnknown, "云闪付收款码"},
		{"50010119900101123X", KindUnknown, "身份证"},
		{"500101199001011230", KindUnknown, "这不是付款码"},
		{"50010119901301123X", KindUnknown, "这不是付款码"},
		{encoded("\x61\x0E\x4F\x05\xA0\x00\x00\x09\x99\x50\x05GCASH"), KindOtherEMVCo, "GCASH"},
		{"\x00\xff", KindUnknown, "不是付款码"},
	} {
		got, zh, en := Describe(tt.text, "")
		if got != tt.kind || got != Classify(tt.text) || !strings.Contains(zh, tt.zh) || en == "" {
			t.Errorf("%q: %s, %s, %s; want %s", tt.text, got, zh, en, tt.kind)
		}
	}
}

func TestAnotherSymbologyIsAGoodsBarcode(t *testing.T) {
	for symbology, want := range map[string]Kind{
		"": KindOnline, "QR": KindOnline, "QR_CODE": KindOnline, "]Q1": KindOnline, "Code 128": KindOnline, "CODE_128": KindOnline, "]C0": KindOnline,
		"EAN-13": KindGoodsBarcode, "]E0": KindGoodsBarcode, "Code 39": KindGoodsBarcode, "ITF": KindGoodsBarcode, "DATA_MATRIX": KindGoodsBarcode,
	} {
		if got := ClassifyScan("861234567890123459", symbology); got != want {
			t.Errorf("%q: %s, want %s", symbology, got, want)
		}
	}
	if got := ClassifyScan("", "EAN-13"); got != KindMalformed {
		t.Errorf("an empty scan is %s", got)
	}
}

func TestEveryKindAndReasonHasWordsInTwoLanguages(t *testing.T) {
	for kind := range kindWords {
		if zh, en := kind.Words(); zh == "" || en == "" {
			t.Errorf("%s: %q, %q", kind, zh, en)
		}
	}
	for reason := range reasonWords {
		if zh, en := reason.Words(); zh == "" || en == "" {
			t.Errorf("%s: %q, %q", reason, zh, en)
		}
	}
	if zh, _ := Reason("WALLET_BLOCKED").Words(); zh != "无法受理" {
		t.Errorf("a reason of another room says %q", zh)
	}
	if OK.Err() != nil || !errors.Is(CodeForged.Err(), CodeForged) || fmt.Sprint(CodeForged.Err()) != "CODE_FORGED" {
		t.Error("a reason as an error")
	}
}

func TestKeysAreReadFromHexOnly(t *testing.T) {
	good := strings.Repeat("aB", 32)
	if k, err := ParseKey(good); err != nil || len(k) != 32 {
		t.Errorf("good: %v", err)
	}
	for _, bad := range []string{"", "ab", good + "ab", strings.Repeat("zz", 32), " " + good} {
		if _, err := ParseKey(bad); !errors.Is(err, ErrKey) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

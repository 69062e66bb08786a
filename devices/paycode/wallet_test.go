package paycode_test

// This file is a wallet and a verifier written from FORMAT.md alone, as somebody in another language would write them: it uses
// nothing of the package but to compare with. Where it disagrees with the package, FORMAT.md or the package is wrong.

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"yupos/devices/paycode"
	"yupos/ledgercache/money"
)

func u32(v uint64) []byte { return binary.BigEndian.AppendUint32(nil, uint32(v)) }

func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func sign(key ed25519.PrivateKey, word string, body []byte) []byte {
	return ed25519.Sign(key, append([]byte(word), body...))
}

func keyID(key ed25519.PrivateKey) []byte {
	sum := sha256.Sum256(key.Public().(ed25519.PublicKey))
	return sum[:4]
}

// ulid128 is the 128 bits of a ULID: characters of five bits, the highest first.
func ulid128(text string) []byte {
	out := make([]byte, 16)
	for i := range 26 {
		v := strings.IndexByte("0123456789ABCDEFGHJKMNPQRSTVWXYZ", text[i])
		for b := range 5 {
			if bit := i*5 + b - 2; bit >= 0 && v>>(4-b)&1 == 1 {
				out[bit/8] |= 0x80 >> (bit % 8)
			}
		}
	}
	return out
}

// own values of one SIGNED code, in the words of FORMAT.md.
type signedValues struct {
	tier                                            byte
	count                                           uint16
	token                                           [8]byte
	notBefore, notAfter, each, all                  uint64
	counter, created, most                          uint64
	issuer, wallet                                  ed25519.PrivateKey
	version                                         byte
	terminal, order, payment, merchant, category, n string
}

func walletCertificate(v signedValues) []byte {
	body := cat([]byte{v.version, v.tier, byte(v.count >> 8), byte(v.count)}, keyID(v.issuer), v.token[:], v.wallet.Public().(ed25519.PublicKey),
		u32(v.notBefore), u32(v.notAfter), u32(v.each), u32(v.all))
	return append(body, sign(v.issuer, "yupay-cert-v1", body)...)
}

func walletSigned(v signedValues) string {
	template := cat([]byte{0xC1, 0x81, 0x80}, walletCertificate(v), []byte{0xC2, 4}, u32(v.counter), []byte{0xC3, 4}, u32(v.created), []byte{0xC4, 4}, u32(v.most))
	return base64.StdEncoding.EncodeToString(cat(
		[]byte{0x85, 5}, []byte("CPV01"), []byte{0x61, 0x81, 0xEA}, []byte{0x4F, 7, 0xF0, 'Y', 'U', 'P', 'A', 'Y', 1}, []byte{0x50, 5}, []byte("YUPAY"),
		[]byte{0x63, 0x81, 0xD7}, template, []byte{0xDE, 0x40}, sign(v.wallet, "yupay-code-v1", template)))
}

func walletReceipt(ledger ed25519.PrivateKey, order, terminal, payment string, amount, paid, at uint64, token [8]byte) string {
	body := cat([]byte{1, 0, 0, 0}, keyID(ledger), ulid128(order), []byte(terminal), u32(amount), u32(paid), u32(at), token[:], ulid128(payment))
	return base64.StdEncoding.EncodeToString(cat(
		[]byte{0x85, 5}, []byte("CPV01"), []byte{0x61, 0x81, 0x9B}, []byte{0x4F, 7, 0xF0, 'Y', 'U', 'P', 'A', 'Y', 2}, []byte{0x50, 5}, []byte("YUPAY"),
		[]byte{0x63, 0x81, 0x88}, []byte{0xC1, 0x44}, body, []byte{0xDE, 0x40}, sign(ledger, "yupay-receipt-v1", body)))
}

func field(id, value string) string { return fmt.Sprintf("%s%02d%s", id, len(value), value) }

// crcOf is CRC-16/CCITT-FALSE bit by bit: polynomial 1021, begins with FFFF.
func crcOf(text string) string {
	r := 0xFFFF
	for i := range len(text) * 8 {
		in := int(text[i/8]) >> (7 - i%8) & 1
		out := r >> 15 & 1
		r = r << 1 & 0xFFFF
		if in != out {
			r ^= 0x1021
		}
	}
	return fmt.Sprintf("%04X", r)
}

func terminalOrder(key ed25519.PrivateKey, merchant, terminal, category, name, order string, fen, expires uint64) string {
	text := field("00", "01") + field("01", "12") + field("26", field("00", "yupay")+field("01", merchant)+field("02", terminal)) +
		field("52", category) + field("53", "156") + field("54", fmt.Sprintf("%d.%02d", fen/100, fen%100)) + field("58", "CN") + field("59", name) +
		field("60", "CHONGQING") + field("80", field("00", "yupay")+field("01", order)+field("02", fmt.Sprintf("%010d", expires)))
	signature := base64.RawURLEncoding.EncodeToString(sign(key, "yupay-order-v1", []byte(text)))
	text += field("81", field("00", "yupay")+field("01", signature)) + "6304"
	return text + crcOf(text)
}

func walletDigits(secret []byte, terminal, order string, fen uint64) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write(cat([]byte("yupay-confirm-v1"), []byte(terminal), ulid128(order), u32(fen)))
	sum := mac.Sum(nil)
	at := int(sum[31] & 15)
	return fmt.Sprintf("%08d", (binary.BigEndian.Uint32(sum[at:at+4])&0x7FFFFFFF)%100000000)
}

// walletLuhn is the check digit of 17 digits.
func walletLuhn(digits string) string {
	sum := 0
	for i := range 17 {
		d := int(digits[i] - '0')
		if i%2 == 0 { // the last of 17 is doubled, and with it every other
			d = d*2/10 + d*2%10
		}
		sum += d
	}
	return fmt.Sprint((100 - sum%10) % 10)
}

func seedKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("wallet_test " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

const second = 1795406400

func drawnValues(rng *rand.Rand) signedValues {
	v := signedValues{
		version: 1, tier: byte(1 + rng.IntN(4)), count: uint16(rng.Uint32()), notBefore: second - uint64(rng.IntN(3600)),
		notAfter: second + uint64(rng.IntN(3600)), each: uint64(rng.Uint32()), all: uint64(rng.Uint32()), counter: uint64(rng.Uint32()),
		created: second - uint64(rng.IntN(60)), most: 1 + uint64(rng.Uint32())%0xFFFFFFFF, issuer: seedKey("issuer"), wallet: seedKey("wallet"),
		terminal: fmt.Sprintf("%08d", rng.IntN(1e8)), merchant: fmt.Sprintf("%015d", rng.Int64N(1e15)), category: fmt.Sprintf("%04d", rng.IntN(1e4)),
	}
	binary.BigEndian.PutUint64(v.token[:], rng.Uint64())
	letters := "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	for _, id := range []*string{&v.order, &v.payment} {
		*id = string(letters[rng.IntN(8)])
		for range 25 {
			*id += string(letters[rng.IntN(32)])
		}
	}
	for range 1 + rng.IntN(25) {
		v.n += string(rune(' ' + rng.IntN('~'-' '+1)))
	}
	return v
}

func TestAWalletWrittenFromTheFormatMakesTheSameBytes(t *testing.T) {
	rng := rand.New(rand.NewPCG(20261123, 4))
	secret := [32]byte{1, 2, 3}
	check := func(name, ours, theirs string, err error) {
		t.Helper()
		if err != nil || ours != theirs {
			t.Fatalf("%s: by FORMAT.md\n%s\nby the package\n%s\n%v", name, ours, theirs, err)
		}
	}
	for range 200 {
		v := drawnValues(rng)
		cert, err := paycode.MakeCert(paycode.Cert{
			Tier: v.tier, MaxCount: v.count, Token: v.token, WalletKey: v.wallet.Public().(ed25519.PublicKey), NotBefore: uint32(v.notBefore),
			NotAfter: uint32(v.notAfter), PerPaymentFen: money.Fen(v.each), AllowanceFen: money.Fen(v.all),
		}, v.issuer)
		check("certificate", string(walletCertificate(v)), string(cert), err)
		text, err := paycode.MakeSigned(cert, uint32(v.counter), uint32(v.created), money.Fen(v.most), v.wallet)
		check("SIGNED", walletSigned(v), text, err)
		text, err = paycode.MakeReceipt(paycode.Receipt{
			Order: v.order, TerminalID: v.terminal, AmountFen: money.Fen(v.most), PaidFen: money.Fen(v.most / 2), PaidAt: uint32(v.created), Token: v.token, Payment: v.payment,
		}, v.issuer)
		check("RECEIPT", walletReceipt(v.issuer, v.order, v.terminal, v.payment, v.most, v.most/2, v.created, v.token), text, err)
		text, err = paycode.MakeOrder(paycode.Order{
			MerchantID: v.merchant, TerminalID: v.terminal, MCC: v.category, MerchantName: v.n, ULID: v.order, AmountFen: money.Fen(v.most), Expires: uint32(v.notAfter),
		}, v.issuer)
		check("ORDER", terminalOrder(v.issuer, v.merchant, v.terminal, v.category, v.n, v.order, v.most, v.notAfter), text, err)
		text, err = paycode.Digits(secret, v.terminal, v.order, money.Fen(v.most))
		check("digits", walletDigits(secret[:], v.terminal, v.order, v.most), text, err)
		text, err = paycode.MakeOnline(v.merchant)
		check("ONLINE", "86"+v.merchant+walletLuhn("86"+v.merchant), text, err)
	}
}

// reader judges by the tables of FORMAT.md, with one key of each role.
type reader struct {
	issuer, ledger, terminal ed25519.PublicKey
	now                      int64
}

func hasID(key ed25519.PublicKey, id []byte) bool {
	sum := sha256.Sum256(key)
	return len(key) > 0 && bytes.Equal(sum[:4], id)
}

func opens(key ed25519.PublicKey, word string, body, sig []byte) bool {
	return ed25519.Verify(key, append([]byte(word), body...), sig)
}

// sure decodes base64 and compares by writing it again.
func sure(text string, length int) ([]byte, bool) {
	raw, err := base64.StdEncoding.DecodeString(text)
	return raw, err == nil && len(raw) == length && base64.StdEncoding.EncodeToString(raw) == text
}

func at(raw []byte, offset int) int64 { return int64(binary.BigEndian.Uint32(raw[offset:])) }

func (r reader) signed(text string) string {
	raw, ok := sure(text, 244)
	if !ok {
		return "MALFORMED"
	}
	for offset, want := range map[int]string{
		0: "850543505630316181EA4F07F059555041590150055955504159" + "6381D7" + "C18180", 160: "C204", 166: "C304", 172: "C404", 178: "DE40",
	} {
		fixed, _ := hex.DecodeString(want)
		if !bytes.HasPrefix(raw[offset:], fixed) {
			return "MALFORMED"
		}
	}
	cert := raw[32:160]
	switch {
	case cert[0] != 1 || cert[1] < 1 || cert[1] > 4 || at(raw, 174) == 0:
		return "MALFORMED"
	case !hasID(r.issuer, cert[4:8]):
		return "UNKNOWN_ISSUER"
	case !opens(r.issuer, "yupay-cert-v1", cert[:64], cert[64:]):
		return "CERT_FORGED"
	case r.now < at(cert, 48):
		return "CERT_NOT_YET_VALID"
	case r.now > at(cert, 52):
		return "CERT_EXPIRED"
	case at(cert, 52)-at(cert, 48) > 259200:
		return "CERT_TOO_LONG"
	case !opens(cert[16:48], "yupay-code-v1", raw[29:178], raw[180:]):
		return "CODE_FORGED"
	case at(raw, 168) > r.now+30:
		return "CODE_FROM_FUTURE"
	case at(raw, 168) < r.now-60:
		return "CODE_EXPIRED"
	}
	return ""
}

func (r reader) receipt(text string) string {
	raw, ok := sure(text, 165)
	head, _ := hex.DecodeString("8505435056303161819B4F07F059555041590250055955504159" + "638188" + "C144" + "01000000")
	if !ok || !bytes.HasPrefix(raw, head) || raw[99] != 0xDE || raw[100] != 0x40 {
		return "MALFORMED"
	}
	body := raw[31:99]
	switch {
	case !regexp.MustCompile(`^[0-9]{8}$`).Match(body[24:32]) || at(body, 32) < 1 || at(body, 36) > at(body, 32):
		return "MALFORMED"
	case !hasID(r.ledger, body[4:8]):
		return "UNKNOWN_LEDGER_KEY"
	case !opens(r.ledger, "yupay-receipt-v1", body, raw[101:]):
		return "RECEIPT_FORGED"
	}
	return ""
}

// orderForm is ORDER as one pattern: lengths that vary are checked behind it.
var orderForm = regexp.MustCompile(`^(00020101021226400005yupay0115[0-9]{15}0208[0-9]{8}5204[0-9]{4}530315654([0-9]{2})((?:0|[1-9][0-9]{0,7})\.[0-9]{2})` +
	`5802CN59([0-9]{2})([ -~]{1,25})6009CHONGQING80530005yupay0126[0-7][0-9A-HJKMNP-TV-Z]{25}0210([0-9]{10}))` +
	`81990005yupay0186([0-9A-Za-z_-]{86})6304([0-9A-F]{4})$`)

func (r reader) order(text string) string {
	m := orderForm.FindStringSubmatch(text)
	if m == nil || m[2] != fmt.Sprintf("%02d", len(m[3])) || m[4] != fmt.Sprintf("%02d", len(m[5])) || m[8] != crcOf(text[:len(text)-4]) {
		return "MALFORMED"
	}
	var fen, expires int64
	for _, d := range strings.Replace(m[3], ".", "", 1) {
		fen = fen*10 + int64(d-'0')
	}
	for _, d := range m[6] {
		expires = expires*10 + int64(d-'0')
	}
	signature, err := base64.RawURLEncoding.DecodeString(m[7])
	switch {
	case fen < 1 || fen > 4294967295 || expires > 4294967295 || err != nil || base64.RawURLEncoding.EncodeToString(signature) != m[7]:
		return "MALFORMED"
	case r.terminal == nil:
		return "UNKNOWN_TERMINAL"
	case !opens(r.terminal, "yupay-order-v1", []byte(m[1]), signature):
		return "ORDER_FORGED"
	case r.now > expires:
		return "ORDER_EXPIRED"
	case expires > r.now+600:
		return "ORDER_EXPIRY_TOO_FAR"
	}
	return ""
}

func (r reader) judge(kind, text string) string {
	switch kind {
	case "SIGNED":
		return r.signed(text)
	case "RECEIPT":
		return r.receipt(text)
	case "ORDER":
		return r.order(text)
	case "ONLINE":
		if !regexp.MustCompile(`^86[0-9]{16}$`).MatchString(text) || walletLuhn(text[:17]) != text[17:] {
			return "MALFORMED"
		}
		return ""
	case "MALFORMED":
		return "MALFORMED"
	}
	return "FOREIGN_CODE"
}

func keysOf(r reader) paycode.InspectKeys {
	return paycode.InspectKeys{Issuer: []ed25519.PublicKey{r.issuer}, Ledger: []ed25519.PublicKey{r.ledger}, Terminal: []ed25519.PublicKey{r.terminal}}
}

func TestAReaderWrittenFromTheFormatNamesEveryVectorAlike(t *testing.T) {
	raw, err := os.ReadFile("testdata/codes.json")
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Keys    map[string]string
		Vectors []struct {
			Name, Kind, Text, Verdict string
			Now                       int64
		}
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		t.Fatal(err)
	}
	public := func(name string) ed25519.PublicKey {
		b, err := hex.DecodeString(f.Keys[name])
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	r := reader{issuer: public("issuer_public"), ledger: public("ledger_public"), terminal: public("terminal_public")}
	for _, v := range f.Vectors {
		r.now = v.Now
		if got := r.judge(v.Kind, v.Text); got != strings.TrimPrefix(v.Verdict, "OK") {
			t.Errorf("%s: %q, want %s", v.Name, got, v.Verdict)
		}
	}
}

// spoil changes a text as a careless wallet, a bad scanner or a forger would.
func spoil(rng *rand.Rand, text string) string {
	b := []byte(text)
	i := rng.IntN(len(b))
	switch rng.IntN(7) {
	case 0:
		b[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_ \r\n"[rng.IntN(70)]
	case 1:
		b = append(b[:i], b[i+1:]...)
	case 2:
		b = append(b[:i], append([]byte{b[i]}, b[i:]...)...)
	case 3:
		b = b[:i]
	case 4:
		b = append(b, " \n\x00=0"[rng.IntN(5)])
	case 5: // one bit of the bytes under the base64
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			b[i] ^= 1
			break
		}
		raw[rng.IntN(len(raw))] ^= 1 << rng.IntN(8)
		b = []byte(base64.StdEncoding.EncodeToString(raw))
	case 6: // and of an ORDER, its checksum mended
		if strings.HasPrefix(text, "0002") && i < len(b)-8 {
			b[i] = "0123456789ABCDEFyupa."[rng.IntN(21)]
			b = append(b[:len(b)-4], crcOf(string(b[:len(b)-4]))...)
		}
	}
	return string(b)
}

func TestTwoReadersOfOneFormatNeverDisagree(t *testing.T) {
	rounds := 1_500
	if os.Getenv("YUPOS_FULL") != "" {
		rounds = 60_000
	}
	rng := rand.New(rand.NewPCG(4, 20261123))
	reasons := map[string]int{}
	edge := func(around int64) uint64 { return uint64(around + int64(rng.IntN(3)) - 1) }
	for range rounds {
		v := drawnValues(rng)
		r := reader{issuer: seedKey("issuer").Public().(ed25519.PublicKey), ledger: seedKey("issuer").Public().(ed25519.PublicKey), terminal: seedKey("issuer").Public().(ed25519.PublicKey), now: second}
		switch rng.IntN(12) { // on both sides of every boundary
		case 0:
			v.created = edge(second + 30)
		case 1:
			v.created = edge(second - 60)
		case 2:
			v.notBefore = edge(second)
		case 3:
			v.notAfter = edge(second)
		case 4:
			v.notAfter = edge(int64(v.notBefore) + 259200)
		case 5:
			v.tier, v.version = byte(rng.IntN(6)), byte(rng.IntN(3))
		case 6:
			v.most = uint64(rng.IntN(2))
		case 7:
			v.issuer = seedKey("rogue")
		case 8:
			v.created, v.notBefore, v.notAfter = uint64(rng.Uint32()), uint64(rng.Uint32()), uint64(rng.Uint32())
		}
		expires := []uint64{v.notAfter % 1e10, edge(second), edge(second + 600)}[rng.IntN(3)]
		for kind, text := range map[string]string{
			"SIGNED":  walletSigned(v),
			"RECEIPT": walletReceipt(v.issuer, v.order, v.terminal, v.payment, v.most, v.most+uint64(rng.IntN(3))-1, v.created, v.token),
			"ORDER":   terminalOrder(v.issuer, v.merchant, v.terminal, v.category, v.n, v.order, v.most, expires),
		} {
			if rng.IntN(2) == 0 {
				text = spoil(rng, text)
			}
			in := paycode.Inspect(text, keysOf(r), time.Unix(r.now, 0))
			if want := r.judge(string(in.Kind), text); string(in.Reason) != want {
				t.Fatalf("%s %q: the package says %s %q, FORMAT.md %q", kind, text, in.Kind, in.Reason, want)
			}
			reasons[string(in.Reason)]++
		}
	}
	t.Log(reasons)
	for _, name := range []string{
		"", "MALFORMED", "UNKNOWN_ISSUER", "CERT_FORGED", "CERT_NOT_YET_VALID", "CERT_EXPIRED", "CERT_TOO_LONG", "CODE_FORGED", "CODE_FROM_FUTURE",
		"CODE_EXPIRED", "ORDER_FORGED", "ORDER_EXPIRED", "ORDER_EXPIRY_TOO_FAR", "UNKNOWN_LEDGER_KEY", "RECEIPT_FORGED", "FOREIGN_CODE",
	} {
		if reasons[name] == 0 {
			t.Errorf("no code was judged %q: the test has lost its reach", name)
		}
	}
}

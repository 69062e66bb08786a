package ledgersim

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"

	"yupos/ledgercache/money"
)

// This file is the ledger's own reading of codes.md. It shares no code with the terminal's, so that a mistake of one is
// seen by the other.

// signedCode is what a SIGNED code says, once it is verified.
type signedCode struct {
	token   string // hex of the certificate's wallet token
	wallet  []byte // public key
	counter uint32
	most    money.Fen

	created     int64 // Unix seconds
	from, until int64 // of the certificate
	maxCount    uint16
	single      money.Fen // most in one offline payment
	allowance   money.Fen
	forged      bool // the wallet's signature is false
}

// The places of a SIGNED code's fields in its 244 bytes.
const (
	signedBytes = 244
	atCert      = 32
	atCounter   = 162
	atCreated   = 168
	atMost      = 174
	atSignature = 180
	atTemplate  = 29 // first byte of template 63's value
)

func u32(b []byte, at int) uint32 { return binary.BigEndian.Uint32(b[at:]) }

// openSigned verifies the signatures of a SIGNED code by the ledger's issuer key, and answers what it says or why it is
// refused. Whether it is in time is another question. once lets a certificate that was verified before pass.
func openSigned(text string, issuer ed25519.PublicKey, once func(cert []byte, verify func() bool) bool) (signedCode, string) {
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != signedBytes || base64.StdEncoding.EncodeToString(raw) != text {
		return signedCode{}, "MALFORMED"
	}
	frame := "8505435056303161" + "81ea" + "4f07f0595550415901" + "50055955504159" + "6381d7" + "c18180"
	if hex.EncodeToString(raw[:atCert]) != frame || raw[160] != 0xC2 || raw[161] != 4 || raw[166] != 0xC3 || raw[167] != 4 ||
		raw[172] != 0xC4 || raw[173] != 4 || raw[178] != 0xDE || raw[179] != 64 {
		return signedCode{}, "MALFORMED"
	}
	cert := raw[atCert : atCert+128]
	if cert[0] != 1 || cert[1] < 1 || cert[1] > 4 || u32(raw, atMost) == 0 {
		return signedCode{}, "MALFORMED"
	}
	if id := sha256.Sum256(issuer); u32(cert, 4) != u32(id[:], 0) {
		return signedCode{}, "UNKNOWN_ISSUER"
	}
	if !once(cert, func() bool { return ed25519.Verify(issuer, append([]byte("yupay-cert-v1"), cert[:64]...), cert[64:]) }) {
		return signedCode{}, "CERT_FORGED"
	}
	wallet := cert[16:48]
	forged := !ed25519.Verify(wallet, append([]byte("yupay-code-v1"), raw[atTemplate:atSignature-2]...), raw[atSignature:])
	s := signedCode{
		token: hex.EncodeToString(cert[8:16]), wallet: wallet, counter: u32(raw, atCounter), most: money.Fen(u32(raw, atMost)),
		created: int64(u32(raw, atCreated)), from: int64(u32(cert, 48)), until: int64(u32(cert, 52)),
		maxCount: binary.BigEndian.Uint16(cert[2:]), single: money.Fen(u32(cert, 56)), allowance: money.Fen(u32(cert, 60)), forged: forged,
	}
	return s, ""
}

// judgeTime says why a code is refused at a time that is known up to a bound, "" if it is not. That the wallet's signature
// is false comes between the certificate's life and the code's.
func (s signedCode) judgeTime(now time.Time, bound time.Duration) string {
	second, slack := now.Unix(), int64(bound/time.Second)
	switch {
	case second < s.from:
		return "CERT_NOT_YET_VALID"
	case second > s.until:
		return "CERT_EXPIRED"
	case s.until-s.from > 72*3600:
		return "CERT_TOO_LONG"
	case s.forged:
		return "CODE_FORGED"
	case s.created > second+30+slack:
		return "CODE_FROM_FUTURE"
	case s.created < second-60-slack:
		return "CODE_EXPIRED"
	}
	return ""
}

// readSigned verifies a SIGNED code by the ledger's issuer key at the time, and answers what it says or why it is refused.
func readSigned(text string, issuer ed25519.PublicKey, now time.Time) (signedCode, string) {
	s, no := openSigned(text, issuer, func(_ []byte, verify func() bool) bool { return verify() })
	if no == "" {
		no = s.judgeTime(now, 0)
	}
	return s, no
}

// order is what an ORDER says.
type order struct {
	merchantID, terminalID, mcc, name, number string
	fen                                       money.Fen
	expires                                   int64
	signed                                    []byte // what the signature covers
	signature                                 []byte
}

// readOrder takes an ORDER apart: exactly the ids of codes.md, once each, in their order, the checksum right.
func readOrder(text string) (o order, ok bool) {
	f := fields{rest: text, ok: true}
	head := f.next("00") == "01" && f.next("01") == "12"
	shop := fields{rest: f.next("26"), ok: true}
	yupay := shop.next("00") == "yupay"
	o.merchantID, o.terminalID = shop.next("01"), shop.next("02")
	o.mcc = f.next("52")
	currency := f.next("53") == "156"
	amount := f.next("54")
	country := f.next("58") == "CN"
	o.name = f.next("59")
	city := f.next("60") == "CHONGQING"
	body := fields{rest: f.next("80"), ok: true}
	yupay = yupay && body.next("00") == "yupay"
	o.number = body.next("01")
	expires := body.next("02")
	o.signed = []byte(text[:len(text)-len(f.rest)])
	seal := fields{rest: f.next("81"), ok: true}
	yupay = yupay && seal.next("00") == "yupay"
	signature := seal.next("01")
	sum := f.next("63")
	for _, part := range []fields{f, shop, body, seal} {
		if !part.ok || part.rest != "" {
			return o, false
		}
	}
	if !head || !yupay || !currency || !country || !city || len(o.name) < 1 || len(o.name) > 25 ||
		!digits(o.merchantID, 15) || !digits(o.terminalID, 8) || !digits(o.mcc, 4) || !digits(expires, 10) || len(o.number) != 26 {
		return o, false
	}
	if sum != fmt.Sprintf("%04X", crc16(text[:len(text)-4])) {
		return o, false
	}
	fen, err := money.ParseYuan(amount)
	if err != nil || fen.Yuan() != amount {
		return o, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(signature)
	if err != nil || len(raw) != ed25519.SignatureSize || base64.RawURLEncoding.EncodeToString(raw) != signature {
		return o, false
	}
	o.fen, o.signature = fen, raw
	o.expires, err = strconv.ParseInt(expires, 10, 64)
	return o, err == nil
}

// verified reports whether the terminal's key signed the order.
func (o order) verified(terminal ed25519.PublicKey) bool {
	return ed25519.Verify(terminal, append([]byte("yupay-order-v1"), o.signed...), o.signature)
}

// fields walks id-length-value triples, whose lengths here are bytes: our own codes are ASCII.
type fields struct {
	rest string
	ok   bool
}

// next takes the field with this id, or makes the walk fail.
func (f *fields) next(id string) string {
	if !f.ok || len(f.rest) < 4 || f.rest[:2] != id || !digits(f.rest[2:4], 2) {
		f.ok = false
		return ""
	}
	n, _ := strconv.Atoi(f.rest[2:4])
	if len(f.rest) < 4+n {
		f.ok = false
		return ""
	}
	v := f.rest[4 : 4+n]
	f.rest = f.rest[4+n:]
	return v
}

func digits(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// crc16 is CRC-16/CCITT-FALSE: polynomial 1021, initial value FFFF, no reflection.
func crc16(s string) uint16 {
	crc := uint16(0xFFFF)
	for i := range len(s) {
		crc ^= uint16(s[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}

package paycode

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"yupos/ledgercache/money"
)

// The limits of a SIGNED code, in seconds. They are policy of the formats, never hours of tolerance.
const (
	CodeLifeSeconds = 60           // a code older than this has expired
	CodeSkewSeconds = 30           // a phone's clock may be this far ahead
	CertLifeSeconds = 72 * 60 * 60 // the longest life of a wallet certificate
)

const (
	certBodyLength  = 64
	certLength      = certBodyLength + ed25519.SignatureSize
	signedLength    = 244
	signedText      = 328
	signedTemplate  = 29  // where the value of template 63 begins
	signedCert      = 32  // the certificate inside it
	signedSignature = 180 // behind tag DE and its length
)

// signedPicture is a SIGNED code with every field value zero. A code is well-formed only if all other bytes equal it.
var signedPicture = picture(
	"\x85\x05CPV01", "\x61\x81\xEA", "\x4F\x07\xF0YUPAY\x01", "\x50\x05YUPAY", "\x63\x81\xD7",
	"\xC1\x81\x80", strings.Repeat("\x00", certLength), "\xC2\x04\x00\x00\x00\x00", "\xC3\x04\x00\x00\x00\x00",
	"\xC4\x04\x00\x00\x00\x00", "\xDE\x40", strings.Repeat("\x00", ed25519.SignatureSize))

// signedFields are the [from, to) ranges of signedPicture that hold field values.
var signedFields = [][2]int{{32, 160}, {162, 166}, {168, 172}, {174, 178}, {180, 244}}

func picture(parts ...string) []byte { return []byte(strings.Join(parts, "")) }

// fits says whether raw equals the picture everywhere outside the fields.
func fits(raw, picture []byte, fields [][2]int) bool {
	if len(raw) != len(picture) {
		return false
	}
	at := 0
	for _, f := range fields {
		if !bytes.Equal(raw[at:f[0]], picture[at:f[0]]) {
			return false
		}
		at = f[1]
	}
	return bytes.Equal(raw[at:], picture[at:])
}

// decodeCanonical decodes base64 of exactly length characters, and refuses a text that encoding the bytes would not give
// again: spare bits, line ends, other alphabets.
func decodeCanonical(enc *base64.Encoding, text string, length int) ([]byte, bool) {
	if len(text) != length {
		return nil, false
	}
	raw, err := enc.DecodeString(text)
	if err != nil || enc.EncodeToString(raw) != text {
		return nil, false
	}
	return raw, true
}

// Cert is a wallet certificate: what the issuer says about one wallet key. Amounts are in fen, times Unix seconds.
type Cert struct {
	Version, Tier               uint8
	MaxCount                    uint16 // most offline payments under this certificate
	IssuerKeyID                 uint32 // a hint, never a key
	Token                       [8]byte
	WalletKey                   ed25519.PublicKey
	NotBefore, NotAfter         uint32
	PerPaymentFen, AllowanceFen money.Fen
	Raw                         []byte // the 128 bytes as they stood in the code
	Signature                   []byte // the last 64 of them
}

// MakeCert signs a wallet certificate and returns its 128 bytes. Version 0 means 1; the issuer key id is that of issuer,
// whatever c says. A certificate that no terminal would take is refused with [ErrField].
func MakeCert(c Cert, issuer ed25519.PrivateKey) ([]byte, error) {
	if c.Version == 0 {
		c.Version = 1
	}
	pub, err := publicOf(issuer)
	if err != nil {
		return nil, fmt.Errorf("wallet certificate: %w", err)
	}
	switch {
	case c.Version != 1:
		return nil, badField("version")
	case c.Tier < 1 || c.Tier > 4:
		return nil, badField("tier")
	case len(c.WalletKey) != ed25519.PublicKeySize:
		return nil, badField("wallet key")
	case c.NotAfter < c.NotBefore || int64(c.NotAfter)-int64(c.NotBefore) > CertLifeSeconds:
		return nil, badField("life of the certificate")
	case !fitsUint32(c.PerPaymentFen) || !fitsUint32(c.AllowanceFen):
		return nil, badField("amount")
	}
	b := make([]byte, 0, certLength)
	b = append(b, c.Version, c.Tier)
	b = binary.BigEndian.AppendUint16(b, c.MaxCount)
	b = binary.BigEndian.AppendUint32(b, KeyID(pub))
	b = append(append(b, c.Token[:]...), c.WalletKey...)
	for _, v := range []uint32{c.NotBefore, c.NotAfter, uint32(c.PerPaymentFen), uint32(c.AllowanceFen)} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	sig, err := signed(issuer, certPrefix, b)
	return append(b, sig...), err
}

func fitsUint32(f money.Fen) bool { return f >= 0 && f <= money.Max }

// ParseCert reads the 128 bytes of a wallet certificate. It checks structure, version and tier, not the signature.
func ParseCert(raw []byte) (Cert, Reason) {
	if len(raw) != certLength || raw[0] != 1 || raw[1] < 1 || raw[1] > 4 {
		return Cert{}, Malformed
	}
	raw = bytes.Clone(raw)
	u32 := binary.BigEndian.Uint32
	return Cert{
		Version: raw[0], Tier: raw[1], MaxCount: binary.BigEndian.Uint16(raw[2:]), IssuerKeyID: u32(raw[4:]),
		Token: [8]byte(raw[8:16]), WalletKey: ed25519.PublicKey(raw[16:48]),
		NotBefore: u32(raw[48:]), NotAfter: u32(raw[52:]),
		PerPaymentFen: money.Fen(u32(raw[56:])), AllowanceFen: money.Fen(u32(raw[60:])),
		Raw: raw, Signature: raw[certBodyLength:],
	}, OK
}

// Verify judges the certificate alone: [UnknownIssuer], [CertForged], [CertNotYetValid], [CertExpired], [CertTooLong].
// Now counts in whole seconds; there is no skew.
func (c Cert) Verify(issuers Keys, now time.Time) Reason {
	unix := now.Unix()
	keys := issuers.withID(c.IssuerKeyID, unix)
	if len(keys) == 0 {
		return UnknownIssuer
	}
	if len(c.Raw) != certLength || !verifiedByAny(keys, certPrefix, c.Raw[:certBodyLength], c.Raw[certBodyLength:]) {
		return CertForged
	}
	switch {
	case unix < int64(c.NotBefore):
		return CertNotYetValid
	case unix > int64(c.NotAfter):
		return CertExpired
	case int64(c.NotAfter)-int64(c.NotBefore) > CertLifeSeconds:
		return CertTooLong
	}
	return OK
}

// Signed is a parsed SIGNED code. Parsing proves nothing; only [Signed.Verify] does.
type Signed struct {
	Cert             Cert
	Counter, Created uint32    // strictly rising per wallet key; Unix seconds
	MostFen          money.Fen // what this code may pay at most, 1 or more
	Raw              []byte    // the 244 bytes
}

// ParseSigned reads the text of a SIGNED code: [OK] or [Malformed] (step 1 of its judgement).
func ParseSigned(text string) (Signed, Reason) {
	raw, ok := decodeCanonical(base64.StdEncoding, text, signedText)
	if !ok || !fits(raw, signedPicture, signedFields) {
		return Signed{}, Malformed
	}
	cert, reason := ParseCert(raw[signedCert : signedCert+certLength])
	if reason != OK {
		return Signed{}, reason
	}
	u32 := binary.BigEndian.Uint32
	s := Signed{Cert: cert, Counter: u32(raw[162:]), Created: u32(raw[168:]), MostFen: money.Fen(u32(raw[174:])), Raw: raw}
	if s.MostFen < 1 {
		return Signed{}, Malformed
	}
	return s, OK
}

// Verify carries out steps 2 to 6 of the judgement with the pinned issuer keys and the time of the scan, in whole seconds.
// Steps 7 to 9 (replay, deny list, limits) belong to the book.
func (s Signed) Verify(issuers Keys, now time.Time) Reason {
	return s.VerifyWithin(issuers, now, CodeLifeSeconds, CodeSkewSeconds)
}

// VerifyWithin is Verify with the window of a policy, in seconds. A policy can only make the window smaller.
func (s Signed) VerifyWithin(issuers Keys, now time.Time, life, skew int) Reason {
	if len(s.Raw) != signedLength {
		return Malformed
	}
	if reason := s.Cert.Verify(issuers, now); reason != OK {
		return reason
	}
	if !verified(s.Cert.WalletKey, codePrefix, s.Raw[signedTemplate:signedSignature-2], s.Raw[signedSignature:]) {
		return CodeForged
	}
	switch unix := now.Unix(); {
	case int64(s.Created) > unix+int64(min(skew, CodeSkewSeconds)):
		return CodeFromFuture
	case int64(s.Created) < unix-int64(min(life, CodeLifeSeconds)):
		return CodeExpired
	}
	return OK
}

// MakeSigned makes the text of a SIGNED code from a 128-byte certificate and the wallet key that the certificate names.
func MakeSigned(cert []byte, counter, created uint32, most money.Fen, wallet ed25519.PrivateKey) (string, error) {
	c, reason := ParseCert(cert)
	if reason != OK {
		return "", badField("certificate")
	}
	pub, err := publicOf(wallet)
	if err != nil {
		return "", fmt.Errorf("signed code: %w", err)
	}
	if !bytes.Equal(pub, c.WalletKey) {
		return "", badField("wallet key")
	}
	if err := most.CheckPayable(); err != nil {
		return "", fmt.Errorf("signed code: %w", err)
	}
	raw := bytes.Clone(signedPicture)
	copy(raw[signedCert:], cert)
	binary.BigEndian.PutUint32(raw[162:], counter)
	binary.BigEndian.PutUint32(raw[168:], created)
	binary.BigEndian.PutUint32(raw[174:], uint32(most))
	sig, err := signed(wallet, codePrefix, raw[signedTemplate:signedSignature-2])
	if err != nil {
		return "", fmt.Errorf("signed code: %w", err)
	}
	copy(raw[signedSignature:], sig)
	return base64.StdEncoding.EncodeToString(raw), nil
}

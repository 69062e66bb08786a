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

const (
	receiptLength     = 165
	receiptText       = 220
	receiptBody       = 31 // where the 68-byte body begins
	receiptBodyLength = 68
	receiptSignature  = 101
)

// receiptPicture is a RECEIPT code with every field value zero; the version and the three zero bytes belong to it.
var receiptPicture = picture(
	"\x85\x05CPV01", "\x61\x81\x9B", "\x4F\x07\xF0YUPAY\x02", "\x50\x05YUPAY", "\x63\x81\x88",
	"\xC1\x44", "\x01\x00\x00\x00", strings.Repeat("\x00", receiptBodyLength-4),
	"\xDE\x40", strings.Repeat("\x00", ed25519.SignatureSize))

var receiptFields = [][2]int{{receiptBody + 4, receiptBody + receiptBodyLength}, {receiptSignature, receiptLength}}

// Receipt is the ledger's word that an order was paid. Amounts are in fen, times Unix seconds, identifiers ULIDs in text.
type Receipt struct {
	LedgerKeyID        uint32 // a hint, never a key; set by MakeReceipt
	Order, TerminalID  string
	AmountFen, PaidFen money.Fen // the order's amount; what the customer paid after discounts (≤ amount)
	PaidAt             uint32
	Token              [8]byte
	Payment            string
}

// MakeReceipt makes the text of a RECEIPT code with the ledger's receipt key.
func MakeReceipt(r Receipt, ledger ed25519.PrivateKey) (string, error) {
	pub, err := publicOf(ledger)
	if err != nil {
		return "", fmt.Errorf("receipt code: %w", err)
	}
	order, okOrder := ParseULID(r.Order)
	payment, okPayment := ParseULID(r.Payment)
	switch {
	case !okOrder:
		return "", badField("order")
	case !okPayment:
		return "", badField("payment")
	case !isTerminalID(r.TerminalID):
		return "", badField("terminal id")
	case r.AmountFen.CheckPayable() != nil:
		return "", badField("amount")
	case r.PaidFen < 0 || r.PaidFen > r.AmountFen:
		return "", badField("paid amount")
	}
	raw := bytes.Clone(receiptPicture)
	body := raw[receiptBody : receiptBody+receiptBodyLength]
	binary.BigEndian.PutUint32(body[4:], KeyID(pub))
	copy(body[8:], order[:])
	copy(body[24:], r.TerminalID)
	binary.BigEndian.PutUint32(body[32:], uint32(r.AmountFen))
	binary.BigEndian.PutUint32(body[36:], uint32(r.PaidFen))
	binary.BigEndian.PutUint32(body[40:], r.PaidAt)
	copy(body[44:], r.Token[:])
	copy(body[52:], payment[:])
	sig, err := signed(ledger, receiptPrefix, body)
	if err != nil {
		return "", fmt.Errorf("receipt code: %w", err)
	}
	copy(raw[receiptSignature:], sig)
	return base64.StdEncoding.EncodeToString(raw), nil
}

// ParseReceipt reads the text of a RECEIPT code: [OK] or [Malformed]. Parsing proves nothing.
func ParseReceipt(text string) (Receipt, Reason) {
	r, _, reason := parseReceipt(text)
	return r, reason
}

func parseReceipt(text string) (Receipt, []byte, Reason) {
	raw, ok := decodeCanonical(base64.StdEncoding, text, receiptText)
	if !ok || !fits(raw, receiptPicture, receiptFields) {
		return Receipt{}, nil, Malformed
	}
	body := raw[receiptBody : receiptBody+receiptBodyLength]
	u32 := binary.BigEndian.Uint32
	r := Receipt{
		LedgerKeyID: u32(body[4:]), Order: FormatULID([16]byte(body[8:24])), TerminalID: string(body[24:32]),
		AmountFen: money.Fen(u32(body[32:])), PaidFen: money.Fen(u32(body[36:])), PaidAt: u32(body[40:]),
		Token: [8]byte(body[44:52]), Payment: FormatULID([16]byte(body[52:68])),
	}
	if !isTerminalID(r.TerminalID) || r.AmountFen < 1 || r.PaidFen > r.AmountFen {
		return Receipt{}, nil, Malformed
	}
	return r, raw, OK
}

// VerifyReceipt judges a RECEIPT code by the pinned receipt keys: [Malformed], [UnknownLedgerKey], [ReceiptForged]. Whether
// it is about an order of this terminal is for [Receipt.Match].
func VerifyReceipt(text string, ledger Keys, now time.Time) (Receipt, Reason) {
	r, raw, reason := parseReceipt(text)
	if reason != OK {
		return Receipt{}, reason
	}
	keys := ledger.withID(r.LedgerKeyID, now.Unix())
	if len(keys) == 0 {
		return r, UnknownLedgerKey
	}
	if !verifiedByAny(keys, receiptPrefix, raw[receiptBody:receiptBody+receiptBodyLength], raw[receiptSignature:]) {
		return r, ReceiptForged
	}
	return r, OK
}

// Match judges an authentic receipt against one order of the terminal's own: [NotMyOrder], [AmountMismatch],
// [PaidAfterExpiry]. expires is the latest expiry under which the order was ever shown, in Unix seconds.
func (r Receipt) Match(terminalID, order string, amount money.Fen, expires uint32) Reason {
	switch {
	case r.TerminalID != terminalID || r.Order != order:
		return NotMyOrder
	case r.AmountFen != amount:
		return AmountMismatch
	case r.PaidAt > expires:
		return PaidAfterExpiry
	}
	return OK
}

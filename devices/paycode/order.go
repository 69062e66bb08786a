package paycode

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"time"

	"yupos/ledgercache/money"
)

// OrderLifeSeconds is how far ahead of now the expiry of an ORDER may lie.
const OrderLifeSeconds = 600

const (
	yupayGUID           = "yupay"
	orderSignatureText  = 86
	merchantNameMaximum = 25
)

// Order is what an ORDER code says. The wallet shows the ledger's name of the merchant, never MerchantName.
type Order struct {
	MerchantID, TerminalID string // 15 and 8 digits
	MCC                    string // 4 digits
	MerchantName           string // 1 to 25 printable ASCII characters
	ULID                   string
	AmountFen              money.Fen // 1 to money.Max
	Expires                uint32    // Unix seconds; exactly ten digits in the text
}

// MakeOrder makes the text of an ORDER code with the terminal's key: at most 302 characters, all printable ASCII.
func MakeOrder(o Order, terminal ed25519.PrivateKey) (string, error) {
	if field := o.fault(); field != "" {
		return "", badField(field)
	}
	text := o.unsigned()
	sig, err := signed(terminal, orderPrefix, text)
	if err != nil {
		return "", fmt.Errorf("order code: %w", err)
	}
	return o.finish(text, base64.RawURLEncoding.EncodeToString(sig)), nil
}

// fault names the first field that cannot stand in an ORDER, or returns "".
func (o Order) fault() string {
	_, okULID := ParseULID(o.ULID)
	switch {
	case len(o.MerchantID) != 15 || !allDigits(o.MerchantID):
		return "merchant id"
	case !isTerminalID(o.TerminalID):
		return "terminal id"
	case len(o.MCC) != 4 || !allDigits(o.MCC):
		return "merchant category code"
	case o.MerchantName == "" || len(o.MerchantName) > merchantNameMaximum || printable(o.MerchantName, 99) != o.MerchantName:
		return "merchant name"
	case !okULID:
		return "order"
	case o.AmountFen.CheckPayable() != nil:
		return "amount"
	}
	return ""
}

// unsigned writes everything before id 81: the bytes that the terminal signs.
func (o Order) unsigned() []byte {
	account := appendField(nil, "00", yupayGUID)
	account = appendField(account, "01", o.MerchantID)
	account = appendField(account, "02", o.TerminalID)
	order := appendField(nil, "00", yupayGUID)
	order = appendField(order, "01", o.ULID)
	order = appendField(order, "02", fmt.Sprintf("%010d", o.Expires))

	b := appendField(make([]byte, 0, 304), "00", "01")
	b = appendField(b, "01", "12")
	b = appendField(b, "26", string(account))
	b = appendField(b, "52", o.MCC)
	b = appendField(b, "53", "156")
	b = appendField(b, "54", o.AmountFen.Yuan())
	b = appendField(b, "58", "CN")
	b = appendField(b, "59", o.MerchantName)
	b = appendField(b, "60", "CHONGQING")
	return appendField(b, "80", string(order))
}

// finish adds the signature and the checksum.
func (o Order) finish(text []byte, signature string) string {
	sig := appendField(nil, "00", yupayGUID)
	sig = appendField(sig, "01", signature)
	text = append(appendField(text, "81", string(sig)), "6304"...)
	return fmt.Sprintf("%s%04X", text, crc16(text))
}

// ParseOrder reads the text of an ORDER code: [OK] or [Malformed]. Parsing proves nothing.
func ParseOrder(text string) (Order, Reason) {
	o, _, reason := parseOrder(text)
	return o, reason
}

// parseOrder also returns the signature. It finds the values by walking the fields, writes them again, and takes the text
// only if that gives the same text: so no field can be added, repeated, moved or spelled otherwise.
func parseOrder(text string) (Order, []byte, Reason) {
	values, ok := orderValues(text)
	if !ok {
		return Order{}, nil, Malformed
	}
	amount, okAmount := parseAmount(values["54"])
	expires, err := strconv.ParseUint(values["8002"], 10, 32)
	signature, okSignature := decodeCanonical(base64.RawURLEncoding, values["8101"], orderSignatureText)
	o := Order{
		MerchantID: values["2601"], TerminalID: values["2602"], MCC: values["52"], MerchantName: values["59"],
		ULID: values["8001"], AmountFen: amount, Expires: uint32(expires),
	}
	if !okAmount || err != nil || !okSignature || o.fault() != "" {
		return Order{}, nil, Malformed
	}
	if o.finish(o.unsigned(), values["8101"]) != text {
		return Order{}, nil, Malformed
	}
	return o, signature, OK
}

// orderValues collects the values of a text by id, those of templates by both ids. Repeated ids are harmless here: the
// rewritten text would differ.
func orderValues(text string) (map[string]string, bool) {
	fields, err := splitFields(text)
	if err != nil {
		return nil, false
	}
	values := make(map[string]string, 20)
	for _, f := range fields {
		values[f.ID] = f.Value
		if f.ID != "26" && f.ID != "80" && f.ID != "81" {
			continue
		}
		inner, err := splitFields(f.Value)
		if err != nil {
			return nil, false
		}
		for _, in := range inner {
			values[f.ID+in.ID] = in.Value
		}
	}
	return values, true
}

// parseAmount reads id 54: (0|[1-9][0-9]{0,7})\.[0-9]{2}. Other spellings of the same number fall when the text is rewritten.
func parseAmount(text string) (money.Fen, bool) {
	n := len(text)
	if n < 4 || n > 11 || text[n-3] != '.' {
		return 0, false
	}
	fen, err := strconv.ParseUint(text[:n-3]+text[n-2:], 10, 32)
	return money.Fen(fen), err == nil && fen > 0
}

// Terminal is what the ledger knows about an enrolled terminal, as far as an ORDER must agree with it. An empty merchant id
// or category is not compared.
type Terminal struct {
	Key             ed25519.PublicKey
	MerchantID, MCC string
}

// VerifyOrder judges an ORDER code as a wallet does, which knows no more of a terminal than its key: [Malformed],
// [UnknownTerminal], [OrderForged], [OrderExpired], [OrderExpiryTooFar]. ORDER_CONFLICT and ORDER_PAID need a book.
func VerifyOrder(text string, key func(terminalID string) (ed25519.PublicKey, bool), now time.Time) (Order, Reason) {
	return VerifyOrderOf(text, func(terminalID string) (Terminal, bool) {
		pub, ok := key(terminalID)
		return Terminal{Key: pub}, ok
	}, now)
}

// VerifyOrderOf is [VerifyOrder] for the ledger, which also knows whose terminal it is: an ORDER that names another merchant
// or category is [OrderForged], whoever signed it.
func VerifyOrderOf(text string, terminal func(terminalID string) (Terminal, bool), now time.Time) (Order, Reason) {
	return verifyOrder(text, func(terminalID string) []Terminal {
		if t, ok := terminal(terminalID); ok {
			return []Terminal{t}
		}
		return nil
	}, now)
}

func verifyOrder(text string, terminals func(terminalID string) []Terminal, now time.Time) (Order, Reason) {
	o, signature, reason := parseOrder(text)
	if reason != OK {
		return Order{}, reason
	}
	candidates := terminals(o.TerminalID)
	if len(candidates) == 0 {
		return o, UnknownTerminal
	}
	unsigned := o.unsigned()
	made := func(t Terminal) bool {
		return (t.MerchantID == "" || t.MerchantID == o.MerchantID) && (t.MCC == "" || t.MCC == o.MCC) &&
			verified(t.Key, orderPrefix, unsigned, signature)
	}
	if !slices.ContainsFunc(candidates, made) {
		return o, OrderForged
	}
	switch unix := now.Unix(); {
	case unix > int64(o.Expires):
		return o, OrderExpired
	case int64(o.Expires) > unix+OrderLifeSeconds:
		return o, OrderExpiryTooFar
	}
	return o, OK
}

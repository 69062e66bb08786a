package paycode

import (
	"encoding/base64"
	"strings"
)

// Kind names what a text is. The words are part of the formats and never change.
type Kind string

// The kinds. What starts like one of ours and is damaged keeps our kind; only an empty text is KindMalformed.
const (
	KindOnline       Kind = "ONLINE"
	KindSigned       Kind = "SIGNED"
	KindOrder        Kind = "ORDER"
	KindReceipt      Kind = "RECEIPT"
	KindWeChat       Kind = "WECHAT"
	KindAlipay       Kind = "ALIPAY"
	KindUnionPay     Kind = "UNIONPAY"
	KindECNY         Kind = "ECNY"
	KindGoodsBarcode Kind = "GOODS_BARCODE"
	KindOtherEMVCo   Kind = "OTHER_EMVCO"
	KindUnknown      Kind = "UNKNOWN_CODE"
	KindMalformed    Kind = "MALFORMED"
)

var kindWords = map[Kind][2]string{
	KindOnline:       {"这是本钱包的付款码", "This is a pay code of our wallet"},
	KindSigned:       {"这是本钱包的离线付款码", "This is an offline pay code of our wallet"},
	KindOrder:        {"这是收款码，应由顾客来扫", "This is an order code, the customer scans it"},
	KindReceipt:      {"这是付款凭证码", "This is a payment receipt code"},
	KindWeChat:       {"这是微信付款码", "This is a WeChat pay code"},
	KindAlipay:       {"这是支付宝付款码", "This is an Alipay pay code"},
	KindUnionPay:     {"这是银联付款码", "This is a UnionPay pay code"},
	KindECNY:         {"这是数字人民币付款码", "This is an e-CNY pay code"},
	KindGoodsBarcode: {"这是商品条码，不是付款码", "This is a goods barcode, not a pay code"},
	KindOtherEMVCo:   {"这是其他机构的付款码", "This is a pay code of another scheme"},
	KindUnknown:      {"这不是付款码", "This is not a pay code"},
	KindMalformed:    {"没有读到码", "Nothing was read"},
}

// Words says what the code is, for a person, in Chinese and in English.
func (k Kind) Words() (zh, en string) {
	w, ok := kindWords[k]
	if !ok {
		w = kindWords[KindUnknown]
	}
	return w[0], w[1]
}

// Ours says whether the code is one of our four.
func (k Kind) Ours() bool {
	return k == KindOnline || k == KindSigned || k == KindOrder || k == KindReceipt
}

// Classify says what a text is, also when it is damaged. It judges the look only, never validity, and costs at most one
// pass over the text.
func Classify(text string) Kind {
	switch {
	case text == "":
		return KindMalformed
	case len(text) <= maxText && allDigits(text):
		if k := classifyDigits(text); k != KindUnknown {
			return k
		}
	}
	switch {
	case strings.HasPrefix(text, consumerStart):
		return classifyConsumer(text)
	case startsLikeOrder(text):
		return KindOrder
	case strings.HasPrefix(text, "000201"):
		return classifyMerchant(text)
	case strings.HasPrefix(text, onlinePrefix):
		return KindOnline
	}
	return KindUnknown
}

// ClassifyScan is [Classify] for a scanner that also reports the symbology: codes of ours and of other wallets are QR or
// Code 128, so anything in another symbology is a goods barcode. symbology is a name ("EAN-13") or an AIM identifier
// ("]E0"); an empty one says nothing.
func ClassifyScan(text, symbology string) Kind {
	if text == "" || symbology == "" || carriesPayCodes(symbology) {
		return Classify(text)
	}
	return KindGoodsBarcode
}

func carriesPayCodes(symbology string) bool {
	if aim, ok := strings.CutPrefix(symbology, "]"); ok {
		return strings.HasPrefix(aim, "Q") || strings.HasPrefix(aim, "C")
	}
	plain := strings.NewReplacer("-", "", "_", "", " ", "").Replace(strings.ToUpper(symbology))
	return strings.HasPrefix(plain, "QR") || strings.HasPrefix(plain, "CODE128") || plain == "UNKNOWN"
}

// classifyDigits knows the codes that are digits only, by length and prefix. 86 comes last: a goods barcode of a country
// whose numbers begin with 86 has its own length and a check digit that holds.
func classifyDigits(text string) Kind {
	n, prefix := len(text), text[:min(2, len(text))]
	switch {
	case n == 18 && prefix >= "10" && prefix <= "15":
		return KindWeChat
	case n >= 16 && n <= 24 && prefix >= "25" && prefix <= "30":
		return KindAlipay
	case n == 19 && prefix == "62":
		return KindUnionPay
	case n == 19 && prefix == "01":
		return KindECNY
	case (n == 8 || n == 12 || n == 13 || n == 14) && validEAN(text):
		return KindGoodsBarcode
	case prefix == onlinePrefix:
		return KindOnline
	}
	return KindUnknown
}

// validEAN checks the last digit of an EAN-8, UPC-A, EAN-13 or GTIN-14 (GS1 General Specifications §7.9).
func validEAN(text string) bool {
	sum := 0
	for i := range len(text) {
		d := int(text[len(text)-1-i] - '0')
		if i%2 == 1 {
			d *= 3
		}
		sum += d
	}
	return sum%10 == 0
}

// consumerStart is the base64 of 85 05 "CPV01" as far as it does not depend on what follows.
const consumerStart = "hQVDUFYwM"

var (
	signedStart  = base64.StdEncoding.EncodeToString(signedPicture[:30])
	receiptStart = base64.StdEncoding.EncodeToString(receiptPicture[:30])
)

// headLength is how many characters of our consumer-presented codes must be there to know them by their beginning: past
// the application's length and the first three bytes of its id, where SIGNED, RECEIPT and foreign codes have parted.
const headLength = 20

// classifyConsumer tells our consumer-presented codes from foreign ones: by the application id where it can be read, else
// by how the text begins.
func classifyConsumer(text string) Kind {
	if aid, whole := firstAID(text); whole {
		switch string(aid) {
		case string(signedPicture[12:19]):
			return KindSigned
		case string(receiptPicture[12:19]):
			return KindReceipt
		}
	}
	switch {
	case beginsLike(text, signedStart):
		return KindSigned
	case beginsLike(text, receiptStart):
		return KindReceipt
	}
	return KindOtherEMVCo
}

// beginsLike says whether text shares the head of one of our codes, or is itself a cut piece of it.
func beginsLike(text, start string) bool {
	n := min(headLength, len(text))
	return n > len("hQVDUFYwMWGB") && text[:n] == start[:n]
}

// firstAID finds the application id of the first application template in as much of text as is base64. It takes what a
// damaged code still says, and therefore ignores whether lengths fit what is left.
func firstAID(text string) (aid []byte, whole bool) {
	clean := text
	for i := range len(text) {
		if strings.IndexByte("+/", text[i]) < 0 && !isAlphanumeric(text[i]) {
			clean = text[:i]
			break
		}
	}
	raw, err := base64.RawStdEncoding.DecodeString(clean[:len(clean)/4*4])
	for err == nil && len(raw) > 0 && raw[0] != tagApplication {
		_, _, raw, err = nextTLV(raw)
	}
	if err != nil || len(raw) == 0 {
		return nil, false
	}
	inner := openTemplate(raw)
	for len(inner) > 0 {
		o, constructed, rest, err := nextTLV(inner)
		if err != nil {
			return nil, false
		}
		if o.Tag == tagAID && !constructed {
			return o.Value, true
		}
		inner = rest
	}
	return nil, false
}

// openTemplate returns what is there of the value of a template with a one-byte tag, whatever its length claims.
func openTemplate(b []byte) []byte {
	if len(b) < 2 {
		return nil
	}
	n, at := int(b[1]), 2
	if n >= 0x80 {
		more := n & 0x7F
		if more == 0 || more > 3 || len(b) < 2+more {
			return nil
		}
		n = 0
		for _, c := range b[2 : 2+more] {
			n = n<<8 | int(c)
		}
		at += more
	}
	return b[at:min(len(b), at+n)]
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

// orderStart is how every ORDER begins: the lengths of template 26 never vary.
const orderStart = "00020101021226400005yupay0115"

// startsLikeOrder says whether text begins like an ORDER, or is a piece cut from the beginning of one.
func startsLikeOrder(text string) bool {
	n := min(len(text), len("00020101021226400005yupay"))
	return n > len("00020101021226400005") && text[:n] == orderStart[:n]
}

// classifyMerchant looks for a template of ours in a merchant-presented code, as far as its fields can be read.
func classifyMerchant(text string) Kind {
	for at, n := 0, 0; at < len(text) && n < maxFields; n++ {
		f, next, ok := nextField(text, at)
		if !ok { // the last field may be cut short; what there is of it still speaks
			if len(text)-at > 4 && isTemplate(text[at:at+2]) && namesUs(text[at+4:]) {
				return KindOrder
			}
			break
		}
		if isTemplate(f.ID) && namesUs(f.Value) {
			return KindOrder
		}
		at = next
	}
	return KindOtherEMVCo
}

// namesUs says whether a template carries our globally unique identifier in sub-field 00.
func namesUs(template string) bool {
	for at, n := 0, 0; at < len(template) && n < maxFields; n++ {
		f, next, ok := nextField(template, at)
		if !ok {
			return false
		}
		if f.ID == "00" {
			return f.Value == yupayGUID
		}
		at = next
	}
	return false
}

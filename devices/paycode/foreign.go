package paycode

import (
	"encoding/hex"
	"strings"
)

// The names that [ForeignName] gives to what is no pay code, and to a merchant's code of another scheme. They are part of the
// book's records and never change.
const (
	NameWebAddress = "WEB_ADDRESS"
	NameWeChatShop = "WECHAT_SHOP"   // a merchant's or a person's code, to be scanned by the customer
	NameAlipayShop = "ALIPAY_SHOP"   // the same of Alipay
	NameUnionShop  = "UNIONPAY_SHOP" // the same of UnionPay
	NameIDNumber   = "ID_NUMBER"     // a citizen's number with its right check character (GB 11643)
	NameShop       = "SHOP"          // an EMVCo merchant-presented code of another scheme
)

// schemes names the application providers that a customer in China may hold up, by the registered part of the id
// (ISO/IEC 7816-5), in Chinese and English.
var schemes = map[string][2]string{
	"A000000333": {"云闪付", "UnionPay"},
	"A000000003": {"Visa", "Visa"},
	"A000000004": {"万事达", "Mastercard"},
	"A000000065": {"JCB", "JCB"},
	"A000000025": {"美国运通", "American Express"},
	"A000000152": {"Discover", "Discover"},
}

// starts are the beginnings, in small letters, of what phones show and shops stick up, the most telling first.
var starts = []struct{ start, name string }{
	{"wxp://", NameWeChatShop}, {"weixin://", NameWeChatShop}, {"https://payapp.weixin.qq.com/", NameWeChatShop},
	{"https://wx.tenpay.com/", NameWeChatShop}, {"https://u.wechat.com/", NameWeChatShop},
	{"https://qr.alipay.com/", NameAlipayShop}, {"alipays://", NameAlipayShop},
	{"https://qr.95516.com/", NameUnionShop},
	{"https://", NameWebAddress}, {"http://", NameWebAddress},
}

// nameWords says the names for people.
var nameWords = map[string][2]string{
	NameWebAddress: {"这是网址，不是付款码", "This is a web address, not a pay code"},
	NameWeChatShop: {"这是微信收款码，不是顾客付款码", "This is a WeChat collection code, not a customer's"},
	NameAlipayShop: {"这是支付宝收款码，不是顾客付款码", "This is an Alipay collection code, not a customer's"},
	NameUnionShop:  {"这是云闪付收款码，不是顾客付款码", "This is a UnionPay collection code, not a customer's"},
	NameIDNumber:   {"这是身份证号码，不是付款码", "This is a citizen's number, not a pay code"},
	NameShop:       {"这是其他机构的收款码，不是顾客付款码", "This is a merchant's code of another scheme, not a customer's"},
}

// ForeignName is what a foreign text says about itself beyond its kind: the scheme or the label of an EMVCo code (printable
// ASCII, at most 16 characters), or one of the names above; "" where the kind says all there is. It holds nothing that
// belongs to the customer.
func ForeignName(text string) string {
	switch Classify(text) {
	case KindOtherEMVCo:
		if strings.HasPrefix(text, "000201") {
			return NameShop
		}
		_, en := applicationName(text)
		return en
	case KindUnknown:
		low := strings.ToLower(text[:min(len(text), 40)])
		for _, s := range starts {
			if strings.HasPrefix(low, s.start) {
				return s.name
			}
		}
		if isIDNumber(text) {
			return NameIDNumber
		}
	}
	return ""
}

// Describe says what a scan is: its kind by [ClassifyScan], and words for a person that call a foreign code by the name that
// it gives itself.
func Describe(text, symbology string) (kind Kind, zh, en string) {
	kind = ClassifyScan(text, symbology)
	zh, en = kind.Words()
	if kind != KindOtherEMVCo && kind != KindUnknown {
		return kind, zh, en
	}
	if w, ok := nameWords[ForeignName(text)]; ok {
		return kind, w[0], w[1]
	}
	if nameZH, nameEN := applicationName(text); nameEN != "" {
		return kind, "这是 " + nameZH + " 的付款码", "This is a pay code of " + nameEN
	}
	return kind, zh, en
}

// applicationName is the scheme of the first application of a consumer-presented code that has one, or else its label.
func applicationName(text string) (zh, en string) {
	consumer, err := ParseConsumer(text)
	if err != nil {
		return "", ""
	}
	for _, a := range consumer.Applications() {
		if s, ok := schemes[strings.ToUpper(hex.EncodeToString(a.AID[:min(5, len(a.AID))]))]; ok {
			return s[0], s[1]
		}
		if label := strings.TrimSpace(a.Label); label != "" {
			return label, label
		}
	}
	return "", ""
}

// isIDNumber says whether text is a citizen's number: 17 digits, of which the 7th to 14th are a date, and the check character
// of ISO 7064 MOD 11-2.
func isIDNumber(text string) bool {
	if len(text) != 18 || !allDigits(text[:17]) {
		return false
	}
	century, month, day := text[6:8], text[10:12], text[12:14]
	if century != "19" && century != "20" || month < "01" || month > "12" || day < "01" || day > "31" {
		return false
	}
	rest := 0
	for i := range 17 {
		rest = (rest + int(text[i]-'0')) * 2 % 11
	}
	return "10X98765432"[rest] == strings.ToUpper(text[17:])[0]
}

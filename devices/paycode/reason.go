package paycode

// Reason names why a code is refused. The empty Reason means that nothing is wrong. The words are part of the formats and
// travel to the ledger, to the register and into the book; they never change.
//
// A Reason is an error, but a Reason of "" stored in an error variable is not nil: use [Reason.Err].
type Reason string

// The refusals that this package can name itself.
const (
	OK                  Reason = ""
	Malformed           Reason = "MALFORMED"
	ForeignCode         Reason = "FOREIGN_CODE"
	UnknownIssuer       Reason = "UNKNOWN_ISSUER"
	CertForged          Reason = "CERT_FORGED"
	CertNotYetValid     Reason = "CERT_NOT_YET_VALID"
	CertExpired         Reason = "CERT_EXPIRED"
	CertTooLong         Reason = "CERT_TOO_LONG"
	CodeForged          Reason = "CODE_FORGED"
	CodeFromFuture      Reason = "CODE_FROM_FUTURE"
	CodeExpired         Reason = "CODE_EXPIRED"
	UnknownTerminal     Reason = "UNKNOWN_TERMINAL"
	OrderForged         Reason = "ORDER_FORGED"
	OrderExpired        Reason = "ORDER_EXPIRED"
	OrderExpiryTooFar   Reason = "ORDER_EXPIRY_TOO_FAR"
	UnknownLedgerKey    Reason = "UNKNOWN_LEDGER_KEY"
	ReceiptForged       Reason = "RECEIPT_FORGED"
	NotMyOrder          Reason = "NOT_MY_ORDER"
	AmountMismatch      Reason = "AMOUNT_MISMATCH"
	PaidAfterExpiry     Reason = "PAID_AFTER_EXPIRY"
	reasonWithoutWordZH        = "无法受理"
	reasonWithoutWordEN        = "Cannot be accepted"
)

// Error makes a Reason usable as an error; its text is the bare name.
func (r Reason) Error() string { return string(r) }

// Err returns nil for [OK] and r itself otherwise.
func (r Reason) Err() error {
	if r == OK {
		return nil
	}
	return r
}

// reasonWords holds what a cashier reads, Chinese first.
var reasonWords = map[Reason][2]string{
	OK:                {"可以受理", "Accepted"},
	Malformed:         {"码不完整，请重新扫描", "The code is damaged, please scan again"},
	ForeignCode:       {"这不是本钱包的码", "This is not a code of our wallet"},
	UnknownIssuer:     {"不认识发码机构", "The issuer of this code is not known here"},
	CertForged:        {"付款码证书是伪造的", "The certificate in this code is forged"},
	CertNotYetValid:   {"付款码证书尚未生效", "The certificate in this code is not valid yet"},
	CertExpired:       {"付款码证书已过期，请顾客联网刷新", "The certificate has expired, the customer must go online"},
	CertTooLong:       {"付款码证书期限过长", "The certificate lives longer than is allowed"},
	CodeForged:        {"付款码是伪造的", "This code is forged"},
	CodeFromFuture:    {"付款码时间超前，请检查手机时间", "The code comes from the future, check the phone's clock"},
	CodeExpired:       {"付款码已过期，请刷新", "The code has expired, please refresh it"},
	UnknownTerminal:   {"不认识这台收款终端", "The terminal of this code is not known here"},
	OrderForged:       {"收款码是伪造的", "This order code is forged"},
	OrderExpired:      {"收款码已过期", "This order code has expired"},
	OrderExpiryTooFar: {"收款码有效期过长", "This order code lives longer than is allowed"},
	UnknownLedgerKey:  {"不认识凭证的签发密钥", "The key of this receipt is not known here"},
	ReceiptForged:     {"付款凭证是伪造的", "This receipt is forged"},
	NotMyOrder:        {"不是本机的订单", "This is not an order of this terminal"},
	AmountMismatch:    {"凭证金额与订单不符", "The receipt's amount is not the order's"},
	PaidAfterExpiry:   {"订单过期后才付款", "It was paid after the order had expired"},
}

// Words says the refusal for a person, in Chinese and in English. A name that belongs to another room gets the neutral
// 无法受理.
func (r Reason) Words() (zh, en string) {
	if w, ok := reasonWords[r]; ok {
		return w[0], w[1]
	}
	return reasonWithoutWordZH, reasonWithoutWordEN
}

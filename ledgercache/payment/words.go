package payment

import (
	"strings"

	"yupos/ledgercache/money"
)

// Reason is the stable name of why a trade stands where it stands. A name that this version does not know is kept and
// shown as it is.
type Reason string

// The reasons that the terminal itself gives. The ledger's and the codes' own names pass through unchanged.
const (
	ReasonReversing     Reason = "REVERSING"       // a cancel is on its way to the ledger
	ReasonCancelled     Reason = "CANCELLED"       // by the cashier or the register
	ReasonExpired       Reason = "EXPIRED"         // nobody came in time
	ReasonNoAnswer      Reason = "NO_ANSWER"       // the ledger did not answer in time
	ReasonCodeNeedsLink Reason = "CODE_NEEDS_LINK" // an ONLINE code while the line is down
	ReasonWithdrawn     Reason = "WITHDRAWN"       // an offline payment, taken back before its upload
)

// Words are what a person reads: what happened, what it means for the money, what to do next.
type Words struct{ ZH, EN string }

var reasonWords = map[Reason]Words{
	ReasonReversing:         {"正在撤销，结果以账本为准，请勿重复收款", "Being reversed; the ledger decides, do not charge again"},
	ReasonCancelled:         {"已取消，未收款", "Cancelled, no money was taken"},
	ReasonExpired:           {"已过期，正在确认未付款", "Expired, nobody paid in time"},
	ReasonNoAnswer:          {"账本未答复，已撤销，未收款", "The ledger did not answer; reversed, no money was taken"},
	ReasonCodeNeedsLink:     {"网络断开，此码需联网，未收款。请顾客出示离线码，或待网络恢复", "The line is down and this code needs it; no money was taken. Ask for an offline code or wait"},
	"MALFORMED":             {"付款码损坏，未收款，请重新扫码", "The code is damaged; no money was taken, scan again"},
	"FOREIGN_CODE":          {"不是本钱包的付款码，未收款，请顾客打开本钱包", "Not a code of this wallet; no money was taken"},
	"UNKNOWN_CODE":          {"无法识别的码，未收款", "Not a code we know; no money was taken"},
	"UNKNOWN_ISSUER":        {"付款码签发方未知，未收款，请刷新付款码", "The code's issuer is not known; no money was taken"},
	"CERT_FORGED":           {"付款码证书无效，未收款，勿放行", "The code's certificate is false; no money was taken"},
	"CERT_NOT_YET_VALID":    {"付款码尚未生效，未收款，请检查手机时间", "The code is not valid yet; no money was taken, check the phone's clock"},
	"CERT_EXPIRED":          {"付款码凭证已过期，未收款，请顾客联网刷新", "The code's certificate has expired; the phone must go online once"},
	"CERT_TOO_LONG":         {"付款码凭证期限异常，未收款", "The code's certificate lives too long; no money was taken"},
	"CODE_FORGED":           {"付款码签名无效，未收款，勿放行", "The code's signature is false; no money was taken"},
	"CODE_FROM_FUTURE":      {"付款码时间超前，未收款，请检查手机时间", "The code is from the future; check the phone's clock"},
	"CODE_EXPIRED":          {"付款码已过期，未收款，请刷新后再扫", "The code has expired; no money was taken, refresh and scan again"},
	"CODE_REPLAYED":         {"此码已用过，未再次收款，请刷新付款码", "This code was already used; nothing was taken again, refresh it"},
	"CODE_SPENT":            {"此码已用过，未再次收款，请刷新付款码", "This code was already used; nothing was taken again, refresh it"},
	"CODE_UNKNOWN":          {"账本不认识此码，未收款，请刷新后再扫", "The ledger does not know this code; no money was taken"},
	"OVER_CODE_LIMIT":       {"金额超出此码上限，未收款，请顾客在手机上输入金额", "More than this code may pay; no money was taken"},
	"POLICY_STALE":          {"网络断开且离线策略未就绪，未收款。请等待网络恢复", "The line is down and there is no fresh offline policy; no money was taken"},
	"BOOK_CHECKING":         {"上次未正常关机，正在核对账本，暂不能离线收款，未收款。请稍候，或待网络恢复", "The last stop was not clean and the book is being checked: no offline payment yet, no money was taken. Wait a little, or for the line"},
	"BOOK_UNCONFIRMED":      {"账本是恢复或导入的，账本中心尚未确认，不能离线收款，未收款。联网一次即可", "The book was restored or imported and the ledger has not confirmed it: no offline payment, no money was taken. One contact mends it"},
	"CLOCK_UNTRUSTED":       {"终端时间不可信，不能离线收款，未收款", "The clock cannot be trusted; no offline payment, no money was taken"},
	"DENY_LIST_STALE":       {"停用名单过期，不能离线收款，未收款。请待网络恢复后同步", "The deny list is too old; no offline payment, no money was taken. Wait for the line"},
	"WALLET_BLOCKED":        {"无法受理，未收款，请顾客换一种付款方式", "Cannot be accepted; no money was taken, ask for another way to pay"},
	"OVER_CERT_LIMIT":       {"超出此付款码离线单笔限额，未收款。请待网络恢复，或让顾客联网扫收款码", "Above what this code may pay offline; no money was taken. Wait for the line, or show an order"},
	"OVER_PAYMENT_LIMIT":    {"超出离线单笔限额，未收款。请待网络恢复，或让顾客联网扫收款码", "Above the offline limit of one payment; no money was taken. Wait for the line, or show an order"},
	"OVER_WALLET_ALLOWANCE": {"顾客离线额度已用完，未收款。请让顾客联网扫收款码", "The customer's offline allowance is used up; no money was taken. Show an order"},
	"OVER_TERMINAL_LIMIT":   {"本机离线额度已用完，未收款。请恢复网络上传后再离线收款", "This terminal's offline limit is reached; no money was taken. Restore the line and upload first"},
	"REVERSAL_STARTED":      {"撤销已发出，不能转离线受理，请等待结果", "A reversal has started, it cannot be accepted offline; wait for the result"},
	"NOT_CONVERTIBLE":       {"此码不能转离线受理，请等待查询结果", "This code cannot be accepted offline; wait for the answer"},
	"WITHDRAWN":             {"已撤回，未扣款，联网后上传作废记录", "Withdrawn, nothing is charged; its record is uploaded when the line is back"},
	"UNKNOWN_LEDGER_KEY":    {"凭证签发方未知，未确认收款，请联网查询", "The receipt's signer is not known; not confirmed, ask when the line is back"},
	"RECEIPT_FORGED":        {"凭证签名无效，未收款，勿放行", "The receipt's signature is false; no money was taken"},
	"NOT_MY_ORDER":          {"不是本机订单的凭证，未收款", "The receipt is of another order; no money was taken"},
	"AMOUNT_MISMATCH":       {"凭证金额与订单不符，不能确认，联网后退回顾客", "The receipt's amount differs; not accepted, it is reversed when the line is back"},
	"PAID_AFTER_EXPIRY":     {"顾客在过期后付款，不能确认，联网后退回顾客", "Paid after the order expired; not accepted, it is reversed when the line is back"},
	"WRONG_DIGITS":          {"确认码不符，未确认收款，请核对后再输", "The digits do not match; not confirmed, check and type again"},
	"DIGITS_LOCKED":         {"确认码已输错三次，请扫凭证或等待联网查询", "Three wrong tries; scan the receipt or wait for the line"},
	"DIGITS_PAUSED":         {"本机一小时内输错过多，联网前不能再输确认码，请扫凭证", "Too many wrong tries on this terminal; scan the receipt or wait for the line"},
	"OVER_DIGITS_LIMIT":     {"金额超出确认码上限，请扫凭证", "Above what typed digits may confirm; scan the receipt"},
	"CONFIRMED_NOT_PAID":    {"账本查无此付款，本笔存疑，请联系客服核实", "The ledger knows no such payment; in dispute, call support"},
	"EVIDENCE_FORGED":       {"离线凭据无效，未入账，由商户承担", "The offline evidence is not valid; not settled, borne by the merchant"},
	"BOOK_FORKED":           {"账本记录分叉，未入账，由商户承担，请联系客服", "The book is forked; not settled, borne by the merchant, call support"},
	"POLICY_BREACH":         {"离线受理超出规则，未入账，由商户承担", "Taken against the offline rules; not settled, borne by the merchant"},
	"ACCEPTED_WHILE_ONLINE": {"联网时离线受理，已搁置核查", "Taken offline while the line was up; set aside"},
	"INSUFFICIENT_BALANCE":  {"余额不足，未收款", "Not enough balance; no money was taken"},
	"WALLET_FROZEN":         {"无法受理，未收款", "Cannot be accepted; no money was taken"},
	"LIMIT_SINGLE":          {"超出顾客单笔限额，未收款", "Above the customer's limit for one payment; no money was taken"},
	"LIMIT_DAY":             {"超出顾客当日限额，未收款", "Above the customer's limit for the day; no money was taken"},
	"TOO_LATE":              {"请求已过时，未收款，请重新扫码", "The request came too late; no money was taken, scan again"},
	"DECLINED":              {"账本拒绝，未收款", "Declined by the ledger; no money was taken"},
	"WRONG_PIN":             {"支付密码错误，未收款", "Wrong PIN; no money was taken"},
	"PIN_LOCKED":            {"顾客支付密码已锁定，未收款，请换一种付款方式", "The customer's PIN is locked; no money was taken, ask for another way to pay"},
	"CUSTOMER_REFUSED":      {"顾客已拒绝付款，未收款", "The customer refused; no money was taken"},
	"CONFIRM_TIMEOUT":       {"顾客未确认，未收款", "The customer did not confirm; no money was taken"},
	"REFUND_OVER_PAID":      {"退款超过已付金额，未退款", "More than was paid; nothing was refunded"},
	"REFUND_WINDOW_CLOSED":  {"超过退款期限，未退款", "Too late to refund; nothing was refunded"},
	"REFUND_TOO_MANY":       {"退款次数已达上限，未退款", "Too many partial refunds; nothing was refunded"},
	"MERCHANT_BALANCE":      {"商户余额不足，未退款", "The merchant's balance is too low; nothing was refunded"},
	"LEDGER_ERROR":          {"账本内部错误，结果以查询为准", "The ledger had an error; the query decides"},
	"UNKNOWN_TRADE":         {"账本没有这笔交易", "The ledger does not know this trade"},
	"WALLET_UNKNOWN":        {"账本没有这个钱包，未收款", "The ledger does not know this wallet; no money was taken"},
	"ID_REUSED":             {"交易号被重复使用，已搁置，请联系客服", "A number was used twice; set aside, call support"},
	"TERMINAL_REVOKED":      {"终端已被停用，未收款，请联系客服", "This terminal has been revoked; no money was taken, call support"},
	"TERMINAL_MISMATCH":     {"终端号与证书不符，未收款，请检查配置", "Terminal number and certificate do not fit; no money was taken, check the configuration"},
	"BOOK_ROLLED_BACK":      {"本机账簿早于账本中心的记录，不能离线收款，请联系客服", "This book is older than the ledger's record; no offline payments, call support"},
}

// Words gives r in Chinese and English; a reason without words is shown by its name.
func (r Reason) Words() Words {
	if r == "" {
		return Words{}
	}
	if w, ok := reasonWords[r]; ok {
		return w
	}
	return Words{"原因 " + string(r), "Reason " + string(r)}
}

// foreignWords name the codes of others that a customer may hold up.
var foreignWords = map[string]Words{
	"WECHAT":        {"这是微信付款码", "This is a WeChat code"},
	"ALIPAY":        {"这是支付宝付款码", "This is an Alipay code"},
	"UNIONPAY":      {"这是云闪付付款码", "This is a UnionPay code"},
	"ECNY":          {"这是数字人民币付款码", "This is an e-CNY code"},
	"GOODS_BARCODE": {"这是商品条码", "This is a goods barcode"},
	"OTHER_EMVCO":   {"这是其他钱包的付款码", "This is another wallet's code"},
	"ORDER":         {"这是商户收款码，不是顾客付款码", "This is a shop's code, not a customer's"},
	"RECEIPT":       {"这是付款凭证，不是付款码", "This is a receipt of a payment, not a pay code"},
	"UNKNOWN_CODE":  {"这不是付款码", "This is not a pay code"},
}

// foreignNames say more than the kind, where the code gave a name away.
var foreignNames = map[string]Words{
	"WEB_ADDRESS":   {"这是网址，不是付款码", "This is a web address, not a pay code"},
	"WECHAT_SHOP":   {"这是微信收款码，不是顾客付款码", "This is a WeChat collection code, not a customer's"},
	"ALIPAY_SHOP":   {"这是支付宝收款码，不是顾客付款码", "This is an Alipay collection code, not a customer's"},
	"UNIONPAY_SHOP": {"这是云闪付收款码，不是顾客付款码", "This is a UnionPay collection code, not a customer's"},
	"ID_NUMBER":     {"这是身份证号码，不是付款码", "This is a citizen's number, not a pay code"},
	"SHOP":          {"这是其他机构的收款码，不是顾客付款码", "This is a merchant's code of another scheme, not a customer's"},
	"UnionPay":      foreignWords["UNIONPAY"],
}

// namedForeign is what a foreign code is called: by its kind, or by the name behind the colon.
func namedForeign(foreign string) (Words, bool) {
	kind, name, _ := strings.Cut(foreign, ":")
	if w, ok := foreignNames[name]; ok {
		return w, true
	}
	if name != "" && kind == "OTHER_EMVCO" {
		return Words{"这是 " + name + " 的付款码", "This is a code of " + name}, true
	}
	w, ok := foreignWords[kind]
	return w, ok
}

// Why is the trade's reason in words; a foreign code is called by its name.
func (p Payment) Why() Words {
	w := p.Reason.Words()
	if named, ok := namedForeign(p.Foreign); ok && p.Reason == "FOREIGN_CODE" {
		return Words{named.ZH + "，未收款，请顾客打开本钱包", named.EN + "; no money was taken, ask for this wallet's code"}
	}
	if p.OnlineOnly && p.Reason == ReasonCodeNeedsLink {
		return Words{"网络断开，本单不允许离线受理，未收款。请待网络恢复，或出示动态码", "The line is down and the register wants no offline payment; no money was taken. Wait for the line, or show an order"}
	}
	return w
}

// NextAction is what the register should do next: wait, query, rescan, none or call_support.
func (p Payment) NextAction() string {
	switch p.State {
	case NotPay:
		if p.Mode == AtCounter && p.Reason != "" {
			return "rescan"
		}
		return "wait"
	case UserPaying:
		return "wait"
	case Unknown:
		return "query"
	case Success, Closed, Revoked, PayError, AcceptedOffline:
		return "none"
	case Bounced:
		return "call_support"
	}
	return "query"
}

// Display is the sentence that the counter shows for p: the word, the amount, and what to do.
func (p Payment) Display() Words {
	amount := p.TotalFen.String()
	why := p.Why()
	switch p.State {
	case NotPay:
		return p.displayWaiting(amount, why)
	case UserPaying:
		return Words{"请顾客在手机上确认 " + amount, "Customer: confirm " + amount + " on your phone"}
	case Unknown:
		if p.Reversing {
			return Words{"正在撤销 " + amount + "，请勿重复收款", "Reversing " + amount + ", do not charge again"}
		}
		return Words{"结果未知 " + amount + "，请勿重复收款，正在查询", "Result of " + amount + " unknown, do not charge again, asking"}
	case Success:
		return p.displayPaid(amount)
	case Closed:
		return Words{"已关闭，未收款 " + amount, "Closed, " + amount + " not taken"}
	case Revoked:
		if p.Withdrawn {
			return Words{"已撤回 " + amount + "，未扣款", "Withdrawn " + amount + ", nothing was charged"}
		}
		return Words{"已撤销，" + amount + " 已退回顾客", "Reversed, " + amount + " went back to the customer"}
	case PayError:
		return Words{"收款失败 " + amount + "：" + why.ZH, "Not paid " + amount + ": " + why.EN}
	case AcceptedOffline:
		if p.Withdrawn {
			return Words{"已撤回 " + amount + "，未扣款", "Withdrawn " + amount + ", nothing is charged"}
		}
		return Words{"离线受理 " + amount + "，待入账", "Accepted offline " + amount + ", to be settled"}
	case Bounced:
		return Words{"离线付款被拒 " + amount + "：" + why.ZH, "Offline payment refused " + amount + ": " + why.EN}
	}
	return Words{}
}

func (p Payment) displayWaiting(amount string, why Words) Words {
	if p.Mode == ByOrder {
		return Words{"请顾客扫码支付 " + amount, "Customer: scan to pay " + amount}
	}
	if p.Reason != "" {
		return Words{"请重新扫码 " + amount + "：" + why.ZH, "Scan again for " + amount + ": " + why.EN}
	}
	return Words{"请扫顾客付款码 " + amount, "Scan the customer's code for " + amount}
}

func (p Payment) displayPaid(amount string) Words {
	w := Words{"收款成功 " + amount, "Paid " + amount}
	if p.DiscountFen > 0 {
		w.ZH += "（顾客实付 " + p.PaidFen.String() + "）"
		w.EN += " (customer paid " + p.PaidFen.String() + ")"
	}
	if p.RefundedFen > 0 {
		w.ZH += "，已退 " + p.RefundedFen.String()
		w.EN += ", refunded " + p.RefundedFen.String()
	}
	return w
}

// ApplyRefund makes the move of a refund that the ledger's answer describes. Like Apply it answers ErrReplay and
// ErrImpossible: PROCESSING → PROCESSING, SUCCESS, FAILED.
func ApplyRefund(r Refund, e RefundAnswered) (Refund, error) {
	if r.Final() {
		if r.State == e.State || e.State == RefundProcessing {
			return r, ErrReplay
		}
		return r, ErrImpossible
	}
	switch e.State {
	case RefundProcessing:
		return r, ErrReplay
	case RefundSuccess:
		if e.RefundFen != r.RefundFen || e.FeeBackFen < 0 || e.At.IsZero() {
			return r, ErrImpossible
		}
		r.FeeBackFen, r.FinishedAt = e.FeeBackFen, e.At
	case RefundFailed:
		r.Reason, r.FinishedAt = e.Reason, e.At
	default:
		return r, ErrImpossible
	}
	r.State, r.LedgerNo = e.State, e.LedgerNo
	return r, nil
}

// FeeLeft is the merchant's fee that p still carries after its refunds, in fen.
func (p Payment) FeeLeft() money.Fen { return p.FeeFen - p.FeeBackFen }

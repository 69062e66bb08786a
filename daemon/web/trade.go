package web

import (
	"encoding/base64"
	"time"

	"yupos/daemon/till"
	"yupos/ledgercache"
	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
)

// timeLayout is RFC 3339 with milliseconds and an offset, always Shanghai's.
const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// Reason is why a trade or refund stands where it stands.
type Reason struct {
	Code   string `json:"code" doc:"stable name"`
	Text   string `json:"text" doc:"for people, Chinese"`
	TextEN string `json:"text_en" doc:"for people, English"`
}

// Code is the ORDER that a customer may pay now.
type Code struct {
	Text      string `json:"text" doc:"EMVCo merchant-presented text, to be drawn as a QR code"`
	ExpiresAt string `json:"expires_at" format:"date-time"`
}

// Trade is a trade as the register API answers it. Amounts are whole fen; what the ledger has not said yet is null.
type Trade struct {
	OutTradeNo    string  `json:"out_trade_no"`
	TradeNo       string  `json:"trade_no" doc:"our ULID, fixed when the trade was opened"`
	LedgerNo      *string `json:"ledger_no" doc:"the ledger's own number, null until known"`
	TradeState    string  `json:"trade_state" enum:"NOTPAY,USERPAYING,UNKNOWN,SUCCESS,CLOSED,REVOKED,PAYERROR,ACCEPTED_OFFLINE,BOUNCED"`
	Final         bool    `json:"final" doc:"the state never changes again"`
	NextAction    string  `json:"next_action" enum:"wait,query,rescan,none,call_support"`
	Path          string  `json:"path" enum:"online,receipt,offline"`
	Mode          string  `json:"mode" enum:"code,counter,order" doc:"by a code sent, by the terminal's scanner, by a code shown"`
	TotalFen      int64   `json:"total_fen"`
	DiscountFen   *int64  `json:"discount_fen" doc:"null until known"`
	PaidFen       *int64  `json:"paid_fen" doc:"null until known"`
	FeeFen        *int64  `json:"fee_fen" doc:"null until known"`
	RefundedFen   int64   `json:"refunded_fen"`
	TotalYuan     string  `json:"total_yuan" doc:"total_fen for people, like 12.50"`
	Subject       string  `json:"subject"`
	Attach        string  `json:"attach"`
	OperatorID    string  `json:"operator_id"`
	CreatedAt     string  `json:"created_at" format:"date-time"`
	FinishedAt    *string `json:"finished_at" format:"date-time" doc:"null until it has ended"`
	BizDate       string  `json:"biz_date" format:"date" doc:"bill day in Shanghai"`
	DisplayText   string  `json:"display_text" doc:"ready to show, Chinese"`
	DisplayTextEN string  `json:"display_text_en" doc:"ready to show, English"`
	Reason        *Reason `json:"reason" doc:"null when there is none"`
	Code          *Code   `json:"code" doc:"only while the ORDER may be paid, else null"`

	Bearer      *string        `json:"bearer" enum:"ledger,merchant" doc:"who bears an offline payment that the wallet did not pay; null otherwise"`
	Evidence    *string        `json:"evidence" enum:"accept,receipt,digits" doc:"on what the terminal itself took the money; null when the ledger answered"`
	Accept      *string        `json:"accept" doc:"the signed ACCEPT of an offline payment, base64; null otherwise"`
	Confirmed   bool           `json:"confirmed" doc:"false while money was taken on evidence that the ledger has not confirmed yet"`
	Convertible bool           `json:"convertible" doc:"an answer is missing and a manager may accept it offline, where limits allow"`
	Warnings    []till.Warning `json:"warnings" doc:"what the cashier should know before going on; empty when there is nothing"`
}

// tradeOf is how p looks from outside at the time now.
func tradeOf(p payment.Payment, now time.Time) Trade {
	words := p.Display()
	t := Trade{
		OutTradeNo: p.OutTradeNo, TradeNo: p.TradeNo, TradeState: string(p.State), Final: p.State.Final(),
		NextAction: p.NextAction(), Path: string(p.Path), Mode: string(p.Mode), TotalFen: int64(p.TotalFen),
		RefundedFen: int64(p.RefundedFen), TotalYuan: p.TotalFen.Yuan(), Subject: p.Subject, Attach: p.Attach,
		OperatorID: p.OperatorID, CreatedAt: stamp(p.CreatedAt), FinishedAt: stampOrNull(p.FinishedAt),
		BizDate: ledgercache.BizDate(p), DisplayText: words.ZH, DisplayTextEN: words.EN, Reason: reasonOf(p.Reason, p.Why()),
	}
	if p.LedgerNo != "" {
		t.LedgerNo = &p.LedgerNo
	}
	if p.Settled {
		t.PaidFen, t.DiscountFen, t.FeeFen = fen(p.PaidFen), fen(p.DiscountFen), fen(p.FeeFen)
	}
	if p.Unconfirmed && p.Evidence == payment.ByReceipt { // the receipt says who paid what; the fee is still to come
		t.PaidFen, t.DiscountFen = fen(p.PaidFen), fen(p.DiscountFen)
	}
	t.Convertible = p.State == payment.Unknown && p.Convertible()
	t.Confirmed, t.Warnings = !p.Unconfirmed && p.State != payment.AcceptedOffline, []till.Warning{}
	if p.Bearer != "" {
		t.Bearer = (*string)(&p.Bearer)
	}
	if len(p.Accept) > 0 {
		text := base64.StdEncoding.EncodeToString(p.Accept)
		t.Accept = &text
	}
	if p.Evidence != "" {
		t.Evidence = (*string)(&p.Evidence)
	}
	if mayBePaid(p, now) {
		t.Code = &Code{Text: p.OrderText, ExpiresAt: stamp(p.ExpiresAt)}
	}
	return t
}

// mayBePaid reports whether the ORDER of p may still be shown.
func mayBePaid(p payment.Payment, now time.Time) bool {
	return p.Mode == payment.ByOrder && p.State == payment.NotPay && p.OrderText != "" && now.Before(p.ExpiresAt)
}

func reasonOf(r payment.Reason, words payment.Words) *Reason {
	if r == "" {
		return nil
	}
	return &Reason{Code: string(r), Text: words.ZH, TextEN: words.EN}
}

func fen(f money.Fen) *int64 {
	n := int64(f)
	return &n
}

func stamp(t time.Time) string { return t.In(ledgercache.Shanghai).Format(timeLayout) }

func stampOrNull(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := stamp(t)
	return &s
}

// Refund is a refund as the register API answers it.
type Refund struct {
	OutRefundNo string  `json:"out_refund_no"`
	RefundNo    string  `json:"refund_no" doc:"our ULID"`
	OutTradeNo  string  `json:"out_trade_no"`
	TradeNo     string  `json:"trade_no"`
	LedgerNo    *string `json:"ledger_no" doc:"the ledger's own number, null until known"`
	RefundState string  `json:"refund_state" enum:"PROCESSING,SUCCESS,FAILED"`
	State       string  `json:"state" doc:"the same as refund_state"`
	Final       bool    `json:"final"`
	RefundFen   int64   `json:"refund_fen"`
	FeeBackFen  *int64  `json:"fee_back_fen" doc:"merchant fee given back; null until known"`
	Note        string  `json:"note" doc:"the reason that the request gave"`
	OperatorID  string  `json:"operator_id" doc:"who asked for it: the caller of the token"`
	CreatedAt   string  `json:"created_at" format:"date-time"`
	FinishedAt  *string `json:"finished_at" format:"date-time"`
	Text        string  `json:"display_text"`
	TextEN      string  `json:"display_text_en"`
	Reason      *Reason `json:"reason" doc:"why it failed, null when it did not"`
}

func refundOf(f payment.Refund) Refund {
	words := refundWords(f)
	r := Refund{
		OutRefundNo: f.OutRefundNo, RefundNo: f.RefundNo, OutTradeNo: f.OutTradeNo, TradeNo: f.TradeNo,
		RefundState: string(f.State), State: string(f.State), Final: f.Final(), RefundFen: int64(f.RefundFen), Note: f.Note,
		OperatorID: f.OperatorID, CreatedAt: stamp(f.CreatedAt), FinishedAt: stampOrNull(f.FinishedAt),
		Text: words.ZH, TextEN: words.EN, Reason: reasonOf(f.Reason, f.Reason.Words()),
	}
	if f.LedgerNo != "" {
		r.LedgerNo = &f.LedgerNo
	}
	if f.State == payment.RefundSuccess {
		r.FeeBackFen = fen(f.FeeBackFen)
	}
	return r
}

func refundWords(f payment.Refund) payment.Words {
	amount := f.RefundFen.String()
	switch f.State {
	case payment.RefundSuccess:
		return payment.Words{ZH: "已退款 " + amount, EN: "Refunded " + amount}
	case payment.RefundFailed:
		why := f.Reason.Words()
		return payment.Words{ZH: "退款失败 " + amount + "：" + why.ZH, EN: "Not refunded " + amount + ": " + why.EN}
	case payment.RefundProcessing:
	}
	return payment.Words{ZH: "退款处理中 " + amount, EN: "Refund of " + amount + " under way"}
}

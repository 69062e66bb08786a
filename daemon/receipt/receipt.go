// Package receipt says how a sale and a refund look on paper.
//
// Guarantees: a receipt is a pure function of what is given, so that a copy differs from the first only by its mark; a copy
// is marked 重打印 with its number; money that is not settled is never called paid. The package knows money and words, not
// bytes: devices/printer makes those.
package receipt

import (
	"fmt"
	"time"
	_ "time/tzdata" // a terminal may have no zone files

	"yupos/devices/printer"
	"yupos/ledgercache/money"
)

// Shop is who took the money.
type Shop struct {
	DisplayName string
	MerchantID  string
	TerminalID  string
}

// Code draws the picture of a code for printers that have none of their own.
type Code func(text string) (printer.Bits, error)

// Sale is one receipt of a sale.
type Sale struct {
	Shop        Shop
	OutTradeNo  string
	TradeNo     string
	LedgerNo    string
	TotalFen    money.Fen
	PaidFen     money.Fen
	DiscountFen money.Fen
	RefundedFen money.Fen
	Way         Way
	Offline     bool // accepted offline: not settled yet
	Reversed    bool
	At          time.Time
	OperatorID  string
	Subject     string
	Copy        int    // 1 is the first; above it is marked
	BookHead    string // hex; its first eight digits stand on the slip
}

// Way is how the wallet paid, as a person reads it.
type Way string

// The ways that product.md, Payments in all four corners, knows.
const (
	ByCustomerCode Way = "城市钱包 付款码"
	ByShownOrder   Way = "城市钱包 动态码"
	ByReceipt      Way = "城市钱包 凭证核验"
	ByOffline      Way = "城市钱包 离线受理"
)

// Refund is one slip of a refund.
type Refund struct {
	Shop        Shop
	OutRefundNo string
	RefundNo    string
	OutTradeNo  string
	TradeNo     string
	RefundFen   money.Fen
	At          time.Time
	OperatorID  string
	Note        string
	Copy        int
	BookHead    string
}

var (
	title = printer.Style{Bold: true, Double: true, Center: true}
	line  = printer.Style{Center: true}
)

// OfSale lays out a sale. The code on it is the trade's number, for finding it again.
func OfSale(s Sale, draw Code) (printer.Document, error) {
	var d printer.Document
	head(&d, s.Shop, s.Copy)
	d.Text(title, "¥"+s.TotalFen.Yuan())
	d.Text(title, s.word())
	d.Rule()
	if s.Way != "" {
		d.Columns("支付方式", string(s.Way))
	}
	if s.DiscountFen > 0 {
		d.Columns("优惠", "-"+s.DiscountFen.Yuan()).Columns("顾客实付", s.PaidFen.Yuan())
	}
	if s.RefundedFen > 0 {
		d.Columns("已退款", s.RefundedFen.Yuan())
	}
	if s.Subject != "" {
		d.Text(printer.Style{}, "商品: "+s.Subject)
	}
	d.Text(printer.Style{}, "订单号: "+s.OutTradeNo)
	d.Text(printer.Style{}, "交易号: "+s.TradeNo)
	if s.LedgerNo != "" {
		d.Text(printer.Style{}, "账本号: "+s.LedgerNo)
	}
	foot(&d, s.Shop, s.At, s.OperatorID, s.BookHead)
	return finish(&d, s.TradeNo, draw)
}

// word says what the paper is worth.
func (s Sale) word() string {
	switch {
	case s.Reversed:
		return "已撤销"
	case s.Offline:
		return "离线受理,待入账"
	}
	return "收款成功"
}

// OfRefund lays out a refund.
func OfRefund(r Refund, draw Code) (printer.Document, error) {
	var d printer.Document
	head(&d, r.Shop, r.Copy)
	d.Text(title, "-¥"+r.RefundFen.Yuan())
	d.Text(title, "退款成功")
	d.Rule()
	if r.Note != "" {
		d.Text(printer.Style{}, "原因: "+r.Note)
	}
	d.Text(printer.Style{}, "退款号: "+r.OutRefundNo)
	d.Text(printer.Style{}, "原订单号: "+r.OutTradeNo)
	d.Text(printer.Style{}, "原交易号: "+r.TradeNo)
	foot(&d, r.Shop, r.At, r.OperatorID, r.BookHead)
	return finish(&d, r.TradeNo, draw)
}

func head(d *printer.Document, shop Shop, copyNo int) {
	d.Text(title, shop.DisplayName)
	if copyNo > 1 {
		d.Text(printer.Style{Bold: true, Center: true}, fmt.Sprintf("*** 重打印 第%d次 COPY %d ***", copyNo-1, copyNo-1))
	}
	d.Rule()
}

func foot(d *printer.Document, shop Shop, at time.Time, operator, bookHead string) {
	d.Text(printer.Style{}, "时间: "+at.In(shanghai()).Format("2006-01-02 15:04:05"))
	d.Columns("商户 "+shop.MerchantID, "终端 "+shop.TerminalID)
	if operator != "" {
		d.Text(printer.Style{}, "收银员: "+operator)
	}
	if len(bookHead) >= 8 {
		d.Text(printer.Style{}, "账本 "+bookHead[:8])
	}
	d.Rule()
}

func finish(d *printer.Document, code string, draw Code) (printer.Document, error) {
	bits, err := draw(code)
	if err != nil {
		return printer.Document{}, fmt.Errorf("receipt's code: %w", err)
	}
	d.QRBits(code, 6, bits)
	d.Text(line, "凭交易号可查询、退款")
	d.Text(line, "重庆城市钱包 · RMB")
	d.Cut()
	return *d, nil
}

// shanghai is the zone of the shop's clock.
func shanghai() *time.Location {
	zone, err := time.LoadLocation("Asia/Shanghai")
	if err != nil {
		return time.FixedZone("Asia/Shanghai", 8*60*60) // cannot happen: the zones are part of the program
	}
	return zone
}

package till

import (
	"time"

	"yupos/daemon/receipt"
	"yupos/devices/paycode"
	"yupos/devices/printer"
	"yupos/ledgercache"
	"yupos/ledgercache/payment"
)

// document lays out what a print job is about, as the book knows it now.
func (t *Till) document(j ledgercache.PrintJob) (printer.Document, error) {
	p, err := t.book.ByTradeNo(j.TradeNo)
	if err != nil {
		return printer.Document{}, err
	}
	shop := receipt.Shop{DisplayName: t.o.Shop.DisplayName, MerchantID: t.o.Shop.MerchantID, TerminalID: t.o.Shop.TerminalID}
	head := t.book.Position().Head
	if j.RefundNo == "" {
		return receipt.OfSale(receipt.Sale{
			Shop: shop, OutTradeNo: p.OutTradeNo, TradeNo: p.TradeNo, LedgerNo: p.LedgerNo, TotalFen: p.TotalFen, PaidFen: p.PaidFen,
			DiscountFen: p.DiscountFen, RefundedFen: p.RefundedFen, Way: way(p), Offline: p.State == payment.AcceptedOffline && !p.Withdrawn,
			Reversed: p.State == payment.Revoked || p.Withdrawn, At: takenAt(p), OperatorID: p.OperatorID, Subject: p.Subject, Copy: j.Copy, BookHead: head,
		}, drawn)
	}
	f, err := t.book.ByRefundNo(j.RefundNo)
	if err != nil {
		return printer.Document{}, err
	}
	return receipt.OfRefund(receipt.Refund{
		Shop: shop, OutRefundNo: f.OutRefundNo, RefundNo: f.RefundNo, OutTradeNo: f.OutTradeNo, TradeNo: f.TradeNo, RefundFen: f.RefundFen,
		At: f.FinishedAt, OperatorID: f.OperatorID, Note: f.Note, Copy: j.Copy, BookHead: head,
	}, drawn)
}

// takenAt is the time on the paper: the ledger's, or where it has not spoken yet, when the money was taken here.
func takenAt(p payment.Payment) time.Time {
	switch {
	case !p.FinishedAt.IsZero():
		return p.FinishedAt
	case !p.AcceptedAt.IsZero():
		return p.AcceptedAt
	}
	return p.CreatedAt
}

// way is how the trade was paid, for the paper.
func way(p payment.Payment) receipt.Way {
	switch {
	case p.Path == payment.Offline:
		return receipt.ByOffline
	case p.Path == payment.Receipt:
		return receipt.ByReceipt
	case p.Mode == payment.ByOrder:
		return receipt.ByShownOrder
	}
	return receipt.ByCustomerCode
}

// drawn draws a code, one dot a module, for printers that draw none themselves.
func drawn(text string) (printer.Bits, error) {
	p, err := paycode.Draw(text)
	if err != nil {
		return printer.Bits{}, err
	}
	width, rows, bits := p.Raster(1)
	return printer.Bits{WidthBytes: width, Rows: rows, Bits: bits, Modules: p.Side()}, nil
}

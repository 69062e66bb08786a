package web

import (
	"context"

	"yupos/ledgercache/payment"
)

// ConfirmRequest settles a shown ORDER while the line is down: by the RECEIPT that the phone shows, or by its digits.
type ConfirmRequest struct {
	ReceiptCode string `json:"receipt_code,omitempty" maxLength:"1024" doc:"the text of the RECEIPT code"`
	Digits      string `json:"digits,omitempty" pattern:"^[0-9]{8}$" doc:"the eight digits that the customer reads out"`
}

type confirmInput struct {
	OutTradeNo string `path:"out_trade_no"`
	Body       ConfirmRequest
}

func (s *Server) confirm(ctx context.Context, in *confirmInput) (*tradeOutput, error) {
	b := in.Body
	if (b.ReceiptCode == "") == (b.Digits == "") {
		return nil, badRequest(ctx, "body", "receipt_code 与 digits 必须且只能给一个", "exactly one of receipt_code and digits")
	}
	s.audit(ctx, "confirm", in.OutTradeNo)
	var p payment.Payment
	var err error
	if b.ReceiptCode != "" {
		p, err = s.till.ConfirmReceipt(ctx, in.OutTradeNo, b.ReceiptCode)
	} else {
		p, err = s.till.ConfirmDigits(ctx, in.OutTradeNo, b.Digits, callerOf(ctx).Name)
	}
	if err != nil {
		return nil, err
	}
	return s.answer(ctx, p, 0, false)
}

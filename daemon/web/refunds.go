package web

import (
	"context"
	"errors"
	"net/http"

	"yupos/daemon/auth"
	"yupos/daemon/till"
	"yupos/ledgercache"
	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
)

// RefundRequest asks to give money back to the wallet that paid.
type RefundRequest struct {
	OutRefundNo string `json:"out_refund_no" minLength:"1" maxLength:"64" pattern:"^[_|*@.-]*[A-Za-z0-9][A-Za-z0-9_|*@.-]*$" doc:"the register's number of the refund, unique here"`
	RefundFen   int64  `json:"refund_fen" minimum:"1" maximum:"4294967295" doc:"whole fen"`
	Reason      string `json:"reason,omitempty" maxLength:"256"`
	OperatorID  string `json:"operator_id,omitempty" maxLength:"32" doc:"a label; who did it is the caller of the token"`
	Currency    string `json:"currency,omitempty" doc:"CNY, the default; any other is refused"`
}

type refundInput struct {
	WaitParam
	OutTradeNo string `path:"out_trade_no"`
	Body       RefundRequest
}

type refundQuery struct {
	WaitParam
	OutRefundNo string `path:"out_refund_no"`
}

type refundOutput struct {
	Status   int
	Replayed string `header:"Idempotent-Replayed" doc:"true when the same request had been answered before"`
	Body     Refund
}

func (s *Server) addRefunds() {
	operation(s, http.MethodPost, "/v1/trade/{out_trade_no}/refunds", "refund", "退款 · refund to the paying wallet", auth.Refund, s.refund)
	operation(s, http.MethodGet, "/v1/refunds/{out_refund_no}", "query-refund", "查退款 · query a refund", auth.Query, s.queryRefund)
}

func (s *Server) refund(ctx context.Context, in *refundInput) (*refundOutput, error) {
	d, err := in.duration(ctx)
	if err != nil {
		return nil, err
	}
	if err := money.CheckCurrency(in.Body.Currency); err != nil {
		return nil, err
	}
	s.audit(ctx, "refund", in.OutTradeNo)
	f, replayed, err := s.till.Refund(ctx, till.RefundRequest{
		OutTradeNo: in.OutTradeNo, OutRefundNo: in.Body.OutRefundNo, RefundFen: money.Fen(in.Body.RefundFen), Reason: in.Body.Reason,
		OperatorID: callerOf(ctx).Name,
	})
	if err != nil {
		return nil, err
	}
	if d > 0 && !f.Final() {
		if f, err = s.till.WaitRefund(ctx, f.OutRefundNo, d); err != nil {
			return nil, err
		}
	}
	return refundAnswer(f, replayed), nil
}

func (s *Server) queryRefund(ctx context.Context, in *refundQuery) (*refundOutput, error) {
	d, err := in.duration(ctx)
	if err != nil {
		return nil, err
	}
	f, err := s.till.WaitRefund(ctx, in.OutRefundNo, d)
	if errors.Is(err, ledgercache.ErrNotFound) {
		return nil, errRefundUnknown
	}
	if err != nil {
		return nil, err
	}
	return refundAnswer(f, false), nil
}

func refundAnswer(f payment.Refund, replayed bool) *refundOutput {
	out := &refundOutput{Status: http.StatusAccepted, Body: refundOf(f)}
	if f.Final() {
		out.Status = http.StatusOK
	}
	if replayed {
		out.Replayed = "true"
	}
	return out
}

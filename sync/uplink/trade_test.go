package uplink

import (
	"testing"
	"testing/synctest"

	"yupos/ledgercache/payment"
	"yupos/sync/wire"
)

func TestACodeThatTheLedgerTakesIsPaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t)
		s.untilUp()
		p := s.pay("A1", 1250)
		pay, _ := next[wire.Pay](l)
		if pay.TradeNo != p.TradeNo || pay.Attempt != 1 || pay.TotalFen != 1250 || pay.Repeat || string(pay.Code) != testCode+"A1" {
			t.Errorf("sent %+v", pay)
		}
		if p = s.trade(p.TradeNo, payment.Success); p.PaidFen != 1250 || p.Code != "" {
			t.Errorf("book holds %+v", p)
		}
	})
}

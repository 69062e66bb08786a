package main_test

import (
	"fmt"
	"testing"
	"time"
)

// both cuts the line of both terminals, or gives it back, and waits until both say so.
func (s *second) both(first *world, state string) {
	s.t.Helper()
	s.sim("POST", "/link", object{"up": state == "up"})
	first.link(state, 15*time.Second)
	s.link(state, 15*time.Second)
}

func (w *world) proved(config string) {
	w.t.Helper()
	w.expect(0, "核验通过", "journal", "verify", "-q", "-c", config)
}

func TestAReceiptOfAnotherTerminalWithTheSameNumberAndAmountIsNotTaken(t *testing.T) {
	t.Parallel()
	w := startWorld(t)
	s := w.enrollSecond(object{})
	s.both(w, "down")
	order := func(x *world) string {
		return x.api(200, "POST", "/v1/trade/precreate", object{"out_trade_no": "A1", "total_fen": 1250})["code"].(object)["text"].(string)
	}
	order(w)
	paid := w.sim("POST", "/wallets/13800000001/pay", object{"order_text": order(s.world)})
	receipt := object{"receipt_code": paid["receipt_text"]}
	if p := w.api(409, "POST", "/v1/trade/A1/confirm", receipt); p["code"] != "NOT_MY_ORDER" {
		t.Errorf("%v", p)
	}
	if p := w.api(409, "POST", "/v1/trade/A1/confirm", object{"digits": paid["digits"]}); p["code"] != "WRONG_DIGITS" {
		t.Errorf("the other terminal's digits: %v", p)
	}
	if trade := s.api(200, "POST", "/v1/trade/A1/confirm", receipt); trade["trade_state"] != "SUCCESS" || trade["path"] != "receipt" {
		t.Errorf("%v", trade)
	}
	if trade := w.api(202, "POST", "/v1/trade/A1/cancel", object{}); trade["trade_state"] != "UNKNOWN" {
		t.Errorf("%v", trade)
	}
	s.both(w, "up")
	w.becomes("A1", "CLOSED")
	w.bookAgreesWithLedger()
	s.bookAgreesWithLedger()
	w.proved(w.config())
	w.proved(s.config())
}

func TestTwoTerminalsThatTakeACustomerBeyondTheAllowanceArePaidByTheLedgersGuarantee(t *testing.T) {
	t.Parallel()
	w := startWorld(t)
	s := w.enrollSecond(object{})
	before := w.balance("13800000001")
	s.both(w, "down")
	take := func(x *world, no string, fen int) {
		if trade := x.pay(no, fen, w.code("13800000001", "SIGNED")); trade["trade_state"] != "ACCEPTED_OFFLINE" {
			t.Fatalf("%v", trade)
		}
	}
	for n, fen := range []int{20000, 20000, 10000} { // all that one terminal may take of one customer
		take(w, fmt.Sprintf("W%d", n), fen)
		take(s.world, fmt.Sprintf("S%d", n), fen)
	}
	later := w.code("13800000001", "SIGNED")
	if trade := w.pay("W9", 100, w.code("13800000001", "SIGNED")); trade["trade_state"] != "PAYERROR" || trade["reason"].(object)["code"] != "OVER_WALLET_ALLOWANCE" {
		t.Errorf("%v", trade)
	}
	s.both(w, "up")
	borne := 0
	for n, fen := range []int{20000, 20000, 10000} {
		for _, at := range []struct {
			world *world
			no    string
		}{{w, fmt.Sprintf("W%d", n)}, {s.world, fmt.Sprintf("S%d", n)}} {
			trade := at.world.becomes(at.no, "SUCCESS")
			if trade["bearer"] == "ledger" {
				borne += fen
			}
		}
	}
	if took := before - w.balance("13800000001"); took != 50000 || borne != 50000 {
		t.Errorf("the customer paid %v of an allowance of 50000, the ledger bears %d of 100000", took, borne)
	}
	// The wallet is blocked at its first conflict: every terminal learns it, and its later visits are refused.
	for _, at := range []*world{w, s.world} {
		at.until("the deny list is learned", 10*time.Second, func() bool { return at.terminal()["limits"].(object)["deny_list_version"].(float64) > 1 })
		if trade := at.pay(at.number(), 100, later); trade["trade_state"] != "PAYERROR" || trade["reason"].(object)["code"] != "WALLET_BLOCKED" {
			t.Errorf("a later visit: %v", trade)
		}
	}
	w.bookAgreesWithLedger()
	s.bookAgreesWithLedger()
	w.proved(w.config())
	w.proved(s.config())
}

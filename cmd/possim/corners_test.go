package main_test

import (
	"fmt"
	"testing"
	"time"
)

// unplugged is a world whose terminal has lost its ledger.
func unplugged(t *testing.T) *world {
	w := startWorld(t)
	w.sim("POST", "/link", object{"up": false})
	w.link("down", 15*time.Second)
	return w
}

func (w *world) plugIn() {
	w.t.Helper()
	w.sim("POST", "/link", object{"up": true})
	w.link("up", 5*time.Second)
}

// paidOrder shows an ORDER and lets a customer whose phone is online pay it; the terminal does not hear of it.
func (w *world) paidOrder(phone string, fen int) (no string, receipt, digits string) {
	w.t.Helper()
	no = w.number()
	shown := w.api(200, "POST", "/v1/trade/precreate", object{"out_trade_no": no, "total_fen": fen})
	paid := w.sim("POST", "/wallets/"+phone+"/pay", object{"order_text": shown["code"].(object)["text"]})
	receipt, _ = paid["receipt_text"].(string)
	digits, _ = paid["digits"].(string)
	return no, receipt, digits
}

// feeKnown waits until the ledger has confirmed a trade that was settled by evidence.
func (w *world) feeKnown(no string) object {
	w.t.Helper()
	deadline := time.Now().Add(40 * time.Second)
	for {
		trade := w.api(200, "GET", "/v1/trade/"+no, nil)
		if trade["fee_fen"] != nil {
			return trade
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the ledger never confirmed: %v", trade)
		}
		time.Sleep(50 * time.Millisecond) // the line is outside: nothing here can be awaited
	}
}

func TestTerminalOfflineCustomerOnlineByScannedReceipt(t *testing.T) {
	w := unplugged(t)
	before := w.balance("13800000001")
	no, receipt, _ := w.paidOrder("13800000001", 1250)
	w.sim("POST", "/scanner/scan", object{"text": receipt})
	trade := w.becomes(no, "SUCCESS")
	if trade["path"] != "receipt" || trade["final"] != true || trade["paid_fen"] != 1250.0 || trade["fee_fen"] != nil {
		t.Errorf("%v", trade)
	}
	w.receipts(1)
	// Killed before the ledger has heard of it: the same payment when the line is back.
	w.sim("POST", "/terminal", object{"action": "kill"})
	w.sim("POST", "/terminal", object{"action": "start"})
	w.plugIn()
	after := w.feeKnown(no)
	if after["trade_state"] != "SUCCESS" || after["trade_no"] != trade["trade_no"] || after["path"] != "receipt" {
		t.Errorf("%v", after)
	}
	if took := before - w.balance("13800000001"); took != 1250 {
		t.Errorf("the customer paid %v", took)
	}
	if list := w.receipts(1); len(list) != 1 {
		t.Errorf("%d receipts", len(list))
	}
	w.agrees()
}

func TestTerminalOfflineCustomerOnlineByTypedDigits(t *testing.T) {
	w := unplugged(t)
	no, _, digits := w.paidOrder("13800000002", 800)
	wrong := fmt.Sprintf("%08d", 1)
	if wrong == digits {
		wrong = fmt.Sprintf("%08d", 2)
	}
	path := "/v1/trade/" + no + "/confirm"
	if problem := w.api(409, "POST", path, object{"digits": wrong}); problem["code"] != "WRONG_DIGITS" {
		t.Errorf("%v", problem)
	}
	for _, bad := range []object{{}, {"digits": "1234567"}, {"digits": digits, "receipt_code": "x"}, {"code": "x"}} {
		w.api(400, "POST", path, bad)
	}
	if trade := w.api(200, "POST", path, object{"digits": digits}); trade["trade_state"] != "SUCCESS" || trade["path"] != "receipt" || trade["paid_fen"] != nil {
		t.Errorf("%v", trade)
	}
	w.plugIn()
	if trade := w.feeKnown(no); trade["paid_fen"] != 800.0 {
		t.Errorf("%v", trade)
	}
	w.agrees()
}

func TestAShownOrderThatWasCancelledHereAndPaidThereIsSettledByItsReceipt(t *testing.T) {
	w := unplugged(t)
	no, receipt, _ := w.paidOrder("13800000003", 300)
	w.api(202, "POST", "/v1/trade/"+no+"/cancel", object{})
	again := w.number()
	w.api(202, "POST", "/v1/trade/pay", object{"out_trade_no": again, "total_fen": 300})
	w.sim("POST", "/scanner/scan", object{"text": receipt})
	w.becomes(no, "SUCCESS")
	w.becomes(again, "CLOSED")
	if problem := w.api(409, "POST", "/v1/trade/"+no+"/cancel", object{}); problem["code"] != "TRADE_PAID" {
		t.Errorf("%v", problem)
	}
	w.plugIn()
	w.feeKnown(no)
	w.agrees()
}

func TestAReceiptOfAnotherOrderOrAForgedOneSettlesNothing(t *testing.T) {
	w := unplugged(t)
	first, receipt, _ := w.paidOrder("13800000001", 300)
	w.api(202, "POST", "/v1/trade/"+first+"/cancel", object{})
	second, _, _ := w.paidOrder("13800000002", 300)
	if problem := w.api(409, "POST", "/v1/trade/"+second+"/confirm", object{"receipt_code": receipt}); problem["code"] != "NOT_MY_ORDER" {
		t.Errorf("%v", problem)
	}
	forged := receipt[:150] + flipped(receipt[150:151]) + receipt[151:]
	if problem := w.api(409, "POST", "/v1/trade/"+first+"/confirm", object{"receipt_code": forged}); problem["code"] != "RECEIPT_FORGED" {
		t.Errorf("%v", problem)
	}
	if trade := w.api(202, "GET", "/v1/trade/"+second, nil); trade["trade_state"] == "SUCCESS" {
		t.Errorf("%v", trade)
	}
	w.plugIn()
	w.agrees()
}

func flipped(letter string) string {
	if letter == "A" {
		return "B"
	}
	return "A"
}

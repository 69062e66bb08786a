package main_test

import (
	"net/http"
	"testing"
	"time"
)

func (w *world) terminal() object {
	w.t.Helper()
	return w.api(200, "GET", "/v1/terminal", nil)
}

// link waits until the terminal says that its line is up or down.
func (w *world) link(state string, within time.Duration) {
	w.t.Helper()
	deadline := time.Now().Add(within)
	for w.terminal()["link"].(object)["state"] != state {
		if time.Now().After(deadline) {
			w.t.Fatalf("the line is not %s after %s: %v", state, within, w.terminal()["link"])
		}
		time.Sleep(20 * time.Millisecond) // the terminal is outside: nothing here can be awaited
	}
}

func TestAKilledTerminalStartsAgainWithNothingLost(t *testing.T) {
	w := startWorld(t)
	paid := w.number()
	w.pay(paid, 1250, w.code("13800000001", "ONLINE"))
	w.receipts(1)
	order := w.number()
	shown := w.api(200, "POST", "/v1/trade/precreate", object{"out_trade_no": order, "total_fen": 700})
	before := w.terminal()
	w.sim("POST", "/terminal", object{"action": "kill"})
	if resp, err := http.Get(w.address.Till + "/readyz"); err == nil {
		resp.Body.Close()
		t.Fatal("the terminal still answers")
	}
	// The customer pays while the terminal is dead.
	w.sim("POST", "/wallets/13800000002/pay", object{"order_text": shown["code"].(object)["text"]})
	w.sim("POST", "/terminal", object{"action": "start"})
	if trade := w.api(200, "GET", "/v1/trade/"+paid, nil); trade["trade_state"] != "SUCCESS" || trade["paid_fen"] != 1250.0 {
		t.Errorf("%v", trade)
	}
	if trade := w.becomes(order, "SUCCESS"); trade["trade_no"] != shown["trade_no"] {
		t.Errorf("%v", trade)
	}
	after := w.terminal()
	if after["book"].(object)["sequence"].(float64) < before["book"].(object)["sequence"].(float64) {
		t.Errorf("the book went back: %v, was %v", after["book"], before["book"])
	}
	w.receipts(2)
	w.agrees()
}

func TestKilledWithAPaymentOnItsWayTheTruthIsTheLedgers(t *testing.T) {
	w := startWorld(t)
	for i, fault := range []string{"drop_reply", "drop_request", "delay"} {
		phone := []string{"13800000001", "13800000002", "13800000003"}[i]
		before := w.balance(phone)
		w.sim("POST", "/faults", object{"op": "pay", "action": fault, "probability": 1, "times": 1, "latency_ms": 1500})
		no := w.number()
		trade := w.api(202, "POST", "/v1/trade/pay", object{"out_trade_no": no, "total_fen": 400, "auth_code": w.code(phone, "ONLINE")})
		if trade["trade_state"] != "UNKNOWN" || trade["next_action"] != "query" || trade["final"] != false {
			t.Errorf("%s: %v", fault, trade)
		}
		w.sim("POST", "/terminal", object{"action": "kill"})
		w.sim("POST", "/terminal", object{"action": "start"})
		deadline := time.Now().Add(90 * time.Second)
		for trade["final"] != true {
			_, trade, _ = w.call("GET", w.address.Till+"/v1/trade/"+no+"?wait=5s", w.address.Token, nil)
			if time.Now().After(deadline) {
				t.Fatalf("%s: never ended: %v", fault, trade)
			}
		}
		took := before - w.balance(phone)
		if trade["trade_state"] == "SUCCESS" && took != 400 || trade["trade_state"] != "SUCCESS" && took != 0 {
			t.Errorf("%s: the trade is %v and the customer paid %v", fault, trade["trade_state"], took)
		}
		w.sim("DELETE", "/faults", nil)
	}
	w.agrees()
}

func TestALostAnswerIsAskedForAndNeverChargedTwice(t *testing.T) {
	w := startWorld(t)
	before := w.balance("13800000001")
	w.sim("POST", "/faults", object{"op": "pay", "action": "drop_reply", "probability": 1, "times": 1})
	no := w.number()
	start := time.Now()
	trade := w.pay(no, 900, w.code("13800000001", "ONLINE"))
	if trade["trade_state"] != "SUCCESS" || w.balance("13800000001") != before-900 {
		t.Errorf("%v, balance %v", trade, w.balance("13800000001"))
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("took %s", took)
	}
	w.agrees()
}

func TestWithTheLineDownNothingIsSentAndDynamicCodesStillShow(t *testing.T) {
	w := startWorld(t)
	code := w.code("13800000001", "ONLINE")
	signed := w.code("13800000001", "SIGNED")
	w.sim("POST", "/link", object{"up": false})
	w.link("down", 15*time.Second)
	trade := w.pay(w.number(), 100, code)
	if trade["trade_state"] != "PAYERROR" || trade["reason"].(object)["code"] != "CODE_NEEDS_LINK" {
		t.Errorf("%v", trade)
	}
	offline := w.number()
	if trade := w.pay(offline, 100, signed); trade["trade_state"] != "ACCEPTED_OFFLINE" {
		t.Errorf("SIGNED with the ledger's rule and time: %v", trade)
	}
	no := w.number()
	shown := w.api(200, "POST", "/v1/trade/precreate", object{"out_trade_no": no, "total_fen": 300})
	w.sim("POST", "/wallets/13800000002/pay", object{"order_text": shown["code"].(object)["text"]})
	w.sim("POST", "/link", object{"up": true})
	w.link("up", 5*time.Second)
	w.becomes(no, "SUCCESS")
	w.becomes(offline, "SUCCESS")
	w.agrees()
}

func TestTheLedgersTimeHoldsWithoutTheLedgerAndOverAKill(t *testing.T) {
	w := startWorld(t)
	trusted := func(when string) {
		t.Helper()
		c := w.terminal()["clock"].(object)
		if c["trusted"] != true || c["source"] != "LEDGER" || c["fault"] != "" || c["error_ms"].(float64) > 5000 {
			t.Errorf("%s: %v", when, c)
		}
	}
	w.clock("LEDGER")
	trusted("with the line up")
	w.sim("POST", "/link", object{"up": false})
	w.link("down", 15*time.Second)
	trusted("without the line")
	w.sim("POST", "/terminal", object{"action": "kill"})
	w.sim("POST", "/terminal", object{"action": "start"})
	trusted("after a kill, without the line")
	if trade := w.pay(w.number(), 100, w.code("13800000001", "SIGNED")); trade["trade_state"] != "ACCEPTED_OFFLINE" {
		t.Errorf("%v", trade)
	}
}

// clock waits until the terminal's time comes from there.
func (w *world) clock(source string) {
	w.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for w.terminal()["clock"].(object)["source"] != source {
		if time.Now().After(deadline) {
			w.t.Fatalf("the time does not come from %s: %v", source, w.terminal()["clock"])
		}
		time.Sleep(20 * time.Millisecond) // the terminal is outside: nothing here can be awaited
	}
}

func TestAnUnfinishedCancelEndsAfterTheLineIsBack(t *testing.T) {
	w := startWorld(t)
	no := w.number()
	shown := w.api(200, "POST", "/v1/trade/precreate", object{"out_trade_no": no, "total_fen": 300})
	before := w.balance("13800000002")
	w.sim("POST", "/link", object{"up": false})
	w.link("down", 15*time.Second)
	w.sim("POST", "/wallets/13800000002/pay", object{"order_text": shown["code"].(object)["text"]})
	cancelled := w.api(202, "POST", "/v1/trade/"+no+"/cancel", object{})
	if cancelled["trade_state"] != "UNKNOWN" || cancelled["reason"].(object)["code"] != "REVERSING" {
		t.Errorf("%v", cancelled)
	}
	next := w.number()
	w.api(200, "POST", "/v1/trade/precreate", object{"out_trade_no": next, "total_fen": 300}) // the counter is free
	w.sim("POST", "/link", object{"up": true})
	deadline := time.Now().Add(30 * time.Second)
	var trade object
	for trade["final"] != true {
		_, trade, _ = w.call("GET", w.address.Till+"/v1/trade/"+no+"?wait=2s", w.address.Token, nil)
		if time.Now().After(deadline) {
			t.Fatalf("never ended: %v", trade)
		}
	}
	// Paid before the reversal left: either the push of the payment came first, or the reversal gave the money back.
	took := before - w.balance("13800000002")
	if trade["trade_state"] == "REVOKED" && took != 0 || trade["trade_state"] == "SUCCESS" && took != 300 || trade["trade_state"] == "CLOSED" {
		t.Errorf("%v, the customer paid %v", trade, took)
	}
	w.agrees()
}

func TestTheWorldGoesOnInItsDirectory(t *testing.T) {
	dir := t.TempDir()
	w := startWorldIn(t, dir)
	no := w.number()
	w.pay(no, 1250, w.code("13800000001", "ONLINE"))
	balance := w.balance("13800000001")
	w.stop()
	again := startWorldIn(t, dir)
	if trade := again.api(200, "GET", "/v1/trade/"+no, nil); trade["trade_state"] != "SUCCESS" {
		t.Errorf("%v", trade)
	}
	if again.balance("13800000001") != balance || again.address.Token != w.address.Token {
		t.Error("balances or tokens did not survive")
	}
	again.pay("T90001", 100, again.code("13800000001", "ONLINE"))
	again.agrees()
}

func TestALedgerThatIsDownAtStartIsNormalLife(t *testing.T) {
	w := startWorld(t)
	w.sim("POST", "/terminal", object{"action": "kill"})
	w.sim("POST", "/link", object{"up": false})
	w.sim("POST", "/terminal", object{"action": "start"})
	w.link("down", time.Second)
	w.sim("POST", "/link", object{"up": true})
	w.link("up", 5*time.Second)
	w.pay(w.number(), 100, w.code("13800000004", "ONLINE"))
	w.agrees()
}

func TestAPrinterWithoutPaperNeverHoldsUpASale(t *testing.T) {
	w := startWorld(t)
	w.sim("POST", "/printer/state", object{"paper": "out"})
	trade := w.pay(w.number(), 100, w.code("13800000001", "ONLINE"))
	if trade["trade_state"] != "SUCCESS" {
		t.Errorf("%v", trade)
	}
	w.sim("POST", "/printer/state", object{"paper": "ok"})
	w.receipts(1)
	w.sim("POST", "/scanner/state", object{"connected": false})
	w.sim("POST", "/scanner/state", object{"connected": true})
	w.agrees()
}

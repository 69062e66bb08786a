package main_test

import (
	"image/png"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"yupos/devices/paycode"
)

func TestASaleByTheRegistersCode(t *testing.T) {
	w := startWorld(t)
	before := w.balance("13800000001")
	code := w.code("13800000001", "ONLINE")
	no := w.number()
	trade := w.pay(no, 1250, code)
	for field, want := range map[string]any{
		"out_trade_no": no, "trade_state": "SUCCESS", "final": true, "next_action": "none", "path": "online", "total_fen": 1250.0,
		"discount_fen": 0.0, "paid_fen": 1250.0, "fee_fen": 5.0, "refunded_fen": 0.0, "reason": nil,
	} {
		if got, ok := trade[field]; !ok || got != want {
			t.Errorf("%s = %v (present %v), want %v", field, got, ok, want)
		}
	}
	if got := w.balance("13800000001"); got != before-1250 {
		t.Errorf("the customer has %v, had %v", got, before)
	}
	if text, _ := trade["display_text"].(string); !strings.Contains(text, "收款成功") {
		t.Errorf("display_text %q", text)
	}

	status, again, header := w.call("POST", w.address.Till+"/v1/trade/pay?wait=25s", w.address.Token, object{"auth_code": code, "total_fen": 1250, "out_trade_no": no})
	if status != 200 || again["trade_no"] != trade["trade_no"] || header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("the same again: %d %v %q", status, again["trade_no"], header.Get("Idempotent-Replayed"))
	}
	if p := w.api(409, "POST", "/v1/trade/pay", object{"out_trade_no": no, "total_fen": 1251, "auth_code": code}); p["code"] != "OUT_TRADE_NO_USED" {
		t.Errorf("another amount: %v", p)
	}
	if got := w.balance("13800000001"); got != before-1250 {
		t.Errorf("a repeat took money: %v", got)
	}

	other := w.number()
	if used := w.pay(other, 1250, code); used["trade_state"] != "PAYERROR" || used["final"] != true {
		t.Errorf("a used code: %v", used)
	}
	receipt := w.receipts(1)[0].(object)
	for _, words := range []string{"12.50", no, "收款成功"} {
		if !strings.Contains(receipt["text"].(string), words) {
			t.Errorf("the receipt does not say %q:\n%v", words, receipt["text"])
		}
	}
	w.agrees()
}

func TestTheReceiptsPictureCanBeReadBack(t *testing.T) {
	w := startWorld(t)
	trade := w.pay(w.number(), 800, w.code("13800000002", "SIGNED"))
	if trade["trade_state"] != "SUCCESS" || trade["path"] != "online" {
		t.Fatalf("a SIGNED code on line: %v", trade)
	}
	w.receipts(1)
	resp, err := http.Get(w.address.Control + "/_sim/printer/receipts/1.png")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	picture, err := png.Decode(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	text, symbology, err := paycode.ReadImage(picture)
	if err != nil || symbology == "" || !strings.Contains(text, trade["trade_no"].(string)) {
		t.Errorf("the picture's code reads %q (%s), %v", text, symbology, err)
	}
}

func TestASaleByTheTerminalsScanner(t *testing.T) {
	w := startWorld(t)
	no := w.number()
	armed := w.api(202, "POST", "/v1/trade/pay", object{"out_trade_no": no, "total_fen": 1250})
	if armed["trade_state"] != "NOTPAY" || armed["next_action"] != "wait" || armed["paid_fen"] != nil {
		t.Fatalf("armed: %v", armed)
	}
	if d := w.display("amount"); d["amount_fen"] != 1250.0 {
		t.Errorf("the customer reads %v", d)
	}
	if p := w.api(409, "POST", "/v1/trade/pay", object{"out_trade_no": w.number(), "total_fen": 1}); p["code"] != "COUNTER_BUSY" {
		t.Errorf("a second armed sale: %v", p)
	}
	w.sim("POST", "/scanner/scan", object{"text": "134567890123456789"})
	deadline := time.Now().Add(10 * time.Second)
	for {
		trade := w.api(202, "GET", "/v1/trade/"+no, nil)
		if trade["next_action"] == "rescan" {
			if reason := trade["reason"].(object); reason["code"] != "FOREIGN_CODE" || !strings.Contains(reason["text"].(string), "微信") {
				t.Errorf("a WeChat code: %v", reason)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a foreign code changed nothing: %v", trade)
		}
	}
	w.sim("POST", "/scanner/scan", object{"text": w.code("13800000001", "ONLINE")})
	if trade := w.becomes(no, "SUCCESS"); trade["total_fen"] != 1250.0 {
		t.Errorf("%v", trade)
	}
	w.display("paid")
	w.receipts(1)
	w.agrees()
}

func TestASaleByADynamicCode(t *testing.T) {
	w := startWorld(t)
	no := w.number()
	trade := w.api(200, "POST", "/v1/trade/precreate", object{"out_trade_no": no, "total_fen": 2000})
	text := trade["code"].(object)["text"].(string)
	if trade["trade_state"] != "NOTPAY" || !strings.HasPrefix(text, "000201010212") {
		t.Fatalf("%v", trade)
	}
	if d := w.display("code"); d["code_text"] != text || d["amount_fen"] != 2000.0 {
		t.Errorf("the display shows %v", d)
	}
	before := w.balance("13800000003")
	paid := w.sim("POST", "/wallets/13800000003/pay", object{"order_text": text})
	if digits, _ := paid["digits"].(string); len(digits) != 8 || len(paid["receipt_text"].(string)) != 220 {
		t.Errorf("%v", paid)
	}
	done := w.becomes(no, "SUCCESS")
	if done["trade_no"] != trade["trade_no"] || done["path"] != "online" || w.balance("13800000003") != before-2000 {
		t.Errorf("%v, balance %v", done, w.balance("13800000003"))
	}
	w.display("paid")
	status, refused, _ := w.call("POST", w.address.Control+"/_sim/wallets/13800000004/pay", "", object{"order_text": text})
	if status < 400 || refused["code"] != "ORDER_PAID" {
		t.Errorf("paid twice: %d %v", status, refused)
	}
	w.agrees()
}

func TestCancelClosesWhatIsUnpaidAndRefusesWhatIsPaid(t *testing.T) {
	w := startWorld(t)
	no := w.number()
	order := w.api(200, "POST", "/v1/trade/precreate", object{"out_trade_no": no, "total_fen": 2000})
	w.call("POST", w.address.Till+"/v1/trade/"+no+"/cancel", w.address.Token, object{})
	closed := w.becomes(no, "CLOSED")
	if closed["final"] != true {
		t.Errorf("%v", closed)
	}
	status, refused, _ := w.call("POST", w.address.Control+"/_sim/wallets/13800000004/pay", "", object{"order_text": order["code"].(object)["text"]})
	if status < 400 {
		t.Errorf("a closed order was paid: %v", refused)
	}
	armed := w.number()
	w.api(202, "POST", "/v1/trade/pay", object{"out_trade_no": armed, "total_fen": 100})
	if done := w.api(200, "POST", "/v1/trade/"+armed+"/cancel", object{}); done["trade_state"] != "CLOSED" {
		t.Errorf("an armed counter: %v", done)
	}
	paid := w.number()
	w.pay(paid, 500, w.code("13800000001", "ONLINE"))
	if p := w.api(409, "POST", "/v1/trade/"+paid+"/cancel", object{}); p["code"] != "TRADE_PAID" {
		t.Errorf("a paid trade: %v", p)
	}
	w.agrees()
}

func TestRefundsAndCopies(t *testing.T) {
	w := startWorld(t)
	no := w.number()
	before := w.balance("13800000002")
	w.pay(no, 10000, w.code("13800000002", "ONLINE"))
	w.receipts(1)
	body := object{"out_refund_no": "RF1", "refund_fen": 3000, "reason": "退一件"}
	if p := w.api(403, "POST", "/v1/trade/"+no+"/refunds", body); p["code"] == nil {
		t.Errorf("without a manager's right: %v", p)
	}
	status, _, _ := w.call("POST", w.address.Till+"/v1/trade/"+no+"/refunds?wait=20s", w.address.ManagerToken, body)
	if status != 200 && status != 202 {
		t.Fatalf("refund: %d", status)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		r := w.manager(200, "GET", "/v1/refunds/RF1", nil)
		if r["refund_state"] == "SUCCESS" || r["state"] == "SUCCESS" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v", r)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if got := w.balance("13800000002"); got != before-7000 {
		t.Errorf("the customer has %v, had %v", got, before)
	}
	if trade := w.api(200, "GET", "/v1/trade/"+no, nil); trade["refunded_fen"] != 3000.0 || trade["trade_state"] != "SUCCESS" {
		t.Errorf("%v", trade)
	}
	if p := w.manager(409, "POST", "/v1/trade/"+no+"/refunds", object{"out_refund_no": "RF2", "refund_fen": 7001}); p["code"] == nil {
		t.Errorf("more than is left: %v", p)
	}
	w.receipts(2) // the refund's own slip
	w.api(200, "POST", "/v1/trade/"+no+"/print", object{})
	list := w.receipts(3)
	if text := list[len(list)-1].(object)["text"].(string); !strings.Contains(text, "重打印") {
		t.Errorf("a copy is not marked:\n%s", text)
	}
	w.agrees()
}

func TestFiftyIdenticalCallsAreOnePayment(t *testing.T) {
	w := startWorld(t)
	before := w.balance("13800000001")
	body := object{"out_trade_no": w.number(), "total_fen": 100, "auth_code": w.code("13800000001", "ONLINE")}
	var group sync.WaitGroup
	answers := make([]object, 50)
	for i := range answers {
		group.Go(func() {
			_, answers[i], _ = w.call("POST", w.address.Till+"/v1/trade/pay?wait=25s", w.address.Token, body)
		})
	}
	group.Wait()
	for _, a := range answers {
		if a["trade_no"] != answers[0]["trade_no"] || a["trade_state"] != "SUCCESS" {
			t.Fatalf("%v", a)
		}
	}
	if got := w.balance("13800000001"); got != before-100 {
		t.Errorf("the customer paid %v", before-got)
	}
	w.agrees()
}

func TestBadInputIsRefusedInWordsAndRecordsNothing(t *testing.T) {
	w := startWorld(t)
	for name, body := range map[string]string{
		"zero":             `{"out_trade_no":"X1","total_fen":0,"auth_code":"861234567890123459"}`,
		"negative":         `{"out_trade_no":"X1","total_fen":-5,"auth_code":"861234567890123459"}`,
		"fractional":       `{"out_trade_no":"X1","total_fen":12.5,"auth_code":"861234567890123459"}`,
		"a string":         `{"out_trade_no":"X1","total_fen":"1250","auth_code":"861234567890123459"}`,
		"too much":         `{"out_trade_no":"X1","total_fen":4294967296,"auth_code":"861234567890123459"}`,
		"beyond integers":  `{"out_trade_no":"X1","total_fen":1e30,"auth_code":"861234567890123459"}`,
		"another currency": `{"out_trade_no":"X1","total_fen":1,"currency":"USD"}`,
		"unknown field":    `{"out_trade_no":"X1","total_fen":1,"amount":3}`,
		"no amount":        `{"out_trade_no":"X1"}`,
		"no number":        `{"total_fen":1}`,
		"empty number":     `{"out_trade_no":"","total_fen":1}`,
		"no object":        `[1]`,
		"half an object":   `{"out_trade_no":"X1",`,
		"nothing":          ``,
	} {
		for _, verb := range []string{"pay", "precreate"} {
			status, p, header := w.call("POST", w.address.Till+"/v1/trade/"+verb, w.address.Token, body)
			if status < 400 || status > 499 || p["code"] == nil || p["detail"] == nil || p["detail_en"] == nil || p["retryable"] == nil || p["trace_id"] == nil {
				t.Errorf("%s, %s: %d %v", name, verb, status, p)
			}
			if !strings.HasPrefix(header.Get("Content-Type"), "application/problem+json") {
				t.Errorf("%s, %s: %s", name, verb, header.Get("Content-Type"))
			}
		}
	}
	if p := w.api(404, "GET", "/v1/trade/X1", nil); p["code"] != "TRADE_NOT_FOUND" {
		t.Errorf("something was recorded: %v", p)
	}
	if status, _, _ := w.call("GET", w.address.Till+"/v1/terminal", "", nil); status != 401 {
		t.Errorf("without a token: %d", status)
	}
}

func TestCodesThatCannotPayAreRefusedByName(t *testing.T) {
	w := startWorld(t)
	for name, c := range map[string]struct{ code, reason string }{
		"WeChat":        {"134567890123456789", "FOREIGN_CODE"},
		"Alipay":        {"281234567890123456", "FOREIGN_CODE"},
		"a goods code":  {"6901234567892", "FOREIGN_CODE"},
		"a web address": {"https://example.com/pay", "FOREIGN_CODE"},
		"bad digit":     {"861234567890123450", "MALFORMED"},
	} {
		trade := w.pay(w.number(), 100, c.code)
		if trade["trade_state"] != "PAYERROR" || trade["final"] != true || trade["reason"].(object)["code"] != c.reason {
			t.Errorf("%s: %v", name, trade)
		}
	}
	if trade := w.pay(w.number(), 100, "861234567890123459"); trade["trade_state"] != "PAYERROR" {
		t.Errorf("an ONLINE code nobody made: %v", trade)
	}
	if trade := w.pay(w.number(), 600000, w.code("13800000001", "ONLINE")); trade["trade_state"] != "PAYERROR" {
		t.Errorf("more than the customer has: %v", trade)
	}
	if trade := w.pay(w.number(), 100001, w.code("13800000001", "SIGNED")); trade["reason"].(object)["code"] != "OVER_CODE_LIMIT" {
		t.Errorf("more than the code allows: %v", trade)
	}
	w.agrees()
}

package web

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"yupos/ledgercache/payment"
)

var update = flag.Bool("update", false, "write the golden files")

func TestATradeLooksTheSameForEver(t *testing.T) {
	at := time.Date(2026, 11, 23, 15, 59, 59, 500e6, time.UTC)
	order := payment.Payment{
		TradeNo: "01KASF3NAZ0123456789ABCDEF", OutTradeNo: "A1", Mode: payment.ByOrder, State: payment.NotPay, Path: payment.Online,
		TotalFen: 1250, Subject: "小面", Attach: "桌 3", OperatorID: "op1", CreatedAt: at, ExpiresAt: at.Add(time.Minute), OrderText: "000201…",
	}
	paid := order
	paid.State, paid.Settled, paid.PaidFen, paid.DiscountFen, paid.FeeFen, paid.LedgerNo = payment.Success, true, 1200, 50, 5, "01KASF3NAZ0123456789LEDGER"
	paid.FinishedAt, paid.RefundedFen = at.Add(time.Second), 300
	refused := payment.Payment{
		TradeNo: "01KASF3NAZ0123456789ABCDEG", OutTradeNo: "A2", Mode: payment.ByCode, State: payment.PayError, Path: payment.Online, TotalFen: 1,
		CreatedAt: at, FinishedAt: at, Reason: "FOREIGN_CODE", Foreign: "WECHAT",
	}
	got, err := json.MarshalIndent([]Trade{tradeOf(order, at), tradeOf(order, at.Add(time.Minute)), tradeOf(paid, at), tradeOf(refused, at)}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	const file = "testdata/trades.json"
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(append(got, '\n'), want) {
		t.Errorf("%v\n%s", err, got)
	}
}

func TestASaleFromOpeningToRefund(t *testing.T) {
	c := newCounter(t)
	body := `{"out_trade_no":"A1","total_fen":1250,"auth_code":"` + online(t, "861234567890123") + `"}`
	r := c.call("POST", "/v1/trade/pay", registerToken, body)
	if r.status != 202 || r.body["trade_state"] != "UNKNOWN" || r.body["next_action"] != "query" || r.body["paid_fen"] != nil || r.header.Get("Idempotent-Replayed") != "" {
		t.Fatalf("%d %s", r.status, r.raw)
	}
	done := make(chan reply, 1)
	go func() { done <- c.call("GET", "/v1/trade/A1?wait=20s", registerToken, "") }()
	c.paid("A1")
	if r := <-done; r.status != 200 || r.body["trade_state"] != "SUCCESS" || r.body["fee_fen"] != 5.0 || r.body["code"] != nil || r.body["reason"] != nil {
		t.Fatalf("%d %s", r.status, r.raw)
	}
	again := c.call("POST", "/v1/trade/pay?wait=5", registerToken, `{"auth_code":"`+online(t, "861234567890123")+`","total_fen":1250,"out_trade_no":"A1","currency":"CNY"}`)
	if again.status != 200 || again.header.Get("Idempotent-Replayed") != "true" || again.body["trade_no"] != r.body["trade_no"] {
		t.Errorf("again: %d %s", again.status, again.raw)
	}
	for want, call := range map[string]reply{
		"OUT_TRADE_NO_USED": c.call("POST", "/v1/trade/pay", registerToken, `{"out_trade_no":"A1","total_fen":1}`),
		"TRADE_PAID":        c.call("POST", "/v1/trade/A1/cancel", registerToken, ""),
		"REFUND_OVER_PAID":  c.call("POST", "/v1/trade/A1/refunds", managerToken, `{"out_refund_no":"R1","refund_fen":1251}`),
	} {
		if call.status != 409 || call.body["code"] != want {
			t.Errorf("%s: %d %s", want, call.status, call.raw)
		}
	}
	f := c.call("POST", "/v1/trade/A1/refunds", managerToken, `{"out_refund_no":"R1","refund_fen":250,"reason":"退一件"}`)
	if f.status != 202 || f.body["refund_state"] != "PROCESSING" || f.body["operator_id"] != "manager" || f.body["note"] != "退一件" {
		t.Errorf("refund: %d %s", f.status, f.raw)
	}
	if r := c.call("GET", "/v1/refunds/R1", registerToken, ""); r.status != 202 {
		t.Errorf("%d %s", r.status, r.raw)
	}
	if j := c.api(200, "POST", "/v1/trade/A1/print", `{}`); j["state"] != "queued" {
		t.Errorf("%v", j)
	}
	list := c.api(200, "GET", "/v1/trades?date=today&state=SUCCESS", "")
	if trades := list["trades"].([]any); len(trades) != 1 || list["next_cursor"] != nil {
		t.Errorf("%v", list)
	}
	sold := list["trades"].([]any)[0].(map[string]any)
	for query, want := range map[string]int{
		fmt.Sprintf("min_fen=%v&max_fen=%v", sold["total_fen"], sold["total_fen"]): 1, fmt.Sprintf("min_fen=%v", sold["total_fen"].(float64)+1): 0,
		fmt.Sprintf("operator_id=%v&date=today", sold["operator_id"]): 1, "operator_id=nobody": 0, "from=2020-01-01T00:00:00%2B08:00": 1,
		"to=2020-01-01T00:00:00%2B08:00": 0, fmt.Sprintf("digits=%v", sold["out_trade_no"]): 1, "digits=zzzzzz": 0,
	} {
		if trades := c.api(200, "GET", "/v1/trades?"+query, "")["trades"].([]any); len(trades) != want {
			t.Errorf("%s: %d trades", query, len(trades))
		}
	}
	if strings.Contains(c.log.String(), online(t, "861234567890123")) || strings.Contains(c.log.String(), managerToken) {
		t.Errorf("a code or a token stands in the log:\n%s", c.log)
	}
}

func TestTheCounterHoldsOneSale(t *testing.T) {
	c := newCounter(t)
	if r := c.api(202, "POST", "/v1/trade/pay", `{"out_trade_no":"B1","total_fen":100}`); r["trade_state"] != "NOTPAY" || r["next_action"] != "wait" {
		t.Errorf("%v", r)
	}
	if r := c.api(409, "POST", "/v1/trade/precreate", `{"out_trade_no":"B2","total_fen":100}`); r["code"] != "COUNTER_BUSY" || r["retryable"] != true {
		t.Errorf("%v", r)
	}
	if r := c.api(200, "POST", "/v1/trade/B1/cancel", ""); r["trade_state"] != "CLOSED" {
		t.Errorf("%v", r)
	}
	r := c.api(200, "POST", "/v1/trade/precreate", `{"out_trade_no":"B2","total_fen":100}`)
	if code := r["code"].(map[string]any); !strings.HasPrefix(code["text"].(string), "000201010212") {
		t.Errorf("%v", r)
	}
	if svg := c.call("GET", "/display/code.svg", "", ""); svg.status != 200 || !bytes.Contains(svg.raw, []byte("<svg")) {
		t.Errorf("%d %.80s", svg.status, svg.raw)
	}
	if r := c.call("POST", "/v1/trade/B2/cancel", registerToken, `{}`); r.status != 202 || r.body["reason"].(map[string]any)["code"] != "REVERSING" || r.body["code"] != nil {
		t.Errorf("%d %s", r.status, r.raw)
	}
}

func TestWhoMayDoWhat(t *testing.T) {
	c := newCounter(t)
	for name, s := range map[string]struct {
		method, path, token, body string
		status                    int
		code                      string
	}{
		"no token":                    {"GET", "/v1/terminal", "", "", 401, "UNAUTHORIZED"},
		"a wrong token":               {"GET", "/v1/terminal", "nobody", "", 401, "UNAUTHORIZED"},
		"a wrong token with bad body": {"POST", "/v1/trade/pay", "nobody", "{", 401, "UNAUTHORIZED"},
		"a cashier's refund":          {"POST", "/v1/trade/X/refunds", registerToken, `{"out_refund_no":"R","refund_fen":1}`, 403, "FORBIDDEN"},
		"a cashier's shift":           {"POST", "/v1/shifts", registerToken, ``, 403, "FORBIDDEN"},
		"what comes later":            {"POST", "/v1/days/2026-11-23/close", managerToken, `{}`, 501, "NOT_AVAILABLE"},
		"a bill":                      {"GET", "/v1/bills/2026-11-23", managerToken, ``, 501, "NOT_AVAILABLE"},
		"no such address":             {"GET", "/v1/nothing", registerToken, ``, 404, "NOT_FOUND"},
		"a wrong method":              {"DELETE", "/v1/terminal", registerToken, ``, 405, "METHOD_NOT_ALLOWED"},
		"no such refund":              {"GET", "/v1/refunds/R9", registerToken, ``, 404, "REFUND_NOT_FOUND"},
		"no shift":                    {"GET", "/v1/shifts/current", registerToken, ``, 404, "NO_SHIFT"},
		"a bad day":                   {"GET", "/v1/trades?date=23.11.2026", registerToken, ``, 400, "BAD_REQUEST"},
		"an unknown parameter":        {"GET", "/v1/trades?day=2026-11-23", registerToken, ``, 400, "BAD_REQUEST"},
		"no event stream":             {"GET", "/v1/events", "", ``, 401, "UNAUTHORIZED"},
	} {
		t.Run(name, func(t *testing.T) {
			r := c.call(s.method, s.path, s.token, s.body)
			if r.status != s.status || r.body["code"] != s.code || r.header.Get("Content-Type") != "application/problem+json" || r.body["trace_id"] != r.header.Get("X-Trace-Id") {
				t.Errorf("%d %s", r.status, r.raw)
			}
		})
	}
}

func TestStrangersPagesReachNothing(t *testing.T) {
	c := newCounter(t)
	page := c.call("GET", "/", "", "")
	cookie := page.header.Get("Set-Cookie")
	for _, want := range []string{"HttpOnly", "SameSite=Strict", "yupos_session="} {
		if !strings.Contains(cookie, want) {
			t.Errorf("the cookie lacks %s: %s", want, cookie)
		}
	}
	if csp := page.header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'self'") {
		t.Errorf("%q", csp)
	}
	session, _, _ := strings.Cut(cookie, ";")
	request := func(method, path, host, origin string) reply {
		req, err := http.NewRequest(method, c.http.URL+path, strings.NewReader(`{"out_trade_no":"S1","total_fen":1}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Cookie", session)
		if origin != "" {
			req.Header.Set("Origin", origin)
			req.Header.Set("Sec-Fetch-Site", "cross-site")
		}
		if host != "" {
			req.Host = host
		}
		return c.do(req)
	}
	if r := request("POST", "/v1/trade/pay", "", ""); r.status != 202 {
		t.Errorf("the page itself: %d %s", r.status, r.raw)
	}
	if r := request("POST", "/v1/trade/S1/refunds", "", ""); r.status != 403 {
		t.Errorf("a refund by the page: %d %s", r.status, r.raw)
	}
	if r := request("POST", "/v1/trade/pay", "", "https://evil.example"); r.body["code"] != "CROSS_ORIGIN" {
		t.Errorf("another origin: %d %s", r.status, r.raw)
	}
	for _, path := range []string{"/", "/v1/trades", "/display/events", "/healthz"} {
		if r := request("GET", path, "evil.example", ""); r.body["code"] != "HOST_NOT_ALLOWED" || r.header.Get("Set-Cookie") != "" {
			t.Errorf("another name, %s: %d %s", path, r.status, r.raw)
		}
	}
}

func TestNoPageNamesAnAddressOutsideTheMachine(t *testing.T) {
	c := newCounter(t)
	entries, err := static.ReadDir("static")
	if err != nil || len(entries) == 0 {
		t.Fatal(err)
	}
	for _, e := range entries {
		r := c.call("GET", "/static/"+e.Name(), "", "")
		text := strings.ReplaceAll(string(r.raw), "http://www.w3.org/2000/svg", "")
		if r.status != 200 || strings.Contains(text, "http://") || strings.Contains(text, "https://") || strings.Contains(text, "//cdn") {
			t.Errorf("%s: %d", e.Name(), r.status)
		}
	}
	for _, page := range []string{"/", "/office", "/display"} {
		if r := c.call("GET", page, "", ""); r.status != 200 || !strings.HasPrefix(r.header.Get("Content-Type"), "text/html") {
			t.Errorf("%s: %d", page, r.status)
		}
	}
}

func TestOpenAPIDescribesWhatIsServed(t *testing.T) {
	c := newCounter(t)
	r := c.call("GET", "/openapi.json", "", "")
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]any
	}
	if err := json.Unmarshal(r.raw, &doc); err != nil || !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Fatalf("%v %.100s", err, r.raw)
	}
	for _, path := range []string{"/v1/trade/pay", "/v1/trade/precreate", "/v1/trade/{out_trade_no}", "/v1/trades", "/v1/terminal", "/v1/events", "/v1/refunds/{out_refund_no}"} {
		if doc.Paths[path] == nil {
			t.Errorf("%s is missing", path)
		}
	}
	if bytes.Contains(c.call("GET", "/v1/terminal", registerToken, "").raw, []byte("$schema")) {
		t.Error("answers carry $schema")
	}
}

func TestMetricsCountWhatEnded(t *testing.T) {
	c := newCounter(t)
	events := c.events("")
	c.api(202, "POST", "/v1/trade/pay", `{"out_trade_no":"M1","total_fen":100,"auth_code":"`+online(t, "861234567890123")+`"}`)
	c.paid("M1")
	events.until(t, "trade", `"trade_state":"SUCCESS"`)
	text := string(c.call("GET", "/metrics", "", "").raw)
	for _, want := range []string{`posd_trades_total{state="SUCCESS"} 1`, "posd_gateway_up 1", "posd_unknown_trades 0", `posd_build_info{version="test"`, "posd_queue_depth 0"} {
		if !strings.Contains(text, want+"") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if r := c.call("GET", "/readyz", "", ""); r.status != 200 {
		t.Errorf("%d", r.status)
	}
}

// reader reads a stream of events.
type reader struct {
	lines *bufio.Scanner
	id    string
}

func (c *counter) events(lastID string) *reader {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	c.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", c.http.URL+"/v1/events", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+registerToken)
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { resp.Body.Close() })
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	return &reader{lines: lines}
}

func (r *reader) next(t *testing.T) (name, data string) {
	t.Helper()
	for r.lines.Scan() {
		switch field, value, _ := strings.Cut(r.lines.Text(), ": "); field {
		case "id":
			r.id = value
		case "event":
			name = value
		case "data":
			data = value
		case "":
			if name != "" {
				return name, data
			}
		}
	}
	t.Fatalf("the stream ended: %v", r.lines.Err())
	return "", ""
}

// until reads on to an event of this name that holds the words, and answers its id.
func (r *reader) until(t *testing.T, name, words string) string {
	t.Helper()
	for {
		if n, data := r.next(t); n == name && strings.Contains(data, words) {
			return r.id
		}
	}
}

func TestTheStreamBeginsWithASnapshotAndReplaysWhatWasMissed(t *testing.T) {
	c := newCounter(t)
	first := c.events("")
	if name, data := first.next(t); name != "snapshot" || !strings.Contains(data, `"terminal_id":"10000001"`) || first.id == "" {
		t.Fatalf("%s %s", name, data)
	}
	c.api(202, "POST", "/v1/trade/pay", `{"out_trade_no":"E1","total_fen":100}`)
	seen := first.until(t, "trade", `"E1"`)
	c.api(200, "POST", "/v1/trade/E1/cancel", "")
	c.api(202, "POST", "/v1/trade/pay", `{"out_trade_no":"E2","total_fen":100}`)
	first.until(t, "trade", `"E2"`)

	second := c.events(seen)
	if name, _ := second.next(t); name != "snapshot" || second.id != seen {
		t.Errorf("a resumed stream begins with %s %s, not %s", name, second.id, seen)
	}
	second.until(t, "trade", `"trade_state":"CLOSED"`)
	second.until(t, "trade", `"E2"`)
	foreign := c.events("another-process-7")
	if name, data := foreign.next(t); name != "snapshot" || !strings.Contains(data, `"E2"`) {
		t.Errorf("%s %s", name, data)
	}
	if name, data := foreign.next(t); name == "trade" {
		t.Errorf("an unknown id was replayed: %s", data)
	}
}

package web

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"yupos/daemon/auth"
	"yupos/daemon/till"
	"yupos/devices/paycode"
	"yupos/devices/scanner"
	"yupos/ledgercache"
	"yupos/ledgercache/payment"
	"yupos/ledgercache/trust"
)

const (
	registerToken = "register-0123456789abcdef0123456789abcdef"
	managerToken  = "manager-0123456789abcdef0123456789abcdef"
)

// line is a line to the ledger that a test holds in its hand.
type line struct{ down atomic.Bool }

func (l *line) State() till.LinkState {
	return till.LinkState{Up: !l.down.Load(), Since: time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC), Reason: "", Text: "", TextEN: ""}
}
func (l *line) Nudge(string)                     {}
func (l *line) Watch() (<-chan struct{}, func()) { return make(chan struct{}), func() {} }

// counter is a till with a real book, served over real HTTP.
type counter struct {
	t     testing.TB
	book  *ledgercache.Book
	till  *till.Till
	line  *line
	scans chan scanner.Scan
	http  *httptest.Server
	log   *bytes.Buffer
	web   *Server
}

func newCounter(t testing.TB) *counter {
	t.Helper()
	c := &counter{t: t, line: &line{}, scans: make(chan scanner.Scan), log: &bytes.Buffer{}}
	var err error
	c.book, err = ledgercache.Open(context.Background(), ledgercache.Options{
		Dir: t.TempDir(), Key: [32]byte{1}, TerminalID: "10000001", ShiftAutoOpen: true,
		Pins: trust.Pins{{Role: trust.Policy, Public: public(policyKey)}}, Sign: evidence,
	})
	if err != nil {
		t.Fatal(err)
	}
	c.till = till.New(till.Options{
		Book: c.book, Link: c.line, Key: terminalKey, Scans: c.scans,
		Clock: func() ledgercache.Clock { return ledgercache.Clock{Trusted: true, Error: time.Second} },
		Issuers: func(now time.Time) paycode.Keys {
			return paycode.Keys{{Public: public(issuerKey), NotAfter: uint32(now.Unix() + 1000)}}
		},
		Receipts: func(now time.Time) paycode.Keys {
			return paycode.Keys{{Public: public(issuerKey), NotAfter: uint32(now.Unix() + 1000)}}
		},
		Shop: till.Shop{TerminalID: "10000001", MerchantID: "653000053310001", MCC: "5411", Name: "YUZHONG NOODLES", DisplayName: "渝中小面"},
		Devices: func() []till.Device {
			return []till.Device{{Name: "scanner", Kind: "scanner", State: "ok"}, {Name: "printer", Kind: "printer", State: "ok"}}
		},
	})
	log := slog.New(slog.NewJSONHandler(c.log, nil))
	c.web, err = New(Options{Till: c.till, Auth: c.tokens(), Version: "test", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	c.http = httptest.NewServer(c.web)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.till.Run(ctx) }()
	t.Cleanup(func() {
		c.web.Close()
		c.http.Close()
		cancel()
		<-done
		c.book.Close()
	})
	return c
}

func (c *counter) tokens() *auth.Auth {
	dir := c.t.TempDir()
	for name, token := range map[string]string{"register": registerToken, "manager": managerToken} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(token), 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
	cashier := []string{"pay", "query", "cancel", "print", "show", "events", "terminal"}
	a, err := auth.Load([]auth.Token{
		{Name: "register", File: filepath.Join(dir, "register"), Scopes: cashier},
		{Name: "manager", File: filepath.Join(dir, "manager"), Scopes: append(cashier, "refund", "shift", "office", "settings")},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return a
}

type reply struct {
	status int
	header http.Header
	raw    []byte
	body   map[string]any
}

func (c *counter) call(method, path, token, body string) reply {
	c.t.Helper()
	req, err := http.NewRequest(method, c.http.URL+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	return c.do(req)
}

func (c *counter) do(req *http.Request) reply {
	c.t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	r := reply{status: resp.StatusCode, header: resp.Header}
	if r.raw, err = io.ReadAll(resp.Body); err != nil {
		c.t.Fatal(err)
	}
	_ = json.Unmarshal(r.raw, &r.body)
	return r
}

// api calls with the register's token and expects a status.
func (c *counter) api(want int, method, path, body string) map[string]any {
	c.t.Helper()
	r := c.call(method, path, registerToken, body)
	if r.status != want {
		c.t.Fatalf("%s %s: %d, want %d\n%s", method, path, r.status, want, r.raw)
	}
	return r.body
}

func online(t testing.TB, random string) string {
	t.Helper()
	code, err := paycode.MakeOnline(random)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// paid lets the ledger say that the trade is paid.
func (c *counter) paid(outTradeNo string) {
	c.t.Helper()
	p, err := c.book.Trade(outTradeNo)
	if err != nil {
		c.t.Fatal(err)
	}
	_, err = c.book.Answer(context.Background(), payment.Answered{
		TradeNo: p.TradeNo, State: payment.Success, TotalFen: p.TotalFen, PaidFen: p.TotalFen, FeeFen: 5, PaidAt: time.Now(), LedgerNo: "01KASF3NAZ0123456789ABCDEF",
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

func TestBadInputIsRefusedInWordsAndRecordsNothing(t *testing.T) {
	c := newCounter(t)
	for name, b := range map[string]struct{ body, code, words string }{
		"a zero amount":                {`{"out_trade_no":"X1","total_fen":0}`, "BAD_REQUEST", "fen"},
		"a negative amount":            {`{"out_trade_no":"X1","total_fen":-5}`, "BAD_REQUEST", "fen"},
		"a fraction of a fen":          {`{"out_trade_no":"X1","total_fen":12.5}`, "BAD_REQUEST", "fen"},
		"an amount as a string":        {`{"out_trade_no":"X1","total_fen":"1250"}`, "BAD_REQUEST", "fen"},
		"an amount above the codes'":   {`{"out_trade_no":"X1","total_fen":4294967296}`, "BAD_REQUEST", "fen"},
		"an amount beyond integers":    {`{"out_trade_no":"X1","total_fen":1e30}`, "BAD_REQUEST", "fen"},
		"an amount that is no number":  {`{"out_trade_no":"X1","total_fen":NaN}`, "BAD_REQUEST", ""},
		"an amount that is null":       {`{"out_trade_no":"X1","total_fen":null}`, "BAD_REQUEST", "fen"},
		"no amount":                    {`{"out_trade_no":"X1"}`, "BAD_REQUEST", "fen"},
		"another currency":             {`{"out_trade_no":"X1","total_fen":1,"currency":"USD"}`, "CURRENCY_NOT_SUPPORTED", "CNY"},
		"a currency that is no string": {`{"out_trade_no":"X1","total_fen":1,"currency":156}`, "BAD_REQUEST", "CNY"},
		"an unknown field":             {`{"out_trade_no":"X1","total_fen":1,"amount":3}`, "BAD_REQUEST", "unknown field body.amount"},
		"no number":                    {`{"total_fen":1}`, "BAD_REQUEST", "letter or digit"},
		"an empty number":              {`{"out_trade_no":"","total_fen":1}`, "BAD_REQUEST", "letter or digit"},
		"a number with a blank":        {`{"out_trade_no":"X 1","total_fen":1}`, "BAD_REQUEST", "letter or digit"},
		"a number of dots":             {`{"out_trade_no":"..","total_fen":1}`, "BAD_REQUEST", "letter or digit"},
		"a number of 65":               {`{"out_trade_no":"` + strings.Repeat("X", 65) + `","total_fen":1}`, "BAD_REQUEST", "letter or digit"},
		"a list":                       {`[1]`, "BAD_REQUEST", ""},
		"half an object":               {`{"out_trade_no":"X1",`, "BAD_REQUEST", ""},
		"two objects":                  {`{"out_trade_no":"X1","total_fen":1}{}`, "BAD_REQUEST", ""},
		"nothing":                      {``, "BAD_REQUEST", ""},
		"too much":                     {`{"out_trade_no":"X1","total_fen":1,"subject":"` + strings.Repeat("x", 65<<10) + `"}`, "BODY_TOO_LARGE", "64 KiB"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, verb := range []string{"pay", "precreate"} {
				r := c.call("POST", "/v1/trade/"+verb, registerToken, b.body)
				if r.status < 400 || r.status > 499 || r.body["code"] != b.code {
					t.Errorf("%s: %d %s", verb, r.status, r.raw)
				}
				if en, _ := r.body["detail_en"].(string); !strings.Contains(en, b.words) || en == "" {
					t.Errorf("%s: in words: %q", verb, en)
				}
				if zh, _ := r.body["detail"].(string); zh == "" || r.body["trace_id"] == "" || r.body["retryable"] != false {
					t.Errorf("%s: %s", verb, r.raw)
				}
				if got := r.header.Get("Content-Type"); got != "application/problem+json" {
					t.Errorf("%s: %s", verb, got)
				}
			}
		})
	}
	for _, wait := range []string{"-1s", "61s", "forever", "99", "1e9s"} {
		if r := c.call("POST", "/v1/trade/pay?wait="+wait, registerToken, `{"out_trade_no":"X1","total_fen":1}`); r.status != 400 {
			t.Errorf("wait=%s: %d %s", wait, r.status, r.raw)
		}
	}
	if r := c.api(404, "GET", "/v1/trade/X1", ""); r["code"] != "TRADE_NOT_FOUND" {
		t.Errorf("%v", r)
	}
}

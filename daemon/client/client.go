// Package client is the register API as a typed client, for posctl and for tests.
//
// Guarantees: a refusal of the terminal is a *Problem with its stable code; a failure to reach the terminal is ErrUnreachable
// and says nothing about what became of the request: ask again with the same number. No error carries a token or a pay
// code. A Client is safe for concurrent use.
package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// ErrUnreachable says that the terminal did not answer.
var ErrUnreachable = errors.New("client: terminal does not answer")

// maxAnswer bounds one answer, in bytes.
const maxAnswer = 16 << 20

// Problem is a refusal of the terminal (RFC 9457).
type Problem struct {
	Status    int    `json:"status"`
	Code      string `json:"code"`
	Detail    string `json:"detail"`
	DetailEN  string `json:"detail_en"`
	Retryable bool   `json:"retryable"`
	TraceID   string `json:"trace_id"`
}

// Error is the refusal for people, in both languages.
func (p *Problem) Error() string {
	return fmt.Sprintf("%s · %s (%s, trace %s)", p.Detail, p.DetailEN, p.Code, p.TraceID)
}

// Reason is why a trade stands where it stands.
type Reason struct {
	Code   string `json:"code"`
	Text   string `json:"text"`
	TextEN string `json:"text_en"`
}

// Code is an ORDER that a customer may pay now.
type Code struct {
	Text      string    `json:"text"`
	ExpiresAt time.Time `json:"expires_at"`
}

// Trade is a trade. Amounts are fen; nil is what the ledger has not said yet.
type Trade struct {
	OutTradeNo    string     `json:"out_trade_no"`
	TradeNo       string     `json:"trade_no"`
	LedgerNo      *string    `json:"ledger_no"`
	TradeState    string     `json:"trade_state"`
	Final         bool       `json:"final"`
	NextAction    string     `json:"next_action"`
	Path          string     `json:"path"`
	Mode          string     `json:"mode"`
	TotalFen      int64      `json:"total_fen"`
	DiscountFen   *int64     `json:"discount_fen"`
	PaidFen       *int64     `json:"paid_fen"`
	FeeFen        *int64     `json:"fee_fen"`
	RefundedFen   int64      `json:"refunded_fen"`
	TotalYuan     string     `json:"total_yuan"`
	Subject       string     `json:"subject"`
	Attach        string     `json:"attach"`
	OperatorID    string     `json:"operator_id"`
	CreatedAt     time.Time  `json:"created_at"`
	FinishedAt    *time.Time `json:"finished_at"`
	BizDate       string     `json:"biz_date"`
	DisplayText   string     `json:"display_text"`
	DisplayTextEN string     `json:"display_text_en"`
	Reason        *Reason    `json:"reason"`
	Code          *Code      `json:"code"`
}

// EndsWait reports whether nobody needs to wait any longer: final, or taken offline.
func (t Trade) EndsWait() bool { return t.Final || t.TradeState == "ACCEPTED_OFFLINE" }

// Refund is a refund.
type Refund struct {
	OutRefundNo   string  `json:"out_refund_no"`
	RefundNo      string  `json:"refund_no"`
	OutTradeNo    string  `json:"out_trade_no"`
	TradeNo       string  `json:"trade_no"`
	RefundState   string  `json:"refund_state"`
	Final         bool    `json:"final"`
	RefundFen     int64   `json:"refund_fen"`
	FeeBackFen    *int64  `json:"fee_back_fen"`
	DisplayText   string  `json:"display_text"`
	DisplayTextEN string  `json:"display_text_en"`
	Reason        *Reason `json:"reason"`
}

// PrintJob is one receipt on its way to paper.
type PrintJob struct {
	ID    string `json:"id"`
	Copy  int    `json:"copy"`
	State string `json:"state"`
}

// Amounts are money, how many, and the oldest.
type Amounts struct {
	Fen      int64      `json:"fen"`
	Count    int        `json:"count"`
	OldestAt *time.Time `json:"oldest_at"`
}

// Words are a coded sentence for people.
type Words struct {
	Code   string `json:"code"`
	Text   string `json:"text"`
	TextEN string `json:"text_en"`
}

// Device is one thing at the counter.
type Device struct {
	Name, Kind, State, Text string
	TextEN                  string `json:"text_en"`
}

// Terminal is what there is to know about the terminal.
type Terminal struct {
	TerminalID string `json:"terminal_id"`
	MerchantID string `json:"merchant_id"`
	Merchant   string `json:"merchant"`
	Link       struct {
		State  string    `json:"state"`
		Since  time.Time `json:"since"`
		Reason string    `json:"reason"`
		Text   string    `json:"text"`
	} `json:"link"`
	Queue    Amounts  `json:"queue"`
	Devices  []Device `json:"devices"`
	Warnings []Words  `json:"warnings"`
	Shift    *struct {
		Number     uint64 `json:"number"`
		OperatorID string `json:"operator_id"`
		Count      int    `json:"count"`
		TotalFen   int64  `json:"total_fen"`
	} `json:"shift"`
}

// Sale is what is asked for.
type Sale struct {
	OutTradeNo string `json:"out_trade_no"`
	TotalFen   int64  `json:"total_fen"`
	AuthCode   string `json:"auth_code,omitempty"`
	Subject    string `json:"subject,omitempty"`
	Attach     string `json:"attach,omitempty"`
	OperatorID string `json:"operator_id,omitempty"`
	Offline    string `json:"offline,omitempty"`
}

// Client speaks to one terminal.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// New makes a client of a terminal's origin, like http://127.0.0.1:8600, and a token.
func New(base, token string) *Client {
	return &Client{base: strings.TrimRight(base, "/"), token: token, http: &http.Client{}}
}

// Pay takes a payment; without AuthCode it arms the terminal's scanner. It waits up to wait, at most 60 s.
func (c *Client) Pay(ctx context.Context, s Sale, wait time.Duration) (t Trade, err error) {
	return t, c.call(ctx, http.MethodPost, "/v1/trade/pay"+waiting(wait), s, &t)
}

// Precreate shows a dynamic code.
func (c *Client) Precreate(ctx context.Context, s Sale) (t Trade, err error) {
	return t, c.call(ctx, http.MethodPost, "/v1/trade/precreate", s, &t)
}

// Query answers a trade, waiting for its end up to wait.
func (c *Client) Query(ctx context.Context, outTradeNo string, wait time.Duration) (t Trade, err error) {
	return t, c.call(ctx, http.MethodGet, tradePath(outTradeNo)+waiting(wait), nil, &t)
}

// Cancel closes or reverses a trade.
func (c *Client) Cancel(ctx context.Context, outTradeNo string, wait time.Duration) (t Trade, err error) {
	return t, c.call(ctx, http.MethodPost, tradePath(outTradeNo)+"/cancel"+waiting(wait), struct{}{}, &t)
}

// Print queues a copy of a receipt.
func (c *Client) Print(ctx context.Context, outTradeNo string) (j PrintJob, err error) {
	return j, c.call(ctx, http.MethodPost, tradePath(outTradeNo)+"/print", struct{}{}, &j)
}

// Refund gives money back to the paying wallet.
func (c *Client) Refund(ctx context.Context, outTradeNo, outRefundNo string, fen int64, reason string, wait time.Duration) (f Refund, err error) {
	body := struct {
		OutRefundNo string `json:"out_refund_no"`
		RefundFen   int64  `json:"refund_fen"`
		Reason      string `json:"reason,omitempty"`
	}{outRefundNo, fen, reason}
	return f, c.call(ctx, http.MethodPost, tradePath(outTradeNo)+"/refunds"+waiting(wait), body, &f)
}

// QueryRefund answers a refund, waiting for its end up to wait.
func (c *Client) QueryRefund(ctx context.Context, outRefundNo string, wait time.Duration) (f Refund, err error) {
	return f, c.call(ctx, http.MethodGet, "/v1/refunds/"+url.PathEscape(outRefundNo)+waiting(wait), nil, &f)
}

// Trades lists trades, newest first; query holds date, state, limit and cursor.
func (c *Client) Trades(ctx context.Context, query url.Values) (list []Trade, next string, err error) {
	var page struct {
		Trades     []Trade `json:"trades"`
		NextCursor *string `json:"next_cursor"`
	}
	err = c.call(ctx, http.MethodGet, "/v1/trades?"+query.Encode(), nil, &page)
	if page.NextCursor != nil {
		next = *page.NextCursor
	}
	return page.Trades, next, err
}

// Terminal answers what there is to know about the terminal.
func (c *Client) Terminal(ctx context.Context) (t Terminal, err error) {
	return t, c.call(ctx, http.MethodGet, "/v1/terminal", nil, &t)
}

// Sync lets the terminal ask the ledger about everything that is open.
func (c *Client) Sync(ctx context.Context) (t Terminal, err error) {
	return t, c.call(ctx, http.MethodPost, "/v1/terminal/sync", struct{}{}, &t)
}

func tradePath(outTradeNo string) string { return "/v1/trade/" + url.PathEscape(outTradeNo) }

func waiting(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return "?wait=" + min(d, time.Minute).String()
}

func (c *Client) request(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("client: %w", err)
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return resp, nil
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.request(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if resp.StatusCode >= 400 {
		return problemOf(resp.StatusCode, raw)
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("client: answer of %s: %w", path, err)
	}
	return nil
}

func problemOf(status int, raw []byte) error {
	p := &Problem{}
	if err := json.Unmarshal(raw, p); err != nil || p.Code == "" {
		p.Code, p.Detail, p.DetailEN = "HTTP_ERROR", "终端答复异常", "unexpected answer: "+http.StatusText(status)
	}
	p.Status = status
	return p
}

// Event is one event of the stream.
type Event struct {
	ID, Name string
	Data     json.RawMessage
}

// Events reads the event stream from after lastID ("" = only a snapshot and what follows) and calls each for every event,
// until each fails, ctx ends (nil) or the stream does (ErrUnreachable).
func (c *Client) Events(ctx context.Context, lastID string, each func(Event) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/v1/events", nil)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return ended(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		if err != nil {
			return ended(ctx, err)
		}
		return problemOf(resp.StatusCode, raw)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 64<<10), maxAnswer)
	var e Event
	for lines.Scan() {
		switch field, value, _ := strings.Cut(lines.Text(), ": "); field {
		case "id":
			e.ID = value
		case "event":
			e.Name = value
		case "data":
			e.Data = json.RawMessage(value)
		case "":
			if e.Name != "" {
				if err := each(e); err != nil {
					return err
				}
			}
			e = Event{ID: e.ID}
		}
	}
	return ended(ctx, lines.Err())
}

func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	if err == nil {
		err = io.EOF
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

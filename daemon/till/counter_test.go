package till

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"yupos/devices/display"
	"yupos/devices/printer"
	"yupos/devices/scanner"
	"yupos/ledgercache"
	"yupos/ledgercache/payment"
)

// patience bounds how long a test waits for an event that must come.
const patience = 20 * time.Second

const (
	onlineCode = "861234567890123459"
	weChatCode = "134567890123456789"
)

var shop = Shop{TerminalID: "10000001", MerchantID: "653000053310001", MCC: "5411", Name: "YUZHONG NOODLES", DisplayName: "渝中小面"}

// clock is a clock that stands still until a test moves it.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// line is a line to the ledger that a test holds in its hand.
type line struct {
	down   atomic.Bool
	ticks  chan struct{}
	mu     sync.Mutex
	nudged []string
}

func (l *line) State() LinkState {
	return LinkState{Up: !l.down.Load(), Since: time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC), Reason: "", Text: "", TextEN: ""}
}

func (l *line) Nudge(tradeNo string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nudged = append(l.nudged, tradeNo)
}

func (l *line) nudges() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.nudged)
}

func (l *line) Watch() (<-chan struct{}, func()) { return l.ticks, func() {} }

// screen remembers everything that it was told to show.
type screen struct {
	mu    sync.Mutex
	shows []display.Show
}

func (s *screen) Set(show display.Show) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shows = append(s.shows, show)
}

func (s *screen) last() display.Show {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.shows) == 0 {
		return display.Show{}
	}
	return s.shows[len(s.shows)-1]
}

// paper is a printer that says of each job what a test has chosen.
type paper struct {
	book  *ledgercache.Book
	ready atomic.Bool
	asked chan struct{} // a tick, at most one waiting, for each time somebody asked whether it is ready
	state ledgercache.PrintState
	mu    sync.Mutex
	jobs  []string
}

func (p *paper) Ready() bool {
	ready := p.ready.Load()
	select {
	case p.asked <- struct{}{}:
	default:
	}
	return ready
}

func (p *paper) Print(ctx context.Context, jobID string, _ printer.Document) ledgercache.PrintState {
	if _, err := p.book.RecordPrintSent(ctx, jobID); err != nil {
		return ledgercache.PrintFailed
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.jobs = append(p.jobs, jobID)
	return p.state
}

func (p *paper) printed() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.jobs)
}

// counter is a till with a real book and devices of the test's own.
type counter struct {
	*Till
	t      *testing.T
	ctx    context.Context
	dir    string
	clock  *clock
	line   *line
	screen *screen
	paper  *paper
	scans  chan scanner.Scan
	book   func(*ledgercache.Options) // changes how the book is opened; may be nil
}

// newCounter makes a till that does not run yet.
func newCounter(t *testing.T) *counter {
	t.Helper()
	c := &counter{
		t: t, ctx: t.Context(), dir: t.TempDir(), clock: &clock{at: time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC)},
		line: &line{ticks: make(chan struct{})}, screen: &screen{}, scans: make(chan scanner.Scan),
		paper: &paper{asked: make(chan struct{}, 1), state: ledgercache.PrintPrinted},
	}
	c.open()
	t.Cleanup(func() { c.Book().Close() })
	return c
}

func (c *counter) open() {
	c.t.Helper()
	o := ledgercache.Options{Dir: c.dir, Key: [32]byte{1}, TerminalID: shop.TerminalID, ShiftAutoOpen: true, AutoPrint: true, Now: c.clock.now}
	if c.book != nil {
		c.book(&o)
	}
	book, err := ledgercache.Open(context.Background(), o)
	if err != nil {
		c.t.Fatal(err)
	}
	c.paper.book = book
	c.Till = New(Options{
		Book: book, Link: c.line, Shop: shop, Key: ed25519.NewKeyFromSeed(make([]byte, 32)), Scans: c.scans,
		Printer: c.paper, Screen: c.screen, Now: c.clock.now,
	})
}

// run starts the till, waits until the customer's screen has been told to be idle, and stops it when the test ends.
func (c *counter) run() {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	c.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Errorf("the till ended with %v", err)
		}
	})
	c.until("the counter is idle", func() bool { return c.screen.last().State == display.Idle })
}

// until waits for something to become true; the till's own ticks say when to look again.
func (c *counter) until(what string, is func() bool) {
	c.t.Helper()
	ticks, stop := c.Watch()
	defer stop()
	late := time.After(patience)
	for !is() {
		select {
		case <-ticks:
		case <-late:
			c.t.Fatalf("never: %s (the screen shows %+v)", what, c.screen.last())
		}
	}
}

func (c *counter) shows(state string) {
	c.t.Helper()
	c.until("the screen shows "+state, func() bool { return c.screen.last().State == state })
}

// wake lets the running till look at the clock again.
func (c *counter) wake() {
	c.t.Helper()
	select {
	case c.line.ticks <- struct{}{}:
	case <-time.After(patience):
		c.t.Fatal("the till does not look at its line")
	}
}

func (c *counter) scan(text string, at time.Time) {
	c.t.Helper()
	select {
	case c.scans <- scanner.Scan{Text: text, Symbology: "]Q1", At: at}:
	case <-time.After(patience):
		c.t.Fatal("nobody takes the scan")
	}
}

func (c *counter) pay(s Sale) payment.Payment {
	c.t.Helper()
	p, replayed, err := c.Pay(c.ctx, s)
	if err != nil || replayed {
		c.t.Fatalf("replayed %v, %v", replayed, err)
	}
	return p
}

// arm opens a sale that waits for a scan, and waits until the customer sees the amount.
func (c *counter) arm(outTradeNo string) payment.Payment {
	c.t.Helper()
	p := c.pay(Sale{OutTradeNo: outTradeNo, TotalFen: 1250})
	c.shows(display.Amount)
	return p
}

// sell charges a code of its own and lets the ledger say that it is paid.
func (c *counter) sell(n int) payment.Payment {
	c.t.Helper()
	return c.answer(c.pay(Sale{OutTradeNo: fmt.Sprintf("A%d", n), TotalFen: 1250, AuthCode: online(n)}))
}

// online is an ONLINE code for each n.
func online(n int) string {
	body := fmt.Sprintf("86%015d", n)
	sum := 0
	for i := range len(body) {
		d := int(body[len(body)-1-i] - '0')
		if i%2 == 0 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return fmt.Sprintf("%s%d", body, (10-sum%10)%10)
}

func (c *counter) paid(p payment.Payment) payment.Answered {
	return payment.Answered{
		TradeNo: p.TradeNo, To: payment.OpPay, State: payment.Success, TotalFen: p.TotalFen, PaidFen: p.TotalFen,
		PaidAt: c.clock.now(), LedgerNo: "01KASF3NAZ0123456789ABCDEF",
	}
}

func (c *counter) answer(p payment.Payment) payment.Payment {
	c.t.Helper()
	p, err := c.Book().Answer(c.ctx, c.paid(p))
	if err != nil || p.State != payment.Success {
		c.t.Fatalf("%s, %v", p.State, err)
	}
	return p
}

func (c *counter) trade(outTradeNo string) payment.Payment {
	c.t.Helper()
	p, err := c.Book().Trade(outTradeNo)
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

func (c *counter) holds() string {
	c.t.Helper()
	tradeNo, err := c.Book().Counter()
	if err != nil {
		c.t.Fatal(err)
	}
	return tradeNo
}

// warned reports whether the terminal's warnings hold one with the code.
func (c *counter) warned(code string) bool {
	info, err := c.Terminal()
	if err != nil {
		c.t.Error(err)
	}
	return slices.ContainsFunc(info.Warnings, func(w Warning) bool { return w.Code == code && w.Text != "" && w.TextEN != "" })
}

func TestWhatTheCounterShowsFollowsFromTheBookAndTheClock(t *testing.T) {
	now := time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC)
	expires := now.Add(180 * time.Second)
	trade := func(mode payment.Mode, state payment.State) *payment.Payment {
		return &payment.Payment{TradeNo: "01KASF3M1ZV9Q8XN7T5R2C4D6E", Mode: mode, State: state, TotalFen: 1250, ExpiresAt: expires}
	}
	ended := func(state payment.State, ago time.Duration) Ended {
		return Ended{trade(payment.ByCode, state), now.Add(-ago)}
	}
	for name, c := range map[string]struct {
		holder *payment.Payment
		last   Ended
		broken bool
		want   string
		until  time.Time
	}{
		"nothing":                        {nil, Ended{}, false, display.Idle, time.Time{}},
		"an order waits for its payer":   {trade(payment.ByOrder, payment.NotPay), Ended{}, false, display.Code, expires},
		"the scanner waits for a code":   {trade(payment.AtCounter, payment.NotPay), Ended{}, false, display.Amount, expires},
		"the ledger has not said":        {trade(payment.AtCounter, payment.Unknown), Ended{}, false, display.Amount, time.Time{}},
		"the phone must confirm":         {trade(payment.AtCounter, payment.UserPaying), Ended{}, false, display.Confirm, time.Time{}},
		"a holder hides what has ended":  {trade(payment.ByOrder, payment.NotPay), ended(payment.Success, 0), false, display.Code, expires},
		"paid just now":                  {nil, ended(payment.Success, 0), false, display.Paid, now.Add(5 * time.Second)},
		"paid almost five seconds ago":   {nil, ended(payment.Success, 4999*time.Millisecond), false, display.Paid, now.Add(time.Millisecond)},
		"paid five seconds ago":          {nil, ended(payment.Success, 5*time.Second), false, display.Idle, time.Time{}},
		"taken offline":                  {nil, ended(payment.AcceptedOffline, time.Second), false, display.Paid, now.Add(4 * time.Second)},
		"declined":                       {nil, ended(payment.PayError, time.Second), false, display.Failed, now.Add(4 * time.Second)},
		"closed":                         {nil, ended(payment.Closed, time.Second), false, display.Failed, now.Add(4 * time.Second)},
		"reversed":                       {nil, ended(payment.Revoked, time.Second), false, display.Failed, now.Add(4 * time.Second)},
		"declined five seconds ago":      {nil, ended(payment.PayError, 5*time.Second), false, display.Idle, time.Time{}},
		"a broken book":                  {nil, Ended{}, true, display.Paused, time.Time{}},
		"a broken book under an order":   {trade(payment.ByOrder, payment.NotPay), Ended{}, true, display.Paused, time.Time{}},
		"a broken book after a success":  {nil, ended(payment.Success, 0), true, display.Paused, time.Time{}},
		"a broken book under a question": {trade(payment.AtCounter, payment.UserPaying), Ended{}, true, display.Paused, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			got := View(c.holder, c.last, c.broken, now)
			if got.State != c.want || !got.Until.Equal(c.until) {
				t.Errorf("shows %s until %v, want %s until %v", got.State, got.Until, c.want, c.until)
			}
			if named := got.Trade != nil; named != (c.want != display.Idle && c.want != display.Paused) {
				t.Errorf("names a trade: %v", named)
			}
		})
	}
}

func TestAScanThatNobodyAskedForIsNeverCharged(t *testing.T) {
	c := newCounter(t)
	c.run()
	c.scan(onlineCode, c.clock.now())
	c.until("the cashier is told", func() bool { return c.warned("SCAN_NOT_WANTED") })
	if open, err := c.Book().OpenTrades(); err != nil || len(open) != 0 {
		t.Fatalf("%+v %v", open, err)
	}
	// The next sale does not remember it, neither the notice nor the code.
	p := c.arm("A1")
	if p = c.trade(p.OutTradeNo); p.State != payment.NotPay || p.Attempt != 0 {
		t.Fatalf("%+v", p)
	}
	if c.warned("SCAN_NOT_WANTED") {
		t.Error("the notice outlived the next sale")
	}
}

func TestAScanFromBeforeTheSaleIsNotCharged(t *testing.T) {
	c := newCounter(t)
	c.run()
	p := c.arm("A1")
	c.scan(onlineCode, p.CreatedAt.Add(-time.Millisecond))
	c.until("the cashier is told", func() bool { return c.warned("SCAN_NOT_WANTED") })
	if p = c.trade("A1"); p.State != payment.NotPay || p.Attempt != 0 || p.Reason != "" {
		t.Fatalf("%+v", p)
	}
}

func TestAScanIsNotChargedWhileAnOrderIsShown(t *testing.T) {
	c := newCounter(t)
	c.run()
	if _, _, err := c.Precreate(c.ctx, Sale{OutTradeNo: "A1", TotalFen: 1250}); err != nil {
		t.Fatal(err)
	}
	c.shows(display.Code)
	c.scan(onlineCode, c.clock.now())
	c.until("the cashier is told", func() bool { return c.warned("SCAN_NOT_WANTED") })
	if p := c.trade("A1"); p.State != payment.NotPay || p.Attempt != 0 {
		t.Fatalf("%+v", p)
	}
}

func TestAForeignCodeAsksForAnotherScanAndOursIsThenCharged(t *testing.T) {
	c := newCounter(t)
	c.run()
	c.arm("A1")
	c.scan(weChatCode, c.clock.now())
	c.until("the code is refused", func() bool { return c.trade("A1").Reason != "" })
	p := c.trade("A1")
	if p.State != payment.NotPay || p.Reason != "FOREIGN_CODE" || p.Foreign != "WECHAT" || p.NextAction() != "rescan" || p.Attempt != 0 {
		t.Fatalf("%+v", p)
	}
	c.scan(onlineCode, c.clock.now())
	c.until("the code is submitted", func() bool { return c.trade("A1").State == payment.Unknown })
	if p = c.trade("A1"); p.Code != onlineCode || p.Attempt != 1 || p.Reason != "" || c.holds() != p.TradeNo {
		t.Fatalf("%+v", p)
	}
	c.answer(p)
	c.shows(display.Paid)
	if show := c.screen.last(); show.AmountFen != 1250 || show.TradeTail != p.TradeNo[len(p.TradeNo)-8:] {
		t.Errorf("%+v", show)
	}
	c.clock.pass(5 * time.Second)
	c.wake()
	c.shows(display.Idle)
}

func TestEveryForeignCodeIsCalledByItsNameAndNoneIsKept(t *testing.T) {
	c := newCounter(t)
	for text, want := range map[string]struct{ foreign, zh string }{
		"281234567890123456":      {"ALIPAY", "支付宝"},
		"6212345678901234567":     {"UNIONPAY", "云闪付"},
		"0112345678901234567":     {"ECNY", "数字人民币"},
		"6901234567892":           {"GOODS_BARCODE", "商品条码"},
		"https://example.com/pay": {"UNKNOWN_CODE:WEB_ADDRESS", "网址"},
		"wxp://f2f0AbC":           {"UNKNOWN_CODE:WECHAT_SHOP", "微信收款码"},
		"50010119900101123X":      {"UNKNOWN_CODE:ID_NUMBER", "身份证"},
		"hello":                   {"UNKNOWN_CODE", "这不是付款码"},
		"000201010212":            {"OTHER_EMVCO:SHOP", "收款码"},
		"hQVDUFYwMWETTwegAAAAVVVVUAhQcm9kdWN0MQ==": {"OTHER_EMVCO:Product1", "Product1"},
	} {
		v := c.judge(text, "", c.clock.now(), false)
		why := payment.Payment{Reason: v.reason, Foreign: v.foreign}.Why()
		if v.reason != "FOREIGN_CODE" || v.foreign != want.foreign || !strings.Contains(why.ZH, want.zh) || strings.Contains(v.foreign+why.ZH+why.EN, text) {
			t.Errorf("%s: %s %s, %s", text, v.reason, v.foreign, why.ZH)
		}
	}
}

func TestAnArmedCounterThatNobodyUsesIsClosedAfterThreeMinutes(t *testing.T) {
	c := newCounter(t)
	c.run()
	c.arm("A1")
	c.clock.pass(180*time.Second - time.Millisecond)
	c.wake()
	c.wake() // taken only when the turn after the first has settled
	if p := c.trade("A1"); p.State != payment.NotPay {
		t.Fatalf("closed too early: %+v", p)
	}
	c.clock.pass(time.Millisecond)
	c.wake()
	c.until("the trade is closed", func() bool { return c.trade("A1").State == payment.Closed })
	if p := c.trade("A1"); p.Reason != payment.ReasonExpired || c.holds() != "" {
		t.Fatalf("%+v, the counter holds %q", p, c.holds())
	}
	c.shows(display.Failed)
	c.arm("A2")
}

func TestAShownOrderThatNobodyPaidIsUnknownAfterThreeMinutesAndFreesTheCounter(t *testing.T) {
	c := newCounter(t)
	c.run()
	if _, _, err := c.Precreate(c.ctx, Sale{OutTradeNo: "A1", TotalFen: 1250}); err != nil {
		t.Fatal(err)
	}
	c.shows(display.Code)
	c.clock.pass(180 * time.Second)
	c.wake()
	c.until("the order is unknown", func() bool { return c.trade("A1").State == payment.Unknown })
	if p := c.trade("A1"); p.Reason != payment.ReasonExpired || c.holds() != "" {
		t.Fatalf("%+v, the counter holds %q", p, c.holds())
	}
	c.shows(display.Idle)
	c.arm("A2")
	c.answer(c.trade("A1")) // somebody paid it in the last second
	if p := c.trade("A2"); p.State != payment.NotPay || c.holds() != p.TradeNo {
		t.Fatalf("%+v", p)
	}
}

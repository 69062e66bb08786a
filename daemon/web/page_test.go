package web

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"yupos/devices/paycode"
	"yupos/devices/scanner"
	"yupos/ledgercache"
	"yupos/ledgercache/payment"
)

// browser opens a real Chromium on the cashier's page, or skips the test in words where there is none.
func (c *counter) browser(width, height int64, path string) context.Context {
	c.t.Helper()
	if testing.Short() {
		c.t.Skip("-short: no browser")
	}
	found := ""
	for _, name := range []string{"/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"} {
		if _, err := os.Stat(name); err == nil {
			found = name
			break
		}
	}
	if found == "" {
		if os.Getenv("CI") == "true" {
			c.t.Fatal("no chromium: the page cannot be tested")
		}
		c.t.Skip("no chromium on this machine: the page is not tested (apt install chromium fonts-noto-cjk)")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(found), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("force-device-scale-factor", "1"))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	c.t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	c.t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 60*time.Second)
	c.t.Cleanup(cancel)
	c.run(ctx, chromedp.EmulateViewport(width, height), chromedp.Navigate(c.http.URL+path))
	return ctx
}

func (c *counter) run(ctx context.Context, actions ...chromedp.Action[chromedp.Void]) {
	c.t.Helper()
	if err := chromedp.Do(ctx, actions...); err != nil {
		c.t.Fatal(err)
	}
}

// sees waits until a script is true in the page.
func (c *counter) sees(ctx context.Context, script string) {
	c.t.Helper()
	_, err := chromedp.Run(ctx, chromedp.Poll[bool](script, chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(10*time.Second)))
	if err != nil {
		look, _ := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.innerText`))
		c.t.Fatalf("%s: %v\n%s", script, err, look)
	}
}

// scan lets the scanner read a code.
func (c *counter) scan(text string) {
	c.t.Helper()
	select {
	case c.scans <- scanner.Scan{Text: text, At: time.Now()}:
	case <-time.After(10 * time.Second):
		c.t.Fatal("nobody takes the scan")
	}
}

func stage(look string) string {
	return `document.getElementById("stage").className === "` + look + `"`
}

// shoot keeps a picture of the page in the directory that YUPOS_PICTURES names: the two of the README, or with
// YUPOS_PICTURES_ALL every state.
func (c *counter) shoot(ctx context.Context, name string) {
	c.t.Helper()
	dir := os.Getenv("YUPOS_PICTURES")
	all := os.Getenv("YUPOS_PICTURES_ALL") != ""
	if dir == "" || !all && name != "cashier" && name != "display" {
		return
	}
	time.Sleep(400 * time.Millisecond) // pictures only: let animations end
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		c.t.Fatal(err)
	}
}

// holder waits until the trade at the counter is as wanted.
func (c *counter) holder(want func(payment.Payment) bool) payment.Payment {
	c.t.Helper()
	w := c.book.Watch()
	defer w.Close()
	deadline := time.After(10 * time.Second)
	for {
		if no, err := c.book.Counter(); err == nil && no != "" {
			if p, err := c.book.ByTradeNo(no); err == nil && want(p) {
				return p
			}
		}
		select {
		case <-w.C:
		case <-deadline:
			c.t.Fatal("the counter never holds the sale")
		}
	}
}

func TestTwelveFiftyIsFourKeysAndOneScan(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	ctx := c.browser(1366, 768, "/")
	c.sees(ctx, `document.getElementById("shop").textContent === "渝中小面"`)
	c.shoot(ctx, "idle")
	c.run(ctx, chromedp.KeyEvent("12.5"))
	c.sees(ctx, stage("armed"))
	p := c.holder(func(p payment.Payment) bool { return p.TotalFen == 1250 })
	c.shoot(ctx, "armed")
	c.scans <- scanner.Scan{Text: online(t, "861234567890123"[:15]), At: time.Now()}
	c.sees(ctx, `["sending","unknown"].includes(document.getElementById("stage").className)`)
	c.paid(p.OutTradeNo)
	c.sees(ctx, stage("paid"))
	c.sees(ctx, `document.getElementById("stage-amount").textContent === "¥12.50"`)
	c.shoot(ctx, "paid")
	c.run(ctx, chromedp.KeyEvent("8"))
	c.sees(ctx, stage("armed"))
	if p := c.holder(func(p payment.Payment) bool { return p.TotalFen == 800 }); p.State != payment.NotPay {
		t.Errorf("the next digit begins the next sale: %s", p.State)
	}
	c.run(ctx, chromedp.KeyEvent(kb.Enter))
	c.sees(ctx, stage("code"))
	c.sees(ctx, `document.getElementById("code").complete && document.getElementById("code").naturalWidth > 0`)
	c.shoot(ctx, "cashier")
}

// faults are what is wrong with the page as it stands: controls that are too small, words that are too pale.
const faults = `(() => {
  const out = [], lum = c => { const [r, g, b] = c.match(/[\d.]+/g).map(Number).map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (c !== "rgba(0, 0, 0, 0)" && c !== "transparent") return c; } return "rgb(255,255,255)"; };
  for (const b of document.querySelectorAll("button, a[href]")) {
    const r = b.getBoundingClientRect();
    if (!r.width) continue;
    const key = b.closest(".keys");
    if (r.width < (key ? 71.9 : 47.9) || r.height < (key ? 63.9 : 47.9)) out.push("small: " + b.textContent + " " + r.width + "x" + r.height);
    if (r.right > innerWidth + 1) out.push("outside: " + b.textContent);
  }
  for (const e of document.querySelectorAll("#word, #word-en, #stage-amount, #detail, #detail-en, #timer-text, #entry-text, .fen, .what, #shift-total, #queue-fen, #banner b, #actions button")) {
    if (!e.getBoundingClientRect().width || !e.textContent.trim()) continue;
    const a = lum(getComputedStyle(e).color), b = lum(behind(e)), c = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (c < 7) out.push("pale: " + (e.id || e.className) + " " + c.toFixed(2));
  }
  if (document.documentElement.scrollWidth > innerWidth + 1) out.push("wider than the screen: " + document.documentElement.scrollWidth);
  if (document.getElementById("stage").className === "unknown") {
    const words = [...document.querySelectorAll("#actions button")].map(b => b.textContent).join(" ");
    if (words !== "查单F6 等待" && words !== "查单F6 等待 转离线受理店长") out.push("an unknown result offers: " + words);
  }
  return out.join("\n");
})()`

func (c *counter) sound(ctx context.Context, where string) {
	c.t.Helper()
	found, err := chromedp.Run(ctx, chromedp.Evaluate[string](faults))
	if err != nil {
		c.t.Fatal(err)
	}
	if found != "" {
		c.t.Errorf("%s:\n%s", where, found)
	}
	c.shoot(ctx, where)
}

func TestEveryStateIsReadableAndReachableInEverySize(t *testing.T) {
	t.Parallel()
	for _, size := range []struct {
		name          string
		width, height int64
	}{{"1024", 1024, 768}, {"1366", 1366, 768}, {"390", 390, 844}} {
		t.Run(size.name, func(t *testing.T) {
			t.Parallel() // each waits 3 s for an answer that does not come
			c := newCounter(t)
			ctx := c.browser(size.width, size.height, "/")
			c.sees(ctx, `document.getElementById("shop").textContent === "渝中小面"`)
			c.sound(ctx, size.name+"-idle")
			c.run(ctx, chromedp.KeyEvent("88.80"))
			c.sees(ctx, stage("armed"))
			c.sound(ctx, size.name+"-armed")
			p := c.holder(func(p payment.Payment) bool { return p.TotalFen == 8880 })
			c.scans <- scanner.Scan{Text: "134567890123456789", At: time.Now()}
			c.sees(ctx, stage("rescan"))
			c.sound(ctx, size.name+"-rescan")
			c.scans <- scanner.Scan{Text: online(t, "861234567890123"), At: time.Now()}
			c.sees(ctx, stage("unknown"))
			c.sound(ctx, size.name+"-unknown")
			c.run(ctx, chromedp.KeyEvent("5"+kb.Enter))
			if held, err := c.book.Counter(); err != nil || held != p.TradeNo {
				t.Errorf("keys moved an unknown sale: %q %v", held, err)
			}
			c.paid(p.OutTradeNo)
			c.sees(ctx, stage("paid"))
			c.sound(ctx, size.name+"-paid")
			c.run(ctx, chromedp.KeyEvent("12.5"+kb.Enter))
			c.sees(ctx, stage("code")+` && document.getElementById("code").naturalWidth > 0`)
			c.sound(ctx, size.name+"-code")
		})
	}
}

func TestTheCustomersPageShowsTheCodeAndTheTick(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	ctx := c.browser(1280, 800, "/display")
	c.sees(ctx, `document.body.className === "idle" && document.getElementById("word").textContent === "渝中小面"`)
	c.shoot(ctx, "display-idle")
	c.api(200, "POST", "/v1/trade/precreate", `{"out_trade_no":"D1","total_fen":1250}`)
	c.sees(ctx, `document.body.className === "code" && document.getElementById("qr").naturalWidth > 0 && document.getElementById("amount").textContent === "¥12.50"`)
	c.sees(ctx, `document.getElementById("qr").getBoundingClientRect().width >= 0.45 * innerHeight && document.getElementById("qr").getBoundingClientRect().width % document.getElementById("qr").naturalWidth === 0`)
	c.shoot(ctx, "display")
	c.paid("D1")
	c.sees(ctx, `document.body.className === "paid" && !document.getElementById("qr").hasAttribute("src")`)
	c.shoot(ctx, "display-paid")
	c.sees(ctx, `document.body.className === "idle" && document.getElementById("amount").textContent === ""`)
}

func TestAScannerThatTypesChargesTheAmountAndLeavesItAlone(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	ctx := c.browser(1366, 768, "/")
	c.sees(ctx, `document.getElementById("shop").textContent === "渝中小面"`)
	c.run(ctx, chromedp.KeyEvent("12.5"))
	c.sees(ctx, stage("armed"))
	code := online(t, "861234567890123")
	script := `for (const k of "` + code + `") document.dispatchEvent(new KeyboardEvent("keydown", {key: k, code: "Digit" + k, bubbles: true, cancelable: true}));
		document.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", code: "Enter", bubbles: true, cancelable: true})); true`
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](script)); err != nil {
		t.Fatal(err)
	}
	c.sees(ctx, `["sending", "unknown"].includes(document.getElementById("stage").className)`)
	list, _, err := c.book.Trades(ledgercache.Query{})
	if err != nil || len(list) != 2 || list[0].TotalFen != 1250 || list[0].Mode != payment.ByCode || list[1].State != payment.Closed {
		t.Errorf("%v %+v", err, list)
	}
}

func TestWithTheLineDownTheCustomersDigitsSettleTheOrder(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	c.line.down.Store(true)
	ctx := c.browser(390, 844, "/")
	c.sees(ctx, `document.getElementById("shop").textContent === "渝中小面"`)
	c.run(ctx, chromedp.KeyEvent("12.5"+kb.Enter))
	c.sees(ctx, stage("code")+` && [...document.querySelectorAll("#actions button")].some(b => b.textContent === "确认码F9")`)
	p := c.holder(func(p payment.Payment) bool { return p.Mode == payment.ByOrder })
	digits, err := paycode.Digits([32]byte{}, "10000001", p.TradeNo, p.TotalFen)
	if err != nil {
		t.Fatal(err)
	}
	wrong := "00000000"
	if digits == wrong {
		wrong = "00000001"
	}
	c.run(ctx, chromedp.KeyEvent(kb.F9))
	c.sees(ctx, `document.getElementById("digits").open`)
	c.sound(ctx, "390-digits")
	c.run(ctx, chromedp.KeyEvent(wrong+kb.Enter))
	c.sees(ctx, `document.getElementById("digits-error").textContent.startsWith("确认码不符")`)
	c.run(ctx, chromedp.KeyEvent(digits+kb.Enter))
	c.sees(ctx, stage("paid")+` && !document.getElementById("digits").open`)
	if p, err := c.book.ByTradeNo(p.TradeNo); err != nil || p.Evidence != payment.ByDigits || p.DigitTries != 2 {
		t.Errorf("%+v, %v", p, err)
	}
}

package web

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"yupos/devices/scanner"
	"yupos/ledgercache/payment"
)

// browser opens a real Chromium on the cashier's page, or skips the test in words where there is none.
func (c *counter) browser(width, height int64, path string) context.Context {
	c.t.Helper()
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

func stage(look string) string {
	return `document.getElementById("stage").className === "` + look + `"`
}

func (c *counter) shoot(ctx context.Context, name string) {
	c.t.Helper()
	dir := os.Getenv("YUPOS_PICTURES")
	if dir == "" {
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
	c.shoot(ctx, "code")
}

package main_test

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// chromium opens a real browser, or skips in words where there is none; with CI=true its absence is a failure.
func chromium(t *testing.T) context.Context {
	t.Helper()
	found := false
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if _, err := exec.LookPath(name); err == nil {
			found = true
		}
	}
	if !found {
		if os.Getenv("CI") == "true" {
			t.Fatal("no Chromium: the gate must install it")
		}
		t.Skip("no Chromium on this machine: the pages are not tested (apt-get install chromium fonts-noto-cjk)")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.WindowSize(1366, 768))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 90*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// TestAPersonSellsWithFourKeysAndAScan does what README tells a person to do, on the real pages of a running demo.
func TestAPersonSellsWithFourKeysAndAScan(t *testing.T) {
	ctx := chromium(t)
	w := startWorld(t)
	before := w.balance("13800000001")
	if err := chromedp.Do(ctx, chromedp.Navigate(w.address.Till+"/"), chromedp.WaitVisible("#pad"), chromedp.KeyEvent("12.5")); err != nil {
		t.Fatal(err)
	}
	w.display("amount") // the counter waits for a code: nothing else was pressed
	phone, cancel := chromedp.NewContext(ctx)
	defer cancel()
	if err := chromedp.Do(phone, chromedp.Navigate(w.address.Phone+"#13800000001"), chromedp.WaitReady("#who option"),
		chromedp.Click("#show-online"), chromedp.WaitVisible("#scan"), chromedp.Click("#scan")); err != nil {
		t.Fatal(err)
	}
	w.display("paid")
	word := `document.querySelector("#stage").innerText.includes("收款成功") && document.querySelector("#stage").innerText.includes("12.50")`
	if _, err := chromedp.Run(ctx, chromedp.Poll[bool](word)); err != nil {
		t.Errorf("the cashier does not read the word: %v", err)
	}
	if got := w.balance("13800000001"); got != before-1250 {
		t.Errorf("the customer has %v, had %v", got, before)
	}
	w.receipts(1)

	// The other way: Enter shows a code, the phone pays it.
	if err := chromedp.Do(ctx, chromedp.KeyEvent("8\r")); err != nil {
		t.Fatal(err)
	}
	w.display("code")
	if err := chromedp.Do(phone, chromedp.Click("#look"), chromedp.WaitVisible("#agree"), chromedp.Click("#agree"), chromedp.WaitVisible("#paid")); err != nil {
		t.Fatal(err)
	}
	w.display("paid")
	if got := w.balance("13800000001"); got != before-2050 {
		t.Errorf("the customer has %v, had %v", got, before)
	}
	w.receipts(2)
	w.agrees()
}

package ledgersim

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"yupos/sync/wire"
)

// phonePage opens the phone page in a real Chromium beside a pretended shop, or skips the test in words.
func (b *bench) phonePage(order string, scanned chan<- string) context.Context {
	b.t.Helper()
	if testing.Short() {
		b.t.Skip("-short: no browser")
	}
	if _, err := os.Stat("/usr/bin/chromium"); err != nil {
		b.t.Skip("no chromium on this machine: the phone page is not tested")
	}
	mux := http.NewServeMux()
	mux.Handle("/", b.Handler())
	mux.HandleFunc("GET /_sim/display", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(map[string]string{"code_text": order})
	})
	mux.HandleFunc("POST /_sim/scanner/scan", func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Text string }
		json.NewDecoder(r.Body).Decode(&in)
		scanned <- in.Text
		w.Write([]byte("{}"))
	})
	server := httptest.NewServer(mux)
	b.t.Cleanup(server.Close)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath("/usr/bin/chromium"), chromedp.NoSandbox, chromedp.DisableGPU)
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	b.t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	b.t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 60*time.Second)
	b.t.Cleanup(cancel)
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(390, 844), chromedp.Navigate(server.URL+"/phone/")); err != nil {
		b.t.Fatal(err)
	}
	return ctx
}

func TestTheCustomersPhoneInABrowser(t *testing.T) {
	b := newBench(t)
	scanned := make(chan string, 1)
	ctx := b.phonePage(b.orderText(number(), 1250, time.Minute), scanned)
	sees := func(script string) {
		t.Helper()
		if _, err := chromedp.Run(ctx, chromedp.Poll[bool](script, chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(10*time.Second))); err != nil {
			look, _ := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.innerText`))
			t.Fatalf("%s: %v\n%s", script, err, look)
		}
	}
	press := func(id string) {
		t.Helper()
		if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`document.getElementById("`+id+`").click(), true`)); err != nil {
			t.Fatal(err)
		}
	}
	sees(`document.getElementById("balance").textContent === "¥5000.00"`)
	press("show-signed")
	sees(`!document.getElementById("code").hidden && document.getElementById("picture").naturalWidth > 0`)
	press("scan")
	m := b.payOf(wire.Code(<-scanned), 700)
	if o, ok := b.reply(testTerminal, &m).(wire.Outcome); !ok || o.State != wire.StateSuccess {
		t.Fatalf("the code from the page: %+v", o)
	}
	press("look")
	sees(`!document.getElementById("seen").hidden && document.getElementById("seen-shop").textContent === "渝中小面" && document.getElementById("seen-amount").textContent === "¥12.50"`)
	press("agree")
	sees(`!document.getElementById("paid").hidden && /^\d{4} \d{4}$/.test(document.getElementById("digits").textContent) && document.getElementById("receipt").naturalWidth > 0`)
	sees(`document.getElementById("balance").textContent === "¥4980.50" && document.querySelectorAll("#bills li").length === 2`)
	b.sound()
}

package simulators

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// The tests run themselves as a daemon that has nothing but its two pages.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "fake-posd" {
		os.Exit(fakePosd(os.Args[2]))
	}
	os.Exit(m.Run())
}

func fakePosd(kind string) int {
	raw, err := os.ReadFile(os.Args[5]) // fake-posd KIND serve -c FILE
	if err != nil {
		return 3
	}
	file := string(raw)
	find := func(pattern string) string { return regexp.MustCompile(pattern).FindStringSubmatch(file)[1] }
	secret, err := os.ReadFile(filepath.Join(filepath.Dir(os.Args[5]), find(`file = "(tokens/register)"`)))
	if err != nil || kind == "dies" {
		fmt.Fprintln(os.Stderr, "no life in it")
		return 3
	}
	go func() {
		io.Copy(io.Discard, os.NewFile(3, "lifeline"))
		os.Exit(0)
	}()
	http.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) {})
	http.HandleFunc("/v1/terminal", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+strings.TrimSpace(string(secret)) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, `{"link":{"state":"up"},"devices":[{"kind":"scanner","state":"ok"},{"kind":"printer","state":"ok"},{"kind":"display","state":"connected"}],"offline_ready":{"ok":true}}`)
	})
	fmt.Fprintln(os.Stderr, "serving")
	fmt.Fprintln(os.Stderr, http.ListenAndServe(find(`listen = "([^"]+)"`), nil))
	return 1
}

// fakeBank answers its part of the control API with the path it was asked for.
type fakeBank struct{ provisioned []string }

func (b *fakeBank) Run(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
func (b *fakeBank) URL() string                   { return "wss://127.0.0.1:1/terminal/v1" }
func (b *fakeBank) Close() error                  { return nil }
func (b *fakeBank) Provision(terminalID, merchantID, name, displayName, mcc string, feeBP int, dir string) error {
	b.provisioned = append(b.provisioned, fmt.Sprint(terminalID, merchantID, name, displayName, mcc, feeBP, filepath.Base(dir)))
	return nil
}

func (b *fakeBank) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, `{"bank":%q}`, r.URL.Path) })
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}
func (l *lockedBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

func fakeWorld(t *testing.T, dir, kind string) (*World, *lockedBuffer) {
	t.Helper()
	log := &lockedBuffer{}
	w, err := open(Options{Dir: dir, Posd: []string{os.Args[0], "fake-posd", kind}, ChildLog: log},
		func(string, string) (bank, error) { return &fakeBank{}, nil })
	if err != nil {
		t.Fatal(err)
	}
	return w, log
}

// running is a world that is ready.
func running(t *testing.T, dir string) (*World, *lockedBuffer, func() error) {
	t.Helper()
	w, log := fakeWorld(t, dir, "lives")
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan Addresses, 1), make(chan error, 1)
	go func() { done <- w.Run(ctx, func(a Addresses) { ready <- a }) }()
	stop := sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		done <- err
		t.Fatalf("ended before it was ready: %v\n%s", err, log)
	}
	return w, log, stop
}

func ask(t *testing.T, method, url, body string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(raw), resp.Header
}

func TestTheTerminalIsKilledAndStartedOnTheSamePort(t *testing.T) {
	w, log, stop := running(t, t.TempDir())
	control := w.Addresses().Control + "/_sim/terminal"
	_, before, _ := ask(t, "GET", control, "")
	for range 2 {
		status, body, _ := ask(t, "POST", control, `{"action":"kill"}`)
		if status != 200 || body != `{"running":false,"pid":0}`+"\n" {
			t.Fatalf("kill: %d %s", status, body)
		}
		if err := get(t.Context(), w.Addresses().Till+"/readyz", "", nil); err == nil {
			t.Fatal("it still answers")
		}
		for range 2 { // a second start finds it running
			if status, body, _ = ask(t, "POST", control, `{"action":"start"}`); status != 200 {
				t.Fatalf("start: %d %s", status, body)
			}
			if err := get(t.Context(), w.Addresses().Till+"/readyz", "", nil); err != nil {
				t.Fatal(err)
			}
		}
		if body == before {
			t.Error("the same process")
		}
	}
	if got := strings.Count(log.String(), "posd| serving\n"); got != 3 {
		t.Errorf("%d lives in the log:\n%s", got, log)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := get(context.Background(), w.Addresses().Till+"/readyz", "", nil); err == nil {
		t.Error("the terminal outlives its world")
	}
}

func TestAWorldFindsItsTokensAgain(t *testing.T) {
	dir := t.TempDir()
	w, _ := fakeWorld(t, dir, "lives")
	first := w.Addresses()
	file, err := os.ReadFile(filepath.Join(dir, "posd", "posd.toml"))
	if err != nil || !strings.Contains(string(file), "渝中小面") {
		t.Errorf("%v\n%s", err, file)
	}
	w.Close()
	w, _ = fakeWorld(t, dir, "lives")
	defer w.Close()
	second := w.Addresses()
	if first.Token != second.Token || first.ManagerToken != second.ManagerToken || first.Token == first.ManagerToken || len(first.Token) < 32 {
		t.Error("tokens did not survive, or are not two")
	}
	for _, path := range []string{"posd/tokens/register", "posd/tokens/manager", "posd/posd.toml"} {
		if info, err := os.Stat(filepath.Join(dir, path)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", path, info, err)
		}
	}
}

func TestATerminalThatDoesNotStartIsSaidClearly(t *testing.T) {
	w, log := fakeWorld(t, t.TempDir(), "dies")
	err := w.Run(context.Background(), func(Addresses) { t.Error("ready") })
	if !errors.Is(err, ErrTerminal) || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(log.String(), "posd| no life in it") {
		t.Errorf("%v\n%s", err, log)
	}
	w, err = open(Options{Dir: t.TempDir()}, func(string, string) (bank, error) { return &fakeBank{}, nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Run(context.Background(), nil); !errors.Is(err, ErrTerminal) {
		t.Errorf("without a command: %v", err)
	}
}

func TestAPortThatIsTakenIsSaidAtOnce(t *testing.T) {
	s := httptest.NewServer(nil)
	defer s.Close()
	var port int
	fmt.Sscanf(s.URL, "http://127.0.0.1:%d", &port)
	_, err := open(Options{Dir: t.TempDir(), Port: port}, func(string, string) (bank, error) { return &fakeBank{}, nil })
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Error(err)
	}
}

func TestTheControlAPI(t *testing.T) {
	w, _, _ := running(t, t.TempDir())
	base := w.Addresses().Control
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		want                     string // in the answer
	}{
		{"every address", "GET", "/_sim", "", 200, `"manager_token":"` + w.Addresses().ManagerToken},
		{"a scan", "POST", "/_sim/scanner/scan", `{"text":"861234567890123459"}`, 200, `"scans":1`},
		{"a scan of nothing", "POST", "/_sim/scanner/scan", `{"text":""}`, 400, "MALFORMED_REQUEST"},
		{"a scan without text", "POST", "/_sim/scanner/scan", `{}`, 400, "MALFORMED_REQUEST"},
		{"a scan of a number", "POST", "/_sim/scanner/scan", `{"text":86}`, 400, "MALFORMED_REQUEST"},
		{"an unknown field", "POST", "/_sim/scanner/scan", `{"text":"1","texts":"2"}`, 400, `unknown field \"texts\"`},
		{"another case of a field", "POST", "/_sim/scanner/scan", `{"Text":"1"}`, 400, "unknown field"},
		{"no object", "POST", "/_sim/scanner/state", `[]`, 400, "MALFORMED_REQUEST"},
		{"null", "POST", "/_sim/scanner/state", `null`, 400, "MALFORMED_REQUEST"},
		{"no body", "POST", "/_sim/scanner/state", ``, 400, "MALFORMED_REQUEST"},
		{"two objects", "POST", "/_sim/scanner/state", `{} {}`, 400, "MALFORMED_REQUEST"},
		{"too much", "POST", "/_sim/scanner/state", `{"connected":` + strings.Repeat(" ", maxBody) + `true}`, 413, "TOO_LARGE"},
		{"a scanner unchanged", "POST", "/_sim/scanner/state", `{}`, 200, `"connected":true`},
		{"a scanner pulled out", "POST", "/_sim/scanner/state", `{"connected":false}`, 200, `"connected":false`},
		{"a scan without scanner", "POST", "/_sim/scanner/scan", `{"text":"1"}`, 409, "SCANNER_DISCONNECTED"},
		{"a scanner put in", "POST", "/_sim/scanner/state", `{"connected":true}`, 200, `"connected":true`},
		{"no receipts", "GET", "/_sim/printer/receipts", "", 200, `[]`},
		{"no such receipt", "GET", "/_sim/printer/receipts/1.png", "", 404, "NO_RECEIPT"},
		{"no number", "GET", "/_sim/printer/receipts/one.png", "", 404, "NOT_FOUND"},
		{"paper near its end", "POST", "/_sim/printer/state", `{"paper":"near"}`, 200, `"paper":"near","cover":"closed","connected":true`},
		{"the cover opened", "POST", "/_sim/printer/state", `{"cover":"open"}`, 200, `"paper":"near","cover":"open"`},
		{"paper that is damp", "POST", "/_sim/printer/state", `{"paper":"damp"}`, 400, "MALFORMED_REQUEST"},
		{"an idle screen", "GET", "/_sim/display", "", 200, `"state":"idle","amount_fen":0,"code_text":""`},
		{"no code on it", "GET", "/_sim/display/code.svg", "", 404, "NO_CODE"},
		{"a silent shop", "GET", "/_sim/speaker", "", 200, `[]`},
		{"an unknown action", "POST", "/_sim/terminal", `{"action":"burn"}`, 400, "MALFORMED_REQUEST"},
		{"no action", "POST", "/_sim/terminal", `{}`, 400, "MALFORMED_REQUEST"},
		{"a wrong method", "DELETE", "/_sim/terminal", ``, 404, "NOT_FOUND"},
		{"an unknown path", "GET", "/nothing", ``, 404, "NOT_FOUND"},
		{"the bank's part", "POST", "/_sim/wallets/13800000001/code", `{}`, 200, `{"bank":"/_sim/wallets/13800000001/code"}`},
		{"the line is the bank's too", "POST", "/_sim/link", `{}`, 200, `{"bank":"/_sim/link"}`},
		{"the phone page", "GET", "/phone/", "", 200, `{"bank":"/phone/"}`},
		{"the bench page", "GET", "/", "", 200, "扫码枪"},
	} {
		status, body, header := ask(t, c.method, base+c.path, c.body)
		if status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %s", c.name, status, body)
		}
		if status < 400 {
			continue
		}
		var p struct {
			Code, Detail string
			DetailEN     string `json:"detail_en"`
			Retryable    *bool
			TraceID      string `json:"trace_id"`
		}
		if err := json.Unmarshal([]byte(body), &p); err != nil || p.Detail == "" || p.DetailEN == "" || p.Retryable == nil || p.TraceID == "" ||
			header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: no problem document: %s", c.name, body)
		}
	}
}

func TestForeignHostsAndOriginsAreRefused(t *testing.T) {
	w, _ := fakeWorld(t, t.TempDir(), "lives")
	defer w.Close()
	h := w.handler()
	for name, c := range map[string]struct {
		host, origin string
		status       int
	}{
		"this machine":          {"127.0.0.1:8601", "", 200},
		"its name":              {"localhost:8601", "http://localhost:8601", 200},
		"in version 6":          {"[::1]:8601", "http://[::1]:8601", 200},
		"without a port":        {"localhost", "", 200},
		"the bench page":        {"127.0.0.1:8601", "http://127.0.0.1:8601", 200},
		"a foreign name":        {"evil.example:8601", "", 403},
		"a name like ours":      {"localhost.evil.example", "", 403},
		"no name":               {"", "", 403},
		"a foreign page":        {"127.0.0.1:8601", "https://evil.example", 403},
		"a page of another":     {"127.0.0.1:8601", "http://127.0.0.1:9999", 403},
		"a page without origin": {"127.0.0.1:8601", "null", 403},
	} {
		r := httptest.NewRequest("POST", "/_sim/scanner/state", strings.NewReader("{}"))
		r.Host = c.host
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code != c.status {
			t.Errorf("%s: %d %s", name, rec.Code, rec.Body)
		}
	}
}

func TestWhatIsPrintedAndShownIsAnswered(t *testing.T) {
	dir := t.TempDir()
	w, _, _ := running(t, dir)
	printer, err := os.OpenFile(filepath.Join(dir, "dev", "printer"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer printer.Close()
	printer.WriteString("slip\n\x1dV\x00\x1dr\x01")
	if _, err := io.ReadFull(printer, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	base := w.Addresses().Control + "/_sim"
	if _, body, _ := ask(t, "GET", base+"/printer/receipts", ""); body != `[{"n":1,"text":"slip","qr":[],"cut":true,"drawer":false,"png":"/_sim/printer/receipts/1.png"}]`+"\n" {
		t.Error(body)
	}
	if status, body, h := ask(t, "GET", base+"/printer/receipts/1.png", ""); status != 200 || h.Get("Content-Type") != "image/png" || !strings.HasPrefix(body, "\x89PNG") {
		t.Error(status, h)
	}
	display, err := os.OpenFile(filepath.Join(dir, "dev", "display"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer display.Close()
	display.WriteString("DisplayQRCodeScreen**0002**12.50**ABCD\n")
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		_, body, _ := ask(t, "GET", base+"/display", "")
		if strings.Contains(body, `"state":"code","amount_fen":1250,"code_text":"0002"`) {
			break
		}
		if time.Now().After(end) {
			t.Fatal(body)
		}
	}
	if status, body, _ := ask(t, "GET", base+"/display/code.svg", ""); status != 200 || !strings.HasPrefix(body, "<svg") {
		t.Error(status, body)
	}
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestUsageIsExitCodeTwo(t *testing.T) {
	for _, line := range []string{
		"", "nothing", "demo extra", "demo --port x", "demo --port -1", "demo --port 65534", "demo --nothing", "devices", "ledger",
		"wallet", "wallet 13800000001", "wallet 13800000001 steal", "wallet 13800000001 pay", "wallet 13800000001 confirm",
	} {
		var out, err bytes.Buffer
		if code := run(context.Background(), strings.Fields(line), &out, &err); code != exitUsage || out.Len() > 0 || err.Len() == 0 {
			t.Errorf("possim %s: %d %q %q", line, code, &out, &err)
		}
	}
}

func TestACustomerOnTheCommandLine(t *testing.T) {
	var asked string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		body.ReadFrom(r.Body)
		asked = r.Method + " " + r.URL.Path + " " + body.String()
		if strings.HasSuffix(r.URL.Path, "/confirm") {
			w.WriteHeader(http.StatusConflict)
			fmt.Fprint(w, `{"code":"WRONG_PIN","detail":"密码错误","detail_en":"wrong PIN"}`)
			return
		}
		fmt.Fprint(w, `{"text":"861234567890123459"}`)
	}))
	defer s.Close()
	for _, c := range []struct {
		line, asked, out string
		code             int
	}{
		{"13800000001 code", `POST /_sim/wallets/13800000001/code {"kind":"ONLINE"}`, "861234567890123459\n", 0},
		{"13800000001 code --kind SIGNED", `POST /_sim/wallets/13800000001/code {"kind":"SIGNED"}`, "861234567890123459\n", 0},
		{"13800000001 show", `GET /_sim/wallets/13800000001 `, `{"text":"861234567890123459"}` + "\n", 0},
		{"13800000001 pay ORDER", `POST /_sim/wallets/13800000001/pay {"order_text":"ORDER"}`, `{"text":"861234567890123459"}` + "\n", 0},
		{"13800000001 pay ORDER --pin 1", `POST /_sim/wallets/13800000001/pay {"order_text":"ORDER","pin":"1"}`, `{"text":"861234567890123459"}` + "\n", 0},
		{"13800000001 confirm 1", `POST /_sim/wallets/13800000001/confirm {"pin":"1"}`, "", exitRefused},
	} {
		var out, errs bytes.Buffer
		code := run(context.Background(), append([]string{"wallet", "--control", s.URL}, strings.Fields(c.line)...), &out, &errs)
		if code != c.code || asked != c.asked || out.String() != c.out {
			t.Errorf("%s: %d, asked %q, out %q, err %q", c.line, code, asked, &out, &errs)
		}
		if code == exitRefused && !strings.Contains(errs.String(), "密码错误") {
			t.Errorf("%s: %q", c.line, &errs)
		}
	}
	s.Close()
	var out, errs bytes.Buffer
	if code := run(context.Background(), []string{"wallet", "--control", s.URL, "13800000001", "show"}, &out, &errs); code != exitFailure {
		t.Errorf("nobody there: %d %q", code, &errs)
	}
}

func TestTheDevicesAlone(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	said, out := make(chan string, 16), writer(nil)
	out = func(b []byte) (int, error) { said <- string(b); return len(b), nil }
	in, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer feed.Close()
	done := make(chan error, 1)
	go func() { done <- runDevices(ctx, dir, in, out) }()
	if s := next(t, said); !strings.Contains(s, dir) {
		t.Error(s)
	}
	printer := await(t, filepath.Join(dir, "printer"))
	printer.WriteString("slip\n\x1dV\x00")
	if s := next(t, said); !strings.Contains(s, "receipt-1.png\nslip") {
		t.Error(s)
	}
	if _, err := os.Stat(filepath.Join(dir, "receipt-1.png")); err != nil {
		t.Error(err)
	}
	scanner := await(t, filepath.Join(dir, "scanner"))
	feed.WriteString("861234567890123459\n")
	got := make([]byte, 19)
	if _, err := scanner.Read(got); err != nil || string(got) != "861234567890123459\r" {
		t.Errorf("%q %v", got, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

func next(t *testing.T, said <-chan string) string {
	t.Helper()
	select {
	case s := <-said:
		return s
	case <-time.After(5 * time.Second):
		t.Fatal("nothing was said")
		return ""
	}
}

// await opens a line when it is published.
func await(t *testing.T, path string) *os.File {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil {
			t.Cleanup(func() { f.Close() })
			return f
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

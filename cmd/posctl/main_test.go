package main

import (
	"bytes"
	"context"
	"encoding/json"
	"image"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"yupos/devices/paycode"
)

func posctl(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(context.Background(), args, strings.NewReader(stdin), &out, &err)
	return code, out.String(), err.String()
}

func TestInspectAnswersOneObjectAlsoForRefusals(t *testing.T) {
	online, err := paycode.MakeOnline("861234567890123")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args         []string
		stdin        string
		exit         int
		kind, reason string
	}{
		"a code of ours":          {[]string{"--", online}, "", exitOK, "ONLINE", ""},
		"the same from a pipe":    {[]string{"--", "-"}, online + "\n", exitOK, "ONLINE", ""},
		"one with a wrong digit":  {[]string{"--", online[:17] + string('0'+(online[17]-'0'+1)%10)}, "", exitRefused, "ONLINE", "MALFORMED"},
		"a WeChat code":           {[]string{"--", "134567890123456789"}, "", exitRefused, "WECHAT", "FOREIGN_CODE"},
		"a code that begins with": {[]string{"--", "-x"}, "", exitRefused, "UNKNOWN_CODE", "FOREIGN_CODE"},
		"nothing":                 {[]string{"--", ""}, "", exitRefused, "MALFORMED", "MALFORMED"},
		"from a pipe of Windows":  {[]string{"--", "-"}, online + "\r\n", exitOK, "ONLINE", ""},
		"two line ends":           {[]string{"--", "-"}, online + "\n\n", exitRefused, "ONLINE", "MALFORMED"},
		"a carriage return alone": {[]string{"--", "-"}, online + "\r", exitRefused, "ONLINE", "MALFORMED"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, stderr := posctl(t, c.stdin, append([]string{"code", "inspect", "--now", "1795400000"}, c.args...)...)
			var got struct {
				Kind, Verdict, Reason string
				Fields                map[string]any
			}
			d := json.NewDecoder(strings.NewReader(out))
			d.DisallowUnknownFields()
			if err := d.Decode(&got); err != nil || strings.Count(out, "\n") != 1 {
				t.Fatalf("%q: %v", out, err)
			}
			if code != c.exit || got.Kind != c.kind || got.Reason != c.reason || got.Fields == nil {
				t.Errorf("exit %d, %s", code, out)
			}
			if (stderr == "") != (c.exit == exitOK) { // a refusal has words for a person
				t.Errorf("standard error: %q", stderr)
			}
		})
	}
	for text, want := range map[string]string{
		"134567890123456789": "微信付款码", "281234567890123456": "支付宝付款码", "6212345678901234567": "银联付款码", "0112345678901234567": "数字人民币付款码",
		"6901234567892": "商品条码", "https://example.com/pay": "网址", "861234567890123450": "重新扫描",
	} {
		if _, _, stderr := posctl(t, "", "code", "inspect", "--", text); !strings.Contains(stderr, want) {
			t.Errorf("%s: %q", text, stderr)
		}
	}
	if code, out, stderr := posctl(t, "", "code", "inspect", "--issuer-key", "zz", "--", online); code != exitUsage || out != "" || stderr == "" {
		t.Errorf("a bad key: %d %q %q", code, out, stderr)
	}
}

func TestReadOneLineAPictureAndADashWhereNothingIs(t *testing.T) {
	dir := t.TempDir()
	picture, err := paycode.Draw("first\nline\\")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := picture.PNG(6)
	if err != nil {
		t.Fatal(err)
	}
	good, empty := filepath.Join(dir, "good.png"), filepath.Join(dir, "empty.png")
	var blank bytes.Buffer
	if err := png.Encode(&blank, image.NewGray(image.Rect(0, 0, 40, 40))); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{good: raw, empty: blank.Bytes()} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if code, out, _ := posctl(t, "", "code", "read", good); code != exitOK || out != `first\nline\\`+"\n" {
		t.Errorf("%d %q", code, out)
	}
	code, out, _ := posctl(t, "", "code", "read", good, empty, filepath.Join(dir, "absent.png"))
	if code != exitRefused || out != `first\nline\\`+"\n-\n-\n" {
		t.Errorf("%d %q", code, out)
	}
	_, out, _ = posctl(t, "", "code", "read", "--json", good, empty)
	var list []readResult
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 2 || list[0].Text != "first\nline\\" || list[0].Symbology != "QR" || list[1].Text != "" {
		t.Errorf("%q %v", out, err)
	}
}

func TestExitCodesSayHowASaleEnded(t *testing.T) {
	for state, want := range map[string]int{
		"SUCCESS": exitOK, "ACCEPTED_OFFLINE": exitOK, "PAYERROR": exitRefused, "CLOSED": exitRefused, "UNKNOWN": exitUnknown, "NOTPAY": exitUnknown,
	} {
		till := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer secret" {
				t.Errorf("no token")
			}
			final := state == "SUCCESS" || state == "PAYERROR" || state == "CLOSED"
			json.NewEncoder(w).Encode(map[string]any{"out_trade_no": "P1", "trade_state": state, "final": final, "display_text": "词"})
		}))
		t.Setenv("POSCTL_ADDR", till.URL)
		t.Setenv("POSCTL_TOKEN", "secret")
		if code, out, stderr := posctl(t, "", "pay", "12.50", "--code", "x", "--wait", "0s"); code != want || !strings.Contains(out, "词") {
			t.Errorf("%s: exit %d, %q %q", state, code, out, stderr)
		}
		till.Close()
	}
	t.Setenv("POSCTL_ADDR", "http://127.0.0.1:1")
	if code, _, stderr := posctl(t, "", "pay", "12.50"); code != exitUnknown || !strings.Contains(stderr, "posctl query P") {
		t.Errorf("nobody there: %d %q", code, stderr)
	}
	for name, args := range map[string][]string{
		"no amount": {"pay"}, "a bad amount": {"pay", "12.505"}, "an unknown command": {"sell"}, "an unknown flag": {"pay", "1", "--x"}, "zero": {"show", "0"},
	} {
		if code, _, stderr := posctl(t, "", args...); code != exitUsage || stderr == "" {
			t.Errorf("%s: exit %d, %q", name, code, stderr)
		}
	}
	t.Setenv("POSCTL_TOKEN", "")
	if code, _, _ := posctl(t, "", "status"); code != exitUsage {
		t.Errorf("no token: %d", code)
	}
}

func TestARefusalKeepsItsWords(t *testing.T) {
	till := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		w.Write([]byte(`{"code":"COUNTER_BUSY","detail":"柜台忙","detail_en":"busy","trace_id":"T"}`))
	}))
	defer till.Close()
	t.Setenv("POSCTL_TOKEN", "secret")
	if code, _, stderr := posctl(t, "", "--addr", till.URL, "pay", "1"); code != exitRefused || !strings.Contains(stderr, "COUNTER_BUSY") || !strings.Contains(stderr, "柜台忙") {
		t.Errorf("%d %q", code, stderr)
	}
}

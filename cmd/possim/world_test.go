package main_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// These tests know what interfaces.md promises and nothing else: they start the demo binary and drive it from outside.

var binary struct {
	once sync.Once
	path string
	err  error
}

// possim builds the program once for all tests.
func possim(t testing.TB) string {
	t.Helper()
	binary.once.Do(func() {
		dir, err := os.MkdirTemp("", "possim-bin-")
		if err != nil {
			binary.err = err
			return
		}
		binary.path = filepath.Join(dir, "possim")
		out, err := exec.Command("go", "build", "-o", binary.path, ".").CombinedOutput()
		if err != nil {
			binary.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if binary.err != nil {
		t.Fatal(binary.err)
	}
	return binary.path
}

func TestMain(m *testing.M) {
	code := m.Run()
	if binary.path != "" {
		os.RemoveAll(filepath.Dir(binary.path))
	}
	os.Exit(code)
}

// world is a running demo.
type world struct {
	t       testing.TB
	dir     string
	cmd     *exec.Cmd
	log     *record
	address struct {
		Till         string `json:"till"`
		Office       string `json:"office"`
		Display      string `json:"display"`
		Phone        string `json:"phone"`
		Ledger       string `json:"ledger"`
		Control      string `json:"control"`
		Token        string `json:"token"`
		ManagerToken string `json:"manager_token"`
	}
	numbers int
}

func startWorld(t testing.TB, args ...string) *world {
	t.Helper()
	return startWorldIn(t, t.TempDir(), args...)
}

func startWorldIn(t testing.TB, dir string, args ...string) *world {
	t.Helper()
	w := &world{t: t, dir: dir, log: &record{}}
	w.cmd = exec.Command(possim(t), append([]string{"demo", "--json", "--port", "0", "--dir", dir, "--seed", "7"}, args...)...)
	w.cmd.Stderr = w.log
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.stop)
	lines := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		lines <- line
		io.Copy(io.Discard, out)
	}()
	select {
	case line := <-lines:
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&w.address); err != nil {
			w.stop()
			t.Fatalf("first line %q: %v\n%s", line, err, w.log)
		}
	case <-time.After(30 * time.Second):
		w.stop()
		t.Fatalf("the demo is not ready after 30 s\n%s", w.log)
	}
	return w
}

func (w *world) stop() {
	if w.cmd.ProcessState != nil {
		return
	}
	w.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { w.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(15 * time.Second):
		w.cmd.Process.Kill()
		<-done
		w.t.Errorf("the demo did not stop by itself")
	}
	if w.t.Failed() {
		w.t.Logf("log of the demo:\n%s", tail(w.log.String(), 6000))
	}
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// record keeps what the demo logs. It may be written and read at the same time.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
	from int
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// mark begins a new stretch of the log, since answers it.
func (r *record) mark() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.from = r.text.Len()
}

func (r *record) since() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.text.Bytes()[r.from:])
}

// number is a fresh number for a register.
func (w *world) number() string {
	w.numbers++
	return fmt.Sprintf("T%05d", w.numbers)
}

type object = map[string]any

// call makes one request and decodes its answer; body nil sends none.
func (w *world) call(method, url, token string, body any) (int, object, http.Header) {
	w.t.Helper()
	var in io.Reader
	if text, ok := body.(string); ok {
		in = strings.NewReader(text)
	} else if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			w.t.Fatal(err)
		}
		in = bytes.NewReader(raw)
	}
	r, err := http.NewRequest(method, url, in)
	if err != nil {
		w.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(raw, &out); err != nil {
		w.t.Fatalf("%s %s: %d %q", method, url, resp.StatusCode, raw)
	}
	if list, ok := out.([]any); ok {
		return resp.StatusCode, object{"list": list}, resp.Header
	}
	answer, _ := out.(object)
	return resp.StatusCode, answer, resp.Header
}

// api calls the register API with the register's token and wants this status.
func (w *world) api(status int, method, path string, body any) object {
	w.t.Helper()
	got, answer, _ := w.call(method, w.address.Till+path, w.address.Token, body)
	if got != status {
		w.t.Fatalf("%s %s: %d, want %d: %v", method, path, got, status, answer)
	}
	return answer
}

// manager is api with the manager's token.
func (w *world) manager(status int, method, path string, body any) object {
	w.t.Helper()
	got, answer, _ := w.call(method, w.address.Till+path, w.address.ManagerToken, body)
	if got != status {
		w.t.Fatalf("%s %s: %d, want %d: %v", method, path, got, status, answer)
	}
	return answer
}

// sim calls the control API and wants 200.
func (w *world) sim(method, path string, body any) object {
	w.t.Helper()
	got, answer, _ := w.call(method, w.address.Control+"/_sim"+path, "", body)
	if got != 200 {
		w.t.Fatalf("%s /_sim%s: %d: %v", method, path, got, answer)
	}
	return answer
}

func (w *world) code(phone, kind string) string {
	w.t.Helper()
	text, _ := w.sim("POST", "/wallets/"+phone+"/code", object{"kind": kind})["text"].(string)
	if text == "" {
		w.t.Fatal("no code")
	}
	return text
}

func (w *world) balance(phone string) float64 {
	w.t.Helper()
	return w.sim("GET", "/wallets/"+phone, nil)["balance_fen"].(float64)
}

// pay charges a code and wants the trade final.
func (w *world) pay(no string, fen int, code string) object {
	w.t.Helper()
	return w.api(200, "POST", "/v1/trade/pay?wait=25s", object{"out_trade_no": no, "total_fen": fen, "auth_code": code})
}

// becomes waits for a trade to be in the state.
func (w *world) becomes(no, state string) object {
	w.t.Helper()
	deadline := time.Now().Add(70 * time.Second)
	for {
		_, trade, _ := w.call("GET", w.address.Till+"/v1/trade/"+no+"?wait=5s", w.address.Token, nil)
		if trade["trade_state"] == nil {
			w.t.Fatalf("%s: %v", no, trade)
		}
		if trade["trade_state"] == state {
			return trade
		}
		if time.Now().After(deadline) || trade["final"] == true {
			w.t.Fatalf("%s is %v, want %s: %v", no, trade["trade_state"], state, trade)
		}
	}
}

// agrees holds the ledger's own assertion: every fen has both its entries.
func (w *world) agrees() {
	w.t.Helper()
	if a := w.sim("GET", "/ledger/assert", nil); a["ok"] != true {
		w.t.Fatalf("the ledger does not balance: %v", a)
	}
}

// receipts waits for n receipts and answers them.
func (w *world) receipts(n int) []any {
	w.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		_, answer, _ := w.call("GET", w.address.Control+"/_sim/printer/receipts", "", nil)
		list, _ := answer["list"].([]any)
		if len(list) >= n {
			return list
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%d receipts, want %d", len(list), n)
		}
		time.Sleep(50 * time.Millisecond) // the printer is outside: nothing here can be awaited
	}
}

// display waits for the customer's screen to be in the state.
func (w *world) display(state string) object {
	w.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		d := w.sim("GET", "/display", nil)
		if d["state"] == state {
			return d
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the display shows %v, want %s", d, state)
		}
		time.Sleep(50 * time.Millisecond) // as above
	}
}

package main_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// activate asks the ledger for an activation code.
func (w *world) activate(body object) (ledger, ca, code, terminal string) {
	w.t.Helper()
	a := w.sim("POST", "/ledger/activations", body)
	return a["url"].(string), a["ca_sha256"].(string), a["code"].(string), a["terminal_id"].(string)
}

// second is another terminal of the same shop, enrolled with a code of its own: a book, a page and an API, without devices.
type second struct {
	*world // whose ledger and customers it shares; the register API is its own
	dir    string
	id     string
	cmd    *exec.Cmd
}

// enrollSecond joins a fresh terminal to the world's ledger and runs it.
func (w *world) enrollSecond(body object) *second {
	w.t.Helper()
	own := *w
	own.log = &record{}
	s := &second{world: &own, dir: filepath.Join(w.dir, "second")}
	ledger, ca, code, id := w.activate(body)
	s.id = id
	s.expect(0, id, "enroll", "--ledger", ledger, "--ca-sha256", ca, "-c", s.config(), code)
	s.start()
	w.t.Cleanup(s.kill)
	return s
}

func (s *second) config() string { return filepath.Join(s.dir, "posd.toml") }

// start runs the second terminal on a free port and waits until its line is up.
func (s *second) start() {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	s.cmd = exec.Command(possim(s.t), "posd", "serve", "-c", s.config())
	s.cmd.Env = append(os.Environ(), "POSD_WEB_LISTEN="+address)
	s.cmd.Stderr = s.log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.address.Till = "http://" + address
	for name, token := range map[string]*string{"register": &s.address.Token, "manager": &s.address.ManagerToken} {
		raw, err := os.ReadFile(filepath.Join(s.dir, "tokens", name))
		if err != nil {
			s.t.Fatal(err)
		}
		*token = strings.TrimSpace(string(raw))
	}
	s.until("the second terminal answers", 20*time.Second, func() bool { status, _, err := s.ask("/readyz"); return err == nil && status == 200 })
	s.until("it could sell offline", 20*time.Second, func() bool { return s.terminal()["offline_ready"].(object)["ok"] == true })
}

func (s *second) kill() {
	if s.cmd != nil && s.cmd.ProcessState == nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	}
}

func TestAFreshTerminalJoinsWithAnActivationCodeAndSells(t *testing.T) {
	t.Parallel()
	w := startWorld(t)
	s := w.enrollSecond(object{})
	s.link("up", 10*time.Second)
	about := s.terminal()
	if about["terminal_id"] != s.id || about["offline_ready"].(object)["ok"] != true {
		t.Errorf("%v", about)
	}
	if paid := s.pay("S1", 1250, w.code("13800000001", "ONLINE")); paid["trade_state"] != "SUCCESS" {
		t.Errorf("%v", paid)
	}
	for name, mode := range map[string]os.FileMode{"identity": 0o700, "identity/terminal.key": 0o600, "identity/confirmation.secret": 0o600, "tokens/manager": 0o600, "posd.toml": 0o600} {
		if info, err := os.Stat(filepath.Join(s.dir, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
	w.agrees()
}

func TestEnrolmentIsRefusedByNameAndChangesNothing(t *testing.T) {
	t.Parallel()
	w := startWorld(t)
	ledger, ca, code, id := w.activate(object{})
	config := filepath.Join(w.dir, "fresh", "posd.toml")
	enroll := func(code int, words string, args ...string) {
		t.Helper()
		w.expect(code, words, append([]string{"enroll", "--ledger", ledger, "-c", config}, args...)...)
	}
	enroll(2, "64 hex", "--ca-sha256", "00", code)
	enroll(5, "激活码未发出", "--ca-sha256", strings.Repeat("0", 64), code)
	enroll(5, "ACTIVATION_REFUSED", "--ca-sha256", ca, code[:15]+"0000")
	if _, err := os.Stat(config); err == nil {
		t.Error("a configuration was written")
	}
	time.Sleep(1100 * time.Millisecond) // the ledger slows an address after a wrong code
	// The answer is lost; the same command again has the same effect.
	w.sim("POST", "/faults", object{"op": "enroll", "action": "drop_reply", "times": 1})
	enroll(1, "再次运行同一命令", "--ca-sha256", ca, code)
	enroll(0, id, "--ca-sha256", ca, code)
	enroll(5, "已有身份", "--ca-sha256", ca, code)
	config = filepath.Join(w.dir, "thief", "posd.toml")
	enroll(5, "ACTIVATION_USED", "--ca-sha256", ca, code)
	_, _, late, _ := w.activate(object{"expires_seconds": 1})
	time.Sleep(1200 * time.Millisecond)
	enroll(5, "ACTIVATION_EXPIRED", "--ca-sha256", ca, late)
	// For a configuration of another terminal.
	_, _, other, _ := w.activate(object{})
	w.sim("POST", "/terminal", object{"action": "kill"})
	w.expect(5, "TERMINAL_MISMATCH", "enroll", "--replace", "--ca-sha256", ca, "-c", w.config(), other)
	w.sim("POST", "/terminal", object{"action": "start"})
	w.pay("A1", 100, w.code("13800000001", "ONLINE"))
}

func TestATerminalGetsANewKeyAndKeepsItsBook(t *testing.T) {
	t.Parallel()
	w := startWorld(t)
	w.pay("A1", 1250, w.code("13800000001", "ONLINE"))
	w.sim("POST", "/terminal", object{"action": "kill"})
	_, ca, code, _ := w.activate(object{"terminal_id": "10000001"})
	cmd := exec.Command(possim(t), "posd", "enroll", "--replace", "--ca-sha256", ca, "-c", w.config(), "-")
	cmd.Stdin = strings.NewReader(code + "\n")
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("10000001")) {
		t.Fatalf("%v: %s", err, out)
	}
	w.sim("POST", "/terminal", object{"action": "start"})
	w.link("up", 10*time.Second)
	if trade := w.api(200, "GET", "/v1/trade/A1", nil); trade["trade_state"] != "SUCCESS" {
		t.Errorf("%v", trade)
	}
	w.pay("A2", 800, w.code("13800000002", "ONLINE"))
	w.bookAgreesWithLedger()
}

func TestACertificateIsRenewedWhileTheTerminalSells(t *testing.T) {
	t.Parallel()
	w := startWorld(t)
	s := w.enrollSecond(object{"certificate_seconds": 8})
	first, err := os.ReadFile(filepath.Join(s.dir, "identity", "terminal.crt"))
	if err != nil {
		t.Fatal(err)
	}
	w.sim("POST", "/ledger/terminals/"+s.id, object{"certificate_seconds": 3600})
	s.until("another certificate", 15*time.Second, func() bool {
		now, err := os.ReadFile(filepath.Join(s.dir, "identity", "terminal.crt"))
		return err == nil && !bytes.Equal(now, first)
	})
	s.until("the first one has ended", 15*time.Second, func() bool { return strings.Count(s.log.String(), "certificate renewed") == 1 })
	w.sim("POST", "/link", object{"up": false})
	s.link("down", 10*time.Second)
	w.sim("POST", "/link", object{"up": true})
	s.link("up", 10*time.Second)
	if paid := s.pay("S1", 1250, w.code("13800000001", "ONLINE")); paid["trade_state"] != "SUCCESS" {
		t.Errorf("%v", paid)
	}
}

func TestARevokedTerminalIsToldSoKeepsItsBookAndComesBack(t *testing.T) {
	t.Parallel()
	w := startWorld(t)
	w.pay("A1", 1250, w.code("13800000001", "ONLINE"))
	signed := w.code("13800000002", "SIGNED")
	w.sim("POST", "/ledger/terminals/10000001", object{"revoked": true})
	w.linkReason("TERMINAL_REVOKED")
	if text := w.terminal()["link"].(object)["text"]; text != "终端已被停用，请联系客服" {
		t.Errorf("%v", text)
	}
	if trade := w.api(200, "GET", "/v1/trade/A1", nil); trade["trade_state"] != "SUCCESS" {
		t.Errorf("%v", trade)
	}
	if refused := w.pay("A2", 500, signed); refused["trade_state"] != "PAYERROR" || fmt.Sprint(refused["reason"].(object)["code"]) != "TERMINAL_REVOKED" {
		t.Errorf("a revoked terminal takes nothing on its own word: %v", refused)
	}
	w.sim("POST", "/ledger/terminals/10000001", object{"revoked": false})
	w.sim("POST", "/terminal", object{"action": "kill"}) // it would ask again by itself within two minutes
	w.sim("POST", "/terminal", object{"action": "start"})
	w.link("up", 10*time.Second)
	w.pay("A3", 800, w.code("13800000001", "ONLINE"))
	w.agrees()
}

// killedAt runs posd enroll, kills it as soon as the file is there, and says whether the kill was faster than its end.
func (w *world) killedAt(file string, args ...string) bool {
	w.t.Helper()
	cmd := exec.Command(possim(w.t), append([]string{"posd", "enroll"}, args...)...)
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }() // killed, or too fast for it: the end is judged by what is there
	for there := false; !there; {
		_, err := os.Stat(file) // without a pause: the file may be gone again within a millisecond
		there = err == nil
		select {
		case <-ended:
			there = true
		default:
		}
	}
	_ = cmd.Process.Kill()
	<-ended
	return cmd.ProcessState.ExitCode() == -1
}

func TestAnEnrolmentThatIsKilledAgainAndAgainEndsInATerminalThatSells(t *testing.T) {
	t.Parallel()
	w := startWorld(t)
	ledger, ca, code, id := w.activate(object{})
	own := *w
	own.log = &record{}
	s := &second{world: &own, dir: filepath.Join(w.dir, "second"), id: id}
	args := []string{"--ledger", ledger, "--ca-sha256", ca, "-c", s.config(), code}
	for _, file := range []string{"identity.enrolling", "identity.enrolling/terminal.key", "identity.enrolling/terminal.crt", "identity.enrolling/grant.json", "tokens", "posd.toml"} {
		if _, err := os.Stat(filepath.Join(s.dir, "identity")); err == nil {
			break // it was faster than the kill
		}
		t.Logf("killed at %s: %v", file, w.killedAt(filepath.Join(s.dir, file), args...))
	}
	if got, out := w.posd(append([]string{"enroll"}, args...)...); got != 0 && (got != 5 || !strings.Contains(out, "已有身份")) {
		t.Fatalf("exit %d: %s", got, out)
	}
	s.start()
	t.Cleanup(s.kill)
	if about := s.terminal(); about["terminal_id"] != id {
		t.Errorf("%v, want %s", about["terminal_id"], id)
	}
	if paid := s.pay("S1", 1250, w.code("13800000001", "ONLINE")); paid["trade_state"] != "SUCCESS" {
		t.Errorf("%v", paid)
	}
	w.agrees()
}

func TestARevokedTerminalKeepsWhatItAcceptedOfflineAndDeliversItLater(t *testing.T) {
	t.Parallel()
	w := unplugged(t)
	no := w.number()
	if trade := w.pay(no, 700, w.code("13800000001", "SIGNED")); trade["trade_state"] != "ACCEPTED_OFFLINE" {
		t.Fatalf("%v", trade)
	}
	w.sim("POST", "/ledger/terminals/10000001", object{"revoked": true})
	w.sim("POST", "/link", object{"up": true})
	w.linkReason("TERMINAL_REVOKED")
	w.sim("POST", "/terminal", object{"action": "kill"})
	w.sim("POST", "/terminal", object{"action": "start"})
	w.linkReason("TERMINAL_REVOKED")
	if trade := w.api(200, "GET", "/v1/trade/"+no, nil); trade["trade_state"] != "ACCEPTED_OFFLINE" {
		t.Errorf("a revoked terminal has lost what it accepted: %v", trade)
	}
	w.sim("POST", "/ledger/terminals/10000001", object{"revoked": false})
	w.sim("POST", "/terminal", object{"action": "kill"}) // it would ask again by itself, later
	w.sim("POST", "/terminal", object{"action": "start"})
	w.link("up", 10*time.Second)
	w.becomes(no, "SUCCESS")
	w.bookAgreesWithLedger()
}

package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// posd runs a command of the daemon on the world's own configuration and answers its exit code and output.
func (w *world) posd(args ...string) (int, string) {
	w.t.Helper()
	cmd := exec.Command(possim(w.t), append([]string{"posd"}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

func (w *world) config() string { return filepath.Join(w.dir, "posd", "posd.toml") }
func (w *world) book() string   { return filepath.Join(w.dir, "posd", "book") }

// expect runs a command that must end with the code and say the words.
func (w *world) expect(code int, words string, args ...string) string {
	w.t.Helper()
	got, out := w.posd(args...)
	if got != code || !strings.Contains(out, words) {
		w.t.Fatalf("posd %s: exit %d, want %d and %q:\n%s", strings.Join(args, " "), got, code, words, out)
	}
	return out
}

// linkReason waits until the line is down for this reason.
func (w *world) linkReason(want string) {
	w.t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		link := w.terminal()["link"].(object)
		if link["state"] == "down" && link["reason"] == want {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the line is %v, want %s", link, want)
		}
		time.Sleep(50 * time.Millisecond) // the terminal is outside: nothing here can be awaited
	}
}

func TestABookIsProvedFromOutside(t *testing.T) {
	w := startWorld(t)
	w.pay("T1", 1250, w.code("13800000001", "ONLINE"))
	w.pay("T2", 800, w.code("13800000002", "ONLINE"))
	w.receipts(2)
	w.expect(0, "SUCCESS", "journal", "verify", "-c", w.config()) // beside the running daemon
	w.sim("POST", "/terminal", object{"action": "kill"})
	out := w.expect(0, `"good": true`, "journal", "verify", "--json", "-q", "-c", w.config())
	var proof struct {
		Sequence uint64
		Head     string
		Trades   map[string]struct{ Count, Fen int }
		Accounts map[string]int `json:"accounts_fen"`
	}
	if err := json.Unmarshal([]byte(out), &proof); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	sum := 0
	for _, fen := range proof.Accounts {
		sum += fen
	}
	if proof.Trades["SUCCESS"].Count != 2 || proof.Trades["SUCCESS"].Fen != 2050 || proof.Sequence == 0 || len(proof.Head) != 64 || sum != 0 {
		t.Errorf("%+v, the accounts come to %d", proof, sum)
	}
	segments, err := filepath.Glob(filepath.Join(w.book(), "journal", "*.seg"))
	if err != nil || len(segments) == 0 {
		t.Fatal(segments, err)
	}
	raw, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	raw[4300] ^= 1
	if err := os.WriteFile(segments[0], raw, 0o600); err != nil {
		t.Fatal(err)
	}
	w.expect(1, "WRONG", "journal", "verify", "-c", w.config())
	raw[4300] ^= 1
	if err := os.WriteFile(segments[0], raw, 0o600); err != nil {
		t.Fatal(err)
	}
	w.sim("POST", "/terminal", object{"action": "start"})
	w.pay("T3", 100, w.code("13800000001", "ONLINE"))
	w.agrees()
}

func TestABackupMadeWhileSellingBringsTheBookBack(t *testing.T) {
	w := startWorld(t)
	w.pay("T1", 1250, w.code("13800000001", "ONLINE"))
	file := filepath.Join(w.dir, "book.backup")
	w.expect(0, "已备份", "backup", "-c", w.config(), "--to", file)
	w.expect(2, "已存在", "backup", "-c", w.config(), "--to", file)
	w.expect(0, "核验通过", "journal", "verify", "-c", w.config(), "--bundle", file)
	w.expect(1, "已有账本", "restore", file, "-c", w.config())
	w.sim("POST", "/terminal", object{"action": "kill"})
	lost := w.book() + ".lost"
	if err := os.Rename(w.book(), lost); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(w.dir, "broken.backup")
	if err := os.WriteFile(broken, raw[:len(raw)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	w.expect(1, "损坏", "restore", broken, "-c", w.config())
	w.expect(0, "新纪元", "restore", file, "-c", w.config())
	w.sim("POST", "/terminal", object{"action": "start"})
	w.link("up", 5*time.Second) // nothing was sold since: the ledger has seen nothing newer
	if trade := w.api(200, "GET", "/v1/trade/T1", nil); trade["trade_state"] != "SUCCESS" {
		t.Errorf("%v", trade)
	}
	w.pay("T2", 300, w.code("13800000002", "ONLINE"))
	w.agrees()
}

func TestAnOldBackupIsRefusedByTheLedger(t *testing.T) {
	w := startWorld(t)
	w.pay("T1", 1250, w.code("13800000001", "ONLINE"))
	file := filepath.Join(w.dir, "book.backup")
	w.expect(0, "已备份", "backup", "-c", w.config(), "--to", file)
	for n := range 3 {
		w.pay([]string{"T2", "T3", "T4"}[n], 100, w.code("13800000001", "ONLINE"))
	}
	w.anchored()
	w.sim("POST", "/terminal", object{"action": "kill"})
	if err := os.RemoveAll(w.book()); err != nil {
		t.Fatal(err)
	}
	w.expect(0, "新纪元", "restore", file, "-c", w.config())
	w.sim("POST", "/terminal", object{"action": "start"})
	w.linkReason("BOOK_ROLLED_BACK")
	if text := w.terminal()["link"].(object)["text"].(string); text == "" {
		t.Error("nobody is told why")
	}
}

// anchored waits until the ledger holds the head of everything that was sold: all but the records that the anchor itself leaves.
func (w *world) anchored() {
	w.t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		book := w.terminal()["book"].(object)
		if book["anchored"].(float64)+2 >= book["sequence"].(float64) {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("never anchored: %v", book)
		}
		time.Sleep(50 * time.Millisecond) // as above
	}
}

func TestADeadTerminalsBookGoesOnElsewhere(t *testing.T) {
	w := startWorld(t)
	w.pay("T1", 1250, w.code("13800000001", "ONLINE"))
	phrase := filepath.Join(w.dir, "phrase")
	if err := os.WriteFile(phrase, []byte("一段足够长的口令 correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A payment is on its way when the machine dies.
	w.sim("POST", "/faults", object{"op": "pay", "action": "drop_reply", "probability": 1, "times": 1})
	w.api(202, "POST", "/v1/trade/pay", object{"out_trade_no": "T2", "total_fen": 400, "auth_code": w.code("13800000002", "ONLINE")})
	w.sim("POST", "/terminal", object{"action": "kill"})
	file := filepath.Join(w.dir, "book.export")
	w.expect(2, "passphrase", "journal", "export", "-c", w.config(), "--to", file)
	w.expect(0, "已导出", "journal", "export", "-c", w.config(), "--to", file, "--passphrase-file", phrase)
	raw, err := os.ReadFile(file)
	if err != nil || bytes.Contains(raw, []byte("manifest")) || bytes.Contains(raw, []byte("10000001")) {
		t.Fatalf("the export can be read: %v", err)
	}
	key := filepath.Join(w.dir, "posd", "identity", "book.key")
	for _, gone := range []string{w.book(), key} {
		if err := os.RemoveAll(gone); err != nil {
			t.Fatal(err)
		}
	}
	wrong := filepath.Join(w.dir, "wrong")
	if err := os.WriteFile(wrong, []byte("another passphrase\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.expect(1, "口令不符", "journal", "import", file, "-c", w.config(), "--passphrase-file", wrong)
	w.expect(0, "核验通过", "journal", "verify", "-c", w.config(), "--bundle", file, "--passphrase-file", phrase)
	w.expect(0, "新纪元", "journal", "import", file, "-c", w.config(), "--passphrase-file", phrase)
	w.sim("POST", "/terminal", object{"action": "start"})
	// Its open work goes on from there: whether the ledger heard of the payment before the machine died, it says.
	deadline := time.Now().Add(60 * time.Second)
	for {
		_, trade, _ := w.call("GET", w.address.Till+"/v1/trade/T2?wait=5s", w.address.Token, nil)
		if took := 500000 - w.balance("13800000002"); trade["final"] == true && (trade["trade_state"] == "SUCCESS") == (took == 400) {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("%v, the customer paid %v", trade, took)
		}
	}
	w.agrees()
}

func TestTheBookGetsANewKeyAndTheOldOneOpensNothingNewer(t *testing.T) {
	w := startWorld(t)
	w.pay("T1", 1250, w.code("13800000001", "ONLINE"))
	w.expect(1, "终端正在运行", "journal", "rekey", "-c", w.config())
	w.sim("POST", "/terminal", object{"action": "kill"})
	key := filepath.Join(w.dir, "posd", "identity", "book.key")
	old, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	w.expect(0, "已更换账本密钥", "journal", "rekey", "-c", w.config())
	w.sim("POST", "/terminal", object{"action": "start"})
	w.link("up", 10*time.Second)
	if trade := w.api(200, "GET", "/v1/trade/T1", nil); trade["trade_state"] != "SUCCESS" {
		t.Errorf("%v", trade)
	}
	w.pay("T2", 800, w.code("13800000002", "ONLINE"))
	w.expect(0, "核验通过", "journal", "verify", "-q", "-c", w.config())
	file := filepath.Join(w.dir, "book.backup")
	w.expect(0, "已备份", "backup", "-q", "-c", w.config(), "--to", file)
	w.sim("POST", "/terminal", object{"action": "kill"})
	if err := os.Rename(w.book(), w.book()+".lost"); err != nil {
		t.Fatal(err)
	}
	w.expect(0, "账本已就位", "restore", "-q", file, "-c", w.config())
	w.expect(0, "核验通过", "journal", "verify", "-q", "-c", w.config())
	now, err := os.ReadFile(key)
	if err != nil || bytes.Equal(now, old) {
		t.Fatalf("the same key, %v", err)
	}
	if err := os.WriteFile(key, old, 0o600); err != nil {
		t.Fatal(err)
	}
	w.expect(1, "", "journal", "verify", "-q", "-c", w.config())
}

func TestOnlyWhatIsOlderThanFourHundredDaysIsArchived(t *testing.T) {
	w := startWorld(t)
	w.pay("T1", 1250, w.code("13800000001", "ONLINE"))
	w.sim("POST", "/terminal", object{"action": "kill"})
	w.expect(2, "book.archive", "journal", "archive", "-c", w.config())
	t.Setenv("POSD_BOOK_ARCHIVE", filepath.Join(w.dir, "archive"))
	w.expect(2, "400", "journal", "archive", "-c", w.config(), "--days", "30")
	w.expect(0, "已归档 0 段", "journal", "archive", "-c", w.config())
	w.expect(0, "核验通过", "journal", "verify", "-q", "-c", w.config())
}

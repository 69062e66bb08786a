package daemon

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"yupos/daemon/config"
	"yupos/daemon/identity"
	"yupos/simulators/ledgersim"
)

// newLedger is a ledger with a shop and terminal 10000001.
func newLedger(t *testing.T) *ledgersim.Ledger {
	t.Helper()
	l, err := ledgersim.Open(ledgersim.Options{Dir: filepath.Join(t.TempDir(), "ledger"), Listen: "127.0.0.1:0", Seed: 1, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Provision("10000001", "653000053310001", "YUZHONG NOODLES", "渝中小面", "5411", 38, filepath.Join(t.TempDir(), "identity")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, l.Close()); err != nil {
			t.Error(err)
		}
	})
	return l
}

// enroll runs the command and answers its exit code and words.
func enroll(t *testing.T, dir string, a ledgersim.Activation) (code int, words string) {
	t.Helper()
	var out bytes.Buffer
	c := enrollCommand(&out)
	c.SetArgs([]string{"--ledger", a.URL, "--ca-sha256", a.CASHA256, "-c", filepath.Join(dir, "posd.toml"), a.Code})
	c.SilenceErrors, c.SilenceUsage = true, true
	err := c.ExecuteContext(t.Context())
	var own *coded
	switch {
	case err == nil:
		return 0, out.String()
	case errors.As(err, &own):
		return own.code, own.text
	}
	return ExitFailure, err.Error()
}

func activation(t *testing.T, l *ledgersim.Ledger, terminal string) ledgersim.Activation {
	t.Helper()
	a, err := l.Activate(terminal, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// joined is what the terminal in dir is, by its configuration and its identity.
func joined(t *testing.T, dir string) (config.Config, identity.Identity) {
	t.Helper()
	cfg, err := config.Load(filepath.Join(dir, "posd.toml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := identity.EnsureBookKey(filepath.Join(cfg.Terminal.IdentityDir, "book.key"), false); err != nil {
		t.Fatal(err)
	}
	id, err := identity.Open(cfg.Terminal.IdentityDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"register", "manager"} {
		if raw, err := os.ReadFile(filepath.Join(dir, "tokens", name)); err != nil || len(strings.TrimSpace(string(raw))) < 32 {
			t.Errorf("token %s: %d bytes, %v", name, len(raw), err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*", ".new-*")); err != nil || left != nil {
		t.Errorf("left behind: %v %v", left, err)
	}
	return cfg, id
}

func TestAnEnrolmentKilledAfterAnyStepEndsWithTheSameCommand(t *testing.T) {
	l := newLedger(t)
	for name, undo := range map[string][]string{ // what the steps after the kill would have made
		"before the identity is in its place":  {},
		"before the configuration":             {"posd.toml"},
		"between the tokens":                   {"posd.toml", "tokens/manager"},
		"before the tokens":                    {"posd.toml", "tokens"},
		"before the note of the grant":         {"posd.toml", "tokens", "identity.enrolling/grant.json"},
		"between the files of the grant":       {"posd.toml", "tokens", "identity.enrolling/grant.json", "identity.enrolling/confirmation.secret"},
		"after the answer, with the key alone": {"posd.toml", "tokens", "identity.enrolling/grant.json", "identity.enrolling/terminal.crt"},
	} {
		t.Run(name, func(t *testing.T) {
			a, dir := activation(t, l, ""), t.TempDir()
			if code, words := enroll(t, dir, a); code != 0 {
				t.Fatalf("%d: %s", code, words)
			}
			_, before := joined(t, dir)
			if err := os.Rename(filepath.Join(dir, "identity"), filepath.Join(dir, "identity.enrolling")); err != nil {
				t.Fatal(err)
			}
			for _, gone := range undo {
				if err := os.RemoveAll(filepath.Join(dir, gone)); err != nil {
					t.Fatal(err)
				}
			}
			code, words := enroll(t, dir, a)
			if strings.Contains(strings.Join(undo, " "), "grant.json") {
				// The first run showed its certificate: the code has ended, and says so. A code for the same terminal goes on.
				if code != ExitRefused || !strings.Contains(words, "ACTIVATION_USED") {
					t.Fatalf("a code that was shown to the ledger: %d: %s", code, words)
				}
				code, words = enroll(t, dir, activation(t, l, a.TerminalID))
			}
			if code != 0 {
				t.Fatalf("%d: %s", code, words)
			}
			if cfg, id := joined(t, dir); id.TerminalID != a.TerminalID || cfg.Terminal.ID != a.TerminalID || !id.Key.Equal(before.Key) {
				t.Errorf("%s, configured %s, the same key: %v", id.TerminalID, cfg.Terminal.ID, id.Key.Equal(before.Key))
			}
			if code, words := enroll(t, dir, a); code != ExitRefused || !strings.Contains(words, "本机已有身份") {
				t.Errorf("once more: %d: %s", code, words)
			}
		})
	}
}

func TestAGrantOfAnEarlierTryForAnotherTerminalIsNotInTheWay(t *testing.T) {
	l, dir := newLedger(t), t.TempDir()
	first, second := activation(t, l, ""), activation(t, l, "")
	if first.TerminalID == second.TerminalID {
		t.Fatal("two codes for one terminal")
	}
	if code, words := enroll(t, dir, first); code != 0 {
		t.Fatalf("%d: %s", code, words)
	}
	path := filepath.Join(dir, "posd.toml")
	raw, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, bytes.ReplaceAll(raw, []byte(first.TerminalID), []byte(second.TerminalID)), 0o600)
	}
	if err = errors.Join(err, os.Rename(filepath.Join(dir, "identity"), filepath.Join(dir, "identity.enrolling"))); err != nil {
		t.Fatal(err)
	}
	if code, words := enroll(t, dir, second); code != 0 {
		t.Fatalf("%d: %s", code, words)
	}
	if _, id := joined(t, dir); id.TerminalID != second.TerminalID {
		t.Errorf("%s, want %s", id.TerminalID, second.TerminalID)
	}
}

func TestAConfigurationThatCannotBeWrittenLeavesTheWayOpenForTheSameCommand(t *testing.T) {
	l, dir := newLedger(t), t.TempDir()
	a, obstacle := activation(t, l, ""), filepath.Join(dir, "tokens")
	if err := os.WriteFile(obstacle, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, words := enroll(t, dir, a); code != ExitFailure {
		t.Fatalf("%d: %s", code, words)
	}
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	if code, words := enroll(t, dir, a); code != 0 {
		t.Fatalf("%d: %s", code, words)
	}
	if _, id := joined(t, dir); id.TerminalID != a.TerminalID {
		t.Errorf("%s, want %s", id.TerminalID, a.TerminalID)
	}
}

func TestAfterAWrongCodeThePersonIsToldHowLongToWait(t *testing.T) {
	l, dir := newLedger(t), t.TempDir()
	a := activation(t, l, "")
	wrong := a
	wrong.Code = a.Code[:15] + "ZZZZ"
	if code, words := enroll(t, dir, wrong); code != ExitRefused || !strings.Contains(words, "ACTIVATION_REFUSED") || strings.Contains(words, wrong.Code) {
		t.Errorf("%d: %s", code, words)
	}
	if code, words := enroll(t, dir, a); code != ExitRefused || !strings.Contains(words, "请在 1 秒后") || strings.Contains(words, a.Code) {
		t.Errorf("%d: %s", code, words)
	}
}

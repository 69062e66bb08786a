package simulators

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// configure writes the terminal's configuration and its tokens, and returns the file. The file is written anew each time,
// because ports may have changed; tokens are made once.
func (w *World) configure() (string, error) {
	dir := filepath.Join(w.options.Dir, "posd")
	var err error
	if w.addresses.Token, err = token(filepath.Join(dir, "tokens", "register")); err != nil {
		return "", err
	}
	if w.addresses.ManagerToken, err = token(filepath.Join(dir, "tokens", "manager")); err != nil {
		return "", err
	}
	file := filepath.Join(dir, "posd.toml")
	if err := os.WriteFile(file, []byte(w.toml()), 0o600); err != nil {
		return "", fmt.Errorf("write configuration: %w", err)
	}
	return file, nil
}

// toml is the configuration of the demo's terminal. Strings are quoted as Go does, which TOML reads the same way for what
// stands here.
func (w *World) toml() string {
	var b strings.Builder
	section := func(name string, lines ...string) {
		fmt.Fprintf(&b, "%s\n%s\n\n", name, strings.Join(lines, "\n"))
	}
	text := func(key, value string) string { return fmt.Sprintf("%s = %q", key, value) }
	b.WriteString("# Written by possim demo at each start.\n\n")
	section("[terminal]", text("id", TerminalID), text("identity_dir", "identity"), text("data_dir", "book"))
	section("[merchant]", text("id", merchantID), text("name", merchant), text("display_name", displayName), text("mcc", mcc))
	section("[ledger]", fmt.Sprintf("urls = [%q]", w.addresses.Ledger))
	section("[web]", text("listen", strings.TrimPrefix(w.addresses.Till, "http://")))
	scopes := `"pay", "query", "cancel", "print", "show", "events", "terminal"`
	section("[[web.token]]", text("name", "register"), text("file", "tokens/register"), "scopes = ["+scopes+"]")
	scopes += `, "refund", "shift", "office", "settings"`
	section("[[web.token]]", text("name", "manager"), text("file", "tokens/manager"), "scopes = ["+scopes+"]")
	section("[scanner]", text("port", w.device("scanner")), "baud = 9600", `terminator = "\r"`)
	section("[printer]", text("port", w.device("printer")), "baud = 115200", text("profile", "80mm"), "auto = true")
	section("[display]", text("port", w.device("display")), "baud = 9600", text("profile", "bonrix"))
	section("[shift]", "auto_open = true")
	section("[log]", text("level", "info"))
	return b.String()
}

// token reads a token, or makes it.
func token(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if err == nil && strings.TrimSpace(string(raw)) != "" {
		return strings.TrimSpace(string(raw)), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read token: %w", err)
	}
	fresh := rand.Text() + rand.Text() // 52 characters: the daemon wants 32 at least
	if err := os.WriteFile(path, []byte(fresh+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write token: %w", err)
	}
	return fresh, nil
}

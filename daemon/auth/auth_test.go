package auth

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	registerToken = "REGISTERREGISTERREGISTERREGISTER"
	managerToken  = "MANAGERMANAGERMANAGERMANAGERMANAGER"
)

// file makes a token's file.
func file(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func counter(t *testing.T) *Auth {
	t.Helper()
	a, err := Load([]Token{
		{"register", file(t, registerToken+"\n", 0o600), []string{"pay", "query"}},
		{"manager", file(t, "  "+managerToken+"\r\n", 0o400), []string{"pay", "query", "refund"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestACallerIsKnownByItsToken(t *testing.T) {
	a := counter(t)
	for _, c := range []struct {
		name, header, caller string
		want                 error
	}{
		{"the first token", "Bearer " + registerToken, "register", nil},
		{"the last token", "Bearer " + managerToken, "manager", nil},
		{"the scheme in small letters", "bearer " + registerToken, "register", nil},
		{"more than one space", "Bearer   " + registerToken + " ", "register", nil},
		{"no header", "", "", ErrNoToken},
		{"the scheme alone", "Bearer", "", ErrNoToken},
		{"the scheme and a space", "Bearer ", "", ErrNoToken},
		{"another scheme", "Basic " + registerToken, "", ErrNoToken},
		{"the token alone", registerToken, "", ErrNoToken},
		{"only spaces", "Bearer    ", "", ErrBadToken},
		{"a token that is a character short", "Bearer " + registerToken[1:], "", ErrBadToken},
		{"a token that is a character long", "Bearer " + registerToken + "R", "", ErrBadToken},
		{"a token that differs in its first character", "Bearer X" + registerToken[1:], "", ErrBadToken},
		{"a token that differs in its last character", "Bearer " + registerToken[:len(registerToken)-1] + "X", "", ErrBadToken},
		{"a token in small letters", "Bearer " + strings.ToLower(registerToken), "", ErrBadToken},
		{"two tokens", "Bearer " + registerToken + " " + managerToken, "", ErrBadToken},
		{"a very long token", "Bearer " + strings.Repeat("R", 1<<20), "", ErrBadToken},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := a.Bearer(c.header)
			if got.Name != c.caller || !errors.Is(err, c.want) {
				t.Errorf("got %q, %v; want %q, %v", got.Name, err, c.caller, c.want)
			}
			if err != nil && (strings.Contains(err.Error(), registerToken[:8]) || got.May(Pay)) {
				t.Errorf("refused with %v and may pay: %v", err, got.May(Pay))
			}
		})
	}
}

func TestNobodyIsKnownWithoutTokens(t *testing.T) {
	a, err := Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Bearer("Bearer " + registerToken); !errors.Is(err, ErrBadToken) {
		t.Errorf("error is %v, want ErrBadToken", err)
	}
}

func TestACallerMayDoWhatItsScopesSay(t *testing.T) {
	a := counter(t)
	for name, may := range map[string][]Scope{"register": {Pay, Query}, "manager": {Pay, Query, Refund}, "": nil} {
		c, _ := a.Named(name)
		for _, s := range Scopes {
			want := slices.Contains(may, s)
			if err := c.Check(s); c.May(s) != want || (err == nil) != want || !want && !errors.Is(err, ErrScope) {
				t.Errorf("%q %s: %v, %v", name, s, c.May(s), err)
			}
		}
	}
	c, _ := a.Named("register")
	if err := c.Check(Refund); !strings.Contains(err.Error(), `register needs "refund"`) {
		t.Errorf("the refusal does not say what is missing: %v", err)
	}
}

func TestOnlyCallersHaveNames(t *testing.T) {
	a := counter(t)
	for name, want := range map[string]bool{"register": true, "manager": true, "": false, "Register": false, registerToken: false} {
		if c, ok := a.Named(name); ok != want || ok && c.Name != name {
			t.Errorf("%q: %q, %v", name, c.Name, ok)
		}
	}
}

func TestATokenFileThatIsNotSafeIsRefused(t *testing.T) {
	first := Token{"first", file(t, registerToken, 0o600), []string{"pay"}}
	for _, c := range []struct{ name, path, says string }{
		{"readable by the group", file(t, managerToken, 0o640), "chmod 600 "},
		{"readable by all", file(t, managerToken, 0o604), "chmod 600 "},
		{"too short", file(t, managerToken[:minToken-1]+"\n\n", 0o600), "shorter than 32"},
		{"empty", file(t, "", 0o600), "shorter than 32"},
		{"missing", filepath.Join(t.TempDir(), "none"), "no such file"},
		{"another caller's token", file(t, registerToken+"\n", 0o600), `"first" and "second" have the same token`},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := Load([]Token{first, {"second", c.path, []string{"pay"}}})
			if a != nil || !errors.Is(err, ErrFile) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error is %v, want ErrFile saying %q", err, c.says)
			}
			if strings.Contains(fmt.Sprint(err), managerToken[:8]) || strings.Contains(fmt.Sprint(err), registerToken[:8]) {
				t.Errorf("the error tells the token: %v", err)
			}
		})
	}
}

func TestAuthNeverShowsATokenWhenItIsFormatted(t *testing.T) {
	a := counter(t)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(verb, a); strings.Contains(text, registerToken) || strings.Contains(text, managerToken) {
			t.Errorf("%s shows a token: %s", verb, text)
		}
	}
}

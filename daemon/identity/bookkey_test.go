package identity

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheBookKeyComesFromTheCredentialThenTheConfigurationThenTheDirectory(t *testing.T) {
	credentials, empty := t.TempDir(), t.TempDir()
	write(t, credentials, bookFile, secretHex)
	for _, c := range []struct{ name, configured, credentials, want string }{
		{"nothing said", "", "", "/id/book.key"},
		{"a configured file", "/keys/a", "", "/keys/a"},
		{"a credential", "", credentials, filepath.Join(credentials, bookFile)},
		{"a credential beside a configured file", "/keys/a", credentials, filepath.Join(credentials, bookFile)},
		{"credentials without the key", "/keys/a", empty, "/keys/a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := BookKeyFile("/id", c.configured, c.credentials); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func TestACredentialOpensTheBookAndATooOpenOneIsNamedWithTheModeItMustHave(t *testing.T) {
	for _, c := range []struct {
		mode os.FileMode
		ok   bool
	}{{0o400, true}, {0o600, true}, {0o440, true}, {0o444, false}, {0o460, false}, {0o404, false}} {
		dir, credentials := directory(t), t.TempDir()
		if err := os.Remove(filepath.Join(dir, bookFile)); err != nil {
			t.Fatal(err)
		}
		write(t, credentials, bookFile, secretHex)
		path := filepath.Join(credentials, bookFile)
		chmod(t, path, c.mode)
		t.Setenv(CredentialsEnv, credentials)
		id, err := OpenWith(dir, BookKeyFile(dir, "", credentials))
		if c.ok && (err != nil || id.BookKey[0] != 0xa1) {
			t.Errorf("mode %04o: %v", c.mode, err)
		}
		if !c.ok && (!errors.Is(err, ErrMode) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "0400")) {
			t.Errorf("mode %04o: %v", c.mode, err)
		}
	}
}

func TestAConfiguredBookKeyIsHeldToTheModeOfASecret(t *testing.T) {
	dir, other := directory(t), t.TempDir()
	write(t, other, "key", secretHex)
	path := filepath.Join(other, "key")
	if _, err := OpenWith(dir, path); err != nil {
		t.Error(err)
	}
	chmod(t, path, 0o640)
	if _, err := OpenWith(dir, path); !errors.Is(err, ErrMode) || !strings.Contains(err.Error(), "chmod 600 "+path) {
		t.Errorf("mode 0640: %v", err)
	}
}

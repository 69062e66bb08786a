// Package identity holds who this terminal is: its key and certificate, the ledger's pinned CA, the pinned keys, the
// confirmation secret and the book's key.
//
// Guarantees: a secret is read only from a file that nobody else may read, in a directory that nobody else may enter, and
// what is wrong is said with the command that mends it; secrets mask themselves wherever they are logged or formatted; the
// book's key is made once, and never beside a book that lacks its key.
package identity

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"yupos/ledgercache/trust"
)

// The files of an identity directory.
const (
	keyFile     = "terminal.key"
	certFile    = "terminal.crt"
	caFile      = "ledger-ca.crt"
	pinsFile    = "pins.json"
	confirmFile = "confirmation.secret"
	bookFile    = "book.key"
)

// Errors of an identity.
var (
	// ErrMode says that a secret could be read by others; the message holds the command that mends it.
	ErrMode = errors.New("identity: others may read a secret")
	// ErrBad says that a file is missing or not what it should be.
	ErrBad = errors.New("identity: bad file")
	// ErrNoBookKey says that there is a book and its key is gone: none is made, because it could not open the book.
	ErrNoBookKey = errors.New("identity: the book's key is missing")
)

// Secret is 32 bytes that mask themselves.
type Secret [32]byte

// Format masks the secret under every verb: %d would print the bytes of an array whatever its String says.
func (Secret) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "secret") }

// MarshalText masks the secret in JSON.
func (Secret) MarshalText() ([]byte, error) { return []byte("secret"), nil }

// LogValue masks the secret in slog.
func (Secret) LogValue() slog.Value { return slog.StringValue("secret") }

// Identity is who this terminal is.
type Identity struct {
	TerminalID   string // the certificate's common name
	MerchantID   string // its organisation
	Certificate  tls.Certificate
	LedgerCA     *x509.CertPool
	Pins         trust.Pins
	Key          ed25519.PrivateKey
	Confirmation Secret
	BookKey      Secret

	leaf *x509.Certificate
}

// String names the terminal and nothing else.
func (id Identity) String() string { return "terminal " + id.TerminalID }

// Format names the terminal and nothing else, under every verb.
func (id Identity) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, id.String()) }

// MarshalText names the terminal and nothing else in JSON.
func (id Identity) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// LogValue names the terminal and nothing else.
func (id Identity) LogValue() slog.Value { return slog.StringValue(id.String()) }

// Open reads an identity directory with the book's key in it. It fails with ErrMode or ErrBad, naming the file.
func Open(dir string) (Identity, error) { return OpenWith(dir, filepath.Join(dir, bookFile)) }

// OpenWith is Open with the book's key in the file that BookKeyFile names.
func OpenWith(dir, bookKey string) (Identity, error) {
	var id Identity
	if err := checkMode(dir); err != nil {
		return id, err
	}
	if err := id.readCertificate(dir); err != nil {
		return id, err
	}
	if err := id.readPublic(dir); err != nil {
		return id, err
	}
	var err error
	id.BookKey, err = readBookKey(bookKey)
	return id, err
}

// readPublic reads whom the terminal believes, and the confirmation secret.
func (id *Identity) readPublic(dir string) error {
	ca, err := read(dir, caFile, false)
	if err != nil {
		return err
	}
	id.LedgerCA = x509.NewCertPool()
	if !id.LedgerCA.AppendCertsFromPEM(ca) {
		return bad(dir, caFile, "holds no certificate")
	}
	raw, err := read(dir, pinsFile, false)
	if err != nil {
		return err
	}
	if id.Pins, err = trust.ParsePins(raw); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrBad, filepath.Join(dir, pinsFile), err)
	}
	id.Confirmation, err = readSecret(dir, confirmFile)
	return err
}

func (id *Identity) readCertificate(dir string) error {
	key, err := read(dir, keyFile, true)
	if err != nil {
		return err
	}
	cert, err := read(dir, certFile, false)
	if err != nil {
		return err
	}
	if id.Certificate, err = tls.X509KeyPair(cert, key); err != nil {
		return bad(dir, certFile, "does not belong to "+keyFile)
	}
	private, ok := id.Certificate.PrivateKey.(ed25519.PrivateKey)
	if !ok {
		return bad(dir, keyFile, "is no Ed25519 key")
	}
	leaf, err := x509.ParseCertificate(id.Certificate.Certificate[0])
	if err != nil {
		return bad(dir, certFile, "is no certificate")
	}
	if len(leaf.Subject.Organization) != 1 {
		return bad(dir, certFile, "names no merchant")
	}
	id.leaf = leaf
	id.Key, id.TerminalID, id.MerchantID = private, leaf.Subject.CommonName, leaf.Subject.Organization[0]
	return nil
}

// TLS is how this terminal talks to its ledger: TLS 1.3, its own certificate, and no CA but the pinned one.
func (id Identity) TLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{id.Certificate}, RootCAs: id.LedgerCA}
}

// writeDurably writes a new secret so that it is there whole or not at all.
func writeDurably(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil { // never replaces a key that came to be meanwhile
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// checkMode refuses what others may read or enter.
func checkMode(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBad, err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		want := "600"
		if info.IsDir() {
			want = "700"
		}
		return fmt.Errorf("%w: %s has mode %04o; 请执行 · run: chmod %s %s", ErrMode, path, info.Mode().Perm(), want, path)
	}
	return nil
}

func read(dir, name string, secret bool) ([]byte, error) {
	path := filepath.Join(dir, name)
	if secret {
		if err := checkMode(path); err != nil {
			return nil, err
		}
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBad, err)
	}
	if block, _ := pem.Decode(raw); block == nil && strings.HasSuffix(name, ".crt") {
		return nil, bad(dir, name, "is no PEM file")
	}
	return raw, nil
}

func readSecret(dir, name string) (s Secret, err error) {
	raw, err := read(dir, name, true)
	if err != nil {
		return s, err
	}
	return parseSecret(raw, filepath.Join(dir, name))
}

func parseSecret(raw []byte, path string) (s Secret, err error) {
	key, err := hex.DecodeString(strings.TrimSpace(string(raw)))
	if err != nil || len(key) != len(s) {
		return s, fmt.Errorf("%w: %s is not 32 bytes of hex", ErrBad, path)
	}
	copy(s[:], key)
	return s, nil
}

func bad(dir, name, what string) error {
	return fmt.Errorf("%w: %s %s", ErrBad, filepath.Join(dir, name), what)
}

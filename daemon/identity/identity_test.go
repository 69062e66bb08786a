package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"yupos/ledgercache/trust"
)

// authority is a ledger's CA.
type authority struct {
	key  ed25519.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ledger"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return authority{key, sign(t, form, form, public, key)}
}

func sign(t *testing.T, form, parent *x509.Certificate, public ed25519.PublicKey, by ed25519.PrivateKey) *x509.Certificate {
	t.Helper()
	raw, err := x509.CreateCertificate(nil, form, parent, public, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// leaf is a certificate of the authority with its key.
func (a authority) leaf(t *testing.T, name pkix.Name) (*x509.Certificate, ed25519.PrivateKey) {
	t.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: name, NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	return sign(t, form, a.cert, public, a.key), key
}

var terminalName = pkix.Name{CommonName: "10000001", Organization: []string{"653000053310001"}}

const secretHex = "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90"

// directory makes a whole identity directory.
func directory(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "identity")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	a := newAuthority(t)
	cert, key := a.leaf(t, terminalName)
	write(t, dir, keyFile, keyPEM(t, key))
	write(t, dir, certFile, certPEM(cert))
	write(t, dir, caFile, certPEM(a.cert))
	write(t, dir, pinsFile, fmt.Sprintf(`{"keys":[{"role":"issuer","public":"%x","not_before":0,"not_after":0}]}`, key.Public()))
	write(t, dir, confirmFile, secretHex+"\n")
	write(t, dir, bookFile, strings.Repeat("5a", 32)+"\n")
	return dir
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func certPEM(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func keyPEM(t *testing.T, key any) string {
	t.Helper()
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}

func TestAWholeDirectoryOpens(t *testing.T) {
	id, err := Open(directory(t))
	if err != nil {
		t.Fatal(err)
	}
	if id.TerminalID != "10000001" || id.MerchantID != "653000053310001" {
		t.Errorf("terminal %s of %s", id.TerminalID, id.MerchantID)
	}
	if hex.EncodeToString(id.Confirmation[:]) != secretHex || id.BookKey[0] != 0x5a {
		t.Error("secrets were read wrongly")
	}
	if len(id.Pins.Keys(trust.Issuer, time.Now())) != 1 || len(id.Key) != ed25519.PrivateKeySize {
		t.Error("keys were read wrongly")
	}
}

func TestWhatIsWrongIsNamed(t *testing.T) {
	other := newAuthority(t)
	foreign, foreignKey := other.leaf(t, terminalName)
	nobody, nobodyKey := other.leaf(t, pkix.Name{CommonName: "10000001"})
	for _, c := range []struct {
		name string
		harm func(t *testing.T, dir string)
		want error
		says string
	}{
		{"a key of another certificate", func(t *testing.T, d string) { write(t, d, keyFile, keyPEM(t, foreignKey)) }, ErrBad, "terminal.crt does not belong to terminal.key"},
		{"a certificate of another key", func(t *testing.T, d string) { write(t, d, certFile, certPEM(foreign)) }, ErrBad, "does not belong"},
		{"a certificate without a merchant", func(t *testing.T, d string) {
			write(t, d, certFile, certPEM(nobody))
			write(t, d, keyFile, keyPEM(t, nobodyKey))
		}, ErrBad, "names no merchant"},
		{"a certificate that is no PEM", func(t *testing.T, d string) { write(t, d, certFile, "x") }, ErrBad, "terminal.crt is no PEM file"},
		{"a CA that is no certificate", func(t *testing.T, d string) {
			write(t, d, caFile, "-----BEGIN X-----\nAAAA\n-----END X-----\n")
		}, ErrBad, "ledger-ca.crt holds no certificate"},
		{"pins of an unknown role", func(t *testing.T, d string) {
			write(t, d, pinsFile, `{"keys":[{"role":"king","public":"`+secretHex+`"}]}`)
		}, ErrBad, pinsFile},
		{"a secret that is too short", func(t *testing.T, d string) { write(t, d, confirmFile, secretHex[2:]) }, ErrBad, "confirmation.secret is not 32 bytes of hex"},
		{"a secret that is no hex", func(t *testing.T, d string) { write(t, d, bookFile, "z"+secretHex[1:]) }, ErrBad, "book.key is not 32 bytes of hex"},
		{"a directory that others may enter", func(t *testing.T, d string) { chmod(t, d, 0o750) }, ErrMode, "chmod 700 "},
		{"a key that the group may read", func(t *testing.T, d string) { chmod(t, filepath.Join(d, keyFile), 0o640) }, ErrMode, "chmod 600 "},
		{"a secret that others may read", func(t *testing.T, d string) { chmod(t, filepath.Join(d, confirmFile), 0o604) }, ErrMode, confirmFile},
		{"a book's key that others may write", func(t *testing.T, d string) { chmod(t, filepath.Join(d, bookFile), 0o602) }, ErrMode, bookFile},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := directory(t)
			c.harm(t, dir)
			_, err := Open(dir)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error is %v, want %v saying %q", err, c.want, c.says)
			}
			if strings.Contains(err.Error(), secretHex[4:20]) {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestEveryFileMustBeThere(t *testing.T) {
	for _, name := range []string{keyFile, certFile, caFile, pinsFile, confirmFile, bookFile} {
		dir := directory(t)
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); !errors.Is(err, ErrBad) || !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, ErrBad) {
		t.Errorf("without a directory: %v", err)
	}
}

func TestTheCertificateAndCAMayBeReadByAll(t *testing.T) {
	dir := directory(t)
	for _, name := range []string{certFile, caFile, pinsFile} {
		chmod(t, filepath.Join(dir, name), 0o644)
	}
	if _, err := Open(dir); err != nil {
		t.Error(err)
	}
}

func TestTheBookKeyIsMadeOnce(t *testing.T) {
	dir := directory(t)
	path := filepath.Join(dir, bookFile)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := EnsureBookKey(path, false); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, book := range []bool{false, true} {
		if err := EnsureBookKey(path, book); err != nil {
			t.Errorf("beside a key, book %v: %v", book, err)
		}
	}
	if second, err := os.ReadFile(path); err != nil || !bytes.Equal(first, second) {
		t.Errorf("the key was made again (%v)", err)
	}
	if id, err := Open(dir); err != nil || id.BookKey == (Secret{}) {
		t.Errorf("the new key does not open: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".new-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestNoBookKeyIsMadeBesideABook(t *testing.T) {
	dir := t.TempDir()
	if err := EnsureBookKey(filepath.Join(dir, bookFile), true); !errors.Is(err, ErrNoBookKey) {
		t.Errorf("error is %v, want ErrNoBookKey", err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("made %v (%v)", files, err)
	}
}

func TestANewKeyNeverReplacesOneThatCameToBeMeanwhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), bookFile)
	if err := os.WriteFile(path, []byte("first"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeDurably(path, "second"); !errors.Is(err, os.ErrExist) {
		t.Errorf("error is %v, want os.ErrExist", err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "first" {
		t.Errorf("the file holds %q (%v)", got, err)
	}
}

func TestSecretsMaskThemselvesHoweverTheyAreShown(t *testing.T) {
	id, err := Open(directory(t))
	if err != nil {
		t.Fatal(err)
	}
	var shown bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%08b"} {
		fmt.Fprintf(&shown, verb+"\n", id.Confirmation)
		fmt.Fprintf(&shown, verb+"\n", &id.Confirmation)
		fmt.Fprintf(&shown, verb+"\n", id)
		fmt.Fprintf(&shown, verb+"\n", &id)
		fmt.Fprintf(&shown, verb+"\n", struct{ ID Identity }{id})
	}
	for _, log := range []*slog.Logger{slog.New(slog.NewTextHandler(&shown, nil)), slog.New(slog.NewJSONHandler(&shown, nil))} {
		log.Info("x", slog.Any("id", id), slog.Any("secret", id.Confirmation), slog.Any("inside", struct{ S Secret }{id.Confirmation}), slog.Any("all", []Identity{id}))
	}
	if err := json.NewEncoder(&shown).Encode(map[string]any{"id": id, "secret": &id.Confirmation}); err != nil {
		t.Fatal(err)
	}
	text := strings.ToLower(shown.String())
	for name, secret := range map[string][]byte{"confirmation": id.Confirmation[:], "book key": id.BookKey[:], "private key": id.Key.Seed()} {
		for _, form := range []string{
			hex.EncodeToString(secret[:6]), strings.Trim(fmt.Sprint(secret[:6]), "[]"), strings.ReplaceAll(strings.Trim(fmt.Sprint(secret[:6]), "[]"), " ", ","),
			strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", secret[:4]), "[]byte{"), "}"), fmt.Sprintf("%q", secret[:6]), fmt.Sprintf("%08b", secret[:3]),
		} {
			if strings.Contains(text, strings.ToLower(strings.Trim(form, "[]"))) {
				t.Errorf("%s is shown as %s", name, form)
			}
		}
	}
	if !strings.Contains(text, "terminal 10000001") || !strings.Contains(text, "secret") {
		t.Errorf("the masks are missing:\n%s", text)
	}
}

func TestTheTerminalTalksOnlyToItsOwnLedger(t *testing.T) {
	dir := directory(t)
	id, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	stranger := newAuthority(t)
	cert, key := stranger.leaf(t, pkix.Name{CommonName: "ledger"})
	for _, c := range []struct {
		name   string
		server tls.Certificate
		most   uint16
		ok     bool
	}{
		{"its own ledger", id.Certificate, tls.VersionTLS13, true}, // in the test the terminal's certificate serves as well
		{"a server of another CA", tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}, tls.VersionTLS13, false},
		{"a ledger with TLS 1.2", id.Certificate, tls.VersionTLS12, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen, err := handshake(t, id, &tls.Config{Certificates: []tls.Certificate{c.server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: id.LedgerCA, MaxVersion: c.most, SessionTicketsDisabled: true})
			if (err == nil) != c.ok {
				t.Errorf("handshake: %v", err)
			}
			if c.ok && seen != "10000001" {
				t.Errorf("the ledger saw %q", seen)
			}
		})
	}
}

// handshake is the name that the server saw, and the client's error.
func handshake(t *testing.T, id Identity, server *tls.Config) (string, error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	near, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 1)
	go func() {
		defer far.Close()
		conn := tls.Server(far, server)
		if conn.Handshake() != nil {
			seen <- ""
			return
		}
		seen <- conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}()
	cfg := id.TLS()
	cfg.ServerName = "localhost"
	if err := tls.Client(near, cfg).Handshake(); err != nil {
		return "", err
	}
	return <-seen, nil
}

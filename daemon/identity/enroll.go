package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"yupos/ledgercache/trust"
)

// This file makes an identity. It grows in a directory beside the one that it becomes: first the key, synced before it is
// shown to anybody, then everything else, then one rename. A kill at any moment leaves the old identity or the new one,
// and the same key for the next try, which is what makes an activation code safe to use again.

// Errors of making an identity.
var (
	// ErrEnrolled says that there is an identity already; it is replaced only on request.
	ErrEnrolled = errors.New("identity: there is one already")
	// ErrGrant says that what the ledger granted does not fit together. Nothing was changed.
	ErrGrant = errors.New("identity: what was granted does not fit")
)

const (
	newsFile  = "news.json"  // the first signed news, until the book has learned them
	grantFile = "grant.json" // what the ledger granted, as far as it is no secret; written last
)

// Granted says whom a finished identity is for.
type Granted struct {
	TerminalID  string   `json:"terminal_id"`
	MerchantID  string   `json:"merchant_id"`
	Name        string   `json:"name"`
	DisplayName string   `json:"display_name"`
	MCC         string   `json:"mcc"`
	URLs        []string `json:"urls"`
}

// Grant is all that a ledger grants with an activation code.
type Grant struct {
	Granted
	Certificate  []byte // DER
	CA           []byte // DER
	Pins         []byte // as trust.ParsePins reads them
	Confirmation Secret
	News         []byte // JSON, kept as it is; may be empty
}

// Enrolment is an identity that is being made.
type Enrolment struct {
	dir string // what it becomes
	new string // where it grows
	key ed25519.PrivateKey

	Done    bool    // a grant is complete, of a try that ended before it was installed
	Granted Granted // of that grant
}

// BeginEnrolment makes the terminal's key for an identity in dir, or finds the one of a try before. It fails with
// ErrEnrolled where there is an identity and replace is false.
func BeginEnrolment(dir string, replace bool) (*Enrolment, error) {
	dir = filepath.Clean(dir)
	e := &Enrolment{dir: dir, new: dir + ".enrolling"}
	if _, err := os.Stat(filepath.Join(dir, keyFile)); err == nil && !replace {
		return nil, fmt.Errorf("%w: %s", ErrEnrolled, dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := os.MkdirAll(e.new, 0o700); err != nil {
		return nil, err
	}
	if err := errors.Join(checkMode(e.new), syncDir(filepath.Dir(e.new))); err != nil {
		return nil, err
	}
	if err := e.openKey(); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(e.new, grantFile))
	if err == nil && json.Unmarshal(raw, &e.Granted) == nil {
		_, err := e.check()
		e.Done = err == nil
	}
	return e, nil
}

func (e *Enrolment) openKey() error {
	path := filepath.Join(e.new, keyFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, e.key, err = ed25519.GenerateKey(rand.Reader); err != nil {
			return err
		}
		der, err := x509.MarshalPKCS8PrivateKey(e.key)
		if err != nil {
			return err
		}
		return writeDurably(path, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	}
	if err != nil {
		return err
	}
	if err := checkMode(path); err != nil {
		return err
	}
	e.key, err = parseKey(raw, path)
	return err
}

func parseKey(raw []byte, path string) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("%w: %s is no PEM file", ErrBad, path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("%w: %s is no Ed25519 key", ErrBad, path)
	}
	return key, nil
}

// Request is the PKCS#10 request of the key, in DER, signed with it.
func (e *Enrolment) Request() ([]byte, error) { return request(e.key) }

func request(key ed25519.PrivateKey) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "yupos"}}, key)
}

// Complete keeps a grant beside the key, synced, the note that it is complete last. It fails with ErrGrant, and then the
// same request may be made again.
func (e *Enrolment) Complete(g Grant) error {
	pins, err := trust.ParsePins(g.Pins)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrGrant, err)
	}
	if len(pins.Keys(trust.Root, time.Now())) == 0 {
		return fmt.Errorf("%w: no root key", ErrGrant)
	}
	granted, err := json.Marshal(g.Granted)
	if err != nil {
		return err
	}
	e.Done = false
	if err := removeDurably(filepath.Join(e.new, grantFile)); err != nil { // an older note would vouch for a mixture
		return err
	}
	for _, f := range []struct {
		name string
		text []byte
	}{
		{certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: g.Certificate})},
		{caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: g.CA})},
		{pinsFile, g.Pins},
		{confirmFile, []byte(hex.EncodeToString(g.Confirmation[:]) + "\n")},
		{newsFile, g.News},
	} {
		if err := replaceDurably(filepath.Join(e.new, f.name), f.text); err != nil {
			return err
		}
	}
	e.Granted = g.Granted
	if _, err := e.check(); err != nil {
		return err
	}
	err = replaceDurably(filepath.Join(e.new, grantFile), granted)
	e.Done = err == nil
	return err
}

// check reads the grant back and holds its parts against each other.
func (e *Enrolment) check() (Identity, error) {
	var id Identity
	if err := id.readCertificate(e.new); err != nil {
		return id, fmt.Errorf("%w: %w", ErrGrant, err)
	}
	if err := id.readPublic(e.new); err != nil {
		return id, fmt.Errorf("%w: %w", ErrGrant, err)
	}
	_, err := id.leaf.Verify(x509.VerifyOptions{Roots: id.LedgerCA, CurrentTime: id.leaf.NotBefore.Add(time.Second), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	switch {
	case err != nil:
		return id, fmt.Errorf("%w: certificate: %w", ErrGrant, err)
	case id.TerminalID != e.Granted.TerminalID || id.MerchantID != e.Granted.MerchantID:
		return id, fmt.Errorf("%w: the certificate is for terminal %.8q of %.15q", ErrGrant, id.TerminalID, id.MerchantID)
	}
	return id, nil
}

// TLS is how the new identity talks to the ledger before it is in its place. It fails before Complete.
func (e *Enrolment) TLS() (*tls.Config, error) {
	id, err := e.check()
	return id.TLS(), err
}

// Install puts a complete identity in its place. The book's key stays where it was; an identity that was there is kept
// under another name, which is answered.
func (e *Enrolment) Install(now time.Time) (old string, err error) {
	if !e.Done {
		return "", fmt.Errorf("%w: nothing was granted yet", ErrGrant)
	}
	key, err := os.ReadFile(filepath.Join(e.dir, bookFile))
	if err == nil {
		err = replaceDurably(filepath.Join(e.new, bookFile), key)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if _, err := os.Stat(e.dir); err == nil {
		old = e.dir + "." + now.UTC().Format("20060102T150405Z")
		if err := os.Rename(e.dir, old); err != nil {
			return "", err
		}
	}
	if err := os.Rename(e.new, e.dir); err != nil {
		return old, err
	}
	return old, syncDir(filepath.Dir(e.dir))
}

// replaceDurably writes a file whole, mode 0600, and syncs it and its directory.
func replaceDurably(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// FirstNews are the signed news that came with the enrolment, as JSON; nil where there are none.
func FirstNews(dir string) ([]byte, error) {
	raw, err := os.ReadFile(filepath.Join(dir, newsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return raw, err
}

// ForgetNews removes the first news once the book has them.
func ForgetNews(dir string) error { return removeDurably(filepath.Join(dir, newsFile)) }

func removeDurably(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, syncDir(filepath.Dir(path)))
}

// Request is a PKCS#10 request for the next certificate of the same key, in DER.
func (id Identity) Request() ([]byte, error) { return request(id.Key) }

// Life is from when to when the certificate is good.
func (id Identity) Life() (from, to time.Time) { return id.leaf.NotBefore, id.leaf.NotAfter }

// Renewed is the identity with its next certificate. It fails with ErrGrant for one that is not the ledger's, or of another
// key or terminal.
func (id Identity) Renewed(der []byte) (Identity, error) {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return id, fmt.Errorf("%w: %w", ErrGrant, err)
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: id.LedgerCA, CurrentTime: leaf.NotBefore.Add(time.Second), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	switch {
	case err != nil:
		return id, fmt.Errorf("%w: certificate: %w", ErrGrant, err)
	case !bytes.Equal(leaf.RawSubject, id.leaf.RawSubject) || !bytes.Equal(leaf.RawSubjectPublicKeyInfo, id.leaf.RawSubjectPublicKeyInfo):
		return id, fmt.Errorf("%w: the certificate is another's", ErrGrant)
	}
	id.leaf = leaf
	id.Certificate = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: id.Key}
	return id, nil
}

// KeepCertificate makes the identity's certificate the one in dir, durably.
func (id Identity) KeepCertificate(dir string) error {
	return replaceDurably(filepath.Join(dir, certFile), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.leaf.Raw}))
}

// ParseCA is the SHA-256 of a CA's certificate as a person typed it: 64 hex digits, colons and spaces between them allowed.
func ParseCA(text string) (sum [sha256.Size]byte, err error) {
	clean := bytes.Map(func(r rune) rune {
		if r == ':' || r == ' ' || r == '-' {
			return -1
		}
		return r
	}, []byte(text))
	raw, err := hex.DecodeString(string(clean))
	if err != nil || len(raw) != len(sum) {
		return sum, fmt.Errorf("%w: a SHA-256 has 64 hex digits", ErrBad)
	}
	copy(sum[:], raw)
	return sum, nil
}

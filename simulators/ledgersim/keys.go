package ledgersim

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// authority is the ledger's certificate authority.
type authority struct {
	key  ed25519.PrivateKey
	cert *x509.Certificate
}

// openAuthority reads the CA, or founds it.
func openAuthority(dir string) (a authority, err error) {
	if err = os.MkdirAll(dir, 0o700); err != nil {
		return a, err
	}
	if a.key, err = openKey(filepath.Join(dir, "ca.key")); err != nil {
		return a, err
	}
	path := filepath.Join(dir, "ca.crt")
	if raw, err := os.ReadFile(path); err == nil {
		block, _ := pem.Decode(raw)
		if block == nil {
			return a, fmt.Errorf("%s is no PEM file", path)
		}
		a.cert, err = x509.ParseCertificate(block.Bytes)
		return a, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "yupay ledger CA (simulated)"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(20, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		return a, err
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return a, err
	}
	return a, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
}

// openKey reads an Ed25519 key, or makes it.
func openKey(path string) (ed25519.PrivateKey, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		return key, writeKey(path, key)
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("%s is no PEM file", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("%s is no Ed25519 key", path)
	}
	return key, nil
}

func writeKey(path string, key ed25519.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// issueFor signs a terminal's certificate; life 0 means two years.
func (a authority) issueFor(subject pkix.Name, public ed25519.PublicKey, life time.Duration) ([]byte, error) {
	return a.issueUntil(subject, x509.ExtKeyUsageClientAuth, public, life)
}

// issue signs a certificate for a public key.
func (a authority) issue(subject pkix.Name, usage x509.ExtKeyUsage, public ed25519.PublicKey) ([]byte, error) {
	return a.issueUntil(subject, usage, public, 0)
}

func (a authority) issueUntil(subject pkix.Name, usage x509.ExtKeyUsage, public ed25519.PublicKey, life time.Duration) ([]byte, error) {
	now := time.Now()
	if life == 0 {
		life = now.AddDate(2, 0, 0).Sub(now)
	}
	early := min(time.Hour, life/10) // a terminal's clock may be behind; a short life is not spent on that
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: subject, NotBefore: now.Add(-early), NotAfter: now.Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
	if usage == x509.ExtKeyUsageServerAuth {
		template.DNSNames = []string{"localhost"}
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	}
	return x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
}

// server makes the certificate of this run.
func (a authority) server() (tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := a.issue(pkix.Name{CommonName: "yupay ledger (simulated)"}, x509.ExtKeyUsageServerAuth, public)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, err
}

// terminal is what the ledger knows of an enrolled terminal.
type terminal struct {
	ID         string   `json:"id"`
	MerchantID string   `json:"merchant_id"`
	Public     string   `json:"public"` // hex; signs ORDERs
	Confirm    string   `json:"confirm"`
	Epoch      string   `json:"epoch,omitempty"`    // of the book that was seen last
	Sequence   uint64   `json:"sequence,omitempty"` // newest anchor in that epoch
	Head       string   `json:"head,omitempty"`
	Past       []string `json:"past,omitempty"` // epochs that a later one replaced
	News       uint64   `json:"news"`           // sequence of the newest push
	Acked      uint64   `json:"acked"`          // up to here the terminal's book has them

	Revoked         bool          `json:"revoked,omitempty"`
	CertificateLife time.Duration `json:"certificate_life,omitempty"` // of certificates to come; 0 = two years
	Next            *successor    `json:"next,omitempty"`             // enrolled, and not seen yet
	Heads           uint32        `json:"heads"`                      // heads of its book that were countersigned
}

func terminalKey(id string) string { return "terminal/" + id }

// merchant is a shop.
type merchant struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	DisplayName string `json:"display_name"`
	MCC         string `json:"mcc"`
	FeeBP       int    `json:"fee_bp"`
}

func merchantKey(id string) string { return "merchant/" + id }

// Provision enrols a terminal and writes its identity directory, but for the book's key. A directory that is there is kept
// and its terminal enrolled again with the same keys.
func (l *Ledger) Provision(terminalID, merchantID, name, displayName, mcc string, feeBP int, identityDir string) error {
	if err := os.MkdirAll(identityDir, 0o700); err != nil {
		return err
	}
	key, err := openKey(filepath.Join(identityDir, "terminal.key"))
	if err != nil {
		return err
	}
	public := key.Public().(ed25519.PublicKey)
	confirm, err := l.writeIdentity(identityDir, terminalID, merchantID, public)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.db.Update(func(txn *badger.Txn) error {
		t := terminal{ID: terminalID}
		if err := get(txn, terminalKey(terminalID), &t); err != nil && !errors.Is(err, errNone) {
			return err
		}
		t.MerchantID, t.Public, t.Confirm = merchantID, hex.EncodeToString(public), confirm
		if err := put(txn, terminalKey(terminalID), t); err != nil {
			return err
		}
		return put(txn, merchantKey(merchantID), merchant{ID: merchantID, Name: name, DisplayName: displayName, MCC: mcc, FeeBP: feeBP})
	})
}

// writeIdentity writes what is missing of the directory and answers the confirmation secret as hex.
func (l *Ledger) writeIdentity(dir, terminalID, merchantID string, public ed25519.PublicKey) (string, error) {
	der, err := l.ca.issue(pkix.Name{CommonName: terminalID, Organization: []string{merchantID}}, x509.ExtKeyUsageClientAuth, public)
	if err != nil {
		return "", err
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return "", err
	}
	pins, err := l.pins()
	if err != nil {
		return "", err
	}
	for name, text := range map[string][]byte{
		"terminal.crt":        pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		"ledger-ca.crt":       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: l.ca.cert.Raw}),
		"pins.json":           pins,
		"confirmation.secret": []byte(hex.EncodeToString(secret) + "\n"),
	} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			continue
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return "", err
		}
	}
	kept, err := os.ReadFile(filepath.Join(dir, "confirmation.secret"))
	if err != nil || len(kept) < 64 {
		return "", errors.Join(err, fmt.Errorf("confirmation secret in %s is too short", dir))
	}
	return string(kept[:64]), nil
}

func (l *Ledger) pins() ([]byte, error) {
	type pin struct {
		Role      string `json:"role"`
		Public    string `json:"public"`
		NotBefore int64  `json:"not_before"`
		NotAfter  int64  `json:"not_after"`
	}
	var file struct {
		Keys []pin `json:"keys"`
	}
	for _, role := range []string{"issuer", "receipt", "policy", "root"} {
		public := l.role[role].Public().(ed25519.PublicKey)
		file.Keys = append(file.Keys, pin{role, hex.EncodeToString(public), time.Now().Add(-24 * time.Hour).Unix(), time.Now().AddDate(5, 0, 0).Unix()})
	}
	return json.MarshalIndent(file, "", "  ")
}

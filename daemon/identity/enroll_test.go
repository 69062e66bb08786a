package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// bank grants identities.
type bank struct {
	t    *testing.T
	key  ed25519.PrivateKey
	cert *x509.Certificate
}

func newBank(t *testing.T) *bank {
	t.Helper()
	b := &bank{t: t, key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, b.key.Public(), b.key)
	if err == nil {
		b.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sign makes a terminal's certificate of a request.
func (b *bank) sign(request []byte, terminal string) []byte {
	b.t.Helper()
	r, err := x509.ParseCertificateRequest(request)
	if err == nil {
		err = r.CheckSignature()
	}
	if err != nil {
		b.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: terminal, Organization: []string{"653000053310001"}},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, b.cert, r.PublicKey, b.key)
	if err != nil {
		b.t.Fatal(err)
	}
	return der
}

func (b *bank) grant(e *Enrolment) Grant {
	b.t.Helper()
	request, err := e.Request()
	if err != nil {
		b.t.Fatal(err)
	}
	return Grant{
		Granted: Granted{TerminalID: "10000002", MerchantID: "653000053310001", URLs: []string{"wss://ledger"}}, Certificate: b.sign(request, "10000002"),
		CA: b.cert.Raw, Pins: fmt.Appendf(nil, `{"keys":[{"role":"root","public":"%x","not_before":0,"not_after":0}]}`, b.key[32:]), Confirmation: Secret{1}, News: []byte("[]"),
	}
}

func begin(t *testing.T, dir string, replace bool) *Enrolment {
	t.Helper()
	e, err := BeginEnrolment(dir, replace)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestAKillAtAnyMomentOfAnEnrolmentLeavesTheSameKeyAndOneWholeIdentity(t *testing.T) {
	b := newBank(t)
	dir := filepath.Join(t.TempDir(), "identity")
	key := begin(t, dir, false).key
	// Killed after the key, before the answer.
	e := begin(t, dir, false)
	if !e.key.Equal(key) || e.Done {
		t.Error("another key, or done already")
	}
	if _, err := e.Install(time.Now()); !errors.Is(err, ErrGrant) {
		t.Errorf("installed without a grant: %v", err)
	}
	g := b.grant(e)
	if err := e.Complete(g); err != nil {
		t.Fatal(err)
	}
	// Killed between any two files of the grant: what is not complete is asked for again, with the same key.
	for _, name := range []string{grantFile, newsFile, confirmFile, pinsFile, caFile, certFile} {
		if err := os.Remove(filepath.Join(e.new, name)); err != nil {
			t.Fatal(err)
		}
		if again := begin(t, dir, false); again.Done || !again.key.Equal(key) {
			t.Errorf("without %s: done %v", name, again.Done)
		}
	}
	if err := e.Complete(b.grant(e)); err != nil {
		t.Fatal(err)
	}
	// Killed when it was complete: nothing is asked again.
	e = begin(t, dir, false)
	if !e.Done || e.Granted.TerminalID != "10000002" {
		t.Fatalf("%+v", e.Granted)
	}
	if old, err := e.Install(time.Now()); err != nil || old != "" {
		t.Fatalf("%q %v", old, err)
	}
	if err := EnsureBookKey(filepath.Join(dir, bookFile), false); err != nil {
		t.Fatal(err)
	}
	id, err := Open(dir)
	if err != nil || id.TerminalID != "10000002" || !id.Key.Equal(key) || id.Confirmation != (Secret{1}) {
		t.Errorf("%v, %v", id, err)
	}
	if _, err := BeginEnrolment(dir, false); !errors.Is(err, ErrEnrolled) {
		t.Errorf("over an identity: %v", err)
	}
}

func TestANewKeyKeepsTheBooksKeyAndTheIdentityBefore(t *testing.T) {
	b := newBank(t)
	dir := filepath.Join(t.TempDir(), "identity")
	for n := range 2 {
		e := begin(t, dir, n > 0)
		if err := e.Complete(b.grant(e)); err != nil {
			t.Fatal(err)
		}
		// Killed between the two renames: the identity is away, the new one complete.
		if n > 0 {
			if err := os.Rename(dir, dir+".away"); err != nil {
				t.Fatal(err)
			}
			if e = begin(t, dir, false); !e.Done {
				t.Fatal("not done")
			}
			if err := os.Rename(dir+".away", dir); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := e.Install(time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := EnsureBookKey(filepath.Join(dir, bookFile), false); err != nil {
			t.Fatal(err)
		}
	}
	now, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	old, err := filepath.Glob(dir + ".2*")
	if err != nil || len(old) != 1 {
		t.Fatalf("%v %v", old, err)
	}
	before, err := Open(old[0])
	if err != nil || before.BookKey != now.BookKey || before.Key.Equal(now.Key) {
		t.Errorf("%v; another book key: %v", err, before.BookKey != now.BookKey)
	}
}

func TestAGrantThatDoesNotFitIsRefused(t *testing.T) {
	b, other := newBank(t), newBank(t)
	other.key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32))
	stranger := begin(t, filepath.Join(t.TempDir(), "stranger"), false)
	for name, spoil := range map[string]func(*Grant){
		"a certificate of another key":       func(g *Grant) { g.Certificate = b.grant(stranger).Certificate },
		"a certificate for another terminal": func(g *Grant) { g.TerminalID = "10000003" },
		"a certificate of another merchant":  func(g *Grant) { g.MerchantID = "653000053310002" },
		"pins without a root":                func(g *Grant) { g.Pins = []byte(`{"keys":[]}`) },
		"pins that are none":                 func(g *Grant) { g.Pins = []byte(`{`) },
		"no certificate":                     func(g *Grant) { g.Certificate = []byte("x") },
		"no CA":                              func(g *Grant) { g.CA = nil },
	} {
		e := begin(t, filepath.Join(t.TempDir(), "identity"), false)
		g := b.grant(e)
		spoil(&g)
		if err := e.Complete(g); !errors.Is(err, ErrGrant) || e.Done {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestARenewedCertificateIsForTheSameKeyAndTerminal(t *testing.T) {
	b := newBank(t)
	dir := filepath.Join(t.TempDir(), "identity")
	e := begin(t, dir, false)
	if err := e.Complete(b.grant(e)); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Install(time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := EnsureBookKey(filepath.Join(dir, bookFile), false); err != nil {
		t.Fatal(err)
	}
	id, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	request, err := id.Request()
	if err != nil {
		t.Fatal(err)
	}
	next, err := id.Renewed(b.sign(request, "10000002"))
	if err != nil {
		t.Fatal(err)
	}
	if err := next.KeepCertificate(dir); err != nil {
		t.Fatal(err)
	}
	again, err := Open(dir)
	if err != nil || !bytes.Equal(again.Certificate.Certificate[0], next.Certificate.Certificate[0]) {
		t.Errorf("%v", err)
	}
	if _, err := id.Renewed(b.sign(request, "10000003")); !errors.Is(err, ErrGrant) {
		t.Errorf("for another terminal: %v", err)
	}
	stranger, err := begin(t, filepath.Join(t.TempDir(), "stranger"), false).Request()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := id.Renewed(b.sign(stranger, "10000002")); !errors.Is(err, ErrGrant) {
		t.Errorf("of another key: %v", err)
	}
}

package uplink

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"yupos/simulators/ledgersim"
	"yupos/sync/wire"
)

// bank is the demo's ledger with a clock that the test sets.
type bank struct {
	*ledgersim.Ledger
	t    *testing.T
	late atomic.Int64 // how far its clock is ahead
}

func newBank(t *testing.T) *bank {
	t.Helper()
	b := &bank{t: t}
	l, err := ledgersim.Open(ledgersim.Options{
		Dir: filepath.Join(t.TempDir(), "ledger"), Listen: "127.0.0.1:0", Seed: 1,
		Now: func() time.Time { return time.Now().Add(time.Duration(b.late.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Ledger = l
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
	return b
}

func (b *bank) later(d time.Duration) { b.late.Add(int64(d)) }

func (b *bank) activate(certificate time.Duration) ledgersim.Activation {
	b.t.Helper()
	a, err := b.Activate("", 0, certificate)
	if err != nil {
		b.t.Fatal(err)
	}
	return a
}

// newcomer is a terminal's key before it has a certificate.
type newcomer struct {
	t   *testing.T
	key ed25519.PrivateKey
}

func newNewcomer(t *testing.T) newcomer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return newcomer{t, key}
}

func (n newcomer) request() []byte {
	n.t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, n.key)
	if err != nil {
		n.t.Fatal(err)
	}
	return der
}

func (n newcomer) enroll(a ledgersim.Activation, code string) (wire.Enrolled, error) {
	n.t.Helper()
	return Enroll(n.t.Context(), a.URL, sumOf(n.t, a.CASHA256), wire.Enroll{Code: wire.Activation(code), Request: n.request(), Software: "test"})
}

// with is how the newcomer talks once it has been answered.
func (n newcomer) with(out wire.Enrolled, certificate []byte) *tls.Config {
	n.t.Helper()
	ca, err := x509.ParseCertificate(out.CA)
	if err != nil {
		n.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: n.key}}}
}

func sumOf(t *testing.T, text string) (sum [sha256.Size]byte) {
	t.Helper()
	if n, err := hex.Decode(sum[:], []byte(text)); err != nil || n != len(sum) {
		t.Fatalf("%d bytes: %v", n, err)
	}
	return sum
}

// refused checks the ledger's word, and that it has words for people.
func refused(t *testing.T, err error, code string) *Refusal {
	t.Helper()
	var no *Refusal
	if !errors.As(err, &no) || no.Code != code {
		t.Fatalf("%v, want %s", err, code)
	}
	if zh, en := Words(code); zh == "" || en == "" {
		t.Errorf("%s has no words", code)
	}
	return no
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestACodeIsForOneKeyAndIsAnsweredTheSameUntilTheKeyIsSeen(t *testing.T) {
	b, n := newBank(t), newNewcomer(t)
	a := b.activate(0)
	b.AddFault(ledgersim.Fault{Op: "enroll", Action: "drop_reply", Times: 1})
	var no *Refusal
	if _, err := n.enroll(a, a.Code); err == nil || errors.As(err, &no) || strings.Contains(err.Error(), a.Code) {
		t.Fatalf("an answer that was cut off is not known, and the code is in no error: %v", err)
	}
	first := must[wire.Enrolled](t)(n.enroll(a, a.Code))
	if first.TerminalID != a.TerminalID || len(first.Confirmation) != 32 || len(first.Keys) == 0 || len(first.News) == 0 {
		t.Errorf("%+v", first)
	}
	// People write a code in small letters, and O for 0.
	again := must[wire.Enrolled](t)(n.enroll(a, strings.ToLower(strings.ReplaceAll(a.Code, "0", "O"))))
	if !bytes.Equal(again.Certificate, first.Certificate) || !bytes.Equal(again.Confirmation, first.Confirmation) || !again.Replayed {
		t.Error("the repeat was answered otherwise")
	}
	_, err := newNewcomer(t).enroll(a, a.Code)
	refused(t, err, wire.RefusedActivationUsed)
	standing := must[wire.Standing](t)(Standing(t.Context(), a.URL, n.with(first, first.Certificate)))
	if standing.TerminalID != a.TerminalID {
		t.Errorf("%+v", standing)
	}
	_, err = n.enroll(a, a.Code)
	refused(t, err, wire.RefusedActivationUsed)
}

func TestAfterAWrongCodeTheRightOneWaitsAndAfterFiveItIsDead(t *testing.T) {
	b, n := newBank(t), newNewcomer(t)
	a := b.activate(0)
	wrong := a.Code[:15] + "ZZZZ"
	for try := range 5 {
		_, err := n.enroll(a, wrong)
		refused(t, err, wire.RefusedActivation)
		_, err = n.enroll(a, a.Code)
		wait := refused(t, err, wire.RefusedBusy).RetryAfter
		if wait <= 0 || wait > time.Second<<try+time.Millisecond {
			t.Errorf("after %d wrong codes: wait %s", try+1, wait)
		}
		b.later(wait)
	}
	_, err := n.enroll(a, a.Code)
	refused(t, err, wire.RefusedActivationLocked)
	b.later(time.Hour)
	fresh := b.activate(0)
	if out := must[wire.Enrolled](t)(n.enroll(fresh, fresh.Code)); out.TerminalID != fresh.TerminalID {
		t.Errorf("%s", out.TerminalID)
	}
}

func TestACodeExpiresUnlessItWasAnswered(t *testing.T) {
	b := newBank(t)
	early, n := b.activate(0), newNewcomer(t)
	must[wire.Enrolled](t)(n.enroll(early, early.Code))
	unused := b.activate(0)
	b.later(25 * time.Hour)
	_, err := newNewcomer(t).enroll(unused, unused.Code)
	refused(t, err, wire.RefusedActivationExpired)
	must[wire.Enrolled](t)(n.enroll(early, early.Code))
}

func TestACertificateIsRenewedForTheSameKeyOnlyAndNotForARevokedTerminal(t *testing.T) {
	b, n := newBank(t), newNewcomer(t)
	a := b.activate(0)
	out := must[wire.Enrolled](t)(n.enroll(a, a.Code))
	config := n.with(out, out.Certificate)
	next := must[wire.Renewed](t)(Renew(t.Context(), a.URL, config, wire.Renew{Request: n.request()}))
	must[wire.Standing](t)(Standing(t.Context(), a.URL, n.with(out, next.Certificate)))
	must[wire.Standing](t)(Standing(t.Context(), a.URL, config)) // good to its end
	_, err := Renew(t.Context(), a.URL, config, wire.Renew{Request: newNewcomer(t).request()})
	refused(t, err, wire.RefusedProof)
	for _, revoked := range []bool{true, false} {
		if _, err := b.Revoke(a.TerminalID, &revoked, 0); err != nil {
			t.Fatal(err)
		}
		_, renewed := Renew(t.Context(), a.URL, config, wire.Renew{Request: n.request()})
		_, stands := Standing(t.Context(), a.URL, config)
		if revoked {
			refused(t, renewed, wire.RefusedRevoked)
			refused(t, stands, wire.RefusedRevoked)
		} else if err := errors.Join(renewed, stands); err != nil {
			t.Errorf("let in again: %v", err)
		}
	}
}

func TestACertificateThatHasEndedIsNotTaken(t *testing.T) {
	b, n := newBank(t), newNewcomer(t)
	a := b.activate(time.Nanosecond)
	out := must[wire.Enrolled](t)(n.enroll(a, a.Code))
	_, err := Standing(t.Context(), a.URL, n.with(out, out.Certificate))
	var no *Refusal
	if err == nil || errors.As(err, &no) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("%v", err)
	}
}

// listener is a TLS server that counts what it is told after the handshake.
type listener struct {
	url  string
	told atomic.Int64
	done chan struct{} // the one connection has ended
}

func listen(t *testing.T, config *tls.Config, answer string) *listener {
	t.Helper()
	l := must[net.Listener](t)(tls.Listen("tcp", "127.0.0.1:0", config))
	s := &listener{url: "https://" + l.Addr().String(), done: make(chan struct{})}
	t.Cleanup(func() { l.Close(); <-s.done })
	go func() {
		defer close(s.done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := conn.Read(buf)
			s.told.Add(int64(n))
			if err != nil {
				return
			}
			if answer != "" && bytes.HasSuffix(buf[:n], []byte("}")) {
				_, _ = io.WriteString(conn, answer)
				return
			}
		}
	}()
	return s
}

func TestToAServerThatIsNotThePinnedCAsNotAWordIsSaid(t *testing.T) {
	right, wrong := newAuthority(t), newAuthority(t)
	good := right.issue("ledger", x509.ExtKeyUsageServerAuth)
	good.Certificate = append(good.Certificate, right.cert.Raw)
	enrol := []string{wire.EnrollProtocol}
	for name, config := range map[string]*tls.Config{
		"of another CA":                          {NextProtos: enrol, Certificates: []tls.Certificate{chain(wrong.issue("ledger", x509.ExtKeyUsageServerAuth), wrong)}},
		"of another CA, showing the pinned one":  {NextProtos: enrol, Certificates: []tls.Certificate{chain(wrong.issue("ledger", x509.ExtKeyUsageServerAuth), right)}},
		"that does not show its CA":              {NextProtos: enrol, Certificates: []tls.Certificate{right.issue("ledger", x509.ExtKeyUsageServerAuth)}},
		"with a terminal's certificate":          {NextProtos: enrol, Certificates: []tls.Certificate{chain(right.issue("10000001", x509.ExtKeyUsageClientAuth), right)}},
		"that does not know enrolment":           {Certificates: []tls.Certificate{good}},
		"that speaks nothing newer than TLS 1.2": {NextProtos: enrol, Certificates: []tls.Certificate{good}, MaxVersion: tls.VersionTLS12},
	} {
		t.Run(name, func(t *testing.T) {
			s := listen(t, config, "")
			_, err := Enroll(t.Context(), s.url, sha256.Sum256(right.cert.Raw), wire.Enroll{Code: "AAAA-BBBB-CCCC-DDDD", Request: newNewcomer(t).request()})
			<-s.done
			if err == nil || s.told.Load() != 0 {
				t.Errorf("%v; %d bytes were said", err, s.told.Load())
			}
			if config.MaxVersion == 0 && !errors.Is(err, ErrWrongCA) {
				t.Errorf("%v, want ErrWrongCA", err)
			}
		})
	}
}

func chain(c tls.Certificate, a *authority) tls.Certificate {
	c.Certificate = append(c.Certificate, a.cert.Raw)
	return c
}

func TestAnAnswerThatIsNoneIsNotKnownAndNeverBelieved(t *testing.T) {
	a := newAuthority(t)
	config := &tls.Config{NextProtos: []string{wire.EnrollProtocol}, Certificates: []tls.Certificate{chain(a.issue("ledger", x509.ExtKeyUsageServerAuth), a)}}
	head := "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	for name, answer := range map[string]string{
		"cut off":           head + "Content-Length: 100\r\n\r\n{\"terminal_id\":",
		"nothing":           head + "Content-Length: 0\r\n\r\n",
		"another CA":        head + "Connection: close\r\n\r\n{\"terminal_id\":\"10000002\",\"ca\":\"AAAA\"}",
		"endless":           head + "Connection: close\r\n\r\n{\"terminal_id\":\"" + strings.Repeat("0", 2*wire.MaxEnroll) + "\"}",
		"endless headers":   "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nX: " + strings.Repeat("0", 64<<10) + "\r\n\r\n{\"code\":\"ACTIVATION_REFUSED\"}",
		"a page":            "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>",
		"a word of its own": "HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n{\"code\":\"" + strings.Repeat("X", 41) + "\"}",
		"no HTTP":           "SSH-2.0\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := listen(t, config, answer)
			_, err := Enroll(t.Context(), s.url, sha256.Sum256(a.cert.Raw), wire.Enroll{Code: "AAAA-BBBB-CCCC-DDDD", Request: newNewcomer(t).request()})
			var no *Refusal
			if err == nil || errors.As(err, &no) || strings.Contains(err.Error(), "BBBB") {
				t.Errorf("%v", err)
			}
			if s.told.Load() == 0 {
				t.Error("it was never asked")
			}
		})
	}
}

func TestACodeGoesNowhereElse(t *testing.T) {
	a := newAuthority(t)
	config := &tls.Config{NextProtos: []string{wire.EnrollProtocol}, Certificates: []tls.Certificate{chain(a.issue("ledger", x509.ExtKeyUsageServerAuth), a)}}
	elsewhere := listen(t, config, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}")
	s := listen(t, config, "HTTP/1.1 307 Temporary Redirect\r\nLocation: "+elsewhere.url+"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
	_, err := Enroll(t.Context(), s.url, sha256.Sum256(a.cert.Raw), wire.Enroll{Code: "AAAA-BBBB-CCCC-DDDD", Request: newNewcomer(t).request()})
	if err == nil || elsewhere.told.Load() != 0 {
		t.Errorf("%v; %d bytes were said elsewhere", err, elsewhere.told.Load())
	}
}

func TestALedgersAddressIsHTTPSAndNothingElse(t *testing.T) {
	for in, want := range map[string]string{
		"wss://ledger:8602/v1": "https://ledger:8602", "https://ledger": "https://ledger",
		"http://ledger": "", "ws://ledger": "", "ledger:8602": "", "https://a:b@ledger": "", "https://": "", "%": "",
	} {
		if got, err := Address(in); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	if _, err := Standing(t.Context(), "http://127.0.0.1:1", &tls.Config{}); err == nil {
		t.Error("asked without TLS")
	}
}

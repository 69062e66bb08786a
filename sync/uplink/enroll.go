package uplink

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"yupos/sync/wire"
)

// ErrWrongCA says that the server has no certificate of the CA that was named: whoever it is, nothing was told to it.
var ErrWrongCA = errors.New("uplink: the server does not belong to the pinned CA")

// Refusal is a ledger's no to a request of enrolment.
type Refusal struct {
	Code       string // wire.RefusedActivation and so on
	RetryAfter time.Duration
}

// Error is the ledger's word.
func (r *Refusal) Error() string { return "uplink: refused by the ledger: " + r.Code }

// enrollLimit bounds one request of enrolment.
const enrollLimit = 20 * time.Second

// Enroll turns an activation code into an identity. The server is judged by the CA whose certificate has the hash ca and
// by nothing else, before a word is said. It fails with ErrWrongCA or a *Refusal; any other error says that the answer is
// not known, and the same request may be sent again.
func Enroll(ctx context.Context, ledger string, ca [sha256.Size]byte, in wire.Enroll) (wire.Enrolled, error) {
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{wire.EnrollProtocol},
		InsecureSkipVerify: true, // replaced by the stricter VerifyConnection
		VerifyConnection:   func(s tls.ConnectionState) error { return belongs(s, ca) },
	}
	var out wire.Enrolled
	err := overHTTPS(ctx, config, http.MethodPost, ledger, wire.EnrollPath, in, &out)
	if err == nil && sha256.Sum256(out.CA) != ca {
		err = fmt.Errorf("%w: the answer names another one", ErrWrongCA)
	}
	return out, err
}

// belongs verifies the server's certificate, name included, with the one CA in its chain that has the hash.
func belongs(s tls.ConnectionState, ca [sha256.Size]byte) error {
	if s.NegotiatedProtocol != wire.EnrollProtocol {
		return fmt.Errorf("%w: it does not speak %s", ErrWrongCA, wire.EnrollProtocol)
	}
	roots, found := x509.NewCertPool(), false
	for _, c := range s.PeerCertificates {
		if sha256.Sum256(c.Raw) == ca && c.IsCA {
			roots.AddCert(c)
			found = true
		}
	}
	if !found {
		return fmt.Errorf("%w: no certificate with this SHA-256", ErrWrongCA)
	}
	_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: s.ServerName, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrWrongCA, err)
	}
	return nil
}

// Renew asks for the next certificate; config carries the present one.
func Renew(ctx context.Context, ledger string, config *tls.Config, in wire.Renew) (out wire.Renewed, err error) {
	return out, overHTTPS(ctx, config, http.MethodPost, ledger, wire.RenewPath, in, &out)
}

// Standing asks who the ledger holds the sender to be; config carries the certificate to be judged.
func Standing(ctx context.Context, ledger string, config *tls.Config) (out wire.Standing, err error) {
	return out, overHTTPS(ctx, config, http.MethodGet, ledger, wire.StandingPath, nil, &out)
}

// Address is the origin of a ledger from the address of its line or its own, https.
func Address(ledger string) (string, error) {
	u, err := url.Parse(ledger)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "wss" && u.Scheme != "https" {
		return "", fmt.Errorf("uplink: %.100q is no https:// or wss:// address", ledger)
	}
	return "https://" + u.Host, nil
}

// overHTTPS makes one request on a connection of its own.
func overHTTPS(ctx context.Context, config *tls.Config, method, ledger, path string, in, out any) error {
	origin, err := Address(ledger)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, enrollLimit)
	defer cancel()
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	r, err := http.NewRequestWithContext(ctx, method, origin+path, body)
	if err != nil {
		return err
	}
	config = config.Clone()
	config.MinVersion = tls.VersionTLS13
	client := &http.Client{
		Transport:     &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // a code goes nowhere else
	}
	resp, err := client.Do(r)
	if err != nil {
		return enrollError(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, wire.MaxEnroll+1))
	if err != nil {
		return fmt.Errorf("uplink: answer cut off: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return refusedWith(resp, raw)
	}
	return wire.DecodeBody(bytes.TrimSpace(raw), out)
}

// enrollError keeps the reason of a handshake and drops the address around it.
func enrollError(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return fmt.Errorf("uplink: %w", err)
}

func refusedWith(resp *http.Response, raw []byte) error {
	var no wire.Refused
	if wire.DecodeBody(bytes.TrimSpace(raw), &no) != nil || no.Code == "" || len(no.Code) > 40 || strings.ToUpper(no.Code) != no.Code {
		return fmt.Errorf("uplink: answered %d by something that is no ledger", resp.StatusCode)
	}
	wait := min(time.Duration(max(no.RetryAfterMillis, 0))*time.Millisecond, maxRetryWait)
	if wait == 0 {
		wait = retryAfter(resp.Header)
	}
	return &Refusal{no.Code, wait}
}

// enrollWords are what a ledger's no to a request of enrolment means for people, beside stateWords.
var enrollWords = map[string]words{
	wire.RefusedActivation:        {"激活码不对，请核对后重试", "The activation code is not right; check it and try again"},
	wire.RefusedActivationUsed:    {"激活码已被使用，请申请新的", "The activation code has been used; ask for another"},
	wire.RefusedActivationExpired: {"激活码已过期，请申请新的", "The activation code has expired; ask for another"},
	wire.RefusedActivationLocked:  {"激活码输错过多已失效，请申请新的", "Too many wrong tries, the activation code is dead; ask for another"},
	wire.RefusedProof:             {"账本不接受本机密钥，请联系客服", "The ledger does not take this terminal's key; call support"},
	wire.RefusedNotYou:            {"激活码属于另一台终端", "The activation code is for another terminal"},
}

// Words are what a refusal of enrolment means for people.
func Words(reason string) (zh, en string) {
	w, ok := enrollWords[reason]
	if !ok {
		w = textsOf(reason)
	}
	return w.zh, w.en
}

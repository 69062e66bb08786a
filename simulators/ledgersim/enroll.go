package ledgersim

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"

	"yupos/sync/wire"
)

// The life of an activation code.
const (
	activationLife = 24 * time.Hour
	maxTries       = 5
	slowLeast      = time.Second // after a wrong code its address waits, twice as long each time
	slowMost       = time.Minute
	maxSlow        = 4096 // addresses that are remembered
)

const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// activation is one code. Only the hash of its secret half is kept.
type activation struct {
	Selector   string    `json:"selector"`
	Hash       []byte    `json:"hash"` // SHA-256 of the secret half
	TerminalID string    `json:"terminal_id"`
	MerchantID string    `json:"merchant_id"`
	Expires    time.Time `json:"expires"`
	Tries      int       `json:"tries"`            // wrong ones
	Public     string    `json:"public,omitempty"` // hex; the key that used it
	Answer     []byte    `json:"answer,omitempty"` // what that key was answered, until it is seen in a mutual handshake
	Done       bool      `json:"done,omitempty"`
}

func activationKey(selector string) string { return "activation/" + selector }

// Activation is a fresh activation code and what a person types beside it.
type Activation struct {
	TerminalID string    `json:"terminal_id"`
	Code       string    `json:"code"`
	CASHA256   string    `json:"ca_sha256"`
	URL        string    `json:"url"`
	Expires    time.Time `json:"expires"`
}

// Activate makes a one-time code: for the terminal, or for a new one of the demo's merchant where terminalID is empty. life
// 0 means a day; certificate 0 leaves the terminal's certificates at two years.
func (l *Ledger) Activate(terminalID string, life, certificate time.Duration) (Activation, error) {
	selector, secret := letters(4), letters(12)
	hash := sha256.Sum256([]byte(secret))
	if life == 0 {
		life = activationLife
	}
	a := activation{Selector: selector, Hash: hash[:], TerminalID: terminalID, Expires: l.now().Add(life)}
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.db.Update(func(txn *badger.Txn) error {
		if err := get(txn, activationKey(selector), &activation{}); !errors.Is(err, errNone) {
			return errors.Join(err, refusal("TRY_AGAIN")) // the selector is taken; one in a million
		}
		t, err := l.enrolling(txn, &a)
		if err != nil {
			return err
		}
		if certificate > 0 {
			t.CertificateLife = certificate
		}
		if err := put(txn, terminalKey(t.ID), t); err != nil {
			return err
		}
		return put(txn, activationKey(selector), a)
	})
	ca := sha256.Sum256(l.ca.cert.Raw)
	code := strings.Join([]string{selector, secret[:4], secret[4:8], secret[8:]}, "-")
	return Activation{a.TerminalID, code, hex.EncodeToString(ca[:]), l.URL(), a.Expires}, err
}

// enrolling is the terminal that a code is for; a new one gets the next number, and a record without a key.
func (l *Ledger) enrolling(txn *badger.Txn, a *activation) (terminal, error) {
	all, err := list[terminal](txn, "terminal/")
	if err != nil {
		return terminal{}, err
	}
	next := 10000001
	t := terminal{MerchantID: demoMerchant}
	for _, have := range all {
		if n, err := strconv.Atoi(have.ID); err == nil {
			next = max(next, n+1)
		}
		if have.ID == a.TerminalID || a.TerminalID == "" && t.MerchantID == demoMerchant {
			t.MerchantID = have.MerchantID
		}
		if have.ID == a.TerminalID {
			t = have
		}
	}
	if a.TerminalID == "" {
		a.TerminalID = strconv.Itoa(next)
	}
	if !digits(a.TerminalID, 8) {
		return t, refusal("UNKNOWN_TERMINAL")
	}
	t.ID, a.MerchantID = a.TerminalID, t.MerchantID
	if t.Revoked {
		return t, refusal(wire.RefusedRevoked)
	}
	return t, get(txn, merchantKey(t.MerchantID), &merchant{})
}

// demoMerchant is the shop of a terminal that is enrolled before any other.
const demoMerchant = "653000053310001"

// letters are n random letters of Crockford's alphabet: 5 bits each.
func letters(n int) string {
	raw := make([]byte, n)
	rand.Read(raw)
	for i := range raw {
		raw[i] = crockford[raw[i]&31]
	}
	return string(raw)
}

// plain is a code without what people put between its letters, split into its halves. A code of another form has none.
func plain(code wire.Activation) (selector, secret string) {
	var b strings.Builder
	for _, c := range strings.ToUpper(string(code[:min(len(code), 64)])) {
		switch c {
		case '-', ' ':
		case 'O':
			b.WriteByte('0')
		case 'I', 'L':
			b.WriteByte('1')
		default:
			b.WriteRune(c)
		}
	}
	if b.Len() != 16 {
		return "", ""
	}
	return b.String()[:4], b.String()[4:]
}

// slow is how an address is slowed down that sends wrong codes.
type slow struct {
	wrong int
	until time.Time
}

// held is how long the address still has to wait.
func (l *Ledger) held(address string) time.Duration {
	return l.slow[address].until.Sub(l.now())
}

func (l *Ledger) wrong(address string) {
	if l.slow == nil || len(l.slow) >= maxSlow {
		l.slow = map[string]slow{} // under attack from thousands of addresses the tries of a code still bound it
	}
	s := l.slow[address]
	s.until = l.now().Add(min(slowLeast<<min(s.wrong, 6), slowMost))
	s.wrong++
	l.slow[address] = s
}

// tlsFor asks for a certificate, except where the terminal says that it has none yet.
func (l *Ledger) tlsFor(cert tls.Certificate, pool *x509.CertPool) *tls.Config {
	cert.Certificate = append(slices.Clone(cert.Certificate), l.ca.cert.Raw) // who enrols knows only its hash
	mutual := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	}
	enrol := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: mutual.Certificates, NextProtos: []string{wire.EnrollProtocol}, SessionTicketsDisabled: true}
	mutual.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == wire.EnrollProtocol {
			return enrol, nil
		}
		return nil, nil // the mutual one
	}
	return mutual
}

// enrollHandlers serves enrolment and renewal, each on its own kind of connection.
func (l *Ledger) enrollHandlers(mux *http.ServeMux) {
	mux.HandleFunc("POST "+wire.EnrollPath, l.serveEnroll)
	mux.HandleFunc("POST "+wire.RenewPath, l.mutual(l.renewCertificate))
	mux.HandleFunc("GET "+wire.StandingPath, l.mutual(l.standing))
}

func (l *Ledger) serveEnroll(w http.ResponseWriter, r *http.Request) {
	if r.TLS == nil || r.TLS.NegotiatedProtocol != wire.EnrollProtocol {
		l.no(w, wire.Refused{Code: wire.RefusedMalformed, Detail: "enrolment has a connection of its own"})
		return
	}
	address, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		address = r.RemoteAddr
	}
	var in wire.Enroll
	if err := readBody(w, r, &in); err != nil {
		l.no(w, wire.Refused{Code: wire.RefusedMalformed, Detail: "no body of enrolment"})
		return
	}
	public, err := provenKey(in.Request)
	if err != nil {
		l.no(w, wire.Refused{Code: wire.RefusedProof})
		return
	}
	fate := l.fateOf("enroll")
	if fate.cut || fate.dropRequest {
		hangUp(w)
		return
	}
	out, err := l.enroll(&in, public, address)
	if fate.dropReply {
		hangUp(w)
		return
	}
	l.say(w, out, err)
}

// hangUp ends the connection without an answer.
func hangUp(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		conn.Close()
	}
}

// enroll judges a code and binds the key to its terminal. Every wrong try is durable before it is answered.
func (l *Ledger) enroll(in *wire.Enroll, public ed25519.PublicKey, address string) (out json.RawMessage, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if wait := l.held(address); wait > 0 {
		return nil, later(wait)
	}
	var no error // a refusal whose try must be kept
	err = l.db.Update(func(txn *badger.Txn) error {
		selector, secret := plain(in.Code)
		var a activation
		if err := get(txn, activationKey(selector), &a); err != nil && !errors.Is(err, errNone) {
			return err
		}
		if no = l.judgeCode(&a, secret, in, hex.EncodeToString(public)); no != nil {
			if a.Selector == "" {
				return nil
			}
			return put(txn, activationKey(selector), a)
		}
		if a.Answer != nil {
			out = a.Answer
			return nil
		}
		out, err = l.enrolled(txn, &a, public)
		return err
	})
	if no != nil {
		if errors.Is(no, refusal(wire.RefusedActivation)) || errors.Is(no, refusal(wire.RefusedActivationLocked)) {
			l.wrong(address)
		}
		return nil, errors.Join(err, no)
	}
	delete(l.slow, address)
	return out, err
}

// judgeCode says no, or nothing, and counts a wrong try. An unknown code costs the same comparison as a wrong one.
func (l *Ledger) judgeCode(a *activation, secret string, in *wire.Enroll, public string) error {
	hash := sha256.Sum256([]byte(secret))
	want := a.Hash
	if len(want) != len(hash) {
		want = make([]byte, len(hash))
	}
	right := subtle.ConstantTimeCompare(hash[:], want) == 1 && a.Selector != ""
	switch {
	case a.Selector != "" && a.Tries >= maxTries:
		return refusal(wire.RefusedActivationLocked)
	case !right:
		a.Tries++
		return refusal(wire.RefusedActivation)
	case a.Done, a.Public != "" && a.Public != public:
		return refusal(wire.RefusedActivationUsed)
	case l.now().After(a.Expires) && a.Public == "":
		return refusal(wire.RefusedActivationExpired)
	case in.TerminalID != "" && in.TerminalID != a.TerminalID:
		return refusal(wire.RefusedNotYou)
	}
	return nil
}

// enrolled makes the answer, keeps it for a repeat, and notes the key: it replaces the terminal's when it is seen.
func (l *Ledger) enrolled(txn *badger.Txn, a *activation, public ed25519.PublicKey) (json.RawMessage, error) {
	t, err := l.terminalOf(txn, a.TerminalID)
	if err != nil {
		return nil, err
	}
	if t.Revoked {
		return nil, refusal(wire.RefusedRevoked)
	}
	var shop merchant
	if err := get(txn, merchantKey(a.MerchantID), &shop); err != nil {
		return nil, err
	}
	der, err := l.ca.issueFor(t.subject(), public, t.CertificateLife)
	if err != nil {
		return nil, err
	}
	secret := make([]byte, 32)
	rand.Read(secret)
	answer := wire.Enrolled{
		TerminalID: t.ID, Merchant: wire.Merchant{ID: shop.ID, Name: shop.Name, DisplayName: shop.DisplayName, MCC: shop.MCC},
		Certificate: der, CA: l.ca.cert.Raw, URLs: []string{l.URL()}, Keys: l.pinned(), Confirmation: secret,
	}
	if answer.News, err = l.firstNews(txn, t); err != nil {
		return nil, err
	}
	first, err := json.Marshal(answer)
	if err != nil {
		return nil, err
	}
	answer.Replayed = true
	if a.Answer, err = json.Marshal(answer); err != nil {
		return nil, err
	}
	a.Public = hex.EncodeToString(public)
	t.Next = &successor{Public: a.Public, Confirm: hex.EncodeToString(secret), Selector: a.Selector}
	return first, errors.Join(put(txn, terminalKey(t.ID), t), put(txn, activationKey(a.Selector), *a))
}

// firstNews are the newest policy, deny list and fees; what is too long for an answer comes over the line.
func (l *Ledger) firstNews(txn *badger.Txn, t terminal) ([]wire.News, error) {
	if err := errors.Join(l.renew(txn), l.publishFees(txn, t)); err != nil {
		return nil, err
	}
	list, err := l.newsFor(txn, t.ID, nil)
	return slices.DeleteFunc(list, func(n wire.News) bool { return len(n.Envelope.Payload) > partBytes }), err
}

// pinned are the ledger's keys as a terminal pins them.
func (l *Ledger) pinned() (keys []wire.Pinned) {
	for _, role := range []string{"issuer", "receipt", "policy", "root"} {
		public := l.role[role].Public().(ed25519.PublicKey)
		keys = append(keys, wire.Pinned{
			Role: role, Public: hex.EncodeToString(public),
			NotBefore: uint32(time.Now().Add(-24 * time.Hour).Unix()), NotAfter: uint32(time.Now().AddDate(5, 0, 0).Unix()),
		})
	}
	return keys
}

// successor is a key that was enrolled and not seen yet.
type successor struct {
	Public   string `json:"public"`
	Confirm  string `json:"confirm"`
	Selector string `json:"selector"` // of its activation
}

func (t *terminal) subject() pkix.Name {
	return pkix.Name{CommonName: t.ID, Organization: []string{t.MerchantID}}
}

// seen judges the certificate of a mutual handshake. The first one with an enrolled key puts it in force and ends its code.
func (l *Ledger) seen(txn *badger.Txn, t *terminal, cert *x509.Certificate) error {
	public, isKey := cert.PublicKey.(ed25519.PublicKey)
	if !isKey || t.ID != cert.Subject.CommonName {
		return refusal(wire.RefusedNotYou)
	}
	if t.Revoked {
		return refusal(wire.RefusedRevoked)
	}
	shown := hex.EncodeToString(public)
	if t.Next == nil || t.Next.Public != shown {
		if shown != t.Public {
			return refusal(wire.RefusedNotYou)
		}
		return nil
	}
	var a activation
	if err := get(txn, activationKey(t.Next.Selector), &a); err != nil {
		return err
	}
	a.Done, a.Answer = true, nil
	t.Public, t.Confirm, t.Next = t.Next.Public, t.Next.Confirm, nil
	return errors.Join(put(txn, activationKey(a.Selector), a), put(txn, terminalKey(t.ID), *t))
}

// mutual serves a request of a terminal that has shown its certificate.
func (l *Ledger) mutual(do func(txn *badger.Txn, t terminal, cert *x509.Certificate, r *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
			l.no(w, wire.Refused{Code: wire.RefusedNotYou, Detail: "a client certificate is needed"})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, wire.MaxEnroll)
		raw, err := io.ReadAll(r.Body) // before the books are held
		if err != nil {
			l.no(w, wire.Refused{Code: wire.RefusedMalformed})
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(raw))
		cert := r.TLS.PeerCertificates[0]
		var out any
		l.mu.Lock()
		err = l.db.Update(func(txn *badger.Txn) error {
			t, err := l.terminalOf(txn, cert.Subject.CommonName)
			if err == nil {
				err = l.seen(txn, &t, cert)
			}
			if err == nil {
				out, err = do(txn, t, cert, r)
			}
			return err
		})
		l.mu.Unlock()
		l.say(w, out, err)
	}
}

func (l *Ledger) renewCertificate(_ *badger.Txn, t terminal, cert *x509.Certificate, r *http.Request) (any, error) {
	var in wire.Renew
	if err := readBody(nil, r, &in); err != nil {
		return nil, refusal(wire.RefusedMalformed)
	}
	public, err := provenKey(in.Request)
	if err != nil || !public.Equal(cert.PublicKey) {
		return nil, refusal(wire.RefusedProof)
	}
	der, err := l.ca.issueFor(t.subject(), public, t.CertificateLife)
	return wire.Renewed{Certificate: der}, err
}

func (l *Ledger) standing(_ *badger.Txn, t terminal, cert *x509.Certificate, _ *http.Request) (any, error) {
	return wire.Standing{TerminalID: t.ID, MerchantID: t.MerchantID, NotAfter: wire.Millis(cert.NotAfter.UnixMilli())}, nil
}

// provenKey is the Ed25519 key of a request that is signed with it.
func provenKey(request []byte) (ed25519.PublicKey, error) {
	csr, err := x509.ParseCertificateRequest(request)
	if err != nil {
		return nil, err
	}
	public, ok := csr.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("no Ed25519 key")
	}
	return public, csr.CheckSignature()
}

func readBody(w http.ResponseWriter, r *http.Request, into any) error {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, wire.MaxEnroll))
	if err != nil {
		return err
	}
	return wire.DecodeBody(raw, into)
}

// later is a refusal for a while.
type later time.Duration

func (l later) Error() string { return fmt.Sprintf("busy for %s", time.Duration(l)) }

// enrollStatus is the status of each refusal of enrolment.
var enrollStatus = map[string]int{
	wire.RefusedMalformed: 400, wire.RefusedProof: 400, wire.RefusedActivationUsed: 409, wire.RefusedBusy: 429, wire.RefusedInternal: 500,
}

// say answers a request of enrolment.
func (l *Ledger) say(w http.ResponseWriter, out any, err error) {
	var no refusal
	var busy later
	switch {
	case errors.As(err, &busy):
		l.no(w, wire.Refused{Code: wire.RefusedBusy, RetryAfterMillis: time.Duration(busy).Milliseconds() + 1})
	case errors.As(err, &no):
		l.no(w, wire.Refused{Code: string(no)})
	case err != nil:
		l.log.Error("enrolment failed", slog.Any("err", err))
		l.no(w, wire.Refused{Code: wire.RefusedInternal, RetryAfterMillis: 1000})
	default:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		json.NewEncoder(w).Encode(out)
	}
}

func (l *Ledger) no(w http.ResponseWriter, r wire.Refused) {
	status, known := enrollStatus[r.Code]
	if !known {
		status = http.StatusForbidden
	}
	if r.RetryAfterMillis > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(float64(r.RetryAfterMillis)/1000))))
	}
	l.log.Info("enrolment refused", slog.String("code", r.Code))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(r)
}

// Revoke shuts a terminal out, or lets it in again, and ends its connection; certificate 0 leaves the life of its next
// certificates as it is.
func (l *Ledger) Revoke(terminalID string, revoked *bool, certificate time.Duration) (TerminalView, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var t terminal
	err := l.db.Update(func(txn *badger.Txn) (err error) {
		if t, err = l.terminalOf(txn, terminalID); err != nil {
			return refusal("UNKNOWN_TERMINAL")
		}
		if revoked != nil {
			t.Revoked = *revoked
		}
		if certificate > 0 {
			t.CertificateLife = certificate
		}
		return put(txn, terminalKey(terminalID), t)
	})
	if c := l.conns[terminalID]; err == nil && t.Revoked && c != nil {
		c.close() // told why at its next hello
	}
	return TerminalView{t.ID, t.MerchantID, t.Revoked, t.Public != "", l.conns[terminalID] != nil}, err
}

// TerminalView is a terminal as the control API shows it.
type TerminalView struct {
	TerminalID string `json:"terminal_id"`
	MerchantID string `json:"merchant_id"`
	Revoked    bool   `json:"revoked"`
	Enrolled   bool   `json:"enrolled"` // its key has been seen
	Connected  bool   `json:"connected"`
}

func (l *Ledger) postActivation(r *http.Request) (any, error) {
	var in struct {
		TerminalID         string `json:"terminal_id"`
		ExpiresSeconds     int    `json:"expires_seconds"`
		CertificateSeconds int    `json:"certificate_seconds"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return l.Activate(in.TerminalID, time.Duration(in.ExpiresSeconds)*time.Second, time.Duration(in.CertificateSeconds)*time.Second)
}

func (l *Ledger) postTerminal(r *http.Request) (any, error) {
	var in struct {
		Revoked            *bool `json:"revoked"`
		CertificateSeconds int   `json:"certificate_seconds"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return l.Revoke(r.PathValue("id"), in.Revoked, time.Duration(in.CertificateSeconds)*time.Second)
}

// Package walletsim plays the customers' phones: the wallet's keys and counter, the codes that it shows, and the page that a
// person holds.
//
// Guarantees: a counter rises with every SIGNED code and never falls, across restarts too, because the Phone is stored
// before its code is shown; the private key never leaves the Phone. A Phone is a value: its owner guards it.
package walletsim

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"yupos/devices/paycode"
	"yupos/ledgercache/money"
)

// CertLife is how long a wallet certificate lives: the longest that codes.md allows.
const CertLife = 72 * time.Hour

// ErrOffline says that the phone has no network and needs one for this.
var ErrOffline = errors.New("walletsim: the phone is offline")

// Phone is one customer's phone.
type Phone struct {
	Online   bool   `json:"online"`
	Seed     []byte `json:"seed"`    // of the wallet key
	Cert     []byte `json:"cert"`    // 128 bytes
	Expires  int64  `json:"expires"` // of the certificate, Unix seconds
	Counter  uint32 `json:"counter"` // of the last SIGNED code
	LastCode string `json:"last_code"`
}

// New makes a phone that is online and has no certificate yet.
func New() Phone { return Phone{Online: true} }

// Issuer is the ledger's side of a certificate: it signs what the wallet asks for.
type Issuer func(public ed25519.PublicKey, notBefore, notAfter uint32) (cert []byte, err error)

// Renew asks for a fresh key's certificate if the present one ends within a day. A phone that is offline keeps what it has.
func (p *Phone) Renew(now time.Time, issue Issuer) error {
	if !p.Online || p.Expires-now.Unix() > int64((24*time.Hour).Seconds()) {
		return nil
	}
	seed := make([]byte, ed25519.SeedSize)
	if _, err := rand.Read(seed); err != nil {
		return err
	}
	from := now.Add(-time.Minute).Unix()
	until := from + int64(CertLife.Seconds())
	public := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	cert, err := issue(public, uint32(from), uint32(until))
	if err != nil {
		return fmt.Errorf("wallet certificate: %w", err)
	}
	p.Seed, p.Cert, p.Expires, p.Counter = seed, cert, until, 0
	return nil
}

// Signed makes the next SIGNED code, for at most most fen. It needs no network.
func (p *Phone) Signed(now time.Time, most money.Fen) (string, error) {
	if len(p.Cert) == 0 {
		return "", fmt.Errorf("%w: it never had a certificate", ErrOffline)
	}
	p.Counter++
	text, err := paycode.MakeSigned(p.Cert, p.Counter, uint32(now.Unix()), most, ed25519.NewKeyFromSeed(p.Seed))
	if err == nil {
		p.LastCode = text
	}
	return text, err
}

// OnlineCode makes an ONLINE code of chance. The ledger keeps whose it is.
func OnlineCode(random *mathrand.Rand) (string, error) {
	return paycode.MakeOnline(fmt.Sprintf("%015d", random.Int64N(1e15)))
}

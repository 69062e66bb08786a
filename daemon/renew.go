package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"yupos/daemon/identity"
	"yupos/daemon/till"
	"yupos/ledgercache"
	"yupos/sync/uplink"
	"yupos/sync/wire"
)

// renewal keeps the terminal's certificate from running out (FORMAT.md, Renew): from two thirds of its life on, a random
// part of a twelfth later, a new one for the same key is asked for, shown to the ledger, kept, and used by every later
// connection. The one before stays good to its end, so that nothing hurries.
type renewal struct {
	dir  string
	urls []string
	now  func() time.Time
	log  *slog.Logger
	who  atomic.Pointer[identity.Identity]
	tell func() // something that people see has changed
}

// The times of renewal, as parts of the certificate's life.
const (
	renewAfter  = 2.0 / 3
	renewSpread = 1.0 / 12
	renewTries  = 50 // how often a failed renewal is tried in a short certificate's life
	renewAgain  = 6 * time.Hour
)

func newRenewal(id identity.Identity, dir string, urls []string, now func() time.Time, log *slog.Logger) *renewal {
	r := &renewal{dir: dir, urls: urls, now: now, log: log, tell: func() {}}
	r.who.Store(&id)
	return r
}

// TLS is how the terminal talks to its ledger: always with the newest certificate.
func (r *renewal) TLS() *tls.Config {
	config := r.who.Load().TLS()
	config.Certificates = nil
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &r.who.Load().Certificate, nil }
	return config
}

// Run renews until ctx ends.
func (r *renewal) Run(ctx context.Context) error {
	for {
		from, to := r.who.Load().Life()
		life := to.Sub(from)
		due := from.Add(time.Duration(float64(life) * (renewAfter + renewSpread*rand.Float64())))
		wait := due.Sub(r.now())
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(max(0, wait)):
			}
			err := r.renew(ctx)
			if err == nil {
				break
			}
			r.log.Warn("certificate not renewed", slog.Time("good_until", to), slog.Any("err", err))
			wait = min(life/renewTries, renewAgain)
		}
	}
}

// renew asks each address in turn.
func (r *renewal) renew(ctx context.Context) error {
	id := r.who.Load()
	request, err := id.Request()
	if err != nil {
		return err
	}
	var all error
	for _, url := range r.urls {
		next, err := r.renewAt(ctx, url, *id, request)
		if err != nil {
			all = errors.Join(all, err)
			continue
		}
		if err := next.KeepCertificate(r.dir); err != nil {
			return fmt.Errorf("keep certificate: %w", err)
		}
		r.who.Store(&next)
		_, to := next.Life()
		r.log.Info("certificate renewed", slog.Time("good_until", to))
		r.tell()
		return nil
	}
	return all
}

// renewAt asks one address for the next certificate and shows it there before it is used.
func (r *renewal) renewAt(ctx context.Context, url string, id identity.Identity, request []byte) (identity.Identity, error) {
	answer, err := uplink.Renew(ctx, url, id.TLS(), wire.Renew{Request: request})
	if err != nil {
		return id, err
	}
	next, err := id.Renewed(answer.Certificate)
	if err != nil {
		return id, err
	}
	standing, err := uplink.Standing(ctx, url, next.TLS())
	if err == nil && standing.TerminalID != id.TerminalID {
		err = fmt.Errorf("%w: the ledger takes it for another terminal", identity.ErrGrant)
	}
	return next, err
}

// warnings say that the certificate has run out, or will soon because it could not be renewed.
func (r *renewal) warnings() []till.Warning {
	from, to := r.who.Load().Life()
	left, until := to.Sub(r.now()), to.In(ledgercache.Shanghai).Format("2006-01-02 15:04")
	switch {
	case left <= 0:
		return []till.Warning{{Code: "CERTIFICATE_EXPIRED", Text: "终端证书已于 " + until + " 过期，不能联网收款。账本完好，已受理的不会丢失。请向账本中心申请激活码，运行 posd enroll --replace",
			TextEN: "The terminal's certificate ended at " + until + ": no contact with the ledger. The book is whole. Ask for an activation code and run posd enroll --replace"}}
	case left < to.Sub(from)/6:
		return []till.Warning{{Code: "CERTIFICATE_ENDS", Text: "终端证书将于 " + until + " 过期，自动续期未成功，请检查网络", TextEN: "The terminal's certificate ends at " + until + " and could not be renewed; check the network"}}
	}
	return nil
}

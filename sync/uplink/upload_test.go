package uplink

import (
	"context"
	"crypto/sha256"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"yupos/ledgercache"
	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
	"yupos/sync/wire"
)

// acceptOffline takes a payment offline, whatever policy there is: the book is told that all is well.
func (s *shop) acceptOffline(n int) payment.Payment {
	s.t.Helper()
	text := fmt.Sprintf("signed-%d", n)
	wallet := sha256.Sum256([]byte(text))
	p, _, err := s.book.OpenOffline(context.Background(), ledgercache.New{
		OutTradeNo: fmt.Sprintf("F%06d", n), Mode: payment.ByCode, TotalFen: money.Fen(100 + n), BodyHash: []byte(text),
	}, ledgercache.Signed{
		Text: text, Hash: wallet, Wallet: wallet[:], Token: wallet[:8], Counter: 1, MostFen: 1000_00, ScannedAt: s.now(),
		CertPaymentFen: 1000_00, CertAllowanceFen: 1000_00, CertCount: 10,
	}, ledgercache.Clock{Trusted: true})
	if err != nil {
		s.t.Fatal(err)
	}
	if p.State != payment.AcceptedOffline {
		s.t.Fatalf("%s %s", p.State, p.Reason)
	}
	return p
}

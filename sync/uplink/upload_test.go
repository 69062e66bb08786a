package uplink

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"yupos/ledgercache"
	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
	"yupos/ledgercache/trust"
	"yupos/sync/wire"
)

// rules are news of the policy, as the ledger signs them.
func rules(t testing.TB, version uint32, now time.Time) wire.News {
	t.Helper()
	raw, err := json.Marshal(trust.PolicyNews{
		Header:     trust.Header{Terminal: trust.Everyone, Version: version, Issued: uint32(now.Unix()), Expires: uint32(now.Unix()) + 72*3600},
		PaymentFen: 200_00, WalletFen: 500_00, WalletCount: 10, TerminalFen: money.Max, TerminalCount: 1 << 20, CodeSeconds: 60, SkewSeconds: 30,
	})
	if err != nil {
		t.Fatal(err)
	}
	return sealed(t, trust.Rules, version, raw)
}

// noDenials is an empty deny list.
func noDenials(t testing.TB, version uint32, now time.Time) wire.News {
	t.Helper()
	raw, err := json.Marshal(trust.DenyNews{
		Header: trust.Header{Terminal: trust.Everyone, Version: version, Issued: uint32(now.Unix()), Expires: uint32(now.Unix()) + 72*3600},
		Add:    []string{}, Remove: []string{}, SHA256: trust.DenyHash(nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	return sealed(t, trust.Deny, version, raw)
}

func sealed(t testing.TB, topic trust.Topic, version uint32, raw []byte) wire.News {
	t.Helper()
	e, err := trust.Seal(topic, raw, policyKey)
	if err != nil {
		t.Fatal(err)
	}
	return wire.News{Topic: wire.Topic(topic), Version: version, Part: 1, Parts: 1, Envelope: wire.Envelope{KeyID: e.KeyID, Payload: e.Payload, Sig: e.Sig}}
}

func envelope(n wire.News) trust.Envelope {
	return trust.Envelope{KeyID: n.Envelope.KeyID, Payload: n.Envelope.Payload, Sig: n.Envelope.Sig}
}

// mayAccept gives the book what it needs to take payments offline.
func (s *shop) mayAccept() {
	s.t.Helper()
	for _, n := range []wire.News{rules(s.t, 1, s.now()), noDenials(s.t, 1, s.now())} {
		if err := s.book.Learn(context.Background(), trust.Topic(n.Topic), envelope(n)); err != nil {
			s.t.Fatal(err)
		}
	}
}

// acceptOffline takes a payment of a wallet of its own.
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

// uploader answers uploads; each trade is charged once.
type uploader struct {
	charged map[string]int
	batches int
	fate    func(m message, up *wire.Upload) (handled bool)
}

func (l *ledger) uploads() *uploader {
	u := &uploader{charged: map[string]int{}}
	l.set(func() {
		l.welcome.Version = 2
		l.on = func(m message) bool {
			up, is := m.body.(*wire.Upload)
			if !is {
				return false
			}
			u.batches++
			if u.fate != nil && u.fate(m, up) {
				return true
			}
			m.peer.say(0, m.id, u.judge(up))
			return true
		}
	})
	return u
}

func (u *uploader) judge(up *wire.Upload) wire.Uploaded {
	out := wire.Uploaded{Outcomes: []wire.Outcome{}}
	for _, item := range up.Items {
		o := paidOutcome(item.TradeNo, item.TotalFen)
		if item.Withdrawn {
			o = wire.Outcome{TradeNo: item.TradeNo, State: wire.StateRevoked, TotalFen: item.TotalFen, Reason: "WITHDRAWN"}
		} else if o.Replayed = u.charged[item.TradeNo] > 0; !o.Replayed {
			u.charged[item.TradeNo]++
		}
		out.Outcomes = append(out.Outcomes, o)
	}
	return out
}

// offlineWorld is a shop that took n payments offline before its line came up.
func offlineWorld(t *testing.T, n int) (*ledger, *shop, *uploader, []string) {
	l, s, n0 := world(t)
	u := l.uploads()
	n0.cut(true)
	s.mayAccept()
	var nos []string
	for i := range n {
		nos = append(nos, s.acceptOffline(i).TradeNo)
	}
	n0.cut(false)
	return l, s, u, nos
}

func TestABacklogIsUploadedInBatchesAndEachIsChargedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, u, nos := offlineWorld(t, 150)
		if _, err := s.book.Withdraw(context.Background(), nos[3], "01"); err != nil {
			t.Fatal(err)
		}
		for i, no := range nos {
			want := payment.Success
			if i == 3 {
				want = payment.Revoked
			}
			s.trade(no, want)
		}
		l.set(func() {
			if len(u.charged) != 149 || u.batches > 10 {
				t.Errorf("%d charged in %d batches", len(u.charged), u.batches)
			}
		})
		s.trade(s.pay("A", 100).TradeNo, payment.Success)
		later := s.acceptOffline(1000)
		s.trade(later.TradeNo, payment.Success)
	})
}

func TestABatchWhoseAnswerIsLostIsSentAgainMarkedAsARepeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, u, nos := offlineWorld(t, 3)
		repeats := 0
		l.set(func() {
			u.fate = func(m message, up *wire.Upload) bool {
				if u.batches > 1 {
					for _, item := range up.Items {
						if item.Repeat {
							repeats++
						}
					}
					return false
				}
				u.judge(up) // it had its effect, and then the connection broke
				go m.peer.ws.Close()
				return true
			}
		})
		for _, no := range nos {
			s.trade(no, payment.Success)
		}
		l.set(func() {
			for no, n := range u.charged {
				if n != 1 {
					t.Errorf("%s charged %d times", no, n)
				}
			}
			if repeats != 3 {
				t.Errorf("%d repeats", repeats)
			}
		})
	})
}

func TestAnUploadThatIsRefusedIsSetAsideAndBlocksNothing(t *testing.T) {
	for name, whole := range map[string]bool{"item by item": false, "the whole batch": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, s, u, nos := offlineWorld(t, 5)
				l.set(func() {
					u.fate = func(m message, up *wire.Upload) bool {
						good := &wire.Upload{}
						for _, item := range up.Items {
							if item.TradeNo != nos[1] {
								good.Items = append(good.Items, item)
							}
						}
						if len(good.Items) == len(up.Items) {
							return false
						}
						if whole {
							m.peer.say(0, m.id, wire.Refused{Code: wire.RefusedMalformed, Detail: "one of them"})
							return true
						}
						out := u.judge(good)
						out.Refused = []wire.RefusedUpload{{TradeNo: nos[1], Code: wire.RefusedIDReused}}
						m.peer.say(0, m.id, out)
						return true
					}
				})
				for _, no := range []string{nos[0], nos[2], nos[3], nos[4]} {
					s.trade(no, payment.Success)
				}
				for len(s.up.SetAside()) == 0 {
					time.Sleep(time.Second)
				}
				if aside := s.up.SetAside(); len(aside) != 1 || aside[0].TradeNo != nos[1] || aside[0].Op != payment.OpUpload {
					t.Errorf("%+v", aside)
				}
				s.trade(nos[1], payment.AcceptedOffline)
				l.set(func() { u.fate = nil })
				time.Sleep(uploadRest)
				s.trade(nos[1], payment.Success) // it is asked for again, in its own time
			})
		})
	}
}

func TestOfflinePaymentsWaitForALedgerThatSpeaksOfThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, u, nos := offlineWorld(t, 1)
		l.set(func() { l.welcome.Version = 1 })
		s.untilUp()
		s.trade(s.pay("A", 100).TradeNo, payment.Success)
		time.Sleep(time.Minute)
		l.set(func() {
			if u.batches != 0 {
				t.Error("uploaded to a ledger of version 1")
			}
			l.welcome.Version = 2
		})
		s.restart()
		s.trade(nos[0], payment.Success)
	})
}

func TestAWelcomeOfAVersionThatWasNotOfferedIsNotBelieved(t *testing.T) {
	for _, version := range []int{0, wire.Version + 1} {
		synctest.Test(t, func(t *testing.T) {
			l, s, _ := world(t, func(l *ledger) { l.welcome.Version = version })
			s.untilDown(wire.RefusedVersion)
			if hello, _ := next[wire.Hello](l); hello.Version != wire.Version || hello.MinVersion != wire.MinVersion {
				t.Errorf("%+v", hello)
			}
		})
	}
}

func TestAJudgementOfATradeThatWasNotAskedEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, u, nos := offlineWorld(t, 1)
		other := s.acceptOffline(7)
		_ = other
		l.set(func() {
			u.fate = func(m message, up *wire.Upload) bool {
				m.peer.say(0, m.id, wire.Uploaded{Outcomes: []wire.Outcome{paidOutcome("01JD3Z5W8Q7XKQ4N6T1B9V2M0C", 1)}})
				return true
			}
		})
		s.untilDown(ReasonProtocol)
		s.trade(nos[0], payment.AcceptedOffline)
	})
}

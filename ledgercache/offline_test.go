package ledgercache

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
)

// offlineShop is a shop that may sell offline: it has a key, a fresh policy and a fresh deny list.
func offlineShop(t *testing.T) (*shop, *[]Acceptance) {
	t.Helper()
	signed := &[]Acceptance{}
	s := newShopWith(t, func(o *Options) {
		o.Sign = func(a Acceptance) ([]byte, error) { *signed = append(*signed, a); return make([]byte, 184), nil }
	})
	s.rule(func(t *tx) error {
		now := s.clock()
		limits := payment.Limits{PaymentFen: 200_00, WalletFen: 300_00, WalletCount: 5, TerminalFen: 1000_00, TerminalCount: 50, ConvertFen: 50_00, DigitsFen: 1000_00}
		if err := put(t.state, keyPolicy, Policy{Version: 3, IssuedAt: now, Until: now.Add(72 * time.Hour), Limits: limits}); err != nil {
			return err
		}
		return put(t.state, keyDenyList, DenyList{Version: 7, IssuedAt: now, Until: now.Add(72 * time.Hour)})
	})
	return s, signed
}

// rule changes the state as news of the ledger would.
func (s *shop) rule(change func(*tx) error) {
	s.t.Helper()
	check(s.t, s.do(ctx, func(t *tx) error {
		if err := change(t); err != nil {
			return err
		}
		return t.emit(recStarted, started{}) // a record, so that the group is applied
	}))
}

var goodClock = Clock{Trusted: true, Error: time.Second}

// signedBy is a good SIGNED code of a wallet.
func (s *shop) signedBy(wallet byte, counter uint32) Signed {
	return Signed{
		Text: fmt.Sprintf("signed-%d-%d", wallet, counter), Wallet: []byte{wallet}, Token: []byte{wallet, 0, 0, 0, 0, 0, 0, 0}, Counter: counter,
		MostFen: 1000_00, ScannedAt: s.clock(), CertPaymentFen: 500_00, CertAllowanceFen: 250_00, CertCount: 4,
	}
}

func (s *shop) offline(n int, fen money.Fen, c Signed) payment.Payment {
	s.t.Helper()
	p, _, err := s.OpenOffline(ctx, New{OutTradeNo: fmt.Sprintf("F%04d", n), Mode: payment.ByCode, TotalFen: fen, BodyHash: []byte{byte(n)}, OperatorID: "op1"}, c, goodClock)
	return s.must(p, err)
}

func TestAnOfflineSaleIsOneStepWithItsEvidenceAndItsPaper(t *testing.T) {
	s, signed := offlineShop(t)
	before := s.Head()
	p := s.offline(1, 50_00, s.signedBy(1, 1))
	if p.State != payment.AcceptedOffline || p.Path != payment.Offline || p.Copies != 1 || len(p.Accept) != 184 {
		t.Fatalf("%+v", p)
	}
	a := (*signed)[0]
	if a.Sequence != before.Sequence+1 || a.Head != before.Hash || a.PolicyVersion != 3 || a.DenyVersion != 7 || a.TradeNo != p.TradeNo || a.Converted || a.TotalFen != 50_00 {
		t.Errorf("evidence %+v after %+v", a, before)
	}
	again, replayed, err := s.OpenOffline(ctx, New{OutTradeNo: "F0001", Mode: payment.ByCode, TotalFen: 50_00, BodyHash: []byte{1}, OperatorID: "op1"}, s.signedBy(1, 2), goodClock)
	if err != nil || !replayed || again.TradeNo != p.TradeNo || len(*signed) != 1 {
		t.Errorf("a repeat: %+v, %v, %v", again, replayed, err)
	}
	s.reopen()
	if e, err := s.Exposure(); err != nil || e.Fen != 50_00 || e.Count != 1 || !e.OldestAt.Equal(p.AcceptedAt) {
		t.Errorf("exposure after a restart: %+v, %v", e, err)
	}
}

func TestAnOfflineRefusalIsNamedAndSpendsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		before func(*shop)
		code   func(*Signed)
		clock  Clock
		fen    money.Fen
		want   payment.Reason
	}{
		"clock not trusted": {nil, nil, Clock{}, 1, payment.ReasonClockUntrusted},
		"clock set back":    {func(s *shop) { s.pass(-time.Hour) }, nil, goodClock, 1, payment.ReasonClockUntrusted},
		"policy gone stale": {func(s *shop) { s.pass(73 * time.Hour) }, nil, goodClock, 1, payment.ReasonPolicyStale},
		"no deny list": {func(s *shop) { s.rule(func(t *tx) error { return t.state.delete(keyDenyList) }) }, nil, goodClock, 1,
			payment.ReasonDenyListStale},
		"code is bad":   {nil, func(c *Signed) { c.Refused = "CODE_FORGED" }, goodClock, 1, "CODE_FORGED"},
		"counter used":  {func(s *shop) { s.offline(9, 1, s.signedBy(1, 5)) }, func(c *Signed) { c.Counter = 5; c.Text = "other" }, goodClock, 1, payment.ReasonCodeReplayed},
		"lower counter": {func(s *shop) { s.offline(9, 1, s.signedBy(1, 5)) }, func(c *Signed) { c.Counter = 4 }, goodClock, 1, payment.ReasonCodeReplayed},
		"wallet denied": {func(s *shop) {
			s.rule(func(t *tx) error { return t.state.set(key(prefixDenied, []byte{1}), []byte{1, 0, 0, 0, 0, 0, 0, 0}) })
		}, nil, goodClock, 1, payment.ReasonWalletBlocked},
		"over the code":        {nil, func(c *Signed) { c.MostFen = 99 }, goodClock, 100, payment.ReasonOverCodeLimit},
		"over the cert":        {nil, func(c *Signed) { c.CertPaymentFen = 99 }, goodClock, 100, payment.ReasonOverCertLimit},
		"over the policy":      {nil, nil, goodClock, 200_01, payment.ReasonOverPaymentLimit},
		"over the allowance":   {func(s *shop) { s.offline(9, 200_00, s.signedBy(1, 1)) }, nil, goodClock, 50_01, payment.ReasonOverWalletAllowance},
		"over the terminal":    {func(s *shop) { s.crowd(5, 200_00) }, nil, goodClock, 1, payment.ReasonOverTerminalLimit},
		"waiting for too long": {func(s *shop) { s.crowd(1, 1); s.pass(72*time.Hour + time.Second); s.renew() }, nil, goodClock, 1, payment.ReasonOverTerminalLimit},
	} {
		t.Run(name, func(t *testing.T) {
			s, signed := offlineShop(t)
			if c.before != nil {
				c.before(s)
			}
			code := s.signedBy(1, 10)
			if c.code != nil {
				c.code(&code)
			}
			e, err := s.Exposure()
			check(t, err)
			made := len(*signed)
			p, _, err := s.OpenOffline(ctx, New{OutTradeNo: "X", Mode: payment.ByCode, TotalFen: c.fen, OperatorID: "op1"}, code, c.clock)
			if err != nil || p.State != payment.PayError || p.Reason != c.want || p.Copies != 0 {
				t.Fatalf("%s %q, %v; want %s", p.State, p.Reason, err, c.want)
			}
			if after, _ := s.Exposure(); after.Fen != e.Fen || len(*signed) != made {
				t.Errorf("exposure %+v, was %+v; %d pieces of evidence, were %d", after, e, len(*signed), made)
			}
		})
	}
}

// crowd takes n offline payments of different customers.
func (s *shop) crowd(n int, fen money.Fen) {
	s.t.Helper()
	for i := range n {
		if p := s.offline(100+i, fen, s.signedBy(byte(100+i), 1)); p.State != payment.AcceptedOffline {
			s.t.Fatalf("%s %s", p.State, p.Reason)
		}
	}
}

// renew is a fresh policy and deny list.
func (s *shop) renew() {
	s.rule(func(t *tx) error {
		p, err := policyOf(t.state)
		if err != nil {
			return err
		}
		d, err := denyListOf(t.state)
		if err != nil {
			return err
		}
		p.IssuedAt, p.Until, d.IssuedAt, d.Until = s.clock(), s.clock().Add(time.Hour), s.clock(), s.clock().Add(time.Hour)
		return errors.Join(put(t.state, keyPolicy, p), put(t.state, keyDenyList, d))
	})
}

func TestManyOfflineSalesAtOnceNeverGoBeyondALimit(t *testing.T) {
	s, _ := offlineShop(t)
	var wg sync.WaitGroup
	for n := range 60 {
		wg.Go(func() {
			wallet := byte(n % 6)
			_, _, err := s.OpenOffline(ctx, New{OutTradeNo: fmt.Sprint("C", n), Mode: payment.ByCode, TotalFen: 70_00, OperatorID: "op1"}, s.signedBy(wallet, uint32(n+1)), goodClock)
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	e, err := s.Exposure()
	check(t, err)
	if e.Fen > 1000_00 || e.Fen < 1000_00-70_00 {
		t.Errorf("exposure %d of 1000.00", e.Fen)
	}
	check(t, s.view(func(st state) error {
		return st.scan(prefixCertUsed, nil, false, func(k, v []byte) (bool, error) {
			var used payment.Exposure
			if err := decMode.Unmarshal(v, &used); err != nil || used.Fen > 250_00 || used.Count > 4 {
				t.Errorf("wallet %x has used %+v, %v", k, used, err)
			}
			return true, nil
		})
	}))
}

func TestAConversionAndAReversalExcludeEachOther(t *testing.T) {
	s, signed := offlineShop(t)
	send := func(n int, c Signed) payment.Payment {
		p, _, err := s.OpenTrade(ctx, New{OutTradeNo: fmt.Sprintf("S%d", n), Mode: payment.ByCode, TotalFen: 50_00, OperatorID: "op1", BodyHash: []byte{byte(n)},
			Code: &Code{Text: c.Text, Wallet: c.Wallet, Token: c.Token, Counter: c.Counter, MostFen: c.MostFen, ScannedAt: c.ScannedAt}})
		return s.must(p, err)
	}
	refused := func(err error, want payment.Reason) {
		t.Helper()
		var r *Refused
		if !errors.As(err, &r) || r.Reason != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	code := s.signedBy(1, 1)
	p := send(1, code)
	p = s.must(s.AcceptOffline(ctx, p.TradeNo, code, goodClock, "manager"))
	if p.State != payment.AcceptedOffline || !(*signed)[0].Converted || p.Copies != 1 {
		t.Fatalf("%+v", p)
	}
	if _, err := s.RecordAsk(ctx, p.TradeNo, payment.OpReverse, payment.ReasonNoAnswer); !errors.Is(err, payment.ErrIllegalMove) {
		t.Errorf("a reversal after the conversion: %v", err)
	}
	code = s.signedBy(2, 1)
	p = send(2, code)
	s.must(s.RecordAsk(ctx, p.TradeNo, payment.OpReverse, payment.ReasonNoAnswer))
	_, err := s.AcceptOffline(ctx, p.TradeNo, code, goodClock, "manager")
	refused(err, payment.ReasonReversalStarted)
	code = s.signedBy(3, 1)
	p = send(3, code)
	_, err = s.AcceptOffline(ctx, p.TradeNo, s.signedBy(3, 2), goodClock, "manager")
	refused(err, payment.ReasonNotConvertible)
	over := code
	over.CertPaymentFen = 1
	_, err = s.AcceptOffline(ctx, p.TradeNo, over, goodClock, "manager")
	refused(err, payment.ReasonOverCertLimit)
	if p = s.must(s.ByTradeNo(p.TradeNo)); p.State != payment.Unknown {
		t.Errorf("a refused conversion moved the trade to %s", p.State)
	}
	online, err := s.AcceptOffline(ctx, s.sell(50).TradeNo, Signed{Text: "x"}, goodClock, "manager")
	refused(err, payment.ReasonNotConvertible)
	if online.State != payment.Unknown {
		t.Errorf("an ONLINE code: %s", online.State)
	}
}

func TestACounterTakesOfflineWhatIsScannedAndWaitsForAnotherCodeAfterARefusal(t *testing.T) {
	s, _ := offlineShop(t)
	p, _, err := s.OpenTrade(ctx, New{OutTradeNo: "A", Mode: payment.AtCounter, TotalFen: 50_00, OperatorID: "op1", ExpiresAt: s.clock().Add(time.Minute)})
	s.must(p, err)
	bad := s.signedBy(1, 1)
	bad.Refused = "CODE_EXPIRED"
	if p = s.must(s.AcceptOffline(ctx, p.TradeNo, bad, goodClock, "")); p.State != payment.NotPay || p.Reason != "CODE_EXPIRED" {
		t.Fatalf("%+v", p)
	}
	if p = s.must(s.AcceptOffline(ctx, p.TradeNo, s.signedBy(1, 2), goodClock, "")); p.State != payment.AcceptedOffline {
		t.Fatalf("%+v", p)
	}
	if holder, _ := s.Counter(); holder != "" {
		t.Error("the counter is still held")
	}
}

func TestWithoutTheTerminalsKeyNothingIsTakenOffline(t *testing.T) {
	s, _ := offlineShop(t)
	s.Book.opts.Sign = nil
	if _, _, err := s.OpenOffline(ctx, New{OutTradeNo: "A", Mode: payment.ByCode, TotalFen: 1, OperatorID: "op1"}, s.signedBy(1, 1), goodClock); !errors.Is(err, ErrNoSigner) {
		t.Fatal(err)
	}
	if _, err := s.Trade("A"); !errors.Is(err, ErrNotFound) {
		t.Errorf("half a sale was kept: %v", err)
	}
}

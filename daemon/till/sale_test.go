package till

import (
	"crypto/ed25519"
	"errors"
	"slices"
	"testing"
	"time"

	"yupos/devices/display"
	"yupos/devices/paycode"
	"yupos/ledgercache"
	"yupos/ledgercache/payment"
)

// signedCode is a SIGNED code that is good at now, by a wallet with a key of its own.
func signedCode(t *testing.T, now time.Time) string {
	t.Helper()
	issuer, wallet := ed25519.NewKeyFromSeed([]byte("issuer-issuer-issuer-issuer-0000")), ed25519.NewKeyFromSeed([]byte("wallet-wallet-wallet-wallet-0000"))
	public, ok := wallet.Public().(ed25519.PublicKey)
	if !ok {
		t.Fatal("no public key")
	}
	at := uint32(now.Unix())
	cert, err := paycode.MakeCert(paycode.Cert{
		Tier: 1, MaxCount: 10, WalletKey: public, NotBefore: at - 60, NotAfter: at + 3600, PerPaymentFen: 20000, AllowanceFen: 50000,
	}, issuer)
	if err != nil {
		t.Fatal(err)
	}
	text, err := paycode.MakeSigned(cert, 1, at, 20000, wallet)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestWithTheLineDownACodeIsRefusedAtOnceWithItsReason(t *testing.T) {
	c := newCounter(t)
	c.line.down.Store(true)
	for out, want := range map[string]struct {
		code   string
		reason payment.Reason
	}{
		"A1": {onlineCode, "CODE_NEEDS_LINK"},
		"A2": {signedCode(t, c.clock.now()), payment.ReasonClockUntrusted},
		"A3": {weChatCode, "FOREIGN_CODE"},
		"A4": {"861234567890123450", "MALFORMED"},
	} {
		p := c.pay(Sale{OutTradeNo: out, TotalFen: 1250, AuthCode: want.code})
		if p.State != payment.PayError || p.Reason != want.reason || p.Attempt != 0 || p.Code != "" {
			t.Errorf("%s: %+v, want %s", out, p, want.reason)
		}
	}
	if !c.warned("LINK_DOWN") {
		t.Error("nobody is told that the line is down")
	}
}

func TestACodeThatWasRefusedWithoutTheLineIsStillGoodForTheNextSale(t *testing.T) {
	c := newCounter(t)
	c.line.down.Store(true)
	c.pay(Sale{OutTradeNo: "A1", TotalFen: 1250, AuthCode: onlineCode})
	c.line.down.Store(false)
	if p := c.pay(Sale{OutTradeNo: "A2", TotalFen: 1250, AuthCode: onlineCode}); p.State != payment.Unknown || p.Code != onlineCode {
		t.Fatalf("%+v", p)
	}
}

func TestWithTheLineDownAnOrderIsStillShown(t *testing.T) {
	c := newCounter(t)
	c.line.down.Store(true)
	c.run()
	p, replayed, err := c.Precreate(c.ctx, Sale{OutTradeNo: "A1", TotalFen: 1250})
	if err != nil || replayed || p.State != payment.NotPay || p.Mode != payment.ByOrder {
		t.Fatalf("%+v %v %v", p, replayed, err)
	}
	expires := c.clock.now().Add(180 * time.Second)
	o, reason := paycode.ParseOrder(p.OrderText)
	if reason != "" || o.AmountFen != 1250 || o.TerminalID != shop.TerminalID || o.MerchantID != shop.MerchantID || o.ULID != p.TradeNo ||
		int64(o.Expires) != expires.Unix() || !p.ExpiresAt.Equal(expires) {
		t.Fatalf("%s: %+v of %+v", reason, o, p)
	}
	c.shows(display.Code)
	if show := c.screen.last(); show.Code != p.OrderText || show.AmountFen != 1250 {
		t.Errorf("%+v", show)
	}
}

func TestARepeatIsTheRecordedTradeWhoeverAsksAndAnotherRequestIsRefused(t *testing.T) {
	c := newCounter(t)
	sale := Sale{OutTradeNo: "A1", TotalFen: 1250, AuthCode: onlineCode, OperatorID: "till-1", Caller: "register"}
	first := c.pay(sale)
	sale.Caller = "manager"
	again, replayed, err := c.Pay(c.ctx, sale)
	if err != nil || !replayed || again.TradeNo != first.TradeNo || again.Attempt != 1 {
		t.Fatalf("%+v %v %v", again, replayed, err)
	}
	label, amount := sale, sale
	label.OperatorID = "till-2"
	amount.TotalFen++
	for name, other := range map[string]Sale{"another label": label, "another amount": amount} {
		if _, _, err := c.Pay(c.ctx, other); !errors.Is(err, ledgercache.ErrOutTradeNoUsed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := c.Precreate(c.ctx, sale); !errors.Is(err, ledgercache.ErrOutTradeNoUsed) {
		t.Errorf("an order instead of a charge: %v", err)
	}
}

func TestARepeatedOrderKeepsItsCode(t *testing.T) {
	c := newCounter(t)
	first, _, err := c.Precreate(c.ctx, Sale{OutTradeNo: "A1", TotalFen: 1250, Caller: "register"})
	if err != nil {
		t.Fatal(err)
	}
	c.clock.pass(time.Minute)
	again, replayed, err := c.Precreate(c.ctx, Sale{OutTradeNo: "A1", TotalFen: 1250, Caller: "manager"})
	if err != nil || !replayed || again.TradeNo != first.TradeNo || again.OrderText != first.OrderText || again.OperatorID != "register" {
		t.Fatalf("%+v %v %v", again, replayed, err)
	}
}

func TestOnlyOneSaleHasTheCounter(t *testing.T) {
	c := newCounter(t)
	c.pay(Sale{OutTradeNo: "A1", TotalFen: 1250})
	if _, _, err := c.Pay(c.ctx, Sale{OutTradeNo: "A2", TotalFen: 1250}); !errors.Is(err, ledgercache.ErrCounterBusy) {
		t.Errorf("a second armed sale: %v", err)
	}
	if _, _, err := c.Precreate(c.ctx, Sale{OutTradeNo: "A3", TotalFen: 1250}); !errors.Is(err, ledgercache.ErrCounterBusy) {
		t.Errorf("an order beside an armed sale: %v", err)
	}
	c.pay(Sale{OutTradeNo: "A4", TotalFen: 1250, AuthCode: onlineCode}) // brings its own code
}

func TestACancelAfterThePaymentSaysThatItIsPaid(t *testing.T) {
	c := newCounter(t)
	c.sell(1)
	if p, err := c.Cancel(c.ctx, "A1", "register"); !errors.Is(err, ErrTradePaid) || p.State != payment.Success {
		t.Fatalf("%+v %v", p, err)
	}
	c.pay(Sale{OutTradeNo: "A2", TotalFen: 1250})
	if p, err := c.Cancel(c.ctx, "A2", "register"); err != nil || p.State != payment.Closed || c.holds() != "" {
		t.Fatalf("%+v %v", p, err)
	}
}

func TestAskingForAnOpenTradeNudgesTheLineAndForAnEndedOneDoesNot(t *testing.T) {
	c := newCounter(t)
	c.sell(1)
	open := c.pay(Sale{OutTradeNo: "A2", TotalFen: 1250, AuthCode: onlineCode})
	for _, out := range []string{"A1", "A2"} {
		if _, err := c.Trade(out); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.line.nudges(); !slices.Equal(got, []string{open.TradeNo}) {
		t.Fatalf("nudged %v", got)
	}
}

func TestAWaitEndsWithTheLedgersAnswer(t *testing.T) {
	c := newCounter(t)
	p := c.pay(Sale{OutTradeNo: "A1", TotalFen: 1250, AuthCode: onlineCode})
	type result struct {
		p   payment.Payment
		err error
	}
	got := make(chan result, 1)
	go func() {
		p, err := c.Wait(c.ctx, "A1", time.Hour)
		got <- result{p, err}
	}()
	c.answer(p)
	select {
	case r := <-got:
		if r.err != nil || r.p.State != payment.Success {
			t.Fatalf("%+v %v", r.p, r.err)
		}
	case <-time.After(patience):
		t.Fatal("still waiting")
	}
	if p, err := c.Wait(c.ctx, "A1", time.Hour); err != nil || p.State != payment.Success { // an ended trade is no wait at all
		t.Fatalf("%+v %v", p, err)
	}
}

func TestAWaitWithoutAnAnswerEndsWithItsTime(t *testing.T) {
	c := newCounter(t)
	c.pay(Sale{OutTradeNo: "A1", TotalFen: 1250, AuthCode: onlineCode})
	for _, d := range []time.Duration{0, 30 * time.Millisecond} {
		began := time.Now()
		p, err := c.Wait(c.ctx, "A1", d)
		if took := time.Since(began); err != nil || p.State != payment.Unknown || took < d || took > patience {
			t.Fatalf("after %v of %v: %+v %v", took, d, p, err)
		}
	}
	if _, err := c.Wait(c.ctx, "nobody", time.Hour); !errors.Is(err, ledgercache.ErrNotFound) {
		t.Fatal(err)
	}
}

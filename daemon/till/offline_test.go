package till

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"yupos/devices/display"
	"yupos/devices/paycode"
	"yupos/ledgercache"
	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
	"yupos/ledgercache/trust"
)

var (
	terminalKey = ed25519.NewKeyFromSeed(make([]byte, 32))
	policyKey   = ed25519.NewKeyFromSeed([]byte("policy-policy-policy-policy-0000"))
	issuerKey   = ed25519.NewKeyFromSeed([]byte("issuer-issuer-issuer-issuer-0000"))
)

func public(k ed25519.PrivateKey) ed25519.PublicKey { return ed25519.PublicKey(k[32:]) }

// offlineCounter is a counter without a line that could sell offline: a policy, a deny list, a clock that can be trusted.
func offlineCounter(t *testing.T) *counter {
	t.Helper()
	c := newCounter(t)
	if err := c.Book().Close(); err != nil {
		t.Fatal(err)
	}
	c.book = func(o *ledgercache.Options) {
		o.Pins = trust.Pins{{Role: trust.Policy, Public: public(policyKey)}}
		o.Sign = func(a ledgercache.Acceptance) ([]byte, error) {
			return trust.Accept{
				Converted: a.Converted, TotalFen: a.TotalFen, At: a.At, BoundSeconds: uint32(a.ClockError.Seconds()), TradeNo: a.TradeNo,
				TerminalID: shop.TerminalID, CodeHash: a.CodeHash, PolicyVersion: a.PolicyVersion, DenyVersion: a.DenyVersion, Sequence: a.Sequence, Head: a.Head,
			}.Sign(terminalKey)
		}
	}
	c.open()
	c.o.Issuers = func(now time.Time) paycode.Keys {
		return paycode.Keys{{Public: public(issuerKey), NotBefore: 0, NotAfter: uint32(now.Unix() + 1000)}}
	}
	c.pinReceipts()
	c.o.Clock = func() ledgercache.Clock { return ledgercache.Clock{Trusted: true, Error: 2 * time.Second} }
	c.learn(trust.Rules, c.policy(1))
	c.learn(trust.Deny, c.deny(1))
	c.line.down.Store(true)
	return c
}

func (c *counter) header(version uint32) trust.Header {
	now := c.clock.now()
	return trust.Header{Terminal: trust.Everyone, Version: version, Issued: uint32(now.Unix()), Expires: uint32(now.Add(100 * time.Hour).Unix())}
}

func (c *counter) policy(version uint32) trust.PolicyNews {
	return trust.PolicyNews{Header: c.header(version), PaymentFen: 200_00, WalletFen: 500_00, WalletCount: 10, TerminalFen: 1000_00, TerminalCount: 200,
		ConvertFen: 50_00, DigitsFen: 1000_00, CodeSeconds: 60, SkewSeconds: 30}
}

func (c *counter) deny(version uint32, tokens ...[8]byte) trust.DenyNews {
	n := trust.DenyNews{Header: c.header(version), Add: []string{}, Remove: []string{}, Count: len(tokens), SHA256: trust.DenyHash(tokens)}
	for _, token := range tokens {
		n.Add = append(n.Add, fmt.Sprintf("%x", token))
	}
	return n
}

func (c *counter) learn(topic trust.Topic, news any) {
	c.t.Helper()
	raw, err := json.Marshal(news)
	if err == nil {
		var e trust.Envelope
		if e, err = trust.Seal(topic, raw, policyKey); err == nil {
			err = c.Book().Learn(c.ctx, topic, e)
		}
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// wallet makes SIGNED codes of one certificate.
type wallet struct {
	c       *counter
	key     ed25519.PrivateKey
	cert    []byte
	token   [8]byte
	counter uint32
}

func (c *counter) wallet(n byte, spoil func(*paycode.Cert)) *wallet {
	c.t.Helper()
	seed := make([]byte, 32)
	seed[0] = n
	w := &wallet{c: c, key: ed25519.NewKeyFromSeed(seed), token: [8]byte{n}}
	now := uint32(c.clock.now().Unix())
	cert := paycode.Cert{
		Tier: 3, MaxCount: 20, Token: w.token, WalletKey: public(w.key), NotBefore: now - 100, NotAfter: now + 36000, PerPaymentFen: 300_00, AllowanceFen: 1000_00,
	}
	if spoil != nil {
		spoil(&cert)
	}
	var err error
	if w.cert, err = paycode.MakeCert(cert, issuerKey); err != nil {
		c.t.Fatal(err)
	}
	return w
}

func (w *wallet) code(most money.Fen) string { return w.codeAt(most, 0) }

func (w *wallet) codeAt(most money.Fen, ago time.Duration) string {
	w.c.t.Helper()
	w.counter++
	text, err := paycode.MakeSigned(w.cert, w.counter, uint32(w.c.clock.now().Add(-ago).Unix()), most, w.key)
	if err != nil {
		w.c.t.Fatal(err)
	}
	return text
}

func TestWithoutALineASignedCodeIsAcceptedAtOnceOnItsEvidence(t *testing.T) {
	c := offlineCounter(t)
	text := c.wallet(1, nil).code(1000_00)
	p := c.pay(Sale{OutTradeNo: "A1", TotalFen: 1250, AuthCode: text})
	if p.State != payment.AcceptedOffline || p.Path != payment.Offline || p.State.Final() || !p.State.EndsWait() {
		t.Fatalf("%+v", p)
	}
	a, err := trust.ParseAccept(p.Accept, public(terminalKey))
	s, _ := paycode.ParseSigned(text)
	if err != nil || a.TotalFen != 1250 || a.Converted || a.TradeNo != p.TradeNo || a.CodeHash != sha256.Sum256(s.Raw) || a.PolicyVersion != 1 || a.DenyVersion != 1 {
		t.Errorf("%+v, %v", a, err)
	}
	info, err := c.Terminal()
	if err != nil || info.Exposure.Fen != 1250 || info.Exposure.Count != 1 || info.Exposure.OldestAt == nil ||
		info.Limits.LeftFen != 1000_00-1250 || info.Limits.StopsAt == nil || !info.OfflineReady.OK || !info.Clock.Trusted || info.Clock.ErrorMillis != 2000 {
		t.Errorf("%+v, %v", info, err)
	}
	again, replayed, err := c.Pay(c.ctx, Sale{OutTradeNo: "A1", TotalFen: 1250, AuthCode: text})
	if err != nil || !replayed || again.State != payment.AcceptedOffline {
		t.Errorf("%s, replayed %v, %v", again.State, replayed, err)
	}
	second := c.pay(Sale{OutTradeNo: "A2", TotalFen: 1250, AuthCode: text})
	if second.State != payment.PayError || second.Reason != payment.ReasonCodeReplayed {
		t.Errorf("a second sale by the same code: %s %s", second.State, second.Reason)
	}
}

func TestEachOfflineRefusalHasItsNameAndTakesNothing(t *testing.T) {
	for name, k := range map[string]struct {
		total money.Fen
		set   func(*counter) string // makes things so and answers the code
		want  payment.Reason
	}{
		"the clock was never checked": {1250, func(c *counter) string {
			c.o.Clock = func() ledgercache.Clock { return ledgercache.Clock{} }
			return c.wallet(1, nil).code(1000_00)
		}, payment.ReasonClockUntrusted},
		"the clock may be a minute off": {1250, func(c *counter) string {
			c.o.Clock = func() ledgercache.Clock { return ledgercache.Clock{Trusted: true, Error: time.Minute} }
			return c.wallet(1, nil).code(1000_00)
		}, payment.ReasonClockUntrusted},
		"the clock was set back": {1250, func(c *counter) string {
			c.clock.pass(-time.Hour)
			return c.wallet(1, nil).code(1000_00)
		}, payment.ReasonClockUntrusted},
		"the policy is older than 72 hours": {1250, func(c *counter) string {
			c.clock.pass(73 * time.Hour)
			return c.wallet(1, nil).code(1000_00)
		}, payment.ReasonPolicyStale},
		"the deny list is older than 72 hours": {1250, func(c *counter) string {
			c.clock.pass(73 * time.Hour)
			c.learn(trust.Rules, c.policy(2))
			return c.wallet(1, nil).code(1000_00)
		}, payment.ReasonDenyListStale},
		"a stale policy goes before a damaged code": {1250, func(c *counter) string {
			c.clock.pass(73 * time.Hour)
			return c.wallet(1, nil).code(1000_00)[:300]
		}, payment.ReasonPolicyStale},
		"a damaged code": {1250, func(c *counter) string { return c.wallet(1, nil).code(1000_00)[:300] }, "MALFORMED"},
		"an issuer that is not pinned": {1250, func(c *counter) string {
			c.o.Issuers = func(time.Time) paycode.Keys { return nil }
			return c.wallet(1, nil).code(1000_00)
		}, "UNKNOWN_ISSUER"},
		"a code that is too old": {1250, func(c *counter) string { return c.wallet(1, nil).codeAt(1000_00, 61*time.Second) }, "CODE_EXPIRED"},
		"a code too old for a stricter policy": {1250, func(c *counter) string {
			p := c.policy(2)
			p.CodeSeconds = 20
			c.learn(trust.Rules, p)
			return c.wallet(1, nil).codeAt(1000_00, 30*time.Second)
		}, "CODE_EXPIRED"},
		"a wallet on the deny list": {1250, func(c *counter) string {
			c.learn(trust.Deny, c.deny(2, [8]byte{1}))
			return c.wallet(1, nil).code(1000_00)
		}, payment.ReasonWalletBlocked},
		"more than the code may pay": {1251, func(c *counter) string { return c.wallet(1, nil).code(1250) }, payment.ReasonOverCodeLimit},
		"more than the certificate allows": {1251, func(c *counter) string {
			return c.wallet(1, func(k *paycode.Cert) { k.PerPaymentFen = 1250 }).code(1000_00)
		}, payment.ReasonOverCertLimit},
		"more than the policy allows": {20001, func(c *counter) string { return c.wallet(1, nil).code(1000_00) }, payment.ReasonOverPaymentLimit},
		"more than the customer's allowance": {20000, func(c *counter) string {
			w := c.wallet(1, nil)
			for n := range 2 {
				c.pay(Sale{OutTradeNo: fmt.Sprintf("B%d", n), TotalFen: 20000, AuthCode: w.code(1000_00)})
			}
			return w.code(1000_00)
		}, payment.ReasonOverWalletAllowance},
		"more than the terminal may hold": {20000, func(c *counter) string {
			for n := range byte(5) {
				c.pay(Sale{OutTradeNo: fmt.Sprintf("B%d", n), TotalFen: 20000, AuthCode: c.wallet(n+2, nil).code(1000_00)})
			}
			return c.wallet(1, nil).code(1000_00)
		}, payment.ReasonOverTerminalLimit},
	} {
		t.Run(name, func(t *testing.T) {
			c := offlineCounter(t)
			text := k.set(c)
			before, _ := c.Book().Exposure()
			p := c.pay(Sale{OutTradeNo: "A1", TotalFen: k.total, AuthCode: text})
			after, _ := c.Book().Exposure()
			if p.State != payment.PayError || p.Reason != k.want || before != after || len(p.Accept) > 0 {
				t.Fatalf("%s %s, want %s; exposure %+v → %+v", p.State, p.Reason, k.want, before, after)
			}
			if w := p.Why(); w.ZH == "" || w.EN == "" || w.ZH == "原因 "+string(k.want) {
				t.Errorf("%s has no words: %+v", k.want, w)
			}
		})
	}
}

func TestAtTheCounterARefusedOfflineCodeLeavesTheSaleWaitingForAnother(t *testing.T) {
	c := offlineCounter(t)
	c.paper.ready.Store(true)
	c.run()
	p := c.arm("A1")
	c.scan(c.wallet(1, nil).code(100), c.clock.now())
	c.until("the refusal", func() bool { return c.trade("A1").Reason == payment.ReasonOverCodeLimit })
	if now := c.trade("A1"); now.State != payment.NotPay || now.NextAction() != "rescan" || c.holds() != p.TradeNo {
		t.Errorf("%+v", now)
	}
	c.scan(c.wallet(2, nil).code(1000_00), c.clock.now())
	c.shows(display.Paid)
	if now := c.trade("A1"); now.State != payment.AcceptedOffline || now.Path != payment.Offline {
		t.Errorf("%+v", now)
	}
	c.until("its slip", func() bool { return len(c.paper.printed()) == 1 })
}

func TestARegisterThatWantsNoOfflinePaymentGetsNone(t *testing.T) {
	c := offlineCounter(t)
	p := c.pay(Sale{OutTradeNo: "A1", TotalFen: 1250, AuthCode: c.wallet(1, nil).code(1000_00), NoOffline: true})
	if p.State != payment.PayError || p.Reason != payment.ReasonCodeNeedsLink {
		t.Errorf("%s %s", p.State, p.Reason)
	}
	c.line.down.Store(false)
	sent := c.pay(Sale{OutTradeNo: "A2", TotalFen: 1250, AuthCode: c.wallet(1, nil).code(1000_00), NoOffline: true})
	_, err := c.AcceptOffline(c.ctx, sent.OutTradeNo, "boss")
	refusedAs(t, err, payment.ReasonNotConvertible)
}

// sent is a sale that left by the line and was not answered.
func (c *counter) sent(outTradeNo string, total money.Fen, code string) payment.Payment {
	c.t.Helper()
	c.line.down.Store(false)
	p := c.pay(Sale{OutTradeNo: outTradeNo, TotalFen: total, AuthCode: code})
	c.line.down.Store(true)
	if p.State != payment.Unknown {
		c.t.Fatalf("%s %s", p.State, p.Reason)
	}
	return p
}

func TestASaleWithoutAnAnswerIsConvertedByAManagerUnderTheSameNumber(t *testing.T) {
	c := offlineCounter(t)
	p := c.sent("A1", 1250, c.wallet(1, nil).code(1000_00))
	c.clock.pass(10 * time.Minute) // freshness is judged at the scan
	q, err := c.AcceptOffline(c.ctx, "A1", "boss")
	if err != nil || q.TradeNo != p.TradeNo || q.State != payment.AcceptedOffline || q.Path != payment.Offline {
		t.Fatalf("%+v, %v", q, err)
	}
	if a, err := trust.ParseAccept(q.Accept, public(terminalKey)); err != nil || !a.Converted || a.TradeNo != p.TradeNo {
		t.Errorf("%+v, %v", a, err)
	}
	if again, err := c.AcceptOffline(c.ctx, "A1", "boss"); err != nil || string(again.Accept) != string(q.Accept) {
		t.Errorf("again: %+v, %v", again, err)
	}
	if _, err := c.Cancel(c.ctx, "A1", "boss"); !errors.Is(err, ErrUploaded) {
		t.Errorf("it was sent online: withdrawing it answers %v", err)
	}
}

func TestAConversionIsRefusedByNameAndTheSaleStaysAsItIs(t *testing.T) {
	for name, k := range map[string]struct {
		set  func(*counter)
		want payment.Reason
	}{
		"an ONLINE code": {func(c *counter) { c.sent("A1", 1250, onlineCode) }, payment.ReasonNotConvertible},
		"a reversal has started": {func(c *counter) {
			p := c.sent("A1", 1250, c.wallet(1, nil).code(1000_00))
			if _, err := c.Book().RecordAsk(c.ctx, p.TradeNo, payment.OpReverse, payment.ReasonNoAnswer); err != nil {
				c.t.Fatal(err)
			}
		}, payment.ReasonReversalStarted},
		"a cancel is wanted": {func(c *counter) {
			c.sent("A1", 1250, c.wallet(1, nil).code(1000_00))
			if _, err := c.Cancel(c.ctx, "A1", "anna"); err != nil {
				c.t.Fatal(err)
			}
		}, payment.ReasonReversalStarted},
		"more than a conversion may be": {func(c *counter) { c.sent("A1", 5001, c.wallet(1, nil).code(1000_00)) }, payment.ReasonOverPaymentLimit},
		"nothing was sent":              {func(c *counter) { c.pay(Sale{OutTradeNo: "A1", TotalFen: 1250}) }, payment.ReasonNotConvertible},
		"the clock is not to be trusted": {func(c *counter) {
			c.sent("A1", 1250, c.wallet(1, nil).code(1000_00))
			c.o.Clock = func() ledgercache.Clock { return ledgercache.Clock{} }
		}, payment.ReasonClockUntrusted},
	} {
		t.Run(name, func(t *testing.T) {
			c := offlineCounter(t)
			k.set(c)
			before := c.trade("A1")
			_, err := c.AcceptOffline(c.ctx, "A1", "boss")
			refusedAs(t, err, k.want)
			if after := c.trade("A1"); after.State != before.State || len(after.Accept) > 0 {
				t.Errorf("%s → %s", before.State, after.State)
			}
		})
	}
}

func TestAnAnswerThatComesBeforeTheConversionStands(t *testing.T) {
	c := offlineCounter(t)
	p := c.sent("A1", 1250, c.wallet(1, nil).code(1000_00))
	c.answer(p)
	q, err := c.AcceptOffline(c.ctx, "A1", "boss")
	if err != nil || q.State != payment.Success || len(q.Accept) > 0 {
		t.Errorf("%+v, %v", q, err)
	}
}

func TestAnOfflinePaymentIsWithdrawnBeforeItsUploadAndNotAfter(t *testing.T) {
	c := offlineCounter(t)
	w := c.wallet(1, nil)
	p := c.pay(Sale{OutTradeNo: "A1", TotalFen: 1250, AuthCode: w.code(1000_00)})
	q, err := c.Cancel(c.ctx, p.OutTradeNo, "boss")
	if err != nil || !q.Withdrawn || q.State != payment.AcceptedOffline {
		t.Fatalf("%+v, %v", q, err)
	}
	p = c.pay(Sale{OutTradeNo: "A2", TotalFen: 1250, AuthCode: w.code(1000_00)})
	if _, err := c.Book().RecordUploads(c.ctx, []string{p.TradeNo}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Cancel(c.ctx, "A2", "boss"); !errors.Is(err, ErrUploaded) {
		t.Errorf("%v", err)
	}
}

func TestTheSelfCheckNamesEverythingThatIsMissing(t *testing.T) {
	c := newCounter(t)
	ready, err := c.offlineReady()
	if err != nil || ready.OK || fmt.Sprint(ready.Missing) != "[CLOCK_UNTRUSTED POLICY_STALE DENY_LIST_STALE UNKNOWN_ISSUER UNKNOWN_LEDGER_KEY]" {
		t.Errorf("%+v, %v", ready, err)
	}
	for _, w := range ready.Words {
		if w.Text == "" || w.TextEN == "" {
			t.Errorf("%+v", w)
		}
	}
	c = offlineCounter(t)
	for n := range byte(5) {
		c.pay(Sale{OutTradeNo: fmt.Sprintf("B%d", n), TotalFen: 20000, AuthCode: c.wallet(n+2, nil).code(1000_00)})
	}
	if ready, err = c.offlineReady(); err != nil || fmt.Sprint(ready.Missing) != "[OVER_TERMINAL_LIMIT]" {
		t.Errorf("%+v, %v", ready, err)
	}
	c.clock.pass(25 * time.Hour)
	if !c.warned("OFFLINE_OLD") {
		t.Error("a day without upload is not warned of")
	}
	c.clock.pass(50 * time.Hour)
	if !c.warned("OFFLINE_STOPPED") {
		t.Error("three days without upload are not warned of")
	}
}

func TestASaleOfTheAmountOfAnUnresolvedOneIsToldOfIt(t *testing.T) {
	c := offlineCounter(t)
	first := c.sent("A1", 1250, c.wallet(1, nil).code(1000_00))
	for name, k := range map[string]struct {
		total money.Fen
		after time.Duration
		want  int
	}{
		"the same amount at once":     {1250, 0, 1},
		"another amount":              {1251, 0, 0},
		"the same amount, much later": {1250, 2*time.Minute + time.Second, 0},
	} {
		c.clock.pass(k.after)
		p := c.pay(Sale{OutTradeNo: name, TotalFen: k.total, AuthCode: weChatCode})
		list, err := c.Unresolved(p)
		if err != nil || len(list) != k.want || k.want == 1 && list[0].TradeNo != first.TradeNo {
			t.Errorf("%s: %+v, %v", name, list, err)
		}
		c.clock.pass(-k.after)
	}
}

func TestTheSlipOfAnOfflinePaymentSaysWhenItWasTakenAndThatItIsToBeSettled(t *testing.T) {
	c := offlineCounter(t)
	p := c.pay(Sale{OutTradeNo: "A1", TotalFen: 1250, AuthCode: c.wallet(1, nil).code(1000_00)})
	slip := func() string {
		t.Helper()
		doc, err := c.document(ledgercache.PrintJob{TradeNo: p.TradeNo, Copy: 1})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%+v", doc)
	}
	if text := slip(); !strings.Contains(text, "2026-11-23 10:00:00") || !strings.Contains(text, "待入账") {
		t.Errorf("%s", text)
	}
	if _, err := c.Cancel(c.ctx, "A1", "boss"); err != nil {
		t.Fatal(err)
	}
	if text := slip(); strings.Contains(text, "待入账") {
		t.Errorf("withdrawn: %s", text)
	}
}

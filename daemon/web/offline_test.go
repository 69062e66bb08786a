package web

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

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
	walletKey   = ed25519.NewKeyFromSeed([]byte("wallet-wallet-wallet-wallet-0000"))
)

func public(k ed25519.PrivateKey) ed25519.PublicKey { return ed25519.PublicKey(k[32:]) }

func evidence(a ledgercache.Acceptance) ([]byte, error) {
	return trust.Accept{Converted: a.Converted, TotalFen: a.TotalFen, At: a.At, TradeNo: a.TradeNo, TerminalID: "10000001", CodeHash: a.CodeHash, Sequence: a.Sequence, Head: a.Head}.Sign(terminalKey)
}

// cutOff takes the line away from a terminal that has a policy and a deny list.
func (c *counter) cutOff() {
	c.t.Helper()
	now := time.Now()
	header := trust.Header{Terminal: trust.Everyone, Version: 1, Issued: uint32(now.Unix()), Expires: uint32(now.Add(time.Hour).Unix())}
	for topic, news := range map[trust.Topic]any{
		trust.Rules: trust.PolicyNews{Header: header, PaymentFen: 200_00, WalletFen: 500_00, WalletCount: 10, TerminalFen: 5000_00, TerminalCount: 200,
			ConvertFen: 50_00, DigitsFen: 1000_00, CodeSeconds: 60, SkewSeconds: 30},
		trust.Deny: trust.DenyNews{Header: header, Add: []string{}, Remove: []string{}, SHA256: trust.DenyHash(nil)},
	} {
		raw, err := json.Marshal(news)
		if err == nil {
			var e trust.Envelope
			if e, err = trust.Seal(topic, raw, policyKey); err == nil {
				err = c.book.Learn(c.t.Context(), topic, e)
			}
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
	c.line.down.Store(true)
	c.till.Changed()
}

// signedCode is a SIGNED code of a wallet, its n-th.
func signedCode(t testing.TB, n uint32, most money.Fen) string {
	t.Helper()
	now := uint32(time.Now().Unix())
	cert, err := paycode.MakeCert(paycode.Cert{
		Tier: 3, MaxCount: 20, Token: [8]byte{1}, WalletKey: public(walletKey), NotBefore: now - 100, NotAfter: now + 3600, PerPaymentFen: 300_00, AllowanceFen: 1000_00,
	}, issuerKey)
	if err != nil {
		t.Fatal(err)
	}
	text, err := paycode.MakeSigned(cert, n, now, most, walletKey)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestWithoutALineASignedCodeIsTakenAndItsWithdrawalIsAManagers(t *testing.T) {
	c := newCounter(t)
	c.cutOff()
	paid := c.api(200, "POST", "/v1/trade/pay", fmt.Sprintf(`{"out_trade_no":"S1","total_fen":1250,"auth_code":%q}`, signedCode(t, 1, 100000)))
	if paid["trade_state"] != "ACCEPTED_OFFLINE" || paid["final"] != false || paid["path"] != "offline" || paid["evidence"] != "accept" || paid["confirmed"] != false || paid["paid_fen"] != nil {
		t.Errorf("%v", paid)
	}
	about := c.api(200, "GET", "/v1/terminal", "")
	if e := about["exposure"].(map[string]any); e["fen"] != 1250.0 || e["count"] != 1.0 || e["oldest_at"] == nil {
		t.Errorf("%v", e)
	}
	if r := about["offline_ready"].(map[string]any); r["ok"] != true || len(r["missing"].([]any)) != 0 {
		t.Errorf("%v", r)
	}
	if r := c.call("POST", "/v1/trade/S1/cancel", registerToken, "{}"); r.status != 403 || r.body["code"] != "FORBIDDEN" {
		t.Errorf("a cashier withdraws: %d %v", r.status, r.body)
	}
	if r := c.call("POST", "/v1/trade/S1/cancel", managerToken, "{}"); r.status != 200 || r.body["reason"].(map[string]any)["code"] != "WITHDRAWN" {
		t.Errorf("%d %v", r.status, r.body)
	}
}

func TestConvertingASaleWithoutAnAnswerIsAManagersExplicitAct(t *testing.T) {
	c := newCounter(t)
	sent := c.api(202, "POST", "/v1/trade/pay", fmt.Sprintf(`{"out_trade_no":"S1","total_fen":1250,"auth_code":%q}`, signedCode(t, 1, 100000)))
	if sent["trade_state"] != "UNKNOWN" || sent["convertible"] != true {
		t.Errorf("%v", sent)
	}
	c.cutOff()
	if r := c.call("POST", "/v1/trade/S1/accept_offline", registerToken, "{}"); r.status != 403 {
		t.Errorf("a cashier converts: %d %v", r.status, r.body)
	}
	r := c.call("POST", "/v1/trade/S1/accept_offline", managerToken, "")
	if r.status != 200 || r.body["trade_state"] != "ACCEPTED_OFFLINE" || r.body["trade_no"] != sent["trade_no"] {
		t.Errorf("%d %v", r.status, r.body)
	}
	c.line.down.Store(false)
	online := c.api(202, "POST", "/v1/trade/pay", `{"out_trade_no":"S2","total_fen":1250,"auth_code":"`+online(t, "861234567890123")+`"}`)
	if online["convertible"] != false {
		t.Errorf("%v", online)
	}
	if r := c.call("POST", "/v1/trade/S2/accept_offline", managerToken, ""); r.status != 409 || r.body["code"] != "NOT_CONVERTIBLE" || r.body["detail"] == "" {
		t.Errorf("%d %v", r.status, r.body)
	}
	if r := c.call("POST", "/v1/trade/NOBODY/accept_offline", managerToken, ""); r.status != 404 {
		t.Errorf("%d %v", r.status, r.body)
	}
}

func TestTheRegisterIsToldOfAnUnresolvedSaleOfTheSameAmount(t *testing.T) {
	c := newCounter(t)
	c.api(202, "POST", "/v1/trade/pay", `{"out_trade_no":"S1","total_fen":1250,"auth_code":"`+online(t, "861234567890123")+`"}`)
	second := c.api(202, "POST", "/v1/trade/pay", `{"out_trade_no":"S2","total_fen":1250,"auth_code":"`+online(t, "861234567890124")+`"}`)
	list := second["warnings"].([]any)
	if len(list) != 1 || list[0].(map[string]any)["code"] != "SAME_AMOUNT_UNRESOLVED" || !strings.Contains(list[0].(map[string]any)["text"].(string), "S1") {
		t.Errorf("%v", list)
	}
	other := c.api(202, "POST", "/v1/trade/pay", `{"out_trade_no":"S3","total_fen":1251,"auth_code":"`+online(t, "861234567890125")+`"}`)
	if len(other["warnings"].([]any)) != 0 {
		t.Errorf("%v", other)
	}
}

func TestThePageWarnsBeforeASecondSaleOfTheSameAmountAndAManagerConvertsTheFirst(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	ctx := c.browser(1366, 768, "/")
	c.sees(ctx, `document.getElementById("shop").textContent === "渝中小面"`)
	c.api(202, "POST", "/v1/trade/pay", `{"out_trade_no":"S1","total_fen":1250,"auth_code":"`+online(t, "861234567890123")+`"}`)
	c.run(ctx, chromedp.KeyEvent("12.5"))
	c.sees(ctx, `document.getElementById("twice").open && document.getElementById("twice-what").textContent.includes("S1")`)
	c.sound(ctx, "1366-twice")
	if held, err := c.book.Counter(); err != nil || held != "" {
		t.Errorf("the second sale began before the answer: %q %v", held, err)
	}
	c.run(ctx, chromedp.KeyEvent(kb.Enter))
	c.sees(ctx, `!document.getElementById("twice").open && document.getElementById("entry-text").textContent === "0"`)
	c.run(ctx, chromedp.KeyEvent("12.5"))
	c.sees(ctx, `document.getElementById("twice").open`)
	c.run(ctx, chromedp.Click("#twice .danger"))
	c.sees(ctx, stage("armed"))
	p := c.holder(func(p payment.Payment) bool { return p.TotalFen == 1250 })
	c.scan(signedCode(t, 1, 100000))
	c.cutOff()
	c.sees(ctx, stage("unknown")+` && [...document.querySelectorAll("#actions button")].some(b => b.textContent === "转离线受理店长")`)
	c.run(ctx, chromedp.Click("#actions button:last-child"))
	c.sees(ctx, `document.getElementById("manager").open && document.getElementById("manager-why").textContent.includes("受理后 ¥12.50")`)
	c.sound(ctx, "1366-convert")
	c.run(ctx, chromedp.KeyEvent("wrong"+kb.Enter))
	c.sees(ctx, `document.getElementById("manager-error").textContent !== ""`)
	c.run(ctx, chromedp.SetValue("#manager-token", managerToken), chromedp.Click("#manager-yes"))
	c.sees(ctx, stage("offline")+` && !document.getElementById("manager").open`)
	c.sees(ctx, `document.getElementById("banner").textContent.includes("可扫离线码收款") && document.getElementById("banner").textContent.includes("1 笔 ¥12.50")`)
	c.sound(ctx, "1366-offline")
	if p, err := c.book.ByTradeNo(p.TradeNo); err != nil || p.State != payment.AcceptedOffline {
		t.Errorf("%+v, %v", p.State, err)
	}
}

func TestABouncedPaymentGoesToTheOfficeWithReasonEvidenceAgeAndNextStep(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	c.cutOff()
	paid := c.api(200, "POST", "/v1/trade/pay", fmt.Sprintf(`{"out_trade_no":"S1","total_fen":1250,"auth_code":%q}`, signedCode(t, 1, 100000)))
	no, _ := paid["trade_no"].(string)
	if _, err := c.book.RecordUploads(t.Context(), []string{no}); err != nil {
		t.Fatal(err)
	}
	err := c.book.AnswerUploads(t.Context(), []payment.Answered{{
		TradeNo: no, To: payment.OpUpload, State: payment.Bounced, TotalFen: 1250, Reason: "POLICY_BREACH", Bearer: payment.BearerMerchant,
	}})
	if err != nil {
		t.Fatal(err)
	}
	bounced := c.api(200, "GET", "/v1/trade/S1", "")
	accept, _ := bounced["accept"].(string)
	if bounced["bearer"] != "merchant" || len(accept) < 200 || bounced["next_action"] != "call_support" {
		t.Errorf("%v", bounced)
	}
	ctx := c.browser(1366, 768, "/office")
	c.sees(ctx, `document.getElementById("bounces").textContent.includes("S1") && document.getElementById("bounces").textContent.includes("POLICY_BREACH")`)
	c.sees(ctx, `document.getElementById("bounces").textContent.includes("商户") && document.getElementById("bounces").textContent.includes("0 小时") && document.querySelector("#bounces a").download.endsWith(".accept")`)
	c.shoot(ctx, "office-bounced")
}

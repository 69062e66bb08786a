package ledgersim

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"yupos/devices/paycode"
	"yupos/ledgercache/money"
	"yupos/sync/wire"
)

func pkixName(cn string) pkix.Name {
	return pkix.Name{CommonName: cn, Organization: []string{testMerchant}}
}

func TestAPaymentMovesTheMoneyOnceAndIsAnsweredAgain(t *testing.T) {
	for _, kind := range []string{"ONLINE", "SIGNED"} {
		t.Run(kind, func(t *testing.T) {
			b := newBench(t)
			f := b.connect()
			m := b.payOf(b.code(testPhone, kind), 1250)
			first := f.outcome(m)
			if first.State != wire.StateSuccess || first.PaidFen != 1250 || first.FeeFen != 5 || first.LedgerNo == "" || first.PaidAt == 0 || first.Replayed {
				t.Fatalf("answered %+v", first)
			}
			m.Repeat = true
			again := f.outcome(m)
			first.Replayed = true
			if again != first {
				t.Errorf("the repeat says %+v, want %+v", again, first)
			}
			if got := f.outcome(wire.Query{TradeNo: m.TradeNo}); got.State != wire.StateSuccess || got.LedgerNo != first.LedgerNo {
				t.Errorf("the query says %+v", got)
			}
			if got := b.balance(testPhone); got != openingFen-1250 {
				t.Errorf("the customer has %d fen", got)
			}
			b.sound()
		})
	}
}

func TestDeclinesAreNamed(t *testing.T) {
	b := newBench(t)
	f := b.connect()
	spent := b.code(testPhone, "ONLINE")
	if o := f.outcome(b.payOf(spent, 1)); o.State != wire.StateSuccess {
		t.Fatalf("%+v", o)
	}
	spentSigned := b.code(testPhone, "SIGNED")
	if o := f.outcome(b.payOf(spentSigned, 1)); o.State != wire.StateSuccess {
		t.Fatalf("%+v", o)
	}
	forged := []byte(b.code(testPhone, "SIGNED"))
	swap(forged, len(forged)-10)
	forgedCert := []byte(b.code(testPhone, "SIGNED"))
	swap(forgedCert, 150)
	late := b.payOf(b.code(testPhone, "ONLINE"), 1)
	late.NotAfter = wire.Millis(b.clock.now().Add(-time.Second).UnixMilli())
	cases := []struct {
		name string
		pay  wire.Pay
		want string
	}{
		{"an ONLINE code twice", b.payOf(spent, 1), "CODE_SPENT"},
		{"a SIGNED code twice", b.payOf(spentSigned, 1), "CODE_SPENT"},
		{"a code nobody was given", b.payOf("860000000000000000", 1), "CODE_UNKNOWN"},
		{"a forged wallet signature", b.payOf(wire.Code(forged), 1), "CODE_FORGED"},
		{"a forged certificate", b.payOf(wire.Code(forgedCert), 1), "CERT_FORGED"},
		{"text that is no code", b.payOf("hello", 1), "MALFORMED"},
		{"more than the customer allowed", b.payOf(b.code(testPhone, "SIGNED"), signedMost+1), "OVER_CODE_LIMIT"},
		{"more than there is", b.payOf(b.code("13800000002", "ONLINE"), openingFen+1), "INSUFFICIENT_BALANCE"},
		{"above the class", b.payOf(b.code("13800000002", "ONLINE"), 5000001), "LIMIT_SINGLE"},
		{"after its time", late, "TOO_LATE"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			o := f.outcome(c.pay)
			if o.State != wire.StatePayError || o.Reason != c.want || o.Attempt != 1 {
				t.Errorf("answered %s %s of attempt %d, want PAYERROR %s", o.State, o.Reason, o.Attempt, c.want)
			}
			o.Replayed = true
			if again := f.outcome(c.pay); again != o {
				t.Errorf("the repeat says %+v, want %+v", again, o)
			}
		})
	}
	b.sound()
}

// swap changes one base64 character for another.
func swap(text []byte, at int) {
	if text[at]++; text[at] == 'Z'+1 || text[at] == 'z'+1 || text[at] == '9'+1 || text[at] == '+'+1 || text[at] == '/'+1 {
		text[at] = 'A'
	}
}

func TestCodesExpireByTheLedgersClock(t *testing.T) {
	b := newBench(t)
	f := b.connect()
	for _, kind := range []string{"ONLINE", "SIGNED"} {
		code := b.code(testPhone, kind)
		b.clock.move(62 * time.Second)
		if o := f.outcome(b.payOf(code, 1)); o.Reason != "CODE_EXPIRED" {
			t.Errorf("%s after 62 s: %s %s", kind, o.State, o.Reason)
		}
	}
	code := b.code(testPhone, "SIGNED")
	b.clock.move(-32 * time.Second)
	if o := f.outcome(b.payOf(code, 1)); o.Reason != "CODE_FROM_FUTURE" {
		t.Errorf("made 32 s ahead: %s %s", o.State, o.Reason)
	}
}

func TestAFrozenWalletPaysNothing(t *testing.T) {
	b := newBench(t)
	f := b.connect()
	online, signed := b.code(testPhone, "ONLINE"), b.code(testPhone, "SIGNED")
	b.call("POST", "/_sim/wallets/"+testPhone+"/state", `{"frozen":true}`, nil)
	for _, code := range []wire.Code{online, signed} {
		if o := f.outcome(b.payOf(code, 1)); o.Reason != "WALLET_FROZEN" {
			t.Errorf("a frozen wallet: %s %s", o.State, o.Reason)
		}
	}
	_, code := b.call("POST", "/_sim/wallets/"+testPhone+"/pay", fmt.Sprintf(`{"order_text":%q}`, b.orderText(number(), 100, time.Minute)), nil)
	if code != "WALLET_FROZEN" {
		t.Errorf("an ORDER by a frozen wallet: %s", code)
	}
	b.sound()
}

func TestTheSameNumberWithOtherContentIsRefused(t *testing.T) {
	b := newBench(t)
	f := b.connect()
	m := b.payOf(b.code(testPhone, "ONLINE"), 100)
	f.outcome(m)
	for name, change := range map[string]func(*wire.Pay){
		"amount":       func(p *wire.Pay) { p.TotalFen++ },
		"code":         func(p *wire.Pay) { p.Code = b.code(testPhone, "ONLINE") },
		"register's":   func(p *wire.Pay) { p.OutTradeNo = "other" },
		"next attempt": func(p *wire.Pay) { p.Attempt, p.OutTradeNo = 2, "other" },
	} {
		other := m
		change(&other)
		if code := f.refused(other); code != wire.RefusedIDReused {
			t.Errorf("another %s: %s", name, code)
		}
	}
	if code := f.refused(wire.Reverse{TradeNo: m.TradeNo, TotalFen: 99}); code != wire.RefusedIDReused {
		t.Errorf("a reversal of another amount: %s", code)
	}
	if got := b.balance(testPhone); got != openingFen-100 {
		t.Errorf("the customer has %d fen", got)
	}
	b.sound()
}

func TestAHigherAttemptIsJudgedOnlyAfterADecline(t *testing.T) {
	b := newBench(t)
	f := b.connect()
	m := b.payOf("860000000000000000", 100)
	f.outcome(m)
	second := m
	second.Attempt, second.Code = 3, b.code(testPhone, "ONLINE")
	if o := f.outcome(second); o.State != wire.StateSuccess {
		t.Fatalf("another code after a decline: %+v", o)
	}
	for _, attempt := range []int{2, 4} {
		late := m
		late.Attempt, late.Code = attempt, b.code("13800000002", "ONLINE")
		if o := f.outcome(late); o.State != wire.StateSuccess || !o.Replayed {
			t.Errorf("attempt %d of a paid trade: %+v", attempt, o)
		}
	}
	if got := b.balance("13800000002"); got != openingFen {
		t.Errorf("the second customer was charged: %d", got)
	}
	b.sound()
}

func TestMalformedNumbersAndAmountsAreRefusedAndRecordNothing(t *testing.T) {
	b := newBench(t)
	f := b.connect()
	good := b.payOf(b.code(testPhone, "ONLINE"), 100)
	for name, change := range map[string]func(*wire.Pay){
		"zero":     func(p *wire.Pay) { p.TotalFen = 0 },
		"negative": func(p *wire.Pay) { p.TotalFen = -100 },
		"huge":     func(p *wire.Pay) { p.TotalFen = money.Max + 1 },
		"number":   func(p *wire.Pay) { p.TradeNo = "../" + p.TradeNo },
		"lower":    func(p *wire.Pay) { p.TradeNo = strings.ToLower(p.TradeNo) },
		"attempt":  func(p *wire.Pay) { p.Attempt = 0 },
	} {
		m := good
		change(&m)
		if code := f.refused(m); code != wire.RefusedMalformed {
			t.Errorf("%s: %s", name, code)
		}
	}
	if trades, err := b.Trades(""); err != nil || len(trades) != 0 {
		t.Errorf("recorded %v %v", trades, err)
	}
	if o := f.outcome(good); o.State != wire.StateSuccess {
		t.Errorf("the same number afterwards: %+v", o)
	}
}

func TestAReversalEndsATradeForGood(t *testing.T) {
	b := newBench(t)
	f := b.connect()
	paid := b.payOf(b.code(testPhone, "ONLINE"), 1250)
	f.outcome(paid)
	for range 2 {
		if o := f.outcome(wire.Reverse{TradeNo: paid.TradeNo, TotalFen: 1250, Reason: "NO_ANSWER"}); o.State != wire.StateRevoked || o.Reason != "NO_ANSWER" {
			t.Fatalf("reversing a payment: %+v", o)
		}
		if got := b.balance(testPhone); got != openingFen {
			t.Fatalf("the customer has %d fen", got)
		}
	}
	if o := f.outcome(paid); o.State != wire.StateRevoked {
		t.Errorf("the pay again: %+v", o)
	}
	unheard := b.payOf(b.code(testPhone, "ONLINE"), 100)
	if o := f.outcome(wire.Query{TradeNo: unheard.TradeNo}); o.State != wire.StateNotFound {
		t.Errorf("a query of nothing: %+v", o)
	}
	if o := f.outcome(wire.Reverse{TradeNo: unheard.TradeNo, TotalFen: 100, Reason: "NO_ANSWER"}); o.State != wire.StateClosed {
		t.Errorf("reversing what was never heard of: %+v", o)
	}
	if o := f.outcome(unheard); o.State != wire.StateClosed {
		t.Errorf("the pay that comes after its reversal: %+v", o)
	}
	_, code := b.call("POST", "/_sim/wallets/"+testPhone+"/pay", fmt.Sprintf(`{"order_text":%q}`, b.orderText(unheard.TradeNo, 100, time.Minute)), nil)
	if code != "ORDER_CLOSED" {
		t.Errorf("an ORDER of a closed number: %s", code)
	}
	b.sound()
}

func TestRefundsReturnTheFeeInProportionAndTheRestAtLast(t *testing.T) {
	b := newBench(t)
	f := b.connect()
	m := b.payOf(b.code(testPhone, "ONLINE"), 1000) // fee 3.8 → 4
	f.outcome(m)
	part := func(fen money.Fen) wire.Refund {
		no := number()
		return wire.Refund{RefundNo: no, OutRefundNo: "R" + no, TradeNo: m.TradeNo, RefundFen: fen}
	}
	var back money.Fen
	for _, c := range []struct{ fen, fee, sum money.Fen }{{333, 1, 333}, {333, 1, 666}, {334, 2, 1000}} {
		ask := part(c.fen)
		got := f.refund(ask)
		if got.State != wire.RefundSuccess || got.FeeBackFen != c.fee || got.RefundedFen != c.sum {
			t.Fatalf("refund of %d: %+v", c.fen, got)
		}
		ask.Repeat = true
		got.Replayed = true
		if again := f.refund(ask); again != got {
			t.Errorf("the repeat says %+v", again)
		}
		ask.RefundFen--
		if code := f.refused(ask); code != wire.RefusedIDReused {
			t.Errorf("the same number with another amount: %s", code)
		}
		back += got.FeeBackFen
		b.sound()
	}
	if back != 4 {
		t.Errorf("%d fen of the fee of 4 came back", back)
	}
	if got := f.refund(part(1)); got.State != wire.RefundFailed || got.Reason != "REFUND_OVER_PAID" {
		t.Errorf("one fen too much: %+v", got)
	}
	if o := f.outcome(wire.Reverse{TradeNo: m.TradeNo, TotalFen: 1000}); o.State != wire.StateSuccess || o.RefundedFen != 1000 {
		t.Errorf("reversing what was refunded: %+v", o)
	}
	if got := b.balance(testPhone); got != openingFen {
		t.Errorf("the customer has %d fen", got)
	}
	b.sound()
}

func TestAnUnpaidTradeIsNotRefunded(t *testing.T) {
	b := newBench(t)
	f := b.connect()
	m := b.payOf("860000000000000000", 1000)
	f.outcome(m)
	if got := f.refund(wire.Refund{RefundNo: number(), TradeNo: m.TradeNo, RefundFen: 1}); got.State != wire.RefundFailed || got.Reason != "NOT_PAID" {
		t.Errorf("%+v", got)
	}
	if got := f.refund(wire.Refund{RefundNo: number(), TradeNo: number(), RefundFen: 1}); got.State != wire.RefundFailed || got.Reason != wire.RefusedUnknownTrade {
		t.Errorf("%+v", got)
	}
}

func TestLargePaymentsWaitForTheCustomer(t *testing.T) {
	b := newBench(t)
	f := b.connect()
	ask := func() wire.Pay {
		t.Helper()
		m := b.payOf(b.code(testPhone, "ONLINE"), 100001)
		if o := f.outcome(m); o.State != wire.StateUserPaying {
			t.Fatalf("¥1,000.01 by an ONLINE code: %+v", o)
		}
		return m
	}
	confirm := func(pin string) string {
		_, code := b.call("POST", "/_sim/wallets/"+testPhone+"/confirm", `{"pin":"`+pin+`"}`, nil)
		return code
	}
	lapsed := ask()
	b.clock.move(46 * time.Second)
	if code := confirm(testPIN); code != "NOTHING_TO_CONFIRM" {
		t.Errorf("confirming after 46 s: %q", code)
	}
	if o := f.outcome(wire.Query{TradeNo: lapsed.TradeNo}); o.State != wire.StatePayError || o.Reason != "CONFIRM_TIMEOUT" || o.Attempt != 1 {
		t.Errorf("after 46 s: %+v", o)
	}
	closed := ask()
	if o := f.outcome(wire.Reverse{TradeNo: closed.TradeNo, TotalFen: 100001}); o.State != wire.StateClosed {
		t.Errorf("reversed while waiting: %+v", o)
	}
	if code := confirm(testPIN); code != "NOTHING_TO_CONFIRM" {
		t.Errorf("confirming what was reversed: %q", code)
	}
	m := ask()
	if code := confirm("000000"); code != "WRONG_PIN" {
		t.Errorf("a wrong PIN: %q", code)
	}
	if code := confirm(testPIN); code != "" {
		t.Errorf("the PIN: %q", code)
	}
	if r := f.push(); r.Sequence != 1 || r.Outcome.TradeNo != m.TradeNo || r.Outcome.State != wire.StateSuccess || r.Outcome.PaidFen != 100001 {
		t.Errorf("news %+v", r)
	}
	b.sound()
}

func TestAnOrderIsPaidWhetherTheLedgerHeardOfItOrNot(t *testing.T) {
	b := newBench(t)
	f := b.connect()
	for i, heard := range []bool{true, false} {
		no := number()
		if heard {
			o := f.outcome(wire.Order{TradeNo: no, OutTradeNo: "T" + no, TotalFen: 4200, ExpiresAt: wire.Millis(b.clock.now().Add(time.Minute).UnixMilli())})
			if o.State != wire.StateNotPay {
				t.Fatalf("registered: %+v", o)
			}
		}
		text := b.orderText(no, 4200, time.Minute)
		var paid paidOrder
		if status, code := b.call("POST", "/_sim/wallets/"+testPhone+"/pay", fmt.Sprintf(`{"order_text":%q}`, text), &paid); status != 200 {
			t.Fatalf("paying: %d %s", status, code)
		}
		r, no2 := paycode.VerifyReceipt(paid.ReceiptText, paycode.Keys{{Public: publicOf(b.role["receipt"])}}, b.clock.now())
		if no2 != "" || r.Order != no || r.TerminalID != testTerminal || r.AmountFen != 4200 || r.PaidFen != 4200 {
			t.Errorf("receipt %+v %s", r, no2)
		}
		if len(paid.Digits) != 8 || paid.Merchant != "渝中小面" {
			t.Errorf("answered digits %q, shop %q", paid.Digits, paid.Merchant)
		}
		if n := f.push(); n.Sequence != uint64(i+1) || n.Outcome.State != wire.StateSuccess || n.Outcome.TradeNo != no || n.Outcome.LedgerNo != r.Payment {
			t.Errorf("news %+v", n)
		}
		if _, code := b.call("POST", "/_sim/wallets/13800000002/pay", fmt.Sprintf(`{"order_text":%q}`, text), nil); code != "ORDER_PAID" {
			t.Errorf("a second customer: %q", code)
		}
	}
	b.sound()
}

func TestOrdersThatMayNotBePaidAreNamed(t *testing.T) {
	b := newBench(t)
	f := b.connect()
	known := number()
	f.outcome(wire.Order{TradeNo: known, TotalFen: 100})
	good := b.orderText(number(), 100, time.Minute)
	for _, c := range []struct{ name, text, pin, want string }{
		{"expired", b.orderText(number(), 100, -2*time.Second), "", "ORDER_EXPIRED"},
		{"too far ahead", b.orderText(number(), 100, 11*time.Minute), "", "ORDER_EXPIRY_TOO_FAR"},
		{"another amount", b.orderText(known, 101, time.Minute), "", "ORDER_CONFLICT"},
		{"no code", "hello", "", "MALFORMED"},
		{"nothing", "", "", "MALFORMED"},
		{"cut off", good[:len(good)-1], "", "MALFORMED"},
		{"large without the PIN", b.orderText(number(), 100001, time.Minute), "", "PIN_REQUIRED"},
		{"large with a wrong PIN", b.orderText(number(), 100001, time.Minute), "000000", "WRONG_PIN"},
		{"more than there is", b.orderText(number(), 500001, time.Minute), testPIN, "INSUFFICIENT_BALANCE"},
	} {
		if _, code := b.call("POST", "/_sim/wallets/"+testPhone+"/pay", fmt.Sprintf(`{"order_text":%q,"pin":%q}`, c.text, c.pin), nil); code != c.want {
			t.Errorf("%s: %q, want %s", c.name, code, c.want)
		}
	}
	b.call("POST", "/_sim/wallets/"+testPhone+"/state", `{"online":false}`, nil)
	if _, code := b.call("POST", "/_sim/wallets/"+testPhone+"/pay", fmt.Sprintf(`{"order_text":%q}`, good), nil); code != "PHONE_OFFLINE" {
		t.Errorf("an offline phone: %q", code)
	}
	if _, code := b.call("POST", "/_sim/wallets/"+testPhone+"/code", `{"kind":"ONLINE"}`, nil); code != "PHONE_OFFLINE" {
		t.Errorf("an ONLINE code of an offline phone: %q", code)
	}
	b.sound()
}

func TestAnOfflinePhoneStillMakesSignedCodes(t *testing.T) {
	b := newBench(t)
	f := b.connect()
	b.code(testPhone, "SIGNED") // the certificate came while it was online
	b.call("POST", "/_sim/wallets/"+testPhone+"/state", `{"online":false}`, nil)
	if o := f.outcome(b.payOf(b.code(testPhone, "SIGNED"), 100)); o.State != wire.StateSuccess {
		t.Errorf("%+v", o)
	}
}

func TestNewsAreRepeatedAfterTheHelloUntilTheyAreInTheBook(t *testing.T) {
	b := newBench(t)
	var numbers []string
	for range 3 { // nobody is connected
		no := number()
		numbers = append(numbers, no)
		if _, code := b.call("POST", "/_sim/wallets/"+testPhone+"/pay", fmt.Sprintf(`{"order_text":%q}`, b.orderText(no, 100, time.Minute)), nil); code != "" {
			t.Fatal(code)
		}
	}
	for _, cursor := range []uint64{0, 0, 2} {
		f := b.dial()
		w, ok := f.ask(helloOf(0, "", cursor)).(*wire.Welcome)
		if !ok || w.NewsSequence != 3 {
			t.Fatalf("welcome %+v", w)
		}
		for i := cursor; i < 3; i++ {
			if r := f.push(); r.Sequence != i+1 || r.Outcome.TradeNo != numbers[i] {
				t.Errorf("news %+v, want %d", r, i+1)
			}
		}
		f.send(wire.Ack{News: 3})
		f.outcome(wire.Query{TradeNo: numbers[0]}) // the line goes on after an acknowledgement, which has no answer
	}
	f := b.dial()
	f.ask(helloOf(0, "", 3))
	f.outcome(wire.Query{TradeNo: numbers[0]})
	if len(f.news) != 0 {
		t.Errorf("news that the book has came again: %+v", f.news)
	}
}

func TestBooksThatAreOlderOrParallelAreRefused(t *testing.T) {
	b := newBench(t)
	head := func(c string) string { return strings.Repeat(c, 64) }
	f := b.connect()
	anchor := wire.Anchor{Epoch: helloOf(0, "", 0).Epoch, Sequence: 10, Head: head("a")}
	if got, ok := f.ask(anchor).(*wire.Anchored); !ok || got.Sequence != 10 || got.Head != anchor.Head {
		t.Fatalf("anchored %+v", got)
	}
	older := anchor
	older.Sequence = 9
	if code := f.refused(older); code != wire.RefusedRolledBack {
		t.Errorf("an older anchor: %s", code)
	}
	b.stop()
	b.start() // what was anchored is durable
	next := helloOf(0, "", 0)
	next.Epoch = "01J00000000000000000000002"
	for _, c := range []struct {
		name  string
		hello wire.Hello
		want  string
	}{
		{"older", helloOf(9, head("a"), 0), wire.RefusedRolledBack},
		{"parallel", helloOf(10, head("b"), 0), wire.RefusedForked},
		{"the same", helloOf(10, head("a"), 0), ""},
		{"newer", helloOf(11, head("c"), 0), ""},
		{"a new epoch", next, ""},
		{"the epoch before", helloOf(12, head("d"), 0), wire.RefusedRolledBack},
		{"the new epoch again", next, ""},
	} {
		f := b.dial()
		switch got := f.ask(c.hello).(type) {
		case *wire.Refused:
			if got.Code != c.want {
				t.Errorf("%s: refused %s, want %q", c.name, got.Code, c.want)
			}
		case *wire.Welcome:
			if c.want != "" {
				t.Errorf("%s: welcome, want %s", c.name, c.want)
			}
			if c.name == "the same" && (got.AckedSequence != 10 || got.AckedHead != head("a")) {
				t.Errorf("welcome %+v", got)
			}
		}
	}
}

func TestOnlyTheTerminalItselfIsLetIn(t *testing.T) {
	b := newBench(t)
	hello := func(c *tls.Config, h wire.Hello) any {
		f, err := b.dialWith(c)
		if err != nil {
			return err
		}
		f.send(h)
		_, body, err := f.next(5 * time.Second)
		if err != nil {
			return err
		}
		return body
	}
	bare, old, stranger, other, stolen := b.tls(), b.tls(), b.tls(), b.tls(), b.tls()
	bare.Certificates = nil
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	stranger.Certificates = []tls.Certificate{strangerCert(t)}
	other.Certificates = []tls.Certificate{certOf(t, b.ca, "10000002")}
	stolen.Certificates = []tls.Certificate{certOf(t, b.ca, testTerminal)} // right name, but not the enrolled key
	for name, c := range map[string]*tls.Config{"no certificate": bare, "TLS 1.2": old, "another authority": stranger} {
		if err, failed := hello(c, helloOf(0, "", 0)).(error); !failed {
			t.Errorf("%s: let in (%v)", name, err)
		}
	}
	for name, c := range map[string]*tls.Config{"another name": other, "another key": stolen} {
		if r, ok := hello(c, helloOf(0, "", 0)).(*wire.Refused); !ok || r.Code != wire.RefusedNotYou {
			t.Errorf("%s: %+v", name, r)
		}
	}
	wrong := helloOf(0, "", 0)
	wrong.MerchantID = "653000053310002"
	if r, ok := hello(b.tls(), wrong).(*wire.Refused); !ok || r.Code != wire.RefusedNotYou {
		t.Errorf("another merchant: %+v", r)
	}
	f := b.dial()
	if code := f.refused(wire.Query{TradeNo: number()}); code != wire.RefusedMalformed {
		t.Errorf("no hello first: %s", code)
	}
}

func TestUnknownAndMalformedMessagesAreRefusedAndTheLineGoesOn(t *testing.T) {
	b := newBench(t)
	f := b.connect()
	for text, want := range map[string]string{
		`{"type":"dance","id":7,"body":{}}`:             wire.RefusedUnknownType,
		`{"type":"pay","id":7,"body":{"total_fen":""}}`: wire.RefusedMalformed,
		`not json`:                            wire.RefusedMalformed,
		`{"type":"welcome","id":7,"body":{}}`: wire.RefusedUnknownType,
	} {
		f.ws.WriteMessage(websocket.TextMessage, []byte(text))
		_, body, err := f.next(5 * time.Second)
		if r, ok := body.(*wire.Refused); err != nil || !ok || r.Code != want {
			t.Errorf("%s: %+v %v", text, body, err)
		}
	}
	f.outcome(wire.Query{TradeNo: number()})
	f.ws.WriteMessage(websocket.TextMessage, []byte(strings.Repeat("x", wire.MaxFrame+1)))
	if _, _, err := f.next(5 * time.Second); err == nil {
		t.Error("a frame that is too long did not end the line")
	}
}

func TestANewerConnectionReplacesTheOlder(t *testing.T) {
	b := newBench(t)
	first := b.connect()
	second := b.connect()
	if _, _, err := first.next(5 * time.Second); err == nil {
		t.Error("the older connection lives on")
	}
	second.outcome(wire.Query{TradeNo: number()})
}

func TestTwentySendersOfOnePaymentHaveOneEffect(t *testing.T) {
	b := newBench(t)
	m := b.payOf(b.code(testPhone, "ONLINE"), 100)
	answers := make([]any, 20)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() { answers[i] = b.reply(testTerminal, &m) })
	}
	all.Wait()
	fresh := 0
	for _, a := range answers {
		o, ok := a.(wire.Outcome)
		if !ok || o.State != wire.StateSuccess {
			t.Fatalf("answered %+v", a)
		}
		if !o.Replayed {
			fresh++
		}
	}
	if got := b.balance(testPhone); fresh != 1 || got != openingFen-100 {
		t.Errorf("%d payments, the customer has %d fen", fresh, got)
	}
	b.sound()
}

func TestARestartForgetsNothing(t *testing.T) {
	b := newBench(t)
	f := b.connect()
	paid, declined := b.payOf(b.code(testPhone, "SIGNED"), 700), b.payOf("860000000000000000", 700)
	first, second := f.outcome(paid), f.outcome(declined)
	asked := wire.Refund{RefundNo: number(), TradeNo: paid.TradeNo, RefundFen: 200}
	refunded := f.refund(asked)
	unused := b.code(testPhone, "ONLINE")
	before, err := b.Trades(testTerminal)
	if err != nil {
		t.Fatal(err)
	}
	b.stop()
	b.start()
	f = b.connect()
	first.Replayed, second.Replayed, refunded.Replayed = true, true, true
	first.RefundedFen = 200
	if got := f.outcome(paid); got != first {
		t.Errorf("the payment: %+v, want %+v", got, first)
	}
	if got := f.outcome(declined); got != second {
		t.Errorf("the decline: %+v, want %+v", got, second)
	}
	if got := f.refund(asked); got != refunded {
		t.Errorf("the refund: %+v, want %+v", got, refunded)
	}
	if got, err := b.Trades(testTerminal); err != nil || fmt.Sprint(len(got), got[0].TradeNo, got[0].State) != fmt.Sprint(len(before), before[0].TradeNo, before[0].State) {
		t.Errorf("trades %+v, were %+v", got, before)
	}
	if o := f.outcome(b.payOf(unused, 1)); o.State != wire.StateSuccess {
		t.Errorf("a code shown before: %+v", o)
	}
	if b.code(testPhone, "ONLINE") == unused {
		t.Error("a restart repeats a code")
	}
	b.sound()
}

func TestFaultsDoWhatTheySay(t *testing.T) {
	b := newBench(t)
	f := b.connect()
	fault := func(op, action string) {
		t.Helper()
		if status, code := b.call("POST", "/_sim/faults", fmt.Sprintf(`{"op":%q,"action":%q,"times":1}`, op, action), nil); status != 200 {
			t.Fatal(code)
		}
	}
	fault("pay", "decline")
	if o := f.outcome(b.payOf(b.code(testPhone, "ONLINE"), 100)); o.Reason != "DECLINED" {
		t.Errorf("decline: %+v", o)
	}
	fault("pay", "error")
	m := b.payOf(b.code(testPhone, "ONLINE"), 100)
	if code := f.refused(m); code != wire.RefusedInternal {
		t.Errorf("error: %s", code)
	}
	fault("pay", "drop_request")
	f.send(m)
	if o := f.outcome(wire.Query{TradeNo: m.TradeNo}); o.State != wire.StateNotFound {
		t.Errorf("after a dropped request: %+v", o)
	}
	fault("pay", "duplicate")
	id := f.send(m)
	for i := range 2 {
		if o, ok := f.answerTo(id).(*wire.Outcome); !ok || o.State != wire.StateSuccess {
			t.Errorf("answer %d of a duplicate: %+v", i, o)
		}
	}
	fault("refund", "drop_reply")
	r := wire.Refund{RefundNo: number(), TradeNo: m.TradeNo, RefundFen: 40}
	f.send(r)
	for { // the message without an answer is worked on beside the next one
		if o := f.outcome(wire.Query{TradeNo: m.TradeNo}); o.RefundedFen == 40 {
			break
		}
	}
	if got := f.refund(r); got.State != wire.RefundSuccess || !got.Replayed {
		t.Errorf("after a dropped reply: %+v", got)
	}
	if status, code := b.call("POST", "/_sim/faults", `{"op":"pay","action":"explode"}`, nil); status != 400 || code != "BAD_FAULT" {
		t.Errorf("an unknown action: %d %s", status, code)
	}
	b.sound()
}

func TestALinkThatIsDownLetsNobodyIn(t *testing.T) {
	b := newBench(t)
	f := b.connect()
	b.call("POST", "/_sim/link", `{"up":false}`, nil)
	if _, _, err := f.next(5 * time.Second); err == nil {
		t.Error("the connection lives on")
	}
	if _, err := b.dialWith(b.tls()); err == nil {
		t.Error("a new connection was let in")
	}
	b.call("POST", "/_sim/link", `{"up":true}`, nil)
	b.connect().outcome(wire.Query{TradeNo: number()})
}

func TestLossCutsTheConnectionWithoutAnEffect(t *testing.T) {
	b := newBench(t)
	f := b.connect()
	b.call("POST", "/_sim/link", `{"loss":1}`, nil)
	m := b.payOf(b.code(testPhone, "ONLINE"), 100)
	f.send(m)
	if _, _, err := f.next(5 * time.Second); err == nil {
		t.Error("the message was answered")
	}
	b.call("POST", "/_sim/link", `{"loss":0}`, nil)
	if o := b.connect().outcome(m); o.State != wire.StateSuccess || o.Replayed {
		t.Errorf("%+v", o)
	}
}

func TestTheControlAPIIsStrict(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"POST", "/_sim/wallets/13800000001/code", `{"kind":"ONLINE","x":1}`, 400, "MALFORMED_REQUEST"},
		{"POST", "/_sim/wallets/13800000001/code", `{"kind":"GOLD"}`, 400, "UNKNOWN_KIND"},
		{"POST", "/_sim/wallets/13800000001/code", `[`, 400, "MALFORMED_REQUEST"},
		{"POST", "/_sim/wallets/13900000001/code", `{"kind":"ONLINE"}`, 404, "WALLET_UNKNOWN"},
		{"GET", "/_sim/wallets/13900000001", ``, 404, "WALLET_UNKNOWN"},
		{"POST", "/_sim/link", `{"loss":2}`, 400, "MALFORMED_REQUEST"},
		{"GET", "/_sim/nothing", ``, 404, "NOT_FOUND"},
	} {
		if status, code := b.call(c.method, c.path, c.body, nil); status != c.status || code != c.code {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, status, code)
		}
	}
	var all []walletView
	if status, _ := b.call("GET", "/_sim/wallets", "", &all); status != 200 || len(all) != 4 {
		t.Fatalf("%d customers", len(all))
	}
	for _, w := range all {
		if w.BalanceFen != openingFen || w.PIN == "" || w.Name == "" || !w.Online || w.Frozen || w.Coupons == nil {
			t.Errorf("%+v", w)
		}
	}
	var a Assertion
	if status, _ := b.call("GET", "/_sim/ledger/assert", "", &a); status != 200 || !a.OK || a.Violations == nil {
		t.Errorf("%+v", a)
	}
}

func TestThePhoneSeesWhomItPaysAndDrawsItsCodes(t *testing.T) {
	b := newBench(t)
	body := fmt.Sprintf(`{"order_text":%q}`, b.orderText(number(), 100001, time.Minute))
	var seen seenOrder
	if status, code := b.call("POST", "/_sim/wallets/"+testPhone+"/look", body, &seen); status != 200 || seen != (seenOrder{"渝中小面", 100001, true}) {
		t.Errorf("%d %s %+v", status, code, seen)
	}
	if trades, err := b.Trades(""); err != nil || len(trades) != 0 {
		t.Errorf("looking recorded %v %v", trades, err)
	}
	w := httptest.NewRecorder()
	b.Handler().ServeHTTP(w, httptest.NewRequest("POST", "/_sim/picture", strings.NewReader(fmt.Sprintf(`{"text":%q}`, b.code(testPhone, "SIGNED")))))
	if w.Code != 200 || !strings.Contains(w.Body.String(), "<svg") || w.Header().Get("Content-Type") != "image/svg+xml" {
		t.Errorf("%d %.80s", w.Code, w.Body)
	}
	if status, code := b.call("POST", "/_sim/picture", `{"text":""}`, nil); status != 400 || code != "MALFORMED_REQUEST" {
		t.Errorf("nothing to draw: %d %s", status, code)
	}
	for _, path := range []string{"/phone/", "/phone/phone.js", "/phone/phone.css"} {
		w := httptest.NewRecorder()
		b.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != 200 || strings.Contains(w.Body.String(), "http://") && path != "/phone/" || strings.Contains(w.Body.String(), "https://") {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

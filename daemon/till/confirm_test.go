package till

import (
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	"yupos/devices/display"
	"yupos/devices/paycode"
	"yupos/ledgercache"
	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
)

var receiptKey = ed25519.NewKeyFromSeed([]byte("ledger-ledger-ledger-ledger-0000"))

// pinReceipts lets the till believe the test's own ledger.
func (c *counter) pinReceipts() {
	public, ok := receiptKey.Public().(ed25519.PublicKey)
	if !ok {
		c.t.Fatal("no public key")
	}
	c.o.Receipts = func(now time.Time) paycode.Keys {
		return paycode.Keys{{Public: public, NotBefore: uint32(now.Unix() - 1000), NotAfter: uint32(now.Unix() + 1000)}}
	}
}

func (c *counter) order(outTradeNo string, fen money.Fen) payment.Payment {
	c.t.Helper()
	p, _, err := c.Precreate(c.ctx, Sale{OutTradeNo: outTradeNo, TotalFen: fen})
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

// receiptOf is the RECEIPT that the ledger signs for p, spoiled first if spoil is not nil.
func (c *counter) receiptOf(p payment.Payment, spoil func(*paycode.Receipt)) string {
	c.t.Helper()
	r := paycode.Receipt{
		Order: p.TradeNo, TerminalID: shop.TerminalID, AmountFen: p.TotalFen, PaidFen: p.TotalFen, PaidAt: uint32(c.clock.now().Unix()),
		Payment: "01KASF3NAZ0123456789ABCDEF",
	}
	if spoil != nil {
		spoil(&r)
	}
	text, err := paycode.MakeReceipt(r, receiptKey)
	if err != nil {
		c.t.Fatal(err)
	}
	return text
}

func refusedAs(t *testing.T, err error, want payment.Reason) {
	t.Helper()
	var refused *Refusal
	if !errors.As(err, &refused) || refused.Reason != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestAScannedReceiptSettlesItsOrderWhateverTheCounterDoes(t *testing.T) {
	c := newCounter(t)
	c.pinReceipts()
	c.line.down.Store(true)
	c.run()
	p := c.order("A1", 1250)
	c.shows(display.Code)
	text := c.receiptOf(p, nil)
	c.scan(text, c.clock.now())
	c.shows(display.Paid)
	if p = c.trade("A1"); p.State != payment.Success || p.Path != payment.Receipt || !p.Open() {
		t.Fatalf("%+v", p)
	}
	c.scan(text, c.clock.now())
	c.scan(text, c.clock.now())
	if p = c.trade("A1"); p.Copies != 1 {
		t.Errorf("shown three times: %+v", p)
	}
}

func TestAReceiptThatDoesNotFitIsRefusedByName(t *testing.T) {
	c := newCounter(t)
	c.pinReceipts()
	p, other := c.order("A1", 1250), payment.Payment{}
	if _, err := c.Cancel(c.ctx, "A1", ""); err != nil {
		t.Fatal(err)
	}
	other = c.order("A2", 1250)
	for name, bad := range map[string]struct {
		text string
		want payment.Reason
	}{
		"damaged":          {c.receiptOf(p, nil)[1:], "MALFORMED"},
		"another terminal": {c.receiptOf(p, func(r *paycode.Receipt) { r.TerminalID = "10000002" }), "NOT_MY_ORDER"},
		"another order":    {c.receiptOf(other, nil), "NOT_MY_ORDER"},
	} {
		_, err := c.ConfirmReceipt(c.ctx, "A1", bad.text)
		t.Run(name, func(t *testing.T) { refusedAs(t, err, bad.want) })
	}
	c.o.Receipts = func(time.Time) paycode.Keys { return nil }
	_, err := c.ConfirmReceipt(c.ctx, "A1", c.receiptOf(p, nil))
	refusedAs(t, err, "UNKNOWN_LEDGER_KEY")
	c.pinReceipts()
	for no, want := range map[string]payment.State{"A1": payment.Unknown, "A2": payment.NotPay} {
		if got := c.trade(no); got.State != want {
			t.Errorf("%s is %s", no, got.State)
		}
	}
	_, err = c.ConfirmReceipt(c.ctx, "A2", c.receiptOf(other, func(r *paycode.Receipt) { r.AmountFen, r.PaidFen = 1249, 1249 }))
	refusedAs(t, err, "AMOUNT_MISMATCH")
	if got := c.trade("A2"); !got.Reversing {
		t.Errorf("nobody gives the money back: %+v", got)
	}
}

func TestAReceiptOfACancelledOrderClosesTheSaleThatWasMadeAgain(t *testing.T) {
	c := newCounter(t)
	c.pinReceipts()
	c.line.down.Store(true)
	p := c.order("A1", 1250)
	if _, err := c.Cancel(c.ctx, "A1", ""); err != nil {
		t.Fatal(err)
	}
	c.clock.pass(time.Second)
	c.pay(Sale{OutTradeNo: "A2", TotalFen: 1250}) // made again, at the scanner
	if p, err := c.ConfirmReceipt(c.ctx, "", c.receiptOf(p, nil)); err != nil || p.State != payment.Success {
		t.Fatalf("%s, %v", p.State, err)
	}
	if again := c.trade("A2"); again.State != payment.Closed || c.holds() != "" {
		t.Errorf("the sale made again is %s", again.State)
	}
}

func TestTypedDigitsSettleUpToTheirLimit(t *testing.T) {
	c := newCounter(t)
	c.o.Secret = [32]byte{9}
	p := c.order("A1", 1250)
	right, err := paycode.Digits(c.o.Secret, shop.TerminalID, p.TradeNo, p.TotalFen)
	if err != nil {
		t.Fatal(err)
	}
	wrong := "00000000"
	if right == wrong {
		wrong = "00000001"
	}
	_, err = c.ConfirmDigits(c.ctx, "A1", wrong, "op1")
	refusedAs(t, err, "WRONG_DIGITS")
	for range 2 { // the second time it is settled already
		if p, err = c.ConfirmDigits(c.ctx, "A1", right, "op1"); err != nil || p.State != payment.Success || p.Evidence != payment.ByDigits {
			t.Fatalf("%+v, %v", p, err)
		}
	}
	big := c.order("A2", payment.DefaultLimits.DigitsFen+1)
	_, err = c.ConfirmDigits(c.ctx, "A2", right, "op1")
	refusedAs(t, err, "OVER_DIGITS_LIMIT")
	if got := c.trade("A2"); got.DigitTries != 0 {
		t.Errorf("a try was counted: %+v", big)
	}
	if _, err := c.Cancel(c.ctx, "A2", ""); err != nil {
		t.Fatal(err)
	}
	c.order("A3", 1250)
	for range 3 {
		_, err = c.ConfirmDigits(c.ctx, "A3", wrong, "op1")
		refusedAs(t, err, "WRONG_DIGITS")
	}
	_, err = c.ConfirmDigits(c.ctx, "A3", wrong, "op1")
	refusedAs(t, err, "DIGITS_LOCKED")
}

func TestAnExpiredOrderIsShownAgainUnderItsNumberWithALaterExpiry(t *testing.T) {
	c := newCounter(t)
	c.pinReceipts()
	c.line.down.Store(true)
	c.run()
	first := c.order("A1", 1250)
	same, replayed, err := c.Precreate(c.ctx, Sale{OutTradeNo: "A1", TotalFen: 1250})
	if err != nil || !replayed || same.OrderText != first.OrderText {
		t.Fatalf("a repeat while it shows: %+v, %v", same, err)
	}
	c.clock.pass(payment.OrderFor)
	c.wake()
	c.until("expired", func() bool { return c.trade("A1").State == payment.Unknown })
	again, replayed, err := c.Precreate(c.ctx, Sale{OutTradeNo: "A1", TotalFen: 1250})
	if err != nil || !replayed || again.TradeNo != first.TradeNo || again.TotalFen != first.TotalFen || again.State != payment.NotPay ||
		!again.ExpiresAt.After(first.ExpiresAt) || again.OrderText == first.OrderText || c.holds() != first.TradeNo {
		t.Fatalf("%+v, %v", again, err)
	}
	if _, _, err := c.Precreate(c.ctx, Sale{OutTradeNo: "A1", TotalFen: 1251}); !errors.Is(err, ledgercache.ErrOutTradeNoUsed) {
		t.Errorf("another amount: %v", err)
	}
	// The customer paid the first code late, or the second: one receipt settles the one order.
	p, err := c.ConfirmReceipt(c.ctx, "A1", c.receiptOf(again, nil))
	if err != nil || p.State != payment.Success {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestAnOrderThatIsBeingReversedIsNotShownAgain(t *testing.T) {
	c := newCounter(t)
	c.line.down.Store(true)
	c.order("A1", 1250)
	if _, err := c.Cancel(c.ctx, "A1", "anna"); err != nil {
		t.Fatal(err)
	}
	p, replayed, err := c.Precreate(c.ctx, Sale{OutTradeNo: "A1", TotalFen: 1250})
	if err != nil || !replayed || p.State != payment.Unknown || !p.Reversing {
		t.Errorf("%+v, %v", p, err)
	}
}

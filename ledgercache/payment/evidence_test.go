package payment

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"yupos/ledgercache/money"
)

func sentSigned() Event {
	return Submitted{TradeNo: trade, Code: "signed", Spent: []byte{1}, Wallet: []byte{2}, ScannedAt: t0.Add(time.Second), NotAfter: t0.Add(61 * time.Second)}
}

func accepted() Event {
	return Accepted{TradeNo: trade, Code: "signed", Spent: []byte{1}, Wallet: []byte{2}, ScannedAt: t0, Accept: []byte{3}}
}

func receipt() ReceiptShown {
	return ReceiptShown{TradeNo: trade, LedgerNo: "L1", TotalFen: 1250, PaidFen: 1150, PaidAt: t0.Add(time.Second)}
}

func TestEvidenceMovesOnlyWhatItProves(t *testing.T) {
	typed := DigitsTyped{TradeNo: trade}
	uploaded := says(Success)
	uploaded.To, uploaded.LedgerNo = OpUpload, "L1"
	asked := says(Success)
	asked.To, asked.LedgerNo = OpQuery, "L1"
	bounced := Answered{TradeNo: trade, To: OpUpload, State: Bounced, Reason: "POLICY_BREACH", Bearer: BearerMerchant}
	revoked := Answered{TradeNo: trade, To: OpUpload, State: Revoked}
	wish, withdrawn := CancelWanted{TradeNo: trade}, Withdrawn{TradeNo: trade}
	for name, c := range map[string]struct {
		mode  Mode
		after []Event
		want  map[string]string
	}{
		"a code, line down": {ByCode, nil, map[string]string{"accept": "ACCEPTED_OFFLINE", "receipt": "!", "type": "!", "match": "!", "withdraw": "!"}},
		"armed counter":     {AtCounter, nil, map[string]string{"accept": "ACCEPTED_OFFLINE", "receipt": "!"}},
		"sent, SIGNED":      {ByCode, []Event{sentSigned()}, map[string]string{"accept": "ACCEPTED_OFFLINE", "upload": "!"}},
		"sent, ONLINE":      {ByCode, []Event{sent()}, map[string]string{"accept": "!"}},
		"reversal wanted":   {ByCode, []Event{sentSigned(), wish}, map[string]string{"accept": "!"}},
		"reversal started":  {ByCode, []Event{sentSigned(), asks(OpReverse)}, map[string]string{"accept": "!"}},
		"accepted": {ByCode, []Event{accepted()}, map[string]string{
			"accept": "!", "upload": "ACCEPTED_OFFLINE", "uploaded": "SUCCESS", "bounced": "BOUNCED", "revoked": "?", "withdraw": "ACCEPTED_OFFLINE",
			"cancel": "!", "query": "!", "reverse": "!", "pay": "!", "receipt": "!", "notfound": "=", "decline": "="}},
		"converted": {ByCode, []Event{sentSigned(), accepted()}, map[string]string{
			"upload": "ACCEPTED_OFFLINE", "paid online after all": "SUCCESS", "withdraw": "!", "reverse": "!"}},
		"upload on its way": {ByCode, []Event{accepted(), asks(OpUpload)}, map[string]string{
			"upload": "ACCEPTED_OFFLINE", "withdraw": "!", "uploaded": "SUCCESS", "bounced": "BOUNCED"}},
		"withdrawn": {ByCode, []Event{accepted(), withdrawn}, map[string]string{
			"withdraw": "=", "upload": "ACCEPTED_OFFLINE", "revoked": "REVOKED", "uploaded": "?"}},
		"withdrawn and uploaded": {ByCode, []Event{accepted(), withdrawn, asks(OpUpload), revoked}, map[string]string{"revoked": "=", "upload": "!", "withdraw": "!"}},
		"bounced":                {ByCode, []Event{accepted(), bounced}, map[string]string{"bounced": "=", "uploaded": "?", "upload": "!", "withdraw": "!"}},
		"shown order": {ByOrder, nil, map[string]string{
			"accept": "!", "receipt": "SUCCESS", "refuse": "UNKNOWN", "type": "NOTPAY", "match": "!"}},
		"cancelled order":           {ByOrder, []Event{wish}, map[string]string{"receipt": "SUCCESS", "type": "UNKNOWN"}},
		"order being reversed":      {ByOrder, []Event{wish, asks(OpReverse)}, map[string]string{"receipt": "!", "type": "!", "match": "!", "refuse": "="}},
		"digits typed":              {ByOrder, []Event{typed}, map[string]string{"match": "SUCCESS", "type": "NOTPAY", "receipt": "SUCCESS"}},
		"three tries":               {ByOrder, []Event{typed, typed, typed}, map[string]string{"type": "!", "match": "SUCCESS", "receipt": "SUCCESS"}},
		"settled by receipt":        {ByOrder, []Event{receipt()}, map[string]string{"receipt": "=", "asked": "SUCCESS", "query": "SUCCESS", "closed": "?", "notfound": "?", "cancel": "!", "reverse": "!"}},
		"settled by digits":         {ByOrder, []Event{typed, DigitsMatched{TradeNo: trade, At: t0}}, map[string]string{"asked": "SUCCESS", "closed": "?", "notpay": "?", "notfound": "?"}},
		"settled and confirmed":     {ByOrder, []Event{receipt(), asked}, map[string]string{"asked": "=", "query": "!", "receipt": "=", "closed": "?"}},
		"paid by the ledger's word": {ByOrder, []Event{asked}, map[string]string{"receipt": "=", "refuse": "!"}},
		"receipt refused":           {ByOrder, []Event{ReceiptRefused{TradeNo: trade, Reason: "PAID_AFTER_EXPIRY"}}, map[string]string{"reverse": "UNKNOWN", "refuse": "="}},
	} {
		t.Run(name, func(t *testing.T) {
			p := walk(t, c.mode, c.after...)
			events := map[string]Event{
				"accept": accepted(), "withdraw": withdrawn, "receipt": receipt(), "refuse": ReceiptRefused{TradeNo: trade, Reason: "AMOUNT_MISMATCH"},
				"type": typed, "match": DigitsMatched{TradeNo: trade, At: t0}, "upload": asks(OpUpload), "query": asks(OpQuery), "reverse": asks(OpReverse),
				"pay": asks(OpPay), "uploaded": uploaded, "asked": asked, "paid online after all": says(Success), "bounced": bounced, "revoked": revoked,
				"cancel": wish, "notfound": says(NotFound), "notpay": says(NotPay), "closed": says(Closed), "decline": says(PayError),
			}
			for event, want := range c.want {
				got, err := Apply(p, events[event], t0.Add(10*time.Second))
				if word := outcome(got, err); word != want {
					t.Errorf("%s: %s, want %s (%v)", event, word, want, err)
				}
				if err != nil && fmt.Sprint(got) != fmt.Sprint(p) {
					t.Errorf("%s was refused and still changed the trade", event)
				}
			}
		})
	}
}

func TestEvidenceIsBroughtToTheLedgerUntilItIsAnswered(t *testing.T) {
	p := walk(t, ByCode, accepted())
	for n, wait := range []time.Duration{0, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, time.Minute} {
		last := p.LastAskAt
		if n == 0 {
			last = p.AcceptedAt
		}
		op, at := p.Due(t0.Add(1000*time.Hour), t0)
		if op != OpUpload || at.Sub(last) != wait {
			t.Fatalf("upload %d: %s after %s, want %s", n, op, at.Sub(last), wait)
		}
		var err error
		if p, err = Apply(p, asks(OpUpload), at); err != nil {
			t.Fatal(err)
		}
	}
	p = walk(t, ByOrder, receipt())
	if op, _ := p.Due(t0, t0); op != OpQuery || !p.Open() {
		t.Errorf("an order settled by its receipt is due %q", op)
	}
	done := says(Success)
	done.LedgerNo = "L1"
	if p, _ = Apply(p, done, t0); p.Open() || p.FeeFen != 5 || p.Path != Receipt {
		t.Errorf("confirmed: %+v", p)
	}
}

func TestAReceiptAndTheLedgerMustTellTheSame(t *testing.T) {
	p := walk(t, ByOrder, receipt())
	other := says(Success)
	other.LedgerNo = "L2"
	if _, err := Apply(p, other, t0); !errors.Is(err, ErrImpossible) {
		t.Errorf("another payment of the same order: %v", err)
	}
	short := receipt()
	short.TotalFen = 1249
	if _, err := Apply(walk(t, ByOrder), short, t0); !errors.Is(err, ErrImpossible) {
		t.Errorf("a receipt of another amount: %v", err)
	}
}

// good is a case that everything allows, to its last fen.
func good() Case {
	return Case{
		TotalFen: 50_00, Now: t0, ClockTrusted: true, ClockError: ClockBound, PolicyAt: t0.Add(-PolicyAge), PolicyUntil: t0.Add(1),
		DenyAt: t0.Add(-PolicyAge), DenyUntil: t0.Add(1), MostFen: 50_00, CertPaymentFen: 50_00, CertAllowanceFen: 100_00, CertCount: 2,
		CertUsed: Exposure{Fen: 50_00, Count: 1}, Limits: Limits{PaymentFen: 50_00, WalletFen: 80_00, WalletCount: 3, TerminalFen: 500_00, TerminalCount: 9, ConvertFen: 50_00},
		Wallet: Exposure{Fen: 30_00, Count: 2, OldestAt: t0}, Terminal: Exposure{Fen: 450_00, Count: 8, OldestAt: t0.Add(-OfflineStopAfter)}, Converting: true,
	}
}

// spoilers break one condition each, in the order in which codes.md judges them.
var spoilers = []struct {
	name   string
	spoil  func(*Case)
	reason Reason
}{
	{"book being checked", func(c *Case) { c.BookChecking = true }, ReasonBookChecking},
	{"clock not trusted", func(c *Case) { c.ClockTrusted = false }, ReasonClockUntrusted},
	{"clock too uncertain", func(c *Case) { c.ClockError = ClockBound + 1 }, ReasonClockUntrusted},
	{"no policy", func(c *Case) { c.PolicyAt = time.Time{} }, ReasonPolicyStale},
	{"policy too old", func(c *Case) { c.PolicyAt = t0.Add(-PolicyAge - 1) }, ReasonPolicyStale},
	{"policy from the future", func(c *Case) { c.PolicyAt = t0.Add(ClockBound + 1) }, ReasonPolicyStale},
	{"policy ended", func(c *Case) { c.PolicyUntil = t0 }, ReasonPolicyStale},
	{"no deny list", func(c *Case) { c.DenyAt = time.Time{} }, ReasonDenyListStale},
	{"deny list too old", func(c *Case) { c.DenyAt = t0.Add(-PolicyAge - 1) }, ReasonDenyListStale},
	{"deny list ended", func(c *Case) { c.DenyUntil = t0 }, ReasonDenyListStale},
	{"code expired", func(c *Case) { c.Code = "CODE_EXPIRED" }, "CODE_EXPIRED"},
	{"counter used", func(c *Case) { c.Replayed = true }, ReasonCodeReplayed},
	{"wallet denied", func(c *Case) { c.Blocked = true }, ReasonWalletBlocked},
	{"above the code's limit", func(c *Case) { c.MostFen-- }, ReasonOverCodeLimit},
	{"above the certificate's limit", func(c *Case) { c.CertPaymentFen-- }, ReasonOverCertLimit},
	{"above the policy's limit", func(c *Case) { c.Limits.PaymentFen-- }, ReasonOverPaymentLimit},
	{"above the limit of a conversion", func(c *Case) { c.Limits.ConvertFen-- }, ReasonOverPaymentLimit},
	{"certificate's count used up", func(c *Case) { c.CertUsed.Count++ }, ReasonOverWalletAllowance},
	{"certificate's allowance used up", func(c *Case) { c.CertUsed.Fen++ }, ReasonOverWalletAllowance},
	{"customer's count used up", func(c *Case) { c.Wallet.Count++ }, ReasonOverWalletAllowance},
	{"customer's limit used up", func(c *Case) { c.Wallet.Fen++ }, ReasonOverWalletAllowance},
	{"terminal's count used up", func(c *Case) { c.Terminal.Count++ }, ReasonOverTerminalLimit},
	{"terminal's limit used up", func(c *Case) { c.Terminal.Fen++ }, ReasonOverTerminalLimit},
	{"oldest payment too old", func(c *Case) { c.Terminal.OldestAt = c.Terminal.OldestAt.Add(-1) }, ReasonOverTerminalLimit},
}

func TestAnOfflineDecisionNamesTheFirstRefusalInTheOrderOfTheCodes(t *testing.T) {
	if r := DecideOffline(good()); r != "" {
		t.Fatalf("at every limit exactly: %s", r)
	}
	for i, first := range spoilers {
		c := good()
		first.spoil(&c)
		if r := DecideOffline(c); r != first.reason {
			t.Errorf("%s: %q, want %s", first.name, r, first.reason)
		}
		for _, later := range slices.Backward(spoilers[i+1:]) {
			later.spoil(&c)
			if r := DecideOffline(c); r != first.reason {
				t.Errorf("%s and %s: %q, want %s", first.name, later.name, r, first.reason)
			}
		}
		if w := first.reason.Words(); w.ZH == "" || w.ZH == "原因 "+string(first.reason) {
			t.Errorf("%s has no words", first.reason)
		}
	}
}

func TestWhatIsAcceptedForAnAmountIsAcceptedForLess(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fen := func(name string) money.Fen { return money.Fen(rapid.Int64Range(0, 300).Draw(t, name)) }
		c := good()
		c.TotalFen, c.MostFen, c.CertPaymentFen, c.CertAllowanceFen = 1+fen("total"), fen("most"), fen("cert"), fen("allowance")
		c.CertUsed.Fen, c.Wallet.Fen, c.Terminal.Fen = fen("used"), fen("wallet"), fen("terminal")
		c.Limits = Limits{PaymentFen: fen("p"), WalletFen: fen("w"), WalletCount: 9, TerminalFen: fen("t"), TerminalCount: 9, ConvertFen: fen("c")}
		if DecideOffline(c) != "" {
			return
		}
		if c.Terminal.Fen+c.TotalFen > c.Limits.TerminalFen || c.Wallet.Fen+c.TotalFen > c.Limits.WalletFen || c.CertUsed.Fen+c.TotalFen > c.CertAllowanceFen {
			t.Fatalf("accepted beyond a limit: %+v", c)
		}
		for c.TotalFen--; c.TotalFen > 0; c.TotalFen -= 7 {
			if r := DecideOffline(c); r != "" {
				t.Fatalf("%d fen: %s", c.TotalFen, r)
			}
		}
	})
}

func TestTheStricterOfTwoLimitsWins(t *testing.T) {
	half := Limits{PaymentFen: 1, WalletFen: 1e9, WalletCount: 1, TerminalFen: 1e9, TerminalCount: 1, ConvertFen: 1e9, DigitsFen: 1}
	want := Limits{PaymentFen: 1, WalletFen: 500_00, WalletCount: 1, TerminalFen: 5000_00, TerminalCount: 1, ConvertFen: 50_00, DigitsFen: 1}
	if got := DefaultLimits.Stricter(half); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

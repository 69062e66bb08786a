package ledgersim

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"yupos/ledgercache/money"
	"yupos/sync/wire"
)

// connect2 says hello with the newest version.
func (b *bench) connect2() *fakeLine { b.t.Helper(); return b.connectAt(0, "") }

func (b *bench) connectAt(sequence uint64, head string) *fakeLine {
	b.t.Helper()
	f := b.dial()
	hello := helloOf(sequence, head, 0)
	hello.Version, hello.MinVersion = wire.Version, wire.MinVersion
	w, ok := f.ask(hello).(*wire.Welcome)
	if !ok || w.Version != wire.Version {
		b.t.Fatalf("welcome %+v", w)
	}
	return f
}

// offline is one acceptance as a terminal makes it.
type offline struct {
	code         wire.Code
	fen          money.Fen
	at           time.Time
	how          byte
	policy, deny uint32
	sequence     uint64
	head         [32]byte
	key          ed25519.PrivateKey
	no           string
	withdrawn    bool
	terminal     string
}

func (b *bench) offline(phone string, fen money.Fen) offline {
	return offline{
		code: b.code(phone, "SIGNED"), fen: fen, at: b.clock.now(), how: 1, policy: 1, deny: 1, sequence: 10, key: b.terminalKey(), no: number(), terminal: testTerminal,
	}
}

func (o offline) item(t testing.TB) wire.Acceptance {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(string(o.code))
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(raw)
	id := ulid.MustParse(o.no)
	body := append(make([]byte, 0, 184), 1, o.how, 0, 0)
	for _, v := range []uint32{uint32(o.fen), uint32(o.at.Unix()), 2} {
		body = binary.BigEndian.AppendUint32(body, v)
	}
	body = append(append(append(body, id[:]...), o.terminal...), hash[:]...)
	body = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(body, o.policy), o.deny)
	body = append(binary.BigEndian.AppendUint64(body, o.sequence), o.head[:]...)
	sig := ed25519.Sign(o.key, append([]byte("yupay-accept-v1"), body...))
	return wire.Acceptance{TradeNo: o.no, OutTradeNo: "F" + o.no, TotalFen: o.fen, Code: o.code, Accept: append(body, sig...), Withdrawn: o.withdrawn}
}

func (f *fakeLine) upload(items ...wire.Acceptance) wire.Uploaded {
	f.t.Helper()
	out, ok := f.ask(wire.Upload{Items: items}).(*wire.Uploaded)
	if !ok {
		f.t.Fatal("the upload was not judged")
	}
	return *out
}

func TestAnOfflinePaymentIsJudgedByItsEvidence(t *testing.T) {
	cases := []struct {
		name           string
		change         func(*bench, *offline)
		state          string
		reason, bearer string
	}{
		{"in order", nil, wire.StateSuccess, "", ""},
		{"after a missing answer", func(_ *bench, o *offline) { o.how = 2 }, wire.StateSuccess, "", ""},
		{"a week late", func(b *bench, _ *offline) { b.clock.move(7 * 24 * time.Hour) }, wire.StateSuccess, "", ""},
		{"withdrawn", func(_ *bench, o *offline) { o.withdrawn = true }, wire.StateRevoked, "WITHDRAWN", ""},
		{"signed by another key", func(_ *bench, o *offline) { _, o.key, _ = ed25519.GenerateKey(nil) }, wire.StateBounced, "EVIDENCE_FORGED", "merchant"},
		{"of a terminal that nobody knows", func(_ *bench, o *offline) { o.terminal = "99999999" }, wire.StateBounced, "EVIDENCE_FORGED", "merchant"},
		{"of another book", func(b *bench, o *offline) {
			f := b.connect()
			f.ask(wire.Anchor{Epoch: "01J00000000000000000000001", Sequence: 9, Head: hex.EncodeToString(make([]byte, 32))})
			o.head[0] = 1
		}, wire.StateBounced, "BOOK_FORKED", "merchant"},
		{"a false wallet signature", func(_ *bench, o *offline) { c := []byte(o.code); swap(c, len(c)-10); o.code = wire.Code(c) }, wire.StateBounced, "CODE_FORGED", "merchant"},
		{"an old code", func(_ *bench, o *offline) { o.at = o.at.Add(63 * time.Second) }, wire.StateBounced, "CODE_EXPIRED", "merchant"},
		{"a code within the clock's bound", func(_ *bench, o *offline) { o.at = o.at.Add(61 * time.Second) }, wire.StateSuccess, "", ""},
		{"a code from the future", func(_ *bench, o *offline) { o.at = o.at.Add(-33 * time.Second) }, wire.StateBounced, "CODE_FROM_FUTURE", "merchant"},
		{"a code that was spent", func(b *bench, o *offline) {
			b.connect2().upload(func() wire.Acceptance { p := *o; p.no = number(); return p.item(b.t) }())
		},
			wire.StateSuccess, "CODE_SPENT", "ledger"},
		{"above the policy", func(_ *bench, o *offline) { o.fen = 20001 }, wire.StateBounced, "POLICY_BREACH", "merchant"},
		{"a conversion above its limit", func(_ *bench, o *offline) { o.how, o.fen = 2, 50_01 }, wire.StateBounced, "POLICY_BREACH", "merchant"},
		{"under a policy that never was", func(_ *bench, o *offline) { o.policy = 7 }, wire.StateBounced, "POLICY_BREACH", "merchant"},
		{"without a deny list", func(_ *bench, o *offline) { o.deny = 0 }, wire.StateBounced, "DENY_LIST_STALE", "merchant"},
		{"a blocked wallet", func(b *bench, o *offline) { b.deny(o); o.deny = 2 }, wire.StateBounced, "WALLET_BLOCKED", "merchant"},
		{"a wallet that was blocked later", func(b *bench, o *offline) { b.deny(o) }, wire.StateSuccess, "", ""},
		{"while the line was up", func(b *bench, o *offline) {
			f := b.connect2()
			b.clock.move(time.Minute)
			o.code, o.at = b.code(testPhone, "SIGNED"), b.clock.now()
			b.clock.move(time.Minute)
			f.ask(wire.Query{TradeNo: number()}) // it was heard until now
		}, wire.StateBounced, "ACCEPTED_WHILE_ONLINE", "merchant"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.connect2().ws.Close()
			b.untilGone()
			b.clock.move(time.Minute)
			o := b.offline(testPhone, 1250)
			if c.change != nil {
				c.change(b, &o)
			}
			sequence, head := uint64(0), ""
			if c.reason == "BOOK_FORKED" {
				sequence, head = 9, hex.EncodeToString(make([]byte, 32))
			}
			f := b.connectAt(sequence, head)
			item := o.item(t)
			got := f.upload(item)
			if len(got.Outcomes) != 1 || got.Outcomes[0].State != c.state || got.Outcomes[0].Reason != c.reason || got.Outcomes[0].Bearer != c.bearer {
				t.Fatalf("judged %+v, want %s %s %s", got, c.state, c.reason, c.bearer)
			}
			item.Repeat = true
			want := got.Outcomes[0]
			want.Replayed = true
			if again := f.upload(item); again.Outcomes[0] != want {
				t.Errorf("the repeat says %+v, want %+v", again.Outcomes[0], want)
			}
			b.sound()
		})
	}
}

// untilGone waits until the ledger has let go of the terminal's connection.
func (b *bench) untilGone() {
	for {
		b.mu.Lock()
		n := len(b.conns)
		b.mu.Unlock()
		if n == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// deny puts the wallet of the payment on the deny list.
func (b *bench) deny(o *offline) {
	b.t.Helper()
	raw, _ := base64.StdEncoding.DecodeString(string(o.code))
	if status, code := b.call("POST", "/_sim/ledger/deny", `{"add":["`+hex.EncodeToString(raw[40:48])+`"]}`, nil); status != 200 {
		b.t.Fatal(status, code)
	}
}

func TestOtherBytesUnderANumberThatWasJudgedAreRefusedAndHoldUpNoOther(t *testing.T) {
	b := newBench(t)
	b.connect2().ws.Close()
	b.untilGone()
	b.clock.move(time.Minute)
	o, other := b.offline(testPhone, 100), b.offline("13800000002", 300)
	f := b.connect2()
	f.upload(o.item(t))
	changed := o.item(t)
	changed.OutTradeNo = "another"
	got := f.upload(changed, other.item(t))
	if len(got.Refused) != 1 || got.Refused[0] != (wire.RefusedUpload{TradeNo: o.no, Code: wire.RefusedIDReused}) || len(got.Outcomes) != 1 || got.Outcomes[0].State != wire.StateSuccess {
		t.Errorf("%+v", got)
	}
	b.sound()
}

func TestTheAllowanceOfACertificateCountsAcrossAllTerminalsAndTheGuaranteePaysTheRest(t *testing.T) {
	b := newBench(t)
	b.connect2().ws.Close()
	b.untilGone()
	var items []wire.Acceptance
	for range 4 { // ¥200, ¥200, ¥100 are within ¥500
		items = append(items, b.offline(testPhone, 150_00).item(t))
	}
	f := b.connect2()
	got := f.upload(items...)
	for i, want := range []string{"", "", "", wire.BearerLedger} {
		if o := got.Outcomes[i]; o.State != wire.StateSuccess || o.Bearer != want {
			t.Errorf("payment %d: %+v", i, o)
		}
	}
	if left := b.balance(testPhone); left != openingFen-450_00 {
		t.Errorf("the customer has %d", left)
	}
	last := items[3]
	r := f.refund(wire.Refund{RefundNo: number(), OutRefundNo: "R1", TradeNo: last.TradeNo, RefundFen: 150_00})
	if r.State != wire.RefundSuccess || b.balance(testPhone) != openingFen-450_00 {
		t.Errorf("a refund of what the guarantee paid went to the customer: %+v", r)
	}
	b.sound()
}

func TestAPaymentThatWasConvertedIsOnePayment(t *testing.T) {
	for name, reversed := range map[string]bool{"paid online": false, "reversed": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			f := b.connect2()
			o := b.offline(testPhone, 40_00)
			o.how = 2
			pay := b.payOf(o.code, o.fen)
			pay.TradeNo, pay.OutTradeNo = o.no, "F"+o.no
			first := f.outcome(pay)
			if reversed {
				f.outcome(wire.Reverse{TradeNo: o.no, TotalFen: o.fen})
			}
			got := f.upload(o.item(t)).Outcomes[0]
			if reversed && got.State != wire.StateBounced || !reversed && got.LedgerNo != first.LedgerNo {
				t.Errorf("%+v after %+v", got, first)
			}
			b.sound()
		})
	}
}

func TestSignedNewsAreServedByVersionAndPushedWhenTheyChange(t *testing.T) {
	b := newBench(t)
	f := b.connect2()
	have := map[wire.Topic]wire.News{}
	for len(have) < 3 {
		n := f.signed()
		have[n.Topic] = n
	}
	if status, code := b.call("POST", "/_sim/ledger/policy", `{"payment_fen":100}`, nil); status != 200 {
		t.Fatal(status, code)
	}
	n := f.signed()
	var p policy
	if err := json.Unmarshal(n.Envelope.Payload, &p); err != nil || n.Topic != wire.TopicPolicy || p.Version != 2 || p.PaymentFen != 100 || p.WalletFen != 500_00 {
		t.Errorf("%+v %v", p, err)
	}
	public := publicOf(b.role["policy"])
	if !ed25519.Verify(public, append([]byte("yupay-policy-v1"), n.Envelope.Payload...), n.Envelope.Sig) {
		t.Error("not signed by the policy key")
	}
	if status, code := b.call("POST", "/_sim/ledger/deny", `{"add":["0102030405060708"]}`, nil); status != 200 {
		t.Fatal(status, code)
	}
	var d denial
	if n = f.signed(); json.Unmarshal(n.Envelope.Payload, &d) != nil || d.Base != 1 || d.Version != 2 || len(d.Add) != 1 || d.Count != 1 {
		t.Errorf("delta %+v", d)
	}
	whole, ok := f.ask(wire.Want{Topic: wire.TopicDeny}).(*wire.News)
	if !ok || json.Unmarshal(whole.Envelope.Payload, &d) != nil || d.Base != 0 || d.Version != 2 || len(d.Add) != 1 {
		t.Errorf("whole %+v", d)
	}
	if code := f.refused(wire.Want{Topic: "weather"}); code != wire.RefusedMalformed {
		t.Error(code)
	}
	// A terminal that has all of it is told nothing.
	again := b.dial()
	hello := helloOf(0, "", 0)
	hello.Version, hello.Have = 2, map[wire.Topic]uint32{wire.TopicPolicy: 2, wire.TopicDeny: 2, wire.TopicFees: 1}
	again.ask(hello)
	if _, body, err := again.next(300 * time.Millisecond); err == nil {
		t.Errorf("told %+v", body)
	}
}

// signed waits for the next signed news.
func (f *fakeLine) signed() wire.News {
	f.t.Helper()
	for {
		_, body, err := f.next(10 * time.Second)
		if err != nil {
			f.t.Fatal(err)
		}
		if n, ok := body.(*wire.News); ok {
			return *n
		}
	}
}

func TestSignedTimeCarriesTheNonceAndTheLedgersClock(t *testing.T) {
	b := newBench(t)
	f := b.connect2()
	got, ok := f.ask(wire.Time{Nonce: []byte("0123456789abcdef")}).(*wire.SignedTime)
	if !ok {
		t.Fatal("no time")
	}
	var said struct {
		Nonce  string
		TimeMS int64 `json:"time_ms"`
	}
	if err := json.Unmarshal(got.Envelope.Payload, &said); err != nil || said.Nonce != hex.EncodeToString([]byte("0123456789abcdef")) || said.TimeMS != b.clock.now().UnixMilli() {
		t.Errorf("%+v %v", said, err)
	}
	if code := f.refused(wire.Time{Nonce: []byte("short")}); code != wire.RefusedMalformed {
		t.Error(code)
	}
}

func TestVersionsAreAgreedOrTheHelloIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		version, least int
		want           int // 0 = refused
	}{
		"a terminal of version 1":            {0, 0, 1},
		"the same":                           {wire.Version, 1, wire.Version},
		"a newer terminal":                   {wire.Version + 5, 1, wire.Version},
		"a terminal that wants a newer one":  {wire.Version + 5, wire.Version + 1, 0},
		"a terminal that contradicts itself": {1, 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := newBench(t).dial()
			hello := helloOf(0, "", 0)
			hello.Version, hello.MinVersion = c.version, c.least
			switch a := f.ask(hello).(type) {
			case *wire.Welcome:
				if a.Version != c.want {
					t.Errorf("%+v", a)
				}
			case *wire.Refused:
				if c.want != 0 || a.Code != wire.RefusedVersion {
					t.Errorf("%+v", a)
				}
			}
		})
	}
}

func TestMaintenanceIsAnnouncedAndThenNobodyIsLetIn(t *testing.T) {
	b := newBench(t)
	f := b.connect2()
	if status, code := b.call("POST", "/_sim/ledger/maintenance", `{"starts_in_ms":50,"retry_after_ms":60000}`, nil); status != 200 {
		t.Fatal(status, code)
	}
	told := false
	for {
		_, body, err := f.next(10 * time.Second)
		if err != nil {
			break // the end of the connection
		}
		if m, ok := body.(*wire.Maintenance); ok {
			told = m.RetryAfterMillis == 60000 && m.TextZH != ""
		}
	}
	if !told {
		t.Error("it was not announced")
	}
	b.clock.move(time.Second)
	if a, ok := b.dial().ask(helloOf(0, "", 0)).(*wire.Refused); !ok || a.Code != wire.RefusedMaintenance || a.RetryAfterMillis < 1000 {
		t.Errorf("%+v", a)
	}
	b.clock.move(time.Minute)
	b.connect2()
}

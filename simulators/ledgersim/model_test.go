package ledgersim

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"pgregory.net/rapid"

	"yupos/ledgercache/money"
	"yupos/sync/wire"
)

// modelTrade is what the simplest possible ledger knows of a trade.
type modelTrade struct {
	pay      wire.Pay
	phone    string
	state    string
	total    money.Fen
	fee      money.Fen
	refunded money.Fen
	feeBack  money.Fen
	declined bool
	order    string // text of its ORDER
}

// model is a ledger that fits on a page: balances and trades, no store, no entries.
type model struct {
	b        *bench
	balances map[string]money.Fen
	trades   []*modelTrade
	refunds  map[string]wire.RefundOutcome
	asked    []wire.Refund
}

var phones = []string{"13800000001", "13800000002", "13800000003", "13800000004"}

// TestRandomDaysAgreeWithTheModel drives random messages, repeats among them, and compares every answer and balance with
// the model; the ledger's own proof is asked after each step.
func TestRandomDaysAgreeWithTheModel(t *testing.T) {
	var b *bench
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		if runs++; runs%20 == 1 { // a store serves several runs, each of which begins where the last one ended
			b = newBench(t)
		}
		m := &model{b: b, balances: map[string]money.Fen{}, refunds: map[string]wire.RefundOutcome{}}
		for _, phone := range phones {
			m.balances[phone] = b.balance(phone)
		}
		steps := rapid.IntRange(1, 10).Draw(rt, "steps")
		for range steps {
			m.step(rt)
			m.compare(rt)
		}
	})
}

func (m *model) step(rt *rapid.T) {
	switch rapid.SampledFrom([]string{"pay", "pay", "order", "repeat", "reverse", "refund", "refund", "repeat refund", "clock"}).Draw(rt, "step") {
	case "pay":
		m.payStep(rt)
	case "order":
		m.orderStep(rt)
	case "repeat":
		if t := m.pick(rt); t != nil && t.pay.TradeNo != "" && t.order == "" {
			as := *t
			if t.declined { // a repeat gets the first answer
				as.state = wire.StatePayError
			}
			m.expect(rt, &as, m.b.reply(testTerminal, &t.pay))
		}
	case "reverse":
		m.reverseStep(rt)
	case "refund":
		m.refundStep(rt)
	case "repeat refund":
		if len(m.asked) > 0 {
			r := rapid.SampledFrom(m.asked).Draw(rt, "refund")
			want := m.refunds[r.RefundNo]
			want.Replayed = true
			if got := m.b.reply(testTerminal, &r); got != want {
				rt.Fatalf("the refund again: %+v, want %+v", got, want)
			}
		}
	case "clock":
		m.b.clock.move(time.Duration(rapid.IntRange(0, 3600).Draw(rt, "seconds")) * time.Second)
	}
}

func (m *model) pick(rt *rapid.T) *modelTrade {
	if len(m.trades) == 0 {
		return nil
	}
	return rapid.SampledFrom(m.trades).Draw(rt, "trade")
}

func (m *model) amount(rt *rapid.T) money.Fen {
	return money.Fen(rapid.OneOf(rapid.Int64Range(1, 3000), rapid.Int64Range(90000, 100000)).Draw(rt, "fen"))
}

func (m *model) payStep(rt *rapid.T) {
	phone := rapid.SampledFrom(phones).Draw(rt, "phone")
	kind := rapid.SampledFrom([]string{"ONLINE", "SIGNED"}).Draw(rt, "kind")
	code, err := m.b.showCode(phone, kind)
	if err != nil {
		rt.Fatal(err)
	}
	t := &modelTrade{phone: phone, total: m.amount(rt)}
	t.pay = m.b.payOf(wire.Code(code), t.total)
	m.trades = append(m.trades, t)
	m.take(t)
	m.expect(rt, t, m.b.reply(testTerminal, &t.pay))
}

func (m *model) orderStep(rt *rapid.T) {
	phone := rapid.SampledFrom(phones).Draw(rt, "phone")
	t := &modelTrade{phone: phone, total: m.amount(rt)}
	t.pay.TradeNo = number()
	t.order = m.b.orderText(t.pay.TradeNo, t.total, time.Minute)
	_, err := m.b.payOrder(phone, t.order, "")
	if m.balances[phone] < t.total {
		if !errors.Is(err, refusal("INSUFFICIENT_BALANCE")) {
			rt.Fatalf("an ORDER that cannot be paid: %v", err)
		}
		return
	}
	if err != nil {
		rt.Fatalf("an ORDER: %v", err)
	}
	m.trades = append(m.trades, t)
	m.take(t)
	if _, err := m.b.payOrder(phone, t.order, ""); !errors.Is(err, refusal("ORDER_PAID")) {
		rt.Fatalf("an ORDER twice: %v", err)
	}
}

// take is a payment: nothing happens without the money.
func (m *model) take(t *modelTrade) {
	if m.balances[t.phone] < t.total {
		t.state, t.declined = wire.StatePayError, true
		return
	}
	m.balances[t.phone] -= t.total
	t.state, t.fee = wire.StateSuccess, (t.total*testFeeBP+5000)/10000
}

func (m *model) reverseStep(rt *rapid.T) {
	t := m.pick(rt)
	if t == nil || rapid.IntRange(0, 3).Draw(rt, "unheard") == 0 {
		t = &modelTrade{state: wire.StateClosed, total: 100, pay: m.b.payOf("860000000000000000", 100)}
		m.trades = append(m.trades, t)
	}
	switch {
	case t.state == wire.StatePayError:
		t.state = wire.StateClosed
	case t.state == wire.StateSuccess && t.refunded == 0:
		m.balances[t.phone] += t.total
		t.state = wire.StateRevoked
	}
	m.expect(rt, t, m.b.reply(testTerminal, &wire.Reverse{TradeNo: t.pay.TradeNo, TotalFen: t.total, Reason: "CANCELLED"}))
}

func (m *model) refundStep(rt *rapid.T) {
	t := m.pick(rt)
	if t == nil {
		return
	}
	fen := money.Fen(rapid.Int64Range(1, int64(t.total)+1).Draw(rt, "refund"))
	if left := t.total - t.refunded; left > 0 && rapid.Bool().Draw(rt, "all") {
		fen = left
	}
	r := wire.Refund{RefundNo: number(), TradeNo: t.pay.TradeNo, RefundFen: fen}
	got, ok := m.b.reply(testTerminal, &r).(wire.RefundOutcome)
	if !ok {
		rt.Fatalf("no refund outcome")
	}
	m.asked = append(m.asked, r)
	m.refunds[r.RefundNo] = got
	if t.state != wire.StateSuccess || fen > t.total-t.refunded {
		if got.State != wire.RefundFailed {
			rt.Fatalf("a refund of %d of a trade that is %s with %d of %d refunded: %+v", fen, t.state, t.refunded, t.total, got)
		}
		return
	}
	back := min((2*t.fee*fen+t.total)/(2*t.total), t.fee-t.feeBack)
	t.refunded += fen
	if t.refunded == t.total {
		back = t.fee - t.feeBack
	}
	t.feeBack += back
	m.balances[t.phone] += fen
	if got.State != wire.RefundSuccess || got.FeeBackFen != back || got.RefundedFen != t.refunded {
		rt.Fatalf("refund %+v, want %d of the fee, %d in all", got, back, t.refunded)
	}
}

// expect compares an answer with what the model holds of the trade.
func (m *model) expect(rt *rapid.T, t *modelTrade, answer any) {
	o, ok := answer.(wire.Outcome)
	want := fmt.Sprint(t.state, t.refunded)
	if !ok || fmt.Sprint(o.State, o.RefundedFen) != want || o.FeeFen != t.fee {
		rt.Fatalf("answered %+v, want %s with a fee of %d", answer, want, t.fee)
	}
}

// compare asks the ledger for its proof and compares every balance.
func (m *model) compare(rt *rapid.T) {
	a, err := m.b.Assert()
	if err != nil || !a.OK {
		rt.Fatalf("the books do not hold: %v %v", err, a.Violations)
	}
	for phone, want := range m.balances {
		if got := m.b.balance(phone); got != want {
			rt.Fatalf("%s has %d fen, want %d", phone, got, want)
		}
	}
}

// TestTheProofFindsWhatIsWrong spoils the books in each way that Assert is there for.
func TestTheProofFindsWhatIsWrong(t *testing.T) {
	for name, spoil := range map[string]func(b *bench, tr trade) (key string, value any){
		"a balance": func(b *bench, _ trade) (string, any) { return "balance/" + walletAccount(testPhone), money.Fen(1) },
		"an entry that leaves something": func(b *bench, tr trade) (string, any) {
			return entryKey(6), entry{Number: 6, Kind: "open", Lines: []line{{accountBank, 1}}}
		},
		"a second effect": func(b *bench, tr trade) (string, any) {
			return entryKey(6), entry{Number: 6, Kind: "pay", Ref: tr.ref(), Lines: []line{{accountBank, 0}}}
		},
		"an effect of nothing": func(b *bench, tr trade) (string, any) {
			return entryKey(6), entry{Number: 6, Kind: "pay", Ref: "x", Lines: []line{{accountBank, 0}}}
		},
		"a state without its effect": func(b *bench, tr trade) (string, any) {
			tr.State = wire.StateRevoked
			return tradeKey(tr.TerminalID, tr.TradeNo), tr
		},
		"an amount": func(b *bench, tr trade) (string, any) {
			tr.PaidFen++
			return tradeKey(tr.TerminalID, tr.TradeNo), tr
		},
		"a refund that nobody made": func(b *bench, tr trade) (string, any) {
			tr.RefundedFen = 1
			return tradeKey(tr.TerminalID, tr.TradeNo), tr
		},
		"a gap": func(b *bench, tr trade) (string, any) { return entryKey(7), entry{Number: 7, Kind: "open"} },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			m := b.payOf(b.code(testPhone, "ONLINE"), 100)
			b.reply(testTerminal, &m)
			b.sound()
			spoilStore(t, b, m.TradeNo, spoil)
			if a, err := b.Assert(); err != nil || a.OK || len(a.Violations) == 0 {
				t.Errorf("%+v %v", a, err)
			}
		})
	}
}

func spoilStore(t *testing.T, b *bench, tradeNo string, spoil func(*bench, trade) (string, any)) {
	t.Helper()
	err := b.db.Update(func(txn *badger.Txn) error {
		var tr trade
		if err := get(txn, tradeKey(testTerminal, tradeNo), &tr); err != nil {
			return err
		}
		key, value := spoil(b, tr)
		return put(txn, key, value)
	})
	if err != nil {
		t.Fatal(err)
	}
}

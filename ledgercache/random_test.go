package ledgercache

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
)

// amount is a default count, or with YUPOS_FULL set the full one.
func amount(short, full int) int {
	if os.Getenv("YUPOS_FULL") != "" {
		return full
	}
	return short
}

// act is one thing that somebody does, for a book and for the model alike. Each answers how it was refused, or nil.
type act struct {
	name  string
	book  func(*Book) error
	model func(*plain) error
}

// clerk does whatever comes to mind with a shop, as it knows it from the model.
type clerk struct {
	*shop
	rng   *rand.Rand
	noise *rand.ChaCha8
	m     *plain
	n     int
	log   []string
}

func newClerk(s *shop, seed uint64) *clerk {
	var key [32]byte
	key[0], key[1], key[2], key[3] = byte(seed), byte(seed>>8), byte(seed>>16), byte(seed>>24)
	return &clerk{shop: s, rng: rand.New(rand.NewPCG(seed, 7)), noise: rand.NewChaCha8(key), m: newPlain()}
}

func (c *clerk) number() string {
	return ulid.MustNew(ulid.Timestamp(c.clock()), c.noise).String()
}

func (c *clerk) chance(percent int) bool { return c.rng.IntN(100) < percent }

func pick[T any](c *clerk, list []T) (v T, ok bool) {
	if len(list) == 0 {
		return v, false
	}
	if c.chance(60) { // what is new is what is worked on
		list = list[max(0, len(list)-6):]
	}
	return list[c.rng.IntN(len(list))], true
}

func one[T any](c *clerk, list ...T) T { return list[c.rng.IntN(len(list))] }

// next makes up an act. Some can do nothing in the shop as it is: then another one is made up.
func (c *clerk) next() act {
	for {
		if a := one(c, c.sale, c.sale, c.counterSale, c.scan, c.refuseCode, c.event, c.event, c.ask, c.answer, c.answer, c.answer, c.answer,
			c.refund, c.refund, c.askRefund, c.endRefund, c.endRefund, c.copyPaper, c.paper, c.paper, c.shiftTurn, c.dayEnd, c.anchor,
			c.acceptOffline, c.refuseOffline, c.receipt, c.digits)(); a.book != nil {
			return a
		}
	}
}

// do carries an act out on both and holds the answers against each other.
func (c *clerk) do(a act) error {
	c.log = append(c.log, a.name)
	want, have := a.model(c.m), a.book(c.Book)
	if (want == nil) != (have == nil) || want != nil && !errors.Is(have, root(want)) {
		return fmt.Errorf("%s: the book answers %v, the model %v", a.name, have, want)
	}
	return nil
}

// root is the sentinel that an error wraps.
func root(err error) error {
	for _, e := range []error{payment.ErrIllegalMove, payment.ErrImpossible, payment.ErrReplay} {
		if errors.Is(err, e) {
			return e
		}
	}
	return err
}

func (c *clerk) agree() error {
	have, err := readBook(c.Book)
	if err != nil {
		return err
	}
	return differ(c.m.readings(), have)
}

// time goes on, seldom by days, sometimes back.
func (c *clerk) time() {
	switch r := c.rng.IntN(100); {
	case r < 50:
		c.pass(time.Duration(c.rng.IntN(90_000)) * time.Millisecond)
	case r < 55:
		c.pass(time.Duration(c.rng.IntN(30)) * time.Hour)
	case r < 57:
		c.pass(-time.Duration(c.rng.IntN(7200)) * time.Second)
	}
}

func (c *clerk) code() *Code {
	code := &Code{Text: fmt.Sprintf("86%015d", c.n), ScannedAt: c.clock()}
	switch r := c.rng.IntN(10); {
	case r == 0:
		code.Text = fmt.Sprintf("86%015d", c.rng.IntN(c.n+1)) // perhaps once more
	case r < 4:
		code.Text = fmt.Sprint("signed-", c.n)
		code.Wallet, code.Counter = bytes.Repeat([]byte{byte(1 + c.rng.IntN(3))}, 32), uint32(c.rng.IntN(60))
		code.Token, code.MostFen = []byte("12345678"), one(c, money.Fen(0), 500, 100000)
	}
	return code
}

func (c *clerk) fen() money.Fen { return money.Fen(1 + c.rng.IntN(one(c, 10, 3000, 1000000))) }

func (c *clerk) sale() act {
	c.n++
	n := New{TradeNo: c.number(), OutTradeNo: fmt.Sprint("A", c.n), Mode: payment.ByCode, TotalFen: c.fen(), OperatorID: one(c, "op1", "op2"), BodyHash: []byte{byte(c.n)}}
	switch {
	case c.chance(10):
		n.Reject, n.Foreign = "FOREIGN_CODE", "WECHAT"
	default:
		n.Code = c.code()
	}
	if old, ok := pick(c, c.m.trades); ok && c.chance(15) {
		n.OutTradeNo, n.BodyHash = old.OutTradeNo, old.BodyHash
		if c.chance(30) {
			n.BodyHash = []byte("other")
		}
	}
	return c.opening("sale", n)
}

func (c *clerk) counterSale() act {
	c.n++
	mode := one(c, payment.AtCounter, payment.ByOrder)
	n := New{TradeNo: c.number(), OutTradeNo: fmt.Sprint("A", c.n), Mode: mode, TotalFen: c.fen(), BodyHash: []byte{byte(c.n)}, ExpiresAt: c.clock().Add(3 * time.Minute)}
	if mode == payment.ByOrder {
		n.OrderText = "order"
	}
	return c.opening(string(mode), n)
}

func (c *clerk) opening(name string, n New) act {
	at := c.clock()
	return act{name + " " + n.OutTradeNo, func(b *Book) error { _, _, err := b.OpenTrade(ctx, n); return err },
		func(m *plain) error { return m.open(n, at) }}
}

func (c *clerk) scan() act {
	holder := c.m.holder()
	if holder == "" {
		return act{}
	}
	c.n++
	code, at := *c.code(), c.clock()
	return act{"scan", func(b *Book) error { _, err := b.SubmitCode(ctx, holder, code); return err },
		func(m *plain) error { return m.submit(holder, code, at) }}
}

func (c *clerk) refuseCode() act {
	p, ok := pick(c, c.m.trades)
	if !ok {
		return act{}
	}
	return c.plainEvent(payment.Rejected{TradeNo: p.TradeNo, Reason: "MALFORMED"}, func(b *Book) error {
		_, err := b.RejectCode(ctx, p.TradeNo, "MALFORMED", "")
		return err
	})
}

func (c *clerk) plainEvent(e payment.Event, do func(*Book) error) act {
	at := c.clock()
	return act{fmt.Sprintf("%T %s", e, payment.TradeOf(e)), do, func(m *plain) error { return m.apply(e, at) }}
}

// event is a wish about any trade: a cancel, an expiry, a withdrawal.
func (c *clerk) event() act {
	p, ok := pick(c, c.m.trades)
	if !ok {
		return act{}
	}
	no := p.TradeNo
	if c.chance(3) {
		no = c.number()
	}
	switch c.rng.IntN(3) {
	case 0:
		return c.plainEvent(payment.CancelWanted{TradeNo: no, OperatorID: "op1"}, func(b *Book) error { _, err := b.Cancel(ctx, no, "op1"); return err })
	case 1:
		if c.chance(50) && p.ExpiresAt.After(c.clock()) {
			c.pass(p.ExpiresAt.Sub(c.clock()))
		}
		return c.plainEvent(payment.Expired{TradeNo: no}, func(b *Book) error { _, err := b.Expire(ctx, no); return err })
	}
	return c.plainEvent(payment.Withdrawn{TradeNo: no, OperatorID: "m"}, func(b *Book) error { _, err := b.Withdraw(ctx, no, "m"); return err })
}

func (c *clerk) ask() act {
	p, ok := pick(c, c.m.trades)
	if !ok {
		return act{}
	}
	e := payment.Asked{TradeNo: p.TradeNo, Op: one(c, payment.OpPay, payment.OpOrder, payment.OpQuery, payment.OpReverse, payment.OpUpload), Reason: p.ReverseReason()}
	return c.plainEvent(e, func(b *Book) error { _, err := b.RecordAsk(ctx, e.TradeNo, e.Op, e.Reason); return err })
}

// answer is the ledger's word: mostly one that fits, at times late, twice, of another amount, or of a trade nobody knows.
func (c *clerk) answer() act {
	open := slices.DeleteFunc(slices.Clone(c.m.trades), func(p payment.Payment) bool {
		return !p.Open() || p.State == payment.NotPay && p.Mode != payment.ByOrder
	})
	if len(open) == 0 || c.chance(15) {
		open = c.m.trades
	}
	p, ok := pick(c, open)
	if !ok {
		return act{}
	}
	a := payment.Answered{TradeNo: p.TradeNo, To: one(c, payment.OpPay, payment.OpQuery, payment.OpReverse, payment.OpUpload, payment.OpNone),
		State: one(c, payment.Success, payment.Success, payment.Success, payment.Success, payment.UserPaying, payment.PayError, payment.Closed, payment.Revoked,
			payment.Bounced, payment.NotFound, payment.NotPay),
		Attempt: p.Attempt, LedgerNo: "01KASF3NAZ0123456789ABCDEF"}
	if p.Unconfirmed {
		a.LedgerNo = p.LedgerNo
	}
	switch a.State {
	case payment.Success:
		a.TotalFen, a.PaidFen, a.FeeFen, a.PaidAt = p.TotalFen, p.TotalFen, p.TotalFen/200, c.clock().Add(-time.Duration(c.rng.IntN(5))*time.Second)
		if c.chance(20) {
			a.DiscountFen = min(p.TotalFen, 5)
			a.PaidFen -= a.DiscountFen
		}
		if c.chance(8) {
			a.TotalFen++
		}
		if c.chance(5) {
			a.PaidAt = a.PaidAt.Add(-26 * time.Hour)
		}
	case payment.PayError, payment.Bounced:
		a.Reason = "DECLINED"
		a.Attempt -= c.rng.IntN(2)
	default:
	}
	if c.chance(25) {
		a.News = c.m.news + uint64(c.rng.IntN(3))
	}
	if c.chance(2) {
		a.TradeNo = c.number()
	}
	at := c.clock()
	return act{fmt.Sprintf("answer %s %s", a.State, a.TradeNo), func(b *Book) error { _, err := b.Answer(ctx, a); return err },
		func(m *plain) error { return m.answer(a, at) }}
}

func (c *clerk) refund() act {
	paid := slices.DeleteFunc(slices.Clone(c.m.trades), func(p payment.Payment) bool { return p.State != payment.Success })
	if c.chance(10) {
		paid = c.m.trades
	}
	p, ok := pick(c, paid)
	if !ok {
		return act{}
	}
	c.n++
	n := NewRefund{OutRefundNo: fmt.Sprint("R", c.n), TradeNo: p.TradeNo, RefundFen: 1 + money.Fen(c.rng.IntN(int(p.TotalFen)+1)), OperatorID: "m", BodyHash: []byte{byte(c.n)}}
	if old, ok := pick(c, c.m.refunds); ok && c.chance(15) {
		n.OutRefundNo, n.BodyHash = old.OutRefundNo, old.BodyHash
		if c.chance(30) {
			n.BodyHash = []byte("other")
		}
	}
	at := c.clock()
	return act{"refund " + n.OutRefundNo, func(b *Book) error { _, _, err := b.OpenRefund(ctx, n); return err },
		func(m *plain) error { return m.openRefund(n, at) }}
}

func (c *clerk) askRefund() act {
	f, ok := pick(c, c.m.refunds)
	if !ok {
		return act{}
	}
	at := c.clock()
	return act{"ask refund " + f.OutRefundNo, func(b *Book) error {
		have, err := b.Refund(f.OutRefundNo)
		if err == nil {
			_, err = b.RecordRefundAsk(ctx, have.RefundNo)
		}
		return err
	}, func(m *plain) error {
		r := m.refund(f.OutRefundNo)
		if r.State != payment.RefundProcessing {
			return payment.ErrIllegalMove
		}
		r.Asks, r.LastAskAt = r.Asks+1, at
		return nil
	}}
}

func (c *clerk) endRefund() act {
	f, ok := pick(c, c.m.refunds)
	if !ok {
		return act{}
	}
	at := c.clock()
	a := payment.RefundAnswered{State: one(c, payment.RefundSuccess, payment.RefundSuccess, payment.RefundFailed, payment.RefundProcessing), RefundFen: f.RefundFen, At: at, LedgerNo: "L"}
	p := c.m.trade(f.TradeNo)
	if a.State == payment.RefundSuccess {
		a.FeeBackFen = min(p.FeeFen-p.FeeBackFen, f.RefundFen/200)
		if c.chance(5) {
			a.RefundFen++
		}
	}
	return act{fmt.Sprintf("refund %s %s", f.OutRefundNo, a.State), func(b *Book) error {
		have, err := b.Refund(f.OutRefundNo)
		if err == nil {
			a.RefundNo = have.RefundNo
			_, err = b.AnswerRefund(ctx, a)
		}
		return err
	}, func(m *plain) error { return m.answerRefund(f.OutRefundNo, a, at) }}
}

func (c *clerk) copyPaper() act {
	p, ok := pick(c, c.m.trades)
	if !ok {
		return act{}
	}
	at := c.clock()
	return act{"copy " + p.TradeNo, func(b *Book) error { _, err := b.QueuePrint(ctx, p.TradeNo, ""); return err }, func(m *plain) error {
		t := m.trade(p.TradeNo)
		if t.State != payment.Success && t.State != payment.AcceptedOffline && t.State != payment.Revoked {
			return ErrNotPaid
		}
		m.print(t, "", at)
		return nil
	}}
}

// paper moves a job: sent, or ended in some way.
func (c *clerk) paper() act {
	if len(c.m.prints) == 0 {
		return act{}
	}
	i := len(c.m.prints) - 1 - c.rng.IntN(min(len(c.m.prints), 8))
	j, at, to := c.m.prints[i], c.clock(), one(c, PrintSent, PrintPrinted, PrintFailed, PrintUnknown, PrintQueued)
	return act{fmt.Sprintf("paper %d of %s %s", j.Copy, j.TradeNo, to), func(b *Book) error {
		id, err := jobOf(b, j)
		if err != nil {
			return err
		}
		if to == PrintSent {
			_, err = b.RecordPrintSent(ctx, id)
		} else {
			_, err = b.FinishPrint(ctx, id, to)
		}
		return err
	}, func(m *plain) error {
		have := &m.prints[i]
		switch {
		case to == PrintSent && have.State != PrintQueued:
			return payment.ErrIllegalMove
		case have.State.Final():
			return nil
		case to == PrintQueued:
			return payment.ErrIllegalMove
		}
		have.State, have.ChangedAt = to, at
		return nil
	}}
}

// jobOf is the number that the book gave to a job of the model.
func jobOf(b *Book, want PrintJob) (id string, err error) {
	refund := ""
	if want.RefundNo != "" {
		f, err := b.Refund(want.RefundNo)
		if err != nil {
			return "", err
		}
		refund = f.RefundNo
	}
	err = b.view(func(s state) error {
		return s.scan(prefixPrint, nil, false, func(k, raw []byte) (bool, error) {
			var j PrintJob
			err := decMode.Unmarshal(raw, &j)
			if j.TradeNo == want.TradeNo && j.Copy == want.Copy && j.RefundNo == refund {
				id = idText(k[len(prefixPrint):])
			}
			return id == "", err
		})
	})
	return id, err
}

func (c *clerk) shiftTurn() act {
	if c.chance(60) {
		return act{}
	}
	at, operator := c.clock(), one(c, "op1", "op2")
	if c.m.shiftOpen() && c.chance(90) {
		return act{"close shift", func(b *Book) error {
			s, ok, err := b.Shift()
			if err != nil || !ok {
				return fmt.Errorf("the book has no open shift: %w", err)
			}
			_, err = b.CloseShift(ctx, s.ID, operator)
			return err
		}, func(m *plain) error { return m.closeShift(operator, at) }}
	}
	return act{"open shift", func(b *Book) error { _, err := b.OpenShift(ctx, operator); return err }, func(m *plain) error {
		if m.shiftOpen() {
			return ErrShiftOpen
		}
		m.shiftFor(operator, at)
		return nil
	}}
}

func (c *clerk) dayEnd() act {
	if c.chance(80) {
		return act{}
	}
	at := c.clock()
	date := payment.Day(at.AddDate(0, 0, c.rng.IntN(4)-2))
	return act{"close day " + date, func(b *Book) error { _, _, err := b.CloseDay(ctx, date, "m"); return err },
		func(m *plain) error { return m.closeDay(date, at) }}
}

// anchor is the ledger's word on how much of the journal it holds: where it stands now, or something older.
func (c *clerk) anchor() act {
	at := c.Position()
	if at.Sequence > 3 && c.chance(30) {
		at.Sequence -= uint64(c.rng.IntN(3))
	}
	return act{"anchor", func(b *Book) error { return b.Anchored(ctx, at) }, func(m *plain) error {
		if m.cursor.Epoch != at.Epoch || m.cursor.Sequence < at.Sequence {
			m.cursor, m.tries = at, nil
		}
		return nil
	}}
}

// acceptOffline journals an acceptance as a terminal with a key and a policy does, in one step with its trade and paper.
func (c *clerk) acceptOffline() act {
	c.n++
	at, no, total := c.clock(), c.number(), c.fen()
	n := New{TradeNo: no, OutTradeNo: fmt.Sprint("F", c.n), Mode: payment.ByCode, TotalFen: total, OperatorID: "op1", BodyHash: []byte{byte(c.n)}}
	e := payment.Accepted{TradeNo: no, Code: fmt.Sprint("offline-", c.n), Wallet: bytes.Repeat([]byte{9}, 32), Counter: uint32(c.n), Token: []byte("12345678"), ScannedAt: at, Accept: make([]byte, 184)}
	spent := sha256.Sum256([]byte(e.Code))
	e.Spent = spent[:]
	return act{"accept offline " + n.OutTradeNo, func(b *Book) error {
		return b.do(ctx, func(t *tx) error {
			if _, _, err := t.openTrade(n); err != nil {
				return err
			}
			if err := t.emit(recAccepted, e); err != nil {
				return err
			}
			_, err := t.printed(no)
			return err
		})
	}, func(m *plain) error {
		if err := m.open(n, at); err != nil {
			return err
		}
		m.spend(e.Code, e.Wallet, e.Counter)
		if err := m.apply(e, at); err != nil {
			return err
		}
		m.print(m.trade(no), "", at)
		return nil
	}}
}

// refuseOffline is an offline sale without a policy: refused by name, and recorded.
func (c *clerk) refuseOffline() act {
	c.n++
	at := c.clock()
	n := New{TradeNo: c.number(), OutTradeNo: fmt.Sprint("F", c.n), Mode: payment.ByCode, TotalFen: c.fen(), OperatorID: "op1", BodyHash: []byte{byte(c.n)}}
	code := Signed{Text: fmt.Sprint("stale-", c.n), Wallet: []byte{8}, Counter: uint32(c.n), ScannedAt: at}
	return act{"refuse offline " + n.OutTradeNo, func(b *Book) error {
		select { // until then the reason is another one: compare_test.go
		case <-b.Checked():
		case <-b.Failed():
		}
		p, _, err := b.OpenOffline(ctx, n, code, Clock{})
		if err == nil && (p.State != payment.PayError || p.Reason != payment.ReasonClockUntrusted) {
			err = fmt.Errorf("%s %s", p.State, p.Reason)
		}
		return err
	}, func(m *plain) error {
		if err := m.open(n, at); err != nil {
			return err
		}
		return m.apply(payment.Rejected{TradeNo: n.TradeNo, Reason: payment.ReasonClockUntrusted}, at)
	}}
}

func (c *clerk) orders() []payment.Payment {
	return slices.DeleteFunc(slices.Clone(c.m.trades), func(p payment.Payment) bool { return p.Mode != payment.ByOrder })
}

func (c *clerk) receipt() act {
	p, ok := pick(c, c.orders())
	if !ok {
		return act{}
	}
	at := c.clock()
	r := Receipt{Order: p.TradeNo, LedgerNo: "01KASF3NAZ0123456789ABCDEF", TotalFen: p.TotalFen, PaidFen: p.TotalFen, PaidAt: at.Add(-time.Duration(c.rng.IntN(60)) * time.Second), Token: []byte("12345678")}
	if c.chance(10) {
		r.TotalFen++
	}
	return act{"receipt " + p.TradeNo, func(b *Book) error { _, err := b.ConfirmReceipt(ctx, r); return plainRefusal(err) },
		func(m *plain) error { return m.receipt(r, at) }}
}

var errRefused = errors.New("receipt refused")

// plainRefusal is a refusal of a receipt without its reason, which the trade tells.
func plainRefusal(err error) error {
	if refusal := (*ReceiptRefusal)(nil); errors.As(err, &refusal) {
		return errRefused
	}
	return err
}

func (m *plain) receipt(r Receipt, at time.Time) error {
	p := m.trade(r.Order)
	after, err := payment.Apply(*p, payment.ReceiptShown{TradeNo: p.TradeNo, LedgerNo: r.LedgerNo, TotalFen: r.TotalFen, PaidFen: r.PaidFen, PaidAt: r.PaidAt, Token: r.Token}, at)
	why := payment.Reason("")
	switch {
	case errors.Is(err, payment.ErrReplay):
		return nil
	case r.TotalFen != p.TotalFen:
		why = "AMOUNT_MISMATCH"
	case r.PaidAt.After(p.ExpiresAt):
		why = "PAID_AFTER_EXPIRY"
	case p.ReverseAsks > 0:
		why = payment.ReasonReversalStarted
	case err != nil:
		return err
	}
	if why == "" {
		*p = after
		if p.Copies == 0 {
			m.print(p, "", at)
		}
		return nil
	}
	refused, err := payment.Apply(*p, payment.ReceiptRefused{TradeNo: p.TradeNo, Reason: why}, at)
	switch {
	case err == nil:
		*p = refused
	case !errors.Is(err, payment.ErrReplay):
		m.alarm("RECEIPT_REFUSED", p.TradeNo, "an authentic receipt of a trade that is "+string(p.State)+": "+string(why))
	}
	return errRefused
}

func (c *clerk) digits() act {
	p, ok := pick(c, c.orders())
	if !ok {
		return act{}
	}
	at, same := c.clock(), c.chance(40)
	return act{"digits " + p.TradeNo, func(b *Book) error {
		_, err := b.ConfirmDigits(ctx, p.TradeNo, "op1", func() bool { return same })
		return err
	}, func(m *plain) error { return m.digits(p.TradeNo, same, at) }}
}

func (m *plain) digits(no string, same bool, at time.Time) error {
	p := m.trade(no)
	n := len(m.tries)
	switch {
	case p.DigitTries >= 3:
		return ErrDigitsLocked
	case n >= 10 && m.tries[n-1]-m.tries[n-10] < time.Hour.Milliseconds():
		return ErrDigitsPaused
	}
	if err := m.apply(payment.DigitsTyped{TradeNo: no, OperatorID: "op1"}, at); err != nil {
		return err
	}
	m.tries = append(m.tries, at.UnixMilli())
	if !same {
		return ErrWrongDigits
	}
	if err := m.apply(payment.DigitsMatched{TradeNo: no, At: at}, at); err != nil {
		return err
	}
	m.tries = nil
	if p.Copies == 0 {
		m.print(p, "", at)
	}
	return nil
}

// sound holds a book against the fold of its own journal and its books against its trades.
func sound(b *Book) error {
	folded, err := foldedState(b)
	if err != nil {
		return err
	}
	if err := b.view(func(disk state) error { return equalStates(folded, disk) }); err != nil {
		return err
	}
	memory := 64 << 10
	switch n := b.Head().Sequence; { // the less memory, the more files: a long journal would have one a step
	case n < 40:
		memory = 0
	case n < 400:
		memory = 16 << 10
	}
	if err := derivesTheSame(b, memory); err != nil {
		return err
	}
	c, err := b.CheckBooks(ctx)
	if err == nil && len(c.Wrong) > 0 {
		err = fmt.Errorf("the books do not agree with the trades: %q", c.Wrong)
	}
	return err
}

// copyBook copies a book's directory as it lies there, in an order in which no witness is newer than what it witnesses.
func copyBook(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	check(t, os.MkdirAll(filepath.Join(to, "journal"), 0o700))
	for _, part := range []string{"cache", "journal/HEAD"} {
		if out, err := exec.Command("cp", "-a", filepath.Join(from, part), filepath.Join(to, part)).CombinedOutput(); err != nil && part != "cache" {
			t.Fatalf("%s: %v", out, err) // Badger may take a file away meanwhile
		}
	}
	segments, err := filepath.Glob(filepath.Join(from, "journal", "*.seg*"))
	check(t, err)
	for _, path := range segments {
		_ = exec.Command("cp", "-a", path, filepath.Join(to, "journal")).Run() // a segment that is made gets another name
	}
	return to
}

// TestRandomWorkAgreesWithAPlainModelWhateverHappensBetweenTwoSteps lets a clerk do anything, and between any two steps
// ends the book by a close, abandons it as a kill does, or opens a copy of its directory taken while it works.
func TestRandomWorkAgreesWithAPlainModelWhateverHappensBetweenTwoSteps(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("YUPOS_SEED"); text != "" {
		_, err := fmt.Sscan(text, &seed)
		check(t, err)
	}
	rounds, steps := amount(2, 60), 150
	var reopened, killed, copied, refused int
	for round := range uint64(rounds) {
		s := newShop(t)
		c := newClerk(s, seed+round)
		for step := range steps {
			fail := func(err error) {
				if err != nil {
					t.Fatalf("YUPOS_SEED=%d, round %d, step %d, last %q: %v", seed+round, round, step, c.log[max(0, len(c.log)-5):], err)
				}
			}
			c.time()
			switch r := c.rng.IntN(100); {
			case r < 3:
				s.reopen()
				reopened++
			case r < 5:
				s.abandon()
				killed++
			case r < 7:
				fail(c.copyWhileWorking(t))
				copied++
			}
			a := c.next()
			fail(c.do(a))
			fail(c.agree())
			if step%25 == 24 {
				fail(sound(s.Book))
			}
		}
		refused += len(c.m.alarms)
		check(t, s.Close())
	}
	t.Logf("seed %d: %d steps, %d reopenings, %d kills, %d copies while working, %d alarms; model, cache and journal agree after every step",
		seed, rounds*steps, reopened, killed, copied, refused)
}

// abandon leaves the book as a killed process does, and opens what lies on the disk.
func (s *shop) abandon() {
	s.t.Helper()
	old, dir := s.Book, copyBook(s.t, s.opts.Dir)
	_ = old.Close()
	s.opts.Dir = dir
	s.open()
	kept.left(s.t, s.opts)
}

// copyWhileWorking copies the directory under a few steps, and wants the copy to be the book after one of them.
func (c *clerk) copyWhileWorking(t *testing.T) error {
	moments := []readings{c.m.readings()}
	acts := make([]act, 0, 6)
	done := make(chan error)
	var dir string
	go func() { dir = copyBook(t, c.opts.Dir); close(done) }()
	for range cap(acts) {
		if err := c.do(c.next()); err != nil {
			<-done
			return err
		}
		moments = append(moments, c.m.readings())
	}
	<-done
	o := c.opts
	o.Dir = dir
	b, err := Open(ctx, o)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := b.Err(); err != nil {
		return err
	}
	have, err := readBook(b)
	if err != nil {
		return err
	}
	kept.left(t, o)
	for _, want := range moments {
		if differ(want, have) == nil {
			return sound(b)
		}
	}
	return fmt.Errorf("a copy is none of the %d moments: %w", len(moments), differ(moments[0], have))
}

func TestShiftsAreNumberedWithoutGapsWhateverTheClockDoes(t *testing.T) {
	s := newShop(t)
	for n, jump := range []time.Duration{0, 0, -time.Hour, time.Minute, -2 * time.Hour, 0} {
		s.pass(jump)
		shift, err := s.OpenShift(ctx, "op1")
		check(t, err)
		if shift.Number != uint64(n+1) {
			t.Errorf("shift %d has number %d", n+1, shift.Number)
		}
		_, err = s.CloseShift(ctx, shift.ID, "op1")
		check(t, err)
	}
}

func TestTheOldestOfflinePaymentIsTheOneThatWasAcceptedFirst(t *testing.T) {
	s, _ := offlineShop(t)
	early := s.must(first(s.OpenTrade(ctx, New{OutTradeNo: "EARLY", Mode: payment.AtCounter, TotalFen: 5, ExpiresAt: s.clock().Add(time.Hour)})))
	s.pass(time.Minute)
	want := s.offline(1, 5, s.signedBy(1, 1)).AcceptedAt
	s.pass(time.Minute)
	if p := s.must(s.AcceptOffline(ctx, early.TradeNo, s.signedBy(2, 1), goodClock, "m")); p.State != payment.AcceptedOffline {
		t.Fatalf("%+v", p)
	}
	if e, err := s.Exposure(); err != nil || e.Count != 2 || !e.OldestAt.Equal(want) {
		t.Errorf("%+v, want the oldest at %v: %v", e, want, err)
	}
}

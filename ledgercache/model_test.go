package ledgercache

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
)

// plain is the book as lists and maps in memory: no journal, no cache, no keys, no groups. It shares with the book only
// the rules of package payment. Numbers that the book draws by itself are left empty; a shift is named by its number.
type plain struct {
	trades   []payment.Payment
	refunds  []payment.Refund
	prints   []PrintJob
	shifts   []Shift
	spent    map[string]bool
	counters map[string]uint32
	alarms   []string
	cursor   Cursor
	news     uint64
	tries    []int64
	zs       []DayReport
	inZ      map[string]Totals
}

func newPlain() *plain {
	return &plain{spent: map[string]bool{}, counters: map[string]uint32{}, inZ: map[string]Totals{}}
}

func (m *plain) clone() *plain {
	c := *m
	c.trades, c.refunds, c.prints, c.shifts = slices.Clone(m.trades), slices.Clone(m.refunds), slices.Clone(m.prints), slices.Clone(m.shifts)
	c.spent, c.counters, c.inZ = maps.Clone(m.spent), maps.Clone(m.counters), maps.Clone(m.inZ)
	c.alarms, c.tries, c.zs = slices.Clone(m.alarms), slices.Clone(m.tries), slices.Clone(m.zs)
	return &c
}

func (m *plain) trade(no string) *payment.Payment {
	i := slices.IndexFunc(m.trades, func(p payment.Payment) bool { return p.TradeNo == no })
	if i < 0 {
		return nil
	}
	return &m.trades[i]
}

func (m *plain) refund(out string) *payment.Refund {
	i := slices.IndexFunc(m.refunds, func(f payment.Refund) bool { return f.OutRefundNo == out })
	if i < 0 {
		return nil
	}
	return &m.refunds[i]
}

func (m *plain) shiftOpen() bool {
	return len(m.shifts) > 0 && m.shifts[len(m.shifts)-1].ClosedAt.IsZero()
}

func (m *plain) shiftFor(operator string, at time.Time) string {
	if !m.shiftOpen() {
		m.shifts = append(m.shifts, Shift{Number: uint64(len(m.shifts) + 1), OperatorID: operator, OpenedAt: at})
	}
	return fmt.Sprint(len(m.shifts))
}

// replayed is step 7 of codes.md.
func (m *plain) replayed(text string, wallet []byte, counter uint32) bool {
	last, known := m.counters[string(wallet)]
	return m.spent[text] || len(wallet) > 0 && known && counter <= last
}

func (m *plain) spend(text string, wallet []byte, counter uint32) {
	m.spent[text] = true
	if len(wallet) > 0 {
		m.counters[string(wallet)] = counter
	}
}

func (m *plain) open(n New, at time.Time) error {
	for _, p := range m.trades {
		if p.OutTradeNo == n.OutTradeNo {
			if !bytes.Equal(p.BodyHash, n.BodyHash) {
				return ErrOutTradeNoUsed
			}
			return nil
		}
	}
	if n.Mode != payment.ByCode && m.holder() != "" {
		return ErrCounterBusy
	}
	shift := m.shiftFor(n.OperatorID, at)
	p, err := payment.Open(payment.Opened{
		TradeNo: n.TradeNo, OutTradeNo: n.OutTradeNo, Mode: n.Mode, TotalFen: n.TotalFen, OperatorID: n.OperatorID, ShiftID: shift,
		BodyHash: n.BodyHash, ExpiresAt: n.ExpiresAt, OrderText: n.OrderText,
	}, at)
	if err != nil {
		return err
	}
	m.trades = append(m.trades, p)
	switch {
	case n.Reject != "":
		return m.apply(payment.Rejected{TradeNo: n.TradeNo, Reason: n.Reject, Foreign: n.Foreign}, at)
	case n.Code != nil:
		return m.submit(n.TradeNo, *n.Code, at)
	}
	return nil
}

func (m *plain) submit(no string, c Code, at time.Time) error {
	p := m.trade(no)
	if p.State != payment.NotPay || p.Mode == payment.ByOrder {
		return payment.ErrIllegalMove
	}
	switch {
	case m.replayed(c.Text, c.Wallet, c.Counter):
		return m.apply(payment.Rejected{TradeNo: no, Reason: payment.ReasonCodeReplayed}, at)
	case c.MostFen > 0 && p.TotalFen > c.MostFen:
		return m.apply(payment.Rejected{TradeNo: no, Reason: payment.ReasonOverCodeLimit}, at)
	}
	spent := sha256.Sum256([]byte(c.Text))
	m.spend(c.Text, c.Wallet, c.Counter)
	return m.apply(payment.Submitted{TradeNo: no, Code: c.Text, Spent: spent[:], Wallet: c.Wallet, Counter: c.Counter, Token: c.Token,
		ScannedAt: c.ScannedAt, NotAfter: c.ScannedAt.Add(payment.PayWindow)}, at)
}

// apply is one event on one trade: a replay changes nothing, a refusal is its error.
func (m *plain) apply(e payment.Event, at time.Time) error {
	p := m.trade(payment.TradeOf(e))
	if p == nil {
		return ErrNotFound
	}
	after, err := payment.Apply(*p, e, at)
	if errors.Is(err, payment.ErrReplay) {
		return nil
	}
	if err == nil {
		*p = after
	}
	return err
}

func (m *plain) answer(a payment.Answered, at time.Time) error {
	m.news = max(m.news, a.News)
	p := m.trade(a.TradeNo)
	if p == nil {
		m.alarm("UNKNOWN_TRADE", a.TradeNo, "the ledger speaks of a trade that is not in this book")
		return ErrNotFound
	}
	after, err := payment.Apply(*p, a, at)
	switch {
	case errors.Is(err, payment.ErrReplay):
		return nil
	case err != nil:
		m.alarm(alarmOf(*p), a.TradeNo, err.Error())
		return err
	}
	*p = after
	m.tries = nil
	if p.State == payment.Success && p.Copies == 0 {
		m.print(p, "", at)
	}
	return nil
}

func (m *plain) alarm(code, trade, detail string) {
	if line := code + " " + trade + " " + detail; !slices.Contains(m.alarms, line) {
		m.alarms = append(m.alarms, line)
	}
}

// print queues paper. A refund's slip is not counted on its trade.
func (m *plain) print(p *payment.Payment, refund string, at time.Time) {
	j := PrintJob{TradeNo: p.TradeNo, RefundNo: refund, Copy: 1, State: PrintQueued, QueuedAt: at}
	if refund == "" {
		p.Copies++
		j.Copy = p.Copies
	}
	m.prints = append(m.prints, j)
}

func (m *plain) openRefund(n NewRefund, at time.Time) error {
	if f := m.refund(n.OutRefundNo); f != nil {
		if !bytes.Equal(f.BodyHash, n.BodyHash) {
			return ErrOutRefundNoUsed
		}
		return nil
	}
	p := m.trade(n.TradeNo)
	switch {
	case p == nil:
		return ErrNotFound
	case p.State != payment.Success:
		return ErrNotPaid
	case at.Sub(p.FinishedAt) > 365*24*time.Hour:
		return ErrRefundTooLate
	case p.RefundParts >= 50:
		return ErrRefundTooMany
	case p.RefundedFen+p.RefundingFen+n.RefundFen > p.TotalFen:
		return ErrRefundTooMuch
	}
	p.RefundParts++
	p.RefundingFen += n.RefundFen
	m.refunds = append(m.refunds, payment.Refund{
		OutRefundNo: n.OutRefundNo, TradeNo: p.TradeNo, OutTradeNo: p.OutTradeNo, RefundFen: n.RefundFen, OperatorID: n.OperatorID,
		ShiftID: m.shiftFor(n.OperatorID, at), BodyHash: n.BodyHash, CreatedAt: at, State: payment.RefundProcessing,
	})
	return nil
}

func (m *plain) answerRefund(out string, a payment.RefundAnswered, at time.Time) error {
	f := m.refund(out)
	a.RefundNo = f.RefundNo
	after, err := payment.ApplyRefund(*f, a)
	switch {
	case errors.Is(err, payment.ErrReplay):
		return nil
	case err != nil:
		m.alarm("IMPOSSIBLE_ANSWER", f.TradeNo, "refund "+out+": "+err.Error())
		return err
	}
	*f = after
	p := m.trade(f.TradeNo)
	p.RefundingFen -= f.RefundFen
	if f.State == payment.RefundSuccess {
		p.RefundedFen += f.RefundFen
		p.FeeBackFen += f.FeeBackFen
		m.print(p, out, at)
	}
	return nil
}

// holder is the trade that has the counter.
func (m *plain) holder() string {
	for _, p := range m.trades {
		if p.HoldsCounter() {
			return p.TradeNo
		}
	}
	return ""
}

// figures adds up trades and refunds that a question selects, by their bill day and shift.
func (m *plain) figures(selects func(day, shift string) bool) (t Totals) {
	for _, p := range m.trades {
		if p.FinishedAt.IsZero() || !selects(payment.Day(p.FinishedAt), p.ShiftID) {
			continue
		}
		switch p.State {
		case payment.Bounced:
			t.Bounced.Count++
			t.Bounced.Fen += p.TotalFen
		case payment.Success:
			t.Count++
			t.TotalFen += p.TotalFen
			t.FeeFen += p.FeeFen
			t.DiscountFen += p.DiscountFen
			part := map[payment.Path]*Part{payment.Online: &t.Online, payment.Receipt: &t.Receipt, payment.Offline: &t.Offline}[p.Path]
			part.Count++
			part.Fen += p.TotalFen
		default:
		}
	}
	for _, f := range m.refunds {
		if f.State == payment.RefundSuccess && selects(payment.Day(f.FinishedAt), f.ShiftID) {
			t.RefundCount++
			t.RefundFen += f.RefundFen
			t.FeeBackFen += f.FeeBackFen
		}
	}
	return t
}

// days are all bill days on which something stands.
func (m *plain) days() []string {
	days := map[string]bool{}
	for _, p := range m.trades {
		if !p.FinishedAt.IsZero() {
			days[payment.Day(p.FinishedAt)] = true
		}
	}
	for _, f := range m.refunds {
		if f.State == payment.RefundSuccess {
			days[payment.Day(f.FinishedAt)] = true
		}
	}
	for day := range m.inZ {
		days[day] = true
	}
	return slices.Sorted(maps.Keys(days))
}

func (m *plain) closeDay(date string, at time.Time) error {
	if date > payment.Day(at) {
		return ErrDayAhead
	}
	for _, z := range m.zs {
		if z.Date == date {
			return nil
		}
	}
	if len(m.zs) > 0 && m.zs[len(m.zs)-1].Date > date {
		return ErrDayClosed
	}
	z := DayReport{Number: uint64(len(m.zs) + 1), Date: date, At: at}
	for _, day := range m.days() {
		if day > date {
			continue
		}
		now := m.figures(func(d, _ string) bool { return d == day })
		left := sub(now, m.inZ[day])
		if left != (Totals{}) {
			m.inZ[day] = now
		}
		z.Totals = sub(z.Totals, sub(Totals{}, left))
	}
	z.Carried = m.carried("")
	m.zs = append(m.zs, z)
	return nil
}

func sub(a, b Totals) Totals {
	for i, c := range a.counts() {
		*c -= *b.counts()[i]
	}
	for i, f := range a.fen() {
		*f -= *b.fen()[i]
	}
	return a
}

func (m *plain) carried(shift string) (c Carried) {
	for _, p := range m.trades {
		if p.Open() && (shift == "" || p.ShiftID == shift) {
			c.Count++
			c.Fen += p.TotalFen
		}
	}
	for _, f := range m.refunds {
		if f.State == payment.RefundProcessing && (shift == "" || f.ShiftID == shift) {
			c.Count++
			c.Fen += f.RefundFen
		}
	}
	return c
}

func (m *plain) closeShift(operator string, at time.Time) error {
	if !m.shiftOpen() {
		return ErrNoShift
	}
	no := fmt.Sprint(len(m.shifts))
	s := &m.shifts[len(m.shifts)-1]
	s.ClosedAt, s.ClosedBy, s.AtClose = at, operator, m.figures(func(_, shift string) bool { return shift == no })
	return nil
}

// readings is everything that a book can be asked, as lines of text.
type readings []string

func (r *readings) say(format string, args ...any) { *r = append(*r, fmt.Sprintf(format, args...)) }

// differ names the first lines that two readings do not share.
func differ(want, have readings) error {
	slices.Sort(want)
	slices.Sort(have)
	if slices.Equal(want, have) {
		return nil
	}
	var out []string
	for _, w := range want {
		if !slices.Contains(have, w) {
			out = append(out, "missing "+w)
		}
	}
	for _, h := range have {
		if !slices.Contains(want, h) {
			out = append(out, "too much "+h)
		}
	}
	return fmt.Errorf("the book differs from the model in %d lines:\n%s", len(out), strings.Join(out[:min(len(out), 8)], "\n"))
}

func (m *plain) readings() (r readings) {
	for _, p := range m.trades {
		r.say("trade %+v", p)
		r.say("by day %s %s", bizDay(p), p.TradeNo)
		if p.Open() {
			r.say("open trade %s", p.TradeNo)
		}
	}
	for _, f := range m.refunds {
		r.say("refund %+v", f)
		if f.State == payment.RefundProcessing {
			r.say("open refund %s", f.OutRefundNo)
		}
	}
	for _, j := range m.prints {
		r.say("print %+v", j)
	}
	for i, s := range m.shifts {
		s.Totals = m.figures(func(_, shift string) bool { return shift == fmt.Sprint(i+1) })
		r.say("shift %+v", s)
	}
	for _, day := range m.days() {
		if t := m.figures(func(d, _ string) bool { return d == day }); t != (Totals{}) || m.inZ[day] != (Totals{}) {
			r.say("day %s %+v of them on a Z %+v", day, t, m.inZ[day])
		}
	}
	for _, z := range m.zs {
		r.say("Z %d %s %+v carried %d %d", z.Number, z.Date, z.Totals, z.Carried.Count, z.Carried.Fen)
	}
	for _, a := range m.alarms {
		r.say("alarm %s", a)
	}
	r.say("counter %q, shift open %v, news %d, cursor %+v", m.holder(), m.shiftOpen(), m.news, m.cursor)
	var e payment.Exposure
	for _, p := range m.trades {
		if p.State == payment.AcceptedOffline {
			e.Count++
			e.Fen += p.TotalFen
			if e.OldestAt.IsZero() || p.AcceptedAt.Before(e.OldestAt) {
				e.OldestAt = p.AcceptedAt
			}
		}
	}
	r.say("exposure %+v", e)
	return r
}

func bizDay(p payment.Payment) string {
	if p.State == payment.Success || p.State == payment.Revoked && p.Settled {
		return payment.Day(p.FinishedAt)
	}
	return payment.Day(p.CreatedAt)
}

// readBook asks a book everything, and names what it numbered itself as the model does.
func readBook(b *Book) (r readings, err error) {
	n := names{shift: map[string]string{}, refund: map[string]string{}}
	shifts, err := b.Shifts(time.Time{}, time.Time{})
	if err != nil {
		return nil, err
	}
	for _, s := range shifts {
		n.shift[s.ID], s.ID = fmt.Sprint(s.Number), ""
		r.say("shift %+v", s)
	}
	for _, part := range []func(*Book, *names, *readings) error{readTrades, readPrints, readDays, readRest} {
		if err := part(b, &n, &r); err != nil {
			return nil, err
		}
	}
	return r, nil
}

type names struct {
	shift, refund map[string]string
	trades        []string
}

func readTrades(b *Book, n *names, r *readings) error {
	for cursor := ""; ; {
		page, next, err := b.Trades(Query{Limit: 37, Cursor: cursor})
		if err != nil {
			return err
		}
		for _, p := range page {
			again, err := b.Trade(p.OutTradeNo)
			if err != nil || again.TradeNo != p.TradeNo {
				return fmt.Errorf("trade %s by its number: %s, %w", p.TradeNo, again.TradeNo, err)
			}
			n.trades = append(n.trades, p.TradeNo)
			p.ShiftID = n.shift[p.ShiftID]
			r.say("trade %+v", p)
			r.say("by day %s %s", bizDay(p), p.TradeNo)
			if err := readRefunds(b, p.TradeNo, n, r); err != nil {
				return err
			}
		}
		if cursor = next; cursor == "" {
			break
		}
	}
	open, err := b.OpenTrades()
	for _, p := range open {
		r.say("open trade %s", p.TradeNo)
	}
	return err
}

func readRefunds(b *Book, trade string, n *names, r *readings) error {
	list, err := b.RefundsOf(trade)
	for _, f := range list {
		if again, err := b.Refund(f.OutRefundNo); err != nil || again.RefundNo != f.RefundNo {
			return fmt.Errorf("refund %s by its number: %s, %w", f.RefundNo, again.RefundNo, err)
		}
		n.refund[f.RefundNo] = f.OutRefundNo
		f.RefundNo, f.ShiftID = "", n.shift[f.ShiftID]
		r.say("refund %+v", f)
	}
	return err
}

// readPrints reads the jobs from the state: the book itself lists only the open ones, which must be the same.
func readPrints(b *Book, n *names, r *readings) error {
	open := map[string]bool{}
	err := b.view(func(s state) error {
		return s.scan(prefixPrint, nil, false, func(k, raw []byte) (bool, error) {
			var j PrintJob
			err := decMode.Unmarshal(raw, &j)
			j.ID = idText(k[len(prefixPrint):])
			open[j.ID] = !j.State.Final()
			j.ID, j.RefundNo = "", n.refund[j.RefundNo]
			r.say("print %+v", j)
			return true, err
		})
	})
	if err != nil {
		return err
	}
	list, err := b.OpenPrints()
	for _, j := range list {
		if !open[j.ID] {
			return fmt.Errorf("print job %s is listed as open", j.ID)
		}
		delete(open, j.ID)
	}
	for id, yes := range open {
		if yes {
			return fmt.Errorf("open print job %s is not listed", id)
		}
	}
	return err
}

func readDays(b *Book, _ *names, r *readings) error {
	days, err := b.Days("", "")
	if err != nil {
		return err
	}
	for _, d := range days {
		if d.Totals != (Totals{}) || d.InZ != (Totals{}) {
			r.say("day %s %+v of them on a Z %+v", d.Date, d.Totals, d.InZ)
		}
		var sum money.Fen
		for _, fen := range d.Accounts {
			sum += fen
		}
		if sum != 0 {
			return fmt.Errorf("the accounts of %s come to %d", d.Date, sum)
		}
	}
	for number := uint64(1); ; number++ {
		z, err := b.Z(number)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		r.say("Z %d %s %+v carried %d %d", z.Number, z.Date, z.Totals, z.Carried.Count, z.Carried.Fen)
	}
}

func readRest(b *Book, n *names, r *readings) error {
	refunds, err := b.OpenRefunds()
	for _, f := range refunds {
		r.say("open refund %s", f.OutRefundNo)
	}
	alarms, alarmErr := b.Alarms(1000)
	for _, a := range alarms {
		if a.Code == AlarmMirror { // a disk's, which the model does not have
			continue
		}
		for no, out := range n.refund {
			a.Detail = strings.ReplaceAll(a.Detail, no, out)
		}
		r.say("alarm %s %s %s", a.Code, a.TradeNo, a.Detail)
	}
	counter, counterErr := b.Counter()
	_, open, shiftErr := b.Shift()
	news, newsErr := b.NewsCursor()
	cursor, cursorErr := b.Cursor()
	r.say("counter %q, shift open %v, news %d, cursor %+v", counter, open, news, cursor)
	exposure, exposureErr := b.Exposure()
	r.say("exposure %+v", exposure)
	return errors.Join(err, alarmErr, counterErr, shiftErr, newsErr, cursorErr, exposureErr)
}

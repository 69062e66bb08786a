package ledgercache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
)

// This file finds trades. Four indexes lead to a trade, and only what changed of them is written:
//
//   - by bill day: one small row that holds what a list is filtered by, so that a day is searched without reading its trades;
//   - by amount, for the question "who paid 12.50?" over all days;
//   - by state, for every end but SUCCESS: there are few of them and they are asked for by name;
//   - open work, in lanes (work.go).

// row is what the index by bill day says of a trade.
type row struct {
	state    byte
	fen      money.Fen
	at       time.Duration // of the bill time, since the day began in Shanghai
	operator string
	tail     string // last rowTail characters of out_trade_no
}

// rowTail is how many characters of out_trade_no a list can be searched by from the end.
const rowTail = 6

// stateCodes are the form of a state in an index. The numbers are never reused.
var stateCodes = map[payment.State]byte{
	payment.NotPay: 1, payment.UserPaying: 2, payment.Unknown: 3, payment.Success: 4, payment.Closed: 5, payment.Revoked: 6,
	payment.PayError: 7, payment.AcceptedOffline: 8, payment.Bounced: 9,
}

// billTime is the time that decides the bill day of p.
func billTime(p payment.Payment) time.Time {
	if p.State == payment.Success || p.State == payment.Revoked && p.Settled {
		return p.FinishedAt
	}
	return p.CreatedAt
}

func rowOf(p payment.Payment) row {
	at := billTime(p).In(Shanghai)
	midnight := time.Date(at.Year(), at.Month(), at.Day(), 0, 0, 0, 0, Shanghai)
	return row{stateCodes[p.State], p.TotalFen, at.Sub(midnight).Truncate(time.Second), p.OperatorID, p.OutTradeNo[max(0, len(p.OutTradeNo)-rowTail):]}
}

// encode: state, then uvarints of fen and seconds, then the operator with its length, then the tail.
func (r row) encode() []byte {
	b := []byte{r.state}
	b = binary.AppendUvarint(b, uint64(r.fen))
	b = binary.AppendUvarint(b, uint64(r.at/time.Second))
	b = binary.AppendUvarint(b, uint64(len(r.operator)))
	return append(append(b, r.operator...), r.tail...)
}

var errRow = errors.New("ledgercache: a row of an index cannot be read")

func decodeRow(b []byte) (r row, err error) {
	if len(b) == 0 {
		return r, errRow
	}
	r.state, b = b[0], b[1:]
	var numbers [3]uint64
	for i := range numbers {
		n, size := binary.Uvarint(b)
		if size <= 0 {
			return r, errRow
		}
		numbers[i], b = n, b[size:]
	}
	if numbers[2] > uint64(len(b)) {
		return r, errRow
	}
	r.fen, r.at = money.Fen(numbers[0]), time.Duration(numbers[1])*time.Second
	r.operator, r.tail = string(b[:numbers[2]]), string(b[numbers[2]:])
	return r, nil
}

// entry is one key of an index.
type entry struct{ k, v []byte }

// entries are all index keys that lead to p.
func entries(p payment.Payment, trade []byte) []entry {
	list := []entry{{dayKey(p, trade), rowOf(p).encode()}, {amountKey(p.TotalFen, trade), nil}}
	switch {
	case p.State == payment.AcceptedOffline:
		list = append(list, entry{key(prefixUpload, trade), binary.BigEndian.AppendUint64(nil, uint64(p.AcceptedAt.UnixMilli()))})
	case p.Open():
		list = append(list, entry{key(prefixOpenTrade, trade), []byte{byte(p.Lane())}})
	case p.State != payment.Success:
		list = append(list, entry{stateKey(p.State, trade), nil})
	}
	return list
}

// index writes what changed between two lists of entries.
func index(s state, was, is []entry) error {
	for _, old := range was {
		if find(is, old.k) == nil {
			if err := s.delete(old.k); err != nil {
				return err
			}
		}
	}
	for _, e := range is {
		if old := find(was, e.k); old == nil || !bytes.Equal(old.v, e.v) {
			if err := s.set(e.k, e.v); err != nil {
				return err
			}
		}
	}
	return nil
}

func find(list []entry, k []byte) *entry {
	for i := range list {
		if bytes.Equal(list[i].k, k) {
			return &list[i]
		}
	}
	return nil
}

// ErrQuery says that a query of trades makes no sense: a bad date, state or cursor.
var ErrQuery = errors.New("ledgercache: bad query")

// Query selects trades. The zero Query is the newest 50 of all days; every field that is set narrows it.
type Query struct {
	Date       string        // bill day in Shanghai, "2006-01-02"
	From, To   time.Time     // From ≤ bill time < To, to the second: the ledger's success time, or the creation of what is not paid
	State      payment.State //
	OperatorID string        // the cashier
	MinFen     money.Fen     // of the total; 0 = no bound
	MaxFen     money.Fen
	Digits     string // last 1 to 6 characters of out_trade_no or trade_no, in capitals or small
	Limit      int    // 1 to 500; 0 = 50
	Cursor     string // what the page before answered as next
}

// maxScan bounds how many trades one page looks at before it answers with what it has, maybe nothing, and a next.
const maxScan = 100_000

func (q Query) check() error {
	_, known := stateCodes[q.State]
	switch {
	case q.Date != "" && !isDate(q.Date):
		return fmt.Errorf("%w: date", ErrQuery)
	case q.State != "" && !known:
		return fmt.Errorf("%w: state", ErrQuery)
	case q.MinFen < 0 || q.MaxFen < 0 || q.MinFen > money.Max || q.MaxFen > money.Max || q.MaxFen > 0 && q.MinFen > q.MaxFen:
		return fmt.Errorf("%w: amount", ErrQuery)
	case !q.From.IsZero() && !q.To.IsZero() && !q.From.Before(q.To):
		return fmt.Errorf("%w: from is not before to", ErrQuery)
	case len(q.Digits) > rowTail:
		return fmt.Errorf("%w: at most %d last digits", ErrQuery, rowTail)
	case q.Limit < 0 || q.Limit > 500:
		return fmt.Errorf("%w: limit", ErrQuery)
	}
	return nil
}

// matches judges a trade by its row.
func (q Query) matches(r row, trade []byte) bool {
	switch {
	case q.State != "" && stateCodes[q.State] != r.state,
		q.OperatorID != "" && q.OperatorID != r.operator,
		r.fen < q.MinFen, q.MaxFen > 0 && r.fen > q.MaxFen:
		return false
	}
	return q.Digits == "" || endsIn(r.tail, q.Digits) || endsIn(idText(trade), q.Digits)
}

func endsIn(text, tail string) bool {
	return len(tail) <= len(text) && strings.EqualFold(text[len(text)-len(tail):], tail)
}

// inTime judges a bill day and the time in it.
func (q Query) inTime(day string, at time.Duration) (in bool, err error) {
	if q.From.IsZero() && q.To.IsZero() {
		return true, nil
	}
	midnight, err := time.ParseInLocation(time.DateOnly, day, Shanghai)
	t := midnight.Add(at)
	return err == nil && (q.From.IsZero() || !t.Before(q.From.Truncate(time.Second))) && (q.To.IsZero() || t.Before(q.To)), err
}

// days are the first and last bill day that a query can meet; "" is no bound.
func (q Query) days() (from, to string) {
	if q.Date != "" {
		return q.Date, q.Date
	}
	if !q.From.IsZero() {
		from = payment.Day(q.From)
	}
	if !q.To.IsZero() {
		to = payment.Day(q.To)
	}
	return from, to
}

// prefix is the index that a query walks: the narrowest one that holds all that it may find.
func (q Query) prefix() []byte {
	if q.Date == "" && q.From.IsZero() && q.To.IsZero() {
		switch {
		case q.MinFen > 0 && q.MinFen == q.MaxFen:
			return amountKey(q.MinFen, nil)
		case q.State == payment.AcceptedOffline:
			return prefixUpload
		case q.State == payment.NotPay || q.State == payment.UserPaying || q.State == payment.Unknown:
			return prefixOpenTrade
		case q.State != "" && q.State != payment.Success:
			return stateKey(q.State, nil)
		}
	}
	return prefixDay
}

// Trades lists trades, newest first: by bill day and then by their numbers, or by their numbers alone where an amount or a
// state is asked for over all days. next is "" at the end, else the Cursor of the following page. A page is not moved by
// trades that come while it is read.
func (b *Book) Trades(q Query) (list []payment.Payment, next string, err error) {
	if err := q.check(); err != nil {
		return nil, "", err
	}
	if q.Limit == 0 {
		q.Limit = 50
	}
	w := walk{Query: q, prefix: q.prefix()}
	from, err := w.start()
	if err != nil {
		return nil, "", err
	}
	err = b.view(func(s state) error {
		return s.scan(w.prefix, from, true, func(k, v []byte) (bool, error) { return w.see(s, k, v) })
	})
	return w.list, w.next, err
}

// walk is one page on its way through an index.
type walk struct {
	Query
	prefix []byte
	looked int
	list   []payment.Payment
	next   string
}

func (w *walk) byDay() bool { return bytes.Equal(w.prefix, prefixDay) }

// start is the newest key of the page.
func (w *walk) start() ([]byte, error) {
	if w.Cursor != "" {
		return w.fromCursor()
	}
	if _, to := w.days(); w.byDay() && to != "" {
		return key(prefixDay, []byte(to), []byte{0xFF}), nil
	}
	return nil, nil
}

// fromCursor turns a cursor back into a key: a trade number, before it its day where days are walked.
func (w *walk) fromCursor() ([]byte, error) {
	day := 0
	if w.byDay() {
		day = len(time.DateOnly)
	}
	if len(w.Cursor) != day+26 || day > 0 && !isDate(w.Cursor[:day]) {
		return nil, fmt.Errorf("%w: cursor", ErrQuery)
	}
	trade, err := id(w.Cursor[day:])
	if err != nil {
		return nil, fmt.Errorf("%w: cursor", ErrQuery)
	}
	return key(w.prefix, []byte(w.Cursor[:day]), trade), nil
}

// see looks at one key, and answers false at the end of the page.
func (w *walk) see(s state, k, v []byte) (more bool, err error) {
	day, trade := "", k[len(k)-16:]
	if w.byDay() {
		day = string(k[1 : 1+len(time.DateOnly)])
		if from, _ := w.days(); day < from {
			return false, nil
		}
	}
	if len(w.list) == w.Limit || w.looked == maxScan {
		w.next = day + idText(trade)
		return false, nil
	}
	w.looked++
	var p payment.Payment
	var r row
	if day != "" {
		if r, err = decodeRow(v); err != nil {
			return false, err
		}
		in, err := w.inTime(day, r.at)
		if err != nil || !in || !w.matches(r, trade) {
			return true, err
		}
	}
	if err := get(s, key(prefixTrade, trade), &p); err != nil {
		return false, err
	}
	if day != "" || w.matches(rowOf(p), trade) {
		w.list = append(w.list, p)
	}
	return true, nil
}

// TradesOfDay reads every trade of a bill day, oldest first, from one moment of the book, until each fails.
func (b *Book) TradesOfDay(date string, each func(payment.Payment) error) error {
	if !isDate(date) {
		return fmt.Errorf("%w: date", ErrQuery)
	}
	return b.view(func(s state) error {
		var trades [][]byte
		prefix := key(prefixDay, []byte(date))
		err := s.scan(prefix, nil, false, func(k, _ []byte) (bool, error) {
			trades = append(trades, bytes.Clone(k[len(prefix):]))
			return true, nil
		})
		if err != nil {
			return err
		}
		return eachTrade(s, trades, each)
	})
}

// skipTrades is how many trades that are not wanted a walk passes by before it seeks the next wanted one.
const skipTrades = 32

// eachTrade reads trades by their sorted numbers. Trades of one day lie side by side, so it walks, and seeks only over gaps.
func eachTrade(s state, trades [][]byte, each func(payment.Payment) error) error {
	for len(trades) > 0 {
		passed, before := 0, len(trades)
		err := s.scan(prefixTrade, key(prefixTrade, trades[0]), false, func(k, v []byte) (bool, error) {
			switch c := bytes.Compare(k[len(prefixTrade):], trades[0]); {
			case c < 0:
				passed++
				return passed < skipTrades, nil
			case c > 0:
				return false, fmt.Errorf("%w: trade %s of the day index", ErrNotFound, idText(trades[0]))
			}
			var p payment.Payment
			if err := decMode.Unmarshal(v, &p); err != nil {
				return false, err
			}
			trades, passed = trades[1:], 0
			return len(trades) > 0, each(p)
		})
		if err == nil && len(trades) == before {
			err = fmt.Errorf("%w: trade %s of the day index", ErrNotFound, idText(trades[0]))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

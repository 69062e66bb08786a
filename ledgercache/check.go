package ledgercache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
)

// Check is what comparing the books with the trades found.
type Check struct {
	Trades   int
	Refunds  int
	Days     int
	Shifts   int
	Zs       uint64
	Accounts []Balance // what stands on every account; the sum is 0
	Wrong    []string  // each difference by name, at most 100; empty for good books
}

// maxWrong is how many differences are named.
const maxWrong = 100

// CheckBooks recomputes every balance from the trades and refunds alone (payment.Standing, not the events) and compares
// it with what was posted: accounts and figures of each day, figures of each shift, exposure, the indexes with the open work,
// and the Zs with their days. It reads one moment of the book and changes nothing. An error says that it could not be done; what it found
// stands in Wrong.
func (b *Book) CheckBooks(ctx context.Context) (c Check, err error) {
	err = b.view(func(s state) error {
		c, err = checkBooks(ctx, s)
		return err
	})
	return c, err
}

// checkBooks is CheckBooks for any whole state, on disk or folded in memory from a journal: what `posd journal verify`
// asks of a journal's own fold. A window that has let go of trades (reading.go) is no whole state.
func checkBooks(ctx context.Context, s state) (Check, error) {
	a := audit{ctx: ctx, state: s, days: map[string]*Day{}, shifts: map[string]*Totals{}}
	for _, part := range []func() error{a.trades, a.compareIndexes, a.refunds, a.compareDays, a.compareShifts, a.compareExposure, a.compareZs} {
		if err := part(); err != nil {
			return a.Check, err
		}
	}
	return a.Check, nil
}

// audit holds one day and one shift of figures each, not the trades.
type audit struct {
	Check
	ctx    context.Context
	state  state
	days   map[string]*Day
	shifts map[string]*Totals
	open   payment.Exposure
	leads  int // index keys that the trades ask for
}

func (a *audit) wrong(format string, args ...any) {
	if len(a.Wrong) < maxWrong {
		a.Wrong = append(a.Wrong, fmt.Sprintf(format, args...))
	}
}

func (a *audit) trades() error {
	return a.state.scan(prefixTrade, nil, false, func(k, value []byte) (bool, error) {
		var p payment.Payment
		if err := decMode.Unmarshal(value, &p); err != nil {
			return false, err
		}
		a.Trades++
		if idText(k[len(prefixTrade):]) != p.TradeNo {
			a.wrong("trade %s stands under the number %s", p.TradeNo, idText(k[len(prefixTrade):]))
		}
		if p.State == payment.AcceptedOffline {
			a.open.Count++
			a.open.Fen += p.TotalFen // an uint32 of fen each: 2^31 of them fit
		}
		if err := a.indexed(p, k[len(prefixTrade):]); err != nil {
			return false, err
		}
		return true, a.take(p.ShiftID, p.Standing(), tallyTrade(p))
	})
}

// indexed checks that every index leads to a trade.
func (a *audit) indexed(p payment.Payment, trade []byte) error {
	for _, e := range append(entries(p, bytes.Clone(trade)), entry{key(prefixOutTrade, []byte(p.OutTradeNo)), trade}) {
		a.leads++
		v, err := a.state.get(e.k)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if err != nil || !bytes.Equal(v, e.v) {
			a.wrong("trade %s: index %q does not lead to it as it is", p.TradeNo, e.k[:1])
		}
	}
	return nil
}

// compareIndexes finds index keys that lead to no trade.
func (a *audit) compareIndexes() error {
	have := 0
	for _, prefix := range [][]byte{prefixOutTrade, prefixDay, prefixAmount, prefixState, prefixOpenTrade, prefixUpload} {
		if err := eachNumber(a.state, prefix, func([]byte) error { have++; return nil }); err != nil {
			return err
		}
	}
	if have != a.leads {
		a.wrong("the indexes have %d keys, the trades ask for %d", have, a.leads)
	}
	return nil
}

func (a *audit) refunds() error {
	return a.state.scan(prefixRefund, nil, false, func(_, value []byte) (bool, error) {
		var f payment.Refund
		if err := decMode.Unmarshal(value, &f); err != nil {
			return false, err
		}
		a.Refunds++
		return true, a.take(f.ShiftID, f.Standing(), tallyRefund(f))
	})
}

// take adds what one trade or refund says.
func (a *audit) take(shiftID string, set payment.Set, t tally) error {
	if err := a.ctx.Err(); err != nil {
		return err
	}
	if err := set.Check(); err != nil {
		return err
	}
	days := map[string]bool{}
	for _, p := range set {
		days[p.Day] = true
	}
	if t.day != "" {
		days[t.day] = true
	}
	for day := range days {
		d := a.days[day]
		if d == nil {
			d = &Day{Date: day}
			a.days[day] = d
		}
		if err := d.add(set, tally{}, t); err != nil {
			return err
		}
	}
	if shiftID == "" || t.day == "" {
		return nil
	}
	if a.shifts[shiftID] == nil {
		a.shifts[shiftID] = new(Totals)
	}
	return a.shifts[shiftID].plus(t.Totals)
}

func (a *audit) compareDays() error {
	all := map[payment.Account]money.Fen{}
	err := eachDay(a.state, "", func(d Day) (bool, error) {
		a.Days++
		for account, fen := range d.Accounts {
			all[account] += fen // each sum was checked when it was made
		}
		want := a.days[d.Date]
		if want == nil {
			want = &Day{}
		}
		delete(a.days, d.Date)
		if want.Totals != d.Totals {
			a.wrong("day %s: figures %+v, its trades say %+v", d.Date, d.Totals, want.Totals)
		}
		if !maps.Equal(want.Accounts, d.Accounts) {
			a.wrong("day %s: accounts %v, its trades say %v", d.Date, d.Accounts, want.Accounts)
		}
		_, err := a.state.get(key(prefixDayOpen, []byte(d.Date)))
		if marked := err == nil; marked != d.open() {
			a.wrong("day %s: waits for a Z: %v, its mark says %v", d.Date, d.open(), marked)
		}
		return true, a.ctx.Err()
	})
	for _, day := range slices.Sorted(maps.Keys(a.days)) {
		if d := a.days[day]; d.Totals != (Totals{}) || len(d.Accounts) > 0 {
			a.wrong("day %s is not in the books, its trades say %+v, %v", day, d.Totals, d.Accounts)
		}
	}
	a.Accounts = balances(all)
	var sum money.Fen
	for _, fen := range all {
		sum += fen
	}
	if sum != 0 {
		a.wrong("the accounts come to %d fen, not to 0", sum)
	}
	return err
}

func (a *audit) compareShifts() error {
	err := a.state.scan(prefixShift, nil, false, func(_, value []byte) (bool, error) {
		var shift Shift
		if err := decMode.Unmarshal(value, &shift); err != nil {
			return false, err
		}
		a.Shifts++
		var want Totals
		if t := a.shifts[shift.ID]; t != nil {
			want = *t
		}
		delete(a.shifts, shift.ID)
		if want != shift.Totals {
			a.wrong("shift %d: figures %+v, its trades say %+v", shift.Number, shift.Totals, want)
		}
		return true, a.ctx.Err()
	})
	for _, shift := range slices.Sorted(maps.Keys(a.shifts)) {
		a.wrong("shift %s of %d sales is not in the book", shift, a.shifts[shift].Count)
	}
	return err
}

func (a *audit) compareExposure() error {
	have, err := exposureAt(a.state, keyExposure)
	if err != nil {
		return err
	}
	if have.Fen != a.open.Fen || have.Count != a.open.Count {
		a.wrong("exposure of %d fen in %d payments, the trades say %d in %d", have.Fen, have.Count, a.open.Fen, a.open.Count)
	}
	return nil
}

// compareZs counts the Zs, adds up what stands on them by day, and compares that with the days.
func (a *audit) compareZs() error {
	days := map[string]*Totals{}
	err := a.state.scan(prefixZ, nil, false, func(_, value []byte) (bool, error) {
		var z DayReport
		if err := decMode.Unmarshal(value, &z); err != nil {
			return false, err
		}
		if a.Zs++; z.Number != a.Zs {
			a.wrong("Z%06d stands where Z%06d should", z.Number, a.Zs)
		}
		var sum Totals
		for _, part := range z.Parts {
			if days[part.Date] == nil {
				days[part.Date] = new(Totals)
			}
			if err := days[part.Date].plus(part.Totals); err != nil {
				return false, err
			}
			if err := sum.plus(part.Totals); err != nil {
				return false, err
			}
		}
		if sum != z.Totals {
			a.wrong("Z%06d: figures %+v, its days come to %+v", z.Number, z.Totals, sum)
		}
		return true, a.ctx.Err()
	})
	if err != nil {
		return err
	}
	return eachDay(a.state, "", func(d Day) (bool, error) {
		var want Totals
		if t := days[d.Date]; t != nil {
			want = *t
		}
		if want != d.InZ {
			a.wrong("day %s: %+v are said to stand on a Z, the Zs say %+v", d.Date, d.InZ, want)
		}
		return true, nil
	})
}

package ledgercache

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
)

// Day is one bill day (Shanghai, by the ledger's success time) as the book has it now. It may still change after its Z:
// an answer may come late and name an earlier day. What changed since is Totals less InZ, and stands on the next Z.
type Day struct {
	Date     string                        `cbor:"1,keyasint"`           // "2006-01-02"
	Z        uint64                        `cbor:"2,keyasint,omitempty"` // number of the Z that closed it, 0 before
	Accounts map[payment.Account]money.Fen `cbor:"3,keyasint,omitempty"` // what was posted on this day; debit is positive
	InZ      Totals                        `cbor:"4,keyasint,omitzero"`  // the part of Totals that stands on a Z
	Totals
}

// Balance is what stands on one account, in fen; debit is positive.
type Balance struct {
	Account payment.Account
	Fen     money.Fen
}

// foldTradeBooks posts what an event means for the accounts, the day and the shift. A set that does not balance fails, so
// that its event cannot be journalled.
func foldTradeBooks(s state, before payment.Payment, e payment.Event, after payment.Payment) error {
	set, err := payment.Postings(before, e, after)
	if err != nil {
		return err
	}
	return foldBooks(s, after.ShiftID, set, tallyTrade(before), tallyTrade(after))
}

// foldBooks adds a set and the change from one tally to the next.
func foldBooks(s state, shiftID string, set payment.Set, was, is tally) error {
	days := make([]string, 0, 3)
	note := func(day string) {
		if day != "" && !slices.Contains(days, day) {
			days = append(days, day)
		}
	}
	for _, p := range set {
		note(p.Day)
	}
	if was != is {
		note(was.day)
		note(is.day)
	}
	for _, day := range days {
		if err := changeDay(s, day, func(d *Day) error { return d.add(set, was, is) }); err != nil {
			return err
		}
	}
	if was.Totals == is.Totals || shiftID == "" {
		return nil
	}
	return addToShift(s, shiftID, func(shift *Shift) (err error) {
		if shift.Totals, err = shift.less(was.Totals); err != nil {
			return err
		}
		return shift.plus(is.Totals)
	})
}

// add takes what is of this day.
func (d *Day) add(set payment.Set, was, is tally) (err error) {
	for _, p := range set {
		if p.Day != d.Date {
			continue
		}
		if d.Accounts == nil {
			d.Accounts = map[payment.Account]money.Fen{}
		}
		if d.Accounts[p.Account], err = money.Add(d.Accounts[p.Account], p.Fen); err != nil {
			return err
		}
		if d.Accounts[p.Account] == 0 {
			delete(d.Accounts, p.Account)
		}
	}
	if was.day == d.Date {
		if d.Totals, err = d.less(was.Totals); err != nil {
			return err
		}
	}
	if is.day == d.Date {
		return d.plus(is.Totals)
	}
	return nil
}

// open reports whether the day has figures that stand on no Z.
func (d Day) open() bool { return d.Totals != d.InZ }

// changeDay changes one day and keeps the index of days whose figures stand on no Z.
func changeDay(s state, date string, change func(*Day) error) error {
	d, err := dayAt(s, date)
	if err != nil {
		return err
	}
	was := d.open()
	if err := change(&d); err != nil {
		return err
	}
	switch mark := key(prefixDayOpen, []byte(date)); {
	case d.open() && !was:
		err = s.set(mark, nil)
	case was && !d.open():
		err = s.delete(mark)
	}
	if err != nil {
		return err
	}
	return put(s, key(prefixDayBook, []byte(date)), d)
}

// dayAt is the day as the book has it; a day on which nothing happened is empty.
func dayAt(s state, date string) (Day, error) {
	d := Day{Date: date}
	if err := get(s, key(prefixDayBook, []byte(date)), &d); err != nil && !errors.Is(err, ErrNotFound) {
		return d, err
	}
	return d, nil
}

// Day is the bill day "2006-01-02" as the book has it now, its figures and its accounts; one on which nothing happened is
// empty. It fails with ErrQuery for what is no date.
func (b *Book) Day(date string) (d Day, err error) {
	if !isDate(date) {
		return d, fmt.Errorf("%w: %.10q is no date", ErrQuery, date)
	}
	err = b.view(func(s state) error {
		d, err = dayAt(s, date)
		return err
	})
	return d, err
}

// Days are the days from..to, both included, on which something happened or that were closed, oldest first; "" is no bound.
func (b *Book) Days(from, to string) (list []Day, err error) {
	if from != "" && !isDate(from) || to != "" && !isDate(to) {
		return nil, fmt.Errorf("%w: %.10q to %.10q", ErrQuery, from, to)
	}
	err = b.view(func(s state) error {
		return eachDay(s, from, func(d Day) (bool, error) {
			if to != "" && d.Date > to {
				return false, nil
			}
			list = append(list, d)
			return true, nil
		})
	})
	return list, err
}

func eachDay(s state, from string, each func(Day) (bool, error)) error {
	return s.scan(prefixDayBook, key(prefixDayBook, []byte(from)), false, func(_, value []byte) (bool, error) {
		var d Day
		if err := decMode.Unmarshal(value, &d); err != nil {
			return false, err
		}
		return each(d)
	})
}

// Balances is what was posted on a bill day, every account in the order of payment.Accounts. Its sum is 0.
func (b *Book) Balances(date string) ([]Balance, error) {
	d, err := b.Day(date)
	return balances(d.Accounts), err
}

// TrialBalance is what stands on every account after all days. Its sum is 0.
func (b *Book) TrialBalance() (list []Balance, err error) {
	err = b.view(func(s state) error {
		all, err := trialBalance(s)
		list = balances(all)
		return err
	})
	return list, err
}

// trialBalance adds up the days: 400 of them are 400 small values.
func trialBalance(s state) (map[payment.Account]money.Fen, error) {
	all := map[payment.Account]money.Fen{}
	return all, eachDay(s, "", func(d Day) (bool, error) {
		for a, fen := range d.Accounts {
			sum, err := money.Add(all[a], fen)
			if err != nil {
				return false, err
			}
			all[a] = sum
		}
		return true, nil
	})
}

// balances lists accounts in their order, and after them any that this version does not know.
func balances(all map[payment.Account]money.Fen) (list []Balance) {
	for _, a := range payment.Accounts {
		list = append(list, Balance{a, all[a]})
	}
	for a, fen := range all {
		if !slices.Contains(payment.Accounts, a) {
			list = append(list, Balance{a, fen})
		}
	}
	slices.SortFunc(list, func(x, y Balance) int { return cmp.Compare(x.Account, y.Account) })
	return list
}

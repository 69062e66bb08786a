package payment

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"yupos/ledgercache/money"
)

// ErrUnbalanced says that what an event would post does not come to zero. Nothing may be journalled.
var ErrUnbalanced = errors.New("payment: unbalanced postings")

// BillZone is the time zone of the bill day. It has had no daylight saving since 1991, so a fixed offset is exact.
var BillZone = time.FixedZone("Asia/Shanghai", 8*60*60)

// Day is a bill day in Shanghai, as "2006-01-02".
func Day(at time.Time) string { return at.In(BillZone).Format(time.DateOnly) }

// Account is one account of the terminal's books. The numbers are the form on disk and are never reused.
//
// Debit is positive, credit negative. Money that has moved stands on the first six, by the day on which the ledger says
// that it moved. What is only promised stands on the memoranda: each is raised on the day on which the promise was made and
// released on that same day, so that a day's memorandum is what of that day is still open.
type Account int

// The accounts.
const (
	// Receivable (debit) is what the ledger owes the shop: what customers paid less the fee, when the ledger has said so;
	// less refunds, with the fee that comes back, when the ledger has said so. Paying out to the bank happens at the ledger.
	Receivable Account = 1
	// Sales (credit) is the price of what was paid for, when a trade becomes SUCCESS, whether by the ledger's word or by
	// evidence. It never becomes less: a refund is an event of its own.
	Sales Account = 2
	// Discounts (debit) is the part of the price that the customer did not pay, when it becomes known.
	Discounts Account = 3
	// Fees (debit) is the merchant's fee, when the ledger has told it, less what comes back with refunds.
	Fees Account = 4
	// Refunds (debit) is what went back to customers, when the ledger says SUCCESS of the refund.
	Refunds Account = 5
	// Unconfirmed (debit) is what customers paid by the evidence of a RECEIPT or of typed digits, from then until the
	// ledger's own word, which moves it to Receivable and Fees.
	Unconfirmed Account = 6

	// Exposed (memorandum) is what was accepted offline, from the acceptance until the ledger's judgement: a sale, a
	// bounce, or the end of what was withdrawn.
	Exposed Account = 20
	// Reversing (memorandum) is what the ledger says was paid while its reversal is under way, from that word to the end.
	Reversing Account = 21
	// Refunding (memorandum) is what was asked back and not answered, from the opening of a refund to its end.
	Refunding Account = 22
	// Bounces (memorandum) is what the ledger refused of what was accepted offline. It stays: what is collected of it later
	// is a sale of its own.
	Bounces Account = 23
	// Memoranda (credit) is the other side of every memorandum.
	Memoranda Account = 29
)

// Accounts are all accounts, in the order of a trial balance.
var Accounts = []Account{Receivable, Sales, Discounts, Fees, Refunds, Unconfirmed, Exposed, Reversing, Refunding, Bounces, Memoranda}

// Words name an account to a person.
func (a Account) Words() Words {
	switch a {
	case Receivable:
		return Words{"应收账本", "Receivable from the ledger"}
	case Sales:
		return Words{"销售", "Sales"}
	case Discounts:
		return Words{"优惠", "Discounts"}
	case Fees:
		return Words{"手续费", "Fees"}
	case Refunds:
		return Words{"退款", "Refunds"}
	case Unconfirmed:
		return Words{"凭证待确认", "Taken on evidence, to be confirmed"}
	case Exposed:
		return Words{"离线待入账", "Accepted offline, not judged"}
	case Reversing:
		return Words{"撤销中", "Being reversed"}
	case Refunding:
		return Words{"退款中", "Refunds under way"}
	case Bounces:
		return Words{"离线被拒", "Bounced"}
	case Memoranda:
		return Words{"备查对方", "Memoranda"}
	}
	return Words{fmt.Sprint("科目 ", int(a)), fmt.Sprint("Account ", int(a))}
}

// Posting is one line: so many fen on an account on a bill day. Debit is positive.
type Posting struct {
	Account Account
	Day     string
	Fen     money.Fen
}

// Set is what one event posts. A good set comes to zero on each of its days.
type Set []Posting

// on adds a line; nothing is no line.
func (s Set) on(day string, a Account, fen money.Fen) Set {
	if fen == 0 {
		return s
	}
	return append(s, Posting{a, day, fen})
}

// memo raises a memorandum, or releases it with a negative amount.
func (s Set) memo(day string, a Account, fen money.Fen) Set {
	return s.on(day, a, fen).on(day, Memoranda, -fen)
}

// Check is nil for a set that comes to zero on each of its days, else ErrUnbalanced or money.ErrOverflow.
func (s Set) Check() error {
	days := map[string]money.Fen{}
	for _, p := range s {
		sum, err := money.Add(days[p.Day], p.Fen)
		if err != nil {
			return err
		}
		days[p.Day] = sum
	}
	for _, day := range slices.Sorted(maps.Keys(days)) {
		if days[day] != 0 {
			return fmt.Errorf("%w: %d fen left on %s", ErrUnbalanced, days[day], day)
		}
	}
	return nil
}

// Postings is what the event posts that made after of before. It is a total switch: an event that is not written there
// cannot be posted and fails with ErrUnbalanced, as does a set that does not come to zero. Most events post nothing.
// A replay is no event, and posts nothing because it never gets here.
func Postings(before Payment, e Event, after Payment) (Set, error) {
	var s Set
	switch e.(type) {
	case Opened, Submitted, Rejected, Asked, CancelWanted, Expired, OrderShown, Withdrawn, ReceiptRefused, DigitsTyped:
		// Wishes, questions and refusals: no money has moved.
	case Accepted:
		s = s.memo(Day(after.AcceptedAt), Exposed, after.TotalFen)
	case ReceiptShown, DigitsMatched:
		s = s.taken(after)
	case Answered:
		s = s.answered(before, after)
	default:
		return nil, fmt.Errorf("%w: %T", ErrUnbalanced, e)
	}
	return s, s.Check()
}

// taken posts a sale on evidence. What is not known to be a discount is taken to be paid, until the ledger's word.
func (s Set) taken(p Payment) Set {
	day := Day(p.FinishedAt)
	return s.on(day, Sales, -p.TotalFen).on(day, Discounts, p.DiscountFen).on(day, Unconfirmed, p.TotalFen-p.DiscountFen)
}

// sold posts a sale by the ledger's word.
func (s Set) sold(p Payment) Set {
	day := Day(p.FinishedAt)
	return s.on(day, Sales, -p.TotalFen).on(day, Discounts, p.DiscountFen).on(day, Fees, p.FeeFen).on(day, Receivable, p.PaidFen-p.FeeFen)
}

// answered posts the ledger's word.
func (s Set) answered(before, after Payment) Set {
	if before.Unconfirmed {
		return s.confirmed(before, after)
	}
	if before.State == AcceptedOffline && after.State != AcceptedOffline {
		s = s.memo(Day(before.AcceptedAt), Exposed, -before.TotalFen)
	}
	wasBack, isBack := before.goesBack(), after.goesBack()
	switch day := Day(after.CreatedAt); {
	case isBack && !wasBack:
		s = s.memo(day, Reversing, after.TotalFen)
	case wasBack && !isBack:
		s = s.memo(day, Reversing, -after.TotalFen)
	}
	switch after.State {
	case Success:
		return s.sold(after)
	case Bounced:
		return s.memo(Day(after.FinishedAt), Bounces, after.TotalFen)
	case NotPay, UserPaying, Unknown, Closed, Revoked, PayError, AcceptedOffline:
	}
	return s
}

// goesBack reports whether the ledger says that p was paid while its reversal is under way.
func (p Payment) goesBack() bool { return p.Settled && p.State == Unknown }

// confirmed posts what the ledger says of a sale that was posted on evidence: who paid what, and the fee. Where it names
// another day, the sale moves there.
func (s Set) confirmed(before, after Payment) Set {
	from, to := Day(before.FinishedAt), Day(after.FinishedAt)
	s = s.on(from, Unconfirmed, before.DiscountFen-before.TotalFen)
	if from != to {
		return s.on(from, Sales, before.TotalFen).on(from, Discounts, -before.DiscountFen).sold(after)
	}
	return s.on(to, Discounts, after.DiscountFen-before.DiscountFen).on(to, Fees, after.FeeFen).on(to, Receivable, after.PaidFen-after.FeeFen)
}

// OpenedRefund is what the opening of a refund posts: a memorandum.
func OpenedRefund(f Refund) (Set, error) {
	s := Set{}.memo(Day(f.CreatedAt), Refunding, f.RefundFen)
	return s, s.Check()
}

// RefundPostings is what the ledger's word posts that made after of before: it ends the memorandum, and what went back is
// posted on the day on which it went back.
func RefundPostings(before, after Refund) (Set, error) {
	var s Set
	if !before.Final() && after.Final() {
		s = s.memo(Day(before.CreatedAt), Refunding, -before.RefundFen)
	}
	if after.State == RefundSuccess && before.State != RefundSuccess {
		day := Day(after.FinishedAt)
		s = s.on(day, Refunds, after.RefundFen).on(day, Fees, -after.FeeBackFen).on(day, Receivable, after.FeeBackFen-after.RefundFen)
	}
	return s, s.Check()
}

// Standing is what a trade as it stands says that all its postings must come to. It knows nothing of events: it is the
// other way to the same figures, and what Postings is compared with.
func (p Payment) Standing() Set {
	var s Set
	switch p.State {
	case Success:
		day := Day(p.FinishedAt)
		s = s.on(day, Sales, -p.TotalFen).on(day, Discounts, p.DiscountFen)
		if p.Unconfirmed {
			return s.on(day, Unconfirmed, p.TotalFen-p.DiscountFen)
		}
		return s.on(day, Fees, p.FeeFen).on(day, Receivable, p.TotalFen-p.DiscountFen-p.FeeFen)
	case AcceptedOffline:
		return s.memo(Day(p.AcceptedAt), Exposed, p.TotalFen)
	case Bounced:
		return s.memo(Day(p.FinishedAt), Bounces, p.TotalFen)
	case Unknown:
		if p.Settled {
			return s.memo(Day(p.CreatedAt), Reversing, p.TotalFen)
		}
	case NotPay, UserPaying, Closed, Revoked, PayError:
	}
	return s
}

// Standing is the same for a refund.
func (r Refund) Standing() Set {
	var s Set
	switch r.State {
	case RefundProcessing:
		return s.memo(Day(r.CreatedAt), Refunding, r.RefundFen)
	case RefundSuccess:
		day := Day(r.FinishedAt)
		return s.on(day, Refunds, r.RefundFen).on(day, Fees, -r.FeeBackFen).on(day, Receivable, r.FeeBackFen-r.RefundFen)
	case RefundFailed:
	}
	return s
}

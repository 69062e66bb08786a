package payment

// Lane says which open work goes first on the line: no payment waits for another's result, and nobody at the counter waits
// for what was taken before. It follows from what the book holds, not from the clock; Due says what to do and when.
type Lane byte

// The lanes, first to last. The numbers are the form in the book's index.
const (
	LaneNone   Lane = 0 // final, or an armed counter: there is nothing to say to the ledger
	LaneLive   Lane = 1 // somebody waits: a code that was sent, a shown ORDER
	LaneAsk    Lane = 2 // nobody waits: reversals, expired orders, what was settled by evidence and is to be confirmed
	LaneUpload Lane = 3 // evidence of offline acceptances, valid at any age
)

// Lane is where p stands in the outbox. It is a total switch over the states.
func (p Payment) Lane() Lane {
	switch p.State {
	case NotPay:
		if p.Mode == ByOrder {
			return LaneLive
		}
		return LaneNone
	case Unknown, UserPaying:
		if p.Reversing || p.Reason == ReasonExpired {
			return LaneAsk
		}
		return LaneLive
	case AcceptedOffline:
		return LaneUpload
	case Success:
		if p.Unconfirmed {
			return LaneAsk
		}
		return LaneNone
	case Closed, Revoked, PayError, Bounced:
		return LaneNone
	}
	return LaneNone
}

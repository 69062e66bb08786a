package payment

import "time"

// The times of the talk with the ledger (product.md, Default numbers).
const (
	AskEvery     = 3 * time.Second  // between two questions about a trade without an answer
	AskFor       = 45 * time.Second // then it is reversed
	OrderEvery   = 5 * time.Second  // between two questions about an ORDER on the screen: news come by themselves
	ConfirmEvery = 30 * time.Second // between two questions about an ORDER that was settled here by evidence
	PayWindow    = 60 * time.Second // an online pay is never sent later than this after its scan
	CounterFor   = 180 * time.Second
	OrderFor     = 180 * time.Second
	refundFirst  = 3 * time.Second
	refundLatest = 60 * time.Second
)

// reversalWaits are the times between reversals; the last one repeats until the ledger has answered.
var reversalWaits = []time.Duration{5 * time.Second, 10 * time.Second, 30 * time.Second, 60 * time.Second}

// Due says what the line must do next for p and when (perhaps in the past: then at once). started is when this process
// opened the book: a code submitted before is asked for, never sent again. OpNone means that the line has nothing to do.
func (p Payment) Due(now, started time.Time) (Op, time.Time) {
	switch p.State {
	case NotPay:
		if p.Mode != ByOrder {
			return OpNone, time.Time{}
		}
		if p.LastOp == OpNone {
			return OpOrder, p.CreatedAt
		}
		return OpQuery, p.LastAskAt.Add(OrderEvery)
	case Unknown, UserPaying:
		return p.dueOpen(now, started)
	case AcceptedOffline:
		if p.UploadAsks == 0 {
			return OpUpload, p.AcceptedAt
		}
		return OpUpload, p.LastAskAt.Add(waitAfter(p.UploadAsks))
	case Success:
		if p.Unconfirmed {
			return p.dueConfirmation()
		}
		return OpNone, time.Time{}
	case Closed, Revoked, PayError, Bounced:
		return OpNone, time.Time{}
	}
	return OpNone, time.Time{}
}

// dueConfirmation asks the ledger about an ORDER that was settled here by evidence.
func (p Payment) dueConfirmation() (Op, time.Time) {
	if p.LastOp == OpNone {
		return OpQuery, p.CreatedAt
	}
	return OpQuery, p.LastAskAt.Add(ConfirmEvery)
}

// waitAfter is the time after the n-th sending of what is sent until it is answered.
func waitAfter(n int) time.Duration { return reversalWaits[min(n, len(reversalWaits))-1] }

func (p Payment) dueOpen(now, started time.Time) (Op, time.Time) {
	if p.Reversing {
		if p.ReverseAsks == 0 { // at once
			return OpReverse, p.CreatedAt
		}
		return OpReverse, p.LastAskAt.Add(waitAfter(p.ReverseAsks))
	}
	if p.Mode == ByOrder { // shown and expired: one question, then the close
		if p.LastOp == OpQuery && !p.LastAskAt.Before(p.AskedSince) {
			return OpReverse, p.LastAskAt.Add(AskEvery)
		}
		return OpQuery, p.AskedSince
	}
	sameProcess := !p.SubmittedAt.Before(started)
	if !p.PaySent && (!sameProcess || now.After(p.NotAfter)) {
		return OpReverse, p.LastAskAt // the ledger never heard of it, and it is never sent again
	}
	deadline := p.SubmittedAt.Add(AskFor)
	next := p.LastAskAt.Add(AskEvery)
	if next.After(deadline) {
		// The last question goes out before the reversal, however long the line was down.
		if p.LastAskAt.Before(deadline) && now.After(next) && p.LastOp != OpQuery {
			return OpQuery, next
		}
		return OpReverse, deadline
	}
	if !p.PaySent && p.Code != "" {
		return OpPay, p.LastAskAt
	}
	return OpQuery, next
}

// Due says when the line must send the refund, again if it was sent before. Zero for one that has ended.
func (r Refund) Due() time.Time {
	if r.Final() {
		return time.Time{}
	}
	if r.Asks == 0 {
		return r.CreatedAt
	}
	wait := refundFirst << min(r.Asks-1, 5)
	return r.LastAskAt.Add(min(wait, refundLatest))
}

// ReverseReason is the word that a reversal gives the ledger.
func (p Payment) ReverseReason() Reason {
	switch p.Reason {
	case ReasonReversing, ReasonCancelled:
		return ReasonCancelled
	case ReasonExpired:
		return ReasonExpired
	}
	return ReasonNoAnswer
}

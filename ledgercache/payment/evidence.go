package payment

import (
	"fmt"
	"time"

	"yupos/ledgercache/money"
)

// This file holds the moves that evidence makes: an offline acceptance, a RECEIPT, typed digits, and what the ledger says
// of them afterwards.

func accept(p Payment, e Accepted, at time.Time) (Payment, error) {
	switch p.State {
	case NotPay:
		if p.Mode == ByOrder {
			return p, illegal(p, e)
		}
		p.Attempt++
		p.NotAfter = time.Time{} // this code was never sent
	case Unknown, UserPaying:
		if !p.Convertible() || p.Code != e.Code {
			return p, illegal(p, e)
		}
	case Success, Closed, Revoked, PayError, AcceptedOffline, Bounced:
		return p, illegal(p, e)
	}
	p.State, p.Reason, p.Path, p.Evidence = AcceptedOffline, "", Offline, ByAccept
	p.Code, p.SubmittedAt, p.Wallet, p.Token, p.Accept = e.Code, e.ScannedAt, e.Wallet, e.Token, e.Accept
	p.LastOp, p.PaySent, p.AcceptedAt = OpNone, false, at
	return p, nil
}

// withdraw takes an acceptance back. Once its upload may have left, or if it was sent online before it was converted, the
// ledger may have charged it: then it can only be refunded.
func withdraw(p Payment, e Withdrawn) (Payment, error) {
	if p.State == AcceptedOffline && p.Withdrawn {
		return p, ErrReplay
	}
	if p.State != AcceptedOffline || p.UploadAsks > 0 || !p.NotAfter.IsZero() {
		return p, illegal(p, e)
	}
	p.Withdrawn, p.Reason = true, ReasonWithdrawn
	return p, nil
}

// settlesHere reports whether evidence may still settle a shown ORDER: no reversal has left, whatever was wished or
// expired meanwhile.
func (p Payment) settlesHere() bool {
	return p.Mode == ByOrder && (p.State == NotPay || p.State == Unknown) && !p.ReversalStarted() && !p.Settled
}

func receiptShown(p Payment, e ReceiptShown) (Payment, error) {
	if p.State == Success && p.LedgerNo == e.LedgerNo && p.TotalFen == e.TotalFen {
		return p, ErrReplay
	}
	if !p.settlesHere() {
		return p, illegal(p, e)
	}
	if e.TotalFen != p.TotalFen || e.PaidFen < 0 || e.PaidFen > e.TotalFen || e.PaidAt.IsZero() {
		return p, fmt.Errorf("%w: receipt of %d fen, paid %d", ErrImpossible, e.TotalFen, e.PaidFen)
	}
	p.PaidFen, p.DiscountFen, p.LedgerNo, p.Token = e.PaidFen, e.TotalFen-e.PaidFen, e.LedgerNo, e.Token
	return onEvidence(p, ByReceipt, e.PaidAt), nil
}

func onEvidence(p Payment, kind Evidence, at time.Time) Payment {
	p.State, p.Reason, p.Path, p.Evidence, p.Unconfirmed = Success, "", Receipt, kind, true
	p.FinishedAt, p.Reversing, p.LastOp = at, false, OpNone
	return p
}

func receiptRefused(p Payment, e ReceiptRefused) (Payment, error) {
	if p.Mode != ByOrder || p.State != NotPay && p.State != Unknown {
		return p, illegal(p, e)
	}
	if p.Reversing {
		return p, ErrReplay
	}
	p.State, p.Reason, p.Reversing = Unknown, e.Reason, true
	return p, nil
}

func digitsTyped(p Payment, e DigitsTyped) (Payment, error) {
	if !p.settlesHere() || p.DigitTries >= MaxDigitTries {
		return p, illegal(p, e)
	}
	p.DigitTries++
	return p, nil
}

func digitsMatched(p Payment, e DigitsMatched) (Payment, error) {
	if !p.settlesHere() || p.DigitTries == 0 || e.At.IsZero() {
		return p, illegal(p, e)
	}
	return onEvidence(p, ByDigits, e.At), nil
}

// confirm takes the ledger's word about an ORDER that was settled here by evidence. It cannot undo the settlement: what
// denies it is impossible, and an alarm.
func confirm(p Payment, e Answered) (Payment, error) {
	if e.State != Success {
		if e.State == UserPaying {
			return p, ErrReplay
		}
		return p, fmt.Errorf("%w: ledger says %s of an order confirmed by %s", ErrImpossible, e.State, p.Evidence)
	}
	sum, err := money.Add(e.PaidFen, e.DiscountFen)
	if err != nil || e.TotalFen != p.TotalFen || sum != p.TotalFen || e.PaidFen < 0 || e.DiscountFen < 0 || e.FeeFen < 0 {
		return p, fmt.Errorf("%w: paid %d + %d of %d fen", ErrImpossible, e.PaidFen, e.DiscountFen, p.TotalFen)
	}
	if p.Evidence == ByReceipt && (e.PaidFen != p.PaidFen || e.LedgerNo != p.LedgerNo) {
		return p, fmt.Errorf("%w: the receipt says %d fen in %s, the ledger %d in %s", ErrImpossible, p.PaidFen, p.LedgerNo, e.PaidFen, e.LedgerNo)
	}
	p.Settled, p.Unconfirmed, p.PaidFen, p.DiscountFen, p.FeeFen, p.LedgerNo = true, false, e.PaidFen, e.DiscountFen, e.FeeFen, e.LedgerNo
	if !e.PaidAt.IsZero() {
		p.FinishedAt = e.PaidAt
	}
	return p, nil
}

// judged takes the ledger's judgement of an offline acceptance: paid by the wallet or by its guarantee, bounced, or
// withdrawn as it was asked. After a conversion it may also be the answer to the payment as it was sent online.
func judged(p Payment, e Answered, at time.Time) (Payment, error) {
	switch e.State {
	case Success:
		if p.Withdrawn {
			return p, fmt.Errorf("%w: a withdrawn payment was charged", ErrImpossible)
		}
		up, err := paid(p, e)
		if err != nil {
			return p, err
		}
		up.Reason, up.Bearer = e.Reason, e.Bearer
		return up, nil
	case Bounced:
		if e.To != OpUpload && e.To != OpNone {
			break
		}
		p.State, p.Reason, p.Bearer, p.FinishedAt = Bounced, e.Reason, e.Bearer, at
		return p, nil
	case Revoked, Closed:
		if !p.Withdrawn {
			break
		}
		p.State, p.FinishedAt = Revoked, at
		return p.forget(), nil
	case NotPay, UserPaying, Unknown, AcceptedOffline, PayError, NotFound:
		// The talk about the online sending goes on arriving; the evidence is what counts now.
		return p, ErrReplay
	}
	return p, fmt.Errorf("%w: ledger says %s of an offline acceptance", ErrImpossible, e.State)
}

// forget drops from the state what only an open payment needs, the code and the talk about it; the journal keeps it.
func (p Payment) forget() Payment {
	p.Code, p.Wallet, p.Accept = "", nil, nil
	p.SubmittedAt, p.NotAfter, p.LastAskAt, p.AskedSince = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	p.LastOp, p.PaySent = OpNone, false
	return p
}

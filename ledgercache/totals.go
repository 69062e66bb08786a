package ledgercache

import (
	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
)

// Part is a number of trades and what they come to.
type Part struct {
	Count int       `cbor:"1,keyasint,omitempty"`
	Fen   money.Fen `cbor:"2,keyasint,omitempty"`
}

// Totals are the figures of a shift, a day or a Z, in fen: what became SUCCESS, and what went back.
type Totals struct {
	Count       int       `cbor:"7,keyasint,omitempty"` // sales, by every path
	TotalFen    money.Fen `cbor:"8,keyasint,omitempty"` // their price
	FeeFen      money.Fen `cbor:"9,keyasint,omitempty"` // the merchant's fee, as far as the ledger has told it
	DiscountFen money.Fen `cbor:"10,keyasint,omitempty"`
	RefundCount int       `cbor:"11,keyasint,omitempty"`
	RefundFen   money.Fen `cbor:"12,keyasint,omitempty"`
	FeeBackFen  money.Fen `cbor:"13,keyasint,omitempty"`
	Online      Part      `cbor:"14,keyasint,omitzero"` // the sales by path
	Receipt     Part      `cbor:"15,keyasint,omitzero"`
	Offline     Part      `cbor:"16,keyasint,omitzero"`
	Bounced     Part      `cbor:"17,keyasint,omitzero"` // accepted offline and refused by the ledger: no sales
}

// NetFen is what the ledger owes for these figures: the price less discounts, fees and refunds, with the fees that came back.
func (t Totals) NetFen() money.Fen {
	return t.TotalFen - t.DiscountFen - t.FeeFen - t.RefundFen + t.FeeBackFen
}

func (t *Totals) counts() []*int {
	return []*int{&t.Count, &t.RefundCount, &t.Online.Count, &t.Receipt.Count, &t.Offline.Count, &t.Bounced.Count}
}

func (t *Totals) fen() []*money.Fen {
	return []*money.Fen{
		&t.TotalFen, &t.FeeFen, &t.DiscountFen, &t.RefundFen, &t.FeeBackFen, &t.Online.Fen, &t.Receipt.Fen, &t.Offline.Fen, &t.Bounced.Fen,
	}
}

// plus adds o, or returns money.ErrOverflow.
func (t *Totals) plus(o Totals) error {
	for i, c := range t.counts() {
		*c += *o.counts()[i]
	}
	for i, f := range t.fen() {
		sum, err := money.Add(*f, *o.fen()[i])
		if err != nil {
			return err
		}
		*f = sum
	}
	return nil
}

// less is t without o.
func (t Totals) less(o Totals) (Totals, error) {
	for _, c := range o.counts() {
		*c = -*c
	}
	for _, f := range o.fen() {
		*f = -*f
	}
	err := t.plus(o)
	return t, err
}

// tally is what one trade or refund adds to the figures, and on which bill day. The zero tally adds nothing.
type tally struct {
	day string
	Totals
}

func tallyTrade(p payment.Payment) (t tally) {
	one := Part{1, p.TotalFen}
	switch p.State {
	case payment.Success:
		t.Count, t.TotalFen, t.FeeFen, t.DiscountFen = 1, p.TotalFen, p.FeeFen, p.DiscountFen
		switch p.Path {
		case payment.Online:
			t.Online = one
		case payment.Receipt:
			t.Receipt = one
		case payment.Offline:
			t.Offline = one
		}
	case payment.Bounced:
		t.Bounced = one
	case payment.NotPay, payment.UserPaying, payment.Unknown, payment.Closed, payment.Revoked, payment.PayError, payment.AcceptedOffline:
		return tally{}
	}
	t.day = payment.Day(p.FinishedAt)
	return t
}

func tallyRefund(f payment.Refund) (t tally) {
	if f.State != payment.RefundSuccess {
		return tally{}
	}
	t.day, t.RefundCount, t.RefundFen, t.FeeBackFen = payment.Day(f.FinishedAt), 1, f.RefundFen, f.FeeBackFen
	return t
}

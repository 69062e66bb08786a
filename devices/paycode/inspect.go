package paycode

import (
	"crypto/ed25519"
	"encoding/hex"
	"time"
)

// The two verdicts of an [Inspection].
const (
	VerdictOK      = "OK"
	VerdictRefused = "REFUSED"
)

// InspectKeys are the public keys that whoever inspects a code trusts, without windows. Any terminal key may have signed
// an ORDER.
type InspectKeys struct{ Issuer, Ledger, Terminal []ed25519.PublicKey }

// Inspection is the answer of "posctl code inspect", and marshals into exactly its JSON object.
type Inspection struct {
	Kind    Kind           `json:"kind"`
	Verdict string         `json:"verdict"`
	Reason  Reason         `json:"reason"`
	Fields  map[string]any `json:"fields"` // flat; empty where the text could not be read
}

// Inspect says what a text is and whether it may be believed with these keys at this time. The fields of a refused code are
// shown as they stand in it; only the verdict says whether they are true.
func Inspect(text string, keys InspectKeys, now time.Time) Inspection {
	in := Inspection{Kind: Classify(text), Verdict: VerdictRefused, Fields: map[string]any{}}
	switch in.Kind {
	case KindMalformed:
		in.Reason = Malformed
	case KindOnline:
		in.Reason = CheckOnline(text)
	case KindSigned:
		in.Reason = in.signed(text, pinned(keys.Issuer), now)
	case KindReceipt:
		in.Reason = in.receipt(text, pinned(keys.Ledger), now)
	case KindOrder:
		in.Reason = in.order(text, keys.Terminal, now)
	default:
		in.Reason = ForeignCode
		in.foreign(text)
	}
	if in.Reason == OK {
		in.Verdict = VerdictOK
	}
	return in
}

func pinned(public []ed25519.PublicKey) Keys {
	keys := make(Keys, len(public))
	for i, p := range public {
		keys[i].Public = p
	}
	return keys
}

func (in *Inspection) signed(text string, issuers Keys, now time.Time) Reason {
	s, reason := ParseSigned(text)
	if reason != OK {
		return reason
	}
	in.Fields = map[string]any{
		"counter": s.Counter, "created": s.Created, "token": hex.EncodeToString(s.Cert.Token[:]), "tier": s.Cert.Tier,
		"per_payment_fen": s.Cert.PerPaymentFen, "allowance_fen": s.Cert.AllowanceFen, "max_count": s.Cert.MaxCount,
		"most_fen": s.MostFen,
	}
	return s.Verify(issuers, now)
}

func (in *Inspection) receipt(text string, ledger Keys, now time.Time) Reason {
	r, reason := VerifyReceipt(text, ledger, now)
	if reason != Malformed {
		in.Fields = map[string]any{
			"order": r.Order, "terminal_id": r.TerminalID, "amount_fen": r.AmountFen, "paid_fen": r.PaidFen,
			"paid_at": r.PaidAt, "payment": r.Payment,
		}
	}
	return reason
}

func (in *Inspection) order(text string, terminals []ed25519.PublicKey, now time.Time) Reason {
	trusted := make([]Terminal, len(terminals))
	for i, key := range terminals {
		trusted[i].Key = key
	}
	o, reason := verifyOrder(text, func(string) []Terminal { return trusted }, now)
	if reason != Malformed {
		in.Fields = map[string]any{
			"order": o.ULID, "amount_fen": o.AmountFen, "merchant_id": o.MerchantID, "terminal_id": o.TerminalID,
			"merchant_name": o.MerchantName, "mcc": o.MCC, "expires": o.Expires,
		}
	}
	return reason
}

// foreign shows the name that a foreign EMVCo code gives itself.
func (in *Inspection) foreign(text string) {
	consumer, err := ParseConsumer(text)
	if err != nil {
		return
	}
	for _, a := range consumer.Applications() {
		in.Fields["aid"], in.Fields["label"] = hex.EncodeToString(a.AID), a.Label
		return
	}
}

package ledgercache

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"

	"yupos/ledgercache/payment"
	"yupos/ledgercache/trust"
)

// This file holds what the ledger tells every terminal in signed envelopes: keys, policy, deny list, fees, operators. The
// envelope is journalled as it came, and what it says is derived from it.

// ErrTopic says that a topic is not kept in the book.
var ErrTopic = errors.New("ledgercache: news of a topic that is not kept")

// learned is an envelope that was verified before it was journalled.
type learned struct {
	Topic   trust.Topic `cbor:"1,keyasint"`
	KeyID   string      `cbor:"2,keyasint"`
	Payload []byte      `cbor:"3,keyasint"`
	Sig     []byte      `cbor:"4,keyasint"`
}

// Fees is what the merchant pays, as the ledger has told.
type Fees struct {
	Version     uint32 `cbor:"1,keyasint"`
	BasisPoints int    `cbor:"2,keyasint"`
}

// Learn takes signed news: verified with the pinned keys, judged by their version, journalled, and in force at the next
// decision. News for another terminal and news that are known already change nothing.
//
// It fails with trust.ErrUnknownKey, trust.ErrForged or trust.ErrPayload for what is not to be believed, with
// trust.ErrGap where the whole deny list is needed, with ErrTopic for signed time, and with trust.ErrRolledBack, which is
// kept as an alarm too.
func (b *Book) Learn(ctx context.Context, topic trust.Topic, e trust.Envelope) error {
	var refused error
	err := b.doAlone(ctx, func(t *tx) error {
		refused = nil
		err := t.learn(topic, e)
		switch {
		case errors.Is(err, trust.ErrKnown), errors.Is(err, trust.ErrNotForHere):
			return nil
		case errors.Is(err, trust.ErrRolledBack):
			refused = err
			return t.alarm("ROLLED_BACK", payment.Answered{}, fmt.Sprintf("%s: %v", topic, err))
		}
		return err
	})
	return cmp.Or(err, refused)
}

func (t *tx) learn(topic trust.Topic, e trust.Envelope) error {
	pins, err := t.book.pinsOf(t.state)
	if err != nil {
		return err
	}
	payload, err := pins.Open(topic, e, t.at)
	if err != nil {
		return err
	}
	header, err := headerOf(topic, payload)
	if err != nil {
		return err
	}
	if err := header.For(t.book.opts.TerminalID); err != nil {
		return err
	}
	seen, err := markOf(t.state, topic)
	if err != nil {
		return err
	}
	if _, err := seen.Next(header.Version, payload); err != nil {
		return err
	}
	return t.emit(recLearned, learned{Topic: topic, KeyID: e.KeyID, Payload: payload, Sig: e.Sig})
}

// headerOf reads a payload as its topic wants it.
func headerOf(topic trust.Topic, payload []byte) (trust.Header, error) {
	switch topic {
	case trust.Keys:
		n, _, err := trust.DecodeKeys(payload)
		return n.Header, err
	case trust.Rules:
		n, err := trust.DecodePolicy(payload)
		return n.Header, err
	case trust.Deny:
		n, err := trust.DecodeDeny(payload)
		return n.Header, err
	case trust.Head:
		n, err := trust.DecodeHead(payload)
		return n.Header, err
	case trust.Fees:
		n, err := trust.DecodeFees(payload)
		return n.Header, err
	case trust.Operators:
		n, err := trust.DecodeOperators(payload)
		return n.Header, err
	case trust.Time: // answers one question and is kept by nobody
	}
	return trust.Header{}, ErrTopic
}

// foldLearned derives what an envelope says. It was verified when it was journalled; the keys of that day may be gone.
func foldLearned(s state, r record) ([]Change, error) {
	e, err := body[learned](r)
	if err != nil {
		return nil, err
	}
	header, err := headerOf(e.Topic, e.Payload)
	if err != nil {
		return nil, err
	}
	seen, err := markOf(s, e.Topic)
	if err != nil {
		return nil, err
	}
	next, err := seen.Next(header.Version, e.Payload)
	if err != nil {
		return nil, err
	}
	if err := put(s, key(prefixMark, []byte(e.Topic)), next); err != nil {
		return nil, err
	}
	return []Change{{Kind: ChangeNews}}, foldTopic(s, e)
}

func foldTopic(s state, e learned) error {
	switch e.Topic {
	case trust.Keys:
		_, pins, err := trust.DecodeKeys(e.Payload)
		if err != nil {
			return err
		}
		return put(s, keyPins, pins)
	case trust.Rules:
		n, err := trust.DecodePolicy(e.Payload)
		if err != nil {
			return err
		}
		return put(s, keyPolicy, policyFrom(n))
	case trust.Deny:
		return foldDeny(s, e.Payload)
	case trust.Fees:
		n, err := trust.DecodeFees(e.Payload)
		if err != nil {
			return err
		}
		return put(s, keyFees, Fees{Version: n.Version, BasisPoints: n.BasisPoints})
	case trust.Operators:
		n, err := trust.DecodeOperators(e.Payload)
		if err != nil {
			return err
		}
		return put(s, keyOperators, n.Operators)
	case trust.Head:
		n, err := trust.DecodeHead(e.Payload)
		if err != nil {
			return err
		}
		return put(s, keySignedHead, Cursor{Epoch: n.Epoch, Sequence: n.Sequence, Head: n.Head})
	case trust.Time:
	}
	return ErrTopic
}

func policyFrom(n trust.PolicyNews) Policy {
	return Policy{
		Version: n.Version, IssuedAt: n.IssuedAt(), Until: n.ExpiresAt(), CodeSeconds: n.CodeSeconds, SkewSeconds: n.SkewSeconds,
		Limits: payment.Limits{
			PaymentFen: n.PaymentFen, WalletFen: n.WalletFen, WalletCount: n.WalletCount, TerminalFen: n.TerminalFen,
			TerminalCount: n.TerminalCount, ConvertFen: n.ConvertFen, DigitsFen: n.DigitsFen,
		},
	}
}

// foldDeny applies a deny list or its delta. Tokens lie in buckets by their first byte, so that a delta writes what it
// touches and a look-up reads one value.
func foldDeny(s state, payload []byte) error {
	n, err := trust.DecodeDeny(payload)
	if err != nil {
		return err
	}
	here, err := denyListOf(s)
	if err != nil {
		return err
	}
	have, err := deniedTokens(s)
	if err != nil {
		return err
	}
	list, err := n.Apply(have, here.Version)
	if err != nil {
		return err
	}
	was, is := buckets(have), buckets(list)
	for first := range 256 {
		k := key(prefixDenied, []byte{byte(first)})
		switch {
		case bytes.Equal(was[first], is[first]):
			continue
		case len(is[first]) == 0:
			err = s.delete(k)
		default:
			err = s.set(k, is[first])
		}
		if err != nil {
			return err
		}
	}
	return put(s, keyDenyList, DenyList{Version: n.Version, IssuedAt: n.IssuedAt(), Until: n.ExpiresAt(), Count: n.Count, Hash: n.SHA256})
}

func buckets(list [][8]byte) (all [256][]byte) {
	for _, token := range list {
		all[token[0]] = append(all[token[0]], token[:]...)
	}
	return all
}

// deniedTokens is the whole list, in rising order.
func deniedTokens(s state) (list [][8]byte, err error) {
	err = s.scan(prefixDenied, nil, false, func(_, v []byte) (bool, error) {
		for token := range slices.Chunk(v, 8) {
			list = append(list, [8]byte(token))
		}
		return true, nil
	})
	return list, err
}

// denied reports whether the deny list names a wallet's token.
func denied(s state, token []byte) (bool, error) {
	if len(token) != 8 {
		return false, nil
	}
	bucket, err := s.get(key(prefixDenied, token[:1]))
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	n := len(bucket) / 8
	at := sort.Search(n, func(i int) bool { return bytes.Compare(bucket[i*8:i*8+8], token) >= 0 })
	return at < n && bytes.Equal(bucket[at*8:at*8+8], token), nil
}

func markOf(s state, topic trust.Topic) (m trust.Mark, err error) {
	if err := get(s, key(prefixMark, []byte(topic)), &m); err != nil && !errors.Is(err, ErrNotFound) {
		return m, err
	}
	return m, nil
}

// pinsOf is whom the terminal believes now: the pins of its enrolment until the ledger has sent a key set, then that set
// and the roots of the enrolment.
func (b *Book) pinsOf(s state) (trust.Pins, error) {
	var set trust.Pins
	if err := get(s, keyPins, &set); errors.Is(err, ErrNotFound) {
		return b.opts.Pins, nil
	} else if err != nil {
		return nil, err
	}
	return b.opts.Pins.Replace(set), nil
}

// Pins is whom the terminal believes now.
func (b *Book) Pins() (pins trust.Pins, err error) {
	err = b.view(func(s state) error { pins, err = b.pinsOf(s); return err })
	return pins, err
}

// Marks are the highest versions of each topic that the book has seen: what the hello tells the ledger.
func (b *Book) Marks() (map[trust.Topic]trust.Mark, error) {
	marks := map[trust.Topic]trust.Mark{}
	err := b.view(func(s state) error {
		for _, topic := range trust.Topics {
			m, err := markOf(s, topic)
			if err != nil {
				return err
			}
			if m.Version > 0 {
				marks[topic] = m
			}
		}
		return nil
	})
	return marks, err
}

// Fees is what the merchant pays, the zero Fees before the ledger has told.
func (b *Book) Fees() (f Fees, err error) {
	err = b.view(func(s state) error {
		if err := get(s, keyFees, &f); !errors.Is(err, ErrNotFound) {
			return err
		}
		return nil
	})
	return f, err
}

// Operators are the people whom the ledger has named for this terminal.
func (b *Book) Operators() (list []trust.Operator, err error) {
	err = b.view(func(s state) error {
		if err := get(s, keyOperators, &list); !errors.Is(err, ErrNotFound) {
			return err
		}
		return nil
	})
	return list, err
}

// SignedHead is the newest head of this journal that the ledger has countersigned, the zero Cursor before the first.
func (b *Book) SignedHead() (c Cursor, err error) {
	err = b.view(func(s state) error {
		if err := get(s, keySignedHead, &c); !errors.Is(err, ErrNotFound) {
			return err
		}
		return nil
	})
	return c, err
}

package ledgersim

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"

	"yupos/ledgercache/money"
	"yupos/sync/wire"
)

// This file signs what the terminals believe: policy, deny list, fees, heads, time. It shares no code with the terminal's
// verifier; codes.md and the terminal's format page are what both are written from.

// renewNews is how old policy and deny list may become before they are issued anew: terminals rely on them for 72 h.
const renewNews = 12 * time.Hour

// newsLife is how long policy and deny list are valid.
const newsLife = 72 * time.Hour

// partBytes is how much of a payload one frame carries.
const partBytes = 40 << 10

// header is how every payload begins.
type header struct {
	Terminal string `json:"terminal"`
	Version  uint32 `json:"version"`
	Issued   int64  `json:"issued"`
	Expires  int64  `json:"expires"`
}

// policy is the rule for offline payments.
type policy struct {
	header
	PaymentFen    money.Fen `json:"payment_fen"`
	WalletFen     money.Fen `json:"wallet_fen"`
	WalletCount   int       `json:"wallet_count"`
	TerminalFen   money.Fen `json:"terminal_fen"`
	TerminalCount int       `json:"terminal_count"`
	ConvertFen    money.Fen `json:"convert_fen"`
	DigitsFen     money.Fen `json:"digits_fen"`
	CodeSeconds   int       `json:"code_seconds"`
	SkewSeconds   int       `json:"skew_seconds"`
}

// firstPolicy is product.md's numbers.
var firstPolicy = policy{
	PaymentFen: 200_00, WalletFen: 500_00, WalletCount: 10, TerminalFen: 5000_00, TerminalCount: 200, ConvertFen: 50_00, DigitsFen: 1000_00,
	CodeSeconds: 60, SkewSeconds: 30,
}

// denial is a deny list, whole or as a delta.
type denial struct {
	header
	Base   uint32   `json:"base"`
	Add    []string `json:"add"`
	Remove []string `json:"remove"`
	Count  int      `json:"count"`
	SHA256 string   `json:"sha256"`
}

func policyKey(version uint32) string { return fmt.Sprintf("policy/%010d", version) }
func denialKey(version uint32) string { return fmt.Sprintf("deny/%010d", version) }
func deniedKey(token string) string   { return "denied/" + token }
func signedKey(t wire.Topic, terminalID string) string {
	return "signed/" + string(t) + "/" + terminalID
}

// published is an envelope as it is served, with its version. Whole is the deny list's where News is a delta on Base.
type published struct {
	News  wire.News  `json:"news"`
	Base  uint32     `json:"base,omitempty"`
	Whole *wire.News `json:"whole,omitempty"`

	Before *wire.News `json:"before,omitempty"` // the version before, whole
}

// everyone is the terminal id of what is for all.
const everyone = "all"

// seal signs a payload for a topic, with the key of its role.
func (l *Ledger) seal(topic wire.Topic, payload any) (wire.Envelope, error) {
	raw, err := json.Marshal(payload)
	if err != nil {
		return wire.Envelope{}, err
	}
	key := l.role["policy"]
	if topic == wire.TopicKeys {
		key = l.role["root"]
	}
	id := sha256.Sum256(publicOf(key))
	return wire.Envelope{KeyID: hex.EncodeToString(id[:4]), Payload: raw, Sig: ed25519.Sign(key, append([]byte("yupay-"+string(topic)+"-v1"), raw...))}, nil
}

func (l *Ledger) newsOf(topic wire.Topic, version uint32, payload any) (wire.News, error) {
	e, err := l.seal(topic, payload)
	return wire.News{Topic: topic, Version: version, Part: 1, Parts: 1, Envelope: e}, err
}

// issued begins a payload that is issued now.
func (l *Ledger) issued(terminalID string, version uint32) header {
	now := l.now().Unix()
	return header{terminalID, version, now, now + int64(newsLife/time.Second)}
}

// renew issues policy and deny list anew where they are missing or old, so that an idle ledger's terminals stay able to
// sell offline. l.mu is held.
func (l *Ledger) renew(txn *badger.Txn) error {
	old := l.now().Add(-renewNews).Unix()
	var p policy
	if err := l.newest(txn, wire.TopicPolicy, &p); err != nil {
		return err
	}
	if p.Version == 0 {
		p = firstPolicy
	}
	if p.Issued < old {
		if err := l.putPolicy(txn, p); err != nil {
			return err
		}
	}
	var d denial
	if err := l.newest(txn, wire.TopicDeny, &d); err != nil || d.Version > 0 && d.Issued >= old {
		return err
	}
	return l.putDenial(txn, nil, nil)
}

// newest reads the payload that is published under a topic for everyone, and leaves into as it is if there is none.
func (l *Ledger) newest(txn *badger.Txn, topic wire.Topic, into any) error {
	var had published
	if err := get(txn, signedKey(topic, everyone), &had); errors.Is(err, errNone) {
		return nil
	} else if err != nil {
		return err
	}
	return json.Unmarshal(had.News.Envelope.Payload, into)
}

// putPolicy publishes p as the next version.
func (l *Ledger) putPolicy(txn *badger.Txn, p policy) error {
	p.header = l.issued(everyone, p.Version+1)
	n, err := l.newsOf(wire.TopicPolicy, p.Version, p)
	if err != nil {
		return err
	}
	if err := put(txn, policyKey(p.Version), p); err != nil {
		return err
	}
	return l.putNews(txn, wire.TopicPolicy, everyone, published{News: n})
}

// putDenial publishes the next version of the deny list: as a delta on the one before, and whole.
func (l *Ledger) putDenial(txn *badger.Txn, add, remove []string) error {
	var last denial
	if err := l.newest(txn, wire.TopicDeny, &last); err != nil {
		return err
	}
	version := last.Version + 1
	list, err := l.deniedNow(txn)
	if err != nil {
		return err
	}
	add = slices.DeleteFunc(slices.Compact(slices.Sorted(slices.Values(add))), func(t string) bool { return slices.Contains(list, t) })
	remove = slices.DeleteFunc(slices.Compact(slices.Sorted(slices.Values(remove))), func(t string) bool { return !slices.Contains(list, t) })
	for _, token := range add {
		if err := put(txn, deniedKey(token), version); err != nil {
			return err
		}
	}
	for _, token := range remove {
		if err := txn.Delete([]byte(deniedKey(token))); err != nil {
			return err
		}
	}
	list = slices.DeleteFunc(list, func(t string) bool { return slices.Contains(remove, t) })
	list = slices.Sorted(slices.Values(append(list, add...)))
	result := denial{header: l.issued(everyone, version), Count: len(list), SHA256: denyHash(list)}
	whole, delta := result, result
	whole.Add, whole.Remove = list, []string{}
	delta.Base, delta.Add, delta.Remove = last.Version, notNil(add), notNil(remove)
	if err := put(txn, denialKey(version), denial{header: result.header}); err != nil {
		return err
	}
	w, err := l.newsOf(wire.TopicDeny, version, whole)
	if err != nil || last.Version == 0 {
		return errors.Join(err, l.putNews(txn, wire.TopicDeny, everyone, published{News: w}))
	}
	d, err := l.newsOf(wire.TopicDeny, version, delta)
	return errors.Join(err, l.putNews(txn, wire.TopicDeny, everyone, published{News: d, Base: last.Version, Whole: &w}))
}

func notNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func (l *Ledger) deniedNow(txn *badger.Txn) (list []string, err error) {
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte("denied/")})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		list = append(list, string(bytes.TrimPrefix(it.Item().Key(), []byte("denied/"))))
	}
	return list, nil
}

func denyHash(list []string) string {
	h := sha256.New()
	for _, token := range list {
		raw, _ := hex.DecodeString(token) // tokens are checked where they come in
		h.Write(raw)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// fees is what the merchant pays.
type fees struct {
	header
	BasisPoints int `json:"basis_points"`
}

// publishFees signs the merchant's fee for a terminal, once for each rate.
func (l *Ledger) publishFees(txn *badger.Txn, t terminal) error {
	var shop merchant
	if err := get(txn, merchantKey(t.MerchantID), &shop); err != nil {
		return err
	}
	var had published
	var f fees
	if err := get(txn, signedKey(wire.TopicFees, t.ID), &had); err == nil {
		if err := json.Unmarshal(had.News.Envelope.Payload, &f); err != nil || f.BasisPoints == shop.FeeBP {
			return err
		}
	} else if !errors.Is(err, errNone) {
		return err
	}
	f = fees{l.issued(t.ID, f.Version+1), shop.FeeBP}
	n, err := l.newsOf(wire.TopicFees, f.Version, f)
	return errors.Join(err, l.putNews(txn, wire.TopicFees, t.ID, published{News: n}))
}

// newsFor is what a terminal that has these versions lacks.
func (l *Ledger) newsFor(txn *badger.Txn, terminalID string, have map[wire.Topic]uint32) (list []wire.News, err error) {
	for _, at := range []struct {
		topic wire.Topic
		whose string
	}{{wire.TopicKeys, everyone}, {wire.TopicPolicy, everyone}, {wire.TopicDeny, everyone}, {wire.TopicFees, terminalID}} {
		var p published
		if err := get(txn, signedKey(at.topic, at.whose), &p); errors.Is(err, errNone) {
			continue
		} else if err != nil {
			return nil, err
		}
		switch {
		case p.News.Version <= have[at.topic]:
		case p.Whole != nil && p.Base != have[at.topic]:
			list = append(list, *p.Whole)
		default:
			list = append(list, p.News)
		}
	}
	return list, nil
}

// frames cuts news that are too long for one.
func frames(n wire.News) (list []wire.News) {
	payload := n.Envelope.Payload
	n.Parts = max(1, (len(payload)+partBytes-1)/partBytes)
	for n.Part = 1; n.Part <= n.Parts; n.Part++ {
		n.Envelope.Payload = payload[:min(partBytes, len(payload))]
		payload = payload[len(n.Envelope.Payload):]
		list = append(list, n)
	}
	return list
}

// want answers with the whole of a topic.
func (l *Ledger) want(terminalID string, topic wire.Topic) (list []wire.News, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	err = l.db.View(func(txn *badger.Txn) error {
		var p published
		err := get(txn, signedKey(topic, everyone), &p)
		if errors.Is(err, errNone) {
			err = get(txn, signedKey(topic, terminalID), &p)
		}
		if errors.Is(err, errNone) {
			return refusal(wire.RefusedMalformed)
		}
		if p.Whole != nil {
			p.News = *p.Whole
		}
		list = frames(p.News)
		return err
	})
	return list, err
}

// signTime answers with the ledger's clock and the nonce, signed.
func (l *Ledger) signTime(m *wire.Time) (wire.SignedTime, error) {
	if len(m.Nonce) != 16 {
		return wire.SignedTime{}, refusal(wire.RefusedMalformed)
	}
	e, err := l.seal(wire.TopicTime, struct {
		Nonce  string `json:"nonce"`
		TimeMS int64  `json:"time_ms"`
	}{hex.EncodeToString(m.Nonce), l.now().UnixMilli()})
	return wire.SignedTime{Envelope: e}, err
}

// countersign puts the ledger's signature under a head of a terminal's book.
func (l *Ledger) countersign(t *terminal, m *wire.Anchor) (*wire.Envelope, error) {
	t.Heads++
	e, err := l.seal(wire.TopicHead, struct {
		header
		Epoch    string `json:"epoch"`
		Sequence uint64 `json:"sequence"`
		Head     string `json:"head"`
	}{l.issued(t.ID, t.Heads), m.Epoch, m.Sequence, m.Head})
	return &e, err
}

// publish changes what is signed and tells every terminal that is connected.
func (l *Ledger) publish(change func(*badger.Txn) error) error {
	l.mu.Lock()
	err := l.db.Update(change)
	for _, c := range l.conns {
		c.hurry()
	}
	l.mu.Unlock()
	return err
}

// policyView is the policy as the control API shows and takes it; a nil field stays as it is.
type policyView struct {
	Version       uint32     `json:"version"`
	IssuedAt      time.Time  `json:"issued_at"`
	PaymentFen    *money.Fen `json:"payment_fen"`
	WalletFen     *money.Fen `json:"wallet_fen"`
	WalletCount   *int       `json:"wallet_count"`
	TerminalFen   *money.Fen `json:"terminal_fen"`
	TerminalCount *int       `json:"terminal_count"`
	ConvertFen    *money.Fen `json:"convert_fen"`
	DigitsFen     *money.Fen `json:"digits_fen"`
}

func (p *policy) view() policyView {
	return policyView{
		p.Version, time.Unix(p.Issued, 0).UTC(), &p.PaymentFen, &p.WalletFen, &p.WalletCount, &p.TerminalFen, &p.TerminalCount, &p.ConvertFen, &p.DigitsFen,
	}
}

func (l *Ledger) getPolicy(*http.Request) (any, error) {
	var p policy
	err := l.db.View(func(txn *badger.Txn) error { return l.newest(txn, wire.TopicPolicy, &p) })
	return p.view(), err
}

// postPolicy issues a new policy, with what the body changes of it.
func (l *Ledger) postPolicy(r *http.Request) (any, error) {
	var in policyView
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	for _, f := range []*money.Fen{in.PaymentFen, in.WalletFen, in.TerminalFen, in.ConvertFen, in.DigitsFen} {
		if f != nil && (*f < 0 || *f > money.Max) {
			return nil, refusal("MALFORMED_REQUEST")
		}
	}
	for _, n := range []*int{in.WalletCount, in.TerminalCount} {
		if n != nil && (*n < 0 || *n > 1_000_000) {
			return nil, refusal("MALFORMED_REQUEST")
		}
	}
	var p policy
	err := l.publish(func(txn *badger.Txn) error {
		if err := l.renew(txn); err != nil { // there may be none yet
			return err
		}
		if err := l.newest(txn, wire.TopicPolicy, &p); err != nil {
			return err
		}
		set(&p.PaymentFen, in.PaymentFen)
		set(&p.WalletFen, in.WalletFen)
		set(&p.WalletCount, in.WalletCount)
		set(&p.TerminalFen, in.TerminalFen)
		set(&p.TerminalCount, in.TerminalCount)
		set(&p.ConvertFen, in.ConvertFen)
		set(&p.DigitsFen, in.DigitsFen)
		return l.putPolicy(txn, p)
	})
	if err != nil {
		return nil, err
	}
	return l.getPolicy(r)
}

func (l *Ledger) getDeny(*http.Request) (any, error) {
	var d denial
	tokens := []string{}
	err := l.db.View(func(txn *badger.Txn) error {
		list, err := l.deniedNow(txn)
		tokens = append(tokens, list...)
		return errors.Join(err, l.newest(txn, wire.TopicDeny, &d))
	})
	return map[string]any{"version": d.Version, "issued_at": time.Unix(d.Issued, 0).UTC(), "tokens": tokens}, err
}

// postDeny puts wallets on the deny list or takes them off it.
func (l *Ledger) postDeny(r *http.Request) (any, error) {
	var in struct {
		Add    []string `json:"add"`
		Remove []string `json:"remove"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	for _, token := range append(slices.Clone(in.Add), in.Remove...) {
		if raw, err := hex.DecodeString(token); err != nil || len(raw) != 8 || hex.EncodeToString(raw) != token {
			return nil, refusal("MALFORMED_REQUEST")
		}
	}
	if err := l.publish(func(txn *badger.Txn) error { return l.putDenial(txn, in.Add, in.Remove) }); err != nil {
		return nil, err
	}
	return l.getDeny(r)
}

// postMaintenance announces that the ledger closes, and closes it then.
func (l *Ledger) postMaintenance(r *http.Request) (any, error) {
	var in struct {
		StartsInMS   int64 `json:"starts_in_ms"`
		RetryAfterMS int64 `json:"retry_after_ms"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if in.StartsInMS < 0 || in.StartsInMS > 600_000 || in.RetryAfterMS < 0 || in.RetryAfterMS > 600_000 {
		return nil, refusal("MALFORMED_REQUEST")
	}
	starts := l.now().Add(time.Duration(in.StartsInMS) * time.Millisecond)
	m := wire.Maintenance{StartsAt: wire.Millis(starts.UnixMilli()), RetryAfterMillis: in.RetryAfterMS, TextZH: "账本维护", TextEN: "The ledger is closed for maintenance"}
	l.mu.Lock()
	l.closed = session{starts, starts.Add(time.Duration(in.RetryAfterMS) * time.Millisecond)}
	for _, c := range l.conns {
		if c.version >= 2 {
			go c.send(0, m)
		}
	}
	l.mu.Unlock()
	time.AfterFunc(time.Duration(in.StartsInMS)*time.Millisecond, l.hangUp)
	return m, nil
}

package ledgersim

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// session is when a terminal was connected, by the ledger's own record: from its hello to when it was last heard.
type session struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// foundDead is how long a terminal may take to find out that the line is dead.
const foundDead = 10 * time.Second

func sessionKey(terminalID string, from time.Time) string {
	return fmt.Sprintf("session/%s/%020d", terminalID, from.UnixMilli())
}

// holds reports whether the terminal certainly had a line at the time, which it knows up to its bound.
func (s session) holds(at time.Time, bound time.Duration) bool {
	return at.After(s.From.Add(bound+time.Second)) && at.Before(s.To.Add(-bound-foundDead))
}

// history answers what was true when a payment was accepted. It lives for one batch, whose payments are close together.
type history struct {
	ledger   *Ledger
	txn      *badger.Txn
	policies map[uint32]*policy
	denials  map[uint32]*denial

	terminal    string // of the interval
	from, until time.Time
	session     session
}

// check does checks 1 (the anchors), 5, 6 and 7.
func (h *history) check(u *upload) error {
	forked, err := h.forked(u)
	if err != nil {
		return err
	}
	if forked {
		u.fail("BOOK_FORKED")
	}
	p, err := h.policyOf(u.e.policy)
	if err != nil {
		return err
	}
	if p == nil || u.item.TotalFen > u.code.most || u.item.TotalFen > u.code.single || u.item.TotalFen > p.PaymentFen || u.e.converted && u.item.TotalFen > p.ConvertFen {
		u.fail("POLICY_BREACH")
	}
	d, err := h.denialOf(u.e.deny)
	if err != nil {
		return err
	}
	switch slack := u.e.bound + 30*time.Second; {
	case p != nil && !fresh(p.Issued, u.e.at, slack):
		u.fail("POLICY_STALE")
	case d == nil || !fresh(d.Issued, u.e.at, slack):
		u.fail("DENY_LIST_STALE")
	}
	if d != nil {
		blocked, err := h.blocked(u)
		if err != nil {
			return err
		}
		if blocked {
			u.fail("WALLET_BLOCKED")
		}
	}
	if u.e.converted { // its line was up and silent, or up and dead
		return nil
	}
	online, err := h.online(u.e.terminal, u.e.at, u.e.bound)
	if online {
		u.fail("ACCEPTED_WHILE_ONLINE")
	}
	return err
}

func fresh(issued int64, at time.Time, slack time.Duration) bool {
	age := at.Sub(time.Unix(issued, 0))
	return age >= -slack && age <= 72*time.Hour+slack
}

// forked reports whether the book whose evidence this is stands against what it has anchored.
func (h *history) forked(u *upload) (bool, error) {
	if u.e.sequence == 0 {
		return true, nil
	}
	var head string
	err := get(h.txn, anchorKey(u.e.terminal, u.e.sequence-1), &head)
	if errors.Is(err, errNone) {
		return false, nil
	}
	return err == nil && head != u.e.head, err
}

func anchorKey(terminalID string, sequence uint64) string {
	return fmt.Sprintf("anchor/%s/%020d", terminalID, sequence)
}

func (h *history) policyOf(version uint32) (*policy, error) {
	if p, known := h.policies[version]; known {
		return p, nil
	}
	p := new(policy)
	err := get(h.txn, policyKey(version), p)
	if errors.Is(err, errNone) {
		p, err = nil, nil
	}
	if h.policies == nil {
		h.policies = map[uint32]*policy{}
	}
	h.policies[version] = p
	return p, err
}

func (h *history) denialOf(version uint32) (*denial, error) {
	if d, known := h.denials[version]; known {
		return d, nil
	}
	d := new(denial)
	err := get(h.txn, denialKey(version), d)
	if errors.Is(err, errNone) {
		d, err = nil, nil
	}
	if h.denials == nil {
		h.denials = map[uint32]*denial{}
	}
	h.denials[version] = d
	return d, err
}

// blocked reports whether the wallet stood on the list that the terminal had. One that was blocked later still settles.
func (h *history) blocked(u *upload) (bool, error) {
	var since uint32
	err := get(h.txn, deniedKey(u.code.token), &since)
	if errors.Is(err, errNone) {
		return false, nil
	}
	return err == nil && since <= u.e.deny, err
}

// online reports whether the terminal was connected at the time. The sessions around it are read once for a batch.
func (h *history) online(terminalID string, at time.Time, bound time.Duration) (bool, error) {
	if c := h.ledger.conns[terminalID]; c != nil && (session{c.since, c.lastHeard()}).holds(at, bound) {
		return true, nil
	}
	if h.terminal != terminalID || at.Before(h.from) || !at.Before(h.until) {
		if err := h.around(terminalID, at); err != nil {
			return false, err
		}
	}
	return h.session.holds(at, bound), nil
}

// around reads the newest session that began at or before the time, and when the next one began.
func (h *history) around(terminalID string, at time.Time) error {
	prefix := "session/" + terminalID + "/"
	h.terminal, h.session, h.from, h.until = terminalID, session{}, time.Time{}, at.Add(time.Second)
	back := h.txn.NewIterator(badger.IteratorOptions{Prefix: []byte(prefix), Reverse: true, PrefetchValues: true, PrefetchSize: 1})
	back.Seek([]byte(sessionKey(terminalID, at)))
	if back.Valid() {
		raw, err := back.Item().ValueCopy(nil)
		if err == nil {
			err = json.Unmarshal(raw, &h.session)
		}
		if err != nil {
			back.Close()
			return err
		}
		h.from = h.session.From
	}
	back.Close()
	ahead := h.txn.NewIterator(badger.IteratorOptions{Prefix: []byte(prefix)})
	defer ahead.Close()
	h.until = h.ledger.now().Add(time.Hour)
	if ahead.Seek([]byte(sessionKey(terminalID, at.Add(time.Millisecond)))); ahead.Valid() {
		ms, err := strconv.ParseInt(strings.TrimPrefix(string(ahead.Item().Key()), prefix), 10, 64)
		if err != nil {
			return err
		}
		h.until = time.UnixMilli(ms)
	}
	return nil
}

// noteSession keeps when a connection was. l.mu is held.
func (l *Ledger) noteSession(c *conn) {
	if c.since.IsZero() {
		return
	}
	_ = l.db.Update(func(txn *badger.Txn) error { // without it the terminal counts as offline, which is the milder error
		return put(txn, sessionKey(c.terminal, c.since), session{c.since, c.lastHeard()})
	})
}

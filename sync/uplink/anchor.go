package uplink

import (
	"errors"
	"log/slog"
	"time"

	"yupos/ledgercache"
	"yupos/ledgercache/payment"
	"yupos/sync/wire"
)

// anchoring decides when the ledger is told where the journal stands: when the book has been quiet for a second, and at
// least every ten while it is not. The record that an anchor itself leaves in the book is no reason for another one.
type anchoring struct {
	since  time.Time // first change that is not anchored; zero if there is none
	latest time.Time // last change
	id     uint64    // of the request in flight, 0 if there is none
	sentAt time.Time
	at     ledgercache.Cursor // what it named
	saving bool               // the answer is on its way to the book
	soon   bool               // the terminal is stopping: do not wait for quiet
}

// start finds out whether the journal has moved since the last anchor by more than the anchor's own records.
func (a *anchoring) start(u *Uplink, now time.Time) {
	have, err := u.book.Cursor()
	at := u.book.Position()
	if err == nil && (have.Epoch != at.Epoch || at.Sequence > have.Sequence+anchorLeaves) {
		a.moved(now)
	}
}

// anchorLeaves is how many records an anchor itself leaves: that it is held, and the ledger's signature under it.
const anchorLeaves = 2

func (a *anchoring) moved(now time.Time) {
	if a.since.IsZero() {
		a.since = now
	}
	a.latest = now
}

func (a *anchoring) hurry() { a.soon = true }

func (a *anchoring) busy() bool { return a.id != 0 || a.saving || a.soon && !a.since.IsZero() }

// due is when to look at the anchor again.
func (a *anchoring) due() (time.Time, bool) {
	switch {
	case a.saving, a.id == 0 && a.since.IsZero():
		return time.Time{}, false
	case a.id != 0:
		return a.sentAt.Add(anchorLatest), true
	case a.soon:
		return a.since, true
	}
	quiet, latest := a.latest.Add(anchorIdle), a.since.Add(anchorLatest)
	if latest.Before(quiet) {
		return latest, true
	}
	return quiet, true
}

// refused reports whether re was the anchor, which then is simply not anchored: the next change tries again.
func (a *anchoring) refused(re uint64) bool {
	if a.id == 0 || re != a.id {
		return false
	}
	a.id = 0
	return true
}

// tryAnchor sends the anchor when it is due. One that was not answered is sent again.
func (t *talk) tryAnchor(now time.Time) {
	at, ok := t.anchor.due()
	if !ok || at.After(now) || t.err != nil {
		return
	}
	p := t.u.book.Position()
	t.anchor.since, t.anchor.sentAt, t.anchor.at = time.Time{}, now, p
	t.anchor.id = t.send(wire.Anchor{Epoch: p.Epoch, Sequence: p.Sequence, Head: p.Head}, 0)
}

// anchored takes the ledger's word that it holds what the anchor named.
func (t *talk) anchored(re uint64, body *wire.Anchored) {
	a := &t.anchor
	held := ledgercache.Cursor{Epoch: body.Epoch, Sequence: body.Sequence, Head: body.Head}
	if a.id == 0 || re != a.id || held != a.at {
		t.odd("anchor that was not asked for", wire.TypeAnchored)
		return
	}
	a.id, a.saving = 0, true
	if body.Signed != nil {
		t.learn(wire.News{Topic: wire.TopicHead, Part: 1, Parts: 1, Envelope: *body.Signed})
	}
	t.besideLoop(func() func() {
		err := t.u.book.Anchored(t.ctx, held)
		return func() {
			a.saving = false
			if err != nil && !errors.Is(err, payment.ErrImpossible) {
				t.bookFailed(err, "anchor not recorded", slog.Uint64("sequence", held.Sequence))
			}
		}
	})
}

package ledgercache

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"yupos/ledgercache/payment"
)

// oldest remembers which upload was accepted first, so that not every acceptance and every look at the terminal reads the
// whole queue, of a hundred thousand perhaps. It is a memory beside the state and never written: forgetting costs one scan.
type oldest struct {
	mu sync.Mutex
	glimpse
}

// glimpse is what oldest knows at one moment.
type glimpse struct {
	changes uint64 // of the queue, since the book was opened
	known   bool   // what follows is the oldest
	tradeNo string
	at      time.Time

	// straight says that nothing in the queue was accepted before the time in its number: a scan by numbers may stop where
	// they are later than the oldest found. It is known after one whole scan, and holds until a clock went back.
	straight bool
	front    string // no number in the queue is lower; "" = not known
}

// look must be called before the state that is read with it is looked at, or inside the writer.
func (o *oldest) look() glimpse {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.glimpse
}

// learn takes what a scan found, unless the queue has changed since it began.
func (o *oldest) learn(found glimpse) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changes == found.changes {
		o.glimpse = found
	}
}

// left says that a trade may have left the queue, came that one joined it.
func (o *oldest) left(tradeNo string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.changes++
	o.known = o.known && o.tradeNo != tradeNo
}

func (o *oldest) came(tradeNo string, at time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.changes++
	o.known = o.known && !at.Before(o.at)
	o.straight = o.straight && !at.Before(numberedAt(tradeNo))
	o.front = min(o.front, tradeNo)
}

// numberedAt is the time in a trade's number.
func numberedAt(tradeNo string) time.Time {
	u, err := ulid.ParseStrict(tradeNo)
	if err != nil {
		return time.Time{}
	}
	return u.Timestamp()
}

// queueMoved notes what a record of this group may do to the queue: it counts when the group is applied. What opens a
// trade, submits or rejects its code, or asks about it, leaves the queue as it is.
func (t *tx) queueMoved(kind recordKind, changes []Change) {
	switch kind {
	case recOpened, recSubmitted, recRejected, recAsked:
		return
	}
	for _, c := range changes {
		if c.Kind == ChangeTrade {
			t.moved = append(t.moved, moved{c.TradeNo, kind == recAccepted})
		}
	}
}

type moved struct {
	tradeNo  string
	accepted bool
}

// remember takes over what the group did to the queue.
func (o *oldest) remember(t *tx) {
	for _, m := range t.moved {
		if m.accepted {
			o.came(m.tradeNo, t.at)
		} else {
			o.left(m.tradeNo)
		}
	}
}

// glimpse is what may be used inside a group: nothing once the group itself has moved the queue.
func (t *tx) glimpse() *glimpse {
	g := t.book.oldest.look()
	for _, m := range t.moved {
		if !g.known || m.accepted && t.at.Before(g.at) || m.tradeNo == g.tradeNo {
			return nil
		}
	}
	return &g
}

// terminalExposure is what is unsettled of the whole terminal, with the time of the oldest: by the glimpse, or by a scan,
// which is learned if it was of the committed state. Without a glimpse nothing is remembered.
func (b *Book) terminalExposure(s state, g *glimpse, committed bool) (payment.Exposure, error) {
	e, err := exposureAt(s, keyExposure)
	if err != nil || e.Count == 0 {
		return e, err
	}
	if g != nil && g.known {
		e.OldestAt = g.at
		return e, nil
	}
	if g == nil {
		g, committed = new(glimpse), false
	}
	found, err := g.scan(s)
	if err == nil && !found.known { // it is not where it was thought to be
		found, err = glimpse{changes: g.changes}.scan(s)
	}
	if err == nil && committed {
		b.oldest.learn(found)
	}
	e.OldestAt = found.at
	return e, err
}

// scan reads as much of the queue as it must to find the oldest.
func (g glimpse) scan(s state) (found glimpse, err error) {
	found = glimpse{changes: g.changes, straight: true}
	var from []byte
	if g.straight && g.front != "" {
		no, err := id(g.front)
		if err != nil {
			return found, err
		}
		from = key(prefixUpload, no)
	}
	err = s.scan(prefixUpload, from, false, func(k, v []byte) (bool, error) {
		if len(v) != 8 {
			return false, errRow
		}
		no, at := idText(k[len(prefixUpload):]), time.UnixMilli(int64(binary.BigEndian.Uint64(v))).UTC()
		numbered := numberedAt(no)
		if found.known && g.straight && numbered.After(found.at) {
			return false, nil
		}
		if found.front == "" {
			found.front = no
		}
		if !found.known || at.Before(found.at) { // the trade that was opened first may be accepted last
			found.known, found.tradeNo, found.at = true, no, at
		}
		found.straight = found.straight && !at.Before(numbered)
		return true, nil
	})
	return found, err
}

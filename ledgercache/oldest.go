package ledgercache

import (
	"encoding/binary"
	"sync"
	"time"

	"yupos/ledgercache/payment"
)

// oldest remembers which upload was accepted first, so that not every acceptance and every look at the terminal reads the
// whole queue, of a hundred thousand perhaps. It is a memory beside the state and never written: forgetting costs one scan.
type oldest struct {
	mu      sync.Mutex
	changes uint64 // of the queue, since the book was opened
	known   bool
	tradeNo string
	at      time.Time
}

// glimpse is what oldest said at one moment.
type glimpse struct {
	changes uint64
	known   bool
	tradeNo string
	at      time.Time
}

// look must be called before the state that is read with it is looked at, or inside the writer.
func (o *oldest) look() glimpse {
	o.mu.Lock()
	defer o.mu.Unlock()
	return glimpse{o.changes, o.known, o.tradeNo, o.at}
}

// learn takes what a scan found, unless the queue has changed since the glimpse.
func (o *oldest) learn(g glimpse, tradeNo string, at time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changes == g.changes {
		o.known, o.tradeNo, o.at = true, tradeNo, at
	}
}

// left says that a trade may have left the queue, came that one joined it.
func (o *oldest) left(tradeNo string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.changes++
	o.known = o.known && o.tradeNo != tradeNo
}

func (o *oldest) came(at time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.changes++
	o.known = o.known && !at.Before(o.at)
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
			o.came(t.at)
		} else {
			o.left(m.tradeNo)
		}
	}
}

// glimpse is what may be used inside a group: nothing once the group itself has moved the queue.
func (t *tx) glimpse() *glimpse {
	g := t.book.oldest.look()
	for _, m := range t.moved {
		if m.accepted && t.at.Before(g.at) || m.tradeNo == g.tradeNo {
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
	tradeNo, at, err := oldestUpload(s)
	if err == nil && g != nil && committed {
		b.oldest.learn(*g, tradeNo, at)
	}
	e.OldestAt = at
	return e, err
}

// oldestUpload reads all of the queue.
func oldestUpload(s state) (tradeNo string, oldest time.Time, err error) {
	err = s.scan(prefixUpload, nil, false, func(k, v []byte) (bool, error) {
		if len(v) != 8 {
			return false, errRow
		}
		at := time.UnixMilli(int64(binary.BigEndian.Uint64(v))).UTC()
		if oldest.IsZero() || at.Before(oldest) { // the trade that was opened first may be accepted last
			tradeNo, oldest = idText(k[len(prefixUpload):]), at
		}
		return true, nil
	})
	return tradeNo, oldest, err
}

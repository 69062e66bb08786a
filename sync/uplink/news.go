package uplink

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"yupos/ledgercache/trust"
	"yupos/sync/wire"
)

// The times and bounds of signed news.
const (
	timeEvery  = 60 * time.Second
	timeLimit  = 10 * time.Second // a signed time that comes later says too little
	wantEvery  = 10 * time.Second // between two questions for the whole of a topic
	newsQueued = 16               // verified one after the other; then the reader waits
)

// Clock is who keeps the terminal's time. Boot is CLOCK_BOOTTIME or another clock that never goes back and does not stop
// in sleep; Signed takes a time that the ledger signed, with when it was asked for and when it came, by that clock.
type Clock interface {
	Boot() time.Duration
	Signed(at time.Time, asked, heard time.Duration)
}

// centre is what a connection knows of the signed news on it.
type centre struct {
	parts  map[wire.Topic]*wire.News // what has come of news in parts
	queue  []wire.News               // whole ones on their way to the book
	saving bool
	wanted map[wire.Topic]time.Time // when the whole was asked for last

	nonce  [16]byte
	id     uint64 // of the question for the time, 0 when none is open
	asked  time.Duration
	timeAt time.Time // when to ask next; zero = now
}

func newCentre() centre {
	return centre{parts: map[wire.Topic]*wire.News{}, wanted: map[wire.Topic]time.Time{}}
}

// have is what the hello says of the signed news in the book.
func (u *Uplink) have() (map[wire.Topic]uint32, error) {
	marks, err := u.book.Marks()
	if err != nil || len(marks) == 0 {
		return nil, err
	}
	have := make(map[wire.Topic]uint32, len(marks))
	for topic, m := range marks {
		have[wire.Topic(topic)] = m.Version
	}
	return have, nil
}

// signed takes signed news, or a part of them.
func (t *talk) signed(n *wire.News) {
	c := &t.centre
	begun := c.parts[n.Topic]
	switch {
	case n.Parts < 1 || n.Parts > wire.MaxParts || n.Part < 1 || n.Part > n.Parts || len(n.Topic) > 20:
		t.fail(fmt.Errorf("%w: part %d of %d news", errProtocol, n.Part, n.Parts))
		return
	case n.Part == 1:
		begun = &wire.News{Topic: n.Topic, Version: n.Version, Parts: n.Parts, Envelope: wire.Envelope{KeyID: n.Envelope.KeyID, Sig: n.Envelope.Sig}}
		if len(c.parts) > len(trust.Topics) {
			clear(c.parts) // of topics that nobody knows
		}
		c.parts[n.Topic] = begun
	case begun == nil || begun.Part != n.Part-1 || begun.Parts != n.Parts || begun.Version != n.Version:
		delete(c.parts, n.Topic)
		t.want(n.Topic)
		return
	}
	begun.Part = n.Part
	begun.Envelope.Payload = append(begun.Envelope.Payload, n.Envelope.Payload...)
	if begun.Part < begun.Parts {
		return
	}
	delete(c.parts, n.Topic)
	t.learn(*begun)
}

// learn queues whole news for the book.
func (t *talk) learn(n wire.News) {
	t.waiting++
	if len(t.centre.queue) >= newsQueued {
		t.waiting += backlog // nothing more is read before the book has caught up
		n.Part = 0
	}
	t.centre.queue = append(t.centre.queue, n)
	t.nextLearn()
}

func (t *talk) nextLearn() {
	c := &t.centre
	if c.saving || len(c.queue) == 0 {
		return
	}
	n := c.queue[0]
	c.queue = c.queue[1:]
	c.saving = true
	t.besideLoop(func() func() {
		err := t.u.book.Learn(t.ctx, trust.Topic(n.Topic), trust.Envelope{KeyID: n.Envelope.KeyID, Payload: n.Envelope.Payload, Sig: n.Envelope.Sig})
		return func() {
			c.saving = false
			t.waiting--
			if n.Part == 0 {
				t.waiting -= backlog
			}
			t.learned(n, err)
			t.nextLearn()
		}
	})
}

// learned looks at what the book made of news.
func (t *talk) learned(n wire.News, err error) {
	switch {
	case err == nil:
		t.log.Info("news", slog.String("topic", string(n.Topic)), slog.Uint64("version", uint64(n.Version)))
	case errors.Is(err, trust.ErrGap):
		t.want(n.Topic)
	default:
		t.bookFailed(err, "news not taken by the book", slog.String("topic", fmt.Sprintf("%.20q", string(n.Topic))))
	}
}

// want asks for the whole of a topic, at most once in wantEvery.
func (t *talk) want(topic wire.Topic) {
	now := t.u.now()
	if last, asked := t.centre.wanted[topic]; asked && now.Sub(last) < wantEvery && !now.Before(last) || t.version < 2 || t.u.isStopping() {
		return
	}
	if len(t.centre.wanted) > len(trust.Topics) {
		clear(t.centre.wanted)
	}
	t.centre.wanted[topic] = now
	t.send(wire.Want{Topic: topic}, 0)
}

// askTime asks for the ledger's signed time when that is due.
func (t *talk) askTime(now time.Time) {
	c := &t.centre
	at, ok := t.timeDue()
	if !ok || at.After(now) || t.err != nil || t.u.isStopping() {
		return
	}
	if _, err := rand.Read(c.nonce[:]); err != nil {
		t.fail(err)
		return
	}
	c.timeAt = now.Add(timeEvery)
	c.asked = t.u.opts.Clock.Boot()
	c.id = t.send(wire.Time{Nonce: c.nonce[:]}, 0)
}

func (t *talk) timeDue() (time.Time, bool) {
	return t.centre.timeAt, t.u.opts.Clock != nil && t.version >= 2
}

// signedTime takes the answer to the one question for the time that is open. One that does not verify changes nothing.
func (t *talk) signedTime(re uint64, body *wire.SignedTime) {
	c := &t.centre
	if c.id == 0 || re != c.id {
		t.odd("time that was not asked for", wire.TypeSignedTime)
		return
	}
	c.id = 0
	heard := t.u.opts.Clock.Boot()
	if heard-c.asked > timeLimit {
		return
	}
	pins, err := t.u.book.Pins()
	if err != nil {
		t.bookFailed(err, "pins not read")
		return
	}
	at, err := pins.OpenTime(trust.Envelope{KeyID: body.Envelope.KeyID, Payload: body.Envelope.Payload, Sig: body.Envelope.Sig}, c.nonce)
	if err != nil {
		t.log.Error("the ledger's time does not verify", slog.Any("err", err))
		return
	}
	t.u.opts.Clock.Signed(at, c.asked, heard)
}

// maintenance keeps what the ledger announces: after the end of this connection it is left alone for so long.
func (t *talk) maintenance(m *wire.Maintenance) {
	rest := min(time.Duration(max(m.RetryAfterMillis, 0))*time.Millisecond, maxRetryWait)
	t.log.Warn("the ledger will close", slog.Int64("starts_at_ms", int64(m.StartsAt)), slog.Int64("retry_after_ms", rest.Milliseconds()))
	t.u.mu.Lock()
	defer t.u.mu.Unlock()
	t.u.notice = Notice{StartsAt: moment(m.StartsAt), RetryAfter: rest, TextZH: short(m.TextZH), TextEN: short(m.TextEN)}
}

// short bounds a text that is shown.
func short(text string) string {
	if r := []rune(text); len(r) > 256 {
		return string(r[:256])
	}
	return text
}

// Notice is the ledger's announcement that it will close. The zero Notice says nothing.
type Notice struct {
	StartsAt       time.Time
	RetryAfter     time.Duration
	TextZH, TextEN string
}

// Notice is the last announcement, until the line is up again after it.
func (u *Uplink) Notice() Notice {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.notice
}

// endNotice forgets an announcement whose time has come: the ledger is there again.
func (u *Uplink) endNotice() {
	now := u.now()
	u.mu.Lock()
	defer u.mu.Unlock()
	if !now.Before(u.notice.StartsAt) {
		u.notice = Notice{}
	}
}

// rest is how long the ledger wants to be left alone after a connection that ended at now: its announcement counts from
// a minute before the time that it names.
func (u *Uplink) rest(now time.Time) time.Duration {
	n := u.Notice()
	if n.StartsAt.IsZero() || now.Before(n.StartsAt.Add(-time.Minute)) || now.After(n.StartsAt.Add(n.RetryAfter)) {
		return 0
	}
	return n.RetryAfter
}

package uplink

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"yupos/ledgercache/trust"
	"yupos/sync/wire"
)

// has waits until the book has the version of a topic.
func (s *shop) has(topic trust.Topic, version uint32) {
	s.t.Helper()
	w := s.book.Watch()
	defer w.Close()
	limit := time.After(patience)
	for {
		marks, err := s.book.Marks()
		if err != nil {
			s.t.Fatal(err)
		}
		if marks[topic].Version == version {
			return
		}
		select {
		case <-w.C:
		case <-limit:
			s.t.Fatalf("the book never had version %d of %s: %v", version, topic, marks)
		}
	}
}

func TestSignedNewsReachTheBookAndTheHelloSaysWhatItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, n := world(t, func(l *ledger) { l.welcome.Version = 2 })
		p := <-l.welcomed
		p.say(0, 0, rules(t, 4, s.now()))
		s.has(trust.Rules, 4)
		forged := rules(t, 5, s.now())
		forged.Envelope.Sig[0] ^= 1
		older := rules(t, 3, s.now())
		p.say(0, 0, forged)
		p.say(0, 0, older)
		p.say(0, 0, rules(t, 6, s.now()))
		s.has(trust.Rules, 6)
		n.cut(false)
		s.untilDown(ReasonClosed)
		for {
			if hello, _ := next[wire.Hello](l); hello.Have[wire.TopicPolicy] == 6 {
				break
			}
		}
		alarms, err := s.book.Alarms(10)
		if err != nil || len(alarms) == 0 {
			t.Errorf("no alarm of what was rolled back: %v", err)
		}
	})
}

// inParts cuts news as a ledger cuts what is too long for a frame.
func inParts(n wire.News, size int) (list []wire.News) {
	var parts [][]byte
	for p := n.Envelope.Payload; len(p) > 0; p = p[min(size, len(p)):] {
		parts = append(parts, p[:min(size, len(p))])
	}
	for i, p := range parts {
		part := n
		part.Part, part.Parts = i+1, len(parts)
		part.Envelope.Payload = p
		list = append(list, part)
	}
	return list
}

func TestNewsInPartsAreJoinedAndWhatDoesNotFollowIsAskedForWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t, func(l *ledger) { l.welcome.Version = 2 })
		p := <-l.welcomed
		parts := inParts(rules(t, 1, s.now()), 50)
		if len(parts) < 4 {
			t.Fatal("too few parts")
		}
		for _, part := range parts {
			p.say(0, 0, part)
		}
		s.has(trust.Rules, 1)
		parts = inParts(rules(t, 2, s.now()), 50)
		p.say(0, 0, parts[0])
		p.say(0, 0, parts[2])
		want, m := next[wire.Want](l)
		if want.Topic != wire.TopicPolicy {
			t.Errorf("%+v", want)
		}
		for _, part := range parts {
			p.say(0, m.id, part)
		}
		s.has(trust.Rules, 2)
	})
}

func TestAGapInTheDenyListAsksForTheWholeButNotWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, _ := world(t, func(l *ledger) { l.welcome.Version = 2 })
		p := <-l.welcomed
		raw, err := json.Marshal(trust.DenyNews{
			Header: trust.Header{Terminal: trust.Everyone, Version: 9, Issued: uint32(s.now().Unix()), Expires: uint32(s.now().Unix()) + 3600},
			Base:   8, Add: []string{}, Remove: []string{}, SHA256: trust.DenyHash(nil),
		})
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			p.say(0, 0, sealed(t, trust.Deny, 9, raw))
		}
		_, m := next[wire.Want](l)
		p.say(0, m.id, noDenials(t, 9, s.now()))
		s.has(trust.Deny, 9)
		for len(l.heard) > 0 {
			if m := <-l.heard; wire.TypeOf(m.body) == wire.TypeWant {
				t.Error("asked twice at once")
			}
		}
	})
}

func TestPartsWithoutEndOrSenseEndTheConnection(t *testing.T) {
	for name, n := range map[string]wire.News{
		"too many":       {Topic: "deny", Part: 1, Parts: wire.MaxParts + 1},
		"beyond the end": {Topic: "deny", Part: 3, Parts: 2},
		"none":           {Topic: "deny"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, s, _ := world(t, func(l *ledger) { l.welcome.Version = 2 })
				p := <-l.welcomed
				n.Envelope = wire.Envelope{Payload: []byte{1}, Sig: []byte{1}}
				p.say(0, 0, n)
				s.untilDown(ReasonProtocol)
			})
		})
	}
}

// keeper is a clock of a terminal for tests: it runs on its own.
type keeper struct {
	began time.Time
	mu    sync.Mutex
	told  []time.Time
	took  time.Duration
	heard chan struct{}
}

func (k *keeper) Boot() time.Duration { return time.Since(k.began) }
func (k *keeper) Signed(at time.Time, asked, heard time.Duration) {
	k.mu.Lock()
	k.told, k.took = append(k.told, at), heard-asked
	k.mu.Unlock()
	k.heard <- struct{}{}
}

func timeNews(t *testing.T, nonce []byte, at time.Time) wire.SignedTime {
	raw, err := json.Marshal(trust.TimeNews{Nonce: hex.EncodeToString(nonce), TimeMS: at.UnixMilli()})
	if err != nil {
		t.Fatal(err)
	}
	return wire.SignedTime{Envelope: sealed(t, trust.Time, 0, raw).Envelope}
}

func TestSignedTimeCountsForTheNonceThatWasAskedAndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{began: time.Now(), heard: make(chan struct{}, 10)}
		l := newLedger(t)
		l.welcome.Version = 2
		s, _ := worldWith(t, l, func(o *Options) { o.Clock = k })
		first, m := next[wire.Time](l)
		if len(first.Nonce) != 16 {
			t.Fatalf("%+v", first)
		}
		truth := time.Now().Add(-3 * time.Hour)
		answer := timeNews(t, first.Nonce, truth)
		time.Sleep(400 * time.Millisecond)
		m.peer.say(0, m.id, answer)
		<-k.heard
		m.peer.say(0, m.id, answer) // once more: it answers nothing
		if k.told[0].UnixMilli() != truth.UnixMilli() || k.took != 400*time.Millisecond {
			t.Errorf("%v after %v", k.told, k.took)
		}
		second, m := next[wire.Time](l)
		if bytes.Equal(second.Nonce, first.Nonce) {
			t.Error("a nonce was used twice")
		}
		m.peer.say(0, m.id, answer) // replayed
		_, m = next[wire.Time](l)
		s.untilUp()
		if len(k.told) != 1 {
			t.Errorf("told %v", k.told)
		}
	})
}

func TestAfterMaintenanceTheTerminalComesBackWhenItIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s, n := world(t, func(l *ledger) { l.welcome.Version = 2 })
		p := <-l.welcomed
		p.say(0, 0, wire.Maintenance{StartsAt: wire.Millis(time.Now().Add(20 * time.Second).UnixMilli()), RetryAfterMillis: 300_000, TextZH: "维护", TextEN: "closed"})
		s.trade(s.pay("A", 100).TradeNo, "SUCCESS") // it goes on until then
		time.Sleep(20 * time.Second)
		ended := time.Now()
		n.cut(false)
		s.untilDown(ReasonClosed)
		if notice := s.up.Notice(); notice.TextZH != "维护" {
			t.Errorf("%+v", notice)
		}
		<-l.welcomed
		if away := time.Since(ended); away < 300*time.Second || away > 361*time.Second {
			t.Errorf("back after %v", away)
		}
		s.untilUp()
		if notice := s.up.Notice(); notice != (Notice{}) {
			t.Errorf("still announced: %+v", notice)
		}
	})
}

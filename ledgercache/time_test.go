package ledgercache

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"yupos/ledgercache/payment"
	"yupos/ledgercache/trust"
)

// bench is a machine for a clock: its boot clock and its wall clock go with the shop's, apart by what a test sets.
type bench struct {
	s     *shop
	wall  time.Duration // off
	id    string
	start time.Time
}

func (m *bench) read() trust.Reading {
	now := m.s.clock()
	return trust.Reading{Boot: now.Sub(m.start), BootID: m.id, Wall: now.Add(m.wall), Kept: true}
}

func (m *bench) clock() *trust.Clock {
	return trust.NewClock(trust.ClockOptions{Read: m.read, Bound: payment.ClockBound, AfterBoot: 12 * time.Hour})
}

// clocked is a shop that goes by a clock of its own.
func clocked(t *testing.T, wall time.Duration) (*shop, *bench) {
	t.Helper()
	m := &bench{wall: wall, id: "one"}
	s := newShopWith(t, func(o *Options) {
		o.Sign = func(Acceptance) ([]byte, error) { return make([]byte, 184), nil }
		start := o.Now()
		m.start = start.Add(-time.Hour)
		m.s = &shop{t: t, now: start}
		o.Clock = m.clock()
	})
	m.s = s
	return s, m
}

// again opens the book as a new process.
func (m *bench) again() {
	m.s.t.Helper()
	check(m.s.t, m.s.Close())
	m.s.opts.Clock = m.clock()
	m.s.open()
}

// hear lets the clock hear the ledger's true time, and the book keep it.
func (m *bench) hear() {
	m.s.t.Helper()
	c := m.s.opts.Clock
	c.Signed(m.s.clock(), c.Boot(), c.Boot())
	mark, due := c.Mark()
	if !due {
		m.s.t.Fatal("a first signed time is not to be kept")
	}
	check(m.s.t, m.s.KeepTime(ctx, mark))
	c.Kept(mark)
}

func (m *bench) missing(reason payment.Reason) bool {
	m.s.t.Helper()
	list, err := m.s.MissingOffline(m.s.opts.Clock.Time(), ClockOf(m.s.opts.Clock.Now()))
	check(m.s.t, err)
	for _, r := range list {
		if r == reason {
			return true
		}
	}
	return false
}

func TestTheBookGoesByItsClockAndKeepsItOverARestart(t *testing.T) {
	s, m := clocked(t, -3*time.Hour)
	if !m.missing(payment.ReasonClockUntrusted) {
		t.Error("a clock that nobody confirmed is trusted")
	}
	m.hear()
	if m.missing(payment.ReasonClockUntrusted) {
		t.Error("the ledger's time is not trusted")
	}
	if p := s.sell(1); !p.CreatedAt.Equal(s.clock()) {
		t.Errorf("booked at %v, it is %v", p.CreatedAt, s.clock())
	}
	m.wall = 5 * time.Hour // somebody sets the machine's clock
	if p := s.sell(2); !p.CreatedAt.Equal(s.clock()) {
		t.Errorf("after setting the clock: booked at %v, it is %v", p.CreatedAt, s.clock())
	}
	s.pass(time.Hour)
	m.again()
	if m.missing(payment.ReasonClockUntrusted) {
		t.Error("a new process of the same run does not go on by the boot clock")
	}
	if p := s.sell(3); p.CreatedAt.Sub(s.clock()).Abs() > time.Second {
		t.Errorf("after a restart: booked at %v, it is %v", p.CreatedAt, s.clock())
	}
}

func TestTheLedgersTimeEndsTheReignOfAClockThatWasAhead(t *testing.T) {
	s, m := clocked(t, 48*time.Hour)
	s.sell(1)
	if _, last, err := s.KnownTime(); err != nil || last.Sub(s.clock()) < 47*time.Hour {
		t.Fatalf("the last time is %v, %v", last, err)
	}
	m.hear()
	for _, how := range []string{"at once", "after a restart", "in a cache made anew"} {
		switch how {
		case "after a restart":
			m.again()
		case "in a cache made anew":
			check(t, s.Close())
			check(t, os.RemoveAll(filepath.Join(s.opts.Dir, "cache")))
			s.opts.Clock = m.clock()
			s.open()
		}
		if !s.lastAt.Equal(s.clock()) || m.missing(payment.ReasonClockUntrusted) {
			t.Errorf("%s: the last time is %v, it is %v", how, s.lastAt, s.clock())
		}
	}
}

func TestAClockSetBackOverARebootIsNoticed(t *testing.T) {
	s, m := clocked(t, 0)
	m.hear()
	s.sell(1)
	s.pass(time.Hour)
	m.id, m.start = "two", s.clock().Add(-time.Minute)
	m.wall = -3 * time.Hour
	m.again()
	now := s.opts.Clock.Now()
	if now.Fault != trust.ClockSetBack || !m.missing(payment.ReasonClockUntrusted) || now.At.Before(s.clock().Add(-time.Hour)) {
		t.Errorf("%+v", now)
	}
}

func TestAPayOfAnEarlierProcessIsKnownWhateverTheClockSays(t *testing.T) {
	s := newShop(t)
	old := s.sell(1)
	for _, by := range []time.Duration{time.Minute, -24 * time.Hour} {
		s.pass(by)
		s.reopen()
		young := s.sell(int(-by/time.Hour) + 2)
		if p, err := s.ByTradeNo(old.TradeNo); err != nil || !s.Inherited(p) || s.Inherited(young) {
			t.Errorf("after %v: the old one %v, the new one %v, %v", by, s.Inherited(p), s.Inherited(young), err)
		}
	}
}

func TestACarriedBookTakesNothingOfflineBeforeTheLedgerHasSeenIt(t *testing.T) {
	s, _ := offlineShop(t)
	s.sell(1)
	w, _ := s.bundle(nil)
	o := s.elsewhere()
	b, err := ReadBundle(ctx, o, o.Dir, w, sameKey(o), nil)
	check(t, err)
	check(t, b.Install(o))
	check(t, b.Close())
	moved := &shop{t: t, opts: o, now: s.clock()}
	moved.opts.Now, moved.opts.Sign = moved.clock, s.opts.Sign
	moved.open()
	defer func() { moved.Close() }()
	missing := func() bool {
		list, err := moved.MissingOffline(moved.clock(), goodClock)
		check(t, err)
		return len(list) > 0 && list[0] == payment.ReasonBookUnconfirmed
	}
	for n := range 2 {
		if p := moved.offline(10+n, 50_00, moved.signedBy(1, uint32(n+1))); p.State != payment.PayError || p.Reason != payment.ReasonBookUnconfirmed || !missing() {
			t.Fatalf("%+v", p)
		}
		moved.reopen()
	}
	check(t, moved.Anchored(ctx, moved.Position()))
	for range 2 {
		if missing() {
			t.Fatal("the ledger has seen the book")
		}
		moved.reopen()
	}
	if p := moved.offline(20, 50_00, moved.signedBy(1, 9)); p.Reason == payment.ReasonBookUnconfirmed {
		t.Errorf("%+v", p)
	}
}

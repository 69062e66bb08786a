package trust

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// machine is a computer whose clocks a test moves.
type machine struct {
	true_ time.Time // what time it really is
	boot  time.Duration
	id    string
	off   time.Duration // of the wall clock
	kept  bool
	ppm   float64 // how much too fast the boot clock runs
}

func newMachine() *machine {
	return &machine{true_: time.Date(2026, 11, 23, 1, 0, 0, 0, time.UTC), boot: time.Minute, id: "first", kept: true}
}

func (m *machine) read() Reading {
	return Reading{Boot: m.boot, BootID: m.id, Wall: m.true_.Add(m.off), Kept: m.kept}
}

func (m *machine) pass(d time.Duration) {
	m.true_ = m.true_.Add(d)
	m.boot += d + time.Duration(float64(d)*m.ppm/1e6)
}

// reboot is a restart of the machine that took so long.
func (m *machine) reboot(off time.Duration) {
	m.true_ = m.true_.Add(off)
	m.boot, m.id = 20*time.Second, m.id+"+"
}

func (m *machine) clock() *Clock {
	return NewClock(ClockOptions{Read: m.read, Bound: 30 * time.Second, AfterBoot: 12 * time.Hour})
}

// ask lets the clock ask the ledger, whose answer takes there and back.
func (m *machine) ask(c *Clock, there, back time.Duration) {
	asked := c.Boot()
	m.pass(there)
	at := m.true_
	m.pass(back)
	c.Signed(at, asked, c.Boot())
}

// synced is a clock that has heard the ledger.
func (m *machine) synced(t *testing.T) *Clock {
	t.Helper()
	c := m.clock()
	m.ask(c, 20*time.Millisecond, 20*time.Millisecond)
	m.right(t, c)
	return c
}

// right checks that the clock is trusted and that the truth is within its bound.
func (m *machine) right(t *testing.T, c *Clock) Moment {
	t.Helper()
	now := c.Now()
	if !now.Trusted() || now.At.Sub(m.true_).Abs() > now.Error {
		t.Fatalf("off by %v with bound %v: %+v", now.At.Sub(m.true_), now.Error, now)
	}
	return now
}

func (m *machine) untrusted(t *testing.T, c *Clock, why ClockFault) Moment {
	t.Helper()
	now := c.Now()
	if now.Trusted() || now.Fault != why {
		t.Fatalf("%+v, want %s", now, why)
	}
	return now
}

// keep is what the book would have: the clock's mark, and the time of the last record.
func keep(t *testing.T, c *Clock) TimeMark {
	t.Helper()
	mark, due := c.Mark()
	if !due {
		t.Fatal("nothing to keep")
	}
	c.Kept(mark)
	return mark
}

func TestAClockThatNeverHeardTheLedgerIsTrustedByNobody(t *testing.T) {
	m := newMachine()
	c := m.clock()
	m.untrusted(t, c, ClockNoTime)
	c.Restore(TimeMark{}, time.Time{})
	if now := m.untrusted(t, c, ClockNoTime); now.Source != FromNobody || !now.At.Equal(m.true_) {
		t.Errorf("%+v", now)
	}
	if _, due := c.Mark(); due {
		t.Error("a time that nobody signed is to be kept")
	}
}

func TestAnUntrustedClockIsNeverBehindTheJournal(t *testing.T) {
	m := newMachine()
	m.off = -48 * time.Hour
	c := m.clock()
	last := m.true_.Add(-time.Hour)
	c.Restore(TimeMark{}, last)
	if now := m.untrusted(t, c, ClockNoTime); !now.At.Equal(last) {
		t.Errorf("%v is behind the journal's %v", now.At, last)
	}
}

func TestHalfTheRoundTripIsTheErrorAndItGrowsWithTheDrift(t *testing.T) {
	m := newMachine()
	c := m.clock()
	m.ask(c, 390*time.Millisecond, 10*time.Millisecond)
	if now := m.right(t, c); now.Error != 201*time.Millisecond || now.Source != FromLedger {
		t.Errorf("%+v", now)
	}
	m.pass(24 * time.Hour)
	if now := m.right(t, c); now.Error != 201*time.Millisecond+8640*time.Millisecond {
		t.Errorf("after a day the bound is %v", now.Error)
	}
	m.pass(59 * time.Hour)
	m.untrusted(t, c, ClockUncertain)
	m.ask(c, time.Millisecond, time.Millisecond)
	m.right(t, c)
}

func TestAWorseAnswerDoesNotReplaceWhatIsKnownBetter(t *testing.T) {
	m := newMachine()
	c := m.synced(t)
	m.pass(time.Minute)
	before := c.Now().Error
	m.ask(c, 4*time.Second, 0)
	if now := m.right(t, c); now.Error > before+time.Millisecond {
		t.Errorf("the bound went from %v to %v", before, now.Error)
	}
}

func TestSettingTheMachinesClockMovesNothing(t *testing.T) {
	for name, by := range map[string]time.Duration{"back a day": -24 * time.Hour, "back an hour": -time.Hour, "ahead a year": 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			m := newMachine()
			c := m.synced(t)
			keep(t, c)
			m.off = by
			if now := m.right(t, c); (now.WallAhead - by).Abs() > now.Error {
				t.Errorf("the machine's clock is said to be %v ahead", now.WallAhead)
			}
			if mark, due := c.Mark(); !due || (mark.Ahead-by).Abs() > time.Second {
				t.Errorf("%+v is not kept", mark)
			}
		})
	}
}

func TestANewProcessOfTheSameRunGoesOnWithoutTheLedger(t *testing.T) {
	m := newMachine()
	mark := keep(t, m.synced(t))
	last := m.true_
	m.pass(6 * time.Hour)
	m.off = -90 * 24 * time.Hour // somebody set it, the boot clock knows better
	c := m.clock()
	c.Restore(mark, last)
	if now := m.right(t, c); now.Source != FromLedger || now.Error > 3*time.Second {
		t.Errorf("%+v", now)
	}
}

func TestAfterAReboot(t *testing.T) {
	for name, c := range map[string]struct {
		change func(m *machine)
		wait   time.Duration
		want   ClockFault
	}{
		"a battery's clock is believed for a while":         {func(*machine) {}, time.Hour, ClockGood},
		"and not for ever":                                  {func(*machine) {}, 13 * time.Hour, ClockTooLong},
		"without a battery nobody knows how long it was":    {func(m *machine) { m.kept = false }, 0, ClockNoTime},
		"a clock set before the last journalled time is":    {func(m *machine) { m.off = -9 * time.Hour }, 0, ClockSetBack},
		"the machine's error before the restart is counted": {func(m *machine) { m.off = 20 * time.Second }, 0, ClockGood},
		"a machine that was off for a week is not":          {func(m *machine) { m.true_ = m.true_.Add(7 * 24 * time.Hour) }, 0, ClockUncertain},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine()
			if name == "the machine's error before the restart is counted" {
				c.change(m)
			}
			mark := keep(t, m.synced(t))
			last := m.true_
			m.reboot(8 * time.Hour)
			if m.off == 0 {
				c.change(m)
			}
			clock := m.clock()
			clock.Restore(mark, last)
			m.pass(c.wait)
			if c.want == ClockGood {
				m.right(t, clock)
				return
			}
			now := m.untrusted(t, clock, c.want)
			if now.At.Before(last) {
				t.Errorf("%v is behind the journal's %v", now.At, last)
			}
			m.ask(clock, time.Millisecond, time.Millisecond)
			m.right(t, clock)
		})
	}
}

func TestASmallCorrectionNeverRunsBackwards(t *testing.T) {
	m := newMachine()
	c := m.clock()
	m.ask(c, 0, time.Second) // half a second ahead, within the bound
	before := m.right(t, c).At
	m.ask(c, time.Millisecond, time.Millisecond)
	if now := m.right(t, c); now.At.Before(before) {
		t.Errorf("from %v back to %v", before, now.At)
	}
}

func TestTwoSignedTimesShowAMachineThatIsWorseThanAssumed(t *testing.T) {
	m := newMachine()
	m.ppm = 400
	c := m.synced(t)
	m.pass(time.Hour)
	m.ask(c, time.Millisecond, time.Millisecond)
	for range 5 {
		m.pass(2 * time.Hour)
		m.right(t, c)
	}
}

func TestNonsenseIsNotTaken(t *testing.T) {
	m := newMachine()
	c := m.clock()
	c.Signed(m.true_, 10*time.Second, 5*time.Second)
	c.Signed(m.true_, 0, 10*time.Hour)
	c.Signed(time.Time{}, 0, 0)
	m.untrusted(t, c, ClockNoTime)
	c.Restore(TimeMark{BootID: m.id, At: m.true_, Error: -1}, m.true_)
	m.untrusted(t, c, ClockNoTime)
}

// TestTheTruthIsAlwaysWithinTheBound: whatever happens to the machine, short of a person setting its clock while the
// terminal does not run.
func TestTheTruthIsAlwaysWithinTheBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine()
		m.ppm = rapid.Float64Range(-100, 100).Draw(t, "ppm")
		c := m.clock()
		var mark TimeMark
		last := m.true_
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			d := time.Duration(rapid.Int64Range(0, int64(3*time.Hour)).Draw(t, "time"))
			switch rapid.SampledFrom([]string{"pass", "ask", "set", "process", "reboot"}).Draw(t, "step") {
			case "pass":
				m.pass(d)
			case "ask":
				m.ask(c, d/2000, d/1000)
			case "set":
				m.off = d - 90*time.Minute
			case "process":
				c = m.clock()
				c.Restore(mark, last)
			case "reboot":
				m.reboot(d)
				c = m.clock()
				c.Restore(mark, last)
			}
			now := c.Now()
			if now.Trusted() && now.At.Sub(m.true_).Abs() > now.Error {
				t.Fatalf("off by %v with bound %v: %+v", now.At.Sub(m.true_), now.Error, now)
			}
			if k, due := c.Mark(); due {
				mark = k
				c.Kept(k)
				last = now.At
			}
			if now.Source == FromLedger || now.At.After(last) {
				last = now.At
			}
		}
	})
}

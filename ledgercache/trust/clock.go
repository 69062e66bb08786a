package trust

import (
	"sync"
	"time"
)

// Reading is what the machine's own clocks say at one moment.
type Reading struct {
	Boot   time.Duration // since the machine was started, sleep included: a clock that nobody can set (CLOCK_BOOTTIME)
	BootID string        // names this start of the machine; "" if it cannot be known
	Wall   time.Time     // the clock that anybody can set
	Kept   bool          // a battery keeps Wall while the machine is off
}

// Source is what a time rests on.
type Source string

// The sources.
const (
	FromLedger Source = "LEDGER" // signed by the ledger in this run of the machine, carried on by its boot clock
	FromWall   Source = "WALL"   // the battery's clock after a restart of the machine: not behind the journal, and not for long
	FromNobody Source = "NONE"   // the wall clock as it is, for want of better
)

// ClockFault is why a clock is not trusted.
type ClockFault string

// The faults.
const (
	ClockGood      ClockFault = ""
	ClockNoTime    ClockFault = "NO_SIGNED_TIME" // the ledger has never said what time it is, or nothing kept it while the machine was off
	ClockSetBack   ClockFault = "CLOCK_SET_BACK" // it says a time before one that is journalled
	ClockTooLong   ClockFault = "BOOT_TOO_LONG"  // the machine runs for longer without the ledger than its own clock is believed
	ClockUncertain ClockFault = "OVER_BOUND"     // the error may have grown beyond the bound
)

// Moment is the time with what is known of it.
type Moment struct {
	At        time.Time
	Error     time.Duration // its bound; means nothing where Source is FromNobody
	Source    Source
	Fault     ClockFault    // "" where the time is to be trusted
	WallAhead time.Duration // how far the machine's own clock is ahead of At
	SignedAt  time.Time     // when the ledger's time was heard last, in this run of the machine or the one before; zero = never
}

// Trusted reports whether the time is known within its bound.
func (m Moment) Trusted() bool { return m.Fault == ClockGood }

// TimeMark is a time with the boot clock beside it, as the book keeps it over restarts.
type TimeMark struct {
	BootID   string        `cbor:"1,keyasint"`
	Boot     time.Duration `cbor:"2,keyasint"`
	At       time.Time     `cbor:"3,keyasint"` // at Boot
	Error    time.Duration `cbor:"4,keyasint"`
	Ahead    time.Duration `cbor:"5,keyasint,omitempty"` // of the machine's own clock
	SignedAt time.Time     `cbor:"6,keyasint"`           // the ledger's time that it comes from
	Wall     bool          `cbor:"7,keyasint,omitempty"` // the ledger was not heard in this run of the machine
}

// The numbers of the clock. They are bounds that are assumed, not measured, but for the drift, which grows where two signed
// times show that it is more.
const (
	driftPPM    = 100             // of a boot clock: 0.36 s an hour, 26 s in three days
	wallGrain   = 2 * time.Second // a battery's clock counts seconds, and is set and read once
	standStill  = time.Second     // a correction back of at most so much makes the time stand still, a larger one makes it jump
	markEvery   = time.Hour       // a mark in the journal is renewed when it is this old …
	markMoved   = time.Second     // … or when the time or the machine's own clock was moved by more than this since
	driftAtMost = 10_000          // ppm: a machine that is worse has no clock
)

// ClockOptions say how a Clock reads the machine and how far it goes.
type ClockOptions struct {
	Read  func() Reading
	Bound time.Duration // the largest error that is trusted
	// AfterBoot is for how long the wall clock is believed after a restart of the machine, if a battery has kept it and
	// until the ledger is heard; 0 = not at all.
	AfterBoot time.Duration
}

// Clock is the one owner of the terminal's time: the ledger's signed time, carried on by the machine's boot clock, with an
// error that grows. Setting the machine's own clock does not move it. All methods are safe for concurrent use.
type Clock struct {
	o ClockOptions

	mu     sync.Mutex
	mark   TimeMark // where the time is counted from; a zero At = nowhere
	source Source
	fault  ClockFault // why there is no mark
	floor  time.Time  // the last journalled time
	kept   TimeMark   // the last mark that the book has
	told   time.Time
	ppm    float64
}

// NewClock makes a clock that follows the wall clock, trusted by nobody, until Restore or Signed.
func NewClock(o ClockOptions) *Clock {
	return &Clock{o: o, source: FromNobody, fault: ClockNoTime, ppm: driftPPM}
}

// Restore takes what the book knows: its last mark, the zero TimeMark if it has none, and its last journalled time. It is
// called once, before the clock is asked.
func (c *Clock) Restore(mark TimeMark, last time.Time) {
	r := c.o.Read()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.floor, c.kept, c.told = last, mark, time.Time{}
	if mark.At.IsZero() || mark.Error < 0 {
		return
	}
	c.mark.SignedAt = mark.SignedAt
	switch {
	case sameBoot(mark, r): // this process is another one, the machine still runs
		c.mark, c.source, c.fault = mark, sourceOf(mark), ClockGood
	case !r.Kept || c.o.AfterBoot <= 0:
		c.fault = ClockNoTime
	case r.Wall.Before(last) || r.Wall.Before(mark.At):
		c.fault = ClockSetBack
	default:
		since := r.Wall.Sub(mark.At)
		c.mark = TimeMark{
			BootID: r.BootID, Boot: r.Boot, At: r.Wall.Round(0), Error: mark.Error + mark.Ahead.Abs() + wallGrain + c.drift(since),
			SignedAt: mark.SignedAt, Wall: true,
		}
		c.source, c.fault = FromWall, ClockGood
	}
}

func sourceOf(mark TimeMark) Source {
	if mark.Wall {
		return FromWall
	}
	return FromLedger
}

func sameBoot(mark TimeMark, r Reading) bool {
	return mark.BootID != "" && mark.BootID == r.BootID && r.Boot >= mark.Boot
}

// drift is how far a boot clock may be off after so long.
func (c *Clock) drift(since time.Duration) time.Duration {
	return time.Duration(float64(since) * c.ppm / 1e6)
}

// Boot is the machine's boot clock, by which signed time is asked for.
func (c *Clock) Boot() time.Duration { return c.o.Read().Boot }

// Signed takes a verified time of the ledger, asked for and heard by the boot clock. Half the time between is its error.
// It is used where it is better than what the clock has by itself, or contradicts it.
func (c *Clock) Signed(at time.Time, asked, heard time.Duration) {
	r := c.o.Read()
	if heard < asked || r.Boot < heard || at.IsZero() {
		return
	}
	half := (heard - asked) / 2
	next := TimeMark{BootID: r.BootID, Boot: heard, At: at.Add(half).UTC().Round(0), Error: half + time.Millisecond, SignedAt: at.UTC().Round(0)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.source == FromLedger {
		here, bound := c.carried(heard)
		off := next.At.Sub(here).Abs()
		c.learnDrift(off-bound-next.Error, heard-c.mark.Boot)
		if off <= bound+next.Error && bound <= next.Error {
			c.mark.SignedAt = next.SignedAt
			return // what the clock carries on is known more exactly
		}
	}
	c.mark, c.source, c.fault = next, FromLedger, ClockGood
}

// learnDrift widens the drift where two signed times show that the boot clock is worse than assumed.
func (c *Clock) learnDrift(over, elapsed time.Duration) {
	if over <= 0 || elapsed < time.Minute {
		return
	}
	c.ppm = min(c.ppm+2e6*float64(over)/float64(elapsed), driftAtMost)
}

// carried is the mark carried on to a reading of the boot clock.
func (c *Clock) carried(boot time.Duration) (time.Time, time.Duration) {
	since := boot - c.mark.Boot
	return c.mark.At.Add(since), c.mark.Error + c.drift(since.Abs())
}

// Now is the time, with all that is known of it.
func (c *Clock) Now() Moment {
	r := c.o.Read()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.moment(r)
}

// Time is Now().At, for whoever only counts.
func (c *Clock) Time() time.Time { return c.Now().At }

func (c *Clock) moment(r Reading) Moment {
	m := Moment{Source: c.source, Fault: c.fault, SignedAt: c.mark.SignedAt}
	if c.source == FromNobody {
		m.At = later(r.Wall.Round(0), c.floor)
	} else {
		m.At, m.Error = c.carried(r.Boot)
	}
	if back := c.told.Sub(m.At); back > 0 && back <= standStill {
		m.At, m.Error = c.told, m.Error+back
	}
	c.told = m.At
	switch {
	case c.source != FromNobody && m.Error > c.o.Bound:
		m.Fault = ClockUncertain
	case c.source == FromWall && r.Boot > c.o.AfterBoot:
		m.Fault = ClockTooLong
	}
	m.At = m.At.UTC()
	m.WallAhead = r.Wall.Round(0).Sub(m.At)
	return m
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Mark answers what the book should keep, and whether it is due: the first time of a run of the machine, and later
// ones when an hour has passed or when a clock was moved.
func (c *Clock) Mark() (TimeMark, bool) {
	r := c.o.Read()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.source == FromNobody {
		return TimeMark{}, false
	}
	now := TimeMark{BootID: r.BootID, Boot: r.Boot, SignedAt: c.mark.SignedAt, Wall: c.mark.Wall}
	now.At, now.Error = c.carried(r.Boot)
	now.At = now.At.UTC()
	now.Ahead = r.Wall.Round(0).Sub(now.At)
	since := now.Boot - c.kept.Boot
	due := now.BootID != c.kept.BootID || now.Wall != c.kept.Wall || since < 0 || since >= markEvery || (now.Ahead-c.kept.Ahead).Abs() > markMoved ||
		now.At.Sub(c.kept.At.Add(since)).Abs() > markMoved
	return now, due
}

// Kept says that the book has the mark now.
func (c *Clock) Kept(mark TimeMark) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept, c.floor = mark, mark.At
}

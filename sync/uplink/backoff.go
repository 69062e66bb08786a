package uplink

import "time"

// The times of reconnection (interfaces.md, Semantics).
const (
	retryFirst  = 900 * time.Millisecond // the first retry comes within 1 s
	retryShort  = 3 * time.Second        // two tries of a short outage are never further apart; with the dial itself under 5 s
	shortOutage = 2 * time.Minute
	retryLong   = 60 * time.Second
	steadyAfter = 10 * time.Second // a connection that lived so long ends the outage before it
	slowRetry   = 60 * time.Second // after a refusal that only a person can mend
)

// backoff decides when to try again. It is owned by Run.
type backoff struct {
	random func() float64 // in [0, 1)
	since  time.Time      // when the outage began; zero while the line is steady
	tries  int            // in this outage
}

// down notes that a try failed at now, or that a connection ended which had lived for lived.
func (b *backoff) down(now time.Time, lived time.Duration) {
	if b.since.IsZero() || lived >= steadyAfter {
		b.since, b.tries = now, 0
	}
}

// next is how long to wait before the next try. asked is what the server wanted (0 = nothing), slow says that only a
// person can help.
func (b *backoff) next(now time.Time, asked time.Duration, slow bool) time.Duration {
	b.tries++
	switch {
	case slow:
		return slowRetry/2 + b.jitter(slowRetry/2)
	case asked > 0:
		// Everyone was told the same time: spread over as long again, so that they do not come back as one.
		asked = min(asked, maxRetryWait)
		return asked + b.jitter(min(max(asked, time.Second), retryLong))
	case b.tries == 1:
		return b.jitter(retryFirst)
	case b.short(now):
		most := min(retryFirst<<min(b.tries-1, 8), retryShort)
		return most/3 + b.jitter(most-most/3)
	}
	return b.jitter(retryLong)
}

// short reports whether the outage is still a short one.
func (b *backoff) short(now time.Time) bool {
	return b.since.IsZero() || now.Sub(b.since) < shortOutage
}

// dialLimit is how long a try that begins at now may take. A short outage is tried often, but every third try has the
// patience for a line so slow that it would never come up otherwise.
func (b *backoff) dialLimit(now time.Time) time.Duration {
	if b.short(now) && b.tries%3 != 2 {
		return dialShort
	}
	return dialLong
}

func (b *backoff) jitter(most time.Duration) time.Duration {
	return time.Duration(b.random() * float64(most))
}

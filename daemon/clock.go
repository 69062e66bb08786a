package daemon

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"yupos/ledgercache"
	"yupos/ledgercache/payment"
	"yupos/ledgercache/trust"
)

// clockEvery is how often the clock is looked at for something that the next process should know.
const clockEvery = 10 * time.Second

// clockKeeper lets the line set the clock, and the book keep what the next process must know of it.
type clockKeeper struct {
	*trust.Clock
	book  *ledgercache.Book
	log   *slog.Logger
	heard chan struct{}
	fault trust.ClockFault // what was logged last
}

// newClock is the terminal's time. After a restart of the machine without the ledger its own clock is believed for so long.
func newClock(afterBoot time.Duration) *trust.Clock {
	return trust.NewClock(trust.ClockOptions{Read: readMachine, Bound: payment.ClockBound, AfterBoot: afterBoot})
}

func newClockKeeper(c *trust.Clock, b *ledgercache.Book, log *slog.Logger) *clockKeeper {
	return &clockKeeper{Clock: c, book: b, log: log, heard: make(chan struct{}, 1), fault: c.Now().Fault}
}

// Signed takes a verified time of the ledger.
func (k *clockKeeper) Signed(at time.Time, asked, heard time.Duration) {
	k.Clock.Signed(at, asked, heard)
	select {
	case k.heard <- struct{}{}:
	default:
	}
}

// Run keeps the clock's marks in the book until ctx ends.
func (k *clockKeeper) Run(ctx context.Context) error {
	tick := time.NewTicker(clockEvery)
	defer tick.Stop()
	for {
		k.keep(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-k.heard:
		case <-tick.C:
		}
	}
}

func (k *clockKeeper) keep(ctx context.Context) {
	now := k.Now()
	if now.Fault != k.fault {
		k.fault = now.Fault
		k.log.Warn("clock", slog.String("fault", string(now.Fault)), slog.String("source", string(now.Source)),
			slog.Int64("error_ms", now.Error.Milliseconds()), slog.Int64("machine_ahead_ms", now.WallAhead.Milliseconds()))
	}
	mark, due := k.Mark()
	if !due || k.book.Err() != nil {
		return
	}
	if err := k.book.KeepTime(ctx, mark); err == nil {
		k.Kept(mark)
	} else if !errors.Is(err, context.Canceled) {
		k.log.Warn("time not kept", slog.Any("err", err))
	}
}

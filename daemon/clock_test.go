package daemon

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"yupos/ledgercache"
)

func TestTheMachinesClocksGoOnAndNameThisRunOfTheMachine(t *testing.T) {
	first := machineClocks()
	for range 1000 {
		next := machineClocks()
		if next.Boot < first.Boot || next.BootID != first.BootID || next.BootID == "" {
			t.Fatalf("%+v after %+v", next, first)
		}
		first = next
	}
	if off := time.Since(first.Wall).Abs(); off > time.Minute {
		t.Errorf("the wall clock is off by %v", off)
	}
}

// TestASignedTimeIsKeptAtOnceAndANewProcessGoesOnByIt goes through the parts that the daemon joins: the line hands a
// signed time over, the book keeps it, and the next process trusts its time before it has heard the ledger.
func TestASignedTimeIsKeptAtOnceAndANewProcessGoesOnByIt(t *testing.T) {
	dir := t.TempDir()
	open := func() (*ledgercache.Book, *clockKeeper) {
		t.Helper()
		clock := newClock(0)
		b, err := ledgercache.Open(t.Context(), ledgercache.Options{Dir: dir, Key: [32]byte{1}, TerminalID: "10000001", Clock: clock})
		if err != nil {
			t.Fatal(err)
		}
		return b, newClockKeeper(clock, b, slog.New(slog.DiscardHandler))
	}
	b, k := open()
	if k.Now().Trusted() {
		t.Error("trusted before anybody said what time it is")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	now := k.Boot()
	k.Signed(time.Now().Add(42*time.Hour), now, now)
	deadline := time.Now().Add(10 * time.Second)
	for {
		mark, _, err := b.KnownTime()
		if err != nil {
			t.Fatal(err)
		}
		if !mark.At.IsZero() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the time was never kept")
		}
		time.Sleep(time.Millisecond) // a mark is no change that the book tells of
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b, k = open()
	defer b.Close()
	if m := k.Now(); !m.Trusted() || (time.Until(m.At)-42*time.Hour).Abs() > 5*time.Second {
		t.Errorf("%+v", m)
	}
}

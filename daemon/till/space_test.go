package till

import (
	"context"
	"crypto/ed25519"
	"errors"
	"sync/atomic"
	"testing"

	"yupos/devices/display"
	"yupos/ledgercache"
	"yupos/ledgercache/payment"
)

// onDisk is a counter whose book has a reserve of 8 MB on a disk with so many free MB as the test says.
func onDisk(t *testing.T) (*counter, *atomic.Uint64) {
	c := newCounter(t)
	if err := c.Book().Close(); err != nil {
		t.Fatal(err)
	}
	free := &atomic.Uint64{}
	free.Store(1000)
	book, err := ledgercache.Open(context.Background(), ledgercache.Options{
		Dir: c.dir, Key: [32]byte{1}, TerminalID: shop.TerminalID, ShiftAutoOpen: true, AutoPrint: true, Now: c.clock.now,
		Reserve: 8 << 20, Free: func(string) (uint64, error) { return free.Load() << 20, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	c.paper.book = book
	c.Till = New(Options{
		Book: book, Link: c.line, Shop: shop, Key: ed25519.NewKeyFromSeed(make([]byte, 32)), Scans: c.scans,
		Printer: c.paper, Screen: c.screen, Now: c.clock.now,
	})
	return c, free
}

func TestADiskThatFillsPausesTheCounterAndLetsWhatIsOpenEnd(t *testing.T) {
	c, free := onDisk(t)
	c.run()
	open := c.pay(Sale{OutTradeNo: "OPEN", TotalFen: 1250, AuthCode: online(1)})
	armed := c.arm("ARMED")

	free.Store(20)
	c.until("a warning that the disk is short", func() bool { return c.warned("DISK_LOW") })
	c.shows(display.Amount)

	free.Store(12)
	c.until("the warning that nothing is sold", func() bool { return c.warned("BOOK_DISK_FULL") })
	c.shows(display.Paused)
	if _, _, err := c.Pay(c.ctx, Sale{OutTradeNo: "NEW", TotalFen: 1, AuthCode: online(2)}); !errors.Is(err, ledgercache.ErrDiskFull) {
		t.Errorf("a new payment: %v", err)
	}
	if p, err := c.Cancel(c.ctx, "ARMED", "op1"); err != nil || p.State != payment.Closed || p.TradeNo != armed.TradeNo {
		t.Errorf("a cancel: %+v %v", p, err)
	}
	c.answer(open)
	c.shows(display.Paid)
	c.clock.pass(resultFor)
	c.wake()
	c.shows(display.Paused)

	free.Store(1000)
	c.shows(display.Idle)
	if c.warned("BOOK_DISK_FULL") || c.warned("DISK_LOW") {
		t.Error("the warning stays")
	}
	c.sell(3)
}

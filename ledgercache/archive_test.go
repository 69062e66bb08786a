package ledgercache

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"yupos/ledgercache/payment"
)

func TestOldSegmentsMoveToTheArchiveAndTheBookIsWholeWithThem(t *testing.T) {
	s := newShop(t)
	old := s.must(s.Answer(ctx, s.paid(s.sell(1))))
	for n := range 4 { // each opening begins a segment
		s.pass(150 * 24 * time.Hour)
		s.reopen()
		s.must(s.Answer(ctx, s.paid(s.sell(n+2))))
	}
	check(t, s.Close())
	s.opts.Archive = filepath.Join(t.TempDir(), "archive")
	moved, err := Archive(ctx, s.opts, s.clock().Add(-KeepFor))
	if err != nil || moved != 2 {
		t.Fatalf("%d segments, %v", moved, err)
	}
	p, err := Verify(ctx, s.opts, nil)
	if err != nil || !p.Good() || p.States[payment.Success].Count != 5 {
		t.Fatalf("%+v, %v", p, err)
	}
	// The cache is lost: it is derived from the archive too.
	check(t, os.RemoveAll(s.cacheDir()))
	s.open()
	if x := s.must(s.Trade(old.OutTradeNo)); x.State != payment.Success {
		t.Errorf("%+v", x)
	}
	s.sell(9)
	check(t, s.Close())
	// The archive is away: what is here goes on, and what needs the whole is refused by name.
	away := s.opts.Archive + ".away"
	check(t, os.Rename(s.opts.Archive, away))
	s.open()
	check(t, s.Err())
	if x := s.must(s.Trade(old.OutTradeNo)); x.State != payment.Success {
		t.Errorf("%+v", x)
	}
	s.sell(10)
	check(t, s.Close())
	check(t, os.RemoveAll(s.cacheDir()))
	if _, err := Open(ctx, s.opts); !errors.Is(err, ErrArchiveAway) {
		t.Errorf("a rebuild without the archive: %v", err)
	}
	check(t, os.Rename(away, s.opts.Archive))
	s.open()
	s.must(s.Trade("A000010"))
}

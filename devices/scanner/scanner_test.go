package scanner

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"yupos/devices/serial"
)

// bench is a scanner on a real pseudo-terminal.
type bench struct {
	*Scanner
	t       *testing.T
	link    string
	master  *os.File
	slave   *os.File
	changes chan serial.State
}

func newBench(t *testing.T, cfg Config, settle time.Duration) *bench {
	t.Helper()
	link := filepath.Join(t.TempDir(), "scanner")
	port := serial.New(serial.Config{Name: "scanner", Path: link, Settle: settle}, nil)
	b := &bench{Scanner: New(cfg, port, nil), t: t, link: link, changes: make(chan serial.State, 100)}
	port.OnChange(func(s serial.State) { b.changes <- s })
	return b
}

func (b *bench) start() {
	ctx, cancel := context.WithCancel(b.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	b.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Errorf("Run: %v", err)
		}
	})
}

func (b *bench) open() {
	b.t.Helper()
	var err error
	if b.master, b.slave, err = pty.Open(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { b.master.Close(); b.slave.Close() })
}

func (b *bench) plug() {
	b.t.Helper()
	if err := os.Symlink(b.slave.Name(), b.link); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) unplug() {
	os.Remove(b.link)
	b.master.Close()
	b.slave.Close()
	b.until(false)
}

func (b *bench) until(connected bool) {
	b.t.Helper()
	for {
		select {
		case s := <-b.changes:
			if s.Connected == connected {
				return
			}
		case <-time.After(5 * time.Second):
			b.t.Fatal("no change of state")
		}
	}
}

func (b *bench) scan() Scan {
	b.t.Helper()
	select {
	case s := <-b.Scans():
		return s
	case <-time.After(5 * time.Second):
		b.t.Fatal("no scan")
		return Scan{}
	}
}

func TestAScanArrivesWithTextSymbologyTimeAndBytes(t *testing.T) {
	b := newBench(t, Config{}, time.Millisecond)
	b.start()
	b.open()
	b.plug()
	b.until(true)
	before := time.Now()
	b.master.WriteString("]Q1你好\r\n")
	got := b.scan()
	if got.Text != "你好" || got.Symbology != "]Q1" || string(got.Raw) != "]Q1你好" {
		t.Errorf("got %+v", got)
	}
	if got.At.Before(before) || time.Since(got.At) > 5*time.Second {
		t.Errorf("at %v", got.At)
	}
	if !b.State().Connected {
		t.Error("not connected")
	}
}

func TestStaleBytesNeverBecomeAScan(t *testing.T) {
	b := newBench(t, Config{}, 60*time.Millisecond)
	b.open()
	b.master.WriteString("131111111111111111\r") // was scanned while no daemon ran
	b.plug()
	b.start()
	b.master.WriteString("132222222222222222\r13333") // and while the line settles
	b.until(true)
	b.master.WriteString("134444444444444444\r")
	if got := b.scan(); got.Text != "134444444444444444" {
		t.Fatalf("stale code %q", got.Text)
	}
	if c := b.Counts(); c.Scans != 1 || c.Fragments != 0 {
		t.Errorf("counts %+v", c)
	}
}

func TestAScanCutByUnpluggingNeverJoinsTheNext(t *testing.T) {
	b := newBench(t, Config{Idle: time.Hour}, time.Millisecond) // silence does not help here
	b.start()
	b.open()
	b.plug()
	b.until(true)
	b.master.WriteString("1\r13555")
	b.scan()
	b.unplug()
	b.open()
	b.plug()
	b.until(true)
	b.master.WriteString("555\r")
	if got := b.scan(); got.Text != "555" {
		t.Fatalf("joined to %q", got.Text)
	}
}

func TestSilenceEndsAFragment(t *testing.T) {
	b := newBench(t, Config{Idle: 20 * time.Millisecond}, time.Millisecond)
	b.start()
	b.open()
	b.plug()
	b.until(true)
	b.master.WriteString("13666")
	for b.Counts().Fragments == 0 {
		if t.Context().Err() != nil {
			t.Fatal("never given up")
		}
		time.Sleep(time.Millisecond)
	}
	b.master.WriteString("777\r")
	if got := b.scan(); got.Text != "777" {
		t.Fatalf("joined to %q", got.Text)
	}
}

func TestACodeWithoutTerminatorIsCompleteAfterSilence(t *testing.T) {
	b := newBench(t, Config{Terminator: NoTerminator, Idle: 20 * time.Millisecond}, time.Millisecond)
	b.start()
	b.open()
	b.plug()
	b.until(true)
	b.master.WriteString("888")
	if got := b.scan(); got.Text != "888" {
		t.Fatalf("got %q", got.Text)
	}
}

func TestScansThatNobodyTakesAreCountedAndNeverBlockTheLine(t *testing.T) {
	b := newBench(t, Config{Queue: 2}, time.Millisecond)
	b.start()
	b.open()
	b.plug()
	b.until(true)
	for range 5000 { // far more than the line and its queues hold
		if _, err := b.master.WriteString("123456789012345678\r"); err != nil {
			t.Fatal(err)
		}
	}
	for c := b.Counts(); c.Scans+c.Overflow < 5000; c = b.Counts() {
		if t.Context().Err() != nil {
			t.Fatalf("the line is blocked at %+v", c)
		}
		time.Sleep(time.Millisecond)
	}
	if c := b.Counts(); c.Scans != 2 || c.Overflow != 4998 {
		t.Errorf("counts %+v", c)
	}
}

func TestBrokenTextIsRefused(t *testing.T) {
	b := newBench(t, Config{}, time.Millisecond)
	b.start()
	b.open()
	b.plug()
	b.until(true)
	b.master.WriteString("\xC4\xE3\xBA\xC3\r]Q1\rok\r") // GBK, an identifier alone, a code
	if got := b.scan(); got.Text != "ok" {
		t.Fatalf("got %q", got.Text)
	}
	if c := b.Counts(); c.Garbage != 2 {
		t.Errorf("counts %+v", c)
	}
}

func TestAWrongRateIsSuspectedUntilACodeIsRead(t *testing.T) {
	b := newBench(t, Config{}, time.Millisecond)
	b.start()
	b.open()
	b.plug()
	b.until(true)
	var sent int64
	for _, step := range []struct {
		sent, want string
	}{
		{"\xFE\x80\xE6\r\xFE\x80\r1\r", "已连接"}, // a good code ends the count
		{"\xFE\x80\r\xFE\x80\r\xFE\x80\r", "收到乱码：波特率可能不对，现为 9600，可试 115200"},
		{"2\r", "已连接"},
	} {
		b.master.WriteString(step.sent)
		sent += int64(strings.Count(step.sent, "\r"))
		for c := b.Counts(); c.Garbage+c.Scans < sent; c = b.Counts() {
			time.Sleep(time.Millisecond)
		}
		if got := b.State(); got.Text != step.want || !got.Connected {
			t.Errorf("after %q: %+v", step.sent, got)
		}
	}
}

// How long a code takes from its last byte on the line to the scan, beyond what
// the wire itself takes.
func BenchmarkScanToEvent(b *testing.B) {
	link := filepath.Join(b.TempDir(), "scanner")
	port := serial.New(serial.Config{Name: "scanner", Path: link, Settle: time.Millisecond}, nil)
	connected := make(chan struct{}, 1)
	port.OnChange(func(s serial.State) {
		if s.Connected {
			connected <- struct{}{}
		}
	})
	master, slave, err := pty.Open()
	if err != nil {
		b.Fatal(err)
	}
	defer master.Close()
	defer slave.Close()
	if err := os.Symlink(slave.Name(), link); err != nil {
		b.Fatal(err)
	}
	s := New(Config{}, port, nil)
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	<-connected
	for b.Loop() {
		master.WriteString("131234567890123456\r")
		<-s.Scans()
	}
	cancel()
	<-ended
}

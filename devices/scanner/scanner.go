// Package scanner turns the bytes of a barcode scanner into scans.
//
// Guarantees: a scan is one whole code as the scanner sent it. A fragment never
// joins the next code, a code with control bytes, broken text or too many bytes
// is refused whole, and bytes that were waiting in the line when it was opened
// are never a scan. A consumer that does not take its scans never holds up the
// line: what does not fit is counted and dropped.
//
// Duties: the package does not know what a code means and keeps no memory of
// codes; whoever charges money remembers which were used. It never logs a code.
package scanner

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"yupos/devices/serial"
)

// Config says how the scanner frames its codes. Zero values get the defaults.
type Config struct {
	// Terminator holds the bytes of which each one ends a code; "\r\n" if empty.
	// [NoTerminator] is for engines that send none: there silence ends a code.
	Terminator string
	// Prefix holds bytes that may stand before a code (STX) and start it anew.
	Prefix string
	// Idle is the silence between two bytes that ends the patience: a code
	// without its terminator is thrown away (with NoTerminator: complete). It is
	// not the length of a whole code. 100 ms.
	Idle time.Duration
	// MaxBytes bounds a code; longer ones are refused whole. 4296, the most a QR
	// code can say (ISO/IEC 18004, version 40-L, alphanumeric).
	MaxBytes int
	// Queue is how many scans may wait to be taken. 8.
	Queue int
}

// NoTerminator as Config.Terminator: the scanner sends the bare code.
const NoTerminator = "none"

// Settle is the silence to ask of a scanner's line after it was opened, as
// [serial.Config].Settle: longer than the gap inside a code that a rebooting
// scanner or a waiting pseudo-terminal may still be sending.
const Settle = 200 * time.Millisecond

// Scan is one code.
type Scan struct {
	Text string // UTF-8, without AIM identifier and ECI escapes
	// Symbology is the AIM identifier, such as "]Q1" for QR, if the scanner is
	// set to send one; otherwise "". See [Scan.MayPay].
	Symbology string
	At        time.Time // when the last byte was read
	Raw       []byte    // as framed, without terminator
}

// Counts tells what became of the codes since the start.
type Counts struct {
	Scans     int64 // delivered to the queue
	Overflow  int64 // dropped because nobody took them
	Fragments int64 // broken off before their terminator
	Garbage   int64 // control bytes, broken UTF-8
	TooLong   int64
}

// Scanner reads one scanner. Its methods may be called from any goroutine.
type Scanner struct {
	cfg   Config
	port  *serial.Port
	log   *slog.Logger
	scans chan Scan

	delivered, overflow, fragments, garbage, tooLong atomic.Int64
	unread                                           atomic.Int64 // refused as garbage since the last good code
}

// New returns a scanner on port, which it runs and reads alone.
func New(cfg Config, port *serial.Port, log *slog.Logger) *Scanner {
	if cfg.Terminator == "" {
		cfg.Terminator = "\r\n"
	}
	if cfg.Idle == 0 {
		cfg.Idle = 100 * time.Millisecond
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 4296
	}
	if cfg.Queue == 0 {
		cfg.Queue = 8
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Scanner{cfg: cfg, port: port, log: log, scans: make(chan Scan, cfg.Queue)}
}

// Scans delivers the codes in the order they were read. It is never closed.
func (s *Scanner) Scans() <-chan Scan { return s.scans }

// garbled is how many unreadable codes in a row make a wrong rate likely.
const garbled = 3

// State is the state of the line. A scanner that sends nothing readable is
// connected, but says so: the rate is wrong more often than the scanner.
func (s *Scanner) State() serial.State {
	state := s.port.State()
	if state.Connected && s.unread.Load() >= garbled {
		guess := 9600
		if s.port.Baud() == guess {
			guess = 115200
		}
		state.Text = fmt.Sprintf("收到乱码：波特率可能不对，现为 %d，可试 %d", s.port.Baud(), guess)
		state.TextEN = fmt.Sprintf("unreadable codes: the baud rate %d may be wrong, try %d", s.port.Baud(), guess)
	}
	return state
}

// Counts is a snapshot of the counters.
func (s *Scanner) Counts() Counts {
	return Counts{
		Scans: s.delivered.Load(), Overflow: s.overflow.Load(), Fragments: s.fragments.Load(),
		Garbage: s.garbage.Load(), TooLong: s.tooLong.Load(),
	}
}

// Run runs the port and frames its bytes until ctx ends, then returns nil.
func (s *Scanner) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.port.Run(ctx) })
	group.Go(func() error { s.frame(ctx); return nil })
	return group.Wait()
}

// frame is the only reader of the port.
func (s *Scanner) frame(ctx context.Context) {
	f := newFramer(s.cfg)
	idle := time.NewTimer(time.Hour)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case b := <-s.port.Bytes():
			if b == nil {
				s.note(f.reset())
				s.unread.Store(0)
				continue
			}
			now := time.Now()
			for _, c := range b {
				if frame, end := f.push(c); end != pending {
					s.finish(frame, end, now)
				}
			}
			idle.Reset(s.cfg.Idle)
		case <-idle.C:
			if len(s.port.Bytes()) > 0 {
				continue // we were slow, not the scanner: the bytes are here
			}
			frame, end := f.idle()
			s.finish(frame, end, time.Now())
		}
	}
}

// finish judges a frame that has come to an end.
func (s *Scanner) finish(frame []byte, end ending, at time.Time) {
	if end != complete {
		s.note(end)
		return
	}
	if !utf8.Valid(frame) {
		s.note(garbage)
		return
	}
	symbology, text := splitAIM(string(frame))
	if text == "" {
		s.note(garbage)
		return
	}
	s.unread.Store(0)
	select {
	case s.scans <- Scan{Text: text, Symbology: symbology, At: at, Raw: frame}:
		s.delivered.Add(1)
	default:
		s.overflow.Add(1)
		s.log.Warn("scan dropped, nobody takes scans", slog.Int64("dropped", s.overflow.Load()))
	}
}

// note counts and reports a frame that is no scan, without its content: it may
// be most of a pay code.
func (s *Scanner) note(end ending) {
	var counter *atomic.Int64
	switch end {
	case fragment:
		counter = &s.fragments
	case garbage:
		counter = &s.garbage
		s.unread.Add(1)
	case tooLong:
		counter = &s.tooLong
	default:
		return
	}
	s.log.Warn("scan refused", slog.String("reason", string(end)), slog.Int64("count", counter.Add(1)))
}

// Package display drives a serial screen that faces the customer.
//
// Guarantees: [Display.Set] never blocks; the last state set is what the screen
// shows in the end, also after it was unplugged; states in between may be
// skipped. What a caller puts into a name or a code can not forge a command.
//
// Duties: the caller takes a code off the screen when it expires. A screen never
// decides anything: there is no answer from it, and none is waited for.
package display

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"yupos/devices/serial"
)

// Config chooses the language of the screen. Zero values get the defaults.
type Config struct {
	Profile string // "bonrix", the only one so far
	// Retry is the pause before a state is sent again that the screen did not
	// take. 1 s.
	Retry time.Duration
}

// States of a [Show], as words on the wire to the rest of the house.
const (
	Idle    = "idle"
	Amount  = "amount"
	Code    = "code"
	Confirm = "confirm"
	Paid    = "paid"
	Failed  = "failed"
	Paused  = "paused"
)

// Show is what the customer shall see. A field that its state does not use is
// ignored.
type Show struct {
	State      string // one of the words above; anything else shows Idle
	AmountFen  int64
	AmountText string // "12.50"; if empty, made from AmountFen
	Code       string // the text of the QR code
	Shop       string
	TradeTail  string // the last digits of the trade's number
}

// ErrProfile refuses a profile that is not known.
var ErrProfile = errors.New("display: unknown profile")

// Display keeps one screen at the last state set.
type Display struct {
	cfg  Config
	port *serial.Port
	log  *slog.Logger
	wake chan struct{}

	mu   sync.Mutex
	show Show
	seq  uint64 // of show; 0 = nothing was ever set
}

// New returns a display on port, which it runs and reads alone. Nothing is shown
// until the first Set.
func New(cfg Config, port *serial.Port, log *slog.Logger) *Display {
	if cfg.Profile == "" {
		cfg.Profile = "bonrix"
	}
	if cfg.Retry == 0 {
		cfg.Retry = time.Second
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Display{cfg: cfg, port: port, log: log, wake: make(chan struct{}, 1)}
}

// Set makes show the state to be seen. Only the last one counts.
func (d *Display) Set(show Show) {
	d.mu.Lock()
	d.show = show
	d.seq++
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// State is the state of the line.
func (d *Display) State() serial.State { return d.port.State() }

// Run runs the port and keeps the screen up to date until ctx ends, then returns
// nil. An unknown profile is [ErrProfile].
func (d *Display) Run(ctx context.Context) error {
	if d.cfg.Profile != "bonrix" {
		return ErrProfile
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.port.Run(ctx) })
	group.Go(func() error { d.keep(ctx); return nil })
	return group.Wait()
}

// seen is what the screen is known to show.
type seen struct {
	session uint64
	seq     uint64
	state   string
	broken  bool // a line may have been cut short on the way
}

func (d *Display) keep(ctx context.Context) {
	var last seen
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.port.Bytes(): // a marker after each change of the line; screens say nothing we need
		case <-d.wake:
		case <-retry.C:
		}
		if !d.send(ctx, &last) {
			retry.Reset(d.cfg.Retry)
		}
	}
}

// send brings the screen from last to the present state and says whether there
// is nothing left to do until something changes.
func (d *Display) send(ctx context.Context, last *seen) bool {
	line := d.port.State()
	d.mu.Lock()
	show, seq := d.show, d.seq
	d.mu.Unlock()
	if !line.Connected || seq == 0 || last.session == line.Session && last.seq == seq && !last.broken {
		return true
	}
	from := last.state
	if last.session != line.Session {
		from = "" // a screen that was away may show anything
	}
	text := encode(from, show)
	if last.broken {
		text = "\n" + text // ends whatever half line is there
	}
	_, err := d.port.WriteTo(ctx, line.Session, []byte(text))
	*last = seen{session: line.Session, seq: seq, state: show.State, broken: err != nil}
	if err != nil && ctx.Err() == nil {
		d.log.Warn("display did not take its state", slog.String("error", err.Error()))
	}
	return err == nil || errors.Is(err, serial.ErrAbsent) || errors.Is(err, serial.ErrLost)
}

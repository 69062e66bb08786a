// Package printersim is a receipt printer on a pseudo-terminal. It reads ESC/POS as the manuals describe it and makes paper:
// a text, the codes on it, and a picture dot by dot.
//
// Guarantees: every byte is a character, part of a command, or counted as an error and quoted; nothing is swallowed in
// silence. Commands of real time act where they stand, in the middle of a picture too, and whatever the paper does; queued
// ones are answered when printing has come to them, so that a printer without paper never answers them. Status is pushed
// at each change once it was asked for. The receive buffer is finite: XOFF before it is full, bytes beyond it are lost.
//
// It is an independent reading of the manuals and shares no code with the driver. What it does not reproduce: the speed of
// the line and of the mechanics, heat, a jammed cutter, two-colour paper, page mode, QR codes of another level than M.
//
// Duties of the caller: run [Printer.Run], or feed bytes to [Printer.Feed] without a line.
package printersim

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"yupos/simulators/ptylink"
)

// ErrState refuses a state that no printer has.
var ErrState = errors.New("printersim: no such state")

// The receive buffer: XOFF when less than lowRoom is left, XON when more than highRoom is.
const (
	bufferSize = 4096
	lowRoom    = 512
	highRoom   = 2048
)

const (
	xon  = 0x11
	xoff = 0x13
)

// Options describe the printer.
type Options struct {
	Path    string        // where the line is published
	Dots    int           // printable width: 576 (80 mm paper, the default) or 384 (58 mm)
	IdleGap time.Duration // a pause after which the paper is torn off; 0 means 1 s
	// OnReceipt, unless nil, sees each receipt in the order of printing. The printer waits for it; it must not call back.
	OnReceipt func(Receipt)
}

// Printer is one printer. Its exported methods may be called from any number of goroutines.
type Printer struct {
	options Options
	link    *ptylink.Link
	replies chan []byte

	mu       sync.Mutex
	sensors  sensors
	rx       []byte // received and not looked at
	held     bool   // XOFF was sent
	tail     tail
	pulses   bool // DLE DC4 may open the drawer
	asb      byte // the kinds of change to push
	lost     int
	errors   int
	last     string
	idle     *time.Timer
	count    int
	receipts []Receipt
	ended    time.Time // of the last receipt

	page    *page
	command []byte // the one that is being received
	want    int    // bytes it has at least
	skip    int    // bytes of a command too large to keep
	modes
}

// New makes a printer that is not plugged in, with paper, its cover closed.
func New(o Options) *Printer {
	if o.Dots == 0 {
		o.Dots = 576
	}
	if o.IdleGap == 0 {
		o.IdleGap = time.Second
	}
	p := &Printer{
		options: o, link: ptylink.New(o.Path), replies: make(chan []byte, 256),
		sensors: sensors{PaperOK, CoverClosed}, receipts: []Receipt{},
	}
	p.powerOn()
	p.idle = time.AfterFunc(time.Hour, p.tearOff)
	p.idle.Stop()
	return p
}

// Run plugs the printer in and serves its line until ctx ends.
func (p *Printer) Run(ctx context.Context) error {
	if err := p.link.Connect(); err != nil {
		return fmt.Errorf("printer: %w", err)
	}
	var writer sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case b := <-p.replies:
				p.link.Write(b) // a host that does not listen misses it, as on a real line
			}
		}
	})
	defer writer.Wait()
	return p.link.Run(ctx, p.Feed)
}

// Feed takes bytes as the line brings them.
func (p *Printer) Feed(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range b {
		p.realTime(c)
		p.receive(c)
	}
	p.idle.Reset(p.options.IdleGap)
}

// receive puts a byte into the buffer and prints what can be printed.
func (p *Printer) receive(c byte) {
	if len(p.rx) >= bufferSize {
		p.lost++
		return
	}
	p.rx = append(p.rx, c)
	p.pump()
	if !p.held && bufferSize-len(p.rx) < lowRoom {
		p.held = true
		p.reply(xoff)
	}
}

// pump works through the buffer while the printer prints.
func (p *Printer) pump() {
	for len(p.rx) > 0 && !p.sensors.offline() {
		c := p.rx[0]
		p.rx = p.rx[1:]
		p.step(c)
	}
	if len(p.rx) == 0 {
		p.rx = nil
	}
	if p.held && bufferSize-len(p.rx) > highRoom {
		p.held = false
		p.reply(xon)
	}
}

// clear forgets what was received and not printed.
func (p *Printer) clear() {
	p.rx = nil
	p.command, p.want, p.skip = nil, 0, 0
	p.page.clearLine()
}

// reply sends bytes to the host.
func (p *Printer) reply(b ...byte) {
	select {
	case p.replies <- b:
	default: // nobody has listened to the last 256
	}
}

// fault counts what the host did wrong.
func (p *Printer) fault(format string, args ...any) {
	p.errors++
	p.last = fmt.Sprintf(format, args...)
}

// tearOff ends a receipt that no cutter ended.
func (p *Printer) tearOff() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sensors.offline() || len(p.rx) > 0 || len(p.command) > 0 || p.skip > 0 {
		return // it is not finished: paper, or the rest of a command, is missing
	}
	p.finish(false)
}

// kick opens the drawer. A pulse belongs to the receipt that is being printed, or to the one just cut.
func (p *Printer) kick() {
	n := len(p.receipts)
	if !p.page.marked && p.page.empty() && n > 0 && time.Since(p.ended) < p.options.IdleGap {
		p.receipts[n-1].Drawer = true
		return
	}
	p.page.drawer = true
}

// Change says what to change; nil leaves it.
type Change struct {
	Paper     *string `json:"paper"`
	Cover     *string `json:"cover"`
	Connected *bool   `json:"connected"`
}

// SetState changes paper, cover and plug and returns the new state. A printer that gets its paper back goes on where it
// stopped; one that is plugged in again starts anew: its buffer and its modes are gone.
func (p *Printer) SetState(c Change) (State, error) {
	next, err := p.sensed(c)
	if err != nil {
		return State{}, err
	}
	if c.Connected != nil && *c.Connected != p.link.Connected() {
		if err := p.plug(*c.Connected); err != nil {
			return State{}, err
		}
	}
	p.mu.Lock()
	kinds := p.sensors.change(next)
	p.sensors = next
	if kinds&p.asb != 0 {
		p.reply(next.block()...)
	}
	p.pump()
	p.idle.Reset(p.options.IdleGap)
	p.mu.Unlock()
	return p.State(), nil
}

func (p *Printer) sensed(c Change) (sensors, error) {
	p.mu.Lock()
	next := p.sensors
	p.mu.Unlock()
	if c.Paper != nil {
		next.paper = *c.Paper
	}
	if c.Cover != nil {
		next.cover = *c.Cover
	}
	if next.paper != PaperOK && next.paper != PaperNear && next.paper != PaperOut {
		return next, fmt.Errorf("%w: paper %q", ErrState, next.paper)
	}
	if next.cover != CoverClosed && next.cover != CoverOpen {
		return next, fmt.Errorf("%w: cover %q", ErrState, next.cover)
	}
	return next, nil
}

// plug pulls the printer out, power and data in one, or puts it in.
func (p *Printer) plug(in bool) error {
	if !in {
		return p.link.Disconnect()
	}
	p.mu.Lock()
	p.finish(false)
	p.powerOn()
	p.mu.Unlock()
	return p.link.Connect()
}

// powerOn brings buffers and modes to their initial state.
func (p *Printer) powerOn() {
	p.rx, p.held, p.tail, p.pulses = nil, false, tail{}, true
	p.command, p.want, p.skip, p.page = nil, 0, 0, p.blank()
	p.initialise()
}

// State is the present state.
func (p *Printer) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return State{
		Paper: p.sensors.paper, Cover: p.sensors.cover, Connected: p.link.Connected(),
		Waiting: len(p.rx) + len(p.command), Lost: p.lost, Errors: p.errors, LastError: p.last,
	}
}

func (p *Printer) blank() *page { return &page{dots: p.options.Dots} }

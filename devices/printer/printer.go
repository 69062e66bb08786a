// Package printer turns documents into ESC/POS and says what became of them.
//
// Guarantees: "printed" means that the printer answered a fence that stood
// behind the last byte of the job, never that bytes were written. "failed" means
// that not one byte of the document left. Everything else is "unknown", and is
// never sent again by itself: a person looks at the paper. Text that a printer
// can not print turns into □, not into garbage, and no picture can spell a
// command that opens the drawer. [Encode] is pure.
//
// Duties: one goroutine calls [Printer.Run]. Whoever prints again says so on the
// paper. Money never waits for this package.
package printer

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"yupos/devices/serial"
)

// Outcome is what became of a job; the words are kept in books.
type Outcome string

// The outcomes. Only Failed may be tried again without asking anybody.
const (
	Printed Outcome = "printed"
	Failed  Outcome = "failed"
	Unknown Outcome = "unknown"
)

// Words for a person.
func (o Outcome) Words() (zh, en string) {
	switch o {
	case Printed:
		return "已打印", "printed"
	case Failed:
		return "未打印", "not printed"
	}
	return "打印结果未知：请看小票是否完整", "print result unknown: look whether the slip is complete"
}

// Why a job was not printed, or is unknown. [serial.ErrAbsent] and
// [serial.ErrLost] are the line's.
var (
	ErrPaper     = errors.New("printer: out of paper")
	ErrCover     = errors.New("printer: cover open")
	ErrOffline   = errors.New("printer: offline")
	ErrFault     = errors.New("printer: fault of the printer")
	ErrSilent    = errors.New("printer: no answer")
	ErrHeld      = errors.New("printer: takes no data")
	ErrRestarted = errors.New("printer: was switched off and on during the job")
	ErrQueueFull = errors.New("printer: too many jobs waiting")
	ErrWithdrawn = errors.New("printer: withdrawn before it was sent")
	ErrStopped   = errors.New("printer: stopped")
)

// Config of one printer. Zero values get the defaults.
type Config struct {
	Profile Profile       // see [ProfileNamed]; "80mm"
	Reply   time.Duration // for an answer that comes at once. 1 s
	Fence   time.Duration // for the fence, beyond the time on the wire. 10 s
	// Stall is how long a started job waits for a person to load paper or close
	// the cover before it is unknown. 2 min.
	Stall time.Duration
	Poll  time.Duration // between questions for the status. 5 s
	Queue int           // jobs that may wait. 16
	// BeforeSend, if set, is called when a job's first byte is about to leave,
	// which is when "sent" must be durable. Its error fails the job unsent.
	BeforeSend func(ctx context.Context, jobID string) error
}

func (cfg Config) withDefaults() Config {
	if cfg.Profile == (Profile{}) {
		cfg.Profile = profiles["80mm"]
	}
	def := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	def(&cfg.Reply, time.Second)
	def(&cfg.Fence, 10*time.Second)
	def(&cfg.Stall, 2*time.Minute)
	def(&cfg.Poll, 5*time.Second)
	if cfg.Queue == 0 {
		cfg.Queue = 16
	}
	return cfg
}

// Printer is one printer. Its methods may be called from any goroutine.
type Printer struct {
	cfg     Config
	port    *serial.Port
	log     *slog.Logger
	wire    *wire
	jobs    chan *job
	opened  chan struct{} // the line was opened or lost
	stopped chan struct{} // closed when Run has ended
	queued  atomic.Int64
	fenceNo uint32 // the worker's; starts anywhere, so that an earlier process can not answer for us

	mu       sync.Mutex
	last     Status // last told to watchers
	watchers []func(Status)
}

// New returns a printer on port, which it runs and reads alone.
func New(cfg Config, port *serial.Port, log *slog.Logger) *Printer {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	cfg = cfg.withDefaults()
	var start [4]byte
	_, _ = rand.Read(start[:]) // never fails (crypto/rand)
	return &Printer{
		cfg: cfg, port: port, log: log, wire: newWire(),
		jobs: make(chan *job, cfg.Queue), opened: make(chan struct{}, 1), stopped: make(chan struct{}),
		fenceNo: binary.BigEndian.Uint32(start[:]),
	}
}

// Status is the printer as last heard of.
func (p *Printer) Status() Status {
	line, v := p.port.State(), p.wire.look()
	known := v.known && v.session == line.Session
	return statusOf(line, known, v.faults, int(p.queued.Load()))
}

// OnChange has fn called when the words of [Printer.Status] change, one call at
// a time. fn must not block.
func (p *Printer) OnChange(fn func(Status)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watchers = append(p.watchers, fn)
}

// tell calls the watchers if there is something new to say.
func (p *Printer) tell() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.Status()
	if now.Text == p.last.Text && now.OK == p.last.OK {
		return
	}
	p.last = now
	p.log.Info("printer changed", slog.Bool("ok", now.OK), slog.String("state", now.TextEN))
	for _, fn := range p.watchers {
		fn(now)
	}
}

// Run runs the port and prints until ctx ends, then returns nil. A job in flight
// is then unknown, jobs that wait are failed. It can run once.
func (p *Printer) Run(ctx context.Context) error {
	if err := p.cfg.Profile.Check(); err != nil {
		return err
	}
	defer close(p.stopped)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.port.Run(ctx) })
	group.Go(func() error { p.listen(ctx); return nil })
	group.Go(func() error { p.work(ctx); return nil })
	return group.Wait()
}

// listen is the only reader of the port.
func (p *Printer) listen(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case b := <-p.port.Bytes():
			if b == nil {
				session := p.port.State().Session
				p.wire.update(func(v *view) { v.reset(session) })
				select {
				case p.opened <- struct{}{}:
				default:
				}
			} else {
				p.wire.update(func(v *view) { v.feed(b) })
			}
			p.tell()
		}
	}
}

const rarely = 6 // of so many polls one reaches a printer that has stopped

// work prints one job after the other and asks for the status in between.
func (p *Printer) work(ctx context.Context) {
	poll := time.NewTicker(p.cfg.Poll)
	defer poll.Stop()
	for tick := 0; ctx.Err() == nil; {
		select {
		case <-ctx.Done():
		case j := <-p.jobs:
			p.serve(ctx, j)
		case <-p.opened:
			p.greet(ctx, p.wire.look().session)
		case <-poll.C:
			// A printer that has stopped, and tells when it goes on, is asked less
			// often: some keep the questions in the buffer that they do not empty.
			if v := p.wire.look(); v.blocks == 0 || !v.faults.stop() || tick%rarely == 0 {
				_ = p.askAll(ctx, v.session) // the status says it
			}
			tick++
		}
	}
}

// greet finds out about a printer that was just connected. Errors are told by
// the status.
func (p *Printer) greet(ctx context.Context, session uint64) {
	if session != 0 && p.rouse(ctx, session) == nil && p.cfg.Profile.ASB {
		_, _ = p.port.WriteTo(ctx, session, enableASB)
	}
}

// rouse asks a printer for its status, if need be after filling up what it still
// waits for: the rest of a picture or a code of which an earlier process sent the
// first half. Zeros are nothing to a printer that waits for none.
func (p *Printer) rouse(ctx context.Context, session uint64) error {
	err := p.askAll(ctx, session)
	if !errors.Is(err, ErrSilent) {
		return err
	}
	if err := p.fill(ctx, session); err != nil {
		return err
	}
	return p.askAll(ctx, session)
}

func (p *Printer) fill(ctx context.Context, session uint64) error {
	zeros := make([]byte, max(longestData, p.cfg.Profile.bandBytes()))
	if _, err := p.port.WriteTo(ctx, session, zeros); err != nil {
		return err
	}
	p.pause(ctx) // answers come behind them
	return nil
}

// pause waits until at most a piece of what was written is still on this side of
// the wire; more could not be held back when the printer says stop, and questions
// would wait behind it.
func (p *Printer) pause(ctx context.Context) {
	for queued := p.port.Queued(); queued > p.piece() && ctx.Err() == nil; queued = p.port.Queued() {
		timer := time.NewTimer(p.onWire(queued - p.piece()/2))
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// piece is how many bytes may be under way when the printer says stop: a tenth
// of a second of them.
func (p *Printer) piece() int { return min(max(p.port.Baud()/100, 64), 512) }

// onWire is how long n bytes take (8N1: ten bits each).
func (p *Printer) onWire(n int) time.Duration {
	return time.Duration(n) * 10 * time.Second / time.Duration(p.port.Baud())
}

// askAll refreshes the whole status through the real-time lane.
func (p *Printer) askAll(ctx context.Context, session uint64) error {
	for n := 1; n <= 4; n++ {
		if err := p.ask(ctx, session, n); err != nil {
			p.tell()
			return err
		}
	}
	return nil
}

// ask sends DLE EOT n, which is answered at once, also by a printer that is
// offline, held or out of paper.
func (p *Printer) ask(ctx context.Context, session uint64, n int) error {
	if session == 0 {
		return serial.ErrAbsent
	}
	p.wire.update(func(v *view) { v.asking = n })
	defer p.wire.update(func(v *view) { v.asking = 0 })
	if _, err := p.port.WriteTo(ctx, session, []byte{0x10, 0x04, byte(n)}); err != nil {
		return err
	}
	answered := p.wire.await(ctx, p.cfg.Reply, func(v *view) bool { return v.asking == 0 })
	if !answered {
		p.wire.update(func(v *view) { v.known = false })
		return fmt.Errorf("status %d: %w", n, ErrSilent)
	}
	return nil
}

// Package serial keeps a serial line that survives unplugging.
//
// Guarantees: no byte is ever written after the line was closed or to another
// device than the one meant; a write ends at its deadline and tells how many
// bytes the kernel took; one owner at a time, also as root; what was waiting in
// the line before it was opened is thrown away and readers see a marker, so that
// stale bytes never become a scan; a device may be absent at the start, vanish
// and come back at any byte, and that is one log line per change.
//
// Duties: one goroutine calls [Port.Run], one reads [Port.Bytes]. It is the only
// package that imports the serial library; DESIGN.md says why it is wrapped.
package serial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Config describes one line. Zero values get the defaults.
type Config struct {
	Name string // for logs and errors, for example "scanner"
	// Path is a tty, best by a stable name (/dev/serial/by-id/…), a link to
	// one, or tcp://host:port.
	Path string
	Baud int // bits a second; 9600. The kernel rounds a rate that the line does not have.
	// Settle is how long the line must be silent after it was opened before it
	// counts as connected; what comes in meanwhile is discarded. 50 ms.
	Settle time.Duration
	// WriteTimeout bounds each write, besides the caller's context. 5 s.
	WriteTimeout time.Duration
	// MaxBackoff caps the pause between attempts to open an absent device. 1 s.
	MaxBackoff time.Duration
}

const (
	minBackoff = 20 * time.Millisecond
	readBytes  = 4096
	readChunks = 64 // what may wait for a slow reader before the kernel does
)

func (cfg Config) withDefaults() Config {
	if cfg.Baud <= 0 {
		cfg.Baud = 9600
	}
	if cfg.Settle == 0 {
		cfg.Settle = 50 * time.Millisecond
	}
	if cfg.WriteTimeout == 0 {
		cfg.WriteTimeout = 5 * time.Second
	}
	if cfg.MaxBackoff == 0 {
		cfg.MaxBackoff = time.Second
	}
	return cfg
}

// Port is one line to one device. Its methods may be called from any goroutine
// at any time, before, during and after Run.
type Port struct {
	cfg     Config
	log     *slog.Logger
	bytes   chan []byte
	writing chan struct{} // held by the one writer

	mu       sync.Mutex
	running  bool
	dev      device // nil unless connected
	state    State
	sessions uint64
	watchers []func(State)
}

// New returns a line that is not connected until Run. It opens nothing.
func New(cfg Config, log *slog.Logger) *Port {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	cfg = cfg.withDefaults()
	return &Port{
		cfg:     cfg,
		log:     log.With(slog.String("device", cfg.Name)),
		bytes:   make(chan []byte, readChunks),
		writing: make(chan struct{}, 1),
		state:   State{Since: time.Now(), Text: textStarting[0], TextEN: textStarting[1]},
	}
}

// Baud is the rate of the line in bits a second.
func (p *Port) Baud() int { return p.cfg.Baud }

// Bytes delivers what the device sent, in order. A nil slice is a marker: the
// line was just opened or just lost, whatever was incomplete is void. The
// receiver owns the slices. It is never closed.
func (p *Port) Bytes() <-chan []byte { return p.bytes }

// State is the line as it is now.
func (p *Port) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// OnChange has fn called on each change of state, one call at a time, before the
// marker of that change is delivered. fn must not block.
func (p *Port) OnChange(fn func(State)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watchers = append(p.watchers, fn)
}

// Run opens the line, reads it and opens it again, until ctx ends; then it
// returns nil with the line closed. An absent device is not an error.
func (p *Port) Run(ctx context.Context) error {
	p.mu.Lock()
	if p.running {
		p.mu.Unlock()
		return ErrRunning
	}
	p.running = true
	p.mu.Unlock()
	defer func() {
		p.setState(nil, textStopped, slog.LevelInfo, nil)
		p.mu.Lock()
		p.running = false
		p.mu.Unlock()
	}()
	for backoff := minBackoff; ctx.Err() == nil; {
		w := watch(p.cfg.Path) // before the attempt, so that nothing falls between
		settled, err := p.connect(ctx)
		if settled {
			backoff = minBackoff
		}
		if err != nil && ctx.Err() == nil {
			p.setState(nil, words(err), slog.LevelWarn, err)
			pause(ctx, w, backoff)
		}
		w.close()
		backoff = min(backoff*2, p.cfg.MaxBackoff)
	}
	return nil
}

// pause waits for the backoff or for a hint that a device appeared.
func pause(ctx context.Context, w *watcher, backoff time.Duration) {
	timer := time.NewTimer(backoff)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-w.hints():
		// udev creates the node first and its rights after; a busy directory
		// must not make us spin either.
		select {
		case <-ctx.Done():
		case <-time.After(minBackoff):
		}
	}
}

// connect serves one connection to its end and says whether it came to settle.
func (p *Port) connect(ctx context.Context) (settled bool, err error) {
	dev, err := open(ctx, p.cfg)
	if err != nil {
		return false, err
	}
	defer dev.Close()
	stop := context.AfterFunc(ctx, func() { dev.Close() }) // wakes a blocked read
	defer stop()
	if err := p.settle(dev); err != nil {
		return false, err
	}
	p.setState(dev, textConnected, slog.LevelInfo, nil)
	if err = p.send(ctx, nil); err == nil {
		err = p.read(ctx, dev)
	}
	if ctx.Err() == nil {
		p.setState(nil, words(err), slog.LevelWarn, err) // before the marker
	}
	return true, errors.Join(err, p.send(ctx, nil))
}

// settle throws away what arrives until the line was silent for the settle time.
// A pseudo-terminal keeps unread bytes over close and open, and a scanner may be
// in the middle of a code; neither may be read as a scan.
func (p *Port) settle(dev device) error {
	var buf [readBytes]byte
	for {
		if err := dev.SetReadDeadline(time.Now().Add(p.cfg.Settle)); err != nil {
			return p.lost("settle", err)
		}
		_, err := dev.Read(buf[:])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return dev.SetReadDeadline(time.Time{})
		}
		if err != nil {
			return p.lost("settle", err)
		}
	}
}

func (p *Port) read(ctx context.Context, dev device) error {
	buf := make([]byte, readBytes)
	for {
		n, err := dev.Read(buf)
		if n > 0 {
			if sendErr := p.send(ctx, append(make([]byte, 0, n), buf[:n]...)); sendErr != nil {
				return sendErr
			}
		}
		if err != nil {
			return p.lost("read", err)
		}
	}
}

// send waits for the reader: a device that talks faster than it is read is held
// back by the kernel, not by memory.
func (p *Port) send(ctx context.Context, b []byte) error {
	select {
	case p.bytes <- b:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lost names every end of an open line alike: EOF, EIO of a vanished terminal,
// and our own Close after a failed write.
func (p *Port) lost(op string, err error) error {
	if errors.Is(err, io.EOF) {
		err = ErrLost
	}
	return fmt.Errorf("%s %s: %w", op, p.cfg.Name, errors.Join(ErrLost, err))
}

// setState records the state, and tells watchers and log if its words changed. A
// lost device that is not there yet stays "lost": that is one change, not two.
func (p *Port) setState(dev device, text [2]string, level slog.Level, cause error) {
	p.mu.Lock()
	p.dev = dev
	same := p.state.Text == text[0] || p.state.Text == textLost[0] && text == textAbsent
	if dev == nil && same {
		p.mu.Unlock()
		return
	}
	p.state = State{Connected: dev != nil, Since: time.Now(), Text: text[0], TextEN: text[1]}
	if dev != nil {
		p.sessions++
		p.state.Session = p.sessions
	}
	state, watchers := p.state, p.watchers
	p.mu.Unlock()
	attrs := []slog.Attr{slog.Bool("connected", state.Connected), slog.String("state", state.TextEN)}
	if cause != nil {
		attrs = append(attrs, slog.String("error", cause.Error()))
	}
	p.log.LogAttrs(context.Background(), level, "device changed", attrs...)
	for _, fn := range watchers {
		fn(state)
	}
}

// Queued is how many bytes of earlier writes the kernel has not put on the wire
// yet, 0 where nobody knows (TCP; a pseudo-terminal has no wire). A sender that
// wants to be stoppable keeps it small.
func (p *Port) Queued() int {
	p.mu.Lock()
	file, ok := p.dev.(*os.File)
	p.mu.Unlock()
	if !ok {
		return 0
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) }) // 0 if it fails
	return n
}

// Write sends b on whatever connection there is and returns how many bytes the
// kernel took: less than len(b) only with an error, [ErrAbsent], [ErrTimeout],
// [ErrLost] or the context's. Taken is not printed, shown or even sent.
func (p *Port) Write(ctx context.Context, b []byte) (int, error) {
	return p.WriteTo(ctx, 0, b)
}

// WriteTo is Write for one session of [State] only: once that connection is gone
// it writes nothing and answers [ErrAbsent], so that the second half of a job
// can not reach a device that was plugged in meanwhile. Session 0 is any.
func (p *Port) WriteTo(ctx context.Context, session uint64, b []byte) (int, error) {
	select {
	case p.writing <- struct{}{}:
		defer func() { <-p.writing }()
	case <-ctx.Done():
		return 0, fmt.Errorf("write %s: %w", p.cfg.Name, ctx.Err())
	}
	p.mu.Lock()
	dev, current := p.dev, p.state.Session
	p.mu.Unlock()
	if dev == nil || session != 0 && session != current {
		return 0, fmt.Errorf("write %s: %w", p.cfg.Name, ErrAbsent)
	}
	n, err := p.write(ctx, dev, b)
	if err != nil {
		return n, fmt.Errorf("write %s: %w", p.cfg.Name, err)
	}
	return n, nil
}

// write needs the writing token: the deadline belongs to the whole device.
func (p *Port) write(ctx context.Context, dev device, b []byte) (int, error) {
	deadline := time.Now().Add(p.cfg.WriteTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := dev.SetWriteDeadline(deadline); err != nil {
		return 0, errors.Join(ErrLost, err)
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_ = dev.SetWriteDeadline(time.Unix(1, 0))
	})
	n, err := dev.Write(b)
	if !stop() {
		<-woken // or it would cut the deadline of the next write
	}
	switch {
	case err == nil:
		return n, nil
	case ctx.Err() != nil:
		return n, errors.Join(ErrTimeout, ctx.Err())
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, ErrTimeout
	}
	dev.Close() // wakes the reader, which reports the loss
	return n, errors.Join(ErrLost, err)
}

package printer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"yupos/devices/serial"
)

var (
	initialize  = []byte{0x1B, 0x40}       // ESC @
	enableASB   = []byte{0x1D, 0x61, 0xFF} // GS a: every change, and now
	askQueued   = []byte{0x1D, 0x72, 0x01} // GS r 1
	longestData = 2400                     // bytes that one command of ours can wait for: a stored QR code
)

// job is one document on its way.
type job struct {
	id    string
	ctx   context.Context // of Print, until the job is started
	body  body
	state atomic.Int32 // waiting, started or withdrawn
	done  chan result
}

const (
	waiting int32 = iota
	started
	withdrawn
)

type result struct {
	outcome Outcome
	err     error
}

// Print prints doc and returns what became of it, with the reason if it was not
// printed. It waits for the jobs before it, and while a started job waits for
// paper. The end of ctx withdraws a job that was not started; a started one is
// always waited for, at most the stall and fence times. jobID is for the log and
// for [Config].BeforeSend.
func (p *Printer) Print(ctx context.Context, jobID string, doc Document) (Outcome, error) {
	body, err := encode(doc, p.cfg.Profile)
	if err != nil {
		return Failed, fmt.Errorf("print %s: %w", jobID, err)
	}
	j := &job{id: jobID, ctx: ctx, body: body, done: make(chan result, 1)}
	select {
	case p.jobs <- j:
	default:
		return Failed, fmt.Errorf("print %s: %w", jobID, ErrQueueFull)
	}
	p.queued.Add(1)
	defer p.queued.Add(-1)
	r := p.outcome(ctx, j)
	if r.err != nil {
		return r.outcome, fmt.Errorf("print %s: %w", jobID, r.err)
	}
	return r.outcome, nil
}

func (p *Printer) outcome(ctx context.Context, j *job) result {
	select {
	case r := <-j.done:
		return r
	case <-ctx.Done():
		if j.state.CompareAndSwap(waiting, withdrawn) {
			return result{Failed, errors.Join(ErrWithdrawn, ctx.Err())}
		}
	case <-p.stopped:
		if j.state.CompareAndSwap(waiting, withdrawn) {
			return result{Failed, ErrStopped}
		}
	}
	return <-j.done
}

// serve prints a job that was not withdrawn and reports it.
func (p *Printer) serve(ctx context.Context, j *job) {
	if !j.state.CompareAndSwap(waiting, started) {
		return
	}
	begin := time.Now()
	outcome, err := p.print(ctx, j)
	if err != nil && ctx.Err() != nil {
		err = errors.Join(ErrStopped, err)
	}
	attrs := []slog.Attr{
		slog.String("job", j.id), slog.String("outcome", string(outcome)), slog.Int("bytes", len(j.body.bytes)),
		slog.Int64("ms", time.Since(begin).Milliseconds()),
	}
	level := slog.LevelInfo
	if err != nil {
		level = slog.LevelWarn
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	p.log.LogAttrs(context.Background(), level, "print job ended", attrs...)
	p.tell()
	j.done <- result{outcome, err}
}

// print is the whole life of a job: is the printer ready, does it listen, the
// body, the fence.
func (p *Printer) print(ctx context.Context, j *job) (Outcome, error) {
	r := &run{p: p, session: p.wire.look().session}
	if err := r.ready(ctx); err != nil {
		return Failed, err
	}
	if err := r.hello(ctx); err != nil {
		return Failed, err
	}
	r.begin()
	if p.cfg.BeforeSend != nil {
		if err := p.cfg.BeforeSend(ctx, j.id); err != nil {
			return Failed, err
		}
	}
	if sent, err := r.send(ctx, j.body); err != nil {
		if sent == 0 {
			return Failed, err
		}
		return Unknown, err
	}
	if err := r.fence(ctx); err != nil {
		return Unknown, err
	}
	return Printed, nil
}

// run is one job on one session of the line. The end of the session ends it, and
// once the document begins to leave, a restart of the printer does too.
type run struct {
	p        *Printer
	session  uint64
	begun    bool
	restarts int // before the document
}

// begin is called when nothing of the document has left yet. Some printers greet
// their initialisation with XON, as if they had been switched on; that is over.
func (r *run) begin() {
	r.restarts, r.begun = r.p.wire.look().restarts, true
}

// over says why the run can not go on, or nil.
func (r *run) over(v *view) error {
	switch {
	case v.session == 0 || v.session != r.session:
		return serial.ErrLost
	case r.begun && v.restarts != r.restarts:
		return ErrRestarted
	}
	return nil
}

// ready asks the printer for its status before anything of the job leaves.
func (r *run) ready(ctx context.Context) error {
	if r.session == 0 {
		return serial.ErrAbsent
	}
	if err := r.p.rouse(ctx, r.session); err != nil {
		return err
	}
	return r.p.wire.look().faults.err()
}

// hello initialises the printer and waits until it has come to the command: a
// printer may answer questions and still wait for the rest of an old picture,
// which then swallows the command as dots. Nothing of the document has left yet.
func (r *run) hello(ctx context.Context) error {
	start := append(slices.Clone(initialize), enableASB...)
	if !r.p.cfg.Profile.ASB {
		return r.write(ctx, start)
	}
	for attempt := range 2 {
		if attempt > 0 {
			if err := r.p.fill(ctx, r.session); err != nil {
				return err
			}
		}
		before := r.p.wire.look().blocks
		if err := r.write(ctx, start); err != nil {
			return err
		}
		if r.p.wire.await(ctx, r.p.cfg.Reply, func(v *view) bool { return v.blocks > before || r.over(v) != nil }) {
			r.settle(ctx)
			return r.check()
		}
	}
	return ErrSilent
}

// settle gives answers that an earlier, unknown job still owes the time to come:
// they stand before the one that hello saw, unless that was a change of status
// by chance. After it they are lost, and must not be waited for.
func (r *run) settle(ctx context.Context) {
	if r.p.wire.look().owed > 0 {
		r.p.wire.await(ctx, r.p.cfg.Reply, func(v *view) bool { return v.owed == 0 || r.over(v) != nil })
		r.p.wire.update(func(v *view) { v.owed = 0 })
	}
}

func (r *run) check() error {
	v := r.p.wire.look()
	if err := r.over(&v); err != nil {
		return err
	}
	return v.faults.err()
}

// send writes the body piece by piece and returns how much of it left. Each
// piece waits for the printer to be willing; questions are asked only between
// two commands, where they can not become part of one.
func (r *run) send(ctx context.Context, b body) (sent int, err error) {
	for sent < len(b.bytes) {
		_, between := slices.BinarySearch(b.ends, sent)
		if err := r.willing(ctx, between || sent == 0); err != nil {
			return sent, err
		}
		n, err := r.p.port.WriteTo(ctx, r.session, b.bytes[sent:b.stop(sent, r.p.piece())])
		sent += n
		if err != nil {
			return sent, err
		}
		r.p.pause(ctx)
	}
	return sent, nil
}

// willing waits until the job lane may send.
func (r *run) willing(ctx context.Context, between bool) error {
	return r.wait(ctx, r.p.cfg.Fence, between, func(v *view) bool { return !v.held && !v.faults.stop() })
}

// fence puts the question behind the job whose answer proves it printed.
func (r *run) fence(ctx context.Context) error {
	if err := r.willing(ctx, true); err != nil {
		return err
	}
	if r.p.cfg.Profile.Fence == FenceStatus {
		return r.statusFence(ctx)
	}
	id := r.p.nextFence()
	command := append([]byte{0x1D, 0x28, 0x48, 6, 0, 0x30, 0x30}, id...) // GS ( H fn 48
	if err := r.write(ctx, command); err != nil {
		return err
	}
	return r.wait(ctx, r.p.cfg.Fence, true, func(v *view) bool { return v.id == id })
}

// statusFence is GS r 1, the paper status, answered when the queue comes to it.
// Its answers carry no name: those of earlier jobs were seen off by settle.
func (r *run) statusFence(ctx context.Context) error {
	r.p.wire.update(func(v *view) { v.owed++ })
	if err := r.write(ctx, askQueued); err != nil {
		return err
	}
	return r.wait(ctx, r.p.cfg.Fence, true, func(v *view) bool { return v.owed == 0 })
}

// nextFence is a process id: four characters of a number in base 95, from space
// (GS ( H allows 32 to 126).
func (p *Printer) nextFence() string {
	p.fenceNo++
	n := p.fenceNo
	var id [4]byte
	for i := range id {
		id[i] = byte(' ' + n%95)
		n /= 95
	}
	return string(id[:])
}

func (r *run) write(ctx context.Context, b []byte) error {
	_, err := r.p.port.WriteTo(ctx, r.session, b)
	return err
}

// wait returns nil when done holds. It gives up after limit, but time in which
// the printer itself says that it can not go on counts against the stall time
// instead: somebody is looking for paper. With ask, the status is asked for again
// and again meanwhile, for printers that do not tell by themselves.
func (r *run) wait(ctx context.Context, limit time.Duration, ask bool, done func(*view) bool) error {
	var idle, stalled time.Duration
	for last := time.Now(); ; {
		step := min(r.p.cfg.Poll, max(limit-idle, time.Millisecond))
		r.p.wire.await(ctx, step, func(v *view) bool { return r.over(v) != nil || done(v) })
		v := r.p.wire.look()
		if err := r.over(&v); err != nil {
			return err
		}
		if done(&v) {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		passed := time.Since(last)
		last = last.Add(passed)
		if v.held || v.faults.stop() {
			stalled += passed
		} else {
			idle += passed
		}
		if idle >= limit || stalled >= r.p.cfg.Stall {
			return r.why(&v)
		}
		if ask {
			_ = r.p.askAll(ctx, r.session) // silence shows in idle
		}
		r.p.tell()
	}
}

func (r *run) why(v *view) error {
	if err := v.faults.err(); err != nil {
		return err
	}
	if v.held {
		return ErrHeld
	}
	return ErrSilent
}

// err is the reason that a person can do something about.
func (f faults) err() error {
	switch {
	case f.cover:
		return ErrCover
	case f.paperOut:
		return ErrPaper
	case f.cutter, f.hot, f.fault:
		return ErrFault
	case f.offline:
		return ErrOffline
	}
	return nil
}

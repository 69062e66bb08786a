package uplink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"yupos/ledgercache"
	"yupos/sync/wire"
)

// The bounds of one connection.
const (
	window      = 64   // requests without an answer
	windowLater = 48   // of which queries, reversals and refunds may take so many
	outQueue    = 256  // frames that wait for the writer
	inQueue     = 64   // frames that wait for the loop
	backlog     = 256  // answers and news that wait for the book; then the reader waits, and so does the ledger
	lateAnswers = 1024 // requests whose slot was freed and whose answer is still welcome

	newsAhead    = 64              // news that may overtake others …
	gapPatience  = time.Second     // … for so long
	requestLimit = 3 * time.Second // then the slot is free again, and the schedule asks again
	anchorIdle   = time.Second     // the book has been quiet for so long
	anchorLatest = 10 * time.Second
	rewatchAfter = 50 * time.Millisecond
	outPause     = 20 * time.Millisecond
)

// talk is one connection after its hello. Everything in it belongs to the goroutine that runs loop, except that reader
// and writer own one end of the connection each, and that calls of the book, which wait for the disk, run beside the
// loop and hand it what follows (post).
type talk struct {
	u    *Uplink
	ctx  context.Context
	conn Conn
	log  *slog.Logger

	in     chan inbound
	out    chan []byte
	post   chan func()
	gone   chan struct{} // the loop has ended
	broken chan error    // of the writer
	beside sync.WaitGroup

	watch   *ledgercache.Watcher
	changes <-chan ledgercache.Change // nil while a new watcher is due
	plan    *schedule
	timer   *time.Timer

	lastID  uint64
	asked   map[uint64]*request
	slots   []uint64 // requests with a slot, oldest first
	late    []uint64 // requests that lost their slot, oldest first
	used    int      // slots in use, recording included
	strange bool     // an odd frame was logged

	answers map[string][]answer // per trade or refund, in order; a key is present while the book works on one
	news    []*wire.Result
	ahead   map[uint64]*wire.Result // news that overtook others
	gapAt   time.Time               // since when
	newsing bool                    // the book works on one
	seen    uint64                  // newest news that were taken up
	durable uint64                  // newest news in the book
	acked   uint64
	waiting int // answers and news that the book does not have yet

	anchor  anchoring
	uploads uploading
	centre  centre
	version int       // minor version of the protocol on this connection
	clock   time.Time // the wall clock when the loop last turned
	err     error     // why the loop must end
}

// inbound is what the reader hands over: a frame, or at last its error.
type inbound struct {
	frame wire.Frame
	body  any
	err   error
}

// talk runs one connection until it ends, and says why it did.
func (u *Uplink) talk(ctx context.Context, conn Conn, welcome *wire.Welcome) error {
	cursor, err := u.book.NewsCursor()
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	t := &talk{
		u: u, ctx: ctx, conn: conn, log: u.log,
		in: make(chan inbound, inQueue), out: make(chan []byte, outQueue), post: make(chan func(), window),
		gone: make(chan struct{}), broken: make(chan error, 1),
		watch: u.book.Watch(), plan: newSchedule(), timer: time.NewTimer(time.Hour),
		lastID: helloID, asked: map[uint64]*request{}, answers: map[string][]answer{}, ahead: map[uint64]*wire.Result{}, seen: cursor, durable: cursor, acked: cursor,
		uploads: newUploading(), centre: newCentre(), version: welcome.Version,
	}
	t.changes = t.watch.C
	defer func() { t.watch.Close(); t.timer.Stop() }()
	u.endNotice()
	u.set(true, reasonUp)
	u.log.Info("line up", slog.Uint64("acked_sequence", welcome.AckedSequence), slog.Uint64("news", welcome.NewsSequence))
	var ends sync.WaitGroup
	ends.Go(t.read)
	ends.Go(func() { t.write(pingInterval(welcome)) })
	err = t.loop()
	close(t.gone)
	t.down(err)
	_ = conn.Close() // the cause is known already
	ends.Wait()
	t.beside.Wait()
	return err
}

// down tells everybody at once that the line is down, before anything is cleared away.
func (t *talk) down(err error) {
	if t.ctx.Err() != nil || errors.Is(err, errStopping) {
		t.u.set(false, ReasonStopped)
		return
	}
	reason := reasonOf(err)
	t.log.Warn("line down", slog.String("reason", reason), slog.Any("err", err))
	t.u.set(false, reason)
}

// pingInterval is how often to ping: often enough for the ledger, and for the bar of finding it dead within 10 s.
func pingInterval(w *wire.Welcome) time.Duration {
	asked := time.Duration(min(w.PingEveryMillis, 60_000)) * time.Millisecond
	if asked <= 0 || asked > pingEvery {
		return pingEvery
	}
	return max(asked, 200*time.Millisecond)
}

// read hands frames to the loop. When the loop does not take them the ledger has to wait.
func (t *talk) read() {
	for {
		data, err := t.conn.Read()
		var m inbound
		if m.err = err; err == nil {
			m.frame, m.body, m.err = wire.Decode(data)
		}
		if errors.Is(m.err, wire.ErrMalformed) || errors.Is(m.err, wire.ErrTooLong) {
			m.err = fmt.Errorf("%w: %w", errProtocol, m.err)
		}
		select {
		case t.in <- m:
		case <-t.gone:
			return
		}
		if m.err != nil && !errors.Is(m.err, wire.ErrUnknownType) {
			return
		}
	}
}

// write sends frames and pings until the connection breaks.
func (t *talk) write(every time.Duration) {
	ping := time.NewTicker(every)
	defer ping.Stop()
	for {
		var err error
		select {
		case frame := <-t.out:
			err = t.conn.Write(frame)
		case <-ping.C:
			err = t.conn.Ping()
		case <-t.gone:
			return
		}
		if err != nil {
			t.broken <- err
			return
		}
	}
}

// loop is the one owner of the talk.
func (t *talk) loop() error {
	t.clock = t.u.now().Round(0)
	t.reload()
	for t.err == nil {
		now := t.u.now()
		if now.Round(0).Before(t.clock.Add(-clockSlack)) { // set back: every due time is to be judged anew
			t.setBack(now)
		}
		t.clock = now.Round(0)
		t.expire(now)
		t.expireUploads(now)
		t.pump(now)
		t.upload(now)
		t.askTime(now)
		t.tryAnchor(now)
		t.gap(now)
		if t.u.isStopping() && t.quiet() {
			return errStopping
		}
		t.arm(now)
		t.wait()
	}
	return t.err
}

// setBack judges every time anew by a clock that was set back: nothing may wait until it has caught up.
func (t *talk) setBack(now time.Time) {
	t.log.Warn("clock was set back", slog.Time("from", t.clock), slog.Time("to", now))
	for _, m := range t.u.memories {
		m.waiting, m.hold, m.nudgedAt = time.Time{}, time.Time{}, time.Time{}
	}
	for _, r := range t.asked {
		r.at = now
	}
	t.anchor.sentAt, t.gapAt, t.uploads.hold, t.centre.timeAt = now, now, time.Time{}, time.Time{}
	clear(t.u.held)
	if !t.anchor.since.IsZero() {
		t.anchor.since, t.anchor.latest = now, now
	}
	t.reload()
}

// wait takes up the next thing that happens.
func (t *talk) wait() {
	in := t.in
	if t.waiting >= backlog {
		in = nil
	}
	select {
	case <-t.ctx.Done():
		t.err = t.ctx.Err()
	case <-t.u.book.Failed():
		t.err = t.u.book.Err()
	case then := <-t.post:
		then()
	case c, ok := <-t.changes:
		t.changed(c, ok)
	case m := <-in:
		t.take(m)
	case tradeNo := <-t.u.nudges:
		t.nudge(tradeNo)
	case <-t.u.wake:
		t.anchor.hurry()
	case err := <-t.broken:
		t.err = t.whyBroken(err)
	case <-t.timer.C:
	}
}

// whyBroken prefers what the reader knows, if it has ended too: a close frame says more than a failed write.
func (t *talk) whyBroken(err error) error {
	for {
		select {
		case m := <-t.in:
			if m.err != nil && !errors.Is(m.err, wire.ErrUnknownType) {
				return m.err
			}
		default:
			return err
		}
	}
}

// arm sets the one timer to the earliest thing that is due.
func (t *talk) arm(now time.Time) {
	next := now.Add(time.Hour)
	if at, ok := t.plan.due(); ok && at.After(now) {
		next = sooner(next, at)
	} else if ok && t.used < window {
		next = now.Add(outPause) // the writer's queue is full: look again; a full window has its own times
	}
	if len(t.slots) > 0 {
		next = sooner(next, t.asked[t.slots[0]].at.Add(requestLimit))
	}
	if len(t.ahead) > 0 {
		next = sooner(next, t.gapAt.Add(gapPatience))
	}
	if at, ok := t.anchor.due(); ok {
		next = sooner(next, at)
	}
	if at, ok := t.timeDue(); ok {
		next = sooner(next, at)
	}
	if at, ok := t.uploadDue(now); ok {
		next = sooner(next, at)
	}
	if len(t.uploads.flight) > 0 {
		next = sooner(next, t.asked[t.uploads.flight[0]].at.Add(uploadLimit))
	}
	t.timer.Reset(max(next.Sub(now), 0))
}

func sooner(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// besideLoop runs a call of the book beside the loop, and then what it answers in the loop.
func (t *talk) besideLoop(call func() (then func())) {
	t.beside.Go(func() {
		then := call()
		select {
		case t.post <- then:
		case <-t.gone:
		}
	})
}

// quiet reports whether nothing is in flight: not on the line, not on its way to the book.
func (t *talk) quiet() bool {
	return t.used == 0 && t.waiting == 0 && len(t.uploads.flight) == 0 && !t.uploads.looking && !t.anchor.busy() && len(t.out) == 0
}

// send hands a frame to the writer. The window keeps the queue short; one that is full all the same means that the line
// does not move.
func (t *talk) send(body any, re uint64) (id uint64) {
	if re == 0 {
		t.lastID++
		id = t.lastID
	}
	frame, err := wire.Encode(id, re, body)
	if err != nil {
		t.log.Error("message cannot be sent", slog.String("type", wire.TypeOf(body)), slog.Any("err", err))
		return id
	}
	t.log.Debug("sent", slog.String("type", wire.TypeOf(body)), slog.Uint64("id", id))
	t.put(frame)
	return id
}

// put queues a frame for the writer.
func (t *talk) put(frame []byte) {
	select {
	case t.out <- frame:
	default:
		t.fail(fmt.Errorf("%w: %d frames wait for the writer", errSlow, len(t.out)))
	}
}

var errSlow = errors.New("uplink: the line does not move")

// fail ends the talk; the first reason stays.
func (t *talk) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

// bookFailed looks at an error of the book: one that ends the process ends the talk, any other is logged.
func (t *talk) bookFailed(err error, what string, attrs ...any) {
	if t.u.bookBroken(err) {
		t.fail(err)
		return
	}
	if !errors.Is(err, context.Canceled) {
		t.log.Warn(what, append(attrs, slog.Any("err", err))...)
	}
}

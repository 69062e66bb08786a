package printer

import (
	"context"
	"sync"
	"time"
)

// wire is the printer as its replies tell it. One goroutine feeds it; anyone may
// look or wait for it to become something.
type wire struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change
	view
}

// view is what the replies of this session add up to.
type view struct {
	session  uint64 // of the line; 0 while there is none
	known    bool   // the printer has answered in this session
	faults   faults
	held     bool   // XOFF: the job lane waits, the real-time lane does not
	restarts int    // XON without XOFF before it: the printer was switched on
	blocks   int    // automatic status blocks
	asking   int    // n of the DLE EOT that is waiting for its answer; 0 = none
	owed     int    // GS r that were sent and not answered
	id       string // the last process id
	demux    demux
}

func newWire() *wire { return &wire{changed: make(chan struct{})} }

// update changes the view and wakes those who wait for it.
func (w *wire) update(fn func(*view)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn(&w.view)
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *wire) look() view {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.view
}

// await returns true when done holds, false after the limit or the end of ctx.
func (w *wire) await(ctx context.Context, limit time.Duration, done func(*view) bool) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		w.mu.Lock()
		ok, changed := done(&w.view), w.changed
		w.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// reset begins a session of which nothing is known.
func (v *view) reset(session uint64) { *v = view{session: session} }

// feed takes bytes from the printer.
func (v *view) feed(b []byte) {
	for _, c := range b {
		switch r := v.demux.push(c).(type) {
		case flowReply:
			if !r.stop && !v.held {
				v.restarts++
			}
			v.held = r.stop
		case eotReply:
			if v.asking > 0 { // unasked: a picture that spelled DLE EOT; of no meaning
				v.faults.eot(v.asking, r.b)
				v.asking, v.known = 0, true
			}
		case asbReply:
			v.faults.asb(r.b)
			v.blocks++
			v.known = true
		case queuedReply:
			if v.owed > 0 {
				v.owed--
				v.faults.queued(r.b)
			}
		case idReply:
			v.id = r.id
		}
	}
}

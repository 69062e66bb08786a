package uplink

import (
	"container/heap"
	"time"

	"yupos/ledgercache/payment"
)

// lane is a class of talk; a lower one goes first. Uploads of offline payments will be the last one.
type lane int

const (
	laneLive   lane = 0 // pays: somebody stands at the counter
	laneAsk    lane = 1 // orders, queries and reversals
	laneRefund lane = 2
	lanes           = 3
)

// opRefund stands for the sending of a refund, which is no operation of a trade.
const opRefund payment.Op = "refund"

// memory is what this process knows of one piece of open work beside the book. It outlives the connection.
type memory struct {
	sent     int       // highest attempt whose pay this process has handed to a connection
	refused  int       // highest attempt whose pay the ledger has definitely refused
	waiting  time.Time // an answer may still come until then: nothing else is asked before
	hold     time.Time // the ledger does not want to hear of it before
	nudgedAt time.Time
}

// step is the next message for a piece of work and when it may leave. fresh marks the pay that the Submitted record
// itself stands for; every other message is recorded before it leaves.
type step struct {
	op    payment.Op
	at    time.Time
	fresh bool
}

// nextStep is the rule of the schedule for a trade: payment.Due, with what this process knows beside the book.
func nextStep(p payment.Payment, m memory, now time.Time, inherited bool) step {
	if p.State == payment.AcceptedOffline || !p.Open() {
		return step{}
	}
	if unsent(p, m, now, inherited) {
		return step{op: payment.OpPay, at: m.hold, fresh: true}
	}
	op, at := p.Due(now, startOf(p, inherited))
	if op == payment.OpPay && (m.refused >= p.Attempt || tooLateToPay(p, now)) {
		op, at = payment.OpQuery, p.LastAskAt.Add(payment.AskEvery)
	}
	at = notBeyond(at, p.LastAskAt, now)
	// A reversal for want of an answer waits for the answer that is on its way; one that a person wants does not.
	if !p.Reversing || op != payment.OpReverse {
		at = later(at, m.waiting)
	}
	return step{op: op, at: later(at, m.hold)}
}

// clockSlack is how far a time of the book may lie ahead of the clock before the clock is known to have been set back.
const clockSlack = time.Second

// notBeyond is at, or now where the last message seems to lie in the future: the clock was set back since, and nothing may
// wait until it has caught up.
func notBeyond(at, lastAsk, now time.Time) time.Time {
	if at.After(now) && lastAsk.After(now.Add(clockSlack)) {
		return now
	}
	return at
}

// startOf is the start of this process as payment.Due asks for it: after the code was submitted, or before. Times alone
// would not tell it: a clock that was set back over a restart makes an old pay look like one of this process.
func startOf(p payment.Payment, inherited bool) time.Time {
	if inherited {
		return p.SubmittedAt.Add(time.Millisecond)
	}
	return time.Time{}
}

// unsent reports whether p was submitted in this process and its pay has not left yet.
func unsent(p payment.Payment, m memory, now time.Time, inherited bool) bool {
	return p.State == payment.Unknown && p.LastOp == payment.OpPay && p.PaySent && p.Code != "" && !p.Reversing &&
		!inherited && m.sent < p.Attempt && m.refused < p.Attempt && !tooLateToPay(p, now)
}

// tooLateToPay reports whether a pay may not be sent any more: its window is over, or its reversal is due.
func tooLateToPay(p payment.Payment, now time.Time) bool {
	return now.After(p.NotAfter) || !now.Before(p.SubmittedAt.Add(payment.AskFor))
}

// nudged is the step that a nudge asks for: a question now, where the schedule would ask later. A reversal that is under
// way is hurried only if it was not repeated for a while; a question must never put one off.
func nudged(p payment.Payment, m memory, now time.Time, inherited bool) (step, bool) {
	next := nextStep(p, m, now, inherited)
	recently := now.Sub(p.LastAskAt) < nudgeEvery || now.Sub(m.nudgedAt) < nudgeEvery
	if next.op == payment.OpNone || next.fresh || recently || now.Before(m.hold) || !next.at.After(now) {
		return step{}, false
	}
	switch next.op {
	case payment.OpQuery:
		return step{op: payment.OpQuery, at: now}, true
	case payment.OpReverse:
		if p.ReverseAsks > 0 && now.Sub(p.LastAskAt) >= hurryEvery {
			return step{op: payment.OpReverse, at: now}, true
		}
	}
	return step{}, false
}

const (
	nudgeEvery = time.Second
	hurryEvery = 5 * time.Second
)

func laneOf(op payment.Op) lane {
	switch op {
	case payment.OpPay:
		return laneLive
	case opRefund:
		return laneRefund
	}
	return laneAsk
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// work is one open trade or refund in the schedule of a connection.
type work struct {
	key    string // trade number, or refund number
	refund bool
	step   step
	busy   bool // being recorded
	index  int  // in the heap, -1 while ready or busy
	lane   lane // while ready
	ready  bool
}

// schedule holds all open work, by its time until it is due and then by its lane. It knows ids and times, never money:
// what is sent is read from the book when it is sent.
type schedule struct {
	work    map[string]*work
	waiting byTime
	ready   [lanes][]*work
}

func newSchedule() *schedule { return &schedule{work: map[string]*work{}} }

// put files a piece of work under its next step; without one it is forgotten.
func (s *schedule) put(key string, refund bool, next step) {
	w := s.work[key]
	if next.op == payment.OpNone {
		if w != nil {
			s.take(w)
			delete(s.work, key)
		}
		return
	}
	if w == nil {
		w = &work{key: key, refund: refund, index: -1}
		s.work[key] = w
	}
	w.step = next
	if w.busy {
		return
	}
	s.take(w)
	heap.Push(&s.waiting, w)
}

// take removes w from where it waits.
func (s *schedule) take(w *work) {
	if w.index >= 0 {
		heap.Remove(&s.waiting, w.index)
	}
	w.ready = false // the lanes skip it
}

// next is the most urgent piece of work that is due at now, in the lanes up to last; nil if there is none.
func (s *schedule) next(now time.Time, last lane) *work {
	for len(s.waiting) > 0 && !s.waiting[0].step.at.After(now) {
		w := heap.Pop(&s.waiting).(*work)
		w.ready, w.lane = true, laneOf(w.step.op)
		s.ready[w.lane] = append(s.ready[w.lane], w)
	}
	for l := laneLive; l <= last; l++ {
		for len(s.ready[l]) > 0 {
			w := s.ready[l][0]
			s.ready[l][0] = nil
			s.ready[l] = s.ready[l][1:]
			if w.ready && w.lane == l && s.work[w.key] == w {
				w.ready = false
				return w
			}
		}
	}
	return nil
}

// due is when the next piece of work will be due; ok is false if none is waiting.
func (s *schedule) due() (at time.Time, ok bool) {
	if len(s.waiting) == 0 {
		return time.Time{}, false
	}
	return s.waiting[0].step.at, true
}

// byTime is a heap of waiting work, earliest first.
type byTime []*work

func (h byTime) Len() int           { return len(h) }
func (h byTime) Less(i, j int) bool { return h[i].step.at.Before(h[j].step.at) }
func (h byTime) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *byTime) Push(x any) {
	w := x.(*work)
	w.index = len(*h)
	*h = append(*h, w)
}
func (h *byTime) Pop() any {
	old := *h
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	w.index = -1
	return w
}

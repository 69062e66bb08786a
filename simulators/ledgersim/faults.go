package ledgersim

import (
	"slices"
	"time"
)

// Link is what can be done to the network between terminal and ledger. A nil field stays as it is.
type Link struct {
	Up        *bool    `json:"up"`
	LatencyMS *int     `json:"latency_ms"`
	Loss      *float64 `json:"loss"`      // probability that the connection is cut instead of delivering a message
	Duplicate *float64 `json:"duplicate"` // probability that a message is worked on and answered twice
	Reorder   *float64 `json:"reorder"`   // probability that a message, or its answer, is held back behind later ones, of later connections too
	CutAfter  *float64 `json:"cut_after"` // probability that the connection is cut when a request was carried out, before its answer
	HalfOpen  *bool    `json:"half_open"` // every connection stays open and nothing passes, either way; afterwards it arrives late
}

// linkState is how the network is.
type linkState struct {
	Up        bool    `json:"up"`
	LatencyMS int     `json:"latency_ms"`
	Loss      float64 `json:"loss"`
	Duplicate float64 `json:"duplicate"`
	Reorder   float64 `json:"reorder"`
	CutAfter  float64 `json:"cut_after"`
	HalfOpen  bool    `json:"half_open"`
}

// SetLink changes the network and answers how it then is. Down closes every connection and lets no new one in.
func (l *Ledger) SetLink(to Link) linkState {
	l.mu.Lock()
	set(&l.link.Up, to.Up)
	set(&l.link.LatencyMS, to.LatencyMS)
	set(&l.link.Loss, to.Loss)
	set(&l.link.Duplicate, to.Duplicate)
	set(&l.link.Reorder, to.Reorder)
	set(&l.link.CutAfter, to.CutAfter)
	set(&l.link.HalfOpen, to.HalfOpen)
	state := l.link
	l.mu.Unlock()
	l.ice.set(state.HalfOpen)
	if !state.Up {
		l.hangUp()
	}
	return state
}

func set[T any](field *T, to *T) {
	if to != nil {
		*field = *to
	}
}

// Fault is something that the ledger does wrong (interfaces.md, /_sim/faults).
type Fault struct {
	Op          string  `json:"op"`
	Action      string  `json:"action"`
	Probability float64 `json:"probability"` // 0 means 1
	Times       int     `json:"times"`       // 0 means until cleared
	LatencyMS   int     `json:"latency_ms"`
}

var (
	faultOps     = []string{"pay", "query", "reverse", "refund", "upload", "order", "enroll"}
	faultActions = []string{"decline", "drop_request", "drop_reply", "delay", "duplicate", "error", "cut_reply"}
)

// AddFault adds a fault and answers all, or a refusal for one that makes no sense.
func (l *Ledger) AddFault(f Fault) ([]Fault, error) {
	if !slices.Contains(faultOps, f.Op) || !slices.Contains(faultActions, f.Action) || f.Probability < 0 || f.Probability > 1 || f.Times < 0 || f.LatencyMS < 0 {
		return nil, refusal("BAD_FAULT")
	}
	if f.Probability == 0 {
		f.Probability = 1
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = append(l.faults, &f)
	return l.faultList(), nil
}

// ClearFaults forgets all faults.
func (l *Ledger) ClearFaults() []Fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = nil
	return l.faultList()
}

func (l *Ledger) faultList() []Fault {
	out := []Fault{}
	for _, f := range l.faults {
		out = append(out, *f)
	}
	return out
}

// takeFault uses up a fault of this kind if chance will have it; l.mu is held.
func (l *Ledger) takeFault(op, action string) *Fault {
	for i, f := range l.faults {
		if f.Op != op || f.Action != action || l.random.Float64() >= f.Probability {
			continue
		}
		used := *f
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				l.faults = slices.Delete(l.faults, i, i+1)
			}
		}
		return &used
	}
	return nil
}

// fate is what happens to one message.
type fate struct {
	before, after                                      time.Duration
	late                                               time.Duration // it is carried out so much later, whatever has become of its connection
	cut, cutAfter, dropRequest, dropReply, twice, fail bool
}

// defaultDelay is how late an answer is that a fault delays without saying how long.
const defaultDelay = 5 * time.Second

// reorderDelay lets later answers overtake, lateDelay lets messages of the next connection do so.
const (
	reorderDelay = 300 * time.Millisecond
	lateDelay    = 1500 * time.Millisecond
)

func (l *Ledger) fateOf(op string) fate {
	l.mu.Lock()
	defer l.mu.Unlock()
	latency := time.Duration(l.link.LatencyMS) * time.Millisecond
	f := fate{before: latency / 2, after: latency / 2}
	f.cut = l.random.Float64() < l.link.Loss
	f.twice = l.random.Float64() < l.link.Duplicate
	f.cutAfter = l.random.Float64() < l.link.CutAfter || l.takeFault(op, "cut_reply") != nil
	if l.random.Float64() < l.link.Reorder {
		f.after += reorderDelay
	}
	if l.random.Float64() < l.link.Reorder/2 {
		f.late = lateDelay
	}
	f.dropRequest = l.takeFault(op, "drop_request") != nil
	f.dropReply = l.takeFault(op, "drop_reply") != nil
	f.fail = l.takeFault(op, "error") != nil
	f.twice = f.twice || l.takeFault(op, "duplicate") != nil
	if d := l.takeFault(op, "delay"); d != nil {
		f.after += defaultDelay
		if d.LatencyMS > 0 {
			f.after += time.Duration(d.LatencyMS)*time.Millisecond - defaultDelay
		}
	}
	return f
}

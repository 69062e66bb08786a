package web

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"yupos/ledgercache"
	"yupos/ledgercache/payment"
)

// The limits of the event stream.
const (
	keepEvents   = 1024 // how far back Last-Event-ID reaches
	streamBuffer = 256  // how far a reader may be behind before it is cut off, to come again
	maxStreams   = 64
	heartbeat    = time.Second
)

// event is one thing that happened, as the stream tells it.
type event struct {
	n    uint64
	name string // trade, refund, shift, terminal, counter
	data []byte
}

// hub turns changes of the book and ticks of the till into events, keeps the last of them and hands them to every stream.
type hub struct {
	server *Server
	boot   string // ids of another process mean nothing here
	done   chan struct{}
	once   sync.Once

	mu      sync.Mutex
	last    uint64
	kept    []event
	streams map[*stream]struct{}

	counter, terminal, shift []byte // what was told last; used by run only
}

// stream is one reader of events. A closed C means that it fell behind or that the server stops.
type stream struct {
	C chan event
}

func newHub(s *Server) *hub {
	return &hub{server: s, boot: ulid.Make().String(), done: make(chan struct{}), streams: map[*stream]struct{}{}}
}

// run watches until the hub or the book is closed.
func (h *hub) run() {
	defer h.close()
	ticks, unwatch := h.server.till.Watch()
	defer unwatch()
	for {
		changes := h.server.till.Book().Watch()
		heard := h.follow(changes, ticks)
		changes.Close()
		if !heard { // closed before a single change: the book is closed, or as good as
			return
		}
	}
}

// follow tells changes until the watcher is dropped; it reports whether there was any before.
func (h *hub) follow(changes *ledgercache.Watcher, ticks <-chan struct{}) (heard bool) {
	h.server.counts.start(h.server.till.Book())
	for {
		select {
		case <-h.done:
			return false
		case c, ok := <-changes.C:
			if !ok {
				return heard
			}
			heard = true
			h.tellChange(c)
		case <-ticks:
			h.tellState()
		}
	}
}

func (h *hub) close() {
	h.once.Do(func() {
		close(h.done)
		h.mu.Lock()
		defer h.mu.Unlock()
		for s := range h.streams {
			delete(h.streams, s)
			close(s.C)
		}
	})
}

func (h *hub) tellChange(c ledgercache.Change) {
	s := h.server
	switch c.Kind {
	case ledgercache.ChangeTrade:
		p, err := s.till.Book().ByTradeNo(c.TradeNo)
		if err != nil {
			s.log.Warn("changed trade cannot be read", slog.Any("err", err))
			return
		}
		s.counts.note(p)
		h.tell("trade", tradeOf(p, s.o.Now()))
	case ledgercache.ChangeRefund:
		f, err := s.till.Book().ByRefundNo(c.RefundNo)
		if err != nil {
			s.log.Warn("changed refund cannot be read", slog.Any("err", err))
			return
		}
		h.tell("refund", refundOf(f))
		if p, err := s.till.Book().ByTradeNo(f.TradeNo); err == nil {
			h.tell("trade", tradeOf(p, s.o.Now()))
		}
	case ledgercache.ChangeShift, ledgercache.ChangePrint, ledgercache.ChangeCursor, ledgercache.ChangeAlarm:
	}
	h.tellState()
}

// tellState tells the counter and the terminal where they differ from what was told last.
func (h *hub) tellState() {
	h.tellNew(&h.counter, "counter", h.server.counterNow())
	t, err := h.server.till.Terminal()
	if err != nil {
		return // the book is closing, or broken: readiness tells that
	}
	t.Book.Head, t.Book.Sequence, t.Book.Anchored = "", 0, 0 // moves with every step and tells a page nothing
	h.tellNew(&h.terminal, "terminal", t)
	h.tellNew(&h.shift, "shift", t.Shift)
}

func (h *hub) tellNew(last *[]byte, name string, v any) {
	data, err := json.Marshal(v)
	if err != nil || bytes.Equal(data, *last) {
		return
	}
	*last = data
	h.publish(name, data)
}

func (h *hub) tell(name string, v any) {
	if data, err := json.Marshal(v); err == nil {
		h.publish(name, data)
	}
}

func (h *hub) publish(name string, data []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	e := event{h.last, name, data}
	if len(h.kept) == keepEvents {
		h.kept = append(h.kept[:0], h.kept[keepEvents/4:]...)
	}
	h.kept = append(h.kept, e)
	for s := range h.streams {
		select {
		case s.C <- e:
		default:
			delete(h.streams, s)
			close(s.C)
		}
	}
}

// join adds a stream. after is the number that its snapshot carries, and missed are the events since the id that the
// reader has seen; an id that is not known here leaves only the snapshot.
func (h *hub) join(lastID string) (s *stream, after uint64, missed []event, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.done:
		return nil, 0, nil, ledgercache.ErrClosed
	default:
	}
	if len(h.streams) >= maxStreams {
		return nil, 0, nil, errTooMany
	}
	s = &stream{C: make(chan event, streamBuffer)}
	h.streams[s] = struct{}{}
	after = h.last
	if n, ok := h.number(lastID); ok && n <= h.last && (len(h.kept) == 0 || n+1 >= h.kept[0].n) {
		after = n
		for _, e := range h.kept {
			if e.n > n {
				missed = append(missed, e)
			}
		}
	}
	return s, after, missed, nil
}

func (h *hub) leave(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.streams[s]; ok {
		delete(h.streams, s)
		close(s.C)
	}
}

func (h *hub) id(n uint64) string { return h.boot + "-" + strconv.FormatUint(n, 10) }

func (h *hub) number(id string) (uint64, bool) {
	digits, ok := strings.CutPrefix(id, h.boot+"-")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil
}

// Counter is what the counter shows now, to the cashier and to the customer.
type Counter struct {
	State     string  `json:"state" enum:"idle,amount,code,confirm,paid,failed,paused"`
	Trade     *Trade  `json:"trade" doc:"the trade that it is about, null when idle"`
	ChangesAt *string `json:"changes_at" format:"date-time" doc:"when it changes by itself, null if it does not"`
}

func (s *Server) counterNow() Counter {
	c := s.till.Counter()
	out := Counter{State: c.State, ChangesAt: stampOrNull(c.Until)}
	if c.Trade != nil {
		p := c.Trade
		if fresh, err := s.till.Book().ByTradeNo(p.TradeNo); err == nil {
			p = &fresh
		}
		t := tradeOf(*p, s.o.Now())
		out.Trade = &t
	}
	return out
}

// counts are the trades that ended since the process started, by state.
type counts struct {
	mu     sync.Mutex
	ended  map[payment.State]uint64
	open   map[string]struct{} // trades seen open; bounded by how many can be open
	primed bool
}

func newCounts() *counts {
	return &counts{ended: map[payment.State]uint64{}, open: map[string]struct{}{}}
}

// start notes the trades that were open when the process started.
func (c *counts) start(book *ledgercache.Book) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.primed {
		return
	}
	c.primed = true
	_ = book.EachOpen(func(p payment.Payment) error { // a book that cannot be read counts from here on
		c.open[p.TradeNo] = struct{}{}
		return nil
	})
}

// note counts p once, when it ends. A trade that was refused in the step that opened it was never seen open: it is known
// by having ended in the same moment.
func (c *counts) note(p payment.Payment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, open := c.open[p.TradeNo]
	switch {
	case !p.State.EndsWait():
		c.open[p.TradeNo] = struct{}{}
	case open || p.State == payment.PayError && p.FinishedAt.Equal(p.CreatedAt):
		delete(c.open, p.TradeNo)
		c.ended[p.State]++
	}
}

func (c *counts) snapshot() map[payment.State]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[payment.State]uint64, len(c.ended))
	for k, v := range c.ended {
		out[k] = v
	}
	return out
}

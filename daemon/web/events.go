package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"yupos/daemon/auth"
	"yupos/daemon/till"
	"yupos/ledgercache"
)

// snapshot is the first event of every stream: everything that a page needs to draw itself.
type snapshot struct {
	ServerTime string        `json:"server_time"`
	Terminal   till.Terminal `json:"terminal"`
	Counter    Counter       `json:"counter"`
	Trades     []Trade       `json:"trades"` // the newest of today
}

// snapshotTrades is how many trades of today a snapshot carries.
const snapshotTrades = 20

func (s *Server) snapshot() (snapshot, error) {
	now := s.o.Now()
	out := snapshot{ServerTime: stamp(now), Counter: s.counterNow(), Trades: []Trade{}}
	var err error
	if out.Terminal, err = s.till.Terminal(); err != nil {
		return out, err
	}
	day := now.In(ledgercache.Shanghai).Format(time.DateOnly)
	list, _, err := s.till.Book().Trades(ledgercache.Query{Date: day, Limit: snapshotTrades})
	for _, p := range list {
		out.Trades = append(out.Trades, tradeOf(p, now))
	}
	return out, err
}

func (s *Server) addEvents() {
	s.mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		if _, err := s.caller(r, auth.Events); err != nil {
			s.fail(w, r, err)
			return
		}
		s.stream(w, r, func() (any, error) { return s.snapshot() }, nil)
	})
	s.api.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "events", Method: http.MethodGet, Path: "/v1/events", Summary: "事件流 · server-sent events", Tags: []string{string(auth.Events)},
		Description: "Scope: events. First a `snapshot` {server_time, terminal, counter, trades}; after a `Last-Event-ID` that is still known, " +
			"then every event that was missed; then live: `trade` (a trade), `refund`, `shift`, `terminal`, `counter`, and each second a `heartbeat` {server_time}. " +
			"Events carry whole objects: the newest one of an object is true.",
		Parameters: []*huma.Param{{Name: "Last-Event-ID", In: "header", Schema: &huma.Schema{Type: huma.TypeString}}},
		Responses: map[string]*huma.Response{
			"200": {Description: "the stream", Content: map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}}},
		},
	})
}

// stream writes server-sent events until the reader goes, falls behind, or the server stops. first makes the snapshot;
// pass, if given, rewrites or drops (nil) an event.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, first func() (any, error), pass func(event) []byte) {
	c, after, missed, err := s.hub.join(r.Header.Get("Last-Event-ID"))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer s.hub.leave(c)
	begin, err := first() // after join: what happens meanwhile is in the channel
	if err != nil {
		s.fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	out := &eventWriter{w: w, rc: http.NewResponseController(w), hub: s.hub, pass: pass}
	data, err := json.Marshal(begin)
	if err != nil {
		return
	}
	if out.raw("retry: 1000\nid: "+s.hub.id(after)+"\nevent: snapshot\ndata: ", data) != nil {
		return
	}
	for _, e := range missed {
		if out.event(e) != nil {
			return
		}
	}
	s.live(r.Context(), c, out)
}

func (s *Server) live(ctx context.Context, c *stream, out *eventWriter) {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case e, ok := <-c.C:
			if !ok {
				return
			}
			err = out.event(e)
		case <-beat.C:
			err = out.raw("event: heartbeat\ndata: ", fmt.Appendf(nil, `{"server_time":%q}`, stamp(s.o.Now())))
		}
		if err != nil {
			return
		}
	}
}

// eventWriter writes events, each within its time, so that a reader that is stuck does not hold anything.
type eventWriter struct {
	w    http.ResponseWriter
	rc   *http.ResponseController
	hub  *hub
	pass func(event) []byte
}

func (o *eventWriter) event(e event) error {
	data := e.data
	if o.pass != nil {
		if data = o.pass(e); data == nil {
			return nil
		}
	}
	return o.raw("id: "+o.hub.id(e.n)+"\nevent: "+e.name+"\ndata: ", data)
}

func (o *eventWriter) raw(head string, data []byte) error {
	_ = o.rc.SetWriteDeadline(time.Now().Add(5 * time.Second)) // unsupported by test recorders only
	if _, err := fmt.Fprintf(o.w, "%s%s\n\n", head, data); err != nil {
		return err
	}
	return o.rc.Flush()
}

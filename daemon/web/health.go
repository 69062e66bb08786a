package web

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"

	"yupos/ledgercache/payment"
)

// countedStates are the states that a trade can end in, in the order that /metrics shows them.
var countedStates = []payment.State{
	payment.Success, payment.Closed, payment.Revoked, payment.PayError, payment.AcceptedOffline, payment.Bounced,
}

func (s *Server) addHealth() {
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		s.writeJSON(w, r, map[string]string{"status": "ok"})
	})
	s.mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := s.o.Ready(); err != nil {
			if v, known := verdictOf(err); !known || v.status != http.StatusServiceUnavailable {
				err = errNotReady
			}
			s.fail(w, r, err)
			return
		}
		s.writeJSON(w, r, map[string]string{"status": "ready"})
	})
	s.mux.HandleFunc("GET /metrics", s.metrics)
}

// metrics answers in the text format of Prometheus. It holds no number of a trade and no amount.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	t, err := s.till.Terminal()
	if err != nil {
		s.fail(w, r, err)
		return
	}
	unknown := 0
	err = s.till.Book().EachOpen(func(p payment.Payment) error {
		if p.State == payment.Unknown {
			unknown++
		}
		return nil
	})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	up := 0
	if t.Link.State == "up" {
		up = 1
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# HELP posd_build_info The running build.\n# TYPE posd_build_info gauge\nposd_build_info{version=%q,go=%q} 1\n", s.o.Version, runtime.Version())
	fmt.Fprint(&b, "# HELP posd_trades_total Trades that ended since the process started.\n# TYPE posd_trades_total counter\n")
	ended := s.counts.snapshot()
	for _, state := range countedStates {
		fmt.Fprintf(&b, "posd_trades_total{state=%q} %d\n", string(state), ended[state])
	}
	gauge(&b, "posd_queue_depth", "Trades and refunds that the ledger has not ended.", t.Queue.Count)
	gauge(&b, "posd_unknown_trades", "Trades whose result is unknown.", unknown)
	gauge(&b, "posd_gateway_up", "1 while the line to the ledger is up.", up)
	gauge(&b, "posd_start_time_seconds", "When the process began to serve, unix time.", int(s.started.Unix()))
	fmt.Fprint(&b, "# HELP posd_device_up 1 while the device works.\n# TYPE posd_device_up gauge\n")
	for _, d := range t.Devices {
		works := 0
		if d.State == "ok" {
			works = 1
		}
		fmt.Fprintf(&b, "posd_device_up{device=%q} %d\n", d.Name, works)
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write([]byte(b.String())) // the peer may be gone
}

func gauge(b *strings.Builder, name, help string, value int) {
	fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s gauge\n%s %d\n", name, help, name, name, value)
}

package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	till := httptest.NewServer(h)
	t.Cleanup(till.Close)
	return New(till.URL+"/", "secret")
}

func TestNumbersAreEscapedAndWaitsAreBounded(t *testing.T) {
	asked := ""
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r.Method + " " + r.URL.RequestURI() + " " + r.Header.Get("Authorization")
		fmt.Fprint(w, `{"trade_state":"SUCCESS","final":true,"paid_fen":null}`)
	})
	trade, err := c.Query(context.Background(), "A|1*", 2*time.Hour)
	if err != nil || !trade.EndsWait() || trade.PaidFen != nil {
		t.Fatalf("%+v %v", trade, err)
	}
	if asked != "GET /v1/trade/A%7C1%2A?wait=1m0s Bearer secret" {
		t.Errorf("asked %q", asked)
	}
}

func TestARefusalIsAProblemAndSilenceIsUnreachable(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		fmt.Fprint(w, `{"code":"OUT_TRADE_NO_USED","detail":"词","retryable":false,"trace_id":"T"}`)
	})
	var p *Problem
	if _, err := c.Pay(context.Background(), Sale{}, 0); !errors.As(err, &p) || p.Code != "OUT_TRADE_NO_USED" || p.Status != 409 {
		t.Errorf("%v", err)
	}
	if _, err := New("http://127.0.0.1:1", "secret").Terminal(context.Background()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v", err)
	}
	odd := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	if _, err := odd.Terminal(context.Background()); !errors.As(err, &p) || p.Code != "HTTP_ERROR" {
		t.Errorf("%v", err)
	}
}

func TestEventsAreReadInOrderAndResumed(t *testing.T) {
	resumed := ""
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		resumed = r.Header.Get("Last-Event-ID")
		fmt.Fprint(w, "retry: 1000\nid: b-1\nevent: snapshot\ndata: {}\n\n: a comment\n\nid: b-2\nevent: trade\ndata: {\"total_fen\":1}\n\n")
	})
	var got []string
	err := c.Events(context.Background(), "b-0", func(e Event) error {
		got = append(got, e.ID+" "+e.Name+" "+string(e.Data))
		return nil
	})
	if !errors.Is(err, ErrUnreachable) || resumed != "b-0" || len(got) != 2 || got[0] != "b-1 snapshot {}" || got[1] != `b-2 trade {"total_fen":1}` {
		t.Errorf("%v %q %q", err, resumed, got)
	}
	stop := errors.New("enough")
	if err := c.Events(context.Background(), "", func(Event) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}

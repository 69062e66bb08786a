package web

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"yupos/daemon/auth"
)

// The pages' sessions.
const (
	sessionCookie = "yupos_session"
	sessionFor    = 24 * time.Hour
	maxSessions   = 256
)

// pageScopes are the most that a page's session may do: what a cashier does.
var pageScopes = []auth.Scope{auth.Pay, auth.Query, auth.Cancel, auth.Print, auth.Show, auth.Events, auth.Terminal}

// sessions are the pages that were opened on this machine, by the SHA-256 of their cookie. A restart forgets them; the
// page opens itself again.
type sessions struct {
	mu   sync.Mutex
	ends map[[32]byte]time.Time
}

// open makes a session and answers its cookie. The one that ends first makes room.
func (s *sessions) open(now time.Time) *http.Cookie {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails
	value := hex.EncodeToString(raw)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ends == nil {
		s.ends = map[[32]byte]time.Time{}
	}
	if len(s.ends) >= maxSessions {
		var first [32]byte
		for k, end := range s.ends {
			if s.ends[first].IsZero() || end.Before(s.ends[first]) {
				first = k
			}
		}
		delete(s.ends, first)
	}
	s.ends[sha256.Sum256([]byte(value))] = now.Add(sessionFor)
	return &http.Cookie{
		Name: sessionCookie, Value: value, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: int(sessionFor.Seconds()),
	}
}

func (s *sessions) valid(r *http.Request, now time.Time) bool {
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.Before(s.ends[sha256.Sum256([]byte(c.Value))])
}

// fromThisMachine reports whether the connection comes from a loopback address.
func fromThisMachine(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback()
}

// caller is who makes the request, and nil if they may do it. A token that is shown decides, whatever cookie there is.
func (s *Server) caller(r *http.Request, need auth.Scope) (auth.Caller, error) {
	c, err := s.o.Auth.Bearer(r.Header.Get("Authorization"))
	if !errors.Is(err, auth.ErrNoToken) {
		if err == nil {
			err = c.Check(need)
		}
		return c, err
	}
	if !fromThisMachine(r) || !s.sessions.valid(r, s.o.Now()) {
		return c, err
	}
	c, ok := s.o.Auth.Named(s.o.PageCaller)
	if !ok {
		return c, err
	}
	if !slices.Contains(pageScopes, need) {
		return c, auth.ErrScope
	}
	return c, c.Check(need)
}

type callerKey struct{}

// callerOf is who makes the request; it is set for every operation of the API.
func callerOf(ctx context.Context) auth.Caller {
	c, _ := ctx.Value(callerKey{}).(auth.Caller)
	return c
}

const scopeKey = "scope"

// authorize admits a request to the API before its body is looked at.
func (s *Server) authorize(c huma.Context, next func(huma.Context)) {
	need, ok := c.Operation().Metadata[scopeKey].(auth.Scope)
	r, w := humago.Unwrap(c)
	if !ok {
		s.fail(w, r, auth.ErrScope) // an operation without a scope is open to nobody
		return
	}
	who, err := s.caller(r, need)
	if err != nil {
		s.log.Warn("request refused", slog.String("trace_id", traceOf(r.Context())), slog.String("caller", who.Name),
			slog.String("operation", c.Operation().OperationID), slog.Any("err", err))
		s.fail(w, r, err)
		return
	}
	next(huma.WithValue(c, callerKey{}, who))
}

// audit leaves a line about an act that moves money or ends a sale.
func (s *Server) audit(ctx context.Context, act, outTradeNo string) {
	s.log.Info("act", slog.String("act", act), slog.String("caller", callerOf(ctx).Name), slog.String("out_trade_no", outTradeNo), slog.String("trace_id", traceOf(ctx)))
}

// operation registers one call of the API. h's error becomes a Problem.
func operation[I, O any](s *Server, method, path, id, summary string, scope auth.Scope, h func(context.Context, *I) (*O, error)) {
	op := huma.Operation{
		OperationID: id, Method: method, Path: path, Summary: summary, Tags: []string{string(scope)},
		Metadata: map[string]any{scopeKey: scope}, MaxBodyBytes: maxBody, BodyReadTimeout: -1,
		Description: "Scope: " + string(scope),
	}
	huma.Register(s.api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := h(ctx, in)
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		return out, nil
	})
}

func (s *Server) writeJSON(w http.ResponseWriter, r *http.Request, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, '\n')) // the peer may be gone
}

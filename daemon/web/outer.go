package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"yupos/daemon/auth"
)

// The limits of one request.
const (
	maxBody     = 64 << 10
	bodyTimeout = 10 * time.Second
)

type traceKey struct{}

func traceOf(ctx context.Context) string {
	id, _ := ctx.Value(traceKey{}).(string)
	return id
}

// contentPolicy lets a page load from this machine only, and be framed by nobody.
const contentPolicy = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"

// outer is what every request passes before it reaches an address.
func (s *Server) outer(inner http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.fail(w, r, errCrossOrigin) }))
	guarded := protection.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.hostAllowed(r.Host) {
			s.fail(w, r, errHost)
			return
		}
		limit := int64(maxBody)
		if r.URL.Path == codesPath {
			if _, err := s.caller(r, auth.Pay); err != nil { // before a stranger may fill memory
				s.fail(w, r, err)
				return
			}
			limit = maxFrame + frameRoom
		}
		if err := takeBody(w, r, limit); err != nil {
			s.fail(w, r, err)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := ulid.Make().String()
		r = r.WithContext(context.WithValue(r.Context(), traceKey{}, id))
		h := w.Header()
		h.Set("X-Trace-Id", id)
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		if strings.HasPrefix(r.URL.Path, "/v1/") {
			h.Set("Cache-Control", "no-store")
		}
		noted := &notedWriter{ResponseWriter: w}
		defer s.recovered(noted, r)
		guarded.ServeHTTP(noted, r)
	})
}

// recovered turns a panic into a problem, if nothing was answered yet.
func (s *Server) recovered(w *notedWriter, r *http.Request) {
	cause := recover()
	if cause == nil {
		return
	}
	if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(cause)
	}
	s.log.Error("request panicked", slog.String("trace_id", traceOf(r.Context())), slog.String("cause", fmt.Sprint(cause)), slog.String("stack", string(debug.Stack())))
	if w.wrote {
		panic(http.ErrAbortHandler) // cut the connection: half an answer must not look whole
	}
	s.fail(w, r, errPanic)
}

// notedWriter remembers whether an answer has begun.
type notedWriter struct {
	http.ResponseWriter
	wrote bool
}

func (w *notedWriter) WriteHeader(status int) {
	w.wrote = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *notedWriter) Write(b []byte) (int, error) {
	w.wrote = true
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *notedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// takeBody reads the whole body within its limits and then lifts the read deadline: a deadline that passes while a
// request waits for its result would cut the connection.
func takeBody(w http.ResponseWriter, r *http.Request, limit int64) error {
	deadline := http.NewResponseController(w)
	if r.Body != nil && r.Body != http.NoBody {
		_ = deadline.SetReadDeadline(time.Now().Add(bodyTimeout)) // unsupported by test recorders only
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
		var tooLarge *http.MaxBytesError
		var timeout net.Error
		switch {
		case errors.As(err, &tooLarge):
			return errTooLarge
		case errors.As(err, &timeout) && timeout.Timeout(), err != nil:
			return fmt.Errorf("%w: %w", errSlowBody, err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		r.ContentLength = int64(len(body))
	}
	_ = deadline.SetReadDeadline(time.Time{})
	return nil
}

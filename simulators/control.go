package simulators

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// serve answers the control API and the bench page until ctx ends.
func (w *World) serve(ctx context.Context) error {
	server := &http.Server{
		Handler:           w.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(w.control); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve control: %w", err)
	}
	return ctx.Err()
}

// handler is everything on the control port.
func (w *World) handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, do := range map[string]func(*http.Request) (any, error){
		"GET /_sim":                  w.getAddresses,
		"POST /_sim/scanner/scan":    w.postScan,
		"GET /_sim/scanner/state":    func(*http.Request) (any, error) { return w.scanner.State(), nil },
		"POST /_sim/scanner/state":   w.postScanner,
		"GET /_sim/printer/receipts": func(*http.Request) (any, error) { return w.printer.Receipts(), nil },
		"GET /_sim/printer/state":    func(*http.Request) (any, error) { return w.printer.State(), nil },
		"POST /_sim/printer/state":   w.postPrinter,
		"GET /_sim/display":          func(*http.Request) (any, error) { return w.display.State(), nil },
		"POST /_sim/display/state":   w.postDisplay,
		"GET /_sim/speaker":          func(*http.Request) (any, error) { return []any{}, nil },
		"GET /_sim/terminal":         func(*http.Request) (any, error) { return w.terminal.State(), nil },
		"POST /_sim/terminal":        w.postTerminal,
	} {
		mux.Handle(pattern, answer(do))
	}
	mux.HandleFunc("GET /_sim/printer/receipts/{file}", w.getPicture)
	mux.HandleFunc("GET /_sim/display/code.svg", w.getCode)
	mux.HandleFunc("GET /{$}", w.getBench)
	nothing := answer(func(r *http.Request) (any, error) { return nil, notFound(r) })
	for _, prefix := range []string{"/", "/_sim", "/_sim/scanner/", "/_sim/printer/", "/_sim/display", "/_sim/display/", "/_sim/speaker", "/_sim/terminal"} {
		mux.Handle(prefix, nothing)
	}
	bank := w.ledger.Handler() // its customers, its faults, its line, the phone page
	mux.Handle("/_sim/", bank)
	mux.Handle("/phone/", bank)
	mux.Handle("GET /phone", http.RedirectHandler("/phone/", http.StatusSeeOther))
	return localOnly(mux)
}

func notFound(r *http.Request) error {
	return refusal{http.StatusNotFound, "NOT_FOUND", "没有这个地址或方法", fmt.Sprintf("nothing here answers %s %s", r.Method, r.URL.Path)}
}

// localOnly refuses a foreign name of this machine (a page elsewhere could have its name point here) and a foreign origin.
func localOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("X-Content-Type-Options", "nosniff")
		rw.Header().Set("Cache-Control", "no-store")
		host, port := split(r.Host)
		if !loopback(host) {
			problem(rw, refusal{http.StatusForbidden, "FOREIGN_HOST", "只接受本机访问", "this host name is not this machine"})
			return
		}
		for _, origin := range r.Header.Values("Origin") {
			u, err := url.Parse(origin)
			if err != nil || u.Scheme != "http" || !loopback(u.Hostname()) || u.Port() != port {
				problem(rw, refusal{http.StatusForbidden, "FOREIGN_ORIGIN", "只接受本机页面的请求", "requests from other pages are refused"})
				return
			}
		}
		next.ServeHTTP(rw, r)
	})
}

func split(hostport string) (host, port string) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		u := url.URL{Host: hostport}
		return u.Hostname(), ""
	}
	return host, port
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

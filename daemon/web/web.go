// Package web is the HTTP face of a terminal: the register API, the cashier, customer and office pages, the event stream.
//
// Guarantees: nothing is decided here: every request becomes one call of the till, whose step is durable before the answer
// leaves. Who acts is the caller of the token (or of the page's session), never a field of the request. A request whose
// Host is not this machine's, that comes from another origin, that is larger than 64 KiB (a picture: 4 MiB) or names an
// unknown field is refused in words before anything is recorded. No page asks for an address outside the machine. errors.go
// is the only map from errors to HTTP. A time-out is never a failure: a trade that has not ended is answered as it is,
// with 202.
//
// The pages' session: GET / from this machine itself sets a cookie (HttpOnly, SameSite=Strict) that has the rights of a
// cashier and no more. Whoever can open the page could press its keys; a refund needs a manager's token, which the page
// sends with that one request and forgets.
package web

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"yupos/daemon/auth"
	"yupos/daemon/till"
)

// Options are what the pages and the API stand on. Till and Auth are needed.
type Options struct {
	Till         *till.Till
	Auth         *auth.Auth
	Ready        func() error     // nil when a sale can be taken; nil func = always
	Version      string           // of this build
	AllowedHosts []string         // host names besides the loopback ones
	PageCaller   string           // the token whose rights the pages have, at most a cashier's; "" = "register"
	Now          func() time.Time // nil = time.Now
	Log          *slog.Logger
}

// Server serves a terminal. It is an http.Handler, safe for concurrent use.
type Server struct {
	o        Options
	till     *till.Till
	log      *slog.Logger
	api      huma.API
	mux      *http.ServeMux
	handler  http.Handler
	sessions sessions
	hub      *hub
	counts   *counts
	decoding chan struct{} // holds one while a picture is read
	started  time.Time
}

// New makes the handler. It watches the book until the book closes or Close is called.
func New(o Options) (*Server, error) {
	if o.Till == nil || o.Auth == nil {
		return nil, errors.New("web: a till and its callers are needed")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Ready == nil {
		o.Ready = func() error { return nil }
	}
	if o.PageCaller == "" {
		o.PageCaller = "register"
	}
	s := &Server{o: o, till: o.Till, log: o.Log, mux: http.NewServeMux(), counts: newCounts(), started: o.Now(), decoding: make(chan struct{}, 1)}
	s.hub = newHub(s)
	s.api = humago.New(s.mux, apiConfig(o.Version))
	s.api.UseMiddleware(s.authorize)
	s.addTrades()
	s.addRefunds()
	s.addTerminal()
	s.addCodes()
	s.addLater()
	s.addEvents()
	s.addPages()
	s.addHealth()
	s.finishSchemas()
	s.handler = s.outer(s.mux)
	go s.hub.run()
	return s, nil
}

// ServeHTTP serves one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Close ends the event streams and stops watching the book. http.Server.RegisterOnShutdown should call it, or a graceful
// stop waits for streams that never end by themselves.
func (s *Server) Close() { s.hub.close() }

func apiConfig(version string) huma.Config {
	c := huma.DefaultConfig("yupos register API", version)
	c.DocsPath, c.SchemasPath = "", ""
	c.CreateHooks = nil // no $schema links in answers
	c.RejectUnknownQueryParameters = true
	c.Info.Description = "收款终端的收银机接口。金额为整数分，时间为 RFC 3339（+08:00），错误为 RFC 9457。\n\n" +
		"The register API of a payment terminal. Amounts are whole fen of CNY, times RFC 3339 at +08:00, errors RFC 9457. " +
		"One out_trade_no is one payment, whatever is retried. A time-out is never a failure: query."
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "a register's or a manager's token"},
	}
	c.Security = []map[string][]string{{"token": {}}}
	return c
}

// finishSchemas says in OpenAPI what Go's types cannot: which objects may be null.
func (s *Server) finishSchemas() {
	schemas := s.api.OpenAPI().Components.Schemas.Map()
	for _, f := range [][2]string{{"Trade", "reason"}, {"Trade", "code"}, {"Refund", "reason"}, {"Terminal", "shift"}} {
		schema := schemas[f[0]]
		if schema == nil || schema.Properties[f[1]] == nil {
			continue
		}
		object := schema.Properties[f[1]]
		schema.Properties[f[1]] = &huma.Schema{
			AnyOf: []*huma.Schema{{Ref: object.Ref}, {Type: "null"}}, Description: object.Description,
		}
	}
}

// hostAllowed reports whether a request may name this host: a loopback name, or one that was configured. A page of a
// stranger that has its own name point to this machine is refused by it.
func (s *Server) hostAllowed(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if host == "localhost" || slices.Contains(s.o.AllowedHosts, host) {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

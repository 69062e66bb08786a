package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"

	"yupos/daemon/till"
	"yupos/devices/paycode"
)

//go:embed static
var static embed.FS

var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}

func (s *Server) addPages() {
	s.mux.HandleFunc("GET /{$}", s.page("index.html"))
	s.mux.HandleFunc("GET /office", s.page("office.html"))
	s.mux.HandleFunc("GET /display", s.page("display.html"))
	s.mux.HandleFunc("GET /display/events", s.displayEvents)
	s.mux.HandleFunc("GET /display/code.svg", s.displayCode)
	s.mux.HandleFunc("GET /static/{file}", func(w http.ResponseWriter, r *http.Request) { s.asset(w, r, r.PathValue("file")) })
	s.mux.HandleFunc("GET /favicon.ico", func(w http.ResponseWriter, r *http.Request) { s.asset(w, r, "icon.svg") })
	s.mux.HandleFunc("/", s.nowhere)
}

// page serves a page, and opens a session where it is opened on this machine. The customer's page needs none.
func (s *Server) page(file string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if file != "display.html" && fromThisMachine(r) && !s.sessions.valid(r, s.o.Now()) {
			http.SetCookie(w, s.sessions.open(s.o.Now()))
		}
		s.asset(w, r, file)
	}
}

func (s *Server) asset(w http.ResponseWriter, r *http.Request, file string) {
	body, err := fs.ReadFile(static, path.Join("static", file))
	if err != nil {
		s.fail(w, r, errNoRoute)
		return
	}
	sum := sha256.Sum256(body)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	h := w.Header()
	h.Set("Content-Type", contentTypes[path.Ext(file)])
	h.Set("Cache-Control", "no-cache") // asked each time: a new version is seen at once
	h.Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag && h.Get("Set-Cookie") == "" {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(body) // the peer may be gone
}

// nowhere answers for addresses that do not exist, and for methods that an address does not take.
func (s *Server) nowhere(w http.ResponseWriter, r *http.Request) {
	var allow []string
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		other := r.Clone(r.Context())
		other.Method = method
		if _, pattern := s.mux.Handler(other); pattern != "/" && pattern != "" {
			allow = append(allow, method)
		}
	}
	if len(allow) == 0 {
		s.fail(w, r, errNoRoute)
		return
	}
	w.Header().Set("Allow", strings.Join(allow, ", "))
	s.fail(w, r, errMethod)
}

// Shown is what the customer's page knows: what stands on the screen in front of them, and nothing else.
type Shown struct {
	State      string  `json:"state"`
	Shop       string  `json:"shop"`
	AmountYuan string  `json:"amount_yuan"`
	CodeID     string  `json:"code_id"` // changes with each code
	ExpiresAt  *string `json:"expires_at"`
	Reason     string  `json:"reason"`
	ReasonEN   string  `json:"reason_en"`
	ServerTime string  `json:"server_time"`
}

func (s *Server) shown() Shown { return s.shownOf(s.till.Counter()) }

func (s *Server) shownOf(c till.Counter) Shown {
	out := Shown{State: c.State, Shop: s.shopName(), ServerTime: stamp(s.o.Now())}
	if c.Trade == nil {
		return out
	}
	p := *c.Trade
	out.AmountYuan = p.TotalFen.Yuan()
	if c.State == "failed" {
		words := p.Why()
		out.Reason, out.ReasonEN = words.ZH, words.EN
	}
	if c.State == "code" && mayBePaid(p, s.o.Now()) {
		out.CodeID, out.ExpiresAt = p.TradeNo[max(0, len(p.TradeNo)-8):], stampOrNull(p.ExpiresAt)
	}
	return out
}

func (s *Server) shopName() string {
	t, err := s.till.Terminal()
	if err != nil {
		return ""
	}
	return t.Merchant
}

// displayEvents is the customer page's stream. It carries what a passer-by can read from the screen anyway, so it needs no
// session; it is served to this machine only, unless hosts were configured.
func (s *Server) displayEvents(w http.ResponseWriter, r *http.Request) {
	r.Header.Del("Last-Event-ID") // the screen wants what is true now, never what was
	s.stream(w, r, func() (any, error) { return s.shown(), nil }, func(e event) []byte {
		if e.name != "counter" {
			return nil
		}
		data, err := json.Marshal(s.shown())
		if err != nil {
			return nil
		}
		return data
	})
}

// displayCode draws the ORDER that is on the screens now, and never another one.
func (s *Server) displayCode(w http.ResponseWriter, r *http.Request) {
	text, err := s.currentOrder()
	if err != nil {
		s.fail(w, r, err)
		return
	}
	picture, err := paycode.Draw(text)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "image/svg+xml")
	w.Header().Set("Cache-Control", "no-store")
	// One pixel a module by nature, so that the page can scale it by whole numbers.
	svg := strings.Replace(picture.SVG(), "<svg ", fmt.Sprintf(`<svg width="%d" height="%d" `, picture.Side(), picture.Side()), 1)
	_, _ = w.Write([]byte(svg)) // the peer may be gone
}

// currentOrder is the text of the ORDER that holds the counter and may be paid. It asks the book, which knows a new ORDER
// before any screen does.
func (s *Server) currentOrder() (string, error) {
	tradeNo, err := s.till.Book().Counter()
	if err != nil {
		return "", err
	}
	if tradeNo == "" {
		return "", errNoCode
	}
	p, err := s.till.Book().ByTradeNo(tradeNo)
	if err != nil {
		return "", err
	}
	if !mayBePaid(p, s.o.Now()) {
		return "", errNoCode
	}
	return p.OrderText, nil
}

package simulators

import (
	_ "embed" // the page
	"net/http"
)

//go:embed bench.html
var benchPage []byte

// getBench answers the page on which a person plays the world.
func (w *World) getBench(rw http.ResponseWriter, _ *http.Request) {
	rw.Header().Set("Content-Type", "text/html; charset=utf-8")
	rw.Header().Set("Content-Security-Policy", "default-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	rw.Write(benchPage)
}

package walletsim

import (
	"embed"
	"io/fs"
	"net/http"
)

//go:embed page
var pages embed.FS

// Page serves the customer's phone: one page for a hand-held screen, which asks the control API of the same address and
// nothing outside of this machine.
func Page() http.Handler {
	root, err := fs.Sub(pages, "page")
	if err != nil {
		return http.NotFoundHandler() // cannot happen: the folder is part of the program
	}
	files := http.FileServerFS(root)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		files.ServeHTTP(w, r)
	})
}

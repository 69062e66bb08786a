package ledgersim

import (
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// serveEnrolment serves HTTP on a connection whose ALPN name is enrolment's: the server's own loop knows only its own names.
func (l *Ledger) serveEnrolment(_ *http.Server, conn *tls.Conn, handler http.Handler) {
	one := &oneConn{Conn: conn, closed: make(chan struct{})}
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 20 * time.Second, WriteTimeout: 20 * time.Second,
		ErrorLog: slog.NewLogLogger(l.log.Handler(), slog.LevelDebug),
	}
	server.SetKeepAlivesEnabled(false)
	_ = server.Serve(one) // ends when the connection has
}

// oneConn is a listener with one connection, and that connection without its type: it is not to be shaken hands with again.
type oneConn struct {
	net.Conn
	taken  bool
	once   sync.Once
	closed chan struct{}
}

// Accept answers the connection once, and then waits for its end.
func (o *oneConn) Accept() (net.Conn, error) {
	if !o.taken {
		o.taken = true
		return o, nil
	}
	<-o.closed
	return nil, net.ErrClosed
}

// Close ends the connection, and with it the listening.
func (o *oneConn) Close() error {
	var err error = net.ErrClosed
	o.once.Do(func() {
		close(o.closed)
		err = o.Conn.Close()
	})
	return err
}

// Addr is the connection's own address.
func (o *oneConn) Addr() net.Addr { return o.LocalAddr() }

package uplink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gorilla/websocket"

	"yupos/sync/wire"
)

// The times of one connection.
const (
	quietLimit   = 8 * time.Second // nothing heard for so long: the peer is dead (bar: found within 10 s)
	pingEvery    = 2500 * time.Millisecond
	writeLimit   = 5 * time.Second // one frame must leave within
	dialShort    = 4 * time.Second // TLS, upgrade and hello, in an outage of under two minutes
	dialLong     = 15 * time.Second
	closeLimit   = 200 * time.Millisecond
	maxRetryWait = 10 * time.Minute // no server may send a terminal away for longer
)

// Conn is one websocket connection. Read is called by one goroutine, Write and Ping by another; Close by any, more than
// once, and it ends the other calls.
type Conn interface {
	Read() ([]byte, error) // one text frame; fails when nothing at all was heard for quietLimit
	Write([]byte) error
	Ping() error
	Close() error
}

// Dialer makes connections. Dial does all that comes before the first frame; ctx bounds it, not the connection.
type Dialer interface {
	Dial(ctx context.Context, url string) (Conn, error)
}

// ErrNoTLS says that the uplink was given neither a TLS configuration nor a Dialer of its own.
var ErrNoTLS = errors.New("uplink: no TLS configuration")

// errSubprotocol says that the other side does not speak this protocol.
var errSubprotocol = errors.New("uplink: the ledger did not choose " + wire.Subprotocol)

// errBinary says that the other side sent something else than text.
var errBinary = errors.New("uplink: binary frame")

// handshakeError is an upgrade that was answered with another status than 101.
type handshakeError struct {
	status     int
	retryAfter time.Duration
}

func (e *handshakeError) Error() string { return fmt.Sprintf("uplink: upgrade answered %d", e.status) }

// gorillaDialer dials with the websocket library, over TLS 1.3 with the terminal's certificate.
type gorillaDialer struct {
	websocket websocket.Dialer
}

func newGorillaDialer(config *tls.Config) (*gorillaDialer, error) {
	if config == nil {
		return nil, ErrNoTLS
	}
	config = config.Clone()
	config.MinVersion = tls.VersionTLS13
	return &gorillaDialer{websocket.Dialer{
		TLSClientConfig: config, Subprotocols: []string{wire.Subprotocol}, ReadBufferSize: 4 << 10, WriteBufferSize: 4 << 10,
	}}, nil
}

func (d *gorillaDialer) Dial(ctx context.Context, url string) (Conn, error) {
	ws, answer, err := d.websocket.DialContext(ctx, url, nil)
	if errors.Is(err, websocket.ErrBadHandshake) && answer != nil {
		return nil, &handshakeError{answer.StatusCode, retryAfter(answer.Header)}
	}
	if err != nil {
		return nil, err
	}
	if ws.Subprotocol() != wire.Subprotocol {
		return nil, errors.Join(errSubprotocol, ws.Close())
	}
	return newConn(ws), nil
}

// retryAfter reads the header in its form as seconds.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, maxRetryWait)
}

// conn is a websocket whose silence ends it: every frame, ping and pong extends its life by quietLimit.
type conn struct{ ws *websocket.Conn }

func newConn(ws *websocket.Conn) *conn {
	ws.SetReadLimit(wire.MaxFrame)
	ws.SetPongHandler(func(string) error { return ws.SetReadDeadline(time.Now().Add(quietLimit)) })
	answerPing := ws.PingHandler()
	ws.SetPingHandler(func(data string) error {
		if err := ws.SetReadDeadline(time.Now().Add(quietLimit)); err != nil {
			return err
		}
		return answerPing(data)
	})
	return &conn{ws}
}

func (c *conn) Read() ([]byte, error) {
	if err := c.ws.SetReadDeadline(time.Now().Add(quietLimit)); err != nil {
		return nil, err
	}
	kind, data, err := c.ws.ReadMessage()
	if err != nil && strings.HasPrefix(err.Error(), "websocket: ") && !isGoodbye(err) {
		return nil, fmt.Errorf("%w: %w", errProtocol, err) // the library has no type for what breaks its rules
	}
	if err == nil && kind != websocket.TextMessage {
		return nil, errBinary
	}
	return data, err
}

// isGoodbye reports whether the other side, or the network, ended the connection.
func isGoodbye(err error) bool {
	var closed *websocket.CloseError
	return errors.As(err, &closed) || errors.Is(err, websocket.ErrCloseSent)
}

func (c *conn) Write(frame []byte) error {
	if err := c.ws.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
		return err
	}
	return c.ws.WriteMessage(websocket.TextMessage, frame)
}

func (c *conn) Ping() error {
	return c.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeLimit))
}

func (c *conn) Close() error {
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	// The goodbye is a courtesy: the peer may be gone already.
	_ = c.ws.WriteControl(websocket.CloseMessage, bye, time.Now().Add(closeLimit))
	return c.ws.Close()
}

// reasonOf names why a connection could not be made, or ended, for State.Reason.
func reasonOf(err error) string {
	var handshake *handshakeError
	var closed *websocket.CloseError
	var asked *refusal
	var unresolved *net.DNSError
	switch {
	case errors.As(err, &asked):
		return asked.code
	case errors.As(err, &handshake):
		if handshake.status == http.StatusServiceUnavailable || handshake.status == http.StatusTooManyRequests {
			return ReasonBusy
		}
		return ReasonHandshake
	case errors.Is(err, errSubprotocol):
		return ReasonSubprotocol
	case errors.Is(err, errNewsGap):
		return ReasonNewsGap
	case errors.Is(err, errProtocol), errors.Is(err, errBinary), errors.Is(err, websocket.ErrReadLimit):
		return ReasonProtocol
	case errors.As(err, &closed):
		if closed.Code == websocket.CloseTryAgainLater {
			return ReasonBusy
		}
		return ReasonClosed
	case isTLS(err):
		return ReasonTLS
	case errors.As(err, &unresolved):
		return ReasonNoAddress
	}
	return reasonOfSocket(err)
}

func reasonOfSocket(err error) string {
	var network net.Error
	switch {
	case errors.Is(err, errNoAnswer):
		return ReasonTimeout
	case errors.Is(err, errDialing) && (errors.Is(err, context.DeadlineExceeded) || errors.As(err, &network) && network.Timeout()):
		return ReasonTimeout
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return ReasonNoPong
	case errors.Is(err, errDialing) && isRefused(err):
		return ReasonRefused
	case errors.Is(err, errDialing) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return ReasonUnreachable
	}
	return ReasonClosed
}

// isTLS reports whether the handshake failed, here or there. crypto/tls has no type for most of its errors, only a prefix.
func isTLS(err error) bool {
	var record tls.RecordHeaderError
	var verify *tls.CertificateVerificationError
	var alert *net.OpError
	switch {
	case errors.As(err, &record), errors.As(err, &verify):
		return true
	case errors.As(err, &alert) && (alert.Op == "remote error" || alert.Op == "local error"):
		return true
	}
	return strings.Contains(err.Error(), "tls: ")
}

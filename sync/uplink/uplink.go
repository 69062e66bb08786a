// Package uplink keeps the line to the central ledger alive and empties the open work of the book over it: it sends what
// payment.Due says, and writes answers and news back into the book.
//
// Guarantees: every message but the first pay of a code that was just submitted is recorded in the book before it leaves,
// and marked if it was sent before; a pay is never sent again after a restart, after its NotAfter or once a reversal has
// started; no payment waits for another's result; an answer counts only when the book has taken it; news are applied in
// order and acknowledged once durable; what the ledger definitely refuses is set aside, shown, and blocks nothing. While
// the line is down nothing is recorded. State is a value that never asks the network. No pay code is ever logged.
//
// Duties of the caller: one Run at a time, ended before the book is closed. The line stands in sync/wire; DESIGN.md says
// why it is built like this.
package uplink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"yupos/ledgercache"
	"yupos/ledgercache/payment"
	"yupos/sync/wire"
)

// ErrNoAddress says that the uplink was given no ledger to talk to.
var ErrNoAddress = errors.New("uplink: no ledger address")

var (
	errDialing  = errors.New("uplink: dial")
	errNoAnswer = errors.New("uplink: no answer to hello")
	errProtocol = errors.New("uplink: protocol broken by the ledger")
	errStranger = fmt.Errorf("%w: answer about another trade", errProtocol)
	errNewsGap  = errors.New("uplink: gap in the news")
	errStopping = errors.New("uplink: stopping")
)

// refusal is a no to the whole connection.
type refusal struct {
	code       string
	detail     string
	retryAfter time.Duration
}

func (e *refusal) Error() string { return "uplink: refused by the ledger: " + e.code }

// Options say whom to talk to and for which book.
type Options struct {
	URLs       []string          // wss://host:port/terminal/v1, tried in turn
	TLS        *tls.Config       // the terminal's certificate and the pinned CA; TLS 1.3 is enforced
	Book       *ledgercache.Book // read and written until Run returns
	TerminalID string            // 8 digits
	MerchantID string            // 15 digits
	Software   string            // name and version, told to the ledger
	Log        *slog.Logger
	Dialer     Dialer // nil = websocket over TLS
	Clock      Clock  // who keeps the signed time; nil = nobody asks for it
	Now        func() time.Time
}

// Uplink is the line. Make it with New, run it with Run; all other methods are safe for concurrent use at any time.
type Uplink struct {
	opts Options
	log  *slog.Logger
	book *ledgercache.Book
	now  func() time.Time

	nudges chan string
	wake   chan struct{} // Flush was called

	memories map[string]*memory   // owned by Run: what this process knows of open work beside the book
	held     map[string]time.Time // owned by Run: uploads that rest

	mu       sync.Mutex
	state    State
	watchers map[chan struct{}]struct{}
	aside    []Aside
	skew     time.Duration
	notice   Notice
	running  bool
	stopping bool
	quiet    chan struct{} // closed when a stopping uplink has nothing in flight
}

// New makes an uplink that is down until Run has completed a hello.
func New(o Options) *Uplink {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	w := textsOf(ReasonConnecting)
	return &Uplink{
		opts: o, log: o.Log, book: o.Book, now: o.Now, nudges: make(chan string, 64), wake: make(chan struct{}, 1),
		memories: map[string]*memory{}, held: map[string]time.Time{}, watchers: map[chan struct{}]struct{}{}, quiet: make(chan struct{}),
		state: State{Since: o.Now(), Reason: ReasonConnecting, TextZH: w.zh, TextEN: w.en},
	}
}

// Run keeps the line up until ctx ends; a lost line is normal life and is mended inside. It returns nil when ctx has
// ended, else why it cannot go on: the book is sealed or closed, or the options make no sense.
func (u *Uplink) Run(ctx context.Context) error {
	if len(u.opts.URLs) == 0 {
		return ErrNoAddress
	}
	dialer := u.opts.Dialer
	if dialer == nil {
		d, err := newGorillaDialer(u.opts.TLS)
		if err != nil {
			return err
		}
		dialer = d
	}
	u.setRunning(true)
	defer u.setRunning(false)
	if errors.Is(u.book.Err(), ledgercache.ErrReadOnly) {
		u.set(false, ReasonReadOnly)
		<-ctx.Done()
		return nil
	}
	err := u.keep(ctx, dialer)
	u.set(false, ReasonStopped)
	if ctx.Err() != nil && !u.bookBroken(err) {
		return nil
	}
	return err
}

// keep connects, talks, and connects again. It returns when ctx ends, on Flush once the line is quiet, or with the book's
// error.
func (u *Uplink) keep(ctx context.Context, dialer Dialer) error {
	retry := &backoff{random: rand.Float64}
	for turn := 0; ; {
		url := u.opts.URLs[turn%len(u.opts.URLs)]
		began, lived := u.now(), time.Duration(0)
		conn, welcome, err := u.connect(ctx, dialer, url, retry.dialLimit(began))
		if err == nil {
			up := u.now()
			err = u.talk(ctx, conn, welcome)
			lived = u.now().Sub(up)
		} else {
			turn++
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case u.bookBroken(err):
			return fmt.Errorf("uplink: %w", err)
		case errors.Is(err, errStopping):
			u.settleFlush()
			<-ctx.Done()
			return nil
		}
		retry.down(u.now(), lived)
		if err := u.pause(ctx, u.waitAfter(retry, began, lived, err)); err != nil {
			return err
		}
	}
}

// waitAfter notes the end of a try and says how long to wait. Short waits count from the try's beginning, so that tries
// that end slowly are not further apart than those that fail at once.
func (u *Uplink) waitAfter(retry *backoff, began time.Time, lived time.Duration, err error) time.Duration {
	reason := reasonOf(err)
	var asked *refusal
	var handshake *handshakeError
	var later time.Duration
	slow := false
	switch {
	case errors.As(err, &asked):
		later = asked.retryAfter
		slow = asked.code != wire.RefusedBusy && asked.code != wire.RefusedInternal && later == 0
	case errors.As(err, &handshake):
		later = handshake.retryAfter
	}
	now := u.now()
	if lived > 0 && later == 0 {
		later = u.rest(now)
	}
	wait := retry.next(now, later, slow)
	if lived == 0 && later == 0 && !slow {
		wait = min(max(wait-now.Sub(began), retryFirst/10), wait)
	}
	if u.State().Reason != reason {
		u.log.Warn("line stays down", slog.String("reason", reason), slog.Any("err", err), slog.Int64("retry_in_ms", wait.Milliseconds()))
	}
	u.set(false, reason)
	return wait
}

// pause waits, with the line down.
func (u *Uplink) pause(ctx context.Context, wait time.Duration) error {
	u.settleFlush()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return nil
		case <-u.book.Failed():
			return fmt.Errorf("uplink: %w", u.book.Err())
		case <-u.wake:
			u.settleFlush()
		case <-u.nudges: // the network is not asked while the line is down
		}
	}
}

// connect dials one address and says hello.
func (u *Uplink) connect(ctx context.Context, dialer Dialer, url string, limit time.Duration) (Conn, *wire.Welcome, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := dialer.Dial(ctx, url)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errDialing, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	welcome, err := u.hello(conn)
	if !stop() && err != nil {
		err = fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return conn, welcome, nil
}

// helloID is the id of the first request of every connection.
const helloID = 1

func (u *Uplink) hello(conn Conn) (*wire.Welcome, error) {
	cursor, err := u.book.NewsCursor()
	if err != nil {
		return nil, err
	}
	held, err := u.book.Cursor()
	if err != nil {
		return nil, err
	}
	have, err := u.have()
	if err != nil {
		return nil, err
	}
	at := u.book.Position()
	var base *wire.Place
	if from, ok := u.book.Base(); ok {
		base = &wire.Place{Epoch: from.Epoch, Sequence: from.Sequence, Head: from.Head}
	}
	frame, err := wire.Encode(helloID, 0, wire.Hello{
		TerminalID: u.opts.TerminalID, MerchantID: u.opts.MerchantID, Software: u.opts.Software,
		Epoch: at.Epoch, Sequence: at.Sequence, Head: at.Head, NewsCursor: cursor,
		Version: wire.Version, MinVersion: wire.MinVersion, Have: have, Base: base,
	})
	if err != nil {
		return nil, err
	}
	asked := u.now()
	if err := conn.Write(frame); err != nil {
		return nil, err
	}
	data, err := conn.Read()
	if err != nil {
		return nil, err
	}
	f, body, err := wire.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errProtocol, err)
	}
	switch body := body.(type) {
	case *wire.Refused:
		return nil, &refusal{body.Code, body.Detail, time.Duration(max(body.RetryAfterMillis, 0)) * time.Millisecond}
	case *wire.Welcome:
		u.noteTime(body.Time, asked)
		return body, fits(body, f, at, held, cursor)
	}
	return nil, fmt.Errorf("%w: %s in answer to hello", errProtocol, f.Type)
}

// fits checks a welcome against what this book knows: where it stands, what the ledger has confirmed of it, and the cursor
// of the news.
func fits(w *wire.Welcome, f wire.Frame, at, held ledgercache.Cursor, cursor uint64) error {
	switch {
	case f.Re != helloID:
		return fmt.Errorf("%w: welcome to request %d", errProtocol, f.Re)
	case w.Version < wire.MinVersion || w.Version > wire.Version:
		return &refusal{code: wire.RefusedVersion}
	case w.AckedSequence > at.Sequence:
		return &refusal{code: wire.RefusedRolledBack}
	case w.AckedSequence == at.Sequence && w.AckedHead != "" && w.AckedHead != at.Head,
		held.Epoch == at.Epoch && w.AckedSequence == held.Sequence && w.AckedHead != held.Head:
		return &refusal{code: wire.RefusedForked}
	case w.NewsSequence < cursor, held.Epoch == at.Epoch && w.AckedSequence < held.Sequence:
		return &refusal{code: ReasonBehind}
	}
	return nil
}

// noteTime keeps how far this clock is from the ledger's, with half the round trip as error.
func (u *Uplink) noteTime(ledger wire.Millis, asked time.Time) {
	if ledger == 0 {
		return
	}
	now := u.now()
	middle := asked.Add(now.Sub(asked) / 2)
	skew := middle.Sub(time.UnixMilli(int64(ledger)))
	if skew.Abs() > 10*time.Second {
		u.log.Warn("clock differs from the ledger's", slog.Int64("ahead_ms", skew.Milliseconds()))
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.skew = skew
}

// Skew is how far this terminal's clock was ahead of the ledger's at the last hello. It is a hint: it is not signed.
func (u *Uplink) Skew() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.skew
}

// bookBroken reports whether err says that the book takes nothing more.
func (u *Uplink) bookBroken(err error) bool {
	return errors.Is(err, ledgercache.ErrSealed) || errors.Is(err, ledgercache.ErrClosed) || errors.Is(err, ledgercache.ErrReadOnly)
}

// Nudge asks the ledger now about an open trade, because somebody wants to know. It never blocks; more than one nudge a
// second for a trade, or one while the line is down, does nothing.
func (u *Uplink) Nudge(tradeNo string) {
	select {
	case u.nudges <- tradeNo:
	default: // so many are waiting that the schedule is as good
	}
}

// Flush is the graceful stop: nothing new is sent from now on; it returns when every answer in flight is in the book, or
// when ctx ends, or when there is no line to wait for. Run still has to be ended.
func (u *Uplink) Flush(ctx context.Context) {
	u.mu.Lock()
	u.stopping = true
	running := u.running
	u.mu.Unlock()
	if !running {
		return
	}
	select {
	case u.wake <- struct{}{}:
	default:
	}
	select {
	case <-u.quiet:
	case <-ctx.Done():
	}
}

func (u *Uplink) isStopping() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.stopping
}

// settleFlush lets Flush return, if it was called.
func (u *Uplink) settleFlush() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.stopping {
		return
	}
	select {
	case <-u.quiet:
	default:
		close(u.quiet)
	}
}

func (u *Uplink) setRunning(running bool) {
	u.mu.Lock()
	u.running = running
	u.mu.Unlock()
	if !running {
		u.settleFlush()
	}
}

// Aside is a message that the ledger has definitely refused. Its trade or refund stays open and goes on by its schedule.
type Aside struct {
	At       time.Time
	TradeNo  string
	RefundNo string     // of a refund
	Op       payment.Op // of a trade
	Attempt  int        // of a pay
	Code     string     // the ledger's word
	Detail   string
}

// maxAside is how many refused messages are kept for showing; the trades themselves stand in the book.
const maxAside = 500

// SetAside lists the refused messages of this process, oldest first.
func (u *Uplink) SetAside() []Aside {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]Aside(nil), u.aside...)
}

// putAside keeps a refused message, once, and reports whether it was new.
func (u *Uplink) putAside(a Aside) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, have := range u.aside {
		same := a
		same.At, same.Detail = have.At, have.Detail
		if have == same {
			return false
		}
	}
	if len(u.aside) == maxAside {
		u.aside = append(u.aside[:0], u.aside[1:]...)
	}
	u.aside = append(u.aside, a)
	return true
}

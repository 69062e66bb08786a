// Package daemon builds the rooms of a terminal, runs them together, stops them in order and reports their health.
//
// Guarantees: nothing is served before the book is open; a device or a line that is absent is normal life and never ends
// the process, only a broken book does; one function, stop, writes the order in which the parts end, so that nothing that
// carries money is cut off between its journal and its answer.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"yupos/daemon/config"
	"yupos/daemon/identity"
	"yupos/daemon/till"

	"yupos/devices/display"
	"yupos/devices/printer"
	"yupos/devices/scanner"
	"yupos/ledgercache"
	"yupos/sync/uplink"
)

// Version is what this build calls itself, on the line, in the journal and in /metrics.
const Version = "0.1.0"

// deviceStart is how long the terminal waits for its devices before it is ready without them.
const deviceStart = 1500 * time.Millisecond

// The longest that each part may take to end.
const (
	webStop   = 3 * time.Second
	flushStop = 5 * time.Second
	partStop  = 5 * time.Second
)

// Daemon is one running terminal.
type Daemon struct {
	cfg  config.Config
	log  *slog.Logger
	book *ledgercache.Book
	time *clockKeeper

	renewal *renewal
	line    *uplink.Uplink
	till    *till.Till

	scanner *scanner.Scanner // nil where the counter has none
	printer *printer.Printer
	display *display.Display

	server   *http.Server
	listener net.Listener

	opened time.Time // by the process's own clock
	parts  []*part
	broken chan error
}

// part is one long-lived piece with a life of its own.
type part struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
}

// Open builds a terminal of its configuration: identity, book, devices, line, till, pages. Nothing runs yet, but the
// address is bound, so that a second daemon fails here.
func Open(ctx context.Context, cfg config.Config, log *slog.Logger) (*Daemon, error) {
	d := &Daemon{cfg: cfg, log: log, broken: make(chan error, 1), opened: time.Now()}
	id, err := openIdentity(cfg)
	if err != nil {
		return nil, err
	}
	if id.TerminalID != cfg.Terminal.ID || id.MerchantID != cfg.Merchant.ID {
		return nil, fmt.Errorf("identity is for terminal %s of merchant %s, the configuration says %s of %s",
			id.TerminalID, id.MerchantID, cfg.Terminal.ID, cfg.Merchant.ID)
	}
	if d.listener, err = net.Listen("tcp", cfg.Web.Listen); err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			err = fmt.Errorf("端口已被占用，可能已有一个 posd 在运行 · in use, perhaps by another posd: %w", err)
		}
		return nil, fmt.Errorf("web.listen: %w", err)
	}
	clock := newClock(time.Duration(cfg.Clock.OfflineBootHours) * time.Hour)
	d.book, err = ledgercache.Open(ctx, ledgercache.Options{
		Dir: cfg.Terminal.DataDir, Mirror: cfg.Book.Mirror, Archive: cfg.Book.Archive, Key: id.BookKey, TerminalID: cfg.Terminal.ID, Software: "posd " + Version,
		Clock: clock, ShiftAutoOpen: cfg.Shift.AutoOpen, AutoPrint: cfg.Printer.Port != "" && cfg.Printer.Auto, Log: log,
		Reserve: int64(cfg.Book.ReserveMB) << 20, Suspect: os.Getenv(suspectEnv) != "", ReadOnly: sealsOf(os.Getenv(sealedEnv)).readOnly(time.Now()),
		Pins: id.Pins, Sign: signer(cfg.Terminal.ID, id.Key),
	})
	if errors.Is(err, ledgercache.ErrInUse) {
		err = fmt.Errorf("账本正被另一个进程使用，未做任何改动 · %w", err)
	}
	if errors.Is(err, ledgercache.ErrArchiveAway) {
		err = fmt.Errorf("账本归档目录 book.archive 读不到，缓存需要它才能重建，未做任何改动；请接回该盘后再启动 · book.archive cannot be read and the cache has to be made anew from it: %w", err)
	}
	if err != nil {
		return nil, errors.Join(err, d.listener.Close())
	}
	d.time = newClockKeeper(clock, d.book, log.With(slog.String("part", "clock")))
	if d.book.Err() == nil {
		_ = os.Unsetenv(suspectEnv) // the cache was made anew
	}
	d.learnFirst(ctx)
	d.renewal = newRenewal(id, cfg.Terminal.IdentityDir, cfg.Ledger.URLs, clock.Time, log.With(slog.String("part", "certificate")))
	if err := d.build(id); err != nil {
		return nil, errors.Join(err, d.listener.Close(), d.book.Close())
	}
	return d, nil
}

// Addr is the address that the pages and the register API are served on.
func (d *Daemon) Addr() string { return d.listener.Addr().String() }

// Run runs the terminal until ctx ends or the book breaks, then stops it in order. It returns nil after a stop that was
// asked for.
func (d *Daemon) Run(ctx context.Context) error {
	d.startDevices()
	d.start("clock", d.time.Run)
	d.start("line", d.line.Run)
	d.start("certificate", d.renewal.Run)
	d.start("till", d.till.Run)
	d.start("web", d.serve)
	if d.book.Err() != nil {
		d.start("mend", d.mend)
	}
	d.log.Info("terminal runs", slog.String("addr", d.Addr()), slog.String("terminal", d.cfg.Terminal.ID))
	var err error
	select {
	case <-ctx.Done():
	case err = <-d.broken:
		d.log.Error("terminal stops", slog.Any("err", err))
	}
	return errors.Join(err, d.stop())
}

// start runs one part. A part that ends with an error ends the daemon.
func (d *Daemon) start(name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	p := &part{name: name, cancel: cancel, done: make(chan struct{})}
	d.parts = append(d.parts, p)
	go func() {
		defer close(p.done)
		if err := run(ctx); err != nil && ctx.Err() == nil {
			select {
			case d.broken <- fmt.Errorf("%s: %w", name, err):
			default:
			}
		}
	}()
}

// stop is the one place that knows the order: no new requests, the till ends its step, the line waits for answers in
// flight, the printer and the other devices end, the book closes.
func (d *Daemon) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), webStop)
	defer cancel()
	err := d.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) { // an event stream never ends by itself
		err = d.server.Close()
	}
	d.end("web", "till")
	flush, cancelFlush := context.WithTimeout(context.Background(), flushStop)
	defer cancelFlush()
	d.line.Flush(flush)
	d.end("mend", "certificate", "line", "clock", "printer", "display", "scanner")
	return errors.Join(err, d.book.Close())
}

// end stops the named parts one after the other and waits for each.
func (d *Daemon) end(names ...string) {
	for _, name := range names {
		for _, p := range d.parts {
			if p.name != name {
				continue
			}
			p.cancel()
			select {
			case <-p.done:
			case <-time.After(partStop):
				d.log.Error("part does not end", slog.String("part", name))
			}
		}
	}
}

// serve serves the pages and the API until the server is shut down.
func (d *Daemon) serve(context.Context) error {
	if err := d.server.Serve(d.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// errStarting says that the devices have not all answered yet.
var errStarting = errors.New("devices are starting")

// Ready is nil when the terminal can take a sale: the book takes steps, and the devices are there, or have had their
// time: a scan in the first moment of a scanner is discarded on purpose, so nobody is told to scan before.
func (d *Daemon) Ready() error {
	if err := d.book.Err(); err != nil {
		return err
	}
	if time.Since(d.opened) > deviceStart {
		return nil
	}
	for _, dev := range d.devices() {
		if dev.State != "ok" {
			return fmt.Errorf("%w: %s", errStarting, dev.Name)
		}
	}
	return nil
}

// bookKeyFile is where the book's key lies.
func bookKeyFile(cfg config.Config) string {
	return identity.BookKeyFile(cfg.Terminal.IdentityDir, cfg.Book.KeyFile, os.Getenv(identity.CredentialsEnv))
}

func openIdentity(cfg config.Config) (identity.Identity, error) {
	key := bookKeyFile(cfg)
	if err := identity.EnsureBookKey(key, ledgercache.Exists(cfg.Terminal.DataDir)); err != nil {
		return identity.Identity{}, err
	}
	return identity.OpenWith(cfg.Terminal.IdentityDir, key)
}

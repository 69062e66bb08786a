// Package simulators is the demo world: a central ledger with its customers, a shop's scanner, printer and customer screen
// on pseudo-terminals, a network that can be bad, and the real terminal daemon as a process of its own that can be killed.
//
// Guarantees: everything listens on the loopback interface only; ports, tokens and the names of the devices outlive the
// terminal, however often it is killed and started; what the world keeps in its directory it finds again; the world is
// called ready only when the terminal answers, its line to the ledger is up and its devices are attached; when the world
// ends, whatever way, the terminal ends too.
//
// Duties of the caller: hand in the command that runs the daemon, and run [World.Run].
//
// The simulators share no code with what they test.
package simulators

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"yupos/simulators/displaysim"
	"yupos/simulators/printersim"
	"yupos/simulators/scannersim"
)

// The terminal of the demo and its shop.
const (
	TerminalID  = "10000001"
	merchantID  = "653000053310001"
	merchant    = "YUZHONG NOODLES"
	displayName = "渝中小面"
	mcc         = "5411"
	feeBP       = 38
)

const (
	startLimit = 30 * time.Second // from starting the daemon to its /readyz
	stopLimit  = 10 * time.Second // for the daemon to stop by itself
	linkLimit  = 15 * time.Second // from readiness to the line being up and the devices attached
)

// Options describe a world.
type Options struct {
	Dir  string   // where it keeps everything; made if missing
	Port int      // of the till; control and ledger take the next two. 0 = any free ports
	Seed int64    // what is random in the ledger and its customers repeats with it
	Posd []string // the command that runs the daemon, to which "serve -c FILE" is added
	Log  *slog.Logger
	// ChildLog takes what the daemon writes to its standard error, each line marked; nil throws it away.
	ChildLog io.Writer
}

// Addresses is where everything is, and the tokens: the first line of possim demo --json.
type Addresses struct {
	Till         string `json:"till"`
	Office       string `json:"office"`
	Display      string `json:"display"`
	Phone        string `json:"phone"`
	Ledger       string `json:"ledger"`
	Control      string `json:"control"`
	Token        string `json:"token"`
	ManagerToken string `json:"manager_token"`
}

// World is one demo world.
type World struct {
	options   Options
	log       *slog.Logger
	addresses Addresses

	ledger   bank
	scanner  *scannersim.Scanner
	printer  *printersim.Printer
	display  *displaysim.Display
	terminal *terminal

	control net.Listener
	held    *reservation // of the till's port
	closing sync.Once
	closed  error
}

// bank is what the world needs of the central ledger.
type bank interface {
	Run(ctx context.Context) error
	URL() string
	Handler() http.Handler
	Provision(terminalID, merchantID, name, displayName, mcc string, feeBP int, identityDir string) error
	Close() error
}

func open(o Options, openLedger func(dir, listen string) (bank, error)) (*World, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Port < 0 || o.Port > 65533 {
		return nil, fmt.Errorf("open world: port %d: want 0 to 65533", o.Port)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open world: %w", err)
	}
	o.Dir = dir
	w := &World{options: o, log: o.Log}
	if err := w.open(openLedger); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

func (w *World) open(openLedger func(dir, listen string) (bank, error)) error {
	dir := w.options.Dir
	for _, name := range []string{"", "dev", "ledger", "posd", "posd/tokens"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			return fmt.Errorf("open world: %w", err)
		}
	}
	if err := w.openPorts(); err != nil {
		return err
	}
	var err error
	if w.ledger, err = openLedger(filepath.Join(dir, "ledger"), w.listen(2)); err != nil {
		return fmt.Errorf("open ledger: %w", err)
	}
	w.addresses.Ledger = w.ledger.URL()
	if err := w.ledger.Provision(TerminalID, merchantID, merchant, displayName, mcc, feeBP, filepath.Join(dir, "posd", "identity")); err != nil {
		return fmt.Errorf("provision terminal: %w", err)
	}
	w.scanner = scannersim.New(scannersim.Options{Path: w.device("scanner")})
	w.printer = printersim.New(printersim.Options{Path: w.device("printer")})
	w.display = displaysim.New(w.device("display"))
	file, err := w.configure()
	if err != nil {
		return err
	}
	argv := append(slices.Clone(w.options.Posd), "serve", "-c", file)
	w.terminal = newTerminal(argv, w.addresses.Till, w.options.ChildLog, w.log)
	return nil
}

// openPorts takes the ports of the till and of the control API; the ledger takes its own.
func (w *World) openPorts() error {
	var err error
	if w.held, err = reserve(w.options.Port); err != nil {
		return fmt.Errorf("open world: port %d of the till: %w", w.options.Port, err)
	}
	if w.control, err = net.Listen("tcp", w.listen(1)); err != nil {
		return fmt.Errorf("open world: control port: %w", err)
	}
	till := fmt.Sprintf("http://127.0.0.1:%d", w.held.port)
	control := "http://" + w.control.Addr().String()
	w.addresses = Addresses{Till: till, Office: till + "/office", Display: till + "/display", Phone: control + "/phone/", Control: control}
	return nil
}

// listen is the address of the n-th port.
func (w *World) listen(n int) string {
	if w.options.Port == 0 {
		return "127.0.0.1:0"
	}
	return fmt.Sprintf("127.0.0.1:%d", w.options.Port+n)
}

func (w *World) device(name string) string { return filepath.Join(w.options.Dir, "dev", name) }

// Addresses says where everything is. It is complete as soon as the world is open.
func (w *World) Addresses() Addresses { return w.addresses }

// Run runs the world until ctx ends, or a part of it fails, and calls ready once when everything stands. It returns nil when
// ctx ended it. A terminal that dies is no failure of the world: it can be started again.
func (w *World) Run(ctx context.Context, ready func(Addresses)) error {
	// The parts outlive ctx until the terminal has stopped, so that it stops in an orderly world.
	parts, stopParts := context.WithCancel(context.WithoutCancel(ctx))
	defer stopParts()
	group, failed := errgroup.WithContext(parts)
	for name, run := range map[string]func(context.Context) error{
		"ledger": w.ledger.Run, "scanner": w.scanner.Run, "printer": w.printer.Run, "display": w.display.Run, "control": w.serve,
	} {
		group.Go(func() error {
			err := run(failed)
			if failed.Err() != nil {
				return nil // it was asked to end
			}
			return fmt.Errorf("%s ended: %w", name, orUnexpected(err))
		})
	}
	group.Go(func() error {
		defer stopParts()
		life, cancel := joined(ctx, failed)
		defer cancel()
		err := w.runTerminal(life, ready)
		if stop := w.terminal.Stop(); err == nil {
			err = stop
		}
		return err
	})
	err := group.Wait()
	return errors.Join(err, w.Close())
}

var errUnexpected = errors.New("for no reason")

func orUnexpected(err error) error {
	if err == nil {
		return errUnexpected
	}
	return err
}

// joined is a context that ends with either.
func joined(a, b context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(a)
	stop := context.AfterFunc(b, cancel)
	return ctx, func() { stop(); cancel() }
}

// runTerminal starts the terminal, says when all is ready and waits for the end.
func (w *World) runTerminal(ctx context.Context, ready func(Addresses)) error {
	err := w.awaitDevices(ctx)
	if err == nil {
		err = w.terminal.Start(ctx)
	}
	if err == nil {
		err = w.awaitReady(ctx)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil // ended before it was ready
		}
		return err
	}
	ready(w.addresses)
	<-ctx.Done()
	return nil
}

// awaitDevices waits until the devices are published: the daemon should not have to look twice.
func (w *World) awaitDevices(ctx context.Context) error {
	return poll(ctx, linkLimit, "the devices are not plugged in", func(context.Context) bool {
		return w.scanner.State().Connected && w.printer.State().Connected && w.display.State().Connected
	})
}

// Close lets go of ports and files, once. Run does it by itself.
func (w *World) Close() error {
	w.closing.Do(func() {
		if w.held != nil {
			w.held.Close()
		}
		if w.control != nil {
			w.control.Close()
		}
		if w.ledger != nil {
			w.closed = w.ledger.Close()
		}
	})
	return w.closed
}

// poll asks until the answer is yes.
func poll(ctx context.Context, limit time.Duration, complaint string, ask func(context.Context) bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s after %s", complaint, limit))
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ask(ctx) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}

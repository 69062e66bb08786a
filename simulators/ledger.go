package simulators

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"yupos/simulators/ledgersim"
)

// New opens a world: ports, ledger, devices, and the terminal's configuration in Dir. Nothing runs yet.
func New(o Options) (*World, error) {
	return open(o, func(dir, listen string) (bank, error) {
		return openLedger(ledgersim.Options{Dir: dir, Listen: listen, Seed: o.Seed, Log: o.Log})
	})
}

func openLedger(o ledgersim.Options) (bank, error) {
	l, err := ledgersim.Open(o)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// LedgerOptions describe a ledger without a world around it.
type LedgerOptions struct {
	Dir       string // its store and keys
	Listen    string // host:port of the terminals' line
	Control   string // loopback host:port of the control API and the phone page
	Provision string // unless empty, where the identity of the demo's terminal is written
	Seed      int64
	Log       *slog.Logger
}

// RunLedger runs a ledger with its customers until ctx ends, and says once where they are.
func RunLedger(ctx context.Context, o LedgerOptions, ready func(ledger, control string)) error {
	l, err := openLedger(ledgersim.Options{Dir: o.Dir, Listen: o.Listen, Seed: o.Seed, Log: o.Log})
	if err != nil {
		return fmt.Errorf("open ledger: %w", err)
	}
	defer l.Close()
	if o.Provision != "" {
		if err := l.Provision(TerminalID, merchantID, merchant, displayName, mcc, feeBP, o.Provision); err != nil {
			return fmt.Errorf("provision terminal: %w", err)
		}
	}
	control, err := net.Listen("tcp", o.Control)
	if err != nil {
		return fmt.Errorf("control port: %w", err)
	}
	server := &http.Server{Handler: localOnly(l.Handler()), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return endedBy(ctx, l.Run(ctx)) })
	group.Go(func() error { return endedBy(ctx, server.Serve(control)) })
	defer context.AfterFunc(ctx, func() { server.Close() })()
	ready(l.URL(), "http://"+control.Addr().String())
	return group.Wait()
}

// endedBy is nil if ctx ended the part.
func endedBy(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return orUnexpected(err)
}

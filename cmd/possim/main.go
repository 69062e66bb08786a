// Command possim is the world around a payment terminal: the central ledger, the customers' phones, scanner, printer,
// customer screen and a bad network, for developing, demonstrating and testing without hardware.
//
// Guarantees: standard output carries results and nothing else, logs go to standard error; exit codes are 0 ok, 1 failure,
// 2 usage or configuration, 5 refused by rule; SIGINT and SIGTERM end every command in order.
//
// "possim posd …" is the daemon itself, the same one as the command posd, so that the demo can run it as a process that may
// be killed.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"yupos/daemon"
)

// The exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
	exitRefused = 5
)

// errUsage marks what was wrong with the words of the command.
var errUsage = errors.New("usage")

func main() {
	if len(os.Args) > 1 && os.Args[1] == "posd" {
		pretend(os.Getenv("POSSIM_MACHINE"))
		os.Exit(daemon.Main(context.Background(), os.Args[2:], os.Stdout, os.Stderr))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// pretend makes this daemon believe what the demo wants of its machine's clocks: "-2h0m0s BOOT".
func pretend(machine string) {
	off, boot, _ := strings.Cut(machine, " ")
	if wall, err := time.ParseDuration(off); err == nil {
		daemon.PretendMachine(wall, boot)
	}
}

// run is the command without the process around it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := command(stdout, stderr)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(stderr, "possim:", err)
	var r refused
	switch {
	case errors.Is(err, errUsage):
		return exitUsage
	case errors.As(err, &r):
		return exitRefused
	}
	return exitFailure
}

func command(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use: "possim", Short: "收款终端的模拟世界 · the world around a payment terminal",
		SilenceErrors: true, SilenceUsage: true, Version: daemon.Version,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	root.Args = exactly(0)
	root.RunE = func(*cobra.Command, []string) error {
		return fmt.Errorf("%w: possim demo|ledger|devices|wallet|posd (possim help)", errUsage)
	}
	root.AddCommand(demoCommand(stdout, stderr), ledgerCommand(stdout, stderr), devicesCommand(stdout), walletCommand(stdout), posdCommand())
	return root
}

// posdCommand is there for the help only: main hands its arguments to the daemon unread.
func posdCommand() *cobra.Command {
	return &cobra.Command{Use: "posd", Short: "终端守护进程本身 · the terminal daemon itself", DisableFlagParsing: true}
}

// exactly wants a number of arguments.
func exactly(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != n {
			return fmt.Errorf("%w: %s", errUsage, c.UseLine())
		}
		return nil
	}
}

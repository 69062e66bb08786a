package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"yupos/daemon/config"
)

// The exit codes of posd (interfaces.md, Commands).
const (
	ExitOK      = 0
	ExitFailure = 1
	ExitUsage   = 2 // usage or configuration
)

// LifelineEnv names a file descriptor that a parent keeps open: when it closes, because the parent has died however it
// died, the daemon stops. The demo world uses it.
const LifelineEnv = "POSD_LIFELINE_FD"

// errUsage marks what was wrong with the words of the command.
var errUsage = errors.New("usage")

// Main is the command posd: it parses args (without the program's name), runs until ctx ends, a signal comes or the work
// is done, and returns the exit code.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := command(stdout, stderr)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var faults config.Faults
	var own *coded
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &faults):
		fmt.Fprintln(stderr, faults.Error())
		return ExitUsage
	case errors.As(err, &own):
		fmt.Fprintln(stderr, "posd:", own.text)
		return own.code
	case errors.Is(err, errUsage):
		fmt.Fprintln(stderr, err)
		return ExitUsage
	}
	fmt.Fprintln(stderr, "posd:", err)
	return ExitFailure
}

func command(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{Use: "posd", Short: "收款终端守护进程 · the payment terminal daemon", Version: Version, SilenceErrors: true, SilenceUsage: true}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	root.AddCommand(serveCommand(stderr), checkCommand(stdout))
	for _, c := range append(root.Commands(), root) {
		c.Args = noArgs
	}
	root.AddCommand(bookCommands(stdout, stderr)...)
	root.AddCommand(enrollCommand(stdout))
	root.RunE = func(c *cobra.Command, _ []string) error {
		return fmt.Errorf("%w: posd serve|check|enroll|journal|backup|restore -c FILE (posd help)", errUsage)
	}
	return root
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%w: unknown argument %q", errUsage, args[0])
	}
	return nil
}

const defaultConfig = "/etc/posd/posd.toml"

func serveCommand(stderr io.Writer) *cobra.Command {
	var path string
	c := &cobra.Command{Use: "serve", Short: "运行终端 · run the terminal", RunE: func(c *cobra.Command, _ []string) error {
		cfg, err := config.Load(path, os.Environ())
		if err != nil {
			return err
		}
		log := newLog(stderr, cfg.Log.Level)
		ctx, cancel := lifeline(c.Context(), log)
		defer cancel()
		d, err := Open(ctx, cfg, log)
		if err != nil {
			return err
		}
		err = d.Run(ctx)
		if env, again := restarts(err, os.Getenv(sealedEnv), time.Now()); again && ctx.Err() == nil {
			return errors.Join(err, restart(env, log))
		}
		return err
	}}
	c.Flags().StringVarP(&path, "config", "c", defaultConfig, "configuration file")
	return c
}

func checkCommand(stdout io.Writer) *cobra.Command {
	var path string
	c := &cobra.Command{Use: "check", Short: "检查配置 · check a configuration, naming every fault", RunE: func(c *cobra.Command, _ []string) error {
		if _, err := config.Load(path, os.Environ()); err != nil {
			return err
		}
		_, err := fmt.Fprintf(stdout, "%s: 配置正确 · ok\n", path)
		return err
	}}
	c.Flags().StringVarP(&path, "config", "c", defaultConfig, "configuration file")
	return c
}

func newLog(w io.Writer, level string) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		l = slog.LevelInfo // the configuration was checked: this is the default for a caller that gave none
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l}))
}

// lifeline ends the context when the parent's end of the inherited pipe closes.
func lifeline(ctx context.Context, log *slog.Logger) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	fd, err := strconv.Atoi(os.Getenv(LifelineEnv))
	if err != nil || fd < 3 {
		return ctx, cancel
	}
	pipe := os.NewFile(uintptr(fd), "lifeline")
	go func() {
		_, _ = io.Copy(io.Discard, pipe) // ends when the last writer is gone; what it carries means nothing
		log.Info("parent is gone")
		cancel()
	}()
	return ctx, cancel
}

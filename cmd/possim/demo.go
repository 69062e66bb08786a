package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"yupos/simulators"
)

func demoCommand(stdout, stderr io.Writer) *cobra.Command {
	var o simulators.Options
	var asJSON bool
	c := &cobra.Command{
		Use: "demo", Args: exactly(0),
		Short: "整个世界：账本、顾客、设备、终端 · the whole world with no configuration",
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if o.Port < 0 || o.Port > 65533 {
				return fmt.Errorf("%w: --port: want 0 to 65533", errUsage)
			}
			if o.Dir == "" {
				if o.Dir, err = os.MkdirTemp("", "possim-"); err != nil {
					return fmt.Errorf("make directory: %w", err)
				}
				defer func() { err = errors.Join(err, os.RemoveAll(o.Dir)) }()
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find own program: %w", err)
			}
			o.Posd = []string{self, "posd"}
			o.Log = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: logLevel()}))
			o.ChildLog = stderr
			w, err := simulators.New(o)
			if err != nil {
				return err
			}
			return w.Run(c.Context(), func(a simulators.Addresses) {
				if asJSON {
					printJSON(stdout, a)
					return
				}
				printAddresses(stdout, a, o.Dir)
			})
		},
	}
	c.Flags().StringVar(&o.Dir, "dir", "", "where the world keeps its data (default: a temporary directory)")
	c.Flags().IntVar(&o.Port, "port", 8600, "the till's port; control and ledger take the next two; 0 = any free ones")
	c.Flags().Int64Var(&o.Seed, "seed", 1, "what is random repeats with it")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object when all is ready")
	return c
}

func printJSON(w io.Writer, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		return // plain strings always encode
	}
	fmt.Fprintf(w, "%s\n", raw)
}

func printAddresses(w io.Writer, a simulators.Addresses, dir string) {
	fmt.Fprintf(w, `演示已就绪 · the demo is ready

  收银台 cashier          %s/
  顾客屏 display          %s
  后台   office           %s
  手机   phone            %s
  模拟台 bench            %s/
  账本   ledger           %s
  数据   data             %s
  店长令牌 manager token  %s

export POSCTL_ADDR=%s
export POSCTL_TOKEN=%s

Ctrl-C 结束 · ends it
`, a.Till, a.Display, a.Office, a.Phone, a.Control, a.Ledger, dir, a.ManagerToken, a.Till, a.Token)
}

// logLevel is what POSSIM_LOG_LEVEL names (debug, info, warn, error), or info.
func logLevel() (level slog.Level) {
	if err := level.UnmarshalText([]byte(os.Getenv("POSSIM_LOG_LEVEL"))); err != nil {
		return slog.LevelInfo
	}
	return level
}

package main

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"yupos/simulators"
)

func ledgerCommand(stdout, stderr io.Writer) *cobra.Command {
	var o simulators.LedgerOptions
	c := &cobra.Command{
		Use: "ledger", Args: exactly(0),
		Short: "只有中央账本和顾客 · the central ledger and its customers alone",
		RunE: func(c *cobra.Command, _ []string) error {
			if o.Dir == "" {
				return fmt.Errorf("%w: --dir is missing", errUsage)
			}
			o.Log = slog.New(slog.NewTextHandler(stderr, nil))
			return simulators.RunLedger(c.Context(), o, func(ledger, control string) {
				fmt.Fprintf(stdout, "账本 ledger   %s\n控制 control  %s\n", ledger, control)
			})
		},
	}
	c.Flags().StringVar(&o.Dir, "dir", "", "where the ledger keeps its data and keys")
	c.Flags().StringVar(&o.Listen, "listen", "127.0.0.1:8602", "address of the terminals' line")
	c.Flags().StringVar(&o.Control, "control", "127.0.0.1:8601", "loopback address of the control API and the phone page")
	c.Flags().StringVar(&o.Provision, "provision", "", "write the identity of terminal "+simulators.TerminalID+" to this directory")
	c.Flags().Int64Var(&o.Seed, "seed", 1, "what is random repeats with it")
	return c
}

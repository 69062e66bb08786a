// Command posctl is the hand tool of a terminal: the counter by hand, and what a code is.
//
// Exit codes: 0 ok, 1 failure, 2 usage or configuration, 3 degraded, 4 result unknown, 5 refused by rule. It decides
// nothing itself: every answer is the terminal's own, over the register API. A token or a code never stands in an error.
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

	"github.com/spf13/cobra"

	"yupos/daemon/client"
)

// The exit codes (interfaces.md, Commands).
const (
	exitOK       = 0
	exitFailure  = 1
	exitUsage    = 2
	exitDegraded = 3
	exitUnknown  = 4
	exitRefused  = 5
)

// exit is how a command ends besides success. Its text, if any, was not shown yet.
type exit struct {
	code int
	text string
}

func (e exit) Error() string { return e.text }

func usage(format string, args ...any) error { return exit{exitUsage, fmt.Sprintf(format, args...)} }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run runs posctl with these words and answers the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	t := &tool{in: stdin, out: stdout, err: stderr}
	root := t.command()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	var end exit
	var refused *client.Problem
	switch {
	case errors.As(err, &end):
		if end.text != "" {
			fmt.Fprintln(stderr, "posctl:", end.text)
		}
		return end.code
	case errors.As(err, &refused):
		fmt.Fprintln(stderr, "posctl:", refused)
		return problemExit(refused)
	case errors.Is(err, client.ErrUnreachable):
		fmt.Fprintln(stderr, "posctl: 终端没有答复，结果以查询为准 · the terminal does not answer:", err)
		return exitFailure
	}
	fmt.Fprintln(stderr, "posctl:", err)
	return exitFailure
}

// problemExit tells a rule of the terminal from a failure of it and from a wrong token.
func problemExit(p *client.Problem) int {
	switch {
	case p.Status == 401:
		return exitUsage
	case p.Status >= 500:
		return exitFailure
	}
	return exitRefused
}

// tool is one run of posctl.
type tool struct {
	in        io.Reader
	out, err  io.Writer
	addr      string
	tokenFile string
	json      bool
}

func (t *tool) command() *cobra.Command {
	root := &cobra.Command{
		Use: "posctl", Short: "收款终端手动工具 · the hand tool of a payment terminal", SilenceErrors: true, SilenceUsage: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("未知命令 · unknown command %q (posctl help)", args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetOut(t.out)
	root.SetErr(t.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage("%v", err) })
	flags := root.PersistentFlags()
	flags.StringVar(&t.addr, "addr", "", "终端地址 · terminal (default POSCTL_ADDR or http://127.0.0.1:8600)")
	flags.StringVar(&t.tokenFile, "token-file", "", "令牌文件 · file with the token (default: POSCTL_TOKEN)")
	flags.BoolVar(&t.json, "json", false, "输出 JSON · answer in JSON")
	root.AddCommand(t.status(), t.watch(), t.pay(), t.show(), t.query(), t.cancel(), t.refund(), t.print(), t.code())
	return root
}

// exactly demands n words after a command.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != n {
			return usage("用法 · usage: %s %s", c.CommandPath(), what)
		}
		return nil
	}
}

// client finds the terminal: flag, environment, default.
func (t *tool) client() (*client.Client, error) {
	addr := first(t.addr, os.Getenv("POSCTL_ADDR"), "http://127.0.0.1:8600")
	if !strings.Contains(addr, "://") {
		addr = "http://" + addr
	}
	token := os.Getenv("POSCTL_TOKEN")
	if t.tokenFile != "" {
		raw, err := os.ReadFile(t.tokenFile)
		if err != nil {
			return nil, usage("令牌文件 · token file: %v", err)
		}
		token = string(raw)
	}
	if token = strings.TrimSpace(token); token == "" {
		return nil, usage("缺少令牌：--token-file 或 POSCTL_TOKEN · a token is needed: --token-file or POSCTL_TOKEN")
	}
	return client.New(addr, token), nil
}

func first(texts ...string) string {
	for _, s := range texts {
		if s != "" {
			return s
		}
	}
	return ""
}

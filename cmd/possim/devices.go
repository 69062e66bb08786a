package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"yupos/simulators/displaysim"
	"yupos/simulators/printersim"
	"yupos/simulators/scannersim"
)

// devicesCommand runs the devices alone, for other people's software: what is typed is scanned, what is printed and shown is
// said.
func devicesCommand(stdout io.Writer) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "devices", Args: exactly(0),
		Short: "只有设备，逐行输入即扫码 · the devices alone; each line of standard input is scanned",
		RunE: func(c *cobra.Command, _ []string) error {
			if dir == "" {
				return fmt.Errorf("%w: --dir is missing", errUsage)
			}
			dir, err := filepath.Abs(dir)
			if err != nil {
				return fmt.Errorf("find directory: %w", err)
			}
			return runDevices(c.Context(), dir, os.Stdin, stdout)
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "where the links scanner, printer and display are published, and receipts stored")
	return c
}

func runDevices(ctx context.Context, dir string, in io.Reader, stdout io.Writer) error {
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(stdout, format+"\n", args...)
	}
	scanner := scannersim.New(scannersim.Options{Path: filepath.Join(dir, "scanner")})
	printer := printersim.New(printersim.Options{Path: filepath.Join(dir, "printer"), OnReceipt: func(r printersim.Receipt) {
		path := filepath.Join(dir, fmt.Sprintf("receipt-%d.png", r.N))
		picture, err := r.Picture()
		if err == nil {
			err = os.WriteFile(path, picture, 0o600)
		}
		if err != nil {
			say("小票 receipt %d: %v", r.N, err)
			return
		}
		say("小票 receipt %d: %s\n%s", r.N, path, r.Text)
	}})
	display := displaysim.New(filepath.Join(dir, "display"))
	go func() { // ends with the process: a read from standard input cannot be called back
		lines := bufio.NewScanner(in)
		for lines.Scan() {
			if err := scanner.Scan(lines.Text()); err != nil {
				say("扫码 scan: %v", err)
			}
		}
	}()
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{scanner.Run, printer.Run, display.Run} {
		group.Go(func() error { return run(ctx) })
	}
	say("设备在 devices at %s: scanner printer display", dir)
	if err := group.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

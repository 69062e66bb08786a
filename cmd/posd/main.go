// Command posd is the payment terminal daemon. It only carries arguments in and the exit code out: daemon.Main is the
// program, so that the demo world can run exactly the same one.
package main

import (
	"context"
	"os"

	"yupos/daemon"
)

func main() {
	os.Exit(daemon.Main(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

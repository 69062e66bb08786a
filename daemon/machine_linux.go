package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"yupos/ledgercache/trust"
)

// machineClocks reads the machine's own clocks. Boot is the raw oscillator plus the time in sleep: CLOCK_BOOTTIME without
// what a time daemon bends of it while it corrects the wall clock.
func machineClocks() trust.Reading {
	r := trust.Reading{BootID: thisBoot().id, Kept: thisBoot().battery, Wall: time.Now()}
	raw, monotonic, boot := clockOf(unix.CLOCK_MONOTONIC_RAW), clockOf(unix.CLOCK_MONOTONIC), clockOf(unix.CLOCK_BOOTTIME)
	r.Boot = raw + max(boot-monotonic, 0).Truncate(time.Millisecond) // what lies between the two calls is no sleep
	return r
}

// clockOf is one clock of the kernel. It cannot fail for the three that are asked for; 0 would be a time before everything.
func clockOf(id int32) time.Duration {
	var at unix.Timespec
	if err := unix.ClockGettime(id, &at); err != nil {
		return 0
	}
	return time.Duration(at.Nano())
}

type bootFacts struct {
	id      string
	battery bool
}

// thisBoot is what does not change while the machine runs: its boot id, and whether a battery's clock set the wall clock.
var thisBoot = sync.OnceValue(func() (b bootFacts) {
	if raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		b.id = strings.TrimSpace(string(raw))
	}
	clocks, _ := filepath.Glob("/sys/class/rtc/rtc*/hctosys") // the pattern is well formed
	for _, name := range clocks {
		if raw, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(raw)) == "1" {
			b.battery = true
		}
	}
	return b
})

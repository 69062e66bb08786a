package daemon

import (
	"time"

	"yupos/ledgercache/trust"
)

// pretended changes what the machine's clocks say; nil on every real terminal.
var pretended func(trust.Reading) trust.Reading

// PretendMachine makes this process believe that the wall clock is off by so much, and that the machine was started again
// under the given id ("" leaves it). Only the simulator's own daemon calls it, before anything else.
func PretendMachine(wallOff time.Duration, boot string) {
	began := machineClocks().Boot
	pretended = func(r trust.Reading) trust.Reading {
		r.Wall = r.Wall.Add(wallOff)
		if boot != "" {
			r.BootID, r.Boot, r.Kept = boot, r.Boot-began+time.Second, true // a machine with a battery
		}
		return r
	}
}

// readMachine is what the terminal's clock rests on.
func readMachine() trust.Reading {
	r := machineClocks()
	if pretended != nil {
		r = pretended(r)
	}
	return r
}

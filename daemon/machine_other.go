//go:build !linux

package daemon

import (
	"crypto/rand"
	"sync"
	"time"

	"yupos/ledgercache/trust"
)

// machineClocks reads the machine's own clocks, where only this process's monotonic clock is known: a new process trusts
// its time again when it has heard the ledger.
func machineClocks() trust.Reading {
	start := processStart()
	now := time.Now()
	return trust.Reading{Boot: now.Sub(start.at), BootID: start.id, Wall: now}
}

type processTime struct {
	at time.Time
	id string
}

var processStart = sync.OnceValue(func() processTime { return processTime{time.Now(), rand.Text()} })

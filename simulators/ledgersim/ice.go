package ledgersim

import (
	"errors"
	"net"
	"sync"
)

// ice is a network that is half open: connections stand, and nothing passes.
type ice struct {
	mu      sync.Mutex
	changed *sync.Cond
	frozen  bool
}

func (i *ice) set(frozen bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.frozen = frozen
	i.changed.Broadcast()
}

// maxPending is what a half-open connection takes, as a kernel would, before it takes no more.
const maxPending = 1 << 20

var errPending = errors.New("ledgersim: half-open connection takes no more")

// frozen is a connection under the ice. What is read or written meanwhile arrives late, in order.
type frozen struct {
	net.Conn
	ice      *ice
	pending  []byte
	flushing bool
	closed   bool
}

// Read hands over what has come, once it may pass.
func (c *frozen) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.ice.mu.Lock()
	defer c.ice.mu.Unlock()
	for c.ice.frozen && !c.closed {
		c.ice.changed.Wait()
	}
	return n, err
}

// Write takes what is written, and sends it when it may pass.
func (c *frozen) Write(b []byte) (int, error) {
	c.ice.mu.Lock()
	if !c.ice.frozen && !c.flushing {
		c.ice.mu.Unlock()
		return c.Conn.Write(b)
	}
	defer c.ice.mu.Unlock()
	if len(c.pending)+len(b) > maxPending {
		return 0, errPending
	}
	c.pending = append(c.pending, b...)
	if !c.flushing {
		c.flushing = true
		go c.flush()
	}
	return len(b), nil
}

func (c *frozen) flush() {
	c.ice.mu.Lock()
	defer c.ice.mu.Unlock()
	for {
		for c.ice.frozen && !c.closed {
			c.ice.changed.Wait()
		}
		if c.closed || len(c.pending) == 0 {
			c.flushing = false
			return
		}
		out := c.pending
		c.pending = nil
		c.ice.mu.Unlock()
		c.Conn.Write(out) // an error shows at the next read
		c.ice.mu.Lock()
	}
}

// Close ends the connection and whoever waits on it.
func (c *frozen) Close() error {
	err := c.Conn.Close()
	c.ice.mu.Lock()
	defer c.ice.mu.Unlock()
	c.closed = true
	c.ice.changed.Broadcast()
	return err
}

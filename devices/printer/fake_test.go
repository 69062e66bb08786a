package printer

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"yupos/devices/serial"
)

// fake is a printer on a real pseudo-terminal: a reading of the manuals of its
// own, just deep enough for the commands that a job has. Its troubles strike at
// a byte of the stream.
type fake struct {
	t             *testing.T
	link          string
	master, slave *os.File

	mu      sync.Mutex
	cond    *sync.Cond
	paper   byte // DLE EOT 4 bits: 0, 0x0C near, 0x60 out
	cover   bool
	asb     bool
	mute    bool // answers nothing at all
	deaf    bool // comes to no queued command; real time works
	noFence bool
	greets  bool // sends XON when it is initialised
	badID   bool
	swallow int  // bytes of a picture that it still waits for
	keen    bool // sees real-time commands inside a picture, too
	seen    int  // bytes taken since plugged in
	queue   []byte
	printed bytes.Buffer // all commands executed but fences and questions
	strikes map[int]func(*fake)
	asked   int // DLE EOT seen
}

func newFake(t *testing.T) *fake {
	f := &fake{t: t, link: filepath.Join(t.TempDir(), "printer"), strikes: map[int]func(*fake){}}
	f.cond = sync.NewCond(&f.mu)
	return f
}

func (f *fake) plug() *fake {
	f.t.Helper()
	master, slave, err := openPty()
	if err != nil {
		f.t.Fatal(err)
	}
	f.mu.Lock()
	f.master, f.slave = master, slave
	f.seen, f.asb, f.queue = 0, false, nil
	f.mu.Unlock()
	if err := os.Symlink(slave.Name(), f.link); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { master.Close(); slave.Close() })
	go f.read(master)
	return f
}

// openPty is pty.Open with a master whose Close ends a blocked Read: the library
// leaves it blocking, and then Close waits for the Read.
func openPty() (master, slave *os.File, err error) {
	first, slave, err := pty.Open()
	if err != nil {
		return nil, nil, err
	}
	defer first.Close()
	fd, err := unix.Dup(int(first.Fd()))
	if err != nil {
		return nil, nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fd), first.Name()), slave, nil
}

func (f *fake) unplug() {
	os.Remove(f.link)
	f.master.Close()
	f.slave.Close()
}

func (f *fake) read(master *os.File) {
	buf := make([]byte, 4096)
	for {
		n, err := master.Read(buf)
		if err != nil {
			return
		}
		f.mu.Lock()
		for _, c := range buf[:n] {
			f.seen++
			if strike := f.strikes[f.seen]; strike != nil {
				delete(f.strikes, f.seen)
				strike(f)
			}
			f.queue = append(f.queue, c)
			f.run()
		}
		f.cond.Broadcast()
		f.mu.Unlock()
	}
}

// set changes the state as a hand on the printer does, and has the queue go on.
func (f *fake) set(change func(*fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
	if f.asb {
		f.answer(f.block()...)
	}
	f.run()
	f.cond.Broadcast()
}

// until waits until the state of the fake is so.
func (f *fake) until(ok func(*fake) bool) {
	f.t.Helper()
	timer := time.AfterFunc(5*time.Second, func() { f.cond.Broadcast() })
	defer timer.Stop()
	begin := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for !ok(f) {
		if time.Since(begin) > 5*time.Second {
			f.t.Fatal("the printer never came to that")
		}
		f.cond.Wait()
	}
}

func (f *fake) answer(b ...byte) {
	if !f.mute {
		f.master.Write(b)
	}
}

func (f *fake) offline() bool { return f.cover || f.paper == 0x60 }

// run executes what of the queue is complete.
func (f *fake) run() {
	for len(f.queue) > 0 {
		if f.swallow > 0 { // real time too, as in the worst printers
			if i := bytes.Index(f.queue, []byte{0x10, 0x04}); f.keen && i >= 0 && len(f.queue) > i+2 {
				f.answer(f.eot(f.queue[i+2]))
			} else if f.keen && len(f.queue) < 3 && f.queue[0] == 0x10 {
				return // perhaps one of them
			}
			n := min(f.swallow, len(f.queue))
			f.swallow -= n
			f.queue = f.queue[n:]
			continue
		}
		// Real time: wherever it stands in the waiting data.
		if i := bytes.Index(f.queue, []byte{0x10, 0x04}); i >= 0 && i+2 < len(f.queue) && f.queue[i+2] >= 1 && f.queue[i+2] <= 4 {
			n := f.queue[i+2]
			f.queue = append(f.queue[:i:i], f.queue[i+3:]...)
			f.asked++
			f.answer(f.eot(n))
			continue
		}
		n := f.length()
		if n == 0 || len(f.queue) < n || f.offline() || f.deaf || f.queue[0] == 0x10 {
			return
		}
		f.execute(f.queue[:n])
		f.queue = f.queue[n:]
	}
}

// length is how many bytes the first command has, 0 if that can not be said yet.
func (f *fake) length() int {
	q := f.queue
	need := func(n int) bool { return len(q) >= n }
	switch {
	case q[0] != 0x1B && q[0] != 0x1C && q[0] != 0x1D:
		return 1
	case !need(2):
		return 0
	}
	switch string(q[:2]) {
	case "\x1B@", "\x1C&":
		return 2
	case "\x1Bp":
		return 5
	case "\x1DV":
		return 4
	case "\x1D(":
		if !need(5) {
			return 0
		}
		return 5 + int(q[3]) + int(q[4])<<8
	case "\x1Dv":
		if !need(8) {
			return 0
		}
		return 8 + (int(q[4])+int(q[5])<<8)*(int(q[6])+int(q[7])<<8)
	}
	return 3
}

func (f *fake) execute(c []byte) {
	switch {
	case bytes.HasPrefix(c, []byte{0x1D, 'a'}):
		f.asb = c[2] != 0
		if f.asb {
			f.answer(f.block()...)
		}
	case bytes.HasPrefix(c, []byte{0x1D, 'r'}):
		if !f.noFence {
			f.answer(0x00)
		}
	case bytes.HasPrefix(c, []byte{0x1D, '(', 'H'}):
		id := bytes.Clone(c[7:11])
		if f.badID {
			id[0] ^= 1
		}
		if !f.noFence {
			f.answer(append([]byte{0x37, 0x22}, append(id, 0)...)...)
		}
	case c[0] == 0: // NUL is nothing
	default:
		if f.greets && bytes.Equal(c, initialize) {
			f.answer(0x11)
		}
		f.printed.Write(c)
	}
}

func (f *fake) eot(n byte) byte {
	b := byte(0x12)
	switch n {
	case 1:
		if f.offline() {
			b |= 0x08
		}
	case 2:
		if f.cover {
			b |= 0x04
		}
		if f.paper == 0x60 {
			b |= 0x20
		}
	case 4:
		b |= f.paper
	}
	return b
}

func (f *fake) block() []byte {
	b := []byte{0x10, 0, 0, 0x0F}
	if f.offline() {
		b[0] |= 0x08
	}
	if f.cover {
		b[0] |= 0x20
	}
	switch f.paper {
	case 0x0C:
		b[2] = 0x03
	case 0x60:
		b[2] = 0x0F
	}
	return b
}

// paperShows says what was printed, the initialisations aside.
func (f *fake) paperShows() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return string(bytes.ReplaceAll(f.printed.Bytes(), initialize, nil))
}

// counter is a printer with its fake, running.
type counter struct {
	*Printer
	t       *testing.T
	fake    *fake
	changes chan Status
	cancel  func()
}

// quick are limits for tests in which nothing waits for people.
func quick(profile string) Config {
	return Config{
		Profile: profiles[profile], Reply: 150 * time.Millisecond, Fence: 300 * time.Millisecond,
		Stall: 600 * time.Millisecond, Poll: 50 * time.Millisecond,
	}
}

func newCounter(t *testing.T, cfg Config) *counter {
	t.Helper()
	f := newFake(t)
	port := serial.New(serial.Config{Name: "printer", Path: f.link, Baud: 115200, Settle: time.Millisecond}, nil)
	c := &counter{Printer: New(cfg, port, nil), t: t, fake: f, changes: make(chan Status, 1000)}
	c.OnChange(func(s Status) { c.changes <- s })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	c.cancel = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(c.cancel)
	return c
}

// until waits for a status.
func (c *counter) until(ok func(Status) bool) Status {
	c.t.Helper()
	timeout := time.After(5 * time.Second)
	for {
		if s := c.Status(); ok(s) {
			return s
		}
		select {
		case s := <-c.changes:
			if ok(s) {
				return s
			}
		case <-timeout:
			c.t.Fatalf("status stays %+v", c.Status())
		}
	}
}

func (c *counter) ready() {
	c.t.Helper()
	c.until(func(s Status) bool { return s.OK })
}

// seen waits until the driver has understood what the fake told it.
func (c *counter) seen(ok func(*view) bool) {
	c.wire.await(c.t.Context(), 5*time.Second, ok)
}

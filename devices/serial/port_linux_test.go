package serial

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// socket is a place where a device can be plugged in and pulled out: a link that
// names a pseudo-terminal, as udev and the demo make them.
type socket struct {
	t    *testing.T
	path string
}

type plug struct {
	socket        *socket
	master, slave *os.File
}

func newSocket(t *testing.T) *socket {
	return &socket{t, filepath.Join(t.TempDir(), "device")}
}

// plug holds a slave descriptor of its own, as a simulator must: without one the
// master reads EIO and the last bytes are lost.
func (s *socket) plug() *plug {
	s.t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		s.t.Fatal(err)
	}
	p := &plug{s, master, slave}
	s.t.Cleanup(func() { master.Close(); slave.Close() })
	return p
}

func (p *plug) in() *plug {
	p.socket.t.Helper()
	if err := os.Symlink(p.slave.Name(), p.socket.path); err != nil {
		p.socket.t.Fatal(err)
	}
	return p
}

func (p *plug) out() {
	os.Remove(p.socket.path)
	p.master.Close()
	p.slave.Close()
}

// expect reads exactly want from the device's side.
func (p *plug) expect(want string) {
	p.socket.t.Helper()
	_ = p.master.SetReadDeadline(time.Now().Add(5 * time.Second))
	got := make([]byte, len(want))
	if n, err := io.ReadFull(p.master, got); err != nil || string(got) != want {
		p.socket.t.Fatalf("device got %q (%v), want %q", got[:n], err, want)
	}
}

type running struct {
	*Port
	t      *testing.T
	states chan State
	stop   func()
}

// run starts a port; its changes can be awaited one by one.
func run(t *testing.T, cfg Config, log *slog.Logger) *running {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = "device"
	}
	if cfg.Settle == 0 {
		cfg.Settle = 5 * time.Millisecond
	}
	r := &running{Port: New(cfg, log), t: t, states: make(chan State, 1000)}
	r.OnChange(func(s State) { r.states <- s })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func (r *running) next() State {
	r.t.Helper()
	select {
	case s := <-r.states:
		return s
	case <-time.After(5 * time.Second):
		r.t.Fatal("no change of state")
		return State{}
	}
}

func (r *running) until(connected bool) State {
	r.t.Helper()
	for {
		if s := r.next(); s.Connected == connected {
			return s
		}
	}
}

// chunk is the next thing on Bytes, "" for a marker.
func (r *running) chunk() string {
	r.t.Helper()
	select {
	case b := <-r.Bytes():
		return string(b)
	case <-time.After(5 * time.Second):
		r.t.Fatal("no bytes")
		return ""
	}
}

func (r *running) expect(want string) {
	r.t.Helper()
	got := ""
	for len(got) < len(want) {
		got += r.chunk()
	}
	if got != want {
		r.t.Fatalf("read %q, want %q", got, want)
	}
}

func TestDeviceMayBeAbsentAtStart(t *testing.T) {
	s := newSocket(t)
	r := run(t, Config{Path: s.path}, nil)
	if got := r.next(); got.Connected || !strings.HasPrefix(got.Text, "未连接") || got.TextEN == "" {
		t.Fatalf("absent device is %+v", got)
	}
	if n, err := r.Write(t.Context(), []byte("x")); n != 0 || !errors.Is(err, ErrAbsent) {
		t.Fatalf("Write without a device: %d, %v", n, err)
	}
	device := s.plug().in()
	if got := r.next(); !got.Connected || got.Session != 1 || got.Text != "已连接" {
		t.Fatalf("present device is %+v", got)
	}
	if r.chunk() != "" {
		t.Fatal("no marker after opening")
	}
	if n, err := r.Write(t.Context(), []byte("hello")); n != 5 || err != nil {
		t.Fatalf("Write: %d, %v", n, err)
	}
	device.expect("hello")
	device.master.WriteString("answer")
	r.expect("answer")
}

func TestEveryByteValuePassesUnchangedBothWays(t *testing.T) {
	s := newSocket(t)
	device := s.plug().in()
	r := run(t, Config{Path: s.path}, nil)
	r.until(true)
	r.chunk()
	var all [256]byte
	for i := range all {
		all[i] = byte(i)
	}
	if _, err := r.Write(t.Context(), all[:]); err != nil {
		t.Fatal(err)
	}
	device.expect(string(all[:]))
	device.master.Write(all[:])
	r.expect(string(all[:]))
}

func TestUnpluggedAndReplacedAtAnyMoment(t *testing.T) {
	s := newSocket(t)
	r := run(t, Config{Path: s.path}, nil)
	random := rand.New(rand.NewPCG(1, 2))
	writer := make(chan struct{})
	go func() { // somebody is always writing
		defer close(writer)
		for t.Context().Err() == nil {
			if _, err := r.Write(t.Context(), []byte("0123456789")); err != nil {
				select {
				case <-time.After(time.Millisecond):
				case <-t.Context().Done():
				}
			}
		}
	}()
	go func() { // and reading
		for t.Context().Err() == nil {
			select {
			case <-r.Bytes():
			case <-t.Context().Done():
			}
		}
	}()
	var last uint64
	for range 20 {
		device := s.plug().in()
		if got := r.until(true); got.Session != last+1 {
			t.Fatalf("session %d after %d", got.Session, last)
		}
		last++
		device.master.Write(make([]byte, random.IntN(2000)))
		_ = device.master.SetReadDeadline(time.Now().Add(5 * time.Second))
		io.ReadFull(device.master, make([]byte, random.IntN(3000)))
		device.out()
		if got := r.until(false); got.Session != 0 {
			t.Fatalf("lost device has session %d", got.Session)
		}
	}
}

func TestWriteToNobodyTimesOutWithAnHonestCount(t *testing.T) {
	s := newSocket(t)
	device := s.plug().in()
	r := run(t, Config{Path: s.path, WriteTimeout: 50 * time.Millisecond}, nil)
	r.until(true)
	big := make([]byte, 1<<20)
	for i := range big {
		big[i] = byte(i * 7)
	}
	n, err := r.Write(t.Context(), big)
	if !errors.Is(err, ErrTimeout) || n == 0 || n == len(big) {
		t.Fatalf("Write: %d, %v", n, err)
	}
	device.expect(string(big[:n])) // what was counted arrived, and nothing else
	if n, err := r.Write(t.Context(), []byte("after")); n != 5 || err != nil {
		t.Fatalf("Write after a timeout: %d, %v", n, err)
	}
	device.expect("after")
}

func TestWriteEndsWithItsContext(t *testing.T) {
	s := newSocket(t)
	device := s.plug().in()
	r := run(t, Config{Path: s.path, WriteTimeout: time.Hour}, nil)
	r.until(true)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { // cancelled once the device's buffer has something
		device.master.Read(make([]byte, 1))
		cancel()
	}()
	n, err := r.Write(ctx, make([]byte, 1<<20))
	if !errors.Is(err, context.Canceled) || n == 1<<20 {
		t.Fatalf("Write: %d, %v", n, err)
	}
	if _, err := io.CopyN(io.Discard, device.master, int64(n)-1); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Write(t.Context(), []byte("next")); n != 4 || err != nil {
		t.Fatalf("the cancelled context reached the next write: %d, %v", n, err)
	}
	device.expect("next")
}

// The library would write into whatever file owns the descriptor by then.
func TestNothingIsWrittenAfterTheLineIsGone(t *testing.T) {
	s := newSocket(t)
	dir := t.TempDir()
	r := run(t, Config{Path: s.path}, nil)
	go func() {
		for t.Context().Err() == nil {
			select {
			case <-r.Bytes():
			case <-t.Context().Done():
			}
		}
	}()
	var files []*os.File
	for range 10 {
		device := s.plug().in()
		r.until(true)
		var writers sync.WaitGroup
		lost := make(chan struct{})
		for range 4 {
			writers.Go(func() {
				for {
					if _, err := r.Write(t.Context(), []byte("30 bytes that must not get out")); err != nil {
						return
					}
				}
			})
		}
		device.master.Read(make([]byte, 10))
		go func() { device.out(); close(lost) }()
		for range 30 { // takes every descriptor that becomes free
			f, err := os.CreateTemp(dir, "book")
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		<-lost
		r.until(false)
		writers.Wait()
		if n, err := r.Write(t.Context(), []byte("late")); n != 0 || !errors.Is(err, ErrAbsent) {
			t.Fatalf("Write without a device: %d, %v", n, err)
		}
	}
	for _, f := range files {
		if info, err := f.Stat(); err != nil || info.Size() != 0 {
			t.Fatalf("%d bytes landed in an unrelated file (%v)", info.Size(), err)
		}
		f.Close()
	}
}

func TestOneSessionsBytesNeverReachTheNext(t *testing.T) {
	s := newSocket(t)
	device := s.plug().in()
	r := run(t, Config{Path: s.path}, nil)
	first := r.until(true).Session
	if _, err := r.WriteTo(t.Context(), first, []byte("first half")); err != nil {
		t.Fatal(err)
	}
	device.out()
	r.until(false)
	if r.chunk()+r.chunk() != "" {
		t.Fatal("no markers around the first session")
	}
	device = s.plug().in()
	second := r.until(true).Session
	if n, err := r.WriteTo(t.Context(), first, []byte("second half")); n != 0 || !errors.Is(err, ErrAbsent) {
		t.Fatalf("write to a past session: %d, %v", n, err)
	}
	if _, err := r.WriteTo(t.Context(), second, []byte("new")); err != nil {
		t.Fatal(err)
	}
	device.expect("new")
}

func TestBytesFromBeforeTheOpeningAreThrownAway(t *testing.T) {
	s := newSocket(t)
	device := s.plug()
	device.master.WriteString("stale-1\r")
	device.in()
	r := run(t, Config{Path: s.path, Settle: 60 * time.Millisecond}, nil)
	device.master.WriteString("stale-2 without end") // a scanner in the middle of a code
	r.until(true)
	device.master.WriteString("fresh")
	if got := r.chunk(); got != "" {
		t.Fatalf("%q before the marker", got)
	}
	r.expect("fresh")
	r.stop()

	// Nobody reads: what the terminal keeps must not greet the next owner.
	device.master.WriteString("stale-3\r")
	again := run(t, Config{Path: s.path, Settle: 60 * time.Millisecond}, nil)
	again.until(true)
	device.master.WriteString("fresh")
	if got := again.chunk(); got != "" {
		t.Fatalf("%q before the marker", got)
	}
	again.expect("fresh")
}

// chatter is a device that talks for some reads and then falls silent.
type chatter struct {
	device
	reads     int
	deadlines []time.Time
}

func (c *chatter) SetReadDeadline(t time.Time) error {
	c.deadlines = append(c.deadlines, t)
	return nil
}

func (c *chatter) Read(b []byte) (int, error) {
	if c.reads == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	c.reads--
	return copy(b, "x"), nil
}

func TestSettlingWaitsForSilence(t *testing.T) {
	c := &chatter{reads: 7}
	p := New(Config{Settle: time.Minute}, nil)
	before := time.Now()
	if err := p.settle(c); err != nil || c.reads != 0 {
		t.Fatalf("%v with %d reads left", err, c.reads)
	}
	// Each byte begins the silence anew, and the reader then waits without end.
	if n := len(c.deadlines); n != 9 || !c.deadlines[8].IsZero() {
		t.Fatalf("deadlines %v", c.deadlines)
	}
	for _, d := range c.deadlines[:8] {
		if d.Before(before.Add(time.Minute)) {
			t.Fatalf("deadline %v", d)
		}
	}
}

func TestTheLineIsRawAtItsRateAndNotLeftExclusive(t *testing.T) {
	s := newSocket(t)
	device := s.plug().in()
	r := run(t, Config{Path: s.path, Baud: 115200}, nil)
	r.until(true)
	mode, err := unix.IoctlGetTermios(int(device.slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	if mode.Cflag&unix.CBAUD != unix.B115200 {
		t.Errorf("rate %#x", mode.Cflag&unix.CBAUD)
	}
	if mode.Lflag&(unix.ECHO|unix.ICANON|unix.ISIG) != 0 || mode.Oflag&unix.OPOST != 0 {
		t.Errorf("not raw: lflag %#x oflag %#x", mode.Lflag, mode.Oflag)
	}
	if mode.Iflag&(unix.IXON|unix.IXOFF|unix.IXANY) != 0 {
		t.Errorf("the kernel takes part in flow control: iflag %#x", mode.Iflag)
	}
	// TIOCEXCL would outlive a kill of this process on a pseudo-terminal whose
	// simulator lives on, and lock out every successor that is not root.
	exclusive, err := unix.IoctlGetInt(int(device.slave.Fd()), 0x80045440) // TIOCGEXCL
	if err == nil && exclusive != 0 {
		t.Error("the line is left exclusive")
	}
}

func TestOneOwnerAtATimeAlsoForRoot(t *testing.T) {
	s := newSocket(t)
	s.plug().in()
	first := run(t, Config{Path: s.path, Baud: 9600}, nil)
	first.until(true)
	second := run(t, Config{Path: s.path, Baud: 115200}, nil)
	if got := second.next(); got.Connected || got.Text != "被其他程序占用" {
		t.Fatalf("second owner is %+v", got)
	}
	if !first.State().Connected {
		t.Fatal("the second owner disturbed the first")
	}
	first.stop()
	second.until(true)
}

func TestAPlainFileIsNeverWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "book")
	if err := os.WriteFile(path, []byte("money"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := run(t, Config{Path: path}, nil)
	if got := r.next(); got.Text != "该路径不是串口设备" {
		t.Fatalf("a plain file is %+v", got)
	}
	r.Write(t.Context(), []byte("receipt"))
	r.stop()
	if b, _ := os.ReadFile(path); string(b) != "money" {
		t.Fatalf("file is now %q", b)
	}
}

func TestACharacterDeviceThatIsNoLineIsNamed(t *testing.T) {
	r := run(t, Config{Path: "/dev/null"}, nil)
	if got := r.next(); got.Text != "该路径不是串口设备" {
		t.Fatalf("/dev/null is %+v", got)
	}
}

func TestOneLogLineForEachChange(t *testing.T) {
	var out syncBuffer
	s := newSocket(t)
	r := run(t, Config{Name: "scanner", Path: s.path}, slog.New(slog.NewTextHandler(&out, nil)))
	r.until(false)
	for range 3 {
		device := s.plug().in()
		r.until(true)
		device.out()
		r.until(false)
		// Attempts go on in vain; a hint makes one for certain.
		if err := os.WriteFile(s.path+"-other", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		os.Remove(s.path + "-other")
	}
	r.stop()
	if n := strings.Count(out.String(), "device changed"); n != 1+3*2+1 {
		t.Errorf("%d lines:\n%s", n, out.String())
	}
	if n := len(r.states); n != 1 { // "stopped"; all others were taken
		t.Errorf("%d more changes were told", n)
	}
}

func TestRunTwiceIsRefused(t *testing.T) {
	s := newSocket(t)
	r := run(t, Config{Path: s.path}, nil)
	r.until(false)
	if err := r.Run(t.Context()); !errors.Is(err, ErrRunning) {
		t.Fatalf("second Run: %v", err)
	}
}

func TestASlowReaderLosesNothing(t *testing.T) {
	s := newSocket(t)
	device := s.plug().in()
	r := run(t, Config{Path: s.path}, nil)
	r.until(true)
	r.chunk()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 32<<10/16*16) // far more than is kept
	go device.master.Write(sent)
	r.expect(string(sent))
}

func TestALineOverTCP(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	r := run(t, Config{Path: "tcp://" + listener.Addr().String()}, nil)
	for session := range 3 {
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got := r.until(true); got.Session != uint64(session+1) {
			t.Fatalf("session %d", got.Session)
		}
		r.chunk()
		conn.Write([]byte("status"))
		r.expect("status")
		r.Write(t.Context(), []byte("job"))
		got := make([]byte, 3)
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != "job" {
			t.Fatalf("printer got %q, %v", got, err)
		}
		conn.Close()
		r.until(false)
		r.chunk()
	}
}

func TestWatchHintsWhereADeviceMayAppear(t *testing.T) {
	for _, c := range []struct {
		name, path string
		appear     func(dir string) error
	}{
		{"in the directory", "ttyUSB0", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "ttyUSB0"), nil, 0o600)
		}},
		{"with its directory", "serial/by-id/printer", func(dir string) error {
			return os.MkdirAll(filepath.Join(dir, "serial/by-id"), 0o700)
		}},
		{"at the end of a link", "link", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "far/ttyUSB0"), nil, 0o600)
		}},
		{"with its rights", "present", func(dir string) error {
			return os.Chmod(filepath.Join(dir, "present"), 0o660)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			os.Mkdir(filepath.Join(dir, "far"), 0o700)
			os.Symlink("far/ttyUSB0", filepath.Join(dir, "link"))
			os.WriteFile(filepath.Join(dir, "present"), nil, 0o600)
			w := watch(filepath.Join(dir, c.path))
			defer w.close()
			if err := c.appear(dir); err != nil {
				t.Fatal(err)
			}
			select {
			case <-w.hints():
			case <-time.After(5 * time.Second):
				t.Fatal("no hint")
			}
		})
	}
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestEveryTroubleHasItsWords(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want [2]string
	}{
		{"no such device", &os.PathError{Op: "open", Err: unix.ENOENT}, textAbsent},
		{"a driver without its device", &os.PathError{Op: "open", Err: unix.ENXIO}, textAbsent},
		{"a printer server that is switched off", unix.ECONNREFUSED, textAbsent},
		{"no permission", &os.PathError{Op: "open", Err: unix.EACCES}, textDenied},
		{"exclusive for another program", &os.PathError{Op: "open", Err: unix.EBUSY}, textBusy},
		{"locked by another program", fmt.Errorf("open: %w", ErrBusy), textBusy},
		{"vanished", errors.Join(ErrLost, unix.EIO), textLost},
		{"not a line", ErrNotDevice, textNoDevice},
		{"anything else", unix.ENOMEM, textFault},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := words(c.err); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

package simulators

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// lifelineEnv names to the daemon the descriptor of the pipe whose end is its own end.
const lifelineEnv = "POSD_LIFELINE_FD"

// ErrTerminal says that the daemon did not come up.
var ErrTerminal = errors.New("simulators: terminal did not start")

// terminal is the daemon as a child process. Its methods may be called from any number of goroutines; they take turns.
type terminal struct {
	argv []string
	url  string
	out  io.Writer
	log  *slog.Logger

	turn sync.Mutex // one start, kill or stop at a time

	mu    sync.Mutex
	child *child      // nil while there is none
	again []time.Time // when it was started again by itself
	env   []string    // what the next starts believe of the machine's clocks
}

// Pretend makes the daemon believe, from its next start on, that the machine's clock is off by so much, and that the machine
// was started again under this id ("" leaves it).
func (t *terminal) Pretend(wallOff time.Duration, boot string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.env = []string{fmt.Sprintf("%s=%s %s", machineEnv, wallOff, boot)}
}

// machineEnv tells possim's own daemon what to believe of the machine's clocks: a duration, and a boot id.
const machineEnv = "POSSIM_MACHINE"

// child is one life of the daemon.
type child struct {
	cmd      *exec.Cmd
	lifeline *os.File      // its end of the pipe is read by the daemon
	gone     chan struct{} // closed when it has been waited for
	err      error         // how it ended; read it after gone
	kept     bool          // it was ready once, and nobody has ended it: it is started again if it dies; guarded by terminal.mu
}

// A daemon that dies is started again as configs/posd.service has it: after two seconds, and no more often than this. Its
// exit code says nothing: a fault in a mapping ends with 2, as a wrong configuration does.
const (
	againAfter  = 2 * time.Second
	againMost   = 10
	againWithin = 5 * time.Minute
)

func newTerminal(argv []string, url string, out io.Writer, log *slog.Logger) *terminal {
	if out == nil {
		out = io.Discard
	}
	return &terminal{argv: argv, url: url, out: &lines{to: out}, log: log}
}

// TerminalState is what can be seen of the daemon's process.
type TerminalState struct {
	Running bool `json:"running"`
	PID     int  `json:"pid"` // 0 while it does not run
}

// State returns the present state.
func (t *terminal) State() TerminalState {
	c := t.alive()
	if c == nil {
		return TerminalState{}
	}
	return TerminalState{Running: true, PID: c.cmd.Process.Pid}
}

// alive is the running child, or nil.
func (t *terminal) alive() *child {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.child == nil {
		return nil
	}
	select {
	case <-t.child.gone:
		return nil
	default:
		return t.child
	}
}

// Start runs the daemon, unless it runs, and returns when its /readyz answers 200. A daemon that ends before, or takes
// longer than 30 s, is ErrTerminal; the latter is left running, so that one can look.
func (t *terminal) Start(ctx context.Context) error {
	t.turn.Lock()
	defer t.turn.Unlock()
	c := t.alive()
	if c == nil {
		var err error
		if c, err = t.spawn(); err != nil {
			return fmt.Errorf("%w: %w", ErrTerminal, err)
		}
	}
	err := poll(ctx, startLimit, "/readyz does not answer 200", func(ctx context.Context) bool {
		select {
		case <-c.gone:
			return true
		default:
			return t.ready(ctx)
		}
	})
	select {
	case <-c.gone:
		return fmt.Errorf("%w: it ended by itself: %w", ErrTerminal, orUnexpected(c.err))
	default:
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTerminal, err)
	}
	t.keep(true)
	return nil
}

// keep says whether the child is started again when it dies, or is already dead.
func (t *terminal) keep(kept bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.child != nil {
		t.child.kept = kept
	}
}

// revive starts a daemon again that died although nobody had ended it, as the service manager of a real terminal does.
func (t *terminal) revive(dead *child) {
	time.Sleep(againAfter) // what systemd calls RestartSec
	t.turn.Lock()
	defer t.turn.Unlock()
	t.mu.Lock()
	now := time.Now()
	for len(t.again) > 0 && now.Sub(t.again[0]) > againWithin {
		t.again = t.again[1:]
	}
	wanted := t.child == dead && dead.kept && len(t.again) < againMost
	if wanted {
		t.again = append(t.again, now)
	}
	t.mu.Unlock()
	if !wanted {
		t.log.Warn("terminal stays down", "pid", dead.cmd.Process.Pid)
		return
	}
	if _, err := t.spawn(); err != nil {
		t.log.Error("terminal not started again", "err", err)
		return
	}
	t.keep(true)
}

func (t *terminal) spawn() (*child, error) {
	if len(t.argv) == 0 || t.argv[0] == "" {
		return nil, errors.New("no command to run the daemon")
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make lifeline: %w", err)
	}
	defer read.Close()
	cmd := exec.Command(t.argv[0], t.argv[1:]...)
	t.mu.Lock()
	cmd.Env = append(append(os.Environ(), lifelineEnv+"=3"), t.env...)
	t.mu.Unlock()
	cmd.ExtraFiles = []*os.File{read} // descriptor 3
	cmd.Stdout, cmd.Stderr = t.out, t.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the world, which stops it in its turn
	if err := cmd.Start(); err != nil {
		write.Close()
		return nil, fmt.Errorf("run daemon: %w", err)
	}
	c := &child{cmd: cmd, lifeline: write, gone: make(chan struct{})}
	go func() {
		c.err = cmd.Wait()
		c.lifeline.Close()
		close(c.gone)
		t.log.Info("terminal ended", "pid", cmd.Process.Pid, "status", cmd.ProcessState.String())
		t.mu.Lock()
		kept := c.kept
		t.mu.Unlock()
		if kept {
			t.revive(c)
		}
	}()
	t.mu.Lock()
	t.child = c
	t.mu.Unlock()
	t.log.Info("terminal started", "pid", cmd.Process.Pid)
	return c, nil
}

// Kill ends the daemon as a power cut does, and returns when the process is gone.
func (t *terminal) Kill() error {
	t.turn.Lock()
	defer t.turn.Unlock()
	t.keep(false)
	c := t.alive()
	if c == nil {
		return nil
	}
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill terminal: %w", err)
	}
	<-c.gone
	return nil
}

// Stop lets the daemon end in order; after ten seconds it is killed, and that is an error.
func (t *terminal) Stop() error {
	t.turn.Lock()
	defer t.turn.Unlock()
	t.keep(false)
	c := t.alive()
	if c == nil {
		return nil
	}
	c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.gone:
		return nil
	case <-time.After(stopLimit):
	}
	c.cmd.Process.Kill()
	<-c.gone
	return fmt.Errorf("stop terminal: it was still running after %s", stopLimit)
}

// ready asks /readyz.
func (t *terminal) ready(ctx context.Context) bool {
	return get(ctx, t.url+"/readyz", "", nil) == nil
}

// get asks for a page, wants 200, and reads JSON into out unless it is nil.
func get(ctx context.Context, url, token string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask terminal: %w", err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("ask terminal: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("ask terminal: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask terminal: status %d", resp.StatusCode)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(body, out)
}

// awaitReady waits until the terminal says that its line is up and its devices are attached.
func (w *World) awaitReady(ctx context.Context) error {
	var missing string
	err := poll(ctx, linkLimit, "the line is not up or a device is not attached", func(ctx context.Context) bool {
		missing = w.missing(ctx)
		return missing == ""
	})
	if err != nil {
		return fmt.Errorf("%w: %w (%s)", ErrTerminal, err, missing)
	}
	return nil
}

// missing names what the terminal still lacks.
func (w *World) missing(ctx context.Context) string {
	var answer struct {
		Link struct {
			State  string `json:"state"`
			Reason string `json:"reason"`
		} `json:"link"`
		Devices []struct {
			Kind  string `json:"kind"`
			State string `json:"state"`
		} `json:"devices"`
		Offline struct {
			OK      bool     `json:"ok"`
			Missing []string `json:"missing"`
		} `json:"offline_ready"`
	}
	if err := get(ctx, w.addresses.Till+"/v1/terminal", w.addresses.Token, &answer); err != nil {
		return err.Error()
	}
	if answer.Link.State != "up" {
		return "link " + answer.Link.State + " " + answer.Link.Reason
	}
	attached := map[string]string{}
	for _, d := range answer.Devices {
		attached[d.Kind] = d.State
	}
	for _, kind := range []string{"scanner", "printer", "display"} {
		if s := attached[kind]; s != "ok" && s != "connected" {
			return kind + " " + s
		}
	}
	if !answer.Offline.OK { // the first signed news and the time come in the moments after the line is up
		return "not ready to sell offline: " + strings.Join(answer.Offline.Missing, " ")
	}
	return ""
}

// lines marks the daemon's lines, so that they can be told from the world's own.
type lines struct {
	mu   sync.Mutex
	to   io.Writer
	part []byte
}

const maxLogLine = 64 << 10

// Write takes what the daemon says, in pieces of any size.
func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.part = append(l.part, b...)
	for {
		n, line, err := bufio.ScanLines(l.part, len(l.part) > maxLogLine)
		if err != nil || n == 0 {
			return len(b), err
		}
		fmt.Fprintf(l.to, "posd| %s\n", line)
		l.part = l.part[n:]
	}
}

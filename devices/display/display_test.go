package display

import (
	"bufio"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"yupos/devices/serial"
)

// screen is the customer's screen on a real pseudo-terminal.
type screen struct {
	*Display
	t             *testing.T
	link          string
	master, slave *os.File
	lines         chan string
	changes       chan serial.State
}

func newScreen(t *testing.T, writeTimeout time.Duration) *screen {
	t.Helper()
	link := filepath.Join(t.TempDir(), "display")
	port := serial.New(serial.Config{Name: "display", Path: link, Settle: time.Millisecond, WriteTimeout: writeTimeout}, nil)
	s := &screen{
		Display: New(Config{Retry: 10 * time.Millisecond}, port, nil), t: t, link: link,
		lines: make(chan string, 1000), changes: make(chan serial.State, 100),
	}
	port.OnChange(func(state serial.State) { s.changes <- state })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

func (s *screen) plug() {
	s.t.Helper()
	var err error
	if s.master, s.slave, err = pty.Open(); err != nil {
		s.t.Fatal(err)
	}
	master, slave := s.master, s.slave
	s.t.Cleanup(func() { master.Close(); slave.Close() })
	if err := os.Symlink(s.slave.Name(), s.link); err != nil {
		s.t.Fatal(err)
	}
	s.until(true)
}

func (s *screen) until(connected bool) {
	s.t.Helper()
	for {
		select {
		case state := <-s.changes:
			if state.Connected == connected {
				return
			}
		case <-time.After(5 * time.Second):
			s.t.Fatal("no change of state")
		}
	}
}

// read takes lines from the screen's side until one begins with last.
func (s *screen) read(last string) []string {
	s.t.Helper()
	var got []string
	found := make(chan bool, 1)
	go func() {
		in := bufio.NewReader(s.master)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				found <- false
				return
			}
			got = append(got, strings.TrimSuffix(line, "\n"))
			if strings.HasPrefix(line, last) {
				found <- true
				return
			}
		}
	}()
	select {
	case ok := <-found:
		if !ok {
			s.t.Fatalf("screen got %q", got)
		}
		return got
	case <-time.After(5 * time.Second):
		s.t.Fatalf("screen never got %q", last)
		return nil
	}
}

func TestLinesOfTheStates(t *testing.T) {
	for _, c := range []struct {
		name, from string
		show       Show
		want       string
	}{
		{"idle", "", Show{State: Idle, Shop: "渝中小面"}, "WelcomeScreen**渝中小面\n"},
		{"amount", Idle, Show{State: Amount, AmountFen: 1250}, "DisplayAmountScreen**12.50\n"},
		{"amount as given", Idle, Show{State: Amount, AmountFen: 1, AmountText: "12.50"}, "DisplayAmountScreen**12.50\n"},
		{"code", Amount, Show{State: Code, AmountFen: 1250, Code: "0002015802CN", TradeTail: "ABCDEFGH"}, "DisplayQRCodeScreen**0002015802CN**12.50**ABCDEFGH\n"},
		{"confirm", Code, Show{State: Confirm, AmountFen: 5}, "DisplayConfirmScreen**0.05\n"},
		{"paid", Code, Show{State: Paid, AmountFen: 100}, "DisplaySuccessQRCodeScreen**1.00\n"},
		{"failed", Code, Show{State: Failed, AmountFen: 100}, "DisplayFailQRCodeScreen**1.00\n"},
		{"paused", Idle, Show{State: Paused}, "DisplayPausedScreen\n"},
		{"an unknown state is idle", "", Show{State: "x", Shop: "s"}, "WelcomeScreen**s\n"},
		{"a code is taken away before the welcome", Code, Show{State: Idle, Shop: "s"}, "DisplayCancelQRCodeScreen\nWelcomeScreen**s\n"},
		{"a code is taken away before the next amount", Code, Show{State: Amount}, "DisplayCancelQRCodeScreen\nDisplayAmountScreen**0.00\n"},
		{"a code that the protocol can not say is not shown", Code, Show{State: Code, Code: "A**B", AmountFen: 1}, "DisplayCancelQRCodeScreen\nDisplayAmountScreen**0.01\n"},
		{"a name can not forge a command", "", Show{State: Idle, Shop: "a\nDisplaySuccessQRCodeScreen**9.99\r\n"}, "WelcomeScreen**aDisplaySuccessQRCodeScreen*9.99\n"},
		{"a name can not forge a field", "", Show{State: Idle, Shop: "***a***b**"}, "WelcomeScreen**a*b\n"},
		{"a name is cut between characters", "", Show{State: Idle, Shop: "a" + strings.Repeat("面", 400)}, "WelcomeScreen**a" + strings.Repeat("面", 170) + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := encode(c.from, c.show); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func FuzzNoFieldIsEverACommand(f *testing.F) {
	f.Add("渝中小面", "00020101", "1.00")
	f.Add("a\n**", "**\r", "*")
	f.Fuzz(func(t *testing.T, shop, code, amount string) {
		got := encode("", Show{State: Code, Code: code, AmountText: amount, TradeTail: shop})
		fields := strings.Split(strings.TrimSuffix(got, "\n"), "**")
		switch {
		case strings.ContainsAny(strings.Join(fields, ""), "\r\n\x00"):
			t.Errorf("%q", got)
		case len(fields) == 4 && fields[0] == "DisplayQRCodeScreen" && fields[1] == code && code != "":
		case len(fields) == 2 && fields[0] == "DisplayAmountScreen":
		default:
			t.Errorf("%q", got)
		}
	})
}

func TestTheScreenFollows(t *testing.T) {
	s := newScreen(t, 0)
	s.plug()
	s.Set(Show{State: Idle, Shop: "渝中小面"})
	s.read("WelcomeScreen**渝中小面")
	s.Set(Show{State: Code, AmountFen: 1250, Code: "CODE", TradeTail: "12345678"})
	s.read("DisplayQRCodeScreen**CODE**12.50**12345678")
	s.Set(Show{State: Paid, AmountFen: 1250})
	s.read("DisplaySuccessQRCodeScreen**12.50")
}

func TestTheLastStateIsSentAgainAfterReconnection(t *testing.T) {
	s := newScreen(t, 0)
	s.Set(Show{State: Idle, Shop: "one"}) // nobody is there yet
	s.Set(Show{State: Amount, AmountFen: 300})
	s.plug()
	if got := s.read("DisplayAmountScreen"); len(got) != 1 {
		t.Errorf("also got %q", got)
	}
	os.Remove(s.link)
	s.master.Close()
	s.slave.Close()
	s.until(false)
	s.Set(Show{State: Code, Code: "OLD"})
	s.Set(Show{State: Paid, AmountFen: 300})
	s.plug()
	if got := s.read("DisplaySuccessQRCodeScreen**3.00"); len(got) != 1 {
		t.Errorf("also got %q", got)
	}
}

func TestSetNeverBlocksAndTheLastOneWins(t *testing.T) {
	s := newScreen(t, 20*time.Millisecond)
	s.plug()
	begin := time.Now()
	for range 10000 { // the screen takes nothing
		s.Set(Show{State: Code, Code: strings.Repeat("C", 300)})
	}
	s.Set(Show{State: Paid, AmountFen: 777})
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
	s.read("DisplaySuccessQRCodeScreen**7.77")
}

func TestALineCutByATimeoutIsNotJoinedToTheNext(t *testing.T) {
	s := newScreen(t, 20*time.Millisecond)
	s.plug()
	// Fills the terminal until a line does not go through whole.
	for !s.stuck() {
		s.Set(Show{State: Code, Code: strings.Repeat("C", 500)})
	}
	s.Set(Show{State: Paid, AmountFen: 888})
	got := s.read("DisplaySuccessQRCodeScreen**8.88")
	for _, line := range got {
		if strings.Count(line, "Screen") > 1 {
			t.Errorf("joined: %q", line)
		}
	}
}

// stuck says whether the screen takes no more.
func (s *screen) stuck() bool {
	_, err := s.port.Write(s.t.Context(), []byte("\n"))
	return errors.Is(err, serial.ErrTimeout)
}

func TestAnUnknownProfileIsRefused(t *testing.T) {
	d := New(Config{Profile: "braille"}, serial.New(serial.Config{}, nil), nil)
	if err := d.Run(t.Context()); !errors.Is(err, ErrProfile) {
		t.Errorf("got %v", err)
	}
}

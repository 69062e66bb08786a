// Package displaysim is a customer's screen with a serial line: it reads the line protocol of such screens (one command a
// line, fields after "**", UTF-8, LF) and remembers what a customer would see.
//
// Guarantees: only a whole, well-formed line changes the screen; a line that is none is counted and quoted, never guessed
// at; a screen that comes back after it was pulled out shows nothing of before.
//
// Duties of the caller: run [Display.Run].
package displaysim

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"yupos/simulators/ptylink"
)

// The states of a screen.
const (
	Idle    = "idle"
	Amount  = "amount"
	Code    = "code"
	Confirm = "confirm"
	Paid    = "paid"
	Failed  = "failed"
	Paused  = "paused"
)

const maxLine = 2048 // bytes; the longest command is a code of 328 characters with an amount

// Screen is what a customer sees.
type Screen struct {
	State     string `json:"state"`
	AmountFen int64  `json:"amount_fen"` // 0 where no amount is shown
	CodeText  string `json:"code_text"`  // what a phone would read off the screen
	Shop      string `json:"shop"`       // the name under which it welcomes
	TradeTail string `json:"trade_tail"`
}

// State is a screen and how the line behind it does.
type State struct {
	Screen
	Connected bool   `json:"connected"`
	Lines     int    `json:"lines"`  // commands obeyed
	Errors    int    `json:"errors"` // lines that were none
	LastError string `json:"last_error"`
}

// Display is one screen. Its methods may be called from any number of goroutines.
type Display struct {
	link *ptylink.Link

	mu    sync.Mutex
	state State
	part  []byte // of a line
	skip  bool   // until the end of a line that is too long
}

// New makes a screen, not plugged in, that will be published at path.
func New(path string) *Display {
	return &Display{link: ptylink.New(path), state: State{Screen: Screen{State: Idle}}}
}

// Run plugs the screen in and reads its line until ctx ends.
func (d *Display) Run(ctx context.Context) error {
	if err := d.link.Connect(); err != nil {
		return fmt.Errorf("display: %w", err)
	}
	return d.link.Run(ctx, d.Feed)
}

// SetConnected plugs the screen in, dark, or pulls it out.
func (d *Display) SetConnected(connected bool) error {
	if connected == d.link.Connected() {
		return nil
	}
	d.mu.Lock()
	d.state.Screen, d.part, d.skip = Screen{State: Idle}, nil, false
	d.mu.Unlock()
	if connected {
		return d.link.Connect()
	}
	return d.link.Disconnect()
}

// State returns what is shown now.
func (d *Display) State() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.state
	s.Connected = d.link.Connected()
	return s
}

// Feed takes bytes as the line brings them, in pieces of any size.
func (d *Display) Feed(b []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(b) > 0 {
		end := bytes.IndexByte(b, '\n')
		piece, rest := b, []byte(nil)
		if end >= 0 {
			piece, rest = b[:end], b[end+1:]
		}
		d.take(piece)
		if end >= 0 {
			d.endLine()
		}
		b = rest
	}
}

func (d *Display) take(piece []byte) {
	if d.skip {
		return
	}
	d.part = append(d.part, piece...)
	if len(d.part) > maxLine {
		d.part, d.skip = nil, true
		d.fail("a line of more than 2048 bytes")
	}
}

func (d *Display) endLine() {
	line := string(d.part)
	skipped := d.skip
	d.part, d.skip = d.part[:0], false
	if skipped {
		return
	}
	screen, err := parse(line)
	if err != nil {
		d.fail(err.Error())
		return
	}
	d.state.Screen = screen
	d.state.Lines++
}

func (d *Display) fail(text string) {
	d.state.Errors++
	d.state.LastError = text
}

// words are the commands that carry nothing but an amount, or nothing at all.
var words = map[string]struct {
	state  string
	amount bool
}{
	"DisplayAmountScreen":        {Amount, true},
	"DisplayConfirmScreen":       {Confirm, true},
	"DisplaySuccessQRCodeScreen": {Paid, true},
	"DisplayFailQRCodeScreen":    {Failed, true},
	"DisplayCancelQRCodeScreen":  {Idle, false},
	"DisplayPausedScreen":        {Paused, false},
}

// parse reads one line.
func parse(line string) (Screen, error) {
	if !utf8.ValidString(line) {
		return Screen{}, fmt.Errorf("a line that is not UTF-8: %q", short(line))
	}
	word, rest, has := strings.Cut(line, "**")
	if c, ok := words[word]; ok {
		if has != c.amount {
			return Screen{}, fmt.Errorf("wrong fields: %q", short(line))
		}
		s := Screen{State: c.state}
		var err error
		if c.amount {
			s.AmountFen, err = fen(rest)
		}
		return s, err
	}
	switch {
	case word == "WelcomeScreen" && has:
		return Screen{State: Idle, Shop: rest}, nil
	case word == "DisplayQRCodeScreen" && has:
		return parseCode(rest)
	}
	return Screen{}, fmt.Errorf("unknown command: %q", short(line))
}

// parseCode reads code, amount and the end of a trade number. The last two have no stars of their own: whatever stands
// before them is the code, so that a shop with "**" in its name can still be paid.
func parseCode(rest string) (Screen, error) {
	fields := strings.Split(rest, "**")
	if len(fields) < 3 {
		return Screen{}, fmt.Errorf("a code without amount or number")
	}
	n := len(fields)
	s := Screen{State: Code, CodeText: strings.Join(fields[:n-2], "**"), TradeTail: fields[n-1]}
	var err error
	if s.AmountFen, err = fen(fields[n-2]); err != nil {
		return Screen{}, err
	}
	if s.CodeText == "" {
		return Screen{}, fmt.Errorf("an empty code")
	}
	return s, nil
}

var amountForm = regexp.MustCompile(`^(0|[1-9][0-9]{0,7})\.([0-9]{2})$`)

// fen reads an amount the way the protocol writes it: yuan with exactly two decimals.
func fen(text string) (int64, error) {
	m := amountForm.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("not an amount: %q", short(text))
	}
	return strconv.ParseInt(m[1]+m[2], 10, 64)
}

func short(s string) string {
	if len(s) > 40 {
		return s[:40]
	}
	return s
}

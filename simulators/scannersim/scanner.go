// Package scannersim is a barcode scanner on a pseudo-terminal: what is scanned leaves as the bytes a serial scanner sends,
// the text of the code and a terminator.
//
// Guarantees: one scan is one contiguous run of bytes; a scan that could not leave whole is an error, never silence; a
// scanner that is pulled out and put in again forgets what nobody read.
//
// Duties of the caller: run [Scanner.Run].
package scannersim

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"yupos/simulators/ptylink"
)

// MaxText is the most that a QR code holds (ISO/IEC 18004, version 40, level L, bytes of 7 bits as scanners send them).
const MaxText = 4296

// Errors of a scan.
var (
	// ErrDisconnected says that the scanner is not plugged in.
	ErrDisconnected = errors.New("scannersim: scanner is not connected")
	// ErrText refuses a text that no code could hold: none at all, or more than 4,296 bytes.
	ErrText = errors.New("scannersim: no code has this text")
)

// Options describe the scanner.
type Options struct {
	Path       string // where the line is published
	Prefix     string // before each text; an AIM identifier, for instance
	Terminator string // after each text; "" means CR, the default of serial scanners
}

// Scanner is one scanner. Its methods may be called from any number of goroutines.
type Scanner struct {
	options Options
	link    *ptylink.Link

	mu       sync.Mutex // one scan at a time
	scans    int
	commands int // bytes that the host sent
}

// New makes a scanner that is not plugged in.
func New(o Options) *Scanner {
	if o.Terminator == "" {
		o.Terminator = "\r"
	}
	return &Scanner{options: o, link: ptylink.New(o.Path)}
}

// Run plugs the scanner in and serves its line until ctx ends.
func (s *Scanner) Run(ctx context.Context) error {
	if err := s.link.Connect(); err != nil {
		return fmt.Errorf("scanner: %w", err)
	}
	return s.link.Run(ctx, func(b []byte) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.commands += len(b) // a plain scanner obeys nothing; that it was spoken to is worth knowing
	})
}

// Scan reads a code: its text and the terminator leave the line.
func (s *Scanner) Scan(text string) error {
	if text == "" || len(text) > MaxText {
		return ErrText
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.link.Write([]byte(s.options.Prefix + text + s.options.Terminator))
	if errors.Is(err, ptylink.ErrUnplugged) {
		return ErrDisconnected
	}
	if err != nil {
		return fmt.Errorf("scan: %w", err)
	}
	s.scans++
	return nil
}

// SetConnected plugs the scanner in or pulls it out, after its last bytes were read or 300 ms.
func (s *Scanner) SetConnected(connected bool) error {
	if connected {
		return s.link.Connect()
	}
	return s.link.Disconnect()
}

// State is what can be seen of a scanner.
type State struct {
	Connected bool `json:"connected"`
	Scans     int  `json:"scans"`
	HostBytes int  `json:"host_bytes"` // received from the terminal
}

// State returns the present state.
func (s *Scanner) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return State{Connected: s.link.Connected(), Scans: s.scans, HostBytes: s.commands}
}

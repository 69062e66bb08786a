package scannersim

import (
	"bufio"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func started(t *testing.T, o Options) *Scanner {
	t.Helper()
	o.Path = filepath.Join(t.TempDir(), "scanner")
	s := New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	for end := time.Now().Add(5 * time.Second); !s.State().Connected; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the scanner does not come up")
		}
	}
	return s
}

func host(t *testing.T, s *Scanner) *os.File {
	t.Helper()
	f, err := os.OpenFile(s.options.Path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestAScanLeavesAsTextAndTerminator(t *testing.T) {
	for name, c := range map[string]struct {
		o    Options
		end  byte
		want string
	}{
		"as it comes from the factory":   {Options{}, '\r', "861234567890123459\r"},
		"with line feed":                 {Options{Terminator: "\r\n"}, '\n', "861234567890123459\r\n"},
		"with the identifier of a QR":    {Options{Prefix: "]Q1"}, '\r', "]Q1861234567890123459\r"},
		"between start and end of text":  {Options{Prefix: "\x02", Terminator: "\x03"}, 3, "\x02861234567890123459\x03"},
		"ended by a tabulator character": {Options{Terminator: "\t"}, '\t', "861234567890123459\t"},
	} {
		t.Run(name, func(t *testing.T) {
			s := started(t, c.o)
			line := bufio.NewReader(host(t, s))
			for range 2 {
				if err := s.Scan("861234567890123459"); err != nil {
					t.Fatal(err)
				}
				if got, err := line.ReadString(c.end); got != c.want || err != nil {
					t.Errorf("%q, %v", got, err)
				}
			}
			if st := s.State(); st.Scans != 2 {
				t.Errorf("%+v", st)
			}
		})
	}
}

func TestWhatCannotBeScannedIsRefused(t *testing.T) {
	s := started(t, Options{})
	for _, text := range []string{"", strings.Repeat("1", MaxText+1)} {
		if err := s.Scan(text); !errors.Is(err, ErrText) {
			t.Errorf("%d bytes: %v", len(text), err)
		}
	}
	if err := s.SetConnected(false); err != nil {
		t.Fatal(err)
	}
	if err := s.Scan("1"); !errors.Is(err, ErrDisconnected) {
		t.Errorf("without its plug: %v", err)
	}
	if err := s.SetConnected(true); err != nil {
		t.Fatal(err)
	}
	line := bufio.NewReader(host(t, s))
	if err := s.Scan("2"); err != nil {
		t.Fatal(err)
	}
	if got, _ := line.ReadString('\r'); got != "2\r" {
		t.Errorf("%q", got)
	}
}

package ptylink

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func started(t *testing.T) (*Link, <-chan string) {
	t.Helper()
	l := New(filepath.Join(t.TempDir(), "dev", "device"))
	got := make(chan string, 16)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx, func(b []byte) { got <- string(b) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
		if _, err := os.Lstat(l.Path()); err == nil {
			t.Error("the name outlives the device")
		}
	})
	if err := l.Connect(); err != nil {
		t.Fatal(err)
	}
	return l, got
}

func receive(t *testing.T, got <-chan string) string {
	t.Helper()
	select {
	case s := <-got:
		return s
	case <-time.After(5 * time.Second):
		t.Fatal("nothing arrived")
		return ""
	}
}

func TestBytesGoBothWaysUntouched(t *testing.T) {
	l, got := started(t)
	host, err := os.OpenFile(l.Path(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	if _, err := host.Write(all); err != nil {
		t.Fatal(err)
	}
	arrived := ""
	for len(arrived) < len(all) {
		arrived += receive(t, got)
	}
	if arrived != string(all) {
		t.Errorf("the device got %x", arrived)
	}
	if n, err := l.Write(all); n != len(all) || err != nil {
		t.Fatal(n, err)
	}
	back := make([]byte, len(all))
	if _, err := io.ReadFull(host, back); err != nil || string(back) != string(all) {
		t.Errorf("the host got %x, %v", back, err)
	}
}

func TestAPulledPlugTakesItsNameAwayAndComesBackFresh(t *testing.T) {
	l, got := started(t)
	for range 3 {
		before, _ := os.Readlink(l.Path())
		if err := l.Disconnect(); err != nil {
			t.Fatal(err)
		}
		if l.Connected() {
			t.Error("still connected")
		}
		if _, err := os.Lstat(l.Path()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the name of %s is still there: %v", before, err)
		}
		if _, err := l.Write([]byte("x")); !errors.Is(err, ErrUnplugged) {
			t.Errorf("a write without a plug: %v", err)
		}
		if err := l.Connect(); err != nil {
			t.Fatal(err)
		}
		host, err := os.OpenFile(l.Path(), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		host.WriteString("again")
		if s := receive(t, got); s != "again" {
			t.Errorf("got %q", s)
		}
		host.Close()
	}
}

func TestTheLastBytesAreReadBeforeTheLineGoesAway(t *testing.T) {
	l, _ := started(t)
	host, err := os.OpenFile(l.Path(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	l.Write([]byte("last words"))
	gone := make(chan error, 1)
	go func() { gone <- l.Disconnect() }()
	b := make([]byte, 10)
	if _, err := io.ReadFull(host, b); err != nil || string(b) != "last words" {
		t.Errorf("%q, %v", b, err)
	}
	if err := <-gone; err != nil {
		t.Error(err)
	}
	if n, err := host.Read(b); n != 0 || err == nil {
		t.Errorf("the line still gives %q", b[:n])
	}
}

func TestWhatIsNotALinkIsNeverReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "device")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := New(path).Connect(); err == nil {
		t.Error("a file was replaced")
	}
	if b, _ := os.ReadFile(path); string(b) != "mine" {
		t.Errorf("the file holds %q", b)
	}
}

package displaysim

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestEachLineIsAScreen(t *testing.T) {
	for line, want := range map[string]Screen{
		"WelcomeScreen**渝中小面":                         {State: Idle, Shop: "渝中小面"},
		"DisplayAmountScreen**12.50":                  {State: Amount, AmountFen: 1250},
		"DisplayQRCodeScreen**00020101**0.01**ABCD12": {State: Code, AmountFen: 1, CodeText: "00020101", TradeTail: "ABCD12"},
		"DisplayQRCodeScreen**A**B**12345678.90**XY":  {State: Code, AmountFen: 1234567890, CodeText: "A**B", TradeTail: "XY"},
		"DisplayConfirmScreen**1000.00":               {State: Confirm, AmountFen: 100000},
		"DisplaySuccessQRCodeScreen**12.50":           {State: Paid, AmountFen: 1250},
		"DisplayFailQRCodeScreen**12.50":              {State: Failed, AmountFen: 1250},
		"DisplayCancelQRCodeScreen":                   {State: Idle},
		"DisplayPausedScreen":                         {State: Paused},
	} {
		d := New("")
		for i := range len(line) { // byte by byte
			d.Feed([]byte{line[i]})
			if d.State().Lines != 0 {
				t.Fatalf("%q acts before its end", line[:i])
			}
		}
		d.Feed([]byte("\n"))
		if got := d.State(); got.Screen != want || got.Errors != 0 || got.Lines != 1 {
			t.Errorf("%s: %+v", line, got)
		}
	}
}

func TestALineThatIsNoneChangesNothingAndIsCounted(t *testing.T) {
	for _, line := range []string{
		"", "Hello", "DisplayAmountScreen", "DisplayAmountScreen**", "DisplayAmountScreen**12.5", "DisplayAmountScreen**-1.00",
		"DisplayAmountScreen**01.00", "DisplayAmountScreen**1.00**2", "DisplayPausedScreen**", "DisplayPausedScreen\r",
		"DisplayQRCodeScreen**code**1.00", "DisplayQRCodeScreen****1.00**x", "WelcomeScreen", "WelcomeScreen**\xff",
		"DisplayAmountScreen**123456789.00", strings.Repeat("x", 5000),
	} {
		d := New("")
		d.Feed([]byte("DisplayAmountScreen**12.50\n" + line + "\n"))
		if got := d.State(); got.State != Amount || got.AmountFen != 1250 || got.Errors != 1 || got.LastError == "" {
			t.Errorf("%q: %+v", short(line), got)
		}
		d.Feed([]byte("DisplayPausedScreen\n"))
		if got := d.State(); got.State != Paused {
			t.Errorf("after %q: %+v", short(line), got)
		}
	}
}

func TestTheScreenIsDarkAfterItsPlugWasPulled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "display")
	d := New(path)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx) }()
	defer func() { cancel(); <-done }()
	until(t, func() bool { return d.State().Connected })
	for range 2 {
		host, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		host.WriteString("DisplayPausedScreen\nDisplayAm")
		until(t, func() bool { return d.State().State == Paused })
		d.SetConnected(false)
		if s := d.State(); s.State != Idle || s.Connected {
			t.Errorf("%+v", s)
		}
		if err := d.SetConnected(true); err != nil {
			t.Fatal(err)
		}
		host.Close()
	}
}

func until(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not happen")
		}
	}
}

func FuzzALineNeverBreaksTheScreen(f *testing.F) {
	f.Add([]byte("DisplayQRCodeScreen**A**1.00**B\n"))
	f.Add([]byte("WelcomeScreen**\xff\n**\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := New("")
		d.Feed(b)
		if s := d.State(); s.AmountFen < 0 || len(d.part) > maxLine || (s.State == Code) != (s.CodeText != "") {
			t.Errorf("%+v", s)
		}
	})
}

package printersim

import (
	"bytes"
	"context"
	"encoding/hex"
	"flag"
	"image"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/text/encoding/simplifiedchinese"

	"yupos/devices/paycode"
)

var update = flag.Bool("update", false, "write the golden files anew")

// gb encodes Chinese text.
func gb(t testing.TB, s string) string {
	t.Helper()
	out, err := simplifiedchinese.GB18030.NewEncoder().String(s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func quiet() *Printer { return New(Options{IdleGap: time.Hour}) }

// replies are the bytes that have gone to the host.
func (p *Printer) said() string {
	var out []byte
	for {
		select {
		case b := <-p.replies:
			out = append(out, b...)
		default:
			return hex.EncodeToString(out)
		}
	}
}

func qr(text string, dots int) string {
	n := len(text) + 3
	return "\x1d(k\x04\x001A2\x00\x1d(k\x03\x001C" + raw(dots) + "\x1d(k\x03\x001E1\x1d(k" + raw(n, n>>8) + "1P0" + text + "\x1d(k\x03\x001Q0"
}

// raw makes bytes of numbers.
func raw(numbers ...int) string {
	var out []byte
	for _, n := range numbers {
		out = append(out, byte(n))
	}
	return string(out)
}

func slip(t testing.TB) string {
	return "\x1b@\x1c&\x1ba\x01\x1d!\x11" + gb(t, "渝中小面") + "\n\x1d!\x00\x1ba\x00" +
		gb(t, "订单 Order: A0001") + "\n" + gb(t, "合计") + "\x1b$\x90\x01" + "\x1bE\x01" + gb(t, "￥12.50") + "\x1bE\x00\n" +
		"\x1d!\x11\x1ba\x01" + gb(t, "收款成功") + "\n\x1d!\x00" + qr("01JABCDEFGHJKMNPQRSTVWXYZ0", 6) + "\x1ba\x00\x1bd\x03\x1dV\x42\x00"
}

const slipText = "渝中小面\n订单 Order: A0001\n合计                             ￥12.50\n收款成功"

func TestASlipBecomesTextCodesAndAPicture(t *testing.T) {
	for name, piece := range map[string]int{"in one piece": 1 << 20, "byte by byte": 1, "in sevens": 7} {
		p := quiet()
		for b := range slices.Chunk([]byte(slip(t)), piece) {
			p.Feed(b)
		}
		list := p.Receipts()
		if len(list) != 1 || p.State().Errors != 0 {
			t.Fatalf("%s: %d receipts, %+v", name, len(list), p.State())
		}
		r := list[0]
		if r.Text != slipText || !slices.Equal(r.QR, []string{"01JABCDEFGHJKMNPQRSTVWXYZ0"}) || !r.Cut || r.Drawer || r.N != 1 {
			t.Errorf("%s: %+v\n%s", name, r, r.Text)
		}
		golden(t, "slip.png", r)
		text, symbology, err := paycode.ReadImage(r.Image())
		if err != nil || text != "01JABCDEFGHJKMNPQRSTVWXYZ0" {
			t.Errorf("%s: the picture reads %q %s %v", name, text, symbology, err)
		}
	}
}

// golden compares the dots of a receipt with a picture.
func golden(t *testing.T, name string, r Receipt) {
	t.Helper()
	path := filepath.Join("testdata", name)
	got, err := r.Picture()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		os.MkdirAll("testdata", 0o755)
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	stored, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := png.Decode(bytes.NewReader(stored))
	if err != nil {
		t.Fatal(err)
	}
	if w, ok := want.(*image.Paletted); !ok || !bytes.Equal(w.Pix, r.Image().Pix) {
		t.Errorf("%s: other dots", name)
	}
}

func TestStyles(t *testing.T) {
	p := quiet()
	p.Feed([]byte("plain\x1bE\x01bold\x1bE\x00\x1b-\x02under\x1b-\x00\x1dB\x01invert\x1dB\x00\n" +
		"\x1d!\x10wide\x1d!\x01tall\x1d!\x00\x1b!\x30both\x1b!\x00\x1bM\x01fontb\x1bM\x00\n" +
		"\x1c-\x01" + gb(t, "下划线") + "\x1c-\x00\x1c!\x0c" + gb(t, "大字") + "\x1c!\x00\n" +
		"\x1ba\x02right\n\x1ba\x01centre\n\x1ba\x00\x1b3\x50far\x1b2\nnear\tx\tyy\n\x1c.\xc4\xc4\xc4\x1c&\n" + gb(t, "鼗㐀") + "\x1dV\x00"))
	r := p.Receipts()[0]
	want := "plainboldunderinvert\nwidetallbothfontb\n下划线大字\nright\ncentre\nfar\nnear    x       yy\n───\n鼗㐀"
	if r.Text != want || p.State().Errors != 0 {
		t.Errorf("%s\n%+v", r.Text, p.State())
	}
	golden(t, "styles.png", r)
}

func TestAFullLineGoesOnInTheNext(t *testing.T) {
	p := quiet()
	p.Feed([]byte(strings.Repeat("x", 49) + "\n" + gb(t, strings.Repeat("字", 25)) + "\n\x1dV\x00"))
	want := strings.Repeat("x", 48) + "\nx\n" + strings.Repeat("字", 24) + "\n字"
	if r := p.Receipts()[0]; r.Text != want {
		t.Error(r.Text)
	}
}

// bits packs the dots of a code for the raster commands.
func bits(t *testing.T, text string) (widthBytes, rows int, data []byte) {
	t.Helper()
	code, err := paycode.Draw(text)
	if err != nil {
		t.Fatal(err)
	}
	return code.Raster(5)
}

func TestPicturesOfEveryFormAreReadBack(t *testing.T) {
	w, rows, data := bits(t, "01JABCDEFGHJKMNPQRSTVWXYZ0")
	var raster, bands, graphics, columns bytes.Buffer
	raster.WriteString("\x1dv0\x00" + raw(w, 0, rows, rows>>8) + string(data))
	for at := 0; at < rows; at += 24 {
		n := min(24, rows-at)
		bands.WriteString("\x1dv0\x00" + raw(w, 0, n, 0) + string(data[at*w:(at+n)*w]))
	}
	n := len(data) + 10
	graphics.WriteString("\x1d8L")
	graphics.Write([]byte{byte(n), byte(n >> 8), byte(n >> 16), 0, '0', 112, '0', 1, 1, '1', byte(w * 8), byte(w * 8 >> 8), byte(rows), byte(rows >> 8)})
	graphics.Write(data)
	graphics.WriteString("\x1d(L\x02\x0002")
	columns.WriteString("\x1b3\x18")
	for at := 0; at < rows; at += 24 {
		columns.Write([]byte{0x1B, '*', 33, byte(w * 8), byte(w * 8 >> 8)})
		for x := range w * 8 {
			for k := range 3 {
				var c byte
				for bit := range 8 {
					if y := at + k*8 + bit; y < rows && data[y*w+x/8]&(0x80>>(x%8)) != 0 {
						c |= 0x80 >> bit
					}
				}
				columns.WriteByte(c)
			}
		}
		columns.WriteByte('\n')
	}
	var first []byte
	for name, b := range map[string][]byte{"one raster": raster.Bytes(), "bands": bands.Bytes(), "graphics": graphics.Bytes(), "columns": columns.Bytes()} {
		p := quiet()
		p.Feed(append(b, "\x1dV\x00"...))
		r := p.Receipts()[0]
		if p.State().Errors != 0 {
			t.Errorf("%s: %s", name, p.State().LastError)
		}
		if name != "columns" && !slices.Equal(r.QR, []string{"01JABCDEFGHJKMNPQRSTVWXYZ0"}) {
			t.Errorf("%s: read back %q", name, r.QR)
		}
		dots := r.bits[:rows*w]
		if first == nil {
			first = dots
		}
		if !bytes.Equal(dots, first) {
			t.Errorf("%s: other dots than the other forms", name)
		}
	}
}

func TestABarcodeIsReadBack(t *testing.T) {
	for _, data := range []string{"{BA0001-2026", "{B12{C\x0c\x22\x38", "{C\x01\x02\x63", "{Aab"} {
		p := quiet()
		p.Feed([]byte("\x1dh\x60\x1dw\x02\x1dH\x02\x1dkI" + string(rune(len(data))) + data + "\x1dV\x00"))
		if data == "{Aab" {
			if p.State().Errors != 1 {
				t.Errorf("small letters in set A: %+v", p.State())
			}
			continue
		}
		r := p.Receipts()[0]
		text, symbology, err := paycode.ReadImage(r.Image())
		if err != nil || text != r.Text || text == "" {
			t.Errorf("%q: printed %q, read %q %s %v", data, r.Text, text, symbology, err)
		}
	}
}

func TestStatus(t *testing.T) {
	str := func(s string) *string { return &s }
	for name, c := range map[string]struct {
		change                 Change
		eot1, eot2, eot3, eot4 string
		asb, queued            string
	}{
		"ready":      {Change{}, "12", "12", "12", "12", "1000000f", "00"},
		"near end":   {Change{Paper: str("near")}, "12", "12", "12", "1e", "1000030f", "03"},
		"no paper":   {Change{Paper: str("out")}, "1a", "32", "12", "7e", "18000f0f", ""},
		"cover open": {Change{Cover: str("open")}, "1a", "16", "12", "12", "3800000f", ""},
	} {
		p := quiet()
		p.Feed([]byte("\x1da\xff"))
		if got := p.said(); got != "1000000f" {
			t.Errorf("status that is switched on says %s", got)
		}
		p.SetState(c.change)
		want := c.asb
		if name == "ready" {
			want = "" // nothing has changed
		}
		if got := p.said(); got != want {
			t.Errorf("%s: pushed %q, want %q", name, got, want)
		}
		for n, want := range map[byte]string{1: c.eot1, 2: c.eot2, 3: c.eot3, 4: c.eot4} {
			p.Feed([]byte{0x10, 0x04, n})
			if got := p.said(); got != want {
				t.Errorf("%s: DLE EOT %d says %s, want %s", name, n, got, want)
			}
		}
		p.Feed([]byte("\x1dr\x01"))
		if got := p.said(); got != c.queued {
			t.Errorf("%s: GS r 1 says %q, want %q", name, got, c.queued)
		}
		p.SetState(Change{Paper: str("ok"), Cover: str("closed")})
		if got := p.said(); c.queued == "" && got != "1000000f00" {
			t.Errorf("%s: ready again it says %q, want the status and the answer that waited", name, got)
		}
	}
}

func TestTheFenceIsAnsweredWhenItsTurnHasCome(t *testing.T) {
	str := func(s string) *string { return &s }
	p := quiet()
	p.SetState(Change{Paper: str("out")})
	p.Feed([]byte("\x1b@slip\n\x1dV\x42\x00\x1d(H\x06\x0000AB12"))
	if got := p.said(); got != "" || len(p.Receipts()) != 0 {
		t.Errorf("without paper: %s, %d receipts", got, len(p.Receipts()))
	}
	p.SetState(Change{Paper: str("ok")})
	if got := p.said(); got != "3722"+hex.EncodeToString([]byte("AB12"))+"00" || len(p.Receipts()) != 1 {
		t.Errorf("with paper: %s, %d receipts", got, len(p.Receipts()))
	}
	p.Feed([]byte("\x1dIC"))
	if got := p.said(); got != "5f"+hex.EncodeToString([]byte("TM-T88V"))+"00" {
		t.Errorf("its name: %s", got)
	}
}

func TestRealTimeCommandsActInsideAPictureToo(t *testing.T) {
	p := quiet()
	picture := "\x1dv0\x00\x05\x00\x02\x00"
	p.Feed([]byte(picture + "\x10\x04\x01\x10\x14"))
	if got := p.said(); got != "12" {
		t.Errorf("DLE EOT in a picture says %q", got)
	}
	p.Feed([]byte("\x01\x00\x01\x00\x00end\n\x1dV\x00"))
	r := p.Receipts()[0]
	if !r.Drawer || r.Text != "end" {
		t.Errorf("a picture that holds a pulse: %+v", r)
	}
	p.Feed([]byte("\x1d(D\x05\x00\x14\x01\x00\x02\x00" + picture + "\x10\x04\x01\x10\x14\x01\x00\x01\x00\x00end\n\x1dV\x00"))
	if r := p.Receipts()[1]; r.Drawer || r.Text != "end" || p.State().Errors != 0 {
		t.Errorf("pulses switched off: %+v", r)
	}
}

func TestTheDrawerBelongsToItsReceipt(t *testing.T) {
	for name, c := range map[string]struct {
		bytes string
		want  []bool
	}{
		"before the text":  {"\x1bp\x00\x19\xfaslip\n\x1dV\x00", []bool{true}},
		"within":           {"slip\n\x1bp\x00\x19\xfaslip\n\x1dV\x00slip\n\x1dV\x00", []bool{true, false}},
		"after the cut":    {"slip\n\x1dV\x00\x1bp\x01\x19\xfa", []bool{true}},
		"not at all":       {"slip\n\x1dV\x00", []bool{false}},
		"in real time":     {"slip\n\x10\x14\x01\x00\x01\x1dV\x00", []bool{true}},
		"one not there":    {"slip\n\x1bp\x07\x19\xfa\x1dV\x00", []bool{false}},
		"and no paper yet": {"\x1bp\x00\x19\xfa\x1dV\x00slip\n\x1dV\x00", []bool{true}},
	} {
		p := quiet()
		p.Feed([]byte(c.bytes))
		var got []bool
		for _, r := range p.Receipts() {
			got = append(got, r.Drawer)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestNothingIsSwallowedInSilence(t *testing.T) {
	for name, b := range map[string]string{
		"an unknown ESC":             "\x1b\x01",
		"an unknown FS":              "\x1c\x01",
		"an unknown GS":              "\x1d\x02",
		"an unknown function":        "\x1d(X\x02\x00ab",
		"a stray control byte":       "\x07",
		"a stray DLE":                "\x10\x20",
		"half a Chinese character":   "\xb0\x20",
		"80 in Chinese":              "\x80",
		"a QR code not stored":       "\x1d(k\x03\x001Q0",
		"a QR code too wide":         qr(strings.Repeat("A", 300), 16),
		"a module of 17 dots":        "\x1d(k\x03\x001C\x11",
		"PDF417":                     "\x1d(k\x03\x000A1",
		"a picture without rows":     "\x1dv0\x00\x01\x00\x00\x00",
		"a picture inside a line":    "x\x1dv0\x00\x01\x00\x01\x00\xff",
		"a picture too wide":         "\x1dv0\x00\x60\x00\x01\x00" + strings.Repeat("\xff", 96),
		"a picture of 4 GB":          "\x1d8L\xff\xff\xff\xff0p",
		"graphics not stored":        "\x1d(L\x02\x0002",
		"alignment inside a line":    "x\x1ba\x01",
		"an id outside its range":    "\x1d(H\x06\x0000\x01\x02\x03\x04",
		"an unknown cut":             "\x1dV\x07",
		"an EAN-13":                  "\x1dkC\x0d6901234567892",
		"upside down":                "\x1b{\x01",
		"a sensor that is not there": "\x1dr\x09",
	} {
		p := quiet()
		p.Feed([]byte("\x1b@"))
		p.Feed([]byte(b))
		if s := p.State(); s.Errors != 1 || s.LastError == "" {
			t.Errorf("%s: %+v", name, s)
		}
		if name == "a picture of 4 GB" {
			continue // it swallows what follows, as it must
		}
		p.Feed([]byte("\nstill alive\n\x1dV\x00"))
		if list := p.Receipts(); len(list) != 1 || !strings.HasSuffix(list[0].Text, "still alive") {
			t.Errorf("after %s: %+v", name, list)
		}
	}
}

func TestTheBufferIsFinite(t *testing.T) {
	str := func(s string) *string { return &s }
	p := quiet()
	p.SetState(Change{Cover: str("open")})
	p.Feed(bytes.Repeat([]byte("x"), bufferSize-lowRoom))
	if got := p.said(); got != "" {
		t.Errorf("XOFF too early: %s", got)
	}
	p.Feed([]byte("x"))
	if got := p.said(); got != "13" {
		t.Errorf("almost full: %q", got)
	}
	p.Feed(bytes.Repeat([]byte("x"), 1000))
	if s := p.State(); s.Lost != 1000-lowRoom+1 || s.Waiting != bufferSize {
		t.Errorf("full: %+v", s)
	}
	p.Feed([]byte{0x10, 0x04, 0x02})
	if got := p.said(); got != "16" {
		t.Errorf("full, and asked in real time: %q", got)
	}
	p.SetState(Change{Cover: str("closed")})
	if got := p.said(); got != "11" {
		t.Errorf("printing again: %q", got)
	}
}

func TestPaperWithoutACutIsTornOffAfterAPause(t *testing.T) {
	p := New(Options{IdleGap: 5 * time.Millisecond, Dots: 384})
	p.Feed([]byte("slip\n\x1bd\x04"))
	for end := time.Now().Add(5 * time.Second); len(p.Receipts()) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never")
		}
	}
	if r := p.Receipts()[0]; r.Cut || r.Text != "slip" || r.Image().Bounds().Dx() != 464 {
		t.Errorf("%+v", r)
	}
}

func TestOnALineTheNameFollowsThePlug(t *testing.T) {
	path := filepath.Join(t.TempDir(), "printer")
	p := New(Options{Path: path})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); p.Run(ctx) }()
	defer func() { cancel(); <-done }()
	for end := time.Now().Add(5 * time.Second); !p.State().Connected; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come up")
		}
	}
	yes, no := true, false
	for n := 1; n <= 3; n++ {
		host, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		host.WriteString(slip(t) + "\x1dr\x01\x1dv0\x00\x10\x00\x10\x00half a picture")
		b := make([]byte, 1)
		if _, err := io.ReadFull(host, b); err != nil || b[0] != 0 {
			t.Fatalf("the fence: %v %v", b, err)
		}
		if list := p.Receipts(); len(list) != n || list[n-1].Text != slipText {
			t.Fatalf("%d receipts after the fence of %d", len(list), n)
		}
		if s, err := p.SetState(Change{Connected: &no}); err != nil || s.Connected {
			t.Fatal(s, err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Fatal("the name is still there")
		}
		if s, err := p.SetState(Change{Connected: &yes}); err != nil || !s.Connected || s.Waiting != 0 {
			t.Fatal(s, err)
		}
		host.Close()
	}
}

func TestAStateThatNoPrinterHasIsRefused(t *testing.T) {
	p := quiet()
	word := "damp"
	for _, c := range []Change{{Paper: &word}, {Cover: &word}} {
		if _, err := p.SetState(c); err == nil {
			t.Errorf("%+v", c)
		}
	}
}

func FuzzNoBytesBreakThePrinter(f *testing.F) {
	f.Add([]byte("\x1b@\x1c&\xc4\xe3\n\x1dV\x42\x00"))
	f.Add([]byte("\x1dv0\x00\x02\x00\x02\x00abcd\x1d(k\x04\x001A2\x00"))
	f.Add([]byte("\x1b*\x21\x02\x00abcdef\n\x1d8L\x0c\x00\x00\x000p0\x01\x011\x08\x00\x02\x00ab"))
	f.Add([]byte("\x1dkI\x04{BAB\x10\x14\x01\x00\x01\x1b\x44\x01\x02\x00\t"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := quiet()
		p.Feed(b)
		whole := p.State()
		one := quiet()
		for _, c := range b {
			one.Feed([]byte{c})
		}
		if one.State() != whole || len(one.Receipts()) != len(p.Receipts()) {
			t.Errorf("in pieces: %+v, at once: %+v", one.State(), whole)
		}
	})
}

func BenchmarkASlip(b *testing.B) {
	p := quiet()
	bytes := []byte(slip(b))
	for b.Loop() {
		p.Feed(bytes)
	}
}

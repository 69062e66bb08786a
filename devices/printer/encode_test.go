package printer

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/text/encoding/simplifiedchinese"
)

var update = flag.Bool("update", false, "write the golden files anew")

// readable shows a body one command or line of text to a line: hex, and what of
// it is text. The hex is what counts.
func readable(t *testing.T, b body) string {
	t.Helper()
	var out strings.Builder
	from := 0
	for _, end := range b.ends {
		if end == from {
			continue
		}
		piece := b.bytes[from:end]
		text, err := simplifiedchinese.GB18030.NewDecoder().Bytes(piece)
		if err != nil {
			t.Fatal(err)
		}
		shown := strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7F || r == 0xFFFD {
				return '.'
			}
			return r
		}, string(text))
		if bytes.HasPrefix(piece, []byte{0x1D, 0x76, 0x30}) {
			shown = "raster"
		}
		fmt.Fprintf(&out, "% X\t; %s\n", piece, shown)
		from = end
	}
	if from != len(b.bytes) {
		t.Fatalf("%d bytes stand behind the last mark", len(b.bytes)-from)
	}
	return out.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s", path, got)
	}
}

// receipt is a slip as the shop prints it.
func receipt() *Document {
	var d Document
	return d.Text(Style{Center: true, Double: true}, "渝中小面").
		Text(Style{Center: true}, "交易凭证 / RECEIPT").
		Rule().
		Columns("商户号", "653000053310001").
		Columns("终端号", "10000001").
		Columns("订单号", "T20261123-0001").
		StyledColumns(Style{Bold: true, Tall: true}, "金额", "¥12.50").
		Rule().
		QR("01JD8Z6T0Q3V5W7X9YABCDEFGH", 4).
		Text(Style{Center: true}, "谢谢惠顾").
		Feed(1).
		Cut()
}

// finder is a picture like a version 1 code: three finders and nothing else,
// with its quiet zone, scale dots a module.
func finder(scale int) Bits {
	const n = 29
	side := n * scale
	b := Bits{WidthBytes: (side + 7) / 8, Rows: side, Modules: n}
	b.Bits = make([]byte, b.WidthBytes*side)
	black := func(x, y int) bool {
		x, y = x-quiet, y-quiet
		if x < 0 || y < 0 || x > 20 || y > 20 {
			return false
		}
		in := func(x, y int) bool {
			d := max(max(x, 6-x), max(y, 6-y)) - 3 // distance ring of a 7×7 square
			return x >= 0 && y >= 0 && x < 7 && y < 7 && d != 2
		}
		return in(x, y) || in(x-14, y) || in(x, y-14)
	}
	for y := range side {
		for x := range side {
			if black(x/scale, y/scale) {
				b.Bits[y*b.WidthBytes+x/8] |= 0x80 >> (x % 8)
			}
		}
	}
	return b
}

func TestGoldenBytes(t *testing.T) {
	long := Style{}
	for _, c := range []struct {
		name    string
		profile string
		doc     *Document
	}{
		{"receipt-80mm", "80mm", receipt()},
		{"receipt-58mm", "58mm", receipt()},
		{"styles", "80mm", new(Document).Text(Style{Bold: true}, "粗").Text(Style{Tall: true, Right: true}, "高").
			Text(Style{Double: true, Bold: true, Center: true}, "大").Text(Style{}, "")},
		{"wrapping", "58mm", new(Document).Text(long, "一碗小面加一个煎蛋再加一份豌豆杂酱不要香菜").
			Text(long, "the quick brown fox jumps over the lazy dog").
			Columns("重庆小面（豌豆杂酱，二两，少辣，不要葱花）", "¥12.50").Columns("a", strings.Repeat("9", 40))},
		{"folding", "80mm", new(Document).Text(long, "¥12.50 −3 • ✓ a\u00A0b €™ 鼗㐀𠮷🍜 \u200Be\u0301 \x1B@\x10\x04\x01")},
		{"qr-native-order", "58mm", new(Document).QR(strings.Repeat("A", 288), 0)},
		{"qr-raster-even", "58mm-raster", new(Document).QRBits("x", 4, finder(1))},
		{"qr-raster-odd", "58mm-raster", new(Document).QRBits("x", 3, finder(2))},
		{"picture", "58mm", new(Document).Raster(2, 30, bytes.Repeat([]byte{0x10, 0x14, 0x01}, 20))},
		{"drawer-and-cut", "80mm", new(Document).Drawer().Feed(3).Cut()},
		{"no-cutter", "58mm", new(Document).Text(Style{Center: true}, "x").Cut()},
	} {
		t.Run(c.name, func(t *testing.T) {
			profile, err := ProfileNamed(c.profile)
			if err != nil {
				t.Fatal(err)
			}
			b, err := encode(*c.doc, profile)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, c.name, readable(t, b))
		})
	}
}

func TestSomePrintersNeedTheSizeOfChineseTextApart(t *testing.T) {
	p := profiles["58mm"]
	p.KanjiSize = true
	b, err := encode(*new(Document).Text(Style{Double: true}, "大").Text(Style{Tall: true}, "高"), p)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "kanji-size", readable(t, b))
}

func TestProfilesThatContradictThemselvesAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(*Profile){
		"no columns":              func(p *Profile) { p.Columns = 0 },
		"columns beyond the dots": func(p *Profile) { p.Columns = 96 },
		"no rows in a band":       func(p *Profile) { p.BandRows = 0 },
		"modules of 17 dots":      func(p *Profile) { p.MaxQRDots = 17 },
		"no fence":                func(p *Profile) { p.Fence = "" },
	} {
		p := profiles["58mm"]
		spoil(&p)
		if err := p.Check(); !errors.Is(err, ErrProfile) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, p := range profiles {
		if err := p.Check(); err != nil || p.Name != name {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEncodingLeavesThePrinterAsItWas(t *testing.T) {
	p := profiles["80mm"]
	one, err := Encode(*new(Document).Text(Style{Bold: true, Double: true, Center: true}, "x"), p)
	if err != nil {
		t.Fatal(err)
	}
	for _, reset := range [][]byte{{0x1B, 0x61, 0}, {0x1B, 0x45, 0}, {0x1D, 0x21, 0}} {
		if !bytes.Contains(one, reset) {
			t.Errorf("% X has no % X", one, reset)
		}
	}
}

func TestWidths(t *testing.T) {
	for s, want := range map[string]int{"": 0, "abc": 3, "金额": 4, "¥12.50": 7, "－": 2, "é": 2, "a\u200Bb": 2} {
		if got := width(fold(s, false)); got != want {
			t.Errorf("%q is %d wide, want %d", s, got, want)
		}
	}
}

// However long the pieces are, no line is wider than the paper, nothing is lost
// and right ends at the right edge.
func TestSpreadFillsTheLine(t *testing.T) {
	for left := range 70 {
		for right := range 70 {
			for _, unit := range []string{"x", "面"} {
				l, r := strings.Repeat(unit, left), strings.Repeat("9", right)
				lines := spread(l, r, 32)
				all := strings.ReplaceAll(strings.Join(lines, ""), " ", "")
				if all != l+r {
					t.Fatalf("%d+%d: %q", left, right, lines)
				}
				for _, line := range lines {
					if width(line) > 32 {
						t.Fatalf("%d+%d: line of %d", left, right, width(line))
					}
				}
				if right > 0 && width(lines[len(lines)-1]) != 32 {
					t.Fatalf("%d+%d: the right edge is at %d", left, right, width(lines[len(lines)-1]))
				}
			}
		}
	}
}

func TestACodeFitsThePaperInItsWorstVersion(t *testing.T) {
	for _, c := range []struct {
		name    string
		profile string
		bytes   int
		limit   int
		dots    int
	}{
		{"an order on 58 mm", "58mm", 287, 0, 5},
		{"one byte more: the margin is the quiet zone", "58mm", 288, 0, 5},
		{"version 15 on 58 mm", "58mm", 400, 0, 4},
		{"an order on 80 mm", "80mm", 287, 0, 8},
		{"a customer's code", "80mm", 18, 0, 8},
		{"as small as asked", "80mm", 18, 3, 3},
		{"the largest code there is", "80mm", 2331, 0, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := profiles[c.profile]
			modules, err := worstModules(strings.Repeat("A", c.bytes))
			if err != nil {
				t.Fatal(err)
			}
			dots, err := p.moduleDots(modules, c.limit)
			if err != nil || dots != c.dots {
				t.Fatalf("%d modules: %d dots, %v; want %d", modules, dots, err, c.dots)
			}
			if modules*dots > p.Dots || (modules+8)*dots > p.Dots+2*p.MarginDots {
				t.Fatalf("%d modules of %d dots do not fit %d", modules, dots, p.Dots)
			}
		})
	}
}

func TestWhatCanNotBePrintedIsRefused(t *testing.T) {
	for _, c := range []struct {
		name    string
		profile string
		doc     *Document
		want    error
	}{
		{"an empty code", "80mm", new(Document).QR("", 0), ErrCode},
		{"a code with a control byte", "80mm", new(Document).QR("a\x10\x04\x01", 0), ErrCode},
		{"a code that is too long", "80mm", new(Document).QR(strings.Repeat("A", 2332), 0), ErrCode},
		{"a code that is too wide", "58mm", new(Document).QR(strings.Repeat("A", 2331), 1), ErrTooWide},
		{"a code without a picture on a printer that draws none", "58mm-raster", new(Document).QR("x", 0), ErrNoNative},
		{"a picture that is no code", "58mm-raster", new(Document).QRBits("x", 0, Bits{WidthBytes: 1, Rows: 8, Bits: make([]byte, 8)}), ErrPicture},
		{"a picture of the wrong size", "80mm", new(Document).Raster(2, 2, []byte{1}), ErrPicture},
		{"a picture wider than the paper", "58mm", new(Document).Raster(49, 1, make([]byte, 49)), ErrTooWide},
		{"a picture as long as a street", "58mm", new(Document).Raster(48, 1<<20, make([]byte, 48<<20)), ErrTooLong},
		{"a text as long as a street", "58mm", new(Document).Text(Style{}, strings.Repeat("x\n", 200<<10)), ErrTooLong},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Encode(*c.doc, profiles[c.profile]); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	if _, err := Encode(Document{}, Profile{}); !errors.Is(err, ErrProfile) {
		t.Errorf("an empty profile: %v", err)
	}
	if _, err := ProfileNamed("90mm"); !errors.Is(err, ErrProfile) {
		t.Errorf("an unknown profile: %v", err)
	}
}

func TestTheRasterIsTheCode(t *testing.T) {
	code, err := crop(finder(3))
	if err != nil || len(code) != 21 {
		t.Fatalf("%d modules, %v", len(code), err)
	}
	big := enlarge(code, 3)
	for y := range 63 {
		for x := range 63 {
			if big.at(x, y) != code[y/3][x/3] {
				t.Fatalf("dot %d,%d", x, y)
			}
		}
	}
}

// realTime finds a real-time command in a picture.
func realTime(b []byte) bool {
	for i := 0; i+2 < len(b); i++ {
		if b[i] == 0x10 && (b[i+1] == 0x04 || b[i+1] == 0x05 || b[i+1] == 0x14) && b[i+2] >= 1 && b[i+2] <= 8 {
			return true
		}
	}
	return false
}

func FuzzNoPictureSpellsARealTimeCommand(f *testing.F) {
	f.Add([]byte{0x10, 0x14, 0x01, 0x10, 0x04, 0x01})
	f.Add([]byte{0x10, 0x10, 0x05, 0x02, 0x10, 0x14, 0x08})
	f.Fuzz(func(t *testing.T, bits []byte) {
		if len(bits) == 0 || len(bits) > 4096 {
			return
		}
		b, err := Encode(*new(Document).Raster(1, len(bits), bits), profiles["58mm"])
		if err != nil {
			t.Fatal(err)
		}
		if realTime(b) {
			t.Fatalf("% X", b)
		}
	})
}

// Text, whatever it is, becomes printable characters and line ends: the styles
// aside, the bytes are the same as those of clean text.
func FuzzTextIsNeverACommand(f *testing.F) {
	f.Add("渝中小面 ¥12.50\n谢谢")
	f.Add("\x1B@\x10\x14\x01\x1DV\x00")
	f.Add("𠮷🍜\xFF\xFE")
	f.Fuzz(func(t *testing.T, s string) {
		b, err := encode(*new(Document).Text(Style{}, s).Columns(s, s), profiles["58mm"])
		if errors.Is(err, ErrTooLong) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bytes.Split(bytes.TrimPrefix(b.bytes, []byte{0x1C, 0x26}), []byte("\n"))
		for _, line := range lines {
			for _, c := range line {
				if c < 0x20 || c == 0x7F {
					t.Fatalf("% X", line)
				}
			}
			text, err := simplifiedchinese.GB18030.NewDecoder().String(string(line))
			if err != nil || width(text) > 32 {
				t.Fatalf("line %q is %d wide (%v)", text, width(text), err)
			}
		}
	})
}

func BenchmarkEncodeReceipt(b *testing.B) {
	doc, profile := receipt(), profiles["80mm"]
	var n int
	for b.Loop() {
		out, err := Encode(*doc, profile)
		if err != nil {
			b.Fatal(err)
		}
		n = len(out)
	}
	b.ReportMetric(float64(n), "bytes/receipt")
	b.ReportMetric(float64(n)*10/9600, "s/receipt@9600")
	b.ReportMetric(float64(n)*10/115200, "s/receipt@115200")
}

package paycode

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"image/png"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/makiuchi-d/gozxing/qrcode/decoder"
	"pgregory.net/rapid"

	"yupos/ledgercache/money"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with a file of testdata, or writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs: %d bytes, want %d", name, len(got), len(want))
	}
}

// readModules decodes modules that were drawn, quiet zone included, after cutting it off.
func readModules(t *testing.T, name string, side int, dark func(x, y int) bool) string {
	t.Helper()
	modules := make([][]bool, side-2*QuietZone)
	for y := range side {
		for x := range side {
			inside := x >= QuietZone && y >= QuietZone && x < side-QuietZone && y < side-QuietZone
			if !inside && dark(x, y) {
				t.Fatalf("%s: the quiet zone is dark at %d, %d", name, x, y)
			}
			if inside {
				modules[y-QuietZone] = append(modules[y-QuietZone], dark(x, y))
			}
		}
	}
	result, err := decoder.NewDecoder().DecodeBoolMapWithoutHint(modules)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return result.GetText()
}

func TestOurOwnCodesHaveTheirSizesOnPaperAndScreen(t *testing.T) {
	f := loadVectors(t)
	for _, tt := range []struct {
		name             string
		version, modules int
		on58, on80       int // dots a module with the quiet zone
		mode             string
	}{
		{"online: good", 1, 21, 13, 19, "numeric"},
		{"order: good", 11, 61, 5, 8, ""},
		{"receipt: good", 11, 61, 5, 8, ""},
		{"signed: good", 13, 69, 4, 7, ""},
	} {
		p := must[Picture](t)(Draw(f.text(t, tt.name)))
		if p.Version != tt.version || p.Modules != tt.modules || p.Fit(Paper58Dots) != tt.on58 || p.Fit(Paper80Dots) != tt.on80 {
			t.Errorf("%s: version %d, %d modules, %d and %d dots", tt.name, p.Version, p.Modules, p.Fit(Paper58Dots), p.Fit(Paper80Dots))
		}
		if tt.mode != "" && (len(p.Segments) != 1 || p.Segments[0].Mode != tt.mode) {
			t.Errorf("%s: segments %v", tt.name, p.Segments)
		}
		if p.Fit(p.Side()-1) != 0 || p.Fit(p.Side()) != 1 || p.Fit(-5) != 0 {
			t.Errorf("%s: a module is never a fraction of a dot", tt.name)
		}
	}
}

func TestEveryDrawingOfACodeReadsBack(t *testing.T) {
	f := loadVectors(t)
	for _, name := range []string{"online: good", "order: good", "receipt: good", "signed: good"} {
		text := f.text(t, name)
		p := must[Picture](t)(Draw(text))
		for _, scale := range []int{1, 2, 3, 5, 8} {
			width, rows, bits := p.Raster(scale)
			if rows != p.Side()*scale || width != (rows+7)/8 || len(bits) != width*rows {
				t.Fatalf("%s: raster of %d by %d, %d bytes", name, width, rows, len(bits))
			}
			dot := func(x, y int) bool { return bits[y*width+x/8]&(0x80>>(x%8)) != 0 }
			for y := range rows {
				for x := range width * 8 {
					if x >= rows && dot(x, y) || x < rows && dot(x, y) != p.Dark(x/scale-QuietZone, y/scale-QuietZone) {
						t.Fatalf("%s: dot %d, %d at scale %d", name, x, y, scale)
					}
				}
			}
			if got := readModules(t, name, p.Side(), func(x, y int) bool { return dot(x*scale+scale/2, y*scale+scale/2) }); got != text {
				t.Errorf("%s: raster reads %q", name, got)
			}
			img := must2(png.Decode(bytes.NewReader(must2(p.PNG(scale)))))
			if img.Bounds().Dx() != rows || img.Bounds().Dy() != rows {
				t.Errorf("%s: PNG of %v", name, img.Bounds())
			}
			if got, _, err := ReadImage(img); scale >= 2 && got != text {
				t.Errorf("%s: PNG at %d reads %q, %v", name, scale, got, err)
			}
		}
		if got := readModules(t, name, p.Side(), terminalModules(p.Text())); got != text {
			t.Errorf("%s: terminal reads %q", name, got)
		}
		if got := readModules(t, name, p.Side(), vectorModules(t, p.SVG())); got != text {
			t.Errorf("%s: SVG reads %q", name, got)
		}
	}
}

// terminalModules reads half blocks as a person's phone sees them.
func terminalModules(s string) func(x, y int) bool {
	var rows [][]rune
	for line := range strings.Lines(s) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), plainColours)
		rows = append(rows, []rune(strings.TrimPrefix(line, blackOnWhite)))
	}
	return func(x, y int) bool {
		switch rows[y/2][x] {
		case '█':
			return true
		case '▀':
			return y%2 == 0
		case '▄':
			return y%2 == 1
		}
		return false
	}
}

// vectorModules draws the path of an SVG on squared paper.
func vectorModules(t *testing.T, s string) func(x, y int) bool {
	t.Helper()
	if err := xml.Unmarshal([]byte(s), new(struct{})); err != nil {
		t.Fatalf("not XML: %v", err)
	}
	dark := make(map[[2]int]bool)
	for _, m := range regexp.MustCompile(`M(\d+) (\d+)h(\d+)v1h-(\d+)z`).FindAllStringSubmatch(s, -1) {
		x, _ := strconv.Atoi(m[1])
		y, _ := strconv.Atoi(m[2])
		n, _ := strconv.Atoi(m[3])
		if m[3] != m[4] {
			t.Fatalf("run %s comes back by %s", m[3], m[4])
		}
		for i := range n {
			dark[[2]int{x + i, y}] = true
		}
	}
	return func(x, y int) bool { return dark[[2]int{x, y}] }
}

func TestDrawingsKeepTheirBytes(t *testing.T) {
	p := must[Picture](t)(Draw("861234567890123459"))
	golden(t, "online.svg", []byte(p.SVG()))
	golden(t, "online.txt", []byte(p.Text()))
	_, _, bits := p.Raster(2)
	golden(t, "online.raster", bits)
}

func TestAnOrderNeverNeedsMoreThanVersion12(t *testing.T) {
	key := keyFrom("terminal")
	rapid.Check(t, func(t *rapid.T) {
		if rapid.IntRange(0, 3).Draw(t, "thin") > 0 { // each drawing costs milliseconds
			return
		}
		o := goodOrder()
		o.MerchantName = rapid.StringMatching("[A-Za-z ]{1,25}").Draw(t, "name")
		o.ULID, o.AmountFen = drawULID(t, "order"), drawFen(t, "amount", 1)
		p, err := Draw(must2(MakeOrder(o, key)))
		if err != nil || p.Version > 12 || p.Fit(Paper58Dots) < 5 || p.Fit(Paper80Dots) < 7 {
			t.Fatalf("%v, version %d", err, p.Version)
		}
	})
	o := goodOrder()
	o.AmountFen, o.MerchantName = money.Max, "Wqkzj Xvbnm Plokij Uhygtf"
	if p := must[Picture](t)(Draw(must2(MakeOrder(o, key)))); p.Version > 12 {
		t.Errorf("the longest: version %d", p.Version)
	}
}

func TestWhatCannotBeDrawnIsAnError(t *testing.T) {
	for name, text := range map[string]string{"nothing": "", "too much": strings.Repeat("x", maxDrawText+1)} {
		if _, err := Draw(text); !errors.Is(err, ErrTooLong) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Draw("\xff\xfe"); !errors.Is(err, ErrSelfCheck) { // bytes that no reader gives back
		t.Errorf("raw bytes: %v", err)
	}
	p := must[Picture](t)(Draw("1"))
	for _, scale := range []int{-1, 0, 65} {
		if _, err := p.PNG(scale); !errors.Is(err, ErrScale) {
			t.Errorf("scale %d: %v", scale, err)
		}
		if w, rows, bits := p.Raster(scale); w != 0 || rows != 0 || bits != nil {
			t.Errorf("scale %d gives a raster", scale)
		}
	}
	var none Picture
	if _, err := none.PNG(1); !errors.Is(err, ErrScale) || none.Text() != "" || none.Fit(500) != 0 || none.Dark(0, 0) {
		t.Error("a picture of nothing draws something")
	}
}

func TestSegmentsThatDoNotHoldAreSeen(t *testing.T) {
	for _, tt := range []struct {
		name     string
		text     string
		segments []Segment
		want     bool
	}{
		{"digits as digits", "123", []Segment{{"numeric", 3}}, true},
		{"digits as bytes", "123", []Segment{{"byte", 3}}, false},
		{"digits in two", "1234", []Segment{{"numeric", 2}, {"numeric", 2}}, false},
		{"a character lost", "12a", []Segment{{"byte", 2}}, false},
		{"mixed", "a123", []Segment{{"byte", 1}, {"numeric", 3}}, true},
		{"none", "a", nil, false},
	} {
		if got := segmentsHold(tt.segments, tt.text); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	for name, data := range map[string][]byte{"a kanji segment": {0x80, 0x10}, "cut in the header": {0x10}, "cut in the text": {0x41, 0x00}} {
		if s, ok := readSegments(data, 1); ok && len(s) > 0 {
			t.Errorf("%s: %v", name, s)
		}
	}
}

package paycode

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/oned"
	"golang.org/x/image/bmp"
)

// shot describes one simulated 640 by 480 camera frame of a code on a screen.
type shot struct {
	module             float64 // pixels a module
	pitch, yaw, roll   float64 // degrees
	dark, light, noise float64 // levels of 255
	blur               int     // passes of a mean over three by three pixels
	inverted           bool
	seed               uint64
}

// take renders the frame: a pinhole camera of 60° looks at a flat code in the middle.
func (s shot) take(p Picture) *grey {
	const width, height, focal = 640, 480, 554.0
	rng := rand.New(rand.NewPCG(s.seed, 1))
	rad := math.Pi / 180
	sp, cp := math.Sincos(s.pitch * rad)
	sy, cy := math.Sincos(s.yaw * rad)
	sr, cr := math.Sincos(s.roll * rad)
	half := float64(p.Side()) / 2
	distance := focal / s.module
	matches := make([]match, 0, 4)
	for _, c := range []point{{0, 0}, {1, 0}, {1, 1}, {0, 1}} {
		x, y := (c.x-0.5)*2*half, (c.y-0.5)*2*half
		x, y = x*cr-y*sr, x*sr+y*cr
		z := distance + x*sy + y*sp
		matches = append(matches, match{point{c.x * 2 * half, c.y * 2 * half}, point{width/2 + focal*x*cy/z, height/2 + focal*y*cp/z}, 1})
	}
	for i := range matches { // the inverse: from the picture to the code
		matches[i].code, matches[i].picture = matches[i].picture, matches[i].code
	}
	h, ok := fitHomography(matches)
	if !ok {
		panic("no such camera")
	}
	g := newGrey(width, height)
	const fine = 2
	for y := range height {
		for x := range width {
			sum := 0.0
			for i := range fine * fine {
				q := h.at(point{float64(x) + (float64(i%fine)+0.5)/fine, float64(y) + (float64(i/fine)+0.5)/fine})
				level := s.light
				switch inside := q.x >= 0 && q.y >= 0 && q.x < 2*half && q.y < 2*half; {
				case !inside:
					level = 90 // the dark body of the phone, a table
				case p.Dark(int(q.x)-QuietZone, int(q.y)-QuietZone) != s.inverted:
					level = s.dark
				}
				sum += level
			}
			g.pix[y*width+x] = byte(min(255, max(0, sum/fine/fine)))
		}
	}
	for range s.blur {
		g = g.blurred()
	}
	for i, v := range g.pix {
		g.pix[i] = byte(min(255, max(0, float64(v)+rng.NormFloat64()*s.noise)))
	}
	return g
}

// simulatedShots is a fixed set of frames in the grades of what a counter sees: straight, tilted, turned, blurred, weak,
// inverted.
func simulatedShots(n int) []shot {
	rng := rand.New(rand.NewPCG(4, 2))
	var shots []shot
	for i := range n {
		s := shot{module: 3 + rng.Float64()*2, dark: 30, light: 220, noise: 4, seed: uint64(i)}
		tilt, around := rng.Float64()*22, rng.Float64()*2*math.Pi
		s.pitch, s.yaw, s.roll = tilt*math.Sin(around), tilt*math.Cos(around), rng.Float64()*90-45
		switch i % 6 {
		case 1:
			s.blur = 1
		case 2:
			s.blur = 2
		case 3:
			s.dark, s.light = 90, 150
		case 4:
			s.inverted = true
		}
		shots = append(shots, s)
	}
	return shots
}

func TestReadRateOfSimulatedFrames(t *testing.T) {
	f := loadVectors(t)
	var pictures []Picture
	var texts []string
	for _, name := range []string{"online: good", "receipt: good", "order: good", "signed: good"} {
		texts = append(texts, f.text(t, name))
		pictures = append(pictures, must[Picture](t)(Draw(f.text(t, name))))
	}
	right := make(map[string]int)
	n := 24
	total := 0
	var all, longest time.Duration
	for i, s := range simulatedShots(n) {
		k := i / 6 % 4
		if s.module*float64(pictures[k].Side()) > 420 {
			s.module = 420 / float64(pictures[k].Side())
		}
		g := s.take(pictures[k])
		start := time.Now()
		text, _, rungName, err := climbNamed(g, time.Minute)
		took := time.Since(start)
		all, longest, total = all+took, max(longest, took), total+1
		switch {
		case err != nil:
			t.Logf("not read: code %d, %+v", k, s)
		case text != texts[k]:
			t.Errorf("misread: %q for %q, %+v", text, texts[k], s)
		default:
			right[rungName]++
			right["all"]++
		}
	}
	t.Logf("%d of %d read, mean %v, longest %v, by attempt %v", right["all"], total, all/time.Duration(total), longest, right)
	if right["all"]*100 < total*85 {
		t.Errorf("%d of %d read", right["all"], total)
	}
}

func TestTheSamplerReadsWhatTheStockGridCannot(t *testing.T) {
	p := must[Picture](t)(Draw(loadVectors(t).text(t, "receipt: good")))
	g := shot{module: 4, pitch: 16, yaw: 8, roll: 12, dark: 30, light: 220, seed: 1}.take(p)
	m, err := g.hybrid()
	if err != nil {
		t.Fatal(err)
	}
	finders := findFinders(m)
	if len(finders) == 0 {
		t.Fatal("no finders")
	}
	read := 0
	sampleQR(g, m, finders[0], func(matrix *gozxing.BitMatrix) bool {
		if text, ok := decodeMatrix(matrix); ok && text == loadVectors(t).text(t, "receipt: good") {
			read++
		}
		return read > 0
	})
	if read == 0 {
		t.Error("the sampler's grids do not decode")
	}
}

// squares fills a picture with finder patterns of many sizes, set so that no two rows agree.
func squares(side int) *grey {
	g := newGrey(side, side)
	for i := range g.pix {
		g.pix[i] = 255
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for y := 2; y+30 < side; y += 24 {
		for x := 2; x+30 < side; x += 24 {
			module := 1 + rng.IntN(3)
			for dy := range 7 {
				for dx := range 7 {
					ring := max(dx-3, 3-dx, dy-3, 3-dy)
					if ring == 2 {
						continue
					}
					for i := range module * module {
						g.pix[(y+dy*module+i/module)*side+x+dx*module+i%module] = 0
					}
				}
			}
		}
	}
	return g
}

func TestAPictureFullOfFindersEndsInTime(t *testing.T) {
	g := squares(1600)
	for _, limit := range []time.Duration{50 * time.Millisecond, 500 * time.Millisecond} {
		start := time.Now()
		_, _, err := ReadGrey(g.pix, g.Width, g.Height, g.Width, Limits{FileBytes: 1, Pixels: 1 << 24, Time: limit})
		if took := time.Since(start); !errors.Is(err, ErrNothingRead) || took > limit+10*time.Second {
			t.Errorf("%v after %v, limit %v", err, took, limit)
		}
	}
}

// patient are limits for tests that ask whether something is read, not how fast, on a machine that may be busy.
var patient = Limits{FileBytes: 1 << 24, Pixels: 1 << 24, Time: time.Minute}

// bars renders a Code 128 with the given width of a bar's unit, turned by quarters.
func bars(t testing.TB, text string, unit, quarters int) *grey {
	m, err := oned.NewCode128Writer().Encode(text, gozxing.BarcodeFormat_CODE_128, 1, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	g := newGrey((m.GetWidth()+20)*unit, 120)
	for i := range g.pix {
		g.pix[i] = 255
		if x, y := i%g.Width/unit-10, i/g.Width; x >= 0 && x < m.GetWidth() && m.Get(x, 0) && y > 10 && y < 110 {
			g.pix[i] = 0
		}
	}
	for range quarters {
		turned, _ := g.RotateCounterClockwise()
		g = turned.(*grey)
	}
	return g
}

func TestCode128IsReadInEveryDirection(t *testing.T) {
	for quarters := range 4 {
		for _, unit := range []int{1, 2, 3} {
			g := bars(t, "861234567890123459", unit, quarters)
			text, symbology, err := ReadGrey(g.pix, g.Width, g.Height, g.Width, patient)
			if text != "861234567890123459" || symbology != SymbologyCode128 {
				t.Errorf("%d quarters, unit %d: %q, %s, %v", quarters, unit, text, symbology, err)
			}
		}
	}
	for _, degrees := range []float64{-30, -17, -8, 8, 17, 30} {
		g := bars(t, "861234567890123459", 3, 0).turned(degrees)
		if text, _, err := ReadGrey(g.pix, g.Width, g.Height, g.Width, patient); text != "861234567890123459" {
			t.Errorf("turned %v°: %q, %v", degrees, text, err)
		}
	}
}

func TestEveryFormatAndPixelKindIsRead(t *testing.T) {
	const text = "861234567890123459"
	p := must[Picture](t)(Draw(text))
	source := must2(png.Decode(bytes.NewReader(must2(p.PNG(5)))))
	b := source.Bounds()
	as := map[string]interface {
		image.Image
		Set(x, y int, c color.Color)
	}{
		"grey": image.NewGray(b), "grey 16": image.NewGray16(b), "rgba": image.NewRGBA(b), "nrgba": image.NewNRGBA(b), "rgba 64": image.NewRGBA64(b),
		"nrgba 64": image.NewNRGBA64(b), "cmyk": image.NewCMYK(b), "paletted": image.NewPaletted(b, color.Palette{color.Black, color.White}),
	}
	for name, img := range as {
		for y := b.Min.Y; y < b.Max.Y; y++ {
			for x := b.Min.X; x < b.Max.X; x++ {
				img.Set(x, y, source.At(x, y))
			}
		}
		if got, symbology, err := ReadImage(img); got != text || symbology != SymbologyQR {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		var pngFile, bmpFile, jpegFile, gifFile bytes.Buffer
		if err := errors.Join(png.Encode(&pngFile, img), bmp.Encode(&bmpFile, img), jpeg.Encode(&jpegFile, img, nil), gif.Encode(&gifFile, img, nil)); err != nil {
			t.Fatal(err)
		}
		for format, file := range map[string][]byte{"png": pngFile.Bytes(), "bmp": bmpFile.Bytes(), "jpeg": jpegFile.Bytes(), "gif": gifFile.Bytes()} {
			if got, _, err := ReadFile(file, patient); got != text {
				t.Errorf("%s as %s: %q, %v", name, format, got, err)
			}
		}
	}
	see := image.NewNRGBA(b) // dark modules on nothing at all
	for i := range see.Pix {
		see.Pix[i] = 0
	}
	for y := range b.Dy() {
		for x := range b.Dx() {
			if greyOf(source.At(x, y)) == 0 {
				see.SetNRGBA(x, y, color.NRGBA{A: 255})
			}
		}
	}
	if got, _, err := ReadImage(see); got != text {
		t.Errorf("transparent ground: %q, %v", got, err)
	}
	if got, _, err := ReadImage(see.SubImage(image.Rect(3, 3, b.Dx()-3, b.Dy()-3))); got != text {
		t.Errorf("part of a picture: %q, %v", got, err)
	}
}

func TestAnInvertedCodeIsRead(t *testing.T) {
	p := must[Picture](t)(Draw("861234567890123459"))
	g := toGrey(must2(png.Decode(bytes.NewReader(must2(p.PNG(4)))))).inverted()
	if text, _, err := ReadGrey(g.pix, g.Width, g.Height, g.Width, patient); text != "861234567890123459" {
		t.Errorf("%q, %v", text, err)
	}
}

// scanBomb is a progressive JPEG of 4096 by 4096 pixels with scans of 41 bytes that each go over all of them.
func scanBomb(scans int) []byte {
	b := []byte{0xFF, 0xD8, 0xFF, 0xC2, 0, 11, 8, 0x10, 0, 0x10, 0, 1, 1, 0x11, 0}
	for _, table := range []struct{ id, symbol byte }{{0, 0}, {0x10, 0xE0}} {
		b = append(append(append(b, 0xFF, 0xC4, 0, 20, table.id, 1), make([]byte, 15)...), table.symbol)
	}
	b = append(append(b, 0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 0, 1), make([]byte, 4096*4096/64/8)...)
	for range scans - 1 {
		b = append(append(b, 0xFF, 0xDA, 0, 8, 1, 1, 0, 1, 63, 0), make([]byte, 31)...)
	}
	return append(b, 0xFF, 0xD9)
}

func TestAFileOfAHundredThousandScansIsRefusedAtOnce(t *testing.T) {
	start := time.Now()
	if _, _, err := ReadFile(scanBomb(100_000), FileLimits); !errors.Is(err, ErrPicture) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
}

// endless is a picture that claims to be as large as numbers go.
type endless struct{ image.Image }

func (endless) Bounds() image.Rectangle {
	return image.Rect(math.MinInt/2, math.MinInt/2, math.MaxInt/2, math.MaxInt/2)
}

// lying is a picture that panics when it is looked at.
type lying struct{ image.Image }

func (lying) Bounds() image.Rectangle { return image.Rect(0, 0, 50, 50) }
func (lying) At(x, y int) color.Color { panic("there is nothing here") }
func (lying) ColorModel() color.Model { return color.GrayModel }

func TestWhatIsNoPictureIsRefused(t *testing.T) {
	whole := must2(must[Picture](t)(Draw("x")).PNG(3))
	bomb := bytes.Clone(whole)
	copy(bomb[16:24], []byte{0x7F, 0xFF, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF})
	for name, data := range map[string][]byte{
		"empty": nil, "text": []byte("86"), "half a picture": whole[:len(whole)*2/3], "a size that lies": bomb,
		"larger than allowed": append(bytes.Clone(whole), make([]byte, FrameLimits.FileBytes)...),
	} {
		if text, _, err := ReadFile(data, FrameLimits); !errors.Is(err, ErrPicture) || text != "" {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	for name, img := range map[string]image.Image{"none": nil, "no pixels": image.NewGray(image.Rectangle{}), "endless": endless{}} {
		if _, _, err := ReadImage(img); !errors.Is(err, ErrPicture) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := ReadImage(lying{}); !errors.Is(err, ErrNothingRead) {
		t.Errorf("a picture that panics: %v", err)
	}
	if _, _, err := ReadGrey(make([]byte, 10), 4, 4, 4, FrameLimits); !errors.Is(err, ErrPicture) {
		t.Errorf("too few pixels: %v", err)
	}
	if _, _, err := ReadGrey(nil, math.MaxInt, math.MaxInt, math.MaxInt, FrameLimits); !errors.Is(err, ErrPicture) {
		t.Errorf("too many pixels: %v", err)
	}
	for _, side := range []int{1, 2, 3, 7, 39, 41} {
		for _, v := range []byte{0, 128, 255} {
			if _, _, err := ReadGrey(bytes.Repeat([]byte{v}, side*side), side, side, side, FrameLimits); !errors.Is(err, ErrNothingRead) {
				t.Errorf("%d pixels of %d: %v", side, v, err)
			}
		}
	}
}

func ExampleReadGrey() {
	p, _ := Draw("861234567890123459")
	side := p.Side() * 3
	_, _, bits := p.Raster(3)
	frame := make([]byte, side*side)
	for i := range frame {
		if x, y := i%side, i/side; bits[y*((side+7)/8)+x/8]&(0x80>>(x%8)) == 0 {
			frame[i] = 255
		}
	}
	fmt.Println(ReadGrey(frame, side, side, side, FrameLimits))
	// Output: 861234567890123459 QR <nil>
}

func TestTheFastThresholdIsTheLibrarysOwn(t *testing.T) {
	p := must[Picture](t)(Draw("861234567890123459"))
	frames := []*grey{newGrey(40, 40), newGrey(39, 80)}
	for i, s := range simulatedShots(5) {
		frames = append(frames, s.take(p).shrunk(1+i%3))
	}
	noise := newGrey(171, 93)
	rng := rand.New(rand.NewPCG(5, 5))
	for i := range noise.pix {
		noise.pix[i] = byte(rng.IntN(1 + i%256))
	}
	for i, g := range append(frames, noise) {
		got, err := g.global()
		want, wantErr := gozxing.NewGlobalHistgramBinarizer(g).GetBlackMatrix()
		if (err == nil) != (wantErr == nil) || err == nil && got.String() != want.String() {
			t.Errorf("frame %d: another matrix, %v, %v", i, err, wantErr)
		}
	}
	if _, err := frames[0].global(); !errors.Is(err, errNoContrast) {
		t.Errorf("a flat picture: %v", err)
	}
}

func TestASmallCodeInALargePhotographIsRead(t *testing.T) {
	const text = "861234567890123459"
	p := must[Picture](t)(Draw(text))
	code := toGrey(must2(png.Decode(bytes.NewReader(must2(p.PNG(2))))))
	for _, top := range []int{1201, 1207, 1213} {
		g := newGrey(3001, 2003)
		for i := range g.pix {
			g.pix[i] = byte(140 + i%3001/40)
		}
		for y := range code.Height {
			copy(g.pix[(top+y)*g.Width+1900:], code.pix[y*code.Width:(y+1)*code.Width])
		}
		if got, _, err := ReadGrey(g.pix, g.Width, g.Height, g.Width, patient); got != text {
			t.Errorf("%d pixels down: %q, %v", top, got, err)
		}
	}
}

func TestTheAdaptiveThresholdComparesWithItsSurroundings(t *testing.T) {
	g := newGrey(50, 40)
	rng := rand.New(rand.NewPCG(3, 3))
	for i := range g.pix {
		g.pix[i] = byte(rng.IntN(256))
	}
	m, err := g.adaptive(9)
	if err != nil {
		t.Fatal(err)
	}
	for y := range g.Height {
		for x := range g.Width {
			sum, n := 0, 0
			for sy := max(0, y-4); sy <= min(g.Height-1, y+4); sy++ {
				for sx := max(0, x-4); sx <= min(g.Width-1, x+4); sx++ {
					sum, n = sum+int(g.pix[sy*g.Width+sx]), n+1
				}
			}
			if want := (int(g.pix[y*g.Width+x])+adaptiveBias)*n <= sum; m.Get(x, y) != want {
				t.Fatalf("pixel %d, %d is %v", x, y, m.Get(x, y))
			}
		}
	}
}

func TestManyGoroutinesDrawJudgeAndReadAtOnce(t *testing.T) {
	v := loadVectors(t)
	keys, text := v.inspectKeys(t), v.text(t, "order: good")
	frame := shot{module: 5, dark: 30, light: 220, noise: 2}.take(must[Picture](t)(Draw(text)))
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if in := Inspect(text, keys, at(now)); in.Verdict != VerdictOK {
				t.Errorf("judged %+v", in)
			}
			if _, err := Draw(text); err != nil {
				t.Error(err)
			}
			if got, _, err := ReadGrey(frame.pix, frame.Width, frame.Height, frame.Width, patient); got != text {
				t.Errorf("read %q, %v", got, err)
			}
		})
	}
	group.Wait()
}

package paycode

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/oned"
)

// hardship is one way in which a picture is made hard to read, in its grades, and the least share of each grade that must be
// read: a little below what was measured with the full count.
type hardship struct {
	name   string
	grades []string
	least  []int // percent
	spoil  func(grade int, rng *rand.Rand, s *shot) func(*grey) *grey
}

func asJPEG(quality int) func(*grey) *grey {
	return func(g *grey) *grey {
		var b bytes.Buffer
		img := &image.Gray{Pix: g.pix, Stride: g.Width, Rect: image.Rect(0, 0, g.Width, g.Height)}
		if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: quality}); err != nil {
			panic(err)
		}
		out, err := jpeg.Decode(&b)
		if err != nil {
			panic(err)
		}
		return toGrey(out)
	}
}

// shaded darkens a frame from one side to the other, or one half of it at once, to the given share of its light.
func shaded(share float64, edge bool, angle float64) func(*grey) *grey {
	return func(g *grey) *grey {
		sin, cos := math.Sincos(angle)
		for i, v := range g.pix {
			across := ((float64(i%g.Width)-320)*cos + (float64(i/g.Width)-240)*sin) / 200
			light := 1 - (1-share)*min(1, max(0, (across+1)/2))
			if edge && across > 0 {
				light = share
			} else if edge {
				light = 1
			}
			g.pix[i] = byte(float64(v) * light)
		}
		return g
	}
}

func same(g *grey) *grey { return g }

// hardships are what a counter sees: a screen held badly, a poor lens, poor light, poor paper. Where nothing else is said a
// module has 3.2 pixels, and the code lies straight within ten degrees.
var hardships = []hardship{
	{"turned", []string{"0-15°", "15-30°", "30-45°", "any"}, []int{98, 98, 98, 98}, func(grade int, rng *rand.Rand, s *shot) func(*grey) *grey {
		s.roll = []float64{0, 15, 30, 0}[grade] + rng.Float64()*[]float64{15, 15, 15, 360}[grade]
		return same
	}},
	{"pixels a module", []string{"2.5", "2", "1.6", "1.3"}, []int{98, 98, 95, 25}, func(grade int, _ *rand.Rand, s *shot) func(*grey) *grey {
		s.module = []float64{2.5, 2, 1.6, 1.3}[grade]
		return same
	}},
	{"tilted", []string{"15°", "20°", "25°", "30°"}, []int{98, 98, 98, 95}, func(grade int, rng *rand.Rand, s *shot) func(*grey) *grey {
		tilt, around := []float64{15, 20, 25, 30}[grade], rng.Float64()*2*math.Pi
		s.pitch, s.yaw = tilt*math.Sin(around), tilt*math.Cos(around)
		return same
	}},
	{"inverted", []string{"straight", "tilted 10°", "tilted 20°", "weak"}, []int{98, 98, 98, 95}, func(grade int, _ *rand.Rand, s *shot) func(*grey) *grey {
		s.inverted = true
		s.pitch, s.yaw = []float64{0, 10, 20, 0}[grade], []float64{0, 4, -5, 0}[grade]
		if grade == 3 {
			s.dark, s.light = 90, 150
		}
		return same
	}},
	{"contrast of 255", []string{"60", "40", "25", "16"}, []int{98, 98, 95, 5}, func(grade int, _ *rand.Rand, s *shot) func(*grey) *grey {
		half := []float64{30, 20, 12.5, 8}[grade]
		s.dark, s.light = 120-half, 120+half
		return same
	}},
	{"noise of 255", []string{"20", "30", "40", "60"}, []int{98, 98, 95, 85}, func(grade int, _ *rand.Rand, s *shot) func(*grey) *grey {
		s.noise = []float64{20, 30, 40, 60}[grade]
		return same
	}},
	{"blurred, 3×3", []string{"twice", "3 times", "4 times", "5 times"}, []int{98, 95, 40, 5}, func(grade int, _ *rand.Rand, s *shot) func(*grey) *grey {
		s.blur = 2 + grade
		return same
	}},
	{"partly dark", []string{"fading to 50 %", "fading to 20 %", "half at 50 %", "half at 25 %"}, []int{98, 98, 98, 65}, func(grade int, rng *rand.Rand, _ *shot) func(*grey) *grey {
		return shaded([]float64{0.5, 0.2, 0.5, 0.25}[grade], grade >= 2, rng.Float64()*2*math.Pi)
	}},
	{"JPEG quality", []string{"50", "25", "10", "5"}, []int{98, 98, 95, 90}, func(grade int, _ *rand.Rand, _ *shot) func(*grey) *grey {
		return asJPEG([]int{50, 25, 10, 5}[grade])
	}},
	{"all of these", []string{"mildly", "badly", "very badly", "hopelessly"}, []int{95, 95, 80, 0}, allAtOnce},
}

func allAtOnce(grade int, rng *rand.Rand, s *shot) func(*grey) *grey {
	tilt, around := float64(6+6*grade), rng.Float64()*2*math.Pi
	s.pitch, s.yaw, s.roll = tilt*math.Sin(around), tilt*math.Cos(around), rng.Float64()*360
	s.module = []float64{4, 3.5, 3, 2.5}[grade]
	s.blur, s.noise = []int{0, 1, 1, 2}[grade], []float64{6, 10, 14, 16}[grade]
	s.dark, s.light = []float64{30, 50, 70, 80}[grade], []float64{220, 190, 170, 150}[grade]
	s.inverted = rng.IntN(4) == 0
	return func(g *grey) *grey {
		return asJPEG([]int{80, 60, 50, 40}[grade])(shaded(0.6, false, rng.Float64()*6)(g))
	}
}

// barHardships are the same for Code 128. Where nothing else is said a unit has two pixels.
var barHardships = []hardship{
	{"pixels a unit", []string{"2", "1.5", "1.25", "1.1"}, []int{98, 98, 95, 30}, func(grade int, _ *rand.Rand, s *shot) func(*grey) *grey {
		s.module = []float64{2, 1.5, 1.25, 1.1}[grade]
		return same
	}},
	{"turned", []string{"5°", "10°", "20°", "90° and 5°"}, []int{98, 98, 98, 98}, func(grade int, rng *rand.Rand, s *shot) func(*grey) *grey {
		s.roll = []float64{5, 10, 20, 95}[grade]
		return same
	}},
	{"blurred, 3×3", []string{"once", "twice", "3 times", "5 times"}, []int{98, 50, 0, 0}, func(grade int, _ *rand.Rand, s *shot) func(*grey) *grey {
		s.blur = []int{1, 2, 3, 5}[grade]
		return same
	}},
	{"noise of 255", []string{"10", "20", "30", "40"}, []int{98, 98, 98, 95}, func(grade int, _ *rand.Rand, s *shot) func(*grey) *grey {
		s.noise = []float64{10, 20, 30, 40}[grade]
		return same
	}},
	{"contrast of 255", []string{"100", "60", "40", "25"}, []int{98, 98, 98, 95}, func(grade int, _ *rand.Rand, s *shot) func(*grey) *grey {
		half := []float64{50, 30, 20, 12.5}[grade]
		s.dark, s.light = 120-half, 120+half
		return same
	}},
	{"tilted", []string{"10°", "20°", "30°", "40°"}, []int{98, 98, 98, 90}, func(grade int, rng *rand.Rand, s *shot) func(*grey) *grey {
		tilt, around := []float64{10, 20, 30, 40}[grade], rng.Float64()*2*math.Pi
		s.pitch, s.yaw = tilt*math.Sin(around), tilt*math.Cos(around)
		return same
	}},
	{"partly dark", []string{"fading to 50 %", "fading to 20 %", "half at 50 %", "half at 25 %"}, []int{98, 98, 98, 85}, func(grade int, rng *rand.Rand, _ *shot) func(*grey) *grey {
		return shaded([]float64{0.5, 0.2, 0.5, 0.25}[grade], grade >= 2, rng.Float64()*2*math.Pi)
	}},
	{"JPEG quality", []string{"50", "25", "10", "5"}, []int{98, 98, 98, 95}, func(grade int, _ *rand.Rand, _ *shot) func(*grey) *grey {
		return asJPEG([]int{50, 25, 10, 5}[grade])
	}},
}

// barPicture is a Code 128 as a camera sees it: the bars a sixth as high as they are wide, with their quiet zone.
func barPicture(t testing.TB, text string) Picture {
	m, err := oned.NewCode128Writer().Encode(text, gozxing.BarcodeFormat_CODE_128, 1, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	const quiet = 10 - QuietZone
	side := m.GetWidth() + 2*quiet
	modules := make([][]bool, side)
	for y := range modules {
		modules[y] = make([]bool, side)
		for x := range m.GetWidth() {
			modules[y][x+quiet] = m.Get(x, 0) && y > side*5/12 && y < side*7/12
		}
	}
	return Picture{Modules: side, rows: pack(modules)}
}

// hardSeries is what is read for under the hardships, and at how many pixels a module.
type hardSeries struct {
	name      string
	texts     []string
	pictures  []Picture
	module    float64
	hardships []hardship
}

// TestReadRateOfHardPictures prints how much of what is read, and holds the least shares. With YUPOS_FULL=1 it takes many
// more frames of each.
func TestReadRateOfHardPictures(t *testing.T) {
	f := loadVectors(t)
	codes := hardSeries{name: "QR", module: 3.2, hardships: hardships}
	for _, name := range []string{"online: good", "receipt: good", "order: good", "signed: good"} {
		codes.texts = append(codes.texts, f.text(t, name))
		codes.pictures = append(codes.pictures, must[Picture](t)(Draw(f.text(t, name))))
	}
	lines := hardSeries{name: "Code 128", module: 2, hardships: barHardships}
	for _, text := range []string{"861234567890123459", "280000000000000001"} {
		lines.texts, lines.pictures = append(lines.texts, text), append(lines.pictures, barPicture(t, text))
	}
	for _, series := range []hardSeries{codes, lines} {
		t.Run(series.name, func(t *testing.T) { series.measure(t) })
	}
}

func (series hardSeries) measure(t *testing.T) {
	frames, lost := 1, 0
	full := os.Getenv("YUPOS_FULL") != ""
	if full {
		frames = 15 * len(series.pictures)
	}
	var table strings.Builder
	total, all, spent := 0, 0, time.Duration(0)
	for _, h := range series.hardships {
		fmt.Fprintf(&table, "\n%-16s", h.name)
		for grade, label := range h.grades {
			read := 0
			for i := range frames {
				took, ok := series.read(t, h, grade, i+grade)
				spent += took
				if ok {
					read++
				}
			}
			total, all = total+frames, all+read
			fmt.Fprintf(&table, "  %-14s %3d %%", label, 100*read/frames)
			if full && read*100 < frames*h.least[grade] {
				t.Errorf("%s %s: %d of %d read, least %d %%", h.name, label, read, frames, h.least[grade])
			}
			if h.least[grade] >= 95 {
				lost += frames - read
			}
		}
	}
	t.Logf("%s: %d of %d read, mean %v%s", series.name, all, total, (spent / time.Duration(total)).Round(10*time.Microsecond), table.String())
	if !full && lost > 2 { // of one frame a grade, in the grades where nearly all is read
		t.Errorf("%d frames lost that should be read", lost)
	}
}

// read takes the frame of that number and says whether its code was read. A misread fails the test.
func (series hardSeries) read(t *testing.T, h hardship, grade, i int) (took time.Duration, ok bool) {
	rng := rand.New(rand.NewPCG(uint64(grade), uint64(i)))
	p, text := series.pictures[i%len(series.pictures)], series.texts[i%len(series.pictures)]
	s := shot{module: series.module, dark: 30, light: 220, noise: 4, seed: uint64(i), roll: rng.Float64()*20 - 10}
	after := h.spoil(grade, rng, &s)
	s.module = min(s.module, 420/float64(p.Side()))
	g := after(s.take(p))
	start := time.Now()
	got, _, err := ReadGrey(g.pix, g.Width, g.Height, g.Width, patient)
	took = time.Since(start)
	if err == nil && got != text {
		t.Errorf("%s %s: misread %q", h.name, h.grades[grade], got)
	}
	return took, err == nil
}

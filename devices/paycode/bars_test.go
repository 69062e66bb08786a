package paycode

import (
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/oned"
)

// thorough is the way of looking along lines that most is read by.
var thorough = barPass{lines: 80, taps: 3, share: 0.2}

func TestBarsSayWhatTheLibraryDrew(t *testing.T) {
	for _, text := range []string{
		"861234567890123459", "134567890123456789", "A", "Hello, World!", "abc123456789XYZ", "00", "0123456", "lower UPPER 0123456789 ~!@#$%^&*()",
		"a\tb\x01c", "CNK8181G2C",
	} {
		m, err := oned.NewCode128Writer().Encode(text, gozxing.BarcodeFormat_CODE_128, 1, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, inverted := range []bool{false, true} {
			for _, quarters := range []int{0, 1, 2, 3} {
				g := barsOf(m, 3, quarters)
				if inverted {
					g = g.inverted()
				}
				if got, ok := readBars(g, thorough); !ok || got != text {
					t.Errorf("%q, %d quarters, inverted %v: %q", text, quarters, inverted, got)
				}
			}
		}
	}
}

// barsOf renders rows of bars with their quiet zone on white.
func barsOf(m *gozxing.BitMatrix, unit, quarters int) *grey {
	g := newGrey((m.GetWidth()+24)*unit, 40*unit)
	for i := range g.pix {
		g.pix[i] = 255
		if x, y := i%g.Width/unit-12, i/g.Width/unit; x >= 0 && x < m.GetWidth() && m.Get(x, 0) && y > 3 && y < 37 {
			g.pix[i] = 0
		}
	}
	for range quarters {
		turned, _ := g.RotateCounterClockwise()
		g = turned.(*grey)
	}
	return g
}

func TestEveryBarPatternHasElevenModulesAndNoneIsTwice(t *testing.T) {
	seen := map[string]bool{}
	for c := range barCharacters {
		p, sum := barPatterns[6*c:6*c+6], 0
		for _, w := range p {
			sum += int(w - '0')
		}
		if sum != 11 || seen[p] {
			t.Errorf("character %d is %s", c, p)
		}
		seen[p] = true
	}
	if len(barPatterns) != 6*barCharacters {
		t.Errorf("%d widths", len(barPatterns))
	}
}

// TestNoBarsAreReadWhereNoneAre looks at stripes of bar-like widths, at noise and at QR codes.
func TestNoBarsAreReadWhereNoneAre(t *testing.T) {
	rounds := 3
	if os.Getenv("YUPOS_FULL") != "" {
		rounds = 600
	}
	rng := rand.New(rand.NewPCG(128, 128))
	signed := must[Picture](t)(Draw(loadVectors(t).text(t, "signed: good")))
	for i := range rounds {
		stripes, noise := newGrey(640, 200), newGrey(640, 200)
		dark := true
		for x := 0; x < 640; dark = !dark {
			width := 2 * (1 + rng.IntN(4))
			if rng.IntN(12) == 0 {
				width = 24 // a quiet zone now and then
			}
			for ; width > 0 && x < 640; width, x = width-1, x+1 {
				for y := range 200 {
					if !dark {
						stripes.pix[y*640+x] = 255
					}
				}
			}
		}
		for k := range noise.pix {
			noise.pix[k] = byte(rng.IntN(256))
		}
		code := shot{module: 3 + rng.Float64()*2, roll: rng.Float64() * 360, dark: 30, light: 220, noise: 4, seed: uint64(i)}.take(signed)
		for name, g := range map[string]*grey{"stripes": stripes, "noise": noise, "a QR code": code} {
			for _, pass := range []barPass{{lines: 40, taps: 1, share: 0.2}, thorough, {lines: 64, taps: 9, share: 0.2, sharpen: 2}} {
				if text, ok := readBars(g, pass); ok {
					t.Errorf("%s %d: read %q", name, i, text)
				}
			}
		}
	}
}

func TestACheckCharacterAndAQuietZoneAreWanted(t *testing.T) {
	codes := []byte{105, 86, 12, 34, 56, 78, 90, 12, 34, 59}
	sum := 105
	for i, c := range codes[1:] {
		sum += (i + 1) * int(c)
	}
	good := append(slices.Clone(codes), byte(sum%barSum))
	widthsOf := func(codes []byte, quiet float64) []float64 {
		w := []float64{quiet}
		for _, c := range codes {
			for _, p := range barPatterns[6*int(c) : 6*int(c)+6] {
				w = append(w, 2.2*float64(p-'0'))
			}
		}
		for _, p := range barStop {
			w = append(w, 2.2*float64(p-'0'))
		}
		return append(w, quiet)
	}
	if got := decodeBars(widthsOf(good, 22), 1); !slices.Equal(got, good) {
		t.Fatalf("good: %v", got)
	}
	if text, ok := barText(good); !ok || text != "861234567890123459" {
		t.Errorf("%q", text)
	}
	wrong := append(slices.Clone(codes), byte((sum+1)%barSum))
	for name, w := range map[string][]float64{
		"another check": widthsOf(wrong, 22), "no quiet zone": widthsOf(good, 4), "start and check alone": widthsOf([]byte{105, 2}, 22),
		"cut": widthsOf(good, 22)[:40], "a start within": widthsOf([]byte{105, 86, 104, 7, 8}, 22),
	} {
		if got := decodeBars(w, 1); got != nil {
			t.Errorf("%s: %v", name, got)
		}
	}
	ink := widthsOf(good, 22) // every bar swollen, every space shrunk by a third of a module
	for i := 1; i < len(ink)-1; i++ {
		if i%2 == 1 {
			ink[i] += 0.7
		} else {
			ink[i] -= 0.7
		}
	}
	if got := decodeBars(ink, 1); !slices.Equal(got, good) {
		t.Errorf("swollen: %v", got)
	}
}

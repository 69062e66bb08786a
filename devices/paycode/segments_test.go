package paycode

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	qrcode "github.com/skip2/go-qrcode"

	"yupos/ledgercache/money"
)

// capacityM are the data bytes of versions 1 to 15 at level M (ISO/IEC 18004, table 7).
var capacityM = [16]int{0, 16, 28, 44, 64, 86, 108, 124, 154, 182, 216, 254, 290, 334, 365, 415}

// headerBits is what a segment costs before its characters.
func headerBits(mode string, version int) int {
	class := 0
	if version >= 10 {
		class = 1
	}
	for _, m := range segmentModes {
		if m.name == mode {
			return 4 + m.widths[class]
		}
	}
	panic(mode)
}

func bitsOf(segments []Segment, version int) (bits int) {
	indicators := map[string]int{"numeric": 1, "alphanumeric": 2, "byte": 4}
	for _, s := range segments {
		bits += headerBits(s.Mode, version) + segmentBits(indicators[s.Mode], s.Characters)
	}
	return bits
}

// fewestBits is the least number of bits in which text can be packed in any division into segments, by trying all of them from
// the front; in sixths of a bit, because digits and capitals share their groups.
func fewestBits(text string, version int) int {
	const impossible = 1 << 30
	modes := []struct {
		name  string
		each  int // sixths of a bit a character
		holds func(c byte) bool
	}{
		{"numeric", 20, func(c byte) bool { return c >= '0' && c <= '9' }},
		{"alphanumeric", 33, func(c byte) bool {
			return strings.IndexByte("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:", c) >= 0
		}},
		{"byte", 48, func(byte) bool { return true }},
	}
	best := make([]int, len(modes))
	for m := range modes {
		best[m] = 6 * headerBits(modes[m].name, version)
	}
	for i := range len(text) {
		next := make([]int, len(modes))
		least := impossible
		for m, mode := range modes {
			next[m] = impossible
			if mode.holds(text[i]) && best[m] < impossible {
				next[m] = best[m] + mode.each
			}
			least = min(least, next[m])
		}
		for m := range modes { // or begin another segment behind this character, at whole bits
			next[m] = min(next[m], (least+5)/6*6+6*headerBits(modes[m].name, version))
		}
		best = next
	}
	return (min(best[0], best[1], best[2]) + 5) / 6
}

func fewestVersion(text string) int {
	for v := 1; v < len(capacityM); v++ {
		if fewestBits(text, v) <= 8*capacityM[v] {
			return v
		}
	}
	return len(capacityM)
}

// TestTheEncodersSegmentsAreWhatWeCountOn reads the segments back from the drawn modules: the encoder chooses them by a rule of
// its own, and a version more would cost a dot a module on 58 mm paper.
func TestTheEncodersSegmentsAreWhatWeCountOn(t *testing.T) {
	f := loadVectors(t)
	for name, want := range map[string]string{
		"online: good":  "[{numeric 18}]",
		"signed: good":  "[{byte 328}]",
		"receipt: good": "[{byte 220}]",
		"order: good": "[{numeric 20} {byte 5} {numeric 52} {alphanumeric 41} {numeric 8} {byte 5} {numeric 6} {alphanumeric 24} {numeric 22} {byte 5} {numeric 4} " +
			"{byte 86} {numeric 4} {alphanumeric 4}]",
	} {
		p := must[Picture](t)(Draw(f.text(t, name)))
		if got := fmt.Sprint(p.Segments); got != want {
			t.Errorf("%s: %s", name, got)
		}
		if bits := bitsOf(p.Segments, p.Version); bits > 8*capacityM[p.Version] || p.Version > 1 && bits <= 8*capacityM[p.Version-1] {
			t.Errorf("%s: version %d for %d bits", name, p.Version, bits)
		}
		if least := fewestVersion(f.text(t, name)); p.Version != least {
			t.Errorf("%s: version %d, %d would do", name, p.Version, least)
		}
	}
}

// TestTheEncoderLosesNoVersionOnAnOrder compares with the best division into segments that there is.
func TestTheEncoderLosesNoVersionOnAnOrder(t *testing.T) {
	n := 40
	if os.Getenv("YUPOS_FULL") != "" {
		n = 2000
	}
	rng := rand.New(rand.NewPCG(12, 5))
	lost := 0
	for range n {
		o := goodOrder()
		name := make([]byte, 1+rng.IntN(25))
		for i := range name {
			name[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz"[rng.IntN(53)]
		}
		o.MerchantName, o.AmountFen, o.Expires = string(name), 1+(o.AmountFen<<rng.IntN(20))%money.Max, now+rng.Uint32N(600)
		text := must2(MakeOrder(o, keyFrom("terminal")))
		p := must[Picture](t)(Draw(text))
		least := fewestVersion(text)
		if p.Version > 12 || p.Version > least+1 {
			t.Errorf("version %d for %d characters, %d would do", p.Version, len(text), least)
		}
		if p.Version > least {
			lost++
		}
	}
	t.Logf("of %d orders %d took a version more than the best division", n, lost)
}

// TestEachLevelHasItsDotsOnPaper is the table by which level M was chosen; FORMAT.md prints it.
func TestEachLevelHasItsDotsOnPaper(t *testing.T) {
	f := loadVectors(t)
	for _, tt := range []struct{ name, want string }{
		{"online: good", "L v1 13/19, M v1 13/19, Q v1 13/19, H v2 11/17"},
		{"order: good", "L v10 5/8, M v11 5/8, Q v13 4/7, H v16 4/6"},
		{"receipt: good", "L v9 6/9, M v11 5/8, Q v13 4/7, H v15 4/6"},
		{"signed: good", "L v12 5/7, M v13 4/7, Q v17 4/6, H v19 3/5"},
	} {
		var got []string
		for i, level := range []qrcode.RecoveryLevel{qrcode.Low, qrcode.Medium, qrcode.High, qrcode.Highest} {
			code := must[*qrcode.QRCode](t)(qrcode.New(f.text(t, tt.name), level))
			side := 17 + 4*code.VersionNumber + 2*QuietZone
			got = append(got, fmt.Sprintf("%c v%d %d/%d", "LMQH"[i], code.VersionNumber, Paper58Dots/side, Paper80Dots/side))
		}
		if s := strings.Join(got, ", "); s != tt.want {
			t.Errorf("%s: %s", tt.name, s)
		}
	}
}

package paycode

import (
	"math"
	"slices"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/oned"
)

// The library looks for Code 128 along rows that were made black and white first, which wants an upright, sharp and evenly lit
// code. Here lines are laid through the picture in every direction; the places where each crosses from dark to light are found
// between the pixels, halfway between neighbouring extremes; and a character is known by the distances from edge to similar edge,
// which neither ink nor blur changes.

// barPatterns are the widths of bars and spaces of the 106 characters of Code 128, six each (ISO/IEC 15417, table 1); the last
// three are the starts A, B and C.
const barPatterns = "" +
	"212222222122222221121223121322131222122213122312132212221213221312231212112232122132122231113222123122" +
	"123221223211221132221231213212223112312131311222321122321221312212322112322211212123212321232121111323" +
	"131123131321112313132113132311211313231113231311112133112331132131113123113321133121313121211331231131" +
	"213113213311213131311123311321331121312113312311332111314111221411431111111224111422121124121421141122" +
	"141221112214112412122114122411142112142211241211221114413111241112134111111242121142121241114212124112" +
	"124211411212421112421211212141214121412121111143111341131141114113114311411113411311113141114131311141" +
	"411131211412211214211232"

// barStop are the widths of the stop character.
const barStop = "2331112"

const (
	barCharacters = 106 // without the stop
	barStartA     = 103
	barSum        = 103 // the modulus of the check character
	barMaximum    = 80  // characters of one code, start and check included
	barQuiet      = 4.5 // white modules wanted on either side; the norm says 10, screens and labels have fewer
	barVotes      = 2   // lines that must say the same before a code is believed,
	barShort      = 8   // or twice as many where it has fewer characters than this
)

// barPass is one way to look along lines: how many lines each direction has across the picture, how many parallel ones are
// averaged for each, which share of the local contrast a turn of the light must have to count, and how much of its neighbours'
// light a sample is cleared of.
type barPass struct {
	lines, taps    int
	share, sharpen float32
}

// barReader reads Code 128 in one picture. It holds buffers, for one goroutine.
type barReader struct {
	g       *grey
	pass    barPass
	levels  []float32
	clear   []float32
	reach   []float32 // contrast by blocks of barBlock samples
	edges   []float64
	widths  []float64
	counted map[string]int
}

// barBlock is how many samples share one estimate of the contrast around them.
const barBlock = 32

// readBars lays lines through the picture in every direction and returns what enough of them say.
func readBars(g *grey, pass barPass) (text string, ok bool) {
	r := &barReader{g: g, pass: pass, counted: make(map[string]int)}
	for _, degrees := range []float64{0, 90, 8, 172, 98, 82, 16, 164, 106, 74, 24, 156, 114, 66, 33, 147, 123, 57, 45, 135} {
		if text, ok := r.along(degrees); ok {
			return text, true
		}
	}
	return "", false
}

// along reads the lines of one direction, from the middle outwards.
func (r *barReader) along(degrees float64) (string, bool) {
	sin, cos := math.Sincos(degrees * math.Pi / 180)
	w, h := float64(r.g.Width), float64(r.g.Height)
	breadth := w*math.Abs(sin) + h*math.Abs(cos)
	spacing := max(3, breadth/float64(r.pass.lines))
	for i := range int(breadth / spacing) {
		off := float64((i+1)/2) * spacing
		if i%2 == 1 {
			off = -off
		}
		if !r.sample(w/2-off*sin, h/2+off*cos, cos, sin) {
			continue
		}
		r.findEdges()
		if text, ok := r.decodeLine(); ok {
			return text, true
		}
	}
	return "", false
}

// sample takes the levels of the line through (x, y) in direction (dx, dy), one a pixel, as far as it lies in the picture.
func (r *barReader) sample(x, y, dx, dy float64) bool {
	from, to := math.Inf(-1), math.Inf(1)
	for _, axis := range [][3]float64{{x, dx, float64(r.g.Width - 1)}, {y, dy, float64(r.g.Height - 1)}} {
		if math.Abs(axis[1]) < 1e-9 {
			if axis[0] < 0 || axis[0] > axis[2] {
				return false
			}
			continue
		}
		a, b := -axis[0]/axis[1], (axis[2]-axis[0])/axis[1]
		from, to = max(from, min(a, b)), min(to, max(a, b))
	}
	n := int(to - from)
	if n < 60 {
		return false
	}
	r.levels = slices.Grow(r.levels[:0], n)[:n]
	scale := 1 / float32(r.pass.taps)
	for i := range r.levels {
		r.levels[i] = 0
	}
	for k := range r.pass.taps {
		side := float64(k - r.pass.taps/2)
		r.addLine(x+from*dx-side*dy, y+from*dy+side*dx, dx, dy, scale)
	}
	r.sharpenLevels()
	return true
}

// addLine adds the levels along a line, times scale, in fixed point; what lies outside the picture continues its edge.
func (r *barReader) addLine(x, y, dx, dy float64, scale float32) {
	const one = 1 << 16
	fx, fy, stepX, stepY := int(x*one), int(y*one), int(math.Round(dx*one)), int(math.Round(dy*one))
	pix, width := r.g.pix, r.g.Width
	scale /= one
	for i := range r.levels {
		ix, iy := fx>>16, fy>>16
		if ix >= 0 && iy >= 0 && ix < width-1 && iy < r.g.Height-1 {
			px, py, at := fx&(one-1)>>8, fy&(one-1)>>8, iy*width+ix
			top := int(pix[at])*(256-px) + int(pix[at+1])*px
			bottom := int(pix[at+width])*(256-px) + int(pix[at+width+1])*px
			r.levels[i] += float32(top*(256-py)+bottom*py) * scale
		} else {
			r.levels[i] += float32(r.g.sample(float64(fx)/one, float64(fy)/one)) * one * scale
		}
		fx, fy = fx+stepX, fy+stepY
	}
}

// sharpenLevels takes back what blur has mixed in from the neighbours.
func (r *barReader) sharpenLevels() {
	if r.pass.sharpen == 0 {
		return
	}
	v := r.levels
	r.clear = slices.Grow(r.clear[:0], len(v))[:len(v)]
	for i := range v {
		r.clear[i] = v[i] + r.pass.sharpen*(2*v[i]-v[max(0, i-1)]-v[min(len(v)-1, i+1)])
	}
	r.levels, r.clear = r.clear, r.levels
}

// contrasts estimates the contrast around every block of samples.
func (r *barReader) contrasts() {
	blocks := (len(r.levels) + barBlock - 1) / barBlock
	r.reach = slices.Grow(r.reach[:0], blocks)[:blocks]
	for b := range blocks {
		part := r.levels[max(0, (b-1)*barBlock):min(len(r.levels), (b+2)*barBlock)]
		r.reach[b] = max(6, (slices.Max(part)-slices.Min(part))*r.pass.share)
	}
}

// findEdges finds the edges of the line. A turn of the light counts once it has gone back by
// the share of the contrast; the edge lies where the level is halfway between two turns.
func (r *barReader) findEdges() {
	r.contrasts()
	r.edges = r.edges[:0]
	v := r.levels
	turn, best := 0, 0 // the last turn, and the farthest sample from it since
	falling := true
	for i := range v {
		far := v[i] - v[best]
		if falling {
			far = -far
		}
		switch {
		case far >= 0:
			best = i
		case -far > r.reach[i/barBlock]:
			if best > turn {
				r.edge(turn, best, falling)
			}
			turn, best, falling = best, i, !falling
		}
	}
	if best > turn {
		r.edge(turn, best, falling)
	}
}

// edge appends where the level between two turns is halfway. What a line begins with is no turn, and may be too little.
func (r *barReader) edge(from, to int, falling bool) {
	if depth := r.levels[from] - r.levels[to]; len(r.edges) == 0 && max(depth, -depth) < r.reach[from/barBlock] {
		return
	}
	middle := (r.levels[from] + r.levels[to]) / 2
	at := from
	for at+1 < to && (r.levels[at+1] > middle) == falling {
		at++
	}
	part := float64(0.5)
	if step := r.levels[at+1] - r.levels[at]; step != 0 {
		part = float64((middle - r.levels[at]) / step)
	}
	r.edges = append(r.edges, float64(at)+min(1, max(0, part)))
}

// decodeLine looks for codes among the edges, forwards and backwards, dark on light and light on dark.
func (r *barReader) decodeLine() (string, bool) {
	if len(r.edges) < 3*6+8 { // start, one character, check, stop
		return "", false
	}
	r.widths = r.widths[:0]
	for i := range len(r.edges) - 1 {
		r.widths = append(r.widths, r.edges[i+1]-r.edges[i])
	}
	for range 2 {
		for i := 0; i+4*6 < len(r.widths); i++ {
			if codes := decodeBars(r.widths, i); codes != nil {
				key, votes := string(codes), barVotes
				if len(codes) < barShort {
					votes *= 2
				}
				if r.counted[key]++; r.counted[key] >= votes {
					if text, ok := barText(codes); ok {
						return text, true
					}
				}
			}
		}
		slices.Reverse(r.widths)
	}
	return "", false
}

// decodeBars reads the code whose first bar is widths[at]: its characters with start and check, or nil. What lies before the
// first edge and behind the last one is as wide as it likes.
func decodeBars(widths []float64, at int) []byte {
	unit := sumOf(widths[at:at+6]) / 11
	if at > 0 && widths[at-1] < barQuiet*unit {
		return nil
	}
	start, ok := matchBars(widths[at:at+6], barStartA)
	if !ok {
		return nil
	}
	codes := []byte{start}
	for at += 6; at+7 <= len(widths) && len(codes) < barMaximum; at += 6 {
		next := sumOf(widths[at:at+6]) / 11
		if next > unit*1.25 || next < unit*0.8 {
			return nil
		}
		unit = next
		if isStop(widths[at:], unit) {
			return checkedBars(codes)
		}
		code, ok := matchBars(widths[at:at+6], 0)
		if !ok || code >= barStartA {
			return nil
		}
		codes = append(codes, code)
	}
	return nil
}

// checkedBars returns codes if the last of them is the check character of the others, and there is something to check.
func checkedBars(codes []byte) []byte {
	last := len(codes) - 1
	if last < 2 {
		return nil
	}
	sum := int(codes[0])
	for i, c := range codes[1:last] {
		sum += (i + 1) * int(c)
	}
	if sum%barSum != int(codes[last]) {
		return nil
	}
	return codes
}

func sumOf(widths []float64) (sum float64) {
	for _, w := range widths {
		sum += w
	}
	return sum
}

// isStop says whether the stop character begins here, with white behind it or the end of the line.
func isStop(widths []float64, unit float64) bool {
	if len(widths) > 7 && widths[7] < barQuiet*unit || widths[6] < unit || widths[6] > 3.2*unit {
		return false
	}
	_, worst := barDistance(widths[:6], barStop[:6], 11/sumOf(widths[:6]))
	return worst < barTolerance
}

// barTolerance is how many modules a distance between similar edges may be off.
const barTolerance = 0.8

// matchBars returns the character, of those from first on, whose six widths are nearest.
func matchBars(widths []float64, first int) (code byte, ok bool) {
	scale := 11 / sumOf(widths)
	best, bestWorst := math.Inf(1), 0.0
	for c := first; c < barCharacters; c++ {
		if d, worst := barDistance(widths, barPatterns[6*c:6*c+6], scale); d < best {
			best, bestWorst, code = d, worst, byte(c)
		}
	}
	return code, bestWorst < barTolerance
}

// barDistance says how far six widths are from a pattern: the sum of squares of the distances between similar edges and, at a
// third, of the widths themselves; and the worst of the former.
func barDistance(widths []float64, pattern string, scale float64) (sum, worst float64) {
	for i := range 6 {
		off := widths[i]*scale - float64(pattern[i]-'0')
		sum += off * off / 3
		if i < 5 {
			pair := off + widths[i+1]*scale - float64(pattern[i+1]-'0')
			sum += pair * pair
			worst = max(worst, math.Abs(pair))
		}
	}
	return sum, worst
}

// barText lets the library say what the characters mean: it is shown the ideal bars of them.
func barText(codes []byte) (string, bool) {
	row := gozxing.NewBitArray(11*(len(codes)+1) + 2 + 20)
	at := 10
	draw := func(pattern string) {
		for i := range len(pattern) {
			for range int(pattern[i] - '0') {
				if i%2 == 0 {
					row.Set(at)
				}
				at++
			}
		}
	}
	for _, c := range codes {
		draw(barPatterns[6*int(c) : 6*int(c)+6])
	}
	draw(barStop)
	reader, ok := oned.NewCode128Reader().(oned.RowDecoder)
	if !ok {
		return "", false
	}
	result, err := reader.DecodeRow(0, row, nil)
	if err != nil || result.GetText() == "" {
		return "", false
	}
	return latin1(result.GetText()), true
}

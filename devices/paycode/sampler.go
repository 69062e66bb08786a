package paycode

import (
	"math"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode/detector"
)

// The sampler reads a QR code that the camera saw at an angle. The library computes its grid from three finder centres and
// at most one alignment pattern, which fails under tilt; the sampler finds the four outer corners of each finder and fits a
// homography through all twelve.

// The numbers of the sampler, in modules unless they say otherwise.
const (
	finderSide      = 7.0
	ringRadius      = 3.0 // from the finder's centre to the middle of its dark ring
	fillReach       = 5.0 // the fill of the ring stops here: beyond lies a leak
	ringArea        = 8.0 // the ring has 24 square modules; with fewer than this it was not the ring
	sideSlices      = 64
	sideMiddle      = 2.6 // corners of a blurred ring are round: only the middle of a side is fitted
	maxFillPixels   = 1 << 20
	timingMismatch  = 0.25
	sampleSpread    = 0.22
	alignmentReach  = 3.0
	alignmentAgree  = 20 // of 25 modules
	alignmentWeight = 8.0
	dimensionSpread = 12
	dimensionsTried = 3
	smallestQR      = 21
	largestQR       = 177
)

// bitmap is a binary matrix that is white outside itself.
type bitmap struct {
	*gozxing.BitMatrix
	width, height int
}

func newBitmap(m *gozxing.BitMatrix) bitmap { return bitmap{m, m.GetWidth(), m.GetHeight()} }

func (b bitmap) dark(x, y int) bool {
	return x >= 0 && y >= 0 && x < b.width && y < b.height && b.Get(x, y)
}

func (b bitmap) darkAt(p point) bool {
	if !(p.x >= 0 && p.y >= 0 && p.x < float64(b.width) && p.y < float64(b.height)) { // also false for NaN
		return false
	}
	return b.Get(int(p.x), int(p.y))
}

// finder is one finder pattern: its centre, and one module to the right and downwards of the code in pixels.
type finder struct {
	centre, right, down point
	corners             [4]point // outer corners: top left, top right, bottom right, bottom left
	found               bool
}

// toModules returns how far p lies from the centre, in modules of the finder's own skewed axes.
func (f *finder) toModules(p point) (s, t float64) {
	d, det := p.minus(f.centre), f.right.cross(f.down)
	return d.cross(f.down) / det, f.right.cross(d) / det
}

// sampleQR calls try with matrices sampled from a binary picture with three known finders, the most likely first, until
// try says that one decodes.
func sampleQR(g *grey, m *gozxing.BitMatrix, info *detector.FinderPatternInfo, try func(*gozxing.BitMatrix) bool) bool {
	b := newBitmap(m)
	finders, ok := findCorners(b, info)
	if !ok {
		return false
	}
	for _, c := range gridCandidates(b, finders) {
		grids := []homography{c.grid}
		if aligned, ok := align(b, finders, c); ok {
			grids = append(grids, aligned)
		}
		for i := range grids {
			if try(sampleGrid(b, &grids[i], c.dimension)) {
				return true
			}
		}
		for i := range grids {
			levels := sampleLevels(g, &grids[i], c.dimension)
			if try(levels.threshold(0)) || try(levels.threshold(levelSharpening)) {
				return true
			}
		}
	}
	return false
}

// findCorners locates the outer corners of the three finders: top left, top right, bottom left.
func findCorners(b bitmap, info *detector.FinderPatternInfo) ([3]finder, bool) {
	var finders [3]finder
	patterns := [3]*detector.FinderPattern{info.GetTopLeft(), info.GetTopRight(), info.GetBottomLeft()}
	for i, p := range patterns {
		finders[i].centre = point{p.GetX(), p.GetY()}
	}
	right, down := finders[1].centre.minus(finders[0].centre), finders[2].centre.minus(finders[0].centre)
	if right.length() < 1 || down.length() < 1 {
		return finders, false
	}
	found := 0
	for i, p := range patterns {
		f := &finders[i]
		f.right = b.moduleAlong(f.centre, right.times(1/right.length()), p.GetEstimatedModuleSize())
		f.down = b.moduleAlong(f.centre, down.times(1/down.length()), p.GetEstimatedModuleSize())
		if area := math.Abs(f.right.cross(f.down)); area < 0.1*f.right.length()*f.down.length() || area < 0.25 {
			return finders, false
		}
		if f.locate(b); f.found {
			found++
		}
	}
	return finders, found >= 2
}

// moduleAlong returns one module of a finder in the direction of unit, measured from its centre through dark, white and
// dark to the outer edges both ways. The library's own estimate, taken along the rows of the picture, is up to 1.4 times
// too large for a turned code and serves only where an edge is not found.
func (b bitmap) moduleAlong(centre, unit point, estimate float64) point {
	forth, okForth := b.runToEdge(centre, unit, 2*finderSide*estimate)
	back, okBack := b.runToEdge(centre, unit.times(-1), 2*finderSide*estimate)
	switch {
	case okForth && okBack && max(forth, back) < 1.5*min(forth, back):
		return unit.times((forth + back) / finderSide)
	case okForth && (!okBack || forth < back):
		return unit.times(forth / (finderSide / 2))
	case okBack:
		return unit.times(back / (finderSide / 2))
	}
	return unit.times(estimate)
}

// runToEdge walks from the dark centre of a finder until the third change of colour, its outer edge.
func (b bitmap) runToEdge(from, unit point, limit float64) (distance float64, ok bool) {
	const step = 0.25
	dark, changes := true, 0
	for d := 0.0; d < limit; d += step {
		if b.darkAt(from.along(unit, d)) != dark {
			dark = !dark
			if changes++; changes == 3 {
				return d - step/2, true
			}
		}
	}
	return 0, false
}

// locate fills the dark ring and fits its four outer sides, twice: the second time with the axes that the first corners give.
func (f *finder) locate(b bitmap) {
	ring := f.fillRing(b)
	if ring == nil || !f.fitCorners(ring) {
		return
	}
	first := *f
	c := f.corners
	centre, ok := line{c[0], c[2].minus(c[0])}.meet(line{c[1], c[3].minus(c[1])})
	f.right = c[1].minus(c[0]).plus(c[2].minus(c[3])).times(0.5 / finderSide)
	f.down = c[3].minus(c[0]).plus(c[2].minus(c[1])).times(0.5 / finderSide)
	if ok {
		f.centre = centre
	}
	if !ok || math.Abs(f.right.cross(f.down)) < 0.1 || !f.fitCorners(ring) {
		*f = first
	}
	f.found = true
}

type pixel struct{ x, y int }

// fillRing collects the pixels of the dark ring, or nothing where the ring cannot be told from its surroundings.
func (f *finder) fillRing(b bitmap) []point {
	var start point
	ok := false
	for _, d := range []point{f.right.times(ringRadius), f.down.times(ringRadius), f.right.times(-ringRadius), f.down.times(-ringRadius)} {
		if start = f.centre.plus(d); b.darkAt(start) {
			ok = true
			break
		}
	}
	if !ok {
		return nil
	}
	area := math.Abs(f.right.cross(f.down))
	reachX := int(fillReach*(math.Abs(f.right.x)+math.Abs(f.down.x))) + 2
	reachY := int(fillReach*(math.Abs(f.right.y)+math.Abs(f.down.y))) + 2
	left, top, side := int(f.centre.x)-reachX, int(f.centre.y)-reachY, 2*reachX+1
	if side*(2*reachY+1) > maxFillPixels {
		return nil
	}
	seen := make([]bool, side*(2*reachY+1))
	var ring []point
	stack := []pixel{{int(start.x), int(start.y)}}
	for len(stack) > 0 {
		p := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		at, place := (p.y-top)*side+p.x-left, point{float64(p.x) + 0.5, float64(p.y) + 0.5}
		s, t := f.toModules(place)
		// Within the reach in modules a pixel is also within the window; NaN is within neither.
		if !(math.Abs(s) <= fillReach && math.Abs(t) <= fillReach) || seen[at] || !b.dark(p.x, p.y) {
			continue
		}
		seen[at] = true
		ring = append(ring, place)
		stack = append(stack, pixel{p.x + 1, p.y}, pixel{p.x - 1, p.y}, pixel{p.x, p.y + 1}, pixel{p.x, p.y - 1})
	}
	if float64(len(ring)) < ringArea*area {
		return nil
	}
	return ring
}

// fitCorners fits a line to each outer side of the ring and crosses neighbours.
func (f *finder) fitCorners(ring []point) bool {
	// Each side in turn: how far out, how far along, which way out is.
	var sides [4]line // top, right, bottom, left
	for i := range sides {
		l, ok := f.fitSide(ring, i)
		if !ok {
			return false
		}
		sides[i] = l
	}
	var corners [4]point
	for i := range corners {
		c, ok := sides[i].meet(sides[(i+3)%4])
		if !ok || c.minus(f.centre).length() > 3*finderSide*(f.right.length()+f.down.length())/2 {
			return false
		}
		corners[i] = c
	}
	f.corners = corners
	return true
}

// fitSide fits one outer side (0 top, 1 right, 2 bottom, 3 left) through the outermost ring pixel of each slice.
func (f *finder) fitSide(ring []point, side int) (line, bool) {
	outward, pixel, alongPixel := 1.0, 1/f.right.length(), 1/f.down.length() // one pixel in modules, across and along the side
	if side == 0 || side == 3 {
		outward = -1
	}
	if side%2 == 0 {
		pixel, alongPixel = alongPixel, pixel
	}
	// A slice is at least a pixel wide: a thinner one may hold only pixels of the far side.
	slices := int(min(sideSlices, 2*sideMiddle/alongPixel))
	var reach [sideSlices]float64
	var has [sideSlices]bool
	var place [sideSlices]float64
	for _, p := range ring {
		across, along := f.toModules(p)
		if side%2 == 0 {
			across, along = along, across
		}
		if math.Abs(along) > sideMiddle || across*outward < 1 {
			continue
		}
		i := min(slices-1, int((along+sideMiddle)/(2*sideMiddle)*float64(slices)))
		if !has[i] || across*outward > reach[i]*outward {
			has[i], reach[i], place[i] = true, across, along
		}
	}
	var along, across []float64
	for i := range has {
		if has[i] {
			along, across = append(along, place[i]), append(across, reach[i]+outward*pixel/2)
		}
	}
	a, slope, ok := fitLine(along, across, min(0.6, max(0.25, 1.2*pixel)))
	if !ok {
		return line{}, false
	}
	if side%2 == 0 {
		return line{f.centre.along(f.down, a), f.right.along(f.down, slope)}, true
	}
	return line{f.centre.along(f.right, a), f.down.along(f.right, slope)}, true
}

// fitLine fits y = a + slope·x by least squares, leaving out what lies further off than tolerance, in up to three passes.
func fitLine(x, y []float64, tolerance float64) (a, slope float64, ok bool) {
	for pass := 0; ; pass++ {
		n := float64(len(x))
		if n < 4 {
			return 0, 0, false
		}
		var sx, sy, sxx, sxy float64
		for i := range x {
			sx, sy, sxx, sxy = sx+x[i], sy+y[i], sxx+x[i]*x[i], sxy+x[i]*y[i]
		}
		det := n*sxx - sx*sx
		if det < 1e-9 {
			return 0, 0, false
		}
		slope = (n*sxy - sx*sy) / det
		a = (sy - slope*sx) / n
		if pass == 3 {
			return a, slope, true
		}
		keptX, keptY := x[:0:0], y[:0:0]
		for i := range x {
			if math.Abs(y[i]-a-slope*x[i]) <= tolerance {
				keptX, keptY = append(keptX, x[i]), append(keptY, y[i])
			}
		}
		if len(keptX) == len(x) {
			return a, slope, true
		}
		x, y = keptX, keptY
	}
}

// grid is one guess at where the modules lie.
type grid struct {
	grid      homography
	dimension int
	mismatch  float64 // share of the timing patterns that does not alternate
}

// gridCandidates returns up to three grids around the dimension that the finders suggest, those whose timing patterns fit
// best first.
func gridCandidates(b bitmap, finders [3]finder) []grid {
	estimate := estimateDimension(finders)
	var found []grid
	for delta := -dimensionSpread; delta <= dimensionSpread; delta += 4 {
		d := estimate + delta
		if d < smallestQR || d > largestQR {
			continue
		}
		h, ok := fitHomography(finderMatches(finders, d, true))
		if !ok {
			continue
		}
		g := grid{h, d, timingError(b, &h, d)}
		if g.mismatch > timingMismatch {
			continue
		}
		at := len(found)
		for at > 0 && found[at-1].mismatch > g.mismatch {
			at--
		}
		found = append(found, grid{})
		copy(found[at+1:], found[at:])
		found[at] = g
	}
	return found[:min(len(found), dimensionsTried)]
}

// estimateDimension divides the distances of the finders by their modules and rounds to 4k + 1.
func estimateDimension(f [3]finder) int {
	across := f[1].centre.minus(f[0].centre).length() / ((f[0].right.length() + f[1].right.length()) / 2)
	along := f[2].centre.minus(f[0].centre).length() / ((f[0].down.length() + f[2].down.length()) / 2)
	d := (across+along)/2 + finderSide
	if !(d > 0 && d < 2*largestQR) {
		return 0
	}
	return int(math.Round((d-1)/4))*4 + 1
}

// finderMatches pairs the corners, and the centres if wanted, of the finders with their places in a code of dimension d.
func finderMatches(finders [3]finder, d int, centres bool) []match {
	far := float64(d) - finderSide
	matches := make([]match, 0, 16)
	for i, origin := range [3]point{{0, 0}, {far, 0}, {0, far}} {
		f := finders[i]
		if f.found {
			for c, offset := range [4]point{{0, 0}, {finderSide, 0}, {finderSide, finderSide}, {0, finderSide}} {
				matches = append(matches, match{origin.plus(offset), f.corners[c], 1})
			}
		}
		if centres || !f.found {
			matches = append(matches, match{origin.plus(point{finderSide / 2, finderSide / 2}), f.centre, 1})
		}
	}
	return matches
}

// timingError returns the share of modules in both timing patterns that have the wrong colour under h.
func timingError(b bitmap, h *homography, d int) float64 {
	wrong, total := 0, 0
	for i := 8; i < d-8; i++ {
		for _, p := range [2]point{{float64(i) + 0.5, 6.5}, {6.5, float64(i) + 0.5}} {
			if total++; b.darkAt(h.at(p)) != (i%2 == 0) {
				wrong++
			}
		}
	}
	return float64(wrong) / float64(total)
}

// sampleGrid reads every module by a majority of five points.
func sampleGrid(b bitmap, h *homography, d int) *gozxing.BitMatrix {
	matrix, _ := gozxing.NewSquareBitMatrix(d) // fails only below one module
	for y := range d {
		for x := range d {
			p, votes := point{float64(x) + 0.5, float64(y) + 0.5}, 0
			for _, o := range [5]point{{}, {sampleSpread, 0}, {-sampleSpread, 0}, {0, sampleSpread}, {0, -sampleSpread}} {
				if b.darkAt(h.at(p.plus(o))) {
					votes++
				}
			}
			if votes >= 3 {
				matrix.Set(x, y)
			}
		}
	}
	return matrix
}

// align looks for the bottom-right alignment pattern near where the grid expects it and fits again with it; not for version
// 1, which has none, nor where it is not seen.
func align(b bitmap, finders [3]finder, g grid) (homography, bool) {
	if g.dimension <= smallestQR {
		return homography{}, false
	}
	expected := point{float64(g.dimension) - 6.5, float64(g.dimension) - 6.5}
	best, bestScore := point{}, math.Inf(-1)
	for dy := -alignmentReach; dy <= alignmentReach; dy += 0.5 {
		for dx := -alignmentReach; dx <= alignmentReach; dx += 0.5 {
			at := expected.plus(point{dx, dy})
			agree := alignmentScore(b, &g.grid, at)
			if score := float64(agree) - math.Hypot(dx, dy); agree >= alignmentAgree && score > bestScore {
				best, bestScore = at, score
			}
		}
	}
	if math.IsInf(bestScore, -1) {
		return homography{}, false
	}
	return fitHomography(append(finderMatches(finders, g.dimension, false), match{expected, g.grid.at(best), alignmentWeight}))
}

// alignmentScore counts the modules around at, 5 by 5, that look like an alignment pattern.
func alignmentScore(b bitmap, h *homography, at point) int {
	agree := 0
	for y := -2; y <= 2; y++ {
		for x := -2; x <= 2; x++ {
			ring := max(x*x, y*y) // 0 the dark centre, 1 the white ring, 4 the dark ring
			if b.darkAt(h.at(at.plus(point{float64(x), float64(y)}))) == (ring != 1) {
				agree++
			}
		}
	}
	return agree
}

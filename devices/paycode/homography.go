package paycode

import "math"

// point is a place in a picture (pixels, continuous: pixel i covers i to i+1) or in a code (modules, likewise).
type point struct{ x, y float64 }

func (p point) plus(q point) point             { return point{p.x + q.x, p.y + q.y} }
func (p point) minus(q point) point            { return point{p.x - q.x, p.y - q.y} }
func (p point) times(f float64) point          { return point{p.x * f, p.y * f} }
func (p point) length() float64                { return math.Hypot(p.x, p.y) }
func (p point) cross(q point) float64          { return p.x*q.y - p.y*q.x }
func (p point) along(d point, f float64) point { return p.plus(d.times(f)) }

// match pairs a place in the code with the place in the picture where it was seen.
type match struct {
	code, picture point
	weight        float64
}

// homography maps places of a code to places of a picture, as a flat code under any tilt of the camera does.
type homography [9]float64

func (h *homography) at(p point) point {
	w := h[6]*p.x + h[7]*p.y + h[8]
	return point{(h[0]*p.x + h[1]*p.y + h[2]) / w, (h[3]*p.x + h[4]*p.y + h[5]) / w}
}

// normaliser maps points to around the origin at distance about √2, without which the equations are ill-conditioned.
func normaliser(points []point) (scale float64, centre point) {
	for _, p := range points {
		centre = centre.plus(p)
	}
	centre = centre.times(1 / float64(len(points)))
	var spread float64
	for _, p := range points {
		spread += p.minus(centre).length()
	}
	return math.Sqrt2 * float64(len(points)) / spread, centre
}

// fitHomography returns the weighted least-squares homography through at least four matches (direct linear transformation,
// normalised).
func fitHomography(matches []match) (h homography, ok bool) {
	if len(matches) < 4 {
		return h, false
	}
	codes, pictures := make([]point, len(matches)), make([]point, len(matches))
	for i, m := range matches {
		codes[i], pictures[i] = m.code, m.picture
	}
	sc, cc := normaliser(codes)
	sp, cp := normaliser(pictures)
	var a [8][9]float64 // the normal equations, right-hand side last
	add := func(row [9]float64, weight float64) {
		for i := range 8 {
			for j := range 9 {
				a[i][j] += weight * row[i] * row[j]
			}
		}
	}
	for _, m := range matches {
		p, q := m.code.minus(cc).times(sc), m.picture.minus(cp).times(sp)
		add([9]float64{p.x, p.y, 1, 0, 0, 0, -p.x * q.x, -p.y * q.x, q.x}, m.weight)
		add([9]float64{0, 0, 0, p.x, p.y, 1, -p.x * q.y, -p.y * q.y, q.y}, m.weight)
	}
	n, ok := solve(&a)
	if !ok {
		return h, false
	}
	// Undo both normalisations: picture⁻¹ · n · code.
	inner := multiply(homography{n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], 1}, homography{sc, 0, -sc * cc.x, 0, sc, -sc * cc.y, 0, 0, 1})
	return multiply(homography{1 / sp, 0, cp.x, 0, 1 / sp, cp.y, 0, 0, 1}, inner), true
}

func multiply(a, b homography) (c homography) {
	for i := range 3 {
		for j := range 3 {
			for k := range 3 {
				c[3*i+j] += a[3*i+k] * b[3*k+j]
			}
		}
	}
	return c
}

// solve solves eight linear equations by elimination with row exchange.
func solve(a *[8][9]float64) (x [8]float64, ok bool) {
	for i := range 8 {
		best := i
		for r := i + 1; r < 8; r++ {
			if math.Abs(a[r][i]) > math.Abs(a[best][i]) {
				best = r
			}
		}
		a[i], a[best] = a[best], a[i]
		if !(math.Abs(a[i][i]) > 1e-12) { // also true for NaN
			return x, false
		}
		for r := i + 1; r < 8; r++ {
			f := a[r][i] / a[i][i]
			for c := i; c < 9; c++ {
				a[r][c] -= f * a[i][c]
			}
		}
	}
	for i := 7; i >= 0; i-- {
		x[i] = a[i][8]
		for c := i + 1; c < 8; c++ {
			x[i] -= a[i][c] * x[c]
		}
		x[i] /= a[i][i]
	}
	return x, true
}

// line is a straight line through a place in a direction.
type line struct{ from, direction point }

// meet returns where two lines cross; ok is false where they are as good as parallel.
func (l line) meet(k line) (point, bool) {
	d := l.direction.cross(k.direction)
	if math.Abs(d) < 1e-9*l.direction.length()*k.direction.length() || d == 0 {
		return point{}, false
	}
	return l.from.along(l.direction, k.from.minus(l.from).cross(k.direction)/d), true
}

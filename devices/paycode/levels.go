package paycode

import "github.com/makiuchi-d/gozxing"

// Where modules are hardly larger than pixels, a picture that was made black and white first has lost what the grey still
// tells: so the grid is also read in grey and thresholded module by module.

const (
	levelSharpening = 0.35 // how much of its neighbours' light a module is cleared of
	levelWindow     = 4    // modules each way whose middle is the threshold
)

// levels are the grey values of the modules of a code, dark low.
type levels struct {
	dimension int
	values    []float32
}

// sampleLevels reads the middle of every module, interpolated between pixels.
func sampleLevels(g *grey, h *homography, d int) levels {
	l := levels{d, make([]float32, d*d)}
	for y := range d {
		for x := range d {
			p := h.at(point{float64(x) + 0.5, float64(y) + 0.5})
			value := float32(255)
			if p.x >= 0 && p.y >= 0 && p.x < float64(g.Width) && p.y < float64(g.Height) {
				value = float32(g.sample(p.x-0.5, p.y-0.5))
			}
			l.values[y*d+x] = value
		}
	}
	return l
}

// at returns the level of a module; white outside is the level of the nearest module's row end, which is as good.
func (l levels) at(x, y int) float32 {
	return l.values[min(max(y, 0), l.dimension-1)*l.dimension+min(max(x, 0), l.dimension-1)]
}

// threshold makes each module dark that is darker than the middle between the extremes around it, after taking back
// what blur has mixed in from the four neighbours.
func (l levels) threshold(sharpening float32) *gozxing.BitMatrix {
	d := l.dimension
	sharp := levels{d, make([]float32, d*d)}
	for y := range d {
		for x := range d {
			around := (l.at(x-1, y) + l.at(x+1, y) + l.at(x, y-1) + l.at(x, y+1)) / 4
			sharp.values[y*d+x] = l.at(x, y) + 4*sharpening*(l.at(x, y)-around)
		}
	}
	matrix, _ := gozxing.NewSquareBitMatrix(d) // fails only below one module
	for y := range d {
		for x := range d {
			var sum float32
			for dy := -levelWindow; dy <= levelWindow; dy++ {
				for dx := -levelWindow; dx <= levelWindow; dx++ {
					sum += sharp.at(x+dx, y+dy)
				}
			}
			if sharp.at(x, y)*(2*levelWindow+1)*(2*levelWindow+1) < sum {
				matrix.Set(x, y)
			}
		}
	}
	return matrix
}

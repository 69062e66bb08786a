package paycode

import (
	"errors"

	"github.com/makiuchi-d/gozxing"
)

// errNoContrast says that a picture has no two levels to tell apart.
var errNoContrast = errors.New("paycode: no contrast")

// packed builds a binary picture row by row: row fills in words of 32 pixels, the leftmost lowest, 1 = dark. Setting pixels
// one by one costs more than looking for a code in them.
func packed(width, height int, row func(y int, words []uint32)) (*gozxing.BitMatrix, error) {
	m, err := gozxing.NewBitMatrix(width, height)
	if err != nil {
		return nil, err
	}
	words, bits := make([]uint32, (width+31)/32), gozxing.NewBitArray(width)
	for y := range height {
		row(y, words)
		for i, w := range words {
			bits.SetBulk(32*i, w)
		}
		m.SetRow(y, bits)
	}
	return m, nil
}

// histogramShift leaves 32 buckets of eight levels.
const histogramShift = 3

// global thresholds at one level for the whole picture: the valley between dark and light in four of its rows.
func (g *grey) global() (*gozxing.BitMatrix, error) {
	var buckets [256 >> histogramShift]int
	for i := 1; i < 5; i++ {
		start := g.Height * i / 5 * g.Width
		for _, v := range g.pix[start+g.Width/5 : start+g.Width*4/5] {
			buckets[v>>histogramShift]++
		}
	}
	valley, ok := findValley(buckets[:])
	if !ok {
		return nil, errNoContrast
	}
	level := int32(valley << histogramShift)
	return packed(g.Width, g.Height, func(y int, words []uint32) {
		pix := g.pix[y*g.Width : (y+1)*g.Width]
		for i := range words {
			var word uint32
			for b, v := range pix[32*i : min(32*i+32, len(pix))] {
				word |= uint32(int32(v)-level) >> 31 << b
			}
			words[i] = word
		}
	})
}

// findValley returns the bucket between the two peaks of a histogram that is low and nearer to the light peak. The second
// peak is the one that is high and far from the first; two peaks side by side are one, and no contrast.
func findValley(buckets []int) (valley int, ok bool) {
	dark := 0
	for i, n := range buckets {
		if n > buckets[dark] {
			dark = i
		}
	}
	highest := buckets[dark]
	light, best := 0, 0
	for i, n := range buckets {
		if score := n * (i - dark) * (i - dark); score > best {
			light, best = i, score
		}
	}
	if dark > light {
		dark, light = light, dark
	}
	if light-dark <= len(buckets)/16 {
		return 0, false
	}
	valley, best = light-1, -1
	for i := light - 1; i > dark; i-- {
		if score := (i - dark) * (i - dark) * (light - i) * (highest - buckets[i]); score > best {
			valley, best = i, score
		}
	}
	return valley, true
}

// hybrid thresholds by blocks of eight pixels and their neighbours. The library's own is faster than packing the blocks would
// be, because it looks no further for contrast in a block once it has found some.
func (g *grey) hybrid() (*gozxing.BitMatrix, error) {
	return gozxing.NewHybridBinarizer(g).GetBlackMatrix()
}

// adaptiveBias is how much darker than its surroundings a pixel must be to be dark, of 255.
const adaptiveBias = 5

// adaptive thresholds each pixel at the mean of the side by side pixels around it.
func (g *grey) adaptive(side int) (*gozxing.BitMatrix, error) {
	// Sums over everything above and left; they may wrap, their differences do not.
	stride, half := g.Width+1, side/2
	sums := make([]uint32, stride*(g.Height+1))
	for y := range g.Height {
		var row uint32
		above, here := sums[y*stride+1:(y+1)*stride], sums[(y+1)*stride+1:(y+2)*stride]
		for x, v := range g.pix[y*g.Width : (y+1)*g.Width] {
			row += uint32(v)
			here[x] = above[x] + row
		}
	}
	return packed(g.Width, g.Height, func(y int, words []uint32) {
		top, bottom := max(0, y-half), min(g.Height, y+half+1)
		above, below := sums[top*stride:(top+1)*stride], sums[bottom*stride:(bottom+1)*stride]
		pix := g.pix[y*g.Width : (y+1)*g.Width]
		for i := range words {
			var word uint32
			for b, v := range pix[32*i : min(32*i+32, len(pix))] {
				x := 32*i + b
				left, right := max(0, x-half), min(g.Width, x+half+1)
				sum := below[right] - below[left] - above[right] + above[left]
				area := uint32((right - left) * (bottom - top))
				word |= uint32(int32((uint32(v)+adaptiveBias)*area)-int32(sum)-1) >> 31 << b
			}
			words[i] = word
		}
	})
}

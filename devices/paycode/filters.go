package paycode

import (
	"image"
	"image/color"
	"math"

	"github.com/makiuchi-d/gozxing"
)

// grey is an 8-bit grey picture without padding; it is the luminance source of the decoding library, so that no pixel is
// ever fetched through an interface.
type grey struct {
	gozxing.LuminanceSourceBase
	pix []byte
}

func newGrey(width, height int) *grey {
	return &grey{gozxing.LuminanceSourceBase{Width: width, Height: height}, make([]byte, width*height)}
}

// GetRow copies row y; it is part of the library's interface.
func (g *grey) GetRow(y int, row []byte) ([]byte, error) {
	if len(row) < g.Width {
		row = make([]byte, g.Width)
	}
	copy(row, g.pix[y*g.Width:(y+1)*g.Width])
	return row, nil
}

// GetMatrix hands out the pixels themselves; nobody may change them.
func (g *grey) GetMatrix() []byte { return g.pix }

// Invert returns the negative.
func (g *grey) Invert() gozxing.LuminanceSource { return g.inverted() }

// String is part of the library's interface.
func (g *grey) String() string { return gozxing.LuminanceSourceString(g) }

// IsRotateSupported lets the Code 128 reader try the picture turned by a quarter.
func (g *grey) IsRotateSupported() bool { return true }

// RotateCounterClockwise returns the picture turned by a quarter.
func (g *grey) RotateCounterClockwise() (gozxing.LuminanceSource, error) {
	out := newGrey(g.Height, g.Width)
	for y := range g.Height {
		for x, v := range g.pix[y*g.Width : (y+1)*g.Width] {
			out.pix[(g.Width-1-x)*out.Width+y] = v
		}
	}
	return out, nil
}

// toGrey turns a picture into grey by (R+2G+B)/4, which reads more codes than the usual luma weights; what is transparent
// is white. The common kinds of picture have a path of their own, because fetching pixels one by one costs more than
// decoding them.
func toGrey(img image.Image) *grey {
	b := img.Bounds()
	g := newGrey(b.Dx(), b.Dy())
	for y := range g.Height {
		row := g.pix[y*g.Width : (y+1)*g.Width]
		switch m := img.(type) {
		case *image.Gray:
			copy(row, m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):])
		case *image.YCbCr: // Y alone: a camera's frame, where it serves as well and costs nothing
			copy(row, m.Y[m.YOffset(b.Min.X, b.Min.Y+y):])
		case *image.RGBA:
			greyRow(row, m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):], true)
		case *image.NRGBA:
			greyRow(row, m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):], false)
		case *image.Paletted:
			palette := greyPalette(m.Palette)
			for x, i := range m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):][:len(row)] {
				row[x] = palette[i]
			}
		default:
			for x := range row {
				row[x] = greyOf(img.At(b.Min.X+x, b.Min.Y+y))
			}
		}
	}
	return g
}

// greyRow converts one row of four-byte pixels, whose colours are premultiplied by alpha or not.
func greyRow(row, pix []byte, premultiplied bool) {
	for x := range row {
		p := pix[4*x : 4*x+4]
		v, a := (int(p[0])+2*int(p[1])+int(p[2]))/4, int(p[3])
		switch {
		case a == 255:
		case premultiplied:
			v = min(255, v+255-a)
		default:
			v = (v*a + 255*(255-a)) / 255
		}
		row[x] = byte(v)
	}
}

func greyPalette(colours color.Palette) (out [256]byte) {
	for i, c := range colours[:min(256, len(colours))] {
		out[i] = greyOf(c)
	}
	return out
}

func greyOf(c color.Color) byte {
	r, g, b, a := c.RGBA()
	return byte(min(0xFFFF, (r+2*g+b)/4+0xFFFF-min(a, 0xFFFF)) >> 8)
}

func (g *grey) inverted() *grey {
	out := newGrey(g.Width, g.Height)
	for i, v := range g.pix {
		out.pix[i] = 255 - v
	}
	return out
}

// blurred is the mean of three by three pixels; at the edges of those that there are.
func (g *grey) blurred() *grey {
	across, out := newGrey(g.Width, g.Height), newGrey(g.Width, g.Height)
	for y := range g.Height {
		row, to := g.pix[y*g.Width:(y+1)*g.Width], across.pix[y*g.Width:(y+1)*g.Width]
		for x, v := range row {
			left, right := row[max(0, x-1)], row[min(len(row)-1, x+1)]
			to[x] = byte((int(left) + int(v) + int(right)) / 3)
		}
	}
	for y := range g.Height {
		above, below := max(0, y-1)*g.Width, min(g.Height-1, y+1)*g.Width
		for x := range g.Width {
			out.pix[y*g.Width+x] = byte((int(across.pix[above+x]) + int(across.pix[y*g.Width+x]) + int(across.pix[below+x])) / 3)
		}
	}
	return out
}

// sharpened adds twice what a soft blur takes away.
func (g *grey) sharpened() *grey {
	out := g.blurred().blurred()
	for i, v := range g.pix {
		out.pix[i] = byte(min(255, max(0, 3*int(v)-2*int(out.pix[i]))))
	}
	return out
}

// doubled is twice as wide and high, bilinear.
func (g *grey) doubled() *grey {
	out := newGrey(2*g.Width, 2*g.Height)
	for y := range out.Height {
		for x := range out.Width {
			out.pix[y*out.Width+x] = g.sample(float64(x)/2-0.25, float64(y)/2-0.25)
		}
	}
	return out
}

// sample interpolates between the four pixels around a place, where (0,0) is the middle of the first pixel.
func (g *grey) sample(x, y float64) byte {
	x, y = min(max(x, 0), float64(g.Width-1)), min(max(y, 0), float64(g.Height-1))
	x0, y0 := int(x), int(y)
	x1, y1 := min(x0+1, g.Width-1), min(y0+1, g.Height-1)
	fx, fy := int((x-float64(x0))*256), int((y-float64(y0))*256)
	top := int(g.pix[y0*g.Width+x0])*(256-fx) + int(g.pix[y0*g.Width+x1])*fx
	bottom := int(g.pix[y1*g.Width+x0])*(256-fx) + int(g.pix[y1*g.Width+x1])*fx
	return byte((top*(256-fy) + bottom*fy + 1<<15) >> 16)
}

// turned is the picture turned by degrees around its middle, on a canvas that holds all of it, white around.
func (g *grey) turned(degrees float64) *grey {
	sin, cos := math.Sincos(degrees * math.Pi / 180)
	w, h := float64(g.Width), float64(g.Height)
	out := newGrey(int(w*math.Abs(cos)+h*math.Abs(sin))+1, int(w*math.Abs(sin)+h*math.Abs(cos))+1)
	mx, my := float64(out.Width-1)/2, float64(out.Height-1)/2
	for y := range out.Height {
		for x := range out.Width {
			dx, dy := float64(x)-mx, float64(y)-my
			sx, sy := cos*dx+sin*dy+(w-1)/2, cos*dy-sin*dx+(h-1)/2
			v := byte(255)
			if sx >= -0.5 && sy >= -0.5 && sx <= w-0.5 && sy <= h-0.5 {
				v = g.sample(sx, sy)
			}
			out.pix[y*out.Width+x] = v
		}
	}
	return out
}

// padded has a white margin of n pixels.
func (g *grey) padded(n int) *grey {
	out := newGrey(g.Width+2*n, g.Height+2*n)
	for i := range out.pix {
		out.pix[i] = 255
	}
	for y := range g.Height {
		copy(out.pix[(y+n)*out.Width+n:], g.pix[y*g.Width:(y+1)*g.Width])
	}
	return out
}

// shrunk is the picture divided by a whole number, each pixel the mean of n by n.
func (g *grey) shrunk(n int) *grey {
	if n <= 1 {
		return g
	}
	out := newGrey(max(1, g.Width/n), max(1, g.Height/n))
	for y := range out.Height {
		for x := range out.Width {
			sum, count := 0, 0
			for sy := y * n; sy < min((y+1)*n, g.Height); sy++ {
				for _, v := range g.pix[sy*g.Width+x*n : sy*g.Width+min((x+1)*n, g.Width)] {
					sum += int(v)
					count++
				}
			}
			out.pix[y*out.Width+x] = byte(sum / count)
		}
	}
	return out
}

// global thresholds at one value for the whole picture, found in its histogram.
func (g *grey) global() (*gozxing.BitMatrix, error) {
	return gozxing.NewGlobalHistgramBinarizer(g).GetBlackMatrix()
}

// hybrid thresholds by blocks of eight pixels and their neighbours.
func (g *grey) hybrid() (*gozxing.BitMatrix, error) {
	return gozxing.NewHybridBinarizer(g).GetBlackMatrix()
}

// adaptiveBias is how much darker than its surroundings a pixel must be to be black, of 255.
const adaptiveBias = 5

// adaptive thresholds each pixel at the mean of the side by side pixels around it.
func (g *grey) adaptive(side int) (*gozxing.BitMatrix, error) {
	m, err := gozxing.NewBitMatrix(g.Width, g.Height)
	if err != nil {
		return nil, err
	}
	// Sums over everything above and left; they may wrap, the differences do not.
	stride := g.Width + 1
	sums := make([]uint32, stride*(g.Height+1))
	for y := range g.Height {
		var row uint32
		for x := range g.Width {
			row += uint32(g.pix[y*g.Width+x])
			sums[(y+1)*stride+x+1] = sums[y*stride+x+1] + row
		}
	}
	half := side / 2
	for y := range g.Height {
		top, bottom := max(0, y-half)*stride, min(g.Height, y+half+1)*stride
		for x := range g.Width {
			left, right := max(0, x-half), min(g.Width, x+half+1)
			sum := sums[bottom+right] - sums[bottom+left] - sums[top+right] + sums[top+left]
			area := uint32(right-left) * uint32((bottom-top)/stride)
			if (uint32(g.pix[y*g.Width+x])+adaptiveBias)*area <= sum {
				m.Set(x, y)
			}
		}
	}
	return m, nil
}

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

// doubled is twice as wide and high, bilinear: each new pixel is nine parts of the one it lies in, three of each neighbour
// beside and one of the one across.
func (g *grey) doubled() *grey {
	out := newGrey(2*g.Width, 2*g.Height)
	for y := range out.Height {
		near := g.pix[y/2*g.Width : (y/2+1)*g.Width]
		other := min(max(y/2-1+y%2*2, 0), g.Height-1)
		far := g.pix[other*g.Width : (other+1)*g.Width]
		row := out.pix[y*out.Width : (y+1)*out.Width]
		before := 3*int(near[0]) + int(far[0])
		here := before
		for x := range near {
			after := here
			if x+1 < len(near) {
				after = 3*int(near[x+1]) + int(far[x+1])
			}
			row[2*x], row[2*x+1] = byte((3*here+before+8)>>4), byte((3*here+after+8)>>4)
			before, here = here, after
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
	const one = 1 << 16 // places in fixed point, advanced by a step from pixel to pixel
	stepX, stepY := int(math.Round(cos*one)), int(math.Round(-sin*one))
	for y := range out.Height {
		dx, dy := -float64(out.Width-1)/2, float64(y)-float64(out.Height-1)/2
		sx, sy := int((cos*dx+sin*dy+(w-1)/2)*one), int((cos*dy-sin*dx+(h-1)/2)*one)
		row := out.pix[y*out.Width : (y+1)*out.Width]
		for x := range row {
			ix, iy := sx>>16, sy>>16
			row[x] = 255
			if ix >= 0 && iy >= 0 && ix < g.Width-1 && iy < g.Height-1 {
				fx, fy, at := sx&(one-1)>>8, sy&(one-1)>>8, iy*g.Width+ix
				top := int(g.pix[at])*(256-fx) + int(g.pix[at+1])*fx
				bottom := int(g.pix[at+g.Width])*(256-fx) + int(g.pix[at+g.Width+1])*fx
				row[x] = byte((top*(256-fy) + bottom*fy + 1<<15) >> 16)
			}
			sx, sy = sx+stepX, sy+stepY
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

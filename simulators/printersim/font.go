package printersim

import (
	"sync"

	"github.com/hajimehoshi/bitmapfont/v3"
	"golang.org/x/image/math/fixed"
)

// The cells of the built-in fonts, in dots: Font A, Font B and Chinese characters.
const (
	widthA, heightA = 12, 24
	widthB, heightB = 9, 17
	widthHanzi      = 24
)

// glyph is a small picture of dots.
type glyph struct {
	w, h int
	dots []bool // row by row
}

func newGlyph(w, h int) glyph { return glyph{w: w, h: h, dots: make([]bool, w*h)} }

func (g glyph) at(x, y int) bool { return g.dots[y*g.w+x] }

// scaled repeats each dot.
func (g glyph) scaled(w, h int) glyph {
	if w == 1 && h == 1 {
		return g
	}
	out := newGlyph(g.w*w, g.h*h)
	for y := range out.h {
		for x := range out.w {
			out.dots[y*out.w+x] = g.at(x/w, y/h)
		}
	}
	return out
}

// font keeps the glyphs that were drawn already. The face has 12 dots: doubled it is exactly Font A and its Chinese.
var font = struct {
	sync.Mutex
	glyphs map[fontKey]glyph
}{glyphs: map[fontKey]glyph{}}

type fontKey struct {
	r    rune
	w, h int
}

// glyphOf draws a character into a cell. A character that the face lacks is a box: a customer must see that something is
// missing.
func glyphOf(r rune, w, h int) glyph {
	font.Lock()
	defer font.Unlock()
	key := fontKey{r, w, h}
	if g, ok := font.glyphs[key]; ok {
		return g
	}
	g := drawGlyph(r, w, h)
	font.glyphs[key] = g
	return g
}

// face geometry: the twelve rows of a cell stand from ten above the base line to one below it.
const (
	faceTop  = -10
	faceRows = 12
)

func drawGlyph(r rune, w, h int) glyph {
	small := newGlyph(w*faceRows/h, faceRows)
	if w == widthB {
		small = newGlyph(6, faceRows)
	}
	bounds, mask, corner, _, ok := bitmapfont.FaceSC.Glyph(fixed.P(0, 0), r)
	drawn := r == ' ' || r == '\u3000'
	if ok && !drawn {
		for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
			for x := bounds.Min.X; x < bounds.Max.X; x++ {
				_, _, _, alpha := mask.At(corner.X+x-bounds.Min.X, corner.Y+y-bounds.Min.Y).RGBA()
				if alpha == 0 {
					continue
				}
				drawn = true
				if row := y - faceTop; row >= 0 && row < small.h && x >= 0 && x < small.w {
					small.dots[row*small.w+x] = true
				}
			}
		}
	}
	if !drawn {
		small.box()
	}
	out := newGlyph(w, h)
	for y := range h {
		for x := range w {
			out.dots[y*w+x] = small.at(x*small.w/w, y*small.h/h)
		}
	}
	return out
}

func (g glyph) box() {
	for y := 1; y < g.h-1; y++ {
		for x := 1; x < g.w-1; x++ {
			g.dots[y*g.w+x] = y == 1 || x == 1 || y == g.h-2 || x == g.w-2
		}
	}
}

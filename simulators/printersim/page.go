package printersim

import "strings"

// maxRows is the longest receipt: three metres of paper at eight dots a millimetre.
const maxRows = 24000

// page is the paper since the last cut, and the line that is being set.
type page struct {
	dots  int    // printable width
	bits  []byte // rows of stride bytes, most significant bit left, 1 = black
	used  int    // rows, white ones that were fed included
	lines []string
	qr    []string
	// pictures are the rows between which raster images stand: codes may be in them.
	pictures []span
	drawer   bool
	marked   bool // something is on the paper

	items []item
	x     int // where the next item of the line stands
	text  strings.Builder
	sent  bool // the line has characters or pictures
}

type span struct{ from, to int }

// item is something in a line.
type item struct {
	x      int
	g      glyph
	invert bool
}

func (p *page) stride() int { return (p.dots + 7) / 8 }

// feed moves the paper.
func (p *page) feed(rows int) {
	p.used = min(p.used+max(rows, 0), maxRows)
	if missing := p.used*p.stride() - len(p.bits); missing > 0 {
		p.bits = append(p.bits, make([]byte, missing)...)
	}
}

// dot blackens a dot that is on the paper.
func (p *page) dot(x, y int) {
	if x < 0 || x >= p.dots || y < 0 || y >= p.used {
		return
	}
	p.bits[y*p.stride()+x/8] |= 0x80 >> (x % 8)
}

// put sets an item into the line.
func (p *page) put(g glyph, invert bool) {
	p.items = append(p.items, item{x: p.x, g: g, invert: invert})
	p.x += g.w
	p.sent = true
}

// empty says whether the line is at its start.
func (p *page) empty() bool { return !p.sent && p.x == 0 }

// height is the tallest item of the line.
func (p *page) height() int {
	h := 0
	for _, i := range p.items {
		h = max(h, i.g.h)
	}
	return h
}

// endLine prints the line inside [left, left+width), moves the paper by at least rows, and starts a new line.
func (p *page) endLine(align byte, left, width, rows int) {
	h := p.height()
	top := p.used
	p.feed(max(h, rows))
	shift := left + shifted(align, width, p.x)
	for _, i := range p.items {
		for y := range i.g.h {
			for x := range i.g.w {
				if i.g.at(x, y) != i.invert {
					p.dot(shift+i.x+x, top+h-i.g.h+y)
					p.marked = true
				}
			}
		}
	}
	if p.sent || len(p.lines) > 0 { // white paper before the first line is no text
		p.lines = append(p.lines, strings.TrimRight(p.text.String(), " "))
	}
	p.clearLine()
}

func (p *page) clearLine() {
	p.items, p.x, p.sent = nil, 0, false
	p.text.Reset()
}

// shifted is how far alignment moves something of a width: 0 left, 1 centre, 2 right.
func shifted(align byte, width, own int) int {
	switch align {
	case 1:
		return max(width-own, 0) / 2
	case 2:
		return max(width-own, 0)
	}
	return 0
}

// image prints a picture that may hold a code below what is there.
func (p *page) image(g glyph, align byte, left, width int) {
	top := p.used
	p.place(g, align, left, width)
	if n := len(p.pictures); n > 0 && p.pictures[n-1].to == top {
		p.pictures[n-1].to = p.used // strips of one picture
		return
	}
	p.pictures = append(p.pictures, span{top, p.used})
}

// place prints dots below what is there.
func (p *page) place(g glyph, align byte, left, width int) {
	top := p.used
	p.feed(g.h)
	shift := left + shifted(align, width, g.w)
	for y := range g.h {
		for x := range g.w {
			if g.at(x, y) {
				p.dot(shift+x, top+y)
			}
		}
	}
	p.marked = true
}

// full says that the paper is as long as a receipt may be.
func (p *page) full() bool { return p.used >= maxRows }

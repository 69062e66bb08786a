package printersim

import (
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/simplifiedchinese"
)

const missing = '\uFFFD'

// character prints one character of one, two or four bytes.
func (p *Printer) character(b []byte) {
	r, w, h := p.decode(b), widthA, heightA
	magX, magY, line := p.w, p.h, p.underline
	switch {
	case len(b) > 1:
		w, magX, magY, line = widthHanzi, p.hanziW, p.hanziH, p.hanziLine
	case p.fontB:
		w, h = widthB, heightB
	}
	if r == missing {
		p.fault("no such character: % X", b)
	}
	g := glyphOf(r, w, h).scaled(magX, magY)
	if p.bold {
		g = g.bolder()
	}
	if line > 0 || p.right > 0 {
		g = g.extended(p.right, line)
	}
	if p.page.x+g.w > p.width && !p.page.empty() {
		p.line(p.spacing) // the line is full
	}
	p.page.put(g, p.invert)
	p.page.text.WriteRune(r)
}

// decode reads GB18030 where it is on, code page 437 where it is not.
func (p *Printer) decode(b []byte) rune {
	if len(b) == 1 {
		if b[0] < 0x80 {
			return rune(b[0])
		}
		if p.kanji {
			return missing // 80 and FF stand for nothing
		}
		return charmap.CodePage437.DecodeByte(b[0])
	}
	text, err := simplifiedchinese.GB18030.NewDecoder().Bytes(b)
	if err != nil {
		return missing
	}
	r, size := utf8.DecodeRune(text)
	if size != len(text) {
		return missing
	}
	return r
}

// bolder prints every dot twice, one dot apart.
func (g glyph) bolder() glyph {
	out := newGlyph(g.w, g.h)
	for y := range g.h {
		for x := range g.w {
			out.dots[y*g.w+x] = g.at(x, y) || x > 0 && g.at(x-1, y)
		}
	}
	return out
}

// extended adds white to the right and a line of so many dots at the foot.
func (g glyph) extended(right, underline int) glyph {
	out := newGlyph(g.w+right, g.h)
	for y := range out.h {
		for x := range out.w {
			out.dots[y*out.w+x] = x < g.w && g.at(x, y) || y >= g.h-underline
		}
	}
	return out
}

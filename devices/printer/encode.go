package printer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrTooLong refuses a document beyond the length that one job may have.
var ErrTooLong = errors.New("printer: document too long")

const maxBody = 256 << 10 // bytes of one job: minutes at 9600 baud already

// Encode returns the ESC/POS bytes of a document, to follow an ESC @ (which
// [Printer.Print] sends). Pure: the same document and profile make the same
// bytes. The styles are the initial ones again at the end.
func Encode(doc Document, profile Profile) ([]byte, error) {
	b, err := encode(doc, profile)
	return b.bytes, err
}

// body is an encoded document. A command that the printer answers at once may
// stand at its ends only: inside another command it would be data.
type body struct {
	bytes []byte
	ends  []int // where a part of the document is complete, ascending
}

// stop is where the next piece of at most size bytes from from ends: between two
// commands, if there is such a place.
func (b body) stop(from, size int) int {
	limit := min(from+size, len(b.bytes))
	i, _ := slices.BinarySearch(b.ends, limit+1)
	if i > 0 && b.ends[i-1] > from {
		return b.ends[i-1]
	}
	return limit
}

func encode(doc Document, profile Profile) (body, error) {
	if err := profile.Check(); err != nil {
		return body{}, err
	}
	e := &encoder{profile: profile}
	e.put(0x1C, 0x26) // FS &: Chinese characters on
	e.mark()
	for i, p := range doc.parts {
		if err := e.part(p); err != nil {
			return body{}, fmt.Errorf("encode part %d: %w", i+1, err)
		}
		e.mark()
		if len(e.out) > maxBody {
			return body{}, ErrTooLong
		}
	}
	e.style(Style{})
	e.mark()
	return body{bytes: e.out, ends: e.ends}, nil
}

// encoder remembers the styles that the printer is in.
type encoder struct {
	profile Profile
	out     []byte
	ends    []int
	now     Style
}

func (e *encoder) mark() { e.ends = append(e.ends, len(e.out)) }

func (e *encoder) put(b ...byte) { e.out = append(e.out, b...) }

func (e *encoder) part(p part) error {
	switch p := p.(type) {
	case textPart:
		e.text(p.style, wrap(fold(p.text, e.profile.FourByte), e.columns(p.style)))
	case columnsPart:
		p.style.Center, p.style.Right = false, false
		left, right := fold(p.left, e.profile.FourByte), fold(p.right, e.profile.FourByte)
		e.text(p.style, spread(left, right, e.columns(p.style)))
	case rulePart:
		e.text(Style{}, []string{strings.Repeat("-", e.profile.Columns)})
	case feedPart:
		if n := min(max(p.lines, 0), 255); n > 0 {
			e.put(0x1B, 0x64, byte(n)) // ESC d
		}
	case qrPart:
		return e.qr(p)
	case rasterPart:
		return e.raster(p.bits)
	case cutPart:
		e.cut()
	case drawerPart:
		e.put(0x1B, 0x70, 0, 0x19, 0xFA) // ESC p: pin 2, 50 ms on, 500 ms off
	}
	return nil
}

// columns is how many of them a line in style has.
func (e *encoder) columns(s Style) int {
	if s.Double {
		return e.profile.Columns / 2
	}
	return e.profile.Columns
}

func (e *encoder) text(s Style, lines []string) {
	e.style(s)
	for _, line := range lines {
		e.put(gb18030(line)...)
		e.put('\n')
		e.mark()
	}
}

// style brings the printer from its present style to s. It is called at the
// start of a line only, where alignment is honoured.
func (e *encoder) style(s Style) {
	if align := s.align(); align != e.now.align() {
		e.put(0x1B, 0x61, align) // ESC a
	}
	if s.Bold != e.now.Bold {
		e.put(0x1B, 0x45, bit(s.Bold, 1)) // ESC E
	}
	if size := s.size(); size != e.now.size() {
		e.put(0x1D, 0x21, size) // GS !
		if e.profile.KanjiSize {
			e.put(0x1C, 0x21, bit(s.Double, 0x04)|bit(s.Double || s.Tall, 0x08)) // FS !
		}
	}
	e.now = s
}

func (s Style) align() byte {
	switch {
	case s.Center:
		return 1
	case s.Right:
		return 2
	}
	return 0
}

// size is the argument of GS !: width less one in the high, height in the low
// four bits.
func (s Style) size() byte {
	return bit(s.Double, 0x10) | bit(s.Double || s.Tall, 0x01)
}

func bit(set bool, value byte) byte {
	if set {
		return value
	}
	return 0
}

func (e *encoder) raster(b Bits) error {
	if err := b.check(); err != nil {
		return err
	}
	if b.WidthBytes*8 > e.profile.Dots {
		return fmt.Errorf("%w: %d dots", ErrTooWide, b.WidthBytes*8)
	}
	if len(b.Bits) > maxBody {
		return ErrTooLong
	}
	e.style(Style{Center: true})
	e.bands(b, 0)
	return nil
}

func (e *encoder) feedDots(n int) { e.put(0x1B, 0x4A, byte(min(n, 255))) } // ESC J

func (e *encoder) cut() {
	e.style(Style{})
	if e.profile.Cutter {
		e.put(0x1D, 0x56, 0x42, 0) // GS V 66: feed to the knife, cut partially
		return
	}
	e.put(0x1B, 0x64, byte(e.profile.CutFeed))
}

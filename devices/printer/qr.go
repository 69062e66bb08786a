package printer

import (
	"bytes"
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// What can be wrong with a code or a picture of a document.
var (
	ErrCode     = errors.New("printer: text can not be a QR code")
	ErrTooWide  = errors.New("printer: does not fit the paper")
	ErrPicture  = errors.New("printer: picture is inconsistent")
	ErrNoNative = errors.New("printer: printer draws no QR codes and no picture was given")
)

// capacityM is how many bytes versions 1 to 40 hold at level M in one byte
// segment (ISO/IEC 18004 table 7).
var capacityM = [...]int{
	14, 26, 42, 62, 84, 106, 122, 152, 180, 213, 251, 287, 331, 362, 412, 450, 504, 560, 624, 666,
	711, 779, 857, 911, 997, 1059, 1125, 1190, 1264, 1370, 1452, 1538, 1628, 1722, 1809, 1911, 1989, 2099, 2213, 2331,
}

// worstModules is the width of the largest code that a printer may make of text
// at level M: the whole text in one byte segment. Better printers need less.
func worstModules(text string) (int, error) {
	if text == "" || !utf8.ValidString(text) || bytes.ContainsFunc([]byte(text), unicode.IsControl) {
		return 0, ErrCode
	}
	for i, capacity := range capacityM {
		if len(text) <= capacity {
			return 21 + 4*i, nil
		}
	}
	return 0, fmt.Errorf("%w: %d bytes", ErrCode, len(text))
}

// quiet is the white border of a QR code in modules (ISO/IEC 18004, 9.1).
const quiet = 4

// moduleDots is the largest module in dots for which the code fits the printable
// width and its quiet zone fits the paper.
func (p Profile) moduleDots(modules, limit int) (int, error) {
	dots := p.MaxQRDots
	if limit > 0 {
		dots = min(dots, limit)
	}
	dots = min(dots, p.Dots/modules, (p.Dots+2*p.MarginDots)/(modules+2*quiet))
	if dots < 2 {
		return 0, fmt.Errorf("%w: %d modules", ErrTooWide, modules)
	}
	return dots, nil
}

func (e *encoder) qr(q qrPart) error {
	if e.profile.NativeQR && !(e.profile.RasterQR && q.bits.Rows > 0) {
		return e.nativeQR(q)
	}
	if q.bits.Rows == 0 {
		return ErrNoNative
	}
	return e.rasterQR(q)
}

// nativeQR is GS ( k functions 165, 167, 169, 180 and 181. Size and level are
// always sent: makers disagree about their defaults. The quiet zone is paper:
// printers leave none themselves.
func (e *encoder) nativeQR(q qrPart) error {
	modules, err := worstModules(q.text)
	if err != nil {
		return err
	}
	dots, err := e.profile.moduleDots(modules, q.dots)
	if err != nil {
		return err
	}
	e.style(Style{Center: true})
	e.feedDots(quiet * dots)
	e.put(0x1D, 0x28, 0x6B, 4, 0, 0x31, 0x41, 0x32, 0)    // model 2
	e.put(0x1D, 0x28, 0x6B, 3, 0, 0x31, 0x43, byte(dots)) // dots a module
	e.put(0x1D, 0x28, 0x6B, 3, 0, 0x31, 0x45, 0x31)       // level M
	n := len(q.text) + 3                                  // store
	e.put(0x1D, 0x28, 0x6B, byte(n), byte(n>>8), 0x31, 0x50, 0x30)
	e.put([]byte(q.text)...)
	e.put(0x1D, 0x28, 0x6B, 3, 0, 0x31, 0x51, 0x30) // print
	e.feedDots(quiet * dots)
	return nil
}

// rasterQR prints the given picture, cropped to the code, at whole dots, with
// the same quiet zone: feeds above and below, centring at the sides.
func (e *encoder) rasterQR(q qrPart) error {
	code, err := crop(q.bits)
	if err != nil {
		return err
	}
	dots, err := e.profile.moduleDots(len(code), q.dots)
	if err != nil {
		return err
	}
	e.style(Style{Center: true})
	e.feedDots(quiet * dots)
	if dots%2 == 0 { // GS v 0 m=3 doubles both ways: a quarter of the bytes
		e.bands(enlarge(code, dots/2), 3)
	} else {
		e.bands(enlarge(code, dots), 0)
	}
	e.feedDots(quiet * dots)
	return nil
}

// crop returns the modules of a code without its quiet zone.
func crop(b Bits) ([][]bool, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	step := 1
	if b.Modules > 0 {
		step = b.Rows / b.Modules
	}
	if step == 0 || b.Modules > 0 && b.Rows%b.Modules != 0 || b.WidthBytes*8 < b.Rows {
		return nil, fmt.Errorf("%w: %d modules on %d rows", ErrPicture, b.Modules, b.Rows)
	}
	n := b.Rows / step
	lowX, lowY, highX, highY := n, n, -1, -1
	for y := range n {
		for x := range n {
			if b.at(x*step+step/2, y*step+step/2) {
				lowX, highX = min(lowX, x), max(highX, x)
				lowY, highY = min(lowY, y), max(highY, y)
			}
		}
	}
	size := highX - lowX + 1
	if size < 21 || size%4 != 1 || highY-lowY+1 != size {
		return nil, fmt.Errorf("%w: no QR code in it", ErrPicture)
	}
	code := make([][]bool, size)
	for y := range code {
		code[y] = make([]bool, size)
		for x := range code[y] {
			code[y][x] = b.at((lowX+x)*step+step/2, (lowY+y)*step+step/2)
		}
	}
	return code, nil
}

func enlarge(code [][]bool, dots int) Bits {
	side := len(code) * dots
	out := Bits{WidthBytes: (side + 7) / 8, Rows: side}
	out.Bits = make([]byte, out.WidthBytes*side)
	for y := range side {
		for x := range side {
			if code[y/dots][x/dots] {
				out.Bits[y*out.WidthBytes+x/8] |= 0x80 >> (x % 8)
			}
		}
	}
	return out
}

func (b Bits) check() error {
	if b.WidthBytes <= 0 || b.Rows <= 0 || len(b.Bits) != b.WidthBytes*b.Rows {
		return fmt.Errorf("%w: %d bytes for %d × %d", ErrPicture, len(b.Bits), b.WidthBytes, b.Rows)
	}
	return nil
}

func (b Bits) at(x, y int) bool { return b.Bits[y*b.WidthBytes+x/8]&(0x80>>(x%8)) != 0 }

// bands writes a picture as GS v 0 commands of a few rows each, so that a job
// that breaks off inside one makes the printer swallow little of the next.
func (e *encoder) bands(b Bits, mode byte) {
	guarded := guard(b.Bits)
	for y := 0; y < b.Rows; y += e.profile.BandRows {
		rows := min(e.profile.BandRows, b.Rows-y)
		e.put(0x1D, 0x76, 0x30, mode, byte(b.WidthBytes), byte(b.WidthBytes>>8), byte(rows), byte(rows>>8))
		e.put(guarded[y*b.WidthBytes : (y+rows)*b.WidthBytes]...)
		e.mark()
	}
}

// guard blackens one dot wherever a picture would spell a real-time command
// (DLE EOT, DLE ENQ, DLE DC4). Printers obey those even inside picture data: a
// logo could open the drawer or cut the power (TM-T81 specification, DLE DC4).
func guard(bits []byte) []byte {
	out := bytes.Clone(bits)
	for i := 0; i+2 < len(out); i++ {
		if out[i] != 0x10 {
			continue
		}
		switch out[i+1] {
		case 0x04, 0x05, 0x14:
			if out[i+2] <= 0x10 {
				out[i+2] |= 0x80
			}
		}
	}
	return out
}

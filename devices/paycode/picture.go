package paycode

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"strings"

	"github.com/makiuchi-d/gozxing/qrcode/decoder"
	qrcode "github.com/skip2/go-qrcode"
)

// Paper widths in dots at 203 dpi (8 dots/mm): the print area of 58 mm and of 80 mm paper.
const (
	Paper58Dots = 384
	Paper80Dots = 576
)

// QuietZone is the white margin of a QR code on each side, in modules (ISO/IEC 18004 §9.1).
const QuietZone = 4

// The bounds of drawing.
const (
	maxDrawText = 1024 // bytes; our longest code has 328 characters
	maxScale    = 64   // pixels or dots a module
)

// Errors of drawing.
var (
	// ErrTooLong says that a text is empty or longer than anything this terminal draws (1,024 bytes).
	ErrTooLong = errors.New("paycode: text has no QR code here")
	// ErrSelfCheck says that a drawn code did not read back as its own text, or not in the segments that it should have.
	ErrSelfCheck = errors.New("paycode: drawn QR code does not read back")
	// ErrScale says that a scale is not 1 to 64.
	ErrScale = errors.New("paycode: scale must be 1 to 64")
)

// Picture is a QR code of level M that has been read back once. It is immutable.
//
// Version and level are chosen by what the paper can carry. Level M because on a fixed width the smaller modules of Q and H
// lose more than their redundancy gives back; L gains at most one dot. An ORDER is version 11 (61 modules) or, with a long
// name, 12 (65): with its margin 69 or 73 modules, so 5 dots a module on 58 mm paper (345 or 365 of 384) and 8 or 7 on
// 80 mm (552 or 511 of 576); 4 dots (0.5 mm) are the least that a camera reads reliably. SIGNED is version 13 (69 modules,
// 4 and 7 dots), RECEIPT 11, ONLINE 1 (21 modules, 13 and 19 dots). A screen of 240 pixels shows each of them at 3 a module.
type Picture struct {
	Version  int       // 1 to 40
	Modules  int       // modules a side, without the quiet zone
	Segments []Segment // how the text is packed
	rows     [][]byte  // packed, most significant bit left, 1 = dark; without the quiet zone
}

// Segment is a run of characters in one mode of the QR code (ISO/IEC 18004 §7.3).
type Segment struct {
	Mode       string // "numeric", "alphanumeric" or "byte"
	Characters int
}

// Draw makes the QR code of text and reads it back from its modules before it answers. It costs one to three milliseconds.
func Draw(text string) (p Picture, err error) {
	if text == "" || len(text) > maxDrawText {
		return Picture{}, ErrTooLong
	}
	// The encoder reports some of its own mistakes by panicking.
	defer func() {
		if r := recover(); r != nil {
			p, err = Picture{}, fmt.Errorf("%w: encoder gave up", ErrSelfCheck)
		}
	}()
	code, err := qrcode.New(text, qrcode.Medium)
	if err != nil {
		return Picture{}, fmt.Errorf("%w: %w", ErrTooLong, err)
	}
	code.DisableBorder = true // has no effect after the first rendering
	modules := code.Bitmap()  // renders anew at every call, and aliases the encoder's memory: once, then copied
	p = Picture{Version: code.VersionNumber, Modules: len(modules), rows: pack(modules)}
	p.Segments, err = selfCheck(text, p.Version, modules)
	if err != nil {
		return Picture{}, err
	}
	return p, nil
}

func pack(modules [][]bool) [][]byte {
	rows := make([][]byte, len(modules))
	for y, row := range modules {
		rows[y] = make([]byte, (len(row)+7)/8)
		for x, dark := range row {
			if dark {
				rows[y][x/8] |= 0x80 >> (x % 8)
			}
		}
	}
	return rows
}

// selfCheck decodes the modules with the other library and checks text, level, size and segments.
func selfCheck(text string, version int, modules [][]bool) ([]Segment, error) {
	result, err := decoder.NewDecoder().DecodeBoolMapWithoutHint(modules)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSelfCheck, err)
	}
	if result.GetText() != text || result.GetECLevel() != "M" || len(modules) != 17+4*version {
		return nil, fmt.Errorf("%w: other text, level or size", ErrSelfCheck)
	}
	segments, ok := readSegments(result.GetRawBytes(), version)
	if !ok || !segmentsHold(segments, text) {
		return nil, fmt.Errorf("%w: segments", ErrSelfCheck)
	}
	return segments, nil
}

// segmentsHold says whether the segments carry exactly text, digits alone as one numeric segment. The encoder's choice is
// not ours, so it is checked: a byte segment for ONLINE would cost a larger code, a foreign mode a scanner's guess.
func segmentsHold(segments []Segment, text string) bool {
	total := 0
	for _, s := range segments {
		total += s.Characters
	}
	if total != len(text) {
		return false
	}
	return !allDigits(text) || len(segments) == 1 && segments[0].Mode == "numeric"
}

// segmentModes gives for each mode indicator its name and the width of its character count in versions 1–9, 10–26, 27–40
// (ISO/IEC 18004 tables 2 and 3), and the bits of a group with their character number.
var segmentModes = map[int]struct {
	name   string
	widths [3]int
}{
	1: {"numeric", [3]int{10, 12, 14}},
	2: {"alphanumeric", [3]int{9, 11, 13}},
	4: {"byte", [3]int{8, 16, 16}},
}

// readSegments reads the headers in the data codewords of a code.
func readSegments(data []byte, version int) ([]Segment, bool) {
	size := 0
	if version >= 10 {
		size++
	}
	if version >= 27 {
		size++
	}
	var segments []Segment
	b := bitReader{data: data}
	for b.left() >= 4 {
		indicator := b.take(4)
		if indicator == 0 { // the terminator
			break
		}
		mode, ok := segmentModes[indicator]
		if !ok || b.left() < mode.widths[size] {
			return nil, false
		}
		n := b.take(mode.widths[size])
		if bits := segmentBits(indicator, n); bits > b.left() {
			return nil, false
		} else {
			b.at += bits
		}
		segments = append(segments, Segment{Mode: mode.name, Characters: n})
	}
	return segments, true
}

// segmentBits is the length of n characters in a mode, in bits.
func segmentBits(indicator, n int) int {
	switch indicator {
	case 1:
		return n/3*10 + [3]int{0, 4, 7}[n%3]
	case 2:
		return n/2*11 + n%2*6
	}
	return n * 8
}

// bitReader takes bits from the front of data.
type bitReader struct {
	data []byte
	at   int
}

func (b *bitReader) left() int { return 8*len(b.data) - b.at }

func (b *bitReader) take(n int) int {
	v := 0
	for ; n > 0; n-- {
		v = v<<1 | int(b.data[b.at/8]>>(7-b.at%8)&1)
		b.at++
	}
	return v
}

// Dark says whether the module at column x and row y is dark; outside the code everything is white.
func (p Picture) Dark(x, y int) bool {
	return x >= 0 && y >= 0 && x < p.Modules && y < p.Modules && p.rows[y][x/8]&(0x80>>(x%8)) != 0
}

// Side is the side with the quiet zone, in modules.
func (p Picture) Side() int { return p.Modules + 2*QuietZone }

// Fit returns the largest whole number of dots (or pixels) a module at which code and quiet zone fit into width dots; 0 if
// none does. Modules are never scaled by a fraction.
func (p Picture) Fit(width int) int {
	if p.Modules == 0 || width < 0 {
		return 0
	}
	return width / p.Side()
}

// SVG draws the code one unit a module with its quiet zone, black on white in every theme.
func (p Picture) SVG() string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" shape-rendering="crispEdges">`, p.Side(), p.Side())
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/><path fill="#000" d="`, p.Side(), p.Side())
	for y := range p.Modules {
		for x := 0; x < p.Modules; x++ {
			run := 0
			for p.Dark(x+run, y) {
				run++
			}
			if run > 0 {
				fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", x+QuietZone, y+QuietZone, run, run)
				x += run
			}
		}
	}
	b.WriteString(`"/></svg>`)
	return b.String()
}

// PNG draws the code with scale pixels a module (1 to 64) and its quiet zone, in two colours.
func (p Picture) PNG(scale int) ([]byte, error) {
	widthBytes, rows, bits, err := p.raster(scale)
	if err != nil {
		return nil, err
	}
	img := image.NewPaletted(image.Rect(0, 0, rows, rows), color.Palette{color.White, color.Black})
	for y := range rows {
		for x := range rows {
			img.Pix[y*img.Stride+x] = bits[y*widthBytes+x/8] >> (7 - x%8) & 1
		}
	}
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestSpeed}).Encode(&out, img); err != nil {
		return nil, fmt.Errorf("draw png: %w", err)
	}
	return out.Bytes(), nil
}

// Raster packs the code with scale dots a module (1 to 64) and its quiet zone for a printer: rows of widthBytes bytes, most
// significant bit left, 1 = black, the rest of the last byte white. A scale out of range gives nothing.
func (p Picture) Raster(scale int) (widthBytes, rows int, bits []byte) {
	widthBytes, rows, bits, _ = p.raster(scale)
	return widthBytes, rows, bits
}

func (p Picture) raster(scale int) (widthBytes, rows int, bits []byte, err error) {
	if scale < 1 || scale > maxScale || p.Modules == 0 {
		return 0, 0, nil, ErrScale
	}
	rows = p.Side() * scale
	widthBytes = (rows + 7) / 8
	bits = make([]byte, widthBytes*rows)
	for y := range p.Modules {
		first := (y + QuietZone) * scale
		line := bits[first*widthBytes : (first+1)*widthBytes]
		for x := range p.Modules {
			if !p.Dark(x, y) {
				continue
			}
			for i := (x + QuietZone) * scale; i < (x+QuietZone+1)*scale; i++ {
				line[i/8] |= 0x80 >> (i % 8)
			}
		}
		for i := 1; i < scale; i++ {
			copy(bits[(first+i)*widthBytes:], line)
		}
	}
	return widthBytes, rows, bits, nil
}

// blackOnWhite sets the colours of a terminal line explicitly, because an inverted code is not read by many phones.
const (
	blackOnWhite = "\x1b[30;107m"
	plainColours = "\x1b[0m"
)

// Text draws the code for a terminal with half blocks, two modules above each other in one character, black on white with
// the quiet zone, whatever the theme.
func (p Picture) Text() string {
	if p.Modules == 0 {
		return ""
	}
	var b strings.Builder
	for y := -QuietZone; y < p.Modules+QuietZone; y += 2 {
		b.WriteString(blackOnWhite)
		for x := -QuietZone; x < p.Modules+QuietZone; x++ {
			switch top, bottom := p.Dark(x, y), p.Dark(x, y+1); {
			case top && bottom:
				b.WriteString("█")
			case top:
				b.WriteString("▀")
			case bottom:
				b.WriteString("▄")
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteString(plainColours + "\n")
	}
	return b.String()
}

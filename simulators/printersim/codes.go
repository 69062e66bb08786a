package printersim

import (
	"bytes"
	"strings"

	"yupos/devices/paycode"
)

// symbol is GS ( k with cn = 49: the printer's own QR codes.
func (p *Printer) symbol(args []byte) {
	if len(args) < 2 || args[0] != '1' {
		p.fault("GS ( k: not a QR code: % X", head(args))
		return
	}
	rest := args[2:]
	switch fn := args[1]; {
	case fn == 'A' && len(rest) == 2 && (rest[0] == '1' || rest[0] == '2'): // model
	case fn == 'C' && len(rest) == 1 && rest[0] >= 1 && rest[0] <= 16:
		p.qr.size = int(rest[0])
	case fn == 'E' && len(rest) == 1 && rest[0] >= '0' && rest[0] <= '3':
		p.qr.level = rest[0]
	case fn == 'P' && len(rest) > 1 && rest[0] == '0':
		p.qr.data, p.qr.full = string(rest[1:]), true
	case fn == 'Q' && len(rest) == 1 && rest[0] == '0':
		p.printQR()
	default:
		p.fault("GS ( k with wrong arguments: % X", head(args))
	}
}

// printQR prints what is stored. The white around it is the host's business: a real printer adds none.
func (p *Printer) printQR() {
	if !p.qr.full {
		p.fault("a QR code to print, and none stored")
		return
	}
	code, err := paycode.Draw(p.qr.data)
	if err != nil {
		p.fault("%v cannot be drawn", p.qr)
		return
	}
	if code.Modules*p.qr.size > p.width {
		p.fault("%v is %d dots wide on %d: not printed", p.qr, code.Modules*p.qr.size, p.width)
		return
	}
	if !p.page.empty() {
		p.fault("a QR code inside a line")
		p.flush()
	}
	g := newGlyph(code.Modules, code.Modules)
	for y := range code.Modules {
		for x := range code.Modules {
			g.dots[y*g.w+x] = code.Dark(x, y)
		}
	}
	g = g.scaled(p.qr.size, p.qr.size)
	p.page.place(g, p.align, p.left, p.width)
	p.page.qr = append(p.page.qr, p.qr.data)
}

// barcode is a one-dimensional code in the making.
type barcode struct {
	height, module int
	words          byte // where its text stands: bit 0 above, bit 1 below
}

func (p *Printer) barcodeCommand(b []byte) {
	switch b[1] {
	case 0x68:
		p.bar.height = max(int(b[2]), 1)
	case 0x77:
		p.bar.module = min(max(int(b[2]), 2), 6)
	case 0x48:
		p.bar.words = b[2] & 3
	case 0x6B:
		p.printBarcode(b)
	}
}

// printBarcode is GS k. Code 128 is printed; the others are known by their form only.
func (p *Printer) printBarcode(b []byte) {
	if b[2] != 73 {
		p.fault("a barcode that this printer has not: % X", head(b))
		return
	}
	values, text, ok := code128(b[4:])
	if !ok {
		p.fault("a Code 128 that is none: % X", head(b))
		return
	}
	bars := code128Bars(values)
	if len(bars)*p.bar.module > p.width {
		p.fault("a barcode of %d dots on %d: not printed", len(bars)*p.bar.module, p.width)
		return
	}
	p.flush()
	if p.bar.words&1 != 0 {
		p.words(text)
	}
	g := newGlyph(len(bars), 1)
	copy(g.dots, bars)
	p.page.place(g.scaled(p.bar.module, p.bar.height), p.align, p.left, p.width)
	if p.bar.words&2 != 0 {
		p.words(text)
	}
}

// words prints a line in Font A.
func (p *Printer) words(text string) {
	for _, r := range text {
		p.page.put(glyphOf(r, widthA, heightA), false)
		p.page.text.WriteRune(r)
	}
	p.line(p.spacing)
}

// code128 turns the data of GS k 73 ({A, {B, {C choose the set, {{ is a brace) into symbol values with start, check and
// stop, and the text.
func code128(data []byte) (values []int, text string, ok bool) {
	var words strings.Builder
	set := byte(0)
	for len(data) > 0 {
		if bytes.HasPrefix(data, []byte("{")) && len(data) > 1 && data[1] != '{' {
			v, next, known := code128Switch(data[1], set, len(values) == 0)
			if !known {
				return nil, "", false
			}
			values, set, data = append(values, v), next, data[2:]
			continue
		}
		v, used, known := code128Value(data, set)
		if !known {
			return nil, "", false
		}
		values = append(values, v)
		if set == 'C' {
			words.WriteByte('0' + byte(v/10))
			words.WriteByte('0' + byte(v%10))
		} else {
			words.WriteByte(data[0])
		}
		data = data[used:]
	}
	if len(values) < 2 {
		return nil, "", false
	}
	sum := values[0]
	for i, v := range values[1:] {
		sum += (i + 1) * v
	}
	return append(values, sum%103, 106), words.String(), true
}

func code128Switch(to, set byte, first bool) (value int, next byte, ok bool) {
	start := map[byte]int{'A': 103, 'B': 104, 'C': 105}
	change := map[byte]int{'A': 101, 'B': 100, 'C': 99}
	if _, known := start[to]; !known || !first && to == set {
		return 0, 0, false
	}
	if first {
		return start[to], to, true
	}
	return change[to], to, true
}

func code128Value(data []byte, set byte) (value, used int, ok bool) {
	c := data[0]
	switch {
	case set == 'A' && c < 0x20:
		return int(c) + 64, 1, true
	case set == 'A' && c >= 0x20 && c < 0x60, set == 'B' && c >= 0x20 && c < 0x80:
		if c == '{' {
			return int(c) - 32, 2, len(data) > 1 // doubled
		}
		return int(c) - 32, 1, true
	case set == 'C' && c < 100:
		return int(c), 1, true
	}
	return 0, 0, false
}

// code128Bars draws the values module by module.
func code128Bars(values []int) []bool {
	var out []bool
	for _, v := range values {
		dark := true
		for _, n := range code128Widths[v] {
			for range n - '0' {
				out = append(out, dark)
			}
			dark = !dark
		}
	}
	return out
}

// code128Widths are the widths of bars and spaces by value (ISO/IEC 15417, table 1).
var code128Widths = strings.Fields(`
212222 222122 222221 121223 121322 131222 122213 122312 132212 221213 221312 231212 112232 122132 122231 113222 123122 123221
223211 221132 221231 213212 223112 312131 311222 321122 321221 312212 322112 322211 212123 212321 232121 111323 131123 131321
112313 132113 132311 211313 231113 231311 112133 112331 132131 113123 113321 133121 313121 211331 231131 213113 213311 213131
311123 311321 331121 312113 312311 332111 314111 221411 431111 111224 111422 121124 121421 141122 141221 112214 112412 122114
122411 142112 142211 241211 221114 413111 241112 134111 111242 121142 121241 114212 124112 124211 411212 421112 421211 212141
214121 412121 111143 111341 131141 114113 114311 411113 411311 113141 114131 311141 411131 211412 211214 211232 2331112`)

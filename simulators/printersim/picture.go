package printersim

// picture is a stored graphic (GS ( L function 112), printed by function 50.
type picture = glyph

// unpack reads rows of dots, most significant bit left, each dot mx by my.
func unpack(widthBytes, rows, mx, my int, data []byte) glyph {
	g := newGlyph(widthBytes*8, rows)
	for y := range rows {
		for x := range g.w {
			g.dots[y*g.w+x] = data[y*widthBytes+x/8]&(0x80>>(x%8)) != 0
		}
	}
	return g.scaled(mx, my)
}

// rasterImage is GS v 0 m xL xH yL yH d…: bytes a row, rows.
func (p *Printer) rasterImage(b []byte) {
	m := b[3]
	if m >= '0' {
		m -= '0'
	}
	widthBytes, rows := le16(b[4:]), le16(b[6:])
	if b[2] != '0' || m > 3 || widthBytes == 0 || rows == 0 {
		p.fault("a picture that is none: % X", head(b))
		return
	}
	if !p.page.empty() {
		p.fault("a picture inside a line")
		p.flush()
	}
	p.print(unpack(widthBytes, rows, 1+int(m&1), 1+int(m>>1), b[8:]))
}

// print puts a picture on the paper; what does not fit is cut off, and that is an error of the host.
func (p *Printer) print(g glyph) {
	if g.w > p.width+7 { // the padding of the last byte
		p.fault("a picture of %d dots on %d", g.w, p.width)
	}
	if p.page.used+g.h > maxRows {
		p.fault("a picture beyond the end of the paper")
		return
	}
	p.page.image(g, p.align, p.left, p.width)
}

// columnImage is ESC * m nL nH d…: columns of 8 or 24 dots, in the line like a character.
func (p *Printer) columnImage(b []byte) {
	m, columns := b[2], le16(b[3:])
	if m != 0 && m != 1 && m != 32 && m != 33 {
		p.fault("unknown: % X", head(b))
		return
	}
	deep := columnBytes(m)
	g := newGlyph(columns, deep*8)
	for x := range columns {
		for y := range g.h {
			g.dots[y*g.w+x] = b[5+x*deep+y/8]&(0x80>>(y%8)) != 0
		}
	}
	mx, my := 1, 1
	if m == 0 || m == 32 {
		mx = 2 // single density
	}
	if deep == 1 {
		my = 3
	}
	if p.page.x+columns*mx > p.width {
		p.fault("a strip of %d dots at %d of %d", columns*mx, p.page.x, p.width)
	}
	p.page.put(g.scaled(mx, my), false)
}

// graphics is GS ( L and GS 8 L: function 112 stores a picture, function 50 prints it.
func (p *Printer) graphics(args []byte) {
	if len(args) < 2 || args[0] != '0' {
		p.fault("graphics with wrong arguments: % X", head(args))
		return
	}
	switch fn := args[1]; {
	case fn == 112 && len(args) >= 10:
		p.store(args[2:])
	case fn == 2 || fn == 50:
		if p.stored == nil {
			p.fault("graphics to print, and none stored")
			return
		}
		p.flush()
		p.print(*p.stored)
		p.stored = nil
	case fn == 0 || fn == 48 || fn == 1 || fn == 49: // sizes, density
	default:
		p.fault("graphics of an unknown function: % X", head(args))
	}
}

// store takes a bx by c xL xH yL yH d…, x in dots.
func (p *Printer) store(args []byte) {
	dots, rows := le16(args[4:]), le16(args[6:])
	data := args[8:]
	widthBytes := (dots + 7) / 8
	if args[0] != '0' || args[1] < 1 || args[1] > 2 || args[2] < 1 || args[2] > 2 || dots == 0 || rows == 0 || len(data) != widthBytes*rows {
		p.fault("graphics with wrong arguments: % X", head(args))
		return
	}
	g := unpack(widthBytes, rows, int(args[1]), int(args[2]), data)
	p.stored = &g
}

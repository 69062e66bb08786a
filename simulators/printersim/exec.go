package printersim

import (
	"fmt"
	"strings"
)

// modes is what commands set and ESC @ sets back.
type modes struct {
	align       byte
	fontB       bool
	bold        bool
	underline   int // dots: 0, 1 or 2
	hanziLine   int // underline of Chinese characters
	invert      bool
	w, h        int // magnification, 1 to 8
	hanziW      int
	hanziH      int
	spacing     int // dots from line to line
	right       int // dots after each character
	left, width int // of the print area
	tabs        []int
	kanji       bool // the GB18030 character set is on
	elsewhere   bool // ESC = has selected another device
	qr          symbol
	bar         barcode
	stored      *picture
	customTabs  bool
}

// initialise is ESC @: the line is forgotten and every mode is as after power on. Chinese models begin with Chinese on.
func (p *Printer) initialise() {
	p.page.clearLine()
	p.asb = 0
	p.modes = modes{
		w: 1, h: 1, hanziW: 1, hanziH: 1, spacing: 30, width: p.options.Dots, kanji: true,
		qr: symbol{size: 3, level: '0'}, bar: barcode{height: 162, module: 3},
	}
}

// step takes the next byte in the order of printing.
func (p *Printer) step(c byte) {
	if p.skip > 0 {
		p.skip--
		return
	}
	p.command = append(p.command, c)
	if len(p.command) < p.want {
		return
	}
	n := need(p.command, p.kanji)
	switch {
	case n > maxPicture:
		p.fault("a command of %d bytes: % X", n, head(p.command))
		p.skip = n - len(p.command)
	case n > len(p.command):
		p.want = n
		return
	case n == 0:
		p.fault("unknown: % X", head(p.command))
	case !p.elsewhere || p.command[0] == 0x1B && p.command[1] == 0x3D:
		p.exec(p.command)
	}
	p.command, p.want = p.command[:0], 0
	if p.page.full() {
		p.fault("a receipt of more than three metres")
		p.finish(false)
	}
}

func head(b []byte) []byte { return b[:min(len(b), 8)] }

// exec does a whole command.
func (p *Printer) exec(b []byte) {
	switch {
	case b[0] == 0x1B:
		p.execESC(b)
	case b[0] == 0x1C:
		p.execFS(b)
	case b[0] == 0x1D:
		p.execGS(b)
	case b[0] == 0x10: // was done when it arrived
	case b[0] == 0x0A:
		p.line(p.spacing)
	case b[0] == 0x09:
		p.tab()
	case b[0] >= 0x20:
		p.character(b)
	} // CR and NUL do nothing
}

// line prints the line and moves the paper at least so far.
func (p *Printer) line(rows int) {
	p.page.endLine(p.align, p.left, p.width, rows)
}

// flush prints a line that has begun: what follows takes whole lines.
func (p *Printer) flush() {
	if !p.page.empty() {
		p.line(p.spacing)
	}
}

func (p *Printer) execESC(b []byte) {
	switch b[1] {
	case 0x40:
		p.initialise()
	case 0x21: // ESC ! everything at once
		p.fontB, p.bold = b[2]&0x01 != 0, b[2]&0x08 != 0
		p.size(1+int(b[2]>>5&1), 1+int(b[2]>>4&1))
		p.underline = int(b[2] >> 7)
	case 0x20:
		p.right = int(b[2])
	case 0x24: // ESC $ from the left margin
		p.move(le16(b[2:]))
	case 0x5C: // ESC \ from here, signed
		p.move(p.page.x + int(int16(le16(b[2:]))))
	case 0x2D:
		p.underline = p.thickness(b)
	case 0x32:
		p.spacing = 30
	case 0x33:
		p.spacing = int(b[2])
	case 0x45, 0x47:
		p.bold = b[2]&1 != 0
	case 0x4D:
		p.fontB = b[2]&1 != 0
	case 0x4A:
		p.line(int(b[2]))
	case 0x64:
		p.line(int(b[2]) * p.spacing)
	case 0x61:
		p.setAlign(b)
	case 0x2A:
		p.columnImage(b)
	case 0x44:
		p.setTabs(b[2 : len(b)-1])
	case 0x69, 0x6D:
		p.cut()
	case 0x70:
		p.drawer(b)
	case 0x76:
		p.reply(p.sensors.queued())
	case 0x75:
		p.reply(0)
	case 0x3D:
		p.elsewhere = b[2]&1 == 0
	default:
		p.harmless(b)
	}
}

// harmless takes the commands that change nothing on this printer; one that should have changed something is an error.
func (p *Printer) harmless(b []byte) {
	switch {
	case b[0] == 0x1B && (b[1] == 0x7B || b[1] == 0x56 || b[1] == 0x54 || b[1] == 0x72) && b[2]&1 != 0:
		p.fault("not on this printer: % X", head(b)) // upside down, turned, red
	case b[0] == 0x1B && b[1] == 0x28, b[0] == 0x1C && (b[1] == 0x28 || b[1] == 0x70), b[0] == 0x1B && (b[1] == 0x65 || b[1] == 0x4B):
		p.fault("not on this printer: % X", head(b))
	}
}

func (p *Printer) execFS(b []byte) {
	switch b[1] {
	case 0x26:
		p.kanji = true
	case 0x2E:
		p.kanji = false
	case 0x21: // FS ! Chinese characters only
		p.hanziW, p.hanziH, p.hanziLine = 1+int(b[2]>>2&1), 1+int(b[2]>>3&1), int(b[2]>>7)
	case 0x2D:
		p.hanziLine = p.thickness(b)
	case 0x57: // FS W four times the size
		p.hanziW, p.hanziH = 1+int(b[2]&1), 1+int(b[2]&1)
	default:
		p.harmless(b)
	}
}

func (p *Printer) execGS(b []byte) {
	switch b[1] {
	case 0x21:
		p.size(1+int(b[2]>>4&7), 1+int(b[2]&7))
	case 0x42:
		p.invert = b[2]&1 != 0
	case 0x4C:
		p.area(le16(b[2:]), p.width)
	case 0x57:
		p.area(p.left, le16(b[2:]))
	case 0x56:
		p.cutMode(b)
	case 0x61:
		p.asb = b[2]
		if p.asb != 0 {
			p.reply(p.sensors.block()...)
		}
	case 0x72:
		p.queuedStatus(b)
	case 0x49:
		p.identify(b)
	case 0x76:
		p.rasterImage(b)
	case 0x28:
		p.function(b)
	case 0x38:
		if b[2] != 'L' {
			p.fault("unknown: % X", head(b))
			return
		}
		p.graphics(b[7:])
	case 0x6B, 0x68, 0x77, 0x48, 0x66:
		p.barcodeCommand(b)
	default:
		p.harmless(b)
	}
}

// function takes the commands of the form GS ( X.
func (p *Printer) function(b []byte) {
	args := b[5:]
	switch b[2] {
	case 'k':
		p.symbol(args)
	case 'H':
		p.processID(args)
	case 'L':
		p.graphics(args)
	case 'D':
		p.allowRealTime(args)
	case 'E', 'K', 'A', 'C', 'M', 'N', 'P', 'z': // setting up and testing: of no effect on paper
	default:
		p.fault("unknown: % X", head(b))
	}
}

// allowRealTime is GS ( D: which real-time commands are obeyed.
func (p *Printer) allowRealTime(args []byte) {
	if len(args) < 3 || args[0] != 20 || len(args)%2 == 0 {
		p.fault("GS ( D with wrong arguments: % X", head(args))
		return
	}
	for i := 1; i < len(args); i += 2 {
		if args[i] == 1 {
			p.pulses = args[i+1]&1 != 0
		}
	}
}

// processID is GS ( H function 48: the four bytes come back when everything before them is printed.
func (p *Printer) processID(args []byte) {
	if len(args) != 6 || args[0] != '0' || args[1] != '0' {
		p.fault("GS ( H with wrong arguments: % X", head(args))
		return
	}
	for _, d := range args[2:] {
		if d < 32 || d > 126 {
			p.fault("GS ( H with an id outside 32 to 126: % X", args[2:])
			return
		}
	}
	p.reply(0x37, 0x22, args[2], args[3], args[4], args[5], 0)
}

func (p *Printer) queuedStatus(b []byte) {
	switch b[2] {
	case 1, '1':
		p.reply(p.sensors.queued())
	case 2, '2':
		p.reply(0)
	default:
		p.fault("unknown: % X", b)
	}
}

// identify is GS I. Clones call themselves what this one does.
func (p *Printer) identify(b []byte) {
	names := map[byte]string{65: "1.0 yupos", 66: "EPSON", 67: "TM-T88V", 68: "SIM00001", 69: "GB18030"}
	switch name, ok := names[b[2]]; {
	case ok:
		p.reply(append([]byte{0x5F}, name+"\x00"...)...)
	case b[2] >= 1 && b[2] <= 3, b[2] >= '1' && b[2] <= '3':
		p.reply(0x02) // a two-byte character set and a cutter
	default:
		p.fault("unknown: % X", b)
	}
}

func (p *Printer) size(w, h int) { p.w, p.h, p.hanziW, p.hanziH = w, h, w, h }

func (p *Printer) thickness(b []byte) int {
	n := int(b[2])
	if n >= '0' {
		n -= '0'
	}
	if n > 2 {
		p.fault("unknown: % X", b)
		return 0
	}
	return n
}

// setAlign is honoured at the start of a line only.
func (p *Printer) setAlign(b []byte) {
	n := b[2]
	if n >= '0' {
		n -= '0'
	}
	switch {
	case n > 2:
		p.fault("unknown: % X", b)
	case !p.page.empty():
		p.fault("alignment inside a line is ignored")
	default:
		p.align = n
	}
}

// area sets the print area, at the start of a line only.
func (p *Printer) area(left, width int) {
	if !p.page.empty() {
		p.fault("margins inside a line are ignored")
		return
	}
	p.left = min(left, p.options.Dots-1)
	p.width = min(width, p.options.Dots-p.left)
}

func (p *Printer) cutMode(b []byte) {
	switch m := b[2]; m {
	case 0, 1, '0', '1':
		p.cut()
	case 65, 66, 97, 98, 103, 104: // to the knife and n dots more
		p.flush()
		p.page.feed(int(b[3]))
		p.cut()
	default:
		p.fault("unknown: % X", head(b))
	}
}

func (p *Printer) cut() {
	p.flush()
	p.finish(true)
}

func (p *Printer) drawer(b []byte) {
	if m := b[2]; m != 0 && m != 1 && m != '0' && m != '1' {
		p.fault("a drawer that is not there: % X", b)
		return
	}
	p.kick()
}

// setTabs is ESC D: columns of the present font, rising.
func (p *Printer) setTabs(columns []byte) {
	p.tabs, p.customTabs = nil, true
	for _, c := range columns {
		p.tabs = append(p.tabs, int(c)*(widthA*p.w+p.right))
	}
}

func (p *Printer) tab() {
	if !p.customTabs {
		p.move((p.page.x/(8*widthA) + 1) * 8 * widthA)
		return
	}
	for _, t := range p.tabs {
		if t > p.page.x {
			p.move(t)
			return
		}
	}
}

// move sets the place of the next character; the text gets as many spaces as fit.
func (p *Printer) move(x int) {
	if x < 0 || x >= p.width {
		return // outside the print area: ignored
	}
	if gap := x - p.page.x; gap > 0 {
		p.page.text.WriteString(strings.Repeat(" ", max(gap/widthA, 1)))
	}
	p.page.x = x
}

// symbol is a QR code in the making.
type symbol struct {
	size  int // dots a module
	level byte
	data  string
	full  bool
}

func (s symbol) String() string { return fmt.Sprintf("QR of %d bytes", len(s.data)) }

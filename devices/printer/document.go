package printer

// Style is how a line of text looks. Center wins over Right.
type Style struct {
	Bold   bool
	Double bool // twice as wide and high
	Tall   bool // twice as high
	Center bool
	Right  bool
}

// Bits is a picture, one bit a dot, rows of WidthBytes bytes, most significant
// bit left, 1 = black. Modules is how many modules of a QR code lie side by side
// in it, with whatever quiet zone it has; 0 if every dot is one. The driver
// enlarges or shrinks a code to whole dots of the paper.
type Bits struct {
	WidthBytes int
	Rows       int
	Bits       []byte
	Modules    int
}

// Document is what shall stand on the paper, top to bottom, independent of the
// printer. The zero value is empty; the methods add to it and return it.
type Document struct {
	parts []part
}

// part is one of the kinds below.
type part any

type (
	textPart struct {
		style Style
		text  string
	}
	columnsPart struct {
		style       Style
		left, right string
	}
	qrPart struct {
		text string
		dots int
		bits Bits
	}
	rasterPart struct{ bits Bits }
	rulePart   struct{}
	feedPart   struct{ lines int }
	cutPart    struct{}
	drawerPart struct{}
)

// Text adds text in one style; it is wrapped at the paper's width, and "\n" ends
// a line.
func (d *Document) Text(style Style, text string) *Document {
	return d.add(textPart{style, text})
}

// Columns adds one line with left at the left and right at the right edge. If
// they do not fit, left is wrapped and right stands on its last line.
func (d *Document) Columns(left, right string) *Document {
	return d.StyledColumns(Style{}, left, right)
}

// StyledColumns is [Document.Columns] in a style; its alignment is ignored.
func (d *Document) StyledColumns(style Style, left, right string) *Document {
	return d.add(columnsPart{style, left, right})
}

// QR adds a QR code of at most dots dots a module; 0 is the largest that fits.
// The code is drawn by the printer, so it never depends on what version and
// segments the printer chooses: the width is that of the worst version.
func (d *Document) QR(text string, dots int) *Document {
	return d.add(qrPart{text: text, dots: dots})
}

// QRBits is [Document.QR] with the code drawn already, for printers that can not
// draw it themselves.
func (d *Document) QRBits(text string, dots int, bits Bits) *Document {
	return d.add(qrPart{text: text, dots: dots, bits: bits})
}

// Raster adds a picture as it is, centred.
func (d *Document) Raster(widthBytes, rows int, bits []byte) *Document {
	return d.add(rasterPart{Bits{WidthBytes: widthBytes, Rows: rows, Bits: bits}})
}

// Rule adds a line across the paper.
func (d *Document) Rule() *Document { return d.add(rulePart{}) }

// Feed adds n blank lines, at most 255.
func (d *Document) Feed(n int) *Document { return d.add(feedPart{n}) }

// Cut feeds the paper past the knife and cuts it, or past the tear bar where
// there is no knife.
func (d *Document) Cut() *Document { return d.add(cutPart{}) }

// Drawer opens the cash drawer when the printer has come to this place.
func (d *Document) Drawer() *Document { return d.add(drawerPart{}) }

func (d *Document) add(p part) *Document {
	d.parts = append(d.parts, p)
	return d
}

package printersim

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"slices"
	"strings"
	"time"

	"yupos/devices/paycode"
)

// ErrNoReceipt says that there is no receipt of that number (any more: the last 500 are kept).
var ErrNoReceipt = errors.New("printersim: no such receipt")

const keepReceipts = 500

// Receipt is a piece of paper: what was printed between two cuts, or before a pause where nothing cuts.
type Receipt struct {
	N      int      `json:"n"`      // from 1, in the order of printing
	Text   string   `json:"text"`   // line by line, without what alignment does
	QR     []string `json:"qr"`     // the QR codes on it, from the top; pictures are read back
	Cut    bool     `json:"cut"`    // by the cutter; false: the paper came to rest
	Drawer bool     `json:"drawer"` // the cash drawer was opened while it was printed
	PNG    string   `json:"png"`    // where its picture is

	dots, rows int
	bits       []byte
}

// margins of white paper around the printable area, in dots: 80 mm paper has 640, 58 mm has 464.
const (
	marginX80 = 32
	marginX58 = 40
	marginY   = 24
)

// Image is what the receipt looks like, one pixel a dot.
func (r Receipt) Image() *image.Paletted {
	margin := marginX80
	if r.dots <= 384 {
		margin = marginX58
	}
	return draw(r.dots, r.rows, r.bits, margin, marginY)
}

// Picture is Image as a PNG.
func (r Receipt) Picture() ([]byte, error) {
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestSpeed}).Encode(&out, r.Image()); err != nil {
		return nil, fmt.Errorf("encode receipt %d: %w", r.N, err)
	}
	return out.Bytes(), nil
}

func draw(dots, rows int, bits []byte, marginX, marginY int) *image.Paletted {
	img := image.NewPaletted(image.Rect(0, 0, dots+2*marginX, rows+2*marginY), color.Palette{color.White, color.Black})
	stride := (dots + 7) / 8
	for y := range rows {
		line := img.Pix[(y+marginY)*img.Stride+marginX:]
		for x := range dots {
			line[x] = bits[y*stride+x/8] >> (7 - x%8) & 1
		}
	}
	return img
}

// finish makes a receipt of the paper so far. The caller holds the lock.
func (p *Printer) finish(cut bool) {
	page := p.page
	p.page = p.blank()
	if !page.marked {
		p.page.drawer = page.drawer
		return
	}
	p.count++
	p.ended = time.Now()
	r := Receipt{
		N: p.count, Text: strings.Join(trimmed(page.lines), "\n"), QR: page.codes(), Cut: cut, Drawer: page.drawer,
		dots: page.dots, rows: page.used, bits: page.bits,
	}
	r.PNG = fmt.Sprintf("/_sim/printer/receipts/%d.png", r.N)
	p.receipts = append(p.receipts, r)
	if len(p.receipts) > keepReceipts {
		p.receipts = slices.Delete(p.receipts, 0, 1)
	}
	if p.options.OnReceipt != nil {
		p.options.OnReceipt(r)
	}
}

func trimmed(lines []string) []string {
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// codes are the texts of the QR codes: of the printer's own making, and what a reader finds in the pictures.
func (p *page) codes() []string {
	out := append([]string{}, p.qr...)
	for _, s := range p.pictures {
		bits := p.bits[s.from*p.stride() : s.to*p.stride()]
		text, symbology, err := paycode.ReadImage(draw(p.dots, s.to-s.from, bits, marginX80, marginX80))
		if err == nil && strings.Contains(strings.ToUpper(symbology), "QR") {
			out = append(out, text)
		}
	}
	return out
}

// Receipts are the receipts so far, the oldest first, 500 at most.
func (p *Printer) Receipts() []Receipt {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.receipts)
}

// Receipt returns one.
func (p *Printer) Receipt(n int) (Receipt, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.receipts {
		if r.N == n {
			return r, nil
		}
	}
	return Receipt{}, fmt.Errorf("receipt %d: %w", n, ErrNoReceipt)
}

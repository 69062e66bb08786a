package paycode

import (
	"errors"
	"image"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/oned"
	qrreader "github.com/makiuchi-d/gozxing/qrcode"
)

// The symbologies that pictures are read for.
const (
	SymbologyQR      = "QR"
	SymbologyCode128 = "CODE_128"
)

// Errors of reading pictures.
var (
	// ErrNothingRead says that no code was found in a picture within its limits.
	ErrNothingRead = errors.New("paycode: no code read")
	// ErrPicture says that a file is no picture, or larger than the limits.
	ErrPicture = errors.New("paycode: not a picture that can be read")
)

// grey is an 8-bit grey picture without padding; it is the luminance source of the decoding library, so that a pixel is
// never fetched through an interface.
type grey struct {
	gozxing.LuminanceSourceBase
	pix []byte
}

func newGrey(width, height int) *grey {
	return &grey{gozxing.LuminanceSourceBase{Width: width, Height: height}, make([]byte, width*height)}
}

// GetRow copies row y; it is part of the library's interface.
func (g *grey) GetRow(y int, row []byte) ([]byte, error) {
	if len(row) < g.Width {
		row = make([]byte, g.Width)
	}
	copy(row, g.pix[y*g.Width:(y+1)*g.Width])
	return row, nil
}

// GetMatrix hands out the pixels themselves; nobody may change them.
func (g *grey) GetMatrix() []byte { return g.pix }

// Invert returns the negative.
func (g *grey) Invert() gozxing.LuminanceSource { return gozxing.LuminanceSourceInvert(g) }

// String is part of the library's interface.
func (g *grey) String() string { return gozxing.LuminanceSourceString(g) }

// toGrey turns any picture into grey by (R+2G+B)/4, which reads more codes than the usual luma weights.
func toGrey(img image.Image) *grey {
	b := img.Bounds()
	g := newGrey(b.Dx(), b.Dy())
	i := 0
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			r, gr, bl, a := img.At(x, y).RGBA()
			white := 0xFFFF - a // transparent is white
			g.pix[i] = byte((r + 2*gr + bl + 4*white) >> 10)
			i++
		}
	}
	return g
}

// ReadImage reads the QR code or Code 128 in a picture: its text and its symbology, or [ErrNothingRead].
func ReadImage(img image.Image) (text, symbology string, err error) {
	if img == nil || img.Bounds().Empty() || img.Bounds().Dx()*img.Bounds().Dy() > 1<<24 {
		return "", "", ErrPicture
	}
	defer func() {
		if recover() != nil {
			text, symbology, err = "", "", ErrNothingRead
		}
	}()
	g := toGrey(img)
	for _, bin := range []gozxing.Binarizer{gozxing.NewHybridBinarizer(g), gozxing.NewGlobalHistgramBinarizer(g)} {
		if bmp, err := gozxing.NewBinaryBitmap(bin); err == nil {
			if r, err := qrreader.NewQRCodeReader().Decode(bmp, nil); err == nil {
				return r.GetText(), SymbologyQR, nil
			}
		}
	}
	if bmp, err := gozxing.NewBinaryBitmap(gozxing.NewHybridBinarizer(g)); err == nil {
		hints := map[gozxing.DecodeHintType]any{gozxing.DecodeHintType_TRY_HARDER: true}
		if r, err := oned.NewCode128Reader().Decode(bmp, hints); err == nil {
			return r.GetText(), SymbologyCode128, nil
		}
	}
	return "", "", ErrNothingRead
}

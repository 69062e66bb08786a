package paycode

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	_ "image/gif" // the formats that a picture may have
	_ "image/jpeg"
	_ "image/png"
	"time"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/oned"
	"github.com/makiuchi-d/gozxing/qrcode/decoder"
	"github.com/makiuchi-d/gozxing/qrcode/detector"
	_ "golang.org/x/image/bmp"
)

// The symbologies that pictures are read for.
const (
	SymbologyQR      = "QR"
	SymbologyCode128 = "CODE_128"
)

// Errors of reading pictures.
var (
	// ErrNothingRead says that no code was found in a picture within the time allowed.
	ErrNothingRead = errors.New("paycode: no code read")
	// ErrPicture says that a file is no PNG, JPEG, GIF or BMP picture, or is beyond the limits.
	ErrPicture = errors.New("paycode: not a picture that can be read")
)

// Limits bound the reading of one picture: bytes of the file, pixels, and the time after which no further attempt begins.
// One attempt on the largest picture of FileLimits takes well under a second.
type Limits struct {
	FileBytes, Pixels int
	Time              time.Duration
}

// The limits of a picture file given by hand, and of a camera frame sent to the register API.
var (
	FileLimits  = Limits{FileBytes: 16 << 20, Pixels: 16 << 20, Time: 2 * time.Second}
	FrameLimits = Limits{FileBytes: 4 << 20, Pixels: 1920 * 1088, Time: 300 * time.Millisecond}
)

// ReadImage reads the QR code or Code 128 in a picture within [FileLimits]: its text and its symbology, or
// [ErrNothingRead].
func ReadImage(img image.Image) (text, symbology string, err error) {
	return ReadImageWithin(img, FileLimits)
}

// ReadImageWithin is [ReadImage] with other limits.
func ReadImageWithin(img image.Image, l Limits) (text, symbology string, err error) {
	defer recoverRead(&text, &symbology, &err)
	if img == nil || !l.allow(img.Bounds().Dx(), img.Bounds().Dy()) {
		return "", "", ErrPicture
	}
	return climb(toGrey(img), time.Now().Add(l.Time))
}

// ReadGrey reads a frame of 8-bit grey pixels, such as the Y plane of a camera, whose rows are stride bytes apart.
func ReadGrey(pix []byte, width, height, stride int, l Limits) (text, symbology string, err error) {
	defer recoverRead(&text, &symbology, &err)
	if !l.allow(width, height) || stride < width || len(pix) < (height-1)*stride+width {
		return "", "", ErrPicture
	}
	g := newGrey(width, height)
	for y := range height {
		copy(g.pix[y*width:(y+1)*width], pix[y*stride:])
	}
	return climb(g, time.Now().Add(l.Time))
}

// ReadFile reads a PNG, JPEG, GIF (its first picture) or BMP file. The size that the file claims is checked before anything
// is allocated for it.
func ReadFile(data []byte, l Limits) (text, symbology string, err error) {
	defer recoverRead(&text, &symbology, &err)
	if len(data) > l.FileBytes {
		return "", "", fmt.Errorf("%w: larger than %d bytes", ErrPicture, l.FileBytes)
	}
	deadline := time.Now().Add(l.Time)
	config, format, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil || !readable[format] {
		return "", "", fmt.Errorf("%w: not PNG, JPEG, GIF or BMP", ErrPicture)
	}
	if !l.allow(config.Width, config.Height) {
		return "", "", fmt.Errorf("%w: %d by %d pixels", ErrPicture, config.Width, config.Height)
	}
	if format == "jpeg" && bytes.Count(data, jpegScan) > maxScans {
		return "", "", fmt.Errorf("%w: more than %d scans", ErrPicture, maxScans)
	}
	img, _, err := image.Decode(bytes.NewReader(data))
	if err != nil || !l.allow(img.Bounds().Dx(), img.Bounds().Dy()) {
		return "", "", fmt.Errorf("%w: damaged file", ErrPicture)
	}
	return climb(toGrey(img), deadline)
}

// jpegScan is the marker that begins a scan of a JPEG file; within the scans these bytes do not occur. A scan of a few bytes
// can go over all pixels, so a file of a hundred thousand of them would keep the decoder busy for minutes. Cameras write one
// scan, progressive files about ten.
var jpegScan = []byte{0xFF, 0xDA}

const maxScans = 64

// readable are the formats promised; other packages of a program may register more.
var readable = map[string]bool{"png": true, "jpeg": true, "gif": true, "bmp": true}

// allow says whether a picture of that size may be read. The sides are looked at first, so that the product cannot overflow.
func (l Limits) allow(width, height int) bool {
	return width > 0 && height > 0 && width <= l.Pixels && height <= l.Pixels && width*height <= l.Pixels
}

// recoverRead turns a panic, of which the libraries below are not known but not proven free, into a picture not read.
func recoverRead(text, symbology *string, err *error) {
	if recover() != nil {
		*text, *symbology, *err = "", "", ErrNothingRead
	}
}

// rung is one attempt.
type rung struct {
	name string
	try  func(*scene) (text, symbology string, ok bool)
}

// ladder is every attempt in the order of what it reads for its time. The order comes from measuring; DESIGN.md says on
// what.
var ladder = []rung{
	{"global", onQR((*scene).plain, (*grey).global)},
	{"code 128", onCode128((*scene).whole, false)},
	{"hybrid", onQR((*scene).plain, (*grey).hybrid)},
	{"inverted, global", onQR((*scene).inverted, (*grey).global)},
	{"inverted, hybrid", onQR((*scene).inverted, (*grey).hybrid)},
	{"bars", onBars((*scene).whole, barPass{lines: 40, taps: 1, share: 0.2})},
	{"code 128, harder", onCode128((*scene).whole, true)},
	{"full size, hybrid", onQR((*scene).larger, (*grey).hybrid)},
	{"full size, global", onQR((*scene).larger, (*grey).global)},
	{"blurred, global", onQR((*scene).blurred, (*grey).global)},
	{"adaptive 33", onQR((*scene).plain, window(33))},
	{"blurred, adaptive 33", onQR((*scene).blurred, window(33))},
	{"bars, averaged", onBars((*scene).whole, barPass{lines: 80, taps: 3, share: 0.2})},
	{"doubled, hybrid", onQR((*scene).doubled, (*grey).hybrid)},
	{"sharpened, hybrid", onQR((*scene).sharpened, (*grey).hybrid)},
	{"turned 20°", onQR((*scene).turned20, (*grey).hybrid)},
	{"adaptive 65", onQR((*scene).plain, window(65))},
	{"inverted, adaptive 33", onQR((*scene).inverted, window(33))},
	{"doubled, adaptive 33", onQR((*scene).doubled, window(33))},
	{"code 128, doubled", onCode128((*scene).doubled, true)},
	{"doubled, global", onQR((*scene).doubled, (*grey).global)},
	{"sharpened, global", onQR((*scene).sharpened, (*grey).global)},
	{"turned 45°", onQR((*scene).turned45, (*grey).hybrid)},
	{"doubled, adaptive 65", onQR((*scene).doubled, window(65))},
	{"padded, global", onQR((*scene).padded, (*grey).global)},
	{"adaptive 129", onQR((*scene).plain, window(129))},
	{"bars, averaged more", onBars((*scene).whole, barPass{lines: 80, taps: 5, share: 0.3})},
	{"bars, sharpened", onBars((*scene).small, barPass{lines: 64, taps: 9, share: 0.2, sharpen: 2})},
}

func window(side int) func(*grey) (*gozxing.BitMatrix, error) {
	return func(g *grey) (*gozxing.BitMatrix, error) { return g.adaptive(side) }
}

// climb tries the ladder from the bottom until something is read or the time is up. The first attempt is always made.
func climb(g *grey, deadline time.Time) (text, symbology string, err error) {
	s := newScene(g)
	for i, r := range ladder {
		if i > 0 && !time.Now().Before(deadline) {
			return "", "", fmt.Errorf("%w: time is up", ErrNothingRead)
		}
		if text, symbology, ok := r.try(s); ok {
			return text, symbology, nil
		}
	}
	return "", "", ErrNothingRead
}

// onQR makes an attempt out of a picture and a way to threshold it. A picture of nothing is no attempt.
func onQR(of func(*scene) *grey, threshold func(*grey) (*gozxing.BitMatrix, error)) func(*scene) (string, string, bool) {
	return func(s *scene) (string, string, bool) {
		g := of(s)
		if g == nil {
			return "", "", false
		}
		m, err := threshold(g)
		if err != nil {
			return "", "", false
		}
		text, ok := readQR(g, m)
		return text, SymbologyQR, ok
	}
}

// onCode128 makes an attempt out of a picture. A picture of nothing is no attempt.
func onCode128(of func(*scene) *grey, harder bool) func(*scene) (string, string, bool) {
	return func(s *scene) (string, string, bool) {
		if g := of(s); g != nil {
			return readCode128(g, harder)
		}
		return "", "", false
	}
}

// onBars makes an attempt out of a picture and a way to look along its lines. A picture of nothing is no attempt.
func onBars(of func(*scene) *grey, pass barPass) func(*scene) (string, string, bool) {
	return func(s *scene) (string, string, bool) {
		if g := of(s); g != nil {
			text, ok := readBars(g, pass)
			return text, SymbologyCode128, ok
		}
		return "", "", false
	}
}

// readQR looks for a QR code in a binary picture: the finders once, then for each likely triple of them the library's own
// grid and the sampler's.
func readQR(g *grey, m *gozxing.BitMatrix) (text string, ok bool) {
	try := func(matrix *gozxing.BitMatrix) bool {
		text, ok = decodeMatrix(matrix)
		return ok
	}
	for _, finders := range findFinders(m) {
		found, err := detector.NewDetector(m).ProcessFinderPatternInfo(finders)
		if err == nil && try(found.GetBits()) || sampleQR(g, m, finders, try) {
			return text, ok
		}
	}
	return "", false
}

// decodeMatrix decodes sampled modules. It changes the matrix, which nobody needs any more.
func decodeMatrix(matrix *gozxing.BitMatrix) (text string, ok bool) {
	result, err := decoder.NewDecoder().DecodeWithoutHint(matrix)
	if err != nil || result.GetText() == "" {
		return "", false
	}
	return result.GetText(), true
}

// readCode128 looks along the rows of a picture, and if it shall try harder along all of them and the columns. Never on a
// shrunk picture: a misread that passes the check character was seen there.
func readCode128(g *grey, harder bool) (text, symbology string, ok bool) {
	bmp, err := gozxing.NewBinaryBitmap(gozxing.NewHybridBinarizer(g))
	if err != nil {
		return "", "", false
	}
	var hints map[gozxing.DecodeHintType]any
	if harder {
		hints = map[gozxing.DecodeHintType]any{gozxing.DecodeHintType_TRY_HARDER: true}
	}
	result, err := oned.NewCode128Reader().Decode(bmp, hints)
	if err != nil || result.GetText() == "" {
		return "", "", false
	}
	return latin1(result.GetText()), SymbologyCode128, true
}

// latin1 makes text of the bytes that the library gives for a Code 128: its upper half (FNC4) is ISO 8859-1, not UTF-8.
func latin1(raw string) string {
	text := make([]rune, len(raw))
	for i := range len(raw) {
		text[i] = rune(raw[i])
	}
	return string(text)
}

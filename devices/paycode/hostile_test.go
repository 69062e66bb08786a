package paycode

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"runtime"
	"testing"

	"golang.org/x/image/bmp"
)

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func pngChunk(kind string, data []byte) []byte {
	b := append(be32(uint32(len(data))), kind...)
	b = append(b, data...)
	return append(b, be32(crc32.ChecksumIEEE(b[4:]))...)
}

// pngOf is a PNG with any header, and chunks between header and data.
func pngOf(width, height uint32, depth, colour, interlace byte, data []byte, extra ...[]byte) []byte {
	b := append([]byte("\x89PNG\r\n\x1a\n"), pngChunk("IHDR", append(append(be32(width), be32(height)...), depth, colour, 0, 0, interlace))...)
	for _, e := range extra {
		b = append(b, e...)
	}
	return append(append(b, pngChunk("IDAT", data)...), pngChunk("IEND", nil)...)
}

// deflated is n zeros, packed as small as they go.
func deflated(n int) []byte {
	var b bytes.Buffer
	w, _ := zlib.NewWriterLevel(&b, zlib.BestCompression)
	zeros := make([]byte, 1<<16)
	for ; n > 0; n -= len(zeros) {
		_, _ = w.Write(zeros[:min(n, len(zeros))]) // a buffer takes all
	}
	_ = w.Close()
	return b.Bytes()
}

func gifClaiming(width, height uint16, frames int) []byte {
	b := append([]byte("GIF89a"), byte(width), byte(width>>8), byte(height), byte(height>>8), 0x80, 0, 0, 0, 0, 0, 255, 255, 255)
	frame := []byte{',', 0, 0, 0, 0, byte(width), byte(width >> 8), byte(height), byte(height >> 8), 0, 2, 2, 0x4C, 1, 0}
	for range frames {
		b = append(b, frame...)
	}
	return append(b, ';')
}

func bmpClaiming(width, height int32, bits uint16) []byte {
	le := binary.LittleEndian
	b := append([]byte("BM"), make([]byte, 52)...)
	le.PutUint32(b[10:], 54)
	le.PutUint32(b[14:], 40)
	le.PutUint32(b[18:], uint32(width))
	le.PutUint32(b[22:], uint32(height))
	le.PutUint16(b[26:], 1)
	le.PutUint16(b[28:], bits)
	return b
}

// jpegClaiming is the head of a JPEG and nothing behind it.
func jpegClaiming(frame byte, width, height uint16) []byte {
	return []byte{0xFF, 0xD8, 0xFF, frame, 0, 17, 8, byte(height >> 8), byte(height), byte(width >> 8), byte(width), 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0, 0xFF, 0xD9}
}

// hostileFiles are files that were made to harm whoever opens them.
func hostileFiles() map[string][]byte {
	bomb := deflated(200 << 20)
	return map[string][]byte{
		"a PNG of 65535 by 65535":              pngOf(65535, 65535, 8, 2, 0, nil),
		"a PNG of 65535 by 65535 with a bomb":  pngOf(65535, 65535, 8, 2, 0, bomb),
		"a PNG of two thousand million a side": pngOf(0x7FFFFFFF, 0x7FFFFFFF, 16, 6, 1, nil),
		"a PNG of one row as long as can be":   pngOf(0x7FFFFFFF, 1, 1, 0, 0, nil),
		"a small PNG with too much in it":      pngOf(100, 100, 8, 0, 0, bomb),
		"a PNG whose colours are packed zeros": pngOf(10, 10, 8, 0, 0, deflated(110), pngChunk("iCCP", append([]byte("k\x00\x00"), bomb...)), pngChunk("zTXt", append([]byte("k\x00\x00"), bomb...))),
		"a PNG of no pixels":                   pngOf(0, 0, 8, 0, 0, nil),
		"a PNG without data":                   pngOf(1000, 1000, 8, 6, 0, nil),
		"an interlaced PNG without data":       pngOf(1000, 1000, 16, 6, 1, nil),
		"a GIF of 65535 by 65535":              gifClaiming(65535, 65535, 1),
		"a GIF of a hundred thousand pictures": gifClaiming(8, 8, 100_000),
		"a GIF without pictures":               gifClaiming(8, 8, 0),
		"a BMP of 65535 by 65535":              bmpClaiming(65535, 65535, 24),
		"a BMP of negative width":              bmpClaiming(-5, 5, 24),
		"a BMP of the most negative height":    bmpClaiming(5, -0x80000000, 24),
		"a BMP without pixels":                 bmpClaiming(1000, 1000, 32),
		"a BMP of 7 bits":                      bmpClaiming(10, 10, 7),
		"a JPEG of 65535 by 65535":             jpegClaiming(0xC0, 65535, 65535),
		"a progressive JPEG of 65535 by 65535": jpegClaiming(0xC2, 65535, 65535),
		"a progressive JPEG without scans":     jpegClaiming(0xC2, 1000, 1000),
		"a JPEG of no height":                  jpegClaiming(0xC0, 10, 0),
		"a hundred thousand scans":             scanBomb(100_000),
	}
}

func TestHostileFilesAreRefusedWithinTheirBounds(t *testing.T) {
	for name, data := range hostileFiles() {
		for _, l := range []Limits{FileLimits, FrameLimits} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			text, _, err := ReadFile(data, l)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ErrPicture) && !errors.Is(err, ErrNothingRead) || text != "" {
				t.Errorf("%s: %q, %v", name, text, err)
			}
			// What was allocated in all, freed or not: no more than some copies of the pixels allowed, whatever is claimed.
			if got := after.TotalAlloc - before.TotalAlloc; got > 64<<20 {
				t.Errorf("%s: %d MiB allocated", name, got>>20)
			}
		}
	}
}

// TestAFileOfTheLargestSizeKeepsItsBound decodes what costs most of what the limits of a frame let through.
func TestAFileOfTheLargestSizeKeepsItsBound(t *testing.T) {
	const width, height = 1920, 1088
	for name, data := range map[string][]byte{
		"sixteen bits a colour, interlaced": pngOf(width, height, 16, 6, 1, deflated(width*height*8+8*height)),
		"sixteen bits a colour":             pngOf(width, height, 16, 6, 0, deflated(width*height*8+height)),
		"eight bits":                        pngOf(width, height, 8, 6, 0, deflated(width*height*4+height)),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := ReadFile(data, FrameLimits)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: something was read", name)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 256<<20 {
			t.Errorf("%s: %d MiB allocated", name, got>>20)
		}
	}
}

func TestAFileCutAnywhereIsNoPictureAndNoPanic(t *testing.T) {
	img := must2(png.Decode(bytes.NewReader(must2(must[Picture](t)(Draw("861234567890123459")).PNG(4)))))
	var asPNG, asJPEG, asGIF, asBMP bytes.Buffer
	if err := errors.Join(png.Encode(&asPNG, img), jpeg.Encode(&asJPEG, img, nil), gif.Encode(&asGIF, img, nil), bmp.Encode(&asBMP, img)); err != nil {
		t.Fatal(err)
	}
	for name, whole := range map[string][]byte{"png": asPNG.Bytes(), "jpeg": asJPEG.Bytes(), "gif": asGIF.Bytes(), "bmp": asBMP.Bytes()} {
		step := max(1, len(whole)/40)
		for n := 0; n < len(whole)-1; n += step {
			text, _, err := ReadFile(whole[:n], patient)
			if err == nil && text != "861234567890123459" || err != nil && !errors.Is(err, ErrPicture) && !errors.Is(err, ErrNothingRead) {
				t.Errorf("%s cut at %d: %q, %v", name, n, text, err)
			}
		}
	}
}

// turnedAs is the picture whose pixels lie as a camera of that EXIF orientation writes them.
func turnedAs(orientation int, img image.Image) image.Image {
	b := img.Bounds()
	w, h := b.Dx(), b.Dy()
	out := image.NewGray(image.Rect(0, 0, w, h)) // codes are square
	for y := range h {
		for x := range w {
			sx, sy := x, y
			if orientation >= 5 {
				sx, sy = sy, sx
			}
			switch orientation {
			case 2, 7, 8:
				sx = w - 1 - sx
			case 3:
				sx, sy = w-1-sx, h-1-sy
			case 4:
				sy = h - 1 - sy
			}
			if orientation == 6 || orientation == 7 {
				sy = h - 1 - sy
			}
			out.SetGray(x, y, color.Gray{greyOf(img.At(sx, sy))})
		}
	}
	return out
}

func TestAJPEGIsReadHoweverTheCameraWasHeld(t *testing.T) {
	for _, name := range []string{"online: good", "order: good"} {
		text := loadVectors(t).text(t, name)
		img := must2(png.Decode(bytes.NewReader(must2(must[Picture](t)(Draw(text)).PNG(4)))))
		for orientation := 1; orientation <= 8; orientation++ {
			var b bytes.Buffer
			if err := jpeg.Encode(&b, turnedAs(orientation, img), nil); err != nil {
				t.Fatal(err)
			}
			exif := []byte("Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00")
			exif[25] = byte(orientation)
			file := append([]byte{0xFF, 0xD8, 0xFF, 0xE1, 0, byte(len(exif) + 2)}, exif...)
			file = append(file, b.Bytes()[2:]...)
			if got, _, err := ReadFile(file, patient); got != text {
				t.Errorf("%s, orientation %d: %q, %v", name, orientation, got, err)
			}
		}
	}
}

// TestAFileWithAnyByteChangedIsReadRightOrRefused flips bits of good files: never a panic, and of a signed code never another text.
func TestAFileWithAnyByteChangedIsReadRightOrRefused(t *testing.T) {
	const text = "861234567890123459"
	img := must2(png.Decode(bytes.NewReader(must2(must[Picture](t)(Draw(text)).PNG(3)))))
	var asJPEG, asGIF, asBMP bytes.Buffer
	if err := errors.Join(jpeg.Encode(&asJPEG, img, nil), gif.Encode(&asGIF, img, nil), bmp.Encode(&asBMP, img)); err != nil {
		t.Fatal(err)
	}
	for name, whole := range map[string][]byte{"jpeg": asJPEG.Bytes(), "gif": asGIF.Bytes(), "bmp": asBMP.Bytes()[:2000]} {
		for i := range 120 {
			data := bytes.Clone(whole)
			data[i*len(data)/120] ^= 1 << (i % 8)
			got, _, err := ReadFile(data, Limits{FileBytes: 1 << 20, Pixels: 1 << 17, Time: FrameLimits.Time})
			if err == nil && got != text || err != nil && !errors.Is(err, ErrPicture) && !errors.Is(err, ErrNothingRead) {
				t.Errorf("%s, byte %d: %q, %v", name, i*len(data)/120, got, err)
			}
		}
	}
}

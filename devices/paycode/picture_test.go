package paycode

import (
	"bytes"
	"image/png"
	"testing"
)

func TestOurOwnCodesReadBackFromTheirPictures(t *testing.T) {
	f := loadVectors(t)
	for name, modules := range map[string]int{"order: good": 61, "signed: good": 69, "receipt: good": 61, "online: good": 21} {
		text := f.text(t, name)
		p, err := Draw(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if p.Modules != modules {
			t.Errorf("%s: %d modules, want %d", name, p.Modules, modules)
		}
		b, err := p.PNG(4)
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if got, symbology, err := ReadImage(img); got != text || symbology != SymbologyQR {
			t.Errorf("%s: read %q as %q, %v", name, got, symbology, err)
		}
	}
}

package paycode

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"image/png"
	"strings"
	"testing"
	"unicode/utf8"
)

// seedVectors adds every text of the vectors to a fuzz target.
func seedVectors(f *testing.F) {
	v := loadVectors(f)
	for _, vector := range v.Vectors {
		f.Add(vector["text"].(string))
	}
	f.Add(v.EMVCo.Merchant)
	for _, text := range v.EMVCo.Consumer {
		f.Add(text)
	}
}

func FuzzInspect(f *testing.F) {
	seedVectors(f)
	keys := loadVectors(f).inspectKeys(f)
	f.Fuzz(func(t *testing.T, text string) {
		in := Inspect(text, keys, at(now))
		if _, err := json.Marshal(in); err != nil {
			t.Fatal(err)
		}
		if (in.Verdict == VerdictOK) != (in.Reason == OK) || in.Verdict == VerdictOK && !in.Kind.Ours() {
			t.Fatalf("%+v", in)
		}
		if !in.Kind.Ours() && in.Kind != KindMalformed && in.Reason != ForeignCode {
			t.Fatalf("%+v", in)
		}
		if _, zh, en := Describe(text, ""); zh == "" || en == "" || !utf8.ValidString(zh+en) || len(ForeignName(text)) > 16 {
			t.Fatal("no words")
		}
	})
}

func FuzzParseSigned(f *testing.F) {
	seedVectors(f)
	f.Fuzz(func(t *testing.T, text string) {
		s, reason := ParseSigned(text)
		if reason != OK {
			return
		}
		if base64.StdEncoding.EncodeToString(s.Raw) != text || Classify(text) != KindSigned {
			t.Fatal("not the one text of this code")
		}
		s.Verify(issuerKeys, at(now))
	})
}

func FuzzParseReceipt(f *testing.F) {
	seedVectors(f)
	f.Fuzz(func(t *testing.T, text string) {
		r, reason := ParseReceipt(text)
		if reason != OK {
			return
		}
		if Classify(text) != KindReceipt {
			t.Fatal("another kind")
		}
		again, err := MakeReceipt(r, keyFrom("ledger"))
		if err != nil || len(again) != len(text) {
			t.Fatalf("what was read cannot be made: %v", err)
		}
	})
}

func FuzzParseOrder(f *testing.F) {
	seedVectors(f)
	f.Fuzz(func(t *testing.T, text string) {
		o, signature, reason := parseOrder(text)
		if reason != OK {
			return
		}
		if o.finish(o.unsigned(), base64.RawURLEncoding.EncodeToString(signature)) != text || Classify(text) != KindOrder {
			t.Fatal("not the one text of this code")
		}
		if _, err := ParseMerchant(text); err != nil {
			t.Fatalf("the general reader refuses it: %v", err)
		}
	})
}

func FuzzParseMerchant(f *testing.F) {
	seedVectors(f)
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseMerchant(text)
		if err != nil || !utf8.ValidString(text) {
			return
		}
		var again strings.Builder
		for _, field := range m.Fields {
			again.WriteString(text[field.At:field.At+4] + field.Value)
		}
		if again.String() != text {
			t.Fatal("something was lost")
		}
	})
}

func FuzzParseConsumer(f *testing.F) {
	seedVectors(f)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseConsumer(text)
		if err != nil {
			return
		}
		for _, a := range c.Applications() {
			if len(a.Label) > 16 {
				t.Fatalf("label %q", a.Label)
			}
		}
	})
}

func FuzzParseULID(f *testing.F) {
	f.Add("01KASF3M1ZV9Q8XN7T5R2C4D6E")
	f.Add("8ZZZZZZZZZZZZZZZZZZZZZZZZZ")
	f.Fuzz(func(t *testing.T, text string) {
		if id, ok := ParseULID(text); ok && FormatULID(id) != text {
			t.Fatal("two texts for one ULID")
		}
	})
}

func FuzzReadFile(f *testing.F) {
	p := must[Picture](f)(Draw("861234567890123459"))
	img := must[[]byte](f)(p.PNG(2))
	f.Add(img)
	f.Add(img[:len(img)/2])
	f.Add([]byte("GIF89a\xff\xff\xff\xff"))
	f.Add([]byte("BM"))
	f.Fuzz(func(t *testing.T, data []byte) {
		text, symbology, err := ReadFile(data, Limits{FileBytes: 1 << 16, Pixels: 1 << 16, Time: FrameLimits.Time})
		if (err == nil) != (text != "" && symbology != "") {
			t.Fatalf("%q, %q, %v", text, symbology, err)
		}
	})
}

func FuzzReadGrey(f *testing.F) {
	p := must[Picture](f)(Draw("861234567890123459"))
	img := must2(png.Decode(bytes.NewReader(must2(p.PNG(1)))))
	g := toGrey(img)
	f.Add(g.pix, g.Width)
	f.Add(bytes.Repeat([]byte{0, 255}, 800), 40)
	f.Fuzz(func(t *testing.T, pix []byte, width int) {
		if width < 1 || width > 512 || len(pix) < width || len(pix) > 1<<16 {
			return
		}
		text, _, err := ReadGrey(pix, width, len(pix)/width, width, FrameLimits)
		if (err == nil) != (text != "") {
			t.Fatalf("%q, %v", text, err)
		}
	})
}

func FuzzDraw(f *testing.F) {
	seedVectors(f)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Draw(text)
		if err == nil && (p.Modules != 17+4*p.Version || p.SVG() == "" || p.Text() == "") {
			t.Fatalf("%+v", p)
		}
	})
}

func FuzzParseCert(f *testing.F) {
	f.Add(rawCert("issuer", func([]byte) {}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, reason := ParseCert(raw)
		if reason != OK {
			return
		}
		c.Verify(issuerKeys, at(now))
		if again, err := MakeCert(c, keyFrom("issuer")); err == nil && !bytes.Equal(again[8:certBodyLength], raw[8:certBodyLength]) {
			t.Fatalf("read %x, written %x", raw, again)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	f.Add("c5733ab436ac50b44b9f3193a7375d4c01223d6b53a4b98bf6d966120bd79c44")
	f.Fuzz(func(t *testing.T, text string) {
		if k, err := ParseKey(text); err == nil && !strings.EqualFold(text, hex.EncodeToString(k)) {
			t.Fatalf("%q is %x", text, []byte(k))
		}
	})
}

func FuzzCheckOnline(f *testing.F) {
	seedVectors(f)
	f.Fuzz(func(t *testing.T, text string) {
		if CheckOnline(text) != OK {
			return
		}
		if again, err := MakeOnline(text[2:17]); err != nil || again != text || Classify(text) != KindOnline {
			t.Fatalf("%q: %q, %v", text, again, err)
		}
	})
}

func FuzzClassifyScan(f *testing.F) {
	f.Add("861234567890123459", "]Q1")
	f.Add("6901234567892", "EAN-13")
	f.Fuzz(func(t *testing.T, text, symbology string) {
		kind, zh, en := Describe(text, symbology)
		if kindWords[kind][0] == "" || zh == "" || en == "" || kind != KindGoodsBarcode && kind != Classify(text) {
			t.Fatalf("%s, %s, %s", kind, zh, en)
		}
	})
}

func FuzzReadSegments(f *testing.F) {
	f.Add([]byte{0x10, 0x20, 0x00}, 1)
	f.Fuzz(func(t *testing.T, data []byte, version int) {
		segments, ok := readSegments(data, version)
		bits := 0
		for _, s := range segments {
			bits += 4 + 8 + s.Characters*3 // the least that a segment takes
		}
		if ok && bits > 8*len(data) {
			t.Fatalf("%v in %d bytes", segments, len(data))
		}
	})
}

func FuzzDecodeBars(f *testing.F) {
	f.Fuzz(func(t *testing.T, widths []byte, at int) {
		if at < 0 || at+4*6 >= len(widths) || len(widths) > 4096 {
			return
		}
		line := make([]float64, len(widths))
		for i, w := range widths {
			line[i] = float64(w) / 8
		}
		if codes := decodeBars(line, at); codes != nil {
			if text, ok := barText(codes); ok && !utf8.ValidString(text) {
				t.Fatalf("%q", text)
			}
		}
	})
}

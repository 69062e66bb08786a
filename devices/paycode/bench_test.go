package paycode

import (
	"crypto/ed25519"
	"testing"
)

// BenchmarkVerifySigned judges one SIGNED code from its text, both signatures included.
func BenchmarkVerifySigned(b *testing.B) {
	text := rawSigned(rawCert("issuer", func([]byte) {}), 1, now, 100, "wallet")
	b.ReportAllocs()
	for b.Loop() {
		if verifySigned(text, issuerKeys, now) != OK {
			b.Fatal("refused")
		}
	}
}

// BenchmarkSignaturesAlone is the share of BenchmarkVerifySigned that is arithmetic: two Ed25519 verifications.
func BenchmarkSignaturesAlone(b *testing.B) {
	s, _ := ParseSigned(rawSigned(rawCert("issuer", func([]byte) {}), 1, now, 100, "wallet"))
	cert := append([]byte(certPrefix), s.Cert.Raw[:certBodyLength]...)
	code := append([]byte(codePrefix), s.Raw[signedTemplate:signedSignature-2]...)
	issuer, wallet, sig := publicFrom("issuer"), s.Cert.WalletKey, s.Raw[signedSignature:]
	b.ReportAllocs()
	for b.Loop() {
		if !ed25519.Verify(issuer, cert, s.Cert.Signature) || !ed25519.Verify(wallet, code, sig) {
			b.Fatal("refused")
		}
	}
}

// BenchmarkMakeOrder signs one ORDER and writes its text.
func BenchmarkMakeOrder(b *testing.B) {
	key := keyFrom("terminal")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := MakeOrder(goodOrder(), key); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMakeOrderWithPicture is what showing a pay code costs: signature, QR code, self-check and SVG.
func BenchmarkMakeOrderWithPicture(b *testing.B) {
	key := keyFrom("terminal")
	b.ReportAllocs()
	for b.Loop() {
		text, err := MakeOrder(goodOrder(), key)
		if err != nil {
			b.Fatal(err)
		}
		p, err := Draw(text)
		if err != nil || p.SVG() == "" {
			b.Fatal(err)
		}
	}
}

func benchmarkFrame(b *testing.B, name string, s shot) {
	p := must[Picture](b)(Draw(loadVectors(b).text(b, name)))
	g := s.take(p)
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		if _, _, err := ReadGrey(g.pix, g.Width, g.Height, g.Width, FrameLimits); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReadCleanFrame decodes a 640 by 480 frame with a straight code.
func BenchmarkReadCleanFrame(b *testing.B) {
	b.Run("ONLINE", func(b *testing.B) {
		benchmarkFrame(b, "online: good", shot{module: 5, dark: 30, light: 220, noise: 2})
	})
	b.Run("SIGNED", func(b *testing.B) {
		benchmarkFrame(b, "signed: good", shot{module: 5, dark: 30, light: 220, noise: 2})
	})
}

// BenchmarkReadTiltedFrame decodes one that needs the sampler.
func BenchmarkReadTiltedFrame(b *testing.B) {
	benchmarkFrame(b, "signed: good", shot{module: 5, pitch: 14, yaw: 9, roll: 20, dark: 30, light: 220, noise: 4})
}

// BenchmarkReadNothing is the cost of a frame without a code: every attempt is made.
func BenchmarkReadNothing(b *testing.B) {
	g := newGrey(640, 480)
	for i := range g.pix {
		g.pix[i] = byte(128 + i%640/8 - i/640/8)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := ReadGrey(g.pix, g.Width, g.Height, g.Width, FileLimits); err == nil {
			b.Fatal("something was read")
		}
	}
}

// BenchmarkClassify names a foreign code.
func BenchmarkClassify(b *testing.B) {
	for b.Loop() {
		if Classify("134567890123456789") != KindWeChat {
			b.Fatal("another kind")
		}
	}
}

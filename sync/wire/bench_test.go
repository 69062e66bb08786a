package wire

import "testing"

// BenchmarkFrame is one pay written and read again, without a line between.
func BenchmarkFrame(b *testing.B) {
	pay := Pay{TradeNo: "01JD3Z5W8Q7XKQ4N6T1B9V2M0C", Attempt: 1, OutTradeNo: "R-2026-000123", TotalFen: 1250, Code: "861234567890123454", ScannedAt: 1763870400000, NotAfter: 1763870460000}
	frame, err := Encode(2, 0, pay)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Encode(2, 0, pay); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := Decode(frame); err != nil {
				b.Fatal(err)
			}
		}
	})
}

package ledgersim

import (
	"testing"

	"yupos/sync/wire"
)

// BenchmarkPay is one durable payment by an ONLINE code over real TLS; the code is made outside of the measured time.
func BenchmarkPay(b *testing.B) {
	l := newBench(b)
	f := l.connect()
	for b.Loop() {
		b.StopTimer()
		m := l.payOf(l.code(testPhone, "ONLINE"), 1)
		b.StartTimer()
		if o := f.outcome(m); o.State != wire.StateSuccess {
			b.Fatalf("%+v", o)
		}
	}
}

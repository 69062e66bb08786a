package uplink

import (
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"yupos/ledgercache/payment"
	"yupos/sync/wire"
)

// BenchmarkLine compares, turn by turn in one run, a bare echo over the same library and TLS with the same echo of
// messages that are encoded and decoded. The medians are told: a busy machine hits both alike.
func BenchmarkLine(b *testing.B) {
	ca := newAuthority(b)
	echo := ca.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		up := websocket.Upgrader{Subprotocols: []string{wire.Subprotocol}}
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		for {
			kind, data, err := ws.ReadMessage()
			if err != nil || ws.WriteMessage(kind, data) != nil {
				return
			}
		}
	}))
	pay := wire.Pay{TradeNo: "01JD3Z5W8Q7XKQ4N6T1B9V2M0C", Attempt: 1, OutTradeNo: "R-2026-000123", TotalFen: 1250, Code: testCode}
	frame, err := wire.Encode(2, 0, pay)
	if err != nil {
		b.Fatal(err)
	}
	dialer, err := newGorillaDialer(ca.client())
	if err != nil {
		b.Fatal(err)
	}
	conn, err := dialer.Dial(b.Context(), echo)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	var echoes, messages []time.Duration
	for i := range b.N {
		began := time.Now()
		if err := conn.Write(frame); err != nil {
			b.Fatal(err)
		}
		if _, err := conn.Read(); err != nil {
			b.Fatal(err)
		}
		echoed := time.Now()
		encoded, err := wire.Encode(uint64(i)+1, 0, pay)
		if err != nil || conn.Write(encoded) != nil {
			b.Fatal(err)
		}
		data, err := conn.Read()
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := wire.Decode(data); err != nil {
			b.Fatal(err)
		}
		echoes, messages = append(echoes, echoed.Sub(began)), append(messages, time.Since(echoed))
	}
	slices.Sort(echoes)
	slices.Sort(messages)
	bare, message := echoes[len(echoes)/2], messages[len(messages)/2]
	b.ReportMetric(float64(bare.Nanoseconds()), "echo-ns")
	b.ReportMetric(float64(message.Nanoseconds()), "message-ns")
	b.ReportMetric(float64(message)/float64(bare), "ratio")
}

// BenchmarkSale is a sale from its submission to SUCCESS in the book, alone and sixteen at a time, against a ledger that
// answers from memory: two synced writes of the book, the submission and the answer.
func BenchmarkSale(b *testing.B) {
	for _, together := range []int{1, 16} {
		b.Run(fmt.Sprintf("%d_at_a_time", together), func(b *testing.B) {
			ca, l := newAuthority(b), newLedger(b)
			l.heard = make(chan message, 64)
			go func() {
				for range l.heard { // nobody looks
				}
			}()
			s := newShop(b, nil, overTLS(ca.client(), ca.serve(l)))
			s.untilUp()
			var number atomic.Int64
			b.SetParallelism(max(together/2, 1)) // two processors
			b.ResetTimer()
			if together == 1 {
				for range b.N {
					s.trade(s.pay(fmt.Sprint(number.Add(1)), 100).TradeNo, payment.Success)
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					s.trade(s.pay(fmt.Sprint(number.Add(1)), 100).TradeNo, payment.Success)
				}
			})
		})
	}
}

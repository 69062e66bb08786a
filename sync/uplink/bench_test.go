package uplink

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/gorilla/websocket"

	"yupos/ledgercache/payment"
	"yupos/sync/wire"
)

// BenchmarkLine compares, in one run, a bare echo over the same library and TLS with the same echo of encoded and decoded
// messages.
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
	b.Run("echo", func(b *testing.B) {
		for range b.N {
			if err := conn.Write(frame); err != nil {
				b.Fatal(err)
			}
			if _, err := conn.Read(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("messages", func(b *testing.B) {
		for i := range b.N {
			frame, err := wire.Encode(uint64(i)+1, 0, pay)
			if err != nil || conn.Write(frame) != nil {
				b.Fatal(err)
			}
			data, err := conn.Read()
			if err != nil {
				b.Fatal(err)
			}
			if _, _, err := wire.Decode(data); err != nil {
				b.Fatal(err)
			}
		}
	})
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

package main_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"
)

// tell sends a request that may fail: the terminal may be dead.
func (w *world) tell(path string, body object) {
	raw, err := json.Marshal(body)
	if err != nil {
		w.t.Error(err)
		return
	}
	r, err := http.NewRequest("POST", w.address.Till+path, bytes.NewReader(raw))
	if err != nil {
		w.t.Error(err)
		return
	}
	r.Header.Set("Authorization", "Bearer "+w.address.Token)
	r.Header.Set("Content-Type", "application/json")
	if resp, err := http.DefaultClient.Do(r); err == nil {
		resp.Body.Close()
	}
}

// TestKilledAgainAndAgainOnABadLineTerminalAndLedgerAgreeToTheFen is the real daemon under kill -9 while the line is cut
// before and after the request, half open, late, doubled, and the register does not know what became of what it asked.
func TestKilledAgainAndAgainOnABadLineTerminalAndLedgerAgreeToTheFen(t *testing.T) {
	rounds, seed := 6, uint64(1)
	if os.Getenv("YUPOS_FULL") == "1" {
		rounds, seed = 60, uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 5))
	w := startWorld(t)
	w.clock("LEDGER")
	phones := []string{"13800000001", "13800000002", "13800000003", "13800000004"}
	before := map[string]float64{}
	for _, p := range phones {
		before[p] = w.balance(p)
	}
	var numbers []string
	bad := []object{
		{"cut_after": 0.5}, {"loss": 0.3}, {"half_open": true}, {"reorder": 0.7, "cut_after": 0.3}, {"duplicate": 0.5, "loss": 0.2}, {"latency_ms": 400, "cut_after": 0.3},
	}
	calm := object{"up": true, "latency_ms": 0, "loss": 0, "duplicate": 0, "reorder": 0, "cut_after": 0, "half_open": false}
	for round := range rounds {
		w.sim("POST", "/link", bad[(round+int(seed))%len(bad)])
		var asked sync.WaitGroup
		for range 4 {
			no, phone := w.number(), phones[dice.IntN(len(phones))]
			numbers = append(numbers, no)
			code := w.code(phone, []string{"ONLINE", "SIGNED"}[dice.IntN(2)])
			fen := 1 + dice.IntN(900)
			asked.Go(func() { w.tell("/v1/trade/pay", object{"out_trade_no": no, "total_fen": fen, "auth_code": code}) })
		}
		time.Sleep(time.Duration(dice.IntN(400)) * time.Millisecond) // the kill falls anywhere
		if round%2 == 0 {
			w.sim("POST", "/terminal", object{"action": "kill"})
			asked.Wait()
			w.sim("POST", "/link", calm)
			w.sim("POST", "/terminal", object{"action": "start"})
		}
		asked.Wait()
		w.sim("POST", "/link", calm)
	}
	w.link("up", 70*time.Second)
	paid := w.settle(numbers)
	here := 0.0
	held := map[string]object{}
	for _, v := range w.sim("GET", "/ledger/trades?terminal=10000001", nil)["trades"].([]any) {
		held[v.(object)["out_trade_no"].(string)] = v.(object)
	}
	for _, no := range numbers {
		v, known := held[no]
		if fen, is := paid[no]; is != (known && v["state"] == "SUCCESS") || is && v["paid_fen"] != fen {
			t.Errorf("%s: paid here %v %v, there %v", no, is, fen, v)
		}
		here += paid[no]
	}
	gone := 0.0
	for _, p := range phones {
		gone += before[p] - w.balance(p)
	}
	if gone != here {
		t.Errorf("the customers paid %v, the terminal has %v", gone, here)
	}
	t.Logf("%d trades, %d paid, %v fen", len(numbers), len(paid), here)
	w.agrees()
}

// settle waits until every trade has ended, and answers what was paid for each that was.
func (w *world) settle(numbers []string) map[string]float64 {
	w.t.Helper()
	paid := map[string]float64{}
	deadline := time.Now().Add(3 * time.Minute)
	for _, no := range numbers {
		for {
			status, trade, _ := w.call("GET", w.address.Till+"/v1/trade/"+no+"?wait=5s", w.address.Token, nil)
			if status == 404 { // it was killed before it was asked
				break
			}
			if trade["final"] == true || trade["trade_state"] == "SUCCESS" {
				if trade["trade_state"] == "SUCCESS" {
					paid[no] = trade["paid_fen"].(float64)
				}
				break
			}
			if time.Now().After(deadline) {
				w.t.Fatalf("%s never ended: %v", no, trade)
			}
		}
	}
	return paid
}

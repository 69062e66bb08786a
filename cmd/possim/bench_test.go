package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// BenchmarkScanToApproved sells by the terminal's scanner through the whole demo over loopback: from the moment that the
// scanner is told to scan until the register's waiting call has its SUCCESS. It splits the time by what each process logs
// at level debug with its own clock, which is the same here:
//
//	device  the scanner is told to scan → the driver has framed the code (the bytes on the line included)
//	book    the till has the code → its submission is durable, and the answer read → the register's call returns
//	ledger  what the ledger itself took to carry out the payment
//	line    the payment handed to the line → its answer read, without the ledger's share
func BenchmarkScanToApproved(b *testing.B) {
	b.Setenv("POSD_LOG_LEVEL", "debug")
	b.Setenv("POSSIM_LOG_LEVEL", "debug")
	w := startWorld(b)
	var sum split
	n := 0
	for b.Loop() {
		b.StopTimer()
		n++
		no := fmt.Sprintf("B%06d", n)
		code := w.code(fmt.Sprintf("1380000000%d", n%4+1), "ONLINE")
		w.api(202, "POST", "/v1/trade/pay", object{"out_trade_no": no, "total_fen": 1})
		done := make(chan time.Time, 1)
		go func() {
			_, trade, _ := w.call("GET", w.address.Till+"/v1/trade/"+no+"?wait=20s", w.address.Token, nil)
			if trade["trade_state"] != "SUCCESS" {
				b.Errorf("%v", trade)
			}
			done <- time.Now()
		}()
		w.log.mark()
		b.StartTimer()
		start := time.Now()
		w.sim("POST", "/scanner/scan", object{"text": code})
		end := <-done
		b.StopTimer()
		for deadline := time.Now().Add(5 * time.Second); !sum.add(w.log.since(), start, end); {
			if time.Now().After(deadline) { // the terminal's log comes through a pipe, a moment later
				b.Fatalf("the log does not tell the parts:\n%s", w.log.since())
			}
			time.Sleep(time.Millisecond)
		}
		b.StartTimer()
	}
	for part, d := range map[string]time.Duration{"device": sum.device, "book": sum.book, "ledger": sum.ledger, "line": sum.line} {
		b.ReportMetric(float64(d.Microseconds())/float64(n)/1000, "ms-"+part+"/op")
	}
}

type split struct{ device, book, ledger, line time.Duration }

var tookPattern = regexp.MustCompile(`msg="carried out" type=pay took=(\S+)`)

// add reads one sale's log; false while it is not complete.
func (s *split) add(log []byte, start, end time.Time) bool {
	at := map[string]time.Time{}
	var read time.Time
	for line := range bytes.Lines(log) {
		text, ok := strings.CutPrefix(string(line), "posd| ")
		var e struct {
			Time     time.Time `json:"time"`
			Msg      string    `json:"msg"`
			Type, Op string
			At       time.Time
		}
		if !ok || json.Unmarshal([]byte(text), &e) != nil {
			continue
		}
		at[e.Msg+e.Type+e.Op] = e.Time
		if e.Msg == "code read" {
			read = e.At
		}
	}
	took := tookPattern.FindSubmatch(log)
	if took == nil || at["sentpay"].IsZero() || at["answeredpay"].IsZero() || at["code judged"].IsZero() {
		return false
	}
	ledger, err := time.ParseDuration(string(took[1]))
	if err != nil {
		return false
	}
	s.device += read.Sub(start)
	s.book += at["code judged"].Sub(at["code read"]) + end.Sub(at["answeredpay"])
	s.ledger += ledger
	s.line += at["answeredpay"].Sub(at["sentpay"]) - ledger
	return true
}

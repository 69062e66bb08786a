package ledgercache

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"yupos/ledgercache/journal"
	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
)

// A long book is what a busy shop has after 200 days: 5,000 sales a day, each journalled in the four batches of a sale that
// is answered and printed. Its journal is written without syncs, and its cache is derived.

// longCount is how many payments a long book has.
func longCount() int {
	if n, err := strconv.Atoi(os.Getenv("YUPOS_PAYMENTS")); err == nil {
		return n
	}
	return amount(20_000, 1_000_000)
}

const longPerDay = 5000

var longBegins = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC) // eight o'clock in Shanghai

// longTime is when the n-th payment was made: one each ten seconds of the shop's day.
func longTime(n int) time.Time {
	return longBegins.AddDate(0, 0, n/longPerDay).Add(time.Duration(n%longPerDay) * 10 * time.Second)
}

// longNo is a number of the n-th payment: a ULID whose random part is the same in every run and as random as a hash.
func longNo(kind byte, n int) string {
	var u ulid.ULID
	_ = u.SetTime(ulid.Timestamp(longTime(n)))
	mixed := uint64(n+1) * 0x9E3779B97F4A7C15
	u[6], u[7] = kind, byte(mixed>>56)
	binary.BigEndian.PutUint64(u[8:], mixed*(mixed|1))
	return u.String()
}

type unsyncedFS struct{ journal.FS }

type unsyncedFile struct{ journal.File }

func (u unsyncedFS) OpenFile(name string, flag int, perm os.FileMode) (journal.File, error) {
	f, err := u.FS.OpenFile(name, flag, perm)
	return unsyncedFile{f}, err
}
func (unsyncedFS) SyncDir(string) error { return nil }

func (unsyncedFile) Sync() error     { return nil }
func (unsyncedFile) Datasync() error { return nil }

func longOptions(dir string) Options {
	now := longTime(longCount()).Add(time.Hour)
	return Options{Dir: dir, Key: [32]byte{1, 2, 3}, TerminalID: "10000001", ShiftAutoOpen: true, AutoPrint: true,
		Now: func() time.Time { return now }}
}

// writeLong writes the journal of a long book into o.Dir.
func writeLong(o Options, count int) (err error) {
	if err := os.MkdirAll(o.Dir+"/journal", 0o700); err != nil {
		return err
	}
	j, _, err := journal.Open(journal.Options{Dir: o.Dir + "/journal", Key: o.Key, TerminalID: o.TerminalID, FS: unsyncedFS{journal.OS}})
	if err != nil {
		return err
	}
	batch := func(at time.Time, bodies ...any) {
		records := make([][]byte, len(bodies))
		for i, body := range bodies {
			if err == nil {
				records[i], err = encodeRecord(longKind(body), at, body)
			}
		}
		if err == nil {
			_, err = j.Append(records)
		}
	}
	shift := longNo('s', 0)
	batch(longBegins, shiftOpened{ID: shift, Number: 1, OperatorID: "op1"})
	for n := 0; n < count && err == nil; n++ {
		writeLongSale(n, shift, batch)
	}
	if err != nil {
		return err
	}
	return j.Close()
}

func writeLongSale(n int, shift string, batch func(at time.Time, bodies ...any)) {
	at, trade, job := longTime(n), longNo('t', n), longNo('j', n)
	hash := make([]byte, 32)
	for i := range 4 {
		binary.BigEndian.PutUint64(hash[8*i:], uint64(n*4+i+1)*0x9E3779B97F4A7C15)
	}
	total := money.Fen(100 + (n*7919)%20000)
	batch(at, payment.Opened{TradeNo: trade, OutTradeNo: longOut(n), Mode: payment.ByCode, TotalFen: total, Subject: "可口可乐 330ml",
		OperatorID: "op1", ShiftID: shift, BodyHash: hash},
		payment.Submitted{TradeNo: trade, Code: longCode(n), ScannedAt: at})
	batch(at.Add(300*time.Millisecond), payment.Answered{TradeNo: trade, To: payment.OpPay, State: payment.Success, TotalFen: total,
		PaidFen: total, FeeFen: 5, PaidAt: at.Add(200 * time.Millisecond), LedgerNo: longNo('l', n)},
		printQueued{ID: job, TradeNo: trade, Copy: 1})
	batch(at.Add(400*time.Millisecond), printSent{ID: job})
	batch(at.Add(2*time.Second), printDone{ID: job, State: PrintPrinted})
}

func longOut(n int) string  { return fmt.Sprintf("20261123%010d", n) }
func longCode(n int) string { return fmt.Sprintf("86%016d", n) }

func longKind(body any) recordKind {
	switch e := body.(type) {
	case shiftOpened:
		return recShiftOpened
	case printQueued:
		return recPrintQueued
	case printSent:
		return recPrintSent
	case printDone:
		return recPrintDone
	case payment.Event:
		return kindOf(e)
	}
	panic(fmt.Sprintf("%T", body))
}

// longBook is a directory with a long book, without a cache. YUPOS_LONG_BOOK names one that is kept from run to run.
func longBook(b *testing.B) Options {
	b.Helper()
	dir := os.Getenv("YUPOS_LONG_BOOK")
	if dir == "" {
		dir = b.TempDir()
	}
	o := longOptions(dir)
	if !Exists(dir) {
		must(b, writeLong(o, longCount()))
	}
	return o
}

// longDir names a long book in which a child sells longKilled payments and then kills itself.
const longDir = "BOOK_CHILD_LONG"

const longKilled = 3000

func longChild(dir string) {
	b, err := Open(ctx, longOptions(dir))
	if err == nil {
		err = b.Err()
	}
	for n := range longKilled {
		if err == nil {
			err = longSale(b, fmt.Sprint(NewTradeNo(time.Now()), n))
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		fmt.Println(err)
	}
	select {}
}

// longSale is a sale that is answered.
func longSale(b *Book, out string) error {
	p, _, err := b.OpenTrade(ctx, New{OutTradeNo: out, Mode: payment.ByCode, TotalFen: 1250, OperatorID: "op1", BodyHash: []byte(out),
		Code: &Code{Text: out, ScannedAt: b.now()}})
	if err != nil {
		return err
	}
	_, err = b.Answer(ctx, payment.Answered{TradeNo: p.TradeNo, To: payment.OpPay, State: payment.Success, TotalFen: 1250, PaidFen: 1250,
		FeeFen: 5, PaidAt: b.now(), LedgerNo: NewTradeNo(b.now())})
	return err
}

// longReady is a long book with a cache that was stopped cleanly.
func longReady(b *testing.B) Options {
	b.Helper()
	o := longBook(b)
	book, err := Open(ctx, o)
	must(b, err)
	must(b, book.Err())
	must(b, book.Close())
	must(b, book.putRun(runMark{})) // as if it had been compared
	return o
}

// From the start of the process to the answer of the first sale: after a clean stop (limit 2 s), and after a kill with a
// few thousand sales behind the last tables (limit 3 s), while the cache is compared behind it.
func BenchmarkFirstSale(b *testing.B) {
	o := longReady(b)
	first := func(b *testing.B) {
		before := cpuSeconds(b)
		book, err := Open(ctx, o)
		must(b, err)
		must(b, longSale(book, NewTradeNo(time.Now())))
		b.StopTimer()
		b.ReportMetric(cpuSeconds(b)-before, "cpu-s")
		must(b, book.Close())
		b.StartTimer()
	}
	b.Run("after a clean stop", func(b *testing.B) {
		for b.Loop() {
			first(b)
		}
	})
	b.Run("after a kill", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			c := exec.Command(os.Args[0])
			c.Env = append(os.Environ(), longDir+"="+o.Dir)
			if out, err := c.CombinedOutput(); c.ProcessState.ExitCode() != -1 || len(out) > 0 {
				b.Fatalf("%s %v", out, err)
			}
			b.StartTimer()
			first(b)
		}
	})
}

// The comparison of a whole cache with its journal after a kill, at half of the time, and sales of one till meanwhile.
func BenchmarkCompareWhileSelling(b *testing.B) {
	o := longReady(b)
	for b.Loop() {
		must(b, os.Remove(o.Dir+"/cache.clean"))
		book, err := Open(ctx, o)
		must(b, err)
		sales := 0
		for checked := false; !checked; sales++ {
			must(b, longSale(book, fmt.Sprint(NewTradeNo(time.Now()), sales)))
			select {
			case <-book.Checked():
				checked = true
			case <-book.Failed():
				b.Fatal(book.Err())
			case <-time.After(100 * time.Millisecond): // a customer in front of the till is slower
			}
		}
		b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(sales)-100, "ms/sale")
		must(b, book.Close())
	}
	b.ReportMetric(float64(longCount())*float64(b.N)/b.Elapsed().Seconds(), "payments/s")
}

// cpuSeconds is what this process has computed.
func cpuSeconds(b *testing.B) float64 {
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// The cache derived anew from a whole journal (limit 40,000 payments a second; inside the memory limit 12,000).
func BenchmarkRebuild(b *testing.B) {
	o := longBook(b)
	for b.Loop() {
		must(b, os.RemoveAll(o.Dir+"/cache"))
		before := cpuSeconds(b)
		book, err := Open(ctx, o)
		must(b, err)
		must(b, book.Err())
		b.StopTimer()
		b.ReportMetric((cpuSeconds(b)-before)*1e6/float64(longCount()), "cpu-µs/payment")
		must(b, book.Close())
		b.StartTimer()
	}
	b.ReportMetric(float64(longCount())*float64(b.N)/b.Elapsed().Seconds(), "payments/s")
	b.ReportMetric(float64(size(b, o.Dir+"/journal", ""))/float64(longCount()), "journal-B/payment")
	b.ReportMetric(float64(size(b, o.Dir+"/cache", ".sst"))/float64(longCount()), "cache-B/payment")
}

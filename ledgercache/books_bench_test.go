package ledgercache

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"yupos/ledgercache/payment"
)

// benchBook is a book for a benchmark, whose clock moves with each sale.
func benchBook(b *testing.B) *shop {
	s := &shop{now: time.Date(2026, 11, 22, 22, 0, 0, 0, time.UTC)}
	s.opts = Options{Dir: b.TempDir(), Key: [32]byte{1, 2, 3}, TerminalID: "10000001", ShiftAutoOpen: true, AutoPrint: true, Now: s.clock}
	book, err := Open(ctx, s.opts)
	if err != nil {
		b.Fatal(err)
	}
	s.Book = book
	b.Cleanup(func() { s.Close() })
	return s
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// sale is an online sale from the scan to the paper, as the journal has it.
func (s *shop) sale(b *testing.B, n int) payment.Payment {
	new := s.online(n)
	new.OutTradeNo, new.Subject, new.BodyHash = fmt.Sprintf("20261123%010d", n), "可口可乐 330ml", make([]byte, 32)
	for i := range new.BodyHash {
		new.BodyHash[i] = byte(n * (i + 7) >> (i % 5)) // as random as a hash to what compresses
	}
	p, _, err := s.OpenTrade(ctx, new)
	must(b, err)
	a := s.paid(p)
	a.LedgerNo = NewTradeNo(s.clock())
	p, err = s.Answer(ctx, a)
	must(b, err)
	jobs, err := s.OpenPrints()
	must(b, err)
	for _, j := range jobs {
		_, err := s.RecordPrintSent(ctx, j.ID)
		must(b, err)
		_, err = s.FinishPrint(ctx, j.ID, PrintPrinted)
		must(b, err)
	}
	s.pass(7 * time.Second)
	return p
}

// A day of 5,000 sales read whole: every trade decoded (limit 25 ms), or the first page, or a search that finds nothing.
func BenchmarkDayOf5000(b *testing.B) {
	s := benchBook(b)
	for n := range 5000 {
		s.sale(b, n)
	}
	b.Run("every trade", func(b *testing.B) {
		for b.Loop() {
			n := 0
			must(b, s.TradesOfDay("2026-11-23", func(payment.Payment) error { n++; return nil }))
			if n != 5000 {
				b.Fatal(n)
			}
		}
	})
	b.Run("page of 50", func(b *testing.B) {
		for b.Loop() {
			if list, _, err := s.Trades(Query{Date: "2026-11-23"}); err != nil || len(list) != 50 {
				b.Fatal(len(list), err)
			}
		}
	})
	b.Run("search", func(b *testing.B) {
		for b.Loop() {
			if list, _, err := s.Trades(Query{Date: "2026-11-23", OperatorID: "nobody"}); err != nil || len(list) != 0 {
				b.Fatal(len(list), err)
			}
		}
	})
	b.Run("figures", func(b *testing.B) {
		for b.Loop() {
			if d, err := s.Day("2026-11-23"); err != nil || d.Count != 5000 {
				b.Fatal(d, err)
			}
		}
	})
	b.Run("check of the books", func(b *testing.B) {
		for b.Loop() {
			if c, err := s.CheckBooks(ctx); err != nil || c.Trades != 5000 || len(c.Wrong) > 0 {
				b.Fatal(c, err)
			}
		}
	})
}

// Bytes on disk for one online payment with its paper (limit 1,200, journal and cache together), and for one that was taken
// offline on its SIGNED code, uploaded in batches of 50 with its evidence, judged and printed (limit 1,600).
func BenchmarkBytesPerPayment(b *testing.B) {
	b.Run("online", func(b *testing.B) {
		const count = 20_000
		for b.Loop() {
			s := benchBook(b)
			for n := range count {
				s.sale(b, n)
			}
			weigh(b, s, count)
		}
	})
	b.Run("offline", func(b *testing.B) {
		const count = 10_000
		for b.Loop() {
			s, rng := benchBook(b), mrand.NewChaCha8([32]byte{7})
			for n := 0; n < count; n += 50 {
				s.salesOffline(b, n, 50, rng)
			}
			weigh(b, s, count)
		}
	})
}

// weigh closes a book and reports what it takes on the disk.
func weigh(b *testing.B, s *shop, count float64) {
	must(b, s.db.Flatten(2))
	must(b, s.Close())
	journal, tables := float64(size(b, s.journalDir(), "")), float64(size(b, s.cacheDir(), ".sst"))
	known := 0.0
	paths, err := filepath.Glob(filepath.Join(s.cacheDir(), "known-*"))
	must(b, err)
	for _, path := range paths {
		info, err := os.Stat(path)
		must(b, err)
		known += float64(info.Size())
	}
	b.ReportMetric(journal/count, "journal-B/payment")
	b.ReportMetric(tables/count, "tables-B/payment")
	b.ReportMetric(known/count, "known-B/payment")
	b.ReportMetric((journal+tables+known)/count, "B/payment")
}

// salesOffline are sales with codes and signatures as random as real ones, from the scan to the paper and the judgement.
func (s *shop) salesOffline(b *testing.B, from, count int, rng *mrand.ChaCha8) {
	random := func(n int) []byte {
		raw := make([]byte, n)
		_, _ = rng.Read(raw) // it never fails
		return raw
	}
	var nos []string
	var judged []payment.Answered
	for n := from; n < from+count; n++ {
		no := NewTradeNo(s.clock())
		must(b, s.do(ctx, func(t *tx) error {
			shift, err := t.shiftFor("op1")
			if err != nil {
				return err
			}
			out := fmt.Sprintf("20261123%010d", n)
			if err := t.emit(recOpened, payment.Opened{TradeNo: no, OutTradeNo: out, Mode: payment.ByCode, TotalFen: 1250,
				Subject: "可口可乐 330ml", OperatorID: "op1", ShiftID: shift, BodyHash: random(32)}); err != nil {
				return err
			}
			code := base64.StdEncoding.EncodeToString(random(244))
			if err := t.emit(recAccepted, payment.Accepted{TradeNo: no, Code: code, Spent: random(32), Wallet: random(32), Counter: uint32(n + 1),
				Token: random(8), ScannedAt: t.at, Accept: random(184)}); err != nil {
				return err
			}
			_, err = t.printed(no)
			return err
		}))
		jobs, err := s.OpenPrints()
		must(b, err)
		for _, j := range jobs {
			_, err := s.RecordPrintSent(ctx, j.ID)
			must(b, err)
			_, err = s.FinishPrint(ctx, j.ID, PrintPrinted)
			must(b, err)
		}
		nos = append(nos, no)
		judged = append(judged, payment.Answered{TradeNo: no, To: payment.OpUpload, State: payment.Success, TotalFen: 1250, PaidFen: 1250, FeeFen: 5,
			PaidAt: s.clock(), LedgerNo: NewTradeNo(s.clock())})
		s.pass(7 * time.Second)
	}
	_, err := s.RecordUploads(ctx, nos)
	must(b, err)
	must(b, s.AnswerUploads(ctx, judged))
}

// heap is what is alive on the heap, in bytes.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func size(b *testing.B, dir, ext string) (sum int64) {
	must(b, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || ext != "" && filepath.Ext(path) != ext {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	}))
	return sum
}

// The outbox with 100,000 open uploads: a page, and all of them page by page. The memory of a page does not grow with them.
func BenchmarkOutboxOf100000(b *testing.B) {
	s := benchBook(b)
	const count = 100_000
	for n := 0; n < count; n += 200 {
		must(b, s.do(ctx, func(t *tx) error {
			for i := n; i < n+200; i++ {
				no := NewTradeNo(t.at)
				if err := t.emit(recOpened, payment.Opened{TradeNo: no, OutTradeNo: fmt.Sprint("A", i), Mode: payment.ByCode, TotalFen: 1250}); err != nil {
					return err
				}
				e := payment.Accepted{TradeNo: no, Code: "signed", Spent: fmt.Appendf(nil, "%032d", i), Wallet: fmt.Appendf(nil, "%032d", i%5000), Counter: uint32(i), ScannedAt: t.at, Accept: make([]byte, 184)}
				if err := t.emit(recAccepted, e); err != nil {
					return err
				}
			}
			return nil
		}))
		s.pass(time.Minute)
	}
	b.Run("page", func(b *testing.B) {
		for b.Loop() {
			if list, next, err := s.OpenWork(payment.LaneUpload, "", 200); err != nil || len(list) != 200 || next == "" {
				b.Fatal(len(list), err)
			}
		}
	})
	b.Run("all in pages", func(b *testing.B) {
		before, most := heap(), uint64(0)
		for b.Loop() {
			n := 0
			for after, more := "", true; more; more = after != "" {
				list, next, err := s.OpenWork(payment.LaneUpload, after, 200)
				must(b, err)
				if n, after = n+len(list), next; n%20000 == 0 {
					b.StopTimer()
					most = max(most, heap())
					b.StartTimer()
				}
			}
			if n != count {
				b.Fatal(n)
			}
		}
		b.ReportMetric(max(0, float64(most)-float64(before))/(1<<20), "MB-grown")
	})
	b.Run("queue", func(b *testing.B) {
		for b.Loop() {
			if q, err := s.Queue(); err != nil || q.Count != count {
				b.Fatal(q, err)
			}
		}
	})
}

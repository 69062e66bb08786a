package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// counting counts what reaches the disk, and can make every sync slow.
type counting struct {
	osFS
	syncs *atomic.Int64
	slow  time.Duration
}

type counted struct {
	File
	fs counting
}

func (c counting) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	f, err := c.osFS.OpenFile(name, flag, perm)
	return counted{f, c}, err
}

func (c counted) Sync() error {
	c.fs.syncs.Add(1)
	time.Sleep(c.fs.slow)
	return c.File.Sync()
}

func (c counted) Datasync() error {
	c.fs.syncs.Add(1)
	time.Sleep(c.fs.slow)
	return c.File.Datasync()
}

// raw is the loop to beat: append 300 bytes to a growing file, and fdatasync.
func raw(b *testing.B, f *os.File, slow time.Duration, n int) time.Duration {
	record := make([]byte, 300)
	began := time.Now()
	for range n {
		if _, err := f.Write(record); err != nil {
			b.Fatal(err)
		}
		time.Sleep(slow)
		if err := datasync(f); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(began)
}

// BenchmarkBesideRawAppendAndSync writes records of 300 bytes, in turns with the raw loop on the same disk, and tells how
// many times as many records as the raw loop are durable in the same time.
func BenchmarkBesideRawAppendAndSync(b *testing.B) {
	for _, slow := range []time.Duration{0, 5 * time.Millisecond} {
		for _, group := range []int{1, 16} {
			b.Run(fmt.Sprintf("sync+%v/batches of %d", slow, group), func(b *testing.B) { beside(b, slow, group) })
		}
	}
}

func beside(b *testing.B, slow time.Duration, group int) {
	var syncs atomic.Int64
	dir := b.TempDir()
	j, _ := mustOpen(b, Options{Dir: filepath.Join(dir, "j"), TerminalID: "10000001", FS: counting{syncs: &syncs, slow: slow}})
	f, err := os.Create(filepath.Join(dir, "raw"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	records := make([][]byte, group)
	for i := range records {
		records[i] = make([]byte, 300)
	}
	var ours, theirs time.Duration
	batches := 0
	syncs.Store(0)
	for b.Loop() {
		const turn = 20 // batches in a row, so that both see the same disk
		began := time.Now()
		for range turn {
			if _, err := j.Append(records); err != nil {
				b.Fatal(err)
			}
		}
		ours += time.Since(began)
		theirs += raw(b, f, slow, turn)
		batches += turn
	}
	n := float64(batches * group)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(n/ours.Seconds(), "records/s")
	b.ReportMetric(float64(batches)/theirs.Seconds(), "raw/s")
	b.ReportMetric(n/ours.Seconds()/(float64(batches)/theirs.Seconds()), "x-raw")
	b.ReportMetric(float64(syncs.Load())/n, "syncs/record")
}

// BenchmarkRead reads and verifies a journal of batches of one record from the page cache.
func BenchmarkRead(b *testing.B) {
	j, _ := mustOpen(b, Options{Dir: "/j", TerminalID: "10000001", FS: newDisk(1)})
	for range 20000 {
		if _, err := j.Append([][]byte{make([]byte, 300)}); err != nil {
			b.Fatal(err)
		}
	}
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		if err := j.Read(1, func(uint64, Head, []byte) error { n++; return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "records/s")
}

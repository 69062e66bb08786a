package printer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"yupos/devices/serial"
)

func mustEncode(t *testing.T, doc *Document, profile string) string {
	t.Helper()
	b, err := Encode(*doc, profiles[profile])
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPrintedMeansTheFenceWasAnswered(t *testing.T) {
	t.Parallel()
	for _, profile := range []string{"80mm", "80mm-id", "58mm"} {
		t.Run(profile, func(t *testing.T) {
			c := newCounter(t, quick(profile))
			c.fake.plug()
			c.ready()
			for n := range 3 {
				outcome, err := c.Print(t.Context(), fmt.Sprint("job", n), *receipt())
				if outcome != Printed || err != nil {
					t.Fatalf("%s, %v", outcome, err)
				}
			}
			if want := strings.Repeat(mustEncode(t, receipt(), profile), 3); c.fake.paperShows() != want {
				t.Errorf("paper shows % X", c.fake.paperShows())
			}
		})
	}
}

func TestOutcomes(t *testing.T) {
	for _, c := range []struct {
		name    string
		profile string
		arrange func(*fake)
		outcome Outcome
		want    error
	}{
		{"out of paper before the job", "80mm", func(f *fake) { f.paper = 0x60 }, Failed, ErrPaper},
		{"cover open before the job", "80mm", func(f *fake) { f.cover = true }, Failed, ErrCover},
		{"a printer that says nothing at all", "80mm", func(f *fake) { f.mute = true }, Failed, ErrSilent},
		{"a printer that comes to no command", "80mm", func(f *fake) { f.deaf = true }, Failed, ErrSilent},
		{"no answer to the fence", "80mm", func(f *fake) { f.noFence = true }, Unknown, ErrSilent},
		{"no answer to the id", "80mm-id", func(f *fake) { f.noFence = true }, Unknown, ErrSilent},
		{"an answer with another id", "80mm-id", func(f *fake) { f.badID = true }, Unknown, ErrSilent},
		{"paper near its end", "80mm", func(f *fake) { f.paper = 0x0C }, Printed, nil},
		{"a printer that greets with XON", "80mm", func(f *fake) { f.greets = true }, Printed, nil},
		{"half a picture of an earlier process in the way", "80mm", func(f *fake) { f.swallow = 1500 }, Printed, nil},
		{"half a picture in the way of a printer that answers inside it", "80mm", func(f *fake) { f.swallow, f.keen = 1500, true }, Printed, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			k := newCounter(t, quick(c.profile))
			k.fake.plug()
			k.ready()
			k.fake.mu.Lock()
			c.arrange(k.fake)
			k.fake.mu.Unlock()
			outcome, err := k.Print(t.Context(), "job", *receipt())
			if outcome != c.outcome || !errors.Is(err, c.want) {
				t.Fatalf("%s, %v; want %s, %v", outcome, err, c.outcome, c.want)
			}
			shown, body := k.fake.paperShows(), mustEncode(t, receipt(), c.profile)
			switch outcome {
			case Failed:
				if shown != "" {
					t.Errorf("a failed job left % X", shown)
				}
			case Printed:
				if shown != body {
					t.Errorf("paper shows % X", shown)
				}
			}
		})
	}
}

func TestAnAbsentPrinterFailsAtOnce(t *testing.T) {
	c := newCounter(t, quick("80mm"))
	outcome, err := c.Print(t.Context(), "job", *receipt())
	if outcome != Failed || !errors.Is(err, serial.ErrAbsent) {
		t.Fatalf("%s, %v", outcome, err)
	}
	if s := c.Status(); s.OK || s.Paper != PaperUnknown || s.Text == "" {
		t.Errorf("status %+v", s)
	}
}

// The line is cut at every byte of a job, then plugged in again: the outcome is
// never "printed", and "failed" only if nothing of the document is on paper.
func TestTheLineIsCutAtAnyByte(t *testing.T) {
	t.Parallel()
	doc := new(Document).Text(Style{Bold: true}, "渝中小面").Columns("金额", "¥12.50").Cut()
	c := newCounter(t, quick("80mm"))
	c.fake.plug()
	c.ready()
	overhead := 0
	c.fake.set(func(f *fake) { overhead = f.seen })
	if outcome, err := c.Print(t.Context(), "whole", *doc); outcome != Printed {
		t.Fatal(outcome, err)
	}
	length := 0
	c.fake.set(func(f *fake) { length = f.seen - overhead })
	for at := 1; at <= length; at += 3 {
		c.fake.set(func(f *fake) {
			f.printed.Reset()
			f.strikes[f.seen+at] = func(f *fake) { f.master.Close(); f.slave.Close() }
		})
		session := c.Status().State.Session
		outcome, err := c.Print(t.Context(), fmt.Sprint("cut at ", at), *doc)
		shown := c.fake.paperShows()
		// A poll may have taken bytes of the count: then the job came through whole.
		if outcome == Printed && shown != mustEncode(t, doc, "80mm") {
			t.Fatalf("cut at %d: printed, but the paper shows % X", at, shown)
		}
		if outcome == Failed && shown != "" {
			t.Fatalf("cut at %d: failed (%v), but the paper shows % X", at, err, shown)
		}
		c.fake.unplug()
		c.until(func(s Status) bool { return s.State.Session != session })
		c.fake.plug()
		c.until(func(s Status) bool { return s.OK && s.State.Session > session })
		if shown := c.fake.paperShows(); outcome == Failed && shown != "" {
			t.Fatalf("cut at %d: sent again by itself: % X", at, shown)
		}
	}
}

func TestAJobWaitsForPaperAndIsThenPrinted(t *testing.T) {
	t.Parallel()
	cfg := quick("80mm")
	cfg.Stall = time.Minute
	c := newCounter(t, cfg)
	c.fake.plug()
	c.ready()
	c.fake.set(func(f *fake) {
		f.strikes[f.seen+60] = func(f *fake) {
			f.paper = 0x60
			f.answer(f.block()...)
		}
	})
	done := make(chan Outcome, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		outcome, _ := c.Print(ctx, "job", *receipt())
		done <- outcome
	}()
	c.fake.until(func(f *fake) bool { return len(f.strikes) == 0 })
	cancel() // too late: a job that has begun is seen to its end
	if s := c.until(func(s Status) bool { return s.Paper == PaperOut }); s.OK || !strings.HasPrefix(s.Text, "缺纸") || s.Queued != 1 {
		t.Errorf("status %+v", s)
	}
	asked := 0
	c.fake.set(func(f *fake) { asked = f.asked })
	c.fake.until(func(f *fake) bool { return f.asked >= asked+4 }) // the real-time lane works meanwhile
	c.fake.set(func(f *fake) { f.paper = 0 })
	if outcome := <-done; outcome != Printed {
		t.Fatal(outcome)
	}
	if c.fake.paperShows() != mustEncode(t, receipt(), "80mm") {
		t.Errorf("paper shows % X", c.fake.paperShows())
	}
}

func TestNobodyLoadsPaper(t *testing.T) {
	t.Parallel()
	c := newCounter(t, quick("80mm"))
	c.fake.plug()
	c.ready()
	c.fake.set(func(f *fake) {
		f.strikes[f.seen+60] = func(f *fake) {
			f.paper = 0x60
			f.answer(f.block()...)
		}
	})
	outcome, err := c.Print(t.Context(), "job", *receipt())
	if outcome != Unknown || !errors.Is(err, ErrPaper) {
		t.Fatalf("%s, %v", outcome, err)
	}
}

// street is a document that does not fit into what a pseudo-terminal holds, so
// that the job is still being sent when trouble comes.
func street() *Document {
	var d Document
	for range 2000 {
		d.Rule()
	}
	return &d
}

func TestTroubleWhileTheBodyLeaves(t *testing.T) {
	for _, c := range []struct {
		name    string
		trouble func(c *counter)
		want    error
	}{
		{"nobody loads paper", func(c *counter) {
			c.fake.paper = 0x60
			c.fake.answer(c.fake.block()...)
			c.seen(func(v *view) bool { return v.faults.paperOut })
		}, ErrPaper},
		{"never willing again", func(c *counter) {
			c.fake.answer(0x13)
			c.seen(func(v *view) bool { return v.held })
		}, ErrHeld},
		{"unplugged", func(c *counter) {
			c.fake.master.Close()
			c.fake.slave.Close()
		}, serial.ErrLost},
		{"switched off and on", func(c *counter) {
			c.fake.answer(0x11)
			c.seen(func(v *view) bool { return v.restarts > 0 })
		}, ErrRestarted},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			k := newCounter(t, quick("80mm"))
			k.fake.plug()
			k.ready()
			k.fake.set(func(f *fake) { f.strikes[f.seen+3000] = func(*fake) { c.trouble(k) } })
			outcome, err := k.Print(t.Context(), "job", *street())
			if outcome != Unknown || !errors.Is(err, c.want) {
				t.Fatalf("%s, %v", outcome, err)
			}
		})
	}
}

// The last moment at which a job can fail: the printer has said hello, "sent" is
// taken down, and then the cover opens.
func TestTroubleBeforeTheFirstByteFailsTheJob(t *testing.T) {
	t.Parallel()
	cfg := quick("80mm")
	var c *counter
	cfg.BeforeSend = func(context.Context, string) error {
		c.fake.set(func(f *fake) { f.cover = true })
		c.seen(func(v *view) bool { return v.faults.cover })
		return nil
	}
	c = newCounter(t, cfg)
	c.fake.plug()
	c.ready()
	outcome, err := c.Print(t.Context(), "job", *receipt())
	if outcome != Failed || !errors.Is(err, ErrCover) {
		t.Fatalf("%s, %v", outcome, err)
	}
	c.fake.set(func(f *fake) { f.cover = false })
	if shown := c.fake.paperShows(); shown != "" {
		t.Errorf("a failed job left % X", shown)
	}
}

func TestADocumentThatCanNotBePrintedFails(t *testing.T) {
	c := newCounter(t, quick("80mm"))
	outcome, err := c.Print(t.Context(), "job", *new(Document).QR("", 0))
	if outcome != Failed || !errors.Is(err, ErrCode) {
		t.Fatalf("%s, %v", outcome, err)
	}
}

func TestOutcomesHaveWords(t *testing.T) {
	for _, o := range []Outcome{Printed, Failed, Unknown} {
		if zh, en := o.Words(); zh == "" || en == "" {
			t.Errorf("%s: %q %q", o, zh, en)
		}
	}
}

func TestXOFFHoldsTheJobButNotTheQuestions(t *testing.T) {
	t.Parallel()
	cfg := quick("80mm")
	cfg.Stall = time.Minute
	c := newCounter(t, cfg)
	c.fake.plug()
	c.ready()
	long := street()
	held := 0
	c.fake.set(func(f *fake) {
		f.strikes[f.seen+300] = func(f *fake) {
			held = f.seen
			f.answer(0x13)
			c.seen(func(v *view) bool { return v.held })
		}
	})
	done := make(chan Outcome, 1)
	go func() {
		outcome, _ := c.Print(t.Context(), "job", *long)
		done <- outcome
	}()
	asked := 0
	c.fake.until(func(f *fake) bool { return held > 0 })
	c.fake.set(func(f *fake) { asked = f.asked })
	c.fake.until(func(f *fake) bool { return f.asked >= asked+8 })
	c.fake.set(func(f *fake) {
		if after := f.seen - held; after > 40<<10 { // what the terminal held may still come
			t.Errorf("%d bytes after XOFF", after)
		}
	})
	select {
	case outcome := <-done:
		t.Fatalf("%s while held", outcome)
	default:
	}
	c.fake.set(func(f *fake) { f.answer(0x11) })
	if outcome := <-done; outcome != Printed {
		t.Fatal(outcome)
	}
	if c.fake.paperShows() != mustEncode(t, long, "80mm") {
		t.Error("the paper shows something else")
	}
}

func TestAPrinterSwitchedOffAndOnMakesTheJobUnknown(t *testing.T) {
	t.Parallel()
	c := newCounter(t, quick("80mm"))
	c.fake.plug()
	c.ready()
	c.fake.set(func(f *fake) {
		f.strikes[f.seen+80] = func(f *fake) { f.answer(0x11) } // XON out of nothing, from power-on
	})
	outcome, err := c.Print(t.Context(), "job", *receipt())
	if outcome != Unknown || !errors.Is(err, ErrRestarted) {
		t.Fatalf("%s, %v", outcome, err)
	}
	if outcome, err = c.Print(t.Context(), "next", *receipt()); outcome != Printed {
		t.Fatalf("the next job: %s, %v", outcome, err)
	}
}

// The answer that an unknown job is owed comes late: it must not prove the next.
func TestALateAnswerProvesNothing(t *testing.T) {
	t.Parallel()
	cfg := quick("80mm")
	c := newCounter(t, cfg)
	c.fake.plug()
	c.ready()
	c.fake.set(func(f *fake) { f.noFence = true })
	if outcome, _ := c.Print(t.Context(), "first", *receipt()); outcome != Unknown {
		t.Fatal(outcome)
	}
	done := make(chan Outcome, 1)
	go func() {
		outcome, _ := c.Print(t.Context(), "second", *receipt())
		done <- outcome
	}()
	c.fake.until(func(f *fake) bool { return bytes.Count(f.printed.Bytes(), initialize) == 2 })
	c.fake.set(func(f *fake) { f.answer(0x00) }) // for the first
	if outcome := <-done; outcome != Unknown {
		t.Fatalf("the answer for the first job made the second %s", outcome)
	}
	c.fake.set(func(f *fake) { f.noFence = false })
	if outcome, err := c.Print(t.Context(), "third", *receipt()); outcome != Printed {
		t.Fatal(outcome, err)
	}
}

// coverOpensAt60 stops the printer in the middle of the next job.
func coverOpensAt60(f *fake) {
	f.strikes[f.seen+60] = func(f *fake) {
		f.cover = true
		f.answer(f.block()...)
	}
}

func TestAWaitingJobCanBeWithdrawn(t *testing.T) {
	t.Parallel()
	cfg := quick("80mm")
	cfg.Stall = time.Minute
	cfg.Queue = 1
	c := newCounter(t, cfg)
	c.fake.plug()
	c.ready()
	c.fake.set(coverOpensAt60)
	var jobs sync.WaitGroup
	jobs.Go(func() {
		if outcome, err := c.Print(t.Context(), "first", *receipt()); outcome != Printed {
			t.Errorf("first: %s, %v", outcome, err)
		}
	})
	c.fake.until(func(f *fake) bool { return len(f.strikes) == 0 })
	ctx, cancel := context.WithCancel(t.Context())
	jobs.Go(func() {
		outcome, err := c.Print(ctx, "second", *receipt())
		if outcome != Failed || !errors.Is(err, ErrWithdrawn) || !errors.Is(err, context.Canceled) {
			t.Errorf("second: %s, %v", outcome, err)
		}
	})
	for c.Status().Queued < 2 {
		time.Sleep(time.Millisecond)
	}
	if outcome, err := c.Print(t.Context(), "third", *receipt()); outcome != Failed || !errors.Is(err, ErrQueueFull) {
		t.Errorf("third: %s, %v", outcome, err)
	}
	cancel()
	for c.Status().Queued > 1 {
		time.Sleep(time.Millisecond)
	}
	c.fake.set(func(f *fake) { f.cover = false })
	jobs.Wait()
	if c.fake.paperShows() != mustEncode(t, receipt(), "80mm") {
		t.Error("the withdrawn job is on the paper")
	}
}

func TestStoppingLeavesNobodyWaiting(t *testing.T) {
	t.Parallel()
	cfg := quick("80mm")
	cfg.Stall = time.Hour
	c := newCounter(t, cfg)
	c.fake.plug()
	c.ready()
	c.fake.set(coverOpensAt60)
	outcomes := make(chan Outcome, 2)
	print := func(id string) {
		outcome, err := c.Print(context.Background(), id, *receipt())
		if !errors.Is(err, ErrStopped) {
			t.Errorf("%s: %v", id, err)
		}
		outcomes <- outcome
	}
	go print("in flight")
	c.fake.until(func(f *fake) bool { return len(f.strikes) == 0 })
	go print("waiting")
	for c.Status().Queued < 2 {
		time.Sleep(time.Millisecond)
	}
	c.cancel()
	got := map[Outcome]int{<-outcomes: 1}
	got[<-outcomes]++
	if got[Failed] != 1 || got[Unknown] != 1 {
		t.Errorf("outcomes %v", got)
	}
	if outcome, err := c.Print(context.Background(), "late", *receipt()); outcome != Failed || !errors.Is(err, ErrStopped) {
		t.Errorf("after the end: %s, %v", outcome, err)
	}
}

func TestSentIsTakenDownBeforeTheFirstByteLeaves(t *testing.T) {
	t.Parallel()
	refusal := errors.New("book is sealed")
	var c *counter
	var seen []string
	cfg := quick("80mm")
	cfg.BeforeSend = func(_ context.Context, id string) error {
		seen = append(seen, id+c.fake.paperShows())
		if id == "refused" {
			return refusal
		}
		return nil
	}
	c = newCounter(t, cfg)
	c.fake.plug()
	c.ready()
	if outcome, err := c.Print(t.Context(), "refused", *receipt()); outcome != Failed || !errors.Is(err, refusal) {
		t.Fatalf("%s, %v", outcome, err)
	}
	if outcome, err := c.Print(t.Context(), "job", *receipt()); outcome != Printed || err != nil {
		t.Fatalf("%s, %v", outcome, err)
	}
	if got := strings.Join(seen, " "); got != "refused job" {
		t.Errorf("called for %q", got)
	}
}

func TestStatusFollowsThePrinter(t *testing.T) {
	t.Parallel()
	c := newCounter(t, quick("80mm"))
	c.fake.plug()
	c.ready()
	for _, step := range []struct {
		set  func(*fake)
		text string
		ok   bool
	}{
		{func(f *fake) { f.paper = 0x0C }, "纸将尽", true},
		{func(f *fake) { f.paper = 0x60 }, "缺纸", false},
		{func(f *fake) { f.cover = true }, "开盖", false},
		{func(f *fake) { f.cover, f.paper = false, 0 }, "正常", true},
		{func(f *fake) { f.mute = true }, "打印机无应答", false},
		{func(f *fake) { f.mute = false }, "正常", true},
	} {
		c.fake.set(step.set)
		if s := c.until(func(s Status) bool { return strings.HasPrefix(s.Text, step.text) }); s.OK != step.ok || s.TextEN == "" {
			t.Errorf("%s: %+v", step.text, s)
		}
	}
	c.fake.unplug()
	if s := c.until(func(s Status) bool { return !s.State.Connected }); s.OK || s.Text != s.State.Text {
		t.Errorf("unplugged: %+v", s)
	}
}

// How long a whole job takes beyond the wire: status, greeting, body and fence
// over a terminal that has no rate.
func BenchmarkPrint(b *testing.B) {
	cfg := quick("80mm")
	f := &fake{t: nil, strikes: map[int]func(*fake){}}
	f.cond = sync.NewCond(&f.mu)
	f.link = b.TempDir() + "/printer"
	port := serial.New(serial.Config{Name: "printer", Path: f.link, Baud: 115200, Settle: time.Millisecond}, nil)
	p := New(cfg, port, nil)
	ready := make(chan struct{}, 1)
	p.OnChange(func(s Status) {
		if s.OK && len(ready) == 0 {
			ready <- struct{}{}
		}
	})
	master, slave, err := openPty()
	if err != nil {
		b.Fatal(err)
	}
	f.master, f.slave = master, slave
	defer f.unplug()
	if err := os.Symlink(slave.Name(), f.link); err != nil {
		b.Fatal(err)
	}
	go f.read(master)
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	<-ready
	for b.Loop() {
		if outcome, err := p.Print(ctx, "job", *receipt()); outcome != Printed {
			b.Fatal(outcome, err)
		}
	}
	cancel()
	<-ended
}

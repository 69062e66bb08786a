package ledgercache

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"yupos/ledgercache/journal"
	"yupos/ledgercache/payment"
)

// The child of these tests is this test binary, told by the environment what to do.
const (
	childDir   = "BOOK_CHILD"       // the book's directory
	childRound = "BOOK_CHILD_ROUND" // a name for its sales
	childHolds = "BOOK_CHILD_HOLDS" // what it writes to the journal stays in the process: the control

	childLies    = "BOOK_CHILD_LIES"    // the syncs of its journal do nothing: the control
	childReserve = "BOOK_CHILD_RESERVE" // bytes of the disk that it keeps free
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
	}
	if dir := os.Getenv(longDir); dir != "" {
		longChild(dir)
	}
	if dir := os.Getenv(checkDir); dir != "" {
		checkBook(dir)
		os.Exit(0)
	}
	os.Exit(kept.verdict(m.Run()))
}

const childWriters = 4

func childOptions(dir string) Options {
	return Options{Dir: dir, Key: [32]byte{5}, TerminalID: "10000001", ShiftAutoOpen: true, AutoPrint: true}
}

// child sells with four writers for ever and says each step that was answered.
func child(dir string) {
	o := childOptions(dir)
	if os.Getenv(childHolds) != "" {
		o.FS = holding{&floppy{files: map[*sheet]bool{}, paths: map[string]*sheet{}}}
	}
	if os.Getenv(childLies) != "" {
		o.FS = lying{&floppy{files: map[*sheet]bool{}, paths: map[string]*sheet{}}}
	}
	o.Reserve, _ = strconv.ParseInt(os.Getenv(childReserve), 10, 64)
	o.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	b, err := Open(ctx, o)
	if err == nil {
		err = b.Err()
	}
	if err != nil {
		fmt.Println("open:", err)
		os.Exit(1)
	}
	fmt.Println("ready")
	var group sync.WaitGroup
	for w := range childWriters {
		group.Go(func() {
			for n := 0; childSale(b, fmt.Sprintf("%s-%d-%d", os.Getenv(childRound), w, n), n); n++ {
			}
		})
	}
	group.Wait()
	fmt.Println("ended:", b.Err())
	os.Exit(1)
}

// childSale is a sale of several steps; each is said as soon as it is answered.
func childSale(b *Book, out string, n int) bool {
	now := time.Now()
	p, _, err := b.OpenTrade(ctx, New{OutTradeNo: out, Mode: payment.ByCode, TotalFen: 1000, BodyHash: []byte(out), Code: &Code{Text: out, ScannedAt: now}})
	if err != nil {
		return false
	}
	fmt.Println("sold", out)
	if n%5 == 4 {
		return true // stays open
	}
	a := payment.Answered{TradeNo: p.TradeNo, To: payment.OpPay, State: payment.Success, TotalFen: 1000, PaidFen: 1000, FeeFen: 6, PaidAt: now}
	if _, err := b.Answer(ctx, a); err != nil {
		return false
	}
	fmt.Println("paid", out)
	if n%3 > 0 {
		return true
	}
	f, _, err := b.OpenRefund(ctx, NewRefund{OutRefundNo: out, TradeNo: p.TradeNo, RefundFen: 400, BodyHash: []byte(out)})
	if err != nil {
		return false
	}
	fmt.Println("refund", out)
	if _, err := b.AnswerRefund(ctx, payment.RefundAnswered{RefundNo: f.RefundNo, State: payment.RefundSuccess, RefundFen: 400, FeeBackFen: 2, At: now}); err != nil {
		return false
	}
	fmt.Println("refunded", out)
	return true
}

// holding keeps the journal's batches in the process: a kill loses them.
type holding struct{ *floppy }

type heldFile struct{ journal.File }

func (h holding) OpenFile(name string, flag int, perm os.FileMode) (journal.File, error) {
	f, err := h.floppy.OpenFile(name, flag, perm)
	return heldFile{f}, err
}

func (h heldFile) WriteAt(p []byte, off int64) (int, error) {
	if off >= 4096 && len(bytes.Trim(p, "\x00")) > 0 {
		return len(p), nil
	}
	return h.File.WriteAt(p, off)
}

// victim is a directory whose processes are killed, and what they have answered.
type victim struct {
	dir      string
	answered []string
	checked  int         // of them, in the round before
	each     func(n int) // called when n steps were answered
}

// kill runs a child and kills it after delay, or once it has answered lines. It reports whether the child was open by then.
func (v *victim) kill(round string, holds bool, lines int, delay time.Duration) (ready bool, err error) {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childDir+"="+v.dir, childRound+"="+round)
	if holds {
		c.Env = append(c.Env, childHolds+"=1")
	}
	var said bytes.Buffer
	ended := ""
	c.Stderr = &said
	out, err := c.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := c.Start(); err != nil {
		return false, err
	}
	if delay > 0 {
		defer time.AfterFunc(delay, func() { _ = c.Process.Kill() }).Stop()
	}
	lines += len(v.answered)
	for r := bufio.NewReader(out); ; {
		line, readErr := r.ReadString('\n')
		switch {
		case errors.Is(readErr, io.EOF):
			_ = c.Wait() // it was killed
			if ended != "" {
				err = fmt.Errorf("the child: %s%s", ended, said.String())
			}
			return ready, err
		case readErr != nil:
			return ready, readErr
		case strings.HasPrefix(line, "ready"):
			ready = true
		case strings.HasPrefix(line, "open:"), strings.HasPrefix(line, "ended:"):
			ended = line // what it said meanwhile is whole when it has been waited for
		default:
			v.answered = append(v.answered, strings.TrimSpace(line))
			if v.each != nil {
				v.each(len(v.answered))
			}
			if len(v.answered) == lines {
				_ = c.Process.Kill()
			}
		}
	}
}

// holds opens what the killed process left and looks for everything that was answered, in whole steps.
func (v *victim) holds() error {
	b, err := Open(ctx, childOptions(v.dir))
	if err != nil {
		return fmt.Errorf("opening failed: %w", err)
	}
	defer b.Close()
	if err := b.Err(); err != nil {
		return fmt.Errorf("opening failed: %w", err)
	}
	for _, line := range v.answered[v.checked:] {
		what, out, _ := strings.Cut(line, " ")
		if err := answeredHolds(b, what, out); err != nil {
			return fmt.Errorf("lost: %s: %w", line, err)
		}
	}
	v.checked = len(v.answered)
	if err := whole(b); err != nil {
		return fmt.Errorf("torn: %w", err)
	}
	if err := sound(b); err != nil {
		return err
	}
	return b.Close()
}

func answeredHolds(b *Book, what, out string) error {
	p, err := b.Trade(out)
	if err != nil {
		return err
	}
	switch what {
	case "sold":
		return nil
	case "paid":
		if p.State != payment.Success {
			return fmt.Errorf("it is %s", p.State)
		}
		return nil
	}
	f, err := b.Refund(out)
	if err == nil && what == "refunded" && f.State != payment.RefundSuccess {
		err = fmt.Errorf("it is %s", f.State)
	}
	return err
}

// whole wants no step to have a part of its records only: no sale without its code, no success without its paper.
func whole(b *Book) error {
	papers := map[string]int{}
	err := b.view(func(s state) error {
		return s.scan(prefixPrint, nil, false, func(_, raw []byte) (bool, error) {
			var j PrintJob
			err := decMode.Unmarshal(raw, &j)
			papers[j.TradeNo+j.RefundNo]++
			return true, err
		})
	})
	if err != nil {
		return err
	}
	return b.view(func(s state) error {
		err := s.scan(prefixTrade, nil, false, func(_, raw []byte) (bool, error) {
			var p payment.Payment
			err := decMode.Unmarshal(raw, &p)
			switch {
			case err != nil:
			case p.State == payment.NotPay:
				err = fmt.Errorf("%s was opened without its code", p.OutTradeNo)
			case (p.State == payment.Success) != (papers[p.TradeNo] == 1):
				err = fmt.Errorf("%s is %s with %d papers", p.OutTradeNo, p.State, papers[p.TradeNo])
			}
			return true, err
		})
		if err != nil {
			return err
		}
		return s.scan(prefixRefund, nil, false, func(_, raw []byte) (bool, error) {
			var f payment.Refund
			err := decMode.Unmarshal(raw, &f)
			if err == nil && (f.State == payment.RefundSuccess) != (papers[f.TradeNo+f.RefundNo] == 1) {
				err = fmt.Errorf("refund %s is %s with %d papers", f.OutRefundNo, f.State, papers[f.TradeNo+f.RefundNo])
			}
			return true, err
		})
	})
}

// TestKilledAtAnyMomentTheBookLosesNothingAndTearsNothing kills a child with four writers, at work and while it opens.
func TestKilledAtAnyMomentTheBookLosesNothingAndTearsNothing(t *testing.T) {
	atWork, atOpening := amount(8, 500), amount(4, 200)
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	v := &victim{dir: t.TempDir()}
	killed, opening, late, total := 0, 0, 0, 0
	opened := 60 * time.Millisecond // how long an opening takes, as it is learned
	for round := 0; killed < atWork || opening < atOpening; round++ {
		if round%25 == 24 { // a journal that only grows would make the reading the test
			total += len(v.answered)
			v = &victim{dir: t.TempDir()}
		}
		work := opening >= atOpening || killed < atWork && rng.IntN(7) < 5
		lines, delay := -1, time.Duration(1+rng.Int64N(int64(opened)))
		if work {
			lines, delay = 1+rng.IntN(one(&clerk{rng: rng}, 3, 60, 400)), 0
		}
		begun := time.Now()
		ready, err := v.kill(fmt.Sprint(round), false, lines, delay)
		switch {
		case err == nil && work:
			killed++
		case err == nil && !ready:
			opening++
		case err == nil:
			late++
			opened = max(10*time.Millisecond, min(opened, time.Since(begun)*3/4))
		}
		if err == nil {
			err = v.holds()
			kept.left(t, childOptions(v.dir))
		}
		if err != nil {
			t.Fatalf("seed %d, round %d, %d kills at work and %d while opening: %v", seed, round, killed, opening, err)
		}
	}
	t.Logf("seed %d: %d kills at work with %d writers, %d while opening, %d just after it; %d answered steps, 0 lost, 0 torn, 0 failed openings",
		seed, killed, childWriters, opening, late, total+len(v.answered))
}

// TestAKilledBookThatHoldsItsJournalBackIsFoundOut is the control of the test above.
func TestAKilledBookThatHoldsItsJournalBackIsFoundOut(t *testing.T) {
	v := &victim{dir: t.TempDir()}
	if _, err := v.kill("good", false, 30, 0); err != nil {
		t.Fatal(err)
	}
	check(t, v.holds())
	if _, err := v.kill("bad", true, 30, 0); err != nil {
		t.Fatal(err)
	}
	if len(v.answered) < 60 {
		t.Fatalf("%d steps were answered", len(v.answered))
	}
	err := v.holds()
	if err == nil {
		t.Fatal("nothing was lost: the test above proves nothing")
	}
	check(t, os.RemoveAll(v.dir+"/cache")) // without the cache's word the loss is seen in the book itself
	again := v.holds()
	if again == nil || !strings.Contains(again.Error(), "lost") {
		t.Errorf("without a cache: %v", again)
	}
	t.Logf("found out: %v; and %v", err, again)
}

package journal

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

// The child of these tests is this test binary, told by the environment what to do.
const (
	childDir  = "JOURNAL_CHILD"
	childHold = "JOURNAL_CHILD_HOLDS" // keeps what it writes to itself until it is synced, and never syncs: the control
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir, os.Getenv(childHold) != "")
	}
	os.Exit(kept.verdict(m.Run()))
}

// child appends for ever and says each sequence that was answered.
func child(dir string, hold bool) {
	o := options(dir)
	if hold {
		o.FS = holding{}
	}
	j, r, err := Open(o)
	if err != nil || r.Problem != nil {
		fmt.Println("open:", err, r.Problem)
		os.Exit(1)
	}
	for n := int(j.Head().Sequence); ; n++ {
		if _, err := j.Append([][]byte{record(n)}); err != nil {
			os.Exit(1)
		}
		fmt.Println(n + 1)
	}
}

// holding is a file system whose segments reach the disk only when they are made: later batches stay in the process.
type holding struct{ osFS }

type held struct{ File }

func (h holding) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	f, err := h.osFS.OpenFile(name, flag, perm)
	return held{f}, err
}

func (h held) WriteAt(p []byte, off int64) (int, error) {
	if off >= headerBytes && !allZero(p) {
		return len(p), nil
	}
	return h.File.WriteAt(p, off)
}

func (h held) Datasync() error { return nil }

// killChild runs a child on dir, kills it after delay or once it has answered lines, and tells the last answer.
func killChild(t *testing.T, dir string, hold bool, lines int, delay time.Duration) (answered int) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childDir+"="+dir)
	if hold {
		c.Env = append(c.Env, childHold+"=1")
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if delay > 0 {
		time.AfterFunc(delay, func() { c.Process.Kill() })
	}
	said := bufio.NewReader(out)
	for {
		line, err := said.ReadBytes('\n') // also what was answered before the kill and is read after it
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(string(bytes.TrimSpace(line)))
		if err != nil {
			t.Fatalf("child: %s", line)
		}
		answered = n
		if lines--; lines == 0 {
			c.Process.Kill()
		}
	}
	c.Wait()
	kept.left(t, dir)
	return answered
}

// TestKilledAtAnyMomentNothingAnsweredIsLost kills a child that appends, half of the times while it opens.
func TestKilledAtAnyMomentNothingAnsweredIsLost(t *testing.T) {
	rounds := amount(16, 1000)
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	answered, all, cuts := 0, 0, 0
	for round := range rounds {
		if round%50 == 49 { // a journal that only grows would make the reading the test
			dir, answered = t.TempDir(), 0
		}
		var got int
		if round%2 == 0 {
			got = killChild(t, dir, false, 1+random.IntN(40), 0)
		} else {
			got = killChild(t, dir, false, -1, time.Duration(1+random.IntN(25_000))*time.Microsecond)
		}
		if got > answered {
			all, answered = all+got-answered, got
		}
		j, r, err := Open(options(dir))
		if err != nil || r.Problem != nil {
			t.Fatalf("seed %d, round %d: opening after a kill: %v %+v", seed, round, err, r)
		}
		head := int(j.Head().Sequence)
		if head < answered {
			t.Fatalf("seed %d, round %d: %d records were answered, %d are there", seed, round, answered, head)
		}
		holds(t, j, head)
		answered, cuts = head, len(r.Cuts)
		j.Close()
	}
	t.Logf("seed %d: %d kills, %d answers seen, 0 lost, 0 torn, 0 failed openings, %d cuts", seed, rounds, all, cuts)
	if all == 0 {
		t.Error("no child ever got an answer")
	}
}

// TestAKilledChildThatHoldsItsWritesLoses is the control of the test above.
func TestAKilledChildThatHoldsItsWritesLoses(t *testing.T) {
	dir := t.TempDir()
	answered := killChild(t, dir, true, 20, 0)
	j, r, err := Open(options(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if answered == 0 || int(j.Head().Sequence) >= answered {
		t.Errorf("%d answered, %d there, %+v: the control lost nothing", answered, j.Head().Sequence, r)
	}
}

func TestASecondProcessIsToldThatTheDirectoryIsInUse(t *testing.T) {
	dir := t.TempDir()
	j, _ := mustOpen(t, options(dir))
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childDir+"="+dir)
	out, err := c.Output()
	if err == nil || !bytes.Contains(out, []byte(ErrLocked.Error())) {
		t.Errorf("the second process: %v, %s", err, out)
	}
	if _, err := Verify(options(dir)); !errors.Is(err, ErrLocked) {
		t.Errorf("a proof of a journal in use: %v", err)
	}
	fill(t, j, 0, 1)
}

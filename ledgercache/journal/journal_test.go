package journal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

func options(dir string) Options {
	return Options{Dir: dir, Key: [32]byte{7}, TerminalID: "10000001", SegmentBytes: 64 << 10}
}

func mustOpen(t testing.TB, o Options) (*Journal, Report) {
	t.Helper()
	j, r, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j, r
}

func record(i int) []byte {
	return fmt.Appendf(nil, "record %d %s", i, bytes.Repeat([]byte{'x'}, i%97))
}

// fill appends n batches of one to three records and answers how many records there are then.
func fill(t testing.TB, j *Journal, from, n int) int {
	t.Helper()
	for b := range n {
		var list [][]byte
		for range b%3 + 1 {
			list = append(list, record(from))
			from++
		}
		if _, err := j.Append(list); err != nil {
			t.Fatal(err)
		}
	}
	return from
}

func read(t testing.TB, j *Journal) [][]byte {
	t.Helper()
	var list [][]byte
	err := j.Read(1, func(seq uint64, h Head, r []byte) error {
		if seq != uint64(len(list)+1) || h.Sequence < seq {
			return fmt.Errorf("sequence %d in a batch that ends at %d, want %d", seq, h.Sequence, len(list)+1)
		}
		list = append(list, bytes.Clone(r))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func holds(t testing.TB, j *Journal, n int) {
	t.Helper()
	list := read(t, j)
	if len(list) != n || j.Head().Sequence != uint64(n) {
		t.Fatalf("%d records, head at %d, want %d", len(list), j.Head().Sequence, n)
	}
	for i, r := range list {
		if !bytes.Equal(r, record(i)) {
			t.Fatalf("record %d reads %q", i, r)
		}
	}
}

func TestWhatIsAppendedIsReadBackAcrossSegmentsAndOpenings(t *testing.T) {
	dir := t.TempDir()
	n := 0
	for opening := range 4 {
		j, r := mustOpen(t, options(dir))
		if r.Created != (opening == 0) || r.Records != uint64(n) || r.CutBytes != 0 || r.Problem != nil {
			t.Fatalf("opening %d: %+v", opening, r)
		}
		holds(t, j, n)
		n = fill(t, j, n, 700)
		holds(t, j, n)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if segments, _ := filepath.Glob(filepath.Join(dir, "*.seg")); len(segments) < 8 {
		t.Errorf("only %d segments: the change of segment was not tested", len(segments))
	}
}

// crash copies the directory as it is: what a process that dies now leaves behind.
func crash(t testing.TB, dir string) string {
	t.Helper()
	to := t.TempDir()
	if out, err := exec.Command("cp", "-a", dir+"/.", to).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	return to
}

func lastSegment(t testing.TB, dir string) string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil || len(list) == 0 {
		t.Fatal(err)
	}
	return list[len(list)-1]
}

func TestATornTailIsCutAndItsBytesAreKept(t *testing.T) {
	dir := t.TempDir()
	j, _ := mustOpen(t, options(dir))
	n := fill(t, j, 0, 20)
	whole := j.segments[0].end
	fill(t, j, n, 1)
	end := j.segments[0].end
	image := crash(t, dir)
	for at := whole; at < end; at++ { // the last batch ends at every byte; HEAD was not written for it
		torn := crash(t, image)
		os.Remove(filepath.Join(torn, "HEAD"))
		path := lastSegment(t, torn)
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		clear(raw[at:])
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		k, r := mustOpen(t, options(torn))
		if left := bytes.Trim(raw[whole:at], "\x00"); r.Problem != nil || (len(left) > 0) != (r.CutBytes > 0) {
			t.Fatalf("torn at %d of %d: %+v", at-whole, end-whole, r)
		}
		holds(t, k, n)
		fill(t, k, n, 3)
		k.Close()
		k, r = mustOpen(t, options(torn))
		if r.Problem != nil {
			t.Fatalf("the opening after the cut: %+v", r)
		}
		holds(t, k, n+6)
		k.Close()
	}
}

func TestALostTailIsNamedByItsWitness(t *testing.T) {
	dir := t.TempDir()
	j, _ := mustOpen(t, options(dir))
	n := fill(t, j, 0, 20)
	before := j.segments[0].end
	fill(t, j, n, 1)
	head := j.Head()
	if err := j.SyncHead(); err != nil {
		t.Fatal(err)
	}
	for name, prepare := range map[string]func(dir string) Options{
		"HEAD": options,
		"the cache": func(dir string) Options {
			os.Remove(filepath.Join(dir, "HEAD"))
			o := options(dir)
			o.Witnesses = []Witness{{Name: "cache", Sequence: head.Sequence}}
			return o
		},
	} {
		lost := crash(t, dir)
		if err := os.Truncate(lastSegment(t, lost), before); err != nil {
			t.Fatal(err)
		}
		k, r := mustOpen(t, prepare(lost))
		if !errors.Is(r.Problem, ErrTailLost) || !errors.Is(k.ReadOnly(), ErrReadOnly) {
			t.Errorf("%s: %+v", name, r)
		}
		if _, err := k.Append([][]byte{{1}}); !errors.Is(err, ErrReadOnly) {
			t.Errorf("%s: a read-only journal took a record: %v", name, err)
		}
		holds(t, k, n)
	}
	gone := crash(t, dir)
	os.Remove(lastSegment(t, gone))
	if _, r := mustOpen(t, options(gone)); !errors.Is(r.Problem, ErrTailLost) {
		t.Errorf("no segment at all: %+v", r)
	}
	o := options(crash(t, dir))
	o.Witnesses = []Witness{{Name: "ledger", Sequence: head.Sequence, Hash: [32]byte{1}, HasHash: true}}
	if _, r := mustOpen(t, o); !errors.Is(r.Problem, ErrForked) {
		t.Errorf("other content at a witness: %+v", r)
	}
}

// TestOneFlippedBitAnywhereIsNeverSilent flips a bit of each byte of a small journal that was closed cleanly: it must be
// refused, named, or make no difference to what is read.
func TestOneFlippedBitAnywhereIsNeverSilent(t *testing.T) {
	dir := t.TempDir()
	n := 0
	for range 2 {
		j, _ := mustOpen(t, options(dir))
		n = fill(t, j, n, 4)
		j.Close()
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	silent, named := 0, 0
	for _, path := range files {
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for at := range good {
			bad := bytes.Clone(good)
			bad[at] ^= 1 << random.IntN(8)
			image := crash(t, dir)
			if err := os.WriteFile(filepath.Join(image, filepath.Base(path)), bad, 0o600); err != nil {
				t.Fatal(err)
			}
			k, r, err := Open(options(image))
			if err != nil || r.Problem != nil {
				named++
			} else if k.Head().Sequence != uint64(n) {
				silent++
				t.Errorf("%s byte %d: opened with %d records of %d", filepath.Base(path), at, k.Head().Sequence, n)
			}
			if k != nil {
				k.Close()
			}
			os.RemoveAll(image)
		}
	}
	if silent > 0 || named == 0 {
		t.Errorf("%d silent, %d named", silent, named)
	}
}

func TestTheKeyTheVersionAndTheOwnerAreChecked(t *testing.T) {
	dir := t.TempDir()
	j, _ := mustOpen(t, options(dir))
	fill(t, j, 0, 3)
	if _, _, err := Open(options(dir)); !errors.Is(err, ErrLocked) {
		t.Errorf("a second owner: %v", err)
	}
	j.Close()
	other := options(crash(t, dir))
	other.Key[1] = 1
	if _, _, err := Open(other); !errors.Is(err, ErrKey) {
		t.Errorf("another key: %v", err)
	}
	other = options(crash(t, dir))
	other.TerminalID = "10000002"
	if _, _, err := Open(other); !errors.Is(err, ErrKey) {
		t.Errorf("another terminal: %v", err)
	}
	newer := crash(t, dir)
	path := lastSegment(t, newer)
	raw, _ := os.ReadFile(path)
	raw[9] = 2
	os.WriteFile(path, raw, 0o600)
	if _, _, err := Open(options(newer)); !errors.Is(err, ErrVersion) {
		t.Errorf("a newer format: %v", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(after, raw) {
		t.Error("a newer format was touched")
	}
	mirrored := options(dir)
	mirrored.Mirror = t.TempDir()
	if _, _, err := Open(mirrored); !errors.Is(err, ErrMirror) {
		t.Errorf("a mirror: %v", err)
	}
}

func TestABatchHasLimits(t *testing.T) {
	j, _ := mustOpen(t, options(t.TempDir()))
	for name, records := range map[string][][]byte{
		"nothing": nil, "too many": make([][]byte, MaxRecords+1), "too long": {make([]byte, MaxBatch)},
	} {
		if _, err := j.Append(records); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAFailedWriteSealsForGood(t *testing.T) {
	j, _ := mustOpen(t, options(t.TempDir()))
	fill(t, j, 0, 1)
	j.segments[0].file.Close() // every write and sync fails from now on
	if _, err := j.Append([][]byte{{1}}); !errors.Is(err, ErrSealed) {
		t.Fatal(err)
	}
	if _, err := j.Append([][]byte{{1}}); !errors.Is(err, ErrSealed) {
		t.Errorf("tried again: %v", err)
	}
	if err := j.SyncHead(); !errors.Is(err, ErrSealed) {
		t.Errorf("the head was written: %v", err)
	}
}

// TestKilledAtAnyMomentNothingAnsweredIsLost kills a child that appends and reports each answered sequence.
func TestKilledAtAnyMomentNothingAnsweredIsLost(t *testing.T) {
	if dir := os.Getenv("JOURNAL_CHILD"); dir != "" {
		appendForever(dir)
	}
	rounds := 15
	if os.Getenv("YUPOS_FULL") != "" {
		rounds = 500
	}
	seed := uint64(os.Getpid())
	t.Logf("seed %d, %d kills", seed, rounds)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	answered := 0
	for range rounds {
		answered = max(answered, killedChild(t, dir, random.IntN(12)))
		j, r, err := Open(options(dir))
		if err != nil || r.Problem != nil {
			t.Fatalf("opening after a kill: %v %+v", err, r)
		}
		if got := int(j.Head().Sequence); got < answered {
			t.Fatalf("%d records were answered, %d are there", answered, got)
		}
		holds(t, j, int(j.Head().Sequence))
		j.Close()
	}
	if answered == 0 {
		t.Error("no child ever got an answer")
	}
}

func killedChild(t *testing.T, dir string, lines int) (answered int) {
	t.Helper()
	c := exec.Command(os.Args[0], "-test.run=^TestKilledAtAnyMoment")
	c.Env = append(os.Environ(), "JOURNAL_CHILD="+dir)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	var text []byte
	for bytes.Count(text, []byte("\n")) < lines { // 0 lines: killed while it opens
		n, err := out.Read(buf)
		if err != nil {
			t.Fatalf("child: %v %s", err, text)
		}
		text = append(text, buf[:n]...)
	}
	c.Process.Kill()
	rest := make([]byte, 1<<16)
	n, _ := out.Read(rest) // answered before the kill, read after it
	text = append(text, rest[:max(n, 0)]...)
	c.Wait()
	fields := bytes.Fields(text[:bytes.LastIndexByte(text, '\n')+1])
	if len(fields) > 0 {
		answered, _ = strconv.Atoi(string(fields[len(fields)-1]))
	}
	return answered
}

func appendForever(dir string) {
	j, r, err := Open(options(dir))
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

func FuzzASegmentOfAnyBytesIsReadWithoutPanic(f *testing.F) {
	f.Add([]byte("YUPOSJNL"))
	f.Add(bytes.Repeat([]byte{0xff}, 300))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(segmentPath(dir, 1), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if j, _, err := Open(options(dir)); err == nil {
			if j.Head().Sequence != 0 {
				t.Error("records out of nothing")
			}
			j.Close()
		}
	})
}

func BenchmarkAppendBesideRawSync(b *testing.B) {
	b.Run("journal", func(b *testing.B) {
		j, _ := mustOpen(b, Options{Dir: b.TempDir(), TerminalID: "10000001"})
		r := [][]byte{make([]byte, 300)}
		for b.Loop() {
			if _, err := j.Append(r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("raw", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "raw"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		r := make([]byte, 300)
		for b.Loop() {
			if _, err := f.Write(r); err != nil {
				b.Fatal(err)
			}
			if err := fdatasync(f); err != nil {
				b.Fatal(err)
			}
		}
	})
}

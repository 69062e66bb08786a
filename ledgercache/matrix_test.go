package ledgercache

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"yupos/ledgercache/payment"
)

// checkDir names a directory that the child opens and holds against what it should be.
const checkDir = "BOOK_CHILD_CHECKS"

// Verdicts of the child on a damaged book.
const (
	isSame     = "same"      // all is there, the cache was believed or caught up
	isRebuilt  = "rebuilt"   // all is there, the cache was set aside and derived again
	isReadOnly = "read-only" // said by name, nothing is taken
	isWrong    = "WRONG"     // a wrong answer that nobody was told of
	isDead     = "DEAD"      // the process died
)

func checkOptions(dir string) Options {
	return Options{Dir: dir, Key: [32]byte{1, 2, 3}, TerminalID: "10000001", ShiftAutoOpen: true, AutoPrint: true}
}

// checkBook is the child: it opens the book and says its verdict.
func checkBook(dir string) {
	var said bytes.Buffer
	o := checkOptions(dir)
	o.Log = slog.New(slog.NewTextHandler(&said, nil))
	b, err := Open(context.Background(), o)
	if err != nil {
		fmt.Println(isReadOnly, err)
		return
	}
	defer b.Close()
	if err := b.Err(); err != nil {
		fmt.Println(isReadOnly, err)
		if _, err := b.Trade("A000001"); errors.Is(err, ErrNotFound) {
			fmt.Println(isWrong, "damage says that there is no such trade")
		}
		return
	}
	if err := holdsAll(b, dir+".want"); err != nil {
		fmt.Println(isWrong, err)
		return
	}
	if strings.Contains(said.String(), "cache rebuilt") {
		fmt.Println(isRebuilt, said.String())
		return
	}
	fmt.Println(isSame)
}

// holdsAll asks a book everything, every way, and sells once more.
func holdsAll(b *Book, wanted string) error {
	raw, err := os.ReadFile(wanted)
	if err != nil {
		return err
	}
	var want readings
	if err := gob.NewDecoder(bytes.NewReader(raw)).Decode(&want); err != nil {
		return err
	}
	have, err := readBook(b)
	if err == nil {
		err = differ(want, have)
	}
	if err == nil {
		err = sound(b)
	}
	if err != nil {
		return err
	}
	p, _, err := b.OpenTrade(ctx, New{OutTradeNo: "SPENT", Mode: payment.ByCode, TotalFen: 1, Code: &Code{Text: fmt.Sprintf("86%015d", 1), ScannedAt: time.Now()}})
	if err == nil && p.Reason != payment.ReasonCodeReplayed {
		err = fmt.Errorf("a spent code was taken: %s", p.State)
	}
	return err
}

// judge damages a copy of a book and lets a child judge it.
func judge(t *testing.T, image string, damage func(dir string) error) (verdict, words string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "book")
	copyTree(t, image, dir)
	copyTree(t, image+".want", dir+".want")
	if err := damage(dir); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), checkDir+"="+dir)
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		return isDead, fmt.Sprintf("%v: %.1500s", err, said.String())
	}
	text := string(out)
	if strings.Contains(text, isWrong) {
		return isWrong, text
	}
	verdict, words, _ = strings.Cut(strings.TrimSpace(text), " ")
	return verdict, words
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", "--sparse=always", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
}

// images are the directories of one book, as they lay there at several times of its life.
type images struct {
	early  string // a while before, stopped cleanly
	middle string // later, while it was open
	killed string // at the end, as a kill leaves it: tables of the stops before, and a log with what came after
	clean  string // at the end, after a clean stop
}

// makeImages lives a book through several stops, so that its cache has tables, a log, and a past.
func makeImages(t *testing.T) (im images) {
	t.Helper()
	s := newShop(t)
	root := t.TempDir()
	work := func(from, to int) {
		for n := from; n < to; n++ {
			p := s.sell(n)
			if n%4 > 0 {
				p = s.must(s.Answer(ctx, s.paid(p)))
			}
			if n%5 == 1 {
				f, _, err := s.OpenRefund(ctx, NewRefund{OutRefundNo: fmt.Sprint("R", n), TradeNo: p.TradeNo, RefundFen: 50, BodyHash: []byte{1}})
				if !errors.Is(err, ErrNotPaid) {
					check(t, err)
					_, err = s.AnswerRefund(ctx, payment.RefundAnswered{RefundNo: f.RefundNo, State: payment.RefundSuccess, RefundFen: 50, At: s.clock()})
					check(t, err)
				}
			}
			s.pass(time.Minute)
		}
		jobs, err := s.OpenPrints()
		check(t, err)
		for _, j := range jobs[:len(jobs)/2] {
			_, err := s.FinishPrint(ctx, j.ID, PrintPrinted)
			check(t, err)
		}
		open, err := s.OpenTrades()
		check(t, err)
		for _, p := range open[:len(open)/2] {
			s.must(s.Answer(ctx, s.paid(p)))
		}
	}
	keep := func(name string) string {
		to := filepath.Join(root, name)
		copyTree(t, s.opts.Dir, to)
		return to
	}
	work(0, 60)
	check(t, s.Close())
	im.early = keep("early")
	s.open()
	work(60, 120)
	s.reopen()
	work(120, 150)
	im.middle = keep("middle")
	work(150, 180)
	s.reopen()
	work(180, 240)
	want, err := readBook(s.Book)
	check(t, err)
	im.killed = keep("killed")
	check(t, s.Close())
	im.clean = keep("clean")
	var raw bytes.Buffer
	check(t, gob.NewEncoder(&raw).Encode(want))
	for _, dir := range []string{im.killed, im.clean} {
		check(t, os.WriteFile(dir+".want", raw.Bytes(), 0o600))
	}
	return im
}

// harm is one row of the matrix.
type harm struct {
	name string
	do   func(dir string) error
	may  []string // verdicts
}

// files does something to every file of the cache that a pattern names; none is an error only if must.
func files(pattern string, do func(path string, raw []byte) error) func(dir string) error {
	return func(dir string) error {
		paths, err := filepath.Glob(filepath.Join(dir, "cache", pattern))
		for _, p := range paths {
			var raw []byte
			if raw, err = os.ReadFile(p); err == nil {
				err = do(p, raw)
			}
			if err != nil {
				return err
			}
		}
		return err
	}
}

func rewritten(change func(raw []byte) []byte) func(path string, raw []byte) error {
	return func(path string, raw []byte) error { return os.WriteFile(path, change(raw), 0o600) }
}

// written is how much of a log holds anything: it is made longer than that.
func written(raw []byte) int { return len(bytes.TrimRight(raw, "\x00")) }

func flipAt(part, of int) func([]byte) []byte {
	return func(raw []byte) []byte {
		if n := written(raw); n > 0 {
			raw[min(n-1, n*part/of)] ^= 0x10
		}
		return raw
	}
}

func cutTail(n int) func([]byte) []byte {
	return func(raw []byte) []byte { return raw[:max(0, len(raw)-n)] }
}

func gone(path string, _ []byte) error { return os.Remove(path) }

// matrix is storage.md B4 at book level: what was measured to be silent, wrong or deadly with Badger alone.
func matrix(t *testing.T, im images) []harm {
	all := []string{isSame, isRebuilt}
	garbage := func(raw []byte) []byte { return append(raw[:written(raw)], "garbage, and more garbage"...) }
	rows := []harm{
		{"nothing at all", func(string) error { return nil }, []string{isSame}},
		{"garbage after the last entry of the log", files("*.mem", rewritten(garbage)), all},
		{"the log cut to three quarters", files("*.mem", rewritten(func(raw []byte) []byte { return raw[:written(raw)*3/4] })), all},
		{"a byte of the log flipped in the middle", files("*.mem", rewritten(flipAt(1, 2))), all},
		{"a byte of the log flipped near the start", files("*.mem", rewritten(flipAt(1, 40))), all},
		{"the log's header flipped", files("*.mem", rewritten(func(raw []byte) []byte { raw[3] ^= 1; return raw })), all},
		{"a page of the log zeroed", files("*.mem", rewritten(zeroPage)), all},
		{"the log zeroed whole", files("*.mem", rewritten(func(raw []byte) []byte { clear(raw); return raw })), all},
		{"all logs gone", files("*.mem", gone), all},
		{"the logs are empty files", files("*.mem", rewritten(func([]byte) []byte { return nil })), all},
		{"the manifest cut by 10 bytes", files("MANIFEST", rewritten(cutTail(10))), all},
		{"the manifest cut by 1 byte", files("MANIFEST", rewritten(cutTail(1))), all},
		{"the manifest cut in the middle", files("MANIFEST", rewritten(func(raw []byte) []byte { return raw[:len(raw)/2] })), all},
		{"the manifest gone", files("MANIFEST", gone), all},
		{"garbage after the manifest", files("MANIFEST", rewritten(func(raw []byte) []byte { return append(raw, "garbage, and more"...) })), all},
		{"a byte of the manifest flipped", files("MANIFEST", rewritten(flipAt(1, 2))), all},
		{"an empty manifest", files("MANIFEST", rewritten(func([]byte) []byte { return nil })), all},
		{"the key registry longer", files("KEYREGISTRY", rewritten(func(raw []byte) []byte { return append(raw, make([]byte, 10)...) })), all},
		{"the key registry cut", files("KEYREGISTRY", rewritten(cutTail(10))), all},
		{"a byte of the key registry flipped", files("KEYREGISTRY", rewritten(flipAt(3, 4))), all},
		{"the key registry gone", files("KEYREGISTRY", gone), all},
		{"the tables flipped in their data", files("*.sst", rewritten(flipAt(1, 4))), all},
		{"the tables flipped in their index", files("*.sst", rewritten(func(raw []byte) []byte { raw[len(raw)-60] ^= 4; return raw })), all},
		{"the tables flipped in their footer", files("*.sst", rewritten(func(raw []byte) []byte { raw[len(raw)-2] ^= 4; return raw })), all},
		{"one table gone", oneFile("*.sst", gone), all},
		{"all tables gone", files("*.sst", gone), all},
		{"the tables cut", files("*.sst", rewritten(func(raw []byte) []byte { return raw[:len(raw)/2] })), all},
		{"the tables are empty files", files("*.sst", rewritten(func([]byte) []byte { return nil })), all},
		{"the value log cut", files("*.vlog", rewritten(func(raw []byte) []byte { return raw[:len(raw)/2] })), all},
		{"the value log cut to nothing", files("*.vlog", rewritten(func([]byte) []byte { return nil })), all},
		{"the value log gone", files("*.vlog", gone), all},
		{"the value log is garbage", files("*.vlog", rewritten(func(raw []byte) []byte { return bytes.Repeat([]byte{0xA7}, len(raw)) })), all},
		{"zero-length leftovers of a kill", leftover("000090.mem", "000090.vlog", "000090.sst"), all},
		{"a foreign file among the tables", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "cache", "000091.sst"), []byte("no table"), 0o600)
		}, all},
		{"the whole cache gone", func(dir string) error { return os.RemoveAll(filepath.Join(dir, "cache")) }, all},
		{"a file in the place of the cache", func(dir string) error {
			return errors.Join(os.RemoveAll(filepath.Join(dir, "cache")), os.WriteFile(filepath.Join(dir, "cache"), nil, 0o600))
		}, all},
		{"the cache rolled back to a clean stop", replaced("cache", im.early), all},
		{"the cache rolled back to a copy taken hot", replaced("cache", im.middle), all},
		{"the journal rolled back under the cache", replaced("journal", im.early), []string{isReadOnly}},
		{"the logs of an older copy", older("*.mem", im.middle), all},
		{"the tables of an older copy", older("*.sst", im.middle), all},
		{"the manifest of an older copy", older("MANIFEST", im.early), all},
		{"the manifest of a hot copy", older("MANIFEST", im.middle), all},
	}
	foreign := func(name string, change func(*Options)) harm {
		other := newShopWith(t, change)
		for n := range 250 {
			other.sell(1000 + n)
		}
		check(t, other.Close())
		return harm{name, replaced("cache", other.opts.Dir), []string{isRebuilt, isReadOnly}}
	}
	return append(rows, foreign("the cache of another book with the same key", func(*Options) {}),
		foreign("the cache of another terminal", func(o *Options) { o.TerminalID, o.Key = "10000002", [32]byte{9} }))
}

func zeroPage(raw []byte) []byte {
	if at := written(raw) / 2 / 4096 * 4096; at+4096 <= len(raw) {
		clear(raw[at : at+4096])
	}
	return raw
}

func leftover(names ...string) func(dir string) error {
	return func(dir string) (err error) {
		for _, n := range names {
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, "cache", n), nil, 0o600))
		}
		return err
	}
}

func oneFile(pattern string, do func(string, []byte) error) func(string) error {
	return func(dir string) error {
		paths, err := filepath.Glob(filepath.Join(dir, "cache", pattern))
		if err != nil || len(paths) == 0 {
			return errors.Join(err, fmt.Errorf("no %s", pattern))
		}
		return do(paths[len(paths)-1], nil)
	}
}

// replaced puts a part of another directory in the place of this one's.
func replaced(part, from string) func(dir string) error {
	return func(dir string) error {
		err := os.RemoveAll(filepath.Join(dir, part))
		return errors.Join(err, exec.Command("cp", "-a", filepath.Join(from, part), filepath.Join(dir, part)).Run())
	}
}

// older puts the files of an older copy of the cache in the place of today's.
func older(pattern, from string) func(dir string) error {
	return func(dir string) error {
		err := files(pattern, gone)(dir)
		paths, globErr := filepath.Glob(filepath.Join(from, "cache", pattern))
		for _, p := range paths {
			raw, readErr := os.ReadFile(p)
			err = errors.Join(err, readErr, os.WriteFile(filepath.Join(dir, "cache", filepath.Base(p)), raw, 0o600))
		}
		return errors.Join(err, globErr)
	}
}

// TestEveryRowOfTheDamageMatrixIsDetectedOrRepaired damages a cache that was stopped cleanly and one that was killed, in
// every way that was measured to be silent, wrong or deadly, and asks the book everything afterwards.
func TestEveryRowOfTheDamageMatrixIsDetectedOrRepaired(t *testing.T) {
	im := makeImages(t)
	rows := matrix(t, im)
	rand.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	rows = rows[:amount(8, len(rows))]
	counts := map[string]int{}
	var mu sync.Mutex
	t.Run("rows", func(t *testing.T) {
		for _, row := range rows {
			for stop, image := range map[string]string{"killed": im.killed, "stopped cleanly": im.clean} {
				t.Run(row.name+", "+stop, func(t *testing.T) {
					t.Parallel()
					verdict, words := judge(t, image, row.do)
					mu.Lock()
					counts[verdict]++
					mu.Unlock()
					if !slices.Contains(row.may, verdict) {
						t.Errorf("%s, want one of %v: %.1500s", verdict, row.may, words)
					}
				})
			}
		}
	})
	t.Logf("%d rows, verdicts: %v", len(rows), counts)
}

// TestRandomDamageOfTheCacheIsDetectedOrRepaired does one to three random things to random files of the cache.
func TestRandomDamageOfTheCacheIsDetectedOrRepaired(t *testing.T) {
	im := makeImages(t)
	seed, rounds := uint64(time.Now().UnixNano()), amount(6, 400)
	if text := os.Getenv("YUPOS_SEED"); text != "" {
		_, err := fmt.Sscan(text, &seed)
		check(t, err)
	}
	counts := map[string]int{}
	for round := range uint64(rounds) {
		rng := rand.New(rand.NewPCG(seed, round))
		var did []string
		verdict, words := judge(t, []string{im.killed, im.clean}[rng.IntN(2)], func(dir string) error {
			for range 1 + rng.IntN(3) {
				what, err := spoil(dir, im, rng)
				if err != nil {
					return err
				}
				did = append(did, what)
			}
			return nil
		})
		counts[verdict]++
		if verdict != isSame && verdict != isRebuilt {
			t.Errorf("YUPOS_SEED=%d, round %d, %v: %s %.1500s", seed, round, did, verdict, words)
		}
	}
	t.Logf("seed %d: %d rounds: %v", seed, rounds, counts)
}

// spoil does one thing to one file of the cache.
func spoil(dir string, im images, rng *rand.Rand) (what string, err error) {
	var paths []string
	err = filepath.WalkDir(filepath.Join(dir, "cache"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != "LOCK" {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil || len(paths) == 0 {
		return "nothing left", err
	}
	path := paths[rng.IntN(len(paths))]
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	n := max(1, written(raw))
	name, at := filepath.Base(path), rng.IntN(n)
	switch rng.IntN(7) {
	case 0:
		return fmt.Sprintf("flip %s at %d of %d", name, at, n), os.WriteFile(path, flipOne(raw, at, rng), 0o600)
	case 1:
		return fmt.Sprintf("cut %s to %d of %d", name, at, n), os.WriteFile(path, raw[:min(at, len(raw))], 0o600)
	case 2:
		return "remove " + name, os.Remove(path)
	case 3:
		return fmt.Sprintf("zero %s from %d", name, at), os.WriteFile(path, zeroSome(raw, at, rng), 0o600)
	case 4:
		return "append to " + name, os.WriteFile(path, append(raw[:min(n, len(raw))], make([]byte, 1+rng.IntN(40))...), 0o600)
	}
	from := []string{im.early, im.middle}[rng.IntN(2)]
	old, err := os.ReadFile(filepath.Join(from, "cache", name))
	if err != nil {
		return "no older " + name, nil
	}
	return "older " + name, os.WriteFile(path, old, 0o600)
}

func flipOne(raw []byte, at int, rng *rand.Rand) []byte {
	if at < len(raw) {
		raw[at] ^= 1 << rng.IntN(8)
	}
	return raw
}

func zeroSome(raw []byte, at int, rng *rand.Rand) []byte {
	if at < len(raw) {
		clear(raw[at:min(len(raw), at+1+rng.IntN(6000))])
	}
	return raw
}

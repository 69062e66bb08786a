package journal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var makeGolden = flag.Bool("golden", false, "make the golden journal of this format's version, if there is none")

// The golden journal: two openings, a torn tail that was cut, records of every awkward length.
const (
	goldenDir  = "testdata/golden-v1"
	goldenHead = "testdata/golden-v1.head"
)

func goldenRecords() [][][]byte {
	return [][][]byte{
		{[]byte("first")},
		{{}, {0}, bytes.Repeat([]byte{0}, 600)},
		{[]byte("收款 12.50 元")},
		{bytes.Repeat([]byte("long "), 500)},
		{[]byte("after the cut")},
	}
}

func goldenOptions(dir string) Options {
	o := Options{Dir: dir, TerminalID: "10000001", SegmentBytes: 16 << 10}
	for i := range o.Key {
		o.Key[i] = byte(i)
	}
	return o
}

func TestMakeTheGoldenJournal(t *testing.T) {
	if !*makeGolden {
		t.Skip("only with -golden; a released format's golden journal is never made again")
	}
	if err := os.Mkdir(goldenDir, 0o755); err != nil {
		t.Fatal(err)
	}
	o := goldenOptions(t.TempDir())
	batches := goldenRecords()
	j, _ := mustOpen(t, o)
	for _, b := range batches[:4] {
		if _, err := j.Append(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.SyncHead(); err != nil {
		t.Fatal(err)
	}
	end := j.offset
	fill(t, j, 0, 1)
	kill(j)
	j.release()
	path := segmentPath(o.Dir, 1)
	raw, _ := os.ReadFile(path)
	clear(raw[end+30:])
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	j, _ = mustOpen(t, o)
	if _, err := j.Append(batches[4]); err != nil {
		t.Fatal(err)
	}
	h := j.Head()
	j.Close()
	if err := os.CopyFS(goldenDir, os.DirFS(o.Dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(goldenDir, "LOCK")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goldenHead, fmt.Appendf(nil, "%d %x\n", h.Sequence, h.Hash), 0o644); err != nil {
		t.Fatal(err)
	}
}

func goldenCopy(t *testing.T) Options {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(goldenDir)); err != nil {
		t.Fatal(err)
	}
	return goldenOptions(dir)
}

func TestTheGoldenJournalOpensForEver(t *testing.T) {
	want, err := os.ReadFile(goldenHead)
	if err != nil {
		t.Fatal(err)
	}
	o := goldenCopy(t)
	if r, err := Verify(o); err != nil || len(r.Cuts) != 1 || r.HeadBad != 0 {
		t.Fatalf("%v %+v", err, r)
	}
	j, r := mustOpen(t, o)
	if r.Problem != nil || r.CutBytes != 0 {
		t.Fatalf("%+v", r)
	}
	if h := j.Head(); fmt.Sprintf("%d %x\n", h.Sequence, h.Hash) != string(want) {
		t.Errorf("head %d %x, want %s", h.Sequence, h.Hash, want)
	}
	if got, want := read(t, j), slices.Concat(goldenRecords()...); !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("records %q", got)
	}
	if _, err := j.Append([][]byte{[]byte("goes on")}); err != nil {
		t.Error(err)
	}
}

func TestTheChainOfAnArchiveIsFollowedWithoutTheKey(t *testing.T) {
	want, err := os.ReadFile(goldenHead)
	if err != nil {
		t.Fatal(err)
	}
	var at Head
	for n := uint32(1); n <= 2; n++ {
		raw, err := os.ReadFile(segmentPath(goldenDir, n))
		if err != nil {
			t.Fatal(err)
		}
		from, to, err := Chain(bytes.NewReader(raw))
		if err != nil || n > 1 && from != at {
			t.Fatalf("segment %d: from %+v, want %+v: %v", n, from, at, err)
		}
		at = to
		for _, off := range []int{headerBytes + 3, headerBytes + 20, headerBytes + 60, len(raw) - 1} {
			bad := slices.Clone(raw)
			bad[off] ^= 1
			if _, to, err := Chain(bytes.NewReader(bad)); err == nil && to == at {
				t.Errorf("segment %d: a changed byte at %d leaves the chain as it was", n, off)
			}
		}
	}
	if got := fmt.Sprintf("%d %x\n", at.Sequence, at.Hash); got != string(want) {
		t.Errorf("the chain ends at %s, want %s", got, want)
	}
}

func TestANewerFormatIsRefusedByNameAndUntouched(t *testing.T) {
	for _, where := range []string{"0000000001.seg", "0000000002.seg"} {
		o := goldenCopy(t)
		path := filepath.Join(o.Dir, where)
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		raw[9] = 2
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		before := contents(t, o.Dir)
		if _, _, err := Open(o); !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "version 2") {
			t.Errorf("%s: %v", where, err)
		}
		if !maps.Equal(before, contents(t, o.Dir)) {
			t.Errorf("%s: the journal was touched", where)
		}
	}
}

// contents gives every file's bytes but the lock's.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if e.Name() != "LOCK" {
			files[e.Name()] = string(raw)
		}
	}
	return files
}

// TestFormatMDIsEnoughToReadAJournal reads the golden journal with code that uses nothing of this package, only what
// FORMAT.md says.
func TestFormatMDIsEnoughToReadAJournal(t *testing.T) {
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(i)
	}
	derive := func(salt []byte, info string) []byte {
		k, err := hkdf.Key(sha256.New, key, salt, info, 32)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	var records [][]byte
	head := make([]byte, 32)
	u32, u64 := binary.BigEndian.Uint32, binary.BigEndian.Uint64
	for number := uint32(1); number <= 2; number++ {
		raw, err := os.ReadFile(fmt.Sprintf("%s/%010d.seg", goldenDir, number))
		if err != nil {
			t.Fatal(err)
		}
		who := "10000001" + string(binary.BigEndian.AppendUint32(nil, number))
		m := hmac.New(sha256.New, derive(raw[56:88], who+"yupos-journal-header-v1"))
		m.Write(raw[:4064])
		if !bytes.Equal(m.Sum(nil), raw[4064:4096]) || string(raw[:8]) != "YUPOSJNL" || raw[9] != 1 || u32(raw[12:]) != number ||
			u64(raw[88:]) != uint64(len(records)) || !bytes.Equal(raw[96:128], head) {
			t.Fatalf("header of segment %d", number)
		}
		if number == 2 && (u32(raw[128:]) != 1 || u64(raw[144:]) != 30) {
			t.Errorf("the cut is recorded as segment %d, %d bytes", u32(raw[128:]), u64(raw[144:]))
		}
		block, _ := aes.NewCipher(derive(raw[56:88], who+"yupos-journal-v1"))
		gcm, _ := cipher.NewGCM(block)
		for b, n := raw[4096:], uint64(1); len(b) >= 52; n++ {
			length := int(u32(b))
			if u64(b[8:]) != uint64(len(records)+1) || !bytes.Equal(b[16:48], head) ||
				u32(b[48:]) != crc32.Checksum(b[:48], crc32.MakeTable(crc32.Castagnoli)) {
				t.Fatalf("frame %d of segment %d", n, number)
			}
			text, err := gcm.Open(nil, binary.BigEndian.AppendUint64(make([]byte, 4), n), b[52:52+length], b[:52])
			if err != nil {
				t.Fatal(err)
			}
			for len(text) > 0 {
				records = append(records, text[4:4+u32(text)])
				text = text[4+u32(text):]
			}
			sum := sha256.Sum256(append(slices.Clone(head), b[52:52+length]...))
			head, b = sum[:], b[52+length:]
		}
	}
	if want := slices.Concat(goldenRecords()...); !slices.EqualFunc(records, want, bytes.Equal) {
		t.Errorf("records %q", records)
	}
	raw, _ := os.ReadFile(goldenHead)
	if !strings.HasSuffix(strings.TrimSpace(string(raw)), hex.EncodeToString(head)) {
		t.Errorf("head %x, want %s", head, raw)
	}
	slots, err := os.ReadFile(goldenDir + "/HEAD")
	if err != nil {
		t.Fatal(err)
	}
	newest := slots[:512]
	if u64(slots[4096+16:]) > u64(newest[16:]) {
		newest = slots[4096 : 4096+512]
	}
	m := hmac.New(sha256.New, derive(nil, "10000001yupos-journal-head-v1"))
	m.Write(newest[:480])
	if !bytes.Equal(m.Sum(nil), newest[480:]) || u64(newest[40:]) != uint64(len(records)) || !bytes.Equal(newest[48:80], head) {
		t.Error("HEAD does not say the end")
	}
}

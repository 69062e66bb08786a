package ledgercache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"yupos/ledgercache/journal"
)

// packed strings records together for the fuzzer: each with its length before it.
func packed(records [][]byte) (all []byte) {
	for _, r := range records {
		all = append(binary.BigEndian.AppendUint16(all, uint16(len(r))), r...)
	}
	return all
}

func unpacked(all []byte) (records [][]byte) {
	for len(all) >= 2 && len(records) < 300 {
		n := int(binary.BigEndian.Uint16(all))
		n = min(n, len(all)-2)
		records = append(records, all[2:2+n])
		all = all[2+n:]
	}
	return records
}

// lifeOf is the journal of a clerk's work: every kind of record that a shop makes.
func lifeOf(t *testing.T, seed uint64, steps int) (records [][]byte) {
	t.Helper()
	s := newShop(t)
	c := newClerk(s, seed)
	for range steps {
		c.time()
		check(t, c.do(c.next()))
	}
	check(t, s.journal.Read(1, func(_ uint64, _ journal.Head, raw []byte) error {
		records = append(records, bytes.Clone(raw))
		return nil
	}))
	return records
}

// foldRecords folds records until one is refused. Whatever they say, it must end.
func foldRecords(records [][]byte) (state, int, error) {
	s := newInMemory()
	for n, raw := range records {
		r, err := decodeRecord(raw)
		if err == nil {
			_, err = fold(s, r)
		}
		if err != nil {
			return s, n, err
		}
	}
	return s, len(records), nil
}

// FuzzFold folds any bytes as a journal: no panic, and what was folded can be read and audited.
func FuzzFold(f *testing.F) {
	f.Fuzz(func(t *testing.T, all []byte) {
		records := unpacked(all)
		s, folded, err := foldRecords(records)
		if err == nil && folded != len(records) {
			t.Error("not all was folded, and nothing was said")
		}
		_, _ = checkBooks(ctx, s)
		_, _ = new(Book).terminalExposure(s, nil, false)
		_, _ = carried(s, "")
		w := newWindow(3) // the fold of a book that reads only
		for _, raw := range records[:folded] {
			r, err := decodeRecord(raw)
			if err == nil {
				err = w.note(r)
			}
			if err != nil {
				t.Errorf("folded whole, and refused by the window: %v", err)
			}
		}
	})
}

// FuzzDecodeRecord: what decodes is the same after it was encoded again.
func FuzzDecodeRecord(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := decodeRecord(raw)
		if err != nil || len(r.Body) == 0 { // without a body: it is no record's
			return
		}
		again, err := encMode.Marshal(r)
		if err != nil {
			return // a body that is no CBOR value cannot be written
		}
		back, err := decodeRecord(again)
		if err != nil || back.Kind != r.Kind || back.At != r.At || !bytes.Equal(back.Body, r.Body) {
			t.Errorf("%x: %+v, %v", raw, back, err)
		}
		if known := kindNames(r.Kind); !known {
			if _, err := fold(newInMemory(), r); err == nil || !strings.Contains(err.Error(), "unknown kind") {
				t.Errorf("kind %d is not refused by name: %v", r.Kind, err)
			}
		}
	})
}

func kindNames(k recordKind) bool {
	switch k {
	case recStarted, recShiftOpened, recShiftClosed, recDayClosed, recOpened, recSubmitted, recRejected, recAsked, recAnswered, recCancelWanted,
		recExpired, recAccepted, recWithdrawn, recReceiptShown, recRefundOpened, recRefundAsked, recRefundAnswer, recReceiptRefused, recDigitsTyped,
		recDigitsMatched, recOrderShown, recPrintQueued, recPrintSent, recPrintDone, recAnchored, recNews, recLearned, recTime, recAlarm:
		return true
	}
	return false
}

func TestAnUnknownKindOfRecordIsRefusedByName(t *testing.T) {
	refused := 0
	for k := range 256 {
		if kindNames(recordKind(k)) {
			continue
		}
		refused++
		raw, err := encodeRecord(recordKind(k), time.Unix(0, 0), started{})
		check(t, err)
		if _, _, err := foldRecords([][]byte{raw}); err == nil || !strings.Contains(err.Error(), "unknown kind") {
			t.Errorf("kind %d: %v", k, err)
		}
	}
	if refused < 200 {
		t.Errorf("only %d kinds are unknown", refused)
	}
}

// TestAHostileRecordTakesLittleMemory: what a record claims to hold is not believed.
func TestAHostileRecordTakesLittleMemory(t *testing.T) {
	body := func(raw ...byte) []byte { // a record of kind 4 with this body
		return append([]byte{0xA3, 1, 4, 2, 0, 3}, raw...)
	}
	for name, raw := range map[string][]byte{
		"an array of 2^32":       body(0x9B, 0, 0, 0, 1, 0, 0, 0, 0),
		"a map of 2^40":          body(0xBB, 0, 0, 1, 0, 0, 0, 0, 0),
		"a text of 2^50":         body(0x7B, 0, 4, 0, 0, 0, 0, 0, 0),
		"bytes of 2^62":          body(0x5B, 0x40, 0, 0, 0, 0, 0, 0, 0),
		"a nest of 1,000 arrays": body(bytes.Repeat([]byte{0x81}, 1000)...),
		"4,097 parts":            body(append([]byte{0xA1, 6, 0x99, 0x10, 0x01}, bytes.Repeat([]byte{0xA0}, 4097)...)...),
		"an endless text":        body(append([]byte{0x7F}, bytes.Repeat([]byte{0x61, 'x'}, 1000)...)...),
		"nothing":                {},
		"half a record":          {0xA3, 1, 4},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := foldRecords([][]byte{raw})
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s is taken", name)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
			t.Errorf("%s takes %d bytes", name, took)
		}
	}
}

// TestTheLifeOfAShopWithAnyRecordSpoiltFoldsOrIsRefused changes, leaves out, repeats and swaps records of real journals.
func TestTheLifeOfAShopWithAnyRecordSpoiltFoldsOrIsRefused(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	records := lifeOf(t, seed, 120)
	refused, taken := 0, 0
	for n := range records {
		for kind := range 4 {
			spoilt := append([][]byte(nil), records...)
			switch kind {
			case 0:
				spoilt = append(spoilt[:n:n], records[n+1:]...)
			case 1:
				spoilt = append(append(spoilt[:n:n], records[n]), records[n:]...)
			case 2:
				if n > 0 {
					spoilt[n-1], spoilt[n] = spoilt[n], spoilt[n-1]
				}
			case 3:
				r := bytes.Clone(records[n])
				r[(n*7)%len(r)] ^= 1 << (n % 8)
				spoilt[n] = r
			}
			s, _, err := foldRecords(spoilt)
			if err != nil {
				refused++
				continue
			}
			taken++
			if _, err := checkBooks(ctx, s); err != nil && !errors.Is(err, ErrNotFound) {
				t.Logf("seed %d, record %d, way %d: %v", seed, n, kind, err)
			}
		}
	}
	t.Logf("seed %d: %d records, %d spoilt journals refused, %d folded", seed, len(records), refused, taken)
	if refused == 0 {
		t.Error("nothing was refused: the rules are not asked")
	}
}

// TestWriteFuzzSeeds makes the committed seeds again, with YUPOS_SEEDS set.
func TestWriteFuzzSeeds(t *testing.T) {
	if os.Getenv("YUPOS_SEEDS") == "" {
		t.Skip("YUPOS_SEEDS is not set")
	}
	kinds := map[recordKind][]byte{}
	write := func(fuzz, name string, raw []byte) {
		dir := filepath.Join("testdata", "fuzz", fuzz)
		check(t, os.MkdirAll(dir, 0o755))
		check(t, os.WriteFile(filepath.Join(dir, name), []byte("go test fuzz v1\n[]byte("+strconv.Quote(string(raw))+")\n"), 0o644))
	}
	for seed := range uint64(6) {
		records := lifeOf(t, seed, 60)
		write("FuzzFold", "life-"+string('a'+byte(seed)), packed(records))
		for _, raw := range records {
			r, err := decodeRecord(raw)
			check(t, err)
			if kinds[r.Kind] == nil {
				kinds[r.Kind] = raw
			}
		}
	}
	for k, raw := range kinds {
		write("FuzzDecodeRecord", "kind-"+string('0'+byte(k/10))+string('0'+byte(k%10)), raw)
	}
}

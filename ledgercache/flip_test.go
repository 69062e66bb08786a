package ledgercache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"yupos/ledgercache/journal"
)

// field is a part of a file of the journal, as journal/FORMAT.md has it.
type field struct {
	name     string
	from, to int64
}

var headerFields = []field{
	{"magic", 0, 8}, {"version", 8, 10}, {"zero", 10, 12}, {"number", 12, 16}, {"terminal id", 16, 24}, {"epoch", 24, 40}, {"epoch before", 40, 56},
	{"salt", 56, 88}, {"sequence before", 88, 96}, {"head before", 96, 128}, {"cut segment", 128, 132}, {"zero behind it", 132, 136},
	{"cut offset", 136, 144}, {"cut length", 144, 152}, {"cut digest", 152, 184}, {"zeros", 184, 4064}, {"header seal", 4064, 4096},
}

var slotFields = []field{
	{"magic", 0, 8}, {"version", 8, 10}, {"zero", 10, 16}, {"counter", 16, 24}, {"epoch", 24, 40}, {"sequence", 40, 48}, {"head", 48, 80},
	{"zeros", 80, 480}, {"slot seal", 480, 512},
}

// batchFields are the fields of every batch of a segment.
func batchFields(raw []byte) (list []field) {
	for at := int64(4096); at+52 < int64(len(raw)); {
		length := int64(binary.BigEndian.Uint32(raw[at:]))
		if length == 0 {
			break
		}
		for _, f := range []field{
			{"length", 0, 4}, {"count", 4, 8}, {"sequence", 8, 16}, {"head before", 16, 48}, {"crc", 48, 52},
			{"sealed text", 52, 52 + length - 16}, {"tag", 52 + length - 16, 52 + length},
		} {
			list = append(list, field{fmt.Sprintf("batch at %d, %s", at, f.name), at + f.from, at + f.to})
		}
		at += 52 + length
	}
	return list
}

// fieldsOf are all fields of all files of a journal, by file.
func fieldsOf(t *testing.T, dir string) map[string][]field {
	t.Helper()
	all := map[string][]field{}
	segments, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	check(t, err)
	for _, path := range segments {
		raw, err := os.ReadFile(path)
		check(t, err)
		all[filepath.Base(path)] = append(append([]field(nil), headerFields...), batchFields(raw)...)
	}
	for _, at := range []int64{0, 4096} {
		for _, f := range slotFields {
			all["HEAD"] = append(all["HEAD"], field{fmt.Sprintf("slot at %d, %s", at, f.name), at + f.from, at + f.to})
		}
	}
	return all
}

// TestOneFlippedBitInAnyFieldOfTheJournalIsNamedByTheBook flips a bit in the middle of every field of every segment and of
// HEAD: the book opens read-only and says damage, or refuses by name, or mends HEAD and says that it did.
func TestOneFlippedBitInAnyFieldOfTheJournalIsNamedByTheBook(t *testing.T) {
	s := newShop(t)
	for n := range 4 {
		s.must(s.Answer(ctx, s.paid(s.sell(n))))
		if n%2 == 1 {
			s.reopen()
		}
	}
	check(t, s.Close())
	flipped, skip := 0, amount(7, 1)
	for file, fields := range fieldsOf(t, s.journalDir()) {
		for i, f := range fields {
			if (i+len(file))%skip != 0 {
				continue
			}
			flipped++
			t.Run(file+", "+f.name, func(t *testing.T) {
				o := s.opts
				o.Dir = filepath.Join(t.TempDir(), "book")
				copyTree(t, s.opts.Dir, o.Dir)
				check(t, flipBit(filepath.Join(o.Dir, "journal", file), (f.from+f.to)/2))
				b, err := Open(ctx, o)
				if err != nil {
					if !errors.Is(err, journal.ErrVersion) && !errors.Is(err, journal.ErrKey) {
						t.Errorf("refused without a name: %v", err)
					}
					return
				}
				defer b.Close()
				said := len(b.Findings()) > 0
				switch err := b.Err(); {
				case err == nil && (file != "HEAD" || !said):
					t.Errorf("opened as if nothing had happened, findings %v", b.Findings())
				case err == nil:
					check(t, sound(b))
				case !errors.Is(err, ErrReadOnly) || !errors.Is(err, ErrDamaged):
					t.Errorf("%v", err)
				}
				for n := range 4 { // what is not there is not said to be missing
					if _, err := b.Trade(s.online(n).OutTradeNo); errors.Is(err, ErrNotFound) {
						t.Errorf("damage says that there is no trade %d", n)
					}
				}
			})
		}
	}
	t.Logf("%d fields", flipped)
}

func flipBit(path string, at int64) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	raw[at] ^= 1 << (at % 8)
	return os.WriteFile(path, raw, 0o600)
}

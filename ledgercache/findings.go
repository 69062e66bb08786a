package ledgercache

import (
	"log/slog"

	"yupos/ledgercache/journal"
)

// Finding is something that opening the journal found and mended, for a person to know.
type Finding string

// The findings, as the codes of the warnings. What cannot be mended opens the book read-only instead, and a mirror that is
// left out is told by Mirror.
const (
	FoundTornTail Finding = "BOOK_TAIL_CUT" // a write that had not been answered was cut off and is kept aside
	FoundBadHead  Finding = "BOOK_HEAD_BAD" // a witness of the durable head did not verify, or was gone
	FoundRefilled Finding = "BOOK_REFILLED" // one copy lacked something that the other had
)

func findingsOf(r journal.Report) (list []Finding) {
	if r.CutBytes > 0 {
		list = append(list, FoundTornTail)
	}
	if r.HeadBad > 0 || r.HeadGone {
		list = append(list, FoundBadHead)
	}
	if len(r.Refilled) > 0 {
		list = append(list, FoundRefilled)
	}
	return list
}

// Findings are what opening found and mended.
func (b *Book) Findings() []Finding { return findingsOf(b.report) }

// sayFindings logs them once.
func (b *Book) sayFindings() {
	if r := b.report; len(b.Findings()) > 0 {
		b.log.Warn("opening the journal found something", slog.Any("found", b.Findings()), slog.Int64("cut_bytes", r.CutBytes),
			slog.String("cut_aside", r.CutAside), slog.Int("head_bad", r.HeadBad), slog.Bool("head_gone", r.HeadGone), slog.Any("refilled", r.Refilled))
	}
}

package printersim

// Paper and cover as words.
const (
	PaperOK   = "ok"
	PaperNear = "near" // the near-end sensor sees little paper; printing goes on
	PaperOut  = "out"  // printing has stopped

	CoverClosed = "closed"
	CoverOpen   = "open" // printing has stopped
)

// State is what can be seen of a printer from outside.
type State struct {
	Paper     string `json:"paper"`
	Cover     string `json:"cover"`
	Connected bool   `json:"connected"`
	Waiting   int    `json:"waiting_bytes"` // received and not printed yet
	Lost      int    `json:"lost_bytes"`    // thrown away because the buffer was full
	Errors    int    `json:"errors"`        // commands that are none, or that carried nonsense
	LastError string `json:"last_error"`
}

// sensors is what the mechanics say.
type sensors struct{ paper, cover string }

// offline says whether the printer has stopped printing.
func (s sensors) offline() bool { return s.paper == PaperOut || s.cover == CoverOpen }

// The kinds of change that automatic status back can be asked for (GS a: bits 0 to 3).
const (
	asbDrawer byte = 1 << iota
	asbOnline
	asbError
	asbPaper
)

// change names in which kinds two readings differ.
func (s sensors) change(to sensors) byte {
	var kinds byte
	if s.offline() != to.offline() || s.cover != to.cover {
		kinds |= asbOnline
	}
	if s.paper != to.paper {
		kinds |= asbPaper
	}
	return kinds
}

// realTime is the answer to DLE EOT n. Bits 1 and 4 are always set.
func (s sensors) realTime(n byte) byte {
	b := byte(0x12)
	switch n {
	case 1: // printer
		b |= when(s.offline(), 0x08)
	case 2: // why it is offline
		b |= when(s.cover == CoverOpen, 0x04) | when(s.paper == PaperOut, 0x20)
	case 4: // paper: near end bits 2 and 3, end bits 5 and 6
		b |= when(s.paper != PaperOK, 0x0C) | when(s.paper == PaperOut, 0x60)
	}
	return b
}

// block is the automatic status: four bytes, told apart by bit 4 of the first.
func (s sensors) block() []byte {
	return []byte{
		0x10 | when(s.offline(), 0x08) | when(s.cover == CoverOpen, 0x20),
		0,
		when(s.paper != PaperOK, 0x03) | when(s.paper == PaperOut, 0x0C),
		0x0F,
	}
}

// queued is the answer to GS r 1 and ESC v: the printer gets to it only while it prints, so the end of paper is never told.
func (s sensors) queued() byte { return when(s.paper != PaperOK, 0x03) }

func when(set bool, bits byte) byte {
	if set {
		return bits
	}
	return 0
}

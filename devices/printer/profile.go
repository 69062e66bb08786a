package printer

import (
	"errors"
	"fmt"
)

// ErrProfile refuses a profile that is unknown or contradicts itself.
var ErrProfile = errors.New("printer: unusable profile")

// FenceKind names how a printer proves that it has come to the end of a job.
type FenceKind string

const (
	// FenceID asks for a process id that the printer returns when printing is
	// completed (GS ( H fn 48). Officially TM-T20III and TM-T88VI/VII; probed per
	// unit elsewhere.
	FenceID FenceKind = "process_id"
	// FenceStatus asks for the paper status (GS r 1), which is answered in the
	// order of the queue.
	FenceStatus FenceKind = "queued_status"
)

// Profile is what one printer can do. Never guessed from its own answer: clones
// call themselves TM-T88V.
type Profile struct {
	Name    string
	Columns int // of Font A, 12 dots each; a Chinese character takes two
	Dots    int // printable width
	// MarginDots is the white paper on each side that a QR code may count on as
	// quiet zone.
	MarginDots int
	Cutter     bool
	CutFeed    int // lines from the print head to the tear bar, without a cutter

	NativeQR  bool // GS ( k; cheap 58 mm clones print its bytes as text
	MaxQRDots int  // per module, however small the code
	RasterQR  bool // prefer given bits even where NativeQR is true
	BandRows  int  // rows of one raster command: an interrupted one swallows the rest
	FourByte  bool // the font has the four-byte part of GB18030
	KanjiSize bool // FS ! is needed beside GS ! for Chinese characters
	ASB       bool // automatic status back
	Fence     FenceKind
}

// The profiles by name. Fences are the safe choice; a unit that was seen to
// answer GS ( H gets "80mm-id".
var profiles = map[string]Profile{
	"58mm": {
		Name: "58mm", Columns: 32, Dots: 384, MarginDots: 8, CutFeed: 4,
		NativeQR: true, MaxQRDots: 8, BandRows: 24, ASB: true, Fence: FenceStatus,
	},
	"80mm": {
		Name: "80mm", Columns: 48, Dots: 576, MarginDots: 8, Cutter: true, CutFeed: 4,
		NativeQR: true, MaxQRDots: 8, BandRows: 24, ASB: true, Fence: FenceStatus,
	},
	"80mm-id": {
		Name: "80mm-id", Columns: 48, Dots: 576, MarginDots: 8, Cutter: true, CutFeed: 4,
		NativeQR: true, MaxQRDots: 8, BandRows: 24, ASB: true, Fence: FenceID,
	},
	"58mm-raster": {
		Name: "58mm-raster", Columns: 32, Dots: 384, MarginDots: 8, CutFeed: 4,
		RasterQR: true, MaxQRDots: 8, BandRows: 24, ASB: true, Fence: FenceStatus,
	},
}

// ProfileNamed returns "80mm", "80mm-id" (proves printing by process id), "58mm"
// or "58mm-raster" (no QR codes of its own).
func ProfileNamed(name string) (Profile, error) {
	p, ok := profiles[name]
	if !ok {
		return Profile{}, fmt.Errorf("%w: %q", ErrProfile, name)
	}
	return p, nil
}

// Check finds what would make garbage of a document.
func (p Profile) Check() error {
	switch {
	case p.Columns < 16 || p.Columns > 96 || p.Dots < p.Columns*8 || p.Dots > 2047:
		return fmt.Errorf("%w: %d columns on %d dots", ErrProfile, p.Columns, p.Dots)
	case p.BandRows < 1 || p.BandRows > 1024 || p.MaxQRDots < 1 || p.MaxQRDots > 16:
		return fmt.Errorf("%w: %d rows a band, %d dots a module", ErrProfile, p.BandRows, p.MaxQRDots)
	case p.Fence != FenceID && p.Fence != FenceStatus:
		return fmt.Errorf("%w: fence %q", ErrProfile, p.Fence)
	}
	return nil
}

// bandBytes is the most data that one raster command of this profile waits for.
func (p Profile) bandBytes() int { return p.BandRows * ((p.Dots + 7) / 8) }

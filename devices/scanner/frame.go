package scanner

import "strings"

// ending says how a frame came to its end. The values are log words.
type ending string

const (
	pending  ending = "" // the frame goes on, or there was none
	complete ending = "complete"
	fragment ending = "fragment without terminator"
	garbage  ending = "control bytes or broken text"
	tooLong  ending = "too long"
)

// framer cuts a stream of bytes into codes. It has no clock: the caller tells it
// when the line fell silent.
type framer struct {
	cfg   Config
	buf   []byte
	spoil ending // why the current frame is already refused; it still runs to its end
}

func newFramer(cfg Config) *framer { return &framer{cfg: cfg} }

// push takes one byte and returns the frame that it ended, if any.
func (f *framer) push(c byte) ([]byte, ending) {
	switch {
	case f.cfg.Terminator != NoTerminator && strings.IndexByte(f.cfg.Terminator, c) >= 0:
		return f.end(complete)
	case strings.IndexByte(f.cfg.Prefix, c) >= 0:
		_, end := f.end(fragment) // what stood before a prefix had no end of its own
		return nil, end
	case f.spoil != pending:
	case (c == '\r' || c == '\n') && len(f.buf) == 0:
		// The rest of a line end of which only the first byte is configured.
	case c < 0x20 || c == 0x7F:
		f.spoil = garbage
	case len(f.buf) == f.cfg.MaxBytes:
		f.spoil = tooLong
	default:
		f.buf = append(f.buf, c)
	}
	return nil, pending
}

// idle ends the frame because the line fell silent.
func (f *framer) idle() ([]byte, ending) {
	if f.cfg.Terminator == NoTerminator {
		return f.end(complete)
	}
	return f.end(fragment)
}

// reset forgets the frame because the line was opened or lost.
func (f *framer) reset() ending {
	_, end := f.end(fragment)
	return end
}

// end closes the frame. Nothing at all (the LF of CR LF) is no frame.
func (f *framer) end(how ending) ([]byte, ending) {
	frame, spoil := f.buf, f.spoil
	f.buf, f.spoil = nil, pending
	switch {
	case spoil != pending:
		return nil, spoil
	case len(frame) == 0:
		return nil, pending
	case how != complete:
		return nil, how
	}
	return frame, complete
}

// splitAIM takes the AIM identifier "]cm" (ISO/IEC 15424) off a code and undoes
// the ECI escapes that ]Q2, ]Q4 and ]Q6 announce: \nnnnnn names a character set
// and \\ is a backslash. "]" begins none of our codes.
func splitAIM(s string) (symbology, text string) {
	if len(s) < 3 || s[0] != ']' || !letter(s[1]) || !letter(s[2]) && !digit(s[2]) {
		return "", s
	}
	symbology, text = s[:3], s[3:]
	if symbology == "]Q2" || symbology == "]Q4" || symbology == "]Q6" {
		text = stripECI(text)
	}
	return symbology, text
}

func stripECI(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			if i+6 < len(s) && digits(s[i+1:i+7]) {
				i += 6
				continue
			}
			if i+1 < len(s) && s[i+1] == '\\' {
				i++
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// MayPay says whether the symbology is one that pay codes come in: QR, Code 128,
// or unknown. A drink's EAN is refused by its symbology before its digits are
// looked at.
func (s Scan) MayPay() bool {
	return s.Symbology == "" || strings.HasPrefix(s.Symbology, "]Q") || s.Symbology == "]C0"
}

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func digit(c byte) bool  { return c >= '0' && c <= '9' }

func digits(s string) bool {
	for i := range len(s) {
		if !digit(s[i]) {
			return false
		}
	}
	return true
}

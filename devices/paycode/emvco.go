package paycode

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/simplifiedchinese"
)

// ErrEMVCo says that a text is no conforming EMVCo code. It is wrapped with what is wrong.
var ErrEMVCo = errors.New("paycode: not a conforming EMVCo code")

// The bounds of the general layer: no real code comes near them, so a longer one is not worth reading.
const (
	maxText   = 4296 // characters of the largest QR code in alphanumeric mode
	maxFields = 256  // fields or data objects of one code, all levels together
	maxDepth  = 4    // nesting of consumer-presented templates
)

// Field is one data object of a merchant-presented code: a two-digit id and a value whose length counts characters, not
// bytes (EMVCo MPM §3.2). At is the offset of its id in the text, in bytes.
type Field struct {
	ID, Value string
	At        int
}

// Merchant is a merchant-presented code, with every field kept in its order, known or not.
type Merchant struct{ Fields []Field }

// ParseMerchant reads any conforming merchant-presented code: 00 first, 63 last with the right checksum, lengths in
// characters, templates that divide exactly. A text in GB18030 instead of UTF-8 is read as such. It is the tolerant
// reader, for naming foreign codes; ours is read by [ParseOrder].
func ParseMerchant(text string) (Merchant, error) {
	checksum := crc16([]byte(text[:max(0, len(text)-4)]))
	if !utf8.ValidString(text) {
		decoded, err := simplifiedchinese.GB18030.NewDecoder().String(text)
		if err != nil || strings.ContainsRune(decoded, utf8.RuneError) {
			return Merchant{}, fmt.Errorf("%w: neither UTF-8 nor GB18030", ErrEMVCo)
		}
		text = decoded
	}
	fields, err := splitFields(text)
	if err != nil {
		return Merchant{}, err
	}
	first, last := fields[0], fields[len(fields)-1]
	switch {
	case first.ID != "00" || first.Value != "01":
		return Merchant{}, fmt.Errorf("%w: does not begin with 000201", ErrEMVCo)
	case last.ID != "63" || !strings.EqualFold(last.Value, fmt.Sprintf("%04X", checksum)):
		return Merchant{}, fmt.Errorf("%w: checksum", ErrEMVCo)
	}
	for _, f := range fields {
		if isTemplate(f.ID) {
			if _, err := splitFields(f.Value); err != nil {
				return Merchant{}, fmt.Errorf("template %s: %w", f.ID, err)
			}
		}
	}
	return Merchant{Fields: fields}, nil
}

// isTemplate says whether the value of id is itself made of fields (EMVCo MPM, table 3.2): merchant accounts 26–51,
// additional data 62, language 64, unreserved 80–99.
func isTemplate(id string) bool {
	return id >= "26" && id <= "51" || id == "62" || id == "64" || id >= "80" && id <= "99"
}

// Value returns the value of the first field with that id.
func (m Merchant) Value(id string) (string, bool) { return fieldValue(m.Fields, id) }

// Template returns the fields inside each template with that id, in order.
func (m Merchant) Template(id string) [][]Field {
	var found [][]Field
	for _, f := range m.Fields {
		if inner, err := splitFields(f.Value); f.ID == id && isTemplate(id) && err == nil {
			found = append(found, inner)
		}
	}
	return found
}

func fieldValue(fields []Field, id string) (string, bool) {
	for _, f := range fields {
		if f.ID == id {
			return f.Value, true
		}
	}
	return "", false
}

// splitFields divides text into fields and leaves nothing over. It fails on an empty text.
func splitFields(text string) ([]Field, error) {
	if text == "" || len(text) > maxText {
		return nil, fmt.Errorf("%w: length", ErrEMVCo)
	}
	var fields []Field
	for at := 0; at < len(text); {
		f, next, ok := nextField(text, at)
		if !ok || len(fields) == maxFields {
			return nil, fmt.Errorf("%w: field at %d", ErrEMVCo, at)
		}
		fields = append(fields, f)
		at = next
	}
	return fields, nil
}

// nextField reads the field whose id stands at byte offset at, and returns where the next one begins.
func nextField(text string, at int) (f Field, next int, ok bool) {
	if len(text)-at < 4 || !allDigits(text[at:at+4]) {
		return Field{}, 0, false
	}
	length := int(text[at+2]-'0')*10 + int(text[at+3]-'0')
	end := at + 4
	for ; length > 0; length-- {
		if end >= len(text) {
			return Field{}, 0, false
		}
		_, size := utf8.DecodeRuneInString(text[end:])
		end += size
	}
	return Field{ID: text[at : at+2], Value: text[at+4 : end], At: at}, end, true
}

// appendField writes one field. The value is ASCII and at most 99 characters; its callers check that.
func appendField(b []byte, id, value string) []byte {
	return fmt.Appendf(b, "%s%02d%s", id, len(value), value)
}

// crc16 is CRC-16/CCITT-FALSE: polynomial 1021, start FFFF, nothing reflected or inverted ("123456789" gives 29B1).
func crc16(b []byte) uint16 {
	crc := uint16(0xFFFF)
	for _, c := range b {
		crc ^= uint16(c) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}

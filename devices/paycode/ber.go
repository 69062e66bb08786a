package paycode

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// The data objects of a consumer-presented code that this package knows by name (EMVCo CPM, table 4).
const (
	tagFormat      = 0x85 // payload format indicator, "CPV01"
	tagApplication = 0x61
	tagAID         = 0x4F
	tagLabel       = 0x50
)

// TLV is one BER data object: its tag as it stands (one to three bytes, big-endian), its value, and for a constructed tag
// the objects inside.
type TLV struct {
	Tag      uint32
	Value    []byte
	Children []TLV
}

// Consumer is a consumer-presented code, with every data object kept in its order, known or not.
type Consumer struct{ Objects []TLV }

// Application is one application template of a consumer-presented code.
type Application struct {
	AID   []byte
	Label string // printable ASCII only, at most 16 characters; may be empty
}

// ParseConsumer reads any conforming consumer-presented code: base64 (either alphabet, padded or not) of BER objects, the
// format indicator first. It is the tolerant reader, for naming foreign codes; ours are read by [ParseSigned] and
// [ParseReceipt].
func ParseConsumer(text string) (Consumer, error) {
	raw, err := decodeTolerant(text)
	if err != nil {
		return Consumer{}, err
	}
	budget := maxFields
	objects, err := parseBER(raw, 0, &budget)
	if err != nil {
		return Consumer{}, err
	}
	if len(objects) == 0 || objects[0].Tag != tagFormat || string(objects[0].Value) != "CPV01" {
		return Consumer{}, fmt.Errorf("%w: does not begin with CPV01", ErrEMVCo)
	}
	return Consumer{Objects: objects}, nil
}

func decodeTolerant(text string) ([]byte, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("%w: length", ErrEMVCo)
	}
	plain := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	raw, err := base64.RawStdEncoding.DecodeString(plain)
	if err != nil {
		return nil, fmt.Errorf("%w: not base64", ErrEMVCo)
	}
	return raw, nil
}

// Applications returns the application templates in their order.
func (c Consumer) Applications() []Application {
	var found []Application
	for _, o := range c.Objects {
		if o.Tag != tagApplication {
			continue
		}
		var a Application
		for _, in := range o.Children {
			switch in.Tag {
			case tagAID:
				a.AID = in.Value
			case tagLabel:
				a.Label = printable(string(in.Value), 16)
			}
		}
		found = append(found, a)
	}
	return found
}

// printable keeps the printable ASCII of s, at most n characters, so that a foreign label cannot spoil a screen or a log.
func printable(s string, n int) string {
	out := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	return out[:min(n, len(out))]
}

// parseBER reads all objects of b. budget bounds the objects of the whole code, so that no input can make it allocate much.
func parseBER(b []byte, depth int, budget *int) ([]TLV, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%w: nested too deep", ErrEMVCo)
	}
	var objects []TLV
	for len(b) > 0 {
		if *budget--; *budget < 0 {
			return nil, fmt.Errorf("%w: too many data objects", ErrEMVCo)
		}
		o, constructed, rest, err := nextTLV(b)
		if err != nil {
			return nil, err
		}
		if constructed {
			if o.Children, err = parseBER(o.Value, depth+1, budget); err != nil {
				return nil, err
			}
		}
		objects, b = append(objects, o), rest
	}
	return objects, nil
}

// nextTLV reads one object (ISO/IEC 8825-1 §8.1): a tag of up to three bytes, a length of up to four.
func nextTLV(b []byte) (o TLV, constructed bool, rest []byte, err error) {
	fail := func(what string) (TLV, bool, []byte, error) {
		return TLV{}, false, nil, fmt.Errorf("%w: %s", ErrEMVCo, what)
	}
	o.Tag, constructed = uint32(b[0]), b[0]&0x20 != 0
	at := 1
	if b[0]&0x1F == 0x1F {
		for more := true; more; at++ {
			if at >= len(b) || at > 2 {
				return fail("tag")
			}
			o.Tag, more = o.Tag<<8|uint32(b[at]), b[at]&0x80 != 0
		}
	}
	if at >= len(b) {
		return fail("length")
	}
	length := uint64(b[at])
	at++
	if length >= 0x80 {
		n := int(length & 0x7F)
		if n == 0 || n > 4 || len(b)-at < n {
			return fail("length")
		}
		length = 0
		for _, c := range b[at : at+n] {
			length = length<<8 | uint64(c)
		}
		at += n
	}
	if length > uint64(len(b)-at) {
		return fail("value is cut short")
	}
	end := at + int(length)
	o.Value = b[at:end]
	return o, constructed, b[end:], nil
}

package scanner

import (
	"strings"
	"testing"
	"time"
)

// silence in a stream of a test: the line is quiet for the idle time there.
const silence = "\x00idle\x00"

// frames runs a stream through a framer and lists what came out, refusals in
// brackets.
func frames(cfg Config, stream string) []string {
	s := New(cfg, nil, nil)
	f := newFramer(s.cfg)
	var got []string
	take := func(frame []byte, end ending) {
		switch end {
		case pending:
		case complete:
			got = append(got, string(frame))
		default:
			got = append(got, "<"+string(end)+">")
		}
	}
	for i, piece := range strings.Split(stream, silence) {
		if i > 0 {
			take(f.idle())
		}
		for _, c := range []byte(piece) {
			take(f.push(c))
		}
	}
	if end := f.reset(); end != pending {
		got = append(got, "<"+string(end)+">")
	}
	return got
}

func TestFraming(t *testing.T) {
	const broken, bad, long = "<fragment without terminator>", "<control bytes or broken text>", "<too long>"
	stx := Config{Prefix: "\x02", Terminator: "\x03"}
	for _, c := range []struct {
		name   string
		cfg    Config
		stream string
		want   []string
	}{
		{"CR ends a code", Config{}, "123\r", []string{"123"}},
		{"LF ends a code", Config{}, "123\n", []string{"123"}},
		{"CR LF ends one code, not two", Config{}, "123\r\n456\r\n", []string{"123", "456"}},
		{"CR LF ends one code also where only CR is configured", Config{Terminator: "\r"}, "123\r\n456\r\n" + silence, []string{"123", "456"}},
		{"TAB ends a code if it is the terminator", Config{Terminator: "\t"}, "123\t", []string{"123"}},
		{"a terminator that is not configured is a control byte", Config{Terminator: "\t"}, "12\r3\t4\t", []string{bad, "4"}},
		{"terminators alone are nothing", Config{}, "\r\n\r\n", nil},
		{"two codes in one read are two scans", Config{}, "1\r2\r", []string{"1", "2"}},
		{"silence breaks a code off and the next stands alone", Config{}, "1316" + silence + "99\r", []string{broken, "99"}},
		{"silence after a whole code is nothing", Config{}, "123\r" + silence + silence, []string{"123"}},
		{"without terminators silence ends a code", Config{Terminator: NoTerminator}, "123" + silence + "456" + silence, []string{"123", "456"}},
		{"without terminators CR is a control byte", Config{Terminator: NoTerminator}, "123\r" + silence, []string{bad}},
		{"a code with a control byte is refused whole", Config{}, "12\x0034\r56\r", []string{bad, "56"}},
		{"a code with DEL is refused whole", Config{}, "12\x7F\r", []string{bad}},
		{"a refused code that is broken off keeps its reason", Config{}, "1\x012" + silence + "5\r", []string{bad, "5"}},
		{"a prefix begins a code", stx, "\x02123\x03\x02456\x03", []string{"123", "456"}},
		{"a prefix breaks off what stood before it", stx, "12\x02456\x03", []string{broken, "456"}},
		{"the longest code passes", Config{MaxBytes: 5}, "12345\r", []string{"12345"}},
		{"a longer code is refused whole", Config{MaxBytes: 5}, "123456789\r12\r", []string{long, "12"}},
		{"the end of the line breaks a code off", Config{}, "12", []string{broken}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := frames(c.cfg, c.stream)
			if strings.Join(got, "|") != strings.Join(c.want, "|") {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestAIM(t *testing.T) {
	for _, c := range []struct{ name, in, symbology, text string }{
		{"none", "131234567890123456", "", "131234567890123456"},
		{"QR", "]Q1hello", "]Q1", "hello"},
		{"Code 128", "]C0131234", "]C0", "131234"},
		{"EAN-13", "]E06901234567892", "]E0", "6901234567892"},
		{"a bracket that is no identifier", "]1x", "", "]1x"},
		{"a bracket alone", "]", "", "]"},
		{"ECI escapes are undone", `]Q2\000026a\\b`, "]Q2", `a\b`},
		{"a backslash without ECI stays", `]Q1a\\b`, "]Q1", `a\\b`},
		{"an ECI escape cut short stays", `]Q2\00002`, "]Q2", `\00002`},
	} {
		t.Run(c.name, func(t *testing.T) {
			symbology, text := splitAIM(c.in)
			if symbology != c.symbology || text != c.text {
				t.Errorf("got %q %q, want %q %q", symbology, text, c.symbology, c.text)
			}
		})
	}
}

func TestOnlyQRAndCode128MayPay(t *testing.T) {
	for symbology, want := range map[string]bool{
		"": true, "]Q0": true, "]Q1": true, "]Q2": true, "]C0": true,
		"]C1": false, "]E0": false, "]d1": false, "]A0": false, "]L0": false,
	} {
		if got := (Scan{Symbology: symbology}).MayPay(); got != want {
			t.Errorf("%q: %v", symbology, got)
		}
	}
}

// Whatever comes down the line, a frame is a piece of it between terminators,
// within the limit and without control bytes.
func FuzzFraming(f *testing.F) {
	f.Add([]byte("]Q1hello\r\n]C0131234567890123456\r"), 3)
	f.Add([]byte("\x0212\x0034\x03"), 0)
	f.Add([]byte{0x80, 0xFF, '\r', 0x1B}, 1)
	f.Fuzz(func(t *testing.T, stream []byte, pause int) {
		s := New(Config{MaxBytes: 64, Idle: time.Millisecond}, nil, nil)
		fr := newFramer(s.cfg)
		check := func(frame []byte, end ending) {
			if end == complete && (len(frame) == 0 || len(frame) > 64) {
				t.Fatalf("frame of %d bytes", len(frame))
			}
			if end != complete && frame != nil {
				t.Fatalf("refused frame %q was returned", frame)
			}
			for _, c := range frame {
				if c < 0x20 || c == 0x7F {
					t.Fatalf("control byte in %q", frame)
				}
			}
			s.finish(frame, end, time.Time{})
		}
		for i, c := range stream {
			check(fr.push(c))
			if pause > 0 && i%pause == 0 {
				check(fr.idle())
			}
		}
		check(fr.idle())
	})
}

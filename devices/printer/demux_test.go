package printer

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"yupos/devices/serial"
)

// told is what a stream of reply bytes means, in words of the test.
func told(stream []byte) string {
	var d demux
	var out []string
	for _, c := range stream {
		switch r := d.push(c).(type) {
		case nil:
		case flowReply:
			out = append(out, map[bool]string{true: "XOFF", false: "XON"}[r.stop])
		case eotReply:
			out = append(out, fmt.Sprintf("eot:%02X", r.b))
		case asbReply:
			out = append(out, fmt.Sprintf("asb:%X", r.b))
		case queuedReply:
			out = append(out, fmt.Sprintf("queued:%02X", r.b))
		case idReply:
			out = append(out, "id:"+r.id)
		}
	}
	if d.noise > 0 {
		out = append(out, fmt.Sprintf("noise:%d", d.noise))
	}
	return strings.Join(out, " ")
}

func TestRepliesAreToldApart(t *testing.T) {
	for _, c := range []struct {
		name   string
		stream string
		want   string
	}{
		{"flow control", "\x13\x11", "XOFF XON"},
		{"answers in real time", "\x12\x16\x1A\x32\x72", "eot:12 eot:16 eot:1A eot:32 eot:72"},
		{"an automatic block", "\x14\x00\x00\x0F", "asb:1400000F"},
		{"two blocks", "\x10\x00\x00\x0F\x1C\x00\x0C\x0F", "asb:1000000F asb:1C000C0F"},
		{"queued answers", "\x00\x03\x0C", "queued:00 queued:03 queued:0C"},
		{"a process id", "\x37\x22abcd\x00", "id:abcd"},
		{"a process id of digits and signs", "\x37\x22 2r~\x00", "id: 2r~"},
		{"flow control inside a block", "\x14\x13\x00\x00\x11\x0F", "XOFF XON asb:1400000F"},
		{"flow control inside a process id", "\x37\x22a\x13bcd\x11\x00", "XOFF XON id:abcd"},
		{"a real-time answer inside a block", "\x14\x00\x16\x00\x0F", "eot:16 asb:1400000F"},
		{"a real-time answer inside a process id", "\x37\x22ab\x12cd\x00", "eot:12 id:abcd"},
		{"a block that was cut off", "\x14\x00\x10\x00\x00\x0F", "asb:1000000F noise:2"},
		{"a block cut off by a process id", "\x14\x37\x22abcd\x00", "id:abcd noise:1"},
		{"the answer to another process", "\x37\x23abcd\x00", ""},
		{"a process id of the wrong length", "\x37\x22abc\x00\x00", "queued:00"},
		{"the printer's name", "\x5FEPSON\x00\x5FTM-T88V\x00\x12", "eot:12"},
		{"a block without end", "\x5F" + strings.Repeat("A", 300) + "\x00\x12", "queued:41 queued:41"},
		{"noise of a wrong baud rate", "\x80\xFE\xE6\x12", "eot:12 noise:3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := told([]byte(c.stream))
			if c.name == "a block without end" { // bounded, and found again
				if !strings.HasPrefix(got, c.want) || !strings.Contains(got, "eot:12") {
					t.Errorf("got %q", got)
				}
				return
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// Whatever comes, memory is bounded and the printer is understood again after
// at most a block's length of silence-filling zeros.
func FuzzReplies(f *testing.F) {
	f.Add([]byte("\x12\x14\x00\x00\x0F\x37\x22abcd\x00\x13\x11\x00"))
	f.Add([]byte{0x5F, 0x10, 0x14, 0x80, 0x37})
	f.Fuzz(func(t *testing.T, stream []byte) {
		var d demux
		for _, c := range stream {
			r := d.push(c)
			if len(d.block) > maxBlock || d.n > 3 {
				t.Fatalf("holds %d and %d bytes", len(d.block), d.n)
			}
			if id, ok := r.(idReply); ok && len(id.id) != 4 {
				t.Fatalf("id %q", id.id)
			}
			if flow, ok := r.(flowReply); ok != (c == 0x11 || c == 0x13) || ok && flow.stop != (c == 0x13) {
				t.Fatalf("%02X is %v", c, r)
			}
		}
		for range 4 { // ends whatever is open
			d.push(0)
		}
		if r := d.push(0x12); r != (eotReply{0x12}) {
			t.Fatalf("then 12 is %v", r)
		}
		if got := told(append(bytes.Clone(stream), 0, 0, 0, 0, 0x37, 0x22, 'a', 'b', 'c', 'd', 0)); !strings.Contains(got, "id:abcd") {
			t.Fatalf("then an id is lost: %s", got)
		}
	})
}

func TestStatusBytes(t *testing.T) {
	eot := func(answers ...byte) faults {
		var f faults
		for i, b := range answers {
			f.eot(i+1, b)
		}
		return f
	}
	asb := func(b ...byte) faults {
		var f faults
		f.asb([4]byte(b))
		return f
	}
	for _, c := range []struct {
		name   string
		faults faults
		paper  string
		cover  string
		text   string
		ok     bool
	}{
		{"all well", eot(0x12, 0x12, 0x12, 0x12), PaperOK, CoverClosed, "正常", true},
		{"drawer pin high", eot(0x16, 0x12, 0x12, 0x12), PaperOK, CoverClosed, "正常", true},
		{"offline without a cause", eot(0x1A, 0x12, 0x12, 0x12), PaperOK, CoverClosed, "脱机", false},
		{"cover open", eot(0x1A, 0x16, 0x12, 0x12), PaperOK, CoverOpen, "开盖", false},
		{"stopped by the end of the paper", eot(0x1A, 0x32, 0x12, 0x72), PaperOut, CoverClosed, "缺纸", false},
		{"paper near its end", eot(0x12, 0x12, 0x12, 0x1E), PaperNear, CoverClosed, "纸将尽", true},
		{"cutter", eot(0x1A, 0x52, 0x1A, 0x12), PaperOK, CoverClosed, "切刀故障", false},
		{"head hot", eot(0x1A, 0x52, 0x52, 0x12), PaperOK, CoverClosed, "打印头过热", false},
		{"beyond help", eot(0x1A, 0x52, 0x32, 0x12), PaperOK, CoverClosed, "打印机故障", false},
		{"an error without a cause", eot(0x1A, 0x52, 0x12, 0x12), PaperOK, CoverClosed, "打印机故障", false},
		{"paper loaded again: the sensor has the last word", eot(0x12, 0x32, 0x12, 0x12), PaperOK, CoverClosed, "正常", true},
		{"block: all well", asb(0x14, 0, 0, 0x0F), PaperOK, CoverClosed, "正常", true},
		{"block: end of paper", asb(0x1C, 0, 0x0C, 0x0F), PaperOut, CoverClosed, "缺纸", false},
		{"block: near end", asb(0x10, 0, 0x03, 0x0F), PaperNear, CoverClosed, "纸将尽", true},
		{"block: cover", asb(0x38, 0, 0, 0x0F), PaperOK, CoverOpen, "开盖", false},
		{"block: cutter", asb(0x18, 0x08, 0, 0x0F), PaperOK, CoverClosed, "切刀故障", false},
		{"block: head hot", asb(0x18, 0x40, 0, 0x0F), PaperOK, CoverClosed, "打印头过热", false},
		{"block: beyond help", asb(0x18, 0x20, 0, 0x0F), PaperOK, CoverClosed, "打印机故障", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := statusOf(serial.State{Connected: true}, true, c.faults, 0)
			if s.Paper != c.paper || s.Cover != c.cover || !strings.HasPrefix(s.Text, c.text) || s.OK != c.ok || s.TextEN == "" {
				t.Errorf("got %+v", s)
			}
			if (c.faults.err() == nil) != c.ok {
				t.Errorf("err %v", c.faults.err())
			}
		})
	}
}

func TestFenceIDsArePrintableAndDoNotRepeat(t *testing.T) {
	p := New(Config{}, serial.New(serial.Config{}, nil), nil)
	p.fenceNo = 1<<32 - 500 // over the edge of the number, too
	seen := map[string]bool{}
	for range 1000 {
		id := p.nextFence()
		if len(id) != 4 || seen[id] || strings.ContainsFunc(id, func(r rune) bool { return r < 32 || r > 126 }) {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
	}
}

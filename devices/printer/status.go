package printer

import "yupos/devices/serial"

// Words of [Status].Paper and [Status].Cover.
const (
	PaperOK      = "ok"
	PaperNear    = "near"
	PaperOut     = "out"
	PaperUnknown = "unknown"
	CoverClosed  = "closed"
	CoverOpen    = "open"
	CoverUnknown = "unknown"
)

// Status is what is known about the printer, ready to be shown to a person.
type Status struct {
	State        serial.State // of the line
	Paper        string       // ok, near, out, unknown
	Cover        string       // closed, open, unknown
	Offline      bool         // the printer says so, whatever the cause
	Hot          bool         // the head cools down by itself
	CutterFault  bool
	Fault        bool // any other error of the printer
	Drawer       bool // the level of the drawer's pin; which one means open differs by drawer
	Queued       int  // jobs waiting, the present one included
	Text, TextEN string
	// OK says that a job sent now should come out.
	OK bool
}

// faults are the bits of the printer's own reports, whichever report they came
// in.
type faults struct {
	offline, cover, paperOut, paperNear, cutter, hot, fault, drawer bool
}

// stop says whether the printer will not print as it is.
func (f faults) stop() bool {
	return f.offline || f.cover || f.paperOut || f.cutter || f.hot || f.fault
}

// words names the one trouble to see to first.
func (f faults) words() (zh, en string) {
	switch {
	case f.cover:
		return "开盖：请合上打印机盖", "cover open: close it"
	case f.paperOut:
		return "缺纸：请装纸", "out of paper: load paper"
	case f.cutter:
		return "切刀故障：请清除卡纸后重新开机", "cutter jam: clear it and switch off and on"
	case f.hot:
		return "打印头过热：请稍候", "print head hot: wait"
	case f.fault:
		return "打印机故障：请重新开机", "printer fault: switch off and on"
	case f.offline:
		return "脱机：请检查打印机", "offline: check the printer"
	case f.paperNear:
		return "纸将尽：请备纸", "paper near end: have paper ready"
	}
	return "正常", "ready"
}

// eot takes the answer to DLE EOT n, n from 1 to 4.
func (f *faults) eot(n int, b byte) {
	switch n {
	case 1: // printer
		f.drawer = b&0x04 != 0
		f.offline = b&0x08 != 0
	case 2: // cause of being offline
		f.cover = b&0x04 != 0
		f.paperOut = f.paperOut || b&0x20 != 0 // n=4 has the last word
		f.fault = b&0x40 != 0
	case 3: // cause of an error
		f.cutter = b&0x08 != 0
		f.hot = b&0x40 != 0
		f.fault = b&0x24 != 0 || f.fault && !f.cutter && !f.hot // n=2 says error, this says which
	case 4: // paper
		f.paperNear = b&0x0C != 0
		f.paperOut = b&0x60 != 0
	}
}

// asb takes an automatic status block (GS a).
func (f *faults) asb(b [4]byte) {
	*f = faults{
		drawer:    b[0]&0x04 != 0,
		offline:   b[0]&0x08 != 0,
		cover:     b[0]&0x20 != 0,
		cutter:    b[1]&0x08 != 0,
		hot:       b[1]&0x40 != 0,
		fault:     b[1]&0x24 != 0,
		paperNear: b[2]&0x03 != 0,
		paperOut:  b[2]&0x0C != 0,
	}
}

// queued takes the answer to GS r 1. An end of paper never gets here: the
// printer does not come to the command.
func (f *faults) queued(b byte) {
	f.paperNear = b&0x03 != 0
}

// statusOf joins line and reports.
func statusOf(line serial.State, known bool, f faults, queued int) Status {
	s := Status{State: line, Paper: PaperUnknown, Cover: CoverUnknown, Queued: queued}
	if !line.Connected {
		s.Text, s.TextEN = line.Text, line.TextEN
		return s
	}
	if !known {
		s.Text, s.TextEN = "打印机无应答：请检查电源和波特率", "printer does not answer: check power and baud rate"
		return s
	}
	s.Paper, s.Cover = PaperOK, CoverClosed
	if f.paperNear {
		s.Paper = PaperNear
	}
	if f.paperOut {
		s.Paper = PaperOut
	}
	if f.cover {
		s.Cover = CoverOpen
	}
	s.Offline, s.Hot, s.CutterFault, s.Fault, s.Drawer = f.offline, f.hot, f.cutter, f.fault, f.drawer
	s.Text, s.TextEN = f.words()
	s.OK = !f.stop()
	return s
}

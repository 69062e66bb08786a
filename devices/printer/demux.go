package printer

// demux tells apart the replies that a printer sends on one line, by their fixed
// bits (Epson, ESC/POS command reference, "transmitted status"):
//
//	0x11, 0x13           XON, XOFF
//	0xx1xx10             answer to DLE EOT, at once
//	0xx1xx00 + 3×0xx0    automatic status block
//	0xx0xxxx             answer to GS r, in the order of the queue
//	0x35 37 3B 3D 5F …00 block; 37 22 d1 d2 d3 d4 is a process id
//
// It has no clock. Any bytes may come in: what fits nothing is counted.
type demux struct {
	asb   [4]byte
	n     int // bytes of asb so far
	block []byte
	noise int
}

const maxBlock = 128 // the longest block of the manuals has 80 bytes

// reply is one of the events below.
type reply any

type (
	flowReply   struct{ stop bool }
	eotReply    struct{ b byte }
	asbReply    struct{ b [4]byte }
	queuedReply struct{ b byte }
	idReply     struct{ id string }
)

// push takes one byte and returns the reply that it completes, or nil.
func (d *demux) push(b byte) reply {
	// Flow control may interrupt anything: no other reply contains these bytes.
	if b == 0x11 || b == 0x13 {
		return flowReply{stop: b == 0x13}
	}
	if d.block != nil {
		return d.inBlock(b)
	}
	if d.n > 0 {
		if b&0x90 == 0 {
			return d.inASB(b)
		}
		if b&0x93 == 0x12 {
			return eotReply{b} // real time: may interrupt the block
		}
		d.noise += d.n // the block was cut off; b begins something new
		d.n = 0
	}
	switch {
	case b&0x93 == 0x12:
		return eotReply{b}
	case b&0x93 == 0x10:
		d.asb[0], d.n = b, 1
	case b&0x90 == 0:
		return queuedReply{b}
	case header(b):
		d.block = append(make([]byte, 0, 16), b)
	default:
		d.noise++
	}
	return nil
}

func header(b byte) bool {
	switch b {
	case 0x35, 0x37, 0x3B, 0x3D, 0x5F:
		return true
	}
	return false
}

func (d *demux) inASB(b byte) reply {
	d.asb[d.n] = b
	if d.n++; d.n < len(d.asb) {
		return nil
	}
	d.n = 0
	return asbReply{d.asb}
}

// inBlock collects printable bytes up to NUL.
func (d *demux) inBlock(b byte) reply {
	switch {
	case b == 0:
		block := d.block
		d.block = nil
		if len(block) == 6 && block[0] == 0x37 && block[1] == 0x22 {
			return idReply{string(block[2:])}
		}
		return nil
	case b < 0x20 && b&0x93 == 0x12:
		return eotReply{b}
	case b < 0x20 || b >= 0x80 || len(d.block) == maxBlock:
		d.noise += len(d.block)
		d.block = nil
		return d.push(b)
	}
	d.block = append(d.block, b)
	return nil
}

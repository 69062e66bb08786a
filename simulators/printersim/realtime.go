package printersim

import "bytes"

// Real-time commands act when they arrive, wherever they stand: behind a full buffer, with the cover open, in the middle of
// a picture. They stay in the stream too, so inside another command they are its data as well (ESC/POS, DLE EOT: "executed
// even when the data string is part of another command").

// tail is the end of the received stream, long enough for the longest of them.
type tail struct{ last [10]byte }

func (t *tail) push(b byte) {
	copy(t.last[:], t.last[1:])
	t.last[len(t.last)-1] = b
}

func (t *tail) ends(with ...byte) bool { return bytes.HasSuffix(t.last[:], with) }

// argument is the last byte if what stands before it is the given command.
func (t *tail) argument(command ...byte) (byte, bool) {
	n := len(t.last) - 1
	return t.last[n], bytes.HasSuffix(t.last[:n], command)
}

// realTime acts on the byte that has just arrived. The caller holds the lock.
func (p *Printer) realTime(b byte) {
	p.tail.push(b)
	if p.tail.ends(0x10, 0x14, 0x08, 0x01, 0x03, 0x14, 0x01, 0x06, 0x02, 0x08) { // DLE DC4 8: clear the buffers
		p.clear()
		p.reply(0x37, 0x25, 0x00)
	}
	if n, ok := p.tail.argument(0x10, 0x04); ok && n >= 1 && n <= 4 { // DLE EOT n
		p.reply(p.sensors.realTime(n))
	}
	for connector := byte(0); connector <= 1; connector++ { // DLE DC4 1 m t: a pulse now
		if t, ok := p.tail.argument(0x10, 0x14, 0x01, connector); ok && t >= 1 && t <= 8 && p.pulses {
			p.kick()
		}
	}
}

package printersim

// How long a command is. Knowing it for every command, also for those that do nothing here, is what keeps a printer from
// printing arguments as text.

// maxPicture is the most that one command may carry, in bytes.
const maxPicture = 2 << 20

// Lengths of commands with a fixed number of bytes, by their second byte.
var escLength = map[byte]int{
	0x20: 3, 0x21: 3, 0x24: 4, 0x25: 3, 0x2D: 3, 0x32: 2, 0x33: 3, 0x3C: 2, 0x3D: 3, 0x3F: 3, 0x40: 2, 0x45: 3, 0x47: 3,
	0x4A: 3, 0x4B: 3, 0x4D: 3, 0x52: 3, 0x54: 3, 0x55: 3, 0x56: 3, 0x5C: 4, 0x61: 3, 0x63: 4, 0x64: 3, 0x65: 3, 0x69: 2,
	0x6D: 2, 0x70: 5, 0x72: 3, 0x74: 3, 0x75: 3, 0x76: 2, 0x7B: 3,
}

var fsLength = map[byte]int{0x21: 3, 0x26: 2, 0x2D: 3, 0x2E: 2, 0x43: 3, 0x53: 4, 0x57: 3, 0x70: 4}

var gsLength = map[byte]int{
	0x21: 3, 0x42: 3, 0x45: 3, 0x48: 3, 0x49: 3, 0x4C: 4, 0x50: 4, 0x57: 4, 0x5C: 4, 0x61: 3, 0x62: 3, 0x66: 3, 0x68: 3,
	0x72: 3, 0x77: 3,
}

// need answers how many bytes the command that begins with b has, as far as b shows: a result above len(b) means "at least
// so many, ask again then", a result up to len(b) is the length, 0 means that no command begins so. b is never empty.
func need(b []byte, kanji bool) int {
	switch c := b[0]; {
	case c == 0x10:
		return needDLE(b)
	case c == 0x1B:
		return needESC(b)
	case c == 0x1C:
		return needFS(b)
	case c == 0x1D:
		return needGS(b)
	case c == 0x0A || c == 0x0D || c == 0x09 || c == 0x00:
		return 1
	case c < 0x20 || c == 0x7F:
		return 0
	case kanji && c >= 0x81 && c <= 0xFE:
		return needHanzi(b)
	}
	return 1
}

// needHanzi knows the forms of GB18030: the second byte tells two from four.
func needHanzi(b []byte) int {
	if len(b) < 2 {
		return 2
	}
	switch c := b[1]; {
	case c >= 0x30 && c <= 0x39:
		return 4
	case c >= 0x40 && c <= 0xFE && c != 0x7F:
		return 2
	}
	return 0
}

func needDLE(b []byte) int {
	if len(b) < 2 {
		return 2
	}
	switch b[1] {
	case 0x04:
		if len(b) > 2 && (b[2] == 7 || b[2] == 8) {
			return 4
		}
		return 3
	case 0x05:
		return 3
	case 0x14:
		if len(b) < 3 {
			return 3
		}
		switch b[2] {
		case 8:
			return 10
		case 1, 2, 3, 7:
			return 5
		}
	}
	return 0
}

func needESC(b []byte) int {
	if len(b) < 2 {
		return 2
	}
	switch b[1] {
	case 0x2A: // ESC * m nL nH d…
		if len(b) < 5 {
			return 5
		}
		return 5 + le16(b[3:])*columnBytes(b[2])
	case 0x44: // ESC D n… NUL
		return upToNUL(b, 2, 34)
	case 0x28:
		return withLength(b)
	}
	return escLength[b[1]]
}

func needFS(b []byte) int {
	if len(b) < 2 {
		return 2
	}
	if b[1] == 0x28 {
		return withLength(b)
	}
	return fsLength[b[1]]
}

func needGS(b []byte) int {
	if len(b) < 2 {
		return 2
	}
	if n, fixed := gsLength[b[1]]; fixed {
		return n
	}
	if len(b) < 3 {
		return 3 * int(when(gsLong(b[1]), 1))
	}
	switch b[1] {
	case 0x28:
		return withLength(b)
	case 0x38: // GS 8 L p1 p2 p3 p4
		if len(b) < 7 {
			return 7
		}
		return 7 + le16(b[3:]) + le16(b[5:])<<16
	case 0x76: // GS v 0 m xL xH yL yH d…
		if len(b) < 8 {
			return 8
		}
		return 8 + le16(b[4:])*le16(b[6:])
	case 0x56: // GS V m, or m n
		if b[2] >= 65 {
			return 4
		}
		return 3
	case 0x6B: // GS k m …
		if b[2] < 65 {
			return upToNUL(b, 3, 260)
		}
		if len(b) < 4 {
			return 4
		}
		return 4 + int(b[3])
	}
	return 0
}

// gsLong says whether a GS command tells its length only behind its second byte.
func gsLong(c byte) bool { return c == 0x28 || c == 0x38 || c == 0x76 || c == 0x56 || c == 0x6B }

// withLength reads the form X ( Y pL pH.
func withLength(b []byte) int {
	if len(b) < 5 {
		return 5
	}
	return 5 + le16(b[3:])
}

// upToNUL finds the end of arguments that a NUL closes; beyond the limit there is none.
func upToNUL(b []byte, from, limit int) int {
	for i := from; i < len(b); i++ {
		if b[i] == 0 {
			return i + 1
		}
	}
	if len(b) >= limit {
		return 0
	}
	return len(b) + 1
}

// columnBytes is the number of bytes a column has in mode m of ESC *.
func columnBytes(m byte) int {
	if m == 32 || m == 33 {
		return 3
	}
	return 1
}

func le16(b []byte) int { return int(b[0]) | int(b[1])<<8 }

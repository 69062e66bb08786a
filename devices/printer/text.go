package printer

import (
	"strings"
	"unicode"

	"golang.org/x/text/encoding/simplifiedchinese"
)

// folds replaces characters that GB18030 writes with four bytes, which most
// printers answer with garbage, by ones that they have. U+00A5 is the one that
// matters: it is how a keyboard writes ￥.
var folds = map[rune]string{
	'¥': "￥", '−': "-", '‑': "-", '〜': "～", '•': "·", '✓': "√", '✔': "√", '✗': "×", '✘': "×",
	'®': "(R)", '™': "(TM)", '©': "(C)", '«': "《", '»': "》", '⑪': "(11)", '⑫': "(12)",
	'\u00A0': " ", '\u2002': " ", '\u2003': "　", '\u2009': " ", '\u202F': " ", '\t': " ",
	'¼': "1/4", '½': "1/2", '¾': "3/4", '₤': "￡", '₩': "W", '‚': ",", '„': "“",
}

// tofu stands for a character that the printer does not have.
const tofu = '□'

// fold makes text that the printer can print: one of the folds, or what its font
// has, or □. Controls, joiners and variation selectors fall away; "\n" stays.
func fold(s string, fourByte bool) string {
	var out strings.Builder
	for _, r := range s {
		switch replacement, ok := folds[r]; {
		case ok:
			out.WriteString(replacement)
		case r == '\n', r >= ' ' && r < 0x7F:
			out.WriteRune(r)
		case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Mn, unicode.Me, unicode.Zl, unicode.Zp):
		case fourByte && r != unicode.ReplacementChar || len(gb18030(string(r))) == 2:
			out.WriteRune(r)
		default:
			out.WriteRune(tofu)
		}
	}
	return out.String()
}

// gb18030 encodes folded text. Each trailing byte is a digit or at least 0x40,
// never a control byte, so text can not fake a command.
func gb18030(s string) []byte {
	b, err := simplifiedchinese.GB18030.NewEncoder().Bytes([]byte(s))
	if err != nil {
		return nil // not reached: GB18030 has all of Unicode, and s is UTF-8
	}
	return b
}

// width is the number of Font A columns of folded text: one for ASCII, two for
// everything else, because that is how wide the printer's Chinese font is.
func width(s string) int {
	n := 0
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

func runeWidth(r rune) int {
	if r < 0x80 {
		return 1
	}
	return 2
}

// wrap cuts folded text into lines of at most columns. It breaks at the last
// space where there is one, else between any two characters.
func wrap(s string, columns int) []string {
	var lines []string
	for _, line := range strings.Split(s, "\n") {
		for width(line) > columns {
			head, tail := breakLine(line, columns)
			lines = append(lines, head)
			line = tail
		}
		lines = append(lines, line)
	}
	return lines
}

func breakLine(line string, columns int) (head, tail string) {
	cut, space, used := 0, -1, 0
	for i, r := range line {
		if used += runeWidth(r); used > columns {
			// A space that just does not fit ends the line.
			if r == ' ' {
				space = i
			}
			cut = i
			break
		}
		if r == ' ' {
			space = i
		}
	}
	if space > 0 && width(line[:space])*2 >= columns { // never a nearly empty line
		cut = space
	}
	if cut == 0 {
		cut = len(string([]rune(line)[:1])) // one character wider than the paper
	}
	return strings.TrimRight(line[:cut], " "), strings.TrimLeft(line[cut:], " ")
}

// spread lays left and right out on lines of columns: right stands at the right
// edge of the last one. Spaces and not positions make the gap: every printer and
// every reader of the bytes agrees on them, as Font A and its Chinese font are
// exactly one and two columns wide.
func spread(left, right string, columns int) []string {
	left = strings.ReplaceAll(left, "\n", " ")
	right = strings.ReplaceAll(right, "\n", " ")
	rights := wrap(right, columns)
	right = rights[len(rights)-1]
	lines := append(wrap(left, columns), rights[:len(rights)-1]...)
	last := lines[len(lines)-1]
	if len(rights) > 1 || width(last)+1+width(right) > columns && last != "" {
		lines, last = append(lines, ""), ""
	}
	gap := max(0, columns-width(last)-width(right))
	lines[len(lines)-1] = last + strings.Repeat(" ", gap) + right
	return lines
}

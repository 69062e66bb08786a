package display

import (
	"fmt"
	"strings"
)

const maxField = 512 // bytes of one field; the longest pay code has 328

// encode returns the lines that bring a screen of the Bonrix family from one
// state to another: a command word, fields after "**", LF, UTF-8. A code that
// was shown is cancelled by name before a state that is not its result, because
// some screens keep it otherwise and a phone could still read it.
func encode(from string, s Show) string {
	amount := clean(s.AmountText)
	if amount == "" {
		amount = yuan(s.AmountFen)
	}
	switch s.State {
	case Amount:
		return cancel(from) + command("DisplayAmountScreen", amount)
	case Code:
		if s.Code == "" || clean(s.Code) != s.Code {
			// Not to be said in this protocol: better no code than another one.
			return cancel(from) + command("DisplayAmountScreen", amount)
		}
		return command("DisplayQRCodeScreen", s.Code, amount, clean(s.TradeTail))
	case Confirm:
		return command("DisplayConfirmScreen", amount)
	case Paid:
		return command("DisplaySuccessQRCodeScreen", amount)
	case Failed:
		return command("DisplayFailQRCodeScreen", amount)
	case Paused:
		return cancel(from) + command("DisplayPausedScreen")
	}
	return cancel(from) + command("WelcomeScreen", clean(s.Shop))
}

func cancel(from string) string {
	if from == Code {
		return command("DisplayCancelQRCodeScreen")
	}
	return ""
}

func command(word string, fields ...string) string {
	return strings.Join(append([]string{word}, fields...), "**") + "\n"
}

// clean takes out of a field what would end it or its line, and cuts a long one
// between characters.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7F {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	for strings.Contains(s, "**") {
		s = strings.ReplaceAll(s, "**", "*")
	}
	for len(s) > maxField {
		cut := maxField
		for cut > 0 && s[cut]&0xC0 == 0x80 {
			cut--
		}
		s = s[:cut]
	}
	// A star at an edge would join the separator.
	return strings.Trim(s, "*")
}

// yuan writes fen as a screen wants it: 1250 is 12.50.
func yuan(fen int64) string {
	sign := ""
	if fen < 0 {
		sign, fen = "-", -fen
	}
	return fmt.Sprintf("%s%d.%02d", sign, fen/100, fen%100)
}

package paycode

import (
	"errors"
	"fmt"
)

// ErrField says that a value cannot stand in the code that was to be made. It is wrapped with the name of the field.
var ErrField = errors.New("paycode: value does not fit the code")

func badField(name string) error { return fmt.Errorf("%w: %s", ErrField, name) }

const (
	onlinePrefix = "86"
	onlineLength = 18
)

// Luhn returns the check digit (ISO/IEC 7812-1, mod 10) that follows digits. ok is false unless all are decimal digits.
func Luhn(digits string) (check byte, ok bool) {
	if !allDigits(digits) {
		return 0, false
	}
	sum := 0
	for i := range len(digits) {
		d := int(digits[len(digits)-1-i] - '0')
		if i%2 == 0 { // the rightmost digit stands beside the check digit and is doubled
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return '0' + byte((10-sum%10)%10), true
}

// MakeOnline makes an ONLINE code from 15 random digits.
func MakeOnline(random15 string) (string, error) {
	body := onlinePrefix + random15
	check, ok := Luhn(body)
	if !ok || len(body) != onlineLength-1 {
		return "", badField("random digits")
	}
	return body + string(check), nil
}

// CheckOnline judges text as an ONLINE code: [OK] or [Malformed].
func CheckOnline(text string) Reason {
	if len(text) != onlineLength || text[:2] != onlinePrefix {
		return Malformed
	}
	if check, ok := Luhn(text[:onlineLength-1]); !ok || check != text[onlineLength-1] {
		return Malformed
	}
	return OK
}

// allDigits says whether s is one or more ASCII digits.
func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

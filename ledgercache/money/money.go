// Package money holds exact amounts of Chinese yuan as whole fen.
//
// Guarantees: an amount is an integer number of fen and nothing else; floating point never appears; every sum that could
// leave the range is an error, never a wrapped number; the only currency is CNY and any other is refused by its name.
// The package is pure and safe for concurrent use.
package money

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// Fen is an amount of money in fen (1/100 yuan). The zero value is ¥0.00. Negative amounts occur only in accounts and
// differences, never in a payment.
type Fen int64

// Max is the largest amount that one payment may have, in fen: what the uint32 fields of the pay codes can carry
// (¥42,949,672.95).
const Max Fen = math.MaxUint32

// Currency is the only currency of this terminal, as ISO 4217 names it.
const Currency = "CNY"

// Errors of this package. Each is wrapped with the offending value where that helps a person.
var (
	// ErrOverflow says that a sum left the range of int64 fen.
	ErrOverflow = errors.New("money: overflow")
	// ErrRange says that an amount is not one that a payment may have: 1 to Max fen.
	ErrRange = errors.New("money: amount must be from 0.01 to 42949672.95 yuan")
	// ErrSyntax says that a text is no amount of yuan with at most two decimals.
	ErrSyntax = errors.New("money: not an amount in yuan")
	// ErrCurrency says that a currency other than CNY was asked for.
	ErrCurrency = errors.New("money: only CNY is accepted")
)

// CheckPayable returns ErrRange unless f may be the amount of one payment or refund (1 to Max fen).
func (f Fen) CheckPayable() error {
	if f < 1 || f > Max {
		return fmt.Errorf("%w: %d fen", ErrRange, int64(f))
	}
	return nil
}

// Add returns a + b, or ErrOverflow.
func Add(a, b Fen) (Fen, error) {
	s := a + b
	if (a > 0 && b > 0 && s < 0) || (a < 0 && b < 0 && s >= 0) {
		return 0, ErrOverflow
	}
	return s, nil
}

// Sub returns a - b, or ErrOverflow.
func Sub(a, b Fen) (Fen, error) {
	if b == math.MinInt64 {
		return 0, ErrOverflow
	}
	return Add(a, -b)
}

// Sum adds all amounts, or returns ErrOverflow.
func Sum(amounts ...Fen) (Fen, error) {
	var total Fen
	for _, a := range amounts {
		var err error
		if total, err = Add(total, a); err != nil {
			return 0, err
		}
	}
	return total, nil
}

// Share returns f·part/whole rounded half up to a fen, computed exactly in 128 bits. It is how a fee follows a partial
// refund. f, part and whole must not be negative, and part may not exceed whole; anything else is ErrRange.
func Share(f, part, whole Fen) (Fen, error) {
	if f < 0 || part < 0 || whole <= 0 || part > whole {
		return 0, ErrRange
	}
	hi, lo := bits.Mul64(uint64(f), uint64(part))
	lo, carry := bits.Add64(lo, uint64(whole)/2, 0)
	// Half up: an odd whole has no exact half, and (x + whole/2)/whole still rounds x/whole to the nearest integer.
	quotient, _ := bits.Div64(hi+carry, lo, uint64(whole))
	return Fen(quotient), nil
}

// BasisPoints returns f·rate/10000 rounded half up to a fen: the merchant fee of one payment.
func BasisPoints(f Fen, rate int) (Fen, error) {
	if rate < 0 || rate > 10000 {
		return 0, ErrRange
	}
	return Share(f, Fen(rate), 10000)
}

// ParseYuan reads an amount such as "12.5", "12.50", "12" or "¥1,250.00". It takes at most two decimals, no sign, no
// exponent, and thousands separators only where they belong. The result is in range for a payment, or ErrRange.
func ParseYuan(s string) (Fen, error) {
	text := strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(s), "¥"), "￥")
	whole, decimals, hasPoint := strings.Cut(text, ".")
	if hasPoint && (decimals == "" || len(decimals) > 2) {
		return 0, fmt.Errorf("%w: %q", ErrSyntax, s)
	}
	whole, err := withoutSeparators(whole)
	if err != nil || !digitsOnly(whole) || !digitsOnly(decimals) || whole == "" {
		return 0, fmt.Errorf("%w: %q", ErrSyntax, s)
	}
	for len(decimals) < 2 {
		decimals += "0"
	}
	if whole = strings.TrimLeft(whole, "0"); len(whole) > 8 {
		return 0, fmt.Errorf("%w: %q", ErrRange, s)
	}
	n, err := strconv.ParseInt("0"+whole+decimals, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: %q", ErrSyntax, s)
	}
	f := Fen(n)
	return f, f.CheckPayable()
}

// withoutSeparators removes well-placed thousands separators ("1,250") and refuses others ("12,50").
func withoutSeparators(whole string) (string, error) {
	parts := strings.Split(whole, ",")
	for i, p := range parts {
		if i > 0 && len(p) != 3 || i == 0 && len(parts) > 1 && (p == "" || len(p) > 3) {
			return "", ErrSyntax
		}
	}
	return strings.Join(parts, ""), nil
}

func digitsOnly(s string) bool {
	for _, r := range s {
		if r < '0' || r > '9' {
			return false
		}
	}
	return true
}

// Yuan writes f as yuan with two decimals and no sign of currency: "12.50", "-0.05". It is the form of EMVCo tag 54.
func (f Fen) Yuan() string {
	u, sign := uint64(f), ""
	if f < 0 {
		u, sign = -u, "-"
	}
	return fmt.Sprintf("%s%d.%02d", sign, u/100, u%100)
}

// String writes f for a person: "¥12.50".
func (f Fen) String() string {
	if f < 0 {
		return "-¥" + (-f).Yuan()
	}
	return "¥" + f.Yuan()
}

// CheckCurrency returns ErrCurrency, naming the currency, unless code is CNY or empty (the default).
func CheckCurrency(code string) error {
	if code == "" || code == Currency {
		return nil
	}
	return fmt.Errorf("%w, not %q", ErrCurrency, code)
}

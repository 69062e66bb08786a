package paycode

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"

	"yupos/ledgercache/money"
)

// Digits returns the eight confirmation digits that a customer reads out when no scanner is at hand: the dynamic truncation
// of RFC 4226 §5.3 over HMAC-SHA-256, modulo 10^8. Compare them by [SameDigits], and journal the try before
// comparing.
func Digits(secret [32]byte, terminalID, orderULID string, amount money.Fen) (string, error) {
	order, ok := ParseULID(orderULID)
	if !ok {
		return "", badField("order")
	}
	if !isTerminalID(terminalID) {
		return "", badField("terminal id")
	}
	if err := amount.CheckPayable(); err != nil {
		return "", fmt.Errorf("confirmation digits: %w", err)
	}
	mac := hmac.New(sha256.New, secret[:])
	mac.Write([]byte(confirmPrefix + terminalID))
	mac.Write(order[:])
	mac.Write(binary.BigEndian.AppendUint32(nil, uint32(amount)))
	sum := mac.Sum(nil)
	offset := sum[len(sum)-1] & 0x0F
	code := binary.BigEndian.Uint32(sum[offset:]) & 0x7FFF_FFFF
	return fmt.Sprintf("%08d", code%100_000_000), nil
}

// SameDigits compares typed digits with the right ones, in a time that does not tell how many are right.
func SameDigits(typed, want string) bool {
	return len(want) == 8 && subtle.ConstantTimeCompare([]byte(typed), []byte(want)) == 1
}

// isTerminalID says whether s is a terminal id: eight digits.
func isTerminalID(s string) bool { return len(s) == 8 && allDigits(s) }

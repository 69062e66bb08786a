package ledgercache

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"

	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
)

// This file alone spells a key. One letter says what a key leads to; numbers that are ULIDs stand as 16 bytes, so that
// keys sort by time.
var (
	keyApplied    = []byte("a") // journal.Head as appliedMark
	keyMeta       = []byte("i") // how the last process left the cache
	keyCounter    = []byte("c") // trade that has the scanner or the display
	keyShift      = []byte("h") // open shift
	keyCursor     = []byte("u") // how far the ledger holds the journal's head
	keyNews       = []byte("x") // last push of the ledger that was applied
	keyExposure   = []byte("g") // what the terminal has accepted offline and the ledger has not judged → payment.Exposure
	keyDigits     = []byte("y") // times of the tries of typed digits that did not match, since the ledger was reached
	keyPolicy     = []byte("P") // the policy in force → Policy
	keyDenyList   = []byte("N") // the deny list in force → DenyList
	keyPins       = []byte("I") // the ledger's key set → trust.Pins
	keyFees       = []byte("F") // → Fees
	keyOperators  = []byte("O") // → []trust.Operator
	keySignedHead = []byte("T") // → Cursor
	keyTime       = []byte("V") // the last signed time that was kept → trust.TimeMark

	prefixTrade       = []byte("p") // + trade → payment.Payment
	prefixOutTrade    = []byte("n") // + out_trade_no → trade
	prefixOpenTrade   = []byte("o") // + trade → its lane: open and not an upload
	prefixSpent       = []byte("s") // + SHA-256 of a code
	prefixWallet      = []byte("w") // + wallet public key → highest counter
	prefixCertUsed    = []byte("e") // + wallet public key → payment.Exposure: all that was ever accepted under it
	prefixWalletOpen  = []byte("f") // + wallet public key → payment.Exposure: what the ledger has not judged
	prefixUpload      = []byte("v") // + trade → when it was accepted, Unix milliseconds: not judged
	prefixDenied      = []byte("B") // + first byte of a wallet's token → the tokens with it that may not pay offline
	prefixMark        = []byte("M") // + topic of signed news → trust.Mark
	prefixDay         = []byte("d") // + day + trade → row
	prefixAmount      = []byte("A") // + total, 4 bytes + trade
	prefixState       = []byte("S") // + code of a final state that is not SUCCESS + trade
	prefixRefund      = []byte("r") // + refund → payment.Refund
	prefixOutRefund   = []byte("m") // + out_refund_no → refund
	prefixOpenRefund  = []byte("q") // + refund
	prefixTradeRefund = []byte("t") // + trade + refund
	prefixShift       = []byte("H") // + shift → Shift
	prefixPrint       = []byte("j") // + job → PrintJob without its ID
	prefixOpenPrint   = []byte("k") // + job
	prefixAlarm       = []byte("l") // + ULID → Alarm
	prefixDayBook     = []byte("b") // + day → Day
	prefixDayOpen     = []byte("U") // + day: it has figures that stand on no Z
	prefixZ           = []byte("Z") // + number → DayReport
	prefixCarried     = []byte("K") // + shift → Carried: what was open when it closed
)

// Shanghai is the time zone of the bill day.
var Shanghai = payment.BillZone

func key(prefix []byte, parts ...[]byte) []byte {
	k := append([]byte(nil), prefix...)
	for _, p := range parts {
		k = append(k, p...)
	}
	return k
}

// id turns a ULID text into its 16 bytes. A text that is no ULID leads nowhere.
func id(text string) ([]byte, error) {
	u, err := ulid.ParseStrict(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %.26q is no ULID", ErrNotFound, text)
	}
	return u[:], nil
}

func idText(raw []byte) string {
	if len(raw) != 16 {
		return ""
	}
	return ulid.ULID(raw).String()
}

// BizDate is the bill day of p: the day of the ledger's success time in Shanghai, or of its creation while it is unpaid.
func BizDate(p payment.Payment) string {
	return payment.Day(billTime(p))
}

// isDate reports whether text is a day as keys spell it, "2006-01-02".
func isDate(text string) bool {
	day, err := time.Parse(time.DateOnly, text)
	return err == nil && day.Format(time.DateOnly) == text
}

func dayKey(p payment.Payment, trade []byte) []byte {
	return key(prefixDay, []byte(BizDate(p)), trade)
}

func amountKey(total money.Fen, trade []byte) []byte {
	return key(prefixAmount, binary.BigEndian.AppendUint32(nil, uint32(total)), trade) // money.Max is the largest uint32
}

func stateKey(state payment.State, trade []byte) []byte {
	return key(prefixState, []byte{stateCodes[state]}, trade)
}

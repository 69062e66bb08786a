package wire

import "yupos/ledgercache/money"

// Envelope is signed news as codes.md has them. This package never opens one.
type Envelope struct {
	KeyID   string `json:"key_id"`  // 8 lower-case hex digits; a hint only
	Payload []byte `json:"payload"` // the exact bytes that are signed, behind the prefix of their topic
	Sig     []byte `json:"sig"`     // Ed25519, 64 bytes
}

// Topic says what signed news are about; it decides prefix and role of their signature.
type Topic string

// The topics.
const (
	TopicKeys      Topic = "keys"
	TopicPolicy    Topic = "policy"
	TopicDeny      Topic = "deny" // the whole list or a delta
	TopicTime      Topic = "time"
	TopicHead      Topic = "head"
	TopicFees      Topic = "fees"
	TopicOperators Topic = "operators"
)

// MaxParts is in how many frames one envelope may come.
const MaxParts = 128

// News carries one envelope, or one part of the payload of a long one. Pushed by the ledger after the Welcome for what
// Hello.Have lacks, at every change, and as the answer to Want.
type News struct {
	Topic    Topic    `json:"topic"`
	Version  uint32   `json:"version"` // of the envelope, a hint only: the payload says what counts
	Part     int      `json:"part"`    // from 1
	Parts    int      `json:"parts"`
	Envelope Envelope `json:"envelope"`
}

// Want asks for the newest envelope of a topic, whole: after a gap in the deltas, or where it could not be verified.
// Answered by News in parts, all with the same re, or Refused.
type Want struct {
	Topic Topic `json:"topic"`
}

// Time asks for the ledger's signed time.
type Time struct {
	Nonce []byte `json:"nonce"` // 16 fresh random bytes
}

// SignedTime answers Time with the nonce inside the envelope.
type SignedTime struct {
	Envelope Envelope `json:"envelope"`
}

// Maintenance announces that the ledger will close. Pushed; whoever is still connected at StartsAt is disconnected.
type Maintenance struct {
	StartsAt         Millis `json:"starts_at"`
	RetryAfterMillis int64  `json:"retry_after_millis"` // after the end of the connection; spread by the terminal's jitter
	TextZH           string `json:"text_zh,omitempty"`
	TextEN           string `json:"text_en,omitempty"`
}

// Statement asks for one page of the merchant's bill of a day, for this terminal.
type Statement struct {
	Date    string `json:"date"`              // YYYY-MM-DD, Asia/Shanghai
	Version uint32 `json:"version,omitempty"` // of the bill; 0 = the newest
	Page    int    `json:"page"`              // from 1
}

// MaxStatementLines is how many lines a page has at most.
const MaxStatementLines = 100

// StatementPage answers Statement. The sums are of the whole bill and stand on every page.
type StatementPage struct {
	Date     string          `json:"date"`
	Version  uint32          `json:"version"` // from 1; a corrected bill has a higher one
	Page     int             `json:"page"`
	Pages    int             `json:"pages"` // 0 for a day without business
	Count    int             `json:"count"`
	TotalFen money.Fen       `json:"total_fen"` // payments less refunds
	FeeFen   money.Fen       `json:"fee_fen"`
	Lines    []StatementLine `json:"lines"`
}

// The kinds of a StatementLine.
const (
	LinePay     = "PAY"
	LineRefund  = "REFUND"
	LineReverse = "REVERSE"
)

// StatementLine is one movement of the merchant's money, by the ledger's time. Amounts are positive; Kind gives the sign.
type StatementLine struct {
	Kind       string    `json:"kind"`
	LedgerNo   string    `json:"ledger_no"`
	TradeNo    string    `json:"trade_no"`
	OutTradeNo string    `json:"out_trade_no,omitempty"`
	RefundNo   string    `json:"refund_no,omitempty"`
	TotalFen   money.Fen `json:"total_fen"`
	PaidFen    money.Fen `json:"paid_fen"`
	FeeFen     money.Fen `json:"fee_fen"`
	At         Millis    `json:"at"`
	Path       string    `json:"path,omitempty"`
	Bearer     string    `json:"bearer,omitempty"`
}

package wire

import "yupos/ledgercache/money"

// MaxUploads is how many offline payments one Upload may carry. A sender stays below MaxFrame as well, whichever comes first.
const MaxUploads = 64

// Upload brings offline acceptances with their evidence. Idempotent by TradeNo: a repeat gets the first judgement, the
// same number with other bytes is ID_REUSED. Valid at any age.
type Upload struct {
	Items []Acceptance `json:"items"`
}

// Acceptance is one payment that the terminal took offline.
type Acceptance struct {
	TradeNo    string    `json:"trade_no"`
	OutTradeNo string    `json:"out_trade_no"`
	TotalFen   money.Fen `json:"total_fen"`
	Subject    string    `json:"subject,omitempty"`
	OperatorID string    `json:"operator_id,omitempty"`
	Code       Code      `json:"code"`                // the SIGNED text as it was scanned
	Accept     []byte    `json:"accept"`              // ACCEPT evidence: 120 bytes of body, 64 of signature
	Withdrawn  bool      `json:"withdrawn,omitempty"` // taken back before its upload: nothing is to be charged
	Repeat     bool      `json:"repeat,omitempty"`
}

// Uploaded answers Upload: every item stands in it exactly once, judged or refused, in any order.
type Uploaded struct {
	Outcomes []Outcome       `json:"outcomes"`
	Refused  []RefusedUpload `json:"refused,omitempty"`
}

// RefusedUpload is a definite no to one item, as Refused is to a message.
type RefusedUpload struct {
	TradeNo          string `json:"trade_no"`
	Code             string `json:"code"`
	Detail           string `json:"detail,omitempty"`
	RetryAfterMillis int64  `json:"retry_after_millis,omitempty"`
}

// The bearers of an offline payment that was not simply paid (codes.md, ACCEPT).
const (
	BearerLedger   = "ledger"
	BearerMerchant = "merchant"
)

package wire

import (
	"encoding/json"
	"fmt"
	"log/slog"
)

// Enrolment and renewal are HTTPS requests on the ledger's address, not frames (FORMAT.md, Enrolment): they come before
// there is a certificate to say hello with, or are about the certificate itself.

// EnrollProtocol is the ALPN name of a connection without a client certificate. The ledger serves nothing but EnrollPath
// on it, and never enrols on another.
const EnrollProtocol = "yupay-enroll.v1"

// The paths of enrolment, beside Path.
const (
	EnrollPath   = Path + "/enroll"   // POST Enroll → Enrolled, without a client certificate
	RenewPath    = Path + "/renew"    // POST Renew → Renewed, with it
	StandingPath = Path + "/standing" // GET → Standing, with it
)

// MaxEnroll is the longest body of a request or an answer of enrolment, in bytes: a deny list comes over the line.
const MaxEnroll = 256 << 10

// Activation is a one-time activation code. It masks itself wherever it is logged or formatted; only JSON carries it.
type Activation string

// String returns a mask: the length alone.
func (a Activation) String() string { return fmt.Sprintf("activation(%d)", len(a)) }

// GoString masks the code under %#v too.
func (a Activation) GoString() string { return a.String() }

// LogValue masks the code in slog.
func (a Activation) LogValue() slog.Value { return slog.StringValue(a.String()) }

// Private are 32 secret bytes. They mask themselves like an Activation.
type Private []byte

// String returns a mask: the length alone.
func (p Private) String() string { return fmt.Sprintf("private(%d)", len(p)) }

// GoString masks the bytes under %#v too.
func (p Private) GoString() string { return p.String() }

// LogValue masks the bytes in slog.
func (p Private) LogValue() slog.Value { return slog.StringValue(p.String()) }

// Enroll asks to become a terminal of the ledger. Request is a PKCS#10 request for an Ed25519 key, signed with it: the
// proof that the sender has the key. Its subject means nothing. The same Code with the same key is answered the same
// until that key was used on the line.
type Enroll struct {
	Code       Activation `json:"code"`
	Request    []byte     `json:"request"`               // DER
	TerminalID string     `json:"terminal_id,omitempty"` // the code must be for this terminal: the one whose book is here
	Software   string     `json:"software"`
}

// Enrolled is all that a terminal needs to know.
type Enrolled struct {
	TerminalID   string   `json:"terminal_id"` // 8 digits
	Merchant     Merchant `json:"merchant"`
	Certificate  []byte   `json:"certificate"` // DER; its common name is TerminalID, its organisation Merchant.ID
	CA           []byte   `json:"ca"`          // DER; its SHA-256 is what the terminal was told to trust
	URLs         []string `json:"urls"`        // of the line, wss
	Keys         []Pinned `json:"keys"`
	Confirmation Private  `json:"confirmation"`   // 32 bytes: the secret of the confirmation digits
	News         []News   `json:"news,omitempty"` // first signed news, each whole (Part 1 of 1)
	Replayed     bool     `json:"replayed,omitempty"`
}

// Merchant is the shop that a terminal works for.
type Merchant struct {
	ID          string `json:"id"`   // 15 digits
	Name        string `json:"name"` // ASCII, for codes
	DisplayName string `json:"display_name"`
	MCC         string `json:"mcc"` // 4 digits
}

// Pinned is a key that the terminal is to believe (codes.md, Signed news).
type Pinned struct {
	Role      string `json:"role"`
	Public    string `json:"public"`     // 64 hex digits
	NotBefore uint32 `json:"not_before"` // Unix seconds, both included
	NotAfter  uint32 `json:"not_after"`
}

// Renew asks for a new certificate for the key of the present one; Request is signed with it.
type Renew struct {
	Request []byte `json:"request"` // DER
}

// Renewed answers Renew. The certificate before stays valid to its end.
type Renewed struct {
	Certificate []byte `json:"certificate"` // DER
}

// Standing is who the ledger holds the sender to be.
type Standing struct {
	TerminalID string `json:"terminal_id"`
	MerchantID string `json:"merchant_id"`
	NotAfter   Millis `json:"not_after"` // end of the certificate that was shown
}

// The codes of Refused in enrolment, beside those of the line. A code that is not right is one word, whatever is wrong
// with it; used and expired are said only to who has the whole code.
const (
	RefusedActivation        = "ACTIVATION_REFUSED"
	RefusedActivationUsed    = "ACTIVATION_USED"
	RefusedActivationExpired = "ACTIVATION_EXPIRED"
	RefusedActivationLocked  = "ACTIVATION_LOCKED" // too many wrong tries; the merchant needs another code
	RefusedProof             = "KEY_NOT_PROVEN"    // the request is not signed with an Ed25519 key of its own, or not with the right one
)

// DecodeBody reads a body of enrolment into a struct of this file. It fails with ErrTooLong and ErrMalformed, and never
// tells what stood in the body.
func DecodeBody(data []byte, into any) error {
	if len(data) > MaxEnroll {
		return fmt.Errorf("%w: %d bytes", ErrTooLong, len(data))
	}
	if len(data) == 0 || data[0] != '{' || json.Unmarshal(data, into) != nil {
		return fmt.Errorf("%w: %T of %d bytes", ErrMalformed, into, len(data))
	}
	return nil
}

package trust

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"yupos/ledgercache/money"
)

// Errors of versioned news.
var (
	// ErrRolledBack says that news are older than what was seen, or as old with other bytes.
	ErrRolledBack = errors.New("trust: rolled back")
	// ErrKnown says that exactly these news were seen already. Nothing changes.
	ErrKnown = errors.New("trust: known already")
	// ErrNotForHere says that news are for another terminal.
	ErrNotForHere = errors.New("trust: for another terminal")
	// ErrGap says that a delta does not continue the list that is here: the whole is needed.
	ErrGap = errors.New("trust: gap in the deny list")
)

// Everyone is the terminal id of news that are for all terminals.
const Everyone = "all"

// Header is how every payload but signed time begins. Issued and Expires are Unix seconds.
type Header struct {
	Terminal string `json:"terminal"` // 8 digits, or "all"
	Version  uint32 `json:"version"`  // counts up by topic and terminal, from 1
	Issued   uint32 `json:"issued"`
	Expires  uint32 `json:"expires"`
}

// IssuedAt is when the ledger signed it.
func (h Header) IssuedAt() time.Time { return time.Unix(int64(h.Issued), 0).UTC() }

// ExpiresAt is when it ends.
func (h Header) ExpiresAt() time.Time { return time.Unix(int64(h.Expires), 0).UTC() }

func (h Header) check() error {
	switch {
	case h.Terminal != Everyone && !isTerminal(h.Terminal):
		return fmt.Errorf("%w: terminal %.16q", ErrPayload, h.Terminal)
	case h.Version == 0:
		return fmt.Errorf("%w: no version", ErrPayload)
	case h.Issued == 0 || h.Expires <= h.Issued:
		return fmt.Errorf("%w: it ends before it begins", ErrPayload)
	}
	return nil
}

// Mark is the highest version of a topic that was seen, and the hash of its payload. The zero Mark has seen nothing.
type Mark struct {
	Version uint32   `cbor:"1,keyasint"`
	Hash    [32]byte `cbor:"2,keyasint"`
}

// Next judges news by what was seen before: nil and the new mark for a higher version, ErrKnown for the same once more,
// ErrRolledBack for an older one or the same version with other bytes.
func (m Mark) Next(version uint32, payload []byte) (Mark, error) {
	next := Mark{Version: version, Hash: sha256.Sum256(payload)}
	switch {
	case version > m.Version:
		return next, nil
	case next == m:
		return m, ErrKnown
	}
	return m, fmt.Errorf("%w: version %d after %d", ErrRolledBack, version, m.Version)
}

// PolicyNews is the rule for taking payments offline (topic policy). Amounts are in fen.
type PolicyNews struct {
	Header
	PaymentFen    money.Fen `json:"payment_fen"`
	WalletFen     money.Fen `json:"wallet_fen"`
	WalletCount   int       `json:"wallet_count"`
	TerminalFen   money.Fen `json:"terminal_fen"`
	TerminalCount int       `json:"terminal_count"`
	ConvertFen    money.Fen `json:"convert_fen"`
	DigitsFen     money.Fen `json:"digits_fen"`
	CodeSeconds   int       `json:"code_seconds"` // how old a code may be: 1 to 600
	SkewSeconds   int       `json:"skew_seconds"` // how far from the future: 0 to 300
}

// DenyNews is a deny list, whole (Base 0) or as a delta on the version Base. Tokens are 16 lower-case hex digits.
type DenyNews struct {
	Header
	Base   uint32   `json:"base"`
	Add    []string `json:"add"`
	Remove []string `json:"remove"`
	Count  int      `json:"count"`  // of the result
	SHA256 string   `json:"sha256"` // of the result: the tokens as 8 bytes each, in rising order
}

// KeyNews replaces all pinned keys but those of the role root, which stay as they were pinned at enrolment.
type KeyNews struct {
	Header
	Keys []KeyPin `json:"keys"`
}

// KeyPin is one key of a KeyNews; the window is Unix seconds, both included.
type KeyPin struct {
	Role      Role   `json:"role"`
	Public    string `json:"public"` // 64 hex digits
	NotBefore uint32 `json:"not_before"`
	NotAfter  uint32 `json:"not_after"`
}

// FeeNews is what the merchant pays.
type FeeNews struct {
	Header
	BasisPoints int `json:"basis_points"` // 0 to 1000, half up to a fen
}

// HeadNews is the ledger's signature under a head of the terminal's journal.
type HeadNews struct {
	Header
	Epoch    string `json:"epoch"`
	Sequence uint64 `json:"sequence"`
	Head     string `json:"head"` // 64 hex digits
}

// OperatorNews are the people who may work here.
type OperatorNews struct {
	Header
	Operators []Operator `json:"operators"`
}

// Operator is one person; what the words of Rights mean is for daemon/auth.
type Operator struct {
	ID      string   `json:"id"`
	Name    string   `json:"name"`
	Rights  []string `json:"rights"`
	PIN     string   `json:"pin"` // argon2id, in its own text form
	Retired bool     `json:"retired"`
}

// TimeNews is signed time (topic time).
type TimeNews struct {
	Nonce  string `json:"nonce"`   // 32 hex digits, as they were asked
	TimeMS int64  `json:"time_ms"` // Unix milliseconds when the ledger signed
}

// decode reads a payload. Fields that this version does not know are passed over: the signature covers them, and an older
// terminal must not stop for a newer ledger.
func decode(payload []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(payload))
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%w: %w", ErrPayload, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows it", ErrPayload)
	}
	return nil
}

// For is nil if news with this header are for the terminal, else ErrNotForHere.
func (h Header) For(terminalID string) error {
	if h.Terminal != Everyone && h.Terminal != terminalID {
		return ErrNotForHere
	}
	return nil
}

// DecodePolicy reads the payload of topic policy.
func DecodePolicy(payload []byte) (n PolicyNews, err error) {
	if err := decode(payload, &n); err != nil {
		return n, err
	}
	for _, fen := range []money.Fen{n.PaymentFen, n.WalletFen, n.TerminalFen, n.ConvertFen, n.DigitsFen} {
		if fen < 0 || fen > money.Max {
			return n, fmt.Errorf("%w: a limit of %d fen", ErrPayload, fen)
		}
	}
	if n.WalletCount < 0 || n.TerminalCount < 0 || n.CodeSeconds < 1 || n.CodeSeconds > 600 || n.SkewSeconds < 0 || n.SkewSeconds > 300 {
		return n, fmt.Errorf("%w: a count or a window", ErrPayload)
	}
	return n, n.check()
}

// DecodeKeys reads the payload of topic keys, and answers the pins that then hold beside those of the role root.
func DecodeKeys(payload []byte) (n KeyNews, pins Pins, err error) {
	if err := decode(payload, &n); err != nil {
		return n, nil, err
	}
	if err := n.check(); err != nil {
		return n, nil, err
	}
	for i, k := range n.Keys {
		public, err := hex.DecodeString(k.Public)
		if err != nil || len(public) != ed25519.PublicKeySize || k.NotAfter < k.NotBefore {
			return n, nil, fmt.Errorf("%w: key %d", ErrPayload, i+1)
		}
		if k.Role != Issuer && k.Role != Receipt && k.Role != Policy { // a root never names a root
			return n, nil, fmt.Errorf("%w: key %d has the role %.16q", ErrPayload, i+1, string(k.Role))
		}
		pins = append(pins, Pin{Role: k.Role, Public: public, NotBefore: k.NotBefore, NotAfter: k.NotAfter})
	}
	return n, pins, nil
}

// Replace is what is pinned after a key set: the roots of p, and the keys of the set.
func (p Pins) Replace(set Pins) Pins {
	all := slices.Clone(set)
	for _, pin := range p {
		if pin.Role == Root {
			all = append(all, pin)
		}
	}
	return all
}

// DecodeDeny reads the payload of topic deny.
func DecodeDeny(payload []byte) (n DenyNews, err error) {
	if err := decode(payload, &n); err != nil {
		return n, err
	}
	if n.Base >= n.Version && n.Version > 0 || n.Base == 0 && len(n.Remove) > 0 || n.Count < 0 || len(n.SHA256) != 64 {
		return n, fmt.Errorf("%w: base %d, count %d", ErrPayload, n.Base, n.Count)
	}
	for _, list := range [][]string{n.Add, n.Remove} {
		for i, token := range list {
			if raw, ok := lowerHex(token); !ok || len(raw) != 8 || i > 0 && token <= list[i-1] {
				return n, fmt.Errorf("%w: token %d", ErrPayload, i+1)
			}
		}
	}
	return n, n.check()
}

// DenyHash is the hash that a deny list's news must name: over its tokens, 8 bytes each, in rising order.
func DenyHash(tokens [][8]byte) string {
	h := sha256.New()
	for _, token := range tokens {
		h.Write(token[:])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Apply is the list after the news: have is the list of the version that is here, in rising order, and at that version. It
// fails with ErrGap where a delta has another base, or where the result is not what the ledger says.
func (n DenyNews) Apply(have [][8]byte, version uint32) ([][8]byte, error) {
	if n.Base != 0 && n.Base != version {
		return nil, fmt.Errorf("%w: a delta on %d, here is %d", ErrGap, n.Base, version)
	}
	set := map[[8]byte]bool{}
	if n.Base != 0 {
		for _, token := range have {
			set[token] = true
		}
	}
	for _, token := range n.Remove {
		delete(set, tokenOf(token))
	}
	for _, token := range n.Add {
		set[tokenOf(token)] = true
	}
	list := make([][8]byte, 0, len(set))
	for token := range set {
		list = append(list, token)
	}
	slices.SortFunc(list, func(a, b [8]byte) int { return bytes.Compare(a[:], b[:]) })
	if len(list) != n.Count || DenyHash(list) != n.SHA256 {
		return nil, fmt.Errorf("%w: the result is not the ledger's", ErrGap)
	}
	return list, nil
}

// lowerHex reads hex of small letters: an identifier has one text, or a list in rising order could hold it twice.
func lowerHex(text string) ([]byte, bool) {
	raw, err := hex.DecodeString(text)
	return raw, err == nil && hex.EncodeToString(raw) == text
}

// tokenOf reads a token that DecodeDeny has checked.
func tokenOf(text string) (token [8]byte) {
	raw, _ := hex.DecodeString(text) // checked
	copy(token[:], raw)
	return token
}

// DecodeFees reads the payload of topic fees.
func DecodeFees(payload []byte) (n FeeNews, err error) {
	if err := decode(payload, &n); err != nil {
		return n, err
	}
	if n.BasisPoints < 0 || n.BasisPoints > 1000 {
		return n, fmt.Errorf("%w: %d basis points", ErrPayload, n.BasisPoints)
	}
	return n, n.check()
}

// DecodeHead reads the payload of topic head.
func DecodeHead(payload []byte) (n HeadNews, err error) {
	if err := decode(payload, &n); err != nil {
		return n, err
	}
	if raw, ok := lowerHex(n.Head); !ok || len(raw) != 32 || len(n.Epoch) != 26 {
		return n, fmt.Errorf("%w: head", ErrPayload)
	}
	return n, n.check()
}

// DecodeOperators reads the payload of topic operators.
func DecodeOperators(payload []byte) (n OperatorNews, err error) {
	if err := decode(payload, &n); err != nil {
		return n, err
	}
	seen := map[string]bool{}
	for i, o := range n.Operators {
		if o.ID == "" || len(o.ID) > 32 || len(o.Name) > 64 || len(o.PIN) > 256 || seen[o.ID] {
			return n, fmt.Errorf("%w: operator %d", ErrPayload, i+1)
		}
		seen[o.ID] = true
	}
	return n, n.check()
}

// OpenTime verifies signed time and answers it. The nonce must be the one that was asked. A key is judged at the signed
// time itself, because this is what mends a clock that is wrong: an old answer cannot be replayed, as its nonce is another.
func (p Pins) OpenTime(e Envelope, nonce [16]byte) (time.Time, error) {
	var n TimeNews
	if err := decode(e.Payload, &n); err != nil { // the time is needed to choose the key; nothing is believed before Open
		return time.Time{}, err
	}
	at := time.UnixMilli(n.TimeMS).UTC()
	if _, err := p.Open(Time, e, at); err != nil {
		return time.Time{}, err
	}
	if n.Nonce != hex.EncodeToString(nonce[:]) {
		return time.Time{}, fmt.Errorf("%w: another nonce", ErrPayload)
	}
	return at, nil
}

// isTerminal reports whether s is a terminal id: eight digits.
func isTerminal(s string) bool {
	if len(s) != 8 {
		return false
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

package trust

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"

	"yupos/ledgercache/money"
)

// acceptPrefix stands in front of the signed bytes of an ACCEPT (codes.md, ACCEPT).
const acceptPrefix = "yupay-accept-v1"

// The lengths of an ACCEPT, in bytes.
const (
	AcceptBody   = 120
	AcceptLength = AcceptBody + ed25519.SignatureSize
)

// ErrAccept says that an ACCEPT is not one, or that its values do not fit it.
var ErrAccept = errors.New("trust: bad ACCEPT")

// Accept is the evidence of one offline acceptance.
type Accept struct {
	Converted     bool // after a missing answer; else offline from the start
	TotalFen      money.Fen
	At            time.Time // whole seconds count
	BoundSeconds  uint32    // of the clock's error
	TradeNo       string    // ULID
	TerminalID    string    // 8 digits
	CodeHash      [32]byte  // SHA-256 of the decoded SIGNED bytes
	PolicyVersion uint32
	DenyVersion   uint32
	Sequence      uint64   // of the first record of the journal's batch that it is in
	Head          [32]byte // of the journal before that batch
}

// Body is the 120 bytes that are signed. It fails with ErrAccept for values that do not fit.
func (a Accept) Body() ([]byte, error) {
	trade, err := ulid.ParseStrict(a.TradeNo)
	at := a.At.Unix()
	switch {
	case err != nil || trade.String() != a.TradeNo || !isTerminal(a.TerminalID) || a.TotalFen.CheckPayable() != nil:
		return nil, fmt.Errorf("%w: trade, terminal or amount", ErrAccept)
	case at <= 0 || at > int64(^uint32(0)):
		return nil, fmt.Errorf("%w: time", ErrAccept)
	}
	how := byte(1)
	if a.Converted {
		how = 2
	}
	b := append(make([]byte, 0, AcceptLength), 1, how, 0, 0)
	for _, v := range []uint32{uint32(a.TotalFen), uint32(at), a.BoundSeconds} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	b = append(append(append(b, trade[:]...), a.TerminalID...), a.CodeHash[:]...)
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, a.PolicyVersion), a.DenyVersion)
	return append(binary.BigEndian.AppendUint64(b, a.Sequence), a.Head[:]...), nil
}

// Sign is the body and behind it the terminal's signature: what is journalled and uploaded.
func (a Accept) Sign(terminal ed25519.PrivateKey) ([]byte, error) {
	if len(terminal) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("%w: no terminal key", ErrAccept)
	}
	body, err := a.Body()
	if err != nil {
		return nil, err
	}
	return append(body, ed25519.Sign(terminal, append([]byte(acceptPrefix), body...))...), nil
}

// ParseAccept reads an ACCEPT and verifies it with the terminal's key. What the key signed and Sign would not have made is no
// evidence either. It fails with ErrAccept.
func ParseAccept(raw []byte, terminal ed25519.PublicKey) (a Accept, err error) {
	if len(raw) != AcceptLength || len(terminal) != ed25519.PublicKeySize {
		return a, fmt.Errorf("%w: %d bytes", ErrAccept, len(raw))
	}
	body := raw[:AcceptBody]
	if !ed25519.Verify(terminal, append([]byte(acceptPrefix), body...), raw[AcceptBody:]) {
		return a, fmt.Errorf("%w: signature", ErrAccept)
	}
	if body[0] != 1 || body[1] != 1 && body[1] != 2 || body[2] != 0 || body[3] != 0 {
		return a, fmt.Errorf("%w: version or path", ErrAccept)
	}
	u32 := func(at int) uint32 { return binary.BigEndian.Uint32(body[at:]) }
	a = Accept{
		Converted: body[1] == 2, TotalFen: money.Fen(u32(4)), At: time.Unix(int64(u32(8)), 0).UTC(), BoundSeconds: u32(12),
		TradeNo: ulid.ULID(body[16:32]).String(), TerminalID: string(body[32:40]), CodeHash: [32]byte(body[40:72]),
		PolicyVersion: u32(72), DenyVersion: u32(76), Sequence: binary.BigEndian.Uint64(body[80:]), Head: [32]byte(body[88:120]),
	}
	if again, err := a.Body(); err != nil || !bytes.Equal(again, body) {
		return Accept{}, fmt.Errorf("%w: terminal, amount or time", ErrAccept)
	}
	return a, nil
}

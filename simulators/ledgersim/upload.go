package ledgersim

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/oklog/ulid/v2"

	"yupos/ledgercache/money"
	"yupos/sync/wire"
)

// This file judges offline payments as codes.md, ACCEPT, says: eight checks, the first failure named. What of it is only
// arithmetic (signatures) is done before the books are locked; a whole batch is one synced transaction.

// evidence is what an ACCEPT says.
type evidence struct {
	converted         bool
	fen               money.Fen
	at                time.Time
	bound             time.Duration
	tradeNo, terminal string
	codeHash          []byte
	policy, deny      uint32
	sequence          uint64
	head              string
	body, signature   []byte
}

// readEvidence takes an ACCEPT apart. Whether it is signed is another question.
func readEvidence(raw []byte) (e evidence, ok bool) {
	if len(raw) != 184 || raw[0] != 1 || raw[1] != 1 && raw[1] != 2 || raw[2] != 0 || raw[3] != 0 {
		return e, false
	}
	return evidence{
		converted: raw[1] == 2, fen: money.Fen(u32(raw, 4)), at: time.Unix(int64(u32(raw, 8)), 0).UTC(), bound: time.Duration(u32(raw, 12)) * time.Second,
		tradeNo: ulid.ULID(raw[16:32]).String(), terminal: string(raw[32:40]), codeHash: raw[40:72], policy: u32(raw, 72), deny: u32(raw, 76),
		sequence: binary.BigEndian.Uint64(raw[80:]), head: hex.EncodeToString(raw[88:120]), body: raw[:120], signature: raw[120:],
	}, true
}

// upload is one item on its way through the checks.
type upload struct {
	item    *wire.Acceptance
	content string // hash of what was uploaded, to tell a repeat from a reuse
	e       evidence
	code    signedCode
	failed  []string // what failed, in the order of the checks
	no      string   // refused without a judgement
}

func (u *upload) fail(reason string) { u.failed = append(u.failed, reason) }

// uploads judges a batch. Every item is judged by itself.
func (l *Ledger) uploads(m *wire.Upload) (out wire.Uploaded, err error) {
	out.Outcomes = make([]wire.Outcome, 0, len(m.Items))
	list := make([]upload, len(m.Items))
	for i := range m.Items {
		if list[i], err = l.examine(&m.Items[i]); err != nil {
			return out, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	err = l.db.Update(func(txn *badger.Txn) error {
		out.Outcomes, out.Refused = out.Outcomes[:0], nil
		past := &history{ledger: l, txn: txn}
		for i := range list {
			o, err := l.judge(txn, past, &list[i])
			var no refusal
			switch {
			case errors.As(err, &no):
				out.Refused = append(out.Refused, wire.RefusedUpload{TradeNo: list[i].item.TradeNo, Code: string(no)})
			case err != nil:
				return err
			default:
				out.Outcomes = append(out.Outcomes, o)
			}
		}
		return nil
	})
	if l.blocked { // every terminal learns of it
		l.blocked = false
		for _, c := range l.conns {
			c.hurry()
		}
	}
	return out, err
}

// examine does checks 1 to 3 as far as they need no books.
func (l *Ledger) examine(item *wire.Acceptance) (u upload, err error) {
	u.item = item
	if !isULID(item.TradeNo) || item.TotalFen.CheckPayable() != nil {
		u.no = wire.RefusedMalformed
		return u, nil
	}
	plain := *item
	plain.Repeat = false
	raw, err := json.Marshal(plain)
	if err != nil {
		return u, err
	}
	sum := sha256.Sum256(raw)
	u.content = hex.EncodeToString(sum[:8])
	ok := false
	if u.e, ok = readEvidence(item.Accept); !ok {
		u.fail("EVIDENCE_FORGED")
		return u, nil
	}
	public, err := l.publicKeyOf(u.e.terminal)
	if err != nil {
		return u, err
	}
	signed := append([]byte("yupay-accept-v1"), u.e.body...)
	if public == nil || !ed25519.Verify(public, signed, u.e.signature) || u.e.tradeNo != item.TradeNo || u.e.fen != item.TotalFen || !sameCode(u.e.codeHash, string(item.Code)) {
		u.fail("EVIDENCE_FORGED")
		return u, nil
	}
	var no string
	if u.code, no = l.openCode(string(item.Code)); no != "" {
		u.fail(no)
	} else if no = u.code.judgeTime(u.e.at, u.e.bound); no != "" {
		u.fail(no)
	}
	return u, nil
}

func sameCode(hash []byte, text string) bool {
	raw, err := base64.StdEncoding.DecodeString(text)
	sum := sha256.Sum256(raw)
	return err == nil && bytes.Equal(sum[:], hash)
}

// publicKeyOf is the key of an enrolled terminal, nil if there is none; it is read once.
func (l *Ledger) publicKeyOf(terminalID string) (ed25519.PublicKey, error) {
	if known, ok := l.publics.Load(terminalID); ok {
		return known.(ed25519.PublicKey), nil
	}
	var t terminal
	err := l.db.View(func(txn *badger.Txn) error { return get(txn, terminalKey(strings.ReplaceAll(terminalID, "/", "")), &t) })
	if errors.Is(err, errNone) {
		return nil, nil
	}
	raw, bad := hex.DecodeString(t.Public)
	if err != nil || bad != nil || len(raw) != ed25519.PublicKeySize {
		return nil, errors.Join(err, bad)
	}
	l.publics.Store(terminalID, ed25519.PublicKey(raw))
	return raw, nil
}

// maxCerts is how many verified certificates are remembered; then all are forgotten.
const maxCerts = 10000

// openCode verifies a SIGNED code. A certificate that was verified before is not verified again.
func (l *Ledger) openCode(text string) (signedCode, string) {
	return openSigned(text, publicOf(l.role["issuer"]), func(cert []byte, verify func() bool) bool {
		sum := sha256.Sum256(cert)
		l.certs.Lock()
		known := l.certs.seen[sum]
		l.certs.Unlock()
		if known || !verify() {
			return known
		}
		l.certs.Lock()
		defer l.certs.Unlock()
		if len(l.certs.seen) >= maxCerts || l.certs.seen == nil {
			l.certs.seen = map[[32]byte]bool{}
		}
		l.certs.seen[sum] = true
		return true
	})
}

// judge ends the checks with the books, and pays, bounces or notes the withdrawal. l.mu is held.
func (l *Ledger) judge(txn *badger.Txn, past *history, u *upload) (out wire.Outcome, err error) {
	if u.no != "" {
		return out, refusal(u.no)
	}
	t, answered, err := l.uploadTrade(txn, u)
	if err != nil || answered {
		out = t.outcome()
		if t.Judged != nil {
			out = *t.Judged
		}
		out.Replayed = answered
		return out, err
	}
	if t.State == wire.StateClosed || t.State == wire.StateRevoked {
		return l.tooLate(txn, t, u)
	}
	t.Path, t.Uploaded, t.Reason = "offline", u.content, ""
	var w wallet
	if len(u.failed) == 0 {
		if err := past.check(u); err != nil {
			return out, err
		}
		if w, err = l.payerOffline(txn, &t, u); err != nil {
			return out, err
		}
	}
	if err := l.settle(txn, &t, u, w); err != nil {
		return out, err
	}
	return t.outcome(), put(txn, tradeKey(t.TerminalID, t.TradeNo), t)
}

// uploadTrade finds or begins the trade of an upload. One that was judged, or paid online before, is answered as it is.
func (l *Ledger) uploadTrade(txn *badger.Txn, u *upload) (t trade, answered bool, err error) {
	owner := u.e.terminal
	if u.e.body == nil || !digits(owner, 8) {
		owner = "unknown"
	}
	err = get(txn, tradeKey(owner, u.item.TradeNo), &t)
	switch {
	case errors.Is(err, errNone):
		var term terminal
		if err := get(txn, terminalKey(owner), &term); err != nil && !errors.Is(err, errNone) {
			return t, false, err
		}
		return trade{
			TradeNo: u.item.TradeNo, OutTradeNo: u.item.OutTradeNo, TerminalID: owner, MerchantID: term.MerchantID, TotalFen: u.item.TotalFen, CreatedAt: l.now(),
		}, false, nil
	case err != nil:
		return t, false, err
	case t.Uploaded != "" && t.Uploaded != u.content, t.TotalFen != u.item.TotalFen:
		return t, false, refusal(wire.RefusedIDReused)
	case t.Uploaded != "":
		return t, true, nil
	case t.State == wire.StateSuccess && !u.item.Withdrawn: // it had been paid online before it was converted
		t.Uploaded = u.content
		return t, true, put(txn, tradeKey(owner, t.TradeNo), t)
	}
	return t, false, nil
}

// tooLate bounces the evidence of a trade that had ended before, by a reversal: what was done stays as it is.
func (l *Ledger) tooLate(txn *badger.Txn, t trade, u *upload) (wire.Outcome, error) {
	out := wire.Outcome{TradeNo: t.TradeNo, State: wire.StateBounced, TotalFen: t.TotalFen, Reason: "ORDER_CLOSED", Bearer: wire.BearerMerchant}
	if u.item.Withdrawn {
		out = t.outcome()
	}
	t.Uploaded, t.Judged = u.content, &out
	return out, put(txn, tradeKey(t.TerminalID, t.TradeNo), t)
}

// payerOffline spends the code and judges checks 4, 5 and 8 by the customer's side of the books.
func (l *Ledger) payerOffline(txn *badger.Txn, t *trade, u *upload) (w wallet, err error) {
	spent := fmt.Sprintf("spent/%x/%d", u.code.wallet, u.code.counter)
	var by any
	switch err := get(txn, spent, &by); {
	case errors.Is(err, errNone):
		if err := put(txn, spent, t.ref()); err != nil {
			return w, err
		}
	case err != nil:
		return w, err
	case by != t.ref(): // the payment's own sending before the conversion does not count against it
		u.failed = append([]string{"CODE_SPENT"}, u.failed...)
	}
	if u.item.Withdrawn {
		return w, nil
	}
	var phone string
	if err := get(txn, "token/"+u.code.token, &phone); errors.Is(err, errNone) {
		u.fail("WALLET_UNKNOWN")
		return w, nil
	} else if err != nil {
		return w, err
	}
	key := fmt.Sprintf("offline/%x", u.code.wallet)
	var used struct {
		Count int       `json:"count"`
		Fen   money.Fen `json:"fen"`
	}
	if err := get(txn, key, &used); err != nil && !errors.Is(err, errNone) {
		return w, err
	}
	used.Count++
	used.Fen += u.item.TotalFen
	if used.Count > int(u.code.maxCount) || used.Fen > u.code.allowance {
		u.fail("OVER_WALLET_ALLOWANCE")
	}
	if err := put(txn, key, used); err != nil {
		return w, err
	}
	return w, get(txn, walletKey(phone), &w)
}

// guaranteed are the failures that the ledger's guarantee bears, if all else is in order.
var guaranteed = map[string]bool{"CODE_SPENT": true, "OVER_WALLET_ALLOWANCE": true, "INSUFFICIENT_BALANCE": true}

// settle pays by the wallet or the guarantee, bounces, or notes that nothing is to be paid.
func (l *Ledger) settle(txn *badger.Txn, t *trade, u *upload, w wallet) error {
	if u.item.Withdrawn {
		t.State, t.Reason = wire.StateRevoked, "WITHDRAWN"
		return nil
	}
	if len(u.failed) == 0 && l.takeFault("upload", "decline") != nil {
		u.fail("DECLINED")
	}
	if len(u.failed) == 0 {
		balance, err := balanceOf(txn, walletAccount(w.Phone))
		if err != nil {
			return err
		}
		if balance >= t.TotalFen {
			return l.move(txn, t, w)
		}
		u.fail("INSUFFICIENT_BALANCE") // the hold of the certificate should have kept it
	}
	t.Reason, t.Bearer = u.failed[0], wire.BearerLedger
	for _, reason := range u.failed {
		if !guaranteed[reason] {
			t.Bearer = wire.BearerMerchant
		}
	}
	if t.Bearer == wire.BearerMerchant {
		t.State = wire.StateBounced
		return nil
	}
	reason := t.Reason
	if err := l.moveFrom(txn, t, accountGuarantee); err != nil {
		return err
	}
	t.Reason = reason
	return l.block(txn, w, u.code.token)
}

// block shuts a wallet out of offline payments at its first conflict: no more certificates, and the one it has is on every
// terminal's deny list.
func (l *Ledger) block(txn *badger.Txn, w wallet, token string) error {
	if w.Phone == "" || token == "" {
		return nil
	}
	if !w.Blocked {
		w.Blocked = true
		if err := put(txn, walletKey(w.Phone), w); err != nil {
			return err
		}
	}
	list, err := l.deniedNow(txn)
	if err != nil || slices.Contains(list, token) {
		return err
	}
	l.blocked = true
	return l.putDenial(txn, []string{token}, nil)
}

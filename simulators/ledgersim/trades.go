package ledgersim

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/oklog/ulid/v2"

	"yupos/ledgercache/money"
	"yupos/sync/wire"
)

// refusal is a decline or refusal by its stable name. It is an answer, not a fault of the ledger.
type refusal string

// Error is the name.
func (r refusal) Error() string { return string(r) }

// trade is one trade as the ledger holds it.
type trade struct {
	TradeNo     string               `json:"trade_no"`
	OutTradeNo  string               `json:"out_trade_no"`
	TerminalID  string               `json:"terminal_id"`
	MerchantID  string               `json:"merchant_id"`
	State       string               `json:"state"` // NOTPAY USERPAYING SUCCESS CLOSED REVOKED PAYERROR
	Path        string               `json:"path"`
	TotalFen    money.Fen            `json:"total_fen"`
	PaidFen     money.Fen            `json:"paid_fen"`
	FeeFen      money.Fen            `json:"fee_fen"`
	RefundedFen money.Fen            `json:"refunded_fen"`
	FeeBackFen  money.Fen            `json:"fee_back_fen"`
	Refunds     int                  `json:"refunds"`
	Phone       string               `json:"phone,omitempty"`
	LedgerNo    string               `json:"ledger_no,omitempty"`
	Reason      string               `json:"reason,omitempty"`
	Attempt     int                  `json:"attempt,omitempty"`
	CreatedAt   time.Time            `json:"created_at"`
	AskedAt     time.Time            `json:"asked_at,omitzero"` // when the customer was asked to confirm
	PaidAt      time.Time            `json:"paid_at,omitzero"`
	ExpiresAt   time.Time            `json:"expires_at,omitzero"`
	Content     map[int]string       `json:"content,omitempty"` // of each attempt, hashed: to tell a repeat from a reuse
	Answers     map[int]wire.Outcome `json:"answers,omitempty"` // to each attempt that was declined
	Confirmed   bool                 `json:"confirmed,omitempty"`
	Uploaded    string               `json:"uploaded,omitempty"` // hash of the evidence that was uploaded
	Judged      *wire.Outcome        `json:"judged,omitempty"`   // the answer to the upload of a trade that had ended before
	Bearer      string               `json:"bearer,omitempty"`   // who bears an upload that the wallet did not pay
}

func (t trade) ref() string { return t.TerminalID + "/" + t.TradeNo }

func tradeKey(terminalID, tradeNo string) string { return "trade/" + terminalID + "/" + tradeNo }

// confirmFor is how long a customer may take to confirm on the phone.
const confirmFor = 45 * time.Second

func (l *Ledger) number() string { return ulid.MustNew(ulid.Timestamp(l.now()), rand.Reader).String() }

// outcome is the ledger's word about a trade.
func (t trade) outcome() wire.Outcome {
	o := wire.Outcome{TradeNo: t.TradeNo, State: t.State, LedgerNo: t.LedgerNo, Reason: t.Reason, TotalFen: t.TotalFen, RefundedFen: t.RefundedFen, Bearer: t.Bearer}
	if t.State == wire.StatePayError {
		o.Attempt = t.Attempt
	}
	if !t.PaidAt.IsZero() {
		o.PaidFen, o.DiscountFen, o.FeeFen, o.PaidAt = t.PaidFen, t.TotalFen-t.PaidFen, t.FeeFen, wire.Millis(t.PaidAt.UnixMilli())
	}
	return o
}

// pay takes money by a customer's code. Idempotent by trade and attempt.
func (l *Ledger) pay(terminalID string, m *wire.Pay) (out wire.Outcome, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	err = l.db.Update(func(txn *badger.Txn) error {
		t, replay, err := l.payTrade(txn, terminalID, m)
		if err != nil || replay != nil {
			if replay != nil {
				out = *replay
			}
			return err
		}
		err = l.charge(txn, &t, m)
		var no refusal
		if errors.As(err, &no) {
			t.decline(string(no))
		} else if err != nil {
			return err
		}
		out = t.outcome()
		return put(txn, tradeKey(terminalID, m.TradeNo), t)
	})
	return out, err
}

// payTrade finds or begins the trade of a pay, or answers what was answered before.
func (l *Ledger) payTrade(txn *badger.Txn, terminalID string, m *wire.Pay) (trade, *wire.Outcome, error) {
	repeat := *m
	repeat.Repeat = false
	raw, err := json.Marshal(repeat)
	if err != nil {
		return trade{}, nil, err
	}
	sum := sha256.Sum256(raw)
	content := hex.EncodeToString(sum[:8])
	var t trade
	err = get(txn, tradeKey(terminalID, m.TradeNo), &t)
	if errors.Is(err, errNone) {
		term, err := l.terminalOf(txn, terminalID)
		if err != nil {
			return t, nil, err
		}
		t = trade{
			TradeNo: m.TradeNo, OutTradeNo: m.OutTradeNo, TerminalID: terminalID, MerchantID: term.MerchantID, State: wire.StateNotPay, Path: "online",
			TotalFen: m.TotalFen, CreatedAt: l.now(), Content: map[int]string{}, Answers: map[int]wire.Outcome{},
		}
	} else if err != nil {
		return t, nil, err
	}
	if t.Content == nil {
		t.Content, t.Answers = map[int]string{}, map[int]wire.Outcome{}
	}
	had, known := t.Content[m.Attempt]
	if known && had != content || t.TotalFen != m.TotalFen || t.OutTradeNo != "" && t.OutTradeNo != m.OutTradeNo {
		return t, nil, refusal(wire.RefusedIDReused)
	}
	l.lapse(&t)
	if answer, ok := t.Answers[m.Attempt]; ok {
		answer.Replayed = true
		return t, &answer, nil
	}
	if known || m.Attempt < t.Attempt || t.State != wire.StateNotPay && t.State != wire.StatePayError {
		answer := t.outcome() // a late, lower attempt is never judged anew: the newest one speaks for the trade
		answer.Replayed = true
		return t, &answer, put(txn, tradeKey(terminalID, m.TradeNo), t)
	}
	t.Content[m.Attempt], t.Attempt, t.State, t.Reason = content, m.Attempt, wire.StateNotPay, ""
	return t, nil, nil
}

// charge judges the code and takes the money, or asks the customer to confirm.
func (l *Ledger) charge(txn *badger.Txn, t *trade, m *wire.Pay) error {
	now := l.now()
	if now.UnixMilli() > int64(m.NotAfter) {
		return refusal("TOO_LATE")
	}
	if l.takeFault("pay", "decline") != nil {
		return refusal("DECLINED")
	}
	w, stepUp, err := l.payer(txn, t.ref(), string(m.Code), t.TotalFen, now)
	if err != nil {
		return err
	}
	t.Phone = w.Phone
	if stepUp {
		if err := l.affordable(txn, w, t.TotalFen); err != nil {
			return err
		}
		t.State, t.AskedAt = wire.StateUserPaying, now
		return nil
	}
	return l.take(txn, t, w)
}

// payer knows the customer by the code and spends it. A code that is refused for what it is stays unspent; one that was
// read is spent, whatever comes of the payment.
func (l *Ledger) payer(txn *badger.Txn, ref, code string, total money.Fen, now time.Time) (w wallet, stepUp bool, err error) {
	if len(code) == 18 {
		w, err = l.payerOnline(txn, code, now)
		return w, err == nil && total > w.StepUpFen, err
	}
	s, no := readSigned(code, publicOf(l.role["issuer"]), now)
	if no != "" {
		return w, false, refusal(no)
	}
	var phone string
	if err := get(txn, "token/"+s.token, &phone); err != nil {
		return w, false, refusal("WALLET_UNKNOWN")
	}
	spent := fmt.Sprintf("spent/%x/%d", s.wallet, s.counter)
	if err := get(txn, spent, new(any)); err == nil {
		return w, false, refusal("CODE_SPENT")
	}
	if total > s.most {
		return w, false, refusal("OVER_CODE_LIMIT")
	}
	if err := put(txn, spent, ref); err != nil {
		return w, false, err
	}
	return w, false, get(txn, walletKey(phone), &w)
}

func (l *Ledger) payerOnline(txn *badger.Txn, code string, now time.Time) (w wallet, err error) {
	var c onlineCode
	if err := get(txn, "code/"+code, &c); err != nil {
		return w, refusal("CODE_UNKNOWN")
	}
	switch {
	case c.Used:
		return w, refusal("CODE_SPENT")
	case now.Sub(c.At) > time.Minute:
		return w, refusal("CODE_EXPIRED")
	}
	c.Used = true
	if err := put(txn, "code/"+code, c); err != nil {
		return w, err
	}
	return w, get(txn, walletKey(c.Phone), &w)
}

// take moves the money: the customer pays, the merchant gets it less the fee. One balanced entry.
func (l *Ledger) take(txn *badger.Txn, t *trade, w wallet) error {
	if err := l.affordable(txn, w, t.TotalFen); err != nil {
		return err
	}
	return l.move(txn, t, w)
}

// move makes the payment of a customer whose wallet can bear it.
func (l *Ledger) move(txn *badger.Txn, t *trade, w wallet) error {
	t.Phone = w.Phone
	if err := l.moveFrom(txn, t, walletAccount(w.Phone)); err != nil {
		return err
	}
	w.spend(t.TotalFen, t.PaidAt)
	return put(txn, walletKey(w.Phone), w)
}

// moveFrom makes the payment from an account.
func (l *Ledger) moveFrom(txn *badger.Txn, t *trade, from string) error {
	var shop merchant
	if err := get(txn, merchantKey(t.MerchantID), &shop); err != nil {
		return err
	}
	fee, err := money.BasisPoints(t.TotalFen, shop.FeeBP)
	if err != nil {
		return err
	}
	err = l.post(txn, "pay", t.ref(), line{from, -t.TotalFen},
		line{merchantAccount(t.MerchantID), t.TotalFen - fee}, line{accountFees, fee})
	if err != nil {
		return err
	}
	t.State, t.Reason, t.PaidFen, t.FeeFen, t.PaidAt, t.LedgerNo = wire.StateSuccess, "", t.TotalFen, fee, l.now(), l.number()
	return nil
}

// payerAccount is where the money of a trade came from, and goes back to.
func (t trade) payerAccount() string {
	if t.Bearer == wire.BearerLedger {
		return accountGuarantee
	}
	return walletAccount(t.Phone)
}

// decline ends the present attempt and keeps its answer for a repeat.
func (t *trade) decline(reason string) {
	t.State, t.Reason = wire.StatePayError, reason
	if t.Answers == nil { // an empty one is not stored
		t.Answers = map[int]wire.Outcome{}
	}
	t.Answers[t.Attempt] = t.outcome()
}

// waits reports whether the customer may still confirm.
func (t trade) waits(now time.Time) bool {
	return t.State == wire.StateUserPaying && now.Sub(t.AskedAt) <= confirmFor
}

// lapse ends a payment that the customer did not confirm in time.
func (l *Ledger) lapse(t *trade) {
	if t.State == wire.StateUserPaying && !t.waits(l.now()) {
		t.decline("CONFIRM_TIMEOUT")
	}
}

// register notes an ORDER before it is paid. A trade that is known already is answered as it is.
func (l *Ledger) register(terminalID string, m *wire.Order) (out wire.Outcome, err error) {
	return l.withTrade(terminalID, m.TradeNo, func(txn *badger.Txn, t *trade) error {
		if t.TradeNo != "" {
			if t.TotalFen != m.TotalFen || t.OutTradeNo != "" && t.OutTradeNo != m.OutTradeNo {
				return refusal(wire.RefusedIDReused)
			}
			if t.OutTradeNo == "" {
				t.OutTradeNo = m.OutTradeNo
			}
			if expires := time.UnixMilli(int64(m.ExpiresAt)).UTC(); t.State == wire.StateNotPay && expires.After(t.ExpiresAt) {
				t.ExpiresAt = expires // shown again
			}
			return nil
		}
		term, err := l.terminalOf(txn, terminalID)
		if err != nil {
			return err
		}
		*t = trade{
			TradeNo: m.TradeNo, OutTradeNo: m.OutTradeNo, TerminalID: terminalID, MerchantID: term.MerchantID, State: wire.StateNotPay, Path: "online",
			TotalFen: m.TotalFen, CreatedAt: l.now(), ExpiresAt: time.UnixMilli(int64(m.ExpiresAt)).UTC(),
		}
		return nil
	})
}

// query answers what is true of a trade.
func (l *Ledger) query(terminalID string, m *wire.Query) (out wire.Outcome, err error) {
	out, err = l.withTrade(terminalID, m.TradeNo, func(_ *badger.Txn, t *trade) error {
		if t.TradeNo == "" {
			return errNone
		}
		if t.OutTradeNo == "" && len(m.OutTradeNo) <= 64 { // an ORDER that was paid before the terminal could tell of it
			t.OutTradeNo = m.OutTradeNo
		}
		l.lapse(t)
		return nil
	})
	if errors.Is(err, errNone) {
		return wire.Outcome{TradeNo: m.TradeNo, State: wire.StateNotFound}, nil
	}
	return out, err
}

// reverse ends a trade for good, also one that was never heard of.
func (l *Ledger) reverse(terminalID string, m *wire.Reverse) (out wire.Outcome, err error) {
	return l.withTrade(terminalID, m.TradeNo, func(txn *badger.Txn, t *trade) error {
		if t.TradeNo != "" && t.TotalFen != m.TotalFen && m.TotalFen != 0 {
			return refusal(wire.RefusedIDReused)
		}
		switch t.State {
		case wire.StateSuccess:
			return l.giveBack(txn, t, m.Reason)
		case wire.StateClosed, wire.StateRevoked:
			return nil
		}
		if t.TradeNo == "" {
			term, err := l.terminalOf(txn, terminalID)
			if err != nil {
				return err
			}
			*t = trade{TradeNo: m.TradeNo, TerminalID: terminalID, MerchantID: term.MerchantID, TotalFen: m.TotalFen, CreatedAt: l.now(), Path: "online"}
		}
		t.State, t.Reason = wire.StateClosed, m.Reason
		return nil
	})
}

// giveBack reverses a payment whole. One that was refunded in part stays as it is: the answer says SUCCESS.
func (l *Ledger) giveBack(txn *badger.Txn, t *trade, reason string) error {
	if t.RefundedFen > 0 {
		return nil
	}
	err := l.post(txn, "reverse", t.ref(), line{t.payerAccount(), t.PaidFen},
		line{merchantAccount(t.MerchantID), -(t.PaidFen - t.FeeFen)}, line{accountFees, -t.FeeFen})
	if err != nil {
		return err
	}
	t.State, t.Reason = wire.StateRevoked, reason
	return nil
}

// withTrade changes a trade in one transaction and answers it. change sees an empty trade where there is none, and may
// make one.
func (l *Ledger) withTrade(terminalID, tradeNo string, change func(*badger.Txn, *trade) error) (out wire.Outcome, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	err = l.db.Update(func(txn *badger.Txn) error {
		var t trade
		if err := get(txn, tradeKey(terminalID, tradeNo), &t); err != nil && !errors.Is(err, errNone) {
			return err
		}
		if err := change(txn, &t); err != nil {
			return err
		}
		out = t.outcome()
		return put(txn, tradeKey(terminalID, tradeNo), t)
	})
	return out, err
}

func (l *Ledger) terminalOf(txn *badger.Txn, id string) (t terminal, err error) {
	if err = get(txn, terminalKey(id), &t); errors.Is(err, errNone) {
		return t, refusal(wire.RefusedNotYou)
	}
	return t, err
}

// Trade is a trade in the ledger's own view (interfaces.md, GET /_sim/ledger/trades).
type Trade struct {
	TradeNo    string     `json:"trade_no"`
	OutTradeNo string     `json:"out_trade_no"`
	TerminalID string     `json:"terminal_id"`
	State      string     `json:"state"`
	TotalFen   money.Fen  `json:"total_fen"`
	PaidFen    *money.Fen `json:"paid_fen"`
	Path       string     `json:"path"`
	At         time.Time  `json:"at"`
}

// Trades lists the trades of a terminal, or of all if it is "".
func (l *Ledger) Trades(terminalID string) ([]Trade, error) {
	prefix := "trade/"
	if terminalID != "" {
		prefix += strings.ReplaceAll(terminalID, "/", "") + "/"
	}
	out := []Trade{}
	err := l.db.View(func(txn *badger.Txn) error {
		trades, err := list[trade](txn, prefix)
		for _, t := range trades {
			v := Trade{t.TradeNo, t.OutTradeNo, t.TerminalID, t.State, t.TotalFen, nil, t.Path, t.CreatedAt}
			if !t.PaidAt.IsZero() {
				v.PaidFen, v.At = &t.PaidFen, t.PaidAt
			}
			out = append(out, v)
		}
		return err
	})
	return out, err
}

package ledgersim

import (
	"cmp"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"

	"yupos/devices/paycode"
	"yupos/ledgercache/money"
	"yupos/simulators/walletsim"
	"yupos/sync/wire"
)

// wallet is a customer's wallet and phone.
type wallet struct {
	Phone     string          `json:"phone"`
	Name      string          `json:"name"`
	PIN       string          `json:"pin"`
	Tier      int             `json:"tier"`
	Frozen    bool            `json:"frozen"`
	Blocked   bool            `json:"blocked,omitempty"` // from offline payments, after a conflict
	Token     string          `json:"token"`             // of the newest certificate, hex
	StepUpFen money.Fen       `json:"step_up_fen"`
	Day       string          `json:"day"` // on which DayFen was spent
	DayFen    money.Fen       `json:"day_fen"`
	PINWrong  int             `json:"pin_wrong,omitempty"` // in a row
	PINLocked time.Time       `json:"pin_locked,omitzero"` // until then no PIN is taken
	Device    walletsim.Phone `json:"device"`
}

func walletKey(phone string) string { return "wallet/" + phone }

// onlineCode is an ONLINE code that the ledger gave out.
type onlineCode struct {
	Phone string    `json:"phone"`
	At    time.Time `json:"at"`
	Used  bool      `json:"used"`
}

// limits are the published wallet classes (product.md): single payment and day, in fen; 0 is no cap.
var limits = map[int]struct{ single, day money.Fen }{4: {200000, 500000}, 3: {500000, 1000000}, 2: {5000000, 10000000}, 1: {0, 0}}

// The demo's certificates allow ¥200 in one offline payment and ¥500 in all, its SIGNED codes ¥1,000.
const (
	signedMost    = 100000
	offlineSingle = 20000
	offlineAll    = 50000
	offlineCount  = 10
	openingFen    = 500000
	stepUpFen     = 100000
	pinTries      = 5
	pinLockFor    = 3 * time.Hour
)

// spend notes what the customer paid today, in Shanghai.
func (w *wallet) spend(f money.Fen, now time.Time) {
	if day := shanghaiDay(now); w.Day != day {
		w.Day, w.DayFen = day, 0
	}
	w.DayFen += f
}

func shanghaiDay(t time.Time) string { return t.In(time.FixedZone("", 8*3600)).Format(time.DateOnly) }

// affordable judges a payment by the wallet's state, its limits and its balance.
func (l *Ledger) affordable(txn *badger.Txn, w wallet, total money.Fen) error {
	if w.Frozen {
		return refusal("WALLET_FROZEN")
	}
	limit := limits[w.Tier]
	spent := w.DayFen
	if w.Day != shanghaiDay(l.now()) {
		spent = 0
	}
	if limit.single > 0 && total > limit.single {
		return refusal("LIMIT_SINGLE")
	}
	if limit.day > 0 && spent+total > limit.day {
		return refusal("LIMIT_DAY")
	}
	balance, err := balanceOf(txn, walletAccount(w.Phone))
	if err == nil && balance < total {
		return refusal("INSUFFICIENT_BALANCE")
	}
	return err
}

// found makes the demo's four customers, once, and answers how often this ledger was opened.
func (l *Ledger) found() (openings uint64, err error) {
	err = l.db.Update(func(txn *badger.Txn) error {
		if err := get(txn, "openings", &openings); err != nil && !errors.Is(err, errNone) {
			return err
		}
		openings++
		if err := put(txn, "openings", openings); err != nil {
			return err
		}
		for i, name := range []string{"张伟", "王芳", "李娜", "刘洋"} {
			phone := fmt.Sprintf("1380000000%d", i+1)
			if err := get(txn, walletKey(phone), new(wallet)); err == nil {
				continue
			} else if !errors.Is(err, errNone) {
				return err
			}
			w := wallet{Phone: phone, Name: name, PIN: fmt.Sprintf("%d%d%d%d%d%d", i+1, i+2, i+3, i+4, i+5, i+6), Tier: 2, StepUpFen: stepUpFen, Device: walletsim.New()}
			if err := w.Device.Renew(l.now(), l.issue(txn, &w)); err != nil {
				return err
			}
			if err := put(txn, walletKey(phone), w); err != nil {
				return err
			}
			if err := l.post(txn, "open", phone, line{accountBank, -openingFen}, line{walletAccount(phone), openingFen}); err != nil {
				return err
			}
		}
		return nil
	})
	return openings, err
}

// issue signs a certificate for a wallet's fresh key under a fresh token.
func (l *Ledger) issue(txn *badger.Txn, w *wallet) walletsim.Issuer {
	return func(public ed25519.PublicKey, notBefore, notAfter uint32) ([]byte, error) {
		var token [8]byte
		if _, err := rand.Read(token[:]); err != nil {
			return nil, err
		}
		w.Token = hex.EncodeToString(token[:])
		if err := put(txn, "token/"+w.Token, w.Phone); err != nil {
			return nil, err
		}
		return paycode.MakeCert(paycode.Cert{
			Tier: uint8(w.Tier), MaxCount: offlineCount, Token: token, WalletKey: public, NotBefore: notBefore, NotAfter: notAfter,
			PerPaymentFen: offlineSingle, AllowanceFen: offlineAll,
		}, l.role["issuer"])
	}
}

func publicOf(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

// withWallet changes a wallet in one transaction.
func (l *Ledger) withWallet(phone string, change func(*badger.Txn, *wallet) error) (w wallet, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	err = l.db.Update(func(txn *badger.Txn) error {
		if err := get(txn, walletKey(phone), &w); errors.Is(err, errNone) {
			return refusal("WALLET_UNKNOWN")
		} else if err != nil {
			return err
		}
		if err := change(txn, &w); err != nil {
			return err
		}
		return put(txn, walletKey(phone), w)
	})
	return w, err
}

// showCode makes the pay code that the phone shows next. Only a SIGNED code can be made offline.
func (l *Ledger) showCode(phone, kind string) (text string, err error) {
	_, err = l.withWallet(phone, func(txn *badger.Txn, w *wallet) error {
		switch kind {
		case "ONLINE":
			if !w.Device.Online {
				return refusal("PHONE_OFFLINE")
			}
			if text, err = walletsim.OnlineCode(l.random); err != nil {
				return err
			}
			w.Device.LastCode = text
			return put(txn, "code/"+text, onlineCode{Phone: phone, At: l.now()})
		case "SIGNED":
			if w.Blocked {
				return refusal("OFFLINE_BLOCKED")
			}
			if err := w.Device.Renew(l.now(), l.issue(txn, w)); err != nil {
				return err
			}
			text, err = w.Device.Signed(l.now(), signedMost)
			if errors.Is(err, walletsim.ErrOffline) {
				return refusal("PHONE_OFFLINE")
			}
			return err
		}
		return refusal("UNKNOWN_KIND")
	})
	return text, err
}

// paidOrder is what the customer holds after paying an ORDER.
type paidOrder struct {
	ReceiptText string    `json:"receipt_text"`
	Digits      string    `json:"digits"`
	TotalFen    money.Fen `json:"total_fen"`
	Merchant    string    `json:"merchant"`
}

// payOrder pays an ORDER from a wallet: the ledger may never have heard of it, the terminal's signature speaks for it.
func (l *Ledger) payOrder(phone, text, pin string) (out paidOrder, err error) {
	var push func()
	refused := error(nil)
	_, err = l.withWallet(phone, func(txn *badger.Txn, w *wallet) error {
		if !w.Device.Online {
			return refusal("PHONE_OFFLINE")
		}
		o, term, shop, err := l.judgeOrder(txn, text)
		if err != nil {
			return err
		}
		t, err := l.orderTrade(txn, o, term)
		if err != nil {
			return err
		}
		if refused = l.checkPIN(w, o.fen, pin); refused != nil {
			return nil // the try is kept
		}
		if l.takeFault("order", "decline") != nil {
			return refusal("DECLINED")
		}
		if err := l.take(txn, &t, *w); err != nil {
			return err
		}
		if err := get(txn, walletKey(phone), w); err != nil { // take noted what was spent
			return err
		}
		if err := put(txn, tradeKey(o.terminalID, o.number), t); err != nil {
			return err
		}
		out, err = l.receipt(o, t, term, shop, w.Token)
		if err != nil {
			return err
		}
		push, err = l.news(txn, o.terminalID, t.outcome())
		return err
	})
	if err == nil && refused == nil {
		push()
	}
	return out, cmp.Or(err, refused)
}

// seenOrder is what the customer sees before paying.
type seenOrder struct {
	Merchant string    `json:"merchant"`
	TotalFen money.Fen `json:"total_fen"`
	PIN      bool      `json:"pin"` // the payment PIN will be asked for
}

func (l *Ledger) lookAtOrder(phone, text string) (seen seenOrder, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	err = l.db.View(func(txn *badger.Txn) error {
		var w wallet
		if err := get(txn, walletKey(phone), &w); errors.Is(err, errNone) {
			return refusal("WALLET_UNKNOWN")
		} else if err != nil {
			return err
		}
		if !w.Device.Online {
			return refusal("PHONE_OFFLINE")
		}
		o, term, shop, err := l.judgeOrder(txn, text)
		if err != nil {
			return err
		}
		if _, err := l.orderTrade(txn, o, term); err != nil {
			return err
		}
		seen = seenOrder{shop.DisplayName, o.fen, l.checkPIN(&w, o.fen, "") != nil}
		return nil
	})
	return seen, err
}

// judgeOrder checks an ORDER as codes.md lists its refusals.
func (l *Ledger) judgeOrder(txn *badger.Txn, text string) (o order, term terminal, shop merchant, err error) {
	o, ok := readOrder(text)
	if !ok {
		return o, term, shop, refusal("MALFORMED")
	}
	if err := get(txn, terminalKey(o.terminalID), &term); err != nil {
		return o, term, shop, refusal("UNKNOWN_TERMINAL")
	}
	public, err := hex.DecodeString(term.Public)
	if err != nil || len(public) != ed25519.PublicKeySize {
		return o, term, shop, errors.Join(err, fmt.Errorf("terminal %s has no key", term.ID))
	}
	if err := get(txn, merchantKey(term.MerchantID), &shop); err != nil {
		return o, term, shop, err
	}
	now := l.now().Unix()
	switch {
	case !o.verified(public) || o.merchantID != term.MerchantID || o.mcc != shop.MCC:
		err = refusal("ORDER_FORGED")
	case now > o.expires:
		err = refusal("ORDER_EXPIRED")
	case o.expires > now+600:
		err = refusal("ORDER_EXPIRY_TOO_FAR")
	}
	return o, term, shop, err
}

// orderTrade is the trade that an ORDER pays, begun here if the ledger never heard of it.
func (l *Ledger) orderTrade(txn *badger.Txn, o order, term terminal) (t trade, err error) {
	err = get(txn, tradeKey(o.terminalID, o.number), &t)
	if errors.Is(err, errNone) {
		return trade{
			TradeNo: o.number, TerminalID: o.terminalID, MerchantID: term.MerchantID, State: wire.StateNotPay, Path: "online",
			TotalFen: o.fen, CreatedAt: l.now(), ExpiresAt: time.Unix(o.expires, 0).UTC(),
		}, nil
	}
	switch {
	case err != nil:
	case t.TotalFen != o.fen:
		err = refusal("ORDER_CONFLICT")
	case t.State == wire.StateSuccess:
		err = refusal("ORDER_PAID")
	case t.State != wire.StateNotPay:
		err = refusal("ORDER_CLOSED")
	}
	return t, err
}

// checkPIN wants the payment PIN above the wallet's own threshold.
func (l *Ledger) checkPIN(w *wallet, total money.Fen, pin string) error {
	switch {
	case total <= w.StepUpFen && pin == "":
		return nil
	case pin == "":
		return refusal("PIN_REQUIRED")
	}
	return l.tryPIN(w, pin)
}

// tryPIN compares a PIN. After pinTries wrong ones in a row none is taken for pinLockFor.
func (l *Ledger) tryPIN(w *wallet, pin string) error {
	if l.now().Before(w.PINLocked) {
		return refusal("PIN_LOCKED")
	}
	if pin == w.PIN {
		w.PINWrong = 0
		return nil
	}
	if w.PINWrong++; w.PINWrong < pinTries {
		return refusal("WRONG_PIN")
	}
	w.PINWrong, w.PINLocked = 0, l.now().Add(pinLockFor)
	return refusal("PIN_LOCKED")
}

func (l *Ledger) receipt(o order, t trade, term terminal, shop merchant, token string) (paidOrder, error) {
	out := paidOrder{TotalFen: t.TotalFen, Merchant: shop.DisplayName}
	var id [8]byte
	if raw, err := hex.DecodeString(token); err == nil {
		copy(id[:], raw)
	}
	var err error
	out.ReceiptText, err = paycode.MakeReceipt(paycode.Receipt{
		Order: o.number, TerminalID: o.terminalID, AmountFen: t.TotalFen, PaidFen: t.PaidFen, PaidAt: uint32(t.PaidAt.Unix()),
		Token: id, Payment: t.LedgerNo,
	}, l.role["receipt"])
	if err != nil {
		return out, err
	}
	var secret [32]byte
	if raw, err := hex.DecodeString(term.Confirm); err == nil {
		copy(secret[:], raw)
	}
	out.Digits, err = paycode.Digits(secret, o.terminalID, o.number, t.TotalFen)
	return out, err
}

// confirm ends the payment that waits for this customer: by the right PIN, by a refusal on the phone, or by the wrong PIN
// that locks it. A wrong PIN before that leaves it waiting.
func (l *Ledger) confirm(phone, pin string, refuse bool) (t trade, err error) {
	push, refused := func() {}, error(nil)
	_, err = l.withWallet(phone, func(txn *badger.Txn, w *wallet) error {
		trades, err := list[trade](txn, "trade/")
		if err != nil {
			return err
		}
		found := false
		for _, candidate := range trades {
			if candidate.Phone == phone && candidate.waits(l.now()) && !candidate.AskedAt.Before(t.AskedAt) {
				t, found = candidate, true
			}
		}
		switch {
		case !w.Device.Online:
			return refusal("PHONE_OFFLINE")
		case !found:
			return refusal("NOTHING_TO_CONFIRM")
		}
		if refused, err = l.confirmed(txn, &t, w, pin, refuse); err != nil || t.State == wire.StateUserPaying {
			return err
		}
		if err := put(txn, tradeKey(t.TerminalID, t.TradeNo), t); err != nil {
			return err
		}
		push, err = l.news(txn, t.TerminalID, t.outcome())
		return err
	})
	if err == nil {
		push()
	}
	return t, cmp.Or(err, refused)
}

// confirmed ends the trade, or leaves it USERPAYING after a wrong PIN; refused is what the customer is told.
func (l *Ledger) confirmed(txn *badger.Txn, t *trade, w *wallet, pin string, refuse bool) (refused, err error) {
	if refuse {
		t.decline("CUSTOMER_REFUSED")
		return nil, nil
	}
	if refused = l.tryPIN(w, pin); refused != nil {
		if refused == refusal("PIN_LOCKED") {
			t.decline("PIN_LOCKED")
		}
		return refused, nil
	}
	err = l.take(txn, t, *w)
	var no refusal
	if errors.As(err, &no) {
		t.decline(string(no))
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return nil, get(txn, walletKey(w.Phone), w) // take noted what was spent
}

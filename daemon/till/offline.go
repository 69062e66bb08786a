package till

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"slices"
	"time"

	"yupos/devices/paycode"
	"yupos/ledgercache"
	"yupos/ledgercache/payment"
)

// This file holds what the counter does while the line is down: SIGNED codes are taken on evidence, a sale without an
// answer may be converted by a manager, and the shop reads whether it could sell offline at all.

// ErrUploaded says that an offline payment can no longer be withdrawn: its upload has begun, or it was sent online before.
var ErrUploaded = errors.New("till: offline payment is on its way to the ledger")

// shutOut are the ledger's words at hello after which this terminal takes nothing on its own: it is not to be believed, or its
// book is not the one that the ledger knows.
var shutOut = map[string]bool{"TERMINAL_REVOKED": true, "TERMINAL_MISMATCH": true, "BOOK_ROLLED_BACK": true, "BOOK_FORKED": true}

// verdict is what the terminal says of a code by itself. One of code, signed and reason is set.
type verdict struct {
	code    *ledgercache.Code   // good, and the ledger is to decide
	signed  *ledgercache.Signed // the line is down, and the book is to decide
	reason  payment.Reason      // refused
	foreign string              // with FOREIGN_CODE: the kind, and behind a colon its name where it has one
}

// judge is what the terminal can say of a code by itself, at the time of its scan: what it is, and steps 1 to 6 of
// codes.md. The path is fixed here, by the line as it is now. What passes is handed to the book, which judges the rest
// inside its step; offline it judges clock, policy and deny list before the code.
func (t *Till) judge(text, symbology string, at time.Time, onlineOnly bool) verdict {
	link := t.o.Link.State()
	up := link.Up
	switch kind := paycode.ClassifyScan(text, symbology); kind {
	case "ONLINE":
		if r := paycode.CheckOnline(text); r != "" {
			return verdict{reason: payment.Reason(r)}
		}
		if !up {
			return verdict{reason: payment.ReasonCodeNeedsLink}
		}
		return verdict{code: &ledgercache.Code{Text: text, ScannedAt: at}}
	case "SIGNED":
		c := t.signed(text, at)
		switch {
		case !up && shutOut[link.Reason]:
			return verdict{reason: payment.Reason(link.Reason)}
		case !up && onlineOnly:
			return verdict{reason: payment.ReasonCodeNeedsLink}
		case !up:
			return verdict{signed: &c}
		case c.Refused != "":
			return verdict{reason: c.Refused}
		}
		return verdict{code: &ledgercache.Code{Text: text, Wallet: c.Wallet, Token: c.Token, Counter: c.Counter, MostFen: c.MostFen, ScannedAt: at}}
	case "MALFORMED":
		return verdict{reason: "MALFORMED"}
	default:
		return verdict{reason: "FOREIGN_CODE", foreign: foreignOf(kind, text)}
	}
}

// foreignOf is what the book keeps of a foreign code: what it is, never the code.
func foreignOf(kind paycode.Kind, text string) string {
	name := paycode.ForeignName(text)
	if name == "" || kind != paycode.KindOtherEMVCo && kind != paycode.KindUnknown {
		return string(kind)
	}
	return string(kind) + ":" + name
}

// signed reads a SIGNED code and judges steps 1 to 6 of codes.md at the time of its scan.
func (t *Till) signed(text string, at time.Time) ledgercache.Signed {
	c := ledgercache.Signed{Text: text, ScannedAt: at}
	s, reason := paycode.ParseSigned(text)
	if reason == "" {
		life, skew := t.window()
		reason = s.VerifyWithin(t.o.Issuers(at), at, life, skew)
	}
	if reason != "" {
		c.Refused = payment.Reason(reason)
		return c
	}
	c.Hash = sha256.Sum256(s.Raw)
	c.Wallet, c.Token, c.Counter, c.MostFen = s.Cert.WalletKey, s.Cert.Token[:], s.Counter, s.MostFen
	c.CertPaymentFen, c.CertAllowanceFen, c.CertCount = s.Cert.PerPaymentFen, s.Cert.AllowanceFen, int(s.Cert.MaxCount)
	return c
}

// window is how old a code may be and how far ahead, in seconds: the ledger's policy where it is stricter.
func (t *Till) window() (life, skew int) {
	life, skew = paycode.CodeLifeSeconds, paycode.CodeSkewSeconds
	if p, err := t.book.Policy(); err == nil && p.Version > 0 {
		life, skew = min(life, p.CodeSeconds), min(skew, p.SkewSeconds)
	}
	return life, skew
}

// AcceptOffline takes a sale that was sent and not answered on its SIGNED code, by a manager's explicit wish (转离线受理). The
// trade keeps its number. One that is paid or taken already is answered as it is. It fails with a Refusal, or as the book
// does; the trade is then as it was.
func (t *Till) AcceptOffline(ctx context.Context, outTradeNo, operatorID string) (payment.Payment, error) {
	p, err := t.book.Trade(outTradeNo)
	if err != nil || p.State == payment.AcceptedOffline || p.State == payment.Success {
		return p, err
	}
	if link := t.o.Link.State(); !link.Up && shutOut[link.Reason] {
		return p, &Refusal{payment.Reason(link.Reason)}
	}
	if p.State != payment.Unknown { // nothing was sent, or the ledger has answered: it wants the customer, or it refused
		return p, &Refusal{payment.ReasonNotConvertible}
	}
	now, err := t.book.AcceptOffline(ctx, p.TradeNo, t.signed(p.Code, p.SubmittedAt), t.o.Clock(), operatorID)
	var refused *ledgercache.Refused
	switch {
	case errors.As(err, &refused):
		return now, &Refusal{refused.Reason}
	case errors.Is(err, payment.ErrIllegalMove): // answered meanwhile
		return t.settledMeanwhile(p.TradeNo)
	}
	return now, err
}

func (t *Till) settledMeanwhile(tradeNo string) (payment.Payment, error) {
	p, err := t.book.ByTradeNo(tradeNo)
	if err == nil && p.State != payment.Success {
		err = &Refusal{payment.ReasonNotConvertible}
	}
	return p, err
}

// withdraw takes an offline payment back before its upload. It fails with ErrUploaded.
func (t *Till) withdraw(ctx context.Context, p payment.Payment, operatorID string) (payment.Payment, error) {
	w, err := t.book.Withdraw(ctx, p.TradeNo, operatorID)
	if !errors.Is(err, payment.ErrIllegalMove) {
		return w, err
	}
	now, readErr := t.book.ByTradeNo(p.TradeNo)
	if now.State == payment.Success {
		return now, cmp.Or(readErr, ErrTradePaid)
	}
	return now, cmp.Or(readErr, ErrUploaded)
}

// offlineReady says whether the shop could take an offline payment now, and what is missing by its name.
func (t *Till) offlineReady() (OfflineReady, error) {
	ready := OfflineReady{Missing: []string{}, Words: []Warning{}}
	now := t.o.Now()
	missing, err := t.book.MissingOffline(now, t.o.Clock())
	if err != nil {
		return ready, err
	}
	if t.book.Err() != nil {
		ready.add("BOOK_STOPPED")
	}
	for _, reason := range missing {
		ready.add(string(reason))
	}
	if link := t.o.Link.State(); !link.Up && shutOut[link.Reason] {
		ready.add(link.Reason)
	}
	if len(t.o.Issuers(now)) == 0 {
		ready.add("UNKNOWN_ISSUER")
	}
	if len(t.o.Receipts(now)) == 0 {
		ready.add("UNKNOWN_LEDGER_KEY")
	}
	ready.OK = len(ready.Missing) == 0
	return ready, nil
}

func (r *OfflineReady) add(name string) {
	w := payment.Reason(name).Words()
	if name == "BOOK_STOPPED" {
		w = payment.Words{ZH: "账本停止写入", EN: "The book takes no entries"}
	}
	if ready, ok := readyWords[name]; ok {
		w = ready
	}
	r.Missing = append(r.Missing, name)
	r.Words = append(r.Words, Warning{name, w.ZH, w.EN})
}

// readyWords say what is missing before any customer is there, and what to do.
var readyWords = map[string]payment.Words{
	string(payment.ReasonClockUntrusted):    {ZH: "终端时间未经账本中心核对，联网一次即可", EN: "The clock was not checked by the ledger; one contact mends it"},
	string(payment.ReasonPolicyStale):       {ZH: "离线规则没有或超过 72 小时，联网一次即可更新", EN: "No offline policy, or one older than 72 hours; one contact renews it"},
	string(payment.ReasonDenyListStale):     {ZH: "停用名单没有或超过 72 小时，联网一次即可更新", EN: "No deny list, or one older than 72 hours; one contact renews it"},
	string(payment.ReasonOverTerminalLimit): {ZH: "离线额度已用完或最早一笔超过 72 小时，联网上传后恢复", EN: "The offline limit is reached, or the oldest payment is past 72 hours; upload to go on"},
	"UNKNOWN_ISSUER":                        {ZH: "没有有效的付款码签发公钥，请联网更新密钥", EN: "No valid key for wallet codes; go online to renew the keys"},
	"UNKNOWN_LEDGER_KEY":                    {ZH: "没有有效的凭证公钥，请联网更新密钥", EN: "No valid key for receipts; go online to renew the keys"},
}

// checkEvery is how often the shop's readiness to sell offline is written to the log, changed or not.
const checkEvery = 24 * time.Hour

// selfCheck writes once a day, and at the start, whether the shop could sell offline, so that what is missing is known
// before the line fails.
func (t *Till) selfCheck(ctx context.Context) error {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		ready, err := t.offlineReady()
		switch {
		case err != nil:
			t.log.Warn("offline self-check failed", slog.Any("err", err))
		case ready.OK:
			t.log.Info("offline self-check", slog.Bool("ok", true))
		default:
			t.log.Warn("offline self-check", slog.Bool("ok", false), slog.Any("missing", ready.Missing))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// sameAmountWithin is how long an unresolved sale makes a second one of the same amount suspicious (product.md).
const sameAmountWithin = 2 * time.Minute

// Unresolved are the sales of the same amount as p, opened within two minutes before now, whose result is not known: p may
// be the same customer once more.
func (t *Till) Unresolved(p payment.Payment) ([]payment.Payment, error) {
	list, err := t.book.Unresolved(p.TotalFen, t.o.Now().Add(-sameAmountWithin))
	return slices.DeleteFunc(list, func(u payment.Payment) bool { return u.TradeNo == p.TradeNo || u.CreatedAt.After(p.CreatedAt) }), err
}

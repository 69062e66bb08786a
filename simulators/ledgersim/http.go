package ledgersim

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"

	"github.com/dgraph-io/badger/v4"

	"yupos/devices/paycode"
	"yupos/ledgercache/money"
	"yupos/simulators/walletsim"
)

// maxBody is the longest request of the control API, in bytes.
const maxBody = 64 << 10

// Handler serves the ledger's part of the control API (interfaces.md, Simulator control API) and the phones' page. Whoever
// mounts it checks Host and Origin.
func (l *Ledger) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, do := range map[string]func(*http.Request) (any, error){
		"GET /_sim/wallets":                  l.getWallets,
		"GET /_sim/wallets/{phone}":          l.getWallet,
		"POST /_sim/wallets/{phone}/code":    l.postCode,
		"POST /_sim/wallets/{phone}/look":    l.postLook,
		"POST /_sim/wallets/{phone}/pay":     l.postPay,
		"POST /_sim/wallets/{phone}/confirm": l.postConfirm,
		"POST /_sim/wallets/{phone}/state":   l.postState,
		"GET /_sim/wallets/{phone}/bills":    l.getBills,
		"POST /_sim/link":                    l.postLink,
		"GET /_sim/link":                     func(*http.Request) (any, error) { return l.SetLink(Link{}), nil },
		"POST /_sim/faults":                  l.postFault,
		"DELETE /_sim/faults":                func(*http.Request) (any, error) { return map[string]any{"faults": l.ClearFaults()}, nil },
		"GET /_sim/faults":                   l.getFaults,
		"GET /_sim/ledger/policy":            l.getPolicy,
		"POST /_sim/ledger/policy":           l.postPolicy,
		"GET /_sim/ledger/deny":              l.getDeny,
		"POST /_sim/ledger/deny":             l.postDeny,
		"POST /_sim/ledger/keys":             l.postKeys,
		"POST /_sim/ledger/replay":           l.postReplay,
		"POST /_sim/ledger/maintenance":      l.postMaintenance,
		"GET /_sim/ledger/trades":            l.getTrades,
		"POST /_sim/ledger/activations":      l.postActivation,
		"POST /_sim/ledger/terminals/{id}":   l.postTerminal,
		"GET /_sim/ledger/assert":            func(*http.Request) (any, error) { return l.Assert() },
		"/_sim/":                             func(*http.Request) (any, error) { return nil, refusal("NOT_FOUND") },
	} {
		mux.Handle(pattern, l.answer(do))
	}
	mux.HandleFunc("POST /_sim/picture", l.picture)
	mux.Handle("GET /phone/", http.StripPrefix("/phone", walletsim.Page()))
	return mux
}

// picture draws a code that the phone shows. The text comes in the body: a pay code never stands in an address.
func (l *Ledger) picture(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Text string `json:"text"`
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	err := decode(r, &in)
	var p paycode.Picture
	if err == nil && in.Text != "" {
		p, err = paycode.Draw(in.Text)
	}
	if err != nil || in.Text == "" {
		l.answer(func(*http.Request) (any, error) { return nil, refusal("MALFORMED_REQUEST") }).ServeHTTP(w, r)
		return
	}
	w.Header().Set("Content-Type", "image/svg+xml")
	w.Header().Set("Cache-Control", "no-store")
	io.WriteString(w, p.SVG())
}

func (l *Ledger) answer(do func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		out, err := do(r)
		if err == nil {
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(out)
			return
		}
		var no refusal
		if !errors.As(err, &no) {
			l.log.Error("request failed", slog.Any("err", err))
			no = "LEDGER_ERROR"
		}
		words, known := refusals[string(no)]
		if !known {
			words = refusalWords{http.StatusConflict, "账本拒绝：" + string(no), "refused by the ledger: " + string(no)}
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(words.status)
		json.NewEncoder(w).Encode(map[string]any{
			"type": "about:blank", "title": http.StatusText(words.status), "status": words.status, "code": string(no),
			"detail": words.zh, "detail_en": words.en, "retryable": words.status >= 500,
		})
	})
}

type refusalWords struct {
	status int
	zh, en string
}

var refusals = map[string]refusalWords{
	"NOT_FOUND":            {404, "没有这个地址或方法", "nothing here answers this"},
	"MALFORMED_REQUEST":    {400, "请求不是正确的 JSON 或含未知字段", "the body is no JSON object with known fields"},
	"BAD_FAULT":            {400, "故障规则不正确", "unknown op or action, or a number out of range"},
	"UNKNOWN_KIND":         {400, "kind 应为 ONLINE 或 SIGNED", "kind must be ONLINE or SIGNED"},
	"WALLET_UNKNOWN":       {404, "没有这个钱包", "no such wallet"},
	"TERMINAL_REVOKED":     {409, "终端已停用", "the terminal is revoked"},
	"TRY_AGAIN":            {503, "请再试一次", "try again"},
	"LEDGER_ERROR":         {500, "账本内部错误", "the ledger had an error"},
	"PHONE_OFFLINE":        {409, "手机没有网络", "the phone is offline"},
	"MALFORMED":            {422, "不是正确的收款码", "not a well-formed code"},
	"UNKNOWN_TERMINAL":     {422, "终端未登记", "no such terminal"},
	"ORDER_FORGED":         {422, "收款码签名无效，请勿付款", "the code's signature is false, do not pay"},
	"ORDER_EXPIRED":        {409, "收款码已过期", "the code has expired"},
	"ORDER_EXPIRY_TOO_FAR": {422, "收款码有效期异常", "the code expires too far ahead"},
	"ORDER_CONFLICT":       {409, "同一订单的金额不同", "the same order with another amount"},
	"ORDER_PAID":           {409, "此单已支付", "this order is paid"},
	"ORDER_CLOSED":         {409, "此单已关闭", "this order is closed"},
	"PIN_REQUIRED":         {403, "请输入支付密码", "the payment PIN is needed"},
	"OFFLINE_BLOCKED":      {403, "离线付款已停用，请联系客服", "offline payments are shut off; call support"},
	"PIN_LOCKED":           {403, "支付密码输错过多，已锁定三小时", "too many wrong PINs; locked for three hours"},
	"WRONG_PIN":            {403, "支付密码错误", "wrong PIN"},
	"INSUFFICIENT_BALANCE": {409, "余额不足", "not enough balance"},
	"WALLET_FROZEN":        {403, "钱包已冻结", "the wallet is frozen"},
	"LIMIT_SINGLE":         {409, "超出单笔限额", "above the limit for one payment"},
	"LIMIT_DAY":            {409, "超出当日限额", "above the limit for the day"},
	"NOTHING_TO_CONFIRM":   {409, "没有待确认的付款", "no payment waits for this customer"},
	"DECLINED":             {409, "账本拒绝", "declined by the ledger"},
}

// decode reads one JSON object with known fields; an empty body is an empty object.
func decode(r *http.Request, into any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return refusal("MALFORMED_REQUEST")
	}
	if d.More() {
		return refusal("MALFORMED_REQUEST")
	}
	return nil
}

// walletView is a customer as the control API shows it.
type walletView struct {
	Phone          string    `json:"phone"`
	Name           string    `json:"name"`
	Token          string    `json:"token"`
	Tier           int       `json:"tier"`
	BalanceFen     money.Fen `json:"balance_fen"`
	Online         bool      `json:"online"`
	Frozen         bool      `json:"frozen"`
	PIN            string    `json:"pin"`
	Coupons        []any     `json:"coupons"`
	OfflineLeftFen money.Fen `json:"offline_left_fen"`
	Waiting        *waiting  `json:"waiting,omitempty"` // a payment that this customer must confirm
}

type waiting struct {
	TotalFen money.Fen `json:"total_fen"`
	Merchant string    `json:"merchant"`
}

func (l *Ledger) view(txn *badger.Txn, w wallet) (walletView, error) {
	balance, err := balanceOf(txn, walletAccount(w.Phone))
	v := walletView{
		Phone: w.Phone, Name: w.Name, Token: w.Token, Tier: w.Tier, BalanceFen: balance, Online: w.Device.Online, Frozen: w.Frozen,
		PIN: w.PIN, Coupons: []any{}, OfflineLeftFen: min(offlineAll, balance),
	}
	return v, err
}

func (l *Ledger) getWallets(*http.Request) (any, error) {
	out := []walletView{}
	err := l.db.View(func(txn *badger.Txn) error {
		wallets, err := list[wallet](txn, "wallet/")
		if err != nil {
			return err
		}
		for _, w := range wallets {
			v, err := l.view(txn, w)
			if err != nil {
				return err
			}
			out = append(out, v)
		}
		return nil
	})
	return out, err
}

func (l *Ledger) getWallet(r *http.Request) (any, error) { return l.walletView(r.PathValue("phone")) }

func (l *Ledger) walletView(phone string) (v walletView, err error) {
	err = l.db.View(func(txn *badger.Txn) error {
		var w wallet
		if err := get(txn, walletKey(phone), &w); errors.Is(err, errNone) {
			return refusal("WALLET_UNKNOWN")
		} else if err != nil {
			return err
		}
		if v, err = l.view(txn, w); err != nil {
			return err
		}
		v.Waiting, err = l.waitingFor(txn, phone)
		return err
	})
	return v, err
}

// waitingFor is the payment that the customer must confirm now, if there is one.
func (l *Ledger) waitingFor(txn *badger.Txn, phone string) (*waiting, error) {
	trades, err := list[trade](txn, "trade/")
	if err != nil {
		return nil, err
	}
	for _, t := range trades {
		if t.Phone == phone && t.waits(l.now()) {
			var shop merchant
			err := get(txn, merchantKey(t.MerchantID), &shop)
			return &waiting{t.TotalFen, shop.DisplayName}, err
		}
	}
	return nil, nil
}

func (l *Ledger) postCode(r *http.Request) (any, error) {
	var in struct {
		Kind string `json:"kind"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	text, err := l.showCode(r.PathValue("phone"), in.Kind)
	return map[string]string{"text": text}, err
}

// postLook answers whom an ORDER would pay, by the ledger's own name for the shop, and how much. Nothing is recorded.
func (l *Ledger) postLook(r *http.Request) (any, error) {
	var in struct {
		OrderText string `json:"order_text"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return l.lookAtOrder(r.PathValue("phone"), in.OrderText)
}

func (l *Ledger) postPay(r *http.Request) (any, error) {
	var in struct {
		OrderText string `json:"order_text"`
		PIN       string `json:"pin"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return l.payOrder(r.PathValue("phone"), in.OrderText, in.PIN)
}

func (l *Ledger) postConfirm(r *http.Request) (any, error) {
	var in struct {
		PIN    string `json:"pin"`
		Refuse bool   `json:"refuse"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	t, err := l.confirm(r.PathValue("phone"), in.PIN, in.Refuse)
	return map[string]any{"state": t.State, "total_fen": t.TotalFen}, err
}

func (l *Ledger) postState(r *http.Request) (any, error) {
	var in struct {
		Online *bool `json:"online"`
		Frozen *bool `json:"frozen"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	w, err := l.withWallet(r.PathValue("phone"), func(_ *badger.Txn, w *wallet) error {
		set(&w.Device.Online, in.Online)
		set(&w.Frozen, in.Frozen)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return l.walletView(w.Phone)
}

// bill is one line of a customer's bills.
type bill struct {
	At       string    `json:"at"`
	Merchant string    `json:"merchant"`
	State    string    `json:"state"`
	PaidFen  money.Fen `json:"paid_fen"`
	BackFen  money.Fen `json:"back_fen"`
	TradeNo  string    `json:"trade_no"`
}

func (l *Ledger) getBills(r *http.Request) (any, error) {
	out := []bill{}
	phone, month := r.PathValue("phone"), r.URL.Query().Get("month")
	err := l.db.View(func(txn *badger.Txn) error {
		trades, err := list[trade](txn, "trade/")
		if err != nil {
			return err
		}
		for _, t := range trades {
			at := shanghaiDay(t.PaidAt)
			if t.Phone != phone || t.PaidAt.IsZero() || month != "" && at[:7] != month {
				continue
			}
			var shop merchant
			if err := get(txn, merchantKey(t.MerchantID), &shop); err != nil {
				return err
			}
			out = append(out, bill{at, shop.DisplayName, t.State, t.PaidFen, t.RefundedFen, t.TradeNo})
		}
		return nil
	})
	return out, err
}

func (l *Ledger) postLink(r *http.Request) (any, error) {
	var in Link
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	for _, p := range []*float64{in.Loss, in.Duplicate, in.Reorder, in.CutAfter} {
		if p != nil && (*p < 0 || *p > 1) {
			return nil, refusal("MALFORMED_REQUEST")
		}
	}
	if in.LatencyMS != nil && (*in.LatencyMS < 0 || *in.LatencyMS > 60000) {
		return nil, refusal("MALFORMED_REQUEST")
	}
	return l.SetLink(in), nil
}

func (l *Ledger) postFault(r *http.Request) (any, error) {
	var in Fault
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	all, err := l.AddFault(in)
	return map[string]any{"faults": all}, err
}

func (l *Ledger) getFaults(*http.Request) (any, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return map[string]any{"faults": l.faultList()}, nil
}

func (l *Ledger) getTrades(r *http.Request) (any, error) {
	all, err := l.Trades(r.URL.Query().Get("terminal"))
	return map[string]any{"trades": all}, err
}

package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"yupos/daemon/auth"
	"yupos/daemon/till"
	"yupos/devices/paycode"
	"yupos/ledgercache"
	"yupos/ledgercache/money"
)

// Problem is the one shape of every error (RFC 9457). It never carries a pay code, a token or a value of the request.
type Problem struct {
	Type      string  `json:"type" doc:"about:blank"`
	Title     string  `json:"title"`
	Status    int     `json:"status"`
	Code      string  `json:"code" doc:"stable name"`
	Detail    string  `json:"detail" doc:"for people, Chinese"`
	DetailEN  string  `json:"detail_en" doc:"for people, English"`
	Retryable bool    `json:"retryable" doc:"the same request may succeed later"`
	TraceID   string  `json:"trace_id"`
	Errors    []Fault `json:"errors,omitempty" doc:"each field that was wrong"`
}

// Fault is one field that was wrong.
type Fault struct {
	Location string `json:"location" doc:"where, like body.total_fen"`
	Message  string `json:"message" doc:"for people, English"`
}

// Error is the problem for a log.
func (p *Problem) Error() string { return p.Code + ": " + p.DetailEN }

// GetStatus is the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType makes huma answer application/problem+json.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// Errors that this package itself makes. The rest have owners elsewhere.
var (
	errRefundUnknown = errors.New("web: refund not found")
	errNoShiftOpen   = errors.New("web: no shift is open")
	errNotAvailable  = errors.New("web: not available in this version")
	errNoRoute       = errors.New("web: no such address")
	errMethod        = errors.New("web: method not allowed")
	errHost          = errors.New("web: host not allowed")
	errCrossOrigin   = errors.New("web: cross-origin request")
	errTooLarge      = errors.New("web: body too large")
	errSlowBody      = errors.New("web: body not received")
	errNoCode        = errors.New("web: no code is shown")
	errPanic         = errors.New("web: internal")
	errNotReady      = errors.New("web: not ready")
	errTooMany       = errors.New("web: too many event streams")
)

// verdict is how one error looks over HTTP.
type verdict struct {
	err       error
	status    int
	code      string
	zh, en    string
	retryable bool
}

// verdicts is the one map of errors to HTTP. The first that matches wins.
var verdicts = []verdict{
	{auth.ErrNoToken, 401, "UNAUTHORIZED", "缺少令牌", "A bearer token is needed", false},
	{auth.ErrBadToken, 401, "UNAUTHORIZED", "令牌无效", "The bearer token is not valid", false},
	{auth.ErrScope, 403, "FORBIDDEN", "此令牌没有该权限，需要店长授权", "This token does not have the right; a manager's is needed", false},
	{ledgercache.ErrOutTradeNoUsed, 409, "OUT_TRADE_NO_USED", "商户单号已用于另一笔不同的交易", "out_trade_no was used with another body", false},
	{ledgercache.ErrOutRefundNoUsed, 409, "OUT_REFUND_NO_USED", "退款单号已用于另一笔不同的退款", "out_refund_no was used with another body", false},
	{ledgercache.ErrCounterBusy, 409, "COUNTER_BUSY", "柜台正在处理另一笔交易，请先完成或取消", "The counter is busy with another trade; finish or cancel it first", true},
	{till.ErrTradePaid, 409, "TRADE_PAID", "交易已付款，不能撤销，请退款", "The trade is paid and cannot be cancelled; refund it", false},
	{till.ErrUploaded, 409, "TRADE_UPLOADED", "离线付款已开始上传或曾联网发送，不能撤回，请待入账后退款", "The offline payment is on its way to the ledger and cannot be withdrawn; refund it once it is settled", false},
	{ledgercache.ErrNoSigner, 503, "BOOK_STOPPED", "终端密钥不可用，不能离线受理，未收款", "The terminal's key is not there: nothing is accepted offline, no money was taken", false},
	{ledgercache.ErrNotPaid, 409, "TRADE_NOT_PAID", "交易未付款", "The trade is not paid", false},
	{ledgercache.ErrRefundTooMuch, 409, "REFUND_OVER_PAID", "退款超过可退金额", "More than what is left to refund", false},
	{ledgercache.ErrRefundTooMany, 409, "REFUND_TOO_MANY", "退款次数已达上限", "Too many partial refunds", false},
	{ledgercache.ErrRefundTooLate, 409, "REFUND_WINDOW_CLOSED", "超过退款期限", "Too late to refund", false},
	{ledgercache.ErrShiftOpen, 409, "SHIFT_OPEN", "已有班次未结束", "A shift is open already", false},
	{ledgercache.ErrNoShift, 409, "NO_SHIFT", "尚未开班，请先开班", "No shift is open; open one first", false},
	{errNoShiftOpen, 404, "NO_SHIFT", "当前没有班次", "No shift is open", false},
	{errRefundUnknown, 404, "REFUND_NOT_FOUND", "没有这笔退款", "There is no such refund", false},
	{ledgercache.ErrNotFound, 404, "TRADE_NOT_FOUND", "没有这笔交易", "There is no such trade", false},
	{ledgercache.ErrQuery, 400, "BAD_REQUEST", "查询条件无效：日期、状态或游标", "Bad date, state or cursor", false},
	{money.ErrCurrency, 400, "CURRENCY_NOT_SUPPORTED", "只支持人民币 CNY", "Only CNY is accepted", false},
	{money.ErrRange, 400, "BAD_REQUEST", amountZH, amountEN, false},
	{ledgercache.ErrSealed, 503, "BOOK_STOPPED", "账本写入失败，停止收款，终端正在重启，结果以查询为准", "The book failed to write; the terminal restarts, query to learn the result", true},
	{ledgercache.ErrDiskFull, 503, "BOOK_DISK_FULL", "磁盘将满，停止收款，本次请求未做任何处理。请清理磁盘，有空间后自动恢复，再用原单号重试", "Disk almost full, no new payments; nothing was done. Make room, then try again with the same number", true},
	{ledgercache.ErrNotHeld, 503, "BOOK_STOPPED", "账本只读，只能查看最近的交易，无法确认有无此单", "The book is read-only and holds the newest trades; whether there is this one cannot be told", true},
	{ledgercache.ErrDamaged, 503, "BOOK_STOPPED", "账本损坏，停止收款，本次请求未做任何处理。请勿删除任何文件，联系客服", "The book is damaged; nothing was done. Delete nothing and call support", false},
	{ledgercache.ErrReadOnly, 503, "BOOK_STOPPED", "磁盘无法写入，停止收款，本次请求未做任何处理。请检查磁盘，终端会自动重试", "The disk cannot be written; nothing was done. Check the disk; the terminal tries again by itself", true},
	{ledgercache.ErrClosed, 503, "STOPPING", "终端正在停止，请稍后用原单号重试", "The terminal is stopping; try again with the same number", true},
	{errNotAvailable, 501, "NOT_AVAILABLE", "本版本尚未提供此功能", "Not available in this version", false},
	{errNoRoute, 404, "NOT_FOUND", "没有这个地址", "There is nothing at this address", false},
	{errMethod, 405, "METHOD_NOT_ALLOWED", "此地址不支持该方法", "The address does not take this method", false},
	{paycode.ErrNothingRead, 422, "NOTHING_READ", "图片中没有可读的码，请对准后再拍", "No code can be read in the picture; take another", true},
	{paycode.ErrPicture, 400, "BAD_PICTURE", "不是可读的图片：须为 PNG、JPEG、GIF 或 BMP，至多 4 MiB、1920×1088 像素", "Not a picture that is read here: PNG, JPEG, GIF or BMP, at most 4 MiB and 1920 by 1088 pixels", false},
	{errHost, 421, "HOST_NOT_ALLOWED", "不允许的主机名", "This host name is not served here", false},
	{errCrossOrigin, 403, "CROSS_ORIGIN", "拒绝跨站请求", "Cross-origin requests are refused", false},
	{errTooLarge, 413, "BODY_TOO_LARGE", "请求体超过 64 KiB（图片 4 MiB）", "The body is larger than 64 KiB (a picture: 4 MiB)", false},
	{errSlowBody, 408, "BODY_NOT_RECEIVED", "请求体未完整送达，未做任何处理", "The body did not arrive; nothing was done", true},
	{errNoCode, 404, "NO_CODE", "当前没有动态码", "No code is shown now", false},
	{errNotReady, 503, "NOT_READY", "尚未就绪，请稍候；若持续，请联系客服", "Not ready yet; if it lasts, call support", true},
	{errTooMany, 503, "TOO_MANY_STREAMS", "事件流过多", "Too many event streams", true},
	{context.DeadlineExceeded, 503, "BUSY", "终端繁忙，请用原单号重试", "The terminal is busy; try again with the same number", true},
	{context.Canceled, 503, "BUSY", "请求已中断，请用原单号重试", "The request was cut off; try again with the same number", true},
}

// What a person is told of a field that was wrong.
const (
	amountZH = "金额须为 1 到 4294967295 的整数分（0.01 至 42949672.95 元），不能为零、负数、小数或字符串"
	amountEN = "an amount is a whole number of fen from 1 to 4294967295, not zero, negative, fractional or a string"
	numberZH = "单号为 1 至 64 位 A-Z a-z 0-9 _ - | * @ . ，且至少含一个字母或数字"
	numberEN = "a number is 1 to 64 of A-Z a-z 0-9 _ - | * @ . with at least one letter or digit"
	waitZH   = "wait 为 0 到 60 秒，例如 25s"
	waitEN   = "wait is 0 to 60 seconds, like 25s"
)

var fieldWords = map[string][2]string{
	"body.total_fen": {amountZH, amountEN}, "body.refund_fen": {amountZH, amountEN},
	"body.out_trade_no": {numberZH, numberEN}, "body.out_refund_no": {numberZH, numberEN},
	"query.wait": {waitZH, waitEN}, "body.currency": {"只支持人民币 CNY", "only CNY is accepted"},
	"body.offline": {`offline 只能是 "auto" 或 "never"`, `offline is "auto" or "never"`},
}

// problem turns err into what the caller is told. An error that nobody expected becomes INTERNAL without its text.
func (s *Server) problem(ctx context.Context, err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		p.TraceID = traceOf(ctx)
		return p
	}
	var refused *till.Refusal
	if errors.As(err, &refused) {
		w := refused.Reason.Words()
		return newProblem(ctx, verdict{err, http.StatusConflict, string(refused.Reason), w.ZH, w.EN, false})
	}
	if v, known := verdictOf(err); known {
		return newProblem(ctx, v)
	}
	s.log.ErrorContext(ctx, "request failed", "trace_id", traceOf(ctx), "err", err)
	return newProblem(ctx, verdict{nil, 500, "INTERNAL", "终端内部错误，结果以查询为准", "Internal error; query to learn the result", true})
}

func verdictOf(err error) (verdict, bool) {
	for _, v := range verdicts {
		if errors.Is(err, v.err) {
			return v, true
		}
	}
	return verdict{}, false
}

func newProblem(ctx context.Context, v verdict) *Problem {
	return &Problem{
		Type: "about:blank", Title: http.StatusText(v.status), Status: v.status, Code: v.code, Detail: v.zh, DetailEN: v.en,
		Retryable: v.retryable, TraceID: traceOf(ctx),
	}
}

func badRequest(ctx context.Context, location, zh, en string) *Problem {
	p := newProblem(ctx, verdict{nil, 400, "BAD_REQUEST", zh, en, false})
	p.Errors = []Fault{{location, en}}
	return p
}

// init makes huma speak in Problems: its error constructors are package variables, and only this package uses huma.
func init() {
	huma.NewErrorWithContext = func(c huma.Context, status int, message string, errs ...error) huma.StatusError {
		return validationProblem(c.Context(), status, message, errs)
	}
	huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
		return validationProblem(context.Background(), status, message, errs)
	}
}

// validationProblem is what huma found wrong with a request, in one shape. Values are left out: they may be pay codes.
func validationProblem(ctx context.Context, status int, message string, errs []error) *Problem {
	if status >= 500 {
		return newProblem(ctx, verdict{nil, status, "INTERNAL", "终端内部错误，结果以查询为准", "Internal error; query to learn the result", true})
	}
	if status == http.StatusUnprocessableEntity {
		status = http.StatusBadRequest
	}
	p := newProblem(ctx, verdict{nil, status, "BAD_REQUEST", "请求无效：" + message, "Bad request: " + message, false})
	if status == http.StatusUnsupportedMediaType {
		p.Code, p.Detail, p.DetailEN = "JSON_EXPECTED", "请求须为 application/json", "The body must be application/json"
	}
	for _, err := range errs {
		if f, ok := faultOf(err); ok {
			p.Errors = append(p.Errors, f)
		}
	}
	if len(p.Errors) > 0 {
		p.Detail, p.DetailEN = faultWords(p.Errors[0])
	}
	return p
}

func faultOf(err error) (Fault, bool) {
	if err == nil {
		return Fault{}, false
	}
	var d huma.ErrorDetailer
	if !errors.As(err, &d) {
		return Fault{Location: "body", Message: "not readable as JSON of the expected shape"}, true
	}
	detail := d.ErrorDetail()
	location := detail.Location
	if field, ok := strings.CutPrefix(detail.Message, "expected required property "); ok && location == "body" {
		location += "." + strings.TrimSuffix(field, " to be present")
	}
	message := detail.Message
	if strings.Contains(message, "json:") || strings.Contains(message, "invalid character") || strings.Contains(message, "unmarshal") {
		message = "not readable as JSON of the expected shape"
	}
	return Fault{Location: location, Message: message}, true
}

func faultWords(f Fault) (zh, en string) {
	if w, ok := fieldWords[f.Location]; ok {
		return w[0], w[1]
	}
	if f.Message == "unexpected property" {
		return fmt.Sprintf("未知字段 %s", f.Location), fmt.Sprintf("unknown field %s", f.Location)
	}
	return fmt.Sprintf("字段 %s 无效：%s", f.Location, f.Message), fmt.Sprintf("%s: %s", f.Location, f.Message)
}

// fail writes err as a problem.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := s.problem(r.Context(), err)
	body, err := json.Marshal(p)
	if err != nil {
		body = []byte(`{"code":"INTERNAL"}`) // a struct of texts always marshals
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="posd"`)
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // the peer may be gone
}

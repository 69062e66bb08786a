package web

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"yupos/daemon/auth"
	"yupos/daemon/till"
	"yupos/ledgercache"
	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
)

const maxWait = 60 * time.Second

// WaitParam is how long a call waits for its result.
type WaitParam struct {
	Wait string `query:"wait" maxLength:"16" doc:"how long to wait for the result, 0 to 60 seconds: 25s or 25" example:"25s"`
}

func (w WaitParam) duration(ctx context.Context) (time.Duration, error) {
	if w.Wait == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(w.Wait)
	if n, numeric := strconv.Atoi(w.Wait); numeric == nil && n >= 0 && n <= int(maxWait.Seconds()) {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d < 0 || d > maxWait {
		return 0, badRequest(ctx, "query.wait", waitZH, waitEN)
	}
	return d, nil
}

// PayRequest asks for a payment.
type PayRequest struct {
	OutTradeNo string `json:"out_trade_no" minLength:"1" maxLength:"64" pattern:"^[_|*@.-]*[A-Za-z0-9][A-Za-z0-9_|*@.-]*$" doc:"the register's number, unique here: 1 to 64 of A-Z a-z 0-9 _ - | * @ . with at least one letter or digit"`
	TotalFen   int64  `json:"total_fen" minimum:"1" maximum:"4294967295" doc:"whole fen"`
	AuthCode   string `json:"auth_code,omitempty" maxLength:"1024" doc:"the customer's pay code; absent: the terminal's scanner is armed"`
	Subject    string `json:"subject,omitempty" maxLength:"256"`
	Attach     string `json:"attach,omitempty" maxLength:"256" doc:"given back as it is"`
	OperatorID string `json:"operator_id,omitempty" maxLength:"32" doc:"a label; who did it is the caller of the token"`
	Currency   string `json:"currency,omitempty" doc:"CNY, the default; any other is refused"`
	Offline    string `json:"offline,omitempty" enum:"auto,never" doc:"auto, the default, or never"`
}

// PrecreateRequest asks for a dynamic code.
type PrecreateRequest struct {
	OutTradeNo string `json:"out_trade_no" minLength:"1" maxLength:"64" pattern:"^[_|*@.-]*[A-Za-z0-9][A-Za-z0-9_|*@.-]*$" doc:"the register's number, unique here"`
	TotalFen   int64  `json:"total_fen" minimum:"1" maximum:"4294967295" doc:"whole fen"`
	Subject    string `json:"subject,omitempty" maxLength:"256"`
	Attach     string `json:"attach,omitempty" maxLength:"256" doc:"given back as it is"`
	OperatorID string `json:"operator_id,omitempty" maxLength:"32" doc:"a label; who did it is the caller of the token"`
	Currency   string `json:"currency,omitempty" doc:"CNY, the default; any other is refused"`
}

type payInput struct {
	WaitParam
	Body PayRequest
}

type precreateInput struct{ Body PrecreateRequest }

type tradeInput struct {
	WaitParam
	OutTradeNo string `path:"out_trade_no"`
}

// actRequest is the body of an act without contents.
type actRequest struct {
	OperatorID string `json:"operator_id,omitempty" maxLength:"32" doc:"a label; who did it is the caller of the token"`
}

type actInput struct {
	WaitParam
	OutTradeNo string      `path:"out_trade_no"`
	Body       *actRequest `required:"false"`
}

type tradeOutput struct {
	Status   int
	Replayed string `header:"Idempotent-Replayed" doc:"true when the same request had been answered before"`
	Body     Trade
}

func (s *Server) addTrades() {
	operation(s, http.MethodPost, "/v1/trade/pay", "pay", "收款：扫顾客付款码 · take a payment by the customer's code", auth.Pay, s.pay)
	operation(s, http.MethodPost, "/v1/trade/precreate", "precreate", "收款：出示动态码 · show a dynamic code", auth.Show, s.precreate)
	operation(s, http.MethodGet, "/v1/trade/{out_trade_no}", "query", "查单 · query, asks the ledger where the trade is open", auth.Query, s.query)
	operation(s, http.MethodGet, "/v1/trades", "trades", "交易列表 · list trades, newest first", auth.Query, s.list)
	operation(s, http.MethodPost, "/v1/trade/{out_trade_no}/cancel", "cancel", "撤销未付款的交易，或撤回未上传的离线付款（店长） · close or reverse; withdraw an offline payment before its upload, a manager's right", auth.Cancel, s.cancel)
	operation(s, http.MethodPost, "/v1/trade/{out_trade_no}/confirm", "confirm", "断网时凭顾客凭证或确认码入账 · settle a shown order by receipt or digits", auth.Pay, s.confirm)
	operation(s, http.MethodPost, "/v1/trade/{out_trade_no}/accept_offline", "accept-offline", "转离线受理 · take a sale without an answer on its SIGNED code, a manager's right", auth.Refund, s.acceptOffline)
	operation(s, http.MethodPost, "/v1/trade/{out_trade_no}/print", "print", "重打印 · print a copy of the receipt", auth.Print, s.print)
}

func (s *Server) pay(ctx context.Context, in *payInput) (*tradeOutput, error) {
	d, err := in.duration(ctx)
	if err != nil {
		return nil, err
	}
	b := in.Body
	if err := money.CheckCurrency(b.Currency); err != nil {
		return nil, err
	}
	p, replayed, err := s.till.Pay(ctx, till.Sale{
		OutTradeNo: b.OutTradeNo, TotalFen: money.Fen(b.TotalFen), AuthCode: b.AuthCode, Subject: b.Subject, Attach: b.Attach,
		OperatorID: b.OperatorID, Caller: callerOf(ctx).Name, NoOffline: b.Offline == "never",
	})
	if err != nil {
		return nil, err
	}
	if !replayed {
		s.audit(ctx, "pay", b.OutTradeNo)
	}
	out, err := s.answer(ctx, p, d, replayed)
	if err != nil {
		return nil, err
	}
	return s.warned(p, out)
}

// answer waits as long as the caller wishes and answers the trade: 200 when nobody needs to wait any longer, else 202.
func (s *Server) answer(ctx context.Context, p payment.Payment, d time.Duration, replayed bool) (*tradeOutput, error) {
	if d > 0 && !p.State.EndsWait() {
		var err error
		if p, err = s.till.Wait(ctx, p.OutTradeNo, d); err != nil {
			return nil, err
		}
	}
	out := &tradeOutput{Status: http.StatusAccepted, Body: tradeOf(p, s.o.Now())}
	if p.State.EndsWait() {
		out.Status = http.StatusOK
	}
	if replayed {
		out.Replayed = "true"
	}
	return out, nil
}

// warned adds to the answer of a new sale that another of the same amount may be the same customer's.
func (s *Server) warned(p payment.Payment, out *tradeOutput) (*tradeOutput, error) {
	list, err := s.till.Unresolved(p)
	if err != nil || len(list) == 0 {
		return out, err
	}
	amount := p.TotalFen.String()
	out.Body.Warnings = append(out.Body.Warnings, till.Warning{
		Code: "SAME_AMOUNT_UNRESOLVED", Text: "两分钟内另有一笔 " + amount + " 结果未知（" + list[0].OutTradeNo + "），请先查询，以免重复收款",
		TextEN: "Another sale of " + amount + " within two minutes has no result yet (" + list[0].OutTradeNo + "); ask about it first, not to charge twice",
	})
	return out, nil
}

func (s *Server) precreate(ctx context.Context, in *precreateInput) (*tradeOutput, error) {
	b := in.Body
	if err := money.CheckCurrency(b.Currency); err != nil {
		return nil, err
	}
	p, replayed, err := s.till.Precreate(ctx, till.Sale{
		OutTradeNo: b.OutTradeNo, TotalFen: money.Fen(b.TotalFen), Subject: b.Subject, Attach: b.Attach,
		OperatorID: b.OperatorID, Caller: callerOf(ctx).Name,
	})
	if err != nil {
		return nil, err
	}
	if !replayed {
		s.audit(ctx, "precreate", b.OutTradeNo)
	}
	out, err := s.answer(ctx, p, 0, replayed)
	if err != nil {
		return nil, err
	}
	out.Status = http.StatusOK
	return s.warned(p, out)
}

func (s *Server) query(ctx context.Context, in *tradeInput) (*tradeOutput, error) {
	d, err := in.duration(ctx)
	if err != nil {
		return nil, err
	}
	p, err := s.till.Trade(in.OutTradeNo)
	if err != nil {
		return nil, err
	}
	return s.answer(ctx, p, d, false)
}

// acceptOffline is the operator's explicit choice after a missing answer. Who chose is the caller, never a field.
func (s *Server) acceptOffline(ctx context.Context, in *actInput) (*tradeOutput, error) {
	d, err := in.duration(ctx)
	if err != nil {
		return nil, err
	}
	s.audit(ctx, "accept_offline", in.OutTradeNo)
	p, err := s.till.AcceptOffline(ctx, in.OutTradeNo, callerOf(ctx).Name)
	if err != nil {
		return nil, err
	}
	return s.answer(ctx, p, d, false)
}

func (s *Server) cancel(ctx context.Context, in *actInput) (*tradeOutput, error) {
	d, err := in.duration(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.mayCancel(ctx, in.OutTradeNo); err != nil {
		return nil, err
	}
	s.audit(ctx, "cancel", in.OutTradeNo)
	p, err := s.till.Cancel(ctx, in.OutTradeNo, callerOf(ctx).Name)
	if err != nil {
		return nil, err
	}
	return s.answer(ctx, p, d, false)
}

// mayCancel wants a manager's right to withdraw an offline payment: its goods may have left the shop.
func (s *Server) mayCancel(ctx context.Context, outTradeNo string) error {
	p, err := s.till.Book().Trade(outTradeNo)
	if err != nil || p.State != payment.AcceptedOffline {
		return err
	}
	return callerOf(ctx).Check(auth.Refund)
}

// PrintJob is one receipt on its way to paper.
type PrintJob struct {
	ID         string `json:"id"`
	OutTradeNo string `json:"out_trade_no"`
	TradeNo    string `json:"trade_no"`
	Copy       int    `json:"copy" doc:"counts from 1; above 1 it is marked 重打印"`
	State      string `json:"state" enum:"queued,sent,printed,failed,unknown"`
	QueuedAt   string `json:"queued_at" format:"date-time"`
}

type printOutput struct{ Body PrintJob }

func (s *Server) print(ctx context.Context, in *actInput) (*printOutput, error) {
	if _, err := in.duration(ctx); err != nil {
		return nil, err
	}
	s.audit(ctx, "print", in.OutTradeNo)
	j, err := s.till.Print(ctx, in.OutTradeNo, callerOf(ctx).Name)
	if err != nil {
		return nil, err
	}
	return &printOutput{PrintJob{
		ID: j.ID, OutTradeNo: in.OutTradeNo, TradeNo: j.TradeNo, Copy: j.Copy, State: string(j.State), QueuedAt: stamp(j.QueuedAt),
	}}, nil
}

type listInput struct {
	Date   string `query:"date" maxLength:"10" doc:"bill day in Shanghai, 2006-01-02 or today; absent: all days"`
	State  string `query:"state" enum:"NOTPAY,USERPAYING,UNKNOWN,SUCCESS,CLOSED,REVOKED,PAYERROR,ACCEPTED_OFFLINE,BOUNCED"`
	Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"50"`
	Cursor string `query:"cursor" maxLength:"64" doc:"next_cursor of the page before"`

	From       time.Time `query:"from" doc:"from this time on: the ledger's success time, or the creation of what is not paid"`
	To         time.Time `query:"to" doc:"before this time"`
	OperatorID string    `query:"operator_id" maxLength:"32" doc:"of this cashier"`
	MinFen     int64     `query:"min_fen" minimum:"1" maximum:"4294967295" doc:"of the total"`
	MaxFen     int64     `query:"max_fen" minimum:"1" maximum:"4294967295" doc:"of the total"`
	Digits     string    `query:"digits" maxLength:"6" doc:"last characters of out_trade_no or trade_no"`
}

// TradeList is a page of trades, newest first.
type TradeList struct {
	Trades     []Trade `json:"trades"`
	NextCursor *string `json:"next_cursor" doc:"null at the end"`
}

type listOutput struct{ Body TradeList }

var dayPattern = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}$`)

func (s *Server) list(_ context.Context, in *listInput) (*listOutput, error) {
	day := in.Date
	if day == "today" {
		day = s.o.Now().In(ledgercache.Shanghai).Format(time.DateOnly)
	}
	if _, err := time.Parse(time.DateOnly, day); day != "" && (err != nil || !dayPattern.MatchString(day)) {
		return nil, fmt.Errorf("%w: date", ledgercache.ErrQuery)
	}
	list, next, err := s.till.Book().Trades(ledgercache.Query{
		Date: day, From: in.From, To: in.To, State: payment.State(in.State), OperatorID: in.OperatorID, MinFen: money.Fen(in.MinFen),
		MaxFen: money.Fen(in.MaxFen), Digits: in.Digits, Limit: in.Limit, Cursor: in.Cursor,
	})
	if err != nil {
		return nil, err
	}
	out := &listOutput{TradeList{Trades: make([]Trade, 0, len(list))}}
	now := s.o.Now()
	for _, p := range list {
		out.Body.Trades = append(out.Body.Trades, tradeOf(p, now))
	}
	if next != "" {
		out.Body.NextCursor = &next
	}
	return out, nil
}

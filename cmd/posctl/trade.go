package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"yupos/daemon/client"
	"yupos/devices/paycode"
	"yupos/ledgercache/money"
)

func (t *tool) pay() *cobra.Command {
	var code, no string
	var wait time.Duration
	c := &cobra.Command{Use: "pay AMOUNT", Short: "收款：扫码或 --code · take a payment", Args: exactly(1, "AMOUNT [--code C] [--wait 25s]")}
	c.Flags().StringVar(&code, "code", "", "付款码，- 读标准输入 · the customer's code, - reads standard input")
	c.Flags().StringVar(&no, "no", "", "商户单号 · out_trade_no (default: a new one)")
	c.Flags().DurationVar(&wait, "wait", 25*time.Second, "最长等待 · how long to wait")
	c.RunE = func(c *cobra.Command, args []string) error {
		sale, api, err := t.sale(args[0], no)
		if err != nil {
			return err
		}
		if sale.AuthCode, err = t.text(code); err != nil {
			return err
		}
		trade, err := api.Pay(c.Context(), sale, first60(wait))
		if err != nil {
			return t.orUnknown(err, sale.OutTradeNo)
		}
		return t.follow(c.Context(), api, trade, wait-time.Minute)
	}
	return c
}

func (t *tool) show() *cobra.Command {
	var no string
	c := &cobra.Command{Use: "show AMOUNT", Short: "出示动态码，直到有结果 · show a dynamic code and follow it to the end", Args: exactly(1, "AMOUNT")}
	c.Flags().StringVar(&no, "no", "", "商户单号 · out_trade_no (default: a new one)")
	c.RunE = func(c *cobra.Command, args []string) error {
		sale, api, err := t.sale(args[0], no)
		if err != nil {
			return err
		}
		trade, err := api.Precreate(c.Context(), sale)
		if err != nil {
			return t.orUnknown(err, sale.OutTradeNo)
		}
		if trade.Code != nil && !t.json {
			picture, err := paycode.Draw(trade.Code.Text)
			if err != nil {
				return err
			}
			fmt.Fprintf(t.out, "%s\n%s\n%s · %s\n", picture.Text(), trade.OutTradeNo, trade.DisplayText, trade.DisplayTextEN)
		}
		return t.follow(c.Context(), api, trade, 5*time.Minute)
	}
	return c
}

func (t *tool) query() *cobra.Command {
	var wait time.Duration
	c := &cobra.Command{Use: "query NO", Short: "查单 · query a trade", Args: exactly(1, "NO")}
	c.Flags().DurationVar(&wait, "wait", 0, "最长等待 · how long to wait")
	c.RunE = func(c *cobra.Command, args []string) error {
		api, err := t.client()
		if err != nil {
			return err
		}
		trade, err := api.Query(c.Context(), args[0], first60(wait))
		if err != nil {
			return err
		}
		return t.follow(c.Context(), api, trade, wait-time.Minute)
	}
	return c
}

func (t *tool) cancel() *cobra.Command {
	var wait time.Duration
	c := &cobra.Command{Use: "cancel NO", Short: "撤销未付款的交易 · close or reverse a trade", Args: exactly(1, "NO")}
	c.Flags().DurationVar(&wait, "wait", 15*time.Second, "最长等待 · how long to wait")
	c.RunE = func(c *cobra.Command, args []string) error {
		api, err := t.client()
		if err != nil {
			return err
		}
		trade, err := api.Cancel(c.Context(), args[0], first60(wait))
		if err != nil {
			return err
		}
		if err := t.trade(trade); err != nil {
			return err
		}
		if !trade.Final {
			return exit{exitUnknown, ""}
		}
		return nil // ended unpaid, as was asked for
	}
	return c
}

func (t *tool) refund() *cobra.Command {
	var amount, no, reason string
	var wait time.Duration
	c := &cobra.Command{Use: "refund NO", Short: "退款（店长令牌）· refund, with a manager's token", Args: exactly(1, "NO [--amount 12.50]")}
	c.Flags().StringVar(&amount, "amount", "", "退款金额（元），默认全部 · yuan (default: all that is left)")
	c.Flags().StringVar(&no, "refund-no", "", "退款单号 · out_refund_no (default: a new one)")
	c.Flags().StringVar(&reason, "reason", "", "原因 · reason")
	c.Flags().DurationVar(&wait, "wait", 20*time.Second, "最长等待 · how long to wait")
	c.RunE = func(c *cobra.Command, args []string) error {
		api, err := t.client()
		if err != nil {
			return err
		}
		fen, err := refundAmount(c.Context(), api, args[0], amount)
		if err != nil {
			return err
		}
		f, err := api.Refund(c.Context(), args[0], first(no, newNumber("R")), fen, reason, first60(wait))
		if err != nil {
			return err
		}
		return t.refunded(f)
	}
	return c
}

func refundAmount(ctx context.Context, api *client.Client, no, amount string) (int64, error) {
	if amount != "" {
		fen, err := money.ParseYuan(amount)
		if err != nil {
			return 0, usage("%v", err)
		}
		return int64(fen), nil
	}
	trade, err := api.Query(ctx, no, 0)
	if err == nil && trade.TotalFen == trade.RefundedFen {
		err = exit{exitRefused, "已全部退款 · refunded in full already"}
	}
	return trade.TotalFen - trade.RefundedFen, err
}

func (t *tool) refunded(f client.Refund) error {
	if err := t.answer(f, f.OutRefundNo, f.DisplayText, f.DisplayTextEN); err != nil {
		return err
	}
	switch {
	case !f.Final:
		return exit{exitUnknown, ""}
	case f.RefundState != "SUCCESS":
		return exit{exitRefused, ""}
	}
	return nil
}

func (t *tool) print() *cobra.Command {
	return &cobra.Command{Use: "print NO", Short: "重打印 · print a copy of the receipt", Args: exactly(1, "NO"), RunE: func(c *cobra.Command, args []string) error {
		api, err := t.client()
		if err != nil {
			return err
		}
		job, err := api.Print(c.Context(), args[0])
		if err != nil {
			return err
		}
		return t.answer(job, args[0], fmt.Sprintf("已送打印，第 %d 份", job.Copy), fmt.Sprintf("copy %d is %s", job.Copy, job.State))
	}}
}

// sale reads an amount in yuan.
func (t *tool) sale(amount, no string) (client.Sale, *client.Client, error) {
	fen, err := money.ParseYuan(amount)
	if err != nil {
		return client.Sale{}, nil, usage("%v", err)
	}
	api, err := t.client()
	return client.Sale{OutTradeNo: first(no, newNumber("P")), TotalFen: int64(fen)}, api, err
}

// newNumber is a number that no other sale has: the time and 40 random bits.
func newNumber(prefix string) string {
	return prefix + time.Now().UTC().Format("20060102150405") + strings.ToUpper(rand.Text()[:8])
}

// first60 is the part of a wait that one call may take.
func first60(d time.Duration) time.Duration { return min(max(d, 0), time.Minute) }

// follow waits on until the trade has ended or the time is over, shows it, and answers how posctl ends.
func (t *tool) follow(ctx context.Context, api *client.Client, trade client.Trade, left time.Duration) error {
	end := time.Now().Add(left)
	for !trade.EndsWait() && time.Until(end) > 0 && ctx.Err() == nil {
		next, err := api.Query(ctx, trade.OutTradeNo, first60(time.Until(end)))
		if err != nil {
			return t.orUnknown(err, trade.OutTradeNo)
		}
		trade = next
	}
	if err := t.trade(trade); err != nil {
		return err
	}
	return endOf(trade)
}

func endOf(trade client.Trade) error {
	switch trade.TradeState {
	case "SUCCESS", "ACCEPTED_OFFLINE":
		return nil
	case "PAYERROR", "CLOSED", "REVOKED", "BOUNCED":
		return exit{exitRefused, ""}
	}
	return exit{exitUnknown, ""}
}

// orUnknown turns a lost connection into an unknown result: the sale may have been recorded.
func (t *tool) orUnknown(err error, no string) error {
	if errors.Is(err, client.ErrUnreachable) {
		return exit{exitUnknown, "终端没有答复，结果未知，请用 posctl query " + no + " 查询 · no answer, the result is unknown: posctl query " + no}
	}
	return err
}

func (t *tool) trade(trade client.Trade) error {
	return t.answer(trade, trade.OutTradeNo, trade.DisplayText, trade.DisplayTextEN)
}

// answer shows one thing: its object as JSON, or a line for people.
func (t *tool) answer(v any, no, zh, en string) error {
	if t.json {
		e := json.NewEncoder(t.out)
		e.SetEscapeHTML(false)
		return e.Encode(v)
	}
	_, err := fmt.Fprintf(t.out, "%s  %s · %s\n", no, zh, en)
	return err
}

func (t *tool) status() *cobra.Command {
	return &cobra.Command{Use: "status", Short: "终端状态 · how the terminal is", Args: exactly(0, ""), RunE: func(c *cobra.Command, _ []string) error {
		api, err := t.client()
		if err != nil {
			return err
		}
		s, err := api.Terminal(c.Context())
		if err != nil {
			return err
		}
		if t.json {
			if err := json.NewEncoder(t.out).Encode(s); err != nil {
				return err
			}
		} else {
			t.drawStatus(s)
		}
		if s.Link.State != "up" || len(s.Warnings) > 0 {
			return exit{exitDegraded, ""}
		}
		return nil
	}}
}

func (t *tool) drawStatus(s client.Terminal) {
	w := table.NewWriter()
	w.SetStyle(table.StyleLight)
	w.AppendRow(table.Row{"终端 terminal", s.TerminalID + "  " + s.Merchant + " (" + s.MerchantID + ")"})
	w.AppendRow(table.Row{"网络 link", t.colour(s.Link.State == "up", s.Link.State) + "  " + s.Link.Text})
	w.AppendRow(table.Row{"待确认 queue", fmt.Sprintf("%d  %s", s.Queue.Count, money.Fen(s.Queue.Fen))})
	if s.Shift != nil {
		w.AppendRow(table.Row{"班次 shift", fmt.Sprintf("%d  %s  %d 笔  %s", s.Shift.Number, s.Shift.OperatorID, s.Shift.Count, money.Fen(s.Shift.TotalFen))})
	}
	for _, d := range s.Devices {
		w.AppendRow(table.Row{d.Name, t.colour(d.State == "ok", d.State) + "  " + d.Text})
	}
	for _, warning := range s.Warnings {
		w.AppendRow(table.Row{"注意 warning", warning.Text + " · " + warning.TextEN})
	}
	fmt.Fprintln(t.out, w.Render())
}

// colour paints a word on a terminal, unless NO_COLOR is set.
func (t *tool) colour(good bool, word string) string {
	f, ok := t.out.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" {
		return word
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return word
	}
	if good {
		return "\x1b[32m" + word + "\x1b[0m"
	}
	return "\x1b[33m" + word + "\x1b[0m"
}

func (t *tool) watch() *cobra.Command {
	return &cobra.Command{Use: "watch", Short: "跟随柜台 · follow the counter", Args: exactly(0, ""), RunE: func(c *cobra.Command, _ []string) error {
		api, err := t.client()
		if err != nil {
			return err
		}
		last := ""
		for c.Context().Err() == nil {
			err := api.Events(c.Context(), last, func(e client.Event) error {
				last = first(e.ID, last)
				return t.event(e)
			})
			if err != nil && !errors.Is(err, client.ErrUnreachable) {
				return err
			}
			select {
			case <-c.Context().Done():
			case <-time.After(time.Second):
			}
		}
		return nil
	}}
}

func (t *tool) event(e client.Event) error {
	if t.json {
		_, err := fmt.Fprintf(t.out, "{\"event\":%q,\"data\":%s}\n", e.Name, e.Data)
		return err
	}
	at := time.Now().Format(time.TimeOnly)
	switch e.Name {
	case "trade":
		var trade client.Trade
		if err := json.Unmarshal(e.Data, &trade); err != nil {
			return err
		}
		_, err := fmt.Fprintf(t.out, "%s  %-10s  %s  %s · %s\n", at, trade.TradeState, trade.OutTradeNo, trade.DisplayText, trade.DisplayTextEN)
		return err
	case "refund":
		var f client.Refund
		if err := json.Unmarshal(e.Data, &f); err != nil {
			return err
		}
		_, err := fmt.Fprintf(t.out, "%s  %-10s  %s  %s · %s\n", at, f.RefundState, f.OutTradeNo, f.DisplayText, f.DisplayTextEN)
		return err
	case "snapshot":
		_, err := fmt.Fprintf(t.out, "%s  已连接 · connected\n", at)
		return err
	}
	return nil
}

package till

import (
	"errors"
	"fmt"
	"time"

	"yupos/ledgercache"
	"yupos/ledgercache/money"
	"yupos/ledgercache/payment"
	"yupos/ledgercache/trust"
)

// Terminal is all there is to know about this terminal, as GET /v1/terminal answers it.
type Terminal struct {
	TerminalID   string       `json:"terminal_id"`
	MerchantID   string       `json:"merchant_id"`
	Merchant     string       `json:"merchant"`
	Link         LinkInfo     `json:"link"`
	Clock        ClockInfo    `json:"clock"`
	Exposure     Amounts      `json:"exposure"`
	Limits       Limits       `json:"limits"`
	Queue        Amounts      `json:"queue"`
	Devices      []Device     `json:"devices"`
	Warnings     []Warning    `json:"warnings"`
	Shift        *ShiftInfo   `json:"shift"`
	OfflineReady OfflineReady `json:"offline_ready"`
	Book         BookInfo     `json:"book"`
}

// LinkInfo is the line to the ledger.
type LinkInfo struct {
	State  string    `json:"state"` // up or down
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"`
	Text   string    `json:"text"`
	TextEN string    `json:"text_en"`

	SetAside []SetAside `json:"set_aside"` // messages that the ledger has definitely refused: a person must look
}

// ClockInfo is how far the clock can be trusted. Until the ledger's signed time is known it is not trusted offline.
type ClockInfo struct {
	Trusted     bool   `json:"trusted"`
	ErrorMillis int64  `json:"error_ms"`         // its bound; means nothing where the source is NONE
	Source      string `json:"source"`           // LEDGER, WALL (the machine's battery clock, after its restart), NONE
	Fault       string `json:"fault"`            // why it is not trusted, "" where it is
	AheadMillis int64  `json:"machine_ahead_ms"` // how far the machine's own clock is ahead of the terminal's
}

// Amounts are money, how many trades, and the oldest of them.
type Amounts struct {
	Fen      money.Fen  `json:"fen"`
	Count    int        `json:"count"`
	OldestAt *time.Time `json:"oldest_at"`
}

// Limits are what this terminal may take: the strictest of configuration and the ledger's policy. LeftFen and LeftCount
// are what it may still take offline before it has to upload, StopsAt is when it stops because of the oldest payment.
type Limits struct {
	PaymentFen      money.Fen  `json:"payment_fen"`
	OfflineFen      money.Fen  `json:"offline_payment_fen"`
	WalletFen       money.Fen  `json:"offline_wallet_fen"`
	WalletCount     int        `json:"offline_wallet_count"`
	TerminalFen     money.Fen  `json:"offline_terminal_fen"`
	TerminalCount   int        `json:"offline_terminal_count"`
	ConvertFen      money.Fen  `json:"convert_fen"`
	DigitsFen       money.Fen  `json:"digits_fen"`
	LeftFen         money.Fen  `json:"offline_left_fen"`
	LeftCount       int        `json:"offline_left_count"`
	StopsAt         *time.Time `json:"offline_stops_at"`
	PolicyUntil     *time.Time `json:"policy_until"`
	DenyListUntil   *time.Time `json:"deny_list_until"`
	PolicyVersion   uint32     `json:"policy_version"`
	DenyListVersion uint32     `json:"deny_list_version"`
	KeysVersion     uint32     `json:"keys_version"` // of the ledger's newest key set; 0 = the keys of the enrolment
}

// Warning is something that a person should look at.
type Warning struct {
	Code   string `json:"code"`
	Text   string `json:"text"`
	TextEN string `json:"text_en"`
}

// ShiftInfo is the open shift with what settled in it.
type ShiftInfo struct {
	ID          string    `json:"id"`
	Number      uint64    `json:"number"`
	OperatorID  string    `json:"operator_id"`
	OpenedAt    time.Time `json:"opened_at"`
	Count       int       `json:"count"`
	TotalFen    money.Fen `json:"total_fen"`
	RefundCount int       `json:"refund_count"`
	RefundFen   money.Fen `json:"refund_fen"`
}

// OfflineReady says whether the shop could sell offline right now, and what is missing by its name.
type OfflineReady struct {
	OK      bool      `json:"ok"`
	Missing []string  `json:"missing"`
	Words   []Warning `json:"words"` // the same for people
}

// BookInfo is where the journal stands and how far the ledger holds it.
type BookInfo struct {
	Epoch    string `json:"epoch"`
	Sequence uint64 `json:"sequence"`
	Head     string `json:"head"`
	Anchored uint64 `json:"anchored"`
}

// Terminal reads everything at once. Nothing in it asks the network or a device.
func (t *Till) Terminal() (Terminal, error) {
	link := t.o.Link.State()
	out := Terminal{
		TerminalID: t.o.Shop.TerminalID, MerchantID: t.o.Shop.MerchantID, Merchant: t.o.Shop.DisplayName,
		Link:    LinkInfo{State: "down", Since: link.Since.In(ledgercache.Shanghai), Reason: link.Reason, Text: link.Text, TextEN: link.TextEN, SetAside: append([]SetAside{}, link.Aside...)},
		Devices: []Device{}, Warnings: []Warning{},
	}
	if link.Up {
		out.Link.State = "up"
	}
	if t.o.Devices != nil {
		out.Devices = t.o.Devices()
	}
	var err error
	if out.Queue, err = t.queue(); err != nil {
		return out, err
	}
	if err := t.offline(&out); err != nil {
		return out, err
	}
	if out.Shift, err = t.shift(); err != nil {
		return out, err
	}
	here, anchored := t.book.Position(), ledgercache.Cursor{}
	if anchored, err = t.book.Cursor(); err != nil {
		return out, err
	}
	out.Book = BookInfo{Epoch: here.Epoch, Sequence: here.Sequence, Head: here.Head, Anchored: anchored.Sequence}
	out.Warnings, err = t.warnings(link, out.Devices)
	out.Warnings = append(out.Warnings, exposureWarnings(out.Exposure, t.o.Now())...)
	out.Warnings = append(out.Warnings, lineWarnings(link)...)
	out.Warnings = append(out.Warnings, clockWarnings(t.o.Clock())...)
	return out, err
}

// offline fills in what the terminal has taken offline, what it may still take, and whether it could now.
func (t *Till) offline(out *Terminal) error {
	open, err := t.book.Exposure()
	if err != nil {
		return err
	}
	limits, err := t.book.OfflineLimits()
	if err != nil {
		return err
	}
	policy, err := t.book.Policy()
	if err != nil {
		return err
	}
	deny, err := t.book.DenyList()
	if err != nil {
		return err
	}
	marks, err := t.book.Marks()
	if err != nil {
		return err
	}
	out.Exposure = amounts(open)
	out.Limits = Limits{
		PaymentFen: money.Max, OfflineFen: limits.PaymentFen, WalletFen: limits.WalletFen, WalletCount: limits.WalletCount,
		TerminalFen: limits.TerminalFen, TerminalCount: limits.TerminalCount, ConvertFen: limits.ConvertFen, DigitsFen: limits.DigitsFen,
		LeftFen: max(0, limits.TerminalFen-open.Fen), LeftCount: max(0, limits.TerminalCount-open.Count),
		PolicyUntil: usableUntil(policy.IssuedAt, policy.Until), DenyListUntil: usableUntil(deny.IssuedAt, deny.Until),
		PolicyVersion: policy.Version, DenyListVersion: deny.Version, KeysVersion: marks["keys"].Version,
	}
	if open.Count > 0 {
		stops := open.OldestAt.Add(payment.OfflineStopAfter).In(ledgercache.Shanghai)
		out.Limits.StopsAt = &stops
	}
	clock := t.o.Clock()
	out.Clock = ClockInfo{
		Trusted: clock.Trusted, ErrorMillis: clock.Error.Milliseconds(), Source: string(clock.Source), Fault: string(clock.Fault),
		AheadMillis: clock.Ahead.Milliseconds(),
	}
	out.OfflineReady, err = t.offlineReady()
	return err
}

// usableUntil is when news stop to count for offline acceptance; nil where there are none.
func usableUntil(issued, until time.Time) *time.Time {
	if issued.IsZero() {
		return nil
	}
	end := issued.Add(payment.PolicyAge)
	if until.Before(end) {
		end = until
	}
	end = end.In(ledgercache.Shanghai)
	return &end
}

// lineWarnings say what the ledger has refused for good, and when it will close.
func lineWarnings(link LinkState) (list []Warning) {
	if n := len(link.Aside); n > 0 {
		last := link.Aside[n-1]
		list = append(list, Warning{"SET_ASIDE", fmt.Sprintf("账本中心拒绝了 %d 条报文，最近一条 %s（%s）。已收的钱都已记账，其余交易不受影响，请联系客服", n, last.TradeNo+last.RefundNo, last.Code),
			fmt.Sprintf("The ledger has refused %d messages, the last about %s (%s). Nothing taken is lost, no other trade waits; call support", n, last.TradeNo+last.RefundNo, last.Code)})
	}
	if link.Notice != nil {
		at := link.Notice.StartsAt.In(ledgercache.Shanghai).Format("15:04")
		list = append(list, Warning{"LEDGER_WILL_CLOSE", "账本中心 " + at + " 起维护，之后自动恢复。" + link.Notice.Text, "The ledger will close at " + at + " and come back by itself. " + link.Notice.TextEN})
	}
	return list
}

// clockWarnings say when the machine's own clock is wrong: payments are not touched by it, the next restart may be.
func clockWarnings(c ledgercache.Clock) []Warning {
	switch {
	case c.Fault == trust.ClockSetBack:
		return []Warning{{"CLOCK_SET_BACK", "系统时钟被调回到已记账的时间之前，暂停离线受理。联网付款不受影响，联网一次即可恢复",
			"The machine's clock was set back before what is booked: no offline payments. Online payments go on; one contact with the ledger mends it"}}
	case c.Source == trust.FromLedger && c.Ahead.Abs() > payment.ClockBound:
		return []Warning{{"CLOCK_WRONG", fmt.Sprintf("系统时钟比账本时间%s %s，账务按账本时间记，不受影响；请校正系统时钟", fastOrSlow(c.Ahead), c.Ahead.Abs().Round(time.Second)),
			fmt.Sprintf("The machine's clock is off by %s. The books go by the ledger's time and are right; please set the clock", c.Ahead.Round(time.Second))}}
	}
	return nil
}

func fastOrSlow(ahead time.Duration) string {
	if ahead > 0 {
		return "快"
	}
	return "慢"
}

// exposureWarnings say when the oldest offline payment has waited long.
func exposureWarnings(e Amounts, now time.Time) []Warning {
	if e.OldestAt == nil || now.Sub(*e.OldestAt) < payment.OfflineWarnAfter {
		return nil
	}
	hours := int(now.Sub(*e.OldestAt).Hours())
	if now.Sub(*e.OldestAt) > payment.OfflineStopAfter {
		return []Warning{{"OFFLINE_STOPPED", fmt.Sprintf("最早一笔离线付款已 %d 小时未上传，停止离线受理。已受理的不会丢失，请恢复网络", hours),
			fmt.Sprintf("The oldest offline payment has waited %d hours: no more are taken. None is lost; restore the line", hours)}}
	}
	return []Warning{{"OFFLINE_OLD", fmt.Sprintf("最早一笔离线付款已 %d 小时未上传，满 72 小时将停止离线受理，请尽快恢复网络", hours),
		fmt.Sprintf("The oldest offline payment has waited %d hours; at 72 hours no more are taken. Restore the line soon", hours)}}
}

// queue is what the ledger still has to say: trades that were sent, shown or accepted offline and have not ended, and open
// refunds.
func (t *Till) queue() (Amounts, error) {
	q, err := t.book.Queue()
	return amounts(q), err
}

func amounts(e payment.Exposure) Amounts {
	a := Amounts{Count: e.Count, Fen: e.Fen}
	if e.Count > 0 {
		at := e.OldestAt.In(ledgercache.Shanghai)
		a.OldestAt = &at
	}
	return a
}

func (t *Till) shift() (*ShiftInfo, error) {
	s, ok, err := t.book.Shift()
	if err != nil || !ok {
		return nil, err
	}
	return &ShiftInfo{
		ID: s.ID, Number: s.Number, OperatorID: s.OperatorID, OpenedAt: s.OpenedAt.In(ledgercache.Shanghai),
		Count: s.Count, TotalFen: s.TotalFen, RefundCount: s.RefundCount, RefundFen: s.RefundFen,
	}, nil
}

// stopped says why nothing is sold, what that means for the money and what to do. A full disk has words of its own.
func stopped(err error) []Warning {
	switch {
	case err == nil, errors.Is(err, ledgercache.ErrDiskFull):
		return nil
	case errors.Is(err, ledgercache.ErrDamaged):
		return []Warning{{"BOOK_STOPPED", "账本损坏，停止收款，只能查询。请勿删除任何文件，联系客服；恢复后自动继续",
			"The book is damaged: no payments, look-ups only. Delete nothing and call support; selling resumes by itself once it is restored"}}
	case errors.Is(err, ledgercache.ErrReadOnly):
		return []Warning{{"BOOK_STOPPED", "磁盘无法写入，停止收款，只能查询。已收的钱都已记账。请检查或更换磁盘，终端会自动重试",
			"The disk cannot be written: no payments, look-ups only. Nothing taken is lost. Check or change the disk; the terminal tries again by itself"}}
	}
	return []Warning{{"BOOK_STOPPED", "账本停止写入，停止收款，终端正在重启，结果以查询为准",
		"The book takes no more entries and the terminal restarts; query to learn results"}}
}

// findings says what opening the book found and mended by itself.
func findings(found []ledgercache.Finding) []Warning {
	list := make([]Warning, 0, len(found))
	for _, f := range found {
		w := Warning{Code: string(f)}
		switch f {
		case ledgercache.FoundTornTail:
			w.Text = "上次断电时有一次写入未完成，已剪除：它从未被应答，不影响已收的钱，无需处理"
			w.TextEN = "A write was cut off by the last power failure and removed. It was never answered, nothing taken is lost, nothing is to be done"
		case ledgercache.FoundBadHead:
			w.Text = "账本的校验点有损，已从账本重建，金额不受影响。若非刚断电，请检查磁盘"
			w.TextEN = "The book's check mark was damaged and made again from the book; no amount is touched. Unless power was just lost, check the disk"
		case ledgercache.FoundRefilled:
			w.Text = "账本的一份副本不完整，已从另一份补齐，金额不受影响。请检查该盘"
			w.TextEN = "One copy of the book was behind or damaged and was refilled from the other; no amount is touched. Check its disk"
		}
		list = append(list, w)
	}
	return list
}

func spaceWarnings(s ledgercache.Space) []Warning {
	free, limit := s.Free>>20, s.Limit>>20
	switch s.Room {
	case ledgercache.RoomPlenty:
		return nil
	case ledgercache.RoomShort:
		return []Warning{{"DISK_LOW", fmt.Sprintf("磁盘空间不足，剩 %d MB，低于 %d MB 将停止收款，请清理磁盘", free, limit),
			fmt.Sprintf("Disk space is short: %d MB left, selling stops below %d MB; make room", free, limit)}}
	case ledgercache.RoomFull, ledgercache.RoomNone:
		return []Warning{{"BOOK_DISK_FULL", fmt.Sprintf("磁盘将满，停止收款（剩 %d MB）。未完成的交易会继续，已收的钱都已记账。请清理磁盘，有空间后自动恢复", free),
			fmt.Sprintf("Disk almost full (%d MB left), no new payments. Open ones still end, nothing taken is lost. Make room: selling resumes by itself", free)}}
	}
	return nil
}

// alarmed says what an alarm means for the money and what to do. Whoever works in the office settles it there.
func alarmed(a ledgercache.Alarm) Warning {
	w := Warning{a.Code, "账本中心的答复与本机记录矛盾，本机记录未改，请联系客服核对 " + a.TradeNo, "The ledger contradicts this book, which stays as it is; call support about " + a.TradeNo}
	switch a.Code {
	case "ROLLED_BACK":
		w.Text = "收到旧版本的规则、名单或密钥，已拒绝，现行版本不变。若反复出现，请联系客服"
		w.TextEN = "An older policy, list or key set came and was refused; what is in force stays. If it comes again, call support"
	case "CONFIRMED_NOT_PAID":
		w.Text = "确认码入账的交易，账本中心查无付款，本笔存疑，请联系客服核实 " + a.TradeNo
		w.TextEN = "Settled by digits, and the ledger knows no such payment; in dispute, call support about " + a.TradeNo
	case "UNKNOWN_TRADE":
		w.Text = "账本中心提到本机没有的交易，未做任何改动，请联系客服 " + a.TradeNo
		w.TextEN = "The ledger speaks of a trade that is not in this book; nothing was changed, call support about " + a.TradeNo
	}
	return w
}

func (t *Till) warnings(link LinkState, devices []Device) ([]Warning, error) {
	list := []Warning{}
	list = append(list, stopped(t.book.Err())...)
	list = append(list, spaceWarnings(t.book.Space())...)
	if t.book.Mirror() != nil {
		list = append(list, Warning{"MIRROR_LEFT_OUT", "账本副本失效，已停用，收款不受影响，请检查第二块盘后重启终端",
			"The book's copy failed and is left out; sales go on. Check the second device, then restart the terminal"})
	}
	if !link.Up {
		list = append(list, Warning{"LINK_DOWN", "网络断开：动态码仍可出示，付款结果恢复后确认", "The line is down: dynamic codes still show, results follow when it is back"})
	}
	for _, d := range devices {
		if d.State != "ok" {
			list = append(list, Warning{"DEVICE_" + d.State, d.Name + "：" + d.Text, d.Name + ": " + d.TextEN})
		}
	}
	list = append(list, findings(t.book.Findings())...)
	if t.o.Notices != nil {
		list = append(list, t.o.Notices()...)
	}
	alarms, err := t.book.Alarms(5)
	for _, a := range alarms {
		if a.Code == ledgercache.AlarmMirror {
			continue // said above for as long as it is so
		}
		list = append(list, alarmed(a))
	}
	t.mu.Lock()
	notice := t.notice
	t.mu.Unlock()
	if notice.ZH != "" {
		list = append(list, Warning{"SCAN_NOT_WANTED", notice.ZH, notice.EN})
	}
	return list, err
}

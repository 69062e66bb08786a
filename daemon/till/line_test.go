package till

import (
	"testing"
	"time"
)

// telling is a line that has something to tell.
type telling struct {
	*line
	aside  []SetAside
	notice *Notice
}

func (l telling) State() LinkState {
	s := l.line.State()
	s.Aside, s.Notice = l.aside, l.notice
	return s
}

func TestWhatTheLedgerRefusedAndAnnouncedIsShown(t *testing.T) {
	c := newCounter(t)
	at := c.clock.now()
	c.o.Link = telling{c.line,
		[]SetAside{{At: at, TradeNo: "first", Op: "pay", Code: "MALFORMED"}, {At: at, TradeNo: "second", Op: "upload", Code: "ID_REUSED"}},
		&Notice{StartsAt: at.Add(time.Hour), Text: "升级", TextEN: "upgrade"}}
	info, err := c.Terminal()
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	for _, w := range info.Warnings {
		said[w.Code] = w.Text
	}
	if len(info.Link.SetAside) != 2 || info.Link.SetAside[1].Code != "ID_REUSED" {
		t.Errorf("set aside: %+v", info.Link.SetAside)
	}
	if said["SET_ASIDE"] != "账本中心拒绝了 2 条报文，最近一条 second（ID_REUSED）。已收的钱都已记账，其余交易不受影响，请联系客服" {
		t.Errorf("%q", said["SET_ASIDE"])
	}
	if said["LEDGER_WILL_CLOSE"] != "账本中心 11:00 起维护，之后自动恢复。升级" {
		t.Errorf("%q", said["LEDGER_WILL_CLOSE"])
	}
}

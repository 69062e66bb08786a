package uplink

import (
	"errors"
	"syscall"
	"time"

	"yupos/sync/wire"
)

// The reasons of a line that is down, beside the ledger's own words at hello (wire.RefusedRevoked and so on).
const (
	ReasonConnecting  = "CONNECTING"     // not tried yet
	ReasonRefused     = "REFUSED"        // nobody listens there
	ReasonUnreachable = "UNREACHABLE"    // no route, no network
	ReasonNoAddress   = "NO_ADDRESS"     // the name is not found
	ReasonTimeout     = "TIMEOUT"        // no answer while connecting
	ReasonTLS         = "TLS"            // a certificate is not accepted, by one side or the other
	ReasonHandshake   = "HANDSHAKE"      // it is no ledger: the upgrade was answered with another status
	ReasonSubprotocol = "SUBPROTOCOL"    // it speaks another protocol or version
	ReasonNoPong      = "NO_PONG"        // it went silent
	ReasonClosed      = "CLOSED"         // it ended the connection
	ReasonBusy        = "BUSY"           // it sent us away for a while
	ReasonProtocol    = "PROTOCOL"       // it sent what the protocol does not allow
	ReasonNewsGap     = "NEWS_GAP"       // news were missing; they are asked for again
	ReasonReadOnly    = "BOOK_READ_ONLY" // the book takes nothing, so nothing may be sent
	ReasonBehind      = "LEDGER_BEHIND"  // the ledger has forgotten what it had acknowledged
	ReasonStopped     = "STOPPED"        // the terminal is stopping
	reasonUp          = ""               // the line is up
)

// State is whether the line is up, since when, and why not. Reason is a stable word, "" while up.
type State struct {
	Up             bool
	Since          time.Time // when Up became what it is
	Reason         string
	TextZH, TextEN string
}

type words struct{ zh, en string }

var stateWords = map[string]words{
	reasonUp:                {"网络已连接", "Connected to the ledger"},
	ReasonConnecting:        {"正在连接账本", "Connecting to the ledger"},
	ReasonRefused:           {"账本未运行或端口不通，正在重试", "Nobody listens at the ledger's address; trying again"},
	ReasonUnreachable:       {"网络不通，请检查网线或无线网络", "No network; check the cable or the wireless link"},
	ReasonNoAddress:         {"找不到账本地址，请检查域名和网络", "The ledger's name is not found; check name and network"},
	ReasonTimeout:           {"连接账本超时，正在重试", "The ledger did not answer in time; trying again"},
	ReasonTLS:               {"证书校验失败，请联系客服", "A certificate was not accepted; call support"},
	ReasonHandshake:         {"对方不是账本服务，请检查地址", "This address is no ledger; check it"},
	ReasonSubprotocol:       {"账本协议版本不符，请升级终端", "The ledger speaks another protocol version; update the terminal"},
	ReasonNoPong:            {"账本无响应，正在重新连接", "The ledger went silent; connecting again"},
	ReasonClosed:            {"连接已断开，正在重新连接", "The connection ended; connecting again"},
	ReasonBusy:              {"账本繁忙，稍后自动重连", "The ledger is busy; coming back later"},
	ReasonProtocol:          {"账本消息异常，正在重新连接", "The ledger sent something wrong; connecting again"},
	ReasonNewsGap:           {"账本通知有缺失，正在重新获取", "News were missing; asking for them again"},
	ReasonReadOnly:          {"账簿只读，停止收款，请联系客服", "The book is read-only, no payments; call support"},
	ReasonBehind:            {"账本数据早于本机记录，请联系客服", "The ledger holds less than it had acknowledged; call support"},
	ReasonStopped:           {"终端正在停止", "The terminal is stopping"},
	wire.RefusedRevoked:     {"终端已被停用，请联系客服", "This terminal has been revoked; call support"},
	wire.RefusedRolledBack:  {"本机账簿早于账本记录，停止联网收款，请联系客服", "This book is older than the ledger's record of it; call support"},
	wire.RefusedForked:      {"本机账簿与账本记录不一致，停止联网收款，请联系客服", "This book is not the one that the ledger knows; call support"},
	wire.RefusedVersion:     {"账本协议版本不符，请升级终端", "Ledger and terminal have no protocol version in common; update the terminal"},
	wire.RefusedMaintenance: {"账本维护中，稍后自动重连", "The ledger is closed for maintenance; coming back later"},
	wire.RefusedNotYou:      {"终端号与证书不符，请检查配置", "Terminal number and certificate do not fit; check the configuration"},
}

func textsOf(reason string) words {
	if w, ok := stateWords[reason]; ok {
		return w
	}
	return words{"账本拒绝连接：" + reason, "The ledger refused: " + reason}
}

// State is the line's state as last known. It never blocks and never asks the network.
func (u *Uplink) State() State {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state
}

// Watch gives a channel that gets a tick after every change of State, and a function that ends the watching. Ticks that
// nobody has taken yet fall together.
func (u *Uplink) Watch() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.watchers[c] = struct{}{}
	return c, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.watchers, c)
	}
}

// set notes a change of state. Since moves only when the line goes up or down.
func (u *Uplink) set(up bool, reason string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.state.Up == up && u.state.Reason == reason {
		return
	}
	if u.state.Up != up {
		u.state.Since = u.now()
	}
	w := textsOf(reason)
	u.state.Up, u.state.Reason, u.state.TextZH, u.state.TextEN = up, reason, w.zh, w.en
	for c := range u.watchers {
		select {
		case c <- struct{}{}:
		default: // a tick is waiting there already
		}
	}
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

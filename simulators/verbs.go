package simulators

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"yupos/devices/paycode"
	"yupos/simulators/printersim"
	"yupos/simulators/scannersim"
)

func (w *World) getAddresses(*http.Request) (any, error) { return w.addresses, nil }

func (w *World) postScan(r *http.Request) (any, error) {
	var body struct {
		Text *string `json:"text"`
	}
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if body.Text == nil {
		return nil, badRequest("缺少 text", "text is missing")
	}
	if err := w.scanner.Scan(*body.Text); err != nil {
		return nil, err
	}
	return w.scanner.State(), nil
}

// plug is the body of the devices that have nothing but a plug.
type plug struct {
	Connected *bool `json:"connected"`
}

func (w *World) postScanner(r *http.Request) (any, error) {
	var body plug
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if body.Connected != nil {
		if err := w.scanner.SetConnected(*body.Connected); err != nil {
			return nil, err
		}
	}
	return w.scanner.State(), nil
}

func (w *World) postDisplay(r *http.Request) (any, error) {
	var body plug
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if body.Connected != nil {
		if err := w.display.SetConnected(*body.Connected); err != nil {
			return nil, err
		}
	}
	return w.display.State(), nil
}

func (w *World) postPrinter(r *http.Request) (any, error) {
	var body printersim.Change
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	state, err := w.printer.SetState(body)
	return state, err
}

func (w *World) postTerminal(r *http.Request) (any, error) {
	var body struct {
		Action  string `json:"action"`
		ClockMS *int64 `json:"clock_ms"` // with start: how far the machine's clock is off from now on
		Reboot  bool   `json:"reboot"`   // with start: it is another start of the machine
	}
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if body.ClockMS != nil || body.Reboot {
		boot, off := "", int64(0)
		if body.Reboot {
			boot = rand.Text()
		}
		if body.ClockMS != nil {
			off = *body.ClockMS
		}
		w.terminal.Pretend(time.Duration(off)*time.Millisecond, boot)
	}
	var err error
	switch body.Action {
	case "kill":
		err = w.terminal.Kill()
	case "start":
		// A caller who goes away does not stop what it has begun.
		err = w.terminal.Start(context.WithoutCancel(r.Context()))
	default:
		return nil, badRequest(`action 只能是 kill 或 start`, "action is kill or start")
	}
	return w.terminal.State(), err
}

// getPicture answers a receipt as a picture: {n}.png.
func (w *World) getPicture(rw http.ResponseWriter, r *http.Request) {
	name, isPNG := strings.CutSuffix(r.PathValue("file"), ".png")
	n, err := strconv.Atoi(name)
	if err != nil || !isPNG {
		problem(rw, notFound(r))
		return
	}
	receipt, err := w.printer.Receipt(n)
	if err != nil {
		problem(rw, err)
		return
	}
	picture, err := receipt.Picture()
	if err != nil {
		problem(rw, err)
		return
	}
	rw.Header().Set("Content-Type", "image/png")
	rw.Write(picture)
}

// getCode draws the code that the customer's screen shows, for a phone to read off this one.
func (w *World) getCode(rw http.ResponseWriter, r *http.Request) {
	text := w.display.State().CodeText
	if text == "" {
		problem(rw, refusal{http.StatusNotFound, "NO_CODE", "顾客屏上没有付款码", "the customer's screen shows no code"})
		return
	}
	picture, err := paycode.Draw(text)
	if err != nil {
		problem(rw, err)
		return
	}
	rw.Header().Set("Content-Type", "image/svg+xml")
	rw.Write([]byte(picture.SVG()))
}

// asRefusal is the one map from errors to statuses.
func asRefusal(err error) refusal {
	var r refusal
	switch {
	case errors.As(err, &r):
		return r
	case errors.Is(err, scannersim.ErrDisconnected):
		return refusal{http.StatusConflict, "SCANNER_DISCONNECTED", "扫码枪未连接", "the scanner is not connected"}
	case errors.Is(err, scannersim.ErrText):
		return badRequest("text 为空或超过 4296 字节", "text is empty or longer than 4,296 bytes")
	case errors.Is(err, printersim.ErrState):
		return badRequest("paper 只能是 ok、near、out，cover 只能是 closed、open", "paper is ok, near or out; cover is closed or open")
	case errors.Is(err, printersim.ErrNoReceipt):
		return refusal{http.StatusNotFound, "NO_RECEIPT", "没有这张小票", "there is no such receipt"}
	case errors.Is(err, ErrTerminal):
		return refusal{http.StatusServiceUnavailable, "TERMINAL_NOT_STARTED", "终端没有启动成功：" + err.Error(), err.Error()}
	}
	return refusal{http.StatusInternalServerError, "SIMULATOR_FAULT", "模拟器出错：" + err.Error(), err.Error()}
}

package serial

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The ways in which a line can fail its user. They are owned here and wrapped
// with the device's name and the operation; test them with [errors.Is].
var (
	// ErrAbsent says that no device is connected, or that the session the
	// caller meant is over. Nothing of this call was written.
	ErrAbsent = errors.New("serial: no device connected")
	// ErrTimeout says that the device did not take all bytes in time. The count
	// beside it is exact as far as the kernel goes.
	ErrTimeout = errors.New("serial: write timed out")
	// ErrLost says that the device vanished during the operation.
	ErrLost = errors.New("serial: device lost")
	// ErrBusy says that another program or another Port holds the line.
	ErrBusy = errors.New("serial: line held by another owner")
	// ErrNotDevice says that the path names something that is no serial line,
	// a plain file for example. Nothing is ever written to it.
	ErrNotDevice = errors.New("serial: not a serial line")
	// ErrRunning refuses a second Run of one Port.
	ErrRunning = errors.New("serial: port is already running")
)

// State is what there is to say about a line, ready to be shown to a person.
type State struct {
	Connected bool
	Since     time.Time // of the last change
	// Session counts the connections of this Port from 1; 0 while there is none.
	// Bytes of one session never reach another, see [Port.WriteTo].
	Session      uint64
	Text, TextEN string
}

var (
	textConnected = [2]string{"已连接", "connected"}
	textStarting  = [2]string{"正在连接", "connecting"}
	textAbsent    = [2]string{"未连接：找不到设备，请检查插头和电源", "not connected: no such device, check plug and power"}
	textLost      = [2]string{"连接中断：设备被拔出或断电", "connection lost: unplugged or without power"}
	textBusy      = [2]string{"被其他程序占用", "held by another program"}
	textDenied    = [2]string{"没有权限打开设备", "no permission to open the device"}
	textNoDevice  = [2]string{"该路径不是串口设备", "the path is not a serial device"}
	textFault     = [2]string{"设备故障，正在重试", "device fault, trying again"}
	textStopped   = [2]string{"已停止", "stopped"}
)

// words finds the sentence for why a line could not be opened or was lost.
func words(err error) [2]string {
	switch {
	case errors.Is(err, ErrLost):
		return textLost
	case errors.Is(err, ErrBusy), errors.Is(err, unix.EBUSY):
		return textBusy
	case errors.Is(err, ErrNotDevice):
		return textNoDevice
	case errors.Is(err, fs.ErrPermission):
		return textDenied
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV),
		errors.Is(err, unix.ECONNREFUSED), errors.Is(err, os.ErrDeadlineExceeded):
		return textAbsent
	}
	return textFault
}

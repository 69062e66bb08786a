package daemon

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"net/http"
	"time"

	"yupos/daemon/auth"
	"yupos/daemon/config"
	"yupos/daemon/identity"
	"yupos/daemon/till"
	"yupos/daemon/web"
	"yupos/devices/display"
	"yupos/devices/paycode"
	"yupos/devices/printer"
	"yupos/devices/scanner"
	"yupos/devices/serial"
	"yupos/ledgercache"
	"yupos/ledgercache/trust"
	"yupos/sync/uplink"
)

// build makes every part and tells each of the others that it needs.
func (d *Daemon) build(id identity.Identity) error {
	d.line = uplink.New(uplink.Options{
		URLs: d.cfg.Ledger.URLs, TLS: d.renewal.TLS(), Book: d.book, TerminalID: d.cfg.Terminal.ID, MerchantID: d.cfg.Merchant.ID,
		Software: "posd " + Version, Log: d.log.With(slog.String("part", "line")), Clock: d.time, Now: d.time.Time,
	})
	if err := d.buildDevices(); err != nil {
		return err
	}
	d.till = till.New(d.tillOptions(id))
	d.renewal.tell = d.changed
	guard, err := auth.Load(tokens(d.cfg))
	if err != nil {
		return err
	}
	handler, err := web.New(web.Options{Till: d.till, Auth: guard, Ready: d.Ready, Version: Version, Now: d.time.Time, Log: d.log.With(slog.String("part", "web"))})
	if err != nil {
		return err
	}
	d.server = &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelWarn),
	}
	d.server.RegisterOnShutdown(handler.Close)
	return nil
}

func (d *Daemon) tillOptions(id identity.Identity) till.Options {
	o := till.Options{
		Book: d.book, Now: d.time.Time, Clock: func() ledgercache.Clock { return ledgercache.ClockOf(d.time.Now()) },
		Link: lineOf{d.line}, Key: id.Key, Devices: d.devices, Notices: d.renewal.warnings, Log: d.log.With(slog.String("part", "till")),
		Shop: till.Shop{
			TerminalID: d.cfg.Terminal.ID, MerchantID: d.cfg.Merchant.ID, MCC: d.cfg.Merchant.MCC,
			Name: d.cfg.Merchant.Name, DisplayName: d.cfg.Merchant.DisplayName,
		},
		Issuers:  func(now time.Time) paycode.Keys { return d.pinned(trust.Issuer, now) },
		Receipts: func(now time.Time) paycode.Keys { return d.pinned(trust.Receipt, now) },
		Secret:   id.Confirmation,
	}
	if d.scanner != nil {
		o.Scans = d.scanner.Scans()
	}
	if d.printer != nil {
		o.Printer = paper{d.printer, d.log}
	}
	if d.display != nil {
		o.Screen = d.display
	}
	return o
}

// buildDevices makes the devices that the configuration names. A counter may have none.
func (d *Daemon) buildDevices() (err error) {
	if c := d.cfg.Scanner; c.Port != "" {
		port := serial.New(serial.Config{Name: "scanner", Path: c.Port, Baud: c.Baud, Settle: scanner.Settle}, d.log)
		port.OnChange(d.deviceChanged)
		d.scanner = scanner.New(scanner.Config{Terminator: c.Terminator}, port, d.log)
	}
	if c := d.cfg.Printer; c.Port != "" {
		port := serial.New(serial.Config{Name: "printer", Path: c.Port, Baud: c.Baud}, d.log)
		port.OnChange(d.deviceChanged)
		if d.printer, err = d.newPrinter(c, port); err != nil {
			return err
		}
	}
	if c := d.cfg.Display; c.Port != "" {
		port := serial.New(serial.Config{Name: "display", Path: c.Port, Baud: c.Baud}, d.log)
		port.OnChange(d.deviceChanged)
		d.display = display.New(display.Config{Profile: c.Profile}, port, d.log)
	}
	return nil
}

func (d *Daemon) newPrinter(c config.Printer, port *serial.Port) (*printer.Printer, error) {
	profile, err := printer.ProfileNamed(c.Profile)
	if err != nil {
		return nil, err
	}
	sent := func(ctx context.Context, jobID string) error {
		_, err := d.book.RecordPrintSent(ctx, jobID)
		return err
	}
	p := printer.New(printer.Config{Profile: profile, BeforeSend: sent}, port, d.log)
	p.OnChange(func(printer.Status) { d.changed() })
	return p, nil
}

func (d *Daemon) deviceChanged(serial.State) { d.changed() }

// changed tells the pages that something at the counter changed; devices may speak before the till is built.
func (d *Daemon) changed() {
	if d.till != nil {
		d.till.Changed()
	}
}

func (d *Daemon) startDevices() {
	if d.display != nil {
		d.start("display", d.display.Run)
	}
	if d.printer != nil {
		d.start("printer", d.printer.Run)
	}
	if d.scanner != nil {
		d.start("scanner", d.scanner.Run)
	}
}

// devices describes what stands at the counter, for people and for GET /v1/terminal.
func (d *Daemon) devices() []till.Device {
	list := []till.Device{}
	if d.scanner != nil {
		list = append(list, device("scanner", d.scanner.State()))
	}
	if d.printer != nil {
		s := d.printer.Status()
		dev := device("printer", s.State)
		if s.State.Connected && !s.OK {
			dev.State = "fault"
		}
		if s.Text != "" {
			dev.Text, dev.TextEN = s.Text, s.TextEN
		}
		list = append(list, dev)
	}
	if d.display != nil {
		list = append(list, device("display", d.display.State()))
	}
	return list
}

func device(name string, s serial.State) till.Device {
	state := "absent"
	if s.Connected {
		state = "ok"
	}
	return till.Device{Name: name, Kind: name, State: state, Text: s.Text, TextEN: s.TextEN}
}

// signer makes the ACCEPT evidence of codes.md with the terminal's key.
func signer(terminalID string, key ed25519.PrivateKey) func(ledgercache.Acceptance) ([]byte, error) {
	return func(a ledgercache.Acceptance) ([]byte, error) {
		return trust.Accept{
			Converted: a.Converted, TotalFen: a.TotalFen, At: a.At, BoundSeconds: uint32((a.ClockError + time.Second - 1) / time.Second), TradeNo: a.TradeNo,
			TerminalID: terminalID, CodeHash: a.CodeHash, PolicyVersion: a.PolicyVersion, DenyVersion: a.DenyVersion,
			Sequence: a.Sequence, Head: a.Head,
		}.Sign(key)
	}
}

// pinned are the keys of a role that the terminal believes now: those of its enrolment, or of the ledger's newest key set.
func (d *Daemon) pinned(role trust.Role, now time.Time) paycode.Keys {
	pins, err := d.book.Pins()
	if err != nil {
		d.log.Error("pinned keys not read", slog.Any("err", err))
	}
	var keys paycode.Keys
	for _, p := range pins.Keys(role, now) {
		keys = append(keys, paycode.Key{Public: p.Public, NotBefore: p.NotBefore, NotAfter: p.NotAfter})
	}
	return keys
}

func tokens(cfg config.Config) []auth.Token {
	list := make([]auth.Token, 0, len(cfg.Web.Tokens))
	for _, t := range cfg.Web.Tokens {
		list = append(list, auth.Token{Name: t.Name, File: t.File, Scopes: t.Scopes})
	}
	return list
}

// lineOf shows the uplink to the till as the link that it knows.
type lineOf struct{ *uplink.Uplink }

// State is the line's state in the till's words.
func (l lineOf) State() till.LinkState {
	s := l.Uplink.State()
	state := till.LinkState{Up: s.Up, Since: s.Since, Reason: s.Reason, Text: s.TextZH, TextEN: s.TextEN}
	for _, a := range l.SetAside() {
		op := string(a.Op)
		if a.RefundNo != "" {
			op = "refund"
		}
		state.Aside = append(state.Aside, till.SetAside{At: a.At.In(ledgercache.Shanghai), TradeNo: a.TradeNo, RefundNo: a.RefundNo, Op: op, Code: a.Code, Detail: a.Detail})
	}
	if n := l.Uplink.Notice(); !n.StartsAt.IsZero() {
		state.Notice = &till.Notice{StartsAt: n.StartsAt, Text: n.TextZH, TextEN: n.TextEN}
	}
	return state
}

// paper shows the printer to the till.
type paper struct {
	printer *printer.Printer
	log     *slog.Logger
}

// Ready reports whether a document could be printed now.
func (p paper) Ready() bool {
	s := p.printer.Status()
	return s.State.Connected && s.OK
}

// Print prints and says what became of the document, in the book's words.
func (p paper) Print(ctx context.Context, jobID string, doc printer.Document) ledgercache.PrintState {
	outcome, err := p.printer.Print(ctx, jobID, doc)
	if err != nil {
		p.log.Warn("receipt not printed", slog.String("job", jobID), slog.String("outcome", string(outcome)), slog.Any("err", err))
	}
	switch outcome {
	case printer.Printed:
		return ledgercache.PrintPrinted
	case printer.Failed:
		return ledgercache.PrintFailed
	}
	return ledgercache.PrintUnknown
}

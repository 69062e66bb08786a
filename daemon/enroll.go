package daemon

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"yupos/daemon/config"
	"yupos/daemon/identity"
	"yupos/ledgercache/trust"
	"yupos/sync/uplink"
	"yupos/sync/wire"
)

// ExitRefused says that a rule refused it: the ledger, or this machine.
const ExitRefused = 5

// standingTries is how often the new certificate is shown to the ledger before the first contact of the daemon is left to do it.
const standingTries = 3

// enroller is the command posd enroll.
type enroller struct {
	out     io.Writer
	in      io.Reader
	config  string
	ledger  string
	ca      string
	replace bool
}

func enrollCommand(stdout io.Writer) *cobra.Command {
	e := &enroller{out: stdout, in: os.Stdin}
	c := &cobra.Command{
		Use: "enroll --ledger URL --ca-sha256 HEX CODE", Short: "用激活码加入账本 · join a ledger with an activation code; - reads it from standard input",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("%w: posd enroll --ledger URL --ca-sha256 HEX CODE", errUsage)
			}
			return nil
		},
		RunE: e.run,
	}
	c.Flags().StringVarP(&e.config, "config", "c", defaultConfig, "configuration file; a new one is written where there is none")
	c.Flags().StringVar(&e.ledger, "ledger", "", "the ledger's address, https or wss (default: the configuration's first)")
	c.Flags().StringVar(&e.ca, "ca-sha256", "", "SHA-256 of the ledger CA's certificate, as it came with the code")
	c.Flags().BoolVar(&e.replace, "replace", false, "give this terminal a new key; the old identity is kept beside it")
	return c
}

func (e *enroller) run(c *cobra.Command, args []string) error {
	cfg, fresh, err := e.place()
	if err != nil {
		return err
	}
	ca, err := identity.ParseCA(e.ca)
	if err != nil {
		return fmt.Errorf("%w: --ca-sha256: %w", errUsage, err)
	}
	code, err := e.code(args[0])
	if err != nil {
		return err
	}
	made, err := identity.BeginEnrolment(cfg.Terminal.IdentityDir, e.replace)
	if errors.Is(err, identity.ErrEnrolled) {
		return &coded{ExitRefused, "本机已有身份，未做任何改动；确要换新密钥请加 --replace · this terminal has an identity, nothing was changed; --replace gives it a new key"}
	}
	if err != nil {
		return err
	}
	fits := func() bool {
		return fresh || made.Granted.TerminalID == cfg.Terminal.ID && made.Granted.MerchantID == cfg.Merchant.ID
	}
	if !made.Done || !fits() { // else an earlier run got this far: the code is spent, and the answer is here
		if err := e.ask(c.Context(), cfg, made, ca, code); err != nil {
			return sayEnroll(err)
		}
	}
	if !fits() {
		return &coded{ExitRefused, fmt.Sprintf("激活码属于终端 %s（商户 %s），配置文件写的是 %s（%s），未做任何改动 · the code is for another terminal than the configuration's",
			made.Granted.TerminalID, made.Granted.MerchantID, cfg.Terminal.ID, cfg.Merchant.ID)}
	}
	confirmed := e.show(c.Context(), made)
	if fresh { // before the identity is in its place: from then on the same command is refused
		if err := writeConfig(e.config, made.Granted); err != nil {
			return err
		}
	}
	old, err := made.Install(time.Now())
	if err != nil {
		return err
	}
	return e.say(made.Granted, fresh, confirmed, old)
}

// place is where the identity goes: by the configuration, or beside a configuration that is still to be written.
func (e *enroller) place() (cfg config.Config, fresh bool, err error) {
	if _, err := os.Stat(e.config); errors.Is(err, os.ErrNotExist) {
		if e.ledger == "" {
			return cfg, true, fmt.Errorf("%w: --ledger URL", errUsage)
		}
		dir, err := filepath.Abs(filepath.Dir(e.config))
		cfg.Terminal.IdentityDir, cfg.Terminal.DataDir = filepath.Join(dir, "identity"), filepath.Join(dir, "book")
		return cfg, true, errors.Join(err, os.MkdirAll(dir, 0o700))
	}
	if cfg, err = config.Load(e.config, os.Environ()); err == nil && e.ledger == "" {
		e.ledger = cfg.Ledger.URLs[0]
	}
	return cfg, false, err
}

// code is the activation code; read from standard input it stands in no list of processes.
func (e *enroller) code(arg string) (wire.Activation, error) {
	if arg != "-" {
		return wire.Activation(arg), nil
	}
	line, err := bufio.NewReader(io.LimitReader(e.in, 256)).ReadString('\n')
	if line = strings.TrimSpace(line); line == "" {
		return "", fmt.Errorf("%w: no code on standard input: %w", errUsage, err)
	}
	return wire.Activation(line), nil
}

// ask turns the code into a grant, durable before it returns.
func (e *enroller) ask(ctx context.Context, cfg config.Config, made *identity.Enrolment, ca [32]byte, code wire.Activation) error {
	request, err := made.Request()
	if err != nil {
		return err
	}
	in := wire.Enroll{Code: code, Request: request, Software: "posd " + Version}
	in.TerminalID = cfg.Terminal.ID // "" where there is no configuration: the configuration, and the book, are this terminal's
	answer, err := uplink.Enroll(ctx, e.ledger, ca, in)
	if err != nil {
		return err
	}
	grant, err := grantOf(answer)
	if err != nil {
		return err
	}
	return made.Complete(grant)
}

// grantOf puts an answer into the words of an identity.
func grantOf(a wire.Enrolled) (g identity.Grant, err error) {
	g.Granted = identity.Granted{
		TerminalID: a.TerminalID, MerchantID: a.Merchant.ID, Name: a.Merchant.Name, DisplayName: a.Merchant.DisplayName, MCC: a.Merchant.MCC, URLs: a.URLs,
	}
	if len(a.Confirmation) != len(g.Confirmation) || len(a.URLs) == 0 {
		return g, fmt.Errorf("%w: no confirmation secret, or no address", identity.ErrGrant)
	}
	copy(g.Confirmation[:], a.Confirmation)
	g.Certificate, g.CA = a.Certificate, a.CA
	if g.Pins, err = json.Marshal(map[string]any{"keys": a.Keys}); err != nil {
		return g, err
	}
	g.News, err = json.Marshal(a.News)
	return g, err
}

// show lets the ledger see the new certificate, which ends the activation code. Where that fails the daemon's first contact
// does it.
func (e *enroller) show(ctx context.Context, made *identity.Enrolment) bool {
	config, err := made.TLS()
	for try := 0; err == nil && try < standingTries; try++ {
		standing, err := uplink.Standing(ctx, e.ledger, config)
		if err == nil {
			return standing.TerminalID == made.Granted.TerminalID
		}
	}
	return false
}

func (e *enroller) say(g identity.Granted, fresh, confirmed bool, old string) error {
	fmt.Fprintf(e.out, "已加入 · enrolled\n终端 terminal  %s\n商户 merchant  %s  %s\n账本 ledger    %s\n", g.TerminalID, g.MerchantID, g.DisplayName, strings.Join(g.URLs, " "))
	if !confirmed {
		fmt.Fprintln(e.out, "账本尚未确认新证书，首次联网时自动完成 · the ledger has not seen the certificate yet; the first contact does it")
	}
	if old != "" {
		fmt.Fprintf(e.out, "原身份保留在 · the identity before is kept in %s\n", old)
	}
	if fresh {
		fmt.Fprintf(e.out, "已写入配置 %s，令牌在 tokens/；请补上扫码枪、打印机的串口 · configuration written, tokens beside it; add the devices' ports\n", e.config)
	}
	_, err := fmt.Fprintf(e.out, "下一步 · next:  posd serve -c %s\n", e.config)
	return err
}

// sayEnroll puts words for people before what went wrong.
func sayEnroll(err error) error {
	var no *uplink.Refusal
	switch {
	case errors.As(err, &no) && no.RetryAfter > 0: // nothing here tries again by itself
		wait := int(math.Ceil(no.RetryAfter.Seconds()))
		return &coded{ExitRefused, fmt.Sprintf("账本要求等待，请在 %d 秒后再次运行同一命令 · the ledger asks to wait; run the same command again in %d s (%s)", wait, wait, no.Code)}
	case errors.As(err, &no):
		zh, en := uplink.Words(no.Code)
		return &coded{ExitRefused, fmt.Sprintf("%s · %s (%s)", zh, en, no.Code)}
	case errors.Is(err, uplink.ErrWrongCA):
		return &coded{ExitRefused, fmt.Sprintf("对方不是这个账本：CA 指纹不符，激活码未发出 · not this ledger, the code was not sent: %v", err)}
	case errors.Is(err, identity.ErrGrant):
		return &coded{ExitFailure, fmt.Sprintf("账本的答复不完整或相互矛盾，请再次运行同一命令；若仍失败请联系客服 · the ledger's answer does not fit, run the same command again: %v", err)}
	}
	return fmt.Errorf("未得到账本答复，请再次运行同一命令，激活码不会因此作废 · no answer from the ledger; run the same command again, the code stays good: %w", err)
}

// firstConfig is what a terminal needs; %s are quoted texts.
const firstConfig = `# 由 posd enroll 写入；各键说明见 configs/posd.toml · written by posd enroll; configs/posd.toml explains every key.

[terminal]
id = %s
identity_dir = "identity"
data_dir = "book"

[merchant]
id = %s
name = %s
display_name = %s
mcc = %s

[ledger]
urls = [%s]

[web]
listen = "127.0.0.1:8600"

[[web.token]]
name = "register"
file = "tokens/register"
scopes = ["pay", "query", "cancel", "print", "show", "events", "terminal"]

[[web.token]]
name = "manager"
file = "tokens/manager"
scopes = ["pay", "query", "cancel", "print", "show", "events", "terminal", "refund", "shift", "office", "settings"]

# 接上设备后去掉 # · remove the # once the devices are there.
# [scanner]
# port = "/dev/pos/scanner"
# baud = 9600
# terminator = "\r"
# [printer]
# port = "/dev/pos/printer"
# baud = 115200
# profile = "80mm"
# auto = true
# [display]
# port = "/dev/pos/display"
# baud = 9600
# profile = "bonrix"
`

// writeConfig writes the first configuration and tokens of its own beside it. A configuration that came to be meanwhile stays.
func writeConfig(path string, g identity.Granted) error {
	quoted := make([]string, 0, len(g.URLs))
	for _, u := range g.URLs {
		quoted = append(quoted, quote(u))
	}
	text := fmt.Sprintf(firstConfig, quote(g.TerminalID), quote(g.MerchantID), quote(g.Name), quote(g.DisplayName), quote(g.MCC), strings.Join(quoted, ", "))
	tokens := filepath.Join(filepath.Dir(path), "tokens")
	if err := os.MkdirAll(tokens, 0o700); err != nil {
		return err
	}
	for _, name := range []string{"register", "manager"} {
		if err := writeNew(filepath.Join(tokens, name), rand.Text()+rand.Text()+"\n"); err != nil {
			return err
		}
	}
	return writeNew(path, text)
}

// quote writes a text as TOML's basic string. What stands here came from the ledger.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// writeNew writes a file that is not there yet, mode 0600: whole and synced, or not at all.
func writeNew(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// learnFirst lets the book learn the news that came with the enrolment, once.
func (d *Daemon) learnFirst(ctx context.Context) {
	raw, err := identity.FirstNews(d.cfg.Terminal.IdentityDir)
	if err != nil || raw == nil || d.book.Err() != nil {
		return
	}
	var list []wire.News
	marks, err := d.book.Marks()
	if err == nil {
		err = json.Unmarshal(raw, &list)
	}
	for _, n := range list {
		topic := trust.Topic(n.Topic)
		if marks[topic].Version >= n.Version { // older than what the line has brought since
			continue
		}
		e := trust.Envelope{KeyID: n.Envelope.KeyID, Payload: n.Envelope.Payload, Sig: n.Envelope.Sig}
		if err := d.book.Learn(ctx, topic, e); err != nil {
			d.log.Warn("first news not taken", "topic", string(topic), "err", err) // the line brings newer ones
		}
	}
	if err := errors.Join(err, identity.ForgetNews(d.cfg.Terminal.IdentityDir)); err != nil {
		d.log.Warn("first news stay beside the identity", "err", err)
	}
}

package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"yupos/daemon/config"
	"yupos/daemon/identity"
	"yupos/ledgercache"
	"yupos/ledgercache/payment"
)

// The commands that prove a book and carry it: posd journal verify|export|import, posd backup, posd restore.

// ExitDegraded says that nothing is wrong as far as was looked, and that not all could be looked at.
const ExitDegraded = 3

// coded is an error with an exit code of its own; what it has to say was said already where the text is empty.
type coded struct {
	code int
	text string
}

func (e *coded) Error() string { return e.text }

// passphraseWork is scrypt's work factor for exports: 2^15 takes 32 MB, which every terminal has.
const passphraseWork = 15

const bookKeyName = "book.key"

// bookTool is what the commands share.
type bookTool struct {
	out, err   io.Writer
	config     string
	passphrase string
	to         string
	quiet      bool
	json       bool
	bundle     string
	days       int
	told       time.Time
}

func bookCommands(stdout, stderr io.Writer) []*cobra.Command {
	t := &bookTool{out: stdout, err: stderr}
	journal := &cobra.Command{Use: "journal", Short: "账本：核验、导出、导入 · prove the book, carry it to another machine", RunE: func(*cobra.Command, []string) error {
		return fmt.Errorf("%w: posd journal verify|export|import|rekey|archive -c FILE", errUsage)
	}}
	verify := t.command("verify", "核验每条记录、每笔余额与缓存 · prove every record, every balance and the cache", noArgs, t.verify)
	verify.Flags().BoolVar(&t.json, "json", false, "JSON")
	verify.Flags().StringVar(&t.bundle, "bundle", "", "核验备份或导出文件 · prove a backup or an export instead")
	verify.Flags().StringVar(&t.passphrase, "passphrase-file", "", "导出文件的口令 · the passphrase of an export")
	export := t.command("export", "导出封存的账本（含密钥，口令加密） · the sealed book with its key, for another machine", noArgs, t.export)
	imported := t.command("import FILE", "在新机器上接续账本 · go on with an exported book on a new machine", oneFile, t.importBook)
	for _, c := range []*cobra.Command{export, imported} {
		c.Flags().StringVar(&t.passphrase, "passphrase-file", "", "口令文件，至少 12 字符，权限 600 · a file with the passphrase, mode 600")
	}
	backup := t.command("backup", "备份账本，可在运行中进行 · back the book up, also while it runs", noArgs, t.backup)
	for _, c := range []*cobra.Command{export, backup} {
		c.Flags().StringVar(&t.to, "to", "", "目标文件，不可已存在 · the file to write; must not exist")
	}
	restore := t.command("restore FILE", "从备份恢复账本 · restore the book from a backup", oneFile, t.restore)
	rekey := t.command("rekey", "更换账本密钥，终端须已停机 · seal the book under a new key from now on; the daemon must be stopped", noArgs, t.rekey)
	rekey.Flags().StringVar(&t.to, "to", "", "密钥由 systemd 凭据给出时，新密钥写入此文件 · where the key is a credential of systemd: the file for the new one")
	archive := t.command("archive", "把 400 天以前的账本段移到 book.archive，终端须已停机 · move segments older than 400 days to book.archive; the daemon must be stopped", noArgs, t.archive)
	archive.Flags().IntVar(&t.days, "days", int(ledgercache.KeepFor.Hours()/24), "至少保留的天数，不少于 400 · days to keep here, at least 400")
	journal.AddCommand(verify, export, imported, rekey, archive)
	return []*cobra.Command{journal, backup, restore}
}

func (t *bookTool) command(use, short string, args cobra.PositionalArgs, run func(*cobra.Command, []string) error) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: args, RunE: run}
	c.Flags().StringVarP(&t.config, "config", "c", defaultConfig, "configuration file")
	c.Flags().BoolVarP(&t.quiet, "quiet", "q", false, "不显示进度 · no progress")
	return c
}

func oneFile(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%w: 需要一个文件 · one file is needed", errUsage)
	}
	return nil
}

// progress is told once a second on standard error.
func (t *bookTool) progress(what string, done, total uint64) {
	if t.quiet || time.Since(t.told) < time.Second {
		return
	}
	t.told = time.Now()
	if total == 0 {
		fmt.Fprintf(t.err, "posd: %s %d …\n", what, done)
		return
	}
	fmt.Fprintf(t.err, "posd: %s %d / %d (%d%%)\n", what, done, total, done*100/total)
}

// book are the options of the configured book, with its key.
func (t *bookTool) book() (ledgercache.Options, config.Config, error) {
	o, cfg, err := t.place()
	if err != nil {
		return o, cfg, err
	}
	id, err := identity.OpenWith(cfg.Terminal.IdentityDir, bookKeyFile(cfg))
	o.Key = id.BookKey
	return o, cfg, err
}

// place are the options of the configured book without its key.
func (t *bookTool) place() (ledgercache.Options, config.Config, error) {
	cfg, err := config.Load(t.config, os.Environ())
	if err != nil {
		return ledgercache.Options{}, cfg, err
	}
	return ledgercache.Options{
		Dir: cfg.Terminal.DataDir, Mirror: cfg.Book.Mirror, Archive: cfg.Book.Archive, TerminalID: cfg.Terminal.ID, Software: "posd " + Version, Log: slog.New(slog.DiscardHandler),
	}, cfg, nil
}

// proofOut is what verify prints with --json.
type proofOut struct {
	Good     bool                       `json:"good"`
	Running  bool                       `json:"running"`
	Terminal string                     `json:"terminal_id"`
	Epoch    string                     `json:"epoch"`
	Sequence uint64                     `json:"sequence"`
	Head     string                     `json:"head"`
	Segments int                        `json:"segments"`
	Records  uint64                     `json:"records"`
	Cuts     int                        `json:"cuts"`
	CacheTo  uint64                     `json:"cache_sequence"`
	Cache    ledgercache.CacheState     `json:"cache"`
	Trades   map[payment.State]totalOut `json:"trades"`
	Accounts map[string]int64           `json:"accounts_fen"`
	Wrong    []string                   `json:"wrong"`
}

type totalOut struct {
	Count int   `json:"count"`
	Fen   int64 `json:"fen"`
}

func (t *bookTool) verify(c *cobra.Command, _ []string) error {
	o, _, err := t.book()
	if t.bundle != "" && err != nil {
		o, _, err = t.place() // an office proves an export without being the terminal
	}
	if err != nil {
		return err
	}
	if t.bundle != "" {
		b, key, err := t.open(c, o, t.bundle, os.TempDir())
		if err != nil {
			return err
		}
		defer b.Close()
		o = b.Options(o)
		o.Key = key
	}
	p, err := ledgercache.Verify(c.Context(), o, t.progress)
	if err != nil {
		return sayBook(err)
	}
	return t.sayProof(o.TerminalID, p)
}

func (t *bookTool) sayProof(terminal string, p ledgercache.Proof) error {
	out := proofOut{
		Good: p.Good(), Running: p.Running, Terminal: terminal, Epoch: p.Position.Epoch, Sequence: p.Position.Sequence, Head: p.Position.Head,
		Segments: p.Journal.Segments, Records: p.Journal.Records, Cuts: len(p.Journal.Cuts), Cache: p.Cache, CacheTo: p.CacheTo,
		Trades: map[payment.State]totalOut{}, Accounts: map[string]int64{}, Wrong: append([]string{}, p.Wrong...),
	}
	if p.Journal.Problem != nil {
		out.Wrong = append([]string{p.Journal.Problem.Error()}, out.Wrong...)
	}
	for s, e := range p.States {
		out.Trades[s] = totalOut{e.Count, int64(e.Fen)}
	}
	for _, b := range p.Books.Accounts {
		out.Accounts[b.Account.Words().EN] = int64(b.Fen)
	}
	if t.json {
		e := json.NewEncoder(t.out)
		e.SetIndent("", "  ")
		if err := e.Encode(out); err != nil {
			return err
		}
	} else {
		fmt.Fprint(t.out, out.text())
	}
	if out.Good {
		return nil
	}
	return &coded{ExitFailure, "账本核验未通过，见上 · the book is not proved, see above"}
}

func (out proofOut) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "终端 terminal  %s\n纪元 epoch     %s\n序号 sequence  %d  (%d 段 segments)\n链头 head      %s\n", out.Terminal, out.Epoch, out.Sequence, out.Segments, out.Head)
	for _, s := range slices.Sorted(maps.Keys(out.Trades)) {
		fmt.Fprintf(&b, "%-17s %8d 笔 %16s 元\n", s, out.Trades[s].Count, yuan(out.Trades[s].Fen))
	}
	for _, name := range slices.Sorted(maps.Keys(out.Accounts)) {
		fmt.Fprintf(&b, "  %-36s %16s\n", name, yuan(out.Accounts[name]))
	}
	fmt.Fprintf(&b, "缓存 cache     %s", out.Cache)
	if out.CacheTo < out.Sequence && out.Cache == ledgercache.CacheAgrees {
		fmt.Fprintf(&b, "（核验到序号 %d，其余启动时由日志补齐 · up to sequence %d, a start takes the rest from the journal）", out.CacheTo, out.CacheTo)
	}
	b.WriteString("\n")
	for _, w := range out.Wrong {
		fmt.Fprintf(&b, "不符 WRONG     %s\n", w)
	}
	if out.Good {
		b.WriteString("核验通过：每条记录、每笔余额与缓存一致 · proved: every record, every balance, the cache\n")
	}
	return b.String()
}

func yuan(fen int64) string {
	sign := ""
	if fen < 0 {
		sign, fen = "-", -fen
	}
	return fmt.Sprintf("%s%d.%02d", sign, fen/100, fen%100)
}

// sayBook puts words for people before what the book refuses.
func sayBook(err error) error {
	for _, w := range []struct {
		is     error
		zh, en string
	}{
		{ledgercache.ErrBookExists, "这里已有账本，未做任何改动；如确要替换，请先把原账本目录移走并妥善保存", "there is a book already, nothing was changed; move it away and keep it"},
		{ledgercache.ErrBundleForeign, "不是本终端的账本，未做任何改动", "of another terminal, nothing was changed"},
		{ledgercache.ErrBundleKey, "密钥不符或文件被改动，未做任何改动", "another key, or the file was changed; nothing was done"},
		{ledgercache.ErrBundle, "文件损坏或不完整，未做任何改动", "the file is damaged or incomplete, nothing was changed"},
		{ledgercache.ErrNotFound, "这里没有账本", "there is no book here"},
		{ledgercache.ErrDamaged, "账本已损坏，请先核验", "the book is damaged, verify it first"},
		{ledgercache.ErrInUse, "终端正在运行，请先停机", "a daemon has the book; stop it first"},
		{ledgercache.ErrArchiveAway, "归档目录读不到，请接回该盘", "the archive cannot be read; put its disk back"},
		{errPassphrase, "口令不符，未做任何改动", "the passphrase is not right, nothing was changed"},
	} {
		if errors.Is(err, w.is) {
			return fmt.Errorf("%s · %s: %w", w.zh, w.en, err)
		}
	}
	return err
}

func (t *bookTool) backup(c *cobra.Command, _ []string) error {
	o, _, err := t.book()
	if err != nil {
		return err
	}
	var m ledgercache.Manifest
	err = t.writeFile(func(w io.Writer) error {
		m, err = ledgercache.WriteBundle(c.Context(), o, filepath.Dir(t.to), w, nil, t.progress)
		return err
	})
	if err != nil {
		return sayBook(err)
	}
	_, err = fmt.Fprintf(t.out, "已备份到序号 %d（%s），不含密钥：book.key 请另行保管\nbacked up to sequence %d; the key is not in it, keep book.key elsewhere\n", m.Sequence, t.to, m.Sequence)
	return err
}

// writeFile writes t.to so that it is there whole or not at all, and never over another file.
func (t *bookTool) writeFile(write func(io.Writer) error) error {
	if t.to == "" {
		return fmt.Errorf("%w: --to FILE", errUsage)
	}
	if _, err := os.Lstat(t.to); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %s 已存在 · is there already", errUsage, t.to)
	}
	f, err := os.CreateTemp(filepath.Dir(t.to), ".yupos-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	err = write(f)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), t.to); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(t.to))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (t *bookTool) restore(c *cobra.Command, args []string) error {
	o, _, err := t.book()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return err
	}
	b, _, err := t.open(c, o, args[0], o.Dir)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := b.Install(o); err != nil {
		return sayBook(err)
	}
	return t.sayInstalled(b.Manifest)
}

func (t *bookTool) sayInstalled(m ledgercache.Manifest) error {
	_, err := fmt.Fprintf(t.out, "账本已就位，序号 %d，启用新纪元；启动终端后由账本中心核对，较旧的副本会被拒绝（BOOK_ROLLED_BACK）\n"+
		"the book stands at sequence %d in a new epoch; the ledger checks it at the next start and refuses an older copy\n", m.Sequence, m.Sequence)
	return err
}

var errPassphrase = errors.New("wrong passphrase")

// readPassphrase reads the file that --passphrase-file names.
func (t *bookTool) readPassphrase() (string, error) {
	if t.passphrase == "" {
		return "", fmt.Errorf("%w: --passphrase-file FILE", errUsage)
	}
	info, err := os.Stat(t.passphrase)
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%w: 请执行 · run: chmod 600 %s", errUsage, t.passphrase)
	}
	raw, err := os.ReadFile(t.passphrase)
	if err != nil {
		return "", err
	}
	text := strings.TrimRight(string(raw), "\r\n")
	if len([]rune(text)) < 12 {
		return "", fmt.Errorf("%w: 口令至少 12 个字符 · a passphrase has at least 12 characters", errUsage)
	}
	return text, nil
}

func (t *bookTool) export(c *cobra.Command, _ []string) error {
	o, _, err := t.book()
	if err != nil {
		return err
	}
	phrase, err := t.readPassphrase()
	if err != nil {
		return err
	}
	recipient, err := age.NewScryptRecipient(phrase)
	if err != nil {
		return err
	}
	recipient.SetWorkFactor(passphraseWork)
	var m ledgercache.Manifest
	err = t.writeFile(func(w io.Writer) error {
		sealed, err := age.Encrypt(w, recipient)
		if err != nil {
			return err
		}
		m, err = ledgercache.WriteBundle(c.Context(), o, filepath.Dir(t.to), sealed, map[string][]byte{bookKeyName: o.Key[:]}, t.progress)
		return errors.Join(err, sealed.Close())
	})
	if err != nil {
		return sayBook(err)
	}
	_, err = fmt.Fprintf(t.out, "已导出到序号 %d（%s），以口令封存，含账本密钥\nexported to sequence %d, sealed with the passphrase, the book's key inside\n", m.Sequence, t.to, m.Sequence)
	return err
}

// open takes a backup or an export out under work. The key is the configured one for a backup, and the export's own.
func (t *bookTool) open(c *cobra.Command, o ledgercache.Options, path, work string) (b *ledgercache.Bundle, key [32]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, key, err
	}
	defer f.Close()
	r, err := t.unseal(f)
	if err != nil {
		return nil, key, sayBook(err)
	}
	key = o.Key
	b, err = ledgercache.ReadBundle(c.Context(), o, work, r, func(secrets map[string][]byte) ([32]byte, error) {
		if own := secrets[bookKeyName]; len(own) == len(key) {
			key = [32]byte(own)
		}
		return key, nil
	}, t.progress)
	return b, key, sayBook(err)
}

// unseal opens an export; a backup is read as it is.
func (t *bookTool) unseal(f *os.File) (io.Reader, error) {
	start := make([]byte, 22)
	n, err := f.ReadAt(start, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if !bytes.HasPrefix(start[:n], []byte("age-encryption.org/v1")) {
		return f, nil
	}
	phrase, err := t.readPassphrase()
	if err != nil {
		return nil, err
	}
	who, err := age.NewScryptIdentity(phrase)
	if err != nil {
		return nil, err
	}
	who.SetMaxWorkFactor(passphraseWork)
	r, err := age.Decrypt(f, who)
	var none *age.NoIdentityMatchError
	if errors.As(err, &none) {
		return nil, fmt.Errorf("%w: %w", errPassphrase, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ledgercache.ErrBundle, err)
	}
	return r, nil
}

// importBook goes on with an exported book of this terminal's on a new machine: the key first, so that there is never a
// book without its key.
func (t *bookTool) importBook(c *cobra.Command, args []string) error {
	o, cfg, err := t.place()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return err
	}
	b, key, err := t.open(c, o, args[0], o.Dir)
	if err != nil {
		return err
	}
	defer b.Close()
	if len(b.Secrets[bookKeyName]) != len(key) {
		return fmt.Errorf("%w: 这是备份而非导出，请用 posd restore · a backup and no export: use posd restore", errUsage)
	}
	o.Key = key
	if ledgercache.Exists(o.Dir) {
		return sayBook(ledgercache.ErrBookExists)
	}
	if err := identity.KeepBookKey(bookKeyFile(cfg), key); err != nil {
		return err
	}
	if err := b.Install(o); err != nil {
		return sayBook(err)
	}
	return t.sayInstalled(b.Manifest)
}

// rekey seals the book under a new key from the next opening on. The next key is durable before the book is told of it, and
// takes the old one's place only when the book opens under both: killed at any moment, the same command goes on.
func (t *bookTool) rekey(c *cobra.Command, _ []string) error {
	o, cfg, err := t.book()
	if err != nil {
		return err
	}
	path := bookKeyFile(cfg)
	given := os.Getenv(identity.CredentialsEnv) != "" && filepath.Dir(path) == filepath.Clean(os.Getenv(identity.CredentialsEnv))
	if given != (t.to != "") {
		return fmt.Errorf("%w: --to FILE 用于且仅用于由 systemd 凭据给出的密钥 · --to FILE is for a key that systemd gives, and only there", errUsage)
	}
	next := path + ".next"
	if given {
		next = t.to
	}
	if err := identity.EnsureBookKey(next, false); err != nil {
		return err
	}
	key, err := identity.ReadBookKey(next)
	if err != nil {
		return err
	}
	if err := ledgercache.PrepareKey(o, key); err != nil {
		return sayBook(err)
	}
	if given {
		_, err = fmt.Fprintf(t.out, "新密钥在 %s：请用它替换凭据 book.key 后启动终端；此前旧密钥照常可用\nthe new key is in %s: put it in the credential's place and start the terminal; until then the old one works\n", next, next)
		return err
	}
	if err := identity.ReplaceBookKey(next, path); err != nil {
		return err
	}
	_, err = fmt.Fprintf(t.out, "已更换账本密钥：下次启动起以新密钥封存，旧记录仍可读，缓存将自动重建。请重新备份 %s\nthe book has a new key: what is written from the next start on is sealed under it; back %s up anew\n", path, path)
	return err
}

// archive moves old segments away from the book's disk.
func (t *bookTool) archive(c *cobra.Command, _ []string) error {
	o, cfg, err := t.book()
	if err != nil {
		return err
	}
	least := int(ledgercache.KeepFor.Hours() / 24)
	if cfg.Book.Archive == "" || t.days < least {
		return fmt.Errorf("%w: 需要配置 book.archive，且 --days 不少于 %d · book.archive must be set, and --days at least %d", errUsage, least, least)
	}
	moved, err := ledgercache.Archive(c.Context(), o, time.Now().AddDate(0, 0, -t.days))
	if err != nil {
		return sayBook(err)
	}
	_, err = fmt.Fprintf(t.out, "已归档 %d 段到 %s，它们仍是账本的一部分，请勿移走\n%d segments moved to %s; they stay a part of the book, keep them there\n", moved, cfg.Book.Archive, moved, cfg.Book.Archive)
	return err
}

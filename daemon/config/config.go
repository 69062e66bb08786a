// Package config is the one file that describes a terminal: defaults, strict decoding, and every fault listed.
//
// Guarantees: a configuration that loads is complete and in range; one that does not is refused with all its faults at
// once, each with file, line, column, what is wrong in Chinese and English, and for an unknown key the one that was
// probably meant; nothing is guessed and nothing unknown is ignored. Precedence: flag, POSD_* environment, file, default.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Config describes one terminal. Paths are absolute after Load.
type Config struct {
	Terminal Terminal
	Merchant Merchant
	Ledger   Ledger
	Web      Web
	Scanner  Scanner
	Printer  Printer
	Display  Display
	Shift    Shift
	Book     Book
	Clock    Clock
	Log      Log
}

// Clock is how far the machine's own clock is believed.
type Clock struct {
	OfflineBootHours int // after a restart of the machine, until the ledger is heard; 0 = not at all
}

// Terminal is who we are and where we keep it.
type Terminal struct {
	ID          string // 8 digits
	IdentityDir string
	DataDir     string
}

// Merchant is the shop.
type Merchant struct {
	ID          string // 15 digits
	Name        string // printable ASCII, 1 to 25: stands in dynamic codes
	DisplayName string // what people read; Name if empty
	MCC         string // 4 digits
}

// Ledger is where the central ledger is.
type Ledger struct{ URLs []string }

// Web is the HTTP face.
type Web struct {
	Listen      string
	AllowRemote bool // without it Listen must be loopback
	Tokens      []Token
}

// Token is one caller of the register API.
type Token struct {
	Name   string
	File   string
	Scopes []string
}

// Scanner is the serial scanner; none if Port is empty.
type Scanner struct {
	Port       string
	Baud       int
	Terminator string
}

// Printer is the receipt printer; none if Port is empty.
type Printer struct {
	Port    string
	Baud    int
	Profile string
	Auto    bool // every paid sale prints a receipt by itself
}

// Display is the customer's screen; none if Port is empty.
type Display struct {
	Port    string
	Baud    int
	Profile string
}

// Shift is how shifts begin.
type Shift struct{ AutoOpen bool }

// Book is how the book is kept.
type Book struct {
	Mirror    string
	Archive   string // where closed segments of the journal were moved to
	KeyFile   string // of the book's key; "" = book.key in the identity directory
	ReserveMB int    // of the disk, kept free: below it nothing new is taken
}

// Log is what is logged.
type Log struct{ Level string }

// defaults are what a file need not say.
func defaults() Config {
	return Config{
		Terminal: Terminal{IdentityDir: "identity", DataDir: "book"},
		Web:      Web{Listen: "127.0.0.1:8600"},
		Scanner:  Scanner{Baud: 9600, Terminator: "\r"},
		Printer:  Printer{Baud: 115200, Profile: "80mm", Auto: true},
		Display:  Display{Baud: 9600, Profile: "bonrix"},
		Shift:    Shift{AutoOpen: true},
		Book:     Book{ReserveMB: 64},
		Clock:    Clock{OfflineBootHours: 12},
		Log:      Log{Level: "info"},
	}
}

// Check is what is wrong with the file by itself, without the environment; nil if nothing is.
func Check(path string) []Fault {
	_, err := Load(path, nil)
	var faults Faults
	errors.As(err, &faults)
	return faults
}

// Load reads the file, lets POSD_* variables of env override it, and checks everything. What is wrong comes back as
// Faults, all of it.
func Load(path string, env []string) (Config, error) {
	raw, err := readFile(path)
	if err != nil {
		return Config{}, Faults{{File: path, ZH: "无法读取配置文件", EN: err.Error()}}
	}
	return parse(path, raw, env)
}

// maxFile is the largest configuration file, in bytes.
const maxFile = 256 << 10

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(raw) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return raw, err
}

func parse(path string, raw []byte, env []string) (Config, error) {
	cfg := defaults()
	once, twice := withoutRepeats(path, raw)
	var values map[string]any
	if err := toml.Unmarshal(once, &values); err != nil {
		return cfg, append(twice, syntaxFault(path, raw, err))
	}
	r := &reader{path: path, lines: strings.Split(string(raw), "\n"), where: positions(once), cfg: &cfg, seen: map[string]bool{}, overridden: map[string]string{}, faults: twice}
	r.table("", values)
	r.environment(env)
	r.required()
	r.across()
	if len(r.faults) > 0 {
		slices.SortStableFunc(r.faults, func(a, b Fault) int { return cmp.Or(a.Line-b.Line, a.Column-b.Column) })
		return cfg, r.faults
	}
	cfg.settle(filepath.Dir(path))
	return cfg, nil
}

// settle makes paths absolute, relative to the file's own directory, and fills what follows from the rest.
func (c *Config) settle(dir string) {
	abs := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	if full, err := filepath.Abs(dir); err == nil {
		dir = full
	}
	for _, p := range []*string{&c.Terminal.IdentityDir, &c.Terminal.DataDir, &c.Book.Mirror, &c.Book.Archive, &c.Book.KeyFile, &c.Scanner.Port, &c.Printer.Port, &c.Display.Port} {
		abs(p)
	}
	for i := range c.Web.Tokens {
		abs(&c.Web.Tokens[i].File)
	}
	if c.Merchant.DisplayName == "" {
		c.Merchant.DisplayName = c.Merchant.Name
	}
}

// Fault is one thing that is wrong. Line and Column count from 1; 0 is the environment or the file as a whole.
type Fault struct {
	File         string
	Line, Column int
	Key          string
	ZH, EN       string
	Source       string // the line itself
}

// String is one fault as a person reads it, with the line and a caret under the place.
func (f Fault) String() string {
	where := f.File
	if f.Line > 0 {
		where = fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column)
	}
	text := where + ": "
	if f.Key != "" {
		text += f.Key + ": "
	}
	text += f.ZH + " · " + f.EN
	if f.Source != "" {
		text += fmt.Sprintf("\n    %s\n    %s^", f.Source, strings.Repeat(" ", max(0, f.Column-1)))
	}
	return text
}

// Faults are all that is wrong with a configuration.
type Faults []Fault

// Error lists every fault.
func (f Faults) Error() string {
	lines := make([]string, 0, len(f)+1)
	for _, fault := range f {
		lines = append(lines, fault.String())
	}
	return strings.Join(append(lines, fmt.Sprintf("配置有 %d 处错误 · %d faults", len(f), len(f))), "\n")
}

func syntaxFault(path string, raw []byte, err error) Fault {
	f := Fault{File: path, ZH: "不是正确的 TOML", EN: strings.TrimPrefix(err.Error(), "toml: ")}
	var at *toml.DecodeError
	if errors.As(err, &at) {
		f.Line, f.Column = at.Position()
		if lines := strings.Split(string(raw), "\n"); f.Line >= 1 && f.Line <= len(lines) {
			f.Source = shown(lines[f.Line-1])
		}
	}
	return f
}

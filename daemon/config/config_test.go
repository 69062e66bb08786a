package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// faultsOf loads a file that must be refused.
func faultsOf(t *testing.T, path string, env ...string) Faults {
	t.Helper()
	_, err := Load(path, env)
	var faults Faults
	if !errors.As(err, &faults) {
		t.Fatalf("error is %v, want Faults", err)
	}
	for _, f := range faults {
		if f.ZH == "" || f.EN == "" {
			t.Errorf("%q does not speak both languages", f)
		}
	}
	return faults
}

// write makes a configuration file in a temporary directory.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "posd.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func good(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile("testdata/good.toml")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestEveryFaultOfAFileIsNamedAtItsPlace(t *testing.T) {
	for _, c := range []struct {
		file string
		want []string // line:column:key what
	}{
		{"ten-faults.toml", []string{
			"3:1:terminal.id must be 8 digits",
			"4:1:terminal.identity_dri there is no such key, did you mean terminal.identity_dir",
			"8:1:merchant.name must be 1 to 25 printable ASCII characters (other names go into display_name)",
			"9:1:merchant.mcc must be a text in quotes, not a number",
			"12:1:ledger.urls must be a wss:// address",
			"15:3:web.listen must be a loopback address unless web.allow_remote = true",
			"20:1:web.token[0].scopes there is no scope fly",
			"24:1:scanner.baud must be one of 1200 2400 4800 9600 19200 38400 57600 115200",
			"26:2:prnter there is no such key, did you mean printer",
			"30:1:shift.auto_open must be true or false, not a text",
		}},
		{"types.toml", []string{
			"1:1:log must be a table [log], not a text",
			"2:1:web.listen must be a text in quotes, not a number",
			"2:1:web.token must be written [[web.token]]",
			"3:1:merchant must be a table [merchant], not a list",
			"3:1:merchant.id is missing",
			"3:1:merchant.name is missing",
			"3:1:merchant.mcc is missing",
			"6:1:terminal.id must be a text in quotes, not a number",
			"7:1:terminal.data_dir must be a text in quotes, not true or false",
			"10:1:ledger.urls must be a list of texts with at least one entry",
			"13:1:printer.auto must be true or false, not a number",
			"14:1:printer.baud must be one of 1200 2400 4800 9600 19200 38400 57600 115200",
			"18:1:book.reserve_mb must be a whole number from 32 to 65536",
		}},
		{"missing.toml", []string{
			"0:0:ledger.urls is missing",
			"1:2:terminal.id is missing",
			"4:2:merchant.id is missing",
			"4:2:merchant.name is missing",
			"7:3:web.token[0] file is missing",
			"7:3:web.token[0] scopes is missing",
		}},
		{"duplicates.toml", []string{
			"22:1:web.token[1].name stands there twice",
			"31:1:printer.port is the same port as scanner.port",
		}},
		{"duplicate-key.toml", []string{
			"3:1:terminal.id stands there twice",
			"7:2:merchant.mcc is missing",
			"8:1:merchant.id must be 15 digits",
			"11:1:ledger.urls must be a wss:// address",
			"12:1:ledger.urls stands there twice",
			"16:2:terminal stands there twice",
			"20:1:log.level must be one of debug, info, warn, error",
		}},
		{"syntax.toml", []string{"2:6: integers cannot have leading zeroes"}},
	} {
		t.Run(c.file, func(t *testing.T) {
			var got []string
			for _, f := range faultsOf(t, filepath.Join("testdata", c.file)) {
				got = append(got, fmt.Sprintf("%d:%d:%s %s", f.Line, f.Column, f.Key, f.EN))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

func TestAFaultShowsItsLineWithACaretInBothLanguages(t *testing.T) {
	text := faultsOf(t, "testdata/ten-faults.toml").Error()
	for _, want := range []string{
		"testdata/ten-faults.toml:3:1: terminal.id: 应为 8 位数字 · must be 8 digits\n    id = \"1234\"\n    ^\n",
		"      listen = \"0.0.0.0:8600\"\n      ^\n",
		"配置有 10 处错误 · 10 faults",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

func TestOneChangeToAGoodFileIsOneFault(t *testing.T) {
	for _, c := range []struct{ name, old, with, want string }{
		{"a token's key with a letter missing", "scopes = [\"refund\"]", "scops = [\"refund\"]", "there is no such key, did you mean scopes"},
		{"a key that resembles nothing", "[log]", "[log]\nfavourite_colour = \"red\"", "there is no such key"},
		{"an empty list of ledgers", `"wss://127.0.0.1:8602/terminal/v1"`, "", "at least one entry"},
		{"a ledger address with a password", "wss://127.0.0.1", "wss://till:hunter2@127.0.0.1", "must be a wss:// address"},
		{"a port beyond 65535", "[::1]:8600", "[::1]:86000", "must be address:port"},
		{"a port with a sign", "[::1]:8600", "[::1]:+8600", "must be address:port"},
		{"every address of the machine", "[::1]:8600", "[::]:8600", "must be a loopback address"},
		{"no host", "[::1]:8600", ":8600", "must be address:port"},
		{"a host name that may be anybody's", "[::1]:8600", "till.example:8600", "must be a loopback address"},
		{"an unknown printer", `"58mm"`, `"57mm"`, "must be one of 80mm"},
		{"an unknown level", `"debug"`, `"loud"`, "must be one of debug"},
		{"a terminator of letters", `"none"`, `"x"`, `must be "\r"`},
		{"an empty port", `"/dev/pos/printer"`, `""`, "must not be empty"},
		{"a name of 26 characters", "YUZHONG NOODLES", strings.Repeat("Y", 26), "1 to 25"},
		{"a table that is no table of tokens", "[[web.token]]\nname = \"manager\"", "[web.tokens]\nname = \"manager\"", "there is no such key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := good(t)
			if !strings.Contains(before, c.old) {
				t.Fatalf("good.toml has no %q", c.old)
			}
			faults := faultsOf(t, write(t, strings.Replace(before, c.old, c.with, 1)))
			named := func(f Fault) bool { return strings.Contains(f.EN, c.want) && f.Line > 0 }
			if !slices.ContainsFunc(faults, named) {
				t.Errorf("got %v, want %q at a place", faults, c.want)
			}
			if strings.Contains(faults.Error(), "hunter2") {
				t.Error("the password of an address stands in the fault")
			}
		})
	}
}

func TestAGoodFileLoadsWithDefaultsAndAbsolutePaths(t *testing.T) {
	got, err := Load("testdata/good.toml", nil)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Terminal: Terminal{ID: "00000101", IdentityDir: dir + "/identity", DataDir: dir + "/book"},
		Merchant: Merchant{ID: "653000053310001", Name: "YUZHONG NOODLES", DisplayName: "渝中小面", MCC: "5411"},
		Ledger:   Ledger{URLs: []string{"wss://127.0.0.1:8602/terminal/v1"}},
		Web: Web{Listen: "[::1]:8600", Tokens: []Token{
			{Name: "register", File: dir + "/tokens/register", Scopes: []string{"pay", "query"}},
			{Name: "manager", File: "/etc/posd/manager", Scopes: []string{"refund"}},
		}},
		Scanner: Scanner{Port: dir + "/dev/scanner", Baud: 9600, Terminator: "none"},
		Printer: Printer{Port: "/dev/pos/printer", Baud: 115200, Profile: "58mm"},
		Display: Display{Baud: 9600, Profile: "bonrix"},
		Shift:   Shift{AutoOpen: true},
		Book:    Book{ReserveMB: 64},
		Clock:   Clock{OfflineBootHours: 12},
		Log:     Log{Level: "debug"},
	}
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
}

func TestPathsAreRelativeToTheFileWhereverTheProcessStands(t *testing.T) {
	path := write(t, good(t))
	t.Chdir("/")
	got, err := Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(filepath.Dir(path), "tokens/register"); got.Web.Tokens[0].File != want {
		t.Errorf("token's file is %s, want %s", got.Web.Tokens[0].File, want)
	}
}

func TestWithoutADisplayNamePeopleReadTheName(t *testing.T) {
	got, err := Load(write(t, strings.Replace(good(t), "display_name = \"渝中小面\"\n", "", 1)), nil)
	if err != nil || got.Merchant.DisplayName != "YUZHONG NOODLES" {
		t.Errorf("display name is %q, %v", got.Merchant.DisplayName, err)
	}
}

func TestTheEnvironmentOverridesTheFile(t *testing.T) {
	got, err := Load("testdata/good.toml", []string{
		"POSD_WEB_LISTEN=127.0.0.1:0", "POSD_LEDGER_URLS=wss://a:1/x, wss://b:2/y", "POSD_SCANNER_BAUD=19200", "POSD_PRINTER_AUTO=true",
		"POSD_MERCHANT_NAME=true", "POSD_LOG_LEVEL=warn", "POSD_LIFELINE_FD=3", "PATH=/bin", "POSD_LOG_LEVELS=mine",
	})
	if err != nil {
		t.Fatal(err)
	}
	g := fmt.Sprint(got.Web.Listen, got.Ledger.URLs, got.Scanner.Baud, got.Printer.Auto, got.Merchant.Name, got.Log.Level)
	if want := fmt.Sprint("127.0.0.1:0", []string{"wss://a:1/x", "wss://b:2/y"}, 19200, true, "true", "warn"); g != want {
		t.Errorf("got %s, want %s", g, want)
	}
}

func TestAVariableMendsWhatIsWrongOrMissingInTheFile(t *testing.T) {
	path := write(t, strings.Replace(strings.Replace(good(t), `id = "00000101"`, `id = 101`, 1), `mcc = "5411"`, "", 1))
	if got, err := Load(path, []string{"POSD_TERMINAL_ID=00000102", "POSD_MERCHANT_MCC=5812"}); err != nil || got.Terminal.ID != "00000102" || got.Merchant.MCC != "5812" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestAWrongVariableIsNamedAndNoLineIsBlamed(t *testing.T) {
	for variable, want := range map[string]string{
		"POSD_WEB_LISTEN=0.0.0.0:8600":  "must be a loopback address",
		"POSD_SCANNER_BAUD=fast":        "must be one of 1200",
		"POSD_SHIFT_AUTO_OPEN=yes":      "must be true or false",
		"POSD_PRINTER_PORT=dev/scanner": "is the same port as scanner.port",
	} {
		faults := faultsOf(t, "testdata/good.toml", variable)
		name, _, _ := strings.Cut(variable, "=")
		if f := faults[0]; len(faults) != 1 || f.File != "environment" || f.Key != name || f.Line != 0 || !strings.Contains(f.EN, want) {
			t.Errorf("%s: %+v", variable, faults)
		}
	}
}

func TestAllowRemoteOpensTheListener(t *testing.T) {
	path := write(t, strings.Replace(good(t), `listen = "[::1]:8600"`, "listen = \"0.0.0.0:8600\"\nallow_remote = true", 1))
	if _, err := Load(path, nil); err != nil {
		t.Error(err)
	}
}

func TestAFileThatCannotBeReadIsAFault(t *testing.T) {
	for name, path := range map[string]string{
		"missing": filepath.Join(t.TempDir(), "none.toml"), "a directory": t.TempDir(), "endless": write(t, strings.Repeat("#", maxFile+1)),
	} {
		if f := faultsOf(t, path)[0]; f.ZH != "无法读取配置文件" {
			t.Errorf("%s: %v", name, f)
		}
	}
}

const samples = "../../configs"

func TestTheShippedSampleLoadsAndNamesEveryKey(t *testing.T) {
	cfg, err := Load(filepath.Join(samples, "posd.toml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Web.Tokens) != 2 || cfg.Scanner.Port == "" || cfg.Printer.Port == "" || cfg.Display.Port == "" {
		t.Errorf("the sample shows too little: %+v", cfg)
	}
	raw, err := os.ReadFile(filepath.Join(samples, "posd.toml"))
	if err != nil {
		t.Fatal(err)
	}
	where := positions(raw)
	for key := range rules {
		if _, ok := where[key]; !ok {
			t.Errorf("the sample does not have %s", key)
		}
	}
	lines := strings.Split(string(raw), "\n")
	for key, at := range where {
		if above := lines[max(0, at.line-2)]; strings.Contains(key, ".") && !strings.HasPrefix(above, "#") {
			t.Errorf("%s has no comment above it", key)
		}
	}
}

func TestTheSampleSaysWhatTheDefaultsAre(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(samples, "posd.toml"))
	if err != nil {
		t.Fatal(err)
	}
	d := defaults()
	for _, want := range []string{
		d.Web.Listen, d.Printer.Profile, d.Display.Profile, d.Log.Level,
		fmt.Sprintf("baud = %d", d.Scanner.Baud), fmt.Sprintf("baud = %d", d.Printer.Baud),
		fmt.Sprintf("reserve_mb = %d", d.Book.ReserveMB),
		fmt.Sprintf("offline_boot_hours = %d", d.Clock.OfflineBootHours),
	} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("%q is not in the sample", want)
		}
	}
}

func FuzzParseNeverPanicsAndRefusesWithFaults(f *testing.F) {
	files, err := filepath.Glob("testdata/*.toml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte("[[web.token]]\nname.x = 1\n[web.token.y]\n[[web]]\n"))
	f.Add([]byte("web.\"a.b\" = {x.y = 1}\r\nweb = 3"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, err := parse("f.toml", raw, nil)
		var faults Faults
		if err != nil && (!errors.As(err, &faults) || faults.Error() == "") {
			t.Errorf("refused with %v", err)
		}
	})
}

// linesOf are the lines of a shipped file, or its parts between commas and line ends.
func linesOf(t *testing.T, name, ends string) []string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(samples, name))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.FieldsFunc(string(raw), func(r rune) bool { return strings.ContainsRune(ends, r) })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return lines
}

func TestTheUnitAndTheRulesHoldWhatTheyMust(t *testing.T) {
	unit, rules := linesOf(t, "posd.service", "\n"), linesOf(t, "70-posd.rules", "\n,")
	for _, want := range []string{
		"ExecStart=/usr/bin/posd serve -c /etc/posd/posd.toml", "Restart=always", "User=posd", "SupplementaryGroups=dialout", "UMask=0077",
		"TimeoutStopSec=30s", "DevicePolicy=closed", "DeviceAllow=char-ttyUSB rw", "DeviceAllow=char-ttyACM rw", "ProtectSystem=strict",
		"ReadWritePaths=/etc/posd", "NoNewPrivileges=yes", "CapabilityBoundingSet=", "MemoryDenyWriteExecute=yes", "WantedBy=multi-user.target",
	} {
		if !slices.Contains(unit, want) {
			t.Errorf("the unit does not hold %q", want)
		}
	}
	if slices.Contains(unit, "PrivateDevices=yes") {
		t.Error("PrivateDevices=yes hides the serial ports")
	}
	for _, want := range []string{
		`SYMLINK+="pos/scanner"`, `SYMLINK+="pos/printer"`, `SYMLINK+="pos/display"`, `GROUP="dialout"`, `ENV{ID_MM_DEVICE_IGNORE}="1"`,
	} {
		if !slices.Contains(rules, want) {
			t.Errorf("the rules do not hold %q", want)
		}
	}
}

func TestCheckIsTheFileAlone(t *testing.T) {
	if faults := Check("testdata/good.toml"); faults != nil {
		t.Errorf("a good file has %v", faults)
	}
	if faults := Check("testdata/ten-faults.toml"); len(faults) != 10 {
		t.Errorf("got %d faults, want 10", len(faults))
	}
}

package config

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"yupos/daemon/auth"
)

// problem is what is wrong with a value; the zero problem is nothing.
type problem struct{ zh, en string }

// rule takes one value into the configuration, or says why not.
type rule func(c *Config, v any) problem

// rules are all keys that a file may have. Keys of [[web.token]] stand in tokenRules.
var rules = map[string]rule{
	"terminal.id":              text(func(c *Config) *string { return &c.Terminal.ID }, digits(8)),
	"terminal.identity_dir":    text(func(c *Config) *string { return &c.Terminal.IdentityDir }, notEmpty),
	"terminal.data_dir":        text(func(c *Config) *string { return &c.Terminal.DataDir }, notEmpty),
	"merchant.id":              text(func(c *Config) *string { return &c.Merchant.ID }, digits(15)),
	"merchant.name":            text(func(c *Config) *string { return &c.Merchant.Name }, codeName),
	"merchant.display_name":    text(func(c *Config) *string { return &c.Merchant.DisplayName }, notEmpty),
	"merchant.mcc":             text(func(c *Config) *string { return &c.Merchant.MCC }, digits(4)),
	"ledger.urls":              texts(func(c *Config) *[]string { return &c.Ledger.URLs }, ledgerURL),
	"web.listen":               text(func(c *Config) *string { return &c.Web.Listen }, hostPort),
	"web.allow_remote":         flag(func(c *Config) *bool { return &c.Web.AllowRemote }),
	"scanner.port":             text(func(c *Config) *string { return &c.Scanner.Port }, notEmpty),
	"scanner.baud":             baud(func(c *Config) *int { return &c.Scanner.Baud }),
	"scanner.terminator":       text(func(c *Config) *string { return &c.Scanner.Terminator }, terminator),
	"printer.port":             text(func(c *Config) *string { return &c.Printer.Port }, notEmpty),
	"printer.baud":             baud(func(c *Config) *int { return &c.Printer.Baud }),
	"printer.profile":          text(func(c *Config) *string { return &c.Printer.Profile }, oneOf("80mm", "80mm-id", "58mm", "58mm-raster")),
	"printer.auto":             flag(func(c *Config) *bool { return &c.Printer.Auto }),
	"display.port":             text(func(c *Config) *string { return &c.Display.Port }, notEmpty),
	"display.baud":             baud(func(c *Config) *int { return &c.Display.Baud }),
	"display.profile":          text(func(c *Config) *string { return &c.Display.Profile }, oneOf("bonrix")),
	"shift.auto_open":          flag(func(c *Config) *bool { return &c.Shift.AutoOpen }),
	"book.mirror":              text(func(c *Config) *string { return &c.Book.Mirror }, anyText),
	"book.archive":             text(func(c *Config) *string { return &c.Book.Archive }, anyText),
	"book.key_file":            text(func(c *Config) *string { return &c.Book.KeyFile }, anyText),
	"book.reserve_mb":          number(func(c *Config) *int { return &c.Book.ReserveMB }, 32, 65536),
	"clock.offline_boot_hours": number(func(c *Config) *int { return &c.Clock.OfflineBootHours }, 0, 72),
	"log.level":                text(func(c *Config) *string { return &c.Log.Level }, oneOf("debug", "info", "warn", "error")),
}

// flags are the keys that take true or false: from the environment, every other value is a text.
var flags = map[string]bool{"web.allow_remote": true, "printer.auto": true, "shift.auto_open": true}

// requiredKeys must be in the file or the environment.
var requiredKeys = []string{"terminal.id", "merchant.id", "merchant.name", "merchant.mcc", "ledger.urls"}

// tokenRules are the keys of one [[web.token]].
var tokenRules = map[string]func(t *Token, v any) problem{
	"name":   func(t *Token, v any) problem { return asText(v, &t.Name, notEmpty) },
	"file":   func(t *Token, v any) problem { return asText(v, &t.File, notEmpty) },
	"scopes": func(t *Token, v any) problem { return asTexts(v, &t.Scopes, scope) },
}

func text(field func(*Config) *string, check func(string) problem) rule {
	return func(c *Config, v any) problem { return asText(v, field(c), check) }
}

func texts(field func(*Config) *[]string, check func(string) problem) rule {
	return func(c *Config, v any) problem { return asTexts(v, field(c), check) }
}

func asText(v any, into *string, check func(string) problem) problem {
	s, ok := v.(string)
	if !ok {
		return problem{"应为带引号的文本", fmt.Sprintf("must be a text in quotes, not %s", kindOf(v))}
	}
	if p := check(s); p != (problem{}) {
		return p
	}
	*into = s
	return problem{}
}

func asTexts(v any, into *[]string, check func(string) problem) problem {
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		return problem{"应为非空文本列表", "must be a list of texts with at least one entry"}
	}
	out := make([]string, 0, len(list))
	for _, e := range list {
		var s string
		if p := asText(e, &s, check); p != (problem{}) {
			return p
		}
		out = append(out, s)
	}
	*into = out
	return problem{}
}

func flag(field func(*Config) *bool) rule {
	return func(c *Config, v any) problem {
		b, ok := v.(bool)
		if !ok {
			return problem{"应为 true 或 false", fmt.Sprintf("must be true or false, not %s", kindOf(v))}
		}
		*field(c) = b
		return problem{}
	}
}

var rates = []int64{1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200}

func baud(field func(*Config) *int) rule {
	return func(c *Config, v any) problem {
		n, ok := v.(int64)
		if !ok || !slices.Contains(rates, n) {
			return problem{"波特率应为 1200 至 115200 的标准值", "must be one of 1200 2400 4800 9600 19200 38400 57600 115200"}
		}
		*field(c) = int(n)
		return problem{}
	}
}

// number takes a whole number within limits.
func number(field func(*Config) *int, least, most int64) rule {
	return func(c *Config, v any) problem {
		n, ok := v.(int64)
		if !ok || n < least || n > most {
			return problem{fmt.Sprintf("应为 %d 至 %d 的整数", least, most), fmt.Sprintf("must be a whole number from %d to %d", least, most)}
		}
		*field(c) = int(n)
		return problem{}
	}
}

func kindOf(v any) string {
	switch v.(type) {
	case string:
		return "a text"
	case int64, float64:
		return "a number"
	case bool:
		return "true or false"
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	}
	return "this"
}

func digits(n int) func(string) problem {
	shape := regexp.MustCompile(fmt.Sprintf(`^[0-9]{%d}$`, n))
	return func(s string) problem {
		if shape.MatchString(s) {
			return problem{}
		}
		return problem{fmt.Sprintf("应为 %d 位数字", n), fmt.Sprintf("must be %d digits", n)}
	}
}

func notEmpty(s string) problem {
	if strings.TrimSpace(s) == "" {
		return problem{"不能为空", "must not be empty"}
	}
	return problem{}
}

var asciiName = regexp.MustCompile(`^[ -~]{1,25}$`)

func codeName(s string) problem {
	if asciiName.MatchString(s) && !strings.Contains(s, "**") { // ** parts the words of a customer's screen
		return problem{}
	}
	return problem{"应为 1 至 25 个可打印 ASCII 字符（中文名写在 display_name）", "must be 1 to 25 printable ASCII characters (other names go into display_name)"}
}

func ledgerURL(s string) problem {
	u, err := url.Parse(s)
	if err == nil && u.Scheme == "wss" && u.Host != "" && u.User == nil {
		return problem{}
	}
	return problem{"应为 wss:// 地址", "must be a wss:// address"}
}

func hostPort(s string) problem {
	host, port, err := net.SplitHostPort(s)
	n, bad := strconv.ParseUint(port, 10, 16)
	if err != nil || bad != nil || strconv.FormatUint(n, 10) != port || host == "" {
		return problem{"应为 地址:端口，如 127.0.0.1:8600", "must be address:port, such as 127.0.0.1:8600"}
	}
	return problem{}
}

func terminator(s string) problem {
	if s == "none" || s != "" && strings.Trim(s, "\r\n\t\x03") == "" {
		return problem{}
	}
	return problem{`应为 "\r"、"\n"、"\r\n"、"\t" 或 "none"`, `must be "\r", "\n", "\r\n", "\t" or "none"`}
}

func oneOf(words ...string) func(string) problem {
	return func(s string) problem {
		if slices.Contains(words, s) {
			return problem{}
		}
		return problem{"应为 " + strings.Join(words, "、") + " 之一", "must be one of " + strings.Join(words, ", ")}
	}
}

func scope(s string) problem {
	if slices.Contains(auth.Scopes, auth.Scope(s)) {
		return problem{}
	}
	return problem{"没有权限 " + s, "there is no scope " + s}
}

// anyText takes what there is: an empty text means none.
func anyText(string) problem { return problem{} }

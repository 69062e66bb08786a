package config

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// place is where a key stands.
type place struct{ line, column int }

// positions finds where each key stands. Entries of an array of tables are counted: "web.token[1].file".
func positions(raw []byte) map[string]place {
	where := map[string]place{}
	counts := map[string]int{}
	table := ""
	var p unstable.Parser
	p.Reset(raw)
	for p.NextExpression() {
		e := p.Expression()
		name, first := keyOf(&p, e)
		switch e.Kind {
		case unstable.Table:
			table = name
			where[name] = first
		case unstable.ArrayTable:
			table = fmt.Sprintf("%s[%d]", name, counts[name])
			counts[name]++
			where[table] = first
			if _, ok := where[name]; !ok {
				where[name] = first
			}
		case unstable.KeyValue:
			where[join(table, name)] = first
		}
	}
	return where
}

// withoutRepeats blanks every key and table that stands in the file a second time, and names each: the decoder would stop
// at the first, and whatever else is wrong would stay hidden. Lines keep their numbers.
func withoutRepeats(path string, raw []byte) ([]byte, Faults) {
	lines := strings.Split(string(raw), "\n")
	seen, counts := map[string]bool{}, map[string]int{}
	var faults Faults
	table, from := "", 0 // from is the line, from 1, where something repeated began; 0 = nothing is being blanked
	whole := false       // a repeated table is blanked up to the next one
	blank := func(until int) {
		for i := from; from > 0 && i < until; i++ {
			lines[i-1] = ""
		}
		from, whole = 0, false
	}
	var p unstable.Parser
	p.Reset(raw)
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind == unstable.Comment {
			continue
		}
		name, at := keyOf(&p, e)
		key := join(table, name)
		if e.Kind != unstable.KeyValue {
			table, key = name, name
		}
		if e.Kind == unstable.ArrayTable {
			table = fmt.Sprintf("%s[%d]", name, counts[name])
			counts[name]++
			key = table
		}
		if whole && e.Kind == unstable.KeyValue {
			continue
		}
		blank(at.line)
		if seen[key] {
			from, whole = at.line, e.Kind != unstable.KeyValue
			faults = append(faults, Fault{File: path, Line: at.line, Column: at.column, Key: key, ZH: "重复出现", EN: "stands there twice", Source: shown(lines[at.line-1])})
		}
		seen[key] = true
	}
	if p.Error() != nil {
		return raw, nil // the decoder says what
	}
	blank(len(lines) + 1)
	return []byte(strings.Join(lines, "\n")), faults
}

// keyOf is the whole name of an expression and where it begins.
func keyOf(p *unstable.Parser, e *unstable.Node) (string, place) {
	var names []string
	var first place
	for it := e.Key(); it.Next(); {
		k := it.Node()
		if len(names) == 0 {
			at := p.Shape(k.Raw).Start
			first = place{at.Line, at.Column}
		}
		names = append(names, string(k.Data))
	}
	return strings.Join(names, "."), first
}

// shown is a line as a fault may show it: it helps, but an address may bear a password.
func shown(line string) string {
	if strings.Contains(line, "@") {
		return ""
	}
	return strings.TrimRight(line, "\r")
}

func join(table, name string) string {
	if table == "" {
		return name
	}
	return table + "." + name
}

// reader walks the values of a file and collects every fault.
type reader struct {
	path       string
	lines      []string
	where      map[string]place
	cfg        *Config
	seen       map[string]bool
	overridden map[string]string // key to the variable that has the last word
	faults     Faults
}

func (r *reader) fault(key string, p problem) {
	if name, ok := r.overridden[key]; ok {
		r.faults = append(r.faults, Fault{File: "environment", Key: name, ZH: p.zh, EN: p.en})
		return
	}
	f := Fault{File: r.path, Key: key, ZH: p.zh, EN: p.en}
	if at, ok := r.at(key); ok {
		f.Line, f.Column = at.line, at.column
		if at.line >= 1 && at.line <= len(r.lines) {
			f.Source = shown(r.lines[at.line-1])
		}
	}
	r.faults = append(r.faults, f)
}

// at is where a key stands, or the nearest table around it that has a place of its own: inside an inline table no key has.
func (r *reader) at(key string) (place, bool) {
	for {
		if at, ok := r.where[key]; ok {
			return at, true
		}
		dot := strings.LastIndexByte(key, '.')
		if dot < 0 {
			return place{}, false
		}
		key = key[:dot]
	}
}

// table takes every value below prefix.
func (r *reader) table(prefix string, values map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		key, v := join(prefix, name), values[name]
		if key == "web.token" {
			r.tokens(v)
			continue
		}
		if rule, ok := rules[key]; ok {
			r.seen[key] = true
			if p := rule(r.cfg, v); p != (problem{}) {
				r.fault(key, p)
			}
			continue
		}
		sub, ok := v.(map[string]any)
		switch {
		case !isTable(key):
			r.unknown(key, knownKeys())
		case !ok:
			r.fault(key, problem{"应写作 [" + key + "]", "must be a table [" + key + "], not " + kindOf(v)})
		default:
			r.table(key, sub)
		}
	}
}

// knownKeys are the names of all keys and tables.
func knownKeys() []string {
	names := map[string]bool{}
	for key := range rules {
		table, _, _ := strings.Cut(key, ".")
		names[key], names[table] = true, true
	}
	return slices.Sorted(maps.Keys(names))
}

// isTable reports whether some key stands below this one.
func isTable(key string) bool {
	for k := range rules {
		if strings.HasPrefix(k, key+".") {
			return true
		}
	}
	return false
}

func (r *reader) tokens(v any) {
	list, ok := v.([]any)
	if !ok {
		r.fault("web.token", problem{"应写作 [[web.token]]", "must be written [[web.token]]"})
		return
	}
	for i, e := range list {
		key := fmt.Sprintf("web.token[%d]", i)
		values, ok := e.(map[string]any)
		if !ok {
			r.fault(key, problem{"应写作 [[web.token]]", "must be written [[web.token]]"})
			continue
		}
		var t Token
		for _, name := range slices.Sorted(maps.Keys(values)) {
			rule, ok := tokenRules[name]
			if !ok {
				r.unknown(join(key, name), slices.Sorted(maps.Keys(tokenRules)))
				continue
			}
			if p := rule(&t, values[name]); p != (problem{}) {
				r.fault(join(key, name), p)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(tokenRules)) {
			if _, ok := values[name]; !ok {
				r.fault(key, problem{"缺少 " + name, name + " is missing"})
			}
		}
		r.cfg.Web.Tokens = append(r.cfg.Web.Tokens, t)
	}
}

func (r *reader) unknown(key string, known []string) {
	p := problem{"没有这个配置项", "there is no such key"}
	if near := nearest(key, known); near != "" {
		p.zh += "，是否想写 " + near
		p.en += ", did you mean " + near
	}
	r.fault(key, p)
}

// environment lets POSD_SECTION_KEY override the file. Variables that name no key are other people's.
func (r *reader) environment(env []string) {
	for _, key := range slices.Sorted(maps.Keys(rules)) {
		name := "POSD_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
		for _, e := range env {
			value, ok := strings.CutPrefix(e, name+"=")
			if !ok {
				continue
			}
			r.dropFaults(key)
			r.seen[key], r.overridden[key] = true, name
			if p := rules[key](r.cfg, fromEnv(key, value)); p != (problem{}) {
				r.fault(key, p)
			}
		}
	}
}

// dropFaults forgets what was wrong with a value that is overridden.
func (r *reader) dropFaults(key string) {
	r.faults = slices.DeleteFunc(r.faults, func(f Fault) bool { return f.Key == key })
}

// fromEnv reads a variable as the kind of value that its key takes.
func fromEnv(key, value string) any {
	if key == "ledger.urls" {
		var list []any
		for s := range strings.SplitSeq(value, ",") {
			list = append(list, strings.TrimSpace(s))
		}
		return list
	}
	if strings.HasSuffix(key, ".baud") || strings.HasSuffix(key, "_mb") {
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			return n
		}
	}
	if flags[key] && (value == "true" || value == "false") {
		return value == "true"
	}
	return value
}

func (r *reader) required() {
	for _, key := range requiredKeys {
		if r.seen[key] {
			continue
		}
		r.fault(key, problem{"缺少此配置项", "is missing"}) // points at its table, if the file has it
	}
}

// across checks what no key can know alone.
func (r *reader) across() {
	host, _, err := net.SplitHostPort(r.cfg.Web.Listen)
	ip := net.ParseIP(host)
	if err == nil && !r.cfg.Web.AllowRemote && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		r.fault("web.listen", problem{"只允许本机地址；如确需远程访问，请设 web.allow_remote = true", "must be a loopback address unless web.allow_remote = true"})
	}
	names := map[string]bool{}
	for i, t := range r.cfg.Web.Tokens {
		if t.Name != "" && names[t.Name] {
			r.fault(fmt.Sprintf("web.token[%d].name", i), problem{"名称重复", "stands there twice"})
		}
		names[t.Name] = true
	}
	ports := map[string]string{}
	for _, d := range []struct{ key, port string }{{"scanner.port", r.cfg.Scanner.Port}, {"printer.port", r.cfg.Printer.Port}, {"display.port", r.cfg.Display.Port}} {
		if d.port == "" {
			continue
		}
		if other, ok := ports[d.port]; ok {
			r.fault(d.key, problem{"与 " + other + " 是同一个端口", "is the same port as " + other})
		}
		ports[d.port] = d.key
	}
}

// nearest is the known key that was probably meant, "" if none is near.
func nearest(key string, known []string) string {
	best, least := "", 4
	for _, k := range known {
		if d := distance(strings.TrimPrefix(key[strings.LastIndexByte(key, ']')+1:], "."), k); d < least {
			best, least = k, d
		}
	}
	return best
}

// distance is the number of single-character edits between two words (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

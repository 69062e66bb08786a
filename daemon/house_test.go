package daemon_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// edges are the rooms and which of ours each may import. A room ending in "/..." stands for all below it.
var edges = map[string][]string{
	"ledgercache/money":   nil,
	"ledgercache/payment": {"ledgercache/money"},
	"ledgercache/trust":   {"ledgercache/money"},
	"ledgercache/journal": nil,
	"ledgercache":         {"ledgercache/money", "ledgercache/payment", "ledgercache/trust", "ledgercache/journal"},

	"devices/serial":  nil,
	"devices/scanner": {"devices/serial"},
	"devices/printer": {"devices/serial"},
	"devices/display": {"devices/serial"},
	"devices/speaker": {"devices/serial"},
	"devices/paycode": {"ledgercache/money"},

	"sync/wire":   {"ledgercache/money"},
	"sync/uplink": {"ledgercache", "sync/wire", "ledgercache/payment", "ledgercache/trust", "ledgercache/money"},

	"daemon/config":   {"daemon/auth"}, // the words of the scopes
	"daemon/auth":     nil,
	"daemon/identity": {"ledgercache/trust"},
	"daemon/receipt":  {"devices/printer", "ledgercache/money"},
	"daemon/client":   {"ledgercache/money"},
	"daemon/till": {
		"daemon/receipt", "ledgercache", "ledgercache/payment", "ledgercache/trust", "ledgercache/money", "devices/paycode", "devices/scanner", "devices/printer",
		"devices/display",
	},
	"daemon/office": {"daemon/receipt", "ledgercache", "ledgercache/payment", "ledgercache/money"},
	"daemon/web": {
		"daemon/till", "daemon/office", "daemon/auth", "daemon/identity", "ledgercache", "ledgercache/payment", "ledgercache/money", "devices/paycode",
	},
	"daemon": {
		"daemon/config", "daemon/web", "daemon/office", "daemon/till", "daemon/auth", "daemon/receipt", "daemon/identity", "devices/...", "sync/...",
		"ledgercache", "ledgercache/...",
	},

	"simulators":     {"simulators/...", "sync/wire", "devices/paycode", "ledgercache/money"},
	"simulators/...": {"simulators/...", "sync/wire", "devices/paycode", "ledgercache/money"},

	"cmd/posd":   {"daemon"},
	"cmd/posctl": {"daemon/client", "devices/paycode", "ledgercache/money"},
	"cmd/possim": {"daemon", "simulators", "simulators/..."},
}

// owners are the libraries that only these rooms may import.
var owners = map[string][]string{
	"github.com/dgraph-io/badger":   {"ledgercache", "ledgercache/...", "simulators/ledgersim"},
	"github.com/gorilla/websocket":  {"sync/uplink", "simulators/ledgersim"},
	"go.bug.st/serial":              {"devices/serial"},
	"github.com/makiuchi-d/gozxing": {"devices/paycode"},
	"github.com/skip2/go-qrcode":    {"devices/paycode"},
	"github.com/pelletier/go-toml":  {"daemon/config"},
}

// simulatorsReach is all that simulators may touch of ours, however far away.
var simulatorsReach = []string{"simulators", "simulators/...", "sync/wire", "devices/paycode", "ledgercache/money"}

// room is one package of ours, without the module's name.
type room struct {
	path    string
	imports []string // whole import paths, of the program only
}

func (r room) ours() []string {
	var list []string
	for _, i := range r.imports {
		if p, ok := strings.CutPrefix(i, "yupos/"); ok {
			list = append(list, p)
		}
	}
	return list
}

// matches reports whether a room is one of the names.
func matches(p string, names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool {
		below, ok := strings.CutSuffix(n, "...")
		return p == n || ok && strings.HasPrefix(p, below)
	})
}

func wrongEdges(rooms []room) (wrong []string) {
	for _, r := range rooms {
		may, known := edges[r.path]
		if !known {
			if !strings.HasPrefix(r.path, "simulators/") {
				wrong = append(wrong, r.path+" is no room of the house")
				continue
			}
			may = edges["simulators/..."]
		}
		for _, i := range r.ours() {
			if !matches(i, may) {
				wrong = append(wrong, r.path+" may not import "+i)
			}
		}
	}
	return wrong
}

func wrongOwners(rooms []room) (wrong []string) {
	for _, r := range rooms {
		for _, i := range r.imports {
			for library, may := range owners {
				if (i == library || strings.HasPrefix(i, library+"/")) && !matches(r.path, may) {
					wrong = append(wrong, r.path+" may not import "+library)
				}
			}
		}
	}
	return wrong
}

// wrongReach follows the simulators' imports to their ends.
func wrongReach(rooms []room) (wrong []string) {
	imports := map[string][]string{}
	for _, r := range rooms {
		imports[r.path] = r.ours()
	}
	for _, r := range rooms {
		if r.path != "simulators" && !strings.HasPrefix(r.path, "simulators/") {
			continue
		}
		seen, todo := map[string]bool{}, []string{r.path}
		for len(todo) > 0 {
			at := todo[0]
			todo = todo[1:]
			if seen[at] {
				continue
			}
			seen[at] = true
			todo = append(todo, imports[at]...)
			if !matches(at, simulatorsReach) {
				wrong = append(wrong, r.path+" reaches "+at)
			}
		}
	}
	return wrong
}

var forbidden = []string{"internal", "pkg", "util", "utils", "common", "types", "models", "mocks"}

// wrongPlaces judges the names of all files, relative to the house.
func wrongPlaces(files []string) (wrong []string) {
	top := []string{"daemon", "devices", "sync", "ledgercache", "cmd", "simulators", "configs", "go.mod", "go.sum", "README.md", "LICENSE"}
	for _, f := range files {
		first, _, _ := strings.Cut(f, "/")
		if !strings.HasPrefix(first, ".") && !slices.Contains(top, first) {
			wrong = append(wrong, f+" stands at the top level")
		}
		if path.Dir(f) == "sync" && strings.HasSuffix(f, ".go") {
			wrong = append(wrong, f+" stands directly in sync/")
		}
		for part := range strings.SplitSeq(path.Dir(f), "/") {
			if slices.Contains(forbidden, part) {
				wrong = append(wrong, f+" stands in a folder named "+part)
			}
		}
	}
	return wrong
}

const maxFunction, maxFile = 70, 700 // lines

// wrongShape judges the files of one folder, by name; tests are left out.
func wrongShape(dir string, sources map[string]string) (wrong []string) {
	set := token.NewFileSet()
	var comments []string
	name := ""
	for _, file := range slices.Sorted(maps.Keys(sources)) {
		f, err := parser.ParseFile(set, file, sources[file], parser.ParseComments)
		if err != nil {
			wrong = append(wrong, err.Error())
			continue
		}
		if ast.IsGenerated(f) {
			continue
		}
		name = f.Name.Name
		if f.Doc != nil {
			comments = append(comments, f.Doc.Text())
		}
		if n := strings.Count(sources[file], "\n"); n > maxFile {
			wrong = append(wrong, fmt.Sprintf("%s has %d lines", file, n))
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := set.Position(fn.End()).Line - set.Position(fn.Pos()).Line + 1; n > maxFunction {
				wrong = append(wrong, fmt.Sprintf("%s: %s has %d lines", file, fn.Name.Name, n))
			}
		}
	}
	if name == "" {
		return wrong
	}
	return append(wrong, wrongComment(dir, name, comments)...)
}

func wrongComment(dir, name string, comments []string) []string {
	if len(comments) != 1 {
		return []string{fmt.Sprintf("%s has %d package comments", dir, len(comments))}
	}
	start := "Package " + name + " "
	if name == "main" {
		start = "Command " + path.Base(dir) + " "
	}
	text := strings.Join(strings.Fields(comments[0]), " ")
	if !strings.HasPrefix(text, start) {
		return []string{fmt.Sprintf("%s: the package comment does not start with %q", dir, start)}
	}
	if !strings.Contains(strings.TrimSuffix(text, "."), ". ") {
		return []string{dir + ": the package comment is one sentence"}
	}
	return nil
}

// house lists all rooms, whether they compile or not.
func house(t *testing.T) []room {
	t.Helper()
	list := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,GoFiles", "./...")
	list.Dir = ".."
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	var rooms []room
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath       string
			Imports, GoFiles []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return rooms
		} else if err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) > 0 {
			rooms = append(rooms, room{strings.TrimPrefix(p.ImportPath, "yupos/"), p.Imports})
		}
	}
}

// files are all files of the house that are tracked or about to be.
func files(t *testing.T) []string {
	t.Helper()
	git := exec.Command("git", "ls-files", "--cached", "--others", "--exclude-standard")
	git.Dir = ".."
	out, err := git.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

func TestTheHouseStandsAsPlanned(t *testing.T) {
	rooms, all := house(t), files(t)
	if len(rooms) < 20 || len(all) < 100 {
		t.Fatalf("found only %d rooms and %d files", len(rooms), len(all))
	}
	folders := map[string]map[string]string{}
	for _, f := range all {
		if !strings.HasSuffix(f, ".go") || strings.HasSuffix(f, "_test.go") || strings.Contains(f, "testdata/") {
			continue
		}
		raw, err := os.ReadFile(filepath.Join("..", f))
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted, not yet recorded
		}
		if err != nil {
			t.Fatal(err)
		}
		dir := path.Dir(f)
		if folders[dir] == nil {
			folders[dir] = map[string]string{}
		}
		folders[dir][f] = string(raw)
	}
	wrong := slices.Concat(wrongEdges(rooms), wrongOwners(rooms), wrongReach(rooms), wrongPlaces(all))
	for _, dir := range slices.Sorted(maps.Keys(folders)) {
		wrong = append(wrong, wrongShape(dir, folders[dir])...)
	}
	for _, w := range wrong {
		t.Error(w)
	}
}

func TestAnImportThatIsNotPlannedIsFound(t *testing.T) {
	for _, c := range []struct {
		name  string
		rooms []room
		want  string
	}{
		{"a device that knows the book", []room{{"devices/scanner", []string{"yupos/ledgercache"}}}, "devices/scanner may not import ledgercache"},
		{"a room that knows the configuration", []room{{"daemon/till", []string{"yupos/daemon/config"}}}, "daemon/till may not import daemon/config"},
		{"a journal that knows money", []room{{"ledgercache/journal", []string{"yupos/ledgercache/money"}}}, "ledgercache/journal may not import ledgercache/money"},
		{"a simulator that shares code with the till", []room{{"simulators/newsim", []string{"yupos/daemon/till"}}}, "simulators/newsim may not import daemon/till"},
		{"a room that nobody planned", []room{{"daemon/helpers", nil}}, "daemon/helpers is no room of the house"},
		{"websockets in the web", []room{{"daemon/web", []string{"github.com/gorilla/websocket"}}}, "daemon/web may not import github.com/gorilla/websocket"},
		{"Badger's inside in the till", []room{{"daemon/till", []string{"github.com/dgraph-io/badger/v4/options"}}}, "daemon/till may not import github.com/dgraph-io/badger"},
		{"a simulator that reaches the book through a friend", []room{
			{"simulators/ledgersim", []string{"yupos/sync/wire"}}, {"sync/wire", []string{"yupos/ledgercache"}},
		}, "simulators/ledgersim reaches ledgercache"},
		{"nothing wrong", []room{{"simulators/ledgersim", []string{"yupos/sync/wire", "fmt", "github.com/dgraph-io/badger/v4"}}, {"sync/wire", nil}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			wrong := slices.Concat(wrongEdges(c.rooms), wrongOwners(c.rooms), wrongReach(c.rooms))
			if c.want == "" && len(wrong) > 0 || c.want != "" && !slices.Contains(wrong, c.want) {
				t.Errorf("found %q, want %q", wrong, c.want)
			}
		})
	}
}

func TestAFileInTheWrongPlaceIsFound(t *testing.T) {
	for file, want := range map[string]bool{
		"main.go": true, "docs/a.md": true, "sync/sync.go": true, "daemon/internal/a.go": true, "devices/util/a.go": true, "Makefile": true,
		".ci/run": false, "LICENSE": false, "sync/wire/wire.go": false, "sync/README.md": false, "ledgercache/types.go": false,
	} {
		if wrong := wrongPlaces([]string{file}); (len(wrong) > 0) != want {
			t.Errorf("%s: found %q", file, wrong)
		}
	}
}

func TestAFileOfTheWrongShapeIsFound(t *testing.T) {
	const doc = "// Package a does it. It promises that.\npackage a\n"
	long := func(lines int) string { return doc + "func f() {\n" + strings.Repeat("\t_ = 1\n", lines-2) + "}\n" }
	for _, c := range []struct {
		name, dir string
		sources   map[string]string
		wrong     string
	}{
		{"a function of 71 lines", "a", map[string]string{"a.go": long(71)}, "a.go: f has 71 lines"},
		{"a function of 70 lines", "a", map[string]string{"a.go": long(70)}, ""},
		{"a file of 701 lines", "a", map[string]string{"a.go": doc + strings.Repeat("\n", 699)}, "a.go has 701 lines"},
		{"a file of 700 lines", "a", map[string]string{"a.go": doc + strings.Repeat("\n", 698)}, ""},
		{"a generated function of 100 lines", "a", map[string]string{"a.go": doc, "b.go": "// Code generated by x. DO NOT EDIT.\n\n" + long(100)}, ""},
		{"no package comment", "a", map[string]string{"a.go": "package a\n"}, "a has 0 package comments"},
		{"two package comments", "a", map[string]string{"a.go": doc, "b.go": doc}, "a has 2 package comments"},
		{"a comment of one sentence", "a", map[string]string{"a.go": "// Package a does it.\npackage a\n"}, "a: the package comment is one sentence"},
		{"a comment of something else", "a", map[string]string{"a.go": "// Here is a. It is.\npackage a\n"}, `a: the package comment does not start with "Package a "`},
		{"a command that is called a package", "cmd/b", map[string]string{"a.go": "// Package main is b. It is.\npackage main\n"}, `cmd/b: the package comment does not start with "Command b "`},
		{"a command", "cmd/b", map[string]string{"a.go": "// Command b does it. It promises that.\npackage main\n"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			wrong := wrongShape(c.dir, c.sources)
			if c.wrong == "" && len(wrong) > 0 || c.wrong != "" && !slices.Contains(wrong, c.wrong) {
				t.Errorf("found %q, want %q", wrong, c.wrong)
			}
		})
	}
}

package managedpg_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// pages are the texts for readers: name and content.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, pattern := range []string{"*.md", "docs/*.md", "ops/*.md"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			all[name] = read(t, name)
		}
	}
	return all
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var (
	fence     = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")
	link      = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	heading   = regexp.MustCompile(`(?m)^#+ +(.+?) *$`)
	backticks = regexp.MustCompile("`[^`\n]*`")
)

// Every link that leads to a file of ours, or to a heading in one, leads somewhere.
func TestLinksLeadSomewhere(t *testing.T) {
	anchors := func(text string) map[string]bool {
		all := make(map[string]bool)
		for _, h := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			all[anchor(h[1])] = true
		}
		return all
	}
	for name, text := range pages(t) {
		text = backticks.ReplaceAllString(fence.ReplaceAllString(text, ""), "")
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			u, err := url.Parse(m[1])
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if u.Scheme != "" {
				continue
			}
			target := name
			if u.Path != "" {
				target = filepath.Join(filepath.Dir(name), filepath.FromSlash(u.Path))
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: link to %s: %v", name, m[1], err)
				continue
			}
			if u.Fragment != "" && !anchors(read(t, target))[u.Fragment] {
				t.Errorf("%s: link to %s: there is no such heading", name, m[1])
			}
		}
	}
}

// anchor is what GitHub makes of a heading.
func anchor(heading string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(heading) {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			b.WriteRune(r)
		case r == ' ':
			b.WriteByte('-')
		}
	}
	return b.String()
}

// Every page in docs is found from the README.
func TestReadmeLeadsToTheDocs(t *testing.T) {
	readme := read(t, "README.md")
	for name := range pages(t) {
		if strings.HasPrefix(name, "docs/") && !strings.Contains(readme, "("+filepath.ToSlash(name)+")") {
			t.Errorf("README.md has no link to %s", name)
		}
	}
}

// Every block of Go in the docs compiles: a program as it is, and a part of one within a function to which a context, a
// sql.DB and the like are given. What a part declares it need not use. A block with a library that only the module integration
// has is compiled there.
func TestGoInTheDocsCompiles(t *testing.T) {
	blocks := 0
	imports, wider := newExports(t, ".", given), newExports(t, "integration", givenTraced)
	for name, text := range pages(t) {
		for _, m := range fence.FindAllStringSubmatch(text, -1) {
			if m[1] != "go" {
				continue
			}
			blocks++
			by, head := imports, given
			if strings.Contains(m[2], "otelsql.") {
				by, head = wider, givenTraced
			}
			if err := by.compiles(m[2], head); err != nil {
				t.Errorf("%s: %v in\n%s", name, err, m[2])
			}
		}
	}
	if blocks < 10 {
		t.Errorf("only %d blocks found", blocks)
	}
}

// given is what a part of a program may use without saying where it comes from.
const given = `package p

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/jackc/pgx/v5/tracelog"
	"github.com/lib/pq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/conn"
	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/leak"
	"github.com/managedpg/managedpg/stats"
	"github.com/managedpg/managedpg/stats/otelstats"
	"github.com/managedpg/managedpg/stats/promstats"
	"github.com/managedpg/managedpg/stats/web"
)

var (
	ctx  context.Context
	db   *sql.DB
	pool *managedpg.Pool
	cfg  *managedpg.Config
	mux  *http.ServeMux
	dsn  string
	err  error

	server       *http.Server
	passwordFile string
	handle       func(payload string)
)

`

// givenTraced has what only the module integration has, besides.
var givenTraced = strings.Replace(given, "import (", `import (
	"github.com/XSAM/otelsql"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
`, 1)

// exports finds what packages export in what the go command has compiled.
type exports map[string]string // the file, by import path

// newExports has what a module's directory can import of what is given, and what that imports.
func newExports(t *testing.T, dir, given string) exports {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "", given, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}"}
	for _, i := range f.Imports {
		path, _ := strconv.Unquote(i.Path.Value)
		args = append(args, path)
	}
	var complaint bytes.Buffer
	list := exec.Command("go", args...)
	list.Dir, list.Stderr = dir, &complaint
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, complaint.Bytes())
	}
	e := make(exports)
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		e[path] = file
	}
	return e
}

func (e exports) open(path string) (io.ReadCloser, error) {
	file := e[path]
	if file == "" {
		return nil, fmt.Errorf("%s is not among the imports of the docs' test", path)
	}
	return os.Open(file)
}

func (e exports) compiles(block, given string) error {
	files := token.NewFileSet()
	parse := func(text string) (*ast.File, error) {
		return parser.ParseFile(files, "block.go", text, parser.SkipObjectResolution)
	}
	program := strings.HasPrefix(block, "package ")
	f, err := parse(block)
	if !program {
		if f, err = parse(given + block); err != nil {
			f, err = parse(given + "func _() error {\n" + block + "\npanic(0)\n}\n")
		}
	}
	if err != nil {
		return err
	}
	var first error
	check := types.Config{
		Importer: importer.ForCompiler(files, "gc", e.open),
		Error: func(err error) {
			// What is soft is an import or a variable without a use.
			if soft, ok := err.(types.Error); first == nil && (program || !ok || !soft.Soft) {
				first = err
			}
		},
	}
	_, _ = check.Check("p", files, []*ast.File{f}, nil)
	return first
}

// The README's table of the DSN's keys is the one in keys.go.
func TestReadmeHasEveryKey(t *testing.T) {
	_, section, _ := strings.Cut(read(t, "README.md"), "\n## The DSN\n")
	section, _, _ = strings.Cut(section, "\n## ")
	inReadme := make(map[string]bool)
	for line := range strings.Lines(section) {
		row, ok := strings.CutPrefix(line, "|")
		if !ok {
			continue
		}
		first, _, _ := strings.Cut(row, "|")
		for _, name := range backticks.FindAllString(first, -1) {
			inReadme[strings.Trim(name, "`")] = true
		}
	}
	keys := dsnKeys(t)
	for _, key := range keys {
		if !inReadme[key] && !(strings.HasPrefix(key, "keepalives") && inReadme["keepalives*"]) {
			t.Errorf("README.md lacks %s", key)
		}
	}
	for key := range inReadme {
		if !slices.Contains(keys, key) && key != "keepalives*" {
			t.Errorf("README.md has %s, which is no key", key)
		}
	}
}

// dsnKeys are the names in keys.go's table.
func dsnKeys(t *testing.T) (names []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "keys.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		table, ok := n.(*ast.ValueSpec)
		if !ok || table.Names[0].Name != "keys" {
			return true
		}
		ast.Inspect(table, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if f, ok := call.Fun.(*ast.Ident); ok && strings.HasSuffix(f.Name, "Key") {
				names = append(names, literals(call.Args[0])[0])
			}
			return true
		})
		return false
	})
	if len(names) < 30 {
		t.Fatalf("keys.go has %q only", names)
	}
	return names
}

// docs/errors.md has each error and each log message that the code can make: every constant part of the text.
func TestEveryMessageIsExplained(t *testing.T) {
	spaces := regexp.MustCompile(`\s+`)
	explained := spaces.ReplaceAllString(read(t, "docs/errors.md"), " ")
	messages := 0
	for file, texts := range messagesInCode(t) {
		for _, text := range texts {
			messages++
			for _, part := range constantParts(text) {
				if !strings.Contains(explained, part) {
					t.Errorf("docs/errors.md lacks %q of %q in %s", part, text, file)
				}
			}
		}
	}
	if messages < 80 {
		t.Errorf("only %d messages found", messages)
	}
}

// constantParts are what a format says whatever it is given, but for what is too short to be looked for.
func constantParts(format string) (parts []string) {
	verb := regexp.MustCompile(`%[-+# 0]*[0-9]*(?:\.[0-9]+)?[a-zA-Z]`)
	const percent = "\x00"
	format = strings.ReplaceAll(format, "%%", percent)
	for _, part := range verb.Split(format, -1) {
		part = strings.ReplaceAll(strings.Trim(part, " :;,()\"\n"), percent, "%")
		if len(part) >= 8 && part != "managedpg" {
			parts = append(parts, part)
		}
	}
	return parts
}

// messagesInCode are the texts that the module's packages give to errors.New, fmt.Errorf and the like, or that begin with the
// package's name, by file.
func messagesInCode(t *testing.T) map[string][]string {
	t.Helper()
	found := make(map[string][]string)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			_, isModule := os.Stat(filepath.Join(path, "go.mod"))
			if path != "." && (isModule == nil || path == "examples" || path == "internal/pgtest" || path == "internal/e2e" || path == "internal/sim" || strings.HasPrefix(path, ".")) {
				return fs.SkipDir
			}
			return nil
		case filepath.Ext(path) != ".go", strings.HasSuffix(path, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BinaryExpr:
				if texts := literals(n); len(texts) > 0 && strings.HasPrefix(texts[0], "managedpg: ") {
					found[path] = append(found[path], texts...)
				}
			case *ast.CallExpr:
				found[path] = append(found[path], said(n)...)
				if f, ok := n.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Sprintf" && strings.HasPrefix(path, "internal/failover") {
					found[path] = append(found[path], literals(n.Args[0])...) // reasons
				}
			case *ast.AssignStmt:
				if to, ok := n.Lhs[0].(*ast.SelectorExpr); ok && to.Sel.Name == "why" {
					found[path] = append(found[path], literals(n.Rhs[0])...) // of an outcome that stays unknown
				}
			case *ast.ValueSpec:
				kind, _ := n.Type.(*ast.Ident)
				switch {
				case kind == nil:
				case kind.Name == "DropKind":
					found[path] = append(found[path], "closed, "+literals(n.Values[0])[0])
				case kind.Name == "EventKind":
					found[path] = append(found[path], "managedpg: "+literals(n.Values[0])[0])
				}
			case *ast.BasicLit:
				if text, err := strconv.Unquote(n.Value); err == nil && strings.HasPrefix(text, "managedpg: ") {
					found[path] = append(found[path], text)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// said is the text that a call makes an error, a log record or an HTTP response of.
func said(call *ast.CallExpr) []string {
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return nil
	}
	on, _ := f.X.(*ast.Ident)
	name := f.Sel.Name
	if on != nil {
		name = on.Name + "." + name
	}
	switch name {
	case "errors.New", "fmt.Errorf":
		return literals(call.Args[0])
	case "http.Error":
		return literals(call.Args[1])
	case "p.event": // conn's: what echo_pool logs
		for _, text := range literals(call.Args[1]) {
			return []string{"managedpg: " + text}
		}
	}
	return nil
}

// literals are the string literals of an expression, in order.
func literals(e ast.Expr) (texts []string) {
	ast.Inspect(e, func(n ast.Node) bool {
		if _, ok := n.(*ast.CallExpr); ok && n != ast.Node(e) {
			return false
		}
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
			if text, err := strconv.Unquote(l.Value); err == nil {
				texts = append(texts, text)
			}
		}
		return true
	})
	return texts
}

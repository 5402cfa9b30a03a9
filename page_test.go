package managedpg_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/driver"
)

// The package's page shows what a user names: each type with its methods and fields, and a word about each.
func TestPageShowsEachName(t *testing.T) {
	page := pageOf(t)
	shown := map[string]bool{}
	add := func(name, text string) {
		if shown[name] = true; text == "" {
			t.Errorf("%s has no documentation", name)
		}
	}
	for _, f := range page.Funcs {
		add(f.Name, f.Doc)
	}
	for _, v := range page.Vars {
		for _, name := range v.Names {
			add(name, v.Doc)
		}
	}
	for _, typ := range page.Types {
		add(typ.Name, typ.Doc)
		for _, f := range typ.Funcs {
			add(f.Name, f.Doc)
		}
		for _, m := range typ.Methods {
			add(typ.Name+"."+m.Name, m.Doc)
		}
		spec := typ.Decl.Specs[0].(*ast.TypeSpec)
		if spec.Assign.IsValid() {
			t.Errorf("%s is an alias, of which the page shows neither methods nor fields", typ.Name)
		}
		if fields, ok := spec.Type.(*ast.StructType); ok {
			for _, f := range fields.Fields.List {
				for _, name := range f.Names {
					add(typ.Name+"."+name.Name, f.Doc.Text()+f.Comment.Text())
				}
			}
		}
	}

	wanted := []string{"Stats", "Pools", "PoolOf", "ParseDSN", "OpenDB", "InTx", "TxOptions.Retries", "TxOptions.ResolveCommit",
		"LongCheckout", "Unwrap", "PgxConn", "SetLogger", "ErrPoolTimeout", "ErrNoEndpoint", "ErrReclaimed", "ErrTxLost", "ErrOutcomeUnknown", "ErrClosed"}
	for _, typ := range []reflect.Type{reflect.TypeFor[*managedpg.Pool](), reflect.TypeFor[*managedpg.Config]()} {
		for m := range typ.NumMethod() {
			wanted = append(wanted, typ.Elem().Name()+"."+typ.Method(m).Name)
		}
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[managedpg.Config]()) {
		if f.IsExported() {
			wanted = append(wanted, "Config."+f.Name)
		}
	}
	for _, name := range wanted {
		if !shown[name] {
			t.Errorf("the page lacks %s", name)
		}
	}
}

// A method of the connector's that Pool lacks could not be called by a user.
func TestPoolHasWhatTheConnectorHas(t *testing.T) {
	pool, connector := reflect.TypeFor[*managedpg.Pool](), reflect.TypeFor[*driver.Connector]()
	for m := range connector.NumMethod() {
		if _, ok := pool.MethodByName(connector.Method(m).Name); !ok {
			t.Errorf("Pool has no %s", connector.Method(m).Name)
		}
	}
}

func pageOf(t *testing.T) *doc.Package {
	t.Helper()
	files := token.NewFileSet()
	var parsed []*ast.File
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(files, e.Name(), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, f)
	}
	page, err := doc.NewFromFiles(files, parsed, "github.com/managedpg/managedpg")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(page.Types, func(typ *doc.Type) bool { return typ.Name == "Config" }) {
		t.Fatal("the page has no Config")
	}
	return page
}

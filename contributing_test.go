package managedpg_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strings"
	"testing"
)

// Whoever asks CONTRIBUTING where something is finds it there.
func TestContributingSaysWhereThingsAre(t *testing.T) {
	page, err := os.ReadFile("CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| (.+) \\| `([a-z0-9_/]+\\.go)` \\| `([A-Za-z.]+)` \\|$").FindAllStringSubmatch(string(page), -1)
	questions := 0
	for _, row := range rows {
		if strings.HasSuffix(row[1], "?") {
			questions++
		}
		if !declares(t, row[2], row[3]) {
			t.Errorf("%s: %s has no %s", row[1], row[2], row[3])
		}
	}
	if questions != 10 {
		t.Errorf("%d questions are answered, want 10", questions)
	}
}

// declares says whether a file declares a function, a method (Type.Method) or a field (Type.Field).
func declares(t *testing.T, path, name string) bool {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Error(err)
		return false
	}
	of, member, isMember := strings.Cut(name, ".")
	found := false
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			switch {
			case n.Recv == nil:
				found = found || n.Name.Name == name
			case isMember:
				found = found || n.Name.Name == member && receiver(n.Recv.List[0].Type) == of
			}
			return false
		case *ast.TypeSpec:
			s, ok := n.Type.(*ast.StructType)
			if !ok || n.Name.Name != of {
				return true
			}
			for _, f := range s.Fields.List {
				for _, field := range f.Names {
					found = found || field.Name == member
				}
			}
		}
		return true
	})
	return found
}

// receiver is the type that a method is of.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	default:
		return ""
	}
}

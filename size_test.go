package managedpg_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file is one idea, and so is a struct: one that needs more room says why, in a comment that begins with "More than 15 fields:".
func TestNoFileAndNoStructHasGrown(t *testing.T) {
	const (
		mostLines  = 450
		mostFields = 15
	)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "ent"):
			return filepath.SkipDir
		case d.IsDir(), !strings.HasSuffix(path, ".go"), strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		if n := bytes.Count(text, []byte("\n")); n > mostLines {
			t.Errorf("%s has %d lines, of %d at most", path, n, mostLines)
		}
		comments := func(n ast.Node) (text string) {
			from := fset.Position(n.Pos()).Line
			for _, c := range file.Comments {
				if c.Pos() < n.End() && fset.Position(c.End()).Line >= from-1 {
					text += c.Text()
				}
			}
			return text
		}
		ast.Inspect(file, func(n ast.Node) bool {
			s, ok := n.(*ast.StructType)
			if !ok {
				return true
			}
			fields := 0
			for _, f := range s.Fields.List {
				fields += max(1, len(f.Names))
			}
			if fields > mostFields && !strings.Contains(comments(s), "More than 15 fields:") {
				t.Errorf("%s: a struct of %d fields, of %d at most without a reason", fset.Position(s.Pos()), fields, mostFields)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

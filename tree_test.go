package simlatch_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The sizes that keep things small enough to read.
const (
	longestFile     = 500
	longestTestFile = 900
	longestFunction = 60
)

// file is a Go file of this module.
type file struct {
	name   string // from the root, with slashes
	dir    string
	test   bool
	lines  int
	fset   *token.FileSet
	syntax *ast.File
}

func (f *file) imports() []string {
	var paths []string
	for _, spec := range f.syntax.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

// goFiles parses the Go files of the tree, for every platform, but those that
// were generated.
func goFiles(t *testing.T) []*file {
	t.Helper()
	var files []*file
	eachFile(t, func(name string, text []byte) {
		if path.Ext(name) != ".go" {
			return
		}
		fset := token.NewFileSet()
		syntax, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if ast.IsGenerated(syntax) {
			return
		}
		files = append(files, &file{
			name: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"),
			lines: bytes.Count(text, []byte("\n")), fset: fset, syntax: syntax,
		})
	})
	return files
}

// eachFile reads the files of the tree, but those of git and what is built.
func eachFile(t *testing.T, f func(name string, text []byte)) {
	t.Helper()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == ".git" || name == "bin"):
			return fs.SkipDir
		case !d.Type().IsRegular(), name == ".git": // a file in a linked worktree
			return nil
		}
		text, err := os.ReadFile(name)
		if err == nil {
			f(filepath.ToSlash(name), text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSizes(t *testing.T) {
	for _, f := range goFiles(t) {
		longest := longestFile
		if f.test {
			longest = longestTestFile
		}
		if f.lines >= longest {
			t.Errorf("%s has %d lines, want less than %d", f.name, f.lines, longest)
		}
		if f.test {
			continue // a table of cases may be as long as it takes
		}
		for _, d := range f.syntax.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := f.fset.Position(fn.End()).Line - f.fset.Position(fn.Pos()).Line + 1; n >= longestFunction {
				t.Errorf("%s: function %s has %d lines, want less than %d", f.name, fn.Name.Name, n, longestFunction)
			}
		}
	}
}

// TestNoSleepInTests: a test that waits for a time is slow or flaky, or both,
// unless that time is a bubble's of testing/synctest.
func TestNoSleepInTests(t *testing.T) {
	for _, f := range goFiles(t) {
		if !f.test || strings.Contains(strings.Join(f.imports(), " "), "testing/synctest") {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Sleep" {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" {
					t.Errorf("%s: time.Sleep; use testing/synctest, a channel, or a poll with a deadline", f.fset.Position(n.Pos()))
				}
			}
			return true
		})
	}
}

// The words are taken apart so that this file does not hold them.
var (
	// someonesPath is a path that exists on one machine only.
	someonesPath = regexp.MustCompile(`(^|[^\w./])/(work/|ro` + `ot/|home/\w|Users/\w|tmp/ba` + `sh)`)
	// misspelt is the other spelling of license.
	misspelt = regexp.MustCompile(`(?i)licen` + `ce`)
)

func TestText(t *testing.T) {
	eachFile(t, func(name string, text []byte) {
		if bytes.IndexByte(text, 0) >= 0 {
			return // no text
		}
		for i, line := range strings.Split(string(text), "\n") {
			if m := someonesPath.FindString(line); m != "" {
				t.Errorf("%s:%d: %q exists on someone's machine only", name, i+1, strings.TrimSpace(m))
			}
			if m := misspelt.FindString(line); m != "" {
				t.Errorf("%s:%d: %q; it is spelled license here, as in the API", name, i+1, m)
			}
		}
	})
}

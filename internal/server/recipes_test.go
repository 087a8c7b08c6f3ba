package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/recipe"
)

// TestRecipes runs the commands of docs/errors.md, as a reader would, each in a
// namespace of one sandbox. There is no stand-in for sh and curl: what it would
// test is not what a reader pastes.
func TestRecipes(t *testing.T) {
	for _, program := range []string{"sh", "curl", "sed", "seq", "gzip"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("the recipes need %s: %v", program, err)
		}
	}
	cfg := SandboxConfig{bodyTimeout: 2 * time.Second} // the reader waits for 20 s
	cfg.Rate = new(float64)
	*cfg.Rate = 1 // as the reader's clock does
	c := startAnySandbox(t, cfg)
	var served []recipe.Chapter
	if c.call("GET", "/sandbox/v1/errors", "", 200, &served); !reflect.DeepEqual(served, recipe.Chapters()) {
		t.Error("the sandbox serves another table")
	}
	t.Run("all", func(t *testing.T) {
		for _, chapter := range recipe.Chapters() {
			for _, r := range chapter.Recipes {
				t.Run(r.Title, func(t *testing.T) {
					t.Parallel()
					c := &tester{t, c.info}
					var space SandboxInfo
					c.call("POST", "/sandbox/v1/namespaces", fmt.Sprintf(`{"lenient": %t}`, !chapter.Strict), 200, &space)
					runRecipe(t, r, space.URL)
					(&tester{t, space}).verify()
					c.call("DELETE", "/sandbox/v1/namespaces/"+space.Name, "", 200, nil)
				})
			}
		}
	})
}

// runRecipe runs the commands of a recipe in the sandbox at a URL, and compares
// what the last of them shows.
func runRecipe(t *testing.T, r recipe.Recipe, url string) {
	cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.ReplaceAll(r.Shell, recipe.Server, url))
	// Whoever runs the tests may have a proxy, and options of curl's own.
	cmd.Env = append(os.Environ(), "no_proxy=*", "NO_PROXY=*", "CURL_HOME="+t.TempDir(), "HOME="+t.TempDir())
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("it ended with %v: %s\n%s", err, complaints.Bytes(), out.Bytes())
	}
	status, body := lastAnswer(out.String())
	switch r.Place {
	case recipe.Nowhere:
		if status != r.Status || !strings.Contains(body, r.Shows) {
			t.Errorf("the last answer is %d %s\nwant %d with %s", status, body, r.Status, r.Shows)
		}
		return
	case recipe.InCallback:
		var met struct{ Entries []struct{ Sent string } }
		if err := json.Unmarshal([]byte(body), &met); err != nil || len(met.Entries) == 0 {
			t.Fatalf("the last answer is no list of callbacks: %v\n%s", err, out.Bytes())
		}
		var sent struct{ FaultResponse map[string]string }
		if err := json.Unmarshal([]byte(met.Entries[len(met.Entries)-1].Sent), &sent); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		compareRecipe(t, r, status, sent.FaultResponse["faultcode"], sent.FaultResponse["faultstring"])
	case recipe.InAnswer:
		var answer struct{ ErrorCode, ErrorMessage string }
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Fatalf("the last answer is no JSON: %v\n%s", err, out.Bytes())
		}
		compareRecipe(t, r, status, answer.ErrorCode, answer.ErrorMessage)
	}
}

func compareRecipe(t *testing.T, r recipe.Recipe, status int, code, message string) {
	t.Helper()
	if status != r.Status || code != r.Code || message != r.Message {
		t.Errorf("the last answer is\n%d\n%s\n%q\nwant\n%d\n%s\n%q\nafter\n%s", status, code, message, r.Status, r.Code, r.Message, r.Shell)
	}
}

// lastAnswer is the last of what "curl -i" printed.
func lastAnswer(out string) (status int, body string) {
	heads := regexp.MustCompile(`(?m)^HTTP/1\.1 (\d{3})`).FindAllStringSubmatchIndex(out, -1)
	if len(heads) == 0 {
		return 0, out
	}
	last := heads[len(heads)-1]
	status, _ = strconv.Atoi(out[last[2]:last[3]]) // three digits
	_, body, _ = strings.Cut(out[last[0]:], "\r\n\r\n")
	return status, body
}

// TestEveryErrorHasARecipe reads the codes, and the messages that are always the
// same, out of where they are defined.
func TestEveryErrorHasARecipe(t *testing.T) {
	isCode := regexp.MustCompile(`^(\w+\.)*(INPUT_INVALID|REQUEST_FAILED|REQUEST_ONHOLD|REQUEST_CANCELLED)(\.\w+)+$|^(\w+\.)+DeserializationFailed$`)
	recipes := recipe.All()
	codes, messages := 0, 0
	for _, name := range []string{"m2m/errors.go", "internal/api/errors.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "..", filepath.FromSlash(name)), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if member, ok := n.(*ast.KeyValueExpr); ok && strings.EqualFold(fmt.Sprint(member.Key), "message") && literal(member.Value) != "" {
				messages++
				message := literal(member.Value)
				if !slices.ContainsFunc(recipes, func(r recipe.Recipe) bool { return r.Message == message }) {
					t.Errorf("%s: there is no recipe for %q", name, message)
				}
			}
			if code := literal(n); isCode.MatchString(code) {
				codes++
				if !slices.ContainsFunc(recipes, func(r recipe.Recipe) bool { return r.Code == code }) {
					t.Errorf("%s: there is no recipe for the code %s", name, code)
				}
			}
			return true
		})
	}
	if codes < 48 || messages < 20 {
		t.Errorf("found %d codes and %d messages: where are the others defined now?", codes, messages)
	}
}

// literal is the value of a string literal, or empty.
func literal(n ast.Node) string {
	lit, ok := n.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return ""
	}
	s, _ := strconv.Unquote(lit.Value) // it was parsed
	return s
}

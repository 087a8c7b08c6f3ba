package sandbox

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of fixed fates into docs/sandbox.md")

// TestMagicTable holds the table in docs/sandbox.md against Magics.
func TestMagicTable(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "sandbox.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- magic -->\n", "<!-- end of magic -->\n"
	before, rest, ok1 := strings.Cut(string(text), begin)
	have, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatal("docs/sandbox.md has no place for the table")
	}
	want := "| ICCID | What happens |\n|---|---|\n"
	for _, m := range Magics() {
		want += fmt.Sprintf("| `%s%s…` | %s |\n", MagicPrefix, m.Code, strings.ReplaceAll(m.Outcome, "|", `\|`))
	}
	if *update {
		if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if have != want {
		t.Errorf("the table in docs/sandbox.md is\n%s\nwant\n%s\n(go test ./internal/sandbox -update writes it)", have, want)
	}
}

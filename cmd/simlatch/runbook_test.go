package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestRunbookCommands: who follows the runbook at night finds each command and
// flag that it names.
func TestRunbookCommands(t *testing.T) {
	commands, flags := 0, 0
	for _, doc := range []string{"runbook.md", "observability.md"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "docs", doc))
		if err != nil {
			t.Fatal(err)
		}
		for _, code := range regexp.MustCompile("(?m)^simlatch .*$|`simlatch [^`\n]*`").FindAllString(string(text), -1) {
			words := strings.Fields(strings.Trim(code, "`"))[1:]
			cmd, rest, err := newRoot().Find(words)
			if err != nil || cmd == nil || !cmd.HasParent() || len(rest) > 0 && cmd.HasSubCommands() {
				t.Errorf("%s: %s: there is no such command", doc, code)
				continue
			}
			commands++
			cmd.InitDefaultHelpFlag()
			for _, word := range rest {
				name, _, _ := strings.Cut(strings.TrimPrefix(word, "--"), "=")
				if strings.HasPrefix(word, "--") && cmd.Flag(name) == nil && cmd.InheritedFlags().Lookup(name) == nil {
					t.Errorf("%s: %s: it has no flag --%s", doc, code, name)
				}
			}
		}
		serve, _, err := newRoot().Find([]string{"serve"})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("`--([a-z-]+)[^`]*`").FindAllStringSubmatch(string(text), -1) {
			flags++
			if serve.Flag(m[1]) == nil && newRoot().PersistentFlags().Lookup(m[1]) == nil {
				t.Errorf("%s: the server has no flag --%s", doc, m[1])
			}
		}
	}
	if commands < 20 || flags < 8 {
		t.Errorf("only %d commands and %d flags were found", commands, flags)
	}
}

package recipe

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocument: what lies in docs is what the table says now.
func TestDocument(t *testing.T) {
	got, err := os.ReadFile(filepath.Join("..", "..", "docs", "errors.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, Markdown()) {
		t.Error(`docs/errors.md is not what the table says; run "make generate"`)
	}
}

func TestLinks(t *testing.T) {
	anchors := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^##+ (.*)$`).FindAllSubmatch(Markdown(), -1) {
		anchor := Anchor(string(m[1]))
		if anchors[anchor] {
			t.Errorf("two headings have the anchor #%s", anchor)
		}
		anchors[anchor] = true
	}
	for _, m := range regexp.MustCompile(`\]\(#([^)]*)\)`).FindAllSubmatch(Markdown(), -1) {
		if !anchors[string(m[1])] {
			t.Errorf("#%s is no heading", m[1])
		}
	}
}

// TestRecipes holds each recipe against what the document makes of it.
func TestRecipes(t *testing.T) {
	for _, r := range All() {
		if r.Title == "" || r.Reason == "" || r.Client == "" || r.Again == "" || r.Status == 0 {
			t.Errorf("%q: something is missing: %+v", r.Title, r)
		}
		if r.Place == Nowhere {
			if r.Shows == "" || r.Code != "" {
				t.Errorf("%q: what does its last answer show?", r.Title)
			}
		} else if r.Code == "" || r.Message == "" || strings.ContainsAny(r.Code+r.Message, "`|") {
			t.Errorf("%q: code %q and message %q cannot be shown", r.Title, r.Code, r.Message)
		}
		if strings.Contains(r.Shell, "`") {
			t.Errorf("%q: its commands end the document's block:\n%s", r.Title, r.Shell)
		}
	}
}

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChangedBy(t *testing.T) {
	root := t.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(at(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"same", "changed", "removed"} {
		write(name, "before")
	}
	before, err := snapshot(root)
	if err != nil {
		t.Fatal(err)
	}
	got, err := changedBy(root, func() error {
		write("same", "before")
		write("changed", "after")
		write("new", "after")
		return os.Remove(at("removed"))
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{at("changed"), at("new"), at("removed")}, got); diff != "" {
		t.Errorf("changedBy (-want +got):\n%s", diff)
	}
	after, err := snapshot(root)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the tree is not as it was (-want +got):\n%s", diff)
	}
}

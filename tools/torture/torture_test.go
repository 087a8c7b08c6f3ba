package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestCommand: a part that is a program has its rows in the table, what else it
// prints goes through, and its status counts.
func TestCommand(t *testing.T) {
	var out bytes.Buffer
	o := options{seed: 7, seeds: 3, out: &out}
	rows, err := command("sh", "-c", `echo before
		echo "TORTURE {\"test\":\"a\",\"on\":\"sqlite\",\"tried\":$TORTURE_SEED,\"work\":$TORTURE_SEEDS}"
		echo '    x_test.go:12: TORTURE {"test":"b","tried":1,"lost":2}'
		echo 'no row: "TORTURE {}"'`)(t.Context(), &o)
	if err != nil {
		t.Fatal(err)
	}
	want := []row{{Test: "a", On: "sqlite", Tried: 7, Work: 3}, {Test: "b", Tried: 1, Lost: 2}}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if got, want := out.String(), "before\nno row: \"TORTURE {}\"\n"; got != want {
		t.Errorf("passed on %q, want %q", got, want)
	}
	rows, err = command("sh", "-c", `echo 'TORTURE {"test":"c","tried":1}'; exit 3`)(t.Context(), &o)
	if err == nil || len(rows) != 1 {
		t.Errorf("a program that fails = %v, %v; want its row and an error", rows, err)
	}
	if _, err = command("sh", "-c", `echo 'TORTURE {"tset":"c"}'`)(t.Context(), &o); err == nil {
		t.Error("a row with a member that there is not is taken")
	}
}

// TestDocument: the table takes the place of the one before it, and of nothing else.
func TestDocument(t *testing.T) {
	name := filepath.Join(t.TempDir(), "reliability.md")
	if err := os.WriteFile(name, []byte("before\n"+docsBegin+"old\n"+docsEnd+"after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var tb table
	tb.add("crash", []row{{Test: "a", On: "sqlite", Tried: 3, Work: 5}, {Test: "a", On: "postgres", Tried: 2, Work: 4, Lost: 1}, {Test: "b", Tried: 7}})
	for range 2 {
		if err := tb.document(name, "about"); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	want := "before\n" + docsBegin + `about

| | Test | Tried | Work | Lost | Double | Wrong |
|---|---|---|---|---|---|---|
| crash | a | 3 sqlite, 2 postgres | 9 | 1 | 0 | 0 |
| crash | b | 7 | 0 | 0 | 0 | 0 |
` + docsEnd + "after\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("the document (-want +got):\n%s", diff)
	}
	if err := os.WriteFile(name, []byte("no place\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := tb.document(name, "about"); err == nil {
		t.Error("a document without a place for it is taken")
	}
}

// TestVerdict: any harm fails the whole, and so does what was never tried.
func TestVerdict(t *testing.T) {
	for name, c := range map[string]struct {
		row  row
		want string
	}{
		"harmless": {row{Tried: 1, Work: 1}, ""},
		"lost":     {row{Tried: 1, Lost: 1}, "1 lost"},
		"double":   {row{Tried: 1, Double: 2}, "2 double"},
		"wrong":    {row{Tried: 1, Wrong: 3}, "3 wrong"},
		"nothing":  {row{}, "never tried"},
	} {
		t.Run(name, func(t *testing.T) {
			var tb table
			tb.add("part", []row{{Test: "fine", Tried: 1}, c.row})
			if err := tb.print(io.Discard); err != nil {
				t.Fatal(err)
			}
			err := tb.verdict()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("verdict = %v, want %q in it", err, c.want)
			}
		})
	}
}

package main

import (
	"bytes"
	"io"
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

package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestRun plays two seeds as "make torture" does, and finds the table and its row.
func TestRun(t *testing.T) {
	t.Setenv("TORTURE_SEED", "7")
	t.Setenv("TORTURE_SEEDS", "2")
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-row", "-twice", "0"}, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{"seeds", "Rare branch", "TORTURE {", `"tried":2`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}

// TestRunFails: a seed that fails is a failure, with the command that repeats it
// and, where that was asked for, its history.
func TestRunFails(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-seeds", "1", "-twice", "0", "-mutation", "invent outcomes"}, &out); err == nil {
		t.Error("it is no failure")
	}
	if !strings.Contains(out.String(), "go run ./tools/simulation -seed 1 -seeds 1 -history") {
		t.Errorf("nothing tells how to repeat it:\n%s", &out)
	}
	out.Reset()
	if err := run(t.Context(), []string{"-seeds", "1", "-twice", "0", "-history"}, &out); err != nil || strings.Count(out.String(), "\n") < 300 {
		t.Errorf("%v, and %d lines of history", err, strings.Count(out.String(), "\n"))
	}
	for _, wrong := range [][]string{{"-seeds", "0"}, {"-hours", "0"}, {"-twice", "-1"}, {"what"}} {
		if err := run(t.Context(), wrong, &out); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
}

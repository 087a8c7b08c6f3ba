package simulation

import (
	"slices"
	"strings"
	"testing"
)

func newSimulator(t *testing.T) *Simulator {
	t.Helper()
	s, err := New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestSeeds plays days with faults everywhere: nothing may be lost or done twice,
// the same seed must give the same history, and each rare branch must be come to.
func TestSeeds(t *testing.T) {
	t.Parallel()
	seeds := 200
	if testing.Short() {
		seeds = 10 // too few to come everywhere
	}
	sum, err := newSimulator(t).RunAll(t.Context(), 1, seeds, 10, Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range sum.Failed {
		t.Error(r.Failed())
	}
	var table strings.Builder
	if err := sum.Table(&table); err != nil {
		t.Fatal(err)
	}
	t.Log(table.String())
	if err := sum.Err(); err != nil && (!testing.Short() || len(sum.Uneven) > 0) {
		t.Error(err)
	}
}

// TestMutations holds the simulation against itself: each bug must be found, by
// one of few seeds, and its report must say how to see it again.
func TestMutations(t *testing.T) {
	t.Parallel()
	s := newSimulator(t)
	for _, m := range Mutations() {
		t.Run(string(m), func(t *testing.T) {
			for seed := uint64(1); seed <= 30; seed++ {
				r, err := s.Run(t.Context(), seed, Options{Mutation: m})
				if err != nil {
					t.Fatal(err)
				}
				if r.Failure == nil {
					continue
				}
				report := r.Failed()
				if !strings.Contains(report, r.Repeat()) || !slices.ContainsFunc(r.Tail, func(line string) bool { return strings.Contains(line, "FAILED") }) {
					t.Errorf("the report neither says how to repeat it nor what failed:\n%s", report)
				}
				t.Logf("seed %d: %v", seed, r.Failure)
				return
			}
			t.Error("it was not found")
		})
	}
}

// TestSummary: a run is no success that has a failure, an uneven history, or a
// branch that was never come to.
func TestSummary(t *testing.T) {
	t.Parallel()
	s := newSimulator(t)
	sum, err := s.RunAll(t.Context(), 1, 2, 1, Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(Missing(sum.Reached)) == 0 || sum.Err() == nil {
		t.Errorf("two seeds came to every rare branch, or need not: %v", sum.Err())
	}
	for _, b := range Branches() {
		sum.Reached[b] = 1
	}
	if err := sum.Err(); err != nil {
		t.Errorf("all is well: %v", err)
	}
	one, err := s.Run(t.Context(), 1, Options{})
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.Run(t.Context(), 2, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if sum.add(one, two); sum.Err() == nil {
		t.Error("two histories of one seed differ, and nobody minds")
	}
}

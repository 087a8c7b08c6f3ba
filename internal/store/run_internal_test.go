package store

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/simlatch/simlatch/internal/license"
)

// All tests of this package write runs of two and look for blocks of three, so
// that those with few devices write any at all.
func init() { leastRun, leastBlock = 2, 3 }

// AcceptAfter accepts a request whose SIMs are read before something else is done.
func (s *Store) AcceptAfter(ctx context.Context, p license.AcceptParams, meanwhile func()) (bool, error) {
	b, err := s.blockOf(ctx, p.Request)
	if err != nil {
		return false, err
	}
	meanwhile()
	_, err = s.acceptAs(ctx, p, b)
	if errors.Is(err, errNotAll) {
		err = license.ErrHeld
	}
	return b != nil, err
}

// TouchedBy is how many SIMs a request was the last to touch.
func (s *Store) TouchedBy(ctx context.Context, account license.AccountName, id license.RequestID) (int, error) {
	return first(s.reader(ctx), one[int], `SELECT count(*) FROM sim WHERE account = $1 AND request = $2`, string(account), string(id))
}

func TestRunsOf(t *testing.T) {
	for _, test := range []struct {
		name string
		list []int // a value follows the one before that is smaller by one
		runs []run
		rest []int
	}{
		{name: "nothing"},
		{name: "one", list: []int{4}, rest: []int{0}},
		{name: "one run", list: []int{4, 5, 6}, runs: []run{{0, 3}}},
		{name: "gaps", list: []int{1, 2, 4, 6, 7, 8, 1}, runs: []run{{0, 2}, {3, 6}}, rest: []int{2, 6}},
	} {
		runs, rest := runsOf(len(test.list), func(i int) bool { return test.list[i] == test.list[i-1]+1 })
		if !slices.Equal(runs, test.runs) || !slices.Equal(rest, test.rest) {
			t.Errorf("%s: %v and %v left, want %v and %v", test.name, runs, rest, test.runs, test.rest)
		}
		if values := pick(test.list, rest); len(values) != len(rest) {
			t.Errorf("%s: picked %v", test.name, values)
		}
	}
}

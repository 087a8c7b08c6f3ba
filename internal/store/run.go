package store

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/simlatch/simlatch/internal/license"
)

// This file is how a batch of leased tasks is written when all is as it should
// be. Tasks that lie next to each other in their request are one range of its
// key, which an engine walks in half the time that it takes to find each. That no
// other task lies among them is told by their places; that all were written, by
// the count. When it is not right, nothing stands and the batch is written row by
// row, and what that returns tells which leases still stood.

// errTorn says that not all tasks of a batch are as they were leased.
var errTorn = errors.New("some leases do not stand any more")

// leastRun is how many tasks are worth a statement of their own. Tests have fewer.
var leastRun = 16

// trusting runs fn with trust, to write as if all leases stood, and once more
// without when that was wrong.
func (s *Store) trusting(ctx context.Context, account license.AccountName, weight int, fn func(tx *tx, trust bool) error) error {
	err := s.write(ctx, account, weight, func(tx *tx) error { return fn(tx, true) })
	if err == nil || !errors.Is(err, errTorn) && !s.dialect.constraint(err) {
		return err
	}
	return s.write(ctx, account, weight, func(tx *tx) error {
		// It may have been a repeat that found its own rows.
		if err := tx.confirm(); err != nil {
			return err
		}
		return fn(tx, false)
	})
}

// A run is the part of a batch from one index up to another.
type run struct{ from, to int }

// runsOf finds the runs in a batch of n tasks that are in the order of their keys,
// and what is left over. follows reports whether the i-th belongs behind the one
// before.
func runsOf(n int, follows func(i int) bool) (runs []run, rest []int) {
	for from, i := 0, 0; from < n; from = i {
		for i = from + 1; i < n && follows(i); i++ {
		}
		if i-from >= leastRun {
			runs = append(runs, run{from, i})
			continue
		}
		for k := from; k < i; k++ {
			rest = append(rest, k)
		}
	}
	return runs, rest
}

// pick is some values of a list.
func pick[T any](list []T, at []int) []T {
	if len(at) == len(list) {
		return list
	}
	picked := make([]T, len(at))
	for i, k := range at {
		picked[i] = list[k]
	}
	return picked
}

// all is an update by key that writes every row of its list, or fails with errTorn.
// What SQLite returns, it keeps in a table of its own until the last row, which
// costs half as much again as the update; there the rows are counted without.
func (t *tx) all(text string, rows list, args ...any) step {
	st := whole(rows.rows(), text, append(args, rows)...)
	if t.dialect.slowReturning {
		st.text, _, _ = strings.Cut(text, "RETURNING")
	} else {
		st.row = unread
	}
	return st
}

// whole is an update that writes so many rows, or fails with errTorn.
func whole(rows int, text string, args ...any) step {
	return step{text: text, args: args, check: func(n int64) error {
		if n != int64(rows) {
			return errTorn
		}
		return nil
	}}
}

// byAccount parts a list by account. Accounts are in one order for all nodes, so
// that they cannot deadlock.
func byAccount[T any](list []T, of func(*T) license.AccountName) (accounts []license.AccountName, parts map[license.AccountName][]T) {
	parts = map[license.AccountName][]T{}
	if first := of(&list[0]); !slices.ContainsFunc(list, func(v T) bool { return of(&v) != first }) {
		parts[first] = list // as nearly always
		return []license.AccountName{first}, parts
	}
	for i := range list {
		account := of(&list[i])
		parts[account] = append(parts[account], list[i])
	}
	return slices.Sorted(maps.Keys(parts)), parts
}

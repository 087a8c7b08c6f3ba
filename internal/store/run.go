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

// trusting runs fn on the parts of a batch with trust, to write as if all leases
// stood, and once more without when that was wrong.
func trusting[T any](ctx context.Context, s *Store, parts map[license.AccountName][]T, fn func(tx *tx, trust bool) error) error {
	account, most, all := shares(parts)
	err := s.writeMixed(ctx, account, most, all, func(tx *tx) error { return fn(tx, true) })
	if err == nil || !errors.Is(err, errTorn) && !s.dialect.constraint(err) {
		return err
	}
	return s.writeMixed(ctx, account, most, all, func(tx *tx) error {
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

// settleRun does what settleTasks does to tasks that lie next to each other.
const settleRun = `UPDATE task SET phase = $6, carrier_due = NULL, listener_due = NULLIF(CAST($7 AS BIGINT), 0), lease_end = $8,
		lease = lease + 1, attempt = 0, outcome = $9, code = $10, comment = $11, settled = $12, ended = $13
	WHERE account = $1 AND request = $2 AND iccid BETWEEN $3 AND $4 AND lease = $5 AND phase IN ('carrier', 'stuck')`

// settleWhole does the same to all tasks of some requests.
const settleWhole = `UPDATE task SET phase = $3, carrier_due = NULL, listener_due = NULLIF(CAST($4 AS BIGINT), 0), lease_end = $5,
		lease = lease + 1, attempt = 0, outcome = $6, code = $7, comment = $8, settled = $9, ended = $10
	WHERE account = $1 AND lease = $2 AND phase IN ('carrier', 'stuck') AND request {any $11}`

// all moves the tasks on, all of which end.
func (st *settlement) all(moves []move) (steps []step) {
	alike := func(i, k int) bool {
		a, b := st.given[i], st.given[k]
		return a.Task.Lease == b.Task.Lease && a.Verdict == b.Verdict && a.Code == b.Code && a.Comment == b.Comment && moves[i] == moves[k]
	}
	runs, rest := runsOf(len(st.given), func(i int) bool {
		a, b := &st.given[i-1].Task, &st.given[i].Task
		return a.Request == b.Request && a.Place > 0 && a.Place+1 == b.Place && alike(i-1, i)
	})
	account := string(st.account)
	for _, r := range runs {
		first, last := &st.given[r.from].Task, &st.given[r.to-1].Task
		args := []any{account, string(first.Request), string(first.Device.ICCID), string(last.Device.ICCID), first.Lease}
		steps = append(steps, whole(r.to-r.from, settleRun, append(args, st.ends(r.from, moves)...)...))
	}
	ids, at, rest := st.findWholes(rest, alike)
	if len(ids) > 0 {
		args := append([]any{account, st.given[at[0]].Task.Lease}, st.ends(at[0], moves)...)
		steps = append(steps, whole(len(at), settleWhole, append(args, only(ids))...))
	}
	if len(rest) > 0 {
		rows := st.rows(pick(st.given, rest), pick(moves, rest))
		steps = append(steps, st.tx.all(settleTasks, rows, account, micros(st.p.Now)))
	}
	st.won = make([]wonTask, len(st.given))
	for i, o := range st.given {
		st.won[i] = wonTask{Outcome: o, move: moves[i], lease: o.Task.Lease + 1}
	}
	for _, i := range at {
		if n := len(st.wholes); n == 0 || st.wholes[n-1].Task.Request != st.given[i].Task.Request {
			st.wholes = append(st.wholes, st.won[i])
		}
	}
	return steps
}

// ends is what settleRun and settleWhole write.
func (st *settlement) ends(i int, moves []move) []any {
	o, m, ended := st.given[i], moves[i], int64(0)
	if m.phase == license.PhaseEnded {
		ended = micros(st.p.Now)
	}
	return []any{
		string(m.phase), micros(m.due), micros(m.until), o.Verdict.String(),
		clean(o.Code, maxCode), clean(o.Comment, maxComment), micros(st.p.Now), ended,
	}
}

// findWholes finds, among tasks, the requests that all of whose tasks are there and
// written like the first; at are these tasks, and rest the others.
func (st *settlement) findWholes(tasks []int, alike func(i, k int) bool) (ids []license.RequestID, at, rest []int) {
	for from, i := 0, 0; from < len(tasks); from = i {
		first := &st.given[tasks[from]].Task
		like := tasks[from]
		if len(at) > 0 {
			like = at[0]
		}
		fits := true
		for i = from; i < len(tasks) && st.given[tasks[i]].Task.Request == first.Request; i++ {
			fits = fits && alike(like, tasks[i])
		}
		if fits && i-from == first.Of {
			ids, at = append(ids, first.Request), append(at, tasks[from:i]...)
		} else {
			rest = append(rest, tasks[from:i]...)
		}
	}
	return ids, at, rest
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

// shares is the account with the most of a batch, how much that is, and how much
// there is in all.
func shares[T any](parts map[license.AccountName][]T) (account license.AccountName, most, all int) {
	for name, part := range parts {
		if all += len(part); len(part) > most || len(part) == most && name < account {
			account, most = name, len(part)
		}
	}
	return account, most, all
}

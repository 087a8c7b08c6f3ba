package store

import (
	"maps"
	"slices"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// This file is what a settlement writes behind the tasks: the counts of their
// requests, the lines of the ledger, and the pools.

// A request of which nothing was settled before has only the line that reserved its
// licenses, if any. All that is counted here is alike.
const countWhole = `UPDATE request SET succeeded = CASE WHEN CAST($2 AS TEXT) = 'done' THEN total ELSE 0 END,
		failed = CASE WHEN CAST($2 AS TEXT) = 'done' THEN 0 ELSE total END, postings = postings + 1,
		ended = CASE WHEN CAST($3 AS TEXT) = 'ended' THEN total ELSE ended END,
		unacked = unacked + CASE WHEN CAST($3 AS TEXT) = 'ended' THEN total ELSE 0 END,
		lease_end = CASE WHEN CAST($3 AS TEXT) = 'ended' THEN NULL
			WHEN CAST($4 AS BIGINT) = 0 OR lease_end <= CAST($4 AS BIGINT) THEN lease_end ELSE CAST($4 AS BIGINT) END
	WHERE account = $1 AND succeeded = 0 AND failed = 0 AND id {any $5}`

// countWholes counts the devices of the requests that are settled whole, and adds
// their lines of the ledger, whose numbers are known.
func (st *settlement) countWholes(lines *[]posting) []step {
	if len(st.wholes) == 0 {
		return nil
	}
	like := &st.wholes[0]
	ids := make([]license.RequestID, len(st.wholes))
	for i := range st.wholes {
		w := &st.wholes[i]
		ids[i] = w.Task.Request
		done, failed := w.Task.Of, 0
		if w.Verdict == license.Refused {
			done, failed = failed, done
		}
		number := int64(1)
		if w.Task.Action == license.Assign {
			number = 2
		}
		for _, l := range ledgerLines(w.Task, done, failed, st.p.Now) {
			l.number = number
			*lines = append(*lines, l)
		}
	}
	return []step{whole(len(ids), countWhole, string(st.account), like.Verdict.String(), string(like.phase), micros(like.until), only(ids))}
}

// The requests are there: an update by key, as in settleTasks. A request of which
// all tasks have ended has no leases. What ends here has no listener.
const countSettled = `INSERT INTO request (account, id, sku, action, time, total, succeeded, failed, postings, ended, lease_end)
	SELECT $1, id, '', 'assign', 0, done + failed, done, failed, postings, ended, NULLIF(lease_end, 0)
	FROM {each $2 id TEXT, done BIGINT, failed BIGINT, postings BIGINT, ended BIGINT, lease_end BIGINT} WHERE true
	ON CONFLICT (account, id) DO UPDATE SET succeeded = request.succeeded + excluded.succeeded,
		failed = request.failed + excluded.failed, postings = request.postings + excluded.postings,
		ended = request.ended + excluded.ended, unacked = request.unacked + excluded.ended,
		lease_end = CASE WHEN request.ended + excluded.ended >= request.total THEN NULL
			WHEN excluded.lease_end IS NULL OR request.lease_end <= excluded.lease_end THEN request.lease_end
			ELSE excluded.lease_end END
	RETURNING id, postings`

// requests counts the devices whose outcome is known in their requests' rows, and
// makes the lines of the ledger for them.
func (st *settlement) requests(lines *[]posting) []step {
	var ids []string
	var done, failed, postings, ended, leaseEnd []int64
	var own [][]posting // lines of each
	wholes := st.wholes
	for first, i := 0, 0; first < len(st.won); first = i {
		var d, f, e, end int64
		task := st.won[first].Task
		for i = first; i < len(st.won) && st.won[i].Task.Request == task.Request; i++ {
			w := &st.won[i]
			switch w.Verdict {
			case license.Done:
				d++
			case license.Refused:
				f++
			case license.Retry, license.Later, license.Stuck:
			}
			if w.phase == license.PhaseEnded {
				e++
			}
			end = max(end, micros(w.until)) // all that are leased are leased alike
		}
		if d+f == 0 {
			continue
		}
		if n := len(wholes); n > 0 && wholes[0].Task.Request == task.Request {
			wholes = wholes[1:] // counted by countWholes
			continue
		}
		own = append(own, ledgerLines(task, int(d), int(f), st.p.Now))
		ids, done, failed = append(ids, string(task.Request)), append(done, d), append(failed, f)
		postings = append(postings, int64(len(own[len(own)-1])))
		ended, leaseEnd = append(ended, e), append(leaseEnd, end)
	}
	if len(ids) == 0 {
		return nil
	}
	next := 0
	row := func(scan func(...any) error) error {
		var id string
		var last int64
		if err := scan(&id, &last); err != nil {
			return err
		}
		i := next
		if i >= len(ids) || ids[i] != id {
			i, _ = slices.BinarySearch(ids, id)
		}
		next = i + 1
		for k := range own[i] {
			own[i][k].number = last - int64(len(own[i])-1-k)
		}
		*lines = append(*lines, own[i]...)
		return nil
	}
	return []step{{text: countSettled, row: row, args: []any{string(st.account), list{ids, done, failed, postings, ended, leaseEnd}}}}
}

// ledgerLines is what the ends of some devices of one request mean for the
// ledger. A refused unassign means nothing: the license stays where it is.
func ledgerLines(t license.Task, done, failed int, now time.Time) (lines []posting) {
	if t.Action == license.Unassign {
		if done > 0 {
			lines = append(lines, posting{request: t.Request, sku: t.SKU, kind: release, units: done, at: now})
		}
		return lines
	}
	if done > 0 {
		lines = append(lines, posting{request: t.Request, sku: t.SKU, kind: post, units: done, at: now})
	}
	if failed > 0 {
		lines = append(lines, posting{request: t.Request, sku: t.SKU, kind: void, units: failed, at: now})
	}
	return lines
}

const movePool = `UPDATE pool SET reserved = reserved + $3, assigned = assigned + $4
	WHERE account = $1 AND sku = $2`

// book writes the lines of the ledger, and moves the balances by what they say.
func (st *settlement) book(lines []posting) []step {
	if len(lines) == 0 {
		return nil
	}
	type move struct{ reserved, assigned int }
	moves := map[license.SKU]move{}
	for _, l := range lines {
		m := moves[l.sku]
		switch l.kind {
		case post:
			m.reserved -= l.units
			m.assigned += l.units
		case void:
			m.reserved -= l.units
		case release:
			m.assigned -= l.units
		}
		moves[l.sku] = m
	}
	steps := []step{insertPostings(st.account, lines)}
	for _, sku := range slices.Sorted(maps.Keys(moves)) {
		m := moves[sku]
		steps = append(steps, step{text: movePool, args: []any{string(st.account), string(sku), m.reserved, m.assigned}})
	}
	return steps
}

package store

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/simlatch/simlatch/internal/crash"
	"github.com/simlatch/simlatch/internal/license"
)

// The tasks are there: an update by key, as in settleTasks.
const finishTasks = `INSERT INTO task (account, request, iccid, lease, phase, listener_due, attempt, status, latency, ended)
	SELECT $1, request, iccid, lease, phase, NULLIF(listener_due, 0), attempt, status, latency, ended
	FROM {each $2 request TEXT, iccid TEXT, lease BIGINT, phase TEXT, listener_due BIGINT, attempt BIGINT, status BIGINT, latency BIGINT, ended BIGINT}
	WHERE true
	ON CONFLICT (account, request, iccid) DO UPDATE SET phase = excluded.phase, listener_due = excluded.listener_due, lease_end = 0,
		lease = task.lease + 1, attempt = task.attempt + excluded.attempt, status = excluded.status,
		latency = excluded.latency, ended = excluded.ended
	WHERE task.lease = excluded.lease AND task.phase = 'listener'
	RETURNING request, iccid, lease`

// The requests are there: an update by key, as in settleTasks. A request of which
// all tasks have ended has no leases.
const countEnds = `INSERT INTO request (account, id, sku, action, time, total, ended, unacked)
	SELECT $1, id, '', 'assign', 0, ended, ended, unacked FROM {each $2 id TEXT, ended BIGINT, unacked BIGINT} WHERE true
	ON CONFLICT (account, id) DO UPDATE SET ended = request.ended + excluded.ended, unacked = request.unacked + excluded.unacked,
		lease_end = CASE WHEN request.ended + excluded.ended >= request.total THEN NULL ELSE request.lease_end END
	RETURNING 1`

const insertAttempts = `INSERT INTO attempt (account, request, iccid, round, number, time, status, latency, answer)
	SELECT $1, request, iccid, round, number, time, status, latency, answer
	FROM {each $2 request TEXT, iccid TEXT, round BIGINT, number BIGINT, time BIGINT, status BIGINT, latency BIGINT, answer TEXT}
	WHERE true
	ON CONFLICT (account, request, iccid, round, number) DO NOTHING`

// FinishCallbacks writes down how attempts to deliver callbacks ended. Those
// whose lease is no longer the task's own change nothing. It alone counts
// attempts, so that a crash or a lost lease uses none up.
func (s *Store) FinishCallbacks(ctx context.Context, now time.Time, ends []license.Delivery) error {
	if len(ends) == 0 {
		return nil
	}
	accounts, parts := byAccount(ends, func(d *license.Delivery) license.AccountName { return d.Callback.Account })
	err := trusting(ctx, s, parts, func(tx *tx, trust bool) error {
		crash.At(crash.FinishBegun)
		for _, account := range accounts {
			if err := finishAccount(tx, account, now, parts[account], trust); err != nil {
				return err
			}
		}
		crash.At(crash.FinishWritten)
		return nil
	})
	crash.At(crash.FinishCommitted)
	return s.failed("finishing callbacks", err)
}

func deliveryKey(d *license.Delivery) taskKey {
	return taskKey{d.Callback.Request, d.Callback.Device.ICCID}
}

func finishAccount(tx *tx, account license.AccountName, now time.Time, ends []license.Delivery, trust bool) error {
	given := inOrder(ends, deliveryKey, func(d *license.Delivery) int64 { return d.Callback.Lease })
	won := given
	var steps []step
	// Only of what ended do the counts of the request tell that its task was there.
	if trust && !slices.ContainsFunc(given, func(d *license.Delivery) bool { return d.Verdict == license.Again }) {
		steps = finishAll(tx, account, given, now)
	} else {
		var err error
		if won, err = finishSome(tx, account, given, finishRows(given, now)); err != nil {
			return err
		}
	}
	steps = append(steps, countRequestEnds(account, won)...)
	return tx.inParts(append(steps, insertFailures(account, won)...)...)
}

// finishRun does what finishTasks does to tasks that lie next to each other and
// have ended.
const finishRun = `UPDATE task SET phase = 'ended', listener_due = NULL, lease_end = 0, lease = lease + 1, attempt = attempt + $6,
		status = $7, ended = $8, latency = {nth $10 place - $9}
	WHERE account = $1 AND request = $2 AND iccid BETWEEN $3 AND $4 AND lease = $5 AND phase = 'listener'`

// finishAll writes the ends of callbacks, none of which is sent again.
func finishAll(tx *tx, account license.AccountName, given []*license.Delivery, now time.Time) (steps []step) {
	runs, rest := runsOf(len(given), func(i int) bool {
		a, b := given[i-1], given[i]
		return a.Callback.Request == b.Callback.Request && a.Callback.Place > 0 && a.Callback.Place+1 == b.Callback.Place &&
			a.Callback.Lease == b.Callback.Lease && a.Verdict == b.Verdict && a.Status == b.Status
	})
	for _, r := range runs {
		d := given[r.from]
		attempt := 1
		if d.Verdict == license.Unsent {
			attempt = 0
		}
		latency := make([]int64, r.to-r.from)
		for i := range latency {
			latency[i] = given[r.from+i].Latency.Microseconds()
		}
		steps = append(steps, whole(len(latency), finishRun, string(account), string(d.Callback.Request),
			string(d.Callback.Device.ICCID), string(given[r.to-1].Callback.Device.ICCID), d.Callback.Lease,
			attempt, d.Status, micros(now), d.Callback.Place-1, list{latency}))
	}
	if len(rest) > 0 {
		steps = append(steps, tx.all(finishTasks, finishRows(pick(given, rest), now), string(account)))
	}
	return steps
}

// finishSome writes the ends of those callbacks whose lease still stands, and
// learns which they are.
func finishSome(tx *tx, account license.AccountName, given []*license.Delivery, rows list) (won []*license.Delivery, err error) {
	var inserted []taskKey
	next := 0
	won, err = collect(tx, func(scan func(...any) error) (d *license.Delivery, err error) {
		var request, iccid string
		var lease int64
		if err := scan(&request, &iccid, &lease); err != nil {
			return nil, err
		}
		key := taskKey{license.RequestID(request), license.ICCID(iccid)}
		i := find(given, deliveryKey, key, next)
		next = i + 1
		if lease != given[i].Callback.Lease+1 {
			inserted = append(inserted, key)
			return nil, nil
		}
		return given[i], nil
	}, finishTasks, string(account), rows)
	if err != nil {
		return nil, err
	}
	won = slices.DeleteFunc(won, func(d *license.Delivery) bool { return d == nil })
	return won, removeInserted(tx, account, inserted)
}

// finishRows is the list of finishTasks.
func finishRows(given []*license.Delivery, now time.Time) list {
	n := len(given)
	request, iccid, phase := make([]string, n), make([]string, n), make([]string, n)
	lease, due, attempt := make([]int64, n), make([]int64, n), make([]int64, n)
	status, latency, ended := make([]int64, n), make([]int64, n), make([]int64, n)
	for i := range given {
		d := given[i]
		request[i], iccid[i], lease[i] = string(d.Callback.Request), string(d.Callback.Device.ICCID), d.Callback.Lease
		phase[i], attempt[i], ended[i] = string(license.PhaseEnded), 1, micros(now)
		status[i], latency[i] = int64(d.Status), d.Latency.Microseconds()
		switch d.Verdict {
		case license.Again:
			phase[i], due[i], ended[i] = string(license.PhaseListener), micros(d.Due), 0
			if d.Due.IsZero() {
				due[i] = micros(now)
			}
		case license.Unsent:
			attempt[i] = 0
		case license.Delivered, license.Exhausted:
		}
	}
	return list{request, iccid, lease, phase, due, attempt, status, latency, ended}
}

// countRequestEnds counts the callbacks that ended in their requests' rows.
func countRequestEnds(account license.AccountName, won []*license.Delivery) []step {
	ends, unacked := map[license.RequestID]int64{}, map[license.RequestID]int64{}
	for _, d := range won {
		if d.Verdict == license.Again {
			continue
		}
		if ends[d.Callback.Request]++; d.Status < 200 || d.Status > 299 { // as stateOf has it
			unacked[d.Callback.Request]++
		}
	}
	if len(ends) == 0 {
		return nil
	}
	ids := slices.Sorted(maps.Keys(ends)) // the order in which requests are locked
	n, failed := make([]int64, len(ids)), make([]int64, len(ids))
	for i, id := range ids {
		n[i], failed[i] = ends[id], unacked[id]
	}
	return []step{{text: countEnds, row: unread, args: []any{string(account), list{strs(ids), n, failed}}}}
}

// insertFailures keeps the attempts that failed, of the tasks that were won.
func insertFailures(account license.AccountName, won []*license.Delivery) []step {
	var request, iccid, answer []string
	var round, number, at, status, latency []int64
	for _, d := range won {
		if d.Verdict != license.Again && d.Verdict != license.Exhausted {
			continue
		}
		c := &d.Callback
		request, iccid = append(request, string(c.Request)), append(iccid, string(c.Device.ICCID))
		round, number = append(round, int64(c.Round)), append(number, int64(c.Attempt+1))
		at, status = append(at, micros(d.At)), append(status, int64(d.Status))
		latency, answer = append(latency, d.Latency.Microseconds()), append(answer, clean(string(d.Answer), maxAnswer))
	}
	if len(request) == 0 {
		return nil
	}
	return []step{{text: insertAttempts, args: []any{
		string(account), list{request, iccid, round, number, at, status, latency, answer},
	}}}
}

// How many bytes are kept of what others say.
const (
	maxAnswer  = 256  // a listener's answer
	maxCode    = 128  // a carrier's code
	maxComment = 1024 // a carrier's words
)

// clean is the beginning of a text in a form that both engines keep: valid
// UTF-8 and no NUL, which PostgreSQL refuses.
func clean(text string, most int) string {
	if len(text) > most {
		text = text[:most]
		for n := 0; n < utf8.UTFMax-1 && len(text) > 0; n++ { // a rune cut at the end
			if r, size := utf8.DecodeLastRuneInString(text); r != utf8.RuneError || size != 1 {
				break
			}
			text = text[:len(text)-1]
		}
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

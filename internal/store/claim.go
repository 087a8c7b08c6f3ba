package store

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/simlatch/simlatch/internal/crash"
	"github.com/simlatch/simlatch/internal/license"
)

// Grouped by the account itself, SQLite would walk through all tasks in the order
// of their keys.
const (
	dueAtCarrier = `SELECT min(account), count(*), min(carrier_due) FROM task
		WHERE carrier_due <= $1 GROUP BY account || ''`
	dueAtListener = `SELECT min(account), count(*), min(listener_due) FROM task
		WHERE listener_due <= $1 GROUP BY account || ''`
)

// DueAccounts names the accounts that have work due in a phase, and how much.
// What was leased and left behind becomes due first.
func (s *Store) DueAccounts(ctx context.Context, phase license.Phase, now time.Time) ([]license.Due, error) {
	if err := s.reclaim(ctx, now, now); err != nil {
		return nil, s.failed("looking for leases that ended", err)
	}
	return s.due(ctx, phase, now)
}

// due names the accounts that have work due in a phase, and how much.
func (s *Store) due(ctx context.Context, phase license.Phase, now time.Time) ([]license.Due, error) {
	text := dueAtCarrier
	if phase == license.PhaseListener {
		text = dueAtListener
	}
	due, err := collect(s.reader(ctx), func(scan func(...any) error) (d license.Due, err error) {
		var oldest int64
		err = scan(&d.Account, &d.Count, &oldest)
		d.Oldest = fromMicros(oldest)
		return d, err
	}, text, micros(now))
	return due, s.failed("looking for due accounts", err)
}

// The tasks are there: an update by key, as in settleTasks, and all of it on
// excluded columns, as an INSERT … SELECT must be (rules_test.go). The lookup is
// a query of its own, so that its ORDER BY means the task's column.
const (
	claimForCarrier = `INSERT INTO task (account, request, iccid, phase, lease_end)
		SELECT account, request, iccid, phase, CAST($3 AS BIGINT) FROM (
			SELECT account, request, iccid, phase FROM task
			WHERE account = $1 AND carrier_due <= $2
			ORDER BY carrier_due LIMIT $4 {skip}) AS due WHERE true
		ON CONFLICT (account, request, iccid) DO UPDATE SET lease = task.lease + 1, carrier_due = NULL, lease_end = excluded.lease_end
		RETURNING request, iccid, place, lease, attempt, round, outcome, code, comment`
	claimForListener = `INSERT INTO task (account, request, iccid, phase, lease_end)
		SELECT account, request, iccid, phase, CAST($3 AS BIGINT) FROM (
			SELECT account, request, iccid, phase FROM task
			WHERE account = $1 AND listener_due <= $2
			ORDER BY listener_due LIMIT $4 {skip}) AS due WHERE true
		ON CONFLICT (account, request, iccid) DO UPDATE SET lease = task.lease + 1, listener_due = NULL, lease_end = excluded.lease_end
		RETURNING request, iccid, place, lease, attempt, round, outcome, code, comment`
)

// claimed is a task that was claimed, in either phase.
type claimed struct {
	key            taskKey
	lease          int64
	place          int
	attempt, round int
	outcome        string
	code, comment  string
}

// No condition on lease_end: it would be judged by what it was before another
// transaction, which has the row locked, changes it.
const boundLeases = `UPDATE request SET lease_end = CASE WHEN lease_end <= $2 THEN lease_end ELSE $2 END
	WHERE account = $1 AND id {any $3}`

const (
	selectDevices  = `SELECT iccid, imei, mdn FROM sim WHERE account = $1 AND iccid {any $2}`
	selectRequests = `SELECT id, sku, action, time, total, trace FROM request WHERE account = $1 AND id {any $2}`
)

// claimTasks leases due tasks of a phase and describes them, in the order of
// their requests and devices; build makes the value of each.
func claimTasks[T any](ctx context.Context, s *Store, claim string, p license.ClaimParams, build func(claimed, license.Task) T) (list []T, err error) {
	if p.Limit <= 0 {
		return nil, nil
	}
	err = s.write(ctx, p.Account, p.Limit, func(tx *tx) error {
		list = nil
		got, err := collect(tx, func(scan func(...any) error) (c claimed, err error) {
			return c, scan(&c.key.request, &c.key.iccid, &c.place, &c.lease, &c.attempt, &c.round, &c.outcome, &c.code, &c.comment)
		}, claim, string(p.Account), micros(p.Now), micros(p.Until), p.Limit)
		if err != nil || len(got) == 0 {
			return err
		}
		slices.SortFunc(got, func(a, b claimed) int {
			return cmp.Or(cmp.Compare(a.key.request, b.key.request), cmp.Compare(a.key.iccid, b.key.iccid))
		})
		ids := requestsOf(got)
		if _, err := tx.exec(boundLeases, string(p.Account), micros(p.Until), only(ids)); err != nil {
			return err
		}
		devices, requests, err := describe(tx, p.Account, got, ids)
		if err != nil {
			return err
		}
		list = make([]T, len(got))
		for i, c := range got {
			t := requests[c.key.request] // what the tasks of one request share
			t.Device, t.Place, t.Until, t.Lease, t.Attempt = devices[c.key.iccid], c.place, p.Until, c.lease, c.attempt
			list[i] = build(c, t)
		}
		crash.At(crash.ClaimWritten)
		return nil
	})
	if len(list) > 0 {
		crash.At(crash.ClaimCommitted)
	}
	return list, err
}

// requestsOf names the requests of claimed tasks, which are sorted by them.
func requestsOf(got []claimed) (ids []license.RequestID) {
	for i, c := range got {
		if i == 0 || c.key.request != got[i-1].key.request {
			ids = append(ids, c.key.request)
		}
	}
	return ids
}

// describe reads the devices and the requests of claimed tasks.
func describe(q querier, account license.AccountName, got []claimed, ids []license.RequestID) (map[license.ICCID]license.Device, map[license.RequestID]license.Task, error) {
	devices := make(map[license.ICCID]license.Device, len(got))
	requests := map[license.RequestID]license.Task{}
	iccids := make([]license.ICCID, len(got))
	for i, c := range got {
		iccids[i] = c.key.iccid
	}
	_, err := collect(q, func(scan func(...any) error) (struct{}, error) {
		var d license.Device
		err := scan(&d.ICCID, &d.IMEI, &d.MDN)
		devices[d.ICCID] = d
		return struct{}{}, err
	}, selectDevices, string(account), only(iccids))
	if err != nil {
		return nil, nil, err
	}
	_, err = collect(q, func(scan func(...any) error) (struct{}, error) {
		t := license.Task{Account: account}
		var at int64
		err := scan(&t.Request, &t.SKU, &t.Action, &at, &t.Of, &t.Trace)
		t.At = fromMicros(at)
		requests[t.Request] = t
		return struct{}{}, err
	}, selectRequests, string(account), only(ids))
	return devices, requests, err
}

// ClaimTasks leases due tasks of an account, to be taken to the carrier.
func (s *Store) ClaimTasks(ctx context.Context, p license.ClaimParams) ([]license.Task, error) {
	tasks, err := claimTasks(ctx, s, claimForCarrier, p, func(_ claimed, t license.Task) license.Task { return t })
	return tasks, s.failed("claiming tasks", err)
}

// ClaimCallbacks leases due callbacks of an account, to be sent to its listener.
func (s *Store) ClaimCallbacks(ctx context.Context, p license.ClaimParams) ([]license.Callback, error) {
	callbacks, err := claimTasks(ctx, s, claimForListener, p, func(c claimed, t license.Task) license.Callback {
		return license.Callback{
			Request: t.Request, Action: t.Action, SKU: t.SKU, Account: t.Account, Device: t.Device,
			OK: c.outcome == license.Done.String(), Code: c.code, Comment: c.comment,
			Attempt: c.attempt, Round: c.round, Place: c.place, Trace: t.Trace, Lease: c.lease, Until: t.Until,
		}
	})
	return callbacks, s.failed("claiming callbacks", err)
}

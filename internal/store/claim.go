package store

import (
	"context"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

const dueAccounts = `SELECT account, count(*), min(due_at) FROM task
	WHERE phase = $1 AND due_at <= $2 GROUP BY account`

// DueAccounts names the accounts that have work due in a phase, and how much.
// It locks nothing and is the only query that crosses accounts.
func (s *Store) DueAccounts(ctx context.Context, phase license.Phase, now time.Time) ([]license.Due, error) {
	due, err := collect(s.reader(ctx), func(scan func(...any) error) (d license.Due, err error) {
		var oldest int64
		err = scan(&d.Account, &d.Count, &oldest)
		d.Oldest = fromMicros(oldest)
		return d, err
	}, dueAccounts, string(phase), micros(now))
	return due, s.failed("looking for due accounts", err)
}

const claim = `WITH e AS MATERIALIZED (
		SELECT request, iccid FROM task
		WHERE account = $1 AND phase = $2 AND due_at <= $3
		ORDER BY due_at LIMIT $5 {skip})
	UPDATE task SET lease = task.lease + 1, leased = 1, due_at = $4
	FROM e WHERE task.account = $1 AND task.request = e.request AND task.iccid = e.iccid
	RETURNING task.request, task.iccid, task.lease, task.attempt, task.round, task.outcome, task.code, task.comment`

// claimed is a task that was claimed, in either phase.
type claimed struct {
	key            taskKey
	lease          int64
	attempt, round int
	outcome        string
	code, comment  string
}

const describe = `WITH e AS MATERIALIZED (
		SELECT value ->> 0 AS request, value ->> 1 AS iccid FROM {each $2} ORDER BY 1, 2)
	SELECT e.request, e.iccid, s.imei, s.mdn, r.sku, r.action, r.time
	FROM e CROSS JOIN request r CROSS JOIN sim s
	WHERE r.account = $1 AND r.id = e.request AND s.account = $1 AND s.iccid = e.iccid
	ORDER BY 1, 2`

// claimTasks leases due tasks of a phase and describes them; make builds the
// value of each.
func claimTasks[T any](ctx context.Context, s *Store, phase license.Phase, p license.ClaimParams, build func(claimed, license.Task) T) (list []T, err error) {
	if p.Limit <= 0 {
		return nil, nil
	}
	err = s.write(ctx, p.Account, p.Limit, func(tx *tx) error {
		list = nil
		got, err := collect(tx, func(scan func(...any) error) (c claimed, err error) {
			return c, scan(&c.key.request, &c.key.iccid, &c.lease, &c.attempt, &c.round, &c.outcome, &c.code, &c.comment)
		}, claim, string(p.Account), string(phase), micros(p.Now), micros(p.Until), p.Limit)
		if err != nil || len(got) == 0 {
			return err
		}
		byKey := make(map[taskKey]claimed, len(got))
		keys := make(rows, len(got))
		for i, c := range got {
			byKey[c.key] = c
			keys[i] = []any{c.key.request, c.key.iccid}
		}
		param, err := keys.param()
		if err != nil {
			return err
		}
		list, err = collect(tx, func(scan func(...any) error) (v T, err error) {
			t := license.Task{Account: p.Account, Until: p.Until}
			var at int64
			if err := scan(&t.Request, &t.Device.ICCID, &t.Device.IMEI, &t.Device.MDN, &t.SKU, &t.Action, &at); err != nil {
				return v, err
			}
			c := byKey[taskKey{t.Request, t.Device.ICCID}]
			t.At, t.Lease, t.Attempt = fromMicros(at), c.lease, c.attempt
			return build(c, t), nil
		}, describe, string(p.Account), param)
		return err
	})
	return list, err
}

// ClaimTasks leases due tasks of an account, to be taken to the carrier.
func (s *Store) ClaimTasks(ctx context.Context, p license.ClaimParams) ([]license.Task, error) {
	tasks, err := claimTasks(ctx, s, license.PhaseCarrier, p, func(_ claimed, t license.Task) license.Task { return t })
	return tasks, s.failed("claiming tasks", err)
}

// ClaimCallbacks leases due callbacks of an account, to be sent to its listener.
func (s *Store) ClaimCallbacks(ctx context.Context, p license.ClaimParams) ([]license.Callback, error) {
	callbacks, err := claimTasks(ctx, s, license.PhaseListener, p, func(c claimed, t license.Task) license.Callback {
		return license.Callback{Request: t.Request, Action: t.Action, SKU: t.SKU, Account: t.Account, Device: t.Device,
			OK: c.outcome == license.Done.String(), Code: c.code, Comment: c.comment,
			Attempt: c.attempt, Round: c.round, Lease: c.lease, Until: t.Until}
	})
	return callbacks, s.failed("claiming callbacks", err)
}

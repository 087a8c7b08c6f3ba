package store

import (
	"context"
	"fmt"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// StuckTask is a task whose carrier stayed silent until the deadline. It keeps
// its reservation until an operator decides.
type StuckTask struct {
	license.Task
	Since   time.Time
	Comment string // what the carrier, or the network, said last
}

// neverDue is when a stuck task is due at the carrier: the index of what is due leads
// to it, and no clock does. Statements have the number itself.
const neverDue = 1 << 62

const selectStuck = `SELECT t.request, t.iccid, t.lease, t.attempt, t.settled, t.comment,
		(SELECT sku FROM request r WHERE r.account = $1 AND r.id = t.request),
		(SELECT action FROM request r WHERE r.account = $1 AND r.id = t.request),
		(SELECT time FROM request r WHERE r.account = $1 AND r.id = t.request),
		(SELECT imei FROM sim s WHERE s.account = $1 AND s.iccid = t.iccid),
		(SELECT mdn FROM sim s WHERE s.account = $1 AND s.iccid = t.iccid)
	FROM task t WHERE t.account = $1 AND t.carrier_due = 4611686018427387904 AND t.phase = 'stuck' ORDER BY t.request, t.iccid`

// StuckTasks lists an account's stuck tasks.
func (s *Store) StuckTasks(ctx context.Context, account license.AccountName) ([]StuckTask, error) {
	list, err := collect(s.reader(ctx), func(scan func(...any) error) (t StuckTask, err error) {
		var since, at int64
		t.Account = account
		err = scan(&t.Request, &t.Device.ICCID, &t.Lease, &t.Attempt, &since, &t.Comment, &t.SKU, &t.Action, &at, &t.Device.IMEI, &t.Device.MDN)
		t.Since, t.At = fromMicros(since), fromMicros(at)
		return t, err
	}, selectStuck, string(account))
	return list, s.failed("listing stuck tasks", err)
}

// ResolveStuck decides a stuck task by an operator's word: license.Done posts
// (or releases) its license, license.Refused voids it (or leaves it assigned),
// and license.Retry has the carrier asked again, at once; where that is an
// upstream, it is sent again what it may have done before. The reason is what the
// listener is told of a refusal. It fails with license.ErrNotFound when the task
// is not stuck, or no longer as it was listed.
func (s *Store) ResolveStuck(ctx context.Context, t StuckTask, verdict license.Verdict, reason string, now time.Time) error {
	if verdict != license.Done && verdict != license.Refused && verdict != license.Retry {
		return fmt.Errorf("resolving a stuck task: %v is no decision", verdict)
	}
	e := s.entry("stuck."+verdict.String(), t.Account, string(t.Device.ICCID))
	settled, err := s.settleWith(ctx, license.SettleParams{
		Now:      now,
		Outcomes: []license.Outcome{{Task: t.Task, Verdict: verdict, Comment: reason, Due: now}},
	}, func(tx *tx, settled license.Settled) error {
		if settled.Counted == 0 {
			return nil
		}
		return tx.record(e, facts{"phase": license.PhaseStuck, "comment": t.Comment},
			facts{"request": t.Request, "action": t.Action, "sku": t.SKU, "verdict": verdict.String(), "reason": reason})
	})
	if err == nil && settled.Counted == 0 {
		err = fmt.Errorf("stuck task %s: %w", t.Key(), license.ErrNotFound)
	}
	if err == nil && verdict == license.Retry {
		err = s.failed("having an upstream asked again", s.forgetUpstream(ctx, t.Task))
	}
	return err
}

package store

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/simlatch/simlatch/internal/crash"
	"github.com/simlatch/simlatch/internal/license"
)

// The tasks are there: an update by key, as in settleTasks. The fencing number
// rises, so that whoever gives a lease back has lost it.
const giveBack = `INSERT INTO task (account, request, iccid, lease, phase, carrier_due, listener_due)
	SELECT $1, request, iccid, lease, phase, NULLIF(carrier_due, 0), NULLIF(listener_due, 0)
	FROM {each $2 request TEXT, iccid TEXT, lease BIGINT, phase TEXT, carrier_due BIGINT, listener_due BIGINT}
	WHERE true
	ON CONFLICT (account, request, iccid) DO UPDATE SET carrier_due = excluded.carrier_due,
		listener_due = excluded.listener_due, lease_end = 0, lease = task.lease + 1
	WHERE task.lease = excluded.lease AND task.phase = excluded.phase
	RETURNING request, iccid, lease`

// givenMost is how many leases one transaction gives back.
const givenMost = 500

// leasedTask is a task, in either phase, and the number of a lease on it.
type leasedTask struct {
	account license.AccountName
	task    taskKey
	number  int64
}

// GiveTasksBack makes tasks due at now that were leased and not taken to the
// carrier, for whoever has room. Where it fails, or does not come to be called,
// they fall due when their leases end. Those whose lease is no longer the task's
// own are left alone. It returns how many it made due.
func (s *Store) GiveTasksBack(ctx context.Context, now time.Time, tasks []license.Task) (int, error) {
	leases := make([]leasedTask, len(tasks))
	for i := range tasks {
		t := &tasks[i]
		leases[i] = leasedTask{t.Account, taskKey{t.Request, t.Device.ICCID}, t.Lease}
	}
	n, err := s.giveBack(ctx, license.PhaseCarrier, now, leases)
	return n, s.failed("giving tasks back", err)
}

// GiveCallbacksBack is GiveTasksBack for callbacks that were not sent. No attempt
// is counted.
func (s *Store) GiveCallbacksBack(ctx context.Context, now time.Time, callbacks []license.Callback) (int, error) {
	leases := make([]leasedTask, len(callbacks))
	for i := range callbacks {
		c := &callbacks[i]
		leases[i] = leasedTask{c.Account, taskKey{c.Request, c.Device.ICCID}, c.Lease}
	}
	n, err := s.giveBack(ctx, license.PhaseListener, now, leases)
	return n, s.failed("giving callbacks back", err)
}

func (s *Store) giveBack(ctx context.Context, phase license.Phase, now time.Time, leases []leasedTask) (given int, err error) {
	// The order in which tasks are locked, with the latest lease on each first.
	slices.SortFunc(leases, func(a, b leasedTask) int {
		return cmp.Or(cmp.Compare(a.account, b.account), a.task.compare(b.task), -cmp.Compare(a.number, b.number))
	})
	leases = slices.CompactFunc(leases, func(a, b leasedTask) bool { return a.account == b.account && a.task == b.task })
	for some := range slices.Chunk(leases, givenMost) {
		var n int
		err := s.write(ctx, some[0].account, len(some), func(tx *tx) error {
			n = 0
			crash.At(crash.GiveBackBegun)
			for first, i := 0, 1; i <= len(some); i++ {
				if i < len(some) && some[i].account == some[first].account {
					continue
				}
				of, err := giveAccountBack(tx, phase, now, some[first:i])
				if err != nil {
					return err
				}
				n += of
				first = i
			}
			crash.At(crash.GiveBackWritten)
			return nil
		})
		crash.At(crash.GiveBackCommitted)
		if err != nil {
			return given, err
		}
		given += n
	}
	return given, nil
}

// giveAccountBack gives the leases on tasks of one account back.
func giveAccountBack(tx *tx, phase license.Phase, now time.Time, leases []leasedTask) (given int, err error) {
	n := len(leases)
	request, iccid, phases := make([]string, n), make([]string, n), make([]string, n)
	number, carrierDue, listenerDue := make([]int64, n), make([]int64, n), make([]int64, n)
	due := carrierDue
	if phase == license.PhaseListener {
		due = listenerDue
	}
	numbers := make(map[taskKey]int64, n)
	for i, l := range leases {
		request[i], iccid[i], number[i] = string(l.task.request), string(l.task.iccid), l.number
		phases[i], due[i] = string(phase), micros(now)
		numbers[l.task] = l.number
	}
	var inserted []taskKey
	_, err = collect(tx, func(scan func(...any) error) (struct{}, error) {
		var key taskKey
		var got int64
		err := scan(&key.request, &key.iccid, &got)
		if got == numbers[key]+1 {
			given++
		} else {
			inserted = append(inserted, key)
		}
		return struct{}{}, err
	}, giveBack, string(leases[0].account), list{request, iccid, number, phases, carrierDue, listenerDue})
	if err != nil {
		return 0, err
	}
	return given, removeInserted(tx, leases[0].account, inserted)
}

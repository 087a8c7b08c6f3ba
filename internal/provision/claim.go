package provision

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// claimer claims the tasks that nobody holds. Its fields are its goroutine's.
type claimer struct {
	*Worker
	backlog []license.Due // what the last look found and was not claimed since, next first
	wanted  bool          // there may be more than the last look found
	lookAt  time.Time     // not before: a look costs what is due in all
	pollAt  time.Time     // at the latest
	trouble int           // looks or claims in a row that the store refused

	alarm   <-chan time.Time
	alarmAt time.Time
}

// lookShare bounds the time spent looking to one part in so many.
const lookShare = 10

func newClaimer(w *Worker) *claimer { return &claimer{Worker: w, wanted: true} }

// run claims whenever something may be due and there is room, until ctx ends.
func (c *claimer) run(ctx context.Context) {
	poll := time.NewTimer(0)
	defer poll.Stop()
	for {
		var freed <-chan struct{}
		if c.wanted || len(c.backlog) > 0 {
			freed = c.room.freed
		}
		c.setAlarm()
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
			c.wanted = true
		case <-c.alarm:
			c.alarm, c.alarmAt = nil, time.Time{}
			c.alarms.forget(c.cfg.Clock.Now())
			c.wanted = true
		case <-c.alarms.changed:
			continue
		case <-poll.C:
			c.wanted = true
		case <-freed:
		}
		if share, _ := c.room.claimable(len(c.backlog)); share > 0 {
			if c.wanted && !time.Now().Before(c.lookAt) {
				c.look(ctx)
			}
			c.claimAll(ctx)
		}
		poll.Reset(c.pause())
	}
}

// setAlarm waits for the earliest time at which work put off here falls due.
func (c *claimer) setAlarm() {
	if at, ok := c.alarms.next(); ok && !at.Equal(c.alarmAt) {
		c.alarm, c.alarmAt = c.cfg.Clock.After(at.Sub(c.cfg.Clock.Now())), at
	}
}

// pause is how long to wait for a signal.
func (c *claimer) pause() time.Duration {
	now := time.Now()
	switch {
	case c.wanted && now.Before(c.lookAt):
		return c.lookAt.Sub(now)
	case c.wanted:
		return c.cfg.Poll // there is no room; its release is signalled
	}
	return max(c.pollAt.Sub(now), time.Millisecond)
}

// look asks which accounts have due tasks.
func (c *claimer) look(ctx context.Context) {
	start := time.Now()
	due, err := c.cfg.Queue.DueAccounts(ctx, license.PhaseCarrier, c.cfg.Clock.Now())
	took := time.Since(start)
	if err != nil {
		c.failed(ctx, err)
		return
	}
	c.wanted = false
	if len(due) == 0 {
		c.trouble = 0
	}
	c.lookAt = start.Add(lookShare * took)
	c.pollAt = start.Add(max(c.cfg.Poll, lookShare*took))
	held := make(map[license.AccountName]int, len(due))
	for _, d := range due {
		held[d.Account] = c.room.holds(d.Account)
	}
	slices.SortStableFunc(due, func(a, b license.Due) int {
		return cmp.Or(cmp.Compare(held[a.Account], held[b.Account]), a.Oldest.Compare(b.Oldest))
	})
	c.backlog = due
}

// failed puts the next look off.
func (c *claimer) failed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	c.cfg.Logger.Error("claiming due tasks", "error", err)
	c.wanted, c.backlog = true, nil
	c.lookAt = time.Now().Add(storeBackoff(c.trouble))
	c.trouble++
}

// claimAll claims for one account of the backlog after the other, a share each,
// while there is room.
func (c *claimer) claimAll(ctx context.Context) {
	idle := 0 // accounts in a row that may not take more
	for len(c.backlog) > idle && ctx.Err() == nil {
		share, least := c.room.claimable(len(c.backlog))
		if share == 0 {
			return
		}
		d := c.backlog[0]
		c.backlog = c.backlog[1:]
		n := min(d.Count, share)
		reserved := c.room.reserve(d.Account, n, min(n, least))
		if reserved == 0 {
			idle++
			if d.Count > 0 {
				c.backlog = append(c.backlog, d)
			}
			continue
		}
		idle = 0
		claimed, err := c.claim(ctx, d.Account, reserved)
		if err != nil {
			c.failed(ctx, err)
			return
		}
		c.trouble = 0
		// Fewer than asked for: another node has taken the rest.
		if d.Count -= claimed; claimed == reserved && d.Count > 0 {
			c.backlog = append(c.backlog, d)
		}
	}
}

// claim takes up to n tasks of an account, for which room is reserved.
func (c *claimer) claim(ctx context.Context, account license.AccountName, n int) (int, error) {
	now := c.cfg.Clock.Now()
	// Cut off, it might have leased what nobody then knows of.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.Grace)
	defer cancel()
	tasks, err := c.cfg.Queue.ClaimTasks(ctx, license.ClaimParams{
		Account: account, Now: now, Until: now.Add(c.cfg.Lease), Limit: n,
	})
	if err != nil {
		tasks = nil
	}
	claimed := min(n, len(tasks))
	c.Give(account, n, tasks)
	return claimed, err
}

// byRequest cuts tasks into groups of one request each.
func byRequest(tasks []license.Task) [][]license.Task {
	mixed := slices.ContainsFunc(tasks, func(t license.Task) bool { return t.Request != tasks[0].Request })
	if !mixed {
		return [][]license.Task{tasks}
	}
	// The older request first, as ids rise.
	slices.SortStableFunc(tasks, func(a, b license.Task) int { return cmp.Compare(a.Request, b.Request) })
	var groups [][]license.Task
	for first, i := 0, 1; i <= len(tasks); i++ {
		if i == len(tasks) || tasks[i].Request != tasks[first].Request {
			groups = append(groups, tasks[first:i:i])
			first = i
		}
	}
	return groups
}

// alarms are the times at which tasks that this worker put off fall due, so that
// it need not wait for the next poll to ask again.
type alarms struct {
	horizon time.Duration // further ahead, polling is exact enough
	changed chan struct{} // signalled when the earliest is a new one

	mu    sync.Mutex // guards what follows
	ticks []int64    // rising, each once
}

const (
	// tick is how exact an alarm is; it bounds how often they cause a look.
	tick = 20 * time.Millisecond
	// horizonPolls is the horizon in polls: beyond it they are late by a hundredth.
	horizonPolls = 100
)

func newAlarms(poll time.Duration) *alarms {
	return &alarms{horizon: horizonPolls * poll, changed: make(chan struct{}, 1)}
}

// set adds a time, rounded up to a tick.
func (a *alarms) set(now, t time.Time) {
	if t.Sub(now) > a.horizon {
		return
	}
	n := (t.UnixMicro() + tick.Microseconds() - 1) / tick.Microseconds()
	a.mu.Lock()
	defer a.mu.Unlock()
	i, there := slices.BinarySearch(a.ticks, n)
	if there {
		return
	}
	a.ticks = slices.Insert(a.ticks, i, n)
	if i == 0 {
		signal(a.changed)
	}
}

// next is the earliest time.
func (a *alarms) next() (time.Time, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.ticks) == 0 {
		return time.Time{}, false
	}
	return time.UnixMicro(a.ticks[0] * tick.Microseconds()), true
}

// forget removes the times up to now.
func (a *alarms) forget(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := now.UnixMicro() / tick.Microseconds()
	i, there := slices.BinarySearch(a.ticks, n)
	if there {
		i++
	}
	a.ticks = slices.Delete(a.ticks, 0, i)
}

package simulation

import (
	"context"
	"errors"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
)

// database is the store as one node has it: out of reach, slow, and not always
// saying what it did.
type database struct {
	*store.Store
	n *node
}

var (
	errDead    = errors.New("the node is dead")
	errRefused = errors.New("the write failed, and nothing of it stands")
	errUnknown = errors.New("the connection was lost while committing")
)

// do does one operation of the store. unknown is the branch of one that was done
// and whose node was not told.
func (d *database) do(what, unknown string, op func() error) error {
	n, w := d.n, d.n.w
	wait := w.within(50*time.Microsecond, 5*time.Millisecond)
	if w.chance(w.faults.slow) {
		wait = w.within(time.Second, 20*time.Second)
	}
	w.pause(wait)
	switch {
	case !n.up:
		return errDead
	case w.now.Before(w.away):
		return unavailable(errRefused)
	case w.chance(w.faults.before):
		w.log("%s fails to %s", n.name, what)
		return w.dress(errRefused)
	}
	w.dirty = w.dirty || what != lookUp
	if err := op(); err != nil {
		w.log("%s may not %s: %v", n.name, what, err)
		return err
	}
	if w.chance(w.faults.after) {
		w.log("%s is not told of its %s", n.name, what)
		w.reach(unknown)
		w.pause(w.within(time.Millisecond, 5*time.Second))
		return w.dress(errUnknown)
	}
	if w.chance(300) {
		w.pause(w.within(50*time.Microsecond, 20*time.Millisecond))
	}
	return nil
}

func unavailable(err error) error { return &license.UnavailableError{Err: err, After: time.Second} }

// dress makes an error what the store would make of it: mostly its being away.
func (w *world) dress(err error) error {
	if w.chance(700) {
		return unavailable(err)
	}
	return err
}

// Accept tells the model what was accepted, and holds it against it.
func (d *database) Accept(ctx context.Context, p license.AcceptParams) (a license.Accepted, err error) {
	w := d.n.w
	err = d.do("accept", keyUnknownYet, func() (err error) {
		want := w.model.expect(p)
		if w.o.Mutation == LoseAccepted && w.chance(100) && want.err == nil && !want.replay {
			a = license.Accepted{ID: p.Request.ID}
			return nil
		}
		if w.o.Mutation == ForgetKeys && p.IdempotencyKey != "" && w.chance(500) {
			p.IdempotencyKey = ""
		}
		a, err = d.Store.Accept(ctx, p)
		w.model.accept(p, a, err, want)
		w.model.hold(d.n, a.Tasks)
		return err
	})
	if err != nil {
		a = license.Accepted{}
	}
	return a, err
}

// keyUnknownYet is counted as keyAfterUnknown once the key has resolved it.
const keyUnknownYet = "an acceptance whose commit's outcome was unknown"

// SettleTasks tells the model what was settled.
func (d *database) SettleTasks(ctx context.Context, p license.SettleParams) (s license.Settled, err error) {
	w := d.n.w
	if w.o.Mutation == InventOutcomes {
		for i := range p.Outcomes {
			if p.Outcomes[i].Verdict == license.Retry {
				p.Outcomes[i].Verdict = license.Done // silence taken for an answer
			}
		}
	}
	err = d.do("settle", settleUnknown, func() (err error) {
		if s, err = d.Store.SettleTasks(ctx, p); err != nil {
			return err
		}
		w.model.settle(p.Outcomes, s)
		w.model.holdCallbacks(d.n, s.Callbacks)
		d.n.progress++
		return nil
	})
	if err != nil {
		s = license.Settled{}
	}
	return s, err
}

// ClaimTasks notes who has them.
func (d *database) ClaimTasks(ctx context.Context, c license.ClaimParams) (tasks []license.Task, err error) {
	err = d.do("claim tasks", claimUnknown, func() (err error) {
		tasks, err = d.Store.ClaimTasks(ctx, c)
		d.n.w.model.hold(d.n, tasks)
		d.n.progress += len(tasks)
		return err
	})
	if err != nil {
		tasks = nil
	}
	return tasks, err
}

// ClaimCallbacks notes who has them.
func (d *database) ClaimCallbacks(ctx context.Context, c license.ClaimParams) (list []license.Callback, err error) {
	err = d.do("claim callbacks", claimUnknown, func() (err error) {
		list, err = d.Store.ClaimCallbacks(ctx, c)
		d.n.w.model.holdCallbacks(d.n, list)
		d.n.progress += len(list)
		return err
	})
	if err != nil {
		list = nil
	}
	return list, err
}

// FinishCallbacks notes that nobody has them any more.
func (d *database) FinishCallbacks(ctx context.Context, now time.Time, ends []license.Delivery) error {
	w := d.n.w
	for i := range ends {
		switch e := &ends[i]; {
		case w.o.Mutation == GiveUpEarly && e.Verdict == license.Again && e.Callback.Attempt == 1:
			e.Verdict, e.Due = license.Exhausted, time.Time{}
		case w.o.Mutation == HurryCallbacks && e.Verdict == license.Again:
			e.Due = e.At.Add(e.Due.Sub(e.At) / 2)
		case w.o.Mutation == DelayCallbacks && e.Verdict == license.Again:
			e.Due = e.Due.Add(30 * time.Minute)
		}
	}
	return d.do("write attempts down", finishUnknown, func() error {
		err := d.Store.FinishCallbacks(ctx, now, ends)
		if err == nil {
			w.model.finished(ends)
			d.n.progress++
		}
		return err
	})
}

// GiveTasksBack notes that nobody has them any more.
func (d *database) GiveTasksBack(ctx context.Context, now time.Time, tasks []license.Task) (given int, err error) {
	err = d.do("give tasks back", finishUnknown, func() (err error) {
		given, err = d.Store.GiveTasksBack(ctx, now, tasks)
		d.n.w.gaveBack(given)
		for i := range tasks {
			delete(d.n.w.model.holder, keyOf(&tasks[i]))
		}
		return err
	})
	return given, err
}

// GiveCallbacksBack notes that nobody has them any more.
func (d *database) GiveCallbacksBack(ctx context.Context, now time.Time, list []license.Callback) (given int, err error) {
	err = d.do("give callbacks back", finishUnknown, func() (err error) {
		given, err = d.Store.GiveCallbacksBack(ctx, now, list)
		d.n.w.gaveBack(given)
		for i := range list {
			delete(d.n.w.model.sender, place{list[i].Request, list[i].Device.ICCID})
		}
		return err
	})
	return given, err
}

func (w *world) gaveBack(n int) {
	if n > 0 {
		w.reach(nodeEnded)
	}
}

const lookUp = "look for a key"

// Replay may fail as any read.
func (d *database) Replay(ctx context.Context, account license.AccountName, application, operation, key, hash string, now time.Time) (id license.RequestID, err error) {
	err = d.do(lookUp, claimUnknown, func() (err error) {
		id, err = d.Store.Replay(ctx, account, application, operation, key, hash, now)
		return err
	})
	return id, err
}

// PutListener tells the model.
func (d *database) PutListener(ctx context.Context, l license.Listener, now time.Time) error {
	return d.do("register a listener", claimUnknown, func() error {
		err := d.Store.PutListener(ctx, l, now)
		if err == nil {
			d.n.w.audience.registered(l)
		}
		return err
	})
}

// DeleteListener tells the model.
func (d *database) DeleteListener(ctx context.Context, account license.AccountName, service string) error {
	return d.do("remove a listener", claimUnknown, func() error {
		err := d.Store.DeleteListener(ctx, account, service)
		if err == nil {
			d.n.w.audience.removed(account)
		}
		return err
	})
}

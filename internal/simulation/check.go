package simulation

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
)

// settled is whether the database has an outcome of a task, and which.
func (w *world) settled(t *task) (ok, settled bool) {
	c, err := w.store.Callback(w.ctx, t.of.account, t.of.id, t.sim.device.ICCID)
	if !w.must("reading a task", err) {
		return false, false
	}
	return c.OK, c.State != store.CallbackCarrier && c.State != store.CallbackStuck
}

// isStuck is whether the database has a task as stuck.
func (w *world) isStuck(t license.Task) bool {
	c, err := w.store.Callback(w.ctx, t.Account, t.Request, t.Device.ICCID)
	return err == nil && c.State == store.CallbackStuck
}

// checkPools holds the pools against the model's.
func (w *world) checkPools() {
	if w.failure != nil {
		return
	}
	for _, a := range accounts() {
		pools, err := w.store.Pools(w.ctx, a)
		if !w.must("reading pools", err) {
			return
		}
		for _, p := range pools {
			if want := *w.model.pool(a, p.SKU); p != want {
				w.fail("a pool is %+v, and should be %+v", p, want)
			}
			w.log("%s %s %d %d %d", p.Account, p.SKU, p.Purchased, p.Reserved, p.Assigned)
		}
	}
}

// verify has the store verify itself.
func (w *world) verify() {
	if w.failure != nil {
		return
	}
	_, err := w.store.Verify(w.ctx, func(d license.Drift) { w.fail("verify: %s", d) })
	w.must("verifying the ledger", err)
	_, err = w.store.VerifyAudit(w.ctx, func(finding string) { w.fail("verify the audit: %s", finding) })
	w.must("verifying the audit", err)
}

// checkEnd looks at everything when the last work is done.
func (w *world) checkEnd() {
	if w.failure != nil || w.ctx.Err() != nil {
		return
	}
	due, err := w.store.NextDue(w.ctx)
	if w.must("looking for what is due", err) && !due.IsZero() {
		w.fail("work is left, due %s", due)
	}
	w.seal()
	w.checkPools()
	w.verify()
	w.checkSIMs()
	w.checkRequests()
	w.checkCallbacks()
	w.log("%d events, %d devices", w.happened, w.model.devices)
}

// checkSIMs holds what SIMs hold against the model.
func (w *world) checkSIMs() {
	sims, err := w.store.Devices(w.ctx, license.DeviceFilter{Accounts: accounts(), Limit: len(w.model.list) + 1})
	if !w.must("listing SIMs", err) {
		return
	}
	if len(sims) != len(w.model.list) {
		w.fail("there are %d SIMs, and should be %d", len(sims), len(w.model.list))
	}
	for _, s := range sims {
		want := w.model.sims[s.Device.ICCID]
		if want == nil || want.pending != "" || s.SKU != want.sku || s.State != want.state || s.Account != want.account {
			w.fail("a SIM is %+v, and should be %+v", s, want)
			return
		}
	}
}

// checkRequests looks for what was accepted, and promised.
func (w *world) checkRequests() {
	for _, c := range w.client.promised {
		if r := w.model.requests[c.id]; r != nil {
			r.acked = true
			continue
		}
		if _, err := w.store.Progress(w.ctx, c.account, c.id); errors.Is(err, license.ErrNotFound) {
			w.fail("%s was promised, and is lost", c.id)
		}
	}
	for _, r := range w.model.order {
		p, err := w.store.Progress(w.ctx, r.account, r.id)
		if !w.must("reading a request", err) {
			return
		}
		done := 0
		for _, t := range r.tasks {
			if !t.settled {
				w.fail("%s %s never ended", r.id, t.sim.device.ICCID)
			}
			if t.ok {
				done++
			}
		}
		if p.Total != len(r.tasks) || p.Done != done || p.Failed != len(r.tasks)-done {
			w.fail("%s is told as %+v, and %d of %d were done", r.id, p, done, len(r.tasks))
		}
	}
}

// checkCallbacks holds each callback that ended against what its listener heard.
// When the work is done, all have.
func (w *world) checkCallbacks() {
	kept := map[place]bool{}
	for _, account := range accounts() {
		states := []store.CallbackState{
			store.CallbackUndelivered, store.CallbackUnsent, store.CallbackDelivered, store.CallbackWaiting, store.CallbackCarrier, store.CallbackStuck,
		}
		for c, err := range w.store.Callbacks(w.ctx, store.CallbackFilter{Account: account, States: states}) {
			if !w.must("listing callbacks", err) {
				return
			}
			kept[place{c.Request, c.Device.ICCID}] = true
			w.checkCallback(c)
		}
	}
	for _, r := range w.model.order {
		for _, t := range r.tasks {
			if !r.purged && !kept[t.place()] {
				w.fail("the callback of %s %s is lost", r.id, t.sim.device.ICCID)
			}
		}
	}
}

func (w *world) checkCallback(c store.KeptCallback) {
	key, a := place{c.Request, c.Device.ICCID}, w.audience
	t, r := w.model.tasks[key], a.heard[key][c.Round]
	if r == nil {
		r = &round{}
	}
	switch {
	case t == nil:
		w.fail("there is a callback of %s %s, which nobody accepted", key.request, key.iccid)
	case c.State.Ended() && c.OK != t.ok:
		w.fail("%s says %t, and should say %t", c.WebhookID(), c.OK, t.ok)
	case c.State == store.CallbackDelivered && !r.acked:
		w.fail("%s is told as delivered, and no listener acknowledged it", c.WebhookID())
	case c.State == store.CallbackUnsent && !a.rooms[t.of.account].none:
		w.fail("%s was not sent, and there always was a listener", c.WebhookID())
	case c.State == store.CallbackUndelivered && !r.gone && len(r.attempts) != a.attempts && !a.without(t.of.account, r.last()):
		w.fail("%s was given up after %d attempts of %d", c.WebhookID(), len(r.attempts), a.attempts)
	case w.calm && len(w.queue) == 0 && !c.State.Ended():
		w.fail("%s is still %s", c.WebhookID(), c.State)
	case !w.calm: // counted once, at the end
	case c.State == store.CallbackUnsent:
		w.reach(callbackUnsent)
	case c.State == store.CallbackUndelivered && !r.gone:
		w.reach(callbackExhausted)
		if c.Round > 0 {
			w.reach(againExhausted)
		}
	}
	w.log("%s is %s, %d %d", c.WebhookID(), c.State, c.Round, c.Attempt)
}

// last is when the last attempt of a round ended.
func (r *round) last() (at time.Time) {
	for _, attempt := range r.attempts {
		for _, ended := range attempt.ended {
			if ended.After(at) {
				at = ended
			}
		}
	}
	return at
}

// Missing are the rare branches that a run never came to.
func Missing(reached map[string]int) (missing []string) {
	for _, b := range Branches() {
		if reached[b] == 0 {
			missing = append(missing, b)
		}
	}
	slices.Sort(missing)
	return missing
}

// Failed is what a seed that failed prints.
func (r *Result) Failed() string {
	return fmt.Sprintf("seed %d: %v\n%s\nto repeat it: %s", r.Seed, r.Failure, strings.Join(r.Tail, "\n"), r.Repeat())
}

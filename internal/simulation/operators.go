package simulation

import (
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
)

// stock is what the accounts have when the day begins.
func (w *world) stock() {
	for _, a := range accounts() {
		for _, sku := range license.SKUs() {
			w.buy(a, sku, int64(2+w.upTo(20)))
		}
		w.importSIMs(a, 12+w.upTo(20))
	}
}

// buy buys licenses, or withdraws them.
func (w *world) buy(account license.AccountName, sku license.SKU, units int64) {
	pool := w.model.pool(account, sku)
	fits := pool.Purchased+units >= pool.Reserved+pool.Assigned
	_, err := w.store.AddPurchase(w.ctx, license.Purchase{Account: account, SKU: sku, Units: units, Reason: "simulated"}, w.now)
	if w.o.Mutation == BuyTwice && err == nil && w.chance(100) {
		_, err = w.store.AddPurchase(w.ctx, license.Purchase{Account: account, SKU: sku, Units: units, Reason: "simulated"}, w.now)
	}
	switch {
	case fits && w.must("buying", err):
		pool.Purchased += units
		w.log("%s buys %d of %s", account, units, sku)
	case !fits && errors.Is(err, license.ErrInsufficient):
		w.reach(withdrawalRefused)
	case !fits:
		w.fail("withdrawing %d of %+v: %v", -units, *pool, err)
	}
}

func sequence(sims []license.SIM) iter.Seq2[license.SIM, error] {
	return func(yield func(license.SIM, error) bool) {
		for _, s := range sims {
			if !yield(s, nil) {
				return
			}
		}
	}
}

// importSIMs imports new SIMs of an account.
func (w *world) importSIMs(account license.AccountName, n int) {
	var sims []license.SIM
	for range n {
		number := len(w.model.list) + len(sims)
		s := license.SIM{
			Account: account, State: license.StateActive, Generation: license.Generation4G,
			Device: license.Device{ICCID: license.ICCID(fmt.Sprintf("8914800%013d", number)), IMEI: license.IMEI(fmt.Sprintf("35%013d", number))},
		}
		if w.chance(50) {
			s.State = license.StateSuspended
		}
		sims = append(sims, s)
	}
	if _, err := w.store.Import(w.ctx, sequence(sims), w.now, func(int) {}); !w.must("importing", err) {
		return
	}
	for _, s := range sims {
		m := &sim{account: account, device: s.Device, state: s.State}
		w.model.sims[s.Device.ICCID], w.model.byIMEI[s.Device.IMEI] = m, m
		w.model.list = append(w.model.list, m)
	}
	w.log("%s imports %d SIMs", account, n)
}

// importOthers imports a SIM that another account has.
func (w *world) importOthers() {
	s := pick(w, w.model.list)
	for _, a := range accounts() {
		if a == s.account {
			continue
		}
		_, err := w.store.Import(w.ctx, sequence([]license.SIM{{Account: a, Device: s.device, State: license.StateActive, Generation: license.Generation4G}}), w.now, func(int) {})
		if err == nil {
			w.fail("%s was imported by two accounts", s.device.ICCID)
		}
		w.reach(importRefused)
		return
	}
}

// planOperators plans what operators do in the day, and the looks at the books.
func (w *world) planOperators() {
	deeds := []func(){
		func() { w.buy(pick(w, accounts()), pick(w, license.SKUs()), int64(1+w.upTo(5))) },
		func() { w.buy(pick(w, accounts()), pick(w, license.SKUs()), -int64(1+w.upTo(8))) },
		func() { w.importSIMs(pick(w, accounts()), 1+w.upTo(4)) },
		w.importOthers, w.changeStates, w.changePolicy, w.changePolicy, w.decide, w.decide, w.sendAgain, w.sendAgain,
		w.purge, w.seal, w.carrier.contradict, w.carrier.strange, w.changeMood, w.changeMood, w.changeMood,
	}
	day := w.end.Sub(w.now)
	for range w.o.Hours * 2 {
		w.after(w.within(0, day), func() {
			if !w.calm {
				pick(w, deeds)()
				w.dirty = true
			}
		})
	}
	for hour := range w.o.Hours {
		w.after(time.Duration(hour)*time.Hour, w.checkPools)
	}
	for _, at := range []time.Duration{day / 3, 2 * day / 3} {
		w.after(at, w.verify)
	}
}

func (w *world) changeStates() {
	s := pick(w, w.model.list)
	state := pick(w, []license.State{license.StateActive, license.StateActive, license.StateSuspended, license.StateInactive})
	if _, err := w.store.SetState(w.ctx, s.account, []license.ICCID{s.device.ICCID}, state); w.must("changing a state", err) {
		s.state = state
		w.log("%s is %s", s.device.ICCID, state)
	}
}

func (w *world) changePolicy() {
	p := license.Policy{Account: pick(w, accounts())}
	if w.chance(500) {
		p.RefuseLifetime = w.chance(300)
		p.DailyDevices = int64(w.upTo(20))
	}
	if w.must("setting a policy", w.store.SetPolicy(w.ctx, p, w.now)) {
		w.model.policies[p.Account] = p
		w.log("%s has the policy %+v", p.Account, p)
	}
}

func (w *world) changeMood() {
	r := w.audience.rooms[pick(w, accounts())]
	r.mood = moodGood
	if w.faults.listener > 0 && w.chance(500) {
		r.mood = pick(w, []string{moodFailing, moodFailing, moodHanging, moodGone})
		w.after(w.within(5*time.Minute, 2*time.Hour), func() { r.mood = moodGood })
	}
}

// decide decides stuck tasks as they were listed some time ago.
func (w *world) decide() {
	account := pick(w, accounts())
	list, err := w.store.StuckTasks(w.ctx, account)
	if !w.must("listing stuck tasks", err) {
		return
	}
	for _, t := range list {
		w.after(w.within(0, time.Hour), func() {
			w.resolve(t, pick(w, []license.Verdict{license.Done, license.Refused, license.Retry}))
		})
	}
}

// resolve decides one.
func (w *world) resolve(t store.StuckTask, v license.Verdict) {
	key := keyOf(&t.Task)
	err := w.store.ResolveStuck(w.ctx, t, v, "an operator's word", w.now)
	w.dirty = true
	switch {
	case errors.Is(err, license.ErrNotFound):
		w.reach(stuckMeanwhile)
	case !w.must("deciding a stuck task", err):
	case v == license.Retry:
		w.reach(stuckRetry)
	default:
		w.reach(map[license.Verdict]string{license.Done: stuckDone, license.Refused: stuckRefused}[v])
		w.model.end(key, v == license.Done, true)
	}
}

// settleStuck decides, each hour, what is stuck when the faults have ended.
func (w *world) settleStuck() {
	for _, account := range accounts() {
		list, err := w.store.StuckTasks(w.ctx, account)
		if !w.must("listing stuck tasks", err) {
			return
		}
		for _, t := range list {
			w.resolve(t, pick(w, []license.Verdict{license.Done, license.Refused}))
		}
	}
	if w.unsettled() > 0 {
		w.after(time.Hour, w.settleStuck)
	}
}

func (w *world) unsettled() (n int) {
	for _, t := range w.model.tasks {
		if !t.settled {
			n++
		}
	}
	return n
}

// sendAgain has ended callbacks sent again.
func (w *world) sendAgain() {
	account := pick(w, accounts())
	var list []store.KeptCallback
	states := []store.CallbackState{store.CallbackUndelivered, store.CallbackUnsent}
	if w.chance(200) {
		states = append(states, store.CallbackDelivered)
	}
	for c, err := range w.store.Callbacks(w.ctx, store.CallbackFilter{Account: account, States: states, Page: 20}) {
		if !w.must("listing callbacks", err) {
			return
		}
		if list = append(list, c); len(list) == 20 {
			break
		}
	}
	if len(list) == 0 {
		return
	}
	n, err := w.store.SendAgain(w.ctx, account, list, w.now)
	switch {
	case errors.Is(err, license.ErrNoListener) && w.audience.rooms[account].url == "":
	case w.must("sending callbacks again", err) && n != len(list):
		w.fail("%d of %d callbacks are sent again", n, len(list))
	case err == nil:
		w.reach(callbackAgain)
		w.log("%d callbacks of %s are sent again", n, account)
	}
}

// purge purges what ended some hours ago, once its callbacks were looked at.
func (w *world) purge() {
	w.checkCallbacks()
	retention := w.within(2*time.Hour, 8*time.Hour)
	given := retention
	if w.o.Mutation == PurgeTooSoon {
		given = 0
	}
	if _, err := w.store.Purge(w.ctx, w.now, given); !w.must("purging", err) {
		return
	}
	w.model.forget()
	for _, r := range w.model.order {
		if r.purged {
			continue
		}
		p, err := w.store.Progress(w.ctx, r.account, r.id)
		if w.must("reading a request", err) && !p.Purged.IsZero() {
			r.purged = true
			w.reach(requestPurged)
			w.log("%s is purged", r.id)
			w.mayPurge(r, retention)
		}
	}
}

// mayPurge holds a purged request against what may be.
func (w *world) mayPurge(r *request, retention time.Duration) {
	if w.now.Sub(r.took) < retention-25*time.Hour*time.Duration(min(1, w.drawn.jumps)) {
		w.fail("%s was purged before its time", r.id)
	}
	for _, t := range r.tasks {
		if !t.settled || !w.audience.acknowledged(t.place()) {
			w.fail("%s was purged while its callbacks can be sent again", r.id)
		}
	}
}

func (w *world) seal() {
	n, err := w.store.SealAudit(w.ctx)
	if w.must("sealing the audit", err) && n > 0 {
		w.reach(auditSealed)
	}
}

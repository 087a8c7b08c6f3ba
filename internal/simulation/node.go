package simulation

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"time"

	"github.com/simlatch/simlatch/internal/api"
	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/callback"
	"github.com/simlatch/simlatch/internal/provision"
)

const (
	timeout = 10 * time.Second
	lease   = 30 * time.Second
	poll    = 250 * time.Millisecond
	grace   = 15 * time.Second
)

// node is one process of the service. What it has in memory is gone when it dies.
type node struct {
	w       *world
	name    string
	skew    time.Duration
	up      bool
	ending  bool
	life    int // rises when it dies: what was planned for a former life does nothing
	strands []*strand

	work    *provision.Steps
	send    *callback.Steps
	handler http.Handler

	calls                                    int
	callPlanned, claiming, settling, writing bool
	claimAt, claimNot, settleNot, writeNot   time.Time
	claimPlan, fruitless, progress           int
}

// start begins a life.
func (n *node) start() {
	w := n.w
	n.up, n.ending, n.calls, n.callPlanned, n.claiming, n.settling, n.writing = true, false, 0, false, false, false, false
	n.claimAt, n.claimNot, n.settleNot, n.writeNot, n.fruitless = time.Time{}, time.Time{}, time.Time{}, time.Time{}, 0
	db, now := &database{Store: w.store, n: n}, clock{w, n}
	sender, err := callback.New(callback.Config{
		Outbox: db, Clock: now, Attempts: w.audience.attempts, Interval: w.audience.interval, Timeout: timeout, Lease: lease,
		PerListener: w.perListener, Poll: poll, Courier: courier{n},
	})
	if !w.must("making a sender", err) {
		return
	}
	if n.send, err = sender.Steps(w.ctx, func(work func()) { w.spawn(n, n.name+" post", work, nil) }); !w.must("beginning a sender's work", err) {
		return
	}
	worker, err := provision.New(provision.Config{
		Queue: db, Carrier: line{n}, Sink: sender, Clock: now, Callers: w.callers, Lease: lease, Timeout: timeout,
		Deadline: w.carrier.deadline, Backoff: w.backoff, Poll: poll, Grace: grace,
	})
	if !w.must("making a worker", err) {
		return
	}
	n.work = worker.Steps()
	a, err := api.New(api.Config{
		Auth:     auth.New(auth.Config{Records: w.store, Clock: now, Random: w.bytes, SharedNodes: true}),
		Licenses: db, Inventory: db, Listeners: db, Work: worker, Clock: now, Random: w.bytes, Lease: lease,
	})
	if w.must("making an API", err) {
		n.handler = a.Handler()
	}
	w.log("%s begins, %s ahead", n.name, n.skew)
}

// backoff is like license.Backoff, by the seed's chance.
func (w *world) backoff(attempt int) time.Duration {
	const most = 40 * time.Minute // silence is long here, and each time costs a write
	d := time.Second
	for range min(attempt, 10) {
		d = min(most, 3*d)
	}
	return d - w.within(0, d/4)
}

// die ends the node where it stands.
func (n *node) die() {
	if !n.up {
		return
	}
	if len(n.strands) > 0 || n.work.Waiting() || n.work.Unsettled() || n.send.Unwritten() {
		n.w.reach(nodeDied)
	}
	n.w.log("%s dies with %d strands", n.name, len(n.strands))
	n.up = false
	n.life++
	for _, s := range slices.Clone(n.strands) {
		n.w.kill(s)
	}
	n.strands = nil
}

func (n *node) forget(s *strand) {
	n.strands = slices.DeleteFunc(n.strands, func(o *strand) bool { return o == s })
}

// restart plans another life.
func (n *node) restart(after time.Duration) {
	n.w.after(after, func() {
		if !n.up {
			n.start()
		}
	})
}

// stop tells the node to end as it does on SIGTERM, and begins it anew later.
func (n *node) stop(away time.Duration) {
	w, life := n.w, n.life
	n.ending = true
	w.log("%s is told to end", n.name)
	w.spawn(n, n.name+" end", func() { n.end() }, nil)
	w.after(grace, func() {
		if n.life == life && n.up {
			n.die()
		}
		n.restart(away)
	})
}

func (n *node) end() {
	n.work.End(n.w.ctx)
	n.send.End(n.w.ctx)
}

// left ends the life of a node that was told to end and has nothing left to do.
func (n *node) left() {
	w := n.w
	w.log("%s has ended", n.name)
	n.end() // what came since, of calls that were under way
	n.up = false
	n.life++
	n.strands = nil
}

// dispatch begins what there is to do, as the goroutines of Run would.
func (n *node) dispatch() {
	if !n.up {
		return
	}
	w := n.w
	if n.calls < w.callers && !n.callPlanned && n.work.Waiting() {
		n.calls++
		n.callPlanned = true
		w.spawn(n, n.name+" call", func() {
			n.callPlanned = false
			n.work.Call(w.ctx)
		}, func(bool) { n.calls-- })
	}
	if !n.settling && n.work.Unsettled() && !w.now.Before(n.settleNot) {
		n.settling = true
		w.spawn(n, n.name+" settle", func() { n.settleNot = n.again(n.work.Settle(w.ctx)) }, func(bool) { n.settling = false })
	}
	if !n.writing && n.send.Unwritten() && !w.now.Before(n.writeNot) {
		n.writing = true
		w.spawn(n, n.name+" write", func() { n.writeNot = n.again(n.send.Finish(w.ctx)) }, func(bool) { n.writing = false })
	}
	if n.ending {
		if len(n.strands) == 0 && !n.work.Unsettled() && !n.send.Unwritten() {
			n.left()
		}
		return
	}
	n.planClaim()
}

// again is when to try again what failed.
func (n *node) again(err error) time.Time {
	if err == nil {
		return time.Time{}
	}
	at := n.w.now.Add(n.w.within(100*time.Millisecond, 2*time.Second))
	n.w.at(at, func() {}) // so that the world comes there
	return at
}

// planClaim plans to look for due work when it is, or at once when it was told of.
func (n *node) planClaim() {
	w := n.w
	if n.claiming || w.o.Mutation == NeverClaim {
		return
	}
	woken := n.work.Woken()
	woken = n.send.Woken() || woken
	var target time.Time
	switch {
	case woken:
		target, n.fruitless = w.now, 0
	case w.nextDue.IsZero():
		return
	default:
		target = w.now.Add(max(0, w.nextDue.Sub(w.now.Add(n.skew))))
	}
	if target.Before(n.claimNot) {
		target = n.claimNot
	}
	if !n.claimAt.IsZero() && !target.Before(n.claimAt) {
		return
	}
	n.claimAt = target
	n.claimPlan++
	plan, life := n.claimPlan, n.life
	w.at(target.Add(w.within(0, poll)), func() {
		switch {
		case n.life != life || n.claimPlan != plan || !n.up || n.ending:
		case !woken && (w.nextDue.IsZero() || w.nextDue.After(w.now.Add(n.skew))):
			n.claimAt = time.Time{} // another was quicker
		default:
			n.claim()
		}
	})
}

// claim looks for due work and claims it. What is due and finds no room is looked
// for less often, up to every five seconds.
func (n *node) claim() {
	w := n.w
	n.claimAt, n.claiming = time.Time{}, true
	before := n.progress
	w.spawn(n, n.name+" claim", func() {
		n.work.Claim(w.ctx)
		if _, err := n.send.Claim(w.ctx); err != nil {
			w.log("%s claims no callbacks: %v", n.name, err)
		}
	}, func(bool) {
		n.claiming, w.dirty = false, true
		if n.progress > before {
			n.fruitless = 0
			return
		}
		n.claimNot = w.now.Add(min(poll<<n.fruitless, 20*poll))
		n.fruitless = min(n.fruitless+1, 8)
	})
}

// serve has the node answer a call; lost says that it died before it had.
func (n *node) serve(r *http.Request, done func(a *httptest.ResponseRecorder, lost bool)) {
	rec := httptest.NewRecorder()
	n.w.spawn(n, n.name+" api", func() { n.handler.ServeHTTP(rec, r) }, func(killed bool) { done(rec, killed) })
}

// live is a node that takes calls, or nil.
func (w *world) live() *node {
	var live []*node
	for _, n := range w.nodes {
		if n.up && !n.ending {
			live = append(live, n)
		}
	}
	if len(live) == 0 {
		return nil
	}
	return pick(w, live)
}

// prepare makes the nodes and plans the day.
func (w *world) prepare() {
	w.stock()
	nodes := 2 + w.upTo(1)
	for i := range nodes {
		n := &node{w: w, name: fmt.Sprintf("node%d", i+1)}
		if w.faults.skew > 0 && i > 0 {
			n.skew = w.within(0, w.faults.skew)
		}
		w.nodes = append(w.nodes, n)
		n.start()
		w.planTrouble(n)
	}
	for range w.faults.outages {
		w.at(w.now.Add(w.within(0, w.end.Sub(w.now))), w.outage)
	}
	w.client.plan()
	w.planOperators()
}

// planTrouble plans the deaths of a node, its ends, and the jumps of its clock.
func (w *world) planTrouble(n *node) {
	for hour := range w.o.Hours {
		if !w.chance(w.faults.crash) {
			continue
		}
		w.at(begin().Add(time.Duration(hour)*time.Hour+w.within(0, time.Hour)), func() { w.trouble(n) })
	}
	for range w.faults.jumps {
		w.at(w.now.Add(w.within(0, w.end.Sub(w.now))), func() {
			if w.calm {
				return
			}
			n.skew += pick(w, []time.Duration{time.Minute, time.Hour, 24 * time.Hour, -time.Minute, -time.Hour, -24 * time.Hour})
			w.reach(clockJumped)
			w.log("%s has its clock %s ahead", n.name, n.skew)
			back := w.within(time.Second, time.Hour)
			w.after(back, func() { n.skew = 0 })
		})
	}
}

// trouble ends a node, mostly by killing it, and preferably in the midst of work.
func (w *world) trouble(n *node) {
	if w.calm || !n.up || n.ending {
		return
	}
	life, away, kill := n.life, w.within(time.Second, 10*time.Minute), w.chance(600)
	deed := func() {
		switch {
		case w.calm || n.life != life || !n.up || n.ending:
		case kill:
			n.die()
			n.restart(away)
		default:
			n.stop(away)
		}
	}
	// A node at rest has little to lose: wait for it to have some.
	if len(n.strands) == 0 && w.chance(900) {
		w.client.busy = func() { w.after(w.within(0, 3*time.Second), deed) }
		return
	}
	deed()
}

// outage has the database out of reach for a while.
func (w *world) outage() {
	if w.calm {
		return
	}
	w.reach(storeDown)
	until := w.now.Add(w.within(5*time.Second, 10*time.Minute))
	w.log("the database is out of reach until %s", until.Format(time.TimeOnly))
	w.away = until
}

// soothe ends the faults: what is left of the work is to be done.
func (w *world) soothe() {
	if w.failure != nil {
		return
	}
	w.log("the faults end")
	w.calm, w.faults, w.away = true, faults{}, time.Time{}
	for _, n := range w.nodes {
		n.skew = 0
		if !n.up {
			n.start()
		}
	}
	w.settleStuck()
}

// who is the node in its present life.
func (n *node) who() string { return fmt.Sprintf("%s/%d", n.name, n.life) }

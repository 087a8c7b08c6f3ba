package simulation

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// carrier is the world's one, which remembers each key. Whatever it does, it has
// made up its mind about a task when it first hears of it; only who contradicts
// itself on purpose says anything else.
type carrier struct {
	w        *world
	deadline time.Duration // of the service, for it to answer
	orders   map[place]*order
	list     []*order
}

// manner is how the carrier treats a task.
type manner int

const (
	prompt manner = iota
	whenAsked
	bySelf  // brings the outcome by itself
	silent  // for a while
	mute    // for ever
	afterIt // brings the outcome by itself, long after the deadline
)

// order is what the carrier knows of a task.
type order struct {
	task    license.Task
	done    bool // its mind
	code    string
	manner  manner
	asked   int
	ready   time.Time // when whenAsked and silent answer
	said    map[bool]bool
	brought bool
}

func newCarrier(w *world) *carrier {
	return &carrier{w: w, deadline: w.within(2*time.Hour, 8*time.Hour), orders: map[place]*order{}}
}

// said reports whether the carrier has said an outcome of a task.
func (c *carrier) said(key place, done bool) bool {
	o := c.orders[key]
	return o != nil && o.said[done]
}

// line is a node's connection to the carrier.
type line struct{ n *node }

// Provision answers, or does not.
func (l line) Provision(_ context.Context, tasks []license.Task) ([]license.Outcome, error) {
	w, c := l.n.w, l.n.w.carrier
	w.log("%s asks the carrier about %d of %s", l.n.name, len(tasks), tasks[0].Request)
	w.pause(w.within(time.Millisecond, 300*time.Millisecond))
	if w.chance(w.faults.carrier) {
		return l.fault(tasks)
	}
	answers := make([]license.Outcome, 0, len(tasks))
	for i := range tasks {
		answers = append(answers, c.answer(tasks[i]))
	}
	if w.chance(w.faults.carrier) {
		answers = c.garble(answers)
	}
	return answers, nil
}

// fault is a call that gives no answer; the work may be done all the same.
func (l line) fault(tasks []license.Task) ([]license.Outcome, error) {
	w, c := l.n.w, l.n.w.carrier
	if w.chance(500) {
		for i := range tasks {
			c.order(tasks[i])
		}
	}
	switch w.upTo(4) {
	case 0, 1:
		w.reach(carrierTimedOut)
		w.pause(timeout)
		return nil, context.DeadlineExceeded
	case 2:
		w.pause(w.within(time.Second, timeout-time.Second)) // slow, and right
		answers := make([]license.Outcome, 0, len(tasks))
		for i := range tasks {
			answers = append(answers, c.answer(tasks[i]))
		}
		return answers, nil
	case 3:
		w.reach(carrierPanicked)
		panic("the carrier's code is at fault")
	default:
		w.reach(carrierAway)
		return nil, &license.UnavailableError{Err: fmt.Errorf("the carrier is away"), After: w.within(time.Second, time.Minute)}
	}
}

// order finds what the carrier knows of a task, or has it make up its mind.
func (c *carrier) order(t license.Task) *order {
	w, key := c.w, keyOf(&t)
	o := c.orders[key]
	if o != nil {
		if o.task.Action != t.Action || o.task.SKU != t.SKU {
			w.fail("the carrier is asked for %s of %s under the key of %s of %s", t.Action, t.SKU, o.task.Action, o.task.SKU)
		}
		return o
	}
	o = &order{task: t, done: w.chance(850), said: map[bool]bool{}}
	if !o.done && w.chance(200) {
		o.code = license.CodeAlreadyLicensed
	}
	if w.chance(2 * w.faults.carrier) {
		o.manner = pick(w, []manner{whenAsked, whenAsked, bySelf, bySelf, silent, silent, silent, mute, afterIt})
	}
	o.ready = w.now.Add(w.within(time.Minute, 3*time.Hour))
	c.orders[key] = o
	c.list = append(c.list, o)
	if o.manner == bySelf {
		w.at(o.ready, func() { c.bring(o) })
	}
	if o.manner == afterIt {
		w.after(c.deadline+w.within(time.Minute, 3*time.Hour), func() { c.bring(o) })
	}
	return o
}

func (o *order) outcome(done bool) license.Outcome {
	v := license.Refused
	if done {
		v = license.Done
	}
	out := license.Outcome{Task: o.task, Verdict: v}
	if !done {
		out.Code, out.Comment = o.code, "not this one"
	}
	return out
}

// say is the carrier's word.
func (o *order) say(done bool) license.Outcome {
	o.said[done] = true
	return o.outcome(done)
}

// answer answers for one task.
func (c *carrier) answer(t license.Task) license.Outcome {
	w := c.w
	known := c.orders[keyOf(&t)] != nil
	o := c.order(t)
	o.asked++
	switch {
	case o.brought || w.calm && o.manner != mute && o.manner != afterIt:
		return o.say(o.done)
	case o.manner == whenAsked, o.manner == bySelf:
		if w.now.Before(o.ready) || o.manner == bySelf {
			return license.Outcome{Task: t, Verdict: license.Later, Due: w.now.Add(w.within(0, 2*time.Hour))}
		}
		w.reach(carrierLater)
	case o.manner == silent && w.now.Before(o.ready), o.manner == mute, o.manner == afterIt:
		return license.Outcome{Task: t, Verdict: license.Retry, Comment: "who knows"}
	case known && o.asked == 1:
		w.reach(carrierDidIt)
	}
	return o.say(o.done)
}

// garble spoils an answer. What is said twice, and not the same, is no word.
func (c *carrier) garble(answers []license.Outcome) []license.Outcome {
	w := c.w
	switch w.upTo(3) {
	case 0:
		if len(answers) > 1 {
			w.reach(carrierPartial)
		}
		return answers[:w.upTo(len(answers)-1)]
	case 1:
		w.reach(carrierTwice)
		answers = append(answers, answers...)
	case 2:
		w.reach(carrierStrange)
		strange := answers[0]
		strange.Task.Device.ICCID = "89999999999999999999"
		other := answers[0]
		other.Task.Request = "00000000-0000-7000-8000-000000000000"
		answers = append(answers, strange, other)
	default:
		w.reach(carrierContrary)
		for _, a := range slices.Clone(answers) {
			if a.Verdict == license.Done || a.Verdict == license.Refused {
				answers = append(answers, c.orders[keyOf(&a.Task)].outcome(a.Verdict != license.Done))
			}
		}
	}
	w.rng.Shuffle(len(answers), func(i, k int) { answers[i], answers[k] = answers[k], answers[i] })
	return answers
}

// bring brings an outcome that nobody asked for, until a node has taken it, and
// sometimes again, or the opposite.
func (c *carrier) bring(o *order) {
	o.brought = true
	o.said[o.done] = true
	c.deliver(o, o.done)
	if c.w.chance(200) {
		c.w.after(c.w.within(time.Second, time.Hour), func() { c.deliver(o, o.done) })
	}
}

// contradict brings the opposite of what was settled, and repeats of it.
func (c *carrier) contradict() {
	if len(c.list) == 0 {
		return
	}
	o := pick(c.w, c.list)
	t := c.w.model.tasks[keyOf(&o.task)]
	if t == nil || !t.settled {
		return // the opposite of what is open would be its word
	}
	c.deliver(o, t.ok == c.w.chance(500))
}

// strange brings the outcome of a task that never was.
func (c *carrier) strange() {
	if len(c.list) == 0 {
		return
	}
	o := *pick(c.w, c.list)
	o.task.Device.ICCID = "89999999999999999999"
	c.deliver(&o, true)
}

// deliver has a node take an outcome, again until it says that it has.
func (c *carrier) deliver(o *order, done bool) {
	w := c.w
	n := w.live()
	if n == nil {
		w.after(w.within(time.Second, time.Minute), func() { c.deliver(o, done) })
		return
	}
	taken := false
	w.spawn(n, n.name+" late", func() { taken = c.late(n, o, done) }, func(bool) {
		if !taken && w.failure == nil {
			w.after(w.within(time.Second, time.Minute), func() { c.deliver(o, done) })
		}
	})
}

// late is one such call.
func (c *carrier) late(n *node, o *order, done bool) bool {
	w, out := c.w, o.outcome(done)
	p := license.LateParams{Account: o.task.Account, Now: w.now.Add(n.skew), Outcomes: []license.LateOutcome{{
		Request: o.task.Request, ICCID: o.task.Device.ICCID, Verdict: out.Verdict, Code: out.Code, Comment: out.Comment,
	}}}
	db := &database{Store: w.store, n: n}
	err := db.do("take a late outcome", settleUnknown, func() error {
		wasStuck := w.isStuck(o.task)
		s, err := w.store.SettleLate(w.ctx, p)
		if err == nil {
			w.model.late(keyOf(&o.task), done, s.Results[0], wasStuck)
		}
		return err
	})
	return err == nil
}

// late holds what came of a late outcome against what stands.
func (m *model) late(key place, done bool, got license.LateResult, wasStuck bool) {
	t := m.tasks[key]
	want := license.LateUnknown
	switch {
	case m.requests[key.request] != nil && m.requests[key.request].purged:
		want = license.LateEnded // which of its devices there were is kept no longer
	case t == nil:
	case !t.settled:
		want = license.LateSettled
	case t.ok == done:
		want = license.LateRepeated
	default:
		want = license.LateContradicts
	}
	if got != want {
		m.w.fail("a late outcome (done: %t) of %s %s is %v, want %v", done, key.request, key.iccid, got, want)
		return
	}
	m.w.reach(map[license.LateResult]string{
		license.LateUnknown: lateUnknown, license.LateSettled: lateSettled, license.LateRepeated: lateRepeated,
		license.LateContradicts: lateContrary, license.LateEnded: lateEnded,
	}[got])
	if got == license.LateSettled {
		if wasStuck {
			m.w.reach(lateStuck)
		}
		m.end(key, done, true)
	}
}

package provision

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/simlatch/simlatch/internal/crash"
	"github.com/simlatch/simlatch/internal/license"
)

// call takes batches to the carrier, one after the other, until the lines are
// closed.
func (w *Worker) call(ctx context.Context) {
	for {
		tasks, ok := w.lines.next(w.pending.full)
		if !ok {
			return
		}
		account := tasks[0].Account
		if tasks = w.leased(tasks); len(tasks) > 0 {
			w.carry(ctx, tasks)
		}
		w.lines.done(account)
	}
}

// carry takes one batch to the carrier.
func (w *Worker) carry(ctx context.Context, tasks []license.Task) {
	start := time.Now()
	answers := w.ask(ctx, tasks)
	asked := time.Now()
	w.pending.add(answers)
	// One caller waits for the store, for all that have more of the same account.
	waited := time.Since(asked) * time.Duration(w.cfg.Callers)
	w.room.measured(len(tasks), asked.Sub(start)+waited)
}

// leased drops the tasks whose lease may end before the carrier has answered:
// someone else would ask it at the same time. They fall due again.
func (w *Worker) leased(tasks []license.Task) []license.Task {
	now := w.cfg.Clock.Now()
	until := now.Add(w.cfg.Timeout)
	first, n := tasks[0], len(tasks)
	kept := slices.DeleteFunc(tasks, func(t license.Task) bool {
		late := t.Until.Before(until)
		if late {
			w.alarms.set(now, t.Until)
		}
		return late
	})
	if dropped := n - len(kept); dropped > 0 {
		w.metrics.dropped.Add(float64(dropped))
		w.room.release(first.Account, dropped)
		w.cfg.Logger.Warn("dropping tasks that waited too long for the carrier; they fall due when their leases end",
			"request_id", first.Request, "tasks", dropped)
	}
	return kept
}

// ask calls the carrier for one batch and makes an outcome of whatever it does.
func (w *Worker) ask(ctx context.Context, tasks []license.Task) []license.Outcome {
	start := time.Now()
	ctx, span := w.begin(ctx, tasks)
	answers, err := w.provision(ctx, tasks)
	w.metrics.call(time.Since(start), err)
	if err != nil {
		span.Fail("the carrier could not be asked")
	}
	span.End()
	now := w.cfg.Clock.Now()
	w.trouble.call(now, err, tasks)
	if err != nil {
		answers = make([]license.Outcome, len(tasks)) // all Retry
		comment, due := "the carrier could not be asked: "+err.Error(), time.Time{}
		var away *license.UnavailableError
		if errors.As(err, &away) {
			due = now.Add(away.After) // which it asked for itself
		}
		for i := range answers {
			answers[i] = license.Outcome{Task: tasks[i], Comment: comment, Due: due}
		}
	} else {
		answers = w.match(tasks, answers)
	}
	for i := range answers {
		w.decide(&answers[i], now)
	}
	return answers
}

// provision calls the carrier within the timeout; a panic in it is an error.
func (w *Worker) provision(ctx context.Context, tasks []license.Task) (answers []license.Outcome, err error) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in the carrier: %v", p)
			w.cfg.Logger.Error("panic in the carrier", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	crash.At(crash.CarrierAsking)
	answers, err = w.cfg.Carrier.Provision(ctx, tasks)
	crash.At(crash.CarrierAnswered)
	return answers, err
}

// match gives each task its answer, whatever else was answered.
func (w *Worker) match(tasks []license.Task, answers []license.Outcome) []license.Outcome {
	if !inStep(tasks, answers) {
		return w.sortOut(tasks, answers)
	}
	for i := range answers {
		answers[i].Task = tasks[i] // the lease is ours to know
	}
	return answers
}

// inStep reports whether the answers are one for each task, one by one.
func inStep(tasks []license.Task, answers []license.Outcome) bool {
	if len(tasks) != len(answers) {
		return false
	}
	for i := range tasks {
		t, a := &tasks[i], &answers[i].Task
		if t.Device.ICCID != a.Device.ICCID || t.Request != a.Request {
			return false
		}
	}
	return true
}

// sortOut finds each task's answer. No answer, and two that contradict each
// other, leave the outcome unknown; an answer to no task of ours is ignored.
func (w *Worker) sortOut(tasks []license.Task, answers []license.Outcome) []license.Outcome {
	place := make(map[license.ICCID]int, len(tasks))
	out := make([]license.Outcome, len(tasks))
	for i := range tasks {
		place[tasks[i].Device.ICCID] = i
		out[i] = license.Outcome{Task: tasks[i], Comment: "the carrier gave no outcome"}
	}
	answered := make([]bool, len(tasks))
	contradicted := make([]bool, len(tasks))
	strange, twice := 0, 0
	for i := range answers {
		a := &answers[i]
		p, ours := place[a.Task.Device.ICCID]
		switch {
		case !ours || a.Task.Request != tasks[p].Request:
			strange++
		case !answered[p]:
			a.Task = tasks[p]
			out[p], answered[p] = *a, true
		default:
			twice++
			contradicted[p] = contradicted[p] || out[p].Verdict != a.Verdict
		}
	}
	missing, unclear := 0, 0
	for i := range out {
		if !answered[i] {
			missing++
		}
		if contradicted[i] {
			unclear++
			out[i] = license.Outcome{Task: tasks[i], Comment: "the carrier gave outcomes that contradict each other"}
		}
	}
	if strange+twice+missing > 0 {
		w.cfg.Logger.Warn("the carrier did not answer with one outcome for each task", "request_id", tasks[0].Request,
			"tasks", len(tasks), "missing", missing, "double", twice, "contradicted", unclear, "unasked", strange)
	}
	return out
}

// soonest is the least time after which a carrier is asked for a later answer,
// so that one that says "later" and means "now" is not asked without end.
const soonest = 100 * time.Millisecond

// decide turns a carrier's answer into the outcome to settle.
func (w *Worker) decide(o *license.Outcome, now time.Time) {
	switch o.Verdict {
	case license.Done:
		o.Code, o.Comment, o.Due = "", "", time.Time{}
	case license.Refused:
		o.Code, o.Comment, o.Due = clean(o.Code), clean(o.Comment), time.Time{}
	case license.Later:
		o.Code, o.Comment = "", ""
		o.Due = clamp(o.Due, now.Add(soonest), now.Add(w.cfg.Deadline))
	case license.Retry, license.Stuck:
		w.again(o, now)
	default: // what is no verdict says nothing
		w.again(o, now)
	}
}

// again has a task asked for once more, later, or leaves it to an operator.
func (w *Worker) again(o *license.Outcome, now time.Time) {
	if !now.Before(o.Task.At.Add(w.cfg.Deadline)) {
		o.Verdict, o.Code, o.Comment, o.Due = license.Stuck, "", clean(o.Comment), time.Time{}
		return
	}
	due := now.Add(w.cfg.Backoff(o.Task.Attempt))
	o.Verdict, o.Code, o.Comment = license.Retry, "", ""
	o.Due = clamp(o.Due, due, now.Add(w.cfg.Deadline)) // a carrier may ask for more patience
}

// clamp is t, but not before low, nor after high; high is not before low.
func clamp(t, low, high time.Time) time.Time {
	if high.Before(low) {
		high = low
	}
	switch {
	case t.Before(low):
		return low
	case t.After(high):
		return high
	}
	return t
}

// clean makes a carrier's words fit to be stored and sent: no database takes
// bytes that are not UTF-8, and PostgreSQL no zero. It is done here so that the
// callback handed over in memory says what is stored.
func clean(s string) string {
	const most = 512
	if len(s) <= most && utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

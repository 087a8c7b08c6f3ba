package carrier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// replayable is how long a Simlatch surely knows an Idempotency-Key; it says 24
// hours.
const replayable = 23 * time.Hour

// callbacksEnd is how many times the patience the callbacks of a request may
// take to come, all their attempts included.
const callbacksEnd = 20

// ask finds out what became of tasks that were sent in a batch, of which k is one.
//
// Of one whose answer did not come, a Simlatch is asked under the same
// Idempotency-Key, which carries it out at most once. The reference knows no such
// key: it is not sent again, whatever the SKU, and unless callbacks tell what
// became of it, an operator must.
func (p *passage) ask(ctx context.Context, tasks []license.Task, k license.UpstreamTask) {
	if k.Remote != "" {
		p.status(ctx, tasks, k)
		return
	}
	age := p.now.Sub(k.Sent)
	if err := p.u.ready(ctx, tasks[0].Account); err != nil {
		p.unclear(tasks, "the upstream was sent this and gave no answer; it cannot be asked now: "+err.Error())
		return
	}
	switch {
	case !p.u.simlatch.Load() && age < p.u.cfg.Timeout+time.Second: // it may be on its way at this moment
		p.wait(tasks, k.Sent)
		return
	case !p.u.simlatch.Load() || age > replayable:
		p.unclear(tasks, "the upstream was sent this and gave no answer; whether it did it is not known, and it cannot be asked")
		return
	case p.stop != nil || p.u.pace(ctx) != nil:
		p.wait(tasks, k.Sent)
		return
	}
	b, err := p.u.cfg.Records.UpstreamBatch(ctx, tasks[0].Account, tasks[0].Request, k.Key)
	allowed := false
	if err == nil {
		// By then nobody waits for an answer any more, and one node alone asks.
		allowed, err = p.u.cfg.Records.RetryUpstream(ctx, b, p.now, p.now.Add(-2*p.u.cfg.Timeout))
	}
	switch {
	case err != nil:
		p.unclear(tasks, "what was sent upstream cannot be read: "+err.Error())
	case !allowed:
		p.wait(tasks, k.Sent)
	default:
		p.deliver(ctx, tasks, b, true)
	}
}

// status asks how a request stands whose callbacks do not come.
func (p *passage) status(ctx context.Context, tasks []license.Task, k license.UpstreamTask) {
	p.wait(tasks, k.Sent)
	age := p.now.Sub(k.Sent)
	if age < p.u.cfg.Patience || p.stop != nil || !p.u.turn(k.Key, p.now) {
		p.overdue(tasks, k, "no callback came")
		return
	}
	if err := p.u.ready(ctx, tasks[0].Account); err != nil {
		p.overdue(tasks, k, err.Error())
		return
	}
	if p.u.pace(ctx) != nil {
		return
	}
	s, err := p.u.client.RequestStatus(ctx, p.u.theirs(tasks[0].Account), k.Remote)
	p.u.credentials(err)
	if err == nil && s.RequestID != "" && s.RequestID != k.Remote {
		err = errors.New("the answer is about another request")
	}
	if err != nil { // the reference may not tell (thingspace-api.md 7)
		p.overdue(tasks, k, "no callback came, and the upstream does not tell the request's status: "+err.Error())
		return
	}
	p.overdue(tasks, k, "no callback came, and the request's status is "+s.Status)
	if s.Status != m2m.StatusSuccess && s.Status != m2m.StatusFailure {
		return
	}
	b, err := p.u.cfg.Records.UpstreamBatch(ctx, tasks[0].Account, tasks[0].Request, k.Key)
	if err != nil {
		return
	}
	p.conclude(ctx, tasks, b, s.Status == m2m.StatusSuccess)
}

// overdue leaves tasks to an operator whose deadline has passed.
func (p *passage) overdue(tasks []license.Task, k license.UpstreamTask, comment string) {
	for i := range tasks {
		if !p.now.Before(tasks[i].At.Add(p.u.cfg.Deadline)) {
			p.unclear(tasks[i:i+1], fmt.Sprintf("the upstream accepted this as request %s, but %s", k.Remote, comment))
		}
	}
}

// conclude says what the end of a request means for the devices whose callbacks
// did not come: after success of the whole, each of them succeeded; after failure,
// only one that stands alone is known to have failed.
func (p *passage) conclude(ctx context.Context, tasks []license.Task, b license.UpstreamBatch, success bool) {
	const words = "The upstream says that the request failed, and did not say why."
	o := license.Outcome{Verdict: license.Done}
	switch {
	case success && b.Refused > 0: // it contradicts its callbacks
		return
	case success:
	case len(b.Waiting) == 1 && b.Refused == 0 && p.now.Sub(b.Sent) > callbacksEnd*p.u.cfg.Patience:
		o = license.Outcome{Verdict: license.Refused, Comment: words}
	default:
		return
	}
	if err := p.u.cfg.Records.DecideUpstream(ctx, b, o.Verdict, o.Code, o.Comment); err != nil {
		p.u.cfg.Logger.ErrorContext(ctx, "writing down the status of a request upstream", "error", err, "request_id", b.Request)
		return
	}
	// What was written first stands, so it is read next time, and at once.
	p.say(tasks, license.Outcome{Verdict: license.Later, Due: p.now})
}

// turn reports whether it is time to ask for the status of a batch, whoever of
// its tasks is looked at.
func (u *Upstream) turn(key string, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if last, ok := u.asked[key]; ok && now.Sub(last) < u.cfg.Patience/2 {
		return false
	}
	const most = 10_000
	if len(u.asked) >= most { // of ended batches, nearly all
		clear(u.asked)
	}
	u.asked[key] = now
	return true
}

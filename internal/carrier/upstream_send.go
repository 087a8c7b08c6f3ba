package carrier

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// send sends tasks that may be sent, as one request, and deals with the answer.
func (p *passage) send(ctx context.Context, tasks []license.Task) {
	if p.stop != nil {
		p.say(tasks, *p.stop)
		return
	}
	if err := p.u.ready(ctx, tasks[0].Account); err != nil {
		p.halt(tasks, license.Outcome{Verdict: license.Retry, Comment: err.Error(), Due: p.u.barredUntil()})
		return
	}
	if err := p.u.pace(ctx); err != nil { // no time is left for it in this call
		p.halt(tasks, license.Outcome{Verdict: license.Later, Due: p.now.Add(time.Second)})
		return
	}
	b := license.UpstreamBatch{
		Account: tasks[0].Account, Request: tasks[0].Request, SKU: tasks[0].SKU, Action: tasks[0].Action,
		Key: rand.Text(), Sent: p.u.cfg.Clock.Now(), Devices: make([]license.Device, len(tasks)),
	}
	for i := range tasks {
		b.Devices[i] = tasks[i].Device
	}
	began, err := p.u.cfg.Records.BeginUpstream(ctx, b)
	switch {
	case err != nil: // nothing was sent; if it was written after all, it is asked about
		p.say(tasks, license.Outcome{Verdict: license.Retry, Comment: err.Error()})
	case !began: // by somebody else, at this moment
		p.say(tasks, license.Outcome{Verdict: license.Later, Due: p.now.Add(time.Second)})
	default:
		p.deliver(ctx, tasks, b, false)
	}
}

// halt says the same of tasks and of all that follow.
func (p *passage) halt(tasks []license.Task, o license.Outcome) {
	p.stop = &o
	p.say(tasks, o)
}

// deliver makes the request of a batch that is written down, for these of its
// tasks or for all of them. again says that it was made before: that it was not
// done this time does not say that it was not then.
func (p *passage) deliver(ctx context.Context, tasks []license.Task, b license.UpstreamBatch, again bool) {
	a := p.u.request(ctx, b)
	if again && a.kind == notDone {
		a.kind = unknown
	}
	p.u.metrics.requests.WithLabelValues(a.kind.String()).Inc()
	if a.kind != accepted {
		p.u.cfg.Logger.WarnContext(ctx, "the upstream did not accept a request", "request_id", b.Request, "sku", b.SKU,
			"devices", len(b.Devices), "answer", a.kind.String(), "error", a.err)
	}
	records := p.u.cfg.Records
	var err error
	switch a.kind {
	case accepted:
		b.Remote = a.remote
		if err = records.NameUpstream(ctx, b); err == nil {
			p.wait(tasks, b.Sent)
		}
	case unknown:
		p.unclear(tasks, fmt.Sprintf("the upstream was sent this, and whether it did it is not known: %v", a.err))
	case notDone:
		if err = records.ReleaseUpstream(ctx, b, len(b.Devices)); err == nil {
			o := license.Outcome{Verdict: license.Retry, Comment: a.err.Error(), Due: p.now.Add(a.after)}
			if until := p.u.barredUntil(); until.After(o.Due) {
				o.Due = until
			}
			p.halt(tasks, o)
		}
	case refusedAll:
		err = p.refuse(ctx, tasks, b, a)
	case refusedSome:
		err = p.split(ctx, tasks, b, a)
	case tooFew:
		err = p.lacking(ctx, tasks, b, a)
	}
	if err != nil {
		p.u.cfg.Logger.ErrorContext(ctx, "writing down what the upstream answered; it will be asked about", "error", err, "request_id", b.Request,
			"upstream_request", a.remote, "answer", a.kind.String())
		p.unclear(tasks, "the upstream's answer could not be written down: "+err.Error())
	}
}

// written are records in which what was answered is written down whatever has
// ended meanwhile.
type written struct{ Records }

const writeTime = 5 * time.Second

// NameUpstream implements Records.
func (w written) NameUpstream(ctx context.Context, b license.UpstreamBatch) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTime)
	defer cancel()
	return w.Records.NameUpstream(ctx, b)
}

// ReleaseUpstream implements Records.
func (w written) ReleaseUpstream(ctx context.Context, b license.UpstreamBatch, most int) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTime)
	defer cancel()
	return w.Records.ReleaseUpstream(ctx, b, most)
}

// DecideUpstream implements Records.
func (w written) DecideUpstream(ctx context.Context, b license.UpstreamBatch, v license.Verdict, code, comment string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTime)
	defer cancel()
	return w.Records.DecideUpstream(ctx, b, v, code, comment)
}

// refuse says no of all tasks of a batch, in the upstream's words.
func (p *passage) refuse(ctx context.Context, tasks []license.Task, b license.UpstreamBatch, a upstreamAnswer) error {
	code, comment := a.words()
	err := p.u.cfg.Records.DecideUpstream(ctx, b, license.Refused, code, comment)
	if err == nil {
		p.say(tasks, license.Outcome{Verdict: license.Refused, Code: code, Comment: comment})
	}
	return err
}

// split deals with a request that was refused as a whole because of some device
// of it: it is sent again in halves, until the device stands alone, and only that
// one is refused.
func (p *passage) split(ctx context.Context, tasks []license.Task, b license.UpstreamBatch, a upstreamAnswer) error {
	if len(b.Devices) == 1 {
		return p.refuse(ctx, tasks, b, a)
	}
	half := (len(b.Devices) + 1) / 2
	if err := p.u.cfg.Records.ReleaseUpstream(ctx, b, half); err != nil {
		return err
	}
	for len(tasks) > 0 {
		n := min(half, len(tasks))
		p.send(ctx, tasks[:n:n])
		tasks = tasks[n:]
	}
	return nil
}

// lacking deals with a pool there that has less than is asked for. Licenses may
// be bought there, or come free, so for a while the tasks are kept, and asked for
// in halves each time: what there is goes to some of them. After that, those that
// do not fit are refused.
func (p *passage) lacking(ctx context.Context, tasks []license.Task, b license.UpstreamBatch, a upstreamAnswer) error {
	if !p.now.Before(tasks[0].At.Add(p.u.cfg.Shortage)) {
		return p.split(ctx, tasks, b, a)
	}
	if err := p.u.cfg.Records.ReleaseUpstream(ctx, b, (len(b.Devices)+1)/2); err != nil {
		return err
	}
	p.halt(tasks, license.Outcome{Verdict: license.Retry, Comment: a.err.Error()})
	return nil
}

// answerKind is what an answer to a request means.
type answerKind int

const (
	unknown     answerKind = iota // it may have been carried out
	accepted                      // it is being carried out
	notDone                       // it was not, for a reason that will pass
	refusedAll                    // it never will be, for any device
	refusedSome                   // it never will be, for some device
	tooFew                        // it was not, for a lack of licenses
)

func (k answerKind) String() string {
	return [...]string{"unknown", "accepted", "not_done", "refused", "refused_device", "short"}[k]
}

// upstreamAnswer is what the upstream made of a request.
type upstreamAnswer struct {
	kind   answerKind
	remote string        // of accepted
	err    error         // of all others
	after  time.Duration // of notDone, when the upstream said so
}

// words are the code and the text of a refusal.
func (a upstreamAnswer) words() (code, comment string) {
	var e *m2m.Error
	if !errors.As(a.err, &e) {
		return "", a.err.Error()
	}
	return e.Code, e.Message
}

// request makes a batch's request and reads the answer.
func (u *Upstream) request(ctx context.Context, b license.UpstreamBatch) upstreamAnswer {
	in := m2m.LicenseRequest{AccountName: u.theirs(b.Account), SKUNumber: string(b.SKU), Devices: make([]m2m.Device, len(b.Devices))}
	for i, d := range b.Devices {
		in.Devices[i] = m2m.NewDevice(string(d.IMEI), string(d.ICCID))
	}
	seen := &trace{}
	// Nothing ends it but its own time, renewed tokens included: half of a call
	// leaves a doubt behind.
	ctx, cancel := context.WithTimeout(context.WithValue(context.WithoutCancel(ctx), traceKey{}, seen), u.cfg.Timeout)
	defer cancel()
	ask := u.client.Assign
	if b.Action == license.Unassign {
		ask = u.client.Unassign
	}
	remote, err := ask(ctx, in, m2m.WithIdempotencyKey(b.Key))
	a := judge(remote, err, seen)
	u.credentials(err)
	return a
}

// maxRemote is the longest requestId that is believed to be one.
const maxRemote = 128

// judge reads an answer, of which seen is what happened on the wire. Only what is
// said in the documented form counts as a refusal; whatever else may stand for a
// request that was carried out is unknown.
func judge(remote string, err error, seen *trace) upstreamAnswer {
	var e *m2m.Error
	said := errors.As(err, &e)
	switch {
	case err == nil && remote != "" && len(remote) <= maxRemote:
		return upstreamAnswer{kind: accepted, remote: remote}
	case err == nil:
		return upstreamAnswer{err: errors.New("the answer holds no requestId")}
	case !seen.reached, !seen.connected.Load(): // there was no token, no session, or no connection
		return upstreamAnswer{kind: notDone, err: err}
	}
	switch seen.status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed,
		http.StatusNotAcceptable, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusTooManyRequests:
		a := upstreamAnswer{kind: notDone, err: err}
		if said {
			a.after = e.RetryAfter
		}
		return a
	case http.StatusBadRequest:
		if said && seen.last && e.Code != "" {
			return upstreamAnswer{kind: refusal(e), err: err}
		}
	}
	return upstreamAnswer{err: err}
}

// refusal is what kind of refusal a documented error is.
func refusal(e *m2m.Error) answerKind {
	is := func(errs ...*m2m.Error) bool {
		return slices.ContainsFunc(errs, func(of *m2m.Error) bool { return errors.Is(e, of) })
	}
	switch {
	case is(m2m.ErrInsufficientLicense):
		return tooFew
	case is(m2m.ErrUnassignLifetime, m2m.ErrSKUNotDefined, m2m.ErrSKUInvalid):
		return refusedAll
	case is(m2m.ErrAuthorization, m2m.ErrAuthentication, m2m.ErrSessionExpired, m2m.ErrSessionInvalid, m2m.ErrSessionFormat,
		m2m.ErrAccountNotFound, m2m.ErrMultipleAccounts, m2m.ErrNoAccounts, m2m.ErrAccountNotDefined, m2m.ErrAccountName,
		m2m.ErrRequestUndefined, m2m.ErrDeserialization, m2m.ErrTooManyRequests):
		return notDone // it is about how we ask, and for an operator to set right
	case is(m2m.ErrUnexpected, m2m.ErrKeyReused, m2m.ErrUnavailable):
		return unknown
	case strings.Contains(e.Code, "INPUT_INVALID.") || strings.Contains(e.Code, "REQUEST_FAILED."):
		return refusedSome
	}
	return unknown
}

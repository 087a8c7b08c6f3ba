package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/internal/store"
)

func requestOf(r store.KeptRequest) client.Request {
	return client.Request{
		Account: string(r.Account), ID: string(r.ID), SKU: string(r.SKU), Action: string(r.Action), Status: string(r.Status()),
		Accepted: r.At, Application: r.Application, User: r.User, Devices: r.Total, Succeeded: r.Done, Failed: r.Failed,
		Ended: r.Ended, Purged: r.Purged, Trace: r.Trace,
	}
}

func taskOf(c store.KeptCallback) client.Task {
	t := client.Task{
		Account: string(c.Account), Request: string(c.Request), Action: string(c.Action), SKU: string(c.SKU),
		ICCID: string(c.Device.ICCID), IMEI: string(c.Device.IMEI), MDN: string(c.Device.MDN), WebhookID: c.WebhookID(),
		State: string(c.State), Code: c.Code, Comment: c.Comment, Accepted: c.Accepted, Settled: c.Settled,
		Round: c.Round, Attempts: c.Attempt, Status: c.Status, LatencyMS: milliseconds(c.Latency), Due: c.Due, Ended: c.Ended,
	}
	switch {
	case c.State == store.CallbackCarrier || c.State == store.CallbackStuck:
	case c.OK:
		t.Outcome = client.DecideDone
	default:
		t.Outcome = client.DecideRefused
	}
	return t
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// listRequests lists requests account by account, the newest first.
func (a *API) listRequests(ctx context.Context, c *call) (client.Page[client.Request], error) {
	q := c.query("account", "request", "status", "action", "sku", "since", "until")
	f := store.RequestFilter{
		Since: q.time("since"), Until: q.time("until"), SKU: parsed(q, "sku", license.ParseSKU),
		Action: oneOf(q, "action", license.Assign, license.Unassign),
		Status: oneOf(q, "status", license.StatusPending, license.StatusSuccess, license.StatusFailure),
	}
	id := parsed(q, "request", license.ParseRequestID)
	return across(ctx, c, q, func(ctx context.Context, account license.AccountName, after string, n int) (list []client.Request, next string, err error) {
		if id != "" {
			r, err := c.store().Request(ctx, account, id)
			if errors.Is(err, license.ErrNotFound) {
				return nil, "", nil
			}
			return []client.Request{requestOf(r)}, "", err
		}
		f := f
		f.Account, f.Before, f.Limit = account, license.RequestID(after), n
		requests, last, more, err := c.store().Requests(ctx, f)
		for _, r := range requests {
			list = append(list, requestOf(r))
		}
		if more {
			next = string(last)
		}
		return list, next, err
	})
}

// request is the key of the request in the call's path.
func (c *call) request(ctx context.Context) (license.AccountName, license.RequestID, error) {
	id, err := license.ParseRequestID(c.r.PathValue("request"))
	if err != nil {
		return "", "", err
	}
	account, err := c.account(ctx)
	return account, id, err
}

// task is the key of the task in the call's path.
func (c *call) task(ctx context.Context) (license.AccountName, license.RequestID, license.ICCID, error) {
	iccid, err := license.ParseICCID(c.r.PathValue("iccid"))
	if err != nil {
		return "", "", "", err
	}
	account, id, err := c.request(ctx)
	return account, id, iccid, err
}

// maxMoments is how much of a request's course is told: the first of it.
const maxMoments = 1000

// getRequest tells a request with its course as a whole: what it did in the
// ledger, and when.
func (a *API) getRequest(ctx context.Context, c *call) (out client.RequestDetail, err error) {
	account, id, err := c.request(ctx)
	if err != nil {
		return out, err
	}
	r, err := c.store().Request(ctx, account, id)
	if err != nil {
		return out, err
	}
	postings, err := c.store().Postings(ctx, account, id, 0, maxMoments)
	out.Request = requestOf(r)
	out.Timeline = []client.Moment{{At: r.At, What: "accepted", Units: int64(r.Total)}}
	for _, p := range postings {
		out.Timeline = append(out.Timeline, client.Moment{At: p.At, What: p.Kind, Units: p.Units})
	}
	return out, err
}

// allStates are the states of tasks, in the order in which they pass through them.
func allStates() []store.CallbackState {
	return []store.CallbackState{
		store.CallbackCarrier, store.CallbackStuck, store.CallbackWaiting,
		store.CallbackDelivered, store.CallbackUndelivered, store.CallbackUnsent,
	}
}

// states reads the parameter state, which may be there more than once.
func (q *query) states(usual ...store.CallbackState) (states []store.CallbackState) {
	for _, text := range q.values["state"] {
		state := store.CallbackState(text)
		if !slices.Contains(allStates(), state) {
			q.fail("state %.40q: it is one of %q", text, allStates())
		}
		states = append(states, state)
	}
	if len(states) == 0 {
		return usual
	}
	return states
}

// taskPlace is a place in a list of tasks.
type taskPlace struct {
	Request license.RequestID `json:"r"`
	ICCID   license.ICCID     `json:"i"`
}

func (a *API) listTasks(ctx context.Context, c *call) (page client.Page[client.Task], err error) {
	q := c.query("state", "outcome")
	states, outcome := q.states(allStates()...), oneOf(q, "outcome", client.DecideDone, client.DecideRefused)
	var after license.ICCID
	q.cursor(&after)
	if q.err != nil {
		return page, q.err
	}
	account, id, err := c.request(ctx)
	if err != nil {
		return page, err
	}
	f := store.CallbackFilter{Account: account, Request: id, States: states, Page: q.limit + 1, After: store.CallbackPlace{Request: id, ICCID: after}}
	var list []client.Task
	for kept, err := range c.store().Callbacks(ctx, f) {
		if err != nil {
			return page, err
		}
		if t := taskOf(kept); outcome == "" || t.Outcome == outcome {
			list = append(list, t)
		}
		if len(list) > q.limit {
			break
		}
	}
	return cut(list, q.limit, func(t client.Task) any { return t.ICCID }), nil
}

// callbacks reads the first callbacks that a filter selects.
func (c *call) callbacks(ctx context.Context, f store.CallbackFilter, n int) (list []client.Task, err error) {
	for kept, err := range c.store().Callbacks(ctx, f) {
		if err != nil {
			return nil, err
		}
		if list = append(list, taskOf(kept)); len(list) == n {
			break
		}
	}
	return list, nil
}

// getTask tells all about the work for one device of a request: how it stands,
// and its course from acceptance to the last attempt to call back.
func (a *API) getTask(ctx context.Context, c *call) (out client.TaskDetail, err error) {
	account, id, iccid, err := c.task(ctx)
	if err != nil {
		return out, err
	}
	kept, err := c.store().Callback(ctx, account, id, iccid)
	if err != nil {
		return out, err
	}
	attempts, err := c.store().Attempts(ctx, account, id, iccid)
	out = client.TaskDetail{Task: taskOf(kept), Failures: []client.Attempt{}}
	for _, t := range attempts {
		out.Failures = append(out.Failures, client.Attempt{
			Round: t.Round, Attempt: t.Number, Ended: t.At, Status: t.Status, LatencyMS: milliseconds(t.Latency), Answer: t.Answer,
		})
	}
	out.Timeline = courseOf(out.Task, out.Failures)
	return out, err
}

// courseOf is the course of a task, by what is kept of it: of attempts to call
// back, those that failed, and how it ended.
func courseOf(t client.Task, failures []client.Attempt) []client.Moment {
	course := []client.Moment{{At: t.Accepted, What: "accepted"}}
	if !t.Settled.IsZero() {
		what := t.Outcome
		if what == "" {
			what = t.State // stuck
		}
		course = append(course, client.Moment{At: t.Settled, What: what, Detail: t.Comment})
	}
	for _, f := range failures {
		detail := fmt.Sprintf("attempt %d of round %d: no answer: %s", f.Attempt, f.Round, f.Answer)
		if f.Status != 0 {
			detail = fmt.Sprintf("attempt %d of round %d: status %d", f.Attempt, f.Round, f.Status)
		}
		course = append(course, client.Moment{At: f.Ended, What: "attempt-failed", Detail: detail})
	}
	if !t.Ended.IsZero() {
		course = append(course, client.Moment{At: t.Ended, What: t.State})
	}
	slices.SortStableFunc(course, func(a, b client.Moment) int { return cmp.Compare(a.At.UnixMicro(), b.At.UnixMicro()) })
	return course
}

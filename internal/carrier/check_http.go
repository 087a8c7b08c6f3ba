package carrier

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/simlatch/simlatch/internal/license"
)

// CheckHTTP holds a provisioning system at a URL against what is asked of one: the
// form of its answers, what it does with calls that are not ours, and all of
// Check. It ends after the first finding when the system cannot be called.
func CheckHTTP(ctx context.Context, cfg HTTPConfig, check CheckConfig) ([]Finding, error) {
	h, err := NewHTTP(cfg)
	if err != nil {
		return nil, err
	}
	defer h.transport.CloseIdleConnections()
	c := newChecker(limited{h}, check)
	c.between = noticeOddities(h)
	findings := []Finding{c.answers(ctx)}
	if len(findings[0].Faults) > 0 {
		return findings, nil
	}
	w := wireChecker{checker: c, h: h}
	findings = append(findings, w.run(ctx)...)
	return append(findings, c.run(ctx)...), nil
}

// limited bounds each call as a worker does.
type limited struct{ of Provisioner }

// callTimeLimit is the workers' default.
const callTimeLimit = 10 * time.Second

func (l limited) Provision(ctx context.Context, tasks []license.Task) ([]license.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeLimit)
	defer cancel()
	return l.of.Provision(ctx, tasks)
}

// noticeOddities makes faults of what an HTTP passes over in its carrier's answers.
func noticeOddities(h *HTTP) func(*Finding) {
	var mu sync.Mutex // guards sum
	var sum oddities
	h.strange = func(o oddities) {
		mu.Lock()
		defer mu.Unlock()
		sum.missing += o.missing
		sum.unknown += o.unknown
		sum.contradictory += o.contradictory
		sum.invalid += o.invalid
	}
	count := func(n int, what string) string {
		if n == 0 {
			return ""
		}
		return fmt.Sprintf("%d %s", n, what)
	}
	return func(f *Finding) {
		mu.Lock()
		defer mu.Unlock()
		if sum != (oddities{}) {
			f.fault("the answer had %s", words(
				count(sum.missing, "tasks without an outcome"), count(sum.unknown, "outcomes under keys that were not asked for"),
				count(sum.contradictory, "tasks with outcomes that contradict each other"),
				count(sum.invalid, "outcomes that are none of done, refused, retry and later")))
		}
		sum = oddities{}
	}
}

// answers makes one call, without which there is nothing to check.
func (c *checker) answers(ctx context.Context) Finding {
	f := Finding{Check: "it answers a call"}
	if _, err := c.of.Provision(ctx, c.tasks(1, license.Assign)); err != nil {
		f.fault("%v", err)
	}
	c.between(&f)
	return f
}

// wireChecker makes calls that differ from those of an HTTP.
type wireChecker struct {
	*checker

	h *HTTP
}

func (w wireChecker) run(ctx context.Context) (findings []Finding) {
	add := func(name string, run func(context.Context, *Finding)) {
		f := Finding{Check: name}
		run(ctx, &f)
		findings = append(findings, f)
	}
	if w.h.cfg.Token != "" {
		add("a wrong token is refused", w.wrongToken)
	}
	if w.h.webhook != nil {
		add("a wrong signature is refused", w.wrongSignature)
		add("an old signature is refused", w.oldSignature)
	}
	add("members that are new to it are ignored", w.newMembers)
	add("what is no JSON is refused", w.noJSON)
	return findings
}

// call makes one call whose request is changed first.
func (w wireChecker) call(ctx context.Context, body []byte, at time.Time, change func(http.Header)) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeLimit)
	defer cancel()
	req, err := w.h.request(ctx, body, at)
	if err != nil {
		return nil, err
	}
	if change != nil {
		change(req.Header)
	}
	return w.h.exchange(req)
}

// wantRefused makes a call that is not to be believed.
func (w wireChecker) wantRefused(ctx context.Context, f *Finding, at time.Time, change func(http.Header)) {
	body, err := encodeCall(w.tasks(1, license.Assign))
	if err == nil {
		_, err = w.call(ctx, body, at, change)
	}
	var failed *callError
	switch {
	case err == nil:
		f.fault("it answered such a call with 200: anybody can have licenses made")
	case !errors.As(err, &failed) || failed.kind != callUnauthorized:
		f.fault("such a call is to be answered with 401 or 403, and was with: %v", err)
	}
}

func (w wireChecker) wrongToken(ctx context.Context, f *Finding) {
	w.wantRefused(ctx, f, time.Now(), func(h http.Header) { h.Set("Authorization", "Bearer wrong-token") })
	w.wantRefused(ctx, f, time.Now(), func(h http.Header) { h.Del("Authorization") })
}

func (w wireChecker) wrongSignature(ctx context.Context, f *Finding) {
	w.wantRefused(ctx, f, time.Now(), func(h http.Header) {
		if other, err := standardwebhooks.NewWebhook("d3Jvbmctc2VjcmV0LXdyb25nLXNlY3JldA=="); err == nil {
			signature, _ := other.Sign(h.Get("Webhook-Id"), time.Now(), []byte("another body"))
			h.Set("Webhook-Signature", signature)
		}
	})
	w.wantRefused(ctx, f, time.Now(), func(h http.Header) { h.Del("Webhook-Signature") })
}

func (w wireChecker) oldSignature(ctx context.Context, f *Finding) {
	w.wantRefused(ctx, f, time.Now().Add(-time.Hour), nil)
}

// newMembers calls as a later version might.
func (w wireChecker) newMembers(ctx context.Context, f *Finding) {
	tasks := w.tasks(2, license.Assign)
	body, err := encodeCall(tasks)
	var call map[string]any
	if err == nil {
		err = json.Unmarshal(body, &call)
	}
	if err != nil {
		f.fault("%v", err)
		return
	}
	call["version"] = 2
	for _, task := range call["tasks"].([]any) {
		task.(map[string]any)["priority"] = map[string]any{"level": "low"}
	}
	if body, err = json.Marshal(call); err == nil {
		body, err = w.call(ctx, body, time.Now(), nil)
	}
	if err != nil {
		f.fault("a call with members that a later version may have failed: %v", err)
		return
	}
	said, err := decodeOutcomes(body)
	if _, odd := answer(tasks, said, time.Now()); err != nil || odd != (oddities{}) {
		f.fault("a call with members that a later version may have was not answered in full: %v", err)
	}
}

func (w wireChecker) noJSON(ctx context.Context, f *Finding) {
	_, err := w.call(ctx, []byte(`{"tasks":[`), time.Now(), nil)
	var failed *callError
	switch {
	case err == nil:
		f.fault("it answered half a body with 200; 400 is right")
	case errors.As(err, &failed) && (failed.kind == callTimeout || failed.kind == callNetwork):
		f.fault("it does not answer half a body: %v", err)
	}
}

package operator

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/internal/store"
)

// listCallbacks lists callbacks account by account, the newest request first; by
// default those that nobody acknowledged.
func (a *API) listCallbacks(ctx context.Context, c *call) (client.Page[client.Task], error) {
	q := c.query("account", "request", "state", "since", "until")
	f := store.CallbackFilter{
		Request: parsed(q, "request", license.ParseRequestID), Since: q.time("since"), Until: q.time("until"),
		States: q.states(store.CallbackUndelivered, store.CallbackUnsent),
	}
	return across(ctx, c, q, func(ctx context.Context, account license.AccountName, after string, n int) (list []client.Task, next string, err error) {
		f := f
		f.Account, f.Page = account, n+1
		if after != "" {
			request, iccid, _ := strings.Cut(after, "/")
			f.After = store.CallbackPlace{Request: license.RequestID(request), ICCID: license.ICCID(iccid)}
		}
		list, err = c.callbacks(ctx, f, n+1)
		if errors.Is(err, license.ErrNotFound) && f.Request != "" { // it is of another account
			return nil, "", nil
		}
		if len(list) > n {
			list = list[:n]
			next = list[n-1].Request + "/" + list[n-1].ICCID
		}
		return list, next, err
	})
}

// sendMost is about how many callbacks one call sends again.
const sendMost = 10_000

// sendCallbacks sends again what nobody acknowledged, and on demand what
// somebody did: of one SIM, a request, or a time.
func (a *API) sendCallbacks(ctx context.Context, c *call, in client.SendCallbacks) (out client.SentCallbacks, err error) {
	account, err := c.account(ctx)
	if err != nil {
		return out, err
	}
	o := store.SendOrder{
		CallbackFilter: store.CallbackFilter{Account: account, Since: in.Since, Until: in.Until, OldestFirst: true},
		Delivered:      in.Delivered, DryRun: in.DryRun, Most: sendMost,
	}
	switch {
	case in.Request == "" && in.ICCID != "":
		return out, problemf(errInvalid, "iccid needs the request, since a SIM has a callback in each")
	case in.Request == "" && in.Since.IsZero():
		return out, problemf(errInvalid, "name what to send: the request, or the time since when")
	case in.Request != "" && !(in.Since.IsZero() && in.Until.IsZero()):
		return out, problemf(errInvalid, "give the request or a time, not both")
	}
	if in.Request != "" {
		if o.Request, err = license.ParseRequestID(in.Request); err != nil {
			return out, err
		}
	}
	if in.ICCID != "" {
		if o.ICCID, err = license.ParseICCID(in.ICCID); err != nil {
			return out, err
		}
	}
	if in.Cursor != "" {
		var at taskPlace
		q := &query{values: url.Values{"cursor": {in.Cursor}}}
		if q.cursor(&at); q.err != nil {
			return out, q.err
		}
		o.After = store.CallbackPlace(at)
	}
	report, err := c.store().SendAll(ctx, o, a.cfg.Clock.Now())
	out = client.SentCallbacks{Queued: report.Queued, Changed: report.Changed, Left: map[string]int{}, DryRun: in.DryRun}
	for state, n := range report.Left {
		out.Left[string(state)] = n
	}
	if report.Next.Request != "" {
		out.NextCursor = cursorOf(taskPlace(report.Next))
	}
	return out, err
}

func listenerOf(l license.Listener) client.Listener {
	out := client.Listener{
		Account: string(l.Account), Service: l.Service, URL: l.URL, Username: l.Username,
		Signed: l.SigningSecret != "", Attempts: l.Attempts,
	}
	if l.Interval > 0 {
		out.Interval = l.Interval.String()
	}
	if l.Timeout > 0 {
		out.Timeout = l.Timeout.String()
	}
	return out
}

func listenerTag(l license.Listener) string { return tag(listenerOf(l)) }

func (a *API) listListeners(ctx context.Context, c *call) (client.Page[client.Listener], error) {
	q := c.query("account")
	return across(ctx, c, q, func(ctx context.Context, account license.AccountName, after string, n int) (list []client.Listener, next string, err error) {
		listeners, err := c.store().Listeners(ctx, account)
		for _, l := range listeners { // by service
			if l.Service <= after {
				continue
			}
			if len(list) == n {
				return list, list[n-1].Service, err
			}
			list = append(list, listenerOf(l))
		}
		return list, "", err
	})
}

// listener finds the listener in the call's path.
func (c *call) listener(ctx context.Context) (license.Listener, error) {
	account, err := c.account(ctx)
	if err != nil {
		return license.Listener{}, err
	}
	service := c.r.PathValue("service")
	l, err := c.store().Listener(ctx, account, service)
	if errors.Is(err, license.ErrNotFound) {
		err = problemf(errNotFound, "account %s has no listener for %.60s: it is registered through the compatible API", account, service)
	}
	return l, err
}

func (a *API) getListener(ctx context.Context, c *call) (client.Listener, error) {
	l, err := c.listener(ctx)
	c.etag = listenerTag(l)
	return listenerOf(l), err
}

// The bounds of what is set for a listener.
const (
	maxAttempts = 100
	maxInterval = 24 * time.Hour
	maxTimeout  = time.Minute
)

func (a *API) changeListener(ctx context.Context, c *call, in client.ListenerChange) (client.Listener, error) {
	tune, err := tuning(in)
	if err != nil {
		return client.Listener{}, err
	}
	account, err := c.account(ctx)
	if err != nil {
		return client.Listener{}, err
	}
	l, err := c.store().ChangeListener(ctx, account, c.r.PathValue("service"), func(l license.Listener) (license.Listener, error) {
		if err := c.match(listenerTag(l)); err != nil {
			return l, err
		}
		tune(&l)
		return l, nil
	})
	c.etag = listenerTag(l)
	return listenerOf(l), err
}

// tuning checks a change and makes a function of it.
func tuning(in client.ListenerChange) (func(*license.Listener), error) {
	interval, err := duration("interval", in.Interval, maxInterval)
	if err != nil {
		return nil, err
	}
	timeout, err := duration("timeout", in.Timeout, maxTimeout)
	if err != nil {
		return nil, err
	}
	if in.Attempts != nil && (*in.Attempts < 0 || *in.Attempts > maxAttempts) {
		return nil, problemf(errInvalid, "attempts %d: it is 1 to %d, or 0 for the server's own", *in.Attempts, maxAttempts)
	}
	if s := in.SigningSecret; s != nil && *s != "" {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(*s, secretPrefix))
		if err != nil || !strings.HasPrefix(*s, secretPrefix) || len(key) < 24 || len(key) > 64 {
			return nil, problemf(errInvalid, "signingSecret must be %s and 24 to 64 bytes in base64", secretPrefix)
		}
	}
	return func(l *license.Listener) {
		if in.Attempts != nil {
			l.Attempts = *in.Attempts
		}
		if in.Interval != nil {
			l.Interval = interval
		}
		if in.Timeout != nil {
			l.Timeout = timeout
		}
		if in.SigningSecret != nil {
			l.SigningSecret = *in.SigningSecret
		}
	}, nil
}

func duration(name string, text *string, most time.Duration) (time.Duration, error) {
	if text == nil {
		return 0, nil
	}
	d, err := time.ParseDuration(*text)
	if err != nil || d < 0 || d > most {
		return 0, problemf(errInvalid, "%s %.40q: it is a time such as 30s, at most %s, or 0s for the server's own", name, *text, most)
	}
	return d, nil
}

func (a *API) removeListener(ctx context.Context, c *call) (out none, err error) {
	account, err := c.account(ctx)
	if err != nil {
		return out, err
	}
	return out, c.store().RemoveListener(ctx, account, c.r.PathValue("service"), func(l license.Listener) error {
		return c.match(listenerTag(l))
	})
}

// secretPrefix marks a signing secret of Standard Webhooks.
const secretPrefix = "whsec_"

// newSigningSecret has a listener's messages signed with a new secret, which is
// shown this once.
func (a *API) newSigningSecret(ctx context.Context, c *call) (out client.SigningSecret, err error) {
	account, err := c.account(ctx)
	if err != nil {
		return out, err
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	out.Secret = secretPrefix + base64.StdEncoding.EncodeToString(key)
	_, err = c.store().ChangeListener(ctx, account, c.r.PathValue("service"), func(l license.Listener) (license.Listener, error) {
		l.SigningSecret = out.Secret
		return l, nil
	})
	return out, err
}

// testListener sends a listener a message that is about no device. That it was
// not acknowledged is no problem of the call's.
func (a *API) testListener(ctx context.Context, c *call) (out client.Tested, err error) {
	l, err := c.listener(ctx)
	if err != nil {
		return out, err
	}
	d := a.cfg.Tester.Test(ctx, l)
	return client.Tested{
		OK: d.Verdict == license.Delivered, WebhookID: d.Callback.WebhookID(), Status: d.Status,
		LatencyMS: milliseconds(d.Latency), Answer: strings.ToValidUTF8(string(d.Answer), "\uFFFD"),
	}, nil
}

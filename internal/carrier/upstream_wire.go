package carrier

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// trace is what happened on the wire to a request for licenses.
type trace struct {
	reached   bool        // it was about to be sent: there were a token and a session
	connected atomic.Bool // the last time it was, there was a connection: it may have arrived
	status    int         // of its last answer; 0: there was none
	last      bool        // it was what was called last
}

type traceKey struct{}

// licenseRequests is the end of the path of what is traced.
const licenseRequests = "/devices/license/actions/assign"

// onceTransport sends everything once. The standard transport by itself repeats
// a request whose connection breaks, if that has an Idempotency-Key, which the
// reference does not know.
type onceTransport struct {
	u     *Upstream
	next  http.RoundTripper
	fresh http.RoundTripper // makes a connection for each request, so that none breaks for its age
}

func newOnceTransport(u *Upstream) *onceTransport {
	next := &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true,
		MaxIdleConnsPerHost: 16, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second,
	}
	fresh := next.Clone()
	fresh.DisableKeepAlives = true
	t := &onceTransport{u: u, next: hushing{u, next}, fresh: hushing{u, fresh}}
	if u.cfg.Observe != nil {
		t.next, t.fresh = u.cfg.Observe(t.next), u.cfg.Observe(t.fresh)
	}
	return t
}

// RoundTrip implements http.RoundTripper.
func (t *onceTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	seen, _ := r.Context().Value(traceKey{}).(*trace)
	if seen == nil {
		seen = &trace{}
	}
	next := t.next
	if seen.last = strings.HasSuffix(r.URL.Path, licenseRequests); seen.last {
		next = t.fresh
		seen.reached, seen.status = true, 0
		seen.connected.Store(false)
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
			GotConn: func(httptrace.GotConnInfo) { seen.connected.Store(true) },
		}))
		r.GetBody = nil // it is our copy
	}
	resp, err := next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if seen.last {
		seen.status = resp.StatusCode
	}
	if resp.Header.Get(m2m.ServerHeader) != "" {
		t.u.simlatch.Store(true)
	}
	resp.Body = &boundedBody{ReadCloser: resp.Body, left: maxUpstreamAnswer}
	return resp, nil
}

// hushing blots our secrets out of what an upstream says instead of an answer, since it
// may show what it was sent, and its words come into logs, callbacks, the console and
// recorded exchanges.
type hushing struct {
	u    *Upstream
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (h hushing) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := h.next.RoundTrip(r)
	switch {
	case err != nil:
	case resp.StatusCode == http.StatusSwitchingProtocols: // its body is the bare connection, which no time limit is for
		_ = resp.Body.Close()
		resp.Body = http.NoBody
	case resp.StatusCode >= http.StatusMultipleChoices:
		h.u.hush(r, resp)
	}
	if err == nil && strings.HasSuffix(r.URL.Path, licenseRequests) {
		unlessTwice(resp)
	}
	return resp, err
}

// unlessTwice takes the body away from an answer that says two things, as one with a
// member twice does: readers differ in which they believe.
func unlessTwice(resp *http.Response) {
	said, err := io.ReadAll(&boundedBody{ReadCloser: resp.Body, left: maxUpstreamAnswer})
	if err == nil && !jsontext.Value(said).IsValid() {
		said = nil
	}
	resp.Body = hushed{io.MultiReader(bytes.NewReader(said), failed{err}), resp.Body}
}

// shortSecret is what is not blotted out: words of the upstream's own may contain it,
// and they decide.
const shortSecret = 8

func (u *Upstream) hush(r *http.Request, resp *http.Response) {
	said, err := io.ReadAll(&boundedBody{ReadCloser: resp.Body, left: maxUpstreamAnswer})
	_, sent, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	secrets := []string{sent, r.Header.Get(m2m.SessionHeader)}
	switch parent, last := path.Split(r.URL.Path); {
	case strings.Contains(parent, "/callbacks/"):
		secrets = append(secrets, u.password(u.ours(last)))
	case last == "token", last == "login":
		secrets = append(secrets, u.cfg.Secret, u.cfg.Password)
	}
	for _, secret := range secrets {
		if len(secret) >= shortSecret {
			said = bytes.ReplaceAll(said, []byte(secret), []byte("********"))
		}
	}
	resp.Body = hushed{io.MultiReader(bytes.NewReader(said), failed{err}), resp.Body}
	resp.ContentLength = -1
}

// ours is the name here of an account there.
func (u *Upstream) ours(theirs string) license.AccountName {
	for ours, name := range u.cfg.Accounts {
		if name == theirs {
			return ours
		}
	}
	return license.AccountName(theirs)
}

// hushed is a body that was changed.
type hushed struct {
	io.Reader
	io.Closer
}

// failed is the end of a body that could not be read to its end; nil is io.EOF.
type failed struct{ err error }

// Read implements io.Reader.
func (f failed) Read([]byte) (int, error) { return 0, cmp.Or(f.err, io.EOF) }

// maxUpstreamAnswer is the largest answer that is read: no list of devices is
// among them.
const maxUpstreamAnswer = 1 << 20

// boundedBody is the beginning of a body, and an error where that is not all.
type boundedBody struct {
	io.ReadCloser

	left int
}

var errAnswerTooLarge = errors.New("the upstream's answer is too large")

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errAnswerTooLarge
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// pace waits until another call may be made. It fails when there is not enough
// time for one before ctx ends.
func (u *Upstream) pace(ctx context.Context) error {
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, end.Add(-u.cfg.Timeout))
		defer cancel()
	}
	return u.limit.Wait(ctx)
}

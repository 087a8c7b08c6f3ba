package carrier

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"

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
	t := &onceTransport{u: u, next: next, fresh: fresh}
	if u.cfg.Observe != nil {
		t.next, t.fresh = u.cfg.Observe(next), u.cfg.Observe(fresh)
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

package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/simlatch/simlatch/internal/license"
)

// TestOverload fills a node with calls and has it turn further ones away: those of
// whoever has half of it, then all. What was accepted ends well, and the node is as
// it was.
func TestOverload(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.MaxCalls = 4 })
	begun, end := make(chan struct{}), make(chan struct{})
	h.licenses.accept = func(_ context.Context, p license.AcceptParams) (license.Accepted, error) {
		begun <- struct{}{}
		<-end
		return license.Accepted{ID: p.Request.ID}, nil
	}
	apps := []string{h.bearer, h.token("app2")}
	sessions := []string{h.session, h.login(apps[1], "demo")}
	call := func(app int) answer {
		return h.do("POST", assign, licenseJSON("SIMSec-IoT", device(1)),
			header("Authorization", "Bearer "+apps[app]), header("VZ-M2M-Token", sessions[app]))
	}
	var calls sync.WaitGroup
	fill := func(app int) {
		for range 2 {
			calls.Go(func() {
				if a := call(app); a.StatusCode != http.StatusOK {
					t.Errorf("a call that there was room for: %s", a)
				}
			})
			<-begun
		}
	}
	fill(0)
	a := call(0)
	if a.StatusCode != http.StatusTooManyRequests || a.Header.Get("Retry-After") != "1" || a.code(t) != codeTooManyCalls {
		t.Errorf("a third call of four at once of one application: %s, Retry-After %q", a, a.Header.Get("Retry-After"))
	}
	fill(1)
	for app := range apps {
		a := call(app)
		if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") != "1" || a.code(t) != codeUnavailable {
			t.Errorf("a fifth call of four at once: %s, Retry-After %q", a, a.Header.Get("Retry-After"))
		}
	}
	if n := len(h.licenses.accepted); n != 4 {
		t.Errorf("%d requests came to be accepted, want 4: what is turned away must cost nothing", n)
	}
	close(end)
	calls.Wait()
	h.licenses.accept = nil
	for app := range apps {
		if a := call(app); a.StatusCode != http.StatusOK {
			t.Errorf("after the overload: %s", a)
		}
	}
	if now := h.api.admission.now(); now != (held{}) || len(h.api.admission.byApp) != 0 {
		t.Errorf("%+v is held when nobody calls", now)
	}
	if h.logs.Len() > 0 {
		t.Errorf("calls that were turned away fill the log:\n%s", h.logs)
	}
}

// TestBodiesInFlight has clients send large bodies and not end them.
func TestBodiesInFlight(t *testing.T) {
	h := newHarness(t)
	h.api.admission.most.bytes = 3 * maxBody // each application has room for one and a half
	apps := []string{h.bearer, h.token("app2")}
	sessions := []string{h.session, h.login(apps[1], "demo")}
	call := func(app int, body io.Reader) answer {
		return h.do("POST", assign, "{}", func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(body), -1 },
			header("Authorization", "Bearer "+apps[app]), header("VZ-M2M-Token", sessions[app]))
	}
	large := strings.Repeat(" ", maxBody-1)
	var calls sync.WaitGroup
	hold := func(app int) (end func()) {
		r, w := io.Pipe()
		calls.Go(func() {
			if a := call(app, r); a.StatusCode != http.StatusBadRequest {
				t.Errorf("a body that was taken: %s", a)
			}
		})
		if _, err := io.WriteString(w, large); err != nil { // taken when it returns
			t.Error(err)
		}
		return func() { _ = w.Close() }
	}
	ends := []func(){hold(0)}
	if a := call(0, strings.NewReader(large)); a.StatusCode != http.StatusTooManyRequests || a.Header.Get("Retry-After") != "1" {
		t.Errorf("a second body of an application with room for one: %s", a)
	}
	if a := call(0, strings.NewReader(licenseJSON("SIMSec-IoT", device(1)))); a.StatusCode != http.StatusOK {
		t.Errorf("a small body beside it: %s", a)
	}
	ends = append(ends, hold(1))
	if now := h.api.admission.now(); now.bytes < 2*int64(len(large)) || now.bytes > 3*maxBody || now.calls != 0 {
		t.Errorf("two bodies of %d bytes hold %+v; a client that sends takes no place", len(large), now)
	}
	for _, end := range ends {
		end()
	}
	calls.Wait()
	if now := h.api.admission.now(); now != (held{}) {
		t.Errorf("%+v is held when nobody calls", now)
	}
}

// TestAdmission holds the bounds under calls from everywhere.
func TestAdmission(t *testing.T) {
	a := newAdmission(10, 4*maxBody)
	var callers sync.WaitGroup
	for i := range 40 {
		callers.Go(func() {
			app := fmt.Sprint(i % 3)
			for n := range 500 {
				h := held{calls: n % 2, bytes: int64(n%7) << 20}
				if a.enter(app, h) != nil {
					continue
				}
				a.mu.Lock()
				if own := a.byApp[app]; a.all.calls > 10 || a.all.bytes > 4*maxBody || own.calls > 5 || own.bytes > 2*maxBody {
					t.Errorf("%+v is held, %+v of one application", a.all, own)
				}
				a.mu.Unlock()
				a.leave(app, h)
			}
		})
	}
	callers.Wait()
	if now := a.now(); now != (held{}) || len(a.byApp) != 0 {
		t.Errorf("%+v is held in the end", now)
	}
}

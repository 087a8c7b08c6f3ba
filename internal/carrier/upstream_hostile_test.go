package carrier

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// endless writes until the caller has enough.
func endless(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := w.Write([]byte(strings.Repeat("x", 64<<10))); err != nil {
			return
		}
	}
}

// dripBlanks writes a blank from time to time, until the caller has enough.
func dripBlanks(w http.ResponseWriter, r *http.Request) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, _ = w.Write([]byte(" "))
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

// switches leaves the caller with a bare connection, and waits for it to end.
func switches(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Connection", "Upgrade")
	w.Header().Set("Upgrade", "x")
	w.WriteHeader(http.StatusSwitchingProtocols)
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}
}

// said answers with a status and a body.
func said(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

// TestHostileUpstream has each call that surrounds a request for licenses met by what
// is no answer to it, three times: nothing hangs, nothing is refused to anybody, no
// other address is told our credentials, and afterwards all is done once.
func TestHostileUpstream(t *testing.T) {
	var led atomic.Int64
	trap := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { led.Add(1) }))
	t.Cleanup(trap.Close)
	away := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, trap.URL+r.URL.Path, status)
		}
	}
	for name, misbehave := range map[string]http.HandlerFunc{
		"garbage":            said(200, "<html>"),
		"nothing":            said(200, ""),
		"a list":             said(200, "[]"),
		"others' types":      said(200, `{"access_token": 7, "sessionToken": [], "requestId": {}, "status": 1}`),
		"a 500 without text": said(500, ""),
		"refused in form":    said(400, `{"errorCode": "UnifiedWebService.REQUEST_FAILED.CarrierRequestUnsuccessful", "errorMessage": "No."}`),
		"never ends":         endless,
		"drips":              dripBlanks,
		"hangs":              func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"reset":              func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"redirected":         away(http.StatusFound),
		"redirected, kept":   away(http.StatusPermanentRedirect),
		"large headers": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Large", strings.Repeat("x", 11<<20))
		},
		"switches protocols": switches,
	} {
		for _, where := range []string{"/oauth2/token", "/session/login", "/callbacks/", "/status"} {
			t.Run(where+" "+name, func(t *testing.T) {
				t.Parallel()
				p := newPlatform(t)
				var met atomic.Int64
				p.front = func(w http.ResponseWriter, r *http.Request) bool {
					if !strings.Contains(r.URL.Path, where) || met.Add(1) > 3 {
						return false
					}
					_, _ = io.Copy(io.Discard, r.Body) // or nobody would see that the caller is gone
					misbehave(w, r)
					return true
				}
				p.silent = endsWith("") // so that the status is asked for
				p.status["remote-1"] = m2m.StatusSuccess
				g := newGuard(t, p, nil)
				tasks := someTasks(3, license.Assign, upstreamStart)
				done := false
				for range 30 { // half an hour each
					n := g.tally(t, tasks)
					if n[license.Refused]+n[license.Stuck] > 0 {
						t.Fatalf("%v, want none refused", n)
					}
					if done = n[license.Done] == 3; done {
						break
					}
					g.clock.turn(30 * time.Minute)
				}
				if !done || met.Load() < 1 {
					t.Errorf("done: %t, met %d times", done, met.Load())
				}
				if d, n := p.doubled(); d != nil || n != 1 {
					t.Errorf("%d requests, asked for twice: %v", n, d)
				}
			})
		}
	}
	t.Cleanup(func() {
		if n := led.Load(); n > 0 {
			t.Errorf("%d redirects were followed", n)
		}
	})
}

// TestUpstreamSpeaksUnasked has callbacks come before anything was asked, and for what
// was never asked, with the right password: nothing comes of them.
func TestUpstreamSpeaksUnasked(t *testing.T) {
	p := newPlatform(t)
	p.silent = endsWith("")
	g := newGuard(t, p, nil)
	tasks := someTasks(2, license.Assign, upstreamStart)
	yes := func(remote string, of license.Task, account license.AccountName) m2m.CallbackMessage {
		m := p.message(remote, string(of.Device.ICCID), string(account), string(of.SKU), "Assign")
		m.Username, m.Password = callbackUser, g.password(account)
		return m
	}
	base := strings.TrimSuffix(g.cfg.CallbackURL, "/") + "/"
	post := func(account license.AccountName, m m2m.CallbackMessage) int {
		p.listener.URL = base + string(account)
		return p.post(m)
	}
	const other = license.AccountName("0000123456-00002")
	if got := post(tasks[0].Account, yes("remote-1", tasks[0], tasks[0].Account)); got != http.StatusOK {
		t.Errorf("before anything was asked: %d", got)
	}
	if n := g.tally(t, tasks); n[license.Later] != 2 {
		t.Fatalf("%v, want both to be waited for", n)
	}
	for name, try := range map[string]struct {
		path license.AccountName
		m    m2m.CallbackMessage
	}{
		"a request never made": {tasks[0].Account, yes("remote-99", tasks[0], tasks[0].Account)},
		"another account":      {other, yes("remote-1", tasks[0], other)},
		"a SIM never named":    {tasks[0].Account, yes("remote-1", someTasks(9, license.Assign, upstreamStart)[8], tasks[0].Account)},
	} {
		if got := post(try.path, try.m); got != http.StatusOK {
			t.Errorf("%s: %d, want 200: it would say the same again", name, got)
		}
		if n := g.tally(t, tasks); n[license.Later] != 2 {
			t.Fatalf("%s: %v, want nothing to have ended", name, n)
		}
	}
	stolen := yes("remote-1", tasks[0], tasks[0].Account)
	stolen.Password = g.password(other)
	if got := post(tasks[0].Account, stolen); got != http.StatusUnauthorized {
		t.Errorf("with another account's password: %d", got)
	}
}

// TestUpstreamContradictsItself: a status, a callback and a requestId that stands for
// two requests say different things. What was said first of a device stands, and a
// request that is named as another one ends by no word about that.
func TestUpstreamContradictsItself(t *testing.T) {
	p := newPlatform(t)
	p.silent = endsWith("")
	p.meet = func(w http.ResponseWriter, _ *http.Request, carryOut func() string) bool {
		carryOut()
		p.answer(w, 200, m2m.RequestAccepted{RequestID: "remote-1"}) // always
		return true
	}
	g := newGuard(t, p, nil)
	assign := someTasks(2, license.Assign, upstreamStart)
	if n := g.tally(t, assign); n[license.Later] != 2 {
		t.Fatalf("%v", n)
	}
	say := func(action, status string) {
		m := p.message("remote-1", string(assign[0].Device.ICCID), string(assign[0].Account), string(assign[0].SKU), action)
		if m.Status = status; status == m2m.CallbackFailed {
			m.DeviceResponse, m.FaultResponse = nil, &m2m.FaultResponse{FaultCode: "X.REQUEST_FAILED.Y", FaultString: "No."}
		}
		if got := p.post(m); got != http.StatusOK {
			t.Errorf("%s %s: %d", action, status, got)
		}
	}
	say("Assign", m2m.CallbackFailed)
	p.mu.Lock()
	p.status["remote-1"] = m2m.StatusSuccess // of a request one of whose devices failed
	p.mu.Unlock()
	say("Assign", m2m.CallbackSuccess)
	g.clock.turn(2 * time.Hour)
	g.tally(t, assign)
	out, err := g.Provision(t.Context(), assign)
	if err != nil || out[0].Verdict != license.Refused {
		t.Errorf("the device that failed first: %v, %v", out[0].Verdict, err)
	}
	if out[1].Verdict == license.Refused {
		t.Errorf("the device nothing was said of: %v", out[1].Verdict)
	}
	// The same name for what was asked later.
	unassign := someTasks(1, license.Unassign, upstreamStart.Add(time.Hour))
	unassign[0].Device = assign[1].Device
	if n := g.tally(t, unassign); n[license.Later] != 1 {
		t.Fatalf("%v", n)
	}
	m := p.message("remote-1", string(assign[1].Device.ICCID), string(assign[1].Account), string(assign[1].SKU), "Assign")
	p.post(m)
	if n := g.tally(t, unassign); n[license.Done]+n[license.Refused] > 0 {
		t.Errorf("a word about assigning ended an unassignment: %v", n)
	}
}

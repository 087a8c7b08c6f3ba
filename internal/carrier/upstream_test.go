package carrier

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

func TestUpstreamConformance(t *testing.T) {
	for _, simlatch := range []bool{false, true} {
		testConformance(t, func(t *testing.T) Provisioner {
			p := newPlatform(t)
			p.simlatch, p.refused = simlatch, endsWith("3")
			return patientGuard{newGuard(t, p, func(c *UpstreamConfig) { c.Timeout = 5 * time.Second })}
		})
	}
}

// A request that is refused because of some devices is taken apart until they are
// known; all others go through, and none is asked for twice.
func TestUpstreamSplit(t *testing.T) {
	p := newPlatform(t)
	p.held = endsWith("0000017", "0000018", "0000244")
	g := newGuard(t, p, nil)
	tasks := someTasks(250, license.Assign, upstreamStart)
	out, err := g.ended(t.Context(), tasks)
	if err != nil {
		t.Fatal(err)
	}
	var refused []license.ICCID
	for _, o := range out {
		if o.Verdict == license.Refused {
			refused = append(refused, o.Task.Device.ICCID)
			if o.Code != m2m.ErrLicenseHeld.Code || o.Comment != m2m.ErrLicenseHeld.Message {
				t.Errorf("refused with %q, %q", o.Code, o.Comment)
			}
		}
	}
	if diff := cmp.Diff([]license.ICCID{tasks[17].Device.ICCID, tasks[18].Device.ICCID, tasks[244].Device.ICCID}, refused); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
	if d, _ := p.doubled(); d != nil {
		t.Errorf("asked for twice: %v", d)
	}
}

// What was answered by nothing, or by nothing that can be understood, may have
// been done: the reference is never asked for it again, whatever the SKU, and
// only a definite word ends it.
func TestUpstreamUnknown(t *testing.T) {
	garbage := func(status int, body string) func(http.ResponseWriter, *http.Request, func() string) bool {
		return func(w http.ResponseWriter, _ *http.Request, carryOut func() string) bool {
			carryOut()
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
			return true
		}
	}
	for name, meet := range map[string]func(http.ResponseWriter, *http.Request, func() string) bool{
		"garbage":          garbage(200, "<html>"),
		"no requestId":     garbage(200, "{}"),
		"no text":          garbage(200, `{"requestId": 7}`),
		"10 MB":            garbage(200, `{"requestId": "`+strings.Repeat("x", 10<<20)+`"}`),
		"two requestIds":   garbage(200, `{"requestId": "remote-1", "requestId": "remote-2"}`),
		"two refusals":     garbage(400, `{"errorCode": "UnifiedWebService.REQUEST_FAILED.X", "errorCode": "UnifiedWebService.REQUEST_FAILED.UnexpectedError"}`),
		"a long requestId": garbage(200, `{"requestId": "`+strings.Repeat("x", 1000)+`"}`),
		"400 of a proxy":   garbage(400, "<html>Bad Request</html>"),
		"500":              garbage(500, `{"errorCode": "UnifiedWebService.REQUEST_FAILED.UnexpectedError"}`),
		"502":              garbage(502, ""),
		"503":              garbage(503, ""),
		"redirect":         garbage(307, ""),
		"reset": func(_ http.ResponseWriter, _ *http.Request, carryOut func() string) bool {
			carryOut()
			panic(http.ErrAbortHandler)
		},
		"never ends": func(w http.ResponseWriter, r *http.Request, carryOut func() string) bool {
			carryOut()
			_, _ = w.Write([]byte(`{"requestId": "`))
			endless(w, r)
			return true
		},
		"switches protocols": func(w http.ResponseWriter, r *http.Request, carryOut func() string) bool {
			carryOut()
			switches(w, r)
			return true
		},
		"drips": func(w http.ResponseWriter, r *http.Request, carryOut func() string) bool {
			carryOut()
			dripBlanks(w, r)
			return true
		},
		"hangs": func(_ http.ResponseWriter, r *http.Request, carryOut func() string) bool {
			carryOut()
			<-r.Context().Done()
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, sku := range []license.SKU{license.SKULifetime, license.SKUFlexible} {
				p := newPlatform(t)
				p.meet, p.silent = meet, endsWith("1")
				g := newGuard(t, p, nil)
				tasks := someTasks(2, license.Assign, upstreamStart)
				for i := range tasks {
					tasks[i].SKU = sku
				}
				if n := g.tally(t, tasks); n[license.Retry] != 2 {
					t.Fatalf("%s: %v, want 2 to be asked about", sku, n)
				}
				p.sent() // one callback tells
				g.clock.turn(time.Minute)
				for range 3 {
					if n := g.tally(t, tasks); n[license.Done] != 1 || n[license.Retry] != 1 {
						t.Errorf("%s: %v, want one done by its callback and one unknown", sku, n)
					}
				}
				g.clock.turn(24 * time.Hour)
				if n := g.tally(t, tasks); n[license.Done] != 1 || n[license.Stuck] != 1 {
					t.Errorf("%s: a day later %v, want one stuck", sku, n)
				}
				if d, _ := p.doubled(); d != nil {
					t.Errorf("%s: asked for twice: %v", sku, d)
				}
			}
		})
	}
}

// A Simlatch is asked again under the same key.
func TestUpstreamReplay(t *testing.T) {
	p := newPlatform(t)
	p.simlatch = true
	lost := 0
	p.meet = func(_ http.ResponseWriter, _ *http.Request, carryOut func() string) bool {
		if lost++; lost > 3 {
			return false
		}
		if lost == 3 {
			carryOut()
		}
		panic(http.ErrAbortHandler)
	}
	g := newGuard(t, p, nil)
	tasks := someTasks(50, license.Assign, upstreamStart)
	for i := range 3 {
		for range 2 { // until nobody waits for the answer any more, it is not sent again
			n := g.tally(t, tasks)
			p.mu.Lock()
			if n[license.Refused]+n[license.Stuck] > 0 || lost != i+1 {
				t.Errorf("%v, sent %d times, want %d", n, lost, i+1)
			}
			p.mu.Unlock()
		}
		g.clock.turn(time.Second)
	}
	out, err := g.ended(t.Context(), tasks)
	if err != nil || len(out) != 50 {
		t.Fatalf("%d ended, %v", len(out), err)
	}
	if d, n := p.doubled(); d != nil || n != 1 {
		t.Errorf("%d requests, asked for twice: %v", n, d)
	}
}

// That a request was not done when it was sent again says nothing of the first
// time.
func TestUpstreamReplayRefused(t *testing.T) {
	for _, status := range []int{401, 403, 429, 503} {
		p := newPlatform(t)
		p.simlatch, p.silent = true, endsWith("")
		sent := 0
		p.meet = func(w http.ResponseWriter, _ *http.Request, carryOut func() string) bool {
			switch sent++; sent {
			case 1:
				carryOut()
				panic(http.ErrAbortHandler)
			case 2, 3, 4: // it is tried with new tokens
				w.WriteHeader(status)
				return true
			}
			return false
		}
		g := newGuard(t, p, nil)
		tasks := someTasks(3, license.Assign, upstreamStart)
		for range 6 {
			if n := g.tally(t, tasks); n[license.Done]+n[license.Refused]+n[license.Stuck] > 0 {
				t.Errorf("%d: %v", status, n)
			}
			g.clock.turn(10 * time.Minute)
		}
		p.mu.Lock()
		p.status["remote-1"] = m2m.StatusSuccess
		p.mu.Unlock()
		g.clock.turn(time.Hour)
		if out, err := g.ended(t.Context(), tasks); err != nil || out[0].Verdict != license.Done {
			t.Errorf("%d: %v", status, err)
		}
		if d, n := p.doubled(); d != nil || n != 1 {
			t.Errorf("%d: %d requests, asked for twice: %v", status, n, d)
		}
	}
}

// What certainly was not done is kept and done later.
func TestUpstreamNotDone(t *testing.T) {
	for _, tt := range []struct {
		status int
		body   string
	}{{401, ""}, {403, ""}, {404, "not here"}, {429, ""}, {400, `{"errorCode": "UnifiedWebService.REQUEST_FAILED.SessionToken.Expired"}`}} {
		p := newPlatform(t)
		for range 3 {
			p.meet = func(w http.ResponseWriter, _ *http.Request, _ func() string) bool {
				w.WriteHeader(tt.status)
				_, _ = w.Write([]byte(tt.body))
				return true
			}
		}
		g := newGuard(t, p, nil)
		tasks := someTasks(150, license.Assign, upstreamStart)
		for range 12 { // an hour
			if n := g.tally(t, tasks); n[license.Retry] != 150 {
				t.Errorf("%d: %v, want all to be asked for again", tt.status, n)
			}
			g.clock.turn(5 * time.Minute)
		}
		p.mu.Lock()
		p.meet = nil
		p.mu.Unlock()
		g.clock.turn(time.Hour)
		if out, err := g.ended(t.Context(), tasks); err != nil || out[0].Verdict != license.Done {
			t.Errorf("%d: in the end %v", tt.status, err)
		}
		if d, _ := p.doubled(); d != nil {
			t.Errorf("%d: asked for twice: %v", tt.status, d)
		}
	}
}

// Where there are too few licenses, what there is goes to some, and the others
// are refused after a while.
func TestUpstreamShort(t *testing.T) {
	p := newPlatform(t)
	p.licenses = 37
	g := newGuard(t, p, nil)
	tasks := someTasks(100, license.Assign, upstreamStart)
	for range 20 {
		g.tally(t, tasks)
	}
	p.sent()
	if n := g.tally(t, tasks); n[license.Done] < 30 || n[license.Refused] != 0 {
		t.Errorf("%v, want most of 37 done and none refused", n)
	}
	g.clock.turn(time.Hour)
	out, err := g.ended(t.Context(), tasks)
	if err != nil {
		t.Fatal(err)
	}
	done := 0
	for _, o := range out {
		switch o.Verdict {
		case license.Done:
			done++
		default:
			if o.Code != m2m.ErrInsufficientLicense.Code {
				t.Errorf("refused with %q, %q", o.Code, o.Comment)
			}
		}
	}
	if done != 37 {
		t.Errorf("%d done, want 37", done)
	}
}

// When callbacks do not come, the request's status is asked for.
func TestUpstreamStatus(t *testing.T) {
	for _, tt := range []struct {
		status    string
		n         int
		want      license.Verdict
		wantLater license.Verdict // a day later
	}{
		{m2m.StatusSuccess, 3, license.Done, license.Done},
		{m2m.StatusPending, 3, license.Later, license.Stuck},
		{m2m.StatusFailure, 3, license.Later, license.Stuck}, // whose failure?
		{m2m.StatusFailure, 1, license.Refused, license.Refused},
		{"", 3, license.Later, license.Stuck}, // it may not be asked for
	} {
		p := newPlatform(t)
		p.silent = endsWith("")
		p.status["remote-1"] = tt.status
		g := newGuard(t, p, nil)
		tasks := someTasks(tt.n, license.Assign, upstreamStart)
		if n := g.tally(t, tasks); n[license.Later] != tt.n {
			t.Errorf("%q: at first %v", tt.status, n)
		}
		g.clock.turn(30 * time.Minute)
		g.tally(t, tasks)
		if n := g.tally(t, tasks); n[tt.want] != tt.n {
			t.Errorf("%q: %v, want all %v", tt.status, n, tt.want)
		}
		g.clock.turn(24 * time.Hour)
		if n := g.tally(t, tasks); n[tt.wantLater] != tt.n {
			t.Errorf("%q: a day later %v, want all %v", tt.status, n, tt.wantLater)
		}
	}
}

// Only a callback that says clearly what was asked for ends anything, and the
// first that does stands.
func TestUpstreamCallbacks(t *testing.T) {
	p := newPlatform(t)
	p.silent = endsWith("")
	g := newGuard(t, p, nil)
	tasks := someTasks(2, license.Assign, upstreamStart)
	g.tally(t, tasks)
	good := func(change func(*m2m.CallbackMessage)) m2m.CallbackMessage {
		m := p.message("remote-1", string(tasks[0].Device.ICCID), string(tasks[0].Account), string(tasks[0].SKU), "Assign")
		change(&m)
		return m
	}
	for name, m := range map[string]m2m.CallbackMessage{
		"unsure":           good(func(m *m2m.CallbackMessage) { m.Status = "Pending" }),
		"no response":      good(func(m *m2m.CallbackMessage) { m.DeviceResponse = nil }),
		"yes and no":       good(func(m *m2m.CallbackMessage) { m.FaultResponse = &m2m.FaultResponse{FaultCode: "X"} }),
		"no and yes":       good(func(m *m2m.CallbackMessage) { m.Status = m2m.CallbackFailed }),
		"another SKU":      good(func(m *m2m.CallbackMessage) { m.DeviceResponse.DeviceSKUSubscriptionResponse.SKUNumber = "X" }),
		"another action":   good(func(m *m2m.CallbackMessage) { m.DeviceResponse.DeviceSKUSubscriptionResponse.Action = "Unassign" }),
		"another account":  good(func(m *m2m.CallbackMessage) { m.DeviceResponse.DeviceSKUSubscriptionResponse.AccountName = "X" }),
		"another device":   good(func(m *m2m.CallbackMessage) { m.DeviceIDs[0].ID = "89148000000000000999" }),
		"no device":        good(func(m *m2m.CallbackMessage) { m.DeviceIDs = nil }),
		"another request":  good(func(m *m2m.CallbackMessage) { m.RequestID = "remote-2" }),
		"no such password": good(func(m *m2m.CallbackMessage) { m.Password = "guess" }),
	} {
		want := http.StatusOK
		if name == "no such password" {
			want = http.StatusUnauthorized
		}
		if got := p.post(m); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
		if n := g.tally(t, tasks); n[license.Later] != 2 {
			t.Fatalf("%s: %v, want nothing to have ended", name, n)
		}
	}
	yes := good(func(*m2m.CallbackMessage) {})
	no := good(func(m *m2m.CallbackMessage) {
		m.Status, m.DeviceResponse, m.FaultResponse = m2m.CallbackFailed, nil, &m2m.FaultResponse{FaultCode: "X", FaultString: "No."}
	})
	for _, m := range []m2m.CallbackMessage{yes, yes, no, yes} {
		if got := p.post(m); got != http.StatusOK {
			t.Errorf("%d, want 200", got)
		}
		if n := g.tally(t, tasks); n[license.Done] != 1 || n[license.Later] != 1 {
			t.Errorf("%v, want what was said first", n)
		}
	}
}

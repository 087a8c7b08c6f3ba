package carrier

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/m2m"
)

// turned is a clock that tests turn.
type turned struct {
	mu  sync.Mutex // guards now
	now time.Time
}

func (c *turned) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *turned) After(d time.Duration) <-chan time.Time { return time.After(d) }

func (c *turned) turn(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// platform is an upstream. It does what the reference does, unless a test says
// otherwise.
type platform struct {
	t      *testing.T
	server *httptest.Server

	// front, when not nil, may answer any call in the platform's place.
	front func(w http.ResponseWriter, r *http.Request) bool
	// meet, when not nil, may answer a request for licenses in the platform's
	// place; it says so by true. carryOut does what the platform would, without an
	// answer.
	meet func(w http.ResponseWriter, r *http.Request, carryOut func() string) bool
	// silent are devices whose callbacks do not come, refused those that are
	// refused by callback, held those for which a request is refused as a whole.
	silent, refused, held func(iccid string) bool
	simlatch              bool // it says that it is a Simlatch, and obeys Idempotency-Key
	licenses              int  // that there are; below zero: enough

	mu       sync.Mutex // guards what follows
	listener m2m.ListenerRequest
	did      map[string]int // how often a license was asked for, by device and action
	requests int
	keys     map[string]string // the requestId of each Idempotency-Key
	status   map[string]string // of requests that may be asked for
	sending  sync.WaitGroup
}

func newPlatform(t *testing.T) *platform {
	t.Helper()
	no := func(string) bool { return false }
	p := &platform{
		t: t, silent: no, refused: no, held: no, licenses: -1,
		did: map[string]int{}, keys: map[string]string{}, status: map[string]string{},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/ts/v1/oauth2/token", func(w http.ResponseWriter, _ *http.Request) {
		p.answer(w, 200, m2m.TokenAnswer{AccessToken: "token", ExpiresIn: 3600})
	})
	mux.HandleFunc("POST /api/m2m/v1/session/login", func(w http.ResponseWriter, _ *http.Request) {
		p.answer(w, 200, m2m.SessionAnswer{SessionToken: "session"})
	})
	mux.HandleFunc("POST /api/m2m/v1/callbacks/{account}", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.read(r, &p.listener)
		p.answer(w, 200, m2m.ListenerAnswer{AccountName: r.PathValue("account"), ServiceName: p.listener.Name})
	})
	mux.HandleFunc("/api/m2m/v1/devices/license/actions/assign", p.license)
	mux.HandleFunc("GET /api/m2m/v1/accounts/{account}/requests/{id}/status", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if s := p.status[r.PathValue("id")]; s != "" {
			p.answer(w, 200, m2m.RequestStatus{RequestID: r.PathValue("id"), Status: s})
			return
		}
		p.refuse(w, m2m.ErrRequestNotFound)
	})
	p.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.front == nil || !p.front(w, r) {
			mux.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() {
		p.server.Close() // when the calls in flight have ended, and begin no callbacks
		p.sending.Wait()
	})
	return p
}

// sent waits for the callbacks of the calls that have ended. Their answers may have
// been lost, so that only the mutex says that they have.
func (p *platform) sent() {
	p.mu.Lock()
	sending := &p.sending
	p.mu.Unlock()
	sending.Wait()
}

func (p *platform) answer(w http.ResponseWriter, status int, v any) {
	if p.simlatch {
		w.Header().Set(m2m.ServerHeader, "1")
	}
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		p.t.Logf("answering: %v", err) // the client hung up
	}
}

func (p *platform) refuse(w http.ResponseWriter, e *m2m.Error) {
	p.answer(w, 400, map[string]string{"errorCode": e.Code, "errorMessage": e.Message})
}

func (p *platform) read(r *http.Request, v any) {
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		p.t.Errorf("reading %s: %v", r.URL.Path, err)
	}
}

func (p *platform) license(w http.ResponseWriter, r *http.Request) {
	var in m2m.LicenseRequest
	p.read(r, &in)
	p.mu.Lock()
	defer p.mu.Unlock()
	carryOut := func() string { return p.carryOut(r, in) }
	if p.meet != nil && p.meet(w, r, carryOut) {
		return
	}
	for _, d := range in.Devices {
		if p.held(d.ICCID()) {
			p.refuse(w, m2m.ErrLicenseHeld)
			return
		}
	}
	if p.licenses >= 0 && len(in.Devices) > p.licenses {
		p.refuse(w, m2m.ErrInsufficientLicense)
		return
	}
	p.answer(w, 200, m2m.RequestAccepted{RequestID: carryOut()})
}

// carryOut accepts a request and has its callbacks sent; mu is held.
func (p *platform) carryOut(r *http.Request, in m2m.LicenseRequest) string {
	key := r.Header.Get("Idempotency-Key")
	if id := p.keys[key]; p.simlatch && id != "" {
		return id
	}
	p.requests++
	id := fmt.Sprintf("remote-%d", p.requests)
	p.keys[key] = id
	if p.licenses > 0 {
		p.licenses -= len(in.Devices)
	}
	action := map[string]string{http.MethodPost: "Assign", http.MethodDelete: "Unassign"}[r.Method]
	for _, d := range in.Devices {
		p.did[action+d.ICCID()]++
		if p.silent(d.ICCID()) {
			continue
		}
		m := p.message(id, d.ICCID(), in.AccountName, in.SKUNumber, action)
		if p.refused(d.ICCID()) {
			m.Status, m.DeviceResponse = m2m.CallbackFailed, nil
			m.FaultResponse = &m2m.FaultResponse{FaultCode: "X.REQUEST_FAILED.Y", FaultString: "No."}
		}
		p.sending.Go(func() {
			for p.post(m) == http.StatusInternalServerError { // which the platform would do again, too
				<-time.After(10 * time.Millisecond)
			}
		})
	}
	return id
}

// message is a callback that says yes.
func (p *platform) message(id, iccid, account, sku, action string) m2m.CallbackMessage {
	return m2m.CallbackMessage{
		Username: p.listener.Username, Password: p.listener.Password, RequestID: id,
		DeviceIDs: []m2m.DeviceID{{ID: iccid, Kind: "Iccid"}}, Status: m2m.CallbackSuccess, CallbackCount: 1, MaxCallbackThreshold: 4,
		DeviceResponse: &m2m.DeviceResponse{DeviceSKUSubscriptionResponse: m2m.SKUSubscriptionResponse{AccountName: account, SKUNumber: sku, Action: action}},
	}
}

// post sends a callback and returns the status; 0 when there was no answer.
func (p *platform) post(m m2m.CallbackMessage) int {
	body, err := json.Marshal(m)
	if err != nil {
		p.t.Error(err)
	}
	r, err := http.NewRequestWithContext(context.WithoutCancel(p.t.Context()), http.MethodPost, p.listener.URL, bytes.NewReader(body))
	if err != nil {
		p.t.Error(err)
		return 0
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// doubled are the devices that were asked for more than once, and how many
// requests were accepted.
func (p *platform) doubled() (list []string, requests int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for what, n := range p.did {
		if n > 1 {
			list = append(list, fmt.Sprintf("%s %d times", what, n))
		}
	}
	return list, p.requests
}

// guard is an Upstream with a store, whose callbacks come.
type guard struct {
	*Upstream

	clock *turned
	store *store.Store
}

var upstreamStart = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

func newGuard(t *testing.T, p *platform, change func(*UpstreamConfig)) *guard {
	t.Helper()
	s, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "guard.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if _, err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	g := &guard{store: s, clock: &turned{now: upstreamStart}}
	mux := http.NewServeMux()
	listener := httptest.NewServer(mux)
	cfg := UpstreamConfig{
		URL: p.server.URL, Key: "k", Secret: "s", Username: "u", Password: "p", CallbackURL: listener.URL + "/up",
		Records: s, Timeout: 300 * time.Millisecond, Clock: g.clock,
	}
	if change != nil {
		change(&cfg)
	}
	if g.Upstream, err = NewUpstream(cfg); err != nil {
		t.Fatal(err)
	}
	mux.Handle("/up/", g.Handler())
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error)
	go func() { done <- g.Run(ctx, nil) }()
	t.Cleanup(func() {
		p.sent()
		listener.Close()
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return g
}

// tally counts the verdicts of one call.
func (g *guard) tally(t *testing.T, tasks []license.Task) map[license.Verdict]int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	out, err := g.Provision(ctx, tasks)
	if err != nil || len(out) != len(tasks) {
		t.Fatalf("Provision = %d outcomes for %d tasks, %v", len(out), len(tasks), err)
	}
	n := map[license.Verdict]int{}
	for _, o := range out {
		n[o.Verdict]++
	}
	return n
}

// ended asks until every task is done or refused, as a worker does, and returns
// the outcomes.
func (g *guard) ended(ctx context.Context, tasks []license.Task) ([]license.Outcome, error) {
	for try := 0; ; try++ {
		out, err := g.Provision(ctx, tasks)
		if err != nil {
			return nil, err
		}
		open := 0
		for _, o := range out {
			if o.Verdict != license.Done && o.Verdict != license.Refused {
				open++
			}
		}
		if open == 0 {
			return out, nil
		}
		if try == 1000 {
			return nil, fmt.Errorf("%d tasks do not end, such as %+v", open, out[0])
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// patientGuard is a guard that answers when everything has ended.
type patientGuard struct{ *guard }

func (g patientGuard) Provision(ctx context.Context, tasks []license.Task) ([]license.Outcome, error) {
	return g.ended(ctx, tasks)
}

func endsWith(suffixes ...string) func(string) bool {
	return func(iccid string) bool {
		for _, s := range suffixes {
			if strings.HasSuffix(iccid, s) {
				return true
			}
		}
		return false
	}
}

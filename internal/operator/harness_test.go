package operator_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/openapi/contract"
	"github.com/simlatch/simlatch/internal/operator"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// theContract is read once: that takes a while.
var theContract = sync.OnceValue(func() *contract.Contract {
	c, err := contract.Read(operator.OpenAPI())
	if err != nil {
		panic(err)
	}
	return c
})

// still is a clock that a test moves.
type still struct {
	mu  sync.Mutex // guards now
	now time.Time
}

func (c *still) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *still) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func (c *still) After(d time.Duration) <-chan time.Time { return time.After(d) }

// tester answers test messages as it is told.
type tester struct{ status int }

func (f tester) Test(_ context.Context, l license.Listener) license.Delivery {
	d := license.Delivery{Callback: license.Callback{Account: l.Account, Request: "r"}, Status: f.status, Answer: []byte("ok\xff"), Latency: time.Millisecond}
	if f.status == http.StatusOK {
		d.Verdict = license.Delivered
	}
	return d
}

// message is a callback's body, in short.
func message(l license.Listener, c license.Callback) []byte {
	return fmt.Appendf(nil, `{"password":%q,"requestId":%q,"callbackCount":%d}`, l.Password, c.Request, c.Attempt+1)
}

// harness is an operator API over a seeded store, served over HTTP.
type harness struct {
	t      *testing.T
	s      *store.Store
	clock  *still
	url    string
	sims   []license.SIM
	tokens map[auth.Role]string
}

func newHarness(t *testing.T, s *store.Store) *harness {
	t.Helper()
	h := &harness{t: t, s: s, clock: &still{now: storetest.Start()}, tokens: map[auth.Role]string{}}
	h.sims = storetest.Seed(t, s, storetest.Fixture{})
	for _, role := range auth.Roles() {
		token := auth.NewOperatorToken()
		h.tokens[role] = string(token)
		h.must(s.AddOperator(t.Context(), auth.OperatorRecord{
			Operator: auth.Operator{Name: "the-" + string(role), Role: role}, TokenHash: auth.HashSecret(token),
		}, h.clock.Now()))
	}
	api, err := operator.New(operator.Config{
		Operators: auth.New(auth.Config{Records: s, Clock: h.clock, Random: rand.Reader}),
		Store:     s, Tester: tester{http.StatusOK}, Accept: s.Accept, Message: message, Clock: h.clock, Random: rand.Reader, Poll: 10 * time.Millisecond,
	})
	h.must(err)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = api.Run(ctx) })
	srv := httptest.NewServer(api)
	t.Cleanup(func() { stop(); running.Wait(); srv.Close() })
	h.url = srv.URL
	return h
}

func (h *harness) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// reply is the answer to a call.
type reply struct {
	t      *testing.T
	what   string
	status int
	header http.Header
	body   []byte
}

// call makes a call as an operator of a role; "" is nobody. body is sent as it is
// when it is a string, else in JSON. headers are names and values. The answer is
// held against the description.
func (h *harness) call(role auth.Role, method, path string, body any, headers ...string) reply {
	h.t.Helper()
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(b)
	default:
		data, err := json.Marshal(b)
		h.must(err)
		in = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(h.t.Context(), method, h.url+"/operator/v1"+path, in)
	h.must(err)
	if role != "" {
		req.Header.Set("Authorization", "Bearer "+h.tokens[role])
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	h.must(err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	h.must(err)
	if err := theContract().Answer(method, req.URL.EscapedPath(), resp, data); err != nil {
		h.t.Errorf("%s %s: %d %s\nis not as described: %v", method, path, resp.StatusCode, data, err)
	}
	return reply{h.t, method + " " + path, resp.StatusCode, resp.Header, data}
}

// as an operator of each role.
func (h *harness) get(path string) reply {
	h.t.Helper()
	return h.call(auth.RoleViewer, "GET", path, nil)
}

func (h *harness) post(path string, body any, headers ...string) reply {
	h.t.Helper()
	return h.call(auth.RoleAdmin, "POST", path, body, headers...)
}

// want checks the status, and decodes the answer.
func (r reply) want(status int, into ...any) reply {
	r.t.Helper()
	if r.status != status {
		r.t.Fatalf("%s: %d %s, want %d", r.what, r.status, r.body, status)
	}
	for _, v := range into {
		reflect.ValueOf(v).Elem().SetZero() // what is left out is not what was there before
		if err := json.Unmarshal(r.body, v); err != nil {
			r.t.Fatalf("%s: %v", r.what, err)
		}
	}
	return r
}

// problem checks the kind of a problem.
func (r reply) problem(kind string) reply {
	r.t.Helper()
	var p struct{ Type string }
	if err := json.Unmarshal(r.body, &p); err != nil || p.Type != "urn:simlatch:problem:"+kind {
		r.t.Errorf("%s: %d %s, want a problem %s", r.what, r.status, r.body, kind)
	}
	return r
}

// The account that is seeded, in a path.
const account = "/accounts/" + string(storetest.Account)

// accept has a request accepted, its tasks unleased.
func (h *harness) accept(action license.Action, sims ...license.SIM) license.RequestID {
	h.t.Helper()
	id := license.NewRequestID(h.clock.Now(), rand.Reader)
	r, err := license.NewRequest(id, storetest.Account, license.SKUFlexible, action, storetest.Devices(sims), h.clock.Now())
	h.must(err)
	_, err = h.s.Accept(h.t.Context(), license.AcceptParams{Request: r, Application: "app", User: "ada"})
	h.must(err)
	return id
}

// carry has the carrier answer for all that is due.
func (h *harness) carry(v license.Verdict) {
	h.t.Helper()
	p := license.ClaimParams{Account: storetest.Account, Now: h.clock.Now(), Until: h.clock.Now().Add(20 * time.Second), Limit: 100}
	tasks, err := h.s.ClaimTasks(h.t.Context(), p)
	h.must(err)
	var out []license.Outcome
	for _, t := range tasks {
		out = append(out, license.Outcome{Task: t, Verdict: v, Comment: "the carrier's words"})
	}
	_, err = h.s.SettleTasks(h.t.Context(), license.SettleParams{Now: h.clock.Now(), Outcomes: out})
	h.must(err)
}

// listen registers a listener.
func (h *harness) listen() {
	h.t.Helper()
	h.must(h.s.PutListener(h.t.Context(), license.Listener{
		Account: storetest.Account, Service: license.CarrierService, URL: "https://example.com/", Username: "user", Password: "secret",
	}, h.clock.Now()))
}

// deliver has the callbacks that are due end with a status.
func (h *harness) deliver(status int) {
	h.t.Helper()
	p := license.ClaimParams{Account: storetest.Account, Now: h.clock.Now(), Until: h.clock.Now().Add(20 * time.Second), Limit: 100}
	callbacks, err := h.s.ClaimCallbacks(h.t.Context(), p)
	h.must(err)
	var out []license.Delivery
	for _, c := range callbacks {
		d := license.Delivery{Callback: c, Verdict: license.Exhausted, Status: status, Latency: 1500 * time.Microsecond, Answer: []byte("sorry"), At: h.clock.Now()}
		if status == http.StatusOK {
			d.Verdict = license.Delivered
		}
		out = append(out, d)
	}
	h.must(h.s.FinishCallbacks(h.t.Context(), h.clock.Now(), out))
}

// each runs a test over HTTP on each engine.
func each(t *testing.T, f func(t *testing.T, h *harness)) {
	t.Helper()
	storetest.Each(t, func(t *testing.T, s *store.Store) { f(t, newHarness(t, s)) })
}

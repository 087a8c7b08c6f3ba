package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/google/uuid"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

const (
	account = "0000123456-00001"
	other   = "0000123456-00002"
	foreign = "0000999999-00009" // exists, but is not the user's
	assign  = m2m.APIPrefix + "/devices/license/actions/assign"
)

// harness is an API on fakes, with a caller who is logged in.
type harness struct {
	t       *testing.T
	api     *API
	handler http.Handler

	records   *records
	licenses  *licenses
	inventory *inventory
	listeners *listenerBook
	work      *work
	clock     *clock
	metrics   *prometheus.Registry
	logs      *bytes.Buffer

	bearer, session string // of the user "demo", who has one account
}

func newHarness(t *testing.T, change ...func(*Config)) *harness {
	t.Helper()
	h := &harness{
		t: t, records: newRecords(), licenses: &licenses{}, inventory: &inventory{}, listeners: &listenerBook{},
		work: &work{room: 500}, clock: &clock{now: time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)},
		metrics: prometheus.NewRegistry(), logs: &bytes.Buffer{},
	}
	authority := auth.New(auth.Config{Records: h.records, Clock: h.clock, Random: rand.Reader})
	cfg := Config{
		Auth: authority, Licenses: h.licenses, Inventory: h.inventory, Listeners: h.listeners, Work: h.work,
		Clock: h.clock, Metrics: h.metrics, Logger: slog.New(slog.NewTextHandler(h.logs, &slog.HandlerOptions{Level: slog.LevelWarn})),
		MaxDevices: 100,
	}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	if h.api, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	h.handler = h.api.Handler()
	for _, key := range []string{"app", "app2"} {
		h.records.apps[key] = auth.Application{Key: key, SecretHash: auth.HashSecret("secret")}
	}
	hash := hashed()
	h.records.users["demo"] = auth.User{Name: "demo", PasswordHash: hash, Accounts: []license.AccountName{account}}
	h.records.users["two"] = auth.User{Name: "two", PasswordHash: hash, Accounts: []license.AccountName{account, other}}
	h.records.users["none"] = auth.User{Name: "none", PasswordHash: hash}
	h.bearer = h.token("app")
	h.session = h.login(h.bearer, "demo")
	return h
}

// token gets an application's bearer token.
func (h *harness) token(key string) string {
	h.t.Helper()
	tok, err := h.api.cfg.Auth.Issue(h.t.Context(), key, "secret", "192.0.2.1")
	if err != nil {
		h.t.Fatal(err)
	}
	return string(tok.Value)
}

// login opens a session for a user, beside the password, which takes a while
// to check.
func (h *harness) login(bearer, user string) string {
	h.t.Helper()
	app, err := h.api.cfg.Auth.Bearer(h.t.Context(), auth.Secret(bearer))
	if err != nil {
		h.t.Fatal(err)
	}
	token := uuid.NewSHA1(uuid.Nil, []byte(app+"/"+user)).String()
	err = h.records.PutSession(context.Background(), auth.Session{
		Hash:        auth.HashSecret(auth.Secret(token)),
		Application: app, User: user, Used: h.clock.Now(),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return token
}

// answer is an answer, read.
type answer struct {
	*http.Response
	body []byte
}

func (a answer) String() string { return a.Status + " " + string(a.body) }

// fields is the body as an object.
func (a answer) fields(t *testing.T) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(a.body, &m); err != nil {
		t.Fatalf("the answer %s is no JSON object: %v", a, err)
	}
	return m
}

func (a answer) code(t *testing.T) string {
	t.Helper()
	code, _ := a.fields(t)["errorCode"].(string)
	return code
}

// change alters a request before it is sent.
type change func(*http.Request)

func header(name string, values ...string) change {
	return func(r *http.Request) {
		r.Header.Del(name)
		for _, v := range values {
			r.Header.Add(name, v)
		}
	}
}

// do sends a request with the credentials of the harness and a JSON body, if
// any, and holds the answer against the API's description.
func (h *harness) do(method, target, body string, changes ...change) answer {
	h.t.Helper()
	var r *http.Request
	if body == "" {
		r = httptest.NewRequest(method, target, nil)
	} else {
		r = httptest.NewRequest(method, target, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Authorization", "Bearer "+h.bearer)
	r.Header.Set("VZ-M2M-Token", h.session)
	for _, c := range changes {
		c(r)
	}
	rec := httptest.NewRecorder()
	h.handler.ServeHTTP(rec, r)
	a := answer{Response: rec.Result(), body: rec.Body.Bytes()}
	h.check(r, a)
	return a
}

// check holds an answer against what is true of every answer, and against the
// description of the API.
func (h *harness) check(r *http.Request, a answer) {
	h.t.Helper()
	if ct := a.Header.Get("Content-Type"); ct != "application/json; charset=UTF-8" {
		h.t.Errorf("%s %s: Content-Type = %q", r.Method, r.URL, ct)
	}
	if a.Header.Get("X-Request-ID") == "" {
		h.t.Errorf("%s %s: no X-Request-ID", r.Method, r.URL)
	}
	if len(a.body) == 0 {
		h.t.Errorf("%s %s: empty body", r.Method, r.URL)
	}
	if a.StatusCode >= 400 {
		m := a.fields(h.t)
		code, _ := m["errorCode"].(string)
		message, _ := m["errorMessage"].(string)
		if code == "" || message == "" || len(a.body) >= 8<<10 {
			h.t.Errorf("%s %s = %s, want errorCode and errorMessage in less than 8 KiB", r.Method, r.URL, a)
		}
	}
	if err := asDescribed(r.Method, r.URL.EscapedPath(), a.Response, a.body); err != nil {
		h.t.Errorf("%s %s = %s: not as described: %v", r.Method, r.URL, a, err)
	}
}

// hashed is everyone's password; hashing it takes a while too.
var hashed = sync.OnceValue(func() string { return auth.HashPassword("password") })

// form sends a request to a token endpoint.
func (h *harness) form(target string, values url.Values, changes ...change) answer {
	h.t.Helper()
	return h.do("POST", target, values.Encode(), append([]change{func(r *http.Request) {
		r.Header.Del("VZ-M2M-Token")
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth("app", "secret")
	}}, changes...)...)
}

// counted is the value of a counter whose labels have these values, in the
// order of their names.
func (h *harness) counted(name string, labels ...string) float64 {
	h.t.Helper()
	families, err := h.metrics.Gather()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var values []string
			for _, l := range m.GetLabel() {
				values = append(values, l.GetValue())
			}
			if f.GetName() == name && slices.Equal(values, labels) {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// device is a device as a request names it, by its number.
func device(n int) string {
	d := domainDevice(n)
	return `{"deviceIds":[{"id":"` + string(d.IMEI) + `","kind":"imei"},{"id":"` + string(d.ICCID) + `","kind":"iccid"}]}`
}

func domainDevice(n int) license.Device {
	digits := strings.Repeat("0", 12-len(itoa(n))) + itoa(n)
	return license.Device{IMEI: license.IMEI("490" + digits), ICCID: license.ICCID("89148000" + digits)}
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

// licenseJSON is the body of an assignment.
func licenseJSON(sku string, devices ...string) string {
	return `{"accountName":"` + account + `","skuNumber":"` + sku + `","devices":[` + strings.Join(devices, ",") + `]}`
}

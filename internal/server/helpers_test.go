package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/store/storetest"
	"github.com/simlatch/simlatch/m2m"
)

const testAccount = "0000123456-00001"

// patience bounds every wait of these tests.
const patience = 20 * time.Second

// running is a server in this process.
type running struct {
	*Server

	log  *logBuffer
	stop context.CancelFunc
	done chan error
}

// startServer starts a server on a free port. It is stopped when the test is
// over, if it was not before.
func startServer(t *testing.T, cfg Config) *running {
	t.Helper()
	r, err := tryServer(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func tryServer(t *testing.T, cfg Config) (*running, error) {
	t.Helper()
	r := &running{log: &logBuffer{}, done: make(chan error, 1)}
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.Carrier == "" && !cfg.ServeOnly {
		cfg.Carrier = CarrierSimulated
	}
	cfg.CallbackAllow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	cfg.Logger = slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ready := make(chan string, 1)
	cfg.Ready = func(url string) { ready <- url }
	var err error
	if r.Server, err = New(t.Context(), cfg); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	r.stop = stop
	go func() { r.done <- r.Run(ctx) }()
	t.Cleanup(func() {
		if err := r.end(); err != nil {
			t.Errorf("Run = %v", err)
		}
		if t.Failed() {
			t.Logf("the server's log:\n%s", r.log)
		}
	})
	if got := <-ready; got != r.URL() {
		t.Errorf("Ready was given %q, want %q", got, r.URL())
	}
	return r, nil
}

// end stops the server and returns what Run did. It may be called again.
func (r *running) end() error {
	r.stop()
	err := <-r.done
	r.done <- nil
	return err
}

// logBuffer keeps a log.
type logBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// onEachEngine runs f with the database settings of each engine.
func onEachEngine(t *testing.T, f func(t *testing.T, cfg Config)) {
	t.Helper()
	for _, e := range storetest.Engines(t) {
		t.Run(e.Name, func(t *testing.T) {
			cfg := Config{Database: e.NewDatabase(t).URL}
			if e.Name != "sqlite" {
				cfg.SecretsKeyFile = writeFile(t, t.TempDir(), "key", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n")
			}
			f(t, cfg)
		})
	}
}

// sqliteConfig is a configuration with a database of its own.
func sqliteConfig(t *testing.T) Config {
	t.Helper()
	return Config{Database: "sqlite:" + filepath.Join(t.TempDir(), "simlatch.db")}
}

// fetched is the answer to a GET.
type fetched struct {
	status   int
	body     []byte
	protocol string
	tls      *tls.ConnectionState
}

func fetch(t *testing.T, client *http.Client, url string) (f fetched, err error) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Do(q)
	if err != nil {
		return f, err
	}
	defer answer.Body.Close()
	f = fetched{status: answer.StatusCode, protocol: answer.Proto, tls: answer.TLS}
	f.body, err = io.ReadAll(answer.Body)
	return f, err
}

// getJSON gets a path and decodes the answer, which must have a status.
func (r *running) getJSON(t *testing.T, path string, status int) map[string]any {
	t.Helper()
	answer, err := fetch(t, http.DefaultClient, r.URL()+path)
	if err != nil {
		t.Fatal(err)
	}
	var body map[string]any
	if err := json.Unmarshal(answer.body, &body); err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	if answer.status != status {
		t.Errorf("GET %s = %d %v, want %d", path, answer.status, body, status)
	}
	return body
}

// caller is a client of the API, logged in.
type caller struct {
	t               *testing.T
	url             string
	bearer, session string
	traceparent     string
}

// login gets a token and a session with the credentials of goodSeed.
func (r *running) login(t *testing.T) *caller {
	t.Helper()
	return login(t, r.URL())
}

func login(t *testing.T, node string) *caller {
	t.Helper()
	c := &caller{t: t, url: node}
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url+"/api/ts/v1/oauth2/token",
		strings.NewReader(url.Values{"grant_type": {"client_credentials"}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	q.SetBasicAuth("demo-key", "demo-secret")
	var token m2m.TokenAnswer
	c.send(q, http.StatusOK, &token)
	c.bearer = token.AccessToken
	var session m2m.SessionAnswer
	c.call(http.MethodPost, "/session/login", m2m.LoginRequest{Username: "demo", Password: "demo-password"}, http.StatusOK, &session)
	c.session = session.SessionToken
	return c
}

// call makes a call of the API, whose answer must have a status.
func (c *caller) call(method, path string, in any, status int, out any) {
	c.t.Helper()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			c.t.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	q, err := http.NewRequestWithContext(c.t.Context(), method, c.url+m2m.APIPrefix+path, body)
	if err != nil {
		c.t.Fatal(err)
	}
	if body != nil {
		q.Header.Set("Content-Type", "application/json")
	}
	q.Header.Set("Authorization", "Bearer "+c.bearer)
	if c.traceparent != "" {
		q.Header.Set("Traceparent", c.traceparent)
	}
	if c.session != "" {
		q.Header.Set(m2m.SessionHeader, c.session)
	}
	c.send(q, status, out)
}

func (c *caller) send(q *http.Request, status int, out any) {
	c.t.Helper()
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		c.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	if answer.StatusCode != status {
		c.t.Fatalf("%s %s = %d %s, want %d", q.Method, q.URL.Path, answer.StatusCode, body, status)
	}
	if out == nil {
		return
	}
	if err := json.Unmarshal(body, out); err != nil {
		c.t.Fatalf("%s %s: %v in %s", q.Method, q.URL.Path, err, body)
	}
}

// pool reads one pool.
func (c *caller) pool(sku string) m2m.Subscription {
	c.t.Helper()
	var list m2m.Subscriptions
	c.call(http.MethodPost, "/accounts/subscriptions/actions/list",
		m2m.SubscriptionsRequest{AccountName: testAccount, SKUNumber: sku}, http.StatusOK, &list)
	if len(list.SubscriptionList) != 1 {
		c.t.Fatalf("%d pools of %s, want one", len(list.SubscriptionList), sku)
	}
	return list.SubscriptionList[0]
}

func licenseRequest(sku string, iccids ...string) m2m.LicenseRequest {
	q := m2m.LicenseRequest{AccountName: testAccount, SKUNumber: sku}
	for _, id := range iccids {
		q.Devices = append(q.Devices, m2m.Device{DeviceIDs: []m2m.DeviceID{{ID: id, Kind: "iccid"}}})
	}
	return q
}

// sink is a callback listener.
type sink struct {
	*httptest.Server

	messages chan m2m.CallbackMessage
	arrived  chan struct{} // gets a value when a message came, before it is answered
	hold     chan struct{} // when not nil, answers wait until it is closed
}

// listen starts a listener and registers it.
func (c *caller) listen(hold chan struct{}) *sink {
	c.t.Helper()
	s := &sink{messages: make(chan m2m.CallbackMessage, 10_000), arrived: make(chan struct{}, 10_000), hold: hold}
	s.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m m2m.CallbackMessage
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			c.t.Errorf("a callback: %v", err)
		}
		s.arrived <- struct{}{}
		if s.hold != nil {
			<-s.hold
		}
		s.messages <- m
	}))
	c.t.Cleanup(s.Close)
	c.call(http.MethodPost, "/callbacks/"+testAccount,
		m2m.ListenerRequest{Name: "CarrierService", URL: s.URL, Username: "u", Password: "canary-listener-password"}, http.StatusOK, nil)
	return s
}

// wait receives n messages.
func (s *sink) wait(t *testing.T, n int) []m2m.CallbackMessage {
	t.Helper()
	var got []m2m.CallbackMessage
	deadline := time.After(patience)
	for len(got) < n {
		select {
		case m := <-s.messages:
			got = append(got, m)
		case <-deadline:
			t.Fatalf("%d callbacks came, want %d", len(got), n)
		}
	}
	return got
}

// eventually polls until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("not within %v: %s", patience, what)
		case <-tick.C:
		}
	}
}

// fails checks that an error says something.
func fails(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the error is %v, want one with %q", err, want)
	}
}

// moreSIMs is a CSV of n SIMs from number first, without the good seed's.
func moreSIMs(first, n int) string {
	var b strings.Builder
	b.WriteString("account,imei,iccid,mdn,state,generation\n")
	for i := first; i < first+n; i++ {
		fmt.Fprintf(&b, "%s,35824005%07d,8914801%013d,,active,4G\n", testAccount, i, i)
	}
	return b.String()
}

package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/simlatch/simlatch/internal/store/storetest"
	"github.com/simlatch/simlatch/m2m"
)

const (
	tracedAccount = "0000123456-00001"
	tracedICCID   = "89148020000000000012"
	tracePatience = 45 * time.Second
)

// traced is a server that is started again and again on one database, and a
// listener.
type traced struct {
	dir      string
	log      *os.File
	flags    []string
	url      string
	listener *httptest.Server
	token    m2m.TokenAnswer
	session  m2m.SessionAnswer
}

func newTraced(t *testing.T, database string, listener http.HandlerFunc) *traced {
	t.Helper()
	k := &traced{dir: t.TempDir(), listener: httptest.NewServer(listener)}
	t.Cleanup(k.listener.Close)
	for name, text := range map[string]string{
		"key": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n", // that of storetest
		"seed.yaml": "applications: [{key: k, secret: s}]\nusers: [{username: u, password: p, accounts: [" + tracedAccount + "]}]\n" +
			"accounts: [{name: " + tracedAccount + ", pools: {SIMSec-IoT: 10}}]\n" +
			"devices: [{account: " + tracedAccount + ", imei: \"358240050000012\", iccid: \"" + tracedICCID + "\"}]\n",
	} {
		if err := os.WriteFile(filepath.Join(k.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if k.log, err = os.Create(filepath.Join(k.dir, "server.log")); err != nil {
		t.Fatal(err)
	}
	k.flags = []string{
		"serve", "--carrier", "simulated", "--listen", "127.0.0.1:0", "--database", database,
		"--secrets-key-file", "key", "--callback-allow", "127.0.0.0/8", "--callback-interval", "1s",
	}
	return k
}

func (k *traced) start(t *testing.T, more ...string) *process {
	t.Helper()
	p, err := startProcess(k.dir, k.log, append(k.flags, more...)...)
	if err != nil {
		log, _ := os.ReadFile(k.log.Name()) // as much as there is
		t.Fatalf("%v:\n%s", err, log)
	}
	t.Cleanup(p.kill)
	k.url = p.url
	return p
}

// call makes a call whose answer is 200.
func (k *traced) call(t *testing.T, path, body string, header map[string]string, out any) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, k.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("Authorization", "Bearer "+k.token.AccessToken)
	q.Header.Set(m2m.SessionHeader, k.session.SessionToken)
	for name, value := range header {
		q.Header.Set(name, value)
	}
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK || json.Unmarshal(text, out) != nil {
		t.Fatalf("%s: %s %s, %v", path, answer.Status, text, err)
	}
}

// login logs in, and registers the listener.
func (k *traced) login(t *testing.T) {
	t.Helper()
	k.call(t, "/api/ts/v1/oauth2/token", "grant_type=client_credentials",
		map[string]string{"Authorization": "Basic azpz", "Content-Type": "application/x-www-form-urlencoded"}, &k.token) // k:s
	k.call(t, "/api/m2m/v1/session/login", `{"username": "u", "password": "p"}`, nil, &k.session)
	k.call(t, "/api/m2m/v1/callbacks/"+tracedAccount, fmt.Sprintf(`{"name": "CarrierService", "url": %q}`, k.listener.URL), nil, new(m2m.ListenerAnswer))
}

// otlp receives spans as a collector does.
type otlp struct {
	*httptest.Server

	mu      sync.Mutex // guards what follows
	spans   []*spans.Span
	service map[string]bool // the names of services
	arrived chan struct{}   // closed and replaced when spans came
}

func newOTLP(t *testing.T) *otlp {
	o := &otlp{service: map[string]bool{}, arrived: make(chan struct{})}
	o.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var in collector.ExportTraceServiceRequest
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &in) != nil {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
			return
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, rs := range in.ResourceSpans {
			for _, a := range rs.GetResource().GetAttributes() {
				if a.Key == "service.name" {
					o.service[a.GetValue().GetStringValue()] = true
				}
			}
			for _, ss := range rs.GetScopeSpans() {
				o.spans = append(o.spans, ss.GetSpans()...)
			}
		}
		close(o.arrived)
		o.arrived = make(chan struct{})
	}))
	t.Cleanup(o.Close)
	return o
}

// wait waits for a span in a trace, whose name begins so, and that failed or not.
func (o *otlp) wait(t *testing.T, trace, name string, failed bool) *spans.Span {
	t.Helper()
	late := time.After(tracePatience)
	for {
		o.mu.Lock()
		for _, s := range o.spans {
			if hex.EncodeToString(s.TraceId) == trace && strings.HasPrefix(s.Name, name) && hasFailed(s) == failed {
				o.mu.Unlock()
				return s
			}
		}
		arrived := o.arrived
		o.mu.Unlock()
		select {
		case <-arrived:
		case <-late:
			t.Fatalf("the span %q of the trace %s did not come", name, trace)
		}
	}
}

// TestTraceAcrossRestarts follows one request from the POST to the delivery. The
// server that accepted it is killed, another settles it and is ended after the
// listener refused the first callback, a third delivers: all in the trace of whoever
// made the request.
func TestTraceAcrossRestarts(t *testing.T) {
	for _, e := range storetest.Engines(t) {
		t.Run(e.Name, func(t *testing.T) {
			const trace, caller = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
			o := newOTLP(t)
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", o.URL)
			t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
			var well atomic.Bool
			heard := make(chan http.Header, 100)
			k := newTraced(t, e.NewDatabase(t).URL, func(w http.ResponseWriter, r *http.Request) {
				heard <- r.Header
				if !well.Load() {
					w.WriteHeader(http.StatusInternalServerError)
				}
			})

			first := k.start(t, "--seed", "seed.yaml", "--workers", "0")
			k.login(t)
			body := fmt.Sprintf(`{"accountName": %q, "skuNumber": "SIMSec-IoT", "devices": [{"deviceIds": [{"id": %q, "kind": "iccid"}]}]}`, tracedAccount, tracedICCID)
			var accepted m2m.RequestAccepted
			k.call(t, "/api/m2m/v1/devices/license/actions/assign", body, map[string]string{"traceparent": "00-" + trace + "-" + caller + "-01"}, &accepted)
			post := o.wait(t, trace, "POST ", false)
			first.kill()

			second := k.start(t)
			work := []*spans.Span{o.wait(t, trace, "carrier assign", false), o.wait(t, trace, "settle", false), o.wait(t, trace, "callback", true)}
			if e.Name == "sqlite" {
				second.kill()
			} else if err := second.terminate(); err != nil { // or its leases would have to run out
				t.Error(err)
			}
			for len(heard) > 0 {
				<-heard
			}
			well.Store(true)

			third := k.start(t)
			header := <-heard
			delivered := o.wait(t, trace, "callback", false)
			if err := third.terminate(); err != nil {
				t.Error(err)
			}

			if got := hex.EncodeToString(post.ParentSpanId); got != caller {
				t.Errorf("the parent of the POST is %s, want the caller's %s", got, caller)
			}
			for _, s := range append(work, delivered) {
				if !slices.Equal(s.ParentSpanId, post.SpanId) {
					t.Errorf("the parent of %q is %x, want the POST's %x", s.Name, s.ParentSpanId, post.SpanId)
				}
				if got := spanAttribute(s, "simlatch.request_id"); got != accepted.RequestID {
					t.Errorf("%q is about the request %q, want %q", s.Name, got, accepted.RequestID)
				}
			}
			if want := fmt.Sprintf("00-%s-%x-01", trace, delivered.SpanId); header.Get("Traceparent") != want {
				t.Errorf("the callback carried %q, want %q", header.Get("Traceparent"), want)
			}
			if o.mu.Lock(); !o.service["simlatch"] || len(o.service) != 1 {
				t.Errorf("the services are %v", o.service)
			}
			o.mu.Unlock()
		})
	}
}

func hasFailed(s *spans.Span) bool { return s.GetStatus().GetCode() == spans.Status_STATUS_CODE_ERROR }

func spanAttribute(s *spans.Span, name string) string {
	for _, a := range s.GetAttributes() {
		if a.Key == name {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

// TestTracesWanted reads the standard variables.
func TestTracesWanted(t *testing.T) {
	for _, tt := range []struct {
		env    map[string]string
		wanted bool
		err    string
	}{
		{nil, false, ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318"}, true, ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x:4318/v1/traces"}, true, ""},
		{map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, true, ""},
		{map[string]string{"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318"}, false, ""},
		{map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"}, false, "OTEL_TRACES_EXPORTER=zipkin"},
		{map[string]string{"OTEL_SDK_DISABLED": "TRUE", "OTEL_TRACES_EXPORTER": "otlp"}, false, ""},
		{map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, false, "PROTOCOL=grpc"},
		{map[string]string{
			"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
		}, true, ""},
	} {
		wanted, err := tracesWanted(func(name string) string { return tt.env[name] })
		if wanted != tt.wanted || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%v: %v, %v", tt.env, wanted, err)
		}
	}
}

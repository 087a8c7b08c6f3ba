package callback

import (
	"bytes"
	"context"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/simlatch/simlatch/internal/license"
)

// start runs a sender on the machine's network until the test ends.
func start(t testing.TB, cfg Config) (*Sender, *outbox) {
	t.Helper()
	out := newOutbox()
	cfg.Outbox = out
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s, out
}

// until polls for a condition, for a while.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}

func TestConnectionsAreKept(t *testing.T) {
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(proto, func(t *testing.T) {
			var dials, wrong atomic.Int32
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				if r.Proto != proto {
					wrong.Add(1)
				}
				_, _ = io.WriteString(w, `{"ok":true}`)
			}))
			srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
				if s == http.StateNew {
					dials.Add(1)
				}
			}
			srv.EnableHTTP2 = proto == "HTTP/2.0"
			srv.StartTLS()
			t.Cleanup(srv.Close)
			pool := x509.NewCertPool()
			pool.AddCert(srv.Certificate())

			s, out := start(t, Config{Guard: loopback(), RootCAs: pool, PerListener: 4})
			out.register(license.Listener{Account: testAccount, URL: srv.URL}, false)
			out.add(testAccount, 300)
			s.Wake()
			until(t, "all are delivered", func() bool { _, v := out.ends(); return v[license.Delivered] == 300 })
			// The transport dials one too many when a connection comes free meanwhile.
			if n := dials.Load(); n > 60 || wrong.Load() > 0 {
				t.Errorf("%d connections for 300 requests, %d of another protocol; want few and none", n, wrong.Load())
			}
		})
	}
}

func TestFailuresInWords(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	defer tls.Close()
	tls.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	gone, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	tests := []struct {
		name, url, secret string
		guard             *Guard
		want              string
	}{
		{"guard", srv.URL, "", nil, "--callback-allow 127.0.0.1/32"},
		{"never", "http://169.254.169.254/latest/meta-data", "", loopback(), "never sent to 169.254.169.254"},
		{"refused", "http://" + gone.Addr().String(), "", loopback(), "connection refused"},
		{"certificate", tls.URL, "", loopback(), "certificate"},
		{"secret", srv.URL, "whsec_%%%", loopback(), "signing the callback"},
		{"host", "http:///x", "", loopback(), "no host"},
		{"scheme", "ftp://127.0.0.1/", "", loopback(), "unsupported protocol scheme"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, out := start(t, Config{Guard: tt.guard, Attempts: 1})
			out.register(license.Listener{Account: testAccount, URL: tt.url, SigningSecret: tt.secret}, false)
			out.add(testAccount, 1)
			s.Wake()
			until(t, "it is exhausted", func() bool { _, v := out.ends(); return v[license.Exhausted] == 1 })
			if answer := string(out.deliveries()[0].Answer); !strings.Contains(answer, tt.want) {
				t.Errorf("kept %q, want %q in it", answer, tt.want)
			}
		})
	}
}

func TestMetrics(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	reg := prometheus.NewRegistry()
	s, out := start(t, Config{Guard: loopback(), Metrics: reg})
	out.register(license.Listener{Account: testAccount, URL: srv.URL}, false)
	out.add(testAccount, 7)
	s.Wake()
	until(t, "all are delivered", func() bool { _, v := out.ends(); return v[license.Delivered] == 7 })
	got := map[string]float64{}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	want := map[string]float64{
		"simlatch_callback_attempts_total again": 0, "simlatch_callback_attempts_total delivered": 7,
		"simlatch_callback_answers_total 2xx": 7, "simlatch_callback_answers_total 3xx": 0, "simlatch_callback_answers_total 4xx": 0,
		"simlatch_callback_answers_total 410": 0, "simlatch_callback_answers_total 429": 0, "simlatch_callback_answers_total 5xx": 0,
		"simlatch_callback_answers_total other": 0, "simlatch_callback_answers_total none": 0,
		"simlatch_callback_in_memory": 0, "simlatch_delivery_seconds": 7,
		"simlatch_callback_attempts_total exhausted": 0, "simlatch_callback_attempts_total unsent": 0,
		"simlatch_callback_attempt_seconds": 7, "simlatch_callback_dropped_total": 0, "simlatch_callback_local_failures_total": 0,
		"simlatch_callback_in_flight": 0, "simlatch_callback_listeners_failing": 0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
	if _, err := New(Config{Outbox: out, Metrics: reg}); err == nil {
		t.Error("registering the metrics twice passed")
	}
}

func TestDues(t *testing.T) {
	var d dues
	at := time.Unix(1000, 0)
	for _, ms := range []int{500, 510, 700, 100, 700, 100} {
		d.add(at.Add(time.Duration(ms) * time.Millisecond))
	}
	if len(d.steps) != 4 {
		t.Errorf("%d steps, want 4: 100, 500, 520 and 700 ms", len(d.steps))
	}
	var got []time.Duration
	for now := at; ; {
		next, ok := d.next(now)
		if !ok {
			break
		}
		now = now.Add(next)
		got = append(got, now.Sub(at))
		d.reach(now)
	}
	for i, want := range []time.Duration{100, 500, 520, 700} {
		if i >= len(got) || got[i] != want*time.Millisecond {
			t.Fatalf("due at %v, want 100, 500, 520 and 700 ms", got)
		}
	}
}

// sink answers 200 to everything, as cheaply as a server can.
func sink(b *testing.B) string {
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	b.Cleanup(srv.Close)
	return srv.URL
}

// null is an outbox that hands out nothing and forgets what ends.
type null struct {
	listener license.Listener
	ended    atomic.Int64
	enough   chan struct{}
	want     int64
}

func (*null) DueAccounts(context.Context, license.Phase, time.Time) ([]license.Due, error) {
	return nil, nil
}

func (*null) ClaimCallbacks(context.Context, license.ClaimParams) ([]license.Callback, error) {
	return nil, nil
}

func (*null) GiveCallbacksBack(context.Context, time.Time, []license.Callback) (int, error) {
	return 0, nil
}

func (n *null) FinishCallbacks(_ context.Context, _ time.Time, out []license.Delivery) error {
	if n.ended.Add(int64(len(out))) == n.want {
		close(n.enough)
	}
	return nil
}

func (n *null) Listener(context.Context, license.AccountName, string) (license.Listener, error) {
	return n.listener, nil
}

func (*null) ListenerChanges() uint64 { return 1 }

// BenchmarkDeliver is one callback handed over, posted and written down, to be
// compared with BenchmarkBare.
func BenchmarkDeliver(b *testing.B) {
	n := &null{listener: license.Listener{Account: testAccount, URL: sink(b)}, enough: make(chan struct{}), want: int64(b.N)}
	s, err := New(Config{Outbox: n, Guard: loopback()})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	until(b, "it runs", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.staff != nil })
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; {
		k := s.Reserve(testAccount, min(b.N-i, batch))
		if k == 0 {
			<-time.After(time.Millisecond)
			continue
		}
		cs := make([]license.Callback, k)
		for j := range cs {
			cs[j] = message(testAccount, i+j)
			cs[j].Until = time.Now().Add(time.Minute)
		}
		s.Give(testAccount, k, cs)
		i += k
	}
	<-n.enough
	b.StopTimer()
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
}

// BenchmarkBare posts the same messages with net/http alone.
func BenchmarkBare(b *testing.B) {
	url := sink(b)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	b.ReportAllocs()
	var next atomic.Int64
	var wg sync.WaitGroup
	opening := appendOpening(nil, license.Listener{})
	for range 32 {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				c := message(testAccount, int(i))
				req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, bytes.NewReader(appendMessage(nil, opening, &c, 4)))
				if err != nil {
					b.Error(err)
					return
				}
				resp, err := client.Do(req)
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
	wg.Wait()
}

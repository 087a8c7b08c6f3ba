package server

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/simlatch/simlatch/internal/auth"
)

// gathered are the metrics of a server, without a connection to it.
func (r *running) gathered(t *testing.T, name string) *dto.MetricFamily {
	t.Helper()
	families, err := r.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f
		}
	}
	return nil
}

// healthy asks for the health on a connection, and reports whether it was told.
func healthy(conn net.Conn) bool {
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return false
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return err == nil && answer.StatusCode == http.StatusOK
}

// TestMaxConnections takes all connections that there may be, of each listener: one more
// is closed at once, those that are there are served on, and each that ends makes room.
func TestMaxConnections(t *testing.T) {
	const most = 5
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			cfg := guardConfig(t, sqliteConfig(t), "http://127.0.0.1:1")
			cfg.MaxConnections = most
			if secure {
				cfg.TLSCert, cfg.TLSKey = writeCertificate(t, t.TempDir(), "localhost")
			}
			r := startServer(t, cfg)
			dial := func(address string) net.Conn {
				conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
				if secure {
					return tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
				}
				return conn
			}
			for listener, address := range map[string]string{"api": r.listener.Addr().String(), "upstream": r.callbacks.listener.Addr().String()} {
				label := map[string]string{"listener": listener}
				served := func(conn net.Conn) bool { return listener != "api" || healthy(conn) }
				var conns []net.Conn
				for range most {
					conn := dial(address)
					if !served(conn) {
						t.Fatalf("%s: a connection within the limit is not served", listener)
					}
					conns = append(conns, conn)
				}
				eventually(t, "all connections are counted", func() bool { return value(r.gathered(t, "simlatch_connections"), label) == most })
				for range 3 {
					if healthy(dial(address)) {
						t.Errorf("%s: one connection more than the limit is served", listener)
					}
				}
				if n := value(r.gathered(t, "simlatch_connections_refused_total"), label); n != 3 {
					t.Errorf("%s: %v connections were counted as refused, want 3", listener, n)
				}
				for i, conn := range conns {
					if !served(conn) {
						t.Errorf("%s: connection %d was let go of for others", listener, i)
					}
				}
				_ = conns[0].Close()
				eventually(t, "there is room again", func() bool { return value(r.gathered(t, "simlatch_connections"), label) < most })
				if !served(dial(address)) {
					t.Errorf("%s: a connection is not served, though there is room", listener)
				}
			}
		})
	}
}

// TestBodiesNobodyReads sends bodies that do not end to what reads none: each client is
// let go of.
func TestBodiesNobodyReads(t *testing.T) {
	cfg := sqliteConfig(t)
	cfg.Carrier, cfg.CarrierSecret = CarrierHTTP+"http://127.0.0.1:1/", carrierSecret
	cfg.bodyTimeout = time.Second
	r := startServer(t, cfg)
	conns := map[string]net.Conn{}
	for _, line := range []string{
		"POST /metrics", "GET /healthz", "GET /readyz", "GET /version", "GET /nothing", "POST /nothing", "GET /docs", "GET /openapi.json",
		"GET /console/", "GET /console/sign-in", "POST /console/sign-in", "GET /console/assets/x", "POST /console/x",
		"GET /operator/v1/self", "POST /operator/v1/accounts", "POST /operator/x", "POST /api/m2m/v1/session/login", "GET /api/m2m/v1/accounts/x", "POST /operator/v1/carrier/outcomes",
	} {
		for _, length := range []string{"Content-Length: 1000", "Transfer-Encoding: chunked"} {
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if _, err := io.WriteString(conn, line+" HTTP/1.1\r\nHost: x\r\n"+length+"\r\nContent-Type: application/json\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			conns[line+", "+length] = conn
		}
	}
	var all sync.WaitGroup
	for what, conn := range conns {
		all.Go(func() {
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: it is still waited for", what)
			}
		})
	}
	all.Wait()
}

// TestOperatorRateLimitByAddress holds an address back, before its token is looked at,
// but not the console, which calls from within.
func TestOperatorRateLimitByAddress(t *testing.T) {
	cfg := sqliteConfig(t)
	cfg.AddressRateLimit = 0.01
	r := startServer(t, cfg)
	token := r.operatorToken(t, auth.RoleAdmin)
	if status, body := r.operate(t, "guess", http.MethodGet, "/self"); status != http.StatusUnauthorized {
		t.Errorf("the first call: %d %s", status, body)
	}
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.URL()+"/operator/v1/self", nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer "+token)
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusTooManyRequests || answer.Header.Get("Retry-After") == "" || answer.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("the second call: %s %v", answer.Status, answer.Header)
	}
	for range 3 {
		acting := auth.WithActing(t.Context(), auth.Acting{Operator: auth.Operator{Name: "the-admin", Role: auth.RoleAdmin}})
		w := &recorded{header: http.Header{}}
		r.operator.ServeHTTP(w, q.WithContext(acting))
		if w.status != http.StatusOK {
			t.Errorf("the console's call: %d", w.status)
		}
	}
}

// recorded is the answer to a call from within.
type recorded struct {
	header http.Header
	status int
}

func (w *recorded) Header() http.Header         { return w.header }
func (w *recorded) WriteHeader(status int)      { w.status = status }
func (w *recorded) Write(b []byte) (int, error) { return len(b), nil }

package server

import (
	"bufio"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/simlatch/simlatch/internal/carrier"
	"github.com/simlatch/simlatch/internal/operator/client"
)

// TestSecurityHeaders looks at the answer of every route, and of what is none.
func TestSecurityHeaders(t *testing.T) {
	eachIsolation(t, func(t *testing.T, m *isolation) {
		type ask struct{ method, path string }
		asks := []ask{
			{"GET", "/"},
			{"GET", "/docs"},
			{"GET", "/openapi.json"},
			{"GET", client.Prefix + "/docs"},
			{"GET", "/nothing"},
			{"POST", "/metrics"},
			{"POST", carrier.OutcomesPath},
			{"GET", carrier.OutcomesPath},
			{"PATCH", "/api/m2m/v1/session/login"},
			{"GET", "/operator/x"},
		}
		for path := range m.r.own() {
			asks = append(asks, ask{"GET", path})
		}
		for _, r := range m.r.api.Routes() {
			asks = append(asks, ask{r.Method, r.Path})
		}
		for _, r := range m.r.operator.Routes() {
			asks = append(asks, ask{r.Method, r.Path})
		}
		for _, a := range asks {
			got := m.ask(a.method, a.path, "", m.there, func(*http.Request) {})
			for _, want := range []string{"X-Content-Type-Options: [nosniff]", "Referrer-Policy: [no-referrer]", "X-Frame-Options: [DENY]", "Content-Security-Policy: [default-src 'none'"} {
				if !strings.Contains(got.text, want) {
					t.Errorf("%s %s: no %s in %s", a.method, a.path, want, got.text[:min(600, len(got.text))])
				}
			}
			if cached := strings.Contains(got.text, "Cache-Control: [no-store]"); !cached && !strings.Contains(a.path, "docs") && !strings.Contains(a.path, "openapi") && a.path != "/metrics" {
				t.Errorf("%s %s may be cached: %s", a.method, a.path, got.text)
			}
		}
		// What is no HTTP at all.
		for _, raw := range []string{"NONSENSE\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 2<<20) + "\r\n\r\n"} {
			c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", m.r.listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			_, _ = c.Write([]byte(raw)) // it is refused before its end
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp.Header.Get("X-Content-Type-Options") != "nosniff" || resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%.20q: %v", raw, resp.Header)
			}
			_ = resp.Body.Close()
			_ = c.Close()
		}
	})
}

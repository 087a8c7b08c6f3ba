package api

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// TestRateLimitByAddress holds an address back before anything is known of the
// caller, and nobody else.
func TestRateLimitByAddress(t *testing.T) {
	from := func(address string) func(*http.Request) { return func(r *http.Request) { r.RemoteAddr = address } }
	h := newHarness(t, func(c *Config) { c.AddressRateLimit = 2 })
	wrong := header("Authorization", "Bearer no")
	for i := range 2 {
		if a := h.do("GET", "/api/m2m/v1/callbacks/"+account, "", wrong, from("192.0.2.1:1")); a.StatusCode != http.StatusUnauthorized {
			t.Fatalf("call %d: %s", i, a)
		}
	}
	a := h.do("GET", "/api/m2m/v1/callbacks/"+account, "", wrong, from("192.0.2.1:2"))
	if a.StatusCode != http.StatusTooManyRequests || a.Header.Get("Retry-After") != "1" || a.code(t) != codeTooManyCalls {
		t.Errorf("third call: %s", a)
	}
	if a := h.do("GET", "/api/m2m/v1/callbacks/"+account, "", wrong, from("192.0.2.2:1")); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("another address: %s", a)
	}
	for i, want := range []int{401, 401, 429} { // three of one customer
		if a := h.do("GET", "/api/m2m/v1/callbacks/"+account, "", wrong, from(fmt.Sprintf("[2001:db8::%d]:1", i+1))); a.StatusCode != want {
			t.Errorf("IPv6 call %d: %s, want %d", i, a, want)
		}
	}
	now := time.Unix(1, 0)
	l := newLimits(1, func() int { return 1 })
	for i := range 3 * maxKept {
		_ = l.allow(fmt.Sprint(i), now) // it is the size that matters
	}
	if len(l.byApp) > maxKept {
		t.Errorf("%d addresses are kept, want at most %d", len(l.byApp), maxKept)
	}
}

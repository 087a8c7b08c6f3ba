package api

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/m2m"
)

func TestNoSuchPath(t *testing.T) {
	h := newHarness(t)
	fault := func(context string) map[string]any {
		return map[string]any{
			"code": "900906", "message": "No matching resource found in the API for the given request",
			"description": "Access failure for API: " + context + ", version: v1. Check the API documentation and add a proper REST resource path to the invocation URL",
		}
	}
	for target, context := range map[string]string{
		"/":                                           "/m2m/v1",
		"/api":                                        "/m2m/v1",
		"/api/m2m/v1":                                 "/m2m/v1",
		"/api/m2m/v1/":                                "/m2m/v1",
		"/api/m2m/v2/session/login":                   "/m2m/v1",
		"/api/m2m/v1/session/login/":                  "/m2m/v1",
		"/api/m2m/v1/session//login":                  "/m2m/v1",
		"/api/m2m/v1/session/./login":                 "/m2m/v1",
		"/api/m2m/v1/x/../session/login":              "/m2m/v1",
		"//api/m2m/v1/session/login":                  "/m2m/v1",
		"/API/m2m/v1/session/login":                   "/m2m/v1",
		"/api/m2m/v1/Session/Login":                   "/m2m/v1",
		"/api/m2m/v1/oauth2/token":                    "/m2m/v1",
		"/api/m2m/v1/devices/license/actions/assign/": "/m2m/v1",
		"/api/m2m/v1/devices/license/actions//":       "/m2m/v1",
		"/api/m2m/v1/devices/license/actions/a/b":     "/m2m/v1",
		"/api/m2m/v1/devices/actions/":                "/m2m/v1",
		"/api/m2m/v1/accounts/" + account + "/":       "/m2m/v1",
		"/api/m2m/v1/callbacks/" + account + "/name/": "/m2m/v1",
		"/api/ts/v1/oauth2/token/":                    "/ts/v1",
		"/ts/v1/session/login":                        "/ts/v1",
		"/openapi.json/":                              "/m2m/v1",
	} {
		for _, method := range []string{"GET", "POST", "DELETE", "OPTIONS", "CONNECT"} {
			r := httptest.NewRequest("GET", target, nil)
			r.Method = method
			rec := httptest.NewRecorder()
			h.handler.ServeHTTP(rec, r)
			a := answer{rec.Result(), rec.Body.Bytes()}
			h.check(r, a)
			got := a.fields(t)
			if diff := cmp.Diff(fault(context), got["fault"]); diff != "" || a.StatusCode != http.StatusNotFound || got["errorCode"] != codeNoResource {
				t.Errorf("%s %s: %s; fault (-want +got):\n%s", method, target, a, diff)
			}
		}
	}
}

// TestNoPath is about requests that are about no path.
func TestNoPath(t *testing.T) {
	h := newHarness(t)
	for _, r := range []*http.Request{
		{Method: "OPTIONS", URL: &url.URL{Path: "*"}, RequestURI: "*", Header: http.Header{}},
		{Method: "CONNECT", URL: &url.URL{Host: "x:443"}, RequestURI: "x:443", Header: http.Header{}},
	} {
		rec := httptest.NewRecorder()
		h.handler.ServeHTTP(rec, r)
		if a := (answer{rec.Result(), rec.Body.Bytes()}); a.StatusCode != http.StatusNotFound || a.code(t) != codeNoResource {
			t.Errorf("%s %s: %s", r.Method, r.RequestURI, a)
		}
	}
}

func TestMethods(t *testing.T) {
	h := newHarness(t)
	allowed := map[string][]string{
		"/session/login":                       {"POST"},
		"/session/password/actions/reset":      {"PUT"},
		"/devices/license/actions/assign":      {"DELETE", "POST"},
		"/devices/licenses/actions/unassign":   {"POST"},
		"/devices/license/actions/other":       {"DELETE", "POST"},
		"/devices/license/actions":             {"DELETE", "POST"},
		"/devices/license/actions/":            {"DELETE", "POST"},
		"/accounts/" + account:                 {"GET"},
		"/accounts/subscriptions/actions/list": {"POST"},
		"/account/subscriptions/actions/list":  {"POST"},
		"/accounts/a/requests/r/status":        {"GET"},
		"/callbacks/" + account:                {"GET", "POST"},
		"/callbacks/" + account + "/name/x":    {"DELETE"},
		"/devices/actions/list":                {"POST"},
		"/ts/v1/oauth2/token":                  {"POST"},
		"/api/ts/v1/oauth2/revoke":             {"POST"},
	}
	for target, allow := range allowed {
		if !strings.Contains(target, "ts/v1") {
			target = m2m.APIPrefix + target
		}
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW", "get"} {
			if slices.Contains(allow, method) {
				continue
			}
			r := httptest.NewRequest("GET", target, nil)
			r.Method = method
			rec := httptest.NewRecorder()
			h.handler.ServeHTTP(rec, r)
			a := answer{rec.Result(), rec.Body.Bytes()}
			h.check(r, a)
			if a.StatusCode != http.StatusMethodNotAllowed || a.Header.Get("Allow") != strings.Join(allow, ", ") || a.code(t) != m2m.CodeMethodNotAllowed {
				t.Errorf("%s %s: %s, Allow %q", method, target, a, a.Header.Get("Allow"))
			}
		}
	}
	if n := h.counted("simlatch_api_requests_total", m2m.CodeMethodNotAllowed, "other", "/session/login", "405"); n != 4 {
		t.Errorf("%v calls counted with an unusual method, want 4: CONNECT, TRACE, BREW and get", n)
	}
}

func TestRequestID(t *testing.T) {
	h := newHarness(t)
	for _, tt := range []struct{ sent, want string }{
		{"X-Request-ID2", "X-Request-ID2"},
		{"  a b  ", "a b"},
		{"a\tb\x00c\xffd", "abcd"},
		{strings.Repeat("x", 1000), strings.Repeat("x", 128)},
		{"\x00", "made"},
		{"", "made"},
	} {
		a := h.do("GET", "/api/m2m/v1/accounts/"+account, "", header("X-Request-ID", tt.sent))
		got := a.Header.Get("X-Request-ID")
		if tt.want == "made" {
			if len(got) != canonicalUUID {
				t.Errorf("%q: %q, want one made", tt.sent, got)
			}
		} else if got != tt.want {
			t.Errorf("%q: %q, want %q", tt.sent, got, tt.want)
		}
	}
}

func TestNewRefusesWhatIsMissing(t *testing.T) {
	h := newHarness(t)
	good := h.api.cfg
	for name, spoil := range map[string]func(*Config){
		"auth":      func(c *Config) { c.Auth = nil },
		"licenses":  func(c *Config) { c.Licenses = nil },
		"inventory": func(c *Config) { c.Inventory = nil },
		"listeners": func(c *Config) { c.Listeners = nil },
		"work":      func(c *Config) { c.Work = nil },
		"limit":     func(c *Config) { c.RateLimit = -1 },
		"metrics":   func(*Config) {}, // registered by the first
	} {
		cfg := good
		spoil(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: New accepted it", name)
		}
	}
	if _, err := New(Config{Auth: good.Auth, Licenses: h.licenses, Inventory: h.inventory, Listeners: h.listeners, Work: h.work}); err != nil {
		t.Errorf("New with nothing but what is needed: %v", err)
	}
}

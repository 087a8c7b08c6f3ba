package api

import (
	"net/http"
	"strings"
	"testing"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// broken is one thing that can be wrong with a request, and what then is the
// answer.
type broken struct {
	name   string
	status int
	code   string
	spoil  func(*spoiled)
}

// spoiled is a request in the making.
type spoiled struct {
	method, path string
	changes      []change
	body         string // takes the place of all that follows
	account, sku string
	group        string
	devices      []string
	accept       error
	replay       error
}

func (s *spoiled) text() string {
	if s.body != "" {
		return s.body
	}
	return `{"accountName":"` + s.account + `","skuNumber":"` + s.sku + `","groupName":"` + s.group + `","devices":[` + strings.Join(s.devices, ",") + `]}`
}

// inOrder lists what can be wrong in the order in which it is looked for.
func inOrder() []broken {
	return []broken{
		{"path", 404, codeNoResource, func(s *spoiled) { s.path += "/x" }},
		{"method", 405, m2m.CodeMethodNotAllowed, func(s *spoiled) { s.method = "PATCH" }},
		{"bearer", 401, m2m.CodeAuthorization, func(s *spoiled) { s.changes = append(s.changes, header("Authorization", "Bearer no")) }},
		{"session", 400, m2m.CodeSessionInvalid, func(s *spoiled) { s.changes = append(s.changes, header("VZ-M2M-Token", "no")) }},
		{"media type", 415, codeContentType, func(s *spoiled) { s.changes = append(s.changes, header("Content-Type", "text/plain")) }},
		{"encoding", 415, codeContentEncoding, func(s *spoiled) { s.changes = append(s.changes, header("Content-Encoding", "gzip")) }},
		{"size", 413, codeTooLarge, func(s *spoiled) {
			s.changes = append(s.changes, func(r *http.Request) { r.ContentLength = maxBody + 1 })
		}},
		{"JSON", 400, m2m.CodeDeserialization, func(s *spoiled) { s.body = `{"accountName":1}` }},
		{"account", 400, m2m.CodeAccountNotFound, func(s *spoiled) { s.account = foreign }},
		{"replay", 400, m2m.CodeKeyReused, func(s *spoiled) {
			s.changes, s.replay = append(s.changes, header("Idempotency-Key", "k")), license.ErrKeyReused
		}},
		{"SKU", 400, m2m.CodeSKUInvalid, func(s *spoiled) { s.sku = "x" }},
		{"group", 400, m2m.ErrGroupNotSupported.Code, func(s *spoiled) { s.group = "g" }},
		{"devices", 400, m2m.ErrDeviceNotDefined.Code, func(s *spoiled) { s.devices = nil }},
		{"identifiers", 400, m2m.CodeIdentifierInvalid, func(s *spoiled) {
			s.devices = append(s.devices, `{"deviceIds":[{"id":"1","kind":"imei"}]}`)
		}},
		{"duplicates", 400, m2m.CodeDeviceDuplicate, func(s *spoiled) { s.devices = append(s.devices, device(1)) }},
		{"count", 400, m2m.CodeMaxRequestsExceeded, func(s *spoiled) {
			for i := range 100 {
				s.devices = append(s.devices, device(10+i))
			}
		}},
		{"lifetime", 400, m2m.ErrUnassignLifetime.Code, func(s *spoiled) { s.sku = "SIMSec-IoT-Lt" }},
		{"policy", 400, m2m.CodePolicy, func(s *spoiled) { s.accept = &license.PolicyError{Rule: license.RuleLifetime} }},
		{"stored facts", 400, m2m.ErrInsufficientLicense.Code, func(s *spoiled) { s.accept = license.ErrInsufficient }},
	}
}

// TestOrderOfChecks breaks a request in two ways at once, every pair of ways:
// the first in the order is the answer.
func TestOrderOfChecks(t *testing.T) {
	h := newHarness(t)
	all := inOrder()
	for i, first := range all {
		for _, second := range all[i:] {
			// These take the place of each other.
			switch first.name + "+" + second.name {
			case "policy+stored facts", "SKU+lifetime", "devices+identifiers", "devices+duplicates", "devices+count":
				continue
			}
			s := &spoiled{method: "DELETE", path: assign, account: account, sku: "SIMSec-IoT", devices: []string{device(1)}}
			second.spoil(s)
			if first.name != second.name {
				first.spoil(s)
			}
			h.licenses.accept = refuseWith(s.accept)
			h.licenses.replay = func(string, string) (license.RequestID, error) {
				if s.replay != nil {
					return "", s.replay
				}
				return "", license.ErrNotFound
			}
			a := h.do(s.method, s.path, s.text(), s.changes...)
			if a.StatusCode != first.status || a.code(t) != first.code {
				t.Errorf("%s and %s: %s, want %d %s", first.name, second.name, a, first.status, first.code)
			}
		}
	}
}

// TestRateLimitComesAfterTheSession and before the body.
func TestRateLimit(t *testing.T) {
	nodes := 1
	h := newHarness(t, func(c *Config) { c.RateLimit, c.Nodes = 2, func() int { return nodes } })
	calls := func(bearer, session, body string) answer {
		return h.do("POST", assign, body, header("Authorization", "Bearer "+bearer), header("VZ-M2M-Token", session))
	}
	good := licenseJSON("SIMSec-IoT", device(1))
	for i := range 2 {
		if a := calls(h.bearer, h.session, good); a.StatusCode != 200 {
			t.Fatalf("call %d: %s", i, a)
		}
	}
	a := calls(h.bearer, h.session, "no JSON")
	if a.StatusCode != http.StatusTooManyRequests || a.Header.Get("Retry-After") != "1" || a.code(t) != codeTooManyCalls {
		t.Errorf("third call: %s, Retry-After %q", a, a.Header.Get("Retry-After"))
	}
	if a := calls(h.bearer, "no", good); a.code(t) != m2m.CodeSessionInvalid {
		t.Errorf("the session comes first: %s", a)
	}
	bearer := h.token("app2")
	if a := calls(bearer, h.login(bearer, "demo"), good); a.StatusCode != 200 {
		t.Errorf("another application: %s", a)
	}
	h.session = h.login(h.bearer, "demo")
	// A refused call uses nothing up: half a second makes room for one.
	h.clock.turn(500e6)
	if a := calls(h.bearer, h.session, good); a.StatusCode != 200 {
		t.Errorf("half a second later: %s", a)
	}
	// Four nodes share: half a call a second each.
	nodes = 4
	h.clock.turn(500e6)
	for range 5 {
		calls(h.bearer, h.session, good)
	}
	if a := calls(h.bearer, h.session, good); a.StatusCode != 429 || a.Header.Get("Retry-After") != "2" {
		t.Errorf("on four nodes: %s, Retry-After %q", a, a.Header.Get("Retry-After"))
	}
}

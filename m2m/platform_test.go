package m2m_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	"github.com/simlatch/simlatch/m2m"
)

// platform is as much of the API as the client's tests need: it gives out tokens
// and sessions, checks them, and takes down what it is sent.
type platform struct {
	*httptest.Server

	mu       sync.Mutex
	tokens   int // given out; the last is the valid one
	sessions int
	password string
	seen     []seen
	// reference has the platform behave as one that is not Simlatch.
	reference bool
	// answer, when set, may answer a call instead of the platform.
	answer func(w http.ResponseWriter, r *http.Request, body string) bool
}

type seen struct {
	Call, Body, Key, DryRun, ContentType string
}

func newPlatform() *platform {
	p := &platform{password: "demo-password"}
	p.Server = httptest.NewServer(p)
	return p
}

func (p *platform) config() m2m.Config {
	return m2m.Config{BaseURL: p.URL, Key: "demo-key", Secret: "demo-secret", Username: "demo", Password: "demo-password"}
}

func (p *platform) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, _ := io.ReadAll(r.Body)
	body := string(raw)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = append(p.seen, seen{
		r.Method + " " + r.URL.EscapedPath(), body, r.Header.Get("Idempotency-Key"),
		r.Header.Get(m2m.DryRunHeader), r.Header.Get("Content-Type"),
	})
	if !p.reference {
		w.Header().Set(m2m.ServerHeader, "1")
	}
	if p.answer != nil && p.answer(w, r, body) {
		return
	}
	switch path := strings.TrimPrefix(r.URL.Path, m2m.APIPrefix); {
	case r.URL.Path == m2m.TokenPrefix+"/oauth2/token":
		if key, secret, _ := r.BasicAuth(); key != "demo-key" || secret != "demo-secret" {
			fail(w, 401, "invalid_client", "unknown application or wrong secret")
			return
		}
		p.tokens++
		put(w, 200, m2m.TokenAnswer{AccessToken: fmt.Sprintf("token-%d", p.tokens), TokenType: "Bearer", ExpiresIn: 3600})
	case r.URL.Path == m2m.TokenPrefix+"/oauth2/revoke":
		p.tokens++
		put(w, 200, m2m.RevokeAnswer{Revoked: true})
	case r.Header.Get("Authorization") != fmt.Sprintf("Bearer token-%d", p.tokens):
		w.WriteHeader(401)
		_, _ = io.WriteString(w, `{"fault":{"code":"900901","message":"Invalid Credentials","description":"Access failure"}}`)
	case path == "/session/login":
		if !strings.Contains(body, fmt.Sprintf(`{"username":"demo","password":%q}`, p.password)) {
			fail(w, 400, m2m.CodeAuthentication, "The user name or password is wrong.")
			return
		}
		p.sessions++
		put(w, 200, m2m.SessionAnswer{SessionToken: fmt.Sprintf("session-%d", p.sessions)})
	case r.Header.Get(m2m.SessionHeader) != fmt.Sprintf("session-%d", p.sessions):
		fail(w, 400, m2m.CodeSessionExpired, "The session has expired")
	default:
		p.serve(w, r, path)
	}
}

// serve answers calls that are let in.
func (p *platform) serve(w http.ResponseWriter, r *http.Request, path string) {
	switch {
	case path == "/session/logout":
		p.sessions++
		put(w, 200, m2m.SessionAnswer{SessionToken: r.Header.Get(m2m.SessionHeader)})
	case path == "/session/password/actions/reset":
		p.password = "new-password"
		put(w, 200, m2m.PasswordAnswer{NewPassword: p.password})
	case path == "/devices/license/actions/assign" && r.Header.Get(m2m.DryRunHeader) == "true":
		put(w, 200, m2m.Plan{DryRun: true, Accepted: true, Action: map[string]string{"POST": "assign", "DELETE": "unassign"}[r.Method]})
	case path == "/devices/license/actions/assign":
		put(w, 200, m2m.RequestAccepted{RequestID: "c3f3d17c-79ff-4b35-82df-94446785b6e0"})
	case path == "/accounts/subscriptions/actions/list":
		put(w, 200, m2m.Subscriptions{AccountName: "0000123456-00001", SubscriptionList: []m2m.Subscription{{SKUNumber: "SIMSec-IoT", LicensePurchased: 9}}})
	case strings.HasSuffix(path, "/status"):
		put(w, 200, m2m.RequestStatus{RequestID: "c3f3d17c-79ff-4b35-82df-94446785b6e0", Status: "Pending"})
	case strings.HasPrefix(path, "/accounts/"):
		put(w, 200, m2m.Account{AccountName: "0000123456-00001"})
	case strings.HasPrefix(path, "/callbacks/") && r.Method == http.MethodGet:
		put(w, 200, []m2m.Listener{{ServiceName: m2m.CarrierService}})
	case strings.HasPrefix(path, "/callbacks/"):
		put(w, 200, m2m.ListenerAnswer{AccountName: "0000123456-00001", ServiceName: m2m.CarrierService})
	default:
		fail(w, 404, "900906", "No matching resource found")
	}
}

// calls lists what was called, and returns the last.
func (p *platform) calls() (names []string, last seen) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.seen {
		names = append(names, s.Call)
		last = s
	}
	return names, last
}

func put(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func fail(w http.ResponseWriter, status int, code, message string) {
	put(w, status, map[string]string{"errorCode": code, "errorMessage": message})
}

package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/simlatch/simlatch/m2m"
)

// access lends real tokens to those who come with the conventions of the
// reference's own simulator: a test token that never expires, and, where the
// sandbox is lenient, any session token and any user name and password
// (thingspace-api.md 4.1 and 5.2). What is behind it, which is the production
// code, sees nothing but ordinary calls.
type access struct {
	box  *Box
	next http.Handler

	mu       sync.Mutex // guards what follows, and is held while tokens are fetched
	token    string
	tokenAt  time.Time
	sessions map[string]*lentSession // by Authorization
	secrets  map[string]bool         // the Basic headers that clients got tokens with
	opened   map[string]string       // the sessions that clients used, with their Authorization
}

type lentSession struct {
	value string
	used  time.Time
}

// Tokens are fetched anew well before they end: after an hour, and 20 minutes
// idle.
const (
	tokenAge    = 50 * time.Minute
	sessionIdle = 15 * time.Minute
)

func newAccess(box *Box, next http.Handler) *access {
	a := &access{box: box, next: next}
	a.forget()
	return a
}

// forget is called when all tokens are void.
func (a *access) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.token, a.sessions = "", map[string]*lentSession{}
	a.secrets, a.opened = map[string]bool{}, map[string]string{}
}

// lend puts real tokens in the place of those that the call came with, where the
// conventions allow it.
func (a *access) lend(r *http.Request) {
	spec := &a.box.spec
	a.mu.Lock()
	defer a.mu.Unlock()
	auth := r.Header.Get("Authorization")
	one := len(r.Header.Values("Authorization")) == 1 // the API refuses two, and is to see them
	if one && spec.TestToken != "" && auth == "Bearer "+spec.TestToken {
		auth = "Bearer " + a.testToken(r.Context())
		r.Header.Set("Authorization", auth)
	}
	switch {
	case !spec.lenient() || forToken(r):
	case strings.HasSuffix(r.URL.Path, "/session/login"):
		setBody(r, loginBody(spec))
	case len(r.Header.Values(m2m.SessionHeader)) <= 1: // the API refuses two
		r.Header.Set(m2m.SessionHeader, a.session(r.Context(), auth))
	}
}

func forToken(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, m2m.TokenPrefix+"/") || strings.HasPrefix(r.URL.Path, "/ts/v1/")
}

// seen remembers the credentials of a call that was answered with 200, so that
// what they got can be made to expire.
func (a *access) seen(r *http.Request, answer []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	auth := r.Header.Get("Authorization")
	if forToken(r) {
		a.secrets[auth] = true
		return
	}
	session := r.Header.Get(m2m.SessionHeader)
	if strings.HasSuffix(r.URL.Path, "/session/login") {
		var login struct {
			SessionToken string `json:"sessionToken"`
		}
		_ = json.Unmarshal(answer, &login) // our own
		session = login.SessionToken
	}
	if session != "" {
		a.opened[session] = auth
	}
}

// testToken is the token that stands behind the test token; mu is held.
func (a *access) testToken(ctx context.Context) string {
	if age := a.box.clock.Now().Sub(a.tokenAt); a.token == "" || age < 0 || age > tokenAge {
		a.token, a.tokenAt = a.issue(ctx), a.box.clock.Now()
	}
	return a.token
}

// issue gets a new token: the current one may be about to end, so it is revoked.
func (a *access) issue(ctx context.Context) string {
	spec := &a.box.spec
	r, _ := http.NewRequestWithContext(ctx, http.MethodPost, m2m.TokenPrefix+"/oauth2/token", nil) // it parses
	r.SetBasicAuth(spec.Application.Name, spec.Application.Password)
	basic := r.Header.Get("Authorization")
	if a.token != "" {
		a.revoke(ctx, basic, a.token)
	}
	return a.call(ctx, http.MethodPost, r.URL.Path, basic, "", "application/x-www-form-urlencoded", []byte("grant_type=client_credentials"))["access_token"]
}

// session is a session that lives, for an application; mu is held.
func (a *access) session(ctx context.Context, auth string) string {
	now := a.box.clock.Now()
	s := a.sessions[auth]
	if s == nil {
		s = &lentSession{}
		a.sessions[auth] = s
	}
	if idle := now.Sub(s.used); s.value == "" || idle < 0 || idle > sessionIdle {
		s.value = a.call(ctx, http.MethodPost, m2m.APIPrefix+"/session/login", auth, "", "application/json", loginBody(&a.box.spec))["sessionToken"]
	}
	s.used = now
	return s.value
}

func loginBody(spec *Spec) []byte {
	body, _ := json.Marshal(map[string]string{"username": spec.User.Name, "password": spec.User.Password}) // strings marshal
	return body
}

func (a *access) revoke(ctx context.Context, basic, token string) {
	a.call(ctx, http.MethodPost, m2m.TokenPrefix+"/oauth2/revoke", basic, "", "application/x-www-form-urlencoded", []byte("token="+token))
}

// expire ends the tokens, the sessions, or both, that clients were given.
func (a *access) expire(ctx context.Context, tokens, sessions bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if sessions {
		for session, auth := range a.opened {
			a.call(ctx, http.MethodPost, m2m.APIPrefix+"/session/logout", auth, session, "application/x-www-form-urlencoded", nil)
		}
		clear(a.opened)
		clear(a.sessions)
	}
	if !tokens {
		return
	}
	for basic := range a.secrets {
		token := a.call(ctx, http.MethodPost, m2m.TokenPrefix+"/oauth2/token", basic, "", "application/x-www-form-urlencoded", []byte("grant_type=client_credentials"))["access_token"]
		if token != "" {
			a.revoke(ctx, basic, token)
		}
	}
	a.token = "" // where it was of the same application, it is revoked with it
}

// call makes a call of the API in this process and returns the strings of its
// answer.
func (a *access) call(ctx context.Context, method, path, auth, session, contentType string, body []byte) map[string]string {
	r, _ := http.NewRequestWithContext(ctx, method, "http://localhost"+path, nil) // it parses
	r.RemoteAddr = "127.0.0.1:0"
	r.Header.Set("Authorization", auth)
	r.Header.Set("Content-Type", contentType)
	if session != "" {
		r.Header.Set(m2m.SessionHeader, session)
	}
	setBody(r, body)
	var got answer
	a.next.ServeHTTP(&got, r)
	var members map[string]any
	_ = json.Unmarshal(got.body.Bytes(), &members) // an error's is told by what it lacks
	texts := map[string]string{}
	for name, v := range members {
		if s, ok := v.(string); ok {
			texts[name] = s
		}
	}
	return texts
}

func setBody(r *http.Request, body []byte) {
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
}

// answer keeps an answer.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header is kept.
func (a *answer) Header() http.Header {
	if a.header == nil {
		a.header = http.Header{}
	}
	return a.header
}

// WriteHeader keeps the status.
func (a *answer) WriteHeader(status int) { a.status = status }

// Write keeps the body.
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

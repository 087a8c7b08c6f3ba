package m2m_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/simlatch/simlatch/m2m"
)

const account = "0000123456-00001"

func setup(t *testing.T, change func(*m2m.Config)) (*platform, *m2m.Client) {
	t.Helper()
	p := newPlatform()
	t.Cleanup(p.Close)
	cfg := p.config()
	if change != nil {
		change(&cfg)
	}
	c, err := m2m.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p, c
}

func request() m2m.LicenseRequest {
	return m2m.LicenseRequest{
		AccountName: account, SKUNumber: "SIMSec-IoT",
		Devices: []m2m.Device{{DeviceIDs: []m2m.DeviceID{{ID: "89148000000000000012", Kind: "iccid"}}}},
	}
}

const requestJSON = `{"accountName":"0000123456-00001","skuNumber":"SIMSec-IoT","devices":[{"deviceIds":[{"id":"89148000000000000012","kind":"iccid"}]}]}`

func TestCalls(t *testing.T) {
	ctx := context.Background()
	const key = "own-key"
	tests := []struct {
		name string
		call func(c *m2m.Client) (any, error)
		want seen
		out  any
	}{
		{
			"assign", func(c *m2m.Client) (any, error) { return c.Assign(ctx, request(), m2m.WithIdempotencyKey(key)) },
			seen{"POST /api/m2m/v1/devices/license/actions/assign", requestJSON, key, "", "application/json"},
			"c3f3d17c-79ff-4b35-82df-94446785b6e0",
		},
		{
			"unassign", func(c *m2m.Client) (any, error) { return c.Unassign(ctx, request(), m2m.WithIdempotencyKey(key)) },
			seen{"DELETE /api/m2m/v1/devices/license/actions/assign", requestJSON, key, "", "application/json"},
			"c3f3d17c-79ff-4b35-82df-94446785b6e0",
		},
		{
			"plan", func(c *m2m.Client) (any, error) { return c.Plan(ctx, m2m.ActionUnassign, request()) },
			seen{"DELETE /api/m2m/v1/devices/license/actions/assign", requestJSON, "", "true", "application/json"},
			m2m.Plan{DryRun: true, Accepted: true, Action: "unassign"},
		},
		{
			"subscriptions", func(c *m2m.Client) (any, error) { return c.Subscriptions(ctx, account, "") },
			seen{"POST /api/m2m/v1/accounts/subscriptions/actions/list", `{"accountName":"0000123456-00001"}`, "", "", "application/json"},
			m2m.Subscriptions{AccountName: account, SubscriptionList: []m2m.Subscription{{SKUNumber: "SIMSec-IoT", LicensePurchased: 9}}},
		},
		{
			"account", func(c *m2m.Client) (any, error) { return c.Account(ctx, "a/b c") },
			seen{"GET /api/m2m/v1/accounts/a%2Fb%20c", "", "", "", ""},
			m2m.Account{AccountName: account},
		},
		{
			"status", func(c *m2m.Client) (any, error) { return c.RequestStatus(ctx, account, "x") },
			seen{"GET /api/m2m/v1/accounts/0000123456-00001/requests/x/status", "", "", "", ""},
			m2m.RequestStatus{RequestID: "c3f3d17c-79ff-4b35-82df-94446785b6e0", Status: "Pending"},
		},
		{
			"listeners", func(c *m2m.Client) (any, error) { return c.Listeners(ctx, account) },
			seen{"GET /api/m2m/v1/callbacks/0000123456-00001", "", "", "", ""},
			[]m2m.Listener{{ServiceName: m2m.CarrierService}},
		},
		{
			"register", func(c *m2m.Client) (any, error) {
				return c.RegisterListener(ctx, account, m2m.ListenerRequest{Name: m2m.CarrierService, URL: "http://x"})
			},
			seen{"POST /api/m2m/v1/callbacks/0000123456-00001", `{"name":"CarrierService","url":"http://x"}`, "", "", "application/json"},
			m2m.ListenerAnswer{AccountName: account, ServiceName: m2m.CarrierService},
		},
		{
			"deregister", func(c *m2m.Client) (any, error) { return c.DeregisterListener(ctx, account, m2m.CarrierService) },
			seen{"DELETE /api/m2m/v1/callbacks/0000123456-00001/name/CarrierService", "", "", "", ""},
			m2m.ListenerAnswer{AccountName: account, ServiceName: m2m.CarrierService},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, c := setup(t, nil)
			out, err := tt.call(c)
			if err != nil {
				t.Fatal(err)
			}
			names, last := p.calls()
			if last != tt.want {
				t.Errorf("sent %+v, want %+v", last, tt.want)
			}
			if want := []string{"POST /api/ts/v1/oauth2/token", "POST /api/m2m/v1/session/login", tt.want.Call}; !slices.Equal(names, want) {
				t.Errorf("calls %q, want %q", names, want)
			}
			if !reflect.DeepEqual(out, tt.out) {
				t.Errorf("answer %+v, want %+v", out, tt.out)
			}
		})
	}
}

func TestOwnKeyEachTime(t *testing.T) {
	p, c := setup(t, nil)
	var keys []string
	for range 2 {
		if _, err := c.Assign(t.Context(), request()); err != nil {
			t.Fatal(err)
		}
		_, last := p.calls()
		if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(last.Key) {
			t.Errorf("Idempotency-Key %q is no UUID", last.Key)
		}
		keys = append(keys, last.Key)
	}
	if keys[0] == keys[1] {
		t.Error("two calls have one Idempotency-Key")
	}
}

func TestPlanOnAServerWithoutDryRun(t *testing.T) {
	p, c := setup(t, nil)
	p.reference = true
	if _, err := c.Plan(t.Context(), m2m.ActionAssign, request()); !errors.Is(err, m2m.ErrNoDryRun) {
		t.Errorf("Plan = %v, want ErrNoDryRun", err)
	}
	for _, s := range p.seen {
		if strings.Contains(s.Call, "/license/") {
			t.Errorf("the request was sent: %+v", s)
		}
	}
}

func TestRenewal(t *testing.T) {
	p, c := setup(t, nil)
	ctx := t.Context()
	if _, err := c.Account(ctx, account); err != nil {
		t.Fatal(err)
	}
	expire := func(token, session bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if token {
			p.tokens += 100
		}
		if session {
			p.sessions += 100
		}
	}
	for _, tt := range []struct{ token, session bool }{{true, false}, {false, true}, {true, true}} {
		expire(tt.token, tt.session)
		before, _ := p.calls()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := c.Account(ctx, account); err != nil {
					t.Errorf("token expired %v, session expired %v: %v", tt.token, tt.session, err)
				}
			})
		}
		wg.Wait()
		after, _ := p.calls()
		count := map[string]int{}
		for _, name := range after[len(before):] {
			count[name]++
		}
		if n := count["POST /api/ts/v1/oauth2/token"]; n != btoi(tt.token) {
			t.Errorf("%+v: %d tokens fetched by 20 callers", tt, n)
		}
		if n := count["POST /api/m2m/v1/session/login"]; n != btoi(tt.session) {
			t.Errorf("%+v: %d logins by 20 callers", tt, n)
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestRenewalIsBounded(t *testing.T) {
	for _, answer := range []struct {
		status int
		code   string
	}{{401, m2m.CodeAuthorization}, {400, m2m.CodeSessionExpired}, {400, m2m.CodeSessionInvalid}} {
		p, c := setup(t, nil)
		p.answer = func(w http.ResponseWriter, r *http.Request, _ string) bool {
			if strings.Contains(r.URL.Path, "/accounts/") {
				fail(w, answer.status, answer.code, "no")
				return true
			}
			return false
		}
		_, err := c.Account(t.Context(), account)
		var e *m2m.Error
		if !errors.As(err, &e) || e.Status != answer.status || e.Code != answer.code {
			t.Errorf("got %v, want the server's %d %s", err, answer.status, answer.code)
		}
		if names, _ := p.calls(); len(names) > 8 {
			t.Errorf("%d %s made the client call %q", answer.status, answer.code, names)
		}
	}
}

// TestRefusedCredentials holds the client to one try: more get a user locked out.
func TestRefusedCredentials(t *testing.T) {
	for name, change := range map[string]func(*m2m.Config){
		"password": func(c *m2m.Config) { c.Password = "wrong" },
		"secret":   func(c *m2m.Config) { c.Secret = "wrong" },
	} {
		t.Run(name, func(t *testing.T) {
			p, c := setup(t, change)
			var wg sync.WaitGroup
			for range 10 {
				wg.Go(func() {
					var e *m2m.Error
					if _, err := c.Account(t.Context(), account); !errors.As(err, &e) || e.Status >= 500 {
						t.Errorf("got %v, want the refusal", err)
					}
				})
			}
			wg.Wait()
			before, _ := p.calls()
			if len(before) > 2 {
				t.Errorf("calls %q, want one try", before)
			}
			if err := c.Login(t.Context()); err == nil {
				t.Error("Login passed")
			}
			if after, _ := p.calls(); len(after) != len(before)+1 {
				t.Errorf("Login made %d calls, want 1", len(after)-len(before))
			}
			p.mu.Lock()
			p.password = "wrong" // it is right now
			p.mu.Unlock()
			if err := c.Login(t.Context()); name == "password" && err != nil {
				t.Errorf("Login after the password was put right: %v", err)
			}
		})
	}
}

func TestSessionCalls(t *testing.T) {
	p, c := setup(t, nil)
	ctx := t.Context()
	if err := c.Login(ctx); err != nil {
		t.Fatal(err)
	}
	token, err := c.Token(ctx)
	if err != nil || token != "token-1" {
		t.Errorf("Token = %q, %v, want token-1", token, err)
	}
	if got, err := c.ResetPassword(ctx); err != nil || got != "new-password" {
		t.Errorf("ResetPassword = %q, %v, want new-password", got, err)
	}
	if err := c.Logout(ctx); err != nil {
		t.Error(err)
	}
	if err := c.Revoke(ctx); err != nil {
		t.Error(err)
	}
	if _, last := p.calls(); last.Body != "grant_type=client_credentials&token=token-1" || last.ContentType != "application/x-www-form-urlencoded" {
		t.Errorf("revoke sent %+v", last)
	}
	if err := errors.Join(c.Logout(ctx), c.Revoke(ctx)); err != nil { // nothing left to end
		t.Error(err)
	}
	if _, err := c.Account(ctx, account); err != nil {
		t.Errorf("with a new password, token and session: %v", err)
	}
}

func TestErrors(t *testing.T) {
	tests := []struct {
		status        int
		body          string
		code, message string
		is            error
	}{
		{
			400, `{"errorCode":"INPUT_INVALID.InsufficientLicense.Invalid","errorMessage":"You do not have required licenses to perform this action."}`,
			m2m.ErrInsufficientLicense.Code, m2m.ErrInsufficientLicense.Message, m2m.ErrInsufficientLicense,
		},
		{404, `{"fault":{"code":"900906","message":"No matching resource","description":"look again"}}`, "900906", "No matching resource: look again", nil},
		{400, `{"error":"invalid_request","error_description":"Missing grant_type parameter value"}`, "invalid_request", "Missing grant_type parameter value", nil},
		{403, "<am:fault>\n <x>", "", "<am:fault> <x>", nil},
		{500, "", "", "Internal Server Error", nil},
		{302, "", "", "Found", nil},
		{418, strings.Repeat("é", 5000), "", strings.Repeat("é", 200) + "…", nil},
	}
	for _, tt := range tests {
		p, c := setup(t, nil)
		p.answer = func(w http.ResponseWriter, r *http.Request, _ string) bool {
			if !strings.HasPrefix(r.URL.Path, m2m.APIPrefix+"/devices") {
				return false
			}
			w.Header().Set("X-Request-ID", "r-1")
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(tt.status)
			_, _ = io.WriteString(w, tt.body)
			return true
		}
		_, err := c.Assign(t.Context(), request())
		var e *m2m.Error
		if !errors.As(err, &e) {
			t.Errorf("%d %.20s: got %v, want an *m2m.Error", tt.status, tt.body, err)
			continue
		}
		if e.Status != tt.status || e.Code != tt.code || e.Message != tt.message || e.RequestID != "r-1" {
			t.Errorf("%d %.20s: got %+v", tt.status, tt.body, e)
		}
		if tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("%v is not %v", err, tt.is)
		}
	}
}

func TestRetries(t *testing.T) {
	ctx := context.Background()
	assign := func(c *m2m.Client) error { _, err := c.Assign(ctx, request()); return err }
	deregister := func(c *m2m.Client) error { _, err := c.DeregisterListener(ctx, account, "x"); return err }
	reset := func(c *m2m.Client) error { _, err := c.ResetPassword(ctx); return err }
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	hangUp := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	patience := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(503)
	}
	tests := []struct {
		name   string
		call   func(*m2m.Client) error
		answer http.HandlerFunc
		fails  int
		tries  int
		ok     bool
	}{
		{"503 twice", assign, status(503), 2, 3, true},
		{"429 twice", assign, status(429), 2, 3, true},
		{"broken connection", assign, hangUp, 1, 2, true},
		{"too often", assign, status(503), 9, 4, false},
		{"Retry-After too far off", assign, patience, 9, 1, false},
		{"400", assign, status(400), 9, 1, false},
		{"500", assign, status(500), 9, 1, false},
		{"deregister 429", deregister, status(429), 1, 2, true},
		{"deregister 503: may have happened", deregister, status(503), 1, 1, false},
		{"deregister broken connection", deregister, hangUp, 1, 1, false},
		{"reset", reset, status(429), 1, 1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p, c := setup(t, nil)
			if err := c.Login(ctx); err != nil {
				t.Fatal(err)
			}
			var keys []string
			p.answer = func(w http.ResponseWriter, r *http.Request, _ string) bool {
				keys = append(keys, r.Header.Get("Idempotency-Key"))
				if len(keys) > tt.fails {
					return false
				}
				tt.answer(w, r)
				return true
			}
			err := tt.call(c)
			p.mu.Lock()
			defer p.mu.Unlock()
			if (err == nil) != tt.ok || len(keys) != tt.tries {
				t.Errorf("got %v after %d tries, want success %v after %d", err, len(keys), tt.ok, tt.tries)
			}
			if slices.ContainsFunc(keys, func(k string) bool { return k != keys[0] }) {
				t.Errorf("keys %q, want one key for all tries", keys)
			}
		})
	}
}

// TestWithoutRepeat: neither the client nor its transport sends a call again
// whose connection broke, with or without an Idempotency-Key.
func TestWithoutRepeat(t *testing.T) {
	for _, opts := range [][]m2m.CallOption{{m2m.WithoutRepeat()}, {m2m.WithoutRepeat(), m2m.WithIdempotencyKey("key")}} {
		p := newPlatform()
		calls := 0
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if strings.HasSuffix(q.URL.Path, "/assign") {
				calls++
				panic(http.ErrAbortHandler)
			}
			p.ServeHTTP(w, q)
		}))
		cfg := p.config()
		cfg.BaseURL = srv.URL
		c, err := m2m.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		// On a connection that has been used, a transport would try again.
		if _, err := c.Subscriptions(t.Context(), account, ""); err != nil {
			t.Fatal(err)
		}
		if id, err := c.Assign(t.Context(), request(), opts...); err == nil {
			t.Errorf("Assign = %s, though its connection broke", id)
		}
		srv.Close()
		p.Close()
		if calls != 1 {
			t.Errorf("the call was sent %d times", calls)
		}
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	p, c := setup(t, nil)
	p.answer = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		if !strings.Contains(r.URL.Path, "accounts") || len(p.seen) > 3 {
			return false
		}
		w.Header().Set("Retry-After", "1")
		fail(w, 429, "x", "too many calls")
		return true
	}
	start := time.Now()
	if _, err := c.Account(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < time.Second {
		t.Errorf("repeated after %s, want a second", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	p.mu.Lock()
	p.seen = nil
	p.mu.Unlock()
	var e *m2m.Error
	if _, err := c.Account(ctx, account); !errors.As(err, &e) || e.RetryAfter != time.Second {
		t.Errorf("got %v, want the server's last error when the context ends", err)
	}
}

func TestDevices(t *testing.T) {
	p, c := setup(t, nil)
	numbers := true
	p.answer = func(w http.ResponseWriter, r *http.Request, body string) bool {
		if !strings.Contains(r.URL.Path, "/devices/") {
			return false
		}
		var after int
		if i := strings.Index(body, `"largestDeviceIdSeen":`); i >= 0 {
			_, _ = fmt.Sscanf(body[i:], `"largestDeviceIdSeen":%d`, &after)
		}
		page := m2m.DeviceList{HasMoreData: after < 4}
		for n := after + 1; n <= min(after+2, 5); n++ {
			d := m2m.DeviceInfo{IPAddress: fmt.Sprint(n)}
			if numbers {
				d.ExtendedAttributes = []m2m.Attribute{{Key: "Other"}, {Key: "DeviceId", Value: fmt.Sprint(n)}}
			}
			page.Devices = append(page.Devices, d)
		}
		put(w, map[bool]int{true: 202, false: 200}[page.HasMoreData], page)
		return true
	}
	var got []string
	for d, err := range c.Devices(t.Context(), m2m.DeviceListRequest{AccountName: account}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, d.IPAddress)
	}
	if strings.Join(got, "") != "12345" {
		t.Errorf("devices %v, want 1 to 5", got)
	}
	for _, err := range c.Devices(t.Context(), m2m.DeviceListRequest{}) {
		if err != nil {
			t.Error(err)
		}
		break // must be possible
	}
	p.mu.Lock()
	numbers = false
	p.mu.Unlock()
	var last error
	for _, last = range c.Devices(t.Context(), m2m.DeviceListRequest{}) {
	}
	if last == nil {
		t.Error("pages without a DeviceId to go on from ended without an error")
	}
}

func TestWithoutUser(t *testing.T) {
	p, c := setup(t, func(cfg *m2m.Config) { cfg.Username, cfg.Password = "", "" })
	_, err := c.Account(t.Context(), account)
	if !errors.Is(err, &m2m.Error{Code: m2m.CodeSessionExpired}) {
		t.Errorf("got %v, want what the server says to a call without session", err)
	}
	if names, _ := p.calls(); len(names) != 2 {
		t.Errorf("calls %q, want a token and the call", names)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, cfg := range []m2m.Config{
		{},
		{BaseURL: "https://h"},
		{BaseURL: "h", Key: "k", Secret: "s"},
		{BaseURL: "ftp://h", Key: "k", Secret: "s"},
		{BaseURL: "https://u:p@h", Key: "k", Secret: "s"},
		{BaseURL: "https://h?q", Key: "k", Secret: "s"},
		{BaseURL: "://", Key: "k", Secret: "s"},
	} {
		if _, err := m2m.New(cfg); err == nil {
			t.Errorf("New(%+v) passed", cfg)
		} else if strings.Contains(err.Error(), "u:p@") {
			t.Errorf("New(%q) shows a password: %v", cfg.BaseURL, err)
		}
	}
}

// TestSwitchedProtocols: a server that makes a bare connection of a call, for which no
// time limit would be, holds nobody up.
func TestSwitchedProtocols(t *testing.T) {
	p, c := setup(t, nil)
	p.answer = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "x")
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return true
		}
		_, _ = io.Copy(io.Discard, conn) // until the client has enough
		_ = conn.Close()
		return true
	}
	var e *m2m.Error
	if _, err := c.Subscriptions(t.Context(), account, ""); !errors.As(err, &e) || e.Status != http.StatusSwitchingProtocols {
		t.Errorf("the error is %v", err)
	}
}

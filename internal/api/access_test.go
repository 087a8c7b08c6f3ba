package api

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

const tokenPath = m2m.TokenPrefix + "/oauth2/token"

func TestBearer(t *testing.T) {
	h := newHarness(t)
	missing := map[string]any{
		"code": "900902", "message": "Missing Credentials",
		"description": `Required OAuth credentials not provided. Make sure your API invocation call has a header: "Authorization: Bearer ACCESS_TOKEN"`,
	}
	invalid := map[string]any{
		"code": "900901", "message": "Invalid Credentials",
		"description": "Access failure for API: /m2m/v1, version: v1. Make sure you have given the correct access token",
	}
	good := "Bearer " + h.bearer
	for _, tt := range []struct {
		name   string
		path   string
		change change
		fault  map[string]any
	}{
		{"absent", assign, header("Authorization"), missing},
		{"empty", assign, header("Authorization", ""), missing},
		{"no token", assign, header("Authorization", "Bearer "), missing},
		{"basic", assign, header("Authorization", "Basic YTpi"), missing},
		{"bare", assign, header("Authorization", h.bearer), missing},
		{"wrong", assign, header("Authorization", "Bearer "+strings.ToUpper(h.bearer)), invalid},
		{"two", assign, header("Authorization", good, good), invalid},
		{"two in one", assign, header("Authorization", good+", "+good), invalid},
		{"in the query", assign + "?access_token=" + h.bearer, header("Authorization"), invalid},
		{"in the query too", assign + "?Access_Token=" + h.bearer, header("Authorization", good), invalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h.t = t
			a := h.do("POST", tt.path, "not read", tt.change)
			m := a.fields(t)
			if diff := cmp.Diff(tt.fault, m["fault"]); diff != "" || a.StatusCode != http.StatusUnauthorized || m["errorCode"] != m2m.CodeAuthorization ||
				!strings.HasPrefix(a.Header.Get("WWW-Authenticate"), "Bearer ") {
				t.Errorf("%s; fault (-want +got):\n%s", a, diff)
			}
		})
	}
	h.clock.turn(time.Hour)
	if a := h.do("POST", assign, "not read"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("an expired token: %s", a)
	}
}

func TestSession(t *testing.T) {
	h := newHarness(t)
	second := h.token("app2")
	for _, tt := range []struct {
		name, path string
		change     change
		code       string
	}{
		{"absent", assign, header("VZ-M2M-Token"), m2m.CodeSessionInvalid},
		{"empty", assign, header("VZ-M2M-Token", ""), m2m.CodeSessionInvalid},
		{"no UUID", assign, header("VZ-M2M-Token", "12345"), m2m.CodeSessionInvalid},
		{"a UUID in braces", assign, header("VZ-M2M-Token", "{"+h.session+"}"), m2m.CodeSessionInvalid},
		{"a UUID without hyphens", assign, header("VZ-M2M-Token", strings.ReplaceAll(h.session, "-", "")), m2m.CodeSessionInvalid},
		{"two", assign, header("VZ-M2M-Token", h.session, h.session), m2m.CodeSessionInvalid},
		{"in the query", assign + "?vz-m2m-token=" + h.session, header("X", "y"), m2m.CodeSessionInvalid},
		{"never known", assign, header("VZ-M2M-Token", uuid.NewString()), m2m.CodeSessionExpired},
		{"of another application", assign, header("Authorization", "Bearer "+second), m2m.CodeSessionExpired},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h.t = t
			if a := h.do("POST", tt.path, "not read", tt.change); a.StatusCode != http.StatusBadRequest || a.code(t) != tt.code {
				t.Errorf("%s, want 400 %s", a, tt.code)
			}
		})
	}
	h.clock.turn(21 * time.Minute) // one more for a use that was not written down
	a := h.do("POST", assign, "not read")
	want := map[string]any{"errorCode": "UnifiedWebService.REQUEST_FAILED.SessionToken.Expired", "errorMessage": "The session has expired"}
	if diff := cmp.Diff(want, a.fields(t)); diff != "" {
		t.Errorf("idle for 20 minutes (-want +got):\n%s", diff)
	}
}

func TestLoginAndOut(t *testing.T) {
	h := newHarness(t)
	login := func(body string, changes ...change) answer {
		return h.do("POST", "/api/m2m/v1/session/login", body, append([]change{header("VZ-M2M-Token")}, changes...)...)
	}
	a := login(`{"username":"demo","password":"password"}`)
	session, _ := a.fields(t)["sessionToken"].(string)
	if id, err := uuid.Parse(session); err != nil || id.Version() != 4 || a.fields(t)["expiresIn"] != 1200.0 || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("login: %s", a)
	}
	// A form, as one client sends with every POST.
	a = h.do("POST", "/api/m2m/v1/session/logout", "a=b", header("VZ-M2M-Token", session),
		header("Content-Type", "application/x-www-form-urlencoded"), header("Content-Encoding", "gzip"))
	if diff := cmp.Diff(map[string]any{"sessionToken": session}, a.fields(t)); diff != "" {
		t.Errorf("logout (-want +got):\n%s", diff)
	}
	if a := h.do("POST", "/api/m2m/v1/session/logout", "", header("VZ-M2M-Token", session)); a.code(t) != m2m.CodeSessionExpired {
		t.Errorf("after logout: %s", a)
	}
	if a := login(`{"username":"demo","password":"password"}`, header("VZ-M2M-Token", "stale")); a.StatusCode != http.StatusOK {
		t.Errorf("login with a stale session token: %s", a)
	}
	if a := login(`{"username":"demo","password":"password"}`, header("VZ-M2M-Token", "a", "b")); a.code(t) != m2m.CodeSessionInvalid {
		t.Errorf("login with two session tokens: %s", a)
	}
	for _, body := range []string{
		`{"username":"demo","password":"Password"}`, `{"username":"nobody","password":"password"}`,
		`{"username":"demo"}`, `{"username":"de\u0000mo","password":"password"}`, `{}`,
	} {
		a := login(body)
		want := map[string]any{"errorCode": m2m.CodeAuthentication, "errorMessage": messageWrongCredentials}
		if diff := cmp.Diff(want, a.fields(t)); diff != "" || a.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s", body, a)
		}
	}
	if a := login(""); a.code(t) != m2m.CodeRequestUndefined {
		t.Errorf("an empty login: %s", a)
	}
}

// TestSlowLogins refuses the sixth try in a row and later ones unchecked, with
// the same body.
func TestSlowLogins(t *testing.T) {
	h := newHarness(t)
	login := func(password, from string) answer {
		return h.do("POST", "/api/m2m/v1/session/login", `{"username":"demo","password":"`+password+`"}`, func(r *http.Request) { r.RemoteAddr = from })
	}
	var plain answer
	for range 6 {
		if plain = login("wrong", "192.0.2.1:1000"); plain.StatusCode != http.StatusBadRequest {
			t.Fatalf("early try: %s", plain)
		}
	}
	a := login("password", "192.0.2.1:2000")
	if a.StatusCode != http.StatusTooManyRequests || a.Header.Get("Retry-After") == "" || string(a.body) != string(plain.body) {
		t.Errorf("late try: %s, Retry-After %q, want the body %s", a, a.Header.Get("Retry-After"), plain.body)
	}
	if a := login("password", "[2001:db8::1]:1"); a.StatusCode != http.StatusOK {
		t.Errorf("from another address: %s", a)
	}
	h.clock.turn(time.Minute)
	if a := login("password", "192.0.2.1:1000"); a.StatusCode != http.StatusOK {
		t.Errorf("a minute later: %s", a)
	}
}

func TestPasswordReset(t *testing.T) {
	h := newHarness(t)
	const path = "/api/m2m/v1/session/password/actions/reset"
	if a := h.do("PUT", path, `{"oldPassword":"wrong"}`); a.StatusCode != http.StatusBadRequest || a.code(t) != m2m.CodeAuthentication {
		t.Errorf("wrong password: %s", a)
	}
	a := h.do("PUT", path, `{"oldPassword":"password"}`)
	fresh, _ := a.fields(t)["newPassword"].(string)
	if a.StatusCode != http.StatusOK || len(fresh) < 12 {
		t.Fatalf("%s", a)
	}
	if a := h.do("POST", "/api/m2m/v1/session/login", `{"username":"demo","password":"`+fresh+`"}`); a.StatusCode != http.StatusOK {
		t.Errorf("login with the new password: %s", a)
	}
}

func TestToken(t *testing.T) {
	h := newHarness(t)
	for _, tt := range []struct{ form, scope string }{
		{"grant_type=client_credentials", ""},
		{"grant_type=client_credentials&scope=", ""},
		{"grant_type=client_credentials&scope=read+ts.application.ro", "read ts.application.ro"},
	} {
		values, _ := url.ParseQuery(tt.form)
		h.clock.turn(time.Minute)
		a := h.form(tokenPath, values)
		m := a.fields(t)
		if m["access_token"] != h.bearer || m["token_type"] != "Bearer" || m["scope"] != tt.scope || a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %s", tt.form, a)
		}
	}
	if a := h.form("/ts/v1/oauth2/token", url.Values{"grant_type": {"client_credentials"}}); a.fields(t)["expires_in"] != 3600.0-180 {
		t.Errorf("three minutes later: %s", a)
	}
}

func TestTokenErrors(t *testing.T) {
	h := newHarness(t)
	good := url.Values{"grant_type": {"client_credentials"}}
	for _, tt := range []struct {
		name, path  string
		form        url.Values
		change      change
		status      int
		oauth, says string
		fault       any
	}{
		{"no grant type", tokenPath, nil, nil, 400, "invalid_request", "Missing grant_type parameter value", nil},
		{"other grant type", tokenPath, url.Values{"grant_type": {"password"}}, nil, 400, "invalid_request", "Unsupported grant_type value", nil},
		{"twice", tokenPath, url.Values{"grant_type": {"client_credentials", "client_credentials"}}, nil, 400, "invalid_request", "twice", nil},
		{"bad scope", tokenPath, url.Values{"grant_type": {"client_credentials"}, "scope": {"a\"b"}}, nil, 400, "invalid_scope", "scope", nil},
		{"no credentials", tokenPath, good, header("Authorization"), 401, "invalid_client", "Missing Credentials", "900902"},
		{"bearer", tokenPath, good, header("Authorization", "Bearer x"), 401, "invalid_client", "Missing Credentials", "900902"},
		{"no base64", tokenPath, good, header("Authorization", "Basic !"), 401, "invalid_client", "Invalid Credentials", "900901"},
		{"two headers", tokenPath, good, header("Authorization", "Basic YTpi", "Basic YTpi"), 401, "invalid_client", "Invalid Credentials", "900901"},
		{"wrong secret", tokenPath, good, func(r *http.Request) { r.SetBasicAuth("app", "no") }, 401, "invalid_client", "Invalid Credentials", "900901"},
		{"unknown key", tokenPath, good, func(r *http.Request) { r.SetBasicAuth("\x00"+strings.Repeat("x", 999), "no") }, 401, "invalid_client", "Invalid Credentials", "900901"},
		{"query", tokenPath + "?access_token=a", good, nil, 400, "invalid_request", "query", nil},
		{"JSON", tokenPath, good, header("Content-Type", "application/json"), 415, "invalid_request", "application/json", nil},
		{"revoke nothing", m2m.TokenPrefix + "/oauth2/revoke", good, nil, 400, "invalid_request", "Missing token parameter value", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h.t = t
			var changes []change
			if tt.change != nil {
				changes = append(changes, tt.change)
			}
			a := h.form(tt.path, tt.form, changes...)
			m := a.fields(t)
			description, _ := m["error_description"].(string)
			fault, _ := m["fault"].(map[string]any)
			if a.StatusCode != tt.status || m["error"] != tt.oauth || !strings.Contains(description, tt.says) || m["errorMessage"] != description || fault["code"] != tt.fault {
				t.Errorf("%s, want %d, %s, %s, fault %v", a, tt.status, tt.oauth, tt.says, tt.fault)
			}
		})
	}
}

func TestRevoke(t *testing.T) {
	h := newHarness(t)
	a := h.form("/api/ts/v1/oauth2/revoke", url.Values{"grant_type": {"client_credentials"}, "token": {h.bearer}})
	if diff := cmp.Diff(map[string]any{"revoked": true}, a.fields(t)); diff != "" || a.Header.Get("RevokedAccessToken") != h.bearer {
		t.Errorf("%s, header %q", a, a.Header.Get("RevokedAccessToken"))
	}
	if a := h.do("POST", assign, "not read"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("with the revoked token: %s", a)
	}
	a = h.form("/ts/v1/oauth2/revoke", url.Values{"token": {"\r\nX: y" + strings.Repeat("z", 999)}})
	if a.StatusCode != http.StatusOK {
		t.Errorf("another token: %s", a)
	}
	for i := range 6 {
		a = h.form(tokenPath, url.Values{"grant_type": {"client_credentials"}}, func(r *http.Request) { r.SetBasicAuth("app", "wrong") })
		if a.StatusCode != http.StatusUnauthorized {
			t.Fatalf("try %d: %s", i, a)
		}
	}
	a = h.form(tokenPath, url.Values{"grant_type": {"client_credentials"}})
	if a.StatusCode != http.StatusTooManyRequests || a.Header.Get("Retry-After") == "" || a.fields(t)["error"] != "invalid_client" {
		t.Errorf("after six wrong secrets: %s", a)
	}
}

// TestAccounts tells accounts that are unknown from the user's own, and not
// from those of others.
func TestAccounts(t *testing.T) {
	h := newHarness(t)
	h.session = h.login(h.bearer, "two")
	if a := h.do("GET", "/api/m2m/v1/accounts/000012345600002", ""); a.fields(t)["accountName"] != other {
		t.Errorf("without hyphen: %s", a)
	}
	body := `{"skuNumber":"SIMSec-IoT","devices":[` + device(1) + `]}`
	if a := h.do("POST", assign, body); a.code(t) != m2m.CodeMultipleAccounts {
		t.Errorf("none named of two: %s", a)
	}
	h.session = h.login(h.bearer, "none")
	if a := h.do("POST", assign, body); a.code(t) != m2m.CodeNoAccounts {
		t.Errorf("none named of none: %s", a)
	}
	if a := h.do("POST", "/api/m2m/v1/devices/actions/list", `{}`); a.code(t) != m2m.CodeNoAccounts || h.inventory.asked.Limit != 0 {
		t.Errorf("devices of no account: %s", a)
	}
	h.session = h.login(h.bearer, "demo")
	unknown := h.do("GET", "/api/m2m/v1/accounts/nosuch", "")
	for _, name := range []string{foreign, other, "%00", "%ff", "..%2f", strings.Repeat("9", 5000)} {
		for _, r := range [][2]string{
			{"GET", "/accounts/%"},
			{"GET", "/callbacks/%"},
			{"POST", "/callbacks/%"},
			{"DELETE", "/callbacks/%/name/CarrierService"},
			{"GET", "/accounts/%/requests/c3f3d17c-79ff-4b35-82df-94446785b6e0/status"},
		} {
			body := ""
			if r[0] == "POST" {
				body = `{"name":"CarrierService","url":"https://x.example/"}`
			}
			a := h.do(r[0], m2m.APIPrefix+strings.Replace(r[1], "%", name, 1), body)
			if a.StatusCode != http.StatusBadRequest || string(a.body) != string(unknown.body) {
				t.Errorf("%s %s, account %s: %s", r[0], r[1], clip(name), a)
			}
		}
	}
}

func TestRequestStatus(t *testing.T) {
	h := newHarness(t)
	const id = "c3f3d17c-79ff-4b35-82df-94446785b6e0"
	h.inventory.progress = map[license.RequestID]license.Progress{id: {ID: id, Account: account, Total: 2, Done: 1}}
	get := func(account, id string) answer {
		return h.do("GET", "/api/m2m/v1/accounts/"+account+"/requests/"+id+"/status", "", header("Content-Type", "application/json"))
	}
	if a := get("000012345600001", strings.ToUpper(id)); a.fields(t)["requestId"] != id || a.fields(t)["status"] != "Pending" {
		t.Errorf("%s", a)
	}
	for _, unknown := range []string{uuid.NewString(), "x", "%00", "%ff", "{" + id + "}"} {
		if a := get(account, unknown); a.StatusCode != http.StatusBadRequest || a.code(t) != m2m.CodeRequestNotFound {
			t.Errorf("%s: %s", unknown, a)
		}
	}
}

func TestSubscriptions(t *testing.T) {
	h := newHarness(t)
	h.inventory.pools = []license.Pool{
		{Account: account, SKU: license.SKUFlexible, Purchased: 9, Assigned: 7, Reserved: 1},
		{Account: account, SKU: license.SKULifetime, Purchased: 3},
	}
	flexible := map[string]any{"skuNumber": "SIMSec-IoT", "licenseType": "Flexible", "licensePurchased": 9.0, "licenseAssigned": 7.0, "licenseAvailable": 1.0}
	for _, path := range []string{"/accounts", "/account"} {
		path = m2m.APIPrefix + path + "/subscriptions/actions/list"
		a := h.do("POST", path, `{"accountName":"000012345600001","skuNumber":"SIMSec-IoT"}`)
		want := map[string]any{"accountName": account, "subscriptionList": []any{flexible}}
		if diff := cmp.Diff(want, a.fields(t)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if a := h.do("POST", path, `{}`); len(a.fields(t)["subscriptionList"].([]any)) != 2 {
			t.Errorf("all: %s", a)
		}
		if a := h.do("POST", path, `{"skuNumber":"TS-BUNDLE-KTO-SIMSEC-MRC"}`); len(a.fields(t)["subscriptionList"].([]any)) != 0 {
			t.Errorf("none: %s", a)
		}
		if a := h.do("POST", path, `{"skuNumber":"x"}`); a.code(t) != m2m.CodeSKUInvalid {
			t.Errorf("unknown SKU: %s", a)
		}
		if a := h.do("POST", path, ``); a.code(t) != m2m.CodeRequestUndefined {
			t.Errorf("empty: %s", a)
		}
	}
}

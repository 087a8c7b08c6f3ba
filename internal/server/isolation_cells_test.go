package server

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/carrier"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/m2m"
)

// compatibleBodies has a body for each route of the compatible API; a route that is
// not here fails the test.
var compatibleBodies = map[string]string{
	"POST /session/login":                               `{"username":"{name}","password":"wrong-password"}`,
	"POST /session/logout":                              ``,
	"PUT /session/password/actions/reset":               `{"oldPassword":"wrong-password"}`,
	"GET /accounts/{account}":                           ``,
	"GET /accounts/{account}/requests/{request}/status": ``,
	"POST /accounts/subscriptions/actions/list":         `{"accountName":"{account}","skuNumber":"SIMSec-IoT"}`,
	"POST /account/subscriptions/actions/list":          `{"accountName":"{account}"}`,
	"GET /callbacks/{account}":                          ``,
	"POST /callbacks/{account}":                         `{"name":"CarrierService","url":"http://127.0.0.1:1/mine"}`,
	"DELETE /callbacks/{account}/name/{service}":        ``,
	"POST /devices/actions/list":                        `{"accountName":"{account}","deviceId":{"id":"{iccid}","kind":"iccid"}}`,
	"POST /devices/license/actions/assign":              assignBody,
	"DELETE /devices/license/actions/assign":            assignBody,
	"POST /devices/license/actions/unassign":            assignBody,
	"POST /devices/license/actions/{action}":            assignBody,
	"DELETE /devices/license/actions/{action}":          assignBody,
	"POST /devices/license/actions":                     assignBody,
	"DELETE /devices/license/actions":                   assignBody,
	"POST /oauth2/token":                                `grant_type=client_credentials`,
	"POST /oauth2/revoke":                               `token=whatever`,
}

const assignBody = `{"accountName":"{account}","skuNumber":"SIMSec-IoT","devices":[{"deviceIds":[{"id":"{iccid}","kind":"iccid"},{"id":"{imei}","kind":"imei"}]}]}`

// pair is a bearer and a session token.
type pair struct{ name, bearer, session string }

// pairs is everybody who has no business with the victim's account.
func (m *isolation) pairs() []pair {
	b, s := m.bearers, m.sessions
	guid := "6b1a42f3-5b1e-4f0e-9f6a-0c1d2e3f4a5b"
	return []pair{
		{"nothing", "", ""},
		{"the attacker's bearer alone", b["attacker"], ""},
		{"the victim's bearer alone", b["victim"], ""},
		{"the victim's session alone", "", s["victim"]},
		{"the attacker's session alone", "", s["attacker"]},
		{"the victim's session with the attacker's bearer", b["attacker"], s["victim"]},
		{"the attacker's session with the victim's bearer", b["victim"], s["attacker"]},
		{"the victim's other session with the victim's bearer", b["victim"], s["victim's by the attacker's application"]},
		{"an expired bearer", b["expired"], s["victim"]},
		{"an expired session", b["victim"], s["expired"]},
		{"both expired", b["expired"], s["expired"]},
		{"a disabled application", b["disabled"], s["victim"]},
		{"a disabled user", b["victim"], s["disabled"]},
		{"a revoked token", b["revoked"], s["victim"]},
		{"an operator's token as bearer", m.tokens["admin"], s["victim"]},
		{"an operator's token as session", b["victim"], m.tokens["admin"]},
		{"a bearer for a session", b["victim"], b["victim"]},
		{"a session for a bearer", s["victim"], s["victim"]},
		{"made-up tokens", "made-up", guid},
		{"a made-up session", b["victim"], guid},
		{"the hash of a bearer", auth.HashSecret(auth.Secret(b["victim"])), s["victim"]},
		{ownPair, b["attacker"], s["attacker"]},
		{"a user without accounts", b["victim"], s["without accounts"]},
	}
}

// ownPair is who may call, and has nothing to do with the victim.
const ownPair = "the attacker's own tokens"

func (m *isolation) compatible() {
	for _, route := range m.r.api.Routes() {
		path := route.Path
		for _, prefix := range []string{m2m.APIPrefix, m2m.TokenPrefix, "/m2m/v1", "/ts/v1"} {
			path = strings.TrimPrefix(path, prefix)
		}
		body, known := compatibleBodies[route.Method+" "+strings.Replace(path, "/licenses/", "/license/", 1)]
		if !known {
			m.t.Errorf("%s %s is not in the matrix", route.Method, route.Path)
			continue
		}
		m.kept(route.Method+" "+route.Path, func() {
			if strings.Contains(path, "/oauth2/") {
				m.clients(route.Method, route.Path, body)
				return
			}
			for _, p := range m.pairs() {
				if p.name == "the victim's bearer alone" && path == "/session/login" || path == "/session/logout" && (p.name == ownPair || p.name == "a user without accounts") {
					continue // they open or end their own
				}
				m.compatibleCell(route.Method, route.Path, body, p)
			}
		})
	}
}

func (m *isolation) compatibleCell(method, path, body string, p pair) {
	with := func(q *http.Request) {
		if p.bearer != "" {
			q.Header.Set("Authorization", "Bearer "+p.bearer)
		}
		if p.session != "" {
			q.Header.Set(m2m.SessionHeader, p.session)
		}
	}
	what := fmt.Sprintf("%s %s with %s", method, path, p.name)
	m.cell(what, method, path, body, m.there, m.nowhere, false, with)
	if p.name != ownPair || path == "/session/login" {
		return
	}
	// In their own account, they name what is in another.
	mine, none := m.there, m.nowhere
	mine.account, none.account = "0000222222-00001", "0000222222-00001"
	own := !strings.Contains(path, "license") && !strings.Contains(path, "{request}")
	if strings.Contains(path, "/callbacks/") {
		return // that is theirs to do
	}
	m.cell(what+" in their own account", method, path, body, mine, none, own, with)
}

// clients tries the token endpoints, which applications call by key and secret.
func (m *isolation) clients(method, path, body string) {
	for _, c := range [][2]string{
		{"{key}", "attacker-secret-01"},
		{"{key}", ""},
		{"{key}", "wrong"},
		{"disabled-key", "disabled-secret-01"},
		{"{key}", auth.HashSecret("victim-secret-0001")},
		{"{key}", m.bearers["victim"]},
		{"the-admin", m.tokens["admin"]},
		{"victim", "victim-password"},
	} {
		for n, at := range []things{m.there, m.nowhere} {
			_ = n
			m.cell(method+" "+path+" as "+c[0]+" with "+c[1], method, path, body, at, m.nowhere, false, func(q *http.Request) {
				key := strings.ReplaceAll(c[0], "{key}", at.app)
				q.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(key+":"+c[1])))
				q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			})
		}
	}
	for _, scheme := range []string{"", "Bearer " + m.bearers["victim"], "Bearer " + m.tokens["admin"], "Basic !!!", "Basic"} {
		m.cell(method+" "+path+" by "+scheme, method, path, body, m.there, m.nowhere, false, func(q *http.Request) {
			if scheme != "" {
				q.Header.Set("Authorization", scheme)
			}
			q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		})
	}
}

// operators tries the operator API. Whoever has a role there may see all accounts;
// all others are nobody.
func (m *isolation) operators() {
	for _, route := range m.r.operator.Routes() {
		path := route.Path
		if strings.Contains(path, "/operators/{name}") {
			path = strings.Replace(path, "{name}", "{operator}", 1)
		}
		m.kept(route.Method+" "+path, func() {
			for name, header := range map[string][]string{
				"nothing": nil, "an empty token": {"Bearer "}, "no scheme": {m.tokens["admin"]}, "another scheme": {"Basic " + m.tokens["admin"]},
				"two tokens": {"Bearer " + m.tokens["admin"], "Bearer " + m.tokens["viewer"]}, "a disabled operator": {"Bearer " + m.tokens["disabled"]},
				"an application's bearer": {"Bearer " + m.bearers["victim"]}, "a session": {"Bearer " + m.sessions["victim"]},
				"a client secret": {"Bearer victim-secret-0001"}, "a made-up token": {"Bearer " + string(auth.NewOperatorToken())},
				"the hash of a token":   {"Bearer " + auth.HashSecret(auth.Secret(m.tokens["admin"]))},
				"a token in lower case": {"Bearer " + strings.ToLower(m.tokens["admin"])},
				"a lesser role":         lesser(m.tokens, route.Need), "the least role": leastOf(m.tokens, route.Need),
			} {
				if strings.Contains(name, "role") && header == nil {
					continue // there is none
				}
				m.cell(fmt.Sprintf("%s %s with %s", route.Method, path, name), route.Method, path, "{}", m.there, m.nowhere, false, func(q *http.Request) {
					q.Header["Authorization"] = header
				})
			}
		})
	}
}

// lesser is the token of the greatest role that does not suffice.
func lesser(tokens map[string]string, need auth.Role) []string {
	for _, role := range slices.Backward(auth.Roles()) {
		if !role.May(need) {
			return []string{"Bearer " + tokens[string(role)]}
		}
	}
	return nil
}

// leastOf is the token of the least role, where it does not suffice.
func leastOf(tokens map[string]string, need auth.Role) []string {
	if auth.RoleViewer.May(need) {
		return nil
	}
	return []string{"Bearer " + tokens[string(auth.RoleViewer)]}
}

// receiver tries what takes the carrier's word.
func (m *isolation) receiver() {
	const body = `{"outcomes":[{"account":"{account}","key":"{request}/{iccid}","outcome":"done"}]}`
	old := time.Now().Add(-time.Hour)
	m.kept("the carrier's receiver", func() {
		for _, c := range []struct {
			name, secret, token string
			at                  time.Time
		}{
			{"nothing", "", "", old},
			{"an operator's token", "", m.tokens["admin"], old},
			{"the carrier's own token", "", carrierToken, old},
			{"another secret", "whsec_YW5vdGhlciBzZWNyZXQsIGFuZCBsb25nIGVub3VnaA==", "", time.Now()},
			{"an old signature", carrierSecret, "", old},
			{"a signature to come", carrierSecret, "", time.Now().Add(time.Hour)},
		} {
			m.cell("outcomes with "+c.name, http.MethodPost, carrier.OutcomesPath, body, m.there, m.nowhere, false, func(q *http.Request) {
				if c.token != "" {
					q.Header.Set("Authorization", "Bearer "+c.token)
				}
				if c.secret != "" {
					m.sign(q, c.secret, c.at)
				}
			})
		}
	})
}

// sign signs a call as the carrier does.
func (m *isolation) sign(q *http.Request, secret string, at time.Time) {
	m.t.Helper()
	body, err := io.ReadAll(q.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	q.Body = io.NopCloser(bytes.NewReader(body))
	webhook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		m.t.Fatal(err)
	}
	signature, err := webhook.Sign("call_1", at, body)
	if err != nil {
		m.t.Fatal(err)
	}
	q.Header.Set("webhook-id", "call_1")
	q.Header.Set("webhook-timestamp", strconv.FormatInt(at.Unix(), 10))
	q.Header.Set("webhook-signature", signature)
}

// public looks at what anybody may ask: it names nobody.
func (m *isolation) public() {
	paths := []string{"/openapi.json", "/openapi.yaml", "/docs", client.Prefix + "/openapi.json", "/", "/operator/", "/nothing"}
	for path := range m.r.own() {
		paths = append(paths, path)
	}
	for _, path := range paths {
		text := m.ask(http.MethodGet, path, "", things{account: "none", request: "none", iccid: "none", imei: "none", app: "none", user: "none", operator: "none"}, func(*http.Request) {}).text
		for _, word := range []string{m.there.account, "0000222222", "victim", "attacker", m.there.iccid, m.there.request, "the-admin", m.there.imei, "heard"} {
			if strings.Contains(text, word) {
				m.t.Errorf("GET %s tells of %q", path, word)
			}
		}
	}
}

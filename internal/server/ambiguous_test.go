package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/carrier"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/m2m"
)

// operatorBodies has a body for each route of the operator API that reads one.
var operatorBodies = map[string]string{
	"POST /accounts":                                                   `{"name":"0000444444-00001"}`,
	"PUT /accounts/{account}/policy":                                   `{"refuseLifetime":true}`,
	"POST /applications":                                               `{"key":"another-key"}`,
	"PATCH /applications/{key}":                                        `{"disabled":true}`,
	"POST /applications/{key}/rotate":                                  `{"secret":"another-secret-0001","overlap":"24h"}`,
	"POST /users":                                                      `{"name":"another"}`,
	"PATCH /users/{name}":                                              `{"disabled":true}`,
	"POST /users/{name}/rotate":                                        `{"secret":"another-secret-0001"}`,
	"POST /operators":                                                  `{"name":"another","role":"viewer"}`,
	"PATCH /operators/{name}":                                          `{"disabled":true}`,
	"POST /operators/{name}/password":                                  `{"secret":"another-password"}`,
	"POST /accounts/{account}/plan":                                    `{"sku":"SIMSec-IoT","action":"assign","iccids":["{iccid}"]}`,
	"POST /accounts/{account}/requests":                                `{"sku":"SIMSec-IoT","action":"assign","iccids":["{iccid}"]}`,
	"PATCH /accounts/{account}/pools/{sku}":                            `{"threshold":5}`,
	"POST /accounts/{account}/pools/{sku}/purchases":                   `{"units":5,"reason":"more"}`,
	"POST /sims/import":                                                `{"sims":[{"account":"{account}","iccid":"89148000000000777046"}]}`,
	"POST /accounts/{account}/sims/state":                              `{"state":"suspend","iccids":["{iccid}"]}`,
	"PATCH /accounts/{account}/sims/{iccid}":                           `{"state":"suspend"}`,
	"POST /accounts/{account}/requests/{request}/tasks/{iccid}/decide": `{"decision":"done","reason":"seen"}`,
	"POST /accounts/{account}/callbacks/send":                          `{"since":"2020-01-01T00:00:00Z"}`,
	"PATCH /accounts/{account}/listeners/{service}":                    `{"attempts":2}`,
}

// bodiless are the routes that read no body, and ignore what is sent.
var bodiless = map[string]bool{
	"POST /session/logout": true, "POST /applications/{key}/unlock": true, "POST /applications/{key}/end-old-secret": true, "POST /users/{name}/unlock": true, "POST /operators/{name}/rotate": true, "DELETE /operators/{name}/password": true,
	"DELETE /accounts/{account}/listeners/{service}": true, "POST /accounts/{account}/listeners/{service}/secret": true,
	"POST /accounts/{account}/listeners/{service}/test": true, "POST /verify": true, "DELETE /callbacks/{account}/name/{service}": true,
}

// ambiguous are forms of a good body that say two things, or none.
func ambiguous(good string) map[string]string {
	name, rest, _ := strings.Cut(strings.TrimPrefix(good, `{"`), `":`)
	member, inner := `"`+name+`":`, strings.TrimPrefix(good, "{")
	forms := map[string]string{
		"a member twice":            "{" + member + firstValue(rest) + "," + inner,
		"a member twice, escaped":   fmt.Sprintf(`{"\u%04x%s":%s,%s`, name[0], name[1:], firstValue(rest), inner),
		"a member in another case":  "{" + `"` + strings.ToUpper(name) + `":` + firstValue(rest) + "," + inner,
		"a lone surrogate":          `{"x":"\ud800",` + inner,
		"a lone surrogate as name":  `{"\udc00":1,` + inner,
		"no UTF-8":                  "{\"x\":\"\xff\"," + inner,
		"a second value":            good + "{}",
		"a second value, by a line": good + "\n" + good,
		"a word behind":             good + "x",
		"a BOM":                     "\xef\xbb\xbf" + good,
		"UTF-16":                    "\xff\xfe" + strings.Join(strings.Split(good, ""), "\x00") + "\x00",
		"a comma too many":          strings.TrimSuffix(good, "}") + ",}",
		"a comment":                 "/**/" + good,
		"deep":                      `{"x":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + "," + inner,
		"an array":                  "[" + good + "]",
		"a leading zero":            `{"x":01,` + inner,
	}
	if strings.HasPrefix(rest, `"`) {
		forms["a number for a string"] = "{" + member + "7" + rest[len(firstValue(rest)):]
		forms["a list for a string"] = "{" + member + "[" + firstValue(rest) + "]" + rest[len(firstValue(rest)):]
	} else {
		forms["a string for another"] = "{" + member + `"x"` + rest[len(firstValue(rest)):]
	}
	return forms
}

// firstValue is the value at the beginning of a text.
func firstValue(text string) string {
	depth, quoted := 0, false
	for i, c := range text {
		switch {
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			depth++
		case depth == 0 && (c == ',' || c == '}'):
			return text[:i]
		case c == ']' || c == '}':
			depth--
		}
	}
	return text
}

// TestAmbiguousJSON sends every route that reads JSON what says two things, by
// whoever may call it: it is refused, and nothing changes.
func TestAmbiguousJSON(t *testing.T) {
	eachIsolation(t, func(t *testing.T, m *isolation) {
		for _, route := range m.r.api.Routes() {
			path := strings.TrimPrefix(route.Path, m2m.APIPrefix)
			what := route.Method + " " + strings.Replace(path, "/licenses/", "/license/", 1)
			body := compatibleBodies[what]
			if !strings.HasPrefix(route.Path, m2m.APIPrefix) || bodiless[what] || route.Method == http.MethodGet {
				continue
			}
			m.refuses(what, route.Method, route.Path, body, m2m.CodeDeserialization, func(q *http.Request) {
				q.Header.Set("Authorization", "Bearer "+m.bearers["victim"])
				q.Header.Set(m2m.SessionHeader, m.sessions["victim"])
			})
		}
		for _, route := range m.r.operator.Routes() {
			what := route.Method + " " + strings.TrimPrefix(route.Path, client.Prefix)
			if bodiless[what] || route.Method == http.MethodGet {
				continue
			}
			path := route.Path
			if strings.Contains(path, "/operators/") {
				path = strings.Replace(path, "{name}", "{operator}", 1)
			}
			m.refuses(what, route.Method, path, operatorBodies[what], "invalid", func(q *http.Request) {
				q.Header.Set("Authorization", "Bearer "+m.tokens["admin"])
			})
		}
		m.refuses("the carrier's outcomes", http.MethodPost, carrier.OutcomesPath,
			`{"outcomes":[{"account":"{account}","key":"{request}/{iccid}","outcome":"done"}]}`, "cannot be read", func(q *http.Request) {
				m.sign(q, carrierSecret, time.Now())
			})
		t.Logf("%d bodies tried, %d refused", m.tried, m.refused)
	})
}

// refuses sends the ambiguous forms of a body.
func (m *isolation) refuses(what, method, path, good, code string, with func(*http.Request)) {
	m.t.Helper()
	if good == "" {
		m.t.Errorf("%s has no body here, and is not known to read none", what)
		return
	}
	if strings.Contains(path, "/actions/{action}") || strings.HasSuffix(path, "/actions") {
		return // known for an error of their own, whatever the body
	}
	m.kept(what, func() { // nothing changes by all of them
		for form, body := range ambiguous(good) {
			got := m.ask(method, path, body, m.there, with)
			m.tried++
			if got.status == http.StatusBadRequest && strings.Contains(got.text, code) {
				m.refused++
				continue
			}
			m.t.Errorf("%s with %s: %d %s", what, form, got.status, got.text)
		}
	})
}

// TestIdentifiersAreDigits names a SIM that is there in every spelling but its own:
// nobody takes it for the same.
func TestIdentifiersAreDigits(t *testing.T) {
	eachIsolation(t, func(t *testing.T, m *isolation) {
		free := "89148000000000777020"
		for _, id := range []string{
			" " + free, free + " ", "\t" + free, free + "\n", "+" + free, "0" + free, free[:10] + " " + free[10:], free[:4] + "-" + free[4:],
			"٨٩١٤٨٠٠٠٠٠٠٠٠٠٧٧٧٠٢٠", "８９１４８０００００００００７７７０２０", free + "\u200b", "\ufeff" + free, free + "\x00", free[:19] + "２", free + "F", "0x" + free, free + ".0", free + "e0",
		} {
			q := licenseRequest("SIMSec-IoT", id)
			q.AccountName = m.there.account
			c := &caller{t: m.t, url: m.r.URL(), bearer: m.bearers["victim"], session: m.sessions["victim"]}
			c.call(http.MethodPost, "/devices/license/actions/assign", q, http.StatusBadRequest, nil)
			status, body := m.r.operate(t, m.tokens["viewer"], http.MethodGet, "/accounts/"+m.there.account+"/sims/"+escapeAll(id))
			if status != http.StatusBadRequest && status != http.StatusNotFound {
				t.Errorf("the operator's SIM %q: %d %s", id, status, body)
			}
		}
		for _, account := range []string{" " + m.there.account, m.there.account + " ", m.there.account + "\u200b", "٠٠٠٠١١١١١١-٠٠٠٠١", "0x0000111111"} {
			q := licenseRequest("SIMSec-IoT", free)
			q.AccountName = account
			c := &caller{t: m.t, url: m.r.URL(), bearer: m.bearers["victim"], session: m.sessions["victim"]}
			c.call(http.MethodPost, "/devices/license/actions/assign", q, http.StatusBadRequest, nil)
		}
		// As it is, it is taken.
		q := licenseRequest("SIMSec-IoT", free)
		q.AccountName = m.there.account
		(&caller{t: m.t, url: m.r.URL(), bearer: m.bearers["victim"], session: m.sessions["victim"]}).call(http.MethodPost, "/devices/license/actions/assign", q, http.StatusOK, nil)
	})
}

func escapeAll(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02x", s[i])
	}
	return b.String()
}

package server

import (
	"cmp"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/internal/store/storetest"
	"github.com/simlatch/simlatch/m2m"
)

// The accounts of the matrix: the victim's, the attacker's, and one that does not
// exist. What is named like the victim's things and exists nowhere must be
// answered like what exists.
const isolationSeed = `applications:
  - {key: victim-key, secret: victim-secret-0001}
  - {key: attacker-key, secret: attacker-secret-01}
  - {key: disabled-key, secret: disabled-secret-01}
  - {key: revoked-key, secret: revoked-secret-001}
users:
  - {username: victim, password: victim-password, accounts: ["0000111111-00001"]}
  - {username: attacker, password: attacker-password, accounts: ["0000222222-00001"]}
  - {username: disabled, password: disabled-password, accounts: ["0000111111-00001"]}
  - {username: nothing, password: nothing-password, accounts: []}
accounts:
  - {name: "0000111111-00001", pools: {SIMSec-IoT: 77}}
  - {name: "0000222222-00001", pools: {SIMSec-IoT: 5}}
devices:
  - {account: "0000111111-00001", imei: "353456000000018", iccid: "89148000000000777012", mdn: "5551230001"}
  - {account: "0000111111-00001", imei: "353456000000026", iccid: "89148000000000777020", mdn: "5551230002"}
  - {account: "0000222222-00001", imei: "350004200000014", iccid: "89148000000000010001", mdn: "5551230009"}
`

// things are what a call names.
type things struct {
	account, request, iccid, imei, app, user, operator string
}

// isolation is the matrix: a server with two accounts, and everybody who has no
// business with one of them.
type isolation struct {
	t        *testing.T
	r        *running
	db       *sql.DB
	there    things // the victim's
	nowhere  things // what exists nowhere
	bearers  map[string]string
	sessions map[string]string
	tokens   map[string]string // of operators

	base string // of another server than r's API

	tried, refused, empty int
}

// eachIsolation runs f with the matrix on each engine.
func eachIsolation(t *testing.T, f func(t *testing.T, m *isolation)) {
	t.Helper()
	for _, e := range storetest.Engines(t) {
		t.Run(e.Name, func(t *testing.T) { f(t, newIsolation(t, e)) })
	}
}

// TestIsolation makes every call there is as everybody who may not: it is refused
// or, where it is about the caller's own, finds nothing; what exists elsewhere is
// answered as what exists nowhere; nothing changes.
func TestIsolation(t *testing.T) {
	eachIsolation(t, func(t *testing.T, m *isolation) {
		m.compatible()
		m.operators()
		m.receiver()
		m.public()
		t.Logf("%d cells tried, %d refused, %d about the caller's own with nothing in them", m.tried, m.refused, m.empty)
		if m.tried != m.refused+m.empty || m.tried < 1000 {
			t.Errorf("%d cells were neither refused nor empty, of %d", m.tried-m.refused-m.empty, m.tried)
		}
	})
}

func newIsolation(t *testing.T, e storetest.Engine) *isolation {
	t.Helper()
	db, clock := e.NewDatabase(t), &nodeClock{still: time.Now(), pace: 1}
	cfg := Config{
		Database: db.URL, Clock: clock, Seed: writeFile(t, t.TempDir(), "seed.yaml", isolationSeed),
		ServeOnly: true, Carrier: "http:http://127.0.0.1:1/", CarrierSecret: carrierSecret, // nothing happens by itself
	}
	cfg.SecretsKeyFile = writeFile(t, t.TempDir(), "key", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n")
	m := &isolation{
		t: t, r: startServer(t, cfg), db: db.SQL(t), bearers: map[string]string{}, sessions: map[string]string{}, tokens: map[string]string{},
		there:   things{"0000111111-00001", "", "89148000000000777012", "353456000000018", "victim-key", "victim", "the-admin"},
		nowhere: things{"0000333333-00001", "01990000-0000-7000-8000-000000000000", "89148000000000777038", "353456000000034", "absent-key", "absent", "the-owner"},
	}
	// What will have ended, then what is good.
	m.bearers["expired"] = m.token("victim-key", "victim-secret-0001")
	m.sessions["expired"] = m.session(m.bearers["expired"], "victim")
	clock.shift.Add(int64(2 * time.Hour))
	for _, app := range []string{"victim", "attacker", "disabled", "revoked"} {
		m.bearers[app] = m.token(app+"-key", map[string]string{
			"victim": "victim-secret-0001", "attacker": "attacker-secret-01", "disabled": "disabled-secret-01", "revoked": "revoked-secret-001",
		}[app])
	}
	m.sessions["victim"] = m.session(m.bearers["victim"], "victim")
	m.sessions["attacker"] = m.session(m.bearers["attacker"], "attacker")
	m.sessions["victim's by the attacker's application"] = m.session(m.bearers["attacker"], "victim")
	m.sessions["disabled"] = m.session(m.bearers["victim"], "disabled")
	m.sessions["without accounts"] = m.session(m.bearers["victim"], "nothing")
	for _, role := range auth.Roles() {
		m.tokens[string(role)] = m.r.operatorToken(t, role)
	}
	m.victimWorks()
	m.disable(clock)
	return m
}

// token buys a bearer token.
func (m *isolation) token(key, secret string) string {
	m.t.Helper()
	var token m2m.TokenAnswer
	q := m.request(http.MethodPost, m2m.TokenPrefix+"/oauth2/token", "grant_type=client_credentials")
	q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	q.SetBasicAuth(key, secret)
	(&caller{t: m.t}).send(q, http.StatusOK, &token)
	return token.AccessToken
}

func (m *isolation) session(bearer, user string) string {
	m.t.Helper()
	var session m2m.SessionAnswer
	c := &caller{t: m.t, url: m.r.URL(), bearer: bearer}
	c.call(http.MethodPost, "/session/login", m2m.LoginRequest{Username: user, Password: user + "-password"}, http.StatusOK, &session)
	return session.SessionToken
}

// victimWorks makes what there is to find: a request, a listener.
func (m *isolation) victimWorks() {
	c := &caller{t: m.t, url: m.r.URL(), bearer: m.bearers["victim"], session: m.sessions["victim"]}
	c.call(http.MethodPost, "/callbacks/"+m.there.account,
		m2m.ListenerRequest{Name: "CarrierService", URL: "http://127.0.0.1:1/heard", Username: "u", Password: "p"}, http.StatusOK, nil)
	q := licenseRequest("SIMSec-IoT", m.there.iccid)
	q.AccountName = m.there.account
	var accepted m2m.RequestAccepted
	c.call(http.MethodPost, "/devices/license/actions/assign", q, http.StatusOK, &accepted)
	m.there.request = accepted.RequestID
}

// disable ends what is to have ended in some other way than by its age.
func (m *isolation) disable(clock *nodeClock) {
	m.t.Helper()
	admin := func(method, path, body string) {
		m.t.Helper()
		q := m.request(method, client.Prefix+path, body)
		q.Header.Set("Authorization", "Bearer "+m.tokens["admin"])
		q.Header.Set("Content-Type", "application/json")
		(&caller{t: m.t}).send(q, http.StatusOK, nil)
	}
	admin("PATCH", "/applications/disabled-key", `{"disabled":true}`)
	admin("PATCH", "/users/disabled", `{"disabled":true}`)
	m.tokens["disabled"] = string(auth.NewOperatorToken())
	rec := auth.OperatorRecord{Operator: auth.Operator{Name: "gone", Role: auth.RoleAdmin}, TokenHash: auth.HashSecret(auth.Secret(m.tokens["disabled"]))}
	if err := m.r.store.AddOperator(m.t.Context(), rec, clock.Now()); err != nil {
		m.t.Fatal(err)
	}
	admin("PATCH", "/operators/gone", `{"disabled":true}`)
	q := m.request(http.MethodPost, m2m.TokenPrefix+"/oauth2/revoke", url.Values{"token": {m.bearers["revoked"]}}.Encode())
	q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	q.SetBasicAuth("revoked-key", "revoked-secret-001")
	(&caller{t: m.t}).send(q, http.StatusOK, nil)
	clock.shift.Add(int64(2 * time.Second)) // beyond what is remembered of them
	eventually(m.t, "the audit is sealed", func() bool {
		var n int
		return m.db.QueryRowContext(m.t.Context(), "SELECT count(*) FROM audit WHERE number IS NULL").Scan(&n) == nil && n == 0
	})
}

func (m *isolation) request(method, path, body string) *http.Request {
	m.t.Helper()
	q, err := http.NewRequestWithContext(m.t.Context(), method, cmp.Or(m.base, m.r.URL())+path, strings.NewReader(body))
	if err != nil {
		m.t.Fatal(err)
	}
	return q
}

// answered is an answer, without what differs each time.
type answered struct {
	status int
	text   string
}

// ask makes a call that names the things, and blots them out of the answer.
func (m *isolation) ask(method, path, body string, at things, with func(*http.Request)) answered {
	m.t.Helper()
	words := strings.NewReplacer("{account}", at.account, "{request}", at.request, "{iccid}", at.iccid, "{imei}", at.imei,
		"{key}", at.app, "{name}", at.user, "{operator}", at.operator, "{service}", "CarrierService", "{sku}", "SIMSec-IoT", "{action}", "assign")
	q := m.request(method, words.Replace(path), words.Replace(body))
	q.Header.Set("X-Request-ID", "same")
	if with(q); q.Header.Get("Content-Type") == "" {
		q.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		m.t.Fatal(err)
	}
	resp.Header.Del("Date")
	resp.Header.Del("Content-Length")
	var head strings.Builder
	for _, name := range slices.Sorted(headerNames(resp.Header)) {
		fmt.Fprintf(&head, "%s: %s\n", name, resp.Header[name])
	}
	blot := strings.NewReplacer(at.account, "•", at.request, "•", at.iccid, "•", at.imei, "•", at.app, "•", at.user, "•", at.operator, "•",
		strings.ReplaceAll(at.account, "-", ""), "•")
	return answered{resp.StatusCode, head.String() + blot.Replace(string(text))}
}

func headerNames(h http.Header) func(func(string) bool) {
	return func(yield func(string) bool) {
		for name := range h {
			if !yield(name) {
				return
			}
		}
	}
}

// cell tries one call as one of those who may not: with the victim's things, and
// with such as exist nowhere. own allows an answer about the caller's own.
func (m *isolation) cell(what, method, path, body string, there, nowhere things, own bool, with func(*http.Request)) {
	m.t.Helper()
	got, want := m.ask(method, path, body, there, with), m.ask(method, path, body, nowhere, with)
	m.tried++
	switch {
	case got.status >= 400:
		m.refused++
	case own:
		m.empty++
	default:
		m.t.Errorf("%s: %d %s", what, got.status, got.text)
	}
	if got != want {
		m.t.Errorf("%s: what exists and what does not are told apart:\n%d %s\n%d %s", what, got.status, got.text, want.status, want.text)
	}
	for _, secret := range []string{"5551230001", "heard", "\"77\"", ":77,"} {
		if strings.Contains(got.text, secret) {
			m.t.Errorf("%s discloses %q: %s", what, secret, got.text)
		}
	}
}

// kept compares the whole database before and after.
func (m *isolation) kept(what string, do func()) {
	m.t.Helper()
	before := m.dump()
	do()
	after := m.dump()
	for table, rows := range after {
		if rows != before[table] {
			m.t.Errorf("%s changed %s from\n%s\nto\n%s", what, table, before[table], rows)
		}
	}
}

// moving are the columns and tables that a refused call, or the service itself, may
// change: when somebody was last seen, who failed to log in, and which nodes live.
var moving = map[string]bool{"session.used": true, "operator.used": true, "lockout": true, "node": true, "goose_db_version": true, "strange_outcome": true}

// dump is everything in the database, by table.
func (m *isolation) dump() map[string]string {
	m.t.Helper()
	tables := "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
	if m.r.store.Engine() != "sqlite" {
		tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
	}
	dump := map[string]string{}
	for _, row := range m.rows(tables, "") {
		name := strings.Trim(row, "[]")
		if !moving[name] {
			rows := m.rows("SELECT * FROM "+name, name)
			slices.Sort(rows)
			dump[name] = strings.Join(rows, "\n")
		}
	}
	if len(dump) < 15 {
		m.t.Fatalf("only %d tables were found", len(dump))
	}
	return dump
}

func (m *isolation) rows(query, table string) (list []string) {
	m.t.Helper()
	rows, err := m.db.QueryContext(m.t.Context(), query)
	if err != nil {
		m.t.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		m.t.Fatal(err)
	}
	for rows.Next() {
		values, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			m.t.Fatal(err)
		}
		for i, c := range columns {
			if moving[table+"."+c] || table == "sim" && c == "lease_end" || table == "task" && (strings.HasPrefix(c, "lease") || c == "attempt" || strings.HasSuffix(c, "_due")) {
				values[i] = nil // the carrier is out of reach, and asked again
			}
			if b, ok := values[i].([]byte); ok {
				values[i] = string(b)
			}
		}
		list = append(list, fmt.Sprint(values))
	}
	if err := rows.Err(); err != nil {
		m.t.Fatal(err)
	}
	return list
}

// TestIsolationUpstream tries what receives an upstream's callbacks: who knows the
// password of one account learns nothing of another, not even whether it is there.
func TestIsolationUpstream(t *testing.T) {
	for _, e := range storetest.Engines(t) {
		t.Run(e.Name, func(t *testing.T) { isolationUpstream(t, e) })
	}
}

func isolationUpstream(t *testing.T, e storetest.Engine) {
	t.Helper()
	passwords := make(chan [2]string, 10)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case strings.HasSuffix(q.URL.Path, "/oauth2/token"):
			_, _ = io.WriteString(w, `{"access_token":"bearer","token_type":"Bearer","expires_in":3600}`)
		case strings.HasSuffix(q.URL.Path, "/session/login"):
			_, _ = io.WriteString(w, `{"sessionToken":"6b1a42f3-5b1e-4f0e-9f6a-0c1d2e3f4a5b"}`)
		case q.Method == http.MethodPost && strings.Contains(q.URL.Path, "/callbacks/"):
			var in m2m.ListenerRequest
			if err := json.NewDecoder(q.Body).Decode(&in); err != nil {
				t.Error(err)
			}
			passwords <- [2]string{q.URL.Path[strings.LastIndexByte(q.URL.Path, '/')+1:], in.Password}
			_, _ = io.WriteString(w, `{}`)
		default:
			_, _ = io.WriteString(w, `[]`)
		}
	}))
	defer upstream.Close()
	db := e.NewDatabase(t)
	r := startServer(t, Config{
		Database: db.URL, Seed: writeFile(t, t.TempDir(), "seed.yaml", isolationSeed), Carrier: CarrierUpstream + upstream.URL,
		SecretsKeyFile: writeFile(t, t.TempDir(), "key", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n"),
		Upstream:       UpstreamConfig{Key: "k", Secret: "s", User: "u", Password: "p", Listen: "127.0.0.1:0", CallbackURL: "http://127.0.0.1:1/heard"},
	})
	known := map[string]string{}
	for len(known) < 2 {
		select {
		case got := <-passwords:
			known[got[0]] = got[1]
		case <-time.After(patience):
			t.Fatalf("registered: %d", len(known))
		}
	}
	m := &isolation{t: t, r: r, db: db.SQL(t), there: things{account: "0000111111-00001", request: "r", iccid: "89148000000000777012"}}
	m.nowhere, m.base = m.there, "http://"+r.callbacks.listener.Addr().String()
	m.nowhere.account = "0000333333-00001"
	m.kept("the upstream's receiver", func() {
		for name, credentials := range map[string]string{
			"nothing": "", "no password": `,"username":"simlatch"`, "empty": `,"username":"simlatch","password":""`,
			"another account's": fmt.Sprintf(`,"username":"simlatch","password":%q`, known["0000222222-00001"]),
			"our own key":       `,"username":"k","password":"s"`,
		} {
			body := `{"status":"Success","requestId":"{request}","deviceIds":[{"id":"{iccid}","kind":"iccid"}]` + credentials + `}`
			for _, method := range []string{"POST", "GET", "PUT"} {
				m.cell("the upstream's receiver with "+name, method, "/heard/{account}", body, m.there, m.nowhere, false, func(*http.Request) {})
			}
		}
	})
	// The right one opens it, so the others were refused for what they are.
	body := fmt.Sprintf(`{"status":"Success","requestId":"r","username":"simlatch","password":%q}`, known["0000111111-00001"])
	if got := m.ask("POST", "/heard/{account}", body, m.there, func(*http.Request) {}); got.status != http.StatusOK {
		t.Errorf("the right password: %d %s", got.status, got.text)
	}
	t.Logf("%d cells tried, %d refused", m.tried, m.refused)
}

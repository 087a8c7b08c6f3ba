package server

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/simlatch/simlatch/internal/console"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/internal/store/storetest"
	"github.com/simlatch/simlatch/m2m"
)

// canarySeed has a word in every secret that a seed has.
const canarySeed = `applications: [{key: demo-key, secret: canary-client-secret}, {key: other-key, secret: canary-other-secret}]
users: [{username: demo, password: canary-user-password, accounts: ["0000123456-00001"]}]
accounts: [{name: "0000123456-00001", pools: {SIMSec-IoT: 20}}]
devices:
  - {account: "0000123456-00001", imei: "490154203237518", iccid: "89148000000000000012"}
  - {account: "0000123456-00001", imei: "490154203237526", iccid: "89148000000000000020"}
`

// canaries are secrets, and what was said outside that may hold none of them.
type canaries struct {
	t        *testing.T
	r        *running
	both     []string // headers of the right tokens
	cookie   string   // of the console
	secrets  map[string]string
	answers  strings.Builder
	traces   *spanCollector
	database *severed
	panics   *panicking
	heard    atomic.Pointer[string] // the password that the upstream's callbacks must have
}

// TestSecretsStayInside plants a word in every secret, drives every route and every
// page of the console, with the right secrets and by wrong calls, against listeners,
// a carrier and an upstream that echo what they are sent, with the log at its most
// talkative, through a panic and the loss of the database, and then looks for the
// words in the log, the metrics, the traces, the answers, the pages, the events, the
// recorded exchanges, the audit and the database.
func TestSecretsStayInside(t *testing.T) {
	for _, e := range storetest.Engines(t) {
		for _, kind := range []string{"http:", CarrierUpstream} {
			t.Run(e.Name+"/"+kind, func(t *testing.T) {
				secretsStayInside(t, e.NewDatabase(t), kind)
			})
		}
	}
}

func secretsStayInside(t *testing.T, db *storetest.Database, kind string) {
	t.Helper()
	echo := httptest.NewServer(http.HandlerFunc(echoes))
	defer echo.Close()
	sealing := base64.StdEncoding.EncodeToString([]byte("canary-sealing-key-of-32-bytes!!"))
	c := &canaries{t: t, secrets: map[string]string{
		"client secret": "canary-client-secret", "other client secret": "canary-other-secret", "password": "canary-user-password",
		"listener password": "canary-listener-password", "sealing key": "canary-sealing-key", "sealing key, encoded": sealing,
		"alert secret": "Y2FuYXJ5LWFsZXJ0LXNlY3JldC1jYW5hcnk=", "alert URL": "canary-alert-token", "wrong password": "canary-wrong-password", "wrong secret": "canary-wrong-secret",
		"console password": "canary-console-password",
	}}
	cfg := Config{
		Database: db.URL, Seed: writeFile(t, t.TempDir(), "seed.yaml", canarySeed), SecretsKeyFile: writeFile(t, t.TempDir(), "key", sealing+"\n"),
		AlertURL: echo.URL + "/?token=canary-alert-token", AlertSecret: "whsec_Y2FuYXJ5LWFsZXJ0LXNlY3JldC1jYW5hcnk=",
	}
	if kind == CarrierUpstream {
		c.echoUpstream(&cfg)
	} else {
		c.echoCarrier(&cfg, echo.URL)
	}
	c.sever(&cfg)
	c.traceInto(&cfg)
	c.panics = &panicking{Reader: rand.Reader}
	cfg.Random = c.panics
	db.Damaged() // it is sealed with a key that the check at the end has not
	c.r = startServer(t, cfg)
	events := c.drive(echo.URL)
	c.console()
	c.panic()
	c.lose()
	events()
	c.search(db, cfg)
}

// call makes a call and keeps its answer, unless the answer is there to tell a
// secret.
func (c *canaries) call(method, path, body string, tells bool, headers ...string) string {
	c.t.Helper()
	q, err := http.NewRequestWithContext(c.t.Context(), method, c.r.URL()+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	q.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		q.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	_ = resp.Header.Write(&text) // a buffer takes everything
	if _, err := io.Copy(&text, io.LimitReader(resp.Body, 1<<20)); err != nil {
		c.t.Fatal(err)
	}
	if !tells {
		c.answers.WriteString(text.String() + "\n")
	}
	return text.String()
}

func basicOf(key, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(key+":"+secret))
}

// between cuts what stands between two words.
func between(text, before, after string) string {
	_, rest, _ := strings.Cut(text, before)
	found, _, _ := strings.Cut(rest, after)
	return found
}

// drive makes calls of all kinds. The function that it returns ends the streams of events
// and keeps what they said.
func (c *canaries) drive(listener string) (events func()) {
	const form = "application/x-www-form-urlencoded"
	tokens := m2m.TokenPrefix + "/oauth2/token"
	c.call("POST", tokens, "grant_type=client_credentials", false, "Content-Type", form, "Authorization", basicOf("demo-key", "canary-wrong-secret"))
	c.call("POST", tokens, "grant_type=canary-client-secret", false, "Content-Type", form, "Authorization", basicOf("demo-key", "canary-client-secret"))
	c.call("POST", tokens+"?client_secret=canary-client-secret", "grant_type=client_credentials", false, "Content-Type", form, "Authorization", basicOf("demo-key", "canary-client-secret"))
	bearer := between(c.call("POST", tokens, "grant_type=client_credentials", true, "Content-Type", form, "Authorization", basicOf("demo-key", "canary-client-secret")), `"access_token":"`, `"`)
	login := func(password string, tells bool) string {
		return c.call("POST", m2m.APIPrefix+"/session/login", `{"username":"demo","password":"`+password+`"}`, tells, "Authorization", "Bearer "+bearer)
	}
	login("canary-wrong-password", false)
	session := between(login("canary-user-password", true), `"sessionToken":"`, `"`)
	admin := c.r.operatorToken(c.t, "admin")
	c.secrets["bearer"], c.secrets["session"], c.secrets["operator's token"] = bearer, session, admin
	for what, secret := range c.secrets {
		if len(secret) < 10 {
			c.t.Fatalf("the %s is %q", what, secret)
		}
	}
	both := []string{"Authorization", "Bearer " + bearer, m2m.SessionHeader, session}
	c.call("POST", m2m.APIPrefix+"/callbacks/"+testAccount, `{"name":"CarrierService","url":"`+listener+`/?key=x","username":"u","password":"canary-listener-password"}`, false, both...)
	operator := []string{"Authorization", "Bearer " + admin}
	c.both = both
	c.call("POST", client.Prefix+"/operators/the-admin/password", `{"secret":"canary-console-password"}`, false, operator...)
	cookie := c.signIn("the-admin")
	events = c.listen(client.Prefix+"/events", operator, console.Prefix+"/events", []string{"Cookie", cookie})
	secret := between(c.call("POST", client.Prefix+"/accounts/"+testAccount+"/listeners/CarrierService/secret", "", true, operator...), `ecret":"`, `"`)
	c.secrets["signing secret"] = secret
	c.call("PATCH", client.Prefix+"/accounts/"+testAccount+"/pools/SIMSec-IoT", `{"threshold":20}`, false, operator...)
	c.call("POST", m2m.APIPrefix+"/devices/license/actions/assign", strings.ReplaceAll(assignBody, "{account}", testAccount), false, both...)
	c.call("POST", m2m.APIPrefix+"/devices/license/actions/assign", licenseJSON, false, both...)
	c.call("POST", client.Prefix+"/accounts/"+testAccount+"/listeners/CarrierService/test", "", false, operator...)
	eventually(c.t, "the alert fails", func() bool {
		return strings.Contains(c.r.log.String(), "the message about a low pool was not delivered")
	})
	c.settled(operator)
	c.everyRoute(both, operator)
	return events
}

const licenseJSON = `{"accountName":"0000123456-00001","skuNumber":"SIMSec-IoT","devices":[{"deviceIds":[{"id":"89148000000000000012","kind":"iccid"}]}]}`

// everyRoute makes every call with good credentials and bodies that are wrong, with
// secrets in places where they do not belong, and with bad ones.
func (c *canaries) everyRoute(both, operator []string) {
	words := strings.NewReplacer("{account}", testAccount, "{request}", "canary", "{iccid}", "89148000000000000012", "{key}", "demo-key", "{name}", "demo", "{service}", "CarrierService", "{sku}", "SIMSec-IoT", "{action}", "x")
	wrong := []string{"", "{", `{"password":["canary-user-password"]}`, `[]`}
	for _, route := range c.r.api.Routes() {
		if strings.HasSuffix(route.Path, "/session/logout") {
			continue // last
		}
		for _, body := range wrong {
			c.call(route.Method, words.Replace(route.Path), strings.ReplaceAll(body, "canary-user-password", ""), false, both...)
		}
		c.call(route.Method, words.Replace(route.Path), "", false, "Authorization", "Bearer canary-client-secret", m2m.SessionHeader, "canary-user-password")
		c.call(route.Method, words.Replace(route.Path), "", false, "Authorization", basicOf("demo-key", "canary-wrong-secret"))
	}
	for _, route := range c.r.operator.Routes() {
		path := words.Replace(route.Path)
		if strings.HasSuffix(path, "/rotate") || strings.HasSuffix(path, "/secret") || strings.HasSuffix(path, "/events") || route.Method == "DELETE" {
			continue // they tell a new secret, or never end, or take what is looked at away
		}
		for _, body := range []string{"{", `[]`} {
			c.call(route.Method, path, body, false, operator...)
		}
		c.call(route.Method, path, "", false, "Authorization", "Bearer canary-client-secret")
	}
	for path := range c.r.own() {
		c.call("GET", path, "", false, operator...)
	}
	c.call("POST", client.Prefix+"/applications/other-key/rotate", `{"secret":"canary-other-secret"}`, false, operator...)
	c.call("POST", client.Prefix+"/users/demo/rotate", `{"secret":"canary-user-password"}`, false, operator...)
	c.call("POST", client.Prefix+"/users", `{"name":"canary","password":"canary-user-password"}`, false, append(operator, "Idempotency-Key", "k")...)
	c.call("GET", client.Prefix+"/audit?limit=1000", "", false, operator...)
	c.call("GET", client.Prefix+"/callbacks", "", false, operator...)
	c.call("GET", "/metrics", "", false)
}

// search looks for the secrets everywhere.
func (c *canaries) search(db *storetest.Database, cfg Config) {
	m := &isolation{t: c.t, r: c.r, db: db.SQL(c.t)}
	var tables strings.Builder
	for name, rows := range m.dump() {
		tables.WriteString(name + "\n" + rows + "\n")
	}
	if err := c.r.end(); err != nil {
		c.t.Fatal(err)
	}
	places := map[string]string{"log": c.r.log.String(), "answers": c.answers.String(), "database": tables.String(), "traces": c.traces.text(c.t)}
	if cfg.Upstream.Record != "" {
		c.secrets["password of the upstream's callbacks"] = *c.heard.Load()
		places["recorded exchanges"] = everyFile(c.t, cfg.Upstream.Record)
	}
	if path, ok := SQLitePath(db.URL); ok {
		for _, suffix := range []string{"", "-wal"} {
			file, err := os.ReadFile(path + suffix)
			if err != nil && suffix == "" {
				c.t.Fatal(err)
			}
			places["file"+suffix] = string(file)
		}
	}
	for place, word := range map[string]string{"log": "demo-key", "answers": "demo-key", "database": "demo-key", "traces": "SIMSec-IoT", "recorded exchanges": "SIMSec-IoT"} {
		if text, ok := places[place]; ok && !strings.Contains(text, word) {
			c.t.Errorf("the %s were not looked at", place) // it has what is no secret
		}
	}
	for what, secret := range c.secrets {
		for place, text := range places {
			for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret))} {
				if at := strings.Index(text, form); at >= 0 {
					c.t.Errorf("the %s is in the %s: …%s…", what, place, text[max(0, at-200):min(len(text), at+100)])
				}
			}
		}
	}
}

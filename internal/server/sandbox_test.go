package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/sandbox"
)

// startSandbox starts a lenient sandbox whose clock stands still, unless the
// configuration says otherwise.
func startSandbox(t *testing.T, cfg SandboxConfig) *tester {
	t.Helper()
	lenient := true
	cfg.Lenient = &lenient
	return startAnySandbox(t, cfg)
}

func startAnySandbox(t *testing.T, cfg SandboxConfig) *tester {
	t.Helper()
	cfg.Listen = "127.0.0.1:0"
	if cfg.Rate == nil {
		cfg.Rate = new(float64)
	}
	if cfg.Start.IsZero() {
		cfg.Start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	cfg.TestToken = "test-token"
	s, err := NewSandbox(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	ready := make(chan SandboxInfo, 1)
	s.cfg.Ready = func(i SandboxInfo) { ready <- i }
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return &tester{t: t, info: <-ready}
}

// tester uses one service of a sandbox, by HTTP alone.
type tester struct {
	t    *testing.T
	info SandboxInfo
}

// call makes a call, which must be answered with the status, and decodes the
// answer into out, if that is not nil.
func (c *tester) call(method, path, body string, status int, out any) {
	c.t.Helper()
	got := c.try(method, path, body)
	if got.status != status {
		c.t.Fatalf("%s %s %s = %d %s, want %d", method, path, body, got.status, got.body, status)
	}
	if out == nil {
		return
	}
	if err := json.Unmarshal(got.body, out); err != nil {
		c.t.Fatalf("%s %s = %s: %v", method, path, got.body, err)
	}
}

type tried struct {
	status int
	header http.Header
	body   []byte
	err    error
}

func (c *tester) try(method, path, body string) tried {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.info.URL+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	if strings.HasPrefix(path, "/api/") {
		r.Header.Set("Authorization", "Bearer test-token")
		r.Header.Set("VZ-M2M-Token", "anything")
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return tried{err: err}
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return tried{resp.StatusCode, resp.Header, data, err}
}

// listen registers a listener: the inbox.
func (c *tester) listen() {
	c.t.Helper()
	c.call("POST", "/api/m2m/v1/callbacks/"+sandbox.DefaultAccount, `{"name": "CarrierService", "url": "http://inbox.simlatch.test/"}`, 200, nil)
}

// assign assigns licenses to SIMs and returns the request's id.
func (c *tester) assign(sku string, iccids ...string) string {
	c.t.Helper()
	var got struct{ RequestID string }
	c.call("POST", "/api/m2m/v1/devices/license/actions/assign", order(sku, iccids...), 200, &got)
	return got.RequestID
}

func order(sku string, iccids ...string) string {
	var devices []string
	for _, id := range iccids {
		devices = append(devices, fmt.Sprintf(`{"deviceIds": [{"kind": "iccid", "id": %q}]}`, id))
	}
	return fmt.Sprintf(`{"accountName": %q, "skuNumber": %q, "devices": [%s]}`, sandbox.DefaultAccount, sku, strings.Join(devices, ","))
}

func (c *tester) advance(by string) (stops int) {
	c.t.Helper()
	var got struct{ Stops int }
	c.call("POST", "/sandbox/v1/clock", `{"advance": "`+by+`"}`, 200, &got)
	return got.Stops
}

// entries are those of the journal that a query selects.
func (c *tester) entries(query string) []sandbox.Entry {
	c.t.Helper()
	var got struct{ Entries []sandbox.Entry }
	c.call("GET", "/sandbox/v1/journal?"+query, "", 200, &got)
	return got.Entries
}

func (c *tester) available(sku string) (n int) {
	c.t.Helper()
	var info SandboxInfo
	c.call("GET", "/sandbox/v1", "", 200, &info)
	for _, a := range info.Accounts {
		if a.Name == sandbox.DefaultAccount {
			n = int(a.Pools[sku])
		}
	}
	return n
}

func (c *tester) status(request string) string {
	c.t.Helper()
	var got struct{ Status string }
	c.call("GET", "/api/m2m/v1/accounts/"+sandbox.DefaultAccount+"/requests/"+request+"/status", "", 200, &got)
	return got.Status
}

func (c *tester) verify() {
	c.t.Helper()
	var got struct {
		OK    bool
		Drift []string
	}
	c.call("GET", "/sandbox/v1/verify", "", 200, &got)
	if !got.OK {
		c.t.Errorf("the ledger drifts: %v", got.Drift)
	}
}

var (
	plainSIM  = string(sandbox.SIM(1))
	plainSIM2 = string(sandbox.SIM(2))
)

// magic is a SIM with a fixed fate.
func magic(t *testing.T, code string, n int) string {
	t.Helper()
	for _, m := range sandbox.Magics() {
		if m.Code == code {
			return string(m.ICCID(n))
		}
	}
	t.Fatalf("there is no fate %s", code)
	return ""
}

// TestSandboxLife is the whole life of a license, with four attempts of a callback
// five minutes apart and a token's hour.
func TestSandboxLife(t *testing.T) {
	c := startSandbox(t, SandboxConfig{})
	lost := magic(t, "21", 1)
	c.listen()
	request := c.assign("SIMSec-IoT", plainSIM, lost)
	if stops := c.advance("1h"); stops != 3 {
		t.Errorf("the clock stopped %d times in an hour, want 3: for the second, third and fourth attempt", stops)
	}
	if got := c.status(request); got != "Success" {
		t.Errorf("the request's status is %q", got)
	}
	attempts := c.entries("kind=callback&iccid=" + lost)
	for i, e := range attempts {
		if want := 5 * time.Minute * time.Duration(i); e.Attempt != i+1 || e.Time.Sub(attempts[0].Time) != want {
			t.Errorf("attempt %d came after %v, want %d after %v", e.Attempt, e.Time.Sub(attempts[0].Time), i+1, want)
		}
	}
	if len(attempts) != 4 {
		t.Errorf("%d attempts, want 4", len(attempts))
	}
	if got := c.available("SIMSec-IoT"); got != 4998 {
		t.Errorf("%d licenses are available, want 4998", got)
	}
	c.call("DELETE", "/api/m2m/v1/devices/license/actions/assign", order("SIMSec-IoT", plainSIM, lost), 200, nil)
	c.advance("1s")
	if got := c.available("SIMSec-IoT"); got != 5000 {
		t.Errorf("%d licenses are available in the end, want 5000", got)
	}
	c.verify()
}

// TestSandboxMagic holds every fixed fate against what its line in the table says.
func TestSandboxMagic(t *testing.T) {
	c := startSandbox(t, SandboxConfig{})
	c.listen()
	for code, want := range map[string]struct {
		after               string // which the request takes to be settled
		status              string
		delivered, attempts int
		counts              string // the counts of the callbacks that arrived, in order
	}{
		"00": {"0s", "Success", 1, 1, "1"},
		"01": {"0s", "Failure", 1, 1, "1"},
		"02": {"0s", "Failure", 1, 1, "1"},
		"03": {"0s", "Success", 1, 1, "1"},
		"04": {"0s", "Failure", 1, 1, "1"},
		"10": {"30s", "Success", 1, 1, "1"},
		"11": {"1h", "Success", 1, 1, "1"},
		"12": {"1s", "Success", 1, 1, "1"},
		"13": {"25h", "Pending", 0, 0, ""},
		"14": {"0s", "Success", 1, 1, "1"},
		"15": {"1s", "Success", 1, 1, "1"},
		"20": {"5m", "Success", 1, 2, "2"},
		"21": {"15m", "Success", 0, 4, ""},
		"22": {"5m", "Success", 2, 2, "1 2"},
		"23": {"0s", "Success", 2, 2, "1 1"},
		"24": {"2m", "Success", 1, 1, "1"},
		"25": {"0s", "Success", 2, 2, ""},
		"26": {"0s", "Success", 0, 1, ""},
	} {
		t.Run(code, func(t *testing.T) {
			c := &tester{t, c.info}
			iccid := magic(t, code, 1)
			request := c.assign("SIMSec-IoT", iccid)
			if d, _ := time.ParseDuration(want.after); d > 0 {
				c.advance((d - time.Microsecond).String())
				if early := c.status(request) == want.status && len(c.entries("kind=callback&delivered=true&requestId="+request)) == want.delivered; early && want.delivered > 0 {
					t.Errorf("it is over before %s", want.after)
				}
			}
			c.advance("1us")
			callbacks := c.entries("kind=callback&requestId=" + request)
			var counts []string
			delivered := 0
			for _, e := range callbacks {
				if e.Delivered {
					delivered++
					counts = append(counts, fmt.Sprint(e.Attempt))
				}
			}
			if got := c.status(request); got != want.status || delivered != want.delivered || len(callbacks) != want.attempts {
				t.Errorf("status %s, %d attempts, %d arrived; want %s, %d, %d", got, len(callbacks), delivered, want.status, want.attempts, want.delivered)
			}
			if got := strings.Join(counts, " "); want.counts != "" && got != want.counts {
				t.Errorf("callbacks with the counts %s arrived, want %s", got, want.counts)
			}
			c.verify()
		})
	}
	if len(sandbox.Magics()) != 18 {
		t.Errorf("there are %d fixed fates; this test has a line for 18", len(sandbox.Magics()))
	}
}

// TestSandboxSpaces runs two hundred tests beside each other, each on a service of
// its own.
func TestSandboxSpaces(t *testing.T) {
	root := startSandbox(t, SandboxConfig{})
	spaces := 200
	if testing.Short() {
		spaces = 20
	}
	var all sync.WaitGroup
	for i := range spaces {
		all.Go(func() {
			var info SandboxInfo
			c := &tester{t, root.info}
			c.call("POST", "/sandbox/v1/namespaces", fmt.Sprintf(`{"name": "test %d", "randomSeed": %d}`, i, i), 200, &info)
			space := &tester{t, info}
			space.listen()
			space.assign("TS-BUNDLE-KTO-SIMSEC-MRC", plainSIM, magic(t, "20", 1))
			space.advance("5m")
			if got := len(space.entries("kind=callback&delivered=true")); got != 2 {
				t.Errorf("namespace %d: %d callbacks arrived, want 2", i, got)
			}
			if got := space.available("TS-BUNDLE-KTO-SIMSEC-MRC"); got != 1 {
				t.Errorf("namespace %d: %d licenses are left, want 1", i, got)
			}
			c.call("DELETE", fmt.Sprintf("/sandbox/v1/namespaces/test%%20%d", i), "", 200, nil)
		})
	}
	all.Wait()
	var left []SandboxInfo
	root.call("GET", "/sandbox/v1/namespaces", "", 200, &left)
	if len(left) != 0 || len(root.entries("kind=callback")) != 0 {
		t.Errorf("%d namespaces are left, and %d callbacks went through the sandbox around them; want none", len(left), len(root.entries("kind=callback")))
	}
}

// TestSandboxRepeats holds two runs from one seed against each other, byte for
// byte, and another from another.
func TestSandboxRepeats(t *testing.T) {
	history := func(seed uint64) string {
		c := startSandbox(t, SandboxConfig{Spec: sandbox.Spec{RandomSeed: seed}})
		c.listen()
		c.call("POST", "/sandbox/v1/faults", `{"on": "callback", "match": {"probability": 0.5}, "then": {"do": "lose"}}`, 200, nil)
		c.call("POST", "/sandbox/v1/faults", `{"on": "carrier", "match": {"probability": 0.3}, "then": {"do": "refuse", "text": "no"}}`, 200, nil)
		var sims []string
		for i := range 20 {
			sims = append(sims, string(sandbox.SIM(i+1)))
		}
		c.assign("SIMSec-IoT", append(sims, magic(t, "12", 1), magic(t, "10", 1), magic(t, "25", 1))...)
		c.advance("30m")
		got := c.try("GET", "/sandbox/v1/history", "")
		return string(got.body)
	}
	first := history(7)
	if again := history(7); again != first {
		t.Errorf("the same seed gave another history:\n%s\nwant\n%s", again, first)
	}
	if other := history(8); other == first {
		t.Error("another seed gave the same history")
	}
	if strings.Count(first, "\n") < 40 {
		t.Errorf("the history has %d lines:\n%s", strings.Count(first, "\n"), first)
	}
}

func TestSandboxState(t *testing.T) {
	for name, database := range map[string]string{"memory": "", "file": "sqlite:" + filepath.Join(t.TempDir(), "sandbox.db")} {
		t.Run(name, func(t *testing.T) {
			c := startSandbox(t, SandboxConfig{Database: database})
			c.listen()
			c.assign("SIMSec-IoT", plainSIM, magic(t, "11", 1))
			c.call("POST", "/sandbox/v1/faults", `{"id": "f", "on": "callback", "then": {"do": "lose"}}`, 200, nil)
			c.advance("10m")
			snapshot := c.try("GET", "/sandbox/v1/snapshot", "")
			if snapshot.status != 200 {
				t.Fatalf("snapshot = %d %s", snapshot.status, snapshot.body)
			}
			c.advance("2h")
			c.assign("SIMSec-IoT", plainSIM2)
			c.call("POST", "/sandbox/v1/restore", string(snapshot.body), 200, nil)
			if got := c.available("SIMSec-IoT"); got != 4998 {
				t.Errorf("after the restore %d licenses are available, want 4998", got)
			}
			var clock struct{ Now, Next time.Time }
			c.call("GET", "/sandbox/v1/clock", "", 200, &clock)
			if clock.Next.Sub(clock.Now) != 50*time.Minute {
				t.Errorf("after the restore the next is due in %v, want 50m", clock.Next.Sub(clock.Now))
			}
			c.advance("1h") // the late license comes, and its callback is lost by the fault
			if got := c.entries("fault=f"); len(got) == 0 {
				t.Error("the fault was not restored")
			}
			c.call("POST", "/sandbox/v1/restore", "nonsense", 400, nil)
			c.call("POST", "/sandbox/v1/restore", "", 400, nil)
			c.verify()

			c.call("POST", "/sandbox/v1/reset", "", 200, nil)
			if got := c.available("SIMSec-IoT"); got != 5000 || len(c.entries("")) != 0 {
				t.Errorf("after the reset %d licenses are available and the journal has %d entries", got, len(c.entries("")))
			}
			c.listen()
			c.assign("SIMSec-IoT", plainSIM)
			c.call("POST", "/sandbox/v1/seed", `{"accounts": [{"name": "another", "pools": {"SIMSec-IoT": 1}}]}`, 200, nil)
			c.call("POST", "/sandbox/v1/seed", `{"accounts": 7}`, 400, nil)
			c.verify()
		})
	}
}

func TestSandboxFaults(t *testing.T) {
	c := startSandbox(t, SandboxConfig{})
	c.listen()
	fault := func(text string) { c.call("POST", "/sandbox/v1/faults", text, 200, nil) }
	clean := func() { c.call("DELETE", "/sandbox/v1/faults", "", 200, nil) }
	list := `{"accountName": "` + sandbox.DefaultAccount + `", "skuNumber": "SIMSec-IoT"}`
	const pools = "/api/m2m/v1/accounts/subscriptions/actions/list"

	for _, status := range []int{429, 500, 503} {
		fault(fmt.Sprintf(`{"on": "api", "match": {"operation": "POST *subscriptions*"}, "times": 1, "then": {"do": "answer", "status": %d, "retryAfter": "7s"}}`, status))
		got := c.try("POST", pools, list)
		if got.status != status || !bytes.Contains(got.body, []byte(`"errorCode"`)) || status != 500 && got.header.Get("Retry-After") != "7" {
			t.Errorf("a fault with %d: %d, Retry-After %q, %s", status, got.status, got.header.Get("Retry-After"), got.body)
		}
		c.call("POST", pools, list, 200, nil) // once only
	}
	clean()

	fault(`{"on": "api", "times": 1, "then": {"do": "break", "after": true}}`)
	if got := c.try("POST", "/api/m2m/v1/devices/license/actions/assign", order("SIMSec-IoT", plainSIM)); got.err == nil {
		t.Errorf("a broken connection gave %d %s", got.status, got.body)
	}
	if got := c.available("SIMSec-IoT"); got != 4999 {
		t.Errorf("the work of the broken call was not done: %d available", got)
	}
	for do, want := range map[string]int{"expire-token": 401, "expire-session": 400} {
		fault(`{"on": "api", "times": 1, "then": {"do": "` + do + `"}}`)
		if got := c.try("POST", pools, list); got.status != want {
			t.Errorf("%s = %d %s", do, got.status, got.body)
		}
	}
	fault(`{"on": "api", "times": 1, "then": {"do": "hang", "for": "1ms"}}`)
	c.call("POST", pools, list, 200, nil)
	clean()

	fault(`{"id": "no", "on": "carrier", "match": {"nth": 2}, "then": {"do": "refuse", "code": "X", "text": "the second"}}`)
	fault(`{"id": "order", "on": "callback", "match": {"action": "assign"}, "then": {"do": "reorder", "of": 3}}`)
	c.assign("SIMSec-IoT", string(sandbox.SIM(3)), string(sandbox.SIM(4)), string(sandbox.SIM(5)))
	c.call("POST", "/sandbox/v1/settle", "", 200, nil)
	var order string
	for _, e := range c.entries("kind=callback&delivered=true&fault=order") {
		order += e.ICCID[len(e.ICCID)-2:len(e.ICCID)-1] + e.Outcome[:1]
	}
	if order != "5S4F3S" {
		t.Errorf("the callbacks came as %q, want the last first, and the second a failure: 5S4F3S", order)
	}
	for _, bad := range []string{
		`{"on": "nowhere", "then": {"do": "lose"}}`, `{"on": "carrier", "then": {"do": "lose"}}`, `{"on": "carrier", "then": {"do": "late"}}`,
		`{"on": "carrier", "match": {"probability": 2}, "then": {"do": "never"}}`, `{"on": "api", "match": {"iccid": "8*"}, "then": {"do": "hang"}}`,
		`{"on": "api", "then": {"do": "answer", "status": 200}}`, `{"on": "carrier", "typo": 1, "then": {"do": "never"}}`, `nonsense`,
	} {
		c.call("POST", "/sandbox/v1/faults", bad, 400, nil)
	}
	c.verify()
}

func TestSandboxHolds(t *testing.T) {
	c := startSandbox(t, SandboxConfig{})
	c.listen()
	c.call("POST", "/sandbox/v1/holds", `{"iccids": ["`+plainSIM+`"]}`, 200, nil)
	request := c.assign("SIMSec-IoT", plainSIM, plainSIM2)
	c.advance("3h")
	if got := c.status(request); got != "Pending" {
		t.Errorf("with a device held the request is %s", got)
	}
	c.call("DELETE", "/sandbox/v1/holds?iccid="+plainSIM2, "", 404, nil)
	c.call("DELETE", "/sandbox/v1/holds?iccid="+plainSIM, "", 200, nil)
	c.call("POST", "/sandbox/v1/settle", "", 200, nil)
	if got := c.status(request); got != "Success" {
		t.Errorf("released, the request is %s", got)
	}
}

func TestSandboxExpect(t *testing.T) {
	c := startSandbox(t, SandboxConfig{})
	c.listen()
	twice, late := magic(t, "22", 1), magic(t, "24", 1)
	c.assign("SIMSec-IoT", twice, late)
	var met sandbox.Met
	c.call("POST", "/sandbox/v1/expect", `{"match": {"iccid": "`+twice+`"}, "count": 2, "within": "6m"}`, 200, &met)
	if !met.Met || len(met.Entries) != 2 || !strings.HasPrefix(met.Now, "2026-01-01T00:05:00") {
		t.Errorf("expect = %+v; want two, and the clock no further than the second", met)
	}
	c.call("POST", "/sandbox/v1/expect", `{"match": {"iccid": "`+late+`"}}`, 200, &met)
	c.call("POST", "/sandbox/v1/expect", `{"match": {"iccid": "`+plainSIM+`"}, "within": "1h"}`, 417, &met)
	if met.Met || met.Reason == "" || !strings.HasPrefix(met.Now, "2026-01-01T01:05:00") {
		t.Errorf("expect = %+v; want it unmet with a reason, an hour later", met)
	}
	c.call("POST", "/sandbox/v1/expect", `{"match": {"iccid": "`+plainSIM+`"}, "count": 0, "within": "1h"}`, 200, nil)
	c.call("POST", "/sandbox/v1/expect", `{"match": {"iccid": "`+twice+`"}, "count": 1}`, 417, nil)

	// A clock that runs is waited for.
	c.call("POST", "/sandbox/v1/clock", `{"rate": 1000}`, 200, nil)
	c.assign("SIMSec-IoT", magic(t, "20", 1))
	c.call("POST", "/sandbox/v1/expect", `{"match": {"iccid": "`+magic(t, "20", 1)+`", "attempt": 2}, "within": "10m"}`, 200, &met)
}

func TestSandboxClock(t *testing.T) {
	c := startSandbox(t, SandboxConfig{})
	for _, bad := range []string{``, `{}`, `{"advance": "-1s"}`, `{"advance": "soon"}`, `{"rate": -1}`, `{"rate": 1001}`, `{"to": "2020-01-01T00:00:00Z"}`, `[]`} {
		c.call("POST", "/sandbox/v1/clock", bad, 400, nil)
	}
	// A session lives for 20 minutes idle and a token for an hour, for those who
	// come with their own.
	strict := startStrict(t)
	token := strict.token()
	session := strict.login(token)
	if got := strict.pools(token, session); got != 200 {
		t.Fatalf("pools = %d", got)
	}
	strict.advance("19m59s")
	if got := strict.pools(token, session); got != 200 {
		t.Errorf("after 19m59s idle: %d, want 200", got)
	}
	strict.advance("20m")
	if got := strict.pools(token, session); got != 400 {
		t.Errorf("after 20m idle: %d, want 400", got)
	}
	session = strict.login(token)
	strict.advance("19m")
	if got := strict.pools(token, session); got != 200 {
		t.Errorf("within the token's hour: %d, want 200", got)
	}
	strict.advance("1m1s")
	if got := strict.pools(token, session); got != 401 {
		t.Errorf("after the token's hour: %d, want 401", got)
	}
	token = strict.token()
	session = strict.login(token)
	strict.call("POST", "/sandbox/v1/expire", `{"what": "sessions"}`, 200, nil)
	if got := strict.pools(token, session); got != 400 {
		t.Errorf("with an expired session: %d, want 400", got)
	}
	session = strict.login(token)
	strict.call("POST", "/sandbox/v1/expire", `{"what": "tokens"}`, 200, nil)
	if got := strict.pools(token, session); got != 401 {
		t.Errorf("with an expired token: %d, want 401", got)
	}
	if again := strict.token(); again == token {
		t.Error("the expired token was given out again")
	}
}

// strictTester comes with tokens of its own.
type strictTester struct{ *tester }

func startStrict(t *testing.T) strictTester {
	t.Helper()
	return strictTester{startAnySandbox(t, SandboxConfig{})}
}

func (s strictTester) do(method, path, contentType, auth, session, body string) (int, map[string]any) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.info.URL+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	if auth == "" {
		r.SetBasicAuth("demo-key", "demo-secret")
	} else {
		r.Header.Set("Authorization", "Bearer "+auth)
	}
	if session != "" {
		r.Header.Set("VZ-M2M-Token", session)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	var got map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, got
}

func (s strictTester) token() string {
	_, got := s.do("POST", "/api/ts/v1/oauth2/token", "application/x-www-form-urlencoded", "", "", "grant_type=client_credentials")
	token, _ := got["access_token"].(string)
	return token
}

func (s strictTester) login(token string) string {
	_, got := s.do("POST", "/api/m2m/v1/session/login", "application/json", token, "", `{"username": "demo", "password": "demo-password"}`)
	session, _ := got["sessionToken"].(string)
	return session
}

func (s strictTester) pools(token, session string) int {
	status, _ := s.do("POST", "/api/m2m/v1/accounts/subscriptions/actions/list", "application/json", token, session, `{"accountName": "`+sandbox.DefaultAccount+`"}`)
	return status
}

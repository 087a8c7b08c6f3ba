package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store/storetest"
	"github.com/simlatch/simlatch/m2m"
)

// The size of the kill test.
const (
	kills        = 20
	killClients  = 4
	killChunks   = 30 // of SIMs, for each client
	killChunk    = 8  // SIMs in a request
	killAccount  = "0000123456-00001"
	killPatience = 45 * time.Second // longer than a lease on PostgreSQL
)

// TestKilled kills a server with SIGKILL at random moments under load and
// restarts it. Nothing that was acknowledged may be lost, nothing done twice,
// and every callback must arrive at least once, always with the same outcome.
func TestKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("takes up to a minute")
	}
	for _, e := range storetest.Engines(t) {
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			k := newKillTest(t, e.NewDatabase(t))
			k.run(t)
		})
	}
}

// killTest is a server that is killed, its clients and their listener.
type killTest struct {
	database *storetest.Database
	dir      string
	log      *os.File
	flags    []string
	url      atomic.Value // string; of the server, which changes with each start
	stop     chan struct{}

	bearer, session string
	listener        *httptest.Server

	mu       sync.Mutex                   // guards what follows
	came     map[string]map[string]string // the status of callbacks, by request and ICCID
	requests int                          // that were acknowledged
	faults   []string
}

func newKillTest(t *testing.T, db *storetest.Database) *killTest {
	t.Helper()
	k := &killTest{database: db, dir: t.TempDir(), stop: make(chan struct{}), came: map[string]map[string]string{}}
	var fleet strings.Builder
	fleet.WriteString("account,imei,iccid,mdn,state,generation\n")
	for i := range killClients * killChunks * killChunk {
		fmt.Fprintf(&fleet, "%s,35824005%07d,%s,,,\n", killAccount, i, killICCID(i))
	}
	for name, text := range map[string]string{
		"fleet.csv": fleet.String(),
		"key":       "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n", // that of storetest
		"seed.yaml": "applications: [{key: k, secret: s}]\nusers: [{username: u, password: p, accounts: [" + killAccount + "]}]\n" +
			"accounts: [{name: " + killAccount + ", pools: {SIMSec-IoT: 100000}}]\ndeviceFiles: [fleet.csv]\n",
	} {
		if err := os.WriteFile(filepath.Join(k.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if k.log, err = os.Create(filepath.Join(k.dir, "server.log")); err != nil {
		t.Fatal(err)
	}
	k.flags = []string{
		"serve", "--carrier", "simulated", "--carrier-refuse-rate", "0.1", "--listen", "127.0.0.1:0", "--database", db.URL,
		"--secrets-key-file", "key", "--callback-allow", "127.0.0.0/8", "--callback-interval", "100ms",
	}
	k.listener = httptest.NewServer(http.HandlerFunc(k.receive))
	t.Cleanup(k.listener.Close)
	return k
}

func killICCID(i int) string { return fmt.Sprintf("8914802%013d", i) }

func (k *killTest) run(t *testing.T) {
	p := k.start(t, "--seed", "seed.yaml")
	k.login(t)
	var clients sync.WaitGroup
	held := make([]map[string]bool, killClients)
	for i := range killClients {
		held[i] = map[string]bool{}
		clients.Go(func() { k.client(i, held[i]) })
	}
	for range kills {
		life := time.NewTimer(20*time.Millisecond + rand.N(400*time.Millisecond))
		<-life.C
		p.kill()
		p = k.start(t)
	}
	close(k.stop)
	clients.Wait()
	if err := p.terminate(); err != nil {
		t.Errorf("the last server ended with %v", err)
	}
	for _, fault := range k.faults {
		t.Error(fault)
	}
	k.check(t, held)
	if t.Failed() {
		log, _ := os.ReadFile(k.log.Name()) // as much as there is
		t.Logf("the end of the servers' log:\n%s", log[max(0, len(log)-8000):])
	}
}

func (k *killTest) start(t *testing.T, more ...string) *process {
	t.Helper()
	p, err := startProcess(k.dir, k.log, append(k.flags, more...)...)
	if err != nil {
		log, _ := os.ReadFile(k.log.Name()) // as much as there is
		t.Fatalf("%v:\n%s", err, log[max(0, len(log)-4000):])
	}
	t.Cleanup(p.kill)
	k.url.Store(p.url)
	return p
}

// receive is the listener. It refuses some messages once.
func (k *killTest) receive(w http.ResponseWriter, r *http.Request) {
	var m m2m.CallbackMessage
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil || len(m.DeviceIDs) == 0 {
		return // the server was killed while it sent
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	iccid := m.DeviceIDs[0].ID
	of := k.came[m.RequestID]
	if of == nil {
		of = map[string]string{}
		k.came[m.RequestID] = of
	}
	before, again := of[iccid]
	if !again && rand.N(20) == 0 {
		of[iccid] = ""
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	if before != "" && before != m.Status {
		k.fault("request %s, SIM %s: told %s, then %s", m.RequestID, iccid, before, m.Status)
	}
	of[iccid] = m.Status
}

// fault notes what went wrong. The caller holds the mutex.
func (k *killTest) fault(format string, args ...any) {
	k.faults = append(k.faults, fmt.Sprintf(format, args...))
}

// told returns how the devices of a request ended, once all were told of.
func (k *killTest) told(request string, n int) (map[string]string, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ended := map[string]string{}
	for iccid, status := range k.came[request] {
		if status != "" {
			ended[iccid] = status
		}
	}
	return ended, len(ended) == n
}

// chunk is some SIMs that a client assigns and unassigns together.
type chunk struct {
	iccids  []string
	request string // under way; empty when none
	asked   []string
	action  string
}

// client assigns and unassigns its SIMs until the test stops, then waits for
// what is under way. In held it leaves which SIMs hold a license.
func (k *killTest) client(number int, held map[string]bool) {
	chunks := make([]*chunk, killChunks)
	for i := range chunks {
		chunks[i] = &chunk{}
		for j := range killChunk {
			chunks[i].iccids = append(chunks[i].iccids, killICCID((number*killChunks+i)*killChunk+j))
		}
	}
	var deadline <-chan time.Time // set when the test has stopped
	for {
		select {
		case <-k.stopped(deadline):
			deadline = time.After(killPatience)
		default:
		}
		busy, asked := 0, false
		for _, c := range chunks {
			if c.request != "" && !k.settle(c, held) {
				busy++
				continue
			}
			if deadline == nil {
				asked = k.ask(c, held) || asked
			}
		}
		if deadline != nil && busy == 0 {
			return
		}
		if asked {
			continue
		}
		select {
		case <-deadline:
			k.mu.Lock()
			defer k.mu.Unlock()
			k.fault("client %d: the callbacks of %d requests did not come within %v", number, busy, killPatience)
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// stopped is closed when the test stops; nil once the client has seen that.
func (k *killTest) stopped(deadline <-chan time.Time) <-chan struct{} {
	if deadline != nil {
		return nil
	}
	return k.stop
}

// settle notes the outcomes of a chunk's request, if all have come.
func (k *killTest) settle(c *chunk, held map[string]bool) bool {
	ended, all := k.told(c.request, len(c.asked))
	if !all {
		return false
	}
	for iccid, status := range ended {
		if status == m2m.CallbackSuccess {
			held[iccid] = c.action == "assign"
		}
	}
	c.request = ""
	return true
}

// ask unassigns what SIMs of a chunk are held, or assigns all when none is.
// It repeats itself under one key until it is answered.
func (k *killTest) ask(c *chunk, held map[string]bool) bool {
	c.action, c.asked = "assign", nil
	for _, iccid := range c.iccids {
		if held[iccid] {
			c.action = "unassign"
			c.asked = append(c.asked, iccid)
		}
	}
	if c.action == "assign" {
		c.asked = c.iccids
	}
	in := m2m.LicenseRequest{AccountName: killAccount, SKUNumber: string(license.SKUFlexible)}
	for _, iccid := range c.asked {
		in.Devices = append(in.Devices, m2m.Device{DeviceIDs: []m2m.DeviceID{{ID: iccid, Kind: "iccid"}}})
	}
	body, _ := json.Marshal(in) // strings only
	key := fmt.Sprintf("%x-%x", rand.Uint64(), rand.Uint64())
	for {
		status, answer, err := k.call("/api/m2m/v1/devices/license/actions/"+c.action, string(body), map[string]string{
			"Authorization": "Bearer " + k.bearer, m2m.SessionHeader: k.session, "Content-Type": "application/json", "Idempotency-Key": key,
		})
		var accepted m2m.RequestAccepted
		switch {
		case err != nil || status == http.StatusServiceUnavailable:
			// Killed: whether it was accepted is unknown.
			<-time.After(5 * time.Millisecond)
			continue
		case status != http.StatusOK || json.Unmarshal(answer, &accepted) != nil || accepted.RequestID == "":
			k.mu.Lock()
			defer k.mu.Unlock()
			k.fault("%s of %v = %d %s", c.action, c.asked, status, answer)
			c.iccids = nil
			return false
		}
		c.request = accepted.RequestID
		k.mu.Lock()
		defer k.mu.Unlock()
		k.requests++
		return true
	}
}

func (k *killTest) call(path, body string, header map[string]string) (status int, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, k.url.Load().(string)+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return 0, nil, err
	}
	for name, value := range header {
		q.Header.Set(name, value)
	}
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		return 0, nil, err
	}
	defer a.Body.Close()
	answer, err = io.ReadAll(a.Body)
	return a.StatusCode, answer, err
}

// login gets the token and the session that all clients use, and registers the
// listener. Both must survive the kills.
func (k *killTest) login(t *testing.T) {
	t.Helper()
	get := func(path, body string, header map[string]string, out any) {
		t.Helper()
		status, answer, err := k.call(path, body, header)
		if err != nil || status != http.StatusOK {
			t.Fatalf("%s = %d %s, %v", path, status, answer, err)
		}
		if err := json.Unmarshal(answer, out); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	var token m2m.TokenAnswer
	get("/api/ts/v1/oauth2/token", url.Values{"grant_type": {"client_credentials"}}.Encode(), map[string]string{
		"Authorization": "Basic azpz", "Content-Type": "application/x-www-form-urlencoded", // k:s
	}, &token)
	k.bearer = token.AccessToken
	header := map[string]string{"Authorization": "Bearer " + k.bearer, "Content-Type": "application/json"}
	var session m2m.SessionAnswer
	get("/api/m2m/v1/session/login", `{"username": "u", "password": "p"}`, header, &session)
	k.session = session.SessionToken
	header[m2m.SessionHeader] = k.session
	var listener m2m.ListenerAnswer
	get("/api/m2m/v1/callbacks/"+killAccount, fmt.Sprintf(`{"name": "CarrierService", "url": %q}`, k.listener.URL), header, &listener)
}

// check holds the database against what the clients know.
func (k *killTest) check(t *testing.T, held []map[string]bool) {
	t.Helper()
	ctx := t.Context()
	s := k.database.Open(t)
	sims, err := s.Devices(ctx, license.DeviceFilter{Accounts: []license.AccountName{killAccount}, Limit: 1_000_000})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, of := range held {
		for iccid, yes := range of {
			all[iccid] = yes
		}
	}
	assigned := int64(0)
	for _, sim := range sims {
		if has := sim.SKU != ""; has != all[string(sim.Device.ICCID)] {
			t.Errorf("SIM %s holds a license: %v; its client was told %v", sim.Device.ICCID, has, !has)
		}
		if sim.SKU != "" {
			assigned++
		}
	}
	pools, err := s.Pools(ctx, killAccount)
	if err != nil || len(pools) != 1 || pools[0].Assigned != assigned || pools[0].Reserved != 0 {
		t.Errorf("Pools = %+v, %v; want %d assigned and none reserved", pools, err, assigned)
	}
	var requests int
	if err := k.database.SQL(t).QueryRowContext(ctx, "SELECT count(*) FROM request").Scan(&requests); err != nil || requests != k.requests {
		t.Errorf("there are %d requests (%v), and %d were acknowledged", requests, err, k.requests)
	}
	messages := 0
	for _, of := range k.came {
		messages += len(of)
	}
	t.Logf("%d kills, %d requests, %d devices told of, %d SIMs hold a license", kills, k.requests, messages, assigned)
	if k.requests < kills {
		t.Errorf("only %d requests in %d lives: that was no load", k.requests, kills)
	}
}

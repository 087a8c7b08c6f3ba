package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store/storetest"
	"github.com/simlatch/simlatch/m2m"
)

// The size of the chain test; TEST_CHAIN makes it take so many devices.
const (
	chainDevices  = 2000
	chainRequest  = 500 // devices in one
	chainKills    = 3   // of each side
	chainPatience = 90 * time.Second
)

// TestChain takes devices through a guard and the sandbox behind it, two
// processes that talk over sockets, both of which are killed at random moments.
// No device may be lost or licensed twice, each must end as it should, and both
// sides must agree about the pools.
func TestChain(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	n := chainDevices
	if text := os.Getenv("TEST_CHAIN"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range storetest.Engines(t) {
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, e.NewDatabase(t), n)
			c.run(t)
		})
	}
}

// chain is a guard and what stands behind it.
type chain struct {
	n        int
	database *storetest.Database
	dir      string
	log      *os.File

	guard, upstream           string // addresses
	guardFlags, upstreamFlags []string
	client                    *m2m.Client // of the guard

	mu     sync.Mutex // guards what follows
	came   map[string]string
	total  int
	faults []string
}

// Every 50th SIM is refused by the carrier behind the upstream; the upstream does
// not know the first of each request, and holds another license for the second.
func chainICCID(i int) string {
	if i%50 == 49 {
		return fmt.Sprintf("899990001%010d", i) // of sandbox.MagicPrefix: blocked
	}
	return fmt.Sprintf("8914803%013d", i)
}

func chainStranger(i int) bool { return i%chainRequest == 0 }
func chainHeld(i int) bool     { return i%chainRequest == 1 }
func chainOK(i int) bool       { return i%50 != 49 && !chainStranger(i) && !chainHeld(i) }

func newChain(t *testing.T, db *storetest.Database, n int) *chain {
	t.Helper()
	c := &chain{n: n, database: db, dir: t.TempDir(), guard: freeAddress(t), upstream: freeAddress(t), came: map[string]string{}}
	seed := func(known func(i int) bool) string {
		var b strings.Builder
		b.WriteString("applications: [{key: k, secret: s}]\nusers: [{username: u, password: p, accounts: [\"" + killAccount + "\"]}]\n" +
			"accounts: [{name: \"" + killAccount + "\", pools: {SIMSec-IoT: 100000, TSS-IOT-INTLG-TIERED-SIMSEC: 1000}}]\ndevices:\n")
		for i := range n {
			if known(i) {
				fmt.Fprintf(&b, "  - {account: \"%s\", imei: \"35824005%07d\", iccid: \"%s\"}\n", killAccount, i, chainICCID(i))
			}
		}
		return b.String()
	}
	for name, text := range map[string]string{
		"guard.yaml":    seed(func(int) bool { return true }),
		"upstream.yaml": seed(func(i int) bool { return !chainStranger(i) }),
		"key":           "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n", // that of storetest
		"secret":        "s\n",
	} {
		if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if c.log, err = os.Create(filepath.Join(c.dir, "server.log")); err != nil {
		t.Fatal(err)
	}
	callbacks := freeAddress(t)
	c.upstreamFlags = []string{
		"sandbox", "--listen", c.upstream, "--file", "upstream.db", "--seed", "upstream.yaml", "--listener-connections", "16",
		"--callback-interval", "300ms", "--callback-attempts", "200", "--callback-timeout", "2s",
	}
	c.guardFlags = []string{
		"serve", "--carrier", "upstream:http://" + c.upstream, "--listen", c.guard, "--database", db.URL, "--secrets-key-file", "key",
		"--upstream-key", "k", "--upstream-secret", "s", "--upstream-user", "u", "--upstream-password", "p", "--upstream-rate", "0",
		"--upstream-listen", callbacks, "--upstream-callback-url", "http://" + callbacks + "/", "--upstream-patience", "3s", "--upstream-timeout", "2s",
		"--callback-allow", "127.0.0.0/8", "--callback-interval", "200ms", "--grace", "2s",
	}
	c.client, err = m2m.New(m2m.Config{BaseURL: "http://" + c.guard, Key: "k", Secret: "s", Username: "u", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *chain) run(t *testing.T) {
	behind := c.start(t, c.upstreamFlags)
	c.hold(t)
	front := c.start(t, append(c.guardFlags, "--seed", "guard.yaml"))
	listener := httptest.NewServer(m2m.CallbackHandler(c.receive))
	t.Cleanup(listener.Close)
	if _, err := c.client.RegisterListener(t.Context(), killAccount, m2m.ListenerRequest{Name: m2m.CarrierService, URL: listener.URL}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var work sync.WaitGroup
	work.Go(func() { c.ask(t) })
	for range chainKills {
		for _, side := range []struct {
			p     **process
			flags []string
		}{{&front, c.guardFlags}, {&behind, c.upstreamFlags}} {
			<-time.After(rand.N(600 * time.Millisecond))
			(*side.p).kill()
			*side.p = c.start(t, side.flags)
		}
	}
	work.Wait()
	for deadline := time.After(chainPatience); c.told() < c.n; {
		select {
		case <-deadline:
			t.Errorf("%d devices of %d were told of within %v", c.told(), c.n, chainPatience)
			c.end(t, front, behind)
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
	t.Logf("%d devices, %d kills: %v, %d callbacks", c.n, 2*chainKills, time.Since(began).Round(time.Millisecond), c.total)
	c.check(t)
	c.end(t, front, behind)
}

// start starts one side.
func (c *chain) start(t *testing.T, flags []string) *process {
	t.Helper()
	p, err := startProcess(c.dir, c.log, flags...)
	if err != nil {
		c.tell(t)
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

// tell shows the end of the log.
func (c *chain) tell(t *testing.T) {
	t.Helper()
	log, _ := os.ReadFile(c.log.Name()) // as much as there is
	t.Logf("the end of the servers' log:\n%s", log[max(0, len(log)-8000):])
}

// end ends both sides and checks what they leave.
func (c *chain) end(t *testing.T, front, behind *process) {
	t.Helper()
	for _, p := range []*process{front, behind} {
		if err := p.terminate(); err != nil {
			t.Errorf("a server ended with %v", err)
		}
	}
	// The guard's database is verified when it is dropped.
	var out bytes.Buffer
	if status := run([]string{"verify", "--database", "sqlite:" + filepath.Join(c.dir, "upstream.db")}, streams{in: strings.NewReader(""), out: &out, err: &out}); status != exitDone {
		t.Errorf("verify of the upstream: %d\n%s", status, out.String())
	}
	for _, f := range c.faults {
		t.Error(f)
	}
	if t.Failed() {
		c.tell(t)
	}
}

// hold gives some devices another license at the upstream.
func (c *chain) hold(t *testing.T) {
	t.Helper()
	client, err := m2m.New(m2m.Config{BaseURL: "http://" + c.upstream, Key: "k", Secret: "s", Username: "u", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	r := m2m.LicenseRequest{AccountName: killAccount, SKUNumber: string(license.SKUIntelligence)}
	for i := range c.n {
		if chainHeld(i) {
			r.Devices = append(r.Devices, m2m.NewDevice("", chainICCID(i)))
		}
	}
	if _, err := client.Assign(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

// ask asks the guard for licenses for all devices, each request until it is
// accepted.
func (c *chain) ask(t *testing.T) {
	for first := 0; first < c.n; first += chainRequest {
		r := m2m.LicenseRequest{AccountName: killAccount, SKUNumber: string(license.SKUFlexible)}
		for i := first; i < min(first+chainRequest, c.n); i++ {
			r.Devices = append(r.Devices, m2m.NewDevice("", chainICCID(i)))
		}
		for key := strconv.Itoa(first); ; {
			_, err := c.client.Assign(t.Context(), r, m2m.WithIdempotencyKey(key))
			if err == nil {
				break
			}
			if e := new(m2m.Error); errors.As(err, &e) && e.Status < 500 {
				t.Errorf("asking for devices from %d: %v", first, err)
				return
			}
			<-time.After(10 * time.Millisecond)
		}
	}
}

// receive is the listener of the guard.
func (c *chain) receive(_ context.Context, m *m2m.CallbackMessage) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total++
	if before := c.came[m.ICCID()]; before != "" && before != m.Status {
		c.faults = append(c.faults, fmt.Sprintf("SIM %s: told %s, then %s", m.ICCID(), before, m.Status))
	}
	c.came[m.ICCID()] = m.Status
	return nil
}

func (c *chain) told() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.came)
}

// check compares both sides, and what the listener was told.
func (c *chain) check(t *testing.T) {
	t.Helper()
	assigned := int64(0)
	for i := range c.n {
		want := m2m.CallbackFailed
		if chainOK(i) {
			want = m2m.CallbackSuccess
			assigned++
		}
		if got := c.came[chainICCID(i)]; got != want {
			t.Errorf("SIM %d: %s, want %s", i, got, want)
		}
	}
	there, err := m2m.New(m2m.Config{BaseURL: "http://" + c.upstream, Key: "k", Secret: "s", Username: "u", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	for side, client := range map[string]*m2m.Client{"guard": c.client, "upstream": there} {
		s, err := client.Subscriptions(t.Context(), killAccount, string(license.SKUFlexible))
		if err != nil || len(s.SubscriptionList) != 1 || s.SubscriptionList[0].LicenseAssigned != assigned || s.SubscriptionList[0].LicenseAvailable != 100_000-assigned {
			t.Errorf("the %s's pool: %+v, %v; want %d assigned and none reserved", side, s, err, assigned)
		}
	}
	// The other pool differs by what was assigned there behind the guard's back.
	var out bytes.Buffer
	args := append([]string{"upstream", "compare", "--database", c.database.URL, "--secrets-key-file", filepath.Join(c.dir, "key")}, "--carrier", "upstream:http://"+c.upstream,
		"--upstream-key", "k", "--upstream-secret", "s", "--upstream-user", "u", "--upstream-password", "p", "--output", "csv")
	if status := run(args, streams{in: strings.NewReader(""), out: &out, err: &out}); status != exitPartly || !strings.Contains(out.String(), "assigned +") {
		t.Errorf("upstream compare: %d\n%s", status, out.String())
	}
	t.Logf("%s", out.String())
}

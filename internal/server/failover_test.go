package server

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store/storetest"
	"github.com/simlatch/simlatch/internal/store/storetest/pgcluster"
	"github.com/simlatch/simlatch/m2m"
)

// The size of the failover tests.
const (
	haClients  = 4
	haSIMs     = 6000 // more than are asked for in the time
	haDevices  = 2    // in a request
	haTimeout  = 30 * time.Second
	haPatience = time.Minute // longer than a lease
)

// TestFailover kills the primary under load, with a standby that every commit
// waited for: nothing that was answered may be missing.
func TestFailover(t *testing.T) {
	for name, lose := range map[string]func(*pgcluster.Cluster) error{
		"killed": (*pgcluster.Cluster).Kill,
		"frozen": (*pgcluster.Cluster).Freeze,
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && name != "killed" {
				t.Skip("one way to lose it is enough")
			}
			t.Parallel()
			h := newFailover(t, true)
			stop := h.load()
			h.answers(t, 40)
			if err := lose(h.primary); err != nil {
				t.Fatal(err)
			}
			h.away(t)
			if err := h.standby.Promote(t.Context()); err != nil {
				t.Fatal(err)
			}
			// Fenced: a primary that woke up again would be a second one.
			if err := h.primary.Kill(); name == "frozen" && err != nil {
				t.Fatal(err)
			}
			h.answers(t, 40) // by themselves
			stop()
			if lost := h.lost(t); len(lost) > 0 {
				t.Errorf("%d of %d requests that were answered are lost: %v", len(lost), len(h.accepted), lost)
			}
			h.settled(t)
		})
	}
}

// TestFailoverLoses is the same with a standby that nothing waited for and whose
// replication was cut: it must find losses, or TestFailover is blind.
func TestFailoverLoses(t *testing.T) {
	if testing.Short() {
		t.Skip("says nothing about races that TestFailover does not")
	}
	t.Parallel()
	h := newFailover(t, false)
	if err := h.standby.Cut(); err != nil {
		t.Fatal(err)
	}
	storetest.Await(t, "replication to end", h.primary, "SELECT count(*) FROM pg_stat_replication", 0)
	stop := h.load()
	h.answers(t, 40)
	if err := h.primary.Kill(); err != nil {
		t.Fatal(err)
	}
	h.away(t)
	if err := h.standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.answers(t, 40)
	stop()
	if lost := h.lost(t); len(lost) < 40 {
		t.Errorf("%d requests are lost; the 40 that were answered when nothing was replicated should be", len(lost))
	}
}

// failover is two nodes on a primary with a standby, and what was answered and
// told.
type failover struct {
	primary, standby *pgcluster.Cluster
	nodes            []*caller
	server           *running
	listener         *httptest.Server

	mu       sync.Mutex // guards what follows
	next     int        // the first SIM not asked for
	accepted map[string][]string
	told     map[string]bool // by request and ICCID
	faults   []string
}

func newFailover(t *testing.T, synchronous bool) *failover {
	t.Helper()
	h := &failover{accepted: map[string][]string{}, told: map[string]bool{}}
	h.primary, h.standby = storetest.Pair(t, synchronous)
	dir := t.TempDir()
	writeFile(t, dir, "fleet.csv", moreSIMs(0, haSIMs))
	cfg := Config{
		Database:         pgcluster.URLs(h.primary, h.standby),
		SecretsKeyFile:   writeFile(t, dir, "key", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n"),
		Seed:             writeFile(t, dir, "seed.yaml", strings.Replace(goodSeed, "SIMSec-IoT: 5000", "SIMSec-IoT: 100000", 1)+"deviceFiles: [fleet.csv]\n"),
		CallbackInterval: time.Second,
	}
	h.server = startServer(t, cfg)
	cfg.Seed = ""
	other := startServer(t, cfg)
	c := h.server.login(t)
	h.listener = httptest.NewServer(http.HandlerFunc(h.receive))
	t.Cleanup(h.listener.Close)
	c.call(http.MethodPost, "/callbacks/"+testAccount, m2m.ListenerRequest{Name: "CarrierService", URL: h.listener.URL}, http.StatusOK, nil)
	second := *c
	second.url = other.URL()
	h.nodes = []*caller{c, &second}
	return h
}

func (h *failover) receive(_ http.ResponseWriter, r *http.Request) {
	var m m2m.CallbackMessage
	err := json.NewDecoder(r.Body).Decode(&m)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil || len(m.DeviceIDs) == 0 || m.Status != m2m.CallbackSuccess {
		h.faults = append(h.faults, fmt.Sprintf("a callback: %+v, %v", m, err))
		return
	}
	h.told[m.RequestID+" "+m.DeviceIDs[0].ID] = true
}

// load starts clients that assign licenses to SIMs until they are stopped.
func (h *failover) load() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	for i := range haClients {
		clients.Go(func() {
			for ctx.Err() == nil {
				h.assign(ctx, h.nodes[i%len(h.nodes)])
			}
		})
	}
	return func() {
		cancel()
		clients.Wait()
	}
}

// assign assigns licenses to the next SIMs, again and again under one key until
// that is answered with success.
func (h *failover) assign(ctx context.Context, c *caller) {
	h.mu.Lock()
	first := h.next
	h.next += haDevices
	h.mu.Unlock()
	var iccids []string
	for i := range haDevices {
		iccids = append(iccids, fmt.Sprintf("8914801%013d", first+i))
	}
	key := fmt.Sprintf("key-%d", first)
	for ctx.Err() == nil {
		status, header, body, err := c.try(http.MethodPost, "/devices/license/actions/assign", key, licenseRequest("SIMSec-IoT", iccids...))
		var accepted m2m.RequestAccepted
		h.mu.Lock()
		switch {
		case err == nil && status == http.StatusOK && json.Unmarshal(body, &accepted) == nil && accepted.RequestID != "":
			h.accepted[accepted.RequestID] = iccids
			h.mu.Unlock()
			return
		case err == nil && status == http.StatusServiceUnavailable && header.Get("Retry-After") != "":
		default:
			h.faults = append(h.faults, fmt.Sprintf("an assign: %d %s, %v", status, body, err))
		}
		h.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// try makes a call that may be answered in any way.
func (c *caller) try(method, path, key string, in any) (status int, header http.Header, body []byte, err error) {
	b, err := json.Marshal(in)
	if err != nil {
		return 0, nil, nil, err
	}
	// A little more than the service allows itself.
	ctx, cancel := context.WithTimeout(context.Background(), haTimeout+5*time.Second)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, method, c.url+m2m.APIPrefix+path, bytes.NewReader(b))
	if err != nil {
		return 0, nil, nil, err
	}
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("Authorization", "Bearer "+c.bearer)
	q.Header.Set(m2m.SessionHeader, c.session)
	if key != "" {
		q.Header.Set("Idempotency-Key", key)
	}
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		return 0, nil, nil, err
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(answer.Body)
	return answer.StatusCode, answer.Header, body, err
}

// answers waits for n more requests to be answered with success.
func (h *failover) answers(t *testing.T, n int) {
	t.Helper()
	count := func() int {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.accepted)
	}
	want := count() + n
	h.within(t, fmt.Sprintf("%d more requests are accepted", n), func() bool { return count() >= want })
}

// away checks that both nodes say of reads and writes, within a call's time,
// that there is no primary.
func (h *failover) away(t *testing.T) {
	t.Helper()
	var calls sync.WaitGroup
	for _, c := range h.nodes {
		for path, in := range map[string]any{
			"/devices/license/actions/assign":      licenseRequest("SIMSec-IoT", "89148000000000000012"),
			"/accounts/subscriptions/actions/list": m2m.SubscriptionsRequest{AccountName: testAccount},
		} {
			calls.Go(func() {
				begun := time.Now()
				status, header, body, err := c.try(http.MethodPost, path, "", in)
				if err != nil || status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
					t.Errorf("%s without a primary = %d %s, %v, want 503 with Retry-After", path, status, body, err)
				}
				if took := time.Since(begun); took > haTimeout {
					t.Errorf("%s without a primary took %v", path, took)
				}
			})
		}
	}
	calls.Wait()
}

func (h *failover) within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(haPatience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("not within %v: %s", haPatience, what)
		case <-tick.C:
		}
	}
}

// lost lists the requests that were answered with success and of which the new
// primary does not know, or whose SIMs do not hold their license.
func (h *failover) lost(t *testing.T) (lost []string) {
	t.Helper()
	db, err := sql.Open("pgx", h.standby.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for request, iccids := range h.accepted {
		var held int
		err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM sim WHERE account = $1 AND request = $2 AND sku = 'SIMSec-IoT' AND iccid IN ($3, $4)",
			testAccount, request, iccids[0], iccids[1]).Scan(&held)
		if err != nil {
			t.Fatal(err)
		}
		if held != len(iccids) {
			lost = append(lost, request)
		}
	}
	return lost
}

// settled checks that every device of every request is told of and that the
// ledger is exact.
func (h *failover) settled(t *testing.T) {
	t.Helper()
	var missing string
	defer func() {
		if t.Failed() {
			t.Logf("no callback came for %s", missing)
		}
	}()
	h.within(t, "every callback comes", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		for request, iccids := range h.accepted {
			for _, iccid := range iccids {
				if missing = request + " " + iccid; !h.told[missing] {
					return false
				}
			}
		}
		missing = "none"
		return true
	})
	h.within(t, "nothing is reserved", func() bool { return h.pool(t).Reserved == 0 })
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, fault := range h.faults {
		t.Error(fault)
	}
	// What was asked for last, or while there was no primary, may have been
	// accepted and not answered.
	if p := h.pool(t); p.Assigned < int64(haDevices*len(h.accepted)) || p.Assigned > int64(h.next+1) {
		t.Errorf("pool = %+v, want %d to %d assigned", p, haDevices*len(h.accepted), h.next+1)
	}
	noDrift(t, h.server)
}

func (h *failover) pool(t *testing.T) license.Pool {
	t.Helper()
	pools, err := h.server.store.Pools(t.Context(), testAccount)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pools {
		if p.SKU == license.SKUFlexible {
			return p
		}
	}
	t.Fatal("the pool is gone")
	return license.Pool{}
}

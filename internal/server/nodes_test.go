package server

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// nodeVariable makes the test program a node, as runNode has it.
const nodeVariable = "SIMLATCH_TEST_NODE"

func TestMain(m *testing.M) {
	if text := os.Getenv(nodeVariable); text != "" {
		if err := runNode(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// TestNodesShareTheWork: any node takes any request, and each device is told of
// once.
func TestNodesShareTheWork(t *testing.T) {
	for _, n := range []int{1, 2, 4} {
		t.Run(fmt.Sprintf("nodes=%d", n), func(t *testing.T) {
			onManyNodes(t, func(t *testing.T, cfg Config) {
				const requests, devices = 40, 6
				withFleet(t, &cfg, requests*devices)
				var nodes []*running
				for range n {
					nodes = append(nodes, startServer(t, cfg))
				}
				c := nodes[0].login(t)
				l := newLedgerListener(t, c)
				for i := range requests {
					c.url = nodes[i%n].URL()
					c.call(http.MethodPost, "/devices/license/actions/assign",
						licenseRequest("SIMSec-IoT", fleet(i*devices, devices)...), http.StatusOK, nil)
				}
				l.wait(t, requests*devices)
				for _, node := range nodes {
					if err := node.end(); err != nil {
						t.Errorf("Run = %v", err)
					}
				}
				l.each(t, fleet(0, requests*devices), false)
				settled(t, cfg, requests*devices)
			})
		})
	}
}

// TestNodesHoldTogether: what a caller has from one node holds on the other.
func TestNodesHoldTogether(t *testing.T) {
	onManyNodes(t, func(t *testing.T, cfg Config) {
		withFleet(t, &cfg, 2)
		clock := &nodeClock{still: time.Now(), pace: 100}
		cfg.Clock, cfg.RateLimit = clock, 40
		a, b := startServer(t, cfg), startServer(t, cfg)
		first := a.login(t)
		second := b.login(t)
		if first.bearer != second.bearer {
			t.Error("two nodes gave one application two tokens")
		}
		first.url = b.URL()
		first.call(http.MethodGet, "/accounts/"+testAccount, nil, http.StatusOK, nil) // the session of a

		body, err := json.Marshal(licenseRequest("SIMSec-IoT", fleet(0, 1)...))
		if err != nil {
			t.Fatal(err)
		}
		var ids [2]m2m.RequestAccepted
		for i, url := range []string{a.URL(), b.URL()} {
			status, answer, err := first.post(url, "/devices/license/actions/assign", body, "a-key")
			if err != nil || status != http.StatusOK || json.Unmarshal(answer, &ids[i]) != nil {
				t.Fatalf("assign = %d %s, %v", status, answer, err)
			}
		}
		if ids[0] != ids[1] || ids[0].RequestID == "" {
			t.Errorf("one Idempotency-Key made the requests %v on two nodes", ids)
		}

		wrong := m2m.LoginRequest{Username: "demo", Password: "wrong"}
		for i := range 6 {
			first.url = []string{a.URL(), b.URL()}[i%2]
			first.call(http.MethodPost, "/session/login", wrong, http.StatusBadRequest, nil)
		}
		right := m2m.LoginRequest{Username: "demo", Password: "demo-password"}
		for _, url := range []string{a.URL(), b.URL()} {
			first.url = url
			first.call(http.MethodPost, "/session/login", right, http.StatusTooManyRequests, nil)
		}

		first.call(http.MethodPost, "/session/logout", nil, http.StatusOK, nil)
		first.url = a.URL()
		clock.shift.Add(int64(time.Second)) // until then it may take the session as it was
		first.call(http.MethodGet, "/accounts/"+testAccount, nil, http.StatusBadRequest, nil)

		eventually(t, "each node knows of the other", func() bool { return a.nodes.Load() == 2 && b.nodes.Load() == 2 })
		taken := 0
		for _, url := range []string{a.URL(), b.URL()} {
			for status := http.StatusOK; status == http.StatusOK; taken++ {
				if status, _, err = second.post(url, "/session/login", nil, ""); err != nil {
					t.Fatal(err)
				}
				if status != http.StatusTooManyRequests {
					status = http.StatusOK
				}
			}
		}
		if taken -= 2; taken > int(cfg.RateLimit) { // the two that were refused
			t.Errorf("two nodes took %d calls within an instant, with a limit of %v a second", taken, cfg.RateLimit)
		}
	})
}

// TestNodesKilled kills two nodes with SIGKILL, one while the carrier has its
// tasks and one while the listener has its callbacks. A third takes all of it
// over when the leases have ended.
func TestNodesKilled(t *testing.T) {
	onManyNodes(t, func(t *testing.T, cfg Config) {
		const devices = 60
		withFleet(t, &cfg, 2*devices)
		clock := &nodeClock{}
		cfg.Clock = clock
		survivor := startServer(t, cfg)
		c := survivor.login(t)
		l := newLedgerListener(t, c)
		l.hold()
		atCarrier := startNode(t, cfg, "hang")
		c.url = atCarrier.url
		c.call(http.MethodPost, "/devices/license/actions/assign", licenseRequest("SIMSec-IoT", fleet(0, devices)...), http.StatusOK, nil)
		atListener := startNode(t, cfg, "")
		c.url = atListener.url
		c.call(http.MethodPost, "/devices/license/actions/assign", licenseRequest("SIMSec-IoT", fleet(devices, devices)...), http.StatusOK, nil)
		eventually(t, "a callback is on its way", func() bool { return l.held() > 0 })

		atCarrier.kill()
		atListener.kill()
		eventually(t, "the listener has lost its callers", func() bool { return l.held() == 0 })
		l.release()
		clock.shift.Store(int64(time.Minute)) // beyond every lease
		l.wait(t, 2*devices)
		if err := survivor.end(); err != nil {
			t.Errorf("Run = %v", err)
		}
		l.each(t, fleet(0, 2*devices), true)
		settled(t, cfg, 2*devices)
	})
}

// longLease makes leases longer than any test, two hours, but for those of tasks
// that the node is given as it accepts them.
const longLease = time.Hour // of a callback's timeout

// TestNodesEndInOrder ends two nodes that have more leased than they can begin,
// one at the carrier and one at the listener. A third takes it over at once. What
// the grace period cut off may be told twice.
func TestNodesEndInOrder(t *testing.T) {
	onManyNodes(t, func(t *testing.T, cfg Config) {
		const requests, devices = 4, 50
		withFleet(t, &cfg, 2*requests*devices)
		cfg.Grace, cfg.CallbackTimeout = time.Second/2, longLease
		front, slow := cfg, cfg
		front.ServeOnly = true                        // so that tasks must be claimed
		slow.Provisioner, slow.Workers = hanging{}, 1 // which has one request then
		accepts, atCarrier := startServer(t, front), startServer(t, slow)
		c := accepts.login(t)
		l := newLedgerListener(t, c)
		l.hold()
		leased := func(phase license.Phase) func() bool {
			return func() bool { return leases(t, cfg)[phase] == requests*devices }
		}
		for i := range requests {
			c.license("assign", fleet(i*devices, devices)...)
		}
		eventually(t, "all is leased at the carrier", leased(license.PhaseCarrier))
		atListener := startServer(t, cfg)
		c.url = atListener.URL()
		for i := range requests {
			c.license("assign", fleet((requests+i)*devices, devices)...)
		}
		eventually(t, "all is leased at the listener", leased(license.PhaseListener))
		eventually(t, "callbacks are on their way", func() bool { return l.held() > 0 })
		survivor := startServer(t, cfg)
		for _, node := range []*running{accepts, atCarrier, atListener} {
			if err := node.end(); err != nil {
				t.Errorf("Run = %v", err)
			}
		}
		l.release()
		l.atLeast(t, fleet(0, 2*requests*devices))
		if err := survivor.end(); err != nil {
			t.Errorf("Run = %v", err)
		}
		settled(t, cfg, 2*requests*devices)
	})
}

// leases counts the leases on tasks in each phase.
func leases(t *testing.T, cfg Config) map[license.Phase]int {
	t.Helper()
	db, err := sql.Open("pgx", cfg.Database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), "SELECT phase, count(*) FROM task WHERE lease_end > 0 GROUP BY phase")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	count := map[license.Phase]int{}
	for rows.Next() {
		var phase license.Phase
		var n int
		if err := rows.Scan(&phase, &n); err != nil {
			t.Fatal(err)
		}
		count[phase] = n
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return count
}

// TestRollingRestart ends and starts one node after the other under load. What
// a node had leased and not begun when it ended, others do at once.
func TestRollingRestart(t *testing.T) {
	onManyNodes(t, func(t *testing.T, cfg Config) {
		const clients, chunks, chunk = 3, 400, 2
		withFleet(t, &cfg, clients*chunks*chunk)
		cfg.CallbackTimeout = longLease
		var urls [3]atomic.Value
		var nodes [len(urls)]*running
		start := func(i int) {
			nodes[i] = startServer(t, cfg)
			urls[i].Store(nodes[i].URL())
		}
		for i := range nodes {
			start(i)
		}
		c := nodes[0].login(t)
		l := newLedgerListener(t, c)
		stop := make(chan struct{})
		var load sync.WaitGroup
		var mu sync.Mutex
		var asked []string
		for client := range clients {
			load.Go(func() {
				for i := range chunks {
					select {
					case <-stop:
						return
					default:
					}
					iccids := fleet((client*chunks+i)*chunk, chunk)
					if err := c.assign(&urls, client+i, iccids); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					asked = append(asked, iccids...)
					mu.Unlock()
				}
			})
		}
		for i := range nodes {
			l.wait(t, l.answered()+1) // there is load
			if err := nodes[i].end(); err != nil {
				t.Errorf("Run = %v", err)
			}
			start(i)
		}
		close(stop)
		load.Wait()
		for _, node := range nodes {
			if err := node.end(); err != nil {
				t.Errorf("Run = %v", err)
			}
		}
		if left := leases(t, cfg); len(left) > 0 {
			t.Errorf("nodes that ended in order left leases: %v", left)
		}
		last := startServer(t, cfg)
		l.wait(t, len(asked))
		if err := last.end(); err != nil {
			t.Errorf("Run = %v", err)
		}
		l.each(t, asked, false)
		settled(t, cfg, len(asked))
	})
}

// onManyNodes runs f on each engine that many nodes can share.
func onManyNodes(t *testing.T, f func(t *testing.T, cfg Config)) {
	t.Helper()
	onEachEngine(t, func(t *testing.T, cfg Config) {
		if _, one := SQLitePath(cfg.Database); one {
			t.Skip("one process serves a SQLite database")
		}
		f(t, cfg)
	})
}

// withFleet seeds n SIMs beside the good seed's.
func withFleet(t *testing.T, cfg *Config, n int) {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, dir, "fleet.csv", moreSIMs(0, n))
	cfg.Seed = writeFile(t, dir, "seed.yaml", goodSeed+"deviceFiles: [fleet.csv]\n")
}

// fleet names n SIMs of withFleet from number first.
func fleet(first, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("8914801%013d", first+i)
	}
	return list
}

// settled holds the database against what the clients know, when all nodes have
// ended: so many SIMs have their license, and nothing is left to be done.
func settled(t *testing.T, cfg Config, assigned int) {
	t.Helper()
	cfg.Seed, cfg.Clock = "", nil
	r := startServer(t, cfg)
	noDrift(t, r)
	pools, err := r.store.Pools(t.Context(), testAccount)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pools {
		if p.SKU == license.SKUFlexible && (p.Assigned != int64(assigned) || p.Reserved != 0) {
			t.Errorf("the pool is %+v, want %d assigned and none reserved", p, assigned)
		}
	}
	for _, phase := range []license.Phase{license.PhaseCarrier, license.PhaseListener} {
		due, err := r.store.DueAccounts(t.Context(), phase, time.Now().Add(24*time.Hour))
		if err != nil || len(due) > 0 {
			t.Errorf("DueAccounts = %v, %v; want none in phase %s", due, err, phase)
		}
	}
}

// post makes a call and returns the answer. It may be used by goroutines.
func (c *caller) post(url, path string, body []byte, key string) (status int, answer []byte, err error) {
	q, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, url+m2m.APIPrefix+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("Authorization", "Bearer "+c.bearer)
	q.Header.Set(m2m.SessionHeader, c.session)
	if key != "" {
		q.Header.Set("Idempotency-Key", key)
	}
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		return 0, nil, err
	}
	defer a.Body.Close()
	answer, err = io.ReadAll(a.Body)
	return a.StatusCode, answer, err
}

// assign asks one node, and the next when that is about to end, until one has
// answered.
func (c *caller) assign(urls *[3]atomic.Value, node int, iccids []string) error {
	body, err := json.Marshal(licenseRequest("SIMSec-IoT", iccids...))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	for ; ; node++ {
		status, answer, err := c.post(urls[node%len(urls)].Load().(string), "/devices/license/actions/assign", body, iccids[0])
		switch {
		case err == nil && status == http.StatusOK:
			return nil
		case err == nil && status != http.StatusServiceUnavailable:
			return fmt.Errorf("assign = %d %s", status, answer)
		case ctx.Err() != nil:
			return fmt.Errorf("no node answered: %d, %w", status, err)
		}
	}
}

// nodeClock is the machine's clock, set ahead or stopped. It waits shorter than
// it is asked to where it has a pace.
type nodeClock struct {
	shift atomic.Int64 // nanoseconds
	still time.Time
	pace  time.Duration
}

func (c *nodeClock) Now() time.Time {
	if !c.still.IsZero() {
		return c.still.Add(time.Duration(c.shift.Load()))
	}
	return time.Now().Add(time.Duration(c.shift.Load()))
}

func (c *nodeClock) After(d time.Duration) <-chan time.Time { return time.After(d / max(c.pace, 1)) }

// ledgerListener is a listener that keeps account of the callbacks it got.
type ledgerListener struct {
	mu      sync.Mutex // guards what follows
	told    map[string]int
	lost    map[string]int // whose sender was gone before the answer
	all     int            // answered
	open    int            // held back
	holder  chan struct{}  // while answers are held back
	refuses bool           // everything
	refused int            // so often
	faults  []string
}

// newLedgerListener starts a listener and registers it.
func newLedgerListener(t *testing.T, c *caller) *ledgerListener {
	t.Helper()
	l := &ledgerListener{told: map[string]int{}, lost: map[string]int{}}
	s := httptest.NewServer(l)
	t.Cleanup(s.Close)
	c.call(http.MethodPost, "/callbacks/"+testAccount,
		m2m.ListenerRequest{Name: license.CarrierService, URL: s.URL}, http.StatusOK, nil)
	return l
}

func (l *ledgerListener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body) // to its end, so that the loss of the sender is noticed
	if err != nil {
		return // it was killed while it sent
	}
	var m m2m.CallbackMessage
	err = json.Unmarshal(body, &m)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil || len(m.DeviceIDs) == 0 || m.Status != m2m.CallbackSuccess {
		l.faults = append(l.faults, string(body))
		return
	}
	iccid := m.DeviceIDs[0].ID
	if l.refuses {
		l.refused++
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if hold := l.holder; hold != nil {
		l.open++
		l.mu.Unlock()
		select {
		case <-hold:
		case <-r.Context().Done():
		}
		l.mu.Lock()
		l.open--
	}
	if r.Context().Err() != nil {
		l.lost[iccid]++
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	l.told[iccid]++
	l.all++
}

// hold keeps the answers back until release.
func (l *ledgerListener) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holder = make(chan struct{})
}

func (l *ledgerListener) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.holder)
	l.holder = nil
}

func (l *ledgerListener) held() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// refuse makes the listener refuse everything, or nothing any more.
func (l *ledgerListener) refuse(all bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuses = all
}

func (l *ledgerListener) refusals() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused
}

func (l *ledgerListener) answered() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all
}

// wait waits until n callbacks were answered.
func (l *ledgerListener) wait(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d callbacks came", n), func() bool { return l.answered() >= n })
}

// atLeast waits until each of the devices was told of as often as it is named.
func (l *ledgerListener) atLeast(t *testing.T, iccids []string) {
	t.Helper()
	want := map[string]int{}
	for _, iccid := range iccids {
		want[iccid]++
	}
	eventually(t, fmt.Sprintf("callbacks of %d devices came", len(iccids)), func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		for iccid, n := range want {
			if l.told[iccid] < n {
				return false
			}
		}
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, fault := range l.faults {
		t.Errorf("a callback of no success: %s", fault)
	}
}

// each checks that each of the devices was told of once, beside what was lost
// with a node that was killed, and no others were.
func (l *ledgerListener) each(t *testing.T, iccids []string, killed bool) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, fault := range l.faults {
		t.Errorf("a callback of no success: %s", fault)
	}
	for _, iccid := range iccids {
		if l.told[iccid] != 1 {
			t.Errorf("SIM %s was told of %d times, want once", iccid, l.told[iccid])
		}
		if l.lost[iccid] > 0 && !killed {
			t.Errorf("a callback of SIM %s was left before its answer", iccid)
		}
	}
	if len(l.told) != len(iccids) {
		t.Errorf("%d SIMs were told of, want %d", len(l.told), len(iccids))
	}
	if killed && len(l.lost) == 0 {
		t.Error("no callback was in flight when the nodes were killed")
	}
}

// node is a node in a process of its own.
type node struct {
	cmd   *exec.Cmd
	url   string
	once  sync.Once
	ended error
}

// nodeSettings are what runNode is told.
type nodeSettings struct{ Database, Key, Carrier string }

// startNode starts a node on the database of cfg. With the carrier "hang", what
// it is asked stays unanswered.
func startNode(t *testing.T, cfg Config, carrier string) *node {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	settings, err := json.Marshal(nodeSettings{cfg.Database, cfg.SecretsKeyFile, carrier})
	if err != nil {
		t.Fatal(err)
	}
	return runProcess(t, "node", &exec.Cmd{Path: self, Args: []string{"node"}, Env: append(os.Environ(), nodeVariable+"="+string(settings))})
}

// runProcess starts a node. The last word of the first line that it prints is its
// address.
func runProcess(t *testing.T, name string, cmd *exec.Cmd) *node {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "node.log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(log.Name()) // as much as there is
			t.Logf("the end of the log of %s:\n%s", name, text[max(0, len(text)-4000):])
		}
		_ = log.Close()
	})
	cmd.Stderr = log
	n := &node{cmd: cmd}
	// A node of this program ends with this process, when its input does.
	if _, err := n.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.kill)
	late := time.AfterFunc(patience, n.kill)
	defer late.Stop()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		n.kill()
		t.Fatalf("%s ended before it was ready", name)
	}
	words := strings.Fields(line)
	n.url = words[len(words)-1]
	return n
}

// kill ends the process as a power cut would, and waits until it is gone.
func (n *node) kill() {
	_ = n.cmd.Process.Kill() // it may have ended
	_ = n.wait()             // says that it was killed
}

// end ends the process as an operator would.
func (n *node) end(t *testing.T) {
	t.Helper()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { _ = n.cmd.Process.Kill() }) // it may have ended
	defer late.Stop()
	if err := n.wait(); err != nil {
		t.Errorf("a node that was told to end: %v", err)
	}
}

func (n *node) wait() error {
	n.once.Do(func() { n.ended = n.cmd.Wait() })
	return n.ended
}

// runNode is a process that startNode has started.
func runNode(text string) error {
	var settings nodeSettings
	if err := json.Unmarshal([]byte(text), &settings); err != nil {
		return err
	}
	cfg := Config{
		Database: settings.Database, SecretsKeyFile: settings.Key, Listen: "127.0.0.1:0", Carrier: CarrierSimulated,
		CallbackAllow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Ready:         func(url string) { fmt.Println(url) },
	}
	if settings.Carrier == "hang" {
		cfg.Provisioner = hanging{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := New(ctx, cfg)
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with whoever started us
		os.Exit(1)
	}()
	return s.Run(ctx)
}

// hanging is a carrier that never answers.
type hanging struct{}

func (hanging) Provision(ctx context.Context, _ []license.Task) ([]license.Outcome, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

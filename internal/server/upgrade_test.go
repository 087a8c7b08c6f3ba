package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestUpgrade runs the previous release beside this tree and under it, each as a
// program of its own.
func TestUpgrade(t *testing.T) {
	if testing.Short() {
		t.Skip("builds two programs, in which nothing could be seen to race")
	}
	old, this := releases(t)
	t.Run("beside", func(t *testing.T) {
		onManyNodes(t, func(t *testing.T, cfg Config) { upgradeBeside(t, cfg, old, this) })
	})
	t.Run("under", func(t *testing.T) {
		onEachEngine(t, func(t *testing.T, cfg Config) { upgradeUnder(t, cfg, old, this) })
	})
	t.Run("back", func(t *testing.T) {
		onEachEngine(t, func(t *testing.T, cfg Config) { upgradeBack(t, cfg, old, this) })
	})
}

// upgradeBeside replaces a node of the old release by two of this tree under
// load. The schema changes under the old one, and for a while both work.
func upgradeBeside(t *testing.T, cfg Config, old, this release) {
	withFleet(t, &cfg, fleetMost)
	before := old.serve(t, cfg)
	cfg.Seed = ""
	c := login(t, before.url)
	l := newLedgerListener(t, c)
	load := startUpgradeLoad(c, l, before)
	load.through(t, before)

	first := this.serve(t, cfg) // migrates
	load.through(t, before, first)
	ready(t, before)
	before.end(t) // which its clients notice
	load.through(t, first)
	second := this.serve(t, cfg)
	load.through(t, first, second)
	asked := load.end(t)
	first.end(t)
	second.end(t)

	finish(t, cfg, l, asked)
	this.verify(t, cfg)
	settled(t, cfg, len(asked))
}

// upgradeUnder leaves this tree a database that the old release has made and
// worked on until it was stopped and killed: with callbacks on their way and
// leased, with tasks at the carrier, in both directions.
func upgradeUnder(t *testing.T, cfg Config, old, this release) {
	withFleet(t, &cfg, 200)
	before := old.serve(t, cfg, "--grace", "1s") // all of which it will need
	cfg.Seed = ""
	c := login(t, before.url)
	l := newLedgerListener(t, c)
	c.license("assign", fleet(0, 30)...)
	l.wait(t, 30)
	l.hold()
	c.license("assign", fleet(30, 80)...)
	c.license("unassign", fleet(0, 10)...)
	eventually(t, "a callback is on its way", func() bool { return l.held() > 0 })
	before.end(t)

	before = old.serve(t, cfg, "--carrier-delay", "30s")
	c.url = before.url
	c.license("assign", fleet(110, 20)...)
	c.license("unassign", fleet(10, 5)...)
	before.kill()
	l.release()

	want := append(fleet(0, 130), fleet(0, 15)...) // and back again
	finish(t, cfg, l, want)
	after := this.serve(t, cfg)
	c.url = after.url
	c.license("assign", fleet(0, 5)...)
	c.license("assign", fleet(130, 15)...)
	c.license("unassign", fleet(60, 10)...)
	want = slices.Concat(want, fleet(0, 5), fleet(130, 15), fleet(60, 10))
	l.atLeast(t, want)
	after.end(t)
	this.verify(t, cfg)
	settled(t, cfg, 130-15+5+15-10)
}

// upgradeBack has the old release take over what this tree has made and worked
// on, as it does where an upgrade is taken back.
func upgradeBack(t *testing.T, cfg Config, old, this release) {
	withFleet(t, &cfg, 200)
	after := this.serve(t, cfg)
	cfg.Seed = ""
	c := login(t, after.url)
	l := newLedgerListener(t, c)
	c.license("assign", fleet(0, 30)...)
	l.wait(t, 30)
	l.refuse(true)
	c.license("assign", fleet(30, 20)...)
	eventually(t, "the listener has refused all", func() bool { return l.refusals() >= 20 })
	after.end(t)
	l.refuse(false)
	after = this.serve(t, cfg, "--workers", "0") // leaves the carrier to others
	c.url = after.url
	c.license("assign", fleet(50, 20)...)
	c.license("unassign", fleet(0, 10)...)
	after.end(t)

	before := old.serve(t, cfg)
	ready(t, before)
	c.url = before.url
	c.license("assign", fleet(70, 20)...)
	c.license("unassign", fleet(10, 10)...)
	l.atLeast(t, append(fleet(0, 90), fleet(0, 20)...))
	before.end(t)
	old.verify(t, cfg)
	this.verify(t, cfg)
	settled(t, cfg, 90-20)
}

// finish has this tree do what others have left, as if their leases had ended.
func finish(t *testing.T, cfg Config, l *ledgerListener, want []string) {
	t.Helper()
	later := &nodeClock{}
	later.shift.Store(int64(time.Minute))
	cfg.Clock = later
	last := startServer(t, cfg)
	l.atLeast(t, want)
	if err := last.end(); err != nil {
		t.Errorf("Run = %v", err)
	}
}

// ready checks that a node would be sent calls.
func ready(t *testing.T, n *node) {
	t.Helper()
	answer, err := fetch(t, http.DefaultClient, n.url+"/readyz")
	if err != nil || answer.status != http.StatusOK {
		t.Errorf("readyz = %d %s, %v; want 200", answer.status, answer.body, err)
	}
}

// license asks for an assign or unassign, which must be accepted.
func (c *caller) license(action string, iccids ...string) {
	c.t.Helper()
	c.call(http.MethodPost, "/devices/license/actions/"+action, licenseRequest("SIMSec-IoT", iccids...), http.StatusOK, nil)
}

// The size of the load.
const (
	upgradeClients = 3
	upgradePause   = 8 * time.Millisecond
	fleetMost      = 4500 // SIMs, each asked for once: enough for 12 seconds
)

// upgradeLoad is clients that assign licenses to one SIM of the fleet after the
// other, through the nodes of the moment.
type upgradeLoad struct {
	c       *caller
	l       *ledgerListener
	stop    chan struct{}
	clients sync.WaitGroup

	mu     sync.Mutex // guards what follows
	nodes  []string   // their addresses
	next   int        // SIM
	asked  map[string][]string
	faults []error
}

func startUpgradeLoad(c *caller, l *ledgerListener, first *node) *upgradeLoad {
	u := &upgradeLoad{c: c, l: l, stop: make(chan struct{}), nodes: []string{first.url}, asked: map[string][]string{}}
	for range upgradeClients {
		u.clients.Go(func() {
			pause := time.NewTicker(upgradePause)
			defer pause.Stop()
			for {
				select {
				case <-u.stop:
					return
				case <-pause.C:
				}
				if err := u.ask(); err != nil {
					u.mu.Lock()
					defer u.mu.Unlock()
					u.faults = append(u.faults, err)
					return
				}
			}
		})
	}
	return u
}

// ask asks one node for the next SIM, and the others where that is about to end
// or gone, under one key.
func (u *upgradeLoad) ask() error {
	u.mu.Lock()
	number := u.next
	u.next++
	u.mu.Unlock()
	if number >= fleetMost {
		return fmt.Errorf("all %d SIMs were asked for before the test was done", fleetMost)
	}
	iccid := fleet(number, 1)
	body, err := json.Marshal(licenseRequest("SIMSec-IoT", iccid...))
	if err != nil {
		return err
	}
	deadline := time.Now().Add(patience)
	for try := number; ; try++ {
		u.mu.Lock()
		node := u.nodes[try%len(u.nodes)]
		u.mu.Unlock()
		status, answer, err := u.c.post(node, "/devices/license/actions/assign", body, iccid[0])
		switch {
		case err == nil && status == http.StatusOK:
			u.mu.Lock()
			defer u.mu.Unlock()
			u.asked[node] = append(u.asked[node], iccid[0])
			return nil
		case err == nil && status != http.StatusServiceUnavailable:
			return fmt.Errorf("assign = %d %s", status, answer)
		case time.Now().After(deadline):
			return fmt.Errorf("no node answered: %d, %w", status, err)
		}
	}
}

// through leads the load through some nodes until each has taken some of it and
// the callbacks of that have come.
func (u *upgradeLoad) through(t *testing.T, nodes ...*node) {
	t.Helper()
	const some = 40
	first := map[string]int{}
	u.mu.Lock()
	u.nodes = nil
	for _, n := range nodes {
		u.nodes = append(u.nodes, n.url)
		first[n.url] = len(u.asked[n.url])
	}
	u.mu.Unlock()
	for url, from := range first {
		var taken []string
		eventually(t, "a node takes its part of the load", func() bool {
			u.mu.Lock()
			defer u.mu.Unlock()
			taken = u.asked[url][from:]
			return len(taken) >= some || len(u.faults) > 0
		})
		u.l.atLeast(t, taken)
	}
}

// end ends the load and returns the SIMs that were asked for.
func (u *upgradeLoad) end(t *testing.T) (asked []string) {
	t.Helper()
	close(u.stop)
	u.clients.Wait()
	for _, err := range u.faults {
		t.Error(err)
	}
	for _, iccids := range u.asked {
		asked = append(asked, iccids...)
	}
	return asked
}

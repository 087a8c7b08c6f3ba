//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/simlatch/simlatch/internal/load"
	"github.com/simlatch/simlatch/m2m"
)

// The size of the load: enough to be in the midst of something at any moment.
const (
	callers   = 4
	pause     = 50 * time.Millisecond  // between two requests of a caller
	retry     = 200 * time.Millisecond // before a request is repeated
	size      = 2                      // devices in a request
	callLimit = 35 * time.Second       // a little more than a node allows itself
)

// clients assign licenses to one SIM after the other through all nodes. Each
// repeats a request under its one key, at the next node, until it is accepted:
// that is what docs/operations.md tells clients to do. They know what was
// answered, and settle sees whether it stands.
type clients struct {
	c        *cluster
	nodes    []*m2m.Client
	listener *load.Listener
	stopping context.CancelFunc // of the load that runs; nil when none does
	running  sync.WaitGroup

	mu       sync.Mutex // guards what follows
	next     int        // the first SIM that no request has named
	accepted map[string][]string
	told     map[string]int // callbacks, by request and ICCID
	trouble  trouble
	faults   []string // what should never be
}

// trouble is how well the clients fare.
type trouble struct {
	last     time.Time      // when a request was last accepted
	longest  time.Duration  // between two that were
	refusals map[string]int // by what was answered
	said     bool           // that nothing is accepted
}

func newClients(ctx context.Context, c *cluster) (*clients, error) {
	l := &clients{c: c, accepted: map[string][]string{}, told: map[string]int{}}
	for _, n := range c.nodes {
		client, err := m2m.New(m2m.Config{
			BaseURL: n.address.url(), Key: key, Secret: secret, Username: user, Password: password, Retries: -1,
			HTTPClient: &http.Client{Timeout: callLimit, Transport: &http.Transport{MaxIdleConnsPerHost: callers}},
		})
		if err != nil {
			return nil, err
		}
		l.nodes = append(l.nodes, client)
	}
	handler := m2m.CallbackHandler(l.receive)
	var err error
	if l.listener, err = load.Listen(ctx, "127.0.0.1:0", handler, nil); err != nil {
		return nil, err
	}
	for i := range l.nodes {
		_, err = l.nodes[i].RegisterListener(ctx, account, m2m.ListenerRequest{Name: m2m.CarrierService, URL: l.listener.URL})
		if err == nil {
			return l, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("registering a listener: %w", err), l.listener.Close())
}

// close ends everything.
func (l *clients) close() {
	l.stop()
	_ = l.listener.Close() // nothing is to be learned from it any more
}

// start starts the callers.
func (l *clients) start(ctx context.Context) {
	l.mu.Lock()
	l.trouble = trouble{last: time.Now(), refusals: map[string]int{}}
	l.mu.Unlock()
	running, stop := context.WithCancel(ctx)
	l.stopping = stop
	for i := range callers {
		l.running.Go(func() {
			for running.Err() == nil && l.request(ctx, running, i%len(l.nodes)) {
				sleep(running, pause)
			}
		})
	}
	l.running.Go(func() { l.report(running) })
}

// stop lets each caller end what it has begun.
func (l *clients) stop() {
	if l.stopping != nil {
		l.stopping()
		l.running.Wait()
		l.stopping = nil
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// request has one request accepted, by one node or the other. It reports false
// when there is nothing more to do. A request that was begun before running
// ended goes on for as long as a failover may take.
func (l *clients) request(ctx, running context.Context, node int) bool {
	l.mu.Lock()
	first := l.next
	l.next += size
	l.mu.Unlock()
	if first+size > sims {
		l.c.say("load: all %d SIMs hold a license now; that is all there is to do", sims)
		return false
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(running, func() { time.AfterFunc(patience, cancel) })()
	r := m2m.LicenseRequest{AccountName: account, SKUNumber: sku}
	var iccids []string
	for i := range size {
		r.Devices = append(r.Devices, load.Fleet{}.Device(first+i))
		iccids = append(iccids, load.Fleet{}.ICCID(first+i))
	}
	key := m2m.WithIdempotencyKey(fmt.Sprintf("cluster-%d", first))
	for ; ctx.Err() == nil; node = (node + 1) % len(l.nodes) {
		id, err := l.nodes[node].Assign(ctx, r, key)
		if err == nil {
			l.accept(id, iccids)
			return true
		}
		if !l.refuse(err) {
			return false
		}
		sleep(ctx, retry)
	}
	return false
}

func (l *clients) accept(id string, iccids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.accepted[id] != nil {
		l.faults = append(l.faults, "two requests were given the id "+id)
	}
	l.accepted[id] = iccids
	now := time.Now()
	gap := now.Sub(l.trouble.last)
	l.trouble.last, l.trouble.longest = now, max(l.trouble.longest, gap)
	if l.trouble.said {
		l.trouble.said = false
		l.c.say("load: writes are accepted again, after %s", gap.Round(100*time.Millisecond))
	}
}

// refuse notes what a caller met. It reports false for what no repeating helps.
func (l *clients) refuse(err error) bool {
	what := "no answer"
	var refusal *m2m.Error
	if errors.As(err, &refusal) {
		what = fmt.Sprintf("%d", refusal.Status)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trouble.refusals[what]++
	if refusal == nil || refusal.Status == http.StatusServiceUnavailable && refusal.RetryAfter > 0 {
		return true
	}
	l.faults = append(l.faults, fmt.Sprintf("a request was refused: %v", err))
	return false
}

// report tells while nothing is accepted.
func (l *clients) report(running context.Context) {
	for running.Err() == nil {
		sleep(running, 250*time.Millisecond)
		l.mu.Lock()
		t := &l.trouble
		if silent := time.Since(t.last); silent > time.Second && !t.said && len(t.refusals) > 0 {
			t.said = true
			l.c.say("load: no write was accepted for a second; refused so far: %s", t.met())
		}
		l.mu.Unlock()
	}
}

// met is what was met instead of success.
func (t *trouble) met() string {
	if len(t.refusals) == 0 {
		return "nothing"
	}
	var list []string
	for _, what := range slices.Sorted(maps.Keys(t.refusals)) {
		list = append(list, fmt.Sprintf("%d × %s", t.refusals[what], what))
	}
	return strings.Join(list, ", ")
}

func (l *clients) receive(_ context.Context, m *m2m.CallbackMessage) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range m.DeviceIDs {
		if strings.EqualFold(id.Kind, m2m.KindICCID) {
			l.told[m.RequestID+" "+id.ID]++
		}
	}
	if m.Status != m2m.CallbackSuccess {
		l.faults = append(l.faults, fmt.Sprintf("a callback: %+v", m))
	}
	return nil
}

// count is the number of accepted requests.
func (l *clients) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.accepted)
}

// missing are the devices of accepted requests that no callback came for, and
// the number of callbacks that came more than once.
func (l *clients) missing() (missing []string, again int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, iccids := range l.accepted {
		for _, iccid := range iccids {
			switch n := l.told[id+" "+iccid]; {
			case n == 0:
				missing = append(missing, id+" "+iccid)
			case n > 1:
				again += n - 1
			}
		}
	}
	return missing, again
}

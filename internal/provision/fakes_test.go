package provision

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/simlatch/simlatch/internal/license"
)

// ledger is a Queue in memory whose faults a test chooses.
type ledger struct {
	refuse   func(license.SettleParams) error // what settling fails with
	lookTime time.Duration                    // what a look costs
	lookErr  func() error

	refuseBack func() error // what giving back fails with

	mu     sync.Mutex // guards what follows
	rows   map[string]*row
	looks  []time.Time
	claims []license.ClaimParams
	given  map[license.AccountName][]int // sizes of the claims
	sizes  []int                         // of the settled batches
	mixed  int                           // settled batches of several accounts
	log    []license.Outcome             // outcomes that counted
	lost   int                           // outcomes that did not
}

type row struct {
	task  license.Task
	due   time.Time
	phase license.Phase
}

func newLedger() *ledger {
	return &ledger{rows: map[string]*row{}, given: map[license.AccountName][]int{}}
}

// tasks makes n tasks of a new request, accepted now. They are due at once, or
// held by the caller for the lease.
func (l *ledger) tasks(account license.AccountName, request string, n int, lease time.Duration) []license.Task {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	var tasks []license.Task
	for i := range n {
		t := license.Task{
			Request: license.RequestID(request), Account: account, SKU: license.SKUFlexible, Action: license.Assign,
			Device: license.Device{ICCID: license.ICCID(fmt.Sprintf("8914800000000%07d", i))}, At: now,
		}
		r := &row{due: now, phase: license.PhaseCarrier}
		if lease > 0 {
			t.Lease, t.Until, r.due = 1, now.Add(lease), now.Add(lease)
		}
		r.task = t
		l.rows[t.Key()] = r
		tasks = append(tasks, t)
	}
	return tasks
}

func (l *ledger) DueAccounts(_ context.Context, phase license.Phase, now time.Time) ([]license.Due, error) {
	if l.lookTime > 0 {
		<-time.After(l.lookTime)
	}
	if l.lookErr != nil {
		if err := l.lookErr(); err != nil {
			return nil, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looks = append(l.looks, now)
	due := map[license.AccountName]license.Due{}
	for _, r := range l.rows {
		if r.phase == phase && !r.due.After(now) {
			d, ok := due[r.task.Account]
			d.Account, d.Count = r.task.Account, d.Count+1
			if !ok || r.due.Before(d.Oldest) {
				d.Oldest = r.due
			}
			due[r.task.Account] = d
		}
	}
	var all []license.Due
	for _, d := range due {
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b license.Due) int { return cmp.Compare(a.Account, b.Account) })
	return all, nil
}

func (l *ledger) ClaimTasks(_ context.Context, c license.ClaimParams) ([]license.Task, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.claims = append(l.claims, c)
	var due []*row
	for _, r := range l.rows {
		if r.task.Account == c.Account && r.phase == license.PhaseCarrier && !r.due.After(c.Now) {
			due = append(due, r)
		}
	}
	slices.SortFunc(due, func(a, b *row) int { // mixes the requests
		return cmp.Or(a.due.Compare(b.due), cmp.Compare(a.task.Device.ICCID, b.task.Device.ICCID), cmp.Compare(a.task.Request, b.task.Request))
	})
	var tasks []license.Task
	for _, r := range due[:min(len(due), c.Limit)] {
		r.task.Lease++
		r.task.Until, r.due = c.Until, c.Until
		tasks = append(tasks, r.task)
	}
	l.given[c.Account] = append(l.given[c.Account], len(tasks))
	return tasks, nil
}

func (l *ledger) SettleTasks(ctx context.Context, p license.SettleParams) (license.Settled, error) {
	if err := ctx.Err(); err != nil {
		return license.Settled{}, err
	}
	if l.refuse != nil {
		if err := l.refuse(p); err != nil {
			return license.Settled{}, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sizes = append(l.sizes, len(p.Outcomes))
	var s license.Settled
	room, accounts := map[license.AccountName]int{}, map[license.AccountName]bool{}
	for _, o := range p.Outcomes {
		accounts[o.Task.Account] = true
		r := l.rows[o.Task.Key()]
		if r.phase != license.PhaseCarrier || r.task.Lease != o.Task.Lease {
			l.lost++
			continue
		}
		s.Counted++
		l.log = append(l.log, o)
		switch o.Verdict {
		case license.Done, license.Refused:
			r.phase = license.PhaseListener
			if room[o.Task.Account]++; room[o.Task.Account] > p.Room[o.Task.Account] {
				s.More = true
				continue
			}
			s.Callbacks = append(s.Callbacks, license.Callback{
				Request: o.Task.Request, Account: o.Task.Account,
				Device: o.Task.Device, OK: o.Verdict == license.Done, Comment: o.Comment, Until: p.LeaseUntil,
			})
		case license.Stuck:
			r.phase = license.PhaseStuck
		case license.Retry, license.Later:
			r.due = o.Due
			r.task.Attempt++
		}
	}
	if len(accounts) > 1 {
		l.mixed++
	}
	return s, nil
}

func (l *ledger) GiveTasksBack(ctx context.Context, now time.Time, tasks []license.Task) (given int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if l.refuseBack != nil {
		if err := l.refuseBack(); err != nil {
			return 0, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range tasks {
		if r := l.rows[t.Key()]; r.phase == license.PhaseCarrier && r.task.Lease == t.Lease {
			r.due = now
			r.task.Lease++
			given++
		}
	}
	return given, nil
}

// dueSince is how many tasks at the carrier fell due between a time and now.
func (l *ledger) dueSince(t time.Time) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.rows {
		if r.phase == license.PhaseCarrier && !r.due.Before(t) && !r.due.After(time.Now()) {
			n++
		}
	}
	return n
}

// takeOver is another worker that claims everything held.
func (l *ledger) takeOver() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.rows {
		r.task.Lease++
	}
}

// count is how many tasks are in a phase.
func (l *ledger) count(phase license.Phase) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, r := range l.rows {
		if r.phase == phase {
			n++
		}
	}
	return n
}

// outcomes are those that counted, in their turn.
func (l *ledger) outcomes() []license.Outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.log)
}

// sink is a Sink that keeps what it is given.
type sink struct {
	capacity int

	mu        sync.Mutex // guards what follows
	reserved  int
	callbacks []license.Callback
	woken     int
}

func (s *sink) Reserve(_ license.AccountName, n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = min(n, s.capacity-s.reserved-len(s.callbacks))
	s.reserved += n
	return n
}

func (s *sink) Give(_ license.AccountName, reserved int, callbacks []license.Callback) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(callbacks) > reserved {
		panic("more callbacks than reserved")
	}
	s.reserved -= reserved
	s.callbacks = append(s.callbacks, callbacks...)
}

func (s *sink) Wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.woken++
}

func (s *sink) state() (reserved, callbacks, woken int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reserved, len(s.callbacks), s.woken
}

// asked is a carrier made of a function, which counts its calls.
type asked struct {
	answer func(ctx context.Context, call int, tasks []license.Task) ([]license.Outcome, error)

	mu    sync.Mutex // guards what follows
	calls [][]license.Task
	at    []time.Time
}

func (a *asked) Provision(ctx context.Context, tasks []license.Task) ([]license.Outcome, error) {
	a.mu.Lock()
	call := len(a.calls)
	a.calls = append(a.calls, slices.Clone(tasks))
	a.at = append(a.at, time.Now())
	a.mu.Unlock()
	if a.answer == nil {
		return all(tasks, license.Done), nil
	}
	return a.answer(ctx, call, tasks)
}

func (a *asked) asks() [][]license.Task {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.calls)
}

// times is how often each task was asked for.
func (a *asked) times() map[string]int {
	n := map[string]int{}
	for _, tasks := range a.asks() {
		for _, t := range tasks {
			n[t.Key()]++
		}
	}
	return n
}

// all gives every task one verdict.
func all(tasks []license.Task, v license.Verdict) []license.Outcome {
	out := make([]license.Outcome, len(tasks))
	for i := range tasks {
		out[i] = license.Outcome{Task: tasks[i], Verdict: v}
	}
	return out
}

// bench is a worker with its surroundings, inside a synctest bubble.
type bench struct {
	*Worker
	ledger  *ledger
	sink    *sink
	carrier *asked
	stop    context.CancelFunc
	err     error         // what Run returned,
	ended   chan struct{} // once this is closed
}

// start makes a worker and runs it. Whatever change leaves zero gets the
// worker's defaults.
func start(t *testing.T, l *ledger, c *asked, change func(*Config)) *bench {
	t.Helper()
	b := &bench{ledger: l, sink: &sink{capacity: 1 << 20}, carrier: c, ended: make(chan struct{})}
	cfg := Config{Queue: l, Carrier: c, Sink: b.sink, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	if change != nil {
		change(&cfg)
	}
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.Worker = w
	var ctx context.Context
	ctx, b.stop = context.WithCancel(t.Context())
	go func() {
		defer close(b.ended)
		b.err = w.Run(ctx)
	}()
	t.Cleanup(func() {
		b.stop()
		<-b.ended
	})
	synctest.Wait()
	return b
}

// give accepts a request of n tasks as the API does: as much as there is room
// for is born leased, the rest is not.
func (b *bench) give(account license.AccountName, request string, n int) (born int) {
	room := b.Reserve(account, n)
	tasks := b.ledger.tasks(account, request, n, 20*time.Second)
	b.ledger.mu.Lock()
	for _, t := range tasks[room:] {
		r := b.ledger.rows[t.Key()]
		r.task.Lease, r.task.Until, r.due = 0, time.Time{}, time.Now()
	}
	b.ledger.mu.Unlock()
	b.Give(account, room, tasks[:room:room])
	if room < n {
		b.Wake()
	}
	return room
}

// end stops the worker and returns what Run returned.
func (b *bench) end(t *testing.T) error {
	t.Helper()
	b.stop()
	select {
	case <-b.ended:
		return b.err
	case <-time.After(5 * time.Minute):
		t.Fatal("Run does not end")
		return nil
	}
}

// pass lets simulated time pass.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// empty checks that nothing is held in memory any more.
func (b *bench) empty(t *testing.T) {
	t.Helper()
	b.room.mu.Lock()
	if b.room.total != 0 || len(b.room.held) != 0 {
		t.Errorf("room is held for %d tasks (%v), want none", b.room.total, b.room.held)
	}
	b.room.mu.Unlock()
	if reserved, _, _ := b.sink.state(); reserved != 0 {
		t.Errorf("the sink still has %d reserved", reserved)
	}
}

// value is what a counter has counted.
func value(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families[0].GetMetric()[0].GetCounter().GetValue()
}

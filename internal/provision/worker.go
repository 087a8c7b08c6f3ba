// Package provision makes licenses real: it takes the tasks of accepted
// requests, asks the carrier in batches, and settles the outcomes.
//
// A Worker gets most of its tasks in memory, already leased to it by the
// transaction that wrote them (Reserve, Give), and claims from the store what
// nobody holds: what there was no room for, what another node left behind, and
// what is to be asked again. One goroutine claims, a few call the carrier,
// three settle. Tasks wait in a line per account, and the lines take turns.
//
// Silence is not refusal: whatever a carrier leaves unknown is asked again under
// the same key, and after a day left to an operator. Whatever the worker itself
// loses falls due again when its lease ends; what it has not begun when it is told
// to end, at once.
//
// The times of tasks are read from a license.Clock, which a sandbox turns; the
// pace of the machinery (polling, timeouts, waiting for the store) is real.
package provision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/tracing"
)

// A Carrier makes licenses real on SIMs. It answers one outcome per task, in
// any order: done, refused, retry (unknown: asked again under the same key), or
// later (accepted; asked for at Due). An error means that nothing is known about
// any of them, and a license.UnavailableError that it is to be asked no sooner
// than After. A task may be given again after a timeout or a crash, under the
// same Key, and must then be the same action. All tasks of one call share
// request, account, SKU and action; there are at most 500.
//
// Provision is called by several goroutines at once and must return soon after
// its context ends. It may neither change the tasks nor keep them, and its
// answer is the caller's to change.
type Carrier interface {
	Provision(ctx context.Context, tasks []license.Task) ([]license.Outcome, error)
}

// Queue is where tasks are claimed and outcomes settled; the store.
type Queue interface {
	DueAccounts(ctx context.Context, phase license.Phase, now time.Time) ([]license.Due, error)
	ClaimTasks(ctx context.Context, c license.ClaimParams) ([]license.Task, error)
	SettleTasks(ctx context.Context, p license.SettleParams) (license.Settled, error)
	// GiveTasksBack makes leased tasks due at now, and says how many.
	GiveTasksBack(ctx context.Context, now time.Time, tasks []license.Task) (int, error)
}

// Sink takes the callbacks that settling gives; the callback sender.
type Sink interface {
	// Reserve sets room for up to n callbacks of an account aside and says how
	// much it is; each Reserve is followed by one Give.
	Reserve(account license.AccountName, n int) int
	// Give hands callbacks over, at most as many as were reserved, and frees
	// the rest of the room.
	Give(account license.AccountName, reserved int, callbacks []license.Callback)
	// Wake says that callbacks are due that nobody was given.
	Wake()
}

// batchSize is the most tasks in one call of the carrier or one settlement:
// above it nothing is gained (architecture.md 5).
const batchSize = 500

// Config sets a Worker up.
type Config struct {
	Queue   Queue   // required
	Carrier Carrier // required
	Sink    Sink    // required

	Clock   license.Clock         // nil: the machine's
	Logger  *slog.Logger          // nil: logs nothing
	Metrics prometheus.Registerer // nil: counts for nobody
	Tracer  tracing.Tracer        // zero: traces nothing

	Callers  int           // calls of the carrier at once; 0: 4
	Capacity int           // tasks in memory, settled ones not counted; 0: 40000
	Lease    time.Duration // of claimed tasks and of the callbacks handed to the Sink; 0: 20s
	Timeout  time.Duration // of one call of the carrier, shorter than Lease; 0: 10s
	// Backoff is how long to wait before a carrier is asked again, after so many
	// times; nil: license.Backoff.
	Backoff  func(attempt int) time.Duration
	Deadline time.Duration // after which a task without an answer is stuck; 0: 24h
	Poll     time.Duration // between looks for due tasks when nobody wakes; 0: 250ms
	// Grace is how long calls in flight may take once Run is told to end, and
	// again how long the store may take to settle the last of them; 0: 10s.
	Grace time.Duration
}

// withDefaults fills in what is zero and refuses what cannot work.
func (c Config) withDefaults() (Config, error) {
	if c.Queue == nil || c.Carrier == nil || c.Sink == nil {
		return c, errors.New("a queue, a carrier and a sink are required")
	}
	if c.Clock == nil {
		c.Clock = license.SystemClock{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Backoff == nil {
		c.Backoff = license.Backoff
	}
	orInt := func(v *int, zero int) bool {
		if *v == 0 {
			*v = zero
		}
		return *v > 0
	}
	orTime := func(v *time.Duration, zero time.Duration) bool {
		if *v == 0 {
			*v = zero
		}
		return *v > 0
	}
	for _, f := range []struct {
		name string
		ok   bool
	}{
		{"callers", orInt(&c.Callers, 4)},
		{"capacity", orInt(&c.Capacity, 40_000)},
		{"lease", orTime(&c.Lease, 20*time.Second)},
		{"timeout", orTime(&c.Timeout, 10*time.Second)},
		{"deadline", orTime(&c.Deadline, 24*time.Hour)},
		{"poll", orTime(&c.Poll, 250*time.Millisecond)},
		{"grace", orTime(&c.Grace, 10*time.Second)},
	} {
		if !f.ok {
			return c, fmt.Errorf("the %s must not be negative", f.name)
		}
	}
	if c.Lease <= c.Timeout {
		return c, fmt.Errorf("the lease (%v) must be longer than the carrier's timeout (%v)", c.Lease, c.Timeout)
	}
	return c, nil
}

// Worker takes tasks to the carrier and settles the outcomes.
type Worker struct {
	cfg     Config
	metrics *metrics
	room    *room
	lines   *lines
	pending *pending
	alarms  *alarms
	trouble *trouble
	wake    chan struct{}
}

// New makes a Worker. It fails when the configuration cannot work or a metric
// is registered already.
func New(cfg Config) (*Worker, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("provision: %w", err)
	}
	w := &Worker{
		cfg:     cfg,
		room:    newRoom(cfg.Capacity, cfg.Callers, (cfg.Lease-cfg.Timeout)/2),
		lines:   newLines(),
		pending: newPending((cfg.Callers + 2) * batchSize),
		alarms:  newAlarms(cfg.Poll),
		trouble: &trouble{log: cfg.Logger},
		wake:    make(chan struct{}, 1),
	}
	if w.metrics, err = newMetrics(cfg.Metrics, w.room.size, w.trouble.failures); err != nil {
		return nil, fmt.Errorf("provision: %w", err)
	}
	return w, nil
}

// Reserve sets room for up to n tasks of an account aside and says how much it
// is. Each Reserve is followed by one Give, whatever became of the tasks.
func (w *Worker) Reserve(account license.AccountName, n int) int {
	return w.room.reserve(account, n, 1)
}

// Give hands tasks over that were born leased to this worker, at most as many as
// were reserved, and frees the rest of the room. The slice is the worker's from
// then on. All tasks are of one account.
func (w *Worker) Give(account license.AccountName, reserved int, tasks []license.Task) {
	if len(tasks) > reserved {
		// Those beyond fall due when their lease ends.
		tasks = tasks[:max(reserved, 0)]
	}
	if !w.lines.add(account, tasks) {
		tasks = nil // ending: they are given back
	}
	w.room.given(account, reserved, len(tasks))
}

// Held is how many tasks the worker has in memory: reserved, waiting, at the
// carrier, or with an outcome that is not settled.
func (w *Worker) Held() int { return w.room.size() }

// Wake says that tasks are due that nobody holds.
func (w *Worker) Wake() { signal(w.wake) }

// signal wakes the reader of a channel that has room for one signal.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it will wake anyway
	}
}

// Run works until ctx ends; then it claims and begins nothing more, gives back
// what it has not begun, lets calls in flight end within the grace period,
// settles what they gave and returns when all its goroutines have ended. The
// error says that the store could not settle the last outcomes in time: their
// tasks will be asked for again. Run can be called once.
func (w *Worker) Run(ctx context.Context) error {
	calls, cancelCalls := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelCalls()
	settling, cancelSettling := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelSettling()

	var claimer, callers, settler sync.WaitGroup
	lost := make([]error, 3)
	claimer.Go(func() { newClaimer(w).run(ctx) })
	for range w.cfg.Callers {
		callers.Go(func() { w.call(calls) })
	}
	// Two for large accounts, so that the store has a batch to do while one of them
	// is told of its own; and one for all others, who so wait for no large one.
	for i, of := range []which{fewOf, wholeOf, wholeOf} {
		settler.Go(func() { lost[i] = w.settle(ctx, settling, of) })
	}

	<-ctx.Done()
	w.room.close()
	w.lines.close()
	settler.Go(func() { w.giveBack(settling) })
	w.pending.unbound() // a store out of reach must not hold calls up now
	grace := time.AfterFunc(w.cfg.Grace, cancelCalls)
	defer grace.Stop()
	claimer.Wait()
	callers.Wait()
	w.pending.close()
	last := time.AfterFunc(w.cfg.Grace, cancelSettling)
	defer last.Stop()
	settler.Wait()
	return errors.Join(lost...)
}

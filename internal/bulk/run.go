package bulk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// Config says how a plan is applied. The Client is required.
type Config struct {
	Client *m2m.Client

	// Batch is the most devices in one request, when the run begins; later runs
	// go on with it. 0 is 1,000 for Simlatch and 100 for others, the most that
	// the reference's clients can send.
	Batch int
	// Timeout ends a run in which nothing has come forward for so long; 0 is 15
	// minutes.
	Timeout time.Duration
	// RepeatLost sends requests again of which nobody could tell whether they
	// were accepted.
	RepeatLost bool

	// Listener, when not nil, receives callbacks: it is registered as ListenerURL
	// while the run lasts.
	Listener    net.Listener
	ListenerURL string

	// Notice is told of what a person may want to know meanwhile; nil tells
	// nobody.
	Notice func(string)
	// Pace is how long the run waits where it asks again; 0 is half a second.
	Pace  time.Duration
	Clock license.Clock // nil is the machine's
}

// fill puts in what is left to us.
func (c *Config) fill() {
	if c.Notice == nil {
		c.Notice = func(string) {}
	}
	if c.Clock == nil {
		c.Clock = license.SystemClock{}
	}
	c.Timeout = cmp.Or(c.Timeout, 15*time.Minute)
	c.Pace = cmp.Or(c.Pace, time.Second/2)
}

// Errors that end a run.
var (
	// ErrTimeout: nothing has come forward for Config.Timeout.
	ErrTimeout = errors.New("nothing has come forward")
	// ErrShort: the pool has fewer licenses than the plan needs. Nothing was sent.
	ErrShort = errors.New("the pool has too few licenses; nothing was sent")
)

// Run is one plan being applied. What was done before, by runs that have ended in
// whatever way, is in its journal.
type Run struct {
	plan     *Plan
	journal  *journal
	cfg      Config
	simlatch bool          // the server is
	sent     chan struct{} // closed when nothing is left to be sent

	mu      sync.Mutex // guards what follows
	state   *state
	stalled *time.Timer // ends the run when it fires
	told    time.Time   // when the last callback about the plan came
}

// Open opens the run of a plan that stands at path, with its journal beside it,
// which it locks. Nobody is called yet.
func Open(p *Plan, path string) (*Run, error) {
	r := &Run{plan: p, state: newState(p), sent: make(chan struct{})}
	var err error
	r.journal, err = openJournal(path, r.state.apply)
	return r, err
}

// Close closes the run's journal.
func (r *Run) Close() error { return r.journal.close() }

// Begun reports whether the plan has begun to be applied, by this run or an
// earlier one.
func (r *Run) Begun() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.begun
}

// Complete reports whether there is nothing left to do: how each row ended is
// known, or cannot be.
func (r *Run) Complete() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.complete() && r.state.listener == nil // whose place was taken; it is to be put back
}

// Progress tells how far the run has come. It may be called at any time.
func (r *Run) Progress() Progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.count
}

// record writes entries to the journal and takes them in. When it returns nil
// they are on the disk.
func (r *Run) record(entries ...*entry) error {
	last, err := r.enter(entries)
	if err != nil {
		return err
	}
	return r.journal.wait(last)
}

func (r *Run) enter(entries []*entry) (last int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range entries {
		if e.At.IsZero() {
			e.At = r.cfg.Clock.Now().UTC().Truncate(time.Millisecond)
		}
		// The state first: what it refuses must not be in the journal.
		if err := r.state.apply(e); err != nil {
			return 0, err
		}
		if last, err = r.journal.queue(e); err != nil {
			return 0, err
		}
	}
	if r.stalled != nil {
		r.stalled.Reset(r.cfg.Timeout)
	}
	return last, nil
}

// Apply does what is left of the plan, and returns when each row has ended. It
// may be called once. The result and Progress are good as far as they go also
// after an error.
func (r *Run) Apply(ctx context.Context, cfg Config) error {
	cfg.fill()
	r.cfg = cfg
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	stalled := time.AfterFunc(r.cfg.Timeout, func() { stop(ErrTimeout) })
	defer stalled.Stop()
	r.mu.Lock()
	r.stalled = stalled
	r.mu.Unlock()
	err := r.apply(ctx)
	if cause := context.Cause(ctx); errors.Is(cause, ErrTimeout) {
		return fmt.Errorf("%w for %s", ErrTimeout, r.cfg.Timeout)
	}
	return err
}

func (r *Run) apply(ctx context.Context) error {
	err := r.patiently(ctx, "calling the server", func() (err error) {
		r.simlatch, err = r.cfg.Client.Simlatch(ctx)
		return err
	})
	switch {
	case err != nil:
		return err
	case r.plan.DryRun && !r.simlatch:
		return errors.New("the plan was checked by Simlatch, and the server no longer says that it is that: what it would do is not known")
	}
	if err := r.begin(ctx); err != nil {
		return err
	}
	if err := r.repeatLost(); err != nil {
		return err
	}
	restore, err := r.listen(ctx)
	if err != nil {
		return err
	}
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error { defer close(r.sent); return r.send(inner) })
	group.Go(func() error { return r.watch(inner) })
	return errors.Join(group.Wait(), restore())
}

// begin begins the journal, once the pool has been seen to have enough.
func (r *Run) begin(ctx context.Context) error {
	p := r.plan
	if r.Begun() {
		return nil
	}
	if p.Action == string(license.Assign) {
		var have m2m.Subscription
		err := r.patiently(ctx, "reading the pool", func() (err error) {
			have, err = r.pool(ctx)
			return err
		})
		if err != nil {
			return err
		}
		if n := int64(p.OK()); have.LicenseAvailable < n {
			return fmt.Errorf("%w: %d of %s needed, %d available", ErrShort, n, p.SKU, have.LicenseAvailable)
		}
	}
	batch := r.cfg.Batch
	switch {
	case batch > 0:
	case r.simlatch:
		batch = 1000
	default:
		batch = 100
	}
	return r.record(&entry{Kind: entryBegin, Plan: p.Digest, Batch: batch})
}

func (r *Run) pool(ctx context.Context) (m2m.Subscription, error) {
	list, err := r.cfg.Client.Subscriptions(ctx, r.plan.Account, r.plan.SKU)
	return pool(list, r.plan.SKU), err
}

// repeatLost has lost requests be sent again, where a person has said so.
func (r *Run) repeatLost() error {
	if !r.cfg.RepeatLost {
		return nil
	}
	var repeats []*entry
	r.mu.Lock()
	for _, q := range r.state.requests {
		if q.lost {
			repeats = append(repeats, &entry{Kind: entryRepeat, Request: q.number})
		}
	}
	r.mu.Unlock()
	if len(repeats) == 0 {
		return nil
	}
	return r.record(repeats...)
}

// pause waits, unless the context ends first.
func (r *Run) pause(ctx context.Context, d time.Duration) error {
	select {
	case <-r.cfg.Clock.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// patiently makes a call until it succeeds or fails for good. While a server is
// away, or asks for patience, it waits longer and longer; the run's timeout is
// its end.
func (r *Run) patiently(ctx context.Context, what string, call func() error) error {
	const longest = 15 * time.Second
	said := false
	for wait := r.cfg.Pace; ; wait = min(2*wait, longest) {
		err := call()
		switch {
		case err == nil:
			if said {
				r.cfg.Notice(what + " works again")
			}
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !passing(err):
			return fmt.Errorf("%s: %w", what, err)
		}
		answered := errors.As(err, new(*m2m.Error))
		if !said && (wait > r.cfg.Pace || !answered) { // a busy server is not worth a word at once
			r.cfg.Notice(fmt.Sprintf("%s: %v; trying again", what, err))
			said = true
		}
		pause := wait
		if e := (*m2m.Error)(nil); errors.As(err, &e) && e.RetryAfter > 0 {
			pause = min(e.RetryAfter, time.Minute)
		}
		if err := r.pause(ctx, pause); err != nil {
			return err
		}
	}
}

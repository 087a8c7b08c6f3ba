package store

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// A combiner accepts requests. Small ones of one account that arrive while
// others are being accepted wait and share the next transaction: its few
// statements, its commit, and the row of the pool, on which they would have
// stood in line one by one.
//
// Whoever finds too few at work does it, for itself and all who wait; whoever
// does it hands the turn on. So there is no goroutine here, and alone nobody
// waits. Where the engine writes for several at once, two are at work in turns: one
// transaction is written while the other's answers are sent and the next requests read.
type combiner struct {
	s  *Store
	mu sync.Mutex // guards what follows
	of map[license.AccountName]*gathering
}

const (
	// combineMost is the most devices of a request that waits for company. Above
	// it, company saves nothing.
	combineMost = 100
	// combineTotal bounds the devices of one shared transaction.
	combineTotal = 500
	// gatherFor is the longest wait for others to come again.
	gatherFor = time.Millisecond
)

// gathering is the small requests of one account.
type gathering struct {
	waiting []*waiter
	turn    bool // the first who waits has the turn to begin a transaction
	running int  // transactions under way
	inside  int  // requests in them
	// expected is how many were about when the last transaction ended: those whose
	// answer it was, those in another, and those who had come meanwhile.
	expected int
	ended    time.Time     // when it ended
	gathered chan struct{} // closed when enough wait, if somebody waits for them; or nil
}

// enough is how many are waited for: a share for each transaction.
func (c *combiner) enough(g *gathering) int {
	most := c.s.dialect.accepting
	return (g.expected + most - 1) / most
}

// offer gives the turn to the first who waits, unless it is taken or as many are at
// work as may be; c.mu is held. So it does whenever that may have become different,
// and whoever has the turn is always the first.
func (c *combiner) offer(g *gathering) {
	if !g.turn && g.running < c.s.dialect.accepting && len(g.waiting) > 0 {
		g.turn = true
		close(g.waiting[0].turn)
	}
}

// A waiter is a request that somebody waits to see accepted.
type waiter struct {
	ctx      context.Context
	params   license.AcceptParams
	block    *block // its SIMs, if they are one
	accepted license.Accepted
	err      error
	done     chan struct{} // closed when accepted or err is set
	turn     chan struct{} // closed when it is this one's turn to run a transaction
}

// accept accepts one request, alone or in company. The error is errNotAll, or
// as Accept's.
func (c *combiner) accept(ctx context.Context, p license.AcceptParams, b *block) (license.Accepted, error) {
	account := p.Request.Account
	w := &waiter{ctx: ctx, params: p, block: b, done: make(chan struct{}), turn: make(chan struct{})}
	if len(p.Request.Devices) > combineMost || b != nil {
		c.settle(ctx, []*waiter{w})
		return w.accepted, w.err
	}
	g := c.join(account, w)
	select {
	case <-w.done:
	case <-w.turn:
	case <-ctx.Done():
		if c.withdraw(account, g, w) {
			return license.Accepted{}, ctx.Err()
		}
	}
	select {
	case <-w.turn: // it was given, and nobody else would take it
		c.run(account, g)
	default:
	}
	<-w.done
	return w.accepted, w.err
}

// join has a request wait with the others of its account.
func (c *combiner) join(account license.AccountName, w *waiter) *gathering {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.of[account]
	if g == nil {
		g = &gathering{}
		c.of[account] = g
	}
	g.waiting = append(g.waiting, w)
	if g.gathered != nil && len(g.waiting) >= c.enough(g) {
		close(g.gathered)
		g.gathered = nil
	}
	c.offer(g)
	return g
}

// withdraw takes a request back, unless it is in a transaction already.
func (c *combiner) withdraw(account license.AccountName, g *gathering, w *waiter) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(g.waiting, w)
	if i < 0 {
		return false
	}
	g.waiting = slices.Delete(g.waiting, i, i+1)
	select {
	case <-w.turn:
		g.turn = false
		c.offer(g)
		c.forget(account, g)
	default:
	}
	return true
}

// forget forgets a gathering of which nothing need be known; c.mu is held.
func (c *combiner) forget(account license.AccountName, g *gathering) {
	if g.running == 0 && len(g.waiting) == 0 && g.expected < 2 {
		delete(c.of, account)
	}
}

// run runs one transaction for those who wait.
func (c *combiner) run(account license.AccountName, g *gathering) {
	c.gather(g)
	c.mu.Lock()
	batch := g.take()
	g.turn = false
	g.running++
	g.inside += len(batch)
	c.offer(g)
	c.mu.Unlock()
	if len(batch) > 0 {
		c.settle(batch[0].ctx, batch)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	g.running--
	g.inside -= len(batch)
	g.expected, g.ended = len(batch)+g.inside+len(g.waiting), time.Now()
	c.offer(g)
	c.forget(account, g)
}

// gather waits a little for those who were just answered to come again, when there
// were several: the first of them would else be alone in a transaction, which the
// others then had to wait for.
func (c *combiner) gather(g *gathering) {
	c.mu.Lock()
	if g.expected < 2 || len(g.waiting) >= c.enough(g) || time.Since(g.ended) > 10*gatherFor {
		c.mu.Unlock()
		return
	}
	gathered := make(chan struct{})
	g.gathered = gathered
	c.mu.Unlock()
	timer := time.NewTimer(gatherFor)
	defer timer.Stop()
	select {
	case <-gathered:
	case <-timer.C:
		c.mu.Lock()
		defer c.mu.Unlock()
		g.gathered = nil
	}
}

// take takes those who wait out of the gathering, as many as may share a
// transaction; its caller holds the mutex. What names the same SIM or the same
// idempotency key as one before it waits for the next.
func (g *gathering) take() (batch []*waiter) {
	sims, keys, total := map[license.ICCID]bool{}, map[[3]string]bool{}, 0
	g.waiting = slices.DeleteFunc(g.waiting, func(w *waiter) bool {
		p := &w.params
		if err := w.ctx.Err(); err != nil {
			w.finish(license.Accepted{}, err)
			return true
		}
		key := [3]string{p.Application, string(p.Request.Action), p.IdempotencyKey}
		devices := p.Request.Devices
		if total+len(devices) > combineTotal || p.IdempotencyKey != "" && keys[key] ||
			slices.ContainsFunc(devices, func(d license.Device) bool { return sims[d.ICCID] }) {
			return false
		}
		for _, d := range devices {
			sims[d.ICCID] = true
		}
		keys[key] = true
		total += len(devices)
		batch = append(batch, w)
		return true
	})
	return batch
}

func (w *waiter) finish(accepted license.Accepted, err error) {
	w.accepted, w.err = accepted, err
	close(w.done)
}

// settle accepts a batch and tells each what became of it. When it cannot be
// accepted as a whole, each request is tried by itself, so that only those hear
// of a refusal that meet it.
func (c *combiner) settle(ctx context.Context, batch []*waiter) {
	accepted, err := c.transact(ctx, batch)
	switch {
	case err == nil:
		c.s.metrics.combined.Observe(float64(len(batch)))
		for i, w := range batch {
			w.finish(accepted[i], nil)
		}
	case len(batch) == 1 || timedOut(err) || c.s.dialect.outage(err):
		for _, w := range batch {
			w.finish(license.Accepted{}, err)
		}
	default:
		if !errors.Is(err, errApart) && !errors.Is(err, errReplay) && !errors.Is(err, errNotAll) && !errors.Is(err, license.ErrInsufficient) &&
			!errors.Is(err, license.ErrKeyReused) && !errors.Is(err, license.ErrPolicy) {
			c.s.log.Warn("a batch of requests is accepted one by one", "requests", len(batch), "error", err)
		}
		for _, w := range batch {
			c.settle(w.ctx, []*waiter{w})
		}
	}
}

// transact runs the transaction of a batch. Nobody's context ends it but the
// last one's time limit, since it is not one caller's alone.
func (c *combiner) transact(ctx context.Context, batch []*waiter) (accepted []license.Accepted, err error) {
	if len(batch) > 1 {
		var last time.Time
		for _, w := range batch {
			limit, ok := w.ctx.Deadline()
			if !ok {
				last = time.Time{}
				break
			}
			if limit.After(last) {
				last = limit
			}
		}
		ctx = context.WithoutCancel(ctx)
		if !last.IsZero() {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, last)
			defer cancel()
		}
	}
	params := make([]license.AcceptParams, len(batch))
	weight := 0
	for i, w := range batch {
		params[i] = w.params
		weight += len(w.params.Request.Devices)
	}
	err = c.s.write(ctx, params[0].Request.Account, weight, func(tx *tx) (err error) {
		accepted, err = acceptTogether(tx, params, batch[0].block)
		return err
	})
	if errors.Is(err, errReplay) && len(batch) == 1 {
		accepted = []license.Accepted{{ID: params[0].Request.ID, Replay: true, More: true}}
		err = nil
		if c.s.dialect.confirm != "" {
			err = c.s.write(ctx, params[0].Request.Account, 1, (*tx).confirm)
		}
	}
	return accepted, err
}

package callback

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// lastFlush is what the outbox gets at shutdown, after the last post has ended,
// to write down how the last attempts went.
const lastFlush = 5 * time.Second

// Run delivers callbacks until ctx ends. Then it claims nothing more, gives back
// what was not sent, lets posts in flight end within the grace period, writes
// down how they ended and returns, always nil after that.
func (s *Sender) Run(ctx context.Context) error {
	posts, cutPosts := context.WithCancel(context.WithoutCancel(ctx))
	defer cutPosts()
	flushes, cutFlushes := context.WithCancel(context.WithoutCancel(ctx))
	defer cutFlushes()

	var workers, finisher sync.WaitGroup
	if !s.open(func(l *lane) { workers.Go(func() { s.work(ctx, posts, l) }) }) {
		return errors.New("callback: the sender is running already")
	}
	done := make(chan struct{})
	finisher.Go(func() { s.finish(flushes, done, s.pended, 1) })
	// The second takes only what fills a batch, so that the store has one to do
	// while the first is told of its own, and small ones are not made smaller.
	finisher.Go(func() { s.finish(flushes, done, s.filled, batch) })

	s.claim(ctx)

	s.close()
	finisher.Go(func() { s.giveBack(flushes, done) })
	grace := time.AfterFunc(s.cfg.Grace, cutPosts)
	workers.Wait()
	grace.Stop()
	close(done)
	last := time.AfterFunc(lastFlush, cutFlushes)
	finisher.Wait()
	last.Stop()
	s.transport.CloseIdleConnections()
	return nil
}

// open lets work in; staff starts a worker for a lane.
func (s *Sender) open(staff func(*lane)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.staff != nil {
		return false
	}
	s.staff = staff
	return true
}

// close lets no more work in and drops what has not begun.
func (s *Sender) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.staff = nil
	for _, l := range s.lanes {
		rest := l.queue[l.head:]
		s.drop(rest)
		s.hold(l, -len(rest))
		l.queue, l.head, l.backlog = nil, 0, false
	}
}

// Wake makes the sender look for due callbacks at once.
func (s *Sender) Wake() { notify(s.wake) }

// claims is what the goroutine that claims knows of what is due.
type claims struct {
	found   []license.Due // by the last look, and not claimed since
	lookAt  time.Time     // when to look again at the earliest, in real time
	skipped bool          // there was no look in this round, as it was too early
}

// lookShare bounds the time spent looking to one part in so many: a look counts all
// that is due, which may be what a full lane has no room for.
const lookShare = 10

// claim fills the lanes from the outbox until ctx ends.
func (s *Sender) claim(ctx context.Context) {
	var c claims
	wait := s.cfg.Poll
	for ctx.Err() == nil {
		again, err := s.round(ctx, &c)
		switch {
		case err == nil:
			wait = s.cfg.Poll
		case ctx.Err() != nil:
			return
		default:
			// The store being away is no news four times a second.
			wait = min(2*wait, max(5*time.Second, s.cfg.Poll))
			s.cfg.Logger.Error("claiming callbacks", "error", err, "retry_in", wait)
		}
		switch {
		case again:
		case err == nil && c.skipped:
			s.sleep(ctx, min(wait, time.Until(c.lookAt)), s.wake, nil)
		case err == nil:
			s.sleep(ctx, wait, s.wake, s.nextDue())
		default:
			s.sleep(ctx, wait, nil, nil) // what wakes us is of no use while the store is away
		}
	}
}

// round claims for every account with due callbacks, a share each, and reports
// whether there was more for lanes that still have room.
func (s *Sender) round(ctx context.Context, c *claims) (again bool, err error) {
	if c.skipped = time.Now().Before(c.lookAt); !c.skipped {
		if err := s.look(ctx, c); err != nil {
			return false, err
		}
	}
	left := c.found[:0]
	for i := range c.found {
		due := c.found[i]
		more, err := s.share(ctx, &due)
		if due.Count > 0 {
			left = append(left, due)
		}
		if err != nil {
			c.found = append(left, c.found[i+1:]...)
			return false, err
		}
		again = again || more
	}
	c.found = left
	return again, nil
}

// look asks which accounts have callbacks due.
func (s *Sender) look(ctx context.Context, c *claims) error {
	begun, now := time.Now(), s.cfg.Clock.Now()
	s.mu.Lock()
	s.dues.reach(now)
	s.mu.Unlock()
	found, err := s.cfg.Outbox.DueAccounts(ctx, license.PhaseListener, now)
	if err != nil {
		return err
	}
	c.found, c.lookAt = found, begun.Add(lookShare*time.Since(begun))
	return nil
}

// share claims a fair share of one account's due callbacks: what its lane has
// room for, but no more than a batch before the next account has its turn. It
// reports whether there is more, and room for it.
func (s *Sender) share(ctx context.Context, due *license.Due) (more bool, err error) {
	s.mu.Lock()
	l := s.lane(due.Account)
	limit := min(due.Count, s.room(l), batch)
	l.backlog = due.Count > limit
	s.hold(l, limit)
	timeout := s.timeout(l)
	s.mu.Unlock()
	if limit <= 0 {
		return false, nil
	}
	now := s.cfg.Clock.Now()
	// Cut off, it might have leased what nobody then knows of.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Grace)
	defer cancel()
	callbacks, err := s.cfg.Outbox.ClaimCallbacks(ctx, license.ClaimParams{
		Account: due.Account, Now: now, Until: now.Add(s.lease(timeout)), Limit: limit,
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hold(l, -limit)
	s.take(l, callbacks)
	switch due.Count -= len(callbacks); {
	case err != nil:
	case len(callbacks) < limit: // another node is at them
		due.Count = 0
	default:
		more = due.Count > 0 && s.room(l) > 0
	}
	return more, err
}

// nextDue fires when a callback falls due; nil where none is known to.
func (s *Sender) nextDue() <-chan time.Time {
	s.mu.Lock()
	d, ok := s.dues.next(s.cfg.Clock.Now())
	s.mu.Unlock()
	if !ok {
		return nil
	}
	return s.cfg.Clock.After(d)
}

// sleep waits for a wake, a callback that falls due, or for the time to poll, which
// is real time since a turned clock must not stop it.
func (s *Sender) sleep(ctx context.Context, poll time.Duration, wake <-chan struct{}, due <-chan time.Time) {
	timer := time.NewTimer(poll)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-due:
	case <-wake:
	}
}

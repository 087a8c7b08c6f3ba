package provision

import (
	"context"

	"github.com/simlatch/simlatch/internal/license"
)

// Steps does a Worker's work in the place of Run, a step at a time and each as
// often as its caller likes, so that a simulation decides what happens between
// them. Nothing here waits, neither for work nor for time: what Run does after a
// pause is done by the next call. The methods may be called by several goroutines
// only where they take turns.
type Steps struct {
	w       *Worker
	claimer *claimer
	batch   []license.Outcome // that the store did not take
	tries   int               // how often
}

// Steps begins a worker's work, whose Run must not be called.
func (w *Worker) Steps() *Steps { return &Steps{w: w, claimer: newClaimer(w)} }

// Woken reports whether there is something to claim that Wake told of, once for
// each time.
func (s *Steps) Woken() bool {
	select {
	case <-s.w.wake:
		return true
	default:
		return false
	}
}

// Claim looks for due tasks and claims those that there is room for.
func (s *Steps) Claim(ctx context.Context) {
	c := s.claimer
	c.alarms.forget(c.cfg.Clock.Now())
	if share, _ := c.room.claimable(len(c.backlog)); share > 0 {
		c.look(ctx)
		c.claimAll(ctx)
	}
}

// Waiting reports whether tasks wait for a caller.
func (s *Steps) Waiting() bool {
	s.w.lines.mu.Lock()
	defer s.w.lines.mu.Unlock()
	return len(s.w.lines.turn) > 0
}

// Call takes one batch to the carrier, if one waits.
func (s *Steps) Call(ctx context.Context) {
	if !s.Waiting() {
		return
	}
	tasks, ok := s.w.lines.next(s.w.pending.full)
	if !ok {
		return
	}
	defer s.w.lines.done(tasks[0].Account)
	if tasks = s.w.leased(tasks); len(tasks) > 0 {
		s.w.pending.add(s.w.ask(ctx, tasks))
	}
}

// Unsettled reports whether there are outcomes to settle.
func (s *Steps) Unsettled() bool { return len(s.batch) > 0 || s.w.pending.size() > 0 }

// Settle settles a batch, or tries to; what the store did not take is kept for the
// next call.
func (s *Steps) Settle(ctx context.Context) error {
	if !s.Unsettled() {
		return nil
	}
	batch := s.batch
	if s.batch = nil; len(batch) == 0 {
		batch, _ = s.w.pending.take(anyOf)
	}
	err := s.w.flush(ctx, batch)
	if err != nil && s.tries >= suspect && !unavailable(err) {
		batch, err = s.w.takeApart(ctx, batch)
	}
	if err != nil {
		s.batch = append(batch, s.batch...)
		s.tries++
		return err
	}
	s.tries = 0
	return nil
}

// End takes no more work and gives back what was not begun, which another call does
// with what came since. What is at the carrier is still to be settled.
func (s *Steps) End(ctx context.Context) {
	s.w.room.close()
	s.w.lines.close()
	s.w.giveRest(ctx)
}

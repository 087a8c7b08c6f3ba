package callback

import (
	"context"
	"errors"

	"github.com/simlatch/simlatch/internal/license"
)

// Steps does a Sender's work in the place of Run, a step at a time and each as
// often as its caller likes, so that a simulation decides what happens between
// them. Nothing here waits but the workers, for their listeners. The methods may
// be called by several goroutines only where they take turns.
type Steps struct {
	s     *Sender
	ended []license.Delivery // that the outbox did not take
}

// Steps begins a sender's work, whose Run must not be called. hire is given each
// worker to run, on a goroutine of its own, until it returns.
func (s *Sender) Steps(ctx context.Context, hire func(work func())) (*Steps, error) {
	if !s.open(func(l *lane) { hire(func() { s.work(ctx, ctx, l) }) }) {
		return nil, errors.New("callback: the sender is running already")
	}
	return &Steps{s: s}, nil
}

// Woken reports whether there is something to claim that Wake told of, once for
// each time.
func (s *Steps) Woken() bool {
	select {
	case <-s.s.wake:
		return true
	default:
		return false
	}
}

// Claim claims due callbacks for the lanes that have room, and reports whether
// there was more.
func (s *Steps) Claim(ctx context.Context) (more bool, err error) { return s.s.round(ctx, &claims{}) }

// Unwritten reports whether there are attempts to write down.
func (s *Steps) Unwritten() bool {
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	return len(s.ended) > 0 || len(s.s.pending) > 0
}

// Finish writes a batch of attempts down, or tries to; what the outbox did not
// take is kept for the next call.
func (s *Steps) Finish(ctx context.Context) error {
	if len(s.ended) == 0 {
		s.ended = s.s.collect(1)
	}
	if len(s.ended) == 0 {
		return nil
	}
	if err := s.s.write(ctx, s.ended); err != nil {
		return err
	}
	s.ended = nil
	return nil
}

// End takes no more work and gives back what was not begun, which another call does
// with what came since. What is being sent is still to be written down.
func (s *Steps) End(ctx context.Context) {
	s.s.close()
	s.s.giveRest(ctx)
}

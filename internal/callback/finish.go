package callback

import (
	"context"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// pace is the least time from one write that is not full to the next. Under load,
// small ones would cost several times more for each attempt; the first after a rest
// does not wait.
const pace = 5 * time.Millisecond

// finish writes ended attempts down, a batch of at least so many at a time, until
// done is closed and none is left, or ctx ends. What has ended during one write
// goes into the next. wake says when there may be enough.
func (s *Sender) finish(ctx context.Context, done <-chan struct{}, wake <-chan struct{}, least int) {
	for {
		ended := s.collect(least)
		if len(ended) == 0 {
			select {
			case <-wake:
				continue
			case <-done:
			}
			// After done nothing is added; what was added before is seen here.
			if ended = s.collect(1); len(ended) == 0 {
				return
			}
		}
		begun := time.Now()
		if !s.flush(ctx, ended) {
			s.cfg.Logger.Error("attempts were not written down; these callbacks will be sent again", "callbacks", len(ended))
			return
		}
		if len(ended) < batch {
			select {
			case <-time.After(pace - time.Since(begun)):
			case <-done:
			case <-ctx.Done():
			}
		}
	}
}

// pend adds an ended attempt to what is to be written down; s.mu is held.
func (s *Sender) pend(d license.Delivery) {
	n := len(s.pending)
	if n == 0 || len(s.pending[n-1]) == batch {
		s.pending = append(s.pending, nil)
		n++
	}
	s.pending[n-1] = append(s.pending[n-1], d)
	s.woken()
}

// collect takes a batch of what is pending, if there are at least so many.
func (s *Sender) collect(least int) []license.Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) == 0 || len(s.pending[0]) < least {
		return nil
	}
	ended := s.pending[0]
	s.pending[0] = nil // or the array would keep it alive
	if s.pending = s.pending[1:]; len(s.pending) > 0 {
		s.woken()
	}
	return ended
}

// woken wakes those who wait for what is pending; s.mu is held.
func (s *Sender) woken() {
	notify(s.pended)
	if len(s.pending[0]) == batch {
		notify(s.filled)
	}
}

// flush writes one batch down, however often it takes, and reports whether it
// did before ctx ended. The lanes keep no room for others meanwhile, so a store
// that is away stops the sending too.
func (s *Sender) flush(ctx context.Context, ended []license.Delivery) bool {
	wait := 50 * time.Millisecond
	for {
		err := s.write(ctx, ended)
		if err == nil {
			return true
		}
		wait = min(2*wait, 5*time.Second)
		s.cfg.Logger.Error("writing down attempts", "error", err, "callbacks", len(ended), "retry_in", wait)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}

// write writes one batch down, once.
func (s *Sender) write(ctx context.Context, ended []license.Delivery) error {
	err := s.cfg.Outbox.FinishCallbacks(ctx, s.cfg.Clock.Now(), ended)
	if err == nil {
		s.settle(ended)
	}
	return err
}

// settle frees the room of attempts that are written down, and remembers when
// the next ones are due.
func (s *Sender) settle(ended []license.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Clock.Now()
	for i := range ended {
		d := &ended[i]
		s.release(s.lane(d.Callback.Account))
		if d.Verdict == license.Again {
			s.dues.add(d.Due)
			if d.Due.Sub(now) < s.cfg.Poll {
				notify(s.wake) // the claimer may be asleep for longer
			}
		}
	}
}

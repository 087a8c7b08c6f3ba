package callback

import (
	"context"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// finish writes ended attempts down until done is closed and none is left, or
// ctx ends. It has no timer: what has ended during one write goes into the next.
func (s *Sender) finish(ctx context.Context, done <-chan struct{}) {
	for {
		ended := s.collect()
		if len(ended) == 0 {
			select {
			case <-s.pended:
				continue
			case <-done:
			}
			// After done nothing is added; what was added before is seen here.
			if ended = s.collect(); len(ended) == 0 {
				return
			}
		}
		for len(ended) > 0 {
			n := min(batch, len(ended))
			if !s.flush(ctx, ended[:n]) {
				s.cfg.Logger.Error("attempts were not written down; these callbacks will be sent again", "callbacks", len(ended))
				return
			}
			ended = ended[n:]
		}
	}
}

// collect takes all that is pending.
func (s *Sender) collect() []license.Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	ended := s.pending
	s.pending = nil
	return ended
}

// flush writes one batch down, however often it takes, and reports whether it
// did before ctx ended. The lanes keep no room for others meanwhile, so a store
// that is away stops the sending too.
func (s *Sender) flush(ctx context.Context, ended []license.Delivery) bool {
	wait := 50 * time.Millisecond
	for {
		err := s.cfg.Outbox.FinishCallbacks(ctx, s.cfg.Clock.Now(), ended)
		if err == nil {
			s.settle(ended)
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

package callback

import (
	"context"

	"github.com/simlatch/simlatch/internal/license"
)

// giveBack makes due what the ending sender leaves unsent, at once, and what its
// workers, done when done is closed, and those who had reserved room bring
// later. It returns when nothing more can come, or when ctx ends.
func (s *Sender) giveBack(ctx context.Context, done <-chan struct{}) {
	for {
		promised := s.giveRest(ctx)
		if done == nil && !promised {
			return
		}
		select {
		case <-done:
			done = nil
		case <-s.kept:
		case <-ctx.Done():
			return
		}
	}
}

// giveRest makes due what there is by now, and reports whether more was promised.
func (s *Sender) giveRest(ctx context.Context) (promised bool) {
	s.mu.Lock()
	unsent := s.unsent
	s.unsent, promised = nil, s.promised > 0
	s.mu.Unlock()
	if len(unsent) == 0 {
		return promised
	}
	given, err := s.cfg.Outbox.GiveCallbacksBack(ctx, s.cfg.Clock.Now(), unsent)
	if err != nil {
		s.cfg.Logger.Error("giving callbacks back that were not sent; they fall due when their leases end",
			"error", err, "callbacks", len(unsent)-given)
		return promised
	}
	s.cfg.Logger.Info("gave callbacks back that were not sent", "callbacks", given)
	return promised
}

// leave takes note that a worker of the ending sender leaves a callback unsent,
// or its post cut off.
func (s *Sender) leave(l *lane, c license.Callback) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.metrics.dropped.Inc()
	s.unsent = append(s.unsent, c)
	s.release(l)
}

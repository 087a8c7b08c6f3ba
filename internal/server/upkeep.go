package server

import (
	"context"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

const (
	beatEvery  = 5 * time.Second // how often a node says that it lives
	purgeEvery = time.Hour
)

// beat says from time to time that this node lives, and shares the rate limit
// with the others that do.
func (s *core) beat(ctx context.Context) error {
	for {
		live, err := s.store.Heartbeat(ctx, s.cfg.Node, s.cfg.Clock.Now())
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			s.log.WarnContext(ctx, "the node's heartbeat was not written", "error", err)
		default:
			s.nodes.Store(int64(max(live, 1)))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.cfg.Clock.After(beatEvery):
		}
	}
}

// purge removes every hour what is older than the retention.
func (s *core) purge(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.cfg.Clock.After(purgeEvery):
		}
		deleted, err := s.store.Purge(ctx, s.cfg.Clock.Now(), s.cfg.Retention)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			s.log.ErrorContext(ctx, "ended work was not purged", "error", err)
		case deleted > 0:
			s.log.InfoContext(ctx, "purged ended work", "devices", deleted)
		}
	}
}

// noWork stands in for the worker on a node that only serves.
type noWork struct{}

func (noWork) Reserve(license.AccountName, int) int          { return 0 }
func (noWork) Give(license.AccountName, int, []license.Task) {}
func (noWork) Wake()                                         {}

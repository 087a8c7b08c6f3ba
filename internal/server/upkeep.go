package server

import (
	"context"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

const (
	beatEvery  = 5 * time.Second // how often a node says that it lives
	purgeEvery = time.Hour
	sealEvery  = time.Second // how often the audit is sealed
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
		own, now := s.store.As(s.self("purge")), s.cfg.Clock.Now()
		deleted, err := own.Purge(ctx, now, s.cfg.Retention)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			s.log.ErrorContext(ctx, "ended work was not purged", "error", err)
		case deleted > 0:
			s.log.InfoContext(ctx, "purged ended work", "devices", deleted)
		}
		if s.cfg.AuditRetention == 0 {
			continue
		}
		deleted, err = own.PurgeAudit(ctx, now.Add(-s.cfg.AuditRetention))
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			s.log.ErrorContext(ctx, "the audit was not purged", "error", err)
		case deleted > 0:
			s.log.InfoContext(ctx, "purged the audit", "entries", deleted)
		}
	}
}

// self is the service as the audit names it, doing something by itself.
func (s *core) self(doing string) license.Actor {
	return license.Actor{Name: doing, Via: license.ViaSystem, From: s.cfg.Node}
}

// seal takes what was written into the audit since the last second into its
// chain. It goes by the machine's clock: nothing depends on when it happens, and
// a sandbox's may stand still.
func (s *core) seal(ctx context.Context) error {
	tick := time.NewTicker(sealEvery)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		_, err := s.store.SealAudit(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !failing { // once, not each second of an outage
			s.log.WarnContext(ctx, "the audit was not sealed, and will be", "error", err)
		}
		failing = err != nil
	}
}

// noWork stands in for the worker on a node that only serves.
type noWork struct{}

func (noWork) Reserve(license.AccountName, int) int          { return 0 }
func (noWork) Give(license.AccountName, int, []license.Task) {}
func (noWork) Wake()                                         {}

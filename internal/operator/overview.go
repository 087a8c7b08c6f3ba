package operator

import (
	"context"
	"sync"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/internal/store"
)

// overviews keeps the last look at the store for those who look at the same time:
// however many watch, it is looked at once in a while.
type overviews struct {
	mu   sync.Mutex // held while the store is looked at
	last store.Overview
	at   time.Time // zero: never
}

// freshOverview is how long a look counts.
const freshOverview = time.Second

func (o *overviews) get(ctx context.Context, s *store.Store, now time.Time) (store.Overview, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if age := now.Sub(o.at); age >= 0 && age < freshOverview { // a clock may be put back
		return o.last, nil
	}
	last, err := s.Overview(ctx, now)
	if err != nil {
		return last, err
	}
	o.last, o.at = last, now
	return last, nil
}

// overviewAudit is how many entries of the audit an overview has.
const overviewAudit = 10

func (a *API) overview(ctx context.Context, c *call) (out client.Overview, err error) {
	if q := c.query(); q.err != nil {
		return out, q.err
	}
	o, err := a.overviews.get(ctx, a.cfg.Store, a.cfg.Clock.Now())
	if err != nil {
		return out, err
	}
	out = client.Overview{
		At: a.cfg.Clock.Now(), Version: a.cfg.Version, Engine: a.cfg.Store.Engine(), PoolCount: o.AllPools, LowPools: o.Low,
		Stuck: o.Stuck, Bounded: o.Bounded, Pools: []client.Pool{}, Trouble: []client.Trouble{},
		Queues: []client.Queue{queueOf(client.QueueCarrier, o.Carrier), queueOf(client.QueueListener, o.Sender)},
	}
	for _, p := range o.Pools {
		out.Pools = append(out.Pools, poolOf(p))
	}
	for _, h := range o.Hours {
		out.Hours = append(out.Hours, client.Hour{
			At: h.At, Requests: h.Requests, Devices: h.Devices, Succeeded: h.Done, Failed: h.Refused,
			Delivered: h.Delivered, Undelivered: h.Unacknowledged,
		})
	}
	for _, t := range o.Trouble {
		out.Trouble = append(out.Trouble, client.Trouble{
			Account: string(t.Listener.Account), Service: t.Listener.Service, URL: t.Listener.URL, Undelivered: t.Unacked,
			Last: t.Last.Ended, Status: t.Last.Status,
		})
	}
	entries, err := c.store().Audit(ctx, store.AuditFilter{Limit: overviewAudit})
	out.Audit = make([]client.AuditEntry, len(entries))
	for i, e := range entries {
		out.Audit[i] = auditOf(e)
	}
	return out, err
}

func queueOf(phase string, d license.Due) client.Queue {
	return client.Queue{Phase: phase, Due: int64(d.Count), Oldest: d.Oldest}
}

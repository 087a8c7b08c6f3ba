package server

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
)

const (
	gaugeEvery   = 15 * time.Second // how often the queues and the pools are looked at
	gaugeTimeout = 5 * time.Second  // for one look
	gaugeSKUs    = 30               // whose levels are shown each; those of the others are "other"
)

// otherSKUs is the label of the SKUs beyond gaugeSKUs.
const otherSKUs = "other"

// gauges show what stands in the database, as it was at the last look: whoever
// reads the metrics waits for no query, and costs none.
type gauges struct {
	store *store.Store
	clock license.Clock
	log   *slog.Logger

	depth    *prometheus.GaugeVec
	age      *prometheus.GaugeVec
	licenses *prometheus.GaugeVec
	pools    *prometheus.GaugeVec
	empty    *prometheus.GaugeVec
	looked   prometheus.Gauge
	skus     map[string]bool // that are shown

	looking sync.Mutex // held through a look
}

// newGauges makes the gauges of a core whose store is open.
func newGauges(c *core) (*gauges, error) {
	vec := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	g := &gauges{
		store: c.store, clock: c.cfg.Clock, log: c.log,
		depth: vec("simlatch_queue_tasks",
			"Tasks of all nodes that nobody holds, by phase (carrier, listener) and state: due, later (put off), or stuck (an operator must decide).", "phase", "state"),
		age: vec("simlatch_queue_oldest_seconds",
			"How long ago the oldest due task that nobody holds fell due, by phase; 0 where there is none.", "phase"),
		licenses: vec("simlatch_pool_licenses",
			"Licenses of all accounts, by SKU and state: purchased, and of these reserved, assigned and available.", "sku", "state"),
		pools: vec("simlatch_pools", "Pools, by SKU.", "sku"),
		empty: vec("simlatch_pools_empty", "Pools without an available license, by SKU.", "sku"),
		looked: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "simlatch_gauges_updated_timestamp_seconds", Help: "When the queues and the pools were last looked at.",
		}),
	}
	nodes := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "simlatch_nodes", Help: "Nodes on this database that live, as this one sees it."},
		func() float64 { return float64(c.nodes.Load()) })
	build := ReadBuild()
	about := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "simlatch_build_info", Help: "1, with what this program was built of, its engine and its node.",
		ConstLabels: prometheus.Labels{"version": build.Version, "revision": build.Revision, "goversion": build.Go, "engine": c.store.Engine(), "node": c.cfg.Node},
	})
	about.Set(1)
	for _, phase := range []license.Phase{license.PhaseCarrier, license.PhaseListener} {
		g.show(store.Depth{Phase: phase}, time.Time{})
	}
	for _, collector := range []prometheus.Collector{g.depth, g.age, g.licenses, g.pools, g.empty, g.looked, nodes, about} {
		if err := c.metrics.Register(collector); err != nil {
			return nil, fmt.Errorf("registering the metrics of the database's content: %w", err)
		}
	}
	return g, nil
}

// run looks until ctx ends.
func (g *gauges) run(ctx context.Context) error {
	tick := time.NewTicker(gaugeEvery)
	defer tick.Stop()
	for {
		g.look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look looks once. What cannot be learnt in time stays as it was.
func (g *gauges) look(ctx context.Context) {
	g.looking.Lock()
	defer g.looking.Unlock()
	within, cancel := context.WithTimeout(ctx, gaugeTimeout)
	defer cancel()
	now := g.clock.Now()
	depths, err := g.store.Depths(within, now)
	if err == nil {
		for _, d := range depths {
			g.show(d, now)
		}
		err = g.lookAtPools(within)
	}
	if err != nil {
		if ctx.Err() == nil {
			g.log.WarnContext(ctx, "the queues and the pools could not be looked at; their metrics are old", "error", err)
		}
		return
	}
	g.looked.Set(float64(now.Unix()))
}

func (g *gauges) show(d store.Depth, now time.Time) {
	phase := string(d.Phase)
	g.depth.WithLabelValues(phase, "due").Set(float64(d.Due))
	g.depth.WithLabelValues(phase, "later").Set(float64(d.Later))
	if d.Phase == license.PhaseCarrier {
		g.depth.WithLabelValues(phase, "stuck").Set(float64(d.Stuck))
	}
	age := 0.0
	if !d.Oldest.IsZero() {
		age = max(0, now.Sub(d.Oldest).Seconds())
	}
	g.age.WithLabelValues(phase).Set(age)
}

func (g *gauges) lookAtPools(ctx context.Context) error {
	const most = 1000
	levels, err := g.store.Levels(ctx, most)
	if err != nil {
		return err
	}
	if len(levels) > gaugeSKUs {
		rest := store.Level{SKU: otherSKUs}
		for _, l := range levels[gaugeSKUs:] {
			rest.Purchased, rest.Reserved, rest.Assigned = rest.Purchased+l.Purchased, rest.Reserved+l.Reserved, rest.Assigned+l.Assigned
			rest.Pools, rest.Empty = rest.Pools+l.Pools, rest.Empty+l.Empty
		}
		levels = append(levels[:gaugeSKUs:gaugeSKUs], rest)
	}
	gone := g.skus
	g.skus = map[string]bool{}
	for _, l := range levels {
		sku := string(l.SKU)
		g.skus[sku] = true
		delete(gone, sku)
		for state, n := range map[string]int64{
			"purchased": l.Purchased, "reserved": l.Reserved, "assigned": l.Assigned, "available": l.Purchased - l.Reserved - l.Assigned,
		} {
			g.licenses.WithLabelValues(sku, state).Set(float64(n))
		}
		g.pools.WithLabelValues(sku).Set(float64(l.Pools))
		g.empty.WithLabelValues(sku).Set(float64(l.Empty))
	}
	for sku := range gone { // it is among the others now
		of := prometheus.Labels{"sku": sku}
		g.licenses.DeletePartialMatch(of)
		g.pools.DeletePartialMatch(of)
		g.empty.DeletePartialMatch(of)
	}
	return nil
}

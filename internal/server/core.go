package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/simlatch/simlatch/internal/api"
	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/callback"
	"github.com/simlatch/simlatch/internal/carrier"
	"github.com/simlatch/simlatch/internal/console"
	"github.com/simlatch/simlatch/internal/exchange"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator"
	"github.com/simlatch/simlatch/internal/provision"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/tracing"
)

// core is the service without its listener: what it serves, and the work it does.
// A sandbox puts one in the place of another behind the same address.
type core struct {
	cfg     Config
	log     *slog.Logger
	store   *store.Store
	sealer  *auth.Sealer // its keys are replaced by watchKeys
	metrics *prometheus.Registry
	sender  *callback.Sender
	worker  *provision.Worker // nil on a node that only serves
	api     *api.API
	late    http.Handler // takes late outcomes of the carrier; nil where it brings none

	upstream *carrier.Upstream  // nil where the carrier is none
	recorder *exchange.Recorder // nil without --record
	alerter  *alerter
	gauges   *gauges
	// operator is nil in a sandbox, whose answers are recorded whole: a stream
	// of events would never end.
	operator *operator.API
	console  *console.Console // the operator API's pages; nil where it is

	draining atomic.Bool
	nodes    atomic.Int64 // that live, this one included
}

// newCore makes the core of a complete configuration; open must follow.
func newCore(cfg Config) *core {
	c := &core{cfg: cfg, log: cfg.Logger, metrics: newRegistry()}
	c.nodes.Store(1)
	return c
}

// open opens the database, migrates and seeds it, and builds the parts. What it
// opened is closed by close, also when it fails.
func (c *core) open(ctx context.Context) error {
	if err := c.openStore(ctx); err != nil {
		return err
	}
	if c.cfg.Seed != "" {
		if err := c.seed(ctx, c.cfg.Seed); err != nil {
			return fmt.Errorf("loading the seed: %w", err)
		}
	}
	return c.wire()
}

// run does the work until ctx ends, and then what is left of it within the grace
// period.
func (c *core) run(ctx context.Context) error {
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return c.sender.Run(running) })
	if c.operator != nil {
		group.Go(func() error { return c.operator.Run(running) })
		group.Go(func() error { return c.console.Run(running) })
	}
	if c.worker != nil {
		group.Go(func() error { return c.worker.Run(running) })
	}
	if c.upstream != nil {
		group.Go(func() error { return c.runUpstream(running) })
	}
	if c.cfg.box == nil { // whose nodes are one, and whose operators are tests
		group.Go(func() error { return c.beat(running) })
		group.Go(func() error { return c.alerter.run(running) })
		group.Go(func() error { return c.gauges.run(running) })
		group.Go(func() error { return c.watchKeys(running) })
	}
	group.Go(func() error { return c.purge(running) })
	group.Go(func() error { return c.seal(running) })
	return group.Wait()
}

func (c *core) close() error {
	if c.store == nil {
		return nil
	}
	if err := c.store.Close(); err != nil {
		return fmt.Errorf("closing the database: %w", err)
	}
	return nil
}

// openStore opens the database, brings its schema up to date and, on SQLite,
// makes this process the one that works on it.
func (c *core) openStore(ctx context.Context) error {
	var err error
	if c.sealer, err = c.cfg.sealer(); err != nil {
		return err
	}
	c.store, err = store.Open(ctx, c.cfg.Database, store.Options{Sealer: c.sealer, Logger: c.log, Clock: c.cfg.Clock, From: c.cfg.from, Metrics: c.metrics})
	if err != nil {
		return err
	}
	applied, err := c.store.Migrate(ctx)
	if err != nil {
		return fmt.Errorf("migrating the database: %w", err)
	}
	if applied > 0 {
		c.log.InfoContext(ctx, "migrated the database", "steps", applied)
	}
	if err := c.store.CheckSealer(ctx); err != nil {
		return err
	}
	return c.store.TakeOver(ctx, c.cfg.Clock.Now())
}

// wire builds the parts and ties them together.
func (c *core) wire() error {
	authority := auth.New(auth.Config{
		Records: c.store, Clock: c.cfg.Clock, Random: c.cfg.Random,
		SharedNodes: c.store.Engine() != "sqlite",
		Lock:        c.cfg.LoginLock,
	})
	tracer := tracing.New(c.cfg.Traces)
	guard := callback.NewGuard(c.cfg.CallbackAllow, c.cfg.CallbackPorts...)
	var err error
	c.sender, err = callback.New(c.cfg.boxedSender(callback.Config{
		Outbox: c.store, Guard: guard, Clock: c.cfg.Clock, Logger: c.log, Metrics: c.metrics, Tracer: tracer,
		Attempts: c.cfg.CallbackAttempts, Interval: c.cfg.CallbackInterval, Timeout: c.cfg.CallbackTimeout,
		Grace: c.cfg.Grace, Yield: c.store.Yield,
	}))
	if err != nil {
		return err
	}
	if c.alerter, err = newAlerter(c); err != nil {
		return err
	}
	if c.gauges, err = newGauges(c); err != nil {
		return err
	}
	work, err := c.newWorker()
	if err != nil {
		return err
	}
	if c.late, err = c.newReceiver(); err != nil {
		return err
	}
	c.api, err = api.New(c.cfg.boxedAPI(api.Config{
		Auth: authority, Licenses: c.store, Inventory: c.store, Listeners: c.store, ListenersAs: func(who license.Actor) api.Listeners { return c.store.As(who) }, Work: work,
		Clock: c.cfg.Clock, Random: c.cfg.Random, Logger: c.log, Metrics: c.metrics, Tracer: tracer,
		MaxDevices: c.cfg.MaxDevices, RateLimit: c.cfg.RateLimit, AddressRateLimit: c.cfg.AddressRateLimit, BodyTimeout: c.cfg.bodyTimeout, Timeout: c.cfg.callTimeout,
		MaxCalls: c.cfg.MaxCalls, MaxBodies: c.cfg.MaxBodies,
		Nodes:        func() int { return int(c.nodes.Load()) },
		CheckURLHost: guard.CheckHost,
	}))
	if err != nil || c.cfg.box != nil {
		return err
	}
	c.operator, err = operator.New(operator.Config{
		Operators: authority, Store: c.store, Tester: c.sender, Accept: c.api.Accept, Message: c.sender.Message,
		Clock: c.cfg.Clock, Random: c.cfg.Random, Logger: c.log, Version: ReadBuild().Version, MaxDevices: c.cfg.MaxDevices,
		Timeout: c.cfg.callTimeout, Wait: api.NewAddressLimit(c.cfg.AddressRateLimit, func() int { return int(c.nodes.Load()) }).Wait,
	})
	if err != nil {
		return err
	}
	c.console, err = console.New(console.Config{
		Sessions: authority, Operator: c.operator, Clock: c.cfg.Clock, Logger: c.log,
		Record: func(ctx context.Context, who license.Actor, action string) error {
			return c.store.As(who).Record(ctx, action, "", who.Name, nil)
		},
		Secure: c.cfg.TLSCert != "", Simulated: c.cfg.simulated(),
	})
	return err
}

// newWorker builds the carrier and the worker that asks it; on a node that
// only serves there is neither, and other nodes do the work.
func (c *core) newWorker() (api.Work, error) {
	if c.cfg.ServeOnly {
		if c.store.Engine() == "sqlite" {
			c.log.Warn("this node leaves the carrier to others, and a SQLite database has no other: requests will stay pending")
		}
		return noWork{}, nil
	}
	licensor, timeout, err := c.newCarrier()
	if err != nil {
		return nil, err
	}
	c.worker, err = provision.New(c.cfg.boxedWorker(provision.Config{
		Queue: c.store, Carrier: licensor, Timeout: timeout, Sink: c.sender, Clock: c.cfg.Clock, Logger: c.log, Metrics: c.metrics,
		Tracer: tracing.New(c.cfg.Traces), Callers: c.cfg.Workers, Grace: c.cfg.Grace,
		// The callbacks it hands to the sender come under its lease.
		Lease: max(20*time.Second, 2*c.cfg.CallbackTimeout, timeout+10*time.Second),
	}))
	return c.worker, err
}

// newCarrier builds the carrier, and says how long a call of it may take; 0 is
// what package provision chooses.
func (c *core) newCarrier() (provision.Carrier, time.Duration, error) {
	if c.cfg.upstreamURL() == "" || c.cfg.Provisioner != nil {
		licensor, err := c.cfg.newCarrier(c.log, c.metrics)
		return licensor, 0, err
	}
	if err := c.openRecorder(); err != nil {
		return nil, 0, err
	}
	var err error
	c.upstream, err = c.newUpstream()
	// Calls upstream are begun while there is time for them to end.
	return c.upstream, 2 * c.cfg.Upstream.Timeout, err
}

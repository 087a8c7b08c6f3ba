// Package server builds the whole service from a Config and runs it: the
// store, the API, the workers and what surrounds them. It is the only package
// that sees all the others; nothing but commands and tests imports it.
//
// New opens everything and listens, so that its errors are those of the
// configuration; Run serves until its context ends and then drains:
//
//	s, err := server.New(ctx, server.Config{Carrier: server.CarrierSimulated})
//	…
//	err = s.Run(ctx)
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/simlatch/simlatch/internal/api"
	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/callback"
	"github.com/simlatch/simlatch/internal/provision"
	"github.com/simlatch/simlatch/internal/store"
)

// Server is the service, opened and listening.
type Server struct {
	cfg      Config
	log      *slog.Logger
	store    *store.Store
	listener net.Listener
	http     *http.Server
	metrics  *prometheus.Registry
	sender   *callback.Sender
	worker   *provision.Worker // nil on a node that only serves
	api      *api.API

	draining atomic.Bool
	nodes    atomic.Int64 // that live, this one included
}

// New opens the database, migrates and seeds it, builds the service and
// listens. What it opened is closed again when it fails, and by Run.
func New(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	cfg = cfg.complete()
	s := &Server{cfg: cfg, log: cfg.Logger, metrics: newRegistry()}
	s.nodes.Store(1)
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *Server) open(ctx context.Context) error {
	// First, so that an address in use is told before a long migration, and a
	// seed's million devices are not loaded in vain.
	var err error
	if s.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", s.cfg.Listen); err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	secure, err := s.tls()
	if err != nil {
		return err
	}
	if err := s.openStore(ctx); err != nil {
		return err
	}
	if s.cfg.Seed != "" {
		if err := s.seed(ctx); err != nil {
			return fmt.Errorf("loading the seed: %w", err)
		}
	}
	if err := s.wire(); err != nil {
		return err
	}
	s.http = s.newHTTP(secure)
	return nil
}

// openStore opens the database, brings its schema up to date and, on SQLite,
// makes this process the one that works on it.
func (s *Server) openStore(ctx context.Context) error {
	sealer, err := OpenSealer(s.cfg.Database, s.cfg.SecretsKeyFile, true)
	if err != nil {
		return err
	}
	s.store, err = store.Open(ctx, s.cfg.Database, store.Options{Sealer: sealer, Logger: s.log})
	if err != nil {
		return err
	}
	applied, err := s.store.Migrate(ctx)
	if err != nil {
		return fmt.Errorf("migrating the database: %w", err)
	}
	if applied > 0 {
		s.log.InfoContext(ctx, "migrated the database", "steps", applied)
	}
	if err := s.store.CheckSealer(ctx); err != nil {
		return err
	}
	return s.store.TakeOver(ctx, s.cfg.Clock.Now())
}

// wire builds the parts and ties them together.
func (s *Server) wire() error {
	authority := auth.New(auth.Config{
		Records: s.store, Clock: s.cfg.Clock, Random: s.cfg.Random,
		SharedNodes: s.store.Engine() != "sqlite",
		Lock:        s.cfg.LoginLock,
	})
	guard := callback.NewGuard(s.cfg.CallbackAllow)
	var err error
	s.sender, err = callback.New(callback.Config{
		Outbox: s.store, Guard: guard, Clock: s.cfg.Clock, Logger: s.log, Metrics: s.metrics,
		Attempts: s.cfg.CallbackAttempts, Interval: s.cfg.CallbackInterval, Timeout: s.cfg.CallbackTimeout,
		Grace: s.cfg.Grace,
	})
	if err != nil {
		return err
	}
	work, err := s.newWorker()
	if err != nil {
		return err
	}
	s.api, err = api.New(api.Config{
		Auth: authority, Licenses: s.store, Inventory: s.store, Listeners: s.store, Work: work,
		Clock: s.cfg.Clock, Random: s.cfg.Random, Logger: s.log, Metrics: s.metrics,
		MaxDevices: s.cfg.MaxDevices, RateLimit: s.cfg.RateLimit,
		Nodes:        func() int { return int(s.nodes.Load()) },
		CheckURLHost: guard.CheckHost,
	})
	return err
}

// newWorker builds the carrier and the worker that asks it; on a node that
// only serves there is neither, and other nodes do the work.
func (s *Server) newWorker() (api.Work, error) {
	if s.cfg.ServeOnly {
		if s.store.Engine() == "sqlite" {
			s.log.Warn("this node leaves the carrier to others, and a SQLite database has no other: requests will stay pending")
		}
		return noWork{}, nil
	}
	carrier, err := s.cfg.newCarrier()
	if err != nil {
		return nil, err
	}
	s.worker, err = provision.New(provision.Config{
		Queue: s.store, Carrier: carrier, Sink: s.sender, Clock: s.cfg.Clock, Logger: s.log, Metrics: s.metrics,
		Callers: s.cfg.Workers, Grace: s.cfg.Grace,
		// The callbacks it hands to the sender come under its lease.
		Lease: max(20*time.Second, 2*s.cfg.CallbackTimeout),
	})
	return s.worker, err
}

// headerTimeout is how long a request's headers may take.
const headerTimeout = 5 * time.Second

// newHTTP builds the HTTP server. The API bounds the time for a request's body
// by itself, since it has an answer for slow ones.
func (s *Server) newHTTP(secure *tls.Config) *http.Server {
	return &http.Server{
		Handler:           limitHeaders(s.handler()),
		TLSConfig:         secure,
		ReadHeaderTimeout: headerTimeout,
		WriteTimeout:      2 * time.Minute, // from the head of the request to the end of the answer
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeaderHTTP,
		// "OPTIONS *" is answered like everything else, not with an empty body.
		DisableGeneralOptionsHandler: true,
		// What clients do wrong on a connection, such as a failed handshake,
		// is theirs to see; here it would let anyone fill the log.
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// URL is the address of the service, such as "http://127.0.0.1:8080".
func (s *Server) URL() string {
	if s.cfg.TLSCert != "" {
		return "https://" + s.listener.Addr().String()
	}
	return "http://" + s.listener.Addr().String()
}

// Run serves until ctx ends, then drains for at most the grace period: readyz
// fails, no call or work is begun, what is in flight ends, and the store is
// closed. It may be called once. The first part that fails ends all the others.
func (s *Server) Run(ctx context.Context) error {
	group, running := errgroup.WithContext(ctx)
	group.Go(s.serveHTTP)
	group.Go(func() error { return s.drain(running) })
	group.Go(func() error { return s.sender.Run(running) })
	if s.worker != nil {
		group.Go(func() error { return s.worker.Run(running) })
	}
	group.Go(func() error { return s.beat(running) })
	group.Go(func() error { return s.purge(running) })
	s.announce(ctx)
	err := group.Wait()
	return errors.Join(err, s.close())
}

func (s *Server) serveHTTP() error {
	var listener net.Listener = plainListener{s.listener}
	if s.http.TLSConfig != nil {
		listener = newSecureListener(s.listener, s.http.TLSConfig, s.log)
	}
	err := s.http.Serve(listener)
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}

// drain waits for the end of ctx, then lets the calls in flight end.
func (s *Server) drain(ctx context.Context) error {
	<-ctx.Done()
	s.draining.Store(true)
	s.log.InfoContext(ctx, "draining", "grace", s.cfg.Grace)
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Grace)
	defer cancel()
	if s.cfg.DrainDelay > 0 {
		select {
		case <-time.After(s.cfg.DrainDelay):
		case <-grace.Done():
		}
	}
	err := s.http.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		s.log.WarnContext(ctx, "some calls did not end within the grace period; their connections were closed")
		err = s.http.Close()
	}
	if err != nil {
		return fmt.Errorf("closing the HTTP server: %w", err)
	}
	return nil
}

// announce says that the service is ready.
func (s *Server) announce(ctx context.Context) {
	if s.cfg.simulated() {
		s.log.WarnContext(ctx, "the carrier is simulated: no SIM is really licensed")
	}
	if s.cfg.Ready != nil {
		s.cfg.Ready(s.URL())
	}
	s.log.InfoContext(ctx, "ready", "url", s.URL(), "engine", s.store.Engine(), "node", s.cfg.Node, "version", ReadBuild().Version)
}

// close closes what New opened.
func (s *Server) close() error {
	var errs []error
	if s.listener != nil {
		if err := s.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if s.store != nil {
		if err := s.store.Close(); err != nil {
			errs = append(errs, fmt.Errorf("closing the database: %w", err))
		}
	}
	return errors.Join(errs...)
}

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
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

// Server is the service, opened and listening.
type Server struct {
	*core

	listener  net.Listener
	http      *http.Server
	conns     *connections
	callbacks *upstreamListener // nil where the carrier is no upstream
}

// New opens the database, migrates and seeds it, builds the service and
// listens. What it opened is closed again when it fails, and by Run.
func New(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	s := &Server{core: newCore(cfg.complete())}
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
	if err := s.listenUpstream(ctx); err != nil {
		return err
	}
	secure, err := s.tls()
	if err != nil {
		return err
	}
	if err := s.core.open(ctx); err != nil {
		return err
	}
	if err := s.handleUpstream(); err != nil {
		return err
	}
	if s.conns, err = newConnections(s.metrics); err != nil {
		return err
	}
	s.http = newHTTP(s.handler(), secure, s.log, s.cfg.bodyTimeout)
	return nil
}

// headerTimeout is how long a request's headers may take.
const headerTimeout = 5 * time.Second

// newHTTP builds the HTTP server. The API bounds the time for a request's body
// by itself, since it has an answer for slow ones; body is the time for one that nobody
// reads, 0 the usual one, and below 0 without end.
func newHTTP(handler http.Handler, secure *tls.Config, log *slog.Logger, body time.Duration) *http.Server {
	return &http.Server{
		Handler:           boundBodies(limitHeaders(withSecurityHeaders(handler, secure != nil)), cmp.Or(body, unwantedBody)),
		TLSConfig:         secure,
		ReadHeaderTimeout: headerTimeout,
		WriteTimeout:      2 * time.Minute, // from the head of the request to the end of the answer
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeaderHTTP,
		// "OPTIONS *" is answered like everything else, not with an empty body.
		DisableGeneralOptionsHandler: true,
		// What clients do wrong on a connection, such as a failed handshake,
		// is theirs to see; here it would let anyone fill the log.
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
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
	group.Go(func() error { return s.run(running) })
	if s.callbacks != nil {
		group.Go(func() error { return s.serveUpstream(running) })
	}
	s.announce(ctx)
	err := group.Wait()
	return errors.Join(err, s.close())
}

func (s *Server) serveHTTP() error {
	limited := s.conns.limit(s.listener, "api", s.cfg.MaxConnections, s.log)
	var listener net.Listener = plainListener{limited}
	if s.http.TLSConfig != nil {
		listener = newSecureListener(limited, s.http.TLSConfig, s.log)
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
	listeners := []net.Listener{s.listener}
	if s.callbacks != nil {
		listeners = append(listeners, s.callbacks.listener)
	}
	for _, l := range listeners {
		if l == nil {
			continue
		}
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, s.core.close())...)
}

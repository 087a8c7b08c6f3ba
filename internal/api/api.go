// Package api serves the ThingSpace-compatible HTTP API: tokens, sessions,
// license assignment, pools, request status, callback listeners and device
// lists. What it answers is settled in docs/compatibility.md and described, for
// programs, in openapi.yaml.
//
// A request passes through the router (routes.go), which knows every path, and
// then through one adapter (adapter.go) that does what all endpoints share: who
// calls, how fast, the body, the answer, the count. What is left is one function
// per endpoint that takes wire types and returns wire types or an error; errors
// become answers in errors.go and nowhere else.
package api

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/tracing"
)

// Licenses accepts requests. Replay gives license.ErrNotFound for a key that was
// never used, license.ErrKeyReused for one used with another body.
type Licenses interface {
	Accept(ctx context.Context, p license.AcceptParams) (license.Accepted, error)
	Replay(ctx context.Context, account license.AccountName, application, operation, key, bodyHash string, now time.Time) (license.RequestID, error)
	Plan(ctx context.Context, r *license.Request) (license.Plan, error)
}

// Inventory tells what an account has and how its requests stand.
type Inventory interface {
	Pools(ctx context.Context, account license.AccountName) ([]license.Pool, error)
	Progress(ctx context.Context, account license.AccountName, id license.RequestID) (license.Progress, error)
	Devices(ctx context.Context, f license.DeviceFilter) ([]license.SIM, error)
}

// Listeners keeps the listeners of accounts.
type Listeners interface {
	PutListener(ctx context.Context, l license.Listener, now time.Time) error
	Listeners(ctx context.Context, account license.AccountName) ([]license.Listener, error)
	DeleteListener(ctx context.Context, account license.AccountName, service string) error
}

// Work takes the tasks of accepted requests over. Reserve sets room aside for at
// most n tasks; Give hands tasks over and frees the rest of that room; Wake says
// that other work is due in the store.
type Work interface {
	Reserve(account license.AccountName, n int) int
	Give(account license.AccountName, reserved int, tasks []license.Task)
	Wake()
}

// Config sets an API up. Auth, Licenses, Inventory, Listeners and Work are
// needed; the zero value of every other field works.
type Config struct {
	Auth      *auth.Authority
	Licenses  Licenses
	Inventory Inventory
	Listeners Listeners
	Work      Work
	// ListenersAs is Listeners, used by whoever changes something there, so that it
	// can be audited as their deed; nil: Listeners itself.
	ListenersAs func(license.Actor) Listeners

	Clock   license.Clock         // nil: the machine's
	Random  io.Reader             // nil: crypto/rand
	Logger  *slog.Logger          // nil: nothing is logged
	Metrics prometheus.Registerer // nil: nothing is counted
	Tracer  tracing.Tracer        // zero: traces nothing

	// MaxDevices is the most devices one request may name; 0: 10,000.
	MaxDevices int
	// Lease is how long tasks handed to Work stay its own; 0: 20 s.
	Lease time.Duration
	// Timeout bounds the work on one call, its body aside; 0: 30 s.
	Timeout time.Duration
	// BodyTimeout is how long a client may take to send its body; 0: 20 s.
	BodyTimeout time.Duration

	// RateLimit is how many calls a second each application may make on all
	// nodes together; 0: as many as it likes.
	RateLimit float64
	// AddressRateLimit is the same for each address that calls are from, before
	// anything of them is looked at; 0: no limit.
	AddressRateLimit float64
	// MaxCalls is how many calls are worked on at once, and MaxBodies how many
	// bytes of bodies they may hold; what is above is turned away with 503, and an
	// application that has half of either with 429. 0: 2,000 and 256 MiB.
	MaxCalls  int
	MaxBodies int64
	// Nodes counts the live nodes, among which the limits of rate are shared; nil: one.
	Nodes func() int

	// CheckURLHost refuses a listener's host and port; the error's text is shown to
	// the client, so it says what an operator could do about it. nil: any host.
	CheckURLHost func(ctx context.Context, host string, port uint16) error

	// CarrierName is the carrier that accounts and device lists name; empty:
	// "Verizon Wireless", which clients of the reference look for.
	CarrierName string
}

// API is the HTTP API. It is made by New and safe for concurrent use.
type API struct {
	cfg       Config
	metrics   metrics
	limits    *limits // of applications
	addresses *limits // of addresses
	admission *admission
	router    *router
}

// New makes an API. It fails when a needed part is missing or the metrics
// cannot be registered.
func New(cfg Config) (*API, error) {
	switch {
	case cfg.Auth == nil:
		return nil, errors.New("api: Config.Auth is missing")
	case cfg.Licenses == nil, cfg.Inventory == nil, cfg.Listeners == nil:
		return nil, errors.New("api: Config.Licenses, Inventory and Listeners are needed")
	case cfg.Work == nil:
		return nil, errors.New("api: Config.Work is missing")
	case cfg.RateLimit < 0 || cfg.AddressRateLimit < 0 || cfg.MaxDevices < 0 || cfg.MaxCalls < 0 || cfg.MaxBodies < 0:
		return nil, errors.New("api: limits cannot be negative")
	}
	a := &API{cfg: cfg.withDefaults()}
	a.limits = newLimits(a.cfg.RateLimit, a.cfg.Nodes)
	a.addresses = newLimits(a.cfg.AddressRateLimit, a.cfg.Nodes)
	a.admission = newAdmission(a.cfg.MaxCalls, a.cfg.MaxBodies)
	var err error
	if a.metrics, err = newMetrics(a.cfg.Metrics, a.admission); err != nil {
		return nil, err
	}
	if a.router, err = newRouter(a); err != nil {
		return nil, err
	}
	return a, nil
}

func (c Config) withDefaults() Config {
	if c.Clock == nil {
		c.Clock = license.SystemClock{}
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Nodes == nil {
		c.Nodes = func() int { return 1 }
	}
	if c.MaxDevices == 0 {
		c.MaxDevices = 10_000
	}
	if c.MaxCalls == 0 {
		c.MaxCalls = 2000
	}
	if c.MaxBodies == 0 {
		c.MaxBodies = 256 << 20
	}
	if c.Lease == 0 {
		c.Lease = 20 * time.Second
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	if c.BodyTimeout == 0 {
		c.BodyTimeout = 20 * time.Second
	}
	if c.CarrierName == "" {
		c.CarrierName = "Verizon Wireless"
	}
	return c
}

// Fail answers a call as the API does when something is wrong on its side: 429
// for too many calls and 503 for a store out of reach, either with Retry-After,
// and 500 for anything else. It is how a sandbox shows a client what it may meet.
func (a *API) Fail(w http.ResponseWriter, r *http.Request, status int, after time.Duration) {
	err := errors.New("a fault that the sandbox was told to show")
	switch status {
	case http.StatusTooManyRequests:
		err = errTooManyCalls(max(after, time.Second))
	case http.StatusServiceUnavailable:
		err = errUnavailable(after)
	}
	a.serve(w, r, familyOf(r.URL.Path), "fault", refuse(err))
}

// Handler serves the API under all its prefixes, and its description at
// /openapi.json, /openapi.yaml and /docs. Any other path is not found, in the
// API's own dialect.
//
// It must see paths as they were sent: an http.ServeMux in front of it would
// redirect those that are not clean.
func (a *API) Handler() http.Handler { return a.router }

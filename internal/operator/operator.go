// Package operator serves the operator API: everything that whoever runs the
// installation, or a program of theirs, may see and mend. docs/operator-api.md
// walks through it, and openapi.yaml describes it for programs.
//
// A call passes through the routes (routes.go), which say for each what role it
// needs, and one adapter (adapter.go) that does what all of them share: who calls,
// the body, the idempotency key, the answer. What is left is one function per
// route; errors become problems in problem.go and nowhere else. The types are
// those of package client, so that the two sides cannot drift.
package operator

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
)

// Operators knows operators by their tokens. It gives auth.ErrOperator for a
// token that is nobody's.
type Operators interface {
	Operator(ctx context.Context, token auth.Secret) (auth.Operator, error)
}

// Tester sends a listener a message that is about no device, once, and tells how
// it was answered.
type Tester interface {
	Test(ctx context.Context, l license.Listener) license.Delivery
}

// Config sets an API up. Operators, Store, Tester, Accept, Message, Clock and Random
// are needed.
type Config struct {
	Operators Operators
	Store     *store.Store
	Tester    Tester
	// Accept takes a request in and hands its work on, as the compatible API does.
	Accept func(ctx context.Context, p license.AcceptParams) (license.Accepted, error)
	// Message is the body of the message that tells a listener of a callback.
	Message func(l license.Listener, c license.Callback) []byte
	Clock   license.Clock
	Random  io.Reader
	Logger  *slog.Logger // nil: nothing is logged
	Version string       // of the server

	// MaxDevices is the most devices of a request; 0: 10,000.
	MaxDevices int

	// Wait counts a call from a remote address before anything of it is looked at, and
	// says how long to wait where there were too many; nil: there is no limit.
	Wait func(remote string, now time.Time) time.Duration
	// Timeout bounds the work on one call, its body aside; 0: 30 s.
	Timeout time.Duration
	// LongTimeout is Timeout of imports, of sending again and of verifying;
	// 0: 15 minutes.
	LongTimeout time.Duration
	// Poll is how often the store is looked at for events while somebody wants
	// them; 0: every 500 ms.
	Poll time.Duration
}

// API is the operator API. Its Run must be running for events to be seen.
type API struct {
	cfg    Config
	events *events
	mux    *http.ServeMux

	overviews overviews
}

// New makes an API.
func New(cfg Config) (*API, error) {
	if cfg.Operators == nil || cfg.Store == nil || cfg.Tester == nil || cfg.Accept == nil || cfg.Message == nil || cfg.Clock == nil || cfg.Random == nil {
		return nil, errors.New("operator: Config.Operators, Store, Tester, Accept, Message, Clock and Random are needed")
	}
	if cfg.MaxDevices == 0 {
		cfg.MaxDevices = 10_000
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.LongTimeout == 0 {
		cfg.LongTimeout = 15 * time.Minute
	}
	if cfg.Poll == 0 {
		cfg.Poll = 500 * time.Millisecond
	}
	a := &API{cfg: cfg, mux: http.NewServeMux()}
	a.events = newEvents(cfg)
	a.add(a.routes())
	return a, a.addDescription()
}

// Run looks for events, while somebody wants them, until ctx ends, and ends the
// streams then.
func (a *API) Run(ctx context.Context) error { return a.events.run(ctx) }

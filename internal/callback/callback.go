// Package callback tells listeners how the devices of a request ended: it takes
// due callbacks from the outbox, posts one message per device to the listener
// the account has registered, and writes down how each attempt ended.
//
// # How it works
//
// Each account has a lane: a queue, and as many workers as the listener gets
// concurrent posts. A worker lives as long as its lane has work. Lanes share
// nothing but the connection pool, so a listener that hangs holds up nobody
// else; one that keeps failing is left a single worker until it answers with a
// 2xx again. One goroutine claims callbacks for the lanes that have room, two
// write ended attempts down in batches.
//
// Callbacks come leased. One whose lease can no longer cover an attempt is let
// go unsent: it falls due again when its lease ends, and no attempt is counted.
// A sender that is told to end makes due at once what it has not sent. A crash
// costs nothing either, so each callback arrives at least once.
package callback

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/tracing"
)

// Outbox is where callbacks wait until they are delivered; the store.
type Outbox interface {
	DueAccounts(ctx context.Context, phase license.Phase, now time.Time) ([]license.Due, error)
	ClaimCallbacks(ctx context.Context, c license.ClaimParams) ([]license.Callback, error)
	FinishCallbacks(ctx context.Context, now time.Time, out []license.Delivery) error
	// GiveCallbacksBack makes leased callbacks due at now, and says how many.
	GiveCallbacksBack(ctx context.Context, now time.Time, callbacks []license.Callback) (int, error)
	// Listener gives license.ErrNotFound when none is registered.
	Listener(ctx context.Context, account license.AccountName, service string) (license.Listener, error)
	// ListenerChanges rises whenever this process changes a listener.
	ListenerChanges() uint64
}

// A Courier carries callbacks in the place of the network. It may do more or less
// than send req by next, once; req is its own. What it returns is judged like a
// listener's answer.
type Courier interface {
	Carry(c *license.Callback, req *http.Request, next http.RoundTripper) (*http.Response, error)
}

// Config says how callbacks are delivered. Outbox is required.
type Config struct {
	Outbox  Outbox
	Clock   license.Clock         // nil: the machine's
	Logger  *slog.Logger          // nil: nothing is logged
	Metrics prometheus.Registerer // nil: not exported
	Tracer  tracing.Tracer        // zero: traces nothing

	Attempts int           // how often a callback is tried in all; 0: 4
	Interval time.Duration // from the end of an attempt to the next; 0: 5 minutes
	Timeout  time.Duration // of one attempt; 0: 10 seconds

	PerListener int           // concurrent posts per listener; 0: 32
	Lease       time.Duration // of a claim, at least Timeout; 0: twice Timeout, at least 20 seconds
	Poll        time.Duration // how often to look for due callbacks unasked; 0: 250 ms
	Grace       time.Duration // what posts in flight get to end in at shutdown; 0: 10 seconds

	// Yield waits a moment where other accounts wait for something little; it is called
	// before a callback of an account with many. nil: does not.
	Yield func(ctx context.Context, account license.AccountName)

	Courier Courier       // nil: each callback is sent over the network, once
	Wall    license.Clock // what messages are stamped with, for receivers to judge by theirs; nil: Clock

	Guard     *Guard         // nil: public addresses only
	RootCAs   *x509.CertPool // who may certify listeners; nil: the system's
	UserAgent string         // "": Simlatch
}

// Sender delivers callbacks. Its Run must be running for anything to be sent.
type Sender struct {
	cfg       Config
	transport *http.Transport
	carry     func(c *license.Callback, req *http.Request) (*http.Response, error)
	metrics   *metrics
	wake      chan struct{} // holds at most one: look for due callbacks now
	pended    chan struct{} // holds at most one: there is something to write down
	filled    chan struct{} // holds at most one: there is a batch to write down
	kept      chan struct{} // holds at most one: all promises are kept, at the end

	mu      sync.Mutex // guards what follows, and the lanes' own fields
	lanes   map[license.AccountName]*lane
	held    int                  // of all lanes
	pending [][]license.Delivery // ended attempts that are not written down yet, in batches; only the last may be filled
	dues    dues
	staff   func(*lane) // starts a worker; nil while Run is not running
	told    time.Time   // when the log last spoke of a lack on this machine

	promised int                // reserved, and not given yet
	unsent   []license.Callback // left at the end, to be given back
}

// New makes a sender. It refuses a Config that cannot work.
func New(cfg Config) (*Sender, error) {
	if cfg.Outbox == nil {
		return nil, errors.New("callback: no outbox")
	}
	if cfg.Attempts < 0 || cfg.PerListener < 0 ||
		min(cfg.Interval, cfg.Timeout, cfg.Lease, cfg.Poll, cfg.Grace) < 0 {
		return nil, errors.New("callback: numbers and durations must not be negative")
	}
	cfg.Attempts = cmp.Or(cfg.Attempts, 4)
	cfg.Interval = cmp.Or(cfg.Interval, 5*time.Minute)
	cfg.Timeout = cmp.Or(cfg.Timeout, 10*time.Second)
	cfg.PerListener = cmp.Or(cfg.PerListener, 32)
	cfg.Lease = cmp.Or(cfg.Lease, max(20*time.Second, 2*cfg.Timeout))
	cfg.Poll = cmp.Or(cfg.Poll, 250*time.Millisecond)
	cfg.Grace = cmp.Or(cfg.Grace, 10*time.Second)
	cfg.UserAgent = cmp.Or(cfg.UserAgent, "Simlatch")
	if cfg.Lease < cfg.Timeout {
		return nil, fmt.Errorf("callback: a lease of %s cannot cover an attempt of %s", cfg.Lease, cfg.Timeout)
	}
	if cfg.Clock == nil {
		cfg.Clock = license.SystemClock{}
	}
	if cfg.Wall == nil {
		cfg.Wall = cfg.Clock
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Guard == nil {
		cfg.Guard = NewGuard(nil)
	}
	transport := newTransport(cfg)
	carry := func(_ *license.Callback, req *http.Request) (*http.Response, error) { return transport.RoundTrip(req) }
	if cfg.Courier != nil {
		carry = func(c *license.Callback, req *http.Request) (*http.Response, error) {
			return cfg.Courier.Carry(c, req, transport)
		}
	}
	s := &Sender{
		cfg:       cfg,
		transport: transport,
		carry:     carry,
		wake:      make(chan struct{}, 1),
		pended:    make(chan struct{}, 1),
		filled:    make(chan struct{}, 1),
		kept:      make(chan struct{}, 1),
		lanes:     make(map[license.AccountName]*lane),
	}
	var err error
	if s.metrics, err = newMetrics(cfg.Metrics, s.Held); err != nil {
		return nil, err
	}
	return s, nil
}

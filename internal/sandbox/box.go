// Package sandbox surrounds a whole service with what a tester needs: a clock
// that obeys, faults, a journal of every exchange, snapshots, and further services
// beside it. The service inside is the production code; what the sandbox does, it
// does from without, at the three places where the service meets the world: before
// the API (front.go), between it and its carrier (carrier.go), and between it and
// the listeners (courier.go).
//
// A Box is one such service. Package server makes it and is its Host; the API
// under /sandbox/v1 is here (http.go).
package sandbox

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// Named is a name with its password: a user, or an application's key and secret.
type Named struct {
	Name     string `json:"name"`
	Password string `json:"password"`
}

// Spec says how a Box begins.
type Spec struct {
	Name string `json:"name,omitempty"` // of a namespace; given when empty
	// Seed is the text of a seed file; empty is the sandbox's own.
	Seed string `json:"seed,omitempty"`
	// RandomSeed is what all randomness follows from: ids, tokens, dice.
	RandomSeed uint64 `json:"randomSeed,omitempty"`
	// Start is what the clock begins at; empty: now, in whole seconds.
	Start time.Time `json:"start,omitzero"`
	// Rate is how many times as fast as the machine's time the clock runs: 0
	// stands still. Absent is 1.
	Rate *float64 `json:"rate,omitempty"`
	// Lenient accepts any session token, or none, and any user name and password. Absent is
	// as the sandbox around a namespace is.
	Lenient *bool `json:"lenient,omitempty"`
	// TestToken is a bearer token that never expires; empty: none.
	TestToken string `json:"testToken,omitempty"`
	// Application and User are whom the test token and the lenient stand for:
	// the first of the seed.
	Application Named `json:"-"`
	User        Named `json:"-"`
}

// rate is the pace of the clock.
func (s *Spec) rate() float64 {
	if s.Rate == nil {
		return 1
	}
	return *s.Rate
}

func (s *Spec) lenient() bool { return s.Lenient != nil && *s.Lenient }

// Check says what is wrong with a Spec.
func (s *Spec) Check() error {
	return checkRate(s.rate())
}

func checkRate(rate float64) error {
	if !(rate >= 0 && rate <= MaxRate) {
		return errRate
	}
	return nil
}

var errRate = errors.New("a rate is from 0, which stands still, to 1000 times the machine's time")

// Host is what holds the service of a Box.
type Host interface {
	Machine
	// Fail answers a call as the API does in a plight: 429, 500 or 503.
	Fail(w http.ResponseWriter, r *http.Request, status int, after time.Duration)
	// Hasten makes due what is put off at the carrier for a SIM.
	Hasten(ctx context.Context, iccid license.ICCID) (bool, error)
	Verify(ctx context.Context) ([]license.Drift, error)
	// SetPolicy sets what an account may do; license.ErrNotFound without one.
	SetPolicy(ctx context.Context, p license.Policy) error
	// Plant adds the text of a seed file to what there is.
	Plant(ctx context.Context, seed string) error
	// Snapshot copies the database; Restore puts one in its place, Reset the
	// beginning. No work of before goes on after them.
	Snapshot(ctx context.Context) ([]byte, error)
	// Keep keeps a text with the database. Whenever the host opens a database that
	// has one, it calls Box.Resume with it before any work begins.
	Keep(ctx context.Context, state string) error
	Restore(ctx context.Context, database []byte) error
	Reset(ctx context.Context) error
	// Info tells how to use the service.
	Info(ctx context.Context) (Info, error)
}

// Namespaces makes and drops services beside one another; a Box that is one of
// them has none.
type Namespaces interface {
	Create(ctx context.Context, s Spec) (Info, error)
	Drop(ctx context.Context, name string) error
	List(ctx context.Context) ([]Info, error)
}

// ErrNoNamespace says that there is no namespace of that name.
var ErrNoNamespace = errors.New("there is no namespace of that name")

// Info is how to use a Box.
type Info struct {
	Name        string    `json:"name"`
	URL         string    `json:"url"`
	Sandbox     string    `json:"sandbox"` // the address of its sandbox API
	Application Named     `json:"application"`
	User        Named     `json:"user"`
	TestToken   string    `json:"testToken,omitempty"`
	Accounts    []Account `json:"accounts"`
	Inbox       string    `json:"inbox"` // the URL of a listener that is always there
}

// Account is an account with its pools and some of its SIMs.
type Account struct {
	Name    string           `json:"name"`
	Pools   map[string]int64 `json:"pools"` // available licenses by SKU
	Devices []Device         `json:"devices"`
}

// Device is a SIM that an account has.
type Device struct {
	ICCID      string `json:"iccid"`
	IMEI       string `json:"imei"`
	MDN        string `json:"mdn,omitempty"`
	State      string `json:"state"`
	Generation string `json:"generation"`
}

// Box is a service in a sandbox.
type Box struct {
	spec       Spec
	clock      *Clock
	fate       *Fate
	journal    *Journal
	late       *postponed
	access     *access
	host       Host
	namespaces Namespaces // nil in a namespace

	moving sync.Mutex // held while the clock is moved by hand, or the state replaced
}

// New makes a Box; Attach must follow before it is used.
func New(s Spec) (*Box, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	if s.Start.IsZero() {
		s.Start = time.Now().Truncate(time.Second)
	}
	b := &Box{
		spec: s, clock: NewClock(s.Start, s.rate()), fate: newFate(s.RandomSeed),
		journal: newJournal(), late: newPostponed(),
	}
	return b, nil
}

// Attach says who holds the service, and, in the first of a process, who makes
// others.
func (b *Box) Attach(h Host, n Namespaces) { b.host, b.namespaces = h, n }

// Stand says for whom the test token and the lenient stand.
func (b *Box) Stand(application, user Named) { b.spec.Application, b.spec.User = application, user }

// Spec is what the Box began with.
func (b *Box) Spec() Spec { return b.spec }

// Clock is the service's clock.
func (b *Box) Clock() *Clock { return b.clock }

// Random is a new source of what the service takes for randomness. It follows
// from the seed; with the seed zero it is nil, and the service takes its own.
func (b *Box) Random() io.Reader {
	if b.spec.RandomSeed == 0 {
		return nil
	}
	var key [32]byte
	for i := range 8 {
		key[i] = byte(b.spec.RandomSeed >> (8 * i)) //nolint:gosec // the low byte is what is meant
	}
	return &lockedReader{r: rand.NewChaCha8(key)}
}

// lockedReader is a source of randomness for many.
type lockedReader struct {
	mu sync.Mutex // guards r
	r  *rand.ChaCha8
}

// Read never fails.
func (l *lockedReader) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Read(p)
}

// Carrier is a carrier whose answers meet faults.
func (b *Box) Carrier(inner Provisioner) Provisioner { return fatedCarrier{b, inner} }

// Carry is callback.Courier: it carries callbacks through the faults they meet.
func (b *Box) Carry(c *license.Callback, req *http.Request, next http.RoundTripper) (*http.Response, error) {
	return courier{b}.Carry(c, req, next)
}

// Handler is the service's handler with the sandbox around it.
func (b *Box) Handler(next http.Handler) http.Handler {
	b.access = newAccess(b, next)
	around := front{b, next}
	control := b.control()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == prefix || len(r.URL.Path) > len(prefix) && r.URL.Path[:len(prefix)+1] == prefix+"/" {
			control.ServeHTTP(w, r)
			return
		}
		around.ServeHTTP(w, r)
	})
}

// Run does what is to be done later while the clock runs by itself, until ctx
// ends.
func (b *Box) Run(ctx context.Context) error {
	for {
		var due <-chan time.Time
		if next := b.late.next(); !next.IsZero() {
			due = b.clock.After(next.Sub(b.clock.Now()))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-due:
			b.late.send(ctx, b.clock.Now())
		case <-b.late.changed:
		}
	}
}

func (b *Box) steering() steering { return steering{b.clock, b.host, b.late} }

// orderTime is how long a call waits for the work of those before it, in real
// time. A listener that calls the API before it answers waits so long, and not for
// ever.
const orderTime = time.Second

// inOrder lets the work of earlier calls end first, where a sandbox is to repeat
// itself: its clock stands still, and its chance is from a seed.
func (b *Box) inOrder(ctx context.Context) {
	if b.spec.RandomSeed != 0 {
		b.finish(ctx)
	}
}

// finish lets work end, for a moment, if the clock stands still: then what is
// asked next finds all of it done.
func (b *Box) finish(ctx context.Context) {
	if b.clock.Rate() > 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, orderTime)
	defer cancel()
	_ = b.Settle(ctx) // whoever asks has an answer anyway
}

// Settle waits until nothing is being done and nothing is due.
func (b *Box) Settle(ctx context.Context) error { return b.steering().settle(ctx) }

// Advance moves the clock by d, through every moment at which something falls
// due.
func (b *Box) Advance(ctx context.Context, d time.Duration) (stops int, err error) {
	b.moving.Lock()
	defer b.moving.Unlock()
	return b.steering().to(ctx, b.clock.Now().Add(d))
}

// Next moves the clock to the next moment at which something falls due, and
// reports whether there was one.
func (b *Box) Next(ctx context.Context) (bool, error) {
	b.moving.Lock()
	defer b.moving.Unlock()
	return b.steering().step(ctx)
}

// renew forgets what belongs to the state that was replaced.
func (b *Box) renew() {
	b.late.clear()
	b.access.forget()
}

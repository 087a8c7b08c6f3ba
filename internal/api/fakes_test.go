package api

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
)

// records keeps credentials in memory.
type records struct {
	auth.OperatorRecords // none: this API has no operators

	mu       sync.Mutex
	apps     map[string]auth.Application
	users    map[string]auth.User
	sessions map[string]auth.Session
	failures map[[2]string]auth.Failures
	err      error // of every call when not nil
}

func newRecords() *records {
	return &records{
		apps: map[string]auth.Application{}, users: map[string]auth.User{},
		sessions: map[string]auth.Session{}, failures: map[[2]string]auth.Failures{},
	}
}

func look[K comparable, V any](r *records, m map[K]V, k K) (V, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok := m[k]
	if r.err != nil {
		return v, r.err
	}
	if !ok {
		return v, license.ErrNotFound
	}
	return v, nil
}

func put[K comparable, V any](r *records, m map[K]V, k K, v V) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	m[k] = v
	return r.err
}

func (r *records) Application(_ context.Context, key string) (auth.Application, error) {
	return look(r, r.apps, key)
}

func (r *records) OldSecret(context.Context, string) (auth.Application, error) {
	return auth.Application{}, license.ErrNotFound
}

func (r *records) ApplicationByToken(_ context.Context, hash string) (auth.Application, error) {
	r.mu.Lock()
	apps := slices.Collect(maps.Values(r.apps))
	err := r.err
	r.mu.Unlock()
	for _, a := range apps {
		if a.TokenHash == hash {
			return a, err
		}
	}
	return auth.Application{}, cmp.Or(err, license.ErrNotFound)
}

func (r *records) ReplaceToken(_ context.Context, a auth.Application, _ string) (bool, error) {
	return true, put(r, r.apps, a.Key, a)
}

func (r *records) User(_ context.Context, name string) (auth.User, error) {
	return look(r, r.users, name)
}

func (r *records) ReplacePassword(_ context.Context, name, _, hash string) (bool, error) {
	u, err := look(r, r.users, name)
	if err != nil {
		return false, err
	}
	u.PasswordHash = hash
	return true, put(r, r.users, name, u)
}

func (r *records) Session(_ context.Context, hash string) (auth.Session, error) {
	s, err := look(r, r.sessions, hash)
	if err != nil {
		return s, err
	}
	u, err := look(r, r.users, s.User)
	s.Accounts = u.Accounts
	return s, err
}

func (r *records) PutSession(_ context.Context, s auth.Session) error {
	return put(r, r.sessions, s.Hash, s)
}
func (r *records) TouchSession(context.Context, string, time.Time) error { return nil }

func (r *records) DeleteSession(_ context.Context, hash string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sessions, hash)
	return r.err
}

func (r *records) Failures(_ context.Context, name, address string) (auth.Failures, error) {
	return look(r, r.failures, [2]string{name, address})
}

func (r *records) AddFailure(_ context.Context, name, address string, now time.Time, delay func(int) time.Duration) error {
	f, _ := look(r, r.failures, [2]string{name, address})
	f.Count++
	f.Until = now.Add(delay(f.Count))
	return put(r, r.failures, [2]string{name, address}, f)
}

func (r *records) ClearFailures(_ context.Context, name, address string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.failures, [2]string{name, address})
	return r.err
}

// licenses answers as its functions say; the zero value accepts everything.
type licenses struct {
	mu       sync.Mutex
	accepted []license.AcceptParams
	accept   func(context.Context, license.AcceptParams) (license.Accepted, error)
	replay   func(key, hash string) (license.RequestID, error)
	plan     func(*license.Request) (license.Plan, error)
}

func (l *licenses) Accept(ctx context.Context, p license.AcceptParams) (license.Accepted, error) {
	l.mu.Lock()
	l.accepted = append(l.accepted, p)
	l.mu.Unlock()
	if l.accept != nil {
		return l.accept(ctx, p)
	}
	return license.Accepted{ID: p.Request.ID}, nil
}

func (l *licenses) Replay(_ context.Context, _ license.AccountName, _, operation, key, hash string, _ time.Time) (license.RequestID, error) {
	if l.replay != nil {
		return l.replay(operation+" "+key, hash)
	}
	return "", license.ErrNotFound
}

func (l *licenses) Plan(_ context.Context, r *license.Request) (license.Plan, error) {
	if l.plan != nil {
		return l.plan(r)
	}
	return license.Plan{Pool: license.Pool{Account: r.Account, SKU: r.SKU, Purchased: 10}, Devices: make([]error, len(r.Devices))}, nil
}

// inventory answers as its fields say.
type inventory struct {
	pools    []license.Pool
	progress map[license.RequestID]license.Progress
	sims     []license.SIM
	asked    license.DeviceFilter
}

func (i *inventory) Pools(context.Context, license.AccountName) ([]license.Pool, error) {
	return i.pools, nil
}

func (i *inventory) Progress(_ context.Context, a license.AccountName, id license.RequestID) (license.Progress, error) {
	p, ok := i.progress[id]
	if !ok || p.Account != a {
		return p, license.ErrNotFound
	}
	return p, nil
}

func (i *inventory) Devices(_ context.Context, f license.DeviceFilter) ([]license.SIM, error) {
	i.asked = f
	return i.sims[:min(len(i.sims), f.Limit)], nil
}

// listenerBook keeps listeners in memory.
type listenerBook struct {
	all []license.Listener
}

func (b *listenerBook) PutListener(_ context.Context, l license.Listener, _ time.Time) error {
	_ = b.DeleteListener(context.Background(), l.Account, l.Service)
	b.all = append(b.all, l)
	return nil
}

func (b *listenerBook) Listeners(_ context.Context, account license.AccountName) ([]license.Listener, error) {
	var mine []license.Listener
	for _, l := range b.all {
		if l.Account == account {
			mine = append(mine, l)
		}
	}
	return mine, nil
}

func (b *listenerBook) DeleteListener(_ context.Context, account license.AccountName, service string) error {
	before := len(b.all)
	b.all = slices.DeleteFunc(b.all, func(l license.Listener) bool { return l.Account == account && l.Service == service })
	if len(b.all) == before {
		return license.ErrNotFound
	}
	return nil
}

// work counts what it is given.
type work struct {
	mu       sync.Mutex
	room     int // per reservation
	reserved int // not given back
	tasks    []license.Task
	woken    int
}

func (w *work) Reserve(_ license.AccountName, n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n = min(n, w.room)
	w.reserved += n
	return n
}

func (w *work) Give(_ license.AccountName, reserved int, tasks []license.Task) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reserved -= reserved
	w.tasks = append(w.tasks, tasks...)
}

func (w *work) Wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.woken++
}

// clock stands still until it is turned.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) After(time.Duration) <-chan time.Time { panic("the API waits for nothing") }

func (c *clock) turn(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

package auth

import (
	"context"
	"crypto/rand"
	"sync"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// records is a Records in memory, as two nodes may share it.
type records struct {
	mu           sync.Mutex // guards what follows
	applications map[string]Application
	users        map[string]User
	sessions     map[string]Session
	failures     map[[2]string]Failures
	operators    map[string]OperatorRecord
	signedIn     map[string]OperatorSession
	old          map[string]Application
	touched      int
	lose         func() // runs once, before a token is replaced: another node is first
}

func newRecords() *records {
	return &records{
		applications: map[string]Application{"app": {Key: "app", SecretHash: HashSecret("secret")}, "other": {Key: "other", SecretHash: HashSecret("other secret")}},
		users:        map[string]User{"user": {Name: "user", PasswordHash: testHash, Accounts: []license.AccountName{"0000123456-00001"}}},
		sessions:     map[string]Session{},
		failures:     map[[2]string]Failures{},
		operators:    map[string]OperatorRecord{},
		signedIn:     map[string]OperatorSession{},
	}
}

// testHash is HashPassword("password"), which takes a while to make.
var testHash = HashPassword("password")

func (r *records) Application(_ context.Context, key string) (Application, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a, ok := r.applications[key]; ok {
		return a, nil
	}
	return Application{}, license.ErrNotFound
}

func (r *records) ApplicationByToken(_ context.Context, hash string) (Application, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, all := range []map[string]Application{r.applications, r.old} {
		for _, a := range all {
			if a.TokenHash == hash {
				return a, nil
			}
		}
	}
	return Application{}, license.ErrNotFound
}

func (r *records) OldSecret(_ context.Context, key string) (Application, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a, ok := r.old[key]; ok {
		return a, nil
	}
	return Application{}, license.ErrNotFound
}

func (r *records) ReplaceToken(_ context.Context, a Application, oldNonce string) (bool, error) {
	if lose := r.lose; lose != nil {
		r.lose = nil
		lose()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	in := r.applications
	if !a.Ends.IsZero() {
		in = r.old
	}
	stands := in[a.Key]
	if stands.Nonce != oldNonce || stands.SecretHash != a.SecretHash {
		return false, nil
	}
	stands.Nonce, stands.Issued, stands.TokenHash = a.Nonce, a.Issued, a.TokenHash
	in[a.Key] = stands
	return true, nil
}

// change changes a stored application.
func (r *records) change(key string, f func(*Application)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.applications[key]
	f(&a)
	r.applications[key] = a
}

func (r *records) User(_ context.Context, name string) (User, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if u, ok := r.users[name]; ok {
		return u, nil
	}
	return User{}, license.ErrNotFound
}

func (r *records) ReplacePassword(_ context.Context, name, oldHash, newHash string) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.users[name]
	if u.PasswordHash != oldHash {
		return false, nil
	}
	u.PasswordHash = newHash
	r.users[name] = u
	return true, nil
}

func (r *records) Session(_ context.Context, hash string) (Session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.sessions[hash]
	if !ok {
		return Session{}, license.ErrNotFound
	}
	s.Accounts = r.users[s.User].Accounts
	return s, nil
}

func (r *records) PutSession(_ context.Context, s Session) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions[s.Hash] = s
	return nil
}

func (r *records) TouchSession(_ context.Context, hash string, used time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, ok := r.sessions[hash]; ok && used.After(s.Used) {
		s.Used = used
		r.sessions[hash] = s
		r.touched++
	}
	return nil
}

func (r *records) DeleteSession(_ context.Context, hash string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sessions, hash)
	return nil
}

func (r *records) Failures(_ context.Context, name, address string) (Failures, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f, ok := r.failures[[2]string{name, address}]; ok {
		return f, nil
	}
	return Failures{}, license.ErrNotFound
}

func (r *records) AddFailure(_ context.Context, name, address string, now time.Time, delay func(int) time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.failures[[2]string{name, address}]
	f.Count++
	f.Until = now.Add(delay(f.Count))
	r.failures[[2]string{name, address}] = f
	return nil
}

func (r *records) ClearFailures(_ context.Context, name, address string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.failures, [2]string{name, address})
	return nil
}

func (r *records) Operator(_ context.Context, name string) (OperatorRecord, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o, ok := r.operators[name]; ok {
		return o, nil
	}
	return OperatorRecord{}, license.ErrNotFound
}

func (r *records) OperatorByToken(_ context.Context, hash string) (OperatorRecord, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range r.operators {
		if o.TokenHash == hash {
			return o, nil
		}
	}
	return OperatorRecord{}, license.ErrNotFound
}

func (r *records) TouchOperator(_ context.Context, name string, used time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.operators[name]
	o.Used = used
	r.operators[name] = o
	r.touched++
	return nil
}

func (r *records) OperatorSession(_ context.Context, hash string) (OperatorSession, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, ok := r.signedIn[hash]; ok {
		return s, nil
	}
	return OperatorSession{}, license.ErrNotFound
}

func (r *records) PutOperatorSession(_ context.Context, s OperatorSession) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.signedIn[s.Hash] = s
	return nil
}

func (r *records) TouchOperatorSession(_ context.Context, hash string, used time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.signedIn[hash]
	s.Used = used
	r.signedIn[hash] = s
	return nil
}

func (r *records) DeleteOperatorSession(_ context.Context, hash string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.signedIn, hash)
	return nil
}

// clock is a Clock that a test turns.
type clock struct {
	mu  sync.Mutex // guards what follows
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) After(time.Duration) <-chan time.Time { return nil } // nothing here waits by it

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// node is one Authority on records and a clock that others may share.
func node(t *testing.T, r *records, c *clock, change func(*Config)) *Authority {
	t.Helper()
	cfg := Config{Records: r, Clock: c, Random: rand.Reader}
	if change != nil {
		change(&cfg)
	}
	return New(cfg)
}

package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/simlatch/simlatch/internal/license"
)

// touchEvery bounds how often a session's last use is written down; other nodes
// allow for it.
const touchEvery = time.Minute

// uses remembers when this node last saw each session used.
type uses struct {
	mu    sync.Mutex
	last  map[string]time.Time // by session hash
	swept time.Time
}

func (u *uses) get(hash string) (time.Time, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	t, ok := u.last[hash]
	return t, ok
}

func (u *uses) set(hash string, t time.Time, idle time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last == nil {
		u.last = map[string]time.Time{}
	}
	u.last[hash] = t
	if t.Sub(u.swept) > touchEvery || t.Before(u.swept) {
		u.swept = t
		maps.DeleteFunc(u.last, func(_ string, used time.Time) bool { return t.Sub(used) > 2*idle })
	}
}

func (u *uses) forget(hash string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.last, hash)
}

// Login opens a session for a user, within an application, and returns its
// token, a random UUID. Other sessions of the user stay. from is the address of
// the caller, by which failures are counted.
//
// It fails with ErrPassword, or a *SlowedError of it, after the same work for
// an unknown name and a wrong password.
func (a *Authority) Login(ctx context.Context, application, name string, password Secret, from string) (Secret, error) {
	if _, err := a.checkPassword(ctx, name, password, from); err != nil {
		return "", err
	}
	id, err := uuid.NewRandomFromReader(a.cfg.Random)
	if err != nil {
		return "", fmt.Errorf("making a session token: %w", err)
	}
	token := Secret(id.String())
	now := a.cfg.Clock.Now()
	s := Session{Hash: HashSecret(token), Application: application, User: name, Used: now}
	if err := a.cfg.Records.PutSession(ctx, s); err != nil {
		return "", fmt.Errorf("storing a session: %w", err)
	}
	a.opened.forget()
	a.sessions.set(s.Hash, now, a.cfg.SessionIdle)
	return token, nil
}

// SessionIdle is how long a session lives unused.
func (a *Authority) SessionIdle() time.Duration { return a.cfg.SessionIdle }

// Session finds who a session token stands for, and counts as a use of it. It
// fails with ErrSession when the session is unknown, ended, idle for too long,
// or another application's.
func (a *Authority) Session(ctx context.Context, application string, token Secret) (Caller, error) {
	hash := HashSecret(Secret(strings.ToLower(string(token))))
	now := a.cfg.Clock.Now()
	s, changes, known := a.opened.get(hash, now)
	if !known {
		var err error
		s, err = a.cfg.Records.Session(ctx, hash)
		if errors.Is(err, license.ErrNotFound) {
			return Caller{}, ErrSession
		}
		if err != nil {
			return Caller{}, fmt.Errorf("reading a session: %w", err)
		}
		a.opened.set(hash, s, now, changes)
	}
	if s.Application != application || !now.Before(a.ends(s)) {
		return Caller{}, ErrSession
	}
	a.sessions.set(hash, now, a.cfg.SessionIdle)
	if now.Sub(s.Used) >= touchEvery {
		if err := a.cfg.Records.TouchSession(ctx, hash, now); err != nil {
			return Caller{}, fmt.Errorf("extending a session: %w", err)
		}
		s.Used = now
		a.opened.set(hash, s, now, changes)
	}
	return Caller{Application: application, User: s.User, Accounts: s.Accounts, Session: token}, nil
}

// ends is when a session ends unless it is used. The time written down may be
// up to touchEvery behind the last use, wherever that was; this node knows it
// to the letter only for uses of its own that no other node can have followed.
func (a *Authority) ends(s Session) time.Time {
	seen, ok := a.sessions.get(s.Hash)
	if ok && !a.cfg.SharedNodes {
		return seen.Add(a.cfg.SessionIdle)
	}
	written := s.Used.Add(a.cfg.SessionIdle + touchEvery)
	if end := seen.Add(a.cfg.SessionIdle); ok && end.After(written) {
		return end
	}
	return written
}

// Logout ends a caller's session.
func (a *Authority) Logout(ctx context.Context, c Caller) error {
	hash := HashSecret(Secret(strings.ToLower(string(c.Session))))
	err := a.cfg.Records.DeleteSession(ctx, hash)
	a.opened.forget()
	if err != nil {
		return fmt.Errorf("ending a session: %w", err)
	}
	a.sessions.forget(hash)
	return nil
}

// ResetPassword replaces the caller's password, given the old one, by a new one
// that it returns. It fails as Login does.
func (a *Authority) ResetPassword(ctx context.Context, c Caller, old Secret, from string) (Secret, error) {
	u, err := a.checkPassword(ctx, c.User, old, from)
	if err != nil {
		return "", err
	}
	password := Secret(rand.Text())
	hash, err := a.hash(ctx, password)
	if err != nil {
		return "", err
	}
	replaced, err := a.cfg.Records.ReplacePassword(ctx, c.User, u.PasswordHash, hash)
	if err != nil {
		return "", fmt.Errorf("storing a password: %w", err)
	}
	if !replaced {
		// By itself, where the answer to its first try was lost, or by someone
		// else meanwhile: then the old one no longer holds.
		u, err := a.cfg.Records.User(ctx, c.User)
		if err != nil && !errors.Is(err, license.ErrNotFound) {
			return "", fmt.Errorf("reading a user: %w", err)
		}
		if err != nil || !same(u.PasswordHash, hash) {
			return "", ErrPassword
		}
	}
	return password, nil
}

package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// How long an operator stays signed in to the console: unused, and in all.
const (
	consoleIdle = time.Hour
	consoleLife = 12 * time.Hour
)

// OperatorSession is an operator who is signed in to the console, as stored.
type OperatorSession struct {
	Hash     string // HashSecret of the session's token
	Operator string
	Opened   time.Time
	Used     time.Time // to the minute
}

// SignIn opens a session of the console for who has a name and a password, and
// returns its token, for a cookie. It fails as LoginOperator does.
func (a *Authority) SignIn(ctx context.Context, name string, password Secret, from string) (Secret, Operator, error) {
	o, err := a.LoginOperator(ctx, name, password, from)
	if err != nil {
		return "", Operator{}, err
	}
	token, now := Secret(rand.Text()+rand.Text()), a.cfg.Clock.Now()
	s := OperatorSession{Hash: HashSecret(token), Operator: name, Opened: now, Used: now}
	if err := a.cfg.Records.PutOperatorSession(ctx, s); err != nil {
		return "", Operator{}, fmt.Errorf("storing a session: %w", err)
	}
	return token, o, nil
}

// SignedIn finds whose session of the console a token stands for, and counts as a
// use of it. It fails with ErrSession when the session is unknown or over, or the
// operator gone or disabled. Nothing of it is remembered: what an operator may do
// changes at once.
func (a *Authority) SignedIn(ctx context.Context, token Secret) (Operator, error) {
	hash, now := HashSecret(token), a.cfg.Clock.Now()
	s, err := a.cfg.Records.OperatorSession(ctx, hash)
	var o OperatorRecord
	if err == nil {
		o, err = a.cfg.Records.Operator(ctx, s.Operator)
	}
	switch {
	case errors.Is(err, license.ErrNotFound):
		return Operator{}, ErrSession
	case err != nil:
		return Operator{}, fmt.Errorf("reading a session: %w", err)
	case o.Disabled, now.Sub(s.Opened) >= consoleLife, now.Sub(s.Used) >= consoleIdle:
		return Operator{}, ErrSession
	}
	if now.Sub(s.Used) >= touchEvery {
		if err := a.cfg.Records.TouchOperatorSession(ctx, hash, now); err != nil {
			return Operator{}, fmt.Errorf("extending a session: %w", err)
		}
	}
	return o.Operator, nil
}

// SignOut ends a session of the console, if there is one.
func (a *Authority) SignOut(ctx context.Context, token Secret) error {
	if err := a.cfg.Records.DeleteOperatorSession(ctx, HashSecret(token)); err != nil {
		return fmt.Errorf("ending a session: %w", err)
	}
	return nil
}

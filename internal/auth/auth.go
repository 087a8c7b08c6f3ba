// Package auth decides who calls: applications by a client key and secret that
// buy an OAuth2 bearer token, and users by name and password that open a
// session. A call to the API needs both. Beside them it knows the operators, who
// run the installation, by a token or, in the console, a name and password.
//
// Nothing that could be used as a secret is stored in the clear. An
// application's secret and the tokens are stored as SHA-256, since they are
// random; a person's password as argon2id. What must be sent out again, such as
// a listener's password, is sealed (Sealer).
package auth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// Errors of the Authority. All but ErrClient and ErrPassword leave open why.
var (
	ErrClient   = errors.New("unknown application or wrong secret")
	ErrBearer   = errors.New("the bearer token is unknown, expired or revoked")
	ErrSession  = errors.New("the session has expired")
	ErrPassword = errors.New("unknown user or wrong password")
)

// SlowedError refuses a try unchecked after too many failures from one address.
// Err is the error a checked try would have given.
type SlowedError struct {
	Err   error
	After time.Duration // when a try will be checked again
}

func (e *SlowedError) Error() string { return fmt.Sprintf("%v; too many tries", e.Err) }

func (e *SlowedError) Unwrap() error { return e.Err }

// Secret is a string that logs do not show.
type Secret string

// LogValue hides the secret from logs.
func (Secret) LogValue() slog.Value { return slog.StringValue("[redacted]") }

func (Secret) String() string { return "[redacted]" }

// GoString hides the secret from %#v.
func (Secret) GoString() string { return "[redacted]" }

// MarshalText hides the secret from JSON, which logs make of structs.
func (Secret) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// Caller is who calls: a user, through an application.
type Caller struct {
	Application string
	User        string
	Accounts    []license.AccountName // those the user may use
	Session     Secret
}

// Account finds the account a request names among those the caller may use,
// with or without its hyphens. The empty name is the only account of a caller
// who has just one.
//
// The error is license.ErrNotFound for an account that is unknown or not the
// caller's, and license.ErrMultiple or license.ErrNoAccounts for an empty name
// that leaves the choice open.
func (c Caller) Account(name string) (license.AccountName, error) {
	if name == "" {
		switch len(c.Accounts) {
		case 0:
			return "", license.ErrNoAccounts
		case 1:
			return c.Accounts[0], nil
		}
		return "", license.ErrMultiple
	}
	folded := license.AccountName(name).Folded()
	for _, a := range c.Accounts {
		if a.Folded() == folded {
			return a, nil
		}
	}
	return "", fmt.Errorf("account: %w", license.ErrNotFound)
}

// Application is an application's stored credential and its current token.
type Application struct {
	Key        string
	SecretHash string // HashSecret of the secret
	Disabled   bool
	Nonce      string    // the current token is made of the secret and this
	Issued     time.Time // when that token was first issued
	TokenHash  string    // HashSecret of that token
	// Ends is when this secret and its token end, which another has replaced; zero
	// of an application's own.
	Ends     time.Time
	OldUntil time.Time // until when the secret before this one is taken as well; zero where there is none
}

// MaxOverlap is the longest that the secret before an application's own may be
// taken as well.
const MaxOverlap = 30 * 24 * time.Hour

// left is how much longer the token may be used.
func (a *Application) left(now time.Time, life time.Duration) time.Duration {
	left := a.Issued.Add(life).Sub(now)
	if !a.Ends.IsZero() {
		left = min(left, a.Ends.Sub(now))
	}
	return left
}

// User is a user's stored credential.
type User struct {
	Name         string
	PasswordHash string
	Disabled     bool
	Accounts     []license.AccountName
}

// Session is a stored session.
type Session struct {
	Hash        string // HashSecret of the session token
	Application string
	User        string
	Used        time.Time             // the last use that was written down
	Accounts    []license.AccountName // of its user, when read
}

// Records is where credentials, sessions and failures are kept; the store.
// Reads of what does not exist give license.ErrNotFound.
type Records interface {
	Application(ctx context.Context, key string) (Application, error)
	// OldSecret is an application as it is for the secret that another has replaced.
	OldSecret(ctx context.Context, key string) (Application, error)
	// ApplicationByToken finds it by the token of either secret.
	ApplicationByToken(ctx context.Context, tokenHash string) (Application, error)
	// ReplaceToken stores a's nonce, issue time and token hash if its nonce
	// still is oldNonce and its secret the one a was read with, and reports
	// whether it was so.
	ReplaceToken(ctx context.Context, a Application, oldNonce string) (bool, error)

	User(ctx context.Context, name string) (User, error)
	// ReplacePassword reports whether the old hash still stood.
	ReplacePassword(ctx context.Context, name, oldHash, newHash string) (bool, error)

	Session(ctx context.Context, hash string) (Session, error)
	PutSession(ctx context.Context, s Session) error
	TouchSession(ctx context.Context, hash string, used time.Time) error
	DeleteSession(ctx context.Context, hash string) error

	Failures(ctx context.Context, name, address string) (Failures, error)
	// AddFailure counts one more and blocks tries until delay(count) from now.
	AddFailure(ctx context.Context, name, address string, now time.Time, delay func(count int) time.Duration) error
	ClearFailures(ctx context.Context, name, address string) error

	OperatorRecords
}

// Failures are the failed tries in a row of one name from one address.
type Failures struct {
	Count int
	Until time.Time // tries before this are refused unchecked
}

// Lock says what many failed tries of one name do.
type Lock string

// The ways to treat failed tries.
const (
	LockSlow      Lock = "slow"      // tries of the name from that address are delayed, more each time
	LockReference Lock = "reference" // five failures lock the name until an operator unlocks it
)

// Config sets an Authority up.
type Config struct {
	Records Records
	Clock   license.Clock
	Random  io.Reader
	// SharedNodes says that other nodes serve the same sessions, so that one
	// may have been used there within the last minute unknown to us.
	SharedNodes bool
	Lock        Lock          // zero: LockSlow
	TokenLife   time.Duration // zero: one hour
	SessionIdle time.Duration // zero: 20 minutes
}

// Authority issues and checks tokens and sessions.
type Authority struct {
	cfg       Config
	sessions  uses
	tokens    memory[Application]    // by token hash
	opened    memory[Session]        // by session hash
	operators memory[OperatorRecord] // by token hash
	hashing   chan struct{}          // bounds the memory and the processors that password checks take
	waiting   atomic.Int64           // for their turn to hash
	check     func(stored string, p Secret) bool
}

// New makes an Authority.
func New(cfg Config) *Authority {
	if cfg.Lock == "" {
		cfg.Lock = LockSlow
	}
	if cfg.TokenLife == 0 {
		cfg.TokenLife = time.Hour
	}
	if cfg.SessionIdle == 0 {
		cfg.SessionIdle = 20 * time.Minute
	}
	return &Authority{cfg: cfg, hashing: make(chan struct{}, maxHashing), check: CheckPassword}
}

// Token is a bearer token with the time it has left.
type Token struct {
	Value   Secret
	Expires time.Duration // never zero
}

// Issue gives the application its bearer token: the same one until an hour has
// passed since it was first issued (thingspace-api.md 4.1). The token is made
// of the secret just presented and a stored nonce, so every node gives the same
// and none stores it.
//
// It fails with ErrClient, or a *SlowedError of it.
func (a *Authority) Issue(ctx context.Context, key string, secret Secret, from string) (Token, error) {
	app, err := a.client(ctx, key, secret, from)
	if err != nil {
		return Token{}, err
	}
	for {
		now := a.cfg.Clock.Now()
		left := app.left(now, a.cfg.TokenLife)
		current := deriveToken(secret, app.Nonce)
		// The hash is another when the secret was rotated while a token was issued.
		if same(HashSecret(current), app.TokenHash) && left >= time.Second && left <= a.cfg.TokenLife {
			return Token{Value: current, Expires: left}, nil
		}
		old := app.Nonce
		app.Nonce, app.Issued = randomHex(a.cfg.Random, 16), now
		app.TokenHash = HashSecret(deriveToken(secret, app.Nonce))
		replaced, err := a.cfg.Records.ReplaceToken(ctx, app, old)
		a.tokens.forget()
		if err != nil {
			return Token{}, fmt.Errorf("storing a token: %w", err)
		}
		if replaced {
			return Token{Value: deriveToken(secret, app.Nonce), Expires: max(time.Second, app.left(now, a.cfg.TokenLife))}, nil
		}
		// Another node was first; its token is as good, unless it was for another secret.
		var known bool
		if app, known, err = a.application(ctx, key, secret); err != nil {
			return Token{}, err
		}
		if !known {
			return Token{}, ErrClient
		}
	}
}

// Revoke ends the application's token, if token is its current one; revoking
// any other changes nothing (RFC 7009, 2.2). It fails as Issue does.
func (a *Authority) Revoke(ctx context.Context, key string, secret Secret, token Secret, from string) error {
	app, err := a.client(ctx, key, secret, from)
	if err != nil {
		return err
	}
	if !same(HashSecret(token), app.TokenHash) {
		return nil
	}
	old := app.Nonce
	app.Nonce, app.Issued, app.TokenHash = "", time.Time{}, ""
	_, err = a.cfg.Records.ReplaceToken(ctx, app, old)
	a.tokens.forget()
	if err != nil {
		return fmt.Errorf("revoking a token: %w", err)
	}
	return nil
}

// client checks an application's key and secret.
func (a *Authority) client(ctx context.Context, key string, secret Secret, from string) (Application, error) {
	name := "application:" + key
	if err := a.slowed(ctx, name, from, ErrClient); err != nil {
		return Application{}, err
	}
	app, known, err := a.application(ctx, key, secret)
	if err != nil {
		return Application{}, err
	}
	if !known || app.Disabled {
		return Application{}, a.failed(ctx, name, from, ErrClient)
	}
	return app, a.succeeded(ctx, name, from)
}

// application reads the application as it is for a secret: its own, or the one
// before it while that is taken. known is false for any other, and for a key that
// nobody has, which takes the same time.
func (a *Authority) application(ctx context.Context, key string, secret Secret) (app Application, known bool, err error) {
	hash := HashSecret(secret)
	for _, read := range []func(context.Context, string) (Application, error){a.cfg.Records.Application, a.cfg.Records.OldSecret} {
		app, err = read(ctx, key)
		if err != nil && !errors.Is(err, license.ErrNotFound) {
			return app, false, fmt.Errorf("reading an application: %w", err)
		}
		if same(hash, app.SecretHash) && err == nil && (app.Ends.IsZero() || a.cfg.Clock.Now().Before(app.Ends)) {
			return app, true, nil
		}
	}
	return app, false, nil
}

// Bearer finds the application a bearer token belongs to. It fails with
// ErrBearer.
func (a *Authority) Bearer(ctx context.Context, token Secret) (application string, err error) {
	hash, now := HashSecret(token), a.cfg.Clock.Now()
	app, changes, known := a.tokens.get(hash, now)
	if !known {
		app, err = a.cfg.Records.ApplicationByToken(ctx, hash)
		switch {
		case errors.Is(err, license.ErrNotFound):
			return "", ErrBearer
		case err != nil:
			return "", fmt.Errorf("looking a token up: %w", err)
		}
		a.tokens.set(hash, app, now, changes)
	}
	if app.Disabled || app.left(now, a.cfg.TokenLife) <= 0 {
		return "", ErrBearer
	}
	return app.Key, nil
}

// HashSecret is the form in which a random secret is stored and looked up.
func HashSecret(s Secret) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func deriveToken(secret Secret, nonce string) Secret {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(nonce))
	return Secret(base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func randomHex(r io.Reader, n int) string {
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		panic("reading randomness: " + err.Error()) // crypto/rand never fails
	}
	return hex.EncodeToString(b)
}

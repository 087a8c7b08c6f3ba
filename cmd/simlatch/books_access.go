package main

import (
	"context"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
)

// accessBooks is the part of books about who may call, and who is called.
type accessBooks interface {
	Applications(ctx context.Context) ([]auth.Application, error)
	NewApplication(ctx context.Context, key string, secret auth.Secret) error
	// NewSecret says until when the old secret is taken as well; zero: it is not.
	NewSecret(ctx context.Context, key string, secret auth.Secret, overlap time.Duration) (until time.Time, err error)
	EndOldSecret(ctx context.Context, key string) error
	UnlockApplication(ctx context.Context, key string) error

	Users(ctx context.Context) ([]auth.User, error)
	NewUser(ctx context.Context, name string, password auth.Secret, accounts []license.AccountName) error
	NewPassword(ctx context.Context, name string, password auth.Secret) error
	GrantAccounts(ctx context.Context, name string, accounts []license.AccountName) error
	UnlockUser(ctx context.Context, name string) error

	Listeners(ctx context.Context, account license.AccountName) ([]license.Listener, error)
	Tune(ctx context.Context, account license.AccountName, service string, t tuning) error
}

// tuning changes those settings of a listener that are not nil.
type tuning struct {
	attempts          *int
	interval, timeout *time.Duration
	signingSecret     *string
}

// NewApplication implements books.
func (d database) NewApplication(ctx context.Context, key string, secret auth.Secret) error {
	return d.AddApplication(ctx, key, auth.HashSecret(secret), time.Now())
}

// NewSecret implements books.
func (d database) NewSecret(ctx context.Context, key string, secret auth.Secret, overlap time.Duration) (until time.Time, err error) {
	if overlap > 0 {
		until = time.Now().Add(overlap)
	}
	return until, d.RotateApplication(ctx, key, auth.HashSecret(secret), until)
}

// UnlockApplication implements books.
func (d database) UnlockApplication(ctx context.Context, key string) error {
	if _, err := d.Application(ctx, key); err != nil {
		return err
	}
	return d.Store.UnlockApplication(ctx, key)
}

// NewUser implements books.
func (d database) NewUser(ctx context.Context, name string, password auth.Secret, accounts []license.AccountName) error {
	return d.AddUser(ctx, auth.User{Name: name, PasswordHash: auth.HashPassword(password), Accounts: accounts}, time.Now())
}

// NewPassword implements books.
func (d database) NewPassword(ctx context.Context, name string, password auth.Secret) error {
	return d.SetPassword(ctx, name, auth.HashPassword(password))
}

// UnlockUser implements books.
func (d database) UnlockUser(ctx context.Context, name string) error {
	if _, err := d.User(ctx, name); err != nil {
		return err
	}
	return d.Unlock(ctx, name)
}

// Tune implements books.
func (d database) Tune(ctx context.Context, account license.AccountName, service string, t tuning) error {
	_, err := d.ChangeListener(ctx, account, service, func(l license.Listener) (license.Listener, error) {
		if t.attempts != nil {
			l.Attempts = *t.attempts
		}
		if t.interval != nil {
			l.Interval = *t.interval
		}
		if t.timeout != nil {
			l.Timeout = *t.timeout
		}
		if t.signingSecret != nil {
			l.SigningSecret = *t.signingSecret
		}
		return l, nil
	})
	return err
}

// Applications implements books.
func (r remote) Applications(ctx context.Context) ([]auth.Application, error) {
	return all(r.c.Applications(ctx), func(a client.Application) auth.Application {
		return auth.Application{Key: a.Key, Disabled: a.Disabled, Issued: a.TokenIssued, OldUntil: a.OldSecretUntil}
	})
}

// NewApplication implements books.
func (r remote) NewApplication(ctx context.Context, key string, secret auth.Secret) error {
	return meant(r.c.AddApplication(ctx, client.NewApplication{Key: key, Secret: string(secret)}))
}

// NewSecret implements books.
func (r remote) NewSecret(ctx context.Context, key string, secret auth.Secret, overlap time.Duration) (time.Time, error) {
	in := client.Rotation{Secret: string(secret)}
	if overlap > 0 {
		in.Overlap = overlap.String()
	}
	did, err := r.c.RotateApplication(ctx, key, in)
	return did.OldSecretUntil, meant(err)
}

// EndOldSecret implements books.
func (r remote) EndOldSecret(ctx context.Context, key string) error {
	return meant(r.c.EndOldSecret(ctx, key))
}

// UnlockApplication implements books.
func (r remote) UnlockApplication(ctx context.Context, key string) error {
	return meant(r.c.UnlockApplication(ctx, key))
}

// Users implements books.
func (r remote) Users(ctx context.Context) ([]auth.User, error) {
	return all(r.c.Users(ctx), func(u client.User) auth.User {
		user := auth.User{Name: u.Name, Disabled: u.Disabled}
		for _, account := range u.Accounts {
			user.Accounts = append(user.Accounts, license.AccountName(account))
		}
		return user
	})
}

// NewUser implements books.
func (r remote) NewUser(ctx context.Context, name string, password auth.Secret, accounts []license.AccountName) error {
	return meant(r.c.AddUser(ctx, client.NewUser{Name: name, Password: string(password), Accounts: accountStrings(accounts)}))
}

// NewPassword implements books.
func (r remote) NewPassword(ctx context.Context, name string, password auth.Secret) error {
	return meant(r.c.RotateUser(ctx, name, string(password)))
}

// GrantAccounts implements books.
func (r remote) GrantAccounts(ctx context.Context, name string, accounts []license.AccountName) error {
	names := accountStrings(accounts)
	return meant(r.c.ChangeUser(ctx, name, client.UserChange{Accounts: &names}))
}

// UnlockUser implements books.
func (r remote) UnlockUser(ctx context.Context, name string) error {
	return meant(r.c.UnlockUser(ctx, name))
}

// Listeners implements books. Of a signing secret they say only that there is
// one.
func (r remote) Listeners(ctx context.Context, account license.AccountName) ([]license.Listener, error) {
	return all(r.c.Listeners(ctx, string(account)), func(l client.Listener) license.Listener {
		out := license.Listener{
			Account: license.AccountName(l.Account), Service: l.Service, URL: l.URL, Username: l.Username, Attempts: l.Attempts,
		}
		out.Interval, _ = time.ParseDuration(l.Interval) // empty is 0
		out.Timeout, _ = time.ParseDuration(l.Timeout)
		if l.Signed {
			out.SigningSecret = "********"
		}
		return out
	})
}

// Tune implements books.
func (r remote) Tune(ctx context.Context, account license.AccountName, service string, t tuning) error {
	change := client.ListenerChange{Attempts: t.attempts, SigningSecret: t.signingSecret}
	for _, d := range []struct {
		from *time.Duration
		to   **string
	}{{t.interval, &change.Interval}, {t.timeout, &change.Timeout}} {
		if d.from != nil {
			text := d.from.String()
			*d.to = &text
		}
	}
	return meant(r.c.ChangeListener(ctx, string(account), service, change))
}

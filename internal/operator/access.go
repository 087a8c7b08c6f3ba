package operator

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
)

func (a *API) self(_ context.Context, c *call) (client.Self, error) {
	return client.Self{Name: c.operator.Name, Role: string(c.operator.Role)}, nil
}

func (a *API) listAccounts(ctx context.Context, c *call) (page client.Page[client.Account], err error) {
	q := c.query()
	var at place
	q.cursor(&at)
	if q.err != nil {
		return page, q.err
	}
	list, err := c.store().AccountsAfter(ctx, at.Account, q.limit+1)
	accounts := make([]client.Account, len(list))
	for i, account := range list {
		accounts[i] = client.Account{Name: string(account.Name), Created: account.Created}
	}
	return cut(accounts, q.limit, func(a client.Account) any { return place{Account: license.AccountName(a.Name)} }), err
}

func (a *API) getAccount(ctx context.Context, c *call) (client.Account, error) {
	name, err := license.ParseAccountName(c.r.PathValue("account"))
	if err != nil {
		return client.Account{}, err
	}
	account, err := c.store().Account(ctx, name)
	return client.Account{Name: string(account.Name), Created: account.Created}, err
}

func (a *API) addAccount(ctx context.Context, c *call, in client.NewAccount) (out client.Account, err error) {
	name, err := license.ParseAccountName(in.Name)
	if err != nil {
		return out, err
	}
	now := a.cfg.Clock.Now()
	if err := c.store().AddAccount(ctx, name, now); err != nil {
		return out, err
	}
	c.created("/accounts/", string(name))
	return client.Account{Name: string(name), Created: now.UTC()}, nil
}

// created makes the answer 201, with the place of what was made.
func (c *call) created(parts ...string) {
	c.status, c.location = http.StatusCreated, client.Prefix
	for i, part := range parts {
		if i%2 == 1 {
			part = url.PathEscape(part)
		}
		c.location += part
	}
}

func applicationOf(a auth.Application) client.Application {
	return client.Application{Key: a.Key, Disabled: a.Disabled, TokenIssued: a.Issued, OldSecretUntil: a.OldUntil}
}

func applicationTag(a auth.Application) string { return tag(a.Key, a.Disabled) }

func (a *API) listApplications(ctx context.Context, c *call) (page client.Page[client.Application], err error) {
	q := c.query()
	var after string
	q.cursor(&after)
	if q.err != nil {
		return page, q.err
	}
	list, err := c.store().ApplicationsAfter(ctx, after, q.limit+1)
	applications := make([]client.Application, len(list))
	for i, app := range list {
		applications[i] = applicationOf(app)
	}
	return cut(applications, q.limit, func(a client.Application) any { return a.Key }), err
}

func (a *API) getApplication(ctx context.Context, c *call) (client.Application, error) {
	app, err := c.store().Application(ctx, c.r.PathValue("key"))
	c.etag = applicationTag(app)
	return applicationOf(app), err
}

func (a *API) addApplication(ctx context.Context, c *call, in client.NewApplication) (out client.ApplicationSecret, err error) {
	out.Key = in.Key
	if out.Key == "" {
		out.Key = uuid.NewString()
	}
	if strings.Contains(out.Key, ":") {
		return out, problemf(errInvalid, "the key has a colon, which separates the key from the secret when they are sent")
	}
	if err := checkName("key", out.Key); err != nil {
		return out, err
	}
	secret, err := a.secret(in.Secret, &out.Secret)
	if err != nil {
		return out, err
	}
	c.created("/applications/", out.Key)
	return out, c.store().AddApplication(ctx, out.Key, auth.HashSecret(secret), a.cfg.Clock.Now())
}

// minSecret is the shortest secret that is taken: it is stored under a fast hash,
// which only a random secret can bear.
const minSecret = 16

// secret is the secret that was given, or a new one, which is then shown.
func (a *API) secret(given string, shown *string) (auth.Secret, error) {
	if given == "" {
		*shown = uuid.NewString()
		return auth.Secret(*shown), nil
	}
	if len(given) < minSecret {
		return "", problemf(errInvalid, "the secret has %d characters; it needs at least %d, and should be random", len(given), minSecret)
	}
	return auth.Secret(given), nil
}

// checkName refuses names that could not be told apart from others, or not be
// sent.
func checkName(what, name string) error {
	switch {
	case name == "" || len(name) > 128:
		return problemf(errInvalid, "the %s must have 1 to 128 characters", what)
	case strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return problemf(errInvalid, "the %s %q has a space or control character", what, name)
	}
	return nil
}

func (a *API) changeApplication(ctx context.Context, c *call, in client.ApplicationChange) (client.Application, error) {
	app, err := c.store().ChangeApplication(ctx, c.r.PathValue("key"), func(app auth.Application) (auth.Application, error) {
		if err := c.match(applicationTag(app)); err != nil {
			return app, err
		}
		if in.Disabled != nil {
			app.Disabled = *in.Disabled
		}
		return app, nil
	})
	c.etag = applicationTag(app)
	return applicationOf(app), err
}

func (a *API) rotateApplication(ctx context.Context, c *call, in client.Rotation) (out client.ApplicationSecret, err error) {
	out.Key = c.r.PathValue("key")
	if in.Overlap != "" {
		overlap, err := time.ParseDuration(in.Overlap)
		if err != nil || overlap < 0 || overlap > auth.MaxOverlap {
			return out, problemf(errInvalid, "the overlap %q is no duration from 0 to %s, such as 24h", in.Overlap, auth.MaxOverlap)
		}
		if overlap > 0 {
			out.OldSecretUntil = a.cfg.Clock.Now().Add(overlap).UTC()
		}
	}
	secret, err := a.secret(in.Secret, &out.Secret)
	if err != nil {
		return out, err
	}
	return out, c.store().RotateApplication(ctx, out.Key, auth.HashSecret(secret), out.OldSecretUntil)
}

func (a *API) endOldSecret(ctx context.Context, c *call) (out none, err error) {
	return out, c.store().EndOldSecret(ctx, c.r.PathValue("key"))
}

func (a *API) unlockApplication(ctx context.Context, c *call) (out none, err error) {
	app, err := c.store().Application(ctx, c.r.PathValue("key"))
	if err != nil {
		return out, err
	}
	return out, c.store().UnlockApplication(ctx, app.Key)
}

func userOf(u auth.User) client.User {
	out := client.User{Name: u.Name, Disabled: u.Disabled, Accounts: []string{}}
	for _, account := range u.Accounts {
		out.Accounts = append(out.Accounts, string(account))
	}
	return out
}

func userTag(u auth.User) string { return tag(u.Name, u.Disabled, u.Accounts) }

func (a *API) listUsers(ctx context.Context, c *call) (page client.Page[client.User], err error) {
	q := c.query()
	var after string
	q.cursor(&after)
	if q.err != nil {
		return page, q.err
	}
	list, err := c.store().UsersAfter(ctx, after, q.limit+1)
	users := make([]client.User, len(list))
	for i, u := range list {
		users[i] = userOf(u)
	}
	return cut(users, q.limit, func(u client.User) any { return u.Name }), err
}

func (a *API) getUser(ctx context.Context, c *call) (client.User, error) {
	u, err := c.store().User(ctx, c.r.PathValue("name"))
	c.etag = userTag(u)
	return userOf(u), err
}

func (a *API) addUser(ctx context.Context, c *call, in client.NewUser) (out client.UserPassword, err error) {
	if err := checkName("name", in.Name); err != nil {
		return out, err
	}
	accounts, err := a.findAccounts(ctx, in.Accounts)
	if err != nil {
		return out, err
	}
	out.Name = in.Name
	password, err := a.password(in.Password, &out.Password)
	if err != nil {
		return out, err
	}
	c.created("/users/", in.Name)
	u := auth.User{Name: in.Name, PasswordHash: auth.HashPassword(password), Accounts: accounts}
	return out, c.store().AddUser(ctx, u, a.cfg.Clock.Now())
}

// minPassword is the shortest password that is taken.
const minPassword = 8

// password is the password that was given, or a new one, which is then shown.
func (a *API) password(given string, shown *string) (auth.Secret, error) {
	if given == "" {
		*shown = uuid.NewString()
		return auth.Secret(*shown), nil
	}
	if len(given) < minPassword {
		return "", problemf(errInvalid, "the password has %d characters; it needs at least %d", len(given), minPassword)
	}
	return auth.Secret(given), nil
}

// findAccounts finds accounts by their names; one that is none makes the call
// invalid.
func (a *API) findAccounts(ctx context.Context, names []string) ([]license.AccountName, error) {
	accounts := []license.AccountName{}
	for _, name := range names {
		account, err := a.findAccount(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("account %.40q: %w", name, err)
		}
		accounts = append(accounts, account)
	}
	return accounts, nil
}

func (a *API) changeUser(ctx context.Context, c *call, in client.UserChange) (out client.User, err error) {
	var accounts []license.AccountName
	if in.Accounts != nil {
		if accounts, err = a.findAccounts(ctx, *in.Accounts); err != nil {
			return out, err
		}
	}
	u, err := c.store().ChangeUser(ctx, c.r.PathValue("name"), func(u auth.User) (auth.User, error) {
		if err := c.match(userTag(u)); err != nil {
			return u, err
		}
		if in.Disabled != nil {
			u.Disabled = *in.Disabled
		}
		if in.Accounts != nil {
			u.Accounts = accounts
		}
		return u, nil
	})
	if err == nil { // as it is read: the accounts in their order
		u, err = c.store().User(ctx, u.Name)
	}
	c.etag = userTag(u)
	return userOf(u), err
}

func (a *API) rotateUser(ctx context.Context, c *call, in client.NewSecret) (out client.UserPassword, err error) {
	out.Name = c.r.PathValue("name")
	password, err := a.password(in.Secret, &out.Password)
	if err != nil {
		return out, err
	}
	return out, c.store().SetPassword(ctx, out.Name, auth.HashPassword(password))
}

func (a *API) unlockUser(ctx context.Context, c *call) (out none, err error) {
	u, err := c.store().User(ctx, c.r.PathValue("name"))
	if err != nil {
		return out, err
	}
	return out, c.store().Unlock(ctx, u.Name)
}

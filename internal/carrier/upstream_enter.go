package carrier

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// ready sees to it that the upstream can be asked for an account: our listener
// is registered, lest the outcomes be lost, and the credentials are not known to
// be refused.
func (u *Upstream) ready(ctx context.Context, account license.AccountName) error {
	if done, err := u.entered(account); done || err != nil {
		return err
	}
	select {
	case u.entering <- struct{}{}:
		defer func() { <-u.entering }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if done, err := u.entered(account); done || err != nil {
		return err
	}
	u.mu.Lock()
	refused := u.refusals > 0
	u.mu.Unlock()
	if refused { // the client asks again only when it is told to
		err := u.client.Login(ctx)
		if u.credentials(err); err != nil {
			return fmt.Errorf("entering the upstream again: %w", err)
		}
		u.mu.Lock()
		u.refusals, u.barred = 0, time.Time{}
		u.mu.Unlock()
	}
	return u.register(ctx, account)
}

// entered reports whether an account can be asked for, or why not.
func (u *Upstream) entered(account license.AccountName) (bool, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.cfg.Clock.Now().Before(u.barred) {
		return false, fmt.Errorf("the upstream refuses our credentials; they are tried again at %s", u.barred.UTC().Format(time.RFC3339))
	}
	return u.registered[account] && u.refusals == 0, nil
}

// register registers our listener for an account, in the place of the one there
// is. It is done at each start: nobody can tell whether the credentials there are
// ours.
func (u *Upstream) register(ctx context.Context, account license.AccountName) error {
	l := m2m.ListenerRequest{
		Name: m2m.CarrierService, URL: strings.TrimSuffix(u.cfg.CallbackURL, "/") + "/" + url.PathEscape(string(account)),
		Username: callbackUser, Password: u.password(account),
	}
	if err := u.pace(ctx); err != nil {
		return fmt.Errorf("registering our listener for account %s upstream: %w", account, err)
	}
	theirs := u.theirs(account)
	_, err := u.client.RegisterListener(ctx, theirs, l)
	var e *m2m.Error
	if errors.As(err, &e) && e.Status == http.StatusBadRequest && e.Code != "" && !errors.Is(e, m2m.ErrAccountNotFound) {
		// Where one that is there is not replaced, it must go first; callbacks in
		// between are lost, and asked for.
		if _, gone := u.client.DeregisterListener(ctx, theirs, m2m.CarrierService); gone == nil {
			_, err = u.client.RegisterListener(ctx, theirs, l)
		}
	}
	if u.credentials(err); err != nil {
		return fmt.Errorf("registering our listener for account %s upstream: %w", account, err)
	}
	u.mu.Lock()
	u.registered[account] = true
	u.mu.Unlock()
	u.cfg.Logger.InfoContext(ctx, "registered our listener upstream", "account", account)
	return nil
}

// callbackUser is the user name in the upstream's callbacks.
const callbackUser = "simlatch"

// password is what callbacks about an account must carry: the same on all nodes
// and after every start, and no other account's.
func (u *Upstream) password(account license.AccountName) string {
	mac := hmac.New(sha256.New, []byte(u.cfg.Secret))
	mac.Write([]byte("simlatch callbacks " + string(account)))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))[:32] // the reference takes 40
}

// maxBarred is the longest wait before refused credentials are tried again.
const maxBarred = time.Hour

// credentials notes what the end of a call says about our credentials. Where they
// are refused, nothing is sent for a while, each time longer: repeated failures
// get a user locked out.
func (u *Upstream) credentials(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var e *m2m.Error
	switch {
	case err == nil:
		u.refusals = 0
	case u.client.Refused() != nil, // by whatever words: the client asks no more
		errors.As(err, &e) && (e.Status == http.StatusUnauthorized || errors.Is(e, m2m.ErrInvalidClient) || errors.Is(e, m2m.ErrAuthentication)):
		wait := min(u.cfg.Barred<<min(u.refusals, 10), max(maxBarred, u.cfg.Barred))
		u.refusals++
		u.barred = u.cfg.Clock.Now().Add(wait)
		u.cfg.Logger.Error("the upstream refuses our credentials", "error", err, "again", u.barred)
	}
	barred := 0.0
	if u.refusals > 0 {
		barred = 1
	}
	u.metrics.barred.Set(barred)
}

// barredUntil is when credentials that were refused are tried again; it is long
// ago when they were not.
func (u *Upstream) barredUntil() time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.barred
}

// enter registers our listener for accounts, until that is done or ctx ends.
func (u *Upstream) enter(ctx context.Context, accounts []license.AccountName) {
	for attempt := 0; len(accounts) > 0; attempt++ {
		var left []license.AccountName
		for _, a := range accounts {
			call, cancel := context.WithTimeout(ctx, 3*u.cfg.Timeout)
			if err := u.ready(call, a); err != nil {
				left = append(left, a)
				if ctx.Err() == nil {
					u.cfg.Logger.WarnContext(ctx, "entering the upstream", "error", err, "account", a)
				}
			}
			cancel()
		}
		if accounts = left; len(accounts) == 0 {
			return
		}
		select {
		case <-u.cfg.Clock.After(license.Backoff(attempt)):
		case <-ctx.Done():
			return
		}
	}
}

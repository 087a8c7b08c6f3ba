package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
)

var _ auth.Records = (*Store)(nil)

// The kinds of credential.
const (
	kindApplication = "application"
	kindUser        = "user"
)

const selectApplication = `SELECT name, hash, disabled, nonce, issued, token,
		COALESCE((SELECT o.ends FROM old_secret o WHERE o.application = credential.name), 0)
	FROM credential
	WHERE kind = 'application' AND name = $1`

// Application reads an application by its key.
func (s *Store) Application(ctx context.Context, key string) (auth.Application, error) {
	a, err := first(s.reader(ctx), scanApplication, selectApplication, key)
	return a, s.failed("reading an application", err)
}

const selectByToken = `SELECT name, hash, disabled, nonce, issued, token,
		COALESCE((SELECT o.ends FROM old_secret o WHERE o.application = credential.name), 0)
	FROM credential
	WHERE token = $1 AND token <> '' AND kind = 'application'`

// ApplicationByToken reads the application whose token has a hash, be it bought
// with its secret or its old one.
func (s *Store) ApplicationByToken(ctx context.Context, tokenHash string) (auth.Application, error) {
	a, err := first(s.reader(ctx), scanApplication, selectByToken, tokenHash)
	if errors.Is(err, license.ErrNotFound) {
		a, err = first(s.reader(ctx), scanOldSecret, selectOldByToken, tokenHash)
	}
	return a, s.failed("reading an application", err)
}

const selectApplications = `SELECT name, hash, disabled, nonce, issued, token,
		COALESCE((SELECT o.ends FROM old_secret o WHERE o.application = credential.name), 0)
	FROM credential
	WHERE kind = 'application' ORDER BY name`

// Applications lists all applications.
func (s *Store) Applications(ctx context.Context) ([]auth.Application, error) {
	list, err := collect(s.reader(ctx), scanApplication, selectApplications)
	return list, s.failed("listing applications", err)
}

func scanApplication(scan func(...any) error) (a auth.Application, err error) {
	var disabled, issued, old int64
	err = scan(&a.Key, &a.SecretHash, &disabled, &a.Nonce, &issued, &a.TokenHash, &old)
	a.Disabled, a.Issued, a.OldUntil = disabled != 0, fromMicros(issued), fromMicros(old)
	return a, err
}

const replaceToken = `UPDATE credential SET nonce = $2, issued = $3, token = $4
	WHERE kind = 'application' AND name = $1 AND nonce = $5 AND hash = $6`

// ReplaceToken implements auth.Records.
func (s *Store) ReplaceToken(ctx context.Context, a auth.Application, oldNonce string) (bool, error) {
	text := replaceToken
	if !a.Ends.IsZero() {
		text = replaceOldToken
	}
	return s.changeCredential(ctx, "storing a token", text, a.Key, a.Nonce, micros(a.Issued), a.TokenHash, oldNonce, a.SecretHash)
}

const replacePassword = `UPDATE credential SET hash = $2 WHERE kind = 'user' AND name = $1 AND hash = $3`

// ReplacePassword implements auth.Records.
func (s *Store) ReplacePassword(ctx context.Context, name, oldHash, newHash string) (bool, error) {
	self := s.As(license.Actor{Name: name, Via: license.ViaAPI})
	return self.changeAudited(ctx, "storing a password", self.entry("user.password", "", name), replacePassword, name, newHash, oldHash)
}

// changeCredential runs a conditional update and reports whether its condition
// held. Repeated after an unknown outcome it may say that it did not, though it
// was itself that changed it; callers then read what stands.
func (s *Store) changeCredential(ctx context.Context, doing, text string, args ...any) (changed bool, err error) {
	err = s.write(ctx, "", 1, func(tx *tx) error {
		n, err := tx.exec(text, args...)
		changed = n > 0
		return err
	})
	return changed, s.failed(doing, err)
}

// changeAudited is changeCredential with an entry of the audit beside what was
// changed.
func (s *Store) changeAudited(ctx context.Context, doing string, e entry, text string, args ...any) (changed bool, err error) {
	err = s.write(ctx, "", 1, func(tx *tx) error {
		n, err := tx.exec(text, args...)
		if changed = n > 0; err == nil && changed {
			err = tx.record(e, nil, nil)
		}
		return err
	})
	return changed, s.failed(doing, err)
}

const insertCredential = `INSERT INTO credential (kind, name, hash, created) VALUES ($1, $2, $3, $4)
	ON CONFLICT (kind, name) DO NOTHING`

// AddApplication adds an application. It fails with license.ErrExists.
func (s *Store) AddApplication(ctx context.Context, key, secretHash string, now time.Time) error {
	e := s.entry("application.add", "", key)
	err := s.write(ctx, "", 1, func(tx *tx) error {
		n, err := tx.exec(insertCredential, kindApplication, key, secretHash, micros(now))
		if err == nil && n == 0 {
			err = fmt.Errorf("application %s: %w", key, license.ErrExists)
		}
		if err == nil {
			err = tx.record(e, nil, nil)
		}
		return err
	})
	return s.failed("adding an application", err)
}

const (
	selectUser = `SELECT name, hash, disabled FROM credential WHERE kind = 'user' AND name = $1`
	selectAll  = `SELECT name, hash, disabled FROM credential WHERE kind = 'user' ORDER BY name`
	userAccess = `SELECT account FROM access WHERE username = $1 ORDER BY account`
)

// User reads a user with the accounts it may use.
func (s *Store) User(ctx context.Context, name string) (auth.User, error) {
	u, err := first(s.reader(ctx), scanUser, selectUser, name)
	if err == nil {
		u.Accounts, err = collect(s.reader(ctx), one[license.AccountName], userAccess, name)
	}
	return u, s.failed("reading a user", err)
}

// Users lists all users.
func (s *Store) Users(ctx context.Context) ([]auth.User, error) {
	list, err := collect(s.reader(ctx), scanUser, selectAll)
	for i := range list {
		if err == nil {
			list[i].Accounts, err = collect(s.reader(ctx), one[license.AccountName], userAccess, list[i].Name)
		}
	}
	return list, s.failed("listing users", err)
}

func scanUser(scan func(...any) error) (u auth.User, err error) {
	var disabled int64
	err = scan(&u.Name, &u.PasswordHash, &disabled)
	u.Disabled = disabled != 0
	return u, err
}

// AddUser adds a user. It fails with license.ErrExists, or license.ErrNotFound
// for an account that is unknown.
func (s *Store) AddUser(ctx context.Context, u auth.User, now time.Time) error {
	e := s.entry("user.add", "", u.Name)
	err := s.write(ctx, "", 1, func(tx *tx) error {
		n, err := tx.exec(insertCredential, kindUser, u.Name, u.PasswordHash, micros(now))
		if err == nil && n == 0 {
			err = fmt.Errorf("user %s: %w", u.Name, license.ErrExists)
		}
		if err != nil {
			return err
		}
		if err := grant(tx, u.Name, u.Accounts); err != nil {
			return err
		}
		return tx.record(e, nil, facts{"accounts": u.Accounts})
	})
	return s.failed("adding a user", err)
}

const (
	revokeAccess = `DELETE FROM access WHERE username = $1`
	insertAccess = `INSERT INTO access (username, account) VALUES ($1, $2) ON CONFLICT (username, account) DO NOTHING`
)

func grant(tx *tx, name string, accounts []license.AccountName) error {
	if _, err := tx.exec(revokeAccess, name); err != nil {
		return err
	}
	for _, account := range accounts {
		if err := needAccount(tx, account); err != nil {
			return err
		}
		if _, err := tx.exec(insertAccess, name, string(account)); err != nil {
			return err
		}
	}
	return nil
}

// lockUser has grants to one user wait for each other: what one adds, another
// that began before would not see, and so not remove.
const lockUser = `UPDATE credential SET hash = hash WHERE kind = 'user' AND name = $1`

// GrantAccounts makes accounts the ones a user may use, and no others. It fails
// with license.ErrNotFound.
func (s *Store) GrantAccounts(ctx context.Context, name string, accounts []license.AccountName) error {
	e := s.entry("user.grant", "", name)
	err := s.write(ctx, "", 1, func(tx *tx) error {
		n, err := tx.exec(lockUser, name)
		if err == nil && n == 0 {
			err = fmt.Errorf("user %s: %w", name, license.ErrNotFound)
		}
		if err != nil {
			return err
		}
		before, err := collect(tx, one[license.AccountName], userAccess, name)
		if err == nil {
			err = grant(tx, name, accounts)
		}
		if err != nil {
			return err
		}
		return tx.record(e, facts{"accounts": before}, facts{"accounts": accounts})
	})
	return s.failed("granting accounts", err)
}

const (
	setPassword = `UPDATE credential SET hash = $2 WHERE kind = 'user' AND name = $1`
	unlock      = `DELETE FROM lockout WHERE name = $1`
)

// SetPassword gives a user another password and forgets failed logins. It fails
// with license.ErrNotFound.
func (s *Store) SetPassword(ctx context.Context, name, hash string) error {
	e := s.entry("user.password", "", name)
	err := s.write(ctx, "", 1, func(tx *tx) error {
		n, err := tx.exec(setPassword, name, hash)
		if err == nil && n == 0 {
			err = fmt.Errorf("user %s: %w", name, license.ErrNotFound)
		}
		if err == nil {
			_, err = tx.exec(unlock, lockName("user:"+name))
		}
		if err == nil {
			err = tx.record(e, nil, nil)
		}
		return err
	})
	return s.failed("setting a password", err)
}

// Unlock forgets the failed logins of a user.
func (s *Store) Unlock(ctx context.Context, name string) error {
	_, err := s.changeAudited(ctx, "unlocking a user", s.entry("user.unlock", "", name), unlock, lockName("user:"+name))
	return err
}

// UnlockApplication forgets the failed tries of an application's key.
func (s *Store) UnlockApplication(ctx context.Context, key string) error {
	_, err := s.changeAudited(ctx, "unlocking an application", s.entry("application.unlock", "", key), unlock, lockName("application:"+key))
	return err
}

// lockName is a name as failures are counted under it: of bounded length,
// whatever was sent as a name.
func lockName(name string) string {
	if len(name) > 100 {
		return "hash:" + auth.HashSecret(auth.Secret(name))
	}
	return name
}

const selectFailures = `SELECT failures, until FROM lockout WHERE name = $1 AND address = $2`

func scanFailures(scan func(...any) error) (f auth.Failures, err error) {
	var until int64
	err = scan(&f.Count, &until)
	f.Until = fromMicros(until)
	return f, err
}

// Failures implements auth.Records.
func (s *Store) Failures(ctx context.Context, name, address string) (auth.Failures, error) {
	f, err := first(s.reader(ctx), scanFailures, selectFailures, lockName(name), address)
	return f, s.failed("reading failed logins", err)
}

const (
	addFailure = `INSERT INTO lockout (name, address, failures, until, last) VALUES ($1, $2, 1, 0, $3)
		ON CONFLICT (name, address) DO UPDATE SET failures = lockout.failures + 1, last = excluded.last
		RETURNING failures`
	blockTries    = `UPDATE lockout SET until = $3 WHERE name = $1 AND address = $2`
	clearFailures = `DELETE FROM lockout WHERE name = $1 AND address = $2`
)

// AddFailure implements auth.Records.
func (s *Store) AddFailure(ctx context.Context, name, address string, now time.Time, delay func(count int) time.Duration) error {
	name = lockName(name)
	err := s.write(ctx, "", 1, func(tx *tx) error {
		count, err := first(tx, one[int], addFailure, name, address, micros(now))
		if err != nil {
			return err
		}
		if d := delay(count); d > 0 {
			_, err = tx.exec(blockTries, name, address, micros(now.Add(d)))
		}
		return err
	})
	return s.failed("counting a failed login", err)
}

// ClearFailures implements auth.Records.
func (s *Store) ClearFailures(ctx context.Context, name, address string) error {
	_, err := s.changeCredential(ctx, "forgetting failed logins", clearFailures, lockName(name), address)
	return err
}

const selectSession = `SELECT hash, application, username, used FROM session WHERE hash = $1`

// Session implements auth.Records. The session of a user who is disabled does
// not exist.
func (s *Store) Session(ctx context.Context, hash string) (auth.Session, error) {
	ses, err := first(s.reader(ctx), func(scan func(...any) error) (ses auth.Session, err error) {
		var used int64
		err = scan(&ses.Hash, &ses.Application, &ses.User, &used)
		ses.Used = fromMicros(used)
		return ses, err
	}, selectSession, hash)
	if err != nil {
		return ses, s.failed("reading a session", err)
	}
	u, err := s.User(ctx, ses.User)
	if err == nil && u.Disabled {
		err = license.ErrNotFound
	}
	ses.Accounts = u.Accounts
	return ses, err
}

const (
	insertSession = `INSERT INTO session (hash, application, username, used) VALUES ($1, $2, $3, $4)
		ON CONFLICT (hash) DO UPDATE SET used = excluded.used`
	touchSession  = `UPDATE session SET used = $2 WHERE hash = $1 AND used < $2`
	deleteSession = `DELETE FROM session WHERE hash = $1`
)

// PutSession implements auth.Records.
func (s *Store) PutSession(ctx context.Context, ses auth.Session) error {
	_, err := s.changeCredential(ctx, "storing a session", insertSession, ses.Hash, ses.Application, ses.User, micros(ses.Used))
	return err
}

// TouchSession implements auth.Records.
func (s *Store) TouchSession(ctx context.Context, hash string, used time.Time) error {
	_, err := s.changeCredential(ctx, "extending a session", touchSession, hash, micros(used))
	return err
}

// DeleteSession implements auth.Records.
func (s *Store) DeleteSession(ctx context.Context, hash string) error {
	_, err := s.changeCredential(ctx, "ending a session", deleteSession, hash)
	if errors.Is(err, license.ErrNotFound) {
		return nil
	}
	return err
}

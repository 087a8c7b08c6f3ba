package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
)

// This file changes what an operator may change, each by a function that gets
// what is stored, locked, and returns what is to be stored: a condition that it
// checks still holds when the change is written. The function may be called
// again, and its error ends the change with nothing written.

const (
	lockApplication = `UPDATE credential SET hash = hash WHERE kind = 'application' AND name = $1`
	setApplication  = `UPDATE credential SET hash = $2, disabled = $3 WHERE kind = 'application' AND name = $1`
	endToken        = `UPDATE credential SET nonce = '', issued = 0, token = '' WHERE kind = 'application' AND name = $1`
)

// ChangeApplication changes an application's secret and whether it is disabled;
// with another secret its token ends. It fails with license.ErrNotFound.
func (s *Store) ChangeApplication(ctx context.Context, key string, change func(auth.Application) (auth.Application, error)) (after auth.Application, err error) {
	e := s.entry("application.change", "", key)
	err = s.write(ctx, "", 1, func(tx *tx) error {
		n, err := tx.exec(lockApplication, key)
		if err == nil && n == 0 {
			err = fmt.Errorf("application %s: %w", key, license.ErrNotFound)
		}
		if err != nil {
			return err
		}
		before, err := first(tx, scanApplication, selectApplication, key)
		if err == nil {
			after, err = change(before)
		}
		if err == nil {
			_, err = tx.exec(setApplication, key, after.SecretHash, bit(after.Disabled))
		}
		if err == nil && after.SecretHash != before.SecretHash {
			_, err = tx.exec(endToken, key)
		}
		if err == nil {
			err = tx.record(e, facts{"disabled": before.Disabled},
				facts{"disabled": after.Disabled, "rotated": after.SecretHash != before.SecretHash})
		}
		return err
	})
	return after, s.failed("changing an application", err)
}

// bit is a truth as the database keeps it.
func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

const setUser = `UPDATE credential SET hash = $2, disabled = $3 WHERE kind = 'user' AND name = $1`

// ChangeUser changes a user's password, accounts and whether it is disabled;
// with another password its failed logins are forgotten. It fails with
// license.ErrNotFound for the user, and for an account that is unknown.
func (s *Store) ChangeUser(ctx context.Context, name string, change func(auth.User) (auth.User, error)) (after auth.User, err error) {
	e := s.entry("user.change", "", name)
	err = s.write(ctx, "", 1, func(tx *tx) error {
		before, err := lockedUser(tx, name)
		if err == nil {
			after, err = change(before)
		}
		if err == nil {
			_, err = tx.exec(setUser, name, after.PasswordHash, bit(after.Disabled))
		}
		if err == nil && !slices.Equal(before.Accounts, after.Accounts) {
			err = grant(tx, name, after.Accounts)
		}
		if err == nil && after.PasswordHash != before.PasswordHash {
			_, err = tx.exec(unlock, lockName("user:"+name))
		}
		if err == nil {
			err = tx.record(e, facts{"disabled": before.Disabled, "accounts": before.Accounts},
				facts{"disabled": after.Disabled, "accounts": after.Accounts, "password": after.PasswordHash != before.PasswordHash})
		}
		return err
	})
	return after, s.failed("changing a user", err)
}

func lockedUser(tx *tx, name string) (u auth.User, err error) {
	n, err := tx.exec(lockUser, name)
	if err == nil && n == 0 {
		err = fmt.Errorf("user %s: %w", name, license.ErrNotFound)
	}
	if err == nil {
		u, err = first(tx, scanUser, selectUser, name)
	}
	if err == nil {
		u.Accounts, err = collect(tx, one[license.AccountName], userAccess, name)
	}
	return u, err
}

const lockListener = `UPDATE listener SET changed = changed WHERE account = $1 AND service = $2`

// ChangeListener changes what TuneListener sets. It fails with
// license.ErrNotFound.
func (s *Store) ChangeListener(ctx context.Context, account license.AccountName, service string, change func(license.Listener) (license.Listener, error)) (after license.Listener, err error) {
	e := s.entry("listener.tune", account, service)
	err = s.write(ctx, account, 1, func(tx *tx) error {
		if _, err := s.sealing(tx); err != nil {
			return err
		}
		before, err := s.lockedListener(tx, account, service)
		if err == nil {
			after, err = change(before)
		}
		if err != nil {
			return err
		}
		told, err := listenerFacts(tx, account, service)
		if err != nil {
			return err
		}
		secret, err := s.seal(tx, after.SigningSecret, place(account, service, "secret"))
		if err == nil {
			_, err = tx.exec(tuneListener, string(account), service, after.Attempts,
				after.Interval.Microseconds(), after.Timeout.Microseconds(), secret)
		}
		if err != nil {
			return err
		}
		return recordListener(tx, e, told)
	})
	s.listeners.Add(1)
	return after, s.failed("tuning a listener", err)
}

// RemoveListener deregisters a listener that check does not object to. It fails
// with license.ErrNotFound.
func (s *Store) RemoveListener(ctx context.Context, account license.AccountName, service string, check func(license.Listener) error) error {
	e := s.entry("listener.deregister", account, service)
	err := s.write(ctx, account, 1, func(tx *tx) error {
		before, err := s.lockedListener(tx, account, service)
		if err == nil {
			err = check(before)
		}
		if err != nil {
			return err
		}
		told, err := listenerFacts(tx, account, service)
		if err == nil {
			_, err = tx.exec(deleteListener, string(account), service)
		}
		if err != nil {
			return err
		}
		return tx.record(e, told, nil)
	})
	s.listeners.Add(1)
	return s.failed("deregistering a listener", err)
}

func (s *Store) lockedListener(tx *tx, account license.AccountName, service string) (license.Listener, error) {
	n, err := tx.exec(lockListener, string(account), service)
	if err == nil && n == 0 {
		err = fmt.Errorf("listener %s of account %s: %w", service, account, license.ErrNotFound)
	}
	if err != nil {
		return license.Listener{}, err
	}
	return first(tx, s.scanListener(account), selectListener, string(account), service)
}

const lockSIM = `UPDATE sim SET state = state WHERE account = $1 AND iccid {any $2}`

// ChangeSIM changes a SIM's state; its license stays as it is. It fails with
// license.ErrNotFound.
func (s *Store) ChangeSIM(ctx context.Context, account license.AccountName, iccid license.ICCID, change func(license.SIM) (license.SIM, error)) (after license.SIM, err error) {
	key := only([]license.ICCID{iccid})
	e := s.entry("sim.state", account, "")
	err = s.write(ctx, account, 1, func(tx *tx) error {
		n, err := tx.exec(lockSIM, string(account), key)
		if err == nil && n == 0 {
			err = fmt.Errorf("SIM %s of account %s: %w", iccid, account, license.ErrNotFound)
		}
		if err != nil {
			return err
		}
		before, err := first(tx, scanSIM, selectSIMsByICCID, string(account), key)
		if err == nil {
			after, err = change(before)
		}
		if err == nil && after.State != before.State {
			_, err = count(tx, setState, string(account), string(after.State), key)
		}
		if err == nil {
			err = recordStates(tx, e, map[license.State][]license.ICCID{before.State: {iccid}}, after.State)
		}
		return err
	})
	return after, s.failed("changing a SIM", err)
}

package store

import (
	"context"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

const putListener = `INSERT INTO listener (account, service, url, username, password, changed)
	VALUES ($1, $2, $3, $4, $5, $6)
	ON CONFLICT (account, service) DO UPDATE SET url = excluded.url, username = excluded.username,
		password = excluded.password, changed = excluded.changed`

// PutListener registers a listener, in place of the account's former one for
// the service, whose tuning (TuneListener) it keeps. None of the account's
// callbacks is lost by it.
func (s *Store) PutListener(ctx context.Context, l license.Listener, now time.Time) error {
	e := s.entry("listener.register", l.Account, l.Service)
	err := s.write(ctx, l.Account, 1, func(tx *tx) error {
		password, err := s.seal(tx, l.Password, place(l.Account, l.Service, "password"))
		if err != nil {
			return err
		}
		before, err := listenerFacts(tx, l.Account, l.Service)
		if err != nil {
			return err
		}
		if _, err := tx.exec(putListener, string(l.Account), l.Service, l.URL, l.Username, password, micros(now)); err != nil {
			return err
		}
		return recordListener(tx, e, before)
	})
	s.listeners.Add(1)
	return s.failed("registering a listener", err)
}

const tuneListener = `UPDATE listener SET attempts = $3, wait = $4, timeout = $5, secret = $6
	WHERE account = $1 AND service = $2`

// TuneListener sets what an operator decides for a listener: the number of
// attempts, their interval and timeout, and the signing secret. It fails with
// license.ErrNotFound.
func (s *Store) TuneListener(ctx context.Context, l license.Listener) error {
	e := s.entry("listener.tune", l.Account, l.Service)
	err := s.write(ctx, l.Account, 1, func(tx *tx) error {
		secret, err := s.seal(tx, l.SigningSecret, place(l.Account, l.Service, "secret"))
		if err != nil {
			return err
		}
		before, err := listenerFacts(tx, l.Account, l.Service)
		if err != nil {
			return err
		}
		n, err := tx.exec(tuneListener, string(l.Account), l.Service, l.Attempts,
			l.Interval.Microseconds(), l.Timeout.Microseconds(), secret)
		if err == nil && n == 0 {
			err = license.ErrNotFound
		}
		if err != nil {
			return err
		}
		return recordListener(tx, e, before)
	})
	s.listeners.Add(1)
	return s.failed("tuning a listener", err)
}

const deleteListener = `DELETE FROM listener WHERE account = $1 AND service = $2`

// DeleteListener deregisters a listener. It fails with license.ErrNotFound.
func (s *Store) DeleteListener(ctx context.Context, account license.AccountName, service string) error {
	e := s.entry("listener.deregister", account, service)
	err := s.write(ctx, account, 1, func(tx *tx) error {
		before, err := listenerFacts(tx, account, service)
		if err != nil {
			return err
		}
		n, err := tx.exec(deleteListener, string(account), service)
		if err == nil && n == 0 {
			err = license.ErrNotFound
		}
		if err != nil {
			return err
		}
		return tx.record(e, before, nil)
	})
	s.listeners.Add(1)
	return s.failed("deregistering a listener", err)
}

const selectListeners = `SELECT service, url, username, password, secret, attempts, wait, timeout
	FROM listener WHERE account = $1 ORDER BY service`

// Listeners lists an account's listeners.
func (s *Store) Listeners(ctx context.Context, account license.AccountName) ([]license.Listener, error) {
	list, err := collect(s.reader(ctx), s.scanListener(account), selectListeners, string(account))
	return list, s.failed("listing listeners", err)
}

const selectListener = `SELECT service, url, username, password, secret, attempts, wait, timeout
	FROM listener WHERE account = $1 AND service = $2`

// Listener reads the listener an account has for a service. It fails with
// license.ErrNotFound.
func (s *Store) Listener(ctx context.Context, account license.AccountName, service string) (license.Listener, error) {
	l, err := first(s.reader(ctx), s.scanListener(account), selectListener, string(account), service)
	return l, s.failed("reading a listener", err)
}

// listenerFacts is what the audit says of a listener; nil where there is none.
// Its secrets are only said to be there, and so is the query of its URL, which may
// hold one.
func listenerFacts(tx *tx, account license.AccountName, service string) (facts, error) {
	list, err := collect(tx, func(scan func(...any) error) (facts, error) {
		var name, url, username, password, secret string
		var attempts, wait, timeout int64
		err := scan(&name, &url, &username, &password, &secret, &attempts, &wait, &timeout)
		shown, query, hasQuery := strings.Cut(url, "?")
		f := facts{"url": shown, "username": username, "password": password != "", "signed": secret != ""}
		if hasQuery && query != "" {
			f["query"] = true
		}
		for name, value := range map[string]int64{"attempts": attempts, "intervalMicros": wait, "timeoutMicros": timeout} {
			if value != 0 {
				f[name] = value
			}
		}
		return f, err
	}, selectListener, string(account), service)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[0], nil
}

// recordListener has a change of a listener audited, which is as it is now.
func recordListener(tx *tx, e entry, before facts) error {
	after, err := listenerFacts(tx, e.Account, e.Target)
	if err != nil {
		return err
	}
	return tx.record(e, before, after)
}

// ListenerChanges rises whenever a listener is changed through this store, so
// that a cache of listeners in this process can be exact.
func (s *Store) ListenerChanges() uint64 { return s.listeners.Load() }

func (s *Store) scanListener(account license.AccountName) func(func(...any) error) (license.Listener, error) {
	return func(scan func(...any) error) (license.Listener, error) {
		l := license.Listener{Account: account}
		var password, secret string
		var wait, timeout int64
		err := scan(&l.Service, &l.URL, &l.Username, &password, &secret, &l.Attempts, &wait, &timeout)
		if err != nil {
			return l, err
		}
		l.Interval, l.Timeout = time.Duration(wait)*time.Microsecond, time.Duration(timeout)*time.Microsecond
		if l.Password, err = s.open(password, place(account, l.Service, "password")); err != nil {
			return l, err
		}
		l.SigningSecret, err = s.open(secret, place(account, l.Service, "secret"))
		return l, err
	}
}

package store

import (
	"context"
	"errors"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// keepExhausted is how long a callback that nobody acknowledged is kept at
// least, so that it can be sent again (thingspace-api.md 6.5).
const keepExhausted = 30 * 24 * time.Hour

// keepSession is how long an unused session is kept beyond any use.
const keepSession = 24 * time.Hour

// How much one transaction purges: requests, and tasks, unless a single request
// has more.
const (
	purgeBatch = 500
	purgeTotal = 5000
)

// Requests whose every task ended, the last one before $3.
const purgeable = `SELECT id, total FROM request r
	WHERE r.account = $1 AND r.time < $2 AND r.purged = 0 AND NOT EXISTS (
		SELECT 1 FROM task t WHERE t.account = $1 AND t.request = r.id
			AND (t.phase <> 'ended' OR t.ended >= $2 OR (t.status NOT BETWEEN 200 AND 299 AND t.ended >= $3)))
	ORDER BY r.time LIMIT $4`

// purgeTasks leaves a task that was sent again since its request was found.
const (
	purgeTasks    = `DELETE FROM task WHERE account = $1 AND phase = 'ended' AND ended < $2 AND request {any $3}`
	tasksLeft     = `SELECT 1 FROM task WHERE account = $1 AND request {any $2} LIMIT 1`
	purgeAttempts = `DELETE FROM attempt WHERE account = $1 AND request {any $2}`
	purgeSent     = `DELETE FROM upstream_task WHERE account = $1 AND request {any $2}`
	purgeUpstream = `DELETE FROM upstream WHERE account = $1 AND request {any $2}`
	markPurged    = `UPDATE request SET purged = $2 WHERE account = $1 AND id {any $3}`
	purgeKeys     = `DELETE FROM idempotency WHERE account = $1 AND time < $2`
	purgeSessions = `DELETE FROM session WHERE used < $1`
	purgeLockouts = `DELETE FROM lockout WHERE last < $1 AND until < $2`
)

// Purge deletes what is kept no longer: the tasks and attempts of requests that
// ended before the retention, with what was sent upstream for them, and strange
// outcomes, idempotency keys, sessions and failures that are old. The requests,
// the postings and what SIMs hold stay. It returns the number of rows it deleted
// and may be run by several nodes at once.
func (s *Store) Purge(ctx context.Context, now time.Time, retention time.Duration) (deleted int, err error) {
	accounts, err := s.Accounts(ctx)
	if err != nil {
		return 0, err
	}
	for _, account := range append(accounts, "") { // of none are keys of calls about none
		n, err := s.purgeAccount(ctx, account, now, retention)
		deleted += n
		if err != nil {
			return deleted, s.failed("purging account "+string(account), err)
		}
	}
	err = s.write(ctx, "", 1, func(tx *tx) error {
		if _, err := tx.exec(purgeSessions, micros(now.Add(-keepSession))); err != nil {
			return err
		}
		if _, err := tx.exec(purgeOperatorSessions, micros(now.Add(-keepSession))); err != nil {
			return err
		}
		if _, err := tx.exec(purgeOldSecrets, micros(now)); err != nil {
			return err
		}
		if _, err := tx.exec(purgeAlerts, micros(now.Add(-retention))); err != nil {
			return err
		}
		_, err := tx.exec(purgeLockouts, micros(now.Add(-24*time.Hour)), micros(now))
		return err
	})
	return deleted, s.failed("purging sessions", err)
}

func (s *Store) purgeAccount(ctx context.Context, account license.AccountName, now time.Time, retention time.Duration) (deleted int, err error) {
	before, exhausted := now.Add(-retention), now.Add(-max(retention, keepExhausted))
	err = s.write(ctx, account, 1, func(tx *tx) error {
		if _, err := tx.exec(purgeDays, string(account), micros(license.Day(now).Add(-24*time.Hour))); err != nil {
			return err
		}
		if _, err := tx.exec(purgeKeys, string(account), micros(now.Add(-keepIdempotency))); err != nil {
			return err
		}
		return purgeStrangeOutcomes(tx, account, before)
	})
	e := s.entry("work.purge", account, "")
	for err == nil {
		var ids []license.RequestID
		tasks := 0
		_, err = collect(s.reader(ctx), func(scan func(...any) error) (struct{}, error) {
			var id license.RequestID
			var total int
			err := scan(&id, &total)
			if tasks += total; tasks <= purgeTotal || len(ids) == 0 {
				ids = append(ids, id)
			}
			return struct{}{}, err
		}, purgeable, string(account), micros(before), micros(exhausted), purgeBatch)
		if err != nil || len(ids) == 0 {
			break
		}
		var n int
		n, err = s.purgeRequests(ctx, e, ids, now, before)
		deleted += n
		if errors.Is(err, errSentAgain) {
			err = nil // what was sent again is not found any more
		}
	}
	return deleted, err
}

// errSentAgain says that requests cannot be purged as they were found: a
// callback of theirs is being sent again.
var errSentAgain = errors.New("a callback was sent again")

// purgeRequests purges some requests; e is the entry of the audit for all that
// the purge does to the account, which the first transaction writes.
func (s *Store) purgeRequests(ctx context.Context, e entry, ids []license.RequestID, now, before time.Time) (deleted int, err error) {
	list, account := only(ids), e.Account
	err = s.write(ctx, account, maxGroup+1, func(tx *tx) error {
		deleted = 0
		tasks, err := tx.exec(purgeTasks, string(account), micros(before), list)
		if err != nil {
			return err
		}
		left, err := count(tx, tasksLeft, string(account), list)
		if err == nil && left > 0 {
			err = errSentAgain
		}
		if err != nil {
			return err
		}
		attempts, err := tx.exec(purgeAttempts, string(account), list)
		if err != nil {
			return err
		}
		deleted = int(tasks + attempts)
		for _, text := range []string{purgeSent, purgeUpstream} {
			n, err := tx.exec(text, string(account), list)
			if err != nil {
				return err
			}
			deleted += int(n)
		}
		if _, err = tx.exec(markPurged, string(account), micros(now), list); err != nil {
			return err
		}
		return tx.record(e, nil, facts{"endedBefore": before.UTC()})
	})
	return deleted, err
}

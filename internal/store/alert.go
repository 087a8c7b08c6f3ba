package store

import (
	"context"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

const setThreshold = `UPDATE pool SET threshold = $3 WHERE account = $1 AND sku = $2
	RETURNING account, sku, purchased, reserved, assigned, threshold`

// SetThreshold says below how many available licenses a pool counts as low; 0 is
// never. It alerts when the pool next falls below, not when it is there already.
// It fails with license.ErrNotFound where there is no such pool.
func (s *Store) SetThreshold(ctx context.Context, account license.AccountName, sku license.SKU, threshold int64) (pool license.Pool, err error) {
	if threshold < 0 {
		return pool, &license.InputError{Field: license.FieldUnits, Reason: "a threshold cannot be negative"}
	}
	e := s.entry("pool.threshold", account, string(sku))
	err = s.write(ctx, account, 1, func(tx *tx) error {
		before, err := first(tx, scanPool, selectPool, string(account), string(sku))
		if err == nil {
			pool, err = first(tx, scanPool, setThreshold, string(account), string(sku), threshold)
		}
		if err != nil {
			return err
		}
		return tx.record(e, facts{"threshold": before.Threshold}, facts{"threshold": pool.Threshold})
	})
	return pool, s.failed("setting a threshold", err)
}

const (
	// The counter's row is kept until the end of the transaction, so that the
	// numbers are in the order of the commits.
	numberAlert = `UPDATE counter SET value = value + 1 WHERE name = 'alert' RETURNING value`
	insertAlert = `INSERT INTO alert (number, time, account, sku, available, threshold, due) VALUES ($1, $2, $3, $4, $5, $6, $2)`
)

// alertIfLow writes an alert where a pool, as it is after taken units were taken
// out of what was available, has fallen below its threshold with them.
func (t *tx) alertIfLow(pool license.Pool, taken int64, now time.Time) error {
	left := pool.Available()
	if left >= pool.Threshold || left+taken < pool.Threshold {
		return nil
	}
	number, err := first(t, one[int64], numberAlert)
	if err == nil {
		_, err = t.exec(insertAlert, number, micros(now), string(pool.Account), string(pool.SKU), left, pool.Threshold)
	}
	return err
}

const (
	selectAlerts = `SELECT number, time, account, sku, available, threshold, attempt FROM alert
		WHERE number > $1 ORDER BY number LIMIT $2`
	newestAlert = `SELECT coalesce(max(number), 0) FROM alert`
)

func scanAlert(scan func(...any) error) (a license.Alert, err error) {
	var at int64
	err = scan(&a.Number, &at, &a.Account, &a.SKU, &a.Available, &a.Threshold, &a.Attempt)
	a.At = fromMicros(at)
	return a, err
}

// Alerts lists alerts in the order in which they came, from the one after a number
// on. None ever comes before one that is there: who remembers the last number sees
// every alert once.
func (s *Store) Alerts(ctx context.Context, after int64, limit int) ([]license.Alert, error) {
	list, err := collect(s.reader(ctx), scanAlert, selectAlerts, after, limit)
	return list, s.failed("reading alerts", err)
}

// NewestAlert is the number of the last alert, after which the next will come.
func (s *Store) NewestAlert(ctx context.Context) (int64, error) {
	number, err := first(s.reader(ctx), one[int64], newestAlert)
	return number, s.failed("reading alerts", err)
}

// keepAlertDue is how long the message about an alert is worth sending.
const keepAlertDue = 24 * time.Hour

const (
	anyAlertDue  = `SELECT 1 FROM alert WHERE due IS NOT NULL AND due <= $1 LIMIT 1`
	forgetAlerts = `UPDATE alert SET due = NULL WHERE due IS NOT NULL AND time < $1`
	claimAlerts  = `UPDATE alert SET due = $2, attempt = attempt + 1 WHERE due IS NOT NULL AND due <= $1
		RETURNING number, time, account, sku, available, threshold, attempt`
	finishAlert = `UPDATE alert SET due = $3 WHERE number = $1 AND attempt = $2 AND due IS NOT NULL`
	purgeAlerts = `DELETE FROM alert WHERE time < $1`
)

// ClaimAlerts takes the alerts whose messages are to be tried now, so that nobody
// else tries them before until. Those of a day ago and more are given up.
func (s *Store) ClaimAlerts(ctx context.Context, now, until time.Time) (claimed []license.Alert, err error) {
	due, err := count(s.reader(ctx), anyAlertDue, micros(now))
	if err != nil || due == 0 {
		return nil, s.failed("looking for alerts", err)
	}
	err = s.write(ctx, "", 1, func(tx *tx) (err error) {
		if _, err = tx.exec(forgetAlerts, micros(now.Add(-keepAlertDue))); err == nil {
			claimed, err = collect(tx, scanAlert, claimAlerts, micros(now), micros(until))
		}
		return err
	})
	return claimed, s.failed("claiming alerts", err)
}

// FinishAlert says what became of an attempt to send the message of a claimed
// alert: it is tried again at again, or never where that is zero.
func (s *Store) FinishAlert(ctx context.Context, a license.Alert, again time.Time) error {
	var due *int64
	if us := micros(again); us > 0 {
		due = &us
	}
	err := s.write(ctx, "", 1, func(tx *tx) error {
		_, err := tx.exec(finishAlert, a.Number, a.Attempt, due)
		return err
	})
	return s.failed("finishing an alert", err)
}

const countLow = `SELECT count(*) FROM pool WHERE threshold > 0 AND purchased - reserved - assigned < threshold`

// LowPools counts the pools of all accounts that are below their threshold.
func (s *Store) LowPools(ctx context.Context) (int, error) {
	n, err := first(s.reader(ctx), one[int], countLow)
	return n, s.failed("counting low pools", err)
}

package store

import (
	"context"
	"time"

	"github.com/simlatch/simlatch/internal/crash"
	"github.com/simlatch/simlatch/internal/license"
)

// keepIdempotency is how long a key stands for its first answer.
const keepIdempotency = 24 * time.Hour

const insertKey = `INSERT INTO idempotency (account, application, operation, key, hash, request, time)
	VALUES ($1, $2, $3, $4, $5, $6, $7)
	ON CONFLICT (account, application, operation, key)
	DO UPDATE SET hash = excluded.hash, request = excluded.request, time = excluded.time
	WHERE idempotency.time <= $8`

// claimKey makes the idempotency key stand for the request, or returns the
// request it stands for.
func claimKey(tx *tx, p license.AcceptParams) (license.RequestID, error) {
	r := p.Request
	n, err := tx.exec(insertKey, string(r.Account), p.Application, string(r.Action), p.IdempotencyKey,
		p.BodyHash, string(r.ID), micros(r.At), micros(r.At.Add(-keepIdempotency)))
	if err != nil || n > 0 {
		return r.ID, err
	}
	return findKey(tx, r.Account, p.Application, string(r.Action), p.IdempotencyKey, p.BodyHash, time.Time{})
}

const selectKey = `SELECT hash, request FROM idempotency
	WHERE account = $1 AND application = $2 AND operation = $3 AND key = $4 AND time > $5`

func findKey(q querier, account license.AccountName, application, operation, key, bodyHash string, since time.Time) (license.RequestID, error) {
	type entry struct{ hash, request string }
	e, err := first(q, func(scan func(...any) error) (e entry, err error) {
		return e, scan(&e.hash, &e.request)
	}, selectKey, string(account), application, operation, key, micros(since))
	if err == nil && e.hash != bodyHash {
		err = license.ErrKeyReused
	}
	return license.RequestID(e.request), err
}

// Replay finds the request that an idempotency key stands for. It fails with
// license.ErrNotFound when it stands for none, and with license.ErrKeyReused
// when it was given with another body.
func (s *Store) Replay(ctx context.Context, account license.AccountName, application, operation, key, bodyHash string, now time.Time) (license.RequestID, error) {
	id, err := findKey(s.reader(ctx), account, application, operation, key, bodyHash, now.Add(-keepIdempotency))
	if err == nil {
		crash.At(crash.AcceptReplayed)
	}
	if err == nil && s.dialect.confirm != "" {
		err = s.write(ctx, account, 1, (*tx).confirm)
	}
	return id, s.failed("looking an idempotency key up", err)
}

package store

import (
	"context"
	"time"

	"github.com/simlatch/simlatch/internal/crash"
	"github.com/simlatch/simlatch/internal/license"
)

// Leases are found by their requests: a leased task is in no index of what is
// due, so that the ordinary course, in which leases never run out, moves none.
// A request's lease_end is at or before the end of each lease on its tasks.

const endedLeases = `SELECT account, id FROM request WHERE lease_end <= $1 ORDER BY lease_end LIMIT 100`

const countEnded = `SELECT count(*) FROM task WHERE account = $1 AND request = $2 AND lease_end > 0 AND lease_end <= $3`

// The fencing number rises, so that whoever had the lease has lost it.
const takeBack = `UPDATE task SET lease_end = 0, lease = lease + 1,
		carrier_due = CASE WHEN phase = 'carrier' THEN CAST($4 AS BIGINT) END,
		listener_due = CASE WHEN phase = 'listener' THEN CAST($4 AS BIGINT) END
	WHERE account = $1 AND request = $2 AND lease_end > 0 AND lease_end <= $3`

// The request is locked first, so that no lease is taken on its tasks, in a
// transaction that has not committed, and missed here: that one will lower
// lease_end after this.
const lockRequest = `SELECT id FROM request WHERE account = $1 AND id = $2 {wait}`

const nextLeaseEnd = `SELECT coalesce(min(lease_end), 0) FROM task WHERE account = $1 AND request = $2 AND lease_end > 0`

const setLeaseEnd = `UPDATE request SET lease_end = NULLIF(CAST($3 AS BIGINT), 0) WHERE account = $1 AND id = $2`

// reclaimAgain is how long a request with leases is left alone after a look at
// its tasks, which may be many: a lease may be found to have ended that late.
const reclaimAgain = time.Second

// reclaim makes due, at now, the tasks whose leases ended by until.
func (s *Store) reclaim(ctx context.Context, now, until time.Time) error {
	type place struct {
		account license.AccountName
		request license.RequestID
	}
	for {
		ended, err := collect(s.reader(ctx), func(scan func(...any) error) (p place, err error) {
			return p, scan(&p.account, &p.request)
		}, endedLeases, micros(until))
		if err != nil || len(ended) == 0 {
			return err
		}
		for _, p := range ended {
			if err := s.reclaimRequest(ctx, p.account, p.request, now, until); err != nil {
				return err
			}
		}
	}
}

func (s *Store) reclaimRequest(ctx context.Context, account license.AccountName, request license.RequestID, now, until time.Time) error {
	n, err := first(s.reader(ctx), one[int], countEnded, string(account), string(request), micros(until))
	if err != nil {
		return err
	}
	if n > 0 {
		crash.At(crash.ReclaimBegun)
		var taken int64
		err := s.write(ctx, account, n, func(tx *tx) (err error) {
			taken, err = tx.exec(takeBack, string(account), string(request), micros(until), micros(now))
			crash.At(crash.ReclaimWritten)
			return err
		})
		crash.At(crash.ReclaimCommitted)
		if err != nil {
			return err
		}
		s.metrics.takeovers.Add(float64(taken))
	}
	return s.write(ctx, account, 1, func(tx *tx) error {
		if _, err := count(tx, lockRequest, string(account), string(request)); err != nil {
			return err
		}
		end, err := first(tx, one[int64], nextLeaseEnd, string(account), string(request))
		if err != nil {
			return err
		}
		if end > 0 {
			end = max(end, micros(until.Add(reclaimAgain)))
		}
		_, err = tx.exec(setLeaseEnd, string(account), string(request), end)
		return err
	})
}

// reclaimAll makes due at now all that is leased, by whomever.
func (s *Store) reclaimAll(ctx context.Context, now time.Time) error {
	return s.reclaim(ctx, now, now.AddDate(100, 0, 0))
}

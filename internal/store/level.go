package store

import (
	"context"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// Depth is how much work waits in one phase, of all accounts; what is leased is
// in the hands of a node.
type Depth struct {
	Phase  license.Phase
	Due    int       // may be begun now
	Later  int       // put off, to be tried again
	Stuck  int       // waits for an operator
	Oldest time.Time // when the oldest of Due fell due; zero: there is none
}

const (
	laterAtCarrier  = `SELECT count(*) FROM task WHERE carrier_due > $1 AND carrier_due < 4611686018427387904`
	stuckInAll      = `SELECT count(*) FROM task WHERE carrier_due = 4611686018427387904`
	laterAtListener = `SELECT count(*) FROM task WHERE listener_due > $1`
)

// Depths says how much work waits in each phase.
func (s *Store) Depths(ctx context.Context, now time.Time) ([]Depth, error) {
	var depths []Depth
	for _, of := range []struct {
		phase      license.Phase
		due, later string
	}{{license.PhaseCarrier, dueAtCarrier, laterAtCarrier}, {license.PhaseListener, dueAtListener, laterAtListener}} {
		d := Depth{Phase: of.phase}
		_, err := collect(s.reader(ctx), func(scan func(...any) error) (struct{}, error) {
			var account string
			var n int
			var oldest int64
			err := scan(&account, &n, &oldest)
			d.Due += n
			if at := fromMicros(oldest); d.Oldest.IsZero() || at.Before(d.Oldest) {
				d.Oldest = at
			}
			return struct{}{}, err
		}, of.due, micros(now))
		if err == nil {
			d.Later, err = first(s.reader(ctx), one[int], of.later, micros(now))
		}
		if err == nil && of.phase == license.PhaseCarrier {
			d.Stuck, err = first(s.reader(ctx), one[int], stuckInAll)
		}
		if err != nil {
			return nil, s.failed("looking at the queues", err)
		}
		depths = append(depths, d)
	}
	return depths, nil
}

// Level is the licenses of one SKU, of all accounts.
type Level struct {
	SKU                           license.SKU
	Purchased, Reserved, Assigned int64
	Pools, Empty                  int // how many there are, and how many have none available
}

const sumPools = `SELECT sku, CAST(sum(purchased) AS BIGINT), CAST(sum(reserved) AS BIGINT), CAST(sum(assigned) AS BIGINT), count(*),
		CAST(sum(CASE WHEN purchased <= reserved + assigned THEN 1 ELSE 0 END) AS BIGINT)
	FROM pool GROUP BY sku ORDER BY 2 DESC, 1 LIMIT $1`

// Levels sums the pools up by SKU, for the most SKUs of which most was purchased.
func (s *Store) Levels(ctx context.Context, most int) ([]Level, error) {
	list, err := collect(s.reader(ctx), func(scan func(...any) error) (l Level, err error) {
		return l, scan(&l.SKU, &l.Purchased, &l.Reserved, &l.Assigned, &l.Pools, &l.Empty)
	}, sumPools, most)
	return list, s.failed("summing the pools up", err)
}

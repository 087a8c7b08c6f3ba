package store

import (
	"errors"
	"maps"
	"slices"

	"github.com/simlatch/simlatch/internal/license"
)

// reservePool leaves what needs a closer look to reserveClosely: the pools of
// accounts with a policy, and those that would fall below their threshold. All
// others pay a look into an index for it.
const (
	reservePool = `UPDATE pool SET reserved = reserved + $3
		WHERE account = $1 AND sku = $2 AND purchased - reserved - assigned >= $3
			AND (purchased - reserved - assigned - $3 >= threshold OR purchased - reserved - assigned < threshold)
			AND NOT EXISTS (SELECT 1 FROM policy y WHERE y.account = $1)`
	reserveClosely = `UPDATE pool SET reserved = reserved + $3
		WHERE account = $1 AND sku = $2 AND purchased - reserved - assigned >= $3
		RETURNING account, sku, purchased, reserved, assigned, threshold`
)

// reserve writes the lines of the ledger and moves the pools.
func (a *acceptance) reserve() (steps []step) {
	var lines []posting
	units := map[license.SKU]int{}
	for _, p := range a.params {
		if r := p.Request; r.Action == license.Assign {
			lines = append(lines, posting{request: r.ID, number: 1, sku: r.SKU, kind: reserve, units: len(r.Devices), at: r.At})
			units[r.SKU] += len(r.Devices)
		}
	}
	if len(lines) == 0 {
		return nil
	}
	steps = append(steps, insertPostings(a.account, lines))
	// Pools last: they are the rows everyone shares.
	for _, sku := range slices.Sorted(maps.Keys(units)) {
		steps = append(steps, step{
			text: reservePool, args: []any{string(a.account), string(sku), units[sku]},
			check: func(n int64) error {
				if n == 0 {
					a.closely = append(a.closely, reservation{sku, units[sku]})
				}
				return nil
			},
		})
	}
	return steps
}

// A reservation is so many units that a pool is to set aside.
type reservation struct {
	sku   license.SKU
	units int
}

// reserveClosely moves the pools that reservePool has passed by: it holds the
// requests against the policy, and sees whether a pool runs low.
func (a *acceptance) reserveClosely() error {
	if len(a.closely) == 0 {
		return nil
	}
	if err := a.obey(); err != nil {
		return err
	}
	for _, r := range a.closely {
		pool, err := first(a.tx, scanPool, reserveClosely, string(a.account), string(r.sku), r.units)
		if errors.Is(err, license.ErrNotFound) {
			return license.ErrInsufficient
		}
		if err == nil {
			err = a.tx.alertIfLow(pool, int64(r.units), a.params[0].Request.At)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

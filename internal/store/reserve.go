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

// reserve writes the lines of the ledger and moves the pools. closely must follow:
// it moves those that need a closer look.
func (a *acceptance) reserve() (steps []step, closely func() error) {
	var lines []posting
	units := map[license.SKU]int{}
	for _, p := range a.params {
		if r := p.Request; r.Action == license.Assign {
			lines = append(lines, posting{request: r.ID, number: 1, sku: r.SKU, kind: reserve, units: len(r.Devices), at: r.At})
			units[r.SKU] += len(r.Devices)
		}
	}
	var missed []license.SKU
	closely = func() error { return a.reserveAllClosely(missed, units) }
	if len(lines) == 0 {
		return nil, closely
	}
	steps = append(steps, insertPostings(a.account, lines))
	// Pools last: they are the rows everyone shares.
	for _, sku := range slices.Sorted(maps.Keys(units)) {
		steps = append(steps, step{
			text: reservePool, args: []any{string(a.account), string(sku), units[sku]},
			check: func(n int64) error {
				if n == 0 {
					missed = append(missed, sku)
				}
				return nil
			},
		})
	}
	return steps, closely
}

// reserveAllClosely moves the pools that reservePool left alone, once the account's
// policy allows it.
func (a *acceptance) reserveAllClosely(skus []license.SKU, units map[license.SKU]int) error {
	if len(skus) == 0 {
		return nil
	}
	if err := a.obey(); err != nil {
		return err
	}
	for _, sku := range skus {
		if err := a.reserveClosely(sku, units[sku]); err != nil {
			return err
		}
	}
	return nil
}

// reserveClosely moves a pool, and sees whether it runs low.
func (a *acceptance) reserveClosely(sku license.SKU, units int) error {
	pool, err := first(a.tx, scanPool, reserveClosely, string(a.account), string(sku), units)
	if errors.Is(err, license.ErrNotFound) {
		return license.ErrInsufficient
	}
	if err != nil {
		return err
	}
	return a.tx.alertIfLow(pool, int64(units), a.params[0].Request.At)
}

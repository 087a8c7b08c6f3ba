package store

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/simlatch/simlatch/internal/crash"
	"github.com/simlatch/simlatch/internal/license"
)

const (
	selectPoolRows = `SELECT account, sku, purchased, reserved, assigned, threshold FROM pool WHERE account = $1 ORDER BY sku`
	selectPool     = `SELECT account, sku, purchased, reserved, assigned, threshold FROM pool WHERE account = $1 AND sku = $2`
)

func selectPools(q querier, account license.AccountName) ([]license.Pool, error) {
	return collect(q, scanPool, selectPoolRows, string(account))
}

func scanPool(scan func(...any) error) (p license.Pool, err error) {
	return p, scan(&p.Account, &p.SKU, &p.Purchased, &p.Reserved, &p.Assigned, &p.Threshold)
}

// Pools lists an account's pools by SKU.
func (s *Store) Pools(ctx context.Context, account license.AccountName) ([]license.Pool, error) {
	pools, err := selectPools(s.reader(ctx), account)
	return pools, s.failed("reading pools", err)
}

const (
	openPool = `INSERT INTO pool (account, sku, purchased) VALUES ($1, $2, 0)
		ON CONFLICT (account, sku) DO NOTHING`
	growPool = `UPDATE pool SET purchased = purchased + $3
		WHERE account = $1 AND sku = $2 AND purchased + $3 >= reserved + assigned
		RETURNING account, sku, purchased, reserved, assigned, threshold`
	insertPurchase = `INSERT INTO purchase (account, sku, number, units, reference, reason, time)
		SELECT $1, $2, coalesce(max(number), 0) + 1, CAST($3 AS BIGINT), $4, $5, CAST($6 AS BIGINT)
		FROM purchase WHERE account = $1 AND sku = $2
		RETURNING number`
	samePurchase = `SELECT 1 FROM purchase WHERE account = $1 AND sku = $2 AND number = $3
		AND units = $4 AND reference = $5 AND reason = $6 AND time = $7`
)

// maxPurchase bounds the units of one purchase, so that no pool can come near
// what a number holds.
const maxPurchase = 1_000_000_000_000

// AddPurchase adds licenses to a pool, or withdraws them, and returns the pool.
// It fails with license.ErrInsufficient when fewer would remain than are
// assigned or reserved, and with license.ErrNotFound for an unknown account.
func (s *Store) AddPurchase(ctx context.Context, p license.Purchase, now time.Time) (pool license.Pool, err error) {
	if p.Units == 0 {
		return pool, &license.InputError{Field: license.FieldUnits, Value: "0", Reason: "a purchase adds or withdraws at least one license"}
	}
	if p.Units > maxPurchase || p.Units < -maxPurchase {
		return pool, &license.InputError{Field: license.FieldUnits, Value: strconv.FormatInt(p.Units, 10), Reason: "a purchase has at most a million million licenses"}
	}
	var number int64 // that a former try gave the purchase
	e := s.entry("pool.purchase", p.Account, string(p.SKU))
	err = s.write(ctx, p.Account, 1, func(tx *tx) error {
		if err := needAccount(tx, p.Account); err != nil {
			return err
		}
		if number > 0 {
			// The former try may have been committed.
			same, err := collect(tx, one[int], samePurchase, string(p.Account), string(p.SKU), number,
				p.Units, p.Reference, p.Reason, micros(now))
			if err != nil {
				return err
			}
			if len(same) > 0 {
				pool, err = first(tx, scanPool, selectPool, string(p.Account), string(p.SKU))
				return err
			}
		}
		if _, err := tx.exec(openPool, string(p.Account), string(p.SKU)); err != nil {
			return err
		}
		// The pool first, here: its row orders the numbers of the purchases.
		list, err := collect(tx, scanPool, growPool, string(p.Account), string(p.SKU), p.Units)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return license.ErrInsufficient
		}
		pool = list[0]
		crash.At(crash.PurchaseGrown)
		number, err = first(tx, one[int64], insertPurchase, string(p.Account), string(p.SKU), p.Units, p.Reference, p.Reason, micros(now))
		if err != nil {
			return err
		}
		if err := tx.record(e, facts{"purchased": pool.Purchased - p.Units},
			facts{"purchased": pool.Purchased, "units": p.Units, "reference": p.Reference, "reason": p.Reason}); err != nil {
			return err
		}
		if err := tx.alertIfLow(pool, -p.Units, now); err != nil {
			return err
		}
		crash.At(crash.PurchaseWritten)
		return nil
	})
	crash.At(crash.PurchaseCommitted)
	return pool, s.failed("adding a purchase", err)
}

const selectAccounts = `SELECT name FROM account ORDER BY name`

// Accounts lists all accounts.
func (s *Store) Accounts(ctx context.Context) ([]license.AccountName, error) {
	names, err := collect(s.reader(ctx), one[license.AccountName], selectAccounts)
	return names, s.failed("listing accounts", err)
}

const (
	// lockAccounts keeps two accounts from being added at once, neither of which
	// would see that the other differs only by hyphens.
	lockAccounts = `INSERT INTO counter (name, value) VALUES ('account', 1)
		ON CONFLICT (name) DO UPDATE SET value = counter.value + 1`
	insertAccount = `INSERT INTO account (name, created) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`
	likeAccount   = `SELECT name FROM account WHERE replace(name, '-', '') = $1 AND name <> $2`
	selectAccount = `SELECT name FROM account WHERE name = $1`
)

// AddAccount adds an account. It fails with license.ErrExists when there is one
// of that name, hyphens left aside.
func (s *Store) AddAccount(ctx context.Context, name license.AccountName, now time.Time) error {
	e := s.entry("account.add", name, string(name))
	err := s.write(ctx, name, 1, func(tx *tx) error {
		if _, err := tx.exec(lockAccounts); err != nil {
			return err
		}
		n, err := tx.exec(insertAccount, string(name), micros(now))
		if err == nil && n == 0 {
			err = fmt.Errorf("account %s: %w", name, license.ErrExists)
		}
		if err != nil {
			return err
		}
		like, err := collect(tx, one[string], likeAccount, name.Folded(), string(name))
		if err == nil && len(like) > 0 {
			err = fmt.Errorf("account %s, which differs only by hyphens: %w", like[0], license.ErrExists)
		}
		if err == nil {
			err = tx.record(e, nil, nil)
		}
		return err
	})
	return s.failed("adding an account", err)
}

func needAccount(q querier, name license.AccountName) error {
	if _, err := first(q, one[string], selectAccount, string(name)); err != nil {
		return fmt.Errorf("account %s: %w", name, err)
	}
	return nil
}

const selectProgress = `SELECT id, account, sku, action, time, total, succeeded, failed, purged FROM request
	WHERE account = $1 AND id = $2`

// Progress tells how far a request has come. It fails with license.ErrNotFound.
func (s *Store) Progress(ctx context.Context, account license.AccountName, id license.RequestID) (license.Progress, error) {
	p, err := first(s.reader(ctx), func(scan func(...any) error) (p license.Progress, err error) {
		var at, purged int64
		err = scan(&p.ID, &p.Account, &p.SKU, &p.Action, &at, &p.Total, &p.Done, &p.Failed, &purged)
		p.At, p.Purged = fromMicros(at), fromMicros(purged)
		return p, err
	}, selectProgress, string(account), string(id))
	return p, s.failed("reading a request", err)
}

const (
	beat = `INSERT INTO node (id, heartbeat) VALUES ($1, $2)
		ON CONFLICT (id) DO UPDATE SET heartbeat = excluded.heartbeat`
	countNodes = `SELECT count(*) FROM node WHERE heartbeat > $1`
	buryNodes  = `DELETE FROM node WHERE heartbeat < $1`
)

// nodeLife is how long a node counts as live after its last heartbeat.
const nodeLife = 15 * time.Second

// Heartbeat says that a node lives, and counts those that do.
func (s *Store) Heartbeat(ctx context.Context, node string, now time.Time) (live int, err error) {
	err = s.write(ctx, "", 1, func(tx *tx) error {
		if _, err := tx.exec(beat, node, micros(now)); err != nil {
			return err
		}
		if _, err := tx.exec(buryNodes, micros(now.Add(-24*time.Hour))); err != nil {
			return err
		}
		live, err = first(tx, one[int], countNodes, micros(now.Add(-nodeLife)))
		return err
	})
	return live, s.failed("writing a heartbeat", err)
}

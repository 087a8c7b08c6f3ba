package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/simlatch/simlatch/internal/license"
)

// Checked counts what Verify looked at.
type Checked struct {
	Accounts, Pools, SIMs, Requests, Postings int64
}

// Verify holds the three facts of the ledger against each other, account by
// account, each in one snapshot: the balances of the pools, the entitlements,
// and the sums of the postings; beside them the purchases, the counts of the
// requests and the owners of the SIMs. Each disagreement is reported.
func (s *Store) Verify(ctx context.Context, report func(license.Drift)) (Checked, error) {
	var total Checked
	accounts, err := s.Accounts(ctx)
	if err != nil {
		return total, err
	}
	for _, account := range accounts {
		err := s.snapshot(ctx, func(q querier) error {
			v := verifier{q: q, account: account, report: report, checked: &total}
			return v.run()
		})
		if err != nil {
			return total, s.failed("verifying account "+string(account), err)
		}
		total.Accounts++
	}
	return total, nil
}

// verifier checks one account.
type verifier struct {
	q       querier
	account license.AccountName
	report  func(license.Drift)
	checked *Checked
}

func (v verifier) drift(sku license.SKU, format string, args ...any) {
	v.report(license.Drift{Account: v.account, SKU: sku, What: fmt.Sprintf(format, args...)})
}

func (v verifier) run() error {
	for _, check := range []func() error{v.balances, v.requests, v.tasks, v.leases, v.owners} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// counts are the figures of one SKU by one of the facts.
type counts struct{ reserved, assigned int64 }

const sumEntitlements = `SELECT s.sku,
		coalesce(sum(CASE WHEN t.phase IN ('carrier', 'stuck') AND r.action = 'assign' THEN 1 ELSE 0 END), 0),
		coalesce(sum(CASE WHEN t.phase IN ('carrier', 'stuck') AND r.action = 'assign' THEN 0 ELSE 1 END), 0)
	FROM sim s
	LEFT JOIN task t ON t.account = $1 AND t.request = s.request AND t.iccid = s.iccid
	LEFT JOIN request r ON r.account = $1 AND r.id = s.request
	WHERE s.account = $1 AND s.sku <> '' GROUP BY s.sku`

const sumPostings = `SELECT sku,
		coalesce(sum(CASE kind WHEN 'reserve' THEN units WHEN 'post' THEN -units WHEN 'void' THEN -units ELSE 0 END), 0),
		coalesce(sum(CASE kind WHEN 'post' THEN units WHEN 'release' THEN -units ELSE 0 END), 0)
	FROM posting WHERE account = $1 GROUP BY sku`

const sumPurchases = `SELECT sku, coalesce(sum(units), 0), 0 FROM purchase WHERE account = $1 GROUP BY sku`

const countRows = `SELECT (SELECT count(*) FROM sim WHERE account = $1), (SELECT count(*) FROM request WHERE account = $1),
	(SELECT count(*) FROM posting WHERE account = $1)`

func (v verifier) sums(text string) (map[license.SKU]counts, error) {
	sums := map[license.SKU]counts{}
	_, err := collect(v.q, func(scan func(...any) error) (struct{}, error) {
		var sku license.SKU
		var c counts
		err := scan(&sku, &c.reserved, &c.assigned)
		sums[sku] = c
		return struct{}{}, err
	}, text, string(v.account))
	return sums, err
}

// balances compares pools, entitlements, postings and purchases.
func (v verifier) balances() error {
	pools, err := selectPools(v.q, v.account)
	if err != nil {
		return err
	}
	entitled, err := v.sums(sumEntitlements)
	if err != nil {
		return err
	}
	posted, err := v.sums(sumPostings)
	if err != nil {
		return err
	}
	purchased, err := v.sums(sumPurchases)
	if err != nil {
		return err
	}
	for _, p := range pools {
		v.checked.Pools++
		have := counts{p.Reserved, p.Assigned}
		if e := entitled[p.SKU]; e != have {
			v.drift(p.SKU, "the pool says %d reserved and %d assigned, the SIMs %d and %d", have.reserved, have.assigned, e.reserved, e.assigned)
		}
		if e := posted[p.SKU]; e != have {
			v.drift(p.SKU, "the pool says %d reserved and %d assigned, the postings %d and %d", have.reserved, have.assigned, e.reserved, e.assigned)
		}
		if bought := purchased[p.SKU].reserved; bought != p.Purchased {
			v.drift(p.SKU, "the pool says %d purchased, the purchases %d", p.Purchased, bought)
		}
		delete(entitled, p.SKU)
		delete(posted, p.SKU)
		delete(purchased, p.SKU)
	}
	for _, rest := range []map[license.SKU]counts{entitled, posted, purchased} {
		for sku, c := range rest {
			if c != (counts{}) {
				v.drift(sku, "there are SIMs, postings or purchases (%d, %d) and no pool", c.reserved, c.assigned)
			}
		}
	}
	_, err = first(v.q, func(scan func(...any) error) (struct{}, error) {
		var sims, requests, postings int64
		err := scan(&sims, &requests, &postings)
		v.checked.SIMs += sims
		v.checked.Requests += requests
		v.checked.Postings += postings
		return struct{}{}, err
	}, countRows, string(v.account))
	return err
}

// A request's counts, against the lines of the ledger it wrote and, until they
// are purged, its tasks.
const compareRequests = `WITH p AS MATERIALIZED (
		SELECT request,
			sum(CASE WHEN kind = 'reserve' THEN units ELSE 0 END) AS reserved,
			sum(CASE WHEN kind IN ('post', 'release') THEN units ELSE 0 END) AS done,
			sum(CASE WHEN kind = 'void' THEN units ELSE 0 END) AS voided, count(*) AS lines
		FROM posting WHERE account = $1 GROUP BY request),
	t AS MATERIALIZED (
		SELECT request, count(*) AS total,
			sum(CASE WHEN phase = 'ended' THEN 1 ELSE 0 END) AS ended,
			sum(CASE WHEN phase = 'ended' AND status NOT BETWEEN 200 AND 299 THEN 1 ELSE 0 END) AS unacked,
			sum(CASE WHEN outcome = 'done' THEN 1 ELSE 0 END) AS done,
			sum(CASE WHEN outcome = 'refused' THEN 1 ELSE 0 END) AS refused
		FROM task WHERE account = $1 GROUP BY request)
	SELECT r.id, r.sku FROM request r LEFT JOIN p ON p.request = r.id LEFT JOIN t ON t.request = r.id
	WHERE r.account = $1 AND (
		coalesce(p.done, 0) <> r.succeeded
		OR coalesce(p.reserved, 0) <> CASE WHEN r.action = 'assign' THEN r.total ELSE 0 END
		OR coalesce(p.voided, 0) <> CASE WHEN r.action = 'assign' THEN r.failed ELSE 0 END
		OR coalesce(p.lines, 0) <> r.postings
		OR r.purged = 0 AND (coalesce(t.total, 0) <> r.total OR coalesce(t.done, 0) <> r.succeeded OR coalesce(t.refused, 0) <> r.failed
			OR coalesce(t.ended, 0) <> r.ended OR coalesce(t.unacked, 0) <> r.unacked))
	ORDER BY r.id LIMIT 100`

func (v verifier) requests() error {
	return v.each(compareRequests, "request %s: its counts, its postings and its tasks differ")
}

// Tasks that still are at the carrier, whose SIM does not point back at them.
const strayTasks = `SELECT t.iccid, r.sku FROM task t
	LEFT JOIN request r ON r.account = $1 AND r.id = t.request
	LEFT JOIN sim s ON s.account = $1 AND s.iccid = t.iccid
	WHERE t.account = $1 AND t.phase IN ('carrier', 'stuck')
		AND (s.iccid IS NULL OR r.id IS NULL OR s.request <> t.request OR s.sku <> r.sku)
	ORDER BY t.iccid LIMIT 100`

func (v verifier) tasks() error {
	return v.each(strayTasks, "SIM %s: it does not point at its pending task")
}

// Leases that nobody would find when they end.
const strayLeases = `SELECT t.request, r.sku FROM task t
	LEFT JOIN request r ON r.account = $1 AND r.id = t.request
	WHERE t.account = $1 AND t.lease_end > 0 AND (r.lease_end IS NULL OR t.carrier_due IS NOT NULL OR t.listener_due IS NOT NULL)
	ORDER BY t.request LIMIT 100`

func (v verifier) leases() error {
	return v.each(strayLeases, "request %s: a lease on one of its tasks is not noted there")
}

const (
	pageSIMs   = `SELECT iccid FROM sim WHERE account = $1 AND iccid > $2 ORDER BY iccid LIMIT $3`
	pageOwners = `SELECT iccid FROM sim_owner WHERE account = $1 AND iccid {any $2}`
)

// owners looks the account's SIMs up among the owners page by page: the two
// tables do not lie together on Citus, where they could not be joined.
func (v verifier) owners() error {
	for last := license.ICCID(""); ; {
		page, err := collect(v.q, one[license.ICCID], pageSIMs, string(v.account), string(last), importBatch)
		if err != nil || len(page) == 0 {
			return err
		}
		last = page[len(page)-1]
		owned, err := collect(v.q, one[license.ICCID], pageOwners, string(v.account), only(page))
		if err != nil {
			return err
		}
		slices.Sort(owned)
		for _, iccid := range page {
			if _, ok := slices.BinarySearch(owned, iccid); !ok {
				v.drift("", "SIM %s: it is not registered as this account's", iccid)
			}
		}
	}
}

// each reports every row of a query, of a name and a SKU.
func (v verifier) each(text, format string) error {
	_, err := collect(v.q, func(scan func(...any) error) (struct{}, error) {
		var name string
		var sku *license.SKU
		err := scan(&name, &sku)
		if err == nil {
			var known license.SKU
			if sku != nil {
				known = *sku
			}
			v.drift(known, format, name)
		}
		return struct{}{}, err
	}, text, string(v.account))
	return err
}

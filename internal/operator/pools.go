package operator

import (
	"context"
	"errors"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/internal/store"
)

func poolOf(p license.Pool) client.Pool {
	return client.Pool{
		Account: string(p.Account), SKU: string(p.SKU), Type: p.SKU.Label(),
		Purchased: p.Purchased, Reserved: p.Reserved, Assigned: p.Assigned, Available: p.Available(),
		Threshold: p.Threshold, Low: p.Low(),
	}
}

func (a *API) listPools(ctx context.Context, c *call) (client.Page[client.Pool], error) {
	q := c.query("account")
	return across(ctx, c, q, func(ctx context.Context, account license.AccountName, after string, n int) (list []client.Pool, next string, err error) {
		pools, err := c.store().Pools(ctx, account)
		for _, p := range pools { // by SKU
			if string(p.SKU) <= after {
				continue
			}
			if len(list) == n {
				return list, list[n-1].SKU, err
			}
			list = append(list, poolOf(p))
		}
		return list, "", err
	})
}

// pool finds the pool in the call's path.
func (c *call) pool(ctx context.Context) (license.AccountName, license.SKU, error) {
	account, err := c.account(ctx)
	if err != nil {
		return "", "", err
	}
	sku, err := license.ParseSKU(c.r.PathValue("sku"))
	return account, sku, err
}

func (a *API) getPool(ctx context.Context, c *call) (client.Pool, error) {
	account, sku, err := c.pool(ctx)
	if err != nil {
		return client.Pool{}, err
	}
	pools, err := c.store().Pools(ctx, account)
	if err != nil {
		return client.Pool{}, err
	}
	for _, p := range pools {
		if p.SKU == sku {
			c.etag = poolTag(p)
			return poolOf(p), nil
		}
	}
	return client.Pool{}, noPool(account, sku)
}

// poolTag stands for what can be changed of a pool here: its figures change by
// themselves.
func poolTag(p license.Pool) string { return tag(p.Account, p.SKU, p.Threshold) }

// changePool says when a pool counts as low.
func (a *API) changePool(ctx context.Context, c *call, in client.PoolChange) (client.Pool, error) {
	account, sku, err := c.pool(ctx)
	if err != nil {
		return client.Pool{}, err
	}
	if _, err := a.getPool(ctx, c); err != nil {
		return client.Pool{}, err
	}
	if err := c.match(c.etag); err != nil {
		return client.Pool{}, err
	}
	pool, err := c.store().SetThreshold(ctx, account, sku, in.Threshold)
	if errors.Is(err, license.ErrNotFound) {
		err = noPool(account, sku)
	}
	c.etag = poolTag(pool)
	return poolOf(pool), err
}

func noPool(account license.AccountName, sku license.SKU) error {
	return problemf(errNotFound, "account %s has no pool of %s: a purchase makes one", account, sku)
}

func (a *API) listPurchases(ctx context.Context, c *call) (page client.Page[client.Purchase], err error) {
	q := c.query()
	var before int64
	q.cursor(&before)
	if q.err != nil {
		return page, q.err
	}
	account, sku, err := c.pool(ctx)
	if err != nil {
		return page, err
	}
	list, err := c.store().Purchases(ctx, account, sku, before, q.limit+1)
	purchases := make([]client.Purchase, len(list))
	for i, p := range list {
		purchases[i] = client.Purchase{Number: p.Number, Units: p.Units, Reference: p.Reference, Reason: p.Reason, At: p.At}
	}
	return cut(purchases, q.limit, func(p client.Purchase) any { return p.Number }), err
}

func (a *API) addPurchase(ctx context.Context, c *call, in client.NewPurchase) (out client.Pool, err error) {
	account, sku, err := c.pool(ctx)
	if err != nil {
		return out, err
	}
	if err := checkReason(in.Reason); err != nil {
		return out, err
	}
	pool, err := c.store().AddPurchase(ctx, license.Purchase{
		Account: account, SKU: sku, Units: in.Units, Reference: in.Reference, Reason: in.Reason,
	}, a.cfg.Clock.Now())
	if errors.Is(err, license.ErrInsufficient) {
		return out, problemf(errInsufficient, "withdrawing %d of %s from account %s: fewer are available; what SIMs hold or await stays", -in.Units, sku, account)
	}
	c.created("/accounts/", string(account), "/pools/", string(sku))
	return poolOf(pool), err
}

func (a *API) listStuck(ctx context.Context, c *call) (client.Page[client.StuckTask], error) {
	q := c.query("account")
	return across(ctx, c, q, func(ctx context.Context, account license.AccountName, after string, n int) (list []client.StuckTask, next string, err error) {
		tasks, err := c.store().StuckTasks(ctx, account)
		for _, t := range tasks { // by request and ICCID, as their keys are
			if t.Key() <= after {
				continue
			}
			if len(list) == n {
				return list, list[n-1].Request + "/" + list[n-1].ICCID, err
			}
			list = append(list, stuckOf(t))
		}
		return list, "", err
	})
}

func stuckOf(t store.StuckTask) client.StuckTask {
	return client.StuckTask{
		Account: string(t.Account), Request: string(t.Request), ICCID: string(t.Device.ICCID), IMEI: string(t.Device.IMEI),
		MDN: string(t.Device.MDN), Action: string(t.Action), SKU: string(t.SKU), Since: t.Since, Asked: t.Attempt, Comment: t.Comment,
	}
}

// decide decides a stuck task.
func (a *API) decide(ctx context.Context, c *call, in client.Decision) (out none, err error) {
	verdict, ok := map[string]license.Verdict{
		client.DecideDone: license.Done, client.DecideRefused: license.Refused, client.DecideRetry: license.Retry,
	}[in.Decision]
	if !ok {
		return out, problemf(errInvalid, "decision %.40q: it is done, refused or retry", in.Decision)
	}
	if err := checkReason(in.Reason); err != nil {
		return out, err
	}
	account, request, iccid, err := c.task(ctx)
	if err != nil {
		return out, err
	}
	tasks, err := c.store().StuckTasks(ctx, account)
	if err != nil {
		return out, err
	}
	for _, t := range tasks {
		if t.Request != request || t.Device.ICCID != iccid {
			continue
		}
		if err := c.store().ResolveStuck(ctx, t, verdict, in.Reason, a.cfg.Clock.Now()); !errors.Is(err, license.ErrNotFound) {
			return out, err
		}
	}
	if _, err := c.store().Callback(ctx, account, request, iccid); err != nil {
		return out, err
	}
	return out, problemf(errNotStuck, "the task of request %s for SIM %s is not stuck, or no longer", request, iccid)
}

// maxReason is the longest reason.
const maxReason = 1000

// checkReason refuses a change that nobody could understand in a year's time.
func checkReason(reason string) error {
	if reason == "" || len(reason) > maxReason {
		return problemf(errInvalid, "a reason is needed, of at most %d characters: it is what people will read in a year's time", maxReason)
	}
	return nil
}

// maxDrift is how many findings of a verification an answer has.
const maxDrift = 1000

func (a *API) verify(ctx context.Context, c *call) (client.Verified, error) {
	out := client.Verified{Drift: []client.Drift{}}
	checked, err := c.store().Verify(ctx, func(d license.Drift) {
		if out.Drifts++; out.Drifts <= maxDrift {
			out.Drift = append(out.Drift, client.Drift{Account: string(d.Account), SKU: string(d.SKU), What: d.What})
		}
	})
	out.OK = out.Drifts == 0
	out.Accounts, out.Pools, out.SIMs = checked.Accounts, checked.Pools, checked.SIMs
	out.Requests, out.Postings = checked.Requests, checked.Postings
	return out, err
}

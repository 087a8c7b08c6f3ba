package operator

import (
	"context"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/internal/store"
)

func policyTag(p license.Policy) string { return tag(p.RefuseLifetime, p.DailyDevices) }

func (a *API) getPolicy(ctx context.Context, c *call) (out client.Policy, err error) {
	account, err := c.account(ctx)
	if err != nil {
		return out, err
	}
	p, accepted, err := c.store().Policy(ctx, account, a.cfg.Clock.Now())
	c.etag = policyTag(p)
	return client.Policy{
		Account: string(account), RefuseLifetime: p.RefuseLifetime, DailyDevices: p.DailyDevices, AcceptedToday: accepted,
	}, err
}

func (a *API) setPolicy(ctx context.Context, c *call, in client.NewPolicy) (out client.Policy, err error) {
	account, err := c.account(ctx)
	if err != nil {
		return out, err
	}
	if in.DailyDevices < 0 {
		return out, problemf(errInvalid, "dailyDevices %d: it is a number of devices, or 0 for no limit", in.DailyDevices)
	}
	now := a.cfg.Clock.Now()
	before, _, err := c.store().Policy(ctx, account, now)
	if err == nil {
		err = c.match(policyTag(before))
	}
	if err == nil {
		err = c.store().SetPolicy(ctx, license.Policy{
			Account: account, RefuseLifetime: in.RefuseLifetime, DailyDevices: in.DailyDevices,
		}, now)
	}
	if err != nil {
		return out, err
	}
	return a.getPolicy(ctx, c)
}

// auditPlace is a place in the audit.
type auditPlace struct {
	At int64  `json:"t"` // in microseconds
	ID string `json:"i"`
}

// listAudit lists the audit, the newest entry first.
func (a *API) listAudit(ctx context.Context, c *call) (page client.Page[client.AuditEntry], err error) {
	q := c.query("account", "who", "target", "action", "since")
	f := store.AuditFilter{Who: q.get("who"), Target: q.get("target"), Action: q.get("action"), Since: q.time("since"), Limit: q.limit + 1}
	var at auditPlace
	if q.cursor(&at); at.ID != "" {
		f.Before = store.AuditPlace{At: time.UnixMicro(at.At), ID: at.ID}
	}
	if name := q.get("account"); name != "" && q.err == nil {
		f.Account, err = a.findAccount(ctx, name)
		q.note(err)
	}
	if q.err != nil {
		return page, q.err
	}
	list, err := c.store().Audit(ctx, f)
	entries := make([]client.AuditEntry, len(list))
	for i, e := range list {
		entries[i] = auditOf(e)
	}
	return cut(entries, q.limit, func(e client.AuditEntry) any { return auditPlace{e.At.UnixMicro(), e.ID} }), err
}

func auditOf(e license.AuditEntry) client.AuditEntry {
	return client.AuditEntry{
		Number: e.Number, ID: e.ID, At: e.At, Who: e.Name, Via: string(e.Via), From: e.From, Action: e.Action,
		Account: string(e.Account), Target: e.Target, Before: told(e.Before), After: told(e.After), Hash: e.Hash,
	}
}

// told is what an entry tells, which is JSON; nil where it tells nothing.
func told(text string) any {
	if text == "" {
		return nil
	}
	return jsontext.Value(text)
}

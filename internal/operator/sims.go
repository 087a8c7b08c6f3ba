package operator

import (
	"context"
	"errors"
	"strconv"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
)

func simOf(s license.SIM, pending map[license.ICCID]license.Action) client.SIM {
	out := client.SIM{
		Account: string(s.Account), ICCID: string(s.Device.ICCID), IMEI: string(s.Device.IMEI), MDN: string(s.Device.MDN),
		IMSI: s.IMSI, State: string(s.State), Generation: string(s.Generation), Number: s.Number, Added: s.Added,
	}
	if s.SKU == "" {
		return out
	}
	out.License = &client.License{SKU: string(s.SKU), State: client.LicenseAssigned, Request: string(s.Request)}
	switch pending[s.Device.ICCID] {
	case license.Assign:
		out.License.State = client.LicensePending
	case license.Unassign:
		out.License.State = client.LicenseLeaving
	}
	return out
}

// simTag stands for what can be changed of a SIM here.
func simTag(s license.SIM) string { return tag(s.Account, s.Device, s.State) }

// listSIMs lists SIMs as they were imported, account by account; with an
// identifier it looks one up.
func (a *API) listSIMs(ctx context.Context, c *call) (page client.Page[client.SIM], err error) {
	q := c.query("account", "iccid", "imei", "mdn", "state")
	f := license.DeviceFilter{Device: license.Device{
		ICCID: parsed(q, "iccid", license.ParseICCID), IMEI: parsed(q, "imei", license.ParseIMEI), MDN: parsed(q, "mdn", license.ParseMDN),
	}, State: parsed(q, "state", license.ParseState)}
	if q.err == nil && f.Device.ICCID != "" && q.get("account") == "" {
		owner, err := c.store().OwnerOf(ctx, f.Device.ICCID)
		if errors.Is(err, license.ErrNotFound) {
			return client.Page[client.SIM]{List: []client.SIM{}}, nil
		}
		q.note(err)
		q.values.Set("account", string(owner))
	}
	return across(ctx, c, q, func(ctx context.Context, account license.AccountName, after string, n int) (list []client.SIM, next string, err error) {
		f := f
		f.Accounts, f.Limit = []license.AccountName{account}, n+1
		if after != "" {
			if f.After, err = strconv.ParseInt(after, 10, 64); err != nil {
				return nil, "", problemf(errInvalid, "the cursor is none of this list's")
			}
		}
		sims, err := c.store().Devices(ctx, f)
		if err != nil {
			return nil, "", err
		}
		if len(sims) > n {
			sims = sims[:n]
			next = strconv.FormatInt(sims[n-1].Number, 10)
		}
		pending, err := c.store().Pending(ctx, account, sims)
		for _, s := range sims {
			list = append(list, simOf(s, pending))
		}
		return list, next, err
	})
}

// sim finds the SIM in the call's path.
func (c *call) sim(ctx context.Context) (license.SIM, error) {
	account, iccid, err := c.simKey(ctx)
	if err != nil {
		return license.SIM{}, err
	}
	sims, err := c.store().Devices(ctx, license.DeviceFilter{
		Accounts: []license.AccountName{account}, Device: license.Device{ICCID: iccid}, Limit: 1,
	})
	if err == nil && len(sims) == 0 {
		err = problemf(errNotFound, "account %s has no SIM %s", account, iccid)
	}
	if err != nil {
		return license.SIM{}, err
	}
	return sims[0], nil
}

func (c *call) simKey(ctx context.Context) (license.AccountName, license.ICCID, error) {
	iccid, err := license.ParseICCID(c.r.PathValue("iccid"))
	if err != nil {
		return "", "", err
	}
	account, err := c.account(ctx)
	return account, iccid, err
}

func (a *API) getSIM(ctx context.Context, c *call) (client.SIM, error) {
	s, err := c.sim(ctx)
	if err != nil {
		return client.SIM{}, err
	}
	c.etag = simTag(s)
	pending, err := c.store().Pending(ctx, s.Account, []license.SIM{s})
	return simOf(s, pending), err
}

func (a *API) changeSIM(ctx context.Context, c *call, in client.SIMChange) (client.SIM, error) {
	state, err := parseState(in.State)
	if err != nil {
		return client.SIM{}, err
	}
	account, iccid, err := c.simKey(ctx)
	if err != nil {
		return client.SIM{}, err
	}
	_, err = c.store().ChangeSIM(ctx, account, iccid, func(s license.SIM) (license.SIM, error) {
		if err := c.match(simTag(s)); err != nil {
			return s, err
		}
		s.State = state
		return s, nil
	})
	if err != nil {
		return client.SIM{}, err
	}
	return a.getSIM(ctx, c)
}

// parseState reads a state that must be there.
func parseState(s string) (license.State, error) {
	if s == "" {
		return "", problemf(errInvalid, "state is missing: it is active, suspend, deactive or pre-active")
	}
	return license.ParseState(s)
}

// maxChanged is how many SIMs one call changes.
const maxChanged = 10_000

func (a *API) changeSIMs(ctx context.Context, c *call, in client.SIMsChange) (out client.Changed, err error) {
	state, err := parseState(in.State)
	if err != nil {
		return out, err
	}
	if n := len(in.ICCIDs); n == 0 || n > maxChanged {
		return out, problemf(errInvalid, "iccids has %d; it must have 1 to %d", n, maxChanged)
	}
	iccids := make([]license.ICCID, len(in.ICCIDs))
	for i, text := range in.ICCIDs {
		if iccids[i], err = license.ParseICCID(text); err != nil {
			return out, err
		}
	}
	account, err := c.account(ctx)
	if err != nil {
		return out, err
	}
	out.Changed, err = c.store().SetState(ctx, account, iccids, state)
	return out, err
}

// simHistory lists what was done with a SIM, the newest first.
func (a *API) simHistory(ctx context.Context, c *call) (page client.Page[client.Task], err error) {
	q := c.query()
	var before license.RequestID
	q.cursor(&before)
	if q.err != nil {
		return page, q.err
	}
	s, err := c.sim(ctx)
	if err != nil {
		return page, err
	}
	list, err := c.store().History(ctx, s.Account, s.Device.ICCID, before, q.limit+1)
	tasks := make([]client.Task, len(list))
	for i, t := range list {
		tasks[i] = taskOf(t)
	}
	return cut(tasks, q.limit, func(t client.Task) any { return t.Request }), err
}

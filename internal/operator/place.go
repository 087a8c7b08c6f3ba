package operator

import (
	"context"
	"errors"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
)

// byOperator is the application of requests that an operator made; the user is the
// operator's name.
const byOperator = "operator"

// newRequest is the request that a call describes.
func (c *call) newRequest(ctx context.Context, in client.NewRequest) (*license.Request, error) {
	account, err := c.account(ctx)
	if err != nil {
		return nil, err
	}
	sku, err := license.ParseSKU(in.SKU)
	if err != nil {
		return nil, err
	}
	action := license.Action(in.Action)
	switch {
	case action != license.Assign && action != license.Unassign:
		return nil, problemf(errInvalid, "action %.40q: it is assign or unassign", in.Action)
	case len(in.ICCIDs) > c.api.cfg.MaxDevices:
		return nil, problemf(errInvalid, "a request has at most %d SIMs, and these are %d", c.api.cfg.MaxDevices, len(in.ICCIDs))
	}
	devices := make([]license.Device, len(in.ICCIDs))
	for i, text := range in.ICCIDs {
		if devices[i].ICCID, err = license.ParseICCID(text); err != nil {
			return nil, err
		}
	}
	now := c.api.cfg.Clock.Now()
	r, err := license.NewRequest(license.NewRequestID(now, c.api.cfg.Random), account, sku, action, devices, now)
	if errors.Is(err, license.ErrDuplicate) {
		return nil, problemf(errInvalid, "%v", err)
	}
	return r, err
}

// plan says, SIM by SIM, what a request would do, and writes nothing.
func (a *API) plan(ctx context.Context, c *call, in client.NewRequest) (out client.Planned, err error) {
	r, err := c.newRequest(ctx, in)
	if err != nil {
		return out, err
	}
	p, err := c.store().Plan(ctx, r)
	if err != nil {
		return out, err
	}
	out = client.Planned{Pool: poolOf(p.Pool), Devices: make([]client.PlannedDevice, len(r.Devices))}
	for i, d := range r.Devices {
		out.Devices[i] = client.PlannedDevice{ICCID: string(d.ICCID), OK: p.Devices[i] == nil}
		if p.Devices[i] != nil {
			out.Unfit++
			out.Devices[i].Reason = p.Devices[i].Error()
		} else {
			out.Fit++
		}
	}
	switch {
	case p.Err == nil:
	case errors.Is(p.Err, license.ErrInsufficient) && out.Fit > 0 && p.Pool.Available() >= int64(out.Fit):
		// Those that fit would do.
	default:
		out.Refusal = p.Err.Error()
	}
	return out, nil
}

// place has a request of an operator's accepted, as one of a client's is.
func (a *API) place(ctx context.Context, c *call, in client.NewRequest) (out client.Request, err error) {
	r, err := c.newRequest(ctx, in)
	if err != nil {
		return out, err
	}
	accepted, err := a.cfg.Accept(ctx, license.AcceptParams{Request: r, Application: byOperator, User: c.operator.Name})
	var devices *license.DevicesError
	switch {
	case errors.As(err, &devices):
		return out, problemf(errDevices, "%v: nothing was done; a plan says it SIM by SIM", devices)
	case errors.Is(err, license.ErrPolicy):
		return out, problemf(errPolicy, "%v", err)
	case errors.Is(err, license.ErrInsufficient):
		return out, problemf(errInsufficient, "the account has fewer than %d licenses of %s available", len(r.Devices), r.SKU)
	case err != nil:
		return out, err
	}
	c.created("/accounts/", string(r.Account), "/requests/", string(accepted.ID))
	kept, err := c.store().Request(ctx, r.Account, accepted.ID)
	return requestOf(kept), err
}

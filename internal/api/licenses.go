package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	"github.com/simlatch/simlatch/internal/crash"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/tracing"
	"github.com/simlatch/simlatch/m2m"
)

func (a *API) assign(ctx context.Context, c *call, in *m2m.LicenseRequest) (any, error) {
	return a.request(ctx, c, license.Assign, in)
}

func (a *API) unassign(ctx context.Context, c *call, in *m2m.LicenseRequest) (any, error) {
	return a.request(ctx, c, license.Unassign, in)
}

// request assigns or unassigns, or says what would come of it. The order of the
// checks is part of the API (docs/compatibility.md).
func (a *API) request(ctx context.Context, c *call, action license.Action, in *m2m.LicenseRequest) (any, error) {
	dry, err := dryRun(c)
	if err != nil {
		return nil, err
	}
	account, err := c.Account(in.AccountName)
	if err != nil {
		return nil, accountError(err)
	}
	key, hash := idempotency(c)
	if key != "" && !dry {
		id, err := a.cfg.Licenses.Replay(ctx, account, c.Application, string(action), key, hash, a.cfg.Clock.Now())
		if err == nil {
			return m2m.RequestAccepted{RequestID: string(id)}, nil
		}
		if !errors.Is(err, license.ErrNotFound) {
			return nil, err
		}
	}
	sku, devices, err := parseRequest(in)
	if err != nil {
		return nil, err
	}
	if dry {
		return a.plan(ctx, account, sku, action, in, devices)
	}
	req, err := a.newRequest(account, sku, action, devices)
	if err != nil {
		return nil, err
	}
	accepted, err := a.Accept(ctx, license.AcceptParams{
		Request: req, Application: c.Application, User: c.User, Trace: trace(c),
		IdempotencyKey: key, BodyHash: hash,
	})
	if err != nil {
		return nil, err
	}
	return m2m.RequestAccepted{RequestID: string(accepted.ID)}, nil
}

// Accept stores a request, with as many of its tasks as there is room for already
// ours, and hands those over. Its errors are those of Licenses.
func (a *API) Accept(ctx context.Context, p license.AcceptParams) (accepted license.Accepted, err error) {
	r := p.Request
	p.Room = a.cfg.Work.Reserve(r.Account, len(r.Devices))
	// Also when nothing was accepted: the room must become free again.
	defer func() { a.cfg.Work.Give(r.Account, p.Room, accepted.Tasks) }()
	p.LeaseUntil = a.cfg.Clock.Now().Add(a.cfg.Lease)
	accepted, err = a.cfg.Licenses.Accept(ctx, p)
	if err != nil {
		return accepted, err
	}
	if accepted.More {
		a.cfg.Work.Wake()
	}
	if !accepted.Replay {
		a.metrics.accepted(r.Action, len(r.Devices))
	}
	crash.At(crash.AcceptAnswering)
	return accepted, nil
}

// newRequest applies the rules that need no stored facts. It sorts devices.
func (a *API) newRequest(account license.AccountName, sku license.SKU, action license.Action, devices []license.Device) (*license.Request, error) {
	now := a.cfg.Clock.Now()
	req, err := license.NewRequest(license.NewRequestID(now, a.cfg.Random), account, sku, action, devices, now)
	switch {
	case errors.Is(err, license.ErrDuplicate):
		return nil, err
	case len(devices) > a.cfg.MaxDevices: // after duplicates, before the rest
		return nil, errTooManyDevices(a.cfg.MaxDevices)
	}
	return req, err
}

// parseRequest checks each part of a request by itself.
func parseRequest(in *m2m.LicenseRequest) (license.SKU, []license.Device, error) {
	sku, err := license.ParseSKU(in.SKUNumber)
	if err != nil {
		return "", nil, err
	}
	if in.GroupName != "" || in.DeviceGroupName != "" {
		return "", nil, errGroup()
	}
	if len(in.Devices) == 0 {
		return "", nil, &license.InputError{Field: license.FieldDevices, Reason: "a device must be defined"}
	}
	devices := make([]license.Device, len(in.Devices))
	for i := range in.Devices {
		if devices[i], err = parseDevice(in.Devices[i].DeviceIDs); err != nil {
			return "", nil, err
		}
	}
	return sku, devices, nil
}

// parseDevice reads the identifiers of a device: an IMEI, an ICCID or both, in
// either order.
func parseDevice(ids []m2m.DeviceID) (d license.Device, err error) {
	if len(ids) == 0 {
		return d, errIdentifiersNull()
	}
	for _, id := range ids {
		var twice bool
		switch {
		case strings.EqualFold(id.Kind, m2m.KindIMEI):
			if twice = d.IMEI != ""; !twice {
				d.IMEI, err = license.ParseIMEI(id.ID)
			}
		case strings.EqualFold(id.Kind, m2m.KindICCID):
			if twice = d.ICCID != ""; !twice {
				d.ICCID, err = license.ParseICCID(id.ID)
			}
		default:
			err = &license.InputError{Field: license.FieldDeviceKind, Value: id.Kind, Reason: "it must be IMEI or ICCID"}
		}
		if twice {
			err = &license.InputError{
				Field: license.FieldDeviceID, Value: id.ID,
				Reason: "a device is named by one IMEI, one ICCID or one of each",
			}
		}
		if err != nil {
			return license.Device{}, err
		}
	}
	return d, nil
}

// dryRun reports whether the call only asks. A header that does not clearly say
// so is refused, since the assignment it would become may be for ever.
func dryRun(c *call) (bool, error) {
	values := c.r.Header.Values(m2m.DryRunHeader)
	for _, v := range values {
		if v != "true" {
			return false, errDryRun(v)
		}
	}
	return len(values) > 0, nil
}

// idempotency is the caller's Idempotency-Key, if any, and the hash of the body
// it stands for.
func idempotency(c *call) (key, hash string) {
	key = strings.Join(c.r.Header.Values("Idempotency-Key"), ",")
	if key == "" {
		return "", ""
	}
	sum := sha256.Sum256(c.body)
	return storable(key), hex.EncodeToString(sum[:])
}

// trace is the W3C trace context of the call, which is stored with the request:
// that of our own span, or the caller's where we trace nothing.
func trace(c *call) string {
	const most = 128 // twice the present version's length
	if t := tracing.Of(c.r.Context()); t != "" {
		return t
	}
	t := c.r.Header.Get(tracing.Header)
	if len(t) > most || requestID(t) != t {
		return ""
	}
	return t
}

// plan answers a dry run: what would become of each device, in the order of the
// request. Nothing is written.
func (a *API) plan(ctx context.Context, account license.AccountName, sku license.SKU, action license.Action,
	in *m2m.LicenseRequest, devices []license.Device,
) (any, error) {
	sorted := slices.Clone(devices)
	req, err := a.newRequest(account, sku, action, sorted)
	var p license.Plan
	switch {
	case errors.Is(err, license.ErrLifetime):
		p, err = a.lifetimePlan(ctx, account, sku, len(devices))
	case err == nil:
		sorted = slices.Clone(req.Devices) // the store may complete the request's
		p, err = a.cfg.Licenses.Plan(ctx, req)
	}
	if err != nil {
		return nil, err
	}
	if errors.Is(p.Err, license.ErrPolicy) {
		// It comes before whatever else is wrong with a device.
		p.Devices = slices.Repeat([]error{p.Err}, len(devices))
	}
	at := make(map[license.Device]int, len(sorted))
	for i, d := range sorted {
		at[d] = i
	}
	out := m2m.Plan{
		DryRun: true, AccountName: string(account), SKUNumber: string(sku), Action: string(action),
		Accepted: p.Err == nil, Devices: make([]m2m.PlanDevice, len(devices)),
	}
	for i, d := range devices {
		out.Devices[i] = planDevice(in.Devices[i].DeviceIDs, d, p.Devices[at[d]])
		out.Accepted = out.Accepted && p.Devices[at[d]] == nil
	}
	p.Pool.Account, p.Pool.SKU = account, sku // an account may have none
	after := p.Pool
	if out.Accepted {
		after.Assigned += map[license.Action]int64{license.Assign: 1, license.Unassign: -1}[action] * int64(len(devices))
	}
	out.Pool = m2m.PlanPool{Before: subscription(p.Pool), After: subscription(after)}
	return out, nil
}

// lifetimePlan is the plan of an unassignment that can never be.
func (a *API) lifetimePlan(ctx context.Context, account license.AccountName, sku license.SKU, devices int) (license.Plan, error) {
	p := license.Plan{Devices: slices.Repeat([]error{license.ErrLifetime}, devices)}
	pools, err := a.cfg.Inventory.Pools(ctx, account)
	for _, pool := range pools {
		if pool.SKU == sku {
			p.Pool = pool
		}
	}
	return p, err
}

func planDevice(ids []m2m.DeviceID, d license.Device, refusal error) m2m.PlanDevice {
	out := m2m.PlanDevice{DeviceIDs: ids, Outcome: "ok"}
	if refusal == nil {
		return out
	}
	var named *license.DevicesError
	if !errors.As(refusal, &named) {
		refusal = &license.DevicesError{Err: refusal, Devices: []license.Device{d}}
	}
	e := wire(refusal)
	out.Outcome, out.ErrorCode, out.ErrorMessage = "refused", e.code, e.message
	return out
}

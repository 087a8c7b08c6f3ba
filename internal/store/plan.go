package store

import (
	"context"
	"errors"
	"slices"

	"github.com/simlatch/simlatch/internal/license"
)

const selectByIMEI = `SELECT imei, iccid FROM sim
	WHERE account = $1 AND imei {any $2}`

// resolve finds the ICCID of the devices that are named by their IMEI alone. An
// IMEI that does not name exactly one SIM of the account stays without. It
// returns a new slice where it changes anything.
func (s *Store) resolve(ctx context.Context, account license.AccountName, devices []license.Device) ([]license.Device, error) {
	var imeis []license.IMEI
	for _, d := range devices {
		if d.ICCID == "" {
			imeis = append(imeis, d.IMEI)
		}
	}
	if len(imeis) == 0 {
		return devices, nil
	}
	pairs, err := collect(s.reader(ctx), func(scan func(...any) error) (d license.Device, err error) {
		return d, scan(&d.IMEI, &d.ICCID)
	}, selectByIMEI, string(account), only(imeis))
	if err != nil {
		return nil, err
	}
	found := make(map[license.IMEI]license.ICCID, len(pairs))
	for _, p := range pairs {
		if _, twice := found[p.IMEI]; twice {
			p.ICCID = ""
		}
		found[p.IMEI] = p.ICCID
	}
	devices = slices.Clone(devices)
	for i := range devices {
		if d := &devices[i]; d.ICCID == "" {
			d.ICCID = found[d.IMEI]
		}
	}
	return devices, nil
}

// Plan says what a request would do, device by device in the request's order,
// and writes nothing.
func (s *Store) Plan(ctx context.Context, r *license.Request) (license.Plan, error) {
	p := license.Plan{Pool: license.Pool{Account: r.Account, SKU: r.SKU}}
	resolved := *r
	var err error
	if resolved.Devices, err = s.resolve(ctx, r.Account, r.Devices); err != nil {
		return p, s.failed("looking devices up", err)
	}
	err = s.snapshotOf(ctx, s.db, func(q querier) error {
		pools, err := selectPools(q, r.Account)
		if err != nil {
			return err
		}
		for _, pool := range pools {
			if pool.SKU == r.SKU {
				p.Pool = pool
			}
		}
		if p.Err = refusal(q, &resolved); p.Err != nil && !errors.Is(p.Err, license.ErrPolicy) {
			return p.Err
		}
		p.Devices, err = diagnose(q, &resolved)
		return err
	})
	if err == nil && p.Err == nil && r.Action == license.Assign && p.Pool.Available() < int64(len(r.Devices)) {
		p.Err = license.ErrInsufficient
	}
	return p, s.failed("planning a request", err)
}

const selectEntitlements = `SELECT iccid, imei, state, generation, sku, request FROM sim
	WHERE account = $1 AND iccid {any $2}`

// standing is what decides whether a request may take a SIM.
type standing struct {
	license.SIM
	pending bool // in transition, either way
}

// diagnose finds for each device of a request, in its order, the first reason
// why it cannot be taken; nil where there is none.
func diagnose(q querier, r *license.Request) ([]error, error) {
	iccids := make([]license.ICCID, len(r.Devices))
	for i, d := range r.Devices {
		iccids[i] = d.ICCID
	}
	found := make(map[license.ICCID]standing, len(r.Devices))
	var held []pair
	_, err := collect(q, func(scan func(...any) error) (struct{}, error) {
		var s standing
		err := scan(&s.Device.ICCID, &s.Device.IMEI, &s.State, &s.Generation, &s.SKU, &s.Request)
		found[s.Device.ICCID] = s
		if s.SKU != "" {
			held = append(held, pair{string(s.Request), s.Device.ICCID})
		}
		return struct{}{}, err
	}, selectEntitlements, string(r.Account), only(iccids))
	if err != nil {
		return nil, err
	}
	pending, err := pendingAmong(q, r.Account, held)
	if err != nil {
		return nil, err
	}
	for _, iccid := range pending {
		s := found[iccid]
		s.pending = true
		found[iccid] = s
	}
	reasons := make([]error, len(r.Devices))
	seen := make(map[license.ICCID]bool, len(r.Devices))
	for i, d := range r.Devices {
		s, ok := found[d.ICCID]
		switch {
		case !ok || d.IMEI != "" && d.IMEI != s.Device.IMEI:
			reasons[i] = license.ErrUnknownDevice
		case seen[d.ICCID]:
			reasons[i] = license.ErrDuplicate
		case r.Action == license.Assign:
			reasons[i] = s.againstAssign()
		default:
			reasons[i] = s.againstUnassign(r.SKU)
		}
		seen[d.ICCID] = true
	}
	return reasons, nil
}

func (s standing) againstAssign() error {
	switch {
	case s.State != license.StateActive:
		return license.ErrNotActive
	case s.Generation != license.Generation4G:
		return license.ErrNotEligible
	case s.SKU != "":
		return license.ErrHeld
	}
	return nil
}

func (s standing) againstUnassign(sku license.SKU) error {
	switch {
	case s.pending:
		return license.ErrHeld
	case s.SKU != sku:
		return license.ErrNotHeld
	}
	return nil
}

// reasonOrder is the order in which the reasons count for a request as a whole
// (behaviour.md 2).
var reasonOrder = []error{
	license.ErrUnknownDevice, license.ErrDuplicate, license.ErrNotActive,
	license.ErrNotEligible, license.ErrHeld, license.ErrNotHeld,
}

// refuse is the error of a request that cannot be taken as a whole: the first
// reason that applies to any device, with all the devices it applies to; nil
// where none does.
func (s *Store) refuse(q querier, r *license.Request) error {
	reasons, err := diagnose(q, r)
	if err != nil {
		return err
	}
	for _, reason := range reasonOrder {
		var at []license.Device
		for i, err := range reasons {
			if errors.Is(err, reason) {
				at = append(at, r.Devices[i])
			}
		}
		if len(at) > 0 {
			return &license.DevicesError{Err: reason, Devices: at}
		}
	}
	return nil
}

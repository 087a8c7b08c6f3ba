package bulk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// MakeParams is what Make makes a plan of.
type MakeParams struct {
	Client  *m2m.Client
	Server  string // its URL, which the plan is bound to
	Account string
	Action  license.Action
	SKU     string
	Fleet   *Fleet
	SkipBad bool
	Now     time.Time
	// Progress, when not nil, is told how many rows have been checked.
	Progress func(rows int)
}

// dryRunSize is how many devices one dry run is about.
const dryRunSize = 2000

// Make checks each row of a fleet and says what would come of it. Nothing is
// changed anywhere. Its errors are those of the request as a whole, such as an
// account that is not there.
func Make(ctx context.Context, m MakeParams) (*Plan, error) {
	if m.Progress == nil {
		m.Progress = func(int) {}
	}
	p := &Plan{
		Made: m.Now.UTC().Truncate(time.Second), Server: m.Server, Account: m.Account,
		Action: string(m.Action), SKU: m.SKU, File: m.Fleet.Name, SkipBad: m.SkipBad,
		Irreversible: Irreversible(m.Action, m.SKU), Rows: slices.Clone(m.Fleet.Rows),
	}
	// Those that are bad by themselves are not asked about.
	var rows []*Row
	for i := range p.Rows {
		if p.Rows[i].OK() {
			rows = append(rows, &p.Rows[i])
		}
	}
	var err error
	if p.DryRun, err = m.Client.Simlatch(ctx); err != nil {
		return nil, fmt.Errorf("calling the server: %w", err)
	}
	if err := p.readPool(ctx, m.Client); err != nil {
		return nil, err
	}
	if p.DryRun {
		err = p.dryRun(ctx, m, rows)
	} else {
		err = p.lookUp(ctx, m, rows)
	}
	if err != nil {
		return nil, err
	}
	p.After = p.Before
	if moved := int64(p.OK() - p.Short()); m.Action == license.Assign {
		p.After.LicenseAssigned += moved
		p.After.LicenseAvailable -= moved
	} else {
		p.After.LicenseAssigned -= moved
		p.After.LicenseAvailable += moved
	}
	return p, nil
}

// readPool reads the pool as it is, and the account's name where only the
// server knows it. An account may have no such pool.
func (p *Plan) readPool(ctx context.Context, c *m2m.Client) error {
	list, err := c.Subscriptions(ctx, p.Account, p.SKU)
	if err != nil {
		return fmt.Errorf("reading the pool: %w", err)
	}
	if list.AccountName != "" {
		p.Account = list.AccountName
	}
	p.Before = pool(list, p.SKU)
	return nil
}

func pool(list m2m.Subscriptions, sku string) m2m.Subscription {
	for _, s := range list.SubscriptionList {
		if s.SKUNumber == sku {
			return s
		}
	}
	return m2m.Subscription{SKUNumber: sku}
}

// dryRun has the server say what would become of each row.
func (p *Plan) dryRun(ctx context.Context, m MakeParams, rows []*Row) error {
	done := 0
	for size := dryRunSize; done < len(rows); {
		part := rows[done:min(done+size, len(rows))]
		answer, err := m.Client.Plan(ctx, wireAction(m.Action), p.request(part))
		switch {
		case errors.Is(err, m2m.ErrMaxRequestsExceeded) && size > 1:
			size /= 2
			continue
		case err != nil:
			return fmt.Errorf("the dry run: %w", err)
		case len(answer.Devices) != len(part):
			return fmt.Errorf("the dry run of %d devices was answered for %d", len(part), len(answer.Devices))
		}
		for i, d := range answer.Devices {
			if d.Outcome != m2m.PlanOK {
				part[i].Code, part[i].Message = d.ErrorCode, d.ErrorMessage
			}
		}
		done += len(part)
		m.Progress(done)
	}
	return nil
}

func (p *Plan) request(rows []*Row) m2m.LicenseRequest {
	r := m2m.LicenseRequest{AccountName: p.Account, SKUNumber: p.SKU}
	for _, row := range rows {
		r.Devices = append(r.Devices, row.device())
	}
	return r
}

func wireAction(a license.Action) m2m.Action {
	if a == license.Unassign {
		return m2m.ActionUnassign
	}
	return m2m.ActionAssign
}

// fewDevices are looked up one by one; for more, the whole list is read.
const fewDevices = 20

// lookUp says what the API of any server tells: whether it knows the devices and
// they are active. The rest is left unchecked, and said to be.
func (p *Plan) lookUp(ctx context.Context, m MakeParams, rows []*Row) error {
	if m.Action == license.Unassign && m.SKU == string(license.SKULifetime) {
		for _, r := range rows {
			r.Code, r.Message = m2m.ErrUnassignLifetime.Code, m2m.ErrUnassignLifetime.Message
		}
		return nil
	}
	p.Unchecked = []string{"whether each device is a 4G device", "whether a device holds a license already, or one is on the way", "the account's policy"}
	if m.Action == license.Unassign {
		p.Unchecked = []string{"whether each device holds a license of this SKU", "the account's policy"}
	}
	known, err := devicesOf(ctx, m, p.Account, rows)
	var refusal *m2m.Error
	if errors.As(err, &refusal) && refusal.Status < 500 {
		p.Unchecked = append(p.Unchecked, "whether the account has the devices and they are active: the server does not list them: "+refusal.Error())
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing the devices: %w", err)
	}
	for i, r := range rows {
		known.judge(r, m.Action)
		if (i+1)%dryRunSize == 0 || i+1 == len(rows) {
			m.Progress(i + 1)
		}
	}
	return nil
}

// listed is what a device list says of devices, by ICCID and by IMEI.
type listed struct {
	iccid map[string]*m2m.DeviceInfo
	imei  map[string][]*m2m.DeviceInfo
}

func (l *listed) judge(r *Row, action license.Action) {
	d := l.iccid[r.ICCID]
	if same := l.imei[r.IMEI]; r.ICCID == "" && len(same) == 1 {
		d = same[0]
	}
	switch {
	case d == nil || r.IMEI != "" && d.IMEI() != r.IMEI:
		r.Code, r.Message = m2m.ErrDevicesNotFound.Code, m2m.ErrDevicesNotFound.Message
	case action == license.Assign && d.State() != "" && d.State() != "active":
		r.Code, r.Message = m2m.CodeDeviceState, fmt.Sprintf("The device is in the state %s.", quote(d.State()))
	}
}

// devicesOf lists the devices that rows name: one by one where they are few, or
// else among all that the account has.
func devicesOf(ctx context.Context, m MakeParams, account string, rows []*Row) (*listed, error) {
	l := &listed{iccid: map[string]*m2m.DeviceInfo{}, imei: map[string][]*m2m.DeviceInfo{}}
	wanted := make(map[string]bool, 2*len(rows))
	requests := []m2m.DeviceListRequest{{AccountName: account}}
	if len(rows) <= fewDevices {
		requests = nil
	}
	for _, r := range rows {
		wanted[r.ICCID], wanted[r.IMEI] = true, true
		if len(rows) <= fewDevices {
			id := r.device().DeviceIDs[len(r.device().DeviceIDs)-1] // the ICCID, where there is one
			requests = append(requests, m2m.DeviceListRequest{AccountName: account, DeviceID: &id})
		}
	}
	delete(wanted, "")
	for _, request := range requests {
		for d, err := range m.Client.Devices(ctx, request) {
			if err != nil {
				return nil, err
			}
			iccid, imei := d.ICCID(), d.IMEI()
			if wanted[iccid] || wanted[imei] {
				l.iccid[iccid] = &d
				l.imei[imei] = append(l.imei[imei], &d)
			}
		}
	}
	return l, nil
}

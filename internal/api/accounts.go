package api

import (
	"context"
	"strings"

	"github.com/google/uuid"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// account describes an account: as much of it as we keep.
func (a *API) account(_ context.Context, c *call, _ struct{}) (m2m.Account, error) {
	name, err := c.Account(c.r.PathValue("account"))
	if err != nil {
		return m2m.Account{}, accountError(err)
	}
	return m2m.Account{
		AccountName: string(name), AccountNumber: string(name), IsProvisioningAllowed: true,
		Carriers: []string{a.cfg.CarrierName}, Features: []string{}, IPPools: []m2m.IPPool{}, ServicePlans: []m2m.ServicePlan{},
	}, nil
}

// subscriptions lists an account's pools, or the one of a SKU.
func (a *API) subscriptions(ctx context.Context, c *call, in m2m.SubscriptionsRequest) (m2m.Subscriptions, error) {
	name, err := c.Account(in.AccountName)
	if err != nil {
		return m2m.Subscriptions{}, accountError(err)
	}
	if in.SKUNumber != "" {
		if _, err := license.ParseSKU(in.SKUNumber); err != nil {
			return m2m.Subscriptions{}, err
		}
	}
	pools, err := a.cfg.Inventory.Pools(ctx, name)
	if err != nil {
		return m2m.Subscriptions{}, err
	}
	list := []m2m.Subscription{}
	for _, p := range pools {
		if in.SKUNumber == "" || in.SKUNumber == string(p.SKU) {
			list = append(list, subscription(p))
		}
	}
	return m2m.Subscriptions{AccountName: string(name), SubscriptionList: list}, nil
}

func subscription(p license.Pool) m2m.Subscription {
	return m2m.Subscription{
		SKUNumber: string(p.SKU), LicenseType: p.SKU.Label(),
		LicensePurchased: p.Purchased, LicenseAssigned: p.Assigned, LicenseAvailable: p.Available(),
	}
}

// requestStatus tells how a request stands, whatever the number of its devices.
func (a *API) requestStatus(ctx context.Context, c *call, _ struct{}) (m2m.RequestStatus, error) {
	name, err := c.Account(c.r.PathValue("account"))
	if err != nil {
		return m2m.RequestStatus{}, accountError(err)
	}
	id := strings.ToLower(c.r.PathValue("request"))
	if len(id) != canonicalUUID || uuid.Validate(id) != nil {
		return m2m.RequestStatus{}, requestError(license.ErrNotFound)
	}
	p, err := a.cfg.Inventory.Progress(ctx, name, license.RequestID(id))
	if err != nil {
		return m2m.RequestStatus{}, requestError(err)
	}
	return m2m.RequestStatus{RequestID: string(p.ID), Status: string(p.Status())}, nil
}

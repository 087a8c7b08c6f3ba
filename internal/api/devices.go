package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

const (
	// maxListed is the most devices of one answer (thingspace-api.md 8.2).
	maxListed = 2000
	// maxFilters is the most deviceIdentifierFilters of one request.
	maxFilters = 10
	// defaultGroup is the group of every device, since we keep no others.
	defaultGroup = "Unassigned Devices"
	// deviceNumber is the attribute by whose value lists are paged.
	deviceNumber = "DeviceId"
)

// devices lists devices. A filter we cannot honour is refused, since ignoring
// it would answer with devices nobody asked for.
func (a *API) devices(ctx context.Context, c *call, in m2m.DeviceListRequest) (m2m.DeviceList, error) {
	accounts, err := visible(c, in.AccountName)
	if err != nil {
		return m2m.DeviceList{}, err
	}
	f, err := a.deviceFilter(in)
	if err != nil {
		return m2m.DeviceList{}, err
	}
	most := f.Limit
	f.Accounts, f.Limit = accounts, most+1 // one more tells whether there are more
	sims, err := a.cfg.Inventory.Devices(ctx, f)
	if err != nil {
		return m2m.DeviceList{}, err
	}
	out := m2m.DeviceList{HasMoreData: len(sims) > most, Devices: []m2m.DeviceInfo{}}
	if out.HasMoreData {
		sims = sims[:most]
		c.status = http.StatusAccepted
	}
	for _, s := range sims {
		out.Devices = append(out.Devices, a.deviceInfo(s))
	}
	return out, nil
}

// visible lists the accounts a device list is about: the one named, or all the
// user's. It is never empty, since a filter by no account selects all there are.
func visible(c *call, name string) ([]license.AccountName, error) {
	if name != "" || len(c.Accounts) < 2 {
		account, err := c.Account(name)
		return []license.AccountName{account}, accountError(err)
	}
	return c.Accounts, nil
}

// deviceFilter reads the filter of a device list; its accounts are left open.
func (a *API) deviceFilter(in m2m.DeviceListRequest) (license.DeviceFilter, error) {
	f := license.DeviceFilter{After: in.LargestDeviceIDSeen, Limit: maxListed}
	if err := a.unsupported(in); err != nil {
		return f, err
	}
	if in.MaxNumberOfDevices < 0 {
		return f, errFilter("maxNumberOfDevices", "it cannot be negative")
	}
	if in.LargestDeviceIDSeen < 0 {
		return f, errFilter("largestDeviceIdSeen", "it cannot be negative")
	}
	if in.MaxNumberOfDevices > 0 {
		f.Limit = int(min(in.MaxNumberOfDevices, maxListed))
	}
	var err error
	if in.CurrentState != "" {
		if f.State, err = license.ParseState(in.CurrentState); err != nil {
			return f, err
		}
	}
	if in.DeviceID != nil && *in.DeviceID != (m2m.DeviceID{}) {
		if f.Device, err = parseListed(*in.DeviceID); err != nil {
			return f, err
		}
	}
	if len(in.DeviceList) > a.cfg.MaxDevices {
		return f, errTooManyDevices(a.cfg.MaxDevices)
	}
	for _, id := range in.DeviceList {
		d, err := parseListed(id)
		if err != nil {
			return f, err
		}
		f.Devices = append(f.Devices, d)
	}
	if f.Match, err = parseMatches(in.Filter); err != nil {
		return f, err
	}
	if f.Earliest, err = parseTime("earliest", in.Earliest); err != nil {
		return f, err
	}
	f.Latest, err = parseTime("latest", in.Latest)
	return f, err
}

// unsupported refuses filters by what we do not know of devices.
func (a *API) unsupported(in m2m.DeviceListRequest) error {
	switch {
	case in.GroupName != "" && in.GroupName != defaultGroup:
		return errFilterNotSupported("groupName", "every device is in the group "+quote(defaultGroup))
	case in.ServicePlan != "":
		return errFilterNotSupported("servicePlan", "service plans are not kept here")
	case len(in.CustomFields) > 0:
		return errFilterNotSupported("customFields", "custom fields are not kept here")
	case in.CarrierNameFilter != "" && !strings.EqualFold(in.CarrierNameFilter, a.cfg.CarrierName):
		return errFilterNotSupported("carrierNameFilter", "the carrier of every device is "+quote(a.cfg.CarrierName))
	}
	return nil
}

// parseListed reads an identifier by which a device list can select.
func parseListed(id m2m.DeviceID) (d license.Device, err error) {
	kind, err := parseKind(id.Kind)
	if err != nil {
		return d, err
	}
	switch kind {
	case license.KindICCID:
		d.ICCID, err = license.ParseICCID(id.ID)
	case license.KindIMEI:
		d.IMEI, err = license.ParseIMEI(id.ID)
	case license.KindMDN:
		if id.ID == "" {
			return d, &license.InputError{Field: license.FieldDeviceID, Reason: "an MDN has 1 to 15 decimal digits"}
		}
		d.MDN, err = license.ParseMDN(id.ID)
	}
	return d, err
}

func parseKind(s string) (license.IdentifierKind, error) {
	for _, k := range []license.IdentifierKind{license.KindICCID, license.KindIMEI, license.KindMDN} {
		if strings.EqualFold(s, string(k)) {
			return k, nil
		}
	}
	return "", &license.InputError{Field: license.FieldDeviceKind, Value: s, Reason: "it must be IMEI, ICCID or MDN"}
}

func parseMatches(in *m2m.DeviceFilter) ([]license.IdentifierMatch, error) {
	if in == nil {
		return nil, nil
	}
	if len(in.DeviceIdentifierFilters) > maxFilters {
		return nil, errFilter("deviceIdentifierFilters", "there may be at most "+strconv.Itoa(maxFilters))
	}
	var matches []license.IdentifierMatch
	for _, f := range in.DeviceIdentifierFilters {
		kind, err := parseKind(f.Kind)
		if err != nil {
			return nil, err
		}
		for _, part := range []string{f.Contains, f.StartsWith, f.EndsWith} {
			if len(part) > 20 || strings.Trim(part, "0123456789") != "" {
				return nil, &license.InputError{Field: license.FieldDeviceID, Value: part, Reason: "a part of an identifier has at most 20 decimal digits"}
			}
		}
		matches = append(matches, license.IdentifierMatch{Kind: kind, Contains: f.Contains, Prefix: f.StartsWith, Suffix: f.EndsWith})
	}
	return matches, nil
}

func parseTime(member, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, errFilter(member, quote(s)+" is not a date and time of RFC 3339, such as 2026-01-31T12:00:00Z")
	}
	return t, nil
}

func (a *API) deviceInfo(s license.SIM) m2m.DeviceInfo {
	d := m2m.DeviceInfo{
		AccountName:         string(s.Account),
		CarrierInformations: []m2m.CarrierInformation{{CarrierName: a.cfg.CarrierName, State: string(s.State)}},
		CreatedAt:           s.Added.UTC().Format(time.RFC3339),
		CustomFields:        []m2m.Attribute{},
		ExtendedAttributes:  []m2m.Attribute{{Key: deviceNumber, Value: strconv.FormatInt(s.Number, 10)}},
		GroupNames:          []string{defaultGroup},
	}
	if s.Device.MDN != "" {
		d.DeviceIDs = append(d.DeviceIDs, m2m.DeviceID{ID: string(s.Device.MDN), Kind: "mdn"})
	}
	d.DeviceIDs = append(d.DeviceIDs, m2m.DeviceID{ID: string(s.Device.IMEI), Kind: "imei"},
		m2m.DeviceID{ID: string(s.Device.ICCID), Kind: m2m.KindListICCID})
	if s.IMSI != "" {
		d.DeviceIDs = append(d.DeviceIDs, m2m.DeviceID{ID: s.IMSI, Kind: "imsi"})
	}
	return d
}

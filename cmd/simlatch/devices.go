package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/m2m"
)

func newDevicesCommand() *cobra.Command {
	cmd := group("devices", "List the devices of an account, as its user sees them", newDevicesListCommand())
	cmd.Long = `List the devices of an account, as its user sees them.` + onServer + `

'simlatch device', without an s, is the operator's: it works on the database,
imports devices, and knows which license each SIM holds.`
	return cmd
}

type devicesOptions struct {
	iccid, imei, mdn string
	state, form      string
	limit            int
}

func newDevicesListCommand() *cobra.Command {
	var o devicesOptions
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the devices of an account",
		Long: `List the devices of an account, page by page, so that there may be any number of
them. Without --account they are those of all accounts the user has.

The API does not tell which license a SIM holds; the columns of the CSV are those
that a fleet file needs.` + onServer,
		Example: `  simlatch devices list --limit 20
  simlatch devices list --state active --output csv > fleet.csv
  simlatch devices list --iccid 89148000000000000012 --output json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDevicesList(cmd, o) },
	}
	clientFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.iccid, "iccid", "", "only the device with this `ICCID`")
	f.StringVar(&o.imei, "imei", "", "only the device with this `IMEI`")
	f.StringVar(&o.mdn, "mdn", "", "only the device with this `MDN`")
	f.StringVar(&o.state, "state", "", "only devices in this `state`, such as active")
	f.IntVar(&o.limit, "limit", 0, "at most this many; 0 for all")
	outputFlag(cmd, &o.form)
	cmd.MarkFlagsMutuallyExclusive("iccid", "imei", "mdn")
	return cmd
}

var listedDeviceColumns = []column[m2m.DeviceInfo]{
	{"iccid", "ICCID", func(d m2m.DeviceInfo) any { return d.ICCID() }},
	{"imei", "IMEI", func(d m2m.DeviceInfo) any { return d.IMEI() }},
	{"mdn", "MDN", func(d m2m.DeviceInfo) any { return d.MDN() }},
	{"state", "STATE", func(d m2m.DeviceInfo) any { return d.State() }},
	{"account", "ACCOUNT", func(d m2m.DeviceInfo) any { return d.AccountName }},
	{"created", "CREATED", func(d m2m.DeviceInfo) any { return d.CreatedAt }},
}

// request is what the options select.
func (o devicesOptions) request(account string) m2m.DeviceListRequest {
	r := m2m.DeviceListRequest{AccountName: account, CurrentState: o.state}
	for _, id := range []m2m.DeviceID{{ID: o.iccid, Kind: "iccid"}, {ID: o.imei, Kind: "imei"}, {ID: o.mdn, Kind: "mdn"}} {
		if id.ID != "" {
			r.DeviceID = &id
		}
	}
	const page = 2000 // what the reference gives at most
	if o.limit > 0 && o.limit < page {
		r.MaxNumberOfDevices = int64(o.limit)
	}
	return r
}

func runDevicesList(cmd *cobra.Command, o devicesOptions) error {
	if o.limit < 0 {
		return usagef("--limit %d: it must not be negative", o.limit)
	}
	list, err := newLister(cmd.OutOrStdout(), o.form, listedDeviceColumns)
	if err != nil {
		return err
	}
	client, profile, err := clientOf(cmd)
	if err != nil {
		return err
	}
	n, more := 0, false
	for d, err := range client.Devices(cmd.Context(), o.request(profile.acct)) {
		if err != nil {
			return called(err)
		}
		if more = o.limit > 0 && n == o.limit; more {
			break
		}
		if err := list.put(d); err != nil {
			return err
		}
		n++
	}
	if more {
		fmt.Fprintf(cmd.ErrOrStderr(), "simlatch: there are more than %d\n", o.limit)
	}
	return list.end()
}

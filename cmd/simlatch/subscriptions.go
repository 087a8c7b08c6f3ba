package main

import (
	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/m2m"
)

func newSubscriptionsCommand() *cobra.Command {
	var sku, form string
	cmd := &cobra.Command{
		Use:   "subscriptions",
		Short: "List the license pools of an account",
		Long: `List the license pools of an account: per SKU how many licenses it has purchased,
how many are assigned to SIMs, and how many are available. A license that is
reserved by a request on its way is neither assigned nor available.` + onServer + `

'simlatch pool' is the operator's: it works on the database and adds licenses.`,
		Example: `  simlatch subscriptions
  simlatch subscriptions --sku SIMSec-IoT --output json
  simlatch subscriptions --account 0000123456-00002 --output csv > pools.csv`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, profile, err := clientOf(cmd)
			if err != nil {
				return err
			}
			account, err := profile.account(cmd.Context(), client)
			if err != nil {
				return err
			}
			pools, err := client.Subscriptions(cmd.Context(), account, sku)
			if err != nil {
				return called(err)
			}
			return writeList(cmd.OutOrStdout(), form, subscriptionColumns, pools.SubscriptionList)
		},
	}
	clientFlags(cmd)
	skuFlag(cmd, &sku, "only the pool of this `SKU`")
	outputFlag(cmd, &form)
	return cmd
}

var subscriptionColumns = []column[m2m.Subscription]{
	{"sku", "SKU", func(s m2m.Subscription) any { return s.SKUNumber }},
	{"type", "TYPE", func(s m2m.Subscription) any { return s.LicenseType }},
	{"purchased", "PURCHASED", func(s m2m.Subscription) any { return s.LicensePurchased }},
	{"assigned", "ASSIGNED", func(s m2m.Subscription) any { return s.LicenseAssigned }},
	{"available", "AVAILABLE", func(s m2m.Subscription) any { return s.LicenseAvailable }},
}

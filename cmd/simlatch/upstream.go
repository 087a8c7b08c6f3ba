package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/server"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/m2m"
)

// addUpstreamFlags adds the settings that tell who an upstream is and who we are
// there.
func addUpstreamFlags(f *pflag.FlagSet) {
	own := pflag.NewFlagSet("upstream", pflag.ContinueOnError)
	own.String("upstream-key", "", "our application's `key` at the upstream")
	own.String("upstream-secret", "", "its `secret`; give it as SIMLATCH_UPSTREAM_SECRET_FILE rather, since others can read command lines")
	own.String("upstream-user", "", "our `name` as a user of the upstream")
	own.String("upstream-password", "", "the user's `password`; give it as SIMLATCH_UPSTREAM_PASSWORD_FILE rather")
	own.StringToString("upstream-account", nil, "an account whose name there is another, as `OURS=THEIRS` (repeatable)")
	own.VisitAll(func(flag *pflag.Flag) { markSetting(own, flag.Name) })
	markSecret(own, "upstream-secret")
	markSecret(own, "upstream-password")
	f.AddFlagSet(own)
}

// addGuardFlags adds the settings of a server whose carrier is an upstream.
func addGuardFlags(f *pflag.FlagSet) {
	addUpstreamFlags(f)
	f.String("upstream-listen", server.DefaultUpstreamListen, "the `address` at which the upstream's callbacks are received, with TLS where --tls-cert is given")
	f.String("upstream-callback-url", "", "the `URL` at which the upstream reaches that")
	f.Int("upstream-batch", server.DefaultUpstreamBatch, "the largest `number` of devices in a request upstream")
	f.Float64("upstream-rate", server.DefaultUpstreamRate, "`calls` a second made upstream by this node; 0 is no limit")
	f.Duration("upstream-timeout", server.DefaultUpstreamTimeout, "time the upstream has to answer a call")
	f.Duration("upstream-patience", server.DefaultUpstreamPatience, "how long to wait for callbacks before the upstream is asked for the status of a request")
	f.String("record", "", "keep each exchange with the upstream as a file in this `directory`, secrets masked")
}

// upstreamOf reads the flags of addUpstreamFlags and, where they are there, of
// addGuardFlags.
func upstreamOf(cmd *cobra.Command) server.UpstreamConfig {
	f := cmd.Flags()
	text := func(name string) string { v, _ := f.GetString(name); return v } // "" where there is none
	u := server.UpstreamConfig{
		Key: text("upstream-key"), Secret: auth.Secret(text("upstream-secret")),
		User: text("upstream-user"), Password: auth.Secret(text("upstream-password")),
		Listen: text("upstream-listen"), CallbackURL: text("upstream-callback-url"), Record: text("record"),
	}
	u.Accounts, _ = f.GetStringToString("upstream-account")
	u.Batch, _ = f.GetInt("upstream-batch")
	u.Rate, _ = f.GetFloat64("upstream-rate")
	u.Timeout, _ = f.GetDuration("upstream-timeout")
	u.Patience, _ = f.GetDuration("upstream-patience")
	return u
}

func newUpstreamCommand() *cobra.Command {
	cmd := group("upstream", "Look at the service that is the carrier", newUpstreamCompareCommand())
	cmd.Long = `Look at the service that is the carrier of this one: the reference platform, or
another Simlatch (serve --carrier upstream:URL).` + onDatabase
	return cmd
}

func newUpstreamCompareCommand() *cobra.Command {
	var form string
	var names []string
	cmd := &cobra.Command{
		Use:   "compare --carrier upstream:URL",
		Short: "Compare the license pools here with those of the upstream",
		Long: `Compare the license pools here with the counts that the upstream gives of its
own, by account and SKU. What is pending counts as reserved on both sides, so
small differences pass while requests are under way.

The exit status is 3 when they differ.`,
		Example: `  simlatch upstream compare --config simlatch.yaml`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			u := upstreamOf(cmd)
			carrier, _ := cmd.Flags().GetString("carrier") // ours
			client, err := server.UpstreamClient(carrier, u)
			if err != nil {
				return withStatus(exitUsage, err)
			}
			return withStore(cmd, func(s *store.Store) error {
				accounts, err := findAccounts(cmd, s, names, true)
				if err != nil {
					return err
				}
				compared, err := comparePools(cmd.Context(), s, client, accounts, u.Accounts)
				if err != nil {
					return err
				}
				if err := writeList(cmd.OutOrStdout(), form, comparedColumns, compared); err != nil {
					return err
				}
				if slices.ContainsFunc(compared, func(c comparedPool) bool { return c.difference() != "" }) {
					return withStatus(exitPartly, nil) // the table says it
				}
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.String("carrier", "", "the `upstream`, as upstream:URL")
	markSetting(f, "carrier")
	addUpstreamFlags(f)
	f.StringArrayVar(&names, "account", nil, "only this account, by `name` (repeatable)")
	outputFlag(cmd, &form)
	return cmd
}

// comparedPool is a pool here and there.
type comparedPool struct {
	account     license.AccountName
	sku         license.SKU
	here, there license.Pool
}

// difference says how the counts there differ from those here; empty where they
// do not.
func (c comparedPool) difference() string {
	var d []string
	for _, n := range []struct {
		name        string
		here, there int64
	}{
		{"purchased", c.here.Purchased, c.there.Purchased},
		{"reserved", c.here.Reserved, c.there.Reserved},
		{"assigned", c.here.Assigned, c.there.Assigned},
	} {
		if n.here != n.there {
			d = append(d, fmt.Sprintf("%s %+d", n.name, n.there-n.here))
		}
	}
	return strings.Join(d, ", ")
}

// counts are those of a pool, for people.
func counts(p license.Pool) string {
	return fmt.Sprintf("%d/%d/%d", p.Purchased, p.Reserved, p.Assigned)
}

var comparedColumns = []column[comparedPool]{
	{"account", "ACCOUNT", func(c comparedPool) any { return c.account }},
	{"sku", "SKU", func(c comparedPool) any { return c.sku }},
	{"here", "HERE (PURCHASED/RESERVED/ASSIGNED)", func(c comparedPool) any { return counts(c.here) }},
	{"there", "THERE", func(c comparedPool) any { return counts(c.there) }},
	{"difference", "DIFFERENCE", func(c comparedPool) any { return c.difference() }},
}

// comparePools reads the pools of accounts, here and there.
func comparePools(ctx context.Context, s *store.Store, client *m2m.Client, accounts []license.AccountName, names map[string]string) ([]comparedPool, error) {
	var all []comparedPool
	for _, account := range accounts {
		by := map[license.SKU]*comparedPool{}
		of := func(sku license.SKU) *comparedPool {
			if by[sku] == nil {
				by[sku] = &comparedPool{account: account, sku: sku}
			}
			return by[sku]
		}
		here, err := s.Pools(ctx, account)
		if err != nil {
			return nil, err
		}
		for _, p := range here {
			of(p.SKU).here = p
		}
		there, err := client.Subscriptions(ctx, cmp.Or(names[string(account)], string(account)), "")
		if err != nil {
			return nil, fmt.Errorf("asking the upstream for the licenses of account %s: %w", account, err)
		}
		for _, p := range there.SubscriptionList {
			of(license.SKU(p.SKUNumber)).there = license.Pool{
				Purchased: p.LicensePurchased, Assigned: p.LicenseAssigned,
				Reserved: p.LicensePurchased - p.LicenseAssigned - p.LicenseAvailable,
			}
		}
		for _, sku := range slices.Sorted(maps.Keys(by)) {
			all = append(all, *by[sku])
		}
	}
	return all, nil
}

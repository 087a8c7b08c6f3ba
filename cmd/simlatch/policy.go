package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
)

func newPolicyCommand() *cobra.Command {
	cmd := group("policy", "Show and set what accounts may do of the work that cannot be undone",
		newPolicyShowCommand(), newPolicySetCommand())
	cmd.Long = `Show and set what accounts may do of the work that cannot be undone.

An account may assign lifetime licenses or not, and may have a limit of devices
that it may assign in a day (UTC). What the policy does not allow is refused as a
whole, with UnifiedWebService.REQUEST_FAILED.Policy. Unassigning is always
allowed. An account without a policy may do everything.` + onDatabase
	return cmd
}

// accountPolicy is a policy as it is listed.
type accountPolicy struct {
	license.Policy
	accepted int64 // today
}

var policyColumns = []column[accountPolicy]{
	{"account", "ACCOUNT", func(p accountPolicy) any { return p.Account }},
	{"lifetime", "LIFETIME", func(p accountPolicy) any {
		if p.RefuseLifetime {
			return "refused"
		}
		return "allowed"
	}},
	{"dailyDevices", "DEVICES A DAY", func(p accountPolicy) any {
		if p.DailyDevices == 0 {
			return nil
		}
		return p.DailyDevices
	}},
	{"acceptedToday", "ACCEPTED TODAY", func(p accountPolicy) any {
		if p.DailyDevices == 0 {
			return nil // nobody counts
		}
		return p.accepted
	}},
}

func newPolicyShowCommand() *cobra.Command {
	var form string
	var names []string
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the policies of accounts",
		Example: `  simlatch policy show
  simlatch policy show --account 0000123456-00001 --output json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withStore(cmd, func(s *store.Store) error {
				accounts, err := findAccounts(cmd, s, names, true)
				if err != nil {
					return err
				}
				return showPolicies(cmd, s, form, accounts)
			})
		},
	}
	cmd.Flags().StringArrayVar(&names, "account", nil, "only this account, by `name` (repeatable)")
	outputFlag(cmd, &form)
	return cmd
}

func showPolicies(cmd *cobra.Command, s *store.Store, form string, accounts []license.AccountName) error {
	var rows []accountPolicy
	for _, a := range accounts {
		p, accepted, err := s.Policy(cmd.Context(), a, time.Now())
		if err != nil {
			return err
		}
		rows = append(rows, accountPolicy{p, accepted})
	}
	return writeList(cmd.OutOrStdout(), form, policyColumns, rows)
}

type policySetOptions struct {
	account, lifetime, form string
	daily                   int64
}

func newPolicySetCommand() *cobra.Command {
	var o policySetOptions
	cmd := &cobra.Command{
		Use:   "set --account NAME",
		Short: "Set an account's policy; what is not given stays",
		Long: `Set an account's policy; what is not given stays. It counts from the next request
on; a daily limit counts what was accepted before on the same day, too.` + onDatabase,
		Example: `  simlatch policy set --account 0000123456-00001 --lifetime refused
  simlatch policy set --account 0000123456-00001 --daily-devices 5000
  simlatch policy set --account 0000123456-00001 --lifetime allowed --daily-devices 0`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runPolicySet(cmd, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.account, "account", "", "the account's `name`")
	f.StringVar(&o.lifetime, "lifetime", "", "assignments of lifetime licenses: `allowed` or refused")
	f.Int64Var(&o.daily, "daily-devices", 0, "the most `devices` that may be assigned in a day (UTC); 0 is no limit")
	_ = cmd.MarkFlagRequired("account")
	completeFlag(cmd, "lifetime", func() []string { return []string{"allowed", "refused"} })
	outputFlag(cmd, &o.form)
	return cmd
}

func runPolicySet(cmd *cobra.Command, o policySetOptions) error {
	changed := cmd.Flags().Changed
	switch {
	case !changed("lifetime") && !changed("daily-devices"):
		return usagef("say what to set: --lifetime, --daily-devices or both")
	case changed("lifetime") && o.lifetime != "allowed" && o.lifetime != "refused":
		return usagef("--lifetime %s: it is allowed or refused", o.lifetime)
	case o.daily < 0:
		return usagef("--daily-devices %d: a limit cannot be negative; 0 is no limit", o.daily)
	}
	return withStore(cmd, func(s *store.Store) error {
		account, err := findAccount(cmd, s, o.account)
		if err != nil {
			return err
		}
		p, _, err := s.Policy(cmd.Context(), account, time.Now())
		if err != nil {
			return err
		}
		if changed("lifetime") {
			p.RefuseLifetime = o.lifetime == "refused"
		}
		if changed("daily-devices") {
			p.DailyDevices = o.daily
		}
		if err := s.SetPolicy(cmd.Context(), p, time.Now()); err != nil {
			return fmt.Errorf("account %s: %w", account, err)
		}
		return showPolicies(cmd, s, o.form, []license.AccountName{account})
	})
}

package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/license"
)

func newPoolCommand() *cobra.Command {
	cmd := group("pool", "Add licenses to pools, and list the pools",
		newPoolAddCommand(), newPoolThresholdCommand(), newPoolListCommand())
	booksFlags(cmd)
	cmd.Long = `Add licenses to pools, and list the pools.

A pool is what one account holds of one SKU (the type of license). Of the
purchased licenses some are assigned to SIMs, some reserved for assignments that
the carrier has not answered yet; the rest is available.` + onBooks
	return cmd
}

type poolAddOptions struct {
	account, sku, reference, reason string
	units                           int64
	form                            string
}

func newPoolAddCommand() *cobra.Command {
	var o poolAddOptions
	cmd := &cobra.Command{
		Use:   "add --account NAME --sku SKU --units N --reason TEXT",
		Short: "Add purchased licenses to a pool, or withdraw some",
		Long: `Add purchased licenses to a pool, or withdraw some with negative units.

Each is recorded with its reason, and never changed: a mistake is undone by
another entry. Licenses that SIMs hold or await cannot be withdrawn. The pool is
printed as it then is.

SKUs: SIMSec-IoT-Lt (lifetime), SIMSec-IoT, TS-BUNDLE-KTO-SIMSEC-MRC and
TSS-IOT-INTLG-TIERED-SIMSEC (flexible).` + onBooks,
		Example: `  simlatch pool add --account 0000123456-00001 --sku SIMSec-IoT --units 5000 --reason "order of May" --reference PO-4711
  simlatch pool add --account 0000123456-00001 --sku SIMSec-IoT --units -50 --reason "credit note 12"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runPoolAdd(cmd, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.account, "account", "", "the account's `name`")
	f.StringVar(&o.sku, "sku", "", "the `SKU`, letter for letter")
	f.Int64Var(&o.units, "units", 0, "`number` of licenses; negative to withdraw")
	f.StringVar(&o.reason, "reason", "", "why, for the record")
	f.StringVar(&o.reference, "reference", "", "an order `number` or the like, for the record")
	for _, name := range []string{"account", "sku", "units", "reason"} {
		_ = cmd.MarkFlagRequired(name)
	}
	completeFlag(cmd, "sku", skuNames)
	outputFlag(cmd, &o.form)
	return cmd
}

// maxUnits is the most licenses of one purchase: more is a slip of the hand, and
// the sum of a pool stays far from the end of the numbers.
const maxUnits = 1_000_000_000_000

func runPoolAdd(cmd *cobra.Command, o poolAddOptions) error {
	sku, err := license.ParseSKU(o.sku)
	if err != nil {
		return err
	}
	if o.units == 0 {
		return usagef("--units 0 changes nothing")
	}
	if o.units > maxUnits || o.units < -maxUnits {
		return usagef("--units %d: at most %d at once", o.units, int64(maxUnits))
	}
	if o.reason == "" {
		return usagef("--reason must not be empty: it is what people will read in a year's time")
	}
	return withBooks(cmd, func(s books) error {
		account, err := findAccount(cmd, s, o.account)
		if err != nil {
			return err
		}
		pool, err := s.AddPurchase(cmd.Context(), license.Purchase{
			Account: account, SKU: sku, Units: o.units, Reference: o.reference, Reason: o.reason,
		}, time.Now())
		if errors.Is(err, license.ErrInsufficient) {
			return fmt.Errorf("withdrawing %d: fewer are available (see 'simlatch pool list --account %s')", -o.units, account)
		}
		if err != nil {
			return err
		}
		return writeList(cmd.OutOrStdout(), o.form, poolColumns, []license.Pool{pool})
	})
}

func newPoolThresholdCommand() *cobra.Command {
	var accountName, skuName, form string
	cmd := &cobra.Command{
		Use:   "threshold LICENSES --account NAME --sku SKU",
		Short: "Say when a pool counts as low",
		Long: `Say when a pool counts as low: when fewer licenses than that are available. 0 is
never.

An assignment or a withdrawal that takes the pool below writes an alert, and the
server sends a message to --alert-url, if it was given one. The metric
simlatch_pools_low counts the pools that are below.` + onBooks,
		Example: `  simlatch pool threshold 500 --account 0000123456-00001 --sku SIMSec-IoT`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			threshold, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil || threshold < 0 || threshold > maxUnits {
				return usagef("%q is no number of licenses: it is 0 to %d", args[0], int64(maxUnits))
			}
			sku, err := license.ParseSKU(skuName)
			if err != nil {
				return err
			}
			return withBooks(cmd, func(s books) error {
				account, err := findAccount(cmd, s, accountName)
				if err != nil {
					return err
				}
				pool, err := s.SetThreshold(cmd.Context(), account, sku, threshold)
				if err != nil {
					return missing(err, "account %s has no pool of %s; 'simlatch pool add' makes one", account, sku)
				}
				return writeList(cmd.OutOrStdout(), form, poolColumns, []license.Pool{pool})
			})
		},
	}
	cmd.Flags().StringVar(&accountName, "account", "", "the account's `name`")
	cmd.Flags().StringVar(&skuName, "sku", "", "the `SKU`, letter for letter")
	_ = cmd.MarkFlagRequired("account")
	_ = cmd.MarkFlagRequired("sku")
	completeFlag(cmd, "sku", skuNames)
	outputFlag(cmd, &form)
	return cmd
}

func newPoolListCommand() *cobra.Command {
	var form string
	var names []string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List pools with what is purchased, reserved, assigned and available",
		Example: `  simlatch pool list
  simlatch pool list --account 0000123456-00001 --output csv`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withBooks(cmd, func(s books) error {
				accounts, err := findAccounts(cmd, s, names, true)
				if err != nil {
					return err
				}
				var pools []license.Pool
				for _, a := range accounts {
					of, err := s.Pools(cmd.Context(), a)
					if err != nil {
						return err
					}
					pools = append(pools, of...)
				}
				return writeList(cmd.OutOrStdout(), form, poolColumns, pools)
			})
		},
	}
	cmd.Flags().StringArrayVar(&names, "account", nil, "only this account, by `name` (repeatable)")
	outputFlag(cmd, &form)
	return cmd
}

var poolColumns = []column[license.Pool]{
	{"account", "ACCOUNT", func(p license.Pool) any { return p.Account }},
	{"sku", "SKU", func(p license.Pool) any { return p.SKU }},
	{"type", "TYPE", func(p license.Pool) any { return p.SKU.Label() }},
	{"purchased", "PURCHASED", func(p license.Pool) any { return p.Purchased }},
	{"reserved", "RESERVED", func(p license.Pool) any { return p.Reserved }},
	{"assigned", "ASSIGNED", func(p license.Pool) any { return p.Assigned }},
	{"available", "AVAILABLE", func(p license.Pool) any { return p.Available() }},
	{"threshold", "LOW BELOW", func(p license.Pool) any {
		if p.Threshold == 0 {
			return nil
		}
		return p.Threshold
	}},
}

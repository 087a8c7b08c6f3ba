package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/server"
)

// maxPrefix leaves the checks room to tell their SIMs apart.
const maxPrefix = 14

type carrierCheckOptions struct {
	server  server.Config
	check   server.CarrierCheck
	account string
	sku     string
}

func newCarrierCheckCommand() *cobra.Command {
	var o carrierCheckOptions
	cmd := &cobra.Command{
		Use:   "check URL",
		Short: "Hold a provisioning system against what is asked of a carrier",
		Long: `Hold a provisioning system against what is asked of a carrier by HTTP
(docs/carriers.md), and say in words what is wrong.

It is called as 'simlatch serve --carrier http:URL' would call it, with made-up
requests to assign and unassign licenses of SIMs that there are not, whose ICCIDs
begin with --iccid-prefix: point it at a system for tests, never at one that
serves customers. It may refuse all of them; what counts is that each task gets
one outcome, and the same one when it is asked again.

The exit status is 3 when some checks failed.`,
		Example: `  simlatch carrier check http://127.0.0.1:8700/
  SIMLATCH_CARRIER_TOKEN_FILE=token SIMLATCH_CARRIER_SECRET_FILE=secret \
      simlatch carrier check https://carrier-test.example/licenses --patience 2m`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			setCarrier(&o.server, cmd.Flags())
			o.server.Carrier = server.CarrierHTTP + args[0]
			return runCarrierCheck(cmd.Context(), streamsOf(cmd), o)
		},
	}
	addCarrierFlags(cmd.Flags())
	cmd.Flags().DurationVar(&o.check.Patience, "patience", 30*time.Second, "how long it may answer later or retry before it must say done or refused")
	cmd.Flags().StringVar(&o.check.ICCIDPrefix, "iccid-prefix", server.CheckPrefix, "what the made-up ICCIDs begin with, in `digits`")
	cmd.Flags().StringVar(&o.account, "account", "0000123456-00001", "the account of the made-up requests, by `name`")
	cmd.Flags().StringVar(&o.sku, "sku", string(license.SKUFlexible), "the `SKU` of the made-up requests")
	return cmd
}

func runCarrierCheck(ctx context.Context, s streams, o carrierCheckOptions) error {
	var err error
	if o.check.Account, err = license.ParseAccountName(o.account); err != nil {
		return usagef("--account: %v", err)
	}
	if o.check.SKU, err = license.ParseSKU(o.sku); err != nil {
		return usagef("--sku: %v", err)
	}
	if p := o.check.ICCIDPrefix; len(p) > maxPrefix || strings.Trim(p, "0123456789") != "" {
		return usagef("--iccid-prefix %s: it is at most %d digits", p, maxPrefix)
	}
	if o.check.Patience < 0 {
		return usagef("--patience %s: a time cannot be negative", o.check.Patience)
	}
	findings, err := o.server.CheckCarrier(ctx, o.check)
	if err != nil {
		return withStatus(exitUsage, err)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("the checks were ended: %w", ctx.Err())
	}
	return writeCarrierFindings(s, findings)
}

// writeCarrierFindings prints a line for each check, and what is wrong below it.
func writeCarrierFindings(s streams, findings []server.CarrierFinding) error {
	p := paintOf(s.out)
	out := bufio.NewWriter(s.out) // keeps its first error until Flush
	failed := 0
	for _, f := range findings {
		state := p.good("ok  ")
		if len(f.Faults) > 0 {
			state = p.bad("fail")
			failed++
		}
		fmt.Fprintf(out, "%s  %s\n", state, f.Check)
		for _, fault := range f.Faults {
			fmt.Fprintf(out, "      %s\n", printable(fault))
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if failed > 0 {
		return withStatus(exitPartly, fmt.Errorf("%d of %d checks failed", failed, len(findings)))
	}
	return nil
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/license"
)

func newVerifyCommand() *cobra.Command {
	var audit bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Prove that the ledger is right, or say where it is not",
		Long: `Prove that the ledger is right: for every account and SKU the balances of the
pool, the licenses that SIMs hold or await, and the sums of the postings must
agree, and the purchases must add up to what is purchased.

With --audit it follows the hash chain of the audit instead, and finds entries
that were changed, removed or inserted. The hash it prints at the end stands for
all entries up to then: kept elsewhere, it proves later that none was changed.

Each difference is printed on a line of its own; the exit status is then 1. It
changes nothing, and may be run beside a running server.`,
		Example: `  simlatch verify --database sqlite:simlatch.db
  simlatch verify --audit`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if audit {
				return runVerifyAudit(cmd.Context(), streamsOf(cmd), databaseOf(cmd))
			}
			return runVerify(cmd.Context(), streamsOf(cmd), databaseOf(cmd))
		},
	}
	cmd.Flags().BoolVar(&audit, "audit", false, "check the audit instead of the ledger")
	return cmd
}

func runVerifyAudit(ctx context.Context, s streams, cfg databaseConfig) (err error) {
	db, err := openStore(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	findings := 0
	var printing error
	checked, err := db.VerifyAudit(ctx, func(finding string) {
		findings++
		if _, err := fmt.Fprintln(s.out, finding); err != nil && printing == nil {
			printing = err
		}
	})
	if err = errors.Join(err, printing); err != nil {
		return fmt.Errorf("verifying: %w", err)
	}
	verdict := "the audit is right"
	if findings > 0 {
		verdict = fmt.Sprintf("the audit is WRONG in %d places", findings)
	}
	if _, err := fmt.Fprintf(s.out, "checked %d entries, up to number %d with hash %s; %d are not sealed yet: %s\n",
		checked.Sealed, checked.Head, cmp.Or(checked.Hash, "-"), checked.Unsealed, verdict); err != nil {
		return err
	}
	if findings > 0 {
		return withStatus(exitFailed, nil) // everything was said
	}
	return nil
}

func runVerify(ctx context.Context, s streams, cfg databaseConfig) (err error) {
	db, err := openStore(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	drifts := 0
	var printing error
	checked, err := db.Verify(ctx, func(d license.Drift) {
		drifts++
		if _, err := fmt.Fprintln(s.out, d); err != nil && printing == nil {
			printing = err
		}
	})
	if err = errors.Join(err, printing); err != nil {
		return fmt.Errorf("verifying: %w", err)
	}
	verdict := "the ledger is right"
	if drifts > 0 {
		verdict = fmt.Sprintf("the ledger is WRONG in %d places", drifts)
	}
	if _, err := fmt.Fprintf(s.out, "checked %d accounts, %d pools, %d SIMs, %d postings: %s\n",
		checked.Accounts, checked.Pools, checked.SIMs, checked.Postings, verdict); err != nil {
		return err
	}
	if drifts > 0 {
		return withStatus(exitFailed, nil) // everything was said
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/license"
)

func newVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Prove that the ledger is right, or say where it is not",
		Long: `Prove that the ledger is right: for every account and SKU the balances of the
pool, the licenses that SIMs hold or await, and the sums of the postings must
agree, and the purchases must add up to what is purchased.

Each difference is printed on a line of its own; the exit status is then 1. It
changes nothing, and may be run beside a running server.`,
		Example: `  simlatch verify --database sqlite:simlatch.db`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runVerify(cmd.Context(), streamsOf(cmd), databaseOf(cmd))
		},
	}
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

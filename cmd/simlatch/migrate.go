package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/store"
)

func newMigrateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database's schema up to date",
		Long: `Bring the database's schema up to date, and make the database if it is SQLite
and not there. simlatch serve does the same at its start, so this is for those
who want it done before, or by someone who may change the schema.`,
		Example: `  simlatch migrate --database postgres://simlatch@db.example.com/simlatch`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runMigrate(cmd.Context(), streamsOf(cmd), databaseOf(cmd))
		},
	}
}

func runMigrate(ctx context.Context, s streams, cfg databaseConfig) (err error) {
	db, err := store.Open(ctx, cfg.URL, store.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	applied, err := db.Migrate(ctx)
	if err != nil {
		return fmt.Errorf("migrating: %w", err)
	}
	if applied == 0 {
		_, err = fmt.Fprintln(s.out, "the schema is up to date")
		return err
	}
	steps := "steps"
	if applied == 1 {
		steps = "step"
	}
	_, err = fmt.Fprintf(s.out, "the schema is up to date, by %d new %s\n", applied, steps)
	return err
}

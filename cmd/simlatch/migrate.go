package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/store"
)

func newMigrateCommand() *cobra.Command {
	var distribute bool
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database's schema up to date",
		Long: `Bring the database's schema up to date, and make the database if it is SQLite
and not there. simlatch serve does the same at its start, so this is for those
who want it done before, or by someone who may change the schema.

With --distribute, spread the tables over the servers of a Citus cluster as
well: all that belongs to an account on one server. The database must be on the
coordinator, and have the Citus extension. What is distributed already stays as
it is; run it again after an upgrade that adds tables.`,
		Example: `  simlatch migrate --database postgres://simlatch@db.example.com/simlatch
  simlatch migrate --distribute --database postgres://simlatch@coordinator.example.com/simlatch`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runMigrate(cmd.Context(), streamsOf(cmd), databaseOf(cmd), distribute)
		},
	}
	cmd.Flags().BoolVar(&distribute, "distribute", false, "distribute the tables by account (PostgreSQL with Citus)")
	return cmd
}

func runMigrate(ctx context.Context, s streams, cfg databaseConfig, distribute bool) (err error) {
	db, err := store.Open(ctx, cfg.URL, store.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	applied, err := db.Migrate(ctx)
	if err != nil {
		return fmt.Errorf("migrating: %w", err)
	}
	message := "the schema is up to date"
	switch applied {
	case 0:
	case 1:
		message += ", by 1 new step"
	default:
		message += fmt.Sprintf(", by %d new steps", applied)
	}
	if _, err = fmt.Fprintln(s.out, message); err != nil || !distribute {
		return err
	}
	d, err := db.Distribute(ctx)
	if err != nil {
		return err
	}
	return tellDistribution(s, d)
}

func tellDistribution(s streams, d store.Distribution) error {
	servers := fmt.Sprintf("%d servers", d.Servers)
	if d.Servers == 1 {
		servers = "1 server"
	}
	done := "the tables were distributed already"
	if len(d.Distributed) > 0 {
		done = "distributed " + strings.Join(d.Distributed, ", ")
	}
	_, err := fmt.Fprintf(s.out, "%s: %s, Citus %s\n", done, servers, d.Citus)
	return err
}

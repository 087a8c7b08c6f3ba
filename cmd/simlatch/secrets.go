package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/server"
	"github.com/simlatch/simlatch/internal/store"
)

func newSecretsCommand() *cobra.Command {
	cmd := group("secrets", "Show which keys seal the stored secrets, and change the key",
		newSecretsStatusCommand(), newSecretsResealCommand())
	cmd.Long = `Show which keys seal the stored secrets, and change the key.

The key file (--secrets-key-file, or PATH.key beside a SQLite database) may have
several lines, each a key of 32 bytes in base64. The first seals, all open. Running
servers read it again within a second, so the key is changed without a pause:

  1. head -c 32 /dev/urandom | base64 >>simlatch.key   append a new key, on every node
  2. put it first, on every node
  3. simlatch secrets reseal
  4. remove the old key, on every node`
	return cmd
}

func newSecretsStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Count the stored secrets by the keys that seal them",
		Long: `Count the stored secrets by the keys that seal them. Keys are named by
their fingerprints, in the order of the key file: the first seals what is new.

The exit status is 1 where there are secrets that no key opens. It changes nothing,
and may be run beside a running server.`,
		Example: `  simlatch secrets status
  simlatch secrets status --secrets-key-file simlatch.key --database postgres://simlatch@db/simlatch`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withSecrets(cmd.Context(), databaseOf(cmd), func(db *store.Store, sealer *auth.Sealer) error {
				return showSecrets(cmd.Context(), streamsOf(cmd), db, sealer)
			})
		},
	}
}

func newSecretsResealCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reseal",
		Short: "Seal all stored secrets anew with the first key of the key file",
		Long: `Seal all stored secrets anew with the first key of the key file, some at a time,
and tell how many are left. From then on the database needs no other key: the others
may be removed from the file.

Servers may run beside it, as long as the file of each has both keys. Where one
still seals with an older key, the command says so and ends with status 1: put the new
key first everywhere, and run it again. It may be stopped and run again at any time.`,
		Example: `  simlatch secrets reseal
  simlatch secrets reseal --secrets-key-file simlatch.key --database postgres://simlatch@db/simlatch`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withSecrets(cmd.Context(), databaseOf(cmd), func(db *store.Store, sealer *auth.Sealer) error {
				return reseal(cmd.Context(), streamsOf(cmd), db, sealer)
			})
		},
	}
}

// withSecrets opens the database with its keys, which must be there.
func withSecrets(ctx context.Context, cfg databaseConfig, work func(*store.Store, *auth.Sealer) error) (err error) {
	sealer, err := server.OpenSealer(cfg.URL, cfg.SecretsKeyFile, false)
	if err != nil {
		return err
	}
	db, err := openStore(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return work(db, sealer)
}

func showSecrets(ctx context.Context, s streams, db *store.Store, sealer *auth.Sealer) error {
	found, err := db.Sealed(ctx)
	if err != nil {
		return err
	}
	for i, key := range sealer.Fingerprints() {
		does := "opens"
		if i == 0 {
			does = "seals"
		}
		if _, err := fmt.Fprintf(s.out, "%s  %s  %d secrets\n", key, does, found.ByKey[key]); err != nil {
			return err
		}
	}
	if found.Lost > 0 {
		return fmt.Errorf("%d secrets are opened by no key of the file", found.Lost)
	}
	return nil
}

func reseal(ctx context.Context, s streams, db *store.Store, sealer *auth.Sealer) error {
	told := time.Time{}
	done, err := db.As(commandActor()).Reseal(ctx, func(done, left int) {
		if time.Since(told) >= backupProgress {
			told = time.Now()
			fmt.Fprintf(s.err, "%d secrets sealed anew, %d left\n", done, left)
		}
	})
	if err != nil {
		return fmt.Errorf("%d secrets were sealed anew, and then: %w", done, err)
	}
	_, err = fmt.Fprintf(s.out, "%d secrets sealed anew, 0 left: %s is the only key that the database needs\n", done, sealer.Fingerprint())
	return err
}

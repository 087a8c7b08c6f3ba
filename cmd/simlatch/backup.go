package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/server"
	"github.com/simlatch/simlatch/internal/store"
)

func newBackupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy a SQLite database as it is at one moment, while it is used",
		Long: `Copy a SQLite database as it is at one moment into a new file, beside a running
server too, which works on meanwhile. The copy is on the disk, and its structure and
its ledger are checked, before it gets its name; FILE must not be there yet.

The sealing key is not in it: keep PATH.key, or what --secrets-key-file names, with
the copy, and as safe. To restore, stop the server, put the copy in the place of the
database, remove the files beside it that end in -wal and -shm, and start the server:
it takes up what was under way.

PostgreSQL has its own: pg_dump, or continuous archiving (docs/operations.md).`,
		Example: `  simlatch backup /var/backups/simlatch-$(date +%F).db
  simlatch backup copy.db --database sqlite:/var/lib/simlatch/simlatch.db`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runBackup(cmd.Context(), streamsOf(cmd), databaseOf(cmd), args[0])
		},
	}
}

// backupProgress is how often long work says how far it is.
const backupProgress = 5 * time.Second

func runBackup(ctx context.Context, s streams, cfg databaseConfig, path string) (err error) {
	if _, ok := server.SQLitePath(cfg.URL); !ok {
		return fmt.Errorf("%s is no SQLite database; PostgreSQL has its own backups: pg_dump, or continuous archiving (docs/operations.md)", hidden(cfg.URL))
	}
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s is there already, and nothing is written over it", path)
	}
	db, err := openStore(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	partial := fmt.Sprintf("%s.%d.partial", path, os.Getpid())
	defer func() { _ = os.Remove(partial) }() // gone already when all went well
	if err := copyDatabase(ctx, s, db, partial); err != nil {
		return err
	}
	found, err := checkCopy(ctx, partial)
	if err != nil {
		return fmt.Errorf("the copy is not good, and was removed: %w", err)
	}
	if err := os.Link(partial, path); err != nil { // unlike a renaming, it never replaces a file
		return fmt.Errorf("naming the copy: %w", err)
	}
	if err := syncFile(filepath.Dir(path)); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "copied to %s and checked: %d accounts, %d pools, %d SIMs, %d requests, %d postings\n",
		path, found.Accounts, found.Pools, found.SIMs, found.Requests, found.Postings)
	return err
}

// copyDatabase copies the database into a file, to the disk, and tells now and then
// how large that is.
func copyDatabase(ctx context.Context, s streams, db *store.Store, path string) error {
	done := make(chan error, 1)
	go func() { done <- db.Snapshot(ctx, path) }()
	tick := time.NewTicker(backupProgress)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				return err
			}
			return syncFile(path)
		case <-tick.C:
			if info, err := os.Stat(path); err == nil {
				fmt.Fprintf(s.err, "copied %d MiB\n", info.Size()>>20)
			}
		}
	}
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing the copy to the disk: %w", err)
	}
	return nil
}

// checkCopy checks the structure and the ledger of a copy.
func checkCopy(ctx context.Context, path string) (found store.Checked, err error) {
	db, err := store.Open(ctx, "sqlite:"+path, store.Options{})
	if err != nil {
		return found, err
	}
	defer func() {
		err = errors.Join(err, db.Close())
		for _, suffix := range []string{"-wal", "-shm"} {
			_ = os.Remove(path + suffix) // they are empty, and hardly ever there
		}
	}()
	if err := db.Intact(ctx); err != nil {
		return found, err
	}
	var first license.Drift
	drifts := 0
	found, err = db.Verify(ctx, func(d license.Drift) {
		if drifts++; drifts == 1 {
			first = d
		}
	})
	if err == nil && drifts > 0 {
		err = fmt.Errorf("its ledger is wrong in %d places, the first of them: %v; 'simlatch verify' tells all of the database itself", drifts, first)
	}
	return found, err
}

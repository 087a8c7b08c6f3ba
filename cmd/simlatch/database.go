package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/server"
	"github.com/simlatch/simlatch/internal/store"
)

// databaseConfig says which database a command opens.
type databaseConfig struct {
	URL            string // sqlite:PATH or postgres://…
	SecretsKeyFile string // of the key that seals stored secrets; empty: beside a SQLite database
}

// addDatabaseFlags adds the flags of databaseConfig. They are the root's, so
// every command has them.
func addDatabaseFlags(flags *pflag.FlagSet) {
	flags.String("database", server.DefaultDatabase, "the database's `URL`: sqlite:PATH or postgres://…")
	flags.String("secrets-key-file", "", "the `file` with the keys that seal stored secrets: 32 bytes in base64, one a line; the first seals, all open. "+
		"Beside a SQLite database PATH.key is made by itself; on PostgreSQL it must be named")
	markSetting(flags, "database")
	markSetting(flags, "secrets-key-file")
	markSecret(flags, "database")
}

// databaseOf reads the flags of databaseConfig.
func databaseOf(cmd *cobra.Command) databaseConfig {
	url, _ := cmd.Flags().GetString("database") // the flag exists: it is the root's
	key, _ := cmd.Flags().GetString("secrets-key-file")
	return databaseConfig{URL: url, SecretsKeyFile: key}
}

// openStore opens the database for a command of an operator. It makes and
// migrates nothing: where there is no database yet the error says what makes
// one.
func openStore(ctx context.Context, cfg databaseConfig) (*store.Store, error) {
	const remedy = "run 'simlatch migrate' or 'simlatch serve' first"
	if path, ok := server.SQLitePath(cfg.URL); ok {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("there is no database at %s; %s, or name another with --database", path, remedy)
		}
	}
	sealer, err := openSealer(cfg)
	if err != nil {
		return nil, err
	}
	s, err := store.Open(ctx, cfg.URL, store.Options{Sealer: sealer})
	if err != nil {
		return nil, err
	}
	if err = s.Migrated(ctx); errors.Is(err, store.ErrSchema) {
		err = fmt.Errorf("the schema of %s is not up to date; %s", hidden(cfg.URL), remedy)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// openSealer reads the sealing key where there is one. Few commands of an
// operator need it, so its absence is no error unless it was named.
func openSealer(cfg databaseConfig) (*auth.Sealer, error) {
	sealer, err := server.OpenSealer(cfg.URL, cfg.SecretsKeyFile, false)
	if cfg.SecretsKeyFile == "" && (errors.Is(err, os.ErrNotExist) || errors.Is(err, server.ErrNoKeyFile)) {
		return nil, nil
	}
	return sealer, err
}

// hidden masks what is secret in the URL of a database. Where it cannot tell, because
// that is no URL of one, all may be.
func hidden(database string) string {
	const mask = "********"
	if _, isFile := server.SQLitePath(database); isFile {
		return database
	}
	u, err := url.Parse(database)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || store.CheckURL(database) != nil {
		return mask
	}
	if _, has := u.User.Password(); has {
		u.User = url.UserPassword(u.User.Username(), mask)
	}
	q := u.Query()
	for name := range q {
		if strings.Contains(name, "password") {
			q.Set(name, mask)
		}
	}
	u.RawQuery = q.Encode()
	return strings.ReplaceAll(u.String(), url.QueryEscape(mask), mask)
}

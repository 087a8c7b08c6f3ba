package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"

	"github.com/simlatch/simlatch/internal/crash"
	"github.com/simlatch/simlatch/internal/license"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migrations makes goose migrations of the embedded files, replaced for the
// engine.
func (s *Store) migrations() (list []*goose.Migration, err error) {
	names, err := fs.Glob(migrationFiles, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		text, err := fs.ReadFile(migrationFiles, name)
		if err != nil {
			return nil, err
		}
		number, _, _ := strings.Cut(strings.TrimPrefix(name, "migrations/"), "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("migration %s: %w", name, err)
		}
		list = append(list, s.migration(version, string(text)))
	}
	for _, text := range crash.Migrations() {
		list = append(list, s.migration(list[len(list)-1].Version+1, text))
	}
	return list, nil
}

func (s *Store) migration(version int64, text string) *goose.Migration {
	script := s.dialect.replace(text)
	return goose.NewGoMigration(version, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
		crash.At(crash.MigrateBegun)
		_, err := tx.ExecContext(ctx, script)
		crash.At(crash.MigrateWritten)
		return err
	}}, nil)
}

func (s *Store) provider() (*goose.Provider, error) {
	list, err := s.migrations()
	if err != nil {
		return nil, err
	}
	name := goose.DialectPostgres
	if s.group != nil {
		name = goose.DialectSQLite3
	}
	return goose.NewProvider(name, s.slow, nil, goose.WithGoMigrations(list...), goose.WithDisableGlobalRegistry(true))
}

// Migrate brings the schema up to date and returns how many migrations that
// took. It may be called by several processes at once.
func (s *Store) Migrate(ctx context.Context) (applied int, err error) {
	p, err := s.provider()
	if err != nil {
		return 0, fmt.Errorf("reading migrations: %w", err)
	}
	unlock, err := s.lockMigrations(ctx)
	if err != nil {
		return 0, s.failed("locking the schema", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	crash.At(crash.MigrateLocked)
	results, err := p.Up(ctx)
	crash.At(crash.MigrateDone)
	if err != nil && s.group != nil {
		// SQLite has no lock to hold across transactions: another process may
		// have done it meanwhile.
		if pending, again := p.HasPending(ctx); again == nil && !pending {
			err = nil
		}
	}
	return len(results), s.failed("migrating", err)
}

// lockMigrations keeps other processes from migrating the same PostgreSQL
// schema.
func (s *Store) lockMigrations(ctx context.Context) (unlock func() error, err error) {
	if s.group != nil {
		return func() error { return nil }, nil
	}
	conn, err := s.slow.Conn(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := conn.ExecContext(ctx, `SELECT pg_advisory_lock(7364, hashtext(current_schema()))`); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return func() error {
		_, err := conn.ExecContext(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock(7364, hashtext(current_schema()))`)
		return errors.Join(err, conn.Close())
	}, nil
}

// ErrSchema says that the database's schema is older than this program needs.
var ErrSchema = errors.New("the database has not been migrated: run simlatch migrate")

// Migrated checks that the database answers and that its schema is up to date;
// if not, with ErrSchema.
func (s *Store) Migrated(ctx context.Context) error {
	list, err := s.migrations()
	if err != nil {
		return err
	}
	// Read without goose, which would make its table: a check writes nothing.
	done, err := first(s.reader(ctx), one[int64], `SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied`)
	if err == nil && done < list[len(list)-1].Version {
		return ErrSchema
	}
	if err != nil {
		if err = s.failed("reading the schema's version", err); s.missing(err) {
			return ErrSchema
		}
	}
	return err
}

// missing reports whether a table does not exist.
func (s *Store) missing(err error) bool {
	var unavailable *license.UnavailableError
	if errors.As(err, &unavailable) {
		return false
	}
	return postgresCode(err) == "42P01" || strings.Contains(err.Error(), "no such table")
}

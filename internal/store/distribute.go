package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/simlatch/simlatch/internal/license"
)

// A distributedTable is one that Citus spreads over its servers, by the hash of
// a column.
type distributedTable struct{ name, column string }

// distributedTables are the tables that grow with the accounts. Those by
// account lie together, so that all of an account's work is one server's; the
// first is the one that the others lie with. An ICCID belongs to one account
// wherever that is, so the owners lie by ICCID.
//
// All other tables stay with the coordinator, to which every node
// connects: they are small, and no statement uses them together with these. A
// copy on every server, as a reference table, would make each login and
// heartbeat wait for all servers.
var distributedTables = []distributedTable{
	{"request", "account"},
	{"idempotency", "account"},
	{"task", "account"},
	{"attempt", "account"},
	{"posting", "account"},
	{"sim", "account"},
	{"pool", "account"},
	{"purchase", "account"},
	{"listener", "account"},
	{"policy", "account"},
	{"policy_day", "account"},
	{"upstream", "account"},
	{"upstream_task", "account"},
	{"strange_outcome", "account"},
	{"sim_owner", "iccid"},
}

// Distribution is how the tables lie.
type Distribution struct {
	Citus       string   // the version of the extension
	Servers     int64    // that hold shards
	Distributed []string // the tables that Distribute distributed now
	Already     []string // those that were
}

// ErrNotDistributable says that the database cannot be distributed as it is,
// with the remedy.
var ErrNotDistributable = errors.New("the tables were not distributed")

func notDistributable(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrNotDistributable}, args...)...)
}

const (
	citusVersion  = `SELECT coalesce(installed_version, '') FROM pg_available_extensions WHERE name = 'citus'`
	countServers  = `SELECT count(*) FROM pg_dist_node WHERE isactive AND shouldhaveshards AND noderole = 'primary'`
	distributedBy = `SELECT coalesce(column_to_column_name(logicalrelid, partkey), '') FROM pg_dist_partition
		WHERE logicalrelid = to_regclass($1)`
	distribute = `SELECT create_distributed_table(to_regclass($1), $2, colocate_with => $3)`
	emptyLocal = `SELECT truncate_local_data_after_distributing_table(to_regclass($1))`
	// One connection to each server, so that each step sees the one before.
	oneByOne = `SELECT set_config('citus.multi_shard_modify_mode', 'sequential', true)`
)

// Distribute spreads the migrated tables, with what is in them, over the
// servers of a Citus cluster, whose coordinator the database must be on. It does
// all or nothing, and leaves what is done already. Nodes may be running; their
// writes wait. It fails with ErrNotDistributable where there is no Citus.
func (s *Store) Distribute(ctx context.Context) (d Distribution, err error) {
	if s.group != nil {
		return d, notDistributable("a SQLite database is one file; distribution needs PostgreSQL with the Citus extension")
	}
	if err := s.Migrated(ctx); err != nil {
		return d, err
	}
	if d.Citus, err = s.findCitus(ctx); err != nil {
		return d, err
	}
	if d.Servers, err = first(s.reader(ctx), one[int64], countServers); err != nil {
		return d, s.failed("counting the servers of Citus", err)
	}
	unlock, err := s.lockMigrations(ctx)
	if err != nil {
		return d, s.failed("locking the schema", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	// A node's write may meet the tables in another order; a deadlock with it is
	// a reason to try again.
	const tries = 6
	for try := 1; ; try++ {
		err = s.writeAlone(ctx, d.run)
		if err == nil || try == tries || ctx.Err() != nil || !s.dialect.retry(err) {
			return d, s.failed("distributing the tables", err)
		}
	}
}

// findCitus returns the extension's version in this database.
func (s *Store) findCitus(ctx context.Context) (string, error) {
	const remedy = "load it on every server (shared_preload_libraries = 'citus'), run CREATE EXTENSION citus in this database " +
		"on every server, and name the servers to the coordinator with SELECT citus_add_node('HOST', PORT)"
	version, err := first(s.reader(ctx), one[string], citusVersion)
	switch {
	case errors.Is(err, license.ErrNotFound):
		return "", notDistributable("the Citus extension is not installed on this PostgreSQL server: install Citus 11.2 or later on every server, %s", remedy)
	case err == nil && version == "":
		return "", notDistributable("the Citus extension is installed but not set up in this database: %s", remedy)
	}
	return version, s.failed("looking for Citus", err)
}

// run distributes what is not distributed yet.
func (d *Distribution) run(tx *tx) error {
	d.Distributed, d.Already = nil, nil
	if _, err := count(tx, oneByOne); err != nil {
		return err
	}
	for _, t := range distributedTables {
		column, err := first(tx, one[string], distributedBy, t.name)
		switch {
		case err == nil && column == t.column:
			d.Already = append(d.Already, t.name)
			continue
		case err == nil:
			return notDistributable("table %s is distributed by %q, and not by %s; take that back with SELECT undistribute_table('%s')",
				t.name, column, t.column, t.name)
		case !errors.Is(err, license.ErrNotFound):
			return err
		}
		if err := t.distribute(tx); err != nil {
			return fmt.Errorf("table %s: %w", t.name, err)
		}
		d.Distributed = append(d.Distributed, t.name)
	}
	return nil
}

func (t distributedTable) distribute(tx *tx) error {
	with := distributedTables[0]
	if t == with || t.column != with.column {
		with.name = "none"
	}
	if _, err := count(tx, distribute, t.name, t.column, with.name); err != nil {
		return err
	}
	// The rows were copied; what they left behind nobody sees.
	_, err := count(tx, emptyLocal, t.name)
	return err
}

package store_test

import (
	"database/sql"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// standIn has the names of Citus that Distribute uses, and writes down what it
// was asked. What Citus itself does, only the engine "citus" shows.
const standIn = `
	CREATE TABLE pg_available_extensions (name text, installed_version text);
	CREATE TABLE pg_dist_node (isactive bool, shouldhaveshards bool, noderole text);
	INSERT INTO pg_dist_node VALUES (true, true, 'primary'), (true, true, 'primary'), (true, false, 'primary'), (true, true, 'secondary');
	CREATE TABLE pg_dist_partition (logicalrelid regclass, partkey text, colocated text);
	CREATE TABLE emptied (name regclass);
	CREATE FUNCTION column_to_column_name(regclass, text) RETURNS text LANGUAGE sql AS 'SELECT $2';
	CREATE FUNCTION create_distributed_table(regclass, text, colocate_with text) RETURNS void LANGUAGE plpgsql AS
		$$ BEGIN
			IF current_setting('citus.multi_shard_modify_mode') <> 'sequential' THEN RAISE 'not one by one'; END IF;
			INSERT INTO pg_dist_partition VALUES ($1, $2, $3);
		END $$;
	CREATE FUNCTION truncate_local_data_after_distributing_table(regclass) RETURNS void LANGUAGE sql AS
		'INSERT INTO emptied VALUES ($1)';`

func TestDistribute(t *testing.T) {
	db := plainPostgres(t)
	s := db.Open(t)
	_, err := s.Distribute(t.Context())
	refused(t, err, "not installed on this PostgreSQL server")

	// The names of the schema come before those of the system.
	u, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("search_path", q.Get("search_path")+",pg_catalog")
	u.RawQuery = q.Encode()
	if s, err = store.Open(t.Context(), u.String(), store.Options{}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	raw, err := sql.Open("pgx", u.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	execute := func(text string) {
		t.Helper()
		if _, err := raw.ExecContext(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	execute(standIn)
	execute(`INSERT INTO pg_available_extensions VALUES ('citus', NULL)`)
	_, err = s.Distribute(t.Context())
	refused(t, err, "not set up in this database")

	execute(`UPDATE pg_available_extensions SET installed_version = '12.1-1'`)
	execute(`INSERT INTO pg_dist_partition VALUES ('pool', 'sku', 'none')`)
	_, err = s.Distribute(t.Context())
	refused(t, err, `table pool is distributed by "sku"`)
	execute(`DELETE FROM pg_dist_partition WHERE logicalrelid = 'pool'::regclass`)

	first, err := s.Distribute(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(first.Distributed) == 0 || len(first.Already) > 0 || first.Servers != 2 || first.Citus != "12.1-1" {
		t.Errorf("Distribute() = %+v on two servers", first)
	}
	got := lines(t, db, `SELECT concat(logicalrelid, ' by ', partkey, ' with ', colocated) FROM pg_dist_partition`)
	for _, want := range []string{"request by account with none", "task by account with request", "sim_owner by iccid with none"} {
		if !slices.Contains(got, want) {
			t.Errorf("the tables are distributed as %q, want %q among them", got, want)
		}
	}
	if diff := cmp.Diff(first.Distributed, lines(t, db, `SELECT name FROM emptied`)); diff != "" {
		t.Errorf("the tables emptied behind are not those distributed (-want +got):\n%s", diff)
	}
	second, err := s.Distribute(t.Context())
	if err != nil || len(second.Distributed) > 0 || !slices.Equal(second.Already, first.Distributed) {
		t.Errorf("Distribute() = %+v, %v the second time", second, err)
	}
}

func TestDistributeSQLite(t *testing.T) {
	_, err := storetest.Engines(t)[0].NewDatabase(t).Open(t).Distribute(t.Context())
	refused(t, err, "a SQLite database is one file")
}

func TestDistributeNeedsTheSchema(t *testing.T) {
	s, err := store.Open(t.Context(), plainPostgres(t).URL, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if _, err := s.Distribute(t.Context()); !errors.Is(err, store.ErrSchema) {
		t.Errorf("Distribute() = %v before the schema is there", err)
	}
}

// plainPostgres is a database on PostgreSQL without Citus.
func plainPostgres(t *testing.T) *storetest.Database {
	t.Helper()
	for _, e := range storetest.Engines(t) {
		if e.Name == "postgres" {
			return e.NewDatabase(t)
		}
	}
	t.Skip("needs PostgreSQL")
	return nil
}

func refused(t *testing.T, err error, why string) {
	t.Helper()
	if !errors.Is(err, store.ErrNotDistributable) || !strings.Contains(err.Error(), why) {
		t.Errorf("Distribute() = %v, want an error with %q", err, why)
	}
}

// lines reads the one column of a query.
func lines(t *testing.T, db *storetest.Database, text string) (list []string) {
	t.Helper()
	rows, err := db.SQL(t).QueryContext(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		list = append(list, line)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

// Package storetest gives a test a clean store on each engine, and looks at the
// ledger when the test is over.
//
// Most tests need one function:
//
//	storetest.Each(t, func(t *testing.T, s *store.Store) {
//		storetest.Seed(t, s, storetest.Fixture{})
//		…
//	})
//
// Tests of several nodes, or of one that is killed, take the database itself
// and open it as often as they like:
//
//	for _, e := range storetest.Engines(t) {
//		t.Run(e.Name, func(t *testing.T) {
//			db := e.NewDatabase(t)
//			a, b := db.Open(t), db.Open(t) // or give db.URL to a process
//			…
//		})
//	}
//
// SQLite is always among the engines. PostgreSQL is when TEST_POSTGRES is the
// URL of a server, whose user may create schemas, or "auto": then a private
// server is started with the first test that wants it, and ends with the
// process (package pgcluster); "durable" is the same with every commit on the
// disk, for benchmarks. Unset or empty leaves PostgreSQL out. PostgreSQL with
// Citus is when TEST_CITUS is the URL of a coordinator's database that has the
// extension; its databases come migrated and distributed, in few shards.
package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest/pgcluster"
)

// Each runs f as a subtest on every engine, each time with the migrated store
// of an empty database.
func Each(t *testing.T, f func(t *testing.T, s *store.Store)) {
	t.Helper()
	for _, e := range Engines(t) {
		t.Run(e.Name, func(t *testing.T) { f(t, e.NewDatabase(t).Open(t)) })
	}
}

// Engine is a kind of database to test on.
type Engine struct {
	Name   string // as Store.Engine says it, or "citus"
	server string // the URL of the server; empty for SQLite
}

const citus = "citus"

// Engines lists the engines to test on.
func Engines(tb testing.TB) []Engine {
	tb.Helper()
	engines := []Engine{{Name: "sqlite"}}
	server := os.Getenv("TEST_POSTGRES")
	if _, ok := pgcluster.Asked(server); ok {
		c, err := cluster()
		if err != nil {
			tb.Fatalf("TEST_POSTGRES=%s: %v", server, err)
		}
		server = c.URL()
	}
	if server != "" {
		engines = append(engines, Engine{Name: "postgres", server: server})
	}
	if coordinator := os.Getenv("TEST_CITUS"); coordinator != "" {
		engines = append(engines, Engine{Name: citus, server: coordinator})
	}
	return engines
}

// cluster is the server that all tests of this process share. It is never
// stopped: it ends when the process does.
var cluster = sync.OnceValues(func() (*pgcluster.Cluster, error) {
	o, _ := pgcluster.Asked(os.Getenv("TEST_POSTGRES"))
	return pgcluster.Start(context.Background(), o)
})

// Database is an empty database, gone when its test is over.
type Database struct {
	URL     string // what store.Open and the --database flag take
	Engine  Engine
	opened  bool
	damaged bool
}

// NewDatabase makes an empty database: a file of its own, or a schema of its
// own. When the test is over and its stores are closed, the ledger is verified,
// and the test fails on any drift; a database that was never migrated has none.
func (e Engine) NewDatabase(tb testing.TB) *Database {
	tb.Helper()
	db := &Database{Engine: e}
	if e.server == "" {
		db.URL = "sqlite:" + filepath.Join(tb.TempDir(), "simlatch.db")
	} else {
		db.URL = e.newSchema(tb)
	}
	tb.Cleanup(func() { db.verify(tb) })
	if e.Name == citus {
		db.distribute(tb)
	}
	return db
}

// newSchema makes a schema and returns the URL that leads every connection into
// it.
func (e Engine) newSchema(tb testing.TB) string {
	tb.Helper()
	u, err := url.Parse(e.server)
	if err != nil {
		tb.Fatalf("TEST_POSTGRES or TEST_CITUS is no URL: %v", err)
	}
	schema := "test_" + strings.ToLower(rand.Text())
	execute(tb, e.server, "CREATE SCHEMA "+schema)
	tb.Cleanup(func() { execute(tb, e.server, "DROP SCHEMA "+schema+" CASCADE") })
	q := u.Query()
	q.Set("search_path", schema)
	if e.Name == citus {
		q.Set("citus.shard_count", "4") // of each table, each of a few files
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// execute runs one statement on a PostgreSQL server.
func execute(tb testing.TB, server, text string) {
	tb.Helper()
	ctx, cancel := cleanupContext(tb)
	defer cancel()
	db, err := sql.Open("pgx", server)
	if err == nil {
		defer db.Close()
		_, err = db.ExecContext(ctx, text)
	}
	if err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
}

// Open opens the database once more, as another node would, and migrates it.
// The store is closed when the test is over, and may be closed before.
func (db *Database) Open(tb testing.TB) *store.Store {
	tb.Helper()
	s, err := store.Open(tb.Context(), db.URL, store.Options{Sealer: sealer(tb)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() }) // the test may have closed it
	if _, err := s.Migrate(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	db.opened = true
	return s
}

// distribute migrates the database and distributes its tables, so that whoever
// opens it by its URL finds them so. Citus knows the tables of every schema by
// themselves, and forgets them with the schema.
func (db *Database) distribute(tb testing.TB) {
	tb.Helper()
	s, err := store.Open(tb.Context(), db.URL, store.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	_, err = s.Migrate(tb.Context())
	if err == nil {
		_, err = s.Distribute(tb.Context())
	}
	if err := errors.Join(err, s.Close()); err != nil {
		tb.Fatalf("making a distributed database: %v", err)
	}
}

// SQL opens the database without the store, for tests that look behind it or
// damage something; see Damaged.
func (db *Database) SQL(tb testing.TB) *sql.DB {
	tb.Helper()
	driver, name := "pgx", db.URL
	if db.Engine.server == "" {
		driver, name = "sqlite", "file:"+strings.TrimPrefix(db.URL, "sqlite:")+"?_pragma=busy_timeout(5000)"
	}
	raw, err := sql.Open(driver, name)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = raw.Close() })
	return raw
}

// Damaged says that the test damages the ledger or the audit on purpose: they are
// not verified.
func (db *Database) Damaged() { db.damaged = true }

// verify fails the test where the ledger disagrees with itself.
func (db *Database) verify(tb testing.TB) {
	tb.Helper()
	if db.damaged {
		return
	}
	ctx, cancel := cleanupContext(tb)
	defer cancel()
	s, err := store.Open(ctx, db.URL, store.Options{Sealer: sealer(tb)})
	if err != nil {
		tb.Errorf("verifying the ledger: %v", err)
		return
	}
	defer func() {
		if err := s.Close(); err != nil {
			tb.Errorf("verifying the ledger: %v", err)
		}
	}()
	if err := s.Migrated(ctx); err != nil {
		if db.opened {
			tb.Errorf("verifying the ledger: %v", err)
		}
		return
	}
	if _, err := s.Verify(ctx, func(d license.Drift) { tb.Errorf("the ledger has drifted: %v", d) }); err != nil {
		tb.Errorf("verifying the ledger: %v", err)
	}
	if _, err := s.SealAudit(ctx); err != nil {
		tb.Errorf("sealing the audit: %v", err)
	}
	if _, err := s.VerifyAudit(ctx, func(finding string) { tb.Errorf("the audit is broken: %s", finding) }); err != nil {
		tb.Errorf("verifying the audit: %v", err)
	}
}

// cleanupContext bounds what is done when the test's own context has ended.
func cleanupContext(tb testing.TB) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(tb.Context()), time.Minute)
}

// sealer has the same key always, so that every node of a test reads what
// another wrote.
func sealer(tb testing.TB) *auth.Sealer {
	tb.Helper()
	s, err := auth.NewSealer(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		tb.Fatal(fmt.Errorf("making a sealer: %w", err))
	}
	return s
}

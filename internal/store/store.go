// Package store keeps the ledger, the inventory and the work: all SQL is here,
// written once for SQLite and PostgreSQL.
//
// One exported write method is one transaction, and may be run twice: a commit
// whose answer was lost is simply tried again. Three facts always agree, and
// Verify proves it: the balances of the pools, the entitlements (the licenses
// that SIMs hold or await), and the sums of the postings.
//
// Locks are taken in one order: idempotency key, tasks by request and ICCID,
// requests, SIMs by ICCID, the days of a policy, and the pool last, because it is
// the row that everyone on an account shares. Behind it comes only the number of
// an alert, which is rare.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
)

// Options of a store. The zero value works, but can keep no secrets.
type Options struct {
	// Sealer encrypts the secrets that must be sent out again. Without it,
	// listeners with a password or signing secret are refused.
	Sealer *auth.Sealer
	Logger *slog.Logger
	// Conns bounds the connections to PostgreSQL; 0 means 20.
	Conns int
	// Clock tells the time of the audit's entries; nil means the machine's.
	Clock license.Clock
	// From is a file made by Snapshot whose content a database InMemory begins
	// with; empty means none.
	From string
	// Metrics is where the store's metrics are registered; nil counts for nobody.
	Metrics prometheus.Registerer
}

// Store is an open database. Its methods may be called from many goroutines.
//
// When the database cannot be had for now, they fail with a
// *license.UnavailableError.
type Store struct {
	*shared
	actor license.Actor // whose deeds its changes are
}

// shared is what all that use a store have in common.
type shared struct {
	dialect   *dialect
	texts     texts
	db        *sql.DB // of PostgreSQL; on SQLite the readers
	slow      *sql.DB // the same with hours instead of seconds for a statement; on SQLite db itself
	group     *group  // SQLite's one writer; nil on PostgreSQL
	littles   *littles
	listens   sync.Map   // by account: whether it had a listener when something was settled last
	turnstile *turnstile // of what writes to PostgreSQL; nil on SQLite
	sealer    *auth.Sealer
	log       *slog.Logger
	clock     license.Clock
	metrics   *metrics
	path      string // of the SQLite file
	lock      *flock.Flock

	combiner  *combiner
	prepared  sync.Map // statement text to *sql.Stmt, on SQLite
	listeners atomic.Uint64
	readOnly  atomic.Bool // of the last write that ended
}

// minSQLite is the oldest SQLite without the bug that could corrupt a database
// when its write-ahead log is reset.
const minSQLite = "3.51.3"

// Open opens the database at rawURL: "sqlite:PATH", whose file is made if it
// does not exist, InMemory, or "postgres://…". It does not migrate.
func Open(ctx context.Context, rawURL string, o Options) (*Store, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = license.SystemClock{}
	}
	s := &Store{shared: &shared{sealer: o.Sealer, log: o.Logger, clock: o.Clock, littles: newLittles()}}
	s.combiner = &combiner{s: s, of: map[license.AccountName]*gathering{}}
	var err error
	if s.metrics, err = newMetrics(o.Metrics); err != nil {
		return nil, err
	}
	switch scheme, rest, _ := strings.Cut(rawURL, ":"); scheme {
	case "sqlite":
		err = s.openSQLite(ctx, rest, o.From)
	case "postgres", "postgresql":
		err = s.openPostgres(ctx, rawURL, o.Conns)
	default:
		err = errors.New("a database is sqlite:PATH or postgres://USER:PASSWORD@HOST/NAME")
	}
	if err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	if err := s.metrics.watch(o.Metrics, s); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) openSQLite(ctx context.Context, path, from string) error {
	path = strings.TrimPrefix(path, "//")
	if path == "" {
		return errors.New("sqlite: needs a path, such as sqlite:simlatch.db")
	}
	s.dialect, s.path = &sqliteDialect, path
	s.texts.dialect = s.dialect
	dsn := memoryDSN()
	if path != inMemory {
		if from != "" {
			return errors.New("only a database in memory begins with what another has")
		}
		if err := makePrivate(path); err != nil {
			return err
		}
		dsn = func(lock string) string { return sqliteDSN(path, lock) }
	}
	d, err := sqliteDriver()
	if err != nil {
		return err
	}
	writer := sql.OpenDB(sqliteConnector{d, dsn("immediate")})
	writer.SetMaxOpenConns(1)
	conn, err := writer.Conn(ctx)
	if err == nil {
		err = checkSQLite(ctx, conn)
	}
	if err == nil && from != "" {
		err = fill(conn, from)
	}
	if err != nil {
		return errors.Join(err, writer.Close())
	}
	s.db = sql.OpenDB(sqliteConnector{d, dsn("deferred")})
	s.db.SetMaxOpenConns(8)
	s.db.SetMaxIdleConns(8)
	var c *checkpointer
	if path != inMemory {
		c = newCheckpointer(sql.OpenDB(sqliteConnector{d, dsn("deferred")}), s.log)
	}
	s.slow, s.group = s.db, newGroup(s, writer, conn, c)
	return nil
}

// makePrivate makes the file of a database so that nobody else can read it; the
// files that SQLite puts beside it take its mode.
func makePrivate(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// sqliteDSN opens path so that a commit is on the disk when it returns.
func sqliteDSN(path, lock string) string {
	q := url.Values{"_txlock": {lock}}
	for _, pragma := range []string{
		"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)",
		"foreign_keys(ON)", "cache_size(-8192)", "temp_store(MEMORY)", "wal_autocheckpoint(8000)",
	} {
		q.Add("_pragma", pragma)
	}
	return "file:" + fileURL(path) + "?" + q.Encode()
}

// fileURL is a path as SQLite's URLs have it.
func fileURL(path string) string { return (&url.URL{Path: filepath.ToSlash(path)}).EscapedPath() }

func checkSQLite(ctx context.Context, conn *sql.Conn) error {
	var version string
	if err := conn.QueryRowContext(ctx, `SELECT sqlite_version()`).Scan(&version); err != nil {
		return err
	}
	var have, want [3]int
	if _, err := fmt.Sscanf(version+" "+minSQLite, "%d.%d.%d %d.%d.%d",
		&have[0], &have[1], &have[2], &want[0], &want[1], &want[2]); err != nil {
		return fmt.Errorf("reading SQLite's version %q: %w", version, err)
	}
	for i := range have {
		if have[i] != want[i] {
			if have[i] < want[i] {
				return fmt.Errorf("SQLite %s can corrupt databases; %s or newer is needed", version, minSQLite)
			}
			break
		}
	}
	return nil
}

func (s *Store) openPostgres(ctx context.Context, rawURL string, conns int) error {
	s.dialect = &postgresDialect
	s.texts.dialect = s.dialect
	if err := CheckURL(rawURL); err != nil {
		return err
	}
	config, err := postgresConfig(rawURL)
	if err != nil {
		return err
	}
	if conns == 0 {
		conns = 20
	}
	era := new(atomic.Uint64)
	db := openConns(config, conns, callTimeout, true, era)
	db.SetMaxIdleConns(conns)
	if err := db.PingContext(ctx); err != nil {
		return errors.Join(err, db.Close())
	}
	s.db, s.slow = db, openConns(config, slowConns, slowTimeout, false, era)
	s.turnstile = newTurnstile(s.littles)
	s.turnstile.flush = s.flushLog
	return nil
}

// Close ends the writer and closes the database. Writes that are queued get
// an error.
func (s *Store) Close() error {
	var errs []error
	if s.group != nil {
		errs = append(errs, s.group.close())
	}
	s.prepared.Range(func(_, stmt any) bool {
		errs = append(errs, stmt.(*sql.Stmt).Close())
		return true
	})
	errs = append(errs, s.db.Close(), s.slow.Close())
	if s.lock != nil {
		errs = append(errs, s.lock.Unlock())
	}
	return errors.Join(errs...)
}

// Engine is "sqlite" or "postgres".
func (s *Store) Engine() string { return s.dialect.name }

// EngineVersion is the engine's name and own version, such as "SQLite 3.53.0".
func (s *Store) EngineVersion(ctx context.Context) (string, error) {
	name, text := "SQLite", `SELECT sqlite_version()`
	if s.group == nil {
		name, text = "PostgreSQL", `SHOW server_version`
	}
	version, err := first(s.reader(ctx), one[string], text)
	if err != nil {
		return "", s.failed("reading the engine's version", err)
	}
	return name + " " + version, nil
}

// TakeOver makes this process the one that works on a SQLite database: it
// refuses when another does, and makes due at once all that a former one had
// leased, since that one is gone. On PostgreSQL, where many work, it does
// nothing.
func (s *Store) TakeOver(ctx context.Context, now time.Time) error {
	if s.group == nil {
		return nil
	}
	if s.path == inMemory { // nobody else can have it
		return s.failed("taking over", s.reclaimAll(ctx, now))
	}
	lock := flock.New(s.path+".lock", flock.SetPermissions(0o600))
	got, err := lock.TryLock()
	if err != nil {
		return fmt.Errorf("locking the database: %w", err)
	}
	if !got {
		return fmt.Errorf("another process serves %s: a SQLite database has one; use PostgreSQL for more", s.path)
	}
	s.lock = lock
	return s.failed("taking over", s.reclaimAll(ctx, now))
}

// micros is a time as the database keeps it; the zero time is 0.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

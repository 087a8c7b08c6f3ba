package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"modernc.org/sqlite"

	"github.com/simlatch/simlatch/internal/license"
)

// InMemory is the URL of a SQLite database that lives in memory, empty at first
// and gone when it is closed. Each Open makes another.
const InMemory = "sqlite::memory:"

// inMemory is the path of InMemory.
const inMemory = ":memory:"

// memoryDSN names a new database in memory, which the connections opened with it
// share until the last is closed. It has no write-ahead log: readers and the
// writer keep each other waiting, briefly.
func memoryDSN() func(lock string) string {
	name := rand.Text()
	return func(lock string) string {
		return "file:/" + name + "?vfs=memdb&_txlock=" + lock +
			"&_pragma=busy_timeout(5000)&_pragma=journal_mode(MEMORY)&_pragma=foreign_keys(ON)&_pragma=temp_store(MEMORY)"
	}
}

// fill copies the database in a file, as Snapshot makes it, into the one that
// conn is open on, in the place of what that has.
func fill(conn *sql.Conn, path string) error {
	return conn.Raw(func(driverConn any) error {
		into, ok := driverConn.(interface {
			NewRestore(srcURI string) (*sqlite.Backup, error)
		})
		if !ok {
			return errNoCopies
		}
		// Read only: opened to write, it would get a write-ahead log, which a
		// database in memory cannot have.
		backup, err := into.NewRestore("file:" + fileURL(path) + "?mode=ro")
		if err != nil {
			return fmt.Errorf("reading the snapshot: %w", err)
		}
		return copyAll(backup)
	})
}

const copyInto = `VACUUM INTO $1`

// Snapshot copies a SQLite database as it is at one moment into a new file,
// while others go on working; it fails where the file exists already. On
// PostgreSQL it is refused, which has pg_dump.
func (s *Store) Snapshot(ctx context.Context, path string) error {
	if s.group == nil {
		return errors.New("a snapshot is made of a SQLite database; PostgreSQL has pg_dump")
	}
	if s.path == inMemory {
		return s.failed("copying the database", s.pour(ctx, path))
	}
	_, err := s.db.ExecContext(ctx, copyInto, path)
	return s.failed("copying the database", err)
}

// Intact checks the structure of a SQLite database; PostgreSQL checks its pages by
// itself.
func (s *Store) Intact(ctx context.Context) error {
	if s.group == nil {
		return nil
	}
	var said string
	if err := s.slow.QueryRowContext(ctx, `PRAGMA integrity_check(1)`).Scan(&said); err != nil {
		return s.failed("checking the database's structure", err)
	}
	if said != "ok" {
		return fmt.Errorf("the database is damaged: %s", said)
	}
	return nil
}

// pour is Snapshot of a database in memory, out of which VACUUM leads nowhere but
// to another in memory.
func (s *Store) pour(ctx context.Context, path string) (err error) {
	if err := makePrivate(path); err != nil {
		return err
	}
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	return conn.Raw(func(driverConn any) error {
		from, ok := driverConn.(interface {
			NewBackup(dstURI string) (*sqlite.Backup, error)
		})
		if !ok {
			return errNoCopies
		}
		backup, err := from.NewBackup("file:" + fileURL(path))
		if err != nil {
			return err
		}
		return copyAll(backup)
	})
}

var errNoCopies = errors.New("the SQLite driver cannot copy databases")

// copyAll copies all there is.
func copyAll(backup *sqlite.Backup) (err error) {
	defer func() { err = errors.Join(err, backup.Finish()) }()
	const all = -1
	_, err = backup.Step(all)
	return err
}

const (
	nextAtCarrier  = `SELECT coalesce(min(carrier_due), 0) FROM task WHERE carrier_due < 4611686018427387904`
	nextAtListener = `SELECT coalesce(min(listener_due), 0) FROM task WHERE listener_due IS NOT NULL`
	nextLease      = `SELECT coalesce(min(lease_end), 0) FROM request WHERE lease_end IS NOT NULL`
)

// NextDue is when the next work falls due, in either phase or because a lease
// ends; the zero time when there is none. A clock that is turned by hand goes
// there.
func (s *Store) NextDue(ctx context.Context) (time.Time, error) {
	var next int64
	for _, text := range []string{nextAtCarrier, nextAtListener, nextLease} {
		at, err := first(s.reader(ctx), one[int64], text)
		if err != nil {
			return time.Time{}, s.failed("looking for what falls due next", err)
		}
		if at > 0 && (next == 0 || at < next) {
			next = at
		}
	}
	return fromMicros(next), nil
}

const ownerOf = `SELECT account FROM sim_owner WHERE iccid = $1`

const hasten = `UPDATE task SET carrier_due = $3
	WHERE account = $1 AND iccid = $2 AND phase = 'carrier' AND carrier_due > $3`

// Hasten makes due at now what is put off at the carrier for a SIM, and reports
// whether there was anything. Without such a SIM it fails with
// license.ErrNotFound.
func (s *Store) Hasten(ctx context.Context, iccid license.ICCID, now time.Time) (bool, error) {
	account, err := first(s.reader(ctx), one[license.AccountName], ownerOf, string(iccid))
	if err != nil {
		return false, s.failed("looking for a SIM", err)
	}
	var n int64
	err = s.write(ctx, account, 1, func(tx *tx) (err error) {
		n, err = tx.exec(hasten, string(account), string(iccid), micros(now))
		return err
	})
	return n > 0, s.failed("making a task due", err)
}

const (
	selectSetting = `SELECT value FROM setting WHERE name = $1`
	setSetting    = `INSERT INTO setting (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value`
	sandboxState  = "sandbox"
)

// KeepSandbox keeps what a sandbox is about beside its data: its clock and faults.
func (s *Store) KeepSandbox(ctx context.Context, state string) error {
	err := s.write(ctx, "", 1, func(tx *tx) error {
		_, err := tx.exec(setSetting, sandboxState, state)
		return err
	})
	return s.failed("keeping the sandbox's state", err)
}

// KeptSandbox is what KeepSandbox kept last; without it, license.ErrNotFound.
func (s *Store) KeptSandbox(ctx context.Context) (string, error) {
	state, err := first(s.reader(ctx), one[string], selectSetting, sandboxState)
	return state, s.failed("reading the sandbox's state", err)
}

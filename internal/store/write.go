package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/simlatch/simlatch/internal/crash"
	"github.com/simlatch/simlatch/internal/license"
)

// tx is a transaction. Its statements do not take a context: on SQLite a
// context that ended in the midst of one would roll back what others did in the
// same transaction.
type tx struct {
	ctx     context.Context
	dialect *dialect
	run     func(text string, args []any) (sql.Result, error)
	rows    func(text string, args []any) (*sql.Rows, error)
	send    func([]step) error // sends several statements at once; nil on SQLite, where nothing is sent
	hold    *hold              // where it waits while others have the right of way; nil where none has
	broken  error              // the error that ended the transaction
}

// exec runs a statement and returns the number of rows it changed.
func (t *tx) exec(text string, args ...any) (int64, error) {
	if t.broken != nil {
		return 0, t.broken
	}
	crash.At(crash.TxStatement)
	bound, release := t.dialect.bind(args)
	defer release()
	result, err := t.run(text, bound)
	if err != nil {
		return 0, t.note(err)
	}
	return result.RowsAffected()
}

// A step is one of several statements none of which needs another's result.
type step struct {
	text string
	args []any
	row  func(scan func(...any) error) error // for each row, of those that return any
	// check is given how many rows were changed, or returned; nil takes any number.
	check func(n int64) error
}

// together runs statements in their order, up to the first that fails or whose
// check does. PostgreSQL is sent all of them at once: each answer waited for costs
// more than most statements.
func (t *tx) together(steps ...step) error {
	if t.broken != nil {
		return t.broken
	}
	if t.send != nil {
		crash.At(crash.TxStatement)
		return t.send(steps)
	}
	for _, st := range steps {
		n, err := st.run(t)
		if err == nil && st.check != nil {
			err = st.check(n)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// inParts is together for steps that write much, and may wait between them for
// others that write little.
func (t *tx) inParts(steps ...step) error {
	if t.hold == nil {
		return t.together(steps...)
	}
	for _, st := range steps {
		t.wait()
		if err := t.together(st); err != nil {
			return err
		}
	}
	return nil
}

// wait waits while others that write little have the right of way.
func (t *tx) wait() {
	if t.hold != nil {
		t.hold.wait()
	}
}

// portionMost is how many rows a transaction that may wait writes between two waits, at
// most.
const portionMost = 500

// portions cuts what a transaction is to write where it may wait.
func portions[T any](t *tx, list []T) iter.Seq[[]T] {
	if t.hold == nil {
		return slices.Chunk(list, max(1, len(list)))
	}
	return slices.Chunk(list, t.hold.portion())
}

func (st *step) run(t *tx) (int64, error) {
	if st.row == nil {
		return t.exec(st.text, st.args...)
	}
	rows, err := collect(t, func(scan func(...any) error) (struct{}, error) { return struct{}{}, st.row(scan) }, st.text, st.args...)
	return int64(len(rows)), err
}

// unread is of a row that is only counted.
func unread(func(...any) error) error { return nil }

func (t *tx) engine() *dialect { return t.dialect }

func (t *tx) query(text string, args []any) (*sql.Rows, error) {
	if t.broken != nil {
		return nil, t.broken
	}
	crash.At(crash.TxStatement)
	rows, err := t.rows(text, args)
	return rows, t.note(err)
}

// note remembers an error after which the transaction may not be open any more.
func (t *tx) note(err error) error {
	if err != nil && !t.dialect.constraint(err) {
		t.broken = err
	}
	return err
}

// write runs fn in one transaction, and again, a few times, when it lost a race
// or its outcome is unknown; so fn must assign its results afresh each time and
// must be repeatable as a whole. Accounts take turns, and weight, the number of
// rows it writes, says what may go before it; on SQLite, where it shares the
// transaction with others, it bounds the company.
func (s *Store) write(ctx context.Context, account license.AccountName, weight int, fn func(*tx) error) error {
	return s.writeMixed(ctx, account, weight, weight, fn)
}

// writeMixed is write for the rows of several accounts, of which the one named has
// the most.
func (s *Store) writeMixed(ctx context.Context, account license.AccountName, most, weight int, fn func(*tx) error) error {
	const tries = 6
	attempt, begun := fn, time.Now()
	for try := 1; ; try++ {
		var err error
		if s.group != nil {
			err = s.group.do(ctx, account, most, weight, attempt)
		} else {
			err = s.turnstile.pass(ctx, account, most, func(hold *hold) error {
				return s.writeOn(ctx, s.db, hold, attempt)
			})
		}
		if err == nil {
			s.metrics.seconds.Observe(time.Since(begun).Seconds())
			s.readOnly.Store(false)
		} else if s.dialect.readOnly(err) {
			s.readOnly.Store(true)
		}
		if err == nil || try == tries || ctx.Err() != nil || !s.dialect.retry(err) || s.tired(begun) {
			return err
		}
		attempt = func(tx *tx) error {
			if err := tx.confirm(); err != nil {
				return err
			}
			return fn(tx)
		}
		s.metrics.errors[errorAgain].Inc()
		s.log.LogAttrs(ctx, levelRetry, "writing again", errAttr(err))
		select {
		case <-ctx.Done():
			return err
		case <-time.After(rand.N(time.Millisecond << (2 * try))): //nolint:gosec // nobody gains by guessing it
		}
	}
}

// ReadOnly reports whether the last write that ended found that nothing can be
// written: a disk that is full, a file system or server that has become read-only.
// Nodes write heartbeats, so it is known within seconds, and so is its end.
func (s *Store) ReadOnly() bool { return s.readOnly.Load() }

// flushWait is how long a free connection is waited for, to flush the log.
const flushWait = 5 * time.Millisecond

// flushLog has PostgreSQL write its log to the disk, up to now. A commit does that
// for all that was logged before it, by whomever: whoever commits a little while much
// is being written would pay for it.
func (s *Store) flushLog(ctx context.Context) {
	soon, cancel := context.WithTimeout(ctx, flushWait)
	defer cancel()
	c, err := s.db.Conn(soon)
	if err != nil {
		return // it is for speed alone
	}
	defer func() { _ = c.Close() }()             // it goes back to its pool
	_, _ = c.ExecContext(ctx, s.dialect.confirm) // whatever is wrong, the transaction meets as well
}

// writeAlone runs fn in a transaction of its own, however long that takes, and
// once.
func (s *Store) writeAlone(ctx context.Context, fn func(*tx) error) error {
	return s.writeOn(ctx, s.slow, nil, fn)
}

// writeOn runs fn in a transaction on db, which may wait in hold between its
// statements; nil where it need not.
func (s *Store) writeOn(ctx context.Context, db *sql.DB, hold *hold, fn func(*tx) error) (err error) {
	c, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // it goes back to its pool
	t, err := c.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = t.Rollback() // err says what went wrong
		}
	}()
	crash.At(crash.TxBegun)
	err = runCall(&tx{
		ctx: ctx, dialect: s.dialect,
		run: func(text string, args []any) (sql.Result, error) {
			return t.ExecContext(ctx, s.texts.get(text), args...)
		},
		rows: func(text string, args []any) (*sql.Rows, error) {
			return t.QueryContext(ctx, s.texts.get(text), args...)
		},
		send: s.sender(ctx, c), hold: hold,
	}, fn)
	if err != nil {
		return err
	}
	crash.At(crash.TxCommitting)
	if err := t.Commit(); err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	crash.At(crash.TxCommitted)
	return nil
}

// sender sends steps on a connection; nil where that is no connection to send on.
func (s *Store) sender(ctx context.Context, c *sql.Conn) func([]step) error {
	if s.group != nil {
		return nil
	}
	return func(steps []step) error {
		return c.Raw(func(driver any) error {
			return driver.(*conn).together(ctx, func(batch *pgx.Batch) { //nolint:forcetypeassert // it makes no other
				for _, st := range steps {
					args, _ := s.dialect.bind(st.args) // PostgreSQL is lent nothing
					batch.Queue(s.texts.get(st.text), args...)
				}
			}, func(results pgx.BatchResults) error {
				for _, st := range steps {
					if err := st.read(results); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
}

// read reads the step's answer, and checks it.
func (st *step) read(results pgx.BatchResults) error {
	rows, err := results.Query()
	if err != nil {
		return err
	}
	defer rows.Close()
	n := int64(0)
	for ; rows.Next(); n++ {
		if st.row != nil {
			if err := st.row(rows.Scan); err != nil {
				return err
			}
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if st.row == nil {
		n = rows.CommandTag().RowsAffected()
	}
	if st.check != nil {
		return st.check(n)
	}
	return nil
}

// snapshot runs fn on one state of the database, however long that takes.
func (s *Store) snapshot(ctx context.Context, fn func(querier) error) error {
	return s.snapshotOf(ctx, s.slow, fn)
}

func (s *Store) snapshotOf(ctx context.Context, db *sql.DB, fn func(querier) error) (err error) {
	o := &sql.TxOptions{ReadOnly: true}
	if s.group == nil {
		o.Isolation = sql.LevelRepeatableRead
	}
	t, err := db.BeginTx(ctx, o)
	if err != nil {
		return err
	}
	defer func() {
		if rollback := t.Rollback(); !errors.Is(rollback, sql.ErrTxDone) {
			err = errors.Join(err, rollback)
		}
	}()
	return fn(snapshotReader{s, ctx, t})
}

type snapshotReader struct {
	s   *Store
	ctx context.Context
	t   *sql.Tx
}

func (r snapshotReader) engine() *dialect { return r.s.dialect }

func (r snapshotReader) query(text string, args []any) (*sql.Rows, error) {
	return r.t.QueryContext(r.ctx, r.s.texts.get(text), args...)
}

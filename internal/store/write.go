package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

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
	broken  error // the error that ended the transaction
}

// exec runs a statement and returns the number of rows it changed.
func (t *tx) exec(text string, args ...any) (int64, error) {
	if t.broken != nil {
		return 0, t.broken
	}
	bound, release := t.dialect.bind(args)
	defer release()
	result, err := t.run(text, bound)
	if err != nil {
		return 0, t.note(err)
	}
	return result.RowsAffected()
}

func (t *tx) engine() *dialect { return t.dialect }

func (t *tx) query(text string, args []any) (*sql.Rows, error) {
	if t.broken != nil {
		return nil, t.broken
	}
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
// must be repeatable as a whole. On SQLite it shares the transaction with
// others: account takes turns with other accounts, and weight, the number of
// rows it writes, bounds the company.
func (s *Store) write(ctx context.Context, account license.AccountName, weight int, fn func(*tx) error) error {
	const tries = 6
	attempt, begun := fn, time.Now()
	for try := 1; ; try++ {
		var err error
		if s.group != nil {
			err = s.group.do(ctx, account, weight, attempt)
		} else {
			err = s.writeOn(ctx, s.db, attempt)
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
		s.log.LogAttrs(ctx, levelRetry, "writing again", errAttr(err))
		select {
		case <-ctx.Done():
			return err
		case <-time.After(rand.N(time.Millisecond << (2 * try))):
		}
	}
}

// writeAlone runs fn in a transaction of its own, however long that takes, and
// once.
func (s *Store) writeAlone(ctx context.Context, fn func(*tx) error) error {
	return s.writeOn(ctx, s.slow, fn)
}

func (s *Store) writeOn(ctx context.Context, db *sql.DB, fn func(*tx) error) (err error) {
	t, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = t.Rollback() // err says what went wrong
		}
	}()
	err = runCall(&tx{
		ctx: ctx, dialect: s.dialect,
		run: func(text string, args []any) (sql.Result, error) {
			return t.ExecContext(ctx, s.texts.get(text), args...)
		},
		rows: func(text string, args []any) (*sql.Rows, error) {
			return t.QueryContext(ctx, s.texts.get(text), args...)
		},
	}, fn)
	if err != nil {
		return err
	}
	if err := t.Commit(); err != nil {
		return fmt.Errorf("committing: %w", err)
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

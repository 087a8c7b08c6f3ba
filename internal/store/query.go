package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// A querier runs statements: a transaction, or the database for reads outside
// of one.
type querier interface {
	query(text string, args []any) (*sql.Rows, error)
	// engine is whose words the statements are in.
	engine() *dialect
}

// reader reads outside of a transaction, within a caller's context.
type reader struct {
	s   *Store
	ctx context.Context
}

func (s *Store) reader(ctx context.Context) reader { return reader{s, ctx} }

func (r reader) engine() *dialect { return r.s.dialect }

func (r reader) query(text string, args []any) (*sql.Rows, error) {
	if r.s.group == nil { // pgx remembers its statements itself
		return r.s.db.QueryContext(r.ctx, r.s.texts.get(text), args...)
	}
	stmt, err := r.s.prepare(r.ctx, text) //nolint:sqlclosecheck // kept for the next time, until the store closes
	if err != nil {
		return nil, err
	}
	return stmt.QueryContext(r.ctx, args...)
}

func (s *Store) prepare(ctx context.Context, text string) (*sql.Stmt, error) {
	if stmt, ok := s.prepared.Load(text); ok {
		return stmt.(*sql.Stmt), nil
	}
	stmt, err := s.db.PrepareContext(ctx, s.texts.get(text))
	if err != nil {
		return nil, err
	}
	if other, loaded := s.prepared.LoadOrStore(text, stmt); loaded {
		_ = stmt.Close() //nolint:sqlclosecheck // another goroutine was first, and its statement is kept
		return other.(*sql.Stmt), nil
	}
	return stmt, nil
}

// collect runs a query and scans each row by scan, which gets the row's Scan
// and returns one value.
func collect[T any](q querier, scan func(scan func(...any) error) (T, error), text string, args ...any) (list []T, err error) {
	bound, release := q.engine().bind(args)
	defer release()
	rows, err := q.query(text, bound)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		v, err := scan(rows.Scan)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, rows.Err()
}

// first is collect for at most one row; without one it is license.ErrNotFound.
func first[T any](q querier, scan func(scan func(...any) error) (T, error), text string, args ...any) (T, error) {
	list, err := collect(q, scan, text, args...)
	if err != nil || len(list) == 0 {
		var none T
		if err == nil {
			err = license.ErrNotFound
		}
		return none, err
	}
	return list[0], nil
}

// count runs a statement and counts the rows it returns.
func count(q querier, text string, args ...any) (n int, err error) {
	bound, release := q.engine().bind(args)
	defer release()
	rows, err := q.query(text, bound)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		n++
	}
	return n, rows.Err()
}

// one scans a row of one column.
func one[T any](scan func(...any) error) (v T, err error) {
	err = scan(&v)
	return v, err
}

// failed says what was being done when a read or write failed, and whether the
// database cannot be had for now. Errors of the domain pass unchanged.
func (s *Store) failed(doing string, err error) error {
	if err == nil {
		return nil
	}
	var unavailable *license.UnavailableError
	if errors.As(err, &unavailable) {
		return err
	}
	away := !timedOut(err) && (s.dialect.outage(err) || errors.Is(err, sql.ErrConnDone))
	s.metrics.failed(err, away)
	if away {
		err = &license.UnavailableError{Err: err, After: time.Second}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

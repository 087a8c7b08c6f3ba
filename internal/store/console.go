package store

import (
	"context"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
)

const (
	selectOperatorSession = `SELECT hash, operator, opened, used FROM operator_session WHERE hash = $1`
	insertOperatorSession = `INSERT INTO operator_session (hash, operator, opened, used) VALUES ($1, $2, $3, $4)
		ON CONFLICT (hash) DO NOTHING`
	touchOperatorSession  = `UPDATE operator_session SET used = $2 WHERE hash = $1 AND used < $2`
	deleteOperatorSession = `DELETE FROM operator_session WHERE hash = $1`
	endOperatorSessions   = `DELETE FROM operator_session WHERE operator = $1`
	purgeOperatorSessions = `DELETE FROM operator_session WHERE used < $1`
)

// OperatorSession implements auth.OperatorRecords.
func (s *Store) OperatorSession(ctx context.Context, hash string) (auth.OperatorSession, error) {
	ses, err := first(s.reader(ctx), func(scan func(...any) error) (ses auth.OperatorSession, err error) {
		var opened, used int64
		err = scan(&ses.Hash, &ses.Operator, &opened, &used)
		ses.Opened, ses.Used = fromMicros(opened), fromMicros(used)
		return ses, err
	}, selectOperatorSession, hash)
	return ses, s.failed("reading a session", err)
}

// PutOperatorSession implements auth.OperatorRecords.
func (s *Store) PutOperatorSession(ctx context.Context, ses auth.OperatorSession) error {
	_, err := s.changeCredential(ctx, "storing a session", insertOperatorSession, ses.Hash, ses.Operator, micros(ses.Opened), micros(ses.Used))
	return err
}

// TouchOperatorSession implements auth.OperatorRecords.
func (s *Store) TouchOperatorSession(ctx context.Context, hash string, used time.Time) error {
	_, err := s.changeCredential(ctx, "extending a session", touchOperatorSession, hash, micros(used))
	return err
}

// DeleteOperatorSession implements auth.OperatorRecords.
func (s *Store) DeleteOperatorSession(ctx context.Context, hash string) error {
	_, err := s.changeCredential(ctx, "ending a session", deleteOperatorSession, hash)
	return err
}

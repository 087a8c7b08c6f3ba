package store

import (
	"context"
	"fmt"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
)

const (
	selectOperator        = `SELECT name, role, token, password, disabled, created, used FROM operator WHERE name = $1`
	selectOperatorByToken = `SELECT name, role, token, password, disabled, created, used FROM operator
		WHERE token = $1 AND token <> ''`
	selectOperators = `SELECT name, role, token, password, disabled, created, used FROM operator ORDER BY name`
)

func scanOperator(scan func(...any) error) (o auth.OperatorRecord, err error) {
	var disabled, created, used int64
	err = scan(&o.Name, &o.Role, &o.TokenHash, &o.PasswordHash, &disabled, &created, &used)
	o.Disabled, o.Created, o.Used = disabled != 0, fromMicros(created), fromMicros(used)
	return o, err
}

// Operator reads an operator. It fails with license.ErrNotFound.
func (s *Store) Operator(ctx context.Context, name string) (auth.OperatorRecord, error) {
	o, err := first(s.reader(ctx), scanOperator, selectOperator, name)
	return o, s.failed("reading an operator", err)
}

// OperatorByToken reads the operator whose token has a hash. It fails with
// license.ErrNotFound.
func (s *Store) OperatorByToken(ctx context.Context, tokenHash string) (auth.OperatorRecord, error) {
	o, err := first(s.reader(ctx), scanOperator, selectOperatorByToken, tokenHash)
	return o, s.failed("reading an operator", err)
}

// Operators lists all operators by name.
func (s *Store) Operators(ctx context.Context) ([]auth.OperatorRecord, error) {
	list, err := collect(s.reader(ctx), scanOperator, selectOperators)
	return list, s.failed("listing operators", err)
}

const insertOperator = `INSERT INTO operator (name, role, token, password, created) VALUES ($1, $2, $3, $4, $5)
	ON CONFLICT (name) DO NOTHING`

// AddOperator adds an operator. It fails with license.ErrExists.
func (s *Store) AddOperator(ctx context.Context, o auth.OperatorRecord, now time.Time) error {
	e := s.entry("operator.add", "", o.Name)
	err := s.write(ctx, "", 1, func(tx *tx) error {
		n, err := tx.exec(insertOperator, o.Name, string(o.Role), o.TokenHash, o.PasswordHash, micros(now))
		if err == nil && n == 0 {
			err = fmt.Errorf("operator %s: %w", o.Name, license.ErrExists)
		}
		if err == nil {
			err = tx.record(e, nil, operatorFacts(o))
		}
		return err
	})
	return s.failed("adding an operator", err)
}

const (
	setOperatorToken    = `UPDATE operator SET token = $2 WHERE name = $1`
	setOperatorPassword = `UPDATE operator SET password = $2 WHERE name = $1`
	setOperatorRole     = `UPDATE operator SET role = $2 WHERE name = $1`
	setOperatorDisabled = `UPDATE operator SET disabled = $2 WHERE name = $1`
)

// operatorFacts is what the audit says of an operator.
func operatorFacts(o auth.OperatorRecord) facts {
	return facts{"role": o.Role, "disabled": o.Disabled, "token": o.TokenHash != "", "password": o.PasswordHash != ""}
}

// RotateOperator gives an operator another token, by its hash, or takes it away
// when that is empty; the old one ends within a second. It fails with
// license.ErrNotFound.
func (s *Store) RotateOperator(ctx context.Context, name, tokenHash string) error {
	return s.changeOperator(ctx, "rotate", name, setOperatorToken, tokenHash)
}

// SetOperatorPassword gives an operator a password for the console, by its hash,
// or takes it away when that is empty; failed logins are forgotten, and the
// operator is signed out. It fails with license.ErrNotFound.
func (s *Store) SetOperatorPassword(ctx context.Context, name, hash string) error {
	return s.changeOperator(ctx, "password", name, setOperatorPassword, hash)
}

// SetOperatorRole changes what an operator may do. It fails with
// license.ErrNotFound.
func (s *Store) SetOperatorRole(ctx context.Context, name string, role auth.Role) error {
	return s.changeOperator(ctx, "role", name, setOperatorRole, string(role))
}

// DisableOperator shuts an operator out, or lets them in again, to sign in anew. It
// fails with license.ErrNotFound.
func (s *Store) DisableOperator(ctx context.Context, name string, disabled bool) error {
	if disabled {
		return s.changeOperator(ctx, "disable", name, setOperatorDisabled, 1)
	}
	return s.changeOperator(ctx, "enable", name, setOperatorDisabled, 0)
}

// changeOperator runs one of the updates above, and has it audited.
func (s *Store) changeOperator(ctx context.Context, deed, name, text string, value any) error {
	e := s.entry("operator."+deed, "", name)
	err := s.write(ctx, "", 1, func(tx *tx) error {
		before, err := first(tx, scanOperator, selectOperator, name)
		if err == nil {
			_, err = tx.exec(text, name, value)
		}
		if err == nil && text == setOperatorPassword {
			_, err = tx.exec(unlock, lockName("operator:"+name))
		}
		if err == nil && (text == setOperatorPassword || text == setOperatorDisabled) {
			_, err = tx.exec(endOperatorSessions, name)
		}
		if err != nil {
			return fmt.Errorf("operator %s: %w", name, err)
		}
		after, err := first(tx, scanOperator, selectOperator, name)
		if err != nil {
			return err
		}
		return tx.record(e, operatorFacts(before), operatorFacts(after))
	})
	return s.failed("changing an operator", err)
}

const touchOperator = `UPDATE operator SET used = $2 WHERE name = $1 AND used < $2`

// TouchOperator notes when an operator was last seen.
func (s *Store) TouchOperator(ctx context.Context, name string, used time.Time) error {
	_, err := s.changeCredential(ctx, "noting an operator's use", touchOperator, name, micros(used))
	return err
}

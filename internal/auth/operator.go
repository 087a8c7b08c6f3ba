package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// ErrOperator says that an operator's token is unknown, or its owner disabled.
var ErrOperator = errors.New("the operator's token is unknown or disabled")

// Role says what an operator may do. Each role may do what those before it may.
type Role string

// The roles.
const (
	RoleViewer   Role = "viewer"   // reads everything
	RoleOperator Role = "operator" // also does the daily work: imports, purchases, callbacks, stuck tasks
	RoleAdmin    Role = "admin"    // also decides who may do what: operators, applications, users, policies
)

// Roles lists the roles from the least to the greatest.
func Roles() []Role { return []Role{RoleViewer, RoleOperator, RoleAdmin} }

// ParseRole checks that s is a role, letter for letter.
func ParseRole(s string) (Role, error) {
	if !slices.Contains(Roles(), Role(s)) {
		return "", &license.InputError{Field: license.FieldRole, Value: s, Reason: "a role is viewer, operator or admin"}
	}
	return Role(s), nil
}

// May reports whether who has this role may do what asks for another. What is no
// role may do nothing, and nobody may do what asks for it.
func (r Role) May(need Role) bool {
	have, needed := slices.Index(Roles(), r), slices.Index(Roles(), need)
	return needed >= 0 && have >= needed
}

// Operator is who runs the installation, as a call of theirs sees them.
type Operator struct {
	Name string
	Role Role
}

// OperatorRecord is an operator as stored.
type OperatorRecord struct {
	Operator
	TokenHash    string // HashSecret of the token; empty for one who has none
	PasswordHash string // HashPassword of the console's password; empty for one who has none
	Disabled     bool
	Created      time.Time
	Used         time.Time // of the token or the password, to the minute; zero: never
}

// OperatorRecords is where operators are kept; the store. Reads of what does not
// exist give license.ErrNotFound.
type OperatorRecords interface {
	Operator(ctx context.Context, name string) (OperatorRecord, error)
	OperatorByToken(ctx context.Context, tokenHash string) (OperatorRecord, error)
	TouchOperator(ctx context.Context, name string, used time.Time) error

	OperatorSession(ctx context.Context, hash string) (OperatorSession, error)
	PutOperatorSession(ctx context.Context, s OperatorSession) error
	TouchOperatorSession(ctx context.Context, hash string, used time.Time) error
	DeleteOperatorSession(ctx context.Context, hash string) error
}

// operatorPrefix begins every operator's token, so that those who look for
// leaked secrets know one when they see it.
const operatorPrefix = "simlatch_op_"

// NewOperatorToken makes a token for an operator, of 130 random bits. It is shown
// once, and stored as HashSecret of it.
func NewOperatorToken() Secret { return Secret(operatorPrefix + rand.Text()) }

// Operator finds whose token this is. It fails with ErrOperator. A change of the
// operator counts within a second.
func (a *Authority) Operator(ctx context.Context, token Secret) (Operator, error) {
	if token == "" {
		return Operator{}, ErrOperator
	}
	hash, now := HashSecret(token), a.cfg.Clock.Now()
	o, changes, known := a.operators.get(hash, now)
	if !known {
		var err error
		o, err = a.cfg.Records.OperatorByToken(ctx, hash)
		switch {
		case errors.Is(err, license.ErrNotFound):
			return Operator{}, ErrOperator
		case err != nil:
			return Operator{}, fmt.Errorf("looking an operator's token up: %w", err)
		}
		if !o.Disabled {
			if o.Used, err = a.touchOperator(ctx, o, now); err != nil {
				return Operator{}, err
			}
		}
		a.operators.set(hash, o, now, changes)
	}
	if o.Disabled {
		return Operator{}, ErrOperator
	}
	return o.Operator, nil
}

// LoginOperator finds the operator whose password for the console this is, and
// slows those who guess as Login does. from is the caller's address. It fails with
// ErrPassword, or a *SlowedError of it, after the same work for an unknown name, a
// wrong password, and an operator who has none or is disabled.
func (a *Authority) LoginOperator(ctx context.Context, name string, password Secret, from string) (Operator, error) {
	var o OperatorRecord
	err := a.guarded(ctx, "operator:"+name, password, from, func() (hash string, valid bool, err error) {
		o, err = a.cfg.Records.Operator(ctx, name)
		return o.PasswordHash, o.PasswordHash != "" && !o.Disabled, err
	})
	if err == nil {
		_, err = a.touchOperator(ctx, o, a.cfg.Clock.Now())
	}
	if err != nil {
		return Operator{}, err
	}
	return o.Operator, nil
}

// touchOperator writes an operator's last use down, at most once a minute.
func (a *Authority) touchOperator(ctx context.Context, o OperatorRecord, now time.Time) (time.Time, error) {
	if now.Sub(o.Used) < touchEvery {
		return o.Used, nil
	}
	if err := a.cfg.Records.TouchOperator(ctx, o.Name, now); err != nil {
		return o.Used, fmt.Errorf("noting an operator's use: %w", err)
	}
	return now, nil
}

package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// OnceKey is an operator's idempotency key: what it stands for is done at most
// once within 24 hours. Account may be empty where the call is about none.
type OnceKey struct {
	Account   license.AccountName
	Caller    string
	Operation string
	Key       string
	Hash      string // of the call
}

// ErrPending says that a call of the same key was begun, and what became of it
// is not known: it may be under way, or its process ended before it was written
// down.
var ErrPending = errors.New("a call with this idempotency key was begun and has no answer yet")

const (
	claimPrefix  = "claim:"
	callerPrefix = "operator:"
)

const (
	claimOnce = `INSERT INTO idempotency (account, application, operation, key, hash, request, time)
		VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (account, application, operation, key)
		DO UPDATE SET hash = excluded.hash, request = excluded.request, time = excluded.time
		WHERE idempotency.time <= $8`
	answerOnce = `UPDATE idempotency SET request = $6
		WHERE account = $1 AND application = $2 AND operation = $3 AND key = $4 AND request = $5`
	forgetOnce = `DELETE FROM idempotency
		WHERE account = $1 AND application = $2 AND operation = $3 AND key = $4 AND request = $5`
)

func (k OnceKey) args() []any { return []any{string(k.Account), k.caller(), k.Operation, k.Key} }

// caller keeps the keys of operators apart from those of applications, whose
// keys have no colon.
func (k OnceKey) caller() string { return callerPrefix + k.Caller }

func (k OnceKey) place() string {
	return strings.Join([]string{"idempotency", string(k.Account), k.caller(), k.Operation, k.Key}, "/")
}

// BeginOnce begins a call under its key. Where the key is new, claim is what
// EndOnce wants; where it has been answered, answer is what EndOnce was given.
// It fails with license.ErrKeyReused where the key stands for another call, and
// with ErrPending.
func (s *Store) BeginOnce(ctx context.Context, k OnceKey, now time.Time) (claim, answer string, err error) {
	if s.sealer == nil { // answers can hold secrets
		return "", "", fmt.Errorf("keeping an answer: %w: there is no sealing key", license.ErrNotConfigured)
	}
	own := claimPrefix + rand.Text()
	err = s.write(ctx, k.Account, 1, func(tx *tx) error {
		claim, answer = "", ""
		n, err := tx.exec(claimOnce, append(k.args(), k.Hash, own, micros(now), micros(now.Add(-keepIdempotency)))...)
		if err != nil {
			return err
		}
		if n > 0 {
			claim = own
			return nil
		}
		kept, err := findKey(tx, k.Account, k.caller(), k.Operation, k.Key, k.Hash, time.Time{})
		switch {
		case err != nil:
			return err
		case string(kept) == own: // a former try was committed
			claim = own
		case strings.HasPrefix(string(kept), claimPrefix):
			return ErrPending
		default:
			answer = string(kept)
		}
		return nil
	})
	if err == nil && answer != "" {
		answer, err = s.sealer.Open(answer, k.place())
	}
	return claim, answer, s.failed("beginning a call under its key", err)
}

// EndOnce writes down what a call was answered.
func (s *Store) EndOnce(ctx context.Context, k OnceKey, claim, answer string) error {
	err := s.write(ctx, k.Account, 1, func(tx *tx) error {
		sealed, err := s.seal(tx, answer, k.place())
		if err == nil {
			_, err = tx.exec(answerOnce, append(k.args(), claim, sealed)...)
		}
		return err
	})
	return s.failed("ending a call under its key", err)
}

// ForgetOnce makes a key as if it had never been used, for a call that changed
// nothing.
func (s *Store) ForgetOnce(ctx context.Context, k OnceKey, claim string) error {
	err := s.write(ctx, k.Account, 1, func(tx *tx) error {
		_, err := tx.exec(forgetOnce, append(k.args(), claim)...)
		return err
	})
	return s.failed("ending a call under its key", err)
}

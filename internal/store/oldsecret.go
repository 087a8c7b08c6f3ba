package store

import (
	"context"
	"fmt"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
)

// An old secret is disabled with its application.
const (
	selectOldSecret = `SELECT o.application, o.hash, c.disabled, o.nonce, o.issued, o.token, o.ends
		FROM old_secret o JOIN credential c ON c.kind = 'application' AND c.name = o.application
		WHERE o.application = $1`
	selectOldByToken = `SELECT o.application, o.hash, c.disabled, o.nonce, o.issued, o.token, o.ends
		FROM old_secret o JOIN credential c ON c.kind = 'application' AND c.name = o.application
		WHERE o.token = $1 AND o.token <> ''`
	replaceOldToken = `UPDATE old_secret SET nonce = $2, issued = $3, token = $4
		WHERE application = $1 AND nonce = $5 AND hash = $6`
	keepOldSecret = `INSERT INTO old_secret (application, hash, nonce, issued, token, ends)
		SELECT name, hash, nonce, issued, token, CAST($2 AS BIGINT) FROM credential WHERE kind = 'application' AND name = $1`
	deleteOldSecret = `DELETE FROM old_secret WHERE application = $1`
	purgeOldSecrets = `DELETE FROM old_secret WHERE ends <= $1`
)

func scanOldSecret(scan func(...any) error) (a auth.Application, err error) {
	var disabled, issued, ends int64
	err = scan(&a.Key, &a.SecretHash, &disabled, &a.Nonce, &issued, &a.TokenHash, &ends)
	a.Disabled, a.Issued, a.Ends = disabled != 0, fromMicros(issued), fromMicros(ends)
	return a, err
}

// OldSecret implements auth.Records.
func (s *Store) OldSecret(ctx context.Context, key string) (auth.Application, error) {
	a, err := first(s.reader(ctx), scanOldSecret, selectOldSecret, key)
	return a, s.failed("reading an application's old secret", err)
}

const rotateApplication = `UPDATE credential SET hash = $2, nonce = '', issued = 0, token = ''
	WHERE kind = 'application' AND name = $1`

// RotateApplication gives an application another secret. The one before it, and
// the token bought with it, are taken as well until ends; zero ends them at once.
// A still older one ends in any case. It fails with license.ErrNotFound.
func (s *Store) RotateApplication(ctx context.Context, key, secretHash string, ends time.Time) error {
	e := s.entry("application.rotate", "", key)
	err := s.write(ctx, "", 1, func(tx *tx) error {
		n, err := tx.exec(lockApplication, key)
		if err == nil && n == 0 {
			err = fmt.Errorf("application %s: %w", key, license.ErrNotFound)
		}
		if err != nil {
			return err
		}
		before, err := first(tx, scanApplication, selectApplication, key)
		if err != nil || before.SecretHash == secretHash {
			return err // it was done by a try whose outcome was unknown
		}
		if _, err := tx.exec(deleteOldSecret, key); err != nil {
			return err
		}
		var after facts
		if !ends.IsZero() {
			after = facts{"old_secret_until": ends.UTC().Format(time.RFC3339)}
			if _, err := tx.exec(keepOldSecret, key, micros(ends)); err != nil {
				return err
			}
		}
		if _, err := tx.exec(rotateApplication, key, secretHash); err != nil {
			return err
		}
		return tx.record(e, nil, after)
	})
	return s.failed("rotating a secret", err)
}

// EndOldSecret ends an application's old secret before its time. It fails with
// license.ErrNotFound where there is none.
func (s *Store) EndOldSecret(ctx context.Context, key string) error {
	ended, err := s.changeAudited(ctx, "ending an old secret", s.entry("application.end-old-secret", "", key), deleteOldSecret, key)
	if err == nil && !ended {
		return fmt.Errorf("old secret of application %s: %w", key, license.ErrNotFound)
	}
	return err
}

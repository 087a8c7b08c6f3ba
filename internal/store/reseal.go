package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
)

// resealBatch is how many rows are read at once, and sealed anew in one
// transaction at most.
const resealBatch = 200

const (
	sealedListeners = `SELECT account, service, password, secret FROM listener
		WHERE (account, service) > ($1, $2) AND (password <> '' OR secret <> '') ORDER BY account, service LIMIT $3`
	sealedAnswers = `SELECT account, application, operation, key, request FROM idempotency
		WHERE (account, application, operation, key) > ($1, $2, $3, $4)
			AND application LIKE 'operator:%' AND request <> '' AND request NOT LIKE 'claim:%'
		ORDER BY account, application, operation, key LIMIT $5`
	resealPassword = `UPDATE listener SET password = $4 WHERE account = $1 AND service = $2 AND password = $3`
	resealSecret   = `UPDATE listener SET secret = $4 WHERE account = $1 AND service = $2 AND secret = $3`
)

// A sealedText is one secret as it is stored.
type sealedText struct {
	account license.AccountName
	place   string // what it is bound to
	text    string
	update  string // the statement that replaces it by $N, if it is still the same
	args    []any  // of that statement, text included
}

// Sealed counts the secrets that are stored sealed.
type Sealed struct {
	ByKey map[string]int // by the fingerprint of the key that opens them
	// Lost are those that no key opens: their key is gone, or they are damaged.
	Lost int
}

// Sealed counts the secrets by the keys that seal them.
func (s *Store) Sealed(ctx context.Context) (Sealed, error) {
	if s.sealer == nil {
		return Sealed{}, fmt.Errorf("counting secrets: %w: there is no sealing key", license.ErrNotConfigured)
	}
	sealer := s.sealer.Fixed()
	found := Sealed{ByKey: map[string]int{}}
	for _, f := range sealer.Fingerprints() {
		found.ByKey[f] = 0
	}
	err := s.eachSealed(ctx, func(batch []sealedText) error {
		for _, x := range batch {
			if _, key, err := sealer.OpenBy(x.text, x.place); err == nil {
				found.ByKey[key]++
			} else {
				found.Lost++
			}
		}
		return nil
	})
	return found, s.failed("counting secrets", err)
}

// errLost says that secrets are left which no key opens.
var errLost = errors.New("secrets are left that no key of the key file opens; register their listeners again")

// Reseal seals anew, with the first key, what other keys seal, some at a time,
// and then takes the other keys off the list of those that the database needs.
// Before the first and after each batch, progress is told how many are done and
// left. Anything may go on beside it: what is written meanwhile stands.
//
// It fails with ErrOtherKey, with ErrKeyInUse, and where secrets are left that no
// key opens. What was sealed anew then stays so, and all keys are still needed.
func (s *Store) Reseal(ctx context.Context, progress func(done, left int)) (done int, err error) {
	if s.sealer == nil {
		return 0, fmt.Errorf("sealing anew: %w: there is no sealing key", license.ErrNotConfigured)
	}
	sealer := s.sealer.Fixed()
	run, err := s.beginReseal(ctx, sealer)
	if err != nil {
		return 0, s.failed("sealing anew", err)
	}
	found, err := s.Sealed(ctx)
	if err != nil {
		return 0, err
	}
	left := 0
	for key, n := range found.ByKey {
		if key != sealer.Fingerprint() {
			left += n
		}
	}
	progress(0, left)
	lost := false
	err = s.eachSealed(ctx, func(batch []sealedText) error {
		older, closed := olderOf(sealer, batch)
		lost = lost || closed
		for len(older) > 0 {
			n := sameAccount(older)
			changed, err := s.resealSome(ctx, sealer, older[:n])
			if err != nil {
				return err
			}
			done, left = done+changed, max(0, left-n)
			older = older[n:]
			progress(done, left)
		}
		return nil
	})
	if err == nil && lost {
		err = errLost
	}
	if err == nil {
		err = s.endReseal(ctx, sealer, run)
	}
	return done, s.failed("sealing anew", err)
}

// olderOf picks what another key than the first seals; closed says that no key
// opens some of it.
func olderOf(sealer *auth.Sealer, batch []sealedText) (older []sealedText, closed bool) {
	for _, x := range batch {
		_, key, err := sealer.OpenBy(x.text, x.place)
		switch {
		case err != nil:
			closed = true
		case key != sealer.Fingerprint():
			older = append(older, x)
		}
	}
	return older, closed
}

// sameAccount counts those at the beginning that are of one account.
func sameAccount(list []sealedText) int {
	for i, x := range list {
		if x.account != list[0].account {
			return i
		}
	}
	return len(list)
}

// resealSome seals secrets of one account anew, in one transaction. Those that
// were replaced meanwhile stay as they are.
func (s *Store) resealSome(ctx context.Context, sealer *auth.Sealer, list []sealedText) (changed int, err error) {
	err = s.write(ctx, list[0].account, len(list), func(tx *tx) error {
		changed = 0
		now, err := s.sealing(tx)
		if err != nil {
			return err
		}
		if now.Fingerprint() != sealer.Fingerprint() {
			return errors.New("the key file was changed meanwhile; run this again")
		}
		for _, x := range list {
			plain, err := sealer.Open(x.text, x.place)
			if err != nil {
				return err
			}
			n, err := tx.exec(x.update, append(x.args[:len(x.args):len(x.args)], sealer.Seal(plain, x.place))...)
			if err != nil {
				return err
			}
			changed += int(n)
		}
		return nil
	})
	return changed, err
}

// eachSealed gives fn all that is sealed, in batches.
func (s *Store) eachSealed(ctx context.Context, fn func([]sealedText) error) error {
	account, service := "", ""
	for more := true; more; {
		rows, err := collect(s.reader(ctx), func(scan func(...any) error) (pair [2]sealedText, err error) {
			var password, secret string
			if err := scan(&account, &service, &password, &secret); err != nil {
				return pair, err
			}
			of := license.AccountName(account)
			return [2]sealedText{
				{of, place(of, service, "password"), password, resealPassword, []any{account, service, password}},
				{of, place(of, service, "secret"), secret, resealSecret, []any{account, service, secret}},
			}, nil
		}, sealedListeners, account, service, resealBatch)
		if err != nil {
			return err
		}
		var batch []sealedText
		for _, pair := range rows {
			for _, x := range pair {
				if x.text != "" {
					batch = append(batch, x)
				}
			}
		}
		if err := fn(batch); err != nil {
			return err
		}
		more = len(rows) == resealBatch
	}
	return s.eachSealedAnswer(ctx, fn)
}

func (s *Store) eachSealedAnswer(ctx context.Context, fn func([]sealedText) error) error {
	var k OnceKey
	caller := ""
	for more := true; more; {
		batch, err := collect(s.reader(ctx), func(scan func(...any) error) (x sealedText, err error) {
			if err := scan(&k.Account, &caller, &k.Operation, &k.Key, &x.text); err != nil {
				return x, err
			}
			k.Caller = caller[len(callerPrefix):]
			x.account, x.place, x.update, x.args = k.Account, k.place(), answerOnce, append(k.args(), x.text)
			return x, nil
		}, sealedAnswers, string(k.Account), caller, k.Operation, k.Key, resealBatch)
		if err != nil {
			return err
		}
		if err := fn(batch); err != nil {
			return err
		}
		more = len(batch) == resealBatch
	}
	return nil
}

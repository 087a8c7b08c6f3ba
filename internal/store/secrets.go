package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
)

// The database knows, by their fingerprints, the keys that may have sealed
// something in it. A transaction that seals locks this list and sees to it that
// its key is there; a key leaves the list when everything was sealed anew since
// it was last used. So a key that is not there is needed by nothing.

const (
	keysName = "sealing-key-fingerprint"
	lockKeys = `INSERT INTO setting (name, value) VALUES ($1, '')
		ON CONFLICT (name) DO UPDATE SET value = setting.value RETURNING value`
	setKeys = `UPDATE setting SET value = $2 WHERE name = $1`
)

var (
	// ErrOtherKey says that the database's secrets were sealed with another key.
	ErrOtherKey = errors.New("the secrets in this database were sealed with another key")
	// ErrKeyInUse says that something was sealed with an older key while all was
	// sealed anew.
	ErrKeyInUse = errors.New("a node or a command still seals with an older key, or secrets are being sealed anew elsewhere; " +
		"put the new key first in the key file everywhere, and run this again")
)

// knownKey is a key that may have sealed something.
type knownKey struct {
	fingerprint string
	// leaving is the run of Reseal that began when the key was used last.
	leaving string
}

// knownKeys reads the list and locks it until the transaction ends.
func knownKeys(tx *tx) (list []knownKey, err error) {
	text, err := first(tx, one[string], lockKeys, keysName)
	for word := range strings.FieldsSeq(text) {
		k := knownKey{}
		k.fingerprint, k.leaving, _ = strings.Cut(word, ":")
		list = append(list, k)
	}
	return list, err
}

func storeKeys(tx *tx, list []knownKey) error {
	var words []string
	for _, k := range list {
		if k.leaving != "" {
			k.fingerprint += ":" + k.leaving
		}
		words = append(words, k.fingerprint)
	}
	_, err := tx.exec(setKeys, keysName, strings.Join(words, " "))
	return err
}

// needKeys fails with ErrOtherKey unless sealer has all keys of the list.
func needKeys(sealer *auth.Sealer, list []knownKey) error {
	have := sealer.Fingerprints()
	for _, k := range list {
		if !slices.Contains(have, k.fingerprint) {
			return fmt.Errorf("%w: the key file has %s, and %s is missing", ErrOtherKey, strings.Join(have, ", "), k.fingerprint)
		}
	}
	return nil
}

// sealing is the Sealer to seal with in a transaction, nil where there is none.
// It locks the list of keys, so it comes before other locks.
func (s *Store) sealing(tx *tx) (*auth.Sealer, error) {
	if s.sealer == nil {
		return nil, nil
	}
	sealer := s.sealer.Fixed()
	list, err := knownKeys(tx)
	if err != nil {
		return nil, err
	}
	own := slices.IndexFunc(list, func(k knownKey) bool { return k.fingerprint == sealer.Fingerprint() })
	switch {
	case own < 0:
		if err := needKeys(sealer, list); err != nil {
			return nil, err
		}
		list = append(list, knownKey{fingerprint: sealer.Fingerprint()})
	case list[own].leaving == "":
		return sealer, nil
	default:
		list[own].leaving = ""
	}
	return sealer, storeKeys(tx, list)
}

// seal encrypts a secret so that it can be opened in its own place only.
func (s *Store) seal(tx *tx, secret, place string) (string, error) {
	if secret == "" {
		return "", nil
	}
	sealer, err := s.sealing(tx)
	if err == nil && sealer == nil {
		err = fmt.Errorf("keeping a secret: %w: there is no sealing key", license.ErrNotConfigured)
	}
	if err != nil {
		return "", err
	}
	return sealer.Seal(secret, place), nil
}

func (s *Store) open(sealed, place string) (string, error) {
	if sealed == "" {
		return "", nil
	}
	if s.sealer == nil {
		return "", fmt.Errorf("reading a secret: %w: there is no sealing key", license.ErrNotConfigured)
	}
	return s.sealer.Open(sealed, place)
}

func place(account license.AccountName, service, field string) string {
	return "listener/" + string(account) + "/" + service + "/" + field
}

// CheckSealer makes the sealing key one of the database's, and fails with
// ErrOtherKey if the database has another that is not among the keys.
func (s *Store) CheckSealer(ctx context.Context) error { return s.checkKeys(ctx, s.sealer) }

// ReplaceKeys gives the store the keys of another Sealer. It fails with
// ErrOtherKey where one that is needed is not among them; the former keys then
// stay.
func (s *Store) ReplaceKeys(ctx context.Context, sealer *auth.Sealer) error {
	err := s.checkKeys(ctx, sealer)
	if err == nil {
		s.sealer.Replace(sealer)
	}
	return err
}

func (s *Store) checkKeys(ctx context.Context, sealer *auth.Sealer) error {
	if sealer == nil {
		return nil
	}
	err := s.write(ctx, "", 1, func(tx *tx) error {
		list, err := knownKeys(tx)
		if err == nil {
			err = needKeys(sealer, list)
		}
		if err == nil && !slices.ContainsFunc(list, func(k knownKey) bool { return k.fingerprint == sealer.Fingerprint() }) {
			err = storeKeys(tx, append(list, knownKey{fingerprint: sealer.Fingerprint()}))
		}
		return err
	})
	return s.failed("checking the sealing key", err)
}

// beginReseal marks all keys but the first as leaving, until they are used.
func (s *Store) beginReseal(ctx context.Context, sealer *auth.Sealer) (run string, err error) {
	run = rand.Text()
	return run, s.write(ctx, "", 1, func(tx *tx) error {
		list, err := knownKeys(tx)
		if err == nil {
			err = needKeys(sealer, list)
		}
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(list, func(k knownKey) bool { return k.fingerprint == sealer.Fingerprint() }) {
			list = append(list, knownKey{fingerprint: sealer.Fingerprint()})
		}
		for i, k := range list {
			list[i].leaving = ""
			if k.fingerprint != sealer.Fingerprint() {
				list[i].leaving = run
			}
		}
		return storeKeys(tx, list)
	})
}

// endReseal removes the keys that are leaving since run began. It fails with
// ErrKeyInUse where one was used meanwhile.
func (s *Store) endReseal(ctx context.Context, sealer *auth.Sealer, run string) error {
	e := s.entry("secrets.reseal", "", sealer.Fingerprint())
	return s.write(ctx, "", 1, func(tx *tx) error {
		list, err := knownKeys(tx)
		if err != nil {
			return err
		}
		var before, after []string
		var left []knownKey
		for _, k := range list {
			before = append(before, k.fingerprint)
			if k.leaving == run {
				continue
			}
			if k.fingerprint != sealer.Fingerprint() || k.leaving != "" {
				return ErrKeyInUse
			}
			after, left = append(after, k.fingerprint), append(left, k)
		}
		if len(after) == len(before) {
			return nil
		}
		if err := storeKeys(tx, left); err != nil {
			return err
		}
		return tx.record(e, facts{"keys": before}, facts{"keys": after})
	})
}

package auth

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/simlatch/simlatch/internal/license"
)

// The argon2id parameters for passwords (OWASP's second choice): 19 MiB, two
// passes, one lane.
const (
	argonTime   = 2
	argonMemory = 19 * 1024 // KiB
	argonLanes  = 1
	argonKey    = 32
)

// HashPassword is the form in which a person's password is stored, in the usual
// notation of argon2id.
func HashPassword(p Secret) string { return hashPassword(p, argonTime, argonMemory) }

// HashKnownPassword is HashPassword for a password that is no secret, such as a
// sandbox's: it makes nobody who guesses work, and is checked a thousand times as
// fast.
func HashKnownPassword(p Secret) string { return hashPassword(p, 1, 8) }

func hashPassword(p Secret, passes, memory uint32) string {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	key := argon2.IDKey([]byte(p), salt, passes, memory, argonLanes, argonKey)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, memory, passes, argonLanes,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key))
}

// CheckPassword reports whether p is the password that stored was made from.
func CheckPassword(stored string, p Secret) bool {
	var version, memory, time, lanes int
	parts := strings.Split(stored, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false
	}
	if _, err := fmt.Sscanf(parts[2]+" "+parts[3], "v=%d m=%d,t=%d,p=%d", &version, &memory, &time, &lanes); err != nil {
		return false
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	want, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil || version != argon2.Version || len(want) == 0 {
		return false
	}
	// What is out of these bounds would panic or take all memory.
	if time < 1 || time > 100 || lanes < 1 || lanes > 255 || memory < 1 || memory > 1<<20 {
		return false
	}
	got := argon2.IDKey([]byte(p), salt, uint32(time), uint32(memory), uint8(lanes), uint32(len(want))) //nolint:gosec // parameters that parsing has bounded
	return same(string(got), string(want))
}

// nobody is checked in place of an unknown user's password, so that unknown
// names take the same time. No password fits it.
const nobody = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// checkPassword finds the user whose password this is, and keeps count of
// failures.
func (a *Authority) checkPassword(ctx context.Context, name string, password Secret, from string) (User, error) {
	var u User
	err := a.guarded(ctx, "user:"+name, password, from, func() (hash string, valid bool, err error) {
		u, err = a.cfg.Records.User(ctx, name)
		return u.PasswordHash, !u.Disabled, err
	})
	if err != nil {
		return User{}, err
	}
	return u, nil
}

// guarded checks a password against what find finds, and keeps count of failures
// under key. What is not valid costs the same work and fails the same.
func (a *Authority) guarded(ctx context.Context, key string, password Secret, from string, find func() (hash string, valid bool, err error)) error {
	var slowed *SlowedError
	if err := a.slowed(ctx, key, from, ErrPassword); errors.As(err, &slowed) {
		return err // which says that it was not checked, whoever has the name
	}
	if err := a.enter(ctx); err != nil {
		return err
	}
	defer a.leave()
	// Here, since many tries may have waited for their turn together.
	if err := a.slowed(ctx, key, from, ErrPassword); err != nil {
		if errors.Is(err, ErrPassword) && !errors.As(err, &slowed) {
			a.check(nobody, password) // a locked name takes the time of a wrong password
		}
		return err
	}
	stored, valid, err := find()
	if err != nil && !errors.Is(err, license.ErrNotFound) {
		return fmt.Errorf("reading who has a password: %w", err)
	}
	if err != nil || stored == "" {
		stored, valid = nobody, false
	}
	if ok := a.check(stored, password); !ok || !valid {
		return a.failed(ctx, key, from, ErrPassword)
	}
	return a.succeeded(ctx, key, from)
}

func (a *Authority) hash(ctx context.Context, p Secret) (string, error) {
	if err := a.enter(ctx); err != nil {
		return "", err
	}
	defer a.leave()
	return HashPassword(p), nil
}

// maxHashing is how many passwords are checked at once, of 19 MiB each, and
// maxWaiting how many more may wait for that.
const (
	maxHashing = 2
	maxWaiting = 64
)

// enter waits for a turn to hash. Calls that need none are never held up by it.
func (a *Authority) enter(ctx context.Context) error {
	defer a.waiting.Add(-1)
	if a.waiting.Add(1) > maxWaiting {
		return &license.UnavailableError{Err: errors.New("too many passwords wait to be checked"), After: time.Second}
	}
	select {
	case a.hashing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &license.UnavailableError{Err: fmt.Errorf("waiting to check a password: %w", ctx.Err()), After: time.Second}
	}
}

func (a *Authority) leave() { <-a.hashing }

// freeFailures is how many tries in a row may fail before the next is slowed.
const freeFailures = 5

// maxDelay is the longest delay between two checked tries.
const maxDelay = 15 * time.Minute

// delay is how long tries are refused after count failures in a row.
func delay(count int) time.Duration {
	if count <= freeFailures {
		return 0
	}
	if count-freeFailures > 10 {
		return maxDelay
	}
	return min(maxDelay, time.Second<<(count-freeFailures-1))
}

// locked stands for "until an operator unlocks it".
const locked = 100 * 365 * 24 * time.Hour

// slowed refuses a try that comes too early after too many failures.
func (a *Authority) slowed(ctx context.Context, name, from string, as error) error {
	if a.cfg.Lock == LockReference {
		from = ""
	}
	f, err := a.cfg.Records.Failures(ctx, name, from)
	if errors.Is(err, license.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading failed logins: %w", err)
	}
	left := f.Until.Sub(a.cfg.Clock.Now())
	switch {
	case left <= 0:
		return nil
	case left > maxDelay && a.cfg.Lock == LockSlow:
		return nil // written by a clock that was ahead and has been put back
	case a.cfg.Lock == LockReference:
		return as
	}
	return &SlowedError{Err: as, After: left}
}

func (a *Authority) failed(ctx context.Context, name, from string, as error) error {
	wait := delay
	if a.cfg.Lock == LockReference {
		from = ""
		wait = func(count int) time.Duration {
			if count < freeFailures {
				return 0
			}
			return locked
		}
	}
	if err := a.cfg.Records.AddFailure(ctx, name, from, a.cfg.Clock.Now(), wait); err != nil {
		return fmt.Errorf("counting a failed login: %w", err)
	}
	return as
}

func (a *Authority) succeeded(ctx context.Context, name, from string) error {
	if a.cfg.Lock == LockReference {
		from = ""
	}
	_, err := a.cfg.Records.Failures(ctx, name, from)
	if errors.Is(err, license.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = a.cfg.Records.ClearFailures(ctx, name, from)
	}
	if err != nil {
		return fmt.Errorf("forgetting failed logins: %w", err)
	}
	return nil
}

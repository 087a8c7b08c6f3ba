package auth

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/simlatch/simlatch/internal/license"
)

// TestSameWorkForEveryFailure counts the passwords that are computed: one for
// whatever is wrong, and the same answer.
func TestSameWorkForEveryFailure(t *testing.T) {
	for _, lock := range []Lock{LockSlow, LockReference} {
		r := newRecords()
		r.users["gone"] = User{Name: "gone", PasswordHash: testHash, Disabled: true}
		a := node(t, r, newClock(), func(c *Config) { c.Lock = lock })
		var computed atomic.Int64
		a.check = func(stored string, p Secret) bool {
			computed.Add(1)
			return CheckPassword(stored, p)
		}
		if lock == LockReference {
			for range freeFailures {
				_, _ = a.Login(t.Context(), "app", "locked", "wrong", "") // it is looked at below
				_, _ = a.Login(t.Context(), "app", "user", "wrong", "")
			}
		}
		for name, password := range map[string]Secret{"nobody": "password", "user": "wrong", "gone": "password", "locked": "password"} {
			computed.Store(0)
			_, err := a.Login(t.Context(), "app", name, password, "")
			if n := computed.Load(); n != 1 || err == nil || err.Error() != ErrPassword.Error() {
				t.Errorf("%s: %s took %d computations and said %v, want one and %v", lock, name, n, err, ErrPassword)
			}
		}
	}
}

// TestHashingIsBounded has more wait than may: the others are told at once, and
// calls that need no password are not held up.
func TestHashingIsBounded(t *testing.T) {
	a := node(t, newRecords(), newClock(), nil)
	token := issue(t, a, "secret")
	for range maxHashing {
		a.hashing <- struct{}{}
	}
	a.waiting.Store(maxWaiting)
	var away *license.UnavailableError
	if _, err := a.Login(t.Context(), "app", "user", "password", ""); !errors.As(err, &away) || away.After <= 0 {
		t.Errorf("one too many: %v, want an UnavailableError with a time", err)
	}
	if _, err := a.Bearer(t.Context(), token.Value); err != nil {
		t.Errorf("a call that needs no password: %v", err)
	}
	if n := a.waiting.Load(); n != maxWaiting {
		t.Errorf("%d wait after a refusal, want %d", n, maxWaiting)
	}
	a.waiting.Store(0)
	a.leave()
	login(t, a)
}

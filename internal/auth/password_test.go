package auth

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

func TestPasswords(t *testing.T) {
	if !strings.HasPrefix(testHash, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("HashPassword = %s, want argon2id in the usual notation", testHash)
	}
	if !CheckPassword(testHash, "password") {
		t.Error("CheckPassword refuses the right password")
	}
	if HashPassword("password") == testHash {
		t.Error("HashPassword gives the same twice")
	}
	for _, p := range []Secret{"", "Password", "password ", "password\x00"} {
		if CheckPassword(testHash, p) {
			t.Errorf("CheckPassword takes %q", string(p))
		}
	}
	parts := strings.Split(testHash, "$")
	for _, stored := range []string{
		"", "password", "$", "$$$$$", testHash[:len(testHash)-1] + "!", testHash + "$", parts[5],
		strings.Replace(testHash, "argon2id", "argon2i", 1),
		strings.Replace(testHash, "v=19", "v=16", 1),
		strings.Replace(testHash, "t=2", "t=0", 1),
		strings.Replace(testHash, "p=1", "p=0", 1),
		strings.Replace(testHash, "p=1", "p=256", 1),
		strings.Replace(testHash, "t=2", "t=-1", 1),
		strings.Replace(testHash, "m=19456", "m=-1", 1),
		strings.Replace(testHash, "m=19456", "m=4294967295", 1),
		strings.Join(append(parts[:5:5], ""), "$"),
	} {
		if CheckPassword(stored, "password") {
			t.Errorf("CheckPassword takes %q", stored)
		}
	}
}

// An unknown name costs what a known one does: the stand-in is well formed, and
// no password fits it.
func TestNobody(t *testing.T) {
	want, got := strings.Split(testHash, "$"), strings.Split(nobody, "$")
	if strings.Join(want[:4], "$") != strings.Join(got[:4], "$") || len(want[4]) != len(got[4]) || len(want[5]) != len(got[5]) {
		t.Errorf("the stand-in is %q, want the form of %q", nobody, testHash)
	}
	if CheckPassword(nobody, "") || CheckPassword(nobody, "password") {
		t.Error("a password fits the stand-in")
	}
	a := node(t, newRecords(), newClock(), nil)
	_, wrong := a.Login(t.Context(), "app", "user", "wrong", "")
	_, unknown := a.Login(t.Context(), "app", "nobody", "wrong", "")
	if wrong == nil || unknown == nil || wrong.Error() != unknown.Error() {
		t.Errorf("a wrong password gives %v, an unknown name %v, want the same", wrong, unknown)
	}
}

func TestDisabledUser(t *testing.T) {
	r := newRecords()
	u := r.users["user"]
	u.Disabled = true
	r.users["user"] = u
	if _, err := node(t, r, newClock(), nil).Login(t.Context(), "app", "user", "password", ""); !errors.Is(err, ErrPassword) {
		t.Errorf("Login of a disabled user = %v, want ErrPassword", err)
	}
}

// try tries a secret of the application and returns how long it is refused
// unchecked: 0 where it was checked.
func try(t *testing.T, a *Authority, key string, secret Secret, from string) (after time.Duration, err error) {
	t.Helper()
	_, err = a.Issue(t.Context(), key, secret, from)
	var slowed *SlowedError
	if errors.As(err, &slowed) {
		if !errors.Is(err, ErrClient) {
			t.Errorf("slowed with %v, want the error of a checked try in it", err)
		}
		return slowed.After, err
	}
	return 0, err
}

func TestFailuresSlow(t *testing.T) {
	for _, key := range []string{"app", "nobody"} { // known or not
		t.Run(key, func(t *testing.T) {
			r, c := newRecords(), newClock()
			a, b := node(t, r, c, nil), node(t, r, c, nil)
			for i := range 6 {
				if after, err := try(t, a, key, "wrong", "192.0.2.1"); after != 0 || !errors.Is(err, ErrClient) {
					t.Fatalf("try %d: %v, slowed by %v, want a checked one", i+1, err, after)
				}
			}
			for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900} {
				want *= time.Second
				if after, _ := try(t, b, key, "secret", "192.0.2.1"); after != want {
					t.Errorf("after %d failures a try is slowed by %v, want %v", i+6, after, want)
				}
				c.pass(want - time.Millisecond)
				if after, _ := try(t, a, key, "secret", "192.0.2.1"); after != time.Millisecond {
					t.Errorf("after %d failures and nearly the delay a try is slowed by %v, want 1ms", i+6, after)
				}
				c.pass(time.Millisecond)
				if after, err := try(t, a, key, "wrong", "192.0.2.1"); after != 0 || !errors.Is(err, ErrClient) {
					t.Errorf("after %d failures and the delay: %v, slowed by %v, want a checked try", i+6, err, after)
				}
			}
			if after, _ := try(t, a, "other", "other secret", "192.0.2.1"); after != 0 {
				t.Errorf("another name is slowed by %v", after)
			}
			if after, _ := try(t, a, key, "secret", "192.0.2.2"); after != 0 {
				t.Errorf("another address is slowed by %v", after)
			}
		})
	}
}

func TestSuccessForgetsFailures(t *testing.T) {
	r, c := newRecords(), newClock()
	a := node(t, r, c, nil)
	for range 3 {
		for range 5 {
			if after, _ := try(t, a, "app", "wrong", ""); after != 0 {
				t.Fatalf("slowed by %v within five failures", after)
			}
		}
		if _, err := try(t, a, "app", "secret", ""); err != nil {
			t.Fatalf("the right secret after five failures: %v", err)
		}
	}
	if len(r.failures) != 0 {
		t.Errorf("failures left: %v", r.failures)
	}
}

// Live sessions of a slowed user go on.
func TestSlowedUserKeepsSessions(t *testing.T) {
	r, c := newRecords(), newClock()
	a := node(t, r, c, nil)
	token := login(t, a)
	for range 6 {
		if _, err := a.Login(t.Context(), "app", "user", "wrong", "192.0.2.1"); !errors.Is(err, ErrPassword) {
			t.Fatal(err)
		}
	}
	var slowed *SlowedError
	if _, err := a.Login(t.Context(), "app", "user", "password", "192.0.2.1"); !errors.As(err, &slowed) || !errors.Is(err, ErrPassword) {
		t.Errorf("Login after six failures = %v, want a SlowedError of ErrPassword", err)
	}
	if _, err := a.Login(t.Context(), "app", "user", "password", "192.0.2.2"); err != nil {
		t.Errorf("Login from another address: %v", err)
	}
	alive(t, a, token, true, "of a slowed user")
}

func TestReferenceLock(t *testing.T) {
	r, c := newRecords(), newClock()
	a := node(t, r, c, func(c *Config) { c.Lock = LockReference })
	for i, from := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"} {
		if _, err := try(t, a, "app", "wrong", from); !errors.Is(err, ErrClient) {
			t.Fatalf("try %d: %v", i, err)
		}
	}
	if _, err := try(t, a, "app", "secret", ""); err != nil {
		t.Errorf("the right secret after four failures: %v", err)
	}
	for range 5 {
		_, _ = try(t, a, "app", "wrong", "192.0.2.1") // the answer is checked above
	}
	c.pass(365 * 24 * time.Hour)
	if after, err := try(t, a, "app", "secret", "192.0.2.9"); !errors.Is(err, ErrClient) || after != 0 {
		t.Errorf("the right secret of a locked name, a year later = %v, slowed by %v, want ErrClient alone", err, after)
	}
	r.failures = map[[2]string]Failures{} // an operator unlocks it
	if _, err := try(t, a, "app", "secret", ""); err != nil {
		t.Errorf("the right secret once unlocked: %v", err)
	}
}

// Password checks wait for each other, but not beyond their context.
func TestPasswordChecksAreBounded(t *testing.T) {
	a := node(t, newRecords(), newClock(), nil)
	for range cap(a.hashing) {
		a.hashing <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var unavailable *license.UnavailableError
	if _, err := a.Login(ctx, "app", "user", "password", ""); !errors.As(err, &unavailable) {
		t.Errorf("Login when all checks are busy and the caller is gone = %v, want an UnavailableError", err)
	}
	a.leave()
	login(t, a)
}

// TestSlowedByAWrongClock has tries fail while the clock is days ahead: once it
// is put back, the right password is not refused until those days have passed.
func TestSlowedByAWrongClock(t *testing.T) {
	r, c := newRecords(), newClock()
	a := node(t, r, c, nil)
	c.pass(48 * time.Hour)
	for range freeFailures + 1 {
		_, _ = a.Login(t.Context(), "app", "user", "wrong", "::1")
	}
	var slowed *SlowedError
	if _, err := a.Login(t.Context(), "app", "user", "password", "::1"); !errors.As(err, &slowed) {
		t.Fatalf("Login after six failures = %v, want a SlowedError", err)
	}
	c.pass(-48 * time.Hour)
	if _, err := a.Login(t.Context(), "app", "user", "password", "::1"); err != nil {
		t.Errorf("Login with the right password, the clock put back: %v", err)
	}
}

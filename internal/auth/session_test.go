package auth

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/license"
)

func login(t *testing.T, a *Authority) Secret {
	t.Helper()
	token, err := a.Login(t.Context(), "app", "user", "password", "192.0.2.1")
	if err != nil {
		t.Fatalf("Login: %v", err)
	}
	return token
}

// alive checks whether a session can be used.
func alive(t *testing.T, a *Authority, token Secret, want bool, when string) {
	t.Helper()
	_, err := a.Session(t.Context(), "app", token)
	if want && err != nil || !want && !errors.Is(err, ErrSession) {
		t.Errorf("Session %s = %v, want it alive: %v", when, err, want)
	}
}

func TestLogin(t *testing.T) {
	r, c := newRecords(), newClock()
	a := node(t, r, c, nil)
	token := login(t, a)
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(string(token)) {
		t.Errorf("the session token is %q, want a UUID of version 4", string(token))
	}
	got, err := a.Session(t.Context(), "app", Secret(strings.ToUpper(string(token))))
	want := Caller{Application: "app", User: "user", Accounts: []license.AccountName{"0000123456-00001"}, Session: Secret(strings.ToUpper(string(token)))}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("Session in upper case: %v (-want +got):\n%s", err, diff)
	}
	for hash := range r.sessions {
		if strings.Contains(hash, string(token)) {
			t.Error("the session token is stored as it is")
		}
	}
	second := login(t, a)
	alive(t, a, token, true, "after a second login")
	if _, err := a.Session(t.Context(), "other", token); !errors.Is(err, ErrSession) {
		t.Errorf("Session within another application = %v, want ErrSession", err)
	}
	if err := a.Logout(t.Context(), got); err != nil {
		t.Errorf("Logout: %v", err)
	}
	alive(t, a, token, false, "after logout")
	alive(t, a, second, true, "after the other's logout")
	alive(t, a, "", false, "without a token")
}

// One node knows the last use to the letter.
func TestSessionIdle(t *testing.T) {
	for name, early := range map[string]time.Duration{"used at once": 0, "used within the minute not written": 59 * time.Second, "used later": 7 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			r, c := newRecords(), newClock()
			a := node(t, r, c, nil)
			token := login(t, a)
			c.pass(early)
			alive(t, a, token, true, "at first")
			for range 3 { // each use begins the time anew
				c.pass(20*time.Minute - time.Microsecond)
				alive(t, a, token, true, "just before 20 idle minutes")
			}
			c.pass(20 * time.Minute)
			alive(t, a, token, false, "after 20 idle minutes")
			c.pass(-time.Minute)
			alive(t, a, token, true, "when the clock is turned back: a refusal is no use")
		})
	}
}

// Another node, or this one after a restart, knows the last use to the minute,
// and never ends a session too early.
func TestSessionIdleOnSharedNodes(t *testing.T) {
	shared := func(c *Config) { c.SharedNodes = true }
	for _, unwritten := range []time.Duration{0, 30 * time.Second, time.Minute - time.Microsecond} {
		t.Run(unwritten.String(), func(t *testing.T) {
			r, c := newRecords(), newClock()
			a, b := node(t, r, c, shared), node(t, r, c, shared)
			token := login(t, a)
			for _, n := range []*Authority{a, b, node(t, r, c, shared), node(t, r, c, nil)} {
				c.pass(unwritten)
				alive(t, a, token, true, "in use")
				c.pass(20*time.Minute - time.Microsecond)
				alive(t, n, token, true, "just before 20 idle minutes")
			}
			c.pass(21 * time.Minute)
			alive(t, a, token, false, "after 21 idle minutes")
			alive(t, b, token, false, "after 21 idle minutes, on another node")
		})
	}
}

func TestUseIsWrittenOnceAMinute(t *testing.T) {
	r, c := newRecords(), newClock()
	a := node(t, r, c, nil)
	token := login(t, a)
	for range 600 {
		c.pass(time.Second)
		alive(t, a, token, true, "in use")
	}
	if r.touched != 10 {
		t.Errorf("in ten minutes of use it was written %d times, want 10", r.touched)
	}
}

func TestUsesAreForgotten(t *testing.T) {
	c := newClock()
	a := node(t, newRecords(), c, nil)
	for range 5 {
		login(t, a)
		c.pass(time.Hour)
	}
	login(t, a)
	if n := len(a.sessions.last); n > 2 {
		t.Errorf("%d sessions are remembered, want those of late", n)
	}
}

func TestResetPassword(t *testing.T) {
	r, c := newRecords(), newClock()
	a := node(t, r, c, nil)
	caller := Caller{Application: "app", User: "user"}
	if _, err := a.ResetPassword(t.Context(), caller, "wrong", ""); !errors.Is(err, ErrPassword) {
		t.Errorf("ResetPassword with a wrong one = %v, want ErrPassword", err)
	}
	fresh, err := a.ResetPassword(t.Context(), caller, "password", "")
	if err != nil {
		t.Fatalf("ResetPassword: %v", err)
	}
	if len(fresh) < 20 {
		t.Errorf("the new password is %d characters long", len(fresh))
	}
	if _, err := a.Login(t.Context(), "app", "user", "password", ""); !errors.Is(err, ErrPassword) {
		t.Errorf("Login with the old password = %v, want ErrPassword", err)
	}
	if _, err := a.Login(t.Context(), "app", "user", fresh, ""); err != nil {
		t.Errorf("Login with the new password: %v", err)
	}
}

// TestResetPasswordRepeated has the store repeat the change itself, since the
// answer to its first try was lost, and then somebody else change it first.
func TestResetPasswordRepeated(t *testing.T) {
	r, c := newRecords(), newClock()
	a := node(t, r, c, func(cfg *Config) { cfg.Records = repeating{r} })
	caller := Caller{Application: "app", User: "user"}
	fresh, err := a.ResetPassword(t.Context(), caller, "password", "")
	if err != nil {
		t.Fatalf("ResetPassword: %v", err)
	}
	if _, err := a.Login(t.Context(), "app", "user", fresh, ""); err != nil {
		t.Errorf("Login with the new password: %v", err)
	}
	a = node(t, r, c, func(cfg *Config) { cfg.Records = overtaken{r} })
	if _, err := a.ResetPassword(t.Context(), caller, fresh, ""); !errors.Is(err, ErrPassword) {
		t.Errorf("ResetPassword after another one = %v, want ErrPassword", err)
	}
}

// repeating makes each change of a password twice.
type repeating struct{ *records }

func (r repeating) ReplacePassword(ctx context.Context, name, oldHash, newHash string) (bool, error) {
	if _, err := r.records.ReplacePassword(ctx, name, oldHash, newHash); err != nil {
		return false, err
	}
	return r.records.ReplacePassword(ctx, name, oldHash, newHash)
}

// overtaken has someone else change each password first.
type overtaken struct{ *records }

func (r overtaken) ReplacePassword(ctx context.Context, name, oldHash, newHash string) (bool, error) {
	if _, err := r.records.ReplacePassword(ctx, name, oldHash, "another"); err != nil {
		return false, err
	}
	return r.records.ReplacePassword(ctx, name, oldHash, newHash)
}

package auth

import (
	"errors"
	"testing"
	"time"
)

func TestConsoleSessions(t *testing.T) {
	r, c := newRecords(), newClock()
	r.operators["olga"] = OperatorRecord{Operator: Operator{Name: "olga", Role: RoleAdmin}, PasswordHash: testHash}
	a := node(t, r, c, nil)
	if _, _, err := a.SignIn(t.Context(), "olga", "wrong", "here"); !errors.Is(err, ErrPassword) {
		t.Errorf("SignIn with a wrong password = %v, want ErrPassword", err)
	}
	open := func() Secret {
		t.Helper()
		token, o, err := a.SignIn(t.Context(), "olga", "password", "here")
		if err != nil || o.Name != "olga" {
			t.Fatalf("SignIn = %v, %v", o, err)
		}
		return token
	}
	want := func(what string, token Secret, role Role) {
		t.Helper()
		o, err := a.SignedIn(t.Context(), token)
		if role == "" && !errors.Is(err, ErrSession) || role != "" && (err != nil || o != Operator{Name: "olga", Role: role}) {
			t.Errorf("%s: SignedIn = %v, %v, want %q", what, o, err, role)
		}
	}
	change := func(f func(*OperatorRecord)) {
		o := r.operators["olga"]
		f(&o)
		r.operators["olga"] = o
	}
	token := open()
	want("at once", token, RoleAdmin)
	want("unknown", "x", "")
	change(func(o *OperatorRecord) { o.Role = RoleViewer })
	want("another role", token, RoleViewer)
	change(func(o *OperatorRecord) { o.Disabled = true })
	want("disabled", token, "")
	change(func(o *OperatorRecord) { o.Disabled = false })
	for range 14 { // used every 50 minutes
		c.pass(50 * time.Minute)
		want("in use", token, RoleViewer)
	}
	c.pass(50 * time.Minute)
	want("after twelve hours", token, "")
	token = open()
	c.pass(time.Hour)
	want("unused for an hour", token, "")
	token = open()
	if err := a.SignOut(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	want("signed out", token, "")
}

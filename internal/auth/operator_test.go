package auth

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestRoles(t *testing.T) {
	for _, test := range []struct {
		have, need Role
		want       bool
	}{
		{RoleViewer, RoleViewer, true},
		{RoleViewer, RoleOperator, false},
		{RoleOperator, RoleViewer, true},
		{RoleOperator, RoleAdmin, false},
		{RoleAdmin, RoleOperator, true},
		{RoleAdmin, RoleAdmin, true},
		{"", RoleViewer, false},
		{"root", RoleViewer, false},
		{RoleAdmin, "", false},
		{"", "", false},
	} {
		if got := test.have.May(test.need); got != test.want {
			t.Errorf("%q.May(%q) = %v, want %v", test.have, test.need, got, test.want)
		}
	}
	if _, err := ParseRole("Admin"); err == nil {
		t.Error(`ParseRole("Admin") = nil, want an error`)
	}
}

func TestOperatorTokens(t *testing.T) {
	r, c := newRecords(), newClock()
	token := NewOperatorToken()
	if !strings.HasPrefix(string(token), "simlatch_op_") || len(token) < 32 {
		t.Errorf("NewOperatorToken = %q", string(token))
	}
	want := Operator{Name: "olga", Role: RoleOperator}
	r.operators["olga"] = OperatorRecord{Operator: want, TokenHash: HashSecret(token)}
	r.operators["paul"] = OperatorRecord{Operator: Operator{Name: "paul", Role: RoleAdmin}} // has no token
	a := node(t, r, c, nil)
	for range 3 {
		if got, err := a.Operator(t.Context(), token); err != nil || got != want {
			t.Errorf("Operator = %v, %v, want %v", got, err, want)
		}
	}
	if r.touched != 1 {
		t.Errorf("three uses were noted %d times, want once", r.touched)
	}
	for _, wrong := range []Secret{"", "x", token + "x", NewOperatorToken()} {
		if got, err := a.Operator(t.Context(), wrong); !errors.Is(err, ErrOperator) {
			t.Errorf("Operator of a wrong token = %v, %v, want ErrOperator", got, err)
		}
	}
	o := r.operators["olga"]
	o.Disabled = true
	r.operators["olga"] = o
	c.pass(2 * time.Second)
	if got, err := a.Operator(t.Context(), token); !errors.Is(err, ErrOperator) {
		t.Errorf("Operator of one disabled = %v, %v, want ErrOperator", got, err)
	}
}

func TestLoginOperator(t *testing.T) {
	r, c := newRecords(), newClock()
	want := Operator{Name: "olga", Role: RoleAdmin}
	r.operators["olga"] = OperatorRecord{Operator: want, PasswordHash: testHash}
	r.operators["program"] = OperatorRecord{Operator: Operator{Name: "program", Role: RoleAdmin}}
	r.operators["gone"] = OperatorRecord{Operator: Operator{Name: "gone", Role: RoleAdmin}, PasswordHash: testHash, Disabled: true}
	a := node(t, r, c, nil)
	if got, err := a.LoginOperator(t.Context(), "olga", "password", "here"); err != nil || got != want {
		t.Errorf("LoginOperator = %v, %v, want %v", got, err, want)
	}
	if !r.operators["olga"].Used.Equal(c.Now()) {
		t.Error("the use was not noted")
	}
	for _, name := range []string{"program", "gone", "nobody", "user"} {
		if got, err := a.LoginOperator(t.Context(), name, "password", "here"); !errors.Is(err, ErrPassword) {
			t.Errorf("LoginOperator of %s = %v, %v, want ErrPassword", name, got, err)
		}
	}
	for range 6 {
		if _, err := a.LoginOperator(t.Context(), "olga", "wrong", "there"); !errors.Is(err, ErrPassword) {
			t.Fatalf("LoginOperator with a wrong password = %v, want ErrPassword", err)
		}
	}
	var slowed *SlowedError
	if _, err := a.LoginOperator(t.Context(), "olga", "password", "there"); !errors.As(err, &slowed) {
		t.Errorf("LoginOperator after six failures = %v, want a SlowedError", err)
	}
	if _, err := a.LoginOperator(t.Context(), "olga", "password", "here"); err != nil {
		t.Errorf("LoginOperator from elsewhere = %v", err)
	}
}

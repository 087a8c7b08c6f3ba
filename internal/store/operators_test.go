package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

func TestOperators(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		now := storetest.Start()
		olga := auth.OperatorRecord{Operator: auth.Operator{Name: "olga", Role: auth.RoleOperator}, TokenHash: "hash 1", Created: now}
		paul := auth.OperatorRecord{Operator: auth.Operator{Name: "paul", Role: auth.RoleAdmin}, PasswordHash: "hash 2", Created: now}
		for _, o := range []auth.OperatorRecord{paul, olga} {
			if err := s.AddOperator(t.Context(), o, now); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.AddOperator(t.Context(), olga, now); !errors.Is(err, license.ErrExists) {
			t.Errorf("AddOperator again = %v, want ErrExists", err)
		}
		if got, err := s.OperatorByToken(t.Context(), ""); !errors.Is(err, license.ErrNotFound) {
			t.Errorf("OperatorByToken of no token = %v, %v, want ErrNotFound", got, err)
		}
		used := now.Add(time.Minute)
		for name, err := range map[string]error{
			"rotate":   s.RotateOperator(t.Context(), "olga", "hash 3"),
			"password": s.SetOperatorPassword(t.Context(), "olga", "hash 4"),
			"role":     s.SetOperatorRole(t.Context(), "olga", auth.RoleViewer),
			"disable":  s.DisableOperator(t.Context(), "olga", true),
			"touch":    s.TouchOperator(t.Context(), "olga", used),
		} {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		olga.TokenHash, olga.PasswordHash, olga.Role, olga.Disabled, olga.Used = "hash 3", "hash 4", auth.RoleViewer, true, used
		got, err := s.Operators(t.Context())
		if diff := cmp.Diff([]auth.OperatorRecord{olga, paul}, got); err != nil || diff != "" {
			t.Errorf("Operators: %v\n%s", err, diff)
		}
		if got, err := s.OperatorByToken(t.Context(), "hash 3"); err != nil || got.Name != "olga" {
			t.Errorf("OperatorByToken = %v, %v, want olga", got, err)
		}
		if _, err := s.OperatorByToken(t.Context(), "hash 1"); !errors.Is(err, license.ErrNotFound) {
			t.Errorf("OperatorByToken of the old token = %v, want ErrNotFound", err)
		}
		for name, err := range map[string]error{
			"rotate":   s.RotateOperator(t.Context(), "nobody", "x"),
			"password": s.SetOperatorPassword(t.Context(), "nobody", "x"),
			"role":     s.SetOperatorRole(t.Context(), "nobody", auth.RoleAdmin),
			"disable":  s.DisableOperator(t.Context(), "nobody", true),
		} {
			if !errors.Is(err, license.ErrNotFound) {
				t.Errorf("%s of nobody: %v, want ErrNotFound", name, err)
			}
		}
	})
}

// A new password forgets the failed logins of the operator, and no user's of the
// same name, and ends the sessions opened with the old one.
func TestOperatorPasswordUnlocks(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		now := storetest.Start()
		if err := s.AddOperator(t.Context(), auth.OperatorRecord{Operator: auth.Operator{Name: "olga", Role: auth.RoleViewer}}, now); err != nil {
			t.Fatal(err)
		}
		never := func(int) time.Duration { return time.Hour }
		for _, name := range []string{"operator:olga", "user:olga"} {
			if err := s.AddFailure(t.Context(), name, "here", now, never); err != nil {
				t.Fatal(err)
			}
		}
		session := auth.OperatorSession{Hash: "h", Operator: "olga", Opened: now, Used: now}
		if err := s.PutOperatorSession(t.Context(), session); err != nil {
			t.Fatal(err)
		}
		if err := s.TouchOperatorSession(t.Context(), "h", now.Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		session.Used = now.Add(time.Minute)
		if got, err := s.OperatorSession(t.Context(), "h"); err != nil || got != session {
			t.Errorf("OperatorSession = %+v, %v, want %+v", got, err, session)
		}
		if err := s.SetOperatorPassword(t.Context(), "olga", "hash"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.OperatorSession(t.Context(), "h"); !errors.Is(err, license.ErrNotFound) {
			t.Errorf("the session under the old password: %v, want ErrNotFound", err)
		}
		if _, err := s.Failures(t.Context(), "operator:olga", "here"); !errors.Is(err, license.ErrNotFound) {
			t.Errorf("the operator's failures: %v, want ErrNotFound", err)
		}
		if _, err := s.Failures(t.Context(), "user:olga", "here"); err != nil {
			t.Errorf("the user's failures: %v", err)
		}
	})
}

// Who is disabled is signed out, and stays so when they are let in again.
func TestDisabledOperatorIsSignedOut(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		now := storetest.Start()
		if err := s.AddOperator(t.Context(), auth.OperatorRecord{Operator: auth.Operator{Name: "olga", Role: auth.RoleViewer}}, now); err != nil {
			t.Fatal(err)
		}
		if err := s.PutOperatorSession(t.Context(), auth.OperatorSession{Hash: "h", Operator: "olga", Opened: now, Used: now}); err != nil {
			t.Fatal(err)
		}
		for _, disabled := range []bool{true, false} {
			if err := s.DisableOperator(t.Context(), "olga", disabled); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.OperatorSession(t.Context(), "h"); !errors.Is(err, license.ErrNotFound) {
			t.Errorf("the session from before: %v, want ErrNotFound", err)
		}
	})
}

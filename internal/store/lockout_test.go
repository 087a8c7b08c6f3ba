package store_test

import (
	"crypto/rand"
	"errors"
	"testing"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// TestLockoutAcrossNodes guesses at one node, and is held back at another.
func TestLockoutAcrossNodes(t *testing.T) {
	for _, e := range storetest.Engines(t) {
		for _, lock := range []auth.Lock{auth.LockSlow, auth.LockReference} {
			t.Run(e.Name+" "+string(lock), func(t *testing.T) {
				db := e.NewDatabase(t)
				var nodes []*auth.Authority
				for range 2 {
					nodes = append(nodes, auth.New(auth.Config{Records: db.Open(t), Clock: license.SystemClock{}, Random: rand.Reader, SharedNodes: true, Lock: lock}))
				}
				s := db.Open(t)
				if err := s.AddUser(t.Context(), auth.User{Name: "ada", PasswordHash: auth.HashKnownPassword("password")}, storetest.Start()); err != nil {
					t.Fatal(err)
				}
				for i := range 6 {
					if _, err := nodes[0].Login(t.Context(), "app", "ada", "wrong", "192.0.2.1"); !errors.Is(err, auth.ErrPassword) {
						t.Fatalf("try %d: %v", i, err)
					}
				}
				if _, err := nodes[1].Login(t.Context(), "app", "ada", "password", "192.0.2.1"); !errors.Is(err, auth.ErrPassword) {
					t.Errorf("the right password at another node: %v, want it held back", err)
				}
				if err := s.Unlock(t.Context(), "ada"); err != nil {
					t.Fatal(err)
				}
				if _, err := nodes[1].Login(t.Context(), "app", "ada", "password", "192.0.2.1"); err != nil {
					t.Errorf("once unlocked: %v", err)
				}
			})
		}
	}
}

package store_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// TestGrantsRace has accounts granted twice at once: one of the grants stands.
func TestGrantsRace(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		const other license.AccountName = "0000999999-00001"
		b := newBench(t, s, storetest.Fixture{SIMs: -1})
		storetest.Seed(t, s, storetest.Fixture{Account: other, SIMs: -1})
		if err := s.AddUser(t.Context(), auth.User{Name: "u", PasswordHash: "p"}, b.now); err != nil {
			t.Fatal(err)
		}
		for range 30 {
			var wg sync.WaitGroup
			for _, account := range []license.AccountName{storetest.Account, other} {
				wg.Go(func() {
					if err := s.GrantAccounts(t.Context(), "u", []license.AccountName{account}); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if u, err := s.User(t.Context(), "u"); err != nil || len(u.Accounts) != 1 {
				t.Fatalf("after two grants of one account each: %v, %v; want one", u.Accounts, err)
			}
		}
	})
}

// TestAccountsRace has two accounts added at once that differ only by hyphens.
func TestAccountsRace(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		for i := range 30 {
			var wg sync.WaitGroup
			var added atomic.Int64
			for _, form := range []string{"%d-123", "%d1-23"} {
				wg.Go(func() {
					err := s.AddAccount(t.Context(), license.AccountName(fmt.Sprintf(form, 1000+i)), storetest.Start())
					if err == nil {
						added.Add(1)
					} else if !errors.Is(err, license.ErrExists) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if n := added.Load(); n != 1 {
				names, _ := s.Accounts(t.Context())
				t.Fatalf("%d accounts were added, want one: %v", n, names)
			}
		}
	})
}

// TestTokenOfAFormerSecret has the secret changed between the reading of an
// application that never had a token and the storing of its first.
func TestTokenOfAFormerSecret(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		if err := s.AddApplication(t.Context(), "app", "old", storetest.Start()); err != nil {
			t.Fatal(err)
		}
		a, err := s.Application(t.Context(), "app")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.RotateApplication(t.Context(), "app", "new"); err != nil {
			t.Fatal(err)
		}
		a.Nonce, a.Issued, a.TokenHash = "nonce", storetest.Start(), "token"
		if replaced, err := s.ReplaceToken(t.Context(), a, ""); err != nil || replaced {
			t.Errorf("ReplaceToken = %v, %v; want the token of the old secret refused", replaced, err)
		}
	})
}

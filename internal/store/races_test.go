package store_test

import (
	"sync"
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

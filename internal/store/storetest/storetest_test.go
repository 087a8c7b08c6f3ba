package storetest_test

import (
	"testing"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

func TestEachStartsEmpty(t *testing.T) {
	for range 2 {
		storetest.Each(t, func(t *testing.T, s *store.Store) {
			accounts, err := s.Accounts(t.Context())
			if err != nil || len(accounts) != 0 {
				t.Fatalf("Accounts() = %v, %v in a clean store", accounts, err)
			}
			storetest.Seed(t, s, storetest.Fixture{})
			storetest.Seed(t, s, storetest.Fixture{Account: "0000123456-00002", SIMs: 3})
			devices, err := s.Devices(t.Context(), license.DeviceFilter{Accounts: []license.AccountName{storetest.Account, "0000123456-00002"}, Limit: 100})
			if err != nil || len(devices) != 13 {
				t.Errorf("Devices() = %d devices, %v, want 13", len(devices), err)
			}
			pools, err := s.Pools(t.Context(), storetest.Account)
			if err != nil || len(pools) != len(license.SKUs()) {
				t.Errorf("Pools() = %v, %v, want one for every SKU", pools, err)
			}
		})
	}
}

func TestOneDatabaseManyStores(t *testing.T) {
	for _, e := range storetest.Engines(t) {
		t.Run(e.Name, func(t *testing.T) {
			db := e.NewDatabase(t)
			a, b := db.Open(t), db.Open(t)
			storetest.Seed(t, a, storetest.Fixture{})
			accounts, err := b.Accounts(t.Context())
			if err != nil || len(accounts) != 1 {
				t.Errorf("Accounts() = %v, %v through another store, want one", accounts, err)
			}
			if a.Engine() != e.Name && (a.Engine() != "postgres" || e.Name != "citus") {
				t.Errorf("Engine() = %s on %s", a.Engine(), e.Name)
			}
		})
	}
}

func TestDriftFailsTheTest(t *testing.T) {
	for _, e := range storetest.Engines(t) {
		t.Run(e.Name, func(t *testing.T) {
			inner := &recorder{TB: t}
			db := e.NewDatabase(inner)
			storetest.Seed(t, db.Open(t), storetest.Fixture{})
			if _, err := db.SQL(t).ExecContext(t.Context(), `UPDATE pool SET purchased = purchased + 1`); err != nil {
				t.Fatal(err)
			}
			inner.cleanup()
			if inner.errors == 0 {
				t.Error("a pool with one license too many went unnoticed")
			}
		})
	}
}

// recorder is a test that counts its errors instead of failing.
type recorder struct {
	testing.TB
	errors int
	ended  []func()
}

func (r *recorder) Errorf(string, ...any) { r.errors++ }
func (r *recorder) Cleanup(f func())      { r.ended = append(r.ended, f) }

func (r *recorder) cleanup() {
	for i := len(r.ended) - 1; i >= 0; i-- {
		r.ended[i]()
	}
}

package store_test

import (
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// TestPlansGrow settles small requests of an account that has nothing at first, whose
// tables no statistics know of: what is read of them must not grow with what is there.
func TestPlansGrow(t *testing.T) {
	const requests = 800
	for _, e := range storetest.Engines(t) {
		if e.Name != "postgres" {
			continue // SQLite's plans depend on nothing (TestPlans)
		}
		t.Run(e.Name, func(t *testing.T) {
			db := e.NewDatabase(t)
			s := db.Open(t)
			raw := db.SQL(t)
			for _, table := range []string{"sim", "request", "task"} {
				if _, err := raw.ExecContext(t.Context(), "ALTER TABLE "+table+" SET (autovacuum_enabled = off)"); err != nil {
					t.Fatal(err)
				}
			}
			b := newBench(t, s, storetest.Fixture{
				SIMs: requests, Pools: map[license.SKU]int64{license.SKUFlexible: requests},
			})
			for i := range requests {
				p := b.params(license.Assign, license.SKUFlexible, b.sims[i])
				p.Room, p.LeaseUntil = 1, b.now.Add(time.Minute)
				a, err := s.Accept(t.Context(), p)
				if err != nil {
					t.Fatal(err)
				}
				b.settle(outcomes(a.Tasks, license.Done)...)
			}
			if err := s.Close(); err != nil { // its connections then say what they read
				t.Fatal(err)
			}
			const read = `SELECT COALESCE(sum(idx_tup_fetch) + sum(seq_tup_read), 0), COALESCE(sum(n_tup_upd), 0)
				FROM pg_stat_user_tables WHERE schemaname = current_schema() AND relname = 'task'`
			var rows, updated int
			for range 100 { // they have said so when they are gone, which takes a moment
				if err := raw.QueryRowContext(t.Context(), read).Scan(&rows, &updated); err != nil {
					t.Fatal(err)
				}
				if updated >= requests {
					break
				}
				<-time.After(50 * time.Millisecond)
			}
			t.Logf("%d rows of tasks were read to settle %d", rows, updated)
			// A plan that reads all of them reads half the square of that.
			if updated < requests || rows > requests*requests/4 {
				t.Error("too many, or not all were counted")
			}
		})
	}
}

package store_test

import (
	"slices"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// TestPurgedMeanwhile has a node tell late how work ended that another node has
// done and that was purged since: that changes nothing, and holds up nothing.
func TestPurgedMeanwhile(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		b.listen()
		b.accept(license.Assign, license.SKUFlexible, b.sims[0])
		slow := b.claim(1)
		b.now = b.now.Add(time.Minute)
		b.carry(license.Done)
		slowCall := b.claimCallbacks(1)
		b.now = b.now.Add(time.Minute)
		b.finish(b.claimCallbacks(1)[0], license.Delivered)
		b.now = b.now.Add(time.Hour)
		if n, err := s.Purge(t.Context(), b.now, time.Minute); err != nil || n != 1 {
			t.Fatalf("Purge: %d, %v; want 1", n, err)
		}
		b.accept(license.Assign, license.SKUFlexible, b.sims[1:3]...)
		live := b.claim(2)
		settled, err := s.SettleTasks(t.Context(), license.SettleParams{Now: b.now, Outcomes: outcomes(append(live, slow...), license.Done)})
		if err != nil || settled.Counted != 2 {
			t.Errorf("SettleTasks: %+v, %v; want two counted", settled, err)
		}
		calls := b.claimCallbacks(2)
		var ends []license.Delivery
		for _, c := range append(calls, slowCall...) {
			ends = append(ends, license.Delivery{Callback: c, Verdict: license.Exhausted, Status: 500, At: b.now})
		}
		if err := s.FinishCallbacks(t.Context(), b.now, ends); err != nil {
			t.Errorf("FinishCallbacks: %v", err)
		}
		if got := b.claimCallbacks(10); len(got) != 0 {
			t.Errorf("claimed %+v, want nothing", got)
		}
		b.verify()
	})
}

// TestStaleOutcomeBesideALiveOne has one batch hold two outcomes of one task: of
// a lease that was lost, and of the one that stands.
func TestStaleOutcomeBesideALiveOne(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		for _, reversed := range []bool{false, true} {
			b := newBench(t, s, storetest.Fixture{SIMs: 1, First: 20 + map[bool]int{true: 1}[reversed]})
			b.accept(license.Assign, license.SKUFlexible, b.sims[0])
			both := b.claim(1)
			b.now = b.now.Add(time.Minute)
			both = append(both, b.claim(1)...)
			if reversed {
				slices.Reverse(both)
			}
			if settled := b.settle(outcomes(both, license.Done)...); settled.Counted != 1 {
				t.Errorf("reversed %v: %d counted, want the one that stands", reversed, settled.Counted)
			}
		}
	})
}

// TestStuckTasksKeepTheirCount has the carrier asked until a task is stuck.
func TestStuckTasksKeepTheirCount(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		b.accept(license.Assign, license.SKUFlexible, b.sims[0])
		b.settle(outcomes(b.claim(1), license.Retry)...)
		b.settle(outcomes(b.claim(1), license.Stuck)...)
		stuck, err := s.StuckTasks(t.Context(), storetest.Account)
		if err != nil || len(stuck) != 1 || stuck[0].Attempt != 2 {
			t.Errorf("StuckTasks: %+v, %v; want one after two attempts", stuck, err)
		}
	})
}

// TestOutcomeOfASettledTask gives outcomes the lease that the task has as a
// callback, and ends of callbacks the lease it has at the carrier: neither
// counts.
func TestOutcomeOfASettledTask(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		b.listen()
		b.accept(license.Assign, license.SKUFlexible, b.sims[0])
		task := b.claim(1)[0]
		b.finish(license.Callback{Request: task.Request, Account: task.Account, Device: task.Device, Lease: task.Lease}, license.Delivered)
		if settled := b.settle(outcomes([]license.Task{task}, license.Done)...); settled.Counted != 1 {
			t.Fatalf("%d outcomes counted, want one", settled.Counted)
		}
		call := b.claimCallbacks(1)[0]
		task.Lease = call.Lease
		if settled := b.settle(outcomes([]license.Task{task}, license.Refused)...); settled.Counted != 0 {
			t.Error("an outcome of a settled task counted")
		}
		b.wantPool(license.SKUFlexible, 0, 1)
	})
}

// TestAttemptsAreCounted has a callback fail, and then find no listener: only
// what was sent counts.
func TestAttemptsAreCounted(t *testing.T) {
	for _, e := range storetest.Engines(t) {
		t.Run(e.Name, func(t *testing.T) {
			db := e.NewDatabase(t)
			b := newBench(t, db.Open(t), storetest.Fixture{})
			b.listen()
			b.accept(license.Assign, license.SKUFlexible, b.sims[0])
			b.carry(license.Done)
			for n := range 3 {
				calls := b.claimCallbacks(1)
				if len(calls) != 1 || calls[0].Attempt != n {
					t.Fatalf("after %d attempts: %+v", n, calls)
				}
				b.finish(calls[0], license.Again)
				b.now = b.now.Add(5 * time.Minute)
			}
			b.finish(b.claimCallbacks(1)[0], license.Unsent)
			var attempts, kept int
			err := db.SQL(t).QueryRow(`SELECT attempt, (SELECT count(*) FROM attempt) FROM task`).Scan(&attempts, &kept)
			if err != nil || attempts != 3 || kept != 3 {
				t.Errorf("%d attempts were counted and %d kept, %v; want 3 and 3", attempts, kept, err)
			}
		})
	}
}

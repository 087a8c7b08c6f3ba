package store_test

import (
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// TestTornRun has batches of tasks next to each other of which some are no longer
// the batch's own: those change nothing, and the others are written all the same.
func TestTornRun(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{SIMs: 9})
		b.listen()
		id := b.accept(license.Assign, license.SKUFlexible, b.sims[:9]...)
		tasks := b.claim(9)
		b.settle(outcomes(tasks[3:4], license.Done)...)
		b.settle(outcomes(tasks[6:7], license.Refused)...)
		if settled := b.settle(outcomes(tasks, license.Done)...); settled.Counted != 7 {
			t.Errorf("%d outcomes counted, want those of 7", settled.Counted)
		}
		b.wantPool(license.SKUFlexible, 0, 8)
		b.wantStatus(id, license.StatusFailure)

		calls := b.claimCallbacks(9)
		ends := make([]license.Delivery, len(calls))
		for i, c := range calls {
			ends[i] = license.Delivery{
				Callback: c, Verdict: license.Delivered, Status: 200, At: b.now,
				Latency: time.Duration(i+1) * time.Millisecond,
			}
		}
		lost := ends[4]
		lost.Latency = time.Hour
		if err := s.FinishCallbacks(t.Context(), b.now, []license.Delivery{lost}); err != nil {
			t.Fatal(err)
		}
		if err := s.FinishCallbacks(t.Context(), b.now, ends); err != nil {
			t.Fatal(err)
		}
		for i, c := range calls {
			kept, err := s.Callback(t.Context(), storetest.Account, c.Request, c.Device.ICCID)
			want := ends[i].Latency
			if i == 4 {
				want = time.Hour
			}
			if err != nil || kept.Latency != want || kept.Attempt != 1 {
				t.Errorf("callback %d took %v in %d attempts, %v; want %v in one", i, kept.Latency, kept.Attempt, err, want)
			}
		}
		b.verify()
	})
}

// TestRunsPassByOthers has two nodes hold every other task of one request.
func TestRunsPassByOthers(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{SIMs: 8})
		b.accept(license.Assign, license.SKUFlexible, b.sims[:8]...)
		var even, odd []license.Task
		for i, task := range b.claim(8) {
			if task.Place != i+1 {
				t.Fatalf("task %d has place %d", i, task.Place)
			}
			if i%2 == 0 {
				even = append(even, task)
			} else {
				odd = append(odd, task)
			}
		}
		if settled := b.settle(outcomes(even, license.Done)...); settled.Counted != 4 {
			t.Errorf("%d outcomes counted, want 4", settled.Counted)
		}
		b.wantPool(license.SKUFlexible, 4, 4)
		if settled := b.settle(outcomes(odd, license.Refused)...); settled.Counted != 4 {
			t.Errorf("%d outcomes counted, want 4", settled.Counted)
		}
		b.wantPool(license.SKUFlexible, 0, 4)
	})
}

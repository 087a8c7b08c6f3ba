package store_test

import (
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// giveBack gives tasks back, of which so many are still their holder's.
func (b *bench) giveBack(want int, tasks ...license.Task) {
	b.t.Helper()
	if n, err := b.s.GiveTasksBack(b.t.Context(), b.now, tasks); err != nil || n != want {
		b.t.Errorf("GiveTasksBack: %d, %v; want %d", n, err, want)
	}
}

func (b *bench) giveCallbacksBack(want int, callbacks ...license.Callback) {
	b.t.Helper()
	if n, err := b.s.GiveCallbacksBack(b.t.Context(), b.now, callbacks); err != nil || n != want {
		b.t.Errorf("GiveCallbacksBack: %d, %v; want %d", n, err, want)
	}
}

// TestGiveTasksBack: they are due at once, and whoever gave them back has lost
// them.
func TestGiveTasksBack(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		b.accept(license.Assign, license.SKUFlexible, b.sims[:4]...)
		b.settle(outcomes(b.claim(4), license.Retry)...)
		held := b.claim(4)
		if len(held) != 4 || held[0].Attempt != 1 {
			t.Fatalf("claimed %+v, want four in their second attempt", held)
		}
		stale := held[2]
		stale.Lease--
		b.giveBack(2, held[1], stale, held[0], held[1])
		b.giveBack(0, held[:2]...) // once is enough
		b.giveBack(0)

		again := b.claim(4)
		if len(again) != 2 {
			t.Fatalf("claimed %+v, want the two that were given back", again)
		}
		for i, task := range again {
			if task.Key() != held[i].Key() || task.Attempt != 1 || task.Lease <= held[i].Lease {
				t.Errorf("claimed %+v after %+v was given back, want it in the same attempt under a later lease", task, held[i])
			}
		}
		if settled := b.settle(outcomes(held, license.Done)...); settled.Counted != 2 {
			t.Errorf("%d outcomes counted, want those of the two that were kept", settled.Counted)
		}
		if settled := b.settle(outcomes(again, license.Refused)...); settled.Counted != 2 {
			t.Errorf("%d outcomes counted, want those of the two that were claimed again", settled.Counted)
		}
		b.giveBack(0, append(held, again...)...) // all have ended
		b.wantPool(license.SKUFlexible, 0, 2)
	})
}

// TestGiveCallbacksBack is the same for callbacks.
func TestGiveCallbacksBack(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		b.listen()
		b.accept(license.Assign, license.SKUFlexible, b.sims[:3]...)
		task := b.claim(3)
		b.settle(outcomes(task, license.Done)...)
		for _, c := range b.claimCallbacks(3) {
			b.finish(c, license.Again)
		}
		b.now = b.now.Add(5 * time.Minute)
		held := b.claimCallbacks(3)
		if len(held) != 3 || held[0].Attempt != 1 {
			t.Fatalf("claimed %+v, want three after an attempt", held)
		}
		task[0].Lease = held[0].Lease
		b.giveBack(0, task[0]) // it is no longer at the carrier
		stale := held[2]
		stale.Lease--
		b.giveCallbacksBack(2, held[1], stale, held[0], held[1])

		again := b.claimCallbacks(3)
		if len(again) != 2 {
			t.Fatalf("claimed %+v, want the two that were given back", again)
		}
		for i, c := range again {
			if c.Device != held[i].Device || c.Attempt != 1 || c.Lease <= held[i].Lease {
				t.Errorf("claimed %+v after %+v was given back, want it after the same attempts under a later lease", c, held[i])
			}
			b.finish(held[i], license.Delivered) // by whom it is no longer
			b.finish(c, license.Delivered)
		}
		b.giveCallbacksBack(0, again...)
		b.giveCallbacksBack(1, held[2])
		if got := b.claimCallbacks(3); len(got) != 1 || got[0].Device != held[2].Device {
			t.Errorf("claimed %+v, want the last", got)
		}
	})
}

// TestGiveBackWhatIsNoMore gives a task back that others have done and that was
// purged since.
func TestGiveBackWhatIsNoMore(t *testing.T) {
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
		b.giveBack(0, slow...)
		b.giveCallbacksBack(0, slowCall...)
		if got := b.claimCallbacks(10); len(got) != 0 {
			t.Errorf("claimed %+v, want nothing", got)
		}
		if got := b.claim(10); len(got) != 0 {
			t.Errorf("claimed %+v, want nothing", got)
		}
	})
}

// TestGiveMuchBack gives back more than fits into a transaction, of two accounts.
func TestGiveMuchBack(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		const n, other = 600, license.AccountName("0000999999-00001")
		b := newBench(t, s, storetest.Fixture{SIMs: n, Pools: map[license.SKU]int64{license.SKUFlexible: n}})
		sims := storetest.Seed(t, s, storetest.Fixture{Account: other, SIMs: 2})
		var held []license.Task
		for _, sims := range [][]license.SIM{b.sims, sims} {
			p := b.params(license.Assign, license.SKUFlexible, sims...)
			p.Room, p.LeaseUntil = len(sims), b.now.Add(20*time.Second)
			a, err := s.Accept(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, a.Tasks...)
		}
		b.giveBack(n+2, held...)
		due, err := s.DueAccounts(t.Context(), license.PhaseCarrier, b.now)
		if err != nil || len(due) != 2 || due[0].Count+due[1].Count != n+2 {
			t.Errorf("DueAccounts: %+v, %v; want all %d", due, err, n+2)
		}
		b.now = b.now.Add(time.Minute) // nothing is left to be taken back
		b.giveBack(0, held...)
		if got := b.claim(1); len(got) != 1 || got[0].Lease != 3 {
			t.Errorf("claimed %+v, want one under the third lease", got)
		}
	})
}

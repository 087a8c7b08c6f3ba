package store_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// late settles late outcomes and returns their results.
func (b *bench) late(outcomes ...license.LateOutcome) []license.LateResult {
	b.t.Helper()
	return b.lateOf(storetest.Account, outcomes...)
}

func (b *bench) lateOf(account license.AccountName, outcomes ...license.LateOutcome) []license.LateResult {
	b.t.Helper()
	settled, err := b.s.SettleLate(b.t.Context(), license.LateParams{Account: account, Now: b.now, Outcomes: outcomes})
	if err != nil {
		b.t.Fatalf("SettleLate: %v", err)
	}
	return settled.Results
}

func (b *bench) wantLate(want license.LateResult, outcomes ...license.LateOutcome) {
	b.t.Helper()
	for i, got := range b.late(outcomes...) {
		if got != want {
			b.t.Errorf("the late outcome %+v is %v, want %v", outcomes[i], got, want)
		}
	}
}

func lateOutcome(id license.RequestID, sim license.SIM, v license.Verdict) license.LateOutcome {
	return license.LateOutcome{Request: id, ICCID: sim.Device.ICCID, Verdict: v, Comment: map[license.Verdict]string{license.Refused: "no"}[v]}
}

// strange are the kept outcomes, as "SIM verdict result times".
func (b *bench) strange() (list []string) {
	b.t.Helper()
	kept, err := b.s.StrangeOutcomes(b.t.Context(), storetest.Account)
	if err != nil {
		b.t.Fatalf("StrangeOutcomes: %v", err)
	}
	for _, o := range kept {
		i := slices.IndexFunc(b.sims, func(s license.SIM) bool { return s.Device.ICCID == o.ICCID })
		list = append(list, fmt.Sprintf("%d %v %v %d", i, o.Verdict, o.Result, o.Times))
	}
	return list
}

// TestLateOutcomeOfALeasedTask has an outcome come by itself while the carrier is
// being asked: it counts, the call in flight has lost, and the callback is due.
func TestLateOutcomeOfALeasedTask(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		b.listen()
		id := b.accept(license.Assign, license.SKUFlexible, b.sims[0], b.sims[1])
		inFlight := b.claim(2)
		b.wantLate(license.LateSettled, lateOutcome(id, b.sims[0], license.Done), lateOutcome(id, b.sims[1], license.Refused))
		b.wantPool(license.SKUFlexible, 0, 1)
		if settled := b.settle(outcomes(inFlight, license.Refused)...); settled.Counted != 0 {
			t.Errorf("%d outcomes of the call in flight counted", settled.Counted)
		}
		if settled := b.settle(outcomes(inFlight, license.Later)...); settled.Counted != 0 {
			t.Errorf("%d later answers of the call in flight counted", settled.Counted)
		}
		b.wantPool(license.SKUFlexible, 0, 1)
		calls := b.claimCallbacks(5)
		if len(calls) != 2 || !calls[0].OK || calls[1].OK || calls[1].Comment != "no" || calls[0].SKU != license.SKUFlexible || calls[0].Device != b.sims[0].Device {
			t.Errorf("callbacks %+v; want one that succeeded and one that failed", calls)
		}
		b.verify()
	})
}

// TestLateOutcomesAreToldApart goes through the results, each of them twice.
func TestLateOutcomesAreToldApart(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		id := b.accept(license.Assign, license.SKUFlexible, b.sims[:3]...)
		done, no := lateOutcome(id, b.sims[0], license.Done), lateOutcome(id, b.sims[1], license.Refused)
		if got, want := b.late(done, no, done), []license.LateResult{license.LateSettled, license.LateSettled, license.LateRepeated}; !slices.Equal(got, want) {
			t.Errorf("results %v, want %v", got, want)
		}
		for range 2 {
			b.wantLate(license.LateRepeated, done, no)
			b.wantLate(license.LateContradicts, lateOutcome(id, b.sims[0], license.Refused), lateOutcome(id, b.sims[1], license.Done))
			// Both at once say nothing, of a task that waits as well.
			b.wantLate(license.LateContradicts, lateOutcome(id, b.sims[2], license.Done), lateOutcome(id, b.sims[2], license.Refused))
			b.wantLate(license.LateUnknown, lateOutcome("0190a6f0-0000-7000-8000-000000000000", b.sims[0], license.Done), lateOutcome(id, b.sims[3], license.Done))
			for _, r := range b.lateOf("0000999999-00009", done) {
				if r != license.LateUnknown {
					t.Errorf("an outcome of an unknown account is %v", r)
				}
			}
		}
		b.wantPool(license.SKUFlexible, 1, 1)
		want := []string{"0 done unknown 2", "0 refused contradicts 2", "1 done contradicts 2", "2 done contradicts 2", "2 refused contradicts 2", "3 done unknown 2"}
		got := b.strange()
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("kept outcomes (-want +got):\n%s", diff)
		}
		b.wantLate(license.LateSettled, lateOutcome(id, b.sims[2], license.Done))
		b.now = b.now.Add(time.Hour)
		if n, err := s.Purge(t.Context(), b.now, time.Minute); err != nil || n != 0 {
			t.Fatalf("Purge: %d, %v; want nothing of what was never acknowledged", n, err)
		}
		if got := b.strange(); len(got) != 0 {
			t.Errorf("after the purge %v are kept", got)
		}
		b.now = b.now.Add(40 * 24 * time.Hour)
		if _, err := s.Purge(t.Context(), b.now, time.Minute); err != nil {
			t.Fatal(err)
		}
		b.wantLate(license.LateEnded, done, no)
		b.wantPool(license.SKUFlexible, 0, 2)
		b.verify()
	})
}

// TestLateOutcomeOfAStuckTask settles what an operator was left with; the
// operator, who decides a moment later, is told.
func TestLateOutcomeOfAStuckTask(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		b.accept(license.Assign, license.SKUFlexible, b.sims[0], b.sims[1])
		b.settle(outcomes(b.claim(2), license.Done)...)
		id := b.accept(license.Unassign, license.SKUFlexible, b.sims[0], b.sims[1])
		b.settle(outcomes(b.claim(2), license.Stuck)...)
		stuck, err := s.StuckTasks(t.Context(), storetest.Account)
		if err != nil || len(stuck) != 2 {
			t.Fatalf("StuckTasks: %v, %v", stuck, err)
		}
		b.wantLate(license.LateSettled, lateOutcome(id, b.sims[0], license.Refused), lateOutcome(id, b.sims[1], license.Done))
		for _, task := range stuck {
			if err := s.ResolveStuck(t.Context(), task, license.Done, "seen", b.now); err == nil {
				t.Error("a task that was settled late could be resolved")
			}
		}
		b.wantPool(license.SKUFlexible, 0, 1) // the refused one keeps its license
		b.verify()
		b.accept(license.Unassign, license.SKUFlexible, b.sims[0])
		b.carry(license.Done)
		b.wantPool(license.SKUFlexible, 0, 0)
	})
}

// TestLateOutcomesRace has late outcomes, some contradicting, race with calls in
// flight, claims, operators and the purge on several nodes: each license moves
// once, and for each task one outcome of all counted.
func TestLateOutcomesRace(t *testing.T) {
	for _, e := range storetest.Engines(t) {
		t.Run(e.Name, func(t *testing.T) {
			const sims = 24
			db := e.NewDatabase(t)
			b := newBench(t, db.Open(t), storetest.Fixture{SIMs: sims})
			b.listen()
			nodes := []*store.Store{b.s, db.Open(t)}
			for range 4 {
				id := b.accept(license.Assign, license.SKUFlexible, b.sims...)
				tasks := b.claim(sims)
				b.settle(outcomes(tasks[:4], license.Stuck)...)
				stuck, err := b.s.StuckTasks(t.Context(), storetest.Account)
				if err != nil {
					t.Fatal(err)
				}
				var counted atomic.Int64
				var wg sync.WaitGroup
				for i, s := range nodes {
					verdict := []license.Verdict{license.Done, license.Refused}[i]
					var words []license.LateOutcome
					for _, sim := range b.sims {
						words = append(words, lateOutcome(id, sim, verdict))
					}
					for range 2 {
						wg.Go(func() {
							settled, err := s.SettleLate(t.Context(), license.LateParams{Account: storetest.Account, Now: b.now, Outcomes: words})
							if err != nil {
								t.Errorf("SettleLate: %v", err)
							}
							for _, r := range settled.Results {
								switch r {
								case license.LateSettled:
									counted.Add(1)
								case license.LateUnknown, license.LateEnded:
									t.Errorf("a late outcome is %v", r)
								case license.LateRepeated, license.LateContradicts:
								}
							}
						})
					}
					wg.Go(func() {
						settled, err := s.SettleTasks(t.Context(), license.SettleParams{Now: b.now, Outcomes: outcomes(tasks[4:], verdict)})
						if err != nil {
							t.Errorf("SettleTasks: %v", err)
						}
						counted.Add(int64(settled.Counted))
					})
					wg.Go(func() {
						for _, task := range stuck {
							if err := s.ResolveStuck(t.Context(), task, verdict, "seen", b.now); err == nil {
								counted.Add(1)
							}
						}
					})
				}
				wg.Wait()
				if n := counted.Load(); n != sims {
					t.Errorf("%d outcomes counted for %d tasks", n, sims)
				}
				b.verify()
				// Back to where it began, by whatever way each license went.
				b.unassignAll()
			}
		})
	}
}

// unassignAll takes all flexible licenses back, and acknowledges all callbacks.
func (b *bench) unassignAll() {
	b.t.Helper()
	for _, sim := range b.sims {
		if _, err := b.s.Accept(b.t.Context(), b.params(license.Unassign, license.SKUFlexible, sim)); err != nil {
			continue // it has none
		}
		b.carry(license.Done)
	}
	b.wantPool(license.SKUFlexible, 0, 0)
	for calls := b.claimCallbacks(500); len(calls) > 0; calls = b.claimCallbacks(500) {
		for _, c := range calls {
			b.finish(c, license.Delivered)
		}
	}
}

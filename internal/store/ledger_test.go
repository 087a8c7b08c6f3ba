package store_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// bench is a store with what a test does to it; its clock stands still unless
// the test moves it.
type bench struct {
	t    *testing.T
	s    *store.Store
	now  time.Time
	sims []license.SIM
}

func newBench(t *testing.T, s *store.Store, f storetest.Fixture) *bench {
	return &bench{t: t, s: s, now: storetest.Start(), sims: storetest.Seed(t, s, f)}
}

func (b *bench) params(action license.Action, sku license.SKU, sims ...license.SIM) license.AcceptParams {
	b.t.Helper()
	id := license.NewRequestID(b.now, rand.Reader)
	r, err := license.NewRequest(id, sims[0].Account, sku, action, storetest.Devices(sims), b.now)
	if err != nil {
		b.t.Fatalf("NewRequest: %v", err)
	}
	return license.AcceptParams{Request: r, Application: "app", User: "user"}
}

// accept has a request accepted, its tasks unleased.
func (b *bench) accept(action license.Action, sku license.SKU, sims ...license.SIM) license.RequestID {
	b.t.Helper()
	a, err := b.s.Accept(b.t.Context(), b.params(action, sku, sims...))
	if err != nil {
		b.t.Fatalf("Accept: %v", err)
	}
	return a.ID
}

func (b *bench) claim(n int) []license.Task {
	b.t.Helper()
	b.lapse(license.PhaseCarrier)
	tasks, err := b.s.ClaimTasks(b.t.Context(), license.ClaimParams{
		Account: storetest.Account, Now: b.now, Until: b.now.Add(20 * time.Second), Limit: n,
	})
	if err != nil {
		b.t.Fatalf("ClaimTasks: %v", err)
	}
	return tasks
}

// lapse looks for due work as those do who claim it: leases that ended are then
// found.
func (b *bench) lapse(phase license.Phase) {
	b.t.Helper()
	if _, err := b.s.DueAccounts(b.t.Context(), phase, b.now); err != nil {
		b.t.Fatalf("DueAccounts: %v", err)
	}
}

func (b *bench) claimCallbacks(n int) []license.Callback {
	b.t.Helper()
	b.lapse(license.PhaseListener)
	callbacks, err := b.s.ClaimCallbacks(b.t.Context(), license.ClaimParams{
		Account: storetest.Account, Now: b.now, Until: b.now.Add(20 * time.Second), Limit: n,
	})
	if err != nil {
		b.t.Fatalf("ClaimCallbacks: %v", err)
	}
	return callbacks
}

func (b *bench) settle(outcomes ...license.Outcome) license.Settled {
	b.t.Helper()
	settled, err := b.s.SettleTasks(b.t.Context(), license.SettleParams{Now: b.now, Outcomes: outcomes})
	if err != nil {
		b.t.Fatalf("SettleTasks: %v", err)
	}
	return settled
}

func outcomes(tasks []license.Task, v license.Verdict) []license.Outcome {
	var list []license.Outcome
	for _, t := range tasks {
		list = append(list, license.Outcome{Task: t, Verdict: v})
	}
	return list
}

// carry settles everything that is due at the carrier.
func (b *bench) carry(v license.Verdict) {
	b.t.Helper()
	for tasks := b.claim(500); len(tasks) > 0; tasks = b.claim(500) {
		b.settle(outcomes(tasks, v)...)
	}
}

func (b *bench) pool(sku license.SKU) license.Pool {
	b.t.Helper()
	pools, err := b.s.Pools(b.t.Context(), storetest.Account)
	if err != nil {
		b.t.Fatalf("Pools: %v", err)
	}
	for _, p := range pools {
		if p.SKU == sku {
			return p
		}
	}
	b.t.Fatalf("no pool of %s", sku)
	return license.Pool{}
}

func (b *bench) wantPool(sku license.SKU, reserved, assigned int64) {
	b.t.Helper()
	if p := b.pool(sku); p.Reserved != reserved || p.Assigned != assigned {
		b.t.Errorf("pool of %s: %d reserved, %d assigned; want %d and %d", sku, p.Reserved, p.Assigned, reserved, assigned)
	}
	b.verify()
}

func (b *bench) verify() {
	b.t.Helper()
	_, err := b.s.Verify(b.t.Context(), func(d license.Drift) { b.t.Errorf("drift: %v", d) })
	if err != nil {
		b.t.Errorf("Verify: %v", err)
	}
}

func (b *bench) wantStatus(id license.RequestID, want license.Status) {
	b.t.Helper()
	p, err := b.s.Progress(b.t.Context(), storetest.Account, id)
	if err != nil || p.Status() != want {
		b.t.Errorf("Progress(%s) = %v, %v; want %s", id, p.Status(), err, want)
	}
}

func TestLifeOfALicense(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		sku := license.SKUFlexible

		assign := b.accept(license.Assign, sku, b.sims[:4]...)
		b.wantPool(sku, 4, 0)
		b.wantStatus(assign, license.StatusPending)

		tasks := b.claim(10)
		if len(tasks) != 4 {
			t.Fatalf("claimed %d tasks, want 4", len(tasks))
		}
		want := license.Task{
			Request: assign, Account: storetest.Account, SKU: sku, Action: license.Assign,
			Device: b.sims[0].Device, At: b.now, Place: 1, Of: 4, Lease: 2, Until: b.now.Add(20 * time.Second),
		}
		if diff := cmp.Diff(want, tasks[0]); diff != "" {
			t.Errorf("the first task (-want +got):\n%s", diff)
		}
		b.settle(append(outcomes(tasks[:3], license.Done), outcomes(tasks[3:], license.Refused)...)...)
		b.wantPool(sku, 0, 3)
		b.wantStatus(assign, license.StatusFailure)

		// The refused SIM is free again, the others are not.
		b.accept(license.Assign, sku, b.sims[3])
		b.wantPool(sku, 1, 3)
		b.carry(license.Done)
		b.wantPool(sku, 0, 4)

		unassign := b.accept(license.Unassign, sku, b.sims[:4]...)
		b.wantPool(sku, 0, 4)
		tasks = b.claim(10)
		b.settle(append(outcomes(tasks[:1], license.Refused), outcomes(tasks[1:], license.Done)...)...)
		b.wantPool(sku, 0, 1)
		b.wantStatus(unassign, license.StatusFailure)

		// The unassign that was refused left the license where it was.
		sims, err := s.Devices(t.Context(), license.DeviceFilter{Accounts: []license.AccountName{storetest.Account}, Device: b.sims[0].Device, Limit: 1})
		if err != nil || len(sims) != 1 || sims[0].SKU != sku || sims[0].Request != assign {
			t.Errorf("the SIM: %+v, %v; want it to hold %s by request %s", sims, err, sku, assign)
		}
		again := b.accept(license.Unassign, sku, b.sims[0])
		b.carry(license.Done)
		b.wantPool(sku, 0, 0)
		b.wantStatus(again, license.StatusSuccess)
	})
}

// TestRefusals has each reason to refuse a request, alone and against the
// reasons that count before it; none of them leaves a trace.
func TestRefusals(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{SIMs: 12, Pools: map[license.SKU]int64{license.SKUFlexible: 5, license.SKUBundle: 5}})
		flexible, bundle := license.SKUFlexible, license.SKUBundle
		free, held, pending := b.sims[0], b.sims[1], b.sims[2]
		suspended, old := b.sims[3], b.sims[4]
		b.accept(license.Assign, flexible, held)
		b.carry(license.Done)
		b.accept(license.Assign, flexible, pending)
		if _, err := s.SetState(t.Context(), suspended.Account, []license.ICCID{suspended.Device.ICCID}, license.StateSuspended); err != nil {
			t.Fatal(err)
		}
		old = storetest.SIM(storetest.Account, 900)
		old.Generation = "3G"
		b.importSIMs(old)
		stranger := storetest.SIM(storetest.Account, 901)
		mismatch := free
		mismatch.Device.IMEI = b.sims[5].Device.IMEI
		rest := b.sims[5:11]

		for _, test := range []struct {
			name   string
			action license.Action
			sku    license.SKU
			sims   []license.SIM
			want   error
			at     []license.SIM
		}{
			{"unknown", license.Assign, flexible, []license.SIM{free, stranger, held}, license.ErrUnknownDevice, []license.SIM{stranger}},
			{"pair that is none", license.Assign, flexible, []license.SIM{mismatch}, license.ErrUnknownDevice, []license.SIM{mismatch}},
			{"suspended", license.Assign, flexible, []license.SIM{free, suspended}, license.ErrNotActive, []license.SIM{suspended}},
			{"old", license.Assign, flexible, []license.SIM{free, old}, license.ErrNotEligible, []license.SIM{old}},
			{"suspended before old and held", license.Assign, flexible, []license.SIM{old, suspended, held}, license.ErrNotActive, []license.SIM{suspended}},
			{"old before held", license.Assign, flexible, []license.SIM{held, old}, license.ErrNotEligible, []license.SIM{old}},
			{"held", license.Assign, flexible, []license.SIM{free, held}, license.ErrHeld, []license.SIM{held}},
			{"held with another SKU", license.Assign, bundle, []license.SIM{held}, license.ErrHeld, []license.SIM{held}},
			{"pending", license.Assign, flexible, []license.SIM{pending}, license.ErrHeld, []license.SIM{pending}},
			{"too few", license.Assign, flexible, rest, license.ErrInsufficient, nil},
			{"no pool", license.Assign, license.SKULifetime, rest, license.ErrInsufficient, nil},
			{"unassign of nothing", license.Unassign, flexible, []license.SIM{free, held}, license.ErrNotHeld, []license.SIM{free}},
			{"unassign of another SKU", license.Unassign, bundle, []license.SIM{held}, license.ErrNotHeld, []license.SIM{held}},
			{"unassign of pending", license.Unassign, flexible, []license.SIM{pending}, license.ErrHeld, []license.SIM{pending}},
		} {
			t.Run(test.name, func(t *testing.T) {
				_, err := s.Accept(t.Context(), b.params(test.action, test.sku, test.sims...))
				if !errors.Is(err, test.want) {
					t.Fatalf("Accept: %v, want %v", err, test.want)
				}
				var named *license.DevicesError
				if errors.As(err, &named) && len(test.at) > 0 {
					var want []license.ICCID
					for _, sim := range test.at {
						want = append(want, sim.Device.ICCID)
					}
					var got []license.ICCID
					for _, d := range named.Devices {
						got = append(got, d.ICCID)
					}
					slices.Sort(want)
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("the devices at fault (-want +got):\n%s", diff)
					}
				}
			})
		}
		b.wantPool(flexible, 1, 1)
		b.wantPool(bundle, 0, 0)
	})
}

func (b *bench) importSIMs(sims ...license.SIM) {
	b.t.Helper()
	_, err := b.s.Import(b.t.Context(), func(yield func(license.SIM, error) bool) {
		for _, sim := range sims {
			if !yield(sim, nil) {
				return
			}
		}
	}, b.now, nil)
	if err != nil {
		b.t.Fatalf("Import: %v", err)
	}
}

func TestDevicesByOneIdentifier(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		twin := storetest.SIM(storetest.Account, 50)
		twin.Device.IMEI = b.sims[3].Device.IMEI // two SIMs with one IMEI
		b.importSIMs(twin)
		accept := func(devices ...license.Device) error {
			r, err := license.NewRequest(license.NewRequestID(b.now, rand.Reader), storetest.Account,
				license.SKUFlexible, license.Assign, devices, b.now)
			if err != nil {
				return err
			}
			_, err = s.Accept(t.Context(), license.AcceptParams{Request: r})
			return err
		}
		imei := func(i int) license.Device { return license.Device{IMEI: b.sims[i].Device.IMEI} }
		iccid := func(i int) license.Device { return license.Device{ICCID: b.sims[i].Device.ICCID} }
		if err := accept(imei(0), iccid(1)); err != nil {
			t.Errorf("an IMEI alone and an ICCID alone: %v", err)
		}
		if err := accept(imei(2), iccid(2)); !errors.Is(err, license.ErrDuplicate) {
			t.Errorf("one SIM by two identifiers: %v, want ErrDuplicate", err)
		}
		if err := accept(imei(3)); !errors.Is(err, license.ErrUnknownDevice) {
			t.Errorf("an IMEI of two SIMs: %v, want ErrUnknownDevice", err)
		}
		if err := accept(iccid(3)); err != nil {
			t.Errorf("the ICCID of one of the two: %v", err)
		}
		b.wantPool(license.SKUFlexible, 3, 0)
	})
}

func TestIdempotencyKey(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		p := b.params(license.Assign, license.SKUFlexible, b.sims[0])
		p.IdempotencyKey, p.BodyHash = "key", "hash"
		first, err := s.Accept(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		repeat := b.params(license.Assign, license.SKUFlexible, b.sims[0])
		repeat.IdempotencyKey, repeat.BodyHash = "key", "hash"
		second, err := s.Accept(t.Context(), repeat)
		if err != nil || second.ID != first.ID || !second.Replay {
			t.Errorf("the same again: %+v, %v; want a replay of %s", second, err, first.ID)
		}
		if id, err := s.Replay(t.Context(), storetest.Account, "app", "assign", "key", "hash", b.now); err != nil || id != first.ID {
			t.Errorf("Replay = %s, %v; want %s", id, err, first.ID)
		}
		other := b.params(license.Assign, license.SKUFlexible, b.sims[1])
		other.IdempotencyKey, other.BodyHash = "key", "another"
		if _, err := s.Accept(t.Context(), other); !errors.Is(err, license.ErrKeyReused) {
			t.Errorf("another body: %v, want ErrKeyReused", err)
		}
		// The request itself may be repeated too: a commit whose answer was lost.
		if again, err := s.Accept(t.Context(), p); err != nil || again.ID != first.ID {
			t.Errorf("the same request again: %+v, %v", again, err)
		}
		b.now = b.now.Add(25 * time.Hour)
		other = b.params(license.Assign, license.SKUFlexible, b.sims[1])
		other.IdempotencyKey, other.BodyHash = "key", "another"
		if _, err := s.Accept(t.Context(), other); err != nil {
			t.Errorf("another body a day later: %v", err)
		}
		b.wantPool(license.SKUFlexible, 2, 0)
	})
}

func TestBornLeased(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		b.listen()
		p := b.params(license.Assign, license.SKUFlexible, b.sims[:5]...)
		p.Room, p.LeaseUntil = 3, b.now.Add(20*time.Second)
		a, err := s.Accept(t.Context(), p)
		if err != nil || len(a.Tasks) != 3 || !a.More {
			t.Fatalf("Accept: %d tasks, more %v, %v; want 3 and more", len(a.Tasks), a.More, err)
		}
		if rest := b.claim(10); len(rest) != 2 {
			t.Errorf("claimed %d, want the 2 that were not leased", len(rest))
		}
		settled, err := s.SettleTasks(t.Context(), license.SettleParams{
			Now: b.now, Outcomes: outcomes(a.Tasks, license.Done),
			Room: map[license.AccountName]int{storetest.Account: 2}, LeaseUntil: b.now.Add(20 * time.Second),
		})
		if err != nil || len(settled.Callbacks) != 2 || !settled.More || settled.Counted != 3 {
			t.Fatalf("SettleTasks: %+v, %v; want two callbacks, more, three counted", settled, err)
		}
		if got := b.claimCallbacks(10); len(got) != 1 {
			t.Errorf("claimed %d callbacks, want the one that was not leased", len(got))
		}
		// What was born leased is as good as what was claimed.
		b.finish(settled.Callbacks[0], license.Delivered)
		b.now = b.now.Add(time.Minute)
		if got := b.claimCallbacks(10); len(got) != 2 {
			t.Errorf("claimed %d callbacks after the lease, want 2", len(got))
		}
		b.verify()
	})
}

func (b *bench) listen() {
	b.t.Helper()
	err := b.s.PutListener(b.t.Context(), license.Listener{
		Account: storetest.Account, Service: license.CarrierService,
		URL: "https://example.com/", Username: "user", Password: "secret",
	}, b.now)
	if err != nil {
		b.t.Fatalf("PutListener: %v", err)
	}
}

func (b *bench) finish(c license.Callback, v license.DeliveryVerdict) {
	b.t.Helper()
	status := 500
	if v == license.Delivered {
		status = 200
	}
	err := b.s.FinishCallbacks(b.t.Context(), b.now, []license.Delivery{{
		Callback: c, Verdict: v, Status: status,
		Latency: time.Millisecond, Answer: []byte("no\x00\xff"), At: b.now, Due: b.now.Add(5 * time.Minute),
	}})
	if err != nil {
		b.t.Fatalf("FinishCallbacks: %v", err)
	}
}

// TestLeases shows that only the holder of a lease can change anything, once.
func TestLeases(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		b.listen()
		b.accept(license.Assign, license.SKUFlexible, b.sims[0])
		slow := b.claim(1)
		if got := b.claim(1); len(got) != 0 {
			t.Errorf("claimed %d leased tasks", len(got))
		}
		b.now = b.now.Add(21 * time.Second)
		quick := b.claim(1)
		if len(quick) != 1 || quick[0].Lease <= slow[0].Lease {
			t.Fatalf("after the lease: %+v, want the task under a higher lease", quick)
		}
		if settled := b.settle(outcomes(slow, license.Refused)...); settled.Counted != 0 {
			t.Errorf("a lost lease counted")
		}
		b.settle(outcomes(quick, license.Done)...)
		if settled := b.settle(outcomes(quick, license.Done)...); settled.Counted != 0 {
			t.Errorf("the same outcome counted twice")
		}
		b.wantPool(license.SKUFlexible, 0, 1)

		first := b.claimCallbacks(1)
		b.now = b.now.Add(21 * time.Second)
		second := b.claimCallbacks(1)
		b.finish(first[0], license.Delivered)
		b.finish(second[0], license.Again)
		b.finish(second[0], license.Again)
		b.now = b.now.Add(5 * time.Minute)
		third := b.claimCallbacks(1)
		if len(third) != 1 || third[0].Attempt != 1 {
			t.Errorf("after one failed attempt: %+v, want one callback with attempt 1", third)
		}
	})
}

func TestUnknownOutcomes(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		id := b.accept(license.Assign, license.SKUFlexible, b.sims[:3]...)
		tasks := b.claim(3)
		due := b.now.Add(time.Minute)
		b.settle(license.Outcome{Task: tasks[0], Verdict: license.Retry, Due: due},
			license.Outcome{Task: tasks[1], Verdict: license.Later, Due: due},
			license.Outcome{Task: tasks[2], Verdict: license.Stuck})
		b.wantPool(license.SKUFlexible, 3, 0)
		if got := b.claim(10); len(got) != 0 {
			t.Errorf("claimed %d tasks before they were due", len(got))
		}
		b.now = due
		got := b.claim(10)
		if len(got) != 2 || got[0].Attempt != 1 || got[0].Key() != tasks[0].Key() {
			t.Errorf("claimed %+v, want two tasks with attempt 1 and the same keys", got)
		}
		b.settle(outcomes(got, license.Done)...)
		b.wantPool(license.SKUFlexible, 1, 2)
		b.wantStatus(id, license.StatusPending)
		if _, err := s.Accept(t.Context(), b.params(license.Unassign, license.SKUFlexible, b.sims[2])); !errors.Is(err, license.ErrHeld) {
			t.Errorf("unassign of a stuck SIM: %v, want ErrHeld", err)
		}
		stuck, err := s.StuckTasks(t.Context(), storetest.Account)
		if err != nil || len(stuck) != 1 || stuck[0].Key() != tasks[2].Key() || !stuck[0].At.Equal(tasks[2].At) || stuck[0].SKU != tasks[2].SKU {
			t.Fatalf("StuckTasks: %+v, %v; want the one", stuck, err)
		}
		if err := s.ResolveStuck(t.Context(), stuck[0], license.Retry, "", b.now); err != nil {
			t.Fatal(err)
		}
		b.settle(outcomes(b.claim(10), license.Stuck)...)
		if err := s.ResolveStuck(t.Context(), stuck[0], license.Done, "", b.now); !errors.Is(err, license.ErrNotFound) {
			t.Errorf("resolving by a list that is old: %v, want ErrNotFound", err)
		}
		if stuck, err = s.StuckTasks(t.Context(), storetest.Account); err != nil || len(stuck) != 1 {
			t.Fatalf("StuckTasks: %+v, %v; want one", stuck, err)
		}
		if err := s.ResolveStuck(t.Context(), stuck[0], license.Refused, "never arrived", b.now); err != nil {
			t.Fatal(err)
		}
		b.wantPool(license.SKUFlexible, 0, 2)
		b.wantStatus(id, license.StatusFailure)
	})
}

// TestRacingClients has many clients at one pool, and at one SIM, at once.
func TestRacingClients(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		const clients = 40
		b := newBench(t, s, storetest.Fixture{SIMs: clients + 1, Pools: map[license.SKU]int64{license.SKUFlexible: 25}})
		var mu sync.Mutex
		results := map[string]int{}
		race := func(sims func(client int) []license.SIM) {
			var wg sync.WaitGroup
			for client := range clients {
				p := b.params(license.Assign, license.SKUFlexible, sims(client)...)
				wg.Go(func() {
					_, err := s.Accept(context.WithoutCancel(t.Context()), p)
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err == nil:
						results["accepted"]++
					case errors.Is(err, license.ErrHeld):
						results["held"]++
					case errors.Is(err, license.ErrInsufficient):
						results["insufficient"]++
					default:
						results[fmt.Sprint(err)]++
					}
				})
			}
			wg.Wait()
		}
		race(func(int) []license.SIM { return b.sims[clients : clients+1] })
		if diff := cmp.Diff(map[string]int{"accepted": 1, "held": clients - 1}, results); diff != "" {
			t.Errorf("one SIM (-want +got):\n%s", diff)
		}
		clear(results)
		race(func(client int) []license.SIM { return b.sims[client : client+1] })
		if diff := cmp.Diff(map[string]int{"accepted": 24, "insufficient": clients - 24}, results); diff != "" {
			t.Errorf("one pool (-want +got):\n%s", diff)
		}
		b.wantPool(license.SKUFlexible, 25, 0)
	})
}

// TestContestedRequests has many clients assign overlapping sets of SIMs in
// different orders: one of any two that overlap is refused, none deadlocks.
func TestContestedRequests(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{SIMs: 60, Pools: map[license.SKU]int64{license.SKUFlexible: 1000}})
		var wg sync.WaitGroup
		var mu sync.Mutex
		accepted := 0
		for client := range 60 {
			sims := slices.Clone(b.sims)
			if client%2 == 0 {
				slices.Reverse(sims)
			}
			p := b.params(license.Assign, license.SKUFlexible, sims[client%30:client%30+20]...)
			wg.Go(func() {
				_, err := s.Accept(context.WithoutCancel(t.Context()), p)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					accepted++
				} else if !errors.Is(err, license.ErrHeld) {
					t.Errorf("Accept: %v, want success or ErrHeld", err)
				}
			})
		}
		wg.Wait()
		if accepted < 1 || accepted > 3 {
			t.Errorf("%d requests of 20 among 60 SIMs were accepted", accepted)
		}
		b.wantPool(license.SKUFlexible, int64(20*accepted), 0)
	})
}

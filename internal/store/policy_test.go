package store_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

func setPolicy(t *testing.T, s *store.Store, p license.Policy, now time.Time) {
	t.Helper()
	p.Account = storetest.Account
	if err := s.SetPolicy(t.Context(), p, now); err != nil {
		t.Fatal(err)
	}
}

// refusedBy accepts a request, or returns the rule that it broke.
func (b *bench) refusedBy(p license.AcceptParams) license.Rule {
	b.t.Helper()
	_, err := b.s.Accept(b.t.Context(), p)
	var refused *license.PolicyError
	if err != nil && !errors.As(err, &refused) {
		b.t.Fatalf("Accept = %v, want acceptance or a refusal by policy", err)
	}
	plan, planned := b.s.Plan(b.t.Context(), p.Request)
	if refused == nil {
		return ""
	}
	// The dry run says the same.
	var again *license.PolicyError
	if planned != nil || !errors.As(plan.Err, &again) || *again != *refused {
		b.t.Errorf("Plan = %v, %v; Accept = %v", plan.Err, planned, err)
	}
	return refused.Rule
}

func TestPolicy(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{SIMs: 12, Pools: map[license.SKU]int64{license.SKUFlexible: 100, license.SKULifetime: 100}})
		check := func(what string, got, want license.Rule) {
			t.Helper()
			if got != want {
				t.Errorf("%s: refused by %q, want %q", what, got, want)
			}
		}
		flexible := func(sims ...license.SIM) license.Rule {
			t.Helper()
			return b.refusedBy(b.params(license.Assign, license.SKUFlexible, sims...))
		}
		lifetime := func(sims ...license.SIM) license.Rule {
			t.Helper()
			return b.refusedBy(b.params(license.Assign, license.SKULifetime, sims...))
		}
		check("no policy", lifetime(b.sims[0]), "")
		setPolicy(t, s, license.Policy{RefuseLifetime: true}, b.now)
		check("lifetime", lifetime(b.sims[1]), license.RuleLifetime)
		check("flexible", flexible(b.sims[1], b.sims[2]), "")

		// Those accepted before the limit count: three so far.
		setPolicy(t, s, license.Policy{DailyDevices: 5}, b.now)
		check("lifetime again", lifetime(b.sims[3]), "")
		check("two more, with one left", flexible(b.sims[4], b.sims[5]), license.RuleDaily)
		p := b.params(license.Assign, license.SKUFlexible, b.sims[4])
		p.IdempotencyKey, p.BodyHash = "key", "hash"
		check("the last one", b.refusedBy(p), "")
		check("one more", flexible(b.sims[5]), license.RuleDaily)
		again := b.params(license.Assign, license.SKUFlexible, b.sims[4])
		again.IdempotencyKey, again.BodyHash = "key", "hash"
		if a, err := s.Accept(t.Context(), again); err != nil || !a.Replay || a.ID != p.Request.ID {
			t.Errorf("a repeat of what was accepted = %+v, %v, want a replay of %s", a, err, p.Request.ID)
		}
		if p, n, err := s.Policy(t.Context(), storetest.Account, b.now); err != nil || p.DailyDevices != 5 || n != 5 {
			t.Errorf("Policy = %+v, %d, %v, want 5 of 5", p, n, err)
		}

		// The policy comes before the devices and before the pool.
		check("an unknown device", flexible(storetest.SIM(storetest.Account, 999)), license.RuleDaily)
		check("a held device", flexible(b.sims[0]), license.RuleDaily)
		check("no pool", b.refusedBy(b.params(license.Assign, license.SKUBundle, b.sims[5])), license.RuleDaily)

		// Giving back is always allowed, and another day is another day.
		b.settle(outcomes(b.claim(100), license.Done)...)
		check("unassign", b.refusedBy(b.params(license.Unassign, license.SKUFlexible, b.sims[1])), "")
		b.now = license.Day(b.now).Add(24*time.Hour - time.Microsecond)
		check("the day's last moment", flexible(b.sims[5]), license.RuleDaily)
		b.now = b.now.Add(time.Microsecond)
		check("midnight", flexible(b.sims[5], b.sims[6]), "")
		setPolicy(t, s, license.Policy{}, b.now)
		check("no limit", flexible(b.sims[7:11]...), "")
		setPolicy(t, s, license.Policy{DailyDevices: 6}, b.now)
		check("a limit again", flexible(b.sims[11]), license.RuleDaily)
	})
}

func TestPolicyInput(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		now := storetest.Start()
		if err := s.SetPolicy(t.Context(), license.Policy{Account: "0000999999-00001", DailyDevices: 1}, now); !errors.Is(err, license.ErrNotFound) {
			t.Errorf("SetPolicy of an unknown account = %v, want ErrNotFound", err)
		}
		storetest.Seed(t, s, storetest.Fixture{SIMs: -1})
		var input *license.InputError
		if err := s.SetPolicy(t.Context(), license.Policy{Account: storetest.Account, DailyDevices: -1}, now); !errors.As(err, &input) {
			t.Errorf("SetPolicy of a negative limit = %v, want an InputError", err)
		}
		if err := s.As(olga).SetPolicy(t.Context(), license.Policy{Account: storetest.Account, DailyDevices: 9}, now); err != nil {
			t.Fatal(err)
		}
		got, err := s.Audit(t.Context(), store.AuditFilter{Action: "policy.set"})
		if err != nil || len(got) != 1 || got[0].Before != `{"dailyDevices":0,"lifetime":true}` || got[0].After != `{"dailyDevices":9,"lifetime":true}` {
			t.Errorf("the audit of it: %+v, %v", got, err)
		}
	})
}

// TestDailyLimitHolds asks for more than a day allows on three nodes at once: no
// more is accepted, and no less.
func TestDailyLimitHolds(t *testing.T) {
	for _, e := range storetest.Engines(t) {
		t.Run(e.Name, func(t *testing.T) {
			const devices, limit, callers = 60, 37, 12
			db := e.NewDatabase(t)
			nodes := []*store.Store{db.Open(t), db.Open(t), db.Open(t)}
			b := newBench(t, nodes[0], storetest.Fixture{SIMs: devices, Pools: map[license.SKU]int64{license.SKUFlexible: 1000}})
			setPolicy(t, nodes[0], license.Policy{DailyDevices: limit}, b.now)
			var accepted, refused atomic.Int64
			var asking sync.WaitGroup
			for c := range callers {
				asking.Go(func() {
					for i := c; i < devices; i += callers {
						_, err := nodes[c%len(nodes)].Accept(t.Context(), b.params(license.Assign, license.SKUFlexible, b.sims[i]))
						switch {
						case err == nil:
							accepted.Add(1)
						case errors.Is(err, license.ErrPolicy):
							refused.Add(1)
						default:
							t.Error(err)
						}
					}
				})
			}
			asking.Wait()
			if accepted.Load() != limit || refused.Load() != devices-limit {
				t.Errorf("accepted %d and refused %d, want %d and %d", accepted.Load(), refused.Load(), limit, devices-limit)
			}
			if _, n, err := nodes[1].Policy(t.Context(), storetest.Account, b.now); err != nil || n != limit {
				t.Errorf("the day has %d, %v, want %d", n, err, limit)
			}
		})
	}
}

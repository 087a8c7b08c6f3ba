package store_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

func alerts(t *testing.T, s *store.Store, after int64) []license.Alert {
	t.Helper()
	list, err := s.Alerts(t.Context(), after, 100)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestLowPool(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		const sku = license.SKUFlexible
		b := newBench(t, s, storetest.Fixture{SIMs: 10, Pools: map[license.SKU]int64{sku: 10}})
		want := func(what string, list ...license.Alert) {
			t.Helper()
			for i := range list {
				list[i].Number, list[i].Account, list[i].SKU = int64(i+1), storetest.Account, sku
			}
			if diff := cmp.Diff(list, alerts(t, s, 0), cmpopts.EquateEmpty(), cmpopts.IgnoreFields(license.Alert{}, "At")); diff != "" {
				t.Errorf("%s: alerts (-want +got):\n%s", what, diff)
			}
		}
		low := func(want int) {
			t.Helper()
			if n, err := s.LowPools(t.Context()); err != nil || n != want {
				t.Errorf("LowPools = %d, %v, want %d", n, err, want)
			}
		}
		pool, err := s.As(olga).SetThreshold(t.Context(), storetest.Account, sku, 8)
		if err != nil || pool.Threshold != 8 || pool.Purchased != 10 || pool.Low() {
			t.Fatalf("SetThreshold = %+v, %v", pool, err)
		}
		b.accept(license.Assign, sku, b.sims[0], b.sims[1])
		want("at the threshold")
		low(0)
		b.accept(license.Assign, sku, b.sims[2], b.sims[3])
		first := license.Alert{Available: 6, Threshold: 8}
		want("below it", first)
		low(1)
		b.accept(license.Assign, sku, b.sims[4])
		want("further below", first)
		if _, err := s.Accept(t.Context(), b.params(license.Assign, sku, append(b.sims[5:], storetest.SIM(storetest.Account, 99))...)); err == nil {
			t.Error("an unknown SIM was accepted")
		}
		want("a refusal", first)

		// A withdrawal is news as well, and so is the next time.
		for _, units := range []int64{3, -1} {
			if _, err := s.AddPurchase(t.Context(), license.Purchase{Account: storetest.Account, SKU: sku, Units: units, Reason: "test"}, b.now); err != nil {
				t.Fatal(err)
			}
		}
		want("a withdrawal", first, license.Alert{Available: 7, Threshold: 8})

		// With a policy the way is another, and the news the same.
		setPolicy(t, s, license.Policy{DailyDevices: 100}, b.now)
		if _, err := s.SetThreshold(t.Context(), storetest.Account, sku, 7); err != nil {
			t.Fatal(err)
		}
		b.accept(license.Assign, sku, b.sims[5])
		want("with a policy", first, license.Alert{Available: 7, Threshold: 8}, license.Alert{Available: 6, Threshold: 7})
		if got := alerts(t, s, 2); len(got) != 1 || got[0].Number != 3 {
			t.Errorf("Alerts after 2 = %+v, want the third", got)
		}
		if n, err := s.NewestAlert(t.Context()); err != nil || n != 3 {
			t.Errorf("NewestAlert = %d, %v, want 3", n, err)
		}
		if _, err := s.SetThreshold(t.Context(), storetest.Account, license.SKUBundle, 1); !errors.Is(err, license.ErrNotFound) {
			t.Errorf("SetThreshold of no pool = %v, want ErrNotFound", err)
		}
	})
}

// TestLowPoolOnce has many callers take a pool down at once: one of them crosses
// the threshold.
func TestLowPoolOnce(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		const sku, devices = license.SKUFlexible, 40
		b := newBench(t, s, storetest.Fixture{SIMs: devices, Pools: map[license.SKU]int64{sku: devices}})
		if _, err := s.SetThreshold(t.Context(), storetest.Account, sku, devices/2); err != nil {
			t.Fatal(err)
		}
		var asking sync.WaitGroup
		for i := range devices {
			asking.Go(func() {
				if _, err := s.Accept(t.Context(), b.params(license.Assign, sku, b.sims[i])); err != nil {
					t.Error(err)
				}
			})
		}
		asking.Wait()
		if got := alerts(t, s, 0); len(got) != 1 || got[0].Available >= devices/2 {
			t.Errorf("alerts: %+v, want one", got)
		}
	})
}

func TestAlertMessages(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		const sku = license.SKUFlexible
		b := newBench(t, s, storetest.Fixture{SIMs: 1, Pools: map[license.SKU]int64{sku: 1}})
		if _, err := s.SetThreshold(t.Context(), storetest.Account, sku, 1); err != nil {
			t.Fatal(err)
		}
		b.accept(license.Assign, sku, b.sims[0])
		claim := func(want int) license.Alert {
			t.Helper()
			list, err := s.ClaimAlerts(t.Context(), b.now, b.now.Add(time.Minute))
			if err != nil || len(list) != want {
				t.Fatalf("ClaimAlerts = %+v, %v, want %d", list, err, want)
			}
			if want == 0 {
				return license.Alert{}
			}
			return list[0]
		}
		finish := func(a license.Alert, again time.Time) {
			t.Helper()
			if err := s.FinishAlert(t.Context(), a, again); err != nil {
				t.Fatal(err)
			}
		}
		first := claim(1)
		claim(0) // somebody has it
		b.now = b.now.Add(2 * time.Minute)
		second := claim(1) // nobody has it any more
		if first.Attempt != 1 || second.Attempt != 2 {
			t.Errorf("attempts %d and %d, want 1 and 2", first.Attempt, second.Attempt)
		}
		finish(first, time.Time{}) // too late to count
		finish(second, b.now.Add(time.Hour))
		claim(0)
		b.now = b.now.Add(time.Hour)
		finish(claim(1), time.Time{})
		b.now = b.now.Add(time.Hour)
		claim(0)
		if got := alerts(t, s, 0); len(got) != 1 {
			t.Errorf("a delivered alert is gone: %+v", got)
		}
	})
}

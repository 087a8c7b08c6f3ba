package store_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// TestRequestPages walks the requests of an account, page by page.
func TestRequestPages(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{SIMs: 6})
		var want []license.RequestID
		for i := range 5 {
			b.now = b.now.Add(time.Duration(i%2) * time.Second) // some at one time
			want = append(want, b.accept(license.Assign, license.SKUFlexible, b.sims[i]))
		}
		slices.Reverse(want)
		f := store.RequestFilter{Account: storetest.Account, Limit: 2}
		var got []license.RequestID
		for more := true; more; {
			list, last, again, err := s.Requests(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range list {
				got = append(got, r.ID)
			}
			f.Before, more = last, again
		}
		if !sameIDs(got, want) {
			t.Errorf("paged through %v, want %v", got, want)
		}
		b.carry(license.Done)
		for status, n := range map[license.Status]int{license.StatusSuccess: 5, license.StatusPending: 0, "": 5} {
			list, _, _, err := s.Requests(t.Context(), store.RequestFilter{Account: storetest.Account, Limit: 10, Status: status})
			if err != nil || len(list) != n {
				t.Errorf("%d requests are %q, want %d (%v)", len(list), status, n, err)
			}
		}
		f.Before = "0199a000-0000-7000-8000-000000000000"
		if _, _, _, err := s.Requests(t.Context(), f); !errors.Is(err, license.ErrNotFound) {
			t.Errorf("behind a request that is none: %v", err)
		}
		b.verify()
	})
}

// sameIDs compares but for the order of those of one time, which is that of
// their random parts.
func sameIDs(a, b []license.RequestID) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// TestCallbackPlaces walks the callbacks of several requests one at a time.
func TestCallbackPlaces(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{SIMs: 7})
		b.accept(license.Assign, license.SKUFlexible, b.sims[0:3]...)
		b.now = b.now.Add(time.Second)
		b.accept(license.Assign, license.SKUFlexible, b.sims[3:7]...)
		for _, oldest := range []bool{true, false} {
			all := b.kept(store.CallbackFilter{OldestFirst: oldest})
			f := store.CallbackFilter{OldestFirst: oldest, Page: 1}
			var got []store.KeptCallback
			for range all {
				next := b.kept(f)[0]
				got = append(got, next)
				f.After = store.CallbackPlace{Request: next.Request, ICCID: next.Device.ICCID}
			}
			if !slices.Equal(got, all) || len(b.kept(f)) != 0 {
				t.Errorf("oldest first %v: paged through\n%v, want\n%v", oldest, got, all)
			}
		}
	})
}

// TestSendAll sends again in parts.
func TestSendAll(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{SIMs: 5})
		b.listen()
		id := b.accept(license.Assign, license.SKUFlexible, b.sims...)
		b.carry(license.Done)
		for i, c := range b.claimCallbacks(5) {
			v := license.Exhausted
			if i == 0 {
				v = license.Delivered
			}
			b.finish(c, v)
		}
		o := store.SendOrder{CallbackFilter: store.CallbackFilter{Account: storetest.Account, OldestFirst: true}, Most: 3, DryRun: true}
		r, err := s.SendAll(t.Context(), o, b.now)
		if err != nil || r.Queued != 3 || r.Next.Request != id {
			t.Errorf("a dry run: %+v, %v", r, err)
		}
		o.DryRun = false
		if r, err = s.SendAll(t.Context(), o, b.now); err != nil || r.Queued != 3 {
			t.Errorf("the first part: %+v, %v", r, err)
		}
		o.After = r.Next
		if r, err = s.SendAll(t.Context(), o, b.now); err != nil || r.Queued != 1 || r.Next.Request != "" {
			t.Errorf("the rest: %+v, %v", r, err)
		}
		o = store.SendOrder{CallbackFilter: store.CallbackFilter{Account: storetest.Account, Request: id}}
		if r, err = s.SendAll(t.Context(), o, b.now); err != nil || r.Queued != 0 || r.Left[store.CallbackWaiting] != 4 || r.Left[store.CallbackDelivered] != 1 {
			t.Errorf("of the request: %+v, %v", r, err)
		}
		o.ICCID, o.Delivered = b.sims[0].Device.ICCID, true
		if r, err = s.SendAll(t.Context(), o, b.now); err != nil || r.Queued != 1 {
			t.Errorf("of one SIM: %+v, %v", r, err)
		}
		b.verify()
	})
}

// TestSIMHistory tells what was done with a SIM, and what is under way.
func TestSIMHistory(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		sim := b.sims[0]
		var want []string
		for i, action := range []license.Action{license.Assign, license.Unassign, license.Assign} {
			b.now = b.now.Add(time.Hour)
			b.accept(action, license.SKUFlexible, sim)
			sims, err := s.Devices(t.Context(), license.DeviceFilter{Accounts: []license.AccountName{sim.Account}, Limit: 10})
			must(t, err)
			pending, err := s.Pending(t.Context(), sim.Account, sims)
			if err != nil || len(pending) != 1 || pending[sim.Device.ICCID] != action {
				t.Errorf("pending: %v, %v", pending, err)
			}
			if i < 2 {
				b.carry(license.Done)
			}
			want = slices.Insert(want, 0, fmt.Sprintf("%s SIMSec-IoT", action))
		}
		var got []string
		for before := license.RequestID(""); ; {
			page, err := s.History(t.Context(), sim.Account, sim.Device.ICCID, before, 1)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			got = append(got, fmt.Sprintf("%s %s", page[0].Action, page[0].SKU))
			before = page[0].Request
		}
		if !slices.Equal(got, want) {
			t.Errorf("the history is %v, want %v", got, want)
		}
		if a, err := s.OwnerOf(t.Context(), sim.Device.ICCID); err != nil || a != sim.Account {
			t.Errorf("OwnerOf = %s, %v", a, err)
		}
		postings, err := s.Postings(t.Context(), sim.Account, b.accept(license.Assign, license.SKUFlexible, b.sims[1]), 0, 10)
		if err != nil || len(postings) != 1 || postings[0].Kind != "reserve" || postings[0].Units != 1 {
			t.Errorf("postings: %v, %v", postings, err)
		}
	})
}

// TestOperatorLists pages through what else an operator lists.
func TestOperatorLists(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{SIMs: -1})
		ctx := t.Context()
		for i := range 3 {
			must(t, s.AddApplication(ctx, fmt.Sprintf("app-%d", i), "hash", b.now))
			must(t, s.AddUser(ctx, auth.User{Name: fmt.Sprintf("user-%d", i), Accounts: []license.AccountName{storetest.Account}}, b.now))
			must(t, s.AddAccount(ctx, license.AccountName(fmt.Sprintf("more-%d", i)), b.now))
			_, err := s.AddPurchase(ctx, license.Purchase{Account: storetest.Account, SKU: license.SKUFlexible, Units: 1, Reference: "r", Reason: fmt.Sprint(i)}, b.now)
			must(t, err)
		}
		apps, err := s.ApplicationsAfter(ctx, "app-0", 1)
		if err != nil || len(apps) != 1 || apps[0].Key != "app-1" {
			t.Errorf("ApplicationsAfter = %v, %v", apps, err)
		}
		users, err := s.UsersAfter(ctx, "user-1", 5)
		if err != nil || len(users) != 1 || users[0].Name != "user-2" || len(users[0].Accounts) != 1 {
			t.Errorf("UsersAfter = %v, %v", users, err)
		}
		accounts, err := s.AccountsAfter(ctx, "more-0", 5)
		if err != nil || len(accounts) != 2 || accounts[0].Name != "more-1" || !accounts[0].Created.Equal(b.now) {
			t.Errorf("AccountsAfter = %v, %v", accounts, err)
		}
		if a, err := s.Account(ctx, "000012345600001"); err != nil || a.Name != storetest.Account {
			t.Errorf("Account = %v, %v", a, err)
		}
		if _, err := s.Account(ctx, "nobody"); !errors.Is(err, license.ErrNotFound) {
			t.Errorf("Account of nobody: %v", err)
		}
		purchases, err := s.Purchases(ctx, storetest.Account, license.SKUFlexible, 0, 2)
		if err != nil || len(purchases) != 2 || purchases[0].Number != 4 || purchases[0].Reason != "2" || purchases[1].Number != 3 {
			t.Errorf("Purchases = %v, %v", purchases, err)
		}
		purchases, err = s.Purchases(ctx, storetest.Account, license.SKUFlexible, 2, 10)
		if err != nil || len(purchases) != 1 || purchases[0].Units != 100 {
			t.Errorf("Purchases before the second = %v, %v", purchases, err)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

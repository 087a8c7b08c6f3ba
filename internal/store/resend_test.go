package store_test

import (
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

// allStates are those that a callback passes through.
var allStates = []store.CallbackState{
	store.CallbackUndelivered, store.CallbackUnsent, store.CallbackDelivered,
	store.CallbackWaiting, store.CallbackCarrier, store.CallbackStuck,
}

// kept lists what a filter selects; without states it means all.
func (b *bench) kept(f store.CallbackFilter) (list []store.KeptCallback) {
	b.t.Helper()
	f.Account = storetest.Account
	if f.States == nil {
		f.States = allStates
	}
	for c, err := range b.s.Callbacks(b.t.Context(), f) {
		if err != nil {
			b.t.Fatalf("Callbacks: %v", err)
		}
		list = append(list, c)
	}
	return list
}

func (b *bench) sendAgain(list []store.KeptCallback) int {
	b.t.Helper()
	n, err := b.s.SendAgain(b.t.Context(), storetest.Account, list, b.now)
	if err != nil {
		b.t.Fatalf("SendAgain: %v", err)
	}
	return n
}

// end has one SIM's callback end by a verdict.
func (b *bench) end(sim license.SIM, v license.DeliveryVerdict) license.RequestID {
	b.t.Helper()
	id := b.accept(license.Assign, license.SKUFlexible, sim)
	b.carry(license.Done)
	b.finish(b.claimCallbacks(1)[0], v)
	return id
}

func (b *bench) only(id license.RequestID) store.KeptCallback {
	b.t.Helper()
	list := b.kept(store.CallbackFilter{Request: id})
	if len(list) != 1 {
		b.t.Fatalf("%d callbacks of request %s, want one", len(list), id)
	}
	return list[0]
}

// TestSendAgain takes one callback through two rounds.
func TestSendAgain(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		b.listen()
		id := b.accept(license.Assign, license.SKUFlexible, b.sims[0])
		b.carry(license.Done)
		for range 3 {
			b.finish(b.claimCallbacks(1)[0], license.Again)
			b.now = b.now.Add(5 * time.Minute)
		}
		last := b.claimCallbacks(1)[0]
		if _, err := s.SendAgain(t.Context(), storetest.Account, b.kept(store.CallbackFilter{}), b.now); !errors.Is(err, license.ErrNotEnded) {
			t.Errorf("sending again what is being sent: %v, want ErrNotEnded", err)
		}
		b.finish(last, license.Exhausted)
		ended := b.only(id)
		if ended.State != store.CallbackUndelivered || ended.Attempt != 4 || ended.Status != 500 || !ended.Ended.Equal(b.now) || !ended.Due.IsZero() {
			t.Errorf("after four attempts: %+v", ended)
		}

		b.now = b.now.Add(time.Hour)
		if n := b.sendAgain([]store.KeptCallback{ended, ended}); n != 1 {
			t.Errorf("sent %d again, want 1", n)
		}
		if n := b.sendAgain([]store.KeptCallback{ended}); n != 0 {
			t.Errorf("a second operator sent %d again, want none: it is another callback by now", n)
		}
		b.finish(last, license.Delivered) // a node that wakes up late
		waiting := b.only(id)
		if waiting.State != store.CallbackWaiting || waiting.Attempt != 0 || waiting.Round != 1 || !waiting.Due.Equal(b.now) || !waiting.Ended.IsZero() {
			t.Errorf("sent again: %+v", waiting)
		}
		again := b.claimCallbacks(10)
		if len(again) != 1 || again[0].Attempt != 0 || again[0].Round != 1 || again[0].WebhookID() != last.WebhookID() || !again[0].OK {
			t.Fatalf("claimed %+v, want the callback with no attempt in round 1, under the name it had", again)
		}
		b.finish(again[0], license.Again)
		b.now = b.now.Add(5 * time.Minute)
		b.finish(b.claimCallbacks(1)[0], license.Delivered)
		if c := b.only(id); c.State != store.CallbackDelivered || c.Attempt != 2 || c.Round != 1 {
			t.Errorf("acknowledged: %+v", c)
		}
		attempts, err := s.Attempts(t.Context(), storetest.Account, id, b.sims[0].Device.ICCID)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range attempts {
			got = append(got, fmt.Sprintf("%d/%d %d %+q", a.Round, a.Number, a.Status, a.Answer))
		}
		want := []string{`0/1 500 "no\ufffd\ufffd"`, `0/2 500 "no\ufffd\ufffd"`, `0/3 500 "no\ufffd\ufffd"`, `0/4 500 "no\ufffd\ufffd"`, `1/1 500 "no\ufffd\ufffd"`}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the failed attempts of both rounds (-want +got):\n%s", diff)
		}
		b.wantPool(license.SKUFlexible, 0, 1)
	})
}

// TestSendAgainWithoutListener has nobody to send to: the callbacks stay as they
// are, until somebody registers.
func TestSendAgainWithoutListener(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		id := b.accept(license.Assign, license.SKUFlexible, b.sims[:2]...)
		tasks := b.claim(2)
		b.settle(license.Outcome{Task: tasks[0], Verdict: license.Refused, Code: "c", Comment: "no"}, license.Outcome{Task: tasks[1], Verdict: license.Done})
		unsent := b.kept(store.CallbackFilter{Request: id, States: []store.CallbackState{store.CallbackUnsent}})
		if len(unsent) != 2 || unsent[0].OK || unsent[0].Comment != "no" || !unsent[1].OK || unsent[1].SKU != license.SKUFlexible {
			t.Fatalf("unsent: %+v, want one refused and one done", unsent)
		}
		if err := s.CanSend(t.Context(), storetest.Account); !errors.Is(err, license.ErrNoListener) {
			t.Errorf("CanSend: %v, want ErrNoListener", err)
		}
		if _, err := s.SendAgain(t.Context(), storetest.Account, unsent, b.now); !errors.Is(err, license.ErrNoListener) {
			t.Errorf("SendAgain: %v, want ErrNoListener", err)
		}
		if diff := cmp.Diff(unsent, b.kept(store.CallbackFilter{Request: id})); diff != "" {
			t.Errorf("it left something (-before +after):\n%s", diff)
		}
		b.listen()
		if err := s.CanSend(t.Context(), storetest.Account); err != nil {
			t.Errorf("CanSend: %v", err)
		}
		if n := b.sendAgain(unsent); n != 2 {
			t.Errorf("sent %d again, want 2", n)
		}
		if got := b.claimCallbacks(10); len(got) != 2 || got[0].Comment != "no" || got[0].Code != "c" {
			t.Errorf("claimed %+v, want both", got)
		}
		b.wantPool(license.SKUFlexible, 0, 1)
	})
}

// TestCallbacks lists by request, time and state, in both orders.
func TestCallbacks(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		b.listen()
		start, name := b.now, map[license.RequestID]string{}
		note := func(id license.RequestID, as string) { name[id], b.now = as, b.now.Add(time.Hour) }
		note(b.end(b.sims[0], license.Exhausted), "exhausted")
		note(b.end(b.sims[1], license.Delivered), "delivered")
		unsent := b.end(b.sims[2], license.Unsent)
		note(unsent, "unsent")
		several := b.accept(license.Assign, license.SKUFlexible, b.sims[3:6]...)
		tasks := b.claim(3)
		b.settle(license.Outcome{Task: tasks[0], Verdict: license.Stuck}, license.Outcome{Task: tasks[1], Verdict: license.Refused})
		note(several, "several")

		at := func(hours int) time.Time { return start.Add(time.Duration(hours) * time.Hour) }
		missed := []store.CallbackState{store.CallbackUndelivered, store.CallbackUnsent}
		for _, test := range []struct {
			name   string
			filter store.CallbackFilter
			want   []string
		}{
			{"newest first", store.CallbackFilter{}, []string{"several stuck", "several waiting", "several carrier", "unsent unsent", "delivered delivered", "exhausted undelivered"}},
			{"oldest first", store.CallbackFilter{OldestFirst: true}, []string{"exhausted undelivered", "delivered delivered", "unsent unsent", "several stuck", "several waiting", "several carrier"}},
			{"not acknowledged", store.CallbackFilter{States: missed}, []string{"unsent unsent", "exhausted undelivered"}},
			{"since", store.CallbackFilter{Since: at(2)}, []string{"several stuck", "several waiting", "several carrier", "unsent unsent"}},
			{"since, oldest first", store.CallbackFilter{Since: at(2), OldestFirst: true, States: missed}, []string{"unsent unsent"}},
			{"until", store.CallbackFilter{Until: at(2)}, []string{"delivered delivered", "exhausted undelivered"}},
			{"between", store.CallbackFilter{Since: at(1), Until: at(2), OldestFirst: true}, []string{"delivered delivered"}},
			{"one request", store.CallbackFilter{Request: unsent}, []string{"unsent unsent"}},
			{"one request's", store.CallbackFilter{Request: unsent, States: []store.CallbackState{store.CallbackDelivered}}, nil},
			{"no states", store.CallbackFilter{States: []store.CallbackState{}}, nil},
		} {
			t.Run(test.name, func(t *testing.T) {
				var got []string
				for _, c := range b.kept(test.filter) {
					got = append(got, name[c.Request]+" "+string(c.State))
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		}
	})
}

// TestCallbackByName reads single callbacks, and what is none.
func TestCallbackByName(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		b.listen()
		id := b.accept(license.Assign, license.SKUFlexible, b.sims[3:6]...)
		b.carry(license.Refused)
		for _, err := range s.Callbacks(t.Context(), store.CallbackFilter{Account: storetest.Account, States: allStates}) {
			if err != nil {
				t.Error(err)
			}
			break // nothing is read on
		}
		for _, err := range s.Callbacks(t.Context(), store.CallbackFilter{Account: storetest.Account, Request: "none", States: allStates}) {
			if !errors.Is(err, license.ErrNotFound) {
				t.Errorf("an unknown request: %v, want ErrNotFound", err)
			}
		}
		c, err := s.Callback(t.Context(), storetest.Account, id, b.sims[4].Device.ICCID)
		if err != nil || c.Device != b.sims[4].Device || c.State != store.CallbackWaiting || c.Action != license.Assign || !c.Accepted.Equal(b.now) {
			t.Errorf("Callback = %+v, %v", c, err)
		}
		for _, iccid := range []license.ICCID{b.sims[0].Device.ICCID, "89148000000000000099"} {
			if _, err := s.Callback(t.Context(), storetest.Account, id, iccid); !errors.Is(err, license.ErrNotFound) {
				t.Errorf("a SIM that is not of the request: %v, want ErrNotFound", err)
			}
		}
	})
}

// TestCallbackPages walks what no single statement reads: more requests than a
// page has, and a request with more tasks.
func TestCallbackPages(t *testing.T) {
	if testing.Short() {
		t.Skip("many rows")
	}
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		const small, large = 1100, 5100
		b := newBench(t, s, storetest.Fixture{SIMs: small + large, Pools: map[license.SKU]int64{license.SKUFlexible: small + large}})
		for i := range small {
			if b.accept(license.Assign, license.SKUFlexible, b.sims[i]); i%3 == 0 {
				b.now = b.now.Add(time.Second) // several at once
			}
		}
		b.accept(license.Assign, license.SKUFlexible, b.sims[small:]...)
		b.carry(license.Done) // nobody listens
		for _, oldest := range []bool{true, false} {
			list := b.kept(store.CallbackFilter{OldestFirst: oldest, States: []store.CallbackState{store.CallbackUnsent}})
			seen := map[license.ICCID]bool{}
			for i, c := range list {
				seen[c.Device.ICCID] = true
				if i > 0 && list[i-1].Accepted != c.Accepted && list[i-1].Accepted.Before(c.Accepted) != oldest {
					t.Fatalf("oldest first %v: %v after %v", oldest, c.Accepted, list[i-1].Accepted)
				}
				if i > 0 && list[i-1].Request == c.Request && list[i-1].Device.ICCID >= c.Device.ICCID {
					t.Fatalf("SIM %s after %s", c.Device.ICCID, list[i-1].Device.ICCID)
				}
			}
			if len(seen) != small+large || len(list) != small+large {
				t.Fatalf("oldest first %v: %d callbacks of %d SIMs, want %d", oldest, len(list), len(seen), small+large)
			}
		}
		b.listen()
		list := b.kept(store.CallbackFilter{})
		if n := b.sendAgain(list); n != small+large {
			t.Errorf("sent %d again, want %d", n, small+large)
		}
		due, err := s.DueAccounts(t.Context(), license.PhaseListener, b.now)
		if err != nil || len(due) != 1 || due[0].Count != small+large {
			t.Errorf("due: %+v, %v; want all", due, err)
		}
	})
}

// TestPurgeAfterSendingAgain has a callback sent again kept as long as one that
// was not, with the attempts of all its rounds, and deleted with them.
func TestPurgeAfterSendingAgain(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		b.listen()
		id := b.end(b.sims[0], license.Exhausted)
		start := b.now
		purge := func(days, want int) {
			t.Helper()
			b.now = start.Add(time.Duration(days) * 24 * time.Hour)
			n, err := s.Purge(t.Context(), b.now, 7*24*time.Hour)
			if err != nil || n != want {
				t.Errorf("purged %d rows after %d days (%v), want %d", n, days, err, want)
			}
			b.verify()
		}
		purge(29, 0)
		b.sendAgain(b.kept(store.CallbackFilter{}))
		purge(60, 0) // waiting, for whatever reason
		b.finish(b.claimCallbacks(1)[0], license.Exhausted)
		purge(89, 0)
		purge(91, 3) // the task and an attempt of each round
		if got := b.kept(store.CallbackFilter{Request: id}); len(got) > 0 {
			t.Errorf("kept %+v after the purge", got)
		}
		if p, err := s.Progress(t.Context(), storetest.Account, id); err != nil || !p.Purged.Equal(b.now) {
			t.Errorf("Progress = %+v, %v; want it to say when it was purged", p, err)
		}
		if attempts, err := s.Attempts(t.Context(), storetest.Account, id, b.sims[0].Device.ICCID); err != nil || len(attempts) > 0 {
			t.Errorf("Attempts = %+v, %v; want none", attempts, err)
		}
	})
}

// TestPurgeRaces has an operator send again what the purge is about to delete:
// what was sent again is there, what was purged was not sent, and nothing is
// lost between them.
func TestPurgeRaces(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		const many = 120
		b := newBench(t, s, storetest.Fixture{SIMs: many, Pools: map[license.SKU]int64{license.SKUFlexible: many}})
		for i := 0; i < many; i += 2 {
			b.accept(license.Assign, license.SKUFlexible, b.sims[i:i+2]...)
		}
		b.carry(license.Done) // nobody listens yet
		b.listen()
		list := b.kept(store.CallbackFilter{})
		b.now = b.now.Add(31 * 24 * time.Hour)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := s.Purge(t.Context(), b.now, time.Hour); err != nil {
				t.Error(err)
			}
		})
		queued := 0
		wg.Go(func() {
			for part := range slices.Chunk(list, 7) {
				n, err := s.SendAgain(t.Context(), storetest.Account, part, b.now)
				if err != nil {
					t.Error(err)
				}
				queued += n
			}
		})
		wg.Wait()
		if got := b.claimCallbacks(2 * many); len(got) != queued {
			t.Errorf("%d were sent again, and %d are due", queued, len(got))
		}
		b.verify()
	})
}
